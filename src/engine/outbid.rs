//! What is done about an instance that is outbid, in this order: it is waited for, its bid is raised
//! once, its machine is taken back on-demand, and only then another machine is taken.

use std::time::Duration;

use crate::types::deadline::Stance;
use crate::types::instance::{DestroyWhy, Held, Rental, RunnerView};
use crate::types::job::RentalChoice;
use crate::types::money::{BID_PARKED, Rate};
use crate::types::plan::{Action, Candidate, Missing, Refusal, Situation, Why};
use crate::types::recourse::{Recourse, Turn};
use crate::types::time::Time;

use super::act::{busy, expendable, given_up, is_seen, lower, park, resume_bid, row, set_bid};
use super::back::{resume, spend, spendable};
use super::bid::raised_bid;
use super::bring::{COPIES_MAX, begins_with, copied_from, holds_nothing, latest};
use super::budget::{Load, offered, rows_of};
use super::eligible::Scope;
use super::ladder::cannot_start;
use super::lease::may_wake;
use super::means::{can_move, cost};
use super::price::stay_gpu_hours;
use super::rank;
use super::replica::{Ground, PARKED_MAX, Step, due, finds_sure, leave};

/// So long a raised bid may take to win the slot back before the next step is taken.
pub(super) const RAISE_TAKES: Duration = Duration::from_mins(5);

/// Whether a bid was raised so lately that it may yet win its slot back.
pub(super) fn takes_effect(held: &Held, now: Time) -> bool {
    held.raised_at.is_some_and(|at| now < at + RAISE_TAKES)
}

/// Whether its machine or its runner is no good, although it has work.
fn is_replaced(held: &Held) -> bool {
    held.runner.as_ref().is_some_and(RunnerView::is_replaced)
}

/// It is stopped and could run again by itself: outbid, or stopped by somebody else.
pub(super) fn stopped(
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
    let until = held.phase_since + ground.job.patience;
    if let Some((why @ (Why::RentalEnding | Why::OverCeiling), destroy_why)) = due(ground, held) {
        return leave(ground, held, why, destroy_why, count, step);
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
    let until = held.phase_since + ground.job.patience;
    let has_time = !(ground.in_time && finds_sure(ground, held));
    let is_waited_for = has_time && (!given_up(held) || world.now < until);
    let raise = raise(ground, held);
    let reclaim = reclaim(ground, held, count);
    let moves = moves(ground, held, count);
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
    let bid = raised_bid(world, ground.job, held, slot).map_err(|why| Turn::Refused { why })?;
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
    let may_rent = world.config.keeps_back(&job.run).is_none()
        && cannot_start(world, job).is_none()
        && !world.wind_down;
    // What waits behind its gate has nothing on its machine that would be taken back.
    if !is_taken || !may_rent || is_replaced(held) || holds_nothing(world, held) {
        return Err(Turn::NotAllowed);
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
    let elsewhere = ground
        .best
        .iter()
        .filter(|other| other.slot.machine != held.slot.machine)
        .map(|other| with_its_copy(ground, &scope, other));
    let own = with_its_copy(ground, &scope, &found);
    if elsewhere.into_iter().any(|other| own > other) {
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
mod tests {
    use std::sync::Arc;

    use super::super::decide::decide;
    use super::super::eligible::samples::{NOW, held, job, offer, runner, usd, world};
    use super::super::properties::{act, list};
    use super::*;
    use crate::types::ids::InstanceId;
    use crate::types::instance::Phase;
    use crate::types::intent::Effect;
    use crate::types::job::{CheckpointPlace, Job};
    use crate::types::offer::Offer;
    use crate::types::world::World;

    /// A job whose work is on its disk, outbid on machine 9 so many minutes ago; it waits for an hour.
    fn outbid(rental: RentalChoice, minutes: u64, offers: Vec<Offer>) -> World {
        let job = Job {
            checkpoint_place: Some(CheckpointPlace::Disk),
            rental,
            ..job("a")
        };
        let mut made = held(5, &job, &offer(9), usd(0.2));
        made.phase = Phase::Stopped;
        made.phase_since = NOW - Duration::from_mins(minutes);
        made.bid_before_park = (minutes >= 60).then_some(Rate::ZERO);
        made.outbid_at = Some(made.phase_since);
        let mut world = world(offers);
        let mut record = world.state.replica(&made.replica);
        record.generation = made.generation;
        world.state.replicas.insert(record.id.clone(), record);
        // What was bid there is no rival's.
        let mut machine = world.state.machine(made.slot.machine);
        machine.highest_bid = Some((made.price, NOW));
        world.state.machines.insert(machine.id, machine);
        world.state.held.insert(made.id, made);
        world.jobs = vec![Arc::new(job)];
        list(&mut world, true);
        world
    }

    /// Machine 9, where somebody bids so much more.
    fn rival(floor: f64, on_demand: f64) -> Offer {
        Offer {
            floor: Some(usd(floor)),
            on_demand: Some(usd(on_demand)),
            ..offer(9)
        }
    }

    fn told(world: &World) -> Vec<Turn> {
        let (_, report) = decide(world);
        let all = report.jobs[0].replicas[0].recourses.clone();
        let steps: Vec<Recourse> = all.iter().map(|(step, _)| *step).collect();
        let order = [
            Recourse::Wait,
            Recourse::Raise,
            Recourse::Reclaim,
            Recourse::Move,
        ];
        assert_eq!(steps, order);
        all.into_iter().map(|(_, turn)| turn).collect()
    }

    fn effects(world: &World) -> Vec<Effect> {
        let (plan, _) = decide(world);
        plan.actions
            .into_iter()
            .map(|action| action.effect)
            .collect()
    }

    fn bid(dollars: f64) -> Effect {
        Effect::SetBid {
            instance: InstanceId(5),
            bid: usd(dollars),
        }
    }

    /// Acts on a plan, and lets some time pass in which what was raised stays outbid.
    fn next(world: &mut World, minutes: u64) {
        let (plan, _) = decide(world);
        act(world, &plan);
        world.now = world.now + Duration::from_mins(minutes);
        let held = world.state.held.get_mut(&InstanceId(5)).unwrap();
        if !held.parked {
            held.phase = Phase::Stopped;
            held.phase_since = NOW - Duration::from_hours(1);
            held.bid_before_park = Some(Rate::ZERO);
            held.raises = 1;
            held.raised_at = Some(NOW);
        }
        list(world, true);
    }

    #[test]
    fn it_is_waited_for_then_raised_then_reclaimed_and_only_then_moved() {
        let mut dear = offer(2);
        (dear.floor, dear.on_demand) = (Some(usd(0.6)), Some(usd(0.8)));
        let offers = || vec![dear.clone(), rival(0.25, 0.4)];
        let auto = RentalChoice::Auto;
        let mut world = outbid(auto, 30, offers());
        assert_eq!(effects(&world), [], "the patience comes first");
        let until = NOW + Duration::from_mins(30);
        let (waits, next_) = (Turn::Until { until }, Turn::Next);
        assert_eq!(
            told(&world),
            [waits, next_.clone(), next_.clone(), next_.clone()]
        );
        world = outbid(auto, 61, offers());
        assert_eq!(effects(&world), [bid(0.2625)]);
        assert_eq!(told(&world)[..2], [Turn::Over, Turn::Taken]);
        next(&mut world, 1);
        assert_eq!(effects(&world), [], "the raise takes a while");
        assert!(matches!(told(&world)[1], Turn::Until { .. }));
        world.now = NOW + Duration::from_mins(6);
        assert_eq!(told(&world), [Turn::Over, Turn::Over, Turn::Taken, next_]);
        assert_eq!(effects(&world), [bid(0.001)]);
        next(&mut world, 0);
        let (plan, _) = decide(&world);
        let [rent] = &plan.actions[..] else {
            panic!("{plan:?}")
        };
        let Effect::Rent {
            slot,
            rental,
            price,
            ..
        } = &rent.effect
        else {
            panic!("{rent:?}")
        };
        assert_eq!((slot.machine.0, *rental), (9, Rental::OnDemand));
        assert_eq!((*price, rent.why), (usd(0.4), Why::Reclaim));
    }

    #[test]
    fn nothing_is_parked_to_be_taken_back_while_nothing_is_rented() {
        let mut dear = offer(2);
        (dear.floor, dear.on_demand) = (Some(usd(0.6)), Some(usd(0.8)));
        let mut world = outbid(RentalChoice::Auto, 61, vec![dear, rival(0.25, 0.4)]);
        let held = world.state.held.get_mut(&InstanceId(5)).unwrap();
        (held.raises, held.raised_at) = (1, Some(NOW - Duration::from_hours(1)));
        assert_eq!(told(&world)[2], Turn::Taken);
        assert_eq!(effects(&world), [bid(0.001)]);
        world.wind_down = true;
        assert_eq!(told(&world)[2], Turn::NotAllowed);
    }

    #[test]
    fn what_is_not_to_be_had_on_the_same_machine_is_moved_and_it_is_said_why() {
        let why = |rental, offers| {
            let world = outbid(rental, 61, offers);
            let turns = told(&world);
            assert_eq!(turns[3], Turn::Taken);
            assert_eq!(effects(&world), [bid(0.001)]);
            turns[1..3].to_vec()
        };
        let refused = |why| Turn::Refused { why };
        let auto = RentalChoice::Auto;
        let gone = Turn::NotOffered;
        assert_eq!(why(auto, vec![offer(2)]), [gone.clone(), gone]);
        // The offer that it was made of is not to be had twice.
        let mut once = rival(0.25, 0.4);
        once.rented = Some(true);
        let world = outbid(auto, 61, vec![offer(2), once]);
        assert_eq!(told(&world)[2], refused(Refusal::NotRentable));
        let over = refused(Refusal::OverCeiling);
        let dear = vec![offer(2), rival(1.5, 2.0)];
        assert_eq!(why(auto, dear), [over.clone(), over]);
        let own = refused(Refusal::RatchetGuard);
        let bids_only = vec![offer(2), rival(0.2, 0.4)];
        let turns = why(RentalChoice::Interruptible, bids_only);
        assert_eq!(turns, [own, Turn::NotAllowed]);
    }

    #[test]
    fn limits_hold_for_the_machine_taken_back_too() {
        let mut dear = offer(2);
        (dear.floor, dear.on_demand) = (Some(usd(0.6)), Some(usd(0.8)));
        let mut world = outbid(RentalChoice::Auto, 61, vec![dear, rival(0.2, 0.4)]);
        let mut limited = (*world.jobs[0]).clone();
        limited.budget.per_hour = Some(usd(0.35));
        world.jobs = vec![Arc::new(limited)];
        let turns = told(&world);
        assert!(matches!(turns[2], Turn::Limited { .. }), "{turns:?}");
        assert!(matches!(turns[3], Turn::Limited { .. }), "{turns:?}");
        assert_eq!(effects(&world), [], "its bid stands");
        // What parking it gives back is there for the next one, and no more.
        let (_, report) = decide(&world);
        let rates = report.jobs[0]
            .best
            .iter()
            .map(|best| best.price + best.storage);
        let disk = world.state.held[&InstanceId(5)].storage + BID_PARKED;
        let least = rates.min().unwrap() + disk;
        let mut is_limited = |bound: Rate| {
            let mut limited = (*world.jobs[0]).clone();
            limited.budget.per_hour = Some(bound);
            world.jobs = vec![Arc::new(limited)];
            matches!(told(&world)[3], Turn::Limited { .. })
        };
        assert!(is_limited(Rate(least.0 - 1)));
        assert!(!is_limited(least));
    }

    #[test]
    fn what_loses_nothing_by_a_move_goes_where_it_is_cheaper() {
        let mut world = outbid(RentalChoice::Auto, 61, vec![offer(2), rival(0.2, 0.4)]);
        let mut remote = (*world.jobs[0]).clone();
        remote.checkpoint_place = Some(CheckpointPlace::Remote);
        world.jobs = vec![Arc::new(remote)];
        assert_eq!(told(&world)[2], Turn::Dearer);
        let destroys = |effects: Vec<Effect>| matches!(effects[..], [Effect::Destroy { .. }]);
        assert!(destroys(effects(&world)));
        // Where the machine itself is the cheapest, it stays.
        let mut dear = offer(2);
        (dear.floor, dear.on_demand) = (Some(usd(0.8)), Some(usd(0.9)));
        let offers = vec![dear, rival(0.2, 0.4)];
        Arc::make_mut(&mut world.market).offers = offers;
        assert_eq!(told(&world)[2], Turn::Taken);
        assert_eq!(effects(&world), [bid(0.001)]);
        next(&mut world, 0);
        let planned = effects(&world);
        assert!(
            matches!(&planned[..], [Effect::Rent { slot, .. }] if slot.machine.0 == 9),
            "{planned:?}"
        );
    }

    #[test]
    fn what_the_machine_brings_nothing_for_goes_where_it_is_cheaper() {
        // Its disk is kept, but nothing of it comes to another slice of the machine either.
        let world = outbid(RentalChoice::Auto, 61, vec![offer(2), rival(0.2, 0.4)]);
        assert_eq!(told(&world)[2..], [Turn::Dearer, Turn::Taken]);
        assert_eq!(effects(&world), [bid(0.001)]);
    }

    /// The same with a runner that keeps a checkpoint of so many GB on its disk; what there is elsewhere
    /// costs a little less an hour.
    fn with_checkpoint(gb: u64) -> World {
        let mut near = offer(2);
        (near.floor, near.on_demand) = (Some(usd(0.5)), Some(usd(0.39)));
        let mut world = outbid(RentalChoice::Auto, 61, vec![near, rival(0.2, 0.4)]);
        let mut job = (*world.jobs[0]).clone();
        let mut spec = runner("true");
        spec.checkpoint = Some("/work/checkpoint".to_owned());
        spec.carried = true;
        let mut view = crate::types::instance::RunnerView::of(&spec);
        view.worked = true;
        view.checkpoint = Some((0, "a".repeat(64), gb * 1_000_000_000));
        job.run.runner = Some(Box::new(spec));
        let held = world.state.held.get_mut(&InstanceId(5)).unwrap();
        held.runner = Some(view);
        held.tail = Some(crate::types::ids::Tail {
            generation: held.generation,
            permit: crate::types::ids::Permit::Go,
            until: NOW + Duration::from_hours(2),
        });
        world.jobs = vec![Arc::new(job)];
        world
    }

    #[test]
    fn a_copy_counts_as_what_it_costs_over_the_stay() {
        // A cent an hour over six hours is more than a small copy, and less than 40 GB at $0.006.
        assert_eq!(told(&with_checkpoint(1))[2], Turn::Dearer);
        assert_eq!(told(&with_checkpoint(40))[2], Turn::Taken);
    }

    #[test]
    fn what_nobody_outbid_is_not_taken_back() {
        let mut dear = offer(2);
        (dear.floor, dear.on_demand) = (Some(usd(0.6)), Some(usd(0.8)));
        let mut world = outbid(RentalChoice::Auto, 61, vec![dear, rival(0.25, 0.4)]);
        let held = world.state.held.get_mut(&InstanceId(5)).unwrap();
        held.outbid_at = None;
        assert_eq!(told(&world)[2], Turn::NotOutbid);
        // Parked by us, and not to be had at its old bid any more.
        let held = world.state.held.get_mut(&InstanceId(5)).unwrap();
        (held.stop_asked, held.parked, held.price) = (true, true, BID_PARKED);
        list(&mut world, true);
        let rented = |world: &World| match &effects(world)[..] {
            [Effect::Rent { slot, .. }] => slot.machine.0,
            other => panic!("{other:?}"),
        };
        let (plan, _) = decide(&world);
        assert!(plan.actions.iter().all(|action| action.why != Why::Reclaim));
        assert_ne!(plan.actions.len(), 0);
        let held = world.state.held.get_mut(&InstanceId(5)).unwrap();
        held.outbid_at = Some(NOW);
        assert_eq!(rented(&world), 9);
        assert_eq!(decide(&world).0.actions[0].why, Why::Reclaim);
        // What no listing shows is not acted on.
        world.listing.as_mut().unwrap().rows.clear();
        assert!(
            decide(&world)
                .0
                .actions
                .iter()
                .all(|a| a.why != Why::Reclaim)
        );
    }
}
