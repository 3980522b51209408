//! The description of the API. What it says of documents is made of their types; a test holds that it
//! names every route.

use std::sync::OnceLock;

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::response::Response;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::answer::tagged;
use super::{api, changes, events, market, past};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "haggle",
        description = "What haggle is doing and what it costs, and the wishes that it takes. Amounts are decimal \
            strings in dollars with the unit in the name; times are RFC 3339 in UTC. Reading is free on the \
            daemon's own machine; changes take the token of `web.token`.",
        license(name = "MIT OR Apache-2.0"),
    ),
    paths(
        api::state, events::events, api::job, api::explain, market::market, api::logs, past::decisions,
        past::decision, past::story, past::spend, api::policies, changes::pause, changes::resume, changes::stop,
        changes::done, changes::kill, changes::resume_all, served,
    ),
    modifiers(&Tokens),
)]
struct Description;

struct Tokens;

impl Modify for Tokens {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let header = ApiKey::Header(ApiKeyValue::new("X-Haggle-Token"));
        components.add_security_scheme("header", SecurityScheme::ApiKey(header));
    }
}

/// The description of the API, as JSON.
pub fn description() -> String {
    let mut text = Description::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// The description of this API.
#[utoipa::path(
    get, path = "/api/v1/openapi.json", tag = "state",
    responses(
        (status = 200, description = "OpenAPI 3.1", body = serde_json::Value),
        (status = 304, description = "It is what `If-None-Match` names"),
        (status = 400, description = "A header is wrong", body = super::answer::ErrorDocument),
        (status = 401, description = "It takes the token", body = super::answer::ErrorDocument),
        (status = 403, description = "Another site, a name that is not haggle's, or no token is configured", body = super::answer::ErrorDocument),
    )
)]
pub(super) async fn served(headers: HeaderMap) -> Response {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    let text = TEXT.get_or_init(|| Bytes::from(description()));
    let tag = concat!("\"", env!("CARGO_PKG_VERSION"), "\"");
    tagged(&headers, ("application/json", tag), text, None)
}
