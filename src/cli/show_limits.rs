//! Limits, how far they are used and when they are reached, as text for people.

use std::fmt::Write as _;

use super::output::{Align, Output};
use crate::types::job::Job;
use crate::types::limit::Measure;
use crate::types::money::Money;
use crate::types::plan::Projection;
use crate::types::time::Time;
use crate::view::limits::until;

/// The limits in dollars, as a table; empty where there are none.
pub(crate) fn table(output: Output, limits: &[Projection], now: Time) -> String {
    let rows: Vec<Vec<String>> = limits
        .iter()
        .filter_map(|limit| {
            let row = &limit.row;
            let per = match row.measure {
                Measure::Total | Measure::Day | Measure::Month => "",
                Measure::Hour => "/h",
                _ => return None,
            };
            let dollars = |nanos: i64| format!("{:.2}{per}", Money(nanos));
            Some(vec![
                row.to_string(),
                limit.used.map_or_else(|| "-".to_owned(), dollars),
                dollars(row.bound),
                limit
                    .breach_at
                    .map_or_else(|| "-".to_owned(), |at| until(now, at)),
            ])
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let columns = [
        ("limit", Align::Left),
        ("used", Align::Right),
        ("of", Align::Right),
        ("reached", Align::Right),
    ];
    output.table(&columns, rows)
}

/// A line for each limit that is reached at the present burn, the first to be reached first.
pub(crate) fn lines(limits: &[Projection], now: Time) -> String {
    let mut reached: Vec<(Time, &Projection)> = limits
        .iter()
        .filter_map(|limit| Some((limit.breach_at?, limit)))
        .collect();
    reached.sort_by_key(|&(at, limit)| (at, &limit.row));
    let mut text = String::new();
    for (at, limit) in reached {
        let when = if at.since(now).is_zero() {
            "is reached".to_owned()
        } else {
            format!("is reached {} at the present burn", until(now, at))
        };
        let _ = writeln!(text, "limit: the {} {when}", limit.row);
    }
    text
}

/// What of a job's spending no limit covers ahead of time, if anything: traffic beyond what it
/// expects, where its policy sets no most.
pub(crate) fn uncovered(job: &Job) -> Option<String> {
    job.traffic_gb_max.is_none().then(|| {
        format!(
            "traffic of {} beyond the expected {} GB: it has no `traffic.max`, and bytes show only in \
             the bill",
            job.name,
            job.expected_down_gb() + job.traffic_up_gb
        )
    })
}
