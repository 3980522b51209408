//! History as rows, for other programs.

use std::ops::ControlFlow;

use rusqlite::types::ValueRef;
use rusqlite::{Row, params};
use serde::Serialize;
use serde_json::value::RawValue;

use super::reader::Reader;
use crate::ports::StoreError;
use crate::types::money::Money;
use crate::types::time::Time;

/// What may be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Export {
    /// Offers as they changed: a row for each version, with the time for which it stood.
    Offers,
    /// What happened, as people were told.
    Events,
    /// The ledger's lines.
    Ledger,
    /// What ticks decided: the plan, and the digests of what it was decided on.
    Decisions,
    /// Instances of ours, those that are gone and those that are not, by when they ended.
    Instances,
}

/// A column's name, with its unit, and what its values are.
struct Column(&'static str, Kind);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A number or a text, as it is kept.
    Plain,
    /// An id of 64 bits without a sign.
    Id,
    /// Milliseconds since the epoch.
    Time,
    /// Nano-dollars, or nano-dollars per hour.
    Dollars,
    /// 0 or 1.
    Flag,
    /// A JSON document.
    Json,
}

use Kind::{Dollars, Flag, Id, Json, Plain};

/// One value of a row. Times are in RFC 3339 and UTC, to the millisecond; money is decimal dollars.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Cell {
    /// Unknown.
    Unknown,
    /// A whole number.
    Integer(i64),
    /// An id.
    Id(u64),
    /// A number.
    Real(f64),
    /// A text that is this program's: a time, an amount, a fixed word.
    Fixed(String),
    /// A text of the user's or of the marketplace's.
    Text(String),
    /// Yes or no.
    Flag(bool),
    /// A JSON document.
    Json(Box<RawValue>),
}

impl Export {
    /// The columns' names, in the order of a row's values.
    pub fn columns(self) -> impl Iterator<Item = &'static str> {
        self.described().iter().map(|Column(name, _)| *name)
    }

    fn described(self) -> &'static [Column] {
        match self {
            Self::Offers => &[
                Column("from", Kind::Time),
                Column("to", Kind::Time),
                Column("offer", Id),
                Column("machine", Id),
                Column("host", Id),
                Column("gpus", Plain),
                Column("machine_gpus", Plain),
                Column("gpu_name", Plain),
                Column("gpu_ram_mb", Plain),
                Column("on_demand_dollars_per_hour", Dollars),
                Column("floor_dollars_per_hour", Dollars),
                Column("storage_dollars_per_gb_month", Dollars),
                Column("inet_down_dollars_per_gb", Dollars),
                Column("inet_up_dollars_per_gb", Dollars),
                Column("rentable", Flag),
                Column("rented", Flag),
                Column("ends_at", Kind::Time),
                Column("reliability", Plain),
                Column("disk_gb", Plain),
                Column("inet_down_mbit_s", Plain),
                Column("inet_up_mbit_s", Plain),
                Column("dlperf", Plain),
                Column("cpu_cores", Plain),
                Column("cpu_ram_mb", Plain),
                Column("verified", Flag),
                Column("datacenter", Flag),
                Column("country", Plain),
            ],
            Self::Events => &[
                Column("at", Kind::Time),
                Column("severity", Plain),
                Column("kind", Plain),
                Column("job", Plain),
                Column("replica", Plain),
                Column("instance", Id),
                Column("text", Plain),
            ],
            Self::Ledger => &[
                Column("line", Plain),
                Column("at", Kind::Time),
                Column("day", Plain),
                Column("kind", Plain),
                Column("job", Plain),
                Column("replica", Plain),
                Column("owner", Plain),
                Column("tags", Json),
                Column("intent", Id),
                Column("instance", Id),
                Column("component", Plain),
                Column("amount_dollars", Dollars),
            ],
            Self::Decisions => &[
                Column("tick", Plain),
                Column("at", Kind::Time),
                Column("snapshot", Plain),
                Column("config_hash", Plain),
                Column("jobs_hash", Plain),
                Column("world_hash", Plain),
                Column("plan", Json),
            ],
            Self::Instances => &[
                Column("instance", Id),
                Column("job", Plain),
                Column("replica", Plain),
                Column("machine", Id),
                Column("gpus", Plain),
                Column("gpu_name", Plain),
                Column("ended_at", Kind::Time),
                Column("billed_dollars", Dollars),
            ],
        }
    }

    /// Rows from the first time up to, but not with, the second.
    fn query(self) -> &'static str {
        match self {
            Self::Offers => {
                "SELECT f.at, t.at, v.offer, s.machine, s.host, s.gpus, s.machine_gpus, s.gpu_name,
                        s.gpu_ram_mb, v.on_demand, v.floor, s.storage_price, s.inet_down_price,
                        s.inet_up_price, v.rentable, v.rented, v.ends_at, v.reliability, v.disk_gb,
                        v.inet_down_mbit_s, v.inet_up_mbit_s, v.dlperf, s.cpu_cores, s.cpu_ram_mb,
                        s.verified, s.datacenter, s.country
                 FROM offer_versions v JOIN offer_specs s ON s.id = v.spec
                 LEFT JOIN snapshots f ON f.id = v.from_snapshot
                 LEFT JOIN snapshots t ON t.id = v.to_snapshot
                 WHERE COALESCE(t.at, ?1) >= ?1 AND COALESCE(f.at, ?1) < ?2
                 ORDER BY v.id"
            }
            Self::Events => {
                "SELECT at, severity, kind, job, replica, instance, text
                 FROM events WHERE at >= ?1 AND at < ?2 ORDER BY id"
            }
            Self::Ledger => {
                "SELECT e.id, e.at, e.day, e.kind, e.job, e.replica, p.owner, p.tags, e.intent,
                        e.instance, e.component, e.amount
                 FROM entries e JOIN payers p ON p.id = e.payer
                 WHERE e.at >= ?1 AND e.at < ?2 ORDER BY e.id"
            }
            Self::Decisions => {
                "SELECT tick, at, snapshot, config_hash, jobs_hash, world_hash, plan
                 FROM ticks WHERE at >= ?1 AND at < ?2 ORDER BY id"
            }
            Self::Instances => {
                "SELECT * FROM
                    (SELECT instance, job, replica, machine, gpus, gpu_name, at, billed
                     FROM ended WHERE at >= ?1 AND at < ?2
                     UNION ALL
                     SELECT instance, job, replica, machine, gpus, gpu_name, NULL, billed FROM held)
                 ORDER BY at IS NULL, at, instance"
            }
        }
    }
}

impl Reader {
    /// Hands out the rows of a time, `from` up to, but not with, `to`, one after the other, so that no
    /// more than one of them is in memory. Of instances, those that have not ended are of every time.
    ///
    /// # Errors
    /// What SQLite may say, or a value that is none of its column's.
    pub fn export(
        &self,
        what: Export,
        (from, to): (Time, Time),
        mut each: impl FnMut(&[Cell]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let columns = what.described();
        let mut statement = self.connection.prepare(what.query())?;
        let mut rows = statement.query(params![from.0, to.0])?;
        let mut cells = Vec::with_capacity(columns.len());
        while let Some(row) = rows.next()? {
            cells.clear();
            for (index, column) in columns.iter().enumerate() {
                cells.push(cell(row, index, column)?);
            }
            if each(&cells).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn cell(row: &Row<'_>, index: usize, Column(name, kind): &Column) -> Result<Cell, StoreError> {
    let wrong = || StoreError::Corrupt(format!("a value of {name} cannot be read"));
    Ok(match (row.get_ref(index)?, kind) {
        (ValueRef::Null, _) => Cell::Unknown,
        (ValueRef::Integer(value), Plain) => Cell::Integer(value),
        (ValueRef::Integer(value), Id) => Cell::Id(value.cast_unsigned()),
        (ValueRef::Integer(value), Kind::Time) => Cell::Fixed(Time(value).precise()),
        (ValueRef::Integer(value), Dollars) => Cell::Fixed(Money(value).decimal()),
        (ValueRef::Integer(value), Flag) => Cell::Flag(value != 0),
        (ValueRef::Real(value), Plain) => Cell::Real(value),
        (ValueRef::Text(text), Plain) => {
            let text = std::str::from_utf8(text).map_err(|_| wrong())?;
            Cell::Text(text.to_owned())
        }
        (ValueRef::Text(text), Json) => {
            Cell::Json(serde_json::from_slice(text).map_err(|_| wrong())?)
        }
        _ => return Err(wrong()),
    })
}
