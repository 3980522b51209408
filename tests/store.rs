//! The store as the daemon and the other processes use it: real files, real crashes.

#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod common;
mod history;
mod snapshots;
mod strategies;

use common::*;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use strategies::*;

use proptest::prelude::*;

use haggle::ports::{Store, StoreError};
use haggle::store::{
    DaemonLock, EntryFilter, LockError, Reader, SqliteStore, append_request, clear_kill_file,
    installation_file, kill_file_present, set_kill_file,
};
use haggle::types::ids::Installation;
use haggle::types::ledger::Component;
use haggle::types::state::{Ask, Change, State, Wish};
use haggle::types::time::Time;

// ---------------------------------------------------------------------------------------- the state

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_loaded_is_the_fold_of_what_was_committed(batches in any_batches()) {
        let mut store = memory();
        let mut state = store.load().unwrap();
        for batch in &batches {
            store.commit(batch).unwrap();
            state = fold(state, batch);
            prop_assert_eq!(&store.load().unwrap(), &state);
        }
        // A journal keeps it as JSON.
        let json = serde_json::to_string(&state).unwrap();
        prop_assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
    }
}

proptest! {
    // To disk, which costs more.
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_reopened_database_and_a_reader_know_the_same(batches in any_batches()) {
        let home = Home::new();
        let mut store = home.open();
        let mut state = store.load().unwrap();
        for batch in &batches {
            store.commit(batch).unwrap();
            state = fold(state, batch);
        }
        prop_assert_eq!(&home.read().state().unwrap(), &state);
        drop(store);
        prop_assert_eq!(&home.read().state().unwrap(), &state);
        prop_assert_eq!(&home.open().load().unwrap(), &state);
    }
}

#[test]
fn a_batch_is_taken_whole_or_not_at_all() {
    let home = Home::new();
    let mut store = home.open();
    let before = store.load().unwrap();
    // The third change of the batch is refused, by a trigger that the test puts there.
    let other = rusqlite::Connection::open(home.database()).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER no_disk BEFORE INSERT ON entries WHEN NEW.component = 'disk'
             BEGIN SELECT RAISE(ABORT, 'refused by the test'); END",
        )
        .unwrap();
    let batch = [
        spent(1, "train", 1, Component::Gpu, 5),
        Change::Held(Box::new(held(1, "H100", 0))),
        spent(1, "train", 1, Component::Disk, 5),
    ];
    let error = store.commit(&batch).unwrap_err();
    assert!(matches!(&error, StoreError::Other(text) if text.contains("refused by the test")));
    assert_eq!(store.load().unwrap(), before);
    assert_eq!(home.read().entries(&EntryFilter::default()).unwrap(), []);
    store.commit(&batch[..2]).unwrap();
    assert_eq!(store.load().unwrap(), fold(before, &batch[..2]));
}

// ------------------------------------------------------------------------------------------ crashes

fn state_after(start: &State, batches: u64) -> State {
    let changes: Vec<Change> = (1..=batches).flat_map(numbered_batch).collect();
    fold(start.clone(), &changes)
}

/// Wherever a power cut tears the log, what is loaded is what some number of whole batches made.
#[test]
fn a_torn_log_loses_whole_batches_from_the_end() {
    const BATCHES: u64 = 12;
    let home = Home::new();
    let mut store = home.open();
    let start = store.load().unwrap();
    for number in 1..=BATCHES {
        store.commit(&numbered_batch(number)).unwrap();
    }
    // The files as they are on disk while the daemon runs.
    let beside = |end: &str| PathBuf::from(format!("{}{end}", home.database().display()));
    let database = std::fs::read(home.database()).unwrap();
    let log = std::fs::read(beside("-wal")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for twentieth in 0..=20 {
        let torn = Home::new();
        let cut = log.len() * twentieth / 20;
        std::fs::write(torn.database(), &database).unwrap();
        std::fs::write(format!("{}-wal", torn.database().display()), &log[..cut]).unwrap();
        let opened = SqliteStore::open(&torn.database(), Some(start.installation.clone()), 1);
        let state = opened.unwrap().load().unwrap();
        assert!(state == state_after(&start, state.ticks), "cut at {cut}");
        seen.insert(state.ticks);
    }
    assert!(seen.len() > 3 && seen.last() == Some(&BATCHES), "{seen:?}");
}

/// The test runs itself as a child, which commits until it is killed.
#[test]
fn a_killed_process_forgets_nothing_that_it_was_told_is_durable() {
    const CHILD: &str = "HAGGLE_TEST_COMMITS";
    if let Some(path) = std::env::var_os(CHILD) {
        let mut store = SqliteStore::open(Path::new(&path), None, SEED).unwrap();
        for number in 1.. {
            store.commit(&numbered_batch(number)).unwrap();
            writeln!(std::io::stdout(), "\ncommitted {number}").unwrap();
        }
    }
    let home = Home::new();
    let start = home.open().load().unwrap();
    let mut child = again("a_killed_process_forgets_nothing_that_it_was_told_is_durable")
        .env(CHILD, home.database())
        .spawn()
        .unwrap();
    let told = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .filter_map(|line| {
            line.unwrap()
                .strip_prefix("committed ")?
                .parse::<u64>()
                .ok()
        })
        .find(|&number| number >= 25)
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let state = home.open().load().unwrap();
    assert!(state.ticks >= told);
    assert_eq!(state, state_after(&start, state.ticks));
}

#[test]
fn a_killed_daemons_lock_is_free() {
    const CHILD: &str = "HAGGLE_TEST_LOCKS";
    if let Some(path) = std::env::var_os(CHILD) {
        let _lock = DaemonLock::acquire(Path::new(&path)).unwrap();
        writeln!(std::io::stdout(), "\nlocked").unwrap();
        // Until it is killed: its input stays open and empty.
        std::io::stdin().lines().for_each(drop);
    }
    let home = Home::new();
    let mut child = again("a_killed_daemons_lock_is_free")
        .env(CHILD, home.database())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "locked"));
    let refused = DaemonLock::acquire(&home.database()).unwrap_err();
    assert!(matches!(refused, LockError::Held { pid: Some(pid), .. } if pid == child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    DaemonLock::acquire(&home.database()).unwrap();
}

/// One test of this file, in a process of its own.
fn again(test: &str) -> Command {
    let (_, file) = module_path!().split_once("::").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", &format!("{file}::{test}"), "--nocapture"])
        .stdout(Stdio::piped());
    command
}

// ------------------------------------------------------------------------- installation, kill switch

#[test]
fn the_installation_outlives_the_database() {
    let home = Home::new();
    let first = home.open().load().unwrap().installation;
    assert_eq!(first, Installation::from_seed(SEED));
    std::fs::remove_file(home.database()).unwrap();
    let again = SqliteStore::open(&home.database(), None, SEED + 1);
    assert_eq!(again.unwrap().load().unwrap().installation, first);
    // And the file comes back where it was lost.
    std::fs::remove_file(installation_file(&home.database())).unwrap();
    home.open();
    let file = std::fs::read_to_string(installation_file(&home.database())).unwrap();
    assert_eq!(file.trim(), first.as_str());
}

#[test]
fn installations_that_differ_are_refused() {
    let home = Home::new();
    let hint: Installation = "abcd1234".parse().unwrap();
    let open = |hint| SqliteStore::open(&home.database(), hint, SEED);
    let opened = open(Some(hint.clone())).unwrap().load().unwrap();
    assert_eq!(opened.installation, hint);
    let error = open(Some("zzzz9999".parse().unwrap())).unwrap_err();
    assert!(error.to_string().contains("abcd1234"), "{error}");
    assert!(error.to_string().contains("zzzz9999"), "{error}");
    std::fs::write(installation_file(&home.database()), "other111\n").unwrap();
    let error = open(None).unwrap_err().to_string();
    assert!(
        error.contains("other111") && error.contains("abcd1234"),
        "{error}"
    );
    std::fs::write(installation_file(&home.database()), "abcd1234\n").unwrap();
    open(Some(hint)).unwrap();
}

#[test]
fn killed_in_either_place_is_killed() {
    let home = Home::new();
    let mut store = home.open();
    assert!(!store.load().unwrap().killed);
    // By another process, in the file.
    set_kill_file(&home.database()).unwrap();
    assert!(store.load().unwrap().killed);
    assert!(home.read().state().unwrap().killed);
    store.commit(&[Change::Killed { killed: false }]).unwrap();
    assert!(!kill_file_present(&home.database()));
    assert!(!store.load().unwrap().killed);
    // By the daemon: in both, so that losing one is not enough to spend again.
    store.commit(&[Change::Killed { killed: true }]).unwrap();
    assert!(kill_file_present(&home.database()));
    clear_kill_file(&home.database()).unwrap();
    assert!(store.load().unwrap().killed);
    set_kill_file(&home.database()).unwrap();
    drop(store);
    std::fs::remove_file(home.database()).unwrap();
    assert!(home.open().load().unwrap().killed);
}

#[test]
fn a_place_that_is_not_there_is_named() {
    let error = SqliteStore::open(Path::new("/no/such/place/haggle.db"), None, 1).unwrap_err();
    assert!(error.to_string().contains("/no/such/place"), "{error}");
    let home = Home::new();
    let database = home.database();
    let error = Reader::open(&database).unwrap_err().to_string();
    assert!(error.contains("there is no database"), "{error}");
    let error = append_request(&database, Time(1), &Ask::Kill).unwrap_err();
    assert!(
        error.to_string().contains("there is no database"),
        "{error}"
    );
    assert!(!database.exists());
    let error = SqliteStore::open(home.directory.path(), None, 1).unwrap_err();
    assert!(error.to_string().contains("is a directory"), "{error}");
}

#[test]
fn requests_are_taken_up_once_and_in_order() {
    let home = Home::new();
    let mut store = home.open();
    let pause = Ask::Job {
        job: job("train"),
        wish: Wish::Pause,
    };
    let first = append_request(&home.database(), Time(10), &pause).unwrap();
    let second = append_request(&home.database(), Time(11), &Ask::ResumeAll).unwrap();
    let third = store.append_request(Time(12), &Ask::Kill).unwrap();
    let asked = store.requests().unwrap();
    let seen: Vec<_> = asked.iter().map(|r| (r.id, r.at, r.ask.clone())).collect();
    assert_eq!(
        seen,
        [
            (first, Time(10), pause),
            (second, Time(11), Ask::ResumeAll),
            (third, Time(12), Ask::Kill)
        ]
    );
    store.commit(&[Change::RequestDone { id: first }]).unwrap();
    assert_eq!(store.requests().unwrap(), asked[1..]);
    drop(store);
    // Nobody has the database open now.
    append_request(&home.database(), Time(13), &Ask::Kill).unwrap();
    assert_eq!(home.open().requests().unwrap().len(), 3);
}
