//! What can be read of the present: all at once, a job, why, what it wrote, the policies.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Extract};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use super::answer::{ErrorDocument, Problem, json, tagged};
use super::desk::{Desk, Published};
use super::documents::{
    AttemptDocument, ExplainDocument, JobPage, LogDocument, MistakeDocument, PoliciesDocument,
    PolicyDocument,
};
use super::past::decided;
use crate::logbook::Book;
use crate::policy::{self, PolicyError};
use crate::ports::StoreError;
use crate::types::ids::JobName;
use crate::types::job::{Job, RentalChoice};
use crate::types::money::Money;
use crate::types::plan::Report;
use crate::view::attempts::known;
use crate::view::board::{BoardDocument, EventDocument, JobRow, limit_row};
use crate::view::instances::instance;
use crate::view::plan::{action_document, dropped, reasons};
use crate::view::shown::{Shown, Style, last_lines};
use crate::view::which::Of;

/// Events of a job that are shown with it.
const EVENTS: u32 = 40;

/// Instances of a job that are gone and are shown with it.
const ENDED: u32 = 20;

/// Lines of a log where nothing is said, and at most.
const LINES: (u32, u32) = (200, 2000);

/// Bytes of a log that are sent, at most.
const LOG_BYTES_MAX: usize = 512 * 1024;

/// Attempts of a job that are listed, the newest.
const ATTEMPTS_MAX: usize = 200;

/// JSON, or what is wrong.
pub(super) type Answer = Result<Response, Problem>;

/// The name of a job in a path.
pub(super) fn named(path: Result<Path<String>, PathRejection>) -> Result<JobName, Problem> {
    let Path(name) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    name.parse()
        .map_err(|error| Problem::bad_request(format!("{error}")))
}

/// What is known of a job, with what is published.
pub(super) fn known_job(
    desk: &Desk,
    name: &JobName,
) -> Result<(Arc<Published>, Arc<JobRow>), Problem> {
    let published = desk.published()?;
    let row = published.rows.get(name.as_str()).cloned().ok_or_else(|| {
        Problem::not_found(format!("there is no job named {name}"))
            .help("GET /api/v1/state lists those that are known")
    })?;
    Ok((published, row))
}

/// What is asked for behind a path.
pub(super) fn asked<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    let Query(asked) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    Ok(asked)
}

/// A number that was asked for, or the usual one.
pub(super) fn within(
    what: &str,
    given: Option<u32>,
    (usual, most): (u32, u32),
) -> Result<u32, Problem> {
    match given {
        None => Ok(usual),
        Some(number) if (1..=most).contains(&number) => Ok(number),
        Some(_) => Err(Problem::bad_request(format!(
            "`{what}` is from 1 to {most}"
        ))),
    }
}

/// All that the page shows first.
#[utoipa::path(
    get, path = "/api/v1/state", tag = "state",
    responses(
        (status = 200, description = "What haggle is doing and what it costs", body = BoardDocument),
        (status = 304, description = "It is what `If-None-Match` names"),
        (status = 400, description = "A header is wrong", body = ErrorDocument),
        (status = 401, description = "It takes the token", body = ErrorDocument),
        (status = 403, description = "Another site, a name that is not haggle's, or no token is configured", body = ErrorDocument),
        (status = 503, description = "Nothing was published yet", body = ErrorDocument),
    )
)]
pub(super) async fn state(Extract(desk): Extract<Arc<Desk>>, headers: HeaderMap) -> Answer {
    let published = desk.published()?;
    let kind = ("application/json", &published.tag[..]);
    Ok(tagged(&headers, kind, &published.json, published.packed()))
}

/// A job with everything that is known of it.
#[utoipa::path(
    get, path = "/api/v1/jobs/{name}", tag = "jobs",
    params(("name" = String, Path, description = "The job's name", pattern = "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")),
    responses(
        (status = 200, description = "The job", body = JobPage),
        (status = 400, description = "That is no name of a job", body = ErrorDocument),
        (status = 401, description = "It takes the token", body = ErrorDocument),
        (status = 403, description = "Another site, a name that is not haggle's, or no token is configured", body = ErrorDocument),
        (status = 404, description = "There is no such job", body = ErrorDocument),
        (status = 500, description = "It went wrong", body = ErrorDocument),
        (status = 503, description = "Nothing was published yet, or the database is busy", body = ErrorDocument),
    )
)]
pub(super) async fn job(
    Extract(desk): Extract<Arc<Desk>>,
    path: Result<Path<String>, PathRejection>,
) -> Answer {
    let name = named(path)?;
    let (published, row) = known_job(&desk, &name)?;
    let of = name.clone();
    let (ended, events) = desk
        .read(move |reader| {
            let ended = reader.ended_of(&of, ENDED)?;
            Ok((ended, reader.story(Some(&of), None, EVENTS)?))
        })
        .await?;
    let limits = published
        .job(&name)
        .map(|job| published.config.rows_of(job))
        .unwrap_or_default();
    let of_job = |replica: &str| replica.split('/').next() == Some(name.as_str());
    let page = JobPage {
        at: published.now.to_string(),
        job: (*row).clone(),
        limits: published
            .report
            .limits
            .iter()
            .filter(|limit| limits.contains(&limit.row))
            .map(limit_row)
            .collect(),
        instances: published
            .board
            .instances
            .iter()
            .filter(|row| of_job(&row.instance.replica))
            .cloned()
            .collect(),
        ended: ended
            .iter()
            .map(|ended| instance(&ended.held, None, Some(ended.at)))
            .collect(),
        events: events.iter().map(|(_, e)| EventDocument::of(e)).collect(),
    };
    clean(&desk, &page)
}

/// A document whose texts came from elsewhere, without known secrets.
pub(super) fn clean(desk: &Desk, document: &impl serde::Serialize) -> Answer {
    let text = serde_json::to_string(document).map_err(|error| {
        tracing::error!("an answer cannot be written as JSON: {error}");
        Problem::new(
            axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            "failed",
            "this went wrong; the daemon's log says more",
        )
    })?;
    let clean = (desk.sources().redact)(&text);
    let raw = serde_json::value::RawValue::from_string(clean).map_err(|_| {
        Problem::new(
            axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            "failed",
            "what was read cannot be shown without a secret",
        )
    })?;
    Ok(json(&raw))
}

/// Why a job runs where it runs, waits, or was passed over.
#[utoipa::path(
    get, path = "/api/v1/jobs/{name}/explain", tag = "jobs",
    params(("name" = String, Path, description = "The job's name", pattern = "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")),
    responses(
        (status = 200, description = "The reasons", body = ExplainDocument),
        (status = 400, description = "That is no name of a job", body = ErrorDocument),
        (status = 401, description = "It takes the token", body = ErrorDocument),
        (status = 403, description = "Another site, a name that is not haggle's, or no token is configured", body = ErrorDocument),
        (status = 404, description = "There is no such job", body = ErrorDocument),
        (status = 500, description = "It went wrong", body = ErrorDocument),
        (status = 503, description = "Nothing was published yet, or the database is busy", body = ErrorDocument),
    )
)]
pub(super) async fn explain(
    Extract(desk): Extract<Arc<Desk>>,
    path: Result<Path<String>, PathRejection>,
) -> Answer {
    let name = named(path)?;
    let (published, row) = known_job(&desk, &name)?;
    let of = name.clone();
    let (ticks, events) = desk
        .read(move |reader| {
            let ticks = reader.decisions(Some(&of), None, 10)?;
            Ok((ticks, reader.story(Some(&of), None, EVENTS)?))
        })
        .await?;
    let is_ours = |replica: Option<&crate::types::ids::ReplicaId>| {
        replica.is_some_and(|replica| replica.job == name)
    };
    let held_back = published.report.dropped.iter();
    let report = Report {
        dropped: held_back
            .filter(|(action, _)| is_ours(action.replica.as_ref()))
            .cloned()
            .collect(),
        ..Report::default()
    };
    let document = ExplainDocument {
        at: published.now.to_string(),
        text: row.text.clone(),
        sentences: row.sentences.clone(),
        reasons: published
            .reasons(&name)
            .map(|report| reasons(report, published.now)),
        actions: published
            .plan
            .actions
            .iter()
            .filter(|action| is_ours(action.replica.as_ref()))
            .map(action_document)
            .collect(),
        dropped: dropped(&report, 50),
        decisions: ticks
            .iter()
            .map(|tick| decided(tick, Some(&name)))
            .collect(),
        events: events.iter().map(|(_, e)| EventDocument::of(e)).collect(),
    };
    clean(&desk, &document)
}

/// Which lines.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LogQuery {
    /// Of one replica alone.
    replica: Option<u32>,
    /// Which attempt, counted from the newest, which is 1.
    #[param(minimum = 1)]
    attempt: Option<u32>,
    /// At most so many of the last lines; 200 where it is left out.
    #[param(minimum = 1, maximum = 2000)]
    lines: Option<u32>,
}

/// What a job wrote, as far as the daemon read it. It takes the token wherever one is configured: what is
/// kept of it is the daemon's user's alone.
#[utoipa::path(
    get, path = "/api/v1/jobs/{name}/logs", tag = "jobs",
    params(
        ("name" = String, Path, description = "The job's name", pattern = "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"),
        LogQuery,
    ),
    security((), ("bearer" = []), ("header" = [])),
    responses(
        (status = 200, description = "The last lines of an attempt, and which attempts there are", body = LogDocument),
        (status = 400, description = "That is no name of a job, or a parameter is wrong", body = ErrorDocument),
        (status = 401, description = "It takes the token", body = ErrorDocument),
        (status = 403, description = "Another site, a name that is not haggle's, or no token is configured", body = ErrorDocument),
        (status = 404, description = "There is no such job", body = ErrorDocument),
        (status = 500, description = "It went wrong", body = ErrorDocument),
        (status = 503, description = "Nothing was published yet, or the database is busy", body = ErrorDocument),
    )
)]
pub(super) async fn logs(
    Extract(desk): Extract<Arc<Desk>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Answer {
    let name = named(path)?;
    let query = asked(query)?;
    let lines = within("lines", query.lines, LINES)?;
    let number = within("attempt", query.attempt, (1, u32::MAX))? as usize;
    known_job(&desk, &name)?;
    let of = Of {
        job: name,
        index: query.replica,
    };
    let book = Book::of_database(&desk.sources().database);
    let redact = Arc::clone(&desk.sources().redact_logs);
    let document = desk
        .read(move |reader| {
            let unreadable = |error| StoreError::Other(format!("the logs cannot be read: {error}"));
            let kept = book.kept(&of.job).map_err(unreadable)?;
            let ended = reader.ended_of(&of.job, 1000)?;
            let all = known(&of, &reader.state()?, ended, kept);
            let chosen = all.get(number - 1);
            let text = chosen.map(|chosen| book.read(&chosen.attempt));
            let text = text
                .transpose()
                .map_err(unreadable)?
                .flatten()
                .unwrap_or_default();
            let wanted = last_lines(&text, lines);
            let sent = crate::logbook::recent(wanted, LOG_BYTES_MAX);
            let mut shown = Shown::new(Style::Short, redact);
            shown.take(sent);
            shown.finish();
            Ok(LogDocument {
                job: of.job.to_string(),
                attempt: chosen.map(|_| number),
                lines: String::from_utf8_lossy(&shown.ready())
                    .lines()
                    .map(str::to_owned)
                    .collect(),
                is_cut: sent.len() < text.len(),
                attempts: all
                    .iter()
                    .enumerate()
                    .take(ATTEMPTS_MAX)
                    .map(|(at, known)| AttemptDocument {
                        attempt: at + 1,
                        replica: known.attempt.replica.to_string(),
                        instance: known.attempt.instance.0,
                        is_there: known.live,
                        ended_at: known.ended.map(|at| at.to_string()),
                        has_log: known.kept,
                    })
                    .collect(),
            })
        })
        .await?;
    clean(&desk, &document)
}

/// The policies, and what is wrong with those that cannot be used.
#[utoipa::path(
    get, path = "/api/v1/policies", tag = "jobs",
    responses(
        (status = 200, description = "The policies", body = PoliciesDocument),
        (status = 400, description = "A header is wrong", body = ErrorDocument),
        (status = 401, description = "It takes the token", body = ErrorDocument),
        (status = 403, description = "Another site, a name that is not haggle's, or no token is configured", body = ErrorDocument),
        (status = 500, description = "It went wrong", body = ErrorDocument),
        (status = 503, description = "Nothing was published yet, or too much is read at once", body = ErrorDocument),
    )
)]
pub(super) async fn policies(Extract(desk): Extract<Arc<Desk>>) -> Answer {
    let published = desk.published()?;
    let Some(directory) = desk.sources().policies.clone() else {
        let document = PoliciesDocument {
            directory: None,
            policies: published.jobs.iter().map(|job| policy(job, None)).collect(),
            mistakes: Vec::new(),
        };
        return clean(&desk, &document);
    };
    let document = desk
        .blocking(move || {
            let loaded = policy::load_dir(&directory);
            PoliciesDocument {
                directory: Some(directory.display().to_string()),
                policies: loaded
                    .jobs
                    .iter()
                    .map(|loaded| policy(&loaded.job, Some(loaded.path.display().to_string())))
                    .collect(),
                mistakes: loaded.errors.iter().map(mistake).collect(),
            }
        })
        .await?;
    clean(&desk, &document)
}

fn policy(job: &Job, file: Option<String>) -> PolicyDocument {
    PolicyDocument {
        job: job.name.to_string(),
        file,
        owner: job.owner.clone(),
        tags: job.tags.clone(),
        priority: job.priority,
        replicas: job.replicas,
        gpu_models: job.requirements.gpu_models.clone(),
        gpus: job.requirements.gpu_count,
        rental: match job.rental {
            RentalChoice::Interruptible => "interruptible",
            RentalChoice::OnDemand => "on-demand",
            RentalChoice::Auto => "auto",
        }
        .to_owned(),
        price_max_dollars_per_gpu_hour: job.price_max.decimal(),
        budget_dollars: job.budget.total.map(Money::decimal),
    }
}

fn mistake(error: &PolicyError) -> MistakeDocument {
    MistakeDocument {
        file: error.file().to_owned(),
        job: error.job_name().map(|name| name.to_string()),
        line: error.line(),
        column: error.column(),
        message: error.message().to_owned(),
        help: error.help_text().map(str::to_owned),
    }
}
