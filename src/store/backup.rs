//! Copies of the database: made while a daemon may be writing it, and proven before they count.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use tempfile::{NamedTempFile, TempPath};

use super::error::io_error;
use super::migrate::Schema;
use super::reader::Reader;
use super::{BUSY_TIMEOUT, files, migrate, require_file};
use crate::ports::StoreError;
use crate::types::ids::{AccountId, Installation, IntentId};
use crate::types::ledger::Scope;
use crate::types::money::Money;
use crate::types::state::State;

/// What a copy holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Of which installation it is.
    pub installation: Installation,
    /// Which account it is bound to; `None` where none was seen yet.
    pub account: Option<AccountId>,
    /// The version of its schema.
    pub schema: i64,
    /// Ticks that it has seen.
    pub ticks: u64,
    /// The last intent that it has recorded.
    pub last_intent: Option<IntentId>,
    /// Instances that it holds.
    pub held: usize,
    /// Intents that are not settled.
    pub open_intents: usize,
    /// What its ledger has posted, over all jobs.
    pub posted: Money,
    /// Its size.
    pub bytes: u64,
}

/// Why a copy was not made, or is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A file is there, and may be the only other copy.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// It is the database itself, or a file that belongs to it.
    #[error("{} is the database itself, or belongs to it", .0.display())]
    Same(PathBuf),
    /// The copy is not whole.
    #[error("{} is damaged: {found}", .file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What was found.
        found: String,
    },
    /// The copy is of another installation: its labels and its account are not ours.
    #[error("the copy is of installation {found}, and the database {} is of {here}", .database.display())]
    OtherInstallation {
        /// Whose the copy is.
        found: Installation,
        /// Whose the database is.
        here: Installation,
        /// The database.
        database: PathBuf,
    },
    /// A database or a file cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Copies the database as it is at one moment to `to`, which is there whole or not at all. A daemon
/// may write meanwhile; the copy has nothing of what it commits after the copying began. Nothing is
/// overwritten but with `force`. The copy is read back and proven before it gets its name.
///
/// # Errors
/// [`CopyError`]; then there is no new file, and an old one is as it was.
pub fn back_up(database: &Path, to: &Path, force: bool) -> Result<Contents, CopyError> {
    require_file(database)?;
    refuse_same(database, to)?;
    if to.exists() && !force {
        return Err(CopyError::Exists(to.to_path_buf()));
    }
    // Left beside another database it would be played into it, whoever wrote it.
    if let Some(log) = ["-wal", "-journal"]
        .map(|tail| files::beside(to, tail))
        .into_iter()
        .find(|log| log.exists())
    {
        return Err(CopyError::Exists(log));
    }
    let copy = copied(database, directory_of(to))?;
    let contents = prove(&copy).map_err(|error| renamed(error, &copy, database))?;
    keep(copy, to, force)?;
    Ok(contents)
}

/// A proven-to-be-readable copy beside where it is to be. It goes when the value does.
pub(super) fn copied(from: &Path, directory: &Path) -> Result<TempPath, StoreError> {
    let source = Connection::open_with_flags(
        from,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    source.busy_timeout(BUSY_TIMEOUT)?;
    migrate::inspect(&source)?;
    let copy = NamedTempFile::new_in(directory)
        .map_err(|error| io_error(&directory.display().to_string(), &error))?
        .into_temp_path();
    let mut target = Connection::open(&copy)?;
    {
        let backup = Backup::new(&source, &mut target)?;
        // In one step it is one moment of the database, and no writer can make it begin again.
        match backup.step(-1)? {
            StepResult::Done => {}
            _ => return Err(StoreError::Locked),
        }
    }
    // A copy is one file, whatever happens to it later.
    target.pragma_update_and_check(None, "journal_mode", "DELETE", |row| {
        row.get::<_, String>(0)
    })?;
    target.close().map_err(|(_, error)| error)?;
    Ok(copy)
}

/// Reads a copy as a whole: every page, every record, and whether the jobs' totals are what the
/// ledger's lines come to.
///
/// # Errors
/// [`CopyError::Damaged`], or it cannot be read, is newer, or is no database of ours.
pub fn prove(file: &Path) -> Result<Contents, CopyError> {
    require_file(file)?;
    let damaged = |found: String| CopyError::Damaged {
        file: file.to_path_buf(),
        found,
    };
    let told = |error: StoreError| match error {
        StoreError::Corrupt(found) => damaged(found),
        other => CopyError::Store(other),
    };
    let connection = Connection::open_with_flags(
        file,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(|error| told(error.into()))?;
    let schema = migrate::inspect(&connection).map_err(told)?;
    check_pages(&connection).map_err(told)?;
    let version = match schema {
        Schema::Empty => return Err(damaged("there is nothing in it".to_owned())),
        Schema::Older { found, .. } => found,
        Schema::Current => migrate::newest(),
    };
    let connection = match schema {
        Schema::Older { .. } => brought_up(&connection).map_err(told)?,
        _ => connection,
    };
    let reader = Reader::over(connection, file);
    let state = reader.state().map_err(told)?;
    let posted = check_sums(&reader, &state).map_err(told)?;
    let bytes = std::fs::metadata(file).map(|file| file.len());
    Ok(Contents {
        installation: state.installation,
        account: state.account,
        schema: version,
        ticks: state.ticks,
        last_intent: state.last_intent,
        held: state.held.len(),
        open_intents: state.intents.len(),
        posted,
        bytes: bytes.map_err(|error| io_error(&file.display().to_string(), &error))?,
    })
}

fn check_pages(connection: &Connection) -> Result<(), StoreError> {
    let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found == "ok" {
        return Ok(());
    }
    Err(StoreError::Corrupt(found.replace('\n', "; ")))
}

/// An older database as this program would have it, in memory: the file stays as it is.
fn brought_up(connection: &Connection) -> Result<Connection, StoreError> {
    let mut scratch = Connection::open_in_memory()?;
    {
        let backup = Backup::new(connection, &mut scratch)?;
        match backup.step(-1)? {
            StepResult::Done => {}
            _ => return Err(StoreError::Locked),
        }
    }
    migrate::migrate(&mut scratch)?;
    Ok(scratch)
}

/// Every balance that is kept has to be what the ledger's lines come to.
fn check_sums(reader: &Reader, state: &State) -> Result<Money, StoreError> {
    match reader.audit()?.problems.into_iter().next() {
        Some(problem) => Err(StoreError::Corrupt(problem)),
        None => Ok(state.usage(&Scope::Account).total),
    }
}

/// Gives a copy its name, durably.
fn keep(copy: TempPath, to: &Path, force: bool) -> Result<(), CopyError> {
    let failed = |error: &std::io::Error| io_error(&to.display().to_string(), error);
    File::open(&copy)
        .and_then(|file| file.sync_all())
        .map_err(|error| failed(&error))?;
    let kept = if force {
        copy.persist(to)
    } else {
        copy.persist_noclobber(to)
    };
    match kept {
        Ok(()) => {}
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(CopyError::Exists(to.to_path_buf()));
        }
        Err(error) => return Err(failed(&error.error).into()),
    }
    Ok(files::sync_directory(to)?)
}

/// Nor is a copy ever put over what belongs to the database.
fn refuse_same(database: &Path, to: &Path) -> Result<(), CopyError> {
    const TAILS: [&str; 9] = [
        "",
        "-wal",
        "-shm",
        "-journal",
        ".mark",
        ".killed",
        ".installation",
        ".lock",
        ".heartbeat",
    ];
    let Ok(to_file) = to.canonicalize() else {
        return Ok(());
    };
    let its = TAILS.map(|tail| files::beside(database, tail));
    if its
        .iter()
        .any(|file| file.canonicalize().is_ok_and(|file| file == to_file))
    {
        return Err(CopyError::Same(to.to_path_buf()));
    }
    Ok(())
}

/// What is wrong with a copy that was just made is wrong with what it was made of.
fn renamed(error: CopyError, copy: &Path, database: &Path) -> CopyError {
    match error {
        CopyError::Damaged { file, found } if file == copy => CopyError::Damaged {
            file: database.to_path_buf(),
            found,
        },
        other => other,
    }
}

pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
