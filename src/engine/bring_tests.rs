//! Moving without storage, step by step.

use std::sync::Arc;

use super::super::check::check;
use super::super::decide::decide;
use super::super::eligible::samples::{NOW, offer, usd};
use super::super::properties::list;
use super::samples::*;
use super::*;
use crate::types::ids::Permit;
use crate::types::instance::{DestroyWhy, Phase, Verdict};
use crate::types::job::RentalChoice;
use crate::types::money::BID_PARKED;

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
    is_outbid(&mut world);
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
    // It comes up and has its copy, is left after nothing, and the next one comes up and has all of its disk.
    let least = Duration::from_secs(1200 + 9600 + 3600 + 1200 + 9600);
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
    is_outbid(&mut world);
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
    is_outbid(&mut world);
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
    let old = world.state.held.get_mut(&OLD).unwrap();
    old.last_bid = Some(usd(0.3));
    // What another one of ours bid there is not its own.
    let mut machine = world.state.machine(MachineId(9));
    machine.highest_bid = Some((usd(0.35), NOW));
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
