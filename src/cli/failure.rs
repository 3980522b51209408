//! How a command fails: who can mend it, why it happened, and what would help.

use std::fmt;
use std::process::ExitCode;

use crate::ports::{ReadError, StoreError};

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// As asked.
    Success = 0,
    /// Something that the user can mend: usage, token, policy, newer database, full disk.
    Mendable = 1,
    /// The world's fault, or ours: unreachable, a bug.
    World = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// What a command returns: how the process ends, or why it failed.
pub(crate) type Done = Result<Exit, Failure>;

/// Why a command failed. Shown once, as `error: …`, its causes, and `hint: …` lines.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    error: anyhow::Error,
    hints: Vec<String>,
}

impl Failure {
    /// Something that the user can mend.
    pub(crate) fn mendable(error: impl fmt::Display) -> Self {
        Self::new(Exit::Mendable, anyhow::anyhow!("{error}"))
    }

    /// The world's fault, or ours.
    pub(crate) fn world(error: impl fmt::Display) -> Self {
        Self::new(Exit::World, anyhow::anyhow!("{error}"))
    }

    /// A failure with its causes.
    pub(crate) fn new(exit: Exit, error: anyhow::Error) -> Self {
        Self {
            exit,
            error,
            hints: Vec::new(),
        }
    }

    /// Says what was being done; the reason so far becomes its cause.
    pub(crate) fn context(mut self, doing: impl fmt::Display) -> Self {
        self.error = self.error.context(doing.to_string());
        self
    }

    /// Says what would help.
    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hints.push(hint.to_string());
        self
    }

    /// The first that was said would help.
    pub(crate) fn first_hint(&self) -> Option<&str> {
        self.hints.first().map(String::as_str)
    }

    /// Why, on one line, with its causes.
    pub(crate) fn in_short(&self) -> String {
        format!("{:#}", self.error)
    }

    /// How the process ends.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.error)?;
        let mut said = self.error.to_string();
        for cause in self.error.chain().skip(1) {
            let text = cause.to_string();
            // Some errors repeat their source in their own text.
            if !said.contains(&text) {
                write!(f, "\n  cause: {text}")?;
            }
            said = text;
        }
        for hint in &self.hints {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let (exit, hint) = match &error {
            StoreError::Full => (Exit::Mendable, Some("free some space and start again")),
            StoreError::Locked => (
                Exit::Mendable,
                Some("another process is writing to it; wait, or name another with --database"),
            ),
            StoreError::ReadOnly => (
                Exit::Mendable,
                Some("give this user the right to write to the file and its directory"),
            ),
            StoreError::Newer { .. } => (
                Exit::Mendable,
                Some("update haggle, or name another database with --database"),
            ),
            StoreError::Corrupt(_) => (
                Exit::World,
                Some(
                    "keep the file, restore a copy; `haggle kill` works without a database and \
                     stops what is rented",
                ),
            ),
            StoreError::Other(_) => (Exit::World, None),
        };
        let failure = Self::new(exit, error.into());
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let (exit, hint) = match &error {
            ReadError::Unauthorized { .. } => (
                Exit::Mendable,
                Some(
                    "check the token that the configuration's `provider.token` points at, and what \
                     it is allowed",
                ),
            ),
            ReadError::Unreachable(_) => (
                Exit::World,
                Some("check the network and the configuration's `provider.base_url`"),
            ),
            ReadError::Throttled { .. } => (Exit::World, Some("wait, then try again")),
            // A path that is not there is most often an address that is not right.
            ReadError::Malformed(_)
            | ReadError::Unsupported(_)
            | ReadError::Failed { status: 404, .. } => (
                Exit::World,
                Some(
                    "check that `provider.base_url` is a marketplace of the kind that `provider.kind` \
                     says: for the gateway its path belongs to it, such as /vastai, for `vast` none \
                     does",
                ),
            ),
            ReadError::Failed { .. } => (Exit::World, None),
        };
        let failure = Self::new(exit, error.into());
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Gives any error a place in the exit codes, and says what was being done.
pub(crate) trait OrFail<T> {
    /// The user can mend it.
    fn or_mendable(self, doing: impl fmt::Display) -> Result<T, Failure>;
    /// The world's fault, or ours.
    fn or_world(self, doing: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrFail<T> for Result<T, E> {
    fn or_mendable(self, doing: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(Exit::Mendable, error.into()).context(doing))
    }

    fn or_world(self, doing: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(Exit::World, error.into()).context(doing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::TransportError;
    use expect_test::expect;

    #[test]
    fn a_failure_shows_its_causes_once_and_its_hints() {
        let failure = Failure::from(ReadError::Unreachable(TransportError::Connect(
            "refused".into(),
        )))
        .context("cannot read the account");
        expect![[r"
            error: cannot read the account
              cause: the marketplace cannot be reached: cannot connect: refused
            hint: check the network and the configuration's `provider.base_url`"]]
        .assert_eq(&failure.to_string());
        assert_eq!(failure.exit(), Exit::World);
    }

    #[test]
    fn what_is_not_there_leads_to_the_address() {
        let failed = |status| ReadError::Failed {
            status,
            message: "Not Found".into(),
        };
        for error in [failed(404), ReadError::Unsupported("list instances")] {
            let told = Failure::from(error).to_string();
            assert!(told.contains("`provider.base_url`"), "{told}");
        }
        let told = Failure::from(failed(500)).to_string();
        assert!(!told.contains("hint"), "{told}");
    }

    #[test]
    fn who_can_mend_it_decides_the_exit_code() {
        let newer = StoreError::Newer { found: 9, known: 3 };
        assert_eq!(Failure::from(newer).exit(), Exit::Mendable);
        assert_eq!(Failure::from(StoreError::Full).exit(), Exit::Mendable);
        let corrupt = StoreError::Corrupt("page 3".into());
        assert_eq!(Failure::from(corrupt).exit(), Exit::World);
        let token = ReadError::Unauthorized {
            status: 401,
            message: "bad key".into(),
        };
        assert_eq!(Failure::from(token).exit(), Exit::Mendable);
    }
}
