//! The durable side of an effect: the intent before the request, the outcome after it.
//!
//! What holds from the moment that a request may leave is written with its intent, in one
//! transaction; what came of it, with the release of its reservation, in another. A process that
//! dies in between leaves an open intent, which the next one takes as unknown.

use std::time::Duration;

use super::{Daemon, DaemonError};
use crate::engine::array::member;
use crate::engine::sent::sent;
use crate::types::ids::{InstanceId, IntentId, ReplicaId};
use crate::types::intent::{Effect, Intent, IntentState};
use crate::types::job::{Job, Parameters};
use crate::types::ledger::{EntryKind, Line};
use crate::types::money::Money;
use crate::types::plan::Action;
use crate::types::state::{Change, Event, Severity};
use crate::types::time::Time;

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
        let changes = sent(&self.state, &self.settings.engine, &intent, parameters);
        self.commit(&changes)?;
        Ok(intent)
    }

    fn replica_of(&self, effect: &Effect) -> Option<ReplicaId> {
        match effect {
            Effect::Rent { replica, .. } => Some(replica.clone()),
            _ => Some(self.state.held.get(&effect.instance()?)?.replica.clone()),
        }
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
