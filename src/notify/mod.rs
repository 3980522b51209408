//! Telling people: what is worth a message, said once, on ways that may fail.
//!
//! The loop only puts what happened into a bounded channel ([`herald`]) and never waits. A thread of its
//! own takes it from there: [`rules`] (pure) make messages of it, the [`courier`] decides which channel is
//! told what and when (pure but for what it remembers), and [`ways`] send. What was told, and what is
//! still to be sent, is kept in the database, so that a restart neither repeats nor forgets.

pub mod courier;
pub mod facts;
pub mod herald;
pub mod rules;
pub mod ways;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::types::ids::{InstanceId, JobName, ReplicaId};
use crate::types::state::Severity;
use crate::types::telling::{Kind, kind_of};
use crate::types::time::Time;

/// Longest title that is sent, characters.
pub const TITLE_MAX: usize = 120;

/// Longest text that is sent, characters.
pub const TEXT_MAX: usize = 1500;

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
    /// Before which time there is none, if the receiver says so.
    pub after: Option<Duration>,
}

impl Unsent {
    /// What another try may mend.
    pub fn for_now(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            again: true,
            after: None,
        }
    }

    /// What no try mends.
    pub fn for_good(why: impl Into<String>) -> Self {
        Self {
            again: false,
            ..Self::for_now(why)
        }
    }
}

/// Sends a message on one way.
#[async_trait]
pub trait Sender: Send + Sync {
    /// Sends it, or says why it was not taken. It ends within its own time limit.
    async fn send(&self, message: &Message) -> Result<(), Unsent>;
}

/// What is remembered over restarts: which channel was told what, and what is still to be sent.
pub trait Memory: Send {
    /// When a channel was told last of what has this key; `None`: never, or so long ago that it is forgotten.
    fn told(&mut self, channel: &str, key: &str) -> Option<Time>;
    /// A message is to be sent; `body` is what [`Self::pending`] gives back.
    fn queued(&mut self, channel: &str, key: &str, at: Time, body: &str);
    /// It was sent, or given up.
    fn settled(&mut self, channel: &str, key: &str);
    /// What a channel has still to be sent, oldest first.
    fn pending(&mut self, channel: &str) -> Vec<String>;
    /// What is settled and older is forgotten.
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
