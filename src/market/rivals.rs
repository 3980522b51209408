//! What others do: hosts reprice, relist, go and come back; bidders and on-demand takers come and
//! go.
//!
//! The rates are fitted to published observations: between two looks 25 minutes apart some 4 % of
//! floors and 2 % of on-demand prices have changed, over a day some 23 % and 21 %, because a few
//! machines move often; and in 71 % of day-to-day pairs the offer id of a slot has changed.

use super::api::Happening;
use super::contract::{Contract, Owner, Rival, RivalKind};
use super::generate::listing_seconds;
use super::machine::BASE_LEVEL;
use super::sim::{Due, Market};
use crate::types::money::{BID_STEP, Rate};

const MINUTE: f64 = 60_000.0;
const HOUR: f64 = 60.0 * MINUTE;

/// Mean gaps of what happens on a machine, busy (or restless) and calm.
const FLOOR_GAP: (f64, f64) = (3.0 * HOUR, 400.0 * HOUR);
const PRICE_GAP: (f64, f64) = (4.0 * HOUR, 300.0 * HOUR);
const BIDDER_GAP: (f64, f64) = (4.5 * HOUR, 60.0 * HOUR);
const TAKER_GAP: (f64, f64) = (18.0 * HOUR, 32.0 * HOUR);
const RELIST_GAP: f64 = 45.0 * HOUR;
const LEAVE_GAP: f64 = 9.0 * 24.0 * HOUR;

/// Mean time until somebody is drawn to a slot that an account holds with a bid.
const CHALLENGE_GAP: f64 = 6.0 * HOUR;

/// Mean stays.
const PLAIN_STAY: f64 = 3.0 * HOUR;
const TWIN_STAY: f64 = 5.0 * HOUR;
const STUBBORN_STAY: f64 = 20.0 * HOUR;
const TAKER_STAY: f64 = 6.0 * HOUR;

/// Share of machines that somebody holds on demand, or with a bid, when a market begins.
const TAKEN_AT_FIRST: f64 = 0.15;
const BID_ON_AT_FIRST: f64 = 0.12;

impl Market {
    /// Puts a machine's first events into the queue.
    pub(super) fn begin_habits(&mut self, machine: usize) {
        for due in [
            Due::Floor(machine),
            Due::Price(machine),
            Due::Bidder(machine),
            Due::Taker(machine),
            Due::Leave(machine),
        ] {
            self.again(machine, due);
        }
        self.relist_later(machine);
        self.begin_failing(machine);
    }

    /// The next event of a kind on a machine, at the kind's mean gap.
    pub(super) fn again(&mut self, machine: usize, due: Due) {
        let held = &mut self.machines[machine];
        let of = |(often, seldom): (f64, f64), is: bool| if is { often } else { seldom };
        let mean = match due {
            Due::Floor(_) => of(FLOOR_GAP, held.busy),
            Due::Price(_) => of(PRICE_GAP, held.restless),
            Due::Bidder(_) => of(BIDDER_GAP, held.busy),
            Due::Taker(_) => of(TAKER_GAP, held.busy),
            _ => LEAVE_GAP,
        };
        if self.options.intensity > 0.0 {
            let ms = held.dice.gap(mean / self.options.intensity);
            self.later(ms, due);
        }
    }

    /// The next relisting: by the host's whim, or when the first listing ends.
    fn relist_later(&mut self, machine: usize) {
        let (intensity, now) = (self.options.intensity, self.now);
        let held = &mut self.machines[machine];
        let ends = held.slices.iter().map(|slice| slice.ends).min();
        let to_end = ends.map_or(i64::MAX, |ends| ends.ms_since(now).max(1000));
        let whim = if intensity > 0.0 {
            held.dice.gap(RELIST_GAP / intensity)
        } else {
            i64::MAX
        };
        let ms = whim.min(to_end);
        if ms < i64::MAX {
            self.later(ms, Due::Relist(machine));
        }
    }

    pub(super) fn floor_moves(&mut self, machine: usize) {
        self.again(machine, Due::Floor(machine));
        let held = &mut self.machines[machine];
        // A rise is taken back in two falls, as observed.
        let level = match held.floor_level - BASE_LEVEL {
            above if above > 150 => BASE_LEVEL + above / 2,
            above if above > 0 => BASE_LEVEL,
            _ => {
                let factor = held.dice.between(1.2, 1.5);
                let most = room_to_on_demand(held);
                ((BASE_LEVEL as f64 * factor) as i64)
                    .min(most)
                    .max(BASE_LEVEL)
            }
        };
        if held.online && held.floor_level != level {
            held.floor_level = level;
            self.tell(machine, Happening::Repriced);
            self.settle(machine);
        }
    }

    pub(super) fn price_moves(&mut self, machine: usize) {
        self.again(machine, Due::Price(machine));
        let held = &mut self.machines[machine];
        let level = if held.price_level == BASE_LEVEL {
            held.dice.whole(880, 1130)
        } else {
            BASE_LEVEL
        };
        if held.online && held.price_level != level {
            held.price_level = level;
            self.tell(machine, Happening::Repriced);
            self.asks_for_more(machine);
        }
    }

    /// Slices whose listing ended, or that nobody of ours holds, are listed anew.
    pub(super) fn relists(&mut self, machine: usize) {
        let soon = self.now + std::time::Duration::from_hours(6);
        for slice in 0..self.machines[machine].slices.len() {
            let held = &mut self.machines[machine];
            let ends = held.slices[slice].ends;
            if ends <= soon {
                let seconds = listing_seconds(&mut held.dice);
                held.slices[slice].ends =
                    self.now + std::time::Duration::from_secs(seconds.unsigned_abs());
                self.may_extend(machine, slice);
            }
            if !self.held_by_account(machine, slice) {
                self.renew_ask(machine, slice);
            }
        }
        self.relist_later(machine);
    }

    fn held_by_account(&self, machine: usize, slice: usize) -> bool {
        self.machines[machine]
            .contracts
            .iter()
            .filter_map(|id| self.contracts.get(id))
            .any(|contract| contract.slice == slice && contract.account().is_some())
    }

    pub(super) fn bidder_comes(&mut self, machine: usize) {
        self.again(machine, Due::Bidder(machine));
        let kind = match self.machines[machine].dice.unit() {
            share if share < 0.68 => RivalKind::Plain,
            share if share < 0.92 => RivalKind::Twin,
            _ => RivalKind::Stubborn,
        };
        let last = self.machines[machine].slices.len() as i64 - 1;
        if last >= 0 {
            let slice = self.machines[machine].dice.whole(0, last) as usize;
            self.bids(machine, slice, kind);
        }
    }

    /// Somebody who looks for cheap slots finds the one that an account holds.
    pub(super) fn attract(&mut self, id: u64) {
        if self.options.intensity <= 0.0 {
            return;
        }
        let mean = CHALLENGE_GAP / self.options.intensity;
        if let Some(task) = self.contracts.get_mut(&id).and_then(Contract::task_mut) {
            let ms = task.dice.gap(mean);
            self.later(ms, Due::Challenger(id));
        }
    }

    pub(super) fn challenger_comes(&mut self, id: u64) {
        let Some(contract) = self.contracts.get(&id).filter(|held| held.granted) else {
            return;
        };
        let (machine, slice) = (contract.machine, contract.slice);
        let kind = if self.machines[machine].dice.chance(0.4) {
            RivalKind::Twin
        } else {
            RivalKind::Plain
        };
        self.bids(machine, slice, kind);
        self.attract(id);
    }

    /// A bidder looks at a slice, and bids if it is worth it. Where an account holds the slice,
    /// some bid under it and wait, unseen.
    pub(super) fn bids(&mut self, machine: usize, slice: usize, kind: RivalKind) {
        let Some(floor) = self.machines[machine].true_floor(&self.contracts, slice) else {
            return;
        };
        if !self.machines[machine].online {
            return;
        }
        let held = &mut self.machines[machine];
        let dice = &mut held.dice;
        let (worth, stay) = match kind {
            RivalKind::Stubborn => (dice.between(1.02, 1.6), STUBBORN_STAY),
            RivalKind::Twin => (dice.between(0.75, 1.0), TWIN_STAY),
            _ => (dice.between(0.6, 1.05), PLAIN_STAY),
        };
        let stay = dice.gap(stay);
        let (part, waits) = (dice.between(0.0, 0.35), dice.chance(0.25));
        let on_demand = held.on_demand(slice);
        let limit = times(on_demand, worth);
        let gpus = i64::from(held.slices[slice].gpus);
        let bid = match kind {
            RivalKind::Twin => times(floor, 1.03).saturating_add(Rate(1_000_000 * gpus)),
            RivalKind::Stubborn => limit,
            _ => floor.saturating_add(times(limit - floor, part)),
        };
        let bid = bid.round_up_to_bid_step();
        if bid <= limit.round_up_to_bid_step() && bid >= floor {
            self.join(machine, slice, kind, Some(bid), (limit, stay));
        } else if waits && self.held_by_account(machine, slice) {
            let under = times(limit.min(floor), 0.97).round_up_to_bid_step();
            self.join(machine, slice, kind, Some(under), (limit, stay));
        }
    }

    pub(super) fn taker_comes(&mut self, machine: usize) {
        self.again(machine, Due::Taker(machine));
        let held = &mut self.machines[machine];
        if !held.online || held.slices.is_empty() {
            return;
        }
        let last = held.slices.len() as i64 - 1;
        let slice = held.dice.whole(0, last) as usize;
        let stay = held.dice.gap(TAKER_STAY);
        if !self.machines[machine].held_on_demand(&self.contracts, slice) {
            self.join(machine, slice, RivalKind::Taker, None, (Rate::ZERO, stay));
        }
    }

    /// A rival's contract begins, for so many milliseconds.
    pub(super) fn join(
        &mut self,
        machine: usize,
        slice: usize,
        kind: RivalKind,
        bid: Option<Rate>,
        (limit, stay): (Rate, i64),
    ) {
        let id = self.next_contract;
        self.next_contract += 1;
        let arrived = self.arrives();
        let held = &mut self.machines[machine];
        let place = &held.slices[slice];
        let rival = Rival {
            kind,
            limit,
            raised: false,
        };
        let contract = Contract {
            id,
            machine,
            slice,
            mask: place.mask,
            gpus: place.gpus,
            bid,
            on_demand: held.on_demand(slice),
            arrived,
            reserve: held.floor(slice),
            wants: true,
            granted: false,
            owner: Owner::Rival(rival),
        };
        held.contracts.insert(id);
        self.contracts.insert(id, contract);
        self.later(stay, Due::RivalLeaves(id));
        self.settle(machine);
    }

    /// A rival lost its GPUs: it thinks it over.
    pub(super) fn rival_lost(&mut self, id: u64) {
        let Some(contract) = self.contracts.get(&id) else {
            return;
        };
        let machine = contract.machine;
        let Owner::Rival(rival) = &contract.owner else {
            return;
        };
        let kind = rival.kind;
        let dice = &mut self.machines[machine].dice;
        let ms = match kind {
            RivalKind::Twin => dice.seconds(45, 150),
            _ => dice.seconds(30, 900),
        };
        self.later(ms, Due::RivalReacts(id));
    }

    /// A rival that lost raises once, if it may and it is worth it; else it leaves.
    pub(super) fn rival_reacts(&mut self, id: u64) {
        let Some(contract) = self.contracts.get(&id).filter(|held| !held.granted) else {
            return;
        };
        let (machine, slice) = (contract.machine, contract.slice);
        let Owner::Rival(rival) = &contract.owner else {
            return;
        };
        let (kind, raised, limit) = (rival.kind, rival.raised, rival.limit);
        let fights = match kind {
            RivalKind::Twin => true,
            RivalKind::Taker => false,
            _ => self.machines[machine].dice.chance(0.35),
        };
        let margin = self.machines[machine].dice.between(1.01, 1.06);
        let floor = self.machines[machine].true_floor(&self.contracts, slice);
        let raise = floor
            .map(|floor| {
                times(floor, margin)
                    .max(floor + BID_STEP)
                    .round_up_to_bid_step()
            })
            .filter(|&bid| fights && !raised && bid <= limit);
        let Some(bid) = raise else {
            self.rival_leaves(id);
            return;
        };
        let arrived = self.arrives();
        if let Some(contract) = self.contracts.get_mut(&id) {
            contract.bid = Some(bid);
            contract.arrived = arrived;
            if let Owner::Rival(rival) = &mut contract.owner {
                rival.raised = true;
            }
        }
        self.settle(machine);
    }

    /// A rival leaves. What it held is listed anew, and whoever waits for it gets it within a
    /// minute.
    pub(super) fn rival_leaves(&mut self, id: u64) {
        let Some(contract) = self.contracts.get(&id) else {
            return;
        };
        let (machine, slice, held) = (contract.machine, contract.slice, contract.granted);
        self.drop_contract(id);
        if held {
            if !self.held_by_account(machine, slice) {
                self.renew_ask(machine, slice);
            }
            let ms = self.machines[machine].dice.seconds(5, 50);
            self.later(self.until_resumed(ms), Due::Auction(machine));
        }
    }

    pub(super) fn drop_contract(&mut self, id: u64) -> Option<Contract> {
        let contract = self.contracts.remove(&id)?;
        self.machines[contract.machine].contracts.remove(&id);
        Some(contract)
    }

    /// Who holds what when a market begins. A floor over the on-demand price is somebody's bid.
    pub(super) fn populate(&mut self) {
        for machine in 0..self.machines.len() {
            let slices = self.machines[machine].slices.len();
            self.hold_high(machine);
            let dice = &mut self.machines[machine].dice;
            let (taken, bid_on) = (dice.chance(TAKEN_AT_FIRST), dice.chance(BID_ON_AT_FIRST));
            let slice = dice.whole(0, slices as i64 - 1).max(0) as usize;
            if taken && slices > 0 {
                let stay = dice.gap(TAKER_STAY);
                self.join(machine, slice, RivalKind::Taker, None, (Rate::ZERO, stay));
            } else if bid_on && slices > 0 {
                self.bids(machine, slice, RivalKind::Plain);
            }
        }
    }

    /// Somebody holds a whole machine whose floor was drawn over its on-demand price.
    fn hold_high(&mut self, machine: usize) {
        let held = &mut self.machines[machine];
        let Some(whole) = held.slices.len().checked_sub(1) else {
            return;
        };
        let bid = held.floor(whole).round_down_to_bid_step();
        if bid <= held.on_demand(whole) {
            return;
        }
        for slice in &mut held.slices {
            slice.base_floor = times(slice.base_price, 0.8);
        }
        let stay = held.dice.gap(STUBBORN_STAY * 1.5);
        self.join(machine, whole, RivalKind::Stubborn, Some(bid), (bid, stay));
    }

    /// Rows that are not rentable are held by somebody on demand.
    pub(super) fn occupy_unrentable(&mut self) {
        for machine in 0..self.machines.len() {
            for slice in 0..self.machines[machine].slices.len() {
                if self.machines[machine].slices[slice].row.rentable {
                    continue;
                }
                let stay = self.machines[machine].dice.gap(TAKER_STAY);
                if !self.machines[machine].held_on_demand(&self.contracts, slice) {
                    self.join(machine, slice, RivalKind::Taker, None, (Rate::ZERO, stay));
                }
            }
        }
    }

    /// A slice's shown floor follows an account's bid: 15 to 95 seconds after a raise, two to four
    /// minutes after a cut, now and then a quarter of an hour.
    pub(super) fn echo_later(
        &mut self,
        id: u64,
        machine: usize,
        slice: usize,
        bid: Option<Rate>,
        raise: bool,
    ) {
        let Some(task) = self.contracts.get_mut(&id).and_then(Contract::task_mut) else {
            return;
        };
        let ms = match (raise, task.dice.chance(0.04)) {
            (true, _) => task.dice.seconds(15, 95),
            (false, false) => task.dice.seconds(120, 240),
            (false, true) => task.dice.seconds(900, 1500),
        };
        let ms = if task.facts.slow_echo { ms * 5 } else { ms };
        let place = &mut self.machines[machine].slices[slice];
        place.echo_version += 1;
        let version = place.echo_version;
        let echo = bid.map(super::machine::round_echo);
        self.later(ms, Due::Echo(machine, slice, version, echo));
    }

    /// An account no longer holds a slice: its echo fades as after a cut.
    pub(super) fn release_echo(&mut self, id: u64, machine: usize, slice: usize) {
        self.echo_later(id, machine, slice, None, false);
    }
}

/// The highest floor level at which no slice's floor passes its on-demand price.
fn room_to_on_demand(machine: &super::machine::Machine) -> i64 {
    (0..machine.slices.len())
        .map(|slice| {
            let (price, base) = (machine.on_demand(slice), machine.slices[slice].base_floor);
            (i128::from(price.0) * 990 / i128::from(base.0.max(1))) as i64
        })
        .min()
        .unwrap_or(BASE_LEVEL)
}

fn times(rate: Rate, factor: f64) -> Rate {
    Rate((rate.0 as f64 * factor) as i64)
}
