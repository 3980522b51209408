//! The stream of events: that something new was published, and its number. What it is, is read.
//!
//! A reader that lags sees the newest number and not all of them, so nothing is kept for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, State as Extract};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};

use super::answer::{ErrorDocument, Problem};
use super::desk::Desk;
use crate::daemon::web::Caller;

/// A stream says so often that it lives, where nothing is published.
const ALIVE_EVERY: Duration = Duration::from_secs(10);

/// Server-sent events: `state`, with the number of what was published.
#[utoipa::path(
    get, path = "/api/v1/events", tag = "state",
    responses(
        (status = 200, description = "Events named `state` whose data is `{\"version\": N}`; at once with the \
         present number, then at each publication", content_type = "text/event-stream", body = String),
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
    Sse::new(published(&desk, held))
        .keep_alive(KeepAlive::new().interval(ALIVE_EVERY))
        .into_response()
}

fn published<T: Send + 'static>(
    desk: &Desk,
    held: T,
) -> impl Stream<Item = Result<Event, Infallible>> + use<T> {
    let begin = (desk.versions(), true, held);
    stream::unfold(begin, |(mut versions, is_first, held)| async move {
        if !is_first {
            versions.changed().await.ok()?;
        }
        let version = *versions.borrow_and_update();
        let event = Event::default()
            .event("state")
            .id(version.to_string())
            .data(format!("{{\"version\":{version}}}"));
        Some((Ok(event), (versions, false, held)))
    })
}
