//! What is done about an outbid, one step after the other, and why each is or is not taken.

use serde::{Deserialize, Serialize};

use super::plan::{Limit, Missing, Refusal};
use super::time::Time;

/// A step after an outbid, in the order in which they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recourse {
    /// Who bids more may go again.
    Wait,
    /// A higher bid, once.
    Raise,
    /// The same machine on-demand: its image is there, and a copy between its disks is free.
    Reclaim,
    /// Another machine.
    Move,
}

impl Recourse {
    /// The word in tables, the same as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Raise => "raise",
            Self::Reclaim => "reclaim",
            Self::Move => "move",
        }
    }
}

/// How a step stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Turn {
    /// It is waited for, or for what it does.
    Until {
        /// Until then.
        until: Time,
    },
    /// It was taken, and did not help.
    Over,
    /// It is taken now.
    Taken,
    /// It is taken once the steps before it have not helped.
    Next,
    /// The policy does not allow it, or the instance is not at a bid.
    NotAllowed,
    /// It stands still, but nobody outbid it.
    NotOutbid,
    /// The market shows no such offer.
    NotOffered,
    /// There is an offer, and this is against it.
    Refused {
        /// The first reason.
        why: Refusal,
    },
    /// A limit forbids it.
    Limited {
        /// Which.
        limit: Limit,
    },
    /// Another machine costs less, with all that it takes to go there.
    Dearer,
    /// So many disks were left behind that no more are.
    TooManyDisks,
    /// Its deadline leaves no time for it.
    NoTime,
    /// Its deadline leaves time to wait for a bid.
    HasTime,
    /// Its work is on its disk alone, and copies from there fail.
    NotCopied,
    /// Nothing new is begun for the job: its inputs are not ready, or its starts came to nothing.
    CannotStart,
    /// Something is not known well enough.
    Blind {
        /// What.
        missing: Missing,
    },
}
