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
use crate::types::job::{Job, RentalChoice};
use crate::types::plan::{Plan, Report};
use crate::types::state::{Ask, Change, Event, Severity, Wish};
use crate::types::time::Mono;
use crate::types::world::World;

mod changes;
mod load;
mod reads;
mod who;

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
