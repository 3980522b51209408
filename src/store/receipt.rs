//! A month's receipt, from the ledger's lines.

use std::collections::BTreeMap;

use chrono::{Months, NaiveDate};
use rusqlite::params;

use crate::ports::StoreError;
use crate::types::ids::{HostId, InstanceId, JobName};
use crate::types::instance::Held;
use crate::types::ledger::{Component, EntryKind, Payer, month_of};
use crate::types::money::Money;
use crate::types::state::{Achieved, JobRecord};

use super::changes::job_at;
use super::error::{json_at, optional_id_at, word_at};
use super::reader::{Reader, component_at};

/// What was paid: all of it, and how much of it the marketplace has billed for the month's days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paid {
    /// Posted on the month's days: estimates with their corrections.
    pub spend: Money,
    /// Billed for the month's days.
    pub billed: Money,
}

impl Paid {
    /// What is reckoned and not billed. Negative where a correction was posted in another month than
    /// the one whose days it is for.
    pub fn unbilled(self) -> Money {
        self.spend - self.billed
    }
}

/// What hosts that failed cost in a month.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostLoss {
    /// Paid for instances that never ran.
    pub failed_starts: Money,
    /// What work cost that was lost with its host.
    pub lost_work: Money,
    /// Of how many instances.
    pub instances: u32,
}

/// What a month came to. Every division of it adds up to [`Receipt::paid`] exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// All that was paid.
    pub paid: Paid,
    /// By job and on whose behalf.
    pub jobs: BTreeMap<(JobName, Payer), Paid>,
    /// By component; `None` is what no component is known of.
    pub components: BTreeMap<Option<Component>, Paid>,
    /// What each job achieved.
    pub achieved: BTreeMap<JobName, Achieved>,
    /// What was lost to hosts that failed; `None` is where the host is not known.
    pub losses: BTreeMap<Option<HostId>, HostLoss>,
}

impl Reader {
    /// The receipt of the month of a day, in the time zone in which days were counted.
    ///
    /// # Errors
    /// What SQLite may say, or a record that cannot be read.
    pub fn receipt(&self, month: NaiveDate) -> Result<Receipt, StoreError> {
        let first = month_of(month);
        let after = first.checked_add_months(Months::new(1)).unwrap_or(first);
        let moment = self.connection.unchecked_transaction()?;
        let mut receipt = Receipt::default();
        let mut of_instances: BTreeMap<InstanceId, Money> = BTreeMap::new();
        let mut statement = moment.prepare(
            "SELECT job, owner, tags, instance, component, kind, amount
             FROM entries JOIN payers ON payers.id = entries.payer
             WHERE kind IN ('accrue', 'correct', 'bill') AND day >= ?1 AND day < ?2
             ORDER BY entries.id",
        )?;
        let mut rows = statement.query(params![first.to_string(), after.to_string()])?;
        while let Some(row) = rows.next()? {
            let payer = Payer {
                owner: row.get(1)?,
                tags: json_at(row, 2)?,
            };
            let (kind, amount): (EntryKind, _) = (word_at(row, 5)?, Money(row.get(6)?));
            let job = receipt.jobs.entry((job_at(row, 0)?, payer)).or_default();
            let component = receipt.components.entry(component_at(row, 4)?).or_default();
            for paid in [&mut receipt.paid, job, component] {
                if kind.spends() {
                    paid.spend += amount;
                } else {
                    paid.billed += amount;
                }
            }
            if let (true, Some(id)) = (kind.spends(), optional_id_at(row, 3)?) {
                *of_instances.entry(InstanceId(id)).or_default() += amount;
            }
        }
        let records = "SELECT record FROM jobs";
        for job in self.rows(records, &[], |row| json_at::<JobRecord>(row, 0))? {
            if let Some(achieved) = job.months.get(&first) {
                receipt.achieved.insert(job.name, *achieved);
            }
        }
        let instances = "SELECT record, 0 FROM held UNION ALL SELECT record, 1 FROM ended";
        for (held, ended) in self.rows(instances, &[], |row| {
            Ok((json_at::<Held>(row, 0)?, row.get::<_, bool>(1)?))
        })? {
            let paid = of_instances.get(&held.id).copied().unwrap_or_default();
            let mut lost = HostLoss::default();
            if ended && held.failed_to_start() {
                lost.failed_starts = paid;
            } else {
                lost.lost_work = held.lost_work.get(&first).copied().unwrap_or_default();
            }
            if lost != HostLoss::default() {
                let sum = receipt.losses.entry(held.host).or_default();
                sum.failed_starts += lost.failed_starts;
                sum.lost_work += lost.lost_work;
                sum.instances += 1;
            }
        }
        drop(rows);
        drop(statement);
        moment.finish()?;
        Ok(receipt)
    }
}
