//! What happened, told in pages: events, decisions, bids, and the market of some models over time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{OptionalExtension, params};

use super::error::{id, json_at, optional_id_at, word_at};
use super::reader::{TICK_COLUMNS, tick_at};
use super::{Ended, Reader, changes};
use crate::ports::StoreError;
use crate::types::ids::{InstanceId, JobName};
use crate::types::intent::Intent;
use crate::types::money::Rate;
use crate::types::state::{Event, TickRecord};
use crate::types::time::Time;

/// The cheapest that some models were listed at, around a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cheapest {
    /// When.
    pub at: Time,
    /// The least floor of what could be rented; `None`: none was known.
    pub floor: Option<Rate>,
    /// The least on-demand rate of what could be rented; `None`: none was known.
    pub on_demand: Option<Rate>,
}

/// Steps of SQLite's machine between two looks whether anybody still waits: far under a millisecond.
const STEPS: std::ffi::c_int = 10_000;

impl Reader {
    /// From when `over` is set, whatever this reader reads fails, also what it has begun. One statement
    /// that is interrupted would not do: a read is several.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn ends_with(&mut self, over: Arc<AtomicBool>) -> Result<(), StoreError> {
        let is_over = move || over.load(Ordering::Relaxed);
        Ok(self.connection.progress_handler(STEPS, Some(is_over))?)
    }

    /// Events of a job or all, newest first, with their numbers: at most `limit`, those before number
    /// `before`.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn story(
        &self,
        job: Option<&JobName>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<(i64, Event)>, StoreError> {
        let job = job.map(JobName::as_str);
        let of_job = if job.is_some() {
            "job = ?1"
        } else {
            "?1 IS NULL"
        };
        let sql = format!(
            "SELECT at, severity, kind, job, replica, instance, text, id FROM events
             WHERE {of_job} AND id < ?2 ORDER BY id DESC LIMIT ?3"
        );
        let before = before.unwrap_or(i64::MAX);
        self.rows(&sql, params![job, before, limit], |row| {
            let of_replica = row.get_ref(3)? != rusqlite::types::ValueRef::Null;
            let event = Event {
                at: Time(row.get(0)?),
                severity: word_at(row, 1)?,
                kind: row.get(2)?,
                replica: of_replica
                    .then(|| changes::replica_at(row, 3, 4))
                    .transpose()?,
                instance: optional_id_at(row, 5)?.map(InstanceId),
                text: row.get(6)?,
            };
            Ok((row.get(7)?, event))
        })
    }

    /// Ticks that decided to do something, for a job or any, newest first and without their worlds: at
    /// most `limit`, those before tick `before`.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn decisions(
        &self,
        job: Option<&JobName>,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<TickRecord>, StoreError> {
        let job = job.map(JobName::as_str);
        let of_job = if job.is_some() {
            "CASE WHEN json_valid(plan) THEN EXISTS (
                SELECT 1 FROM json_each(plan, '$.actions') action
                WHERE action.value ->> '$.replica.job' = ?1) ELSE 0 END"
        } else {
            "?1 IS NULL"
        };
        let columns = TICK_COLUMNS.replace(" world,", " NULL,");
        let sql = format!(
            "SELECT {columns} FROM ticks
             WHERE world IS NOT NULL AND tick < ?2 AND {of_job} ORDER BY id DESC LIMIT ?3"
        );
        let before = before.map_or(i64::MAX, |tick| i64::try_from(tick).unwrap_or(i64::MAX));
        self.rows(&sql, params![job, before, limit], tick_at)
    }

    /// A tick by its number, with its world where it was kept.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn tick(&self, tick: u64) -> Result<Option<TickRecord>, StoreError> {
        // The newest first: `ticks` has no index on the number, and the row's own numbers go with it.
        let sql = format!(
            "SELECT {TICK_COLUMNS} FROM ticks
             WHERE world IS NOT NULL AND tick = ?1 ORDER BY id DESC LIMIT 1"
        );
        let found = self.connection.query_row(
            &sql,
            params![i64::try_from(tick).unwrap_or(i64::MAX)],
            tick_at,
        );
        Ok(found.optional()?)
    }

    /// The last `limit` instances of a job that are gone, newest first.
    ///
    /// # Errors
    /// What SQLite may say, or a record that cannot be read.
    pub fn ended_of(&self, job: &JobName, limit: u32) -> Result<Vec<Ended>, StoreError> {
        let sql =
            "SELECT at, record FROM ended WHERE job = ?1 ORDER BY at DESC, instance DESC LIMIT ?2";
        self.rows(sql, params![job.as_str(), limit], |row| {
            Ok(Ended {
                at: Time(row.get(0)?),
                held: json_at(row, 1)?,
            })
        })
    }

    /// What was sent and took effect on an instance: its rent, and the bids made for it, oldest first,
    /// at most the last `limit`.
    ///
    /// # Errors
    /// What SQLite may say, or a record that cannot be read.
    pub fn bids_of(&self, instance: InstanceId, limit: u32) -> Result<Vec<Intent>, StoreError> {
        let sql = "SELECT record FROM intents
                   WHERE state = 'done' AND instance = ?1 AND effect IN ('rent', 'set-bid')
                   ORDER BY id DESC LIMIT ?2";
        let mut bids: Vec<Intent> =
            self.rows(sql, params![id(instance.0), limit], |row| json_at(row, 0))?;
        bids.reverse();
        Ok(bids)
    }

    /// The cheapest that slots of so many GPUs were listed at, of the models that `wanted` takes, at
    /// `points` moments from `from` to the newest snapshot. Moments before the first snapshot that is
    /// kept are left out.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn cheapest_over_time(
        &self,
        gpus: u32,
        wanted: impl Fn(&str) -> bool,
        (from, to, points): (Time, Time, u32),
    ) -> Result<Vec<Cheapest>, StoreError> {
        let moment = self.connection.unchecked_transaction()?;
        let names: Vec<String> = self.rows(
            "SELECT DISTINCT gpu_name FROM offer_specs WHERE gpus = ?1",
            params![gpus],
            |row| row.get(0),
        )?;
        let names: BTreeSet<String> = names.into_iter().filter(|name| wanted(name)).collect();
        let grid = self.grid(from, to, points)?;
        let (Some(first), Some(last)) = (grid.first().copied(), grid.last().copied()) else {
            return Ok(Vec::new());
        };
        let mut cheapest: Vec<Cheapest> = grid
            .iter()
            .map(|&(_, at)| Cheapest {
                at,
                floor: None,
                on_demand: None,
            })
            .collect();
        for name in &names {
            let mut statement = self.connection.prepare_cached(
                "SELECT v.from_snapshot, v.to_snapshot, v.floor, v.on_demand
                 FROM offer_specs s JOIN offer_versions v ON v.spec = s.id
                 WHERE s.gpus = ?1 AND s.gpu_name = ?2 AND v.from_snapshot <= ?4
                   AND (v.to_snapshot IS NULL OR v.to_snapshot > ?3) AND v.rentable IS NOT 0",
            )?;
            let mut rows = statement.query(params![gpus, name, first.0, last.0])?;
            while let Some(row) = rows.next()? {
                let (begin, end): (i64, Option<i64>) = (row.get(0)?, row.get(1)?);
                let floor: Option<Rate> = row.get::<_, Option<i64>>(2)?.map(Rate);
                let on_demand: Option<Rate> = row.get::<_, Option<i64>>(3)?.map(Rate);
                let begins = grid.partition_point(|&(snapshot, _)| snapshot < begin);
                let ends = end.map_or(grid.len(), |end| {
                    grid.partition_point(|&(snapshot, _)| snapshot < end)
                });
                for point in cheapest.iter_mut().take(ends).skip(begins) {
                    point.floor = least(point.floor, floor);
                    point.on_demand = least(point.on_demand, on_demand);
                }
            }
        }
        moment.finish()?;
        Ok(cheapest)
    }

    /// At most so many snapshots spread over a span, with their times, in order, each once.
    fn grid(&self, from: Time, to: Time, points: u32) -> Result<Vec<(i64, Time)>, StoreError> {
        let first = "SELECT at FROM snapshots ORDER BY id LIMIT 1";
        let first: Option<i64> = self
            .connection
            .query_row(first, [], |row| row.get(0))
            .optional()?;
        // What was not recorded takes no moments from what was.
        let from = from.max(first.map_or(from, Time));
        let span = to.ms_since(from).max(1);
        let steps = i64::from(points.max(2)) - 1;
        let mut statement = self.connection.prepare_cached(
            "SELECT id, at FROM snapshots WHERE at <= ?1 ORDER BY id DESC LIMIT 1",
        )?;
        let mut grid: Vec<(i64, Time)> = Vec::new();
        for step in 0..=steps {
            let at = from.0.saturating_add(span / steps * step);
            let at = if step == steps { to.0 } else { at };
            let found: Option<(i64, i64)> = statement
                .query_row(params![at], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            if let Some((snapshot, at)) = found
                && grid.last().is_none_or(|&(last, _)| last < snapshot)
            {
                grid.push((snapshot, Time(at)));
            }
        }
        Ok(grid)
    }
}

fn least(a: Option<Rate>, b: Option<Rate>) -> Option<Rate> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::eligible::samples::{NOW, offer, usd};
    use crate::ports::Store;
    use crate::store::SqliteStore;
    use crate::types::ids::Installation;
    use crate::types::offer::{Offer, Snapshot};
    use crate::types::state::{Change, Severity};

    const HOUR: Duration = Duration::from_hours(1);

    fn listed(machine: u64, model: &str, floor: f64, rentable: bool) -> Offer {
        Offer {
            gpu_name: Arc::from(model),
            floor: Some(usd(floor)),
            rentable: Some(rentable),
            ..offer(machine)
        }
    }

    fn store() -> (tempfile::TempDir, SqliteStore, Reader) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("haggle.db");
        let store = SqliteStore::open(&path, Some(Installation::from_seed(1)), 1).unwrap();
        let reader = Reader::open(&path).unwrap();
        (directory, store, reader)
    }

    #[test]
    fn the_cheapest_is_of_what_suits_and_could_be_rented_then() {
        let (_directory, mut store, reader) = store();
        let none = reader.cheapest_over_time(1, |_| true, (NOW, NOW + HOUR, 8));
        assert_eq!(none.unwrap(), Vec::new());
        let hours = [
            vec![
                listed(1, "RTX 4090", 0.3, true),
                listed(2, "RTX 3090", 0.1, true),
            ],
            // A cheaper one comes, and one that nobody can rent.
            vec![
                listed(1, "RTX 4090", 0.3, true),
                listed(3, "RTX 4090", 0.2, true),
                listed(4, "RTX 4090", 0.05, false),
            ],
            vec![listed(1, "RTX 4090", 0.4, true)],
            Vec::new(),
        ];
        for (hour, offers) in hours.into_iter().enumerate() {
            let snapshot = Snapshot {
                at: NOW + HOUR * hour as u32,
                offers,
                coverage: Vec::new(),
            };
            store.snapshot(&snapshot).unwrap();
        }
        let to = NOW + HOUR * 3;
        let wanted = |name: &str| name == "RTX 4090";
        let found = reader.cheapest_over_time(1, wanted, (NOW, to, 4)).unwrap();
        let floors: Vec<_> = found.iter().map(|one| one.floor).collect();
        assert_eq!(
            floors,
            [Some(usd(0.3)), Some(usd(0.2)), Some(usd(0.4)), None]
        );
        assert_eq!(found[1].at, NOW + HOUR);
        // Moments between the same two snapshots are one.
        let dense = reader.cheapest_over_time(1, wanted, (NOW, to, 90)).unwrap();
        assert_eq!(dense.len(), 4);
        let two = reader.cheapest_over_time(2, wanted, (NOW, to, 4)).unwrap();
        assert!(two.iter().all(|one| one.floor.is_none()));
    }

    #[test]
    fn a_read_for_nobody_ends_and_none_begins_after_it() {
        let (_directory, _store, mut reader) = store();
        let over = Arc::new(AtomicBool::new(false));
        reader.ends_with(Arc::clone(&over)).unwrap();
        assert!(reader.story(None, None, 9).is_ok());
        // Would count for a minute and more.
        let long =
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 4000000000)
                    SELECT count(*) FROM n";
        std::thread::scope(|scope| {
            let read = scope.spawn(move || {
                let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
                (reader.rows(long, &[], count), reader.rows(long, &[], count))
            });
            over.store(true, Ordering::Relaxed);
            let (begun, later) = read.join().unwrap();
            assert!(begun.is_err(), "{begun:?}");
            assert!(later.is_err(), "{later:?}");
        });
    }

    #[test]
    fn what_happened_is_told_in_pages() {
        let (_directory, mut store, reader) = store();
        let event = |number: i64, job: &str| {
            Change::Event(Event {
                at: Time(number),
                severity: Severity::Info,
                kind: "test".to_owned(),
                replica: Some(crate::types::ids::ReplicaId {
                    job: job.parse().unwrap(),
                    index: 0,
                }),
                instance: None,
                text: number.to_string(),
            })
        };
        let all: Vec<Change> = (1..=5)
            .map(|n| event(n, if n == 3 { "b" } else { "a" }))
            .collect();
        store.commit(&all).unwrap();
        let texts = |page: &[(i64, Event)]| -> Vec<String> {
            page.iter().map(|(_, event)| event.text.clone()).collect()
        };
        let first = reader.story(None, None, 2).unwrap();
        assert_eq!(texts(&first), ["5", "4"]);
        let next = reader
            .story(None, first.last().map(|(id, _)| *id), 9)
            .unwrap();
        assert_eq!(texts(&next), ["3", "2", "1"]);
        let of = "b".parse().unwrap();
        assert_eq!(texts(&reader.story(Some(&of), None, 9).unwrap()), ["3"]);
    }
}
