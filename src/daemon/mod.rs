//! The daemon: one loop that polls, observes, decides, checks, records, executes and settles.
//!
//! It is written against the ports and knows no adapter, so the same code runs in life, in the
//! demo and in simulation. All that it believes is durable: a [`Change`] is committed, then applied.

mod act;
mod carry;
mod clocks;
mod data;
mod doors;
pub mod events;
mod execute;
mod glance;
pub mod heartbeat;
mod inputs;
mod inputs_need;
mod inputs_work;
mod journal;
pub mod life;
pub mod metrics;
pub mod older;
pub mod plan_searches;
mod poll;
mod record;
mod run;
mod runner;
mod settle;
mod tick;
mod verify;
pub mod watch;
pub mod web;
pub mod webhook;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

pub use poll::Polled;
pub use run::{Remaining, RunEnd};
pub use settle::{AFTER_REQUEST, APART};
pub use tick::TickView;

use crate::engine::leaks::Told;
use crate::ports::{Clock, Marketplace, ReadError, Store, StoreError};
use crate::types::ids::{AccountId, InstanceId, JobName, MachineId, OfferId, ReplicaId};
use crate::types::instance::Held;
use crate::types::job::{Job, Run, SecretRef};
use crate::types::money::Rate;
use crate::types::mutant::Mutant;
use crate::types::notification::NotificationKind;
use crate::types::offer::{OfferQuery, Snapshot};
use crate::types::schedule::Schedule;
use crate::types::state::{Change, Event, Severity, State};
use crate::types::time::{Mono, Time};
use crate::types::world::EngineConfig;

/// The policies as they are now.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    /// Valid jobs with the files that they came from.
    pub jobs: Vec<(PathBuf, Arc<Job>)>,
    /// Files that could not be read, with the job's name where it was legible, and what is wrong.
    pub broken: Vec<BrokenPolicy>,
}

/// A policy file that cannot be used.
#[derive(Clone, Debug)]
pub struct BrokenPolicy {
    /// Which file.
    pub path: PathBuf,
    /// Its job, where that much could be read.
    pub job: Option<JobName>,
    /// What is wrong, in a line.
    pub message: String,
}

/// Where policies come from; asked at each tick, so that edits are taken up.
pub trait Policies: Send {
    /// The policies as they are now.
    fn load(&mut self) -> PolicySet;
}

/// Where secrets come from; asked when a request needs one, so that none is kept.
pub trait Secrets: Send {
    /// The secret, or why it cannot be had. The reason never holds the secret.
    fn resolve(&self, reference: &SecretRef) -> Result<SecretString, String>;
}

/// Which secrets of a job cannot be read, where they were looked for, and what would be right; `None`: all
/// can. No secret is kept.
pub fn unreadable_secrets(secrets: &dyn Secrets, run: &Run) -> Option<String> {
    let places = run.secret_places().into_iter();
    let unread: Vec<String> = places
        .filter_map(|(name, place)| {
            let why = secrets.resolve(place).err()?;
            Some(format!("its secret `{name}` cannot be read: {why}"))
        })
        .collect();
    (!unread.is_empty()).then(|| {
        format!(
            "{}; set it where `haggle run` is started, or let the policy name a file that haggle can read",
            unread.join("; ")
        )
    })
}

/// When to poll.
#[derive(Clone, Debug)]
pub enum Pace {
    /// At intervals of the engine's `poll_every`.
    Every,
    /// By a cron expression.
    Cron(Schedule),
}

impl Pace {
    /// How long until the next poll after one that began at `now`; none: there is no further one.
    pub fn next_within(&self, now: Time, poll_every: Duration) -> Duration {
        match self {
            Self::Every => poll_every,
            Self::Cron(schedule) => schedule
                .next_after(now)
                .map_or(Duration::ZERO, |next| next.since(now)),
        }
    }
}

/// What the daemon is told beside the ports.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The engine's configuration.
    pub engine: EngineConfig,
    /// Whether actions are carried out; a dry run stops after the check.
    pub live: bool,
    /// When to poll.
    pub pace: Pace,
    /// The seed of everything random.
    pub seed: u64,
    /// What is looked at between polls, and beside what the jobs need.
    pub looking: Looking,
}

/// What is looked at between polls, and beside what the jobs need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looking {
    /// Time between two looks at the instances while something of ours is held or being rented.
    pub instances_every: Duration,
    /// Time between two searches for history; `None`: none are made.
    pub history_every: Option<Duration>,
    /// For how long history is kept; the ledger always is.
    pub history_kept: Duration,
    /// Time between two looks for what the user asks through another process.
    pub requests_every: Duration,
}

impl Default for Looking {
    fn default() -> Self {
        Self {
            instances_every: Duration::from_secs(15),
            history_every: Some(Duration::from_mins(5)),
            history_kept: Duration::from_hours(90 * 24),
            requests_every: Duration::from_secs(10),
        }
    }
}

/// Why the daemon stops.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// What is durable cannot be written or read: spending stops.
    #[error("spending stops: {0}")]
    Store(#[from] StoreError),
    /// The marketplace refused the token before anything was known.
    #[error("{0}")]
    Token(ReadError),
    /// The token is of another account.
    #[error(
        "the token belongs to account {found}, but this database is bound to account {pinned}; nothing was done"
    )]
    OtherAccount {
        /// Whose the token is.
        found: AccountId,
        /// Whose the database is.
        pinned: AccountId,
    },
    /// The marketplace cannot be reached, and the caller does not want to wait.
    #[error("{0}")]
    Unreachable(ReadError),
}

/// Follows what the daemon does: metrics, the page, the demo's story.
pub trait Observer: Send {
    /// Changes were made durable and are believed.
    fn committed(&mut self, changes: &[Change]) {
        let _ = changes;
    }
    /// The marketplace told of something; what became of it is a word of a closed set.
    fn notified(&mut self, way: events::Way, kind: NotificationKind, outcome: &'static str) {
        let _ = (way, kind, outcome);
    }
    /// A tick began so long after the first urgent notification that it takes up.
    fn woken(&mut self, after: Duration) {
        let _ = after;
    }
    /// The last lines of an instance's log were read.
    fn logged(&mut self, held: &Held, log: &[u8]) {
        let _ = (held, log);
    }
    /// The store fails, and the daemon waits for it; `None`: it works again.
    fn store_failed(&mut self, error: Option<&StoreError>) {
        let _ = error;
    }
    /// A tick was decided and carried out.
    fn ticked(&mut self, view: &TickView<'_>) {
        let _ = view;
    }
}

/// The parts that a daemon is made of.
pub struct Parts {
    /// The marketplace.
    pub marketplace: Arc<dyn Marketplace>,
    /// The store.
    pub store: Box<dyn Store>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The policies.
    pub policies: Box<dyn Policies>,
    /// The secrets.
    pub secrets: Box<dyn Secrets>,
    /// The secret from which the keys are made with which runners sign.
    pub run_secret: SecretString,
    /// Who follows.
    pub observers: Vec<Box<dyn Observer>>,
}

/// The daemon.
pub struct Daemon {
    parts: Parts,
    settings: Settings,
    state: State,
    settle: settle::Settle,
    market: Arc<Snapshot>,
    snapshot_id: Option<i64>,
    /// Searches in a row that came back empty although the last full answer was not.
    empty_streak: BTreeMap<OfferQuery, u32>,
    /// Listings in a row that were empty although something of ours may exist.
    empties: poll::Empties,
    /// The instances that are not ours in the last listing that was believed, and since.
    others_listed: BTreeSet<InstanceId>,
    /// What is known of the searches made.
    searches: plan_searches::Searches,
    /// Whether this process has searched before.
    has_searched: bool,
    /// When each row of the market was last in an answer of this process.
    seen: BTreeMap<OfferId, Time>,
    /// What the listing showed last, and when something was looked at.
    sight: glance::Sight,
    looked_at: Option<Time>,
    mailbox: Arc<events::Mailbox>,
    spacing: events::Spacing,
    hints: events::Hints,
    /// Which job a policy file held when it could last be read.
    known_policies: BTreeMap<PathBuf, Arc<Job>>,
    /// The cheapest eligible on-demand landed rate per useful GPU-hour, by job, at the last tick.
    on_demand: BTreeMap<JobName, Rate>,
    /// Notices told already, so that each is told once.
    told: BTreeSet<String>,
    /// When each leak was told of last.
    leaks_told: Told,
    /// What was read of the account's credit of late.
    credit_history: crate::engine::runway::CreditHistory,
    /// Set while the daemon takes its instances down for good.
    wind_down: bool,
    /// The account refused to spend: nothing is rented before this.
    account_waits_until: Option<Time>,
    last_reconcile: Option<Time>,
    /// Whether the last poll could read whose account it is.
    account_read: bool,
    /// Whether this process has compared the books with the bill.
    has_reconciled: bool,
    /// Set while the database may be older than what was done with it.
    comparing: Option<older::Comparing>,
    /// Whether this process has had a complete listing.
    has_listed: bool,
    /// When each instance was last looked at and did what it is known to do.
    unchanged: BTreeMap<InstanceId, Time>,
    /// Instances that a look showed running, and that no tick knows to have run: the listing that a tick
    /// reads may be older than the look, and its disk is not to pass for one without work.
    ran: BTreeSet<InstanceId>,
    /// When this process last tried to read the log of each.
    logs_tried: BTreeMap<InstanceId, Mono>,
    /// What says by how much the wall clock was set back.
    clocks: clocks::Clocks,
    /// When this process published what an instance's run may read and write, and what that names.
    published: BTreeMap<InstanceId, data::Published>,
    /// When it was told last that a job's storage does not work.
    storage_told: BTreeMap<(JobName, Option<ReplicaId>), Mono>,
    /// When a job's storage last failed.
    storage_failed: BTreeMap<JobName, Mono>,
    /// When a replica's storage last did not have what it is to begin with.
    storage_lacks: BTreeMap<ReplicaId, Mono>,
    /// What makes inputs ready.
    stager: inputs::Stager,
    /// On which machine a rent for an element of an array was refused as invalid, since one was made for it;
    /// `None`: on several.
    invalid_on: BTreeMap<ReplicaId, Option<MachineId>>,
}

impl Daemon {
    /// A daemon that knows what its store knows. Intents that a dead process left open are taken
    /// as unknown: the request may have left.
    pub fn new(mut parts: Parts, settings: Settings) -> Result<Self, DaemonError> {
        let state = parts.store.load()?;
        let (snapshot_id, market) = match parts.store.last_snapshot()? {
            Some((id, snapshot)) => (Some(id), snapshot),
            None => (None, Snapshot::default()),
        };
        let mut daemon = Self {
            parts,
            settings,
            state,
            settle: settle::Settle::default(),
            logs_tried: BTreeMap::new(),
            market: Arc::new(market),
            snapshot_id,
            empty_streak: BTreeMap::new(),
            empties: poll::Empties::default(),
            others_listed: BTreeSet::new(),
            searches: plan_searches::Searches::default(),
            has_searched: false,
            seen: BTreeMap::new(),
            sight: glance::Sight::default(),
            looked_at: None,
            mailbox: Arc::default(),
            spacing: events::Spacing::default(),
            hints: events::Hints::default(),
            known_policies: BTreeMap::new(),
            on_demand: BTreeMap::new(),
            told: BTreeSet::new(),
            leaks_told: Told::new(),
            credit_history: crate::engine::runway::CreditHistory::default(),
            wind_down: false,
            account_waits_until: None,
            last_reconcile: None,
            has_reconciled: false,
            account_read: false,
            comparing: None,
            has_listed: false,
            unchanged: BTreeMap::new(),
            ran: BTreeSet::new(),
            clocks: clocks::Clocks::default(),
            published: BTreeMap::new(),
            storage_told: BTreeMap::new(),
            storage_failed: BTreeMap::new(),
            storage_lacks: BTreeMap::new(),
            stager: inputs::Stager::default(),
            invalid_on: BTreeMap::new(),
        };
        daemon.remember_bids();
        daemon.recover()?;
        daemon.look_for_loss()?;
        Ok(daemon)
    }

    /// What is known now.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The market as last seen.
    pub fn market(&self) -> &Snapshot {
        &self.market
    }

    /// The seed of everything random.
    pub fn seed(&self) -> u64 {
        self.settings.seed
    }

    fn now(&self) -> Time {
        self.parts.clock.now()
    }

    /// Whether simulation asks for a mistake.
    fn makes_mistake(&self, mutant: Mutant) -> bool {
        self.settings.engine.mutant == Some(mutant)
    }

    /// Makes changes durable, then believes them.
    fn commit(&mut self, changes: &[Change]) -> Result<(), DaemonError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.parts.store.commit(changes)?;
        for change in changes {
            self.state.apply(change);
            if let Change::Event(event) = change {
                log_event(event);
            }
        }
        for observer in &mut self.parts.observers {
            observer.committed(changes);
        }
        Ok(())
    }
}

fn log_event(event: &Event) {
    let replica = event
        .replica
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    let instance = event.instance.map(|id| id.0);
    match event.severity {
        Severity::Info => {
            tracing::info!(kind = %event.kind, %replica, instance, "{}", event.text);
        }
        Severity::Warning => {
            tracing::warn!(kind = %event.kind, %replica, instance, "{}", event.text);
        }
        Severity::Alarm => {
            tracing::error!(kind = %event.kind, %replica, instance, "{}", event.text);
        }
    }
}
