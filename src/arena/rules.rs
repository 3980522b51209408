//! The rules that people rent by, to compare with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::market::{CreateParams, Market, RawOffer};
use crate::types::job::Job;
use crate::types::offer::{Market as SearchType, same_model};
use crate::types::time::Time;

use super::meter::Meter;

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The cheapest reliable on-demand slot, until the work is done.
    OnDemand,
    /// A competent human: bids 1.2 × the floor of what is cheapest so, rents on demand where that is
    /// cheaper, looks every quarter of an hour, and moves what was lost.
    Human,
    /// Bids the floor once, looks every five minutes, and rents anew what was lost, as existing tools do.
    FloorOnce,
}

/// What has not come up after this is given up.
const COMES_UP_WITHIN: Duration = Duration::from_mins(20);

impl Rule {
    fn looks_every(self) -> Duration {
        match self {
            Self::OnDemand | Self::FloorOnce => Duration::from_mins(5),
            Self::Human => Duration::from_mins(15),
        }
    }

    /// What the rule would pay for a row, for all its GPUs, and whether as a bid.
    fn price(self, offer: &RawOffer) -> (f64, bool) {
        let on_demand = (offer.dph_base, false);
        match self {
            Self::OnDemand => on_demand,
            Self::FloorOnce => (up(offer.min_bid), true),
            Self::Human => {
                let bid = up(offer.min_bid * 1.2);
                if bid < offer.dph_base {
                    (bid, true)
                } else {
                    on_demand
                }
            }
        }
    }
}

/// The next whole step of a bid, which is never one that parks.
fn up(bid: f64) -> f64 {
    ((bid * 1e4).ceil() / 1e4).max(0.0011)
}

/// Whether a row suits a job, its price aside.
pub(super) fn suits(job: &Job, offer: &RawOffer) -> bool {
    let need = &job.requirements;
    let models = need.gpu_models.iter();
    offer.num_gpus == need.gpu_count
        && models
            .into_iter()
            .any(|model| same_model(model, &offer.gpu_name))
        && offer.rentable
        && !offer.rented
        && &*offer.verification == "verified"
        && offer.disk_space >= f64::from(need.disk_gb)
        && need
            .reliability_min
            .is_none_or(|least| offer.reliability2 >= f64::from(least))
}

/// What a job pays for its disk on a row, in dollars an hour.
pub(super) fn disk(job: &Job, offer: &RawOffer) -> f64 {
    offer.storage_cost * f64::from(job.requirements.disk_gb) / 720.0
}

/// An account that rents by a rule.
pub(super) struct Renter {
    rule: Rule,
    account: u64,
    jobs: Vec<Arc<Job>>,
    /// The instance of each job, and since when.
    held: BTreeMap<usize, (u64, Time)>,
    looked_at: Option<Time>,
    /// Instances made.
    pub(super) starts: u64,
}

impl Renter {
    pub(super) fn new(rule: Rule, account: u64, jobs: &[Arc<Job>]) -> Self {
        Self {
            rule,
            account,
            jobs: jobs.to_vec(),
            held: BTreeMap::new(),
            looked_at: None,
            starts: 0,
        }
    }

    /// Does what the rule has it do now.
    pub(super) fn acts(&mut self, market: &mut Market, meter: &Meter) {
        let now = market.now();
        // Whoever watches a log sees the end of his work at once.
        for at in 0..self.jobs.len() {
            if meter.is_done(at) {
                self.lets_go(market, at);
            }
        }
        let due = self.looked_at.map(|at| at + self.rule.looks_every());
        if due.is_some_and(|due| now < due) {
            return;
        }
        self.looked_at = Some(now);
        for at in 0..self.jobs.len() {
            if meter.is_done(at) {
                continue;
            }
            if self.is_lost(market, at) {
                self.lets_go(market, at);
            }
            if !self.held.contains_key(&at) {
                self.rents(market, at);
            }
        }
    }

    fn is_lost(&self, market: &Market, at: usize) -> bool {
        let Some(&(id, since)) = self.held.get(&at) else {
            return false;
        };
        let Some(row) = market.instance(self.account, id) else {
            return true;
        };
        let up = row.actual_status.as_deref() == Some("running");
        let stands = &*row.cur_state == "stopped"
            || matches!(row.actual_status.as_deref(), Some("exited" | "offline"));
        stands || (!up && market.now().since(since) > COMES_UP_WITHIN)
    }

    fn lets_go(&mut self, market: &mut Market, at: usize) {
        if let Some((id, _)) = self.held.remove(&at) {
            // What is gone already is gone.
            let _ = market.destroy(self.account, id);
        }
    }

    fn rents(&mut self, market: &mut Market, at: usize) {
        let job = Arc::clone(&self.jobs[at]);
        let gpus = f64::from(job.requirements.gpu_count);
        let disk_gb = f64::from(job.requirements.disk_gb);
        // On-demand rows carry the floor, too.
        let offers = market.offers(self.account, SearchType::OnDemand, disk_gb);
        let mut found: Vec<(f64, &RawOffer, (f64, bool))> = offers
            .iter()
            .filter(|offer| suits(&job, offer))
            .filter_map(|offer| {
                let price = self.rule.price(offer);
                let total = price.0 + disk(&job, offer);
                (total <= job.price_max.as_dollars() * gpus).then_some((total, offer, price))
            })
            .collect();
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.id.cmp(&b.1.id)));
        for (_, offer, (price, is_bid)) in found.into_iter().take(3) {
            let made = market.create(
                self.account,
                CreateParams {
                    offer_id: offer.id,
                    price: is_bid.then_some(price),
                    image: Some("a/b:c".to_owned()),
                    disk: Some(disk_gb),
                    label: Some(job.name.to_string()),
                    ..CreateParams::default()
                },
            );
            if let Ok(created) = made {
                self.starts += 1;
                self.held.insert(at, (created.new_contract, market.now()));
                return;
            }
        }
    }
}
