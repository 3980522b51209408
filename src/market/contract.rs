//! A rental: an account's instance, or a rival's.

use std::sync::Arc;

use super::api::CreateParams;
use super::dice::Dice;
use super::disputed::{BilledFrom, Disputed};
use super::machine::Gpus;
use super::meter::{Meter, Rates};
use crate::types::money::Rate;
use crate::types::time::Time;

/// The variable that ends a container by itself after so many seconds of running, in total over
/// interruptions. Its contract goes on, and is billed on.
pub const RUN_FOR: &str = "HAGGLE_MARKET_RUN_FOR";

/// The variable that makes an instance destroy itself after so many seconds of running.
pub const SELF_DESTROY: &str = "HAGGLE_MARKET_SELF_DESTROY";

/// A contract for some GPUs of a machine.
#[derive(Clone, Debug)]
pub(crate) struct Contract {
    /// Its id; for an account's, the instance id.
    pub(crate) id: u64,
    /// Index of the machine.
    pub(crate) machine: usize,
    /// Index of the slice.
    pub(crate) slice: usize,
    /// Its GPUs.
    pub(crate) mask: Gpus,
    /// How many.
    pub(crate) gpus: u32,
    /// The bid for the whole slice; `None`: on demand.
    pub(crate) bid: Option<Rate>,
    /// The on-demand rate agreed.
    pub(crate) on_demand: Rate,
    /// Its place in the order in which bids came, or last changed.
    pub(crate) arrived: u64,
    /// The floor when it last started or changed its bid.
    pub(crate) reserve: Rate,
    /// Whether it is meant to run.
    pub(crate) wants: bool,
    /// Whether it has its GPUs.
    pub(crate) granted: bool,
    /// Whose it is.
    pub(crate) owner: Owner,
}

/// Whose a contract is.
#[derive(Clone, Debug)]
pub(crate) enum Owner {
    /// Somebody else's.
    Rival(Rival),
    /// An account's.
    Account(Box<Task>),
}

/// How a rival behaves.
#[derive(Clone, Debug)]
pub(crate) struct Rival {
    /// Its nature.
    pub(crate) kind: RivalKind,
    /// It never bids over this.
    pub(crate) limit: Rate,
    /// Whether it raised already: each raises once at most.
    pub(crate) raised: bool,
}

/// The natures of rivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RivalKind {
    /// Bids something over the floor; some raise once.
    Plain,
    /// Another installation of the same bidder: floor plus a margin, raises once, then leaves.
    Twin,
    /// Bids above on-demand prices and stays.
    Stubborn,
    /// Rents on demand.
    Taker,
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    /// Not there yet.
    Absent,
    /// Created and nothing more.
    Created,
    /// The image is being pulled, or the container is starting.
    Loading,
    /// The image cannot be pulled; it stays loading.
    Stuck,
    /// Running.
    Running,
    /// It ended while its contract runs on.
    Ended,
    /// Its contract was stopped.
    Exited,
    /// It hangs, and is billed.
    Frozen,
}

impl Container {
    /// As the marketplace words it.
    pub(crate) fn status(self) -> Option<&'static str> {
        match self {
            Self::Absent => None,
            Self::Created => Some("created"),
            Self::Loading | Self::Stuck => Some("loading"),
            Self::Running => Some("running"),
            Self::Ended | Self::Exited => Some("exited"),
            Self::Frozen => Some("frozen"),
        }
    }
}

/// An account's instance.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    /// The account.
    pub(crate) account: u64,
    /// What was asked.
    pub(crate) params: CreateParams,
    /// The label now.
    pub(crate) label: Option<Arc<str>>,
    /// When it was made.
    pub(crate) created: Time,
    /// When it last got its GPUs.
    pub(crate) granted_at: Time,
    /// When the rental ends.
    pub(crate) ends: Time,
    /// Whether it ended.
    pub(crate) expired: bool,
    /// Whether a start is queued.
    pub(crate) queued: bool,
    /// Disk in GB.
    pub(crate) disk_gb: f64,
    /// The disk's rate while it has its GPUs.
    pub(crate) disk_rate: Rate,
    /// The disk's rate while it is stopped.
    pub(crate) stopped_disk_rate: Rate,
    /// The floor shown when it was made.
    pub(crate) floor_then: Rate,
    /// Traffic while the image is pulled, as a rate.
    pub(crate) pull_rate: Rate,
    /// When the pull of its image began, and how many milliseconds it takes.
    pub(crate) pull: Option<(Time, i64)>,
    /// Traffic while it runs, down and up, as rates.
    pub(crate) traffic: (Rate, Rate),
    /// Whether the image is there.
    pub(crate) image_ready: bool,
    /// The container.
    pub(crate) container: Container,
    /// Counts what was scheduled for the container; only the last of it happens.
    pub(crate) version: u64,
    /// The marketplace's words on it.
    pub(crate) status_msg: Option<Arc<str>>,
    /// When the container last came up; `None` while it does not run.
    pub(crate) up_since: Option<Time>,
    /// How long it ran before, in ms.
    pub(crate) ran_ms: i64,
    /// After how long running the container ends.
    pub(crate) run_for: Option<i64>,
    /// After how long running the instance destroys itself.
    pub(crate) self_destroy: Option<i64>,
    /// The key inside.
    pub(crate) api_key: String,
    /// The books.
    pub(crate) meter: Meter,
    /// Chance for what happens to it.
    pub(crate) dice: Dice,
    /// How the disputed facts are settled.
    pub(crate) facts: Disputed,
}

impl Contract {
    /// The account's instance that this is; `None` for a rival's.
    pub(crate) fn task(&self) -> Option<&Task> {
        match &self.owner {
            Owner::Account(task) => Some(task),
            Owner::Rival(_) => None,
        }
    }

    /// The same, to change it.
    pub(crate) fn task_mut(&mut self) -> Option<&mut Task> {
        match &mut self.owner {
            Owner::Account(task) => Some(task),
            Owner::Rival(_) => None,
        }
    }

    /// The account; `None` for a rival's.
    pub(crate) fn account(&self) -> Option<u64> {
        self.task().map(|task| task.account)
    }

    /// The GPUs' price while it runs: an interruptible pays its own bid.
    pub(crate) fn price(&self) -> Rate {
        self.bid.unwrap_or(self.on_demand)
    }

    /// Brings the meter up to what the contract does now.
    pub(crate) fn retune(&mut self, now: Time, online: bool) {
        let (granted, price) = (self.granted, self.price());
        if let Some(task) = self.task_mut() {
            let rates = task.rates(granted, price, online);
            task.meter.set(now, rates);
        }
    }
}

impl Task {
    /// What it costs now: GPUs while the container runs, or hangs, or ended by itself, but not
    /// while it is being made or stopped; the disk from creation to destruction; traffic as it
    /// flows; nothing of it while the host is offline. Some of this is disputed.
    fn rates(&self, granted: bool, price: Rate, online: bool) -> Rates {
        if !online {
            return Rates::default();
        }
        if !granted {
            return Rates {
                disk: self.stopped_disk_rate,
                ..Rates::default()
            };
        }
        let from_grant = self.facts.billed_from == BilledFrom::Granted;
        let billed = match self.container {
            Container::Running | Container::Frozen => true,
            Container::Ended => self.facts.ended_billed,
            _ => from_grant,
        };
        let (down, up) = match self.container {
            Container::Running => self.traffic,
            Container::Loading if !self.image_ready && self.facts.pulls_billed => {
                (self.pull_rate, Rate::ZERO)
            }
            _ => (Rate::ZERO, Rate::ZERO),
        };
        Rates {
            gpu: if billed { price } else { Rate::ZERO },
            disk: self.disk_rate,
            down,
            up,
        }
    }

    /// Milliseconds that the container ran in all.
    pub(crate) fn ran(&self, now: Time) -> i64 {
        let current = self.up_since.map_or(0, |since| now.ms_since(since).max(0));
        self.ran_ms + current
    }

    /// The container is no longer up.
    pub(crate) fn goes_down(&mut self, now: Time, container: Container) {
        self.ran_ms = self.ran(now);
        self.up_since = None;
        self.container = container;
        self.version += 1;
    }
}

/// The seconds that an environment variable of the market's own gives, in ms; what is not a whole
/// number of seconds is as good as absent.
pub(crate) fn seconds_of(env: &[(String, String)], name: &str) -> Option<i64> {
    let (_, text) = env.iter().find(|(key, _)| key == name)?;
    let seconds: i64 = text.trim().parse().ok()?;
    (0..=1_000_000_000)
        .contains(&seconds)
        .then_some(seconds * 1000)
}
