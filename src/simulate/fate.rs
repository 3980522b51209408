//! What chance does to a process and to its requests, and the clocks that this needs.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::NaiveDate;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Notify;

use crate::clock::SimClock;
use crate::market::transport::Verdict;
use crate::ports::{Clock, Request, Standing, Store, StoreError};
use crate::types::ids::InstanceId;
use crate::types::instance::Held;
use crate::types::ledger::{BilledDays, Drift};
use crate::types::offer::Snapshot;
use crate::types::state::{Change, State, UserRequest};
use crate::types::time::{Mono, Time};

/// Takes a lock. Whoever panicked while holding it left something that can still be read.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often what goes wrong around a process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hazards {
    /// Chance that a mutation kills the process before it is applied, in parts per thousand; and as
    /// much after.
    pub crash_per_mille: u64,
    /// Chance that a commit kills the process before it is durable, in parts per hundred thousand;
    /// and as much after.
    pub commit_crash_per_100k: u64,
    /// Chance that a mutation is held up on its way: its sender gives up waiting, and it takes
    /// effect later than what was sent after it. In parts per thousand.
    pub late_per_mille: u64,
    /// Chance that an answer takes nearly as long as it is waited for, in parts per thousand.
    pub slow_per_mille: u64,
    /// How long a process that died stays down, in seconds.
    pub down_seconds: RangeInclusive<u64>,
    /// How long a request takes, in milliseconds of market time.
    pub latency_ms: RangeInclusive<u64>,
}

impl Default for Hazards {
    /// None but that requests take time.
    fn default() -> Self {
        Self {
            crash_per_mille: 0,
            commit_crash_per_100k: 0,
            late_per_mille: 0,
            slow_per_mille: 0,
            down_seconds: 0..=0,
            latency_ms: 40..=400,
        }
    }
}

/// How long one without an answer is waited for, in market time.
pub(super) const TIMEOUT: Duration = Duration::from_secs(20);

/// A request that was held up takes effect no later than this after its sender gave up: the daemon's
/// stated assumption is two minutes.
const LATE_MAX_MS: u64 = 100_000;

/// What outlives a process: the dice, and the counts.
pub(super) struct Fate {
    rng: Mutex<ChaCha8Rng>,
    requests: AtomicU64,
    hazards: Mutex<Hazards>,
    met: Mutex<BTreeMap<&'static str, u64>>,
    dead: AtomicBool,
    death: Notify,
}

impl Fate {
    pub(super) fn new(seed: u64, hazards: Hazards) -> Self {
        Self {
            rng: Mutex::new(ChaCha8Rng::seed_from_u64(seed ^ 0x5eed_7a15)),
            requests: AtomicU64::new(0),
            hazards: Mutex::new(hazards),
            met: Mutex::default(),
            dead: AtomicBool::new(false),
            death: Notify::new(),
        }
    }

    pub(super) fn set_hazards(&self, hazards: Hazards) {
        *lock(&self.hazards) = hazards;
    }

    pub(super) fn hazards(&self) -> Hazards {
        lock(&self.hazards).clone()
    }

    pub(super) fn requested(&self) {
        self.requests.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// Counts something that went wrong.
    pub(super) fn meets(&self, what: &'static str) {
        *lock(&self.met).entry(what).or_default() += 1;
    }

    /// What went wrong so far, by kind.
    pub(super) fn met(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.met).clone()
    }

    pub(super) fn draw(&self, range: RangeInclusive<u64>) -> u64 {
        lock(&self.rng).random_range(range)
    }

    /// Whether a request kills its process.
    pub(super) fn of_request(&self, request: &Request) -> Verdict {
        if !changes_something(request) {
            return Verdict::Go;
        }
        let chance = lock(&self.hazards).crash_per_mille;
        match self.draw(0..=999) {
            draw if draw < chance => {
                self.meets("crash-before-request");
                Verdict::CrashBefore
            }
            draw if draw < 2 * chance => {
                self.meets("crash-after-request");
                Verdict::CrashAfter
            }
            _ => Verdict::Go,
        }
    }

    /// How long a request takes.
    pub(super) fn latency(&self) -> Duration {
        let (usual, slow) = {
            let hazards = lock(&self.hazards);
            (hazards.latency_ms.clone(), hazards.slow_per_mille)
        };
        if slow > 0 && self.draw(0..=999) < slow {
            self.meets("slow-answer");
            return Duration::from_millis(self.draw(5_000..=19_500));
        }
        Duration::from_millis(self.draw(usual))
    }

    /// How long a request is held up after its sender gave up, where it is.
    pub(super) fn held_up(&self, request: &Request) -> Option<Duration> {
        let chance = lock(&self.hazards).late_per_mille;
        if chance == 0 || !changes_something(request) || self.draw(0..=999) >= chance {
            return None;
        }
        self.meets("late-request");
        Some(Duration::from_millis(self.draw(0..=LATE_MAX_MS)))
    }

    /// How long a process that died stays down.
    pub(super) fn down(&self) -> Duration {
        let range = lock(&self.hazards).down_seconds.clone();
        Duration::from_secs(self.draw(range))
    }

    /// The process dies: nothing that it does from now on has an effect.
    pub(super) fn kill(&self) {
        if !self.dead.swap(true, Ordering::SeqCst) {
            self.death.notify_one();
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Runs a process's work until it ends or the process dies. `None`: it died.
    pub(super) async fn until_death<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let done = tokio::select! {
            biased;
            () = self.death.notified() => None,
            done = work => Some(done),
        };
        if self.dead.swap(false, Ordering::SeqCst) && done.is_some() {
            // What a dying process said is heard by nobody; its death is.
            self.death.notified().await;
            return None;
        }
        done
    }
}

/// Whether a request may change something at the marketplace. A native search is a POST, and
/// changes nothing.
pub(super) fn changes_something(request: &Request) -> bool {
    request.method != crate::ports::Method::Get && !request.path.starts_with("/api/v0/bundles")
}

/// A store whose process may die at any commit.
pub(super) struct FatedStore {
    inner: Box<dyn Store>,
    fate: Arc<Fate>,
}

impl FatedStore {
    pub(super) fn new(inner: Box<dyn Store>, fate: Arc<Fate>) -> Self {
        Self { inner, fate }
    }

    fn alive(&self) -> Result<(), StoreError> {
        if self.fate.is_dead() {
            return Err(StoreError::Other("the process has died".to_owned()));
        }
        Ok(())
    }

    fn dies<T>(&self, what: &'static str) -> Result<T, StoreError> {
        self.fate.meets(what);
        self.fate.kill();
        Err(StoreError::Other("the process has died".to_owned()))
    }

    /// Writes something, unless the process dies at it, before or after it is durable.
    fn write<T>(
        &mut self,
        write: impl FnOnce(&mut dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.alive()?;
        let chance = lock(&self.fate.hazards).commit_crash_per_100k;
        let draw = if chance == 0 {
            u64::MAX
        } else {
            self.fate.draw(0..=99_999)
        };
        if draw < chance {
            return self.dies("crash-before-commit");
        }
        let written = write(&mut *self.inner);
        if draw < 2 * chance {
            return self.dies("crash-after-commit");
        }
        written
    }
}

impl Store for FatedStore {
    fn load(&mut self) -> Result<State, StoreError> {
        self.alive()?;
        self.inner.load()
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.write(|store| store.commit(changes))
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<i64, StoreError> {
        self.write(|store| store.snapshot(snapshot))
    }

    fn last_snapshot(&mut self) -> Result<Option<(i64, Snapshot)>, StoreError> {
        self.alive()?;
        self.inner.last_snapshot()
    }

    fn ended_since(&mut self, from: Time) -> Result<Vec<Held>, StoreError> {
        self.alive()?;
        self.inner.ended_since(from)
    }

    fn requests(&mut self) -> Result<Vec<UserRequest>, StoreError> {
        self.alive()?;
        self.inner.requests()
    }

    fn ended(&mut self, instance: InstanceId) -> Result<Option<Held>, StoreError> {
        self.alive()?;
        self.inner.ended(instance)
    }

    fn billed(&mut self, instance: InstanceId) -> Result<BilledDays, StoreError> {
        self.alive()?;
        self.inner.billed(instance)
    }

    fn drift(&mut self, day: NaiveDate) -> Result<Vec<Drift>, StoreError> {
        self.alive()?;
        self.inner.drift(day)
    }

    fn standing(&mut self) -> Standing {
        self.inner.standing()
    }

    fn prune(&mut self, before: Time) -> Result<(), StoreError> {
        self.alive()?;
        self.inner.prune(before)
    }
}

/// The wall clock of the daemon's machine: virtual time, and how far somebody has set it off.
#[derive(Debug)]
pub(super) struct WallClock {
    inner: Arc<SimClock>,
    ahead_ms: AtomicI64,
}

impl WallClock {
    pub(super) fn new(inner: Arc<SimClock>) -> Self {
        Self {
            inner,
            ahead_ms: AtomicI64::new(0),
        }
    }

    /// Sets it so far ahead of the true time, in milliseconds; negative: behind.
    pub(super) fn set_ahead(&self, ms: i64) {
        self.ahead_ms.store(ms, Ordering::SeqCst);
    }

    pub(super) fn ahead(&self) -> i64 {
        self.ahead_ms.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Clock for WallClock {
    fn now(&self) -> Time {
        Time(self.inner.now().0 + self.ahead())
    }

    fn monotonic(&self) -> Mono {
        self.inner.monotonic()
    }

    async fn sleep_until(&self, deadline: Time) {
        let deadline = Time(deadline.0 - self.ahead());
        self.inner.sleep_until(deadline).await;
    }
}

/// The market's time. It is virtual time, and stands at an earlier moment while something of that
/// moment is done late.
#[derive(Debug)]
pub struct MarketTime {
    inner: Arc<SimClock>,
    held: AtomicI64,
}

impl MarketTime {
    /// The market's time by a clock.
    pub fn new(inner: Arc<SimClock>) -> Self {
        Self {
            inner,
            held: AtomicI64::new(i64::MAX),
        }
    }

    /// Does something at a moment that is past by the clock.
    pub(super) fn at<T>(&self, moment: Time, act: impl FnOnce() -> T) -> T {
        self.held.store(moment.0, Ordering::SeqCst);
        let done = act();
        self.held.store(i64::MAX, Ordering::SeqCst);
        done
    }
}

#[async_trait]
impl Clock for MarketTime {
    fn now(&self) -> Time {
        Time(self.held.load(Ordering::SeqCst)).min(self.inner.now())
    }

    fn monotonic(&self) -> Mono {
        self.inner.monotonic()
    }

    async fn sleep_until(&self, deadline: Time) {
        self.inner.sleep_until(deadline).await;
    }
}
