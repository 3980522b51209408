//! What bounds spending, as a table: each row bounds one measure of one scope. All rows that a job
//! falls under bind at once, so the strictest wins.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::job::Job;
use super::ledger::Scope;
use super::money::{Money, Rate};
use super::time::millis;
use super::world::EngineConfig;

/// What of a scope is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Spent in all, nano-dollars.
    Total,
    /// Spent in a calendar day of the configured time zone, nano-dollars.
    Day,
    /// Spent in a calendar month of the configured time zone, nano-dollars.
    Month,
    /// The sum of rates at any moment, nano-dollars per hour.
    Hour,
    /// Instances at once, parked ones included.
    Instances,
    /// GPUs at once that run or may run by themselves: those of parked instances do not count.
    Gpus,
    /// The account's credit: the bound is what must be left of it, nano-dollars.
    Credit,
    /// For how long the credit lasts: the bound is the least time, milliseconds.
    Runway,
}

impl Measure {
    /// The word in tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Day => "day",
            Self::Month => "month",
            Self::Hour => "hour",
            Self::Instances => "instances",
            Self::Gpus => "gpus",
            Self::Credit => "credit",
            Self::Runway => "runway",
        }
    }
}

/// One limit: the measure of a scope stays within the bound.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LimitRow {
    /// Whose.
    pub scope: Scope,
    /// What of it.
    pub measure: Measure,
    /// How much, in the measure's unit. The most, but for credit and runway, where it is the least.
    pub bound: i64,
}

impl fmt::Display for LimitRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        described(f, &self.scope, self.measure)
    }
}

/// A limit in words: "per-month limit of owner ml".
pub(crate) fn described(
    f: &mut fmt::Formatter<'_>,
    scope: &Scope,
    measure: Measure,
) -> fmt::Result {
    f.write_str(match measure {
        Measure::Total => "total limit of ",
        Measure::Day => "per-day limit of ",
        Measure::Month => "per-month limit of ",
        Measure::Hour => "per-hour limit of ",
        Measure::Instances => "number of instances of ",
        Measure::Gpus => "number of GPUs of ",
        Measure::Credit => return f.write_str("account's credit less its reserve"),
        Measure::Runway => return f.write_str("account's minimum runway"),
    })?;
    match scope {
        Scope::Account => f.write_str("the account"),
        Scope::Job(name) => write!(f, "job {name}"),
        Scope::Owner(name) => write!(f, "owner {name}"),
        Scope::Tag(name) => write!(f, "tag {name}"),
    }
}

/// What a scope is held to. `None`: no limit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// In total.
    pub total: Option<Money>,
    /// In a calendar day of the configured time zone.
    pub per_day: Option<Money>,
    /// In a calendar month of the configured time zone.
    pub per_month: Option<Money>,
    /// At any moment, the sum of rates.
    pub per_hour: Option<Rate>,
    /// Instances at once, parked ones included.
    pub instances_max: Option<u32>,
    /// GPUs at once, those of parked instances not counted.
    pub gpus_max: Option<u32>,
}

impl Bounds {
    /// The rows of a scope with these bounds.
    pub fn rows(self, scope: &Scope) -> impl Iterator<Item = LimitRow> + use<> {
        let scope = scope.clone();
        [
            (Measure::Total, self.total.map(|money| money.0)),
            (Measure::Day, self.per_day.map(|money| money.0)),
            (Measure::Month, self.per_month.map(|money| money.0)),
            (Measure::Hour, self.per_hour.map(|rate| rate.0)),
            (Measure::Instances, self.instances_max.map(i64::from)),
            (Measure::Gpus, self.gpus_max.map(i64::from)),
        ]
        .into_iter()
        .filter_map(move |(measure, bound)| {
            Some(LimitRow {
                scope: scope.clone(),
                measure,
                bound: bound?,
            })
        })
    }
}

impl EngineConfig {
    /// What the account itself is held to.
    pub fn account_rows(&self) -> Vec<LimitRow> {
        let row = |measure, bound| LimitRow {
            scope: Scope::Account,
            measure,
            bound,
        };
        let bounds = Bounds {
            total: None,
            per_day: self.per_day,
            per_month: self.per_month,
            per_hour: self.per_hour,
            instances_max: Some(self.instances_max),
            gpus_max: self.gpus_max,
        };
        let mut rows = vec![row(Measure::Credit, self.credit_reserve.0)];
        rows.extend(
            self.min_runway
                .map(|least: Duration| row(Measure::Runway, millis(least))),
        );
        rows.extend(bounds.rows(&Scope::Account));
        rows
    }

    /// Every limit that a job falls under: its own, those of its owner and of each of its tags, and
    /// the account's.
    pub fn rows_of(&self, job: &Job) -> Vec<LimitRow> {
        let budget = Bounds {
            total: job.budget.total,
            per_day: job.budget.per_day,
            per_month: job.budget.per_month,
            per_hour: job.budget.per_hour,
            ..Bounds::default()
        };
        let mut rows: Vec<LimitRow> = budget.rows(&Scope::Job(job.name.clone())).collect();
        for scope in Scope::of(&job.name, &job.payer()) {
            let bounds = self.groups.get(&scope).copied().unwrap_or_default();
            rows.extend(bounds.rows(&scope));
        }
        rows.extend(self.account_rows());
        rows
    }

    /// Every limit there is, each once: those of the jobs, of owners and tags, and of the account.
    pub fn rows<'a>(&self, jobs: impl IntoIterator<Item = &'a Job>) -> Vec<LimitRow> {
        let mut rows: Vec<LimitRow> = jobs.into_iter().flat_map(|job| self.rows_of(job)).collect();
        for (scope, bounds) in &self.groups {
            rows.extend(bounds.rows(scope));
        }
        rows.extend(self.account_rows());
        rows.sort();
        rows.dedup();
        rows
    }
}
