//! What a wall clock that somebody moved must not make of what is known.

use crate::types::time::Time;

use super::observe::{EVIDENCE_MS, Fold};

/// How somebody moved the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// By how many milliseconds it was set back.
    pub back_ms: i64,
    /// By how many milliseconds it was set ahead, at most. What happened before is younger than the
    /// clock makes it.
    pub ahead_ms: i64,
}

impl Fold<'_> {
    /// The time that a clock which was set back shows once more was billed the first time, and is
    /// billed again: what was accrued by the clock as it was then is accrued to an earlier moment of
    /// the clock as it is now.
    pub(super) fn clock_set_back(&mut self) {
        let ms = self.seen.moved.back_ms;
        for held in self.draft.state.held.values_mut() {
            held.accrued_to = Time(held.accrued_to.0.saturating_sub(ms));
        }
    }

    /// What we bid just before the clock was set ahead shows in the floors as long as without that,
    /// and what comes up or stands idle has not done so for longer.
    pub(super) fn clock_set_ahead(&mut self) {
        let (now, ahead) = (self.seen.now, self.seen.moved.ahead_ms);
        if ahead <= 0 {
            return;
        }
        for held in self.draft.state.held.values_mut() {
            held.set_ahead(ahead, now);
        }
        for machine in self.draft.state.machines.values_mut() {
            let Some((_, at)) = &mut machine.highest_bid else {
                continue;
            };
            if now.ms_since(*at).saturating_sub(ahead) <= EVIDENCE_MS {
                *at = Time(at.0.saturating_add(ahead)).min(now).max(*at);
            }
        }
    }
}
