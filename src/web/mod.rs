//! haggle's own page and the HTTP API behind it, on the daemon's address.
//!
//! The loop publishes what it saw and decided (`publish.rs`), and the desk keeps it ready (`desk.rs`).
//! Whoever asks is handed that, or what a read of the database gives beside the loop, bounded in number
//! and in time (`api.rs`). So no reader, however many or slow, holds up a decision. A change is the same
//! durable wish that the command line writes (`changes.rs`), and takes a token. Who may ask for what is
//! decided in one place (`access.rs`).

mod access;
mod answer;
mod api;
mod assets;
mod changes;
mod desk;
mod documents;
mod events;
mod market;
mod openapi;
mod past;
mod publish;
#[cfg(test)]
mod tests;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use axum::{Router, extract::Request, response::Response};
use tokio::sync::oneshot;

pub use access::{Access, TOKEN_CHARS_MIN};
pub use desk::{Desk, Sources};
pub use openapi::description;
pub use publish::Publisher;

use crate::daemon::web::{self, Shared};

/// Largest body of a request that is read, bytes.
const BODY_MAX: usize = 4096;

/// Threads that read the database for whoever asks, at most.
const READERS: usize = 2;

/// Threads that change something: one records wishes, and one kills.
const WRITERS: usize = 2;

/// The routes of the page and of the API.
pub fn router(desk: Arc<Desk>) -> Router {
    let kept = Router::new()
        .route("/jobs/{name}/logs", get(api::logs))
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(&desk),
            access::may_read_kept,
        ));
    let reads = Router::new()
        .route("/state", get(api::state))
        .route("/events", get(events::events))
        .route("/jobs/{name}", get(api::job))
        .route("/jobs/{name}/explain", get(api::explain))
        .route("/jobs/{name}/market", get(market::market))
        .route("/decisions", get(past::decisions))
        .route("/decisions/{tick}", get(past::decision))
        .route("/story", get(past::story))
        .route("/spend", get(past::spend))
        .route("/policies", get(api::policies))
        .route("/openapi.json", get(openapi::served))
        .merge(kept)
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(&desk),
            access::may_read,
        ));
    let changes = Router::new()
        .route("/jobs/{name}/pause", post(changes::pause))
        .route("/jobs/{name}/resume", post(changes::resume))
        .route("/jobs/{name}/stop", post(changes::stop))
        .route("/jobs/{name}/done", post(changes::done))
        .route("/kill", post(changes::kill))
        .route("/resume-all", post(changes::resume_all))
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(&desk),
            access::may_change,
        ))
        .layer(DefaultBodyLimit::max(BODY_MAX));
    let api = reads
        .merge(changes)
        .fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::no_such_method)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&desk),
            access::may_knock,
        ));
    Router::new()
        .route("/", get(assets::index))
        .route("/page/{file}", get(assets::file))
        .layer(middleware::map_response(assets::guard))
        .nest("/api/v1", api)
        .with_state(desk)
}

/// Serves on a thread of its own until the handle is dropped: nothing that is asked here waits for a
/// tick, and no tick for it.
///
/// # Errors
/// The listener cannot be used, or there is no thread.
pub fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    desk: Arc<Desk>,
) -> io::Result<oneshot::Sender<()>> {
    listener.set_nonblocking(true)?;
    let exposed = listener
        .local_addr()
        .map_or(true, |address| !address.ip().is_loopback());
    desk.is_exposed(exposed);
    let routes = web::router(shared).merge(router(desk));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(READERS + WRITERS)
        .enable_all()
        .build()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let work = async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::select! {
            biased;
            // Also ready when the handle is dropped. Streams have no end, so nobody is waited for.
            _ = stopped => Ok(()),
            ended = web::serve(listener, routes, std::future::pending()) => ended,
        }
    };
    std::thread::Builder::new()
        .name("haggle-web".to_owned())
        .spawn(move || {
            if let Err(error) = runtime.block_on(work) {
                tracing::error!("the web server ended: {error}");
            }
            runtime.shutdown_background();
        })?;
    Ok(stop)
}

/// Runs what a layer lets through.
async fn pass(request: Request, next: middleware::Next) -> Response {
    next.run(request).await
}
