//! No secret leaves but in the request that needs it: a whole scenario with a gateway that echoes
//! whatever it is sent, in every form that a careless one might, and then a search of everything
//! that was written, logged or shown.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod native;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use haggle::clock::SimClock;
use haggle::config::Config;
use haggle::daemon::metrics::Metrics;
use haggle::daemon::watch::Watch;
use haggle::daemon::web::Shared;
use haggle::daemon::{
    Daemon, Observer, Pace, Parts, Policies, PolicySet, Secrets, Settings, TickView,
};
use haggle::market::faults::{FaultScript, Faults};
use haggle::market::transport::InProcess;
use haggle::market::{Market, MarketOptions, MarketServer, WireOptions};
use haggle::marketplace::counted::Counted;
use haggle::marketplace::lowcode::{LowCode, LowCodeOptions};
use haggle::marketplace::redact::Redactor;
use haggle::ports::{Clock, Marketplace, Method, Reply, Request, Store, Transport, TransportError};
use haggle::store::{Reader, SqliteStore};
use haggle::types::job::{Job, SecretRef};
use haggle::types::money::Money;
use haggle::types::world::EngineConfig;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regex::bytes::Regex;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Gateway, POLICY, Running, haggle, set_up};

/// What the daemon serves to whoever asks.
const PATHS: [&str; 12] = [
    "/metrics",
    "/",
    "/readyz",
    "/healthz",
    "/api/v1/state",
    "/api/v1/policies",
    "/api/v1/decisions",
    "/api/v1/story",
    "/api/v1/jobs/train",
    "/api/v1/jobs/train/explain",
    "/api/v1/jobs/train/market",
    "/api/v1/jobs/train/logs",
];

// ---------------------------------------------------------------------------------------- canaries

const TOKEN: &str = "at_kQ7vT0kenXz+/=%20Z";
const WRONG_TOKEN: &str = "at_wR0nG7tokEn+/=%20Z";
const IN_ENVIRONMENT: &str = "eN8wV1arYqz \"quo\\ted\" +%41&x=y";
const IN_FILE: &str = "-----BEGIN fP3xL9ineOne-----\nsL4zM6idTwo+/=  %\n-----END-----";
const PASSWORD: &str = "rG5bP2assWd+/=%3F\"\\";
const SIGNING: &str = "whsec_wH6kS8ignKy+/=";

/// A part of every canary that is of letters and digits alone: however a text is escaped, quoted or
/// percent-encoded, it stays as it is.
const CORES: [&str; 7] = [
    "kQ7vT0kenXz",
    "wR0nG7tokEn",
    "eN8wV1arYqz",
    "fP3xL9ineOne",
    "sL4zM6idTwo",
    "rG5bP2assWd",
    "wH6kS8ignKy",
];

/// Those of what is secret about a job.
const JOB_CORES: std::ops::Range<usize> = 2..6;

/// So many characters of a core give it away: a secret that was cut is still one.
const TELLTALE: usize = 6;

/// Finds canaries as they are, in base64 and in hexadecimal.
fn canaries() -> Regex {
    let mut forms = Vec::new();
    for core in CORES {
        forms.push(core[..TELLTALE].to_owned());
        forms.push(core[core.len() - TELLTALE..].to_owned());
        let mut hex = String::new();
        for byte in core[..TELLTALE].bytes() {
            write!(hex, "{byte:02x}").unwrap();
        }
        forms.push(format!("(?i:{hex})"));
        for before in 0..3 {
            forms.push(base64_within(core.as_bytes(), before));
        }
    }
    let escaped = forms.iter().map(|form| {
        if form.starts_with('(') {
            form.clone()
        } else {
            regex::escape(form)
        }
    });
    Regex::new(&escaped.collect::<Vec<_>>().join("|")).unwrap()
}

/// What base64 makes of bytes with so many others before them, without the characters that depend
/// on their neighbours.
fn base64_within(bytes: &[u8], before: usize) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<bool> = std::iter::repeat_n(false, before * 8)
        .chain(
            bytes
                .iter()
                .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)),
        )
        .collect();
    let digits = bits.chunks_exact(6).map(|six| {
        let number = six
            .iter()
            .fold(0, |number, bit| number << 1 | usize::from(*bit));
        char::from(DIGITS[number])
    });
    digits.skip((before * 8).div_ceil(6)).collect()
}

#[test]
fn the_search_finds_what_it_is_for() {
    let search = canaries();
    assert_eq!(base64_within(b"Hello", 0), "SGVsbG");
    assert_eq!(base64_within(b"ello", 1), "VsbG");
    for hidden in [
        "api_token=at_kQ7vT0kenXz%2B%2F",
        "…api_token=at_kQ7vT0",
        r#"{\"K\":\"eN8wV1arYqz \\\"quo"#,
        // base64 of "xat_kQ7vT0kenXz"
        "eGF0X2tRN3ZUMGtlblh6",
        "6B5137765430",
    ] {
        assert!(search.is_match(hidden.as_bytes()), "{hidden}");
    }
    assert!(!search.is_match(b"at_ train ghcr.io CANARY_PEM [redacted]"));
}

/// Looks through what was collected under a name.
#[track_caller]
fn assert_clean(name: &str, bytes: &[u8]) {
    let found: Vec<String> = canaries()
        .find_iter(bytes)
        .take(3)
        .map(|found| {
            let around = found.start().saturating_sub(160)..(found.end() + 80).min(bytes.len());
            String::from_utf8_lossy(&bytes[around]).into_owned()
        })
        .collect();
    assert!(
        found.is_empty(),
        "{name} holds a secret:\n{}",
        found.join("\n---\n")
    );
}

/// Looks through every file of a directory, but those that are meant to hold a secret.
fn assert_files_clean(directory: &Path, meant: &Path) -> Vec<PathBuf> {
    let mut looked = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            looked.extend(assert_files_clean(&path, meant));
        } else if path != meant {
            assert_clean(&path.display().to_string(), &fs::read(&path).unwrap());
            looked.push(path);
        }
    }
    looked
}

/// The policy with secrets from both places and the login of a registry.
fn policy(secret_file: &Path) -> String {
    let secrets = format!(
        "image = \"ghcr.io/me/private:1\"\n\
         secrets = {{ CANARY_ENV = {{ env = \"CANARY_ENV\" }}, CANARY_PEM = {{ file = \"{}\" }} }}\n\
         [run.login]\nregistry = \"ghcr.io\"\nuser = \"me\"\n\
         password = {{ env = \"CANARY_PASSWORD\" }}",
        secret_file.display()
    );
    POLICY.replace("image = \"ghcr.io/me/private:1\"", &secrets)
}

// ------------------------------------------------------------------------------ a careless gateway

const SHAPES: u64 = 13;

/// An answer that echoes the request in one of many ways.
fn echo(shape: u64, request: &Request) -> Result<Reply, TransportError> {
    let pairs = |encode: &dyn Fn(&str) -> String| {
        let pairs = request.query.iter();
        let pairs = pairs.map(|(key, value)| format!("{key}={}", encode(value)));
        pairs.collect::<Vec<_>>().join("&")
    };
    let encoded = |text: &str| {
        let mut url = reqwest::Url::parse("http://gateway/").unwrap();
        url.query_pairs_mut().append_pair("", text);
        url.query().unwrap_or_default()[1..].to_owned()
    };
    let url = format!("{}?{}", request.path, pairs(&encoded));
    let raw = format!("{}?{}", request.path, pairs(&str::to_owned));
    let mut body =
        String::from_utf8_lossy(request.body.as_deref().unwrap_or_default()).into_owned();
    let fields: Value = serde_json::from_str(&body).unwrap_or_default();
    if let Some(key) = &request.bearer {
        let headers = json!({"headers": {"authorization": format!("Bearer {key}"), "key": key}});
        write!(
            body,
            " -H 'Authorization: Bearer {key}' key {key} {headers}"
        )
        .unwrap();
    }
    let query: BTreeMap<&str, &str> = request
        .query
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let token = query.get("api_token").copied();
    let token = token.or(request.bearer.as_deref()).unwrap_or_default();
    let values: Vec<&str> = fields["env"]
        .as_object()
        .into_iter()
        .flat_map(|env| env.values().filter_map(Value::as_str))
        .chain(fields["image_login"].as_str())
        .collect();
    let text = |status, text: String| (status, "text/plain", text);
    let object = |status, value: Value| (status, "application/json", value.to_string());
    let padding = "x".repeat(286);
    let (status, kind, answer) = match shape % SHAPES {
        0 => object(
            400,
            json!({"message": format!("Request failed: GET {url} {body}"), "query": query}),
        ),
        1 => object(
            401,
            json!({"data": {"error": {"message": format!("bad token {token}"), "query": query}}}),
        ),
        2 => object(
            403,
            json!({"message": format!("{raw} is forbidden"), "body": body}),
        ),
        3 => text(500, format!("{padding} {token} {body}")),
        4 => (502, "text/html", format!("<html>{raw} {body}</html>")),
        5 => object(422, json!({"detail": [{"msg": body, "loc": [token]}]})),
        6 => object(
            200,
            json!({"data": {"echo": {"query": query, "body": fields}}}),
        ),
        7 => text(
            200,
            format!("{{\"data\":{{\"offers\":[{{\"id\":\"{token}\",{body}"),
        ),
        8 => return Err(TransportError::Broken(format!("sending {url} {body}"))),
        9 => {
            let config = json!({"config": {"url": raw, "data": body}}).to_string();
            text(400, format!("Error: Request failed {config}"))
        }
        10 => {
            let mut reply = reply(
                429,
                "application/json",
                json!({ "detail": raw }).to_string(),
            );
            reply
                .headers
                .push(("retry-after".to_owned(), format!("1 {token}")));
            return Ok(reply);
        }
        11 => object(
            400,
            json!({"success": false, "error": "invalid_args", "msg": values.join(" ")}),
        ),
        _ => text(503, format!("{token}: cannot use\n{}", values.join(",\n"))),
    };
    Ok(reply(status, kind, answer))
}

fn reply(status: u16, kind: &str, body: String) -> Reply {
    Reply {
        status,
        headers: vec![("content-type".to_owned(), kind.to_owned())],
        body: Bytes::from(body),
    }
}

/// Whether a request carries all that is secret about a job.
fn carries_secrets(request: &Request) -> bool {
    let body = String::from_utf8_lossy(request.body.as_deref().unwrap_or_default());
    let queried = request.query.iter().any(|(_, value)| value == TOKEN);
    (queried || request.bearer.as_deref() == Some(TOKEN))
        && CORES[JOB_CORES].iter().all(|core| body.contains(core))
}

// ------------------------------------------------------------------------------------- in process

/// The market's transport with echoes in place of some answers, before or after they took effect.
struct Careless {
    inner: InProcess,
    clock: Arc<SimClock>,
    rng: Mutex<ChaCha8Rng>,
    echoes: AtomicU64,
    /// Counted apart, so that creates meet every shape.
    create_echoes: AtomicU64,
    with_secrets: AtomicU64,
}

#[async_trait]
impl Transport for Careless {
    async fn send(&self, request: Request) -> Result<Reply, TransportError> {
        self.clock.advance(Duration::from_millis(200));
        if carries_secrets(&request) {
            self.with_secrets.fetch_add(1, Ordering::SeqCst);
        }
        let draw = self.rng.lock().unwrap().random_range(0..100);
        let creates = request.method == Method::Post && request.body.is_some();
        // Creates carry the most, so nearly all of them meet an echo.
        let odds = if creates { 90 } else { 15 };
        if draw >= odds {
            return self.inner.send(request).await;
        }
        let echoes = if creates {
            &self.create_echoes
        } else {
            &self.echoes
        };
        let answer = echo(echoes.fetch_add(1, Ordering::SeqCst), &request);
        if draw % 4 == 0 {
            // What came of it is not told.
            let _ = self.inner.send(request).await;
        }
        answer
    }
}

/// Log lines of every level, kept.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

struct OnePolicy(Arc<Job>);

impl Policies for OnePolicy {
    fn load(&mut self) -> PolicySet {
        PolicySet {
            jobs: vec![(PathBuf::from("train.toml"), Arc::clone(&self.0))],
            broken: Vec::new(),
        }
    }
}

struct CanarySecrets(Arc<Redactor>);

impl Secrets for CanarySecrets {
    fn resolve(&self, reference: &SecretRef) -> Result<SecretString, String> {
        let secret = match reference {
            SecretRef::Env(name) if name == "CANARY_ENV" => IN_ENVIRONMENT,
            SecretRef::Env(_) => PASSWORD,
            SecretRef::File(_) => IN_FILE,
        };
        self.0.add(secret);
        Ok(SecretString::from(secret))
    }
}

/// Everything that a tick hands to whoever follows, as a careless follower would log it.
struct Shows(Arc<Mutex<Vec<u8>>>);

impl Observer for Shows {
    fn ticked(&mut self, view: &TickView<'_>) {
        let mut shown = self.0.lock().unwrap();
        let failures = &view.polled.failures;
        writeln!(
            shown,
            "{failures:?} {:?} {:?} {:?} {:?}",
            view.polled.listing, view.plan, view.report, view.state
        )
        .unwrap();
    }
}

#[test]
fn hours_with_a_gateway_that_echoes_everything_leave_no_secret_behind() {
    let directory = tempfile::tempdir().unwrap();
    let lines = Lines::default();
    let logged = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(lines.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(logged);
    let start = MarketOptions::default().start;
    let clock = Arc::new(SimClock::new(start));
    let shared_clock: Arc<dyn Clock> = clock.clone();
    let wire = WireOptions {
        token: Some(SecretString::from(TOKEN)),
        ..WireOptions::default()
    };
    let spec = "5xx=2%,timeout-before=1%,timeout-after=2%,garbage=2%,empty=1%,429=2%";
    let faults = Faults::new(spec.parse().unwrap(), FaultScript::default(), 5);
    let market = Market::generated(MarketOptions {
        intensity: 2.0,
        balance: Money::dollars(1000),
        ..MarketOptions::default()
    });
    let server = Arc::new(MarketServer::new(
        market,
        wire,
        faults,
        shared_clock.clone(),
    ));
    let hang_clock = Arc::clone(&clock);
    let inner = InProcess::new(server, Duration::from_secs(20))
        .on_hang(Arc::new(move |waited| hang_clock.advance(waited)));
    let transport = Arc::new(Careless {
        inner,
        clock: Arc::clone(&clock),
        rng: Mutex::new(ChaCha8Rng::seed_from_u64(5)),
        echoes: AtomicU64::new(0),
        create_echoes: AtomicU64::new(0),
        with_secrets: AtomicU64::new(0),
    });
    let options = LowCodeOptions::new(SecretString::from(TOKEN));
    let redactor = Arc::clone(&options.redactor);
    let shown = Arc::new(Mutex::new(format!("{options:?}\n").into_bytes()));
    let client = LowCode::new(
        transport.clone(),
        shared_clock.clone(),
        options,
        &BTreeMap::new(),
    );
    let metrics = Arc::new(Metrics::new());
    let page = Arc::new(Shared::new());
    let counted = Arc::clone(&metrics);
    let count = Arc::new(move |operation, outcome| counted.api_call(operation, outcome));
    let marketplace: Arc<dyn Marketplace> = Arc::new(Counted::new(Arc::new(client), count));
    let database = directory.path().join("haggle.db");
    // Many replicas make for many creates.
    let policy = policy(Path::new("/secret.pem"))
        .replace("total = \"$4\"", "total = \"$200\"")
        .replace("replicas = 3", "replicas = 12");
    let job =
        haggle::policy::parse("train.toml", &policy).unwrap_or_else(|errors| panic!("{errors:?}"));
    let store: Box<dyn Store> = Box::new(SqliteStore::open(&database, None, 5).unwrap());
    let watch = Watch::new(Arc::clone(&metrics), Arc::clone(&page), None);
    let parts = Parts {
        marketplace,
        store,
        clock: shared_clock,
        policies: Box::new(OnePolicy(Arc::new(job))),
        secrets: Box::new(CanarySecrets(redactor)),
        run_secret: secrecy::SecretString::from("play"),
        observers: vec![Box::new(watch), Box::new(Shows(Arc::clone(&shown)))],
    };
    let settings = Settings {
        engine: EngineConfig::default(),
        live: true,
        pace: Pace::Every,
        seed: 5,
        looking: haggle::daemon::Looking::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let mut told = Vec::new();
    let daemon = runtime.block_on(async {
        let mut daemon = Daemon::new(parts, settings).unwrap();
        for _ in 0..240 {
            for failure in daemon.tick().await.unwrap() {
                writeln!(told, "{failure} {failure:?}").unwrap();
            }
            writeln!(told, "{:?}", page.unready()).unwrap();
            let next = clock.now() + Duration::from_secs(60);
            clock.sleep_until(next).await;
        }
        let ended = daemon.shut_down().await.unwrap();
        writeln!(told, "{ended:?}").unwrap();
        daemon
    });
    told.extend(metrics.render().into_bytes());

    // Without echoes of secrets the search would prove nothing.
    let (echoes, with_secrets) = (
        transport.echoes.load(Ordering::SeqCst),
        transport.with_secrets.load(Ordering::SeqCst),
    );
    println!("{echoes} echoes, {with_secrets} creates with secrets");
    assert!(echoes > 5 * SHAPES && with_secrets > SHAPES);
    let lines = lines.0.lock().unwrap();
    let log = String::from_utf8_lossy(&lines);
    assert!(log.contains("[redacted]"), "no echo was logged");
    assert_clean("the log", &lines);
    assert_clean("what was told", &told);
    assert_clean("what was shown", &shown.lock().unwrap());
    // With its log beside it, which is gone when the database is closed.
    let looked = assert_files_clean(directory.path(), Path::new("none"));
    drop(daemon);
    assert!(looked.iter().any(|path| path.ends_with("haggle.db-wal")));
    // Long texts are split over SQLite's pages, so they are looked at whole as well.
    let reader = Reader::open(&database).unwrap();
    let events = reader.events(None, 100_000).unwrap();
    assert!(events.len() > 20);
    let rows = format!("{events:?} {:?}", reader.ticks(100_000).unwrap());
    assert_clean("events and journal", rows.as_bytes());
    assert_clean(
        "the state",
        format!("{:?}", reader.state().unwrap()).as_bytes(),
    );
}

/// A bug that panics in the midst of a request.
struct Panics;

#[async_trait]
impl Transport for Panics {
    async fn send(&self, request: Request) -> Result<Reply, TransportError> {
        let answer = echo(6, &request);
        panic!("a bug while sending {request:?}, answered {answer:?}");
    }
}

#[test]
fn a_panic_in_the_midst_of_a_request_tells_no_secret() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let hook_said = Arc::clone(&said);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let trace = std::backtrace::Backtrace::force_capture();
        writeln!(hook_said.lock().unwrap(), "{panic}\n{trace}").unwrap();
    }));
    let options = LowCodeOptions::new(SecretString::from(TOKEN));
    let clock = Arc::new(SimClock::new(MarketOptions::default().start));
    let client = LowCode::new(Arc::new(Panics), clock, options, &BTreeMap::new());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let result = runtime.block_on(async {
        tokio::spawn(async move { client.account().await })
            .await
            .unwrap_err()
            .to_string()
    });
    std::panic::set_hook(before);
    let said = said.lock().unwrap();
    assert!(String::from_utf8_lossy(&said).contains("a bug while sending GET"));
    assert_clean("the panic", &said);
    assert_clean("what became of it", result.as_bytes());
}

#[test]
fn what_holds_a_secret_does_not_show_it() {
    let request = Request {
        method: Method::Post,
        path: "/bids".to_owned(),
        query: vec![("api_token".to_owned(), TOKEN.to_owned())],
        bearer: Some(TOKEN.to_owned()),
        body: Some(Bytes::from(IN_FILE)),
    };
    let mut reply = echo(6, &request).unwrap();
    reply
        .headers
        .push(("set-cookie".to_owned(), TOKEN.to_owned()));
    let options = LowCodeOptions::new(SecretString::from(TOKEN));
    options.redactor.add(IN_FILE);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("haggle.toml");
    fs::write(&file, "provider.token = { env = \"CANARY\" }\n").unwrap();
    let config = Config::load(Some(&file), &[]).unwrap();
    let secret = haggle::config::resolve_secret(&SecretRef::File(file)).unwrap();
    assert!(secret.expose_secret().contains("CANARY"));
    let wire = WireOptions {
        token: Some(SecretString::from(TOKEN)),
        ..WireOptions::default()
    };
    let shown = format!("{request:?} {reply:?} {options:?} {config:?} {secret:?} {wire:?}");
    assert_clean("what is shown", shown.as_bytes());
    assert!(shown.contains("POST /bids"), "{shown}");
}

// --------------------------------------------------------------------------------- the real binary

fn with_canaries(command: &mut Command) -> &mut Command {
    command
        .env("HAGGLE_TOKEN", TOKEN)
        .env("CANARY_ENV", IN_ENVIRONMENT)
        .env("CANARY_PASSWORD", PASSWORD)
}

/// What a daemon serves at a path.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The address at which a daemon said that it serves.
fn served_at(stderr: &str) -> &str {
    let (_, rest) = stderr.split_once("metrics at http://").unwrap();
    rest.split('/').next().unwrap()
}

#[test]
fn the_binary_logs_stores_and_shows_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let pem = directory.join("secret.pem");
    fs::write(&pem, format!("{IN_FILE}\n")).unwrap();
    // A daemon ends whose token is refused at once, so the shapes that refuse it come last.
    let first_shape = 3;
    let creates = Arc::new(AtomicU64::new(0));
    let echoes = Arc::new(AtomicU64::new(first_shape));
    let (counted_creates, counted_echoes) = (Arc::clone(&creates), Arc::clone(&echoes));
    let gateway = Gateway::start(
        Some(TOKEN),
        Box::new(move |number, request| {
            let create = carries_secrets(request);
            let echoed = if create {
                // The second one is made.
                counted_creates.fetch_add(1, Ordering::SeqCst) != 1
            } else {
                number > 4 && number % 3 == 0
            };
            echoed.then(|| {
                let shape = counted_echoes.fetch_add(1, Ordering::SeqCst);
                let answer = echo(shape, request);
                answer.unwrap_or_else(|error| reply(400, "text/plain", error.to_string()))
            })
        }),
    );
    set_up(directory, &gateway.base_url, &policy(&pem));

    // Every level of every crate: no HTTP library may tell a URL either.
    let mut command = haggle(directory);
    with_canaries(&mut command)
        .args(["run", "--live", "-vv"])
        .env("RUST_LOG", "trace");
    let mut daemon = Running::start(&mut command, directory, "run");
    gateway.wait_until("creates and echoes", |_| {
        creates.load(Ordering::SeqCst) >= 2 && echoes.load(Ordering::SeqCst) >= first_shape + 4
    });
    let stderr = fs::read_to_string(directory.join("run.err")).unwrap();
    let address = served_at(&stderr);
    for path in PATHS {
        let answer = get(address, path);
        assert!(answer.starts_with("HTTP/1.1 "), "{path}: {answer}");
        assert_clean(path, answer.as_bytes());
    }
    // The second time it quits at once, without settling what the echoes left unknown.
    daemon.terminate();
    daemon.wait_to_say("ending:");
    daemon.terminate();
    assert_eq!(daemon.wait().code(), Some(2));
    let stderr = fs::read_to_string(directory.join("run.err")).unwrap();
    assert!(stderr.contains("TRACE"), "nothing was traced");
    assert!(stderr.contains("[redacted]"), "no echo was told");

    for args in [
        &["jobs"][..],
        &["instances"],
        &["explain", "train"],
        &["spend"],
        &["doctor"],
        &["plan"],
        &["offers"],
        &["check"],
        &["pause", "train"],
    ] {
        let mut command = haggle(directory);
        let output = with_canaries(&mut command)
            .args(args)
            .args(["-vv", "--json", "--log-format", "json"])
            .env("RUST_LOG", "trace")
            .output()
            .unwrap();
        let name = format!("{args:?}");
        assert!(
            !output.stdout.is_empty() || !output.stderr.is_empty(),
            "{name}"
        );
        assert_clean(&name, &output.stdout);
        assert_clean(&name, &output.stderr);
    }

    // A token that is not accepted is not told either.
    for args in [&["run", "--live", "--once"][..], &["plan"], &["doctor"]] {
        let output = haggle(directory)
            .args(args)
            .env("HAGGLE_TOKEN", WRONG_TOKEN)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{args:?}: {text}");
        assert_clean(&format!("{args:?}"), &output.stdout);
        assert_clean(&format!("{args:?}"), &output.stderr);
    }
    let looked = assert_files_clean(directory, &pem);
    for file in ["haggle.db", "run.err", "run.out"] {
        assert!(looked.iter().any(|path| path.ends_with(file)), "{file}");
    }
}
