//! The exact books of one instance: what each component cost, to the millisecond.

use std::collections::BTreeMap;

use super::api::ExactBill;
use crate::types::money::{Money, Rate};
use crate::types::time::Time;

/// Milliseconds of a day.
pub(crate) const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i128 = 3_600_000;

/// The rates at which an instance is charged at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    /// GPUs.
    pub(crate) gpu: Rate,
    /// Disk.
    pub(crate) disk: Rate,
    /// Traffic down.
    pub(crate) down: Rate,
    /// Traffic up.
    pub(crate) up: Rate,
}

/// What was used within a span, each component in nano-dollars per hour times milliseconds, so
/// that nothing is rounded before it is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Use {
    /// Amounts: GPU, disk, down, up.
    pub(crate) amounts: [i128; 4],
    /// Milliseconds for which GPUs and disk were charged.
    pub(crate) charged_ms: [i64; 2],
}

impl Use {
    fn add(&mut self, rates: Rates, ms: i64) {
        let each = [rates.gpu, rates.disk, rates.down, rates.up];
        for (sum, rate) in self.amounts.iter_mut().zip(each) {
            *sum += i128::from(rate.0) * i128::from(ms);
        }
        for (sum, rate) in self.charged_ms.iter_mut().zip([rates.gpu, rates.disk]) {
            *sum += if rate.0 > 0 { ms } else { 0 };
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (sum, amount) in self.amounts.iter_mut().zip(other.amounts) {
            *sum += amount;
        }
        for (sum, ms) in self.charged_ms.iter_mut().zip(other.charged_ms) {
            *sum += ms;
        }
    }

    /// The amount of a component in money, rounded up to the nano-dollar.
    pub(crate) fn money(&self, component: usize) -> Money {
        up(self.amounts[component])
    }

    /// The bill of this use, each component rounded up to the nano-dollar.
    pub(crate) fn bill(&self) -> ExactBill {
        ExactBill {
            gpu: self.money(0),
            disk: self.money(1),
            traffic: self.money(2) + self.money(3),
        }
    }
}

fn up(amount: i128) -> Money {
    let whole = amount.div_euclid(HOUR_MS) + i128::from(amount.rem_euclid(HOUR_MS) != 0);
    Money(i64::try_from(whole).unwrap_or(i64::MAX))
}

/// Adds up what an instance uses. Rates change at instants; between them use grows steadily.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    began: Time,
    since: Time,
    rates: Rates,
    days: BTreeMap<i64, Use>,
    /// Every change of the rates.
    changes: Vec<(Time, Rates)>,
}

impl Meter {
    pub(crate) fn new(now: Time) -> Self {
        Self {
            began: now,
            since: now,
            rates: Rates::default(),
            days: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    /// From now on, these rates.
    pub(crate) fn set(&mut self, now: Time, rates: Rates) {
        if rates == self.rates {
            return;
        }
        for (day, ms) in days(self.since, now) {
            self.days.entry(day).or_default().add(self.rates, ms);
        }
        self.since = self.since.max(now);
        self.rates = rates;
        self.changes.push((self.since, rates));
    }

    /// The meter as it stood at an earlier time.
    pub(crate) fn as_of(&self, then: Time) -> Self {
        let mut meter = Self::new(self.began);
        for &(at, rates) in self.changes.iter().take_while(|(at, _)| *at <= then) {
            meter.set(at, rates);
        }
        meter
    }

    /// The rates now.
    pub(crate) fn rates(&self) -> Rates {
        self.rates
    }

    /// The bill up to now: what the days come to, for a charge is of one day.
    pub(crate) fn bill(&self, now: Time) -> ExactBill {
        let mut sum = ExactBill::default();
        let mut count = |used: &Use| {
            let bill = used.bill();
            sum.gpu += bill.gpu;
            sum.disk += bill.disk;
            sum.traffic += bill.traffic;
        };
        // The days since the last change come last, and the first of them may be one of the others.
        let first_open = days(self.since, now).next().map(|(day, _)| day);
        for (&day, closed) in &self.days {
            if first_open.is_none_or(|first| day < first) {
                count(closed);
            }
        }
        for (day, ms) in days(self.since, now) {
            let mut used = self.days.get(&day).copied().unwrap_or_default();
            used.add(self.rates, ms);
            count(&used);
        }
        sum
    }

    /// What was used in each UTC day up to `now`, with the span within the day. A day without any
    /// use is left out.
    pub(crate) fn by_day(&self, now: Time) -> Vec<(Time, Time, Use)> {
        let mut all = self.days.clone();
        for (day, ms) in days(self.since, now) {
            let mut open = Use::default();
            open.add(self.rates, ms);
            all.entry(day).or_default().merge(&open);
        }
        all.into_iter()
            .filter(|(_, used)| used.amounts.iter().any(|&amount| amount != 0))
            .map(|(day, used)| {
                let start = Time(day * DAY_MS).max(self.began);
                let end = Time((day + 1) * DAY_MS).min(now);
                (start, end, used)
            })
            .collect()
    }
}

/// The UTC days that a span touches, each with how many milliseconds of it.
fn days(from: Time, to: Time) -> impl Iterator<Item = (i64, i64)> {
    let mut at = from.0;
    std::iter::from_fn(move || {
        if at >= to.0 {
            return None;
        }
        let day = at.div_euclid(DAY_MS);
        let end = ((day + 1) * DAY_MS).min(to.0);
        let ms = end - at;
        at = end;
        Some((day, ms))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All that was used up to now.
    fn total(meter: &Meter, now: Time) -> Use {
        let mut sum = Use::default();
        for (_, _, used) in meter.by_day(now) {
            sum.merge(&used);
        }
        sum
    }

    fn gpu(nanos: i64) -> Rates {
        Rates {
            gpu: Rate(nanos),
            ..Rates::default()
        }
    }

    #[test]
    fn charges_to_the_millisecond() {
        let mut meter = Meter::new(Time(0));
        meter.set(Time(1_000), gpu(3_600_000_000));
        meter.set(Time(1_001), gpu(0));
        assert_eq!(meter.bill(Time(9_999_999)).gpu, Money(1_000));
    }

    proptest! {
        #[test]
        fn days_add_up_to_the_whole(
            start in 0_i64..DAY_MS,
            steps in proptest::collection::vec((1_i64..2 * DAY_MS, 0_i64..5_000_000_000), 1..12),
        ) {
            let mut meter = Meter::new(Time(start));
            let mut now = start;
            let mut whole = 0;
            for (ms, rate) in steps {
                meter.set(Time(now), gpu(rate));
                now += ms;
                whole += i128::from(ms) * i128::from(rate);
            }
            prop_assert!(meter.by_day(Time(now)).iter().all(|(from, to, _)| from < to));
            prop_assert_eq!(total(&meter, Time(now)).amounts, [whole, 0, 0, 0]);
            let bill = meter.bill(Time(now)).total();
            let exact = whole as f64 / 3_600_000.0;
            prop_assert!((bill.0 as f64 - exact).abs() <= 30.0, "a nano-dollar a day at most");
            let halfway = Time(i64::midpoint(start, now));
            let early = meter.as_of(halfway);
            let (mut before, after) = (total(&early, halfway), total(&meter, Time(now)));
            for (sum, amount) in before.amounts.iter().zip(after.amounts) {
                prop_assert!(*sum <= amount);
            }
            for (from, to, used) in early.by_day(halfway) {
                prop_assert!(from < to && to <= halfway);
                for (sum, amount) in before.amounts.iter_mut().zip(used.amounts) {
                    *sum -= amount;
                }
            }
            prop_assert_eq!(before.amounts, [0; 4]);
            prop_assert_eq!(total(&meter.as_of(Time(now)), Time(now)), after);
        }
    }
}
