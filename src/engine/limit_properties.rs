//! The arithmetic of every limit: at its edge, around the ends of days and months in zones that
//! change their clocks, and at the extremes of what a number holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono_tz::Tz;
use proptest::prelude::*;

use super::budget::{Load, Purse, Saving, horizon, wind_down};
use super::check::check;
use super::decide::decide;
use super::eligible::samples::{NOW, held, job, offer, usd, world};
use super::projection::{self, day_end, month_end, project};
use super::properties::{any_world, list, spends};
use super::runway::{CreditHistory, lasts};
use crate::types::ids::{AccountId, InstanceId, MachineId, OfferId, ReplicaId, Slot};
use crate::types::instance::{Account, Held, Listing, Rental};
use crate::types::intent::Effect;
use crate::types::job::Job;
use crate::types::ledger::{Scope, Usage, month_of};
use crate::types::limit::{Bounds, LimitRow, Measure};
use crate::types::money::{Money, Rate};
use crate::types::plan::{Action, Limit, Plan, Why};
use crate::types::time::Time;
use crate::types::world::World;

const ZONES: [Tz; 5] = [
    Tz::UTC,
    Tz::Europe__Berlin,
    Tz::America__New_York,
    Tz::Australia__Lord_Howe,
    Tz::Pacific__Apia,
];

/// Moments near which clocks change, months end, or a day is left out.
const EDGES: [&str; 9] = [
    "2026-03-29T01:00:00Z", // Berlin, forward
    "2026-10-25T01:00:00Z", // Berlin, back
    "2026-03-08T07:00:00Z", // New York, forward
    "2026-11-01T06:00:00Z", // New York, back, in a month that has just begun
    "2026-04-04T15:00:00Z", // Lord Howe, back by half an hour
    "2026-10-03T15:30:00Z", // Lord Howe, forward
    "2011-12-30T10:00:00Z", // Apia, where the 30th is left out
    "2027-01-01T00:00:00Z",
    "2028-02-29T12:00:00Z",
];

fn any_moment() -> impl Strategy<Value = (Tz, Time)> {
    let around =
        (0..EDGES.len(), -40 * 3600 * 1000..40 * 3600 * 1000_i64).prop_map(|(edge, ms)| {
            let at: chrono::DateTime<chrono::Utc> = EDGES[edge].parse().unwrap();
            Time(at.timestamp_millis() + ms)
        });
    (0..ZONES.len(), around).prop_map(|(zone, at)| (ZONES[zone], at))
}

fn a_job() -> Job {
    Job {
        owner: Some("ml".to_owned()),
        tags: vec!["x".to_owned(), "y".to_owned()],
        ..job("a")
    }
}

/// A world with one job, an account with all the credit there can be, and nothing else.
fn bare(job: Job) -> World {
    let mut world = world(vec![offer(1)]);
    world.jobs = vec![Arc::new(job)];
    world.account = Some(Account {
        id: AccountId(1),
        credit: Some(Money::MAX),
    });
    world.config.credit_reserve = Money::ZERO;
    list(&mut world, true);
    world
}

/// Sets the one limit of a row.
fn bind(world: &mut World, row: &LimitRow) {
    let (money, rate) = (Some(Money(row.bound)), Some(Rate(row.bound)));
    let count = u32::try_from(row.bound).ok();
    let mut bounds = Bounds::default();
    match row.measure {
        Measure::Total => bounds.total = money,
        Measure::Day => bounds.per_day = money,
        Measure::Month => bounds.per_month = money,
        Measure::Hour => bounds.per_hour = rate,
        Measure::Instances => bounds.instances_max = count,
        Measure::Gpus => bounds.gpus_max = count,
        Measure::Credit | Measure::Runway => unreachable!(),
    }
    match &row.scope {
        Scope::Account => {
            world.config.per_day = bounds.per_day;
            world.config.per_month = bounds.per_month;
            world.config.per_hour = bounds.per_hour;
            world.config.gpus_max = bounds.gpus_max;
            world.config.instances_max = bounds.instances_max.unwrap_or(u32::MAX);
        }
        Scope::Job(_) => {
            let mut job = (*world.jobs[0]).clone();
            job.budget.total = bounds.total;
            job.budget.per_day = bounds.per_day;
            job.budget.per_month = bounds.per_month;
            job.budget.per_hour = bounds.per_hour;
            world.jobs[0] = Arc::new(job);
        }
        group => {
            world.config.groups.insert(group.clone(), bounds);
        }
    }
}

fn any_row() -> impl Strategy<Value = LimitRow> {
    let scope = prop_oneof![
        Just(Scope::Account),
        Just(Scope::Job("a".parse().unwrap())),
        Just(Scope::Owner("ml".to_owned())),
        Just(Scope::Tag("x".to_owned())),
        Just(Scope::Tag("y".to_owned())),
    ];
    let measure = prop_oneof![
        Just(Measure::Total),
        Just(Measure::Day),
        Just(Measure::Month),
        Just(Measure::Hour),
        Just(Measure::Instances),
        Just(Measure::Gpus),
    ];
    let bound = prop_oneof![0..4_000_000_000_i64, Just(0), Just(i64::MAX), any::<i64>()];
    (scope, measure, bound).prop_map(|(scope, measure, bound)| {
        let measure = match (&scope, measure) {
            (Scope::Account, Measure::Total) => Measure::Day,
            (Scope::Job(_), Measure::Instances | Measure::Gpus) => Measure::Hour,
            (_, measure) => measure,
        };
        let bound = match measure {
            Measure::Instances | Measure::Gpus => bound.rem_euclid(5),
            _ => bound,
        };
        LimitRow {
            scope,
            measure,
            bound,
        }
    })
}

fn any_amount() -> impl Strategy<Value = i64> {
    prop_oneof![
        0..4_000_000_000_i64,
        Just(0),
        Just(i64::MAX),
        (0..1000_i64).prop_map(|n| i64::MAX - n),
    ]
}

/// What was spent by the job on a day, in every scope that it counts in.
fn spend(world: &mut World, at: Time, amount: Money) {
    let job = Arc::clone(&world.jobs[0]);
    for scope in Scope::of(&job.name, &job.payer()) {
        let usage: &mut Usage = world.state.usage.entry(scope).or_default();
        usage.add(at.day(world.config.timezone), amount);
    }
}

fn affords(world: &World, cost: i64, load: Load) -> Result<(), Limit> {
    Purse::of(world).affords(&world.jobs[0], Money(cost), Money::ZERO, load)
}

/// Reckons what a row uses, and would use with so much more, by the words of its description.
fn would_be(row: &LimitRow, used: i64, cost: i64, load: Load) -> i128 {
    match row.measure {
        Measure::Hour => load.rate.0.into(),
        Measure::Instances => load.instances.into(),
        Measure::Gpus => load.gpus.into(),
        _ => i128::from(used) + i128::from(cost),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_limit_admits_exactly_what_stays_within_it(
        row in any_row(), used in any_amount(), cost in any_amount(), rate in any_amount(), gpus in 1..6_u32,
    ) {
        let mut world = bare(a_job());
        bind(&mut world, &row);
        spend(&mut world, NOW, Money(used));
        let load = Load { rate: Rate(rate), instances: 1, gpus };
        let fits = would_be(&row, used, cost, load) <= i128::from(row.bound);
        let result = affords(&world, cost, load);
        let limit = Limit::Of(row.scope.clone(), row.measure);
        // There are other limits too: a count of 32 instances and the credit, which all fits.
        prop_assert_eq!(result, if fits { Ok(()) } else { Err(limit.clone()) });
        // To the nano-dollar.
        let left = row.bound.saturating_sub(used);
        let money = matches!(row.measure, Measure::Total | Measure::Day | Measure::Month);
        if money && (0..i64::MAX).contains(&left) {
            prop_assert_eq!(affords(&world, left, Load::default()), Ok(()));
            prop_assert_eq!(affords(&world, left + 1, Load::default()), Err(limit));
        }
    }

    #[test]
    fn what_the_budget_admits_the_check_passes(
        rows in prop::collection::vec(any_row(), 0..4), used in 0..2_000_000_000_i64,
        price in 1..100_i64, more in 0..1_000_000_000_i64,
    ) {
        let mut world = bare(a_job());
        for row in &rows {
            bind(&mut world, row);
        }
        spend(&mut world, NOW, Money(used));
        let (price, storage) = (Rate(price * 2_000_000), Rate(1_000_000));
        let rate = price.saturating_add(storage);
        let cost = Money(rate.cost(horizon(&world)).0 + more);
        let load = Load { rate, instances: 1, gpus: 1 };
        let admitted = Purse::of(&world).affords(&world.jobs[0], cost, Money::ZERO, load);
        let replica = ReplicaId { job: "a".parse().unwrap(), index: 0 };
        let action = Action {
            replica: Some(replica.clone()),
            effect: Effect::Rent {
                replica,
                generation: 1,
                slot: Slot { machine: MachineId(1), gpus: 1 },
                offer: OfferId(10),
                rental: Rental::Bid,
                price,
                disk_gb: 48,
                storage, from: None, traffic: None },
            why: Why::Cheapest,
            reserve: cost,
            parts: None,
            on_demand_seen: Some(usd(0.9)),
        };
        let (kept, dropped) = check(&world, &Plan { actions: vec![action] });
        match admitted {
            Ok(()) => prop_assert_eq!(kept.actions.len(), 1, "{:?}", dropped),
            Err(limit) => prop_assert_eq!(&dropped[0].1, &limit),
        }
    }

    #[test]
    fn more_usage_never_admits_more(
        row in any_row(), used in any_amount(), more in any_amount(), cost in any_amount(),
    ) {
        let mut world = bare(a_job());
        bind(&mut world, &row);
        spend(&mut world, NOW, Money(used));
        let load = Load { rate: usd(0.1), instances: 1, gpus: 1 };
        let before = affords(&world, cost, load);
        let job = Arc::clone(&world.jobs[0]);
        for scope in Scope::of(&job.name, &job.payer()) {
            let usage = world.state.usage.entry(scope).or_default();
            usage.total = usage.total.saturating_add(Money(more));
            for spent in usage.days.values_mut().chain(usage.months.values_mut()) {
                *spent = spent.saturating_add(Money(more));
            }
        }
        prop_assert!(before.is_ok() || affords(&world, cost, load).is_err());
    }

    #[test]
    fn the_strictest_limit_wins(rows in prop::collection::vec(any_row(), 1..6), used in any_amount(), cost in any_amount()) {
        let mut all = bare(a_job());
        for row in &rows {
            bind(&mut all, row);
        }
        spend(&mut all, NOW, Money(used));
        let load = Load { rate: usd(0.1), instances: 1, gpus: 1 };
        let together = affords(&all, cost, load).is_ok();
        let each = all.config.rows_of(&all.jobs[0]).iter().all(|row| match row.measure {
            // There is all the credit there can be.
            Measure::Credit => true,
            _ => would_be(row, used, cost, load) <= i128::from(row.bound),
        });
        prop_assert_eq!(together, each);
    }

    #[test]
    fn a_day_and_a_month_are_those_of_the_zone((zone, at) in any_moment(), spent in 1..1_000_i64) {
        let mut world = bare(Job { budget: crate::types::job::Budget {
            per_day: Some(Money(1_000)), per_month: Some(Money(1_500)), ..Default::default()
        }, ..a_job() });
        world.config.timezone = zone;
        world.now = at;
        spend(&mut world, at, Money(spent));
        let load = Load::default();
        let day = Limit::Of(Scope::Job("a".parse().unwrap()), Measure::Day);
        let month = Limit::Of(Scope::Job("a".parse().unwrap()), Measure::Month);
        prop_assert_eq!(affords(&world, 1_000 - spent, load), Ok(()));
        prop_assert_eq!(affords(&world, 1_001 - spent, load), Err(day));
        // To the last millisecond of the day it is used, and then it is free.
        let ends = day_end(at, zone);
        prop_assert!(ends > at && ends.since(at) <= Duration::from_hours(49));
        prop_assert_eq!(Time(ends.0 - 1).day(zone), at.day(zone));
        prop_assert!(ends.day(zone) > at.day(zone));
        world.now = Time(ends.0 - 1);
        prop_assert!(affords(&world, 1_001 - spent, load).is_err());
        world.now = ends;
        let same_month = month_of(ends.day(zone)) == month_of(at.day(zone));
        prop_assert_eq!(affords(&world, 1_000, load), if same_month && spent > 500 { Err(month) } else { Ok(()) });
        let over = month_end(at, zone);
        prop_assert!(over >= ends && over.since(at) <= Duration::from_hours(32 * 24));
        prop_assert_eq!(month_of(Time(over.0 - 1).day(zone)), month_of(at.day(zone)));
        prop_assert!(month_of(over.day(zone)) > month_of(at.day(zone)));
        world.now = over;
        prop_assert_eq!(affords(&world, 1_000, load), Ok(()));
    }

    #[test]
    fn no_moment_is_outside_the_calendar(ms in any::<i64>(), zone in 0..ZONES.len()) {
        let day = Time(ms).day(ZONES[zone]);
        prop_assert!(month_of(day) <= day);
        prop_assert!(day_end(Time(ms), ZONES[zone]) >= Time(ms));
    }

    #[test]
    fn an_unknown_credit_admits_nothing(cost in any_amount(), known in 0..3_u8) {
        let mut world = bare(a_job());
        match known {
            0 => world.account = None,
            1 => world.account = Some(Account { id: AccountId(1), credit: None }),
            _ => world.state.account = Some(AccountId(2)),
        }
        prop_assert_eq!(affords(&world, cost, Load::default()), Err(Limit::CREDIT));
        prop_assert!(wind_down(&world).is_empty());
    }

    #[test]
    fn the_runway_is_of_the_greatest_burn(
        credit in 0..100_i64, mine in 0..3_000_i64, others in proptest::option::of(0..3_000_i64),
        slope in proptest::option::of(0..3_000_i64), hours in 1..30_u64,
    ) {
        let mut world = bare(a_job());
        world.account = Some(Account { id: AccountId(1), credit: Some(Money::dollars(credit)) });
        world.config.min_runway = Some(Duration::from_hours(hours));
        world.credit_slope = slope.map(|milli| Rate(milli * 1_000_000));
        let mut foreign = held(9, &job("b"), &offer(7), Rate(0));
        foreign.storage = Rate(0);
        world.state.held.insert(foreign.id, foreign);
        list(&mut world, true);
        world.state.held.clear();
        let listing: &mut Listing = world.listing.as_mut().unwrap();
        listing.rows[0].burn = others.map(|milli| Rate(milli * 1_000_000));
        listing.rows[0].price = None;
        let load = Load { rate: Rate(mine * 1_000_000), instances: 1, gpus: 1 };
        let burn = others.map(|others| others.max(slope.unwrap_or(0)) + mine);
        let lasts_ms = burn.map(|burn| if burn == 0 { i64::MAX } else { credit * 1000 * 3_600_000 / burn });
        let fits = lasts_ms.is_some_and(|ms| ms >= (hours * 3_600_000) as i64) && credit > 0;
        let short = Limit::Of(Scope::Account, Measure::Runway);
        prop_assert_eq!(affords(&world, 0, load), if fits { Ok(()) } else { Err(short) });
        // It keeps new spending out and winds nothing down.
        prop_assert!(wind_down(&world).is_empty());
    }

    #[test]
    fn what_is_paid_in_hides_nothing_of_what_is_spent(
        falls in prop::collection::vec((0..1_000_000_i64, 0..5_000_000_i64), 12..40),
    ) {
        let (mut plain, mut paid) = (CreditHistory::default(), CreditHistory::default());
        let (mut a, mut b) = (1_000_000_000_i64, 1_000_000_000_i64);
        for (n, (fall, top_up)) in falls.iter().enumerate() {
            let at = NOW + Duration::from_mins(n as u64);
            a -= fall;
            b -= fall;
            plain.read(at, Money(a));
            paid.read(at, Money(b));
            // Seen by itself, between two readings of what is spent.
            b += top_up;
            paid.read(at + Duration::from_secs(5), Money(b));
            plain.read(at + Duration::from_secs(5), Money(a));
        }
        prop_assert!(plain.slope().is_some());
        prop_assert_eq!(plain.slope(), paid.slope());
    }

    #[test]
    fn a_time_that_an_amount_lasts_is_not_too_long(amount in any::<i64>(), rate in any::<i64>()) {
        if let Some(time) = lasts(amount.into(), rate.into()) {
            let spent = i128::from(rate) * time.as_millis() as i128 / 3_600_000;
            prop_assert!(spent <= i128::from(amount).max(0));
        } else {
            prop_assert!(amount > 0 && rate <= 0);
        }
    }

    #[test]
    fn a_projection_is_within_its_period(
        (zone, at) in any_moment(), spent in any_amount(), bound in any_amount(), price in 0..5_000_i64,
    ) {
        let mut world = bare(Job { budget: crate::types::job::Budget {
            total: Some(Money(bound)), per_day: Some(Money(bound)), per_month: Some(Money(bound)), ..Default::default()
        }, ..a_job() });
        world.now = at;
        world.config.timezone = zone;
        spend(&mut world, at, Money(spent));
        let mut running = held(5, &a_job(), &offer(1), Rate(price * 1_000_000));
        running.accrued_to = at;
        let burn = projection::burn_now(&running);
        world.state.held.insert(running.id, running);
        let jobs: Vec<&Job> = world.jobs.iter().map(|job| &**job).collect();
        let limits = project(at, &world.config, &jobs, &world.state, projection::Purse::default());
        let left = (i128::from(bound) - i128::from(spent)).max(0);
        let exact = i128::from(at.0) + left * 3_600_000 / i128::from(burn.0);
        for limit in limits.iter().filter(|limit| matches!(limit.row.scope, Scope::Job(_))) {
            let ends = match limit.row.measure {
                Measure::Day => day_end(at, zone),
                Measure::Month => month_end(at, zone),
                _ => Time(i64::MAX),
            };
            let expected = (exact < i128::from(ends.0)).then_some(exact);
            let seen = limit.breach_at.map(|at| i128::from(at.0));
            prop_assert_eq!(limit.used, Some(spent));
            if ends.0 < i64::MAX {
                prop_assert_eq!(seen, expected);
            } else {
                prop_assert_eq!(seen, Some(exact.min(i64::MAX.into())));
            }
        }
    }
}

/// What a scope would use if all that is held ran at its worst for the whole horizon, and the
/// plan's reserves were spent.
fn used_at_worst(world: &World, plan: &Plan, row: &LimitRow) -> i128 {
    let today = world.now.day(world.config.timezone);
    let usage = world.state.usage(&row.scope);
    let posted = match row.measure {
        Measure::Total => usage.total,
        Measure::Day => usage.on(today),
        _ => usage.in_month_of(today),
    };
    let counts = |name: &crate::types::ids::JobName| {
        let job = world.known_job(name);
        let payer = job.map_or_else(|| world.state.job(name).payer, |job| job.payer());
        Scope::of(name, &payer).any(|scope| scope == row.scope)
    };
    let time = horizon(world);
    let held = world
        .state
        .held
        .values()
        .filter(|held| counts(&held.replica.job));
    let held: i128 = held
        .map(|held| {
            let lag = world.now.since(held.accrued_to);
            let rate = held.worst_rate();
            i128::from(rate.cost(lag).0) + i128::from(rate.cost(time).0)
        })
        .sum();
    let open = world.state.intents.values().filter_map(|intent| {
        let replica = super::draft::replica_of(&world.state, &intent.effect)?;
        let reserved = world.state.reserved.get(&intent.id)?;
        counts(&replica.job).then_some(i128::from(reserved.0))
    });
    let planned = plan.actions.iter().filter_map(|action| {
        let replica = action.replica.as_ref()?;
        counts(&replica.job).then_some(i128::from(action.reserve.0))
    });
    i128::from(posted.0) + held + open.sum::<i128>() + planned.sum::<i128>()
}

fn cost_after(world: &World, savings: &BTreeMap<InstanceId, Saving>, row: &LimitRow) -> i128 {
    let mut after = world.clone();
    for held in after.state.held.values_mut() {
        let rest = |held: &mut Held| {
            held.price = held.price.min(crate::types::money::BID_PARKED);
        };
        match savings.get(&held.id) {
            None if held.stop_asked => rest(held),
            None => {}
            Some(_) => rest(held),
        }
    }
    let gone = |held: &Held| {
        held.destroying.is_some() || matches!(savings.get(&held.id), Some(Saving::Destroy(_)))
    };
    after.state.held.retain(|_, held| !gone(held));
    used_at_worst(&after, &Plan::default(), row)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_passes_a_limit_with_all_that_is_posted_and_reserved(world in any_world()) {
        let (plan, _) = decide(&world);
        for action in plan.actions.iter().filter(|action| spends(&world, &action.effect)) {
            let name = &action.replica.as_ref().unwrap().job;
            let job = world.jobs.iter().find(|job| job.name == *name).unwrap();
            for row in world.config.rows_of(job) {
                if matches!(row.measure, Measure::Total | Measure::Day | Measure::Month) {
                    let used = used_at_worst(&world, &plan, &row);
                    prop_assert!(used <= i128::from(row.bound), "{row} by {action:?}: {used}");
                }
            }
        }
    }

    #[test]
    fn winding_down_keeps_every_limit_that_it_can_and_takes_no_more_than_needed(world in any_world()) {
        let savings = wind_down(&world);
        let mut rows = world.config.rows(world.binding_jobs().map(|job| &**job));
        rows.retain(|row| matches!(row.measure, Measure::Total | Measure::Day | Measure::Month));
        // Where a limit is passed all the same, nothing of its scope is left standing.
        for row in &rows {
            if cost_after(&world, &savings, row) <= i128::from(row.bound) {
                continue;
            }
            for held in world.state.held.values() {
                let name = &held.replica.job;
                let job = world.known_job(name);
                let payer = job.map_or_else(|| world.state.job(name).payer, |job| job.payer());
                let counts = Scope::of(name, &payer).any(|scope| scope == row.scope);
                let goes = held.destroying.is_some() || matches!(savings.get(&held.id), Some(Saving::Destroy(_)));
                prop_assert!(!counts || goes, "{row}: {held:?} stands");
            }
        }
        // One who has the highest priority goes for a limit of his own scopes only.
        for (id, saving) in &savings {
            let (Saving::Park(limit) | Saving::Destroy(limit)) = saving;
            let Limit::Of(scope, _) = limit else { panic!("{limit:?}") };
            let name = &world.state.held[id].replica.job;
            let job = world.known_job(name);
            let payer = job.map_or_else(|| world.state.job(name).payer, |job| job.payer());
            prop_assert!(Scope::of(name, &payer).any(|mine| mine == *scope));
        }
    }
}

#[test]
fn the_lowest_priority_is_wound_down_for_an_owners_limit_and_no_one_else() {
    let with = |name: &str, priority: i32, owner: &str| Job {
        owner: Some(owner.to_owned()),
        priority,
        ..job(name)
    };
    let jobs = [with("a", 2, "ml"), with("b", 1, "ml"), with("c", 0, "ops")];
    let mut world = world(vec![offer(1)]);
    for (n, job) in jobs.iter().enumerate() {
        let running = held(n as u64 + 1, job, &offer(n as u64 + 1), usd(1.0));
        world.state.held.insert(running.id, running);
        world.jobs.push(Arc::new(job.clone()));
    }
    list(&mut world, true);
    let owner = Scope::Owner("ml".to_owned());
    let bounds = Bounds {
        per_hour: Some(usd(1.5)),
        ..Bounds::default()
    };
    world.config.groups.insert(owner.clone(), bounds);
    let limit = Limit::Of(owner, Measure::Hour);
    assert_eq!(limit.to_string(), "per-hour limit of owner ml");
    let park = Saving::Park(limit);
    assert_eq!(wind_down(&world), BTreeMap::from([(InstanceId(2), park)]));
}

#[test]
fn too_many_gpus_are_parked_and_no_disk_is_lost_for_them() {
    let mut world = world(vec![offer(1)]);
    world.jobs = vec![Arc::new(job("a"))];
    for n in 1..=3 {
        let running = held(n, &job("a"), &offer(n), usd(0.5));
        world.state.held.insert(running.id, running);
    }
    world.config.gpus_max = Some(0);
    let savings = wind_down(&world);
    assert_eq!(savings.len(), 3);
    assert!(savings.values().all(|s| matches!(s, Saving::Park(_))));
}

#[test]
fn a_credit_that_steps_down_has_a_slope_only_after_ten_minutes() {
    let mut history = CreditHistory::default();
    history.read(NOW, Money::dollars(10));
    history.read(NOW + Duration::from_mins(9), Money::dollars(9));
    assert_eq!(history.slope(), None);
    history.read(NOW + Duration::from_mins(30), Money::dollars(8));
    assert_eq!(history.slope(), Some(usd(4.0)));
    // A clock that went back begins anew.
    history.read(NOW, Money::dollars(8));
    assert_eq!(history.slope(), None);
}

#[test]
fn a_credit_that_is_read_higher_than_before_is_believed_when_nothing_contradicts_it() {
    let mut history = CreditHistory::default();
    assert_eq!(history.relied_on(), None);
    let mut read = |minutes: u64, dollars: i64| {
        let at = NOW + Duration::from_mins(minutes);
        history.read(at, Money::dollars(dollars));
        history.relied_on()
    };
    let relied = |dollars| Some(Money::dollars(dollars));
    assert_eq!(read(0, 10), relied(10), "the first is all that is known");
    assert_eq!(read(1, 3), relied(3), "a fall counts at once");
    // An answer from before, however far apart the readings are.
    assert_eq!(read(30, 10), relied(3));
    assert_eq!(read(60, 3), relied(3));
    // Money was paid in.
    assert_eq!(read(61, 20), relied(3));
    assert_eq!(read(66, 20), relied(3));
    assert_eq!(read(72, 20), relied(20));
    assert_eq!(read(80, 30), relied(20));
    // A clock that is set back forgets no fall.
    assert_eq!(read(5, 30), relied(20));
    assert_eq!(read(20, 30), relied(30));
}

#[test]
fn traffic_is_set_aside_at_the_price_that_was_agreed_even_where_the_market_shows_it_no_more() {
    let capped = Job {
        traffic_gb_max: Some(100.0),
        ..job("a")
    };
    let committed = |prices, spent| {
        let mut world = bare(capped.clone());
        let mut running = held(5, &capped, &offer(1), usd(0.2));
        running.traffic_prices = prices;
        running.spent_traffic = Money::dollars(spent);
        world.state.held.insert(running.id, running);
        world.market = Arc::default();
        let whole = Money::dollars(1000);
        world.account = Some(Account {
            id: AccountId(1),
            credit: Some(whole),
        });
        // The most that still fits tells what is committed.
        let fits = |cost| affords(&world, cost, Load::default()).is_ok();
        let (mut low, mut high) = (0, whole.0);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            *(if fits(middle) { &mut low } else { &mut high }) = middle;
        }
        whole.0 - low
    };
    let dear = Some((Money(10_000_000), Money(20_000_000)));
    let without = committed(Some((Money::ZERO, Money::ZERO)), 0);
    assert_eq!(committed(dear, 0) - without, Money::dollars(2).0);
    assert_eq!(committed(dear, 1) - without, Money::dollars(1).0);
    assert_eq!(committed(dear, 3), without);
}
