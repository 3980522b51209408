//! Moving without storage, played.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::check::check;
use super::super::decide::decide;
use super::super::eligible::samples::{NOW, held, job, offer, runner, usd, world};
use super::super::properties::{act, list};
use super::*;
use crate::types::ids::{Permit, Tail};
use crate::types::instance::{DestroyWhy, Phase, RunnerView, Verdict};
use crate::types::job::{CheckpointPlace, RentalChoice};
use crate::types::money::BID_PARKED;
use crate::types::plan::Plan;

const OLD: InstanceId = InstanceId(5);

/// A job whose checkpoint is on its disk and stays there for the next one.
fn carried() -> Job {
    let mut spec = runner("true");
    spec.checkpoint = Some("/work/checkpoint".to_owned());
    spec.carried = true;
    let mut job = job("a");
    job.checkpoint_place = Some(CheckpointPlace::Disk);
    job.run.runner = Some(Box::new(spec));
    job
}

/// It worked on machine 9, was outbid, waited for and parked; there are others.
fn left(job: Job) -> World {
    let mut old = held(OLD.0, &job, &offer(9), BID_PARKED);
    let mut view = RunnerView::of(job.run.runner.as_deref().unwrap());
    view.worked = true;
    view.checkpoint = Some((0, "a".repeat(64), 40_000_000_000));
    old.runner = Some(view);
    old.bid_before_park = Some(Rate::ZERO);
    old.outbid_at = Some(NOW);
    (old.phase, old.parked, old.stop_asked) = (Phase::Stopped, true, true);
    old.tail = Some(Tail {
        generation: 1,
        permit: Permit::Go,
        until: NOW + Duration::from_hours(2),
    });
    let mut world = world((2..5).map(offer).collect());
    let mut record = world.state.replica(&old.replica);
    record.generation = old.generation;
    world.state.replicas.insert(record.id.clone(), record);
    world.state.held.insert(old.id, old);
    world.jobs = vec![Arc::new(job)];
    list(&mut world, true);
    world
}

/// What is planned, all of which passes the second reckoning.
fn planned(world: &World) -> Plan {
    let (plan, _) = decide(world);
    let (kept, dropped) = check(world, &plan);
    assert_eq!(dropped, []);
    kept
}

fn effects(world: &World) -> Vec<Effect> {
    let plan = planned(world);
    plan.actions
        .into_iter()
        .map(|action| action.effect)
        .collect()
}

fn tick(world: &mut World) -> Vec<Effect> {
    let plan = planned(world);
    act(world, &plan);
    plan.actions
        .into_iter()
        .map(|action| action.effect)
        .collect()
}

fn newest(world: &mut World) -> &mut Held {
    let held = world.state.held.values_mut();
    held.max_by_key(|held| held.generation).unwrap()
}

/// The one that was made last comes up, and waits behind its gate.
fn comes_up(world: &mut World) -> InstanceId {
    let now = world.now;
    let new = newest(world);
    new.phase = Phase::Running;
    new.first_ran_at.get_or_insert(now);
    let id = new.id;
    list(world, true);
    id
}

/// Up to the moment at which its runner waits for the copy.
fn waiting() -> (World, InstanceId) {
    let mut world = left(carried());
    tick(&mut world);
    tick(&mut world);
    let id = comes_up(&mut world);
    assert_eq!(effects(&world), [], "its runner does not wait yet");
    let now = world.now;
    newest(&mut world).bringing.as_mut().unwrap().ready_at = Some(now);
    (world, id)
}

/// The newest one is found to have what the other run told of, or something else.
fn finds(world: &mut World, as_told: bool) {
    let now = world.now;
    let new = newest(world);
    let bringing = new.bringing.as_mut().unwrap();
    bringing.accepted_at.get_or_insert(now);
    bringing.told = Some("a".repeat(64));
    bringing.verified = Some("a".repeat(64));
    bringing.as_told = as_told;
    bringing.own = Some("b".repeat(64));
    new.runner.as_mut().unwrap().checkpoint = Some((0, "b".repeat(64), 40_000_000_000));
}

/// The newest one tells of a checkpoint that it made itself.
fn keeps(world: &mut World) {
    let now = world.now;
    let bringing = newest(world).bringing.as_mut().unwrap();
    bringing.kept_at.get_or_insert(now);
}

fn goes(instance: InstanceId) -> Effect {
    let why = DestroyWhy::Moved;
    Effect::Destroy { instance, why }
}

/// The one that stands behind its gate with its checkpoint, and is let work.
fn opened(as_told: bool) -> (World, InstanceId) {
    let (mut world, new) = waiting();
    tick(&mut world);
    finds(&mut world, as_told);
    assert_eq!(permits(&tick(&mut world)), [(new.0, 2, Permit::Go)]);
    (world, new)
}

fn permits(effects: &[Effect]) -> Vec<(u64, u32, Permit)> {
    let tails = effects.iter().filter_map(|effect| match effect {
        Effect::Relabel { instance, tail } => Some((instance.0, tail.generation, tail.permit)),
        _ => None,
    });
    tails.collect()
}

#[test]
fn the_next_one_waits_behind_its_gate_and_the_old_disk_goes_last() {
    let mut world = left(carried());
    let (plan, _) = decide(&world);
    let rent = plan.actions.last().unwrap();
    let Effect::Rent {
        from, generation, ..
    } = rent.effect
    else {
        panic!("{plan:?}")
    };
    assert_eq!((from, generation), (Some(OLD), 2));
    // 48 GB of disk are the most that two archives can be, at $0.003 a GB each way.
    let mut plain = carried();
    plain.run.runner.as_mut().unwrap().carried = false;
    let plain = decide(&left(plain));
    let more = rent.reserve - plain.0.actions[0].reserve;
    assert_eq!(more, Money(48 * 6_000_000));
    tick(&mut world);
    let new = newest(&mut world).id;
    let labels = permits(&tick(&mut world));
    let hold = Permit::Hold;
    assert_eq!(labels, [(OLD.0, 2, hold), (new.0, 2, hold)]);
    comes_up(&mut world);
    assert_eq!(effects(&world), [], "its runner does not wait yet");
    let now = world.now;
    newest(&mut world).bringing.as_mut().unwrap().ready_at = Some(now);
    let plan = planned(&world);
    let copies = Effect::Copy {
        instance: new,
        from: OLD,
    };
    assert_eq!((plan.actions.len(), &plan.actions[0].effect), (1, &copies));
    assert_eq!(plan.actions[0].reserve, more, "its traffic is set aside");
    tick(&mut world);
    assert_eq!(effects(&world), [], "it is under way");
    finds(&mut world, true);
    let opened = tick(&mut world);
    assert_eq!(permits(&opened), [(new.0, 2, Permit::Go)]);
    assert_eq!(opened.len(), 1, "nothing goes before the gate is open");
    assert_eq!(effects(&world), [], "nor on its bare word");
    keeps(&mut world);
    assert_eq!(tick(&mut world), [goes(OLD)]);
    assert_eq!(effects(&world), []);
}

#[test]
fn on_the_same_machine_the_copy_is_free() {
    let mut back = offer(9);
    // The old bid explains no such floor, and nothing under the on-demand rate beats it.
    back.floor = Some(usd(0.5));
    let mut world = left(Job {
        rental: RentalChoice::Auto,
        ..carried()
    });
    let market = Arc::make_mut(&mut world.market);
    for other in &mut market.offers {
        (other.floor, other.on_demand) = (Some(usd(0.6)), Some(usd(0.8)));
    }
    market.offers.push(back);
    let effects = tick(&mut world);
    let machine = effects.iter().find_map(|effect| match effect {
        Effect::Rent { slot, from, .. } => from.map(|_| slot.machine.0),
        _ => None,
    });
    assert_eq!(machine, Some(9));
    comes_up(&mut world);
    let now = world.now;
    newest(&mut world).bringing.as_mut().unwrap().ready_at = Some(now);
    let plan = planned(&world);
    let copy = plan.actions.iter().find(|action| action.why == Why::Bring);
    assert_eq!(copy.unwrap().reserve, Money::ZERO);
}

#[test]
fn a_copy_is_asked_for_again_within_its_time() {
    let (mut world, _) = waiting();
    let copies = |world: &World| {
        let all = effects(world);
        all.iter()
            .any(|effect| matches!(effect, Effect::Copy { .. }))
    };
    assert!(copies(&world));
    tick(&mut world);
    let begun = world.now;
    let mut at = |seconds: u64, accepted| {
        world.now = begun + Duration::from_secs(seconds);
        newest(&mut world).bringing.as_mut().unwrap().accepted = accepted;
        copies(&world)
    };
    assert!(!at(59, false), "it was refused, or nobody knows");
    assert!(at(60, false));
    // 48 GB at 5 MB/s are 9600 s.
    assert!(!at(4799, true));
    assert!(at(4800, true));
    assert!(!at(9600, true), "its time is over");
}

#[test]
fn before_its_gate_is_open_the_new_one_goes_and_the_old_one_stays() {
    let outbid = |held: &mut Held| {
        held.phase = Phase::Stopped;
        held.phase_since = NOW - Duration::from_hours(2);
        held.bid_before_park = Some(Rate::ZERO);
    };
    let refused = |held: &mut Held| {
        held.runner.as_mut().unwrap().verdict = Some(Verdict::Refused);
    };
    let late = |held: &mut Held| {
        held.runner.as_mut().unwrap().verdict = Some(Verdict::NotBrought);
    };
    let ends: [fn(&mut Held); 3] = [outbid, refused, late];
    for (number, end) in ends.into_iter().enumerate() {
        for verified in [false, true] {
            let (mut world, new) = waiting();
            tick(&mut world);
            if verified {
                finds(&mut world, true);
            }
            end(newest(&mut world));
            let all = effects(&world);
            let goes = |effect: &Effect| matches!(effect, Effect::Destroy { instance, .. } if *instance == new);
            let (gone, rest): (Vec<&Effect>, Vec<&Effect>) = all.iter().partition(|e| goes(e));
            assert_eq!(gone.len(), 1, "{number} {verified:?}: {all:?}");
            assert_eq!(rest, Vec::<&Effect>::new(), "{number}: the gate stays shut");
        }
    }
}

#[test]
fn once_its_gate_is_open_the_new_disk_is_kept_and_gone_on_from() {
    let (mut world, new) = opened(true);
    // It is outbid before anything was heard of its command.
    let held = newest(&mut world);
    held.phase = Phase::Stopped;
    held.phase_since = NOW - Duration::from_hours(2);
    held.bid_before_park = Some(Rate::ZERO);
    let all = tick(&mut world);
    let parks = Effect::SetBid {
        instance: new,
        bid: BID_PARKED,
    };
    assert!(all.contains(&parks), "{all:?}");
    let all = tick(&mut world);
    let from = all.iter().find_map(|effect| match effect {
        Effect::Rent { from, .. } => *from,
        _ => None,
    });
    assert_eq!(from, Some(new), "{all:?}");
}

#[test]
fn what_begins_anew_is_let_and_the_old_disk_is_kept() {
    let (mut world, new) = waiting();
    tick(&mut world);
    newest(&mut world).bringing.as_mut().unwrap().anew = true;
    let all = tick(&mut world);
    assert_eq!(permits(&all), [(new.0, 2, Permit::Go)]);
    assert_eq!(all.len(), 1);
    assert_eq!(effects(&world), []);
    assert!(world.state.held.contains_key(&OLD));
}

#[test]
fn a_disk_that_was_not_kept_for_that_is_not_gone_on_from() {
    let mut world = left(carried());
    let old = world.state.held.get_mut(&OLD).unwrap();
    let given = old.runner.as_mut().unwrap().given.as_mut().unwrap();
    given.carried = false;
    let all = effects(&world);
    let rent = all.iter().find_map(|effect| match effect {
        Effect::Rent { from, .. } => Some(*from),
        _ => None,
    });
    assert_eq!(rent, Some(None));
}

#[test]
fn without_a_checkpoint_that_was_heard_of_nothing_is_copied() {
    let mut world = left(carried());
    let old = world.state.held.get_mut(&OLD).unwrap();
    old.runner.as_mut().unwrap().checkpoint = None;
    let rented_from = |world: &World| {
        let all = effects(world);
        all.iter().find_map(|effect| match effect {
            Effect::Rent { from, .. } => Some(*from),
            _ => None,
        })
    };
    assert_eq!(rented_from(&world), Some(None));
    // An older disk that has one is gone on from.
    let mut older = world.state.held[&OLD].clone();
    older.id = InstanceId(4);
    older.intent = crate::types::ids::IntentId(4);
    older.slot.machine = MachineId(44);
    older.generation = 0;
    older.runner.as_mut().unwrap().checkpoint = Some((0, "a".repeat(64), 1));
    world.state.held.insert(older.id, older);
    list(&mut world, true);
    assert_eq!(rented_from(&world), Some(Some(InstanceId(4))));
}

/// So many hours later, in which all that is known was seen again.
fn after(world: &mut World, hours: u64) -> Vec<Effect> {
    world.now = world.now + Duration::from_hours(hours);
    Arc::make_mut(&mut world.market).at = world.now;
    for held in world.state.held.values_mut() {
        held.accrued_to = world.now;
        if let Some(tail) = &mut held.tail {
            tail.until = world.now + Duration::from_hours(2);
        }
    }
    list(world, true);
    effects(world)
}

/// Its command is heard of a minute after its gate was opened.
fn works(world: &mut World) {
    let held = newest(world);
    let opened = held.bringing.as_ref().unwrap().opened_at.unwrap();
    let view = held.runner.as_mut().unwrap();
    view.worked = true;
    view.heard_at = Some(opened + Duration::from_mins(1));
}

#[test]
fn the_old_disk_is_kept_for_a_day_at_most_or_until_the_end() {
    let (mut world, new) = opened(true);
    works(&mut world);
    assert_eq!(after(&mut world, 23), []);
    assert_eq!(
        after(&mut world, 1),
        [goes(OLD)],
        "that is what it may cost"
    );
    // The command ended well where it was brought to.
    let (mut world, _) = opened(true);
    let view = world.state.held.get_mut(&new).unwrap().runner.as_mut();
    view.unwrap().exit = Some(0);
    assert_eq!(effects(&world), [goes(OLD)]);
}

#[test]
fn time_alone_lets_no_disk_go_while_the_newer_one_is_not_there() {
    let destroyed = |all: Vec<Effect>| {
        let mut all = all.into_iter();
        all.any(|effect| effect == goes(OLD))
    };
    let (mut world, _) = opened(true);
    assert!(!destroyed(after(&mut world, 48)), "nothing works there yet");
    for (phase, goes) in [
        (Phase::Offline, false),
        (Phase::Unclear, false),
        (Phase::Exited, false),
        (Phase::Running, true),
    ] {
        let (mut world, _) = opened(true);
        works(&mut world);
        newest(&mut world).phase = phase;
        assert_eq!(destroyed(after(&mut world, 48)), goes, "{phase:?}");
    }
    // What was heard of before its gate was open is not of its work.
    let (mut world, _) = opened(true);
    works(&mut world);
    let held = newest(&mut world);
    let opened = held.bringing.as_ref().unwrap().opened_at;
    held.runner.as_mut().unwrap().heard_at = opened;
    assert!(!destroyed(after(&mut world, 48)));
}

#[test]
fn what_is_not_what_was_heard_of_keeps_the_old_disk_until_it_has_its_own_for_a_day() {
    let (mut world, _) = opened(false);
    works(&mut world);
    assert_eq!(after(&mut world, 48), [], "it may be anything");
    keeps(&mut world);
    assert_eq!(after(&mut world, 23), []);
    assert_eq!(after(&mut world, 1), [goes(OLD)]);
}

#[test]
fn what_ends_before_its_copy_away_could_come_is_left_in_time() {
    let mut world = left(carried());
    let job = Arc::clone(&world.jobs[0]);
    let old = world.state.held.get_mut(&OLD).unwrap();
    (old.phase, old.parked, old.stop_asked) = (Phase::Running, false, false);
    (old.price, old.bid_before_park) = (usd(0.2), None);
    let copied = job.provision_timeout + job.boot_overhead + patience(&bringing(old));
    // An hour of patience, and what it takes to come up elsewhere and to have 48 GB.
    let lead = job.patience + copied;
    assert_eq!(lead, Duration::from_secs(3600 + 1200 + 9600));
    let parks = Effect::SetBid {
        instance: OLD,
        bid: BID_PARKED,
    };
    let mut ends = |left: Duration, told: bool| {
        let now = world.now;
        let old = world.state.held.get_mut(&OLD).unwrap();
        old.ends_at = Some(now + left);
        if !told {
            old.runner.as_mut().unwrap().checkpoint = None;
        }
        list(&mut world, true);
        effects(&world).contains(&parks)
    };
    assert!(!ends(lead + Duration::from_secs(1), true));
    assert!(ends(lead, true));
    assert!(!ends(lead, false), "there is nothing to copy");
    assert!(ends(job.patience, false));
}

#[test]
fn no_rental_is_begun_that_ends_before_the_work_or_the_copy_away() {
    let rents = |job: Job, stays: Duration| {
        let mut world = left(job);
        let now = world.now;
        for offer in &mut Arc::make_mut(&mut world.market).offers {
            offer.ends_at = Some(now + stays);
        }
        let all = effects(&world);
        all.iter().any(|e| matches!(e, Effect::Rent { .. }))
    };
    // It comes up, is left after nothing, and the next one comes up and has all of its disk.
    let least = Duration::from_secs(1200 + 3600 + 1200 + 9600);
    let mut job = carried();
    job.requirements.remaining_min = Duration::ZERO;
    assert!(rents(job.clone(), least));
    let short = least.checked_sub(Duration::from_secs(1)).unwrap();
    assert!(!rents(job.clone(), short));
    job.work_mgpu_h = Some(1_000_000);
    assert!(!rents(job, least), "a copy is no reason to count on one");
}

#[test]
fn a_disk_goes_by_the_one_after_next_where_the_next_is_gone() {
    let (mut world, second) = opened(true);
    let held = newest(&mut world);
    held.phase = Phase::Stopped;
    held.phase_since = NOW - Duration::from_hours(2);
    held.bid_before_park = Some(Rate::ZERO);
    tick(&mut world);
    tick(&mut world);
    tick(&mut world);
    comes_up(&mut world);
    assert_eq!(newest(&mut world).bringing.as_ref().unwrap().also, [OLD]);
    let now = world.now;
    newest(&mut world).bringing.as_mut().unwrap().ready_at = Some(now);
    tick(&mut world);
    finds(&mut world, true);
    tick(&mut world);
    world.state.held.remove(&second);
    assert_eq!(effects(&world), [], "it has no checkpoint of its own yet");
    keeps(&mut world);
    assert_eq!(effects(&world), [goes(OLD)]);
}

#[test]
fn disks_that_were_left_one_after_the_other_go_together_the_oldest_first() {
    let (mut world, second) = opened(true);
    let held = newest(&mut world);
    held.phase = Phase::Stopped;
    held.phase_since = NOW - Duration::from_hours(2);
    held.bid_before_park = Some(Rate::ZERO);
    tick(&mut world);
    tick(&mut world);
    tick(&mut world);
    let third = comes_up(&mut world);
    assert_ne!(third, second);
    let now = world.now;
    newest(&mut world).bringing.as_mut().unwrap().ready_at = Some(now);
    tick(&mut world);
    finds(&mut world, true);
    tick(&mut world);
    assert_eq!(effects(&world), []);
    keeps(&mut world);
    assert_eq!(effects(&world), [goes(OLD), goes(second)]);
    // The process dies after the first of them, and after the second is gone.
    world.state.held.remove(&OLD);
    assert_eq!(effects(&world), [goes(second)]);
}

#[test]
fn after_some_copies_that_came_to_nothing_it_waits_for_the_user() {
    let mut world = left(carried());
    let fails = |world: &mut World, times| {
        world.state.held.get_mut(&OLD).unwrap().copies_failed = times;
        let (plan, report) = decide(world);
        let from = plan.actions.first().map(|action| match action.effect {
            Effect::Rent { from, .. } => from,
            _ => panic!("{plan:?}"),
        });
        (from, report.jobs[0].replicas[0].situation.clone())
    };
    assert_eq!(fails(&mut world, COPIES_MAX - 1).0, Some(Some(OLD)));
    let waits = Situation::NotCopied {
        from: OLD,
        times: COPIES_MAX,
    };
    assert_eq!(fails(&mut world, COPIES_MAX), (None, waits));
    let mut restartable = carried();
    restartable.restartable = true;
    let mut world = left(restartable);
    assert_eq!(
        fails(&mut world, COPIES_MAX).0,
        Some(None),
        "it begins anew"
    );
}

#[test]
fn its_disk_says_what_a_copy_may_cost_and_not_its_machine() {
    let world = left(carried());
    let job = &world.jobs[0];
    let old = &world.state.held[&OLD];
    let down = Some(Money(4_000_000));
    for told in [0, 1_000, 40_000_000_000, u64::MAX] {
        let mut old = old.clone();
        old.runner.as_mut().unwrap().checkpoint = Some((0, "a".repeat(64), told));
        let cost = traffic(job, &old, (MachineId(2), down));
        assert_eq!(cost, (Money(48 * 3_000_000), Money(48 * 4_000_000)));
        assert!(bringing(&old).bytes <= 48_000_000_000);
    }
    let free = (Money::ZERO, Money::ZERO);
    assert_eq!(traffic(job, old, (old.slot.machine, down)), free);
}

#[test]
fn a_copy_for_too_little_is_not_let_pass() {
    let (world, _) = waiting();
    let (mut plan, _) = decide(&world);
    assert_eq!(check(&world, &plan).1, []);
    plan.actions[0].reserve -= Money(1);
    assert_eq!(check(&world, &plan).0.actions, []);
}

#[test]
fn what_it_costs_down_there_is_what_the_rented_offer_says() {
    let mut world = left(carried());
    let mut dear = offer(2);
    dear.id = crate::types::ids::OfferId(1);
    (dear.floor, dear.inet_down_price) = (Some(usd(0.9)), Some(Money(9_000_000)));
    let market = Arc::make_mut(&mut world.market);
    market.offers = vec![dear, offer(2)];
    let plan = planned(&world);
    let Effect::Rent { offer, traffic, .. } = &plan.actions[0].effect else {
        panic!("{plan:?}")
    };
    assert_eq!(offer.0, 20);
    assert_eq!(*traffic, Some((Money(3_000_000), Money(3_000_000))));
}

/// A job that may spend no more in all than its move costs without the copy.
fn too_little_for_the_copy(restartable: bool) -> World {
    let mut job = carried();
    job.restartable = restartable;
    let mut world = left(job.clone());
    let whole = planned(&world).actions[0].reserve;
    let copy = Money(48 * 6_000_000);
    // The margin of a beginning, and what the parked disk costs until it can be destroyed, are beside it.
    let spare = Money::from_dollars(0.2).unwrap();
    job.budget.total = Some(whole - copy + spare);
    world.jobs = vec![Arc::new(job)];
    world
}

#[test]
fn what_only_its_copy_keeps_from_moving_stays_outbid_with_its_bid_standing() {
    let mut world = too_little_for_the_copy(false);
    let old = world.state.held.get_mut(&OLD).unwrap();
    (old.parked, old.stop_asked) = (false, false);
    old.price = usd(0.2);
    old.phase_since = NOW - Duration::from_hours(2);
    list(&mut world, true);
    assert_eq!(effects(&world), []);
    let (_, report) = decide(&world);
    let replica = &report.jobs[0].replicas[0];
    assert!(matches!(replica.situation, Situation::Outbid { .. }));
    // With a limit that has room for it, it goes.
    let mut job = (*world.jobs[0]).clone();
    job.budget.total = Some(Money::dollars(100));
    world.jobs = vec![Arc::new(job)];
    let parks = Effect::SetBid {
        instance: OLD,
        bid: BID_PARKED,
    };
    assert_eq!(effects(&world), [parks]);
}

#[test]
fn what_is_parked_and_cannot_pay_its_copy_comes_back_or_begins_anew() {
    let alarms = |world: &World| {
        let (_, report) = decide(world);
        let all = report.notices.iter();
        all.filter(|told| told.kind == "copy-unaffordable").count()
    };
    let mut world = too_little_for_the_copy(false);
    let mut machine = world.state.machine(MachineId(9));
    machine.highest_bid = Some((usd(0.3), NOW));
    world.state.machines.insert(machine.id, machine);
    Arc::make_mut(&mut world.market).offers.push(offer(9));
    let back = Effect::SetBid {
        instance: OLD,
        bid: usd(0.3),
    };
    assert_eq!((effects(&world), alarms(&world)), (vec![back], 1));
    let world = too_little_for_the_copy(true);
    let from = effects(&world).into_iter().find_map(|effect| match effect {
        Effect::Rent { from, .. } => Some(from),
        _ => None,
    });
    assert_eq!((from, alarms(&world)), (Some(None), 1));
    assert_eq!(alarms(&left(carried())), 0);
}

#[test]
fn the_money_of_a_copy_is_held_until_it_is_asked_for() {
    let (mut world, _) = waiting();
    let copy = Money(48 * 6_000_000);
    let new = newest(&mut world).clone();
    assert_eq!(set_aside(&world, &new), copy);
    // Just so much as holds what there is: the copy is not reckoned a second time.
    let fits = |world: &World, total: Money| {
        let mut world = world.clone();
        let mut job = (*world.jobs[0]).clone();
        job.budget.total = Some(total);
        world.jobs = vec![Arc::new(job)];
        let (plan, _) = decide(&world);
        let (kept, dropped) = check(&world, &plan);
        assert_eq!(dropped, []);
        kept.actions.iter().any(|action| action.why == Why::Bring)
    };
    let (mut least, mut most) = (0, Money::dollars(100).0);
    while most - least > 1 {
        let middle = i64::midpoint(least, most);
        if fits(&world, Money(middle)) {
            most = middle;
        } else {
            least = middle;
        }
    }
    // Without the hold it would need less to stand: that is what the difference shows.
    let stands = |world: &World| {
        let mut world = world.clone();
        let mut job = (*world.jobs[0]).clone();
        job.budget.total = Some(Money(most - 1));
        world.jobs = vec![Arc::new(job)];
        effects(&world)
    };
    assert_ne!(
        stands(&world),
        [],
        "it is wound down, for the copy does not fit"
    );
    newest(&mut world).bringing.as_mut().unwrap().verified = Some("a".repeat(64));
    let new = newest(&mut world).clone();
    assert_eq!(set_aside(&world, &new), Money::ZERO);
    assert!(permits(&stands(&world)).contains(&(new.id.0, 2, Permit::Go)));
}

#[test]
fn copies_are_asked_for_so_often_and_no_more() {
    let (mut world, _) = waiting();
    tick(&mut world);
    let begun = world.now;
    let copies = |world: &World| {
        let all = effects(world);
        all.iter()
            .any(|effect| matches!(effect, Effect::Copy { .. }))
    };
    let mut at = |seconds: u64, change: &dyn Fn(&mut Bringing)| {
        world.now = begun + Duration::from_secs(seconds);
        let bringing = newest(&mut world).bringing.as_mut().unwrap();
        (bringing.accepted, bringing.accepted_at) = (false, None);
        (bringing.asks_taken, bringing.asks_unknown) = (0, 0);
        change(bringing);
        copies(&world)
    };
    let unknown = |times| move |b: &mut Bringing| b.asks_unknown = times;
    assert!(!at(4799, &unknown(1)), "it may be under way");
    assert!(at(4800, &unknown(1)));
    assert!(!at(9599, &unknown(2)));
    let said = |b: &mut Bringing| {
        b.told = Some("a".repeat(64));
        b.asks_unknown = 2;
    };
    assert!(at(60, &said), "one answer is all that it takes");
    assert!(!at(9599, &|b| {
        said(b);
        b.asks_unknown = 3;
    }));
    assert!(!at(9599, &|b| b.asks_taken = 3));
    assert!(at(60, &|b| b.refused = 2));
    assert!(!at(60, &|b| b.refused = 3));
}

#[test]
fn what_waits_behind_its_gate_goes_when_it_is_paused() {
    let (mut world, new) = waiting();
    let mut record = world.state.job(&world.jobs[0].name);
    record.wish = crate::types::state::Wish::Pause;
    world.state.jobs.insert(record.name.clone(), record);
    let all = effects(&world);
    let gone =
        |effect: &Effect| matches!(effect, Effect::Destroy { instance, .. } if *instance == new);
    assert!(all.iter().any(gone), "{all:?}");
    assert_eq!(all.len(), 1, "the old disk stays: {all:?}");
}

#[test]
fn what_says_nothing_behind_its_gate_goes_in_time() {
    let (mut world, new) = waiting();
    let patience = world.config.offline_patience;
    let now = world.now;
    let mut gone = |since: Duration, opened: bool| {
        let held = newest(&mut world);
        held.phase = Phase::Unclear;
        held.phase_since = now - since;
        held.bringing.as_mut().unwrap().opened = opened;
        list(&mut world, true);
        let gone = Effect::Destroy {
            instance: new,
            why: DestroyWhy::HostLost,
        };
        effects(&world).contains(&gone)
    };
    let short = patience.checked_sub(Duration::from_secs(1)).unwrap();
    assert!(!gone(short, false));
    assert!(gone(patience, false));
    assert!(!gone(patience, true), "it may be at work");
}

/// What happens to a replica whose work moves from disk to disk.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// A plan is made, and so many of its actions are carried out before the process dies.
    Tick(usize),
    ComesUp,
    Waits,
    /// The copy came; whether it is what was heard of.
    FindsIt(bool),
    Works,
    /// It tells of a checkpoint of its own.
    Keeps,
    Outbid,
    Late,
    Lost,
    Settles,
    Minutes(u64),
}

fn turns() -> impl Strategy<Value = Turn> {
    prop_oneof![
        5 => Just(Turn::Tick(usize::MAX)),
        3 => (0..3_usize).prop_map(Turn::Tick),
        3 => Just(Turn::ComesUp),
        3 => Just(Turn::Waits),
        3 => any::<bool>().prop_map(Turn::FindsIt),
        3 => Just(Turn::Works),
        2 => Just(Turn::Keeps),
        2 => Just(Turn::Outbid),
        1 => Just(Turn::Late),
        1 => Just(Turn::Lost),
        3 => Just(Turn::Settles),
        1 => (1..90_u64).prop_map(Turn::Minutes),
    ]
}

/// A world in which what is destroyed is not gone at once, and which of its disks that stay have all the
/// work that was done.
struct Play {
    world: World,
    has_all: BTreeSet<InstanceId>,
}

impl Play {
    fn takes(&mut self, turn: Turn) {
        let world = &mut self.world;
        match turn {
            Turn::Tick(most) => {
                let mut plan = planned(world);
                plan.actions.truncate(most);
                plan.actions.retain(|action| {
                    let Effect::Destroy { instance, why } = action.effect else {
                        return true;
                    };
                    let held = world.state.held.get_mut(&instance).unwrap();
                    held.destroying = Some(why);
                    held.destroy_sent_at = Some(world.now);
                    false
                });
                act(world, &plan);
            }
            Turn::Settles => {
                let held = &mut world.state.held;
                held.retain(|_, held| held.destroying.is_none());
            }
            Turn::Minutes(minutes) => {
                world.now = world.now + Duration::from_mins(minutes);
                Arc::make_mut(&mut world.market).at = world.now;
                for held in world.state.held.values_mut() {
                    held.accrued_to = world.now;
                }
            }
            other => self.happens(other),
        }
        list(&mut self.world, true);
        let held = &self.world.state.held;
        let stays = |id: &InstanceId| held.get(id).is_some_and(|h| h.destroying.is_none());
        self.has_all.retain(stays);
    }

    /// Something happens to the newest instance.
    fn happens(&mut self, turn: Turn) {
        let now = self.world.now;
        let held = newest(&mut self.world);
        let id = held.id;
        if held.destroying.is_some() {
            return;
        }
        let up = held.phase == Phase::Running && held.runner.is_some();
        let view = held.runner.as_mut().unwrap();
        match turn {
            Turn::ComesUp if held.phase == Phase::Provisioning => {
                held.phase = Phase::Running;
                held.first_ran_at.get_or_insert(now);
            }
            Turn::Outbid if up => {
                held.phase = Phase::Stopped;
                held.phase_since = now - Duration::from_hours(2);
                held.bid_before_park = Some(Rate::ZERO);
                view.verdict = None;
            }
            Turn::Works if up && !held.parked && view.verdict.is_none() => {
                let own = held.tail.is_some_and(|tail| {
                    tail.permit == Permit::Go && tail.generation == held.generation
                });
                if own {
                    view.worked = true;
                    assert!(
                        self.has_all.contains(&id),
                        "it works without the work before it"
                    );
                    self.has_all = BTreeSet::from([id]);
                }
            }
            Turn::Lost if held.bringing.as_ref().is_some_and(|b| !b.opened) => {
                self.world.state.held.remove(&id);
            }
            Turn::Keeps if up => {
                let bringing = held.bringing.as_mut().filter(|b| b.opened);
                if let Some(bringing) = bringing.filter(|_| view.worked) {
                    bringing.kept_at.get_or_insert(now);
                }
            }
            Turn::Waits | Turn::FindsIt(_) | Turn::Late if up => {
                let Some(bringing) = held.bringing.as_mut().filter(|b| !b.opened) else {
                    return;
                };
                match turn {
                    Turn::Waits => {
                        bringing.ready_at.get_or_insert(now);
                    }
                    Turn::Late if bringing.verified.is_none() => {
                        view.verdict = Some(Verdict::NotBrought);
                    }
                    Turn::FindsIt(as_told) if bringing.accepted => {
                        bringing.verified = Some("a".repeat(64));
                        bringing.as_told = as_told;
                        bringing.own = Some("b".repeat(64));
                        view.checkpoint = Some((0, "b".repeat(64), 40_000_000_000));
                        if self.has_all.contains(&bringing.from) {
                            self.has_all.insert(id);
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn holds(&self) {
        let held = self.world.state.held.values();
        let lets_work = |held: &&Held| {
            let own = held.tail.is_some_and(|tail| {
                tail.permit == Permit::Go && tail.generation == held.generation
            });
            own && !held.parked && held.phase == Phase::Running
        };
        assert!(held.filter(lets_work).count() <= 1, "two at work");
        assert!(
            !self.has_all.is_empty(),
            "the work is lost: {:?}",
            self.world.state.held
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens and wherever a plan is broken off: there is always a disk with all the work,
    /// what works has it, and never do two work.
    #[test]
    fn the_work_is_never_lost_and_never_done_twice(
        turns in proptest::collection::vec(turns(), 1..60),
        auto in any::<bool>(),
    ) {
        let mut job = carried();
        if auto {
            job.rental = RentalChoice::Auto;
        }
        let mut play = Play {
            world: left(job),
            has_all: BTreeSet::from([OLD]),
        };
        play.world.account.as_mut().unwrap().credit = Some(Money::dollars(100_000));
        for turn in turns {
            play.takes(turn);
            play.holds();
        }
    }
}
