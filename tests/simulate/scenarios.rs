//! A plain scenario with a few jobs, and the adapters over a database in a file.

use std::path::Path as Dir;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use haggle::daemon::Looking;
use haggle::market::faults::FaultSpec;
use haggle::market::{Disputed, Quirks};
use haggle::marketplace::lowcode::{LowCode, LowCodeOptions};
use haggle::marketplace::vast::{Vast, VastOptions};
use haggle::ports::{Clock, Marketplace, Store};
use haggle::simulate::{Adapters, Hazards, Outcome, Path, START, Scenario, TOKEN, run};
use haggle::store::{Reader, SqliteStore, append_request};
use haggle::types::job::Job;
use haggle::types::money::Money;
use haggle::types::time::{Mono, Time};
use haggle::types::world::EngineConfig;
use secrecy::SecretString;

const FAULTS: &str = "5xx=3%,timeout-before=1%,timeout-after=2%,garbage=2%,empty=2%,429=2%";

pub(crate) fn jobs() -> Vec<Arc<Job>> {
    let train = r#"
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
    "#;
    let serve = r#"
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
    "#;
    let keep = r#"
        name = "keep"
        rental = "interruptible"
        finish = "manual"
        patience = "5m"
        [run]
        image = "pytorch/pytorch:2.4"
        [gpu]
        models = ["RTX 5060 Ti", "RTX 4070"]
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
    "#;
    [
        ("train.toml", train),
        ("serve.toml", serve),
        ("keep.toml", keep),
    ]
    .into_iter()
    .map(|(name, text)| {
        Arc::new(haggle::policy::parse(name, text).unwrap_or_else(|errors| {
            panic!(
                "{name}: {:?}",
                errors.iter().map(ToString::to_string).collect::<Vec<_>>()
            )
        }))
    })
    .collect()
}

/// A client's clock on which waiting for a rate limit takes no time, as the market sees it: the ways
/// differ in the number of their requests.
struct Hasty {
    inner: Arc<dyn Clock>,
    waited_to: AtomicI64,
}

impl Hasty {
    fn new(inner: Arc<dyn Clock>) -> Self {
        let waited_to = AtomicI64::new(inner.now().0);
        Self { inner, waited_to }
    }
}

#[async_trait]
impl Clock for Hasty {
    fn now(&self) -> Time {
        self.inner
            .now()
            .max(Time(self.waited_to.load(Ordering::SeqCst)))
    }

    fn monotonic(&self) -> Mono {
        let ahead = self.now().ms_since(self.inner.now());
        Mono(self.inner.monotonic().0 + ahead.unsigned_abs())
    }

    async fn sleep_until(&self, deadline: Time) {
        self.waited_to.fetch_max(deadline.0, Ordering::SeqCst);
    }
}

pub(crate) fn adapters(dir: &Dir, seed: u64, path: Path, extras: bool) -> Adapters {
    let database = dir.join("haggle.db");
    let (asked, audited) = (database.clone(), database.clone());
    Adapters {
        marketplace: Arc::new(move |transport, clock, remembered| {
            let clock: Arc<dyn Clock> = if extras {
                clock
            } else {
                Arc::new(Hasty::new(clock))
            };
            let token = SecretString::from(TOKEN.to_owned());
            if path == Path::Native {
                let options = VastOptions {
                    jitter_seed: seed,
                    extras,
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
            let store = SqliteStore::open(&database, None, seed)?;
            Ok(Box::new(store) as Box<dyn Store>)
        }),
        ask: Arc::new(move |now, ask| append_request(&asked, now, ask).map(drop)),
        disk: Arc::new(|_| Ok(())),
        audit: Arc::new(move || {
            let audit = Reader::open(&audited)?.audit()?;
            Ok((audit.billed(), audit.problems))
        }),
    }
}

pub(crate) fn scenario(seed: u64) -> Scenario {
    Scenario {
        seed,
        start: START,
        jobs: jobs(),
        engine: EngineConfig::default(),
        looking: Looking::default(),
        trouble: Duration::from_secs(5 * 3600),
        calm: Duration::from_secs(2 * 3600),
        still: Duration::from_secs(1800),
        faults: FAULTS.parse().unwrap(),
        hazards: Hazards {
            crash_per_mille: 120,
            ..Hazards::default()
        },
        market: None,
        machines: 150,
        intensity: 2.0,
        balance: Money::dollars(30),
        charge_decimals: 3,
        failures: 1.0,
        liars: 0.0,
        quirks: Quirks::default(),
        shared: false,
        // Nothing may depend on the way, nor on how a disputed fact is settled.
        path: Path::ALL[(seed % 3) as usize],
        disputed: Disputed::drawn(seed),
        script: Vec::new(),
    }
}

/// No faults, no crashes, and every disputed fact as it is documented.
pub(crate) fn calm(seed: u64, poll_every: Duration) -> Scenario {
    Scenario {
        engine: EngineConfig {
            poll_every,
            ..EngineConfig::default()
        },
        trouble: Duration::from_secs(8 * 3600),
        faults: FaultSpec::default(),
        hazards: Hazards::default(),
        disputed: Disputed::default(),
        path: Path::Native,
        ..scenario(seed)
    }
}

pub(crate) fn simulate(scenario: &Scenario, dir: &Dir) -> Outcome {
    simulate_with(scenario, dir, true)
}

/// With or without what only the marketplace's own API has. Without, requests take no time either, so
/// that the ways can be compared.
pub(crate) fn simulate_with(scenario: &Scenario, dir: &Dir, extras: bool) -> Outcome {
    // `RUST_LOG=debug` shows what the daemon logs.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).try_init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime
        .block_on(run(
            scenario,
            adapters(dir, scenario.seed, scenario.path, extras),
        ))
        .unwrap_or_else(|error| panic!("seed {}: {error}", scenario.seed))
}
