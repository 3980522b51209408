//! Whether something that runs well is moved, for it would cost less elsewhere; and whether something that
//! was outbid is waited for.
//!
//! A job that had to take what there was, on demand or at a high bid, would otherwise keep it to its end.
//! Both are compared by what a useful GPU-hour costs from now on, with everything in it: elsewhere the
//! landed price, which holds the new start and the risk of a slot that is not known well; here the rates
//! that are paid, and the risk of a slot that has stood the test. What is saved so until the work is done, or
//! until it would have to leave all the same, is held against what the move takes: a new start, and what was
//! done since the last checkpoint and would be done twice.
//!
//! Staying is favoured: twice that has to be saved, an instance has to have run for an
//! hour, there has to be work left that is worth it, and one replica moves at a time, so that two do not
//! leave for the same slot.

use std::time::Duration;

use crate::types::instance::{Held, Phase, Rental};

use crate::types::job::{CheckpointPlace, Finish, Job};
use crate::types::money::BID_PARKED;
use crate::types::plan::Candidate;
use crate::types::state::ReplicaRecord;
use crate::types::time::millis;
use crate::types::world::World;

use super::act::expendable;
use super::budget::offered;
use super::eligible::Scope;
use super::price::{stay_gpu_hours, staying};
use super::rank::{MarketIndex, Ranking};

/// By how much less a useful GPU-hour has to cost elsewhere at least: an assumption.
const GAIN_MIN: f64 = 0.10;

/// How many times what a move takes has to be saved by it: an assumption, for what is expected is not sure.
const TIMES_MIN: f64 = 2.0;

/// An instance has to have run for so long without a break before it is moved: at most one move an hour.
const STAYS_AT_LEAST: Duration = Duration::from_hours(1);

/// Useful GPU-hours, a GPU each, for which a move is worth its trouble.
const WORK_LEFT_MIN_HOURS: f64 = 1.0;

/// The slot for which an instance is better left; `None`: it stays.
pub(super) fn cheaper_elsewhere<'a>(
    world: &World,
    job: &Job,
    (ranking, index): (&'a Ranking, &MarketIndex<'_>),
    held: &Held,
    record: &ReplicaRecord,
) -> Option<&'a Candidate> {
    let settled = held.phase == Phase::Running
        && held.destroying.is_none()
        && !held.stop_asked
        && held.run_ms >= millis(STAYS_AT_LEAST);
    // A service that is moved is away for a while, and nobody says what that costs.
    let movable = job.finish != Finish::Never && expendable(world, job, held);
    if !settled || !movable {
        return None;
    }
    let mut elsewhere = ranking.candidates.iter();
    let best = elsewhere.find(|candidate| candidate.slot.machine != held.slot.machine)?;
    let scope = Scope::new(world, job);
    let here = staying(&scope, index.risks(), held)?;
    let gpu_hours = |gpu_ms: i64| gpu_ms.max(0) as f64 / 3_600_000.0;
    let left = scope.hours_left(held, record)?;
    if left < WORK_LEFT_MIN_HOURS * f64::from(held.slot.gpus) {
        return None;
    }
    // What is paid once there, and what is done again; what is saved until it would be lost here, too.
    let stay = stay_gpu_hours(&scope, offered(world, best)?);
    let once = (best.parts.boot + best.parts.traffic) * stay;
    let again = gpu_hours(goes_with_disk(job, record)) * here.total;
    let running = best.parts.total() - best.parts.boot - best.parts.traffic;
    let saved = (here.total - running) * left.min(here.lasts);
    let pays = saved > (once + again) * TIMES_MIN;
    (pays && running < here.total * (1.0 - GAIN_MIN)).then_some(best)
}

/// Useful milliseconds of work that are done again where a replica leaves its disk: what is in no checkpoint,
/// and, unless checkpoints are elsewhere, all the others. That a policy lets a disk be lost makes what is on
/// it no cheaper to do once more.
fn goes_with_disk(job: &Job, record: &ReplicaRecord) -> i64 {
    let elsewhere = job.checkpoint_place == Some(CheckpointPlace::Remote);
    let kept = if elsewhere { 0 } else { record.durable_gpu_ms };
    record.volatile_gpu_ms.saturating_add(kept)
}

/// Whether what an instance was outbid of is to be had elsewhere at no more than it was, with a new start:
/// there is nothing to wait for then. Where its disk carries work, that is not asked: it would have to be
/// brought along, or done again.
pub(super) fn no_dearer_elsewhere(
    world: &World,
    job: &Job,
    (ranking, index): (&Ranking, &MarketIndex<'_>),
    held: &Held,
    record: &ReplicaRecord,
) -> bool {
    let is_outbid = held.phase == Phase::Stopped
        && held.rental == Rental::Bid
        && held.outbid_at.is_some()
        && held.price > BID_PARKED;
    let carries =
        job.finish != Finish::Never && goes_with_disk(job, record) > record.volatile_gpu_ms;
    if !is_outbid || carries || !expendable(world, job, held) {
        return false;
    }
    let mut elsewhere = ranking.candidates.iter();
    let best = elsewhere.find(|candidate| candidate.slot.machine != held.slot.machine);
    let scope = Scope::new(world, job);
    let here = best.and_then(|_| staying(&scope, index.risks(), held));
    best.zip(here)
        .is_some_and(|(best, here)| best.parts.total() <= here.total)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::decide::decide;
    use super::super::eligible::samples::{NOW, held, job, offer, usd, world};
    use super::super::properties::list;
    use super::*;
    use crate::types::instance::DestroyWhy;
    use crate::types::intent::Effect;
    use crate::types::machine::Odds;
    use crate::types::money::Rate;
    use crate::types::offer::Offer;
    use crate::types::state::Wish;

    /// A job that has been on demand at $0.60/h for two hours, while bids at $0.21 would do.
    fn scene() -> (World, Job, Held) {
        let mut job = job("a");
        job.checkpoint_place = Some(CheckpointPlace::Remote);
        let mut dear = held(1, &job, &offer(1), usd(0.6));
        dear.rental = Rental::OnDemand;
        dear.run_ms = millis(Duration::from_hours(2));
        dear.odds = Some(Odds {
            outbid_ppm_h: 0,
            lost_ppm_h: 5_000,
        });
        let taken = Offer {
            rented: Some(true),
            ..offer(1)
        };
        (world(vec![taken, offer(2)]), job, dear)
    }

    fn destroys((world, job, held): &(World, Job, Held)) -> Option<DestroyWhy> {
        let mut world = world.clone();
        world.jobs = vec![Arc::new(job.clone())];
        world.state.held.insert(held.id, held.clone());
        list(&mut world, true);
        let (plan, _) = decide(&world);
        plan.actions.iter().find_map(|action| match action.effect {
            Effect::Destroy { why, .. } => Some(why),
            _ => None,
        })
    }

    #[test]
    fn what_had_to_take_a_dear_slot_moves_to_a_cheap_one() {
        assert_eq!(destroys(&scene()), Some(DestroyWhy::Moved));
    }

    #[test]
    fn nothing_moves_that_would_gain_little_or_lose_much() {
        let stays = |change: &dyn Fn(&mut World, &mut Job, &mut Held)| {
            let (mut world, mut job, mut held) = scene();
            change(&mut world, &mut job, &mut held);
            let destroyed = destroys(&(world, job, held));
            assert_eq!(destroyed, None);
        };
        // It costs nearly as much elsewhere.
        stays(&|_, _, held| held.price = usd(0.215));
        // It was moved, or outbid, less than an hour ago.
        stays(&|_, _, held| held.run_ms = millis(Duration::from_mins(59)));
        // Its work is on its disk alone.
        stays(&|_, job, _| job.checkpoint_place = Some(CheckpointPlace::Disk));
        stays(&|_, job, _| job.finish = Finish::Never);
        // It is all but done.
        stays(&|_, job, _| {
            job.finish = Finish::Work;
            job.work_mgpu_h = Some(900);
        });
        // Hours of work are in no checkpoint yet.
        stays(&|world, job, held| {
            job.finish = Finish::Work;
            job.work_mgpu_h = Some(8000);
            job.checkpoint_every = Some(Duration::from_hours(9));
            let mut record = world.state.replica(&held.replica);
            record.volatile_gpu_ms = millis(Duration::from_hours(6));
            world.state.replicas.insert(record.id.clone(), record);
        });
        // Hours of work are on its disk alone, which its policy lets go.
        stays(&|world, job, held| {
            (job.checkpoint_place, job.disposable) = (Some(CheckpointPlace::Disk), true);
            job.finish = Finish::Work;
            job.work_mgpu_h = Some(16_000);
            let mut record = world.state.replica(&held.replica);
            record.durable_gpu_ms = millis(Duration::from_hours(10));
            world.state.replicas.insert(record.id.clone(), record);
        });
        // There is nothing else, or nothing that the limits leave.
        stays(&|world, _, _| Arc::make_mut(&mut world.market).offers.truncate(1));
        stays(&|world, _, _| world.config.instances_max = 1);
        // Nobody knows what is cheap now.
        stays(&|world, _, _| Arc::make_mut(&mut world.market).at = NOW - Duration::from_hours(9));
        stays(&|world, _, _| world.wind_down = true);
        stays(&|world, job, _| {
            let mut record = world.state.job(&job.name);
            record.wish = Wish::Run;
            world.state.killed = false;
            world.account = None;
            world.state.jobs.insert(record.name.clone(), record);
        });
    }

    #[test]
    fn one_leaves_at_a_time() {
        let (mut world, job, held) = scene();
        for (id, name) in [(1, "a"), (2, "b"), (3, "c")] {
            let job = Job {
                name: name.parse().unwrap(),
                ..job.clone()
            };
            let mut other = held.clone();
            other.id = crate::types::ids::InstanceId(id);
            other.intent = crate::types::ids::IntentId(id);
            other.replica.job = job.name.clone();
            other.slot.machine = crate::types::ids::MachineId(100 + id);
            world.state.held.insert(other.id, other);
            world.jobs.push(Arc::new(job));
        }
        list(&mut world, true);
        let (plan, _) = decide(&world);
        let left = plan
            .actions
            .iter()
            .filter(|action| matches!(action.effect, Effect::Destroy { .. }));
        assert_eq!(left.count(), 1);
        // At what it pays now nobody leaves.
        for held in world.state.held.values_mut() {
            held.price = Rate(1);
        }
        let (plan, _) = decide(&world);
        assert!(
            plan.actions
                .iter()
                .all(|action| !matches!(action.effect, Effect::Destroy { .. }))
        );
    }
}
