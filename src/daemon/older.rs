//! A database that is older than what was done with it: one that was put back from a copy, or that
//! lost the end of its write-ahead log.
//!
//! It believes in instances that are gone and knows nothing of later ones; its limits have not seen
//! what was spent meanwhile; and its next labels could be ones that were used. So nothing new is
//! rented, raised or brought back until the marketplace has said what there is, in two complete
//! listings that leave the last requests of a dead process their time, and until its bill has said
//! what was paid. Numbers that may have been given out are jumped over at once. What is ours and
//! was forgotten is taken over like anything that carries our label.

use std::collections::BTreeSet;

use super::poll::Polled;
use super::settle::{AFTER_REQUEST, APART};
use super::{Daemon, DaemonError};
use crate::engine::forgotten::{forgotten, last_rent_named};
use crate::engine::reconcile::BILL_CLOSED_AFTER;
use crate::ports::Standing;
use crate::types::ids::{InstanceId, IntentId};
use crate::types::instance::{Held, Listing};
use crate::types::intent::Charge;
use crate::types::money::{BID_STEP, Money};
use crate::types::state::{Change, Event, Severity};
use crate::types::time::{Mono, Time};

/// While this is remembered, the marketplace has not been compared with yet. It says why.
pub(super) const COMPARING: &str = "older";

/// Why, where nothing but a missing mark says so: then the listings are enough, for there may be no
/// bill to be had, and nothing shows that anything was forgotten.
const UNMARKED: &str = "the mark beside it is missing, as after a move by hand, so nothing says how \
                        far it had come";

/// What a database says that was put back with `haggle restore`.
pub const RESTORED: &str = "restored";

/// Until when rows of what was forgotten may still come late, so that the whole bill is asked for; in
/// milliseconds.
const LATE_ROWS_UNTIL: &str = "older.late-rows-until";

/// Intents are numbered from here on.
const INTENTS_AFTER: &str = "intents-after";

/// Numbers that are passed over beyond the last that is known to have been given out. Numbers are
/// milliseconds of the wall clock, so the clock is past them soon: it only matters to one that is
/// set back.
const INTENTS_MARGIN: u64 = 1_000_000;

/// Generations that are passed over: more instances of a replica than anybody makes between two
/// copies.
const GENERATIONS_MARGIN: u32 = 1_000;

/// How far the comparison with the marketplace has come. It begins again with the process: a proof
/// half made by one that died is no proof.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comparing {
    begun: Mono,
    /// When the first complete listing began that leaves a dead process's requests their time.
    first: Option<Mono>,
    /// Whether a second one followed.
    listed: bool,
}

impl Daemon {
    /// Looks whether what was loaded is all that was ever written.
    pub(super) fn look_for_loss(&mut self) -> Result<(), DaemonError> {
        let begun = self.parts.clock.monotonic();
        if self.state.wire.contains_key(COMPARING) {
            self.comparing = Some(Comparing::new(begun));
        }
        let restored = self.state.wire.get(RESTORED).cloned();
        match self.parts.store.standing() {
            Standing::Behind { last_intent, ticks } => {
                let why = format!(
                    "it has seen {} ticks, and the mark beside it says {ticks}",
                    self.state.ticks
                );
                self.begin_comparing(Severity::Alarm, &restored.unwrap_or(why), last_intent)
            }
            Standing::Whole | Standing::Unmarked if restored.is_some() => {
                self.begin_comparing(Severity::Warning, &restored.unwrap_or_default(), None)
            }
            Standing::Unmarked => self.begin_comparing(Severity::Warning, UNMARKED, None),
            Standing::Whole => Ok(()),
        }
    }

    /// Whether nothing new may be spent because the marketplace knows more than the database.
    pub(super) fn is_comparing(&self) -> bool {
        self.comparing.is_some()
    }

    /// Whether both listings were had, so that only the bill is wanted.
    pub(super) fn wants_bill(&self) -> bool {
        self.comparing.is_some_and(|comparing| comparing.listed)
    }

    /// The last intent that may ever have been given out.
    pub(super) fn last_intent(&self) -> Option<IntentId> {
        let after = self.state.wire.get(INTENTS_AFTER);
        let after = after.and_then(|text| text.parse().ok()).map(IntentId);
        self.state.last_intent.max(after)
    }

    fn begin_comparing(
        &mut self,
        severity: Severity,
        why: &str,
        known: Option<IntentId>,
    ) -> Result<(), DaemonError> {
        let known_why = self.state.wire.get(COMPARING);
        let already = known_why.is_some_and(|known| known != UNMARKED || why == UNMARKED);
        let (now, begun) = (self.now(), self.parts.clock.monotonic());
        let mut changes = Vec::new();
        let last = self.last_intent().max(known);
        if last > self.last_intent() || !already {
            let after = last.map_or(0, |last| last.0).saturating_add(INTENTS_MARGIN);
            changes.push(wire(INTENTS_AFTER, Some(after.to_string())));
        }
        if !already {
            for record in self.state.replicas.values() {
                let mut record = record.clone();
                record.generation = record.generation.saturating_add(GENERATIONS_MARGIN);
                changes.push(Change::Replica(record));
            }
            changes.push(wire(COMPARING, Some(why.to_owned())));
            changes.push(Change::Event(Event {
                at: now,
                severity,
                kind: "database-older".to_owned(),
                replica: None,
                instance: None,
                text: format!(
                    "the database may be older than what was done with it ({why}); nothing new is \
                     rented until the instances and the bill of the account were compared with it"
                ),
            }));
        }
        if self.state.wire.contains_key(RESTORED) {
            changes.push(wire(RESTORED, None));
        }
        self.commit(&changes)?;
        self.comparing = Some(Comparing::new(begun));
        Ok(())
    }

    /// Looks at what was listed for what only a later state of this database can have done, before
    /// any of it is taken up.
    pub(super) fn notice_later_doings(&mut self, polled: &Polled) -> Result<(), DaemonError> {
        let Some(listing) = &polled.listing else {
            return Ok(());
        };
        let shown = listing.rows.iter().filter_map(|row| row.label.as_deref());
        self.notice_labels(shown)?;
        if !self.has_listed
            && !self.is_comparing()
            && let Some(id) = self.raised_by_another(listing)
        {
            let why = format!("instance {id} has a higher bid than any that it knows of");
            self.begin_comparing(Severity::Alarm, &why, None)?;
        }
        self.has_listed |= listing.complete;
        if let Some(comparing) = &mut self.comparing
            && listing.complete
        {
            comparing.listed(polled.listing_begun);
        }
        if self
            .state
            .wire
            .get(COMPARING)
            .is_some_and(|why| why == UNMARKED)
        {
            return self.compared();
        }
        Ok(())
    }

    /// A label of ours whose rent the database has not come to yet is proof: every rent is recorded
    /// before its request leaves.
    fn notice_labels<'a>(
        &mut self,
        labels: impl Iterator<Item = &'a str>,
    ) -> Result<(), DaemonError> {
        let named = last_rent_named(&self.state.installation, labels, self.now());
        let Some(last) = named.filter(|named| Some(*named) > self.last_intent()) else {
            return Ok(());
        };
        let why = format!(
            "the account has an instance of this installation that it has not come to rent, \
             {last}; if another daemon works under this installation's name, end one of them"
        );
        self.begin_comparing(Severity::Alarm, &why, Some(last))
    }

    /// An instance whose bid was read back once and is higher now than any that we know of.
    fn raised_by_another(&self, listing: &Listing) -> Option<InstanceId> {
        let raised = |row: &&crate::types::instance::Instance| {
            let held = self.state.held.get(&row.id);
            held.is_some_and(|held| {
                was_read(held)
                    && row
                        .price
                        .is_some_and(|price| price > self.dearest(held) + BID_STEP)
            })
        };
        listing.rows.iter().find(raised).map(|row| row.id)
    }

    /// From when on the bill is wanted, where it is to say what was forgotten: as far back as bills
    /// are asked for, and for as long as rows of it may come.
    pub(super) fn bill_wanted_from(&self, usual: Time, longest: Time) -> Time {
        let until = self.state.wire.get(LATE_ROWS_UNTIL);
        let until = until.and_then(|text| text.parse().ok()).map(Time);
        if self.is_comparing() || until.is_some_and(|until| self.now() < until) {
            longest
        } else {
            usual
        }
    }

    /// What the bill names of ours that no record is left of, and that exists no more. What still
    /// exists is taken over when it is listed.
    pub(super) async fn forgotten(&mut self, charges: &[Charge]) -> Result<Vec<Held>, DaemonError> {
        let labels = charges.iter().filter_map(|charge| charge.label.as_deref());
        self.notice_labels(labels)?;
        let mut records = forgotten(&self.state, charges);
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let ever = self.parts.store.ended_since(Time(i64::MIN))?;
        let known: BTreeSet<InstanceId> = ever.iter().map(|held| held.id).collect();
        records.retain(|id, _| !known.contains(id));
        let mut gone = Vec::new();
        for record in records.into_values() {
            if let Ok(None) = self.parts.marketplace.instance(record.id).await {
                gone.push(record);
            }
        }
        Ok(gone)
    }

    /// The bill was compared, or none is wanted. With both listings before it, what there is and what
    /// was paid are known again.
    pub(super) fn compared(&mut self) -> Result<(), DaemonError> {
        if !self.wants_bill() {
            return Ok(());
        }
        let text = format!(
            "the instances and the bill of the account were compared with the database: {} \
             instances of ours are known; what ended or finished since it was copied may not be",
            self.state.held.len()
        );
        let caught_up = Change::Event(Event {
            at: self.now(),
            severity: Severity::Info,
            kind: "database-compared".to_owned(),
            replica: None,
            instance: None,
            text,
        });
        let mut changes = vec![wire(COMPARING, None), caught_up];
        if self
            .state
            .wire
            .get(COMPARING)
            .is_some_and(|why| why != UNMARKED)
        {
            let until = self.now() + BILL_CLOSED_AFTER;
            changes.push(wire(LATE_ROWS_UNTIL, Some(until.0.to_string())));
        }
        self.commit(&changes)?;
        self.comparing = None;
        Ok(())
    }
}

impl Comparing {
    fn new(begun: Mono) -> Self {
        Self {
            begun,
            first: None,
            listed: false,
        }
    }

    /// Takes up a complete listing.
    fn listed(&mut self, begun: Mono) {
        match self.first {
            None if begun.since(self.begun) >= AFTER_REQUEST => self.first = Some(begun),
            Some(first) if begun.since(first) >= APART => self.listed = true,
            _ => {}
        }
    }
}

/// Whether a bill says nothing: it has no row, and some of what is known was billed within the time that
/// it was asked for.
pub(super) fn is_no_bill<'a>(
    charges: &[Charge],
    mut known: impl Iterator<Item = &'a Held>,
) -> bool {
    charges.is_empty() && known.any(|held| held.billed > Money::ZERO)
}

/// Whether a listing has shown it before: then what is kept of it was not only asked for.
pub(super) fn was_read(held: &Held) -> bool {
    held.accrued_to > held.created_at
}

fn wire(key: &str, value: Option<String>) -> Change {
    Change::Wire {
        key: key.to_owned(),
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::eligible::samples::{NOW, held, job, offer, usd};

    #[test]
    fn an_empty_bill_says_nothing_where_something_was_billed() {
        let mut known = held(5, &job("a"), &offer(9), usd(0.2));
        let row = Charge {
            instance: Some(InstanceId(5)),
            label: None,
            component: None,
            start: NOW,
            end: NOW,
            amount: Money(1),
        };
        assert!(!is_no_bill(&[], [&known].into_iter()));
        known.billed = Money(1);
        assert!(is_no_bill(&[], [&known].into_iter()));
        assert!(!is_no_bill(&[row], [&known].into_iter()));
    }
}
