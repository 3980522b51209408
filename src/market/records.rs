//! What the marketplace keeps of an account beside its instances.
//!
//! Ids count up within an account, times are the market's, and hashes and secrets follow from the
//! account and its number: the same calls leave the same records.

mod audit;
mod keys;
mod payments;
mod settings;
mod templates;
mod webhooks;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::api::CreateParams;
use super::raw::RawUser;
use super::sim::Market;
use crate::types::hex::hex;
use crate::types::money::Money;
use crate::types::time::Time;

use audit::AuditRow;
pub(super) use keys::no_ssh_key;
pub(super) use payments::{Payment, PaymentKind};
use settings::Settings;
pub(super) use templates::Template;
pub(super) use webhooks::{Delivery, NOTIFICATION_TYPES};

/// Notifications that the inbox shows.
const INBOX_ROWS: usize = 50;

/// What is kept of an account.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    /// Every notification, oldest first.
    pub(super) inbox: Vec<Notice>,
    /// What the account set for itself, autobilling included.
    pub(super) settings: Settings,
    /// Money that came and went other than by use, oldest first.
    pub(super) payments: Vec<Payment>,
    keys: keys::Keys,
    templates: templates::Templates,
    webhooks: webhooks::Webhooks,
    audit: audit::Audit,
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

impl Records {
    /// The records of an account that is opened with some play money.
    pub(super) fn opened(account: u64, at: Time, balance: Money) -> Self {
        let mut records = Self {
            keys: keys::Keys::of(account),
            templates: templates::Templates::of(account),
            webhooks: webhooks::Webhooks::of(account),
            ..Self::default()
        };
        if balance > Money::ZERO {
            records.payments.push(Payment::opening(at, balance));
        }
        records
    }

    /// The SSH keys.
    pub(super) fn keys(&mut self) -> &mut keys::Keys {
        &mut self.keys
    }

    /// The templates.
    pub(super) fn templates(&mut self) -> &mut templates::Templates {
        &mut self.templates
    }

    /// The webhooks, and what waits to be delivered to them.
    pub(super) fn webhooks(&mut self) -> &mut webhooks::Webhooks {
        &mut self.webhooks
    }

    /// The calls that changed something, oldest first.
    pub(super) fn audit(&self) -> impl DoubleEndedIterator<Item = &AuditRow> {
        self.audit.rows()
    }
}

impl Market {
    /// The records of an account; `None` for one that no token ever opened.
    pub(super) fn records(&mut self, account: u64) -> Option<&mut Records> {
        self.accounts
            .get_mut(&account)
            .map(|held| &mut held.records)
    }

    /// Completes what is to be rented by the account's template that it names: what is given there
    /// counts, and of the environment each entry. A template that the account does not have is
    /// somebody else's, of which nothing is known here.
    pub(super) fn complete_by_template(&self, account: u64, params: &mut CreateParams) {
        let hash = params.template_hash_id.as_deref();
        let held = self.accounts.get(&account);
        let template = held
            .zip(hash)
            .and_then(|(held, hash)| held.records.templates.by_hash(hash));
        if let Some(template) = template {
            template.complete(params);
        }
    }

    /// Tells an account of something: in its inbox, and by its webhooks that ask for the kind.
    pub(super) fn notify(
        &mut self,
        account: u64,
        kind: &'static str,
        message: String,
        about: Value,
    ) {
        let at = self.now;
        let Some(records) = self.records(account) else {
            return;
        };
        let event_id = format!("{account:x}-{}", records.inbox.len() + 1);
        let notice = Notice {
            event_id,
            kind,
            at,
            message,
            about,
        };
        records.webhooks.send(account, &notice);
        records.inbox.push(notice);
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
                "timestamp": notice.at.epoch_seconds(),
                "subject": notice.subject(),
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

    /// Takes what waits to be delivered to webhooks, oldest first within an account. In a
    /// simulation nobody does.
    pub(super) fn take_deliveries(&mut self) -> Vec<Delivery> {
        self.accounts
            .values_mut()
            .flat_map(|held| held.records.webhooks.take_outbox())
            .collect()
    }

    /// Notes a call that may change something.
    pub(super) fn log_call(&mut self, account: u64, route: &str, args: &Map<String, Value>) {
        let at = self.now;
        if let Some(records) = self.records(account) {
            records.audit.log(at, route, args);
        }
    }

    /// The account's user record, with what it set for itself.
    pub(super) fn user_record(&self, account: u64) -> UserRecord {
        let mut user = self.user(account);
        let mut texts = BTreeMap::new();
        if let Some(held) = self.accounts.get(&account) {
            texts = held.records.settings.apply(&mut user);
        }
        user.host_agreement_accepted = self.is_host(account);
        UserRecord { user, texts }
    }
}

/// The user record as the wire has it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct UserRecord {
    #[serde(flatten)]
    user: RawUser,
    /// What else was set.
    #[serde(flatten)]
    texts: BTreeMap<&'static str, String>,
}

impl Notice {
    /// A line for people.
    fn subject(&self) -> String {
        self.kind.replace('_', " ")
    }
}

/// Sixty-four hexadecimal digits that follow from the parts.
fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // Lengths keep parts apart.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests;
