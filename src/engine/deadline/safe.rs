//! What keeps a job in time, whatever a policy would like.

use super::{Mode, Moment, Terms};

/// The actions after which the job can still be finished on demand, whatever the tick brings.
///
/// By induction nothing is late that begins in the set, as long as on-demand capacity starts within
/// [`Terms::margin`] ticks of being asked for: of the actions named safe at a tick each leads back
/// into the set, and on-demand capacity is always one of them.
#[derive(Clone, Copy, Debug)]
pub struct SafeSet<'a> {
    terms: &'a Terms,
    moment: &'a Moment,
}

impl<'a> SafeSet<'a> {
    /// The set at a moment.
    pub fn new(terms: &'a Terms, moment: &'a Moment) -> Self {
        Self { terms, moment }
    }

    /// Whether the job may be without anything during this tick.
    pub fn may_wait(&self) -> bool {
        self.can_begin_next(self.moment.work_left)
    }

    /// Whether the job may ride interruptible capacity during this tick, and lose it at its end.
    pub fn may_ride(&self) -> bool {
        let (terms, moment) = (self.terms, self.moment);
        let boot = if moment.mode == Mode::Spot {
            moment.overhead_left
        } else {
            terms.overhead
        };
        let work = moment.work_left - (terms.tick - boot).max(0);
        let finished = work <= 0 && moment.ticks_left > 0 && self.starts_surely();
        finished || self.can_begin_next(work)
    }

    /// The nearest safe mode to the one that a policy would like.
    ///
    /// Where on-demand capacity is called for and cannot be had, interruptible capacity is better
    /// than nothing.
    pub fn bound(&self, wish: Mode) -> Mode {
        let safe = match wish {
            Mode::Spot if self.may_ride() => Mode::Spot,
            Mode::Idle if self.may_wait() => Mode::Idle,
            _ => Mode::OnDemand,
        };
        let moment = self.moment;
        if safe == Mode::OnDemand && moment.mode != Mode::OnDemand && !moment.on_demand {
            return if moment.spot { Mode::Spot } else { Mode::Idle };
        }
        safe
    }

    /// What runs works; what is started may fail where starts do.
    fn starts_surely(&self) -> bool {
        self.moment.mode == Mode::Spot || self.terms.margin == 0
    }

    /// Whether `work` can be begun on demand, from nothing, at the next tick and be done in time.
    fn can_begin_next(&self, work: i64) -> bool {
        let ticks = self.moment.ticks_left - 1 - self.terms.margin;
        work + self.terms.overhead <= ticks * self.terms.tick
    }
}

/// How many starts in a row have to be allowed for, so that all of them fail with a probability of
/// at most `1 - promise`, each failing with the probability `fails`.
///
/// Both are at least 0 and below 1; what is outside is taken for the nearest that is inside.
pub fn retries(fails: f64, promise: f64) -> u32 {
    const MOST: u32 = 1_000;
    let fails = fails.clamp(0.0, 0.999);
    let late = (1.0 - promise).clamp(1e-12, 1.0);
    let mut chance = fails;
    let mut count = 0;
    while chance > late && count < MOST {
        chance *= fails;
        count += 1;
    }
    count
}
