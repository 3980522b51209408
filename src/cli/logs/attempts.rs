//! Which of a job's attempts is meant.

use crate::cli::failure::Failure;
use crate::types::ids::InstanceId;
use crate::view::attempts::Known;
use crate::view::which::Of;

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
