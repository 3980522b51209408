//! Deadlines: the rules, what is wished for, and what a replica has seen of interruptible capacity.

use serde::{Deserialize, Serialize};

use super::time::Time;

/// By which rule a job with a deadline takes what nobody takes away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeadlineKind {
    /// On-demand capacity from the beginning to the end.
    OnDemand,
    /// Rides what is there, waits for it, and goes on demand when time has run out.
    Greedy,
    /// Keeps the work done level with the time passed.
    UniformProgress,
    /// Greedy while the deadline is far, then level with the time.
    UniformProgressPrelude,
    /// Waits while there is slack for a tenth of the work that is left.
    SlackBand,
    /// The cheapest in expectation, by how long spells last.
    #[default]
    HazardMdp,
}

impl DeadlineKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::OnDemand,
        Self::Greedy,
        Self::UniformProgress,
        Self::UniformProgressPrelude,
        Self::SlackBand,
        Self::HazardMdp,
    ];

    /// Its name, as users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Greedy => "greedy",
            Self::UniformProgress => "uniform-progress",
            Self::UniformProgressPrelude => "uniform-progress-prelude",
            Self::SlackBand => "slack-band",
            Self::HazardMdp => "hazard-mdp",
        }
    }

    /// The policy of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// How a replica is to be had, or not, for the next while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stance {
    /// Nothing is rented on-demand: interruptible capacity is waited for.
    Wait,
    /// Interruptible capacity, or what is no dearer.
    Ride,
    /// What nobody takes away.
    Sure,
}

impl Stance {
    /// The word in tables, the same as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Ride => "ride",
            Self::Sure => "sure",
        }
    }
}

/// Kinds of what is seen of interruptible capacity: there or not, each in six classes of age.
pub const SEEN_KINDS: usize = 12;

/// What a replica has seen since its deadline is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Since when.
    pub begun: Time,
    /// For which deadline.
    pub deadline: Time,
    /// Whether interruptible capacity was there at the last look.
    pub up: bool,
    /// Since when that has been so.
    pub since: Time,
    /// Up to when ticks were counted.
    pub counted_to: Time,
    /// Ticks after which it stayed as it was, by kind.
    pub stayed: [u32; SEEN_KINDS],
    /// Ticks after which it was otherwise, by kind.
    pub ended: [u32; SEEN_KINDS],
    /// When the deadline came near and the seconds of work that were left then, for the policy that goes by
    /// it.
    pub near: Option<(Time, i64)>,
    /// What was decided last, when, and what was held then.
    pub stance: Stance,
    /// When.
    pub decided_at: Time,
    /// Whether anything was held then, and whether it was at a bid.
    pub held_bid: Option<bool>,
}

impl Watch {
    /// The first look at a deadline.
    pub fn new(deadline: Time, up: bool, now: Time) -> Self {
        Self {
            begun: now,
            deadline,
            up,
            since: now,
            counted_to: now,
            stayed: [0; SEEN_KINDS],
            ended: [0; SEEN_KINDS],
            near: None,
            stance: Stance::Ride,
            decided_at: Time(i64::MIN),
            held_bid: None,
        }
    }

    /// For how many ticks it has been as it was last seen, at a moment: at least 1.
    pub fn age(&self, tick_ms: i64, at: Time) -> u32 {
        let ticks = at.ms_since(self.since).max(0) / tick_ms.max(1);
        u32::try_from(ticks).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// Takes up a look. `kind` numbers what is seen: whether it is there, and its age in ticks. A while in
    /// which nobody looked counts as one tick at most.
    pub fn sees(&mut self, up: bool, tick_ms: i64, now: Time, kind: impl Fn(bool, u32) -> usize) {
        if now < self.counted_to {
            // The clock was set back.
            (self.since, self.counted_to) = (self.since.min(now), now);
        }
        let passed = now.ms_since(self.counted_to) / tick_ms.max(1);
        let index = kind(self.up, self.age(tick_ms, self.counted_to)).min(SEEN_KINDS - 1);
        if up != self.up {
            self.ended[index] = self.ended[index].saturating_add(1);
            (self.up, self.since, self.counted_to) = (up, now, now);
        } else if passed > 0 {
            self.stayed[index] = self.stayed[index].saturating_add(1);
            // Looks come oftener than ticks; after a longer while the count goes on from now.
            self.counted_to = if passed == 1 {
                Time(self.counted_to.0.saturating_add(tick_ms))
            } else {
                now
            };
        }
    }
}

/// How a replica stands with its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadlineView {
    /// When it has to be done.
    pub deadline: Time,
    /// What it is to take now.
    pub stance: Stance,
    /// Milliseconds that what is left takes on demand, with a start.
    pub needs_ms: i64,
    /// Milliseconds that are left; below 0 where it has passed.
    pub left_ms: i64,
}

impl DeadlineView {
    /// Milliseconds that are left beyond what is needed; below 0 where it is too little.
    pub fn slack_ms(&self) -> i64 {
        self.left_ms.saturating_sub(self.needs_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: i64 = 600_000;

    fn kind(up: bool, age: u32) -> usize {
        usize::from(up) * 6 + (age as usize).min(6) - 1
    }

    #[test]
    fn looks_between_ticks_count_once_a_tick() {
        let mut watch = Watch::new(Time(0), true, Time(0));
        for minute in 0..=60 {
            watch.sees(true, TICK, Time(minute * 60_000), kind);
        }
        assert_eq!(watch.stayed.iter().sum::<u32>(), 6);
        assert_eq!(watch.stayed[6..], [1, 1, 1, 1, 1, 1]);
        watch.sees(false, TICK, Time(61 * 60_000), kind);
        assert_eq!(watch.ended.iter().sum::<u32>(), 1);
        assert_eq!((watch.up, watch.age(TICK, Time(61 * 60_000))), (false, 1));
    }

    #[test]
    fn a_while_in_which_nobody_looked_is_one_tick() {
        let mut watch = Watch::new(Time(0), true, Time(0));
        watch.sees(true, TICK, Time(100 * TICK), kind);
        assert_eq!(watch.stayed.iter().sum::<u32>(), 1);
        watch.sees(true, TICK, Time(100 * TICK + 1), kind);
        assert_eq!(watch.stayed.iter().sum::<u32>(), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_counts_nothing() {
        let mut watch = Watch::new(Time(0), true, Time(50 * TICK));
        watch.sees(true, TICK, Time(10 * TICK), kind);
        assert_eq!(watch.stayed.iter().sum::<u32>(), 0);
        watch.sees(true, TICK, Time(11 * TICK), kind);
        assert_eq!(watch.stayed.iter().sum::<u32>(), 1);
    }
}
