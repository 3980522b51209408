//! Copies between disks, held against what they may cost.

use super::{Checker, Step};
use crate::types::ids::InstanceId;
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
        // The whole disk, at both ends, but on one machine.
        let most = job.requirements.traffic_price_max;
        let up = old.traffic_prices.map(|(_, up)| up).or(most);
        let down = new.traffic_prices.map(|(down, _)| down).or(most);
        let worst = up.zip(down).map(|(up, down)| {
            let a_gb = i128::from(up.0) + i128::from(down.0);
            a_gb * i128::from(old.disk_gb)
        });
        let same = old.slot.machine == new.slot.machine;
        if !same && worst.is_none_or(|worst| i128::from(action.reserve.0) < worst) {
            return Err(Limit::CREDIT);
        }
        self.limits(job, action, Step::default())
    }
}
