//! Copies of the database, as a user makes them and puts them back, and a daemon whose database
//! cannot be written for a while, as processes.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may stop")]
#![allow(clippy::print_stdout, reason = "a test says what it skips")]

use std::fs;
use std::path::Path;
use std::process::Output;

use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Gateway, POLICY, Running, haggle, set_up};

const TOKEN: &str = "at_right";

fn directory(gateway: &Gateway) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    set_up(directory.path(), &gateway.base_url, POLICY);
    directory
}

fn run(directory: &Path, args: &[&str]) -> Output {
    haggle(directory)
        .args(args)
        .env("HAGGLE_TOKEN", TOKEN)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn daemon(directory: &Path, name: &str) -> Running {
    let mut command = haggle(directory);
    command.arg("run").env("HAGGLE_TOKEN", TOKEN);
    Running::start(&mut command, directory, name)
}

#[test]
fn a_copy_is_made_beside_the_daemon_and_put_back_without_it() {
    let gateway = Gateway::plain(None);
    let directory = directory(&gateway);
    let directory = directory.path();
    let early = run(directory, &["backup"]);
    assert_eq!(early.status.code(), Some(1));
    assert!(stderr(&early).contains("no database"), "{}", stderr(&early));

    let mut first = daemon(directory, "first");
    gateway.wait_until("the daemon polls", |requests| requests >= 3);
    let made = json(&run(directory, &["backup", "copy.db", "--json"]));
    for key in [
        "installation",
        "schema_version",
        "ticks",
        "posted_dollars",
        "bytes",
    ] {
        assert!(!made[key].is_null(), "{key}: {made}");
    }
    let again = run(directory, &["backup", "copy.db"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("--force"), "{}", stderr(&again));
    let forced = json(&run(directory, &["backup", "copy.db", "--force", "--json"]));
    let refused = run(directory, &["restore", "copy.db"]);
    assert_eq!(refused.status.code(), Some(1));
    let told = stderr(&refused);
    assert!(told.contains(&format!("process {}", first.id())), "{told}");
    first.terminate();
    assert_eq!(first.wait().code(), Some(0));

    let back = json(&run(directory, &["restore", "copy.db", "--json"]));
    assert_eq!(back["installation"], forced["installation"]);
    assert_eq!(back["ticks"], forced["ticks"]);
    let aside = back["set_aside"].as_str().unwrap();
    assert!(aside.ends_with(".before-restore-1"), "{aside}");
    assert!(directory.join("haggle.db.before-restore-1").exists());
    // The daemon takes it and knows what it is.
    let next = run(directory, &["run", "--once"]);
    assert_eq!(next.status.code(), Some(0), "{}", stderr(&next));
    let events = Connection::open(directory.join("haggle.db")).unwrap();
    let text: String = events
        .query_row(
            "SELECT text FROM events WHERE kind = 'database-older'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert!(text.contains("restored from copy.db"), "{text}");
}

#[test]
fn a_copy_without_a_name_gets_one_that_says_when() {
    let gateway = Gateway::plain(None);
    let directory = directory(&gateway);
    let first = run(directory.path(), &["run", "--once"]);
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    let made = json(&run(directory.path(), &["backup", "--json"]));
    let file = made["file"].as_str().unwrap();
    assert!(file.contains(".backup-20"), "{file}");
    let bytes = fs::metadata(directory.path().join(file)).unwrap().len();
    assert_eq!(made["bytes"].as_u64(), Some(bytes));
}

#[test]
fn a_daemon_waits_out_a_lock_of_another_process_and_says_so() {
    let gateway = Gateway::plain(None);
    let directory = directory(&gateway);
    let database = directory.path().join("haggle.db");
    let mut command = haggle(directory.path());
    command
        .arg("run")
        .env("HAGGLE_TOKEN", TOKEN)
        .env("HAGGLE_POLL__EVERY", "10s");
    let mut daemon = Running::start(&mut command, directory.path(), "locked");
    gateway.wait_until("the daemon polls", |requests| requests >= 3);
    let other = Connection::open(&database).unwrap();
    other
        .busy_timeout(std::time::Duration::from_secs(20))
        .unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    daemon.wait_to_say("spending stops");
    other.execute_batch("ROLLBACK").unwrap();
    daemon.wait_to_say("works again");
    assert!(daemon.is_alive());
    daemon.terminate();
    assert_eq!(daemon.wait().code(), Some(0));
}
