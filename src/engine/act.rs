//! The actions on an instance, and what is under way on it.

use std::time::Duration;

use crate::types::instance::{DestroyWhy, Held, Instance, Phase, Rental, Verdict};
use crate::types::intent::Effect;
use crate::types::job::Job;
use crate::types::money::{BID_PARKED, BID_STEP, Money, Rate};
use crate::types::offer::Offer;
use crate::types::plan::{Action, Limit, Notice, Why};
use crate::types::state::Severity;
use crate::types::time::{Time, millis};
use crate::types::world::World;

use super::bid::lowered_bid;
use super::bring::holds_nothing;
use super::budget::{Saving, rows_of};
use super::price::{ceiling_room, over_ceiling};
use super::transition::UNSEEN_WORK_AFTER;

/// A destroy that shows no effect is sent again after this. It leaves the proof of absence, which
/// begins anew with each request, the time that it needs.
const DESTROY_AGAIN_AFTER: Duration = Duration::from_mins(3);

pub(crate) fn plain(held: &Held, effect: Effect, why: Why) -> Action {
    Action {
        replica: Some(held.replica.clone()),
        effect,
        why,
        reserve: Money::ZERO,
        parts: None,
        on_demand_seen: None,
    }
}

pub(crate) fn set_bid(held: &Held, bid: Rate) -> Effect {
    Effect::SetBid {
        instance: held.id,
        bid,
    }
}

/// Destroys an instance.
pub(crate) fn destroy(held: &Held, why: DestroyWhy, word: Why) -> Action {
    let instance = held.id;
    plain(held, Effect::Destroy { instance, why }, word)
}

/// Sends a destroy again that shows no effect: the instance is still listed.
pub(crate) fn destroy_again(world: &World, held: &Held) -> Option<Action> {
    let why = held.destroying?;
    let overdue = |sent: Time| world.now.ms_since(sent) >= millis(DESTROY_AGAIN_AFTER);
    let listed = world.listing.as_ref().is_some_and(|listing| {
        listing.rows.iter().any(|row| row.id == held.id) || listing.unreadable.contains(&held.id)
    });
    let due = match held.destroy_sent_at {
        None => true,
        Some(sent) => overdue(sent) && listed,
    };
    due.then(|| destroy(held, why, Why::DestroyAgain))
}

/// The request that parks an instance; `None` where it is parked, or on its way.
pub(crate) fn park(world: &World, held: &Held, why: Why) -> Option<Action> {
    if held.parked || parking(world, held) {
        return None;
    }
    let effect = match held.rental {
        Rental::Bid if held.price > BID_PARKED || !held.stop_asked => set_bid(held, BID_PARKED),
        // What is left for another is asked to stop until that is read back: it may be stopped by
        // somebody else, and meant to run.
        Rental::OnDemand if held.phase != Phase::Stopped || !held.stop_asked || given_up(held) => {
            Effect::Stop { instance: held.id }
        }
        _ => return None,
    };
    let queued = held.rental == Rental::OnDemand && held.phase == Phase::Stopped;
    Some(plain(
        held,
        effect,
        if queued { Why::CancelQueued } else { why },
    ))
}

pub(crate) fn requests<'a>(world: &'a World, held: &'a Held) -> impl Iterator<Item = &'a Effect> {
    world
        .state
        .intents
        .values()
        .map(|intent| &intent.effect)
        .filter(move |effect| effect.instance() == Some(held.id))
}

/// Whether a request on it is not settled.
pub(crate) fn busy(world: &World, held: &Held) -> bool {
    // A change of its label is beside everything else.
    requests(world, held).any(|effect| !matches!(effect, Effect::Relabel { .. }))
}

/// Whether a request that parks it is not settled.
pub(crate) fn parking(world: &World, held: &Held) -> bool {
    requests(world, held).any(|effect| match effect {
        Effect::SetBid { bid, .. } => *bid <= BID_PARKED,
        Effect::Stop { .. } => true,
        _ => false,
    })
}

/// Whether it cannot run by itself, and nothing under way makes it run.
pub(crate) fn at_rest(world: &World, held: &Held) -> bool {
    held.parked && !busy(world, held)
}

/// Whether it was waited for long enough: there is no price to bring it back to.
pub(crate) fn given_up(held: &Held) -> bool {
    held.bid_before_park.is_some_and(|bid| bid <= BID_PARKED)
}

/// How long a disk is kept that holds what should be in storage: the machine's word for that is no
/// reason to pay for ever.
pub(crate) const UNSAVED_KEPT: Duration = Duration::from_hours(24);

/// Whether its disk may be lost: the policy says so, the work is elsewhere, or it never ran.
pub(crate) fn expendable(world: &World, job: &Job, held: &Held) -> bool {
    let by_policy = job.may_lose_disks() && (job.disposable || !has_unsaved(world, held));
    by_policy || never_ran(world, held) || never_worked(held) || holds_nothing(world, held)
}

/// How long at most the last words of one that stands still are waited for: whether its log can be read
/// then is not promised.
const LAST_WORDS_TAKE: Duration = Duration::from_mins(3);

/// Whether what its runner said last was read since it stands still, or is not waited for any more. Its
/// command may have ended: to wake it, or to begin elsewhere, would be to pay for that once more.
pub(super) fn heard_out(world: &World, held: &Held) -> bool {
    let Some(view) = held.runner.as_ref().filter(|view| view.worked) else {
        return true;
    };
    let read = view.read_at.is_some_and(|at| at >= held.phase_since);
    read || world.now.ms_since(held.phase_since) >= millis(LAST_WORDS_TAKE)
}

/// The price at which a parked instance may be brought back; `None` where it was given up.
pub(super) fn resume_bid(held: &Held) -> Option<Rate> {
    match held.rental {
        Rental::Bid => held.bid_before_park.filter(|&bid| bid > BID_PARKED),
        Rental::OnDemand => (!given_up(held)).then_some(held.price),
    }
}

/// Whether what is left for this has nothing at work.
pub(super) fn does_nothing(why: Why) -> bool {
    matches!(
        why,
        Why::Refused | Why::Broken | Why::Silent | Why::NotBrought
    )
}

/// Whether what its command made was to be kept in storage.
pub(crate) fn is_stored(held: &Held) -> bool {
    let given = held.runner.as_ref().and_then(|view| view.given.as_ref());
    given.is_some_and(|runner| runner.storage.is_some())
}

/// Whether its disk alone holds what should be in storage, as its runner says: for a day from when it
/// said so first.
fn has_unsaved(world: &World, held: &Held) -> bool {
    let Some(view) = held.runner.as_ref().filter(|_| is_stored(held)) else {
        return false;
    };
    let young = |since: Time| world.now.ms_since(since) < millis(UNSAVED_KEPT);
    view.worked && view.unsaved_since().is_some_and(young)
}

/// Whether its runner was judged before it began the command: there is no work on its disk.
fn never_worked(held: &Held) -> bool {
    held.runner.as_ref().is_some_and(|view| {
        let unfit = matches!(view.verdict, Some(Verdict::Refused | Verdict::Silent));
        // What was brought to it may be there alone.
        let brought = held.bringing.as_ref().is_some_and(|b| b.verified.is_some());
        unfit && !view.worked && !brought
    })
}

/// Whether it is known not to have run. What is not seen now may have begun since it was seen last:
/// that it runs is told by its row alone, so a listing that is missing, leaves it out or does not say
/// what it does proves nothing, once there was time to do work.
pub(crate) fn never_ran(world: &World, held: &Held) -> bool {
    let young = world.now.ms_since(held.created_at) < millis(UNSEEN_WORK_AFTER);
    held.first_ran_at.is_none() && (young || is_seen(world, held))
}

/// Whether the listing has it, and says what it does.
pub(super) fn is_seen(world: &World, held: &Held) -> bool {
    let listing = world.listing.as_ref();
    let says = |row: &Instance| row.id == held.id && row.phase() != Phase::Unclear;
    listing.is_some_and(|listing| listing.rows.iter().any(says))
}

/// The market's row for the slot that an instance is on. Slices of the same size stand beside each
/// other on a machine, each with a floor of its own: the one with its GPUs, or the lowest of those
/// that might be.
pub(crate) fn row<'a>(world: &'a World, held: &Held) -> Option<&'a Offer> {
    rows_of(world, held.slot.machine)
        .iter()
        .filter(|offer| offer.slot() == held.slot)
        .min_by_key(|offer| (elsewhere(held, offer), offer.floor.is_none(), offer.floor))
}

/// Whether an offer is known to be of other GPUs of its machine than those of an instance.
pub(crate) fn elsewhere(held: &Held, offer: &Offer) -> bool {
    let known = |ids: &[u32], gpus: u32| gpus > 0 && ids.len() == gpus as usize;
    known(&held.gpu_ids, held.slot.gpus)
        && known(&offer.gpu_ids, offer.gpus)
        && !held.gpu_ids.iter().any(|id| offer.gpu_ids.contains(id))
}

/// The cut of a bid that is over what binds it. It is made in whatever phase the instance is: one
/// that is outbid or comes up would else run at a price that the policy no longer allows.
pub(crate) fn lower(world: &World, job: &Job, held: &Held) -> Option<Action> {
    let slot = row(world, held);
    let bid = lowered_bid(world, job, held, slot)
        .filter(|&bid| bid < held.price && !busy(world, held))?;
    Some(Action {
        on_demand_seen: slot.and_then(|offer| offer.on_demand),
        ..plain(held, set_bid(held, bid), Why::FloorFell)
    })
}

/// Whether an instance costs more than its ceiling, which was lowered, and no cut of its bid helps.
/// A hundredth over it is none: what is shown of a disk's price may differ a little from what its
/// offer said, and a rental that fits by its offer must not be left again and again.
pub(crate) fn overpriced(world: &World, job: &Job, held: &Held) -> bool {
    if held.parked || held.stop_asked || (held.rental == Rental::Bid && held.price <= BID_PARKED) {
        return false;
    }
    let room = ceiling_room(job, Rate::ZERO, held.slot.gpus);
    let slack = Rate(room.0 / 100).max(BID_STEP);
    let storage = Rate(held.storage.0.saturating_sub(slack.0));
    over_ceiling(job, held.price, storage, held.slot.gpus)
        && lowered_bid(world, job, held, row(world, held)).is_none()
}

/// What winds an instance down for a limit, and what is told of it. Where its disk may be lost it is
/// not parked but destroyed, which is cheaper.
pub(crate) fn wound_down(
    world: &World,
    held: &Held,
    saving: &Saving,
    expendable: bool,
) -> (Option<Action>, Notice) {
    let (limit, gone) = match saving {
        Saving::Park(limit) => (limit, expendable),
        Saving::Destroy(limit) => (limit, true),
    };
    let action = if gone {
        Some(destroy(held, DestroyWhy::Limit, Why::Limit))
    } else {
        park(world, held, Why::Limit)
    };
    (action, at_limit(held, limit, gone))
}

/// By which word of the user's a disk is let go, and what else that does: it is said of a whole job, and
/// so of every element of an array.
pub(crate) fn lets_go(job: &Job, word: &str, does: &str) -> String {
    let name = &job.name;
    match (&job.array, word) {
        (None, _) => format!("`haggle {word} {name}` {does}"),
        (Some(_), "stop") => format!(
            "`haggle stop {name}` {does}, but it stops every element of {name} and destroys all their disks"
        ),
        (Some(_), _) => format!(
            "`haggle {word} {name}` {does}, but it ends every element of {name}, those that run and those \
             that wait too, and destroys all their disks"
        ),
    }
}

fn at_limit(held: &Held, limit: &Limit, gone: bool) -> Notice {
    let what = if gone {
        "is destroyed"
    } else {
        "is parked, and will be destroyed when its disk alone would pass the limit"
    };
    Notice {
        severity: Severity::Warning,
        kind: format!("limit-{}", limit.as_str()),
        replica: Some(held.replica.clone()),
        text: format!(
            "the {limit} is reached: instance {} of {} {what}",
            held.id, held.replica
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::eligible::samples::{held, job, offer, usd, world};
    use super::super::properties::list;
    use super::*;
    use crate::types::instance::RawState;

    #[test]
    fn what_is_said_to_let_a_disk_go_says_what_else_it_ends() {
        let mut job = job("a");
        assert_eq!(
            lets_go(&job, "done", "destroys it"),
            "`haggle done a` destroys it"
        );
        job.array = Some(crate::types::job::Array {
            elements: Vec::new(),
            max_running: 1,
        });
        for word in ["done", "stop"] {
            let told = lets_go(&job, word, "destroys it");
            let parts = [
                &format!("`haggle {word} a` destroys it, but"),
                "every element of a",
                "all their disks",
            ];
            assert!(parts.iter().all(|part| told.contains(*part)), "{told}");
        }
    }

    #[test]
    fn a_row_that_does_not_say_what_it_does_is_no_proof_that_it_never_ran() {
        let job = job("a");
        let mut made = held(1, &job, &offer(9), usd(0.2));
        made.first_ran_at = None;
        let mut world = world(Vec::new());
        world.state.held.insert(made.id, made.clone());
        list(&mut world, true);
        let mut says = |actual, minutes| {
            world.now = made.created_at + Duration::from_mins(minutes);
            let rows = &mut world.listing.as_mut().unwrap().rows;
            rows[0].actual = actual;
            never_ran(&world, &made)
        };
        assert!(says(None, 30), "it comes up");
        assert!(says(Some(RawState::Other), 4), "there was no time to work");
        assert!(!says(Some(RawState::Other), 6));
        assert!(
            says(Some(RawState::Offline), 30),
            "it was seen all the time"
        );
    }
}
