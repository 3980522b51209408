//! The marketplace's own wire format: its routes, and what each asks of the market.

mod account;
#[cfg(test)]
mod account_tests;
mod audited;
mod columns;
mod commands;
mod create;
mod host;
mod instances;
mod offers;
mod records;
pub(super) mod routes;

use serde::Serialize;
use serde_json::{Map, Value};

use self::routes::{Family, Operation};
use super::api::MarketError;
use super::sim::Market;

/// One call, after matching and authentication.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// Whose key it carries; `None` where it carries none, which only searches allow.
    pub(super) account: Option<u64>,
    /// The parameters of the path, in their order.
    pub(super) ids: &'a [String],
    /// The query, as it came.
    pub(super) query: &'a [(String, String)],
    /// The fields of the body; none where there is no body.
    pub(super) body: &'a Map<String, Value>,
    /// Scheme, host and port under which the caller reached the market, for URLs in answers.
    pub(super) origin: &'a str,
}

impl<'a> Call<'a> {
    /// Whose it is.
    ///
    /// # Errors
    /// 403 without a key.
    pub(super) fn account(&self) -> Result<u64, MarketError> {
        self.account
            .ok_or_else(|| MarketError::new(403, "auth_error", "This action requires login."))
    }

    /// A query parameter that is given and not empty.
    pub(super) fn parameter(&self, name: &str) -> Option<&'a str> {
        let pair = self.query.iter().find(|(key, _)| key == name);
        pair.map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// A field of the body. Null is as good as absent: clients send what they do not set as null.
    pub(super) fn field(&self, name: &str) -> Option<&'a Value> {
        self.body.get(name).filter(|value| !value.is_null())
    }

    /// A number of the body; clients send numbers as texts, too.
    ///
    /// # Errors
    /// 400 `invalid_args` where it is something else.
    fn number(&self, name: &str) -> Result<Option<f64>, MarketError> {
        let Some(value) = self.field(name) else {
            return Ok(None);
        };
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number.filter(|number: &f64| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(MarketError::invalid_args(format_args!(
                "{name} is not a number"
            ))),
        }
    }

    /// An id, or another whole number, of the body.
    ///
    /// # Errors
    /// 400 `invalid_args` where it is something else.
    fn whole(&self, name: &str) -> Result<Option<u64>, MarketError> {
        let Some(value) = self.field(name) else {
            return Ok(None);
        };
        match whole(value) {
            Some(whole) => Ok(Some(whole)),
            None => Err(MarketError::invalid_args(format_args!(
                "{name} is not an id"
            ))),
        }
    }

    /// A text of the body.
    ///
    /// # Errors
    /// 400 `invalid_args` where it is something else.
    fn text(&self, name: &str) -> Result<Option<String>, MarketError> {
        match self.field(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(MarketError::invalid_args(format_args!(
                "{name} is not a text"
            ))),
        }
    }

    /// A boolean of the body, or its text.
    ///
    /// # Errors
    /// 400 `invalid_args` where it is something else.
    fn truth(&self, name: &str) -> Result<Option<bool>, MarketError> {
        let truth = match self.field(name) {
            None => return Ok(None),
            Some(Value::Bool(truth)) => Some(*truth),
            Some(Value::String(text)) => text.to_ascii_lowercase().parse().ok(),
            Some(_) => None,
        };
        truth
            .map(Some)
            .ok_or_else(|| MarketError::invalid_args(format_args!("{name} is not a boolean")))
    }

    /// The ids of the body under a name: numbers, or texts of such.
    ///
    /// # Errors
    /// 400 `invalid_args` where it is no list of ids.
    fn id_list(&self, name: &str) -> Result<Option<Vec<u64>>, MarketError> {
        let wrong = || MarketError::invalid_args(format_args!("{name} is not a list of ids"));
        let Some(value) = self.field(name) else {
            return Ok(None);
        };
        let ids = value.as_array().ok_or_else(wrong)?;
        ids.iter()
            .map(|id| whole(id).ok_or_else(wrong))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// A parameter of the query that holds JSON.
    ///
    /// # Errors
    /// 400 `invalid_request` where it does not.
    fn json(&self, name: &str) -> Result<Option<Value>, MarketError> {
        let Some(text) = self.parameter(name) else {
            return Ok(None);
        };
        serde_json::from_str(text).map(Some).map_err(|_| {
            invalid_request(format_args!("Error in query parameters: {name} is no JSON"))
        })
    }

    /// The first parameter of the path as a number.
    ///
    /// # Errors
    /// 404 `no_such_instance`, as for any unknown one.
    pub(super) fn id(&self) -> Result<u64, MarketError> {
        let id = self.ids.first().map_or("null", String::as_str);
        id.parse()
            .map_err(|_| MarketError::new(404, "no_such_instance", format!("{id} was not found.")))
    }
}

/// Performs an operation. The answer is the text of a JSON value.
pub(super) fn perform(
    market: &mut Market,
    family: Family,
    operation: Operation,
    call: &Call<'_>,
) -> Result<String, MarketError> {
    if let (Some(account), Some(route)) = (call.account, audited::route(operation)) {
        market.log_call(account, &route, call.body);
    }
    answer(market, family, operation, call)
}

/// The same without a note in the audit log: for who notes the call itself.
pub(super) fn answer(
    market: &mut Market,
    family: Family,
    operation: Operation,
    call: &Call<'_>,
) -> Result<String, MarketError> {
    match family {
        Family::Offers => offers::perform(market, operation, call),
        Family::Instances => instances::perform(market, operation, call),
        Family::Commands => commands::perform(market, operation, call),
        Family::Account => account::perform(market, operation, call),
        Family::Records => records::perform(market, operation, call),
        Family::Host => host::perform(market, operation, call),
    }
}

/// The text of an answer.
fn written(answer: &impl Serialize) -> Result<String, MarketError> {
    serde_json::to_string(answer).map_err(|error| {
        MarketError::new(500, "server_error", format!("cannot be written: {error}"))
    })
}

/// The answer where there is nothing to say but that it was done.
fn done() -> String {
    r#"{"success":true}"#.to_owned()
}

/// The refusal of a call without a field that it needs.
fn missing(name: &str) -> MarketError {
    MarketError::invalid_args(format_args!("{name} is required"))
}

fn invalid_request(why: impl std::fmt::Display) -> MarketError {
    MarketError::new(400, "invalid_request", why.to_string())
}

/// A whole number that is not negative, or its text.
fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The answer to what a module has no arm for: a mistake in the table of routes.
fn not_here(operation: Operation) -> MarketError {
    MarketError::new(501, "server_error", format!("{operation:?} is not served"))
}
