//! What holds from the moment that a request may leave, whatever becomes of its answer.

use crate::types::ids::{MachineId, Permit};
use crate::types::instance::{DestroyWhy, Rental};
use crate::types::intent::{Effect, Intent};
use crate::types::job::Parameters;
use crate::types::ledger::{EntryKind, Line};
use crate::types::money::{BID_PARKED, Money, Rate};
use crate::types::state::{Change, State};
use crate::types::time::Time;
use crate::types::world::EngineConfig;

use super::draft::replica_of;

/// For how many first coolings a machine is left alone after we were driven from it.
const LEFT_ALONE: u32 = 3;

/// The changes that record an intent: itself, its reservation, and what the request makes true of the
/// things it is about even if its answer is lost. `parameters` are those of the element that is rented for.
pub fn sent(
    state: &State,
    config: &EngineConfig,
    intent: &Intent,
    parameters: Option<Parameters>,
) -> Vec<Change> {
    let mut changes = vec![Change::Intent(intent.clone())];
    let owner = replica_of(state, &intent.effect);
    if let (Some(replica), true) = (owner, intent.reserved > Money::ZERO) {
        let payer = state.job(&replica.job).payer;
        let line = Line {
            at: intent.at,
            kind: EntryKind::Reserve,
            replica,
            intent: intent.id,
            instance: intent.effect.instance(),
            component: None,
            amount: intent.reserved,
        };
        changes.push(Change::Entry(
            line.on(intent.at.day(config.timezone), payer),
        ));
    }
    changes.extend(foreseen(state, config, intent, parameters));
    changes
}

fn foreseen(
    state: &State,
    config: &EngineConfig,
    intent: &Intent,
    parameters: Option<Parameters>,
) -> Vec<Change> {
    let now = intent.at;
    if let Effect::Rent {
        replica,
        generation,
        slot,
        rental,
        price,
        ..
    } = &intent.effect
    {
        let mut record = state.replica(replica);
        record.generation = record.generation.max(*generation);
        record.starts += 1;
        record.parameters = parameters;
        let mut changes = vec![Change::Replica(record)];
        if *rental == Rental::Bid {
            changes.push(bid_mark(state, slot.machine, *price, now));
        }
        return changes;
    }
    let held = intent.effect.instance().and_then(|id| state.held.get(&id));
    let Some(mut held) = held.cloned() else {
        return Vec::new();
    };
    let mut changes = Vec::new();
    let resumes = match intent.effect {
        Effect::SetBid { bid, .. } => bid > BID_PARKED,
        Effect::Start { .. } => true,
        _ => false,
    };
    if resumes && held.stop_asked {
        // It is waited for from now on, however long it rested.
        held.phase_since = now;
    }
    match intent.effect {
        Effect::SetBid { bid, .. } if bid <= BID_PARKED => {
            held.stop_asked = true;
            held.bid_before_park = held.bid_before_park.or(Some(held.price));
        }
        Effect::SetBid { bid, .. } => {
            held.asked_to_run_at(bid, now);
            changes.push(bid_mark(state, held.slot.machine, bid, now));
        }
        Effect::Stop { .. } => held.stop_asked = true,
        Effect::Start { .. } => {
            held.stop_asked = false;
            held.parked = false;
        }
        Effect::Destroy { why, .. } => {
            if why == DestroyWhy::Moved && held.destroying.is_none() {
                changes.push(left(state, config, held.slot.machine, now));
            }
            held.destroying = Some(held.destroying.unwrap_or(why));
            held.destroy_sent_at = Some(now);
        }
        // A label says so once the marketplace has answered, or a row shows it; but from now on it
        // may, and what waits behind its gate may work.
        Effect::Relabel { tail, .. } => {
            let opens = tail.permit == Permit::Go && tail.generation == held.generation;
            if let Some(bringing) = held.bringing.as_mut().filter(|_| opens) {
                bringing.opened = true;
                bringing.opened_at.get_or_insert(now);
            }
        }
        Effect::Copy { .. } => {
            if let Some(bringing) = &mut held.bringing {
                bringing.begun_at.get_or_insert(now);
                bringing.asked_at = Some(now);
                bringing.accepted = false;
            }
        }
        Effect::Rent { .. } => {}
    }
    changes.push(Change::Held(Box::new(held)));
    changes
}

/// A machine that we were driven from is left alone for a while: what displaced us is likely
/// still there, and coming back pays for another boot.
fn left(state: &State, config: &EngineConfig, machine: MachineId, now: Time) -> Change {
    let mut record = state.machine(machine);
    let until = now + config.cooldown * LEFT_ALONE;
    record.cool_until = record.cool_until.max(Some(until));
    Change::Machine(record)
}

/// Remembers our highest bid on a machine: a floor that only echoes it is no evidence.
fn bid_mark(state: &State, machine: MachineId, bid: Rate, now: Time) -> Change {
    let mut record = state.machine(machine);
    let highest = record.highest_bid.map_or(bid, |(known, _)| known.max(bid));
    record.highest_bid = Some((highest, now));
    Change::Machine(record)
}
