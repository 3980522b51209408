//! Reading back what was made: an instance that is not what was asked is destroyed at once.
//!
//! A gateway may rent on-demand where a bid was meant, and nothing in the answer to the create
//! says so. Only the instance itself does, and it may have worked before it could be read. What its
//! disk holds then is the user's: where the policy keeps disks it is put away and not destroyed.

use std::time::Duration;

use super::older::was_read;
use super::poll::{Jobs, Polled};
use super::{Daemon, DaemonError};
use crate::engine::observe::EVIDENCE_MS;
use crate::engine::price::over_ceiling;
use crate::engine::transition::UNSEEN_WORK_AFTER;
use crate::types::ids::InstanceId;
use crate::types::instance::{DestroyWhy, Held, Instance, Rental};
use crate::types::intent::Effect;
use crate::types::job::{Job, RentalChoice};
use crate::types::money::{BID_STEP, Rate};
use crate::types::state::{Change, Event, Severity};
use crate::types::time::{Time, millis};

/// When a bid last came out as something else, in milliseconds, in what is kept beside the wire.
const BIDS_KEY: &str = "bids.not-as-asked";

/// A process that starts so long after that tries a bid again: the gateway may have been mended.
const BIDS_AGAIN_AFTER: Duration = Duration::from_hours(24);

/// What becomes of an instance that is not what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It holds no work that its policy keeps.
    Destroyed,
    /// It may hold work: it is stopped for good, and its disk is kept for the user.
    PutAway,
    /// It may hold work, and its policy would have taken it for what it is.
    Kept,
}

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

    /// Adds to what a listing showed what becomes of these. In one commit with it: were the process
    /// to die in between, what is kept of them would be what was got, and pass for asked.
    pub(super) fn condemn(&self, wrong: &[Wrong], jobs: &Jobs, changes: &mut Vec<Change>) {
        for wrong in wrong {
            let shown = changes.iter().rev().find_map(|change| match change {
                Change::Held(held) if held.id == wrong.id => Some((**held).clone()),
                _ => None,
            });
            let held = shown.or_else(|| self.state.held.get(&wrong.id).cloned());
            if let Some(mut held) = held.filter(|held| held.destroying.is_none()) {
                let fate = self.fate(&held, jobs.known(&held.replica.job));
                changes.push(self.wrong_event(&held, wrong.asked, &wrong.reason, fate));
                match fate {
                    Fate::Destroyed => held.destroying = Some(DestroyWhy::NotAsAsked),
                    // There is no price to bring it back to, and until its stop is read back it is
                    // asked for again and again.
                    Fate::PutAway => {
                        held.stop_asked = true;
                        held.bid_before_park = Some(Rate::ZERO);
                    }
                    Fate::Kept => {}
                }
                changes.push(Change::Held(Box::new(held)));
            }
        }
    }

    /// What becomes of one that was read late. It is destroyed where it cannot hold work that its
    /// policy keeps, as far as is known: a policy that is not at hand may keep it.
    fn fate(&self, held: &Held, job: Option<&Job>) -> Fate {
        let age_ms = self.now().ms_since(held.created_at);
        // By a clock that went back it is not known how old it is.
        let young = (0..millis(UNSEEN_WORK_AFTER)).contains(&age_ms);
        if young || held.first_ran_at.is_none() || job.is_some_and(Job::may_lose_disks) {
            return Fate::Destroyed;
        }
        let on_demand = held.rental == Rental::OnDemand;
        let fits = |job: &Job| {
            job.rental == RentalChoice::Auto
                && !over_ceiling(job, held.price, held.storage, held.slot.gpus)
        };
        if on_demand && job.is_some_and(fits) {
            Fate::Kept
        } else {
            Fate::PutAway
        }
    }

    /// Destroys what was found not to be as asked, once the listing has been taken up.
    pub(super) async fn destroy_all_wrong(&mut self, wrong: &[Wrong]) -> Result<(), DaemonError> {
        for wrong in wrong {
            self.trust_no_bids(wrong.asked)?;
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
        self.trust_no_bids(held.rental)?;
        self.commit(&[self.wrong_event(held, held.rental, reason, Fate::Destroyed)])?;
        self.destroy(held.id, DestroyWhy::NotAsAsked).await
    }

    /// Bids no more where a bid came out as something else; the next process knows it too, for each
    /// bid that is tried again is paid for.
    fn trust_no_bids(&mut self, asked: Rental) -> Result<(), DaemonError> {
        if asked != Rental::Bid {
            return Ok(());
        }
        self.parts.marketplace.disable_bids();
        self.commit(&[Change::Wire {
            key: BIDS_KEY.to_owned(),
            value: Some(self.now().0.to_string()),
        }])
    }

    /// At the start: a route on which a bid came out as something else is not tried again at once. By
    /// a clock that went back it is not known how long ago that was.
    pub(super) fn remember_bids(&self) {
        let told = self.state.wire.get(BIDS_KEY);
        let at = told.and_then(|text| text.parse().ok()).map(Time);
        if at.is_some_and(|at| self.now().ms_since(at) < millis(BIDS_AGAIN_AFTER)) {
            self.parts.marketplace.disable_bids();
        }
    }

    fn wrong_event(&self, held: &Held, asked: Rental, reason: &str, fate: Fate) -> Change {
        let route = if asked == Rental::Bid {
            ", and no further bid goes through this route"
        } else {
            ""
        };
        let end = match fate {
            Fate::Destroyed => "it is destroyed".to_owned(),
            Fate::PutAway => format!(
                "it may have worked, so it is stopped for good and its disk kept, at {:.4}/h; \
                 `haggle api delete_instance --param instance_id={}` destroys it",
                held.storage, held.id
            ),
            Fate::Kept => {
                "it may have worked, and its policy allows it at its price, so it stays".to_owned()
            }
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
