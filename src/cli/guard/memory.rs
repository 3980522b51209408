//! What a guard remembers, and what it makes of what it sees. Reads no clock.
//!
//! Silence is counted, not reckoned from two moments: each look adds the time since the look
//! before, and no look adds more than a part of the whole. So a clock that jumps, a machine that
//! slept and a timer that was late make nobody dead at once: some looks have to see the same tick.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::alert::{Kind, Outgoing};
use crate::daemon::heartbeat::Heartbeat;
use crate::types::ids::Installation;
use crate::types::time::{Time, millis};

/// At least so many looks have to see the same tick before a daemon is taken for dead.
pub(super) const LOOKS_MIN: u32 = 3;

/// A tick may take so much longer to come than was announced: it waits for answers.
pub(super) const GRACE: Duration = Duration::from_mins(5);

/// What goes on is told again after so long.
pub(super) const AGAIN_AFTER: Duration = Duration::from_hours(1);

/// Alerts that are kept for a receiver that cannot be reached; the oldest go first.
const OUTBOX_MAX: usize = 50;

/// What a guard remembers from one look to the next, also in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    /// The last heartbeat of the daemon that is watched.
    pub(super) last: Option<Heartbeat>,
    /// How long its tick was not seen to move, milliseconds.
    silent_ms: i64,
    /// When it was looked at last, by the wall clock.
    pub(super) looked_at: Option<Time>,
    /// Whether winding down was tried out, as far as that goes without doing it.
    pub(super) armed: bool,
    /// When ours were last wound down, for as long as the daemon stays silent.
    pub(super) wound_down_at: Option<Time>,
    /// What was told and goes on, and when it was told last.
    told: BTreeMap<Kind, Time>,
    /// What was not delivered yet.
    pub(super) outbox: Vec<Outgoing>,
}

/// What a look saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// The first heartbeat of all: whether it moves is not known yet.
    First,
    /// The tick moved: the daemon lives.
    Moved,
    /// It is the tick of the last look.
    Still,
    /// It is another daemon's.
    Other(String),
    /// There is none.
    Unreadable(String),
}

impl Memory {
    /// Takes up a look, `step` after the one before. `expected` is whose the heartbeat has to be.
    pub(super) fn take(
        &mut self,
        read: Result<Heartbeat, String>,
        step: Duration,
        after: Duration,
        expected: Option<&Installation>,
    ) -> Sight {
        let sight = match read {
            Err(why) => Sight::Unreadable(why),
            Ok(heartbeat) => self.compare(heartbeat, expected),
        };
        if matches!(sight, Sight::First | Sight::Moved) {
            self.silent_ms = 0;
        } else {
            let counted = step.min(after / LOOKS_MIN);
            self.silent_ms = self.silent_ms.saturating_add(millis(counted));
        }
        sight
    }

    fn compare(&mut self, mut heartbeat: Heartbeat, expected: Option<&Installation>) -> Sight {
        let whose = expected.or(self.last.as_ref().map(|last| &last.installation));
        if let Some(whose) = whose.filter(|whose| **whose != heartbeat.installation) {
            return Sight::Other(format!(
                "the heartbeat is that of installation {}, not of {whose}",
                heartbeat.installation
            ));
        }
        let Some(last) = &self.last else {
            self.last = Some(heartbeat);
            return Sight::First;
        };
        match (last.account, heartbeat.account) {
            (Some(was), Some(is)) if was != is => {
                return Sight::Other(format!("the heartbeat is of account {is}, not of {was}"));
            }
            _ => heartbeat.account = heartbeat.account.or(last.account),
        }
        let moved = last.tick != heartbeat.tick;
        self.last = Some(heartbeat);
        if moved { Sight::Moved } else { Sight::Still }
    }

    /// Whether a heartbeat shows a later tick of the daemon that is watched.
    pub(super) fn is_alive(&self, read: &Result<Heartbeat, String>) -> bool {
        let (Ok(heartbeat), Some(last)) = (read, &self.last) else {
            return false;
        };
        heartbeat.installation == last.installation && heartbeat.tick != last.tick
    }

    /// How long the tick was not seen to move.
    pub(super) fn silence(&self) -> Duration {
        Duration::from_millis(self.silent_ms.unsigned_abs())
    }

    /// Whether the silence is longer than a daemon that lives is silent. One whose heartbeat can
    /// be read has said when its next tick is due; one that cannot be reached is given no longer
    /// than `after`.
    pub(super) fn is_silent(&self, sight: &Sight, after: Duration) -> bool {
        let promised = self
            .last
            .as_ref()
            .filter(|_| *sight == Sight::Still)
            .map(|last| Duration::from_secs(last.next_tick_within_seconds).saturating_add(GRACE));
        let allowed = promised.map_or(after, |promised| after.max(promised));
        !matches!(sight, Sight::First | Sight::Moved) && self.silence() >= allowed
    }

    /// Whether something that goes on is to be told now: when it begins, and again an hour later.
    pub(super) fn should_tell(&mut self, kind: Kind, now: Time) -> Option<bool> {
        let told = self.told.get(&kind).copied();
        let again = told.is_some();
        // Told in the future: the clock was set back, and nobody knows how long ago it was.
        if told.is_some_and(|at| at <= now && now.since(at) < AGAIN_AFTER) {
            return None;
        }
        self.told.insert(kind, now);
        Some(again)
    }

    /// Takes note that something is over. Whether it was told.
    pub(super) fn is_over(&mut self, kind: Kind) -> bool {
        self.told.remove(&kind).is_some()
    }

    /// What goes on and was told.
    pub(super) fn goes_on(&self) -> Vec<Kind> {
        self.told.keys().copied().collect()
    }

    /// Puts an alert where it waits until it is delivered.
    pub(super) fn post(&mut self, outgoing: Outgoing) {
        self.outbox.push(outgoing);
        let over = self.outbox.len().saturating_sub(OUTBOX_MAX);
        self.outbox.drain(..over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::AccountId;
    use proptest::prelude::*;

    const AFTER: Duration = Duration::from_mins(30);

    fn heartbeat(tick: u64) -> Heartbeat {
        Heartbeat {
            installation: Installation::from_seed(7),
            account: Some(AccountId(5)),
            tick,
            at: String::new(),
            live: true,
            killed: false,
            held: Vec::new(),
            burn_dollars_per_hour: "0".into(),
            credit_dollars: None,
            next_tick_within_seconds: 120,
        }
    }

    fn look(memory: &mut Memory, tick: u64, minutes: u64) -> bool {
        let sight = memory.take(
            Ok(heartbeat(tick)),
            Duration::from_mins(minutes),
            AFTER,
            None,
        );
        memory.is_silent(&sight, AFTER)
    }

    #[test]
    fn a_tick_that_moves_is_life_and_one_that_stands_still_for_long_is_none() {
        let mut memory = Memory::default();
        for tick in 0..100 {
            assert!(!look(&mut memory, tick, 5), "{tick}");
        }
        let silent: Vec<bool> = (0..7).map(|_| look(&mut memory, 99, 5)).collect();
        assert_eq!(silent, [false, false, false, false, false, true, true]);
        assert!(!look(&mut memory, 100, 5), "it came back");
        assert!(
            !look(&mut memory, 7, 5),
            "after a restore the number may be lower"
        );
    }

    #[test]
    fn a_jump_of_the_clock_makes_nobody_dead_at_once() {
        let mut memory = Memory::default();
        look(&mut memory, 1, 0);
        let years = 60 * 24 * 365 * 30;
        assert!(!look(&mut memory, 1, years) && !look(&mut memory, 1, years));
        assert!(look(&mut memory, 1, years), "three looks saw the same");
    }

    #[test]
    fn who_announced_a_longer_silence_is_waited_for_while_it_can_be_asked() {
        let mut memory = Memory::default();
        let daily = Heartbeat {
            next_tick_within_seconds: 86_400,
            ..heartbeat(1)
        };
        let mut still = |read| {
            let sight = memory.take(read, Duration::from_mins(10), AFTER, None);
            memory.is_silent(&sight, AFTER)
        };
        assert!((0..100).all(|_| !still(Ok(daily.clone()))));
        assert!(still(Err("cannot connect".into())), "its process is gone");
    }

    #[test]
    fn anothers_heartbeat_is_no_sign_of_life() {
        let mut memory = Memory::default();
        look(&mut memory, 1, 0);
        let other = Heartbeat {
            installation: Installation::from_seed(8),
            ..heartbeat(2)
        };
        let account = Heartbeat {
            account: Some(AccountId(6)),
            ..heartbeat(2)
        };
        for tick in 0..3 {
            for mut read in [other.clone(), account.clone()] {
                read.tick = tick;
                let sight = memory.take(Ok(read.clone()), Duration::from_mins(5), AFTER, None);
                assert!(matches!(sight, Sight::Other(_)), "{sight:?}");
                assert!(
                    read.installation == heartbeat(0).installation || !memory.is_alive(&Ok(read))
                );
            }
        }
        assert_eq!(memory.silence(), Duration::from_mins(30));
        assert_eq!(
            memory.last,
            Some(heartbeat(1)),
            "it goes on watching the one"
        );
        let mut named = Memory::default();
        let expected = Installation::from_seed(9);
        let sight = named.take(Ok(heartbeat(1)), Duration::ZERO, AFTER, Some(&expected));
        assert!(matches!(sight, Sight::Other(_)) && named.last.is_none());
    }

    #[test]
    fn what_goes_on_is_told_when_it_begins_and_once_an_hour() {
        let mut memory = Memory::default();
        let at = |minutes: u64| Time(1_795_478_400_000) + Duration::from_mins(minutes);
        let told: Vec<Option<bool>> = [0, 1, 59, 60, 61, 119, 120]
            .map(|minutes| memory.should_tell(Kind::DaemonSilent, at(minutes)))
            .into();
        let [begins, again] = [Some(false), Some(true)];
        assert_eq!(told, [begins, None, None, again, None, None, again]);
        assert_eq!(
            memory.should_tell(Kind::DaemonSilent, at(5)),
            again,
            "set back"
        );
        assert!(memory.is_over(Kind::DaemonSilent) && !memory.is_over(Kind::DaemonSilent));
        assert_eq!(memory.should_tell(Kind::DaemonSilent, at(121)), begins);
    }

    proptest! {
        #[test]
        fn no_two_looks_make_a_daemon_dead_and_a_moving_tick_never_does(
            steps in prop::collection::vec((0_u64..1_000_000_000, any::<bool>()), 1..40),
        ) {
            let mut memory = Memory::default();
            let (mut tick, mut same) = (0, 0);
            memory.take(Ok(heartbeat(tick)), Duration::ZERO, AFTER, None);
            for (step, moves) in steps {
                tick += u64::from(moves);
                same = if moves { 0 } else { same + 1 };
                let sight = memory.take(Ok(heartbeat(tick)), Duration::from_secs(step), AFTER, None);
                let silent = memory.is_silent(&sight, AFTER);
                prop_assert!(!silent || same >= LOOKS_MIN);
                prop_assert!(!(moves && silent));
            }
        }

        #[test]
        fn what_is_remembered_survives_its_file(tick: u64, minutes in 0_u64..100) {
            let mut memory = Memory::default();
            look(&mut memory, tick, minutes);
            look(&mut memory, tick, minutes);
            memory.should_tell(Kind::CannotAct, Time(5));
            let text = serde_json::to_string(&memory).unwrap();
            prop_assert_eq!(serde_json::from_str::<Memory>(&text).unwrap(), memory);
        }
    }
}
