//! Supervised jobs in a market that plays their runners.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use haggle::ports::Store;
use haggle::simulate::Scenario;
use haggle::store::SqliteStore;
use haggle::types::job::Job;
use haggle::types::state::Ending;

use crate::scenarios::{calm, simulate};

/// A supervised job: its command, and further lines of `[run]`.
fn job(name: &str, command: &str, run: &str) -> Arc<Job> {
    let text = format!(
        r#"
        name = "{name}"
        rental = "interruptible"
        [run]
        image = "pytorch/pytorch:2.4"
        supervised = true
        command = "{command}"
        {run}
        [machine]
        disk = "16GB"
        [price]
        max = "$0.60/gpu-hour"
        [budget]
        total = "$4"
        [data]
        disposable = true
        [retries]
        max = 1
        backoff = "2m"
    "#
    );
    Arc::new(haggle::policy::parse(&format!("{name}.toml"), &text).unwrap())
}

#[test]
fn commands_end_fail_and_hang_and_none_is_left() {
    let hangs = "progress = \"/w/progress\"\nhung_after = \"20m\"\nlease = \"10m\"";
    for seed in [1, 2] {
        let scenario = Scenario {
            jobs: vec![
                job("ends", "HAGGLE_MARKET_RUN_FOR=3600 train", ""),
                job(
                    "fails",
                    "HAGGLE_MARKET_RUN_FOR=600 HAGGLE_MARKET_EXIT=3 train",
                    "",
                ),
                job("hangs", "HAGGLE_MARKET_HANG_AFTER=600 train", hangs),
                job("lasts", "train", "lease = \"10m\""),
            ],
            ..calm(seed, Duration::from_mins(3))
        };
        let dir = tempfile::tempdir().unwrap();
        let outcome = simulate(&scenario, dir.path());
        assert_eq!(outcome.violations, Vec::<String>::new(), "seed {seed}");
        let mut store = SqliteStore::open(&dir.path().join("haggle.db"), None, seed).unwrap();
        let replicas = store.load().unwrap().replicas;
        let endings: BTreeMap<String, Option<Ending>> = replicas
            .into_values()
            .map(|replica| {
                (
                    replica.id.job.to_string(),
                    replica.ending.map(|(how, _)| how),
                )
            })
            .collect();
        let of = |name: &str| endings[name];
        assert_eq!(of("ends"), Some(Ending::Finished), "seed {seed}");
        assert_eq!(of("fails"), Some(Ending::Failed), "seed {seed}");
        assert_eq!(of("hangs"), Some(Ending::Failed), "seed {seed}");
        assert_eq!(of("lasts"), None, "seed {seed}");
    }
}
