//! What the marketplace keeps of an account beside its instances.

use serde_json::{Value, json};

use super::sim::Market;
use crate::types::money::Money;
use crate::types::time::Time;

/// Notifications that the inbox shows.
const INBOX_ROWS: usize = 50;

/// What is kept of an account.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    /// Every notification, oldest first.
    pub(super) inbox: Vec<Notice>,
    /// What the account set for itself.
    pub(super) settings: Settings,
    /// Money that came and went other than by use, oldest first.
    pub(super) payments: Vec<Payment>,
}

/// What an account sets for itself about money.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    /// Whether the saved card is charged by itself.
    pub(super) balance_threshold_enabled: bool,
    /// Credit at which it is.
    pub(super) balance_threshold: Money,
    /// The older name of the threshold.
    pub(super) autobill_threshold: Option<Money>,
    /// By how much.
    pub(super) autobill_amount: Option<Money>,
    /// Whether a card is saved.
    pub(super) has_billing: bool,
}

/// What kind of payment one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PaymentKind {
    /// Money that was paid in.
    Credit,
}

/// One payment.
#[derive(Clone, Debug)]
pub(super) struct Payment {
    /// Its number within the account, from 1.
    pub(super) id: u64,
    /// When.
    pub(super) at: Time,
    /// What the credit rose by; negative where it fell.
    pub(super) amount: Money,
    /// The credit just before.
    pub(super) before: Money,
    /// Its kind.
    pub(super) kind: PaymentKind,
    /// Who moved the money, in the marketplace's word.
    pub(super) service: &'static str,
    /// A line.
    pub(super) description: String,
}

impl Records {
    /// The records of an account that is opened with some play money.
    pub(super) fn opened(_account: u64, at: Time, balance: Money) -> Self {
        let mut records = Self::default();
        if balance > Money::ZERO {
            records.payments.push(Payment {
                id: 1,
                at,
                amount: balance,
                before: Money::ZERO,
                kind: PaymentKind::Credit,
                service: "stripe_payments",
                description: "Play money".to_owned(),
            });
        }
        records
    }
}

/// A notification, as the inbox shows it.
#[derive(Clone, Debug)]
pub(super) struct Notice {
    /// Its id.
    pub(super) event_id: String,
    /// The marketplace's word for its kind, such as `outbid`.
    pub(super) kind: &'static str,
    /// When.
    pub(super) at: Time,
    /// A line.
    pub(super) message: String,
    /// The instance and machine, and with an outbid `your_bid` and `new_min_bid`.
    pub(super) about: Value,
}

impl Market {
    /// Changes an account's credit by a payment, which its invoices show. Does nothing for an
    /// account that does not exist.
    pub(super) fn pay(
        &mut self,
        account: u64,
        amount: Money,
        kind: PaymentKind,
        service: &'static str,
        description: String,
    ) {
        let (at, before) = (self.now, self.credit(account));
        let Some(held) = self.accounts.get_mut(&account) else {
            return;
        };
        held.balance = held.balance.saturating_add(amount);
        let id = held.records.payments.len() as u64 + 1;
        held.records.payments.push(Payment {
            id,
            at,
            amount,
            before,
            kind,
            service,
            description,
        });
    }

    /// Tells an account of something.
    pub(super) fn notify(
        &mut self,
        account: u64,
        kind: &'static str,
        message: String,
        about: Value,
    ) {
        let at = self.now;
        let Some(held) = self.accounts.get_mut(&account) else {
            return;
        };
        let inbox = &mut held.records.inbox;
        let event_id = format!("{account:x}-{}", inbox.len() + 1);
        inbox.push(Notice {
            event_id,
            kind,
            at,
            message,
            about,
        });
    }

    /// The inbox's rows, newest first.
    pub(super) fn inbox(&self, account: u64) -> Vec<Value> {
        let rows = self.accounts.get(&account).map(|held| &held.records.inbox);
        let row = |notice: &Notice| {
            json!({
                "event_id": notice.event_id,
                "notif_type": notice.kind,
                "user_context": "client",
                "created_at": notice.at.epoch_seconds(),
                "subject": notice.kind.replace('_', " "),
                "message": notice.message,
                "associated_id": notice.about,
            })
        };
        rows.into_iter()
            .flatten()
            .rev()
            .take(INBOX_ROWS)
            .map(row)
            .collect()
    }
}
