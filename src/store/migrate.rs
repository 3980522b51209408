//! The schema: brought up to date, or refused where it is not ours, newer, or edited.

use refinery::{Migration, Runner};
use rusqlite::Connection;

use crate::ports::StoreError;

/// Marks a SQLite file as haggle's: `hagl`.
const APPLICATION_ID: i64 = 0x6861_676c;

mod embedded {
    refinery::embed_migrations!("migrations");
}

fn runner() -> Runner {
    // All in one transaction: otherwise a migration and the note that it was made are two, and a
    // crash between them leaves a database that can never be opened again.
    embedded::migrations::runner().set_grouped(true)
}

/// Where a database stands against the migrations that this program knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Schema {
    /// Nothing in it yet.
    Empty,
    /// Some migrations are still to be made.
    Older {
        /// Its version.
        found: i64,
        /// The newest that we know.
        known: i64,
    },
    /// As this program knows it.
    Current,
}

/// Looks at a database without changing it.
///
/// # Errors
/// It belongs to another program, is newer, or one of its migrations is not the one we know.
pub(super) fn inspect(connection: &Connection) -> Result<Schema, StoreError> {
    // The first read also shows whether the file is a database at all.
    let tables: i64 =
        connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        return Ok(Schema::Empty);
    }
    let history: bool = connection.query_row(
        "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name = 'refinery_schema_history'",
        [],
        |row| row.get(0),
    )?;
    let known = runner();
    let newest = known
        .get_migrations()
        .iter()
        .map(version)
        .max()
        .unwrap_or(0);
    let applied = if history {
        applied(connection)?
    } else {
        Vec::new()
    };
    let application: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let foreign = application != APPLICATION_ID && (!history || !applied.is_empty());
    if foreign {
        return Err(StoreError::Other(
            "this is a database of another program".to_owned(),
        ));
    }
    let found = applied.iter().map(|row| row.version).max().unwrap_or(0);
    if found > newest {
        return Err(StoreError::Newer {
            found,
            known: newest,
        });
    }
    for row in &applied {
        row.check(known.get_migrations())?;
    }
    Ok(if found == newest {
        Schema::Current
    } else {
        Schema::Older {
            found,
            known: newest,
        }
    })
}

/// The newest version of the schema that this program knows.
pub(super) fn newest() -> i64 {
    let versions = runner().get_migrations().iter().map(version).max();
    versions.unwrap_or(0)
}

/// Brings a database up to date, in one transaction.
///
/// # Errors
/// As [`inspect`], or a migration failed; what all of them did was undone.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    if inspect(connection)? == Schema::Current {
        return Ok(());
    }
    match runner().run(connection) {
        Ok(_) => Ok(()),
        Err(error) => Err(migration_error(&error)),
    }
}

/// For readers, which cannot migrate: the schema must be the one we know.
///
/// # Errors
/// As [`inspect`], or it is older.
pub(super) fn require_current(connection: &Connection) -> Result<(), StoreError> {
    match inspect(connection)? {
        Schema::Current => Ok(()),
        Schema::Empty => Err(StoreError::Other(
            "the database is empty; `haggle run` sets it up".to_owned(),
        )),
        Schema::Older { found, known } => Err(StoreError::Other(format!(
            "the database is of schema version {found}, older than this haggle's {known}; \
             start `haggle run` once to bring it up to date"
        ))),
    }
}

fn version(migration: &Migration) -> i64 {
    i64::from(migration.version())
}

/// A row of the history of migrations. It is checked here, before the migration library reads it:
/// that takes a malformed row for impossible.
struct Applied {
    version: i64,
    name: String,
    applied_on: String,
    checksum: String,
}

impl Applied {
    fn check(&self, known: &[Migration]) -> Result<(), StoreError> {
        let Self {
            version: v, name, ..
        } = self;
        if chrono::DateTime::parse_from_rfc3339(&self.applied_on).is_err() {
            return Err(StoreError::Corrupt(format!(
                "the history of migrations does not say when V{v}__{name} was made"
            )));
        }
        let same = known.iter().find(|m| version(m) == *v);
        let same = same
            .is_some_and(|m| m.name() == name && self.checksum.parse::<u64>() == Ok(m.checksum()));
        if same {
            return Ok(());
        }
        Err(StoreError::Other(format!(
            "migration V{v}__{name} of this database is not the one that this haggle knows: \
             a migration was edited after it had been applied"
        )))
    }
}

fn applied(connection: &Connection) -> Result<Vec<Applied>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT version, name, applied_on, checksum FROM refinery_schema_history ORDER BY version",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(Applied {
            version: row.get(0)?,
            name: row.get(1)?,
            applied_on: row.get(2)?,
            checksum: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn migration_error(error: &refinery::Error) -> StoreError {
    use std::error::Error as _;
    let source = error
        .source()
        .and_then(|s| s.downcast_ref::<rusqlite::Error>());
    match source {
        // `rusqlite::Error` cannot be cloned; what matters of it can.
        Some(rusqlite::Error::SqliteFailure(failure, message)) => {
            rusqlite::Error::SqliteFailure(*failure, message.clone()).into()
        }
        _ => StoreError::Other(format!("the schema cannot be brought up to date: {error}")),
    }
}

/// By what a migration is known, for tests that make an older database.
#[cfg(test)]
pub(super) fn checksum_of(version: i64) -> u64 {
    let known = runner();
    let migrations = known.get_migrations().iter();
    let found = migrations.clone().find(|m| self::version(m) == version);
    found.map_or(0, Migration::checksum)
}
