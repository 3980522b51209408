//! What accounts are notified of. Notifications are evidence and no more: as the disputed facts
//! say, they come at once, late or never.

use serde_json::{Value, json};

use super::api::Happening;
use super::contract::Contract;
use super::disputed::Notices;
use super::sim::{Due, Market};
use crate::types::money::Rate;

/// Shares of late notifications that come minutes late, and of lossy ones that never come.
const LATE: f64 = 0.5;
const LOST: f64 = 0.3;

/// A notification under way.
#[derive(Clone, Debug)]
pub(super) struct Undelivered {
    account: u64,
    kind: &'static str,
    message: String,
    about: Value,
}

impl Market {
    /// Notifies an account, as reliably as notifications are.
    pub(super) fn announce(
        &mut self,
        account: u64,
        kind: &'static str,
        message: String,
        about: Value,
    ) {
        let Some(held) = self.accounts.get_mut(&account) else {
            return;
        };
        let (lost, late, ms) = match self.options.disputed.notices {
            Notices::Prompt => (false, false, 0),
            Notices::Late => (false, held.dice.chance(LATE), held.dice.seconds(5, 400)),
            Notices::Lossy => (held.dice.chance(LOST), true, held.dice.seconds(1, 400)),
        };
        if lost {
            return;
        }
        if !late {
            self.notify(account, kind, message, about);
            return;
        }
        let number = self.undelivered.last_key_value().map_or(1, |(n, _)| n + 1);
        let notice = Undelivered {
            account,
            kind,
            message,
            about,
        };
        self.undelivered.insert(number, notice);
        self.later(ms, Due::Notice(number));
    }

    pub(super) fn notice_arrives(&mut self, number: u64) {
        if let Some(notice) = self.undelivered.remove(&number) {
            self.notify(notice.account, notice.kind, notice.message, notice.about);
        }
    }

    /// A rental ends within so many hours, unless its end was moved.
    pub(super) fn expires_soon(&mut self, id: u64, hours: i64) {
        let soon = self.contracts.get(&id).and_then(Contract::task);
        let left = soon.map(|task| (task.ends.ms_since(self.now), task.expired));
        if left.is_some_and(|(ms, expired)| !expired && ms <= hours * 3_600_000) {
            let words = format!("ends in {hours} hours");
            self.announce_of(id, "instance_expiring", &words, &[]);
        }
    }

    /// Notifies the accounts that something concerns.
    pub(super) fn spread(&mut self, machine: usize, what: &Happening) {
        match *what {
            Happening::Created { instance, .. } => {
                self.announce_of(instance, "instance_created", "was created", &[]);
            }
            Happening::Running { instance } => {
                self.announce_of(instance, "instance_started", "started", &[]);
            }
            Happening::Resumed { instance } => {
                self.announce_of(instance, "instance_resumed", "resumed", &[]);
            }
            Happening::Outbid { instance, by } => {
                let bid = self.contracts.get(&instance).and_then(|held| held.bid);
                let bids = [
                    ("your_bid", json!(bid.map(Rate::as_dollars))),
                    ("new_min_bid", json!(by.as_dollars())),
                ];
                self.announce_of(instance, "outbid", "was outbid", &bids);
            }
            Happening::OnDemandTook { instance }
            | Happening::Parked { instance }
            | Happening::Stopped { instance } => {
                self.announce_of(instance, "instance_stopped", "stopped", &[]);
            }
            Happening::Expired { instance } => {
                let words = "reached its end and stopped";
                self.announce_of(instance, "instance_stopped", words, &[]);
            }
            Happening::Destroyed { instance } | Happening::Deleted { instance } => {
                self.announce_of(instance, "instance_deleted", "was deleted", &[]);
            }
            Happening::ProvisioningFailed { instance }
            | Happening::Failed { instance }
            | Happening::Ended { instance } => {
                let words = "has a container that failed or ended";
                self.announce_of(instance, "instance_error", words, &[]);
            }
            Happening::Extended { instance, until } => {
                let words = format!("goes on until {until}");
                let end = [("end_date", json!(until.epoch_seconds()))];
                self.announce_of(instance, "contract_extended", &words, &end);
            }
            Happening::PriceAsked { instance, rate } => {
                let words = format!("is to cost ${} per hour", rate.decimal());
                self.announce_of(instance, "price_increase", &words, &[]);
            }
            Happening::HostLeft => {
                self.announce_on(
                    machine,
                    "instance_offline",
                    "is offline: its host went away",
                );
            }
            Happening::HostReturned => {
                self.announce_on(machine, "instance_online", "is back online");
            }
            Happening::MaintenancePlanned { from, until } => {
                let words = format!("will be down from {from} until {until}");
                self.announce_on(machine, "upcoming_downtime", &words);
            }
            Happening::Deverified => {
                self.announce_on(machine, "instance_error", "is on a machine with an error");
            }
            // Of these an account is told elsewhere, or not at all.
            Happening::Verified
            | Happening::Repriced
            | Happening::Paid { .. }
            | Happening::CreditExhausted { .. } => {}
        }
    }

    /// Notifies the owners of all instances on a machine.
    fn announce_on(&mut self, machine: usize, kind: &'static str, words: &str) {
        for id in self.instances_on(machine) {
            self.announce_of(id, kind, words, &[]);
        }
    }

    /// Notifies the owner of an instance, which may be destroyed by now.
    fn announce_of(&mut self, id: u64, kind: &'static str, words: &str, more: &[(&str, Value)]) {
        let past = || self.past.get(&id).map(|(contract, _)| contract);
        let Some(contract) = self.contracts.get(&id).or_else(past) else {
            return;
        };
        let Some(account) = contract.account() else {
            return;
        };
        let mut about = json!({
            "instance_id": id,
            "machine_id": self.machines[contract.machine].id,
        });
        for (name, value) in more {
            about[*name] = value.clone();
        }
        self.announce(account, kind, format!("Instance {id} {words}."), about);
    }
}
