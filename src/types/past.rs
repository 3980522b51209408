//! What was recorded of a market.

use super::ids::Slot;
use super::offer::{Coverage, Offer};
use super::time::Time;

/// What was recorded of a market in a time, of slots with the same number of GPUs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    /// The looks at it, oldest first.
    pub looks: Vec<Look>,
    /// What was asked, and how completely that was answered; many looks share one.
    pub coverages: Vec<Vec<Coverage>>,
    /// Its rows as they changed.
    pub rows: Vec<Listed>,
}

/// One look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// When.
    pub at: Time,
    /// Which of [`Past::coverages`].
    pub coverage: usize,
}

/// A row for as long as it stayed the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The first look that saw it so.
    pub from: usize,
    /// The first that did not.
    pub to: usize,
    /// The row.
    pub offer: Offer,
}

/// An instance of ours while there was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// Where.
    pub slot: Slot,
    /// Since when.
    pub from: Time,
    /// Until when; `None`: it is there.
    pub to: Option<Time>,
}
