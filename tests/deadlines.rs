//! Deadlines, kept: the real daemon against the embedded market, in one process and in virtual time, where
//! bids come and go and starts fail.

#![allow(clippy::unwrap_used)] // A test that cannot go on says so.
#![allow(clippy::print_stdout, reason = "a test says what it did")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use haggle::clock::SimClock;
use haggle::daemon::{Looking, Observer, Pace, Settings, TickView};
use haggle::market::faults::Faults;
use haggle::market::{Market, MarketOptions, MarketServer, WireOptions};
use haggle::marketplace::lowcode::{LowCode, LowCodeOptions};
use haggle::simulate::{Adapters, Checker, Rig, TOKEN, Way};
use haggle::store::{SqliteStore, append_request};
use haggle::types::deadline::Stance;
use haggle::types::job::Job;
use haggle::types::money::Money;
use haggle::types::state::{Ending, State};
use haggle::types::time::Time;
use haggle::types::world::EngineConfig;
use secrecy::SecretString;

/// 2026-01-06T00:00:00Z.
const START: Time = Time(1_767_657_600_000);

/// What was seen at each decision.
#[derive(Default)]
struct Seen {
    stances: Vec<Stance>,
    state: Option<State>,
}

struct Follow(Arc<Mutex<Seen>>);

impl Observer for Follow {
    fn ticked(&mut self, view: &TickView<'_>) {
        let mut seen = self.0.lock().unwrap();
        let replicas = view.report.jobs.iter().flat_map(|job| &job.replicas);
        let views = replicas.filter_map(|replica| replica.deadline);
        seen.stances.extend(views.map(|view| view.stance));
        seen.state = Some(view.state.clone());
    }
}

/// Six hours of work, due in so many.
fn policy(rule: &str, hours: u64) -> Arc<Job> {
    let deadline = START + Duration::from_hours(hours);
    let text = format!(
        r#"
        name = "work"
        deadline = {deadline}
        policy = "{rule}"
        provision_timeout = "12m"
        [run]
        image = "a/b:c"
        [machine]
        disk = "12GB"
        reliability = 0.1
        verified = false
        [price]
        max = "$20/gpu-hour"
        [work]
        gpu_hours = 6
        [checkpoint]
        every = "5m"
        place = "remote"
        "#
    );
    Arc::new(haggle::policy::parse("work.toml", &text).unwrap())
}

/// Lets the daemon work up to the deadline; what was seen, and what the market charged.
async fn plays(options: MarketOptions, job: Arc<Job>) -> (Seen, Money) {
    let seed = options.seed;
    let until = job.deadline.unwrap();
    let clock = Arc::new(SimClock::new(START));
    let mut market = Market::generated(MarketOptions {
        start: START,
        balance: Money::dollars(4000),
        machines: Some(40),
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
    let (opened, asked) = (database.clone(), database);
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
        seed,
        looking: Looking::default(),
    };
    let server = Arc::new(server);
    let rig = Rig::new(
        clock,
        server,
        Way::default(),
        checker,
        adapters,
        settings,
        jobs,
    );
    let seen = Arc::new(Mutex::new(Seen::default()));
    let follow: Box<dyn Observer> = Box::new(Follow(Arc::clone(&seen)));
    let mut daemon = rig.start(vec![follow]).unwrap();
    let never = std::future::pending();
    daemon.run(Some(until), never).await.unwrap();
    drop(daemon);
    let paid = rig.server.with_market(|market| {
        let credit = market.credit(account);
        Money::dollars(4000) - credit
    });
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    (seen, paid)
}

/// When its work was done.
fn done(seen: &Seen) -> Option<Time> {
    let state = seen.state.as_ref().unwrap();
    let mut ends = state.replicas.values().filter_map(|record| record.ending);
    ends.find(|(ending, _)| *ending == Ending::Finished)
        .map(|(_, at)| at)
}

#[tokio::test]
async fn work_is_done_in_time_on_markets_that_churn() {
    for (seed, rule) in [(1, "hazard-mdp"), (2, "hazard-mdp"), (3, "greedy")] {
        let options = MarketOptions {
            seed,
            intensity: 8.0,
            ..MarketOptions::default()
        };
        let (seen, paid) = plays(options, policy(rule, 9)).await;
        let at = done(&seen);
        assert!(
            seen.stances.contains(&Stance::Ride),
            "there was time at first"
        );
        println!("seed {seed}, {rule}: done at {at:?}, {paid:.4} paid");
        assert!(
            at.is_some_and(|at| at <= START + Duration::from_hours(9)),
            "{rule} on {seed}"
        );
    }
}
