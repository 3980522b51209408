//! What was paid for instances of ours that no record is left of.
//!
//! A database that was put back does not know what was rented after it was copied. The bill names
//! it, by the label that each instance carried: so it is booked to its job, and counts in its
//! limits, instead of being nobody's.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::ids::{Installation, InstanceId, IntentId, Label, ReplicaId};
use crate::types::instance::{DestroyWhy, Held, Phase};
use crate::types::intent::Charge;
use crate::types::state::State;
use crate::types::time::Time;

/// Records of billed instances that carry this installation's label and are neither held, nor what
/// an open rent may have made. Nothing is posted for them yet. The caller sees to it that they are
/// not among those that ended long ago, and that they exist no more.
pub fn forgotten(state: &State, charges: &[Charge]) -> BTreeMap<InstanceId, Held> {
    let mut records: BTreeMap<InstanceId, Held> = BTreeMap::new();
    for charge in charges {
        let (Some(id), Some(label)) = (charge.instance, charge.label.as_deref()) else {
            continue;
        };
        let Some((replica, intent)) = ours(&state.installation, label) else {
            continue;
        };
        // Cut short a label may be that of a rent whose instance only shows later.
        let doubtful = state.rents_labelled(label).next().is_some();
        if doubtful || state.held.contains_key(&id) || state.intents.contains_key(&intent) {
            continue;
        }
        let record = records.entry(id).or_insert_with(|| Held {
            phase: Phase::Stopped,
            destroying: Some(DestroyWhy::Orphan),
            ..Held::new(id, intent, replica, charge.start)
        });
        record.created_at = record.created_at.min(charge.start);
        record.accrued_to = record.accrued_to.max(charge.end);
    }
    records
}

/// Intents are numbered by the wall clock, which may be off, but hardly by more than this.
pub(super) const CLOCK_OFF_MAX: Duration = Duration::from_hours(24 * 366);

/// The latest rent that labels of this installation name. A number that no clock can have given out
/// is none: somebody wrote that label by hand, and counting on from it would leave no numbers.
pub fn last_rent_named<'a>(
    installation: &Installation,
    labels: impl Iterator<Item = &'a str>,
    now: Time,
) -> Option<IntentId> {
    let latest = u64::try_from((now + CLOCK_OFF_MAX).0).unwrap_or(0);
    labels
        .filter_map(|label| ours(installation, label))
        .map(|(_, intent)| intent)
        .filter(|intent| intent.0 <= latest)
        .max()
}

/// Of which replica and rent a label is, where it is this installation's. One that was cut short
/// names its replica, if that much is left, and no rent.
fn ours(installation: &Installation, label: &str) -> Option<(ReplicaId, IntentId)> {
    if !Label::has_prefix(label, installation) {
        return None;
    }
    Some(match Label::parse(label) {
        Some(label) => (label.replica, label.intent),
        None => (
            Label::replica_of_cut(label).unwrap_or_else(ReplicaId::unnamed),
            IntentId(0),
        ),
    })
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;

    use super::super::eligible::samples::{NOW, held, job, offer, usd, world};
    use super::super::reconcile::{Books, reconcile};
    use super::*;
    use crate::types::ids::OfferId;
    use crate::types::intent::{Effect, Intent, IntentState};
    use crate::types::ledger::Component;
    use crate::types::money::Money;
    use crate::types::state::Change;

    fn charge(id: u64, label: Option<String>, component: Component, amount: i64) -> Charge {
        Charge {
            instance: Some(InstanceId(id)),
            label,
            component: Some(component),
            start: NOW,
            end: NOW + Duration::from_hours(2),
            amount: Money(amount),
        }
    }

    fn label(installation: &Installation, intent: u64) -> String {
        let job = job("a").name;
        let label = Label {
            installation: installation.clone(),
            replica: ReplicaId { job, index: 0 },
            intent: IntentId(intent),
        };
        label.to_string()
    }

    #[test]
    fn what_our_label_was_billed_for_is_booked_to_its_job_exactly() {
        let mut state = world(Vec::new()).state;
        let known = held(5, &job("a"), &offer(9), usd(0.2));
        state.held.insert(known.id, known);
        let ours = Some(label(&state.installation, 70));
        let theirs = Some(label(&Installation::from_seed(77), 70));
        let charges = [
            charge(5, Some(label(&state.installation, 3)), Component::Gpu, 1),
            charge(8, ours.clone(), Component::Gpu, 600),
            charge(8, ours.clone(), Component::Disk, 50),
            charge(9, theirs, Component::Gpu, 7),
            charge(10, None, Component::Gpu, 9),
        ];
        let found = forgotten(&state, &charges);
        assert_eq!(found.keys().collect::<Vec<_>>(), [&InstanceId(8)]);
        let ended: Vec<Held> = found.into_values().collect();
        let now = NOW + Duration::from_hours(3);
        let books = Books {
            state: &state,
            ended: &ended,
            billed: &BTreeMap::new(),
            asked_from: Time(0),
            zone: Tz::UTC,
        };
        let seen = reconcile(&books, &charges, now);
        let posted = state.spent(&job("a").name);
        for change in &seen.changes {
            state.apply(change);
        }
        // One nano-dollar more is what the known instance was billed over its books.
        let more = state.spent(&job("a").name) - posted;
        assert_eq!(more, Money(651));
        let told = seen.changes.iter().filter_map(|change| match change {
            Change::Event(event) if event.kind == "unknown-charges" => event.instance,
            _ => None,
        });
        let told: Vec<u64> = told.map(|id| id.0).collect();
        assert_eq!(told, [9, 10], "others are told of as before");
        assert!(!state.held.contains_key(&InstanceId(8)));
    }

    #[test]
    fn what_an_open_rent_may_have_made_is_left_to_its_settling() {
        let mut state = world(Vec::new()).state;
        let held = held(5, &job("a"), &offer(9), usd(0.2));
        let rent = Intent {
            id: IntentId(1_795_478_400_000),
            at: NOW,
            effect: Effect::Rent {
                replica: held.replica,
                generation: 1,
                slot: held.slot,
                offer: OfferId(9),
                rental: held.rental,
                price: held.price,
                disk_gb: held.disk_gb,
                storage: held.storage,
                from: None,
                traffic: None,
            },
            reserved: Money::ZERO,
            state: IntentState::Unknown { since: NOW },
        };
        let whole = label(&state.installation, rent.id.0);
        state.intents.insert(rent.id, rent);
        let intent = whole.rfind("r0-").unwrap();
        // Cut within the intent it reads as another one's.
        for end in [whole.len(), whole.len() - 3, intent + 3, intent] {
            let shown = whole[..end].to_owned();
            let charges = [charge(8, Some(shown.clone()), Component::Gpu, 600)];
            assert!(forgotten(&state, &charges).is_empty(), "{shown}");
        }
        let other = label(&state.installation, 7);
        let charges = [charge(8, Some(other), Component::Gpu, 600)];
        assert_eq!(forgotten(&state, &charges).len(), 1);
    }

    #[test]
    fn the_latest_rent_is_found_among_our_labels_only() {
        let ours = Installation::from_seed(3);
        let labels = [
            label(&ours, 70),
            label(&ours, 90),
            label(&Installation::from_seed(4), 100),
            // Written by hand, or worse.
            label(&ours, u64::MAX),
        ];
        let last = last_rent_named(&ours, labels.iter().map(String::as_str), NOW);
        assert_eq!(last, Some(IntentId(90)));
        assert_eq!(last_rent_named(&ours, ["hg-", "x"].into_iter(), NOW), None);
    }
}
