//! Series of jobs. What can be summed up of jobs without series of their own is one job more; what
//! cannot, such as a price, is left out of them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Metrics, MetricsInput};
use crate::types::ids::{JobName, ReplicaId};
use crate::types::instance::{Held, Phase};
use crate::types::ledger::Scope;
use crate::types::money::Money;
use crate::types::plan::{JobReport, Situation};
use crate::types::state::JobRecord;

/// Milliseconds in an hour.
const HOUR_MS: f64 = 3_600_000.0;

impl Metrics {
    pub(super) fn show_jobs(&self, input: &MetricsInput<'_>) {
        let g = &self.gauges;
        let known = self.known();
        for (job, drift) in &known.drift {
            let (label, _) = known.totals.label(job);
            g.drift.with_label_values(&[label]).add(drift.as_dollars());
        }
        drop(known);
        self.show_policies(input);
        let mut done: BTreeMap<&JobName, i64> = BTreeMap::new();
        for replica in input.state.replicas.values() {
            *done.entry(&replica.id.job).or_default() += replica.done_gpu_ms();
        }
        for (job, &ms) in &done {
            let (label, _) = self.known().totals.label(job);
            g.done.with_label_values(&[label]).add(ms as f64 / 1000.0);
        }
        for record in input.state.jobs.values() {
            let done_ms = done.get(&record.name).copied().unwrap_or_default();
            self.show_record(input, record, done_ms);
        }
        for report in &input.report.jobs {
            self.show_report(input, report);
        }
    }

    /// What policies say.
    fn show_policies(&self, input: &MetricsInput<'_>) {
        let g = &self.gauges;
        for job in input.jobs {
            let (label, own) = self.known().totals.label(&job.name);
            let label = &[label];
            if let Some(work) = job.work_mgpu_h {
                // A milli-GPU-hour is 3.6 GPU-seconds.
                g.work.with_label_values(label).add(work as f64 * 3.6);
            }
            if !own {
                continue;
            }
            if let Some(total) = job.budget.total {
                g.job_total.with_label_values(label).set(total.as_dollars());
            }
            if let Some(day) = job.budget.per_day {
                g.job_day.with_label_values(label).set(day.as_dollars());
            }
            if let Some(month) = job.budget.per_month {
                g.job_month.with_label_values(label).set(month.as_dollars());
            }
            if let Some(hour) = job.budget.per_hour {
                g.job_hour.with_label_values(label).set(hour.as_dollars());
            }
            g.job_ceiling
                .with_label_values(label)
                .set(job.price_max.as_dollars());
        }
    }

    fn show_record(&self, input: &MetricsInput<'_>, record: &JobRecord, done_gpu_ms: i64) {
        let g = &self.gauges;
        let (label, own) = self.known().totals.label(&record.name);
        let label = &[label];
        let today = input.now.day(input.config.timezone);
        let usage = input.state.usage.get(&Scope::Job(record.name.clone()));
        let spent_today = usage.map(|usage| usage.on(today)).unwrap_or_default();
        let spent = usage.map(|usage| usage.total).unwrap_or_default();
        let on_demand = record.on_demand_equivalent;
        g.today
            .with_label_values(label)
            .add(spent_today.as_dollars());
        g.on_demand
            .with_label_values(label)
            .add(on_demand.as_dollars());
        // Nothing was saved where nothing is known to compare with.
        if on_demand > Money::ZERO {
            let saved = on_demand - spent;
            g.savings.with_label_values(label).add(saved.as_dollars());
        }
        if own && done_gpu_ms > 0 {
            let hours = done_gpu_ms as f64 / HOUR_MS;
            let cost = spent.as_dollars() / hours;
            g.useful_cost.with_label_values(label).set(cost);
        }
    }

    fn show_report(&self, input: &MetricsInput<'_>, report: &JobReport) {
        let g = &self.gauges;
        let (job, own) = self.known().totals.label(&report.job);
        for replica in &report.replicas {
            let situation = word(&replica.situation);
            g.replicas.with_label_values(&[job, situation]).inc();
        }
        if !own {
            return;
        }
        if let Some(lasted) = outbid_longest(input, report) {
            g.outbid.with_label_values(&[job]).set(lasted.as_secs_f64());
        }
        if let Some((_, view)) = report.nearest_deadline() {
            let seconds = view.slack_ms() as f64 / 1000.0;
            g.slack.with_label_values(&[job]).set(seconds);
        }
        g.eligible
            .with_label_values(&[job])
            .set(f64::from(report.eligible));
        for (reason, count) in &report.refused {
            g.refused
                .with_label_values(&[job, reason.as_str()])
                .set(f64::from(*count));
        }
        let on_demand = report.on_demand_best.as_ref();
        for best in report.best.first().into_iter().chain(on_demand) {
            g.best
                .with_label_values(&[job, best.rental.as_str()])
                .set(best.parts.total());
        }
    }
}

/// For how long the instance has been stopped that is waited for longest.
fn outbid_longest(input: &MetricsInput<'_>, report: &JobReport) -> Option<Duration> {
    let outbid = report
        .replicas
        .iter()
        .filter(|replica| matches!(replica.situation, Situation::Outbid { .. }));
    let waits =
        |held: &&Held| held.phase == Phase::Stopped && !held.parked && held.destroying.is_none();
    let of = |id: &ReplicaId| {
        let held = input.state.held.values().filter(waits);
        let stopped = held.filter(|held| held.replica == *id);
        stopped.map(|held| held.phase_since).min()
    };
    let since = outbid.filter_map(|replica| of(&replica.replica)).min()?;
    Some(input.now.since(since))
}

/// What a replica does, as in JSON.
fn word(situation: &Situation) -> &'static str {
    match situation {
        Situation::Running => "running",
        Situation::Provisioning { .. } => "provisioning",
        Situation::Settling => "settling",
        Situation::Outbid { .. } => "outbid",
        Situation::ParkedByOthers { .. } => "parked-by-others",
        Situation::Bringing { .. } => "bringing",
        Situation::SourceAway { .. } => "source-away",
        Situation::NotCopied { .. } => "not-copied",
        Situation::Clearing => "clearing",
        Situation::Renting => "renting",
        Situation::NoOffer => "no-offer",
        Situation::OverLimit { .. } => "over-limit",
        Situation::Blind { .. } => "blind",
        Situation::BackingOff { .. } => "backing-off",
        Situation::Queued => "queued",
        Situation::CannotStart { .. } => "cannot-start",
        Situation::WaitsForInputs { .. } => "waits-for-inputs",
        Situation::WaitsForSecrets { .. } => "waits-for-secrets",
        Situation::HeldBack => "held-back",
        Situation::WindowClosed { .. } => "window-closed",
        Situation::Paused => "paused",
        Situation::Stopped => "stopped",
        Situation::Ended { .. } => "ended",
        Situation::Killed => "killed",
    }
}
