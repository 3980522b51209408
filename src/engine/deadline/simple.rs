//! Policies that need no history.
//!
//! [`Greedy`] and [`UniformProgress`] follow the rules of "Can't Be Late" (NSDI'24) to the letter, so
//! that their published figures can be had again; their net is the published one, and the wider
//! [`SafeSet`] only adds the margin where the terms name one.

use super::{DeadlinePolicy, Mode, Moment, SafeSet, Terms};

/// On-demand capacity from the beginning to the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnDemand;

impl DeadlinePolicy for OnDemand {
    fn choose(&mut self, terms: &Terms, moment: &Moment) -> Mode {
        SafeSet::new(terms, moment).bound(Mode::OnDemand)
    }
}

/// Rides what is there, waits for it, and goes on demand when time has run out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Greedy;

impl DeadlinePolicy for Greedy {
    fn choose(&mut self, terms: &Terms, moment: &Moment) -> Mode {
        netted(terms, moment, riding(moment))
    }
}

/// Keeps the work done level with the time passed: Uniform Progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct UniformProgress;

impl DeadlinePolicy for UniformProgress {
    fn choose(&mut self, terms: &Terms, moment: &Moment) -> Mode {
        // Shares of work and of time are compared by cross-multiplication, without a division.
        let progress = (terms.work - moment.work_left).saturating_mul(terms.deadline);
        let due = |seconds: i64| (moment.tick * terms.tick + seconds).saturating_mul(terms.work);
        let mut wish = riding(moment);
        if progress < due(0) && !moment.spot {
            wish = Mode::OnDemand;
        }
        // What is held on demand is left only with a lead that pays for both changes.
        let behind = || due(2 * terms.overhead) >= progress;
        if moment.mode == Mode::OnDemand && (!moment.spot || behind()) {
            wish = Mode::OnDemand;
        }
        netted(terms, moment, wish)
    }
}

/// Greedy while the deadline is far; then Uniform Progress, over the work and the time that are left
/// by then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prelude {
    /// The tick and the work left when the deadline came near.
    since: Option<(i64, i64)>,
}

impl Prelude {
    /// Goes on from when the deadline came near, with the tick and the work left then, where it has.
    pub fn since(near: Option<(i64, i64)>) -> Self {
        Self { since: near }
    }

    /// Whether the deadline has come near.
    pub fn is_near(&self) -> bool {
        self.since.is_some()
    }
}

impl DeadlinePolicy for Prelude {
    fn choose(&mut self, terms: &Terms, moment: &Moment) -> Mode {
        // 0.7 of the time that is left is needed for the work that is left.
        let left = moment.ticks_left * terms.tick;
        if self.since.is_none() && moment.work_left * 10 < left * 7 {
            return Greedy.choose(terms, moment);
        }
        let (tick, work) = *self.since.get_or_insert((moment.tick, moment.work_left));
        let rest = Terms {
            work,
            deadline: terms.deadline - tick * terms.tick,
            ..*terms
        };
        let moment = Moment {
            tick: moment.tick - tick,
            ..*moment
        };
        UniformProgress.choose(&rest, &moment)
    }
}

/// Waits while there is slack for a tenth of the work that is left, and a start.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlackBand;

impl DeadlinePolicy for SlackBand {
    fn choose(&mut self, terms: &Terms, moment: &Moment) -> Mode {
        let slack = moment.ticks_left * terms.tick - moment.work_left;
        let wish = match moment.mode {
            Mode::OnDemand if moment.spot && slack > 2 * terms.overhead => Mode::Spot,
            Mode::OnDemand => Mode::OnDemand,
            Mode::Idle | Mode::Spot if moment.spot => Mode::Spot,
            Mode::Idle | Mode::Spot => {
                let waits = 10 * (slack - terms.overhead) > moment.work_left;
                if waits { Mode::Idle } else { Mode::OnDemand }
            }
        };
        SafeSet::new(terms, moment).bound(wish)
    }
}

/// Interruptible capacity where it is there, else nothing.
fn riding(moment: &Moment) -> Mode {
    if moment.spot { Mode::Spot } else { Mode::Idle }
}

/// The published net under a wish: on demand once a start less would be too late.
fn netted(terms: &Terms, moment: &Moment, wish: Mode) -> Mode {
    let needs = |starts: i64| {
        // ⌈x / tick⌉ ≥ ticks, without a division.
        let ticks = moment.ticks_left - terms.margin - 1;
        moment.work_left + starts * terms.overhead > ticks * terms.tick
    };
    let mut mode = wish;
    if moment.mode != Mode::Spot && needs(2) {
        mode = Mode::OnDemand;
    }
    if needs(1) {
        let rides = moment.mode == Mode::Spot && moment.overhead_left == 0 && terms.margin == 0;
        mode = if rides { Mode::Spot } else { Mode::OnDemand };
    }
    if mode == Mode::OnDemand && moment.mode != Mode::OnDemand && !moment.on_demand {
        return riding(moment);
    }
    mode
}
