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
    /// What is used, and how much may be, in the limit's own unit.
    read: fn(&Used, &Bounds, NaiveDate) -> (i64, Option<i64>),
}

/// Every limit. Another one is another row.
const ROWS: &[Row] = &[
    Row {
        name: "total budget",
        read: |used, most, _| (used.total.0, most.total.map(|money| money.0)),
    },
    Row {
        name: "budget of the day",
        read: |used, most, day| {
            let today = used.days.get(&day).copied().unwrap_or_default();
            (today.0, most.day.map(|money| money.0))
        },
    },
    Row {
        name: "hourly budget",
        read: |used, most, _| (used.rate.0, most.rate.map(|rate| rate.0)),
    },
    Row {
        name: "number of instances",
        read: |used, most, _| (i64::from(used.instances), most.instances.map(i64::from)),
    },
];

/// The limits that are passed, by name. `excused` is money that counts against no limit, because
/// nobody could have known of it.
pub(super) fn passed(
    used: &Used,
    most: &Bounds,
    day: NaiveDate,
) -> impl Iterator<Item = &'static str> {
    ROWS.iter().filter_map(move |row| {
        let (used, most) = (row.read)(used, most, day);
        most.is_some_and(|most| used > most).then_some(row.name)
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

    /// The laxest bounds that something may still go by.
    pub(super) fn bounds(&self, now: Time) -> Bounds {
        let all: Vec<Bounds> = self.in_force(now).map(|job| of_job(job)).collect();
        let laxest_money = |read: fn(&Bounds) -> Option<Money>| {
            let each: Option<Vec<Money>> = all.iter().map(read).collect();
            each.and_then(|each| each.into_iter().max())
        };
        let rates: Option<Vec<Rate>> = all.iter().map(|bounds| bounds.rate).collect();
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
