//! What watches haggle: the files of `deploy/`, by the tools and the schema that they are for, and on a
//! real Prometheus that scrapes the real daemon on the embedded market.
//!
//! `promtool` and `prometheus` are taken from the path, and Grafana's published schema from the Python
//! package of `tests/watching/requirements.txt`, with `$GRAFANA_PYTHON` or else `python3`. What is absent
//! is skipped, and said.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may stop")]
#![allow(clippy::print_stdout, reason = "a test says what it did")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use haggle::store::append_request;
use haggle::types::state::Ask;
use haggle::types::time::Time;
use serde_json::Value;

use crate::support;

/// Between two looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Nothing is waited for longer than so many looks.
const LOOKS: u32 = 480;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(name)
}

/// Runs a tool; `None`, and says so, where it is not here.
fn run(tool: &str, arguments: &[&str], stdin: &str) -> Option<Output> {
    let child = Command::new(tool)
        .args(arguments)
        .current_dir(deploy("prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("SKIPPED: there is no {tool} here");
        return None;
    };
    let mut input = child.stdin.take().unwrap();
    // A tool that has seen enough may close it early.
    let _ = input.write_all(stdin.as_bytes());
    drop(input);
    Some(child.wait_with_output().unwrap())
}

fn succeeds(tool: &str, arguments: &[&str], stdin: &str) {
    if let Some(output) = run(tool, arguments, stdin) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{tool} {arguments:?}:\n{out}{err}");
    }
}

#[test]
fn promtool_takes_the_configuration_the_rules_and_their_scenes() {
    succeeds("promtool", &["check", "config", "prometheus.yml"], "");
    let strict = ["check", "rules", "--lint-fatal", "haggle.rules.yml"];
    succeeds("promtool", &strict, "");
    succeeds("promtool", &["test", "rules", "haggle.test.yml"], "");
}

/// The names that follow a key at the beginning of lines of a YAML file.
fn named(file: &str, key: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(deploy(file)).unwrap();
    let after = |line: &str| {
        let (_, name) = line.split_once(key)?;
        Some(name.split([',', ' ']).next()?.to_owned())
    };
    text.lines().filter_map(after).collect()
}

#[test]
fn each_alert_has_a_scene_a_healthy_one_and_a_place_in_the_guide() {
    let alerts = named("prometheus/haggle.rules.yml", "- alert: ");
    assert!(alerts.len() >= 20, "{alerts:?}");
    let text = fs::read_to_string(deploy("prometheus/haggle.test.yml")).unwrap();
    let guide = fs::read_to_string(deploy("../docs/watching.md")).unwrap();
    for alert in &alerts {
        let quiet = format!("alertname: {alert}, eval_time: 4h, exp_alerts: [] }}");
        assert!(
            text.contains(&quiet),
            "{alert} is not looked at where all is well"
        );
        let fires = format!("- alertname: {alert}\n");
        assert!(
            text.contains(&fires),
            "{alert} has no scene that deserves it"
        );
        assert!(
            guide.contains(&format!("`{alert}`")),
            "{alert} is not explained"
        );
    }
}

#[test]
fn the_dashboard_is_one_by_grafanas_own_schema() {
    let python = std::env::var("GRAFANA_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let here = run(&python, &["-c", "import grafana_foundation_sdk"], "");
    if !here.is_some_and(|output| output.status.success()) {
        println!("SKIPPED: grafana-foundation-sdk is not here");
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/watching/dashboard.py");
    let file = deploy("grafana/dashboards/haggle.json");
    succeeds(&python, &[script, file.to_str().unwrap()], "");
    // And one that is wrong is none: the check can fail.
    let text = fs::read_to_string(&file).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for (right, wrong) in [
        ("\"schemaVersion\": 41", "\"schemaVersion\": \"41\""),
        ("\"gridPos\"", "\"gridpos\""),
        ("\"type\": \"timeseries\"", "\"type\": \"timeserie\""),
        ("\"displayMode\": \"list\"", "\"displayMode\": \"lists\""),
    ] {
        assert!(text.contains(right), "{right}");
        let broken = directory.path().join("broken.json");
        fs::write(&broken, text.replacen(right, wrong, 1)).unwrap();
        let output = run(&python, &[script, broken.to_str().unwrap()], "").unwrap();
        assert!(!output.status.success(), "{wrong} passes");
    }
}

// ---------------------------------------------------------------------------- a real Prometheus

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A market at which nobody else bids and nothing fails, sixty times as fast as life.
fn market(directory: &Path) -> (Ends, String) {
    let mut market = support::haggle(directory)
        .args(["market", "--json", "--listen", "127.0.0.1:0"])
        .args(["--speed", "60", "--intensity", "0", "--failures", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(market.stdout.take().unwrap());
    let market = Ends(market);
    let mut document = String::new();
    loop {
        assert_ne!(lines.read_line(&mut document).unwrap(), 0, "no market");
        if let Ok(read) = serde_json::from_str::<Value>(&document) {
            return (market, read["base_url"].as_str().unwrap().to_owned());
        }
    }
}

/// A request of HTTP 1.0, whose answer ends with the connection; its body.
fn ask(address: &str, method: &str, path: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

struct Prometheus {
    _process: Ends,
    address: String,
}

impl Prometheus {
    /// Scrapes a daemon each second by the configuration that is deployed, and evaluates its rules as
    /// they are and, under other names, without the time that each alert waits.
    fn start(directory: &Path, daemon: &str) -> Self {
        let config = fs::read_to_string(deploy("prometheus/prometheus.yml")).unwrap();
        let config = config
            .replace("15s", "1s")
            .replace("127.0.0.1:9464", daemon)
            .replace(
                "- haggle.rules.yml",
                "- haggle.rules.yml\n  - eager.rules.yml",
            );
        assert!(
            config.contains(daemon) && config.contains("eager"),
            "{config}"
        );
        fs::write(directory.join("prometheus.yml"), config).unwrap();
        let rules = fs::read_to_string(deploy("prometheus/haggle.rules.yml")).unwrap();
        fs::write(directory.join("haggle.rules.yml"), &rules).unwrap();
        let waits = |line: &&str| line.trim_start().starts_with("for: ");
        let eager: Vec<&str> = rules.lines().filter(|line| !waits(line)).collect();
        let eager = eager.join("\n");
        let (groups, alerts) = eager.split_once("  - name: haggle-daemon").unwrap();
        assert!(groups.contains("record:"));
        let eager = format!("groups:\n  - name: haggle-daemon{alerts}")
            .replace("- alert: Haggle", "- alert: EagerHaggle")
            .replace("- name: haggle", "- name: eager");
        fs::write(directory.join("eager.rules.yml"), eager).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = port.local_addr().unwrap().to_string();
        drop(port);
        let log = fs::File::create(directory.join("prometheus.err")).unwrap();
        let process = Command::new("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={address}"))
            .current_dir(directory)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            _process: Ends(process),
            address,
        }
    }

    fn read(&self, method: &str, path: &str, body: &str) -> Option<Value> {
        let answer = ask(&self.address, method, path, body)?;
        let read: Value = serde_json::from_str(&answer).ok()?;
        assert_ne!(read["status"], "error", "{path} {body}: {answer}");
        Some(read["data"].clone())
    }

    /// How many series an expression has now. One that cannot be evaluated stops the test.
    fn series(&self, expression: &str) -> usize {
        let mut encoded = String::new();
        for byte in expression.bytes() {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        let data = self.read("POST", "/api/v1/query", &format!("query={encoded}"));
        data.map_or(0, |data| data["result"].as_array().unwrap().len())
    }

    /// Every rule, by name, with what its last evaluation came to: its health and, of an alert, its state.
    fn rules(&self) -> BTreeMap<String, (String, String)> {
        let data = self.read("GET", "/api/v1/rules", "").unwrap_or_default();
        let groups = data["groups"].as_array().cloned().unwrap_or_default();
        let rules = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().unwrap());
        let text = |rule: &Value, key: &str| rule[key].as_str().unwrap_or("").to_owned();
        rules
            .map(|rule| {
                (
                    text(rule, "name"),
                    (text(rule, "health"), text(rule, "state")),
                )
            })
            .collect()
    }

    fn firing(&self, prefix: &str) -> BTreeSet<String> {
        let rules = self.rules().into_iter();
        rules
            .filter(|(name, (_, state))| name.starts_with(prefix) && state == "firing")
            .map(|(name, _)| name)
            .collect()
    }
}

/// Looks until a condition holds; what is missing is told where it never does.
fn wait_for(what: &str, mut missing: impl FnMut() -> Vec<String>) {
    let mut last = Vec::new();
    for _ in 0..LOOKS {
        last = missing();
        if last.is_empty() {
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    panic!("{what}; still missing: {last:#?}");
}

/// The expressions of the dashboard, with what Grafana would put for the variables.
fn expressions() -> Vec<String> {
    let text = fs::read_to_string(deploy("grafana/dashboards/haggle.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let Some(query) = variable["query"]["query"].as_str() else {
            continue;
        };
        let inner = query.strip_prefix("label_values(").unwrap();
        let (series, label) = inner.strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
        found.push(format!(
            "count by ({label}) ({series}) and on ({label}) {series}"
        ));
    }
    let panels = dashboard["panels"].as_array().unwrap().iter();
    for target in panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten()) {
        found.push(target["expr"].as_str().unwrap().to_owned());
    }
    let fill = |expression: String| {
        let filled = expression
            .replace("$__rate_interval", "30s")
            .replace("$__range", "5m")
            .replace("$daemon", ".*")
            .replace("$jobs", ".*")
            .replace("$gpu", ".*");
        assert!(!filled.contains('$'), "a variable is not known: {filled}");
        filled
    };
    found.into_iter().map(fill).collect()
}

const TRAIN: &str = r#"
name = "train"
replicas = 2
boot_overhead = "0s"
[run]
image = "ghcr.io/me/train:1"
[gpu]
models = ["RTX 4090", "RTX 3090"]
count = 1
[machine]
disk = "16GB"
[price]
max = "$0.80/gpu-hour"
[budget]
total = "$40"
[work]
gpu_hours = 600
[data]
disposable = true
"#;

#[test]
fn a_real_prometheus_sees_what_the_dashboard_draws_and_what_the_alerts_are_for() {
    if run("prometheus", &["--version"], "").is_none() {
        return;
    }
    let clock = haggle::clock::SystemClock::new();
    let so_far = |what: &str| println!("{:.0} s: {what}", clock.seconds());
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (_market, base_url) = market(directory);
    support::set_up(directory, &base_url, TRAIN);
    let config = directory.join("haggle.toml");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace(
        "every = \"10s\"\n",
        "every = \"10s\"\ninstances_every = \"5s\"\n[limits]\nper_day = \"$50\"\n",
    );
    fs::write(&config, text).unwrap();
    let mut command = support::haggle(directory);
    command
        .args(["run", "--live"])
        .env("HAGGLE_TOKEN", "at_watched");
    let mut daemon = support::Running::start(&mut command, directory, "daemon");
    daemon.wait_to_say("metrics at http://");
    let said = fs::read_to_string(directory.join("daemon.err")).unwrap();
    let (_, rest) = said.split_once("metrics at http://").unwrap();
    let address = rest.split('/').next().unwrap().to_owned();
    let prometheus = Prometheus::start(directory, &address);

    // All is well: every expression has series, every rule is evaluated, nothing fires.
    let all = expressions();
    assert!(all.len() >= 60, "{}", all.len());
    wait_for("the dashboard draws nothing for", || {
        let empty = |expression: &&String| prometheus.series(expression) == 0;
        all.iter().filter(empty).cloned().collect()
    });
    so_far("every expression of the dashboard has series");
    wait_for("rules are not evaluated", || {
        let rules = prometheus.rules();
        assert!(rules.len() >= 40, "{rules:?}");
        let bad = rules.iter().filter(|(_, (health, _))| health != "ok");
        bad.map(|(name, _)| name.clone()).collect()
    });
    wait_for("something fires although all is well", || {
        prometheus.firing("EagerHaggle").into_iter().collect()
    });
    assert_eq!(prometheus.firing("Haggle"), BTreeSet::new());
    so_far("every rule is evaluated, and nothing fires");
    let scrape = ask(&address, "GET", "/metrics", "").unwrap();
    succeeds("promtool", &["check", "metrics"], &scrape);
    // The job is ours, and not the scrape's.
    assert!(prometheus.series("haggle_burn_dollars_per_hour{job=\"train\",daemon=\"main\"}") == 1);

    // What deserves an alert gets it.
    let fires = |alerts: &[&str]| {
        wait_for("it does not fire", || {
            let firing = prometheus.firing("EagerHaggle");
            let silent = alerts.iter().map(|alert| format!("EagerHaggle{alert}"));
            silent.filter(|alert| !firing.contains(alert)).collect()
        });
    };
    let policies = directory.join("policies");
    fs::write(policies.join("broken.toml"), "name = \"broken\"\n[gpu\n").unwrap();
    let none = TRAIN
        .replace("\"train\"", "\"dream\"")
        .replace("[\"RTX 4090\", \"RTX 3090\"]", "[\"RTX 4090\"]")
        .replace("$0.80/gpu-hour", "$0.01/gpu-hour")
        .replace("\"$40\"", "\"$0.05\"");
    fs::write(policies.join("dream.toml"), none).unwrap();
    fires(&["PolicyBroken", "JobWaits"]);
    so_far("a broken policy and a job that waits are told of");
    append_request(&directory.join("haggle.db"), Time(1), &Ask::Kill).unwrap();
    fires(&["Killed"]);
    daemon.terminate();
    daemon.wait();
    fires(&["Down"]);
    so_far("a kill and an end are told of");
}
