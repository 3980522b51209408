//! Copies of checkpoints from disk to disk: their ends, and what they cost.

use super::Daemon;
use crate::engine::bring::shares;
use crate::engine::brought::{Refusal, booked, refused};
use crate::ports::{CopyEnd, RefusedWhy};
use crate::types::ids::InstanceId;
use crate::types::instance::Held;
use crate::types::intent::Effect;
use crate::types::money::Money;
use crate::types::state::Change;

impl Daemon {
    /// From where to where a checkpoint is copied: what stays beside its directory, to beside the directory
    /// of the other one. The slash at the end makes it the directories' contents.
    pub(super) fn copy_ends(&self, effect: &Effect) -> Option<(CopyEnd, CopyEnd)> {
        let Effect::Copy { instance, from } = *effect else {
            return None;
        };
        let carries = |id: InstanceId| {
            let view = self.state.held.get(&id)?.runner.as_ref()?;
            view.given.as_ref()?.carries()
        };
        let end = |instance, dir: &str| CopyEnd {
            instance,
            path: format!("{dir}/"),
        };
        let ((kept, _), (_, brought)) = (carries(from)?, carries(instance)?);
        Some((end(from, &kept), end(instance, &brought)))
    }

    /// A copy was refused in a way that asking again does not help.
    pub(super) fn copy_refused(
        &self,
        effect: &Effect,
        why: RefusedWhy,
        words: &str,
    ) -> Vec<Change> {
        let Effect::Copy { instance, from } = *effect else {
            return Vec::new();
        };
        let Some(kind) = definite(why) else {
            return Vec::new();
        };
        let held = &self.state.held;
        let Some(mut to) = held.get(&instance).cloned() else {
            return Vec::new();
        };
        let mut from = held.get(&from).cloned();
        refused(&mut to, from.as_mut(), kind, words);
        let ends = from.into_iter().chain([to]);
        ends.map(|held| Change::Held(Box::new(held))).collect()
    }

    /// A copy was taken up: its traffic is booked as spent on both instances, for no row shows it, and is
    /// given back where the bill says less.
    pub(super) fn copied(&self, mut to: Held, from: InstanceId, reserved: Money) -> Vec<Change> {
        let now = self.now();
        let from = self.state.held.get(&from);
        let (up, down) = shares(from, reserved);
        let payer = self.state.job(&to.replica.job).payer;
        let day = now.day(self.settings.engine.timezone);
        let mut changes = Vec::new();
        let mut book = |held: &mut Held, amount: Money| {
            let line = booked(held, amount, now);
            if amount > Money::ZERO {
                changes.push(Change::Entry(line.on(day, payer.clone())));
            }
        };
        book(&mut to, down);
        let from = from.cloned().map(|mut from| {
            book(&mut from, up);
            from
        });
        if let Some(bringing) = &mut to.bringing {
            bringing.accepted = true;
            bringing.accepted_at.get_or_insert(now);
            bringing.asks_taken = bringing.asks_taken.saturating_add(1);
        }
        changes.extend(from.map(|from| Change::Held(Box::new(from))));
        changes.push(Change::Held(Box::new(to)));
        changes
    }
}

/// What is made of a refusal; `None`: it may be otherwise a minute later.
fn definite(why: RefusedWhy) -> Option<Refusal> {
    match why {
        RefusedWhy::Invalid | RefusedWhy::Unauthorized => Some(Refusal::This),
        RefusedWhy::Unsupported => Some(Refusal::Any),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_otherwise_a_minute_later_is_asked_again() {
        for why in [
            RefusedWhy::Throttled,
            RefusedWhy::NotSent,
            RefusedWhy::Account,
        ] {
            assert_eq!(definite(why), None);
        }
        assert_eq!(definite(RefusedWhy::Invalid), Some(Refusal::This));
        assert_eq!(definite(RefusedWhy::Unsupported), Some(Refusal::Any));
    }
}
