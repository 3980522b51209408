//! `haggle spend`: what it has cost, by job, owner, day, GPU model or month.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::context::{Context, load_policies, open_reader};
use super::failure::{Done, Exit, Failure};
use super::output::Align;
use super::sheet::{Sheet, harmless};
use super::show_limits;
use crate::config::Config;
use crate::store::{Group, Spend};
use crate::types::job::Job;
use crate::types::money::Money;
use crate::types::plan::Projection;
use crate::view::limits::{self, LimitDocument};

/// Shows what was spent.
#[derive(Args, Clone, Debug)]
pub(crate) struct SpendArgs {
    /// By what it is added up.
    #[arg(long, value_name = "WHAT", default_value = "job")]
    by: By,
    /// Write comma-separated values, for accounting.
    #[arg(long)]
    csv: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Job,
    Owner,
    Day,
    Gpu,
    Month,
}

impl By {
    fn word(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Owner => "owner",
            Self::Day => "day",
            Self::Gpu => "gpu",
            Self::Month => "month",
        }
    }
}

#[derive(Debug, Serialize)]
struct RowDocument {
    #[serde(flatten)]
    key: BTreeMap<&'static str, String>,
    gpu_dollars: String,
    disk_dollars: String,
    traffic_dollars: String,
    spend_dollars: String,
    billed_dollars: Option<String>,
}

#[derive(Debug, Serialize)]
struct SpendDocument {
    by: &'static str,
    timezone: String,
    spend_dollars: String,
    rows: Vec<RowDocument>,
    /// Every limit with what counts against it, as the database knows it; of the credit it knows
    /// nothing.
    limits: Vec<LimitDocument>,
}

pub(crate) fn run(context: &Context, args: &SpendArgs) -> Done {
    if args.csv && context.global.json {
        return Err(Failure::mendable(
            "--csv and --json are two ways to write it; take one",
        ));
    }
    let config = context.config()?;
    let rows = rows(context, &config, args.by)?;
    let total: Money = rows.iter().map(|row| row.total).sum();
    let limits = limits(context, &config)?;
    let now = context.now();
    let by = args.by.word();
    let document = SpendDocument {
        by,
        timezone: config.timezone.to_string(),
        spend_dollars: total.decimal(),
        rows: rows
            .iter()
            .map(|row| RowDocument {
                key: BTreeMap::from([(by, row.key.clone())]),
                gpu_dollars: row.gpu.decimal(),
                disk_dollars: row.disk.decimal(),
                traffic_dollars: row.traffic.decimal(),
                spend_dollars: row.total.decimal(),
                billed_dollars: row.billed.map(Money::decimal),
            })
            .collect(),
        limits: limits::documents(&limits),
    };
    if args.csv {
        context.output.bytes(&csv(&document)?)?;
        return Ok(Exit::Success);
    }
    context.output.show(&document, || {
        let columns = [
            (by, Align::Left),
            ("gpu", Align::Right),
            ("disk", Align::Right),
            ("traffic", Align::Right),
            ("spent", Align::Right),
            ("billed", Align::Right),
        ];
        let mut table: Vec<Vec<String>> = rows.iter().map(cells).collect();
        if rows.len() != 1 {
            let sum = |part: fn(&Spend) -> Money| rows.iter().map(part).sum::<Money>();
            table.push(cells(&Spend {
                key: "total".into(),
                gpu: sum(|row| row.gpu),
                disk: sum(|row| row.disk),
                traffic: sum(|row| row.traffic),
                total,
                billed: rows.iter().map(|row| row.billed).sum(),
            }));
        }
        let mut text = context.output.table(&columns, table);
        let limits = show_limits::table(context.output, &limits, now);
        if !limits.is_empty() {
            text = format!("{}\n\n{limits}", text.trim_end());
        }
        text
    })?;
    Ok(Exit::Success)
}

/// The limits of the jobs that have a policy that can be used, of owners, tags and the account.
fn limits(context: &Context, config: &Config) -> Result<Vec<Projection>, Failure> {
    let loaded = if config.policies.is_dir() {
        load_policies(config)?
    } else {
        crate::policy::Loaded::default()
    };
    let jobs: Vec<&Job> = loaded.jobs.iter().map(|loaded| &loaded.job).collect();
    let state = open_reader(config)?.state()?;
    Ok(limits::known(
        context.now(),
        &config.engine(),
        &jobs,
        &state,
    ))
}

fn csv(document: &SpendDocument) -> Result<Vec<u8>, Failure> {
    let mut sheet = Sheet::new([
        document.by,
        "gpu_dollars",
        "disk_dollars",
        "traffic_dollars",
        "spend_dollars",
        "billed_dollars",
    ])?;
    for row in &document.rows {
        let key = row.key.values().next().map_or("", String::as_str);
        sheet.row([
            &harmless(key),
            row.gpu_dollars.as_str(),
            &row.disk_dollars,
            &row.traffic_dollars,
            &row.spend_dollars,
            row.billed_dollars.as_deref().unwrap_or_default(),
        ])?;
    }
    sheet.taken()
}

fn cells(row: &Spend) -> Vec<String> {
    let dollars = |money: Money| format!("{money:.2}");
    vec![
        row.key.clone(),
        dollars(row.gpu),
        dollars(row.disk),
        dollars(row.traffic),
        dollars(row.total),
        row.billed.map_or_else(|| "-".into(), dollars),
    ]
}

fn rows(context: &Context, config: &Config, by: By) -> Result<Vec<Spend>, Failure> {
    let reader = open_reader(config)?;
    let group = match by {
        By::Job | By::Owner => Group::Job,
        By::Day => Group::Day,
        By::Gpu => Group::Gpu,
        By::Month => Group::Month,
    };
    let rows = reader.spend_by(group, config.timezone)?;
    if by != By::Owner {
        return Ok(rows);
    }
    // Owners are in the policies, not in the ledger.
    let owners: BTreeMap<String, String> = context
        .jobs(config)?
        .iter()
        .filter_map(|job| Some((job.name.to_string(), job.owner.clone()?)))
        .collect();
    Ok(by_owner(&rows, &owners))
}

fn by_owner(rows: &[Spend], owners: &BTreeMap<String, String>) -> Vec<Spend> {
    let mut sums: BTreeMap<&str, Spend> = BTreeMap::new();
    for row in rows {
        let owner = owners.get(&row.key).map_or("none", String::as_str);
        let sum = sums.entry(owner).or_insert_with(|| Spend {
            key: owner.to_owned(),
            billed: Some(Money::ZERO),
            ..Spend::default()
        });
        sum.gpu += row.gpu;
        sum.disk += row.disk;
        sum.traffic += row.traffic;
        sum.total += row.total;
        // One part that is unknown makes the sum unknown.
        sum.billed = sum.billed.zip(row.billed).map(|(a, b)| a + b);
    }
    sums.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(key: &str, dollars: i64, billed: Option<i64>) -> Spend {
        Spend {
            key: key.into(),
            gpu: Money::dollars(dollars),
            total: Money::dollars(dollars),
            billed: billed.map(Money::dollars),
            ..Spend::default()
        }
    }

    #[test]
    fn owners_are_summed_from_jobs() {
        let rows = [
            spend("a", 1, Some(1)),
            spend("b", 2, None),
            spend("c", 4, Some(3)),
        ];
        let owners = BTreeMap::from([
            ("a".to_owned(), "ana".to_owned()),
            ("b".to_owned(), "ana".to_owned()),
        ]);
        let sums = by_owner(&rows, &owners);
        assert_eq!(sums, [spend("ana", 3, None), spend("none", 4, Some(3))]);
    }
}
