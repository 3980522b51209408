//! A server of S3 on loopback that tries signatures: written from AWS's description of signature
//! version 4 in a query, apart from the crate that signs. Its clock is set by the test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use chrono::NaiveDateTime;
use haggle::types::time::Time;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

pub(crate) const ACCESS: &str = "AKTEST";
pub(crate) const SECRET: &str = "se/cret+canary=";
pub(crate) const REGION: &str = "eu-test-1";
pub(crate) const BUCKET: &str = "a-bucket";

/// What the server is asked to do otherwise than it should, for one object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Odd {
    /// It sends the client to where it would find the object.
    Redirect,
    /// It is overloaded.
    Busy,
    /// It has a 404 that is not of S3.
    Lost,
}

#[derive(Default)]
pub(crate) struct Inside {
    pub(crate) objects: BTreeMap<String, Bytes>,
    pub(crate) odd: BTreeMap<String, Odd>,
    /// The methods and paths that were asked for, whatever came of them.
    pub(crate) asked: Vec<String>,
    now: i64,
}

#[derive(Clone, Default)]
pub(crate) struct Server {
    pub(crate) inside: Arc<Mutex<Inside>>,
    pub(crate) origin: String,
}

impl Server {
    pub(crate) async fn start(now: Time) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            origin: format!("http://{}", listener.local_addr().unwrap()),
            ..Self::default()
        };
        server.set_clock(now);
        let router = Router::new()
            .fallback(answer)
            .layer(DefaultBodyLimit::disable())
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    pub(crate) fn set_clock(&self, now: Time) {
        self.inside.lock().unwrap().now = now.0 / 1000;
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.inside
            .lock()
            .unwrap()
            .objects
            .keys()
            .cloned()
            .collect()
    }

    pub(crate) fn has(&self, key: &str) -> Option<Bytes> {
        self.inside.lock().unwrap().objects.get(key).cloned()
    }

    pub(crate) fn hold(&self, key: &str, bytes: impl Into<Bytes>) {
        let mut inside = self.inside.lock().unwrap();
        inside.objects.insert(key.to_owned(), bytes.into());
    }

    pub(crate) fn be_odd(&self, key: &str, odd: Odd) {
        self.inside.lock().unwrap().odd.insert(key.to_owned(), odd);
    }
}

fn error(status: u16, code: &str) -> Response {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
         <Message>in words</Message></Error>"
    );
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

async fn answer(
    State(server): State<Server>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut inside = server.inside.lock().unwrap();
    inside.asked.push(format!("{method} {}", uri.path()));
    let host = headers["host"].to_str().unwrap();
    if let Err((status, code)) = signed(method.as_str(), &uri, host, inside.now) {
        return error(status, code);
    }
    let path = decoded(uri.path());
    let Some((bucket, key)) = path[1..].split_once('/') else {
        return error(400, "InvalidRequest");
    };
    if bucket != BUCKET {
        return error(404, "NoSuchBucket");
    }
    if let Some(odd) = inside.odd.get(key) {
        return oddly(*odd);
    }
    match method {
        Method::GET => match inside.objects.get(key) {
            Some(bytes) => {
                let tag = [("etag", format!("\"{}\"", hex(&Sha256::digest(bytes))))];
                (tag, bytes.clone()).into_response()
            }
            None => error(404, "NoSuchKey"),
        },
        Method::PUT => {
            inside.objects.insert(key.to_owned(), body);
            StatusCode::OK.into_response()
        }
        Method::DELETE => {
            inside.objects.remove(key);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => error(405, "MethodNotAllowed"),
    }
}

fn oddly(odd: Odd) -> Response {
    match odd {
        Odd::Redirect => {
            let to = [("location", "/a-bucket/elsewhere")];
            (StatusCode::TEMPORARY_REDIRECT, to).into_response()
        }
        Odd::Busy => error(503, "SlowDown"),
        Odd::Lost => (StatusCode::NOT_FOUND, "<html>not here</html>").into_response(),
    }
}

// -------------------------------------------------------------------------------------- signatures

type Refusal = (u16, &'static str);

/// Whether a request is signed by the key that this server knows, for what it asks, and for now.
fn signed(method: &str, uri: &Uri, host: &str, now: i64) -> Result<(), Refusal> {
    const MALFORMED: Refusal = (400, "AuthorizationQueryParametersError");
    let query: BTreeMap<String, String> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect();
    let given = |name: &str| query.get(name).map(String::as_str);
    let Some(signature) = given("X-Amz-Signature") else {
        return Err((403, "AccessDenied"));
    };
    if given("X-Amz-Algorithm") != Some("AWS4-HMAC-SHA256")
        || given("X-Amz-SignedHeaders") != Some("host")
    {
        return Err(MALFORMED);
    }
    let date = given("X-Amz-Date").ok_or(MALFORMED)?;
    let at = NaiveDateTime::parse_from_str(date, "%Y%m%dT%H%M%SZ").map_err(|_| MALFORMED)?;
    let at = at.and_utc().timestamp();
    let expires: i64 = given("X-Amz-Expires")
        .and_then(|text| text.parse().ok())
        .filter(|seconds| (1..=604_800).contains(seconds))
        .ok_or(MALFORMED)?;

    let credential = given("X-Amz-Credential").ok_or(MALFORMED)?;
    let (access, scope) = credential.split_once('/').ok_or(MALFORMED)?;
    if access != ACCESS {
        return Err((403, "InvalidAccessKeyId"));
    }
    if scope != format!("{}/{REGION}/s3/aws4_request", &date[..8]) {
        return Err((400, "AuthorizationHeaderMalformed"));
    }
    if at > now + 15 * 60 {
        return Err((403, "RequestTimeTooSkewed"));
    }
    if now >= at + expires {
        return Err((403, "AccessDenied"));
    }
    // Sorted by name, and each written in the one way that there is.
    let canonical_query: Vec<String> = query
        .iter()
        .filter(|(name, _)| *name != "X-Amz-Signature")
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    let path: Vec<String> = decoded(uri.path()).split('/').map(encoded).collect();
    let request = format!(
        "{method}\n{}\n{}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD",
        path.join("/"),
        canonical_query.join("&"),
    );
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
        hex(&Sha256::digest(request))
    );
    let key = scope
        .split('/')
        .fold(format!("AWS4{SECRET}").into_bytes(), |key, part| {
            hmac(&key, part)
        });
    if hex(&hmac(&key, &to_sign)) == signature {
        Ok(())
    } else {
        Err((403, "SignatureDoesNotMatch"))
    }
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = after;
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).unwrap()
}
