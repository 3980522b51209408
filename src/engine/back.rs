//! What is parked comes back where it is, or is replaced; and what it takes to have something run again.

use crate::types::instance::{DestroyWhy, Held, Phase, Rental};
use crate::types::intent::Effect;
use crate::types::money::{BID_PARKED, Rate};
use crate::types::plan::{Action, Limit, Missing, Refusal, Situation, Why};
use crate::types::recourse::{Recourse, Turn};

use super::act::{busy, destroy, expendable, heard_out, plain, resume_bid, row, set_bid};
use super::bid::raised;
use super::budget::{Load, begin_margin, horizon, rise, rows_of, stirs};
use super::lease::may_wake;
use super::means::unpaid_copy;
use super::outbid::reclaim;
use super::price::over_ceiling;
use super::replica::{Ground, PARKED_MAX, Step, due, finds_sure, leave, want};

/// The current instance is parked, and the replica should run: bring it back, or replace it.
pub(super) fn rest_or_resume(
    ground: &mut Ground<'_, '_>,
    held: &Held,
    alone: bool,
    count: usize,
    step: &mut Step,
) -> Situation {
    let world = ground.world;
    if busy(world, held) {
        return Situation::Clearing;
    }
    if let Some(until) = ground.record.retry_at.filter(|&at| at > world.now) {
        return Situation::BackingOff { until };
    }
    if !alone || (held.phase == Phase::Stopped && !heard_out(world, held)) {
        return Situation::Clearing;
    }
    // A bid may be outbid at once: where there is something else, there is no time for that.
    let too_late = held.rental == Rental::Bid && ground.in_time && finds_sure(ground, held);
    if resume_bid(held).is_some() && !too_late && due(ground, held).is_none() {
        if !may_wake(world, held) {
            // Its label is renewed first.
            return Situation::Clearing;
        }
        if !spendable(ground) {
            let missing = ground.blind.unwrap_or(Missing::Account);
            return Situation::Blind { missing };
        }
        match resume(ground, held) {
            Ok(Some(action)) => {
                step.actions.push(action);
                return Situation::Provisioning {
                    until: world.now + ground.job.patience,
                };
            }
            Err(limit) => return Situation::OverLimit { limit },
            Ok(None) => {}
        }
    }
    // What we put away ourselves was not taken from us.
    if held.outbid_at.is_some() {
        match reclaim(ground, held, count) {
            Ok(slot) => {
                step.recourses.push((Recourse::Reclaim, Turn::Taken));
                step.reclaims = Some(slot);
                return want(ground, step);
            }
            Err(turn) => step.recourses.push((Recourse::Reclaim, turn)),
        }
    }
    if expendable(ground.world, ground.job, held) {
        step.actions
            .push(destroy(held, DestroyWhy::Moved, Why::Superseded));
        return Situation::Clearing;
    }
    if count > PARKED_MAX {
        return leave(
            ground,
            held,
            Why::PatienceOver,
            DestroyWhy::Moved,
            count,
            step,
        );
    }
    if let Some(situation) = unpaid_copy(ground, held, step) {
        return situation;
    }
    want(ground, step)
}

/// What an instance comes back at: at its old bid, or over what somebody else was seen to bid more.
/// `None`: the old bid would be outbid at once, and more than that cannot be bid.
fn price_back(ground: &Ground<'_, '_>, held: &Held, old: Rate) -> Option<Rate> {
    let slot = row(ground.world, held).filter(|_| held.rental == Rental::Bid);
    match slot.map(|offer| raised(ground.world, ground.risks, ground.job, held, offer)) {
        Some(Ok(bid)) => Some(bid.max(old)),
        Some(Err(Refusal::OverCeiling | Refusal::BidNotBelowOnDemand)) => None,
        _ => Some(old),
    }
}

/// Brings an instance back, if its price is still within the ceiling and a bid still under the
/// slot's on-demand rate, which has to be known. `Ok(None)`: it cannot be had at that price.
pub(super) fn resume(ground: &mut Ground<'_, '_>, held: &Held) -> Result<Option<Action>, Limit> {
    match resume_bid(held) {
        Some(old) => resume_at(ground, held, old),
        None => Ok(None),
    }
}

/// The same at an old price, where that is known from elsewhere.
pub(super) fn resume_at(
    ground: &mut Ground<'_, '_>,
    held: &Held,
    old: Rate,
) -> Result<Option<Action>, Limit> {
    let world = ground.world;
    let Some(price) = price_back(ground, held, old) else {
        return Ok(None);
    };
    if held.rental == Rental::Bid && price <= BID_PARKED {
        return Ok(None);
    }
    if over_ceiling(ground.job, price, held.storage, held.slot.gpus) {
        return Ok(None);
    }
    if held.parked && crowded(ground, held) {
        return Ok(None);
    }
    let on_demand = row(world, held).and_then(|offer| offer.on_demand);
    let effect = match held.rental {
        Rental::Bid => {
            if !world.can_bid || on_demand.is_none_or(|rate| price > rate) {
                return Ok(None);
            }
            set_bid(held, price)
        }
        Rental::OnDemand => Effect::Start { instance: held.id },
    };
    spend(ground, held, effect, price, Why::Resume, on_demand).map(Some)
}

/// Takes back a park that has not taken effect: the same price, so nothing more is at stake.
pub(super) fn keep_running(ground: &mut Ground<'_, '_>, held: &Held) -> Option<Action> {
    if !spendable(ground) || busy(ground.world, held) || !may_wake(ground.world, held) {
        return None;
    }
    resume(ground, held).ok().flatten()
}

pub(super) fn spend(
    ground: &mut Ground<'_, '_>,
    held: &Held,
    effect: Effect,
    price: Rate,
    why: Why,
    on_demand: Option<Rate>,
) -> Result<Action, Limit> {
    let more = rise(held, price);
    let reserve = more.cost(horizon(ground.world));
    let margin = begin_margin(ground.job, more);
    let load = Load {
        rate: more,
        instances: 0,
        gpus: stirs(held, price),
    };
    ground.purse.take(ground.job, reserve, margin, load)?;
    ground.purse.begun.insert(held.slot.machine);
    Ok(Action {
        reserve,
        on_demand_seen: on_demand,
        ..plain(held, effect, why)
    })
}

/// Whether others of ours took the GPUs of a parked instance meanwhile, or take them in this tick.
/// Where it is not known which GPUs they have, they might be the same.
fn crowded(ground: &Ground<'_, '_>, held: &Held) -> bool {
    let (world, machine) = (ground.world, held.slot.machine);
    let all = rows_of(world, machine)
        .iter()
        .filter_map(|offer| offer.machine_gpus)
        .max();
    let others = world
        .state
        .held
        .values()
        .filter(|other| other.slot.machine == machine && !other.parked);
    let known = |held: &Held| held.gpu_ids.len() == held.slot.gpus as usize;
    let mut together = held.slot.gpus;
    for other in others {
        let shared = other.gpu_ids.iter().any(|id| held.gpu_ids.contains(id));
        if shared || !known(other) || !known(held) {
            return true;
        }
        together = together.saturating_add(other.slot.gpus);
    }
    let renting = world.state.intents.values().any(
        |intent| matches!(intent.effect, Effect::Rent { slot, .. } if slot.machine == machine),
    );
    let full = together > held.slot.gpus && all.is_none_or(|all| together > all);
    full || renting || ground.purse.begun.contains(&machine)
}

/// Whether money may be spent on an instance: not when that is forbidden, nor on what is not known.
pub(super) fn spendable(ground: &Ground<'_, '_>) -> bool {
    let world = ground.world;
    let blind = matches!(ground.blind, Some(Missing::Listing | Missing::Account));
    !world.wind_down && !world.state.killed && !blind
}
