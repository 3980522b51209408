//! Whatever happens to the files: what a commit acknowledged is there afterwards, or it is said
//! that something is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::tests::{entry, open, replica};
use super::*;
use crate::ports::Standing;
use crate::types::ids::{IntentId, MachineId, OfferId, Slot};
use crate::types::instance::Rental;
use crate::types::intent::{Effect, Intent, IntentState};
use crate::types::ledger::EntryKind;
use crate::types::money::{Money, Rate};
use crate::types::state::JobRecord;

fn rent(id: u64) -> Change {
    Change::Intent(Intent {
        id: IntentId(id),
        at: Time(1),
        effect: Effect::Rent {
            replica: replica(),
            generation: 1,
            slot: Slot {
                machine: MachineId(1),
                gpus: 1,
            },
            offer: OfferId(1),
            rental: Rental::Bid,
            price: Rate(1),
            disk_gb: 8,
            storage: Rate(1),
            from: None,
            traffic: None,
        },
        reserved: Money::ZERO,
        state: IntentState::Open,
    })
}

/// A batch as the daemon makes it: money, the job's total with it, and an intent.
fn batch(n: u64) -> Vec<Change> {
    let mut job = JobRecord::new("train".parse().unwrap());
    job.on_demand_equivalent = Money(n as i64 * 7);
    vec![entry(EntryKind::Accrue, 7), Change::Job(job), rent(n)]
}

struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("haggle.db")
    }

    /// The files as they would be found after the power went, in a directory of their own.
    fn found_after_a_crash(&self) -> Self {
        let other = Self::new();
        for file in fs::read_dir(self.directory.path()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), other.directory.path().join(file.file_name())).unwrap();
        }
        other
    }

    fn beside(&self, tail: &str) -> PathBuf {
        let mut name = self.path().into_os_string();
        name.push(tail);
        PathBuf::from(name)
    }

    /// Intents and what is posted, as a new process finds them, and whether that is all.
    fn reopened(&self) -> Result<(usize, Money, Standing), StoreError> {
        let mut store = open(&self.path())?;
        let state = store.load()?;
        let posted = state.spent(&"train".parse().unwrap());
        Ok((state.intents.len(), posted, store.standing()))
    }
}

#[test]
fn a_disk_that_fills_up_loses_nothing_that_was_acknowledged() {
    let home = Home::new();
    let mut store = open(&home.path()).unwrap();
    let pages: i64 = store
        .connection
        .pragma_query_value(None, "page_count", |row| row.get(0))
        .unwrap();
    store
        .connection
        .pragma_update_and_check(None, "max_page_count", pages + 4, |_| Ok(()))
        .unwrap();
    let mut acknowledged = 0;
    let error = loop {
        match store.commit(&batch(acknowledged + 1)) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full), "{error:?}");
    assert!(error.may_pass() && acknowledged > 3, "{acknowledged}");
    let crashed = home.found_after_a_crash();
    let all = (
        acknowledged as usize,
        Money(acknowledged as i64 * 7),
        Standing::Whole,
    );
    assert_eq!(crashed.reopened().unwrap(), all);
    // With room again the same process goes on.
    store
        .connection
        .pragma_update_and_check(None, "max_page_count", pages + 400, |_| Ok(()))
        .unwrap();
    store.commit(&batch(acknowledged + 1)).unwrap();
    drop(store);
    assert_eq!(home.reopened().unwrap().0, acknowledged as usize + 1);
    prove(&home.path()).unwrap();
}

#[test]
fn a_lock_and_a_ban_on_writing_lose_nothing_and_pass() {
    let home = Home::new();
    let mut store = open(&home.path()).unwrap();
    let brief = Duration::from_millis(5);
    store.connection.busy_timeout(brief).unwrap();
    store.commit(&batch(1)).unwrap();
    let other = Connection::open(home.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.commit(&batch(2)).unwrap_err();
    assert!(matches!(error, StoreError::Locked), "{error:?}");
    assert!(error.may_pass());
    other.execute_batch("ROLLBACK").unwrap();
    store
        .connection
        .pragma_update(None, "query_only", true)
        .unwrap();
    let error = store.commit(&batch(2)).unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly), "{error:?}");
    assert!(error.may_pass());
    store
        .connection
        .pragma_update(None, "query_only", false)
        .unwrap();
    assert_eq!(
        home.found_after_a_crash().reopened().unwrap(),
        (1, Money(7), Standing::Whole)
    );
    store.commit(&batch(2)).unwrap();
    drop(store);
    assert_eq!(home.reopened().unwrap(), (2, Money(14), Standing::Whole));
}

#[test]
fn a_mark_that_cannot_be_written_is_a_failure_before_any_request_leaves() {
    let home = Home::new();
    let mut store = open(&home.path()).unwrap();
    store.load().unwrap();
    // A directory stands in its way.
    fs::create_dir(home.beside(".mark.new")).unwrap();
    store.commit(&batch(1)).unwrap_err();
    fs::remove_dir(home.beside(".mark.new")).unwrap();
    drop(store);
    let found = home.reopened().unwrap();
    assert_eq!(
        found,
        (1, Money(7), Standing::Unmarked),
        "the intent is kept"
    );
}

/// A store with the last commits in its write-ahead log alone.
fn with_a_log(home: &Home) -> SqliteStore {
    let mut store = open(&home.path()).unwrap();
    store.load().unwrap();
    store.commit(&batch(1)).unwrap();
    store
        .connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    for n in 2..=9 {
        store.commit(&batch(n)).unwrap();
    }
    store
}

fn assert_says_that_something_is_missing(home: &Home) {
    match home.reopened() {
        Ok((intents, posted, standing)) => {
            assert!(intents < 9 && posted == Money(intents as i64 * 7));
            let last_intent = Some(IntentId(9));
            assert_eq!(
                standing,
                Standing::Behind {
                    last_intent,
                    ticks: 0
                }
            );
        }
        Err(error) => assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}"),
    }
}

#[test]
fn a_log_that_is_lost_is_noticed_by_the_mark() {
    let home = Home::new();
    let _store = with_a_log(&home);
    let crashed = home.found_after_a_crash();
    assert_eq!(
        crashed.reopened().unwrap(),
        (9, Money(63), Standing::Whole),
        "the log is played in"
    );
    let crashed = home.found_after_a_crash();
    fs::remove_file(crashed.beside("-wal")).unwrap();
    assert_says_that_something_is_missing(&crashed);
}

#[test]
fn a_log_that_was_damaged_or_cut_is_noticed_by_the_mark() {
    let home = Home::new();
    let _store = with_a_log(&home);
    let whole = fs::read(home.beside("-wal")).unwrap();
    for eighth in 0..8 {
        let at = whole.len() * eighth / 8 + 40;
        let crashed = home.found_after_a_crash();
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(crashed.beside("-wal"), bytes).unwrap();
        assert_says_that_something_is_missing(&crashed);
        let crashed = home.found_after_a_crash();
        fs::write(crashed.beside("-wal"), &whole[..at]).unwrap();
        assert_says_that_something_is_missing(&crashed);
    }
}

/// A database of many pages, with no log.
fn filled(home: &Home) -> Vec<u8> {
    let mut store = open(&home.path()).unwrap();
    store.load().unwrap();
    for n in 1..=300 {
        store.commit(&batch(n)).unwrap();
    }
    drop(store);
    fs::read(home.path()).unwrap()
}

#[test]
fn a_database_that_was_cut_short_is_refused() {
    let home = Home::new();
    let whole = filled(&home);
    for tenth in 1..10 {
        let cut = whole.len() / 4096 * tenth / 10 * 4096;
        fs::write(home.path(), &whole[..cut]).unwrap();
        let error = home.reopened().unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{cut}: {error:?}");
        assert!(!error.may_pass());
        assert!(prove(&home.path()).is_err());
    }
}

#[test]
fn no_page_that_money_depends_on_can_be_overwritten_unnoticed() {
    let home = Home::new();
    let whole = filled(&home);
    let sound = home.reopened().unwrap();
    let mut refused = 0;
    for page in 1..whole.len() / 4096 {
        let mut bytes = whole.clone();
        bytes[page * 4096..page * 4096 + 64].fill(0xa5);
        fs::write(home.path(), &bytes).unwrap();
        match home.reopened() {
            // A page of the market's history, or one that nothing is on.
            Ok(found) => assert_eq!(found, sound, "page {page}"),
            Err(StoreError::Corrupt(_)) => refused += 1,
            Err(other) => panic!("page {page}: {other:?}"),
        }
    }
    assert!(refused > 20, "{refused}");
}

// ------------------------------------------------------------------------------------- copies

fn copy_of(home: &Home) -> PathBuf {
    home.directory.path().join("copy.db")
}

#[test]
fn a_copy_that_is_made_while_the_daemon_writes_is_one_moment_of_it() {
    let home = Home::new();
    let mut store = with_a_log(&home);
    let contents = back_up(&home.path(), &copy_of(&home), false).unwrap();
    assert_eq!(contents.posted, Money(63));
    assert_eq!(contents.last_intent, Some(IntentId(9)));
    assert_eq!((contents.open_intents, contents.held), (9, 0));
    assert_eq!(contents.schema, migrate::newest());
    store.commit(&batch(10)).unwrap();
    assert_eq!(
        prove(&copy_of(&home)).unwrap(),
        contents,
        "it stays as it is"
    );
    let refused = back_up(&home.path(), &copy_of(&home), false).unwrap_err();
    assert!(matches!(refused, CopyError::Exists(_)), "{refused}");
    assert_eq!(prove(&copy_of(&home)).unwrap(), contents);
    let again = back_up(&home.path(), &copy_of(&home), true).unwrap();
    assert_eq!(again.posted, Money(70));
    let same = back_up(&home.path(), &home.path(), true).unwrap_err();
    assert!(matches!(same, CopyError::Same(_)), "{same}");
    // Nothing is left beside it but the copy.
    let names = fs::read_dir(home.directory.path()).unwrap();
    let strays = names
        .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with("haggle.db") && name != "copy.db");
    assert_eq!(strays.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn a_copy_is_put_over_nothing_that_belongs_to_a_database() {
    let home = Home::new();
    let mut store = open(&home.path()).unwrap();
    store.commit(&batch(1)).unwrap();
    store.load().unwrap();
    fs::write(home.beside(".killed"), "").unwrap();
    for tail in ["-wal", "-shm", ".mark", ".installation", ".killed"] {
        let before = fs::read(home.beside(tail)).unwrap();
        let refused = back_up(&home.path(), &home.beside(tail), true).unwrap_err();
        assert!(matches!(refused, CopyError::Same(_)), "{tail}: {refused}");
        assert_eq!(fs::read(home.beside(tail)).unwrap(), before, "{tail}");
    }
    // The log of one that was opened and did not end well.
    back_up(&home.path(), &copy_of(&home), false).unwrap();
    let before = fs::read(copy_of(&home)).unwrap();
    let log = files::beside(&copy_of(&home), "-wal");
    fs::write(&log, "frames").unwrap();
    store.commit(&batch(2)).unwrap();
    let refused = back_up(&home.path(), &copy_of(&home), true).unwrap_err();
    assert!(
        matches!(&refused, CopyError::Exists(file) if *file == log),
        "{refused}"
    );
    assert_eq!(fs::read(copy_of(&home)).unwrap(), before);
}

#[test]
fn a_database_that_is_damaged_is_not_copied_as_if_it_were_whole() {
    let home = Home::new();
    let whole = filled(&home);
    let mut bytes = whole;
    let page = bytes.len() / 4096 / 2;
    bytes[page * 4096..(page + 1) * 4096].fill(0xa5);
    fs::write(home.path(), &bytes).unwrap();
    let error = back_up(&home.path(), &copy_of(&home), false).unwrap_err();
    assert!(matches!(error, CopyError::Damaged { .. }), "{error}");
    assert!(!copy_of(&home).exists());
}

#[test]
fn books_that_do_not_add_up_are_damage_too() {
    let home = Home::new();
    let mut store = open(&home.path()).unwrap();
    store.commit(&batch(1)).unwrap();
    let tamper = "UPDATE usage SET record = replace(record, ':7', ':8')";
    store.connection.execute(tamper, []).unwrap();
    let error = back_up(&home.path(), &copy_of(&home), false).unwrap_err();
    assert!(matches!(error, CopyError::Damaged { .. }), "{error}");
}

const KEY: (&str, &str) = ("restored", "it was restored");

fn lock(path: &Path) -> DaemonLock {
    DaemonLock::acquire(path).unwrap()
}

#[test]
fn a_copy_that_is_put_back_is_marked_and_what_was_there_is_kept() {
    let home = Home::new();
    let mut store = with_a_log(&home);
    back_up(&home.path(), &copy_of(&home), false).unwrap();
    store.commit(&batch(10)).unwrap();
    // As after a crash: with a log beside it that must not be played into the copy.
    let crashed = home.found_after_a_crash();
    let copy = copy_of(&crashed);
    let restored = restore(&copy, &crashed.path(), &lock(&crashed.path()), KEY).unwrap();
    let mut now = open(&crashed.path()).unwrap();
    let state = now.load().unwrap();
    assert_eq!(state.last_intent, Some(IntentId(9)));
    assert_eq!(state.wire.get("restored").map(String::as_str), Some(KEY.1));
    let last_intent = Some(IntentId(10));
    assert_eq!(
        now.standing(),
        Standing::Behind {
            last_intent,
            ticks: 0
        }
    );
    drop(now);
    let aside = restored.aside.unwrap();
    assert_eq!(aside, crashed.beside(".before-restore-1"));
    let mut before = Connection::open(&aside).unwrap();
    let state = changes::load(&before.transaction().unwrap()).unwrap();
    assert_eq!(
        state.last_intent,
        Some(IntentId(10)),
        "its log went with it"
    );
    drop(before);
    let again = restore(&copy, &crashed.path(), &lock(&crashed.path()), KEY).unwrap();
    assert_eq!(again.aside, Some(crashed.beside(".before-restore-2")));
}

#[test]
fn a_copy_on_a_new_machine_brings_its_installation_along() {
    let home = Home::new();
    drop(with_a_log(&home));
    back_up(&home.path(), &copy_of(&home), false).unwrap();
    let elsewhere = Home::new();
    let restored = restore(
        &copy_of(&home),
        &elsewhere.path(),
        &lock(&elsewhere.path()),
        KEY,
    )
    .unwrap();
    assert_eq!(restored.aside, None);
    let installation = read_installation(&elsewhere.path()).unwrap();
    assert_eq!(installation, Some(restored.contents.installation));
    assert_eq!(elsewhere.reopened().unwrap().2, Standing::Unmarked);
}

#[test]
fn a_copy_that_is_damaged_newer_or_anothers_changes_nothing() {
    let home = Home::new();
    drop(with_a_log(&home));
    let before = fs::read(home.path()).unwrap();
    let copy = copy_of(&home);
    let refused = |what: &str| {
        let error = restore(&copy, &home.path(), &lock(&home.path()), KEY).unwrap_err();
        assert_eq!(fs::read(home.path()).unwrap(), before, "{what}");
        assert!(!home.beside(".before-restore-1").exists(), "{what}");
        error
    };
    let missing = refused("there is none");
    assert!(matches!(missing, CopyError::Store(_)), "{missing}");
    fs::write(&copy, "no database at all ".repeat(500)).unwrap();
    let error = refused("damaged");
    assert!(matches!(error, CopyError::Damaged { .. }), "{error}");
    fs::remove_file(&copy).unwrap();

    back_up(&home.path(), &copy, false).unwrap();
    let newer = Connection::open(&copy).unwrap();
    newer
        .execute(
            "INSERT INTO refinery_schema_history SELECT 999, 'later', applied_on, checksum
             FROM refinery_schema_history LIMIT 1",
            [],
        )
        .unwrap();
    drop(newer);
    let error = refused("newer");
    let told = matches!(error, CopyError::Store(StoreError::Newer { .. }));
    assert!(told, "{error}");
    fs::remove_file(&copy).unwrap();

    let other = Home::new();
    let hint = Some(Installation::from_seed(99));
    drop(SqliteStore::open(&other.path(), hint, 7).unwrap());
    back_up(&other.path(), &copy, false).unwrap();
    let error = refused("another's");
    let told = matches!(error, CopyError::OtherInstallation { .. });
    assert!(told, "{error}");
}
