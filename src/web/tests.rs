//! The page and the API over real HTTP, by whoever may call.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::oneshot;

use super::{Access, Desk, Publisher, Sources, description, serve};
use crate::clock::SimClock;
use crate::daemon::web::Shared;
use crate::daemon::{BrokenPolicy, Observer, Pace, Polled, TickView};
use crate::engine::decide::decide;
use crate::engine::eligible::samples::{NOW, held, job, offer, usd, world};
use crate::engine::projection::{Purse, project};
use crate::ports::{Store, StoreError};
use crate::store::{SqliteStore, kill_file_present};
use crate::types::ids::{Installation, InstanceId, ReplicaId};
use crate::types::job::Job;
use crate::types::plan::{Plan, Report};
use crate::types::state::{Ask, Change, Event, Severity, Wish};
use crate::types::time::Mono;
use crate::types::world::World;

const TOKEN: &str = "0123456789abcdef-canary";
const SECRET: &str = "hunter2-is-a-long-secret";
const HOST: &str = "127.0.0.1:9464";

/// A daemon's web server, without the daemon.
struct Place {
    directory: tempfile::TempDir,
    address: SocketAddr,
    publisher: Mutex<Publisher>,
    desk: Arc<Desk>,
    clock: Arc<SimClock>,
    dry: bool,
    _stop: oneshot::Sender<()>,
}

#[derive(Default)]
struct With {
    no_token: bool,
    exposed: bool,
    dry: bool,
    hosts: Vec<String>,
}

impl Place {
    fn new(with: With) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("haggle.db");
        let mut store = SqliteStore::open(&database, Some(Installation::from_seed(1)), 1).unwrap();
        store
            .commit(&[event("a secret: hunter2-is-a-long-secret <script>")])
            .unwrap();
        let policies = directory.path().join("policies");
        std::fs::create_dir(&policies).unwrap();
        std::fs::write(policies.join("bad.toml"), "name = \"bad\"\nimage = 1\n").unwrap();
        let clock = Arc::new(SimClock::new(NOW));
        let token = (!with.no_token).then(|| SecretString::from(TOKEN));
        let desk = Arc::new(Desk::new(Sources {
            database,
            policies: Some(policies),
            clock: clock.clone(),
            redact: Arc::new(|text| text.replace(SECRET, "[redacted]")),
            redact_logs: Arc::new(|text| text.replace(SECRET, "[redacted]")),
            access: Access::new(token, with.hosts),
        }));
        let any = if with.exposed {
            "0.0.0.0:0"
        } else {
            "127.0.0.1:0"
        };
        let listener = TcpListener::bind(any).unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = serve(listener, Arc::new(Shared::new()), Arc::clone(&desk)).unwrap();
        let publisher = Publisher::new(Arc::clone(&desk), Pace::Every);
        let place = Self {
            directory,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            publisher: Mutex::new(publisher),
            desk,
            clock,
            dry: with.dry,
            _stop: stop,
        };
        place.tick(&filled(1, 1));
        place
    }

    /// What the loop publishes at the end of a tick that decided on this.
    fn tick(&self, world: &World) {
        let (plan, report) = decide(world);
        self.publish(world, &plan, &report);
    }

    fn publish(&self, world: &World, plan: &Plan, report: &Report) {
        let polled = Polled {
            at: world.now,
            listing: None,
            listing_begun: Mono(0),
            account: world.account,
            failures: Vec::new(),
            searched: 0,
            deferred: 0,
        };
        let mut publisher = self.publisher.lock().unwrap();
        publisher.committed(&[event(SECRET)]);
        publisher.ticked(&TickView {
            world,
            state: &world.state,
            polled: &polled,
            plan,
            report,
            live: !self.dry,
            broken_policies: &[broken()],
            took: Duration::ZERO,
        });
    }

    fn ask(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        // A server that has read enough may close before all is sent.
        let _ = stream.write_all(request.as_bytes());
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        Answer::read(&bytes)
    }

    fn get(&self, path: &str, headers: &[&str]) -> Answer {
        self.ask(&request("GET", path, HOST, headers, ""))
    }

    fn post(&self, path: &str, headers: &[&str], body: &str) -> Answer {
        self.ask(&request("POST", path, HOST, headers, body))
    }

    /// With everything that a change takes.
    fn change(&self, path: &str, body: &str) -> Answer {
        let token = format!("authorization: Bearer {TOKEN}");
        self.post(path, &[&token, "content-type: application/json"], body)
    }

    fn asks(&self) -> Vec<Ask> {
        let path = self.directory.path().join("haggle.db");
        let mut store = SqliteStore::open(&path, None, 1).unwrap();
        let requests = store.requests().unwrap();
        requests.into_iter().map(|request| request.ask).collect()
    }
}

fn broken() -> BrokenPolicy {
    BrokenPolicy {
        path: PathBuf::from("policies/bad.toml"),
        job: None,
        message: format!("line 1: {SECRET} <img src=x onerror=alert(1)>"),
    }
}

fn event(text: &str) -> Change {
    Change::Event(Event {
        at: NOW,
        severity: Severity::Warning,
        kind: "test".to_owned(),
        replica: Some(ReplicaId {
            job: "train-0".parse().unwrap(),
            index: 0,
        }),
        instance: None,
        text: text.to_owned(),
    })
}

/// Jobs with instances on a market whose hosts choose their words badly.
fn filled(jobs: usize, instances: usize) -> World {
    let mut bad = offer(4821);
    bad.gpu_name = Arc::from("<script>alert(1)</script>");
    let mut world = world(vec![offer(1), bad.clone()]);
    for number in 0..jobs {
        let mut one = job(&format!("train-{number}"));
        one.owner = Some("</script><svg onload=alert(1)>".to_owned());
        one.budget.total = Some(crate::types::money::Money::dollars(5));
        world.jobs.push(Arc::new(one));
    }
    for number in 0..instances {
        let of = Arc::clone(&world.jobs[number % jobs]);
        let mut one = held(number as u64 + 1, &of, &bad, usd(0.3));
        one.ssh = Some("-oProxyCommand=<b>:22".to_owned());
        world.state.held.insert(InstanceId(number as u64 + 1), one);
    }
    world
}

fn request(method: &str, path: &str, host: &str, headers: &[&str], body: &str) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for header in headers {
        text.push_str(&format!("{header}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    format!("{text}\r\n{body}")
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let head = text.split("\r\n\r\n").next().unwrap_or_default();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        Self {
            status: status.and_then(|code| code.parse().ok()).unwrap_or(0),
            headers: lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
            body: bytes.get(head.len() + 4..).unwrap_or_default().to_vec(),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    fn error(&self) -> (u16, String) {
        let word = self.json()["error"].as_str().unwrap_or_default().to_owned();
        (self.status, word)
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

const READS: [&str; 12] = [
    "/api/v1/state",
    "/api/v1/jobs/train-0",
    "/api/v1/jobs/train-0/explain",
    "/api/v1/jobs/train-0/market?hours=3",
    "/api/v1/jobs/train-0/logs?attempt=1&lines=5&replica=0",
    "/api/v1/decisions?job=train-0&before=4&limit=2",
    "/api/v1/story?job=train-0&before=9&limit=2",
    "/api/v1/story",
    "/api/v1/spend?by=gpu",
    "/api/v1/policies",
    "/api/v1/openapi.json",
    "/page/app.js",
];

#[test]
fn whatever_is_answered_has_headers_that_hold_a_browser_back() {
    let place = Place::new(With::default());
    let others = [
        "/",
        "/metrics",
        "/healthz",
        "/nothing",
        "/api/v1/nothing",
        "/page/nothing",
    ];
    for path in READS.iter().chain(&others) {
        let answer = place.get(path, &[]);
        assert!(answer.status > 0, "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(
            answer.header("cross-origin-resource-policy"),
            "same-origin",
            "{path}"
        );
        assert_eq!(
            answer.header("cross-origin-opener-policy"),
            "same-origin",
            "{path}"
        );
        assert!(
            answer
                .header("content-security-policy")
                .starts_with("default-src 'none'"),
            "{path}"
        );
        assert!(
            !answer.headers.contains_key("access-control-allow-origin"),
            "{path}"
        );
        let kept = answer.header("cache-control");
        assert!(["no-store", "no-cache"].contains(&kept), "{path}: {kept}");
    }
    let page = place.get("/", &[]);
    assert_eq!(
        page.header("content-security-policy"),
        super::assets::POLICY
    );
    assert!(page.header("content-type").starts_with("text/html"));
    assert_eq!(
        place
            .get("/api/v1/jobs/train-0", &[])
            .header("cache-control"),
        "no-store"
    );
}

#[test]
fn everything_can_be_read_and_no_secret_is_in_it() {
    let place = Place::new(With::default());
    let own = format!("x-haggle-token: {TOKEN}");
    for path in READS {
        // What is kept from others takes the token, and the rest none.
        let headers: Vec<&str> = path
            .contains("/logs")
            .then_some(&own[..])
            .into_iter()
            .collect();
        let answer = place.get(path, &headers);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let text = answer.text();
        assert!(
            !text.contains(SECRET) && !text.contains(TOKEN),
            "{path}: {text}"
        );
        if path.starts_with("/api") {
            assert_eq!(answer.header("content-type"), "application/json", "{path}");
            answer.json();
        }
    }
    let told = place.get("/api/v1/story", &[]).text();
    assert!(told.contains("[redacted]"), "{told}");
    let state = place.get("/api/v1/state", &[]).json();
    assert_eq!(state["jobs"][0]["job"], "train-0");
    assert_eq!(
        state["instances"][0]["gpu_name"],
        "<script>alert(1)</script>"
    );
    assert_eq!(
        state["instances"][0]["ssh_command"],
        serde_json::Value::Null
    );
    let mistakes = place.get("/api/v1/policies", &[]).json();
    assert_eq!(mistakes["mistakes"][0]["job"], "bad");
    let mut wrong = mistakes["mistakes"].as_array().unwrap().iter();
    assert!(wrong.any(|one| one["line"] == 2), "{mistakes}");
    let market = place.get("/api/v1/jobs/train-0/market", &[]).json();
    assert_eq!(market["ceiling_dollars_per_hour"], "1.00");
}

#[test]
fn what_is_known_already_is_not_sent_again() {
    let place = Place::new(With::default());
    let first = place.get("/api/v1/state", &[]);
    let tag = format!("if-none-match: {}", first.header("etag"));
    assert_eq!(place.get("/api/v1/state", &[&tag]).status, 304);
    place.tick(&filled(2, 2));
    assert_eq!(place.get("/api/v1/state", &[&tag]).status, 200);
    let packed = place.get("/api/v1/state", &["accept-encoding: br, gzip"]);
    assert_eq!(packed.header("content-encoding"), "gzip");
    let mut text = String::new();
    let body = unchunked(&packed);
    flate2::read::GzDecoder::new(&body[..])
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(
        text,
        place
            .get("/api/v1/state", &["accept-encoding: gzip;q=0"])
            .text()
    );
}

/// The whole body, however it was sent.
fn unchunked(answer: &Answer) -> Vec<u8> {
    assert_ne!(answer.header("transfer-encoding"), "chunked");
    answer.body.clone()
}

#[test]
fn changes_are_the_wishes_that_the_command_line_writes() {
    let place = Place::new(With::default());
    let of = |wish| Ask::Job {
        job: "train-0".parse().unwrap(),
        wish,
    };
    for (what, wish) in [
        ("pause", Wish::Pause),
        ("resume", Wish::Run),
        ("stop", Wish::Stop),
        ("done", Wish::Done),
    ] {
        let answer = place.change(&format!("/api/v1/jobs/train-0/{what}"), "{}");
        assert_eq!(answer.status, 202, "{}", answer.text());
        assert!(
            answer.json()["text"]
                .as_str()
                .unwrap()
                .contains("train-0 will be")
        );
        assert_eq!(place.asks().last(), Some(&of(wish)));
    }
    assert_eq!(place.change("/api/v1/resume-all", "{}").status, 202);
    assert_eq!(place.asks().last(), Some(&Ask::ResumeAll));
    let database = place.directory.path().join("haggle.db");
    for body in [
        "{}",
        "{\"confirm\":\"yes\"}",
        "{\"confirm\":\"destroy everything\",\"x\":1}",
        "",
        "[]",
        "null",
    ] {
        let answer = place.change("/api/v1/kill", body);
        assert_eq!(answer.error(), (400, "bad-request".to_owned()), "{body}");
    }
    assert!(!kill_file_present(&database));
    let answer = place.change("/api/v1/kill", "{\"confirm\":\"destroy everything\"}");
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert!(kill_file_present(&database));
    assert_eq!(place.asks().last(), Some(&Ask::Kill));
    let nobody = place.change("/api/v1/jobs/nobody/stop", "{}");
    assert_eq!(nobody.error(), (404, "not-found".to_owned()));
}

#[test]
fn without_a_token_everything_can_be_read_and_nothing_changed() {
    let place = Place::new(With {
        no_token: true,
        ..With::default()
    });
    assert_eq!(
        place.get("/api/v1/state", &[]).json()["changes_allowed"],
        false
    );
    let answer = place.change("/api/v1/jobs/train-0/stop", "{}");
    assert_eq!(answer.error(), (403, "no-token-configured".to_owned()));
    assert!(
        answer.json()["help"]
            .as_str()
            .unwrap()
            .contains("web.token")
    );
    assert_eq!(place.asks(), Vec::new());
}

#[test]
fn who_has_no_token_or_sends_from_another_site_changes_nothing() {
    let place = Place::new(With::default());
    let bearer = format!("authorization: Bearer {TOKEN}");
    let own = format!("x-haggle-token: {TOKEN}");
    let json = "content-type: application/json";
    let stop = "/api/v1/jobs/train-0/stop";
    for (headers, status, word) in [
        (vec![json], 401, "no-token"),
        (
            vec![json, "authorization: Bearer wrong"],
            401,
            "wrong-token",
        ),
        (
            vec![json, "authorization: Basic MDEyMzQ1Njc4OWFiY2RlZg=="],
            401,
            "no-token",
        ),
        (vec![json, &bearer, &bearer], 400, "bad-header"),
        (vec![json, &own, &own], 400, "bad-header"),
        (
            vec![json, "cookie: token=0123456789abcdef-canary"],
            401,
            "no-token",
        ),
        (vec![&bearer], 415, "not-json"),
        (vec![&bearer, "content-type: text/plain"], 415, "not-json"),
        (
            vec![&bearer, "content-type: application/x-www-form-urlencoded"],
            415,
            "not-json",
        ),
        (
            vec![json, &bearer, "origin: http://evil.example"],
            403,
            "another-site",
        ),
        (vec![json, &bearer, "origin: null"], 403, "another-site"),
        (
            vec![json, &bearer, "sec-fetch-site: cross-site"],
            403,
            "another-site",
        ),
        (
            vec![json, &bearer, "sec-fetch-site: same-site"],
            403,
            "another-site",
        ),
    ] {
        let answer = place.post(stop, &headers, "{}");
        assert_eq!(answer.error(), (status, word.to_owned()), "{headers:?}");
    }
    for path in [
        format!("{stop}?token={TOKEN}"),
        format!("{stop}?access_token={TOKEN}"),
    ] {
        assert_eq!(place.post(&path, &[json], "{}").status, 401, "{path}");
    }
    let get = place.get(stop, &[&bearer, "x-http-method-override: POST"]);
    assert_eq!(get.error(), (405, "method-not-allowed".to_owned()));
    let large = place.post(stop, &[json, &bearer], &format!("{{{}}}", " ".repeat(5000)));
    assert_eq!(large.error(), (413, "unreadable-body".to_owned()));
    assert_eq!(place.asks(), Vec::new());
    let ours = place.post(
        stop,
        &[
            json,
            &own,
            "origin: http://127.0.0.1:9464",
            "sec-fetch-site: same-origin",
        ],
        "{}",
    );
    assert_eq!(ours.status, 202, "{}", ours.text());
    for _ in 0..12 {
        place.post(stop, &[json, "authorization: Bearer guess"], "{}");
    }
    let locked = place.post(stop, &[json, "authorization: Bearer guess"], "{}");
    assert_eq!(locked.error(), (429, "too-many-failures".to_owned()));
    assert_eq!(locked.header("retry-after"), "5");
    let right = place.post(stop, &[json, &bearer], "{}");
    assert_eq!(right.status, 202, "nobody locks the right one out");
}

#[test]
fn a_name_that_somebody_else_points_here_is_not_answered_to() {
    let place = Place::new(With {
        hosts: vec!["haggle.example.com".to_owned()],
        ..With::default()
    });
    let ask = |host: &str, headers: &[&str]| {
        place.ask(&request("GET", "/api/v1/state", host, headers, ""))
    };
    // There is a proxy, and it may call by this machine's name for whoever calls it.
    let own = format!("x-haggle-token: {TOKEN}");
    for host in ["localhost:9464", "[::1]:9464", HOST] {
        assert_eq!(ask(host, &[]).error(), (401, "no-token".to_owned()));
        assert_eq!(ask(host, &[&own]).status, 200);
    }
    let other = ask(
        "evil.example:9464",
        &["x-forwarded-host: localhost", "forwarded: host=localhost"],
    );
    assert_eq!(other.error(), (403, "unknown-host".to_owned()));
    assert_eq!(ask("haggle.example.com", &[]).error().0, 401);
    assert_eq!(ask("haggle.example.com", &[&own]).status, 200);
    let twice = place.ask("GET /api/v1/state HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
    assert!([400, 403].contains(&twice.status), "{twice:?}");
    let line = place.ask("GET http://evil.example/api/v1/state HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert_eq!(line.error(), (400, "two-hosts".to_owned()));
    let none = place.ask("GET /api/v1/state HTTP/1.0\r\n\r\n");
    assert_eq!(none.error(), (400, "no-host".to_owned()));
    let foreign = place.get("/api/v1/state", &["sec-fetch-site: cross-site"]);
    assert_eq!(foreign.error(), (403, "another-site".to_owned()));
}

#[test]
fn what_a_proxy_passes_on_under_this_machines_name_takes_the_token() {
    let place = Place::new(With::default());
    let own = format!("x-haggle-token: {TOKEN}");
    assert_eq!(place.get("/api/v1/state", &[]).status, 200);
    for header in [
        "x-forwarded-for: 10.0.0.1",
        "forwarded: for=10.0.0.1",
        "via: 1.1 proxy",
    ] {
        let answer = place.get("/api/v1/state", &[header]);
        assert_eq!(answer.error(), (401, "no-token".to_owned()), "{header}");
        assert_eq!(place.get("/api/v1/state", &[header, &own]).status, 200);
    }
    let old = |more: &str| {
        place.ask(&format!(
            "GET /api/v1/state HTTP/1.0\r\nhost: {HOST}\r\n{more}\r\n"
        ))
    };
    assert_eq!(old("").error(), (401, "no-token".to_owned()));
    assert_eq!(old(&format!("{own}\r\n")).status, 200);
}

#[test]
fn what_jobs_wrote_takes_the_token_wherever_there_is_one() {
    let place = Place::new(With::default());
    let logs = "/api/v1/jobs/train-0/logs";
    assert_eq!(place.get(logs, &[]).error(), (401, "no-token".to_owned()));
    let wrong = place.get(logs, &["x-haggle-token: another"]);
    assert_eq!(wrong.error(), (401, "wrong-token".to_owned()));
    let own = format!("x-haggle-token: {TOKEN}");
    assert_eq!(place.get(logs, &[&own]).status, 200);
    let without = Place::new(With {
        no_token: true,
        ..With::default()
    });
    assert_eq!(without.get(logs, &[]).status, 200);
}

#[test]
fn no_reader_holds_up_a_wish_or_a_kill() {
    let place = Place::new(With::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = Arc::new(Mutex::new(ended));
    // As many as may be, each of which reads for as long as this test lasts.
    for _ in 0..super::READERS {
        let (desk, begun, ended) = (Arc::clone(&place.desk), begun.clone(), Arc::clone(&ended));
        runtime.spawn(async move {
            let read = move || {
                begun.send(()).unwrap();
                drop(ended.lock().map(|ended| ended.recv()));
            };
            desk.blocking(read).await.is_ok()
        });
    }
    for _ in 0..super::READERS {
        has_begun.recv().unwrap();
    }
    let read = place.get("/api/v1/story", &[]);
    assert_eq!(read.error(), (503, "busy".to_owned()));
    let stop = place.change("/api/v1/jobs/train-0/stop", "{}");
    assert_eq!(stop.status, 202, "{}", stop.text());
    let kill = place.change("/api/v1/kill", "{\"confirm\":\"destroy everything\"}");
    assert_eq!(kill.status, 202, "{}", kill.text());
    assert_eq!(place.asks().last(), Some(&Ask::Kill));
    drop(end);
    runtime.shutdown_background();
}

#[test]
fn a_kill_promises_what_is_known() {
    let kill = |place: &Place| {
        let answer = place.change("/api/v1/kill", "{\"confirm\":\"destroy everything\"}");
        assert_eq!(answer.status, 202, "{}", answer.text());
        let database = place.directory.path().join("haggle.db");
        assert!(kill_file_present(&database));
        let answer = answer.json();
        let text = answer["text"].as_str().unwrap().to_owned();
        assert!(text.starts_with("spending is forbidden until"), "{text}");
        (text, answer["is_taken_up"].as_bool().unwrap())
    };
    let live = Place::new(With::default());
    let (text, taken_up) = kill(&live);
    assert!(
        taken_up && text.contains("everything of ours will be destroyed"),
        "{text}"
    );
    live.desk.ends();
    let (text, taken_up) = kill(&live);
    assert!(
        !taken_up && text.contains("is ending and destroys nothing"),
        "{text}"
    );
    let resumed = live.change("/api/v1/jobs/train-0/resume", "{}").json();
    assert_eq!(resumed["is_taken_up"], false);
    let dry = Place::new(With {
        dry: true,
        ..With::default()
    });
    let (text, taken_up) = kill(&dry);
    assert!(
        !taken_up && text.contains("runs dry and destroys nothing"),
        "{text}"
    );
    let unwritten = Place::new(With::default());
    let database = unwritten.directory.path().join("haggle.db");
    std::fs::rename(&database, database.with_extension("away")).unwrap();
    let (text, taken_up) = kill(&unwritten);
    assert!(!taken_up && text.contains("by a file alone"), "{text}");
    assert!(text.contains("`haggle kill` does"), "{text}");
}

#[test]
fn before_the_first_tick_nothing_is_claimed_that_is_not_known() {
    let place = Place::new(With::default());
    let world = filled(2, 1);
    place.publisher.lock().unwrap().prime(
        &world.state,
        &[],
        (&world.jobs, &[broken()]),
        (NOW, true, &world.config),
    );
    let state = place.get("/api/v1/state", &[]).json();
    assert_eq!(state["was_decided"], false);
    assert_eq!(state["jobs"][0]["eligible"], serde_json::Value::Null);
    assert_eq!(state["jobs"][0]["refused"], serde_json::Value::Null);
    assert_eq!(state["broken_policies"][0]["file"], "policies/bad.toml");
    let limits = state["limits"].as_array().unwrap();
    let budget = |limit: &&serde_json::Value| limit["scope"] == "job/train-1";
    assert!(limits.iter().any(|limit| budget(&limit)), "{state}");
    place.tick(&world);
    let state = place.get("/api/v1/state", &[]).json();
    // The marketplace's list of instances was not read.
    assert_eq!(state["was_decided"], false);
    assert!(state["jobs"][0]["eligible"].is_u64(), "{state}");
}

#[test]
fn where_other_machines_can_reach_it_reading_takes_the_token_too() {
    let own = format!("x-haggle-token: {TOKEN}");
    let place = Place::new(With {
        exposed: true,
        ..With::default()
    });
    for path in [
        "/api/v1/state",
        "/api/v1/events",
        "/api/v1/policies",
        "/api/v1/openapi.json",
    ] {
        assert_eq!(
            place.get(path, &[]).error(),
            (401, "no-token".to_owned()),
            "{path}"
        );
    }
    assert_eq!(place.get("/api/v1/state", &[&own]).status, 200);
    let by_address = request("GET", "/api/v1/state", "192.168.1.4:9464", &[&own], "");
    assert_eq!(place.ask(&by_address).status, 200);
    let by_name = request("GET", "/api/v1/state", "evil.example", &[&own], "");
    assert_eq!(place.ask(&by_name).error().0, 403);
    let without = Place::new(With {
        exposed: true,
        no_token: true,
        ..With::default()
    });
    let answer = without.get("/api/v1/state", &[]);
    assert_eq!(answer.error(), (403, "no-token-configured".to_owned()));
}

#[test]
fn no_path_leads_out_and_no_name_is_taken_for_markup() {
    let place = Place::new(With::default());
    let own = format!("x-haggle-token: {TOKEN}");
    for path in [
        "/page/../Cargo.toml",
        "/page/..%2f..%2f..%2fetc%2fpasswd",
        "/page/%2e%2e/%2e%2e/etc/passwd",
        "/page//etc/passwd",
        "/page/app.js%00.html",
        "/page/",
        "/../../etc/passwd",
    ] {
        let answer = place.get(path, &[]);
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.text().contains("root:"), "{path}");
    }
    for name in [
        "..%2f..%2fhaggle",
        "%2e%2e",
        "train-0%2f..",
        "<script>",
        "%3Cscript%3E",
        "%00",
        "%ff",
        "Train",
        "a".repeat(41).as_str(),
    ] {
        for rest in ["", "/explain", "/market", "/logs"] {
            let answer = place.get(&format!("/api/v1/jobs/{name}{rest}"), &[&own]);
            assert_eq!(answer.status, 400, "{name}{rest}: {}", answer.text());
            // What is no path at all is refused before anything looks at it, without a word.
            let said = answer.header("content-type");
            assert!(
                said == "application/json" || answer.body.is_empty(),
                "{name}: {said}"
            );
        }
    }
    for query in [
        "limit=0",
        "limit=201",
        "limit=x",
        "limit=-1",
        "before=x",
        "before=-1",
        "before=9223372036854775808",
        "job=..%2f",
        "job=%3Cb%3E",
        "x=1",
        "limit=1&limit=2",
    ] {
        let answer = place.get(&format!("/api/v1/decisions?{query}"), &[]);
        assert_eq!(answer.error(), (400, "bad-request".to_owned()), "{query}");
    }
    assert_eq!(place.get("/api/v1/decisions/99", &[]).error().0, 404);
    assert_eq!(place.get("/api/v1/decisions/-1", &[]).error().0, 400);
    // A reply is not split by what a request says.
    let split = place.get("/api/v1/jobs/x%0d%0aset-cookie:%20a=1", &[]);
    assert_eq!(split.status, 400);
    assert!(!split.headers.contains_key("set-cookie"));
}

/// A stream of events, read as it comes.
struct Stream {
    lines: std::io::BufReader<TcpStream>,
    newest: u64,
}

impl Stream {
    fn open(place: &Place) -> Self {
        let mut stream = TcpStream::connect(place.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
            .write_all(request("GET", "/api/v1/events", HOST, &[], "").as_bytes())
            .unwrap();
        Self {
            lines: std::io::BufReader::new(stream),
            newest: 0,
        }
    }

    /// The next event's number and age; `None`: there is none.
    fn news(&mut self) -> Option<(u64, u64)> {
        use std::io::BufRead as _;
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(data) = line.strip_prefix("data: ") {
                let data: serde_json::Value = serde_json::from_str(data.trim()).unwrap();
                return data["version"].as_u64().zip(data["age_seconds"].as_u64());
            }
        }
    }

    /// The age that is told with a number.
    fn age_of(&mut self, version: u64) -> u64 {
        loop {
            let (told, age) = self.news().unwrap();
            if told == version {
                return age;
            }
        }
    }

    /// The number of the next event that tells of something newer; `None`: there is none.
    fn next(&mut self) -> Option<u64> {
        loop {
            let (version, _) = self.news()?;
            if version > self.newest {
                self.newest = version;
                return Some(version);
            }
        }
    }
}

#[test]
fn events_say_for_how_long_no_tick_has_made_anything_newer() {
    let place = Place::new(With::default());
    let mut stream = Stream::open(&place);
    assert_eq!(stream.age_of(1), 0);
    place.clock.advance(Duration::from_secs(100));
    // Nobody sees from the number that the loop hangs, nor from what is told of a store that fails.
    assert_eq!(Stream::open(&place).age_of(1), 100);
    place
        .publisher
        .lock()
        .unwrap()
        .store_failed(Some(&StoreError::Full));
    assert_eq!(stream.age_of(2), 100);
    place.tick(&filled(1, 1));
    assert_eq!(stream.age_of(3), 0);
}

#[test]
fn each_publication_is_an_event_and_streams_are_so_many() {
    let place = Place::new(With::default());
    let mut streams: Vec<Stream> = (0..64).map(|_| Stream::open(&place)).collect();
    for stream in &mut streams {
        assert_eq!(stream.next(), Some(1));
    }
    let one_more = place.get("/api/v1/events", &[]);
    assert_eq!(one_more.error(), (503, "busy".to_owned()));
    // Others are served all the same.
    assert_eq!(place.get("/api/v1/state", &[]).status, 200);
    place.tick(&filled(2, 2));
    place
        .publisher
        .lock()
        .unwrap()
        .store_failed(Some(&StoreError::Full));
    for stream in &mut streams {
        let mut newest = stream.next().unwrap();
        if newest < 3 {
            newest = stream.next().unwrap();
        }
        assert_eq!(newest, 3, "who lags sees the newest");
    }
    let state = place.get("/api/v1/state", &[]).json();
    assert!(
        state["trouble"][0].as_str().unwrap().contains("disk"),
        "{state}"
    );
    place.publisher.lock().unwrap().store_failed(None);
    let state = place.get("/api/v1/state", &[]).json();
    assert_eq!(state["trouble"].as_array().unwrap().len(), 1, "{state}");
}

#[test]
fn a_hundred_jobs_and_three_hundred_instances_are_light() {
    let place = Place::new(With::default());
    place.tick(&filled(100, 300));
    let gzip = ["accept-encoding: gzip"];
    let mut bytes = place.get("/api/v1/state", &gzip).body.len();
    for file in [
        "",
        "page/style.css",
        "page/app.js",
        "page/api.js",
        "page/dom.js",
        "page/board.js",
        "page/job.js",
        "page/lists.js",
        "page/chart.js",
        "page/icon.svg",
    ] {
        let answer = place.get(&format!("/{file}"), &gzip);
        assert_eq!(answer.status, 200, "{file}");
        bytes += answer.body.len();
    }
    assert!(bytes < 150_000, "{bytes} bytes");
    // Whatever there is, so much is sent and the rest is counted.
    let world = filled(600, 1200);
    let jobs: Vec<&Job> = world.jobs.iter().map(|job| &**job).collect();
    let report = Report {
        limits: project(NOW, &world.config, &jobs, &world.state, Purse::default()),
        ..Report::default()
    };
    place.publish(&world, &Plan::default(), &report);
    let state = place.get("/api/v1/state", &[]).json();
    assert_eq!(state["jobs"].as_array().unwrap().len(), 500);
    assert_eq!(state["jobs_left_out"], 100);
    assert_eq!(state["instances"].as_array().unwrap().len(), 1000);
    assert_eq!(state["instances_left_out"], 200);
    assert_eq!(state["limits"].as_array().unwrap().len(), 60);
}

#[test]
fn neither_many_requests_nor_hostile_clients_hold_up_a_publication() {
    let place = Place::new(With::default());
    let mut streams: Vec<Stream> = (0..50).map(|_| Stream::open(&place)).collect();
    for stream in &mut streams {
        stream.next().unwrap();
    }
    // Some say nothing, some half a request, some ask for much and read none of it.
    let hostile: Vec<TcpStream> = (0..60)
        .map(|number| {
            let mut stream = TcpStream::connect(place.address).unwrap();
            let whole =
                request("GET", "/api/v1/state", HOST, &[], "").replace("connection: close\r\n", "");
            let said = match number % 3 {
                0 => String::new(),
                1 => {
                    "POST /api/v1/kill HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 4000\r\n\r\n{"
                        .to_owned()
                }
                _ => whole.repeat(200),
            };
            let _ = stream.set_nonblocking(true);
            let _ = stream.write(said.as_bytes());
            stream
        })
        .collect();
    let world = filled(100, 300);
    let worst = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            (0..100)
                .map(|_| place.get("/api/v1/state", &[]).status)
                .collect::<BTreeSet<_>>()
        });
        let clock = crate::clock::SystemClock::new();
        let begun = || crate::ports::Clock::monotonic(&clock);
        let mut worst = Duration::ZERO;
        for _ in 0..20 {
            let before = begun();
            place.tick(&world);
            worst = worst.max(begun().since(before));
        }
        assert_eq!(asking.join().unwrap(), BTreeSet::from([200]));
        worst
    });
    // Unoptimised, a publication of so much takes some tens of milliseconds by itself.
    assert!(
        worst < Duration::from_secs(2),
        "a tick took {worst:?} to publish"
    );
    for stream in &mut streams {
        while stream.next().unwrap() < 21 {}
    }
    drop(hostile);
    assert!(place.desk.published().is_ok());
}

#[test]
fn the_description_is_of_this_api() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    // UPDATE_EXPECT=1 writes it anew.
    expect_test::expect_file![path].assert_eq(&description());
    let described: serde_json::Value = serde_json::from_str(&description()).unwrap();
    let described: BTreeSet<String> = described["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods
                .map(|method| format!("{method} {path}"))
                .collect::<Vec<_>>()
        })
        .collect();
    let source = include_str!("mod.rs");
    let routed: BTreeSet<String> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix(".route(\"/")?.split_once("\", "))
        .filter(|(path, _)| !path.is_empty() && !path.starts_with("page/"))
        .map(|(path, rest)| {
            let method = if rest.starts_with("post") {
                "post"
            } else {
                "get"
            };
            format!("{method} /api/v1/{path}")
        })
        .collect();
    assert_eq!(described, routed);
    // And each of them is answered, by what it says of itself.
    let place = Place::new(With::default());
    for one in &described {
        let (method, path) = one.split_once(' ').unwrap();
        if path.ends_with("/events") {
            continue;
        }
        let path = path.replace("{name}", "train-0").replace("{tick}", "99");
        let answer = place.ask(&request(&method.to_uppercase(), &path, HOST, &[], ""));
        assert!(
            [200, 401, 404].contains(&answer.status),
            "{one}: {}",
            answer.status
        );
        assert_ne!(
            answer.json()["message"],
            "the API has no such path",
            "{one}"
        );
    }
}
