//! How far each limit is used, and when it is reached.

use super::{Metrics, MetricsInput, set};
use crate::types::ledger::Scope;
use crate::types::limit::Measure;
use crate::types::money::Money;

impl Metrics {
    /// The table of limits. The names are those of jobs, and of owners and tags with limits.
    pub(super) fn show_limits(&self, input: &MetricsInput<'_>) {
        let g = &self.gauges;
        for limit in &input.report.limits {
            let row = &limit.row;
            let (scope, name) = match &row.scope {
                Scope::Account => ("account", ""),
                // A limit of a job without series of its own can be summed up with no other.
                Scope::Job(name) if !self.known().totals.label(name).1 => continue,
                Scope::Job(name) => ("job", name.as_str()),
                Scope::Owner(name) => ("owner", name.as_str()),
                Scope::Tag(name) => ("tag", name.as_str()),
            };
            let labels = [scope, name, row.measure.as_str()];
            if let Some(at) = limit.breach_at {
                let left = at.since(input.now).as_secs_f64();
                g.limit_breach.with_label_values(&labels).set(left);
            }
            let Some(used) = limit.used else { continue };
            match row.measure {
                Measure::Total | Measure::Day | Measure::Month => {
                    let dollars = |nanos| Money(nanos).as_dollars();
                    let used = dollars(used);
                    g.limit_used_dollars.with_label_values(&labels).set(used);
                    let bound = dollars(row.bound);
                    g.limit_bound_dollars.with_label_values(&labels).set(bound);
                }
                Measure::Runway => set(&g.runway, used as f64 / 1000.0),
                _ => {}
            }
            // Of credit and runway it is the least that is bounded.
            let most = !matches!(row.measure, Measure::Credit | Measure::Runway);
            if most && row.bound > 0 {
                let ratio = used as f64 / row.bound as f64;
                g.limit_used.with_label_values(&labels).set(ratio);
            }
        }
    }
}
