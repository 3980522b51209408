//! The marketplace's own wire format: its routes, and what each asks of the market.

mod account;
#[cfg(test)]
mod account_tests;
mod audited;
mod columns;
mod commands;
mod fields;
mod host;
mod instances;
mod offers;
mod records;
pub(super) mod routes;

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

/// The answer to what a module has no arm for: a mistake in the table of routes.
fn not_here(operation: Operation) -> MarketError {
    MarketError::new(501, "server_error", format!("{operation:?} is not served"))
}
