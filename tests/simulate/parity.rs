//! The way to the marketplace decides nothing: the same market, reached through the gateway in
//! either form or directly, leads to the same decisions.

use std::time::Duration;

use haggle::market::Disputed;
use haggle::simulate::{Hazards, Path, Scenario};
use haggle::store::Reader;
use serde_json::Value;

use crate::number;
use crate::scenarios::{scenario, simulate_with};

/// What was decided, tick by tick, and when; quiet ticks left out.
fn decisions(seed: u64, path: Path) -> Vec<(String, Value)> {
    let dir = tempfile::tempdir().unwrap();
    let calm = Scenario {
        path,
        // Nothing fails, and no request takes time, for the ways need different numbers of them.
        faults: "none".parse().unwrap(),
        hazards: Hazards {
            latency_ms: 0..=0,
            ..Hazards::default()
        },
        intensity: 5.0,
        disputed: Disputed::default(),
        trouble: Duration::from_secs(4 * 3600),
        calm: Duration::from_secs(600),
        ..scenario(seed)
    };
    let outcome = simulate_with(&calm, dir.path(), false);
    assert_eq!(
        outcome.violations,
        Vec::<String>::new(),
        "seed {seed}, {path:?}"
    );
    let reader = Reader::open(&dir.path().join("haggle.db")).unwrap();
    let mut ticks = reader.ticks(100_000).unwrap();
    ticks.sort_by_key(|tick| tick.tick);
    ticks
        .into_iter()
        .filter(|tick| tick.world.is_some())
        .map(|tick| {
            let plan = serde_json::from_str(&tick.plan).unwrap();
            (tick.at.to_string(), plan)
        })
        .collect()
}

#[test]
fn every_way_leads_to_the_same_decisions() {
    let first = number("HAGGLE_SEED").unwrap_or(31);
    for seed in first..first + number("HAGGLE_SEEDS").unwrap_or(1) {
        let new = decisions(seed, Path::New);
        assert!(new.len() > 5, "seed {seed}: {} ticks acted", new.len());
        for path in [Path::Old, Path::Native] {
            let other = decisions(seed, path);
            let differs = new.iter().zip(&other).position(|(a, b)| a != b);
            if let Some(at) = differs {
                panic!(
                    "seed {seed}, {path:?}: {:#?}\nis not\n{:#?}",
                    other[at], new[at]
                );
            }
            assert_eq!(new.len(), other.len(), "seed {seed}, {path:?}");
        }
    }
}
