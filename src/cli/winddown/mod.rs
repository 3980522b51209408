//! Takes down what is ours without a daemon: for the red button, and for the guard.
//!
//! What is ours is what carries this installation's whole prefix, and what the caller knows by id.
//! Nothing else is ever named in a request.

mod destroy;
mod park;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::output::{Align, Output};
use crate::ports::{Clock, Marketplace, Outcome, RefusedWhy};
use crate::types::ids::{Installation, InstanceId, Label};
use crate::types::instance::{Instance, Listing};
use crate::types::time::Mono;

pub(crate) use park::Parked;

/// Between two looks at the listing.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// A request that has not taken by then is sent again.
const SEND_AGAIN: Duration = Duration::from_mins(1);

/// A rental that was on its way when we began may show this late; an absence is looked for only
/// then. The marketplace gives no such bound: it is our assumption, the daemon's too.
const LATE_CREATE: Duration = Duration::from_mins(2);

/// Two complete listings that show the same lie at least this far apart.
const APART: Duration = Duration::from_secs(30);

/// Takes one installation's instances down.
pub(crate) struct WindDown<'a> {
    marketplace: &'a dyn Marketplace,
    clock: &'a dyn Clock,
    output: Output,
    installation: &'a Installation,
    /// Ids of ours that the caller knows.
    known: &'a BTreeSet<InstanceId>,
    /// What was asked to end, with its label where one was seen.
    touched: BTreeMap<InstanceId, String>,
    /// When the last request for each ended, where it may have been taken up.
    sent: BTreeMap<InstanceId, Mono>,
    /// What the marketplace says is no more, asked by id after it was destroyed.
    gone: BTreeSet<InstanceId>,
    /// What it says is there, asked by id, though no listing shows it.
    unlisted: BTreeSet<InstanceId>,
    /// How often destroying several at once went wrong.
    bulk_failed: u32,
}

impl<'a> WindDown<'a> {
    /// For one installation; `known` are ids that are ours whatever their labels say.
    pub(crate) fn new(
        marketplace: &'a dyn Marketplace,
        clock: &'a dyn Clock,
        output: Output,
        installation: &'a Installation,
        known: &'a BTreeSet<InstanceId>,
    ) -> Self {
        Self {
            marketplace,
            clock,
            output,
            installation,
            known,
            touched: BTreeMap::new(),
            sent: BTreeMap::new(),
            gone: BTreeSet::new(),
            unlisted: BTreeSet::new(),
            bulk_failed: 0,
        }
    }

    /// What was asked to end, with its label where one was seen.
    pub(crate) fn touched(&self) -> &BTreeMap<InstanceId, String> {
        &self.touched
    }

    fn now(&self) -> Mono {
        self.clock.monotonic()
    }

    /// Whether a request for it may still take.
    fn is_under_way(&self, id: InstanceId) -> bool {
        let sent = self.sent.get(&id);
        sent.is_some_and(|&at| self.now().since(at) < SEND_AGAIN)
    }

    /// Tells what came of a request, and remembers it. Whether it may have been taken up: one that
    /// surely was not is sent again at the next look.
    fn answered(&mut self, id: InstanceId, label: &str, outcome: &Outcome<()>, done: &str) -> bool {
        let said = told(outcome, done);
        self.output
            .note(&format!("instance {id} ({label}): {said}"));
        self.touch(id, label);
        let taken = !surely_not_taken(outcome);
        if taken {
            self.sent.insert(id, self.clock.monotonic());
        }
        taken
    }

    fn touch(&mut self, id: InstanceId, label: &str) {
        let known = self.touched.entry(id).or_default();
        if known.is_empty() {
            label.clone_into(known);
        }
    }

    async fn sleep_until_next_look(&self, looked: Mono) {
        let left = (looked + LOOK_EVERY).since(self.now());
        if !left.is_zero() {
            self.clock.sleep_until(self.clock.now() + left).await;
        }
    }
}

/// Whether the marketplace surely did not take a request up.
fn surely_not_taken(outcome: &Outcome<()>) -> bool {
    matches!(
        outcome,
        Outcome::Refused {
            why: RefusedWhy::Throttled | RefusedWhy::NotSent,
            ..
        }
    )
}

/// Two complete listings that show nothing left to do, the first begun well after the last request.
#[derive(Debug, Default)]
struct Proof {
    since: Option<Mono>,
}

impl Proof {
    /// Takes up a listing that was begun at `looked`: whether it shows nothing left to do, and
    /// whether it is complete. Whether it is proven now. An incomplete one tells only of what it
    /// shows, and one that failed, of which this hears nothing, tells nothing.
    fn saw(&mut self, clean: bool, complete: bool, looked: Mono, last_request: Mono) -> bool {
        let late = looked.since(last_request) >= LATE_CREATE;
        if !clean || !late {
            self.since = None;
        } else if complete && self.since.is_none() {
            self.since = Some(looked);
        }
        complete && self.since.is_some_and(|since| looked.since(since) >= APART)
    }
}

/// Ours by label, or by an id that is known: somebody may have changed the label.
pub(crate) fn ours(
    listing: &Listing,
    installation: &Installation,
    known: &BTreeSet<InstanceId>,
) -> Vec<Instance> {
    let is_ours = |row: &&Instance| {
        let label = row.label.as_deref();
        label.is_some_and(|label| Label::has_prefix(label, installation)) || known.contains(&row.id)
    };
    listing.rows.iter().filter(is_ours).cloned().collect()
}

/// Shows on stderr what of a listing is ours.
pub(crate) fn show(
    output: Output,
    installation: &Installation,
    ours: &[Instance],
    listing: &Listing,
) {
    output.note(&format!(
        "installation {installation}: {} of the account's {} instances are ours",
        ours.len(),
        listing.rows.len() + listing.unreadable.len()
    ));
    if !ours.is_empty() {
        let columns = [
            ("instance", Align::Right),
            ("label", Align::Left),
            ("does", Align::Left),
            ("price/h", Align::Right),
        ];
        let price = |row: &Instance| row.price.map_or_else(|| "-".into(), |p| format!("{p:.4}"));
        let rows = ours
            .iter()
            .map(|row| {
                vec![
                    row.id.to_string(),
                    row.label.clone().unwrap_or_default(),
                    row.phase().as_str().into(),
                    price(row),
                ]
            })
            .collect();
        output.note(&output.table(&columns, rows));
    }
    if !listing.unreadable.is_empty() {
        output.note(&format!(
            "warning: {} rows could not be read, so whose they are is not known",
            listing.unreadable.len()
        ));
    }
}

/// What came of a request, where `done` is the word for what it asked.
fn told(outcome: &Outcome<()>, done: &str) -> String {
    match outcome {
        Outcome::Done(()) => done.to_owned(),
        Outcome::Refused {
            why: RefusedWhy::NoSuchInstance,
            ..
        } => "said to be gone".to_owned(),
        Outcome::Refused { message, .. } => format!("refused: {message}"),
        Outcome::Unknown(why) => format!("unknown: {why}"),
    }
}

/// Ids for people.
pub(crate) fn list(ids: impl IntoIterator<Item = InstanceId>) -> String {
    let ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
    ids.join(", ")
}
