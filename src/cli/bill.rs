//! `haggle bill`: what was reckoned and what was billed, by instance and day.

use chrono::{Days, NaiveDate};
use clap::Args;
use serde::Serialize;

use super::context::{Context, open_reader};
use super::failure::{Done, Exit};
use super::output::Align;
use crate::types::ledger::Drift;

/// Shows the marketplace's bill beside our own reckoning, by instance and day.
#[derive(Args, Clone, Debug)]
pub(crate) struct BillArgs {
    /// How many days back, today included.
    #[arg(long, value_name = "N", default_value_t = 31)]
    days: u32,
}

#[derive(Debug, Serialize)]
struct BillDocument {
    from: NaiveDate,
    to: NaiveDate,
    estimated_dollars: String,
    billed_dollars: String,
    drift_dollars: String,
    rows: Vec<RowDocument>,
}

#[derive(Debug, Serialize)]
struct RowDocument {
    day: NaiveDate,
    instance: u64,
    job: String,
    estimated_dollars: String,
    billed_dollars: String,
    drift_dollars: String,
    traffic_dollars: String,
}

pub(crate) fn run(context: &Context, args: &BillArgs) -> Done {
    let config = context.config()?;
    // The marketplace's days are in UTC.
    let to = context.now().day(chrono_tz::Tz::UTC);
    let back = Days::new(u64::from(args.days.max(1) - 1));
    let from = to.checked_sub_days(back).unwrap_or(to);
    let drifts = open_reader(&config)?.drift(from, to)?;
    let sum = |of: fn(&Drift) -> crate::types::money::Money| {
        drifts.iter().map(of).sum::<crate::types::money::Money>()
    };
    let (estimated, billed) = (sum(|row| row.estimated), sum(|row| row.billed));
    let document = BillDocument {
        from,
        to,
        estimated_dollars: estimated.decimal(),
        billed_dollars: billed.decimal(),
        drift_dollars: (billed - estimated).decimal(),
        rows: drifts
            .iter()
            .map(|drift| RowDocument {
                day: drift.day,
                instance: drift.instance.0,
                job: drift.job.to_string(),
                estimated_dollars: drift.estimated.decimal(),
                billed_dollars: drift.billed.decimal(),
                drift_dollars: drift.amount().decimal(),
                traffic_dollars: drift.traffic.decimal(),
            })
            .collect(),
    };
    context.output.show(&document, || {
        let columns = [
            ("day (UTC)", Align::Left),
            ("instance", Align::Left),
            ("job", Align::Left),
            ("estimated", Align::Right),
            ("billed", Align::Right),
            ("drift", Align::Right),
            ("traffic", Align::Right),
        ];
        let rows = drifts.iter().map(|drift| {
            vec![
                drift.day.to_string(),
                drift.instance.to_string(),
                drift.job.to_string(),
                format!("{:.4}", drift.estimated),
                format!("{:.4}", drift.billed),
                format!("{:.4}", drift.amount()),
                format!("{:.4}", drift.traffic),
            ]
        });
        context.output.table(&columns, rows.collect())
    })?;
    Ok(Exit::Success)
}
