//! What the store's tests share: a directory of their own, and values to store.

use std::path::PathBuf;

use chrono_tz::Tz;
use haggle::store::{Reader, SqliteStore};
use haggle::types::ids::{
    HostId, Installation, InstanceId, IntentId, JobName, MachineId, ReplicaId, Slot,
};
use haggle::types::instance::{Bringing, Held, Phase, Rental};
use haggle::types::ledger::{Component, Entry, EntryKind, Payer};
use haggle::types::machine::Odds;
use haggle::types::money::{Money, Rate};
use haggle::types::start::GpuUse;
use haggle::types::state::{Change, JobRecord, State, TickRecord};
use haggle::types::time::Time;

pub(crate) const SEED: u64 = 0x5eed;

pub(crate) struct Home {
    pub(crate) directory: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.directory.path().join("haggle.db")
    }

    pub(crate) fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.database(), None, SEED).unwrap()
    }

    pub(crate) fn read(&self) -> Reader {
        Reader::open(&self.database()).unwrap()
    }
}

pub(crate) fn memory() -> SqliteStore {
    SqliteStore::open_in_memory(&Installation::from_seed(SEED)).unwrap()
}

pub(crate) fn job(name: &str) -> JobName {
    name.parse().unwrap()
}

pub(crate) fn replica_of(name: &str, index: u32) -> ReplicaId {
    ReplicaId {
        job: job(name),
        index,
    }
}

pub(crate) fn held(id: u64, gpu_name: &str, billed: i64) -> Held {
    Held {
        id: InstanceId(id),
        intent: IntentId(id + 100),
        replica: replica_of("train", 0),
        generation: 1,
        slot: Slot {
            machine: MachineId(id + 1000),
            gpus: 2,
        },
        host: Some(HostId(5)),
        gpu_ids: vec![0, 1],
        gpu_name: gpu_name.to_owned(),
        rental: Rental::Bid,
        price: Rate(300_000_000),
        bid_before_park: None,
        last_bid: Some(Rate(9)),
        storage: Rate(2_000_000),
        disk_gb: 20,
        traffic_prices: None,
        created_at: Time(1000),
        ends_at: Some(Time(9_999_999)),
        ssh: Some("ssh4.example:2222".to_owned()),
        phase: Phase::Running,
        phase_since: Time(2000),
        parked: false,
        stop_asked: false,
        first_ran_at: Some(Time(2000)),
        raised_at: None,
        bid_sent_at: None,
        raises: 0,
        accrued_to: Time(3000),
        billed_ms: 1000,
        run_ms: 1000,
        spent_gpu: Money(1),
        spent_disk: Money(2),
        spent_traffic: Money(3),
        billed: Money(billed),
        on_demand_rate: None,
        destroying: None,
        destroy_sent_at: None,
        destroying_since: None,
        destroyed_at: None,
        tail: None,
        relabelled_at: None,
        runner: None,
        bringing: Some(Bringing {
            from: InstanceId(id + 1),
            also: vec![InstanceId(3)],
            asks_taken: 1,
            asks_unknown: 2,
            refused: 1,
            refused_why: Some("no such path".to_owned()),
            agains: 2,
            again_at: Some(Time(1_500)),
            run: IntentId(4),
            bytes: 9_000_000_000,
            ready_at: Some(Time(5)),
            begun_at: Some(Time(6)),
            asked_at: Some(Time(7)),
            accepted: true,
            accepted_at: Some(Time(8)),
            told: Some("ab".repeat(32)),
            verified: Some("ab".repeat(32)),
            as_told: true,
            own: Some("cd".repeat(32)),
            anew: false,
            opened: true,
            opened_at: Some(Time(9)),
            kept_at: None,
        }),
        lost_work: std::collections::BTreeMap::new(),
        asked: None,
        coming_up: None,
        start_fault: None,
        gpu_use: GpuUse::default(),
        odds: Some(Odds {
            outbid_ppm_h: 51_000,
            lost_ppm_h: 5_000,
        }),
        exposed_ms: 7,
        outbid_at: Some(Time(10)),
        copies_failed: 2,
        copied: Money(1),
        kept_gpu_ms: 5,
    }
}

pub(crate) fn tick(number: u64, world: Option<&str>, plan: &str) -> Change {
    Change::Tick(Box::new(TickRecord {
        tick: number,
        at: Time(number as i64 * 60_000),
        snapshot: (number > 1).then_some(number as i64),
        config_hash: "c".repeat(64),
        jobs_hash: "j".repeat(64),
        world: world.map(str::to_owned),
        world_hash: "w".repeat(64),
        plan: plan.to_owned(),
    }))
}

pub(crate) fn spent(
    at: i64,
    name: &str,
    instance: u64,
    component: Component,
    amount: i64,
) -> Change {
    Change::Entry(Entry {
        at: Time(at),
        day: Time(at).day(Tz::UTC),
        payer: Payer::default(),
        kind: EntryKind::Accrue,
        replica: replica_of(name, 0),
        intent: IntentId(1),
        instance: Some(InstanceId(instance)),
        component: Some(component),
        amount: Money(amount),
    })
}

pub(crate) fn fold<'a>(from: State, changes: impl IntoIterator<Item = &'a Change>) -> State {
    changes.into_iter().fold(from, |mut state, change| {
        state.apply(change);
        state
    })
}

/// A batch that shows in the state whether it is there, and whether it is whole.
pub(crate) fn numbered_batch(number: u64) -> Vec<Change> {
    vec![
        Change::Held(Box::new(held(number % 7, "H100", number as i64))),
        spent(number as i64, "train", number % 7, Component::Gpu, 1),
        Change::Job(JobRecord {
            on_demand_equivalent: Money(number as i64),
            ..JobRecord::new(job("train"))
        }),
        tick(number, None, "{}"),
    ]
}
