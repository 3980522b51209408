//! How far a database had come, remembered beside it: `<database>.mark`.
//!
//! A database alone cannot know that it is an older copy of itself: one that was put back, or that
//! lost the end of its write-ahead log, is as sound as any. The mark can tell. It is written after
//! each transaction that records a rent, before the request leaves, and after each tick; so it is
//! never ahead of the database that it was written for, and no label was ever sent that it does not
//! know of.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::ports::{Standing, StoreError};
use crate::types::ids::IntentId;
use crate::types::intent::{Effect, IntentState};
use crate::types::state::{Change, State};

use super::error::io_error;
use super::files::write_durably;

/// What the file begins with, and the version of its form.
const FORM: &str = "haggle-mark 1";

/// The last moment of the year 9999, which numbers of intents do not reach.
const INTENT_MAX: u64 = 253_402_300_799_999;

/// How far a database has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The last intent that was recorded.
    pub(super) last_intent: Option<IntentId>,
    /// Ticks so far.
    pub(super) ticks: u64,
}

/// The file that remembers how far a database had come: `<database>.mark`.
pub fn mark_file(database: &Path) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(".mark");
    PathBuf::from(name)
}

impl Mark {
    pub(super) fn of(state: &State) -> Self {
        Self {
            last_intent: state.last_intent,
            ticks: state.ticks,
        }
    }

    /// Takes up what was committed; whether it has to be remembered at once.
    pub(super) fn take(&mut self, changes: &[Change]) -> bool {
        let mut due = false;
        for change in changes {
            match change {
                Change::Intent(intent) => {
                    self.last_intent = self.last_intent.max(Some(intent.id));
                    due |= intent.state == IntentState::Open
                        && matches!(intent.effect, Effect::Rent { .. });
                }
                Change::Tick(record) => {
                    self.ticks = record.tick;
                    due = true;
                }
                _ => {}
            }
        }
        due
    }

    /// What is remembered beside a database. What cannot be understood is as good as nothing.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub(super) fn read(database: &Path) -> Result<Option<Self>, StoreError> {
        let path = mark_file(database);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(io_error(&path.display().to_string(), &error)),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(FORM)?;
        let (intent, ticks) = rest.trim().split_once(' ')?;
        let last_intent = match intent {
            "-" => None,
            intent => Some(intent.parse().ok()?),
        };
        // Numbers are milliseconds of a clock. Counting on from one that none can show would leave
        // no numbers, and labels would be used again.
        if last_intent.is_some_and(|IntentId(last)| last > INTENT_MAX) {
            return None;
        }
        Some(Self {
            last_intent,
            ticks: ticks.parse().ok()?,
        })
    }

    /// Remembers it; durable when it returns, where `durably`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn write(&self, database: &Path, durably: bool) -> Result<(), StoreError> {
        let intent = match self.last_intent {
            Some(intent) => intent.to_string(),
            None => "-".to_owned(),
        };
        let text = format!("{FORM} {intent} {}\n", self.ticks);
        let path = mark_file(database);
        if durably {
            return write_durably(&path, &text);
        }
        std::fs::write(&path, text).map_err(|error| io_error(&path.display().to_string(), &error))
    }

    /// What a database that has come so far is, beside what is remembered of it.
    pub(super) fn standing(self, remembered: Option<Self>) -> Standing {
        match remembered {
            Some(mark) if mark.last_intent > self.last_intent || mark.ticks > self.ticks => {
                Standing::Behind {
                    last_intent: mark.last_intent,
                    ticks: mark.ticks,
                }
            }
            None if self != Self::default() => Standing::Unmarked,
            _ => Standing::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_mark_is_read_as_it_was_written(intent in prop::option::of(0..=INTENT_MAX), ticks: u64, durably: bool) {
            let directory = tempfile::tempdir().unwrap();
            let database = directory.path().join("haggle.db");
            prop_assert_eq!(Mark::read(&database).unwrap(), None);
            let mark = Mark { last_intent: intent.map(IntentId), ticks };
            mark.write(&database, durably).unwrap();
            prop_assert_eq!(Mark::read(&database).unwrap(), Some(mark));
        }

        #[test]
        fn any_text_is_read_or_passed_over(text in ".{0,60}") {
            let _ = Mark::parse(&text);
            let _ = Mark::parse(&format!("{FORM}{text}"));
        }
    }

    #[test]
    fn a_number_that_no_clock_can_have_given_out_is_not_counted_on_from() {
        for intent in [INTENT_MAX + 1, u64::MAX] {
            let text = format!("{FORM} {} 3", IntentId(intent));
            assert_eq!(Mark::parse(&text), None, "{text}");
        }
        let text = format!("{FORM} {} 3", IntentId(INTENT_MAX));
        assert!(Mark::parse(&text).is_some());
    }

    #[test]
    fn only_what_lacks_something_is_behind() {
        let mark = |intent: u64, ticks| Mark {
            last_intent: (intent > 0).then_some(IntentId(intent)),
            ticks,
        };
        let behind = |has: Mark, remembered| {
            matches!(has.standing(Some(remembered)), Standing::Behind { .. })
        };
        assert!(!behind(mark(7, 3), mark(7, 3)));
        assert!(!behind(mark(9, 4), mark(7, 3)), "the process died between");
        assert!(behind(mark(6, 3), mark(7, 3)));
        assert!(behind(mark(7, 2), mark(7, 3)));
        assert!(
            behind(mark(0, 0), mark(7, 3)),
            "a new one beside an old mark"
        );
        assert_eq!(mark(7, 3).standing(None), Standing::Unmarked);
        assert_eq!(mark(0, 0).standing(None), Standing::Whole);
    }
}
