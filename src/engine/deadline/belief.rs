//! Which of several chains a job has come upon, by what it has seen.

use super::chain::{AGE_CLASSES, Chain, Seen};
use super::prior::Prior;

/// Weights of a prior's chains: at least 0, together 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Belief(Vec<f64>);

impl Belief {
    /// Before anything was seen.
    pub fn new(prior: &Prior) -> Self {
        let total: f64 = prior.weights().iter().sum();
        Self(
            prior
                .weights()
                .iter()
                .map(|weight| weight / total)
                .collect(),
        )
    }

    /// After what was seen so often, by [`Seen::index`]: that it stayed as it was, and that it ended. In which
    /// order does not matter.
    pub fn after(prior: &Prior, stayed: &[u32], ended: &[u32]) -> Self {
        let log = |weight: f64, chain: &Chain| {
            let of = |counts: &[u32], ends: bool| -> f64 {
                let all = counts.iter().take(2 * AGE_CLASSES).enumerate();
                all.map(|(index, &count)| {
                    f64::from(count) * chain.likelihood(Seen::at(index), ends).ln()
                })
                .sum()
            };
            weight.ln() + of(stayed, false) + of(ended, true)
        };
        let weights = prior.weights().iter().zip(prior.chains());
        let logs: Vec<f64> = weights.map(|(&weight, chain)| log(weight, chain)).collect();
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = logs.iter().map(|log| (log - most).exp()).sum();
        Self(logs.iter().map(|log| (log - most).exp() / total).collect())
    }

    /// The weights of the chains, in their order.
    pub fn weights(&self) -> &[f64] {
        &self.0
    }

    /// Learns that a spell went on, or that it ended.
    pub fn learn(&mut self, prior: &Prior, seen: Seen, ended: bool) {
        let mut total = 0.0;
        for (weight, chain) in self.0.iter_mut().zip(prior.chains()) {
            *weight *= chain.likelihood(seen, ended);
            total += *weight;
        }
        for weight in &mut self.0 {
            *weight /= total;
        }
    }
}
