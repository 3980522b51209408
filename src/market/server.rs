//! The market over real HTTP, for a daemon in another process.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use axum::{Router, http};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::exec::Exec;
use super::router::{Handled, MarketServer};
use super::{deliveries, wire};
use crate::ports::{Method, Reply, Request};
use crate::types::time::Time;

/// Longest body of a request, in bytes; far over the marketplace's 32 KB of environment.
const BODY_MAX: usize = 1 << 20;

/// How long a request that is never answered is held open.
const HANG_MAX: Duration = Duration::from_mins(5);

#[derive(Clone)]
struct Shared {
    server: Arc<MarketServer>,
    /// Turns true when the server is to end: requests that hang must not keep it.
    ending: watch::Receiver<bool>,
}

/// Serves until `shutdown` completes; then requests under way are finished, and those that hang
/// are dropped. With `exec`, what instances run is run for real.
///
/// # Errors
/// Where the listener fails.
pub async fn serve(
    listener: TcpListener,
    server: Arc<MarketServer>,
    exec: Option<Exec>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (end, ending) = watch::channel(false);
    let delivered = tokio::spawn(deliveries::run(Arc::clone(&server), ending.clone()));
    let hosting = exec.map(|exec| tokio::spawn(exec.run(Arc::clone(&server), ending.clone())));
    let shared = Shared { server, ending };
    let router = Router::new().fallback(handle).with_state(shared);
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            shutdown.await;
            // Nobody listens any more only where nothing hangs.
            let _ = end.send(true);
        })
        .await;
    // It ends with the server, however that ended. So does what runs, once it is killed.
    delivered.abort();
    if let Some(hosting) = hosting {
        let _ = hosting.await;
    }
    served
}

#[expect(
    clippy::disallowed_methods,
    reason = "injected delays are of real time, like the connections that they delay"
)]
async fn handle(State(mut shared): State<Shared>, request: http::Request<Body>) -> Response {
    let origin = origin(&request);
    let request = match read(request).await {
        Ok(request) => request,
        Err(reply) => return response(reply),
    };
    if let Some(delay) = shared.server.next_latency() {
        tokio::time::sleep(delay).await;
    }
    match shared.server.handle_at(&request, &origin) {
        // What runs in an instance takes the time from here: the market's, however fast it goes.
        Handled::Reply(mut reply) => {
            let now = shared.server.now();
            reply.headers.push(("date".to_owned(), http_date(now)));
            response(reply)
        }
        Handled::Hang => {
            let ending = shared.ending.wait_for(|ending| *ending);
            // Either way there is no answer to give; a client that left has ended this by itself.
            let _ = tokio::time::timeout(HANG_MAX, ending).await;
            response(wire::reply(504, String::new()))
        }
    }
}

/// Under what the caller reached this server: what it named, if that can be part of a URL.
fn origin(request: &http::Request<Body>) -> String {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).filter(|host| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        !host.is_empty() && host.bytes().all(plain)
    });
    format!("http://{}", host.unwrap_or("127.0.0.1"))
}

async fn read(request: http::Request<Body>) -> Result<Request, Reply> {
    let (parts, body) = request.into_parts();
    let method = match parts.method {
        http::Method::GET => Method::Get,
        http::Method::POST => Method::Post,
        http::Method::PUT => Method::Put,
        http::Method::DELETE => Method::Delete,
        _ => return Err(wire::not_found()),
    };
    let refuse = |status, message: &str| {
        let body = serde_json::json!({ "message": message });
        wire::reply(status, body.to_string())
    };
    let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
        .map_err(|_| refuse(400, "Bad Request"))?;
    let body = to_bytes(body, BODY_MAX)
        .await
        .map_err(|_| refuse(413, "Payload Too Large"))?;
    let authorization = parts.headers.get(header::AUTHORIZATION);
    let bearer = authorization
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim());
    Ok(Request {
        method,
        path: parts.uri.path().to_owned(),
        query: query.0,
        bearer: bearer.map(str::to_owned),
        body: (!body.is_empty()).then_some(body),
    })
}

/// A moment as HTTP writes it.
fn http_date(at: Time) -> String {
    let date = chrono::DateTime::from_timestamp_millis(at.0).unwrap_or_default();
    date.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn response(reply: Reply) -> Response {
    let mut builder = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        builder = builder.header(name, value);
    }
    builder.body(Body::from(reply.body)).unwrap_or_else(|_| {
        // Our own headers are always valid; should one not be, the client hears of a failure.
        let mut failed = Response::new(Body::empty());
        *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        failed
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimClock;
    use crate::market::faults::{Fault, FaultScript, FaultSpec, Faults};
    use crate::market::{Market, MarketOptions, WireOptions};
    use crate::ports::Clock;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    struct Running {
        address: std::net::SocketAddr,
        server: Arc<MarketServer>,
        stop: oneshot::Sender<()>,
        task: JoinHandle<std::io::Result<()>>,
    }

    async fn running(spec: &str, cues: &[(u64, Fault)]) -> Running {
        let clock: Arc<dyn Clock> = Arc::new(SimClock::new(MarketOptions::default().start));
        let options = MarketOptions {
            machines: Some(5),
            ..MarketOptions::default()
        };
        let spec: FaultSpec = spec.parse().unwrap();
        let faults = Faults::new(spec, FaultScript::new(cues.iter().copied()), 1);
        let market = Market::generated(options);
        let server = Arc::new(MarketServer::new(
            market,
            WireOptions::default(),
            faults,
            clock,
        ));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, Arc::clone(&server), None, async {
            let _ = stopped.await;
        }));
        Running {
            address,
            server,
            stop,
            task,
        }
    }

    impl Running {
        /// Sends a request as bytes and reads until the server closes.
        async fn exchange(&self, request: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            String::from_utf8(answer).unwrap()
        }

        async fn get(&self, target: &str) -> String {
            let head = "Host: x\r\nConnection: close";
            self.exchange(&format!("GET {target} HTTP/1.1\r\n{head}\r\n\r\n"))
                .await
        }
    }

    #[tokio::test]
    async fn it_answers_over_a_real_connection() {
        let running = running("latency=1ms", &[]).await;
        let answer = running.get("/vastai/users/me?api_token=at%5Fx").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        let lower = answer.to_ascii_lowercase();
        assert!(
            lower.contains("\r\ncontent-type: application/json\r\n"),
            "exactly: {answer}"
        );
        assert!(answer.contains(r#"{"data":{"id":"#), "{answer}");
        let q = "%7B%22num_gpus%22%3A%7B%22eq%22%3A%221%22%7D%7D";
        let offers = running
            .get(&format!("/vastai/offers?q={q}&api_token=at_x"))
            .await;
        assert!(offers.contains(r#"{"data":{"offers":["#), "{offers}");
        let body = r#"{"offer_id":1,"image":"a:b"}"#;
        let create = format!(
            "POST /vastai/instances?api_token=at_x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let refused = running.exchange(&create).await;
        assert!(refused.contains("no_such_ask"), "{refused}");
        for (method, status) in [("PATCH", "404"), ("GET", "401")] {
            let line = format!("{method} /vastai/offers HTTP/1.1\r\nHost: x\r\n");
            let answer = running
                .exchange(&format!("{line}Connection: close\r\n\r\n"))
                .await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{answer}"
            );
        }
        assert!(running.get("/clock").await.contains(r#""speed":1.0"#));
        running.stop.send(()).unwrap();
        running.task.await.unwrap().unwrap();
    }

    /// What every request of [`bad_requests_are_refused`] must leave as it was: what a search
    /// finds, what is rented, and the credit.
    async fn seen(running: &Running) -> [String; 4] {
        let search = "POST /api/v0/bundles/ HTTP/1.1\r\nContent-Length: 15\r\n";
        let head = "Host: x\r\nConnection: close\r\nAuthorization: Bearer at_x";
        let request = format!("{search}{head}\r\n\r\n{{\"verified\":{{}}}}");
        let found = running.exchange(&request).await;
        let of_gateway = running.get("/vastai/offers?api_token=at_x").await;
        let instances = running.get("/vastai/instances?api_token=at_x").await;
        let user = running.get("/vastai/users/me?api_token=at_x").await;
        let seen = [found, of_gateway, instances, user];
        seen.map(|answer| {
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            body.to_owned()
        })
    }

    /// A request, and what the answer must be: its status, and words in it.
    type Bad = (&'static str, String, Vec<u8>, u16, &'static str);

    fn bad_requests(offer: u64, machine: u64) -> Vec<Bad> {
        let mut bad: Vec<Bad> = Vec::new();
        let mut is = |method, path: &str, body: &[u8], status, words| {
            bad.push((method, path.to_owned(), body.to_vec(), status, words));
        };
        let deep = format!("{{\"num_gpus\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
        for body in [
            &b"{\"num_gpus\":"[..],
            b"[1, 2]",
            b"\xff\xfe{}",
            deep.as_bytes(),
            br#"{"num_gpus":{"eq":"many"}}"#,
            br#"{"num_gpus":{"about":1}}"#,
            br#"{"num_gpus":{"in":3}}"#,
            br#"{"num_gpus":7}"#,
            br#"{"nonsense":{"eq":1}}"#,
            br#"{"limit":-1}"#,
            br#"{"allocated_storage":1e300}"#,
            br#"{"order":[["dph_total","sideways"]]}"#,
            br#"{"type":"stolen"}"#,
        ] {
            is("POST", "/api/v0/bundles/", body, 400, "invalid_request");
        }
        for q in [
            "%7B",
            "[]",
            "%7B%22nonsense%22:1%7D",
            "%7B%22limit%22:0.5%7D",
        ] {
            let path = format!("/vastai/offers?api_token=at_x&q={q}");
            is("GET", &path, b"", 400, "invalid_request");
            is(
                "GET",
                &format!("/api/v0/bundles?q={q}"),
                b"",
                400,
                "invalid_request",
            );
        }
        let asks = format!("/api/v0/asks/{offer}/");
        for (price, code) in [
            ("-1", "invalid_price"),
            ("0", "invalid_price"),
            ("1e300", "invalid_price"),
            ("\"NaN\"", "invalid_args"),
            ("[]", "invalid_args"),
        ] {
            let body = format!(r#"{{"offer_id":{offer},"image":"a:1","price":{price}}}"#);
            is("PUT", &asks, body.as_bytes(), 400, code);
            is(
                "POST",
                "/vastai/bids?api_token=at_x",
                body.as_bytes(),
                400,
                code,
            );
        }
        for more in [
            "\"disk\":-8",
            "\"disk\":1e300",
            "\"image\":7",
            "\"label\":{}",
            "\"image\":null",
        ] {
            let body = format!(r#"{{"offer_id":{offer},"image":"a:1",{more}}}"#);
            is("PUT", &asks, body.as_bytes(), 400, "invalid_args");
            let path = "/vastai/instances?api_token=at_x";
            is("POST", path, body.as_bytes(), 400, "invalid_args");
        }
        let one = br#"{"image":"a:1"}"#;
        is("PUT", "/api/v0/asks/18446744073709551616/", one, 404, "");
        is("PUT", "/api/v0/asks/-1/", one, 404, "");
        is(
            "PUT",
            "/api/v0/instances/bid_price/9/",
            br#"{"price":-1}"#,
            404,
            "no_such_instance",
        );
        is(
            "DELETE",
            "/api/v0/instances/9/",
            b"{}",
            404,
            "no_such_instance",
        );
        is(
            "DELETE",
            "/api/v0/instances/",
            br#"{"instance_ids":"9"}"#,
            400,
            "invalid_args",
        );
        let listing = "/api/v0/machines/create_asks/";
        is("PUT", listing, br#"{"machine":9,"price_gpu":1}"#, 403, "");
        for (price, code) in [
            ("-1", "invalid_price"),
            ("1e300", "invalid_price"),
            ("{}", "invalid_args"),
        ] {
            let terms = format!(r#"{{"machine":{machine},"price_gpu":{price}}}"#);
            is("PUT", listing, terms.as_bytes(), 400, code);
        }
        let transfer = br#"{"recipient":"9","amount":-1}"#;
        is(
            "PUT",
            "/api/v0/commands/transfer_credit/",
            transfer,
            400,
            "",
        );
        let order = "/api/v1/instances/?order_by=%7B%22col%22:1%7D";
        is("GET", order, b"", 400, "invalid_request");
        is(
            "GET",
            "/api/v1/instances/?after_token=!",
            b"",
            400,
            "invalid_token",
        );
        for path in [
            "/api/v0/../v0/users/current/",
            "/api/v0//users/current/",
            "/api/v0/users%2Fcurrent/",
            "/api/v0/users/current/%00",
            "/vastai/../api/v0/users/current/",
            "/vastai/offers/../users/me?api_token=at_x",
            "/../../../../etc/passwd",
            "/api/v0/instances/..%2F..%2Fusers%2Fcurrent/",
            "/results/..%2F..%2Fetc%2Fpasswd",
        ] {
            is("GET", path, b"", 404, "");
        }
        is(
            "POST",
            "/api/v0/bundles/",
            &vec![b' '; BODY_MAX + 1],
            413,
            "",
        );
        bad
    }

    #[tokio::test]
    async fn bad_requests_are_refused_and_leave_the_market_as_it_was() {
        let running = running("none", &[]).await;
        let (offer, machine) = running.server.with_market(|market| {
            let offers = market.offers(0, crate::types::offer::Market::Bid, 8.0);
            let account = market.account_for("at_x");
            let machines = serde_json::json!(market.machines_of(account));
            (
                offers.iter().find(|row| row.rentable).unwrap().id,
                machines[0]["machine_id"].as_u64().unwrap(),
            )
        });
        let before = seen(&running).await;
        let mut wrong = Vec::new();
        for (method, path, body, status, words) in bad_requests(offer, machine) {
            let mut request = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                 Authorization: Bearer at_x\r\nContent-Length: {}\r\n\r\n",
                body.len()
            )
            .into_bytes();
            request.extend_from_slice(&body);
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            stream.write_all(&request).await.unwrap();
            let mut answer = Vec::new();
            // A server that refuses a body may close before all of it was sent.
            let closed = stream.read_to_end(&mut answer).await;
            assert!(closed.is_ok() || status == 413);
            let answer = String::from_utf8_lossy(&answer);
            let shown = String::from_utf8_lossy(&body[..body.len().min(100)]);
            let expected = format!("HTTP/1.1 {status}");
            if !answer.starts_with(&expected) || !answer.contains(words) {
                wrong.push(format!("{method} {path} {shown}: {answer}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(seen(&running).await, before);
        running.stop.send(()).unwrap();
        running.task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        let running = running("none", &[]).await;
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let length = BODY_MAX + 1;
        let head = format!(
            "POST /vastai/bids HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b' '; length]).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413");
    }

    #[tokio::test]
    async fn a_request_that_hangs_gets_no_answer_and_does_not_keep_the_server() {
        let running = running("none", &[(1, Fault::TimeoutAfter)]).await;
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let request = b"GET /vastai/users/me?api_token=at_x HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request).await.unwrap();
        while running.server.with_faults(|faults| faults.requests()) == 0 {
            tokio::task::yield_now().await;
        }
        // Another connection is answered meanwhile; the first has nothing to read.
        let other = running.get("/vastai/users/me?api_token=at_x").await;
        assert!(other.starts_with("HTTP/1.1 200"));
        let nothing = stream.try_read(&mut [0; 1]).unwrap_err();
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
        running.stop.send(()).unwrap();
        running.task.await.unwrap().unwrap();
    }
}
