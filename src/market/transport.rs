//! The client's side of the market in process: no sockets, no real time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::router::{Handled, IN_PROCESS, MarketServer, PREFIX};
use crate::ports::{Method, Reply, Request, Transport, TransportError};

/// What a hook says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let it pass.
    Go,
    /// The client dies before it is sent.
    CrashBefore,
    /// The client dies after it took effect, before it hears.
    CrashAfter,
}

/// Decides on each request, given its number, counted from 1.
pub type Hook = Arc<dyn Fn(u64, &Request) -> Verdict + Send + Sync>;

/// Called when a request hangs, with the time after which the client gives up: a simulation moves
/// its clock on by that.
pub type OnHang = Arc<dyn Fn(Duration) + Send + Sync>;

/// A transport that calls the market's router.
pub struct InProcess {
    server: Arc<MarketServer>,
    /// The path of the base URL, which requests are under.
    base: String,
    timeout: Duration,
    on_hang: Option<OnHang>,
    hook: Option<Hook>,
    requests: AtomicU64,
    crashed: AtomicBool,
}

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InProcess")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl InProcess {
    /// A transport to a market, with the gateway's prefix as its base. A request that hangs sleeps
    /// on the market's clock until its timeout, unless [`Self::on_hang`] says otherwise.
    pub fn new(server: Arc<MarketServer>, timeout: Duration) -> Self {
        Self {
            server,
            base: PREFIX.to_owned(),
            timeout,
            on_hang: None,
            hook: None,
            requests: AtomicU64::new(0),
            crashed: AtomicBool::new(false),
        }
    }

    /// The same to the marketplace's own wire format: paths are whole, `/api` included.
    pub fn native(server: Arc<MarketServer>, timeout: Duration) -> Self {
        Self {
            base: String::new(),
            ..Self::new(server, timeout)
        }
    }

    /// Has this called when a request hangs, instead of sleeping.
    pub fn on_hang(mut self, on_hang: OnHang) -> Self {
        self.on_hang = Some(on_hang);
        self
    }

    /// Has this decide whether the client dies at a request.
    pub fn hook(mut self, hook: Hook) -> Self {
        self.hook = Some(hook);
        self
    }

    /// Whether a hook let the client die. From then on nothing is sent.
    pub fn crashed(&self) -> bool {
        self.crashed.load(Ordering::SeqCst)
    }

    /// How many requests were made.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// What the client hears, and when.
    async fn heard(&self, handled: Handled) -> Result<Reply, TransportError> {
        match handled {
            Handled::Reply(reply) => Ok(reply),
            Handled::Hang => {
                if let Some(on_hang) = &self.on_hang {
                    on_hang(self.timeout);
                } else {
                    let clock = self.server.clock();
                    clock.sleep_until(clock.now() + self.timeout).await;
                }
                Err(TransportError::Timeout(self.timeout))
            }
        }
    }

    fn die<T>(&self) -> Result<T, TransportError> {
        self.crashed.store(true, Ordering::SeqCst);
        Err(TransportError::Broken("the client has died".to_owned()))
    }
}

#[async_trait]
impl Transport for InProcess {
    async fn send(&self, mut request: Request) -> Result<Reply, TransportError> {
        if self.crashed() {
            return Err(TransportError::Connect("the client has died".to_owned()));
        }
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let verdict = self
            .hook
            .as_ref()
            .map_or(Verdict::Go, |hook| hook(number, &request));
        if verdict == Verdict::CrashBefore {
            return self.die();
        }
        request.path.insert_str(0, &self.base);
        let handled = self.server.handle(&request);
        if verdict == Verdict::CrashAfter {
            return self.die();
        }
        self.heard(handled).await
    }

    async fn fetch(&self, url: &str) -> Result<Reply, TransportError> {
        if self.crashed() {
            return Err(TransportError::Connect("the client has died".to_owned()));
        }
        let path = url.strip_prefix(IN_PROCESS).ok_or_else(|| {
            TransportError::Connect("this transport reaches the market alone".to_owned())
        })?;
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        if !query.is_empty() {
            let why = "the market names no addresses with a query".to_owned();
            return Err(TransportError::Connect(why));
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        let handled = self.server.handle(&Request {
            method: Method::Get,
            path: path.to_owned(),
            query: Vec::new(),
            bearer: None,
            body: None,
        });
        self.heard(handled).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimClock;
    use crate::market::faults::{Fault, FaultScript, FaultSpec, Faults};
    use crate::market::{Market, MarketOptions, WireOptions};
    use crate::ports::Clock;

    fn server(cues: &[(u64, Fault)]) -> (Arc<MarketServer>, Arc<SimClock>) {
        let clock = Arc::new(SimClock::new(MarketOptions::default().start));
        let options = MarketOptions {
            machines: Some(2),
            ..MarketOptions::default()
        };
        let script = FaultScript::new(cues.iter().copied());
        let server = MarketServer::new(
            Market::generated(options),
            WireOptions::default(),
            Faults::new(FaultSpec::default(), script, 1),
            Arc::clone(&clock) as Arc<dyn Clock>,
        );
        (Arc::new(server), clock)
    }

    fn me() -> Request {
        Request {
            method: Method::Get,
            path: "/users/me".to_owned(),
            query: vec![("api_token".to_owned(), "at_x".to_owned())],
            bearer: None,
            body: None,
        }
    }

    const TIMEOUT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_hang_takes_the_timeout_in_market_time() {
        let (server, clock) = server(&[(1, Fault::TimeoutAfter), (3, Fault::TimeoutBefore)]);
        let start = clock.now();
        let transport = InProcess::new(Arc::clone(&server), TIMEOUT);
        let sent = transport.send(me()).await;
        assert_eq!(sent.unwrap_err(), TransportError::Timeout(TIMEOUT));
        assert_eq!(clock.now(), start + TIMEOUT);
        assert_eq!(transport.send(me()).await.unwrap().status, 200);
        let shared = Arc::clone(&clock);
        let told = InProcess::new(server, TIMEOUT)
            .on_hang(Arc::new(move |waited| shared.advance(waited * 2)));
        assert!(told.send(me()).await.is_err());
        assert_eq!(clock.now(), start + TIMEOUT * 3);
    }

    #[tokio::test]
    async fn a_native_client_reads_what_the_market_names_and_nothing_else() {
        let (server, _) = server(&[]);
        let transport = InProcess::native(server, TIMEOUT);
        let list = Request {
            path: "/api/v1/instances/".to_owned(),
            query: Vec::new(),
            bearer: Some("key".to_owned()),
            ..me()
        };
        assert_eq!(transport.send(list).await.unwrap().status, 200);
        let named = format!("{IN_PROCESS}/results/none");
        assert_eq!(transport.fetch(&named).await.unwrap().status, 404);
        for url in ["http://example.com/results/none", "/results/none"] {
            assert!(transport.fetch(url).await.is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_client_that_died_sends_nothing_more() {
        for (verdict, arrived) in [(Verdict::CrashBefore, 1), (Verdict::CrashAfter, 2)] {
            let (server, _) = server(&[]);
            let hook: Hook = Arc::new(move |number, request| {
                assert_eq!(request.path, "/users/me");
                if number == 2 { verdict } else { Verdict::Go }
            });
            let transport = InProcess::new(Arc::clone(&server), TIMEOUT).hook(hook);
            assert!(transport.send(me()).await.is_ok() && !transport.crashed());
            let broken = transport.send(me()).await.unwrap_err();
            assert!(matches!(broken, TransportError::Broken(_)) && transport.crashed());
            let after = transport.send(me()).await.unwrap_err();
            assert!(matches!(after, TransportError::Connect(_)));
            assert_eq!(server.with_faults(|faults| faults.requests()), arrived);
            assert_eq!(transport.requests(), 2);
        }
    }
}
