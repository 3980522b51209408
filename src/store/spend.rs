//! What was spent, by what.

use std::collections::BTreeMap;

use chrono_tz::Tz;

use crate::ports::StoreError;
use crate::types::ledger::Component;
use crate::types::money::Money;
use crate::types::time::Time;

use super::reader::{Reader, component_at};

/// By what spending is added up. Owners are in the policies, not here: they are added up from
/// jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// By job.
    Job,
    /// By GPU model.
    Gpu,
    /// By calendar day, as `2026-11-24`.
    Day,
    /// By calendar month, as `2026-11`.
    Month,
}

/// What was spent on one job, model, day or month.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spend {
    /// The job, the model (`unknown` where the ledger's line names no instance), the day or the
    /// month.
    pub key: String,
    /// Compute, as posted.
    pub gpu: Money,
    /// Disk, as posted.
    pub disk: Money,
    /// Traffic, as posted.
    pub traffic: Money,
    /// All of it, with what was posted for no component.
    pub total: Money,
    /// What the marketplace has charged so far, as its charge rows say; `None` for days and
    /// months, to which the rows of an instance are not divided.
    pub billed: Option<Money>,
}

/// Every offset of a time zone is a whole number of quarters of an hour (since 1972, and marketplaces
/// are younger), so that lines of the same quarter are of the same day wherever one is.
const QUARTER_MS: i64 = 15 * 60 * 1000;

impl Reader {
    /// What was posted to the ledger, added up; ordered by key.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn spend_by(&self, group: Group, timezone: Tz) -> Result<Vec<Spend>, StoreError> {
        let moment = self.connection.unchecked_transaction()?;
        let mut spends = BTreeMap::new();
        let key = match group {
            Group::Job => "job",
            Group::Gpu => {
                "COALESCE((SELECT gpu_name FROM held h WHERE h.instance = entries.instance),
                          (SELECT gpu_name FROM ended e WHERE e.instance = entries.instance),
                          'unknown')"
            }
            Group::Day | Group::Month => "''",
        };
        let quarter = match group {
            Group::Day | Group::Month => "at / ?1",
            Group::Job | Group::Gpu => "?1 * 0",
        };
        let sql = format!(
            "SELECT {key} AS name, {quarter} AS quarter, component, SUM(amount)
             FROM entries WHERE kind IN ('accrue', 'correct')
             GROUP BY name, quarter, component"
        );
        let rows = self.rows(&sql, &[&QUARTER_MS], |row| {
            let name: String = row.get(0)?;
            let quarter: i64 = row.get(1)?;
            Ok((name, quarter, component_at(row, 2)?, Money(row.get(3)?)))
        })?;
        for (name, quarter, component, amount) in rows {
            let begins = Time(quarter.saturating_mul(QUARTER_MS));
            let key = match group {
                Group::Job | Group::Gpu => name,
                Group::Day => begins.day(timezone).to_string(),
                Group::Month => begins.day(timezone).format("%Y-%m").to_string(),
            };
            let spend = entry(&mut spends, &key);
            spend.total += amount;
            match component {
                Some(Component::Gpu) => spend.gpu += amount,
                Some(Component::Disk) => spend.disk += amount,
                Some(Component::Traffic) => spend.traffic += amount,
                None => {}
            }
        }
        self.add_billed(group, &mut spends)?;
        moment.finish()?;
        Ok(spends.into_values().collect())
    }

    fn add_billed(
        &self,
        group: Group,
        spends: &mut BTreeMap<String, Spend>,
    ) -> Result<(), StoreError> {
        let key = match group {
            Group::Job => "job",
            Group::Gpu => "gpu_name",
            Group::Day | Group::Month => return Ok(()),
        };
        let sql = format!(
            "SELECT name, SUM(billed) FROM
                (SELECT {key} AS name, billed FROM held
                 UNION ALL SELECT {key} AS name, billed FROM ended)
             GROUP BY name"
        );
        let rows = self.rows(&sql, &[], |row| {
            Ok((row.get::<_, String>(0)?, Money(row.get(1)?)))
        })?;
        for spend in spends.values_mut() {
            spend.billed = Some(Money::ZERO);
        }
        for (name, billed) in rows {
            entry(spends, &name).billed = Some(billed);
        }
        Ok(())
    }
}

fn entry<'a>(spends: &'a mut BTreeMap<String, Spend>, key: &str) -> &'a mut Spend {
    spends.entry(key.to_owned()).or_insert_with(|| Spend {
        key: key.to_owned(),
        ..Spend::default()
    })
}
