//! The real daemon against the embedded market, with faults and crashes, over seeds.
//!
//! A failure prints its seed, and how to replay it.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod estimate;
mod failing;
mod late;
mod older;
mod parity;
mod scenarios;
mod seeds;
mod supervised;

use std::path::Path;
use std::sync::Arc;

use haggle::engine::check::check;
use haggle::engine::decide::decide;
use haggle::store::Reader;
use haggle::types::world::World;
use scenarios::{scenario, simulate};

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
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
