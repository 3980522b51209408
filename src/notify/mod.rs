//! Telling people: what is worth a message, said once, on ways that may fail.
//!
//! The loop only puts what happened into a bounded channel ([`herald`]) and never waits. A thread of its
//! own takes it from there: [`rules`] (pure) make messages of it, the [`courier`] decides which channel is
//! told what and when (pure but for what it remembers), [`sending`] lets [`ways`] send side by side, each
//! within a time limit. What was told, and what is still to be sent, is kept in the database, so that a
//! restart neither repeats nor forgets.

pub mod courier;
pub mod facts;
pub mod herald;
pub mod rules;
pub mod sending;
#[cfg(test)]
mod testing;
pub mod ways;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::ports::Clock;
use crate::types::ids::{InstanceId, JobName, ReplicaId};
use crate::types::state::Severity;
use crate::types::telling::{Kind, kind_of};
use crate::types::time::Time;

/// Longest title that is sent, characters.
pub const TITLE_MAX: usize = 120;

/// Longest text that is sent, characters.
pub const TEXT_MAX: usize = 1500;

/// How long a message may take on any way, whatever limits the way has of its own: those of a library
/// may be of its connecting alone.
pub const SEND_WITHIN: Duration = Duration::from_secs(45);

/// One thing to tell. Its texts are plain: one line each (a text may have more where haggle wrote them),
/// no control characters, and bounded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// What tells it from all others: the same is not told twice.
    pub key: String,
    /// When it happened, or was found.
    pub at: Time,
    /// The word of its kind.
    pub kind: String,
    /// How urgent.
    pub severity: Severity,
    /// In a few words.
    pub title: String,
    /// In a sentence or a few lines.
    pub text: String,
    /// Of which job, if of one.
    pub job: Option<JobName>,
    /// Of which replica, if of one.
    pub replica: Option<ReplicaId>,
    /// Of which instance, if of one.
    pub instance: Option<InstanceId>,
}

impl Message {
    /// A message of which nothing but its texts is known. The texts are made plain.
    pub fn new(
        key: String,
        at: Time,
        kind: &str,
        severity: Severity,
        title: &str,
        text: &str,
    ) -> Self {
        Self {
            key,
            at,
            kind: kind.to_owned(),
            severity,
            title: plain(title, TITLE_MAX, false),
            text: plain(text, TEXT_MAX, true),
            job: None,
            replica: None,
            instance: None,
        }
    }

    /// Of a replica.
    #[must_use]
    pub fn of(mut self, replica: &ReplicaId) -> Self {
        self.job = Some(replica.job.clone());
        self.replica = Some(replica.clone());
        self
    }

    /// Of an instance.
    #[must_use]
    pub fn on(mut self, instance: InstanceId) -> Self {
        self.instance = Some(instance);
        self
    }

    /// Its kind.
    pub fn kind(&self) -> &'static Kind {
        kind_of(&self.kind)
    }
}

/// The word of a severity.
pub fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Alarm => "alarm",
    }
}

/// A text that a receiver may show as it is: what a terminal or a mail server would obey is a blank, and
/// what would change the direction of writing is left out. It is cut to so many characters.
pub fn plain(text: &str, most: usize, lines: bool) -> String {
    let turns = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let shown = text.chars().filter(|&c| !turns(c)).map(|c| {
        if c.is_control() && !(lines && c == '\n') {
            ' '
        } else {
            c
        }
    });
    let mut plain: String = shown.clone().take(most).collect();
    if shown.count() > most {
        plain.pop();
        plain.push('…');
    }
    plain
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// For people, without secrets.
    pub why: String,
    /// Whether another try may do better.
    pub again: bool,
    /// Whether it is the user's to mend.
    pub yours: bool,
    /// Before which time there is none, if the receiver says so.
    pub after: Option<Duration>,
}

impl Unsent {
    /// What another try may mend.
    pub fn for_now(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            again: true,
            yours: false,
            after: None,
        }
    }

    /// What another try may do better once somebody has mended it.
    pub fn to_mend(why: impl Into<String>) -> Self {
        Self {
            yours: true,
            ..Self::for_now(why)
        }
    }

    /// What no try mends.
    pub fn for_good(why: impl Into<String>) -> Self {
        Self {
            again: false,
            ..Self::to_mend(why)
        }
    }
}

/// Sends a message on one way.
#[async_trait]
pub trait Sender: Send + Sync {
    /// Sends it, or says why it was not taken. It may be dropped on its way: see [`within`].
    async fn send(&self, message: &Message) -> Result<(), Unsent>;
}

/// Sends a message within [`SEND_WITHIN`] of real time: `clock` is that of this machine.
///
/// # Errors
/// Why it was not taken; or that nothing was heard for so long.
pub async fn within(
    clock: &dyn Clock,
    sender: &dyn Sender,
    message: &Message,
) -> Result<(), Unsent> {
    let over = clock.sleep_until(clock.now() + SEND_WITHIN);
    tokio::select! {
        biased;
        sent = sender.send(message) => sent,
        () = over => Err(Unsent::for_now(format!(
            "it took more than {} s",
            SEND_WITHIN.as_secs()
        ))),
    }
}

/// What is remembered over restarts: which channel was told what, and what is still to be sent.
pub trait Memory: Send {
    /// Only these channels are: what was still to be sent to others is forgotten. How many messages.
    fn only(&mut self, channels: &[&str]) -> usize;
    /// Since when a channel has asked for what it asks for: since now, where it did not before.
    fn begun(&mut self, channel: &str, asked_for: &str, now: Time) -> Time;
    /// When a channel was told last of what has this key; `None`: never, or so long ago that it is forgotten.
    fn told(&mut self, channel: &str, key: &str) -> Option<Time>;
    /// The keys of what any channel was told since then.
    fn recent(&mut self, since: Time) -> Vec<String>;
    /// A message is to be sent; `body` is what [`Self::pending`] gives back.
    fn queued(&mut self, channel: &str, key: &str, at: Time, body: &str);
    /// It was sent, or given up.
    fn settled(&mut self, channel: &str, key: &str);
    /// What a channel has still to be sent, oldest first.
    fn pending(&mut self, channel: &str) -> Vec<String>;
    /// What is settled and older is forgotten, but not since when channels ask for what.
    fn forget(&mut self, before: Time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_receiver_would_obey_is_not_in_a_text() {
        let hostile = "Ber\u{202e}lin\r\nBcc: all@example.org\u{1b}[2J\0";
        assert_eq!(
            plain(hostile, 99, false),
            "Berlin  Bcc: all@example.org [2J "
        );
        assert_eq!(plain("a\nb\tc", 99, true), "a\nb c");
        assert_eq!(plain("äöüß", 3, false), "äö…");
        assert_eq!(plain("äöü", 3, false), "äöü");
    }
}
