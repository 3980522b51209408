//! The daemon itself, its decisions, and the account.

use super::{Metrics, MetricsInput, set};
use crate::types::money::Money;

impl Metrics {
    pub(super) fn count_decisions(&self, input: &MetricsInput<'_>) {
        let c = &self.counters;
        c.ticks.with_label_values::<&str>(&[]).inc();
        for action in &input.plan.actions {
            c.decisions
                .with_label_values(&[action.effect.as_str(), action.why.as_str()])
                .inc();
        }
        for (action, limit) in &input.report.dropped {
            c.dropped
                .with_label_values(&[action.effect.as_str(), limit.as_str()])
                .inc();
        }
    }

    pub(super) fn show_self(&self, input: &MetricsInput<'_>) {
        let g = &self.gauges;
        let MetricsInput {
            state, config, now, ..
        } = *input;
        g.build
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        set(&g.live, f64::from(u8::from(input.live)));
        set(&g.killed, f64::from(u8::from(state.killed)));
        set(&g.can_bid, f64::from(u8::from(input.can_bid)));
        set(&g.last_tick, now.epoch_seconds());
        set(&g.policies_broken, input.policies_broken as f64);
        set(&g.jobs, input.jobs.len() as f64);
        set(&g.unread, input.unread as f64);
        set(&g.reserve, config.credit_reserve.as_dollars());
        set(&g.instances_max, f64::from(config.instances_max));
        if let Some(limit) = config.per_day {
            set(&g.account_day, limit.as_dollars());
        }
        if let Some(limit) = config.per_month {
            set(&g.account_month, limit.as_dollars());
        }
        if let Some(limit) = config.per_hour {
            set(&g.account_hour, limit.as_dollars());
        }
        if let Some(credit) = input.account.and_then(|account| account.credit) {
            set(&g.credit, credit.as_dollars());
        }
        if let Some(bytes) = input.store_bytes {
            set(&g.store_bytes, bytes as f64);
        }
        let reserved: Money = state.reserved.values().copied().sum();
        set(&g.reserved, reserved.as_dollars());
    }
}
