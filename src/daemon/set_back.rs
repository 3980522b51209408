//! What a wall clock that is set back would hide.
//!
//! What time costs is reckoned by the wall clock. One that is set back by a quarter of an hour shows
//! a quarter of an hour twice, and the second time it would cost nothing. The monotonic clock says
//! by how much.

use crate::types::time::{Mono, Time};

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
}

impl Clocks {
    /// By how many milliseconds the wall clock was set back since the last reading, beyond what it
    /// had been set ahead before, and the clocks after this one.
    pub(super) fn read(self, wall: Time, mono: Mono) -> (i64, Self) {
        let Some((wall_then, mono_then)) = self.reference else {
            let reference = Some((wall, mono));
            return (0, Self { reference, ..self });
        };
        let passed = i64::try_from(mono.since(mono_then).as_millis()).unwrap_or(i64::MAX);
        let ahead = wall.ms_since(wall_then).saturating_sub(passed);
        if ahead.saturating_abs() < TOLD_FROM_MS {
            return (0, self);
        }
        let ahead_ms = self.ahead_ms.saturating_add(ahead);
        let after = Self {
            reference: Some((wall, mono)),
            ahead_ms: ahead_ms.max(0),
        };
        (ahead_ms.min(0).saturating_neg(), after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_that_was_not_reckoned_with_before_is_lost() {
        let mut clocks = Clocks::default();
        let mut read = |wall, mono| {
            let (back, after) = clocks.read(Time(wall), Mono(mono));
            clocks = after;
            back
        };
        assert_eq!(read(1_000_000, 5_000), 0, "the first reading says nothing");
        assert_eq!(read(1_060_000, 65_000), 0);
        // Twelve minutes back within a minute.
        assert_eq!(read(400_000, 125_000), 720_000);
        assert_eq!(read(460_000, 185_000), 0, "told once");
        // Ten minutes ahead, and back where it was, and a minute more.
        assert_eq!(read(1_120_000, 245_000), 0);
        assert_eq!(read(580_000, 305_000), 0);
        assert_eq!(read(580_000, 365_000), 60_000);
        // A clock that is slow by half a second a minute is slow by one in two.
        assert_eq!(read(639_500, 425_000), 0);
        assert_eq!(read(699_000, 485_000), 1_000);
    }
}
