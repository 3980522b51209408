//! What must hold at the end: before the red button, and after it.

use super::Checker;
use crate::market::Market;
use crate::types::ids::InstanceId;
use crate::types::money::{BID_PARKED, Rate};
use crate::types::state::State;

impl Checker {
    /// What is rented, and the daemon does not know of, or knows to be of no use, although nothing but the
    /// daemon acted for a while: before the red button finds all there is by its label.
    pub fn look_for_leaks(&mut self, market: &Market, state: &State) {
        for row in market.instances(self.account) {
            let Some(replica) = self.ours.get(&row.id).cloned().flatten() else {
                continue;
            };
            if !state.held.contains_key(&InstanceId(row.id)) {
                self.violations.insert(format!(
                    "instance {} of {replica} is rented, and the daemon does not know it",
                    row.id
                ));
            }
            let stands = market.standing(self.account, row.id);
            let ended = state.replica(&replica).ending.is_some();
            // A parked bid is one that waits, and cannot win.
            let waits = |bid: Option<Rate>| bid.is_none_or(|bid| bid > BID_PARKED);
            if ended && stands.is_some_and(|stands| stands.wants && waits(stands.bid)) {
                self.violations.insert(format!(
                    "instance {} of {replica}, which has ended, still runs or waits for its slot",
                    row.id
                ));
            }
        }
    }

    /// What must hold once everything was destroyed and settled.
    pub fn look_at_the_end(&mut self, market: &Market) {
        self.look(market);
        for row in market.instances(self.account) {
            if !self.foreign.contains(&row.id) {
                self.violations.insert(format!(
                    "instance {} ({}) is left rented",
                    row.id,
                    row.label.as_deref().unwrap_or("no label")
                ));
            }
        }
    }
}
