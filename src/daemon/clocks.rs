//! What a wall clock that is set back or ahead would hide.
//!
//! What time costs, and how old something is, is reckoned by the wall clock. One that is set back by
//! a quarter of an hour shows a quarter of an hour twice, and the second time it would cost nothing;
//! one that is set ahead makes what just happened old. The monotonic clock says by how much.

use crate::engine::bid::ECHO_LASTS;
use crate::engine::observe::Moved;
use crate::types::time::{Mono, Time, millis};

/// Less than this is not told from reading two clocks one after the other; it adds up until it is
/// more.
const TOLD_FROM_MS: i64 = 1_000;

/// The two clocks beside each other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clocks {
    /// Both at one moment, in this process.
    reference: Option<(Time, Mono)>,
    /// How far the wall clock was set ahead and is still: that time was reckoned with already, and
    /// is not lost where the clock is only put right. A machine that slept looks the same.
    ahead_ms: i64,
    /// Whether the first reading is of a process that follows another at its work.
    takes_over: bool,
}

impl Clocks {
    /// A daemon begins, which may follow one that ended a moment ago: how the clock was moved in
    /// between was seen by nobody. Single runs by a timer are hours apart, and do not take this into
    /// account: for them the past would never fade.
    pub(super) fn take_over(&mut self) {
        self.takes_over = self.reference.is_none();
    }

    /// How the wall clock was moved since the last reading, and the clocks after this one. Set back
    /// counts what is beyond what it had been set ahead before.
    pub(super) fn read(self, wall: Time, mono: Mono) -> (Moved, Self) {
        let Some((wall_then, mono_then)) = self.reference else {
            let ahead_ms = if self.takes_over {
                millis(ECHO_LASTS)
            } else {
                0
            };
            let after = Self {
                reference: Some((wall, mono)),
                ..self
            };
            return (
                Moved {
                    ahead_ms,
                    back_ms: 0,
                },
                after,
            );
        };
        let passed = i64::try_from(mono.since(mono_then).as_millis()).unwrap_or(i64::MAX);
        let ahead = wall.ms_since(wall_then).saturating_sub(passed);
        if ahead.saturating_abs() < TOLD_FROM_MS {
            return (Moved::default(), self);
        }
        let ahead_ms = self.ahead_ms.saturating_add(ahead);
        let after = Self {
            reference: Some((wall, mono)),
            ahead_ms: ahead_ms.max(0),
            ..self
        };
        let moved = Moved {
            back_ms: ahead_ms.min(0).saturating_neg(),
            ahead_ms: ahead.max(0),
        };
        (moved, after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_that_was_not_reckoned_with_before_is_lost() {
        let mut clocks = Clocks::default();
        let mut read = |wall, mono| {
            let (moved, after) = clocks.read(Time(wall), Mono(mono));
            clocks = after;
            (moved.back_ms, moved.ahead_ms)
        };
        assert_eq!(
            read(1_000_000, 5_000),
            (0, 0),
            "the first reading says nothing"
        );
        assert_eq!(read(1_060_000, 65_000), (0, 0));
        // Twelve minutes back within a minute.
        assert_eq!(read(400_000, 125_000), (720_000, 0));
        assert_eq!(read(460_000, 185_000), (0, 0), "told once");
        // Ten minutes ahead, and back where it was, and a minute more.
        assert_eq!(read(1_120_000, 245_000), (0, 600_000));
        assert_eq!(read(580_000, 305_000), (0, 0));
        assert_eq!(read(580_000, 365_000), (60_000, 0));
        // A clock that is slow by half a second a minute is slow by one in two.
        assert_eq!(read(639_500, 425_000), (0, 0));
        assert_eq!(read(699_000, 485_000), (1_000, 0));
    }

    #[test]
    fn what_was_set_while_nobody_looked_is_told_once() {
        let mut clocks = Clocks::default();
        clocks.take_over();
        let (moved, after) = clocks.read(Time(1_000_000), Mono(5_000));
        assert_eq!(moved.ahead_ms, millis(ECHO_LASTS));
        let (moved, mut clocks) = after.read(Time(1_060_000), Mono(65_000));
        assert_eq!(moved, Moved::default());
        clocks.take_over();
        let (moved, _) = clocks.read(Time(1_120_000), Mono(125_000));
        assert_eq!(moved, Moved::default(), "it looked all the time");
    }
}
