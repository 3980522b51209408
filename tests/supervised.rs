//! A supervised job from the rent to its end: the real daemon, over real HTTP, and real processes.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail by panicking, and waits for real processes"
)]
#![cfg(target_os = "linux")]

#[path = "support/processes.rs"]
mod processes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use haggle::clock::SimClock;
use haggle::daemon::{Daemon, Looking, Observer, Pace, Parts, Settings};
use haggle::market::MarketServer;
use haggle::marketplace::http::HttpTransport;
use haggle::marketplace::vast::{Vast, VastOptions};
use haggle::policy;
use haggle::ports::{Clock, Transport};
use haggle::simulate::{FixedPolicies, PlaySecrets};
use haggle::store::SqliteStore;
use haggle::types::ids::{Permit, Tail};
use haggle::types::instance::Held;
use haggle::types::job::{Finish, Job, Runner};
use haggle::types::state::{Change, Ending};
use haggle::types::world::EngineConfig;
use secrecy::SecretString;

use processes::{pause, serve};

const TOKEN: &str = "at_play";

/// No wait is this long.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What a job's instances wrote, and what was told.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<(String, Vec<String>)>>);

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
struct Bench {
    _dir: tempfile::TempDir,
    server: Arc<MarketServer>,
    clock: Arc<SimClock>,
    account: u64,
    daemon: Daemon,
    heard: Heard,
}

impl Bench {
    async fn new(job: Job) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (server, clock, origin) = serve(dir.path(), 40).await;
        let account = server.with_market(|market| market.account_for(TOKEN));
        let transport = HttpTransport::new(&origin, Duration::from_secs(20)).unwrap();
        let transport: Arc<dyn Transport> = Arc::new(transport);
        let time: Arc<dyn Clock> = clock.clone();
        let options = VastOptions::new(SecretString::from(TOKEN));
        let heard = Heard::default();
        let store = SqliteStore::open(&dir.path().join("haggle.db"), None, 1).unwrap();
        let parts = Parts {
            marketplace: Arc::new(Vast::new(
                transport,
                time.clone(),
                options,
                &BTreeMap::new(),
            )),
            store: Box::new(store),
            clock: time,
            policies: Box::new(FixedPolicies(vec![Arc::new(job)])),
            secrets: Box::new(PlaySecrets),
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
        Self {
            _dir: dir,
            server,
            clock,
            account,
            daemon: Daemon::new(parts, settings).unwrap(),
            heard,
        }
    }

    /// Ticks once a minute of the market until something is so.
    async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
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

    fn labels(&self) -> Vec<String> {
        let rows = self
            .server
            .with_market(|market| market.instances(self.account));
        rows.into_iter()
            .filter_map(|row| row.label.map(|label| label.to_string()))
            .collect()
    }

    fn ending(&self) -> Option<Ending> {
        let replicas = self.daemon.state().replicas.values();
        replicas
            .filter_map(|replica| replica.ending)
            .map(|(ending, _)| ending)
            .next()
    }

    fn was_told(&self, kind: &str) -> usize {
        let heard = self.heard.0.lock().unwrap();
        heard
            .1
            .iter()
            .filter(|told| told.starts_with(&format!("{kind}: ")))
            .count()
    }

    fn starts(&self) -> u32 {
        self.daemon
            .state()
            .replicas
            .values()
            .map(|replica| replica.generation)
            .sum()
    }
}

/// A small job that runs a command, and whose disk may be lost.
fn supervised(command: &str) -> Job {
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
        checkpoint: None,
        outputs: None,
        storage: None,
        sync_every: Duration::from_mins(10),
    }));
    job
}

#[tokio::test]
async fn a_command_runs_to_its_end_and_the_bill_stops() {
    let mut bench = Bench::new(supervised("echo the answer is $((6 * 7))")).await;
    bench
        .until("finished", |bench| bench.ending() == Some(Ending::Finished))
        .await;
    assert!(bench.heard.0.lock().unwrap().0.contains("the answer is 42"));
    bench.until("gone", |bench| bench.labels().is_empty()).await;
    assert_eq!(bench.starts(), 1);
    assert_eq!(bench.was_told("finished"), 1);
}

#[tokio::test]
async fn a_command_that_fails_is_tried_again_and_then_given_up() {
    let mut bench = Bench::new(supervised("exit 3")).await;
    bench
        .until("failed", |bench| bench.ending() == Some(Ending::Failed))
        .await;
    bench.until("gone", |bench| bench.labels().is_empty()).await;
    assert_eq!(bench.was_told("failed"), 2);
    assert_eq!(bench.starts(), 2);
}

#[tokio::test]
async fn the_lease_of_one_that_works_is_renewed() {
    let mut bench = Bench::new(supervised("sleep 600")).await;
    bench
        .until("running", |bench| {
            let held = bench.daemon.state().held.values();
            held.filter_map(|held| held.runner.as_ref())
                .any(|view| view.worked)
        })
        .await;
    let tail = |bench: &Bench| Tail::of(bench.labels().first().unwrap()).unwrap();
    let first = tail(&bench);
    assert_eq!((first.generation, first.permit), (1, Permit::Go));
    let renewed = move |bench: &Bench| tail(bench).until > first.until + Duration::from_mins(50);
    bench.until("renewed", renewed).await;
    assert_eq!(bench.starts(), 1);
    let left = bench
        .daemon
        .destroy_all(Duration::from_hours(1))
        .await
        .unwrap();
    assert_eq!((left.remaining.len(), left.unsettled), (0, 0));
}
