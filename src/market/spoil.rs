//! What faults make of an answer on its way back.

use bytes::Bytes;
use serde_json::{Value, json};

use super::faults::Fault;
use super::wire;
use crate::ports::Reply;
use crate::types::time::Time;

/// Lists in answers, by their names.
const LISTS: &[&str] = &[
    "offers",
    "instances",
    "results",
    "invoices",
    "templates",
    "machines",
    "notifications",
];

/// Numbers that say how many rows there are, in all or in this answer.
const COUNTS: &[&str] = &[
    "total",
    "count",
    "total_instances",
    "instances_found",
    "templates_found",
];

/// Fields that hold moments, in epoch seconds.
const MOMENTS: &[&str] = &[
    "start_date",
    "end_date",
    "start",
    "end",
    "when",
    "timestamp",
    "created_at",
    "paid_on",
];

/// How far a clock is off, in seconds: over a day ahead, and an hour behind.
const SKEWS: [i64; 4] = [97, -3600, 7200, 90_000];

/// An answer with a fault in it, in one of several shapes chosen by a number. Faults that spoil no
/// answers leave it as it is.
pub(super) fn spoilt(fault: Fault, shape: u64, reply: Reply, now: Time) -> Reply {
    match fault {
        Fault::Garbage => wire::garbage(shape, &reply),
        Fault::Html => wire::web_page(shape),
        Fault::Truncated => Reply {
            body: reply.body.slice(..reply.body.len() * 2 / 3),
            ..reply
        },
        Fault::Partial if reply.status == 200 => partial(shape, reply),
        Fault::ContentType => mistyped(shape, reply),
        Fault::Skewed => skewed(SKEWS[(shape % 4) as usize], reply, now),
        _ => reply,
    }
}

/// A listing without its rows, well-formed. What is no listing stays as it is.
pub(super) fn emptied(reply: Reply) -> Reply {
    changed(reply, |answer| {
        let Some(rows) = rows(answer) else {
            return false;
        };
        rows.clear();
        each_field(answer, &mut |name, value| {
            if COUNTS.contains(&name) {
                *value = json!(0);
            } else if name == "next_token" {
                *value = Value::Null;
            }
        });
        true
    })
}

/// A listing that lacks rows though it announces them: those at its end, every other one, or all
/// pages after this one.
fn partial(shape: u64, reply: Reply) -> Reply {
    changed(reply, |answer| {
        let Some(rows) = rows(answer) else {
            return false;
        };
        match shape % 3 {
            0 => rows.truncate(rows.len() / 2),
            1 => {
                let mut kept = false;
                rows.retain(|_| {
                    kept = !kept;
                    kept
                });
            }
            _ => {
                rows.pop();
                each_field(answer, &mut |name, value| {
                    if name == "next_token" {
                        *value = Value::Null;
                    }
                });
            }
        }
        true
    })
}

/// The same body under another content type.
fn mistyped(shape: u64, mut reply: Reply) -> Reply {
    let kinds = [
        "application/json; charset=utf-8",
        "text/html; charset=utf-8",
        "text/plain",
        "application/octet-stream",
    ];
    let kind = kinds[(shape % 4) as usize];
    for (name, value) in &mut reply.headers {
        if name == "content-type" {
            kind.clone_into(value);
        }
    }
    reply
}

/// An answer by a clock that is off by so many seconds: its `Date` and the moments in it.
fn skewed(seconds: i64, reply: Reply, now: Time) -> Reply {
    let mut reply = changed(reply, |answer| {
        each_field(answer, &mut |name, value| {
            if !MOMENTS.contains(&name) {
                return;
            }
            if let Some(moment) = value.as_f64() {
                *value = json!(moment + seconds as f64);
            }
        });
        true
    });
    let date = chrono::DateTime::from_timestamp_millis(now.0.saturating_add(seconds * 1000));
    if let Some(date) = date {
        let text = date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        reply.headers.push(("date".to_owned(), text));
    }
    reply
}

/// Changes the JSON of a reply, if it is one and `change` says that it did.
fn changed(reply: Reply, change: impl FnOnce(&mut Value) -> bool) -> Reply {
    let Ok(mut answer) = serde_json::from_slice::<Value>(&reply.body) else {
        return reply;
    };
    if !change(&mut answer) {
        return reply;
    }
    Reply {
        body: Bytes::from(answer.to_string()),
        ..reply
    }
}

/// The rows of a listing: the whole answer, or a list in it, in whatever envelope.
fn rows(answer: &mut Value) -> Option<&mut Vec<Value>> {
    match answer {
        Value::Array(rows) => Some(rows),
        Value::Object(fields) => {
            let name = fields
                .iter()
                .find(|(name, value)| LISTS.contains(&name.as_str()) && value.is_array())
                .map(|(name, _)| name.clone());
            if let Some(name) = name {
                return fields.get_mut(&name)?.as_array_mut();
            }
            let inner = ["data", "result"]
                .into_iter()
                .find(|n| fields.contains_key(*n))?;
            rows(fields.get_mut(inner)?)
        }
        _ => None,
    }
}

fn each_field(value: &mut Value, change: &mut impl FnMut(&str, &mut Value)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                change(name, value);
                each_field(value, change);
            }
        }
        Value::Array(values) => {
            for value in values {
                each_field(value, change);
            }
        }
        _ => {}
    }
}
