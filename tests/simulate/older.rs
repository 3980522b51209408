//! A process that starts again on an older copy of its database, put back by hand, neither doubles
//! nor forgets: it finds out, waits, takes over what it had forgotten, and its books come to the
//! bill.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path as Dir;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use haggle::clock::SimClock;
use haggle::daemon::{Daemon, Looking, Observer, Pace, Settings};
use haggle::market::faults::Faults;
use haggle::market::{Disputed, Market, MarketOptions, MarketServer, WireOptions};
use haggle::ports::Clock;
use haggle::simulate::{Checker, Path, Rig, TOKEN, Way};
use haggle::store::{Reader, mark_file};
use haggle::types::ids::InstanceId;
use haggle::types::instance::{DestroyWhy, Phase, Rental};
use haggle::types::intent::{Effect, Intent};
use haggle::types::money::Money;
use haggle::types::state::{Ask, Change, Wish};
use haggle::types::time::Time;
use haggle::types::world::EngineConfig;

use crate::scenarios::{adapters, jobs};

const START: Time = Time(1_767_643_200_000);

/// What is put back beside the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// The newer one is still there.
    Left,
    /// It is gone, as after a move of the database alone.
    Gone,
    /// It is as old as the copy, as after a snapshot of a whole disk was put back.
    Old,
}

/// Tells the checker what the daemon says that it destroys for a limit.
struct Announced(Arc<Mutex<Checker>>);

impl Observer for Announced {
    fn committed(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Intent(Intent {
                effect: Effect::Destroy { instance, why },
                ..
            }) = change
                && *why == DestroyWhy::Limit
            {
                self.0.lock().unwrap().announced(instance.0);
            }
        }
    }
}

struct Scene {
    rig: Rig,
    clock: Arc<SimClock>,
    account: u64,
    directory: tempfile::TempDir,
}

impl Scene {
    fn new(seed: u64, path: Path) -> Self {
        Self::disputed(seed, path, Disputed::default())
    }

    fn disputed(seed: u64, path: Path, disputed: Disputed) -> Self {
        let clock = Arc::new(SimClock::new(START));
        let mut market = Market::generated(MarketOptions {
            seed,
            start: START,
            machines: Some(60),
            intensity: 4.0,
            disputed,
            ..MarketOptions::default()
        });
        let account = market.account_for(TOKEN);
        let shared: Arc<dyn Clock> = clock.clone();
        let server = MarketServer::new(market, WireOptions::default(), Faults::none(), shared);
        let engine = EngineConfig::default();
        let directory = tempfile::tempdir().unwrap();
        let rig = Rig::new(
            clock.clone(),
            Arc::new(server),
            Way {
                native: path == Path::Native,
                ..Way::default()
            },
            Checker::new(account, &jobs(), engine.clone()),
            adapters(directory.path(), seed, path, true),
            Settings {
                engine,
                live: true,
                pace: Pace::Every,
                seed,
                looking: Looking {
                    instances_every: Duration::from_mins(1),
                    history_every: None,
                    ..Looking::default()
                },
            },
            jobs(),
        );
        Self {
            rig,
            clock,
            account,
            directory,
        }
    }

    fn start(&self) -> Daemon {
        let told = Announced(Arc::clone(&self.rig.checker));
        self.rig.start(vec![Box::new(told)]).unwrap()
    }

    async fn run(&self, daemon: &mut Daemon, hours: f64) {
        let until = self.clock.now() + Duration::from_secs_f64(hours * 3600.0);
        daemon
            .run(Some(until), std::future::pending())
            .await
            .unwrap();
    }

    fn rented(&self) -> BTreeSet<u64> {
        let rows = self
            .rig
            .server
            .with_market(|market| market.instances(self.account));
        rows.iter().map(|row| row.id).collect()
    }

    fn told(&self, kind: &str) -> usize {
        let reader = Reader::open(&self.directory.path().join("haggle.db")).unwrap();
        let events = reader.events(None, 100_000).unwrap();
        events.iter().filter(|event| event.kind == kind).count()
    }

    /// The labels of all that was ever made, as the bill names them.
    fn labels(&self) -> Vec<String> {
        self.rig.server.with_market(|market| {
            let rows = market.charges(self.account, Time(0), market.now());
            let made: BTreeSet<(String, String)> = rows
                .into_iter()
                .filter_map(|row| Some((row.source, row.metadata.label?)))
                .collect();
            made.into_iter().map(|(_, label)| label).collect()
        })
    }
}

fn put_back(from: &Dir, to: &Dir) {
    fs::copy(from, to).unwrap();
    for tail in ["-wal", "-shm"] {
        let mut name = to.as_os_str().to_owned();
        name.push(tail);
        let _ = fs::remove_file(name);
    }
}

async fn goes_on_with_an_older_copy(seed: u64, path: Path, left: Mark) {
    let scene = Scene::new(seed, path);
    let database = scene.directory.path().join("haggle.db");
    let copy = scene.directory.path().join("copy.db");
    let case = format!("seed {seed}, {path:?}, mark {left:?}");

    let mut daemon = scene.start();
    scene.run(&mut daemon, 0.5).await;
    drop(daemon);
    put_back(&database, &copy);
    fs::copy(mark_file(&database), mark_file(&copy)).unwrap();
    let before = scene.rented();

    let mut daemon = scene.start();
    // Until something was rented that the copy does not know of.
    for _ in 0..16 {
        scene.run(&mut daemon, 0.5).await;
        if !scene.rented().is_subset(&before) {
            break;
        }
    }
    let known: BTreeSet<u64> = daemon.state().held.keys().map(|id| id.0).collect();
    let highest = daemon.state().replicas.clone();
    drop(daemon);
    let forgotten: BTreeSet<u64> = scene.rented().difference(&before).copied().collect();
    assert!(!forgotten.is_empty(), "{case}: nothing was forgotten");
    assert_eq!(scene.rented(), known, "{case}");

    put_back(&copy, &database);
    match left {
        Mark::Left => {}
        Mark::Gone => fs::remove_file(mark_file(&database)).unwrap(),
        Mark::Old => drop(fs::copy(mark_file(&copy), mark_file(&database)).unwrap()),
    }
    let mut daemon = scene.start();
    let lacks = |daemon: &Daemon| {
        let held = |id: &&u64| !daemon.state().held.contains_key(&InstanceId(**id));
        forgotten.iter().filter(held).count()
    };
    assert_eq!(lacks(&daemon), forgotten.len(), "{case}: the copy is older");
    daemon.tick().await.unwrap();
    // Without its mark it is suspected, and then what the account holds is the proof.
    let times = if left == Mark::Gone { 2 } else { 1 };
    assert_eq!(scene.told("database-older"), times, "{case}");
    assert_eq!(
        lacks(&daemon),
        0,
        "{case}: all of ours is taken over at once"
    );
    let rented = scene.rented();
    for _ in 0..2 {
        // Two minutes are not over yet: nothing new is rented, whatever the jobs want.
        scene.clock.advance(Duration::from_secs(30));
        daemon.tick().await.unwrap();
        assert!(scene.rented().is_subset(&rented), "{case}");
        assert_eq!(scene.told("database-compared"), 0, "{case}");
    }
    scene.run(&mut daemon, 3.0).await;
    assert_eq!(scene.told("database-older"), times, "{case}");
    assert_eq!(scene.told("database-compared"), 1, "{case}");
    assert_eq!(scene.told("unknown-charges"), 0, "{case}");
    assert_eq!(scene.told("not-as-asked"), 0, "{case}");
    for (id, record) in &highest {
        let now = daemon.state().replica(id).generation;
        assert!(
            now > record.generation,
            "{case}: generations of {id} repeat"
        );
    }
    scene.rig.checker.lock().unwrap().ending();
    let ended = daemon.destroy_all(Duration::from_hours(1)).await.unwrap();
    assert!(ended.remaining.is_empty(), "{case}");
    drop(daemon);
    scene.rig.ask(&Ask::Kill).unwrap();

    scene.clock.advance(Duration::from_hours(24 * 4));
    let mut daemon = scene.start();
    daemon.tick().await.unwrap();
    let labels = scene.labels();
    let distinct: BTreeSet<&String> = labels.iter().collect();
    assert_eq!(
        distinct.len(),
        labels.len(),
        "{case}: a label was used twice"
    );
    assert_eq!(scene.rig.violations(), Vec::<String>::new(), "{case}");
    let checker = scene.rig.checker.lock().unwrap();
    let charged = scene
        .rig
        .server
        .with_market(|market| checker.charged(market));
    for (job, bill) in charged {
        assert_eq!(daemon.state().spent(&job), bill, "{case}: {job}");
    }
}

/// Moved by hand without its mark, and nothing was done meanwhile: the listings are enough.
#[tokio::test]
async fn a_database_whose_mark_is_missing_is_not_held_up_where_nothing_was_forgotten() {
    let scene = Scene::new(5, Path::New);
    let database = scene.directory.path().join("haggle.db");
    let mut daemon = scene.start();
    scene.run(&mut daemon, 0.3).await;
    drop(daemon);
    fs::remove_file(mark_file(&database)).unwrap();
    let mut daemon = scene.start();
    scene.run(&mut daemon, 0.2).await;
    assert_eq!(scene.told("database-older"), 1);
    assert_eq!(scene.told("database-compared"), 1);
    assert_eq!(scene.told("adopted"), 0);
    drop(daemon);
    // And the next start finds its mark again.
    let mut daemon = scene.start();
    daemon.tick().await.unwrap();
    assert_eq!(scene.told("database-older"), 1);
    assert_eq!(scene.rig.violations(), Vec::<String>::new());
}

/// The database and its mark were put back, and no later rent shows: only a bid does that was raised
/// since. It is no bid that came out as something else, so the instance stays.
#[tokio::test]
async fn a_bid_that_was_raised_since_the_copy_is_no_reason_to_destroy() {
    let scene = Scene::new(9, Path::New);
    let mut daemon = scene.start();
    let raised = loop {
        scene.run(&mut daemon, 0.5).await;
        let mut held = daemon.state().held.values();
        let bid = held.find(|held| held.rental == Rental::Bid && held.phase == Phase::Running);
        if let Some(held) = bid {
            break held.clone();
        }
    };
    drop(daemon);
    let more = raised.price.as_dollars() + 0.05;
    scene.rig.server.with_market(|market| {
        market
            .set_bid(scene.account, raised.id.0, Some(more))
            .unwrap();
    });
    let mut daemon = scene.start();
    daemon.tick().await.unwrap();
    assert_eq!(scene.told("database-older"), 1);
    assert_eq!(scene.told("not-as-asked"), 0);
    assert!(scene.rented().contains(&raised.id.0));
    let known = daemon.state().held[&raised.id].price;
    assert!(known > raised.price, "what it costs is known at once");
}

#[tokio::test]
async fn an_older_copy_beside_its_newer_mark_is_noticed_at_once() {
    goes_on_with_an_older_copy(5, Path::New, Mark::Left).await;
}

#[tokio::test]
async fn an_older_copy_without_its_mark_is_compared_before_anything_is_rented() {
    goes_on_with_an_older_copy(6, Path::Native, Mark::Gone).await;
}

#[tokio::test]
async fn an_older_copy_with_a_mark_as_old_is_noticed_by_what_the_account_holds() {
    goes_on_with_an_older_copy(7, Path::New, Mark::Old).await;
}

/// What was rented and ended after the copy shows on the bill a day later, and the database has nothing of
/// that time that would have the bill asked for so far back.
#[tokio::test]
async fn rows_that_come_late_are_still_asked_for() {
    let late = Disputed {
        charges_late_hours: 26,
        ..Disputed::default()
    };
    let scene = Scene::disputed(5, Path::New, late);
    let database = scene.directory.path().join("haggle.db");
    let copy = scene.directory.path().join("copy.db");
    let wish = |wish| {
        for job in jobs() {
            let job = job.name.clone();
            scene.rig.ask(&Ask::Job { job, wish }).unwrap();
        }
    };
    let mut daemon = scene.start();
    wish(Wish::Pause);
    daemon.tick().await.unwrap();
    drop(daemon);
    assert!(scene.rented().is_empty());
    put_back(&database, &copy);

    let mut daemon = scene.start();
    wish(Wish::Run);
    scene.run(&mut daemon, 2.0).await;
    assert!(!scene.rented().is_empty());
    scene.rig.checker.lock().unwrap().ending();
    daemon.destroy_all(Duration::from_hours(1)).await.unwrap();
    drop(daemon);

    put_back(&copy, &database);
    let mut daemon = scene.start();
    scene.run(&mut daemon, 0.2).await;
    assert_eq!(scene.told("database-compared"), 1);
    let spent = |daemon: &Daemon| -> Money {
        let of = jobs().into_iter();
        of.map(|job| daemon.state().spent(&job.name)).sum()
    };
    assert_eq!(spent(&daemon), Money::ZERO, "no row has come yet");
    scene.clock.advance(Duration::from_hours(30));
    daemon.tick().await.unwrap();
    let charged = scene.rig.server.with_market(|market| {
        let checker = scene.rig.checker.lock().unwrap();
        checker.charged(market).into_values().sum::<Money>()
    });
    assert!(charged > Money::ZERO);
    assert_eq!(spent(&daemon), charged);
}
