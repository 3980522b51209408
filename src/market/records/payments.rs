//! Money that comes and goes other than by use: the play balance, top-ups, transfers.

use serde_json::{Value, json};

use crate::market::api::MarketError;
use crate::market::sim::Market;
use crate::types::money::Money;
use crate::types::time::Time;

/// What kind of payment one is, in the marketplace's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PaymentKind {
    /// Money that was paid in.
    Credit,
    /// Between accounts.
    Transfer,
}

impl PaymentKind {
    /// The row's `type`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Credit => "credit",
            Self::Transfer => "transfer",
        }
    }
}

/// One payment.
#[derive(Clone, Debug)]
pub(crate) struct Payment {
    /// Its number within the account, from 1.
    pub(crate) id: u64,
    /// When.
    pub(crate) at: Time,
    /// What the credit rose by; negative where it fell.
    pub(crate) amount: Money,
    /// The credit just before.
    pub(crate) before: Money,
    /// Its kind.
    pub(crate) kind: PaymentKind,
    /// Who moved the money, in the marketplace's word.
    pub(crate) service: &'static str,
    /// A line.
    pub(crate) description: String,
}

impl Payment {
    /// The play money that an account begins with.
    pub(crate) fn opening(at: Time, balance: Money) -> Self {
        Self {
            id: 1,
            at,
            amount: balance,
            before: Money::ZERO,
            kind: PaymentKind::Credit,
            service: "stripe_payments",
            description: "Play money".to_owned(),
        }
    }

    /// A row of the payments. A negative amount is money that was paid in, as documented.
    pub(crate) fn row(&self) -> Value {
        json!({
            "start": self.at.epoch_seconds(), "end": null, "type": self.kind.word(),
            "source": self.service, "description": self.description,
            "amount": -self.amount.as_dollars(),
            "metadata": {"invoice_id": self.id, "service": self.service}, "items": [],
        })
    }

    /// A row as the invoice search gives it. Cents are rounded.
    pub(crate) fn invoice(&self, user: u64) -> Value {
        let cents = |amount: Money| (amount.as_dollars() * 100.0).round() as i64;
        json!({
            "id": self.id, "user_id": user,
            "when": self.at.epoch_seconds(), "paid_on": self.at.epoch_seconds(),
            "payment_expected": self.at.epoch_seconds(),
            "amount_cents": cents(self.amount), "original_amount": cents(self.amount),
            "is_credit": self.kind == PaymentKind::Credit, "is_delayed": false,
            "balance_before": self.before.as_dollars(),
            "balance_after": self.before.saturating_add(self.amount).as_dollars(),
            "service": self.service, "type": self.kind.word(),
            "description": self.description,
        })
    }
}

impl Market {
    /// Changes an account's credit by a payment, which its invoices show. Does nothing for an
    /// account that does not exist. What was stopped for want of credit is another matter.
    pub(in crate::market) fn pay(
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

    /// The payments of an account, oldest first.
    pub(in crate::market) fn payments(&self, account: u64) -> &[Payment] {
        self.accounts
            .get(&account)
            .map_or(&[], |held| &held.records.payments)
    }

    /// The account that an id, a user name or an address names.
    pub(in crate::market) fn account_named(&self, name: &str) -> Option<u64> {
        let name = name.trim();
        let by_id = name
            .parse()
            .ok()
            .filter(|id| self.accounts.contains_key(id));
        by_id.or_else(|| {
            let mut accounts = self.accounts.keys().copied();
            accounts.find(|&id| {
                let user = self.user(id);
                let mut texts = self.accounts[&id].records.settings.texts();
                let chosen = texts
                    .any(|(field, text)| matches!(field, "username" | "email") && text == name);
                user.username == name || user.email == name || chosen
            })
        })
    }

    /// Moves credit from one account to another: what one loses the other gains.
    ///
    /// # Errors
    /// `invalid_args` where the amount is none, `invalid_recipient` where the other account is
    /// unknown or the same, `insufficient_balance` where the credit does not cover it.
    pub(in crate::market) fn transfer(
        &mut self,
        sender: u64,
        recipient: u64,
        amount: Money,
    ) -> Result<(), MarketError> {
        if amount <= Money::ZERO {
            return Err(MarketError::invalid_args("amount must be over zero"));
        }
        if sender == recipient || !self.accounts.contains_key(&recipient) {
            let words = "The recipient is not another account.";
            return Err(MarketError::new(400, "invalid_recipient", words));
        }
        if self.credit(sender) < amount {
            let words = "The credit does not cover the amount.";
            return Err(MarketError::new(400, "insufficient_balance", words));
        }
        let to = format!("Transfer to account {recipient}");
        let from = format!("Transfer from account {sender}");
        let out = Money::ZERO.saturating_sub(amount);
        self.pay(sender, out, PaymentKind::Transfer, "transfer", to);
        self.pay(recipient, amount, PaymentKind::Transfer, "transfer", from);
        self.recovers(recipient);
        Ok(())
    }
}
