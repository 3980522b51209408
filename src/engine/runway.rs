//! For how long the credit lasts. The account is shared: others spend from it too, and what is to
//! be paid in does not count before it is seen.

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::instance::Phase;
use crate::types::money::{Money, Rate};
use crate::types::time::{Time, millis};
use crate::types::world::World;

/// How far back readings of the credit are looked at.
const WINDOW: Duration = Duration::from_hours(2);

/// A slope needs readings over at least so long: the marketplace takes from the credit in steps.
const SPAN_MIN: Duration = Duration::from_mins(10);

/// Readings kept at most; they are thinned to be no closer together than the window divided by this.
const READINGS_MAX: usize = 240;

/// A credit that is higher than it was is believed after so long, and at the second reading: answers
/// were seen to be from an hour before, and money that is paid in may wait for a poll or two.
const RISE_BELIEVED_AFTER: Duration = Duration::from_mins(10);

/// What was read of the account's credit of late. Only its falls count: what is paid in hides
/// nothing of what is spent.
#[derive(Clone, Debug, Default)]
pub struct CreditHistory {
    /// When it was read, with the sum of all falls up to then.
    readings: VecDeque<(Time, i128)>,
    last: Option<Money>,
    /// The readings by which a rise is believed, oldest first.
    recent: VecDeque<(Time, Money)>,
}

impl CreditHistory {
    /// Takes up a reading. A clock that went back begins the history anew.
    pub fn read(&mut self, now: Time, credit: Money) {
        if self.readings.back().is_some_and(|&(at, _)| at > now) {
            let least = self.relied_on().map(|credit| (now, credit));
            *self = Self::default();
            self.recent.extend(least);
        }
        self.recent.push_back((now, credit));
        while self.recent.len() > 2
            && self
                .recent
                .front()
                .is_some_and(|&(at, _)| now.since(at) > RISE_BELIEVED_AFTER)
        {
            self.recent.pop_front();
        }
        let before = self.readings.back().map_or(0, |&(_, fallen)| fallen);
        let fall = self
            .last
            .map_or(0, |last| (i128::from(last.0) - i128::from(credit.0)).max(0));
        self.last = Some(credit);
        let fallen = before + fall;
        // Two readings close together are one: what fell stays in the sum.
        let apart = WINDOW / READINGS_MAX as u32;
        let len = self.readings.len();
        let near = len >= 2 && now.since(self.readings[len - 2].0) < apart;
        if near {
            self.readings.pop_back();
        }
        self.readings.push_back((now, fallen));
        while self
            .readings
            .front()
            .is_some_and(|&(at, _)| now.since(at) > WINDOW)
        {
            self.readings.pop_front();
        }
    }

    /// The credit that may be relied on: the least that was read of late. A fall counts at once, and a rise
    /// when no reading contradicts it any more.
    pub fn relied_on(&self) -> Option<Money> {
        self.recent.iter().map(|&(_, credit)| credit).min()
    }

    /// How fast the credit fell over the readings kept, rounded up. `None` where they do not reach
    /// back far enough to say.
    pub fn slope(&self) -> Option<Rate> {
        const MS_PER_HOUR: i128 = 3_600_000;
        let (&(from, first), &(to, last)) = (self.readings.front()?, self.readings.back()?);
        let span = to.since(from);
        if span < SPAN_MIN {
            return None;
        }
        let ms = i128::from(millis(span));
        let product = (last - first).checked_mul(MS_PER_HOUR);
        let up = product.map_or(i128::MAX, |p| {
            p.div_euclid(ms) + i128::from(p.rem_euclid(ms) != 0)
        });
        Some(Rate(i64::try_from(up).unwrap_or(i64::MAX)))
    }
}

/// What the instances that are not ours cost per hour, or will once they run, as the listing shows. `None` where that is
/// not known of every one of them.
pub fn burn_of_others(world: &World) -> Option<Rate> {
    let listing = world.listing.as_ref().filter(|listing| listing.complete)?;
    let mut sum = Rate::ZERO;
    for row in &listing.rows {
        if world.state.held.contains_key(&row.id) {
            continue;
        }
        let whole = row.price.zip(row.storage);
        let whole = whole.map(|(price, storage)| price.saturating_add(storage));
        // What is being made is not billed yet, and will be.
        let costs = if row.phase() == Phase::Stopped {
            row.burn.or(whole)
        } else {
            row.burn.max(whole)
        };
        sum = sum.saturating_add(costs?);
    }
    Some(sum)
}

/// What may be taken from the credit per hour: the greatest of what all instances on the account
/// cost, ours at their worst, and what the credit was seen to fall by.
pub fn burn(world: &World) -> Option<Rate> {
    let ours = world.state.held.values().fold(Rate::ZERO, |sum, held| {
        sum.saturating_add(held.worst_rate())
    });
    let all = ours.saturating_add(burn_of_others(world)?);
    Some(all.max(world.credit_slope.unwrap_or(Rate::ZERO)))
}

/// For how long an amount lasts at a rate, rounded down; `None`: for ever. Less than nothing lasts
/// no time.
pub(crate) fn lasts(amount: i128, rate: i128) -> Option<Duration> {
    const MS_PER_HOUR: i128 = 3_600_000;
    if amount <= 0 {
        return Some(Duration::ZERO);
    }
    if rate <= 0 {
        return None;
    }
    let ms = amount.saturating_mul(MS_PER_HOUR) / rate;
    Some(Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)))
}

/// For how long the credit less its reserve lasts at the present burn. `None`: unknown, or for
/// longer than can be said.
pub fn runway(world: &World) -> Option<Duration> {
    let credit = super::budget::Purse::credit(world)?;
    lasts(credit.0.into(), burn(world)?.0.into())
}
