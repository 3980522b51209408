//! The durable side of an effect: the intent before the request, the outcome after it.
//!
//! What holds from the moment that a request may leave is written with its intent, in one
//! transaction; what came of it, with the release of its reservation, in another. A process that
//! dies in between leaves an open intent, which the next one takes as unknown.

use std::time::Duration;

use super::{Daemon, DaemonError};
use crate::engine::array::member;
use crate::types::ids::{InstanceId, IntentId, MachineId, Permit, ReplicaId};
use crate::types::instance::{DestroyWhy, Rental};
use crate::types::intent::{Effect, Intent, IntentState};
use crate::types::job::{Job, Parameters};
use crate::types::ledger::{EntryKind, Line};
use crate::types::money::{BID_PARKED, Money, Rate};
use crate::types::plan::Action;
use crate::types::state::{Change, Event, Severity};
use crate::types::time::Time;

/// For how many first coolings a machine is left alone after we were driven from it.
const LEFT_ALONE: u32 = 3;

/// So long an element of an array rests after a rent was refused for what it alone is given.
pub(super) const ELEMENT_RESTS: Duration = Duration::from_mins(5);

pub(super) fn because(reason: &str) -> IntentState {
    IntentState::Refused {
        reason: reason.to_owned(),
    }
}

impl Daemon {
    /// Intents that a dead process left open: the request may have left, so they are unknown.
    pub(super) fn recover(&mut self) -> Result<(), DaemonError> {
        let now = self.now();
        let open: Vec<Change> = self
            .state
            .intents
            .values()
            .filter(|intent| intent.state == IntentState::Open)
            .map(|intent| {
                let state = IntentState::Unknown { since: now };
                Change::Intent(Intent {
                    state,
                    ..intent.clone()
                })
            })
            .collect();
        self.commit(&open)
    }

    pub(super) fn record(&mut self, action: &Action) -> Result<Intent, DaemonError> {
        self.record_effect(action.effect.clone(), action.reserve)
    }

    /// Records a rent, with the parameters of the replica where it is an element of an array: its number
    /// is theirs from now on. `None`: no element has that number, so there is nothing to rent for.
    pub(super) fn record_rent(
        &mut self,
        action: &Action,
        replica: &ReplicaId,
        job: &Job,
    ) -> Result<Option<Intent>, DaemonError> {
        let Some(member) = member(&self.state, job, replica.index) else {
            return Ok(None);
        };
        let parameters = member.parameters.cloned();
        self.record_all(action.effect.clone(), action.reserve, parameters)
            .map(Some)
    }

    /// One transaction: the intent, its reservation, and what the request makes true of the things
    /// it is about even if its answer is lost.
    pub(super) fn record_effect(
        &mut self,
        effect: Effect,
        reserved: Money,
    ) -> Result<Intent, DaemonError> {
        self.record_all(effect, reserved, None)
    }

    fn record_all(
        &mut self,
        effect: Effect,
        reserved: Money,
        parameters: Option<Parameters>,
    ) -> Result<Intent, DaemonError> {
        let now = self.now();
        let id = IntentId::next(self.last_intent(), now.0);
        let intent = Intent {
            id,
            at: now,
            effect,
            reserved,
            state: IntentState::Open,
        };
        let mut changes = vec![Change::Intent(intent.clone())];
        let owner = self.replica_of(&intent.effect);
        if let (Some(replica), true) = (owner, reserved > Money::ZERO) {
            let instance = intent.effect.instance();
            changes.push(self.line(now, EntryKind::Reserve, replica, id, instance, reserved));
        }
        changes.extend(self.foreseen(&intent, parameters));
        self.commit(&changes)?;
        Ok(intent)
    }

    fn replica_of(&self, effect: &Effect) -> Option<ReplicaId> {
        match effect {
            Effect::Rent { replica, .. } => Some(replica.clone()),
            _ => Some(self.state.held.get(&effect.instance()?)?.replica.clone()),
        }
    }

    /// What holds from the moment that a request may leave.
    fn foreseen(&self, intent: &Intent, parameters: Option<Parameters>) -> Vec<Change> {
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
            let mut record = self.state.replica(replica);
            record.generation = record.generation.max(*generation);
            record.starts += 1;
            record.parameters = parameters;
            let mut changes = vec![Change::Replica(record)];
            if *rental == Rental::Bid {
                changes.push(self.bid_mark(slot.machine, *price, now));
            }
            return changes;
        }
        let held = intent
            .effect
            .instance()
            .and_then(|id| self.state.held.get(&id));
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
                changes.push(self.bid_mark(held.slot.machine, bid, now));
            }
            Effect::Stop { .. } => held.stop_asked = true,
            Effect::Start { .. } => {
                held.stop_asked = false;
                held.parked = false;
            }
            Effect::Destroy { why, .. } => {
                if why == DestroyWhy::Moved && held.destroying.is_none() {
                    changes.push(self.left(held.slot.machine, now));
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
    fn left(&self, machine: MachineId, now: Time) -> Change {
        let mut record = self.state.machine(machine);
        let until = now + self.settings.engine.cooldown * LEFT_ALONE;
        record.cool_until = record.cool_until.max(Some(until));
        Change::Machine(record)
    }

    /// Remembers our highest bid on a machine: a floor that only echoes it is no evidence.
    fn bid_mark(&self, machine: MachineId, bid: Rate, now: Time) -> Change {
        let mut record = self.state.machine(machine);
        let highest = record.highest_bid.map_or(bid, |(known, _)| known.max(bid));
        record.highest_bid = Some((highest, now));
        Change::Machine(record)
    }

    pub(super) fn refused(&mut self, intent: Intent, reason: &str) -> Result<(), DaemonError> {
        self.close(intent, because(reason), None)
    }

    /// A rent that was refused for what its replica is given. An element of an array leaves its place to
    /// the others for a while, or they would never have their turn.
    pub(super) fn refused_for_its_own(
        &mut self,
        intent: Intent,
        job: &Job,
        reason: &str,
    ) -> Result<(), DaemonError> {
        let replica = self.replica_of(&intent.effect);
        let element = replica.filter(|_| job.array.is_some());
        let rests = element.map(|replica| {
            let mut record = self.state.replica(&replica);
            record.retry_at = record.retry_at.max(Some(self.now() + ELEMENT_RESTS));
            Change::Replica(record)
        });
        let follows = rests.into_iter().collect();
        self.close_with(intent, because(reason), None, follows)
    }

    /// Nobody knows: the reservation stays until the marketplace shows or refutes it.
    pub(super) fn unknown(&mut self, intent: Intent, message: &str) -> Result<(), DaemonError> {
        let now = self.now();
        tracing::warn!(
            "{} has an unknown outcome: {message}",
            intent.effect.as_str()
        );
        self.settle.unknown(intent.id, self.parts.clock.monotonic());
        self.commit(&[Change::Intent(Intent {
            state: IntentState::Unknown { since: now },
            ..intent
        })])
    }

    pub(super) fn close(
        &mut self,
        intent: Intent,
        state: IntentState,
        story: Option<(&str, Severity, String)>,
    ) -> Result<(), DaemonError> {
        self.close_with(intent, state, story, Vec::new())
    }

    /// Closes an intent, and keeps what else follows from it in the same transaction.
    pub(super) fn close_with(
        &mut self,
        intent: Intent,
        state: IntentState,
        story: Option<(&str, Severity, String)>,
        follows: Vec<Change>,
    ) -> Result<(), DaemonError> {
        let now = self.now();
        let mut changes = follows;
        let owner = self.replica_of(&intent.effect);
        let reserved = self
            .state
            .reserved
            .get(&intent.id)
            .copied()
            .unwrap_or_default();
        if let (Some(replica), true) = (owner.clone(), reserved != Money::ZERO) {
            let instance = intent.effect.instance();
            let kind = match state {
                IntentState::Done { .. } => EntryKind::Post,
                _ => EntryKind::Void,
            };
            changes.push(self.line(now, kind, replica, intent.id, instance, -reserved));
        }
        let made = match state {
            IntentState::Done { instance } => Some(instance),
            _ => intent.effect.instance(),
        };
        changes.push(Change::Intent(Intent { state, ..intent }));
        if let Some((kind, severity, text)) = story {
            changes.push(Change::Event(Event {
                at: now,
                severity,
                kind: kind.to_owned(),
                replica: owner,
                instance: made,
                text,
            }));
        }
        self.commit(&changes)
    }

    /// A line about a reservation.
    fn line(
        &self,
        at: Time,
        kind: EntryKind,
        replica: ReplicaId,
        intent: IntentId,
        instance: Option<InstanceId>,
        amount: Money,
    ) -> Change {
        let day = at.day(self.settings.engine.timezone);
        let payer = self.state.job(&replica.job).payer;
        let line = Line {
            at,
            kind,
            replica,
            intent,
            instance,
            component: None,
            amount,
        };
        Change::Entry(line.on(day, payer))
    }
}
