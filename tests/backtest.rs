//! `haggle backtest` as a user meets it. With `BACKTEST_TRACES` naming a directory that holds the
//! published traces as `2022/`, `2023/` and `window-starts.json`, the published figures too.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use haggle::ports::Store;
use haggle::store::SqliteStore;
use haggle::types::ids::{IntentId, MachineId, OfferId, ReplicaId};
use haggle::types::ledger::{Component, Entry, EntryKind, Payer};
use haggle::types::money::{Money, Rate};
use haggle::types::offer::{Coverage, Extent, Market, Offer, OfferQuery, Snapshot};
use haggle::types::state::Change;
use haggle::types::time::Time;
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

// ------------------------------------------------------------------------------------- what if

/// 2025-10-01, 08:00 UTC.
const BEGIN: Time = Time(1_759_305_600_000);
const SPAN: [&str; 4] = [
    "--from",
    "2025-10-01T08:00:00Z",
    "--to",
    "2025-10-01T14:00:00Z",
];

fn listed(machine: u64, floor: i64) -> Offer {
    Offer {
        id: OfferId(machine),
        machine: MachineId(machine),
        host: None,
        gpus: 1,
        machine_gpus: Some(1),
        gpu_ids: vec![0],
        gpu_name: "RTX 4090".into(),
        gpu_ram_mb: Some(24_564),
        compute_cap: Some(890),
        cuda_max: Some(1240),
        driver_version: Some(550_054_014),
        nvlink_gb_s: None,
        pcie_gb_s: Some(12.0),
        cpu_cores: Some(16.0),
        cpu_ram_mb: Some(64_000),
        disk_gb: Some(500.0),
        disk_mb_s: Some(2000.0),
        inet_down_mbit_s: Some(800.0),
        inet_up_mbit_s: Some(400.0),
        inet_down_price: Some(Money(3_000_000)),
        inet_up_price: Some(Money(3_000_000)),
        storage_price: Some(Money(150_000_000)),
        reliability: Some(0.99),
        verified: Some(true),
        datacenter: Some(false),
        static_ip: Some(true),
        direct_ports: Some(10),
        country: None,
        ends_at: Some(Time(BEGIN.0 + 90 * 24 * 3_600_000)),
        on_demand: Some(Rate(400_000_000)),
        floor: Some(Rate(floor)),
        rentable: Some(true),
        rented: Some(false),
        dlperf: None,
    }
}

/// A record of five hours, a look every minute, with one slot: $0.20 an hour, but $0.46 in the second hour. The
/// job `train` cost a dollar then.
fn recorded() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("haggle.db");
    let mut store = SqliteStore::open(&database, None, 1).unwrap();
    for minute in 0..300 {
        let floor = if (60..120).contains(&minute) {
            460_000_000
        } else {
            200_000_000
        };
        let snapshot = Snapshot {
            at: Time(BEGIN.0 + minute * 60_000),
            offers: vec![listed(7, floor)],
            coverage: vec![Coverage {
                query: OfferQuery::all(Market::OnDemand),
                extent: Extent::Complete,
                malformed: 0,
            }],
        };
        store.snapshot(&snapshot).unwrap();
    }
    let entry = Entry {
        at: Time(BEGIN.0 + 3_600_000),
        day: "2025-10-01".parse().unwrap(),
        kind: EntryKind::Accrue,
        replica: ReplicaId {
            job: "train".parse().unwrap(),
            index: 0,
        },
        payer: Payer::default(),
        intent: IntentId(1),
        instance: None,
        component: Some(Component::Gpu),
        amount: Money::dollars(1),
    };
    store.commit(&[Change::Entry(entry)]).unwrap();
    fs::write(
        directory.path().join("train.toml"),
        r#"
name = "train"
rental = "interruptible"
finish = "work"
patience = "3h"
[run]
image = "pytorch/pytorch"
onstart = "python train.py"
[gpu]
models = ["RTX 4090"]
[machine]
verified = true
[price]
max = "$0.45/gpu-hour"
bid_margin = "5%"
[work]
gpu_hours = 2
[checkpoint]
every = "10m"
place = "remote"
"#,
    )
    .unwrap();
    directory
}

fn what_if(directory: &Path, more: &[&str]) -> Output {
    backtest(directory, &[&["--what-if", "train.toml"], more].concat())
}

#[test]
fn what_a_policy_would_have_cost_is_reckoned_from_the_record() {
    let directory = recorded();
    let found = document(&what_if(
        directory.path(),
        &[&SPAN[..], &["--json"]].concat(),
    ));
    let history = &found["history"];
    assert_eq!(
        (&history["looks"], &history["slots"]),
        (&json!(300), &json!(1))
    );
    // Five hours, and the last look stands for ten minutes more.
    assert_eq!(history["asked_hours"], 6.0);
    assert!(history["looked_hours"].as_f64().unwrap() > 5.1, "{history}");
    assert!((history["coverage_share"].as_f64().unwrap() - 309.0 / 360.0).abs() < 0.01);
    let one = &found["variants"][0];
    assert_eq!(one["outbids"], 1, "{one}");
    assert_eq!(one["instances"], 1, "{one}");
    assert_eq!(one["useful_gpu_hours"], 2.0);
    assert_eq!(one["work_from"], "policy");
    let paused = one["paused_hours"].as_f64().unwrap();
    assert!((0.95..1.05).contains(&paused), "{one}");
    // At 5 % over the floor, while it was up.
    let gpu: f64 = one["gpu_dollars"].as_str().unwrap().parse().unwrap();
    let up = one["bid_hours"].as_f64().unwrap();
    assert!((gpu - 0.21 * up).abs() < 0.01, "{gpu} for {up} h");
    let cost: f64 = one["cost_dollars"].as_str().unwrap().parse().unwrap();
    let less: f64 = one["less_than_really_dollars"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(found["really"]["spend_dollars"], "1.00");
    assert!((less + cost - 1.0).abs() < 1e-9, "{less} {cost}");
    let phases = one["timeline"].as_array().unwrap().iter();
    let phases: Vec<&str> = phases
        .filter_map(|moment| moment["phase"].as_str())
        .collect();
    assert!(
        phases.contains(&"paused") && phases.contains(&"bid"),
        "{phases:?}"
    );
    let text = what_if(directory.path(), &SPAN);
    let text = String::from_utf8(text.stdout).unwrap();
    for part in [
        "300 looks at 1 slots",
        "1 gap",
        "this would have cost",
        "not known:",
        "as written",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_grid_tries_each_combination_in_order_whatever_the_threads() {
    let directory = recorded();
    let grid = |threads: &str| {
        let more = [
            "--set",
            "price.bid_margin=5%,50%",
            "--set",
            "work.gpu_hours=0.5,2",
        ];
        let args = [&SPAN[..], &more, &["--threads", threads, "--json"]].concat();
        document(&what_if(directory.path(), &args))["variants"].clone()
    };
    let one = grid("1");
    let rows = one.as_array().unwrap();
    let set = |row: &Value| {
        let of = |key: &str| row["set"][key].as_str().unwrap().to_owned();
        (of("price.bid_margin"), of("work.gpu_hours"))
    };
    let sets: Vec<(String, String)> = rows.iter().map(set).collect();
    let wanted = |margin: &str, hours: &str| (margin.to_owned(), hours.to_owned());
    assert_eq!(
        sets,
        [
            wanted("5%", "0.5"),
            wanted("5%", "2"),
            wanted("50%", "0.5"),
            wanted("50%", "2"),
        ]
    );
    // Half an hour is done before somebody bids more.
    let outbids: Vec<&Value> = rows.iter().map(|row| &row["outbids"]).collect();
    assert_eq!(outbids, [0, 1, 0, 1]);
    let gpu = |at: usize| -> f64 { rows[at]["gpu_dollars"].as_str().unwrap().parse().unwrap() };
    for (low, high) in [(0, 2), (1, 3)] {
        let ratio = gpu(high) / gpu(low);
        assert!((ratio - 0.30 / 0.21).abs() < 0.01, "{ratio}");
    }
    assert_eq!(one, grid("4"));
}

#[test]
fn a_record_that_says_too_little_is_refused() {
    let directory = recorded();
    let path = directory.path();
    let told = |args: &[&str], wanted: &str| {
        let output = what_if(path, args);
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains(wanted), "{args:?}: {said}");
    };
    let span = |from: &'static str, to: &'static str| ["--from", from, "--to", to];
    told(
        &span("2025-01-01", "2025-01-02"),
        "the record has looks from 2025-10-01T08:00:00Z",
    );
    let short = span("2025-10-01T08:00:00Z", "2025-10-01T08:20:00Z");
    told(&short, "the record is too short: 20 looks at the market");
    told(
        &span("2025-10-02", "2025-10-01"),
        "nothing that has passed is between them",
    );
    told(
        &[&SPAN[..], &["--set", "gpu.model=H100"]].concat(),
        "with gpu.model = H100",
    );
    told(&[&SPAN[..], &["--days", "3"]].concat(), "--days");
    told(&["--database", "none.db"], "there is no database");
    fs::write(path.join("train.toml"), "[gpu]\n").unwrap();
    told(&SPAN, "train.toml cannot be used");
}

// -------------------------------------------------------------------------------- sheets and pages

/// A page on its own: nothing that runs, nothing from elsewhere, and every element closed.
fn is_self_contained(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html>"), "{page}");
    for none in [
        "<script", "src=", "href=", "url(", "http://", "https://", "@import",
    ] {
        assert!(!page.contains(none), "{none}: {page}");
    }
    for element in ["svg", "table", "figure", "text", "tr", "td"] {
        let opened = page.matches(&format!("<{element}>")).count()
            + page.matches(&format!("<{element} ")).count();
        assert_eq!(
            opened,
            page.matches(&format!("</{element}>")).count(),
            "{element}"
        );
    }
}

#[test]
fn traces_come_as_a_sheet_and_as_a_page() {
    let directory = directory();
    let args = [&OWN[..], &["--policy", "greedy,hazard-mdp"]].concat();
    let more = [&args[..], &["--csv", "--html", "report.html"]].concat();
    let output = backtest(directory.path(), &more);
    let sheet = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = sheet.split("\r\n").collect();
    assert!(
        lines[0].starts_with("policy,runs,mean_cost_dollars,optimum"),
        "{sheet}"
    );
    assert!(lines[1].starts_with("greedy,3,") && lines[2].starts_with("hazard-mdp,3,"));
    let page = fs::read_to_string(directory.path().join("report.html")).unwrap();
    is_self_contained(&page);
    assert_eq!(page.matches("<svg").count(), 2, "the costs, and one run");
    for part in [
        "optimum: 1.0000",
        "One run of hazard-mdp",
        "deadline",
        "<polyline",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let both = [&args[..], &["--csv", "--json"]].concat();
    let refused = backtest(directory.path(), &both);
    assert_eq!(refused.status.code(), Some(1));
    let nowhere = [&args[..], &["--html", "none/report.html"]].concat();
    let refused = backtest(directory.path(), &nowhere);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("cannot write none/report.html"), "{said}");
}

#[test]
fn what_if_comes_as_a_sheet_and_as_a_page_whose_texts_are_text() {
    let directory = recorded();
    let odd = "tra<b>in&.toml";
    fs::rename(
        directory.path().join("train.toml"),
        directory.path().join(odd),
    )
    .unwrap();
    let set = ["--set", "owner==1+1<i>,x", "--csv", "--html", "report.html"];
    let args = [&["--what-if", odd], &SPAN[..], &set].concat();
    let output = backtest(directory.path(), &args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let sheet = String::from_utf8(output.stdout).unwrap();
    assert!(sheet.starts_with("owner,job,cost_dollars,"), "{sheet}");
    let lines: Vec<&str> = sheet.trim_end().split("\r\n").collect();
    assert_eq!(lines.len(), 3, "{sheet}");
    assert!(
        lines[1].starts_with("'=1+1<i>,train,"),
        "no formula: {sheet}"
    );
    let page = fs::read_to_string(directory.path().join("report.html")).unwrap();
    is_self_contained(&page);
    for part in [
        "tra&lt;b&gt;in&amp;.toml",
        "&lt;i&gt;",
        "really: 1.0000 $",
        "stands still",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("<b>") && !page.contains("<i>"), "{page}");
}
