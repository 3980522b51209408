//! What is counted as it becomes durable.

use super::totals::Total;
use super::{Known, Metrics};
use crate::types::ids::InstanceId;
use crate::types::instance::{Held, Phase, Rental};
use crate::types::intent::{Intent, IntentState};
use crate::types::ledger::{Component, Entry, EntryKind};
use crate::types::money::Money;
use crate::types::state::{Change, JobRecord, ReplicaRecord, Severity, State, Wish};
use crate::types::time::Time;

impl Metrics {
    /// Takes up what was known before this process began, so that none of it is counted as new.
    pub fn prime(&self, state: &State) {
        let mut known = self.known();
        known.held.clone_from(&state.held);
        known.replicas.clone_from(&state.replicas);
    }

    /// Counts what a committed batch of changes says.
    pub fn committed(&self, changes: &[Change]) {
        let mut known = self.known();
        for change in changes {
            match change {
                Change::Entry(entry) => count_entry(&mut known, entry),
                Change::Held(now) => self.count_held(&mut known, now),
                Change::Gone { instance, at } => self.count_gone(&mut known, *instance, *at),
                Change::Intent(intent) => self.count_intent(intent),
                Change::Replica(now) => count_replica(&mut known, now),
                Change::Job(job) => forget_unwanted(&mut known, job),
                Change::Event(event) => {
                    let severity = match event.severity {
                        Severity::Info => "info",
                        Severity::Warning => "warning",
                        Severity::Alarm => "alarm",
                    };
                    self.counters.events.with_label_values(&[severity]).inc();
                }
                _ => {}
            }
        }
    }

    fn count_held(&self, known: &mut Known, now: &Held) {
        let was = known.held.insert(now.id, now.clone());
        let total = known.totals.of(&now.replica.job);
        count_money(total, was.as_ref(), now);
        let ran_before = was.as_ref().is_some_and(|was| was.first_ran_at.is_some());
        if let (false, Some(first)) = (ran_before, now.first_ran_at) {
            let provision = self.histograms.provision.with_label_values::<&str>(&[]);
            provision.observe(first.since(now.created_at).as_secs_f64());
        }
        let ours = now.stop_asked || now.destroying.is_some();
        let fell = matches!(now.phase, Phase::Stopped | Phase::Offline);
        if let Some(was) = was.filter(|was| was.phase == Phase::Running && fell && !ours) {
            self.count_loss(known, &was, now.phase_since);
        }
        if now.phase == Phase::Running
            && let Some((lost, since)) = known.lost.remove(&now.replica)
        {
            let way = if lost == now.id {
                "resumed"
            } else {
                "replaced"
            };
            let recovery = self.histograms.recovery.with_label_values(&[way]);
            recovery.observe(now.phase_since.since(since).as_secs_f64());
        }
    }

    fn count_gone(&self, known: &mut Known, instance: InstanceId, at: Time) {
        let last = known.held.remove(&instance);
        let lost = |held: &Held| held.phase == Phase::Running && held.destroying.is_none();
        if let Some(was) = last.filter(lost) {
            self.count_loss(known, &was, at);
        }
    }

    /// An instance that was at work when it was last looked at was seen not to be.
    fn count_loss(&self, known: &mut Known, was: &Held, seen: Time) {
        let detection = self
            .histograms
            .loss_detection
            .with_label_values::<&str>(&[]);
        detection.observe(seen.since(was.accrued_to).as_secs_f64());
        known.lost.insert(was.replica.clone(), (was.id, seen));
    }

    fn count_intent(&self, intent: &Intent) {
        let outcome = match &intent.state {
            IntentState::Open => "recorded",
            IntentState::Unknown { .. } => "unknown",
            IntentState::Done { .. } => "done",
            IntentState::Refused { .. } => "refused",
            IntentState::Void => "void",
        };
        self.counters
            .actions
            .with_label_values(&[intent.effect.as_str(), outcome])
            .inc();
    }
}

fn count_entry(known: &mut Known, entry: &Entry) {
    let (true, Some(component)) = (entry.kind.spends(), entry.component) else {
        return;
    };
    let job = &entry.replica.job;
    known.totals.of(job).spend(component, entry.amount);
    if entry.kind == EntryKind::Correct && component != Component::Traffic {
        *known.drift.entry(job.clone()).or_default() += entry.amount;
    }
}

fn count_money(total: &mut Total, was: Option<&Held>, now: &Held) {
    if let Some(was) = was
        && now.rental == Rental::Bid
        && now.price != was.price
    {
        let changes = if now.price > was.price {
            &mut total.bids_up
        } else {
            &mut total.bids_down
        };
        *changes += 1;
    }
    let billed = now.billed - was.map_or(Money::ZERO, |was| was.billed);
    total.billed += billed.max(Money::ZERO);
}

fn count_replica(known: &mut Known, now: &ReplicaRecord) {
    let was = known
        .replicas
        .insert(now.id.clone(), now.clone())
        .unwrap_or_else(|| ReplicaRecord::new(now.id.clone()));
    let total = known.totals.of(&now.id.job);
    total.outbids += u64::from(now.outbids.saturating_sub(was.outbids));
    total.starts += u64::from(now.starts.saturating_sub(was.starts));
    total.lost_gpu_ms += (now.lost_gpu_ms - was.lost_gpu_ms).max(0);
    if now.ending.is_some() {
        known.lost.remove(&now.id);
    }
}

/// What the user put to rest does not recover.
fn forget_unwanted(known: &mut Known, job: &JobRecord) {
    if job.wish != Wish::Run {
        known.lost.retain(|replica, _| replica.job != job.name);
    }
}
