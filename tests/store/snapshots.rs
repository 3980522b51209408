//! The market's history.

use super::common::*;
use super::strategies::*;

use proptest::prelude::*;

use haggle::ports::Store;
use haggle::types::ids::{MachineId, Slot};
use haggle::types::money::Rate;
use haggle::types::offer::{Offer, Snapshot};
use haggle::types::time::Time;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_snapshot_can_be_had_again_whole(snapshots in any_snapshots(), reopen_at in 0_usize..10) {
        let home = Home::new();
        let mut store = home.open();
        prop_assert_eq!(store.last_snapshot().unwrap(), None);
        let mut given = Vec::new();
        for (number, snapshot) in snapshots.into_iter().enumerate() {
            if number == reopen_at {
                drop(store);
                store = home.open();
            }
            let id = store.snapshot(&snapshot).unwrap();
            given.push((id, snapshot));
            prop_assert_eq!(store.last_snapshot().unwrap(), given.last().cloned());
        }
        let reader = home.read();
        prop_assert_eq!(reader.last_snapshot().unwrap(), given.last().cloned());
        for (id, snapshot) in &given {
            prop_assert_eq!(reader.snapshot(*id).unwrap(), Some(snapshot.clone()));
        }

        // History agrees with what was given, and forgetting it takes nothing of what is kept.
        for machine in 0..5 {
            for gpus in 1..=2 {
                let slot = Slot { machine: MachineId(machine), gpus };
                let lists = |s: &Snapshot| s.offers.iter().any(|o| o.slot() == slot);
                let mut listed = given.iter().filter(|(_, s)| lists(s)).map(|(_, s)| s.at);
                let history = reader.slot_history(slot).unwrap();
                let first = listed.next();
                prop_assert_eq!(history.as_ref().map(|h| h.first_seen), first);
                prop_assert_eq!(history.as_ref().map(|h| h.last_seen), listed.next_back().or(first));
                let last = &given.last().unwrap().1;
                prop_assert_eq!(history.is_some_and(|h| h.listed), lists(last));
            }
        }
        let middle = given[given.len() / 2].1.at;
        store.prune(middle).unwrap();
        for (id, snapshot) in &given {
            let kept = (snapshot.at >= middle).then(|| snapshot.clone());
            prop_assert_eq!(reader.snapshot(*id).unwrap(), kept);
        }
        store.prune(Time(i64::MAX)).unwrap();
        drop(store);
        prop_assert_eq!(home.open().last_snapshot().unwrap(), given.last().cloned());
        // And a next one still differs from it in what it should.
        let (id, mut next) = given.pop().unwrap();
        next.at = Time(next.at.0 + 1);
        next.offers.truncate(3);
        let mut store = home.open();
        prop_assert!(store.snapshot(&next).unwrap() > id);
        prop_assert_eq!(home.open().last_snapshot().unwrap().map(|(_, s)| s), Some(next));
    }
}

#[test]
fn a_slots_history_tells_what_changed_when() {
    let home = Home::new();
    let mut store = home.open();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let tree = any_offer(3).new_tree(&mut runner).unwrap();
    let mut offer = proptest::strategy::ValueTree::current(&tree);
    offer.floor = Some(Rate(1));
    let mut put = |at: i64, offers: Vec<Offer>| {
        let coverage = Vec::new();
        let at = Time(at);
        store
            .snapshot(&Snapshot {
                at,
                offers,
                coverage,
            })
            .unwrap()
    };
    put(10, vec![offer.clone()]);
    put(20, vec![offer.clone()]);
    let dearer = Offer {
        floor: Some(Rate(2)),
        ..offer.clone()
    };
    put(30, vec![dearer.clone()]);
    put(40, vec![]);
    let history = home.read().slot_history(offer.slot()).unwrap().unwrap();
    assert_eq!(
        (history.first_seen, history.last_seen),
        (Time(10), Time(30))
    );
    assert!(!history.listed);
    let spans: Vec<_> = history
        .versions
        .iter()
        .map(|v| (v.from.0, v.to.map(|t| t.0), v.offer.clone()))
        .collect();
    assert_eq!(
        spans,
        [
            (10, Some(30), offer.clone()),
            (30, Some(40), dearer.clone())
        ]
    );
    put(50, vec![dearer]);
    let history = home.read().slot_history(offer.slot()).unwrap().unwrap();
    assert!(history.listed);
    assert_eq!(
        (history.first_seen, history.last_seen),
        (Time(10), Time(50))
    );
    let elsewhere = Slot {
        machine: MachineId(404),
        gpus: 1,
    };
    assert_eq!(home.read().slot_history(elsewhere).unwrap(), None);
}

#[test]
fn offers_out_of_order_or_twice_are_set_right() {
    let mut store = memory();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let offers: Vec<Offer> = (0..8)
        .map(|n| {
            let tree = any_offer(n).new_tree(&mut runner).unwrap();
            proptest::strategy::ValueTree::current(&tree)
        })
        .collect();
    let mut sorted = offers.clone();
    sorted.sort_by_key(|offer| (offer.slot(), offer.id));
    let mut slip = offers;
    slip.push(slip[0].clone());
    let snapshot = |offers| Snapshot {
        at: Time(1),
        offers,
        coverage: Vec::new(),
    };
    store.snapshot(&snapshot(slip)).unwrap();
    let (_, stored) = store.last_snapshot().unwrap().unwrap();
    assert_eq!(stored, snapshot(sorted));
}
