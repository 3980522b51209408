//! A job's policy as it is edited, and what of its former versions still holds.

use std::sync::Arc;

use chrono::NaiveDate;

use super::limits::Used;
use crate::types::job::Job;
use crate::types::limit::Bounds;
use crate::types::money::{Money, Rate};

/// One version.
#[derive(Clone, Debug)]
struct Version {
    job: Arc<Job>,
    /// When it was replaced, in time in which a process lived; `None`: it was not.
    replaced: Option<i64>,
}

/// The versions of a policy that something may still go by, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Versions {
    all: Vec<Version>,
    /// What had been used when the last of the former ones ceased to hold: it stays spent.
    kept: Used,
}

impl Versions {
    pub(super) fn push(&mut self, lived: i64, job: Arc<Job>) {
        if let Some(last) = self.all.last_mut() {
            last.replaced = Some(lived);
        }
        let replaced = None;
        self.all.push(Version { job, replaced });
    }

    /// The newest.
    pub(super) fn newest(&self) -> Option<&Arc<Job>> {
        self.all.last().map(|version| &version.job)
    }

    /// What was replaced at a moment or before it holds no longer. What was used until now was within
    /// what held until now, and stays used.
    pub(super) fn retire(&mut self, moment: i64, used: &Used) {
        let before = self.all.len();
        self.all
            .retain(|version| version.replaced.is_none_or(|at| at > moment));
        if self.all.len() < before {
            self.kept = used.clone();
        }
    }

    /// Those that something may still go by.
    pub(super) fn in_force(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.all.iter().map(|version| &version.job)
    }

    /// The laxest bounds that something may still go by. Where more was spent under a former version
    /// than the present one allows, that is the bound: nothing is spent beyond it.
    pub(super) fn bounds(&self, day: NaiveDate) -> Bounds {
        let money = |read: fn(&Job) -> Option<Money>, kept: Money| {
            let each: Option<Vec<Money>> = self.in_force().map(|job| read(job)).collect();
            each.and_then(|each| each.into_iter().max())
                .map(|most| most.max(kept))
        };
        let rates: Option<Vec<Rate>> = self.in_force().map(|job| job.budget.per_hour).collect();
        let kept = &self.kept;
        Bounds {
            total: money(|job| job.budget.total, kept.total),
            per_day: money(|job| job.budget.per_day, kept.on(day)),
            per_month: money(|job| job.budget.per_month, kept.in_month_of(day)),
            per_hour: rates.and_then(|rates| rates.into_iter().max()),
            instances_max: None,
            gpus_max: None,
        }
    }

    /// The highest ceiling that something may still go by.
    pub(super) fn ceiling(&self) -> Option<Rate> {
        self.in_force().map(|job| job.price_max).max()
    }

    /// The most traffic of one instance that limits count, GB; nothing without a cap of it.
    pub(super) fn traffic_gb(&self) -> f64 {
        let caps = self.in_force().map(|job| job.traffic_gb_max.unwrap_or(0.0));
        caps.fold(0.0, f64::max)
    }
}
