//! No ratchet: what is bid stays under the on-demand rate, and nothing is raised against an echo.

use std::collections::BTreeMap;

use crate::market::Standing;
use crate::types::money::{BID_STEP, Rate};
use crate::types::time::Time;

/// What was read of a slot's on-demand rate counts for so long: a plan decides on offers that are
/// at most ten minutes old, and acts within minutes.
const REVALIDATED_MS: i64 = 20 * 60_000;

/// A bid of ours may show in a machine's floors for so long after it.
const ECHO_MS: i64 = 30 * 60_000;

/// What a rival did on a slot is a reason for so long.
const REASON_MS: i64 = 45 * 60_000;

/// What is known of our bids on a slot: a machine and a number of its GPUs.
#[derive(Clone, Copy, Debug)]
struct Slot {
    highest: Rate,
    at: Time,
}

/// Watches bids.
#[derive(Debug, Default)]
pub(super) struct Bids {
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

    /// Looks at how an instance stands; what is wrong with its bid.
    pub(super) fn look(&mut self, id: u64, now: Time, stands: &Standing) -> Option<String> {
        let bid = stands.bid?;
        if stands.rivals > 0 {
            self.rivals.insert(stands.machine, now);
        }
        let seen = self.on_demand.entry(id).or_default();
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
        let highest = fresh.map_or(bid, |known| known.highest.max(bid));
        self.slots.insert(slot, Slot { highest, at: now });
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
