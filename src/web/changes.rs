//! What can be changed: the same durable wishes that the command line writes. The daemon takes them up
//! at its next look.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use super::answer::{ErrorDocument, Problem, json};
use super::api::{Answer, known_job, named};
use super::desk::Desk;
use super::documents::AskedDocument;
use crate::ports::StoreError;
use crate::store::{append_request, set_kill_file};
use crate::types::ids::JobName;
use crate::types::state::{Ask, Wish};
use crate::view::words;

/// What a kill has to say, so that none is made by accident.
const CONFIRMED: &str = "destroy everything";

/// Nothing more is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// That everything is to be destroyed, said in so many words.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Confirmation {
    /// `destroy everything`.
    #[schema(pattern = "^destroy everything$")]
    confirm: String,
}

fn body<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Problem> {
    let bytes = body.map_err(|rejection| {
        let status = rejection.status();
        Problem::new(status, "unreadable-body", rejection.body_text())
    })?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::bad_request(format!("the body is not what is taken: {error}")))
}

fn unwritten(error: &StoreError) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "unwritten",
        format!("the request was not recorded: {error}"),
    )
}

/// Who carries a change out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// The daemon that answers, at its next look.
    This,
    /// It plans only.
    Dry,
    /// It is about to be gone.
    Ending,
    /// It has not begun.
    Beginning,
}

impl Who {
    fn of(desk: &Desk) -> Self {
        if desk.is_ending() {
            return Self::Ending;
        }
        match desk.published() {
            Ok(published) if published.board.live => Self::This,
            Ok(_) => Self::Dry,
            Err(_) => Self::Beginning,
        }
    }
}

/// A wish was recorded.
fn recorded(who: Who, request: i64, will: &str) -> Response {
    let when = match who {
        Who::This => "taken up at the daemon's next look, within seconds",
        Who::Dry => "recorded; this daemon runs dry and changes nothing that is rented",
        Who::Ending => "recorded; this daemon is ending, and its next start takes it up",
        Who::Beginning => "recorded; taken up once the daemon has begun",
    };
    let document = AskedDocument {
        request: Some(request),
        text: format!("{will}: {when}"),
        is_taken_up: who == Who::This,
    };
    (StatusCode::ACCEPTED, json(&document)).into_response()
}

/// Spending is forbidden, by the request in the database or by the file alone.
fn killed(who: Who, request: &Result<i64, StoreError>) -> Response {
    let then = match (request, who) {
        (Err(error), _) => format!(
            "by a file alone, for the database cannot be written ({error}); while that lasts the daemon \
             destroys nothing: `haggle kill` does"
        ),
        (Ok(_), Who::This) => {
            "and everything of ours will be destroyed, from the daemon's next look on".to_owned()
        }
        (Ok(_), Who::Dry) => {
            "this daemon runs dry and destroys nothing: `haggle kill` does".to_owned()
        }
        (Ok(_), Who::Ending) => {
            "this daemon is ending and destroys nothing more: `haggle kill` does".to_owned()
        }
        (Ok(_), Who::Beginning) => {
            "what is rented is destroyed once the daemon has begun, if it runs live: `haggle kill` does it now"
                .to_owned()
        }
    };
    let document = AskedDocument {
        request: request.as_ref().ok().copied(),
        text: format!("spending is forbidden until all is resumed; {then}"),
        is_taken_up: request.is_ok() && who == Who::This,
    };
    (StatusCode::ACCEPTED, json(&document)).into_response()
}

async fn write(desk: &Desk, ask: Ask) -> Result<i64, Problem> {
    let path = desk.sources().database.clone();
    let now = desk.sources().clock.now();
    let written = desk.write(move || append_request(&path, now, &ask)).await?;
    written.map_err(|error| unwritten(&error))
}

async fn wish(
    desk: &Desk,
    path: Result<Path<String>, PathRejection>,
    sent: Result<Bytes, BytesRejection>,
    wish: Wish,
) -> Answer {
    let name: JobName = named(path)?;
    let Nothing {} = body(sent)?;
    known_job(desk, &name)?;
    let text = words::will(&name, wish);
    tracing::info!("asked through the page: {text}");
    let ask = Ask::Job { job: name, wish };
    let request = write(desk, ask).await?;
    Ok(recorded(Who::of(desk), request, &text))
}

macro_rules! wishes {
    ($($(#[doc = $doc:literal])* $name:ident $path:literal $wish:expr;)*) => {
        $(
            $(#[doc = $doc])*
            #[utoipa::path(
                post, path = $path, tag = "changes", request_body = Nothing,
                params(("name" = String, Path, description = "The job's name", pattern = "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")),
                security(("bearer" = []), ("header" = [])),
                responses(
                    (status = 202, description = "It was recorded", body = AskedDocument),
                    (status = 400, description = "That is no name of a job, or the body is not an empty object", body = ErrorDocument),
                    (status = 401, description = "The token is missing or wrong", body = ErrorDocument),
                    (status = 403, description = "Another site, a name that is not haggle's, or no token is configured", body = ErrorDocument),
                    (status = 404, description = "There is no such job", body = ErrorDocument),
                    (status = 413, description = "The body is too large", body = ErrorDocument),
                    (status = 415, description = "The body is not sent as JSON", body = ErrorDocument),
                    (status = 429, description = "Too many wrong tokens came from this address", body = ErrorDocument),
                    (status = 500, description = "It went wrong", body = ErrorDocument),
                    (status = 503, description = "It could not be recorded", body = ErrorDocument),
                )
            )]
            pub(super) async fn $name(
                Extract(desk): Extract<Arc<Desk>>,
                path: Result<Path<String>, PathRejection>,
                sent: Result<Bytes, BytesRejection>,
            ) -> Answer {
                wish(&desk, path, sent, $wish).await
            }
        )*
    };
}

wishes! {
    /// Parks a job's bids and stops its instances; their disks are kept and billed.
    pause "/api/v1/jobs/{name}/pause" Wish::Pause;
    /// Runs a job again, and tries again what could not be started.
    resume "/api/v1/jobs/{name}/resume" Wish::Run;
    /// Destroys a job's instances; it stays down until it is resumed.
    stop "/api/v1/jobs/{name}/stop" Wish::Stop;
    /// Destroys a job's instances, for good.
    done "/api/v1/jobs/{name}/done" Wish::Done;
}

/// Resumes every job that is paused or stopped, and allows spending again after a kill.
#[utoipa::path(
    post, path = "/api/v1/resume-all", tag = "changes", request_body = Nothing,
    security(("bearer" = []), ("header" = [])),
    responses(
        (status = 202, description = "It was recorded", body = AskedDocument),
        (status = 400, description = "The body is not an empty object", body = ErrorDocument),
        (status = 401, description = "The token is missing or wrong", body = ErrorDocument),
        (status = 403, description = "Another site, a name that is not haggle's, or no token is configured", body = ErrorDocument),
        (status = 413, description = "The body is too large", body = ErrorDocument),
        (status = 415, description = "The body is not sent as JSON", body = ErrorDocument),
        (status = 429, description = "Too many wrong tokens came from this address", body = ErrorDocument),
        (status = 500, description = "It went wrong", body = ErrorDocument),
        (status = 503, description = "It could not be recorded", body = ErrorDocument),
    )
)]
pub(super) async fn resume_all(
    Extract(desk): Extract<Arc<Desk>>,
    sent: Result<Bytes, BytesRejection>,
) -> Answer {
    let Nothing {} = body(sent)?;
    let text = words::WILL_RESUME_ALL.to_owned();
    tracing::info!("asked through the page: {text}");
    let request = write(&desk, Ask::ResumeAll).await?;
    Ok(recorded(Who::of(&desk), request, &text))
}

/// Destroys everything of ours, and forbids spending until all is resumed.
#[utoipa::path(
    post, path = "/api/v1/kill", tag = "changes", request_body = Confirmation,
    security(("bearer" = []), ("header" = [])),
    responses(
        (status = 202, description = "Spending is forbidden; `text` says who destroys what is rented, and `is_taken_up` whether this daemon does", body = AskedDocument),
        (status = 400, description = "It is not confirmed", body = ErrorDocument),
        (status = 401, description = "The token is missing or wrong", body = ErrorDocument),
        (status = 403, description = "Another site, a name that is not haggle's, or no token is configured", body = ErrorDocument),
        (status = 413, description = "The body is too large", body = ErrorDocument),
        (status = 415, description = "The body is not sent as JSON", body = ErrorDocument),
        (status = 429, description = "Too many wrong tokens came from this address", body = ErrorDocument),
        (status = 500, description = "It went wrong", body = ErrorDocument),
        (status = 503, description = "It could not be recorded", body = ErrorDocument),
    )
)]
pub(super) async fn kill(
    Extract(desk): Extract<Arc<Desk>>,
    sent: Result<Bytes, BytesRejection>,
) -> Answer {
    let Confirmation { confirm } = body(sent)?;
    if confirm != CONFIRMED {
        return Err(Problem::bad_request(format!(
            "`confirm` has to be \"{CONFIRMED}\"; nothing was destroyed"
        )));
    }
    tracing::warn!("asked through the page: {CONFIRMED}");
    let path = desk.sources().database.clone();
    let now = desk.sources().clock.now();
    // The file first: it waits for nobody, and it forbids spending by itself.
    let (file, request) = desk
        .kill(move || (set_kill_file(&path), append_request(&path, now, &Ask::Kill)))
        .await?;
    match (file, request) {
        (Err(_), Err(error)) => Err(unwritten(&error)),
        (_, request) => Ok(killed(Who::of(&desk), &request)),
    }
}
