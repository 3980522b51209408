//! When each limit is reached if things go on as they are.
//!
//! A limit on a day or a month that would be reached only after the day or month is over is not
//! reached: the next one begins at nothing. This is what people are told; what keeps the limits
//! reckons with the worst case instead, and acts a horizon earlier.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono_tz::Tz;

use crate::types::instance::Held;
use crate::types::job::Job;
use crate::types::ledger::{Scope, month_of};
use crate::types::limit::{LimitRow, Measure};
use crate::types::money::{Money, Rate};
use crate::types::plan::{Limit, Notice, Projection};
use crate::types::state::{Severity, State};
use crate::types::time::{Time, human};
use crate::types::world::{EngineConfig, World};

use super::runway::lasts;

/// A limit that is reached within this is told ahead of time.
const TOLD_AHEAD: Duration = Duration::from_hours(6);

/// The account, as far as a projection needs it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Purse {
    /// The credit less its reserve; `None`: unknown.
    pub credit: Option<Money>,
    /// What is taken from it per hour, by whomever; `None`: unknown.
    pub burn: Option<Rate>,
}

/// The first moment after `now` at which a calendar day in a zone is over.
pub fn day_end(now: Time, zone: Tz) -> Time {
    let today = now.day(zone);
    // No local day is longer than this, not even one that is repeated.
    first_after(now, Duration::from_hours(72), |at| at.day(zone) > today)
}

/// The first moment after `now` at which a calendar month in a zone is over.
pub fn month_end(now: Time, zone: Tz) -> Time {
    let month = month_of(now.day(zone));
    first_after(now, Duration::from_hours(34 * 24), |at| {
        month_of(at.day(zone)) > month
    })
}

/// Where a condition that does not hold at `now` begins to, to the millisecond; `now + within`
/// where it does not.
fn first_after(now: Time, within: Duration, holds: impl Fn(Time) -> bool) -> Time {
    let (mut before, mut after) = (now, now + within);
    while after.ms_since(before) > 1 {
        let middle = Time(before.0 + after.ms_since(before) / 2);
        if holds(middle) {
            after = middle;
        } else {
            before = middle;
        }
    }
    after
}

/// What an instance is billed per hour as it is now: its disk, and its GPUs where they run.
pub fn burn_now(held: &Held) -> Rate {
    if held.bills_gpu() {
        held.price.saturating_add(held.storage)
    } else {
        held.storage
    }
}

/// What a scope uses now, beside what is posted.
#[derive(Clone, Copy, Default)]
struct Now {
    unposted: i128,
    rate: i128,
    instances: i64,
    gpus: i64,
}

fn by_scope(state: &State, jobs: &[&Job], now: Time) -> BTreeMap<Scope, Now> {
    let mut sums: BTreeMap<Scope, Now> = BTreeMap::new();
    for held in state.held.values() {
        let name = &held.replica.job;
        let job = jobs.iter().find(|job| job.name == *name);
        let payer = job.map_or_else(|| state.job(name).payer, |job| job.payer());
        let burn = burn_now(held);
        for scope in Scope::of(name, &payer) {
            let sum = sums.entry(scope).or_default();
            sum.unposted += i128::from(burn.cost(now.since(held.accrued_to)).0);
            sum.rate += i128::from(burn.0);
            sum.instances += 1;
            if !held.parked {
                sum.gpus += i64::from(held.slot.gpus);
            }
        }
    }
    sums
}

/// Every limit: how far it is used, and when it is reached at the present burn.
pub fn project(
    now: Time,
    config: &EngineConfig,
    jobs: &[&Job],
    state: &State,
    purse: Purse,
) -> Vec<Projection> {
    let sums = by_scope(state, jobs, now);
    let zone = config.timezone;
    let today = now.day(zone);
    let (day_end, month_end) = (day_end(now, zone), month_end(now, zone));
    let rows = config.rows(jobs.iter().copied());
    let project = |row: LimitRow| {
        let sum = sums.get(&row.scope).copied().unwrap_or_default();
        let usage = state.usage.get(&row.scope);
        let posted = |of: fn(&crate::types::ledger::Usage, chrono::NaiveDate) -> Money| {
            usage.map_or(0, |usage| i128::from(of(usage, today).0)) + sum.unposted
        };
        let (used, breach_at) = match row.measure {
            Measure::Total => reached(now, posted(|usage, _| usage.total), &row, sum.rate, None),
            Measure::Day => {
                let used = posted(crate::types::ledger::Usage::on);
                reached(now, used, &row, sum.rate, Some(day_end))
            }
            Measure::Month => {
                let used = posted(crate::types::ledger::Usage::in_month_of);
                reached(now, used, &row, sum.rate, Some(month_end))
            }
            Measure::Hour => (Some(narrow(sum.rate)), None),
            Measure::Instances => (Some(sum.instances), None),
            Measure::Gpus => (Some(sum.gpus), None),
            Measure::Credit | Measure::Runway => of_credit(now, &row, purse),
        };
        Projection {
            row,
            used,
            breach_at,
        }
    };
    rows.into_iter().map(project).collect()
}

fn narrow(wide: i128) -> i64 {
    i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX })
}

/// How much is used, and when the bound is reached, if that is before its period ends.
fn reached(
    now: Time,
    used: i128,
    row: &LimitRow,
    rate: i128,
    ends: Option<Time>,
) -> (Option<i64>, Option<Time>) {
    let at = lasts(i128::from(row.bound) - used, rate).map(|time| now + time);
    let at = at.filter(|&at| ends.is_none_or(|ends| at < ends));
    (Some(narrow(used)), at)
}

/// What there is of the credit above its reserve, or how long it lasts, and when it comes to the
/// bound.
fn of_credit(now: Time, row: &LimitRow, purse: Purse) -> (Option<i64>, Option<Time>) {
    let Some(credit) = purse.credit else {
        return (None, None);
    };
    let time = |rate: Rate| lasts(credit.0.into(), rate.0.into());
    if row.measure == Measure::Credit {
        let at = purse.burn.and_then(time).map(|time| now + time);
        return (Some(credit.0), at);
    }
    let Some(burn) = purse.burn else {
        return (None, None);
    };
    let Some(time) = time(burn) else {
        return (Some(i64::MAX), None);
    };
    let least = Duration::from_millis(u64::try_from(row.bound).unwrap_or(0));
    let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    (Some(ms), Some(now + time.saturating_sub(least)))
}

/// The projection of a world, and what is told ahead of time of it.
pub(crate) fn of_world(world: &World) -> (Vec<Projection>, Vec<Notice>) {
    let purse = Purse {
        credit: super::budget::Purse::credit(world),
        burn: super::runway::burn(world),
    };
    let jobs: Vec<&Job> = world.binding_jobs().map(|job| &**job).collect();
    let limits = project(world.now, &world.config, &jobs, &world.state, purse);
    let notices = limits.iter().filter_map(|p| near(p, world.now)).collect();
    (limits, notices)
}

/// What is told of a limit that is soon reached.
fn near(projection: &Projection, now: Time) -> Option<Notice> {
    let at = projection.breach_at.filter(|&at| at <= now + TOLD_AHEAD)?;
    let row = &projection.row;
    let limit = Limit::Of(row.scope.clone(), row.measure);
    let left = at.since(now);
    let when = if left.is_zero() {
        "is reached".to_owned()
    } else {
        format!("is reached in {} at the present burn, at {at}", human(left))
    };
    let name = match &row.scope {
        Scope::Account => String::new(),
        Scope::Job(name) => format!("-{name}"),
        Scope::Owner(name) | Scope::Tag(name) => format!("-{name}"),
    };
    Some(Notice {
        severity: Severity::Warning,
        // One kind for each limit: each is told by itself.
        kind: format!("limit-near-{}{name}", limit.as_str()),
        replica: None,
        text: format!("the {limit} {when}"),
    })
}

/// The limit of a job that is reached first, of all that bind it.
pub fn first_breach<'a>(
    config: &EngineConfig,
    job: &Job,
    limits: &'a [Projection],
) -> Option<(&'a Projection, Time)> {
    let rows = config.rows_of(job);
    let of_job = limits.iter().filter(|limit| rows.contains(&limit.row));
    of_job
        .filter_map(|limit| Some((limit, limit.breach_at?)))
        .min_by_key(|&(_, at)| at)
}
