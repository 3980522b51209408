//! The life of an account's instance: from provisioning to its end.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::api::Happening;
use super::contract::{Container, Contract, Task};
use super::hosts::Lie;
use super::sim::{Due, Market};
use crate::types::hex::hex;
use crate::types::money::{Money, Rate};
use crate::types::time::Time;

/// A container whose image the host has comes up in so many milliseconds, as documented.
const CACHED_MS: i64 = 30_000;
/// A registry refuses within so many milliseconds; no pull is as short.
const REFUSED_MS: i64 = 3_000;
/// No pull takes longer.
const PULL_MS_MAX: i64 = 2 * HOUR_MS;
const HOUR_MS: i64 = 3_600_000;
/// An image has so many layers: the slowest pull shows a new one every five minutes.
const LAYERS: i64 = 24;

impl Market {
    /// A contract that got its GPUs makes its container, or starts it again.
    pub(super) fn boot(&mut self, id: u64) {
        let now = self.now;
        let Some(contract) = self.contracts.get_mut(&id) else {
            return;
        };
        let Some(task) = contract.task_mut() else {
            return;
        };
        let (container, ms) = if task.image_ready {
            (Container::Loading, task.dice.seconds(8, 25))
        } else {
            (Container::Absent, task.dice.seconds(3, 12))
        };
        task.goes_down(now, container);
        task.status_msg = None;
        let version = task.version;
        contract.retune(now, true);
        self.later(ms, Due::Container(id, version));
    }

    /// The container's next step.
    pub(super) fn container_steps(&mut self, id: u64, version: u64) {
        let now = self.now;
        let Some(contract) = self.contracts.get_mut(&id) else {
            return;
        };
        let (machine, granted) = (contract.machine, contract.granted);
        let Some(task) = contract.task_mut() else {
            return;
        };
        if task.version != version || !granted || !self.machines[machine].online {
            return;
        }
        let next = match task.container {
            Container::Absent => {
                task.goes_down(now, Container::Created);
                Some(task.dice.seconds(1, 4))
            }
            Container::Created => {
                task.goes_down(now, Container::Loading);
                let held = &self.machines[machine];
                let image = task.params.image.clone().unwrap_or_default();
                let row = held.slices.first().map(|slice| &slice.row);
                let (speed, price) =
                    row.map_or((0.0, 0.0), |row| (row.inet_down, row.inet_down_cost));
                let cached = held.cached.contains(image.as_str());
                let speed = speed * held.lie.as_ref().map_or(1.0, Lie::bandwidth);
                let (ms, rate) = match refused(&image, task.params.image_login.is_some()) {
                    Some(_) => (REFUSED_MS, Rate::ZERO),
                    None => pull(&image, speed, price, cached),
                };
                task.pull_rate = rate;
                task.pull = (ms != REFUSED_MS).then_some((now, ms));
                task.status_msg = Some(format!("Pulling from {image}").into());
                Some(ms)
            }
            // What hung runs again.
            Container::Loading | Container::Frozen => {
                self.container_comes_up(id);
                return;
            }
            Container::Running => {
                self.container_ends(id);
                return;
            }
            Container::Stuck | Container::Ended | Container::Exited => None,
        };
        let version = task.version;
        contract.retune(now, true);
        if let Some(ms) = next {
            self.later(ms, Due::Container(id, version));
        }
    }

    /// A container runs, or does not come up.
    fn container_comes_up(&mut self, id: u64) {
        let now = self.now;
        let Some(contract) = self.contracts.get_mut(&id) else {
            return;
        };
        let machine = contract.machine;
        let Some(task) = contract.task_mut() else {
            return;
        };
        let held = &mut self.machines[machine];
        let failure = held.failure * self.options.failures;
        let image: Arc<str> = task.params.image.clone().unwrap_or_default().into();
        if let Some(words) = refused(&image, task.params.image_login.is_some()) {
            task.goes_down(now, Container::Stuck);
            task.status_msg = Some(words.into());
            contract.retune(now, true);
            self.tell(machine, Happening::ProvisioningFailed { instance: id });
            return;
        }
        // A container that came up once on this host comes up again.
        if !task.image_ready && task.dice.chance(failure) {
            if task.dice.chance(0.6) {
                task.goes_down(now, Container::Stuck);
                let words = format!(
                    "Error response from daemon: failed to pull {image}: context deadline exceeded"
                );
                task.status_msg = Some(words.into());
            } else {
                task.goes_down(now, Container::Ended);
                let words = "Error: OCI runtime create failed: nvidia-container-cli: device error";
                task.status_msg = Some(words.into());
            }
            contract.retune(now, true);
            self.tell(machine, Happening::ProvisioningFailed { instance: id });
            return;
        }
        task.image_ready = true;
        task.goes_down(now, Container::Running);
        task.up_since = Some(now);
        task.status_msg = Some(format!("success, running {image}").into());
        held.cached.insert(image);
        let (version, ends) = (task.version, task.ends_itself_in());
        contract.retune(now, true);
        if let Some(ms) = ends {
            self.later(ms, Due::Container(id, version));
        }
        self.tell(machine, Happening::Running { instance: id });
        self.runner_boots(id, version);
    }

    /// A running container ends by itself, as its environment says.
    fn container_ends(&mut self, id: u64) {
        let now = self.now;
        let task = self.contracts.get(&id).and_then(Contract::task);
        let goes = |task: &Task| {
            task.self_destroy
                .is_some_and(|after| task.ran(now) >= after)
        };
        if task.is_some_and(goes) {
            self.remove(id);
        } else {
            self.container_ended(id);
        }
    }

    /// A container's main process has ended while its contract runs on.
    pub(super) fn container_ended(&mut self, id: u64) {
        let now = self.now;
        let Some(contract) = self.contracts.get_mut(&id) else {
            return;
        };
        let machine = contract.machine;
        let Some(task) = contract.task_mut() else {
            return;
        };
        task.goes_down(now, Container::Ended);
        task.status_msg = Some("container exited".into());
        contract.retune(now, true);
        self.tell(machine, Happening::Ended { instance: id });
    }

    /// A rental ends, unless its end was moved: it is stopped and cannot start again; its disk
    /// bills on.
    pub(super) fn expires(&mut self, id: u64) {
        let now = self.now;
        let over = |task: &Task| !task.expired && task.ends <= now;
        let Some(contract) = self.contracts.get_mut(&id) else {
            return;
        };
        if !contract.task().is_some_and(over) {
            return;
        }
        let machine = contract.machine;
        contract.wants = false;
        if let Some(task) = contract.task_mut() {
            task.expired = true;
            task.queued = false;
        }
        self.halt(id);
        self.increases.retain(|_, asked| asked.contract != id);
        self.tell(machine, Happening::Expired { instance: id });
        self.later(5_000, Due::Auction(machine));
        if let Some(hours) = self.options.disputed.ended_deleted_hours {
            self.later(i64::from(hours) * HOUR_MS, Due::Delete(id));
        }
    }

    /// The marketplace itself deletes an instance.
    pub(super) fn deletes(&mut self, id: u64) {
        if let Some(machine) = self.discard(id) {
            self.tell(machine, Happening::Deleted { instance: id });
        }
    }

    /// Takes the GPUs from an account's instance, if it has them.
    pub(super) fn halt(&mut self, id: u64) {
        let Some(contract) = self.contracts.get(&id).filter(|held| held.granted) else {
            return;
        };
        let (machine, slice, bid) = (contract.machine, contract.slice, contract.bid);
        self.ungrant(id);
        if bid.is_some() {
            self.release_echo(id, machine, slice);
        }
    }

    /// Destroys an account's instance: its books are closed and kept, its offer is listed anew.
    pub(super) fn remove(&mut self, id: u64) {
        if let Some(machine) = self.discard(id) {
            self.tell(machine, Happening::Destroyed { instance: id });
        }
    }

    /// The same, untold. Gives the machine.
    fn discard(&mut self, id: u64) -> Option<usize> {
        let now = self.now;
        self.haunts(id);
        self.halt(id);
        let mut contract = self.drop_contract(id)?;
        self.increases.retain(|_, asked| asked.contract != id);
        let (machine, slice) = (contract.machine, contract.slice);
        contract.retune(now, false);
        let ms = contract
            .task_mut()
            .map_or(5_000, |task| task.dice.seconds(5, 50));
        self.close_books(contract);
        self.extras.written.remove(&id);
        self.extras.players.remove(&id);
        self.renew_ask(machine, slice);
        self.later(ms, Due::Auction(machine));
        Some(machine)
    }
}

/// What a registry says to those that pull an image which they may not, whatever their host. Which
/// images these are is in their names, so that it can be tried; there is no such registry.
fn refused(image: &str, has_login: bool) -> Option<String> {
    let (registry, name) = image.split_once('/')?;
    match registry {
        "missing.invalid" => Some(format!(
            "Error response from daemon: manifest for {image} not found: manifest unknown: manifest unknown"
        )),
        "private.invalid" if !has_login => Some(format!(
            "Error response from daemon: Head \"https://{registry}/v2/{name}\": unauthorized"
        )),
        "quota.invalid" if !has_login => Some(
            "Error response from daemon: toomanyrequests: You have reached your pull rate limit."
                .to_owned(),
        ),
        _ => None,
    }
}

impl Task {
    /// The marketplace's words on it. While its image is pulled they change with each layer.
    pub(super) fn words(&self, now: Time) -> Option<Arc<str>> {
        let pulls = self.container == Container::Loading && !self.image_ready;
        let Some((from, ms)) = self.pull.filter(|_| pulls) else {
            return self.status_msg.clone();
        };
        let layers = now.ms_since(from).max(0) / (ms / LAYERS).max(1);
        if layers == 0 {
            return self.status_msg.clone();
        }
        let name = format!(
            "{layers} {}",
            self.params.image.as_deref().unwrap_or_default()
        );
        let digest = hex(&Sha256::digest(name.as_bytes())[..6]);
        Some(format!("{digest}: Pull complete").into())
    }

    /// Milliseconds of running until the container ends by itself.
    fn ends_itself_in(&self) -> Option<i64> {
        let after = match (self.run_for, self.self_destroy) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b)?,
        };
        Some((after - self.ran_ms).max(0))
    }
}

/// How long pulling an image takes, in ms, and what its traffic costs meanwhile, as a rate. The
/// size follows from the image's name: 2 to 14 GB.
fn pull(image: &str, mbit_s: f64, price_per_gb: f64, cached: bool) -> (i64, Rate) {
    if cached {
        return (CACHED_MS, Rate::ZERO);
    }
    let hash = Sha256::digest(image.as_bytes());
    let gigabytes = 2.0 + f64::from(hash[0]) / 255.0 * 12.0;
    // Registries rarely give a gigabit, and hosts rarely take all of it.
    let speed = mbit_s.clamp(10.0, 1000.0) * 0.7;
    let seconds = gigabytes * 8_000.0 / speed + gigabytes * 8.0;
    let ms = ((seconds * 1000.0) as i64).clamp(CACHED_MS, PULL_MS_MAX);
    let cost = Money::from_dollars(price_per_gb * gigabytes).unwrap_or(Money::ZERO);
    let rate = i128::from(cost.0) * 3_600_000 / i128::from(ms);
    (ms, Rate(rate as i64))
}

/// What a running container's traffic costs, down and up, as rates: a few hundred megabytes an
/// hour, by the instance.
pub(super) fn traffic(contract: u64, down_price: f64, up_price: f64) -> (Rate, Rate) {
    let hash = Sha256::digest(contract.to_be_bytes());
    let hourly = |byte: u8, price: f64| {
        let gigabytes = 0.02 + f64::from(byte) / 255.0 * 0.4;
        Rate::from_dollars(gigabytes * price).unwrap_or(Rate::ZERO)
    };
    (hourly(hash[0], down_price), hourly(hash[1], up_price))
}

/// The rate of a disk of so many GB, which need not be whole, at a price per GB and month.
pub(super) fn disk_rate(price: Money, gigabytes: f64) -> Rate {
    let milli = (gigabytes * 1000.0).round() as i128;
    let hours = i128::from(crate::types::money::STORAGE_HOURS_PER_MONTH) * 1000;
    let total = i128::from(price.0) * milli;
    Rate((total.div_euclid(hours) + i128::from(total.rem_euclid(hours) != 0)) as i64)
}

impl Contract {
    /// The four states of an instance: contract now, intended, scheduled; container.
    pub(super) fn states(&self, online: bool) -> ([&'static str; 3], Option<&'static str>) {
        let Some(task) = self.task() else {
            return (["running"; 3], Some("running"));
        };
        let facts = &task.facts;
        if self.granted {
            let container = match (online, facts.lost_reads_unknown) {
                (true, _) => task.container.status(),
                (false, false) => Some("offline"),
                (false, true) => Some("unknown"),
            };
            return (["running"; 3], container);
        }
        let container = if facts.reads_stopped {
            "stopped"
        } else {
            "exited"
        };
        let to_run = if task.queued {
            facts.queued_intends_running
        } else {
            self.wants && facts.outbid_intends_running
        };
        let intended = if to_run { "running" } else { "stopped" };
        (["stopped", intended, "stopped"], Some(container))
    }
}
