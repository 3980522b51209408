//! What needs the store's own connection: how SQLite fails, and what the schema is.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::*;
use crate::types::ids::{IntentId, OfferId, ReplicaId};
use crate::types::ledger::{Component, Entry, EntryKind, Payer, Scope};
use crate::types::money::Money;
use crate::types::state::{Event, Severity};

pub(super) fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(path, None, 7)
}

pub(super) fn replica() -> ReplicaId {
    ReplicaId {
        job: "train".parse().unwrap(),
        index: 0,
    }
}

fn event(text: &str) -> Change {
    Change::Event(Event {
        at: Time(1),
        severity: Severity::Info,
        kind: "test".to_owned(),
        replica: Some(replica()),
        instance: None,
        text: text.to_owned(),
    })
}

pub(super) fn entry(kind: EntryKind, amount: i64) -> Change {
    Change::Entry(Entry {
        at: Time(1),
        day: chrono::NaiveDate::default(),
        payer: Payer::default(),
        kind,
        replica: replica(),
        intent: IntentId(1),
        instance: None,
        component: (kind == EntryKind::Accrue).then_some(Component::Gpu),
        amount: Money(amount),
    })
}

#[test]
fn a_full_disk_is_said_to_be_full_and_nothing_of_the_batch_stays() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(&directory.path().join("haggle.db")).unwrap();
    let before = store.load().unwrap();
    let pages: i64 = store
        .connection
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .unwrap();
    store
        .connection
        .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
        .unwrap();
    let wire = Change::Wire {
        key: "a".to_owned(),
        value: Some("b".to_owned()),
    };
    let error = store
        .commit(&[wire, event(&"x".repeat(100_000))])
        .unwrap_err();
    assert!(matches!(error, StoreError::Full), "{error:?}");
    assert_eq!(store.load().unwrap(), before);

    // A snapshot that does not fit leaves the last one as it was.
    let snapshot = Snapshot {
        at: Time(5),
        coverage: vec![coverage(&"y".repeat(100_000))],
        offers: Vec::new(),
    };
    let error = store.snapshot(&snapshot).unwrap_err();
    assert!(matches!(error, StoreError::Full), "{error:?}");
    assert_eq!(store.last_snapshot().unwrap(), None);
    store
        .connection
        .pragma_update_and_check(None, "max_page_count", pages + 1000, |_| Ok(()))
        .unwrap();
    let id = store.snapshot(&snapshot).unwrap();
    assert_eq!(store.last_snapshot().unwrap(), Some((id, snapshot)));
}

fn coverage(gpu_name: &str) -> crate::types::offer::Coverage {
    use crate::types::offer::{Coverage, Extent, Market, OfferQuery};
    Coverage {
        query: OfferQuery {
            market: Market::Bid,
            gpu_name: Some(gpu_name.to_owned()),
            machine: None,
            disk_gb: 10,
            open: false,
            bounds: crate::types::offer::Bounds::default(),
        },
        extent: Extent::Complete,
        malformed: 0,
    }
}

#[test]
fn another_process_that_writes_makes_it_locked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("haggle.db");
    let mut store = open(&path).unwrap();
    store
        .connection
        .busy_timeout(Duration::from_millis(5))
        .unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let error = store.commit(&[event("one")]).unwrap_err();
    assert!(matches!(error, StoreError::Locked), "{error:?}");
    other.execute_batch("ROLLBACK").unwrap();
    store.commit(&[event("two")]).unwrap();
}

#[test]
fn a_connection_that_may_not_write_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("haggle.db");
    let store = open(&path).unwrap();
    let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut reading = SqliteStore {
        connection,
        ..store
    };
    let error = reading.commit(&[event("one")]).unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly), "{error:?}");
}

#[test]
fn what_is_no_database_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("haggle.db");
    std::fs::write(&path, "Once upon a time ".repeat(1000)).unwrap();
    for error in [open(&path).map(drop), Reader::open(&path).map(drop)] {
        let error = error.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
    }
}

#[test]
fn overwritten_pages_are_damage() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("haggle.db");
    let mut store = open(&path).unwrap();
    let many: Vec<Change> = (0..2000).map(|n| event(&format!("event {n}"))).collect();
    store.commit(&many).unwrap();
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..].fill(0xaa);
    std::fs::write(&path, bytes).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
}

#[test]
fn a_record_that_cannot_be_read_is_damage() {
    let mut store = SqliteStore::open_in_memory(&Installation::from_seed(1)).unwrap();
    store
        .connection
        .execute("INSERT INTO jobs VALUES ('train', '{}')", [])
        .unwrap();
    let error = store.load().unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
}

#[test]
fn a_newer_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("haggle.db");
    let store = open(&path).unwrap();
    store
        .connection
        .execute(
            "INSERT INTO refinery_schema_history VALUES (99, 'later', '2030-01-01T00:00:00Z', '1')",
            [],
        )
        .unwrap();
    drop(store);
    let bytes = std::fs::read(&path).unwrap();
    for error in [open(&path).map(drop), Reader::open(&path).map(drop)] {
        let error = error.unwrap_err();
        assert!(
            matches!(error, StoreError::Newer { found: 99, known } if known < 99),
            "{error:?}"
        );
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn an_edited_migration_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("haggle.db");
    for (edit, says) in [
        ("checksum = '12345'", "V1__initial"),
        ("checksum = 'nonsense'", "V1__initial"),
        ("name = 'other'", "V1__other"),
        ("applied_on = 'yesterday'", "V1__initial"),
    ] {
        let _ = std::fs::remove_file(&path);
        let store = open(&path).unwrap();
        let sql = format!("UPDATE refinery_schema_history SET {edit}");
        store.connection.execute(&sql, []).unwrap();
        drop(store);
        let error = open(&path).unwrap_err().to_string();
        assert!(error.contains(says), "{edit}: {error}");
    }
}

#[test]
fn an_older_database_is_brought_up_to_date_by_the_daemon_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("haggle.db");
    // As a crash within the first migration leaves it.
    Connection::open(&path)
        .unwrap()
        .execute_batch(
            "CREATE TABLE refinery_schema_history(
                version int4 PRIMARY KEY, name VARCHAR(255), applied_on VARCHAR(255),
                checksum VARCHAR(255))",
        )
        .unwrap();
    let error = Reader::open(&path).unwrap_err().to_string();
    assert!(error.contains("older"), "{error}");
    let error = append_request(&path, Time(1), &Ask::Kill).unwrap_err();
    assert!(error.to_string().contains("older"), "{error}");
    open(&path).unwrap();
    Reader::open(&path).unwrap();
}

#[test]
fn anothers_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.db");
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE notes (text)")
        .unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let error = open(&path).unwrap_err().to_string();
    assert!(error.contains("another program"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn the_settings_took() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("haggle.db")).unwrap();
    let text = |pragma: &str| -> String {
        let sql = format!("SELECT CAST({pragma} AS TEXT) FROM pragma_{pragma}");
        store
            .connection
            .query_row(&sql, [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(text("journal_mode"), "wal");
    assert_eq!(text("foreign_keys"), "1");
    // 2 is FULL.
    assert_eq!(text("synchronous"), "2");
}

#[test]
fn where_a_write_ahead_log_cannot_be_had_it_is_said() {
    let connection = Connection::open_in_memory().unwrap();
    let error = take_wal(&connection).unwrap_err().to_string();
    assert!(error.contains("write-ahead log"), "{error}");
}

#[test]
fn the_ledger_only_grows() {
    let mut store = SqliteStore::open_in_memory(&Installation::from_seed(1)).unwrap();
    store.commit(&[entry(EntryKind::Accrue, 5)]).unwrap();
    for sql in [
        "UPDATE entries SET amount = 1",
        "DELETE FROM entries",
        "INSERT OR REPLACE INTO entries SELECT * FROM entries",
        "REPLACE INTO entries SELECT id, 9, day, kind, job, replica, payer, intent, instance,
         component, 0 FROM entries",
    ] {
        let error = store.connection.execute(sql, []).unwrap_err().to_string();
        assert!(error.contains("append-only"), "{sql}: {error}");
    }
    let amount: i64 = store
        .connection
        .query_row("SELECT SUM(amount) FROM entries", [], |row| row.get(0))
        .unwrap();
    assert_eq!(amount, 5);
}

#[test]
fn the_schema_is_the_documented_one() {
    let store = SqliteStore::open_in_memory(&Installation::from_seed(1)).unwrap();
    let mut statement = store
        .connection
        .prepare(
            "SELECT t.name, c.name FROM pragma_table_list t JOIN pragma_table_info(t.name) c
             WHERE t.schema = 'main' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
               AND t.name <> 'refinery_schema_history'
             ORDER BY t.name, c.cid",
        )
        .unwrap();
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    let mut made: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        let (table, column) = row.unwrap();
        made.entry(table).or_default().push(column);
    }
    let documented: BTreeMap<String, Vec<String>> = include_str!("schema.md")
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let columns = cells[2].split_whitespace();
            let plain = |cell: &str| cell.trim_matches('`').to_owned();
            (plain(cells[1]), columns.map(plain).collect())
        })
        .collect();
    assert_eq!(made, documented);

    let lax: Vec<String> = store
        .connection
        .prepare(
            "SELECT name FROM pragma_table_list
             WHERE schema = 'main' AND type = 'table' AND strict = 0
               AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> 'refinery_schema_history'",
        )
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(lax, Vec::<String>::new());
}

#[test]
fn ids_of_any_size_come_back() {
    let mut store = SqliteStore::open_in_memory(&Installation::from_seed(1)).unwrap();
    let mut state = store.load().unwrap();
    for intent in [3, u64::MAX, 1 << 63] {
        let change = Change::Intent(crate::types::intent::Intent {
            id: IntentId(intent),
            at: Time(1),
            effect: crate::types::intent::Effect::Stop {
                instance: crate::types::ids::InstanceId(u64::MAX - 1),
            },
            reserved: Money::ZERO,
            state: crate::types::intent::IntentState::Open,
        });
        store.commit(std::slice::from_ref(&change)).unwrap();
        state.apply(&change);
        assert_eq!(store.load().unwrap(), state);
    }
}

#[test]
fn an_unchanged_offer_costs_no_row() {
    let mut store = SqliteStore::open_in_memory(&Installation::from_seed(1)).unwrap();
    let count = |store: &SqliteStore, table: &str| -> i64 {
        let sql = format!("SELECT COUNT(*) FROM {table}");
        store
            .connection
            .query_row(&sql, [], |row| row.get(0))
            .unwrap()
    };
    let counts = |store: &SqliteStore| {
        ["offer_versions", "offer_specs", "coverages", "snapshots"].map(|table| count(store, table))
    };
    let mut snapshot = Snapshot {
        at: Time(1),
        offers: (1..=50).map(offer).collect(),
        coverage: vec![coverage("RTX 4090")],
    };
    store.snapshot(&snapshot).unwrap();
    assert_eq!(counts(&store), [50, 50, 1, 1]);
    snapshot.at = Time(2);
    store.snapshot(&snapshot).unwrap();
    assert_eq!(counts(&store), [50, 50, 1, 2]);
    // A price: a version, no spec.
    snapshot.at = Time(3);
    snapshot.offers[7].floor = None;
    store.snapshot(&snapshot).unwrap();
    assert_eq!(counts(&store), [51, 50, 1, 3]);
    // A machine that was rented comes back under another id: its spec is found again.
    let gone = snapshot.offers.remove(20);
    store.snapshot(&snapshot).unwrap();
    let id = OfferId(9999);
    snapshot
        .offers
        .insert(20, crate::types::offer::Offer { id, ..gone });
    store.snapshot(&snapshot).unwrap();
    assert_eq!(counts(&store), [52, 50, 1, 5]);
}

fn offer(number: u64) -> crate::types::offer::Offer {
    use crate::types::ids::MachineId;
    use crate::types::money::Rate;
    crate::types::offer::Offer {
        id: OfferId(number * 10),
        machine: MachineId(number),
        host: None,
        gpus: 1,
        machine_gpus: Some(2),
        gpu_ids: vec![0],
        gpu_name: "RTX 4090".into(),
        gpu_ram_mb: Some(24_564),
        compute_cap: Some(890),
        cuda_max: None,
        driver_version: None,
        nvlink_gb_s: None,
        pcie_gb_s: Some(22.3),
        cpu_cores: Some(7.5),
        cpu_ram_mb: None,
        disk_gb: Some(100.1),
        disk_mb_s: None,
        inet_down_mbit_s: None,
        inet_up_mbit_s: None,
        inet_down_price: None,
        inet_up_price: None,
        storage_price: Some(Money(150_000_000)),
        reliability: Some(0.99),
        verified: Some(true),
        datacenter: Some(false),
        static_ip: None,
        direct_ports: None,
        country: None,
        rentable: Some(true),
        rented: None,
        ends_at: None,
        on_demand: Some(Rate(400_000_000)),
        floor: Some(Rate(200_000_000)),
        dlperf: None,
    }
}

/// Opens a database as the first version made it, with lines of that time.
fn of_the_first_version(path: &Path) {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(include_str!("../../migrations/V1__initial.sql"))
        .unwrap();
    connection
        .execute_batch(
            "CREATE TABLE refinery_schema_history(
                version int4 PRIMARY KEY, name VARCHAR(255), applied_on VARCHAR(255),
                checksum VARCHAR(255));
             INSERT INTO installation VALUES (1, 'abcd2345', 4, 0);
             INSERT INTO intents VALUES
                (1, 0, 'rent', 'done', 7, 50, '{}'), (2, 0, 'rent', 'void', NULL, 60, '{}');
             INSERT INTO entries VALUES
                (1, 1000, 'reserve', 'train', 0, 1, NULL, NULL, 50),
                (2, 2000, 'release', 'train', 0, 1, 7, NULL, -50),
                (3, 1000, 'reserve', 'train', 0, 2, NULL, NULL, 60),
                (4, 2000, 'release', 'train', 0, 2, NULL, NULL, -60),
                (5, 86400000, 'accrue', 'train', 0, 1, 7, 'gpu', 30),
                (6, 86400001, 'accrue', 'train', 0, 1, 7, 'disk', 4),
                (7, 5000000000, 'correct', 'train', 0, 1, 7, 'gpu', -10);",
        )
        .unwrap();
    let first = super::migrate::checksum_of(1);
    connection
        .execute(
            "INSERT INTO refinery_schema_history VALUES (1, 'initial', '2026-01-01T00:00:00Z', ?1)",
            [first.to_string()],
        )
        .unwrap();
}

#[test]
fn a_ledger_of_the_first_version_is_carried_over_and_balances() {
    use EntryKind::{Accrue, Correct, Post, Reserve, Void};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("haggle.db");
    of_the_first_version(&path);
    let mut store = SqliteStore::open(&path, None, 1).unwrap();
    let state = store.load().unwrap();
    assert_eq!(state.spent(&replica().job), Money(24));
    let usage = state.usage(&Scope::Account);
    let day = |y, m, d| chrono::NaiveDate::from_ymd_opt(y, m, d).unwrap();
    assert_eq!(usage.on(day(1970, 1, 2)), Money(34));
    assert_eq!(usage.on(day(1970, 2, 27)), Money(0));
    assert_eq!(usage.in_month_of(day(1970, 1, 9)), Money(34));
    assert_eq!(state.reserved, BTreeMap::new());
    let reader = Reader::open(&path).unwrap();
    let kinds: Vec<EntryKind> = reader
        .entries(&EntryFilter::default())
        .unwrap()
        .iter()
        .map(|line| line.kind)
        .collect();
    assert_eq!(
        kinds,
        [Reserve, Post, Reserve, Void, Accrue, Accrue, Correct]
    );
    let audit = reader.audit().unwrap();
    assert_eq!(audit.problems, Vec::<String>::new());
    assert_eq!(audit.accounts["estimated/job/train/gpu"], Money(30));
    assert_eq!(audit.accounts["corrected/job/train/gpu"], Money(-10));
    assert_eq!(audit.accounts["owed/estimated"], Money(-34));
}

#[test]
fn an_audit_finds_what_was_tampered_with() {
    let directory = tempfile::tempdir().unwrap();
    for (tamper, says) in [
        ("", ""),
        (
            "DROP TRIGGER entries_no_update; UPDATE entries SET amount = 6 WHERE id = 1",
            "the trigger entries_no_update is missing",
        ),
        (
            "DROP TRIGGER entries_no_delete; DELETE FROM entries WHERE id = 1",
            "lines are missing",
        ),
        (
            "UPDATE usage SET record = replace(record, ':5', ':4')",
            "counts against the limits of account",
        ),
        ("DELETE FROM usage", "counts against the limits of job/"),
        (
            "INSERT INTO entries SELECT 3, at, day, 'reserve', job, replica, payer, 8, NULL, NULL, 7
             FROM entries WHERE id = 1",
            "intent 8 has 7 set aside, it should be 0",
        ),
    ] {
        let path = directory.path().join("haggle.db");
        let _ = std::fs::remove_file(&path);
        let mut store = open(&path).unwrap();
        let lines = [entry(EntryKind::Accrue, 5), entry(EntryKind::Bill, 4)];
        store.commit(&lines).unwrap();
        store.connection.execute_batch(tamper).unwrap();
        let audit = Reader::open(&path).unwrap().audit().unwrap();
        let problems = audit.problems.join("\n");
        assert_eq!(problems.is_empty(), says.is_empty(), "{problems}");
        assert!(problems.contains(says), "{tamper}: {problems}");
    }
}
