//! What many runs come to, and how sure that is.

use super::chance::Chance;

/// A figure and between which bounds it lies in nine of ten resamplings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// As measured.
    pub value: f64,
    /// A twentieth of the resamplings is below.
    pub low: f64,
    /// A twentieth of the resamplings is above.
    pub high: f64,
}

/// How often series are drawn anew.
const DRAWS: usize = 2_000;

/// Cost over the optimum, as a ratio of sums, with a bootstrap over series: windows of one series
/// overlap and are no independent runs, so that whole series are drawn. `runs` holds, for each run, its
/// series, its cost and the least cost. Nothing where nothing was run, or where the optimum is free.
pub fn over_optimum(runs: &[(usize, f64, f64)], seed: u64) -> Option<Interval> {
    let mut sums: Vec<(usize, f64, f64)> = Vec::new();
    for (series, cost, least) in runs {
        if let Some(sum) = sums.iter_mut().find(|sum| sum.0 == *series) {
            sum.1 += cost;
            sum.2 += least;
        } else {
            sums.push((*series, *cost, *least));
        }
    }
    let ratio = |of: &mut dyn Iterator<Item = (usize, f64, f64)>| {
        let (cost, least) = of.fold((0.0, 0.0), |sum, one| (sum.0 + one.1, sum.1 + one.2));
        cost / least
    };
    let value = ratio(&mut sums.iter().copied());
    if !value.is_finite() {
        return None;
    }
    let mut chance = Chance::new(seed, 0);
    let mut draws: Vec<f64> = (0..DRAWS)
        .map(|_| ratio(&mut (0..sums.len()).map(|_| sums[chance.below(sums.len())])))
        .collect();
    draws.sort_by(f64::total_cmp);
    Some(Interval {
        value,
        low: draws[DRAWS / 20],
        high: draws[DRAWS - 1 - DRAWS / 20],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_of_sums_and_the_interval_of_series() {
        // Two series whose own ratios are 1.1 and 1.3; each draw is one of them, or both.
        let runs = [(4, 11.0, 10.0), (4, 11.0, 10.0), (9, 26.0, 20.0)];
        let interval = over_optimum(&runs, 1).unwrap();
        assert!((interval.value - 1.2).abs() < 1e-12);
        assert!((interval.low - 1.1).abs() < 1e-12);
        assert!((interval.high - 1.3).abs() < 1e-12);
        assert_eq!(over_optimum(&runs, 1), Some(interval));
    }

    #[test]
    fn one_series_has_no_spread_and_none_no_ratio() {
        let interval = over_optimum(&[(0, 3.0, 2.0)], 7).unwrap();
        assert_eq!((interval.low, interval.high), (1.5, 1.5));
        assert_eq!(over_optimum(&[], 7), None);
        assert_eq!(over_optimum(&[(0, 1.0, 0.0)], 7), None);
    }
}
