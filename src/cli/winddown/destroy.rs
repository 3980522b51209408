//! Destroys all that is ours, and proves it gone.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{APART, LATE_CREATE, LOOK_EVERY, Proof, WindDown, list, ours, told};
use crate::ports::{Outcome, ReadError, RefusedWhy};
use crate::types::ids::InstanceId;
use crate::types::instance::{Instance, Listing};
use crate::types::time::{Mono, human};

/// Failures of destroying several at once, after which each is destroyed by itself.
const BULK_FAILURES_MAX: u32 = 2;

/// What came of sending destroys.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    /// Some may have been taken up.
    any: bool,
    /// It is not known which, or none was: it is looked at once.
    look: bool,
}

impl WindDown<'_> {
    /// Destroys and looks again until ours are absent from two complete listings, the first begun
    /// well after the last request, and each that was destroyed or is known is said to be no more
    /// when asked for by id. What is still there when the time is up; empty: all are proven gone;
    /// `None`: the last look told nothing.
    pub(crate) async fn destroy_all(&mut self, within: Duration) -> Option<BTreeSet<InstanceId>> {
        let begun = self.now();
        let deadline = begun + within;
        let mut last_request = begun;
        let mut proof = Proof::default();
        let mut told_waiting = false;
        loop {
            let looked = self.now();
            let seen;
            let mut sent = Sent::default();
            match self.marketplace.instances().await {
                Err(error) => {
                    self.output.note(&format!("cannot look: {error}"));
                    // What is known can be asked for all the same.
                    let late = looked.since(begun) >= LATE_CREATE;
                    let nothing = BTreeSet::new();
                    let again = self.ask_by_id(&nothing, late, looked, deadline).await;
                    if again.any {
                        last_request = self.now();
                    }
                    seen = Some(self.unlisted.clone());
                }
                Ok(listing) => {
                    let here = ours(&listing, self.installation, self.known);
                    let there = self.still_there(&listing, &here);
                    sent = self.destroy(self.due(&listing, here), deadline).await;
                    if sent.any {
                        last_request = self.now();
                    }
                    let clean = there.is_empty();
                    let proven = proof.saw(clean, listing.complete, looked, last_request);
                    if !sent.look {
                        let late = looked.since(begun) >= LATE_CREATE;
                        let again = self.ask_by_id(&there, late, looked, deadline).await;
                        if again.any {
                            last_request = self.now();
                        }
                    }
                    seen = Some(&there | &self.unlisted);
                    if proven && self.all_gone() {
                        return Some(BTreeSet::new());
                    }
                    if clean && !std::mem::replace(&mut told_waiting, true) {
                        let left = LATE_CREATE.saturating_sub(looked.since(last_request)) + APART;
                        self.output.note(&format!(
                            "none is listed; looking again for {} in case one shows late",
                            human(left)
                        ));
                    }
                    told_waiting &= clean;
                }
            }
            if self.now() >= deadline {
                // Absent once is not yet proven gone.
                return seen.filter(|seen| !seen.is_empty());
            }
            if !sent.look {
                self.sleep_until_next_look(looked).await;
            }
        }
    }

    /// Ours that a listing shows, with those among its unreadable rows that are known to be.
    fn still_there(&self, listing: &Listing, here: &[Instance]) -> BTreeSet<InstanceId> {
        let unreadable = listing.unreadable.iter().copied();
        let known =
            unreadable.filter(|id| self.touched.contains_key(id) || self.known.contains(id));
        here.iter().map(|row| row.id).chain(known).collect()
    }

    /// What is to be destroyed: ours by label or id, and unreadable rows that are ours by id.
    fn due(&self, listing: &Listing, here: Vec<Instance>) -> Vec<(InstanceId, String)> {
        let unreadable = listing.unreadable.iter().copied();
        let known = unreadable.filter(|id| self.known.contains(id));
        here.into_iter()
            .map(|row| (row.id, row.label.unwrap_or_default()))
            .chain(known.map(|id| (id, String::new())))
            .collect()
    }

    /// Whether each that was destroyed or is known is said to be no more.
    fn all_gone(&self) -> bool {
        let asked = self.touched.keys().chain(self.known);
        asked.into_iter().all(|id| self.gone.contains(id))
    }

    /// Asks by id for what no listing shows: lists that lack it may be late. What is there all the
    /// same is destroyed again. It takes no longer than until the next look; where nothing can be
    /// asked for by id, the lists have to do.
    ///
    /// What is known by id alone is asked for only once it is late: a rental that is on its way may
    /// not be found before.
    async fn ask_by_id(
        &mut self,
        listed: &BTreeSet<InstanceId>,
        late: bool,
        looked: Mono,
        deadline: Mono,
    ) -> Sent {
        self.gone.retain(|id| !listed.contains(id));
        let known = self.known.iter().filter(|_| late);
        let asked: BTreeSet<InstanceId> = self.touched.keys().chain(known).copied().collect();
        let mut there = Vec::new();
        for id in asked {
            if listed.contains(&id) || self.gone.contains(&id) {
                continue;
            }
            if self.now().since(looked) >= LOOK_EVERY {
                break;
            }
            match self.marketplace.instance(id).await {
                Ok(None) | Err(ReadError::Unsupported(_)) => {
                    self.unlisted.remove(&id);
                    self.gone.insert(id);
                }
                Ok(Some(_)) => {
                    self.unlisted.insert(id);
                    if !self.is_under_way(id) {
                        there.push((id, String::new()));
                    }
                }
                Err(error) => {
                    self.output.note(&format!(
                        "cannot tell whether instance {id} is gone: {error}"
                    ));
                    break;
                }
            }
        }
        if there.is_empty() {
            return Sent::default();
        }
        self.output.note(&format!(
            "not listed, and there all the same: {}",
            list(there.iter().map(|(id, _)| *id))
        ));
        self.destroy(there, deadline).await
    }

    /// Sends a destroy for each that has none, or an old one.
    async fn destroy(&mut self, due: Vec<(InstanceId, String)>, deadline: Mono) -> Sent {
        let due: Vec<(InstanceId, String)> = due
            .into_iter()
            .filter(|(id, _)| !self.is_under_way(*id))
            .collect();
        if let Some(sent) = self.destroy_in_bulk(&due).await {
            return sent;
        }
        let mut sent = Sent::default();
        for (id, label) in due {
            if self.now() >= deadline {
                break;
            }
            let outcome = self.marketplace.destroy(id).await;
            sent.any |= self.answered(id, &label, &outcome, "destroyed");
        }
        sent
    }

    /// One request for many, where there are several and the marketplace can: single destroys are
    /// seconds apart. `None`: each has to be destroyed by itself.
    async fn destroy_in_bulk(&mut self, due: &[(InstanceId, String)]) -> Option<Sent> {
        // What it was said to have done already and did not is better asked for singly.
        let again = due.iter().any(|(id, _)| self.sent.contains_key(id));
        if due.len() < 2 || again || self.bulk_failed >= BULK_FAILURES_MAX {
            return None;
        }
        let ids: Vec<InstanceId> = due.iter().map(|&(id, _)| id).collect();
        let outcome = self.marketplace.destroy_many(&ids).await;
        match outcome {
            Outcome::Done(()) => {
                for (id, label) in due {
                    self.answered(*id, label, &outcome, "destroyed");
                }
                Some(Sent {
                    any: true,
                    look: false,
                })
            }
            Outcome::Refused {
                why: RefusedWhy::Unsupported,
                ..
            } => None,
            outcome => {
                self.bulk_failed += 1;
                self.output.note(&format!(
                    "all at once: {}; looking which are left",
                    told(&outcome, "")
                ));
                // Part of them may be gone, and has to be proven gone.
                for (id, label) in due {
                    self.touch(*id, label);
                }
                Some(Sent {
                    any: true,
                    look: true,
                })
            }
        }
    }
}
