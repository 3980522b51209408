//! Lists that are narrowed by columns: `select_filters`, `select_cols`, `order_by` and pages.
//!
//! Filters are `{column: {operator: value}}`, all of them to be met. The official client sends
//! every operand as a text, so operands are read by what the column holds.

use std::cmp::Ordering;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Call;
use crate::market::api::MarketError;
use crate::types::time::Time;

/// Longest text of a parameter that is read as JSON, in bytes.
const PARAMETER_MAX: usize = 65_536;

/// The object that a parameter holds as JSON; empty where it is not given.
///
/// # Errors
/// `invalid_request` where it is no JSON object.
pub(super) fn object(call: &Call<'_>, name: &str) -> Result<Map<String, Value>, MarketError> {
    let Some(text) = call.parameter(name) else {
        return Ok(Map::new());
    };
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) if text.len() <= PARAMETER_MAX => Ok(object),
        _ => Err(refuse(&format!("{name} is no JSON object"))),
    }
}

/// Rows that meet the call's filters, in its order, with the columns that it asks for.
///
/// # Errors
/// `invalid_request` for filters that are none, and columns that there are not.
pub(super) fn select(call: &Call<'_>, mut rows: Vec<Value>) -> Result<Vec<Value>, MarketError> {
    let filters = object(call, "select_filters")?;
    if let Some(first) = rows.first() {
        let unknown = filters.keys().find(|name| first.get(*name).is_none());
        if let Some(name) = unknown {
            let name: String = name.chars().take(40).collect();
            return Err(refuse(&format!("{name} is not a valid search key")));
        }
    }
    let mut kept = Vec::with_capacity(rows.len());
    for row in rows.drain(..) {
        if meets(&row, &filters)? {
            kept.push(row);
        }
    }
    sort(call, &mut kept)?;
    let Some(columns) = columns(call)? else {
        return Ok(kept);
    };
    let narrowed = kept.iter().map(|row| {
        columns
            .iter()
            .map(|name| (name.clone(), row[name.as_str()].clone()))
            .collect::<Map<String, Value>>()
            .into()
    });
    Ok(narrowed.collect())
}

fn meets(row: &Value, filters: &Map<String, Value>) -> Result<bool, MarketError> {
    let mut all = true;
    for (name, tests) in filters.iter().filter(|(_, tests)| !tests.is_null()) {
        let Some(tests) = tests.as_object() else {
            return Err(refuse(&format!("{name} needs an object of operators")));
        };
        for (op, operand) in tests.iter().filter(|(_, operand)| !operand.is_null()) {
            let cell = &row[name.as_str()];
            let compared = compare(cell, operand);
            let is_in = || {
                let among = operand.as_array().map(|among| {
                    among
                        .iter()
                        .any(|one| compare(cell, one) == Some(Ordering::Equal))
                });
                among.ok_or_else(|| refuse(&format!("{name}: {op} needs an array")))
            };
            all &= match op.as_str() {
                "eq" => compared == Some(Ordering::Equal),
                "neq" => compared != Some(Ordering::Equal),
                "gt" => compared == Some(Ordering::Greater),
                "gte" => matches!(compared, Some(Ordering::Greater | Ordering::Equal)),
                "lt" => compared == Some(Ordering::Less),
                "lte" => matches!(compared, Some(Ordering::Less | Ordering::Equal)),
                "in" => is_in()?,
                "notin" | "not in" | "nin" => !is_in()?,
                _ => {
                    let op: String = op.chars().take(40).collect();
                    return Err(refuse(&format!("{op} is not a valid operator ({name})")));
                }
            };
        }
    }
    Ok(all)
}

/// How a cell stands to an operand; `None` where they cannot be compared.
fn compare(cell: &Value, operand: &Value) -> Option<Ordering> {
    match cell {
        Value::Number(number) => {
            let other = match operand {
                Value::String(text) => text.trim().parse().ok(),
                other => other.as_f64(),
            };
            number.as_f64()?.partial_cmp(&other?)
        }
        Value::Bool(truth) => {
            let other = match operand {
                Value::Bool(other) => *other,
                Value::String(text) => text.to_ascii_lowercase().parse().ok()?,
                _ => return None,
            };
            Some(truth.cmp(&other))
        }
        Value::String(text) => match operand {
            Value::String(other) => Some(text.as_str().cmp(other)),
            Value::Number(other) => Some(text.as_str().cmp(other.to_string().as_str())),
            _ => None,
        },
        _ => None,
    }
}

fn sort(call: &Call<'_>, rows: &mut [Value]) -> Result<(), MarketError> {
    let Some(text) = call.parameter("order_by") else {
        return Ok(());
    };
    let Ok(Value::Array(keys)) = serde_json::from_str(text) else {
        return Err(refuse("order_by is no JSON array"));
    };
    // The last key sorts first, for sorting is stable.
    for key in keys.iter().take(8).rev() {
        let Some(column) = key["col"].as_str() else {
            return Err(refuse("order_by needs a col"));
        };
        let descending = key["dir"] == "desc";
        rows.sort_by(|a, b| in_order(&a[column], &b[column], descending));
    }
    Ok(())
}

/// How two cells of a column are ordered. It is a total order, whatever kinds of value the column
/// mixes, for sorting by any other may panic; what is missing is last whichever way.
fn in_order(a: &Value, b: &Value, descending: bool) -> Ordering {
    let kind = |cell: &Value| match cell {
        Value::Bool(_) => 0,
        Value::Number(_) => 1,
        Value::String(_) => 2,
        Value::Array(_) | Value::Object(_) => 3,
        Value::Null => 4,
    };
    let order = match (a, b) {
        (Value::Null, _) | (_, Value::Null) => return kind(a).cmp(&kind(b)),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => {
            let number = |n: &serde_json::Number| n.as_f64().unwrap_or(f64::NAN);
            number(a).total_cmp(&number(b))
        }
        (Value::String(a), Value::String(b)) => a.cmp(b),
        _ => kind(a).cmp(&kind(b)),
    };
    if descending { order.reverse() } else { order }
}

/// The columns that a call asks for; `None`: all.
fn columns(call: &Call<'_>) -> Result<Option<Vec<String>>, MarketError> {
    let Some(text) = call.parameter("select_cols") else {
        return Ok(None);
    };
    let Ok(columns) = serde_json::from_str::<Vec<String>>(text) else {
        return Err(refuse("select_cols is no JSON array of texts"));
    };
    let all = columns.iter().any(|name| name == "*");
    Ok((!all && columns.len() <= 200).then_some(columns))
}

/// A span of time among filters, `gte` to `lte` in epoch seconds; `None` where an end of it is
/// missing or none.
pub(super) fn span(range: &Value) -> Option<(Time, Time)> {
    let bound = |ops: [&str; 2]| {
        let value = ops.iter().find_map(|op| range.get(*op))?;
        let seconds = match value {
            Value::String(text) => text.trim().parse().ok(),
            value => value.as_f64(),
        };
        Time::from_epoch_seconds(seconds?)
    };
    Some((bound(["gte", "gt"])?, bound(["lte", "lt"])?))
}

/// One page of rows.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) rows: Vec<Value>,
    /// Rows of all pages.
    pub(super) total: usize,
    /// For the next page; `None` where this is the last.
    pub(super) next: Option<String>,
}

/// A row with what it is ordered by: milliseconds, then a text that is unique among them.
pub(super) type Keyed = ((i64, String), Value);

/// The page that a call asks for: `limit`, `after_token`, `latest_first`.
///
/// # Errors
/// `invalid_token`, and `invalid_request` for a limit that is no number.
pub(super) fn page(
    call: &Call<'_>,
    mut rows: Vec<Keyed>,
    usual: usize,
    most: usize,
) -> Result<Page, MarketError> {
    rows.sort_by(|(a, _), (b, _)| a.cmp(b));
    let latest_first = matches!(call.parameter("latest_first"), Some("true" | "True" | "1"));
    if latest_first {
        rows.reverse();
    }
    let total = rows.len();
    if let Some(token) = call.parameter("after_token") {
        let last = read_token(token)?;
        rows.retain(|(key, _)| {
            if latest_first {
                *key < last
            } else {
                *key > last
            }
        });
    }
    let limit = match call.parameter("limit").map(str::parse::<i64>) {
        None => usual,
        Some(Ok(limit)) => usize::try_from(limit).unwrap_or(0).clamp(1, most),
        Some(Err(_)) => return Err(refuse("limit is no number")),
    };
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows
        .last()
        .filter(|_| more)
        .map(|((at, id), _)| STANDARD.encode(json!({"values": {"at": at, "id": id}}).to_string()));
    Ok(Page {
        rows: rows.into_iter().map(|(_, row)| row).collect(),
        total,
        next,
    })
}

fn read_token(token: &str) -> Result<(i64, String), MarketError> {
    let read = || {
        let bytes = STANDARD.decode(token).ok()?;
        let token: Value = serde_json::from_slice(&bytes).ok()?;
        let values = token.get("values")?;
        let id = values.get("id")?.as_str()?.to_owned();
        Some((values.get("at")?.as_i64()?, id))
    };
    read().ok_or_else(|| MarketError::new(400, "invalid_token", "Invalid pagination token"))
}

/// The documented refusal of a query.
pub(super) fn refuse(why: &str) -> MarketError {
    MarketError::new(
        400,
        "invalid_request",
        format!("Error in query parameters: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_mixed_kinds_are_ordered_all_the_same_and_what_is_missing_is_last() {
        let cells: Vec<Value> = (0..60)
            .map(|n| match n % 6 {
                0 => Value::Null,
                1 => json!(n * 7 % 13),
                2 => json!((n * 5 % 11).to_string()),
                3 => json!(n % 4 == 0),
                4 => json!(f64::from(n) / 3.0),
                _ => json!([n]),
            })
            .collect();
        for descending in [false, true] {
            let mut sorted = cells.clone();
            sorted.sort_by(|a, b| in_order(a, b, descending));
            let nulls = sorted.iter().rev().take_while(|cell| cell.is_null());
            assert_eq!(nulls.count(), 10);
            let numbers: Vec<f64> = sorted.iter().filter_map(Value::as_f64).collect();
            assert_eq!(numbers.len(), 20);
            let mut expected = numbers.clone();
            expected.sort_by(f64::total_cmp);
            if descending {
                expected.reverse();
            }
            assert_eq!(numbers, expected);
        }
    }
}
