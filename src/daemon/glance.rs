//! Looking at the instances between ticks, so that a loss is noticed within seconds.
//!
//! A look decides nothing and proves nothing: what it sees differently from the last listing makes
//! the tick come early, and the tick reads for itself.

use std::collections::BTreeMap;

use super::Daemon;
use super::events::INBOX_EVERY;
use crate::types::ids::{InstanceId, Label};
use crate::types::instance::{Listing, Phase};
use crate::types::state::State;
use crate::types::time::Time;

/// What a listing shows of our instances, as far as a change of it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sight(BTreeMap<InstanceId, Phase>);

impl Sight {
    /// What a listing shows after an earlier one: what an incomplete listing lacks is taken to be
    /// as it was, and so is a row that cannot be read.
    fn after(&self, state: &State, listing: &Listing) -> Self {
        let ours = |label: &Option<String>| {
            let label = label.as_deref().and_then(Label::parse);
            label.is_some_and(|label| label.installation == state.installation)
        };
        let mut seen: BTreeMap<InstanceId, Phase> = listing
            .rows
            .iter()
            .filter(|row| state.held.contains_key(&row.id) || ours(&row.label))
            .map(|row| (row.id, row.phase()))
            .collect();
        for (&id, &phase) in &self.0 {
            if !listing.complete || listing.unreadable.contains(&id) {
                seen.entry(id).or_insert(phase);
            }
        }
        Self(seen)
    }
}

impl Daemon {
    /// When something is to be looked at next; `None` while nothing is ours and nobody tells.
    pub(super) fn next_look(&self, now: Time) -> Option<Time> {
        let every = self.settings.looking.instances_every;
        let watched = !self.state.held.is_empty() || !self.state.intents.is_empty();
        let interval = if watched {
            every
        } else if self.has_inbox() {
            every.max(INBOX_EVERY)
        } else {
            return None;
        };
        // A clock that was set back must not put it off.
        Some(self.looked_at.map_or(now, |at| at.min(now) + interval))
    }

    /// Looks at the instances, and into the inbox. Whether something changed that a tick should
    /// know of.
    pub(super) async fn look_for_changes(&mut self) -> bool {
        let begun = self.now();
        self.looked_at = Some(begun);
        self.read_inbox().await;
        if self.state.held.is_empty() && self.state.intents.is_empty() {
            return false;
        }
        let Ok(listing) = self.parts.marketplace.instances().await else {
            // Unknown, which is not a change.
            return false;
        };
        let others = self.others_in(&listing);
        self.others_listed.extend(others);
        self.unchanged
            .retain(|id, _| self.state.held.contains_key(id));
        for row in &listing.rows {
            let held = self.state.held.get(&row.id);
            if held.is_some_and(|held| held.phase == row.phase()) {
                self.unchanged.insert(row.id, begun);
            }
            if held.is_some_and(|held| held.first_ran_at.is_none()) && row.phase() == Phase::Running
            {
                self.ran.insert(row.id);
            }
        }
        let seen = self.sight.after(&self.state, &listing);
        let changed = seen != self.sight;
        self.sight = seen;
        changed
    }

    /// Remembers what a tick saw.
    pub(super) fn saw(&mut self, listing: Option<&Listing>) {
        self.looked_at = Some(self.now());
        if let Some(listing) = listing {
            self.sight = self.sight.after(&self.state, listing);
        }
    }
}
