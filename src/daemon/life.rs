//! Whether the loop gets on, for a supervisor that starts anew what hangs.
//!
//! A tick may take long and be well: a slow marketplace, waits that rate limits ask for, a hundred
//! destroys one by one. So it is not the tick's length that is judged. What shows that the loop gets
//! on is that one step follows another: the loop, or what it sends requests with, asked what time it is, a
//! wait began or ended, a change was made durable. And a loop that goes round and brings nothing about for long is not well
//! either, however busy.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::ports::Clock;
use crate::types::time::{Mono, Time, human};

/// One step may take so much longer than one request may: a database that is pruned, files that are
/// read from a slow disk.
const STEP_SPARE: Duration = Duration::from_mins(3);

/// Something has to be made durable, or a tick to end, so long after the next tick was due. It is
/// shorter than the half hour after which a guard takes a daemon for dead: being started anew is the
/// lesser evil.
const TICK_MAX: Duration = Duration::from_mins(20);

/// No single wait of the loop is believed to be longer.
const WAIT_MAX: Duration = Duration::from_mins(10);

/// The signs of life of one process's loop.
pub struct Life {
    clock: Arc<dyn Clock>,
    step_max: Duration,
    marks: Mutex<Marks>,
}

#[derive(Clone, Copy)]
struct Marks {
    /// The next step has to be seen by then.
    step_by: Mono,
    /// The next change or the end of a tick has to be seen by then.
    change_by: Mono,
}

impl Life {
    /// Of a loop that begins now, each of whose requests takes at most `request_max`. `clock` is the
    /// one by which hanging is told: always the system's.
    pub fn new(clock: Arc<dyn Clock>, request_max: Duration) -> Self {
        let step_max = request_max + STEP_SPARE;
        let now = clock.monotonic();
        let marks = Marks {
            step_by: now + step_max,
            change_by: now + TICK_MAX,
        };
        Self {
            clock,
            step_max,
            marks: Mutex::new(marks),
        }
    }

    /// A step was made.
    pub fn steps(&self) {
        self.waits(Duration::ZERO);
    }

    /// A wait begins that is to last so long.
    fn waits(&self, wait: Duration) {
        let by = self.clock.monotonic() + wait.min(WAIT_MAX) + self.step_max;
        let mut marks = self.lock();
        marks.step_by = marks.step_by.max(by);
    }

    /// Something was brought about: a change was made durable.
    pub fn changes(&self) {
        self.ticks(Duration::ZERO);
    }

    /// A tick ended, and the next one is due within `next`.
    pub fn ticks(&self, next: Duration) {
        self.steps();
        let by = self.clock.monotonic() + next + TICK_MAX;
        let mut marks = self.lock();
        marks.change_by = marks.change_by.max(by);
    }

    /// Why the loop is taken to hang; `None`: it gets on.
    pub fn hangs(&self) -> Option<String> {
        let now = self.clock.monotonic();
        let marks = *self.lock();
        if now > marks.step_by {
            let since = now.since(marks.step_by) + self.step_max;
            return Some(format!("no step was made for {}", human(since)));
        }
        (now > marks.change_by).then(|| {
            let since = now.since(marks.change_by) + TICK_MAX;
            format!("no tick has ended for {} since it was due", human(since))
        })
    }

    /// A clock to ask which is a sign of life: for the loop and for what it sends requests with, and
    /// for nobody else.
    pub fn watching(self: &Arc<Self>, clock: Arc<dyn Clock>) -> Arc<dyn Clock> {
        let life = Arc::clone(self);
        Arc::new(Watched { clock, life })
    }

    fn lock(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Watched {
    clock: Arc<dyn Clock>,
    life: Arc<Life>,
}

#[async_trait]
impl Clock for Watched {
    fn now(&self) -> Time {
        // Before each request the time is asked, and after it.
        self.life.steps();
        self.clock.now()
    }

    fn monotonic(&self) -> Mono {
        self.life.steps();
        self.clock.monotonic()
    }

    async fn sleep_until(&self, deadline: Time) {
        self.life.waits(deadline.since(self.clock.now()));
        self.clock.sleep_until(deadline).await;
        self.life.steps();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn block_on(future: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(future);
    }

    /// A clock that is moved by hand; waits are over at once and move nothing.
    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Hand {
        fn wait(&self, time: Duration) {
            let ms = time.as_millis() as u64;
            self.0.fetch_add(ms, Ordering::Relaxed);
        }
    }

    #[async_trait]
    impl Clock for Hand {
        fn now(&self) -> Time {
            Time(self.0.load(Ordering::Relaxed) as i64)
        }

        fn monotonic(&self) -> Mono {
            Mono(self.0.load(Ordering::Relaxed))
        }

        async fn sleep_until(&self, _deadline: Time) {}
    }

    const REQUEST_MAX: Duration = Duration::from_secs(30);
    const STEP_MAX: Duration = Duration::from_secs(210);

    fn life() -> (Arc<Hand>, Arc<Life>) {
        let hand = Arc::new(Hand::default());
        let life = Life::new(Arc::clone(&hand) as Arc<dyn Clock>, REQUEST_MAX);
        (hand, Arc::new(life))
    }

    #[test]
    fn a_loop_that_makes_no_step_hangs_and_one_that_goes_on_again_does_not() {
        let (hand, life) = life();
        hand.wait(STEP_MAX);
        assert_eq!(life.hangs(), None);
        hand.wait(Duration::from_secs(1));
        let why = life.hangs().unwrap();
        assert_eq!(why, "no step was made for 3m31s");
        life.steps();
        assert_eq!(life.hangs(), None);
    }

    #[test]
    fn a_tick_that_takes_an_hour_and_brings_something_about_is_well() {
        let (hand, life) = life();
        for _ in 0..1200 {
            hand.wait(Duration::from_secs(3));
            life.steps();
            life.changes();
            assert_eq!(life.hangs(), None);
        }
    }

    #[test]
    fn a_tick_that_is_busy_and_brings_nothing_about_hangs() {
        let (hand, life) = life();
        life.ticks(Duration::from_mins(5));
        for _ in 0..25 {
            hand.wait(Duration::from_mins(1));
            life.steps();
            assert_eq!(life.hangs(), None);
        }
        hand.wait(Duration::from_mins(1));
        life.steps();
        let why = life.hangs().unwrap();
        assert_eq!(why, "no tick has ended for 21m00s since it was due");
        life.ticks(Duration::from_mins(5));
        assert_eq!(life.hangs(), None);
    }

    #[test]
    fn a_schedule_with_a_long_gap_is_waited_for_in_short_waits() {
        let (hand, life) = life();
        let watched = life.watching(Arc::clone(&hand) as Arc<dyn Clock>);
        life.ticks(Duration::from_hours(8));
        for _ in 0..8 * 360 {
            let soon = watched.now() + Duration::from_secs(10);
            block_on(watched.sleep_until(soon));
            hand.wait(Duration::from_secs(10));
            assert_eq!(life.hangs(), None);
        }
        hand.wait(TICK_MAX + STEP_MAX);
        assert!(life.hangs().is_some());
    }

    #[test]
    fn a_wait_counts_for_as_long_as_it_lasts_and_a_very_long_one_for_no_longer_than_that() {
        let (hand, life) = life();
        life.waits(Duration::from_mins(5));
        hand.wait(Duration::from_mins(5) + STEP_MAX);
        assert_eq!(life.hangs(), None);
        life.waits(Duration::from_hours(24 * 365));
        hand.wait(WAIT_MAX + STEP_MAX + Duration::from_secs(1));
        assert!(life.hangs().is_some());
    }
}
