//! What a user, or the world, gets wrong: one message that says what would be right, and an exit
//! code that says who can mend it: 1 the user, 2 nobody here.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rusqlite::Connection;
use tempfile::TempDir;

use crate::support::{Gateway, POLICY, Running, haggle, set_up};

const TOKEN: &str = "at_right";

/// A directory with a configuration for a gateway and one policy.
fn directory(base_url: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    set_up(directory.path(), base_url, POLICY);
    directory
}

/// An address at which nobody listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/vastai", listener.local_addr().unwrap())
}

fn run(directory: &Path, token: &str, args: &[&str]) -> Output {
    haggle(directory)
        .args(args)
        .env("HAGGLE_TOKEN", token)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// One error, told once, with these words in what is told, and nothing of the program's inside.
#[track_caller]
fn assert_told(output: &Output, code: i32, words: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    let errors = text.lines().filter(|line| line.starts_with("error:"));
    assert_eq!(errors.count(), 1, "{text}");
    for inside in ["panicked", "backtrace", "RUST_BACKTRACE", "Error(", "Os {"] {
        assert!(!text.contains(inside), "{inside}: {text}");
    }
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(output.stdout.is_empty(), "errors go to stderr");
}

// ---------------------------------------------------------------------------------------- policies

/// One mistake a line: a name, a number, an unknown key, a count, a unit.
const FIVE_MISTAKES: &str = r#"name = "Bad Name"
replicas = "two"
colour = "blue"
[run]
image = "pytorch/pytorch:2.4"
[gpu]
models = ["RTX 4090"]
count = 0
[price]
max = "0.45"
[data]
disposable = true
"#;

#[test]
fn five_mistakes_in_a_policy_are_told_at_once_each_with_its_place() {
    let directory = directory(&nowhere());
    fs::write(directory.path().join("policies/train.toml"), FIVE_MISTAKES).unwrap();
    let output = run(directory.path(), TOKEN, &["check"]);
    assert_eq!(output.status.code(), Some(1));
    let shown = String::from_utf8(output.stdout).unwrap();
    for place in [
        "train.toml:1:8",
        "train.toml:2:12",
        "train.toml:3:1",
        "train.toml:8:9",
        "train.toml:10:7",
    ] {
        assert!(shown.contains(place), "{place}: {shown}");
    }
    // Whoever rents by it is warned and sent to `check`; the daemon itself goes on without it.
    let plan = run(directory.path(), TOKEN, &["plan"]);
    assert_told(
        &plan,
        2,
        &[
            "warning: policies/train.toml cannot be used",
            "haggle check",
        ],
    );
}

#[test]
fn without_policies_there_is_nothing_to_do() {
    let directory = directory(&nowhere());
    fs::remove_dir_all(directory.path().join("policies")).unwrap();
    for args in [&["run"][..], &["plan"], &["offers"], &["check"]] {
        let output = run(directory.path(), TOKEN, args);
        assert_told(
            &output,
            1,
            &["no directory of policies at policies", "hint: "],
        );
    }
}

// ------------------------------------------------------------------------------------------ tokens

#[test]
fn a_wrong_token_is_the_users_to_mend() {
    let gateway = Gateway::plain(Some(TOKEN));
    for (token, status) in [("at_wrong", "(403)"), ("no_gateway_token", "(401)")] {
        let directory = directory(&gateway.base_url);
        for args in [
            &["run"][..],
            &["run", "--live"],
            &["run", "--once"],
            &["run", "--once", "--live"],
            &["plan"],
            &["offers"],
            &["kill", "--yes", "--installation", "abcd1234"],
        ] {
            let output = run(directory.path(), token, args);
            let words = ["token was refused", status, "hint: ", "provider.token"];
            assert_told(&output, 1, &words);
            assert!(!stderr(&output).contains(token), "{}", stderr(&output));
        }
        let doctor = run(directory.path(), token, &["doctor"]);
        assert_eq!(doctor.status.code(), Some(1), "{}", stderr(&doctor));
        let findings = String::from_utf8(doctor.stdout).unwrap();
        assert!(findings.contains("token was refused"), "{findings}");
    }
}

#[test]
fn a_token_that_is_missing_or_written_down_is_told_with_where_it_belongs() {
    let gateway = Gateway::plain(Some(TOKEN));
    let directory = directory(&gateway.base_url);
    for args in [&["run"][..], &["plan"]] {
        let output = haggle(directory.path()).args(args).output().unwrap();
        assert_told(&output, 1, &["HAGGLE_TOKEN is not set", "hint: "]);
    }
    let output = run(directory.path(), " ", &["plan"]);
    assert_told(&output, 1, &["HAGGLE_TOKEN is empty"]);
    let output = haggle(directory.path())
        .arg("plan")
        .env("HAGGLE_PROVIDER__TOKEN", "at_inline")
        .output()
        .unwrap();
    assert_told(&output, 1, &["HAGGLE_PROVIDER__TOKEN", "env", "file"]);
    assert!(!stderr(&output).contains("at_inline"));
}

#[test]
fn another_accounts_token_is_refused_before_anything_is_done() {
    let gateway = Gateway::plain(None);
    let directory = directory(&gateway.base_url);
    let first = run(directory.path(), "at_one", &["run", "--once"]);
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    for args in [
        &["run"][..],
        &["run", "--live"],
        &["run", "--once", "--live"],
        &["plan"],
        &["offers"],
    ] {
        let output = run(directory.path(), "at_two", args);
        let words = [
            "belongs to account",
            "bound to account",
            "hint: ",
            "--database",
        ];
        assert_told(&output, 1, &words);
    }
    let again = run(directory.path(), "at_one", &["run", "--once"]);
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
}

// --------------------------------------------------------------------------------------- the world

#[test]
fn an_unreachable_gateway_is_the_worlds_fault() {
    let directory = directory(&nowhere());
    for args in [&["plan"][..], &["offers"], &["run", "--once"]] {
        let output = run(directory.path(), TOKEN, args);
        let words = ["cannot be reached", "hint: ", "provider.base_url"];
        assert_told(&output, 2, &words);
    }
}

#[test]
fn a_gateway_that_does_not_answer_is_given_up() {
    // The system takes connections for a listener that never looks at them.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("http://{}/vastai", listener.local_addr().unwrap());
    let directory = directory(&base_url);
    let output = haggle(directory.path())
        .arg("plan")
        .env("HAGGLE_TOKEN", TOKEN)
        .env("HAGGLE_PROVIDER__TIMEOUT", "1s")
        .output()
        .unwrap();
    assert_told(&output, 2, &["no reply within 1 s", "hint: "]);
}

#[test]
fn what_is_no_gateway_is_told_so() {
    let page = |_, _: &haggle::ports::Request| {
        Some(haggle::ports::Reply {
            status: 200,
            headers: vec![("content-type".to_owned(), "text/html".to_owned())],
            body: "<html>Welcome</html>".into(),
        })
    };
    let gateway = Gateway::start(None, Box::new(page));
    let directory = directory(&gateway.base_url);
    let output = run(directory.path(), TOKEN, &["plan"]);
    assert_told(
        &output,
        2,
        &["a page of HTML", "hint: ", "provider.base_url"],
    );
}

#[test]
fn the_daemon_waits_for_a_gateway_that_is_away_and_ends_when_told() {
    let directory = directory(&nowhere());
    let mut child = haggle(directory.path())
        .args(["run", "--live"])
        .env("HAGGLE_TOKEN", TOKEN)
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let warning = lines
        .by_ref()
        .map(Result::unwrap)
        .find(|line| line.contains("cannot be reached"))
        .expect("the daemon says why it does nothing");
    assert!(warning.contains("WARN"), "{warning}");
    assert!(warning.contains("tries again"), "{warning}");
    let mut daemon = Running::of(child);
    assert!(daemon.is_alive());
    daemon.terminate();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(daemon.wait().code(), Some(0), "{rest:?}");
    assert!(
        !rest
            .iter()
            .any(|line| line.starts_with("error:") || line.contains("panicked")),
        "{rest:?}"
    );
}

// ------------------------------------------------------------------------------------ the database

#[test]
fn a_database_of_a_newer_version_is_left_alone() {
    let gateway = Gateway::plain(None);
    let directory = directory(&gateway.base_url);
    let first = run(directory.path(), TOKEN, &["run", "--once"]);
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    let database = directory.path().join("haggle.db");
    let connection = Connection::open(&database).unwrap();
    connection
        .execute(
            "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
             VALUES (999, 'later', '2031-01-01T00:00:00Z', '1')",
            [],
        )
        .unwrap();
    drop(connection);
    for args in [
        &["run"][..],
        &["run", "--once"],
        &["run", "--live"],
        &["plan"],
        &["jobs"],
        &["instances"],
        &["spend"],
        &["explain", "train"],
        &["pause", "train"],
        &["resume", "--all"],
    ] {
        let output = run(directory.path(), TOKEN, args);
        let words = [
            "schema version 999",
            "newer than this haggle",
            "hint: ",
            "update haggle",
        ];
        assert_told(&output, 1, &words);
    }
    let doctor = run(directory.path(), TOKEN, &["doctor"]);
    assert_eq!(doctor.status.code(), Some(1), "{}", stderr(&doctor));
}

#[test]
fn what_is_no_database_is_not_touched() {
    let gateway = Gateway::plain(None);
    let directory = directory(&gateway.base_url);
    let database = directory.path().join("haggle.db");
    let text = "Dear diary, this is a text and no database at all.\n".repeat(100);
    fs::write(&database, &text).unwrap();
    for args in [&["run", "--once"][..], &["jobs"], &["pause", "train"]] {
        let output = run(directory.path(), TOKEN, args);
        assert_told(&output, 2, &["haggle.db", "damaged", "hint: "]);
    }
    assert_eq!(fs::read_to_string(&database).unwrap(), text);
}

#[test]
fn a_second_daemon_on_a_database_is_refused() {
    let gateway = Gateway::plain(None);
    let directory = directory(&gateway.base_url);
    let mut command = haggle(directory.path());
    command.arg("run").env("HAGGLE_TOKEN", TOKEN);
    let mut daemon = Running::start(&mut command, directory.path(), "first");
    gateway.wait_until("the first daemon polls", |requests| requests >= 2);
    let process = format!("process {}", daemon.id());
    for args in [&["run"][..], &["run", "--once"], &["run", "--live"]] {
        let output = run(directory.path(), TOKEN, args);
        let words = ["another haggle daemon", &process, "hint: ", "--database"];
        assert_told(&output, 1, &words);
    }
    // What only reads works beside it.
    let jobs = run(directory.path(), TOKEN, &["jobs"]);
    assert_eq!(jobs.status.code(), Some(0), "{}", stderr(&jobs));
    daemon.terminate();
    assert_eq!(daemon.wait().code(), Some(0));
    let next = run(directory.path(), TOKEN, &["run", "--once"]);
    assert_eq!(next.status.code(), Some(0), "{}", stderr(&next));
}

/// Runs a shell line in a namespace of its own where `full` is a file system of a given size. A
/// user may do this too, where the system lets users have namespaces.
fn with_small_disk(directory: &Path, kilobytes: u32, line: &str) -> Command {
    let mount = format!("mount -t tmpfs -o size={kilobytes}k none full && {line}");
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount])
        .current_dir(directory);
    command
}

#[test]
fn a_full_disk_is_told_as_one() {
    let gateway = Gateway::plain(None);
    let directory = directory(&gateway.base_url);
    fs::create_dir(directory.path().join("full")).unwrap();
    let possible = with_small_disk(directory.path(), 64, "true").output();
    if !possible.is_ok_and(|output| output.status.success()) {
        // A small file system cannot be had here without more rights than a test should need. What
        // the store makes of SQLite's "full" is tested beside it; here it is only not seen whole.
        println!("skipped: no namespaces, so no small file system");
        return;
    }
    let haggle = env!("CARGO_BIN_EXE_haggle");
    let mut ends = Vec::new();
    // From a disk on which nothing fits, over one that takes the lock, the schema, or part of the
    // market, to one that takes it all.
    for kilobytes in [4, 8, 16, 64, 128, 256, 384, 512, 768, 1024, 16384] {
        let line = format!("exec {haggle} run --once --database full/haggle.db");
        let output = with_small_disk(directory.path(), kilobytes, &line)
            .env("HAGGLE_TOKEN", TOKEN)
            .env("RUST_BACKTRACE", "1")
            .output()
            .unwrap();
        let code = output.status.code();
        println!("{kilobytes} KB: {code:?} {}", stderr(&output));
        if code != Some(0) {
            assert_told(&output, 1, &["full", "hint: free some space"]);
        }
        ends.push((kilobytes, code));
    }
    let full = ends.iter().filter(|(_, code)| *code == Some(1)).count();
    assert!(full >= 3, "{ends:?}");
    assert_eq!(ends.last(), Some(&(16384, Some(0))));
}

/// A limit on the size of files is not a full disk, and SQLite tells it as a failed write; what
/// matters is that nothing panics and that the end is clear.
#[test]
fn a_limit_on_file_sizes_ends_with_one_error() {
    let gateway = Gateway::plain(None);
    let directory = directory(&gateway.base_url);
    // The signal that would kill the process is ignored, so that the write fails instead. The unit
    // is 512 bytes or a kilobyte, by the shell.
    let haggle = env!("CARGO_BIN_EXE_haggle");
    let line = format!("trap '' XFSZ; ulimit -f 200; exec {haggle} run --once");
    let output = Command::new("sh")
        .args(["-c", &line])
        .current_dir(directory.path())
        .env("HAGGLE_TOKEN", TOKEN)
        .output()
        .unwrap();
    assert_told(
        &output,
        2,
        &["the database failed", "disk I/O error", "quota"],
    );
}

// ------------------------------------------------------------------------------------------- words

#[test]
fn what_is_configured_wrong_is_told_with_what_would_be_right() {
    let directory = directory(&nowhere());
    for (variable, value, words) in [
        (
            "HAGGLE_DATABSE",
            "x.db",
            &[
                "HAGGLE_DATABSE names no key",
                "did you mean HAGGLE_DATABASE?",
            ][..],
        ),
        ("HAGGLE_LIVE", "perhaps", &["HAGGLE_LIVE", "`live`"]),
        (
            "HAGGLE_POLL__EVERY",
            "1s",
            &["`poll.every` must be from 10s to 1h"],
        ),
        (
            "HAGGLE_PROVIDER__KIND",
            "ec2",
            &["`provider.kind`", "\"lowcodeapi\""],
        ),
        ("HAGGLE_TIMEZONE", "Mars/Olympus", &["`timezone`"]),
        (
            "HAGGLE_PROVIDER__BASE_URL",
            "https://gw.example/vastai?api_token=at_secret",
            &["`provider.base_url` must be http:// or https://"],
        ),
        (
            "HAGGLE_PROVIDER__BASE_URL",
            "http://gw.example/vastai",
            &["travel in clear; use https://"],
        ),
    ] {
        let output = haggle(directory.path())
            .arg("plan")
            .env("HAGGLE_TOKEN", TOKEN)
            .env(variable, value)
            .output()
            .unwrap();
        assert_told(&output, 1, words);
        assert!(!stderr(&output).contains("at_secret"));
    }
    let file = directory.path().join("haggle.toml");
    for (text, words) in [
        (
            "databse = \"x.db\"\n",
            &["databse", "did you mean `database`?"][..],
        ),
        (
            "[provider]\nbase_url = \n",
            &["haggle.toml:2:", "this is not TOML"],
        ),
        ("[limits]\nper_day = 5\n", &["limits.per_day"]),
    ] {
        fs::write(&file, text).unwrap();
        let output = run(directory.path(), TOKEN, &["plan"]);
        assert_told(&output, 1, words);
    }
    let output = run(
        directory.path(),
        TOKEN,
        &["plan", "--config", "absent.toml"],
    );
    assert_told(&output, 1, &["absent.toml cannot be read"]);
}

#[test]
fn what_is_asked_wrong_is_told_with_what_would_be_right() {
    let directory = directory(&nowhere());
    for (args, words) in [
        (
            &["market", "--faults", "5xx=2"][..],
            &["--faults", "`2` is not a percentage", "`5xx=2%`"][..],
        ),
        (
            &["market", "--faults", "gremlins=2%"],
            &["there is no fault `gremlins`"],
        ),
        (&["market", "--speed", "0"], &["--speed", "over 0"]),
        (&["market", "--speed", "NaN"], &["--speed", "over 0"]),
        (&["market", "--balance", "much"], &["--balance"]),
        (&["market", "--listen", "here"], &["--listen"]),
        (&["market", "--offers", "absent.csv"], &["absent.csv"]),
        (&["demo", "--speed", "0"], &["--speed"]),
        (&["run", "--listen", "9464"], &["--listen"]),
        (&["offers", "train", "--limit", "0"], &["--limit"]),
        (&["spend", "--by", "moon"], &["--by", "gpu"]),
        (&["pause", "Not A Job"], &["Not A Job"]),
    ] {
        let output = run(directory.path(), TOKEN, args);
        assert_told(&output, 1, words);
    }
}

#[test]
fn an_address_that_is_taken_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let gateway = Gateway::plain(None);
    let directory = directory(&gateway.base_url);
    for command in ["run", "market"] {
        let output = run(directory.path(), TOKEN, &[command, "--listen", &address]);
        assert_told(&output, 1, &["cannot listen on", "hint: ", "--listen"]);
    }
}
