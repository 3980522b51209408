//! How many simulated days a second one core runs: the real daemon against the embedded market, in
//! virtual time, with faults, crashes and the checker.
//!
//! `cargo bench --bench simulate [-- SEEDS]`. A day here is one as `haggle simulate` draws them: 25
//! machines, a tick and a glance at the instances each four minutes, the three wires in turn, and a
//! real database that waits for no disk. The number behind each seed is a hash of the day's journal:
//! what makes a day cheaper must leave it as it is.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // It measures and prints.

use std::future::pending;
use std::path::Path as Dir;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use haggle::clock::SimClock;
use haggle::daemon::{DaemonError, Looking, Pace, Settings};
use haggle::market::faults::{FaultScript, Faults};
use haggle::market::{Disputed, Envelope, Market, MarketOptions, MarketServer, Paths, WireOptions};
use haggle::marketplace::lowcode::{LowCode, LowCodeOptions};
use haggle::marketplace::vast::{Vast, VastOptions};
use haggle::ports::{Clock, Marketplace, Store};
use haggle::simulate::{Adapters, Checker, Path, Rig, TOKEN, Way};
use haggle::store::{Reader, SqliteStore};
use haggle::types::job::Job;
use haggle::types::money::Money;
use haggle::types::time::Time;
use haggle::types::world::EngineConfig;
use secrecy::SecretString;
use sha2::{Digest, Sha256};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEEDS: u64 = 12;
const EVERY: Duration = Duration::from_mins(4);
const TROUBLE: Duration = Duration::from_hours(18);
const DAY: Duration = Duration::from_hours(24);
const START: Time = Time(1_767_643_200_000);
const FAULTS: &str = "5xx=3%,timeout-before=1%,timeout-after=2%,garbage=2%,empty=2%,429=2%";

const POLICIES: [(&str, &str); 3] = [
    (
        "train.toml",
        r#"
        name = "train"
        rental = "auto"
        priority = 10
        patience = "10m"
        [run]
        image = "pytorch/pytorch:2.4"
        [gpu]
        models = ["RTX 4090", "RTX 3090", "RTX 5090"]
        count = 1
        [machine]
        disk = "16GB"
        [price]
        max = "$0.60/gpu-hour"
        [budget]
        total = "$4"
        [work]
        gpu_hours = 6
        [checkpoint]
        every = "15m"
        place = "remote"
        [data]
        disposable = true
        "#,
    ),
    (
        "serve.toml",
        r#"
        name = "serve"
        rental = "interruptible"
        replicas = 2
        finish = "never"
        [run]
        image = "vllm/vllm-openai:latest"
        [gpu]
        models = ["RTX 3060", "RTX 3070", "RTX 3080"]
        count = 1
        [machine]
        disk = "10GB"
        [price]
        max = "$0.20/gpu-hour"
        [budget]
        per_day = "$3"
        per_hour = "$0.40/h"
        [data]
        disposable = true
        "#,
    ),
    (
        "keep.toml",
        r#"
        name = "keep"
        rental = "interruptible"
        finish = "manual"
        patience = "5m"
        [run]
        image = "pytorch/pytorch:2.4"
        [gpu]
        models = ["RTX 5060 Ti", "RTX 4070", "RTX 3090"]
        count = 1
        [machine]
        disk = "20GB"
        [price]
        max = "$0.25/gpu-hour"
        [budget]
        total = "$3"
        [checkpoint]
        every = "30m"
        place = "disk"
        "#,
    ),
];

fn jobs() -> Vec<Arc<Job>> {
    let parsed = POLICIES.iter().map(|(name, text)| {
        let job = haggle::policy::parse(name, text);
        Arc::new(job.unwrap_or_else(|errors| panic!("{name}: {errors:?}")))
    });
    parsed.collect()
}

fn adapters(dir: &Dir, seed: u64, path: Path) -> Adapters {
    let database = dir.join("haggle.db");
    Adapters {
        marketplace: Arc::new(move |transport, clock, remembered| {
            let token = SecretString::from(TOKEN.to_owned());
            if path == Path::Native {
                let options = VastOptions {
                    jitter_seed: seed,
                    ..VastOptions::new(token)
                };
                return Arc::new(Vast::new(transport, clock, options, remembered))
                    as Arc<dyn Marketplace>;
            }
            let options = LowCodeOptions {
                jitter_seed: seed,
                ..LowCodeOptions::new(token)
            };
            Arc::new(LowCode::new(transport, clock, options, remembered))
        }),
        store: Arc::new(move || {
            let store = SqliteStore::open_for_simulation(&database, seed)?;
            Ok(Box::new(store) as Box<dyn Store>)
        }),
        ask: Arc::new(|_, _| Ok(())),
    }
}

fn rig(seed: u64, dir: &Dir, jobs: &[Arc<Job>]) -> Rig {
    let path = Path::ALL[(seed % 3) as usize];
    let clock = Arc::new(SimClock::new(START));
    let mut market = Market::generated(MarketOptions {
        seed,
        start: START,
        balance: Money::dollars(30),
        machines: Some(25),
        intensity: 2.0,
        disputed: Disputed::drawn(seed),
        ..MarketOptions::default()
    });
    let account = market.account_for(TOKEN);
    let (paths, envelope) = match path {
        Path::New => (Paths::New, Envelope::Data),
        Path::Old => (Paths::Old, Envelope::Result),
        Path::Native => (Paths::Both, Envelope::None),
    };
    let wire = WireOptions {
        paths,
        envelope,
        ..WireOptions::default()
    };
    let faults = Faults::new(FAULTS.parse().unwrap(), FaultScript::default(), seed);
    let shared: Arc<dyn Clock> = clock.clone();
    let server = Arc::new(MarketServer::new(market, wire, faults, shared));
    let engine = EngineConfig {
        poll_every: EVERY,
        ..EngineConfig::default()
    };
    let settings = Settings {
        engine: engine.clone(),
        live: true,
        pace: Pace::Every,
        seed,
        looking: Looking {
            instances_every: EVERY,
            requests_every: EVERY,
            ..Looking::default()
        },
    };
    let way = Way {
        native: path == Path::Native,
        latency_ms: 40..=400,
    };
    let checker = Checker::new(account, jobs, engine);
    let adapters = adapters(dir, seed, path);
    Rig::new(
        clock,
        server,
        way,
        checker,
        adapters,
        settings,
        jobs.to_vec(),
    )
}

/// Runs daemons, one after each crash, until a moment.
async fn until(rig: &Rig, moment: Time) {
    while rig.clock.now() < moment {
        let mut daemon = rig.start(Vec::new()).unwrap();
        let life = daemon.run(Some(moment), pending());
        match rig.until_crash(life).await {
            Some(Err(DaemonError::Token(_))) => rig.clock.advance(Duration::from_mins(1)),
            Some(done) => return done.unwrap(),
            None => {}
        }
    }
}

/// One day; gives what was broken.
async fn day(rig: &Rig) -> Vec<String> {
    rig.crash_per_mille(60);
    until(rig, START + TROUBLE).await;
    rig.crash_per_mille(0);
    rig.server.with_faults(|faults| faults.set_enabled(false));
    until(rig, START + DAY).await;
    let mut daemon = rig.start(Vec::new()).unwrap();
    rig.checker
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .ending();
    daemon.destroy_all(Duration::from_hours(1)).await.unwrap();
    rig.violations()
}

/// The beginning of the hash of what the ticks left behind.
fn journal(dir: &Dir) -> String {
    let reader = Reader::open(&dir.join("haggle.db")).unwrap();
    let ticks = reader.ticks(1_000_000).unwrap();
    let text = serde_json::to_vec(&ticks).unwrap();
    let hash = Sha256::digest(&text);
    let head = hash
        .iter()
        .take(6)
        .fold(0_u64, |head, &byte| head << 8 | u64::from(byte));
    format!("{head:012x} of {} ticks", ticks.len())
}

/// How long this process has kept a core busy: others may be at work on the machine. By the wall's
/// clock where the system does not tell.
fn busy(began: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/self/schedstat").ok();
    let nanos = told.and_then(|text| text.split_whitespace().next()?.parse().ok());
    nanos.map_or_else(|| began.elapsed(), Duration::from_nanos)
}

fn main() {
    let began = Instant::now();
    let seeds = std::env::args().find_map(|arg| arg.parse().ok());
    let seeds: u64 = seeds.unwrap_or(SEEDS);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let jobs = jobs();
    let mut took = Duration::ZERO;
    for seed in 1..=seeds {
        let dir = tempfile::tempdir().unwrap();
        let before = busy(began);
        let rig = rig(seed, dir.path(), &jobs);
        let violations = runtime.block_on(day(&rig));
        let this = busy(began).saturating_sub(before);
        took += this;
        println!(
            "seed {seed:>3} {:>7.1} ms {:>6} requests, journal {}{}",
            this.as_secs_f64() * 1e3,
            rig.requests(),
            journal(dir.path()),
            if violations.is_empty() {
                String::new()
            } else {
                format!(" {violations:?}")
            }
        );
    }
    println!(
        "{:.2} simulated days per second and core",
        seeds as f64 / took.as_secs_f64()
    );
}
