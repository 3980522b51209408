//! Fields of a body, of the kinds that these routes take. Null is as good as absent.

use serde::Serialize;
use serde_json::Value;

use super::Call;
use crate::market::api::MarketError;

/// A text.
///
/// # Errors
/// `invalid_args` for anything else.
pub(super) fn text<'a>(call: &Call<'a>, name: &str) -> Result<Option<&'a str>, MarketError> {
    match call.field(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(not_a(name, "text")),
    }
}

/// A finite number; clients send numbers as texts, too.
///
/// # Errors
/// `invalid_args` for anything else.
pub(super) fn number(call: &Call<'_>, name: &str) -> Result<Option<f64>, MarketError> {
    let Some(value) = call.field(name) else {
        return Ok(None);
    };
    let number = match value {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_f64(),
    };
    match number.filter(|number: &f64| number.is_finite()) {
        Some(number) => Ok(Some(number)),
        None => Err(not_a(name, "number")),
    }
}

/// An id.
///
/// # Errors
/// `invalid_args` for anything else.
pub(super) fn id(call: &Call<'_>, name: &str) -> Result<Option<u64>, MarketError> {
    let Some(value) = call.field(name) else {
        return Ok(None);
    };
    let id = match value {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_u64(),
    };
    match id {
        Some(id) => Ok(Some(id)),
        None => Err(not_a(name, "id")),
    }
}

fn not_a(name: &str, what: &str) -> MarketError {
    MarketError::invalid_args(format_args!("{name} is no {what}"))
}

/// The refusal of a call without a field that it needs.
pub(super) fn missing(name: &str) -> MarketError {
    MarketError::invalid_args(format_args!("{name} is required"))
}

/// The answer as the text of JSON.
pub(super) fn answer(value: &impl Serialize) -> Result<String, MarketError> {
    serde_json::to_string(value).map_err(|error| {
        MarketError::new(500, "server_error", format!("cannot be written: {error}"))
    })
}

/// The answer where there is nothing to say but that it was done.
pub(super) fn done() -> String {
    r#"{"success":true}"#.to_owned()
}
