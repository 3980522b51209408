//! How answers and refusals are wrapped: the gateway's documented envelope, the one that gateways
//! were seen to speak, or none.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde_json::{Value, json};

use super::api::MarketError;
use crate::ports::Reply;
use crate::types::time::Time;

/// The marketplace's content type, exactly: clients compare the whole header.
pub(crate) const JSON: &str = "application/json";

/// The name by which the gateway speaks of the marketplace.
const PROVIDER: &str = "vastai";

/// What surrounds an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Envelope {
    /// `{"data": …}`, and `{"data": {"error": {"message", "code"}}}`: the gateway's documentation.
    #[default]
    Data,
    /// `{"message", "provider", "result": …}`, and `{…, "error": …}`: as gateways were seen to speak.
    Result,
    /// Nothing: the marketplace's own body.
    None,
}

impl FromStr for Envelope {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "data" => Ok(Self::Data),
            "result" => Ok(Self::Result),
            "none" => Ok(Self::None),
            _ => Err(format!("`{text}` is not one of data, result, none")),
        }
    }
}

impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Data => "data",
            Self::Result => "result",
            Self::None => "none",
        })
    }
}

impl Envelope {
    /// A success; `body` is the text of a JSON value.
    pub(crate) fn success(self, body: String) -> Reply {
        let body = match self {
            Self::Data => format!(r#"{{"data":{body}}}"#),
            Self::Result => format!(
                r#"{{"message":"Success","provider":"{PROVIDER}","result":{body},"response_headers":{{}}}}"#
            ),
            Self::None => body,
        };
        reply(200, body)
    }

    /// A refusal by the marketplace.
    pub(crate) fn refusal(self, error: &MarketError) -> Reply {
        let mut native = json!({"success": false, "error": error.code, "msg": error.msg});
        let mut documented = json!({"message": error.msg, "code": error.code});
        for (name, id) in [
            ("ask_id", error.ask_id),
            ("new_contract", error.new_contract),
        ] {
            if let Some(id) = id {
                native[name] = json!(id);
                documented[name] = json!(id);
            }
        }
        let body = match self {
            Self::Data => json!({"data": {"error": documented}}),
            Self::Result => json!({"message": error.msg, "provider": PROVIDER, "error": native}),
            Self::None => native,
        };
        reply(error.status, body.to_string())
    }

    /// An error of the gateway itself: it names no provider.
    pub(crate) fn own_error(self, status: u16, code: &str, message: &str) -> Reply {
        let body = match self {
            Self::Data => json!({"data": {"error": {"message": message, "code": code}}}),
            Self::Result | Self::None => json!({"message": message}),
        };
        reply(status, body.to_string())
    }

    /// A missing or malformed token. It echoes the request's headers and query, as gateways were
    /// seen to: what a client logs of it, it has to redact.
    pub(crate) fn unauthorized(self, headers: &Value, query: &Value) -> Reply {
        const MESSAGE: &str = "Unauthorized: api_token is missing or invalid";
        let body = match self {
            Self::Data => json!({"data": {"error": {
                "message": MESSAGE, "code": "UNAUTHORIZED", "headers": headers, "query": query}}}),
            Self::Result | Self::None => {
                json!({"message": MESSAGE, "headers": headers, "query": query})
            }
        };
        reply(401, body.to_string())
    }

    /// Too many requests: the marketplace's answer in one of the shapes that it was seen in,
    /// chosen by a number; only some say when to come back.
    pub(crate) fn throttled(self, shape: u64, interval_ms: i64) -> Reply {
        let native = Throttled::new(shape, interval_ms);
        match self {
            Self::Data => self.own_error(429, "TOO_MANY_REQUESTS", &native.detail),
            // The provider's header is passed on inside the body only.
            Self::Result => reply(
                429,
                json!({"message": "Request failed with status code 429", "provider": PROVIDER,
                    "error": native.body, "headers": {"retry-after": native.wait.to_string()}})
                .to_string(),
            ),
            Self::None => native.reply(shape % 2 == 1),
        }
    }

    /// No more searches today: clients are told when the quota begins anew, at midnight UTC.
    pub(crate) fn quota_used_up(self, now: Time) -> Reply {
        const DAY_MS: i64 = 86_400_000;
        let reset = (now.0.div_euclid(DAY_MS) + 1) * DAY_MS / 1000;
        let mut reply = self.refusal(&MarketError::new(
            429,
            "search_quota_exceeded",
            "Daily search quota exceeded.",
        ));
        if self == Self::None {
            let header = ("x-ratelimit-reset".to_owned(), reset.to_string());
            reply.headers.push(header);
        }
        reply
    }

    /// A failure on the way, in one of several shapes chosen by a number.
    pub(crate) fn server_error(self, shape: u64) -> Reply {
        match shape % 4 {
            0 => self.own_error(500, "SERVER_ERROR", "socket hang up"),
            1 => typed(
                502,
                "text/html",
                "<html><body>502 Bad Gateway</body></html>".to_owned(),
            ),
            2 => self.refusal(&MarketError::new(
                503,
                "server_error",
                "Service unavailable",
            )),
            _ => typed(
                504,
                "text/html",
                "<html><body>504 Gateway Time-out</body></html>".to_owned(),
            ),
        }
    }
}

/// The marketplace's own words where a call comes too soon.
struct Throttled {
    detail: String,
    body: Value,
    /// Whole seconds to wait.
    wait: u64,
}

impl Throttled {
    fn new(shape: u64, interval_ms: i64) -> Self {
        const PLAIN: &str = "API requests too frequent";
        let seconds = interval_ms as f64 / 1000.0;
        let wait = (interval_ms.max(1) as u64).div_ceil(1000);
        let detail = format!("{PLAIN} endpoint threshold={seconds}");
        let body = match shape % 5 {
            0 => json!(PLAIN),
            1 => json!({ "detail": detail }),
            2 => json!({"success": false, "error": "too_many_requests", "msg": detail}),
            3 => json!({"success": false, "msg": detail, "retry_after": wait}),
            _ => json!(format!("{PLAIN}: endpoint threshold={seconds}")),
        };
        Self { detail, body, wait }
    }

    fn reply(self, header: bool) -> Reply {
        let (kind, body) = match self.body {
            Value::String(text) => ("text/plain", text),
            body => (JSON, body.to_string()),
        };
        let mut reply = typed(429, kind, body);
        if header {
            let header = ("retry-after".to_owned(), self.wait.to_string());
            reply.headers.push(header);
        }
        reply
    }
}

/// The marketplace's answer where its own limit is passed: in any of its shapes, always with the
/// header that newer servers send.
pub(crate) fn limited(shape: u64, interval_ms: i64) -> Reply {
    Throttled::new(shape, interval_ms).reply(true)
}

/// A result that is a text.
pub(crate) fn text(body: String) -> Reply {
    typed(200, "text/plain", body)
}

/// A web page in place of an answer, in one of several shapes chosen by a number.
pub(crate) fn web_page(shape: u64) -> Reply {
    let (status, page) = match shape % 3 {
        0 => (
            200,
            "<!DOCTYPE html><title>Vast.ai</title><body>Please log in or sign up</body>",
        ),
        1 => (403, "<!DOCTYPE html><title>Just a moment…</title>"),
        _ => (503, "<html><body>503 Service Unavailable</body></html>"),
    };
    typed(status, "text/html", page.to_owned())
}

/// The gateway's own answer where no route matches, the same in every envelope. Only this one says
/// that the path's format is wrong: a 404 of the marketplace looks otherwise.
pub(crate) fn not_found() -> Reply {
    reply(404, r#"{"message":"Not Found"}"#.to_owned())
}

/// A body that is no JSON, made of one that is, in one of several shapes chosen by a number.
pub(crate) fn garbage(shape: u64, reply: &Reply) -> Reply {
    match shape % 3 {
        // An object that is cut in the middle is none.
        0 => Reply {
            body: reply.body.slice(..reply.body.len() / 2),
            ..reply.clone()
        },
        1 => typed(
            200,
            "text/html",
            "<!DOCTYPE html><title>Just a moment…</title>".to_owned(),
        ),
        _ => Reply {
            body: Bytes::from_static(b"\xff\xfe\x00{"),
            ..reply.clone()
        },
    }
}

/// A JSON reply.
pub(crate) fn reply(status: u16, body: String) -> Reply {
    typed(status, JSON, body)
}

fn typed(status: u16, kind: &str, body: String) -> Reply {
    Reply {
        status,
        headers: vec![("content-type".to_owned(), kind.to_owned())],
        body: Bytes::from(body),
    }
}
