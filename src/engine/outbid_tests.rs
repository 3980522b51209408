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
    assert!(!all.is_empty(), "{:?}", report.jobs[0].replicas);
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

/// The same without anything on its disk that would be lost, its bid at $0.20 and elsewhere so much more.
fn light(minutes: u64, elsewhere: f64, rival_: Offer) -> World {
    let mut near = offer(2);
    (near.floor, near.on_demand) = (Some(usd(elsewhere)), Some(usd(0.9)));
    let mut world = outbid(RentalChoice::Auto, minutes, vec![near, rival_]);
    let mut remote = (*world.jobs[0]).clone();
    remote.checkpoint_place = Some(CheckpointPlace::Remote);
    world.jobs = vec![Arc::new(remote)];
    world
}

#[test]
fn nothing_is_waited_for_that_is_to_be_had_elsewhere_at_no_more() {
    let destroys = |world: &World| matches!(effects(world)[..], [Effect::Destroy { .. }]);
    let cheap = light(1, 0.15, rival(0.25, 0.8));
    assert_eq!(told(&cheap)[0], Turn::Over);
    assert_eq!(told(&cheap)[1..], [Turn::Dearer, Turn::Dearer, Turn::Taken]);
    assert!(destroys(&cheap));
    let dear = light(1, 0.24, rival(0.25, 0.8));
    assert!(matches!(told(&dear)[0], Turn::Until { .. }));
    assert_eq!(effects(&dear), []);
    // What its disk carries would have to be brought along.
    let mut heavy = light(1, 0.15, rival(0.25, 0.8));
    let mut on_disk = (*heavy.jobs[0]).clone();
    on_disk.checkpoint_place = Some(CheckpointPlace::Disk);
    heavy.jobs = vec![Arc::new(on_disk)];
    assert_eq!(effects(&heavy), []);
    // Nobody says that it was outbid.
    let mut stopped = light(1, 0.15, rival(0.25, 0.8));
    let held = stopped.state.held.get_mut(&InstanceId(5)).unwrap();
    held.outbid_at = None;
    assert_eq!(effects(&stopped), []);
    // What it said last is read first: its command may have ended.
    let mut unheard = light(1, 0.15, rival(0.25, 0.8));
    let mut view = crate::types::instance::RunnerView::of(&runner("true"));
    view.worked = true;
    let held = unheard.state.held.get_mut(&InstanceId(5)).unwrap();
    held.runner = Some(view);
    held.tail = Some(crate::types::ids::Tail {
        generation: held.generation,
        permit: crate::types::ids::Permit::Go,
        until: NOW + Duration::from_hours(2),
    });
    assert_eq!(effects(&unheard), []);
    let held = unheard.state.held.get_mut(&InstanceId(5)).unwrap();
    held.runner.as_mut().unwrap().read_at = Some(NOW);
    assert!(destroys(&unheard));
}

fn goes(world: &World) -> usize {
    let effects = effects(world);
    let gone = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Destroy { .. }));
    gone.count()
}

#[test]
fn nothing_leaves_for_what_it_may_not_rent_or_would_do_again() {
    let world = light(1, 0.15, rival(0.25, 0.8));
    assert_eq!(goes(&world), 1);
    // Its policy lets the disk be lost, and hours of work with it: they would be paid for once more.
    let mut carried = world.clone();
    let mut job = (*carried.jobs[0]).clone();
    (job.checkpoint_place, job.disposable) = (Some(CheckpointPlace::Disk), true);
    carried.jobs = vec![Arc::new(job)];
    assert_eq!(goes(&carried), 1, "it has done nothing yet");
    let id = carried.state.held[&InstanceId(5)].replica.clone();
    let mut record = carried.state.replica(&id);
    record.durable_gpu_ms = 3_600_000;
    carried.state.replicas.insert(id.clone(), record);
    assert_eq!(goes(&carried), 0);
    // It has to wait before it begins anew.
    let mut waits = world.clone();
    let mut record = waits.state.replica(&id);
    record.retry_at = Some(NOW + Duration::from_mins(9));
    waits.state.replicas.insert(id, record);
    assert_eq!(goes(&waits), 0);
}

#[test]
fn of_those_that_are_outbid_together_one_leaves_for_what_is_cheap() {
    let mut world = light(1, 0.15, rival(0.25, 0.8));
    let mut job = (*world.jobs[0]).clone();
    job.replicas = 3;
    for id in 6..=7 {
        let mut other = world.state.held[&InstanceId(5)].clone();
        other.id = InstanceId(id);
        other.intent = crate::types::ids::IntentId(id);
        other.replica.index = u32::try_from(id).unwrap() - 5;
        other.slot.machine = crate::types::ids::MachineId(100 + id);
        let mut record = world.state.replica(&other.replica);
        record.generation = other.generation;
        world.state.replicas.insert(record.id.clone(), record);
        world.state.held.insert(other.id, other);
    }
    world.jobs = vec![Arc::new(job)];
    list(&mut world, true);
    assert_eq!(goes(&world), 1);
    // And no other one before that has found its place.
    let left = world.state.held.get_mut(&InstanceId(5)).unwrap();
    left.destroying = Some(DestroyWhy::Moved);
    left.destroy_sent_at = Some(NOW);
    assert_eq!(goes(&world), 0);
}

#[test]
fn what_was_heard_to_fail_after_it_was_outbid_is_not_won_back_before_its_time() {
    let mut world = light(61, 0.3, rival(0.25, 0.8));
    assert_eq!(effects(&world), [bid(0.2625)]);
    let mut view = RunnerView::of(&runner("true"));
    view.verdict = Some(crate::types::instance::Verdict::Ended);
    view.exit = Some(1);
    let held = world.state.held.get_mut(&InstanceId(5)).unwrap();
    held.runner = Some(view);
    let id = held.replica.clone();
    let mut record = world.state.replica(&id);
    record.retry_at = Some(NOW + Duration::from_mins(60));
    world.state.replicas.insert(id, record);
    assert_eq!(goes(&world), 1);
}

#[test]
fn a_raise_is_not_paid_for_where_another_machine_costs_less() {
    let raised = |elsewhere| {
        let world = light(61, elsewhere, rival(0.25, 0.8));
        effects(&world)
    };
    assert_eq!(raised(0.3), [bid(0.2625)]);
    assert!(matches!(raised(0.23)[..], [Effect::Destroy { .. }]));
}
