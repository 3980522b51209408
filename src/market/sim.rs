//! The market itself: its state, its queue of events, and who gets the GPUs.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::api::{ExactBill, Happening, MarketEvent, MarketOptions};
use super::contract::{Contract, Owner};
use super::credit::Account;
use super::estate::Estate;
use super::generate;
use super::hosts::Increase;
use super::machine::Machine;
use super::notices::Undelivered;
use super::raw::RawOffer;
use super::restart::Extras;
use crate::types::money::{Money, Rate};
use crate::types::time::Time;

/// So many accounts a market that is called by anybody has at most.
pub(super) const ACCOUNTS_MAX: usize = 1000;

/// The marketplace. Every method acts at [`Market::now`]; move it on first.
#[derive(Clone, Debug)]
pub struct Market {
    pub(super) options: MarketOptions,
    pub(super) now: Time,
    pub(super) machines: Vec<Machine>,
    /// Living contracts, rivals' and accounts'.
    pub(super) contracts: BTreeMap<u64, Contract>,
    /// Accounts' contracts that were destroyed, and when.
    pub(super) past: BTreeMap<u64, (Contract, Time)>,
    /// What those cost, and which account.
    settled: BTreeMap<u64, (u64, ExactBill)>,
    /// What those cost in all, by account.
    settled_in_all: BTreeMap<u64, Money>,
    pub(super) accounts: BTreeMap<u64, Account>,
    /// The machines that accounts own.
    pub(super) estate: Estate,
    /// Offers that are listed: machine and slice by id.
    pub(super) asks: BTreeMap<u64, (usize, usize)>,
    /// Ids that were listed once.
    pub(super) old_asks: BTreeSet<u64>,
    pub(super) next_ask: u64,
    /// What is kept of instances beside their contracts.
    pub(super) extras: Extras,
    pub(super) next_contract: u64,
    /// Bids that came or changed so far.
    pub(super) arrivals: u64,
    /// What hosts ask for more, by the request's id.
    pub(super) increases: BTreeMap<u64, Increase>,
    pub(super) next_increase: u64,
    /// Notifications under way, by number.
    pub(super) undelivered: BTreeMap<u64, Undelivered>,
    /// Whether hosts and rivals do nothing any more.
    pub(super) frozen: bool,
    queue: BTreeMap<(Time, u64), Due>,
    queued: u64,
    events: Vec<MarketEvent>,
}

/// What is due at a time. Machines and slices are indices.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// The host changes its floor.
    Floor(usize),
    /// The host changes its on-demand rate.
    Price(usize),
    /// The host lists anew, with other ids and a later end.
    Relist(usize),
    /// The host goes away.
    Leave(usize),
    /// The host comes back.
    Return(usize),
    /// Somebody looks at the machine for a bid.
    Bidder(usize),
    /// Somebody looks at the machine for an on-demand rental.
    Taker(usize),
    /// Somebody is drawn to what an account holds.
    Challenger(u64),
    /// A rival that lost makes up its mind.
    RivalReacts(u64),
    /// A rival leaves.
    RivalLeaves(u64),
    /// The auction on a machine is held.
    Auction(usize),
    /// A container's next step, if its version is still this.
    Container(u64, u64),
    /// A runner's next step, if its container's version is still this.
    Runner(u64, u64),
    /// A slice's shown floor changes, if its version is still this.
    Echo(usize, usize, u64, Option<Rate>),
    /// A rental ends.
    Expire(u64),
    /// An account's credit is looked at.
    Credit(u64),
    /// A charge to a saved card is through, or may be tried again.
    Payment(u64),
    /// A rental ends within so many hours, unless its end was moved.
    Expiring(u64, i64),
    /// An instance is deleted by the marketplace.
    Delete(u64),
    /// Something fails on a machine.
    Error(usize),
    /// A machine gets its verification back.
    Reverify(usize),
    /// The host plans maintenance.
    Maintenance(usize),
    /// Maintenance begins.
    Downtime(usize),
    /// Maintenance is over.
    Upkept(usize),
    /// A notification arrives.
    Notice(u64),
}

impl Due {
    /// Whether it is what hosts and rivals do of their own accord.
    fn is_others(self) -> bool {
        matches!(
            self,
            Self::Floor(_)
                | Self::Price(_)
                | Self::Relist(_)
                | Self::Leave(_)
                | Self::Bidder(_)
                | Self::Taker(_)
                | Self::Challenger(_)
                | Self::RivalReacts(_)
                | Self::RivalLeaves(_)
                | Self::Error(_)
                | Self::Maintenance(_)
        )
    }
}

impl Market {
    /// A market whose machines, prices and behaviours are drawn from the seed.
    pub fn generated(options: MarketOptions) -> Self {
        let machines = generate::machines(&options);
        let mut market = Self::of(options, machines);
        market.populate();
        market
    }

    /// A market of the given offers: each row is a slice of its machine, with its prices and its
    /// id. Nobody holds any of them at first, except what is not rentable; rivals and hosts act on
    /// them as on generated ones. A row without GPUs or a price, and one whose id came before, is
    /// left out. A listing that ended before the market's start is taken to end 30 days after it.
    pub fn from_rows(options: MarketOptions, rows: Vec<RawOffer>) -> Self {
        let machines = generate::from_rows(&options, rows);
        let mut market = Self::of(options, machines);
        market.occupy_unrentable();
        market
    }

    fn of(options: MarketOptions, machines: Vec<Machine>) -> Self {
        let mut asks = BTreeMap::new();
        for (m, machine) in machines.iter().enumerate() {
            for (s, slice) in machine.slices.iter().enumerate() {
                asks.insert(slice.ask, (m, s));
            }
        }
        let highest = asks.last_key_value().map_or(0, |(id, _)| *id);
        let mut market = Self {
            now: options.start,
            options,
            machines,
            contracts: BTreeMap::new(),
            past: BTreeMap::new(),
            settled: BTreeMap::new(),
            settled_in_all: BTreeMap::new(),
            accounts: BTreeMap::new(),
            estate: Estate::default(),
            asks,
            old_asks: BTreeSet::new(),
            next_ask: highest + 1,
            extras: Extras::default(),
            next_contract: 31_000_000,
            arrivals: 0,
            increases: BTreeMap::new(),
            next_increase: 1,
            undelivered: BTreeMap::new(),
            frozen: false,
            queue: BTreeMap::new(),
            queued: 0,
            events: Vec::new(),
        };
        for machine in 0..market.machines.len() {
            market.begin_habits(machine);
        }
        market
    }

    /// Processes every event that is due, in time order. Does nothing where `now` is in the past.
    pub fn advance_to(&mut self, now: Time) {
        while let Some(entry) = self.queue.first_entry() {
            let at = entry.key().0;
            if at > now {
                break;
            }
            let due = entry.remove();
            // What was put in the queue late is done late, never in the past.
            self.now = self.now.max(at);
            self.happen(due);
        }
        self.now = self.now.max(now);
    }

    /// Market time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The account of a token. It is made, with the play balance, when the token is first seen;
    /// another token is another account.
    pub fn account_for(&mut self, token: &str) -> u64 {
        let id = account_id(token);
        if !self.accounts.contains_key(&id) {
            self.opens(id);
            self.open_estate(id);
        }
        id
    }

    /// The account of a token, where it has one or there is room for another: whoever reaches a
    /// market that takes any token could fill its memory otherwise.
    pub(super) fn admit(&mut self, token: &str) -> Option<u64> {
        let known = self.accounts.contains_key(&account_id(token));
        (known || self.accounts.len() < ACCOUNTS_MAX).then(|| self.account_for(token))
    }

    /// What happened so far, in order of time. For checkers and tests.
    pub fn events(&self) -> &[MarketEvent] {
        &self.events
    }

    /// Forgets the older half of what happened where that is more than `most`: nobody asks a market
    /// that is served for days, and it would fill the memory.
    pub(super) fn forget_events(&mut self, most: usize) {
        if self.events.len() > most {
            self.events.drain(..self.events.len() - most / 2);
        }
    }

    fn happen(&mut self, due: Due) {
        if self.frozen && due.is_others() {
            return;
        }
        match due {
            Due::Floor(machine) => self.floor_moves(machine),
            Due::Price(machine) => self.price_moves(machine),
            Due::Relist(machine) => self.relists(machine),
            Due::Leave(machine) => self.host_leaves(machine),
            Due::Return(machine) => self.host_returns(machine),
            Due::Bidder(machine) => self.bidder_comes(machine),
            Due::Taker(machine) => self.taker_comes(machine),
            Due::Challenger(contract) => self.challenger_comes(contract),
            Due::RivalReacts(contract) => self.rival_reacts(contract),
            Due::RivalLeaves(contract) => self.rival_leaves(contract),
            Due::Auction(machine) => self.settle(machine),
            Due::Container(contract, version) => self.container_steps(contract, version),
            Due::Runner(contract, version) => self.runner_steps(contract, version),
            Due::Echo(machine, slice, version, echo) => {
                let slice = &mut self.machines[machine].slices[slice];
                if slice.echo_version == version {
                    slice.echo = echo;
                }
            }
            Due::Expire(contract) => self.expires(contract),
            Due::Credit(account) => self.credit_is_checked(account),
            Due::Payment(account) => self.payment_is_through(account),
            Due::Expiring(contract, hours) => self.expires_soon(contract, hours),
            Due::Delete(contract) => self.deletes(contract),
            Due::Error(machine) => self.host_errs(machine),
            Due::Reverify(machine) => self.reverified(machine),
            Due::Maintenance(machine) => self.plans_maintenance(machine),
            Due::Downtime(machine) => self.goes_into_maintenance(machine),
            Due::Upkept(machine) => self.comes_out_of_maintenance(machine),
            Due::Notice(number) => self.notice_arrives(number),
        }
    }

    /// Puts an event into the queue, in so many milliseconds.
    pub(super) fn later(&mut self, ms: i64, due: Due) {
        self.queued += 1;
        let at = Time(self.now.0.saturating_add(ms.max(0)));
        self.queue.insert((at, self.queued), due);
    }

    /// Notes what happened, and notifies whom it concerns.
    pub(super) fn tell(&mut self, machine: usize, what: Happening) {
        self.spread(machine, &what);
        let machine = self.machines[machine].id;
        self.events.push(MarketEvent {
            at: self.now,
            machine,
            what,
        });
    }

    /// Notes what happened to an account, on no machine.
    pub(super) fn tell_of_account(&mut self, what: Happening) {
        let (at, machine) = (self.now, 0);
        self.events.push(MarketEvent { at, machine, what });
    }

    /// The next place in the order in which bids come.
    pub(super) fn arrives(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }

    /// Holds the auction on a machine: whoever lost is paused, whoever won runs.
    pub(super) fn settle(&mut self, machine: usize) {
        let accounts = &self.accounts;
        let able = |contract: &Contract| match contract.task() {
            Some(task) => {
                !task.expired && accounts.get(&task.account).is_some_and(|held| !held.broke)
            }
            None => true,
        };
        if !self.machines[machine].online {
            return;
        }
        let winners = self.machines[machine].winners(&self.contracts, able);
        let held = &self.machines[machine].contracts;
        let is = |id: &u64| self.contracts.get(id).is_some_and(|held| held.granted);
        let lost: Vec<u64> = held
            .iter()
            .filter(|id| is(id) && !winners.contains(id))
            .copied()
            .collect();
        let won: Vec<u64> = winners.into_iter().filter(|id| !is(id)).collect();
        let parked: Vec<bool> = lost
            .iter()
            .map(|id| {
                let contract = &self.contracts[id];
                !self.machines[machine].meets_floor(contract)
            })
            .collect();
        for &id in &lost {
            self.ungrant(id);
        }
        for &id in &won {
            self.grant(id);
        }
        for (id, parked) in lost.into_iter().zip(parked) {
            self.after_loss(id, parked);
        }
    }

    /// A contract gets its GPUs.
    fn grant(&mut self, id: u64) {
        let Some(contract) = self.contracts.get_mut(&id) else {
            return;
        };
        contract.granted = true;
        let now = self.now;
        let (machine, slice, bid) = (contract.machine, contract.slice, contract.bid);
        contract.reserve = self.machines[machine].floor(slice);
        if contract.account().is_none() {
            return;
        }
        let first = contract.task().is_some_and(|task| task.version == 0);
        if let Some(task) = contract.task_mut() {
            task.queued = false;
            task.granted_at = now;
        }
        if !first {
            self.tell(machine, Happening::Resumed { instance: id });
        }
        if let Some(bid) = bid {
            let shown = self.machines[machine].floor(slice);
            self.machines[machine].slices[slice]
                .echo
                .get_or_insert(shown);
            self.echo_later(id, machine, slice, Some(bid), true);
            self.attract(id);
        }
        self.boot(id);
    }

    /// A contract loses its GPUs; its container dies at once.
    pub(super) fn ungrant(&mut self, id: u64) {
        let now = self.now;
        let Some(contract) = self.contracts.get_mut(&id) else {
            return;
        };
        contract.granted = false;
        let online = self.machines[contract.machine].online;
        if let Some(task) = contract.task_mut() {
            task.goes_down(now, super::contract::Container::Exited);
            task.status_msg = Some("stopped".into());
        }
        contract.retune(now, online);
    }

    /// What follows from having lost in an auction.
    fn after_loss(&mut self, id: u64, parked: bool) {
        let Some(contract) = self.contracts.get(&id) else {
            return;
        };
        let (machine, slice, gpus) = (contract.machine, contract.slice, contract.gpus);
        if matches!(contract.owner, Owner::Rival(_)) {
            self.rival_lost(id);
            return;
        }
        if parked || !contract.wants {
            self.release_echo(id, machine, slice);
            self.tell(machine, Happening::Parked { instance: id });
            return;
        }
        // Who took the GPUs is plain to see: the echo ends with the hold.
        let mask = contract.mask;
        let place = &mut self.machines[machine].slices[slice];
        place.echo = None;
        place.echo_version += 1;
        let best = self.machines[machine]
            .holders(&self.contracts, mask)
            .map(|holder| holder.bid.map(|bid| (bid, holder.gpus)))
            .reduce(|best, other| match (best, other) {
                (Some(a), Some(b)) if super::machine::higher(b, a) => Some(b),
                (Some(a), Some(_)) => Some(a),
                _ => None,
            });
        let what = match best.flatten() {
            Some((bid, winner_gpus)) => Happening::Outbid {
                instance: id,
                by: Rate(
                    (i128::from(bid.0) * i128::from(gpus) / i128::from(winner_gpus.max(1))) as i64,
                ),
            },
            None => Happening::OnDemandTook { instance: id },
        };
        self.tell(machine, what);
    }

    /// The account's living instances, in order.
    pub(super) fn ids_of(&self, account: u64) -> Vec<u64> {
        self.contracts
            .values()
            .filter(|contract| contract.account() == Some(account))
            .map(|contract| contract.id)
            .collect()
    }

    /// Prepaid money that the account has left, to the nano-dollar: what was paid in, less the
    /// exact bill.
    pub fn credit(&self, account: u64) -> Money {
        let Some(held) = self.accounts.get(&account) else {
            return Money::ZERO;
        };
        let settled = self.settled_in_all.get(&account).copied();
        self.living_bills(account).fold(
            held.balance - settled.unwrap_or_default(),
            |left, (_, bill)| left - bill.total(),
        )
    }

    /// The bill of each instance that the account ever had, destroyed ones too.
    pub(super) fn bills_of(&self, account: u64) -> impl Iterator<Item = (u64, ExactBill)> {
        let settled = self
            .settled
            .iter()
            .filter(move |(_, (whose, _))| *whose == account)
            .map(|(id, (_, bill))| (*id, *bill));
        settled.chain(self.living_bills(account))
    }

    fn living_bills(&self, account: u64) -> impl Iterator<Item = (u64, ExactBill)> {
        self.contracts.values().filter_map(move |contract| {
            let task = contract.task().filter(|task| task.account == account)?;
            Some((contract.id, task.meter.bill(self.now)))
        })
    }

    /// The exact books of one instance, living or destroyed, as of now; `None` where there was none
    /// or it is not an account's. For checkers; no wire shows it.
    pub fn bill_of(&self, instance: u64) -> Option<ExactBill> {
        if let Some((_, bill)) = self.settled.get(&instance) {
            return Some(*bill);
        }
        let task = self.contracts.get(&instance)?.task()?;
        Some(task.meter.bill(self.now))
    }

    /// Closes the books of a contract that ended now.
    pub(super) fn close_books(&mut self, contract: Contract) {
        if let Some(task) = contract.task() {
            let bill = task.meter.bill(self.now);
            self.settled.insert(contract.id, (task.account, bill));
            *self.settled_in_all.entry(task.account).or_default() += bill.total();
        }
        self.past.insert(contract.id, (contract, self.now));
    }

    /// A new offer id for a slice; the old one is remembered as gone.
    pub(super) fn renew_ask(&mut self, machine: usize, slice: usize) {
        if !self.may_be_offered(machine, slice) {
            return;
        }
        let id = self.next_ask;
        self.next_ask += 1 + self.machines[machine].dice.whole(0, 6) as u64;
        let now = self.now;
        let place = &mut self.machines[machine].slices[slice];
        if place.ask != 0 {
            self.asks.remove(&place.ask);
            self.old_asks.insert(place.ask);
        }
        place.ask = id;
        place.used_by.clear();
        place.listed = now;
        self.asks.insert(id, (machine, slice));
    }
}

/// The number of the account that a token opens.
fn account_id(token: &str) -> u64 {
    let hash = Sha256::digest(token.as_bytes());
    hash.iter()
        .take(4)
        .fold(1_u64, |id, &byte| id << 8 | u64::from(byte))
}
