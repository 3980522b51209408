//! The marketplace behind its gateway: one request, one answer, no I/O.
//!
//! The same router serves real connections and, in process, a simulation.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::faults::{Fault, Faults};
pub use super::operations::Quirks;
use super::operations::{self, Call};
pub use super::routes::Paths;
use super::routes::{self, Matched, Operation, Route};
use super::sim::Market;
use super::wire;
pub use super::wire::Envelope;
use crate::ports::{Clock, Method, Reply, Request};
use crate::types::time::Time;

/// The path under which the gateway serves the marketplace.
pub const PREFIX: &str = "/vastai";

/// Every token of the gateway begins so.
const TOKEN_PREFIX: &str = "at_";

/// How the gateway speaks.
#[derive(Clone, Debug)]
pub struct WireOptions {
    /// Path formats.
    pub paths: Paths,
    /// What surrounds answers.
    pub envelope: Envelope,
    /// The only token that is accepted. `None`: any that begins with `at_`, each an account of
    /// its own.
    pub token: Option<SecretString>,
    /// Whether a gateway of the new format only takes the literal `instance_id` of a path in the
    /// old format for an id, instead of not finding it. Gateways were seen to.
    pub literal_ids: bool,
    /// What is particular about it.
    pub quirks: Quirks,
    /// Whether the gateway describes itself under `/openapi`, too, as its documentation says.
    /// Gateways were seen to do so under `/definition` only.
    pub openapi: bool,
    /// Whether the marketplace's documented rate limits hold, in market time.
    pub rate_limits: bool,
    /// How fast the clock runs, told to clients that follow it.
    pub speed: f64,
}

impl Default for WireOptions {
    fn default() -> Self {
        Self {
            paths: Paths::default(),
            envelope: Envelope::default(),
            token: None,
            literal_ids: true,
            quirks: Quirks::default(),
            openapi: false,
            rate_limits: false,
            speed: 1.0,
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Handled {
    /// It is answered.
    Reply(Reply),
    /// It is never answered.
    Hang,
}

/// The market, its gateway, and what goes wrong between them.
pub struct MarketServer {
    inside: Mutex<Inside>,
    options: WireOptions,
    clock: Arc<dyn Clock>,
    opened_at: Time,
}

struct Inside {
    market: Market,
    faults: Faults,
    /// Times of the last calls, by account and operation.
    calls: BTreeMap<(u64, Operation), VecDeque<Time>>,
}

impl std::fmt::Debug for MarketServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MarketServer")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl MarketServer {
    /// A market that follows a clock.
    pub fn new(
        market: Market,
        options: WireOptions,
        faults: Faults,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            opened_at: market.now(),
            inside: Mutex::new(Inside {
                market,
                faults,
                calls: BTreeMap::new(),
            }),
            options,
            clock,
        }
    }

    /// Answers a request, or leaves it hanging. The path is the whole one, prefix included.
    pub fn handle(&self, request: &Request) -> Handled {
        let path = request.path.as_str();
        if request.method == Method::Get && path.trim_end_matches('/') == "/clock" {
            return Handled::Reply(self.clock_reply());
        }
        let Some(path) = under_prefix(path) else {
            return Handled::Reply(wire::not_found());
        };
        let bids = !self.options.quirks.no_bids;
        let describes = match path.trim_end_matches('/') {
            "/definition" => true,
            "/openapi" => self.options.openapi,
            _ => false,
        };
        if request.method == Method::Get && describes {
            let definition = routes::definition(PREFIX, self.options.paths, bids);
            return Handled::Reply(wire::reply(200, definition.to_string()));
        }
        let (method, query) = (request.method, &request.query);
        let matched = routes::find(
            method,
            path,
            query,
            self.options.paths,
            self.options.literal_ids,
        )
        .filter(|matched| bids || !matched.route.is_bid());
        let mut inside = self.lock();
        let fault = inside.faults.next_request();
        let shape = inside.faults.requests();
        let envelope = self.options.envelope;
        match fault {
            Some(Fault::ErrorBefore) => return Handled::Reply(envelope.server_error(shape)),
            Some(Fault::TimeoutBefore) => return Handled::Hang,
            Some(Fault::Throttled) => return Handled::Reply(envelope.throttled(shape, 2000)),
            _ => {}
        }
        let operation = matched.as_ref().map(|matched| matched.route.operation);
        let reply = self.answer(&mut inside, matched, request);
        let empty = operation.and_then(operations::nothing);
        match fault {
            Some(Fault::ErrorAfter) => Handled::Reply(envelope.server_error(shape)),
            Some(Fault::TimeoutAfter) => Handled::Hang,
            Some(Fault::Garbage) => Handled::Reply(wire::garbage(shape, &reply)),
            Some(Fault::Empty) if reply.status == 200 => {
                Handled::Reply(empty.map_or(reply, |nothing| envelope.success(nothing.to_owned())))
            }
            _ => Handled::Reply(reply),
        }
    }

    /// How late the next reply is, in real time, by the faults that were asked for.
    pub fn next_latency(&self) -> Option<Duration> {
        self.lock().faults.next_latency()
    }

    /// The market, brought up to now: for checkers and summaries.
    pub fn with_market<R>(&self, read: impl FnOnce(&mut Market) -> R) -> R {
        let now = self.clock.now();
        let mut inside = self.lock();
        inside.market.advance_to(now);
        read(&mut inside.market)
    }

    /// The faults: to turn them off, and to count requests.
    pub fn with_faults<R>(&self, change: impl FnOnce(&mut Faults) -> R) -> R {
        change(&mut self.lock().faults)
    }

    /// The clock that the market follows.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        // A request that panicked leaves a market that can still be read.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clock_reply(&self) -> Reply {
        let now = self.clock.now().epoch_seconds();
        let body = json!({"now": now, "speed": self.options.speed});
        wire::reply(200, body.to_string())
    }

    /// The answer of a gateway and marketplace with nothing wrong between them.
    fn answer(&self, inside: &mut Inside, matched: Option<Matched>, request: &Request) -> Reply {
        let envelope = self.options.envelope;
        // A path that is not found is told before the token is looked at.
        let Some(Matched { route, id }) = matched else {
            return wire::not_found();
        };
        let token = match self.authenticated(request) {
            Ok(token) => token,
            Err(reply) => return reply,
        };
        let now = self.clock.now();
        inside.market.advance_to(now);
        let account = inside.market.account_for(token);
        if self.options.rate_limits && !inside.admit(account, route, now) {
            let shape = inside.faults.requests();
            return envelope.throttled(shape, route.limit.1 / route.limit.0.max(1) as i64);
        }
        let body = match body_fields(request) {
            Ok(body) => body,
            Err(reason) => return envelope.own_error(400, "BAD_REQUEST", reason),
        };
        let call = Call {
            account,
            id: id.as_deref(),
            query: &request.query,
            body: &body,
            quirks: self.options.quirks,
            opened_at: self.opened_at,
        };
        match operations::perform(&mut inside.market, route.operation, &call) {
            Ok(body) => envelope.success(body),
            Err(error) => envelope.refusal(&error),
        }
    }

    /// The token, which counts only as the query's `api_token`.
    fn authenticated<'a>(&self, request: &'a Request) -> Result<&'a str, Reply> {
        let envelope = self.options.envelope;
        let tokens = request.query.iter().filter(|(key, _)| key == "api_token");
        let tokens: Vec<&str> = tokens.map(|(_, token)| token.as_str()).collect();
        let token = match tokens.as_slice() {
            [token] if token.starts_with(TOKEN_PREFIX) => *token,
            [] | [_] => return Err(envelope.unauthorized(&headers(request), &query(request))),
            _ => {
                let message = "api_token.startsWith is not a function";
                return Err(envelope.own_error(500, "SERVER_ERROR", message));
            }
        };
        let known = self.options.token.as_ref();
        if known.is_none_or(|known| known.expose_secret() == token) {
            Ok(token)
        } else {
            Err(envelope.own_error(403, "FORBIDDEN", "Invalid api_token"))
        }
    }
}

impl Inside {
    /// Whether a call is within the route's limit; it is counted if so.
    fn admit(&mut self, account: u64, route: &Route, now: Time) -> bool {
        let (calls_max, period_ms) = route.limit;
        if calls_max == 0 {
            return true;
        }
        let calls = self.calls.entry((account, route.operation)).or_default();
        while calls
            .front()
            .is_some_and(|at| now.ms_since(*at) >= period_ms)
        {
            calls.pop_front();
        }
        let admitted = calls.len() < calls_max;
        if admitted {
            calls.push_back(now);
        }
        admitted
    }
}

/// The rest of a path under the gateway's prefix.
fn under_prefix(path: &str) -> Option<&str> {
    let head = path.get(..PREFIX.len())?;
    let rest = &path[PREFIX.len()..];
    (head.eq_ignore_ascii_case(PREFIX) && (rest.is_empty() || rest.starts_with('/')))
        .then_some(rest)
}

fn headers(request: &Request) -> Value {
    let mut headers = json!({ "content-type": wire::JSON });
    if let Some(bearer) = &request.bearer {
        headers["authorization"] = json!(format!("Bearer {bearer}"));
    }
    headers
}

fn query(request: &Request) -> Value {
    let pairs = request.query.iter();
    Value::Object(
        pairs
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect(),
    )
}

fn body_fields(request: &Request) -> Result<Map<String, Value>, &'static str> {
    let bytes = request.body.as_deref().unwrap_or_default();
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err("Invalid json body"),
    }
}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
