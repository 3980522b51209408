//! The loop: tick, sleep, tick, until told to end; then settle and say what goes on billing.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::{Daemon, DaemonError, Pace};
use crate::ports::{ReadError, StoreError};
use crate::types::ids::InstanceId;
use crate::types::instance::{DestroyWhy, Held, Phase, Rental};
use crate::types::intent::Effect;
use crate::types::money::{BID_PARKED, Money, Rate};
use crate::types::plan::{Action, Why};
use crate::types::state::Change;
use crate::types::time::{Mono, Time, human};

/// On shutdown, open intents are settled for this long.
const SETTLE_ON_SHUTDOWN: Duration = Duration::from_secs(30);

/// Between two looks while settling.
const SETTLE_EVERY: Duration = Duration::from_secs(5);

/// Between two looks while everything is being destroyed.
const DESTROY_EVERY: Duration = Duration::from_secs(20);

/// A store that failed is tried again after this, then after twice as long, and so on.
const STORE_AGAIN: Duration = Duration::from_secs(1);

/// And at least this often.
const STORE_AGAIN_MAX: Duration = Duration::from_secs(30);

/// A store that fails for so long ends the daemon: somebody has to look, and a supervisor may start
/// it again.
pub(super) const STORE_PATIENCE: Duration = Duration::from_mins(10);

/// When the store was last tried, in what is kept beside the wire.
const STORE_TRIED_KEY: &str = "store.tried";

/// That the store failed and works again is told at most once in this time.
const STORE_TOLD_EVERY: Duration = Duration::from_mins(10);

/// What a run remembers from tick to tick.
#[derive(Default)]
struct Seen {
    /// Whether a tick was made.
    ticked: bool,
    /// What could not be read in the last one.
    unread: BTreeSet<String>,
    /// The store fails, and no tick could be recorded since.
    trouble: Option<Trouble>,
    /// When an end of such a time was told last.
    trouble_told: Option<Mono>,
}

/// A store that fails.
struct Trouble {
    /// Since when, by the monotonic clock.
    since: Mono,
    /// It is tried again after this.
    wait: Duration,
    /// How it failed last.
    error: String,
}

/// An instance that goes on billing after the daemon ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Which.
    pub instance: InstanceId,
    /// Of which replica.
    pub replica: String,
    /// In what state.
    pub phase: Phase,
    /// What it may cost per hour.
    pub rate: Rate,
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunEnd {
    /// What goes on billing.
    pub remaining: Vec<Remaining>,
    /// Intents that could not be settled in time; the next start does.
    pub unsettled: usize,
}

impl Daemon {
    /// Ticks until `shutdown` is ready or `until` is reached. A tick that has begun is finished:
    /// what it has sent has to be recorded.
    pub async fn run(
        &mut self,
        until: Option<Time>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), DaemonError> {
        tokio::pin!(shutdown);
        self.clocks.take_over();
        let mut seen = Seen::default();
        loop {
            match self.round(&mut seen, until, shutdown.as_mut()).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(DaemonError::Store(error)) if error.may_pass() => {
                    if !self.outlast(error, &mut seen, shutdown.as_mut()).await? {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One tick and the wait for the next; whether there is a next.
    async fn round(
        &mut self,
        seen: &mut Seen,
        until: Option<Time>,
        mut shutdown: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Result<bool, DaemonError> {
        let failures = self.tick().await?;
        self.has_overcome(seen)?;
        // Where something is ours it is not left alone for one answer: a key may be refused for
        // a moment, and what is rented goes on billing. And one that read the account is good:
        // it is something else that was refused.
        let ours = !self.state.held.is_empty() || !self.state.intents.is_empty();
        if !seen.ticked
            && !ours
            && !self.account_read
            && let Some(error) = refused_token(&failures)
        {
            return Err(DaemonError::Token(error));
        }
        seen.ticked = true;
        seen.unread = tell_unread(&seen.unread, &failures);
        let now = self.now();
        let Some(next) = self.next_tick(now) else {
            tracing::warn!("the poll schedule has no further run; the daemon ends");
            return Ok(false);
        };
        if until.is_some_and(|until| next >= until) {
            return Ok(false);
        }
        let sleep = self.sleep(next);
        tokio::select! {
            biased;
            () = &mut shutdown => Ok(false),
            slept = sleep => slept.map(|()| true),
        }
    }

    /// The store failed, and nothing can be recorded: so nothing is sent, and the store is tried
    /// again, less and less often, until a whole tick could be recorded or [`STORE_PATIENCE`] is
    /// over: a disk that takes a line may still not take a tick. Whether the daemon goes on; an
    /// error where the store did not recover.
    ///
    /// What is durable is believed and nothing else, as a new process would: a transaction whose
    /// end was not heard of may have been made, and a request whose outcome could not be recorded
    /// is unknown.
    async fn outlast(
        &mut self,
        mut error: StoreError,
        seen: &mut Seen,
        mut shutdown: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Result<bool, DaemonError> {
        let mono = self.parts.clock.monotonic();
        let trouble = seen.trouble.get_or_insert_with(|| {
            tracing::error!(
                "spending stops: {error}; what is rented goes on billing, and nothing is sent until \
                 the database can be written again"
            );
            Trouble {
                since: mono,
                wait: STORE_AGAIN,
                error: String::new(),
            }
        });
        loop {
            trouble.error = error.to_string();
            for observer in &mut self.parts.observers {
                observer.store_failed(Some(&error));
            }
            let failed_for = self.parts.clock.monotonic().since(trouble.since);
            if failed_for >= STORE_PATIENCE {
                return Err(DaemonError::Store(error));
            }
            let again = self.now() + trouble.wait;
            tokio::select! {
                biased;
                () = &mut shutdown => return Ok(false),
                () = self.parts.clock.sleep_until(again) => {}
            }
            trouble.wait = (trouble.wait * 2).min(STORE_AGAIN_MAX);
            match self.begin_again() {
                Ok(()) => return Ok(true),
                Err(DaemonError::Store(next)) if next.may_pass() => error = next,
                Err(error) => return Err(error),
            }
        }
    }

    /// Begins from what is durable. A line that takes no room of its own shows that the store takes
    /// writes again, before anything is asked of the marketplace.
    fn begin_again(&mut self) -> Result<(), DaemonError> {
        self.state = self.parts.store.load()?;
        self.recover()?;
        self.commit(&[Change::Wire {
            key: STORE_TRIED_KEY.to_owned(),
            value: Some(self.now().0.to_string()),
        }])
    }

    /// A tick was recorded: where the store had failed before it, that is over. It is told at most
    /// once in [`STORE_TOLD_EVERY`], for a disk that is nearly full fails again and again.
    fn has_overcome(&mut self, seen: &mut Seen) -> Result<(), DaemonError> {
        let Some(trouble) = &seen.trouble else {
            return Ok(());
        };
        let mono = self.parts.clock.monotonic();
        let text = format!(
            "the database failed for {} and works again ({})",
            human(mono.since(trouble.since)),
            trouble.error
        );
        let due = |told| mono.since(told) >= STORE_TOLD_EVERY;
        if seen.trouble_told.is_none_or(due) {
            let event = self.warn("store-failed", text, None);
            self.commit(&[event])?;
            seen.trouble_told = Some(mono);
        } else {
            tracing::warn!("{text}");
        }
        seen.trouble = None;
        for observer in &mut self.parts.observers {
            observer.store_failed(None);
        }
        Ok(())
    }

    fn next_tick(&self, now: Time) -> Option<Time> {
        match &self.settings.pace {
            Pace::Every => Some(now + self.settings.engine.poll_every),
            Pace::Cron(schedule) => schedule.next_after(now),
        }
    }

    /// Sleeps until the next tick is due: at `next`, or earlier where the user asks for something,
    /// the marketplace tells of something urgent, or a look at the instances shows that something
    /// changed.
    async fn sleep(&mut self, mut next: Time) -> Result<(), DaemonError> {
        let mut early = false;
        // By both clocks: one that is set back must not leave what is rented alone until it has
        // caught up.
        let mut due_at = self.parts.clock.monotonic() + next.since(self.now());
        loop {
            let now = self.now();
            if now >= next || self.parts.clock.monotonic() >= due_at {
                if early {
                    self.spacing.take(self.parts.clock.monotonic());
                }
                return Ok(());
            }
            let look = self.next_look(now);
            let until = look.map_or(next, |look| next.min(look.max(now)));
            let until = until.min(now + self.settings.looking.requests_every);
            let mailbox = Arc::clone(&self.mailbox);
            let told = tokio::select! {
                biased;
                () = mailbox.urgent() => true,
                () = self.parts.clock.sleep_until(until) => false,
            };
            if self.has_requests()? {
                return Ok(());
            }
            let due = look.is_some_and(|look| self.now() >= look);
            if told || (due && self.look_for_changes().await) {
                early = true;
                let mono = self.parts.clock.monotonic();
                let wait = self.spacing.wait(mono);
                next = next.min(self.now() + wait);
                due_at = due_at.min(mono + wait);
            }
        }
    }

    /// Ends a run: settles for a while, leaves running instances, parks bids that are stopped (or
    /// they could resume with nobody watching), and says what goes on billing.
    pub async fn shut_down(&mut self) -> Result<RunEnd, DaemonError> {
        if self.settings.live {
            self.park_the_stopped().await?;
            let deadline = self.now() + SETTLE_ON_SHUTDOWN;
            while !self.state.intents.is_empty() && self.now() < deadline {
                self.look().await?;
                let next = self.now() + SETTLE_EVERY;
                self.parts.clock.sleep_until(next).await;
            }
        }
        Ok(self.end())
    }

    /// What goes on billing if the daemon ends now.
    pub fn end(&self) -> RunEnd {
        let remaining = |held: &Held| Remaining {
            instance: held.id,
            replica: held.replica.to_string(),
            phase: held.phase,
            rate: held.worst_rate(),
        };
        RunEnd {
            remaining: self.state.held.values().map(remaining).collect(),
            unsettled: self.state.intents.len(),
        }
    }

    async fn park_the_stopped(&mut self) -> Result<(), DaemonError> {
        let stopped: Vec<Held> = self
            .state
            .held
            .values()
            .filter(|held| {
                held.phase == Phase::Stopped
                    && held.rental == Rental::Bid
                    && held.destroying.is_none()
                    && held.price > BID_PARKED
            })
            .cloned()
            .collect();
        for held in stopped {
            let action = Action {
                replica: Some(held.replica.clone()),
                effect: Effect::SetBid {
                    instance: held.id,
                    bid: BID_PARKED,
                },
                why: Why::UserRequest,
                reserve: Money::ZERO,
                parts: None,
                on_demand_seen: None,
            };
            self.carry_out_one(&action).await?;
        }
        Ok(())
    }

    /// Destroys everything of ours and waits until that is settled, for at most `patience`. Every
    /// destroy is repeated until it takes.
    pub async fn destroy_all(&mut self, patience: Duration) -> Result<RunEnd, DaemonError> {
        self.wind_down = true;
        let deadline = self.now() + patience;
        loop {
            let held: Vec<InstanceId> = self.state.held.keys().copied().collect();
            for instance in held {
                let due = |held: &Held| {
                    let waited = |sent| self.now().since(sent) >= super::AFTER_REQUEST;
                    held.destroy_sent_at.is_none_or(waited)
                };
                let again = self.state.held.get(&instance).is_some_and(due);
                if again && !self.settle.seems_gone(instance) {
                    self.destroy(instance, DestroyWhy::Exit).await?;
                }
            }
            let next = self.now() + DESTROY_EVERY;
            self.parts.clock.sleep_until(next).await;
            self.look().await?;
            let settled = self.state.held.is_empty() && self.state.intents.is_empty();
            if settled || self.now() >= deadline {
                return Ok(self.end());
            }
        }
    }
}

/// A token that is refused before anything is known is the user's to mend.
fn refused_token(failures: &[ReadError]) -> Option<ReadError> {
    failures
        .iter()
        .find(|error| matches!(error, ReadError::Unauthorized { .. }))
        .cloned()
}

/// Says what could not be read, once for as long as the reason stays the same, and when all can be
/// read again.
fn tell_unread(told: &BTreeSet<String>, failures: &[ReadError]) -> BTreeSet<String> {
    let unread: BTreeSet<String> = failures.iter().map(ToString::to_string).collect();
    for reason in unread.difference(told) {
        tracing::warn!("{reason}; what was not read is unknown, the next poll tries again");
    }
    if unread.is_empty() && !told.is_empty() {
        tracing::info!("the marketplace can be read again");
    }
    unread
}
