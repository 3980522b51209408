//! What the marketplace tells of by itself: its inbox and its webhooks. Evidence, never the truth:
//! the listing decides what is.

use serde::{Deserialize, Serialize};

use super::ids::{InstanceId, MachineId};
use super::money::Rate;
use super::time::Time;

/// What a notification is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotificationKind {
    /// A higher bid took an instance's GPUs.
    Outbid,
    /// An instance was made.
    Created,
    /// An instance started.
    Started,
    /// An instance stopped.
    Stopped,
    /// A paused instance runs again.
    Resumed,
    /// An instance was deleted.
    Deleted,
    /// A host went away.
    Offline,
    /// A host came back.
    Online,
    /// Something failed on the host.
    Error,
    /// Maintenance or downtime is planned.
    Maintenance,
    /// A rental ends soon.
    Expiring,
    /// A rental's end was moved.
    Extended,
    /// A host asks for more.
    PriceIncrease,
    /// The credit runs out.
    LowCredit,
    /// A payment failed.
    PaymentFailed,
    /// Anything else.
    Other,
}

impl NotificationKind {
    /// The word in events and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbid => "outbid",
            Self::Created => "created",
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Resumed => "resumed",
            Self::Deleted => "deleted",
            Self::Offline => "offline",
            Self::Online => "online",
            Self::Error => "error",
            Self::Maintenance => "maintenance",
            Self::Expiring => "expiring",
            Self::Extended => "extended",
            Self::PriceIncrease => "price-increase",
            Self::LowCredit => "low-credit",
            Self::PaymentFailed => "payment-failed",
            Self::Other => "other",
        }
    }

    /// The kind that the marketplace's word means: `outbid`, `instance_stopped`, also with what a
    /// subscription puts before it, `client:outbid`. Few of the words are documented, so that each
    /// is taken by what it speaks of; one that says nothing known is [`Self::Other`].
    pub fn from_word(word: &str) -> Self {
        let word = word.rsplit(':').next().unwrap_or(word).to_ascii_lowercase();
        let speaks_of = |part: &str| word.contains(part);
        let known = [
            ("outbid", Self::Outbid),
            ("price_increase", Self::PriceIncrease),
            ("low_credit", Self::LowCredit),
            ("billing_failed", Self::PaymentFailed),
            ("payment_failed", Self::PaymentFailed),
            ("maintenance", Self::Maintenance),
            ("downtime", Self::Maintenance),
            ("extended", Self::Extended),
            ("expir", Self::Expiring),
            ("created", Self::Created),
            ("started", Self::Started),
            ("stopped", Self::Stopped),
            ("resumed", Self::Resumed),
            ("deleted", Self::Deleted),
            ("destroyed", Self::Deleted),
            ("offline", Self::Offline),
            ("online", Self::Online),
            ("error", Self::Error),
        ];
        let found = known.into_iter().find(|(part, _)| speaks_of(part));
        found.map_or(Self::Other, |(_, kind)| kind)
    }

    /// Whether it may change what is to be done, so that waiting for the next poll would cost.
    pub fn is_urgent(self) -> bool {
        !matches!(
            self,
            Self::Created | Self::Started | Self::Extended | Self::Online | Self::Other
        )
    }
}

/// One notification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// The marketplace's id of the event: a delivery may come twice.
    pub id: String,
    /// What it is about.
    pub kind: NotificationKind,
    /// When it happened; `None` where it does not say.
    pub at: Option<Time>,
    /// Which instance; webhooks do not say.
    pub instance: Option<InstanceId>,
    /// Which machine.
    pub machine: Option<MachineId>,
    /// The bid that displaced ours, for the whole offer. Only the inbox says.
    pub winning_bid: Option<Rate>,
    /// What it says, redacted.
    pub text: String,
}

/// A host's request for a higher price. The contract keeps its price until it is accepted, which
/// haggle never does; unaccepted, the rental ends when it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceIncrease {
    /// The request's id.
    pub id: u64,
    /// Which instance.
    pub instance: InstanceId,
    /// The GPU rate now, for the whole instance.
    pub old_rate: Option<Rate>,
    /// The GPU rate asked for.
    pub new_rate: Option<Rate>,
    /// When the rental ends unless it is accepted.
    pub ends_at: Option<Time>,
}

/// What somebody reported of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineReport {
    /// The kind of problem, in the marketplace's words.
    pub problem: String,
    /// What was written, redacted.
    pub message: String,
    /// When.
    pub at: Option<Time>,
}
