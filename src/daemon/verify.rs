//! Reading back what was made: an instance that is not what was asked is destroyed at once.
//!
//! A gateway may rent on-demand where a bid was meant, and nothing in the answer to the create
//! says so. Only the instance itself does.

use super::older::was_read;
use super::poll::Polled;
use super::{Daemon, DaemonError};
use crate::engine::observe::EVIDENCE_MS;
use crate::types::ids::InstanceId;
use crate::types::instance::{DestroyWhy, Held, Instance, Rental};
use crate::types::intent::Effect;
use crate::types::money::{BID_STEP, Rate};
use crate::types::state::{Change, Event, Severity};

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
    pub(super) fn condemn(&self, wrong: &[Wrong], changes: &mut Vec<Change>) {
        for wrong in wrong {
            let shown = changes.iter().rev().find_map(|change| match change {
                Change::Held(held) if held.id == wrong.id => Some((**held).clone()),
                _ => None,
            });
            let held = shown.or_else(|| self.state.held.get(&wrong.id).cloned());
            if let Some(mut held) = held.filter(|held| held.destroying.is_none()) {
                changes.push(self.wrong_event(&held, wrong.asked, &wrong.reason));
                held.destroying = Some(DestroyWhy::NotAsAsked);
                changes.push(Change::Held(Box::new(held)));
            }
        }
    }

    /// Destroys what was found not to be as asked, once the listing has been taken up.
    pub(super) async fn destroy_all_wrong(&mut self, wrong: &[Wrong]) -> Result<(), DaemonError> {
        for wrong in wrong {
            self.trust_no_bids(wrong.asked);
            let held = self.state.held.get(&wrong.id);
            let due = held.is_some_and(|held| held.destroy_sent_at.is_none());
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
        self.commit(&[self.wrong_event(held, held.rental, reason)])?;
        self.destroy(held.id, DestroyWhy::NotAsAsked).await
    }

    fn trust_no_bids(&self, asked: Rental) {
        if asked == Rental::Bid {
            self.parts.marketplace.disable_bids();
        }
    }

    fn wrong_event(&self, held: &Held, asked: Rental, reason: &str) -> Change {
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
                "instance {} on machine {} is not what was asked ({reason}); it is destroyed{route}",
                held.id, held.slot.machine
            ),
        })
    }
}
