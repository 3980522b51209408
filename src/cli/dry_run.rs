//! Shows what a dry run would do, each time that it changes.

use std::fmt::Write as _;

use super::output::Output;
use crate::daemon::{Observer, TickView};
use crate::types::plan::{Plan, Report, Situation};
use crate::types::time::Time;
use crate::view::plan::effect_text;
use crate::view::words;

/// An observer of a daemon that carries nothing out.
pub(crate) struct DryRun {
    output: Output,
    /// What was shown last, without what only time changes.
    shown: Option<String>,
}

impl DryRun {
    /// Shows on stderr.
    pub(crate) fn new(output: Output) -> Self {
        Self {
            output,
            shown: None,
        }
    }
}

impl Observer for DryRun {
    fn ticked(&mut self, view: &TickView<'_>) {
        if view.live {
            return;
        }
        let key = key(view.plan, view.report);
        if self.shown.as_ref() != Some(&key) {
            self.output
                .note(&text(view.plan, view.report, view.world.now));
            self.shown = Some(key);
        }
    }
}

/// What changes only where something else would be done, or for another reason.
fn key(plan: &Plan, report: &Report) -> String {
    let replicas = report.jobs.iter().flat_map(|job| &job.replicas);
    let mut key = String::new();
    for action in &plan.actions {
        let _ = write!(key, "{};", effect_text(&action.effect));
    }
    for one in replicas {
        let _ = write!(
            key,
            "{}:{:?};",
            one.replica,
            std::mem::discriminant(&one.situation)
        );
    }
    key
}

/// A plan in words: what would be done, and why nothing is for the others.
fn text(plan: &Plan, report: &Report, now: Time) -> String {
    let mut text = format!("{now}: ");
    if plan.actions.is_empty() {
        text.push_str("would do nothing");
    }
    for (index, action) in plan.actions.iter().enumerate() {
        let of = action.replica.as_ref();
        let of = of.map_or_else(String::new, |replica| format!(" for {replica}"));
        let _ = write!(
            text,
            "{}would {}{of} ({})",
            if index == 0 { "" } else { "\n  " },
            effect_text(&action.effect),
            words::why(action.why)
        );
    }
    let groups = report.jobs.iter().flat_map(|job| job.grouped());
    for (first, last) in groups.filter(|(one, _)| one.situation != Situation::Renting) {
        let to = if first.replica == last.replica {
            String::new()
        } else {
            format!(" to {}", last.replica.index)
        };
        let doing = words::situation(&first.situation, now);
        let _ = write!(text, "\n  {}{to}: {doing}", first.replica);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::decide::decide;
    use crate::engine::eligible::samples::{job, offer, world};
    use crate::types::instance::Listing;
    use std::sync::Arc;

    #[test]
    fn a_plan_is_told_in_words_and_again_only_where_it_changes() {
        let of = |jobs: &[&str], minutes: u64| {
            let mut world = world(vec![offer(9)]);
            world.now = world.now + std::time::Duration::from_mins(minutes);
            world.listing = Some(Listing {
                rows: Vec::new(),
                complete: true,
                unreadable: Vec::new(),
            });
            world.jobs = jobs.iter().map(|name| Arc::new(job(name))).collect();
            let (plan, report) = decide(&world);
            (key(&plan, &report), text(&plan, &report, world.now))
        };
        let (first, told) = of(&["a"], 0);
        assert!(told.contains(": would rent 1 GPU of machine 9"), "{told}");
        assert!(
            told.contains(" for a/0 (the cheapest slot that suits)"),
            "{told}"
        );
        assert!(!told.contains("being rented"), "{told}");
        assert_eq!(of(&["a"], 1).0, first);
        let (both, told) = of(&["a", "b"], 0);
        assert_ne!(both, first);
        assert!(
            told.contains("\n  b/0: held back by one rental a machine"),
            "{told}"
        );
        assert!(of(&[], 0).1.ends_with(": would do nothing"));
    }
}
