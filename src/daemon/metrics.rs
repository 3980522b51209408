//! What Prometheus scrapes. One narrow type in front of the registry: the daemon tells it what
//! was committed, what was called and what a tick decided; it knows the names and the labels.
//!
//! Gauges are made anew at each tick, so the series of an instance, a model or a job vanish with
//! it, and what is unknown has no series instead of a zero. Counters only grow; where a bill
//! corrects spending downwards the counter waits until spending has caught up. Labels come from
//! closed sets, from the jobs' names and models, of which so many have series of their own
//! ([`JOBS_MAX`], [`MODELS_MAX`]), and, on live instances only, from their ids.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{GaugeVec, Registry, TextEncoder};

mod changes;
mod instances;
mod jobs;
mod limits;
mod market;
mod own;
mod table;
#[cfg(test)]
mod tests;
mod totals;

pub use market::MODELS_MAX;
pub use table::reference_table;
pub use totals::{JOBS_MAX, OTHER};

use super::events::Way;
use crate::types::ids::{InstanceId, JobName, ReplicaId};
use crate::types::instance::{Account, Held, Listing};
use crate::types::job::Job;
use crate::types::ledger::Component;
use crate::types::money::Money;
use crate::types::notification::NotificationKind;
use crate::types::offer::Snapshot;
use crate::types::plan::{Plan, Report};
use crate::types::state::{ReplicaRecord, State};
use crate::types::time::Time;
use crate::types::world::EngineConfig;
use table::{Counters, Gauges, Histograms, JobCounters};
use totals::Totals;

/// What a tick saw and decided.
#[derive(Clone, Copy, Debug)]
pub struct MetricsInput<'a> {
    /// When it was decided.
    pub now: Time,
    /// What is known after it.
    pub state: &'a State,
    /// The jobs whose policies are valid.
    pub jobs: &'a [Arc<Job>],
    /// Policy files that cannot be used.
    pub policies_broken: usize,
    /// What could not be read of the marketplace.
    pub unread: usize,
    /// The market as last seen.
    pub market: &'a Snapshot,
    /// The account's instances; `None`: the listing failed.
    pub listing: Option<&'a Listing>,
    /// The account; `None`: unreadable.
    pub account: Option<&'a Account>,
    /// Whether bids can be placed.
    pub can_bid: bool,
    /// The engine's configuration.
    pub config: &'a EngineConfig,
    /// What it decided, after the check.
    pub plan: &'a Plan,
    /// Why.
    pub report: &'a Report,
    /// Whether plans are executed; a dry run only shows them.
    pub live: bool,
    /// The database's size; `None`: unknown.
    pub store_bytes: Option<u64>,
}

/// Every metric of the daemon.
pub struct Metrics {
    registry: Registry,
    gauges: Gauges,
    counters: Counters,
    by_job: JobCounters,
    histograms: Histograms,
    known: Mutex<Known>,
}

/// What counters are reckoned from: the records as they were before a change.
#[derive(Debug, Default)]
struct Known {
    totals: Totals,
    drift: BTreeMap<JobName, Money>,
    held: BTreeMap<InstanceId, Held>,
    replicas: BTreeMap<ReplicaId, ReplicaRecord>,
    /// Replicas that lost their instance and have not run since: which, and when that was seen.
    lost: BTreeMap<ReplicaId, (InstanceId, Time)>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry of its own, with every metric and nothing known.
    pub fn new() -> Self {
        let registry = Registry::new();
        let gauges = Gauges::new(&registry);
        let counters = Counters::new(&registry);
        let by_job = JobCounters::new(&registry);
        let histograms = Histograms::new(&registry);
        // What has not happened yet has happened no times, which is no secret.
        let h = &histograms;
        for plain in [&h.tick, &h.woken, &h.provision, &h.loss_detection] {
            plain.with_label_values::<&str>(&[]);
        }
        for way in ["resumed", "replaced"] {
            h.recovery.with_label_values(&[way]);
        }
        Self {
            registry,
            gauges,
            counters,
            by_job,
            histograms,
            known: Mutex::default(),
        }
    }

    /// Takes up what was spent before this process began, so that spend does not begin at zero.
    pub fn seed_spend(&self, job: &JobName, component: Component, amount: Money) {
        self.known().totals.of(job).spend(component, amount);
    }

    /// Counts an operation of the marketplace. `outcome` is a word of a closed set.
    pub fn api_call(&self, operation: &'static str, outcome: &'static str) {
        self.counters
            .api
            .with_label_values(&[operation, outcome])
            .inc();
    }

    /// Counts a notification of the marketplace. `outcome` is a word of a closed set.
    pub fn notified(&self, way: Way, kind: NotificationKind, outcome: &'static str) {
        self.counters
            .notified
            .with_label_values(&[way.as_str(), kind.as_str(), outcome])
            .inc();
    }

    /// Counts messages to a channel of the configuration. `outcome` is a word of a closed set.
    pub fn messages(&self, channel: &str, outcome: &'static str, count: usize) {
        self.counters
            .messages
            .with_label_values(&[channel, outcome])
            .inc_by(count as f64);
    }

    /// Takes up why the store fails, if it does.
    pub fn store_failed(&self, why: Option<&str>) {
        self.gauges.store_failing.reset();
        if let Some(why) = why {
            self.gauges.store_failing.with_label_values(&[why]).set(1.0);
        }
    }

    /// Takes up how long an urgent notification waited for its tick.
    pub fn woken(&self, after: Duration) {
        let wait = self.histograms.woken.with_label_values::<&str>(&[]);
        wait.observe(after.as_secs_f64());
    }

    /// Counts the searches of a poll.
    pub fn searched(&self, made: usize, deferred: usize) {
        for (outcome, count) in [("made", made), ("deferred", deferred)] {
            let counter = self.counters.searches.with_label_values(&[outcome]);
            counter.inc_by(count as f64);
        }
    }

    /// Takes up the time that a tick took.
    pub fn tick_took(&self, duration: Duration) {
        let tick = self.histograms.tick.with_label_values::<&str>(&[]);
        tick.observe(duration.as_secs_f64());
    }

    /// Takes up what a tick saw and decided: once a tick.
    pub fn update(&self, input: &MetricsInput<'_>) {
        self.gauges.reset();
        let held = input.state.held.values().map(|held| &held.replica.job);
        let jobs = input.jobs.iter().map(|job| &job.name);
        self.known().totals.name(held.chain(jobs));
        self.count_decisions(input);
        self.show_self(input);
        self.show_market(input);
        self.show_jobs(input);
        self.show_instances(input);
        self.show_limits(input);
    }

    /// The text format of Prometheus, version 0.0.4.
    pub fn render(&self) -> String {
        self.known().totals.show(&self.by_job);
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| format!("# the metrics cannot be shown: {error}\n"))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set(gauge: &GaugeVec, value: f64) {
    gauge.with_label_values::<&str>(&[]).set(value);
}
