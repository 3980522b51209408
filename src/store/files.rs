//! Files beside the database: what must outlive it, or be seen without opening it.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::ports::StoreError;
use crate::types::ids::Installation;

use super::error::io_error;

/// The file whose name is the database's with an ending.
pub(super) fn beside(database: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(extension);
    PathBuf::from(name)
}

/// The file that forbids spending while it exists: `<database>.killed`.
pub fn kill_file(database: &Path) -> PathBuf {
    beside(database, ".killed")
}

/// Forbids spending, whether or not there is a database, and makes it durable.
///
/// # Errors
/// The file cannot be written; then nothing was forbidden by it.
pub fn set_kill_file(database: &Path) -> Result<(), StoreError> {
    let text = "Spending is forbidden while this file exists. `haggle resume --all` removes it.\n";
    write_durably(&kill_file(database), text)
}

/// Allows spending again as far as the file goes. An absent file is no error.
///
/// # Errors
/// The file is there and cannot be removed.
pub fn clear_kill_file(database: &Path) -> Result<(), StoreError> {
    let path = kill_file(database);
    match std::fs::remove_file(&path) {
        Ok(()) => sync_directory(&path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error(&path.display().to_string(), &error)),
    }
}

/// Whether the file forbids spending. A file that may be there but cannot be looked at does.
pub fn kill_file_present(database: &Path) -> bool {
    match std::fs::symlink_metadata(kill_file(database)) {
        Ok(_) => true,
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
}

/// The file that remembers the installation when the database is lost: `<database>.installation`.
pub fn installation_file(database: &Path) -> PathBuf {
    beside(database, ".installation")
}

/// The installation that is remembered beside the database.
///
/// # Errors
/// The file cannot be read, or what it holds is not an installation.
pub fn read_installation(database: &Path) -> Result<Option<Installation>, StoreError> {
    let path = installation_file(database);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(&path.display().to_string(), &error)),
    };
    match text.trim().parse() {
        Ok(installation) => Ok(Some(installation)),
        Err(error) => Err(StoreError::Other(format!("{}: {error}", path.display()))),
    }
}

pub(super) fn write_installation(
    database: &Path,
    installation: &Installation,
) -> Result<(), StoreError> {
    write_durably(
        &installation_file(database),
        &format!("{}\n", installation.as_str()),
    )
}

/// Writes a small file so that it is either there whole or not at all, also after a power cut.
pub(super) fn write_durably(path: &Path, text: &str) -> Result<(), StoreError> {
    let temporary = beside(path, ".new");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| io_error(&path.display().to_string(), &error))?;
    sync_directory(path)
}

/// A rename or a removal is durable once its directory is.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| io_error(&directory.display().to_string(), &error))
}

/// Why the daemon's lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon works on this database.
    #[error(
        "another haggle daemon{} works on {}: one daemon per database",
        .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        .database.display()
    )]
    Held {
        /// The database.
        database: PathBuf,
        /// The other daemon's process, where the lock file says it.
        pid: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
}

/// Held while a daemon works on a database. The operating system lets go of it when the process
/// ends, however it ends, so that a crash leaves nothing to clean up.
#[derive(Debug)]
pub struct DaemonLock {
    // Kept open: closing it unlocks.
    _file: File,
}

impl DaemonLock {
    /// Takes the lock `<database>.lock`, or says who has it.
    ///
    /// # Errors
    /// [`LockError::Held`] where another daemon has it.
    pub fn acquire(database: &Path) -> Result<Self, LockError> {
        let path = beside(database, ".lock");
        let failed = |error| LockError::Io {
            path: path.clone(),
            error,
        };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = file.read_to_string(&mut text).ok();
                return Err(LockError::Held {
                    database: database.to_path_buf(),
                    pid: pid.and_then(|_| text.trim().parse().ok()),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // The file is never removed: a second daemon could hold the removed one and a third lock
        // its successor.
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_by_name_and_the_next_one_let_in() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("haggle.db");
        let lock = DaemonLock::acquire(&database).unwrap();
        let refused = DaemonLock::acquire(&database).unwrap_err();
        let pid = std::process::id();
        assert!(matches!(refused, LockError::Held { pid: Some(p), .. } if p == pid));
        assert!(refused.to_string().contains(&format!("(process {pid})")));
        drop(lock);
        DaemonLock::acquire(&database).unwrap();
    }

    #[test]
    fn a_lock_without_a_directory_says_which_file() {
        let refused = DaemonLock::acquire(Path::new("/nowhere/at/all/haggle.db")).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("/nowhere/at/all/haggle.db.lock")
        );
    }

    #[test]
    fn the_kill_file_comes_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("haggle.db");
        assert!(!kill_file_present(&database));
        clear_kill_file(&database).unwrap();
        set_kill_file(&database).unwrap();
        set_kill_file(&database).unwrap();
        assert!(kill_file_present(&database));
        clear_kill_file(&database).unwrap();
        assert!(!kill_file_present(&database));
    }

    #[test]
    fn a_mangled_installation_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("haggle.db");
        assert_eq!(read_installation(&database).unwrap(), None);
        std::fs::write(installation_file(&database), "NOT ONE").unwrap();
        let error = read_installation(&database).unwrap_err().to_string();
        assert!(error.contains("eight of a-z"), "{error}");
    }
}
