//! A question about the past, answered as a sheet and as a page.

use std::collections::BTreeSet;

use super::super::super::failure::Failure;
use super::super::super::page::{dollars, escape, leaf, line, table};
use super::super::super::sheet::{Sheet, harmless};
use super::super::chart::{Band, Bar, Point, Timeline, bars, timeline};
use super::words::named;
use super::{Document, MomentDocument, VariantDocument};
use crate::types::money::Money;
use crate::types::time::Time;

/// One row a variant; the keys that were set are columns of their own.
pub(super) fn csv(document: &Document) -> Result<Vec<u8>, Failure> {
    let keys: BTreeSet<&String> = document
        .variants
        .iter()
        .flat_map(|one| one.set.keys())
        .collect();
    let names: Vec<String> = keys.iter().map(|key| harmless(key).into_owned()).collect();
    let fixed = [
        "job",
        "cost_dollars",
        "gpu_dollars",
        "on_demand_dollars",
        "disk_dollars",
        "traffic_dollars",
        "on_demand_equivalent_dollars",
        "less_than_really_dollars",
        "useful_gpu_hours",
        "lost_gpu_hours",
        "bid_hours",
        "on_demand_hours",
        "starting_hours",
        "paused_hours",
        "nothing_hours",
        "instances",
        "outbids",
        "done_at",
        "late",
        "coverage_share",
    ];
    let columns = names.iter().map(String::as_str).chain(fixed);
    let mut sheet = Sheet::new(columns)?;
    for one in &document.variants {
        let set = keys.iter().map(|key| {
            let value = one.set.get(*key).map_or("", String::as_str);
            harmless(value).into_owned()
        });
        let late = one.late.map_or(String::new(), |late| late.to_string());
        let cells: Vec<String> = set
            .chain([
                document.job.clone(),
                one.cost_dollars.clone(),
                one.gpu_dollars.clone(),
                one.on_demand_dollars.clone(),
                one.disk_dollars.clone(),
                one.traffic_dollars.clone(),
                one.on_demand_equivalent_dollars.clone().unwrap_or_default(),
                one.less_than_really_dollars.clone().unwrap_or_default(),
                one.useful_gpu_hours.to_string(),
                one.lost_gpu_hours.to_string(),
                one.bid_hours.to_string(),
                one.on_demand_hours.to_string(),
                one.starting_hours.to_string(),
                one.paused_hours.to_string(),
                one.nothing_hours.to_string(),
                one.instances.to_string(),
                one.outbids.to_string(),
                one.done_at.clone().unwrap_or_default(),
                late,
                document.history.coverage_share.to_string(),
            ])
            .collect();
        sheet.row(cells.iter().map(String::as_str))?;
    }
    sheet.taken()
}

/// The page: what each variant cost against what was really paid, and the cheapest one's time.
pub(super) fn page(document: &Document) -> String {
    let history = &document.history;
    let mut body = format!(
        "<h1>What {} would have cost</h1>\n<p>{} from {} to {}.</p>\n\
         <p>{} looks at {} slots; {:.1} of {:.1} h looked at, {:.1} % of the time completely; {} gaps, the \
         longest of {:.1} h.</p>\n",
        escape(&document.job),
        escape(&document.policy),
        escape(&document.from),
        escape(&document.to),
        history.looks,
        history.slots,
        history.looked_hours,
        history.asked_hours,
        history.coverage_share * 100.0,
        history.gaps,
        history.longest_gap_hours,
    );
    body += &costs(document);
    body += &rows(document);
    let (most, cheapest) = cheapest(document);
    if let Some(one) = cheapest {
        let caption = format!(
            "{}: what replica 0 pays and the floor of its slot, what it holds, and useful GPU-hours",
            named(&one.set)
        );
        let head = if most {
            "The time of the cheapest"
        } else {
            "Its time"
        };
        body += &format!(
            "<h2>{head}</h2>\n{}",
            timeline(&caption, &run(document, one))
        );
    }
    body += "<h2>Not known</h2>\n<ul>\n";
    for sentence in &document.not_known {
        body += &format!("<li>{}</li>\n", escape(sentence));
    }
    body += "</ul>\n";
    leaf(&format!("haggle: what if, {}", document.job), &body)
}

fn amount(decimal: &str) -> f64 {
    decimal.parse::<Money>().map_or(f64::NAN, Money::as_dollars)
}

fn costs(document: &Document) -> String {
    let all: Vec<Bar> = document
        .variants
        .iter()
        .map(|one| Bar {
            name: named(&one.set),
            value: amount(&one.cost_dollars),
            spread: None,
        })
        .collect();
    let really = document.really.as_ref();
    let really = really.map(|really| ("really", amount(&really.spend_dollars)));
    bars("Cost", "$", &all, really)
}

fn rows(document: &Document) -> String {
    let row = |one: &VariantDocument| {
        let done = match (&one.done_at, one.failed) {
            (Some(at), _) => at.as_str(),
            (None, true) => "failed",
            (None, false) => "not by then",
        };
        let set = named(&one.set);
        line(
            &[escape(&set), escape(done)],
            &[
                dollars(&one.cost_dollars),
                one.on_demand_equivalent_dollars
                    .as_deref()
                    .map_or("-".to_owned(), dollars),
                format!("{:.2}", one.useful_gpu_hours),
                format!("{:.2}", one.lost_gpu_hours),
                format!("{:.1}", one.bid_hours),
                format!("{:.1}", one.on_demand_hours),
                format!("{:.1}", one.paused_hours),
                one.instances.to_string(),
                one.outbids.to_string(),
            ],
        )
    };
    let rows: String = document.variants.iter().map(row).collect();
    table(
        "By policy",
        &["policy", "done at"],
        &[
            "cost",
            "on demand",
            "useful GPU-hours",
            "lost",
            "h at a bid",
            "h on demand",
            "h paused",
            "instances",
            "outbid",
        ],
        &rows,
        "",
    )
}

/// Whether there are several, and of those that did the most work the one that cost least.
fn cheapest(document: &Document) -> (bool, Option<&VariantDocument>) {
    let best = document.variants.iter().min_by(|a, b| {
        let work = b.useful_gpu_hours.total_cmp(&a.useful_gpu_hours);
        work.then_with(|| amount(&a.cost_dollars).total_cmp(&amount(&b.cost_dollars)))
    });
    (document.variants.len() > 1, best)
}

fn run(document: &Document, one: &VariantDocument) -> Timeline {
    let first = one.timeline.first().map_or(0, |moment| moment.at_ms);
    let hours = |at_ms: i64| (at_ms - first) as f64 / 3_600_000.0;
    let rate = |text: &Option<String>| text.as_deref().map(amount);
    let point = |moment: &MomentDocument| Point {
        hours: hours(moment.at_ms),
        band: Band::named(moment.phase),
        price: rate(&moment.price_dollars_per_hour),
        floor: rate(&moment.floor_dollars_per_hour),
        done: moment.useful_gpu_hours,
    };
    let end = |text: &str| {
        let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
        Some(hours(Time(time.timestamp_millis()).0))
    };
    let last = one
        .timeline
        .last()
        .map_or(0.0, |moment| hours(moment.at_ms));
    // Once all is done the rest of the record is empty.
    let whole = match &one.done_at {
        Some(_) => last,
        None => end(&document.to).unwrap_or(last),
    };
    Timeline {
        points: one.timeline.iter().map(point).collect(),
        hours: whole.max(last),
        deadline: one.deadline.as_deref().and_then(end),
        work: one.work_gpu_hours.filter(|_| one.replicas <= 1),
    }
}
