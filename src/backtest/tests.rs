//! Replays by hand, and the optimum against trying everything.

use proptest::prelude::*;

use super::*;
use crate::engine::deadline::{
    DeadlineKind, DeadlinePolicy, Greedy, Mode, Moment, OnDemand, Prelude, Prior, SlackBand, Terms,
    UniformProgress,
};
use crate::types::money::{Money, Rate};

fn terms(work: i64, deadline: i64, overhead: i64) -> Terms {
    Terms {
        tick: TICK_SECONDS,
        work,
        deadline,
        overhead,
        margin: 0,
    }
}

fn trace(text: &str) -> Vec<Tick> {
    text.bytes()
        .map(|up| Tick(u8::from(up == b'1') * Tick::SPOT))
        .collect()
}

/// Does as it was told, where it can.
struct Script(Vec<Mode>);

impl DeadlinePolicy for Script {
    fn choose(&mut self, _: &Terms, moment: &Moment) -> Mode {
        let mode = self.0.get(moment.tick as usize).copied();
        mode.unwrap_or(Mode::Idle)
    }
}

#[test]
fn a_ride_that_is_lost_starts_anew_and_whole_ticks_are_billed() {
    // 1,000 s of work with a start of 200: 400 s in the first tick, lost at the third, 400 and 200.
    let outcome = replay(
        &mut Greedy,
        &terms(1000, 12_000, 200),
        &trace("10110000000000000000"),
    );
    let wanted = Outcome {
        spot_ticks: 3,
        on_demand_ticks: 0,
        ticks: 4,
        late: false,
    };
    assert_eq!(outcome, wanted);
}

#[test]
fn greedy_goes_on_demand_when_the_net_says_so() {
    // 10 ticks for 3,000 s and a start of 600: with 2 starts, 4,200 s or 7 ticks; at the fourth tick
    // 7 are left, and a start and 3,000 s of work take 6 of them.
    let outcome = replay(&mut Greedy, &terms(3000, 6000, 600), &trace("0000000000"));
    assert_eq!((outcome.spot_ticks, outcome.on_demand_ticks), (0, 6));
    assert_eq!((outcome.ticks, outcome.late), (9, false));
}

#[test]
fn a_start_longer_than_a_tick_takes_from_the_next() {
    let outcome = replay(&mut OnDemand, &terms(600, 6000, 700), &trace(""));
    // 0 s, 500 s, and the rest.
    assert_eq!(outcome.on_demand_ticks, 3);
}

#[test]
fn what_is_done_after_the_deadline_is_late() {
    let mut late = Script([vec![Mode::Idle; 3], vec![Mode::OnDemand; 2]].concat());
    let outcome = replay(&mut late, &terms(1200, 2400, 0), &[]);
    assert!(outcome.late);
    assert_eq!(outcome.ticks, 5);
    let mut never = Script(Vec::new());
    assert!(replay(&mut never, &terms(600, 2400, 0), &[]).late);
    // The deadline lies between two ticks; what is done at the last one before it is in time.
    let mut close = Script(vec![Mode::OnDemand; 4]);
    assert!(!replay(&mut close, &terms(2400, 2500, 0), &[]).late);
    assert!(replay(&mut close, &terms(2400, 2300, 0), &[]).late);
}

#[test]
fn a_start_that_fails_is_billed_and_an_absent_one_is_not() {
    let ticks = [
        Tick(Tick::ON_DEMAND_FAILS),
        Tick(Tick::ON_DEMAND_ABSENT),
        Tick(0),
    ];
    let mut wish = Script(vec![Mode::OnDemand; 9]);
    let outcome = replay(&mut wish, &terms(600, 6000, 0), &ticks);
    assert_eq!((outcome.on_demand_ticks, outcome.ticks), (2, 3));
}

#[test]
fn trouble_is_drawn_once_and_as_often_as_asked() {
    let trouble = Trouble {
        start_fails: 0.2,
        absent: 0.05,
        seed: 3,
    };
    let struck = trouble.strike(&trace(&"1".repeat(10_000)), 10_000, 7);
    assert_eq!(struck.len(), 20_000);
    assert_eq!(
        struck,
        trouble.strike(&trace(&"1".repeat(10_000)), 10_000, 7)
    );
    assert_ne!(
        struck,
        trouble.strike(&trace(&"1".repeat(10_000)), 10_000, 8)
    );
    let share = |bit| struck.iter().filter(|tick| tick.has(bit)).count() as f64 / 20_000.0;
    assert!((share(Tick::SPOT_FAILS) - 0.2).abs() < 0.02);
    assert!((share(Tick::ON_DEMAND_FAILS) - 0.2).abs() < 0.02);
    assert!((share(Tick::ON_DEMAND_ABSENT) - 0.05).abs() < 0.015);
    assert_eq!(share(Tick::SPOT), 0.5);
}

#[test]
fn the_margin_grows_with_the_promise() {
    let trouble = |start_fails, absent| Trouble {
        start_fails,
        absent,
        seed: 1,
    };
    assert_eq!(trouble(0.0, 0.0).margin(0.999), 0);
    // 0.1, 0.01 and 0.001: three in a row fail in one case of a thousand.
    assert_eq!(trouble(0.1, 0.0).margin(0.9985), 2);
    assert_eq!(trouble(0.1, 0.0).margin(0.985), 1);
    assert_eq!(trouble(0.1, 0.0).margin(0.5), 0);
    assert!(trouble(0.1, 0.05).margin(0.99) > trouble(0.1, 0.0).margin(0.99));
}

/// The least cost by trying every mode at every tick.
fn tried(terms: &Terms, trace: &[Tick], spot: f64, on_demand: f64) -> Option<f64> {
    let ticks = terms.ticks() as u32;
    let costs = (0..3_u32.pow(ticks)).filter_map(|number| {
        let modes = (0..ticks).map(|tick| {
            let digit = number / 3_u32.pow(tick) % 3;
            [Mode::Idle, Mode::Spot, Mode::OnDemand][digit as usize]
        });
        let outcome = replay(&mut Script(modes.collect()), terms, trace);
        let cost =
            f64::from(outcome.spot_ticks) * spot + f64::from(outcome.on_demand_ticks) * on_demand;
        (!outcome.late).then_some(cost)
    });
    costs.min_by(f64::total_cmp)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_optimum_is_the_least_of_everything(
        bits in proptest::collection::vec(0_u8..16, 6),
        work in 1_i64..40,
        overhead in 0_i64..14,
        spot in 0.1_f64..1.5,
    ) {
        let trace: Vec<Tick> = bits.into_iter().map(Tick).collect();
        let terms = terms(work * 100, 3650, overhead * 100);
        let least = Optimizer::default().least(&terms, &trace, spot, 1.0);
        let wanted = tried(&terms, &trace, spot, 1.0);
        prop_assert_eq!(least.is_some(), wanted.is_some());
        let (least, wanted) = (least.unwrap_or_default(), wanted.unwrap_or_default());
        prop_assert!((least - wanted).abs() < 1e-9, "{} {}", least, wanted);
    }

    #[test]
    fn no_policy_is_cheaper_than_the_optimum(
        up in proptest::collection::vec(any::<bool>(), 12),
        hours in 1_i64..12,
        overhead in 0_i64..150,
    ) {
        let trace: Vec<Tick> = up
            .iter()
            .flat_map(|up| [Tick(u8::from(*up)); 5])
            .collect();
        let terms = terms(hours * 1800, 36_000, overhead * 10);
        let (spot, on_demand) = (0.3, 1.0);
        let mut optimizer = Optimizer::default();
        let least = optimizer.least(&terms, &trace, spot, on_demand).unwrap();
        let policies: [Box<dyn DeadlinePolicy>; 5] = [
            Box::new(OnDemand),
            Box::new(Greedy),
            Box::new(UniformProgress),
            Box::new(Prelude::default()),
            Box::new(SlackBand),
        ];
        for mut policy in policies {
            let outcome = replay(&mut policy, &terms, &trace);
            prop_assert!(!outcome.late);
            let cost = f64::from(outcome.spot_ticks) * spot
                + f64::from(outcome.on_demand_ticks) * on_demand;
            prop_assert!(cost > least - 1e-9);
        }
    }
}

#[test]
fn a_sweep_knows_its_batches_and_plays_them_the_same_in_pieces() {
    let text = format!(
        r#"{{"metadata": {{"gap_seconds": 600}}, "data": {:?}}}"#,
        (0..200).map(|at| u8::from(at % 17 < 9)).collect::<Vec<_>>()
    );
    let series = vec![Series::read("zone", &text).unwrap()];
    let window = |start, deadline, overhead| Window {
        series: 0,
        start,
        ticks: 60,
        terms: terms(18_000, deadline, overhead),
    };
    let sweep = Sweep {
        series,
        windows: vec![
            window(0, 24_000, 120),
            window(5, 36_000, 120),
            window(9, 24_000, 300),
            window(20, 24_600, 120),
        ],
        prices: Prices {
            spot: Rate::from_dollars(0.3).unwrap(),
            on_demand: Rate::from_dollars(1.0).unwrap(),
        },
        trouble: Trouble::default(),
        prior: Prior::built_in(),
    };
    let batches = sweep.batches();
    let windows: Vec<&[usize]> = batches.iter().map(|batch| &batch.windows[..]).collect();
    assert_eq!(windows, [&[0, 3][..], &[1], &[2]]);
    for kind in DeadlineKind::ALL {
        let tables = std::sync::Arc::new(sweep.tables(&batches[0]));
        let play = |windows: &[usize]| sweep.play(windows, kind, Some(&tables), &|| 0.0).outcomes;
        assert_eq!(play(&[0, 3]), [play(&[0]), play(&[3])].concat(), "{kind:?}");
        assert!(
            play(&[0, 3]).iter().all(|outcome| !outcome.late),
            "{kind:?}"
        );
        assert_eq!(DeadlineKind::named(kind.as_str()), Some(kind));
    }
    let outcome = Outcome {
        spot_ticks: 6,
        on_demand_ticks: 3,
        ..Outcome::default()
    };
    assert_eq!(sweep.cost(0, &outcome), Money::from_dollars(0.8).unwrap());
}

#[test]
fn suites_have_the_published_sizes() {
    let text = format!(
        r#"{{"metadata": {{"gap_seconds": 600}}, "data": {:?}}}"#,
        vec![1; 1781]
    );
    for (name, runs) in [("A", 1080), ("B", 1080), ("C", 2400)] {
        let suite = Suite::named(&format!("cant-be-late:{name}")).unwrap();
        let series: Vec<Series> = suite
            .series()
            .iter()
            .map(|name| Series::read(name, &text).unwrap())
            .collect();
        let starts: Vec<usize> = (0..300).collect();
        let windows = suite.windows(&starts, &series).unwrap();
        assert_eq!(windows.len(), runs);
        assert_eq!(windows[0].ticks, 554);
        let few = suite.windows(&starts[..20], &series);
        assert_eq!(few.is_ok(), name == "C");
        let beyond = suite
            .windows(&[5000; 300], &series)
            .unwrap_err()
            .to_string();
        assert!(beyond.contains("start 0 is tick 5000"), "{beyond}");
    }
    assert_eq!(Suite::named("cant-be-late:D"), None);
}

#[test]
fn windows_say_what_is_wrong_with_them() {
    let window =
        |fields: &str| format!(r#"[{{"series": "zone", "start": 0, "ticks": 6, {fields}}}]"#);
    let good = r#""work_hours": 1, "deadline_hours": 2, "overhead_hours": 0.1"#;
    let asked = Asked::read(&window(good)).unwrap();
    let series = |ticks: usize| Series {
        name: "zone".to_owned(),
        up: vec![true; ticks],
        ticks: vec![Tick(1); ticks],
    };
    let read = asked[0].window(0, 3, &series(6)).unwrap();
    assert_eq!(
        (read.series, read.terms.overhead, read.terms.work),
        (3, 360, 3600)
    );
    let beyond = asked[0].window(0, 3, &series(5)).unwrap_err().to_string();
    assert_eq!(
        beyond,
        "window 0: ticks 0 to 6, but `zone` has 5 ticks of 600 s"
    );
    for (text, told) in [
        ("[]".to_owned(), "no windows"),
        ("{}".to_owned(), "not a list of windows"),
        (
            window(&good.replace("\": 1,", "\": 0,")),
            "window 0: work_hours is 0",
        ),
        (
            window(&good.replace("\": 2,", "\": -2,")),
            "window 0: deadline_hours is -2",
        ),
        (
            window(&good.replace("0.1", "1e9")),
            "window 0: overhead_hours is 1000000000",
        ),
        (
            window(&good.replace("work_hours", "hours")),
            "unknown field `hours`",
        ),
    ] {
        let error = Asked::read(&text).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}
