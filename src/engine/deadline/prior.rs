//! What is believed of spells before the job has seen any.

use super::chain::{Chain, Counts};

/// Scale, in ticks, of the rule by which spells last where nothing was learnt.
const SCALE: f64 = 2.5;

/// With the weight of how many ticks what was counted is drawn towards that rule.
const DRAWN: f64 = 20.0;

/// How much more readily long spells of being there end where none last.
const FLEETING: f64 = 3.0;

/// The kinds of places that there may be, and how likely each is.
///
/// Places differ most in whether capacity that has been there for hours stays. History of some places
/// says little about the next one, so that two kinds are looked for, as likely before anything is
/// seen: one as in history, and one where long spells of being there end three times as readily.
#[derive(Clone, Debug, PartialEq)]
pub struct Prior {
    chains: Vec<Chain>,
    weights: Vec<f64>,
}

impl Prior {
    /// Where there is no history: spells of either side end with the probability
    /// 1 / (age + 2.5 ticks) a tick, which is to say that what has lasted is expected to last as long
    /// again.
    ///
    /// The rule is no fit of any series: its tail is that of Pareto's law with the index 1, and its
    /// scale says that a fresh spell of a tick ends with two chances in seven.
    pub fn built_in() -> Self {
        Self::of_kinds(Chain::lasting(SCALE))
    }

    /// From what was counted of each series. Nothing counted is no history.
    pub fn learnt(series: &[Counts]) -> Self {
        let mut all = Counts::default();
        for counts in series {
            all.merge(counts);
        }
        Self::of_kinds(all.chain(&Chain::lasting(SCALE), DRAWN))
    }

    fn of_kinds(chain: Chain) -> Self {
        let fleeting = chain.fleeting(FLEETING);
        Self::of(vec![chain, fleeting])
    }

    /// These chains, at least one, each as likely.
    pub(super) fn of(chains: Vec<Chain>) -> Self {
        let weights = vec![1.0; chains.len()];
        Self { chains, weights }
    }

    /// The chains; at least one.
    pub fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// What each chain weighs; over 0.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::AGE_CLASSES;
    use super::*;

    #[test]
    fn without_history_a_spell_lasts_as_long_again() {
        for learnt in [Prior::learnt(&[]), Prior::learnt(&[Counts::default()])] {
            assert_eq!(learnt, Prior::built_in());
        }
        let prior = Prior::built_in();
        let ends = &prior.chains()[0].ends;
        assert!((ends[0] - 1.0 / 3.5).abs() < 1e-12);
        assert!(ends[..AGE_CLASSES].is_sorted_by(|younger, older| younger > older));
        assert_eq!(ends[..AGE_CLASSES], ends[AGE_CLASSES..]);
    }

    #[test]
    fn the_second_kind_differs_where_spells_are_long_and_there() {
        let counts = Counts::of(&[[true; 30], [false; 30]].concat().repeat(50));
        let prior = Prior::learnt(&[counts.clone(), counts]);
        let [usual, fleeting] = prior.chains() else {
            panic!("two kinds")
        };
        let old = AGE_CLASSES - 2;
        assert!(usual.ends[old] < 0.1 && usual.ends[old] > 0.05);
        assert!((fleeting.ends[old] - 3.0 * usual.ends[old]).abs() < 1e-12);
        assert_eq!(fleeting.ends[0], usual.ends[0]);
        assert_eq!(fleeting.ends[AGE_CLASSES..], usual.ends[AGE_CLASSES..]);
        assert_eq!(prior.weights(), [1.0, 1.0]);
    }
}
