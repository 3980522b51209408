//! Series of instances: there while they are held, gone with them.

use std::time::Duration;

use super::{Metrics, MetricsInput, set};
use crate::engine::leaks::{costs_now, idle};
use crate::types::ids::Label;
use crate::types::instance::{Held, Phase};
use crate::types::money::Rate;

impl Metrics {
    pub(super) fn show_instances(&self, input: &MetricsInput<'_>) {
        let g = &self.gauges;
        let state = input.state;
        for phase in Phase::ALL {
            g.instances.with_label_values(&[phase.as_str()]).set(0.0);
        }
        let count = |test: fn(&Held) -> bool| state.held.values().filter(|h| test(h)).count();
        set(&g.parked, count(|held| held.parked) as f64);
        set(
            &g.destroying,
            count(|held| held.destroying.is_some()) as f64,
        );
        for why in Phase::ALL
            .map(Phase::as_str)
            .into_iter()
            .chain(["parked", "destroying"])
        {
            if why != Phase::Running.as_str() {
                g.idle.with_label_values(&[why]).set(0.0);
            }
        }
        for held in state.held.values() {
            if let Some(why) = idle(held) {
                let costs = costs_now(held).as_dollars();
                g.idle.with_label_values(&[why]).add(costs);
            }
            self.show_instance(held);
            if let Some(floor) = floor_of(input, held) {
                self.show_floor(held, floor);
            }
        }
        let since = state.held.values().filter_map(|held| held.destroying_since);
        let oldest = since.min().map_or(Duration::ZERO, |at| input.now.since(at));
        set(&g.destroy_oldest, oldest.as_secs_f64());
        for action in ["rent", "set-bid", "stop", "start", "destroy"] {
            g.intents.with_label_values(&[action]).set(0.0);
        }
        for intent in state.intents.values() {
            g.intents.with_label_values(&[intent.effect.as_str()]).inc();
        }
        // An orphan is known only from a listing; without one there is no number.
        if let Some(listing) = input.listing {
            let ours = |label: &str| Label::has_prefix(label, &state.installation);
            let orphans = listing
                .rows
                .iter()
                .filter(|row| row.label.as_deref().is_some_and(ours))
                .filter(|row| !state.held.contains_key(&row.id))
                .count();
            set(&g.orphans, orphans as f64);
        }
    }

    fn show_instance(&self, held: &Held) {
        let g = &self.gauges;
        let (job, _) = self.known().totals.label(&held.replica.job);
        g.instances.with_label_values(&[held.phase.as_str()]).inc();
        let gpu = if held.bills_gpu() {
            held.price.as_dollars()
        } else {
            0.0
        };
        g.burn
            .with_label_values(&[job])
            .add(gpu + held.storage.as_dollars());
        g.burn_worst
            .with_label_values(&[job])
            .add(held.worst_rate().as_dollars());
        let id = held.id.to_string();
        let labels = [&*id, job, &*held.gpu_name, held.rental.as_str()];
        g.instance_price
            .with_label_values(&labels)
            .set(held.price.as_dollars() / f64::from(held.slot.gpus.max(1)));
        g.instance_running
            .with_label_values(&labels)
            .set(f64::from(u8::from(held.phase == Phase::Running)));
        g.instance_spend
            .with_label_values(&[&*id, job])
            .set(held.spent().as_dollars());
    }

    fn show_floor(&self, held: &Held, floor: Rate) {
        let id = held.id.to_string();
        let (job, _) = self.known().totals.label(&held.replica.job);
        self.gauges
            .instance_floor
            .with_label_values(&[&*id, job, &*held.gpu_name, held.rental.as_str()])
            .set(floor.as_dollars() / f64::from(held.slot.gpus.max(1)));
    }
}

/// The least bid that the market shows for an instance's slot; offers are in the order of slots.
fn floor_of(input: &MetricsInput<'_>, held: &Held) -> Option<Rate> {
    let offers = &input.market.offers;
    let first = offers.partition_point(|offer| offer.slot() < held.slot);
    let same = offers[first..]
        .iter()
        .take_while(|offer| offer.slot() == held.slot);
    same.filter_map(|offer| offer.floor).min()
}
