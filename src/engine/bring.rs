//! Moving without storage: the last checkpoint on a disk that was left is copied by the marketplace to
//! the instance that takes its place, before that may work.
//!
//! The old instance is parked, and that was read back. The new one is made behind its gate: its label
//! says `hold`. Once its runner waits there the copy is asked for, and again where nothing comes of it.
//! The runner judges what arrived: an archive with the sum that a manifest of the other run, signed with
//! that run's key, says. Then the label says `go` with the next generation. Until the gate was opened all
//! work is on the old disk, and the new instance has nothing to lose; from then on it is the other way
//! round. The old disk is kept for a while all the same: until the new run has kept a checkpoint that it
//! made itself.
//!
//! What is heard of a copy, and what follows where it does not come, is in `brought.rs`.

use std::time::Duration;

use crate::types::ids::{InstanceId, MachineId};
use crate::types::instance::{Bringing, Held, Phase, RawState};
use crate::types::intent::Effect;
use crate::types::job::{Job, Runner};
use crate::types::money::{Money, Rate};
use crate::types::offer::Offer;
use crate::types::plan::{Action, Situation, Why};
use crate::types::time::Time;
use crate::types::world::World;

use super::act::{UNSAVED_KEPT, at_rest, busy, plain, requests};
use super::back::spendable;
use super::budget::Load;
use super::price::{INET_DOWN_UNKNOWN_MBIT_S, MBIT_A_GB};
use super::replica::{Ground, Step};
use super::view::restore_patience;

/// A copy that was not accepted is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_mins(1);

/// An instance that comes to no copy in so long, because its runner does not wait for it or because it may
/// not be paid for, is given up: it is billed.
const UNASKED_MAX: Duration = Duration::from_mins(30);

/// So many copies from a disk may come to nothing in a row.
pub(crate) const COPIES_MAX: u32 = 3;

/// So many definite answers that nothing is copied suffice.
pub(super) const REFUSED_MAX: u32 = 3;

/// So many copies to one instance may have an outcome that nobody knows; each may have been made.
const UNKNOWN_MAX: u32 = 2;

/// So many copies to one instance are made, or may have been, at most: each is paid.
const ASKS_MAX: u32 = 3;

/// A disk that was left is kept for no longer than this once another one has what was on it: whatever is
/// heard or not, that is what it may cost.
pub(super) const LEFT_KEPT: Duration = UNSAVED_KEPT;

/// So many disks before the one that an instance goes on from are remembered: more are not left behind.
const ANCESTRY_MAX: usize = 8;

/// A disk's gigabyte, in bytes.
pub(super) const GB: u64 = 1_000_000_000;

/// The disk that a replica's next instance is to go on from, once it is left: the newest of those that have
/// a checkpoint which stays there, as their runs told. Where copies from one fail that has none of its own,
/// what was brought to it may still be on the disk that it came from.
pub(super) fn latest<'a>(job: &Job, held: &[&'a Held]) -> Option<&'a Held> {
    let runner = job.run.runner.as_deref().filter(|runner| runner.carried)?;
    let has_one = |one: &&&Held| one.destroying.is_none() && has_checkpoint(one, runner, held);
    let has_only_others = |one: &Held| {
        let bringing = one.bringing.as_ref();
        bringing.is_some_and(|bringing| !bringing.anew && bringing.kept_at.is_none())
    };
    let mut have = held.iter().filter(has_one);
    let newest = have.next().copied()?;
    if newest.copies_failed < COPIES_MAX || !has_only_others(newest) {
        return Some(newest);
    }
    let older = have.find(|one| one.copies_failed < COPIES_MAX || !has_only_others(one));
    older.copied().or(Some(newest))
}

/// The same, where it has not failed too often to be copied.
pub(super) fn copied_from<'a>(job: &Job, held: &[&'a Held]) -> Option<&'a Held> {
    latest(job, held).filter(|from| from.copies_failed < COPIES_MAX)
}

/// Whether the host of a parked instance is not heard from: nothing can be copied from its disk now.
pub(super) fn is_away(world: &World, held: &Held) -> bool {
    let listing = world.listing.as_ref();
    let row = listing.and_then(|listing| listing.rows.iter().find(|row| row.id == held.id));
    row.is_some_and(|row| {
        // A stopped instance that bills not even its disk is on such a host.
        let bills_nothing = row.burn == Some(Rate::ZERO) && held.storage > Rate::ZERO;
        row.actual == Some(RawState::Offline) || bills_nothing
    })
}

/// The same, where it can be copied from now.
pub(super) fn source<'a>(job: &Job, held: &[&'a Held]) -> Option<&'a Held> {
    latest(job, held).filter(|from| from.parked)
}

fn has_checkpoint(held: &Held, runner: &Runner, all: &[&Held]) -> bool {
    let Some(view) = &held.runner else {
        return false;
    };
    // What was brought to one that was not let work is still on the other disk, unless that is gone.
    let is_elsewhere = held.bringing.as_ref().is_some_and(|bringing| {
        let mut all = all.iter();
        let has_old = all.any(|old| old.id == bringing.from && old.destroying.is_none());
        !bringing.opened && (has_old || bringing.verified.is_none())
    });
    let given = view.given.as_deref();
    let same = given.is_some_and(|given| given.carried && given.checkpoint == runner.checkpoint);
    same && view.checkpoint.is_some() && !is_elsewhere
}

/// How long the archive on a disk is, as its machine told.
fn archive_bytes(from: &Held) -> u64 {
    let view = from.runner.as_ref();
    let kept = view.and_then(|view| view.checkpoint.as_ref());
    let told = kept.map_or(u64::MAX, |(_, _, bytes)| *bytes);
    told.min(disk_bytes(from))
}

/// What a copy from a disk moves at most: more is not on it, whatever its machine tells.
fn disk_bytes(from: &Held) -> u64 {
    u64::from(from.disk_gb).saturating_mul(GB)
}

/// What is known of a copy before an instance is made that begins with it.
pub(crate) fn bringing(from: &Held) -> Bringing {
    // Two archives: one may be half written.
    let bytes = archive_bytes(from).saturating_mul(2);
    Bringing {
        from: from.id,
        also: before(from),
        run: from.intent,
        bytes: bytes.saturating_add(GB / 100).min(disk_bytes(from)),
        ready_at: None,
        begun_at: None,
        asked_at: None,
        accepted: false,
        accepted_at: None,
        told: None,
        verified: None,
        as_told: false,
        own: None,
        asks_taken: 0,
        asks_unknown: 0,
        refused: 0,
        refused_why: None,
        again_at: None,
        agains: 0,
        anew: false,
        opened: false,
        opened_at: None,
        kept_at: None,
    }
}

/// The disks whose work is on that of an instance too, the last one first: those that it goes on from by what
/// was heard of them, or with a checkpoint of its own since.
fn before(from: &Held) -> Vec<InstanceId> {
    let bringing = from.bringing.as_ref();
    let is_own =
        |b: &&Bringing| b.opened && b.verified.is_some() && (b.as_told || b.kept_at.is_some());
    bringing.filter(is_own).map_or_else(Vec::new, |bringing| {
        let older = bringing.also.iter().copied();
        std::iter::once(bringing.from)
            .chain(older)
            .take(ANCESTRY_MAX)
            .collect()
    })
}

/// What the traffic of a copy may cost where it leaves and where it arrives: all of the disk that it leaves,
/// and nothing on one machine. At no known price it may cost anything.
pub(crate) fn traffic(
    job: &Job,
    from: &Held,
    (machine, down): (MachineId, Option<Money>),
) -> (Money, Money) {
    if from.slot.machine == machine {
        return (Money::ZERO, Money::ZERO);
    }
    let most = job.requirements.traffic_price_max;
    let up = from.traffic_prices.map(|(_, up)| up).or(most);
    let of = |price: Option<Money>| price.map_or(Money::MAX, |price| cost(price, disk_bytes(from)));
    (of(up), of(down.or(most)))
}

/// What so many bytes cost at a price for a GB, rounded up.
fn cost(price: Money, bytes: u64) -> Money {
    let whole = i128::from(price.0.max(0)) * i128::from(bytes);
    let nanos = (whole + i128::from(GB) - 1) / i128::from(GB);
    i64::try_from(nanos).map_or(Money::MAX, Money)
}

/// What has to be left over when an instance is rented that begins with what is on a disk: what is spent on the
/// copy must not be missed for that disk, or a limit takes the only one that has the work.
pub(super) fn left_margin(from: Option<&Held>) -> Money {
    from.map_or(Money::ZERO, |from| from.storage.cost(LEFT_KEPT))
}

/// What a copy to an instance may cost in traffic, where it leaves and where it arrives.
pub(crate) fn copy_traffic(job: &Job, from: &Held, to: &Held) -> (Money, Money) {
    let down = to.traffic_prices.map(|(down, _)| down);
    traffic(job, from, (to.slot.machine, down))
}

/// What is held for the copy to an instance that waits behind its gate, from when it was rented until the copy
/// is asked for: it would else be spent meanwhile. At no known price nothing is asked for, and none is held.
pub(crate) fn set_aside(world: &World, held: &Held) -> Money {
    let waits = held.bringing.as_ref().filter(|bringing| {
        let closed = !bringing.opened && !bringing.anew && bringing.verified.is_none();
        closed && bringing.accepted_at.is_none() && bringing.asks_unknown == 0
    });
    let stands = !held.parked && held.destroying.is_none() && !busy_copying(world, held);
    let from = waits.and_then(|bringing| world.state.held.get(&bringing.from));
    let ends = from.zip(world.known_job(&held.replica.job));
    let cost = ends.filter(|_| stands).map(|(from, job)| {
        let (up, down) = copy_traffic(job, from, held);
        up.saturating_add(down)
    });
    cost.filter(|&cost| cost < Money::MAX).unwrap_or_default()
}

/// Whether a copy to it is under way: its intent has its money.
fn busy_copying(world: &World, held: &Held) -> bool {
    requests(world, held).any(|effect| matches!(effect, Effect::Copy { .. }))
}

/// By whom what was set aside for a copy is spent, as long as no bill says otherwise: what it leaves, where
/// that is still there, and where it arrives.
pub(crate) fn shares(from: Option<&Held>, reserved: Money) -> (Money, Money) {
    let up = from.and_then(|from| {
        let (_, up) = from.traffic_prices?;
        Some(cost(up, disk_bytes(from)))
    });
    let up = up.unwrap_or_default().min(reserved);
    (up, reserved - up)
}

/// What it is likely to cost in all, in dollars, that a stay on an offer begins with a checkpoint from a
/// disk: the traffic, and the time in which it waits for it.
pub(super) fn begins_with(job: &Job, from: &Held, offer: &Offer, rate: Rate) -> f64 {
    if from.slot.machine == offer.machine {
        return 0.0;
    }
    let bytes = archive_bytes(from);
    let most = job.requirements.traffic_price_max;
    let up = from.traffic_prices.map(|(_, up)| up).or(most);
    let prices = [up, offer.inet_down_price.or(most)];
    let traffic =
        prices.map(|price| price.map_or(f64::INFINITY, |price| cost(price, bytes).as_dollars()));
    let speed = offer.inet_down_mbit_s.filter(|&speed| speed > 0.0);
    let speed = speed.map_or(INET_DOWN_UNKNOWN_MBIT_S, f64::from);
    let hours = bytes as f64 / GB as f64 * MBIT_A_GB / speed / 3600.0;
    traffic.iter().sum::<f64>() + hours * rate.as_dollars()
}

/// How long before its rental ends an instance has to be left that has a checkpoint to copy: the next one
/// comes up, tries its machine, and has all of it.
pub(super) fn leads_by(job: &Job, bytes: u64) -> Duration {
    let up = job.provision_timeout.saturating_add(job.boot_overhead);
    up.saturating_add(restore_patience(bytes))
}

/// The same of an instance; `None`: nothing was told of that stays for the next one.
pub(super) fn leads(job: &Job, held: &Held) -> Option<Duration> {
    told_bytes(held).map(|bytes| leads_by(job, bytes))
}

/// How much a copy of what stays on a disk moves at most, where its run told of something.
pub(super) fn told_bytes(held: &Held) -> Option<u64> {
    let view = held.runner.as_ref()?;
    let has_one = view.given.as_ref()?.carried && view.checkpoint.is_some();
    has_one.then(|| bringing(held).bytes)
}

/// How long a copy may take from when it was first asked for.
pub(super) fn patience(bringing: &Bringing) -> Duration {
    restore_patience(bringing.bytes)
}

/// Whether a copy has had its time at a moment.
fn is_over(bringing: &Bringing, at: Time) -> bool {
    bringing
        .begun_at
        .is_some_and(|begun| at >= begun + patience(bringing))
}

/// Whether an instance that waits behind its gate has waited for too long at a moment: the copy has had its
/// time, or was not come to.
pub(super) fn is_too_late(held: &Held, bringing: &Bringing, at: Time) -> bool {
    if bringing.refused >= REFUSED_MAX {
        return true;
    }
    let came = held.first_ran_at.unwrap_or(held.created_at);
    let came = bringing.again_at.unwrap_or(came);
    let waits_since = bringing.ready_at.unwrap_or(came).max(came);
    let unasked = bringing.begun_at.is_none() && at >= waits_since + UNASKED_MAX;
    unasked || is_over(bringing, at)
}

/// Whether all that an instance holds is on another disk: it waits behind its gate, and nothing on it has
/// worked. What was brought is its own only once the other one is gone.
pub(super) fn holds_nothing(world: &World, held: &Held) -> bool {
    held.bringing.as_ref().is_some_and(|bringing| {
        let old = world.state.held.get(&bringing.from);
        let has_old = old.is_some_and(|old| old.destroying.is_none());
        !bringing.opened && (bringing.verified.is_none() || has_old)
    })
}

/// Whether a disk that was left may go. The marketplace took the copy to a newer one up, its runner found
/// there what the run here told of last, and it was let work. Since then it has kept a checkpoint that it
/// made itself, or its command ended well, or the same is so of one that goes on from it in turn; or this
/// one was kept for long enough while that one worked, and is there. Where the newer one found another
/// checkpoint than was heard of, it has to have kept its own for as long.
pub(super) fn is_carried_on(now: Time, held: &Held, all: &[&Held]) -> bool {
    let newer = all
        .iter()
        .filter(|newer| newer.generation > held.generation);
    let mut from_here = newer.filter_map(|newer| {
        let bringing = newer.bringing.as_ref()?;
        let from_it = bringing.from == held.id || bringing.also.contains(&held.id);
        let carried = bringing.opened && bringing.verified.is_some();
        (from_it && carried).then_some((*newer, bringing))
    });
    from_here.any(|(newer, bringing)| {
        let for_long = |at: Time| now >= at + LEFT_KEPT;
        let stays = newer.destroying.is_none();
        if !bringing.as_told {
            return stays && is_there(newer) && bringing.kept_at.is_some_and(for_long);
        }
        let ended = newer.runner.as_ref().and_then(|view| view.exit) == Some(0);
        let long = bringing.opened_at.is_some_and(for_long) && has_worked_on(newer, bringing);
        let own = bringing.kept_at.is_some() || ended || long;
        (stays && own) || is_carried_on(now, newer, all)
    })
}

/// Whether the disk of an instance is known to be there: its host is heard from.
fn is_there(held: &Held) -> bool {
    held.parked || matches!(held.phase, Phase::Running | Phase::Stopped)
}

/// Whether an instance is there, and its command was heard of since its gate was opened.
fn has_worked_on(held: &Held, bringing: &Bringing) -> bool {
    let heard = held.runner.as_ref().is_some_and(|view| {
        let since = view.heard_at.zip(bringing.opened_at);
        view.worked && since.is_some_and(|(heard, opened)| heard > opened)
    });
    is_there(held) && heard
}

/// What an instance behind its gate needs; `None`: it has none, or it is open.
pub(super) fn bring(
    ground: &mut Ground<'_, '_>,
    held: &Held,
    step: &mut Step,
) -> Option<Situation> {
    let bringing = held.bringing.as_ref().filter(|bringing| !bringing.opened)?;
    let world = ground.world;
    let until = bringing.begun_at.map(|begun| begun + patience(bringing));
    let situation = Situation::Bringing {
        from: bringing.from,
        until,
    };
    if bringing.verified.is_some() || bringing.anew {
        // Its label comes to say `go`.
        return Some(situation);
    }
    let from = world.state.held.get(&bringing.from);
    let from = from.filter(|from| at_rest(world, from) && from.destroying.is_none());
    if let Some(from) = from.filter(|_| is_due(world, held, bringing) && spendable(ground)) {
        let (up, down) = copy_traffic(ground.job, from, held);
        let reserve = up.saturating_add(down);
        // What is held for it already is not taken twice.
        let more = reserve.saturating_sub(set_aside(world, held));
        let taken = ground
            .purse
            .take(ground.job, more, Money::ZERO, Load::default());
        match taken {
            Ok(()) => step.actions.push(Action {
                reserve,
                ..plain(held, copy(from.id, held), Why::Bring)
            }),
            Err(limit) => return Some(Situation::OverLimit { limit }),
        }
    }
    Some(situation)
}

fn copy(from: InstanceId, to: &Held) -> Effect {
    Effect::Copy {
        instance: to.id,
        from,
    }
}

/// Whether the copy is to be asked for now: its runner waits for it, and what was asked for before came to
/// nothing or has had half of its time.
fn is_due(world: &World, held: &Held, bringing: &Bringing) -> bool {
    if bringing.ready_at.is_none() || busy(world, held) || is_over(bringing, world.now) {
        return false;
    }
    // Its runner says that it came, and nobody else: one more answer is all that it takes.
    let said = bringing.told.is_some() && bringing.accepted_at.is_none();
    let unknown_max = UNKNOWN_MAX + u32::from(said);
    let asked = bringing.asks_taken.saturating_add(bringing.asks_unknown);
    if asked >= ASKS_MAX || bringing.asks_unknown >= unknown_max || bringing.refused >= REFUSED_MAX
    {
        return false;
    }
    let under_way = bringing.accepted || bringing.asks_unknown > 0;
    let after = if under_way && !said {
        patience(bringing) / 2
    } else {
        ASK_AGAIN
    };
    bringing
        .asked_at
        .is_none_or(|asked| world.now >= asked + after)
}

#[cfg(test)]
#[path = "bring_fails_tests.rs"]
mod fails;
#[cfg(test)]
#[path = "bring_properties.rs"]
mod properties;
#[cfg(test)]
#[path = "bring_samples.rs"]
mod samples;
#[cfg(test)]
#[path = "bring_tests.rs"]
mod tests;
