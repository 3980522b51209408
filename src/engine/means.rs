//! Whether a move can be paid for: the slot elsewhere, and the copy of the checkpoint that goes there.

use crate::types::instance::{Held, Rental, RunnerView};
use crate::types::job::Job;
use crate::types::money::{BID_PARKED, Money, Rate};
use crate::types::plan::{Candidate, Limit, Notice, Situation};
use crate::types::state::Severity;
use crate::types::world::World;

use super::act::expendable;
use super::back::{resume_at, spendable};
use super::bring::{COPIES_MAX, copied_from, left_margin, source, traffic};
use super::budget::{Load, begin_margin, horizon, offered, rent_reserve};
use super::lease::may_wake;
use super::replica::{Ground, Step, due, want};

/// What renting a candidate takes: what is set aside, and what has to be left over besides.
pub(super) struct Cost {
    pub(super) reserve: Money,
    pub(super) margin: Money,
    /// What it costs by the hour.
    pub(super) rate: Rate,
}

/// What renting a candidate takes that begins with what is on a disk, where there is one: that comes over the
/// wire, too.
pub(super) fn cost(world: &World, job: &Job, candidate: &Candidate, from: Option<&Held>) -> Cost {
    let offer = offered(world, candidate);
    let copied = from.map_or(Money::ZERO, |from| {
        let down = offer.and_then(|offer| offer.inet_down_price);
        let (up, down) = traffic(job, from, (candidate.slot.machine, down));
        up.saturating_add(down)
    });
    let reserve = rent_reserve(world, job, offer, candidate.price, candidate.storage);
    let rate = candidate.price.saturating_add(candidate.storage);
    Cost {
        reserve: reserve.saturating_add(copied),
        margin: begin_margin(job, rate).saturating_add(left_margin(from)),
        rate,
    }
}

/// What parking an instance first gives back: its price ahead, by the hour, and its GPUs.
fn freed(world: &World, held: &Held) -> (Money, Rate, u32) {
    if held.parked {
        return (Money::ZERO, Rate::ZERO, 0);
    }
    let rate = Rate(held.price.0.saturating_sub(BID_PARKED.0)).max(Rate::ZERO);
    (rate.cost(horizon(world)), rate, held.slot.gpus)
}

/// Whether the limits leave room for a candidate in the place of an instance that is parked for it, and for
/// the copy from a disk to there.
fn affords(
    ground: &Ground<'_, '_>,
    candidate: &Candidate,
    instead: &Held,
    from: Option<&Held>,
) -> Result<(), Limit> {
    let (world, job): (&World, &Job) = (ground.world, ground.job);
    let asked = cost(world, job, candidate, from);
    let (back, less, gpus) = freed(world, instead);
    // What may be lost is destroyed for it, and leaves its place.
    let stays = !expendable(world, job, instead);
    let load = Load {
        rate: Rate(asked.rate.0.saturating_sub(less.0)),
        instances: u32::from(stays),
        gpus: candidate.slot.gpus.saturating_sub(gpus),
    };
    let reserve = asked.reserve.saturating_sub(back);
    ground.purse.affords(job, reserve, asked.margin, load)
}

/// What keeps an instance from every slot elsewhere, its copy included; the first limit.
pub(super) fn can_move(ground: &Ground<'_, '_>, held: &Held) -> Result<(), Limit> {
    let from = copied_from(ground.job, &ground.held);
    let mut limit = None;
    for candidate in ground.best {
        match affords(ground, candidate, held, from) {
            Ok(()) => return Ok(()),
            Err(passed) => limit = limit.or(Some(passed)),
        }
    }
    limit.map_or(Ok(()), Err)
}

/// The limit that what its copy costs is over, where nothing else keeps a replica, whose instance is parked,
/// from every slot.
fn only_copy(ground: &Ground<'_, '_>, held: &Held, from: &Held) -> Option<Limit> {
    let mut all = ground.best.iter();
    let has_one = all.any(|candidate| affords(ground, candidate, held, None).is_ok());
    has_one
        .then(|| can_move(ground, held).err())
        .flatten()
        .filter(|_| from.copies_failed < COPIES_MAX)
}

/// One that was given up and is parked, and that nothing but its copy's cost keeps from another slot: it may
/// begin anew elsewhere where its policy lets it, and else it comes back where it is.
pub(super) fn unpaid_copy(
    ground: &mut Ground<'_, '_>,
    held: &Held,
    step: &mut Step,
) -> Option<Situation> {
    let world = ground.world;
    let from = source(ground.job, &ground.held)?;
    let limit = only_copy(ground, held, from)?;
    step.notices.push(Notice {
        severity: Severity::Alarm,
        kind: "copy-unaffordable".to_owned(),
        replica: Some(held.replica.clone()),
        text: format!(
            "the {limit} has no room for the copy of the checkpoint on the disk of instance {}, so {} cannot \
             go elsewhere with it; {}",
            from.id,
            held.replica,
            if ground.job.restartable {
                "its work begins anew there, as its policy allows, and the disk is kept"
            } else {
                "it comes back where it is, if it can"
            }
        ),
    });
    if ground.job.restartable {
        let situation = want(ground, step);
        step.from = None;
        return Some(situation);
    }
    let unfit = held.runner.as_ref().is_some_and(RunnerView::is_replaced);
    let may = held.id == from.id && held.rental == Rental::Bid && !unfit;
    let may = may && due(ground, held).is_none() && may_wake(world, held) && spendable(ground);
    if let Some(bid) = held.last_bid.filter(|_| may)
        && let Ok(Some(action)) = resume_at(ground, held, bid)
    {
        step.actions.push(action);
        let until = world.now + ground.job.patience;
        return Some(Situation::Provisioning { until });
    }
    Some(Situation::OverLimit { limit })
}
