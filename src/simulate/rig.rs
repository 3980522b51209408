//! The real daemon against the embedded market, in one process and in virtual time.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use secrecy::SecretString;
use tokio::sync::Notify;

use super::checker::Checker;
use crate::clock::SimClock;
use crate::daemon::{
    BrokenPolicy, Daemon, DaemonError, Observer, Parts, Policies, PolicySet, Secrets, Settings,
};
use crate::market::router::MarketServer;
use crate::market::transport::{InProcess, Verdict};
use crate::ports::{
    Clock, Marketplace, Method, Reply, Request, Store, StoreError, Transport, TransportError,
};
use crate::types::job::{Job, SecretRef};
use crate::types::state::Ask;
use crate::types::time::Time;

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

/// The adapters, which only the command line may name.
#[derive(Clone)]
pub struct Adapters {
    /// The client.
    pub marketplace: MakeMarketplace,
    /// The store.
    pub store: MakeStore,
    /// The way of another process to ask something of the daemon.
    pub ask: TellStore,
}

/// How long one without an answer is waited for, in market time.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What outlives a process: the dice, and the count of requests.
struct Fate {
    rng: Mutex<ChaCha8Rng>,
    requests: AtomicU64,
    /// Chance that a mutation kills the process, in parts per thousand before it is applied, and
    /// as many after.
    crash_per_mille: AtomicU64,
    /// How long a request takes, in milliseconds of market time.
    latency_ms: RangeInclusive<u64>,
    crash: Notify,
}

impl Fate {
    fn draw(&self, request: &Request) -> Verdict {
        // A native search is a POST, and changes nothing.
        if request.method == Method::Get || request.path.starts_with("/api/v0/bundles") {
            return Verdict::Go;
        }
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let chance = self.crash_per_mille.load(Ordering::SeqCst);
        match rng.random_range(0..1000) {
            draw if draw < chance => Verdict::CrashBefore,
            draw if draw < 2 * chance => Verdict::CrashAfter,
            _ => Verdict::Go,
        }
    }

    fn latency(&self) -> Duration {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_millis(rng.random_range(self.latency_ms.clone()))
    }
}

/// One process's way to the market. It moves virtual time on, lets the checker look after every
/// request, and never returns once the process is dead.
struct SimTransport {
    inner: InProcess,
    server: Arc<MarketServer>,
    clock: Arc<SimClock>,
    checker: Arc<Mutex<Checker>>,
    fate: Arc<Fate>,
}

#[async_trait]
impl Transport for SimTransport {
    async fn send(&self, request: Request) -> Result<Reply, TransportError> {
        self.fate.requests.fetch_add(1, Ordering::SeqCst);
        self.clock.advance(self.fate.latency());
        let now = self.clock.now();
        // In the gateway's older form the id is in the query, in bulk in the body.
        let destroyed = (request.method == Method::Delete).then(|| {
            let ids = request.query.iter().filter(|(name, _)| name != "api_token");
            let body = request.body.as_deref().unwrap_or_default();
            let body = String::from_utf8_lossy(body);
            format!("{} {:?} {body}", request.path, ids.collect::<Vec<_>>())
        });
        let asked = format!("{request:?}");
        let reply = self.inner.send(request).await;
        // For whoever wants to know where two runs part.
        tracing::trace!(target: "haggle::simulate::requests", at = now.0, "{asked}: {reply:?}");
        {
            let mut checker = self.checker.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(path) = destroyed {
                checker.destroy_sent(path, now);
            }
            self.server.with_market(|market| checker.look(market));
        }
        if self.inner.crashed() {
            self.fate.crash.notify_one();
            std::future::pending::<()>().await;
        }
        reply
    }
}

/// Policies that do not change.
#[derive(Clone)]
pub struct FixedPolicies(pub Vec<Arc<Job>>);

impl Policies for FixedPolicies {
    fn load(&mut self) -> PolicySet {
        let path = |job: &Arc<Job>| format!("{}.toml", job.name).into();
        PolicySet {
            jobs: self
                .0
                .iter()
                .map(|job| (path(job), Arc::clone(job)))
                .collect(),
            broken: Vec::<BrokenPolicy>::new(),
        }
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
            latency_ms: 40..=400,
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
    fate: Arc<Fate>,
    native: bool,
    adapters: Adapters,
    settings: Settings,
    jobs: Vec<Arc<Job>>,
}

impl Rig {
    /// Wires a daemon's surroundings. `checker` watches after every request.
    pub fn new(
        clock: Arc<SimClock>,
        server: Arc<MarketServer>,
        way: Way,
        checker: Checker,
        adapters: Adapters,
        settings: Settings,
        jobs: Vec<Arc<Job>>,
    ) -> Self {
        let fate = Fate {
            rng: Mutex::new(ChaCha8Rng::seed_from_u64(settings.seed ^ 0x5eed_7a15)),
            requests: AtomicU64::new(0),
            crash_per_mille: AtomicU64::new(0),
            latency_ms: way.latency_ms,
            crash: Notify::new(),
        };
        let (checker, fate) = (Arc::new(Mutex::new(checker)), Arc::new(fate));
        Self {
            clock,
            server,
            checker,
            fate,
            native: way.native,
            adapters,
            settings,
            jobs,
        }
    }

    /// Lets so many mutations in a thousand kill the process before they are applied, and as many
    /// after.
    pub fn crash_per_mille(&self, per_mille: u64) {
        self.fate.crash_per_mille.store(per_mille, Ordering::SeqCst);
    }

    /// Requests sent so far.
    pub fn requests(&self) -> u64 {
        self.fate.requests.load(Ordering::SeqCst)
    }

    /// Starts a daemon process: it knows what is durable, and nothing else.
    pub fn start(&self, observers: Vec<Box<dyn Observer>>) -> Result<Daemon, DaemonError> {
        self.clock.restart_process();
        let mut store = (self.adapters.store)()?;
        let remembered = store.load()?.wire;
        let transport: Arc<dyn Transport> = Arc::new(self.transport());
        let clock: Arc<dyn Clock> = self.clock.clone();
        let marketplace = (self.adapters.marketplace)(transport, Arc::clone(&clock), &remembered);
        let parts = Parts {
            marketplace,
            store,
            clock,
            policies: Box::new(FixedPolicies(self.jobs.clone())),
            secrets: Box::new(PlaySecrets),
            observers,
        };
        Daemon::new(parts, self.settings.clone())
    }

    fn transport(&self) -> SimTransport {
        let (clock, fate) = (Arc::clone(&self.clock), Arc::clone(&self.fate));
        let server = Arc::clone(&self.server);
        let inner = if self.native {
            InProcess::native(server, TIMEOUT)
        } else {
            InProcess::new(server, TIMEOUT)
        };
        let inner = inner
            .on_hang(Arc::new(move |waited| clock.advance(waited)))
            .hook(Arc::new(move |_, request| fate.draw(request)));
        SimTransport {
            inner,
            server: Arc::clone(&self.server),
            clock: Arc::clone(&self.clock),
            checker: Arc::clone(&self.checker),
            fate: Arc::clone(&self.fate),
        }
    }

    /// Asks something of the daemon, as the user would through another process.
    pub fn ask(&self, ask: &Ask) -> Result<(), StoreError> {
        (self.adapters.ask)(self.clock.now(), ask)
    }

    /// Runs a future of the daemon until it ends, or the process dies. `None`: it died, and with it
    /// all that was not durable.
    pub async fn until_crash<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.fate.crash.notified() => None,
            done = work => Some(done),
        }
    }

    /// What was broken so far.
    pub fn violations(&self) -> Vec<String> {
        self.checker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .violations()
    }

    /// Market hours since a moment.
    pub fn hours_since(&self, start: Time) -> f64 {
        self.clock.now().since(start).as_secs_f64() / 3600.0
    }
}
