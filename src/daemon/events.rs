//! What the marketplace tells of by itself, and what that does: it wakes the tick, and it is kept
//! as history. It changes nothing by itself, for a message may be late, forged or lost; the listing
//! decides what is.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Daemon, DaemonError};
use crate::ports::ReadError;
use crate::types::instance::{Held, Listing};
use crate::types::notification::{Notification, NotificationKind, PriceIncrease};
use crate::types::spelling::is_obeyed;
use crate::types::state::{Change, Event, Severity};
use crate::types::time::{Mono, Time};

/// Ids of notifications that are remembered, so that a delivery that comes again is known. The
/// marketplace documents delivery at least once, and shows the last 50 in its inbox.
const REMEMBERED: usize = 1024;

/// Notifications that may wait for a tick. More are turned away: a sender tries again.
const WAITING_MAX: usize = 256;

/// Longest text of a notification that is kept, characters.
const TEXT_MAX: usize = 500;

/// The least time between two ticks where the second is early.
const EARLY_APART: Duration = Duration::from_secs(5);

/// Early ticks in any minute, however much is told.
const EARLY_PER_MINUTE: usize = 6;

/// How often the inbox is read.
pub(super) const INBOX_EVERY: Duration = Duration::from_secs(60);

/// What an inbox that is read for the first time holds of before this is old news.
const INBOX_NEWS: Duration = Duration::from_secs(120);

/// How often hosts' requests for higher prices are looked for.
const INCREASES_EVERY: Duration = Duration::from_secs(600);

// ---------------------------------------------------------------------------------------- mailbox

/// How a notification came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Delivered to us.
    Webhook,
    /// Read by us.
    Inbox,
}

impl Way {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Inbox => "inbox",
        }
    }
}

/// What became of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is new.
    New,
    /// It came before.
    Duplicate,
    /// Too many wait already.
    Full,
}

impl Taken {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Duplicate => "duplicate",
            Self::Full => "full",
        }
    }
}

/// A notification that waits for the next tick.
#[derive(Clone, Debug)]
struct Told {
    notification: Notification,
    came: Time,
}

/// Where notifications wait for the loop. Shared with the web server.
#[derive(Debug, Default)]
pub struct Mailbox {
    inner: Mutex<Inner>,
    urgent: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    seen: BTreeSet<String>,
    order: VecDeque<String>,
    waiting: Vec<Told>,
}

impl Mailbox {
    /// Takes a notification in, once by its id. An urgent one wakes the loop.
    pub fn put(&self, notification: Notification, now: Time) -> Taken {
        let urgent = notification.kind.is_urgent();
        {
            let mut inner = self.lock();
            if inner.seen.contains(&notification.id) {
                return Taken::Duplicate;
            }
            if inner.waiting.len() >= WAITING_MAX {
                return Taken::Full;
            }
            inner.remember(&notification.id);
            inner.waiting.push(Told {
                notification,
                came: now,
            });
        }
        if urgent {
            self.urgent.notify_one();
        }
        Taken::New
    }

    /// Wakes the loop, so that its next tick comes early.
    pub fn wake(&self) {
        self.urgent.notify_one();
    }

    /// Remembers an id without telling of it.
    fn pass_over(&self, id: &str) {
        self.lock().remember(id);
    }

    /// Ready when something urgent came since the last time this was.
    pub(super) async fn urgent(&self) {
        self.urgent.notified().await;
    }

    fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.lock().waiting)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn remember(&mut self, id: &str) {
        if !self.seen.insert(id.to_owned()) {
            return;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
    }
}

// ---------------------------------------------------------------------------------------- spacing

/// Keeps early ticks apart: a storm of events is one tick, then another.
#[derive(Debug, Default)]
pub(super) struct Spacing {
    last: Option<Mono>,
    early: VecDeque<Mono>,
}

impl Spacing {
    /// A tick ended.
    pub(super) fn ticked(&mut self, now: Mono) {
        self.last = Some(now);
    }

    /// The next tick is an early one.
    pub(super) fn take(&mut self, now: Mono) {
        self.early.push_back(now);
        while self.early.len() > EARLY_PER_MINUTE {
            self.early.pop_front();
        }
    }

    /// How long an early tick has to wait.
    pub(super) fn wait(&self, now: Mono) -> Duration {
        const MINUTE: Duration = Duration::from_secs(60);
        let apart = self.last.map(|last| last + EARLY_APART);
        let often = self
            .early
            .front()
            .filter(|_| self.early.len() >= EARLY_PER_MINUTE)
            .map(|&first| first + MINUTE);
        let at = apart.into_iter().chain(often).max();
        at.map_or(Duration::ZERO, |at| at.since(now))
    }
}

// ------------------------------------------------------------------------- the daemon's own reading

/// Whether what happened to an instance is what we asked for.
fn was_asked_for(held: &Held, kind: NotificationKind) -> bool {
    match kind {
        NotificationKind::Deleted => held.destroying.is_some(),
        NotificationKind::Stopped | NotificationKind::Outbid => {
            held.destroying.is_some() || held.stop_asked
        }
        _ => false,
    }
}

/// What the marketplace says of itself where it can, and when it was asked.
#[derive(Debug, Default)]
pub(super) struct Hints {
    inbox_read: Option<Mono>,
    no_inbox: bool,
    increases_read: Option<Mono>,
    no_increases: bool,
    increases: Vec<PriceIncrease>,
    increases_told: BTreeSet<u64>,
}

fn due(last: Option<Mono>, every: Duration, now: Mono) -> bool {
    last.is_none_or(|last| now.since(last) >= every)
}

impl Daemon {
    /// Takes notifications from a mailbox that others put them into.
    #[must_use]
    pub fn with_mailbox(mut self, mailbox: Arc<Mailbox>) -> Self {
        self.mailbox = mailbox;
        self
    }

    /// Whether the marketplace may have an inbox.
    pub(super) fn has_inbox(&self) -> bool {
        !self.hints.no_inbox
    }

    /// Reads the inbox where there is one and it is time.
    pub(super) async fn read_inbox(&mut self) {
        let mono = self.parts.clock.monotonic();
        if self.hints.no_inbox || !due(self.hints.inbox_read, INBOX_EVERY, mono) {
            return;
        }
        let first = self.hints.inbox_read.is_none();
        let found = match self.parts.marketplace.notifications().await {
            Ok(found) => found,
            Err(ReadError::Unsupported(_)) => {
                self.hints.no_inbox = true;
                return;
            }
            Err(error) => {
                self.hints.inbox_read = Some(mono);
                tracing::debug!("the inbox cannot be read: {error}");
                return;
            }
        };
        self.hints.inbox_read = Some(mono);
        let now = self.now();
        for notification in found {
            let news = notification
                .at
                .is_some_and(|at| now.since(at) <= INBOX_NEWS);
            if first && !news || !self.concerns_us(&notification) {
                self.mailbox.pass_over(&notification.id);
                continue;
            }
            let kind = notification.kind;
            let taken = self.mailbox.put(notification, now);
            // The inbox shows the same rows again and again; only news is worth a count.
            if taken != Taken::Duplicate {
                for observer in &mut self.parts.observers {
                    observer.notified(Way::Inbox, kind, taken.as_str());
                }
            }
        }
    }

    /// Whether a notification may be about something of ours: it names an instance that we hold, or
    /// none.
    fn concerns_us(&self, notification: &Notification) -> bool {
        notification
            .instance
            .is_none_or(|id| self.state.held.contains_key(&id))
    }

    /// Writes down what came since the last tick.
    pub(super) fn record_notifications(&mut self) -> Result<(), DaemonError> {
        let told = self.mailbox.take();
        let now = self.now();
        let dearer = NotificationKind::PriceIncrease;
        if told.iter().any(|told| told.notification.kind == dearer) {
            self.hints.increases_read = None;
        }
        let urgent = told
            .iter()
            .filter(|told| told.notification.kind.is_urgent());
        if let Some(first) = urgent.map(|told| told.came).min() {
            for observer in &mut self.parts.observers {
                observer.woken(now.since(first));
            }
        }
        let events: Vec<Change> = told
            .iter()
            .filter(|told| self.concerns_us(&told.notification))
            .map(|told| Change::Event(self.event_of(&told.notification, told.came)))
            .collect();
        self.commit(&events)
    }

    fn event_of(&self, notification: &Notification, came: Time) -> Event {
        let held = notification
            .instance
            .and_then(|id| self.state.held.get(&id));
        let mut text = format!("the marketplace says: {}", shown(&notification.text));
        if let Some(bid) = notification.winning_bid {
            text.push_str(&format!("; the bid that won is {bid}/h"));
        }
        let asked = held.is_some_and(|held| was_asked_for(held, notification.kind));
        if asked {
            text.push_str("; that was asked for");
        }
        let severity = match notification.kind {
            NotificationKind::LowCredit | NotificationKind::PaymentFailed => Severity::Alarm,
            _ if asked => Severity::Info,
            kind if kind.is_urgent() => Severity::Warning,
            _ => Severity::Info,
        };
        Event {
            at: notification.at.map_or(came, |at| at.min(came)),
            severity,
            kind: format!("told-{}", notification.kind.as_str()),
            replica: held.map(|held| held.replica.clone()),
            instance: notification.instance,
            text,
        }
    }

    /// Asks now and then which hosts want more. None is ever accepted, so such a rental ends when
    /// the request says; each is told once.
    pub(super) async fn read_price_increases(&mut self) -> Result<(), DaemonError> {
        let mono = self.parts.clock.monotonic();
        if self.hints.no_increases
            || self.state.held.is_empty()
            || !due(self.hints.increases_read, INCREASES_EVERY, mono)
        {
            return Ok(());
        }
        self.hints.increases_read = Some(mono);
        match self.parts.marketplace.price_increases().await {
            Ok(found) => self.hints.increases = found,
            Err(ReadError::Unsupported(_)) => {
                self.hints.no_increases = true;
                return Ok(());
            }
            Err(error) => {
                tracing::debug!("price increases cannot be read: {error}");
                return Ok(());
            }
        }
        let now = self.now();
        let mut news = Vec::new();
        for asked in &self.hints.increases {
            let Some(held) = self.state.held.get(&asked.instance) else {
                continue;
            };
            if !self.hints.increases_told.insert(asked.id) {
                continue;
            }
            news.push(Change::Event(Event {
                at: now,
                severity: Severity::Warning,
                kind: "price-increase".to_owned(),
                replica: Some(held.replica.clone()),
                instance: Some(asked.instance),
                text: increase_text(asked),
            }));
        }
        self.commit(&news)
    }

    /// Lets a listing say when rentals end for which a host wants more.
    pub(super) fn end_where_more_is_asked(&self, listing: &mut Listing) {
        for row in &mut listing.rows {
            let ends = self
                .hints
                .increases
                .iter()
                .filter(|asked| asked.instance == row.id)
                .filter_map(|asked| asked.ends_at);
            row.ends_at = row.ends_at.into_iter().chain(ends).min();
        }
    }
}

fn increase_text(asked: &PriceIncrease) -> String {
    let rate = |rate: Option<crate::types::money::Rate>| {
        rate.map_or_else(|| "an unknown rate".to_owned(), |rate| format!("{rate}/h"))
    };
    let ends = asked.ends_at.map_or_else(
        || "when its contract does".to_owned(),
        |at| format!("at {at}"),
    );
    format!(
        "the host of instance {} asks for {} instead of {}; it is not accepted, so the rental ends {ends}",
        asked.instance,
        rate(asked.new_rate),
        rate(asked.old_rate),
    )
}

/// A text from outside, bounded and on one line.
pub(super) fn shown(text: &str) -> String {
    let plain = |c: char| if is_obeyed(c) { ' ' } else { c };
    text.chars().map(plain).take(TEXT_MAX).collect()
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
