//! Chance: a portable generator with an independent stream per purpose.
//!
//! Only additions, multiplications and divisions are used on floats here, so that a seed gives the
//! same market on every platform; the logarithms of C libraries differ in their last digits.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A stream of chance.
#[derive(Clone, Debug)]
pub(crate) struct Dice(ChaCha8Rng);

/// What a stream is for. A machine's and a contract's streams are apart from all others, so that
/// what an account does on one machine leaves the rest of the market as it was.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// Making the machines.
    Generator,
    /// What happens on a machine.
    Machine(u64),
    /// What happens to a contract.
    Contract(u64),
    /// Which of the disputed facts hold.
    Disputed,
    /// What a host does and hides, beside what it did ever since: an older seed's market stays.
    Host(u64),
    /// What happens to an account: its payments, its notifications.
    Account(u64),
}

impl Dice {
    pub(crate) fn new(seed: u64, purpose: Purpose) -> Self {
        let (class, number) = match purpose {
            Purpose::Generator => (0, 0),
            Purpose::Machine(machine) => (1, machine),
            Purpose::Contract(contract) => (2, contract),
            Purpose::Disputed => (3, 0),
            Purpose::Host(machine) => (3, machine << 1 | 1),
            // An account's id is never 0.
            Purpose::Account(account) => (3, account << 1),
        };
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(number << 2 | class);
        Self(generator)
    }

    /// Uniform in `0.0..1.0`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Uniform in `low..high`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + self.unit() * (high - low)
    }

    /// A whole number in `low..=high`.
    pub(crate) fn whole(&mut self, low: i64, high: i64) -> i64 {
        let span = (high - low + 1) as f64;
        (low + (self.unit() * span) as i64).min(high)
    }

    /// Milliseconds, uniform between two numbers of seconds.
    pub(crate) fn seconds(&mut self, low: i64, high: i64) -> i64 {
        self.whole(low * 1000, high * 1000)
    }

    /// Milliseconds to the next event of a Poisson process of that mean gap; at least a second.
    pub(crate) fn gap(&mut self, mean_ms: f64) -> i64 {
        // A century is as good as never, and far from an overflow.
        const NEVER: f64 = 3.15e12;
        let gap = -ln(1.0 - self.unit()) * mean_ms;
        gap.clamp(1000.0, NEVER) as i64
    }

    /// A value by a distribution's quantiles, straight between them. `points` are (share, value),
    /// rising, from share 0 to share 1.
    pub(crate) fn quantile(&mut self, points: &[(f64, f64)]) -> f64 {
        quantile(self.unit(), points)
    }

    /// One of the choices, by weight.
    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T], weight: impl Fn(&T) -> f64) -> &'a T {
        let total: f64 = choices.iter().map(&weight).sum();
        let mut left = self.unit() * total;
        for choice in choices {
            left -= weight(choice);
            if left < 0.0 {
                return choice;
            }
        }
        &choices[choices.len() - 1]
    }
}

/// The value at a share of a distribution given by its quantiles.
pub(crate) fn quantile(share: f64, points: &[(f64, f64)]) -> f64 {
    let after = points
        .iter()
        .position(|&(at, _)| at >= share)
        .unwrap_or(points.len() - 1)
        .max(1);
    let ((low_at, low), (high_at, high)) = (points[after - 1], points[after]);
    let part = ((share - low_at) / (high_at - low_at)).clamp(0.0, 1.0);
    low + part * (high - low)
}

/// The natural logarithm of a positive normal number, by the series of the inverse hyperbolic
/// tangent on the mantissa.
fn ln(x: f64) -> f64 {
    const BIAS: i64 = 1023;
    let bits = x.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i64 - BIAS;
    let mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | (BIAS as u64) << 52);
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let square = t * t;
    let (mut term, mut sum) = (t, 0.0);
    for k in 0..16 {
        sum += term / f64::from(2 * k + 1);
        term *= square;
    }
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_is_right() {
        for x in [1e-15, 0.001, 0.3, 0.5, 1.0, 1.5, 2.0, 10.0] {
            assert!((ln(x) - x.ln()).abs() < 1e-12, "{x}");
        }
    }

    #[test]
    fn streams_are_independent_and_repeatable() {
        let draw = |purpose| Dice::new(7, purpose).0.next_u64();
        assert_eq!(draw(Purpose::Machine(3)), draw(Purpose::Machine(3)));
        assert_ne!(draw(Purpose::Machine(3)), draw(Purpose::Machine(4)));
        assert_ne!(draw(Purpose::Machine(3)), draw(Purpose::Contract(3)));
    }

    #[test]
    fn gaps_have_their_mean() {
        let mut dice = Dice::new(1, Purpose::Generator);
        let total: i64 = (0..20_000).map(|_| dice.gap(60_000.0)).sum();
        let mean = total as f64 / 20_000.0;
        assert!((57_000.0..63_000.0).contains(&mean), "{mean}");
    }

    #[test]
    fn quantiles_meet_their_points() {
        let points = [(0.0, 1.0), (0.5, 2.0), (1.0, 6.0)];
        assert_eq!(quantile(0.0, &points), 1.0);
        assert_eq!(quantile(0.5, &points), 2.0);
        assert_eq!(quantile(0.75, &points), 4.0);
        assert_eq!(quantile(1.0, &points), 6.0);
    }
}
