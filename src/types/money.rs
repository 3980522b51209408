//! Money as integers: nano-dollars, and nano-dollars per hour.
//!
//! Two newtypes keep an amount from being mistaken for a rate. Nothing here is a float except the
//! two conversions at the edge, which refuse what is not a finite number of a sane size. What is
//! owed rounds up: a reservation that is a nano-dollar short is a limit that can be passed.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nano-dollars in a dollar.
pub const NANOS_PER_DOLLAR: i64 = 1_000_000_000;

/// The marketplace's bids are multiples of $0.0001 per hour.
pub const BID_STEP: Rate = Rate(100_000);

/// The least bid that the marketplace takes, $0.001 per hour. An interruptible instance at this
/// bid keeps its disk and does not run: it is parked.
pub const BID_PARKED: Rate = Rate(1_000_000);

/// Largest magnitude accepted from outside, in dollars: far over any price, far under overflow.
const DOLLARS_MAX: f64 = 1.0e8;

/// An amount of money in nano-dollars. Negative amounts are credits and refunds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Money(pub i64);

/// A price in nano-dollars per hour.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Rate(pub i64);

/// Why a text or a number is not an amount of money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a finite number, or beyond ±100 million dollars.
    #[error("not an amount of dollars that fits")]
    OutOfRange,
    /// Not a decimal number with at most nine decimals.
    #[error("not a decimal number of dollars with at most nine decimals")]
    Malformed,
}

impl Money {
    /// No money.
    pub const ZERO: Self = Self(0);
    /// The largest amount; used as "no limit".
    pub const MAX: Self = Self(i64::MAX);

    /// Whole dollars.
    pub const fn dollars(dollars: i64) -> Self {
        Self(dollars * NANOS_PER_DOLLAR)
    }

    /// The nearest nano-dollar to a number of dollars that came from outside.
    pub fn from_dollars(dollars: f64) -> Result<Self, MoneyError> {
        if !dollars.is_finite() || dollars.abs() > DOLLARS_MAX {
            return Err(MoneyError::OutOfRange);
        }
        Ok(Self((dollars * NANOS_PER_DOLLAR as f64).round() as i64))
    }

    /// Dollars as a float: for scoring, metrics and charts only.
    pub fn as_dollars(self) -> f64 {
        self.0 as f64 / NANOS_PER_DOLLAR as f64
    }

    /// Sum that stops at the bounds instead of overflowing: used where a huge reservation must
    /// compare as "over every limit".
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Difference that stops at the bounds.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// This amount times a count, stopping at the bounds.
    pub fn saturating_mul(self, count: i64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// The decimal number of dollars, without a sign for the currency: `12.5`, `0.000000001`.
    pub fn decimal(self) -> String {
        decimal(self.0)
    }
}

impl Rate {
    /// Nothing per hour.
    pub const ZERO: Self = Self(0);

    /// The nearest nano-dollar per hour to a number of dollars per hour from outside.
    pub fn from_dollars(dollars_per_hour: f64) -> Result<Self, MoneyError> {
        Money::from_dollars(dollars_per_hour).map(|m| Self(m.0))
    }

    /// Dollars per hour as a float: for scoring, metrics, charts and wire formats.
    pub fn as_dollars(self) -> f64 {
        self.0 as f64 / NANOS_PER_DOLLAR as f64
    }

    /// What this rate costs over a time, rounded up to the nano-dollar.
    pub fn cost_ms(self, milliseconds: i64) -> Money {
        const MS_PER_HOUR: i128 = 3_600_000;
        let exact = i128::from(self.0) * i128::from(milliseconds);
        let up = exact.div_euclid(MS_PER_HOUR) + i128::from(exact.rem_euclid(MS_PER_HOUR) != 0);
        Money(i64::try_from(up).unwrap_or(if up > 0 { i64::MAX } else { i64::MIN }))
    }

    /// What this rate costs over a duration, rounded up to the nano-dollar.
    pub fn cost(self, duration: Duration) -> Money {
        self.cost_ms(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    }

    /// Sum that stops at the bounds.
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// This rate times a count, stopping at the bounds.
    pub fn saturating_mul(self, count: i64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// This rate divided among `count`, rounded up. `count` of zero is taken as one.
    pub fn div_ceil(self, count: u32) -> Self {
        let n = i64::from(count.max(1));
        Self(self.0.div_euclid(n) + i64::from(self.0.rem_euclid(n) != 0))
    }

    /// The least multiple of [`BID_STEP`] that is not under this rate.
    pub fn round_up_to_bid_step(self) -> Self {
        let down = self.round_down_to_bid_step();
        if down == self {
            self
        } else {
            Self(down.0.saturating_add(BID_STEP.0))
        }
    }

    /// The greatest multiple of [`BID_STEP`] that is not over this rate.
    pub fn round_down_to_bid_step(self) -> Self {
        Self(self.0 - self.0.rem_euclid(BID_STEP.0))
    }

    /// The decimal number of dollars per hour.
    pub fn decimal(self) -> String {
        decimal(self.0)
    }
}

/// Hours in the marketplace's month, by which a storage price per GB and month becomes a rate.
pub const STORAGE_HOURS_PER_MONTH: i64 = 720;

/// The rate of `gigabytes` of storage at a price per GB and month of 720 hours, rounded up.
pub fn storage_rate(price_gb_month: Money, gigabytes: u32) -> Rate {
    // Division of 128 bits is slow, and this is reckoned for every offer and job.
    if let Some(total) = price_gb_month.0.checked_mul(i64::from(gigabytes)) {
        let hours = STORAGE_HOURS_PER_MONTH;
        return Rate(total.div_euclid(hours) + i64::from(total.rem_euclid(hours) != 0));
    }
    let total = i128::from(price_gb_month.0) * i128::from(gigabytes);
    let hours = i128::from(STORAGE_HOURS_PER_MONTH);
    let up = total.div_euclid(hours) + i128::from(total.rem_euclid(hours) != 0);
    Rate(i64::try_from(up).unwrap_or(i64::MAX))
}

fn decimal(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let magnitude = nanos.unsigned_abs();
    let whole = magnitude / NANOS_PER_DOLLAR as u64;
    let fraction = format!("{:09}", magnitude % NANOS_PER_DOLLAR as u64);
    // Cents are always shown; further decimals only where they say something.
    let kept = fraction.trim_end_matches('0').len().max(2);
    format!("{sign}{whole}.{}", &fraction[..kept])
}

fn parse_nanos(text: &str) -> Result<i64, MoneyError> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || fraction.len() > 9 {
        return Err(MoneyError::Malformed);
    }
    let whole: i64 = whole.parse().map_err(|_| MoneyError::OutOfRange)?;
    if whole as f64 > DOLLARS_MAX {
        return Err(MoneyError::OutOfRange);
    }
    let nanos: i64 = format!("{fraction:0<9}")
        .parse()
        .map_err(|_| MoneyError::Malformed)?;
    let value = whole * NANOS_PER_DOLLAR + nanos;
    Ok(if negative { -value } else { value })
}

impl FromStr for Money {
    type Err = MoneyError;
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        parse_nanos(text).map(Self)
    }
}

impl FromStr for Rate {
    type Err = MoneyError;
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        parse_nanos(text).map(Self)
    }
}

/// `$12.50`; with a precision (`{:.4}`) that many decimals, rounded half up.
fn show(nanos: i64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(places) = f.precision() else {
        let text = decimal(nanos);
        return match text.strip_prefix('-') {
            Some(rest) => f.pad(&format!("-${rest}")),
            None => f.pad(&format!("${text}")),
        };
    };
    let places = u32::try_from(places.min(9)).unwrap_or(9);
    let unit = 10_u64.pow(9 - places);
    let rounded = (nanos.unsigned_abs() + unit / 2) / unit;
    let scale = 10_u64.pow(places);
    let sign = if nanos < 0 && rounded > 0 { "-" } else { "" };
    let text = if places == 0 {
        format!("{sign}${rounded}")
    } else {
        let width = places as usize;
        format!("{sign}${}.{:0width$}", rounded / scale, rounded % scale)
    };
    // `pad` would cut at the precision, so the width is applied by hand.
    match f.width() {
        Some(width) if text.len() < width => write!(f, "{text:>width$}"),
        _ => f.write_str(&text),
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0, f)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0, f)
    }
}

macro_rules! arithmetic {
    ($type:ident) => {
        impl Add for $type {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }
        impl Sub for $type {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }
        impl Neg for $type {
            type Output = Self;
            fn neg(self) -> Self {
                Self(self.0.saturating_neg())
            }
        }
        impl AddAssign for $type {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }
        impl SubAssign for $type {
            fn sub_assign(&mut self, other: Self) {
                *self = *self - other;
            }
        }
        impl Sum for $type {
            fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
                items.fold(Self(0), Add::add)
            }
        }
    };
}
arithmetic!(Money);
arithmetic!(Rate);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shows_and_reads_decimals() {
        assert_eq!(Money(12_500_000_000).to_string(), "$12.50");
        assert_eq!(Money(-1).to_string(), "-$0.000000001");
        assert_eq!(format!("{:.4}", Rate(123_456_789)), "$0.1235");
        assert_eq!(format!("{:>9.2}", Money(1_005_000_000)), "    $1.01");
        assert_eq!("0.45".parse(), Ok(Rate(450_000_000)));
        assert_eq!("1e3".parse::<Money>(), Err(MoneyError::Malformed));
        assert_eq!(Money::from_dollars(f64::NAN), Err(MoneyError::OutOfRange));
    }

    #[test]
    fn owed_rounds_up() {
        assert_eq!(Rate(1).cost_ms(1), Money(1));
        assert_eq!(Rate(3_600_000).cost_ms(1), Money(1));
        assert_eq!(Rate(0).cost_ms(5), Money(0));
        // 0.149333 $/GB/month for 10 GB is 0.002074 $/h.
        assert_eq!(storage_rate(Money(149_333_000), 10), Rate(2_074_070));
    }

    proptest! {
        #[test]
        fn decimal_round_trips(nanos in -1_000_000_000_000_i64..1_000_000_000_000) {
            prop_assert_eq!(Money(nanos).decimal().parse(), Ok(Money(nanos)));
        }

        #[test]
        fn splitting_time_never_costs_less(rate in 0_i64..1_000_000_000_000, a in 0_i64..10_000_000, b in 0_i64..10_000_000) {
            let whole = Rate(rate).cost_ms(a + b);
            let parts = Rate(rate).cost_ms(a) + Rate(rate).cost_ms(b);
            prop_assert!(whole <= parts && parts.0 - whole.0 <= 1);
        }

        #[test]
        fn bid_steps_bracket_the_rate(nanos in 0_i64..1_000_000_000_000) {
            let (down, up) = (Rate(nanos).round_down_to_bid_step(), Rate(nanos).round_up_to_bid_step());
            prop_assert!(down <= Rate(nanos) && Rate(nanos) <= up && up.0 - down.0 <= BID_STEP.0);
        }
    }
}
