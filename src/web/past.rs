//! What was decided, what happened and what was spent, read from the database.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Extract};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::answer::{ErrorDocument, Problem};
use super::api::{Answer, asked, clean, within};
use super::desk::Desk;
use super::documents::{
    DecisionDocument, DecisionPage, DecisionsDocument, SpendDocument, SpendRow, StoryDocument,
    StoryLine,
};
use crate::engine::check::check;
use crate::engine::decide::decide;
use crate::ports::StoreError;
use crate::store::{Group, Reader};
use crate::types::ids::JobName;
use crate::types::plan::Plan;
use crate::types::state::TickRecord;
use crate::types::world::World;
use crate::view::board::EventDocument;
use crate::view::plan::{action_document, plan_document};

/// Rows of a page where nothing is said, and at most.
const LIMIT: (u32, u32) = (50, 200);

/// Rows of what was spent that are shown.
const SPEND_ROWS: usize = 500;

/// A job's name that was asked for.
fn job_asked(name: Option<&String>) -> Result<Option<JobName>, Problem> {
    name.map(|name| name.parse())
        .transpose()
        .map_err(|error| Problem::bad_request(format!("`job`: {error}")))
}

/// What a tick did, for a job or any. A plan in an old form is shown as nothing.
pub(super) fn decided(tick: &TickRecord, job: Option<&JobName>) -> DecisionDocument {
    let plan: Plan = serde_json::from_str(&tick.plan).unwrap_or_default();
    let of_job = |action: &&crate::types::plan::Action| {
        job.is_none_or(|job| action.replica.as_ref().is_some_and(|r| r.job == *job))
    };
    DecisionDocument {
        tick: tick.tick,
        at: tick.at.to_string(),
        actions: plan
            .actions
            .iter()
            .filter(of_job)
            .map(action_document)
            .collect(),
    }
}

/// Which decisions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DecisionsQuery {
    /// Of one job alone.
    #[param(pattern = "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
    job: Option<String>,
    /// Those before this tick.
    #[param(minimum = 0)]
    before: Option<i64>,
    /// So many at most; 50 where it is left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// What ticks decided to do, the newest first. Ticks that decided nothing are left out.
#[utoipa::path(
    get, path = "/api/v1/decisions", tag = "decisions", params(DecisionsQuery),
    responses(
        (status = 200, description = "A page of them", body = DecisionsDocument),
        (status = 400, description = "A parameter is wrong", body = ErrorDocument),
        (status = 401, description = "It takes the token", body = ErrorDocument),
        (status = 403, description = "Another site, a name that is not haggle's, or no token is configured", body = ErrorDocument),
        (status = 500, description = "It went wrong", body = ErrorDocument),
        (status = 503, description = "The database is busy", body = ErrorDocument),
    )
)]
pub(super) async fn decisions(
    Extract(desk): Extract<Arc<Desk>>,
    query: Result<Query<DecisionsQuery>, QueryRejection>,
) -> Answer {
    let query = asked(query)?;
    let limit = within("limit", query.limit, LIMIT)?;
    let job = job_asked(query.job.as_ref())?;
    let before = query
        .before
        .map(u64::try_from)
        .transpose()
        .map_err(|_| Problem::bad_request("`before` is the number of a tick"))?;
    let of = job.clone();
    let ticks = desk
        .read(move |reader| reader.decisions(of.as_ref(), before, limit))
        .await?;
    let full = ticks.len() == limit as usize;
    let document = DecisionsDocument {
        next_before: ticks.last().filter(|_| full).map(|tick| tick.tick),
        decisions: ticks
            .iter()
            .map(|tick| decided(tick, job.as_ref()))
            .collect(),
    };
    clean(&desk, &document)
}

/// A decision with every reason, made again from the world that the journal kept.
#[utoipa::path(
    get, path = "/api/v1/decisions/{tick}", tag = "decisions",
    params(("tick" = u64, Path, description = "The tick's number")),
    responses(
        (status = 200, description = "The decision", body = DecisionPage),
        (status = 400, description = "That is no number", body = ErrorDocument),
        (status = 401, description = "It takes the token", body = ErrorDocument),
        (status = 403, description = "Another site, a name that is not haggle's, or no token is configured", body = ErrorDocument),
        (status = 404, description = "That tick decided nothing, or is not kept any more", body = ErrorDocument),
        (status = 500, description = "It went wrong", body = ErrorDocument),
        (status = 503, description = "The database is busy", body = ErrorDocument),
    )
)]
pub(super) async fn decision(
    Extract(desk): Extract<Arc<Desk>>,
    path: Result<Path<u64>, PathRejection>,
) -> Answer {
    let Path(tick) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    let found = desk.read(move |reader| again(reader, tick)).await?;
    let page = found.ok_or_else(|| {
        Problem::not_found(format!(
            "tick {tick} decided nothing, or is not kept any more"
        ))
    })?;
    clean(&desk, &page)
}

fn again(reader: &Reader, tick: u64) -> Result<Option<DecisionPage>, StoreError> {
    let Some(record) = reader.tick(tick)? else {
        return Ok(None);
    };
    let text = record.world.as_deref().unwrap_or_default();
    let world: Option<World> = serde_json::from_str(text).ok();
    let market = record
        .snapshot
        .map(|id| reader.snapshot(id))
        .transpose()?
        .flatten();
    let (again, not_again) = match (world, market, record.snapshot) {
        (Some(mut world), market, id) if market.is_some() || id.is_none() => {
            world.market = Arc::new(market.unwrap_or_default());
            let (plan, mut report) = decide(&world);
            let (plan, dropped) = check(&world, &plan);
            report.dropped = dropped;
            (Some(plan_document(&plan, &report, world.now)), None)
        }
        (None, ..) => (None, Some("its world is in an older form".to_owned())),
        _ => (None, Some("its market is not kept any more".to_owned())),
    };
    Ok(Some(DecisionPage {
        tick,
        decided: decided(&record, None),
        again,
        not_again,
    }))
}

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StoryQuery {
    /// Of one job alone.
    #[param(pattern = "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
    job: Option<String>,
    /// Those before this number.
    before: Option<i64>,
    /// So many at most; 50 where it is left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// What happened, the newest first.
#[utoipa::path(
    get, path = "/api/v1/story", tag = "decisions", params(StoryQuery),
    responses(
        (status = 200, description = "A page of it", body = StoryDocument),
        (status = 400, description = "A parameter is wrong", body = ErrorDocument),
        (status = 401, description = "It takes the token", body = ErrorDocument),
        (status = 403, description = "Another site, a name that is not haggle's, or no token is configured", body = ErrorDocument),
        (status = 500, description = "It went wrong", body = ErrorDocument),
        (status = 503, description = "The database is busy", body = ErrorDocument),
    )
)]
pub(super) async fn story(
    Extract(desk): Extract<Arc<Desk>>,
    query: Result<Query<StoryQuery>, QueryRejection>,
) -> Answer {
    let query = asked(query)?;
    let limit = within("limit", query.limit, LIMIT)?;
    let job = job_asked(query.job.as_ref())?;
    let events = desk
        .read(move |reader| reader.story(job.as_ref(), query.before, limit))
        .await?;
    let full = events.len() == limit as usize;
    let line = |(id, event): &(i64, crate::types::state::Event)| StoryLine {
        id: *id,
        event: EventDocument::of(event),
    };
    let document = StoryDocument {
        next_before: events.last().filter(|_| full).map(|(id, _)| *id),
        events: events.iter().map(line).collect(),
    };
    clean(&desk, &document)
}

/// By what spending is added up.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum By {
    /// By job.
    Job,
    /// By day in the configured time zone.
    Day,
    /// By month in the configured time zone.
    Month,
    /// By GPU model.
    Gpu,
}

/// By what.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SpendQuery {
    /// By what it is added up; by day where it is left out.
    #[param(inline)]
    by: Option<By>,
}

/// What was spent, from the ledger.
#[utoipa::path(
    get, path = "/api/v1/spend", tag = "money", params(SpendQuery),
    responses(
        (status = 200, description = "What was spent", body = SpendDocument),
        (status = 400, description = "A parameter is wrong", body = ErrorDocument),
        (status = 401, description = "It takes the token", body = ErrorDocument),
        (status = 403, description = "Another site, a name that is not haggle's, or no token is configured", body = ErrorDocument),
        (status = 500, description = "It went wrong", body = ErrorDocument),
        (status = 503, description = "Nothing was published yet, or the database is busy", body = ErrorDocument),
    )
)]
pub(super) async fn spend(
    Extract(desk): Extract<Arc<Desk>>,
    query: Result<Query<SpendQuery>, QueryRejection>,
) -> Answer {
    let (by, group) = match asked(query)?.by.unwrap_or(By::Day) {
        By::Job => ("job", Group::Job),
        By::Day => ("day", Group::Day),
        By::Month => ("month", Group::Month),
        By::Gpu => ("gpu", Group::Gpu),
    };
    let zone = desk.published()?.config.timezone;
    let mut rows = desk
        .read(move |reader| reader.spend_by(group, zone))
        .await?;
    let over = rows.len().saturating_sub(SPEND_ROWS);
    rows.drain(..over);
    let document = SpendDocument {
        by,
        timezone: zone.to_string(),
        rows: rows.into_iter().map(SpendRow::from).collect(),
    };
    clean(&desk, &document)
}
