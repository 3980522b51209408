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
    /// From the marketplace's slug, such as `outbid` or `client:instance_offline`. The documented
    /// list is shorter than what its pages speak of, so the telling word decides.
    pub fn from_slug(slug: &str) -> Self {
        const WORDS: [(&str, NotificationKind); 21] = [
            ("outbid", NotificationKind::Outbid),
            ("price_increase", NotificationKind::PriceIncrease),
            ("low_credit", NotificationKind::LowCredit),
            ("billing_failed", NotificationKind::PaymentFailed),
            ("payment_failed", NotificationKind::PaymentFailed),
            ("maintenance", NotificationKind::Maintenance),
            ("downtime", NotificationKind::Maintenance),
            ("offline", NotificationKind::Offline),
            ("online", NotificationKind::Online),
            ("expir", NotificationKind::Expiring),
            ("extended", NotificationKind::Extended),
            ("resumed", NotificationKind::Resumed),
            ("restarted", NotificationKind::Started),
            ("started", NotificationKind::Started),
            ("stopped", NotificationKind::Stopped),
            ("deleted", NotificationKind::Deleted),
            ("destroyed", NotificationKind::Deleted),
            ("created", NotificationKind::Created),
            ("error", NotificationKind::Error),
            ("disk", NotificationKind::Error),
            ("storage", NotificationKind::Error),
        ];
        let slug = slug.to_ascii_lowercase().replace(['-', ' '], "_");
        WORDS
            .iter()
            .find(|(word, _)| slug.contains(word))
            .map_or(Self::Other, |&(_, kind)| kind)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_told_by_their_word() {
        for (slug, kind) in [
            ("outbid", NotificationKind::Outbid),
            ("client:instance_offline", NotificationKind::Offline),
            ("instance_online", NotificationKind::Online),
            ("upcoming_downtime", NotificationKind::Maintenance),
            ("Low-Credit", NotificationKind::LowCredit),
            ("payment_receipt", NotificationKind::Other),
            ("webhook_test", NotificationKind::Other),
        ] {
            assert_eq!(NotificationKind::from_slug(slug), kind, "{slug}");
        }
    }
}
