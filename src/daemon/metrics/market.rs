//! The market as last seen.

use std::collections::BTreeMap;

use super::{Metrics, MetricsInput, set};
use crate::types::instance::Rental;
use crate::types::offer::{Extent, Offer};

/// Models with series of their own, of those that jobs name: the ones that most jobs name.
pub const MODELS_MAX: usize = 24;

/// The prices that are shown of all, by their place from the cheapest, in thousandths.
const SHOWN_AT: [(&str, usize); 5] = [
    ("min", 0),
    ("p10", 100),
    ("p50", 500),
    ("p90", 900),
    ("max", 1000),
];

impl Metrics {
    pub(super) fn show_market(&self, input: &MetricsInput<'_>) {
        let g = &self.gauges;
        let market = input.market;
        // A snapshot that was never taken has no age.
        if market.at.0 > 0 {
            set(&g.snapshot, market.at.epoch_seconds());
        }
        let malformed: u32 = market.coverage.iter().map(|c| c.malformed).sum();
        set(&g.malformed, f64::from(malformed));
        for extent in ["complete", "partial", "stale"] {
            g.queries.with_label_values(&[extent]).set(0.0);
        }
        for coverage in &market.coverage {
            let extent = match coverage.extent {
                Extent::Complete => "complete",
                Extent::Partial => "partial",
                Extent::Stale { .. } => "stale",
            };
            g.queries.with_label_values(&[extent]).inc();
        }
        self.show_prices(input);
    }

    fn show_prices(&self, input: &MetricsInput<'_>) {
        let g = &self.gauges;
        let models = models(input);
        let mut prices: BTreeMap<(&str, Rental), Vec<f64>> = BTreeMap::new();
        for offer in &input.market.offers {
            let Some((model, _)) = models.get_key_value(&*offer.gpu_name) else {
                continue;
            };
            for (rental, price) in per_gpu_prices(offer) {
                prices.entry((model, rental)).or_default().push(price);
            }
        }
        for ((model, rental), mut prices) in prices {
            prices.sort_by(f64::total_cmp);
            let labels = [model, rental.as_str()];
            g.offers.with_label_values(&labels).set(prices.len() as f64);
            for (at, per_mille) in SHOWN_AT {
                let index = (prices.len() - 1) * per_mille / 1000;
                g.offer_price
                    .with_label_values(&[model, rental.as_str(), at])
                    .set(prices[index]);
            }
        }
    }
}

/// The models with series of their own, with how many jobs name each.
fn models<'a>(input: &MetricsInput<'a>) -> BTreeMap<&'a str, usize> {
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    for job in input.jobs {
        for model in &job.requirements.gpu_models {
            *named.entry(model).or_default() += 1;
        }
    }
    let mut by_jobs: Vec<(&str, usize)> = named.into_iter().collect();
    by_jobs.sort_by_key(|&(_, jobs)| std::cmp::Reverse(jobs));
    by_jobs.truncate(MODELS_MAX);
    by_jobs.into_iter().collect()
}

fn per_gpu_prices(offer: &Offer) -> impl Iterator<Item = (Rental, f64)> {
    let gpus = f64::from(offer.gpus.max(1));
    let bid = offer.floor.map(|floor| (Rental::Bid, floor));
    let on_demand = offer.on_demand.map(|rate| (Rental::OnDemand, rate));
    bid.into_iter()
        .chain(on_demand)
        .map(move |(rental, rate)| (rental, rate.as_dollars() / gpus))
}
