//! Reading back what was made: an instance that is not what was asked is destroyed at once, or, where
//! it could not be read until it had worked, put away with its disk.
//!
//! A gateway may rent on-demand where a bid was meant, and nothing in the answer to the create
//! says so. Only the instance itself does.

use std::sync::Arc;
use std::time::Duration;

use super::older::was_read;
use super::poll::Polled;
use super::{Daemon, DaemonError};
use crate::engine::observe::EVIDENCE_MS;
use crate::types::ids::InstanceId;
use crate::types::instance::{DestroyWhy, Held, Instance, Rental};
use crate::types::intent::Effect;
use crate::types::job::{CheckpointPlace, Job};
use crate::types::money::{BID_STEP, Rate};
use crate::types::state::{Change, Event, Severity};

/// What runs for less holds no work to speak of.
const WORK_AFTER: Duration = Duration::from_mins(5);

const DESTROYED: &str = "it is destroyed";

/// An instance that is not what was asked.
#[derive(Clone, Debug)]
pub(super) struct Wrong {
    id: InstanceId,
    /// What was asked for; what is kept of the instance says what was got, once a row was seen.
    asked: Rental,
    reason: String,
}

/// Why an instance is not what was asked; `None` where it is, or where the row does not say.
pub(super) fn mismatch(asked: Rental, row: &Instance, asked_most: Rate) -> Option<String> {
    if let Some(is_bid) = row.is_bid
        && is_bid != (asked == Rental::Bid)
    {
        let made = if is_bid {
            Rental::Bid
        } else {
            Rental::OnDemand
        };
        return Some(format!(
            "asked for {}, got {}",
            asked.as_str(),
            made.as_str()
        ));
    }
    let price = row.price?;
    (price > asked_most + BID_STEP)
        .then(|| format!("asked for {asked_most:.4}/h, got {price:.4}/h"))
}

impl Daemon {
    /// Rows of a listing that are not what was asked, before the listing is believed: what we keep
    /// of an instance is still what we asked for. A create that shows late is compared with its
    /// intent.
    pub(super) fn not_as_asked(&self, polled: &Polled) -> Vec<Wrong> {
        let rows = polled.listing.iter().flat_map(|listing| &listing.rows);
        rows.filter_map(|row| self.row_mismatch(row)).collect()
    }

    fn row_mismatch(&self, row: &Instance) -> Option<Wrong> {
        let wrong = |asked, most| {
            let reason = mismatch(asked, row, most)?;
            let id = row.id;
            Some(Wrong { id, asked, reason })
        };
        if let Some(held) = self.state.held.get(&row.id) {
            // A price that a later state of the database may have set says nothing against it.
            let most = if self.is_comparing() && was_read(held) {
                row.price.unwrap_or_default().max(held.price)
            } else {
                self.dearest(held)
            };
            return if held.destroying.is_some() {
                None
            } else {
                wrong(held.rental, most)
            };
        }
        match self.state.rents_shown_by(row).next()?.effect {
            Effect::Rent { rental, price, .. } => wrong(rental, price),
            _ => None,
        }
    }

    /// The most that an instance may cost as far as we know: what it cost last, what was asked for
    /// and is not settled, what was bid lately, and what it had before it was parked.
    pub(super) fn dearest(&self, held: &Held) -> Rate {
        let open = self
            .state
            .intents
            .values()
            .filter_map(|intent| match intent.effect {
                Effect::SetBid { instance, bid } if instance == held.id => Some(bid),
                _ => None,
            });
        open.chain(self.bid_lately(held))
            .chain(held.bid_before_park)
            .fold(held.price, Rate::max)
    }

    /// The highest that we bid for an instance's slot lately. A listing may show a bid from before
    /// it was lowered, and one that came to the marketplace although its request was answered with
    /// an error.
    fn bid_lately(&self, held: &Held) -> Option<Rate> {
        let machine = self.state.machines.get(&held.slot.machine)?;
        let (bid, at) = machine.highest_bid?;
        let recent = self.now().ms_since(at) <= EVIDENCE_MS;
        (held.rental == Rental::Bid && recent).then_some(bid)
    }

    /// Adds to what a listing showed that these are to be destroyed. In one commit with it: were the
    /// process to die in between, what is kept of them would be what was got, and pass for asked.
    ///
    /// One that was at work before it could be compared, for a job that keeps its disks, is put away
    /// for good instead: it costs its disk and nothing else, and what it did is the user's.
    pub(super) fn condemn(&self, wrong: &[Wrong], jobs: &[Arc<Job>], changes: &mut Vec<Change>) {
        for wrong in wrong {
            let shown = changes.iter().rev().find_map(|change| match change {
                Change::Held(held) if held.id == wrong.id => Some((**held).clone()),
                _ => None,
            });
            let held = shown.or_else(|| self.state.held.get(&wrong.id).cloned());
            if let Some(mut held) = held.filter(|held| held.destroying.is_none()) {
                let kept = self.has_work(&held, jobs);
                let end = if kept {
                    "it is stopped, and its disk kept, for it was at work"
                } else {
                    DESTROYED
                };
                changes.push(self.wrong_event(&held, wrong.asked, &wrong.reason, end));
                if kept {
                    // Nothing brings it back: there is no price for that.
                    held.stop_asked = true;
                    held.bid_before_park = Some(Rate::ZERO);
                } else {
                    held.destroying = Some(DestroyWhy::NotAsAsked);
                }
                changes.push(Change::Held(Box::new(held)));
            }
        }
    }

    /// Destroys what was found not to be as asked, once the listing has been taken up.
    pub(super) async fn destroy_all_wrong(&mut self, wrong: &[Wrong]) -> Result<(), DaemonError> {
        for wrong in wrong {
            self.trust_no_bids(wrong.asked);
            let held = self.state.held.get(&wrong.id);
            let due = held
                .is_some_and(|held| held.destroying.is_some() && held.destroy_sent_at.is_none());
            if due && self.settings.live {
                self.destroy(wrong.id, DestroyWhy::NotAsAsked).await?;
            }
        }
        Ok(())
    }

    /// Destroys an instance that is not what was asked, and bids no more where a bid came out as
    /// something else.
    pub(super) async fn destroy_not_as_asked(
        &mut self,
        held: &Held,
        reason: &str,
    ) -> Result<(), DaemonError> {
        self.trust_no_bids(held.rental);
        self.commit(&[self.wrong_event(held, held.rental, reason, DESTROYED)])?;
        self.destroy(held.id, DestroyWhy::NotAsAsked).await
    }

    /// Whether there may be work on its disk that is nowhere else. Where its policy is not at hand,
    /// nobody knows that there is not.
    fn has_work(&self, held: &Held, jobs: &[Arc<Job>]) -> bool {
        let job = jobs.iter().find(|job| job.name == held.replica.job);
        let kept = job.is_none_or(|job| {
            !job.disposable && job.checkpoint_place != Some(CheckpointPlace::Remote)
        });
        let old = self.now().since(held.created_at) >= WORK_AFTER;
        kept && old && held.first_ran_at.is_some()
    }

    fn trust_no_bids(&self, asked: Rental) {
        if asked == Rental::Bid {
            self.parts.marketplace.disable_bids();
        }
    }

    fn wrong_event(&self, held: &Held, asked: Rental, reason: &str, end: &str) -> Change {
        let route = if asked == Rental::Bid {
            ", and no further bid goes through this route"
        } else {
            ""
        };
        Change::Event(Event {
            at: self.now(),
            severity: Severity::Alarm,
            kind: "not-as-asked".to_owned(),
            replica: Some(held.replica.clone()),
            instance: Some(held.id),
            text: format!(
                "instance {} on machine {} is not what was asked ({reason}); {end}{route}",
                held.id, held.slot.machine
            ),
        })
    }
}
