//! Intents: what we are about to do and what it may cost; and the rows of the bill.

use chrono::NaiveDate;
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::ids::{InstanceId, IntentId, OfferId, ReplicaId, Slot, Tail};
use super::instance::{DestroyWhy, Rental};
use super::ledger::Component;
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
        /// The instance that it is to go on from: it waits behind its gate for that one's checkpoint.
        #[serde(default)]
        from: Option<InstanceId>,
        /// What a GB costs down and up there, as that offer says; `None`: it does not.
        #[serde(default)]
        traffic: Option<(Money, Money)>,
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
    /// Say by an instance's label what its runner may do.
    Relabel {
        /// Which.
        instance: InstanceId,
        /// The label's new tail.
        tail: Tail,
    },
    /// Copy the checkpoint that another instance left on its disk.
    Copy {
        /// Where to.
        instance: InstanceId,
        /// Where from.
        from: InstanceId,
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
            | Self::Relabel { instance, .. }
            | Self::Copy { instance, .. }
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
            Self::Relabel { .. } => "relabel",
            Self::Copy { .. } => "copy",
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

impl Charge {
    /// The day in UTC that it is of: charge rows are of one day each, and name its beginning or, in
    /// the older format, the moment of its end. It does not depend on any setting, so that a row is
    /// the same row whoever reads it.
    pub fn day(&self) -> NaiveDate {
        let at = if self.end > self.start {
            self.start
        } else {
            // The end of a day is the first moment of the next.
            Time(self.start.0.saturating_sub(1))
        };
        at.day(Tz::UTC)
    }
}
