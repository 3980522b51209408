//! Proving what is not there.
//!
//! A request that was lost may still have its effect, and a listing may lag. So an absence is
//! believed only when two complete listings at least [`APART`] apart lack the thing, the first
//! begun at least [`AFTER_REQUEST`] after the request ended; and for an id that we know, a read by
//! id must say positively that it does not exist. The waits are monotonic and start again with the
//! process: a proof half made by a process that died is no proof.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::types::ids::{InstanceId, IntentId};
use crate::types::instance::Listing;
use crate::types::intent::Effect;
use crate::types::state::State;
use crate::types::time::Mono;

/// The least time between the two listings of a proof.
pub const APART: Duration = Duration::from_secs(30);

/// How long a request may still take effect after it ended. An assumption about the marketplace;
/// the embedded one keeps it.
pub const AFTER_REQUEST: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Instance(InstanceId),
    Intent(IntentId),
}

#[derive(Clone, Copy, Debug, Default)]
struct Proof {
    /// When the last request about it ended, or it was last seen; where this process did neither,
    /// when the first listing since it is known of began. So one that was made a moment ago, and
    /// that lists show late, waits as long as any.
    quiet_since: Mono,
    /// When the first complete listing without it began.
    first_absent: Option<Mono>,
    /// Whether a second one confirmed it.
    confirmed: bool,
    /// Whether the last listing that says anything about it lacked it.
    missing: bool,
}

/// The absences that are being proven.
#[derive(Debug, Default)]
pub(super) struct Settle {
    proofs: BTreeMap<Subject, Proof>,
}

/// What a listing proved absent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Absent {
    /// Instances of ours absent from two complete listings: a read by id must still confirm.
    pub instances: Vec<InstanceId>,
    /// Intents proven not to have taken effect.
    pub intents: BTreeSet<IntentId>,
}

impl Settle {
    /// A request about an instance ended now: what it may still do must be waited for.
    pub(super) fn touched(&mut self, instance: InstanceId, now: Mono) {
        self.restart(Subject::Instance(instance), now);
    }

    /// An intent's request ended now, with an outcome that nobody knows.
    pub(super) fn unknown(&mut self, intent: IntentId, now: Mono) {
        self.restart(Subject::Intent(intent), now);
    }

    /// Whether the last complete listing lacked an instance: asking for it again would only start
    /// the proof over.
    pub(super) fn seems_gone(&self, instance: InstanceId) -> bool {
        self.proofs
            .get(&Subject::Instance(instance))
            .is_some_and(|proof| proof.missing)
    }

    fn restart(&mut self, subject: Subject, now: Mono) {
        self.proofs.insert(
            subject,
            Proof {
                quiet_since: now,
                ..Proof::default()
            },
        );
    }

    /// Takes up a listing that began at `begun`. An incomplete one proves presence only.
    pub(super) fn listed(&mut self, state: &State, listing: &Listing, begun: Mono) -> Absent {
        let present: BTreeSet<InstanceId> = listing
            .rows
            .iter()
            .map(|row| row.id)
            .chain(listing.unreadable.iter().copied())
            .collect();
        let labels: BTreeSet<IntentId> = listing
            .rows
            .iter()
            .flat_map(|row| state.rents_shown_by(row))
            .map(|intent| intent.id)
            .collect();
        let mut absent = Absent::default();
        for &instance in state.held.keys() {
            let subject = Subject::Instance(instance);
            if self.step(
                subject,
                present.contains(&instance),
                listing.complete,
                begun,
            ) {
                absent.instances.push(instance);
            }
        }
        for intent in state.intents.values() {
            let subject = Subject::Intent(intent.id);
            let proven = match intent.effect {
                Effect::Rent { .. } => self.step(
                    subject,
                    labels.contains(&intent.id),
                    listing.complete,
                    begun,
                ),
                // A change shows by reading the instance back; once the request can no longer
                // have an effect, what the row says is what there is.
                _ => self.quiet_for(subject, begun) >= AFTER_REQUEST && listing.complete,
            };
            if proven {
                absent.intents.insert(intent.id);
            }
        }
        self.proofs.retain(|subject, _| match subject {
            Subject::Instance(id) => state.held.contains_key(id),
            Subject::Intent(id) => state.intents.contains_key(id),
        });
        absent
    }

    fn quiet_for(&mut self, subject: Subject, begun: Mono) -> Duration {
        begun.since(self.proof(subject, begun).quiet_since)
    }

    fn proof(&mut self, subject: Subject, begun: Mono) -> &mut Proof {
        self.proofs.entry(subject).or_insert(Proof {
            quiet_since: begun,
            ..Proof::default()
        })
    }

    /// One listing's word on one subject; whether its absence is now confirmed.
    fn step(&mut self, subject: Subject, present: bool, complete: bool, begun: Mono) -> bool {
        let proof = self.proof(subject, begun);
        if present {
            *proof = Proof {
                quiet_since: begun,
                ..Proof::default()
            };
            // A destroy's request keeps its own wait: seeing the instance must not shorten it,
            // and `begun` is never earlier than the request's end.
            return false;
        }
        if !complete {
            return proof.confirmed;
        }
        proof.missing = true;
        match proof.first_absent {
            None if begun.since(proof.quiet_since) >= AFTER_REQUEST => {
                proof.first_absent = Some(begun);
            }
            Some(first) if begun.since(first) >= APART => proof.confirmed = true,
            _ => {}
        }
        proof.confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::{Installation, Label, ReplicaId, Slot};
    use crate::types::instance::{Held, Instance, Rental};
    use crate::types::intent::{Intent, IntentState};
    use crate::types::money::{Money, Rate};
    use crate::types::state::Change;
    use crate::types::time::Time;

    fn state_with_intent() -> State {
        let mut state = State::new(Installation::from_seed(1));
        state.apply(&Change::Intent(Intent {
            id: IntentId(7),
            at: Time(0),
            effect: Effect::Rent {
                replica: ReplicaId {
                    job: "train".parse().unwrap(),
                    index: 0,
                },
                generation: 1,
                slot: Slot {
                    machine: crate::types::ids::MachineId(1),
                    gpus: 1,
                },
                offer: crate::types::ids::OfferId(1),
                rental: Rental::Bid,
                price: Rate(1),
                disk_gb: 8,
                storage: Rate(1),
                from: None,
                traffic: None,
            },
            reserved: Money(1),
            state: IntentState::Unknown { since: Time(0) },
        }));
        state
    }

    fn listing(complete: bool, rows: Vec<Instance>) -> Listing {
        Listing {
            rows,
            complete,
            unreadable: Vec::new(),
        }
    }

    fn labelled(state: &State) -> Instance {
        let label = Label {
            installation: state.installation.clone(),
            replica: ReplicaId {
                job: "train".parse().unwrap(),
                index: 0,
            },
            intent: IntentId(7),
        };
        Instance {
            id: InstanceId(9),
            label: Some(label.to_string()),
            machine: None,
            host: None,
            gpus: None,
            gpu_ids: Vec::new(),
            gpu_name: None,
            is_bid: None,
            price: None,
            storage: None,
            burn: None,
            cur_state: None,
            intended: None,
            next_state: None,
            actual: None,
            status_msg: None,
            started_at: None,
            up_ms: None,
            ends_at: None,
            disk_gb: None,
            ssh: None,
            gpu_util: None,
        }
    }

    #[test]
    fn a_lost_create_is_void_after_two_late_complete_listings() {
        let state = state_with_intent();
        let mut settle = Settle::default();
        settle.unknown(IntentId(7), Mono(10_000));
        let void = |settle: &mut Settle, complete, at| {
            !settle
                .listed(&state, &listing(complete, vec![]), Mono(at))
                .intents
                .is_empty()
        };
        assert!(!void(&mut settle, true, 20_000), "too early to count");
        assert!(!void(&mut settle, true, 129_999), "still within 120 s");
        assert!(!void(&mut settle, true, 130_000), "the first that counts");
        assert!(!void(&mut settle, true, 159_999), "too close to the first");
        assert!(!void(&mut settle, false, 170_000), "incomplete");
        assert!(void(&mut settle, true, 160_000));
    }

    #[test]
    fn seeing_the_label_starts_over() {
        let state = state_with_intent();
        let mut settle = Settle::default();
        settle.unknown(IntentId(7), Mono(0));
        settle.listed(&state, &listing(true, vec![]), Mono(130_000));
        settle.listed(
            &state,
            &listing(false, vec![labelled(&state)]),
            Mono(140_000),
        );
        let absent = settle.listed(&state, &listing(true, vec![]), Mono(200_000));
        assert_eq!(absent, Absent::default());
    }

    #[test]
    fn a_new_process_waits_again() {
        let state = state_with_intent();
        let mut settle = Settle::default();
        let absent = settle.listed(&state, &listing(true, vec![]), Mono(100));
        assert_eq!(absent, Absent::default());
    }

    #[test]
    fn an_instance_that_was_just_made_is_not_gone_because_lists_show_it_late() {
        let mut state = State::new(Installation::from_seed(1));
        let mut settle = Settle::default();
        // The process is old by then.
        settle.listed(&state, &listing(true, vec![]), Mono(1_000_000));
        let replica = ReplicaId {
            job: "train".parse().unwrap(),
            index: 0,
        };
        let held = Held::new(InstanceId(9), IntentId(7), replica, Time(0));
        state.apply(&Change::Held(Box::new(held)));
        let gone = |settle: &mut Settle, at| {
            let absent = settle.listed(&state, &listing(true, vec![]), Mono(at));
            !absent.instances.is_empty()
        };
        for at in [1_001_000, 1_032_000, 1_063_000, 1_120_999, 1_121_000] {
            assert!(!gone(&mut settle, at), "{at}");
        }
        assert!(gone(&mut settle, 1_151_000));
    }

    #[test]
    fn a_label_cut_within_its_intent_is_not_taken_for_another_whole_one() {
        let mut state = state_with_intent();
        let mut intent = state.intents[&IntentId(7)].clone();
        intent.id = IntentId(1_795_478_400_000);
        state.apply(&Change::Intent(intent.clone()));
        let mut row = labelled(&state);
        let whole = Label {
            intent: intent.id,
            ..Label::parse(row.label.as_deref().unwrap()).unwrap()
        };
        let mut shown = whole.to_string();
        shown.truncate(shown.len() - 3);
        assert!(Label::parse(&shown).is_some(), "it reads as a whole one");
        row.label = Some(shown);
        let found: Vec<IntentId> = state.rents_shown_by(&row).map(|rent| rent.id).collect();
        assert_eq!(found, [intent.id]);
    }

    #[test]
    fn a_label_cut_short_keeps_every_rent_that_it_may_be_from_being_void() {
        let state = state_with_intent();
        let mut row = labelled(&state);
        let shown = row.label.as_ref().map(|label| label[..20].to_owned());
        row.label = shown;
        let mut settle = Settle::default();
        let complete = listing(true, vec![row.clone()]);
        let absent = settle.listed(&state, &complete, Mono(0));
        assert!(absent.intents.is_empty());
        for at in [200_000, 400_000, 600_000] {
            let absent = settle.listed(&state, &complete, Mono(at));
            assert!(absent.intents.is_empty(), "it is there");
        }
        row.machine = Some(crate::types::ids::MachineId(77));
        assert_eq!(state.rents_shown_by(&row).count(), 0, "on another machine");
    }
}
