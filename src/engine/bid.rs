//! What to bid.
//!
//! The marketplace's documented rules: the highest bid runs, one pays one's own bid and not a
//! second price, and an on-demand renter beats every bid. So a bid is put over the floor by the
//! policy's margin and no further, and never at or over the on-demand rate, where it buys nothing. How much
//! that margin is where the policy leaves it to us follows from what being outbid costs: see
//! [`super::price`].
//!
//! On a slot that we hold, the floor that is shown echoes our own bid: rounded to $0.001, late by
//! seconds to minutes, and without a trace of rivals, who are invisible until they win. A bidder
//! that takes the echo for the market outbids itself without end. Hence the rule: on a machine
//! that we hold, or held or bid on within half an hour, a floor at or under our own highest bid
//! there, and a tenth of a cent, says nothing.

use std::time::Duration;

use crate::types::ids::MachineId;
use crate::types::instance::{Held, Rental};
use crate::types::job::{BidMargin, Job};
use crate::types::machine::MachineRecord;
use crate::types::money::{BID_PARKED, BID_STEP, Rate};
use crate::types::mutant::Mutant;
use crate::types::offer::Offer;
use crate::types::plan::Refusal;
use crate::types::time::millis;
use crate::types::world::World;

use super::act::elsewhere;
use super::eligible::{Fit, Scope};
use super::price::{Outlook, best_margin, ceiling_room, sight};
use super::risk::Risks;

/// How long our own bid may show in a machine's floors after we left. The echo of a cut was seen
/// to lag by more than 15 minutes; this doubles it.
pub const ECHO_LASTS: Duration = Duration::from_mins(30);

/// How far over our own bid its echo may stand: it is rounded to $0.001.
pub const ECHO_BAND: Rate = Rate(1_000_000);

/// How far under the true floor the one that is shown may be: it is rounded to $0.001.
const ROUNDED_BY: Rate = Rate(500_000);

/// The bid that opens a rental: the floor and the policy's margin, in whole steps, for all GPUs of
/// the offer. It is never under the floor, never over the ceiling, and under the on-demand rate
/// where that is known.
///
/// # Errors
/// [`Refusal::CannotBid`], [`Refusal::PriceUnknown`] (no floor or no price of storage),
/// [`Refusal::RatchetGuard`] (the floor may be our own trace), [`Refusal::OverCeiling`], or
/// [`Refusal::BidNotBelowOnDemand`].
pub fn opening_bid(world: &World, job: &Job, offer: &Offer) -> Result<Rate, Refusal> {
    let scope = Scope::new(world, job);
    let record = world.state.machines.get(&offer.machine);
    let storage = offer.disk_rate(job.requirements.disk_gb);
    let storage = storage.ok_or(Refusal::PriceUnknown)?;
    let risks = Risks::new(&world.state, world.now);
    let sight = sight(&scope, &risks, offer);
    opening(&scope, offer, sight, storage, record)
}

/// [`opening_bid`] where what is to be expected there, the disk's rate and the machine's record are at
/// hand.
pub(crate) fn opening(
    scope: &Scope<'_>,
    offer: &Offer,
    (fit, outlook): (Fit, Outlook),
    storage: Rate,
    record: Option<&MachineRecord>,
) -> Result<Rate, Refusal> {
    if !scope.world.can_bid {
        return Err(Refusal::CannotBid);
    }
    let floor = known(offer.floor)?;
    if own_trace(scope, offer.machine, record).is_some_and(|trace| !is_evidence(floor, trace)) {
        return Err(Refusal::RatchetGuard);
    }
    let margin = margin(scope, offer, (fit, outlook), floor, storage);
    bid_over(
        (floor, margin),
        scope.job,
        offer.gpus,
        storage,
        offer.on_demand,
    )
}

/// The bid by which an outbid instance may win its slot back. Only a floor that our own bids
/// cannot explain is a reason, and only on a row of the same slot: the slices of a machine have
/// floors of their own. The result is over every bid of ours on the machine.
///
/// # Errors
/// [`Refusal::CannotBid`] (this route cannot, or the instance is not interruptible),
/// [`Refusal::GpuCount`] (the row is of another slot), [`Refusal::StaleOffer`],
/// [`Refusal::PriceUnknown`] (no floor, or no on-demand rate to stay under),
/// [`Refusal::RatchetGuard`], [`Refusal::OverCeiling`] or [`Refusal::BidNotBelowOnDemand`].
pub fn raised_bid(world: &World, job: &Job, held: &Held, offer: &Offer) -> Result<Rate, Refusal> {
    let risks = Risks::new(&world.state, world.now);
    raised(world, &risks, job, held, offer)
}

/// [`raised_bid`] where the risks of slots are at hand.
pub(crate) fn raised(
    world: &World,
    risks: &Risks<'_>,
    job: &Job,
    held: &Held,
    offer: &Offer,
) -> Result<Rate, Refusal> {
    if !world.can_bid || held.rental != Rental::Bid {
        return Err(Refusal::CannotBid);
    }
    if offer.slot() != held.slot || elsewhere(held, offer) {
        return Err(Refusal::GpuCount);
    }
    let scope = Scope::new(world, job);
    if scope.is_stale(offer) {
        return Err(Refusal::StaleOffer);
    }
    let floor = known(offer.floor)?;
    let on_demand = known(offer.on_demand)?;
    let record = world.state.machines.get(&held.slot.machine);
    let trace = own_trace(&scope, held.slot.machine, record)
        .map_or(held.price, |trace| trace.max(held.price));
    if !is_evidence(floor, trace) {
        return Err(Refusal::RatchetGuard);
    }
    let margin = margin(
        &scope,
        offer,
        sight(&scope, risks, offer),
        floor,
        held.storage,
    );
    let gpus = held.slot.gpus;
    bid_over((floor, margin), job, gpus, held.storage, Some(on_demand))
}

/// The bid to which a standing bid must come down, if it must.
///
/// A fallen floor is never the reason. On a machine where we bid, a floor under our own bid is by
/// the rule above no evidence, and neither is that of an idle sibling slice: rivals that wait
/// behind us on our slice show nowhere, so a cut towards such a floor may hand them the slot.
/// Two things are known without the floor, and bind: the ceiling, which the policy may have
/// lowered, and the slot's on-demand rate, which is the host's and echoes nobody; a bid at or over
/// it buys nothing. The offer is a live row of the slot, where there is one.
///
/// `None`: the bid is good as it is, the instance has no bid or is parked, or nothing over the
/// parked price fits, so that parking is the only cut.
pub fn lowered_bid(world: &World, job: &Job, held: &Held, offer: Option<&Offer>) -> Option<Rate> {
    // What was asked to stop is on its way to the parked price: any other bid would bring it back.
    let resting = held.parked || held.stop_asked || held.price <= BID_PARKED;
    if !world.can_bid || held.rental != Rental::Bid || resting {
        return None;
    }
    let ceiling = ceiling_room(job, held.storage, held.slot.gpus).round_down_to_bid_step();
    let on_demand = offer
        .filter(|offer| offer.slot() == held.slot)
        .filter(|offer| !Scope::new(world, job).is_stale(offer))
        .and_then(|offer| offer.on_demand);
    let most = on_demand.map_or(ceiling, |rate| ceiling.min(below(rate)));
    (most < held.price && most >= least_bid()).then_some(most)
}

/// Our highest bid on a machine that its floors may still show; `None` where nothing of ours can
/// show there. Bids that were sent and are not settled count. While we hold the machine, what is
/// remembered of it does not fade.
fn own_trace(
    scope: &Scope<'_>,
    machine: MachineId,
    record: Option<&MachineRecord>,
) -> Option<Rate> {
    let ours = scope.ours.get(&machine);
    if scope.world.config.mutant == Some(Mutant::EchoBelieved) {
        return None;
    }
    let holds = ours.is_some_and(|ours| ours.holds);
    let fresh = |at| scope.world.now.ms_since(at) <= millis(ECHO_LASTS);
    let remembered = record
        .and_then(|record| record.highest_bid)
        .filter(|&(_, at)| holds || fresh(at))
        .map(|(rate, _)| rate);
    remembered.max(ours.and_then(|ours| ours.bid))
}

fn is_evidence(floor: Rate, own_highest: Rate) -> bool {
    floor > own_highest + ECHO_BAND
}

/// The floor and the margin, inside the ceiling and under the on-demand rate.
fn bid_over(
    (floor, margin): (Rate, Rate),
    job: &Job,
    gpus: u32,
    storage: Rate,
    on_demand: Option<Rate>,
) -> Result<Rate, Refusal> {
    let least = floor.round_up_to_bid_step().max(least_bid());
    let ceiling = ceiling_room(job, storage, gpus).round_down_to_bid_step();
    if least > ceiling {
        return Err(Refusal::OverCeiling);
    }
    let most = on_demand.map_or(ceiling, |rate| ceiling.min(below(rate)));
    if least > most {
        return Err(Refusal::BidNotBelowOnDemand);
    }
    let wanted = (floor + margin).round_up_to_bid_step();
    Ok(wanted.max(least).min(most))
}

/// What the policy has a bid be put over a floor, for all GPUs.
fn margin(
    scope: &Scope<'_>,
    offer: &Offer,
    (fit, outlook): (Fit, Outlook),
    floor: Rate,
    storage: Rate,
) -> Rate {
    match scope.job.bid_margin {
        BidMargin::Auto => {
            let share = best_margin(scope, offer, (fit, outlook), floor, storage);
            Rate((floor.0 as f64 * share) as i64).max(ROUNDED_BY)
        }
        BidMargin::PartsPerMillion(ppm) => {
            let exact = floor.0.saturating_mul(i64::from(ppm));
            Rate(exact / 1_000_000)
        }
        BidMargin::PerGpu(rate) => rate.saturating_mul(i64::from(offer.gpus)),
    }
}

/// The least bid that is not a parked one.
fn least_bid() -> Rate {
    BID_PARKED + BID_STEP
}

/// The greatest bid that is under a rate.
fn below(rate: Rate) -> Rate {
    (rate - Rate(1)).round_down_to_bid_step()
}

/// A price that is there and is one: a negative price is an error of the row, not a gift.
fn known(rate: Option<Rate>) -> Result<Rate, Refusal> {
    rate.filter(|&rate| rate >= Rate::ZERO)
        .ok_or(Refusal::PriceUnknown)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::act::row;
    use super::super::eligible::samples::{NOW, held, job, offer, usd, world};
    use super::super::price::over_ceiling;
    use super::*;
    use crate::types::ids::OfferId;
    use crate::types::offer::Snapshot;
    use crate::types::time::Time;

    fn remember(world: &mut World, machine: MachineId, bid: Rate, at: Time) {
        world.state.machines.insert(
            machine,
            MachineRecord {
                highest_bid: Some((bid, at)),
                ..MachineRecord::new(machine)
            },
        );
    }

    #[test]
    fn opens_at_the_floor_and_the_margin() {
        let (world, mut job, offer) = (world(Vec::new()), job("a"), offer(1));
        assert_eq!(opening_bid(&world, &job, &offer), Ok(usd(0.21)));
        job.bid_margin = BidMargin::PerGpu(Rate(1_050_000));
        assert_eq!(
            opening_bid(&world, &job, &offer),
            Ok(usd(0.2011)),
            "rounded up"
        );
        job.bid_margin = BidMargin::Auto;
        assert_eq!(
            opening_bid(&world, &job, &offer),
            Ok(usd(0.2005)),
            "the floor, as far as it is shown"
        );
        job.bid_margin = BidMargin::PartsPerMillion(0);
        let free = Offer {
            floor: Some(Rate::ZERO),
            ..offer
        };
        assert_eq!(
            opening_bid(&world, &job, &free),
            Ok(usd(0.0011)),
            "not parked"
        );
    }

    #[test]
    fn bounds_cut_the_margin_and_refuse_the_floor() {
        let (mut world, mut job, offer) = (world(Vec::new()), job("a"), offer(1));
        // 48 GB at $0.15 a month cost $0.01 an hour.
        job.price_max = usd(0.21505);
        assert_eq!(opening_bid(&world, &job, &offer), Ok(usd(0.2050)));
        job.price_max = usd(0.2099);
        assert_eq!(opening_bid(&world, &job, &offer), Err(Refusal::OverCeiling));
        job.price_max = usd(1.0);
        let at = |on_demand| Offer {
            on_demand,
            ..offer.clone()
        };
        assert_eq!(
            opening_bid(&world, &job, &at(Some(usd(0.2051)))),
            Ok(usd(0.205))
        );
        assert_eq!(
            opening_bid(&world, &job, &at(Some(usd(0.2)))),
            Err(Refusal::BidNotBelowOnDemand)
        );
        assert_eq!(opening_bid(&world, &job, &at(None)), Ok(usd(0.21)));
        let blind = Offer {
            floor: None,
            ..offer.clone()
        };
        assert_eq!(
            opening_bid(&world, &job, &blind),
            Err(Refusal::PriceUnknown)
        );
        world.can_bid = false;
        assert_eq!(opening_bid(&world, &job, &offer), Err(Refusal::CannotBid));
    }

    #[test]
    fn the_floor_of_another_slice_of_the_same_size_is_no_reason_to_raise() {
        let job = job("a");
        let slice = |id: u64, floor: f64, gpu: u32| Offer {
            id: OfferId(id),
            floor: Some(usd(floor)),
            gpu_ids: vec![gpu],
            ..offer(9)
        };
        let ours = Held {
            gpu_ids: vec![1],
            ..held(1, &job, &slice(1, 0.2, 1), usd(0.21))
        };
        let beside = slice(2, 0.25, 2);
        let answer = raised_bid(&world(Vec::new()), &job, &ours, &beside);
        assert_eq!(answer, Err(Refusal::GpuCount));
        // In whatever order they are listed, the row is that of our GPUs; where these are not known,
        // the one with the lowest floor.
        let unknown = Held {
            gpu_ids: Vec::new(),
            ..ours.clone()
        };
        for offers in [
            vec![beside.clone(), slice(1, 0.22, 1)],
            vec![slice(1, 0.22, 1), beside],
        ] {
            let world = World {
                market: Arc::new(Snapshot {
                    offers,
                    ..Snapshot::default()
                }),
                ..world(Vec::new())
            };
            for held in [&ours, &unknown] {
                let found = row(&world, held).map(|offer| offer.id);
                assert_eq!(found, Some(OfferId(1)));
            }
        }
    }

    #[test]
    fn our_own_trace_is_no_evidence_until_it_fades() {
        let (mut world, job, offer) = (world(Vec::new()), job("a"), offer(1));
        let guarded = Err(Refusal::RatchetGuard);
        remember(&mut world, offer.machine, usd(0.199), NOW);
        world.now = NOW + ECHO_LASTS;
        assert_eq!(opening_bid(&world, &job, &offer), guarded);
        remember(&mut world, offer.machine, usd(0.1989), NOW);
        assert_eq!(
            opening_bid(&world, &job, &offer),
            Ok(usd(0.21)),
            "over the echo"
        );
        remember(&mut world, offer.machine, usd(0.3), NOW);
        world.now = Time(world.now.0 + 1);
        assert_eq!(opening_bid(&world, &job, &offer), Ok(usd(0.21)), "faded");
        let ours = held(1, &job, &offer, usd(0.05));
        world.state.held.insert(ours.id, ours);
        assert_eq!(
            opening_bid(&world, &job, &offer),
            guarded,
            "we hold it still"
        );
    }

    #[test]
    fn raises_only_on_a_strangers_floor_under_a_known_on_demand_rate() {
        let (mut world, job, mut offer) = (world(Vec::new()), job("a"), offer(1));
        let ours = held(1, &job, &offer, usd(0.21));
        world.state.held.insert(ours.id, ours.clone());
        offer.floor = Some(usd(0.211));
        assert_eq!(
            raised_bid(&world, &job, &ours, &offer),
            Err(Refusal::RatchetGuard)
        );
        offer.floor = Some(usd(0.2111));
        assert_eq!(raised_bid(&world, &job, &ours, &offer), Ok(usd(0.2217)));
        let unknown = Offer {
            on_demand: None,
            ..offer.clone()
        };
        assert_eq!(
            raised_bid(&world, &job, &ours, &unknown),
            Err(Refusal::PriceUnknown)
        );
        let sibling = Offer {
            gpus: 2,
            ..offer.clone()
        };
        assert_eq!(
            raised_bid(&world, &job, &ours, &sibling),
            Err(Refusal::GpuCount)
        );
        // A higher bid of ours on the machine may be what the floor shows.
        remember(&mut world, offer.machine, usd(0.2105), NOW);
        assert_eq!(
            raised_bid(&world, &job, &ours, &offer),
            Err(Refusal::RatchetGuard)
        );
        world.now = NOW + world.config.offers_max_age + Duration::from_millis(1);
        assert_eq!(
            raised_bid(&world, &job, &ours, &offer),
            Err(Refusal::StaleOffer)
        );
    }

    #[test]
    fn comes_down_to_what_binds_and_to_no_floor() {
        let (world, mut job, mut offer) = (world(Vec::new()), job("a"), offer(1));
        let ours = held(1, &job, &offer, usd(0.30));
        offer.floor = Some(usd(0.05));
        assert_eq!(lowered_bid(&world, &job, &ours, Some(&offer)), None);
        offer.on_demand = Some(usd(0.25));
        assert_eq!(
            lowered_bid(&world, &job, &ours, Some(&offer)),
            Some(usd(0.2499))
        );
        job.price_max = usd(0.2);
        assert_eq!(lowered_bid(&world, &job, &ours, None), Some(usd(0.19)));
        let lowered = held(1, &job, &offer, usd(0.19));
        assert_eq!(
            lowered_bid(&world, &job, &lowered, Some(&offer)),
            None,
            "once"
        );
        job.price_max = usd(0.011);
        assert_eq!(
            lowered_bid(&world, &job, &ours, None),
            None,
            "only parking fits"
        );
    }

    fn rates() -> impl Strategy<Value = Rate> {
        prop_oneof![
            (0_i64..30_000).prop_map(|step| Rate(step * BID_STEP.0)),
            (0_i64..3_000_000_000).prop_map(Rate),
        ]
    }

    fn margins() -> impl Strategy<Value = BidMargin> {
        prop_oneof![
            (0_u32..2_000_000).prop_map(BidMargin::PartsPerMillion),
            (0_i64..500_000_000).prop_map(|rate| BidMargin::PerGpu(Rate(rate))),
        ]
    }

    proptest! {
        #[test]
        fn a_bid_stays_inside_its_bounds(
            floor in rates(), on_demand in proptest::option::of(rates()), ceiling in rates(),
            margin in margins(), gpus in 1_u32..9, own in rates(),
        ) {
            let mut world = world(Vec::new());
            let mut job = job("a");
            job.price_max = ceiling;
            job.bid_margin = margin;
            let offer = Offer { gpus, floor: Some(floor), on_demand, ..offer(1) };
            let storage = offer.disk_rate(job.requirements.disk_gb).unwrap();
            let ours = Held { storage, ..held(1, &job, &offer, own) };
            let opened = opening_bid(&world, &job, &offer);
            world.state.held.insert(ours.id, ours.clone());
            let raised = raised_bid(&world, &job, &ours, &offer);
            prop_assert!(raised.is_err() || on_demand.is_some());
            if let Ok(bid) = raised {
                prop_assert!(bid > own + ECHO_BAND);
            }
            for bid in opened.into_iter().chain(raised) {
                prop_assert!(bid >= floor && bid > BID_PARKED);
                prop_assert_eq!(bid, bid.round_down_to_bid_step());
                prop_assert!(!over_ceiling(&job, bid, storage, gpus));
                prop_assert!(on_demand.is_none_or(|rate| bid < rate));
            }
            if let Some(bid) = lowered_bid(&world, &job, &ours, Some(&offer)) {
                prop_assert!(bid < own && bid > BID_PARKED);
                prop_assert!(!over_ceiling(&job, bid, storage, gpus));
                prop_assert!(on_demand.is_none_or(|rate| bid < rate));
            }
        }

        /// A market with nobody in it but us: its floor is our highest bid there, rounded to
        /// $0.001 and shown late. Whatever is tried in 1,000 rounds, no bid goes over the first.
        #[test]
        fn our_own_echo_never_raises_a_bid(
            first in 10_i64..3000, margin in margins(),
            rounds in proptest::collection::vec((0_u8..4, 0_usize..6, 1_i64..400_000), 1000),
        ) {
            let mut world = world(Vec::new());
            let mut job = job("a");
            job.price_max = usd(1000.0);
            job.bid_margin = margin;
            let machine = MachineId(1);
            let start = Rate(first * BID_STEP.0 * 10);
            let mut offer = Offer { on_demand: Some(usd(900.0)), ..offer(1) };
            let mut ours = held(1, &job, &offer, start);
            world.state.held.insert(ours.id, ours.clone());
            let now = world.now;
            remember(&mut world, machine, start, now);
            let mut shown = vec![start];
            for (what, lag, later_ms) in rounds {
                let echo = shown[shown.len().saturating_sub(1 + lag)];
                offer.floor = Some(Rate((echo.0 + 500_000) / 1_000_000 * 1_000_000));
                // Less than half an hour between what we do, so the trace never fades.
                world.now = Time(world.now.0 + later_ms);
                world.market = std::sync::Arc::new(crate::types::offer::Snapshot {
                    at: world.now,
                    ..Default::default()
                });
                let bid = match what {
                    0 => opening_bid(&world, &job, &offer).ok(),
                    1 => raised_bid(&world, &job, &ours, &offer).ok(),
                    2 => lowered_bid(&world, &job, &ours, Some(&offer)),
                    // Leave, and come back in a later round.
                    _ => {
                        if world.state.held.remove(&ours.id).is_none() {
                            world.state.held.insert(ours.id, ours.clone());
                        }
                        None
                    }
                };
                prop_assert!(bid.is_none_or(|bid| bid <= start), "{bid:?} over {start}");
                if let Some(bid) = bid {
                    ours.price = bid;
                }
                shown.push(ours.price);
                let now = world.now;
                remember(&mut world, machine, start, now);
            }
        }
    }
}
