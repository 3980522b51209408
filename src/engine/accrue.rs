//! What time costs and what it achieves.
//!
//! Costs come from cumulative milliseconds, so that rounding up happens once and not each tick.
//! An instance is known to have done what it did up to the last look at it. When between that look
//! and the next it began or ceased to be billed is not always known, so two amounts are reckoned:
//! what is likely, which is the estimate; and what it may be at most, as if it had been billed where
//! it was at either end. The difference counts as spent, too, until the bill is whole: an estimate
//! that is too low must not free money. Work counts only where the instance ran at both ends.

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

/// What tells of an interval at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// The instance was listed: how long its container is up, in milliseconds, where the row says
    /// so; and whether nothing of it is billed now, not even its disk, as while its host is offline.
    Listed { up_ms: Option<i64>, idle: bool },
    /// It had been proven gone, and is listed again. That proof stands to reason: what is listed is
    /// most likely a row from before.
    Again,
    /// The marketplace answered that it destroyed it at the end of the interval.
    Answered,
    /// It is gone, and when it went is not known.
    Gone,
}

/// What a part of an interval cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// What is likely: the estimate.
    pub(crate) likely: Money,
    /// What it may have cost beyond that.
    pub(crate) doubt: Money,
}

impl Part {
    /// An amount for `most_ms` of which `likely_ms` are likely.
    fn of(most: Money, most_ms: i64, likely_ms: i64) -> Self {
        let share = i128::from(most.0) * i128::from(likely_ms.clamp(0, most_ms));
        let whole = i128::from(most_ms.max(1));
        let up = i128::from(share % whole > 0);
        let likely = Money(i64::try_from(share / whole + up).unwrap_or(most.0)).min(most);
        Self {
            likely,
            doubt: most - likely,
        }
    }
}

/// What an interval cost, and how long it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) ms: i64,
    /// Of these, for how many nobody looked.
    pub(crate) unseen_ms: i64,
    pub(crate) gpu: Part,
    pub(crate) disk: Part,
}

/// What we ask to end or to park has most likely done so after this: a destroy and a stop take
/// effect at once, a bid under the floor parks within about a minute as documented; and the request
/// leaves some seconds after the look on which it was decided.
const ENDS_WITHIN_MS: i64 = 40_000;

fn bills(phase: Phase) -> bool {
    matches!(phase, Phase::Running | Phase::Exited | Phase::Unclear)
}

/// Accrues an instance up to `now`, where it was last seen to be as `before` at `unchanged`. Where
/// a price changed in between, the higher one counts.
pub(crate) fn accrue(
    held: &mut Held,
    before: Before,
    unchanged: Option<Time>,
    sight: Sight,
    now: Time,
) -> Cost {
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
    let asked = held.stop_asked || held.destroying.is_some();
    let (gpu_ms, disk_ms) = likely(asked, (before.phase, held.phase), sight, (ms, sure));
    Cost {
        ms,
        unseen_ms: ms - sure,
        gpu: Part::of(gpu, billed_ms, gpu_ms),
        disk: Part::of(disk, ms, disk_ms),
    }
}

/// For how much of an interval the GPUs and the disk were most likely billed, in milliseconds,
/// where for its first `sure` milliseconds nothing changed. What changed at a moment that nobody
/// saw is taken to have done so halfway; `asked` is whether we asked it to stop or to go.
fn likely(
    asked: bool,
    (before, after): (Phase, Phase),
    sight: Sight,
    (ms, sure): (i64, i64),
) -> (i64, i64) {
    let unseen = ms - sure;
    let ends = sure
        + if asked {
            ENDS_WITHIN_MS.min(unseen / 2)
        } else {
            unseen / 2
        };
    match sight {
        Sight::Again => (0, 0),
        Sight::Answered => (ms, ms),
        Sight::Gone => (ends, ends),
        Sight::Listed { up_ms, idle } => {
            let gpu = match (bills(before), bills(after)) {
                (true, true) => ms,
                (true, false) => ends,
                // It is billed from when its container runs.
                (false, true) => match up_ms {
                    Some(up) if after == Phase::Running => up.clamp(0, unseen),
                    _ => unseen / 2,
                },
                (false, false) => 0,
            };
            (gpu, if idle { 0 } else { ms })
        }
    }
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
    held.kept_gpu_ms = held.kept_gpu_ms.saturating_add(kept);
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

    fn interval_seen(
        before: Phase,
        after: Phase,
        unchanged: Option<u64>,
        asked: bool,
        sight: Sight,
    ) -> (Held, Cost) {
        let mut made = held(5, &job("a"), &offer(9), usd(0.36));
        made.phase = after;
        made.stop_asked = asked;
        let was = Before {
            phase: before,
            ..Before::of(&made)
        };
        let unchanged = unchanged.map(|seconds| NOW + Duration::from_secs(seconds));
        let now = NOW + Duration::from_mins(10);
        let cost = accrue(&mut made, was, unchanged, sight, now);
        (made, cost)
    }

    fn listed(up_seconds: Option<i64>) -> Sight {
        Sight::Listed {
            up_ms: up_seconds.map(|seconds| seconds * 1000),
            idle: false,
        }
    }

    fn interval(before: Phase, after: Phase, unchanged: Option<u64>) -> (Held, Cost) {
        interval_seen(before, after, unchanged, false, listed(None))
    }

    /// Seconds of the GPUs' billing that an amount comes to, at $0.36 an hour.
    fn seconds(amount: Money) -> i64 {
        amount.0 / 100_000
    }

    #[test]
    fn gpus_are_reckoned_from_when_the_container_came_up() {
        let part = |unchanged, up| {
            let (before, after) = (Phase::Provisioning, Phase::Running);
            let (_, cost) = interval_seen(before, after, unchanged, false, listed(up));
            (seconds(cost.gpu.likely), seconds(cost.gpu.doubt))
        };
        assert_eq!(part(None, Some(120)), (120, 480));
        assert_eq!(part(Some(500), Some(70)), (70, 30));
        // A row that does not know, or that contradicts what was seen, moves nothing out of bounds.
        assert_eq!(part(None, None), (300, 300));
        assert_eq!(part(Some(500), Some(7_000)), (100, 0));
        assert_eq!(part(None, Some(-5)), (0, 600));
    }

    #[test]
    fn a_stop_that_nobody_saw_is_reckoned_halfway_and_one_we_asked_for_soon_after() {
        let part = |unchanged, asked, sight| {
            let (before, after) = (Phase::Running, Phase::Stopped);
            let (_, cost) = interval_seen(before, after, unchanged, asked, sight);
            (seconds(cost.gpu.likely), seconds(cost.gpu.doubt))
        };
        assert_eq!(part(None, false, listed(None)), (300, 300));
        assert_eq!(part(Some(400), false, listed(None)), (500, 100));
        assert_eq!(part(None, true, listed(None)), (40, 560));
        assert_eq!(part(Some(590), true, listed(None)), (595, 5));
        assert_eq!(part(None, false, Sight::Gone), (300, 300));
        assert_eq!(part(None, true, Sight::Gone), (40, 560));
        assert_eq!(part(None, true, Sight::Answered), (600, 0));
        assert_eq!(part(None, true, Sight::Again), (0, 600));
    }

    #[test]
    fn the_disk_of_a_host_that_bills_nothing_is_in_doubt_and_no_estimate() {
        let idle = Sight::Listed {
            up_ms: None,
            idle: true,
        };
        let (stopped, asked) = (Phase::Stopped, false);
        let (held, cost) = interval_seen(stopped, stopped, None, asked, idle);
        assert_eq!(cost.disk.likely, Money::ZERO);
        assert_eq!(cost.disk.doubt, held.spent_disk);
        assert!(held.spent_disk > Money::ZERO);
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
