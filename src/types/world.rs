//! Everything one decision may look at, in one value.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::instance::{Account, Listing};
use super::job::{Job, Run};
use super::ledger::Scope;
use super::limit::Bounds;
use super::money::{Money, Rate};
use super::mutant::Mutant;
use super::offer::Snapshot;
use super::plan::Limit;
use super::state::State;
use super::time::Time;

/// The engine's configuration: what bounds a decision beside the jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineConfig {
    /// Time between polls.
    pub poll_every: Duration,
    /// From deciding to the request having its effect.
    pub reaction: Duration,
    /// Time that one mutation takes in the queue, by the marketplace's intervals.
    pub request_interval: Duration,
    /// How long we may be cut off from the marketplace without a limit being passed.
    pub outage_allowance: Duration,
    /// From sending a destroy or a stop to proof that it took: until then it may still be billed.
    #[serde(default = "settle_allowance")]
    pub settle_allowance: Duration,
    /// Credit that is never touched.
    pub credit_reserve: Money,
    /// Most instances at once, parked ones included.
    pub instances_max: u32,
    /// Most new rentals in a tick.
    pub rents_per_tick_max: u32,
    /// The account's own cap, for a calendar day.
    pub per_day: Option<Money>,
    /// The account's own cap, for a calendar month.
    #[serde(default)]
    pub per_month: Option<Money>,
    /// The account's own cap on the sum of rates.
    pub per_hour: Option<Rate>,
    /// Most GPUs at once over all instances, those of parked ones not counted.
    #[serde(default)]
    pub gpus_max: Option<u32>,
    /// Nothing new is spent where the credit less its reserve lasts for less than this.
    #[serde(default)]
    pub min_runway: Option<Duration>,
    /// What owners and tags are held to.
    #[serde(default)]
    pub groups: BTreeMap<Scope, Bounds>,
    /// Days begin here.
    pub timezone: Tz,
    /// Snapshots older than this are not rented from.
    pub offers_max_age: Duration,
    /// First cooling of a machine after a failure; doubles with each.
    pub cooldown: Duration,
    /// Longest cooling.
    pub cooldown_max: Duration,
    /// How long a host may be unheard of before its instance is given up.
    pub offline_patience: Duration,
    /// Whether nothing is rented that needs a secret: what is sent goes through a third party, and
    /// the user has not agreed that it sees secrets.
    #[serde(default)]
    pub withhold_secrets: bool,
    /// Whether the way to the marketplace shows no logs of instances, by which runners are heard.
    #[serde(default)]
    pub shows_no_logs: bool,
    /// A mistake that is made on purpose, for simulation to find. Never read nor written.
    #[serde(skip)]
    pub mutant: Option<Mutant>,
}

/// Two minutes until a listing counts as evidence, and half a minute between the two that prove an
/// absence.
fn settle_allowance() -> Duration {
    Duration::from_secs(150)
}

impl Default for EngineConfig {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        Self {
            poll_every: Duration::from_secs(MINUTE),
            reaction: Duration::from_secs(30),
            request_interval: Duration::from_millis(5500),
            outage_allowance: Duration::from_secs(30 * MINUTE),
            settle_allowance: settle_allowance(),
            credit_reserve: Money::dollars(1),
            instances_max: 32,
            rents_per_tick_max: 8,
            per_day: None,
            per_month: None,
            per_hour: None,
            gpus_max: None,
            min_runway: None,
            groups: BTreeMap::new(),
            timezone: Tz::UTC,
            offers_max_age: Duration::from_secs(10 * MINUTE),
            cooldown: Duration::from_secs(10 * MINUTE),
            cooldown_max: Duration::from_secs(24 * 60 * MINUTE),
            offline_patience: Duration::from_secs(15 * MINUTE),
            withhold_secrets: false,
            shows_no_logs: false,
            mutant: None,
        }
    }
}

/// Why nothing is rented for a job, whatever the market has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptBack {
    /// It needs secrets, which may not go through the gateway.
    Secrets,
    /// Its runner could not be heard: where it ended, nobody would know.
    Unheard,
}

impl KeptBack {
    /// The word in tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secrets => "secrets-withheld",
            Self::Unheard => "runner-unheard",
        }
    }

    /// As a limit that an action may not pass.
    pub fn limit(self) -> Limit {
        match self {
            Self::Secrets => Limit::Consent,
            Self::Unheard => Limit::Unheard,
        }
    }

    /// Why, and what would be right.
    pub fn text(self) -> &'static str {
        match self {
            Self::Secrets => {
                "it needs secrets, which would go through the gateway; allow it with \
                 provider.share_job_secrets = true, or use provider.kind = \"vast\", which needs no \
                 third party"
            }
            Self::Unheard => {
                "it is supervised, and the gateway shows no logs, by which its runner is heard; use \
                 provider.kind = \"vast\", or give its command without run.supervised"
            }
        }
    }
}

impl EngineConfig {
    /// Whether what a job runs may not be sent: it needs secrets, which are withheld.
    pub fn withholds(&self, run: &Run) -> bool {
        self.withhold_secrets && run.has_secrets()
    }

    /// Why nothing is rented for what a job runs, whatever the market has; `None`: it may be.
    pub fn keeps_back(&self, run: &Run) -> Option<KeptBack> {
        if self.withholds(run) {
            Some(KeptBack::Secrets)
        } else if self.shows_no_logs && run.runner.is_some() {
            Some(KeptBack::Unheard)
        } else {
            None
        }
    }

    /// The time that a reservation covers: until the next poll, the reaction to it, the queue of
    /// `queued` requests before ours, an outage, and until a poll proves that the destroy took.
    pub fn horizon(&self, queued: u32) -> Duration {
        if self.mutant == Some(Mutant::ReservationSkipped) {
            return Duration::ZERO;
        }
        let queue = self
            .request_interval
            .saturating_mul(queued.saturating_add(1));
        self.poll_every
            .saturating_add(self.reaction)
            .saturating_add(queue)
            .saturating_add(self.outage_allowance)
            .saturating_add(self.settling())
    }

    /// How long something that was asked to end may yet be billed: until that is settled, which a
    /// poll sees.
    pub fn settling(&self) -> Duration {
        self.settle_allowance.saturating_add(self.poll_every)
    }
}

/// The input of a decision. Equal worlds give equal plans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct World {
    /// The wall clock, read once for the tick.
    pub now: Time,
    /// Drives what is random, such as jitter; from the installation's seed and the tick.
    pub seed: u64,
    /// The configuration.
    pub config: EngineConfig,
    /// The jobs whose policies are valid, by priority (highest first), then name.
    pub jobs: Vec<Arc<Job>>,
    /// Jobs whose policy file is there but cannot be read: nothing is begun for them, and they are
    /// left as they are while no limit calls for more.
    pub unreadable_jobs: Vec<super::ids::JobName>,
    /// What the policies of those jobs last said, as far as it is known: their budgets go on to bind.
    #[serde(default)]
    pub last_policies: Vec<Arc<Job>>,
    /// Jobs that have secrets which cannot be read: which, where they were looked for, and what would be
    /// right, in words. Nothing is rented for them.
    #[serde(default)]
    pub unreadable_secrets: BTreeMap<super::ids::JobName, String>,
    /// What was known before this poll, with this poll's observations taken up.
    pub state: State,
    /// The market as last seen, with its coverage. Left out of the journal; its number is kept.
    #[serde(skip)]
    pub market: Arc<Snapshot>,
    /// Our and others' instances as this poll saw them. `None`: the listing failed; unknown.
    pub listing: Option<Listing>,
    /// The account. `None`: unreadable; nothing to spend.
    pub account: Option<Account>,
    /// The credit as it was read last. New spending goes by the account's, which may be less: a rise waits
    /// to be confirmed. What has to be wound down goes by this: one old answer ends nothing for long. `None`:
    /// the same.
    #[serde(default)]
    pub credit_read: Option<Money>,
    /// How fast the account's credit has fallen of late, whoever spent it. `None`: not observed for
    /// long enough to say.
    #[serde(default)]
    pub credit_slope: Option<Rate>,
    /// Whether the marketplace takes bids through this route.
    pub can_bid: bool,
    /// Whether nothing new may be rented, whatever the jobs want (shutting down, store failing).
    pub wind_down: bool,
}

impl World {
    /// The policies whose limits bind: those that can be read, and what the others last said.
    pub fn binding_jobs(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs.iter().chain(&self.last_policies)
    }

    /// What a job's policy says, or last said.
    pub fn known_job(&self, name: &super::ids::JobName) -> Option<&Arc<Job>> {
        self.binding_jobs().find(|job| job.name == *name)
    }
}
