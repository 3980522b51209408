//! What the market knows of a command: how long it works, and how it ends.

use crate::market::contract::{RUN_FOR, seconds_of};

/// The variable that says with what exit code a runner's command ends; 0 where it is not given.
pub const EXITS: &str = "HAGGLE_MARKET_EXIT";

/// The variable that makes a runner's command hang after so many seconds of work: it neither ends nor
/// gets any further.
pub const HANGS_AFTER: &str = "HAGGLE_MARKET_HANG_AFTER";

/// What the market's own variables begin with.
const OWN: &str = "HAGGLE_MARKET_";

/// A number for so much work stands in the file that tells how far a command is.
const PROGRESS_EVERY_MS: i64 = 60_000;

/// What a command does. The market runs none, so all that it knows is what the market's own variables
/// say, in the environment or as assignments before the command. Without them it works until it is
/// ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    /// After so many milliseconds of work, in all, it ends.
    run_for: Option<i64>,
    exit: i32,
    hangs_after: Option<i64>,
}

impl Command {
    /// What a command does in an environment.
    pub(super) fn of(command: &str, env: &[(String, String)]) -> Self {
        let words = command.split_whitespace().map_while(|word| {
            let (name, value) = word.split_once('=')?;
            name.starts_with(OWN)
                .then(|| (name.to_owned(), value.to_owned()))
        });
        let told: Vec<(String, String)> = words.chain(env.iter().cloned()).collect();
        let exit = told.iter().find(|(name, _)| name == EXITS);
        let exit = exit.and_then(|(_, code)| code.parse::<u8>().ok());
        Self {
            run_for: seconds_of(&told, RUN_FOR),
            exit: exit.map_or(0, i32::from),
            hangs_after: seconds_of(&told, HANGS_AFTER),
        }
    }

    /// Milliseconds of work until it ends, once so many are done; `None`: it does not end.
    pub(super) fn ends_in(&self, worked_ms: i64) -> Option<i64> {
        let whole = self.run_for?;
        let hangs = self.hangs_after.is_some_and(|after| after < whole);
        (!hangs).then(|| (whole - worked_ms).max(0))
    }

    /// The exit code with which it ends.
    pub(super) fn exit(&self) -> i32 {
        self.exit
    }

    /// The last number in its file of progress once so much is done: minutes of work.
    pub(super) fn progress(&self, worked_ms: i64) -> Option<i64> {
        let steps = self.moved(worked_ms) / PROGRESS_EVERY_MS;
        (steps > 0).then_some(steps)
    }

    /// Milliseconds of work until that number is another one; `None`: it stays.
    pub(super) fn moves_in(&self, worked_ms: i64) -> Option<i64> {
        let next = (self.moved(worked_ms) / PROGRESS_EVERY_MS + 1) * PROGRESS_EVERY_MS;
        let stays = self.hangs_after.is_some_and(|after| next > after);
        (!stays).then(|| next - worked_ms)
    }

    fn moved(&self, worked_ms: i64) -> i64 {
        self.hangs_after
            .map_or(worked_ms, |after| worked_ms.min(after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_says_itself_what_it_does_here() {
        let of = |command| Command::of(command, &[]);
        assert_eq!(of("python train.py"), Command::default());
        assert_eq!(of("python train.py").ends_in(1), None);
        let fails = of("HAGGLE_MARKET_RUN_FOR=600 HAGGLE_MARKET_EXIT=3 python train.py");
        assert_eq!((fails.ends_in(400_000), fails.exit()), (Some(200_000), 3));
        assert_eq!(fails.ends_in(700_000), Some(0));
        // What stands behind the command is an argument of it.
        assert_eq!(of("echo HAGGLE_MARKET_EXIT=3"), Command::default());
        let env = [(RUN_FOR.to_owned(), "60".to_owned())];
        assert_eq!(Command::of("true", &env).ends_in(0), Some(60_000));
        let bad = of("HAGGLE_MARKET_RUN_FOR=soon HAGGLE_MARKET_EXIT=900 x");
        assert_eq!(bad, Command::default());
    }

    #[test]
    fn progress_is_in_minutes_and_stops_where_it_hangs() {
        let works = Command::default();
        assert_eq!(works.progress(59_999), None);
        assert_eq!(works.progress(125_000), Some(2));
        assert_eq!(works.moves_in(125_000), Some(55_000));
        let hangs = Command::of(
            "HAGGLE_MARKET_HANG_AFTER=150 HAGGLE_MARKET_RUN_FOR=300 x",
            &[],
        );
        assert_eq!(hangs.ends_in(0), None);
        assert_eq!(hangs.moves_in(60_000), Some(60_000));
        assert_eq!(hangs.moves_in(125_000), None);
        assert_eq!(hangs.progress(9_000_000), Some(2));
    }
}
