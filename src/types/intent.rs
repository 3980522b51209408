//! Intents and the ledger: what we are about to do, what it may cost, what it did cost.

use serde::{Deserialize, Serialize};

use super::ids::{InstanceId, IntentId, OfferId, ReplicaId, Slot};
use super::instance::{DestroyWhy, Rental};
use super::money::{Money, Rate};
use super::time::Time;

/// What an intent does. Everything that changes something at the marketplace is one of these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Effect {
    /// Rent an offer.
    Rent {
        /// For what.
        replica: ReplicaId,
        /// The generation that it will carry.
        generation: u32,
        /// The slot.
        slot: Slot,
        /// The row that was seen; re-read before use.
        offer: OfferId,
        /// Bid or on-demand.
        rental: Rental,
        /// The bid, or the on-demand rate that was seen and may not be exceeded.
        price: Rate,
        /// Disk to rent, GB.
        disk_gb: u32,
        /// What that disk costs per hour there.
        storage: Rate,
    },
    /// Change the bid of an instance (a cut to the parked price parks it).
    SetBid {
        /// Which.
        instance: InstanceId,
        /// The new bid for all its GPUs.
        bid: Rate,
    },
    /// Stop an on-demand instance.
    Stop {
        /// Which.
        instance: InstanceId,
    },
    /// Start a stopped on-demand instance.
    Start {
        /// Which.
        instance: InstanceId,
    },
    /// Destroy an instance.
    Destroy {
        /// Which.
        instance: InstanceId,
        /// Why.
        why: DestroyWhy,
    },
}

impl Effect {
    /// The instance it acts on; `None` for a rent.
    pub fn instance(&self) -> Option<InstanceId> {
        match *self {
            Self::Rent { .. } => None,
            Self::SetBid { instance, .. }
            | Self::Stop { instance }
            | Self::Start { instance }
            | Self::Destroy { instance, .. } => Some(instance),
        }
    }

    /// The word in tables and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Rent { .. } => "rent",
            Self::SetBid { .. } => "set-bid",
            Self::Stop { .. } => "stop",
            Self::Start { .. } => "start",
            Self::Destroy { .. } => "destroy",
        }
    }
}

/// How far an intent has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum IntentState {
    /// Recorded; the request may or may not have left.
    Open,
    /// Sent; nobody knows whether it took effect.
    Unknown {
        /// When the request ended.
        since: Time,
    },
    /// It took effect. A rent names what it made.
    Done {
        /// The instance it made or acted on.
        instance: InstanceId,
    },
    /// The marketplace refused it, or it was not sent.
    Refused {
        /// Why, in a word that can be counted.
        reason: String,
    },
    /// Proven not to have taken effect.
    Void,
}

impl IntentState {
    /// Whether it still has to be settled.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open | Self::Unknown { .. })
    }
}

/// A durable record of an effect, written before the request leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// Its id, from which the label is made.
    pub id: IntentId,
    /// When it was recorded.
    pub at: Time,
    /// What it does.
    pub effect: Effect,
    /// The most that it may cost until we can surely stop it.
    pub reserved: Money,
    /// How far it has come.
    pub state: IntentState,
}

/// What money was spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// Compute.
    Gpu,
    /// Storage.
    Disk,
    /// Bytes moved.
    Traffic,
}

impl Component {
    /// The word in tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Disk => "disk",
            Self::Traffic => "traffic",
        }
    }
}

/// What kind of ledger entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// Money set aside for an intent.
    Reserve,
    /// A reservation given back: it happened (and is accrued from now on) or it did not.
    Release,
    /// Spent, by our own reckoning.
    Accrue,
    /// The difference between the marketplace's bill and our reckoning.
    Correct,
}

/// One line of the ledger. Lines are only ever added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Time,
    /// What kind.
    pub kind: EntryKind,
    /// For which replica.
    pub replica: ReplicaId,
    /// For which intent.
    pub intent: IntentId,
    /// On which instance; `None` while there is none.
    pub instance: Option<InstanceId>,
    /// On what; `None` for reservations.
    pub component: Option<Component>,
    /// How much; negative for releases and corrections downwards.
    pub amount: Money,
}

/// One charge of the marketplace's bill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// For which instance; `None` where the row does not say.
    pub instance: Option<InstanceId>,
    /// The instance's label; `None` where the row does not say. It outlives the instance, so it says
    /// for which job was paid what no record is left of.
    pub label: Option<String>,
    /// For what; `None` where the row does not say.
    pub component: Option<Component>,
    /// From when.
    pub start: Time,
    /// Until when.
    pub end: Time,
    /// How much.
    pub amount: Money,
}
