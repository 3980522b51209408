//! What an account does.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::api::{CreateParams, Created, Happening, MarketError, Started};
use super::contract::{Container, Contract, Owner, RUN_FOR, SELF_DESTROY, Task, seconds_of};
use super::dice::{Dice, Purpose};
use super::disputed::Disputed;
use super::life::{disk_rate, traffic};
use super::meter::Meter;
use super::sim::{Due, Market};
use crate::types::hex::hex;
use crate::types::money::{BID_PARKED, BID_STEP, Money, Rate};

/// Disk where none was asked, and the least, in GB.
const DISK_GB_LEAST: f64 = 8.0;
/// The most per GPU and hour that may be bid, in dollars.
const BID_MOST_PER_GPU: f64 = 32.0;
const IMAGE_MOST: usize = 1024;
const SCRIPT_MOST: usize = 4096;
const ENV_ENTRY_MOST: usize = 256;
const ENV_MOST: usize = 32_768;
const LABEL_MOST: usize = 256;
const LABEL_LATER_MOST: usize = 1024;

impl Market {
    /// Rents an offer.
    ///
    /// # Errors
    /// As the marketplace's: `invalid_args`, `invalid_price`, `insufficient_credit`,
    /// `no_such_ask`. A bid under the floor leaves a stopped instance and is an error that
    /// carries `new_contract`, unless `cancel_unavail` is true.
    pub fn create(&mut self, account: u64, params: CreateParams) -> Result<Created, MarketError> {
        let ask = params.offer_id;
        let Some(&(machine, slice)) = self.asks.get(&ask) else {
            return Err(if self.old_asks.contains(&ask) {
                MarketError::ask_gone(ask)
            } else {
                MarketError::unknown_ask(ask)
            });
        };
        let place = &self.machines[machine].slices[slice];
        let bid = match params.price {
            Some(price) => Some(checked_bid(price, place.gpus)?),
            None => None,
        };
        let disk_gb = checked_params(&params, place.row.disk_space)?;
        if self.credit(account) <= Money::ZERO {
            return Err(no_credit());
        }
        let place = &self.machines[machine].slices[slice];
        let rate = bid.unwrap_or_else(|| self.machines[machine].on_demand(slice));
        self.within_spend_limit(account, rate + disk_rate(place.storage_price, disk_gb))?;
        let gone = place.used_by.contains(&account) || place.ends <= self.now;
        if gone || !self.machines[machine].online {
            return Err(MarketError::ask_gone(ask));
        }
        // Whoever waits for these GPUs since the last auction comes first.
        self.settle(machine);
        let wins = self.machines[machine].would_win(&self.contracts, slice, bid);
        let cancels = params.cancel_unavail.unwrap_or(bid.is_none());
        if !wins && cancels {
            return Err(MarketError::ask_gone(ask));
        }
        let id = self.sign(account, machine, slice, bid, disk_gb, params);
        self.settle(machine);
        let won = self.contracts.get(&id).is_some_and(|held| held.granted);
        self.tell(machine, Happening::Created { instance: id, won });
        if won {
            return Ok(Created {
                new_contract: id,
                instance_api_key: self.api_key(id),
            });
        }
        let refusal = if bid.is_some() {
            MarketError::new(
                400,
                "bid_too_low",
                "error 400/3620: The bid is under the current minimum; the instance was created \
                 in state stopped.",
            )
        } else {
            MarketError::new(
                400,
                "resources_unavailable",
                "Required resources are currently unavailable, state change queued.",
            )
        };
        Err(MarketError {
            ask_id: Some(ask),
            new_contract: Some(id),
            ..refusal
        })
    }

    /// Makes an instance; it competes from the next auction on.
    fn sign(
        &mut self,
        account: u64,
        machine: usize,
        slice: usize,
        bid: Option<Rate>,
        disk_gb: f64,
        params: CreateParams,
    ) -> u64 {
        let id = self.next_contract;
        self.next_contract += 1;
        let arrived = self.arrives();
        let facts = self.options.disputed;
        let api_key = self.api_key(id);
        let floor_then = self.machines[machine].shown_floor(&self.contracts, slice);
        let held = &mut self.machines[machine];
        let (on_demand, reserve) = (held.on_demand(slice), held.floor(slice));
        let place = &mut held.slices[slice];
        place.used_by.insert(account);
        let (row, ends) = (&place.row, place.ends);
        let task = Task {
            account,
            label: params.label.as_deref().map(|label| kept(label, &facts)),
            created: self.now,
            granted_at: self.now,
            ends,
            expired: false,
            queued: false,
            disk_gb,
            disk_rate: disk_rate(place.storage_price, disk_gb),
            stopped_disk_rate: percent(
                disk_rate(place.storage_price, disk_gb),
                facts.stopped_storage_percent,
            ),
            floor_then,
            pull_rate: Rate::ZERO,
            pull: None,
            traffic: traffic(id, row.inet_down_cost, row.inet_up_cost),
            image_ready: false,
            container: Container::Exited,
            version: 0,
            status_msg: None,
            up_since: None,
            ran_ms: 0,
            run_for: seconds_of(&params.env, RUN_FOR),
            self_destroy: seconds_of(&params.env, SELF_DESTROY),
            api_key,
            meter: Meter::new(self.now),
            dice: Dice::new(self.options.seed, Purpose::Contract(id)),
            facts,
            params,
        };
        let mut contract = Contract {
            id,
            machine,
            slice,
            mask: place.mask,
            gpus: place.gpus,
            bid,
            on_demand,
            arrived,
            reserve,
            wants: true,
            granted: false,
            owner: Owner::Account(Box::new(task)),
        };
        contract.retune(self.now, true);
        held.contracts.insert(id);
        self.contracts.insert(id, contract);
        self.ends_at(id, ends);
        self.takes_up_runner(id);
        id
    }

    fn api_key(&self, id: u64) -> String {
        let hash = Sha256::new()
            .chain_update(self.options.seed.to_be_bytes())
            .chain_update(id.to_be_bytes())
            .finalize();
        hex(&hash)
    }

    /// Changes the bid of an interruptible instance, in dollars per hour for the whole instance;
    /// `None` lets the market pick a bid that wins. It is paid at once where the instance runs; the
    /// auction acts on it within a minute.
    ///
    /// # Errors
    /// `no_such_instance`, `invalid_price`, `invalid_args` where it is not interruptible.
    pub fn set_bid(
        &mut self,
        account: u64,
        id: u64,
        price: Option<f64>,
    ) -> Result<(), MarketError> {
        let contract = self.own(account, id)?;
        let (machine, slice, gpus) = (contract.machine, contract.slice, contract.gpus);
        let (granted, Some(before)) = (contract.granted, contract.bid) else {
            return Err(MarketError::invalid_args("not an interruptible instance"));
        };
        let bid = match price {
            Some(price) => checked_bid(price, gpus)?,
            None if granted => before,
            None => {
                let held = &self.machines[machine];
                let floor = held.true_floor(&self.contracts, slice);
                floor
                    .unwrap_or_else(|| held.floor(slice))
                    .round_up_to_bid_step()
            }
        };
        let (floor, online) = (
            self.machines[machine].floor(slice),
            self.machines[machine].online,
        );
        let (now, arrived) = (self.now, self.arrives());
        let raised = bid > before;
        let starts = self.options.disputed.bid_starts_stopped && raised && bid >= floor;
        let mut ms = 30_000;
        if let Some(contract) = self.contracts.get_mut(&id) {
            contract.bid = Some(bid);
            contract.arrived = arrived;
            contract.wants |= starts;
            contract.reserve = floor;
            contract.retune(now, online);
            if let Some(task) = contract.task_mut() {
                ms = task.dice.seconds(5, 50);
            }
        }
        if granted && bid != before {
            self.echo_later(id, machine, slice, Some(bid), bid > before);
        }
        let ms = if raised {
            self.until_resumed(ms)
        } else {
            self.until_parked(ms)
        };
        self.later(ms, Due::Auction(machine));
        Ok(())
    }

    /// In how many milliseconds whoever may run again does: within a minute, or within five.
    pub(super) fn until_resumed(&self, ms: i64) -> i64 {
        if self.options.disputed.resumes_late {
            ms * 6
        } else {
            ms
        }
    }

    /// The same of a bid that was cut under the floor: within a minute, or within three.
    fn until_parked(&self, ms: i64) -> i64 {
        if self.options.disputed.parks_late {
            ms * 3
        } else {
            ms
        }
    }

    /// Stops an instance; its disk bills on. A queued start is cancelled.
    ///
    /// # Errors
    /// `no_such_instance`.
    pub fn stop(&mut self, account: u64, id: u64) -> Result<(), MarketError> {
        let contract = self.own(account, id)?;
        let machine = contract.machine;
        if let Some(contract) = self.contracts.get_mut(&id) {
            contract.wants = false;
            if let Some(task) = contract.task_mut() {
                task.queued = false;
            }
        }
        self.halt(id);
        self.tell(machine, Happening::Stopped { instance: id });
        let ms = match self.contracts.get_mut(&id).and_then(Contract::task_mut) {
            Some(task) => task.dice.seconds(5, 50),
            None => 30_000,
        };
        self.later(ms, Due::Auction(machine));
        Ok(())
    }

    /// Starts an instance, or queues the start where its GPUs are taken.
    ///
    /// # Errors
    /// `no_such_instance`; `invalid_args` after the rental's end; `insufficient_credit`.
    pub fn start(&mut self, account: u64, id: u64) -> Result<Started, MarketError> {
        let contract = self.own(account, id)?;
        let (machine, granted) = (contract.machine, contract.granted);
        if contract.task().is_some_and(|task| task.expired) {
            return Err(MarketError::invalid_args("the rental has ended"));
        }
        if self.credit(account) <= Money::ZERO {
            return Err(no_credit());
        }
        if !granted {
            let arrived = self.arrives();
            let mut waited = false;
            if let Some(contract) = self.contracts.get_mut(&id) {
                waited = contract.wants;
                contract.wants = true;
                contract.arrived = arrived;
                if let Some(task) = contract.task_mut() {
                    task.queued = true;
                    // What ended by itself runs anew when it is started by hand.
                    task.ran_ms = 0;
                }
            }
            self.settle(machine);
            let fires = waited || self.options.disputed.queued_fires;
            if let Some(contract) = self.contracts.get_mut(&id) {
                contract.wants = contract.granted || fires;
            }
        }
        let runs = self.contracts.get(&id).is_some_and(|held| held.granted);
        let queued = "Required resources are currently unavailable, state change queued.";
        Ok(Started {
            success: runs,
            msg: (!runs).then(|| queued.to_owned()),
        })
    }

    /// Destroys an instance and its disk.
    ///
    /// # Errors
    /// `no_such_instance`, also when it was destroyed before.
    pub fn destroy(&mut self, account: u64, id: u64) -> Result<(), MarketError> {
        self.own(account, id)?;
        self.remove(id);
        Ok(())
    }

    /// Changes an instance's label.
    ///
    /// # Errors
    /// `no_such_instance`; `label_too_long` over 1024 characters.
    pub fn set_label(&mut self, account: u64, id: u64, label: &str) -> Result<(), MarketError> {
        self.own(account, id)?;
        if label.chars().count() > LABEL_LATER_MOST {
            let words = format!("A label has at most {LABEL_LATER_MOST} characters.");
            return Err(MarketError::new(400, "label_too_long", words));
        }
        if let Some(task) = self.contracts.get_mut(&id).and_then(Contract::task_mut) {
            task.label = Some(kept(label, &task.facts));
        }
        Ok(())
    }

    fn own(&self, account: u64, id: u64) -> Result<&Contract, MarketError> {
        self.contracts
            .get(&id)
            .filter(|contract| contract.account() == Some(account))
            .ok_or_else(|| MarketError::no_such_instance(id))
    }
}

/// As much of a label as is kept.
fn kept(label: &str, facts: &Disputed) -> Arc<str> {
    match facts.label_kept {
        Some(most) => label.chars().take(most as usize).collect::<String>().into(),
        None => label.into(),
    }
}

/// So many percent of a rate, rounded up.
fn percent(rate: Rate, percent: u32) -> Rate {
    let hundredfold = i128::from(rate.0) * i128::from(percent);
    Rate(i64::try_from((hundredfold + 99).div_euclid(100)).unwrap_or(i64::MAX))
}

fn no_credit() -> MarketError {
    MarketError::new(
        400,
        "insufficient_credit",
        "Your account lacks credit; see the billing page.",
    )
}

/// A bid in steps of $0.0001, within the marketplace's bounds.
fn checked_bid(price: f64, gpus: u32) -> Result<Rate, MarketError> {
    let bad = || MarketError::invalid_price(gpus);
    if price > BID_MOST_PER_GPU * f64::from(gpus) {
        return Err(bad());
    }
    let exact = Rate::from_dollars(price).map_err(|_| bad())?;
    let nearest = Rate(exact.0.saturating_add(BID_STEP.0 / 2)).round_down_to_bid_step();
    if nearest < BID_PARKED {
        return Err(bad());
    }
    Ok(nearest)
}

/// Checks what is to run, and gives its disk in GB.
fn checked_params(params: &CreateParams, disk_most: f64) -> Result<f64, MarketError> {
    let count = |text: &str| text.chars().count();
    let refuse = |words: &str| Err(MarketError::invalid_args(words));
    let disk = params.disk.unwrap_or(DISK_GB_LEAST);
    if !disk.is_finite() || disk < DISK_GB_LEAST {
        return refuse("disk must be at least 8 GB");
    }
    if disk > disk_most {
        return refuse("disk is larger than the offer's disk_space");
    }
    let image = params.image.as_deref().unwrap_or_default();
    if image.is_empty() && params.template_hash_id.is_none() {
        return refuse("image is required");
    }
    if count(image) > IMAGE_MOST {
        return refuse("image is too long");
    }
    let script = params.onstart.as_deref().map_or(0, count);
    if script + params.args.iter().map(|arg| count(arg)).sum::<usize>() > SCRIPT_MOST {
        return refuse("onstart and args are too long");
    }
    let entries = || {
        params
            .env
            .iter()
            .map(|(key, value)| count(key) + count(value))
    };
    if entries().any(|length| length > ENV_ENTRY_MOST) {
        return refuse("an env entry is too long");
    }
    if entries().sum::<usize>() > ENV_MOST {
        return refuse("env is too long");
    }
    if params.label.as_deref().map_or(0, count) > LABEL_MOST {
        return refuse("label is too long");
    }
    Ok(disk)
}
