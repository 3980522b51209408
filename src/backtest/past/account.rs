//! An account on the recorded market: what it rents runs where its bid reaches the recorded floor.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::price::{IMAGE_GB, INET_DOWN_UNKNOWN_MBIT_S, MBIT_A_GB};
use crate::types::ids::{InstanceId, IntentId, Label, MachineId, ReplicaId};
use crate::types::instance::{Instance, Listing, RawState, Rental};
use crate::types::money::{BID_PARKED, Money, Rate};
use crate::types::offer::Offer;
use crate::types::time::Time;

use super::tape::{Seen, Standing};

/// From a stopped container that has its GPUs back until it runs, in milliseconds: an assumption. Its image
/// is there.
const RESUMES_MS: i64 = 30_000;

/// What the account owes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    /// For GPUs, while containers are up.
    pub gpu: Money,
    /// Of that, at the hosts' fixed rates.
    pub on_demand: Money,
    /// For disks, from when an instance is made until it is destroyed.
    pub disk: Money,
    /// For what the policy expects to be loaded down and up in each stay.
    pub traffic: Money,
}

impl Bill {
    /// All of it.
    pub fn total(self) -> Money {
        self.gpu + self.disk + self.traffic
    }
}

/// An instance.
#[derive(Clone, Debug)]
pub(super) struct Rented {
    pub(super) label: Label,
    pub(super) offer: Offer,
    pub(super) rental: Rental,
    pub(super) price: Rate,
    pub(super) storage: Rate,
    disk_gb: u32,
    made: Time,
    /// Whether it is meant to run.
    wanted: bool,
    /// Since when its container is up, or from when on it will be; `None`: it has no GPUs.
    up: Option<Time>,
    ever_up: bool,
}

impl Rented {
    pub(super) fn is_up(&self, now: Time) -> bool {
        self.up.is_some_and(|up| up <= now)
    }

    pub(super) fn has_gpus(&self) -> bool {
        self.up.is_some()
    }

    /// Whether it has to run at this look: a bid that the floor does not pass, or a fixed rate.
    fn may_run(&self, seen: &Seen<'_>) -> bool {
        if !self.wanted || self.offer.ends_at.is_some_and(|ends| ends <= seen.at) {
            return false;
        }
        if self.rental == Rental::OnDemand {
            return true;
        }
        self.price > BID_PARKED
            && match seen.standing(&self.offer) {
                Standing::Floor(Some(floor)) => floor <= self.price,
                Standing::Floor(None) | Standing::Unseen => self.has_gpus(),
                Standing::Taken => false,
            }
    }

    fn row(&self, id: InstanceId, now: Time) -> Instance {
        let (cur, actual) = match self.up {
            Some(up) if up <= now => (RawState::Running, RawState::Running),
            Some(_) => (RawState::Running, RawState::Loading),
            None => (RawState::Stopped, RawState::Exited),
        };
        let intended = if self.wanted {
            RawState::Running
        } else {
            RawState::Stopped
        };
        Instance {
            id,
            label: Some(self.label.to_string()),
            machine: Some(self.offer.machine),
            host: self.offer.host,
            gpus: Some(self.offer.gpus),
            gpu_ids: self.offer.gpu_ids.clone(),
            gpu_name: Some(self.offer.gpu_name.to_string()),
            is_bid: Some(self.rental == Rental::Bid),
            price: Some(self.price),
            storage: Some(self.storage),
            burn: None,
            cur_state: Some(cur),
            intended: Some(intended),
            next_state: Some(intended),
            actual: Some(actual),
            status_msg: None,
            started_at: Some(self.made),
            up_ms: self.up.map(|up| now.ms_since(up).max(0)),
            ends_at: self.offer.ends_at,
            disk_gb: Some(self.disk_gb),
            ssh: None,
            gpu_util: None,
        }
    }
}

/// What is rented.
pub(super) struct Order {
    pub(super) rental: Rental,
    pub(super) price: Rate,
    pub(super) storage: Rate,
    pub(super) disk_gb: u32,
    /// Gigabytes down and up in the stay.
    pub(super) traffic: (f64, f64),
}

/// All that it has rented.
pub(super) struct Account<'a> {
    pub(super) rented: BTreeMap<InstanceId, Rented>,
    /// How long containers took to come up where ours did, by machine, in milliseconds.
    boots: &'a BTreeMap<MachineId, i64>,
    destroyed: BTreeMap<InstanceId, Time>,
    made: u64,
    pub(super) bill: Bill,
}

impl<'a> Account<'a> {
    pub(super) fn new(boots: &'a BTreeMap<MachineId, i64>) -> Self {
        Self {
            rented: BTreeMap::new(),
            boots,
            destroyed: BTreeMap::new(),
            made: 0,
            bill: Bill::default(),
        }
    }

    /// Takes up a look: who has his GPUs from now on, and who has them no more.
    pub(super) fn look(&mut self, seen: &Seen<'_>) {
        for rented in self.rented.values_mut() {
            if !rented.may_run(seen) {
                rented.up = None;
            } else if rented.up.is_none() {
                let takes = if rented.ever_up {
                    RESUMES_MS
                } else {
                    pull_ms(&rented.offer, self.boots)
                };
                rented.up = Some(after(seen.at, takes));
            }
            rented.ever_up |= rented.is_up(seen.at);
        }
    }

    /// Bills the time between two looks.
    pub(super) fn passes(&mut self, from: Time, to: Time) {
        for rented in self.rented.values() {
            let ms = to.ms_since(from).max(0);
            self.bill.disk += rented.storage.cost_ms(ms);
            let Some(up) = rented.up else { continue };
            // What is over by its end is stopped then, whoever looks.
            let ends = rented.offer.ends_at.map_or(to, |ends| ends.min(to));
            let gpu = rented
                .price
                .cost_ms(ends.ms_since(from.max(up)).clamp(0, ms));
            self.bill.gpu += gpu;
            if rented.rental == Rental::OnDemand {
                self.bill.on_demand += gpu;
            }
        }
    }

    /// Rents an offer.
    pub(super) fn rent(
        &mut self,
        (label, offer): (Label, &Offer),
        order: &Order,
        now: Time,
    ) -> InstanceId {
        self.made += 1;
        let id = InstanceId(self.made);
        let (down, up) = order.traffic;
        for (gigabytes, price) in [(down, offer.inet_down_price), (up, offer.inet_up_price)] {
            let cost = gigabytes * price.unwrap_or_default().as_dollars();
            self.bill.traffic += Money::from_dollars(cost).unwrap_or_default();
        }
        let rented = Rented {
            label,
            offer: offer.clone(),
            rental: order.rental,
            price: order.price,
            storage: order.storage,
            disk_gb: order.disk_gb,
            made: now,
            wanted: true,
            up: Some(after(now, pull_ms(offer, self.boots))),
            ever_up: false,
        };
        self.rented.insert(id, rented);
        id
    }

    pub(super) fn set_bid(&mut self, id: InstanceId, bid: Rate) {
        if let Some(rented) = self.rented.get_mut(&id) {
            rented.price = bid;
        }
    }

    pub(super) fn wants(&mut self, id: InstanceId, runs: bool) {
        if let Some(rented) = self.rented.get_mut(&id) {
            rented.wanted = runs;
        }
    }

    pub(super) fn destroy(&mut self, id: InstanceId, now: Time) {
        self.rented.remove(&id);
        self.destroyed.entry(id).or_insert(now);
    }

    /// What is proven gone: destroyed at least so many milliseconds ago.
    pub(super) fn gone(&self, now: Time, after_ms: i64) -> BTreeSet<InstanceId> {
        let old = |at: Time| now.ms_since(at) >= after_ms;
        let gone = self.destroyed.iter().filter(|(_, at)| old(**at));
        gone.map(|(id, _)| *id).collect()
    }

    /// Forgets what was settled as gone.
    pub(super) fn settled(&mut self, held: impl Fn(InstanceId) -> bool) {
        self.destroyed.retain(|id, _| held(*id));
    }

    pub(super) fn listing(&self, now: Time) -> Listing {
        let rows = self.rented.iter().map(|(id, rented)| rented.row(*id, now));
        Listing {
            rows: rows.collect(),
            complete: true,
            unreadable: Vec::new(),
        }
    }

    /// The newest instance of a replica.
    pub(super) fn newest(&self, replica: &ReplicaId) -> Option<&Rented> {
        let of = |rented: &&Rented| rented.label.replica == *replica;
        let newest = |rented: &&Rented| -> IntentId { rented.label.intent };
        self.rented.values().filter(of).max_by_key(newest)
    }
}

fn after(at: Time, ms: i64) -> Time {
    Time(at.0.saturating_add(ms))
}

/// How long a first start takes, in milliseconds: as it took there, or the image at the row's speed.
fn pull_ms(offer: &Offer, boots: &BTreeMap<MachineId, i64>) -> i64 {
    if let Some(&known) = boots.get(&offer.machine) {
        return known;
    }
    let speed = offer.inet_down_mbit_s.filter(|&speed| speed > 0.0);
    let speed = speed.map_or(INET_DOWN_UNKNOWN_MBIT_S, f64::from);
    (IMAGE_GB * MBIT_A_GB / speed * 1000.0) as i64
}
