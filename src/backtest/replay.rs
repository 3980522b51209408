//! One run of a policy over recorded ticks.
//!
//! A tick is seen, the work of the last one is booked, and then the policy decides. A start, or a
//! change of mode, takes the overhead before it works. Whole ticks are billed, the overhead's too.

use crate::engine::deadline::{DeadlinePolicy, Mode, Moment, Terms};

/// What a tick of a trace offers, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick(pub u8);

impl Tick {
    /// Interruptible capacity is there.
    pub const SPOT: u8 = 1;
    /// A start of interruptible capacity fails.
    pub const SPOT_FAILS: u8 = 2;
    /// A start of on-demand capacity fails.
    pub const ON_DEMAND_FAILS: u8 = 4;
    /// On-demand capacity cannot be started.
    pub const ON_DEMAND_ABSENT: u8 = 8;

    /// Whether a bit is set.
    pub fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// Whether a start in this mode works.
    pub fn starts(self, mode: Mode) -> bool {
        match mode {
            Mode::Idle => true,
            Mode::Spot => self.0 & (Self::SPOT | Self::SPOT_FAILS) == Self::SPOT,
            Mode::OnDemand => self.0 & (Self::ON_DEMAND_FAILS | Self::ON_DEMAND_ABSENT) == 0,
        }
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Ticks that were billed at the interruptible price.
    pub spot_ticks: u32,
    /// Ticks that were billed at the on-demand price.
    pub on_demand_ticks: u32,
    /// Ticks from the beginning until the work was done.
    pub ticks: u32,
    /// It was done after the deadline, or never.
    pub late: bool,
}

/// Longest run after the deadline, in ticks, before it is given up.
const OVERTIME: i64 = 1_000;

/// A tick of a run, as it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number, from 0.
    pub tick: i64,
    /// Whether interruptible capacity was there.
    pub spot: bool,
    /// What was held for it; a start that failed is idle.
    pub mode: Mode,
    /// Seconds of work that are left after it.
    pub work_left: i64,
}

/// Runs a policy. Where the trace ends, interruptible capacity is gone and on-demand capacity is
/// there.
pub fn replay<P: DeadlinePolicy + ?Sized>(
    policy: &mut P,
    terms: &Terms,
    trace: &[Tick],
) -> Outcome {
    replay_seen(policy, terms, trace, |_| {})
}

/// The same, telling of each tick.
pub fn replay_seen<P: DeadlinePolicy + ?Sized>(
    policy: &mut P,
    terms: &Terms,
    trace: &[Tick],
    mut seen_by: impl FnMut(Step),
) -> Outcome {
    let ticks = terms.ticks();
    let mut moment = Moment {
        tick: 0,
        ticks_left: ticks,
        work_left: terms.work,
        mode: Mode::Idle,
        overhead_left: 0,
        spot: false,
        on_demand: true,
        age: 0,
    };
    // By mode, in the order in which modes are declared.
    let mut billed = [0; 3];
    let mut trace = trace.iter();
    while moment.work_left > 0 && moment.tick < ticks + OVERTIME {
        let seen = trace.next().copied().unwrap_or_default();
        let spot = seen.has(Tick::SPOT);
        moment.age = if spot == moment.spot {
            moment.age + 1
        } else {
            1
        };
        moment.spot = spot;
        moment.on_demand = !seen.has(Tick::ON_DEMAND_ABSENT);
        if moment.mode == Mode::Spot && !spot {
            (moment.mode, moment.overhead_left) = (Mode::Idle, 0);
        }
        let mut mode = policy.choose(terms, &moment);
        if mode == Mode::Spot && !spot {
            mode = Mode::Idle;
        }
        let mut overhead = moment.overhead_left;
        if mode != moment.mode {
            overhead = terms.overhead;
            if !seen.starts(mode) {
                // An absent machine costs nothing; one that does not come up is billed for its tick.
                let there = mode == Mode::Spot || moment.on_demand;
                billed[mode as usize] += u32::from(there);
                mode = Mode::Idle;
            }
        }
        if mode == Mode::Idle {
            overhead = 0;
        } else {
            billed[mode as usize] += 1;
            moment.work_left -= (terms.tick - overhead).max(0);
            overhead = (overhead - terms.tick).max(0);
        }
        (moment.mode, moment.overhead_left) = (mode, overhead);
        seen_by(Step {
            tick: moment.tick,
            spot,
            mode,
            work_left: moment.work_left.max(0),
        });
        moment.tick += 1;
        moment.ticks_left -= 1;
    }
    Outcome {
        spot_ticks: billed[Mode::Spot as usize],
        on_demand_ticks: billed[Mode::OnDemand as usize],
        ticks: moment.tick as u32,
        late: moment.work_left > 0 || moment.ticks_left < 0,
    }
}
