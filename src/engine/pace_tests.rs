//! Deadlines: what is taken when, played minute by minute.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::check::check;
use super::super::decide::decide;
use super::super::eligible::samples::{NOW, held, input, job, offer, runner, usd, world};
use super::super::properties::{act, list};
use super::*;
use crate::types::deadline::SEEN_KINDS;
use crate::types::ids::{InstanceId, ReplicaId};
use crate::types::instance::RunnerView;
use crate::types::intent::Effect;
use crate::types::job::RentalChoice;
use crate::types::plan::{Plan, Report, Situation, Why};
use crate::types::recourse::{Recourse, Turn};

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: i64 = 60_000;

/// So much is left where ten hours of work need what is sure now, and five, and two.
const TEN_HOURS: Duration = Duration::from_mins(10 * 60 + 40);
const FIVE_HOURS: Duration = Duration::from_mins(5 * 60 + 30);
const TWO_HOURS: Duration = Duration::from_mins(2 * 60 + 30);

/// Work of so many hours, due in so many; bids at $0.20 and on-demand at $0.40 an hour.
fn scene(work_hours: i64, due: Duration) -> World {
    let mut job = job("a");
    job.rental = RentalChoice::Auto;
    job.work_mgpu_h = Some(work_hours * 1000);
    job.deadline = Some(NOW + due);
    let mut world = world((1..4).map(offer).collect());
    world.jobs = vec![Arc::new(job)];
    list(&mut world, true);
    world
}

fn change(world: &mut World, change: impl FnOnce(&mut Job)) {
    let mut job = (*world.jobs[0]).clone();
    change(&mut job);
    world.jobs = vec![Arc::new(job)];
}

/// Nobody sells what may be taken away.
fn without_bids(world: &mut World) {
    for offer in &mut Arc::make_mut(&mut world.market).offers {
        offer.floor = None;
    }
}

fn rented(world: &World) -> Option<Rental> {
    let (plan, _) = decide(world);
    plan.actions.iter().find_map(|action| match action.effect {
        Effect::Rent { rental, .. } => Some(rental),
        _ => None,
    })
}

fn told(world: &World) -> Vec<String> {
    let (_, report) = decide(world);
    report.notices.into_iter().map(|told| told.kind).collect()
}

/// Its instance runs at a bid, so many hours of work kept.
fn riding(mut world: World, kept_hours: i64) -> World {
    let job = Arc::clone(&world.jobs[0]);
    let mut made = held(5, &job, &offer(9), usd(0.21));
    made.first_ran_at = Some(NOW);
    made.run_ms = 3_600_000;
    let mut record = world.state.replica(&made.replica);
    record.generation = made.generation;
    record.durable_gpu_ms = kept_hours * 3_600_000;
    world.state.replicas.insert(record.id.clone(), record);
    world.state.held.insert(made.id, made);
    list(&mut world, true);
    world
}

fn first(plan: &Plan) -> Option<(&Effect, Why)> {
    plan.actions
        .first()
        .map(|action| (&action.effect, action.why))
}

#[test]
fn far_from_its_deadline_it_bids_and_near_it_takes_what_is_sure() {
    assert_eq!(rented(&scene(2, HOUR * 48)), Some(Rental::Bid));
    assert_eq!(rented(&scene(10, TEN_HOURS)), Some(Rental::OnDemand));
    let mut none = scene(10, TEN_HOURS);
    change(&mut none, |job| job.deadline = None);
    assert_eq!(rented(&none), Some(Rental::Bid));
    assert_eq!(decide(&none).1.watches, []);
}

#[test]
fn where_there_is_time_it_waits_for_bids_and_not_for_ever() {
    let mut world = scene(2, HOUR * 48);
    without_bids(&mut world);
    // With none to be had on-demand either way it would be rented at once, for it suits.
    let (_, report) = decide(&world);
    assert_eq!(rented(&world), None);
    assert_eq!(report.jobs[0].replicas[0].situation, Situation::NoOffer);
    let view = report.jobs[0].replicas[0].deadline.unwrap();
    assert_eq!(view.stance, Stance::Wait);
    assert_eq!(view.left_ms, 48 * 60 * MINUTE);
    let mut late = scene(2, TWO_HOURS);
    without_bids(&mut late);
    assert_eq!(rented(&late), Some(Rental::OnDemand));
}

#[test]
fn each_rule_has_its_own_mind() {
    let takes = |kind, bids: bool| {
        let mut world = scene(20, HOUR * 40);
        change(&mut world, |job| job.deadline_policy = kind);
        if !bids {
            without_bids(&mut world);
        }
        rented(&world)
    };
    let (bid, sure) = (Some(Rental::Bid), Some(Rental::OnDemand));
    assert_eq!(takes(DeadlineKind::OnDemand, true), sure);
    assert_eq!(takes(DeadlineKind::Greedy, true), bid);
    assert_eq!(takes(DeadlineKind::Greedy, false), None);
    assert_eq!(takes(DeadlineKind::UniformProgress, true), bid);
    assert_eq!(takes(DeadlineKind::SlackBand, false), None);
    assert_eq!(takes(DeadlineKind::HazardMdp, true), bid);
}

#[test]
fn what_rides_is_left_once_it_could_not_be_caught_up_and_no_later() {
    let world = riding(scene(10, HOUR * 30), 5);
    assert_eq!(first(&decide(&world).0), None);
    let near = riding(scene(10, FIVE_HOURS), 5);
    let (plan, _) = decide(&near);
    let (effect, why) = first(&plan).unwrap();
    assert_eq!(why, Why::Deadline);
    assert!(
        matches!(effect, Effect::Destroy { .. }),
        "its checkpoint is elsewhere: {effect:?}"
    );
    // Nothing else would be in time either.
    let late = riding(scene(10, HOUR * 5), 5);
    assert_eq!(first(&decide(&late).0), None);
    // Nor is it left for what is not there.
    let mut alone = riding(scene(10, FIVE_HOURS), 5);
    Arc::make_mut(&mut alone.market).offers.clear();
    assert_eq!(first(&decide(&alone).0), None);
    // On demand it stays where it is.
    let mut sure = riding(scene(10, FIVE_HOURS), 5);
    sure.state.held.get_mut(&InstanceId(5)).unwrap().rental = Rental::OnDemand;
    assert_eq!(first(&decide(&sure).0), None);
}

#[test]
fn what_is_outbid_is_not_waited_for_where_there_is_no_time() {
    let outbid = |due| {
        let mut world = riding(scene(10, due), 5);
        let held = world.state.held.get_mut(&InstanceId(5)).unwrap();
        (held.phase, held.phase_since, held.outbid_at) = (Phase::Stopped, NOW, Some(NOW));
        list(&mut world, true);
        let (plan, _) = decide(&world);
        first(&plan).map(|(effect, _)| effect.clone())
    };
    assert_eq!(outbid(HOUR * 30), None, "it has its patience");
    assert!(matches!(outbid(FIVE_HOURS), Some(Effect::Destroy { .. })));
}

#[test]
fn what_cannot_be_done_is_told_with_what_could() {
    assert_eq!(told(&scene(2, HOUR * 48)), [""; 0]);
    assert_eq!(told(&scene(10, HOUR * 5)), ["deadline-unreachable"]);
    let mut dear = scene(10, TEN_HOURS);
    change(&mut dear, |job| job.price_max = usd(0.3));
    assert_eq!(told(&dear), ["deadline-at-risk"]);
    let mut poor = scene(10, HOUR * 48);
    change(&mut poor, |job| job.budget.total = Some(Money::dollars(2)));
    assert_eq!(told(&poor), ["deadline-over-budget"]);
    let mut late = scene(10, HOUR * 48);
    late.now = NOW + HOUR * 49;
    Arc::make_mut(&mut late.market).at = late.now;
    assert_eq!(told(&late), ["deadline-missed"]);
    assert_eq!(
        rented(&late),
        Some(Rental::Bid),
        "it goes on as if there were none"
    );
}

#[test]
fn what_limits_forbid_is_not_left_for_and_a_bid_is_better_than_nothing() {
    let per_hour = |world: &mut World| change(world, |job| job.budget.per_hour = Some(usd(0.3)));
    let mut near = riding(scene(10, FIVE_HOURS), 5);
    per_hour(&mut near);
    assert_eq!(first(&decide(&near).0), None);
    let mut none = scene(10, TEN_HOURS);
    per_hour(&mut none);
    assert_eq!(rented(&none), Some(Rental::Bid));
    // Nor for what is not known any more, or may not be tried yet.
    let mut stale = riding(scene(10, FIVE_HOURS), 5);
    Arc::make_mut(&mut stale.market).at = NOW - HOUR;
    assert_eq!(first(&decide(&stale).0), None);
    let mut waits = riding(scene(10, FIVE_HOURS), 5);
    for record in waits.state.replicas.values_mut() {
        record.retry_at = Some(NOW + HOUR);
    }
    assert_eq!(first(&decide(&waits).0), None);
}

#[test]
fn a_model_that_is_over_the_ceiling_hides_none_that_is_within() {
    let mut world = scene(10, TEN_HOURS);
    change(&mut world, |job| {
        job.requirements.gpu_models.push("h100".to_owned());
        job.factors_ppm = [("H100".to_owned(), 3_000_000)].into();
        job.price_max = usd(0.6);
    });
    let mut fast = offer(1);
    fast.gpu_name = "H100".into();
    (fast.floor, fast.on_demand) = (None, Some(usd(0.9)));
    Arc::make_mut(&mut world.market).offers.insert(0, fast);
    without_bids(&mut world);
    assert_eq!(rented(&world), Some(Rental::OnDemand));
    assert_eq!(told(&world), [""; 0]);
}

#[test]
fn work_that_stays_on_a_disk_is_not_counted_elsewhere() {
    let mut world = riding(scene(10, FIVE_HOURS), 5);
    change(&mut world, |job| {
        job.checkpoint_place = Some(CheckpointPlace::Disk);
    });
    assert_eq!(
        first(&decide(&world).0),
        None,
        "begun anew it would be late"
    );
}

#[test]
fn a_model_is_as_fast_as_the_policy_says_however_it_spells_it() {
    let takes = |name: &str| {
        let mut world = scene(5, TEN_HOURS);
        change(&mut world, |job| {
            job.factors_ppm = [(name.to_owned(), 500_000)].into();
        });
        rented(&world)
    };
    assert_eq!(takes("RTX 4090"), Some(Rental::OnDemand));
    assert_eq!(takes("rtx_4090"), Some(Rental::OnDemand));
    assert_eq!(takes("rtx_3090"), Some(Rental::Bid));
}

#[test]
fn what_is_cheaper_is_moved_to_only_while_there_is_time() {
    let moves = |due| {
        let mut world = riding(scene(10, due), 5);
        let held = world.state.held.get_mut(&InstanceId(5)).unwrap();
        (held.rental, held.price, held.run_ms) = (Rental::OnDemand, usd(0.9), 2 * 3_600_000);
        first(&decide(&world).0).map(|(_, why)| why)
    };
    assert_eq!(moves(HOUR * 48), Some(Why::CheaperElsewhere));
    assert_eq!(moves(FIVE_HOURS), None);
}

#[test]
fn what_ends_here_before_another_would_begin_is_let_end() {
    let left = |volatile_minutes: i64| {
        let mut world = riding(scene(10, TEN_HOURS), 0);
        for record in world.state.replicas.values_mut() {
            record.volatile_gpu_ms = volatile_minutes * MINUTE;
        }
        first(&decide(&world).0).map(|(_, why)| why)
    };
    assert_eq!(left(9 * 60), Some(Why::Deadline));
    assert_eq!(left(9 * 60 + 55), None);
}

#[test]
fn a_long_race_is_no_coarser_at_its_end() {
    let mut world = scene(2, HOUR * 8);
    without_bids(&mut world);
    let mut watch = decide(&world).1.watches[0].1.clone();
    watch.decided_at = Time(i64::MIN);
    for begun in [NOW - HOUR * 24 * 59, Time(0), NOW + HOUR * 24 * 900] {
        let id = ReplicaId {
            job: world.jobs[0].name.clone(),
            index: 0,
        };
        let mut record = world.state.replica(&id);
        record.watch = Some(Watch {
            begun,
            ..watch.clone()
        });
        world.state.replicas.insert(id, record);
        let (_, report) = decide(&world);
        let view = report.jobs[0].replicas[0].deadline.unwrap();
        assert_eq!(view.stance, Stance::Wait, "{begun}");
    }
}

#[test]
fn a_bid_that_does_not_come_up_is_not_waited_for_where_there_is_no_time() {
    let mut world = riding(scene(10, FIVE_HOURS), 5);
    let held = world.state.held.get_mut(&InstanceId(5)).unwrap();
    (held.phase, held.first_ran_at, held.run_ms) = (Phase::Provisioning, None, 0);
    list(&mut world, true);
    assert_eq!(
        first(&decide(&world).0).map(|(_, why)| why),
        Some(Why::Deadline)
    );
    let held = world.state.held.get_mut(&InstanceId(5)).unwrap();
    (held.phase, held.phase_since) = (Phase::Offline, NOW);
    assert!(matches!(
        first(&decide(&world).0),
        Some((Effect::Destroy { .. }, _))
    ));
}

#[test]
fn a_deadline_is_watched_until_its_work_has_ended_and_not_when_nobody_wants_it() {
    let mut world = riding(scene(10, FIVE_HOURS), 10);
    change(&mut world, |job| job.finish = Finish::Exit);
    assert_eq!(
        decide(&world).1.watches.len(),
        1,
        "its hours are an estimate"
    );
    let mut record = world.state.job(&world.jobs[0].name);
    record.wish = crate::types::state::Wish::Stop;
    world.state.jobs.insert(record.name.clone(), record);
    let (_, report) = decide(&world);
    assert_eq!((report.watches.len(), report.notices.len()), (0, 0));
}

#[test]
fn what_rides_for_little_is_told_that_the_end_may_be_dear() {
    let mut world = riding(scene(10, HOUR * 48), 5);
    // Five hours at a bid would cost $1.10, on demand over $2.
    change(&mut world, |job| {
        job.budget.total = Some(Money::from_dollars(1.6).unwrap());
    });
    assert_eq!(told(&world), ["deadline-over-budget"]);
}

#[test]
fn a_market_that_was_not_seen_says_nothing() {
    let mut world = scene(10, TEN_HOURS);
    let watch = decide(&world).1.watches[0].1.clone();
    let id = ReplicaId {
        job: world.jobs[0].name.clone(),
        index: 0,
    };
    let mut record = world.state.replica(&id);
    record.watch = Some(watch.clone());
    world.state.replicas.insert(id, record);
    world.now = NOW + HOUR;
    let (_, report) = decide(&world);
    let kept = &report.watches[0].1;
    assert!(kept.up && kept.ended == watch.ended && kept.stayed == watch.stayed);
    let view = report.jobs[0].replicas[0].deadline.unwrap();
    assert_eq!(view.left_ms, (9 * 60 + 40) * MINUTE, "time passes");
    let kinds: Vec<&str> = report.notices.iter().map(|told| &*told.kind).collect();
    assert!(!kinds.contains(&"deadline-at-risk"), "{kinds:?}");
    // Of the first look nothing is known yet.
    for record in world.state.replicas.values_mut() {
        record.watch = None;
    }
    assert_eq!(decide(&world).1.watches, []);
}

#[test]
fn another_deadline_is_another_race() {
    let mut world = scene(2, HOUR * 48);
    let watch = |world: &World| decide(world).1.watches[0].1.clone();
    let id = ReplicaId {
        job: world.jobs[0].name.clone(),
        index: 0,
    };
    let mut record = world.state.replica(&id);
    record.watch = Some(watch(&world));
    world.state.replicas.insert(id, record);
    world.now = NOW + HOUR;
    Arc::make_mut(&mut world.market).at = world.now;
    assert_eq!(watch(&world).begun, NOW);
    change(&mut world, |job| job.deadline = Some(NOW + HOUR * 72));
    let new = watch(&world);
    assert_eq!((new.begun, new.deadline), (world.now, NOW + HOUR * 72));
    assert_eq!(new.since, NOW, "what was seen stays");
}

/// The same of a job that needs so many bytes, which are ready but for what is waited for. What it has works.
fn needing(mut world: World, bytes: u64, waits: Option<&str>) -> World {
    change(&mut world, |job| {
        let mut spec = runner("true");
        spec.lease = None;
        spec.inputs_wait = waits.map(str::to_owned);
        spec.inputs = vec![input(Some(bytes))];
        job.run.runner = Some(Box::new(spec));
    });
    let spec = world.jobs[0].run.runner.clone().unwrap();
    for held in world.state.held.values_mut() {
        let mut view = RunnerView::of(&spec);
        view.worked = true;
        held.runner = Some(view);
    }
    world
}

#[test]
fn what_waits_for_its_inputs_is_told_of_once_its_time_runs_out() {
    let text = "x is uploaded, 1.0 GB of 2.0 GB";
    let far = needing(scene(2, HOUR * 48), 9, Some(text));
    let (_, report) = decide(&far);
    let replica = &report.jobs[0].replicas[0];
    let waits = Situation::WaitsForInputs {
        what: text.to_owned(),
    };
    assert_eq!((rented(&far), &replica.situation), (None, &waits));
    assert_eq!((report.notices.len(), report.watches.len()), (0, 1));
    // There is all that it could have, and no time to wait for it.
    let near = needing(scene(10, TEN_HOURS), 9, Some(text));
    let (_, report) = decide(&near);
    assert_eq!(rented(&near), None);
    let kinds: Vec<&str> = report.notices.iter().map(|told| &*told.kind).collect();
    assert_eq!(kinds, ["deadline-at-risk"]);
    let said = &report.notices[0].text;
    assert!(
        said.ends_with(&format!("its inputs are not ready: {text}")),
        "{said}"
    );
    let ready = needing(scene(10, TEN_HOURS), 9, None);
    assert_eq!(rented(&ready), Some(Rental::OnDemand));
    assert_eq!(told(&ready), [""; 0]);
}

#[test]
fn what_rides_is_not_left_for_what_cannot_begin() {
    let near = |waits| needing(riding(scene(10, FIVE_HOURS), 5), 9, waits);
    let why = |world: &World| first(&decide(world).0).map(|(_, why)| why);
    assert_eq!(why(&near(None)), Some(Why::Deadline));
    let waits = near(Some("x is read"));
    assert_eq!(why(&waits), None);
    assert_eq!(told(&waits), ["deadline-at-risk"]);
    // Outbid it is waited for, and it is not the market that offers nothing.
    let mut outbid = waits;
    let held = outbid.state.held.get_mut(&InstanceId(5)).unwrap();
    (held.phase, held.phase_since) = (Phase::Stopped, NOW - HOUR * 2);
    held.outbid_at = Some(held.phase_since);
    list(&mut outbid, true);
    assert_eq!(why(&outbid), None);
    let (_, report) = decide(&outbid);
    let all = &report.jobs[0].replicas[0].recourses;
    for recourse in [Recourse::Reclaim, Recourse::Move] {
        assert!(all.contains(&(recourse, Turn::CannotStart)), "{all:?}");
    }
}

#[test]
fn a_wait_for_inputs_is_no_bad_market() {
    let mut worlds = [
        scene(2, HOUR * 48),
        needing(scene(2, HOUR * 48), 9, Some("x")),
    ];
    let id = ReplicaId {
        job: worlds[0].jobs[0].name.clone(),
        index: 0,
    };
    for minute in 0..120 {
        let watches = worlds.each_mut().map(|world| {
            world.now = NOW + Duration::from_mins(minute);
            Arc::make_mut(&mut world.market).at = world.now;
            list(world, true);
            let watch = decide(world).1.watches[0].1.clone();
            let mut record = world.state.replica(&id);
            record.watch = Some(watch.clone());
            world.state.replicas.insert(id.clone(), record);
            watch
        });
        let [plain, waits] = watches;
        assert!(waits.up && waits.ended == [0; SEEN_KINDS]);
        assert_eq!((waits.stayed, waits.since), (plain.stayed, plain.since));
    }
}

#[test]
fn inputs_take_a_part_of_the_time_until_they_are_there() {
    let needs = |world: &World| {
        let (_, report) = decide(world);
        report.jobs[0].replicas[0].deadline.unwrap().needs_ms
    };
    let plain = needs(&scene(2, HOUR * 48));
    let large = 60_000_000_000;
    // At 5 MB/s, and no sooner than in ten minutes.
    let begun = |bytes| needs(&needing(scene(2, HOUR * 48), bytes, None)) - plain;
    assert_eq!((begun(9), begun(large)), (10 * MINUTE, 200 * MINUTE));
    let sure = |worked: bool, run_minutes: i64| {
        let mut world = needing(riding(scene(10, HOUR * 48), 5), large, None);
        let held = world.state.held.get_mut(&InstanceId(5)).unwrap();
        (held.rental, held.run_ms) = (Rental::OnDemand, run_minutes * MINUTE);
        held.runner.as_mut().unwrap().worked = worked;
        needs(&world)
    };
    assert_eq!(sure(true, 60), 5 * 60 * MINUTE);
    // Five minutes of boot, and 200 of inputs; an hour of them is over.
    assert_eq!(sure(false, 60), (5 * 60 + 145) * MINUTE);
    assert_eq!(sure(false, 300), 5 * 60 * MINUTE);
}

/// A replica that is played minute by minute. What is rented works after so many minutes, and keeps each.
struct Race {
    world: World,
    boots: i64,
}

impl Race {
    fn step(&mut self, up: bool) -> Report {
        let world = &mut self.world;
        world.now = world.now + Duration::from_mins(1);
        let now = world.now;
        let market = Arc::make_mut(&mut world.market);
        market.at = now;
        for offer in &mut market.offers {
            offer.floor = up.then(|| usd(0.2));
        }
        let mut worked = None;
        for held in world.state.held.values_mut().filter(|held| !held.parked) {
            held.accrued_to = now;
            let phase = match held.rental {
                Rental::Bid if !up => Phase::Stopped,
                _ if now.ms_since(held.created_at) < self.boots * MINUTE => Phase::Provisioning,
                _ => Phase::Running,
            };
            if phase != held.phase {
                (held.phase, held.phase_since) = (phase, now);
                held.outbid_at = (phase == Phase::Stopped).then_some(now).or(held.outbid_at);
            }
            if phase == Phase::Running {
                held.first_ran_at.get_or_insert(now);
                held.run_ms += MINUTE;
                if held.run_ms > millis(world.jobs[0].boot_overhead) {
                    worked = Some(held.replica.clone());
                }
            }
        }
        if let Some(id) = worked {
            let mut record = world.state.replica(&id);
            record.durable_gpu_ms += MINUTE;
            world.state.replicas.insert(id, record);
        }
        list(world, true);
        let (plan, report) = decide(world);
        let (kept, dropped) = check(world, &plan);
        assert_eq!(dropped, []);
        for (id, watch) in &report.watches {
            let mut record = world.state.replica(id);
            record.watch = Some(watch.clone());
            world.state.replicas.insert(id.clone(), record);
        }
        act(world, &kept);
        let destroyed = |held: &Held| held.destroying.is_some();
        world.state.held.retain(|_, held| !destroyed(held));
        report
    }

    fn is_done(&self) -> bool {
        let share = self.world.jobs[0].work_share_gpu_ms().unwrap();
        let mut all = self.world.state.replicas.values();
        all.any(|record| record.durable_gpu_ms >= share)
    }
}

/// Spells of being there and not, in minutes, in turns.
fn spells() -> impl Strategy<Value = Vec<(i64, i64)>> {
    prop::collection::vec((1..90_i64, 1..90_i64), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever comes and goes, and by whatever rule: what can be done in time is.
    #[test]
    fn nothing_is_late_that_could_be_in_time(
        spells in spells(),
        kind in prop::sample::select(DeadlineKind::ALL.to_vec()),
        hours in 1..3_i64,
        spare in 0..120_u64,
        boots in 1..7_i64,
    ) {
        // Margin and starts are promised for: what is left beside them may be anything.
        let due = Duration::from_mins(hours.unsigned_abs() * 60 + 90 + spare);
        let mut world = scene(hours, due);
        change(&mut world, |job| {
            job.deadline_policy = kind;
            job.patience = Duration::from_mins(10);
        });
        let mut race = Race { world, boots };
        let mut turns = spells.iter().cycle().flat_map(|&(up, down)| {
            std::iter::repeat_n(true, up as usize).chain(std::iter::repeat_n(false, down as usize))
        });
        while !race.is_done() {
            race.step(turns.next().unwrap());
            let left = (NOW + due).ms_since(race.world.now);
            prop_assert!(left >= 0, "{kind:?} is late: {:?}", race.world.state.replicas);
        }
    }
}
