//! Days on small recorded markets.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::engine::eligible::samples::{NOW, job, offer, usd};
use crate::types::ids::Slot;
use crate::types::job::RentalChoice;
use crate::types::offer::{Bounds, Coverage, Extent, Market, Offer, OfferQuery};
use crate::types::past::{Listed, Look};

const MINUTE: i64 = 60_000;

fn searched() -> Coverage {
    Coverage {
        query: OfferQuery {
            bounds: Bounds {
                unverified: true,
                ..Bounds::default()
            },
            ..OfferQuery::all(Market::OnDemand)
        },
        extent: Extent::Complete,
        malformed: 0,
    }
}

/// A look each minute; rows by the minutes from and to which they are listed.
fn past(minutes: usize, rows: Vec<(usize, usize, Offer)>) -> Past {
    Past {
        looks: (0..minutes)
            .map(|minute| Look {
                at: Time(NOW.0 + minute as i64 * MINUTE),
                coverage: 0,
            })
            .collect(),
        coverages: vec![vec![searched()]],
        rows: rows
            .into_iter()
            .map(|(from, to, offer)| Listed { from, to, offer })
            .collect(),
    }
}

/// One GPU-hour of work, checkpoints elsewhere every ten minutes.
fn hour(rental: RentalChoice) -> Job {
    Job {
        work_mgpu_h: Some(1000),
        finish: Finish::Work,
        rental,
        checkpoint_every: Some(Duration::from_mins(10)),
        checkpoint_place: Some(CheckpointPlace::Remote),
        ..job("a")
    }
}

fn at(floor: f64) -> Offer {
    Offer {
        floor: Some(usd(floor)),
        ..offer(1)
    }
}

fn played(job: &Job, past: &Past, stays: &[Stay]) -> Answer {
    relive(&Question {
        job,
        config: EngineConfig::default(),
        past,
        stays,
        boots: &BTreeMap::from([(MachineId(1), 2 * MINUTE)]),
        from: NOW,
        to: Time(NOW.0 + past.looks.len() as i64 * MINUTE),
        stands_ms: 10 * MINUTE,
    })
}

#[test]
fn a_bid_runs_at_its_price_until_the_work_is_done_and_everything_is_gone() {
    let past = past(240, vec![(0, 240, at(0.2))]);
    let job = hour(RentalChoice::Interruptible);
    let answer = played(&job, &past, &[]);
    assert_eq!((answer.instances, answer.outbids), (1, 0), "{answer:?}");
    // Two minutes to come up, five until it works, an hour of work, and the look that sees it.
    let took = answer.ended_at.unwrap().ms_since(NOW) / MINUTE;
    assert!((67..=70).contains(&took), "{took}");
    assert_eq!(answer.useful_gpu_ms, 3_600_000);
    // A bid is billed while it is up and no longer, its disk from the beginning on.
    let bid = answer.timeline.iter().find_map(|moment| moment.price);
    let (bid, up) = (bid.unwrap(), answer.hours.bid_ms);
    assert!(bid >= usd(0.2) && bid < usd(0.3), "{bid:?}");
    let billed = answer.bill.gpu.as_dollars() * 3_600_000.0 / bid.as_dollars();
    assert!((billed - up as f64).abs() <= MINUTE as f64, "{billed} {up}");
    assert!(answer.bill.disk > Money::ZERO && answer.bill.on_demand == Money::ZERO);
    assert!(answer.hours.nothing_ms <= MINUTE, "{:?}", answer.hours);
}

#[test]
fn a_bid_stands_still_while_the_floor_is_over_it() {
    // From the thirtieth minute to the fiftieth somebody bids more; there is nowhere to go.
    let rows = vec![(0, 30, at(0.2)), (30, 50, at(0.41)), (50, 300, at(0.2))];
    let job = Job {
        price_max: usd(0.4),
        patience: Duration::from_hours(1),
        ..hour(RentalChoice::Interruptible)
    };
    let answer = played(&job, &past(300, rows), &[]);
    assert_eq!((answer.instances, answer.outbids), (1, 1), "{answer:?}");
    let paused = answer.hours.paused_ms / MINUTE;
    assert!((19..=21).contains(&paused), "{paused}");
    // It was seen up for 27 minutes: less 5 of boot these are 2 checkpoints, and 2 minutes lost.
    assert_eq!(answer.lost_gpu_ms / MINUTE, 2);
    // On demand it was seen at $0.40, and disks cost more.
    assert!(answer.on_demand_equivalent > Money::from_dollars(0.4).unwrap());
    assert!(answer.ended_at.is_some());
    let phases: Vec<Phase> = answer.timeline.iter().map(|moment| moment.phase).collect();
    assert!(phases.contains(&Phase::Paused) && phases.contains(&Phase::Starting));
}

#[test]
fn who_takes_a_slot_displaces_a_bid_and_not_a_fixed_rate() {
    let rows = || vec![(0, 30, at(0.2)), (60, 400, at(0.2))];
    let bid = played(&hour(RentalChoice::Interruptible), &past(400, rows()), &[]);
    assert_eq!(bid.outbids, 1, "{bid:?}");
    let fixed = played(&hour(RentalChoice::OnDemand), &past(400, rows()), &[]);
    assert_eq!((fixed.outbids, fixed.instances), (0, 1), "{fixed:?}");
    assert_eq!(fixed.bill.on_demand, fixed.bill.gpu);
    let rate = offer(1).on_demand.unwrap();
    let timeline = fixed.timeline.iter();
    assert!(
        timeline
            .filter_map(|one| one.price)
            .all(|price| price == rate)
    );
    assert!(fixed.ended_at < bid.ended_at);
    // Nobody looked: what is not listed says nothing.
    let mut unseen = past(400, rows());
    unseen.coverages[0][0].extent = Extent::Partial;
    let bid = played(&hour(RentalChoice::Interruptible), &unseen, &[]);
    assert_eq!(bid.outbids, 0, "{bid:?}");
    assert!(bid.unseen_looks >= 29, "{bid:?}");
}

#[test]
fn the_slot_that_the_job_itself_held_then_is_there_for_it() {
    let mut held = at(0.35);
    held.rented = Some(true);
    let rows = || vec![(0, 5, at(0.2)), (5, 240, held.clone())];
    let slot = Slot {
        machine: MachineId(1),
        gpus: 1,
    };
    let stay = Stay {
        slot,
        from: Time(NOW.0 + 4 * MINUTE),
        to: None,
    };
    // It may begin only from the tenth minute on: the record of before is all that shows the slot.
    let mut late = past(240, rows());
    let without = played(&hour(RentalChoice::Interruptible), &late, &[]);
    assert_eq!(without.outbids, 1, "{without:?}");
    let with = played(&hour(RentalChoice::Interruptible), &late, &[stay]);
    assert_eq!(with.outbids, 0, "{with:?}");
    assert!(with.ended_at.is_some() && with.carried > 50);
    late.rows.clear();
    let nothing = played(&hour(RentalChoice::Interruptible), &late, &[stay]);
    assert_eq!(nothing.bill.total(), Money::ZERO);
    assert_eq!(nothing.looks_without_offer, 240);
    assert_eq!(nothing.hours.total_ms(), 240 * MINUTE);
}

#[test]
fn budgets_bind_as_they_do_in_life() {
    let past = past(240, vec![(0, 240, at(0.2))]);
    let mut job = hour(RentalChoice::Interruptible);
    job.budget.total = Some(Money::from_dollars(0.01).unwrap());
    let answer = played(&job, &past, &[]);
    assert_eq!(answer.instances, 0, "{answer:?}");
    assert_eq!(answer.looks_over_limit, 240);
}

#[test]
fn what_cannot_be_played_is_left_out_of_a_policy() {
    let mut exits = job("a");
    exits.finish = Finish::Exit;
    exits.work_mgpu_h = None;
    exits.deadline = Some(Time(NOW.0 + 5 * MINUTE));
    let from = Time(NOW.0 - 100 * MINUTE);
    let (one, work) = prepared(&exits, Some(7_200_000), (from, NOW));
    assert_eq!((work, one.finish), (WorkFrom::Record, Finish::Work));
    assert_eq!(one.work_mgpu_h, Some(2000));
    assert_eq!(one.deadline, Some(Time(from.0 + 5 * MINUTE)));
    let (one, work) = prepared(&exits, None, (from, NOW));
    assert_eq!((work, one.finish), (WorkFrom::Nowhere, Finish::Exit));
    exits.work_mgpu_h = Some(5);
    let (one, work) = prepared(&exits, Some(7_200_000), (from, NOW));
    assert_eq!((work, one.work_mgpu_h), (WorkFrom::Policy, Some(5)));
}

#[test]
fn cover_tells_gaps_and_searches_that_were_about_something_else() {
    let job = job("a");
    let to = |minutes: i64| Time(NOW.0 + minutes * MINUTE);
    let span = (Time(NOW.0 - 60 * MINUTE), to(100));
    let mut record = past(100, vec![(0, 100, at(0.2))]);
    let whole = cover(&record, &job, span, 10 * MINUTE);
    assert_eq!((whole.looks, whole.slots, whole.gaps), (100, 1, 0));
    assert_eq!(
        (whole.asked_ms, whole.looked_ms),
        (160 * MINUTE, 100 * MINUTE)
    );
    assert_eq!((whole.complete_ms, whole.narrower), (100 * MINUTE, false));
    // Half an hour without a look.
    record.looks.drain(40..70);
    let holey = cover(&record, &job, span, 10 * MINUTE);
    assert_eq!((holey.gaps, holey.gap_longest_ms), (1, 31 * MINUTE));
    assert_eq!(holey.looked_ms, 79 * MINUTE);
    record.coverages[0][0].query.bounds.total_max = Some(usd(0.01));
    assert!(cover(&record, &job, span, 10 * MINUTE).narrower);
    record.coverages[0][0].query.gpu_name = Some("H100".to_owned());
    let other = cover(&record, &job, span, 10 * MINUTE);
    assert_eq!((other.not_asked_ms, other.complete_ms), (79 * MINUTE, 0));
    record.coverages[0][0] = searched();
    record.coverages[0][0].extent = Extent::Partial;
    let partial = cover(&record, &job, span, 10 * MINUTE);
    assert_eq!((partial.not_asked_ms, partial.complete_ms), (0, 0));
}
