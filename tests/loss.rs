//! How soon a loss is known: from the moment at which the market takes an instance's GPUs to the
//! decision that was made knowing it.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test that cannot go on says so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use haggle::clock::SimClock;
use haggle::daemon::{Looking, Observer, Pace, Settings, TickView};
use haggle::market::faults::Faults;
use haggle::market::{Happening, Market, MarketOptions, MarketServer, WireOptions};
use haggle::marketplace::lowcode::{LowCode, LowCodeOptions};
use haggle::simulate::{Adapters, Checker, Rig, TOKEN, Way};
use haggle::store::{SqliteStore, append_request};
use haggle::types::instance::Phase;
use haggle::types::job::Job;
use haggle::types::money::Money;
use haggle::types::time::Time;
use haggle::types::world::EngineConfig;
use secrecy::SecretString;

const START: Time = Time(1_767_643_200_000);

/// What the daemon knew of its instances at each decision.
#[derive(Default)]
struct Known {
    ticks: Vec<(Time, BTreeMap<u64, Phase>)>,
    searched: usize,
    deferred: usize,
}

struct Follow(Arc<Mutex<Known>>);

impl Observer for Follow {
    fn ticked(&mut self, view: &TickView<'_>) {
        let held = view.world.state.held.values();
        let phases = held.map(|held| (held.id.0, held.phase)).collect();
        let mut known = self.0.lock().unwrap();
        known.ticks.push((view.world.now, phases));
        known.searched += view.polled.searched;
        known.deferred += view.polled.deferred;
    }
}

fn service() -> Arc<Job> {
    let text = r#"
        name = "serve"
        rental = "interruptible"
        replicas = 10
        finish = "never"
        patience = "2m"
        [run]
        image = "a/b:c"
        [gpu]
        models = ["RTX 3060", "RTX 3070", "RTX 3080", "RTX 4070", "RTX 3090"]
        count = 1
        [machine]
        disk = "12GB"
        [price]
        max = "$0.30/gpu-hour"
        [budget]
        total = "$400"
        [retries]
        max = 200
        [data]
        disposable = true
    "#;
    Arc::new(haggle::policy::parse("serve.toml", text).unwrap())
}

/// Runs a busy market for a while. Returns how long each loss took to be known, sorted, and how
/// many were over before anybody looked.
async fn delays(looking: Looking, hours: u64) -> (Vec<Duration>, usize) {
    let clock = Arc::new(SimClock::new(START));
    let mut market = Market::generated(MarketOptions {
        seed: 5,
        start: START,
        balance: Money::dollars(400),
        machines: Some(150),
        intensity: 8.0,
        ..MarketOptions::default()
    });
    let account = market.account_for(TOKEN);
    let (jobs, engine) = (vec![service()], EngineConfig::default());
    let server = MarketServer::new(
        market,
        WireOptions::default(),
        Faults::none(),
        clock.clone(),
    );
    let checker = Checker::new(account, &jobs, engine.clone());
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("haggle.db");
    let asked = database.clone();
    let adapters = Adapters {
        marketplace: Arc::new(|transport, clock, remembered| {
            let options = LowCodeOptions::new(SecretString::from(TOKEN));
            Arc::new(LowCode::new(transport, clock, options, remembered))
        }),
        store: Arc::new(move || Ok(Box::new(SqliteStore::open(&database, None, 5)?))),
        ask: Arc::new(move |now, ask| append_request(&asked, now, ask).map(drop)),
        disk: Arc::new(|_| Ok(())),
        audit: Arc::new(|| Ok((Money::ZERO, Vec::new()))),
    };
    let settings = Settings {
        engine,
        live: true,
        pace: Pace::Every,
        seed: 5,
        looking,
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
    let known = Arc::new(Mutex::new(Known::default()));
    let mut daemon = rig
        .start(vec![Box::new(Follow(Arc::clone(&known)))])
        .unwrap();
    let until = START + Duration::from_secs(hours * 3600);
    daemon
        .run(Some(until), std::future::pending())
        .await
        .unwrap();
    let events = rig.server.with_market(|market| market.events().to_vec());
    let known = known.lock().unwrap();
    println!(
        "{} ticks in {hours} h, {} searches, {} deferred, {} requests",
        known.ticks.len(),
        known.searched,
        known.deferred,
        rig.requests()
    );
    let (mut delays, mut missed) = (Vec::new(), 0);
    for (index, event) in events.iter().enumerate() {
        let (Happening::Outbid { instance, .. } | Happening::OnDemandTook { instance }) =
            event.what
        else {
            continue;
        };
        let held = known.ticks.iter().rev().find(|(at, _)| *at < event.at);
        let ran = held.and_then(|(_, phases)| phases.get(&instance)) == Some(&Phase::Running);
        if !ran {
            continue;
        }
        // Over when it has its GPUs back or is no more.
        let over = events[index + 1..].iter().find(|later| match later.what {
            Happening::Resumed { instance: other } | Happening::Destroyed { instance: other } => {
                other == instance
            }
            _ => false,
        });
        let mut after = known.ticks.iter().filter(|(at, _)| *at >= event.at);
        let knows = after.find(|(_, phases)| phases.get(&instance) != Some(&Phase::Running));
        match knows {
            Some((at, _)) if over.is_none_or(|over| over.at >= *at) => {
                delays.push(at.since(event.at));
            }
            // The run ended before the next look.
            None if over.is_none() => {}
            _ => missed += 1,
        }
    }
    delays.sort();
    (delays, missed)
}

fn quantile(sorted: &[Duration], q: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * q).ceil() as usize]
}

#[tokio::test]
async fn a_loss_is_known_within_thirty_seconds() {
    let (known, missed) = delays(Looking::default(), 9).await;
    let at = |q| quantile(&known, q);
    println!(
        "{} losses, p50 {:?}, p95 {:?}, longest {:?}; {missed} over before a look",
        known.len(),
        at(0.5),
        at(0.95),
        at(1.0)
    );
    assert!(known.len() >= 20, "{} losses tell little", known.len());
    assert!(at(0.95) <= Duration::from_secs(30), "{:?}", at(0.95));
    assert!(missed * 10 <= known.len(), "{missed}");
}

#[tokio::test]
async fn polls_alone_would_be_later() {
    let rarely = Looking {
        instances_every: Duration::from_secs(600),
        ..Looking::default()
    };
    let (known, _) = delays(rarely, 5).await;
    println!(
        "without looks: p95 {:?} of {}",
        quantile(&known, 0.95),
        known.len()
    );
    assert!(quantile(&known, 0.95) > Duration::from_secs(40));
}
