//! The real daemon against the embedded market, with faults and crashes, over seeds.
//!
//! A failure prints its seed; `HAGGLE_SEED=N cargo test --test simulate faults -- --nocapture`
//! replays it. `HAGGLE_SEEDS=N` runs as many as wanted.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod estimate;
mod failing;
mod late;
mod older;
mod parity;
mod scenarios;

use std::path::Path;
use std::sync::Arc;

use haggle::engine::check::check;
use haggle::engine::decide::decide;
use haggle::store::Reader;
use haggle::types::world::World;
use scenarios::{MIXES, mix, scenario, simulate};

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
