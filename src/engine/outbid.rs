//! What is done about an instance that is outbid, in this order: it is waited for, its bid is raised
//! once, its machine is taken back on-demand, and only then another machine is taken.

use std::time::Duration;

use crate::types::deadline::Stance;
use crate::types::instance::{DestroyWhy, Held, Rental, RunnerView};
use crate::types::job::{Job, RentalChoice};
use crate::types::money::{BID_PARKED, Rate};
use crate::types::plan::{Action, Candidate, Missing, Refusal, Situation, Why};
use crate::types::recourse::{Recourse, Turn};
use crate::types::time::Time;

use super::act::{
    busy, expendable, given_up, heard_out, is_seen, lower, park, resume_bid, row, set_bid,
};
use super::back::{resume, spend, spendable};
use super::bid::raised;
use super::bring::{COPIES_MAX, begins_with, copied_from, holds_nothing, latest};
use super::budget::{Load, offered, rows_of};
use super::eligible::Scope;
use super::ladder::cannot_start;
use super::lease::may_wake;
use super::means::{can_move, cost};
use super::price::stay_gpu_hours;
use super::rank;
use super::replica::{Ground, PARKED_MAX, Step, due, failed_before, finds_sure, leave};

/// So long a raised bid may take to win the slot back before the next step is taken.
pub(super) const RAISE_TAKES: Duration = Duration::from_mins(5);

/// Whether a bid was raised so lately that it may yet win its slot back.
pub(super) fn takes_effect(held: &Held, now: Time) -> bool {
    held.raised_at.is_some_and(|at| now < at + RAISE_TAKES)
}

/// How long what stands still is waited for. Patience is with rivals: what none stopped was asked to run,
/// and may take as long to come up as a raised bid.
pub(super) fn waited_for(job: &Job, held: &Held) -> Duration {
    match held.outbid_at {
        Some(_) => job.patience,
        None => job.patience.max(RAISE_TAKES),
    }
}

/// Whether its machine or its runner is no good, although it has work.
fn is_replaced(held: &Held) -> bool {
    held.runner.as_ref().is_some_and(RunnerView::is_replaced)
}

/// It is stopped and could run again by itself: outbid, or stopped or parked by somebody else.
pub(super) fn stopped(
    ground: &mut Ground<'_, '_>,
    held: &Held,
    alone: bool,
    count: usize,
    step: &mut Step,
) -> Situation {
    match waits(ground, held, alone, count, step) {
        Situation::Outbid { until } if held.is_parked_by_others() => {
            Situation::ParkedByOthers { until }
        }
        other => other,
    }
}

fn waits(
    ground: &mut Ground<'_, '_>,
    held: &Held,
    alone: bool,
    count: usize,
    step: &mut Step,
) -> Situation {
    let world = ground.world;
    if held.stop_asked {
        // On its way to being parked: read back at the next poll.
        step.actions.extend(park(world, held, Why::Limit));
        return Situation::Clearing;
    }
    let until = held.phase_since + waited_for(ground.job, held);
    if !heard_out(world, held) {
        return Situation::Outbid { until };
    }
    if let Some((why @ (Why::RentalEnding | Why::OverCeiling), destroy_why)) = due(ground, held) {
        return leave(ground, held, why, destroy_why, count, step);
    }
    if let Some(situation) = failed_before(ground, held, step) {
        return situation;
    }
    if let Some(action) = lower(ground.world, ground.job, held) {
        step.actions.push(action);
        return Situation::Outbid { until };
    }
    if let Some(action) = alone.then(|| cut_short(ground, held)).flatten() {
        step.actions.push(action);
        return Situation::Outbid { until };
    }
    ladder(ground, held, alone, count, step)
}

/// The steps in their order, each with how it stands.
fn ladder(
    ground: &mut Ground<'_, '_>,
    held: &Held,
    alone: bool,
    count: usize,
    step: &mut Step,
) -> Situation {
    let world = ground.world;
    let until = held.phase_since + waited_for(ground.job, held);
    let has_time = !(ground.in_time && finds_sure(ground, held));
    let moves = moves(ground, held, count);
    let reclaim = reclaim(ground, held, count);
    let raise = raise(ground, held).and_then(|(bid, on_demand)| {
        let dearer = moves.is_ok() && is_dearer(ground, held, bid);
        if dearer {
            Err(Turn::Dearer)
        } else {
            Ok((bid, on_demand))
        }
    });
    // With its bid standing it may yet run again; without, it would wait for what it may not rent.
    let goes = ground.no_dearer
        && alone
        && count == 1
        && moves.is_ok()
        && spendable(ground)
        && ground.record.retry_at.is_none_or(|at| at <= world.now)
        && can_move(ground, held).is_ok();
    let is_waited_for = has_time && !goes && (!given_up(held) || world.now < until);
    let mut tell = |recourse, turn| step.recourses.push((recourse, turn));
    if is_waited_for {
        tell(Recourse::Wait, Turn::Until { until });
        tell(Recourse::Raise, raise.err().unwrap_or(Turn::Next));
        tell(Recourse::Reclaim, reclaim.err().unwrap_or(Turn::Next));
        tell(Recourse::Move, moves.err().unwrap_or(Turn::Next));
        return Situation::Outbid { until };
    }
    tell(Recourse::Wait, Turn::Over);
    let raised = match raise {
        Ok((bid, on_demand)) if alone => spend(
            ground,
            held,
            set_bid(held, bid),
            bid,
            Why::Outbid,
            on_demand,
        )
        .map_err(|limit| Turn::Limited { limit }),
        Ok(_) => Err(Turn::Next),
        Err(turn) => Err(turn),
    };
    let takes_effect = match &raised {
        Err(Turn::Until { until }) => Some(*until),
        _ => None,
    };
    let is_raised = raised.is_ok();
    match raised {
        Ok(action) => {
            tell(Recourse::Raise, Turn::Taken);
            step.actions.push(action);
        }
        Err(turn) => tell(Recourse::Raise, turn),
    }
    if is_raised || takes_effect.is_some() || busy(world, held) {
        tell(Recourse::Reclaim, reclaim.err().unwrap_or(Turn::Next));
        tell(Recourse::Move, moves.err().unwrap_or(Turn::Next));
        return Situation::Outbid {
            until: takes_effect.unwrap_or(until),
        };
    }
    match reclaim {
        Ok(_) => {
            tell(Recourse::Reclaim, Turn::Taken);
            tell(Recourse::Move, moves.err().unwrap_or(Turn::Next));
            // The instance on-demand comes once this one is parked, and that was read back.
            step.actions.extend(park(world, held, Why::Reclaim));
            return Situation::Clearing;
        }
        Err(turn) => tell(Recourse::Reclaim, turn),
    }
    match moves {
        // That too many disks are left behind is told where it is left.
        Ok(()) | Err(Turn::TooManyDisks) => {
            tell(Recourse::Move, moves.err().unwrap_or(Turn::Taken));
            let (why, destroy_why) = (Why::PatienceOver, DestroyWhy::Moved);
            leave(ground, held, why, destroy_why, count, step)
        }
        Err(turn) => {
            tell(Recourse::Move, turn);
            Situation::Outbid { until }
        }
    }
}

/// A park that was cut short is taken back at once: it was nobody else who outbid it.
fn cut_short(ground: &mut Ground<'_, '_>, held: &Held) -> Option<Action> {
    let world = ground.world;
    let may = spendable(ground) && may_wake(world, held);
    let is_bid = held.rental == Rental::Bid && may && !busy(world, held);
    let by_us = held.price <= BID_PARKED && resume_bid(held).is_some();
    (is_bid && by_us && row(world, held).is_some())
        .then(|| resume(ground, held).ok().flatten())
        .flatten()
}

/// The bid of one raise and the on-demand rate that it stays under, where the market shows what it takes
/// and it stays under every bound.
fn raise(ground: &Ground<'_, '_>, held: &Held) -> Result<(Rate, Option<Rate>), Turn> {
    let world = ground.world;
    if held.rental != Rental::Bid || is_replaced(held) {
        return Err(Turn::NotAllowed);
    }
    if ground.in_time && finds_sure(ground, held) {
        return Err(Turn::NoTime);
    }
    let takes_until = held.raised_at.map(|at| at + RAISE_TAKES);
    if let Some(until) = takes_until.filter(|&until| until > world.now) {
        return Err(Turn::Until { until });
    }
    if held.raises > 0 {
        return Err(Turn::Over);
    }
    if busy(world, held) {
        // Of two changes of one bid the one that arrives last would hold.
        return Err(Turn::Next);
    }
    if !may_wake(world, held) {
        // Its label is renewed first.
        return Err(Turn::Next);
    }
    if !spendable(ground) {
        let missing = ground.blind.unwrap_or(Missing::Account);
        return Err(Turn::Blind { missing });
    }
    let slot = row(world, held).ok_or(Turn::NotOffered)?;
    let bid = raised(world, ground.risks, ground.job, held, slot);
    let bid = bid.map_err(|why| Turn::Refused { why })?;
    if bid <= held.price {
        return Err(Turn::Over);
    }
    Ok((bid, slot.on_demand))
}

/// The machine of an instance that was outbid, on-demand: where the policy takes on-demand, it is offered,
/// ceiling and limits allow it, and no other machine costs less with all that it takes to go there.
pub(super) fn reclaim(
    ground: &Ground<'_, '_>,
    held: &Held,
    count: usize,
) -> Result<Candidate, Turn> {
    let (world, job) = (ground.world, ground.job);
    let is_taken = held.rental == Rental::Bid && job.rental != RentalChoice::Interruptible;
    let may_rent = world.config.keeps_back(&job.run).is_none() && !world.wind_down;
    // What waits behind its gate has nothing on its machine that would be taken back.
    if !is_taken || !may_rent || is_replaced(held) || holds_nothing(world, held) {
        return Err(Turn::NotAllowed);
    }
    if cannot_start(world, job).is_some() {
        return Err(Turn::CannotStart);
    }
    if is_stuck(ground, held) {
        return Err(Turn::NotCopied);
    }
    if ground.stance == Stance::Wait {
        return Err(Turn::HasTime);
    }
    if held.outbid_at.is_none() || !is_seen(world, held) {
        return Err(Turn::NotOutbid);
    }
    if let Some(missing) = ground.blind {
        return Err(Turn::Blind { missing });
    }
    let found = on_demand_there(ground, held)?;
    let scope = Scope::new(world, job);
    let own = with_its_copy(ground, &scope, &found);
    if costs_less_elsewhere(ground, &scope, held, own) {
        return Err(Turn::Dearer);
    }
    if count > PARKED_MAX && !expendable(world, job, held) {
        return Err(Turn::TooManyDisks);
    }
    let from = copied_from(job, &ground.held);
    let asked = cost(world, job, &found, from);
    let load = Load {
        rate: asked.rate,
        instances: 1,
        gpus: found.slot.gpus,
    };
    ground
        .purse
        .affords(job, asked.reserve, asked.margin, load)
        .map_err(|limit| Turn::Limited { limit })?;
    Ok(found)
}

/// Whether a useful GPU-hour costs more at a raised bid than on another machine.
fn is_dearer(ground: &Ground<'_, '_>, held: &Held, bid: Rate) -> bool {
    let scope = Scope::new(ground.world, ground.job);
    let at_bid = |offer| rank::at_bid(&scope, ground.risks, offer, bid, held.storage);
    let here = row(ground.world, held).and_then(at_bid);
    here.is_some_and(|here| costs_less_elsewhere(ground, &scope, held, here))
}

/// Whether a useful GPU-hour costs less on another machine than so many dollars, with the checkpoint that is
/// brought there.
fn costs_less_elsewhere(
    ground: &Ground<'_, '_>,
    scope: &Scope<'_>,
    held: &Held,
    here: f64,
) -> bool {
    let mut elsewhere = ground
        .best
        .iter()
        .filter(|other| other.slot.machine != held.slot.machine);
    elsewhere.any(|other| here > with_its_copy(ground, scope, other))
}

/// The cheapest offer on-demand of the machine of an instance, as if that were parked.
fn on_demand_there(ground: &Ground<'_, '_>, held: &Held) -> Result<Candidate, Turn> {
    let (world, job) = (ground.world, ground.job);
    let mut best: Option<Candidate> = None;
    let mut against: Option<Refusal> = None;
    for offer in rows_of(world, held.slot.machine) {
        match rank::on_demand(world, job, offer, held.id) {
            Ok(new) => {
                let total = |candidate: &Candidate| candidate.parts.total();
                if best.as_ref().is_none_or(|old| total(&new) < total(old)) {
                    best = Some(new);
                }
            }
            Err(why) => against = against.max(Some(why)),
        }
    }
    best.ok_or_else(|| against.map_or(Turn::NotOffered, |why| Turn::Refused { why }))
}

/// What a useful GPU-hour costs on a slot, with the checkpoint that is brought there for the stay. Boot, the
/// work that interruptions take and the job's own traffic are in the landed price.
fn with_its_copy(ground: &Ground<'_, '_>, scope: &Scope<'_>, candidate: &Candidate) -> f64 {
    let total = candidate.parts.total();
    let from = copied_from(ground.job, &ground.held);
    let Some((from, offer)) = from.zip(offered(ground.world, candidate)) else {
        return total;
    };
    let rate = candidate.price.saturating_add(candidate.storage);
    total + begins_with(ground.job, from, offer, rate) / stay_gpu_hours(scope, offer)
}

/// Whether a standing bid is all that its work can go on by: it is on its disk alone, nothing is copied
/// from there any more, and the policy does not let it begin anew.
fn is_stuck(ground: &Ground<'_, '_>, held: &Held) -> bool {
    let from = latest(ground.job, &ground.held);
    let fails = from.is_some_and(|from| from.copies_failed >= COPIES_MAX);
    fails && !ground.job.restartable && !expendable(ground.world, ground.job, held)
}

/// Whether there is another slot, and the disk may be left.
fn moves(ground: &Ground<'_, '_>, held: &Held, count: usize) -> Result<(), Turn> {
    if cannot_start(ground.world, ground.job).is_some() {
        return Err(Turn::CannotStart);
    }
    if let Some(missing) = ground.blind {
        return Err(Turn::Blind { missing });
    }
    if ground.best.is_empty() {
        return Err(Turn::NotOffered);
    }
    if expendable(ground.world, ground.job, held) {
        return Ok(());
    }
    if is_stuck(ground, held) {
        return Err(Turn::NotCopied);
    }
    if count > PARKED_MAX {
        return Err(Turn::TooManyDisks);
    }
    // With its bid standing it may yet run again, parked it would wait for money that is not there.
    can_move(ground, held).map_err(|limit| Turn::Limited { limit })
}

#[cfg(test)]
#[path = "outbid_tests.rs"]
mod tests;
