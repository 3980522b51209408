//! The recorded market, look by look.

use std::collections::BTreeMap;

use crate::types::ids::{OfferId, Slot};
use crate::types::money::Rate;
use crate::types::offer::{Coverage, Extent, Offer};
use crate::types::past::{Past, Stay};
use crate::types::time::Time;

/// Goes through the looks in their order.
pub(super) struct Tape<'a> {
    past: &'a Past,
    stays: &'a [Stay],
    /// Rows by the look that saw them first, and by the first that did not, the last ones first.
    opens: Vec<usize>,
    closes: Vec<usize>,
    shown: BTreeMap<(Slot, OfferId), &'a Offer>,
    /// How the slots of our own stays were listed before those hid them.
    before: BTreeMap<Slot, Offer>,
}

/// The market at a look.
pub(super) struct Seen<'a> {
    pub(super) at: Time,
    /// The rows in the order of their slots, as they would have been without our own stays.
    pub(super) offers: Vec<Offer>,
    pub(super) coverage: &'a [Coverage],
    /// Slots of our own stays, shown as they were before.
    pub(super) carried: usize,
}

impl<'a> Tape<'a> {
    pub(super) fn new(past: &'a Past, stays: &'a [Stay]) -> Self {
        let mut opens: Vec<usize> = (0..past.rows.len()).collect();
        let mut closes = opens.clone();
        opens.sort_by_key(|&row| std::cmp::Reverse(past.rows[row].from));
        closes.sort_by_key(|&row| std::cmp::Reverse(past.rows[row].to));
        Self {
            past,
            stays,
            opens,
            closes,
            shown: BTreeMap::new(),
            before: BTreeMap::new(),
        }
    }

    /// The market at the look of this number; they are asked for one after the other.
    pub(super) fn at(&mut self, look: usize) -> Seen<'a> {
        let rows = &self.past.rows;
        // What ended goes first: the row after it has the same key.
        while let Some(row) = self.closes.pop_if(|row| rows[*row].to <= look) {
            self.shown.remove(&key(&rows[row].offer));
        }
        while let Some(row) = self.opens.pop_if(|row| rows[*row].from <= look) {
            self.shown.insert(key(&rows[row].offer), &rows[row].offer);
        }
        let at = self.past.looks[look].at;
        let mut offers: Vec<Offer> = self.shown.values().map(|&offer| offer.clone()).collect();
        let carried = self.unhide(&mut offers, at);
        Seen {
            at,
            offers,
            coverage: &self.past.coverages[self.past.looks[look].coverage],
            carried,
        }
    }

    /// Shows the slots that our own instances hid as they were before: what is asked would not have had
    /// those instances.
    fn unhide(&mut self, offers: &mut Vec<Offer>, at: Time) -> usize {
        let mut carried = 0;
        for stay in self.stays {
            let free = |offer: &&Offer| offer.slot() == stay.slot && is_free(offer);
            if let Some(offer) = offers.iter().find(free) {
                self.before.insert(stay.slot, offer.clone());
                continue;
            }
            if at < stay.from || stay.to.is_some_and(|to| at >= to) {
                continue;
            }
            let Some(before) = self.before.get(&stay.slot) else {
                continue;
            };
            offers.retain(|offer| offer.slot() != stay.slot);
            offers.push(Offer {
                rentable: Some(true),
                rented: Some(false),
                ..before.clone()
            });
            carried += 1;
        }
        if carried > 0 {
            offers.sort_by_key(key);
        }
        carried
    }
}

fn key(offer: &Offer) -> (Slot, OfferId) {
    (offer.slot(), offer.id)
}

fn is_free(offer: &Offer) -> bool {
    offer.rentable != Some(false) && offer.rented != Some(true)
}

/// What a look says of a slot that somebody bids for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// A bid over this runs; `None`: the row says no floor.
    Floor(Option<Rate>),
    /// It is somebody else's, at a price that no bid reaches, or was taken off the market.
    Taken,
    /// Nobody looked.
    Unseen,
}

impl Seen<'_> {
    /// The row of the GPUs of an offer that was rented: of equal slices the same one, else the cheapest.
    pub(super) fn row_of(&self, rented: &Offer) -> Option<usize> {
        let of_slot = |at: &usize| self.offers[*at].slot() == rented.slot();
        let same = |at: &usize| {
            let row = &self.offers[*at];
            row.id == rented.id || (!row.gpu_ids.is_empty() && row.gpu_ids == rented.gpu_ids)
        };
        let mut rows = (0..self.offers.len()).filter(of_slot);
        rows.clone().find(same).or_else(|| {
            rows.by_ref()
                .min_by_key(|at| (self.offers[*at].floor.is_none(), self.offers[*at].floor))
        })
    }

    /// What became of the GPUs of an offer that was rented.
    pub(super) fn standing(&self, rented: &Offer) -> Standing {
        if let Some(row) = self.row_of(rented) {
            let row = &self.offers[row];
            return if is_free(row) {
                Standing::Floor(row.floor)
            } else {
                Standing::Taken
            };
        }
        let listed = Offer {
            rentable: Some(true),
            rented: Some(false),
            ..rented.clone()
        };
        let would_have = |one: &Coverage| {
            one.extent == Extent::Complete && !one.query.open && one.query.matches(&listed)
        };
        if self.coverage.iter().any(would_have) {
            Standing::Taken
        } else {
            Standing::Unseen
        }
    }
}
