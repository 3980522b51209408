//! The binary in a directory of its own, and the embedded market on a loopback port with whatever
//! a test wants it to answer instead.

#![allow(dead_code)] // Each test uses what it needs of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Query;
use axum::response::Response;
use haggle::clock::SystemClock;
use haggle::market::faults::Faults;
use haggle::market::{Handled, Market, MarketOptions, MarketServer, WireOptions, router};
use haggle::ports::{Clock, Method, Reply, Request};
use secrecy::SecretString;

/// No test takes this long; one that does has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A policy that bids on common models, to a few cents.
pub(crate) const POLICY: &str = r#"
name = "train"
rental = "auto"
replicas = 3
[run]
image = "ghcr.io/me/private:1"
[gpu]
models = ["RTX 4090"]
count = 1
[machine]
disk = "16GB"
[price]
max = "$0.80/gpu-hour"
[budget]
total = "$4"
[work]
gpu_hours = 6
[data]
disposable = true
"#;

/// The binary, without the settings of whoever runs the tests. A backtrace would be asked for, so
/// that none shows that should not.
pub(crate) fn haggle(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haggle"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HAGGLE_") {
            command.env_remove(name);
        }
    }
    command
        .current_dir(directory)
        .env_remove("RUST_LOG")
        .env("RUST_BACKTRACE", "1");
    command
}

/// Writes `haggle.toml` and one policy.
pub(crate) fn set_up(directory: &Path, base_url: &str, policy: &str) {
    let provider = format!("base_url = \"{base_url}\"\nshare_job_secrets = true\n");
    set_up_with(directory, &provider, policy);
}

/// Writes `haggle.toml` with such a provider, and one policy.
pub(crate) fn set_up_with(directory: &Path, provider: &str, policy: &str) {
    fs::create_dir_all(directory.join("policies")).unwrap();
    fs::write(directory.join("policies/train.toml"), policy).unwrap();
    fs::write(
        directory.join("haggle.toml"),
        format!("listen = \"127.0.0.1:0\"\n[poll]\nevery = \"10s\"\n[provider]\n{provider}"),
    )
    .unwrap();
}

/// A daemon in the background, its output in files; killed with the test that started it.
pub(crate) struct Running {
    child: Child,
    /// Where its stderr goes, if to a file.
    stderr: PathBuf,
}

impl Running {
    /// Starts a command with its output in `NAME.out` and `NAME.err` of the directory.
    pub(crate) fn start(command: &mut Command, directory: &Path, name: &str) -> Self {
        let file = |ending| File::create(directory.join(format!("{name}.{ending}"))).unwrap();
        let child = command
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .unwrap();
        let stderr = directory.join(format!("{name}.err"));
        Self { child, stderr }
    }

    /// Waits until it said something on stderr.
    pub(crate) fn wait_to_say(&mut self, text: &str) {
        const LOOKS: u32 = 2400;
        for _ in 0..LOOKS {
            if fs::read_to_string(&self.stderr).unwrap().contains(text) {
                return;
            }
            assert!(self.is_alive(), "it ended without saying {text}");
            std::thread::sleep(PATIENCE / LOOKS);
        }
        panic!("it never said {text}");
    }

    /// A command that was started already.
    pub(crate) fn of(child: Child) -> Self {
        let stderr = PathBuf::new();
        Self { child, stderr }
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Asks it to end, as a service manager does.
    pub(crate) fn terminate(&self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It is gone already wherever the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a gateway answers instead of the market, by the number of the request and the request.
pub(crate) type Script = Box<dyn Fn(u64, &Request) -> Option<Reply> + Send + Sync>;

/// A gateway on a loopback port.
pub(crate) struct Gateway {
    pub(crate) base_url: String,
    /// Where it is as the marketplace itself.
    pub(crate) origin: String,
    seen: Arc<Seen>,
}

struct Seen {
    market: MarketServer,
    script: Script,
    requests: Mutex<u64>,
    news: Condvar,
}

impl Gateway {
    /// Takes one token, or any, and answers as the script says, else as the market does.
    pub(crate) fn start(token: Option<&str>, script: Script) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let options = MarketOptions {
            start: clock.now(),
            ..MarketOptions::default()
        };
        let wire = WireOptions {
            token: token.map(SecretString::from),
            ..WireOptions::default()
        };
        let market = MarketServer::new(Market::generated(options), wire, Faults::none(), clock);
        let seen = Arc::new(Seen {
            market,
            script,
            requests: Mutex::new(0),
            news: Condvar::new(),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let answer = move |request| answer(Arc::clone(&shared), request);
                let router = Router::new().fallback(answer);
                axum::serve(listener, router).await.unwrap();
            });
        });
        Self {
            base_url: format!("http://{address}{}", router::PREFIX),
            origin: format!("http://{address}"),
            seen,
        }
    }

    /// A gateway with nothing wrong.
    pub(crate) fn plain(token: Option<&str>) -> Self {
        Self::start(token, Box::new(|_, _| None))
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u64 {
        *self.seen.requests.lock().unwrap()
    }

    /// Waits until a condition holds after some request.
    pub(crate) fn wait_until(&self, what: &str, mut holds: impl FnMut(u64) -> bool) {
        let requests = self.seen.requests.lock().unwrap();
        let waited = self
            .seen
            .news
            .wait_timeout_while(requests, PATIENCE, |requests| !holds(*requests));
        let (requests, waited) = waited.unwrap();
        assert!(!waited.timed_out(), "{what}: not after {requests} requests");
    }
}

async fn answer(seen: Arc<Seen>, request: axum::http::Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).unwrap();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let request = Request {
        method: match parts.method.as_str() {
            "GET" => Method::Get,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            _ => Method::Delete,
        },
        path: parts.uri.path().to_owned(),
        query: query.0,
        bearer: parts
            .headers
            .get("authorization")
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
            .map(str::to_owned),
        body: (!body.is_empty()).then_some(body),
    };
    let number = {
        let mut requests = seen.requests.lock().unwrap();
        *requests += 1;
        *requests
    };
    let instead = (seen.script)(number, &request);
    let handled = instead.map_or_else(|| seen.market.handle(&request), Handled::Reply);
    seen.news.notify_all();
    let reply = match handled {
        Handled::Reply(reply) => reply,
        Handled::Hang => std::future::pending().await,
    };
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).unwrap()
}
