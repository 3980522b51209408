//! Who may ask for what.
//!
//! Reading is free where haggle listens on this machine alone, is called by this machine's own name, and
//! nothing says that a proxy passes it on from elsewhere; anything else takes the token, and so do the logs
//! of jobs wherever there is one. A name that nobody configured is refused, whatever it resolves to, so
//! that no other site can be made to point here. What another site's page sends is refused by what
//! browsers say of it, and by the token, which no browser sends by itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State as Extract};
use axum::http::{HeaderMap, StatusCode, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use super::answer::Problem;
use super::desk::Desk;
use super::pass;
use crate::daemon::web::Caller;
use crate::types::time::Mono;

/// A token has at least so many characters: what is shorter is guessed.
pub const TOKEN_CHARS_MIN: usize = 16;

/// The header that carries the token where a proxy needs `Authorization` for itself.
const TOKEN_HEADER: &str = "x-haggle-token";

/// Wrong tokens from an address that are answered as such in [`FAILURES_WITHIN`]; whoever sends more is told
/// to wait. The right one is taken all the same: behind a proxy all have one address, and a token cannot be
/// guessed at any pace.
const FAILURES_MAX: u32 = 10;

/// Failures are forgotten so long after the first of them.
const FAILURES_WITHIN: Duration = Duration::from_mins(1);

/// Addresses whose failures are remembered.
const ADDRESSES_MAX: usize = 256;

/// What is asked of whoever calls.
pub struct Access {
    token: Option<SecretString>,
    /// Names under which a proxy passes requests on.
    hosts: Vec<String>,
    failures: Mutex<BTreeMap<IpAddr, (u32, Mono)>>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

impl Access {
    /// With the token that changes take, if there is one, and the names under which haggle is called
    /// beside this machine's own.
    pub fn new(token: Option<SecretString>, hosts: Vec<String>) -> Self {
        Self {
            token,
            hosts: hosts.iter().map(|host| plain(host)).collect(),
            failures: Mutex::default(),
        }
    }

    /// Whether changes can be asked for at all.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether a given token is the one. In the same time whatever it is.
    fn is_token(&self, given: &str) -> bool {
        let Some(token) = &self.token else {
            return false;
        };
        let digest = |text: &str| {
            let mac = Hmac::<Sha256>::new_from_slice(b"haggle web token").ok();
            mac.map(|mut mac| {
                mac.update(text.as_bytes());
                mac
            })
        };
        let (Some(given), Some(known)) = (digest(given), digest(token.expose_secret())) else {
            return false;
        };
        given.verify_slice(&known.finalize().into_bytes()).is_ok()
    }

    /// Lets whoever has the token pass.
    fn admit(&self, headers: &HeaderMap, from: IpAddr, now: Mono) -> Result<(), Problem> {
        let given = tokens_in(headers)?;
        // Where two are given, both are meant.
        if given.iter().all(|given| self.is_token(given)) {
            return Ok(());
        }
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|_, (_, first)| now.since(*first) < FAILURES_WITHIN);
        if failures
            .get(&from)
            .is_some_and(|(count, _)| *count >= FAILURES_MAX)
        {
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-failures",
                "too many wrong tokens came from this address",
            )
            .help("wait a minute; `haggle` on the command line works meanwhile"));
        }
        if failures.len() >= ADDRESSES_MAX && !failures.contains_key(&from) {
            failures.pop_first();
        }
        failures.entry(from).or_insert((0, now)).0 += 1;
        Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "wrong-token",
            "the token is not the one that the configuration names",
        )
        .help("`web.token` says where it is found; it is read when the daemon starts"))
    }
}

/// The tokens that a request carries, at least one. A login for a proxy is none.
fn tokens_in(headers: &HeaderMap) -> Result<Vec<&str>, Problem> {
    let own = only(headers, TOKEN_HEADER)?;
    let login = only(headers, header::AUTHORIZATION.as_str())?;
    let bearer = login.and_then(|given| {
        let (scheme, token) = given.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case("bearer ").then(|| token.trim())
    });
    let given: Vec<&str> = own.into_iter().chain(bearer).collect();
    if given.is_empty() {
        return Err(
            Problem::new(StatusCode::UNAUTHORIZED, "no-token", "this takes the token")
                .help("send it as `Authorization: Bearer TOKEN`, or as `X-Haggle-Token: TOKEN`"),
        );
    }
    Ok(given)
}

/// The one value of a header. One that comes twice means two things to two readers.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    let refused = |what: &str| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "bad-header",
            format!("the header {name} {what}"),
        )
    };
    match (first, second) {
        (_, Some(_)) => Err(refused("stands there twice")),
        (Some(value), None) => value
            .to_str()
            .map(Some)
            .map_err(|_| refused("is no plain text")),
        (None, None) => Ok(None),
    }
}

/// A host's name as it is compared: without its port, its brackets, and in small letters.
fn plain(host: &str) -> String {
    let host = host.trim();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        },
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// By which name a caller calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// This machine's own.
    Own,
    /// One that was configured, or an address.
    Given,
}

/// What proxies put into a request that they pass on.
const PASSED_ON: [&str; 4] = ["forwarded", "via", "x-real-ip", "x-original-host"];

/// Whether a proxy may have passed a request on. Where names are configured there is one; many say so; and
/// some speak HTTP/1.0 unless told otherwise, which no browser does.
fn may_be_passed_on(access: &Access, version: Version, headers: &HeaderMap) -> bool {
    !access.hosts.is_empty()
        || version < Version::HTTP_11
        || headers.keys().any(|name| {
            let name = name.as_str();
            name.starts_with("x-forwarded-") || PASSED_ON.contains(&name)
        })
}

/// By which name haggle is called, where it is one of its own.
fn called(access: &Access, exposed: bool, uri: &Uri, headers: &HeaderMap) -> Result<Name, Problem> {
    let host = only(headers, header::HOST.as_str())?.ok_or_else(|| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "no-host",
            "the request has no Host header",
        )
    })?;
    let name = plain(host);
    // A request line may name a host too; where the two differ nobody knows which was meant.
    if uri.host().is_some_and(|other| plain(other) != name) {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "two-hosts",
            "the request names two hosts",
        ));
    }
    let address: Option<IpAddr> = name.parse().ok();
    if name == "localhost" || address.is_some_and(|ip| ip.is_loopback()) {
        return Ok(Name::Own);
    }
    // An address that was typed is not a name that somebody else's server can point here.
    if access.hosts.contains(&name) || (exposed && address.is_some()) {
        return Ok(Name::Given);
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "unknown-host",
        "haggle does not answer to this name",
    )
    .help("name it in `web.hosts` of the configuration, if it is yours"))
}

/// Whether a page of another site sent it, by what its browser says.
fn is_of_another_site(headers: &HeaderMap) -> Result<bool, Problem> {
    if let Some(site) = only(headers, "sec-fetch-site")?
        && !matches!(site, "same-origin" | "none")
    {
        return Ok(true);
    }
    let Some(origin) = only(headers, header::ORIGIN.as_str())? else {
        return Ok(false);
    };
    let host = only(headers, header::HOST.as_str())?.unwrap_or_default();
    let of = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    Ok(!of.is_some_and(|of| of.eq_ignore_ascii_case(host)))
}

fn foreign() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "another-site",
        "a page of another site sent this",
    )
    .help("behind a proxy, have it pass on the name it is called by: `proxy_set_header Host $http_host`")
}

/// For all of the API: the right name, and no other site.
pub(super) async fn may_knock(
    Extract(desk): Extract<Arc<Desk>>,
    request: Request,
    next: Next,
) -> Response {
    let (uri, headers) = (request.uri(), request.headers());
    let name = called(desk.access(), desk.exposed(), uri, headers);
    match name.and_then(|_| is_of_another_site(headers)) {
        Ok(false) => pass(request, next).await,
        Ok(true) => foreign().into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// For what is read.
pub(super) async fn may_read(
    Extract(desk): Extract<Arc<Desk>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let (uri, headers) = (request.uri(), request.headers());
    let name = match called(desk.access(), desk.exposed(), uri, headers) {
        Ok(name) => name,
        Err(problem) => return problem.into_response(),
    };
    let passed_on = may_be_passed_on(desk.access(), request.version(), headers);
    if name == Name::Own && !desk.exposed() && !passed_on {
        return pass(request, next).await;
    }
    let from = caller.address.ip();
    match with_token(&desk, headers, from) {
        Ok(()) => pass(request, next).await,
        Err(problem) => problem.into_response(),
    }
}

/// For what is kept from the other users of this machine: beside all else, the token where there is one.
pub(super) async fn may_read_kept(
    Extract(desk): Extract<Arc<Desk>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    if desk.access().has_token()
        && let Err(problem) = with_token(&desk, request.headers(), caller.address.ip())
    {
        return problem.into_response();
    }
    pass(request, next).await
}

/// For what changes something.
pub(super) async fn may_change(
    Extract(desk): Extract<Arc<Desk>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    if let Err(problem) = with_token(&desk, headers, caller.address.ip()) {
        return problem.into_response();
    }
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next());
    // No form of another site can send this type without asking first.
    if !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not-json",
            "the body is to be JSON, sent as application/json",
        )
        .help("an empty object, {}, will do where nothing is asked for")
        .into_response();
    }
    pass(request, next).await
}

fn with_token(desk: &Desk, headers: &HeaderMap, from: IpAddr) -> Result<(), Problem> {
    let access = desk.access();
    if !access.has_token() {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "no-token-configured",
            "this takes a token, and none is configured",
        )
        .help(
            "set `web.token` to where it is found, such as { file = \"/etc/haggle/web-token\" }, and \
             start the daemon again; `openssl rand -hex 32` makes one",
        ));
    }
    access.admit(headers, from, desk.monotonic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn access() -> Access {
        let token = SecretString::from("0123456789abcdef");
        Access::new(Some(token), vec!["Haggle.Example.com".to_owned()])
    }

    #[test]
    fn only_its_own_names_are_answered_to() {
        let name = |host: &str, exposed| {
            let headers = headers(&[("host", host)]);
            called(&access(), exposed, &Uri::from_static("/x"), &headers).map_err(|p| p.code())
        };
        for own in [
            "localhost",
            "LOCALHOST:9464",
            "127.0.0.1:9464",
            "127.8.9.1",
            "[::1]:9464",
            "localhost.",
        ] {
            assert_eq!(name(own, false), Ok(Name::Own), "{own}");
        }
        for given in [
            "haggle.example.com",
            "haggle.example.com:443",
            "HAGGLE.example.com",
        ] {
            assert_eq!(name(given, false), Ok(Name::Given), "{given}");
        }
        for other in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "haggle.example.com.evil.example",
            "192.168.1.4",
            "",
            "[::1",
            "127.0.0.1:9464:1",
            "127.0.0.1@evil.example",
        ] {
            assert!(name(other, false).is_err() || other == "[::1", "{other}");
        }
        assert_eq!(name("192.168.1.4:9464", true), Ok(Name::Given));
        assert_eq!(name("evil.example", true), Err("unknown-host"));
        let two = headers(&[("host", "localhost"), ("host", "evil.example")]);
        let uri = Uri::from_static("/x");
        let told = called(&access(), false, &uri, &two).map_err(|p| p.code());
        assert_eq!(told, Err("bad-header"));
        let uri = Uri::from_static("http://evil.example/x");
        let one = headers(&[("host", "localhost")]);
        let told = called(&access(), false, &uri, &one).map_err(|p| p.code());
        assert_eq!(told, Err("two-hosts"));
    }

    #[test]
    fn what_a_proxy_may_have_passed_on_is_known() {
        let passed = |hosts: &[&str], version, name: Option<&'static str>| {
            let hosts = hosts.iter().map(|&host| host.to_owned()).collect();
            let mut all = vec![("host", "127.0.0.1:9464"), ("x-haggle-token", "a")];
            all.extend(name.map(|name| (name, "10.0.0.1")));
            may_be_passed_on(&Access::new(None, hosts), version, &headers(&all))
        };
        assert!(!passed(&[], Version::HTTP_11, None));
        assert!(!passed(&[], Version::HTTP_11, Some("user-agent")));
        assert!(passed(&["haggle.example.com"], Version::HTTP_11, None));
        assert!(passed(&[], Version::HTTP_10, None));
        for name in PASSED_ON.into_iter().chain(["x-forwarded-prefix"]) {
            assert!(passed(&[], Version::HTTP_11, Some(name)), "{name}");
        }
    }

    #[test]
    fn what_another_site_sends_is_known_by_its_headers() {
        let foreign = |pairs: &[(&'static str, &str)]| {
            let mut all = vec![("host", "127.0.0.1:9464")];
            all.extend_from_slice(pairs);
            is_of_another_site(&headers(&all)).unwrap()
        };
        assert!(!foreign(&[]), "curl says nothing");
        assert!(!foreign(&[
            ("origin", "http://127.0.0.1:9464"),
            ("sec-fetch-site", "same-origin")
        ]));
        assert!(!foreign(&[("sec-fetch-site", "none")]));
        for other in [
            "http://evil.example",
            "null",
            "http://127.0.0.1:8080",
            "http://localhost:9464",
            "",
        ] {
            assert!(foreign(&[("origin", other)]), "{other}");
        }
        for other in ["cross-site", "same-site", "x"] {
            assert!(foreign(&[("sec-fetch-site", other)]), "{other}");
        }
    }

    #[test]
    fn a_wrong_token_is_refused_and_many_do_not_lock_the_right_one_out() {
        let access = access();
        let here: IpAddr = "127.0.0.1".parse().unwrap();
        let there: IpAddr = "10.0.0.1".parse().unwrap();
        let ask = |value: &str, from, at| {
            let headers = headers(&[("authorization", value)]);
            access.admit(&headers, from, Mono(at)).map_err(|p| p.code())
        };
        assert_eq!(ask("Bearer 0123456789abcdef", here, 0), Ok(()));
        assert_eq!(ask("bearer  0123456789abcdef", here, 0), Ok(()));
        assert_eq!(ask("Basic 0123456789abcdef", here, 0), Err("no-token"));
        assert_eq!(ask("Bearer", here, 0), Err("no-token"));
        for guess in 0..FAILURES_MAX {
            assert_eq!(ask(&format!("Bearer {guess}"), here, 0), Err("wrong-token"));
        }
        let right = "Bearer 0123456789abcdef";
        let wrong = "Bearer 0123456789abcdeg";
        assert_eq!(ask(wrong, here, 59_999), Err("too-many-failures"));
        assert_eq!(ask(right, here, 59_999), Ok(()));
        assert_eq!(ask(wrong, here, 59_999), Err("too-many-failures"));
        assert_eq!(ask(wrong, there, 59_999), Err("wrong-token"));
        assert_eq!(ask(wrong, here, 60_000), Err("wrong-token"));
        let own = headers(&[("x-haggle-token", "0123456789abcdef")]);
        assert!(access.admit(&own, here, Mono(0)).is_ok());
        for (login, admitted) in [
            ("Basic dTpw", true),
            ("Bearer 0123456789abcdef", true),
            ("Bearer other", false),
        ] {
            let mut both = own.clone();
            both.insert("authorization", HeaderValue::from_static(login));
            let told = access.admit(&both, there, Mono(0));
            assert_eq!(told.is_ok(), admitted, "{login}");
        }
        let none = Access::new(None, Vec::new());
        assert!(none.admit(&own, here, Mono(0)).is_err());
    }
}
