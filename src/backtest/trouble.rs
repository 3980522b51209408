//! What a recorded trace does not show: starts that fail, on-demand capacity that is not there.

use super::chance::Chance;
use super::replay::Tick;
use crate::engine::deadline::retries;

/// How often things go wrong. Drawn per window from a seed; the same for every policy, and known to
/// the optimum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Trouble {
    /// Share of starts that fail, of either kind: at least 0, below 1.
    pub start_fails: f64,
    /// Share of the time in which on-demand capacity cannot be started: at least 0, below 1.
    pub absent: f64,
    /// From which the windows' troubles are drawn.
    pub seed: u64,
}

/// Mean length of a time without on-demand capacity, in ticks.
const ABSENT_TICKS: f64 = 3.0;

impl Trouble {
    /// Whether anything goes wrong at all.
    pub fn is_none(&self) -> bool {
        self.start_fails <= 0.0 && self.absent <= 0.0
    }

    /// A window's ticks with its troubles.
    pub fn strike(&self, ticks: &[Tick], more: usize, window: u64) -> Vec<Tick> {
        let mut chance = Chance::new(self.seed, window);
        let begins = self.absent / (1.0 - self.absent) / ABSENT_TICKS;
        let mut absent = chance.unit() < self.absent;
        let none = std::iter::repeat_n(Tick::default(), more);
        let struck = ticks.iter().copied().chain(none).map(|Tick(mut bits)| {
            if chance.unit() < self.start_fails {
                bits |= Tick::SPOT_FAILS;
            }
            if chance.unit() < self.start_fails {
                bits |= Tick::ON_DEMAND_FAILS;
            }
            if absent {
                bits |= Tick::ON_DEMAND_ABSENT;
            }
            let turns = if absent { 1.0 / ABSENT_TICKS } else { begins };
            absent ^= chance.unit() < turns;
            Tick(bits)
        });
        struck.collect()
    }

    /// Ticks to keep in hand, so that on-demand capacity starts in them with the probability
    /// `promise`: for starts that fail in a row, and for a time without any.
    pub fn margin(&self, promise: f64) -> i64 {
        if self.is_none() {
            return 0;
        }
        // At each tick of a bad stretch a start works with what is left after both troubles; a
        // stretch of absence goes on with `1 - 1 / ABSENT_TICKS`.
        let goes_on = if self.absent > 0.0 {
            1.0 - 1.0 / ABSENT_TICKS
        } else {
            0.0
        };
        let worst = self.start_fails + (1.0 - self.start_fails) * goes_on;
        let first = self.start_fails + (1.0 - self.start_fails) * self.absent;
        // The first tick fails with `first`, each further one with `worst`.
        let late = (1.0 - promise).max(1e-12);
        if first <= late {
            return 0;
        }
        i64::from(retries(worst, 1.0 - late / first)) + 1
    }
}
