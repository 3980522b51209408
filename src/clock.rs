//! The only reader of the system clock, and the clocks that stand in for it.

#![allow(clippy::disallowed_methods)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use crate::ports::Clock;
use crate::types::time::{Mono, Time, millis};

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time begins now.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    /// Seconds since the clock began, as finely as the system tells: for measurements.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

fn system_now() -> Time {
    // Before 1970 the machine's clock is not set; zero makes every deadline wait, none pass.
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Time(millis(since))
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Time {
        system_now()
    }

    fn monotonic(&self) -> Mono {
        Mono(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    async fn sleep_until(&self, deadline: Time) {
        // The wall clock may be set while we sleep, so long sleeps look again.
        const LOOK_AGAIN: Duration = Duration::from_secs(60);
        let (begun, to_go) = (Instant::now(), deadline.since(self.now()));
        loop {
            let left = to_go.saturating_sub(begun.elapsed());
            let left = left.min(deadline.since(self.now()));
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LOOK_AGAIN)).await;
        }
    }
}

/// A clock that runs `speed` times as fast as the system's, from a given moment: for following an
/// accelerated market.
#[derive(Debug)]
pub struct ScaledClock {
    started: Instant,
    origin: Time,
    speed: f64,
}

impl ScaledClock {
    /// A clock that shows `origin` now. A speed that is not a positive number is taken as 1.
    pub fn new(origin: Time, speed: f64) -> Self {
        let speed = if speed.is_finite() && speed > 0.0 {
            speed
        } else {
            1.0
        };
        Self {
            started: Instant::now(),
            origin,
            speed,
        }
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed().mul_f64(self.speed)
    }

    /// How many seconds pass here in one of the system's.
    pub fn speed(&self) -> f64 {
        self.speed
    }
}

#[async_trait]
impl Clock for ScaledClock {
    fn now(&self) -> Time {
        self.origin + self.elapsed()
    }

    fn monotonic(&self) -> Mono {
        Mono(u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    async fn sleep_until(&self, deadline: Time) {
        loop {
            let left = deadline.since(self.now());
            if left.is_zero() {
                return;
            }
            // A millisecond at least, so that rounding does not spin.
            tokio::time::sleep(left.div_f64(self.speed).max(Duration::from_millis(1))).await;
        }
    }
}

/// Virtual time: it stands still until somebody sleeps, then jumps. One task drives it. With a
/// pace, sleeping also takes real time, so that a person can watch.
#[derive(Debug)]
pub struct SimClock {
    now: AtomicI64,
    origin: Mutex<Time>,
    pace: Option<f64>,
}

impl SimClock {
    /// A clock that shows `start` and jumps.
    pub fn new(start: Time) -> Self {
        Self {
            now: AtomicI64::new(start.0),
            origin: Mutex::new(start),
            pace: None,
        }
    }

    /// A clock that shows `start` and lets a second of its own take `1 / speed` real seconds.
    pub fn paced(start: Time, speed: f64) -> Self {
        let pace = (speed.is_finite() && speed > 0.0).then_some(speed);
        Self {
            pace,
            ..Self::new(start)
        }
    }

    /// Moves on by a duration at once: for what takes time without anybody sleeping, such as a
    /// request that is never answered.
    pub fn advance(&self, by: Duration) {
        self.now.fetch_add(millis(by), Ordering::SeqCst);
    }

    /// What a new process would see: its monotonic clock begins now.
    pub fn restart_process(&self) {
        if let Ok(mut origin) = self.origin.lock() {
            *origin = Time(self.now.load(Ordering::SeqCst));
        }
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Time {
        Time(self.now.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Mono {
        let origin = self.origin.lock().map_or(Time(0), |origin| *origin);
        Mono(u64::try_from(self.now().ms_since(origin)).unwrap_or(0))
    }

    async fn sleep_until(&self, deadline: Time) {
        let left = deadline.since(self.now());
        if let Some(speed) = self.pace
            && !left.is_zero()
        {
            tokio::time::sleep(left.div_f64(speed)).await;
        }
        self.now.fetch_max(deadline.0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn virtual_time_jumps_and_restarts() {
        let clock = SimClock::new(Time(1_000));
        clock.sleep_until(Time(61_000)).await;
        clock.advance(Duration::from_secs(1));
        assert_eq!(
            (clock.now(), clock.monotonic()),
            (Time(62_000), Mono(61_000))
        );
        clock.sleep_until(Time(5)).await;
        assert_eq!(clock.now(), Time(62_000), "time never goes back");
        clock.restart_process();
        assert_eq!(clock.monotonic(), Mono(0));
    }

    #[test]
    fn scaled_time_runs_ahead() {
        let clock = ScaledClock::new(Time(0), 1e6);
        while clock.now() < Time(1_000) {}
        assert!(clock.monotonic() >= Mono(1_000));
    }
}
