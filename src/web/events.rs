//! The stream of events: that something new was published, and its number. What it is, is read.
//!
//! A reader that lags sees the newest number and not all of them, so nothing is kept for it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{ConnectInfo, State as Extract};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};

use super::answer::{ErrorDocument, Problem};
use super::desk::Desk;
use crate::daemon::web::Caller;

/// Server-sent events: `state`, with the number of what was published and its age.
#[utoipa::path(
    get, path = "/api/v1/events", tag = "state",
    responses(
        (status = 200, description = "Events named `state` whose data is `{\"version\": N, \"age_seconds\": A}`; at \
         once with the present number, at each publication, and every ten seconds without one; the age is that of \
         the last tick that made it", content_type = "text/event-stream", body = String),
        (status = 400, description = "A header is wrong", body = ErrorDocument),
        (status = 401, description = "It takes the token", body = ErrorDocument),
        (status = 403, description = "Another site, a name that is not haggle's, or no token is configured", body = ErrorDocument),
        (status = 503, description = "As many streams are open as may be", body = ErrorDocument),
    )
)]
pub(super) async fn events(
    Extract(desk): Extract<Arc<Desk>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
) -> Response {
    let Some(place) = desk.stream() else {
        return Problem::busy("as many streams of events are open as may be").into_response();
    };
    // The connection may live on for as long as this does.
    let held = (place, caller.stays());
    Sse::new(published(desk, held)).into_response()
}

fn published<T: Send + 'static>(
    desk: Arc<Desk>,
    held: T,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let begin = (desk.versions(), true, (desk, held));
    stream::unfold(begin, |(mut versions, is_first, held)| async move {
        let news = held.0.news(&mut versions, is_first).await?;
        let event = Event::default()
            .event("state")
            .id(news.version.to_string())
            .json_data(news)
            .unwrap_or_default();
        Some((Ok(event), (versions, false, held)))
    })
}
