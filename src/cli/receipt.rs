//! `haggle receipt`: what a month came to.

mod html;

use std::collections::BTreeMap;

use chrono::NaiveDate;
use clap::Args;
use serde::Serialize;

use super::context::{Context, open_reader};
use super::failure::{Done, Exit, Failure};
use super::output::Align;
use super::sheet::{Sheet, harmless};
use crate::store::{Paid, Receipt};
use crate::types::ledger::{Component, month_of};
use crate::types::money::Money;

/// Shows what a month came to: paid, saved, and lost to hosts that failed.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReceiptArgs {
    /// Which month, as 2026-11; the present one where it is left out.
    #[arg(value_name = "MONTH", value_parser = month)]
    month: Option<NaiveDate>,
    /// One line a job and owner, as comma-separated values.
    #[arg(long)]
    csv: bool,
    /// A page of its own, to print or to send.
    #[arg(long)]
    html: bool,
}

fn month(text: &str) -> Result<NaiveDate, String> {
    format!("{text}-01")
        .parse()
        .map_err(|_| "a month is written like 2026-11".to_owned())
}

#[derive(Debug, Serialize)]
struct ReceiptDocument {
    month: String,
    timezone: String,
    spend_dollars: String,
    billed_dollars: String,
    not_billed_dollars: String,
    useful_gpu_hours: f64,
    lost_gpu_hours: f64,
    on_demand_equivalent_dollars: String,
    saved_dollars: String,
    lost_to_hosts_dollars: String,
    jobs: Vec<JobDocument>,
    owners: Vec<PartDocument>,
    tags: Vec<PartDocument>,
    components: Vec<PartDocument>,
    hosts: Vec<HostDocument>,
}

#[derive(Debug, Serialize)]
struct JobDocument {
    job: String,
    owner: Option<String>,
    tags: Vec<String>,
    spend_dollars: String,
    billed_dollars: String,
    not_billed_dollars: String,
}

#[derive(Debug, Serialize)]
struct PartDocument {
    name: String,
    spend_dollars: String,
    billed_dollars: String,
    not_billed_dollars: String,
}

#[derive(Debug, Serialize)]
struct HostDocument {
    host: Option<u64>,
    instances: u32,
    failed_starts_dollars: String,
    lost_work_dollars: String,
}

fn hours(gpu_ms: i64) -> f64 {
    gpu_ms as f64 / 3_600_000.0
}

pub(crate) fn run(context: &Context, args: &ReceiptArgs) -> Done {
    if [args.csv, args.html, context.global.json]
        .iter()
        .filter(|&&asked| asked)
        .count()
        > 1
    {
        return Err(Failure::mendable(
            "--csv, --html and --json are ways to write it; take one",
        ));
    }
    let config = context.config()?;
    let month = args
        .month
        .unwrap_or_else(|| month_of(context.now().day(config.timezone)));
    let receipt = open_reader(&config)?.receipt(month)?;
    let document = document(&receipt, month, config.timezone.to_string());
    if args.csv {
        context.output.bytes(&csv(&document)?)?;
    } else if args.html {
        context.output.text(&html::page(&document, context.now()))?;
    } else {
        context
            .output
            .show(&document, || text(context, &receipt, &document))?;
    }
    Ok(Exit::Success)
}

/// Adds up what was paid by something that a job has: an owner, each of its tags.
fn by(receipt: &Receipt, of: impl Fn(&crate::types::ledger::Payer) -> Vec<String>) -> Parts {
    let mut parts = Parts::new();
    for ((_, payer), paid) in &receipt.jobs {
        for name in of(payer) {
            let part = parts.entry(name).or_default();
            part.spend += paid.spend;
            part.billed += paid.billed;
        }
    }
    parts
}

type Parts = BTreeMap<String, Paid>;

fn parts(parts: Parts) -> Vec<PartDocument> {
    let part = |(name, paid): (String, Paid)| PartDocument {
        name,
        spend_dollars: paid.spend.decimal(),
        billed_dollars: paid.billed.decimal(),
        not_billed_dollars: paid.unbilled().decimal(),
    };
    parts.into_iter().map(part).collect()
}

fn lost(receipt: &Receipt) -> Money {
    let losses = receipt.losses.values();
    losses.map(|loss| loss.failed_starts + loss.lost_work).sum()
}

fn instead(receipt: &Receipt) -> Money {
    let achieved = receipt.achieved.values();
    achieved.map(|achieved| achieved.on_demand_equivalent).sum()
}

fn document(receipt: &Receipt, month: NaiveDate, timezone: String) -> ReceiptDocument {
    let achieved = receipt.achieved.values();
    let useful: i64 = achieved
        .clone()
        .map(|achieved| achieved.useful_gpu_ms)
        .sum();
    let lost_ms: i64 = achieved.map(|achieved| achieved.lost_gpu_ms).sum();
    let owner = |payer: &crate::types::ledger::Payer| {
        vec![payer.owner.clone().unwrap_or_else(|| "none".to_owned())]
    };
    let components = receipt.components.iter().map(|(component, paid)| {
        let name = component.map_or("unknown", Component::as_str);
        (name.to_owned(), *paid)
    });
    ReceiptDocument {
        month: month.format("%Y-%m").to_string(),
        timezone,
        spend_dollars: receipt.paid.spend.decimal(),
        billed_dollars: receipt.paid.billed.decimal(),
        not_billed_dollars: receipt.paid.unbilled().decimal(),
        useful_gpu_hours: hours(useful),
        lost_gpu_hours: hours(lost_ms),
        on_demand_equivalent_dollars: instead(receipt).decimal(),
        saved_dollars: (instead(receipt) - receipt.paid.spend).decimal(),
        lost_to_hosts_dollars: lost(receipt).decimal(),
        jobs: receipt
            .jobs
            .iter()
            .map(|((job, payer), paid)| JobDocument {
                job: job.to_string(),
                owner: payer.owner.clone(),
                tags: payer.tags.iter().cloned().collect(),
                spend_dollars: paid.spend.decimal(),
                billed_dollars: paid.billed.decimal(),
                not_billed_dollars: paid.unbilled().decimal(),
            })
            .collect(),
        owners: parts(by(receipt, owner)),
        tags: parts(by(receipt, |payer| payer.tags.iter().cloned().collect())),
        components: parts(components.collect()),
        hosts: receipt
            .losses
            .iter()
            .map(|(host, loss)| HostDocument {
                host: host.map(|host| host.0),
                instances: loss.instances,
                failed_starts_dollars: loss.failed_starts.decimal(),
                lost_work_dollars: loss.lost_work.decimal(),
            })
            .collect(),
    }
}

fn text(context: &Context, receipt: &Receipt, document: &ReceiptDocument) -> String {
    let cells = |name: String, paid: Paid| {
        vec![
            name,
            format!("{:.4}", paid.spend),
            format!("{:.4}", paid.billed),
            format!("{:.4}", paid.unbilled()),
        ]
    };
    let table = |title: &'static str, rows: Vec<Vec<String>>| {
        let columns = [
            (title, Align::Left),
            ("paid", Align::Right),
            ("billed", Align::Right),
            ("not billed", Align::Right),
        ];
        context.output.table(&columns, rows)
    };
    let mut jobs: Vec<Vec<String>> = receipt
        .jobs
        .iter()
        .map(|((job, payer), paid)| {
            let owner = payer.owner.as_deref().unwrap_or("-");
            cells(format!("{job} ({owner})"), *paid)
        })
        .collect();
    jobs.push(cells("total".to_owned(), receipt.paid));
    let components = receipt.components.iter().map(|(component, paid)| {
        let name = component.map_or("unknown", Component::as_str);
        cells(name.to_owned(), *paid)
    });
    let mut text = format!("{} ({})\n\n", document.month, document.timezone);
    text.push_str(&table("job (owner)", jobs));
    text.push('\n');
    text.push_str(&table("component", components.collect()));
    text.push_str(&format!(
        "\n{:.2} useful GPU-hours; on-demand they would have cost {:.2}: {:.2} saved\n\
         {:.2} was lost to hosts that failed\n",
        document.useful_gpu_hours,
        instead(receipt),
        instead(receipt) - receipt.paid.spend,
        lost(receipt),
    ));
    for (host, loss) in &receipt.losses {
        let host = host.map_or_else(|| "unknown".to_owned(), |host| host.to_string());
        text.push_str(&format!(
            "  host {host}: {:.4} for instances that never ran, {:.4} for lost work, of {} instances\n",
            loss.failed_starts, loss.lost_work, loss.instances
        ));
    }
    text
}

fn csv(document: &ReceiptDocument) -> Result<Vec<u8>, Failure> {
    let mut sheet = Sheet::new([
        "month",
        "job",
        "owner",
        "tags",
        "spend_dollars",
        "billed_dollars",
        "not_billed_dollars",
    ])?;
    for job in &document.jobs {
        sheet.row([
            document.month.as_str(),
            &job.job,
            &harmless(job.owner.as_deref().unwrap_or_default()),
            &harmless(&job.tags.join(" ")),
            &job.spend_dollars,
            &job.billed_dollars,
            &job.not_billed_dollars,
        ])?;
    }
    sheet.taken()
}
