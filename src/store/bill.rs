//! What was billed, and how it differs from what was reckoned.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use rusqlite::{Connection, params};

use crate::ports::StoreError;
use crate::types::ids::InstanceId;
use crate::types::ledger::{BilledDays, Component, Drift};
use crate::types::money::Money;

use super::changes::job_at;
use super::error::{id, id_at};
use super::reader::{Reader, component_at, day_at};

/// What the bill lines of an instance come to, by day and component.
pub(super) fn billed(
    connection: &Connection,
    instance: InstanceId,
) -> Result<BilledDays, StoreError> {
    // Added up here and not in SQL, where a sum that fits no integer is an error.
    let mut statement = connection.prepare_cached(
        "SELECT day, component, amount FROM entries WHERE kind = 'bill' AND instance = ?1
         ORDER BY id",
    )?;
    let mut days = BilledDays::new();
    let mut rows = statement.query([id(instance.0)])?;
    while let Some(row) = rows.next()? {
        let key = (day_at(row, 0)?, component_at(row, 1)?);
        *days.entry(key).or_default() += Money(row.get(2)?);
    }
    Ok(days)
}

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// What was reckoned and what was billed on the days in UTC from one to another, by instance and
/// day.
pub(super) fn drift(
    connection: &Connection,
    from: NaiveDate,
    to: NaiveDate,
) -> Result<Vec<Drift>, StoreError> {
    let begins = |day: NaiveDate| {
        let midnight = day.and_time(chrono::NaiveTime::MIN).and_utc();
        midnight.timestamp_millis()
    };
    let mut drifts: BTreeMap<(NaiveDate, InstanceId), Drift> = BTreeMap::new();
    // The days of bills are in UTC; what was accrued is dated in the configured zone, so its own
    // moment says on which of their days it was.
    let mut statement = connection.prepare_cached(
        "SELECT instance, job, day, component, amount, 1 FROM entries
         WHERE kind = 'bill' AND instance IS NOT NULL AND day BETWEEN ?1 AND ?2
         UNION ALL
         SELECT instance, job, strftime('%Y-%m-%d', at / 1000, 'unixepoch'), component, amount, 0
         FROM entries
         WHERE kind = 'accrue' AND instance IS NOT NULL AND at >= ?3 AND at < ?4",
    )?;
    let mut rows = statement.query(params![
        from.to_string(),
        to.to_string(),
        begins(from),
        begins(to).saturating_add(DAY_MS)
    ])?;
    while let Some(row) = rows.next()? {
        let (instance, job, day) = (InstanceId(id_at(row, 0)?), job_at(row, 1)?, day_at(row, 2)?);
        let (component, amount) = (component_at(row, 3)?, Money(row.get(4)?));
        let billed: bool = row.get(5)?;
        let drift = drifts.entry((day, instance)).or_insert_with(|| Drift {
            instance,
            job,
            day,
            estimated: Money::ZERO,
            billed: Money::ZERO,
            traffic: Money::ZERO,
        });
        let sum = match (billed, component) {
            (true, Some(Component::Traffic)) => &mut drift.traffic,
            (true, _) => &mut drift.billed,
            (false, _) => &mut drift.estimated,
        };
        *sum += amount;
    }
    Ok(drifts.into_values().collect())
}

impl Reader {
    /// What was reckoned and what was billed, by day in UTC and instance, in that order.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn drift(&self, from: NaiveDate, to: NaiveDate) -> Result<Vec<Drift>, StoreError> {
        let moment = self.connection.unchecked_transaction()?;
        let drifts = drift(&moment, from, to)?;
        moment.finish()?;
        Ok(drifts)
    }
}
