//! `haggle backtest` as a user meets it. With `BACKTEST_TRACES` naming a directory that holds the
//! published traces as `2022/`, `2023/` and `window-starts.json`, the published figures too.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

fn backtest(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_haggle"))
        .current_dir(directory)
        .arg("backtest")
        .args(args)
        .output()
        .expect("haggle starts")
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Traces of two zones, one probed every 600 s and one every 300, and windows on them.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, value: Value| {
        fs::write(directory.path().join(name), value.to_string()).unwrap();
    };
    fs::create_dir(directory.path().join("traces")).unwrap();
    let data = |every: usize| -> Vec<usize> {
        (0..every * 100)
            .map(|at| usize::from(at / every % 13 < 8))
            .collect()
    };
    write(
        "traces/east.json",
        json!({"metadata": {"gap_seconds": 600}, "data": data(1)}),
    );
    write(
        "traces/west.json",
        json!({"metadata": {"gap_seconds": 300}, "data": data(2)}),
    );
    let window = |series: &str, start: usize, deadline: f64| {
        json!({"series": series, "start": start, "ticks": 60, "work_hours": 4.0,
            "deadline_hours": deadline, "overhead_hours": 0.1})
    };
    write(
        "windows.json",
        json!([
            window("east", 0, 6.0),
            window("east", 3, 10.0),
            window("west", 0, 6.0),
            // Nobody does four hours' work, and a start, in four hours.
            window("west", 3, 4.0),
        ]),
    );
    directory
}

const OWN: [&str; 4] = ["--windows", "windows.json", "--traces", "traces"];

#[test]
fn windows_of_ones_own_are_run_under_all_policies() {
    let directory = directory();
    let args = [&OWN[..], &["--train", "traces", "--json"]].concat();
    let found = document(&backtest(directory.path(), &args));
    assert_eq!(found["windows"], 4);
    assert_eq!(found["infeasible_runs"], 1);
    assert_eq!(found["trained_on"], 2);
    let optimum = found["optimum_mean_cost_dollars"].as_f64().unwrap();
    let policies = found["policies"].as_array().unwrap();
    let names: Vec<&str> = policies
        .iter()
        .filter_map(|one| one["policy"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "on-demand",
            "greedy",
            "uniform-progress",
            "uniform-progress-prelude",
            "slack-band",
            "hazard-mdp",
        ]
    );
    for one in policies {
        assert_eq!(one["runs"], 3, "{one}");
        assert_eq!(one["late_runs"], 0, "{one}");
        assert!(
            one["mean_cost_dollars"].as_f64().unwrap() >= optimum,
            "{one}"
        );
        assert!(
            one["over_optimum_low"].as_f64() <= one["over_optimum_high"].as_f64(),
            "{one}"
        );
        assert!(
            one["runs_per_second_per_core"].as_f64().unwrap() > 0.0,
            "{one}"
        );
    }
    // 4 h and a start of 0.1 h are 25 ticks of 10 minutes on demand.
    let on_demand = policies[0]["mean_cost_dollars"].as_f64().unwrap();
    assert!((on_demand - 25.0 * 3.06 / 6.0).abs() < 1e-6, "{on_demand}");
}

#[test]
fn threads_and_order_change_nothing_but_the_times() {
    let directory = directory();
    let costs = |threads: &str, policies: &str| {
        let args = [
            &OWN[..],
            &["--threads", threads, "--policy", policies, "--json"],
        ]
        .concat();
        let found = document(&backtest(directory.path(), &args));
        let policies = found["policies"].as_array().unwrap().clone();
        let cost = |one: &Value| {
            (
                one["policy"].to_string(),
                one["mean_cost_dollars"].to_string(),
            )
        };
        let mut costs: Vec<_> = policies.iter().map(cost).collect();
        costs.sort();
        costs
    };
    let one = costs("1", "hazard-mdp,greedy");
    assert_eq!(one.len(), 2);
    assert_eq!(one, costs("3", "greedy,hazard-mdp"));
}

#[test]
fn people_get_a_table_and_prices_count() {
    let directory = directory();
    let args = [&OWN[..], &["--policy", "greedy,on-demand"]].concat();
    let shown = String::from_utf8(backtest(directory.path(), &args).stdout).unwrap();
    for wanted in [
        "over optimum",
        "greedy",
        "on-demand",
        "12.750",
        "1 of 4 windows",
        "built-in rule",
    ] {
        assert!(shown.contains(wanted), "{wanted}: {shown}");
    }
    let prices = ["--on-demand-price", "6.12", "--spot-price", "6.12"];
    let args = [&args[..], &prices, &["--json"]].concat();
    let found = document(&backtest(directory.path(), &args));
    assert_eq!(found["policies"][1]["mean_cost_dollars"], 25.5);
}

#[test]
fn failing_starts_keep_time_in_hand() {
    let directory = directory();
    let args = [
        &OWN[..],
        &[
            "--start-fails",
            "0.2",
            "--policy",
            "hazard-mdp,on-demand",
            "--json",
        ],
    ];
    let found = document(&backtest(directory.path(), &args.concat()));
    assert_eq!(found["margin_ticks"], 4);
    let costs = found["policies"][1]["mean_cost_dollars"].as_f64().unwrap();
    assert!(costs >= 12.75);
}

#[test]
fn what_is_wrong_is_told_with_its_file() {
    let directory = directory();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write(
        "traces/bad.json",
        r#"{"metadata": {"gap_seconds": 600}, "data": [1, 7]}"#,
    );
    write(
        "bad.json",
        r#"[{"series": "bad", "start": 0, "ticks": 1, "work_hours": 1, "deadline_hours": 2, "overhead_hours": 0}]"#,
    );
    write(
        "gone.json",
        r#"[{"series": "gone", "start": 0, "ticks": 1, "work_hours": 1, "deadline_hours": 2, "overhead_hours": 0}]"#,
    );
    write("short.json", r#"[{"series": "east", "start": 0}]"#);
    let traces = ["--traces", "traces"];
    for (args, told) in [
        (
            &["--windows", "bad.json"][..],
            "traces/bad.json cannot be used",
        ),
        (
            &["--windows", "bad.json"],
            "data[1] is 7; wanted is 1 (available) or 0",
        ),
        (&["--windows", "gone.json"], "cannot read traces/gone.json"),
        (&["--windows", "short.json"], "short.json cannot be used"),
        (&["--windows", "short.json"], "missing field `ticks`"),
        (&["--windows", "none.json"], "cannot read none.json"),
        (
            &["--suite", "cant-be-late:A"],
            "cannot read traces/us-west-2a_k80_1.json",
        ),
        (&["--suite", "cant-be-late:D"], "wanted is cant-be-late:A"),
        (&[], "--suite"),
        (
            &["--windows", "windows.json", "--policy", "greedi"],
            "did you mean `greedy`?",
        ),
        (
            &["--windows", "windows.json", "--spot-price", "0"],
            "a price over 0",
        ),
        (
            &["--windows", "windows.json", "--train", "nowhere"],
            "cannot read the directory nowhere",
        ),
        (
            &["--windows", "windows.json", "--start-fails", "1"],
            "below 1",
        ),
    ] {
        let output = backtest(directory.path(), &[args, &traces].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(told), "{args:?}: {said}");
    }
}

/// Where the published traces are, if they are.
fn published() -> Option<PathBuf> {
    let place = std::env::var_os("BACKTEST_TRACES").map(PathBuf::from);
    if place.is_none() {
        println!("skipped: BACKTEST_TRACES names no directory of the published traces");
    }
    place
}

#[test]
fn the_published_figures_come_out_again() {
    let Some(place) = published() else { return };
    let traces = place.join("2022");
    for (suite, optimum, greedy, uniform) in [
        ("cant-be-late:A", 81.543, 96.515, 92.064),
        ("cant-be-late:B", 92.162, 119.035, 101.683),
        ("cant-be-late:C", 95.976, 116.011, 106.918),
    ] {
        let args = ["--suite", suite, "--traces", traces.to_str().unwrap()];
        let more = ["--policy", "greedy,uniform-progress", "--json"];
        let found = document(&backtest(
            &place,
            &[args, [more[0], more[1], more[2], "--seed=1"]].concat(),
        ));
        let is_near = |value: &Value, wanted: f64| {
            let value = value.as_f64().unwrap();
            assert!(
                (value - wanted).abs() < 0.0006,
                "{suite}: {value}, wanted {wanted}"
            );
        };
        is_near(&found["optimum_mean_cost_dollars"], optimum);
        is_near(&found["policies"][0]["mean_cost_dollars"], greedy);
        is_near(&found["policies"][1]["mean_cost_dollars"], uniform);
        assert_eq!(found["policies"][1]["late_runs"], 0);
    }
}

#[test]
fn the_lead_over_the_published_policies_holds() {
    let Some(place) = published() else { return };
    let (traces, train) = (place.join("2022"), place.join("2023"));
    let args = [
        "--suite",
        "cant-be-late:C",
        "--traces",
        traces.to_str().unwrap(),
    ];
    let more = [
        "--train",
        train.to_str().unwrap(),
        "--policy=hazard-mdp",
        "--json",
    ];
    let found = document(&backtest(&place, &[args, more].concat()));
    let policy = &found["policies"][0];
    assert_eq!(policy["late_runs"], 0);
    assert!(policy["over_optimum"].as_f64().unwrap() < 1.09, "{policy}");
}

#[test]
fn a_family_of_markets_that_is_none_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let unknown = backtest(directory.path(), &["--market", "scarse"]);
    assert_eq!(unknown.status.code(), Some(1));
    let told = String::from_utf8_lossy(&unknown.stderr);
    assert!(told.contains("did you mean `scarce`?"), "{told}");
    // Without markets there have to be traces.
    let nothing = backtest(directory.path(), &["--suite", "cant-be-late:A"]);
    assert_eq!(nothing.status.code(), Some(1));
    let told = String::from_utf8_lossy(&nothing.stderr);
    assert!(told.contains("--traces"), "{told}");
}
