//! What time costs and what it achieves.
//!
//! Costs come from cumulative milliseconds, so that rounding up happens once and not each tick.
//! An instance is known to have done what it did up to the last look at it; from then on its GPUs
//! count as billed where they were at either end: that errs upward by the time between two looks
//! at most, and the bill corrects it. Work counts only where the instance ran at both ends.

use crate::types::instance::{Held, Phase};
use crate::types::job::{CheckpointPlace, Finish, Job};
use crate::types::money::{Money, Rate};
use crate::types::state::ReplicaRecord;
use crate::types::time::{Time, millis};

use super::eligible::factor_ppm;

/// What an instance was like when it was last seen.
#[derive(Clone, Copy)]
pub(crate) struct Before {
    pub(crate) phase: Phase,
    pub(crate) price: Rate,
    pub(crate) storage: Rate,
}

impl Before {
    pub(crate) fn of(held: &Held) -> Self {
        Self {
            phase: held.phase,
            price: held.price,
            storage: held.storage,
        }
    }
}

/// What an interval cost, and how long it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) ms: i64,
    pub(crate) gpu: Money,
    pub(crate) disk: Money,
}

fn bills(phase: Phase) -> bool {
    matches!(phase, Phase::Running | Phase::Exited | Phase::Unclear)
}

/// Accrues an instance up to `now`, where it was last seen to be as `before` at `unchanged`. Where
/// a price changed in between, the higher one counts.
pub(crate) fn accrue(held: &mut Held, before: Before, unchanged: Option<Time>, now: Time) -> Cost {
    let ms = now.ms_since(held.accrued_to).max(0);
    if ms == 0 {
        return Cost::default();
    }
    let step = |rate: Rate, from: i64, ms: i64| rate.cost_ms(from + ms) - rate.cost_ms(from);
    let age = held.accrued_to.ms_since(held.created_at).max(0);
    let disk = step(held.storage.max(before.storage), age, ms);
    // A clock that was set back makes a look in the future: it says nothing.
    let sure = unchanged.filter(|&at| at <= now);
    let sure = sure.map_or(0, |at| at.ms_since(held.accrued_to).max(0));
    let billed_ms = match (bills(before.phase), bills(held.phase)) {
        (true, _) => ms,
        (false, true) => ms - sure,
        (false, false) => 0,
    };
    let gpu = step(held.price.max(before.price), held.billed_ms, billed_ms);
    held.billed_ms += billed_ms;
    held.accrued_to = now;
    held.spent_gpu += gpu;
    held.spent_disk += disk;
    Cost { ms, gpu, disk }
}

/// Useful GPU-milliseconds of so much time at work, rounded down.
fn useful(job: &Job, held: &Held, ms: i64) -> i64 {
    let exact =
        i128::from(ms) * i128::from(held.slot.gpus) * i128::from(factor_ppm(job, &held.gpu_name))
            / 1_000_000;
    i64::try_from(exact).unwrap_or(i64::MAX)
}

/// What so much useful work cost on an instance, at its present rates.
pub(crate) fn work_cost(job: &Job, held: &Held, gpu_ms: i64) -> Money {
    let a_ms = i128::from(held.slot.gpus) * i128::from(factor_ppm(job, &held.gpu_name));
    let ms = i128::from(gpu_ms.max(0)) * 1_000_000 / a_ms.max(1);
    let rate = held.price.saturating_add(held.storage);
    // No work costs more than all that was paid.
    rate.cost_ms(i64::try_from(ms).unwrap_or(i64::MAX))
        .min(held.spent())
}

/// Books `ms` of unbroken running as work: after the boot overhead of the run, and durable by
/// whole checkpoint intervals. Returns the useful GPU-milliseconds that were added.
pub(crate) fn work(job: &Job, held: &mut Held, replica: &mut ReplicaRecord, ms: i64) -> i64 {
    let boot = millis(job.boot_overhead);
    let at_work = |run_ms: i64| (run_ms - boot).max(0);
    let (from, to) = (at_work(held.run_ms), at_work(held.run_ms + ms));
    held.run_ms += ms;
    let added = useful(job, held, to) - useful(job, held, from);
    let every = job.checkpoint_every.map_or(0, millis);
    let kept = if job.finish == Finish::Never {
        // What a service has served cannot be lost.
        added
    } else if job.checkpoint_place.is_some() && every > 0 {
        useful(job, held, to / every * every) - useful(job, held, from / every * every)
    } else {
        0
    };
    replica.durable_gpu_ms += kept;
    replica.volatile_gpu_ms = (replica.volatile_gpu_ms + added - kept).max(0);
    added
}

/// A run was broken: what was not in a checkpoint is lost.
pub(crate) fn lose_volatile(held: &mut Held, replica: &mut ReplicaRecord) -> i64 {
    let lost = std::mem::take(&mut replica.volatile_gpu_ms);
    replica.lost_gpu_ms += lost;
    held.run_ms = 0;
    lost
}

/// A disk is out of reach: its checkpoints are lost too, unless the job keeps them elsewhere.
pub(crate) fn lose_disk(job: &Job, replica: &mut ReplicaRecord) -> i64 {
    if job.checkpoint_place == Some(CheckpointPlace::Remote) || job.finish == Finish::Never {
        return 0;
    }
    let lost = std::mem::take(&mut replica.durable_gpu_ms);
    replica.lost_gpu_ms += lost;
    lost
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::eligible::samples::{NOW, held, job, offer, usd};
    use super::*;

    fn interval(before: Phase, after: Phase, unchanged: Option<u64>) -> (Held, Cost) {
        let mut made = held(5, &job("a"), &offer(9), usd(0.36));
        made.phase = after;
        let was = Before {
            phase: before,
            ..Before::of(&made)
        };
        let unchanged = unchanged.map(|seconds| NOW + Duration::from_secs(seconds));
        let cost = accrue(&mut made, was, unchanged, NOW + Duration::from_mins(10));
        (made, cost)
    }

    #[test]
    fn gpus_are_billed_from_the_last_look_at_which_they_were_not() {
        let billed = |before, after, unchanged| interval(before, after, unchanged).0.billed_ms;
        let all = 600_000;
        assert_eq!(billed(Phase::Provisioning, Phase::Running, None), all);
        assert_eq!(
            billed(Phase::Provisioning, Phase::Running, Some(590)),
            10_000
        );
        assert_eq!(billed(Phase::Stopped, Phase::Running, Some(590)), 10_000);
        // Until when it ran is not known.
        assert_eq!(billed(Phase::Running, Phase::Stopped, Some(300)), all);
        assert_eq!(billed(Phase::Running, Phase::Running, Some(300)), all);
        assert_eq!(billed(Phase::Stopped, Phase::Stopped, Some(300)), 0);
        // A look in the future is one before the clock was set back.
        assert_eq!(billed(Phase::Provisioning, Phase::Running, Some(900)), all);
        let disk = |unchanged| {
            interval(Phase::Provisioning, Phase::Running, unchanged)
                .1
                .disk
        };
        assert_eq!(disk(Some(590)), disk(None), "the disk is billed all along");
    }
}
