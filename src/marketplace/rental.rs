//! What a rental's request has in common, whoever carries it.

use serde_json::{Map, Value};

use super::redact::Redactor;
use crate::ports::{CreateRequest, Outcome, RefusedWhy};
use crate::types::money::{BID_STEP, Rate};

/// A value of the environment this long may be a secret, and is kept out of texts. Shorter ones are
/// words and numbers.
const SECRET_BYTES_MIN: usize = 8;

/// What a job brings is kept out of every text from here on.
pub(crate) fn keep_secret(redactor: &Redactor, request: &CreateRequest) {
    for (name, value) in &request.env {
        if value.len() >= SECRET_BYTES_MIN && !name.starts_with('-') {
            redactor.add(value);
        }
    }
    for word in request
        .image_login
        .iter()
        .flat_map(|login| login.split_whitespace())
    {
        if !word.starts_with('-') {
            redactor.add(word);
        }
    }
}

/// The environment as the marketplace takes it: an object, ports and host names among its keys.
pub(crate) fn environment(request: &CreateRequest) -> Map<String, Value> {
    request
        .env
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.clone())))
        .collect()
}

/// A bid in dollars with four decimals, never above what was decided.
pub(crate) fn price(bid: Rate) -> Value {
    let steps = bid.round_down_to_bid_step().0 / BID_STEP.0;
    Value::from(steps as f64 / 10_000.0)
}

/// A refusal that left nothing behind.
pub(crate) fn refused<T>(why: RefusedWhy, message: impl Into<String>) -> Outcome<T> {
    Outcome::Refused {
        why,
        message: message.into(),
        leftover: None,
    }
}
