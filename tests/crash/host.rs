//! The marketplace that the test is, and the death that it deals out.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Child;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Query, State};
use axum::http;
use haggle::clock::ScaledClock;
use haggle::market::faults::Faults;
use haggle::market::{Handled, Market, MarketOptions, MarketServer, WireOptions};
use haggle::ports::{Clock, Method, Reply, Request};
use haggle::simulate::Checker;
use haggle::types::ids::Label;
use haggle::types::job::Job;
use haggle::types::time::{Mono, Time};
use haggle::types::world::EngineConfig;
use tokio::net::TcpListener;

/// Market seconds a second.
const SPEED: f64 = 600.0;

/// The daemon assumes that a request takes effect within 120 s, or never: by then what is late must
/// have been applied.
const LATEST: Duration = Duration::from_secs(100);

/// The play account's.
pub(crate) const TOKEN: &str = "at_x";

/// The market's time. It stands still while no process runs, and the test may move it then.
pub(crate) struct MarketClock(Mutex<(Time, Option<ScaledClock>)>);

impl MarketClock {
    fn lock(&self) -> MutexGuard<'_, (Time, Option<ScaledClock>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut inside = self.lock();
        let base = inside.0;
        inside
            .1
            .get_or_insert_with(|| ScaledClock::new(base, SPEED));
    }

    pub(crate) fn stop(&self) {
        let now = self.now();
        *self.lock() = (now, None);
    }

    pub(crate) fn jump(&self, by: Duration) {
        self.lock().0 = self.now() + by;
    }
}

#[async_trait::async_trait]
impl Clock for MarketClock {
    fn now(&self) -> Time {
        let inside = self.lock();
        inside.1.as_ref().map_or(inside.0, Clock::now)
    }

    fn monotonic(&self) -> Mono {
        Mono(u64::try_from(self.now().0).unwrap())
    }

    async fn sleep_until(&self, _: Time) {
        unreachable!("the market never sleeps")
    }
}

/// Which requests a doom waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Any,
    Mutations,
    Destroys,
}

/// What becomes of the request at which the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// It is not applied.
    Before,
    /// It is applied first.
    After,
    /// It is applied when the next process has had its first listing, or its second.
    Late(u32),
}

/// At which request the process dies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doom {
    /// So many that match are let pass.
    pub(crate) skip: u64,
    pub(crate) of: Of,
    /// After so many requests of any kind it need not match any more; `None`: it must.
    pub(crate) most: Option<u64>,
    pub(crate) fate: Fate,
}

impl Doom {
    fn strikes(&mut self, request: &Request) -> bool {
        let matches = match self.of {
            Of::Any => true,
            Of::Mutations => request.method != Method::Get,
            Of::Destroys => request.method == Method::Delete,
        };
        let overdue = self.most == Some(0);
        self.most = self.most.map(|most| most.saturating_sub(1));
        if overdue {
            return true;
        }
        let passed = self.skip;
        self.skip -= u64::from(matches && passed > 0);
        matches && passed == 0
    }
}

/// What the test's thread is told.
pub(crate) enum Told {
    /// So many requests of the process that runs were answered.
    Answered(u64),
    /// The process was killed at its request of this number: what it asked.
    Killed(u64, String, Fate),
    /// A process ended, by itself or killed: which, and what it wrote to its output.
    Ended(u32, String),
}

pub(crate) struct Inside {
    pub(crate) child: Option<Child>,
    /// Of the process that runs.
    pub(crate) requests: u64,
    pub(crate) doom: Option<Doom>,
    /// When it read the clock.
    began: Time,
    /// What a dead process asked and is still to be applied, after so many listings.
    pub(crate) late: Option<(Request, u32)>,
    pub(crate) checker: Checker,
    /// The label of every instance that was ever seen.
    pub(crate) labels: BTreeMap<u64, Label>,
    /// Instances whose label is none of ours.
    pub(crate) strangers: BTreeSet<u64>,
}

/// The market, and the death that it deals out.
pub(crate) struct Host {
    pub(crate) server: MarketServer,
    clock: Arc<MarketClock>,
    pub(crate) account: u64,
    inside: Mutex<Inside>,
    tell: Sender<Told>,
}

impl Host {
    pub(crate) fn new(seed: u64, jobs: &[Arc<Job>], tell: Sender<Told>) -> Self {
        let options = MarketOptions {
            seed,
            machines: Some(120),
            intensity: 2.0,
            // The bill is exact, so that the books can be held to it.
            charge_decimals: 9,
            ..MarketOptions::default()
        };
        let clock = Arc::new(MarketClock(Mutex::new((options.start, None))));
        let mut market = Market::generated(options);
        let account = market.account_for(TOKEN);
        let wire = WireOptions {
            speed: SPEED,
            // A process that has just died used up some of them.
            rate_limits: true,
            ..WireOptions::default()
        };
        let inside = Inside {
            child: None,
            requests: 0,
            began: market.now(),
            doom: None,
            late: None,
            checker: Checker::new(account, jobs, EngineConfig::default()),
            labels: BTreeMap::new(),
            strangers: BTreeSet::new(),
        };
        Self {
            server: MarketServer::new(market, wire, Faults::none(), clock.clone()),
            clock,
            account,
            inside: Mutex::new(inside),
            tell,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clock(&self) -> &MarketClock {
        &self.clock
    }

    pub(crate) fn teller(&self) -> Sender<Told> {
        self.tell.clone()
    }

    /// Answers one request; `None` where nobody is left to hear.
    fn handle(&self, request: &Request) -> Option<Reply> {
        let mut inside = self.lock();
        if request.path == "/clock" {
            inside.began = self.clock.now();
            self.clock.run();
            return Some(self.apply(&mut inside, request));
        }
        inside.child.as_ref()?;
        inside.requests += 1;
        let count = inside.requests;
        let mut doom = inside.doom;
        let struck = doom.as_mut().is_some_and(|doom| doom.strikes(request));
        inside.doom = doom;
        if let (true, Some(Doom { fate, .. })) = (struck, doom) {
            match fate {
                Fate::Before => {}
                Fate::After => {
                    self.apply(&mut inside, request);
                }
                Fate::Late(listings) => inside.late = Some((request.clone(), listings)),
            }
            self.kill(&mut inside);
            let _ = self.tell.send(Told::Killed(count, asked(request), fate));
            return None;
        }
        if self.clock.now().since(inside.began) >= LATEST {
            self.apply_late(&mut inside);
        }
        let reply = self.apply(&mut inside, request);
        if asked(request) == "GET instances" {
            if let Some((_, listings)) = &mut inside.late {
                *listings -= 1;
            }
            if inside.late.as_ref().is_some_and(|late| late.1 == 0) {
                self.apply_late(&mut inside);
            }
        }
        let _ = self.tell.send(Told::Answered(count));
        Some(reply)
    }

    fn apply_late(&self, inside: &mut Inside) {
        if let Some((request, _)) = inside.late.take() {
            self.apply(inside, &request);
        }
    }

    fn apply(&self, inside: &mut Inside, request: &Request) -> Reply {
        let handled = self.server.handle(request);
        self.server.with_market(|market| {
            inside.checker.look(market);
            for row in market.instances(self.account) {
                match row.label.as_deref().and_then(Label::parse) {
                    Some(label) => drop(inside.labels.insert(row.id, label)),
                    None => drop(inside.strangers.insert(row.id)),
                }
            }
        });
        match handled {
            Handled::Reply(reply) => reply,
            Handled::Hang => unreachable!("no faults were asked for"),
        }
    }

    /// Kills the process that runs, if one does; time stands still from then on.
    pub(crate) fn kill(&self, inside: &mut Inside) {
        if let Some(mut child) = inside.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        inside.doom = None;
        self.clock.stop();
    }
}

fn asked(request: &Request) -> String {
    let mut parts = request.path.trim_start_matches("/vastai/").split('/');
    let noun = parts.next().unwrap_or_default();
    let of_one = if parts.next().is_some() { " ID" } else { "" };
    format!("{} {noun}{of_one}", request.method.as_str())
}

/// Serves the market until the task is aborted.
pub(crate) async fn serve(listener: TcpListener, host: Arc<Host>) {
    let router = Router::new().fallback(respond).with_state(host);
    axum::serve(listener, router).await.unwrap();
}

async fn respond(
    State(host): State<Arc<Host>>,
    request: http::Request<Body>,
) -> http::Response<Body> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let request = Request {
        method: match parts.method {
            http::Method::GET => Method::Get,
            http::Method::POST => Method::Post,
            http::Method::PUT => Method::Put,
            http::Method::DELETE => Method::Delete,
            other => panic!("{other}"),
        },
        path: parts.uri.path().to_owned(),
        query: Query::try_from_uri(&parts.uri).unwrap().0,
        bearer: None,
        body: (!body.is_empty()).then_some(body),
    };
    let Some(reply) = host.handle(&request) else {
        return http::Response::builder()
            .status(504)
            .body(Body::empty())
            .unwrap();
    };
    let mut response = http::Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).unwrap()
}
