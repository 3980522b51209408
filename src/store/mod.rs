//! SQLite: what is known, the ledger, the journal, the market's history.
//!
//! One connection writes, in the daemon's own loop, without threads. A commit is durable when it
//! returns (`synchronous = FULL`), for it carries money. Other processes read through [`Reader`]
//! and ask through [`append_request`], whether or not a daemon runs. Nothing here reads a clock:
//! times are in what is stored.
//!
#![doc = include_str!("schema.md")]

mod audit;
mod backup;
mod bill;
mod changes;
mod error;
mod export;
#[cfg(test)]
mod failures;
mod files;
mod killed;
mod mark;
mod migrate;
mod offer_rows;
mod offers;
mod past;
mod prune;
mod reader;
mod receipt;
mod restore;
mod spend;
mod story;
#[cfg(test)]
mod tests;
mod told;

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::NaiveDate;
use rusqlite::config::DbConfig;
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};

pub use audit::Audit;
pub use backup::{Contents, CopyError, back_up, prove};
pub use export::{Cell, Export};
pub use files::{
    DaemonLock, LockError, clear_kill_file, installation_file, kill_file, kill_file_present,
    read_installation, set_kill_file,
};
pub use mark::mark_file;
pub use reader::{Ended, EntryFilter, Reader, SlotHistory, SlotVersion};
pub use receipt::{HostLoss, Paid, Receipt};
pub use restore::{Restored, restore};
pub use spend::{Group, Spend};
pub use story::Cheapest;
pub use told::Told;

use crate::ports::{Standing, Store, StoreError};
use crate::types::ids::{Installation, InstanceId};
use crate::types::instance::Held;
use crate::types::ledger::{BilledDays, Drift};
use crate::types::offer::Snapshot;
use crate::types::state::{Ask, Change, State, UserRequest};
use crate::types::time::Time;

use error::{json_at, to_json};
use mark::Mark;
use offers::Image;

/// How long a write waits for another process's write. Theirs are single rows.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Statements kept prepared; the store has about as many.
const STATEMENTS_CACHED: usize = 64;

/// Pages kept in memory, in KiB. A snapshot of 10,000 offers touches up to 3 MB of them; with less
/// than that, they would be written to the log twice in one transaction.
const CACHE_KIB: i64 = 8192;

/// Pages after which the write-ahead log is moved into the database: 4 MB of log.
const WAL_PAGES_MAX: i64 = 1000;

/// History may be kept for so much longer than it has to be.
const PRUNE_EVERY: Duration = Duration::from_hours(1);

/// The database, as the one process that writes it sees it.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    /// `None` in memory.
    path: Option<PathBuf>,
    /// The last snapshot as stored; `None` until it is needed, and after a failed write.
    image: Option<Image>,
    /// How far it has come.
    mark: Mark,
    standing: Standing,
    /// Up to when history is forgotten, once nothing older is left.
    pruned_to: Option<Time>,
}

impl SqliteStore {
    /// Opens the database, makes it where there is none, and brings its schema up to date. The
    /// caller holds the [`DaemonLock`].
    ///
    /// A new installation is `installation_hint`, or else what the file beside the database
    /// remembers, or else drawn from `seed`. From then on it stands in the database and in the
    /// file, and the three may not differ.
    ///
    /// # Errors
    /// Besides what SQLite may say: a newer or edited schema, a database of another program, a file
    /// system without write-ahead logging, and installations that differ.
    pub fn open(
        path: &Path,
        installation_hint: Option<Installation>,
        seed: u64,
    ) -> Result<Self, StoreError> {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
            let parent = parent.display();
            return Err(StoreError::Other(format!("there is no directory {parent}")));
        }
        if path.is_dir() {
            let path = path.display();
            return Err(StoreError::Other(format!("{path} is a directory")));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // SQLite opens a file that may not be written for reading alone, without a word.
        if connection.is_readonly(rusqlite::MAIN_DB)? {
            return Err(StoreError::ReadOnly);
        }
        // Looked at before anything is changed: a newer database is left exactly as it is.
        migrate::inspect(&connection)?;
        set_up(&connection)?;
        take_wal(&connection)?;
        migrate::migrate(&mut connection)?;
        check_pages(&connection)?;
        settle_installation(&connection, path, installation_hint, seed)?;
        Ok(Self {
            connection,
            path: Some(path.to_path_buf()),
            image: None,
            mark: Mark::default(),
            standing: Standing::Whole,
            pruned_to: None,
        })
    }

    /// A database in memory, for simulation: the same tables and statements, nothing durable.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn open_in_memory(installation: &Installation) -> Result<Self, StoreError> {
        let mut connection = Connection::open_in_memory()?;
        set_up(&connection)?;
        migrate::migrate(&mut connection)?;
        insert_installation(&connection, installation)?;
        Ok(Self {
            connection,
            path: None,
            image: None,
            mark: Mark::default(),
            standing: Standing::Whole,
            pruned_to: None,
        })
    }

    /// Forgets what only this process's memory holds, as if another one had opened the database:
    /// for simulation, where one connection outlives the processes.
    pub fn forget(&mut self) {
        self.image = None;
    }

    /// Lets the database take no further page (`max_page_count`), as on a full disk, or lifts that:
    /// for simulation.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn fill_disk(&mut self, full: bool) -> Result<(), StoreError> {
        // Under its present size, SQLite takes the present size.
        let pages: i64 = if full { 1 } else { i64::from(u32::MAX - 1) };
        let set = format!("PRAGMA max_page_count = {pages}");
        self.connection.query_row(&set, [], |_| Ok(()))?;
        Ok(())
    }

    /// Appends a request of the user through this connection; gives its number.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn append_request(&mut self, now: Time, ask: &Ask) -> Result<i64, StoreError> {
        insert_request(&self.connection, now, ask)
    }

    fn image(&mut self) -> Result<&Image, StoreError> {
        let image = match self.image.take() {
            Some(image) => image,
            None => Image::read(&self.connection)?,
        };
        Ok(self.image.insert(image))
    }
}

impl Store for SqliteStore {
    fn load(&mut self) -> Result<State, StoreError> {
        let transaction = self.connection.transaction()?;
        let mut state = changes::load(&transaction)?;
        transaction.finish()?;
        state.killed |= self.path.as_deref().is_some_and(kill_file_present);
        self.mark = Mark::of(&state);
        self.standing = match &self.path {
            Some(path) => self.mark.standing(Mark::read(path)?),
            None => Standing::Whole,
        };
        Ok(state)
    }

    fn standing(&mut self) -> Standing {
        self.standing
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for change in changes {
            changes::write(&transaction, change)?;
        }
        commit_with_kill_file(transaction, changes, self.path.as_deref())?;
        // After the commit and before any request leaves: the mark is never ahead of the database,
        // and knows every label that was sent.
        if self.mark.take(changes)
            && let Some(path) = &self.path
        {
            let level: i64 = self
                .connection
                .pragma_query_value(None, "synchronous", |row| row.get(0))?;
            self.mark.write(path, level > 0)?;
        }
        Ok(())
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<i64, StoreError> {
        self.image()?;
        let old = self.image.take().unwrap_or_default();
        let image = offers::write(&mut self.connection, old, snapshot)?;
        let id = image.id();
        self.image = Some(image);
        Ok(id)
    }

    fn last_snapshot(&mut self) -> Result<Option<(i64, Snapshot)>, StoreError> {
        Ok(self.image()?.to_snapshot())
    }

    fn requests(&mut self) -> Result<Vec<UserRequest>, StoreError> {
        if let Some(path) = &self.path {
            killed::take_up(&self.connection, path)?;
        }
        let mut statement = self
            .connection
            .prepare_cached("SELECT id, at, ask FROM requests WHERE done = 0 ORDER BY id")?;
        let rows = statement.query_map([], |row| {
            Ok(UserRequest {
                id: row.get(0)?,
                at: Time(row.get(1)?),
                ask: json_at(row, 2)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn ended_since(&mut self, from: Time) -> Result<Vec<Held>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT record FROM ended WHERE at >= ?1 ORDER BY at, instance")?;
        let rows = statement.query_map([from.0], |row| json_at(row, 0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn ended(&mut self, instance: InstanceId) -> Result<Option<Held>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT record FROM ended WHERE instance = ?1")?;
        Ok(statement
            .query_row([error::id(instance.0)], |row| json_at(row, 0))
            .optional()?)
    }

    fn billed(&mut self, instance: InstanceId) -> Result<BilledDays, StoreError> {
        bill::billed(&self.connection, instance)
    }

    fn drift(&mut self, day: NaiveDate) -> Result<Vec<Drift>, StoreError> {
        bill::drift(&self.connection, day, day)
    }

    fn prune(&mut self, before: Time) -> Result<(), StoreError> {
        // To look for what is old costs the more, the more there is. So it waits until an hour's worth
        // may have come.
        let done = self.pruned_to;
        if done.is_some_and(|done| before >= done && before.since(done) < PRUNE_EVERY) {
            return Ok(());
        }
        let forgotten = prune::prune(&mut self.connection, before)?;
        self.pruned_to = (forgotten < prune::ROWS_PER_CALL_MAX).then_some(before);
        Ok(())
    }
}

/// Commits, and with it sets or clears the file that forbids spending.
fn commit_with_kill_file(
    transaction: Transaction<'_>,
    changes: &[Change],
    path: Option<&Path>,
) -> Result<(), StoreError> {
    let killed = changes.iter().rev().find_map(|change| match change {
        Change::Killed { killed } => Some(*killed),
        _ => None,
    });
    match (killed, path) {
        (Some(true), Some(path)) => {
            // The file outlives the database. It comes first: if only one of the two takes it,
            // spending is forbidden. That the file fails alone is no reason to spend on. One that
            // is there keeps its age: a wish to resume is held against it.
            if !kill_file_present(path) {
                let _ = set_kill_file(path);
            }
            Ok(transaction.commit()?)
        }
        (Some(false), Some(path)) => {
            // Removed before the commit, or a restart would forbid what was allowed. If the
            // commit then fails, nothing was allowed and the file is put back.
            let was_there = kill_file_present(path);
            clear_kill_file(path)?;
            let committed = transaction.commit();
            if committed.is_err() && was_there {
                set_kill_file(path)?;
            }
            Ok(committed?)
        }
        _ => Ok(transaction.commit()?),
    }
}

/// Asks the daemon for something, from another process and whether or not a daemon runs; gives the
/// request's number.
///
/// # Errors
/// There is no database at `path`, or its schema is not this program's.
pub fn append_request(path: &Path, now: Time, ask: &Ask) -> Result<i64, StoreError> {
    insert_request(&open_beside(path)?, now, ask)
}

/// Forgets history older than `before` at once, beside a running daemon or without one, and tells after
/// each piece how many rows are gone in all. What is never forgotten says `prune`; the file keeps its
/// size, and what is free in it is used again.
///
/// # Errors
/// There is no database at `path`, or its schema is not this program's; a piece that fails leaves those
/// before it forgotten.
pub fn forget(path: &Path, before: Time, mut told: impl FnMut(usize)) -> Result<usize, StoreError> {
    let mut connection = open_beside(path)?;
    let mut gone = 0;
    loop {
        let piece = prune::prune(&mut connection, before)?;
        gone += piece;
        told(gone);
        if piece < prune::ROWS_PER_CALL_MAX {
            return Ok(gone);
        }
    }
}

fn open_beside(path: &Path) -> Result<Connection, StoreError> {
    require_file(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    migrate::require_current(&connection)?;
    set_up(&connection)?;
    Ok(connection)
}

fn insert_request(connection: &Connection, now: Time, ask: &Ask) -> Result<i64, StoreError> {
    connection
        .prepare_cached("INSERT INTO requests (at, ask) VALUES (?1, ?2)")?
        .execute(params![now.0, to_json(ask)?])?;
    Ok(connection.last_insert_rowid())
}

fn require_file(path: &Path) -> Result<(), StoreError> {
    if path.is_file() {
        return Ok(());
    }
    let path = path.display();
    Err(StoreError::Other(format!(
        "there is no database {path}; `haggle run` makes it"
    )))
}

fn set_up(connection: &Connection) -> Result<(), StoreError> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    // Plans do not depend on what is bound, or each new value would have its statement prepared anew.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // Negative: KiB, not pages.
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES_MAX)?;
    Ok(())
}

/// Switches to write-ahead logging and looks whether it took: some file systems cannot, and then
/// readers would block the daemon.
fn take_wal(connection: &Connection) -> Result<(), StoreError> {
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode == "wal" {
        return Ok(());
    }
    Err(StoreError::Other(format!(
        "its file system cannot keep a write-ahead log (journal mode stays \"{mode}\"); \
         put the database on a local disk"
    )))
}

/// Reads every page that money depends on: one that is damaged ends spending now, and not when it
/// is first needed. The market's history and the journal are left out: they are large, and nothing
/// is owed by them.
fn check_pages(connection: &Connection) -> Result<(), StoreError> {
    const HISTORY: [&str; 7] = [
        "coverages",
        "events",
        "offer_specs",
        "offer_versions",
        "slots",
        "snapshots",
        "ticks",
    ];
    let mut statement =
        connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    for name in names {
        let name = name?;
        if HISTORY.contains(&name.as_str()) || name.starts_with("sqlite_") {
            continue;
        }
        let found: String =
            connection.query_row(&format!("PRAGMA quick_check('{name}')"), [], |row| {
                row.get(0)
            })?;
        if found != "ok" {
            return Err(StoreError::Corrupt(found.replace('\n', "; ")));
        }
    }
    Ok(())
}

/// Finds out which installation this is and writes it where it is missing.
fn settle_installation(
    connection: &Connection,
    path: &Path,
    hint: Option<Installation>,
    seed: u64,
) -> Result<(), StoreError> {
    let stored: Option<String> = connection
        .query_row("SELECT name FROM installation", [], |row| row.get(0))
        .optional()?;
    let stored: Option<Installation> = match stored {
        None => None,
        Some(name) => Some(
            name.parse()
                .map_err(|error| StoreError::Corrupt(format!("{error}")))?,
        ),
    };
    let remembered = read_installation(path)?;
    let file = installation_file(path);
    let known = [
        ("the database", stored.as_ref()),
        ("the file beside it", remembered.as_ref()),
        ("what was asked for", hint.as_ref()),
    ];
    let mut known = known
        .iter()
        .filter_map(|(whose, name)| name.map(|name| (whose, name)));
    let installation = match known.next() {
        None => Installation::from_seed(seed),
        Some((first, name)) => {
            if let Some((other, different)) = known.find(|(_, other)| *other != name) {
                return Err(StoreError::Other(format!(
                    "the installation is {name} by {first} and {different} by {other} ({}): \
                     instances of one of them would be orphans; make them agree, or use another \
                     database",
                    file.display()
                )));
            }
            name.clone()
        }
    };
    // The file first: what it remembers must never be behind the database.
    if remembered.is_none() {
        files::write_installation(path, &installation)?;
    }
    if stored.is_none() {
        insert_installation(connection, &installation)?;
    }
    Ok(())
}

fn insert_installation(
    connection: &Connection,
    installation: &Installation,
) -> Result<(), StoreError> {
    connection.execute(
        "INSERT INTO installation (only, name, killed) VALUES (1, ?1, 0)",
        [installation.as_str()],
    )?;
    Ok(())
}
