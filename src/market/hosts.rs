//! What hosts do to what others rent of them: they go and come back, fail, plan maintenance, ask
//! for more, prolong; and some lie.
//!
//! All of it beside going and coming has a stream of chance of its own, apart from the machine's.

use std::sync::Arc;

use serde_json::{Value, json};

use super::api::{Happening, Inside, MarketError};
use super::contract::Container;
use super::dice::Dice;
use super::machine::Slice;
use super::sim::{Due, Market};
use crate::types::money::Rate;
use crate::types::time::Time;

const HOUR: f64 = 3_600_000.0;
const HOUR_MS: i64 = 3_600_000;

/// Mean time away of a host that left.
const AWAY: f64 = 1.5 * HOUR;
/// Mean gaps of errors and of maintenance on a machine, where failures are as usual.
const ERROR_GAP: f64 = 20.0 * 24.0 * HOUR;
const MAINTENANCE_GAP: f64 = 30.0 * 24.0 * HOUR;
/// Mean time without verification after an error, and mean time for which a container hangs.
const DEVERIFIED: f64 = 8.0 * HOUR;
const FROZEN: f64 = 0.7 * HOUR;
/// However often provisioning fails, hosts fail and are maintained at most so much oftener than
/// usual.
const FAILURES_MOST: f64 = 10.0;
/// A host that raises its price asks this share of those who pay less to pay more.
pub(super) const ASKS: f64 = 0.6;
/// A host that prolongs its listing prolongs this share of the rentals with it.
const EXTENDS: f64 = 0.5;
/// Told so many hours before a rental ends.
const EXPIRING_HOURS: [i64; 2] = [24, 2];

/// Maintenance that was announced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Downtime {
    /// When it begins.
    pub(crate) from: Time,
    /// For how many milliseconds.
    pub(crate) ms: i64,
}

/// What a host lies about.
#[derive(Clone, Debug)]
pub(crate) enum Lie {
    /// Its bandwidth is this share of what it says.
    Bandwidth(f64),
    /// All GPUs but so many of an offer's are missing.
    Missing(u32),
    /// They are another model.
    Model(Arc<str>),
}

impl Lie {
    /// What a host lies about, if it is among the liars.
    pub(crate) fn drawn(dice: &mut Dice, liars: f64, slices: &[Slice]) -> Option<Self> {
        let (lies, kind) = (dice.chance(liars), dice.unit());
        let share = dice.between(0.05, 0.3);
        let name = slices.first().map(|slice| Arc::clone(&slice.row.gpu_name));
        lies.then(|| match (kind, name) {
            (kind, _) if kind < 0.5 => Self::Bandwidth(share),
            (kind, _) if kind < 0.75 => Self::Missing(1),
            (_, Some(name)) => Self::Model(lesser(&name)),
            (_, None) => Self::Bandwidth(share),
        })
    }

    /// The share of the said bandwidth that there is.
    pub(crate) fn bandwidth(&self) -> f64 {
        match self {
            Self::Bandwidth(share) => *share,
            _ => 1.0,
        }
    }
}

/// A model that a host may pass off as another.
fn lesser(name: &str) -> Arc<str> {
    if name == "RTX 3060" {
        "GTX 1080 Ti"
    } else {
        "RTX 3060"
    }
    .into()
}

/// A host's request for more.
#[derive(Clone, Debug)]
pub(super) struct Increase {
    /// The rental.
    pub(super) contract: u64,
    /// The GPUs' rate now, for the whole rental.
    old: Rate,
    /// What the host asks for.
    pub(super) new: Rate,
    asked: Time,
    /// The rental's end if it is accepted.
    until: Time,
}

impl Market {
    /// Puts a machine's first failures into the queue.
    pub(super) fn begin_failing(&mut self, machine: usize) {
        self.fails_again(machine, ERROR_GAP, Due::Error(machine));
        self.fails_again(machine, MAINTENANCE_GAP, Due::Maintenance(machine));
    }

    fn fails_again(&mut self, machine: usize, mean: f64, due: Due) {
        if self.is_owned(machine) {
            return;
        }
        let often = self.options.failures.min(FAILURES_MOST);
        if often > 0.0 {
            let ms = self.machines[machine].host_dice.gap(mean / often);
            self.later(ms, due);
        }
    }

    /// The account's instances on a machine, in order.
    pub(super) fn instances_on(&self, machine: usize) -> Vec<u64> {
        self.machines[machine]
            .contracts
            .iter()
            .filter(|id| self.contracts[id].account().is_some())
            .copied()
            .collect()
    }

    // --------------------------------------------------------------------------- gone and back

    pub(super) fn host_leaves(&mut self, machine: usize) {
        if !self.machines[machine].online {
            // It is away for maintenance; it leaves another time.
            self.again(machine, Due::Leave(machine));
            return;
        }
        self.goes_offline(machine);
        let ms = self.machines[machine].dice.gap(AWAY);
        self.later(ms.max(120_000), Due::Return(machine));
    }

    pub(super) fn host_returns(&mut self, machine: usize) {
        self.comes_online(machine);
        self.again(machine, Due::Leave(machine));
    }

    fn goes_offline(&mut self, machine: usize) {
        let now = self.now;
        let here: Vec<u64> = self.machines[machine].contracts.iter().copied().collect();
        self.machines[machine].online = false;
        for id in here {
            let Some(contract) = self.contracts.get_mut(&id) else {
                continue;
            };
            if contract.account().is_none() {
                self.drop_contract(id);
                continue;
            }
            contract.retune(now, false);
            if let Some(task) = contract.task_mut() {
                let container = task.container;
                task.goes_down(now, container);
            }
        }
        for slice in &mut self.machines[machine].slices {
            slice.echo = None;
            slice.echo_version += 1;
        }
        self.tell(machine, Happening::HostLeft);
    }

    fn comes_online(&mut self, machine: usize) {
        let now = self.now;
        self.machines[machine].online = true;
        for slice in 0..self.machines[machine].slices.len() {
            self.renew_ask(machine, slice);
        }
        self.tell(machine, Happening::HostReturned);
        let here: Vec<u64> = self.machines[machine].contracts.iter().copied().collect();
        for id in here {
            let Some(contract) = self.contracts.get_mut(&id) else {
                continue;
            };
            contract.retune(now, true);
            if contract.granted {
                self.boot(id);
            }
        }
        self.settle(machine);
    }

    /// The host plans maintenance, between two hours and two days ahead.
    pub(super) fn plans_maintenance(&mut self, machine: usize) {
        let dice = &mut self.machines[machine].host_dice;
        let (ahead, ms) = (
            dice.seconds(2 * 3600, 48 * 3600),
            dice.seconds(3600, 21_600),
        );
        let from = Time(self.now.0 + ahead);
        self.announces_maintenance(machine, Downtime { from, ms });
    }

    /// The host announces maintenance, which replaces what it announced before.
    pub(super) fn announces_maintenance(&mut self, machine: usize, downtime: Downtime) {
        self.machines[machine].downtime = Some(downtime);
        self.later(downtime.from.ms_since(self.now), Due::Downtime(machine));
        let (from, until) = (downtime.from, Time(downtime.from.0 + downtime.ms));
        self.tell(machine, Happening::MaintenancePlanned { from, until });
    }

    pub(super) fn goes_into_maintenance(&mut self, machine: usize) {
        let held = &mut self.machines[machine];
        let Some(downtime) = held.downtime.filter(|planned| planned.from <= self.now) else {
            return;
        };
        held.downtime = None;
        if held.online {
            self.goes_offline(machine);
            self.later(downtime.ms, Due::Upkept(machine));
        } else {
            self.fails_again(machine, MAINTENANCE_GAP, Due::Maintenance(machine));
        }
    }

    pub(super) fn comes_out_of_maintenance(&mut self, machine: usize) {
        self.comes_online(machine);
        self.fails_again(machine, MAINTENANCE_GAP, Due::Maintenance(machine));
    }

    // -------------------------------------------------------------------------------- failures

    /// Something fails: containers die or hang, and the machine loses its verification for a
    /// while. Default searches no longer show it; what runs on it lives on.
    pub(super) fn host_errs(&mut self, machine: usize) {
        self.fails_again(machine, ERROR_GAP, Due::Error(machine));
        if !self.machines[machine].online {
            return;
        }
        let ms = self.machines[machine].host_dice.gap(DEVERIFIED);
        let until = Time(self.now.0 + ms);
        let held = &mut self.machines[machine];
        let before = held.deverified_until.replace(until);
        self.later(ms, Due::Reverify(machine));
        if before.is_none() {
            self.tell(machine, Happening::Deverified);
        }
        for id in self.instances_on(machine) {
            let share = self.machines[machine].host_dice.unit();
            if share < 0.35 {
                self.fails(id, Container::Ended);
            } else if share < 0.6 {
                self.fails(id, Container::Frozen);
            }
        }
    }

    pub(super) fn reverified(&mut self, machine: usize) {
        let held = &mut self.machines[machine];
        if held.deverified_until.is_some_and(|until| until <= self.now) {
            held.deverified_until = None;
            self.tell(machine, Happening::Verified);
        }
    }

    /// A running container dies or hangs; its contract goes on.
    pub(super) fn fails(&mut self, id: u64, as_what: Container) {
        let now = self.now;
        let Some(contract) = self.contracts.get_mut(&id).filter(|held| held.granted) else {
            return;
        };
        let machine = contract.machine;
        let Some(task) = contract.task_mut() else {
            return;
        };
        if task.container != Container::Running {
            return;
        }
        task.goes_down(now, as_what);
        let version = task.version;
        let frozen = as_what == Container::Frozen;
        let words = if frozen {
            "Error: container does not answer"
        } else {
            "Error: container exited with code 137"
        };
        task.status_msg = Some(words.into());
        contract.retune(now, true);
        if frozen {
            let ms = self.machines[machine].host_dice.gap(FROZEN);
            self.later(ms, Due::Container(id, version));
        }
        self.tell(machine, Happening::Failed { instance: id });
    }

    /// What is true inside an instance, whatever its machine's listing says. For checkers, and
    /// for what runs inside.
    pub fn inside(&self, instance: u64) -> Option<Inside> {
        let contract = self.contracts.get(&instance)?;
        contract.task()?;
        let machine = &self.machines[contract.machine];
        let row = &machine.slices[contract.slice].row;
        let share = machine.lie.as_ref().map_or(1.0, Lie::bandwidth);
        let (name, gpus) = match &machine.lie {
            Some(Lie::Missing(missing)) => (&row.gpu_name, contract.gpus.saturating_sub(*missing)),
            Some(Lie::Model(name)) => (name, contract.gpus),
            _ => (&row.gpu_name, contract.gpus),
        };
        Some(Inside {
            gpu_name: Arc::clone(name),
            gpus,
            download: row.inet_down * share,
            upload: row.inet_up * share,
        })
    }

    // ----------------------------------------------------------------------- prices and end dates

    /// A host whose on-demand price is over what running rentals pay asks this share of them for
    /// more. What it asked for before and no longer would is withdrawn.
    pub(super) fn asks_for_more(&mut self, machine: usize, share: f64) {
        for id in self.instances_on(machine) {
            let contract = &self.contracts[&id];
            let (slice, paid) = (contract.slice, contract.on_demand);
            let ended = contract.task().is_none_or(|task| task.expired);
            let asked = self.machines[machine].on_demand(slice);
            if asked <= paid {
                self.increases.retain(|_, pending| pending.contract != id);
                continue;
            }
            let pending = self.increases.values().any(|other| other.contract == id);
            let asks = contract.bid.is_none() && !ended && !pending;
            if asks && self.machines[machine].host_dice.chance(share) {
                self.asks(id, paid, asked);
            }
        }
    }

    pub(super) fn asks(&mut self, id: u64, old: Rate, new: Rate) {
        let Some(contract) = self.contracts.get(&id) else {
            return;
        };
        let (machine, slice) = (contract.machine, contract.slice);
        let increase = Increase {
            contract: id,
            old,
            new,
            asked: self.now,
            until: self.machines[machine].slices[slice].ends,
        };
        self.increases.insert(self.next_increase, increase);
        self.next_increase += 1;
        let (instance, rate) = (id, new);
        self.tell(machine, Happening::PriceAsked { instance, rate });
    }

    /// What hosts ask the account for, oldest first, in the marketplace's shape: rates per second,
    /// null where a part of the price stays.
    pub fn price_increases(&self, account: u64) -> Vec<Value> {
        let per_second = |rate: Rate| rate.as_dollars() / 3600.0;
        self.increases
            .iter()
            .filter_map(|(id, asked)| {
                let contract = self.contracts.get(&asked.contract)?;
                let task = contract.task().filter(|task| task.account == account)?;
                let host = self.machines[contract.machine].slices[contract.slice]
                    .row
                    .host_id;
                Some(json!({
                    "pending_price_increase_id": id,
                    "contract_id": asked.contract,
                    "host_id": host,
                    "new_gpu_costpersec": per_second(asked.new),
                    "old_gpu_costpersec": per_second(asked.old),
                    "new_disk_ram_costpersec": null,
                    "old_disk_ram_costpersec": null,
                    "new_bwu_cost": null,
                    "old_bwu_cost": null,
                    "new_bwd_cost": null,
                    "old_bwd_cost": null,
                    "new_platform_fee": null,
                    "old_platform_fee": null,
                    "contract_end_date": task.ends.epoch_seconds(),
                    "ask_end_date": asked.until.epoch_seconds(),
                    "created_at": asked.asked.epoch_seconds(),
                }))
            })
            .collect()
    }

    /// Accepts or rejects what a host asks for. Accepted, the new rate is paid from now on and the
    /// rental goes on until the listing's end. Else it keeps its rate and ends when it was to end.
    ///
    /// # Errors
    /// `no_pending_price_increase` where the account has no such request.
    pub fn answer_price_increase(
        &mut self,
        account: u64,
        id: u64,
        accept: bool,
    ) -> Result<(), MarketError> {
        let is_own = |asked: &&Increase| {
            let contract = self.contracts.get(&asked.contract);
            contract.is_some_and(|held| held.account() == Some(account))
        };
        if !self.increases.get(&id).as_ref().is_some_and(is_own) {
            let words = format!("There is no pending price increase {id}.");
            return Err(MarketError::new(404, "no_pending_price_increase", words));
        }
        let Some(asked) = self.increases.remove(&id).filter(|_| accept) else {
            return Ok(());
        };
        let now = self.now;
        if let Some(contract) = self.contracts.get_mut(&asked.contract) {
            let online = self.machines[contract.machine].online;
            contract.on_demand = asked.new;
            contract.retune(now, online);
        }
        self.extend(asked.contract, asked.until);
        Ok(())
    }

    /// The end of a listing was moved: rentals of it may be prolonged. One that pays less than is
    /// asked now is not.
    pub(super) fn may_extend(&mut self, machine: usize, slice: usize) {
        if self.options.intensity <= 0.0 {
            return;
        }
        let (until, price) = {
            let held = &self.machines[machine];
            (held.slices[slice].ends, held.on_demand(slice))
        };
        for id in self.instances_on(machine) {
            let contract = &self.contracts[&id];
            let pays = contract.bid.is_some() || contract.on_demand >= price;
            if contract.slice == slice && pays && self.machines[machine].host_dice.chance(EXTENDS) {
                self.extend(id, until);
            }
        }
    }

    /// Prolongs a rental; an end is never moved to an earlier time. Says whether it was moved.
    pub(super) fn extend(&mut self, id: u64, until: Time) -> bool {
        let Some(contract) = self.contracts.get_mut(&id) else {
            return false;
        };
        let machine = contract.machine;
        let moved = contract.task_mut().is_some_and(|task| {
            let moves = !task.expired && until > task.ends;
            if moves {
                task.ends = until;
            }
            moves
        });
        if moved {
            self.ends_at(id, until);
            let instance = id;
            self.tell(machine, Happening::Extended { instance, until });
        }
        moved
    }

    /// Puts a rental's end, and the notices of it, into the queue.
    pub(super) fn ends_at(&mut self, id: u64, ends: Time) {
        let left = ends.ms_since(self.now);
        self.later(left, Due::Expire(id));
        for hours in EXPIRING_HOURS {
            let ms = left - hours * HOUR_MS;
            if ms > 0 {
                self.later(ms, Due::Expiring(id, hours));
            }
        }
    }
}
