//! Faults that simulation plants in haggle itself, to show that its checker would see them.

use std::fmt;
use std::str::FromStr;

/// A mistake that haggle makes on purpose. No configuration file and no environment variable can
/// ask for one: only simulation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// Nothing is set aside for the time until the next poll.
    ReservationSkipped,
    /// What carries our label and is not in our records is taken for somebody else's.
    LabelIgnored,
    /// An empty listing is taken for the truth, whatever else says otherwise.
    EmptyListingBelieved,
    /// A rent whose outcome nobody knows is taken to have failed, and is tried again.
    RetryWithoutLookUp,
    /// A floor that echoes our own bid is taken for a rival's.
    EchoBelieved,
    /// What was outbid is taken for parked, though it may resume by itself.
    OldOneNotParked,
    /// Whatever account the token opens is taken for ours.
    WrongAccountAccepted,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ReservationSkipped,
        Self::LabelIgnored,
        Self::EmptyListingBelieved,
        Self::RetryWithoutLookUp,
        Self::EchoBelieved,
        Self::OldOneNotParked,
        Self::WrongAccountAccepted,
    ];

    /// Its name, as it is asked for.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReservationSkipped => "reservation-skipped",
            Self::LabelIgnored => "label-ignored",
            Self::EmptyListingBelieved => "empty-listing-believed",
            Self::RetryWithoutLookUp => "retry-without-look-up",
            Self::EchoBelieved => "echo-believed",
            Self::OldOneNotParked => "old-one-not-parked",
            Self::WrongAccountAccepted => "wrong-account-accepted",
        }
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Mutant {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|known| known.as_str() == text);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("`{text}` is not one of {names}")
        })
    }
}
