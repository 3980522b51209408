//! Scenes of moving without storage.

use std::sync::Arc;

use super::super::check::check;
use super::super::decide::decide;
use super::super::eligible::samples::{NOW, held, job, offer, runner, usd, world};
use super::super::properties::{act, list};
use super::*;
use crate::types::ids::{Permit, Tail};
use crate::types::instance::{DestroyWhy, RunnerView};
use crate::types::job::CheckpointPlace;
use crate::types::money::BID_PARKED;
use crate::types::plan::Plan;

pub(super) const OLD: InstanceId = InstanceId(5);

/// A job whose checkpoint is on its disk and stays there for the next one.
pub(super) fn carried() -> Job {
    let mut spec = runner("true");
    spec.checkpoint = Some("/work/checkpoint".to_owned());
    spec.carried = true;
    let mut job = job("a");
    job.checkpoint_place = Some(CheckpointPlace::Disk);
    job.run.runner = Some(Box::new(spec));
    job
}

/// It worked on machine 9, was outbid, waited for and parked; there are others.
pub(super) fn left(job: Job) -> World {
    let mut old = held(OLD.0, &job, &offer(9), BID_PARKED);
    let mut view = RunnerView::of(job.run.runner.as_deref().unwrap());
    view.worked = true;
    view.checkpoint = Some((0, "a".repeat(64), 40_000_000_000));
    old.runner = Some(view);
    old.last_bid = Some(usd(0.2));
    old.bid_before_park = Some(Rate::ZERO);
    old.outbid_at = Some(NOW);
    (old.phase, old.parked, old.stop_asked) = (Phase::Stopped, true, true);
    old.tail = Some(Tail {
        generation: 1,
        permit: Permit::Go,
        until: NOW + Duration::from_hours(2),
    });
    let mut world = world((2..5).map(offer).collect());
    let mut record = world.state.replica(&old.replica);
    record.generation = old.generation;
    world.state.replicas.insert(record.id.clone(), record);
    world.state.held.insert(old.id, old);
    world.jobs = vec![Arc::new(job)];
    list(&mut world, true);
    world
}

/// What is planned, all of which passes the second reckoning.
pub(super) fn planned(world: &World) -> Plan {
    let (plan, _) = decide(world);
    let (kept, dropped) = check(world, &plan);
    assert_eq!(dropped, []);
    kept
}

pub(super) fn effects(world: &World) -> Vec<Effect> {
    let plan = planned(world);
    plan.actions
        .into_iter()
        .map(|action| action.effect)
        .collect()
}

pub(super) fn tick(world: &mut World) -> Vec<Effect> {
    let plan = planned(world);
    act(world, &plan);
    plan.actions
        .into_iter()
        .map(|action| action.effect)
        .collect()
}

pub(super) fn newest(world: &mut World) -> &mut Held {
    let held = world.state.held.values_mut();
    held.max_by_key(|held| held.generation).unwrap()
}

/// The one that was made last comes up, and waits behind its gate.
pub(super) fn comes_up(world: &mut World) -> InstanceId {
    let now = world.now;
    let new = newest(world);
    new.phase = Phase::Running;
    new.first_ran_at.get_or_insert(now);
    let id = new.id;
    list(world, true);
    id
}

/// The newest one is outbid and was waited for.
pub(super) fn is_outbid(world: &mut World) {
    let held = newest(world);
    held.phase = Phase::Stopped;
    held.phase_since = NOW - Duration::from_hours(2);
    held.bid_before_park = Some(Rate::ZERO);
}

/// Up to the moment at which its runner waits for the copy.
pub(super) fn waiting() -> (World, InstanceId) {
    let mut world = left(carried());
    tick(&mut world);
    tick(&mut world);
    let id = comes_up(&mut world);
    assert_eq!(effects(&world), [], "its runner does not wait yet");
    let now = world.now;
    newest(&mut world).bringing.as_mut().unwrap().ready_at = Some(now);
    (world, id)
}

/// The newest one is found to have what the other run told of, or something else.
pub(super) fn finds(world: &mut World, as_told: bool) {
    let now = world.now;
    let new = newest(world);
    let bringing = new.bringing.as_mut().unwrap();
    bringing.accepted_at.get_or_insert(now);
    bringing.told = Some("a".repeat(64));
    bringing.verified = Some("a".repeat(64));
    bringing.as_told = as_told;
    bringing.own = Some("b".repeat(64));
    new.runner.as_mut().unwrap().checkpoint = Some((0, "b".repeat(64), 40_000_000_000));
}

/// The newest one tells of a checkpoint that it made itself.
pub(super) fn keeps(world: &mut World) {
    let now = world.now;
    let bringing = newest(world).bringing.as_mut().unwrap();
    bringing.kept_at.get_or_insert(now);
}

pub(super) fn goes(instance: InstanceId) -> Effect {
    let why = DestroyWhy::Moved;
    Effect::Destroy { instance, why }
}

/// The one that stands behind its gate with its checkpoint, and is let work.
pub(super) fn opened(as_told: bool) -> (World, InstanceId) {
    let (mut world, new) = waiting();
    tick(&mut world);
    finds(&mut world, as_told);
    assert_eq!(permits(&tick(&mut world)), [(new.0, 2, Permit::Go)]);
    (world, new)
}

pub(super) fn permits(effects: &[Effect]) -> Vec<(u64, u32, Permit)> {
    let tails = effects.iter().filter_map(|effect| match effect {
        Effect::Relabel { instance, tail } => Some((instance.0, tail.generation, tail.permit)),
        _ => None,
    });
    tails.collect()
}

/// So many hours later, in which all that is known was seen again.
pub(super) fn after(world: &mut World, hours: u64) -> Vec<Effect> {
    world.now = world.now + Duration::from_hours(hours);
    Arc::make_mut(&mut world.market).at = world.now;
    for held in world.state.held.values_mut() {
        held.accrued_to = world.now;
        if let Some(tail) = &mut held.tail {
            tail.until = world.now + Duration::from_hours(2);
        }
    }
    list(world, true);
    effects(world)
}

/// Its command is heard of a minute after its gate was opened.
pub(super) fn works(world: &mut World) {
    let held = newest(world);
    let opened = held.bringing.as_ref().unwrap().opened_at.unwrap();
    let view = held.runner.as_mut().unwrap();
    view.worked = true;
    view.heard_at = Some(opened + Duration::from_mins(1));
}
