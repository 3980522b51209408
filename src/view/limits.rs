//! Limits, how far they are used and when they are reached, as documents.

use serde::Serialize;
use utoipa::ToSchema;

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
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct LimitDocument {
    /// The word that metrics and events have for it.
    pub(crate) limit: &'static str,
    /// `account`, `job/NAME`, `owner/NAME` or `tag/NAME`.
    pub(crate) scope: String,
    pub(crate) measure: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) used_dollars: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bound_dollars: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) used_dollars_per_hour: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bound_dollars_per_hour: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) used_count: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bound_count: Option<i64>,
    /// Of the credit, what is left above the reserve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) left_dollars: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reserve_dollars: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) runway_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) runway_seconds_min: Option<i64>,
    /// When it is reached at the present burn; null where it is not, not in its period, or unknown.
    pub(crate) projected_breach_at: Option<String>,
}

/// The documents of limits.
pub(crate) fn documents(limits: &[Projection]) -> Vec<LimitDocument> {
    limits.iter().map(document).collect()
}

/// The document of a limit.
pub(crate) fn document(limit: &Projection) -> LimitDocument {
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
