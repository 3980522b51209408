//! The real daemon against the embedded market, with faults and crashes, over seeds.
//!
//! A failure prints its seed; `HAGGLE_SEED=N cargo test --test simulate one_seed -- --nocapture`
//! replays it. `HAGGLE_SEEDS=N` runs as many as wanted.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use haggle::engine::check::check;
use haggle::engine::decide::decide;
use haggle::market::{Disputed, Quirks};
use haggle::marketplace::lowcode::{LowCode, LowCodeOptions};
use haggle::ports::Store;
use haggle::simulate::{Adapters, Outcome, Scenario, TOKEN, run};
use haggle::store::{Reader, SqliteStore, append_request};
use haggle::types::job::Job;
use haggle::types::money::Money;
use haggle::types::state::Ask;
use haggle::types::world::{EngineConfig, World};
use secrecy::SecretString;

const FAULTS: &str = "5xx=3%,timeout-before=1%,timeout-after=2%,garbage=2%,empty=2%,429=2%";

fn jobs() -> Vec<Arc<Job>> {
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

fn adapters(dir: &Path, seed: u64) -> Adapters {
    let database = dir.join("haggle.db");
    let asked = database.clone();
    Adapters {
        marketplace: Arc::new(move |transport, clock, remembered| {
            let options = LowCodeOptions {
                jitter_seed: seed,
                ..LowCodeOptions::new(SecretString::from(TOKEN.to_owned()))
            };
            Arc::new(LowCode::new(transport, clock, options, remembered))
        }),
        store: Arc::new(move || {
            let store = SqliteStore::open(&database, None, seed)?;
            Ok(Box::new(store) as Box<dyn Store>)
        }),
        ask: Arc::new(move |now, ask| append_request(&asked, now, ask).map(drop)),
    }
}

fn scenario(seed: u64) -> Scenario {
    Scenario {
        seed,
        jobs: jobs(),
        engine: EngineConfig::default(),
        trouble: Duration::from_secs(5 * 3600),
        calm: Duration::from_secs(2 * 3600),
        faults: FAULTS.parse().unwrap(),
        crash_per_mille: 120,
        machines: 150,
        intensity: 2.0,
        balance: Money::dollars(30),
        failures: 1.0,
        disputed: Disputed::default(),
        quirks: Quirks::default(),
        shared: false,
        asks: Vec::new(),
    }
}

fn job(name: &str, text: &str) -> Arc<Job> {
    let parsed = haggle::policy::parse(&format!("{name}.toml"), text);
    Arc::new(parsed.unwrap_or_else(|errors| {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        panic!("{name}: {texts:?}")
    }))
}

/// A cheap job whose one line of policy differs.
fn cheap(name: &str, lines: &str) -> Arc<Job> {
    let text = format!(
        r#"
        name = "{name}"
        rental = "interruptible"
        {lines}
        "#
    );
    job(name, &text)
}

const GPUS: &str = r#"
        [gpu]
        models = ["RTX 3060", "RTX 3070", "RTX 3080", "RTX 4070", "RTX 3090", "RTX 4090"]
        count = 1
        [machine]
        disk = "12GB"
        [price]
        max = "$0.30/gpu-hour"
"#;

/// Mixes that each press on one thing, by name.
fn mix(name: &str, seed: u64) -> Scenario {
    let base = scenario(seed);
    let plain = "[run]\nimage = \"a/b:c\"\n";
    match name {
        // Listings that lie, and creates whose answers are lost.
        "liar" => Scenario {
            faults: "timeout-after=20%,empty=20%".parse().unwrap(),
            crash_per_mille: 150,
            ..base
        },
        "tiny" => Scenario {
            jobs: vec![
                cheap(
                    "mite",
                    &format!("finish = \"manual\"\n{plain}{GPUS}[budget]\ntotal = \"$0.50\"\n"),
                ),
                cheap(
                    "flow",
                    &format!(
                        "finish = \"never\"\nreplicas = 3\n{plain}{GPUS}[budget]\nper_hour = \"$0.17/h\"\nper_day = \"$0.60\"\n[data]\ndisposable = true\n"
                    ),
                ),
            ],
            balance: Money::from_dollars(2.0).unwrap(),
            trouble: Duration::from_secs(8 * 3600),
            ..base
        },
        // Work on disks that must be kept, among many rivals, with windows that close.
        "disks" => Scenario {
            jobs: vec![
                cheap(
                    "hold",
                    &format!(
                        "finish = \"manual\"\nreplicas = 2\npatience = \"5m\"\n{plain}{GPUS}[budget]\ntotal = \"$8\"\n[checkpoint]\nevery = \"20m\"\nplace = \"disk\"\n"
                    ),
                ),
                cheap(
                    "night",
                    &format!(
                        "finish = \"manual\"\n{plain}{GPUS}[budget]\ntotal = \"$8\"\n[checkpoint]\nevery = \"20m\"\nplace = \"disk\"\n[[window]]\ncron = \"0 * * * *\"\nlasts = \"35m\"\n"
                    ),
                ),
            ],
            intensity: 5.0,
            ..base
        },
        // Containers that end by themselves, instances that destroy themselves, hosts that fail.
        "ends" => Scenario {
            jobs: vec![
                cheap(
                    "once",
                    &format!(
                        "finish = \"exit\"\nreplicas = 2\n{plain}[run.env]\nHAGGLE_MARKET_RUN_FOR = \"2400\"\n{GPUS}[budget]\ntotal = \"$5\"\n"
                    ),
                ),
                cheap(
                    "gone",
                    &format!(
                        "finish = \"gone\"\n{plain}[run.env]\nHAGGLE_MARKET_SELF_DESTROY = \"2400\"\n{GPUS}[budget]\ntotal = \"$5\"\n"
                    ),
                ),
                cheap(
                    "crash",
                    &format!(
                        "finish = \"manual\"\n{plain}[run.env]\nHAGGLE_MARKET_RUN_FOR = \"60\"\n{GPUS}[budget]\ntotal = \"$5\"\n"
                    ),
                ),
            ],
            failures: 8.0,
            crash_per_mille: 100,
            ..base
        },
        // A gateway that loses the price of a bid.
        "on-demand" => Scenario {
            quirks: Quirks {
                bids_ignore_price: true,
                ..Quirks::default()
            },
            crash_per_mille: 150,
            ..base
        },
        // Somebody else's instances, and the red button.
        "kill" => Scenario {
            shared: true,
            crash_per_mille: 100,
            asks: vec![
                (Duration::from_secs(2 * 3600), Ask::Kill),
                (Duration::from_secs(3 * 3600), Ask::ResumeAll),
            ],
            ..base
        },
        // A marketplace that is otherwise than it mostly seems.
        "disputed" => Scenario {
            disputed: Disputed::drawn(seed),
            ..base
        },
        other => panic!("there is no mix `{other}`"),
    }
}

const MIXES: [&str; 7] = [
    "liar",
    "tiny",
    "disks",
    "ends",
    "on-demand",
    "kill",
    "disputed",
];

fn simulate(scenario: &Scenario, dir: &Path) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime
        .block_on(run(scenario, adapters(dir, scenario.seed)))
        .unwrap_or_else(|error| panic!("seed {}: {error}", scenario.seed))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

#[test]
fn faults_and_crashes_break_nothing() {
    let first = number("HAGGLE_SEED").unwrap_or(1);
    let count = number("HAGGLE_SEEDS").unwrap_or(3);
    let (mut starts, mut crashes) = (0, 0);
    let mut failed = Vec::new();
    for seed in first..first + count {
        let dir = tempfile::tempdir().unwrap();
        let outcome = simulate(&scenario(seed), dir.path());
        println!(
            "seed {seed}: {:.1} market hours, {} requests, {} starts, {} outbids, {} finished, {} crashes",
            outcome.hours,
            outcome.requests,
            outcome.starts,
            outcome.outbids,
            outcome.finished,
            outcome.crashes
        );
        if !outcome.violations.is_empty() {
            failed.push(format!(
                "seed {seed}:\n  {}",
                outcome.violations.join("\n  ")
            ));
        }
        starts += outcome.starts;
        crashes += outcome.crashes;
    }
    assert!(
        failed.is_empty(),
        "replay with HAGGLE_SEED=N HAGGLE_SEEDS=1\n{}",
        failed.join("\n")
    );
    // A simulation in which nothing happens proves nothing.
    assert!(
        starts > 0 && crashes > 0,
        "{starts} starts, {crashes} crashes"
    );
}

/// What the daemon told, for whoever reads a failure.
fn story(dir: &Path) {
    let reader = Reader::open(&dir.join("haggle.db")).unwrap();
    for event in reader.events(None, 2000).unwrap() {
        println!("  {event:?}");
    }
}

#[test]
fn what_presses_on_one_thing_breaks_nothing() {
    let first = number("HAGGLE_SEED").unwrap_or(1);
    let count = number("HAGGLE_SEEDS").unwrap_or(1);
    let only = std::env::var("HAGGLE_MIX").ok();
    let mut failed = Vec::new();
    for name in MIXES {
        if only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        let mut starts = 0;
        for seed in first..first + count {
            let dir = tempfile::tempdir().unwrap();
            let outcome = simulate(&mix(name, seed), dir.path());
            println!("{name} {seed}: {outcome:?}");
            if !outcome.violations.is_empty() {
                story(dir.path());
            }
            starts += outcome.starts;
            if !outcome.violations.is_empty() {
                failed.push(format!(
                    "{name} {seed}:\n  {}",
                    outcome.violations.join("\n  ")
                ));
            }
        }
        assert!(starts > 0, "nothing happened in `{name}`");
    }
    assert!(
        failed.is_empty(),
        "replay with HAGGLE_MIX=NAME HAGGLE_SEED=N HAGGLE_SEEDS=1\n{}",
        failed.join("\n")
    );
}

/// All that the ticks left behind, as bytes.
fn journal(dir: &Path) -> String {
    let reader = Reader::open(&dir.join("haggle.db")).unwrap();
    let ticks = reader.ticks(100_000).unwrap();
    assert!(ticks.len() > 50, "{} ticks", ticks.len());
    serde_json::to_string(&ticks).unwrap()
}

/// Rebuilds the world of every tick that acted, and decides again.
#[test]
fn a_journalled_tick_replays_to_the_same_plan() {
    let dir = tempfile::tempdir().unwrap();
    simulate(&scenario(21), dir.path());
    let reader = Reader::open(&dir.path().join("haggle.db")).unwrap();
    let mut replayed = 0;
    for tick in reader.ticks(100_000).unwrap() {
        let Some(text) = tick.world else { continue };
        let mut world: World = serde_json::from_str(&text).unwrap();
        let snapshot = tick.snapshot.and_then(|id| reader.snapshot(id).unwrap());
        world.market = Arc::new(snapshot.unwrap());
        let (plan, _) = decide(&world);
        let (kept, dropped) = check(&world, &plan);
        assert_eq!(dropped, Vec::new());
        assert_eq!(
            serde_json::to_string(&kept).unwrap(),
            tick.plan,
            "tick {}",
            tick.tick
        );
        replayed += 1;
    }
    assert!(replayed > 5, "{replayed} ticks acted");
}

#[test]
fn the_same_seed_gives_the_same_journal() {
    let run = |seed| {
        let dir = tempfile::tempdir().unwrap();
        simulate(&scenario(seed), dir.path());
        journal(dir.path())
    };
    let (one, two, other) = (run(11), run(11), run(12));
    assert!(one == two, "the journals of one seed differ");
    assert!(one != other, "the seed changes nothing");
}
