//! What must hold, looked at from the marketplace's side.
//!
//! The checker knows nothing of the daemon's books. It reads the market's own, after every request,
//! and says what was broken and when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::NaiveDate;

use crate::market::{Happening, Market};
use crate::types::ids::{Installation, JobName, Label, ReplicaId};
use crate::types::job::{CheckpointPlace, Finish, Job, RentalChoice};
use crate::types::money::{Money, Rate};
use crate::types::state::Event;
use crate::types::time::Time;
use crate::types::world::EngineConfig;

/// Watches one account of a market.
#[derive(Debug)]
pub struct Checker {
    account: u64,
    jobs: BTreeMap<JobName, Arc<Job>>,
    config: EngineConfig,
    /// Instances that carried a label of ours, and what they ran.
    ours: BTreeMap<u64, Option<ReplicaId>>,
    installation: Option<Installation>,
    /// What each job had cost when its present day began.
    day_began: BTreeMap<JobName, (NaiveDate, Money)>,
    /// What was billed for each job when last looked at.
    bills: BTreeMap<JobName, Money>,
    /// Instances that are not ours and must still be there.
    foreign: BTreeSet<u64>,
    /// Since when instances are on-demand that were to be bids.
    not_asked: BTreeMap<u64, Time>,
    /// Since when instances of ours run without a break.
    running: BTreeMap<u64, Time>,
    /// Instances of ours that worked, and whether their disks may be lost.
    ran: BTreeMap<u64, bool>,
    /// Events of the market that were looked at.
    events_seen: usize,
    /// Instances that the daemon announced to destroy for a limit.
    announced: BTreeSet<u64>,
    /// When a destroy was last sent, by its path.
    destroys: BTreeMap<String, Time>,
    /// How often something was told in the present hour, by its kind and subject.
    stories: BTreeMap<(String, String), (i64, u32)>,
    /// Whether everything is being destroyed on purpose.
    ending: bool,
    violations: BTreeSet<String>,
    first: Option<Time>,
}

/// The same destroy is not sent again before this: each request begins the proof of absence anew.
const DESTROY_APART_MS: i64 = 60_000;

/// What came out as something else is destroyed within this, whatever fails.
const NOT_ASKED_FOR_MS: i64 = 20 * 60_000;

/// What ran for less may fall between two looks of the daemon, and holds no work to speak of.
const WORKED_AFTER_MS: i64 = 6 * 60_000;

/// Something that is told oftener than this in an hour, about one subject, is a storm.
const STORY_MAX: u32 = 30;

impl Checker {
    /// A checker of one account, with the jobs and limits that are promised to hold.
    pub fn new(account: u64, jobs: &[Arc<Job>], config: EngineConfig) -> Self {
        Self {
            account,
            jobs: jobs
                .iter()
                .map(|job| (job.name.clone(), Arc::clone(job)))
                .collect(),
            config,
            ours: BTreeMap::new(),
            installation: None,
            day_began: BTreeMap::new(),
            bills: BTreeMap::new(),
            foreign: BTreeSet::new(),
            not_asked: BTreeMap::new(),
            running: BTreeMap::new(),
            ran: BTreeMap::new(),
            events_seen: 0,
            announced: BTreeSet::new(),
            destroys: BTreeMap::new(),
            stories: BTreeMap::new(),
            ending: false,
            violations: BTreeSet::new(),
            first: None,
        }
    }

    /// An instance that somebody else holds on the account: it must never be touched.
    pub fn foreign(&mut self, instance: u64) {
        self.foreign.insert(instance);
    }

    /// What was broken, each thing once.
    pub fn violations(&self) -> Vec<String> {
        self.violations.iter().cloned().collect()
    }

    /// What the charge rows that the market reports come to, by job.
    pub fn charged(&self, market: &Market) -> BTreeMap<JobName, Money> {
        let mut sums: BTreeMap<JobName, Money> = BTreeMap::new();
        for row in market.charges(self.account, Time(0), market.now()) {
            let id = row
                .source
                .strip_prefix("instance-")
                .and_then(|id| id.parse().ok());
            let replica = id.and_then(|id: u64| self.ours.get(&id)).cloned().flatten();
            let amount = Money::from_dollars(row.amount).unwrap_or_default();
            if let Some(replica) = replica {
                *sums.entry(replica.job).or_default() += amount;
            }
        }
        sums
    }

    /// Looks at the market now.
    pub fn look(&mut self, market: &Market) {
        let rows = market.instances(self.account);
        let mut working: BTreeMap<ReplicaId, Vec<u64>> = BTreeMap::new();
        let mut rates: BTreeMap<JobName, Rate> = BTreeMap::new();
        let mut count = 0;
        for row in &rows {
            // Ours is what was made by us, even where the market shows less of the label.
            let text = market.label_asked(row.id).unwrap_or_default();
            let Some(label) = Label::parse(text).filter(|_| !self.foreign.contains(&row.id)) else {
                continue;
            };
            self.installation
                .get_or_insert_with(|| label.installation.clone());
            self.ours.insert(row.id, Some(label.replica.clone()));
            count += 1;
            let runs = row.actual_status.as_deref() == Some("running");
            self.check_rental(market, &label.replica, row.id, row.is_bid);
            if runs {
                let job = self.jobs.get(&label.replica.job);
                // An instance that goes by itself is what `gone` waits for.
                let may_be_lost = job.is_none_or(|job| {
                    job.disposable
                        || job.checkpoint_place == Some(CheckpointPlace::Remote)
                        || job.finish == Finish::Gone
                });
                let since = *self.running.entry(row.id).or_insert(market.now());
                if market.now().ms_since(since) >= WORKED_AFTER_MS {
                    self.ran.insert(row.id, may_be_lost);
                }
            } else {
                self.running.remove(&row.id);
            }
            let burn = Rate::from_dollars(row.instance.total_hour).unwrap_or_default();
            *rates.entry(label.replica.job.clone()).or_default() += burn;
            if runs {
                working
                    .entry(label.replica.clone())
                    .or_default()
                    .push(row.id);
            }
            self.check_ceiling(market, &label.replica, row.id, row.dph_total, row.num_gpus);
        }
        for (replica, ids) in working {
            if ids.len() > 1 {
                // Ids and not the time, so that a lasting violation is told once.
                self.violations
                    .insert(format!("two at work for {replica}: {ids:?}"));
            }
        }
        if count > self.config.instances_max {
            self.broken(
                market,
                format!("{count} instances, {} allowed", self.config.instances_max),
            );
        }
        self.check_foreign(market);
        self.check_disks(market);
        self.check_rates(&rates);
        self.check_bills(market);
    }

    fn check_ceiling(
        &mut self,
        market: &Market,
        replica: &ReplicaId,
        id: u64,
        dph: f64,
        gpus: u32,
    ) {
        let Some(job) = self.jobs.get(&replica.job) else {
            return;
        };
        let Ok(rate) = Rate::from_dollars(dph) else {
            return;
        };
        // The wire's floats are rounded to more decimals than a bid has; a step is far below.
        if rate.div_ceil(gpus) > job.price_max + Rate(100_000) {
            let text = format!(
                "instance {id} of {replica} costs {rate}/h, ceiling {}",
                job.price_max
            );
            self.broken(market, text);
        }
    }

    /// A gateway may rent on-demand where a bid was meant: that must not last.
    fn check_rental(&mut self, market: &Market, replica: &ReplicaId, id: u64, is_bid: bool) {
        let job = self.jobs.get(&replica.job);
        if is_bid || job.is_none_or(|job| job.rental != RentalChoice::Interruptible) {
            return;
        }
        let since = *self.not_asked.entry(id).or_insert(market.now());
        if market.now().ms_since(since) > NOT_ASKED_FOR_MS {
            self.violations.insert(format!(
                "instance {id} of {replica} is on-demand, which was not asked for, and stays"
            ));
        }
    }

    fn check_foreign(&mut self, market: &Market) {
        for &id in &self.foreign {
            if market.instance(self.account, id).is_none() {
                self.violations
                    .insert(format!("foreign instance {id} was destroyed"));
            }
        }
    }

    /// A disk that must be kept is destroyed only for a limit, or because the user asked.
    fn check_disks(&mut self, market: &Market) {
        let events = market.events();
        for event in events.get(self.events_seen..).unwrap_or_default() {
            let Happening::Destroyed { instance } = event.what else {
                continue;
            };
            let kept = self.ran.get(&instance) == Some(&false);
            if kept && !self.ending && !self.announced.contains(&instance) {
                self.violations.insert(format!(
                    "the disk of instance {instance} was destroyed against its policy"
                ));
            }
        }
        self.events_seen = events.len();
    }

    /// From now on everything is destroyed on purpose.
    pub fn ending(&mut self) {
        self.ending = true;
    }

    /// A destroy was sent.
    pub fn destroy_sent(&mut self, path: String, now: Time) {
        let before = self.destroys.insert(path.clone(), now);
        if before.is_some_and(|at| now.ms_since(at) < DESTROY_APART_MS) {
            self.violations
                .insert(format!("{path} was destroyed twice within a minute"));
        }
    }

    /// The daemon told something.
    pub fn told(&mut self, event: &Event) {
        let subject = match (event.instance, &event.replica) {
            (Some(instance), _) => instance.to_string(),
            (None, Some(replica)) => replica.to_string(),
            (None, None) => String::new(),
        };
        let hour = event.at.0.div_euclid(3_600_000);
        let story = self
            .stories
            .entry((event.kind.clone(), subject.clone()))
            .or_insert((hour, 0));
        if story.0 != hour {
            *story = (hour, 0);
        }
        story.1 += 1;
        if story.1 > STORY_MAX {
            self.violations.insert(format!(
                "`{}` was told more than {STORY_MAX} times an hour of {subject}",
                event.kind
            ));
        }
    }

    /// The daemon recorded that it destroys an instance for a limit, or because it was asked to.
    pub fn announced(&mut self, instance: u64) {
        self.announced.insert(instance);
    }

    fn check_rates(&mut self, rates: &BTreeMap<JobName, Rate>) {
        for (name, rate) in rates {
            let limit = self.jobs.get(name).and_then(|job| job.budget.per_hour);
            if limit.is_some_and(|limit| *rate > limit) {
                self.violations
                    .insert(format!("{name} burns {rate}/h, over its hourly budget"));
            }
        }
        let total: Rate = rates.values().copied().sum();
        if self.config.per_hour.is_some_and(|limit| total > limit) {
            self.violations.insert(format!(
                "the account burns {total}/h, over its hourly limit"
            ));
        }
    }

    fn check_bills(&mut self, market: &Market) {
        let now = market.now();
        let day = now.day(self.config.timezone);
        let mut bills: BTreeMap<JobName, Money> = BTreeMap::new();
        for (id, bill) in market.exact_bill(self.account) {
            if let Some(Some(replica)) = self.ours.get(&id) {
                *bills.entry(replica.job.clone()).or_default() += bill.total();
            }
        }
        for (name, &bill) in &bills {
            let began = self
                .day_began
                .entry(name.clone())
                .or_insert((day, Money::ZERO));
            if began.0 != day {
                *began = (day, self.bills.get(name).copied().unwrap_or_default());
            }
            let today = bill - began.1;
            let Some(job) = self.jobs.get(name) else {
                continue;
            };
            if job.budget.total.is_some_and(|limit| bill > limit) {
                self.violations
                    .insert(format!("{name} is over its total budget"));
            }
            if job.budget.per_day.is_some_and(|limit| today > limit) {
                self.violations
                    .insert(format!("{name} is over its budget of {day}"));
            }
        }
        self.bills = bills;
        let credit = Money::from_dollars(market.user(self.account).credit).unwrap_or_default();
        if credit < self.config.credit_reserve && self.foreign.is_empty() {
            self.violations
                .insert("the credit fell under its reserve".to_owned());
        }
    }

    /// What must hold once everything was destroyed and settled.
    pub fn look_at_the_end(&mut self, market: &Market) {
        self.look(market);
        for row in market.instances(self.account) {
            if !self.foreign.contains(&row.id) {
                self.violations.insert(format!(
                    "instance {} ({}) is left rented",
                    row.id,
                    row.label.as_deref().unwrap_or("no label")
                ));
            }
        }
    }

    fn broken(&mut self, market: &Market, text: String) {
        let at = *self.first.get_or_insert(market.now());
        self.violations
            .insert(format!("{text} (first trouble at {at})"));
    }
}
