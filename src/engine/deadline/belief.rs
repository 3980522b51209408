//! Which of several chains a job has come upon, by what it has seen.

use super::chain::Seen;
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
