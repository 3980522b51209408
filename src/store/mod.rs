//! SQLite: what is known, the ledger, the journal, the market's history.
//!
//! One connection writes, in the daemon's own loop, without threads. A commit is durable when it
//! returns (`synchronous = FULL`), for it carries money. Other processes read through [`Reader`]
//! and ask through [`append_request`], whether or not a daemon runs. Nothing here reads a clock:
//! times are in what is stored.
//!
#![doc = include_str!("schema.md")]

mod changes;
mod error;
mod files;
mod migrate;
mod offer_rows;
mod offers;
mod prune;
mod reader;
mod spend;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

pub use files::{
    DaemonLock, LockError, clear_kill_file, installation_file, kill_file, kill_file_present,
    read_installation, set_kill_file,
};
pub use reader::{Ended, EntryFilter, Reader, SlotHistory, SlotVersion};
pub use spend::{Group, Spend};

use crate::ports::{Store, StoreError};
use crate::types::ids::Installation;
use crate::types::instance::Held;
use crate::types::offer::Snapshot;
use crate::types::state::{Ask, Change, State, UserRequest};
use crate::types::time::Time;

use error::{json_at, to_json};
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

/// The database, as the one process that writes it sees it.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    /// `None` in memory.
    path: Option<PathBuf>,
    /// The last snapshot as stored; `None` until it is needed, and after a failed write.
    image: Option<Image>,
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
        settle_installation(&connection, path, installation_hint, seed)?;
        Ok(Self {
            connection,
            path: Some(path.to_path_buf()),
            image: None,
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
        Ok(state)
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
        let killed = changes.iter().rev().find_map(|change| match change {
            Change::Killed { killed } => Some(*killed),
            _ => None,
        });
        match (killed, self.path.as_deref()) {
            (Some(true), Some(path)) => {
                // The file outlives the database. It comes first: if only one of the two takes it,
                // spending is forbidden. That the file fails alone is no reason to spend on.
                let _ = set_kill_file(path);
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

    fn prune(&mut self, before: Time) -> Result<(), StoreError> {
        prune::prune(&mut self.connection, before)?;
        Ok(())
    }
}

/// Asks the daemon for something, from another process and whether or not a daemon runs; gives the
/// request's number.
///
/// # Errors
/// There is no database at `path`, or its schema is not this program's.
pub fn append_request(path: &Path, now: Time, ask: &Ask) -> Result<i64, StoreError> {
    require_file(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    migrate::require_current(&connection)?;
    set_up(&connection)?;
    insert_request(&connection, now, ask)
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
