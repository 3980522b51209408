//! What instances' labels say that their runners may do: gate, fence and lease.
//!
//! An instance reads its own label. While that says `go` with its own generation, and the lease has not
//! ended, its command works. So the label of a replica's newest instance is renewed for as long as there
//! is a daemon, and every older one is told that another generation has the work: should it wake by
//! itself, it stops.

use crate::types::ids::{Permit, Tail};
use crate::types::instance::Held;
use crate::types::intent::Effect;
use crate::types::job::{Job, Runner};
use crate::types::plan::{Action, Why};
use crate::types::time::Time;
use crate::types::world::World;

use super::act::{plain, requests};

/// The end of a lease that begins at `now`. Labels hold whole seconds.
pub(crate) fn lease_end(runner: &Runner, now: Time) -> Option<Time> {
    let end = now + runner.lease?;
    Some(Time(end.0.div_euclid(1000) * 1000))
}

/// The tail of the label of an instance that is about to be made.
pub fn first_tail(runner: &Runner, generation: u32, now: Time) -> Option<Tail> {
    lease_end(runner, now).map(|until| Tail {
        generation,
        permit: Permit::Go,
        until,
    })
}

/// Changes the label of an instance with a runner, where it has to say something else.
pub(crate) fn relabel(world: &World, held: &Held) -> Option<Action> {
    let job = world.known_job(&held.replica.job)?;
    let runner = job.run.runner.as_ref()?;
    held.runner.as_ref()?;
    let sent = requests(world, held).any(|effect| matches!(effect, Effect::Relabel { .. }));
    if held.destroying.is_some() || sent {
        return None;
    }
    let until = lease_end(runner, world.now)?;
    let newest = world.state.replica(&held.replica).generation;
    let tail = if held.generation == newest {
        if works_until(held).is_some_and(|end| end >= renewed_before(runner, world.now)) {
            return None;
        }
        let permit = Permit::Go;
        Tail {
            generation: newest,
            permit,
            until,
        }
    } else {
        if held
            .tail
            .is_some_and(|tail| tail.generation != held.generation)
        {
            return None;
        }
        let permit = Permit::Hold;
        Tail {
            generation: newest,
            permit,
            until,
        }
    };
    let instance = held.id;
    Some(plain(held, Effect::Relabel { instance, tail }, Why::Lease))
}

/// Whether an instance may be woken as far as its label goes. One whose lease ended long ago would take
/// itself for forgotten, and destroy itself with its disk.
pub(crate) fn may_wake(world: &World, job: &Job, held: &Held) -> bool {
    let leased = job.run.runner.as_ref().is_some_and(|r| r.lease.is_some());
    if !leased || held.runner.is_none() {
        return true;
    }
    works_until(held).is_some_and(|end| end > world.now)
}

/// Until when its label lets it work.
fn works_until(held: &Held) -> Option<Time> {
    let tail = held.tail?;
    let own = tail.permit == Permit::Go && tail.generation == held.generation;
    own.then_some(tail.until)
}

/// A lease that ends before this is renewed: when half of it is over.
fn renewed_before(runner: &Runner, now: Time) -> Time {
    now + runner.lease.unwrap_or_default() / 2
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::eligible::samples::{held, job, offer, runner, usd, world};
    use super::*;
    use crate::types::instance::RunnerView;

    /// A world with one supervised instance, of the newest generation.
    fn scene() -> (World, Held) {
        let mut job = job("a");
        job.run.runner = Some(Box::new(runner("true")));
        let mut held = held(1, &job, &offer(1), usd(0.2));
        held.generation = 3;
        held.runner = Some(RunnerView::default());
        let mut world = world(Vec::new());
        let mut record = world.state.replica(&held.replica);
        record.generation = 3;
        world.state.replicas.insert(record.id.clone(), record);
        world.jobs = vec![std::sync::Arc::new(job)];
        (world, held)
    }

    fn tail_of(action: Option<Action>) -> Option<Tail> {
        match action?.effect {
            Effect::Relabel { tail, .. } => Some(tail),
            _ => None,
        }
    }

    #[test]
    fn the_newest_is_renewed_when_half_of_its_lease_is_over() {
        let (mut world, mut held) = scene();
        let go = tail_of(relabel(&world, &held)).unwrap();
        assert_eq!((go.generation, go.permit), (3, Permit::Go));
        assert!(!may_wake(&world, &world.jobs[0], &held), "no label yet");
        held.tail = Some(go);
        assert!(may_wake(&world, &world.jobs[0], &held));
        assert_eq!(tail_of(relabel(&world, &held)), None);
        world.now = world.now + Duration::from_mins(59);
        assert_eq!(tail_of(relabel(&world, &held)), None);
        world.now = world.now + Duration::from_mins(2);
        let next = tail_of(relabel(&world, &held)).unwrap();
        assert!(next.until > go.until);
        world.now = go.until;
        assert!(!may_wake(&world, &world.jobs[0], &held), "it has lapsed");
    }

    #[test]
    fn one_that_was_replaced_is_told_once_that_another_has_the_work() {
        let (mut world, mut held) = scene();
        held.tail = tail_of(relabel(&world, &held));
        let mut record = world.state.replica(&held.replica);
        record.generation = 4;
        world.state.replicas.insert(record.id.clone(), record);
        let hold = tail_of(relabel(&world, &held)).unwrap();
        assert_eq!((hold.generation, hold.permit), (4, Permit::Hold));
        held.tail = Some(hold);
        world.now = world.now + Duration::from_hours(9);
        assert_eq!(tail_of(relabel(&world, &held)), None);
        assert!(!may_wake(&world, &world.jobs[0], &held));
    }

    #[test]
    fn what_could_not_be_heard_is_not_rented() {
        let (mut world, _) = scene();
        world.market = std::sync::Arc::new(crate::types::offer::Snapshot {
            at: world.now,
            offers: vec![offer(1)],
            coverage: Vec::new(),
        });
        world.listing = Some(crate::types::instance::Listing {
            complete: true,
            ..Default::default()
        });
        let rents = |world: &World| {
            let (plan, report) = super::super::decide::decide(world);
            let told = report.notices.iter().any(|n| n.kind == "runner-unheard");
            (plan.actions.len(), told)
        };
        assert_eq!(rents(&world), (1, false));
        world.config.shows_no_logs = true;
        assert_eq!(rents(&world), (0, true));
    }

    #[test]
    fn without_a_lease_or_a_runner_no_label_is_touched() {
        let (mut world, mut held) = scene();
        let mut free = (*world.jobs[0]).clone();
        free.run.runner.as_mut().unwrap().lease = None;
        world.jobs = vec![std::sync::Arc::new(free)];
        assert_eq!(relabel(&world, &held), None);
        assert!(may_wake(&world, &world.jobs[0], &held));
        let (world, _) = scene();
        held.runner = None;
        assert_eq!(relabel(&world, &held), None);
        held.runner = Some(RunnerView::default());
        held.destroying = Some(crate::types::instance::DestroyWhy::Finished);
        assert_eq!(relabel(&world, &held), None);
    }
}
