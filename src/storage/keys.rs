//! Where the objects of a run are. Nothing that a policy says leads out of its prefix.

use std::fmt;
use std::str::FromStr;

use super::Sum;
use crate::types::ids::{IntentId, JobName, ReplicaId};

/// S3 takes keys of 1024 bytes; what we put behind the prefix is less than a quarter of that.
const PREFIX_BYTES_MAX: usize = 512;

/// What all keys of a place begin with; may be empty. Its segments are of letters, digits, `-`, `_`
/// and `.`, so that no server and no client reads them in another way than they are signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix(String);

/// Why a text is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the storage's prefix {0:?} is not one: at most {PREFIX_BYTES_MAX} of letters, digits, `-`, `_`, \
     `.` and `/`, without a slash at either end or two together, and no part of it `.` or `..`"
)]
pub struct PrefixError(String);

impl FromStr for Prefix {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let is_segment = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(plain);
        if text.is_empty() || (text.len() <= PREFIX_BYTES_MAX && text.split('/').all(is_segment)) {
            Ok(Self(text.to_owned()))
        } else {
            // It is shown as far as it could have been one.
            Err(PrefixError(text.chars().take(PREFIX_BYTES_MAX).collect()))
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The key of an object: one of [`RunKeys`], of a job's inputs, or one that a policy names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// One that a policy names; `None`: what a client or a server might read in another way than it is
    /// signed.
    pub fn named(text: &str) -> Option<Self> {
        let plain =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'=' | b'+');
        let is_segment = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(plain);
        let fits = text.len() <= 1024 && text.split('/').all(is_segment);
        fits.then(|| Self(text.to_owned()))
    }

    /// Where what a job is given lies, by its content.
    pub(super) fn of_input(prefix: &Prefix, job: &JobName, sum: Sum) -> Self {
        let slash = if prefix.0.is_empty() { "" } else { "/" };
        Self(format!("{prefix}{slash}{job}/inputs/{sum}"))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For a test that signs as others do.
    #[cfg(test)]
    pub(super) fn raw(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Which of the three places for checkpoints. They take turns: the last one that was finished stays,
/// and so does the one that the daemon knows of, while the third is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Turn {
    /// `checkpoint0`.
    Zero,
    /// `checkpoint1`.
    One,
    /// `checkpoint2`.
    Two,
}

impl Turn {
    /// From the number that a run tells; `None` for any other.
    pub fn from_slot(slot: u8) -> Option<Self> {
        match slot {
            0 => Some(Self::Zero),
            1 => Some(Self::One),
            2 => Some(Self::Two),
            _ => None,
        }
    }

    /// The number that a run tells.
    pub fn slot(self) -> u8 {
        match self {
            Self::Zero => 0,
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

/// A directory that a run keeps, as an archive and its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tree {
    /// A checkpoint.
    Checkpoint(Turn),
    /// The results.
    Outputs,
}

impl Tree {
    /// All that a run may write.
    pub const ALL: [Self; 4] = [
        Self::Checkpoint(Turn::Zero),
        Self::Checkpoint(Turn::One),
        Self::Checkpoint(Turn::Two),
        Self::Outputs,
    ];

    /// Its name in the control document, and in the key.
    pub fn name(self) -> &'static str {
        match self {
            Self::Checkpoint(Turn::Zero) => "checkpoint0",
            Self::Checkpoint(Turn::One) => "checkpoint1",
            Self::Checkpoint(Turn::Two) => "checkpoint2",
            Self::Outputs => "outputs",
        }
    }
}

/// The keys of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunKeys {
    home: String,
    run: IntentId,
}

impl RunKeys {
    /// Those of the run that an intent began, of a replica, under a prefix.
    pub fn new(prefix: &Prefix, replica: &ReplicaId, run: IntentId) -> Self {
        let slash = if prefix.0.is_empty() { "" } else { "/" };
        let ReplicaId { job, index } = replica;
        let home = format!("{prefix}{slash}{job}/r{index}/{run}");
        Self { home, run }
    }

    /// The run.
    pub fn run(&self) -> IntentId {
        self.run
    }

    /// A directory's archive.
    pub fn tar(&self, tree: Tree) -> Key {
        Key(format!("{}/{}.tar", self.home, tree.name()))
    }

    /// A directory's manifest.
    pub fn manifest(&self, tree: Tree) -> Key {
        Key(format!("{}/{}.manifest", self.home, tree.name()))
    }

    /// The control document.
    pub fn control(&self) -> Key {
        Key(format!("{}/control", self.home))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn replica(job: &str, index: u32) -> ReplicaId {
        ReplicaId {
            job: job.parse().unwrap(),
            index,
        }
    }

    #[test]
    fn a_run_has_a_place_of_its_own() {
        let prefix: Prefix = "team/haggle-1".parse().unwrap();
        let keys = RunKeys::new(&prefix, &replica("train", 3), IntentId(36 * 36 + 5));
        let home = "team/haggle-1/train/r3/105";
        assert_eq!(keys.control().as_str(), format!("{home}/control"));
        let checkpoint = Tree::Checkpoint(Turn::One);
        assert_eq!(
            keys.tar(checkpoint).as_str(),
            format!("{home}/checkpoint1.tar")
        );
        assert_eq!(
            keys.manifest(Tree::Outputs).as_str(),
            format!("{home}/outputs.manifest")
        );
        let bare = RunKeys::new(&Prefix::default(), &replica("a", 0), IntentId(0));
        assert_eq!(bare.control().as_str(), "a/r0/0/control");
        // The same text split otherwise is another job.
        let other = RunKeys::new(&prefix, &replica("train", 31), IntentId(5));
        assert_ne!(other.control(), keys.control());
    }

    #[test]
    fn inputs_lie_by_their_content_beside_the_replicas() {
        let prefix: Prefix = "team".parse().unwrap();
        let (job, sum) = ("train".parse().unwrap(), Sum::of(b"x"));
        let key = Key::of_input(&prefix, &job, sum);
        assert_eq!(key.as_str(), format!("team/train/inputs/{sum}"));
        let bare = Key::of_input(&Prefix::default(), &job, sum);
        assert_eq!(bare.as_str(), format!("train/inputs/{sum}"));
        assert!(Key::named("a/set=1/b+c.tar").is_some());
        for bad in ["", "/a", "a/", "a//b", "a/../b", "a b", "a?b", "a%2e", "ä"] {
            assert_eq!(Key::named(bad), None, "{bad}");
        }
    }

    #[test]
    fn slots_are_three() {
        for turn in [Turn::Zero, Turn::One, Turn::Two] {
            assert_eq!(Turn::from_slot(turn.slot()), Some(turn));
        }
        assert_eq!(Turn::from_slot(3), None);
    }

    #[test]
    fn what_could_lead_elsewhere_is_no_prefix() {
        for good in ["", "a", "a/b", "a.b/..c", "A_b-9", &"x".repeat(512)] {
            assert!(good.parse::<Prefix>().is_ok(), "{good}");
        }
        for bad in [
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "../b",
            "a/.",
            "a b",
            "a\nb",
            "a\0",
            "a?b",
            "a#b",
            "a%2e",
            "a\\b",
            "ä",
            "a:b",
            &"x".repeat(513),
        ] {
            let error = bad.parse::<Prefix>().unwrap_err().to_string();
            assert!(error.contains("letters, digits"), "{bad}: {error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }

    proptest! {
        // Whatever a policy says: either it is refused, or its keys are the prefix's and plain.
        #[test]
        fn no_policy_leads_out_of_its_prefix(text in "[a-z./%\\\\ ?#-]{0,12}", index: u32, run: u64) {
            let Ok(prefix) = text.parse::<Prefix>() else { return Ok(()) };
            let keys = RunKeys::new(&prefix, &replica("job", index), IntentId(run));
            for key in Tree::ALL.iter().flat_map(|t| [keys.tar(*t), keys.manifest(*t)]) {
                prop_assert!(key.as_str().starts_with(&text));
                let parts: Vec<&str> = key.as_str().split('/').collect();
                prop_assert!(parts.iter().all(|p| !matches!(*p, "" | "." | "..")));
                prop_assert!(key.as_str().len() <= 1024);
                let url = reqwest::Url::parse(&format!("https://h/{key}")).unwrap();
                prop_assert_eq!(url.path(), format!("/{key}"));
            }
        }
    }
}
