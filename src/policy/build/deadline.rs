//! Checks of a deadline.

use super::super::reader::Reading;
use crate::types::job::{Finish, RentalChoice};

/// What a deadline needs, and what goes with none.
pub(super) fn check(reading: &mut Reading, has_windows: bool) {
    if !reading.given("deadline") {
        if reading.given("policy") && reading.text("policy").is_some() {
            reading.fault(
                "policy",
                "`policy` says how a deadline is kept, and there is none",
                "add deadline, or remove policy",
            );
        }
        return;
    }
    if reading.moment("deadline").is_none() {
        // What is wrong with it was told.
        return;
    }
    let lacks = if reading.given("array") {
        Some((
            "`deadline` does not go with [array] yet: which elements could still be done by it is not reckoned",
            "remove deadline, or make the elements jobs of their own",
        ))
    } else if reading.finish() == Some(Finish::Never) {
        Some((
            "`deadline` is of work that ends, and this job never does",
            "remove deadline, or give it another finish",
        ))
    } else if !reading.given("work.gpu_hours") {
        Some((
            "how much is left to do by the deadline is not known without `work.gpu_hours`",
            "add [work] gpu_hours, or remove deadline",
        ))
    } else {
        None
    };
    if let Some((what, right)) = lacks {
        reading.fault("deadline", what, right);
    }
    if has_windows {
        reading.fault(
            "deadline",
            "`deadline` does not go with [[window]] yet: the time in which it may not run is not reckoned",
            "remove one of the two",
        );
    }
    if reading.rental() == Some(RentalChoice::Interruptible) {
        reading.fault(
            "deadline",
            "with rental = \"interruptible\" nothing can be promised: bids are taken away",
            "use rental = \"auto\", or remove deadline",
        );
    }
}
