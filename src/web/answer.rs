//! Answers: JSON, and errors that say what would be right.

use std::io::Write as _;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use utoipa::ToSchema;

/// Smaller answers are not worth compressing.
const GZIP_MIN: usize = 1024;

/// What is wrong with a request, or with us.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct ErrorDocument {
    /// A word for programs.
    pub(super) error: &'static str,
    /// What is wrong.
    pub(super) message: String,
    /// What would be right.
    pub(super) help: Option<String>,
}

/// An answer that says what is wrong.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    document: ErrorDocument,
}

impl Problem {
    /// With a word for programs and a sentence for people.
    pub(super) fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            document: ErrorDocument {
                error,
                message: message.into(),
                help: None,
            },
        }
    }

    /// With what would be right.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.document.help = Some(help.into());
        self
    }

    /// The word for programs.
    #[cfg(test)]
    pub(super) fn code(&self) -> &'static str {
        self.document.error
    }

    /// The parameters of a request are wrong.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message)
    }

    /// Nothing has this name.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message)
    }

    /// It may be asked again later.
    pub(super) fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = json(&self.document);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let waits = [
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::TOO_MANY_REQUESTS,
        ];
        if waits.contains(&self.status) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

/// A document as it is sent.
pub(super) fn json(document: &impl Serialize) -> Response {
    match serde_json::to_vec(document) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => {
            tracing::error!("an answer cannot be written as JSON: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Whether a client takes gzip.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    accepted
        .map(|coding| coding.split(';').map(str::trim).collect::<Vec<_>>())
        .any(|coding| {
            coding[0] == "gzip" && !coding[1..].iter().any(|q| matches!(*q, "q=0" | "q=0.0"))
        })
}

/// A text, compressed; `None` where that is not worth it.
pub(super) fn gzip(text: &[u8]) -> Option<Bytes> {
    if text.len() < GZIP_MIN {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// An answer that may be compressed, and that is not sent again to whoever has it.
pub(super) fn tagged(
    headers: &HeaderMap,
    (kind, tag): (&'static str, &str),
    text: &Bytes,
    packed: Option<&Bytes>,
) -> Response {
    let has = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag);
    let mut response = if has {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        match packed.filter(|_| takes_gzip(headers)) {
            Some(packed) => (
                [(header::CONTENT_ENCODING, "gzip")],
                Body::from(packed.clone()),
            )
                .into_response(),
            None => Body::from(text.clone()).into_response(),
        }
    };
    let headers = response.headers_mut();
    if !has {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// Nothing is at this path.
pub(super) async fn no_such_path() -> Problem {
    Problem::not_found("the API has no such path").help("GET /api/v1/openapi.json describes it")
}

/// The path does not take this method.
pub(super) async fn no_such_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "this path does not take this method",
    )
    .help("GET /api/v1/openapi.json describes it")
}
