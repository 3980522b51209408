//! What SQLite and the file system say, as what the daemon can act on.

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ports::StoreError;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match &error {
            E::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DiskFull => Self::Full,
                // The index of the write-ahead log could not be made longer: no room for it.
                ErrorCode::SystemIoFailure if failure.extended_code == SQLITE_IOERR_SHMSIZE => {
                    Self::Full
                }
                // A quota and a limit on the size of files look like this too; which it is, SQLite
                // does not say.
                ErrorCode::SystemIoFailure => Self::Other(format!(
                    "{error}; the disk may be failing, or a quota or a limit on the size of files \
                     is reached"
                )),
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::Locked,
                ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
                    Self::ReadOnly
                }
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                    Self::Corrupt(error.to_string())
                }
                _ => Self::Other(error.to_string()),
            },
            // A stored value is not what this table holds.
            E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::InvalidColumnType(..)
            | E::Utf8Error(..) => Self::Corrupt(error.to_string()),
            _ => Self::Other(error.to_string()),
        }
    }
}

/// What went wrong with a file beside the database.
pub(super) fn io_error(what: &str, error: &std::io::Error) -> StoreError {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::StorageFull | K::QuotaExceeded => StoreError::Full,
        K::PermissionDenied | K::ReadOnlyFilesystem => StoreError::ReadOnly,
        _ => StoreError::Other(format!("{what}: {error}")),
    }
}

/// A value as JSON text.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Other(format!("cannot be written: {e}")))
}

/// A value read back from a column of JSON text.
pub(super) fn json_at<T: DeserializeOwned>(
    row: &rusqlite::Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str().map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e))
    })?;
    serde_json::from_str(text).map_err(|e| conversion(column, e))
}

/// A word of a closed set, such as `accrue`, as it is in JSON.
pub(super) fn word<T: Serialize>(value: &T) -> Result<String, StoreError> {
    Ok(to_json(value)?.trim_matches('"').to_owned())
}

/// A word of a closed set read back.
pub(super) fn word_at<T: DeserializeOwned>(
    row: &rusqlite::Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_value(serde_json::Value::String(text)).map_err(|e| conversion(column, e))
}

/// A stored text that is not what its column holds.
pub(super) fn conversion<E>(column: usize, error: E) -> rusqlite::Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

/// Ids of the marketplace are unsigned and SQLite's integers are signed: the bits are kept.
pub(super) fn id(number: u64) -> i64 {
    number.cast_signed()
}

/// An id read back.
pub(super) fn id_at(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

/// An id that may be absent, read back.
pub(super) fn optional_id_at(
    row: &rusqlite::Row<'_>,
    column: usize,
) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(i64::cast_unsigned))
}
