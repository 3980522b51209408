//! Copies between disks, held against what they may cost.

use super::{Checker, Step};
use crate::types::ids::{InstanceId, JobName};
use crate::types::instance::Held;
use crate::types::intent::Effect;
use crate::types::job::Job;
use crate::types::plan::{Action, Limit};

impl<'a> Checker<'a> {
    /// From a disk whose instance cannot run to one of the same replica that has not worked.
    pub(super) fn copy(
        &mut self,
        action: &'a Action,
        to: InstanceId,
        from: InstanceId,
    ) -> Result<(), Limit> {
        let old = self.world.state.held.get(&from).ok_or(Limit::OwnSlots)?;
        let new = self.ours(to)?;
        let job = self.may_spend(&new.replica.job)?;
        let named = new.bringing.as_ref().map(|bringing| bringing.from);
        let fits = new.replica == old.replica && named == Some(from) && new.is_behind_gate();
        if !fits || !old.parked || old.destroying.is_some() {
            return Err(Limit::Fence);
        }
        let worst = worst(job, old, new);
        let same = old.slot.machine == new.slot.machine;
        if !same && worst.is_none_or(|worst| i128::from(action.reserve.0) < worst) {
            return Err(Limit::CREDIT);
        }
        // What was held for it is what it takes now.
        let held = self.copy_held(new);
        self.hold_for_copy(&new.replica.job, -held);
        let passed = self.limits(job, action, Step::default());
        if passed.is_err() {
            self.hold_for_copy(&new.replica.job, held);
        }
        passed
    }

    fn hold_for_copy(&mut self, job: &JobName, amount: i128) {
        let step = Step {
            amount,
            ..Step::default()
        };
        self.add(job, step);
        self.ahead += amount;
    }

    /// What is to be kept for the copy to one that waits for it and to which none was made yet.
    pub(super) fn copy_held(&self, new: &Held) -> i128 {
        let Some(bringing) = &new.bringing else {
            return 0;
        };
        let over = bringing.opened || bringing.anew || bringing.verified.is_some();
        let asked = bringing.accepted_at.is_some() || bringing.asks_unknown > 0;
        if over || asked || new.parked || new.destroying.is_some() {
            return 0;
        }
        let state = &self.world.state;
        let mut intents = state.intents.values();
        let is_copy = |effect: &Effect| matches!(effect, Effect::Copy { instance, .. } if *instance == new.id);
        if intents.any(|intent| is_copy(&intent.effect)) {
            return 0;
        }
        let old = state.held.get(&bringing.from);
        let mut jobs = self.world.jobs.iter();
        let job = jobs.find(|job| job.name == new.replica.job);
        let Some((old, job)) = old.zip(job) else {
            return 0;
        };
        if old.slot.machine == new.slot.machine {
            return 0;
        }
        worst(job, old, new).unwrap_or(0)
    }
}

/// What the whole disk costs, at both ends; `None`: a price is not known.
fn worst(job: &Job, old: &Held, new: &Held) -> Option<i128> {
    let most = job.requirements.traffic_price_max;
    let up = old.traffic_prices.map(|(_, up)| up).or(most)?;
    let down = new.traffic_prices.map(|(down, _)| down).or(most)?;
    let a_gb = i128::from(up.0) + i128::from(down.0);
    Some(a_gb * i128::from(old.disk_gb))
}
