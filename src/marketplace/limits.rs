//! Keeps to the rates that the marketplace documents, by the program's own clock.
//!
//! The limits are kept here rather than by a token-bucket crate for two reasons. The marketplace's
//! documented search limit is ten calls in a minute: a bucket that lets ten through at once lets
//! twenty through in its first minute, and one that does not spaces every search by six seconds. And
//! waiting must happen on the clock port, so that a simulated day waits in simulated time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::ports::Clock;
use crate::types::time::Mono;

/// The longest silence that a call sits out. What would have to wait longer is refused at once, so
/// that a tick does not hang on one throttled route.
pub const WAIT_MAX: Duration = Duration::from_mins(1);

/// Added to every documented interval, because two requests that leave a second apart may arrive
/// less than a second apart.
const MARGIN: Duration = Duration::from_millis(50);

/// The first wait after a throttled call that does not say how long to wait.
const BACKOFF_FIRST: Duration = Duration::from_secs(2);

/// Doublings after which the wait has long reached its maximum.
const BACKOFF_STEPS_MAX: usize = 8;

/// What is limited together: one route of the marketplace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gate {
    /// Searches, and reads of one offer, which are searches.
    Search,
    /// Rentals, on-demand and bid.
    Create,
    /// Changes of a bid.
    Bid,
    /// Destroys.
    Destroy,
    /// Start, stop, label.
    Manage,
    /// The list of instances.
    Instances,
    /// One instance by id.
    Instance,
    /// Charges.
    Charges,
    /// The account.
    User,
    /// Reads of what people look after by hand: machines, templates, keys, webhooks and the like.
    /// They share one gate at the longest of their documented intervals, as do their changes.
    Records,
    /// Changes of the same.
    RecordChanges,
    /// The older, unpaged list of instances.
    InstancesUnpaged,
    /// Destroys of several at once.
    DestroyMany,
    /// Payments.
    Payments,
    /// What hosts ask for.
    PriceIncreases,
    /// Reports of a machine.
    Reports,
    /// Notifications.
    Inbox,
    /// Requests for logs.
    Logs,
    /// Copies between instances.
    Copy,
    /// Copies to and from cloud storage.
    CloudCopy,
}

impl Gate {
    /// So many calls in so long, as the marketplace documents it.
    fn quota(self) -> (usize, Duration) {
        let (calls, ms) = match self {
            Self::Search => (10, 60_000),
            Self::Create => (1, 4500),
            Self::Bid => (1, 5500),
            Self::Destroy | Self::DestroyMany | Self::Payments | Self::Records => (1, 3000),
            Self::Instance => (1, 2000),
            Self::RecordChanges => (1, 5000),
            Self::Copy | Self::CloudCopy => (1, 3500),
            Self::Reports => (1, 1200),
            // Those without a documented interval keep the usual one.
            Self::Manage
            | Self::Instances
            | Self::InstancesUnpaged
            | Self::Charges
            | Self::User
            | Self::PriceIncreases
            | Self::Inbox
            | Self::Logs => (1, 1000),
        };
        (calls, Duration::from_millis(ms))
    }
}

/// A call would have to wait longer than [`WAIT_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong(
    /// How long.
    pub Duration,
);

#[derive(Default)]
struct State {
    /// When the last calls were let through, oldest first; at most the quota's count.
    admitted: VecDeque<Mono>,
    /// The marketplace asked for silence until then.
    blocked_until: Mono,
    /// Throttled answers in a row.
    throttled: usize,
}

/// The limits of one account at one marketplace.
pub struct Limits {
    clock: Arc<dyn Clock>,
    jitter_seed: u64,
    gates: Mutex<BTreeMap<Gate, State>>,
}

impl Limits {
    /// Limits on a clock, with the seed of the jitter in its back-off.
    pub fn new(clock: Arc<dyn Clock>, jitter_seed: u64) -> Self {
        Self {
            clock,
            jitter_seed,
            gates: Mutex::new(BTreeMap::new()),
        }
    }

    /// Returns when a call may be made; its place is taken from then on. Refuses at once where the
    /// marketplace asked for a longer silence than [`WAIT_MAX`].
    pub async fn admit(&self, gate: Gate) -> Result<(), TooLong> {
        let now = self.clock.monotonic();
        let at = self.with(gate, |state| {
            let silence = state.blocked_until.since(now);
            if silence > WAIT_MAX {
                return Err(TooLong(silence));
            }
            let at = earliest(state, gate.quota(), now);
            state.admitted.push_back(at);
            while state.admitted.len() > gate.quota().0 {
                state.admitted.pop_front();
            }
            Ok(at)
        })?;
        let wait = at.since(now);
        if !wait.is_zero() {
            self.clock.sleep_until(self.clock.now() + wait).await;
        }
        Ok(())
    }

    /// Takes note of a throttled answer and returns how long the route now stays silent: what the
    /// marketplace said, else two seconds, doubling with jitter up to a minute.
    pub fn throttled(&self, gate: Gate, told: Option<Duration>) -> Duration {
        let now = self.clock.monotonic();
        self.with(gate, |state| {
            let wait = told.unwrap_or_else(|| {
                let seed = self.jitter_seed ^ ((gate as u64) << 8) ^ state.throttled as u64;
                backoff(state.throttled, seed)
            });
            state.throttled = (state.throttled + 1).min(BACKOFF_STEPS_MAX);
            state.blocked_until = state.blocked_until.max(now + wait);
            wait
        })
    }

    /// Takes note of an answer that was not throttled.
    pub fn passed(&self, gate: Gate) {
        self.with(gate, |state| state.throttled = 0);
    }

    fn with<T>(&self, gate: Gate, f: impl FnOnce(&mut State) -> T) -> T {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        f(gates.entry(gate).or_default())
    }
}

fn earliest(state: &State, (calls, period): (usize, Duration), now: Mono) -> Mono {
    let window = if state.admitted.len() < calls {
        now
    } else {
        let oldest = state.admitted[state.admitted.len() - calls];
        oldest + period + MARGIN
    };
    window.max(state.blocked_until).max(now)
}

fn backoff(step: usize, seed: u64) -> Duration {
    ExponentialBuilder::new()
        .with_min_delay(BACKOFF_FIRST)
        .with_max_delay(WAIT_MAX)
        .with_factor(2.0)
        .with_jitter()
        .with_jitter_seed(seed)
        .with_max_times(BACKOFF_STEPS_MAX + 1)
        .build()
        .nth(step)
        .unwrap_or(WAIT_MAX)
        .min(WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marketplace::testing::{SimClock, run};

    fn limits() -> (Arc<SimClock>, Limits) {
        let clock = Arc::new(SimClock::default());
        let limits = Limits::new(Arc::clone(&clock) as Arc<dyn Clock>, 7);
        (clock, limits)
    }

    #[test]
    fn never_more_than_ten_searches_in_any_minute() {
        let (clock, limits) = limits();
        let times: Vec<u64> = (0..35)
            .map(|_| {
                run(limits.admit(Gate::Search)).unwrap();
                clock.monotonic().0
            })
            .collect();
        assert_eq!(times[9], 0, "ten go at once");
        for window in times.windows(11) {
            assert!(window[10] - window[0] >= 60_000, "{window:?}");
        }
    }

    #[test]
    fn spaces_bids_and_leaves_other_routes_alone() {
        let (clock, limits) = limits();
        run(limits.admit(Gate::Bid)).unwrap();
        run(limits.admit(Gate::Destroy)).unwrap();
        assert_eq!(clock.monotonic().0, 0);
        run(limits.admit(Gate::Bid)).unwrap();
        assert!(clock.monotonic().0 >= 5500);
    }

    #[test]
    fn obeys_what_it_is_told_and_doubles_otherwise() {
        let (clock, limits) = limits();
        assert_eq!(
            limits.throttled(Gate::User, Some(Duration::from_secs(11))),
            Duration::from_secs(11)
        );
        run(limits.admit(Gate::User)).unwrap();
        assert_eq!(clock.monotonic().0, 11_000);

        let waits: Vec<Duration> = (0..9)
            .map(|_| limits.throttled(Gate::Create, None))
            .collect();
        assert!(waits[0] >= Duration::from_secs(2) && waits[0] <= Duration::from_secs(4));
        assert!(waits[2] >= Duration::from_secs(8));
        assert_eq!(waits[8], WAIT_MAX);
        limits.passed(Gate::Create);
        assert!(limits.throttled(Gate::Create, None) <= Duration::from_secs(4));
    }

    #[test]
    fn refuses_what_would_wait_too_long() {
        let (_, limits) = limits();
        limits.throttled(Gate::Search, Some(Duration::from_hours(3)));
        let refused = run(limits.admit(Gate::Search));
        assert_eq!(refused, Err(TooLong(Duration::from_hours(3))));
    }
}
