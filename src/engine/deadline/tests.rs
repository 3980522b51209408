//! Whatever a policy likes, and whatever the tick brings, nothing is late by its own choice.

use std::sync::{Arc, OnceLock};

use proptest::prelude::*;

use super::*;

const TICK: i64 = 600;

fn terms(work: i64, deadline: i64, overhead: i64, margin: i64) -> Terms {
    Terms {
        tick: TICK,
        work,
        deadline,
        overhead,
        margin,
    }
}

fn moment(ticks_left: i64, work_left: i64, mode: Mode, spot: bool) -> Moment {
    Moment {
        tick: 10,
        ticks_left,
        work_left,
        mode,
        overhead_left: 0,
        spot,
        on_demand: true,
        age: 1,
    }
}

#[test]
fn the_set_ends_where_a_start_would_come_too_late() {
    let terms = terms(6000, 12_000, 300, 0);
    // 9 ticks are left after this one: 5,400 s, of which a start takes 300.
    let at = |work| moment(10, work, Mode::Idle, true);
    assert!(SafeSet::new(&terms, &at(5100)).may_wait());
    assert!(!SafeSet::new(&terms, &at(5101)).may_wait());
    // A ride does 300 s of work in its first tick.
    assert!(SafeSet::new(&terms, &at(5400)).may_ride());
    assert!(!SafeSet::new(&terms, &at(5401)).may_ride());
    // One that rides on does 600.
    let riding = |work| moment(10, work, Mode::Spot, true);
    assert!(SafeSet::new(&terms, &riding(5700)).may_ride());
    assert!(!SafeSet::new(&terms, &riding(5701)).may_ride());
    // Each tick of the margin is a tick less.
    let kept = Terms { margin: 2, ..terms };
    assert!(SafeSet::new(&kept, &at(3900)).may_wait());
    assert!(!SafeSet::new(&kept, &at(3901)).may_wait());
}

#[test]
fn a_wish_is_bent_no_further_than_it_has_to_be() {
    let terms = terms(6000, 12_000, 300, 0);
    let tight = moment(10, 5401, Mode::Idle, true);
    let bound = |moment: &Moment, wish| SafeSet::new(&terms, moment).bound(wish);
    for wish in [Mode::Idle, Mode::Spot, Mode::OnDemand] {
        assert_eq!(bound(&tight, wish), Mode::OnDemand);
        let loose = moment(10, 600, Mode::Idle, true);
        assert_eq!(bound(&loose, wish), wish);
    }
    // What is called for and cannot be had: the next best.
    let absent = Moment {
        on_demand: false,
        ..tight
    };
    assert_eq!(bound(&absent, Mode::Idle), Mode::Spot);
    let dark = Moment {
        spot: false,
        ..absent
    };
    assert_eq!(bound(&dark, Mode::Idle), Mode::Idle);
}

#[test]
fn retries_are_as_many_as_the_promise_takes() {
    assert_eq!(retries(0.0, 0.99), 0);
    // One start in ten fails: two in a row one in a hundred times.
    assert_eq!(retries(0.1, 0.985), 1);
    assert_eq!(retries(0.1, 0.9985), 2);
    assert_eq!(retries(0.2, 0.99), 2);
    assert!(retries(f64::NAN, 0.9) <= 1_000);
    assert!(retries(2.0, 2.0) <= 1_000);
}

#[test]
fn the_slack_band_stays_on_demand_without_slack_for_two_starts() {
    let terms = terms(60_000, 90_000, 900, 0);
    let mut held = moment(20, 20 * TICK - 1801, Mode::OnDemand, true);
    assert_eq!(SlackBand.choose(&terms, &held), Mode::Spot);
    held.work_left += 1;
    assert_eq!(SlackBand.choose(&terms, &held), Mode::OnDemand);
}

#[test]
fn what_soon_comes_back_and_saves_is_waited_for() {
    let wish = |chain: Chain, spot: f64| {
        let terms = terms(12_000, 30_000, 300, 0);
        let costs = Costs {
            spot,
            start_fails: 0.0,
        };
        let prior = Prior::of(vec![chain]);
        let tables = HazardTables::within(&terms, costs, &prior, 300, usize::MAX);
        HazardMdp::new(Arc::new(tables)).choose(&terms, &moment(40, 12_000, Mode::Idle, false))
    };
    assert_eq!(wish(Chain::steady(0.01, 0.9), 0.3), Mode::Idle);
    // What saves nothing is not waited for: what is held is surer.
    assert_eq!(wish(Chain::steady(0.5, 0.05), 1.0), Mode::OnDemand);
}

#[test]
fn counts_without_weight_are_the_prior() {
    let chain = Chain::steady(0.01, 0.3);
    assert_eq!(Counts::default().chain(&chain, 1.0), chain);
    // Up for 3, down for 1: spells of either end as their ages say.
    let counts = Counts::of(&[true, true, true, false].repeat(100));
    let learnt = counts.chain(&chain, 1e-9);
    assert!(learnt.ends[0] < 0.01 && learnt.ends[1] < 0.01);
    assert!(learnt.ends[2] > 0.99 && learnt.ends[AGE_CLASSES] > 0.99);
}

#[test]
fn belief_goes_to_the_chain_that_foresaw_it() {
    let prior = Prior::of(vec![Chain::steady(0.01, 0.5), Chain::steady(0.5, 0.5)]);
    let mut belief = Belief::new(&prior);
    let seen = Seen { up: true, class: 0 };
    belief.learn(&prior, seen, false);
    assert!(belief.weights()[0] > 0.66);
    for _ in 0..3 {
        belief.learn(&prior, seen, true);
    }
    assert!(belief.weights()[0] < 0.01);
    assert!((belief.weights().iter().sum::<f64>() - 1.0).abs() < 1e-12);
}

/// Tables for any job of at most 60 ticks with an overhead of 700 s.
fn tables(margin: i64) -> Arc<HazardTables> {
    static TABLES: [OnceLock<Arc<HazardTables>>; 3] = [const { OnceLock::new() }; 3];
    let solve = || {
        let costs = Costs {
            spot: 0.4,
            start_fails: 0.0,
        };
        let terms = terms(600, 60 * TICK, 700, margin);
        let prior = Prior::built_in();
        Arc::new(HazardTables::within(&terms, costs, &prior, 300, usize::MAX))
    };
    Arc::clone(TABLES[margin as usize].get_or_init(solve))
}

fn policies(margin: i64) -> Vec<(&'static str, Box<dyn DeadlinePolicy>)> {
    vec![
        ("on-demand", Box::new(OnDemand)),
        ("greedy", Box::new(Greedy)),
        ("uniform-progress", Box::new(UniformProgress)),
        ("prelude", Box::new(Prelude::default())),
        ("slack-band", Box::new(SlackBand)),
        ("hazard-mdp", Box::new(HazardMdp::new(tables(margin)))),
    ]
}

/// A run by the plainest accounting; at most `margin` starts on demand in a row are in vain.
fn finishes(policy: &mut dyn DeadlinePolicy, terms: &Terms, up: &[bool]) -> bool {
    let mut now = moment(terms.ticks(), terms.work, Mode::Idle, false);
    let (mut boot, mut vain, mut age) = (0, 0, 0);
    for (tick, spot) in up.iter().copied().enumerate() {
        age = if tick > 0 && spot == now.spot {
            age + 1
        } else {
            1
        };
        let mode = if now.mode == Mode::Spot && !spot {
            Mode::Idle
        } else {
            now.mode
        };
        now = Moment {
            tick: tick as i64,
            ticks_left: terms.ticks() - tick as i64,
            overhead_left: if mode == Mode::Idle { 0 } else { boot },
            mode,
            spot,
            age,
            ..now
        };
        let wish = policy.choose(terms, &now);
        assert!(spot || wish != Mode::Spot, "rides what is not there");
        let fails = wish == Mode::OnDemand && now.mode != wish && vain < terms.margin;
        if fails {
            vain += 1;
            now.mode = Mode::Idle;
            continue;
        }
        if wish != now.mode {
            boot = terms.overhead;
        }
        if wish == Mode::OnDemand {
            vain = 0;
        }
        now.mode = wish;
        if wish != Mode::Idle {
            now.work_left -= (TICK - boot).max(0);
            boot = (boot - TICK).max(0);
        }
        if now.work_left <= 0 {
            return true;
        }
    }
    false
}

proptest! {
    #[test]
    fn nothing_that_begins_safe_is_ever_late(
        up in proptest::collection::vec(any::<bool>(), 60),
        runs in proptest::collection::vec(1_usize..12, 60),
        ticks in 4_i64..60,
        share in 0.05_f64..1.0,
        margin in 0_i64..3,
    ) {
        // Spells of some length, not only noise.
        let up: Vec<bool> = up
            .iter()
            .zip(&runs)
            .flat_map(|(up, run)| std::iter::repeat_n(*up, *run))
            .take(ticks as usize)
            .collect();
        let most = (ticks - margin) * TICK - 700;
        prop_assume!(most > 0);
        let work = ((most as f64 * share) as i64).max(1);
        let terms = terms(work, ticks * TICK, 700, margin);
        for (name, mut policy) in policies(margin) {
            prop_assert!(finishes(&mut *policy, &terms, &up), "{} is late", name);
        }
    }
}
