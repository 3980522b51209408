//! Webhooks, and the events that wait to be delivered to them.

use std::collections::VecDeque;
use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use http::Uri;
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::{Notice, digest, hex};
use crate::market::api::MarketError;
use crate::types::time::Time;

/// So many webhooks a user may have, as documented.
const WEBHOOKS_MAX: usize = 4;
/// Longest URL, as documented.
const URL_MAX: usize = 2048;
/// Longest name, as documented.
const NAME_MAX: usize = 120;
/// So many events wait for delivery; the oldest is forgotten first.
const OUTBOX_MAX: usize = 1000;
/// Structured details of an event that are longer are left out, as documented, in bytes.
const DETAILS_MAX: usize = 4096;

/// The kinds of notification that a client may subscribe to: documented slugs, and what each tells.
pub(crate) const NOTIFICATION_TYPES: &[(&str, &str)] = &[
    ("outbid", "A higher bid took an instance's GPUs"),
    ("instance_created", "An instance was made"),
    ("instance_started", "An instance started"),
    ("instance_stopped", "An instance stopped"),
    ("instance_resumed", "An instance runs again"),
    ("instance_deleted", "An instance was deleted"),
    ("instance_offline", "An instance's machine went offline"),
    ("instance_online", "An instance's machine is back online"),
    ("instance_error", "An instance failed"),
    ("upcoming_downtime", "Maintenance of a machine is planned"),
    ("instance_expiring", "A rental ends soon"),
    ("contract_extended", "A rental's end was moved"),
    ("price_increase", "A host asks for more"),
    ("low_credit", "The credit runs out"),
    ("billing_failed", "A payment failed"),
    ("payment_receipt", "A payment was made"),
];

/// A webhook.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    /// Its id.
    pub(crate) id: u64,
    name: Option<String>,
    url: String,
    /// Full keys, such as `client:outbid`.
    events: Vec<String>,
    secret: String,
    rotations: u64,
    made: Time,
    changed: Time,
}

impl Webhook {
    /// As lists and edits show it: without its secret.
    pub(crate) fn shown(&self, user: u64) -> Value {
        json!({
            "id": self.id, "user_id": user, "name": self.name, "webhook_url": self.url,
            "event_types": self.events,
            "created_at": self.made.0.div_euclid(1000), "updated_at": self.changed.0.div_euclid(1000),
        })
    }

    /// As its making and the rotation of its secret show it, and nothing else.
    pub(crate) fn shown_with_secret(&self, user: u64) -> Value {
        let mut shown = self.shown(user);
        shown["webhook_secret"] = json!(self.secret);
        shown
    }

    /// What it subscribes to.
    pub(crate) fn events(&self) -> &[String] {
        &self.events
    }
}

/// An event on its way to a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// Where to.
    pub(crate) url: String,
    /// Of the event; the same in every attempt.
    pub(crate) event_id: String,
    /// The raw body.
    pub(crate) body: String,
    /// Whether a failure is tried again. A test is not.
    pub(crate) retried: bool,
    secret: String,
}

impl Delivery {
    /// The signature of an attempt at a time, in whole epoch seconds: HMAC-SHA256 with the
    /// webhook's secret over the timestamp, a period and the raw body, as documented.
    pub(crate) fn signature(&self, timestamp: i64) -> String {
        // A key of any length is taken.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()) else {
            return String::new();
        };
        mac.update(format!("{timestamp}.").as_bytes());
        mac.update(self.body.as_bytes());
        format!("sha256={}", hex(&mac.finalize().into_bytes()))
    }
}

/// An account's webhooks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Webhooks {
    account: u64,
    last: u64,
    tests: u64,
    webhooks: Vec<Webhook>,
    outbox: VecDeque<Delivery>,
}

impl Webhooks {
    pub(crate) fn of(account: u64) -> Self {
        Self {
            account,
            last: 40,
            ..Self::default()
        }
    }

    /// All, oldest first.
    pub(crate) fn all(&self) -> &[Webhook] {
        &self.webhooks
    }

    /// What waits to be delivered, oldest first.
    #[cfg(test)]
    pub(crate) fn outbox(&self) -> impl Iterator<Item = &Delivery> {
        self.outbox.iter()
    }

    /// Takes what waits to be delivered.
    pub(crate) fn take_outbox(&mut self) -> VecDeque<Delivery> {
        std::mem::take(&mut self.outbox)
    }

    /// Makes one.
    ///
    /// # Errors
    /// `invalid_args` for a bad URL, name or event, and where there are four.
    pub(crate) fn add(
        &mut self,
        at: Time,
        fields: &Map<String, Value>,
    ) -> Result<Webhook, MarketError> {
        if self.webhooks.len() >= WEBHOOKS_MAX {
            return Err(MarketError::invalid_args("a user has at most 4 webhooks"));
        }
        let mut webhook = Webhook {
            id: self.last + 1,
            name: None,
            url: String::new(),
            events: Vec::new(),
            secret: secret(self.account, self.last + 1, 0),
            rotations: 0,
            made: at,
            changed: at,
        };
        webhook.set(fields)?;
        if webhook.url.is_empty() || webhook.events.is_empty() {
            return Err(MarketError::invalid_args(
                "webhook_url and event_types are required",
            ));
        }
        self.last += 1;
        self.webhooks.push(webhook.clone());
        Ok(webhook)
    }

    /// Changes one. What is not given stays.
    ///
    /// # Errors
    /// `not_found`, and as [`Self::add`].
    pub(crate) fn edit(
        &mut self,
        at: Time,
        id: u64,
        fields: &Map<String, Value>,
    ) -> Result<Webhook, MarketError> {
        let held = self.held(id)?;
        let mut next = held.clone();
        next.set(fields)?;
        next.changed = at;
        *held = next.clone();
        Ok(next)
    }

    /// Deletes one; what waits for it is not sent.
    ///
    /// # Errors
    /// `not_found`.
    pub(crate) fn delete(&mut self, id: u64) -> Result<(), MarketError> {
        let secret = self.held(id)?.secret.clone();
        self.webhooks.retain(|held| held.id != id);
        self.outbox.retain(|waiting| waiting.secret != secret);
        Ok(())
    }

    /// Gives one another secret.
    ///
    /// # Errors
    /// `not_found`.
    pub(crate) fn rotate(&mut self, at: Time, id: u64) -> Result<Webhook, MarketError> {
        let account = self.account;
        let held = self.held(id)?;
        held.rotations += 1;
        held.secret = secret(account, id, held.rotations);
        held.changed = at;
        Ok(held.clone())
    }

    /// Sends one a test event, once.
    ///
    /// # Errors
    /// `not_found`.
    pub(crate) fn test(&mut self, at: Time, id: u64) -> Result<(), MarketError> {
        let account = self.account;
        let webhook = self.held(id)?.clone();
        self.tests += 1;
        let notice = Notice {
            event_id: format!("{account:x}-test-{}", self.tests),
            kind: "webhook_test",
            at,
            message: "This is a test of a webhook.".to_owned(),
            about: Value::Null,
        };
        self.put(webhook.delivery(account, &notice, false));
        Ok(())
    }

    /// Puts an event into the outbox for each webhook that asks for its kind.
    pub(crate) fn send(&mut self, account: u64, notice: &Notice) {
        let key = format!("client:{}", notice.kind);
        let asked = self
            .webhooks
            .iter()
            .filter(|held| held.events.contains(&key));
        let deliveries: Vec<Delivery> = asked
            .map(|held| held.delivery(account, notice, true))
            .collect();
        for delivery in deliveries {
            self.put(delivery);
        }
    }

    fn put(&mut self, delivery: Delivery) {
        if self.outbox.len() == OUTBOX_MAX {
            self.outbox.pop_front();
        }
        self.outbox.push_back(delivery);
    }

    fn held(&mut self, id: u64) -> Result<&mut Webhook, MarketError> {
        let held = self.webhooks.iter_mut().find(|held| held.id == id);
        held.ok_or_else(|| MarketError::new(404, "not_found", "No such webhook."))
    }
}

impl Webhook {
    fn delivery(&self, user: u64, notice: &Notice, retried: bool) -> Delivery {
        let truncated = notice.about.to_string().len() > DETAILS_MAX;
        let data = if truncated {
            Value::Null
        } else {
            notice.about.clone()
        };
        let body = json!({
            "event_id": notice.event_id, "user_id": user, "notif_type": notice.kind,
            "subject": notice.subject(), "message": notice.message,
            "data": data, "data_truncated": truncated,
            "timestamp": notice.at.epoch_seconds(),
        });
        Delivery {
            url: self.url.clone(),
            event_id: notice.event_id.clone(),
            body: body.to_string(),
            retried,
            secret: self.secret.clone(),
        }
    }

    fn set(&mut self, fields: &Map<String, Value>) -> Result<(), MarketError> {
        let bad = |words: &str| Err(MarketError::invalid_args(words));
        match fields.get("name") {
            None | Some(Value::Null) => {}
            Some(Value::String(name))
                if name.chars().count() <= NAME_MAX && !name.chars().any(char::is_control) =>
            {
                self.name = Some(name.clone());
            }
            Some(_) => return bad("name is not a text of at most 120 characters"),
        }
        match fields.get("webhook_url") {
            None | Some(Value::Null) => {}
            Some(Value::String(url)) if reachable(url) => self.url.clone_from(url),
            Some(_) => return bad("webhook_url must be https with a public host"),
        }
        match fields.get("event_types") {
            None | Some(Value::Null) => {}
            Some(Value::Array(keys)) if !keys.is_empty() => self.events = events(keys)?,
            Some(_) => return bad("event_types must hold at least one event key"),
        }
        Ok(())
    }
}

/// The keys of events in full, each once.
fn events(keys: &[Value]) -> Result<Vec<String>, MarketError> {
    let mut events = Vec::new();
    for key in keys {
        let slug = key.as_str().map(|key| key.trim_start_matches("client:"));
        let known = NOTIFICATION_TYPES
            .iter()
            .find(|(known, _)| slug == Some(known));
        let Some((known, _)) = known else {
            return Err(MarketError::invalid_args(
                "event_types holds a key that does not exist",
            ));
        };
        let key = format!("client:{known}");
        if !events.contains(&key) {
            events.push(key);
        }
    }
    Ok(events)
}

/// Whether events may be sent there: https with a host name, as documented. The play market takes
/// plain http to this machine, too, so that a receiver can be tried without a certificate.
fn reachable(url: &str) -> bool {
    if url.chars().count() > URL_MAX {
        return false;
    }
    let Ok(url) = url.parse::<Uri>() else {
        return false;
    };
    let Some(authority) = url.authority() else {
        return false;
    };
    let host = authority.host();
    let has_user = authority.as_str().contains('@');
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    // What names resolve to is not looked at.
    let is_private = match bare.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => ip.is_private() || ip.is_link_local() || ip.is_unspecified(),
        Ok(IpAddr::V6(ip)) => {
            ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified()
        }
        Err(_) => false,
    };
    match url.scheme_str() {
        Some("https") => !host.is_empty() && !has_user && !is_private,
        Some("http") => matches!(host, "127.0.0.1" | "localhost" | "[::1]") && !has_user,
        _ => false,
    }
}

fn secret(account: u64, id: u64, rotations: u64) -> String {
    let hash = digest(&[
        b"webhook",
        &account.to_be_bytes(),
        &id.to_be_bytes(),
        &rotations.to_be_bytes(),
    ]);
    format!("whsec_{hash}")
}
