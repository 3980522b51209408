//! Parks all that is ours: nothing runs, and the disks are kept, and billed.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Proof, WindDown, ours};
use crate::ports::{Outcome, RefusedWhy};
use crate::types::ids::InstanceId;
use crate::types::instance::Instance;
use crate::types::money::{BID_PARKED, Rate};

/// What came of parking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parked {
    /// What was read back as parked: it cannot resume by itself.
    pub(crate) parked: BTreeSet<InstanceId>,
    /// What was not.
    pub(crate) left: BTreeSet<InstanceId>,
    /// What the disks of both go on costing; `None`: the marketplace did not say of each.
    pub(crate) storage: Option<Rate>,
    /// Whether two complete listings showed all of ours parked.
    pub(crate) settled: bool,
}

impl WindDown<'_> {
    /// Cuts the bids of what is interruptible and stops what is not, until two complete listings
    /// show all of ours parked, the first begun well after the last request. What the last listing
    /// showed when that is proven or the time is up; `None`: it told nothing.
    ///
    /// A bid that was cut and still runs is stopped too: where nobody else bids it may run on.
    pub(crate) async fn park_all(&mut self, within: Duration) -> Option<Parked> {
        let begun = self.now();
        let deadline = begun + within;
        let mut last_request = begun;
        let mut proof = Proof::default();
        let mut seen;
        loop {
            let looked = self.now();
            match self.marketplace.instances().await {
                Err(error) => {
                    self.output.note(&format!("cannot look: {error}"));
                    seen = None;
                }
                Ok(listing) => {
                    let here = ours(&listing, self.installation, self.known);
                    for row in here.iter().filter(|row| !row.is_parked()) {
                        if self.now() < deadline && !self.is_under_way(row.id) {
                            self.park(row).await;
                            last_request = self.now();
                        }
                    }
                    let mut end = end_of(&here);
                    let unreadable = listing.unreadable.iter().copied();
                    end.left
                        .extend(unreadable.filter(|id| self.touched.contains_key(id)));
                    let clean = end.left.is_empty();
                    end.settled = proof.saw(clean, listing.complete, looked, last_request);
                    if end.settled {
                        return Some(end);
                    }
                    seen = Some(end);
                }
            }
            if self.now() >= deadline {
                return seen;
            }
            self.sleep_until_next_look(looked).await;
        }
    }

    async fn park(&mut self, row: &Instance) {
        let label = row.label.clone().unwrap_or_default();
        let is_cut = row.price.is_some_and(|price| price <= BID_PARKED);
        if row.is_bid == Some(true) && !is_cut {
            let outcome = self.marketplace.set_bid(row.id, BID_PARKED).await;
            let cannot = matches!(
                outcome,
                Outcome::Refused {
                    why: RefusedWhy::Unsupported,
                    ..
                }
            );
            self.answered(row.id, &label, &outcome, "bid cut");
            if !cannot {
                return;
            }
        }
        let outcome = self.marketplace.stop(row.id).await;
        self.answered(row.id, &label, &outcome, "stopped");
    }
}

fn end_of(here: &[Instance]) -> Parked {
    let ids = |parked: bool| {
        let those = here.iter().filter(move |row| row.is_parked() == parked);
        those.map(|row| row.id).collect()
    };
    Parked {
        parked: ids(true),
        left: ids(false),
        storage: here.iter().try_fold(Rate::ZERO, |sum, row| {
            Some(sum.saturating_add(row.storage?))
        }),
        settled: false,
    }
}
