//! What is counted by job, and which jobs have series of their own.
//!
//! A daemon that lives for long sees many jobs. [`JOBS_MAX`] of them have series of their own: those
//! with a policy or with something rented come first. The others are one, [`OTHER`], so that sums
//! over all jobs stay right.

use std::collections::{BTreeMap, BTreeSet};

use super::table::JobCounters;
use crate::types::ids::JobName;
use crate::types::ledger::Component;
use crate::types::money::Money;

/// Jobs with series of their own.
pub const JOBS_MAX: usize = 100;

/// All other jobs.
pub const OTHER: &str = "other";

/// What was spent, and how much of it the counter shows: the most that it ever was.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    sum: Money,
    shown: Money,
}

/// What is counted of a job.
#[derive(Debug, Default)]
pub(super) struct Total {
    spent: BTreeMap<Component, Spent>,
    pub(super) billed: Money,
    pub(super) bids_up: u64,
    pub(super) bids_down: u64,
    pub(super) outbids: u64,
    pub(super) starts: u64,
    pub(super) lost_gpu_ms: i64,
}

impl Total {
    /// Where a bill corrects spending downwards, what is shown waits until spending has caught up.
    pub(super) fn spend(&mut self, component: Component, amount: Money) {
        let spent = self.spent.entry(component).or_default();
        spent.sum += amount;
        spent.shown = spent.shown.max(spent.sum);
    }
}

/// The totals of all jobs that were ever counted.
#[derive(Debug, Default)]
pub(super) struct Totals {
    by_job: BTreeMap<JobName, Total>,
    named: BTreeSet<JobName>,
}

impl Totals {
    pub(super) fn of(&mut self, job: &JobName) -> &mut Total {
        self.by_job.entry(job.clone()).or_default()
    }

    /// The label of a job, and whether it is its own.
    pub(super) fn label<'a>(&self, job: &'a JobName) -> (&'a str, bool) {
        if self.named.contains(job) {
            (job.as_str(), true)
        } else {
            (OTHER, false)
        }
    }

    /// Gives names to the jobs of now, in the order of their worth, where need be instead of jobs
    /// that are gone; and what is left of names to the others, first come, first served.
    pub(super) fn name<'a>(&mut self, now: impl Iterator<Item = &'a JobName>) {
        let mut wanted: Vec<&JobName> = Vec::new();
        let mut seen = BTreeSet::new();
        for job in now {
            if wanted.len() < JOBS_MAX && seen.insert(job) {
                wanted.push(job);
            }
        }
        for job in &wanted {
            if self.named.contains(*job) {
                continue;
            }
            if self.named.len() >= JOBS_MAX {
                let gone = self
                    .named
                    .iter()
                    .find(|named| !seen.contains(named))
                    .cloned();
                // As many are wanted as there are names, so that one that is not is always found.
                let Some(gone) = gone else { break };
                self.named.remove(&gone);
            }
            self.named.insert((*job).clone());
        }
        self.name_the_rest();
    }

    fn name_the_rest(&mut self) {
        for job in self.by_job.keys() {
            if self.named.len() >= JOBS_MAX {
                return;
            }
            self.named.insert(job.clone());
        }
    }

    /// Shows the totals.
    pub(super) fn show(&mut self, counters: &JobCounters) {
        self.name_the_rest();
        counters.reset();
        for (job, total) in &self.by_job {
            let (job, _) = self.label(job);
            let c = counters;
            let add = |counter: &prometheus::CounterVec, labels: &[&str], by: f64| {
                // What is negative would stop the process; nothing that is counted is.
                counter.with_label_values(labels).inc_by(by.max(0.0));
            };
            for (component, spent) in &total.spent {
                let labels = [job, component.as_str()];
                add(&c.spend, &labels, spent.shown.as_dollars());
            }
            add(&c.billed, &[job], total.billed.as_dollars());
            add(&c.bid_changes, &[job, "up"], total.bids_up as f64);
            add(&c.bid_changes, &[job, "down"], total.bids_down as f64);
            add(&c.outbids, &[job], total.outbids as f64);
            add(&c.starts, &[job], total.starts as f64);
            add(&c.lost, &[job], total.lost_gpu_ms as f64 / 1000.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(n: usize) -> JobName {
        format!("job-{n}").parse().unwrap()
    }

    #[test]
    fn the_jobs_of_now_have_names_and_the_others_are_one() {
        let mut totals = Totals::default();
        // A long history, known before any job of today.
        for n in 0..300 {
            totals.of(&job(n)).outbids = 1;
        }
        totals.name_the_rest();
        assert_eq!(totals.named.len(), JOBS_MAX);
        let today = [job(1000), job(250)];
        totals.of(&today[0]).outbids = 5;
        totals.name(today.iter());
        assert!(today.iter().all(|job| totals.label(job).1));
        assert_eq!(totals.named.len(), JOBS_MAX);
        let unnamed = (0..300).filter(|&n| !totals.label(&job(n)).1).count();
        assert_eq!(unnamed, 300 - (JOBS_MAX - 1));

        let registry = prometheus::Registry::new();
        let counters = JobCounters::new(&registry);
        totals.show(&counters);
        let of = |job: &str| counters.outbids.with_label_values(&[job]).get();
        assert_eq!((of("job-1000"), of("job-250")), (5.0, 1.0));
        assert_eq!(of(OTHER), unnamed as f64);
        // Shown again it is the same, not twice as much.
        totals.show(&counters);
        assert_eq!(of(OTHER), unnamed as f64);
    }

    #[test]
    fn more_jobs_than_names_take_no_more_than_there_are() {
        let mut totals = Totals::default();
        let many: Vec<JobName> = (0..150).map(job).collect();
        totals.name(many.iter());
        totals.name(many.iter().rev());
        assert_eq!(totals.named.len(), JOBS_MAX);
    }
}
