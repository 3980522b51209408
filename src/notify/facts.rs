//! What the rules look at: events as they happen, and of each tick what messages are made of.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use chrono_tz::Tz;

use crate::daemon::TickView;
use crate::engine::leaks::costs_now;
use crate::types::ids::{InstanceId, JobName, Label, ReplicaId};
use crate::types::instance::{Held, Phase};
use crate::types::ledger::Scope;
use crate::types::limit::Measure;
use crate::types::money::{Money, Rate};
use crate::types::plan::Situation;
use crate::types::state::{Ending, Event, State};
use crate::types::time::Time;

/// One thing that the loop tells of.
#[derive(Clone, Debug)]
pub enum Fact {
    /// Something happened.
    Event(Event),
    /// A tick was made.
    Tick(Box<Tick>),
}

/// What is known after a tick.
#[derive(Clone, Debug)]
pub struct Tick {
    /// When.
    pub now: Time,
    /// By which days are counted.
    pub zone: Tz,
    /// Prepaid money; `None`: unknown.
    pub credit: Option<Money>,
    /// What is billed now.
    pub burn: Rate,
    /// What is rented.
    pub held: Vec<Rented>,
    /// Instances that carry our label and are in no record; `None`: not known.
    pub orphans: Option<BTreeSet<InstanceId>>,
    /// How far the limits in dollars are used, in thousandths: the limit in words, with its period.
    pub limits: Vec<(String, i64)>,
    /// How many replicas of each job ended in which way, of those of which all did.
    pub ended: BTreeMap<JobName, BTreeMap<&'static str, usize>>,
    /// Replicas that wait for an instance that was outbid.
    pub outbid: BTreeSet<ReplicaId>,
    /// What each job spent on the day before.
    pub yesterday: (NaiveDate, BTreeMap<JobName, Money>),
}

/// Something rented.
#[derive(Clone, Debug)]
pub struct Rented {
    /// Which.
    pub id: InstanceId,
    /// For which replica.
    pub replica: ReplicaId,
    /// Whether it is at work.
    pub runs: bool,
    /// Since when it does what it does.
    pub since: Time,
    /// When the rental ends, where that is known.
    pub ends_at: Option<Time>,
}

impl Tick {
    /// Of a tick of the daemon.
    pub fn of(view: &TickView<'_>) -> Self {
        let (world, state) = (view.world, view.state);
        let zone = world.config.timezone;
        let now = world.now;
        let listing = view.polled.listing.as_ref();
        Self {
            now,
            zone,
            credit: view.polled.account.and_then(|account| account.credit),
            burn: state
                .held
                .values()
                .fold(Rate::ZERO, |sum, held| sum.saturating_add(costs_now(held))),
            held: state.held.values().map(rented).collect(),
            orphans: listing.map(|listing| {
                let ours = |label: &str| Label::has_prefix(label, &state.installation);
                let rows = listing.rows.iter();
                rows.filter(|row| row.label.as_deref().is_some_and(ours))
                    .map(|row| row.id)
                    .filter(|id| !state.held.contains_key(id))
                    .collect()
            }),
            limits: limits(view, now.day(zone)),
            ended: ended(view),
            outbid: outbid(view),
            yesterday: yesterday(state, now.day(zone)),
        }
    }
}

fn rented(held: &Held) -> Rented {
    Rented {
        id: held.id,
        replica: held.replica.clone(),
        runs: held.phase == Phase::Running,
        since: held.phase_since,
        ends_at: held.ends_at.filter(|_| held.destroying.is_none()),
    }
}

fn limits(view: &TickView<'_>, today: NaiveDate) -> Vec<(String, i64)> {
    let mut limits = Vec::new();
    for limit in &view.report.limits {
        let period = match limit.row.measure {
            Measure::Total => String::new(),
            Measure::Day => format!(" on {today}"),
            Measure::Month => format!(" in {}", today.format("%Y-%m")),
            _ => continue,
        };
        if let Some(used) = limit.used.filter(|_| limit.row.bound > 0) {
            let thousandths = i128::from(used) * 1000 / i128::from(limit.row.bound);
            let thousandths = i64::try_from(thousandths).unwrap_or(i64::MAX);
            limits.push((format!("{}{period}", limit.row), thousandths));
        }
    }
    limits
}

fn ended(view: &TickView<'_>) -> BTreeMap<JobName, BTreeMap<&'static str, usize>> {
    let mut jobs = BTreeMap::new();
    for job in view
        .report
        .jobs
        .iter()
        .filter(|job| !job.replicas.is_empty())
    {
        let mut ways: BTreeMap<&'static str, usize> = BTreeMap::new();
        for replica in &job.replicas {
            let way = match replica.situation {
                Situation::Ended {
                    ending: Ending::Finished,
                } => "finished",
                Situation::Ended {
                    ending: Ending::Failed,
                } => "failed",
                _ => continue,
            };
            *ways.entry(way).or_default() += 1;
        }
        if ways.values().sum::<usize>() == job.replicas.len() {
            jobs.insert(job.job.clone(), ways);
        }
    }
    jobs
}

fn outbid(view: &TickView<'_>) -> BTreeSet<ReplicaId> {
    let replicas = view.report.jobs.iter().flat_map(|job| &job.replicas);
    replicas
        .filter(|replica| matches!(replica.situation, Situation::Outbid { .. }))
        .map(|replica| replica.replica.clone())
        .collect()
}

fn yesterday(state: &State, today: NaiveDate) -> (NaiveDate, BTreeMap<JobName, Money>) {
    let day = today.pred_opt().unwrap_or(today);
    let mut spent = BTreeMap::new();
    for (scope, usage) in &state.usage {
        if let Scope::Job(job) = scope
            && usage.on(day) > Money::ZERO
        {
            spent.insert(job.clone(), usage.on(day));
        }
    }
    (day, spent)
}
