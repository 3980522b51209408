//! The endpoint that the marketplace's notifications are delivered to.
//!
//! By the marketplace's documentation a delivery is a POST of `{event_id, user_id, notif_type,
//! subject, message, timestamp}` with the headers `X-Vast-Event-Id`, `X-Vast-Timestamp` and
//! `X-Vast-Signature-256: sha256=HMAC(secret, "<timestamp>.<raw body>")`, at least once, with a
//! timeout of 10 s, and again after 408, 429 and 5xx. So the answer comes at once, and what a
//! delivery means is left to the loop.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::events::{Mailbox, Taken, Way, shown};
use super::metrics::Metrics;
use crate::ports::Clock;
use crate::types::hex::hex;
use crate::types::notification::{Notification, NotificationKind};
use crate::types::time::{Time, millis};

/// Largest body that is read, bytes.
pub const BODY_MAX: usize = 64 * 1024;

/// How far a delivery's timestamp may be from our clock, either way: an old one is a replay.
const WINDOW: Duration = Duration::from_secs(300);

/// Longest id of an event that is taken, bytes.
const ID_MAX: usize = 200;

/// Takes what might be a secret out of a text from outside.
pub type Redact = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// Receives deliveries for a mailbox.
pub struct Webhook {
    secret: SecretString,
    clock: Arc<dyn Clock>,
    mailbox: Arc<Mailbox>,
    metrics: Arc<Metrics>,
    redact: Redact,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

impl Webhook {
    /// An endpoint whose deliveries are signed with `secret`.
    pub fn new(
        secret: SecretString,
        clock: Arc<dyn Clock>,
        mailbox: Arc<Mailbox>,
        metrics: Arc<Metrics>,
        redact: Redact,
    ) -> Self {
        Self {
            secret,
            clock,
            mailbox,
            metrics,
            redact,
        }
    }

    /// Takes one delivery, and says what to answer. What is wrong with one that is refused is
    /// counted and not told: only who has the secret may learn from an answer.
    pub fn receive(&self, headers: &HeaderMap, body: Option<&Bytes>) -> StatusCode {
        let refuse = |outcome, status| {
            self.count(NotificationKind::Other, outcome);
            status
        };
        let Some(body) = body else {
            return refuse("too-large", StatusCode::PAYLOAD_TOO_LARGE);
        };
        if !self.is_signed(headers, body) {
            return refuse("bad-signature", StatusCode::UNAUTHORIZED);
        }
        if !self.is_recent(headers) {
            return refuse("bad-time", StatusCode::UNAUTHORIZED);
        }
        let Some(notification) = self.read(headers, body) else {
            return refuse("malformed", StatusCode::BAD_REQUEST);
        };
        let kind = notification.kind;
        let taken = self.mailbox.put(notification, self.clock.now());
        self.count(kind, taken.as_str());
        match taken {
            Taken::New | Taken::Duplicate => StatusCode::NO_CONTENT,
            Taken::Full => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn count(&self, kind: NotificationKind, outcome: &'static str) {
        self.metrics.notified(Way::Webhook, kind, outcome);
    }

    /// Whether the signature is of this body and its timestamp. Compared in constant time.
    fn is_signed(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let signature = header(headers, "x-vast-signature-256")
            .and_then(|value| value.strip_prefix("sha256="))
            .and_then(from_hex);
        let (Some(signature), Some(timestamp)) = (signature, header(headers, "x-vast-timestamp"))
        else {
            return false;
        };
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.secret.expose_secret().as_bytes())
        else {
            return false;
        };
        mac.update(timestamp.as_bytes());
        mac.update(b".");
        mac.update(body);
        mac.verify_slice(&signature).is_ok()
    }

    fn is_recent(&self, headers: &HeaderMap) -> bool {
        let sent = header(headers, "x-vast-timestamp")
            .and_then(|text| text.trim().parse::<f64>().ok())
            .and_then(seconds);
        let now = self.clock.now();
        sent.is_some_and(|sent| now.ms_since(sent).unsigned_abs() <= millis(WINDOW).unsigned_abs())
    }

    fn read(&self, headers: &HeaderMap, raw: &[u8]) -> Option<Notification> {
        let body: Value = serde_json::from_slice(raw).ok()?;
        let body = body.as_object()?;
        let text = |key: &str| match body.get(key) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        // The header's id is not signed: whoever repeats a delivery could give it another. A body
        // that has its id there alone is known by itself.
        let own = text("event_id").filter(|id| !id.is_empty());
        let id = own.or_else(|| header(headers, "x-vast-event-id").map(|_| digest(raw)));
        let id = id.filter(|id| id.len() <= ID_MAX)?;
        let kind = NotificationKind::from_word(&text("notif_type")?);
        let said: Vec<String> = ["subject", "message"]
            .into_iter()
            .filter_map(text)
            .collect();
        Some(Notification {
            id,
            kind,
            at: text("timestamp")
                .and_then(|text| text.parse::<f64>().ok())
                .and_then(seconds),
            instance: None,
            machine: None,
            winning_bid: None,
            text: shown(&(self.redact)(&said.join(": "))),
        })
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A moment in seconds since 1970; some senders write milliseconds.
fn seconds(number: f64) -> Option<Time> {
    let ms = if number.abs() < 1e11 {
        number * 1000.0
    } else {
        number
    };
    (ms.is_finite() && (0.0..1e15).contains(&ms)).then_some(Time(ms as i64))
}

/// An id of what has none.
fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let digits = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(digits).collect()
}
