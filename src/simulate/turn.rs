//! What happens around the daemon beside chance: what users, hosts' customers and other programs do.

use std::path::PathBuf;
use std::sync::Arc;

use super::checker::Checker;
use crate::market::faults::FaultSpec;
use crate::market::{CreateParams, Market};
use crate::types::job::Job;
use crate::types::money::Money;
use crate::types::offer::Market as SearchType;
use crate::types::state::Ask;
use crate::types::time::Time;

/// The token of somebody else's account.
pub(super) const OTHER_TOKEN: &str = "at_other";

/// What a policy file holds.
#[derive(Clone, Debug)]
pub enum Policy {
    /// A job.
    Good(Arc<Job>),
    /// Nothing that can be read.
    Broken,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Turn {
    /// The user asks something.
    Ask(Ask),
    /// The user edits, breaks or (`None`) removes a policy file.
    Policy {
        /// Which.
        file: PathBuf,
        /// What it holds from now on.
        policy: Option<Policy>,
    },
    /// The wall clock is set so far from the true time, in milliseconds.
    WallClock(i64),
    /// The disk is full, or has room again.
    Disk {
        /// Whether it is full.
        full: bool,
    },
    /// The token opens another account, or ours again.
    OtherAccount(bool),
    /// From now on this goes wrong on the wire.
    Faults(FaultSpec),
    /// Somebody else who uses the account does something.
    Others(Others),
}

/// What somebody else does who uses the same account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Spends so much at once.
    Spend(Money),
    /// Pays so much in.
    PayIn(Money),
    /// Rents something on demand.
    Rent,
    /// Destroys what it has rented longest.
    Destroy,
}

impl Turn {
    /// What it counts as among the faults; `None`: it is the end of one.
    pub(super) fn word(&self) -> Option<&'static str> {
        match self {
            Self::Ask(_) => Some("user-request"),
            Self::Policy {
                policy: Some(Policy::Broken),
                ..
            } => Some("policy-broken"),
            Self::Policy { policy: None, .. } => Some("policy-removed"),
            Self::Policy { .. } => Some("policy-edit"),
            // By nothing: the clock is right again.
            Self::WallClock(ahead_ms) => (*ahead_ms != 0).then_some("clock-jump"),
            Self::Disk { full } => full.then_some("disk-full"),
            Self::OtherAccount(other) => other.then_some("other-account"),
            Self::Faults(_) => Some("spell"),
            Self::Others(_) => Some("others-act"),
        }
    }
}

impl Others {
    /// Does it, and tells the checker; the market's time then.
    pub(super) fn done(self, market: &mut Market, checker: &mut Checker) -> Time {
        let account = checker.account();
        match self {
            Self::Spend(amount) => {
                market.spend_elsewhere(account, amount);
                checker.others_took(amount);
            }
            Self::PayIn(amount) => market.deposit(account, amount),
            Self::Rent => {
                if let Some(id) = rent(market, account, Some("not-ours")) {
                    checker.foreign(id);
                }
            }
            Self::Destroy => {
                if let Some(id) = checker.foreign_goes() {
                    // What the marketplace deleted meanwhile is gone all the same.
                    let _ = market.destroy(account, id);
                }
            }
        }
        market.now()
    }
}

/// Rents the first offer that can be had on demand.
pub(super) fn rent(market: &mut Market, account: u64, label: Option<&str>) -> Option<u64> {
    let offers: Vec<u64> = market
        .offers(account, SearchType::OnDemand, 8.0)
        .into_iter()
        .map(|offer| offer.id)
        .collect();
    offers.into_iter().find_map(|offer_id| {
        let params = CreateParams {
            offer_id,
            image: Some("somebody/elses:latest".to_owned()),
            label: label.map(str::to_owned),
            ..CreateParams::default()
        };
        let created = market.create(account, params).ok()?;
        Some(created.new_contract)
    })
}
