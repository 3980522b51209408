//! A daemon on a market whose instances are processes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use haggle::clock::SimClock;
use haggle::daemon::{Daemon, Looking, Observer, Pace, Parts, Secrets, Settings};
use haggle::market::{CreateParams, MarketServer, RawOffer};
use haggle::marketplace::http::HttpTransport;
use haggle::marketplace::vast::{Vast, VastOptions};
use haggle::policy;
use haggle::ports::{Clock, Method, Reply, Request, Transport, TransportError};
use haggle::simulate::FixedPolicies;
use haggle::store::SqliteStore;
use haggle::types::instance::{Held, Phase};
use haggle::types::job::{Finish, Job, Runner, SecretRef};
use haggle::types::offer::Market as Search;
use haggle::types::state::{Change, Ending};
use haggle::types::world::EngineConfig;
use secrecy::SecretString;
use tokio::sync::Notify;

use crate::processes::{pause, serve};

pub(crate) const TOKEN: &str = "at_play";

/// No wait is this long.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

/// What a job's instances wrote, and what was told.
#[derive(Clone, Default)]
pub(crate) struct Heard(pub(crate) Arc<Mutex<(String, Vec<String>)>>);

impl Observer for Heard {
    fn logged(&mut self, _held: &Held, log: &[u8]) {
        self.0.lock().unwrap().0 = String::from_utf8_lossy(log).into_owned();
    }

    fn committed(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Event(event) = change {
                self.0
                    .lock()
                    .unwrap()
                    .1
                    .push(format!("{}: {}", event.kind, event.text));
            }
        }
    }
}

/// A market whose instances are processes, and a daemon.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) server: Arc<MarketServer>,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) origin: String,
    pub(crate) account: u64,
    pub(crate) job: Job,
    pub(crate) daemon: Daemon,
    pub(crate) heard: Heard,
    pub(crate) plug: Arc<Plug>,
    keys: Keys,
}

/// What secrets are, by their references.
pub(crate) type Keys = fn(&SecretRef) -> &'static str;

struct Known(Keys);

impl Secrets for Known {
    fn resolve(&self, reference: &SecretRef) -> Result<SecretString, String> {
        Ok(SecretString::from((self.0)(reference)))
    }
}

/// The requests that there were, and at which one it dies, and whether before it.
type Requests = (Vec<String>, Option<(usize, bool)>);

/// Where the daemon dies: at its so-manieth request that changes something, before it leaves or once it was
/// answered.
#[derive(Default)]
pub(crate) struct Plug {
    /// What there was, and what is to come.
    pub(crate) at: Mutex<Requests>,
    /// The plug was pulled.
    pub(crate) pulled: Notify,
}

impl Plug {
    /// A request is about to leave: whether the process dies before it, or after.
    fn passes(&self, request: &Request) -> Option<bool> {
        let path = &request.path;
        let reads = path.contains("bundles") || path.contains("request_logs");
        if request.method == Method::Get || reads {
            return None;
        }
        let mut at = self.at.lock().unwrap();
        at.0.push(format!("{} {path}", request.method.as_str()));
        let (number, before) = at.1?;
        if at.0.len() != number {
            return None;
        }
        at.1 = None;
        Some(before)
    }
}

/// A wire on which a process can die.
struct Plugged(Arc<dyn Transport>, Arc<Plug>);

#[async_trait]
impl Transport for Plugged {
    async fn send(&self, request: Request) -> Result<Reply, TransportError> {
        let dies = self.1.passes(&request);
        if dies != Some(true) {
            let answer = self.0.send(request).await;
            if dies.is_none() {
                return answer;
            }
        }
        self.1.pulled.notify_one();
        std::future::pending().await
    }

    async fn fetch(&self, url: &str) -> Result<Reply, TransportError> {
        self.0.fetch(url).await
    }
}

impl Bench {
    pub(crate) async fn new(job: Job) -> Self {
        Self::with(job, |_| "").await
    }

    /// The same, with secrets.
    pub(crate) async fn with(job: Job, keys: Keys) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (server, clock, origin) = serve(dir.path(), 40).await;
        let account = server.with_market(|market| market.account_for(TOKEN));
        let heard = Heard::default();
        let plug = Arc::new(Plug::default());
        let wire = (origin.as_str(), &plug);
        let daemon = daemon(dir.path(), wire, &clock, &job, &heard, keys);
        Self {
            dir,
            server,
            clock,
            origin,
            account,
            job,
            daemon,
            heard,
            plug,
            keys,
        }
    }

    /// The daemon is killed wherever it is, and another one is started on what it left.
    pub(crate) fn restart(self) -> Self {
        let Self { daemon: old, .. } = self;
        drop(old);
        let new = daemon(
            self.dir.path(),
            (&self.origin, &self.plug),
            &self.clock,
            &self.job,
            &self.heard,
            self.keys,
        );
        Self {
            daemon: new,
            ..self
        }
    }

    /// Ticks once a minute of the market until something is so.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            let heard = self.heard.0.lock().unwrap().clone();
            assert!(began.elapsed() < WAIT_MAX, "not {what}: {heard:#?}");
            let failures = self.daemon.tick().await.unwrap();
            assert_eq!(failures, Vec::new());
            self.clock.advance(Duration::from_mins(1));
            // The processes are real, and take their time.
            pause(Duration::from_millis(100)).await;
        }
    }

    pub(crate) fn labels(&self) -> Vec<String> {
        let rows = self
            .server
            .with_market(|market| market.instances(self.account));
        rows.into_iter()
            .filter_map(|row| row.label.map(|label| label.to_string()))
            .collect()
    }

    pub(crate) fn ending(&self) -> Option<Ending> {
        let replicas = self.daemon.state().replicas.values();
        replicas
            .filter_map(|replica| replica.ending)
            .map(|(ending, _)| ending)
            .next()
    }

    pub(crate) fn was_told(&self, kind: &str) -> usize {
        let heard = self.heard.0.lock().unwrap();
        heard
            .1
            .iter()
            .filter(|told| told.starts_with(&format!("{kind}: ")))
            .count()
    }

    pub(crate) fn starts(&self) -> u32 {
        self.daemon
            .state()
            .replicas
            .values()
            .map(|replica| replica.generation)
            .sum()
    }
}

/// A daemon on the database of a directory.
fn daemon(
    dir: &Path,
    (origin, plug): (&str, &Arc<Plug>),
    clock: &Arc<SimClock>,
    job: &Job,
    heard: &Heard,
    keys: Keys,
) -> Daemon {
    let transport = HttpTransport::new(origin, Duration::from_secs(20)).unwrap();
    let transport = Plugged(Arc::new(transport), Arc::clone(plug));
    let transport: Arc<dyn Transport> = Arc::new(transport);
    let time: Arc<dyn Clock> = clock.clone();
    let options = VastOptions::new(SecretString::from(TOKEN));
    let remembered = BTreeMap::new();
    let store = SqliteStore::open(&dir.join("haggle.db"), None, 1).unwrap();
    let parts = Parts {
        marketplace: Arc::new(Vast::new(transport, time.clone(), options, &remembered)),
        store: Box::new(store),
        clock: time,
        policies: Box::new(FixedPolicies(vec![Arc::new(job.clone())])),
        secrets: Box::new(Known(keys)),
        run_secret: SecretString::from("a secret of this test, which is long enough"),
        observers: vec![Box::new(heard.clone())],
    };
    let settings = Settings {
        engine: EngineConfig::default(),
        live: true,
        pace: Pace::Every,
        seed: 1,
        looking: Looking::default(),
    };
    Daemon::new(parts, settings).unwrap()
}

/// A small job that runs a command, and whose disk may be lost.
pub(crate) fn supervised(command: &str) -> Job {
    let text = r#"
        name = "count"
        rental = "on-demand"
        finish = "manual"
        min_run = "1s"
        [price]
        max = "$2/gpu-hour"
        [run]
        image = "a/b:c"
        type = "args"
        [gpu]
        count = 1
        [machine]
        disk = "8GB"
        [data]
        disposable = true
        [retries]
        max = 1
        backoff = "1m"
    "#;
    let mut job = policy::parse("count.toml", text).unwrap();
    job.finish = Finish::Exit;
    job.run.runner = Some(Box::new(Runner {
        command: command.to_owned(),
        lease: Some(Duration::from_hours(2)),
        progress: None,
        hung_after: None,
        silent_after: Duration::from_mins(180),
        preflight: false,
        grace: Duration::from_secs(1),
        linger: Duration::from_hours(24),
        looks: (Duration::from_secs(2), Duration::from_secs(2)),
        checkpoint: None,
        outputs: None,
        storage: None,
        sync_every: Duration::from_mins(10),
        carried: false,
        inputs: Vec::new(),
        inputs_wait: None,
    }));
    job
}

impl Bench {
    /// How far the command that runs says that it is; `None`: none does.
    pub(crate) fn progress(&self) -> Option<u64> {
        let held = self.daemon.state().held.values();
        let at_work = held.filter(|held| held.phase == Phase::Running && held.destroying.is_none());
        let views = at_work.filter_map(|held| held.runner.as_ref());
        let working = views.filter(|view| view.state.as_deref() == Some("running"));
        working
            .filter_map(|view| view.progress)
            .map(|n| n as u64)
            .next()
    }

    /// Somebody else takes on demand what we bid for: his account, and the instance that he has.
    pub(crate) fn outbid(&self, number: u32) -> Option<(u64, u64)> {
        let mut held = self.daemon.state().held.values();
        let ours = held.find(|held| held.phase == Phase::Running)?;
        self.server.with_market(|market| {
            let rival = market.account_for(&format!("at_rival{number}"));
            let offers = market.offers(rival, Search::OnDemand, 8.0);
            let same = |row: &&RawOffer| {
                row.machine_id == ours.slot.machine.0 && row.gpu_ids == ours.gpu_ids
            };
            let params = CreateParams {
                offer_id: offers.iter().find(same)?.id,
                image: Some("a/b:c".to_owned()),
                ..CreateParams::default()
            };
            let made = market.create(rival, params).unwrap();
            Some((rival, made.new_contract))
        })
    }
}
