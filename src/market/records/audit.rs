//! The calls that changed something, or tried to.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use crate::types::time::Time;

/// So many rows are kept; older ones are forgotten.
const ROWS_MAX: usize = 1000;
/// Longest text that an argument keeps, in characters.
const TEXT_MAX: usize = 200;
/// So many arguments, and so many elements of one, are kept.
const ENTRIES_MAX: usize = 40;
/// How deep arguments are kept.
const DEPTH_MAX: usize = 4;

/// Arguments whose values may be secret, whatever they are in.
const SECRET: &[&str] = &[
    "env",
    "extra_env",
    "onstart",
    "args",
    "args_str",
    "command",
    "image_login",
    "flags",
];
/// Parts of names whose values are secret.
const SECRET_PARTS: &[&str] = &["pass", "secret", "token", "api_key", "login"];

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct AuditRow {
    /// When.
    pub(crate) at: Time,
    /// The marketplace's name of the route.
    pub(crate) route: String,
    /// What was asked, without secrets.
    pub(crate) args: Value,
}

/// The last calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audit(VecDeque<AuditRow>);

impl Audit {
    /// Notes one.
    pub(crate) fn log(&mut self, at: Time, route: &str, args: &Map<String, Value>) {
        if self.0.len() == ROWS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(AuditRow {
            at,
            route: route.to_owned(),
            args: kept(&Value::Object(args.clone()), DEPTH_MAX),
        });
    }

    /// Oldest first.
    pub(crate) fn rows(&self) -> impl DoubleEndedIterator<Item = &AuditRow> {
        self.0.iter()
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.contains(&name.as_str()) || SECRET_PARTS.iter().any(|part| name.contains(part))
}

/// A value without its secrets, cut to a bounded size.
fn kept(value: &Value, depth: usize) -> Value {
    match value {
        Value::Object(_) | Value::Array(_) if depth == 0 => Value::from("…"),
        Value::Object(fields) => fields
            .iter()
            .take(ENTRIES_MAX)
            .map(|(name, value)| {
                let value = if is_secret(name) && !value.is_null() {
                    Value::from("[redacted]")
                } else {
                    kept(value, depth - 1)
                };
                (short(name), value)
            })
            .collect::<Map<String, Value>>()
            .into(),
        Value::Array(values) => values
            .iter()
            .take(ENTRIES_MAX)
            .map(|value| kept(value, depth - 1))
            .collect(),
        Value::String(text) => Value::from(short(text)),
        scalar => scalar.clone(),
    }
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}
