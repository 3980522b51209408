//! What instances' labels say that their runners may do: gate, fence and lease.
//!
//! An instance reads its own label. While that says `go` with its own generation, and the lease has not
//! ended, its command works. So the label of a replica's newest instance is renewed for as long as there
//! is a daemon, and every older one is told that another generation has the work: should it wake by
//! itself, it stops.

use std::time::Duration;

use crate::types::ids::{Permit, ReplicaId, Tail};
use crate::types::instance::{Held, Phase};
use crate::types::intent::Effect;
use crate::types::job::Runner;
use crate::types::plan::{Action, Why};
use crate::types::time::Time;
use crate::types::world::{EngineConfig, World};

use super::act::{plain, requests};

/// The term of a lease: as the policy says, and no less than three polls, or it would lapse between two
/// looks of a daemon that polls seldom.
pub fn term(config: &EngineConfig, runner: &Runner) -> Option<Duration> {
    let least = config.poll_every.saturating_mul(3);
    runner.lease.map(|lease| lease.max(least))
}

/// The end of a lease that begins at `now`. Labels hold whole seconds.
fn lease_end(config: &EngineConfig, runner: &Runner, now: Time) -> Option<Time> {
    let end = now + term(config, runner)?;
    Some(Time(end.0.div_euclid(1000) * 1000))
}

/// The tail of the label of an instance that is about to be made.
pub fn first_tail(
    config: &EngineConfig,
    runner: &Runner,
    (generation, permit): (u32, Permit),
    now: Time,
) -> Option<Tail> {
    lease_end(config, runner, now).map(|until| Tail {
        generation,
        permit,
        until,
    })
}

/// What the label of a replica's newest instance lets it do: one to which a checkpoint is brought waits
/// until that is verified, or it is to begin anew.
fn permitted(held: &Held) -> Permit {
    let waits = held.bringing.as_ref().is_some_and(|bringing| {
        let judged = held
            .runner
            .as_ref()
            .is_some_and(|view| view.verdict.is_some());
        let runs = held.phase == Phase::Running && !held.stop_asked;
        let ready = (bringing.verified.is_some() || bringing.anew) && runs && !judged;
        !bringing.opened && !ready
    });
    if waits { Permit::Hold } else { Permit::Go }
}

/// What the runner on an instance was given.
fn given(held: &Held) -> Option<&Runner> {
    held.runner.as_ref()?.given.as_deref()
}

/// The newest generation of a replica that exists, or may: one that was given out and came to nothing
/// has no work.
fn newest(world: &World, replica: &ReplicaId) -> Option<u32> {
    let held = world.state.held_by(replica).map(|held| held.generation);
    let intents = world.state.intents.values();
    let rents = intents.filter_map(|intent| match &intent.effect {
        Effect::Rent {
            replica: of,
            generation,
            ..
        } if of == replica => Some(*generation),
        _ => None,
    });
    held.chain(rents).max()
}

/// Changes the label of an instance with a runner, where it has to say something else.
pub(crate) fn relabel(world: &World, held: &Held) -> Option<Action> {
    let runner = given(held)?;
    let sent = requests(world, held).any(|effect| matches!(effect, Effect::Relabel { .. }));
    if held.destroying.is_some() || sent {
        return None;
    }
    let until = lease_end(&world.config, runner, world.now)?;
    let newest = newest(world, &held.replica)?;
    let permit = if held.generation == newest {
        let half = term(&world.config, runner)? / 2;
        let permit = permitted(held);
        let says_so = held.tail.is_some_and(|tail| tail.permit == permit);
        if says_so && leased_until(held).is_some_and(|end| end >= world.now + half) {
            return None;
        }
        permit
    } else {
        let told = held
            .tail
            .is_some_and(|tail| tail.generation != held.generation);
        if told {
            return None;
        }
        Permit::Hold
    };
    let tail = Tail {
        generation: newest,
        permit,
        until,
    };
    let instance = held.id;
    Some(plain(held, Effect::Relabel { instance, tail }, Why::Lease))
}

/// Whether an instance may be woken as far as its label goes. One whose lease ended long ago would take
/// itself for forgotten, and destroy itself with its disk.
pub(crate) fn may_wake(world: &World, held: &Held) -> bool {
    let leased = given(held).is_some_and(|runner| runner.lease.is_some());
    !leased || leased_until(held).is_some_and(|end| end > world.now)
}

/// Until when its label lets it work, or wait for what it is to begin with.
fn leased_until(held: &Held) -> Option<Time> {
    let tail = held.tail?;
    let own = tail.permit != Permit::Done && tail.generation == held.generation;
    own.then_some(tail.until)
}

#[cfg(test)]
mod tests {
    use super::super::eligible::samples::{held, job, offer, runner, usd, world};
    use super::*;
    use crate::types::instance::RunnerView;

    /// A world with one supervised instance, of the newest generation.
    fn scene() -> (World, Held) {
        let mut job = job("a");
        job.run.runner = Some(Box::new(runner("true")));
        let mut held = held(1, &job, &offer(1), usd(0.2));
        held.generation = 3;
        held.runner = job.run.runner.as_deref().map(RunnerView::of);
        let mut world = world(Vec::new());
        // A generation that was given out and came to nothing changes nothing.
        let mut record = world.state.replica(&held.replica);
        record.generation = 8;
        world.state.replicas.insert(record.id.clone(), record);
        world.state.held.insert(held.id, held.clone());
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
        assert!(!may_wake(&world, &held), "no label yet");
        held.tail = Some(go);
        assert!(may_wake(&world, &held));
        assert_eq!(tail_of(relabel(&world, &held)), None);
        world.now = world.now + Duration::from_mins(59);
        assert_eq!(tail_of(relabel(&world, &held)), None);
        world.now = world.now + Duration::from_mins(2);
        let next = tail_of(relabel(&world, &held)).unwrap();
        assert!(next.until > go.until);
        world.now = go.until;
        assert!(!may_wake(&world, &held), "it has lapsed");
    }

    #[test]
    fn a_lease_lasts_over_two_polls_that_are_far_apart() {
        let (mut world, mut held) = scene();
        world.config.poll_every = Duration::from_hours(3);
        held.tail = tail_of(relabel(&world, &held));
        world.now = world.now + Duration::from_hours(3);
        assert!(may_wake(&world, &held));
        assert_eq!(tail_of(relabel(&world, &held)), None);
        world.now = world.now + Duration::from_hours(3);
        assert!(may_wake(&world, &held));
        assert!(tail_of(relabel(&world, &held)).is_some());
    }

    #[test]
    fn one_that_was_replaced_is_told_once_that_another_has_the_work() {
        let (mut world, mut held) = scene();
        held.tail = tail_of(relabel(&world, &held));
        let mut next = held.clone();
        next.id = crate::types::ids::InstanceId(2);
        next.generation = 4;
        world.state.held.insert(next.id, next);
        let hold = tail_of(relabel(&world, &held)).unwrap();
        assert_eq!((hold.generation, hold.permit), (4, Permit::Hold));
        held.tail = Some(hold);
        world.now = world.now + Duration::from_hours(9);
        assert_eq!(tail_of(relabel(&world, &held)), None);
        assert!(!may_wake(&world, &held));
    }

    #[test]
    fn what_could_not_be_heard_is_not_rented() {
        let (mut world, _) = scene();
        world.state.held.clear();
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
        let (world, mut held) = scene();
        let kept = held.runner.clone();
        let view = held.runner.as_mut().unwrap();
        view.given.as_mut().unwrap().lease = None;
        assert_eq!(relabel(&world, &held), None);
        assert!(may_wake(&world, &held));
        held.runner = None;
        assert_eq!(relabel(&world, &held), None);
        held.runner = kept;
        assert!(relabel(&world, &held).is_some());
        held.destroying = Some(crate::types::instance::DestroyWhy::Finished);
        assert_eq!(relabel(&world, &held), None);
    }
}
