//! What was done, by the market's own records.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::market::{Happening, Market, Rented};
use crate::types::job::Job;
use crate::types::money::Rate;
use crate::types::time::{Time, millis};

/// What is known of an instance's present run.
#[derive(Clone, Copy, Debug)]
struct Run {
    job: usize,
    /// Milliseconds for which its container is up without a break.
    up_ms: i64,
    machine: u64,
    price: Rate,
}

/// How a job whose GPUs somebody else took came to work again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// On the same instance, at no higher price: whoever had displaced it went.
    Waited,
    /// On the same instance, at a higher bid.
    Raised,
    /// By another instance on the same machine.
    Reclaimed,
    /// On another machine.
    Moved,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Waited, Self::Raised, Self::Reclaimed, Self::Moved];

    /// Its name in results.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waited => "waited",
            Self::Raised => "raised",
            Self::Reclaimed => "reclaimed",
            Self::Moved => "moved",
        }
    }
}

/// From the moment at which somebody else took a job's GPUs until a container of it was up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// How.
    pub way: Way,
    /// For how many milliseconds nothing of it ran.
    pub ms: i64,
}

/// A job of which nothing runs any more, and by which run it did last.
#[derive(Clone, Copy, Debug)]
struct Down {
    since: Time,
    id: u64,
    run: Run,
}

/// How far a job is. Useful milliseconds of an instance, all its GPUs together as one.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    durable_ms: i64,
    /// Since the last checkpoint of the present run.
    volatile_ms: i64,
    /// What interruptions took.
    lost_ms: i64,
}

/// Watches one account of a market, and reckons how far its jobs are.
#[derive(Debug)]
pub struct Meter {
    account: u64,
    jobs: Vec<Arc<Job>>,
    progress: Vec<Progress>,
    runs: BTreeMap<u64, Run>,
    looked_at: Option<Time>,
    interruptions: u64,
    /// Events of the market that were looked at.
    events_seen: usize,
    /// When instances that ran lost their GPUs to somebody else.
    displaced: BTreeMap<u64, Time>,
    down: BTreeMap<usize, Down>,
    recoveries: Vec<Recovery>,
}

impl Meter {
    /// Of jobs that have done nothing yet.
    pub fn new(account: u64, jobs: &[Arc<Job>]) -> Self {
        Self {
            account,
            jobs: jobs.to_vec(),
            progress: vec![Progress::default(); jobs.len()],
            runs: BTreeMap::new(),
            looked_at: None,
            interruptions: 0,
            events_seen: 0,
            displaced: BTreeMap::new(),
            down: BTreeMap::new(),
            recoveries: Vec::new(),
        }
    }

    /// Looks at the market, which shows what is so since the last look. Whose an instance is follows from
    /// its label.
    pub fn look(&mut self, market: &Market, job_of: &dyn Fn(&str) -> Option<String>) {
        let now = market.now();
        let since = self.looked_at.replace(now).unwrap_or(now);
        let ms = now.ms_since(since).max(0);
        let mut there: BTreeMap<u64, (usize, bool, Rented<'_>)> = BTreeMap::new();
        for row in market.held(self.account) {
            let name = row.label_asked.and_then(job_of);
            let job = name.and_then(|name| {
                let mut jobs = self.jobs.iter();
                jobs.position(|job| job.name.as_str() == name)
            });
            if let Some(job) = job {
                let up = row.actual_status == Some("running");
                there.insert(row.id, (job, up, row));
            }
        }
        let events = market.events();
        for event in events.get(self.events_seen..).unwrap_or_default() {
            let (Happening::Outbid { instance, .. } | Happening::OnDemandTook { instance }) =
                event.what
            else {
                continue;
            };
            if self.runs.contains_key(&instance) {
                self.displaced.insert(instance, event.at);
            }
        }
        self.events_seen = events.len();
        // What is gone or stands still lost what was in no checkpoint.
        let ended: Vec<u64> = self
            .runs
            .keys()
            .copied()
            .filter(|id| there.get(id).is_none_or(|(_, up, _)| !up))
            .collect();
        for id in ended {
            if let Some(run) = self.runs.remove(&id)
                && !self.is_done(run.job)
            {
                let progress = &mut self.progress[run.job];
                progress.lost_ms += std::mem::take(&mut progress.volatile_ms);
                self.interruptions += 1;
                if let Some(since) = self.displaced.remove(&id) {
                    self.down.insert(run.job, Down { since, id, run });
                }
            }
        }
        for (id, (job, up, row)) in there {
            if !up {
                continue;
            }
            let begins = Run {
                job,
                up_ms: 0,
                machine: row.machine,
                price: row.price,
            };
            let known = self.runs.contains_key(&id);
            self.displaced.remove(&id);
            if !known {
                self.recovers(id, begins, now);
            }
            let run = self.runs.entry(id).or_insert(begins);
            run.price = row.price;
            if known {
                let before = run.up_ms;
                run.up_ms += ms;
                let after = run.up_ms;
                self.book(job, before, after);
            }
        }
    }

    /// Something of a job runs, which may not have been so before.
    fn recovers(&mut self, id: u64, begins: Run, now: Time) {
        let Some(down) = self.down.remove(&begins.job) else {
            return;
        };
        let way = if id == down.id && begins.price > down.run.price {
            Way::Raised
        } else if id == down.id {
            Way::Waited
        } else if begins.machine == down.run.machine {
            Way::Reclaimed
        } else {
            Way::Moved
        };
        let ms = now.ms_since(down.since);
        self.recoveries.push(Recovery { way, ms });
    }

    /// Books a run's work: after the boot overhead, and durable by whole checkpoint intervals.
    fn book(&mut self, at: usize, before: i64, after: i64) {
        if self.is_done(at) {
            return;
        }
        let job = &self.jobs[at];
        let boot = millis(job.boot_overhead);
        let (from, to) = ((before - boot).max(0), (after - boot).max(0));
        let every = job.checkpoint_every.map_or(0, millis);
        let progress = &mut self.progress[at];
        progress.volatile_ms += to - from;
        if every > 0 && to / every > from / every {
            let rest = to % every;
            progress.durable_ms += (progress.volatile_ms - rest).max(0);
            progress.volatile_ms = rest;
        }
    }

    fn wanted_ms(&self, at: usize) -> i64 {
        let job = &self.jobs[at];
        let gpus = i64::from(job.requirements.gpu_count.max(1));
        job.work_mgpu_h.unwrap_or(0) * 3600 / gpus
    }

    /// Whether a job has done all of its work.
    pub fn is_done(&self, at: usize) -> bool {
        let progress = self.progress[at];
        progress.durable_ms + progress.volatile_ms >= self.wanted_ms(at)
    }

    /// How many jobs are done.
    pub fn done(&self) -> usize {
        (0..self.jobs.len()).filter(|&at| self.is_done(at)).count()
    }

    /// Useful GPU-hours: what is kept in checkpoints, or all that a job had to do.
    pub fn useful_gpu_hours(&self) -> f64 {
        let of = |at: usize| {
            let gpus = f64::from(self.jobs[at].requirements.gpu_count);
            let kept = if self.is_done(at) {
                self.wanted_ms(at)
            } else {
                self.progress[at].durable_ms
            };
            kept as f64 / 3_600_000.0 * gpus
        };
        (0..self.jobs.len()).map(of).sum()
    }

    /// What is left undone of each job, in GPU-hours: its work less what is kept.
    pub fn undone_gpu_hours(&self) -> Vec<f64> {
        let of = |at: usize| {
            if self.is_done(at) {
                return 0.0;
            }
            let gpus = f64::from(self.jobs[at].requirements.gpu_count);
            let left = self.wanted_ms(at) - self.progress[at].durable_ms;
            left.max(0) as f64 / 3_600_000.0 * gpus
        };
        (0..self.jobs.len()).map(of).collect()
    }

    /// How far each job is, in GPU-hours that are kept, for the log.
    pub fn log(&self, player: &str) {
        for (at, job) in self.jobs.iter().enumerate() {
            let gpus = i64::from(job.requirements.gpu_count.max(1));
            let hours = |ms: i64| (ms * gpus) as f64 / 3_600_000.0;
            let progress = self.progress[at];
            tracing::debug!(
                player,
                job = job.name.as_str(),
                wanted = hours(self.wanted_ms(at)),
                kept = hours(progress.durable_ms),
                lost = hours(progress.lost_ms),
                "how far it is"
            );
        }
    }

    /// Runs that ended before their job was done.
    pub fn interruptions(&self) -> u64 {
        self.interruptions
    }

    /// How jobs came to work again whose GPUs somebody else had taken, in order of time.
    pub fn recoveries(&self) -> &[Recovery] {
        &self.recoveries
    }

    /// GPU-hours of work that interruptions took.
    pub fn lost_gpu_hours(&self) -> f64 {
        let lost = self.progress.iter().zip(&self.jobs);
        let of = |(progress, job): (&Progress, &Arc<Job>)| {
            progress.lost_ms as f64 / 3_600_000.0 * f64::from(job.requirements.gpu_count)
        };
        lost.map(of).sum()
    }
}

/// A bound on what the jobs could cost: each works in those minutes in which some slot that suits it is
/// cheapest, at its floor or its on-demand rate with its disk, without a boot, an interruption or another
/// job in its way. No rule can do better on a market that it leaves as it is.
#[derive(Debug)]
pub struct Bound {
    jobs: Vec<Arc<Job>>,
    /// Dollars per GPU-hour, a look each.
    cheapest: Vec<Vec<f64>>,
    look_hours: f64,
}

impl Bound {
    /// With looks so far apart.
    pub fn new(jobs: &[Arc<Job>], look_hours: f64) -> Self {
        Self {
            jobs: jobs.to_vec(),
            cheapest: vec![Vec::new(); jobs.len()],
            look_hours,
        }
    }

    /// Takes up what is cheapest for a job now; `None`: nothing suits it.
    pub fn saw(&mut self, at: usize, dollars_per_hour: Option<f64>) {
        let gpus = f64::from(self.jobs[at].requirements.gpu_count.max(1));
        let price = dollars_per_hour.map_or(f64::INFINITY, |price| price / gpus);
        self.cheapest[at].push(price);
    }

    /// The least that the jobs' work could cost, in dollars, and what of each job's there was no time for,
    /// in GPU-hours.
    pub fn least(&self) -> (f64, Vec<f64>) {
        let (mut cost, mut undone) = (0.0, Vec::new());
        for (job, seen) in self.jobs.iter().zip(&self.cheapest) {
            let gpus = f64::from(job.requirements.gpu_count.max(1));
            let wanted = job.work_mgpu_h.unwrap_or(0) as f64 / 1000.0;
            let mut left = wanted;
            let mut sorted = seen.clone();
            sorted.sort_by(f64::total_cmp);
            for price in sorted.into_iter().filter(|price| price.is_finite()) {
                let worked = (self.look_hours * gpus).min(left);
                cost += price * worked;
                left -= worked;
                if left <= 0.0 {
                    break;
                }
            }
            undone.push(left.max(0.0));
        }
        (cost, undone)
    }
}

#[cfg(test)]
mod tests {
    use super::super::jobs::jobs;
    use super::*;

    fn meter() -> Meter {
        Meter::new(1, &jobs().unwrap())
    }

    #[test]
    fn work_begins_after_the_boot_and_is_kept_by_checkpoints() {
        let mut meter = meter();
        let minute = 60_000;
        // The first job keeps a checkpoint every ten minutes, after five of booting.
        assert_eq!(meter.jobs[0].boot_overhead.as_secs(), 300);
        meter.book(0, 0, 4 * minute);
        assert_eq!(meter.progress[0].volatile_ms, 0);
        meter.book(0, 4 * minute, 14 * minute);
        assert_eq!(meter.progress[0].volatile_ms, 9 * minute);
        meter.book(0, 14 * minute, 38 * minute);
        let progress = meter.progress[0];
        assert_eq!(
            (progress.durable_ms, progress.volatile_ms),
            (30 * minute, 3 * minute)
        );
        assert!((meter.useful_gpu_hours() - 0.5).abs() < 1e-9);
        meter.book(0, 38 * minute, 41 * 60 * minute);
        assert!(meter.is_done(0));
        assert!(
            (meter.useful_gpu_hours() - 40.0).abs() < 1e-9,
            "and no more than that"
        );
    }

    #[test]
    fn a_recovery_is_told_by_where_and_at_what_price_it_works_again() {
        let run = |machine, price| Run {
            job: 0,
            up_ms: 0,
            machine,
            price: Rate(price),
        };
        for (id, machine, price, way) in [
            (1, 7, 100, Way::Waited),
            (1, 7, 101, Way::Raised),
            (2, 7, 300, Way::Reclaimed),
            (2, 8, 50, Way::Moved),
        ] {
            let mut meter = meter();
            let lost = Down {
                since: Time(60_000),
                id: 1,
                run: run(7, 100),
            };
            meter.down.insert(0, lost);
            meter.recovers(id, run(machine, price), Time(240_000));
            let ms = 180_000;
            assert_eq!(meter.recoveries(), [Recovery { way, ms }]);
            meter.recovers(3, run(machine, price), Time(300_000));
            assert_eq!(meter.recoveries().len(), 1, "it was up already");
        }
    }

    #[test]
    fn the_bound_takes_the_cheapest_hours() {
        let jobs = jobs().unwrap();
        let mut bound = Bound::new(&jobs[..1], 10.0);
        for price in [0.5, 0.2, 0.9, 0.3, 0.4, 0.1] {
            bound.saw(0, Some(price));
        }
        bound.saw(0, None);
        let (cost, undone) = bound.least();
        assert_eq!(undone, [0.0]);
        assert!((cost - (1.0 + 2.0 + 3.0 + 4.0)).abs() < 1e-9, "{cost}");
        let mut short = Bound::new(&jobs[..1], 10.0);
        short.saw(0, Some(0.5));
        assert_eq!(short.least(), (5.0, vec![30.0]));
    }
}
