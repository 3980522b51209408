//! `haggle demo`, as a user runs it.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use haggle::types::money::Money;
use serde_json::Value;

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haggle"));
    command.arg("demo").args(arguments).args(["--json"]);
    command
}

fn dollars(document: &Value, key: &str) -> Money {
    document[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} is missing"))
        .parse()
        .unwrap()
}

/// Whether two amounts are the same to the cent.
fn same_cents(a: Money, b: Money) -> bool {
    (a - b).0.abs() < 10_000_000
}

fn run_to_the_end(seed: &str) -> Value {
    let output = demo(&["--for", "6h", "--speed", "1e9", "--seed", seed])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "seed {seed}:\n{told}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn check(document: &Value) {
    let (spend, billed) = (
        dollars(document, "spend_dollars"),
        dollars(document, "billed_dollars"),
    );
    assert!(spend > Money::ZERO);
    assert!(same_cents(spend, billed), "ledger {spend}, bill {billed}");
    assert_eq!(document["instances_left"], 0);
    assert_eq!(document["unsettled_intents"], 0);
    assert_eq!(document["limit_violations"], serde_json::json!([]));
    for job in document["jobs"].as_array().unwrap() {
        let (spend, billed) = (
            dollars(job, "spend_dollars"),
            dollars(job, "billed_dollars"),
        );
        assert!(
            same_cents(spend, billed),
            "{}: ledger {spend}, bill {billed}",
            job["name"]
        );
        if let Some(budget) = job["budget_dollars"].as_str() {
            assert!(spend <= budget.parse().unwrap());
        }
    }
}

#[test]
fn six_hours_rent_are_outbid_finish_and_leave_nothing() {
    let document = run_to_the_end("7");
    check(&document);
    let jobs = document["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 3);
    assert!(
        jobs.iter().all(|job| job["starts"].as_u64().unwrap() > 0),
        "a job never ran"
    );
    assert!(
        jobs.iter().any(|job| job["outbids"].as_u64().unwrap() > 0),
        "nothing was outbid"
    );
    assert!(
        jobs.iter().any(|job| job["outcome"] == "finished"),
        "nothing finished"
    );
    let equivalent = dollars(&document, "on_demand_equivalent_dollars");
    assert!(
        equivalent > dollars(&document, "spend_dollars"),
        "dearer than on-demand"
    );
    assert_eq!(
        document,
        run_to_the_end("7"),
        "the same seed tells another story"
    );
}

#[test]
fn other_markets_end_as_cleanly() {
    for seed in ["1", "2"] {
        check(&run_to_the_end(seed));
    }
}

#[cfg(unix)]
#[test]
fn an_interruption_tears_down_what_was_rented() {
    let mut child = demo(&["--for", "6h", "--speed", "3600", "--seed", "7"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    let ran = told
        .by_ref()
        .map(Result::unwrap)
        .find(|line| line.contains("running"));
    assert!(ran.is_some(), "nothing ran");
    let interrupt = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupt.success());
    let rest: Vec<String> = told.map(Result::unwrap).collect();
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", rest.join("\n"));
    assert!(
        rest.iter().any(|line| line.contains("interrupted")),
        "{}",
        rest.join("\n")
    );
    let document: Value = serde_json::from_str(&text).unwrap();
    check(&document);
    assert!(
        document["market_hours"]
            .as_str()
            .unwrap()
            .parse::<f64>()
            .unwrap()
            < 5.0
    );
}
