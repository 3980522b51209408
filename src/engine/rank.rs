//! Which slots a job could take, cheapest first, and why it cannot take the others.

use std::collections::BTreeMap;

use crate::types::ids::{InstanceId, OfferId, Slot};
use crate::types::instance::Rental;
use crate::types::job::{Job, RentalChoice};
use crate::types::money::Rate;
use crate::types::offer::Offer;
use crate::types::plan::{Candidate, PriceParts, Refusal};
use crate::types::world::World;

use super::bid::opening;
use super::eligible::{Fit, Scope};
use super::price::{Outlook, landed, over_ceiling, sight};
use super::risk::Risks;

/// Candidates kept for a job: enough for any assignment of a tick with alternatives. A tick that
/// may rent more than this keeps as many as it may rent.
pub const CANDIDATES_MAX: usize = 64;

/// Refused slots shown for a job.
pub const BEST_REFUSED_MAX: usize = 5;

/// What a job could take, and why not the rest. Counts are of slots.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranking {
    /// The cheapest by landed price, cheapest first, one for each slot; a bounded number.
    pub candidates: Vec<Candidate>,
    /// Slots that it could take.
    pub eligible: u32,
    /// Slots refused, by the first reason against each.
    pub refused: BTreeMap<Refusal, u32>,
    /// The best refused slots of the right model and count whose price is known, with the least rate
    /// at which the job could have rented each, cheapest first.
    pub best_refused: Vec<(Slot, OfferId, Rate, Refusal)>,
    /// The cheapest on-demand candidate, whatever rental the job takes and whatever its ceiling:
    /// what savings are measured against.
    pub on_demand_best: Option<Candidate>,
    /// The same within the job's ceiling.
    pub on_demand_fits: Option<Candidate>,
}

/// The market's rows by model and count, so that a job looks only at what it might take, and the risks
/// that go with them. Made once for a tick.
pub struct MarketIndex<'a> {
    groups: Vec<Group<'a>>,
    risks: Risks<'a>,
}

struct Group<'a> {
    gpu_name: &'a str,
    gpus: u32,
    /// Rows by (machine, id), so that a slot's rows are neighbours.
    rows: Vec<&'a Offer>,
    /// How many rows each slot has, in the same order.
    slots: Vec<usize>,
}

impl<'a> MarketIndex<'a> {
    /// The risks of slots.
    pub(crate) fn risks(&self) -> &Risks<'a> {
        &self.risks
    }

    /// Groups the rows of a world's market.
    pub fn new(world: &'a World) -> Self {
        let mut groups: BTreeMap<(&str, u32), Vec<&Offer>> = BTreeMap::new();
        for offer in &world.market.offers {
            groups
                .entry((&offer.gpu_name, offer.gpus))
                .or_default()
                .push(offer);
        }
        let groups = groups
            .into_iter()
            .map(|((gpu_name, gpus), mut rows)| {
                rows.sort_by_key(|offer| (offer.machine, offer.id));
                let slots = rows.chunk_by(|a, b| a.machine == b.machine);
                let slots = slots.map(<[_]>::len).collect();
                Group {
                    gpu_name,
                    gpus,
                    rows,
                    slots,
                }
            })
            .collect();
        Self {
            groups,
            risks: Risks::new(&world.state, world.now),
        }
    }
}

/// What a job would pay for an offer, or the first reason why it does not take it. The same
/// function ranks.
///
/// # Errors
/// The first reason against the offer.
pub fn evaluate(world: &World, job: &Job, offer: &Offer) -> Result<Candidate, Refusal> {
    let scope = Scope::new(world, job);
    let risks = Risks::new(&world.state, world.now);
    let class = Class::new(&scope, &risks, &offer.gpu_name);
    judge(&scope, class, offer, f64::INFINITY)
        .outcome
        .map(|scored| scored.candidate())
}

/// What an offer on-demand would cost a job once one of our instances was parked, within its ceiling. The
/// offer that such an instance was made of is not to be had again: others of its machine are.
///
/// # Errors
/// The first reason against it.
pub(crate) fn on_demand(
    world: &World,
    job: &Job,
    offer: &Offer,
    parked: InstanceId,
) -> Result<Candidate, Refusal> {
    let mut scope = Scope::new(world, job);
    scope.without(parked);
    let risks = Risks::new(&world.state, world.now);
    let class = Class::new(&scope, &risks, &offer.gpu_name);
    let record = scope.eligible(offer, class.fit)?;
    let storage = offer.disk_rate(job.requirements.disk_gb);
    let storage = storage.ok_or(Refusal::PriceUnknown)?;
    let rate = offer.on_demand.filter(|&rate| rate >= Rate::ZERO);
    let rate = rate.ok_or(Refusal::PriceUnknown)?;
    if over_ceiling(job, rate, storage, offer.gpus) {
        return Err(Refusal::OverCeiling);
    }
    let outlook = Outlook::new(&scope.terms, class.risks, class.outbids, offer, record);
    let price = (Rental::OnDemand, rate);
    let scored = score(&scope, (class.fit, outlook), offer, price, storage)?;
    Ok(scored.candidate())
}

/// What a useful GPU-hour costs on a slot at a bid, whoever has it now. `None`: that is no number, or its
/// traffic has no price.
pub(crate) fn at_bid(
    scope: &Scope<'_>,
    risks: &Risks<'_>,
    offer: &Offer,
    bid: Rate,
    storage: Rate,
) -> Option<f64> {
    let sight = sight(scope, risks, offer);
    let scored = score(scope, sight, offer, (Rental::Bid, bid), storage);
    scored.ok().map(|scored| scored.total)
}

/// Orders all slots for a job.
pub fn rank(world: &World, job: &Job, index: &MarketIndex<'_>) -> Ranking {
    let scope = Scope::new(world, job);
    let mut ranking = Ranking::default();
    let mut taken = Cheapest::new(CANDIDATES_MAX.max(world.config.rents_per_tick_max as usize));
    let mut passed_over: Vec<PassedOver> = Vec::new();
    let mut yardstick = Cheapest::new(1);
    let mut fits = Cheapest::new(1);
    let mut known: Option<(&str, Class<'_, '_>)> = None;
    for group in &index.groups {
        // The two first reasons hold for a whole group. Groups of a model are neighbours.
        let class = match known {
            Some((name, class)) if name == group.gpu_name => class,
            _ => Class::new(&scope, &index.risks, group.gpu_name),
        };
        known = Some((group.gpu_name, class));
        let refusal = if !class.fit.taken {
            Some(Refusal::GpuModel)
        } else if group.gpus != job.requirements.gpu_count {
            Some(Refusal::GpuCount)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            *ranking.refused.entry(refusal).or_default() += group.slots.len() as u32;
            continue;
        }
        let mut rest = group.rows.as_slice();
        for &count in &group.slots {
            let (rows, later) = rest.split_at(count);
            rest = later;
            let mut best: Option<Scored<'_>> = None;
            let mut against: Option<(Refusal, &Offer)> = None;
            for &row in rows {
                let judged = judge(&scope, class, row, yardstick.bar);
                if let Some(scored) = judged.on_demand {
                    yardstick.offer(scored);
                    if !over_ceiling(job, scored.price, scored.storage, row.gpus) {
                        fits.offer(scored);
                    }
                }
                match judged.outcome {
                    Ok(new) if best.as_ref().is_none_or(|old| new.order(old).is_lt()) => {
                        best = Some(new);
                    }
                    // Of a slot's rows, the one that came furthest tells the most.
                    Err(refusal) if against.is_none_or(|(worst, _)| refusal > worst) => {
                        against = Some((refusal, row));
                    }
                    Ok(_) | Err(_) => {}
                }
            }
            match (best, against) {
                (Some(scored), _) => {
                    ranking.eligible += 1;
                    taken.offer(scored);
                }
                (None, Some((refusal, row))) => {
                    *ranking.refused.entry(refusal).or_default() += 1;
                    remember(&mut passed_over, job, row, refusal);
                }
                (None, None) => {}
            }
        }
    }
    ranking.candidates = taken.candidates();
    ranking.on_demand_best = yardstick.candidates().pop();
    ranking.on_demand_fits = fits.candidates().pop();
    ranking.best_refused = passed_over
        .into_iter()
        .map(|passed| (passed.slot, passed.offer, passed.price, passed.refusal))
        .collect();
    ranking
}

/// An offer with a price on it. A [`Candidate`] is made of it only for the few that are kept.
#[derive(Clone, Copy)]
struct Scored<'a> {
    offer: &'a Offer,
    rental: Rental,
    price: Rate,
    storage: Rate,
    parts: PriceParts,
    total: f64,
}

impl Scored<'_> {
    fn candidate(&self) -> Candidate {
        Candidate {
            slot: self.offer.slot(),
            offer: self.offer.id,
            gpu_name: self.offer.gpu_name.to_string(),
            rental: self.rental,
            price: self.price,
            storage: self.storage,
            parts: self.parts,
        }
    }

    /// The order of offers: by landed price, then by slot, then by row.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.total
            .total_cmp(&other.total)
            .then_with(|| self.offer.slot().cmp(&other.offer.slot()))
            .then_with(|| self.offer.id.cmp(&other.offer.id))
    }
}

struct Judged<'a> {
    outcome: Result<Scored<'a>, Refusal>,
    /// At the on-demand rate, the ceiling aside.
    on_demand: Option<Scored<'a>>,
}

/// What holds for all slots of a model.
#[derive(Clone, Copy)]
struct Class<'a, 'b> {
    fit: Fit,
    risks: &'a Risks<'b>,
    /// By how much bids on the model are lost more often than rows say.
    outbids: f64,
}

impl<'a, 'b> Class<'a, 'b> {
    fn new(scope: &Scope<'_>, risks: &'a Risks<'b>, gpu_name: &str) -> Self {
        Self {
            fit: scope.fit(gpu_name),
            risks,
            outbids: risks.of_model(gpu_name),
        }
    }
}

/// Prices an offer for a job. An on-demand rate that alone is over `bar`, a landed price, is not
/// worked out where the job does not take on-demand.
fn judge<'a>(scope: &Scope<'_>, class: Class<'_, '_>, offer: &'a Offer, bar: f64) -> Judged<'a> {
    let fit = class.fit;
    let refused = |refusal| Judged {
        outcome: Err(refusal),
        on_demand: None,
    };
    let record = match scope.eligible(offer, fit) {
        Ok(record) => record,
        Err(refusal) => return refused(refusal),
    };
    let Some(storage) = offer.disk_rate(scope.job.requirements.disk_gb) else {
        return refused(Refusal::PriceUnknown);
    };
    let outlook = Outlook::new(&scope.terms, class.risks, class.outbids, offer, record);
    let at = |rental, price| score(scope, (fit, outlook), offer, (rental, price), storage);
    let fixed = || {
        let rate = offer.on_demand.filter(|&rate| rate >= Rate::ZERO);
        let rate = rate.ok_or(Refusal::PriceUnknown)?;
        at(Rental::OnDemand, rate)
    };
    let within = |scored: Scored<'a>| {
        if over_ceiling(scope.job, scored.price, storage, offer.gpus) {
            return Err(Refusal::OverCeiling);
        }
        Ok(scored)
    };
    let bid = || {
        let price = opening(scope, offer, (fit, outlook), storage, record)?;
        at(Rental::Bid, price)
    };
    match scope.job.rental {
        RentalChoice::Interruptible => {
            let per_gpu = |rate: Rate| rate.as_dollars() / f64::from(offer.gpus);
            let useful = f64::from(fit.factor_ppm) / 1e6;
            let in_reach = offer.on_demand.is_some_and(|r| per_gpu(r) <= bar * useful);
            Judged {
                outcome: bid(),
                on_demand: if in_reach { fixed().ok() } else { None },
            }
        }
        RentalChoice::OnDemand => {
            let fixed = fixed();
            Judged {
                outcome: fixed.and_then(within),
                on_demand: fixed.ok(),
            }
        }
        RentalChoice::Auto => {
            let fixed = fixed();
            Judged {
                outcome: better_rental(bid(), fixed.and_then(within)),
                on_demand: fixed.ok(),
            }
        }
    }
}

fn score<'a>(
    scope: &Scope<'_>,
    (fit, outlook): (Fit, Outlook),
    offer: &'a Offer,
    (rental, price): (Rental, Rate),
    storage: Rate,
) -> Result<Scored<'a>, Refusal> {
    let parts = landed(scope, offer, fit, outlook, (rental, price), storage)?;
    Ok(Scored {
        offer,
        rental,
        price,
        storage,
        parts,
        total: parts.total(),
    })
}

/// On-demand where it is no dearer, else the bid.
fn better_rental<'a>(
    bid: Result<Scored<'a>, Refusal>,
    on_demand: Result<Scored<'a>, Refusal>,
) -> Result<Scored<'a>, Refusal> {
    match (bid, on_demand) {
        (Ok(bid), Ok(on_demand)) if on_demand.total <= bid.total => Ok(on_demand),
        (Ok(bid), _) => Ok(bid),
        (Err(_), Ok(on_demand)) => Ok(on_demand),
        // A bid that must be dearer than on-demand is not why the slot is out of reach.
        (Err(Refusal::BidNotBelowOnDemand), Err(refusal)) | (Err(refusal), Err(_)) => Err(refusal),
    }
}

/// The cheapest of what is offered, at most so many. Room for some more is kept, so that sorting
/// out is seldom.
struct Cheapest<'a> {
    most: usize,
    kept: Vec<Scored<'a>>,
    /// A landed price over this is not among them.
    bar: f64,
}

impl<'a> Cheapest<'a> {
    fn new(most: usize) -> Self {
        Self {
            most,
            kept: Vec::new(),
            bar: f64::INFINITY,
        }
    }

    fn offer(&mut self, scored: Scored<'a>) {
        if scored.total > self.bar {
            return;
        }
        self.kept.push(scored);
        if self.kept.len() >= self.most.saturating_mul(4) {
            self.sort_out();
        }
    }

    fn sort_out(&mut self) {
        if self.kept.len() > self.most {
            let last = self.most.saturating_sub(1);
            self.kept.select_nth_unstable_by(last, Scored::order);
            self.kept.truncate(self.most);
            self.bar = self.kept.last().map_or(self.bar, |last| last.total);
        }
    }

    /// Cheapest first.
    fn candidates(mut self) -> Vec<Candidate> {
        self.sort_out();
        self.kept.sort_unstable_by(Scored::order);
        self.kept.iter().map(Scored::candidate).collect()
    }
}

struct PassedOver {
    price: Rate,
    slot: Slot,
    offer: OfferId,
    refusal: Refusal,
}

/// Keeps a refused slot if it is among the cheapest, by the least rate at which the job could have
/// rented it. All of them have equally many GPUs.
fn remember(kept: &mut Vec<PassedOver>, job: &Job, offer: &Offer, refusal: Refusal) {
    let price = match job.rental {
        RentalChoice::Interruptible => offer.floor,
        RentalChoice::OnDemand => offer.on_demand,
        RentalChoice::Auto => offer.floor.into_iter().chain(offer.on_demand).min(),
    };
    let Some(price) = price else { return };
    let slot = offer.slot();
    let at = kept.partition_point(|passed| (passed.price, passed.slot) <= (price, slot));
    if at < BEST_REFUSED_MAX {
        kept.insert(
            at,
            PassedOver {
                price,
                slot,
                offer: offer.id,
                refusal,
            },
        );
        kept.truncate(BEST_REFUSED_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::eligible::samples::{held, job, offer, usd, world};
    use super::*;
    use crate::types::money::Money;

    fn ranked(world: &World, job: &Job) -> Ranking {
        rank(world, job, &MarketIndex::new(world))
    }

    fn with_floor(machine: u64, floor: f64) -> Offer {
        Offer {
            floor: Some(usd(floor)),
            ..offer(machine)
        }
    }

    #[test]
    fn orders_by_landed_price_then_slot_and_counts_the_rest() {
        let offers = vec![
            with_floor(3, 0.2),
            with_floor(1, 0.3),
            with_floor(2, 0.2),
            // Cheap, but slow to make up for it: unreliable and with dear disk.
            Offer {
                reliability: Some(0.6),
                storage_price: Some(Money::dollars(1)),
                ..with_floor(4, 0.19)
            },
            Offer {
                gpus: 2,
                ..offer(5)
            },
            Offer {
                gpu_name: Arc::from("H100 SXM"),
                ..offer(6)
            },
            with_floor(7, 5.0),
            with_floor(8, 0.39),
        ];
        let world = world(offers);
        let mut job = job("a");
        job.price_max = usd(0.35);
        let ranking = ranked(&world, &job);
        let machines: Vec<u64> = ranking
            .candidates
            .iter()
            .map(|c| c.slot.machine.0)
            .collect();
        assert_eq!(machines, [2, 3, 4, 1]);
        assert_eq!(ranking.eligible, 4);
        let refused = [
            (Refusal::GpuModel, 1),
            (Refusal::GpuCount, 1),
            (Refusal::OverCeiling, 2),
        ];
        assert_eq!(ranking.refused, BTreeMap::from(refused));
        let passed: Vec<u64> = ranking
            .best_refused
            .iter()
            .map(|(s, ..)| s.machine.0)
            .collect();
        assert_eq!(passed, [8, 7]);
        let rates: Vec<Rate> = ranking.best_refused.iter().map(|passed| passed.2).collect();
        assert!(rates.is_sorted() && rates[0] > Rate::ZERO, "{rates:?}");
    }

    #[test]
    fn a_slot_counts_once_by_its_best_row() {
        let slices = vec![
            Offer {
                id: OfferId(1),
                rentable: Some(false),
                ..offer(1)
            },
            Offer {
                id: OfferId(2),
                ..with_floor(1, 0.3)
            },
            Offer {
                id: OfferId(3),
                ..with_floor(1, 0.2)
            },
        ];
        let ranking = ranked(&world(slices), &job("a"));
        assert_eq!((ranking.eligible, ranking.refused.len()), (1, 0));
        assert_eq!(ranking.candidates[0].offer, OfferId(3));
    }

    #[test]
    fn auto_takes_on_demand_where_it_is_no_dearer() {
        let mut job = job("a");
        job.rental = RentalChoice::Auto;
        let rental = |job: &Job, floor, on_demand| {
            let offer = Offer {
                on_demand,
                ..with_floor(1, floor)
            };
            evaluate(&world(Vec::new()), job, &offer).map(|c| c.rental)
        };
        assert_eq!(rental(&job, 0.2, Some(usd(0.4))), Ok(Rental::Bid));
        // A bid just under on-demand is dearer, for it may be interrupted.
        assert_eq!(rental(&job, 0.39, Some(usd(0.4))), Ok(Rental::OnDemand));
        assert_eq!(rental(&job, 0.5, Some(usd(0.4))), Ok(Rental::OnDemand));
        assert_eq!(rental(&job, 0.2, None), Ok(Rental::Bid));
        job.price_max = usd(0.3);
        assert_eq!(rental(&job, 0.2, Some(usd(0.4))), Ok(Rental::Bid));
        assert_eq!(
            rental(&job, 0.35, Some(usd(0.4))),
            Err(Refusal::OverCeiling)
        );
    }

    #[test]
    fn savings_are_measured_against_the_cheapest_on_demand_over_any_ceiling() {
        let at = |machine, on_demand| Offer {
            on_demand,
            ..offer(machine)
        };
        let offers = vec![
            at(1, Some(usd(0.6))),
            at(2, Some(usd(0.5))),
            at(3, None),
            Offer {
                rentable: Some(false),
                ..at(4, Some(usd(0.1)))
            },
        ];
        let mut job = job("a");
        job.price_max = usd(0.05);
        let ranking = ranked(&world(offers), &job);
        assert_eq!(ranking.eligible, 0);
        let best = ranking.on_demand_best.unwrap();
        assert_eq!((best.slot.machine.0, best.rental), (2, Rental::OnDemand));
        assert_eq!(best.price, usd(0.5));
    }

    #[test]
    fn lists_stay_bounded() {
        let offers = (1..200).map(|n| with_floor(n, 0.1 + n as f64 / 1000.0));
        let mut world = world(offers.collect());
        let mut job = job("a");
        let ranking = ranked(&world, &job);
        assert_eq!(
            (ranking.eligible, ranking.candidates.len()),
            (199, CANDIDATES_MAX)
        );
        assert_eq!(ranking.candidates[63].slot.machine.0, 64);
        world.config.rents_per_tick_max = 100;
        assert_eq!(ranked(&world, &job).candidates.len(), 100);
        job.price_max = usd(0.05);
        let ranking = ranked(&world, &job);
        assert_eq!(ranking.refused[&Refusal::OverCeiling], 199);
        let passed: Vec<u64> = ranking
            .best_refused
            .iter()
            .map(|(s, ..)| s.machine.0)
            .collect();
        assert_eq!(passed, [1, 2, 3, 4, 5]);
    }

    fn offers() -> impl Strategy<Value = Vec<Offer>> {
        let models = prop_oneof![Just("RTX 4090"), Just("RTX_4090"), Just("H100 SXM")];
        let one = (
            (1_u64..12, 1_u32..3, models, 0_u32..4),
            (
                proptest::option::of(0.01_f64..1.0),
                proptest::option::of(0.01_f64..1.0),
                proptest::option::of(0.9_f32..1.0),
                proptest::option::weighted(0.9, Just(Money(150_000_000))),
            ),
        );
        proptest::collection::vec(one, 0..40).prop_map(|rows| {
            let mut offers: Vec<Offer> = rows
                .into_iter()
                .enumerate()
                .map(
                    |(id, ((machine, gpus, model, gpu), (floor, fixed, reliability, disk)))| {
                        Offer {
                            id: OfferId(id as u64),
                            gpus,
                            gpu_ids: (gpu..gpu + gpus).collect(),
                            gpu_name: Arc::from(model),
                            floor: floor.map(usd),
                            on_demand: fixed.map(usd),
                            reliability,
                            storage_price: disk,
                            ..offer(machine)
                        }
                    },
                )
                .collect();
            offers.sort_by_key(|offer| (offer.slot(), offer.id));
            offers
        })
    }

    proptest! {
        /// The ranking is what looking at every offer by itself gives.
        #[test]
        fn ranking_and_evaluation_agree(
            offers in offers(),
            rental in prop_oneof![
                Just(RentalChoice::Interruptible), Just(RentalChoice::OnDemand), Just(RentalChoice::Auto)
            ],
            ceiling in 0.1_f64..1.0,
        ) {
            let mut world = world(offers.clone());
            let mut job = job("a");
            job.rental = rental;
            job.price_max = usd(ceiling);
            let ours = held(1, &job, &offer(1), usd(0.2));
            world.state.held.insert(ours.id, ours);
            let ranking = ranked(&world, &job);

            let mut best: BTreeMap<Slot, Candidate> = BTreeMap::new();
            let mut slots: std::collections::BTreeSet<(&str, Slot)> = std::collections::BTreeSet::new();
            let mut open: std::collections::BTreeSet<(&str, Slot)> = std::collections::BTreeSet::new();
            for offer in &offers {
                slots.insert((&offer.gpu_name, offer.slot()));
                let Ok(new) = evaluate(&world, &job, offer) else { continue };
                open.insert((&offer.gpu_name, offer.slot()));
                let old = best.entry(offer.slot()).or_insert_with(|| new.clone());
                if new.parts.total() < old.parts.total() {
                    *old = new;
                }
            }
            let refused: u32 = ranking.refused.values().sum();
            prop_assert_eq!((ranking.eligible + refused) as usize, slots.len());
            prop_assert_eq!(ranking.eligible as usize, open.len());
            let least = best.values().map(|c| c.parts.total()).min_by(f64::total_cmp);
            prop_assert_eq!(ranking.candidates.first().map(|c| c.parts.total()), least);
            prop_assert!(ranking.candidates.is_sorted_by_key(|c| c.parts.total()));
            for candidate in &ranking.candidates {
                prop_assert!(!over_ceiling(&job, candidate.price, candidate.storage, candidate.slot.gpus));
            }
            prop_assert_eq!(ranked(&world, &job), ranking);
        }
    }
}
