//! Reports: the ledger, events, ticks, what ended, and forgetting.

use super::common::*;
use super::strategies::any_offer;
use std::ops::ControlFlow;
use std::path::Path;

use chrono_tz::Tz;
use proptest::strategy::{Strategy, ValueTree};

use haggle::ports::Store;
use haggle::store::{EntryFilter, Export, Group, append_request};
use haggle::types::ids::{InstanceId, IntentId, JobName, ReplicaId};
use haggle::types::intent::{Effect, Intent, IntentState};
use haggle::types::ledger::{Component, Entry, EntryKind, Payer};
use haggle::types::money::{Money, Rate};
use haggle::types::offer::Snapshot;
use haggle::types::state::{Ask, Change, Event, Severity};
use haggle::types::time::Time;

#[test]
fn forgetting_is_bounded_and_spares_what_is_needed() {
    let home = Home::new();
    let mut store = home.open();
    let intent = |id: u64, state| {
        Change::Intent(Intent {
            id: IntentId(id),
            at: Time(1),
            effect: Effect::Stop {
                instance: InstanceId(1),
            },
            reserved: Money(1),
            state,
        })
    };
    let mut changes = vec![
        intent(101, IntentState::Void),
        intent(102, IntentState::Void),
        intent(103, IntentState::Open),
        intent(104, IntentState::Void),
        // Made by intent 101.
        Change::Held(Box::new(held(1, "H100", 0))),
        spent(1, "train", 1, Component::Gpu, 5),
        tick(1, None, "{}"),
        tick(2, None, "{}"),
    ];
    changes.extend((0..7000).map(|n| {
        Change::Event(Event {
            at: Time(n),
            severity: Severity::Info,
            kind: "test".to_owned(),
            replica: None,
            instance: None,
            text: String::new(),
        })
    }));
    store.commit(&changes).unwrap();
    append_request(&home.database(), Time(1), &Ask::Kill).unwrap();
    let before = store.load().unwrap();
    let events = |home: &Home| home.read().events(None, 10_000).unwrap().len();

    store.prune(Time(6500)).unwrap();
    let left = events(&home);
    assert!((2000..=2100).contains(&left), "{left}");
    store.prune(Time(6500)).unwrap();
    assert_eq!(events(&home), 500);
    store.prune(Time(i64::MAX)).unwrap();
    assert_eq!(events(&home), 0);

    assert_eq!(store.load().unwrap(), before);
    assert_eq!(store.requests().unwrap().len(), 1);
    let reader = home.read();
    assert_eq!(reader.entries(&EntryFilter::default()).unwrap().len(), 1);
    assert_eq!(reader.ticks(10).unwrap().len(), 1);
    let kept: Vec<u64> = reader.intents(10).unwrap().iter().map(|i| i.id.0).collect();
    assert_eq!(kept, [104, 103, 101]);
}

fn rows(home: &Home, what: Export, from: i64, to: i64) -> Vec<String> {
    let mut rows = Vec::new();
    home.read()
        .export(what, (Time(from), Time(to)), |cells| {
            rows.push(serde_json::to_string(cells).unwrap());
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

#[test]
fn what_is_kept_is_exported_with_its_units_for_the_time_asked_for() {
    let home = Home::new();
    let mut store = home.open();
    let event = |at, text: &str| {
        Change::Event(Event {
            at: Time(at),
            severity: Severity::Alarm,
            kind: "test".to_owned(),
            replica: None,
            instance: Some(InstanceId(u64::MAX)),
            text: text.to_owned(),
        })
    };
    store
        .commit(&[
            spent(1_000, "train", 7, Component::Gpu, 1_500_000_000),
            spent(2_000, "train", 7, Component::Disk, 5),
            event(1_000, "first, \"and\" <last>"),
            event(2_000, "later"),
            Change::Held(Box::new(held(1, "H100", 5))),
            Change::Held(Box::new(held(2, "H100", 2_000_000_000))),
            Change::Gone {
                instance: InstanceId(1),
                at: Time(1_500),
            },
        ])
        .unwrap();
    let events = rows(&home, Export::Events, 1_000, 2_000);
    assert_eq!(
        events,
        [format!(
            r#"["1970-01-01T00:00:01.000Z","alarm","test",null,null,{},"first, \"and\" <last>"]"#,
            u64::MAX
        )]
    );
    let ledger = rows(&home, Export::Ledger, 0, i64::MAX);
    assert_eq!(ledger.len(), 2);
    assert!(ledger[0].ends_with(r#","gpu","1.50"]"#), "{}", ledger[0]);
    assert!(
        ledger[1].ends_with(r#","disk","0.000000005"]"#),
        "{}",
        ledger[1]
    );
    let instances = rows(&home, Export::Instances, 0, i64::MAX);
    assert_eq!(instances.len(), 2);
    assert!(
        instances[0].ends_with(r#""H100","1970-01-01T00:00:01.500Z","0.000000005"]"#),
        "{instances:?}"
    );
    assert!(
        instances[1].ends_with(r#""H100",null,"2.00"]"#),
        "{instances:?}"
    );
    let later = rows(&home, Export::Instances, 1_501, i64::MAX);
    assert_eq!(later.len(), 1, "one that has not ended is of every time");
    for what in [
        Export::Offers,
        Export::Events,
        Export::Ledger,
        Export::Decisions,
        Export::Instances,
    ] {
        let columns = what.columns().count();
        for row in rows(&home, what, i64::MIN, i64::MAX) {
            let cells: Vec<serde_json::Value> = serde_json::from_str(&row).unwrap();
            assert_eq!(cells.len(), columns);
        }
    }
}

/// A version of an offer counts for every moment at which it stood.
#[test]
fn offers_are_exported_as_they_changed() {
    let home = Home::new();
    let mut store = home.open();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let tree = any_offer(3).new_tree(&mut runner).unwrap();
    let mut offer = tree.current();
    for (at, dollars) in [(1_000, 1), (2_000, 1), (3_000, 2)] {
        offer.on_demand = Some(Rate(dollars * 1_000_000_000));
        let snapshot = Snapshot {
            at: Time(at),
            offers: vec![offer.clone()],
            coverage: Vec::new(),
        };
        store.snapshot(&snapshot).unwrap();
    }
    let spans = |from, to| {
        let rows = rows(&home, Export::Offers, from, to).into_iter();
        let cells = rows.map(|row| serde_json::from_str::<Vec<serde_json::Value>>(&row).unwrap());
        let spans = cells.map(|cells| (cells[0].clone(), cells[1].clone(), cells[9].clone()));
        spans.collect::<Vec<_>>()
    };
    let time = |seconds: u32| serde_json::json!(format!("1970-01-01T00:00:0{seconds}.000Z"));
    let first = (time(1), time(3), serde_json::json!("1.00"));
    let second = (time(3), serde_json::Value::Null, serde_json::json!("2.00"));
    assert_eq!(spans(0, 10_000), [first.clone(), second.clone()]);
    assert_eq!(spans(2_500, 2_600), [first]);
    assert_eq!(spans(3_001, 10_000), [second]);
}

#[test]
fn what_ended_is_kept_as_it_was_last() {
    let home = Home::new();
    let mut store = home.open();
    let last = held(1, "H100", 77);
    store
        .commit(&[
            Change::Held(Box::new(held(1, "H100", 5))),
            Change::Held(Box::new(held(2, "H100", 5))),
            Change::Held(Box::new(last.clone())),
            Change::Gone {
                instance: InstanceId(1),
                at: Time(900),
            },
            // Nothing is known of this one.
            Change::Gone {
                instance: InstanceId(3),
                at: Time(900),
            },
        ])
        .unwrap();
    let ended = home.read().ended(10).unwrap();
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].at, &ended[0].held), (Time(900), &last));
    assert_eq!(store.ended_since(Time(900)).unwrap(), [last]);
    assert_eq!(store.ended_since(Time(901)).unwrap(), []);
    let held: Vec<u64> = store.load().unwrap().held.keys().map(|i| i.0).collect();
    assert_eq!(held, [2]);
}

#[test]
fn spending_adds_up_by_job_gpu_day_and_month() {
    // 2026-03-31T22:30Z is already April in Oslo; 45 minutes matter in Kathmandu.
    const EVENING: i64 = 1_774_996_200_000;
    let home = Home::new();
    let mut store = home.open();
    let reserve = Change::Entry(Entry {
        at: Time(EVENING),
        day: Time(EVENING).day(Tz::UTC),
        payer: Payer::default(),
        kind: EntryKind::Reserve,
        replica: replica_of("train", 0),
        intent: IntentId(9),
        instance: None,
        component: None,
        amount: Money(1_000_000),
    });
    let correct = Change::Entry(Entry {
        at: Time(EVENING - 86_400_000),
        day: Time(EVENING - 86_400_000).day(Tz::UTC),
        payer: Payer::default(),
        kind: EntryKind::Correct,
        replica: replica_of("train", 1),
        intent: IntentId(1),
        instance: Some(InstanceId(2)),
        component: Some(Component::Traffic),
        amount: Money(-3),
    });
    store
        .commit(&[
            Change::Held(Box::new(held(1, "H100", 40))),
            Change::Held(Box::new(held(2, "RTX 4090", 60))),
            Change::Gone {
                instance: InstanceId(2),
                at: Time(EVENING),
            },
            spent(EVENING, "train", 1, Component::Gpu, 100),
            spent(EVENING, "train", 1, Component::Disk, 10),
            spent(EVENING, "batch", 2, Component::Gpu, 7),
            spent(EVENING, "batch", 404, Component::Gpu, 1),
            reserve,
            correct,
        ])
        .unwrap();
    let reader = home.read();
    let by = |group, zone| {
        let rows = reader.spend_by(group, zone).unwrap();
        rows.iter()
            .map(|s| {
                let parts = [s.gpu, s.disk, s.traffic, s.total].map(|m| m.0);
                (s.key.clone(), parts, s.billed.map(|m| m.0))
            })
            .collect::<Vec<_>>()
    };
    let row = |key: &str, parts, billed| (key.to_owned(), parts, billed);
    assert_eq!(
        by(Group::Job, Tz::UTC),
        [
            row("batch", [8, 0, 0, 8], Some(0)),
            row("train", [100, 10, -3, 107], Some(100)),
        ]
    );
    assert_eq!(
        by(Group::Gpu, Tz::UTC),
        [
            row("H100", [100, 10, 0, 110], Some(40)),
            row("RTX 4090", [7, 0, -3, 4], Some(60)),
            row("unknown", [1, 0, 0, 1], Some(0)),
        ]
    );
    assert_eq!(
        by(Group::Day, Tz::UTC),
        [
            row("2026-03-30", [0, 0, -3, -3], None),
            row("2026-03-31", [108, 10, 0, 118], None),
        ]
    );
    assert_eq!(
        by(Group::Month, Tz::Europe__Oslo),
        [
            row("2026-03", [0, 0, -3, -3], None),
            row("2026-04", [108, 10, 0, 118], None),
        ]
    );
    assert_eq!(by(Group::Day, Tz::Asia__Kathmandu)[1].0, "2026-04-01");
    let balances = reader.balances().unwrap();
    let train = (job("train"), Money(107), Money(1_000_000));
    assert_eq!(balances, [(job("batch"), Money(8), Money::ZERO), train]);
}

#[test]
fn entries_and_events_are_found_by_what_is_asked() {
    let home = Home::new();
    let mut store = home.open();
    let event = |at: i64, replica: Option<ReplicaId>, text: &str| {
        Change::Event(Event {
            at: Time(at),
            severity: Severity::Alarm,
            kind: "outbid".to_owned(),
            replica,
            instance: Some(InstanceId(u64::MAX)),
            text: text.to_owned(),
        })
    };
    store
        .commit(&[
            spent(10, "train", 1, Component::Gpu, 1),
            spent(20, "batch", 1, Component::Disk, 2),
            spent(30, "train", 2, Component::Gpu, 3),
            event(1, Some(replica_of("train", 4)), "one"),
            event(2, None, "two"),
            event(3, Some(replica_of("batch", 0)), "three"),
        ])
        .unwrap();
    let reader = home.read();
    let amounts = |filter: EntryFilter| -> Vec<i64> {
        let entries = reader.entries(&filter).unwrap();
        entries.iter().map(|entry| entry.amount.0).collect()
    };
    let all = EntryFilter::default;
    assert_eq!(amounts(all()), [1, 2, 3]);
    let job_filter = Some(job("train"));
    assert_eq!(
        amounts(EntryFilter {
            job: job_filter,
            ..all()
        }),
        [1, 3]
    );
    let instance = Some(InstanceId(1));
    assert_eq!(amounts(EntryFilter { instance, ..all() }), [1, 2]);
    let (from, to) = (Some(Time(20)), Some(Time(30)));
    assert_eq!(amounts(EntryFilter { from, to, ..all() }), [2]);
    assert_eq!(
        amounts(EntryFilter {
            limit: Some(2),
            ..all()
        }),
        [2, 3]
    );
    let intent = Some(IntentId(5));
    assert!(amounts(EntryFilter { intent, ..all() }).is_empty());

    let texts = |job: Option<&JobName>, limit| -> Vec<String> {
        let events = reader.events(job, limit).unwrap();
        events.into_iter().map(|event| event.text).collect()
    };
    assert_eq!(texts(None, 2), ["two", "three"]);
    assert_eq!(texts(Some(&job("train")), 9), ["one"]);
    let one = &reader.events(Some(&job("train")), 9).unwrap()[0];
    assert_eq!(one.replica, Some(replica_of("train", 4)));
    assert_eq!(one.instance, Some(InstanceId(u64::MAX)));
    assert_eq!(one.severity, Severity::Alarm);
}

#[test]
fn the_tick_that_acted_for_a_job_is_found() {
    let home = Home::new();
    let mut store = home.open();
    let plan =
        |name: &str| format!(r#"{{"actions":[{{"replica":{{"job":"{name}","index":0}}}}]}}"#);
    store
        .commit(&[
            tick(1, Some("{\"world\":1}"), &plan("train")),
            tick(2, Some("{\"world\":2}"), &plan("batch")),
            tick(3, None, &plan("train")),
            tick(4, Some("{\"world\":4}"), "not JSON"),
            tick(
                5,
                Some("{\"world\":5}"),
                r#"{"actions":[{"replica":null}]}"#,
            ),
        ])
        .unwrap();
    let reader = home.read();
    let found = |job: Option<&JobName>| {
        let found = reader.tick_with_world(job).unwrap();
        found.map(|tick| tick.tick)
    };
    assert_eq!(found(Some(&job("train"))), Some(1));
    assert_eq!(found(Some(&job("batch"))), Some(2));
    assert_eq!(found(Some(&job("other"))), None);
    assert_eq!(found(None), Some(5));
    let newest = reader.ticks(2).unwrap();
    assert_eq!(newest.iter().map(|t| t.tick).collect::<Vec<_>>(), [5, 4]);
    assert_eq!(
        Change::Tick(Box::new(newest[1].clone())),
        tick(4, Some("{\"world\":4}"), "not JSON")
    );
}

#[test]
fn a_reader_works_beside_the_daemon_and_without_it() {
    let home = Home::new();
    let mut store = home.open();
    let reader = home.read();
    store.commit(&numbered_batch(1)).unwrap();
    assert_eq!(reader.state().unwrap().ticks, 1);
    store.commit(&numbered_batch(2)).unwrap();
    assert_eq!(reader.state().unwrap().ticks, 2);
    drop(reader);
    drop(store);
    // Nobody has it: no log beside it.
    assert!(!Path::new(&format!("{}-wal", home.database().display())).exists());
    let reader = home.read();
    assert_eq!(reader.state().unwrap().ticks, 2);
    // A daemon that starts is not held up by the reader, nor the reader by it.
    let mut store = home.open();
    store.commit(&numbered_batch(3)).unwrap();
    assert_eq!(reader.state().unwrap().ticks, 3);
}
