//! How starts come to nothing, and how soon that is known: the real daemon against the embedded market,
//! in one process and in virtual time.

#![allow(clippy::unwrap_used)] // A test that cannot go on says so.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use haggle::clock::SimClock;
use haggle::daemon::{Looking, Observer, Pace, Settings, TickView};
use haggle::market::faults::Faults;
use haggle::market::{Happening, Market, MarketEvent, MarketOptions, MarketServer, WireOptions};
use haggle::marketplace::lowcode::{LowCode, LowCodeOptions};
use haggle::simulate::{Adapters, Checker, Rig, TOKEN, Way};
use haggle::store::{Reader, SqliteStore, append_request};
use haggle::types::job::Job;
use haggle::types::money::Money;
use haggle::types::plan::Situation;
use haggle::types::start::StartFault;
use haggle::types::state::{Ask, Severity, State, Wish};
use haggle::types::time::Time;
use haggle::types::world::EngineConfig;
use secrecy::SecretString;

const START: Time = Time(1_767_643_200_000);

/// What was seen at each decision.
#[derive(Default)]
struct Seen {
    /// Why starts were given up, by instance, and when.
    faults: BTreeMap<u64, (StartFault, Time)>,
    /// What each replica waited for last.
    situations: BTreeMap<u32, Situation>,
    state: Option<State>,
}

struct Follow(Arc<Mutex<Seen>>);

impl Observer for Follow {
    fn ticked(&mut self, view: &TickView<'_>) {
        let mut seen = self.0.lock().unwrap();
        for held in view.world.state.held.values() {
            if let Some(fault) = held.start_fault {
                let at = view.world.now;
                seen.faults.entry(held.id.0).or_insert((fault, at));
            }
        }
        for replica in view.report.jobs.iter().flat_map(|job| &job.replicas) {
            let (index, situation) = (replica.replica.index, replica.situation.clone());
            seen.situations.insert(index, situation);
        }
        seen.state = Some(view.state.clone());
    }
}

fn policy(image: &str, replicas: u32, more: &str) -> Arc<Job> {
    let text = format!(
        r#"
        name = "work"
        rental = "on-demand"
        replicas = {replicas}
        finish = "manual"
        {more}
        [run]
        image = "{image}"
        [machine]
        disk = "12GB"
        reliability = 0.1
        verified = false
        [price]
        max = "$20/gpu-hour"
        [budget]
        total = "$4000"
        [data]
        disposable = true
        "#
    );
    Arc::new(haggle::policy::parse("work.toml", &text).unwrap())
}

struct Stage {
    rig: Rig,
    database: PathBuf,
    _directory: tempfile::TempDir,
    until: Time,
}

impl Stage {
    fn new(options: MarketOptions, job: Arc<Job>) -> Self {
        let clock = Arc::new(SimClock::new(START));
        let mut market = Market::generated(MarketOptions {
            seed: 5,
            start: START,
            balance: Money::dollars(4000),
            ..options
        });
        let account = market.account_for(TOKEN);
        let (jobs, engine) = (vec![job], EngineConfig::default());
        let server = MarketServer::new(
            market,
            WireOptions::default(),
            Faults::none(),
            clock.clone(),
        );
        let checker = Checker::new(account, &jobs, engine.clone());
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("haggle.db");
        let (opened, asked) = (database.clone(), database.clone());
        let adapters = Adapters {
            marketplace: Arc::new(|transport, clock, remembered| {
                let options = LowCodeOptions::new(SecretString::from(TOKEN));
                Arc::new(LowCode::new(transport, clock, options, remembered))
            }),
            store: Arc::new(move || Ok(Box::new(SqliteStore::open(&opened, None, 5)?))),
            ask: Arc::new(move |now, ask| append_request(&asked, now, ask).map(drop)),
            disk: Arc::new(|_| Ok(())),
            audit: Arc::new(|| Ok((Money::ZERO, Vec::new()))),
        };
        let settings = Settings {
            engine,
            live: true,
            pace: Pace::Every,
            seed: 5,
            looking: Looking::default(),
        };
        let rig = Rig::new(
            clock,
            Arc::new(server),
            Way::default(),
            checker,
            adapters,
            settings,
            jobs,
        );
        Self {
            rig,
            database,
            _directory: directory,
            until: START,
        }
    }

    /// The daemon works for so many hours more.
    async fn works(&mut self, hours: u64) -> Seen {
        self.until = self.until + Duration::from_hours(hours);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let follow: Box<dyn Observer> = Box::new(Follow(Arc::clone(&seen)));
        let mut daemon = self.rig.start(vec![follow]).unwrap();
        daemon
            .run(Some(self.until), std::future::pending())
            .await
            .unwrap();
        drop(daemon);
        std::mem::take(&mut seen.lock().unwrap())
    }

    fn events(&self) -> Vec<MarketEvent> {
        self.rig
            .server
            .with_market(|market| market.events().to_vec())
    }

    fn created(&self) -> usize {
        let made = |event: &&MarketEvent| matches!(event.what, Happening::Created { .. });
        self.events().iter().filter(made).count()
    }

    /// How urgent what was told under a word was.
    fn told(&self, kind: &str) -> Vec<Severity> {
        let reader = Reader::open(&self.database).unwrap();
        let events = reader.events(None, 10_000).unwrap();
        let of_kind = events.into_iter().filter(|event| event.kind == kind);
        of_kind.map(|event| event.severity).collect()
    }
}

fn quiet(machines: u32) -> MarketOptions {
    MarketOptions {
        machines: Some(machines),
        intensity: 0.0,
        failures: 0.0,
        liars: 0.0,
        ..MarketOptions::default()
    }
}

#[tokio::test]
async fn an_image_that_nobody_has_is_tried_on_two_hosts_and_again_when_the_user_says_so() {
    let job = policy("missing.invalid/me/image:1", 1, "");
    let mut stage = Stage::new(quiet(40), job);
    for tried in 1..=2 {
        let seen = stage.works(4).await;
        assert_eq!(stage.created(), 2 * tried);
        assert_eq!(seen.faults.len(), 2);
        let missing = StartFault::ImageMissing;
        assert!(seen.faults.values().all(|(fault, _)| *fault == missing));
        let state = seen.state.unwrap();
        assert!(state.held.is_empty());
        let cooled = |machine: &haggle::types::machine::MachineRecord| {
            machine.cool_until.is_some() || machine.failures > 0
        };
        assert!(!state.machines.values().any(cooled), "no host is to blame");
        let Situation::CannotStart {
            fault,
            message,
            until,
        } = &seen.situations[&0]
        else {
            panic!("{:?}", seen.situations)
        };
        assert_eq!((*fault, *until), (missing, None));
        assert!(message.contains("manifest unknown"), "{message}");
        assert_eq!(stage.told("cannot-start"), vec![Severity::Alarm; tried]);
        let ask = Ask::Job {
            job: "work".parse().unwrap(),
            wish: Wish::Run,
        };
        append_request(&stage.database, stage.until, &ask).unwrap();
    }
}

#[tokio::test]
async fn a_pull_quota_is_waited_out_once_two_hosts_have_it() {
    let job = policy("quota.invalid/me/image:1", 1, "");
    let mut stage = Stage::new(quiet(40), job);
    let seen = stage.works(15).await;
    // On two machines, and on one after 1, 2, 4 and 6 hours, each with the minutes until it is seen.
    assert_eq!(stage.created(), 6);
    let told = stage.told("cannot-start");
    let alarms = told.iter().filter(|severity| **severity == Severity::Alarm);
    assert_eq!((told.len(), alarms.count()), (5, 1));
    let state = seen.state.unwrap();
    assert!(state.machines.values().all(|machine| machine.failures == 0));
}

#[tokio::test]
async fn hosts_that_all_fail_are_not_tried_for_ever() {
    let options = MarketOptions {
        failures: 1e9,
        ..quiet(60)
    };
    let mut stage = Stage::new(options, policy("a/b:c", 2, ""));
    stage.works(24).await;
    // Five are tried soon, and then some a day.
    let created = stage.created();
    assert!((5..=24).contains(&created), "{created}");
    let told = stage.told("cannot-start");
    let alarms = told.iter().filter(|severity| **severity == Severity::Alarm);
    assert!(told.len() >= 3 && alarms.count() == 1, "{told:?}");
}

#[tokio::test]
async fn a_host_that_fails_is_left_within_minutes() {
    let options = MarketOptions {
        failures: 20.0,
        ..quiet(40)
    };
    let mut stage = Stage::new(options, policy("a/b:c", 12, ""));
    let seen = stage.works(3).await;
    let events = stage.events();
    let failed: BTreeMap<u64, Time> = events
        .iter()
        .filter_map(|event| match event.what {
            Happening::ProvisioningFailed { instance } => Some((instance, event.at)),
            _ => None,
        })
        .collect();
    assert!(failed.len() >= 3, "{} failures tell little", failed.len());
    // Of the last ones there was no time to see it.
    let early = |at: &Time| at.since(START) < Duration::from_hours(2);
    for (id, at) in failed.iter().filter(|(_, at)| early(at)) {
        let Some((fault, seen_at)) = seen.faults.get(id) else {
            panic!("the start of {id} failed at {at}, and that was never seen")
        };
        assert_eq!(*fault, StartFault::HostError);
        // It takes two polls.
        assert!(seen_at.since(*at) <= Duration::from_mins(4), "{id}");
    }
    assert!(stage.told("cannot-start").is_empty());
}

#[tokio::test]
async fn a_host_that_is_slow_and_well_is_left_alone() {
    // It is a large image, and a layer of it may take ten minutes.
    let times = "provision_timeout = \"3h\"\nstart = { loading_unchanged = \"10m\" }";
    let mut stage = Stage::new(quiet(30), policy("a/b:47", 25, times));
    let seen = stage.works(3).await;
    let events = stage.events();
    let made = |id: u64| {
        let created = |event: &&MarketEvent| matches!(event.what, Happening::Created { instance, .. } if instance == id);
        events.iter().find(created).map(|event| event.at)
    };
    let boots: Vec<Duration> = events
        .iter()
        .filter_map(|event| match event.what {
            Happening::Running { instance } => made(instance).map(|at| event.at.since(at)),
            _ => None,
        })
        .collect();
    let longest = boots.iter().max().unwrap();
    assert!(
        *longest > Duration::from_mins(11),
        "{longest:?} tells little"
    );
    assert!(seen.faults.is_empty(), "{:?}", seen.faults);
}
