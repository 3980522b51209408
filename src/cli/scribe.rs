//! Keeps what instances wrote, each time that the daemon read it.

use std::sync::Arc;

use crate::daemon::Observer;
use crate::logbook::{Attempt, Book};
use crate::marketplace::redact::Redactor;
use crate::types::instance::Held;

/// Writes logs into the book. One that cannot be written is told of once, until one can be: what is
/// spent does not wait for it.
pub(crate) struct Scribe {
    book: Book,
    redactor: Arc<Redactor>,
    fails: bool,
}

impl Scribe {
    pub(crate) fn new(book: Book, redactor: Arc<Redactor>) -> Self {
        let fails = false;
        Self {
            book,
            redactor,
            fails,
        }
    }
}

impl Observer for Scribe {
    fn logged(&mut self, held: &Held, log: &[u8]) {
        // A job may print what it was given to keep secret.
        let text = String::from_utf8_lossy(log);
        let clean = self.redactor.clean(&text);
        let bytes = if clean == text { log } else { clean.as_bytes() };
        match self.book.add(&Attempt::of(held), bytes) {
            Ok(_) => self.fails = false,
            Err(error) if !self.fails => {
                self.fails = true;
                tracing::warn!("the log of instance {} cannot be kept: {error}", held.id);
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::{InstanceId, IntentId, ReplicaId};
    use crate::types::time::Time;

    #[test]
    fn what_was_read_is_kept_once_and_without_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let redactor = Arc::new(Redactor::default());
        redactor.add_lasting("hunter2-is-long");
        let mut scribe = Scribe::new(Book::open(dir.path()), redactor);
        let replica = ReplicaId {
            job: "train".parse().unwrap(),
            index: 0,
        };
        let held = Held::new(InstanceId(7), IntentId(3), replica, Time(0));
        scribe.logged(&held, b"one\nhunter2-is-long\n");
        scribe.logged(&held, b"one\nhunter2-is-long\ntwo\n");
        let kept = Book::open(dir.path()).read(&Attempt::of(&held)).unwrap();
        let text = String::from_utf8(kept.unwrap()).unwrap();
        assert!(
            text.starts_with("one\n") && text.ends_with("\ntwo\n"),
            "{text}"
        );
        assert!(
            !text.contains("hunter2") && text.lines().count() == 3,
            "{text}"
        );
    }
}
