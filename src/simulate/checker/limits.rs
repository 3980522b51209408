//! The limits, one row each: what is used of a scope, and how much of it may be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;

use crate::types::job::Job;
use crate::types::money::{Money, Rate};
use crate::types::time::Time;
use crate::types::world::EngineConfig;

/// What a scope (a job, the account) uses, by the market's own books.
#[derive(Clone, Debug, Default)]
pub(super) struct Used {
    /// Billed in all.
    pub(super) total: Money,
    /// Billed by day, by the clock and in the zone that the daemon goes by.
    pub(super) days: BTreeMap<NaiveDate, Money>,
    /// The sum of what is billed by the hour now.
    pub(super) rate: Rate,
    /// Instances that there are.
    pub(super) instances: u32,
}

/// What bounds a scope; `None`: nothing does.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    pub(super) total: Option<Money>,
    pub(super) day: Option<Money>,
    pub(super) rate: Option<Rate>,
    pub(super) instances: Option<u32>,
}

/// One limit.
struct Row {
    /// What it is called.
    name: &'static str,
    /// An amount of it, in words.
    show: fn(i64) -> String,
    /// What is used, and how much may be, in the limit's own unit.
    read: fn(&Used, &Bounds, NaiveDate) -> (i64, Option<i64>),
}

/// Every limit. Another one is another row.
const ROWS: &[Row] = &[
    Row {
        name: "total budget",
        show: dollars,
        read: |used, most, _| (used.total.0, most.total.map(|money| money.0)),
    },
    Row {
        name: "budget of the day",
        show: dollars,
        read: |used, most, day| {
            let today = used.days.get(&day).copied().unwrap_or_default();
            (today.0, most.day.map(|money| money.0))
        },
    },
    Row {
        name: "hourly budget",
        show: dollars,
        read: |used, most, _| (used.rate.0, most.rate.map(|rate| rate.0)),
    },
    Row {
        name: "number of instances",
        show: |count| count.to_string(),
        read: |used, most, _| (i64::from(used.instances), most.instances.map(i64::from)),
    },
];

fn dollars(nanos: i64) -> String {
    Money(nanos).to_string()
}

/// The limits that are passed, by name, and by how much.
pub(super) fn passed(
    used: &Used,
    most: &Bounds,
    day: NaiveDate,
) -> impl Iterator<Item = (&'static str, String)> {
    ROWS.iter().filter_map(move |row| {
        let (used, most) = (row.read)(used, most, day);
        let most = most.filter(|&most| used > most)?;
        let much = format!("{} of {}", (row.show)(used), (row.show)(most));
        Some((row.name, much))
    })
}

/// What bounds the account.
pub(super) fn of_account(config: &EngineConfig) -> Bounds {
    Bounds {
        total: None,
        day: config.per_day,
        rate: config.per_hour,
        instances: Some(config.instances_max),
    }
}

fn of_job(job: &Job) -> Bounds {
    Bounds {
        total: job.budget.total,
        day: job.budget.per_day,
        rate: job.budget.per_hour,
        instances: None,
    }
}

/// An edit of a policy that makes it stricter has so long to take effect: what began under the old
/// one ends by itself, or at the end of what was reserved for it.
const EDIT_TAKES: Duration = Duration::from_hours(2);

/// The versions of a policy, oldest first, each with the time from which it holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Versions(Vec<(Time, Arc<Job>)>);

impl Versions {
    pub(super) fn push(&mut self, since: Time, job: Arc<Job>) {
        self.0.push((since, job));
    }

    /// The newest.
    pub(super) fn newest(&self) -> Option<&Arc<Job>> {
        self.0.last().map(|(_, job)| job)
    }

    /// Those that something may still go by.
    pub(super) fn in_force(&self, now: Time) -> impl Iterator<Item = &Arc<Job>> {
        let replaced = self.0.iter().skip(1).map(|(since, _)| Some(*since));
        self.0
            .iter()
            .zip(replaced.chain([None]))
            .filter(move |(_, replaced)| replaced.is_none_or(|at| now.since(at) < EDIT_TAKES))
            .map(|((_, job), _)| job)
    }

    /// The laxest bounds that something may still go by. What was spent under a larger budget stays
    /// spent, so for money that is the largest that there ever was.
    pub(super) fn bounds(&self, now: Time) -> Bounds {
        let laxest_money = |read: fn(&Bounds) -> Option<Money>| {
            let all = self.0.iter().map(|(_, job)| read(&of_job(job)));
            let each: Option<Vec<Money>> = all.collect();
            each.and_then(|each| each.into_iter().max())
        };
        let in_force = self.in_force(now).map(|job| job.budget.per_hour);
        let rates: Option<Vec<Rate>> = in_force.collect();
        Bounds {
            total: laxest_money(|bounds| bounds.total),
            day: laxest_money(|bounds| bounds.day),
            rate: rates.and_then(|rates| rates.into_iter().max()),
            instances: None,
        }
    }

    /// The highest ceiling that something may still go by.
    pub(super) fn ceiling(&self, now: Time) -> Option<Rate> {
        self.in_force(now).map(|job| job.price_max).max()
    }
}
