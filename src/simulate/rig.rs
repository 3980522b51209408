//! The real daemon against the embedded market, in one process and in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use super::checker::Checker;
use super::fate::{
    Fate, FatedStore, Hazards, MarketTime, TIMEOUT, WallClock, changes_something, lock,
};
use super::turn::{OTHER_TOKEN, Policy, Turn};
use crate::clock::SimClock;
use crate::daemon::{
    BrokenPolicy, Daemon, DaemonError, Observer, Parts, Policies, PolicySet, Secrets, Settings,
};
use crate::market::Market;
use crate::market::router::MarketServer;
use crate::market::transport::InProcess;
use crate::ports::{
    Clock, Marketplace, Method, Reply, Request, Store, StoreError, Transport, TransportError,
};
use crate::types::job::{Job, SecretRef};
use crate::types::money::Money;
use crate::types::state::Ask;
use crate::types::time::{Time, millis};

/// Makes the client under test over a transport, with what was learnt about the wire before.
pub type MakeMarketplace = Arc<
    dyn Fn(Arc<dyn Transport>, Arc<dyn Clock>, &BTreeMap<String, String>) -> Arc<dyn Marketplace>
        + Send
        + Sync,
>;

/// Opens the store; called again after each crash, and then it finds what was durable.
pub type MakeStore = Arc<dyn Fn() -> Result<Box<dyn Store>, StoreError> + Send + Sync>;

/// Appends a request of the user to the store, as another process would.
pub type TellStore = Arc<dyn Fn(Time, &Ask) -> Result<(), StoreError> + Send + Sync>;

/// Fills the store's disk, or makes room again.
pub type FillDisk = Arc<dyn Fn(bool) -> Result<(), StoreError> + Send + Sync>;

/// Reckons the store's ledger again from its lines: what was billed by it in all, and what does not
/// agree.
pub type AuditLedger = Arc<dyn Fn() -> Result<(Money, Vec<String>), StoreError> + Send + Sync>;

/// Sees the market as it is.
pub type Watch = Arc<dyn Fn(&Market) + Send + Sync>;

/// The adapters, which only the command line may name.
#[derive(Clone)]
pub struct Adapters {
    /// The client.
    pub marketplace: MakeMarketplace,
    /// The store.
    pub store: MakeStore,
    /// The way of another process to ask something of the daemon.
    pub ask: TellStore,
    /// The store's disk.
    pub disk: FillDisk,
    /// The store's ledger, reckoned again.
    pub audit: AuditLedger,
}

/// Between two looks of the checker there is at most so much market time, in milliseconds.
const LOOK_EVERY_MS: i64 = 60_000;

/// A look sooner than this after another shows nothing new, unless something was changed.
const LOOK_APART_MS: i64 = 10_000;

/// All that is around the daemon's processes, and outlives them.
struct Stage {
    clock: Arc<SimClock>,
    wall: Arc<WallClock>,
    /// Without it the market follows the clock alone, and nothing is done at a moment that is past.
    market_time: OnceLock<Arc<MarketTime>>,
    server: Arc<MarketServer>,
    checker: Arc<Mutex<Checker>>,
    fate: Arc<Fate>,
    adapters: Adapters,
    policies: Arc<Mutex<BTreeMap<PathBuf, Policy>>>,
    /// What happens when, in order.
    script: Mutex<VecDeque<(Time, Turn)>>,
    /// Requests on their way that nobody waits for any more, by when they arrive.
    late: Mutex<BTreeMap<(Time, u64), Request>>,
    /// Whether the token opens another account.
    other_account: AtomicBool,
    looked_at: AtomicI64,
    native: bool,
    watch: OnceLock<Watch>,
}

impl Stage {
    /// Does all that happened since: requests that were held up, turns of the script, and looks in
    /// between, each at its moment.
    fn catch_up(&self) {
        let Some(market_time) = self.market_time.get() else {
            return;
        };
        let now = self.clock.now();
        loop {
            let late = lock(&self.late).keys().next().copied();
            let turn = lock(&self.script).front().map(|(at, _)| *at);
            let look = Time(self.looked_at.load(Ordering::SeqCst) + LOOK_EVERY_MS);
            let arrives = late.map(|(at, _)| at);
            let next = [arrives, turn, Some(look)].into_iter().flatten().min();
            let Some(next) = next.filter(|&next| next <= now) else {
                return;
            };
            if let Some(key) = late.filter(|&(at, _)| at == next) {
                if let Some(request) = lock(&self.late).remove(&key) {
                    market_time.at(next, || self.server.handle(&request));
                }
            } else if turn == Some(next) {
                let turn = lock(&self.script).pop_front();
                if let Some((_, turn)) = turn {
                    market_time.at(next, || self.takes(turn));
                }
            }
            market_time.at(next, || self.look());
        }
    }

    fn look(&self) {
        let mut checker = lock(&self.checker);
        self.server.with_market(|market| {
            self.looked_at.store(market.now().0, Ordering::SeqCst);
            checker.look(market);
            if let Some(watch) = self.watch.get() {
                watch(market);
            }
        });
    }

    /// One turn of the script.
    fn takes(&self, turn: Turn) {
        if let Some(word) = turn.word() {
            self.fate.meets(word);
        }
        let mut checker = lock(&self.checker);
        match turn {
            // Where the store cannot take it the user is told so, and this one does not insist.
            Turn::Ask(ask) => {
                let taken = (self.adapters.ask)(self.wall.now(), &ask).is_ok();
                checker.asked(&ask, taken);
            }
            Turn::Policy { file, policy } => {
                if let Some(Policy::Good(job)) = &policy {
                    checker.policy(job, self.server.with_market(|market| market.now()));
                }
                let mut policies = lock(&self.policies);
                if let Some(policy) = policy {
                    policies.insert(file, policy);
                } else if let Some(Policy::Good(job)) = policies.remove(&file) {
                    checker.policy_removed(job.name.clone());
                }
            }
            Turn::WallClock(ahead_ms) => {
                self.wall.set_ahead(ahead_ms);
                checker.clock_is_ahead(ahead_ms);
            }
            // A database that cannot be reached is as good as full.
            Turn::Disk { full } => {
                let _ = (self.adapters.disk)(full);
            }
            Turn::OtherAccount(other) => self.other_account.store(other, Ordering::SeqCst),
            Turn::Faults(spec) => self.server.with_faults(|faults| faults.set_spec(spec)),
            Turn::Others(what) => {
                let now = self
                    .server
                    .with_market(|market| what.done(market, &mut checker));
                tracing::trace!(at = now.0, "others acted");
            }
        }
    }

    /// The same request with the token of another account.
    fn redirected(&self, mut request: Request) -> Request {
        if !self.other_account.load(Ordering::SeqCst) {
            return request;
        }
        if let Some(bearer) = &mut request.bearer {
            OTHER_TOKEN.clone_into(bearer);
        }
        for (name, value) in &mut request.query {
            if name == "api_token" {
                OTHER_TOKEN.clone_into(value);
            }
        }
        request
    }

    fn held_up(&self, request: &Request) -> bool {
        if self.market_time.get().is_none() {
            return false;
        }
        let Some(after) = self.fate.held_up(request) else {
            return false;
        };
        let mut request = request.clone();
        if !self.native {
            request.path.insert_str(0, crate::market::router::PREFIX);
        }
        let arrives = self.clock.now() + TIMEOUT + after;
        lock(&self.late).insert((arrives, self.fate.requests()), request);
        true
    }
}

/// One process's way to the market. It moves virtual time on, lets the checker look, and never
/// returns once the process is dead.
struct SimTransport {
    inner: InProcess,
    stage: Arc<Stage>,
    /// Whether the request before this one was answered whose account it is, and it was ours.
    saw_ours: AtomicBool,
}

#[async_trait]
impl Transport for SimTransport {
    async fn send(&self, request: Request) -> Result<Reply, TransportError> {
        let stage = &self.stage;
        if stage.fate.is_dead() {
            std::future::pending::<()>().await;
        }
        stage.fate.requested();
        stage.clock.advance(stage.fate.latency());
        stage.catch_up();
        let now = stage.clock.now();
        let other = stage.other_account.load(Ordering::SeqCst);
        let request = stage.redirected(request);
        let saw_ours = self.saw_ours.swap(false, Ordering::SeqCst);
        if other && saw_ours && creates(&request) {
            lock(&stage.checker).exchanged();
        }
        let asks_who = request.method == Method::Get && request.path.contains("/users/");
        if let Some(path) = destroyed(&request) {
            lock(&stage.checker).destroy_sent(path, now);
        }
        if stage.held_up(&request) {
            stage.clock.advance(TIMEOUT);
            return Err(TransportError::Timeout(TIMEOUT));
        }
        let mutates = changes_something(&request);
        let traced = tracing::enabled!(target: "haggle::simulate::requests", tracing::Level::TRACE);
        let asked = traced.then(|| format!("{request:?}"));
        let of_account = request.method == Method::Get
            && ["/users/me", "/balance", "/users/current/"]
                .iter()
                .any(|end| request.path.ends_with(end));
        let of_instances = request.method == Method::Get
            && request.path.trim_end_matches('/').ends_with("/instances");
        let reply = self.inner.send(request).await;
        let told = reply.as_ref().is_ok_and(|reply| reply.status == 200);
        self.saw_ours
            .store(asks_who && told && !other, Ordering::SeqCst);
        // For whoever wants to know where two runs part.
        if let Some(asked) = asked {
            tracing::trace!(target: "haggle::simulate::requests", at = now.0, "{asked}: {reply:?}");
        }
        if tracing::enabled!(target: "haggle::simulate::bodies", tracing::Level::TRACE)
            && let Ok(reply) = &reply
        {
            let body = String::from_utf8_lossy(&reply.body);
            tracing::trace!(target: "haggle::simulate::bodies", "{body}");
        }
        if let (true, Ok(reply)) = (of_account, &reply)
            && let Some(credit) = credit_of(reply)
        {
            lock(&stage.checker).account_read(credit);
        }
        if let (true, Ok(reply)) = (of_instances, &reply) {
            // What is no text shows nothing.
            let text = std::str::from_utf8(&reply.body).unwrap_or_default();
            let mut checker = lock(&stage.checker);
            stage
                .server
                .with_market(|market| checker.listed(text, market));
        }
        let due = Time(stage.looked_at.load(Ordering::SeqCst) + LOOK_APART_MS);
        if mutates || stage.clock.now() >= due {
            stage.look();
        }
        if self.inner.crashed() {
            stage.fate.kill();
            std::future::pending::<()>().await;
        }
        reply
    }

    /// What the marketplace named, such as a log: it takes time, and changes nothing.
    async fn fetch(&self, url: &str) -> Result<Reply, TransportError> {
        let stage = &self.stage;
        if stage.fate.is_dead() {
            std::future::pending::<()>().await;
        }
        stage.fate.requested();
        stage.clock.advance(stage.fate.latency());
        stage.catch_up();
        let now = stage.clock.now();
        let reply = self.inner.fetch(url).await;
        tracing::trace!(target: "haggle::simulate::requests", at = now.0, "fetch: {reply:?}");
        reply
    }
}

/// Whether it rents, in the marketplace's own format or the gateway's.
fn creates(request: &Request) -> bool {
    let path = request.path.trim_end_matches('/');
    match request.method {
        Method::Put => path.contains("/asks/"),
        Method::Post => path.ends_with("/instances") || path.ends_with("/bids"),
        _ => false,
    }
}

/// The credit that an answer shows, however it is wrapped.
fn credit_of(reply: &Reply) -> Option<Money> {
    let body: serde_json::Value = serde_json::from_slice(&reply.body).ok()?;
    let inside = ["data", "result"].into_iter().find_map(|key| body.get(key));
    let credit = inside.unwrap_or(&body).get("credit")?;
    let dollars = match credit {
        serde_json::Value::String(text) => text.parse().ok()?,
        number => number.as_f64()?,
    };
    Money::from_dollars(dollars).ok()
}

/// What a destroy destroys. In the gateway's older form the id is in the query, in bulk in the body.
fn destroyed(request: &Request) -> Option<String> {
    if request.method != Method::Delete {
        return None;
    }
    let ids = request.query.iter().filter(|(name, _)| name != "api_token");
    let body = request.body.as_deref().unwrap_or_default();
    let body = String::from_utf8_lossy(body);
    Some(format!(
        "{} {:?} {body}",
        request.path,
        ids.collect::<Vec<_>>()
    ))
}

/// Policies that do not change.
#[derive(Clone)]
pub struct FixedPolicies(pub Vec<Arc<Job>>);

impl Policies for FixedPolicies {
    fn load(&mut self) -> PolicySet {
        PolicySet {
            jobs: self
                .0
                .iter()
                .map(|job| (file_of(job), Arc::clone(job)))
                .collect(),
            broken: Vec::<BrokenPolicy>::new(),
        }
    }
}

/// The file that holds a job's policy.
pub(super) fn file_of(job: &Job) -> PathBuf {
    format!("{}.toml", job.name).into()
}

/// Policies that somebody edits.
struct EditedPolicies(Arc<Mutex<BTreeMap<PathBuf, Policy>>>);

impl Policies for EditedPolicies {
    fn load(&mut self) -> PolicySet {
        let mut set = PolicySet::default();
        for (path, policy) in lock(&self.0).iter() {
            match policy {
                Policy::Good(job) => set.jobs.push((path.clone(), Arc::clone(job))),
                Policy::Broken => set.broken.push(BrokenPolicy {
                    path: path.clone(),
                    job: None,
                    message: "it is not TOML".to_owned(),
                }),
            }
        }
        set
    }
}

/// Secrets for play: each is its own name.
pub struct PlaySecrets;

impl Secrets for PlaySecrets {
    fn resolve(&self, reference: &SecretRef) -> Result<SecretString, String> {
        Ok(SecretString::from(format!("{reference:?}")))
    }
}

/// The way that requests take.
#[derive(Clone, Debug)]
pub struct Way {
    /// To the marketplace's own format; else to the gateway.
    pub native: bool,
    /// How long a request takes, in milliseconds of market time.
    pub latency_ms: RangeInclusive<u64>,
}

impl Default for Way {
    fn default() -> Self {
        Self {
            native: false,
            latency_ms: Hazards::default().latency_ms,
        }
    }
}

/// A market, a clock and the parts of a daemon, wired.
pub struct Rig {
    /// Virtual time.
    pub clock: Arc<SimClock>,
    /// The market's server.
    pub server: Arc<MarketServer>,
    /// What must hold.
    pub checker: Arc<Mutex<Checker>>,
    stage: Arc<Stage>,
    settings: Settings,
}

impl Rig {
    /// Wires a daemon's surroundings. `checker` watches after every request that changes something,
    /// and else as often as matters.
    pub fn new(
        clock: Arc<SimClock>,
        server: Arc<MarketServer>,
        way: Way,
        checker: Checker,
        adapters: Adapters,
        settings: Settings,
        jobs: Vec<Arc<Job>>,
    ) -> Self {
        let hazards = Hazards {
            latency_ms: way.latency_ms,
            ..Hazards::default()
        };
        let policies = jobs
            .into_iter()
            .map(|job| (file_of(&job), Policy::Good(job)))
            .collect();
        let checker = Arc::new(Mutex::new(checker));
        let stage = Stage {
            wall: Arc::new(WallClock::new(Arc::clone(&clock))),
            looked_at: AtomicI64::new(clock.now().0),
            clock: Arc::clone(&clock),
            market_time: OnceLock::new(),
            server: Arc::clone(&server),
            checker: Arc::clone(&checker),
            fate: Arc::new(Fate::new(settings.seed, hazards)),
            adapters,
            policies: Arc::new(Mutex::new(policies)),
            script: Mutex::default(),
            late: Mutex::default(),
            other_account: AtomicBool::new(false),
            native: way.native,
            watch: OnceLock::new(),
        };
        Self {
            clock,
            server,
            checker,
            stage: Arc::new(stage),
            settings,
        }
    }

    /// The same with a script of what happens when, in order of time, in a market that follows
    /// `market_time`.
    pub(super) fn scripted(self, market_time: Arc<MarketTime>, script: Vec<(Time, Turn)>) -> Self {
        *lock(&self.stage.script) = script.into();
        self.stage.market_time.get_or_init(|| market_time);
        self
    }

    /// From now on somebody sees the market whenever the checker does.
    pub(super) fn watched_by(&self, watch: Watch) {
        self.stage.watch.get_or_init(|| watch);
    }

    /// From now on, so much goes wrong around the processes.
    pub fn set_hazards(&self, hazards: Hazards) {
        self.stage.fate.set_hazards(hazards);
    }

    /// What goes wrong around the processes.
    pub fn hazards(&self) -> Hazards {
        self.stage.fate.hazards()
    }

    /// Requests sent so far.
    pub fn requests(&self) -> u64 {
        self.stage.fate.requests()
    }

    /// What went wrong so far, by kind.
    pub(super) fn met(&self) -> BTreeMap<String, u64> {
        let own = self.stage.fate.met().into_iter();
        let wire = self.server.with_faults(|faults| faults.met());
        own.chain(wire)
            .map(|(word, count)| (word.to_owned(), count))
            .collect()
    }

    /// Time passes until a moment, without a process.
    pub(super) fn rests_until(&self, moment: Time) {
        self.rests(moment.since(self.clock.now()));
    }

    /// How far the daemon's wall clock is ahead, in milliseconds.
    pub(super) fn wall_is_ahead(&self) -> i64 {
        self.stage.wall.ahead()
    }

    /// Starts a daemon process: it knows what is durable, and nothing else.
    pub fn start(&self, observers: Vec<Box<dyn Observer>>) -> Result<Daemon, DaemonError> {
        self.clock.restart_process();
        lock(&self.checker).begins();
        let fate = Arc::clone(&self.stage.fate);
        let mut store = FatedStore::new((self.stage.adapters.store)()?, fate);
        let remembered = store.load()?.wire;
        let transport: Arc<dyn Transport> = Arc::new(self.transport());
        let clock: Arc<dyn Clock> = self.stage.wall.clone();
        let marketplace =
            (self.stage.adapters.marketplace)(transport, Arc::clone(&clock), &remembered);
        let parts = Parts {
            marketplace,
            store: Box::new(store),
            clock,
            policies: Box::new(EditedPolicies(Arc::clone(&self.stage.policies))),
            secrets: Box::new(PlaySecrets),
            run_secret: SecretString::from("play"),
            observers,
        };
        Daemon::new(parts, self.settings.clone())
    }

    fn transport(&self) -> SimTransport {
        let clock = Arc::clone(&self.clock);
        let fate = Arc::clone(&self.stage.fate);
        let server = Arc::clone(&self.server);
        let inner = if self.stage.native {
            InProcess::native(server, TIMEOUT)
        } else {
            InProcess::new(server, TIMEOUT)
        };
        let inner = inner
            .on_hang(Arc::new(move |waited| clock.advance(waited)))
            .hook(Arc::new(move |_, request| fate.of_request(request)));
        SimTransport {
            inner,
            stage: Arc::clone(&self.stage),
            saw_ours: AtomicBool::new(false),
        }
    }

    /// Reckons the store's ledger again: what it has billed, and what does not agree.
    pub(super) fn audit(&self) -> Result<(Money, Vec<String>), StoreError> {
        (self.stage.adapters.audit)()
    }

    /// Asks something of the daemon, as the user would through another process.
    pub fn ask(&self, ask: &Ask) -> Result<(), StoreError> {
        (self.stage.adapters.ask)(self.clock.now(), ask)
    }

    /// Runs a process until its work ends, or it dies. `None`: it died, and with it all that was not
    /// durable; it stayed down for a while.
    pub async fn until_crash<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let done = self.stage.fate.until_death(work).await;
        if done.is_none() {
            self.rests(self.stage.fate.down());
        }
        done
    }

    /// Time passes in which no process runs.
    pub(super) fn rests(&self, time: Duration) {
        lock(&self.checker).asleep(self.clock.now(), time);
        self.clock
            .advance(Duration::from_millis(millis(time).unsigned_abs()));
        self.stage.catch_up();
    }

    /// What was broken so far.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.checker).violations()
    }

    /// Market hours since a moment.
    pub fn hours_since(&self, start: Time) -> f64 {
        self.clock.now().since(start).as_secs_f64() / 3600.0
    }
}
