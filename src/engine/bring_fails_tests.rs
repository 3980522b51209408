//! Moving without storage where copies fail, and where the host of the disk is not heard from.

use std::sync::Arc;

use super::super::decide::decide;
use super::super::eligible::samples::{NOW, offer, usd};
use super::super::properties::list;
use super::samples::*;
use super::*;
use crate::types::money::BID_PARKED;

/// Its bid stands and is outbid for longer than it is waited for; so many copies from its disk failed.
fn outbid(failed: u32, restartable: bool) -> World {
    let mut job = carried();
    job.restartable = restartable;
    let mut world = left(job);
    let old = world.state.held.get_mut(&OLD).unwrap();
    (old.parked, old.stop_asked) = (false, false);
    old.price = usd(0.2);
    old.phase_since = NOW - Duration::from_hours(2);
    old.copies_failed = failed;
    list(&mut world, true);
    world
}

/// What the next one is to begin with.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    NotRented,
    Anew,
    From(InstanceId),
}

fn next(world: &World) -> Next {
    let mut all = effects(world).into_iter();
    let rent = all.find_map(|effect| match effect {
        Effect::Rent { from, .. } => Some(from.map_or(Next::Anew, Next::From)),
        _ => None,
    });
    rent.unwrap_or(Next::NotRented)
}

fn situation(world: &World) -> Situation {
    let (_, report) = decide(world);
    report.jobs[0].replicas[0].situation.clone()
}

#[test]
fn a_bid_stands_where_the_work_cannot_be_copied_elsewhere() {
    let parks = Effect::SetBid {
        instance: OLD,
        bid: BID_PARKED,
    };
    let parked = vec![parks];
    assert_eq!(effects(&outbid(COPIES_MAX - 1, false)), parked);
    assert_eq!(effects(&outbid(COPIES_MAX, false)), []);
    let stays = situation(&outbid(COPIES_MAX, false));
    assert!(matches!(stays, Situation::Outbid { .. }), "{stays:?}");
    assert_eq!(effects(&outbid(COPIES_MAX, true)), parked);
}

#[test]
fn the_disk_before_has_what_was_brought_to_one_that_nothing_is_copied_from() {
    let (mut world, new) = opened(true);
    let held = newest(&mut world);
    (held.phase, held.parked, held.stop_asked) = (Phase::Stopped, true, true);
    (held.price, held.bid_before_park) = (BID_PARKED, Some(Rate::ZERO));
    held.outbid_at = Some(NOW);
    list(&mut world, true);
    assert_eq!(next(&world), Next::From(new));
    newest(&mut world).copies_failed = COPIES_MAX;
    assert_eq!(next(&world), Next::From(OLD));
    // What it made itself is nowhere else.
    keeps(&mut world);
    assert_eq!(next(&world), Next::NotRented);
    let waits = Situation::NotCopied {
        from: new,
        times: COPIES_MAX,
    };
    assert_eq!(situation(&world), waits);
}

#[test]
fn nothing_is_rented_for_a_copy_while_the_host_of_the_disk_is_not_heard_from() {
    let away =
        |restartable: bool, hours: u64, change: &dyn Fn(&mut crate::types::instance::Instance)| {
            let mut job = carried();
            job.restartable = restartable;
            let mut world = left(job);
            let old = world.state.held.get_mut(&OLD).unwrap();
            old.phase_since = NOW - Duration::from_hours(hours);
            list(&mut world, true);
            let rows = &mut world.listing.as_mut().unwrap().rows;
            change(rows.iter_mut().find(|row| row.id == OLD).unwrap());
            world
        };
    let waits = Situation::SourceAway { from: OLD };
    let offline = away(false, 48, &|row| row.actual = Some(RawState::Offline));
    assert_eq!(
        (next(&offline), situation(&offline)),
        (Next::NotRented, waits.clone())
    );
    let unbilled = away(false, 48, &|row| row.burn = Some(Rate::ZERO));
    assert_eq!(
        (next(&unbilled), situation(&unbilled)),
        (Next::NotRented, waits.clone())
    );
    assert_eq!(next(&away(false, 48, &|_| ())), Next::From(OLD));
    // Its policy lets it begin anew, once the host had its time to come back.
    let offline = away(true, 0, &|row| row.actual = Some(RawState::Offline));
    assert_eq!(situation(&offline), waits);
    let offline = away(true, 48, &|row| row.actual = Some(RawState::Offline));
    assert_eq!(next(&offline), Next::Anew);
}

#[test]
fn what_was_never_bid_is_not_gone_back_to() {
    let mut world = left(carried());
    let mut job = (*world.jobs[0]).clone();
    // Nothing has room for a copy.
    job.budget.total = Some(Money::from_dollars(0.3).unwrap());
    world.jobs = vec![Arc::new(job)];
    Arc::make_mut(&mut world.market).offers.push(offer(9));
    for last_bid in [None, Some(BID_PARKED)] {
        let old = world.state.held.get_mut(&OLD).unwrap();
        old.last_bid = last_bid;
        let all = effects(&world);
        let low =
            |effect: &Effect| matches!(effect, Effect::SetBid { bid, .. } if *bid <= BID_PARKED);
        assert!(!all.iter().any(low), "{all:?}");
    }
}

#[test]
fn a_rental_lasts_for_the_copy_to_it_and_away_from_it() {
    let rents = |bytes: u64, stays: Duration| {
        let mut job = carried();
        job.requirements.remaining_min = Duration::ZERO;
        let mut world = left(job);
        let view = world.state.held.get_mut(&OLD).unwrap().runner.as_mut();
        view.unwrap().checkpoint = Some((0, "a".repeat(64), bytes));
        let now = world.now;
        for offer in &mut Arc::make_mut(&mut world.market).offers {
            offer.ends_at = Some(now + stays);
        }
        next(&world) != Next::NotRented
    };
    // It comes up and has its copy; it is left in time for the next one to come up and have it.
    let least = |copy: u64| Duration::from_secs(1200 + copy + 3600 + 1200 + copy);
    let second = Duration::from_secs(1);
    assert!(rents(40_000_000_000, least(9600)));
    assert!(!rents(
        40_000_000_000,
        least(9600).checked_sub(second).unwrap()
    ));
    assert!(
        rents(1_000_000, least(600)),
        "a small one takes no disk's time"
    );
    assert!(!rents(1_000_000, least(600).checked_sub(second).unwrap()));
}
