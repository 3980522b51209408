//! Sends notifications to webhooks: at least once, signed, as the marketplace documents it. Only a
//! market that serves real connections does; in a simulation nothing is sent.

use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::records::Delivery;
use super::router::MarketServer;
use super::wire;
use crate::net::install_crypto;

/// How long a receiver may take, as documented.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked for what waits. Market time moves on with it.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long is waited before each further attempt. The marketplace does not say.
const WAITS: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(20),
];
/// So many events of the market are remembered.
const EVENTS_MAX: usize = 1_000_000;
/// Where so many are taken up and not delivered yet, no further ones are taken up.
const UNDER_WAY_MAX: usize = 1000;
/// So many deliveries are under way at a time.
const AT_ONCE: usize = 32;

/// Delivers what waits until the server ends; what is under way then is dropped.
pub(super) async fn run(server: Arc<MarketServer>, ending: watch::Receiver<bool>) {
    run_with(server, ending, WAITS).await;
}

async fn run_with(
    server: Arc<MarketServer>,
    mut ending: watch::Receiver<bool>,
    waits: [Duration; 3],
) {
    install_crypto();
    let client = Client::builder()
        .timeout(TIMEOUT)
        // A redirect is a failure for good.
        .redirect(Policy::none())
        .no_proxy()
        .referer(false)
        .build();
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            tracing::warn!(%error, "webhooks are not served");
            return;
        }
    };
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut under_way = JoinSet::new();
    loop {
        // The rest waits where the oldest is forgotten when there is too much.
        let has_room = under_way.len() < UNDER_WAY_MAX;
        let waiting = server.with_market(|market| {
            market.forget_events(EVENTS_MAX);
            if has_room {
                market.take_deliveries()
            } else {
                Vec::new()
            }
        });
        for delivery in waiting {
            let (server, client, room) = (Arc::clone(&server), client.clone(), Arc::clone(&room));
            under_way.spawn(async move {
                // It is never closed.
                let _place = room.acquire().await;
                deliver(&server, &client, &delivery, waits).await;
            });
        }
        while under_way.try_join_next().is_some() {}
        // Whoever could say that it ends may be gone: that ends it, too.
        let ended = tokio::time::timeout(LOOK_EVERY, ending.wait_for(|ending| *ending)).await;
        if ended.is_ok() {
            break;
        }
    }
    under_way.shutdown().await;
}

/// Attempts a delivery until it is accepted, refused for good, or tried often enough.
#[expect(
    clippy::disallowed_methods,
    reason = "receivers are real, and so is the time between attempts"
)]
async fn deliver(
    server: &MarketServer,
    client: &Client,
    delivery: &Delivery,
    waits: [Duration; 3],
) {
    let waits = waits.iter().map(Some).chain([None]);
    for (attempt, wait) in (1_u32..).zip(waits) {
        let timestamp = server.now().0.div_euclid(1000);
        let sent = client
            .post(&delivery.url)
            .header("Content-Type", wire::JSON)
            .header("X-Vast-Event-Id", &delivery.event_id)
            .header("X-Vast-Delivery-Attempt", attempt)
            .header("X-Vast-Timestamp", timestamp)
            .header("X-Vast-Signature-256", delivery.signature(timestamp))
            .body(delivery.body.clone())
            .send()
            .await;
        // What never came to a status may come to one later.
        let again = sent.map_or(true, |reply| is_retried(reply.status()));
        match wait {
            Some(wait) if again && delivery.retried => tokio::time::sleep(*wait).await,
            _ => return,
        }
    }
}

/// Whether a receiver's answer is tried again, as documented.
fn is_retried(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429) || status.is_server_error()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::Router;
    use axum::extract::State;
    use axum::http::{HeaderMap, StatusCode};
    use serde_json::{Value, json};
    use sha2::Sha256;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::clock::SimClock;
    use crate::market::faults::Faults;
    use crate::market::{Market, MarketOptions, WireOptions};
    use crate::ports::Clock;

    type Received = (HeaderMap, String);

    #[derive(Clone)]
    struct Receiver {
        statuses: Arc<Mutex<Vec<u16>>>,
        received: mpsc::UnboundedSender<Received>,
    }

    /// Takes what comes and answers with the statuses in turn, then with 200.
    async fn take(State(to): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
        to.received.send((headers, body)).unwrap();
        let status = to.statuses.lock().unwrap().pop().unwrap_or(200);
        StatusCode::from_u16(status).unwrap()
    }

    struct World {
        server: Arc<MarketServer>,
        account: u64,
        secret: String,
        webhook: u64,
        received: mpsc::UnboundedReceiver<Received>,
        _ends: watch::Sender<bool>,
    }

    /// A market whose account has a webhook to a receiver that first answers with these statuses.
    async fn world(statuses: &[u16]) -> World {
        let (sender, received) = mpsc::unbounded_channel();
        let receiver = Receiver {
            statuses: Arc::new(Mutex::new(statuses.iter().rev().copied().collect())),
            received: sender,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let router = Router::new().fallback(take).with_state(receiver);
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });

        let clock: Arc<dyn Clock> = Arc::new(SimClock::new(MarketOptions::default().start));
        let mut market = Market::generated(MarketOptions {
            machines: Some(1),
            ..MarketOptions::default()
        });
        let account = market.account_for("at_one");
        let fields = json!({"webhook_url": url, "event_types": ["client:outbid"]});
        let now = market.now();
        let webhooks = market.records(account).unwrap().webhooks();
        let made = webhooks.add(now, fields.as_object().unwrap()).unwrap();
        let shown = made.shown_with_secret(account);
        let secret = shown["webhook_secret"].as_str().unwrap().to_owned();
        let options = WireOptions::default();
        let server = Arc::new(MarketServer::new(market, options, Faults::none(), clock));
        let (ends, ending) = watch::channel(false);
        let waits = [Duration::ZERO; 3];
        tokio::spawn(run_with(Arc::clone(&server), ending, waits));
        World {
            server,
            account,
            secret,
            webhook: made.id,
            received,
            _ends: ends,
        }
    }

    impl World {
        fn notify(&self, kind: &'static str) {
            self.server.with_market(|market| {
                market.notify(self.account, kind, "words".to_owned(), json!({"a": 1}));
            });
        }
    }

    fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
        headers[name].to_str().unwrap()
    }

    #[tokio::test]
    async fn an_event_comes_signed_until_it_is_accepted() {
        use hmac::{Hmac, KeyInit, Mac};
        let mut world = world(&[503, 429]).await;
        // Nobody asked for the first.
        world.notify("instance_started");
        world.notify("outbid");
        for attempt in ["1", "2", "3"] {
            let (headers, body) = world.received.recv().await.unwrap();
            assert_eq!(text(&headers, "x-vast-delivery-attempt"), attempt);
            assert_eq!(text(&headers, "content-type"), "application/json");
            let event: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(text(&headers, "x-vast-event-id"), event["event_id"]);
            assert_eq!(event["notif_type"], "outbid");
            assert_eq!(event["user_id"], world.account);
            assert_eq!(event["data"], json!({"a": 1}));
            let stamp = text(&headers, "x-vast-timestamp");
            assert_eq!(stamp, "1795478400", "market time");
            let mut mac = Hmac::<Sha256>::new_from_slice(world.secret.as_bytes()).unwrap();
            mac.update(format!("{stamp}.{body}").as_bytes());
            let digits: Vec<String> = mac
                .finalize()
                .into_bytes()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let expected = format!("sha256={}", digits.concat());
            assert_eq!(text(&headers, "x-vast-signature-256"), expected);
        }
        world.notify("outbid");
        let (headers, _) = world.received.recv().await.unwrap();
        assert_eq!(
            text(&headers, "x-vast-delivery-attempt"),
            "1",
            "the first was accepted"
        );
    }

    #[tokio::test]
    async fn a_refusal_is_for_good_and_a_test_is_sent_once() {
        let mut world = world(&[400, 307, 500]).await;
        for _ in 0..2 {
            world.notify("outbid");
            let (headers, _) = world.received.recv().await.unwrap();
            assert_eq!(text(&headers, "x-vast-delivery-attempt"), "1");
        }
        let (account, webhook) = (world.account, world.webhook);
        world.server.with_market(|market| {
            let now = market.now();
            let webhooks = market.records(account).unwrap().webhooks();
            webhooks.test(now, webhook).unwrap();
        });
        let (_, body) = world.received.recv().await.unwrap();
        let event: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&event["notif_type"], &event["data"]),
            (&json!("webhook_test"), &Value::Null)
        );
        world.notify("outbid");
        let (headers, body) = world.received.recv().await.unwrap();
        assert!(
            body.contains("outbid"),
            "neither a refusal nor the test came again"
        );
        assert_eq!(text(&headers, "x-vast-delivery-attempt"), "1");
    }

    #[test]
    fn what_is_tried_again() {
        for (status, again) in [
            (200, false),
            (302, false),
            (404, false),
            (408, true),
            (429, true),
            (500, true),
            (503, true),
        ] {
            assert_eq!(is_retried(StatusCode::from_u16(status).unwrap()), again);
        }
    }
}
