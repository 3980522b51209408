//! What the market is asked and what it answers.

use std::sync::Arc;

use super::disputed::Disputed;
use crate::types::money::{Money, Rate};
use crate::types::time::Time;

/// How a market is made.
#[derive(Clone, Debug)]
pub struct MarketOptions {
    /// Everything random follows from it.
    pub seed: u64,
    /// The market time at which it begins.
    pub start: Time,
    /// Play money that each account begins with.
    pub balance: Money,
    /// Decimals to which charge rows are rounded; the real marketplace shows 3.
    pub charge_decimals: u32,
    /// How many machines are generated; `None` for the usual 480, about 900 offers.
    pub machines: Option<u32>,
    /// How often rivals, takers and hosts act, as a multiple of what was observed. 0: a still
    /// market.
    pub intensity: f64,
    /// How often provisioning fails, as a multiple of the usual. 0: never.
    pub failures: f64,
    /// Floors, as a multiple of what they usually are beside the on-demand price; above 1 they are cut at
    /// that price.
    pub floors: f64,
    /// Share of the machines whose host lies, about its bandwidth or its GPUs.
    pub liars: f64,
    /// Accounts begin with a saved card that is charged when the credit falls to the first amount,
    /// by the second.
    pub autobill: Option<(Money, Money)>,
    /// How charging a saved card goes.
    pub payments: Payments,
    /// New accounts may not spend more per hour: what would is refused with `spend_rate_limit`.
    pub spend_per_hour_max: Option<Rate>,
    /// How many machines each account owns, at first not listed; 16 at most.
    pub own_machines: u32,
    /// How the facts that the sources dispute are settled here.
    pub disputed: Disputed,
}

/// How charging a saved card goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payments {
    /// The money is there at once.
    #[default]
    Prompt,
    /// It comes minutes later.
    Late,
    /// The card is refused, and tried again every hour.
    Failing,
}

impl Default for MarketOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            // 2026-11-24 00:00 UTC.
            start: Time(1_795_478_400_000),
            balance: Money::dollars(100),
            charge_decimals: 3,
            machines: None,
            intensity: 1.0,
            failures: 1.0,
            floors: 1.0,
            liars: 0.0,
            autobill: None,
            payments: Payments::default(),
            spend_per_hour_max: None,
            own_machines: 2,
            disputed: Disputed::default(),
        }
    }
}

/// What a rental is to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CreateParams {
    /// The offer.
    pub offer_id: u64,
    /// The bid in dollars per hour for the whole offer; `None` rents on demand.
    pub price: Option<f64>,
    /// The image; required unless a template is given.
    pub image: Option<String>,
    /// Disk in GB; 8 where it is not given.
    pub disk: Option<f64>,
    /// Environment and ports.
    pub env: Vec<(String, String)>,
    /// Start script.
    pub onstart: Option<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// Label.
    pub label: Option<String>,
    /// `ssh`, `jupyter` or `args`; with arguments `args`, else `ssh`.
    pub runtype: Option<String>,
    /// Template.
    pub template_hash_id: Option<String>,
    /// Registry login.
    pub image_login: Option<String>,
    /// Whether an instance that cannot start is refused instead of left stopped; `None` is true
    /// for on-demand and false for bids.
    pub cancel_unavail: Option<bool>,
}

/// A rental that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The instance.
    pub new_contract: u64,
    /// The key that the instance carries; it opens this one instance only.
    pub instance_api_key: String,
}

/// The answer to a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Whether it starts now. Else it stays queued and may start, and bill, later.
    pub success: bool,
    /// The marketplace's words where it does not.
    pub msg: Option<String>,
}

/// A refusal, with the marketplace's status, code and words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status} {code}: {msg}")]
pub struct MarketError {
    /// HTTP status.
    pub status: u16,
    /// The `error` of the body.
    pub code: &'static str,
    /// The `msg` of the body.
    pub msg: String,
    /// The offer, where the refusal is about one.
    pub ask_id: Option<u64>,
    /// The instance that was made all the same.
    pub new_contract: Option<u64>,
}

impl MarketError {
    pub(crate) fn new(status: u16, code: &'static str, msg: impl Into<String>) -> Self {
        Self {
            status,
            code,
            msg: msg.into(),
            ask_id: None,
            new_contract: None,
        }
    }

    pub(crate) fn invalid_args(msg: impl std::fmt::Display) -> Self {
        Self::new(
            400,
            "invalid_args",
            format!("error 400/3467: Invalid args: {msg}"),
        )
    }

    pub(crate) fn unknown_ask(id: u64) -> Self {
        let msg = format!("error 404/3603: no_such_ask Instance type by id {id} is not available.");
        Self {
            ask_id: Some(id),
            ..Self::new(404, "invalid_args", msg)
        }
    }

    pub(crate) fn ask_gone(id: u64) -> Self {
        let msg = format!("error 410/3907: no_such_ask Instance type {id} is no longer available.");
        Self {
            ask_id: Some(id),
            ..Self::new(410, "no_such_ask", msg)
        }
    }

    pub(crate) fn no_such_instance(id: u64) -> Self {
        Self::new(
            404,
            "no_such_instance",
            format!("Instance {id} was not found."),
        )
    }

    pub(crate) fn invalid_price(gpus: u32) -> Self {
        let most = 32 * gpus;
        Self::new(
            400,
            "invalid_price",
            format!("Invalid price: a bid is from 0.001 to {most}.0 $/hour."),
        )
    }
}

/// An instance of an account, as far as a checker compares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rented<'a> {
    /// Which.
    pub id: u64,
    /// Its machine.
    pub machine: u64,
    /// Its label as it is shown.
    pub label: Option<&'a str>,
    /// The label that it was made with, whatever of it is shown.
    pub label_asked: Option<&'a str>,
    /// What its container does, in the marketplace's words.
    pub actual_status: Option<&'a str>,
    /// Whether it is interruptible.
    pub is_bid: bool,
    /// Its GPUs.
    pub num_gpus: u32,
    /// What it costs per hour while it runs, disk included.
    pub price: Rate,
    /// What it is charged per hour now.
    pub burn: Rate,
}

/// The market's own exact books of one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExactBill {
    /// GPUs.
    pub gpu: Money,
    /// Disk.
    pub disk: Money,
    /// Traffic, both ways.
    pub traffic: Money,
}

impl ExactBill {
    /// All of it.
    pub fn total(&self) -> Money {
        self.gpu + self.disk + self.traffic
    }
}

/// How an instance stands in the auction, as only the market knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its machine.
    pub machine: u64,
    /// How many of its GPUs.
    pub gpus: u32,
    /// Its bid for all of them; `None`: on demand.
    pub bid: Option<Rate>,
    /// Whether it is meant to run.
    pub wants: bool,
    /// The slice's on-demand rate when it was made.
    pub agreed: Rate,
    /// The slice's on-demand rate now.
    pub on_demand: Rate,
    /// The host's floor of the slice now.
    pub floor: Rate,
    /// Others' rentals of any of its GPUs, at work or waiting.
    pub rivals: usize,
}

/// What a runner does that is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtWork {
    /// The generation that its label must carry.
    pub generation: u64,
    /// Whether it heeds its label at all.
    pub fenced: bool,
    /// Whether its command works now.
    pub works: bool,
    /// When its command ended by itself, in the start of the container that goes on now.
    pub ended: Option<Time>,
    /// Whether it ended with exit code 0.
    pub ended_well: bool,
}

/// What is true of an instance's machine, as one sees it from inside, whatever the listing says.
#[derive(Clone, Debug, PartialEq)]
pub struct Inside {
    /// The model that the driver names.
    pub gpu_name: Arc<str>,
    /// GPUs that can be used.
    pub gpus: u32,
    /// Download, Mb/s.
    pub download: f64,
    /// Upload, Mb/s.
    pub upload: f64,
}

/// Something that happened, for checkers and tests. Rivals' doings are told only where an account
/// has an instance on the machine; what hosts do is always told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarketEvent {
    /// When.
    pub at: Time,
    /// The machine; 0 where it is about an account and no machine.
    pub machine: u64,
    /// What.
    pub what: Happening,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// An account made an instance.
    Created {
        /// The instance.
        instance: u64,
        /// Whether it won its GPUs at once.
        won: bool,
    },
    /// A higher bid took an instance's GPUs.
    Outbid {
        /// The instance that was paused.
        instance: u64,
        /// The bid that displaced it, for the winner's whole slice.
        by: Rate,
    },
    /// An on-demand rental took an instance's GPUs.
    OnDemandTook {
        /// The instance that was paused.
        instance: u64,
    },
    /// A bid under the floor was parked.
    Parked {
        /// The instance.
        instance: u64,
    },
    /// An instance got its GPUs (back).
    Resumed {
        /// The instance.
        instance: u64,
    },
    /// A container came up.
    Running {
        /// The instance.
        instance: u64,
    },
    /// A container never came up, or ended when it should not.
    ProvisioningFailed {
        /// The instance.
        instance: u64,
    },
    /// A container ended by itself.
    Ended {
        /// The instance.
        instance: u64,
    },
    /// An instance was destroyed, by its owner or by itself.
    Destroyed {
        /// The instance.
        instance: u64,
    },
    /// An instance was stopped by its owner.
    Stopped {
        /// The instance.
        instance: u64,
    },
    /// The rental's end was reached.
    Expired {
        /// The instance.
        instance: u64,
    },
    /// An account's credit was used up and its instances were stopped.
    CreditExhausted {
        /// The account.
        account: u64,
    },
    /// A container died, or froze, with its host's error.
    Failed {
        /// The instance.
        instance: u64,
    },
    /// The marketplace deleted an instance: long after its rental's end, or for want of payment.
    Deleted {
        /// The instance.
        instance: u64,
    },
    /// A rental's end was moved.
    Extended {
        /// The instance.
        instance: u64,
        /// The end now.
        until: Time,
    },
    /// A host asks for more for a rental.
    PriceAsked {
        /// The instance.
        instance: u64,
        /// The GPUs' rate that it asks for.
        rate: Rate,
    },
    /// Money was paid in.
    Paid {
        /// The account.
        account: u64,
        /// How much.
        amount: Money,
    },
    /// The host will go away for maintenance.
    MaintenancePlanned {
        /// When.
        from: Time,
        /// When it will be back.
        until: Time,
    },
    /// The machine lost its verification after an error.
    Deverified,
    /// The machine has its verification again.
    Verified,
    /// The host went away.
    HostLeft,
    /// The host came back, with other offer ids.
    HostReturned,
    /// The host changed its floor or its on-demand rate.
    Repriced,
}
