//! Agreeing with the marketplace's bill.
//!
//! What the marketplace reports is kept line by line: for each instance, component and day, the
//! ledger's bill lines add up to the rows of that day as they were last reported. A day that is
//! reported otherwise than before gets the difference, up or down; a day that is not reported stays
//! as it was, for an answer may be partial, late or empty; unless the answer holds every row of an
//! instance that is gone: then the day was reported wrongly before. So comparing again changes nothing.
//!
//! What counts as spent follows in totals by component. What was billed over our own reckoning is
//! posted at once. What was billed under it is given back only when the instance has ended and its
//! bill is whole: until then the rows may just be late, and money given back early could be spent
//! twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{Days, NaiveDate};
use chrono_tz::Tz;

use crate::types::ids::InstanceId;
use crate::types::instance::Held;
use crate::types::intent::{Charge, Effect};
use crate::types::ledger::{BilledDays, Component, EntryKind, Line};
use crate::types::money::Money;
use crate::types::state::{Change, Severity, State};
use crate::types::time::Time;

use super::draft::Draft;

/// A bill begins with the instance: one whose first row is later than this after its creation was
/// asked for only in part, and says nothing about the total.
const FIRST_ROW_WITHIN: Duration = Duration::from_hours(1);

/// A bill is whole when its last row ends no earlier than this before the destroy.
const LAST_ROW_WITHIN: Duration = Duration::from_mins(10);

/// A bill does not change any more when its instance has been gone for so long: rows were seen to
/// come more than a day after the use, and the first that come are not all.
pub const BILL_CLOSED_AFTER: Duration = Duration::from_hours(36);

/// Rows are shown with three decimals: less than this shows in none.
const ROW_SHOWS_FROM: Money = Money(500_000);

/// Differences smaller than this are booked without a word: rows are shown with three decimals, and
/// intervals are known to seconds.
pub const TOLD_FROM: Money = Money(10_000_000);

/// Bills are asked for no further back than this.
pub const BILL_BACK_MAX: Duration = Duration::from_hours(30 * 24);

/// What is remembered of an instance that the bill names and nobody here knows, so that it is told
/// of once: the key, in what is kept beside the marketplace's wire.
const UNKNOWN_KEY: &str = "bill.unknown.";

/// The key under which it is remembered that an instance which nobody knows was told of.
pub fn unknown_key(instance: InstanceId) -> String {
    format!("{UNKNOWN_KEY}{instance}")
}

/// The rows of one instance in one answer.
#[derive(Default)]
struct Bill {
    days: BTreeMap<(NaiveDate, Option<Component>), Money>,
    first: Option<Time>,
    last: Option<Time>,
}

impl Bill {
    fn add(&mut self, charge: &Charge) {
        *self
            .days
            .entry((charge.day(), charge.component))
            .or_default() += charge.amount;
        self.first = Some(self.first.map_or(charge.start, |at| at.min(charge.start)));
        self.last = self.last.max(Some(charge.end));
    }

    fn reported(&self) -> BTreeSet<NaiveDate> {
        self.days.keys().map(|&(day, _)| day).collect()
    }

    /// Whether these are all the rows that an instance which is gone ever has: from its creation to
    /// its end, without a day left out. A partial answer lacks one end or has a hole, and one whose
    /// clock is off does not fit. When one ended that went by itself, nobody saw: it was gone for a
    /// while before that was proven. Once its bill is closed the last row there is ends it.
    fn is_every_row_of(&self, held: &Held, asked_from: Time, closed: bool) -> bool {
        let Some(last) = self.last else {
            return false;
        };
        let reported = self.reported();
        let days = reported.first().zip(reported.last());
        let unbroken = days.is_some_and(|(&first, &last)| {
            usize::try_from((last - first).num_days()).is_ok_and(|span| span + 1 == reported.len())
        });
        unbroken
            && self.begins_with(held, asked_from)
            && (closed || last + LAST_ROW_WITHIN >= end_of(held))
    }

    /// Whether these rows begin with the instance. A bill that was asked for only from later on begins with
    /// a row of its own first day, which may be soon after the instance was made: before midnight.
    fn begins_with(&self, held: &Held, asked_from: Time) -> bool {
        let soon = |first| first <= held.created_at + FIRST_ROW_WITHIN;
        let has_its_day = || self.reported().contains(&held.created_at.day(Tz::UTC));
        self.first.is_some_and(soon) && (asked_from <= held.created_at || has_its_day())
    }

    /// What is to be posted so that every day that was reported comes to what was reported. A
    /// component that a reported day does not name was charged nothing on it; and where these are
    /// all the rows there are, so was a day that is not among them.
    fn differences(&self, known: &BilledDays, every_row: bool) -> BilledDays {
        let reported = self.reported();
        let keys: BTreeSet<_> = known
            .keys()
            .filter(|(day, _)| every_row || reported.contains(day))
            .chain(self.days.keys())
            .copied()
            .collect();
        let of = |book: &BilledDays, key: &_| book.get(key).copied().unwrap_or_default();
        keys.into_iter()
            .map(|key| (key, of(&self.days, &key) - of(known, &key)))
            .filter(|&(_, difference)| difference != Money::ZERO)
            .collect()
    }
}

/// When an instance that is gone was billed last, as far as is known: when the marketplace first
/// answered that it destroyed it, or else when it was last asked to.
fn end_of(held: &Held) -> Time {
    let asked = held.destroyed_at.or(held.destroy_sent_at);
    asked.unwrap_or(held.accrued_to)
}

/// What a comparison with the bill came to.
#[derive(Debug, Default)]
pub struct Reconciled {
    /// The lines of the bill, the corrections, and what is to be told.
    pub changes: Vec<Change>,
}

/// The books with which a bill is compared.
#[derive(Clone, Copy, Debug)]
pub struct Books<'a> {
    /// What is known.
    pub state: &'a State,
    /// The last records of instances that are gone.
    pub ended: &'a [Held],
    /// What was billed so far, by instance.
    pub billed: &'a BTreeMap<InstanceId, BilledDays>,
    /// From when on the bill was asked for.
    pub asked_from: Time,
    /// The time zone of days.
    pub zone: Tz,
}

/// From when on the bill is needed, so that it holds every row of what is held and of what ended
/// within a bill's time to close.
pub fn bill_from(state: &State, ended: &[Held], now: Time) -> Time {
    let records = state.held.values().chain(ended);
    let earliest = records.map(|held| held.created_at).min().unwrap_or(now);
    // The marketplace's clock is not ours, and a create may be billed before it was answered.
    (earliest - FIRST_ROW_WITHIN).max(now - BILL_BACK_MAX)
}

/// The lines and corrections that the charge rows call for. After an instance is gone and billed,
/// what the ledger holds as spent on it is the bill's total. Rows of instances that are nobody we
/// know are told of, once for each: another program may share the account.
pub fn reconcile(books: &Books<'_>, charges: &[Charge], now: Time) -> Reconciled {
    let state = books.state;
    let mut bills: BTreeMap<InstanceId, Bill> = BTreeMap::new();
    for charge in charges {
        if let Some(id) = charge.instance {
            bills.entry(id).or_default().add(charge);
        }
    }
    let mut draft = Draft::new(state);
    let nothing = BilledDays::new();
    let known = |id| books.billed.get(&id).unwrap_or(&nothing);
    for held in state.held.values() {
        if let Some(bill) = bills.remove(&held.id)
            && let Some(corrected) = take_up(
                &mut draft,
                held,
                known(held.id),
                &bill,
                (false, false),
                books,
                now,
            )
        {
            draft.state.held.insert(held.id, corrected);
        }
    }
    let mut again = Vec::new();
    for held in books
        .ended
        .iter()
        .filter(|held| !state.held.contains_key(&held.id))
    {
        let bill = bills.remove(&held.id).unwrap_or_default();
        let closed = now.since(held.accrued_to) >= BILL_CLOSED_AFTER;
        let whole = match bill.last {
            Some(last) => closed || last + LAST_ROW_WITHIN >= end_of(held),
            // No row at all is no bill of nothing: a gateway answers empty when it does not know. But what
            // was gone within a moment has none, in a bill that has others.
            None => closed && !charges.is_empty() && held.spent() < ROW_SHOWS_FROM,
        };
        let every_row = bill.is_every_row_of(held, books.asked_from, closed);
        let corrected = take_up(
            &mut draft,
            held,
            known(held.id),
            &bill,
            (whole, every_row),
            books,
            now,
        );
        if let Some(corrected) = corrected {
            let at = held.accrued_to;
            again.push(Change::Held(Box::new(corrected)));
            again.push(Change::Gone {
                instance: held.id,
                at,
            });
        }
    }
    unknown(&mut draft, &bills, now);
    let mut changes = draft.finish();
    changes.extend(again);
    Reconciled { changes }
}

/// The record after the bill's lines and its corrections were posted; `None` where nothing differs.
fn take_up(
    draft: &mut Draft<'_>,
    held: &Held,
    known: &BilledDays,
    bill: &Bill,
    (whole, every_row): (bool, bool),
    books: &Books<'_>,
    now: Time,
) -> Option<Held> {
    let mut corrected = held.clone();
    let line = |kind, component, amount| Line {
        at: now,
        kind,
        replica: held.replica.clone(),
        intent: held.intent,
        instance: Some(held.id),
        component,
        amount,
    };
    let mut billed = known.clone();
    let mut refunded = Money::ZERO;
    for ((day, component), difference) in bill.differences(known, every_row) {
        *billed.entry((day, component)).or_default() += difference;
        refunded += difference.min(Money::ZERO);
        draft.entry_of(day, line(EntryKind::Bill, component, difference));
    }
    if !billed.is_empty() {
        corrected.billed = billed.values().copied().sum();
    }
    // Where the day on which it was made was billed once, nothing before what this bill holds is missing.
    let made_on = held.created_at.day(Tz::UTC);
    let begins = bill.first.is_none()
        || bill.begins_with(held, books.asked_from)
        || billed.keys().any(|&(day, _)| day <= made_on);
    let whole = whole && begins;
    let estimated = corrected.spent_gpu + corrected.spent_disk;
    let mut over = Money::ZERO;
    // Traffic is known from the bill alone, so it is never ahead of it.
    for (component, spent) in [
        (Component::Gpu, &mut corrected.spent_gpu),
        (Component::Disk, &mut corrected.spent_disk),
        (Component::Traffic, &mut corrected.spent_traffic),
    ] {
        let of_it = billed.iter().filter(|((_, of), _)| {
            // A row that does not say for what is most likely for what costs most.
            of.unwrap_or(Component::Gpu) == component
        });
        let billed: Money = of_it.map(|(_, &amount)| amount).sum();
        let difference = billed - *spent;
        if difference > Money::ZERO || (whole && difference < Money::ZERO) {
            *spent += difference;
            if component != Component::Traffic {
                over += difference.max(Money::ZERO);
            }
            draft.entry(
                books.zone,
                line(EntryKind::Correct, Some(component), difference),
            );
        }
    }
    tell(draft, &corrected, (estimated, over, refunded), now);
    (corrected != *held).then_some(corrected)
}

/// Tells what a bill changed, where it is worth a word.
fn tell(
    draft: &mut Draft<'_>,
    held: &Held,
    (estimated, over, refunded): (Money, Money, Money),
    now: Time,
) {
    let subject = (Some(&held.replica), Some(held.id));
    if over >= TOLD_FROM {
        let text = format!(
            "instance {} was billed {over:.4} more for GPUs and disk than was reckoned; \
             {estimated:.4} was reckoned so far, {:.4} was billed in all; the difference is posted",
            held.id, held.billed
        );
        draft.event(now, Severity::Warning, "billed-overrun", subject, text);
    }
    if refunded <= -TOLD_FROM {
        let text = format!(
            "the bill of instance {} became {:.4} less than it was; {:.4} is billed for it now",
            held.id, -refunded, held.billed
        );
        draft.event(now, Severity::Info, "refund", subject, text);
    }
}

/// Where it is remembered since when there are records: a moment, in milliseconds.
const RECORDS_SINCE: &str = "bill.records-since";

/// Before the day on which it was told, where all that was billed was from before the database.
const OLD: &str = "before ";

/// What a database that has just been made remembers, so that what the account used before is not
/// taken for a mistake; `None`: it remembers that, or it is older than this is known.
pub fn records_begin(state: &State, now: Time) -> Option<Change> {
    let new = state.ticks == 0 && state.last_intent.is_none();
    (new && !state.wire.contains_key(RECORDS_SINCE)).then(|| Change::Wire {
        key: RECORDS_SINCE.to_owned(),
        value: Some(now.0.to_string()),
    })
}

/// Since when there are records, where that is known.
fn records_since(state: &State) -> Option<Time> {
    let text = state.wire.get(RECORDS_SINCE)?;
    text.parse().ok().map(Time)
}

/// Tells of instances on the bill that nobody knows, each once and for ever: it is remembered
/// beside the marketplace's wire. What ended before there were records is no mistake, and told as one
/// sum; where more of such a one is billed later, it did not end.
fn unknown(draft: &mut Draft<'_>, bills: &BTreeMap<InstanceId, Bill>, now: Time) {
    let since = records_since(&draft.state);
    let is_old = |bill: &Bill| since.is_some_and(|since| bill.last.is_some_and(|end| end <= since));
    let (mut news, mut old) = (Vec::new(), Vec::new());
    for (&id, bill) in bills {
        let told = draft.state.wire.get(&unknown_key(id));
        let total: Money = bill.days.values().copied().sum();
        match told {
            None if is_old(bill) => old.push((id, total)),
            None => news.push((id, total)),
            Some(told) if told.starts_with(OLD) && !is_old(bill) => news.push((id, total)),
            Some(_) => {}
        }
    }
    // What a lost request made is billed before a listing shows it: it may be ours.
    let mut open = draft.state.intents.values();
    if open.any(|intent| matches!(intent.effect, Effect::Rent { .. })) {
        return;
    }
    for (id, total) in news {
        let text = format!(
            "the bill holds {total:.4} so far for instance {id}, which is not in our records; \
             another program on this account may have made it"
        );
        let subject = (None, Some(id));
        draft.event(now, Severity::Alarm, "unknown-charges", subject, text);
        draft.remember(unknown_key(id), now.day(Tz::UTC).to_string());
    }
    if !old.is_empty() {
        let total: Money = old.iter().map(|&(_, total)| total).sum();
        let text = format!(
            "the bill holds {total:.4} for {} that ended before this database was made; that is not \
             counted against any limit",
            match old.len() {
                1 => "1 instance".to_owned(),
                count => format!("{count} instances"),
            }
        );
        draft.event(now, Severity::Info, "charges-before", (None, None), text);
        for (id, _) in old {
            draft.remember(unknown_key(id), format!("{OLD}{}", now.day(Tz::UTC)));
        }
    }
    // What has left the bill for good need not be remembered.
    let Some(old) = now
        .day(Tz::UTC)
        .checked_sub_days(Days::new(UNKNOWN_KEPT_DAYS))
    else {
        return;
    };
    let forgotten: Vec<String> = draft
        .state
        .wire
        .iter()
        .filter(|(key, told)| {
            let id = key.strip_prefix(UNKNOWN_KEY).and_then(|id| id.parse().ok());
            let listed = id.is_some_and(|id| bills.contains_key(&InstanceId(id)));
            let told = told.strip_prefix(OLD).unwrap_or(told);
            id.is_some() && !listed && told.parse().is_ok_and(|told: NaiveDate| told < old)
        })
        .map(|(key, _)| key.clone())
        .collect();
    for key in forgotten {
        draft.forget(key);
    }
}

/// An instance that left the bill is remembered for so long, which is longer than bills go back.
const UNKNOWN_KEPT_DAYS: u64 = 62;

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

    /// The bill lines so far, as the store would add them up.
    #[derive(Default)]
    struct Ledger(BTreeMap<InstanceId, BilledDays>);

    impl Ledger {
        fn take(&mut self, changes: &[Change]) {
            for change in changes {
                if let Change::Entry(entry) = change
                    && entry.kind == EntryKind::Bill
                {
                    let days = self.0.entry(entry.instance.unwrap()).or_default();
                    *days.entry((entry.day, entry.component)).or_default() += entry.amount;
                }
            }
        }
    }

    fn compare(
        (state, ledger): (&mut State, &mut Ledger),
        ended: &mut [Held],
        charges: &[Charge],
        now: Time,
    ) -> Vec<Change> {
        let books = Books {
            state,
            ended,
            billed: &ledger.0,
            asked_from: NOW - FIRST_ROW_WITHIN,
            zone: Tz::UTC,
        };
        let changes = reconcile(&books, charges, now).changes;
        ledger.take(&changes);
        for change in &changes {
            state.apply(change);
            if let (Change::Held(held), Some(last)) = (change, ended.first_mut()) {
                *last = (**held).clone();
            }
        }
        changes
    }

    fn run(state: &mut State, ended: &mut [Held], charges: &[Charge]) -> Vec<Change> {
        let now = NOW + Duration::from_hours(3);
        compare((state, &mut Ledger::default()), ended, charges, now)
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
            let (now, mut ledger) = (NOW + Duration::from_hours(3), Ledger::default());
            compare((&mut state, &mut ledger), &mut ended, &charges, now);
            let total: Money = charges.iter().map(|charge| charge.amount).sum();
            prop_assert_eq!(ended[0].spent(), total);
            prop_assert_eq!(ended[0].billed, total);
            prop_assert_eq!(state.spent(&ended[0].replica.job), total);
            prop_assert!(state.held.is_empty());
            prop_assert_eq!(compare((&mut state, &mut ledger), &mut ended, &charges, now), vec![]);
        }

        /// Answers that are partial, late, repeated, out of order, and whose rows grow and shrink:
        /// the last word of the marketplace is what the books hold.
        #[test]
        fn whatever_answers_came_before_the_last_word_is_what_is_billed(
            spends in (0..5_000_i64, 0..5_000_i64),
            answers in prop::collection::vec(any_answer(-2_000_i64..3_000), 0..6),
            last in any_answer(-2_000_i64..3_000),
        ) {
            let (mut state, held) = spent(spends.0, spends.1);
            let job = held.replica.job.clone();
            let (mut ended, mut ledger) = ([held], Ledger::default());
            let now = NOW + Duration::from_hours(4 * 24);
            let mut reported: BTreeMap<NaiveDate, Vec<(usize, i64)>> = BTreeMap::new();
            // The last answer is whole: it begins with the instance.
            let mut last = last;
            last.entry(0).or_insert_with(|| vec![(0, 1)]);
            for answer in answers.iter().chain([&last, &last]) {
                let charges: Vec<Charge> = answer.iter().flat_map(|(&day, items)| rows(day, items)).collect();
                let before = state.usage(&Scope::Job(job.clone()));
                let changes = compare((&mut state, &mut ledger), &mut ended, &charges, now);
                if let Some(charge) = charges.first() {
                    prop_assert!(charge.instance.is_some());
                }
                // The rows of every day up to the last there is are all rows.
                if !answer.is_empty() && answer.keys().copied().eq(0..answer.len() as u64) {
                    reported.clear();
                }
                for (&day, items) in answer {
                    reported.insert(rows(day, items)[0].day(), items.clone());
                }
                let after = state.usage(&Scope::Job(job.clone()));
                prop_assert!(after.on(now.day(Tz::UTC)) >= before.on(now.day(Tz::UTC)), "{changes:?}");
                for (day, items) in &reported {
                    for (kind, component) in KINDS.into_iter().enumerate() {
                        let of_it = items.iter().filter(|(of, _)| *of == kind);
                        let should: i64 = of_it.map(|(_, amount)| amount).sum();
                        let lines = ledger.0.get(&InstanceId(5));
                        let lines = lines.and_then(|lines| lines.get(&(*day, component)));
                        prop_assert_eq!(lines.copied().unwrap_or_default(), Money(should));
                    }
                }
                if answer.is_empty() {
                    prop_assert!(changes.is_empty());
                }
            }
            let total: i64 = reported.values().flatten().map(|(_, amount)| amount).sum();
            prop_assert_eq!(ended[0].billed, Money(total));
            prop_assert_eq!(ended[0].spent(), Money(total));
            prop_assert_eq!(state.spent(&job), Money(total));
        }

        #[test]
        fn no_amount_is_too_large_to_be_compared(
            answers in prop::collection::vec(any_answer(-i64::MAX..=i64::MAX), 0..5),
        ) {
            let (mut state, held) = spent(i64::MAX, i64::MAX);
            let (mut ended, mut ledger) = ([held], Ledger::default());
            for answer in &answers {
                let charges: Vec<Charge> = answer.iter().flat_map(|(&day, items)| rows(day, items)).collect();
                let now = NOW + Duration::from_hours(4 * 24);
                compare((&mut state, &mut ledger), &mut ended, &charges, now);
            }
        }
    }

    const KINDS: [Option<Component>; 4] = [
        Some(Component::Gpu),
        Some(Component::Disk),
        Some(Component::Traffic),
        None,
    ];

    /// Rows by day since the instance was made, each of items: which component, how much.
    fn any_answer(
        amounts: impl Strategy<Value = i64> + Clone,
    ) -> impl Strategy<Value = BTreeMap<u64, Vec<(usize, i64)>>> {
        let items = prop::collection::vec((0..4_usize, amounts), 1..4);
        prop::collection::btree_map(0..3_u64, items, 0..3)
    }

    fn rows(day: u64, items: &[(usize, i64)]) -> Vec<Charge> {
        let start = NOW + Duration::from_hours(24 * day);
        let row = |&(kind, amount): &(usize, i64)| Charge {
            label: None,
            instance: Some(InstanceId(5)),
            component: KINDS[kind],
            start,
            end: start + Duration::from_hours(2),
            amount: Money(amount),
        };
        items.iter().map(row).collect()
    }

    #[test]
    fn an_overrun_and_a_refund_are_told() {
        let (mut state, held) = spent(10_000_000, 0);
        let (mut ended, mut ledger) = ([held], Ledger::default());
        let now = NOW + Duration::from_hours(3);
        let kinds = |changes: &[Change]| -> Vec<String> {
            let events = changes.iter().filter_map(|change| match change {
                Change::Event(event) => Some(event.kind.clone()),
                _ => None,
            });
            events.collect()
        };
        let bill = [charge(Component::Gpu, 2, 40_000_000)];
        let told = compare((&mut state, &mut ledger), &mut ended, &bill, now);
        assert_eq!(kinds(&told), ["billed-overrun"]);
        let job = ended[0].replica.job.clone();
        assert_eq!(state.spent(&job), Money(40_000_000), "it counts at once");
        let bill = [charge(Component::Gpu, 2, 15_000_000)];
        let told = compare((&mut state, &mut ledger), &mut ended, &bill, now);
        assert_eq!(kinds(&told), ["refund"]);
        assert_eq!(ended[0].billed, Money(15_000_000));
        assert_eq!(state.spent(&job), Money(15_000_000));
        assert_eq!(
            compare((&mut state, &mut ledger), &mut ended, &bill, now),
            vec![]
        );
    }

    #[test]
    fn a_row_that_says_when_it_ended_alone_is_of_the_day_that_ended() {
        let midnight = Time(86_400_000 * 20_000);
        let row = |start, end| Charge {
            start,
            end,
            ..charge(Component::Gpu, 1, 5)
        };
        let whole = row(midnight - Duration::from_hours(24), midnight);
        assert_eq!(row(midnight, midnight).day(), whole.day());
    }

    #[test]
    fn a_row_that_was_once_reported_of_a_wrong_day_is_not_billed_twice() {
        let (mut state, held) = spent(1000, 100);
        let (mut ended, mut ledger) = ([held], Ledger::default());
        let now = NOW + Duration::from_hours(3);
        let right = charge(Component::Gpu, 2, 1500);
        let off = Duration::from_hours(24);
        let wrong = Charge {
            start: right.start + off,
            end: right.end + off,
            ..right.clone()
        };
        for (row, billed) in [(&right, 1500), (&wrong, 3000), (&right, 1500)] {
            let rows = std::slice::from_ref(row);
            compare((&mut state, &mut ledger), &mut ended, rows, now);
            assert_eq!(ended[0].billed, Money(billed));
            assert_eq!(ended[0].spent(), Money(billed));
        }
    }

    #[test]
    fn nor_is_one_of_an_instance_that_ended_before_anybody_saw_it() {
        let (mut state, held) = spent(1000, 100);
        // It went by itself, and its absence was proven half an hour after its last row.
        let mut ended = [Held {
            accrued_to: NOW + Duration::from_mins(150),
            ..held
        }];
        let mut ledger = Ledger::default();
        let right = charge(Component::Gpu, 2, 1500);
        let off = Duration::from_hours(24);
        let wrong = Charge {
            start: right.start + off,
            end: right.end + off,
            ..right.clone()
        };
        let mut billed = |row: &Charge, after| {
            let rows = std::slice::from_ref(row);
            compare((&mut state, &mut ledger), &mut ended, rows, NOW + after);
            ended[0].billed
        };
        let soon = Duration::from_hours(3);
        assert_eq!(billed(&right, soon), Money(1500));
        assert_eq!(billed(&wrong, soon), Money(3000));
        // Rows may be missing yet.
        assert_eq!(billed(&right, soon), Money(3000));
        let closed = Duration::from_mins(150) + BILL_CLOSED_AFTER;
        assert_eq!(billed(&right, closed), Money(1500));
    }

    #[test]
    fn a_bill_from_midnight_on_gives_back_nothing_of_the_day_before() {
        let (mut state, held) = spent(1500, 100);
        let midnight = Time(
            NOW.day(Tz::UTC)
                .and_time(chrono::NaiveTime::MIN)
                .and_utc()
                .timestamp_millis(),
        );
        let made = midnight - Duration::from_mins(40);
        let mut ended = [Held {
            created_at: made,
            accrued_to: midnight + Duration::from_hours(2),
            ..held
        }];
        let row = |start, end, amount| Charge {
            start,
            end,
            ..charge(Component::Gpu, 1, amount)
        };
        let before = row(made, midnight, 600);
        let after = row(midnight, midnight + Duration::from_hours(2), 1000);
        let now = midnight + BILL_CLOSED_AFTER * 2;
        let mut ledger = Ledger::default();
        let mut read = |asked_from: Time, rows: &[Charge]| {
            let books = Books {
                state: &state,
                ended: &ended,
                billed: &ledger.0,
                asked_from,
                zone: Tz::UTC,
            };
            let changes = reconcile(&books, rows, now).changes;
            ledger.take(&changes);
            for change in &changes {
                state.apply(change);
                if let Change::Held(held) = change {
                    ended[0] = (**held).clone();
                }
            }
            (ended[0].billed, ended[0].spent())
        };
        // Asked for from after it was made, and from after midnight: only the second row is in it.
        let later = midnight + Duration::from_mins(30);
        assert_eq!(read(later, std::slice::from_ref(&after)).0, Money(1000));
        let whole = [before, after.clone()];
        assert_eq!(read(made, &whole), (Money(1600), Money(1600)));
        assert_eq!(read(later, &[after]), (Money(1600), Money(1600)));
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
        let mut ended = [held];
        let changes = compare((&mut state, &mut Ledger::default()), &mut ended, &[], later);
        assert_eq!(changes, vec![]);
        run(&mut state, &mut ended, &[]);
        assert_eq!(state.spent(&ended[0].replica.job), Money(1100));
    }

    /// It was gone before a moment was billed, and was reckoned at a second of its disk.
    #[test]
    fn what_no_row_shows_was_nothing_once_the_bill_is_closed() {
        for (spent_disk, left) in [(5_149, 0), (500_000, 500_000)] {
            let (mut state, held) = spent(0, spent_disk);
            let other = Charge {
                instance: Some(InstanceId(6)),
                ..charge(Component::Gpu, 2, 900)
            };
            let soon = held.accrued_to + BILL_CLOSED_AFTER - Duration::from_secs(1);
            let (mut ledger, mut ended) = (Ledger::default(), [held]);
            let job = ended[0].replica.job.clone();
            compare(
                (&mut state, &mut ledger),
                &mut ended,
                std::slice::from_ref(&other),
                soon,
            );
            assert_eq!(state.spent(&job), Money(spent_disk));
            let closed = soon + Duration::from_secs(1);
            compare((&mut state, &mut ledger), &mut ended, &[other], closed);
            assert_eq!(state.spent(&job), Money(left));
        }
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
    fn an_unknown_instance_is_told_of_once_and_for_ever() {
        let (mut state, _) = spent(0, 0);
        let of = |id, amount| Charge {
            instance: Some(InstanceId(id)),
            ..charge(Component::Gpu, 1, amount)
        };
        let alarms = |changes: Vec<Change>| {
            let is_one = |change: &&Change| matches!(change, Change::Event(_));
            changes.iter().filter(is_one).count()
        };
        assert_eq!(alarms(run(&mut state, &mut [], &[of(7, 5)])), 1);
        // What is remembered is durable, so another process tells no more of it.
        assert!(state.wire.contains_key(&unknown_key(InstanceId(7))));
        assert_eq!(run(&mut state, &mut [], &[of(7, 9)]), vec![]);
        assert_eq!(alarms(run(&mut state, &mut [], &[of(7, 9), of(8, 1)])), 1);
        let much_later = NOW + Duration::from_hours(24 * 90);
        compare(
            (&mut state, &mut Ledger::default()),
            &mut [],
            &[of(8, 1)],
            much_later,
        );
        let kept = [7, 8].map(|id| state.wire.contains_key(&unknown_key(InstanceId(id))));
        assert_eq!(
            kept,
            [false, true],
            "what left the bill long ago is forgotten"
        );
    }

    #[test]
    fn what_ended_before_the_database_was_made_is_one_note() {
        let of = |id: u64, from: u64, to: u64| Charge {
            instance: Some(InstanceId(id)),
            start: NOW + Duration::from_hours(from),
            end: NOW + Duration::from_hours(to),
            ..charge(Component::Gpu, 1, 250_000_000)
        };
        let mut state = world(Vec::new()).state;
        let made = NOW + Duration::from_hours(2);
        state.apply(&records_begin(&state, made).unwrap());
        assert_eq!(records_begin(&state, made), None, "once");
        let told = |state: &mut State, charges: &[Charge]| {
            let changes = run(state, &mut [], charges);
            let events = changes.into_iter().filter_map(|change| match change {
                Change::Event(event) => Some((event.kind, event.instance, event.text)),
                _ => None,
            });
            events.collect::<Vec<_>>()
        };
        let bill = [of(70, 0, 1), of(71, 1, 2), of(72, 1, 3)];
        let first = told(&mut state, &bill);
        let kinds: Vec<(&str, Option<u64>)> = first
            .iter()
            .map(|(kind, id, _)| (&kind[..], id.map(|id| id.0)))
            .collect();
        let expected = [("unknown-charges", Some(72)), ("charges-before", None)];
        assert_eq!(kinds, expected);
        assert!(
            first[1]
                .2
                .starts_with("the bill holds $0.5000 for 2 instances that ended before"),
            "{first:?}"
        );
        assert_eq!(told(&mut state, &bill), [], "once");
        // One of them did not end.
        let later = told(&mut state, &[of(70, 0, 1), of(70, 1, 3)]);
        assert_eq!((later.len(), later[0].1), (1, Some(InstanceId(70))));
        // A database that has had ticks does not begin now.
        state.wire.clear();
        state.ticks = 3;
        assert_eq!(records_begin(&state, made), None);
    }

    #[test]
    fn charges_of_nobody_we_know_are_told() {
        let (mut state, _) = spent(0, 0);
        let changes = run(&mut state, &mut [], &[charge(Component::Gpu, 1, 7)]);
        assert!(
            matches!(&changes[..], [Change::Event(event), Change::Wire { .. }] if event.kind == "unknown-charges")
        );
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
                from: None,
                traffic: None,
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
