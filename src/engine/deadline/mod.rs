//! Deadlines: when to ride interruptible capacity, when to wait for it, when to take what is not
//! taken away.
//!
//! Time goes in ticks. At each tick a [`DeadlinePolicy`] sees a [`Moment`] of its job and names the
//! [`Mode`] of the tick. Everything is in whole seconds, so that a decision is the same everywhere.
//! The rules that keep a job in time are in [`SafeSet`], under every policy.

mod belief;
mod chain;
mod hazard;
mod prior;
mod safe;
mod simple;
mod table;
#[cfg(test)]
mod tests;

pub use crate::types::deadline::DeadlineKind;
pub use belief::Belief;
pub use chain::{AGE_CLASSES, Chain, Counts, Seen, age_class};
pub use hazard::{HazardMdp, HazardTables};
pub use prior::Prior;
pub use safe::{SafeSet, retries};
pub use simple::{Greedy, OnDemand, Prelude, SlackBand, UniformProgress};
pub use table::{Costs, Table, TableShape};

/// What a job does for the length of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: it holds no machine, and pays none.
    Idle,
    /// It holds interruptible capacity.
    Spot,
    /// It holds what nobody takes away.
    OnDemand,
}

/// What is asked of a job, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Length of a tick; over 0.
    pub tick: i64,
    /// Work of the whole job.
    pub work: i64,
    /// From the beginning to the deadline.
    pub deadline: i64,
    /// What each start takes before any work is done.
    pub overhead: i64,
    /// Ticks kept in hand for starts of on-demand capacity that fail, or that find none.
    pub margin: i64,
}

impl Terms {
    /// Whole ticks until the deadline.
    pub fn ticks(&self) -> i64 {
        self.deadline / self.tick
    }
}

/// What a policy sees at the beginning of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Ticks that have passed.
    pub tick: i64,
    /// Whole ticks that are left until the deadline; below 0 where it has passed.
    pub ticks_left: i64,
    /// Seconds of work that are left; over 0.
    pub work_left: i64,
    /// What was held in the last tick and is still held.
    pub mode: Mode,
    /// Seconds that the start of what is held still takes; 0 where nothing is held.
    pub overhead_left: i64,
    /// Interruptible capacity can be had, or kept, for this tick.
    pub spot: bool,
    /// On-demand capacity can be started at this tick. What runs is not affected.
    pub on_demand: bool,
    /// Ticks for which `spot` has been what it is, with this one, as far as is known: at least 1.
    pub age: u32,
}

/// Decides for one job, tick by tick. What it learns on the way is its own.
pub trait DeadlinePolicy {
    /// The mode of the tick that begins.
    ///
    /// `Spot` is to be named only where `moment.spot` says so; `OnDemand` is a wish where none can
    /// be had, and the job then idles.
    fn choose(&mut self, terms: &Terms, moment: &Moment) -> Mode;
}

/// A policy behind a pointer is a policy.
impl<P: DeadlinePolicy + ?Sized> DeadlinePolicy for Box<P> {
    fn choose(&mut self, terms: &Terms, moment: &Moment) -> Mode {
        (**self).choose(terms, moment)
    }
}
