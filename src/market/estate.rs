//! The host's side: the machines that an account owns, and what it lists them for.
//!
//! An account owns a few machines from its first call on. They have no offers, so that no search
//! shows them, until their owner lists them; nobody but accounts rents them. Their ids follow each
//! other from 900001 in the order in which accounts come.

mod reports;
mod shown;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;

use super::api::MarketError;
use super::dice::{Dice, Purpose};
use super::generate;
use super::hosts::Downtime;
use super::machine::Gpus;
use super::raw::RawOffer;
use super::sim::{Due, Market};
use crate::types::money::{BID_PARKED, Money, Rate};
use crate::types::time::Time;

/// Ids of owned machines are over this.
const IDS_AFTER: u64 = 900_000;
/// GPUs of an account's machines, in turn.
const GPUS: [u32; 4] = [4, 2, 8, 1];
/// No more machines are given to an account.
const OWNED_MAX: u32 = 16;
/// Keeps what is drawn for owned machines apart from what the seed gives the others.
const STREAM: u64 = 0x6573_7461_7465;

/// For how long a host lists who does not say.
const USUAL_LISTING: Duration = Duration::from_hours(30 * 24);
/// The most per GPU and hour that a host may ask, in dollars: the bound of bids.
const PRICE_MOST: f64 = 32.0;
/// The documented defaults: $/GB/month of disk, and the prepayment discount.
const USUAL_DISK_PRICE: f64 = 0.10;
const USUAL_DISCOUNT: f64 = 0.4;

/// Every machine that an account owns, by its id.
#[derive(Clone, Debug, Default)]
pub(super) struct Estate {
    holdings: BTreeMap<u64, Holding>,
}

/// A machine that an account owns.
#[derive(Clone, Debug)]
struct Holding {
    owner: u64,
    /// Index of the machine.
    index: usize,
    gpus: u32,
    /// What is true of the machine, in the form that slices are made of.
    facts: RawOffer,
    /// For what it is, or was last, listed.
    terms: Option<Terms>,
    /// Indices of the slices that are on the market.
    offered: BTreeSet<usize>,
    default_job: Option<DefaultJob>,
    maintenance: Option<Maintenance>,
}

/// For what a machine is listed. Prices are per GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Terms {
    price: Rate,
    floor: Rate,
    /// $/GB/month.
    disk_price: f64,
    /// $/GB, up and down.
    traffic: (f64, f64),
    least_gpus: u32,
    ends: Time,
    discount: f64,
}

/// What a listing asks for; what is not given stays as it was, or is the default. Amounts are in
/// dollars, prices of GPUs per GPU and hour.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Ask {
    pub(super) price: Option<f64>,
    pub(super) floor: Option<f64>,
    /// Per GB and month.
    pub(super) disk_price: Option<f64>,
    /// Per GB.
    pub(super) up_price: Option<f64>,
    /// Per GB.
    pub(super) down_price: Option<f64>,
    /// The GPUs of the smallest slice.
    pub(super) least_gpus: Option<f64>,
    /// Epoch seconds.
    pub(super) ends: Option<f64>,
    /// Seconds from now, where no end is given.
    pub(super) duration: Option<f64>,
    /// Most that prepaying saves, as a fraction.
    pub(super) discount: Option<f64>,
}

/// What a host runs on GPUs that nobody rents.
#[derive(Clone, Debug)]
pub(super) struct DefaultJob {
    pub(super) image: String,
    /// $/GPU/h.
    pub(super) price: f64,
    /// $/GB, up and down.
    pub(super) traffic: (f64, f64),
}

/// Planned downtime.
#[derive(Clone, Debug)]
pub(super) struct Maintenance {
    pub(super) begins: Time,
    pub(super) hours: f64,
    pub(super) category: String,
}

impl Market {
    /// Gives an account its machines, if it has none.
    pub(super) fn open_estate(&mut self, owner: u64) {
        let highest = self.machines.iter().map(|machine| machine.id).max();
        let first = highest.unwrap_or(0).max(IDS_AFTER) + 1;
        let count = self.options.own_machines.min(OWNED_MAX);
        for (n, id) in (first..).take(count as usize).enumerate() {
            let mut dice = Dice::new(self.options.seed ^ STREAM, Purpose::Machine(id));
            let gpus = GPUS[n % GPUS.len()];
            let (machine, facts) = generate::unlisted(&self.options, &mut dice, id, gpus);
            let holding = Holding {
                owner,
                index: self.machines.len(),
                gpus,
                facts: RawOffer {
                    host_id: owner,
                    ..facts
                },
                terms: None,
                offered: BTreeSet::new(),
                default_job: None,
                maintenance: None,
            };
            self.machines.push(machine);
            self.estate.holdings.insert(id, holding);
        }
    }

    /// Whether an account has a machine on the market.
    pub(super) fn is_host(&self, account: u64) -> bool {
        self.owned(account)
            .any(|(_, holding)| !holding.offered.is_empty())
    }

    /// Whether a slice may have an offer: those of machines that nobody owns always may.
    pub(super) fn may_be_offered(&self, machine: usize, slice: usize) -> bool {
        let id = self.machines[machine].id;
        let holding = self.estate.holdings.get(&id);
        holding.is_none_or(|holding| holding.offered.contains(&slice))
    }

    fn owned(&self, account: u64) -> impl Iterator<Item = (u64, &Holding)> {
        let all = self.estate.holdings.iter();
        all.filter(move |(_, holding)| holding.owner == account)
            .map(|(id, holding)| (*id, holding))
    }

    /// A machine of the account, to change it.
    fn own_machine(&mut self, account: u64, id: u64) -> Result<&mut Holding, MarketError> {
        let held = self.estate.holdings.get_mut(&id);
        held.filter(|holding| holding.owner == account)
            .ok_or_else(|| not_yours(id))
    }

    /// Puts a machine on the market in slices of the least size, twice that and so on up to all
    /// its GPUs, or changes what it is listed for. Running contracts keep their terms; a later end
    /// prolongs them, and how many is the answer. A higher price is put to who rents there.
    ///
    /// # Errors
    /// `not_authorized` for a machine that is not the account's, `invalid_args` and
    /// `invalid_price` for terms that cannot be; then nothing changes.
    pub(super) fn list_machine(
        &mut self,
        account: u64,
        id: u64,
        ask: &Ask,
    ) -> Result<usize, MarketError> {
        let now = self.now;
        let holding = self.own_machine(account, id)?;
        let before = holding.terms;
        let terms = Terms::of(ask, before, holding.gpus, now)?;
        holding.terms = Some(terms);
        let index = holding.index;
        let places = places(holding.gpus, terms.least_gpus);
        self.offer_places(id, &places, terms);
        let extended = self.prolong(index, terms.ends);
        self.propose_price_increases(index, terms.price);
        // A lower floor may let somebody run who waits.
        self.later(5_000, Due::Auction(index));
        Ok(extended)
    }

    /// Makes the slices that are offered exactly these places of (GPUs, first GPU).
    fn offer_places(&mut self, id: u64, places: &[(u32, u32)], terms: Terms) {
        let Some(holding) = self.estate.holdings.get(&id) else {
            return;
        };
        let (index, facts) = (holding.index, holding.facts.clone());
        let mut offered = BTreeSet::new();
        for &(gpus, first) in places {
            let mask: Gpus = generate::mask(first, gpus);
            let held = &mut self.machines[index];
            let known = held.slices.iter().position(|slice| slice.mask == mask);
            let slice = known.unwrap_or_else(|| {
                let mut dice = Dice::new(self.options.seed ^ STREAM, Purpose::Machine(id));
                let slice = generate::slice(
                    &self.options,
                    &mut dice,
                    &facts,
                    (gpus, first),
                    0,
                    (terms.price, terms.floor),
                );
                held.slices.push(slice);
                held.slices.len() - 1
            });
            terms.put(&mut held.slices[slice]);
            offered.insert(slice);
        }
        let before = self
            .estate
            .holdings
            .get_mut(&id)
            .map(|holding| std::mem::replace(&mut holding.offered, offered.clone()))
            .unwrap_or_default();
        for slice in before.difference(&offered) {
            self.withdraw(index, *slice);
        }
        for slice in offered.difference(&before) {
            self.renew_ask(index, *slice);
        }
    }

    /// Takes a slice's offer off the market.
    fn withdraw(&mut self, machine: usize, slice: usize) {
        let ask = self.machines[machine].slices[slice].ask;
        self.asks.remove(&ask);
        self.old_asks.insert(ask);
    }

    /// Moves the end of running contracts to a later one; gives how many.
    fn prolong(&mut self, machine: usize, ends: Time) -> usize {
        let rented = self.rented(machine);
        let extended = rented.iter().filter(|(id, _)| self.extend(*id, ends));
        extended.count()
    }

    /// Takes a machine off the market. Who rents there goes on.
    ///
    /// # Errors
    /// `not_authorized`.
    pub(super) fn unlist_machine(&mut self, account: u64, id: u64) -> Result<(), MarketError> {
        let holding = self.own_machine(account, id)?;
        let (index, offered) = (holding.index, std::mem::take(&mut holding.offered));
        for slice in offered {
            self.withdraw(index, slice);
        }
        Ok(())
    }

    /// Sets the least bid per GPU, in dollars an hour, of a machine.
    ///
    /// # Errors
    /// `not_authorized`; 422 for a price that cannot be.
    pub(super) fn set_floor(
        &mut self,
        account: u64,
        id: u64,
        price: f64,
    ) -> Result<(), MarketError> {
        let holding = self.own_machine(account, id)?;
        let floor = gpu_price(price, "price").map_err(|error| MarketError {
            status: 422,
            ..error
        })?;
        let Some(terms) = &mut holding.terms else {
            return Err(MarketError::new(
                422,
                "invalid_args",
                "The machine is not listed.",
            ));
        };
        terms.floor = floor;
        let (index, terms) = (holding.index, *terms);
        for slice in &mut self.machines[index].slices {
            terms.put(slice);
        }
        self.later(5_000, Due::Auction(index));
        Ok(())
    }

    /// Sets, or with `None` removes, what runs on GPUs that nobody rents. It is kept and shown; it
    /// takes nobody's GPUs.
    ///
    /// # Errors
    /// `not_authorized`.
    pub(super) fn set_default_job(
        &mut self,
        account: u64,
        id: u64,
        job: Option<DefaultJob>,
    ) -> Result<(), MarketError> {
        self.own_machine(account, id)?.default_job = job;
        Ok(())
    }

    /// Plans downtime, in which the machine will be offline, or with `None` calls it off. It takes
    /// the place of an earlier plan. Who rents there is told of it.
    ///
    /// # Errors
    /// `not_authorized`.
    pub(super) fn plan_maintenance(
        &mut self,
        account: u64,
        id: u64,
        plan: Option<Maintenance>,
    ) -> Result<(), MarketError> {
        let holding = self.own_machine(account, id)?;
        holding.maintenance.clone_from(&plan);
        let index = holding.index;
        self.machines[index].downtime = None;
        if let Some(plan) = plan {
            let ms = (plan.hours * 3_600_000.0) as i64;
            let from = plan.begins;
            self.announces_maintenance(index, Downtime { from, ms });
        }
        Ok(())
    }

    /// Whether an account owns a machine: then its owner alone decides when it is down.
    pub(super) fn is_owned(&self, machine: usize) -> bool {
        let id = self.machines[machine].id;
        self.estate.holdings.contains_key(&id)
    }

    /// Accounts' instances on a machine, with whose each is.
    fn rented(&self, machine: usize) -> Vec<(u64, u64)> {
        self.machines[machine]
            .contracts
            .iter()
            .filter_map(|id| Some((*id, self.contracts.get(id)?.account()?)))
            .collect()
    }

    /// Destroys what is left of rentals that have ended; gives how many.
    ///
    /// # Errors
    /// `not_authorized`.
    pub(super) fn clean_up(&mut self, account: u64, id: u64) -> Result<usize, MarketError> {
        let index = self.own_machine(account, id)?.index;
        let mut ended = self.rented(index);
        ended.retain(|(instance, _)| {
            let task = self
                .contracts
                .get(instance)
                .and_then(|contract| contract.task());
            task.is_some_and(|task| task.expired)
        });
        self.destroy_for_host(id, &ended);
        Ok(ended.len())
    }

    /// Takes a machine out of the marketplace, with everything that runs there.
    ///
    /// # Errors
    /// `not_authorized`.
    pub(super) fn force_delete(&mut self, account: u64, id: u64) -> Result<(), MarketError> {
        let index = self.own_machine(account, id)?.index;
        self.unlist_machine(account, id)?;
        let rented = self.rented(index);
        self.destroy_for_host(id, &rented);
        self.machines[index].online = false;
        self.estate.holdings.remove(&id);
        Ok(())
    }

    fn destroy_for_host(&mut self, machine: u64, instances: &[(u64, u64)]) {
        for &(instance, renter) in instances {
            self.remove(instance);
            let words = format!("Instance {instance} was deleted by its host.");
            let about = json!({"instance_id": instance, "machine_id": machine});
            self.notify(renter, "instance_deleted", words, about);
        }
    }

    /// A host asks more per GPU than who rents there on demand pays: each is asked for it. What was
    /// asked before and is not any longer is withdrawn. Contracts keep their price until they
    /// accept.
    fn propose_price_increases(&mut self, machine: usize, price: Rate) {
        for (id, _) in self.rented(machine) {
            let Some(contract) = self.contracts.get(&id) else {
                continue;
            };
            let ended = contract.task().is_none_or(|task| task.expired);
            let (paid, by_bid) = (contract.on_demand, contract.bid.is_some());
            let asked = Rate(price.0.saturating_mul(i64::from(contract.gpus)));
            let mut pending = self.increases.values();
            if pending.any(|other| other.contract == id && other.new == asked) {
                continue;
            }
            self.increases.retain(|_, other| other.contract != id);
            if asked > paid && !by_bid && !ended {
                self.asks(id, paid, asked);
            }
        }
    }
}

impl Terms {
    fn of(ask: &Ask, before: Option<Self>, gpus: u32, now: Time) -> Result<Self, MarketError> {
        let price = match (ask.price, before) {
            (Some(price), _) => gpu_price(price, "price_gpu")?,
            (None, Some(before)) => before.price,
            (None, None) => return Err(MarketError::invalid_args("price_gpu is required")),
        };
        let floor = match (ask.floor, before) {
            (Some(floor), _) => gpu_price(floor, "price_min_bid")?,
            (None, Some(before)) => before.floor,
            (None, None) => price,
        };
        let amount = |given: Option<f64>, name: &str, usual: f64| match given {
            None => Ok(usual),
            Some(price) if (0.0..=100.0).contains(&price) => Ok(price),
            Some(_) => Err(MarketError::new(
                400,
                "invalid_price",
                format!("{name} is no price."),
            )),
        };
        let usual = before.map_or(USUAL_DISK_PRICE, |terms| terms.disk_price);
        let (up, down) = before.map_or((0.0, 0.0), |terms| terms.traffic);
        let discount = ask
            .discount
            .unwrap_or_else(|| before.map_or(USUAL_DISCOUNT, |terms| terms.discount));
        if !(0.0..=1.0).contains(&discount) {
            return Err(MarketError::invalid_args(
                "credit_discount_max is not within 0 and 1",
            ));
        }
        let least_gpus = match ask.least_gpus {
            None => before.map_or(1, |terms| terms.least_gpus),
            Some(least) if least.fract() == 0.0 && (1.0..=f64::from(gpus)).contains(&least) => {
                least as u32
            }
            Some(_) => {
                return Err(MarketError::invalid_args(
                    "min_chunk is not a number of GPUs that the machine has",
                ));
            }
        };
        Ok(Self {
            price,
            floor,
            disk_price: amount(ask.disk_price, "price_disk", usual)?,
            traffic: (
                amount(ask.up_price, "price_inetu", up)?,
                amount(ask.down_price, "price_inetd", down)?,
            ),
            least_gpus,
            ends: end_of(ask, before, now)?,
            discount,
        })
    }

    /// Writes the terms into a slice.
    fn put(self, slice: &mut super::machine::Slice) {
        let all = |rate: Rate| Rate(rate.0.saturating_mul(i64::from(slice.gpus)));
        slice.base_price = all(self.price);
        slice.base_floor = all(self.floor);
        slice.storage_price = Money::from_dollars(self.disk_price).unwrap_or(Money::ZERO);
        slice.ends = self.ends;
        let row = &mut slice.row;
        row.storage_cost = self.disk_price;
        (row.inet_up_cost, row.inet_down_cost) = self.traffic;
        row.internet_up_cost_per_tb = row.inet_up_cost * 1024.0;
        row.internet_down_cost_per_tb = row.inet_down_cost * 1024.0;
        row.credit_discount_max = self.discount;
    }
}

fn end_of(ask: &Ask, before: Option<Terms>, now: Time) -> Result<Time, MarketError> {
    let ends = match (ask.ends, ask.duration, before) {
        (Some(ends), _, _) => Time::from_epoch_seconds(ends),
        (None, Some(seconds), _) => Time::from_epoch_seconds(now.epoch_seconds() + seconds),
        (None, None, Some(before)) if before.ends > now => Some(before.ends),
        (None, None, _) => Some(now + USUAL_LISTING),
    };
    ends.filter(|ends| *ends > now)
        .ok_or_else(|| MarketError::invalid_args("end_date is not a time to come"))
}

/// A price per GPU and hour. It is over what a parked bid pays: the GPUs are not to be had for
/// nothing.
fn gpu_price(price: f64, name: &str) -> Result<Rate, MarketError> {
    let rate = Rate::from_dollars(price)
        .ok()
        .filter(|rate| price <= PRICE_MOST && *rate > BID_PARKED);
    rate.ok_or_else(|| {
        let words = format!("{name} is not a price from over 0.001 to {PRICE_MOST} $/hour.");
        MarketError::new(400, "invalid_price", words)
    })
}

/// The slices of a machine, as (GPUs, first GPU): of the least size, twice that and so on to all.
fn places(gpus: u32, least: u32) -> Vec<(u32, u32)> {
    let mut places = Vec::new();
    let mut size = least;
    loop {
        places.extend((0..gpus / size).map(|copy| (size, copy * size)));
        if size == gpus {
            return places;
        }
        // Doubling ends with all GPUs, also where their number is no power of two.
        size = if size * 2 > gpus { gpus } else { size * 2 };
    }
}

fn not_yours(id: u64) -> MarketError {
    let words = format!("Machine {id} is not yours.");
    MarketError::new(403, "not_authorized", words)
}
