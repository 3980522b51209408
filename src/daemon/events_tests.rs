//! What is told is taken once, wakes the tick, and does not storm.

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::SecretString;
use sha2::Sha256;

use super::*;
use crate::clock::SimClock;
use crate::daemon::metrics::Metrics;
use crate::daemon::webhook::Webhook;

const NOW: Time = Time(1_795_500_000_000);
const SECRET: &str = "whsec_play";

fn notification(id: &str, kind: NotificationKind) -> Notification {
    Notification {
        id: id.to_owned(),
        kind,
        at: Some(NOW),
        instance: None,
        machine: None,
        winning_bid: None,
        text: String::new(),
    }
}

struct Endpoint {
    webhook: Webhook,
    mailbox: Arc<Mailbox>,
    metrics: Arc<Metrics>,
}

impl Endpoint {
    fn new() -> Self {
        let (mailbox, metrics) = (Arc::new(Mailbox::default()), Arc::new(Metrics::new()));
        let webhook = Webhook::new(
            SecretString::from(SECRET),
            Arc::new(SimClock::new(NOW)),
            Arc::clone(&mailbox),
            Arc::clone(&metrics),
            Arc::new(|text| text.replace("hunter2", "[redacted]")),
        );
        Self {
            webhook,
            mailbox,
            metrics,
        }
    }

    fn deliver(&self, timestamp: &str, body: &str) -> StatusCode {
        self.deliver_signed(timestamp, body, &sign(timestamp, body))
    }

    fn deliver_signed(&self, timestamp: &str, body: &str, signature: &str) -> StatusCode {
        let mut headers = HeaderMap::new();
        headers.insert("x-vast-timestamp", timestamp.parse().unwrap());
        headers.insert("x-vast-signature-256", signature.parse().unwrap());
        self.webhook
            .receive(&headers, Some(&Bytes::copy_from_slice(body.as_bytes())))
    }

    fn counted(&self, outcome: &str) -> bool {
        self.metrics
            .render()
            .contains(&format!("outcome=\"{outcome}\",way=\"webhook\"}} 1"))
    }
}

fn sign(timestamp: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{timestamp}.{body}").as_bytes());
    let digest = mac.finalize().into_bytes();
    let mut signature = "sha256=".to_owned();
    for byte in digest {
        signature.push_str(&format!("{byte:02x}"));
    }
    signature
}

const OUTBID: &str = r#"{"event_id":"e1","user_id":7,"notif_type":"outbid","subject":"Outbid",
    "message":"hunter2 was\noutbid","timestamp":1795500000}"#;
const AT: &str = "1795500000";

#[test]
fn the_signature_is_the_one_that_is_documented() {
    // Reckoned with another implementation of HMAC-SHA-256.
    assert_eq!(
        sign("1", "{}"),
        "sha256=b61b6d18553274056dfbe7f279dd8ff391b927cdac522d9870ddabf1640ae667"
    );
}

#[test]
fn a_signed_delivery_is_taken_once_and_its_text_is_redacted() {
    let endpoint = Endpoint::new();
    assert_eq!(endpoint.deliver(AT, OUTBID), StatusCode::NO_CONTENT);
    assert_eq!(endpoint.deliver(AT, OUTBID), StatusCode::NO_CONTENT);
    let told = endpoint.mailbox.take();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].notification.kind, NotificationKind::Outbid);
    assert_eq!(told[0].notification.text, "Outbid: [redacted] was outbid");
    assert!(endpoint.counted("new") && endpoint.counted("duplicate"));
}

#[test]
fn a_delivery_repeated_under_another_unsigned_id_is_no_other_event() {
    let endpoint = Endpoint::new();
    for body in [
        r#"{"notif_type":"outbid","subject":"Outbid"}"#,
        r#"{"event_id":"","notif_type":"outbid","subject":"Outbid!"}"#,
    ] {
        for id in ["a", "b", ""] {
            let mut headers = HeaderMap::new();
            headers.insert("x-vast-timestamp", AT.parse().unwrap());
            headers.insert("x-vast-signature-256", sign(AT, body).parse().unwrap());
            headers.insert("x-vast-event-id", id.parse().unwrap());
            let body = Bytes::copy_from_slice(body.as_bytes());
            let answer = endpoint.webhook.receive(&headers, Some(&body));
            assert_eq!(answer, StatusCode::NO_CONTENT);
        }
        assert_eq!(endpoint.mailbox.take().len(), 1, "{body}");
    }
}

#[test]
fn what_is_not_signed_or_not_recent_is_refused_alike() {
    let endpoint = Endpoint::new();
    let refused = StatusCode::UNAUTHORIZED;
    let good = sign(AT, OUTBID);
    for bad in [
        "",
        "sha256=",
        "sha256=00",
        "sha256=zz",
        &good[7..],
        &good[..good.len() - 2],
    ] {
        assert_eq!(endpoint.deliver_signed(AT, OUTBID, bad), refused, "{bad}");
    }
    assert_eq!(endpoint.deliver_signed(AT, "{}", &good), refused);
    assert_eq!(
        endpoint.deliver_signed("1795500001", OUTBID, &good),
        refused
    );
    // 301 s early and late; "NaN" is a number to some.
    for time in ["1795499699", "1795500301", "NaN", "soon", "-1"] {
        assert_eq!(endpoint.deliver(time, OUTBID), refused, "{time}");
    }
    assert_eq!(
        endpoint
            .webhook
            .receive(&HeaderMap::new(), Some(&Bytes::new())),
        refused
    );
    assert!(endpoint.mailbox.take().is_empty());
    assert_eq!(
        endpoint.deliver("1795499701", OUTBID),
        StatusCode::NO_CONTENT
    );
}

#[test]
fn unknown_kinds_are_taken_and_what_cannot_be_read_is_not() {
    let endpoint = Endpoint::new();
    let other = r#"{"event_id":5,"notif_type":"client:gpu_idle","extra":[1]}"#;
    assert_eq!(endpoint.deliver(AT, other), StatusCode::NO_CONTENT);
    assert_eq!(
        endpoint.mailbox.take()[0].notification.kind,
        NotificationKind::Other
    );
    for bad in [
        "",
        "[]",
        "{",
        r#"{"notif_type":"outbid"}"#,
        r#"{"event_id":"a"}"#,
        r#"{"event_id":{},"notif_type":1}"#,
    ] {
        assert_eq!(endpoint.deliver(AT, bad), StatusCode::BAD_REQUEST, "{bad}");
    }
    assert_eq!(
        endpoint.webhook.receive(&HeaderMap::new(), None),
        StatusCode::PAYLOAD_TOO_LARGE
    );
}

#[test]
fn a_full_mailbox_turns_away_what_may_come_again() {
    let mailbox = Mailbox::default();
    let put = |n: usize| mailbox.put(notification(&n.to_string(), NotificationKind::Other), NOW);
    assert!((0..WAITING_MAX).all(|n| put(n) == Taken::New));
    assert_eq!(put(WAITING_MAX), Taken::Full);
    mailbox.take();
    assert_eq!(
        put(WAITING_MAX),
        Taken::New,
        "a second delivery is no duplicate"
    );
    assert_eq!(put(0), Taken::Duplicate);
    // Memory is bounded: the oldest ids are forgotten first.
    for n in 0..2 * REMEMBERED {
        put(WAITING_MAX + 1 + n);
        mailbox.take();
    }
    let inner = mailbox.lock();
    assert_eq!(
        (inner.seen.len(), inner.order.len()),
        (REMEMBERED, REMEMBERED)
    );
}

#[test]
fn a_storm_of_events_is_no_storm_of_ticks() {
    let mut spacing = Spacing::default();
    let mut ticks = Vec::new();
    // Something urgent every tenth of a second, for five minutes.
    for now in (0..300_000).step_by(100).map(Mono) {
        if spacing.wait(now).is_zero() {
            spacing.take(now);
            spacing.ticked(now);
            ticks.push(now.0);
        }
    }
    assert!(
        ticks.windows(2).all(|pair| pair[1] - pair[0] >= 5000),
        "{ticks:?}"
    );
    assert!(
        ticks.windows(7).all(|run| run[6] - run[0] >= 60_000),
        "{ticks:?}"
    );
    assert!(ticks.len() >= 28, "and each is heard: {}", ticks.len());
}

#[test]
fn words_are_taken_by_what_they_speak_of() {
    use NotificationKind as Kind;
    for (word, kind) in [
        ("outbid", Kind::Outbid),
        ("client:outbid", Kind::Outbid),
        ("instance_stopped", Kind::Stopped),
        ("instance_offline", Kind::Offline),
        ("instance_online", Kind::Online),
        ("upcoming_downtime", Kind::Maintenance),
        ("client:low_credit", Kind::LowCredit),
        ("billing_failed", Kind::PaymentFailed),
        ("payment_receipt", Kind::Other),
        ("webhook_test", Kind::Other),
        ("", Kind::Other),
    ] {
        assert_eq!(Kind::from_word(word), kind, "{word}");
    }
}
