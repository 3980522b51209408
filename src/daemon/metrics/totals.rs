//! What is counted by job, and which jobs have series of their own.
//!
//! A daemon that lives for long sees many jobs. [`JOBS_MAX`] of them have series of their own: those
//! with a policy or with something rented come first. The others are one, [`OTHER`].
//!
//! What is counted is counted under the label that its job has at that moment, and stays there. Were it
//! moved when a job gets a name or gives it up, `other` would fall or jump, and whoever asks Prometheus
//! for its increase would be told of dollars that nobody spent.

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

    fn show(&self, label: &str, c: &JobCounters) {
        let add = |counter: &prometheus::CounterVec, labels: &[&str], by: f64| {
            // What is negative would stop the process; nothing that is counted is.
            counter.with_label_values(labels).inc_by(by.max(0.0));
        };
        for (component, spent) in &self.spent {
            let labels = [label, component.as_str()];
            add(&c.spend, &labels, spent.shown.as_dollars());
        }
        add(&c.billed, &[label], self.billed.as_dollars());
        add(&c.bid_changes, &[label, "up"], self.bids_up as f64);
        add(&c.bid_changes, &[label, "down"], self.bids_down as f64);
        add(&c.outbids, &[label], self.outbids as f64);
        add(&c.starts, &[label], self.starts as f64);
        add(&c.lost, &[label], self.lost_gpu_ms as f64 / 1000.0);
    }
}

/// The totals of all jobs that were ever counted.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// Of jobs, while each had a name. One that gave its name up goes on from here if it is named again.
    own: BTreeMap<JobName, Total>,
    /// Of all jobs while they had none.
    other: Total,
    named: BTreeSet<JobName>,
    /// What was spent before this process began, until it is taken up.
    before: BTreeMap<JobName, BTreeMap<Component, Money>>,
}

impl Totals {
    /// What is counted of a job now. Names that nobody has are given to who comes first.
    pub(super) fn of(&mut self, job: &JobName) -> &mut Total {
        if self.named.len() < JOBS_MAX {
            self.named.insert(job.clone());
        }
        if self.named.contains(job) {
            self.own.entry(job.clone()).or_default()
        } else {
            &mut self.other
        }
    }

    /// What a job spent before this process began.
    pub(super) fn spent_before(&mut self, job: &JobName, component: Component, amount: Money) {
        let of_job = self.before.entry(job.clone()).or_default();
        *of_job.entry(component).or_default() += amount;
    }

    /// Lets spend go on from where it was. With more jobs than names nobody knows which of it stood
    /// under which label: there it begins at nothing, as all else does that is counted.
    fn take_up_before(&mut self) {
        let before = std::mem::take(&mut self.before);
        let new = before.keys().filter(|job| !self.named.contains(*job));
        if self.named.len() + new.count() > JOBS_MAX {
            return;
        }
        for (job, spent) in before {
            let total = self.of(&job);
            for (component, amount) in spent {
                let spent = total.spent.entry(component).or_default();
                spent.sum += amount;
                spent.shown += amount;
            }
        }
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
    /// that are gone.
    pub(super) fn name<'a>(&mut self, now: impl Iterator<Item = &'a JobName>) {
        self.take_up_before();
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
    }

    /// Shows the totals.
    pub(super) fn show(&mut self, counters: &JobCounters) {
        self.take_up_before();
        counters.reset();
        for (job, total) in &self.own {
            if self.named.contains(job) {
                total.show(job.as_str(), counters);
            }
        }
        // From before anything is counted there, so that it is seen to begin at nothing.
        if self.named.len() >= JOBS_MAX {
            self.other.show(OTHER, counters);
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
            totals.of(&job(n)).outbids += 1;
        }
        assert_eq!(totals.named.len(), JOBS_MAX);
        let today = [job(1000), job(250)];
        totals.name(today.iter());
        totals.of(&today[0]).outbids += 5;
        assert!(today.iter().all(|job| totals.label(job).1));
        assert_eq!(totals.named.len(), JOBS_MAX);
        let unnamed = (0..300).filter(|&n| !totals.label(&job(n)).1).count();
        assert_eq!(unnamed, 300 - (JOBS_MAX - 1));

        let registry = prometheus::Registry::new();
        let counters = JobCounters::new(&registry);
        totals.show(&counters);
        let of = |job: &str| counters.outbids.with_label_values(&[job]).get();
        assert_eq!(of("job-1000"), 5.0);
        assert_eq!(of(OTHER), 200.0);
        // Shown again it is the same, not twice as much.
        totals.show(&counters);
        assert_eq!(of(OTHER), 200.0);
    }

    #[test]
    fn no_counter_falls_or_jumps_when_names_change_hands() {
        let mut totals = Totals::default();
        let registry = prometheus::Registry::new();
        let counters = JobCounters::new(&registry);
        let (component, old) = (Component::Gpu, job(0));
        let many: Vec<JobName> = (0..JOBS_MAX).map(job).collect();
        totals.name(many.iter());
        totals.of(&old).spend(component, Money::dollars(7));
        let late = job(1000);
        totals.of(&late).spend(component, Money::dollars(40));
        let shown = |totals: &mut Totals, label: &str| {
            totals.show(&counters);
            counters.spend.with_label_values(&[label, "gpu"]).get()
        };
        assert_eq!(shown(&mut totals, OTHER), 40.0);
        // It gets a name: what it spent without one was spent by `other`, and its own begins at nothing.
        totals.name(many[1..].iter().chain([&late]));
        assert!(totals.label(&late).1 && !totals.label(&old).1);
        assert_eq!(shown(&mut totals, OTHER), 40.0);
        totals.of(&late).spend(component, Money::dollars(2));
        assert_eq!(shown(&mut totals, "job-1000"), 2.0);
        // The one that gave its name up brings nothing along, and goes on where it was when it is back.
        totals.of(&old).spend(component, Money::dollars(1));
        assert_eq!(shown(&mut totals, OTHER), 41.0);
        totals.name(many.iter());
        totals.of(&old).spend(component, Money::dollars(3));
        assert_eq!(shown(&mut totals, "job-0"), 10.0);
        assert_eq!(shown(&mut totals, OTHER), 41.0);
    }

    #[test]
    fn spend_goes_on_after_a_restart_where_every_job_has_a_name() {
        let registry = prometheus::Registry::new();
        let counters = JobCounters::new(&registry);
        for (jobs, shown) in [(JOBS_MAX, 3.0), (JOBS_MAX + 1, 1.0)] {
            let mut totals = Totals::default();
            for n in 0..jobs {
                totals.spent_before(&job(n), Component::Gpu, Money::dollars(2));
            }
            totals.of(&job(5)).spend(Component::Gpu, Money::dollars(1));
            totals.show(&counters);
            let spend = counters.spend.with_label_values(&["job-5", "gpu"]).get();
            assert_eq!(spend, shown, "{jobs}");
        }
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
