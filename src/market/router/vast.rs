//! The marketplace in its own wire format: who calls, how often, and for what.

use secrecy::ExposeSecret;

use super::{Inside, MarketServer, admit, as_disputed, body_fields};
use crate::market::api::MarketError;
use crate::market::native::routes::{Matched, Operation, Route};
use crate::market::native::{self, Call};
use crate::market::wire::{self, Envelope};
use crate::ports::{Reply, Request};

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// Nobody in particular: only searches are answered.
    Anybody,
    /// An account.
    Account(u64),
    /// An instance with the key that it was given, which opens that instance only.
    Instance { account: u64, id: u64 },
}

impl Caller {
    fn account(self) -> Option<u64> {
        match self {
            Self::Anybody => None,
            Self::Account(account) | Self::Instance { account, .. } => Some(account),
        }
    }

    /// By what calls are counted.
    fn identity(self) -> u64 {
        match self {
            Self::Anybody => 0,
            Self::Account(account) => account,
            Self::Instance { id, .. } => id,
        }
    }
}

impl MarketServer {
    /// The answer of the marketplace with nothing wrong on the way.
    pub(super) fn native_answer(
        &self,
        inside: &mut Inside,
        matched: Option<&Matched>,
        request: &Request,
        origin: &str,
    ) -> Reply {
        let Some(Matched { route, ids }) = matched else {
            return wire::not_found();
        };
        let now = self.now();
        inside.market.advance_to(now);
        let caller = match self.caller(inside, route, request) {
            Ok(caller) => caller,
            Err(error) => return Envelope::None.refusal(&error),
        };
        let limited = self.options.rate_limits || self.options.native_rate_limits;
        let key = (caller.identity(), route.operation);
        if limited && !admit(&mut inside.native_calls, key, route.limit, now) {
            let (calls, period) = route.limit;
            let interval = period / calls.max(1) as i64;
            return wire::limited(inside.faults.requests(), interval);
        }
        let answered = body_fields(request)
            .map_err(|why| MarketError::new(400, "invalid_request", why))
            .and_then(|body| {
                let call = Call {
                    account: caller.account(),
                    ids,
                    query: &request.query,
                    body: &body,
                    origin,
                };
                permitted(caller, route, &call)?;
                native::perform(&mut inside.market, route.family, route.operation, &call)
            });
        match answered {
            Ok(text) if route.operation == Operation::Result => wire::text(text),
            Ok(body) => wire::reply(200, body),
            Err(error) => {
                let disputed = &inside.market.options.disputed;
                Envelope::None.refusal(&as_disputed(error, disputed))
            }
        }
    }

    /// Who calls, by the `Authorization` header, else by the older `api_key` of the query.
    fn caller(
        &self,
        inside: &mut Inside,
        route: &Route,
        request: &Request,
    ) -> Result<Caller, MarketError> {
        // The address of a result is its own key.
        if route.operation == Operation::Result {
            return Ok(Caller::Anybody);
        }
        let parameter = request.query.iter().find(|(name, _)| name == "api_key");
        let key = request
            .bearer
            .as_deref()
            .or(parameter.map(|(_, key)| key.as_str()))
            .map(str::trim)
            .filter(|key| !key.is_empty());
        let Some(key) = key else {
            return if route.is_anonymous() {
                Ok(Caller::Anybody)
            } else {
                Err(login_required())
            };
        };
        let market = &mut inside.market;
        if let Some((account, id)) = market.instance_of_key(key) {
            return Ok(Caller::Instance { account, id });
        }
        let known = self.options.token.as_ref();
        if known.is_some_and(|known| known.expose_secret() != key) {
            // Billing and search routes are documented to answer a bad key as if not found.
            let status = if route.hides_bad_keys() {
                404
            } else {
                market.options.disputed.bad_key_status
            };
            return Err(bad_key(status));
        }
        let status = market.options.disputed.bad_key_status;
        let account = market.admit(key).ok_or_else(|| bad_key(status))?;
        Ok(Caller::Account(account))
    }
}

/// An instance's key shows, starts, stops and destroys that instance, and nothing else.
fn permitted(caller: Caller, route: &Route, call: &Call<'_>) -> Result<(), MarketError> {
    let Caller::Instance { id, .. } = caller else {
        return Ok(());
    };
    let allowed = match route.operation {
        Operation::Show | Operation::Destroy => true,
        Operation::Manage => call.field("state").is_some() && call.field("label").is_none(),
        _ => route.is_anonymous(),
    };
    let own = call.ids.is_empty() || call.ids.first() == Some(&id.to_string());
    if allowed && own {
        Ok(())
    } else {
        Err(MarketError::new(
            403,
            "not_authorized",
            "This key is not authorized for this action.",
        ))
    }
}

fn login_required() -> MarketError {
    MarketError::new(403, "auth_error", "This action requires login.")
}

/// A key that is not, or no longer, known.
pub(super) fn bad_key(status: u16) -> MarketError {
    MarketError::new(status, "auth_error", "Invalid user key")
}

/// A key whose second factor has to be given anew: documented as 404.
pub(super) fn session_expired() -> MarketError {
    MarketError::new(404, "auth_error", "Session expired. Please log in again.")
}

#[cfg(test)]
#[path = "vast_tests.rs"]
mod tests;
