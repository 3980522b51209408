//! Which attempts are known of a job.

use std::collections::BTreeMap;

use super::jobs::held_word;
use super::which::Of;
use crate::logbook::{Attempt, Kept};
use crate::store::Ended;
use crate::types::ids::InstanceId;
use crate::types::state::State;
use crate::types::time::Time;

/// What is known of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) attempt: Attempt,
    /// Whether its instance is not proven gone, so that the marketplace may be asked.
    pub(crate) live: bool,
    /// When it was settled as gone, where the database still has that.
    pub(crate) ended: Option<Time>,
    /// Whether there is something in the book.
    pub(crate) kept: bool,
}

impl Known {
    /// What it is, in a line.
    pub(crate) fn told(&self, number: usize, state: &State) -> String {
        let Attempt {
            replica, instance, ..
        } = &self.attempt;
        let held = state.held.get(instance).filter(|_| self.live);
        let doing = match (held, self.ended) {
            (Some(held), _) => held_word(held).to_owned(),
            (None, Some(at)) => format!("gone since {at}"),
            (None, None) => "gone".to_owned(),
        };
        format!("{replica}, attempt {number}, instance {instance}, {doing}")
    }
}

/// Everything that is known of a job's attempts, or a replica's, the newest first: from the
/// database, and from the book, which remembers for longer.
pub(crate) fn known(of: &Of, state: &State, ended: Vec<Ended>, kept: Vec<Kept>) -> Vec<Known> {
    let mut all: BTreeMap<(_, InstanceId), Known> = BTreeMap::new();
    let mut with = |attempt: Attempt, learn: &dyn Fn(&mut Known)| {
        if of.includes(&attempt.replica) {
            let key = (attempt.intent, attempt.instance);
            learn(all.entry(key).or_insert(Known {
                attempt,
                live: false,
                ended: None,
                kept: false,
            }));
        }
    };
    for kept in kept {
        with(kept.attempt, &|known| known.kept = kept.bytes > 0);
    }
    for ended in ended {
        with(Attempt::of(&ended.held), &|known| {
            known.ended = Some(ended.at);
        });
    }
    for held in state.held.values() {
        with(Attempt::of(held), &|known| known.live = true);
    }
    all.into_values().rev().collect()
}
