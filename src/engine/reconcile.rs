//! Agreeing with the marketplace's bill.
//!
//! The bill is compared by instance and component, in totals, so that comparing again changes
//! nothing. What was billed over our own reckoning is posted at once. What was billed under it is
//! given back only when the instance has ended and its bill is whole: until then the rows may just
//! be late, and money given back early could be spent twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono_tz::Tz;

use crate::types::ids::InstanceId;
use crate::types::instance::Held;
use crate::types::intent::{Charge, Effect};
use crate::types::ledger::{Component, EntryKind, Line};
use crate::types::money::Money;
use crate::types::state::{Change, Severity, State};
use crate::types::time::{Time, millis};

use super::draft::Draft;

/// A bill begins with the instance: one whose first row is later than this after its creation was
/// asked for only in part, and says nothing about the total.
const FIRST_ROW_WITHIN: Duration = Duration::from_hours(1);

/// A bill is whole when its last row ends no earlier than this before the destroy.
const LAST_ROW_WITHIN: Duration = Duration::from_mins(10);

/// A bill does not change any more when its instance has been gone for so long.
const BILL_CLOSED_AFTER: Duration = Duration::from_hours(24);

#[derive(Default)]
struct Bill {
    gpu: Money,
    disk: Money,
    traffic: Money,
    first: Option<Time>,
    last: Option<Time>,
}

impl Bill {
    fn add(&mut self, charge: &Charge) {
        match charge.component {
            // A row that does not say for what is most likely for what costs most.
            Some(Component::Gpu) | None => self.gpu += charge.amount,
            Some(Component::Disk) => self.disk += charge.amount,
            Some(Component::Traffic) => self.traffic += charge.amount,
        }
        self.first = Some(self.first.map_or(charge.start, |at| at.min(charge.start)));
        self.last = self.last.max(Some(charge.end));
    }

    fn total(&self) -> Money {
        self.gpu + self.disk + self.traffic
    }
}

/// What a comparison with the bill came to.
#[derive(Debug, Default)]
pub struct Reconciled {
    /// The corrections, and what is to be told.
    pub changes: Vec<Change>,
    /// Instances that the bill names and nobody here knows.
    pub unknown: BTreeSet<InstanceId>,
}

/// Bills are asked for no further back than this.
pub const BILL_BACK_MAX: Duration = Duration::from_hours(30 * 24);

/// From when on the bill is needed, so that it holds every row of what is held and of what ended
/// within a bill's time to close.
pub fn bill_from(state: &State, ended: &[Held], now: Time) -> Time {
    let records = state.held.values().chain(ended);
    let earliest = records.map(|held| held.created_at).min().unwrap_or(now);
    // The marketplace's clock is not ours, and a create may be billed before it was answered.
    (earliest - FIRST_ROW_WITHIN).max(now - BILL_BACK_MAX)
}

/// The corrections that the charge rows call for. `ended` are the last records of instances that
/// are gone; after an instance is gone and billed, the ledger's total for it is the bill's.
/// Rows of instances that are nobody we know are told of, once for each: another program may share
/// the account. `told` are those that were told of.
pub fn reconcile(
    state: &State,
    ended: &[Held],
    charges: &[Charge],
    told: &BTreeSet<InstanceId>,
    zone: Tz,
    now: Time,
) -> Reconciled {
    let mut bills: BTreeMap<InstanceId, Bill> = BTreeMap::new();
    for charge in charges {
        if let Some(id) = charge.instance {
            bills.entry(id).or_default().add(charge);
        }
    }
    let mut draft = Draft::new(state);
    for held in state.held.values() {
        if let Some(bill) = bills.remove(&held.id)
            && let Some(corrected) = correct(&mut draft, held, &bill, false, zone, now)
        {
            draft.state.held.insert(held.id, corrected);
        }
    }
    let mut again = Vec::new();
    for held in ended
        .iter()
        .filter(|held| !state.held.contains_key(&held.id))
    {
        let bill = bills.remove(&held.id).unwrap_or_default();
        let closed = now.since(held.accrued_to) >= BILL_CLOSED_AFTER;
        let destroyed = held.destroy_sent_at.unwrap_or(held.accrued_to);
        // No row at all is no bill of nothing: a gateway answers empty when it does not know.
        let whole = bill
            .last
            .is_some_and(|last| closed || last + LAST_ROW_WITHIN >= destroyed);
        if let Some(corrected) = correct(&mut draft, held, &bill, whole, zone, now) {
            let at = held.accrued_to;
            again.push(Change::Held(Box::new(corrected)));
            again.push(Change::Gone {
                instance: held.id,
                at,
            });
        }
    }
    if bills.keys().any(|id| !told.contains(id)) {
        unknown(&mut draft, &bills, now);
    }
    let mut changes = draft.finish();
    changes.extend(again);
    Reconciled {
        changes,
        unknown: bills.into_keys().collect(),
    }
}

/// The record after its corrections were posted; `None` where nothing differs.
fn correct(
    draft: &mut Draft<'_>,
    held: &Held,
    bill: &Bill,
    whole: bool,
    zone: Tz,
    now: Time,
) -> Option<Held> {
    let begins = bill
        .first
        .is_none_or(|first| first.ms_since(held.created_at) <= millis(FIRST_ROW_WITHIN));
    let whole = whole && begins;
    let mut corrected = held.clone();
    // Traffic is known from the bill alone, so it is never ahead of it.
    for (component, billed, spent) in [
        (Component::Gpu, bill.gpu, &mut corrected.spent_gpu),
        (Component::Disk, bill.disk, &mut corrected.spent_disk),
        (
            Component::Traffic,
            bill.traffic,
            &mut corrected.spent_traffic,
        ),
    ] {
        let difference = billed - *spent;
        if difference > Money::ZERO || (whole && difference < Money::ZERO) {
            *spent = billed;
            draft.entry(
                zone,
                Line {
                    at: now,
                    kind: EntryKind::Correct,
                    replica: held.replica.clone(),
                    intent: held.intent,
                    instance: Some(held.id),
                    component: Some(component),
                    amount: difference,
                },
            );
        }
    }
    if begins {
        corrected.billed = bill.total();
    }
    (corrected != *held).then_some(corrected)
}

fn unknown(draft: &mut Draft<'_>, bills: &BTreeMap<InstanceId, Bill>, now: Time) {
    let total: Money = bills.values().map(Bill::total).sum();
    let Some((first, _)) = bills.first_key_value() else {
        return;
    };
    // What a lost request made is billed before a listing shows it: it may be ours.
    let mut open = draft.state.intents.values();
    if open.any(|intent| matches!(intent.effect, Effect::Rent { .. })) {
        return;
    }
    let text = format!(
        "the bill holds {total:.4} for {} instances that are not in our records, such as {first}",
        bills.len()
    );
    draft.event(now, Severity::Alarm, "unknown-charges", (None, None), text);
}

#[cfg(test)]
mod tests {
    use super::super::eligible::samples::{NOW, held, job, offer, usd, world};
    use super::*;
    use crate::types::ids::{IntentId, OfferId};
    use crate::types::intent::{Intent, IntentState};
    use crate::types::ledger::{Scope, Usage};
    use proptest::prelude::*;

    fn spent(gpu: i64, disk: i64) -> (State, Held) {
        let mut state = world(Vec::new()).state;
        let mut held = held(5, &job("a"), &offer(9), usd(0.2));
        held.spent_gpu = Money(gpu);
        held.spent_disk = Money(disk);
        held.accrued_to = NOW + Duration::from_hours(2);
        let usage = Usage {
            total: held.spent(),
            ..Usage::default()
        };
        let scope = Scope::Job(held.replica.job.clone());
        state.usage.insert(scope, usage);
        (state, held)
    }

    fn charge(component: Component, hours: u64, amount: i64) -> Charge {
        Charge {
            instance: Some(InstanceId(5)),
            label: None,
            component: Some(component),
            start: NOW,
            end: NOW + Duration::from_hours(hours),
            amount: Money(amount),
        }
    }

    fn run(state: &mut State, ended: &mut [Held], charges: &[Charge]) -> Vec<Change> {
        let now = NOW + Duration::from_hours(3);
        let changes = reconcile(state, ended, charges, &BTreeSet::new(), Tz::UTC, now).changes;
        for change in &changes {
            state.apply(change);
            if let (Change::Held(held), Some(last)) = (change, ended.first_mut()) {
                *last = (**held).clone();
            }
        }
        changes
    }

    proptest! {
        #[test]
        fn what_has_ended_comes_to_its_bill_exactly_and_once(
            spends in (0..5_000_i64, 0..5_000_i64),
            bill in prop::collection::vec((0..3_usize, 0..3_000_i64), 1..8),
        ) {
            let (mut state, held) = spent(spends.0, spends.1);
            let mut ended = [held];
            let kinds = [Component::Gpu, Component::Disk, Component::Traffic];
            let charges: Vec<Charge> = bill.iter().map(|&(kind, amount)| charge(kinds[kind], 2, amount)).collect();
            run(&mut state, &mut ended, &charges);
            let total: Money = charges.iter().map(|charge| charge.amount).sum();
            prop_assert_eq!(ended[0].spent(), total);
            prop_assert_eq!(ended[0].billed, total);
            prop_assert_eq!(state.spent(&ended[0].replica.job), total);
            prop_assert!(state.held.is_empty());
            prop_assert_eq!(run(&mut state, &mut ended, &charges), vec![]);
        }
    }

    #[test]
    fn a_late_bill_takes_nothing_back() {
        let (mut state, held) = spent(1000, 100);
        let mut ended = [held];
        run(&mut state, &mut ended, &[charge(Component::Gpu, 1, 400)]);
        assert_eq!(ended[0].spent(), Money(1100));
        run(&mut state, &mut ended, &[charge(Component::Gpu, 1, 1400)]);
        assert_eq!(
            ended[0].spent(),
            Money(1500),
            "an overrun is posted at once"
        );
    }

    #[test]
    fn a_running_instance_is_only_corrected_upwards() {
        let (mut state, held) = spent(1000, 100);
        state.held.insert(held.id, held);
        let charges = [
            charge(Component::Gpu, 2, 900),
            charge(Component::Traffic, 2, 50),
        ];
        run(&mut state, &mut [], &charges);
        let held = &state.held[&InstanceId(5)];
        assert_eq!((held.spent(), held.billed), (Money(1150), Money(950)));
    }

    #[test]
    fn an_empty_bill_gives_nothing_back() {
        let (mut state, held) = spent(1000, 100);
        let later = held.accrued_to + BILL_CLOSED_AFTER * 2;
        let none = BTreeSet::new();
        let ended = [held];
        let seen = reconcile(&state, &ended, &[], &none, Tz::UTC, later);
        assert_eq!(seen.changes, vec![]);
        run(&mut state, &mut ended.clone(), &[]);
        assert_eq!(state.spent(&ended[0].replica.job), Money(1100));
    }

    #[test]
    fn a_refund_frees_no_money_of_today() {
        let (mut state, held) = spent(1000, 100);
        let today = (NOW + Duration::from_hours(3)).day(Tz::UTC);
        let scope = Scope::Job(held.replica.job.clone());
        let mut usage = state.usage(&scope);
        usage.days.insert(today, Money(300));
        state.usage.insert(scope.clone(), usage);
        let bill = [
            charge(Component::Gpu, 2, 400),
            charge(Component::Disk, 2, 100),
        ];
        run(&mut state, &mut [held], &bill);
        let usage = state.usage(&scope);
        assert_eq!(usage.total, Money(500), "the refund counts in the total");
        assert_eq!(
            usage.on(today),
            Money(300),
            "but may be for what was spent on another day"
        );
    }

    #[test]
    fn the_bill_is_asked_for_from_the_earliest_creation() {
        let (mut state, held) = spent(0, 0);
        let now = NOW + Duration::from_hours(10 * 24);
        assert_eq!(bill_from(&state, &[], now), now - FIRST_ROW_WITHIN);
        let begun = held.created_at - FIRST_ROW_WITHIN;
        assert_eq!(bill_from(&state, std::slice::from_ref(&held), now), begun);
        state.held.insert(held.id, held);
        assert_eq!(bill_from(&state, &[], now), begun);
        let late = NOW + Duration::from_hours(100 * 24);
        assert_eq!(bill_from(&state, &[], late), late - BILL_BACK_MAX);
    }

    #[test]
    fn an_unknown_instance_is_told_of_once() {
        let (state, _) = spent(0, 0);
        let of = |id, amount| Charge {
            instance: Some(InstanceId(id)),
            ..charge(Component::Gpu, 1, amount)
        };
        let compare = |charges: &[Charge], told: &BTreeSet<InstanceId>| {
            reconcile(&state, &[], charges, told, Tz::UTC, NOW)
        };
        let first = compare(&[of(7, 5)], &BTreeSet::new());
        assert_eq!((first.changes.len(), first.unknown.len()), (1, 1));
        let again = compare(&[of(7, 9)], &first.unknown);
        assert_eq!(again.changes, vec![], "it only goes on");
        let more = compare(&[of(7, 9), of(8, 1)], &again.unknown);
        assert_eq!(more.changes.len(), 1, "another one is news");
    }

    #[test]
    fn charges_of_nobody_we_know_are_told() {
        let (mut state, _) = spent(0, 0);
        let changes = run(&mut state, &mut [], &[charge(Component::Gpu, 1, 7)]);
        assert!(matches!(&changes[..], [Change::Event(event)] if event.kind == "unknown-charges"));
        let (mut state, held) = spent(0, 0);
        let intent = Intent {
            id: IntentId(7),
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
            },
            reserved: Money(1),
            state: IntentState::Unknown { since: NOW },
        };
        state.apply(&Change::Intent(intent));
        let changes = run(&mut state, &mut [], &[charge(Component::Gpu, 1, 7)]);
        assert_eq!(
            changes,
            vec![],
            "a rent that nobody knows of may have made it"
        );
    }
}
