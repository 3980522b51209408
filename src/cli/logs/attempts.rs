//! Which attempts are known of a job, and which of them is meant.

use std::collections::BTreeMap;

use crate::cli::failure::Failure;
use crate::cli::jobs::held_word;
use crate::cli::which::Of;
use crate::logbook::{Attempt, Kept};
use crate::store::Ended;
use crate::types::ids::InstanceId;
use crate::types::state::State;
use crate::types::time::Time;

/// What is known of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) attempt: Attempt,
    /// Whether its instance is not proven gone, so that the marketplace may be asked.
    pub(super) live: bool,
    /// When it was settled as gone, where the database still has that.
    pub(super) ended: Option<Time>,
    /// Whether there is something in the book.
    pub(super) kept: bool,
}

impl Known {
    /// What it is, in a line.
    pub(super) fn told(&self, number: usize, state: &State) -> String {
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

/// Which of them are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The newest.
    Newest,
    /// The one with a number, counted from the newest, which is 1.
    Number(usize),
    /// That of an instance.
    Instance(InstanceId),
    /// All of them.
    All,
}

/// Everything that is known of a job's attempts, or a replica's, the newest first: from the
/// database, and from the book, which remembers for longer.
pub(super) fn known(of: &Of, state: &State, ended: Vec<Ended>, kept: Vec<Kept>) -> Vec<Known> {
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

/// Those that are meant, the oldest first, with their numbers.
pub(super) fn choose(
    of: &Of,
    choice: Choice,
    known: Vec<Known>,
) -> Result<Vec<(usize, Known)>, Failure> {
    if known.is_empty() {
        return Err(Failure::mendable(format!("{of} never ran"))
            .hint(format!("`haggle explain {}` says why", of.job)));
    }
    let count = known.len();
    let mut chosen: Vec<(usize, Known)> = known
        .into_iter()
        .enumerate()
        .map(|(at, known)| (at + 1, known))
        .filter(|(number, known)| match choice {
            Choice::All => known.live || known.kept,
            Choice::Newest => *number == 1,
            Choice::Number(wanted) => *number == wanted,
            Choice::Instance(instance) => known.attempt.instance == instance,
        })
        .collect();
    if !chosen.is_empty() {
        chosen.reverse();
        return Ok(chosen);
    }
    let failure = match choice {
        Choice::Instance(instance) => Failure::mendable(format!(
            "no attempt of {of} is known on instance {instance}"
        ))
        .hint("`haggle instances --all` shows which instance ran what"),
        Choice::Number(wanted) => Failure::mendable(format!(
            "there is no attempt {wanted} of {of}: 1 is the newest, {count} the oldest that is known"
        )),
        Choice::All | Choice::Newest => Failure::mendable(format!(
            "the machines that {of} ran on are gone, and nothing that it wrote there was kept"
        )),
    };
    Err(failure)
}
