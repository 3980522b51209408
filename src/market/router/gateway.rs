//! The marketplace behind its gateway.

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{Inside, MarketServer, PREFIX, admit, as_disputed, body_fields};
use crate::market::api::MarketError;
use crate::market::disputed::Missing;
use crate::market::operations::{self, Call};
use crate::market::routes::{self, Matched};
use crate::market::wire;
use crate::ports::{Method, Reply, Request};

/// Every token of the gateway begins so.
const TOKEN_PREFIX: &str = "at_";

/// The answer for an instance that is not there.
const MISSING: &str = r#"{"instances":null}"#;

impl MarketServer {
    /// What a path under the gateway's prefix asks for, in the formats that are spoken.
    pub(super) fn gateway_route(&self, request: &Request, path: &str) -> Option<Matched> {
        let options = &self.options;
        let bids = !options.quirks.no_bids;
        routes::find(
            request.method,
            path,
            &request.query,
            options.paths,
            options.literal_ids,
        )
        .filter(|matched| bids || !matched.route.is_bid())
    }

    /// The gateway's description of itself, where that is asked for.
    pub(super) fn definition(&self, request: &Request, path: &str) -> Option<Reply> {
        let described = match path.trim_end_matches('/') {
            "/definition" => true,
            "/openapi" => self.options.openapi,
            _ => false,
        };
        let asked = request.method == Method::Get && described;
        let bids = !self.options.quirks.no_bids;
        asked.then(|| {
            let definition = routes::definition(PREFIX, self.options.paths, bids);
            wire::reply(200, definition.to_string())
        })
    }

    /// The answer of a gateway and marketplace with nothing wrong between them.
    pub(super) fn gateway_answer(
        &self,
        inside: &mut Inside,
        matched: Option<&Matched>,
        request: &Request,
    ) -> Reply {
        let envelope = self.options.envelope;
        // A path that is not found is told before the token is looked at.
        let Some(Matched { route, id }) = matched else {
            return wire::not_found();
        };
        let token = match self.gateway_token(request) {
            Ok(token) => token,
            Err(reply) => return reply,
        };
        let now = self.now();
        inside.market.advance_to(now);
        let Some(account) = inside.market.admit(token) else {
            return envelope.own_error(403, "FORBIDDEN", "Invalid api_token");
        };
        let key = (account, route.operation);
        if self.options.rate_limits && !admit(&mut inside.calls, key, route.limit, now) {
            let shape = inside.faults.requests();
            return envelope.throttled(shape, route.limit.1 / route.limit.0.max(1) as i64);
        }
        let body = match body_fields(request) {
            Ok(body) => body,
            Err(reason) => return envelope.own_error(400, "BAD_REQUEST", reason),
        };
        let call = Call {
            account,
            id: id.as_deref(),
            query: &request.query,
            body: &body,
            quirks: self.options.quirks,
            opened_at: self.opened_at,
        };
        let answered = operations::perform(&mut inside.market, route.operation, &call);
        let disputed = &inside.market.options.disputed;
        match answered {
            Ok(body) if body == MISSING && disputed.missing == Missing::NotFound => {
                let id = id.as_deref().unwrap_or("null");
                envelope.refusal(&MarketError::new(
                    404,
                    "no_such_instance",
                    format!("Instance {id} was not found."),
                ))
            }
            Ok(body) => envelope.success(body),
            Err(error) => envelope.refusal(&as_disputed(error, disputed)),
        }
    }

    /// The token, which counts only as the query's `api_token`.
    fn gateway_token<'a>(&self, request: &'a Request) -> Result<&'a str, Reply> {
        let envelope = self.options.envelope;
        let tokens = request.query.iter().filter(|(key, _)| key == "api_token");
        let tokens: Vec<&str> = tokens.map(|(_, token)| token.as_str()).collect();
        let token = match tokens.as_slice() {
            [token] if token.starts_with(TOKEN_PREFIX) => *token,
            [] | [_] => return Err(envelope.unauthorized(&headers(request), &query(request))),
            _ => {
                let message = "api_token.startsWith is not a function";
                return Err(envelope.own_error(500, "SERVER_ERROR", message));
            }
        };
        let known = self.options.token.as_ref();
        if known.is_none_or(|known| known.expose_secret() == token) {
            Ok(token)
        } else {
            Err(envelope.own_error(403, "FORBIDDEN", "Invalid api_token"))
        }
    }
}

fn headers(request: &Request) -> Value {
    let mut headers = json!({ "content-type": wire::JSON });
    if let Some(bearer) = &request.bearer {
        headers["authorization"] = json!(format!("Bearer {bearer}"));
    }
    headers
}

fn query(request: &Request) -> Value {
    let pairs = request.query.iter();
    Value::Object(
        pairs
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect(),
    )
}
