//! A state being changed: the working copy on which observations are folded, and the list of
//! changes that made it.

use chrono::NaiveDate;
use chrono_tz::Tz;

use crate::types::ids::{InstanceId, ReplicaId};
use crate::types::intent::{Effect, Intent, IntentState};
use crate::types::ledger::{EntryKind, Line};
use crate::types::money::Money;
use crate::types::state::{Change, Event, Severity, State};
use crate::types::time::Time;

/// A working copy of the state. Records are edited in place; [`Draft::finish`] turns what differs
/// into changes, so that an observation which says nothing new changes nothing.
pub(crate) struct Draft<'a> {
    was: &'a State,
    /// The state as it will be.
    pub(crate) state: State,
    log: Vec<Change>,
    gone: Vec<(InstanceId, Time)>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(state: &'a State) -> Self {
        Self {
            was: state,
            state: state.clone(),
            log: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// Whether a replica had ended before.
    pub(crate) fn had_ended(&self, id: &ReplicaId) -> bool {
        let record = self.was.replicas.get(id);
        record.is_some_and(|record| record.ending.is_some())
    }

    /// Whether an instance was known before.
    pub(crate) fn was_known(&self, id: InstanceId) -> bool {
        self.was.held.contains_key(&id)
    }

    /// Appends a line of the ledger, on the present day, on behalf of whom the job's policy says.
    pub(crate) fn entry(&mut self, zone: Tz, line: Line) {
        let day = line.at.day(zone);
        self.entry_of(day, line);
    }

    /// Appends a line of the ledger that counts on a day of its own.
    pub(crate) fn entry_of(&mut self, day: NaiveDate, line: Line) {
        if line.amount == Money::ZERO {
            return;
        }
        let payer = self.state.job(&line.replica.job).payer;
        self.log(Change::Entry(line.on(day, payer)));
    }

    /// Tells of something that happened.
    pub(crate) fn event(
        &mut self,
        at: Time,
        severity: Severity,
        kind: &str,
        subject: (Option<&ReplicaId>, Option<InstanceId>),
        text: String,
    ) {
        self.log.push(Change::Event(Event {
            at,
            severity,
            kind: kind.to_owned(),
            replica: subject.0.cloned(),
            instance: subject.1,
            text,
        }));
    }

    /// Moves an intent on. One that is settled gives its reservation back.
    pub(crate) fn intent(&mut self, zone: Tz, at: Time, intent: &Intent, to: IntentState) {
        let reserved = self.state.reserved.get(&intent.id).copied();
        if let (false, Some(reserved), Some(replica)) = (
            to.is_open(),
            reserved,
            replica_of(&self.state, &intent.effect),
        ) {
            let instance = match to {
                IntentState::Done { instance } => Some(instance),
                _ => intent.effect.instance(),
            };
            let kind = match to {
                IntentState::Done { .. } => EntryKind::Post,
                _ => EntryKind::Void,
            };
            self.entry(
                zone,
                Line {
                    at,
                    kind,
                    replica,
                    intent: intent.id,
                    instance,
                    component: None,
                    amount: -reserved,
                },
            );
        }
        self.log(Change::Intent(Intent {
            state: to,
            ..intent.clone()
        }));
    }

    /// Remembers something beside what was learnt about the wire.
    pub(crate) fn remember(&mut self, key: String, value: String) {
        self.log(Change::Wire {
            key,
            value: Some(value),
        });
    }

    /// Forgets what was remembered.
    pub(crate) fn forget(&mut self, key: String) {
        self.log(Change::Wire { key, value: None });
    }

    /// An instance is gone, settled. Its last record goes out before it.
    pub(crate) fn gone(&mut self, instance: InstanceId, at: Time) {
        self.gone.push((instance, at));
    }

    fn log(&mut self, change: Change) {
        self.state.apply(&change);
        self.log.push(change);
    }

    /// The changes: records that differ, then what happened in order, then what is gone.
    pub(crate) fn finish(self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (id, record) in &self.state.machines {
            if self.was.machines.get(id) != Some(record) {
                changes.push(Change::Machine(record.clone()));
            }
        }
        for (name, record) in &self.state.jobs {
            if self.was.jobs.get(name) != Some(record) {
                changes.push(Change::Job(record.clone()));
            }
        }
        for (id, record) in &self.state.replicas {
            if self.was.replicas.get(id) != Some(record) {
                changes.push(Change::Replica(record.clone()));
            }
        }
        for (id, held) in &self.state.held {
            if self.was.held.get(id) != Some(held) {
                changes.push(Change::Held(Box::new(held.clone())));
            }
        }
        changes.extend(self.log);
        changes.extend(
            self.gone
                .into_iter()
                .map(|(instance, at)| Change::Gone { instance, at }),
        );
        changes
    }
}

/// For which replica an effect is; `None` where its instance is not known.
pub(crate) fn replica_of(state: &State, effect: &Effect) -> Option<ReplicaId> {
    match effect {
        Effect::Rent { replica, .. } => Some(replica.clone()),
        other => other
            .instance()
            .and_then(|id| state.held.get(&id))
            .map(|held| held.replica.clone()),
    }
}
