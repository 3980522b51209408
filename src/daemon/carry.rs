//! Copies of checkpoints from disk to disk: their ends, and what they cost.

use super::Daemon;
use crate::engine::bring::cost;
use crate::ports::CopyEnd;
use crate::types::ids::InstanceId;
use crate::types::instance::Held;
use crate::types::intent::Effect;
use crate::types::ledger::{Component, EntryKind, Line};
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

    /// A copy was taken up: its traffic is booked as spent on both instances, for no row shows it, and is
    /// given back where the bill says less.
    pub(super) fn copied(&self, mut to: Held, from: InstanceId, reserved: Money) -> Vec<Change> {
        let now = self.now();
        let posted = to.bringing.as_ref().is_some_and(|bringing| bringing.posted);
        let from = self.state.held.get(&from).filter(|_| !posted).cloned();
        let mut changes = Vec::new();
        if let Some(mut from) = from {
            let bytes = to.bringing.as_ref().map_or(0, |bringing| bringing.bytes);
            let up = from
                .traffic_prices
                .map_or(Money::ZERO, |(_, up)| cost(up, bytes));
            let up = up.min(reserved);
            let down = reserved - up;
            for (held, amount) in [(&mut from, up), (&mut to, down)] {
                held.spent_traffic = held.spent_traffic.saturating_add(amount);
                let line = Line {
                    at: now,
                    kind: EntryKind::Correct,
                    replica: held.replica.clone(),
                    intent: held.intent,
                    instance: Some(held.id),
                    component: Some(Component::Traffic),
                    amount,
                };
                let payer = self.state.job(&held.replica.job).payer;
                let day = now.day(self.settings.engine.timezone);
                if amount > Money::ZERO {
                    changes.push(Change::Entry(line.on(day, payer)));
                }
            }
            changes.push(Change::Held(Box::new(from)));
        }
        if let Some(bringing) = &mut to.bringing {
            bringing.accepted = true;
            bringing.posted |= !changes.is_empty();
        }
        changes.push(Change::Held(Box::new(to)));
        changes
    }
}
