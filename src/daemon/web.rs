//! What the daemon serves for machines: its metrics, whether it lives, whether it is ready. The page and
//! its API are `web`'s, and are served beside it.
//!
//! The loop publishes ready-made texts; the server only hands them out. So a scrape never waits for
//! a tick, and a slow reader never holds up a decision.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State as Extract};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use tokio::net::TcpListener;

use super::doors::{BOUNDS, Bounds, Doors};
pub use super::doors::{Caller, Staying};
use super::webhook::{BODY_MAX, Webhook};

/// The text format of Prometheus.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the loop has published last.
#[derive(Debug)]
pub struct Shared {
    metrics: RwLock<Arc<str>>,
    unready: RwLock<Arc<[String]>>,
    heartbeat: RwLock<Arc<str>>,
    /// Whether it was handed out since that was last asked.
    heartbeat_read: AtomicBool,
    webhook: Option<Webhook>,
}

impl Default for Shared {
    fn default() -> Self {
        Self::new()
    }
}

impl Shared {
    /// Nothing published yet: alive, not ready.
    pub fn new() -> Self {
        Self {
            metrics: RwLock::new(Arc::from("")),
            unready: RwLock::new(Arc::from([String::from(
                "no poll of the marketplace has succeeded yet",
            )])),
            heartbeat: RwLock::new(Arc::from("")),
            heartbeat_read: AtomicBool::new(false),
            webhook: None,
        }
    }

    /// Receives the marketplace's notifications too.
    #[must_use]
    pub fn with_webhook(self, webhook: Webhook) -> Self {
        Self {
            webhook: Some(webhook),
            ..self
        }
    }

    /// Publishes the metrics' text.
    pub fn publish_metrics(&self, text: String) {
        put(&self.metrics, Arc::from(text));
    }

    /// Publishes why the daemon is not ready; empty: it is. The reasons hold no secret.
    pub fn publish_unready(&self, reasons: Vec<String>) {
        put(&self.unready, Arc::from(reasons));
    }

    /// Publishes the heartbeat, one JSON object without a secret.
    pub fn publish_heartbeat(&self, text: String) {
        put(&self.heartbeat, Arc::from(text));
    }

    /// The heartbeat that was published last; empty: none was.
    pub fn heartbeat(&self) -> Arc<str> {
        get_of(&self.heartbeat)
    }

    /// Whether somebody asked for the heartbeat since this was called last.
    pub fn heartbeat_was_read(&self) -> bool {
        self.heartbeat_read.swap(false, Ordering::Relaxed)
    }

    /// Why the daemon is not ready; empty: it is.
    pub fn unready(&self) -> Arc<[String]> {
        get_of(&self.unready)
    }
}

fn put<T>(slot: &RwLock<T>, value: T) {
    *slot.write().unwrap_or_else(PoisonError::into_inner) = value;
}

fn get_of<T: Clone>(slot: &RwLock<T>) -> T {
    slot.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A sentence of warning where the address can be reached from other machines: what is served has
/// no login.
pub fn warning(listen: SocketAddr) -> Option<String> {
    (!listen.ip().is_loopback()).then(|| {
        format!(
            "{listen} can be reached from other machines, and metrics and the heartbeat ask for no login \
             there (the page and the API take the token, in plain text); put a proxy with a login and TLS \
             in front, or listen on 127.0.0.1"
        )
    })
}

/// Serves until `shutdown` ends.
pub async fn serve(
    listener: TcpListener,
    routes: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    serve_within(listener, BOUNDS, routes, shutdown).await
}

async fn serve_within(
    listener: TcpListener,
    bounds: Bounds,
    routes: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let routes = routes.layer(middleware::map_response(guard));
    let service = routes.into_make_service_with_connect_info::<Caller>();
    axum::serve(Doors::new(listener, bounds), service)
        .with_graceful_shutdown(shutdown)
        .await
}

/// The routes.
pub fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/heartbeat", get(heartbeat));
    // Without a secret nothing could be told from a forgery, so there is no endpoint.
    if shared.webhook.is_some() {
        let receive = post(deliver).layer(DefaultBodyLimit::max(BODY_MAX));
        router = router.route("/webhooks/vast", receive);
    }
    router.with_state(shared)
}

/// Headers that keep a browser from guessing types, framing what is served, giving it to other sites, or
/// keeping what it saw. What says something stricter of itself is left so.
async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
        (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
    ] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

async fn metrics(Extract(shared): Extract<Arc<Shared>>) -> Response {
    let text = get_of(&shared.metrics);
    ([(header::CONTENT_TYPE, METRICS_TYPE)], text.to_string()).into_response()
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn deliver(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> StatusCode {
    match &shared.webhook {
        Some(webhook) => webhook.receive(&headers, body.ok().as_ref()),
        None => StatusCode::NOT_FOUND,
    }
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    reasons: Arc<[String]>,
}

async fn readyz(Extract(shared): Extract<Arc<Shared>>) -> Response {
    let reasons = shared.unready();
    let ready = reasons.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, axum::Json(Readiness { ready, reasons })).into_response()
}

/// The loop's last word. That it is served proves nothing: that its tick moves does.
async fn heartbeat(Extract(shared): Extract<Arc<Shared>>) -> Response {
    let text = shared.heartbeat();
    shared.heartbeat_read.store(true, Ordering::Relaxed);
    if text.is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, "no heartbeat yet\n").into_response();
    }
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, text.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use tokio::sync::oneshot;

    fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn readiness_follows_what_is_published() {
        let shared = Arc::new(Shared::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, router(Arc::clone(&shared)), async {
            let _ = stopped.await;
        }));
        let get = |path: &'static str| tokio::task::spawn_blocking(move || ask(address, path));

        let before = get("/readyz").await.unwrap();
        assert!(before.starts_with("HTTP/1.1 503"), "{before}");
        assert!(before.contains("no poll of the marketplace"), "{before}");
        assert!(get("/healthz").await.unwrap().starts_with("HTTP/1.1 200"));

        shared.publish_unready(Vec::new());
        shared.publish_metrics("haggle_live 1\n".into());
        let after = get("/readyz").await.unwrap();
        assert!(after.starts_with("HTTP/1.1 200"), "{after}");
        assert!(after.contains(r#"{"ready":true,"reasons":[]}"#), "{after}");
        let metrics = get("/metrics").await.unwrap();
        assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
        assert!(metrics.contains("x-content-type-options: nosniff"));
        assert!(metrics.ends_with("haggle_live 1\n"), "{metrics}");

        assert!(get("/heartbeat").await.unwrap().starts_with("HTTP/1.1 503"));
        shared.publish_heartbeat(r#"{"tick":3}"#.into());
        let heartbeat = get("/heartbeat").await.unwrap();
        assert!(
            heartbeat.contains("content-type: application/json"),
            "{heartbeat}"
        );
        assert!(heartbeat.ends_with(r#"{"tick":3}"#), "{heartbeat}");

        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
    }

    fn post(address: SocketAddr, bytes: usize) -> String {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(
            stream,
            "POST /webhooks/vast HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
             content-length: {bytes}\r\n\r\n"
        )
        .unwrap();
        // A server that has read enough may close before all is sent.
        let _ = stream.write_all(&vec![b' '; bytes]);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn notifications_are_received_where_they_have_a_secret() {
        let webhook = Webhook::new(
            secrecy::SecretString::from("s"),
            Arc::new(crate::clock::SimClock::new(crate::types::time::Time(0))),
            Arc::default(),
            Arc::new(crate::daemon::metrics::Metrics::new()),
            Arc::new(str::to_owned),
        );
        for (shared, answers) in [
            (Shared::new(), ["404", "404"]),
            (Shared::new().with_webhook(webhook), ["401", "413"]),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(serve(
                listener,
                router(Arc::new(shared)),
                std::future::pending(),
            ));
            for (bytes, status) in [100, BODY_MAX + 1].into_iter().zip(answers) {
                let post = move || post(address, bytes);
                let answer = tokio::task::spawn_blocking(post).await.unwrap();
                assert!(
                    answer.starts_with(&format!("HTTP/1.1 {status}")),
                    "{answer}"
                );
            }
            server.abort();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn clients_that_hold_on_are_let_go_and_others_are_served() {
        let bounds = Bounds {
            at_once: 2,
            lives: std::time::Duration::from_millis(100),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::new());
        let server = tokio::spawn(serve_within(
            listener,
            bounds,
            router(shared),
            std::future::pending(),
        ));
        let work = move || {
            // One says nothing, one half a request, one half a body, one keeps its connection.
            let mut held: Vec<_> = [
                "",
                "GET /metrics HTTP/1.1\r\nhost:",
                "POST /webhooks/vast HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{",
                "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
            ]
            .into_iter()
            .map(|said| {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                stream.write_all(said.as_bytes()).unwrap();
                stream
            })
            .collect();
            let answer = ask(address, "/healthz");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            for stream in &mut held {
                // The end of the connection, in whichever way, and not waiting for ever.
                let _ = stream.read_to_end(&mut Vec::new());
            }
        };
        tokio::task::spawn_blocking(work).await.unwrap();
        server.abort();
    }

    #[test]
    fn only_other_machines_are_warned_of() {
        assert_eq!(warning("127.0.0.1:9464".parse().unwrap()), None);
        assert!(warning("0.0.0.0:9464".parse().unwrap()).is_some());
    }
}
