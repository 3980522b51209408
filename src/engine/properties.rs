//! What holds for every world: generated ones, decided, checked, and acted on.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::check::check;
use super::decide::decide;
use super::eligible::samples::{NOW, held, job, offer, usd, world};
use crate::types::ids::{AccountId, IntentId, Permit};
use crate::types::instance::{
    Account, DestroyWhy, Held, Instance, Listing, Phase, RawState, Rental, RunnerView,
};
use crate::types::intent::{Effect, Intent, IntentState};
use crate::types::job::{Budget, CheckpointPlace, Job, RentalChoice};
use crate::types::ledger::Scope;
use crate::types::limit::Bounds;
use crate::types::money::{BID_PARKED, Money, Rate};
use crate::types::plan::Plan;
use crate::types::start::StartFault;
use crate::types::state::{JobRecord, Wish};
use crate::types::world::World;

fn row(held: &Held) -> Instance {
    Instance {
        id: held.id,
        label: None,
        machine: Some(held.slot.machine),
        host: held.host,
        gpus: Some(held.slot.gpus),
        gpu_ids: held.gpu_ids.clone(),
        gpu_name: Some(held.gpu_name.clone()),
        is_bid: Some(held.rental == Rental::Bid),
        price: Some(held.price),
        storage: Some(held.storage),
        burn: None,
        cur_state: Some(RawState::Running),
        intended: Some(RawState::Running),
        next_state: Some(RawState::Running),
        actual: None,
        status_msg: None,
        started_at: None,
        up_ms: None,
        ends_at: held.ends_at,
        disk_gb: Some(held.disk_gb),
        ssh: None,
        gpu_util: None,
    }
}

pub(crate) fn list(world: &mut World, complete: bool) {
    world.listing = Some(Listing {
        rows: world.state.held.values().map(row).collect(),
        complete,
        unreadable: Vec::new(),
    });
}

fn may_run(held: &Held) -> bool {
    !held.parked
}

/// Does to a world what a plan asks for, as a marketplace does that obeys at once.
pub(crate) fn act(world: &mut World, plan: &Plan) {
    for action in &plan.actions {
        let id = IntentId::next(world.state.last_intent, world.now.0);
        world.state.last_intent = Some(id);
        match &action.effect {
            Effect::Rent {
                replica,
                generation,
                slot,
                rental,
                price,
                storage,
                from,
                ..
            } => {
                let old = from.and_then(|from| world.state.held.get(&from));
                let bringing = old.map(super::bring::bringing);
                let name = &replica.job;
                let job = world.jobs.iter().find(|job| job.name == *name).unwrap();
                let row = world
                    .market
                    .offers
                    .iter()
                    .find(|o| o.machine == slot.machine)
                    .unwrap();
                let made = Held {
                    intent: id,
                    replica: replica.clone(),
                    generation: *generation,
                    rental: *rental,
                    storage: *storage,
                    phase: Phase::Provisioning,
                    first_ran_at: None,
                    created_at: world.now,
                    accrued_to: world.now,
                    runner: job.run.runner.as_deref().map(RunnerView::of),
                    bringing,
                    ..held(id.0, job, row, *price)
                };
                let mut record = world.state.replica(replica);
                record.generation = *generation;
                let member = super::array::member(&world.state, job, replica.index);
                record.parameters = member.and_then(|member| member.parameters.cloned());
                world.state.replicas.insert(replica.clone(), record);
                world.state.held.insert(made.id, made);
            }
            Effect::Destroy { instance, .. } => {
                world.state.held.remove(instance);
            }
            Effect::SetBid { instance, bid } => {
                let held = world.state.held.get_mut(instance).unwrap();
                if *bid <= BID_PARKED {
                    held.bid_before_park = held.bid_before_park.or(Some(held.price));
                    held.phase = Phase::Stopped;
                    held.parked = true;
                    held.stop_asked = true;
                } else {
                    held.phase = Phase::Running;
                    held.phase_since = world.now;
                    held.bid_before_park = None;
                    held.parked = false;
                    held.stop_asked = false;
                }
                held.price = *bid;
            }
            Effect::Stop { instance } => {
                let held = world.state.held.get_mut(instance).unwrap();
                held.phase = Phase::Stopped;
                held.parked = true;
                held.stop_asked = true;
            }
            Effect::Relabel { instance, tail } => {
                let held = world.state.held.get_mut(instance).unwrap();
                held.tail = Some(*tail);
                let opens = tail.permit == Permit::Go && tail.generation == held.generation;
                if let Some(bringing) = held.bringing.as_mut().filter(|_| opens) {
                    bringing.opened = true;
                    bringing.opened_at.get_or_insert(world.now);
                }
            }
            Effect::Copy { instance, .. } => {
                let held = world.state.held.get_mut(instance).unwrap();
                let bringing = held.bringing.as_mut().unwrap();
                bringing.begun_at.get_or_insert(world.now);
                bringing.asked_at = Some(world.now);
                bringing.accepted = true;
                bringing.accepted_at.get_or_insert(world.now);
                bringing.asks_taken += 1;
            }
            Effect::Start { instance } => {
                let held = world.state.held.get_mut(instance).unwrap();
                held.phase = Phase::Running;
                held.phase_since = world.now;
                held.parked = false;
                held.stop_asked = false;
            }
        }
    }
    let complete = world
        .listing
        .as_ref()
        .is_some_and(|listing| listing.complete);
    if world.listing.is_some() {
        list(world, complete);
    }
}

#[derive(Clone, Debug)]
struct JobSketch {
    priority: i32,
    replicas: u32,
    rental: u8,
    total_cents: Option<i64>,
    per_hour_cents: Option<i64>,
    per_day_cents: Option<i64>,
    per_month_cents: Option<i64>,
    owner: u8,
    tags: u8,
    posted_cents: i64,
    disposable: bool,
    place: u8,
    wish: u8,
    readable: bool,
}

#[derive(Clone, Debug)]
struct HeldSketch {
    job: usize,
    replica: u32,
    machine: u64,
    generation: u32,
    phase: u8,
    on_demand: bool,
    price_milli: i64,
    parked: bool,
    stop_asked: bool,
    ran: bool,
    given_up: bool,
    destroying: bool,
    age_min: u64,
    lag_min: u64,
    open_bid: bool,
    /// Whether its start was given up.
    no_start: bool,
}

fn job_sketch() -> impl Strategy<Value = JobSketch> {
    (
        (-1..2_i32, 1..3_u32, 0..3_u8),
        (
            proptest::option::of(1..400_i64),
            proptest::option::of(5..120_i64),
            0..200_i64,
        ),
        (any::<bool>(), 0..3_u8, 0..8_u8, prop::bool::weighted(0.9)),
        (
            proptest::option::of(1..400_i64),
            proptest::option::of(1..900_i64),
            0..3_u8,
            0..4_u8,
        ),
    )
        .prop_map(
            |(
                (priority, replicas, rental),
                (total, hour, posted),
                (disposable, place, wish, readable),
                (day, month, owner, tags),
            )| JobSketch {
                per_day_cents: day,
                per_month_cents: month,
                owner,
                tags,
                priority,
                replicas,
                rental,
                total_cents: total,
                per_hour_cents: hour,
                posted_cents: posted,
                disposable,
                place,
                wish,
                readable,
            },
        )
}

fn held_sketch() -> impl Strategy<Value = HeldSketch> {
    (
        (0..3_usize, 0..3_u32, 0..6_u64, 1..4_u32, 0..6_u8),
        (
            any::<bool>(),
            10..900_i64,
            any::<bool>(),
            any::<bool>(),
            prop::bool::weighted(0.7),
        ),
        (
            any::<bool>(),
            prop::bool::weighted(0.2),
            0..300_u64,
            0..20_u64,
            prop::bool::weighted(0.2),
            prop::bool::weighted(0.2),
        ),
    )
        .prop_map(
            |(
                (job, replica, machine, generation, phase),
                (on_demand, price, parked, stop_asked, ran),
                (given_up, destroying, age, lag, open_bid, no_start),
            )| HeldSketch {
                job,
                replica,
                machine,
                generation,
                phase,
                on_demand,
                price_milli: price,
                parked,
                stop_asked,
                ran,
                given_up,
                destroying,
                age_min: age,
                lag_min: lag,
                open_bid,
                no_start,
            },
        )
}

fn build_job(number: usize, sketch: &JobSketch) -> Job {
    Job {
        priority: sketch.priority,
        replicas: sketch.replicas,
        rental: [
            RentalChoice::Interruptible,
            RentalChoice::OnDemand,
            RentalChoice::Auto,
        ][usize::from(sketch.rental)],
        budget: Budget {
            total: sketch.total_cents.map(|cents| Money(cents * 10_000_000)),
            per_day: sketch.per_day_cents.map(|cents| Money(cents * 10_000_000)),
            per_month: sketch
                .per_month_cents
                .map(|cents| Money(cents * 10_000_000)),
            per_hour: sketch.per_hour_cents.map(|cents| Rate(cents * 10_000_000)),
        },
        owner: [None, Some("ml"), Some("ops")][usize::from(sketch.owner)].map(str::to_owned),
        tags: ["x", "y"]
            .iter()
            .enumerate()
            .filter(|(bit, _)| sketch.tags >> bit & 1 == 1)
            .map(|(_, tag)| (*tag).to_owned())
            .collect(),
        disposable: sketch.disposable,
        checkpoint_place: [
            None,
            Some(CheckpointPlace::Disk),
            Some(CheckpointPlace::Remote),
        ][usize::from(sketch.place)],
        ..job(["a", "b", "c"][number])
    }
}

fn build_held(world: &mut World, jobs: &[Job], number: usize, sketch: &HeldSketch) {
    let Some(job) = jobs.get(sketch.job) else {
        return;
    };
    let row = offer(sketch.machine);
    let age = Duration::from_mins(sketch.age_min);
    let mut made = held(
        1000 + number as u64,
        job,
        &row,
        usd(sketch.price_milli as f64 / 1000.0),
    );
    made.replica.index = sketch.replica;
    made.generation = sketch.generation;
    made.rental = if sketch.on_demand {
        Rental::OnDemand
    } else {
        Rental::Bid
    };
    made.phase = [
        Phase::Provisioning,
        Phase::Running,
        Phase::Stopped,
        Phase::Exited,
        Phase::Offline,
        Phase::Unclear,
    ][usize::from(sketch.phase)];
    made.created_at = NOW - age;
    made.phase_since = NOW - age;
    made.accrued_to = NOW - Duration::from_mins(sketch.lag_min);
    made.first_ran_at = sketch.ran.then_some(NOW - age);
    made.stop_asked = sketch.stop_asked;
    if sketch.given_up && made.phase == Phase::Stopped {
        made.bid_before_park = Some(Rate::ZERO);
    }
    if sketch.parked && made.phase == Phase::Stopped {
        made.parked = true;
        made.stop_asked = true;
        if made.rental == Rental::Bid {
            made.bid_before_park = made.bid_before_park.or(Some(made.price));
            made.price = BID_PARKED;
        }
    }
    made.start_fault = sketch.no_start.then_some(StartFault::HostError);
    made.destroying = sketch.destroying.then_some(DestroyWhy::UserRequest);
    made.destroy_sent_at = sketch.destroying.then_some(NOW - age);
    if sketch.open_bid {
        let intent = Intent {
            id: IntentId(2000 + number as u64),
            at: NOW,
            effect: Effect::SetBid {
                instance: made.id,
                bid: usd(0.3),
            },
            reserved: Money(1_000_000),
            state: IntentState::Unknown { since: NOW },
        };
        world.state.reserved.insert(intent.id, intent.reserved);
        world.state.intents.insert(intent.id, intent);
    }
    let replica = made.replica.clone();
    let mut record = world.state.replica(&replica);
    record.generation = record.generation.max(made.generation);
    world.state.replicas.insert(replica, record);
    world.state.held.insert(made.id, made);
}

/// Bounds of a scope, each there or not.
fn any_bounds() -> impl Strategy<Value = Bounds> {
    let money =
        || proptest::option::weighted(0.3, (1..500_i64).prop_map(|c| Money(c * 10_000_000)));
    let rate = proptest::option::weighted(0.3, (5..200_i64).prop_map(|c| Rate(c * 10_000_000)));
    let count = || proptest::option::weighted(0.3, 0..5_u32);
    (money(), money(), money(), rate, count(), count()).prop_map(
        |(total, per_day, per_month, per_hour, instances_max, gpus_max)| Bounds {
            total,
            per_day,
            per_month,
            per_hour,
            instances_max,
            gpus_max,
        },
    )
}

/// What the account and its owners and tags are held to.
fn limited(world: impl Strategy<Value = World>) -> impl Strategy<Value = World> {
    let minutes = proptest::option::weighted(0.3, 1..600_u64);
    let slope = proptest::option::weighted(0.5, 0..500_i64);
    let others = prop::collection::vec(proptest::option::weighted(0.9, 0..300_i64), 0..3);
    (
        world,
        prop::collection::vec(any_bounds(), 4),
        (any_bounds(), minutes, slope, others),
    )
        .prop_map(|(mut world, groups, (account, runway, slope, others))| {
            let scopes = [
                Scope::Owner("ml".to_owned()),
                Scope::Owner("ops".to_owned()),
                Scope::Tag("x".to_owned()),
                Scope::Tag("y".to_owned()),
            ];
            world.config.groups = scopes.into_iter().zip(groups).collect();
            world.config.per_day = account.per_day;
            world.config.per_month = account.per_month;
            world.config.gpus_max = account.gpus_max;
            world.config.min_runway = runway.map(Duration::from_mins);
            world.credit_slope = slope.map(|cents| Rate(cents * 10_000_000));
            if let Some(listing) = &mut world.listing {
                for (number, burn) in others.into_iter().enumerate() {
                    let mut foreign = held(9000 + number as u64, &job("a"), &offer(77), usd(0.1));
                    foreign.slot.machine.0 = 7000 + number as u64;
                    let burn = burn.map(|cents| Rate(cents * 10_000_000));
                    listing.rows.push(Instance {
                        burn,
                        price: None,
                        ..row(&foreign)
                    });
                }
            }
            world
        })
}

pub(crate) fn any_world() -> impl Strategy<Value = World> {
    limited(plain_world())
}

fn plain_world() -> impl Strategy<Value = World> {
    (
        prop::collection::vec(job_sketch(), 1..4),
        prop::collection::vec(held_sketch(), 0..6),
        prop::collection::vec((50..900_i64, 100..1500_i64), 6),
        (
            proptest::option::weighted(0.9, -2..40_i64),
            prop::bool::weighted(0.9),
            prop::bool::weighted(0.85),
        ),
        (
            prop::bool::weighted(0.05),
            prop::bool::weighted(0.05),
            proptest::option::of(20..300_i64),
            1..8_u32,
        ),
    )
        .prop_map(
            |(
                jobs,
                helds,
                prices,
                (credit, listed, complete),
                (killed, wind_down, per_hour, most),
            )| {
                let mut offers = Vec::new();
                for (machine, (floor, rate)) in prices.iter().enumerate() {
                    let mut row = offer(machine as u64);
                    row.floor = Some(Rate(floor * 1_000_000));
                    row.on_demand = Some(Rate(rate * 1_000_000));
                    row.gpu_ids = vec![3];
                    offers.push(row);
                }
                let mut world = world(offers);
                let sketches = jobs;
                let jobs: Vec<Job> = sketches
                    .iter()
                    .enumerate()
                    .map(|(n, s)| build_job(n, s))
                    .collect();
                for (job, sketch) in jobs.iter().zip(&sketches) {
                    let record = JobRecord {
                        wish: [
                            Wish::Run,
                            Wish::Run,
                            Wish::Run,
                            Wish::Run,
                            Wish::Run,
                            Wish::Pause,
                            Wish::Stop,
                            Wish::Done,
                        ][usize::from(sketch.wish)],
                        payer: job.payer(),
                        ..JobRecord::new(job.name.clone())
                    };
                    world.state.jobs.insert(job.name.clone(), record);
                    let posted = Money(sketch.posted_cents * 10_000_000);
                    // Some of it today, some yesterday, some last month.
                    let days = [
                        Duration::ZERO,
                        Duration::from_hours(24),
                        Duration::from_hours(800),
                    ];
                    for scope in Scope::of(&job.name, &job.payer()) {
                        let usage = world.state.usage.entry(scope).or_default();
                        for ago in days {
                            usage.add((NOW - ago).day(world.config.timezone), Money(posted.0 / 3));
                        }
                    }
                    if sketch.readable {
                        world.jobs.push(Arc::new(job.clone()));
                    } else {
                        world.unreadable_jobs.push(job.name.clone());
                        // A process that began with a broken file may know nothing of it.
                        if job.priority % 2 == 0 {
                            world.last_policies.push(Arc::new(job.clone()));
                        }
                    }
                }
                world
                    .jobs
                    .sort_by_key(|job| (std::cmp::Reverse(job.priority), job.name.clone()));
                for (number, sketch) in helds.iter().enumerate() {
                    build_held(&mut world, &jobs, number, sketch);
                }
                world.account = credit.map(|dollars| Account {
                    id: AccountId(1),
                    credit: Some(Money::dollars(dollars)),
                });
                world.state.account = Some(AccountId(1));
                world.state.killed = killed;
                world.wind_down = wind_down;
                world.config.per_hour = per_hour.map(|cents| Rate(cents * 10_000_000));
                world.config.instances_max = most;
                if listed {
                    list(&mut world, complete);
                }
                world
            },
        )
}

pub(crate) fn spends(world: &World, effect: &Effect) -> bool {
    match effect {
        Effect::Rent { .. } | Effect::Start { .. } => true,
        Effect::SetBid { instance, bid } => {
            *bid > BID_PARKED
                && world
                    .state
                    .held
                    .get(instance)
                    .is_some_and(|held| *bid > held.price)
        }
        Effect::Stop { .. }
        | Effect::Relabel { .. }
        | Effect::Copy { .. }
        | Effect::Destroy { .. } => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn the_check_agrees_with_the_decision(world in any_world()) {
        let (plan, _) = decide(&world);
        let (kept, dropped) = check(&world, &plan);
        prop_assert!(dropped.is_empty(), "{dropped:#?}");
        prop_assert_eq!(kept, plan);
    }

    #[test]
    fn equal_worlds_give_equal_plans(world in any_world()) {
        prop_assert_eq!(decide(&world), decide(&world.clone()));
    }

    #[test]
    fn nothing_is_spent_blindly(world in any_world()) {
        let (plan, _) = decide(&world);
        let complete = world.listing.as_ref().is_some_and(|listing| listing.complete);
        let blind = world.account.is_none() || world.state.killed || world.wind_down || !complete;
        for action in &plan.actions {
            prop_assert!(!(blind && spends(&world, &action.effect)), "{action:?}");
        }
    }

    #[test]
    fn one_instance_at_work_for_each_replica(world in any_world()) {
        let (plan, _) = decide(&world);
        for action in &plan.actions {
            if let Effect::Rent { replica, .. } = &action.effect {
                prop_assert!(!world.state.held_by(replica).any(may_run));
            }
        }
        let mut after = world.clone();
        act(&mut after, &plan);
        for action in plan.actions.iter().filter(|action| spends(&world, &action.effect)) {
            let replica = action.replica.as_ref().unwrap();
            let at_work = after.state.held_by(replica).filter(|held| may_run(held)).count();
            prop_assert!(at_work <= 1, "{replica} has {at_work} at work");
        }
    }

    #[test]
    fn a_disk_with_work_is_kept(world in any_world()) {
        let (plan, _) = decide(&world);
        for action in &plan.actions {
            let Effect::Destroy { instance, why } = action.effect else { continue };
            let held = &world.state.held[&instance];
            let job = world.jobs.iter().find(|job| job.name == held.replica.job);
            let wish = world.state.job(&held.replica.job).wish;
            let may_go = job.is_some_and(|job| job.disposable || job.checkpoint_place == Some(CheckpointPlace::Remote))
                || held.first_ran_at.is_none()
                || held.destroying.is_some()
                || world.state.killed
                || matches!(wish, Wish::Stop | Wish::Done)
                || why == DestroyWhy::Limit;
            prop_assert!(may_go, "{action:?}");
        }
    }

    #[test]
    fn acting_on_plans_settles(world in any_world()) {
        let mut world = world;
        // What is not settled waits for the marketplace, not for another plan.
        world.state.intents.clear();
        world.state.reserved.clear();
        for _ in 0..12 {
            let (plan, _) = decide(&world);
            if plan.actions.is_empty() {
                return Ok(());
            }
            let (kept, _) = check(&world, &plan);
            act(&mut world, &kept);
        }
        let (plan, _) = decide(&world);
        prop_assert!(plan.actions.is_empty(), "still planning {plan:#?}");
    }
}
