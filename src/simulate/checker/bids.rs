//! No ratchet: what is bid stays under the on-demand rate, and nothing is raised against an echo.

use std::collections::BTreeMap;

use crate::market::{Market, Standing};
use crate::types::ids::IntentId;
use crate::types::instance::Rental;
use crate::types::intent::{Effect, Intent};
use crate::types::money::{BID_STEP, Rate};
use crate::types::time::Time;

/// What was read of a slot's on-demand rate counts for so long: a plan decides on offers that are
/// at most ten minutes old, and acts within minutes.
const REVALIDATED_MS: i64 = 20 * 60_000;

/// A bid of ours may show in a machine's floors for so long after it.
const ECHO_MS: i64 = 30 * 60_000;

/// What a rival did on a slot is a reason for so long.
const REASON_MS: i64 = 45 * 60_000;

/// The highest of our bids on a slot, a machine and a number of its GPUs, and when it stood there
/// last.
#[derive(Clone, Copy, Debug)]
struct Slot {
    highest: Rate,
    at: Time,
}

/// A rental by a bid, as it was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Time,
    /// The bid, with the disk.
    rate: Rate,
    /// The slot's on-demand rate then.
    on_demand: Option<Rate>,
}

/// Watches bids.
#[derive(Debug, Default)]
pub(super) struct Bids {
    /// Rentals by a bid that were asked for.
    asked: BTreeMap<IntentId, Asked>,
    /// The bid of each instance when last looked at.
    bids: BTreeMap<u64, Rate>,
    /// The on-demand rates of each instance's slot, oldest first.
    on_demand: BTreeMap<u64, Vec<(Time, Rate)>>,
    slots: BTreeMap<(u64, u32), Slot>,
    /// When somebody else last bid on, or took, something of a machine.
    rivals: BTreeMap<u64, Time>,
}

impl Bids {
    /// Somebody else displaced us on a machine.
    pub(super) fn displaced(&mut self, machine: u64, at: Time) {
        self.rivals.insert(machine, at);
    }

    /// What others have slots cost is read, also of those where nothing of ours is any more: it shows in
    /// their floors, and is a reason to bid more there, also after it has gone.
    pub(super) fn looks_around(&mut self, now: Time, of_others: impl Fn(u64, u32) -> Option<Rate>) {
        let fresh = |slot: &Slot| now.ms_since(slot.at) <= ECHO_MS;
        for (&(machine, gpus), slot) in self.slots.iter().filter(|(_, slot)| fresh(slot)) {
            if of_others(machine, gpus).is_some_and(|floor| floor > slot.highest) {
                self.rivals.insert(machine, now);
            }
        }
    }

    /// The daemon is about to ask for something.
    pub(super) fn asks(&mut self, intent: &Intent, market: &Market) {
        if let Effect::Rent {
            slot,
            rental: Rental::Bid,
            price,
            storage,
            ..
        } = intent.effect
        {
            let asked = Asked {
                at: market.now(),
                rate: price + storage,
                on_demand: market.on_demand_of(slot.machine.0, slot.gpus),
            };
            self.asked.insert(intent.id, asked);
        }
    }

    /// What a rental was to cost an hour where a bid was asked for.
    pub(super) fn asked_for(&self, rent: IntentId) -> Option<Rate> {
        self.asked.get(&rent).map(|asked| asked.rate)
    }

    /// Looks at how an instance that a rent made stands; what is wrong with its bid.
    pub(super) fn look(
        &mut self,
        id: u64,
        rent: IntentId,
        now: Time,
        stands: &Standing,
    ) -> Option<String> {
        let bid = stands.bid?;
        if stands.rivals > 0 {
            self.rivals.insert(stands.machine, now);
        }
        let asked = self.asked.get(&rent);
        let seen = self.on_demand.entry(id).or_insert_with(|| {
            // A request that the network held up takes effect after the rate that it was held
            // against has changed. Nobody can see to that: what is sent is under what is known then.
            let then = asked.and_then(|asked| Some((asked.at, asked.on_demand?)));
            then.into_iter().collect()
        });
        if seen
            .last()
            .is_none_or(|(_, rate)| *rate != stands.on_demand)
        {
            seen.push((now, stands.on_demand));
        }
        let before = self.bids.insert(id, bid);
        let rises = before.is_none_or(|before| bid > before);
        let wrong = rises.then(|| self.wrong(id, now, bid, stands)).flatten();
        let slot = (stands.machine, stands.gpus);
        let known = self.slots.get(&slot).copied();
        let fresh = known.filter(|known| now.ms_since(known.at) <= ECHO_MS);
        let highest = fresh.filter(|known| known.highest > bid);
        let stood = highest.unwrap_or(Slot {
            highest: bid,
            at: now,
        });
        self.slots.insert(slot, stood);
        wrong
    }

    fn wrong(&self, id: u64, now: Time, bid: Rate, stands: &Standing) -> Option<String> {
        let rates = self.on_demand.get(&id)?;
        let replaced = rates.iter().skip(1).map(|(at, _)| Some(*at));
        let most = rates
            .iter()
            .zip(replaced.chain([None]))
            .filter(|(_, replaced)| replaced.is_none_or(|at| now.ms_since(at) <= REVALIDATED_MS))
            .map(|((_, rate), _)| *rate)
            .max()
            .max(Some(stands.agreed))?;
        if bid > most {
            return Some(format!(
                "the bid of instance {id} is {bid}/h, over the on-demand rate of {most}/h"
            ));
        }
        let ours = self
            .slots
            .get(&(stands.machine, stands.gpus))
            .filter(|slot| now.ms_since(slot.at) <= ECHO_MS)?;
        let reason = self
            .rivals
            .get(&stands.machine)
            .is_some_and(|at| now.ms_since(*at) <= REASON_MS);
        if bid > ours.highest + BID_STEP && !reason && stands.floor <= ours.highest {
            return Some(format!(
                "instance {id} raises from {} to {bid}/h on machine {}, where nobody else bids",
                ours.highest, stands.machine
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn standing(bid: i64) -> Standing {
        Standing {
            machine: 9,
            gpus: 1,
            bid: Some(Rate(bid)),
            wants: true,
            agreed: Rate(400_000_000),
            on_demand: Rate(400_000_000),
            floor: Rate(70_000_000),
            rivals: 0,
        }
    }

    /// What is said of a second rental that bids more, 20 minutes after the first, where others had the
    /// slot cost so much in between.
    fn second(of_others: Rate) -> Option<String> {
        let mut bids = Bids::default();
        let (first, second) = (standing(76_000_000), standing(83_000_000));
        assert_eq!(bids.look(1, IntentId(1), Time(0), &first), None);
        bids.looks_around(Time(10 * MINUTE), |machine, gpus| {
            (machine == 9 && gpus == 1).then_some(of_others)
        });
        bids.looks_around(Time(19 * MINUTE), |_, _| Some(Rate(70_000_000)));
        bids.look(2, IntentId(2), Time(20 * MINUTE), &second)
    }

    #[test]
    fn a_rival_on_a_slot_that_was_left_is_a_reason_to_bid_more_there() {
        assert_eq!(second(Rate(79_000_000)), None);
        let wrong = second(Rate(75_000_000)).unwrap();
        assert!(wrong.contains("raises from"), "{wrong}");
    }
}
