//! Many seeds at once, one thread each, and what they come to together.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::fate::lock;
use super::rig::Adapters;
use super::scenario::{Outcome, Scenario, run};
use crate::types::money::Money;
use crate::types::mutant::Mutant;

/// Which seeds are run, and how.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// Days of trouble in each.
    pub days: u32,
    /// How many at once.
    pub threads: usize,
    /// A mistake in haggle itself, for the checker to find.
    pub mutant: Option<Mutant>,
    /// Whether nothing is begun any more once a seed has failed.
    pub until_failure: bool,
}

/// A seed that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The seed.
    pub seed: u64,
    /// What was broken.
    pub violations: Vec<String>,
}

/// What the seeds come to together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Seeds that were run.
    pub seeds: u64,
    /// The seeds that failed, in order.
    pub failed: Vec<Failed>,
    /// Processes that died.
    pub crashes: u64,
    /// Processes that ended by themselves.
    pub restarts: u64,
    /// What went wrong, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Requests sent.
    pub requests: u64,
    /// Instances made.
    pub starts: u64,
    /// Times one of them was displaced.
    pub outbids: u64,
    /// Replicas that finished.
    pub finished: u64,
    /// Commands that were to run once and were begun again after they had ended well, for their end was
    /// not heard.
    pub begun_again: u64,
    /// Market time that passed.
    pub passed: Duration,
    /// What the ledgers say was spent.
    pub spend: Money,
    /// What the reported charge rows come to.
    pub billed: Money,
    /// What was accrued before any correction, over the seeds with documented facts.
    pub accrued: Money,
    /// What that cost exactly.
    pub exact: Money,
}

impl Totals {
    fn add(&mut self, seed: u64, documented: bool, outcome: Outcome) {
        self.seeds += 1;
        self.crashes += outcome.crashes;
        self.restarts += outcome.restarts;
        for (word, count) in outcome.faults {
            *self.faults.entry(word).or_default() += count;
        }
        self.requests += outcome.requests;
        self.starts += outcome.starts;
        self.outbids += outcome.outbids;
        self.finished += outcome.finished;
        self.begun_again += outcome.begun_again;
        self.passed += outcome.passed;
        self.spend += outcome.spend;
        self.billed += outcome.billed;
        if documented {
            self.accrued += outcome.accrued;
            self.exact += outcome.exact;
        }
        if !outcome.violations.is_empty() {
            self.failed.push(Failed {
                seed,
                violations: outcome.violations,
            });
        }
    }

    /// What was broken, over all seeds.
    pub fn violations(&self) -> usize {
        self.failed
            .iter()
            .map(|failed| failed.violations.len())
            .sum()
    }

    /// All that went wrong.
    pub fn faults_met(&self) -> u64 {
        self.faults.values().sum()
    }

    /// How far the accruals are off what they should be, as a fraction; `None` where nothing was
    /// spent at the documented settings.
    pub fn estimate_error(&self) -> Option<f64> {
        let exact = self.exact.as_dollars();
        (exact > 0.0).then(|| (self.accrued.as_dollars() - exact) / exact)
    }
}

impl Sweep {
    /// Runs the seeds. `adapters` makes those of one seed, for a way to the marketplace;
    /// `progress` is called after each seed with what they come to so far.
    ///
    /// A seed that cannot go on, for a reason other than its scenario's, fails.
    pub fn run(
        &self,
        adapters: &(dyn Fn(&Scenario) -> Result<Adapters, String> + Sync),
        progress: &(dyn Fn(&Totals) + Sync),
    ) -> Totals {
        let next = AtomicU64::new(0);
        let enough = AtomicBool::new(false);
        let totals = Mutex::new(Totals::default());
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    while !enough.load(Ordering::SeqCst) {
                        let nth = next.fetch_add(1, Ordering::SeqCst);
                        if nth >= self.seeds {
                            break;
                        }
                        let seed = self.first.wrapping_add(nth);
                        let scenario = Scenario::drawn(seed, self.days).with_mutant(self.mutant);
                        let outcome = one(&scenario, adapters);
                        let mut totals = lock(&totals);
                        totals.add(seed, scenario.is_documented(), outcome);
                        if self.until_failure && !totals.failed.is_empty() {
                            enough.store(true, Ordering::SeqCst);
                        }
                        progress(&totals);
                    }
                });
            }
        });
        let mut totals = totals
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        totals.failed.sort_by_key(|failed| failed.seed);
        totals
    }
}

/// One seed, on a runtime of its own.
fn one(
    scenario: &Scenario,
    adapters: &(dyn Fn(&Scenario) -> Result<Adapters, String> + Sync),
) -> Outcome {
    let failed = |why: String| Outcome {
        violations: vec![why],
        ..Outcome::default()
    };
    let adapters = match adapters(scenario) {
        Ok(adapters) => adapters,
        Err(why) => return failed(why),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(format!("there is no runtime: {error}")),
    };
    match runtime.block_on(run(scenario, adapters)) {
        Ok(outcome) => outcome,
        Err(error) => failed(format!("it cannot go on: {error}")),
    }
}
