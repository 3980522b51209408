//! Limits, how far they are used and when they are reached, as text for people and as documents
//! for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::output::{Align, Output};
use crate::engine::projection::{self, Purse};
use crate::types::job::Job;
use crate::types::limit::Measure;
use crate::types::money::Money;
use crate::types::plan::{Limit, Projection};
use crate::types::state::State;
use crate::types::time::{Time, human};
use crate::types::world::EngineConfig;

/// A limit, as programs see it. Which pair of numbers there is follows from the measure; without
/// the first of them, how much is used is unknown.
#[derive(Debug, Default, Serialize)]
pub(crate) struct LimitDocument {
    /// The word that metrics and events have for it.
    limit: &'static str,
    /// `account`, `job/NAME`, `owner/NAME` or `tag/NAME`.
    scope: String,
    measure: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_dollars: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound_dollars: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_dollars_per_hour: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound_dollars_per_hour: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_count: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound_count: Option<i64>,
    /// Of the credit, what is left above the reserve.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_dollars: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserve_dollars: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runway_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runway_seconds_min: Option<i64>,
    /// When it is reached at the present burn; null where it is not, not in its period, or unknown.
    projected_breach_at: Option<String>,
}

/// The documents of limits.
pub(crate) fn documents(limits: &[Projection]) -> Vec<LimitDocument> {
    limits.iter().map(document).collect()
}

fn document(limit: &Projection) -> LimitDocument {
    let row = &limit.row;
    let whole = LimitDocument {
        limit: Limit::Of(row.scope.clone(), row.measure).as_str(),
        scope: row.scope.to_string(),
        measure: row.measure.as_str(),
        projected_breach_at: limit.breach_at.map(|at| at.to_string()),
        ..LimitDocument::default()
    };
    let (used, bound) = (limit.used, row.bound);
    let dollars = |nanos: i64| Money(nanos).decimal();
    match row.measure {
        Measure::Total | Measure::Day | Measure::Month => LimitDocument {
            used_dollars: used.map(dollars),
            bound_dollars: Some(dollars(bound)),
            ..whole
        },
        Measure::Hour => LimitDocument {
            used_dollars_per_hour: used.map(dollars),
            bound_dollars_per_hour: Some(dollars(bound)),
            ..whole
        },
        Measure::Instances | Measure::Gpus => LimitDocument {
            used_count: used,
            bound_count: Some(bound),
            ..whole
        },
        Measure::Credit => LimitDocument {
            left_dollars: used.map(dollars),
            reserve_dollars: Some(dollars(bound)),
            ..whole
        },
        Measure::Runway => LimitDocument {
            runway_seconds: used.map(|ms| ms / 1000),
            runway_seconds_min: Some(bound / 1000),
            ..whole
        },
    }
}

/// The limits of jobs as the database knows them; of the credit it knows nothing.
pub(crate) fn known(
    now: Time,
    config: &EngineConfig,
    jobs: &[&Job],
    state: &State,
) -> Vec<Projection> {
    projection::project(now, config, jobs, state, Purse::default())
}

/// How long until a limit is reached, for people.
pub(crate) fn until(now: Time, at: Time) -> String {
    let left = at.since(now);
    if left.is_zero() {
        "reached".to_owned()
    } else {
        format!("in {}", human(left))
    }
}

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
