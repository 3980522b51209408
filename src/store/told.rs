//! What people were told: written by the thread that tells, through a connection of its own.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::{BUSY_TIMEOUT, migrate, require_file, set_up};
use crate::ports::StoreError;
use crate::types::time::Time;

/// The table of what was told.
#[derive(Debug)]
pub struct Told {
    connection: Connection,
}

impl Told {
    /// Of a database that is there and up to date.
    ///
    /// # Errors
    /// There is none, it is older or newer, or SQLite says so.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        require_file(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        migrate::require_current(&connection)?;
        set_up(&connection)?;
        Ok(Self { connection })
    }

    /// When a channel was told last of what has this key.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn at(&self, channel: &str, key: &str) -> Result<Option<Time>, StoreError> {
        let at = self
            .connection
            .prepare_cached("SELECT at FROM told WHERE channel = ?1 AND key = ?2")?
            .query_row(params![channel, key], |row| row.get(0).map(Time))
            .optional()?;
        Ok(at)
    }

    /// A message is to be sent; `body` is JSON.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn queue(&self, channel: &str, key: &str, at: Time, body: &str) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "INSERT INTO told (channel, key, at, pending) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (channel, key) DO UPDATE SET at = excluded.at, pending = excluded.pending",
            )?
            .execute(params![channel, key, at.0, body])?;
        Ok(())
    }

    /// It was sent, or given up.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn settle(&self, channel: &str, key: &str) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("UPDATE told SET pending = NULL WHERE channel = ?1 AND key = ?2")?
            .execute(params![channel, key])?;
        Ok(())
    }

    /// What a channel has still to be sent, oldest first, at most so many.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn pending(&self, channel: &str, most: usize) -> Result<Vec<String>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT pending FROM told WHERE channel = ?1 AND pending IS NOT NULL
             ORDER BY at, key LIMIT ?2",
        )?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![channel, most], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What is settled and older is forgotten.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn forget(&self, before: Time) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("DELETE FROM told WHERE at < ?1 AND pending IS NULL")?
            .execute(params![before.0])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SqliteStore;

    #[test]
    fn what_was_told_and_what_waits_outlasts_a_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("haggle.db");
        assert!(Told::open(&path).is_err(), "there is no database yet");
        let _store = SqliteStore::open(&path, None, 1).unwrap();
        let told = Told::open(&path).unwrap();
        told.queue("phone", "b", Time(2), "{\"n\":2}").unwrap();
        told.queue("phone", "a", Time(1), "{\"n\":1}").unwrap();
        told.queue("mail", "a", Time(1), "{}").unwrap();
        drop(told);
        let told = Told::open(&path).unwrap();
        assert_eq!(
            told.pending("phone", 9).unwrap(),
            ["{\"n\":1}", "{\"n\":2}"]
        );
        assert_eq!(told.pending("phone", 1).unwrap(), ["{\"n\":1}"]);
        told.settle("phone", "a").unwrap();
        assert_eq!(told.pending("phone", 9).unwrap(), ["{\"n\":2}"]);
        assert_eq!(told.at("phone", "a").unwrap(), Some(Time(1)));
        assert_eq!(told.at("phone", "c").unwrap(), None);
        // What is still to be sent is not forgotten, however old.
        told.forget(Time(5)).unwrap();
        assert_eq!(told.at("phone", "a").unwrap(), None);
        assert_eq!(told.at("phone", "b").unwrap(), Some(Time(2)));
        assert!(told.queue("phone", "d", Time(9), "no JSON").is_err());
    }
}
