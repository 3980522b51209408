//! What is decided in the situations that a replica comes into.

use std::sync::Arc;
use std::time::Duration;

use super::decide::decide;
use super::eligible::samples::{NOW, held, job, offer, usd, world};
use super::properties::{act, list};
use crate::types::ids::InstanceId;
use crate::types::instance::{DestroyWhy, Held, Phase, Rental};
use crate::types::intent::Effect;
use crate::types::job::{Budget, CheckpointPlace, Job};
use crate::types::ledger::{Scope, Usage};
use crate::types::money::{BID_PARKED, Money, Rate};
use crate::types::plan::{Situation, Why};
use crate::types::state::{JobRecord, Wish};
use crate::types::world::World;

fn one(job_: Job, offers: Vec<crate::types::offer::Offer>) -> World {
    let mut world = world(offers);
    world.jobs = vec![Arc::new(job_)];
    list(&mut world, true);
    world
}

fn situation(world: &World) -> Situation {
    decide(world).1.jobs[0].replicas[0].situation.clone()
}

fn with_held(mut world: World, change: impl FnOnce(&mut Held)) -> World {
    let job = Arc::clone(&world.jobs[0]);
    let mut made = held(5, &job, &offer(9), usd(0.2));
    change(&mut made);
    let mut record = world.state.replica(&made.replica);
    record.generation = made.generation;
    world.state.replicas.insert(record.id.clone(), record);
    world.state.held.insert(made.id, made);
    list(&mut world, true);
    world
}

fn disk_job() -> Job {
    Job {
        checkpoint_place: Some(CheckpointPlace::Disk),
        ..job("a")
    }
}

fn effects(world: &World) -> Vec<Effect> {
    decide(world)
        .0
        .actions
        .into_iter()
        .map(|action| action.effect)
        .collect()
}

#[test]
fn the_cheapest_slot_is_rented_with_its_worst_case_reserved() {
    let mut dear = offer(1);
    dear.floor = Some(usd(0.3));
    let world = one(job("a"), vec![dear, offer(2)]);
    let (plan, _) = decide(&world);
    let [action] = plan.actions.as_slice() else {
        panic!("{plan:?}")
    };
    let Effect::Rent {
        slot,
        price,
        generation,
        ..
    } = &action.effect
    else {
        panic!("{action:?}")
    };
    assert_eq!((slot.machine.0, *generation, *price), (2, 1, usd(0.21)));
    // 0.21 and 48 GB of storage at $0.15 a month for 35.8 minutes (with a queue of eight,
    // and until the destroy is proven), and the 6 GB of an image at $0.003.
    assert!(
        action.reserve > Money(140_000_000) && action.reserve < Money(160_000_000),
        "{}",
        action.reserve
    );
    assert_eq!(situation(&world), Situation::Renting);
}

#[test]
fn an_outbid_instance_is_waited_for_then_parked_then_replaced() {
    let stopped = |minutes: u64| {
        with_held(one(disk_job(), vec![offer(2)]), |held| {
            held.phase = Phase::Stopped;
            held.phase_since = NOW - Duration::from_mins(minutes);
            held.bid_before_park = (minutes >= 60).then_some(Rate::ZERO);
        })
    };
    assert_eq!(effects(&stopped(30)), vec![]);
    let mut world = stopped(61);
    let park = Effect::SetBid {
        instance: InstanceId(5),
        bid: BID_PARKED,
    };
    assert_eq!(effects(&world), vec![park]);
    let (plan, _) = decide(&world);
    act(&mut world, &plan);
    let planned = effects(&world);
    assert!(
        matches!(&planned[..], [Effect::Rent { generation: 2, .. }]),
        "{planned:?}"
    );
    let (plan, _) = decide(&world);
    act(&mut world, &plan);
    assert_eq!(effects(&world), vec![], "the old disk is kept");
}

#[test]
fn nothing_replaces_an_instance_whose_park_was_not_read_back() {
    let world = with_held(one(disk_job(), vec![offer(2)]), |held| {
        held.phase = Phase::Stopped;
        held.stop_asked = true;
        held.price = BID_PARKED;
        held.bid_before_park = Some(Rate::ZERO);
    });
    assert_eq!(effects(&world), vec![]);
    assert_eq!(situation(&world), Situation::Clearing);
}

#[test]
fn a_start_that_does_not_come_up_is_destroyed() {
    let world = with_held(one(disk_job(), vec![offer(2)]), |held| {
        held.phase = Phase::Provisioning;
        held.first_ran_at = None;
        held.created_at = NOW - Duration::from_mins(16);
    });
    let why = DestroyWhy::ProvisionTimeout;
    assert_eq!(
        effects(&world),
        vec![Effect::Destroy {
            instance: InstanceId(5),
            why
        }]
    );
}

/// Lets the first job have spent so much.
fn spend(world: &mut World, dollars: f64) {
    let usage = Usage {
        total: Money::from_dollars(dollars).unwrap(),
        ..Usage::default()
    };
    let scope = Scope::Job(world.jobs[0].name.clone());
    world.state.usage.insert(scope, usage);
}

#[test]
fn a_job_at_its_limit_is_parked_and_then_its_disk_goes() {
    let spent = |dollars: f64| {
        let mut job = disk_job();
        job.budget.total = Some(Money::dollars(10));
        let mut world = with_held(one(job, vec![offer(2)]), |_| {});
        spend(&mut world, dollars);
        world
    };
    assert_eq!(effects(&spent(9.0)), vec![]);
    let mut world = spent(9.95);
    let (plan, report) = decide(&world);
    assert_eq!(plan.actions[0].why, Why::Limit);
    assert_eq!(
        plan.actions[0].effect,
        Effect::SetBid {
            instance: InstanceId(5),
            bid: BID_PARKED
        }
    );
    assert!(
        report
            .notices
            .iter()
            .any(|notice| notice.kind == "limit-job-total")
    );
    act(&mut world, &plan);
    assert_eq!(effects(&world), vec![]);
    spend(&mut world, 9.999);
    let why = DestroyWhy::Limit;
    assert_eq!(
        effects(&world),
        vec![Effect::Destroy {
            instance: InstanceId(5),
            why
        }]
    );
}

#[test]
fn a_pause_parks_and_a_resume_brings_back_at_the_old_bid() {
    let mut world = with_held(one(disk_job(), vec![offer(2), offer(9)]), |_| {});
    let wish = |world: &mut World, wish| {
        let record = JobRecord {
            wish,
            ..world.state.job(&world.jobs[0].name)
        };
        world.state.jobs.insert(record.name.clone(), record);
    };
    wish(&mut world, Wish::Pause);
    let (plan, _) = decide(&world);
    act(&mut world, &plan);
    assert!(world.state.held[&InstanceId(5)].parked);
    assert_eq!(
        (effects(&world), situation(&world)),
        (vec![], Situation::Paused)
    );
    wish(&mut world, Wish::Run);
    let back = Effect::SetBid {
        instance: InstanceId(5),
        bid: usd(0.2),
    };
    assert_eq!(effects(&world), vec![back]);
}

#[test]
fn a_policy_that_cannot_be_read_leaves_its_instances_alone() {
    let mut world = with_held(one(disk_job(), vec![offer(2)]), |_| {});
    world.unreadable_jobs = vec![world.jobs.remove(0).name.clone()];
    assert_eq!(effects(&world), vec![]);
    world.unreadable_jobs.clear();
    let park = Effect::SetBid {
        instance: InstanceId(5),
        bid: BID_PARKED,
    };
    assert_eq!(effects(&world), vec![park], "a removed one is drained");
}

#[test]
fn what_needs_secrets_waits_until_the_user_agrees_that_a_gateway_sees_them() {
    use crate::engine::check::check;
    use crate::types::job::{RegistryLogin, SecretRef};
    use crate::types::plan::Limit;

    let secret = || SecretRef::Env("PASSWORD".to_owned());
    let mut with_login = job("a");
    with_login.run.login = Some(RegistryLogin {
        registry: "ghcr.io".to_owned(),
        user: "me".to_owned(),
        password: secret(),
    });
    let mut with_env = job("a");
    with_env.run.secrets.insert("HF_TOKEN".to_owned(), secret());
    for needs in [with_login, with_env] {
        let agreed = one(needs, vec![offer(1)]);
        let mut world = agreed.clone();
        world.config.withhold_secrets = true;
        let held_back = Situation::OverLimit {
            limit: Limit::Consent,
        };
        assert_eq!(situation(&world), held_back);
        let (plan, report) = decide(&world);
        assert!(plan.actions.is_empty());
        assert_eq!(report.notices[0].kind, "secrets-withheld");
        // The second reckoning drops what the first should not have planned.
        let (plan, _) = decide(&agreed);
        assert_eq!(plan.actions.len(), 1);
        let (kept, dropped) = check(&world, &plan);
        assert!(kept.actions.is_empty());
        assert_eq!(dropped[0].1, Limit::Consent);
    }
    let mut plain = one(job("a"), vec![offer(1)]);
    plain.config.withhold_secrets = true;
    assert_eq!(situation(&plain), Situation::Renting);
}

#[test]
fn a_lowered_ceiling_cuts_a_bid_in_whatever_phase_it_stands() {
    for phase in [
        Phase::Running,
        Phase::Provisioning,
        Phase::Stopped,
        Phase::Unclear,
    ] {
        let mut world = with_held(one(disk_job(), vec![]), |held| held.phase = phase);
        assert_eq!(effects(&world), vec![], "{phase:?}: it is at its ceiling");
        let lowered = Job {
            price_max: usd(0.15),
            ..disk_job()
        };
        world.jobs = vec![Arc::new(lowered)];
        let cut = Effect::SetBid {
            instance: InstanceId(5),
            bid: usd(0.14),
        };
        assert_eq!(effects(&world), vec![cut], "{phase:?}: the disk is $0.01/h");
        // Where nothing over the parked price fits, it is parked.
        let too_low = Job {
            price_max: usd(0.005),
            ..disk_job()
        };
        world.jobs = vec![Arc::new(too_low)];
        if phase != Phase::Unclear {
            let park = Effect::SetBid {
                instance: InstanceId(5),
                bid: BID_PARKED,
            };
            assert_eq!(effects(&world), vec![park], "{phase:?}");
        }
    }
}

#[test]
fn an_on_demand_rental_over_a_lowered_ceiling_is_left() {
    let on_demand = |held: &mut Held| held.rental = Rental::OnDemand;
    let under = |job: Job, most: f64| Job {
        price_max: usd(most),
        ..job
    };
    let mut world = with_held(one(disk_job(), vec![]), on_demand);
    world.jobs = vec![Arc::new(under(disk_job(), 0.2085))];
    assert_eq!(effects(&world), vec![], "a hundredth is worth no move");
    world.jobs = vec![Arc::new(under(disk_job(), 0.2))];
    let instance = InstanceId(5);
    assert_eq!(
        effects(&world),
        vec![Effect::Stop { instance }],
        "its disk is kept"
    );
    let (plan, _) = decide(&world);
    act(&mut world, &plan);
    assert_eq!(effects(&world), vec![], "and not brought back");
    let disposable = Job {
        disposable: true,
        ..job("a")
    };
    let mut world = with_held(one(disposable.clone(), vec![]), on_demand);
    world.jobs = vec![Arc::new(under(disposable, 0.2))];
    let why = DestroyWhy::Moved;
    assert_eq!(effects(&world), vec![Effect::Destroy { instance, why }]);
}

#[test]
fn a_budget_binds_while_its_policy_cannot_be_read() {
    let limited = Job {
        budget: Budget {
            total: Some(Money::dollars(5)),
            ..Budget::default()
        },
        ..disk_job()
    };
    let mut world = with_held(one(limited, vec![offer(2)]), |_| {});
    let gone = world.jobs.remove(0);
    world.unreadable_jobs = vec![gone.name.clone()];
    let used = Usage {
        total: Money::dollars(5),
        ..Usage::default()
    };
    world
        .state
        .usage
        .insert(Scope::Job(gone.name.clone()), used);
    assert_eq!(effects(&world), vec![], "nobody knows its budget");
    world.last_policies = vec![gone];
    let why = DestroyWhy::Limit;
    let instance = InstanceId(5);
    // Its disk alone passes the limit.
    assert_eq!(effects(&world), vec![Effect::Destroy { instance, why }]);
}

#[test]
fn the_accounts_limits_bind_what_has_no_known_policy() {
    let mut world = with_held(one(disk_job(), vec![]), |_| {});
    world.unreadable_jobs = vec![world.jobs.remove(0).name.clone()];
    world.config.per_hour = Some(usd(0.1));
    let park = Effect::SetBid {
        instance: InstanceId(5),
        bid: BID_PARKED,
    };
    assert_eq!(effects(&world), vec![park]);
}
