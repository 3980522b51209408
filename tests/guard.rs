//! The guard and the red button, as processes: a real daemon on a served market is killed or
//! stopped, and what it rented is seen to by somebody else. Nobody else's instances are touched.
//!
//! Time is the market's, ten minutes of it a second.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may stop")]
#![allow(clippy::print_stdout, reason = "a test says what it did")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Running, haggle};

const TOKEN: &str = "key-of-the-account-under-test";

/// No wait is this long: a minute.
const LOOKS: u32 = 1200;
const LOOK_EVERY: Duration = Duration::from_millis(50);

const POLICY: &str = r#"
name = "serve"
rental = "on-demand"
replicas = 2
finish = "never"
[run]
image = "a/b:c"
[gpu]
models = ["RTX 3060", "RTX 3070", "RTX 3080", "RTX 4070", "RTX 3090", "RTX 4090"]
count = 1
[machine]
disk = "12GB"
[price]
max = "$1/gpu-hour"
[budget]
total = "$40"
[data]
disposable = true
"#;

struct World {
    market: Child,
    address: String,
    directory: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.market.kill();
        let _ = self.market.wait();
    }
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut market = haggle(directory.path())
            .args([
                "market",
                "--json",
                "--listen",
                "127.0.0.1:0",
                "--speed",
                "600",
            ])
            .args(["--intensity", "0", "--failures", "0", "--token", TOKEN])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut document = String::new();
        let mut lines = BufReader::new(market.stdout.take().unwrap());
        let url = loop {
            assert_ne!(lines.read_line(&mut document).unwrap(), 0, "no market");
            if let Ok(read) = serde_json::from_str::<Value>(&document) {
                break read["vast_base_url"].as_str().unwrap().to_owned();
            }
        };
        fs::create_dir(directory.path().join("policies")).unwrap();
        fs::write(directory.path().join("policies/serve.toml"), POLICY).unwrap();
        let config = format!(
            "listen = \"127.0.0.1:0\"\n[provider]\nkind = \"vast\"\nbase_url = \"{url}\"\n\
             timeout = \"5s\"\n[poll]\nevery = \"1m\"\n"
        );
        fs::write(directory.path().join("haggle.toml"), config).unwrap();
        Self {
            market,
            address: url.strip_prefix("http://").unwrap().to_owned(),
            directory,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn haggle(&self, args: &[&str]) -> Command {
        let mut command = haggle(self.directory.path());
        command.env("HAGGLE_TOKEN", TOKEN).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.haggle(args).output().unwrap()
    }

    // ------------------------------------------------------------------------------- the market

    /// The market's own answer to a call; its rate limits hold here, too.
    fn api(&self, method: &str, path: &str, body: &str) -> Value {
        let mut answer = String::new();
        until("the market answers", || {
            answer = exchange(&self.address, method, path, body).unwrap();
            !answer.starts_with("HTTP/1.1 429")
        });
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|_| panic!("{method} {path}: {answer}"))
    }

    fn left(&self) -> BTreeSet<u64> {
        let listing = self.api("GET", "/api/v0/instances/", "");
        let rows = listing["instances"].as_array().unwrap();
        rows.iter().map(|row| row["id"].as_u64().unwrap()).collect()
    }

    /// Rents on demand under such labels, as somebody else would.
    fn rent(&self, labels: &[&str]) -> BTreeSet<u64> {
        let search = r#"{"type":"on-demand","limit":64,"num_gpus":{"eq":1}}"#;
        let found = self.api("POST", "/api/v0/bundles/", search);
        let offers = found["offers"].as_array().unwrap();
        // From the end of the list, where the daemon does not look for the cheapest.
        let rented = labels
            .iter()
            .zip(offers.iter().rev())
            .map(|(label, offer)| {
                let path = format!("/api/v0/asks/{}/", offer["id"]);
                let body =
                    format!(r#"{{"client_id":"me","image":"a/b:c","disk":10,"label":"{label}"}}"#);
                let made = self.api("PUT", &path, &body);
                made["new_contract"]
                    .as_u64()
                    .unwrap_or_else(|| panic!("{made}"))
            });
        rented.collect()
    }

    // ------------------------------------------------------------------------------- the daemon

    /// A live daemon that has rented. Its address, and what it holds.
    fn daemon(&self) -> (Running, String, BTreeSet<u64>) {
        let mut command = self.haggle(&["run", "--live", "--clock", "market"]);
        let mut daemon = Running::start(&mut command, self.directory.path(), "daemon");
        daemon.wait_to_say("/metrics");
        let told = fs::read_to_string(self.path("daemon.err")).unwrap();
        let (_, rest) = told.split_once("metrics at http://").unwrap();
        let address = rest.split('/').next().unwrap().to_owned();
        let mut held = BTreeSet::new();
        until("the daemon rents", || {
            held = numbers(&heartbeat_at(&address)["held"]);
            held.len() == 2
        });
        (daemon, address, held)
    }

    fn heartbeat_file(&self) -> Value {
        let text = fs::read(self.path("haggle.db.heartbeat")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Makes the database one that cannot be read.
    fn damage(&self) {
        fs::write(self.path("haggle.db"), "x".repeat(5000)).unwrap();
        // Its pages would be taken from there.
        for beside in ["haggle.db-wal", "haggle.db-shm"] {
            let _ = fs::remove_file(self.path(beside));
        }
    }

    /// A database of an installation that never rented.
    fn database(&self) -> String {
        let made = self.run(&["run", "--once"]);
        assert!(made.status.success(), "{}", text(&made.stderr));
        self.heartbeat_file()["installation"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

fn exchange(address: &str, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn heartbeat_at(address: &str) -> Value {
    let answer = exchange(address, "GET", "/heartbeat", "").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!answer.contains(TOKEN), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..LOOKS {
        if holds() {
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    panic!("never: {what}");
}

fn numbers(ids: &Value) -> BTreeSet<u64> {
    ids.as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap())
        .collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn signal(process: &Running, signal: &str) {
    let id = process.id().to_string();
    let sent = Command::new("kill").args([signal, &id]).status().unwrap();
    assert!(sent.success());
}

/// The alerts that a command wrote, one a line.
fn alerts(path: &Path) -> Vec<Value> {
    let told = fs::read_to_string(path).unwrap_or_default();
    assert!(!told.contains(TOKEN), "{told}");
    told.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn has(alerts: &[Value], kind: &str, course: &str) -> bool {
    alerts
        .iter()
        .any(|alert| alert["kind"] == kind && alert["course"] == course)
}

#[test]
fn what_a_hung_daemon_rented_is_destroyed_and_it_does_not_rent_again() {
    let world = World::new();
    let theirs = world.rent(&["hg-00000000-train-r0-1", "mine"]);
    let (mut daemon, address, held) = world.daemon();
    let mut guard = Running::start(
        // The tail keeps what the command is told apart, line by line.
        world
            .haggle(&[
                "guard",
                "--heartbeat",
                "haggle.db.heartbeat",
                "--database",
                "haggle.db",
            ])
            .args([
                "--every", "1m", "--after", "10m", "--then", "destroy", "--clock", "market",
            ])
            .args([
                "--json",
                "--on-alert",
                "cat >> alerts; echo >> alerts; env > variables",
            ]),
        world.directory.path(),
        "guard",
    );
    guard.wait_to_say("the daemon is live");
    signal(&daemon, "-STOP");
    let path = world.path("alerts");
    until("it is wound down", || {
        has(&alerts(&path), "wound-down", "happened")
    });
    assert_eq!(world.left(), theirs);
    let told = alerts(&path);
    assert!(has(&told, "daemon-silent", "begins"), "{told:?}");
    let wound = told
        .iter()
        .find(|alert| alert["kind"] == "wound-down")
        .unwrap();
    assert_eq!(numbers(&wound["held"]), held);
    let variables = fs::read_to_string(world.path("variables")).unwrap();
    assert!(
        !variables.contains(TOKEN),
        "the command has no use for the token"
    );
    // It wakes up, and is told by the file beside its database.
    signal(&daemon, "-CONT");
    until("the guard hears it", || {
        has(&alerts(&path), "daemon-silent", "over")
    });
    until("it is killed", || heartbeat_at(&address)["killed"] == true);
    let tick = heartbeat_at(&address)["tick"].as_u64().unwrap();
    until("it ticks on", || {
        heartbeat_at(&address)["tick"].as_u64() > Some(tick + 2)
    });
    assert_eq!(world.left(), theirs, "and rents nothing");
    guard.terminate();
    assert!(guard.wait().success());
    let document: Value =
        serde_json::from_slice(&fs::read(world.path("guard.out")).unwrap()).unwrap();
    assert_eq!(
        document["wound_down"]["kill_file_written"], true,
        "{document}"
    );
    assert!(daemon.is_alive());
}

/// Takes what is posted to it.
fn receiver() -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "http://{}/hook-4711/secret?sig=abc",
        listener.local_addr().unwrap()
    );
    let posted = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&posted);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while stream.read_line(&mut line).unwrap() > 2 {
                if let Some(told) = line.to_lowercase().strip_prefix("content-length:") {
                    length = told.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            shared.lock().unwrap().push_str(&text(&body));
            let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            stream.into_inner().write_all(answer).unwrap();
        }
    });
    (url, posted)
}

#[test]
fn a_daemon_that_was_killed_is_told_of_and_without_being_asked_nothing_is_touched() {
    let world = World::new();
    let (mut daemon, address, held) = world.daemon();
    let (hook, posted) = receiver();
    let mut guard = Running::start(
        world
            .haggle(&["guard", "--heartbeat", &format!("http://{address}")])
            .args(["--every", "1m", "--after", "10m", "--clock", "market"])
            .args(["--alert-url", &hook]),
        world.directory.path(),
        "guard",
    );
    guard.wait_to_say("the daemon is live");
    signal(&daemon, "-KILL");
    daemon.wait();
    until("it is told", || {
        posted.lock().unwrap().contains("daemon-silent")
    });
    assert_eq!(world.left(), held);
    guard.terminate();
    assert!(guard.wait().success());
    let said = fs::read_to_string(world.path("guard.err")).unwrap();
    assert!(
        said.contains("alert: daemon-silent") && said.contains("dollars an hour"),
        "{said}"
    );
    for said in [&said, &*posted.lock().unwrap()] {
        assert!(
            !said.contains("hook-4711") && !said.contains(TOKEN),
            "{said}"
        );
    }
    // The red button needs neither the daemon nor its database.
    world.damage();
    let killed = world.run(&["kill", "--yes", "--clock", "market", "--json"]);
    assert!(killed.status.success(), "{}", text(&killed.stderr));
    let document: Value = serde_json::from_slice(&killed.stdout).unwrap();
    assert_eq!(document["settled"], true);
    assert_eq!(document["kill_file_written"], true);
    assert_eq!(document["kill_recorded_in_database"], false);
    assert_eq!(world.left(), BTreeSet::new());
}

#[test]
fn a_timer_that_looks_once_parks_and_tells_when_the_daemon_is_back() {
    let world = World::new();
    let (daemon, _, held) = world.daemon();
    let look = || {
        let output = world.run(&[
            "guard",
            "--once",
            "--state",
            "guard.json",
            "--heartbeat",
            "haggle.db.heartbeat",
            "--after",
            "10m",
            "--then",
            "park",
            "--clock",
            "market",
            "--json",
            "--on-alert",
            "cat >> alerts; echo >> alerts",
        ]);
        let document: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
        (output.status.code(), document)
    };
    until("it is seen to live", || look().1["status"] == "alive");
    signal(&daemon, "-STOP");
    let mut looks = 0;
    let mut document = Value::Null;
    until("it is parked", || {
        looks += 1;
        let (code, seen) = look();
        assert_eq!(code == Some(2), seen["status"] == "silent", "{seen}");
        document = seen;
        document["wound_down"]["settled"] == true
    });
    assert!(looks >= 3, "one look proves nothing");
    assert_eq!(numbers(&document["wound_down"]["parked"]), held);
    assert_eq!(world.left(), held, "disks are kept");
    let told = alerts(&world.path("alerts"));
    let wound = told
        .iter()
        .find(|alert| alert["kind"] == "wound-down")
        .unwrap();
    assert!(
        wound["text"].as_str().unwrap().contains("go on billing 0."),
        "{wound}"
    );
    assert!(!world.path("haggle.db.killed").exists());
    signal(&daemon, "-CONT");
    until("it is seen to live again", || look().1["status"] == "alive");
    assert!(has(&alerts(&world.path("alerts")), "daemon-silent", "over"));
}

#[test]
fn a_server_that_answers_while_its_loop_hangs_is_no_life() {
    let world = World::new();
    let installation = world.database();
    let heartbeat = fs::read_to_string(world.path("haggle.db.heartbeat")).unwrap();
    let url = serve(vec![heartbeat]);
    let mut seen = Value::Null;
    until("it is dead", || {
        let output = world.run(&[
            "guard",
            "--once",
            "--state",
            "guard.json",
            "--heartbeat",
            &url,
            "--after",
            "10m",
            "--clock",
            "market",
            "--json",
        ]);
        seen = serde_json::from_slice(&output.stdout).unwrap();
        output.status.code() == Some(2)
    });
    assert_eq!(seen["installation"], installation.as_str());
    assert_eq!(seen["why"], "its tick does not move");
    assert_eq!(seen["live"], false);
}

#[test]
fn the_red_button_works_though_the_database_does_not_and_says_what_would_rent_again() {
    let world = World::new();
    let installation = world.database();
    let near = format!("hg-{}", &installation[..7]);
    let theirs = world.rent(&[
        "hg-00000000-a-r0-1",
        &format!("{near}-a-r0-1"),
        &near,
        "hg-",
        "",
    ]);
    let ours = |intent: u32| format!("hg-{installation}-a-r0-{intent}");
    let kill = || {
        let output = world.run(&["kill", "--yes", "--clock", "market", "--json"]);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(world.left(), theirs, "{said}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["settled"], true);
        assert_eq!(document["destroyed"].as_array().unwrap().len(), 1);
        (document, said)
    };
    // Another process writes, and does not end.
    world.rent(&[&ours(1)]);
    let writer = rusqlite::Connection::open(world.path("haggle.db")).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (document, said) = kill();
    assert_eq!(document["kill_recorded_in_database"], false);
    assert_eq!(
        document["daemon_elsewhere_would_rent"], false,
        "the file tells it"
    );
    assert!(said.contains("locked"), "{said}");
    drop(writer);
    // Damaged, and the file cannot be written either.
    world.rent(&[&ours(2)]);
    fs::remove_file(world.path("haggle.db.killed")).unwrap();
    fs::create_dir(world.path("haggle.db.killed.new")).unwrap();
    world.damage();
    let (document, said) = kill();
    assert_eq!(document["daemon_elsewhere_would_rent"], true);
    assert!(said.contains("going on without the database"), "{said}");
    assert!(said.contains("would rent again: stop it"), "{said}");
    // Not there at all, on another machine: there is nobody here to be told.
    world.rent(&[&ours(3)]);
    let elsewhere = tempfile::tempdir().unwrap();
    fs::copy(
        world.path("haggle.toml"),
        elsewhere.path().join("haggle.toml"),
    )
    .unwrap();
    let output = haggle(elsewhere.path())
        .env("HAGGLE_TOKEN", TOKEN)
        .args([
            "kill",
            "--yes",
            "--clock",
            "market",
            "--installation",
            &installation,
        ])
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("one that lives elsewhere would rent again"),
        "{said}"
    );
    assert!(
        !text(&output.stdout).contains("spending is forbidden"),
        "{said}"
    );
    assert_eq!(world.left(), theirs, "{said}");
}

/// Says what a heartbeat is to be, request by request; the last again and again.
fn serve(heartbeats: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (asked, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let heartbeat = &heartbeats[asked.min(heartbeats.len() - 1)];
            let length = heartbeat.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{heartbeat}"
            );
        }
    });
    format!("http://{address}/heartbeat")
}

#[test]
fn before_it_touches_anything_the_guard_makes_sure() {
    let world = World::new();
    let installation = world.database();
    let ours = world.rent(&[&format!("hg-{installation}-a-r0-1")]);
    let mut heartbeat = world.heartbeat_file();
    let account = world.api("GET", "/api/v0/users/current/", "")["id"]
        .as_u64()
        .unwrap();
    // A day of silence was seen already, so that the next look acts.
    let look = |last: &Value, source: &str, base: Option<&str>| {
        let state = serde_json::json!({"last": last, "silent_ms": 86_400_000});
        fs::write(world.path("guard.json"), state.to_string()).unwrap();
        let mut command = world.haggle(&["guard", "--once", "--state", "guard.json"]);
        command.args(["--heartbeat", source, "--then", "destroy"]);
        if let Some(base) = base {
            command.env("HAGGLE_PROVIDER__BASE_URL", base);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        assert_eq!(world.left(), ours, "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let beat = "haggle.db.heartbeat";
    let said = look(&Value::Null, "nowhere", None);
    assert!(said.contains("not known what is ours"), "{said}");
    let mut unsaid = heartbeat.clone();
    unsaid["account"] = Value::Null;
    fs::write(world.path("unsaid"), unsaid.to_string()).unwrap();
    let said = look(&unsaid, "unsaid", None);
    assert!(said.contains("never said on which account"), "{said}");
    heartbeat["account"] = (account + 1).into();
    let said = look(&heartbeat, "gone", None);
    assert!(
        said.contains(&format!("belongs to account {account}")),
        "{said}"
    );
    heartbeat["account"] = account.into();
    fs::write(world.path(beat), heartbeat.to_string()).unwrap();
    let said = look(&heartbeat, beat, Some("http://127.0.0.1:9"));
    assert!(
        said.contains("alert: cannot-act") && said.contains("cannot be reached"),
        "{said}"
    );
    // It comes back at the last moment: before anything was asked, and after all was read.
    for still in [1, 2] {
        let mut alive = heartbeat.clone();
        alive["tick"] = (heartbeat["tick"].as_u64().unwrap() + 1).into();
        let mut told = vec![heartbeat.to_string(); still];
        told.push(alive.to_string());
        let said = look(&heartbeat, &serve(told), None);
        assert!(
            said.contains("ticks after all: nothing is touched"),
            "{said}"
        );
    }
}

#[test]
fn what_the_user_gets_wrong_is_told_in_a_line() {
    let world = World::new();
    fs::write(world.path("beat"), "not one").unwrap();
    for (args, words) in [
        (
            &["--heartbeat", "ftp://box/heartbeat"][..],
            "http://127.0.0.1:9464/heartbeat",
        ),
        (
            &["--heartbeat", "beat", "--after", "1m"],
            "make --after longer",
        ),
        (&["--heartbeat", "beat", "--once"], "--state"),
        (
            &["--heartbeat", "beat", "--alert-url", "env:NOT_THERE"],
            "NOT_THERE is not set",
        ),
        (
            &[
                "--heartbeat",
                "beat",
                "--alert-url",
                "http://example.com/s3cret",
            ],
            "https://",
        ),
    ] {
        let mut all = vec!["guard"];
        all.extend(args);
        let output = world.run(&all);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words) && !said.contains("s3cret"), "{said}");
    }
    let mut without = haggle(world.directory.path());
    let without = without.args(["guard", "--heartbeat", "beat", "--then", "destroy"]);
    let said = text(&without.output().unwrap().stderr);
    assert!(said.contains("HAGGLE_TOKEN"), "{said}");
}
