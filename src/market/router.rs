//! The marketplace in its own wire format and behind its gateway: one request, one answer, no I/O.
//!
//! The same router serves real connections and, in process, a simulation.

mod gateway;
mod vast;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Map, Value, json};

use super::api::MarketError;
use super::disputed::Disputed;
use super::faults::{Fault, FaultSpec, Faults};
use super::native::routes as native;
use super::operations;
pub use super::operations::Quirks;
pub use super::routes::Paths;
use super::routes::{Matched, Operation};
use super::sim::Market;
pub use super::wire::Envelope;
use super::{spoil, wire};
use crate::ports::{Clock, Method, Reply, Request};
use crate::types::time::Time;

/// The path under which the gateway serves the marketplace.
pub const PREFIX: &str = "/vastai";

/// Where a market that is called in process says that it is.
pub(super) const IN_PROCESS: &str = "http://market.invalid";

/// Answers that are kept, to be given again as stale ones.
const ANSWERS_KEPT: usize = 256;

/// Which wire formats a market speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wire {
    /// The gateway's, under [`PREFIX`].
    LowCode,
    /// The marketplace's own, under `/api`.
    Vast,
    /// Both.
    #[default]
    Both,
}

impl FromStr for Wire {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "lowcode" => Ok(Self::LowCode),
            "vast" => Ok(Self::Vast),
            "both" => Ok(Self::Both),
            _ => Err(format!("`{text}` is not one of lowcode, vast, both")),
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::LowCode => "lowcode",
            Self::Vast => "vast",
            Self::Both => "both",
        })
    }
}

/// How the market is spoken to.
#[derive(Clone, Debug)]
pub struct WireOptions {
    /// Wire formats.
    pub wire: Wire,
    /// Path formats of the gateway.
    pub paths: Paths,
    /// What surrounds the gateway's answers.
    pub envelope: Envelope,
    /// The only token that is accepted. `None`: any (at the gateway, any that begins with `at_`),
    /// each an account of its own.
    pub token: Option<SecretString>,
    /// Whether a gateway of the new format only takes the literal `instance_id` of a path in the
    /// old format for an id, instead of not finding it. Gateways were seen to.
    pub literal_ids: bool,
    /// What is particular about the gateway.
    pub quirks: Quirks,
    /// Whether the gateway describes itself under `/openapi`, too, as its documentation says.
    /// Gateways were seen to do so under `/definition` only.
    pub openapi: bool,
    /// Whether the marketplace's documented rate limits hold, in market time.
    pub rate_limits: bool,
    /// Whether they hold in the marketplace's own format, where not in both.
    pub native_rate_limits: bool,
    /// How fast the clock runs, told to clients that follow it.
    pub speed: f64,
    /// Whether `PUT /faults` changes what goes wrong. For tests, on a loopback address only.
    pub control: bool,
}

impl Default for WireOptions {
    fn default() -> Self {
        Self {
            wire: Wire::default(),
            paths: Paths::default(),
            envelope: Envelope::default(),
            token: None,
            literal_ids: true,
            quirks: Quirks::default(),
            openapi: false,
            rate_limits: false,
            native_rate_limits: false,
            speed: 1.0,
            control: false,
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
    /// How far the market was moved on over its clock, in milliseconds.
    ahead_ms: AtomicI64,
    opened_at: Time,
}

struct Inside {
    market: Market,
    faults: Faults,
    /// Times of the last calls through the gateway, by account and operation.
    calls: BTreeMap<(u64, Operation), VecDeque<Time>>,
    /// Times of the last native calls, by key and operation.
    native_calls: BTreeMap<(u64, native::Operation), VecDeque<Time>>,
    /// The last answer to each read, where answers may be stale.
    answers: BTreeMap<String, Reply>,
}

/// What a request is addressed to.
enum Target {
    Gateway(Option<Matched>),
    Native(Option<native::Matched>),
}

impl Target {
    /// Whether it changes nothing.
    fn reads(&self, method: Method) -> bool {
        method == Method::Get
            || matches!(self, Self::Native(Some(matched)) if matched.route.family == native::Family::Offers)
    }

    fn searches(&self) -> bool {
        match self {
            Self::Gateway(matched) => matched.as_ref().is_some_and(|matched| {
                matches!(
                    matched.route.operation,
                    Operation::OffersList | Operation::OfferGet
                )
            }),
            Self::Native(matched) => matched
                .as_ref()
                .is_some_and(|matched| matched.route.is_search()),
        }
    }
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
                native_calls: BTreeMap::new(),
                answers: BTreeMap::new(),
            }),
            options,
            clock,
            ahead_ms: AtomicI64::new(0),
        }
    }

    /// Answers a request, or leaves it hanging. The path is the whole one, prefix included.
    pub fn handle(&self, request: &Request) -> Handled {
        self.handle_at(request, IN_PROCESS)
    }

    /// The same, where the caller reached the market under an origin (scheme, host and port, no
    /// slash at the end), which is then part of the URLs in answers.
    pub fn handle_at(&self, request: &Request, origin: &str) -> Handled {
        let path = request.path.as_str();
        if request.method == Method::Get && path.trim_end_matches('/') == "/clock" {
            return Handled::Reply(self.clock_reply());
        }
        if self.options.control && path.trim_end_matches('/') == "/faults" {
            return Handled::Reply(self.controlled(request));
        }
        if self.options.control && path.trim_end_matches('/') == "/clock" {
            return Handled::Reply(self.move_on(request));
        }
        let target = match self.target(request) {
            Ok(target) => target,
            Err(reply) => return Handled::Reply(reply),
        };
        let mut inside = self.lock();
        let fault = inside.faults.next_request();
        if let Some(handled) = self.refused_by(fault, &inside, &target) {
            return handled;
        }
        let earlier = inside.remembered(fault, &target, request);
        let mut reply = self.answer(&mut inside, &target, request, origin);
        let shape = inside.faults.requests();
        if fault == Some(Fault::Duplicated) && !target.reads(request.method) {
            // Whoever sent it twice passes on the one answer or the other.
            let second = self.answer(&mut inside, &target, request, origin);
            if shape % 2 == 1 {
                reply = second;
            }
        }
        inside.remember(&target, request, &reply);
        let now = inside.market.now();
        drop(inside);
        let envelope = self.envelope(&target);
        Handled::Reply(match fault {
            Some(Fault::ErrorAfter) => envelope.server_error(shape),
            Some(Fault::TimeoutAfter) => return Handled::Hang,
            Some(Fault::Empty) if reply.status == 200 => match nothing(&target) {
                Some(nothing) => envelope.success(nothing.to_owned()),
                None => spoil::emptied(reply),
            },
            Some(Fault::Stale) => earlier.unwrap_or(reply),
            Some(fault) => spoil::spoilt(fault, shape, reply, now),
            None => reply,
        })
    }

    /// How late the next reply is, in real time, by the faults that were asked for.
    pub fn next_latency(&self) -> Option<Duration> {
        self.lock().faults.next_latency()
    }

    /// The market, brought up to now: for checkers and summaries.
    pub fn with_market<R>(&self, read: impl FnOnce(&mut Market) -> R) -> R {
        let now = self.now();
        let mut inside = self.lock();
        inside.market.advance_to(now);
        read(&mut inside.market)
    }

    /// The faults: to turn them off, and to count requests.
    pub fn with_faults<R>(&self, change: impl FnOnce(&mut Faults) -> R) -> R {
        change(&mut self.lock().faults)
    }

    /// The market's time: its clock's, and how far it was moved on.
    pub fn now(&self) -> Time {
        Time(self.clock.now().0 + self.ahead_ms.load(Ordering::SeqCst))
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
        let now = self.now().epoch_seconds();
        let body = json!({"now": now, "speed": self.options.speed});
        wire::reply(200, body.to_string())
    }

    /// Moves the market on at once: `{"forward_seconds": 3600}`. Who followed its clock before has
    /// to read it again.
    fn move_on(&self, request: &Request) -> Reply {
        const FORWARD_SECONDS_MAX: i64 = 30 * 86_400;
        let body = body_fields(request).ok();
        let seconds = body
            .filter(|_| request.method == Method::Put)
            .and_then(|body| body.get("forward_seconds")?.as_i64())
            .filter(|seconds| (0..=FORWARD_SECONDS_MAX).contains(seconds));
        let Some(seconds) = seconds else {
            let message = "forward_seconds is not a whole number from 0 to 2592000";
            return wire::reply(400, json!({ "message": message }).to_string());
        };
        self.ahead_ms.fetch_add(seconds * 1000, Ordering::SeqCst);
        self.clock_reply()
    }

    /// Reads or changes what goes wrong: `{"faults": "5xx=2%"}`.
    fn controlled(&self, request: &Request) -> Reply {
        let told =
            |spec: &FaultSpec| wire::reply(200, json!({"faults": spec.to_string()}).to_string());
        if request.method == Method::Get {
            return told(self.lock().faults.spec());
        }
        let refuse = |message: String| wire::reply(400, json!({ "message": message }).to_string());
        let body = match body_fields(request) {
            Ok(body) if request.method == Method::Put => body,
            Ok(_) => return wire::not_found(),
            Err(why) => return refuse(why.to_owned()),
        };
        let Some(text) = body.get("faults").and_then(Value::as_str) else {
            return refuse("faults is not given".to_owned());
        };
        match text.parse::<FaultSpec>() {
            Ok(spec) => {
                let reply = told(&spec);
                self.lock().faults.set_spec(spec);
                reply
            }
            Err(error) => refuse(error.to_string()),
        }
    }

    /// What a request is addressed to, or the answer where it is to nothing that is served.
    fn target(&self, request: &Request) -> Result<Target, Reply> {
        let wire = self.options.wire;
        if let Some(path) = under(&request.path, PREFIX).filter(|_| wire != Wire::Vast) {
            return match self.definition(request, path) {
                Some(reply) => Err(reply),
                None => Ok(Target::Gateway(self.gateway_route(request, path))),
            };
        }
        let path = request.path.as_str();
        let served = path.starts_with("/api/") || path.starts_with("/results/");
        if served && wire != Wire::LowCode {
            return Ok(Target::Native(native::find(request.method, path)));
        }
        Err(wire::not_found())
    }

    fn envelope(&self, target: &Target) -> Envelope {
        match target {
            Target::Gateway(_) => self.options.envelope,
            Target::Native(_) => Envelope::None,
        }
    }

    /// What a fault makes of a request that never reaches the market.
    fn refused_by(
        &self,
        fault: Option<Fault>,
        inside: &Inside,
        target: &Target,
    ) -> Option<Handled> {
        let envelope = self.envelope(target);
        let shape = inside.faults.requests();
        let reply = match fault? {
            Fault::ErrorBefore => envelope.server_error(shape),
            Fault::TimeoutBefore => return Some(Handled::Hang),
            Fault::Throttled => envelope.throttled(shape, 2000),
            Fault::SearchQuota if target.searches() => envelope.quota_used_up(self.now()),
            Fault::KeyDeleted => {
                let status = inside.market.options.disputed.bad_key_status;
                envelope.refusal(&vast::bad_key(status))
            }
            Fault::SessionExpired => envelope.refusal(&vast::session_expired()),
            _ => return None,
        };
        Some(Handled::Reply(reply))
    }

    fn answer(
        &self,
        inside: &mut Inside,
        target: &Target,
        request: &Request,
        origin: &str,
    ) -> Reply {
        match target {
            Target::Gateway(matched) => self.gateway_answer(inside, matched.as_ref(), request),
            Target::Native(matched) => {
                self.native_answer(inside, matched.as_ref(), request, origin)
            }
        }
    }
}

impl Inside {
    /// The earlier answer that a stale read gives.
    fn remembered(
        &self,
        fault: Option<Fault>,
        target: &Target,
        request: &Request,
    ) -> Option<Reply> {
        let stale = fault == Some(Fault::Stale) && target.reads(request.method);
        stale
            .then(|| self.answers.get(&read_key(request)).cloned())
            .flatten()
    }

    /// Keeps the last answer to a read, where one may be given again.
    fn remember(&mut self, target: &Target, request: &Request, reply: &Reply) {
        let kept = self.faults.may(Fault::Stale) && target.reads(request.method);
        if !kept || reply.status != 200 {
            return;
        }
        if self.answers.len() >= ANSWERS_KEPT {
            self.answers.pop_first();
        }
        self.answers.insert(read_key(request), reply.clone());
    }
}

/// A refusal with the statuses that are disputed as this market has them.
fn as_disputed(mut error: MarketError, disputed: &Disputed) -> MarketError {
    match error.code {
        "no_such_ask" if error.status == 410 => error.status = disputed.gone_status,
        "bid_too_low" if error.new_contract.is_some() => error.status = disputed.low_bid_status,
        _ => {}
    }
    error
}

/// What tells two reads apart.
fn read_key(request: &Request) -> String {
    let body = request.body.as_deref().unwrap_or_default();
    format!(
        "{} {} {:?} {:?} {}",
        request.method.as_str(),
        request.path,
        request.query,
        request.bearer,
        String::from_utf8_lossy(body)
    )
}

/// What a listing that is empty looks like at the gateway.
fn nothing(target: &Target) -> Option<&'static str> {
    match target {
        Target::Gateway(matched) => operations::nothing(matched.as_ref()?.route.operation),
        Target::Native(_) => None,
    }
}

/// Whether a call is within a limit of so many calls in so many milliseconds; it is counted if so.
fn admit<K: Ord>(
    calls: &mut BTreeMap<K, VecDeque<Time>>,
    key: K,
    (calls_max, period_ms): (usize, i64),
    now: Time,
) -> bool {
    if calls_max == 0 {
        return true;
    }
    let calls = calls.entry(key).or_default();
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

/// The rest of a path under a prefix, whatever its case.
fn under<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let head = path.get(..prefix.len())?;
    let rest = &path[prefix.len()..];
    (head.eq_ignore_ascii_case(prefix) && (rest.is_empty() || rest.starts_with('/')))
        .then_some(rest)
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
mod tests;
