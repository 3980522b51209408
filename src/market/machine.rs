//! A machine, the slices of it that are offered, and who gets its GPUs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::contract::Contract;
use super::dice::Dice;
use super::disputed::Ties;
use super::hosts::{Downtime, Lie};
use super::raw::RawOffer;
use crate::types::money::{BID_STEP, Money, Rate};
use crate::types::time::Time;

/// A set of a machine's GPUs, one bit each.
pub(crate) type Gpus = u128;

/// The most GPUs that one machine may have here.
pub(crate) const GPUS_MAX: u32 = 128;

/// Floors are shown in thousandths of a dollar where they stem from a bid.
const SHOWN_STEP: Rate = Rate(1_000_000);

/// A level of 1000 is the base price.
pub(crate) const BASE_LEVEL: i64 = 1000;

/// A physical machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// Its id.
    pub(crate) id: u64,
    /// Whether it is connected and listed.
    pub(crate) online: bool,
    /// The floor now, in thousandths of each slice's base floor.
    pub(crate) floor_level: i64,
    /// The on-demand rate now, in thousandths of each slice's base rate.
    pub(crate) price_level: i64,
    /// Whether bidders fight over it and its floor moves often.
    pub(crate) busy: bool,
    /// Whether the host reprices often.
    pub(crate) restless: bool,
    /// The probability that a container does not come up.
    pub(crate) failure: f64,
    /// Images that were pulled here.
    pub(crate) cached: BTreeSet<Arc<str>>,
    /// What is offered.
    pub(crate) slices: Vec<Slice>,
    /// Contracts on it, rivals' and accounts'.
    pub(crate) contracts: BTreeSet<u64>,
    /// Chance for what happens here.
    pub(crate) dice: Dice,
    /// Chance for what the host does and hides.
    pub(crate) host_dice: Dice,
    /// Who wins a tie here, as everywhere.
    pub(crate) ties: Ties,
    /// Until when the machine is without its verification, after an error.
    pub(crate) deverified_until: Option<Time>,
    /// Maintenance that was announced.
    pub(crate) downtime: Option<Downtime>,
    /// What the host lies about.
    pub(crate) lie: Option<Lie>,
}

/// An offer of some of a machine's GPUs.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    /// The facts that do not change; prices, ids, dates and flags are filled in when it is shown.
    pub(crate) row: RawOffer,
    /// How many GPUs.
    pub(crate) gpus: u32,
    /// Which.
    pub(crate) mask: Gpus,
    /// The offer's id now.
    pub(crate) ask: u64,
    /// Accounts that made an instance of this offer: an offer yields one.
    pub(crate) used_by: BTreeSet<u64>,
    /// Floor at the base level, for the whole slice.
    pub(crate) base_floor: Rate,
    /// On-demand rate at the base level.
    pub(crate) base_price: Rate,
    /// Of a GB of disk for a month.
    pub(crate) storage_price: Money,
    /// When the listing began.
    pub(crate) listed: Time,
    /// When the listing ends.
    pub(crate) ends: Time,
    /// What is shown instead of the floor while, and a while after, an account holds the slice.
    pub(crate) echo: Option<Rate>,
    /// Counts changes of the echo that were scheduled; only the last one happens.
    pub(crate) echo_version: u64,
}

impl Machine {
    /// The host's floor of a slice.
    pub(crate) fn floor(&self, slice: usize) -> Rate {
        at_level(self.slices[slice].base_floor, self.floor_level)
    }

    /// The host's on-demand rate of a slice.
    pub(crate) fn on_demand(&self, slice: usize) -> Rate {
        at_level(self.slices[slice].base_price, self.price_level)
    }

    /// What the marketplace says of the machine's verification now.
    pub(crate) fn verification(&self, slice: usize) -> Arc<str> {
        let usual = &self.slices[slice].row.verification;
        match self.deverified_until {
            Some(_) if &**usual == "verified" => "deverified".into(),
            _ => Arc::clone(usual),
        }
    }

    /// The contracts that run on any of these GPUs.
    pub(crate) fn holders<'a>(
        &'a self,
        contracts: &'a BTreeMap<u64, Contract>,
        mask: Gpus,
    ) -> impl Iterator<Item = &'a Contract> {
        self.contracts
            .iter()
            .filter_map(|id| contracts.get(id))
            .filter(move |contract| contract.granted && contract.mask & mask != 0)
    }

    /// Whether a contract that no bid can displace runs on any of a slice's GPUs.
    pub(crate) fn held_on_demand(&self, contracts: &BTreeMap<u64, Contract>, slice: usize) -> bool {
        self.holders(contracts, self.slices[slice].mask)
            .any(|contract| contract.bid.is_none())
    }

    /// The least bid that runs a slice now: the host's floor, or a bid just over the best of those
    /// that hold its GPUs, GPU for GPU. `None` while an on-demand contract holds any of them.
    pub(crate) fn true_floor(
        &self,
        contracts: &BTreeMap<u64, Contract>,
        slice: usize,
    ) -> Option<Rate> {
        let (mask, gpus) = (self.slices[slice].mask, self.slices[slice].gpus);
        let mut floor = self.floor(slice);
        for holder in self.holders(contracts, mask) {
            let scaled = i128::from(holder.bid?.0) * i128::from(gpus);
            let by = i128::from(holder.gpus.max(1));
            let equal = scaled.div_euclid(by);
            let least = match self.ties {
                Ties::Incumbent => equal + i128::from(BID_STEP.0),
                Ties::Challenger => equal + i128::from(scaled.rem_euclid(by) != 0),
            };
            let least = Rate(i64::try_from(least).unwrap_or(i64::MAX));
            floor = floor.max(round_up(least, SHOWN_STEP));
        }
        Some(floor)
    }

    /// The floor that a search shows. On a slice that an account holds it is an echo of the
    /// account's own bid, in thousandths of a dollar, which lags behind.
    pub(crate) fn shown_floor(&self, contracts: &BTreeMap<u64, Contract>, slice: usize) -> Rate {
        self.slices[slice].echo.unwrap_or_else(|| {
            self.true_floor(contracts, slice)
                .unwrap_or_else(|| self.floor(slice))
        })
    }

    /// Whether a bid would run on a slice at once.
    pub(crate) fn would_win(
        &self,
        contracts: &BTreeMap<u64, Contract>,
        slice: usize,
        bid: Option<Rate>,
    ) -> bool {
        let (mask, gpus) = (self.slices[slice].mask, self.slices[slice].gpus);
        let Some(bid) = bid else {
            return !self.held_on_demand(contracts, slice);
        };
        bid >= self.floor(slice)
            && self
                .holders(contracts, mask)
                .all(|holder| match holder.bid {
                    Some(held) => self.displaces((bid, gpus), (held, holder.gpus)),
                    None => false,
                })
    }

    /// Whether a new bid for so many GPUs takes them from one that runs on them.
    pub(crate) fn displaces(&self, bid: (Rate, u32), held: (Rate, u32)) -> bool {
        match self.ties {
            Ties::Incumbent => higher(bid, held),
            Ties::Challenger => !higher(held, bid),
        }
    }

    /// Who gets the GPUs: on-demand contracts first, then bids from the highest per GPU, each
    /// where all its GPUs are free still and the floor is met. Among equals the incumbent keeps,
    /// then the older contract comes first; or whoever came last does, where ties are the
    /// challenger's. `able` says whether a contract competes at all.
    pub(crate) fn winners(
        &self,
        contracts: &BTreeMap<u64, Contract>,
        able: impl Fn(&Contract) -> bool,
    ) -> BTreeSet<u64> {
        if !self.online {
            return BTreeSet::new();
        }
        let mut contenders: Vec<&Contract> = self
            .contracts
            .iter()
            .filter_map(|id| contracts.get(id))
            .filter(|contract| contract.wants && able(contract))
            .collect();
        contenders.sort_by(|a, b| {
            let per_gpu = |c: &Contract| i128::from(c.bid.map_or(0, |bid| bid.0));
            (a.bid.is_some().cmp(&b.bid.is_some()))
                .then_with(|| {
                    let (left, right) = (
                        per_gpu(a) * i128::from(b.gpus),
                        per_gpu(b) * i128::from(a.gpus),
                    );
                    right.cmp(&left)
                })
                .then_with(|| match self.ties {
                    // No bid displaces an on-demand contract, whenever it came.
                    Ties::Challenger if a.bid.is_some() => b.arrived.cmp(&a.arrived),
                    _ => b.granted.cmp(&a.granted),
                })
                .then_with(|| a.id.cmp(&b.id))
        });
        let mut taken: Gpus = 0;
        let mut winners = BTreeSet::new();
        for contract in contenders {
            if contract.mask & taken == 0 && self.meets_floor(contract) {
                taken |= contract.mask;
                winners.insert(contract.id);
            }
        }
        winners
    }

    /// Whether a bid reaches the floor. A running contract keeps its terms: what counts for it is
    /// the lower of the floor now and the floor when it last started or changed its bid.
    pub(crate) fn meets_floor(&self, contract: &Contract) -> bool {
        let Some(bid) = contract.bid else {
            return true;
        };
        let floor = self.floor(contract.slice);
        let asked = if contract.granted {
            floor.min(contract.reserve)
        } else {
            floor
        };
        bid >= asked
    }
}

fn at_level(base: Rate, level: i64) -> Rate {
    Rate((i128::from(base.0) * i128::from(level) / i128::from(BASE_LEVEL)) as i64)
}

/// Whether a bid for so many GPUs is higher per GPU than another.
pub(crate) fn higher((bid, gpus): (Rate, u32), (other, other_gpus): (Rate, u32)) -> bool {
    i128::from(bid.0) * i128::from(other_gpus) > i128::from(other.0) * i128::from(gpus)
}

fn round_up(rate: Rate, step: Rate) -> Rate {
    let over = rate.0.rem_euclid(step.0);
    if over == 0 {
        rate
    } else {
        Rate(rate.0.saturating_add(step.0 - over))
    }
}

/// The nearest thousandth of a dollar, as an echo is shown.
pub(crate) fn round_echo(bid: Rate) -> Rate {
    Rate((bid.0 + SHOWN_STEP.0 / 2).div_euclid(SHOWN_STEP.0) * SHOWN_STEP.0)
}
