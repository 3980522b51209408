//! A question about the past, answered in words.

use std::collections::BTreeMap;

use super::super::super::output::{Align, Output};
use super::{Document, Played, VariantDocument};
use crate::backtest::past::{Cover, WorkFrom};
use crate::types::job::Job;
use crate::types::money::Money;

/// What a record cannot say.
pub(super) fn not_known(cover: &Cover, job: &Job, played: &[Played]) -> Vec<String> {
    let mut all = vec![
        "how rivals would have answered a bid that was not made then: a bid runs here as long as the \
         recorded floor is not over it"
            .to_owned(),
        "hosts that would have failed, and starts that would have come to nothing: none does here".to_owned(),
        "what happened between two looks at the market, and what the account's credit would have been"
            .to_owned(),
    ];
    if cover.narrower {
        all.push(
            "slots that the searches of the time left out, such as those over another ceiling: the policy \
             takes more than was searched for"
                .to_owned(),
        );
    }
    if cover.not_asked_ms > 0 {
        all.push("the time in which nobody searched for the policy's models".to_owned());
    }
    if cover.gaps > 0 {
        all.push(
            "the gaps: what ran is taken to have run on, and nothing is decided in them".to_owned(),
        );
    }
    if played.iter().any(|one| one.answer.carried > 0) {
        all.push(
            "the floors of slots that the job itself held then, which are taken to have stayed as they were"
                .to_owned(),
        );
    }
    let from = played.first().map(|one| one.work_from);
    if from == Some(WorkFrom::Nowhere) {
        all.push("when the work ends: it is taken to go on through the whole time".to_owned());
    }
    if job.run.runner.as_ref().is_some_and(|runner| runner.carried) {
        all.push(
            "how long checkpoints take from disk to disk: they are taken to be there at once"
                .to_owned(),
        );
    }
    all
}

/// The whole answer.
pub(super) fn text(output: Output, document: &Document) -> String {
    let history = &document.history;
    let mut text = format!(
        "{}, from {} to {}\n{} looks at {} slots of the policy's models and size, {} rows; {:.1} of {:.1} h looked \
         at, {:.1} % of the time completely\n{}\n",
        document.job,
        document.from,
        document.to,
        history.looks,
        history.slots,
        history.rows,
        history.looked_hours,
        history.asked_hours,
        history.coverage_share * 100.0,
        gaps(document),
    );
    text += &format!("\n{}\n\n", table(output, &document.variants));
    if let [one] = document.variants.as_slice() {
        text += &details(one);
    }
    text += &really(document);
    text += "\nnot known:\n";
    for sentence in &document.not_known {
        text += &format!("- {sentence}\n");
    }
    text
}

fn gaps(document: &Document) -> String {
    let history = &document.history;
    match history.gaps {
        0 => "no gaps".to_owned(),
        1 => format!("1 gap, of {:.1} h", history.longest_gap_hours),
        many => format!(
            "{many} gaps, the longest of {:.1} h",
            history.longest_gap_hours
        ),
    }
}

fn really(document: &Document) -> String {
    let Some(really) = &document.really else {
        return format!(
            "the ledger has nothing of a job named {} in this time\n",
            document.job
        );
    };
    let mut text = format!(
        "really, {} cost {} in this time ({} billed so far), with {} instances made and {:.2} GPU-hours paid for\n",
        document.job,
        dollars(&really.spend_dollars),
        dollars(&really.billed_dollars),
        really.instances,
        really.gpu_hours,
    );
    if let [
        VariantDocument {
            less_than_really_dollars: Some(less),
            ..
        },
    ] = document.variants.as_slice()
    {
        text += &match less.strip_prefix('-') {
            Some(more) => format!("this would have cost {} more\n", dollars(more)),
            None => format!("this would have cost {} less\n", dollars(less)),
        };
    }
    text
}

fn details(one: &VariantDocument) -> String {
    let mut text = format!(
        "GPUs {} (of that {} at fixed rates), disks {}, traffic {}\n",
        dollars(&one.gpu_dollars),
        dollars(&one.on_demand_dollars),
        dollars(&one.disk_dollars),
        dollars(&one.traffic_dollars),
    );
    text += &format!(
        "{:.1} h at a bid, {:.1} h at a fixed rate, {:.1} h starting, {:.1} h standing still, {:.1} h without \
         anything\n",
        one.bid_hours, one.on_demand_hours, one.starting_hours, one.paused_hours, one.nothing_hours
    );
    text += &one.on_demand_equivalent_dollars.as_deref().map_or_else(
        || "no slot that suited it was on offer on demand\n".to_owned(),
        |amount| {
            let amount = dollars(amount);
            format!("the same work on demand, at the cheapest rate of each moment: {amount}\n")
        },
    );
    if let Some(deadline) = &one.deadline {
        text += &match one.late {
            Some(true) => format!("late: the deadline was {deadline}\n"),
            Some(false) => format!("in time for {deadline}\n"),
            None => format!("its deadline, {deadline}, lies after the record\n"),
        };
    }
    text
}

/// The values that were set, as people read them; `as written` where none were.
pub(super) fn named(set: &BTreeMap<String, String>) -> String {
    if set.is_empty() {
        return "as written".to_owned();
    }
    let each = set.iter().map(|(key, value)| format!("{key} = {value}"));
    each.collect::<Vec<_>>().join(", ")
}

fn table(output: Output, variants: &[VariantDocument]) -> String {
    let columns = [
        ("policy", Align::Left),
        ("cost", Align::Right),
        ("useful GPU-hours", Align::Right),
        ("$ a useful GPU-hour", Align::Right),
        ("instances", Align::Right),
        ("outbid", Align::Right),
        ("work lost", Align::Right),
        ("done at", Align::Left),
    ];
    let rows = variants.iter().map(|one| {
        let done = match (&one.done_at, one.failed) {
            (Some(at), _) => at.clone(),
            (None, true) => "failed".to_owned(),
            (None, false) => "not by then".to_owned(),
        };
        vec![
            named(&one.set),
            dollars(&one.cost_dollars),
            format!("{:.2}", one.useful_gpu_hours),
            one.dollars_per_useful_gpu_hour
                .map_or("-".to_owned(), |price| format!("{price:.4}")),
            one.instances.to_string(),
            one.outbids.to_string(),
            format!("{:.2}", one.lost_gpu_hours),
            done,
        ]
    });
    output.table(&columns, rows.collect())
}

/// An amount of decimal dollars, to a hundredth of a cent.
fn dollars(decimal: &str) -> String {
    let amount = decimal.parse::<Money>();
    amount.map_or_else(|_| decimal.to_owned(), |amount| format!("{amount:.4}"))
}
