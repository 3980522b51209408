//! Putting a copy back in the database's place.
//!
//! The present files are set aside, never removed, and the write-ahead log goes first: left beside
//! another database it would be played into it. A process that dies on the way leaves no database
//! or the new one, and the mark beside it, which tells the next daemon that something is missing.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::backup::{Contents, CopyError, copied, directory_of, prove};
use super::error::io_error;
use super::files::{DaemonLock, beside, read_installation, sync_directory, write_installation};
use crate::ports::StoreError;
use crate::types::ids::Installation;

/// What was put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What the database holds now.
    pub contents: Contents,
    /// Where the database is that was there before; `None`: there was none.
    pub aside: Option<PathBuf>,
}

/// Puts the copy `from` in the place of `database`, which no daemon works on: `_lock` proves it.
/// The next daemon compares it with the marketplace before it spends; `key` in what is remembered
/// of the wire, set to `word`, tells it to.
///
/// # Errors
/// The copy is damaged, newer, or of another installation; or files cannot be written. Until the
/// copy is proven nothing is changed.
pub fn restore(
    from: &Path,
    database: &Path,
    _lock: &DaemonLock,
    (key, word): (&str, &str),
) -> Result<Restored, CopyError> {
    let contents = prove(from)?;
    if let (Ok(from), Ok(there)) = (from.canonicalize(), database.canonicalize())
        && from == there
    {
        return Err(CopyError::Same(database.to_path_buf()));
    }
    if let Some(here) = installation_here(database)?
        && here != contents.installation
    {
        return Err(CopyError::OtherInstallation {
            found: contents.installation,
            here,
            database: database.to_path_buf(),
        });
    }
    let staged = copied(from, directory_of(database))?;
    {
        let connection = Connection::open(&staged).map_err(StoreError::from)?;
        connection
            .execute(
                "INSERT OR REPLACE INTO wire (key, value) VALUES (?1, ?2)",
                params![key, word],
            )
            .map_err(StoreError::from)?;
    }
    let failed = |error: std::io::Error| io_error(&database.display().to_string(), &error);
    fs::File::open(&staged)
        .and_then(|file| file.sync_all())
        .map_err(failed)?;
    if read_installation(database)?.is_none() {
        write_installation(database, &contents.installation)?;
    }
    let aside = set_aside(database)?;
    staged
        .persist(database)
        .map_err(|error| failed(error.error))?;
    sync_directory(database)?;
    Ok(Restored { contents, aside })
}

/// Whose the database is: as the file beside it says, or itself, where it can still be read.
fn installation_here(database: &Path) -> Result<Option<Installation>, StoreError> {
    if let Some(remembered) = read_installation(database)? {
        return Ok(Some(remembered));
    }
    if !database.is_file() {
        return Ok(None);
    }
    // One that is damaged beyond reading is no reason against putting a good one in its place.
    Ok(prove(database).ok().map(|contents| contents.installation))
}

/// Moves what is there out of the way, together, so that it can still be opened; the log first.
fn set_aside(database: &Path) -> Result<Option<PathBuf>, StoreError> {
    const TAILS: [&str; 3] = ["-wal", "-shm", ""];
    const ASIDE_MAX: u32 = 999;
    if !TAILS.iter().any(|tail| beside(database, tail).exists()) {
        return Ok(None);
    }
    let aside = (1..=ASIDE_MAX)
        .map(|n: u32| beside(database, &format!(".before-restore-{n}")))
        .find(|path| !TAILS.iter().any(|tail| beside(path, tail).exists()))
        .ok_or_else(|| {
            StoreError::Other(format!(
                "there are {ASIDE_MAX} databases that were set aside already; remove some"
            ))
        })?;
    for tail in TAILS {
        let (from, to) = (beside(database, tail), beside(&aside, tail));
        if from.exists() {
            fs::rename(&from, &to)
                .map_err(|error| io_error(&from.display().to_string(), &error))?;
        }
    }
    sync_directory(database)?;
    Ok(Some(aside))
}
