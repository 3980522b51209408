//! Accounts and their credit: what is paid in, autobilling, and what follows when it is used up.
//!
//! The credit is always what was paid in less the exact bill. It is looked at every half minute, as
//! the marketplace refreshes balances every few seconds; at or under zero every instance is
//! stopped, and disks are billed on into the negative, as documented.

use std::collections::BTreeSet;

use serde_json::json;

use super::api::{Happening, MarketError, Payments};
use super::contract::Contract;
use super::dice::{Dice, Purpose};
use super::raw::RawInstance;
use super::records::{PaymentKind, Records};
use super::sim::{Due, Market};
use crate::types::money::{Money, Rate};
use crate::types::time::Time;

/// The credit of every account is looked at once in so many milliseconds.
const CREDIT_CHECK_MS: i64 = 30_000;
const HOUR_MS: i64 = 3_600_000;
/// Where no threshold is set, credit under a dollar is low.
const LOW_CREDIT: Money = Money::dollars(1);
/// By so much a card is charged where the account does not say: no documented call sets it.
const USUAL_TOP_UP: Money = Money::dollars(10);

/// An account.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// What was paid in so far.
    pub(super) balance: Money,
    /// Whether its credit is used up, so that nothing runs.
    pub(super) broke: bool,
    /// Since when.
    broke_since: Option<Time>,
    /// Whether a charge to its card is under way, or was refused a short while ago.
    paying: bool,
    /// Whether it was told that its credit is low.
    warned: bool,
    /// Instances that were destroyed and may show once more.
    ghosts: Vec<Ghost>,
    /// Chance for what happens to it.
    pub(super) dice: Dice,
    /// What is kept of it beside its instances.
    pub(super) records: Records,
}

/// A destroyed instance that listings still show, as it was.
#[derive(Clone, Debug)]
struct Ghost {
    row: RawInstance,
    /// In so many further listings.
    left: u32,
    /// Whether the present listing has it.
    shown: bool,
}

impl Market {
    /// Opens an account with the play balance.
    pub(super) fn opens(&mut self, id: u64) {
        let balance = self.options.balance;
        let mut records = Records::opened(id, self.now, balance);
        if let Some((threshold, amount)) = self.options.autobill {
            records.settings.has_billing = true;
            records.settings.balance_threshold_enabled = true;
            records.settings.balance_threshold = threshold;
            records.settings.autobill_threshold = Some(threshold);
            records.settings.autobill_amount = Some(amount);
        }
        let broke = balance <= Money::ZERO;
        let account = Account {
            balance,
            broke,
            broke_since: broke.then_some(self.now),
            paying: false,
            warned: false,
            ghosts: Vec::new(),
            dice: Dice::new(self.options.seed, Purpose::Account(id)),
            records,
        };
        self.accounts.insert(id, account);
        self.later(CREDIT_CHECK_MS, Due::Credit(id));
    }

    /// Pays money in, as by hand. What was stopped for want of credit may run again.
    pub fn deposit(&mut self, account: u64, amount: Money) {
        self.paid_in(account, amount, "Payment");
    }

    /// Takes money from an account for something that is not rented here, as other services of the
    /// marketplace do.
    pub fn spend_elsewhere(&mut self, account: u64, amount: Money) {
        if let Some(held) = self.accounts.get_mut(&account) {
            held.balance = held.balance.saturating_sub(amount);
        }
    }

    /// All that was ever paid into an account, by any payment that its invoices show. For checkers.
    pub fn all_paid_in(&self, account: u64) -> Money {
        let amounts = self.payments(account).iter().map(|payment| payment.amount);
        amounts.fold(Money::ZERO, Money::saturating_add)
    }

    fn paid_in(&mut self, account: u64, amount: Money, words: &str) {
        let kind = PaymentKind::Credit;
        self.pay(account, amount, kind, "stripe_payments", words.to_owned());
        self.tell_of_account(Happening::Paid { account, amount });
        let about = json!({"amount": amount.as_dollars()});
        let message = format!("${} was paid in.", amount.decimal());
        self.announce(account, "payment_receipt", message, about);
        self.recovers(account);
    }

    /// Every look at an account's credit.
    pub(super) fn credit_is_checked(&mut self, id: u64) {
        self.later(CREDIT_CHECK_MS, Due::Credit(id));
        let credit = self.credit(id);
        self.warns_of_credit(id, credit);
        self.tops_up(id, credit);
        self.recovers(id);
        if self.credit(id) > Money::ZERO {
            return;
        }
        let now = self.now;
        let Some(account) = self.accounts.get_mut(&id) else {
            return;
        };
        let since = *account.broke_since.get_or_insert(now);
        if !account.broke {
            account.broke = true;
            self.stops_everything(id);
        }
        self.deletes_unpaid(id, since);
    }

    fn stops_everything(&mut self, id: u64) {
        let resumes = self.options.disputed.topped_up_resumes;
        let mut machines = BTreeSet::new();
        for contract in self.ids_of(id) {
            machines.insert(self.contracts[&contract].machine);
            self.halt(contract);
            if let Some(held) = self.contracts.get_mut(&contract) {
                held.wants &= resumes;
            }
        }
        self.tell_of_account(Happening::CreditExhausted { account: id });
        let message = "Your credit is used up; your instances were stopped.".to_owned();
        self.announce(id, "low_credit", message, json!({"credit": 0}));
        for machine in machines {
            self.later(5_000, Due::Auction(machine));
        }
    }

    /// Without a saved card, instances and their data are destroyed after a while.
    fn deletes_unpaid(&mut self, id: u64, since: Time) {
        let carded = self
            .accounts
            .get(&id)
            .is_some_and(|held| held.records.settings.has_billing);
        let Some(hours) = self.options.disputed.unpaid_deleted_hours else {
            return;
        };
        if !carded && self.now.ms_since(since) >= i64::from(hours) * HOUR_MS {
            for contract in self.ids_of(id) {
                self.deletes(contract);
            }
        }
    }

    /// There is credit again: what may run competes from the next auctions on.
    pub(super) fn recovers(&mut self, id: u64) {
        if self.credit(id) <= Money::ZERO {
            return;
        }
        let Some(account) = self.accounts.get_mut(&id) else {
            return;
        };
        if account.broke_since.take().is_none() {
            return;
        }
        account.broke = false;
        let machines: BTreeSet<usize> = self
            .ids_of(id)
            .into_iter()
            .map(|contract| self.contracts[&contract].machine)
            .collect();
        for machine in machines {
            self.later(self.until_resumed(5_000), Due::Auction(machine));
        }
    }

    fn warns_of_credit(&mut self, id: u64, credit: Money) {
        let Some(account) = self.accounts.get_mut(&id) else {
            return;
        };
        let settings = &account.records.settings;
        let threshold = if settings.balance_threshold > Money::ZERO {
            settings.balance_threshold
        } else {
            LOW_CREDIT
        };
        let low = credit <= threshold;
        let news = low && !account.warned;
        account.warned = low;
        if news {
            let message = format!("Your credit is ${}.", credit.decimal());
            let about = json!({"credit": credit.as_dollars()});
            self.announce(id, "low_credit", message, about);
        }
    }

    /// Autobilling: off by default; with a saved card, a threshold and an amount, credit at or
    /// under the threshold is topped up by the amount. One look tops up once: too small an amount
    /// does not keep a large account going.
    fn tops_up(&mut self, id: u64, credit: Money) {
        let way = self.options.payments;
        let Some(account) = self.accounts.get_mut(&id) else {
            return;
        };
        let settings = &account.records.settings;
        let threshold = settings
            .autobill_threshold
            .unwrap_or(settings.balance_threshold);
        let on = settings.balance_threshold_enabled && settings.has_billing;
        let amount = settings.autobill_amount.unwrap_or(USUAL_TOP_UP);
        if !on || credit > threshold || account.paying || amount <= Money::ZERO {
            return;
        }
        match way {
            Payments::Prompt => self.paid_in(id, amount, "Autobilling"),
            Payments::Late => {
                account.paying = true;
                let ms = account.dice.seconds(120, 1800);
                self.later(ms, Due::Payment(id));
            }
            Payments::Failing => {
                account.paying = true;
                let message = "Your card was refused.".to_owned();
                let about = json!({"amount": amount.as_dollars()});
                self.announce(id, "billing_failed", message, about);
                self.later(HOUR_MS, Due::Payment(id));
            }
        }
    }

    /// A late payment arrives; a refused one may be tried again.
    pub(super) fn payment_is_through(&mut self, id: u64) {
        let Some(account) = self.accounts.get_mut(&id) else {
            return;
        };
        account.paying = false;
        let amount = account.records.settings.autobill_amount;
        if self.options.payments == Payments::Late {
            self.paid_in(id, amount.unwrap_or(USUAL_TOP_UP), "Autobilling");
        }
    }

    /// New accounts may spend so much an hour and no more.
    ///
    /// # Errors
    /// `spend_rate_limit` where one more rental at this rate would pass it.
    pub(super) fn within_spend_limit(&self, account: u64, more: Rate) -> Result<(), MarketError> {
        let Some(most) = self.options.spend_per_hour_max else {
            return Ok(());
        };
        let now: Rate = self
            .contracts
            .values()
            .filter(|contract| contract.account() == Some(account))
            .map(|contract| {
                let disk = contract.task().map_or(Rate::ZERO, |task| task.disk_rate);
                if contract.wants {
                    contract.price() + disk
                } else {
                    disk
                }
            })
            .sum();
        if now + more <= most {
            return Ok(());
        }
        let msg = format!(
            "error 400/3512: spend_rate_limit: this account may spend ${} per hour.",
            most.decimal()
        );
        Err(MarketError::new(400, "spend_rate_limit", msg))
    }

    /// An instance is about to be destroyed: it may show once more, as it is now.
    pub(super) fn haunts(&mut self, id: u64) {
        let left = self.options.disputed.ghosts;
        let Some(account) = self.contracts.get(&id).and_then(Contract::account) else {
            return;
        };
        if left == 0 {
            return;
        }
        let Some(row) = self.instance(account, id) else {
            return;
        };
        if let Some(held) = self.accounts.get_mut(&account) {
            held.ghosts.push(Ghost {
                row,
                left,
                shown: false,
            });
        }
    }

    /// The account's instances as a listing on a wire shows them, in order of id. It differs from
    /// [`Market::instances`], the truth, where the disputed facts say so: destroyed instances show
    /// in some further listings, and new ones are not in it at first. `begins` is whether it is a
    /// new listing: pages after the first belong to the listing that began before.
    pub fn listing(&mut self, account: u64, begins: bool) -> Vec<RawInstance> {
        let mut rows: Vec<RawInstance> = self
            .instances(account)
            .into_iter()
            .filter(|row| self.is_shown(row.id))
            .collect();
        let Some(held) = self.accounts.get_mut(&account) else {
            return rows;
        };
        if begins {
            for ghost in &mut held.ghosts {
                ghost.shown = ghost.left > 0;
                ghost.left = ghost.left.saturating_sub(1);
            }
            held.ghosts.retain(|ghost| ghost.shown);
        }
        let ghosts = held.ghosts.iter().filter(|ghost| ghost.shown);
        rows.extend(ghosts.map(|ghost| ghost.row.clone()));
        rows.sort_by_key(|row| row.id);
        rows
    }

    /// One instance as a read by its id shows it on a wire. Where the disputed facts say so, a
    /// destroyed one shows for as long as listings show it, and a new one does not at first.
    pub fn reading(&self, account: u64, id: u64) -> Option<RawInstance> {
        if let Some(row) = self.instance(account, id) {
            return self.is_shown(id).then_some(row);
        }
        let ghosts = &self.accounts.get(&account)?.ghosts;
        let ghost = ghosts.iter().find(|ghost| ghost.row.id == id)?;
        self.options
            .disputed
            .ghosts_by_id
            .then(|| ghost.row.clone())
    }

    /// Whether a living instance is old enough to be shown.
    fn is_shown(&self, id: u64) -> bool {
        let after = i64::from(self.options.disputed.shown_after_seconds) * 1000;
        let made = self.contracts.get(&id).and_then(Contract::task);
        made.is_none_or(|task| self.now.ms_since(task.created) >= after)
    }
}
