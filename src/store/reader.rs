//! Reading the database from other processes: the command line, the page, reports.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params, params_from_iter};

use crate::ports::StoreError;
use crate::types::ids::{InstanceId, IntentId, JobName, Slot};
use crate::types::instance::Held;
use crate::types::intent::Intent;
use crate::types::ledger::{Component, Entry, Payer};
use crate::types::money::Money;
use crate::types::offer::{Offer, Snapshot};
use crate::types::state::{Event, State, TickRecord};
use crate::types::time::Time;

use super::error::{conversion, id, id_at, json_at, optional_id_at, word_at};
use super::files::kill_file_present;
use super::offers::Image;
use super::{changes, migrate, offers, require_file};

/// How long a read waits where the daemon is just setting the database up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads a database that a daemon may be writing, or nobody. Each call sees one moment of it.
#[derive(Debug)]
pub struct Reader {
    pub(super) connection: Connection,
    path: PathBuf,
}

/// Which lines of the ledger. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryFilter {
    /// Of this job.
    pub job: Option<JobName>,
    /// Of this instance.
    pub instance: Option<InstanceId>,
    /// Of this intent.
    pub intent: Option<IntentId>,
    /// Not before.
    pub from: Option<Time>,
    /// Before.
    pub to: Option<Time>,
    /// At most so many, the newest.
    pub limit: Option<u32>,
}

/// An instance that is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// When that was settled.
    pub at: Time,
    /// Its last record.
    pub held: Held,
}

/// What is known of a slot over time.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotHistory {
    /// The first snapshot that listed it.
    pub first_seen: Time,
    /// The last snapshot that listed it.
    pub last_seen: Time,
    /// Whether the newest snapshot lists it.
    pub listed: bool,
    /// Its offers as they changed, in order.
    pub versions: Vec<SlotVersion>,
}

/// An offer between two changes.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotVersion {
    /// The first snapshot that saw it so, or the oldest that is still kept.
    pub from: Time,
    /// The first snapshot that did not; `None`: it is so in the newest.
    pub to: Option<Time>,
    /// The offer.
    pub offer: Offer,
}

impl Reader {
    /// Opens a database for reading.
    ///
    /// # Errors
    /// There is none at `path`, it is not haggle's, or its schema is older or newer than ours.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        require_file(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        migrate::require_current(&connection)?;
        Ok(Self {
            connection,
            path: path.to_path_buf(),
        })
    }

    /// Over a connection to the database, or to a copy, that was at `path`.
    pub(super) fn over(connection: Connection, path: &Path) -> Self {
        Self {
            connection,
            path: path.to_path_buf(),
        }
    }

    /// All that is known, as the daemon would load it.
    ///
    /// # Errors
    /// What SQLite may say, or a record that cannot be read.
    pub fn state(&self) -> Result<State, StoreError> {
        let moment = self.connection.unchecked_transaction()?;
        let mut state = changes::load(&moment)?;
        moment.finish()?;
        state.killed |= kill_file_present(&self.path);
        Ok(state)
    }

    /// The newest snapshot with its number; `None` before the first.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn last_snapshot(&self) -> Result<Option<(i64, Snapshot)>, StoreError> {
        let moment = self.connection.unchecked_transaction()?;
        let image = Image::read(&moment)?;
        moment.finish()?;
        Ok(image.to_snapshot())
    }

    /// A snapshot, whole; `None` where there is none of this number, or no longer.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn snapshot(&self, id: i64) -> Result<Option<Snapshot>, StoreError> {
        let moment = self.connection.unchecked_transaction()?;
        let image = Image::read_as_of(&moment, id)?;
        moment.finish()?;
        Ok(image.and_then(|image| image.to_snapshot()).map(|(_, s)| s))
    }

    /// The last `limit` events, of one job or all, oldest first.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn events(&self, job: Option<&JobName>, limit: u32) -> Result<Vec<Event>, StoreError> {
        let columns = "at, severity, kind, job, replica, instance, text";
        let (filter, job) = match job {
            Some(job) => ("WHERE job = ?2", Some(job.as_str().to_owned())),
            None => ("WHERE ?2 IS NULL", None),
        };
        let sql = format!("SELECT {columns} FROM events {filter} ORDER BY id DESC LIMIT ?1");
        let mut events = self.rows(&sql, &[&limit, &job], |row| {
            let of_replica = row.get_ref(3)? != rusqlite::types::ValueRef::Null;
            Ok(Event {
                at: Time(row.get(0)?),
                severity: word_at(row, 1)?,
                kind: row.get(2)?,
                replica: of_replica
                    .then(|| changes::replica_at(row, 3, 4))
                    .transpose()?,
                instance: optional_id_at(row, 5)?.map(InstanceId),
                text: row.get(6)?,
            })
        })?;
        events.reverse();
        Ok(events)
    }

    /// Lines of the ledger, oldest first.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn entries(&self, filter: &EntryFilter) -> Result<Vec<Entry>, StoreError> {
        let mut conditions = Vec::new();
        let mut values: Vec<Value> = Vec::new();
        let mut condition = |sql: &'static str, value: Option<Value>| {
            if let Some(value) = value {
                conditions.push(sql);
                values.push(value);
            }
        };
        let job = filter.job.as_ref().map(|job| job.as_str().to_owned());
        condition("job = ?", job.map(Value::Text));
        let number = |n: u64| Value::Integer(id(n));
        condition("instance = ?", filter.instance.map(|i| number(i.0)));
        condition("intent = ?", filter.intent.map(|i| number(i.0)));
        condition("at >= ?", filter.from.map(|t| Value::Integer(t.0)));
        condition("at < ?", filter.to.map(|t| Value::Integer(t.0)));
        let conditions = if conditions.is_empty() {
            "1".to_owned()
        } else {
            conditions.join(" AND ")
        };
        // A negative limit is none.
        values.push(Value::Integer(filter.limit.map_or(-1, i64::from)));
        let sql = format!(
            "SELECT {ENTRY_COLUMNS} FROM entries JOIN payers ON payers.id = entries.payer
             WHERE {conditions} ORDER BY entries.id DESC LIMIT ?"
        );
        let mut statement = self.connection.prepare(&sql)?;
        let rows = statement.query_map(params_from_iter(values), entry_at)?;
        let mut entries = rows.collect::<Result<Vec<_>, _>>()?;
        entries.reverse();
        Ok(entries)
    }

    /// The last `limit` instances that are gone, newest first.
    ///
    /// # Errors
    /// What SQLite may say, or a record that cannot be read.
    pub fn ended(&self, limit: u32) -> Result<Vec<Ended>, StoreError> {
        let sql = "SELECT at, record FROM ended ORDER BY at DESC, instance DESC LIMIT ?1";
        self.rows(sql, params![limit], |row| {
            Ok(Ended {
                at: Time(row.get(0)?),
                held: json_at(row, 1)?,
            })
        })
    }

    /// The last `limit` intents that are still kept, settled or not, newest first.
    ///
    /// # Errors
    /// What SQLite may say, or a record that cannot be read.
    pub fn intents(&self, limit: u32) -> Result<Vec<Intent>, StoreError> {
        let sql = "SELECT record FROM intents ORDER BY id DESC LIMIT ?1";
        self.rows(sql, params![limit], |row| json_at(row, 0))
    }

    /// The last `limit` ticks, newest first.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn ticks(&self, limit: u32) -> Result<Vec<TickRecord>, StoreError> {
        let sql = format!("SELECT {TICK_COLUMNS} FROM ticks ORDER BY id DESC LIMIT ?1");
        self.rows(&sql, params![limit], tick_at)
    }

    /// The newest tick whose world was kept and that did something for a job, or for any.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn tick_with_world(&self, job: Option<&JobName>) -> Result<Option<TickRecord>, StoreError> {
        let acted = match job {
            Some(_) => {
                "CASE WHEN json_valid(plan) THEN EXISTS (
                    SELECT 1 FROM json_each(plan, '$.actions') action
                    WHERE action.value ->> '$.replica.job' = ?1) ELSE 0 END"
            }
            None => "?1 IS NULL",
        };
        let sql = format!(
            "SELECT {TICK_COLUMNS} FROM ticks
             WHERE world IS NOT NULL AND {acted} ORDER BY id DESC LIMIT 1"
        );
        let found = self
            .connection
            .query_row(&sql, params![job.map(JobName::as_str)], tick_at);
        Ok(found.optional()?)
    }

    /// What is known of a slot; `None` where it was never listed.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn slot_history(&self, slot: Slot) -> Result<Option<SlotHistory>, StoreError> {
        let moment = self.connection.unchecked_transaction()?;
        let seen: Option<(i64, Option<i64>)> = moment
            .query_row(
                "SELECT first_seen, last_seen FROM slots WHERE machine = ?1 AND gpus = ?2",
                params![id(slot.machine.0), slot.gpus],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        let Some((first_seen, last_seen)) = seen else {
            return Ok(None);
        };
        let newest: i64 = moment.query_row(
            "SELECT at FROM snapshots ORDER BY id DESC LIMIT 1",
            [],
            |row| row.get(0),
        )?;
        let versions = offers::slot_versions(&moment, slot)?;
        moment.finish()?;
        Ok(Some(SlotHistory {
            first_seen: Time(first_seen),
            last_seen: Time(last_seen.unwrap_or(newest)),
            listed: last_seen.is_none(),
            versions: versions
                .into_iter()
                .map(|(from, to, offer)| SlotVersion { from, to, offer })
                .collect(),
        }))
    }

    /// What the ledger's lines add up to, by job: (job, posted, reserved). The same sums as in the
    /// state, reckoned anew.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn balances(&self) -> Result<Vec<(JobName, Money, Money)>, StoreError> {
        let sql = "SELECT job, posted, reserved FROM balance ORDER BY job";
        self.rows(sql, &[], |row| {
            Ok((
                changes::job_at(row, 0)?,
                Money(row.get(1)?),
                Money(row.get(2)?),
            ))
        })
    }

    pub(super) fn rows<T>(
        &self,
        sql: &str,
        parameters: &[&dyn rusqlite::ToSql],
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(parameters, read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

pub(super) const TICK_COLUMNS: &str =
    "tick, at, snapshot, config_hash, jobs_hash, world_hash, world, plan";

pub(super) fn tick_at(row: &Row<'_>) -> rusqlite::Result<TickRecord> {
    Ok(TickRecord {
        tick: id_at(row, 0)?,
        at: Time(row.get(1)?),
        snapshot: row.get(2)?,
        config_hash: row.get(3)?,
        jobs_hash: row.get(4)?,
        world_hash: row.get(5)?,
        world: row.get(6)?,
        plan: row.get(7)?,
    })
}

pub(super) const ENTRY_COLUMNS: &str =
    "at, day, kind, job, replica, intent, instance, component, amount, owner, tags";

pub(super) fn entry_at(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        at: Time(row.get(0)?),
        day: day_at(row, 1)?,
        kind: word_at(row, 2)?,
        replica: changes::replica_at(row, 3, 4)?,
        payer: Payer {
            owner: row.get(9)?,
            tags: json_at(row, 10)?,
        },
        intent: IntentId(id_at(row, 5)?),
        instance: optional_id_at(row, 6)?.map(InstanceId),
        component: component_at(row, 7)?,
        amount: Money(row.get(8)?),
    })
}

/// A calendar day.
pub(super) fn day_at(row: &Row<'_>, column: usize) -> rusqlite::Result<chrono::NaiveDate> {
    let day: String = row.get(column)?;
    day.parse().map_err(|error| conversion(column, error))
}

pub(super) fn component_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Component>> {
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => word_at(row, column).map(Some),
    }
}
