//! Arbitrary changes, offers and snapshots.

use super::common::*;

use chrono_tz::Tz;
use proptest::prelude::*;

use haggle::types::ids::{
    AccountId, HostId, InstanceId, IntentId, MachineId, OfferId, ReplicaId, Slot,
};
use haggle::types::instance::{DestroyWhy, Held, Rental};
use haggle::types::intent::{Effect, Intent, IntentState};
use haggle::types::ledger::{Component, Entry, EntryKind, Payer};
use haggle::types::machine::{MachineRecord, Past};
use haggle::types::money::{Money, Rate};
use haggle::types::offer::{Country, Coverage, Extent, Market, Offer, OfferQuery, Snapshot};
use haggle::types::state::{Change, Ending, Event, JobRecord, ReplicaRecord, Severity, Wish};
use haggle::types::time::Time;

pub(crate) fn any_replica() -> impl Strategy<Value = ReplicaId> {
    ("[a-c]", 0_u32..3).prop_map(|(name, index)| replica_of(&name, index))
}

pub(crate) fn any_time() -> impl Strategy<Value = Time> {
    (0_i64..4_000_000_000_000).prop_map(Time)
}

pub(crate) fn any_money() -> impl Strategy<Value = Money> {
    prop_oneof![
        (-1_000_000_000_000_i64..1_000_000_000_000).prop_map(Money),
        Just(Money::ZERO),
        Just(Money::MAX),
    ]
}

pub(crate) fn any_intent() -> impl Strategy<Value = Change> {
    let state = prop_oneof![
        Just(IntentState::Open),
        any_time().prop_map(|since| IntentState::Unknown { since }),
        (0_u64..8).prop_map(|i| IntentState::Done {
            instance: InstanceId(i)
        }),
        "\\PC{0,12}".prop_map(|reason| IntentState::Refused { reason }),
        Just(IntentState::Void),
    ];
    let effect = prop_oneof![
        any_replica().prop_map(|replica| Effect::Rent {
            replica,
            generation: 3,
            slot: Slot {
                machine: MachineId(9),
                gpus: 4
            },
            offer: OfferId(77),
            rental: Rental::OnDemand,
            price: Rate(1),
            disk_gb: 10,
            storage: Rate(2),
            from: Some(InstanceId(3)),
            traffic: Some((Money(4), Money(5))),
        }),
        (0_u64..8).prop_map(|i| Effect::Copy {
            instance: InstanceId(i),
            from: InstanceId(9),
        }),
        (0_u64..8).prop_map(|i| Effect::SetBid {
            instance: InstanceId(i),
            bid: Rate(5)
        }),
        (0_u64..8).prop_map(|i| Effect::Destroy {
            instance: InstanceId(i),
            why: DestroyWhy::Moved
        }),
    ];
    (0_u64..12, any_time(), effect, any_money(), state).prop_map(
        |(id, at, effect, reserved, state)| {
            Change::Intent(Intent {
                id: IntentId(id),
                at,
                effect,
                reserved,
                state,
            })
        },
    )
}

pub(crate) fn any_held() -> impl Strategy<Value = Change> {
    (
        0_u64..8,
        any_replica(),
        any_time(),
        any_money(),
        "\\PC{0,12}",
    )
        .prop_map(|(id, replica, at, billed, gpu_name)| {
            Change::Held(Box::new(Held {
                replica,
                phase_since: at,
                destroy_sent_at: Some(at),
                ..held(id, &gpu_name, billed.0)
            }))
        })
}

fn any_payer() -> impl Strategy<Value = Payer> {
    (
        proptest::option::of("[a-c]{1,3}"),
        proptest::collection::btree_set("\\PC{0,4}", 0..3),
    )
        .prop_map(|(owner, tags)| Payer { owner, tags })
}

pub(crate) fn any_entry() -> impl Strategy<Value = Change> {
    let kind = prop_oneof![
        Just(EntryKind::Reserve),
        Just(EntryKind::Post),
        Just(EntryKind::Void),
        Just(EntryKind::Accrue),
        Just(EntryKind::Correct),
        Just(EntryKind::Bill),
    ];
    let component = proptest::option::of(prop_oneof![
        Just(Component::Gpu),
        Just(Component::Disk),
        Just(Component::Traffic)
    ]);
    (
        any_time(),
        kind,
        any_replica(),
        0_u64..4,
        proptest::option::of(0_u64..4),
        component,
        any_money(),
        any_payer(),
    )
        .prop_map(
            |(at, kind, replica, intent, instance, component, amount, payer)| {
                Change::Entry(Entry {
                    at,
                    day: at.day(Tz::UTC),
                    payer,
                    kind,
                    replica,
                    intent: IntentId(intent),
                    instance: instance.map(InstanceId),
                    component,
                    amount,
                })
            },
        )
}

pub(crate) fn any_record() -> impl Strategy<Value = Change> {
    prop_oneof![
        ("[a-c]", any_money()).prop_map(|(name, on_demand_equivalent)| Change::Job(JobRecord {
            wish: Wish::Pause,
            on_demand_equivalent,
            ..JobRecord::new(job(&name))
        })),
        (
            any_replica(),
            any::<u32>(),
            proptest::option::of(any_time())
        )
            .prop_map(|(id, generation, at)| Change::Replica(ReplicaRecord {
                generation,
                ending: at.map(|at| (Ending::Failed, at)),
                ..ReplicaRecord::new(id)
            })),
        (0_u64..4, any_time()).prop_map(|(id, at)| Change::Machine(MachineRecord {
            failures: 2,
            cool_until: Some(at),
            highest_bid: Some((Rate(7), at)),
            failing_until: Some(at),
            host: Some(HostId(id)),
            past: Past {
                boot_ms: Some(at.0),
                ..Past::default()
            },
            ..MachineRecord::new(MachineId(id))
        })),
    ]
}

pub(crate) fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        1 => any::<u64>().prop_map(|a| Change::Pin { account: AccountId(a) }),
        1 => any::<bool>().prop_map(|killed| Change::Killed { killed }),
        2 => ("[a-c]", proptest::option::of("\\PC{0,12}"))
            .prop_map(|(key, value)| Change::Wire { key, value }),
        4 => any_intent(),
        4 => any_held(),
        2 => (0_u64..8, any_time())
            .prop_map(|(i, at)| Change::Gone { instance: InstanceId(i), at }),
        3 => any_record(),
        6 => any_entry(),
        1 => (0_i64..4).prop_map(|id| Change::RequestDone { id }),
        1 => (any_time(), "\\PC{0,20}", proptest::option::of(any_replica())).prop_map(
            |(at, text, replica)| Change::Event(Event {
                at,
                severity: Severity::Warning,
                kind: "kind".to_owned(),
                replica,
                instance: Some(InstanceId(3)),
                text,
            })
        ),
        1 => (0_u64..100, any::<bool>()).prop_map(|(n, w)| tick(n, w.then_some("{}"), "{}")),
    ]
}

pub(crate) fn any_batches() -> impl Strategy<Value = Vec<Vec<Change>>> {
    proptest::collection::vec(proptest::collection::vec(any_change(), 0..8), 0..12)
}

pub(crate) fn any_offer(number: u64) -> impl Strategy<Value = Offer> {
    let rate = || proptest::option::of((0_i64..5).prop_map(|n| Rate(n * 100_000)));
    let flag = || proptest::option::of(any::<bool>());
    let float = || proptest::option::of(prop_oneof![Just(0.0_f32), Just(0.1), Just(1e9)]);
    let small = || proptest::option::of(0_u32..3);
    (
        (rate(), rate(), flag(), flag(), float(), float()),
        (small(), small(), flag(), float(), float(), 0_u64..3),
        proptest::collection::vec(0_u32..8, 0..3),
        "(RTX 4090|H100 SXM|\\PC{1,6})",
    )
        .prop_map(move |(live, spec, gpu_ids, gpu_name)| Offer {
            // Ids come and go with equal content, and a machine has several offers.
            id: OfferId(number * 10 + spec.5),
            machine: MachineId(number % 5),
            gpus: 1 + (number % 2) as u32,
            host: spec.0.map(|h| HostId(u64::from(h))),
            machine_gpus: spec.1,
            gpu_ids,
            gpu_name: gpu_name.as_str().into(),
            gpu_ram_mb: spec.0,
            compute_cap: spec.1,
            cuda_max: spec.0,
            driver_version: spec.1,
            nvlink_gb_s: spec.3,
            pcie_gb_s: spec.4,
            cpu_cores: spec.3,
            cpu_ram_mb: spec.0,
            disk_gb: live.4,
            disk_mb_s: spec.4,
            inet_down_mbit_s: live.5,
            inet_up_mbit_s: live.4,
            inet_down_price: spec.0.map(|n| Money(i64::from(n))),
            inet_up_price: spec.1.map(|n| Money(-i64::from(n))),
            storage_price: spec.0.map(|n| Money(i64::from(n) * 150_000_000)),
            reliability: live.5,
            verified: spec.2,
            datacenter: live.3,
            static_ip: spec.2,
            direct_ports: spec.1,
            country: spec.2.map(|_| Country(*b"NO")),
            rentable: live.2,
            rented: live.3,
            ends_at: live.0.map(|r| Time(r.0)),
            on_demand: live.0,
            floor: live.1,
            dlperf: live.4,
        })
}

pub(crate) fn any_coverage() -> impl Strategy<Value = Vec<Coverage>> {
    let extent = prop_oneof![
        Just(Extent::Complete),
        Just(Extent::Partial),
        proptest::option::of(any_time()).prop_map(|since| Extent::Stale { since }),
    ];
    proptest::collection::vec(
        extent.prop_map(|extent| Coverage {
            query: OfferQuery {
                market: Market::OnDemand,
                gpu_name: Some("RTX 4090".to_owned()),
                machine: None,
                disk_gb: 10,
                open: false,
                bounds: haggle::types::offer::Bounds::default(),
            },
            extent,
            malformed: 0,
        }),
        0..2,
    )
}

/// Each snapshot keeps some offers of the one before as they were, and draws the others anew.
pub(crate) fn any_snapshots() -> impl Strategy<Value = Vec<Snapshot>> {
    const OFFERS: u64 = 10;
    let fresh: Vec<_> = (0..OFFERS)
        .map(|n| proptest::option::of(any_offer(n)))
        .collect();
    let steps = (
        fresh,
        proptest::collection::vec(0_u8..10, OFFERS as usize),
        any_coverage(),
    );
    proptest::collection::vec(steps, 1..10).prop_map(|steps| {
        let mut now: Vec<Option<Offer>> = vec![None; OFFERS as usize];
        let mut snapshots = Vec::new();
        for (number, (fresh, dice, coverage)) in steps.into_iter().enumerate() {
            for ((slot, fresh), die) in now.iter_mut().zip(fresh).zip(dice) {
                match (die, slot.as_mut()) {
                    (0..=2, _) => *slot = fresh,
                    (3..=4, Some(offer)) => offer.floor = fresh.and_then(|f| f.floor),
                    _ => {}
                }
            }
            let mut offers: Vec<Offer> = now.iter().flatten().cloned().collect();
            offers.sort_by_key(|offer| (offer.slot(), offer.id));
            snapshots.push(Snapshot {
                at: Time(number as i64 * 60_000),
                offers,
                coverage,
            });
        }
        snapshots
    })
}
