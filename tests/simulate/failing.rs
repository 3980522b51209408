//! A store that fails at the worst moment: an instance was made, and nobody can record it. Nothing
//! is sent until it can be written again, and then what happened is found out.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::NaiveDate;
use haggle::clock::SimClock;
use haggle::daemon::{Daemon, DaemonError, Looking, Observer, Pace, Settings};
use haggle::market::faults::Faults;
use haggle::market::{Market, MarketOptions, MarketServer, WireOptions};
use haggle::ports::{Clock, Standing, Store, StoreError};
use haggle::simulate::{Checker, Path, Rig, TOKEN, Way};
use haggle::store::Reader;
use haggle::types::ids::InstanceId;
use haggle::types::instance::Held;
use haggle::types::ledger::{BilledDays, Drift};
use haggle::types::offer::Snapshot;
use haggle::types::state::{Change, State, UserRequest};
use haggle::types::time::Time;
use haggle::types::world::EngineConfig;

use crate::scenarios::{adapters, jobs};

const START: Time = Time(1_767_643_200_000);

/// How the store fails.
#[derive(Clone, Copy, Debug)]
enum How {
    Full,
    Locked,
    ReadOnly,
    Corrupt,
}

impl How {
    fn error(self) -> StoreError {
        match self {
            Self::Full => StoreError::Full,
            Self::Locked => StoreError::Locked,
            Self::ReadOnly => StoreError::ReadOnly,
            Self::Corrupt => StoreError::Corrupt("page 7".to_owned()),
        }
    }
}

/// Fails from the first record of a new instance on, for so many writes.
struct Failing {
    inner: Box<dyn Store>,
    how: How,
    left: Arc<AtomicU32>,
    begun: bool,
}

impl Store for Failing {
    fn load(&mut self) -> Result<State, StoreError> {
        self.inner.load()
    }
    fn standing(&mut self) -> Standing {
        self.inner.standing()
    }
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.begun |= matches!(changes, [Change::Held(held)] if held.accrued_to == held.created_at);
        let left = self.left.load(Ordering::SeqCst);
        if self.begun && left > 0 {
            self.left.store(left - 1, Ordering::SeqCst);
            return Err(self.how.error());
        }
        self.inner.commit(changes)
    }
    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<i64, StoreError> {
        self.inner.snapshot(snapshot)
    }
    fn last_snapshot(&mut self) -> Result<Option<(i64, Snapshot)>, StoreError> {
        self.inner.last_snapshot()
    }
    fn ended_since(&mut self, from: Time) -> Result<Vec<Held>, StoreError> {
        self.inner.ended_since(from)
    }
    fn requests(&mut self) -> Result<Vec<UserRequest>, StoreError> {
        self.inner.requests()
    }
    fn ended(&mut self, instance: InstanceId) -> Result<Option<Held>, StoreError> {
        self.inner.ended(instance)
    }
    fn billed(&mut self, instance: InstanceId) -> Result<BilledDays, StoreError> {
        self.inner.billed(instance)
    }
    fn drift(&mut self, day: NaiveDate) -> Result<Vec<Drift>, StoreError> {
        self.inner.drift(day)
    }
    fn prune(&mut self, before: Time) -> Result<(), StoreError> {
        self.inner.prune(before)
    }
}

/// How many requests had been sent each time that the daemon said how its store is.
#[derive(Clone)]
struct Sent {
    rig: Arc<Rig>,
    at: Arc<Mutex<Vec<(bool, u64)>>>,
}

impl Observer for Sent {
    fn store_failed(&mut self, error: Option<&StoreError>) {
        let sent = self.rig.requests();
        self.at.lock().unwrap().push((error.is_some(), sent));
    }
}

struct Scene {
    rig: Arc<Rig>,
    clock: Arc<SimClock>,
    account: u64,
    directory: tempfile::TempDir,
    /// Writes that are still to fail.
    left: Arc<AtomicU32>,
    sent: Sent,
}

impl Scene {
    fn new(how: How, writes: u32) -> Self {
        let clock = Arc::new(SimClock::new(START));
        let mut market = Market::generated(MarketOptions {
            seed: 4,
            start: START,
            machines: Some(60),
            ..MarketOptions::default()
        });
        let account = market.account_for(TOKEN);
        let shared: Arc<dyn Clock> = clock.clone();
        let server = MarketServer::new(market, WireOptions::default(), Faults::none(), shared);
        let engine = EngineConfig::default();
        let directory = tempfile::tempdir().unwrap();
        let left = Arc::new(AtomicU32::new(writes));
        let mut adapters = adapters(directory.path(), 4, Path::New, true);
        let (open, fails) = (Arc::clone(&adapters.store), Arc::clone(&left));
        adapters.store = Arc::new(move || {
            let inner = open()?;
            let left = Arc::clone(&fails);
            Ok(Box::new(Failing {
                inner,
                how,
                left,
                begun: false,
            }) as Box<dyn Store>)
        });
        let rig = Arc::new(Rig::new(
            clock.clone(),
            Arc::new(server),
            Way::default(),
            Checker::new(account, &jobs(), engine.clone()),
            adapters,
            Settings {
                engine,
                live: true,
                pace: Pace::Every,
                seed: 4,
                looking: Looking {
                    instances_every: Duration::from_mins(1),
                    history_every: None,
                    ..Looking::default()
                },
            },
            jobs(),
        ));
        let sent = Sent {
            rig: Arc::clone(&rig),
            at: Arc::default(),
        };
        Self {
            rig,
            clock,
            account,
            directory,
            left,
            sent,
        }
    }

    fn start(&self) -> Daemon {
        self.rig.start(vec![Box::new(self.sent.clone())]).unwrap()
    }

    async fn run(&self, daemon: &mut Daemon, minutes: u64) -> Result<(), DaemonError> {
        let until = self.clock.now() + Duration::from_mins(minutes);
        daemon.run(Some(until), std::future::pending()).await
    }

    fn told(&self, kind: &str) -> usize {
        let reader = Reader::open(&self.directory.path().join("haggle.db")).unwrap();
        let events = reader.events(None, 100_000).unwrap();
        events.iter().filter(|event| event.kind == kind).count()
    }

    /// All that is rented is known, and nothing is in doubt.
    fn assert_settled(&self, daemon: &Daemon) {
        let rows = self
            .rig
            .server
            .with_market(|market| market.instances(self.account));
        let rented: Vec<u64> = rows.iter().map(|row| row.id).collect();
        let known: Vec<u64> = daemon.state().held.keys().map(|id| id.0).collect();
        assert!(!rented.is_empty());
        assert_eq!(rented, known);
        assert!(daemon.state().intents.is_empty());
        assert_eq!(self.rig.violations(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_was_made_while_the_store_failed_is_found_when_it_works_again() {
    for how in [How::Full, How::Locked, How::ReadOnly] {
        let scene = Scene::new(how, 5);
        let mut daemon = scene.start();
        scene.run(&mut daemon, 30).await.unwrap();
        assert_eq!(scene.told("store-failed"), 1, "{how:?}");
        assert_eq!(scene.told("settled"), 1, "{how:?}: the one that was made");
        let said = scene.sent.at.lock().unwrap().clone();
        let fails: Vec<bool> = said.iter().map(|(fails, _)| *fails).collect();
        assert_eq!(fails, [true, true, true, true, true, false], "{how:?}");
        let first = said[0].1;
        let mut failing = said.iter().filter(|(fails, _)| *fails);
        let quiet = failing.all(|(_, sent)| *sent == first);
        assert!(quiet, "{how:?}: nothing is sent meanwhile: {said:?}");
        scene.assert_settled(&daemon);
    }
}

#[tokio::test]
async fn a_store_that_stays_away_ends_the_daemon_and_the_next_one_settles() {
    let scene = Scene::new(How::Full, u32::MAX);
    let mut daemon = scene.start();
    let error = scene.run(&mut daemon, 120).await.unwrap_err();
    assert!(
        matches!(error, DaemonError::Store(StoreError::Full)),
        "{error}"
    );
    let said = scene.sent.at.lock().unwrap().clone();
    let quiet = said
        .iter()
        .all(|(fails, sent)| *fails && *sent == said[0].1);
    assert!(quiet && said.len() > 10, "{said:?}");
    let lasted = scene.clock.now().since(START);
    let bounds = Duration::from_mins(10)..Duration::from_mins(12);
    assert!(bounds.contains(&lasted), "{lasted:?}");
    drop(daemon);
    scene.left.store(0, Ordering::SeqCst);
    let mut daemon = scene.start();
    scene.run(&mut daemon, 20).await.unwrap();
    assert_eq!(scene.told("settled"), 1);
    scene.assert_settled(&daemon);
}

#[tokio::test]
async fn damage_ends_the_daemon_at_once() {
    let scene = Scene::new(How::Corrupt, 1);
    let mut daemon = scene.start();
    let error = scene.run(&mut daemon, 120).await.unwrap_err();
    assert!(
        matches!(error, DaemonError::Store(StoreError::Corrupt(_))),
        "{error}"
    );
    assert!(scene.clock.now().since(START) < Duration::from_mins(2));
    assert!(scene.sent.at.lock().unwrap().is_empty());
}
