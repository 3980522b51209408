//! The minimum runway: nothing new is rented where the credit would not last.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::ids::IntentId;
use crate::types::money::{Money, Rate};
use crate::types::time::millis;
use crate::types::world::EngineConfig;

/// What the account had and what others cost on it, by the market's books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    credit: Money,
    others: Rate,
}

/// Watches what is rented against the credit.
#[derive(Debug, Default)]
pub(super) struct Runway {
    /// When the account was last read.
    read: Option<Seen>,
    /// What had been read when a rent was decided on.
    decided: BTreeMap<IntentId, Seen>,
    /// Instances that were judged already.
    judged: BTreeSet<u64>,
    /// What others cost by the hour now, of what a listing has shown.
    pub(super) others: Rate,
    /// Instances that a listing has shown to the process that lives.
    shown: BTreeSet<u64>,
}

impl Runway {
    /// The account was read, and showed this credit.
    pub(super) fn account_read(&mut self, credit: Money) {
        let others = self.others;
        self.read = Some(Seen { credit, others });
    }

    /// A process begins, and knows nothing of what others hold.
    pub(super) fn begins(&mut self) {
        self.shown.clear();
    }

    /// A listing was answered. One that is empty although it should not be tells a process that saw
    /// none before nothing; what a listing has shown once, it has to reckon with.
    pub(super) fn listed(&mut self, text: &str, ids: impl Iterator<Item = u64>) {
        // A listing is long, and few of its rows are new.
        let new: Vec<u64> = ids
            .filter(|id| !self.shown.contains(id) && text.contains(&id.to_string()))
            .collect();
        self.shown.extend(new);
    }

    /// Whether a listing has shown an instance.
    pub(super) fn has_shown(&self, id: u64) -> bool {
        self.shown.contains(&id)
    }

    /// A rent is about to be sent.
    pub(super) fn decided(&mut self, intent: IntentId) {
        if let Some(read) = self.read {
            self.decided.insert(intent, read);
        }
    }

    /// What is wrong with instances of ours that are new: each with the intent that made it. `ours` is
    /// what all of ours may cost by the hour by themselves, the new ones included.
    ///
    /// What others took and rented between the look at the account that a rent was decided on and the
    /// rent itself is not held against it; and nothing else is. How fast the credit was seen to fall
    /// is left out: it is the daemon's own observation, and makes it only more careful.
    pub(super) fn look(
        &mut self,
        config: &EngineConfig,
        new: &[(u64, IntentId)],
        ours: Rate,
        credit: Money,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        for &(id, intent) in new {
            if !self.judged.insert(id) {
                continue;
            }
            let now = Seen {
                credit,
                others: self.others,
            };
            let then = self.decided.get(&intent).copied().unwrap_or(now);
            let left = credit.max(then.credit) - config.credit_reserve;
            if left < Money::ZERO {
                wrong.push(format!(
                    "instance {id} was rented although the credit is {left} over its reserve"
                ));
            }
            let Some(least) = config.min_runway else {
                continue;
            };
            let burn = i128::from((ours + then.others.min(self.others)).0);
            let lasts_ms = i128::from(left.0) * 3_600_000;
            if lasts_ms < burn * i128::from(millis(least)) {
                wrong.push(format!(
                    "instance {id} was rented although {left} does not last for {} s at {}",
                    least.as_secs(),
                    Money(burn as i64),
                ));
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Whether a rent at a dollar an hour is found wrong, with a reserve of a dollar and two hours of
    /// runway, after `then` was read and `now` is so.
    fn is_wrong(then: Option<(i64, i64)>, now: (i64, i64)) -> bool {
        let config = EngineConfig {
            credit_reserve: Money::dollars(1),
            min_runway: Some(Duration::from_hours(2)),
            ..EngineConfig::default()
        };
        let intent = IntentId(7);
        let mut runway = Runway::default();
        if let Some((credit, others)) = then {
            runway.others = Rate(others);
            runway.account_read(Money(credit));
            runway.decided(intent);
        }
        runway.others = Rate(now.1);
        let new = [(1, intent)];
        let ours = Rate(Money::dollars(1).0);
        let wrong = runway.look(&config, &new, ours, Money(now.0));
        // It is judged once.
        assert!(runway.look(&config, &new, ours, Money::ZERO).is_empty());
        !wrong.is_empty()
    }

    #[test]
    fn a_rent_that_the_credit_does_not_last_for_is_found() {
        let three = Money::dollars(3).0;
        assert!(!is_wrong(None, (three, 0)));
        assert!(is_wrong(None, (three - 1, 0)));
        assert!(is_wrong(None, (three, 1)));
    }

    #[test]
    fn a_rent_under_the_reserve_is_found_without_a_runway_too() {
        let look = |credit| {
            let config = EngineConfig {
                min_runway: None,
                credit_reserve: Money(100),
                ..EngineConfig::default()
            };
            let new = [(1, IntentId(1))];
            Runway::default().look(&config, &new, Rate(0), Money(credit))
        };
        assert_eq!(look(100), Vec::<String>::new());
        assert_eq!(look(99).len(), 1);
    }

    #[test]
    fn what_others_did_since_the_account_was_read_is_not_held_against_it() {
        let three = Money::dollars(3).0;
        assert!(!is_wrong(Some((three, 0)), (0, three)));
        assert!(is_wrong(Some((three - 1, 0)), (0, 0)));
        assert!(is_wrong(Some((three, 1)), (three, 1)));
    }
}
