//! Names of things. Each has its own type, so that a machine is never taken for an offer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::time::Time;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number_id!(
    /// A row of a marketplace search. Not stable: it changes when the machine is rented and returns.
    OfferId
);
number_id!(
    /// A physical machine. Stable.
    MachineId
);
number_id!(
    /// The owner of machines.
    HostId
);
number_id!(
    /// A rented instance (the marketplace's contract).
    InstanceId
);
number_id!(
    /// An account of the marketplace.
    AccountId
);

/// The stable identity of something rentable: so many GPUs of a machine. A machine may list
/// several equal slices; they share a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// The machine.
    pub machine: MachineId,
    /// How many of its GPUs.
    pub gpus: u32,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.machine, self.gpus)
    }
}

/// Why a text is not a valid name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}")]
pub struct NameError {
    what: &'static str,
    rule: &'static str,
}

/// The name of a job: 1 to 40 of a–z, 0–9 and hyphens, beginning and ending with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobName(String);

impl JobName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn plain(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

impl FromStr for JobName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let edges =
            bytes.first().copied().is_some_and(plain) && bytes.last().copied().is_some_and(plain);
        if edges && bytes.len() <= 40 && bytes.iter().all(|&b| plain(b) || b == b'-') {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError {
                what: "a job's name",
                rule: "1 to 40 of a-z, 0-9 and hyphens, with a letter or digit at both ends",
            })
        }
    }
}

/// The installation: eight of a–z and 0–9. It marks what is ours on a shared account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Installation(String);

impl Installation {
    /// The installation as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Eight letters and digits drawn from a number.
    pub fn from_seed(seed: u64) -> Self {
        let mut rest = seed;
        let text = (0..8)
            .map(|_| {
                let digit = (rest % 36) as u32;
                rest /= 36;
                char::from_digit(digit, 36).unwrap_or('0')
            })
            .collect();
        Self(text)
    }
}

impl FromStr for Installation {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() == 8 && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError {
                what: "an installation",
                rule: "eight of a-z and 0-9",
            })
        }
    }
}

macro_rules! text_id {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}
text_id!(JobName);
text_id!(Installation);

/// One of the copies of a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId {
    /// The job.
    pub job: JobName,
    /// Its number, from 0.
    pub index: u32,
}

impl ReplicaId {
    /// For an instance of ours whose label no longer says of which job it is. No job has so many
    /// replicas, so whatever its name nothing wants it.
    pub fn unnamed() -> Self {
        Self {
            job: JobName("unnamed".to_owned()),
            index: u32::MAX,
        }
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.job, self.index))
    }
}

/// A durable record of what we are about to do. The number is the wall clock in milliseconds when
/// it was made, or one more than the last: unique for the installation even after its database was
/// lost, which is what makes a label safe to settle by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IntentId(pub u64);

impl IntentId {
    /// The intent after `last`, made at `now_ms`.
    pub fn next(last: Option<Self>, now_ms: i64) -> Self {
        let clock = u64::try_from(now_ms).unwrap_or(0);
        Self(last.map_or(clock, |l| clock.max(l.0.saturating_add(1))))
    }
}

impl fmt::Display for IntentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut digits = Vec::new();
        loop {
            digits.push(char::from_digit((rest % 36) as u32, 36).unwrap_or('0'));
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        f.pad(&digits.iter().rev().collect::<String>())
    }
}

impl FromStr for IntentId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let error = NameError {
            what: "an intent",
            rule: "a number in base 36",
        };
        if text.is_empty() || !text.bytes().all(plain) {
            return Err(error);
        }
        u64::from_str_radix(text, 36).map(Self).map_err(|_| error)
    }
}

/// What an instance of ours is called at the marketplace:
/// `hg-<installation>-<job>-r<replica>-<intent>`, then optionally `/` and a mutable tail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Whose it is.
    pub installation: Installation,
    /// What it runs.
    pub replica: ReplicaId,
    /// The intent that made it.
    pub intent: IntentId,
}

impl Label {
    /// Reads a label; `None` where it is not one of ours by form. The tail is passed over.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.split('/').next()?;
        let (installation, rest) = text.strip_prefix("hg-")?.split_once('-')?;
        // A job's name may hold hyphens; the two last parts cannot.
        let (rest, intent) = rest.rsplit_once('-')?;
        let (job, replica) = rest.rsplit_once('-')?;
        Some(Self {
            installation: installation.parse().ok()?,
            replica: ReplicaId {
                job: job.parse().ok()?,
                index: replica.strip_prefix('r')?.parse().ok()?,
            },
            intent: intent.parse().ok()?,
        })
    }

    /// Whether `shown` may be this label cut short: some marketplaces and gateways were feared to
    /// keep only so many characters.
    pub fn cut_to(&self, shown: &str) -> bool {
        Self::has_prefix(shown, &self.installation) && self.to_string().starts_with(shown)
    }

    /// What a label that was cut short still says: the replica, if that much is left.
    pub fn replica_of_cut(shown: &str) -> Option<ReplicaId> {
        let (_, rest) = shown.strip_prefix("hg-")?.split_once('-')?;
        let rest = rest.trim_end_matches('-');
        let (job, replica) = rest.rsplit_once("-r")?;
        Some(ReplicaId {
            job: job.parse().ok()?,
            index: replica.parse().ok()?,
        })
    }

    /// Whether a label begins with an installation's prefix, well-formed or not. What does is
    /// ours to destroy when asked to destroy all.
    pub fn has_prefix(text: &str, installation: &Installation) -> bool {
        text.strip_prefix("hg-")
            .and_then(|rest| rest.strip_prefix(installation.as_str()))
            .is_some_and(|rest| rest.starts_with('-'))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReplicaId { job, index } = &self.replica;
        write!(f, "hg-{}-{job}-r{index}-{}", self.installation, self.intent)
    }
}

/// What an instance with a runner may do, as the word in its label's tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permit {
    /// Work, until the lease ends.
    Go,
    /// Wait.
    Hold,
    /// Destroy itself.
    Done,
}

impl Permit {
    /// The word in a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Hold => "hold",
            Self::Done => "done",
        }
    }
}

/// The part of a label that changes: gate, fence and lease of the runner on the instance. After the
/// label and a slash: `g<generation>.<permit>.<end of the lease>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// The generation that may work.
    pub generation: u32,
    /// What it may do.
    pub permit: Permit,
    /// Until when; whole seconds.
    pub until: Time,
}

impl Tail {
    /// The tail of a whole label; `None` where it has none, or none that can be read.
    pub fn of(label: &str) -> Option<Self> {
        let (_, tail) = label.split_once('/')?;
        let mut parts = tail.splitn(3, '.');
        let generation = parts.next()?.strip_prefix('g')?.parse().ok()?;
        let permit = match parts.next()? {
            "go" => Permit::Go,
            "hold" => Permit::Hold,
            "done" => Permit::Done,
            _ => return None,
        };
        let seconds: i64 = parts.next()?.parse().ok()?;
        let until = Time(seconds.checked_mul(1000)?);
        Some(Self {
            generation,
            permit,
            until,
        })
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.until.0.div_euclid(1000);
        write!(f, "g{}.{}.{seconds}", self.generation, self.permit.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_read_as_it_is_written() {
        let tail = Tail {
            generation: 3,
            permit: Permit::Go,
            until: Time(1_767_643_200_000),
        };
        let label = format!("hg-abcdefgh-train-r0-12/{tail}");
        assert!(label.ends_with("/g3.go.1767643200"));
        assert_eq!(Tail::of(&label), Some(tail));
        for bad in [
            "",
            "hg-a",
            "hg-a/",
            "hg-a/g3",
            "hg-a/g3.go",
            "hg-a/g3.stay.1",
            "hg-a/x3.go.1",
        ] {
            assert_eq!(Tail::of(bad), None, "{bad}");
        }
    }
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn labels_round_trip(seed: u64, job in "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", index: u32, intent: u64) {
            let label = Label {
                installation: Installation::from_seed(seed),
                replica: ReplicaId { job: job.parse().unwrap(), index },
                intent: IntentId(intent),
            };
            let text = label.to_string();
            prop_assert_eq!(Label::parse(&text), Some(label.clone()));
            prop_assert_eq!(Label::parse(&format!("{text}/g3.go")), Some(label.clone()));
            prop_assert!(Label::has_prefix(&text, &label.installation));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            let _ = Label::parse(&text);
        }
    }

    #[test]
    fn a_label_that_was_cut_short_still_says_whose_it_is() {
        let whole = "hg-abcdefgh-train-r1-mf3k2";
        let label = Label::parse(whole).unwrap();
        for shown in [
            "hg-abcdefgh-",
            "hg-abcdefgh-tra",
            "hg-abcdefgh-train-r1",
            whole,
        ] {
            assert!(label.cut_to(shown), "{shown}");
        }
        for shown in ["", "hg-abcdefg", "hg-abcdefgh-tram", "hg-abcdefgx-train"] {
            assert!(!label.cut_to(shown), "{shown}");
        }
        let replica = |shown| Label::replica_of_cut(shown).map(|replica| replica.to_string());
        assert_eq!(replica("hg-abcdefgh-train-r1-"), Some("train/1".to_owned()));
        assert_eq!(replica("hg-abcdefgh-train-r1"), Some("train/1".to_owned()));
        assert_eq!(replica("hg-abcdefgh-train-r"), None);
        assert_eq!(replica("hg-abcdefgh-tr"), None);
    }

    #[test]
    fn intents_never_repeat() {
        assert_eq!(IntentId::next(None, 1000), IntentId(1000));
        assert_eq!(IntentId::next(Some(IntentId(1000)), 1000), IntentId(1001));
        assert_eq!(IntentId::next(Some(IntentId(1000)), 5), IntentId(1001));
    }
}
