//! What an account does with an instance beside renting, bidding and ending: it is started anew,
//! prepaid, copied from, looked into.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::api::MarketError;
use super::containers::Copied;
use super::contract::{Container, Contract, Task};
use super::played::Player;
use super::sim::Market;
use crate::types::hex::hex;
use crate::types::money::Money;
use crate::types::time::Time;

/// A result can be read so many milliseconds after it was asked for.
const RESULT_MS: i64 = 1_500;
/// Results that are kept.
const RESULTS_KEPT: usize = 512;
/// So many SSH keys an instance takes, and so many bytes each.
const KEYS_MAX: usize = 100;
const KEY_BYTES_MAX: usize = 8192;
/// Progress of a copy shows so late: some half minute, as documented.
const COPY_SHOWN_MS: i64 = 30_000;
/// A finished copy shows so long.
const COPY_DONE_MS: i64 = 3_600_000;
/// What a copy moves, in megabits: a checkpoint of two gigabytes.
const COPY_MBIT: f64 = 16_000.0;
/// Hours of a month, by which prepaid rentals are reckoned.
const MONTH_HOURS: f64 = 720.0;

/// What is kept of instances beside their contracts.
#[derive(Clone, Debug, Default)]
pub(super) struct Extras {
    /// By instance.
    of: BTreeMap<u64, Extra>,
    copies: Vec<Copying>,
    /// Results by the unguessable end of their address: readable from when, and the text.
    results: BTreeMap<String, (Time, String)>,
    results_made: u64,
    /// Whether containers are run for real.
    pub(super) is_real: bool,
    /// What they have written then, by instance.
    pub(super) written: BTreeMap<u64, Vec<String>>,
    /// The runners that are played, by instance.
    pub(super) players: BTreeMap<u64, Player>,
    /// Instances that their runners destroyed.
    pub(super) ended_themselves: BTreeSet<u64>,
    /// Copies that are to be made then.
    pub(super) to_copy: Vec<Copied>,
}

#[derive(Clone, Debug, Default)]
struct Extra {
    deposit: Option<Deposit>,
    ssh_keys: Vec<(u64, String)>,
}

/// Money that is bound to an instance. It stays part of the credit until it is used.
#[derive(Clone, Copy, Debug)]
struct Deposit {
    amount: Money,
    /// What the instance had cost when it was made.
    billed_before: Money,
    /// On-demand price before the discount, and the part of it that is saved.
    discount: f64,
    months: f64,
}

/// A copy under way, or one that ended a moment ago.
#[derive(Clone, Debug)]
struct Copying {
    /// The instance in whose status it shows.
    shown_on: u64,
    what: String,
    /// Whether an end of it is in the cloud.
    cloud: bool,
    begun: Time,
    until: Time,
}

/// What a prepaid instance has left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Prepaid {
    /// Money that is not used yet.
    pub(super) left: Money,
    /// Part of the price that is saved, from 0 to 1.
    pub(super) discount: f64,
    /// Months for which it was paid, and their fraction.
    pub(super) months: f64,
    /// Saved so far.
    pub(super) saved: Money,
}

impl Market {
    /// The account and the instance that an instance's own key opens.
    pub(super) fn instance_of_key(&self, key: &str) -> Option<(u64, u64)> {
        self.contracts.values().find_map(|contract| {
            let task = contract.task().filter(|task| task.api_key == key)?;
            Some((task.account, contract.id))
        })
    }

    /// Stops and starts a container; it keeps its GPUs.
    ///
    /// # Errors
    /// `no_such_instance`; `invalid_args` where it does not run.
    pub(super) fn reboot(&mut self, account: u64, id: u64) -> Result<(), MarketError> {
        self.own_running(account, id)?;
        self.boot(id);
        Ok(())
    }

    /// Makes a container anew from its image; it keeps its GPUs, and what it had run is forgotten.
    ///
    /// # Errors
    /// As [`Market::reboot`].
    pub(super) fn recycle(&mut self, account: u64, id: u64) -> Result<(), MarketError> {
        self.own_running(account, id)?;
        let now = self.now;
        if let Some(task) = self.contracts.get_mut(&id).and_then(Contract::task_mut) {
            task.goes_down(now, Container::Absent);
            task.image_ready = false;
            task.ran_ms = 0;
        }
        self.boot(id);
        Ok(())
    }

    /// Changes what an instance runs, and makes its container anew where it has its GPUs.
    ///
    /// # Errors
    /// `no_such_instance`.
    pub(super) fn rerun(
        &mut self,
        account: u64,
        id: u64,
        change: impl FnOnce(&mut super::api::CreateParams),
    ) -> Result<(), MarketError> {
        self.own_task(account, id)?;
        let mut granted = false;
        if let Some(contract) = self.contracts.get_mut(&id) {
            granted = contract.granted;
            if let Some(task) = contract.task_mut() {
                change(&mut task.params);
                task.image_ready = false;
                task.ran_ms = 0;
            }
        }
        self.takes_up_runner(id);
        if granted {
            self.recycle(account, id)
        } else {
            Ok(())
        }
    }

    /// Pays ahead for an on-demand instance, for a discount that grows with the months paid for, up
    /// to the host's best. It holds from now on.
    ///
    /// # Errors
    /// `no_such_instance`; `invalid_args` for a bid or an amount that is none; 411 where the credit
    /// does not reach.
    pub(super) fn prepay(
        &mut self,
        account: u64,
        id: u64,
        amount: f64,
    ) -> Result<Prepaid, MarketError> {
        let contract = self.own_contract(account, id)?;
        if contract.bid.is_some() {
            return Err(MarketError::invalid_args(
                "only on-demand instances can be prepaid",
            ));
        }
        let paid = Money::from_dollars(amount)
            .ok()
            .filter(|paid| *paid > Money::ZERO)
            .ok_or_else(|| MarketError::invalid_args("amount is not an amount"))?;
        if paid > self.credit(account) {
            return Err(MarketError::new(
                411,
                "insufficient_credit",
                "Insufficient credit",
            ));
        }
        let hourly = contract.on_demand.as_dollars();
        let row = &self.machines[contract.machine].slices[contract.slice].row;
        let months = if hourly > 0.0 {
            amount / (hourly * MONTH_HOURS)
        } else {
            0.0
        };
        // A month paid for earns half of the best discount, six all of it.
        let share = (0.4 + 0.1 * months).clamp(0.0, 1.0) * months.min(1.0);
        let discount = row.credit_discount_max.clamp(0.0, 0.9) * share;
        let deposit = Deposit {
            amount: paid,
            billed_before: self.billed(account, id),
            discount,
            months,
        };
        let had = self.extras.of.get(&id).and_then(|extra| extra.deposit);
        let online = self.machines[contract.machine].online;
        let now = self.now;
        if had.is_none()
            && let Some(contract) = self.contracts.get_mut(&id)
        {
            let lower = contract.on_demand.as_dollars() * (1.0 - discount);
            if let Ok(rate) = crate::types::money::Rate::from_dollars(lower) {
                contract.on_demand = rate;
            }
            contract.retune(now, online);
        }
        let kept = match had {
            // More money prolongs what was agreed.
            Some(before) => Deposit {
                amount: before.amount + paid,
                months: before.months + months,
                ..before
            },
            None => deposit,
        };
        self.extras.of.entry(id).or_default().deposit = Some(kept);
        self.prepaid(account, id)
    }

    /// What a prepaid instance has left; all zero where nothing was prepaid.
    ///
    /// # Errors
    /// `no_such_instance`.
    pub(super) fn prepaid(&self, account: u64, id: u64) -> Result<Prepaid, MarketError> {
        self.own_contract(account, id)?;
        let deposit = self.extras.of.get(&id).and_then(|extra| extra.deposit);
        let Some(deposit) = deposit else {
            return Ok(Prepaid {
                left: Money::ZERO,
                discount: 0.0,
                months: 0.0,
                saved: Money::ZERO,
            });
        };
        let used = self.billed(account, id) - deposit.billed_before;
        let full = used.as_dollars() / (1.0 - deposit.discount);
        Ok(Prepaid {
            left: (deposit.amount - used).max(Money::ZERO),
            discount: deposit.discount,
            months: deposit.months,
            saved: Money::from_dollars(full * deposit.discount).unwrap_or(Money::ZERO),
        })
    }

    /// What is prepaid on an instance, as its record shows it: dollars left, and the discount.
    pub(super) fn prepaid_shown(&self, account: u64, id: u64) -> Option<(f64, f64)> {
        self.extras.of.get(&id)?.deposit?;
        let prepaid = self.prepaid(account, id).ok()?;
        Some((prepaid.left.as_dollars(), prepaid.discount))
    }

    fn billed(&self, account: u64, id: u64) -> Money {
        let bill = self.bills_of(account).find(|(of, _)| *of == id);
        bill.map_or(Money::ZERO, |(_, bill)| bill.total())
    }

    /// Begins a copy of a folder from one instance of the account to another, running or not.
    ///
    /// # Errors
    /// `no_such_instance` for either.
    pub(super) fn copy(
        &mut self,
        account: u64,
        (from, source): (u64, &str),
        (to, target): (u64, &str),
    ) -> Result<(), MarketError> {
        let from_machine = self.own_contract(account, from)?.machine;
        let to_machine = self.own_contract(account, to)?.machine;
        let seconds = if from_machine == to_machine {
            20.0
        } else {
            let speed = |machine: usize, pick: fn(&super::raw::RawOffer) -> f64| {
                let slice = self.machines[machine].slices.first();
                slice.map_or(1.0, |slice| pick(&slice.row).max(1.0))
            };
            let up = speed(from_machine, |row| row.inet_up);
            let down = speed(to_machine, |row| row.inet_down);
            COPY_MBIT / up.min(down)
        };
        let what = format!("C.{from}:{source} -> C.{to}:{target}");
        self.begin_copy(to, what, false, seconds);
        if self.extras.is_real {
            self.extras.to_copy.push(Copied {
                from: (from, source.to_owned()),
                to: (to, target.to_owned()),
            });
        }
        Ok(())
    }

    /// Begins a copy between an instance and a cloud connection.
    ///
    /// # Errors
    /// `no_such_instance`.
    pub(super) fn cloud_copy(
        &mut self,
        account: u64,
        id: u64,
        what: String,
    ) -> Result<(), MarketError> {
        self.own_contract(account, id)?;
        self.begin_copy(id, what, true, 60.0);
        Ok(())
    }

    fn begin_copy(&mut self, shown_on: u64, what: String, cloud: bool, seconds: f64) {
        let now = self.now;
        let over = |copy: &Copying| now.ms_since(copy.until) > COPY_DONE_MS;
        self.extras.copies.retain(|copy| !over(copy));
        let ms = (seconds.clamp(1.0, 86_400.0) * 1000.0) as i64;
        self.extras.copies.push(Copying {
            shown_on,
            what,
            cloud,
            begun: now,
            until: Time(now.0.saturating_add(COPY_SHOWN_MS + ms)),
        });
    }

    /// Ends the copies into an instance.
    ///
    /// # Errors
    /// `no_such_instance`.
    pub(super) fn cancel_copies(&mut self, account: u64, id: u64) -> Result<(), MarketError> {
        self.own_contract(account, id)?;
        self.extras.copies.retain(|copy| copy.shown_on != id);
        Ok(())
    }

    /// How far the last copy into an instance is, in the marketplace's words.
    pub(super) fn copy_status(&self, id: u64) -> Option<String> {
        let copies = self.extras.copies.iter().rev();
        let copy = copies.into_iter().find(|copy| copy.shown_on == id)?;
        let shown = self.now.ms_since(copy.begun) - COPY_SHOWN_MS;
        let whole = copy.until.ms_since(copy.begun) - COPY_SHOWN_MS;
        if shown < 0 || self.now.ms_since(copy.until) > COPY_DONE_MS {
            return None;
        }
        let done = (shown * 100 / whole.max(1)).min(100);
        Some(match done {
            100 if copy.cloud => "Cloud Copy Operation Finished".to_owned(),
            100 => format!("rsync {} complete", copy.what),
            percent => format!("rsync {} {percent}%", copy.what),
        })
    }

    /// Keeps a text that can be read in a moment; the answer is the unguessable end of its address.
    pub(super) fn keep_result(&mut self, account: u64, text: String) -> String {
        let extras = &mut self.extras;
        extras.results_made += 1;
        let hash = Sha256::new()
            .chain_update(self.options.seed.to_be_bytes())
            .chain_update(account.to_be_bytes())
            .chain_update(extras.results_made.to_be_bytes())
            .chain_update(b"result")
            .finalize();
        let name = hex(&hash);
        if extras.results.len() >= RESULTS_KEPT {
            let oldest = extras.results.iter().min_by_key(|(_, (at, _))| *at);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                extras.results.remove(&oldest);
            }
        }
        let ready = Time(self.now.0.saturating_add(RESULT_MS));
        extras.results.insert(name.clone(), (ready, text));
        name
    }

    /// A result that is ready.
    pub(super) fn result(&self, name: &str) -> Option<&str> {
        let (ready, text) = self.extras.results.get(name)?;
        (*ready <= self.now).then_some(text)
    }

    /// The lines that an instance's container has written, or the host's daemon about it.
    ///
    /// # Errors
    /// `no_such_instance`.
    pub(super) fn log_lines(
        &self,
        account: u64,
        id: u64,
        daemon: bool,
    ) -> Result<Vec<String>, MarketError> {
        let task = self.own_task(account, id)?;
        Ok(if daemon {
            daemon_lines(id, task)
        } else if self.extras.is_real {
            self.extras.written.get(&id).cloned().unwrap_or_default()
        } else if let Some(player) = self.extras.players.get(&id) {
            player.log()
        } else {
            container_lines(id, task, self.now)
        })
    }

    /// Lets a key into an instance.
    ///
    /// # Errors
    /// `no_such_instance`.
    pub(super) fn attach_key(
        &mut self,
        account: u64,
        id: u64,
        key: &str,
    ) -> Result<u64, MarketError> {
        self.own_contract(account, id)?;
        let keys = &mut self.extras.of.entry(id).or_default().ssh_keys;
        if key.len() > KEY_BYTES_MAX || keys.len() >= KEYS_MAX {
            return Err(MarketError::invalid_args("too many SSH keys, or too long"));
        }
        if let Some((number, _)) = keys.iter().find(|(_, known)| known == key) {
            return Ok(*number);
        }
        let number = keys.last().map_or(1, |(last, _)| last + 1);
        keys.push((number, key.to_owned()));
        Ok(number)
    }

    /// The keys that were let into an instance, with their numbers.
    ///
    /// # Errors
    /// `no_such_instance`.
    pub(super) fn attached_keys(
        &self,
        account: u64,
        id: u64,
    ) -> Result<Vec<(u64, String)>, MarketError> {
        self.own_contract(account, id)?;
        let extra = self.extras.of.get(&id);
        Ok(extra.map_or_else(Vec::new, |extra| extra.ssh_keys.clone()))
    }

    /// Shuts a key out of an instance; whether it was in.
    ///
    /// # Errors
    /// `no_such_instance`.
    pub(super) fn detach_key(
        &mut self,
        account: u64,
        id: u64,
        number: u64,
    ) -> Result<bool, MarketError> {
        self.own_contract(account, id)?;
        let Some(extra) = self.extras.of.get_mut(&id) else {
            return Ok(false);
        };
        let before = extra.ssh_keys.len();
        extra.ssh_keys.retain(|(known, _)| *known != number);
        Ok(extra.ssh_keys.len() < before)
    }

    fn own_contract(&self, account: u64, id: u64) -> Result<&Contract, MarketError> {
        self.contracts
            .get(&id)
            .filter(|contract| contract.account() == Some(account))
            .ok_or_else(|| MarketError::no_such_instance(id))
    }

    fn own_task(&self, account: u64, id: u64) -> Result<&Task, MarketError> {
        let task = self.own_contract(account, id)?.task();
        task.ok_or_else(|| MarketError::no_such_instance(id))
    }

    fn own_running(&self, account: u64, id: u64) -> Result<(), MarketError> {
        if self.own_contract(account, id)?.granted {
            Ok(())
        } else {
            Err(MarketError::invalid_args("the instance is not running"))
        }
    }
}

fn stamp(at: Time) -> String {
    let date = chrono::DateTime::from_timestamp_millis(at.0);
    date.map_or_else(String::new, |date| {
        date.format("%Y-%m-%d %H:%M:%S").to_string()
    })
}

/// What a container writes: nothing before it ran first.
fn container_lines(id: u64, task: &Task, now: Time) -> Vec<String> {
    let ran = task.ran(now);
    if ran == 0 && task.up_since.is_none() {
        return Vec::new();
    }
    let began = task.up_since.unwrap_or(task.created);
    let image = task.params.image.as_deref().unwrap_or_default();
    let mut lines = vec![
        format!("{} container C.{id} starts from {image}", stamp(began)),
        "NVIDIA container runtime: devices are ready".to_owned(),
    ];
    if task.params.args.is_empty() {
        lines.push("Server listening on 0.0.0.0 port 22.".to_owned());
    } else {
        lines.push(format!("+ {}", task.params.args.join(" ")));
    }
    let script = task.params.onstart.as_deref().unwrap_or_default();
    for command in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        lines.push(format!("+ {command}"));
        // What is echoed is seen.
        if let Some(words) = command.strip_prefix("echo ") {
            lines.push(words.trim_matches(['"', '\'']).to_owned());
        }
    }
    // A line a minute, as a job at work would write.
    let minutes = ran / 60_000;
    let first = (minutes - 200).max(1);
    lines.extend((first..=minutes).map(|minute| format!("[{minute} min] working")));
    match task.container {
        Container::Ended => lines.push("container exited".to_owned()),
        Container::Exited => lines.push(format!("{} stopped", stamp(now))),
        _ => {}
    }
    lines
}

/// What the host's daemon writes.
fn daemon_lines(id: u64, task: &Task) -> Vec<String> {
    let image = task.params.image.as_deref().unwrap_or_default();
    let mut lines = vec![
        format!("{} C.{id} created", stamp(task.created)),
        format!("pulling {image}"),
    ];
    if task.image_ready {
        lines.push(format!("Status: image is ready: {image}"));
    }
    if let Some(words) = &task.status_msg {
        lines.push(words.to_string());
    }
    lines
}
