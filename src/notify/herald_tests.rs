//! The thread that tells: what reaches it, what it makes of a silent receiver, and of earlier processes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::*;
use crate::clock::{SimClock, SystemClock};
use crate::notify::testing::{self, Remembered};
use crate::notify::ways::email::Email;
use crate::notify::{Message, Sender, Unsent};
use crate::types::state::Severity;
use crate::types::telling::{Mail, MailTls};
use crate::types::time::{Mono, Time};

const NOW: Time = testing::NOW;

fn event(kind: &str, at: Time) -> Event {
    Event {
        at,
        severity: Severity::Warning,
        kind: kind.to_owned(),
        replica: None,
        instance: None,
        text: "it is gone".to_owned(),
    }
}

fn lost() -> Change {
    Change::Event(event("lost", NOW))
}

fn nothing() -> Count {
    Arc::new(|_, _, _| {})
}

#[test]
fn the_loop_waits_for_nobody_and_what_has_no_room_is_counted() {
    let dropped = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&dropped);
    let count: Count = Arc::new(move |channel, outcome, n| {
        assert_eq!((channel, outcome), (OVERFLOW, "dropped"));
        *counted.lock().unwrap() += n;
    });
    let (facts, _nobody_takes_any) = mpsc::channel(FACTS_MAX);
    let mut herald = Herald {
        facts,
        count,
        full: false,
        store: None,
    };
    for _ in 0..FACTS_MAX + 88 {
        herald.committed(&[lost()]);
    }
    assert_eq!(*dropped.lock().unwrap(), 88);
}

/// Keeps what it is told, and tells whoever waits for it.
#[derive(Clone, Default)]
struct Taken {
    took: Arc<Mutex<Vec<Message>>>,
    told: Arc<Notify>,
}

impl Taken {
    fn kinds(&self) -> Vec<String> {
        let took = self.took.lock().unwrap();
        took.iter().map(|message| message.kind.clone()).collect()
    }
}

#[async_trait]
impl Sender for Taken {
    async fn send(&self, message: &Message) -> Result<(), Unsent> {
        self.took.lock().unwrap().push(message.clone());
        self.told.notify_one();
        Ok(())
    }
}

fn with(memory: &Remembered, channels: Vec<(&str, Arc<dyn Sender>)>, count: Count) -> Start {
    let clock: Arc<dyn Clock> = Arc::new(SimClock::new(NOW));
    let named = |(name, sender): (&str, Arc<dyn Sender>)| (testing::channel(name), sender);
    let courier = Courier::new(
        channels.into_iter().map(named).collect(),
        Box::new(memory.clone()),
        chrono_tz::Tz::UTC,
        Arc::clone(&count),
        NOW,
    );
    Start {
        courier,
        clock,
        machine: Arc::new(SystemClock::new()),
        before: Vec::new(),
        count,
    }
}

/// What a process tells that begins with these events of earlier ones, sees `facts`, and ends.
fn told(
    memory: &Remembered,
    before: Vec<Event>,
    facts: impl FnOnce(&mut Herald, &Telling),
) -> Vec<String> {
    let taken = Taken::default();
    let mut begin = with(memory, vec![("phone", Arc::new(taken.clone()))], nothing());
    begin.before = before;
    let (mut herald, telling) = start(begin).unwrap();
    facts(&mut herald, &telling);
    drop(herald);
    telling.finish(Duration::from_secs(60));
    taken.kinds()
}

#[test]
fn what_was_put_in_is_told_before_the_end() {
    let memory = Remembered::default();
    let took = told(&memory, Vec::new(), |herald, _| herald.committed(&[lost()]));
    assert_eq!(took, ["lost"]);
}

#[test]
fn that_no_room_was_missed_is_shown_from_the_beginning() {
    let zero = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&zero);
    let count: Count = Arc::new(move |channel, outcome, n| {
        seen.fetch_or(
            (channel, outcome, n) == (OVERFLOW, "dropped", 0),
            Ordering::SeqCst,
        );
    });
    let (herald, telling) = start(with(&Remembered::default(), Vec::new(), count)).unwrap();
    drop(herald);
    telling.finish(Duration::from_secs(60));
    assert!(zero.load(Ordering::SeqCst));
}

#[test]
fn a_database_that_fails_and_an_end_that_nobody_asked_for_are_told_from_memory() {
    let mut memory = Remembered::default();
    memory.fail();
    let took = told(&memory, Vec::new(), |herald, telling| {
        // It is tried again and again, and that is told once.
        for _ in 0..3 {
            herald.store_failed(Some(&StoreError::Full));
        }
        herald.store_failed(None);
        herald.store_failed(Some(&StoreError::Full));
        telling.ended(Some("spending stops: the disk is full".to_owned()));
    });
    assert_eq!(took, ["store-failed", "daemon-ended"]);
}

#[test]
fn what_a_process_did_not_come_to_tell_the_next_one_does() {
    let memory = Remembered::default();
    let ago = |minutes| NOW - Duration::from_mins(minutes);
    // A channel that is new is not told of what was before it.
    assert!(told(&memory, vec![event("lost", ago(9))], |_, _| {}).is_empty());
    memory.begun_at(ago(60));
    let before = vec![
        event("adopted", ago(90)),
        event("lost", ago(9)),
        event("cannot-start", ago(8)),
        // Each tick shows whether it still is so.
        event("secrets-withheld", ago(7)),
    ];
    assert_eq!(
        told(&memory, before.clone(), |_, _| {}),
        ["lost", "cannot-start"]
    );
    assert!(told(&memory, before, |_, _| {}).is_empty(), "once");
}

/// A clock that stands still, and on which nobody wakes before it is let go.
#[derive(Default)]
struct Gate {
    open: AtomicBool,
    opened: Notify,
}

#[async_trait]
impl Clock for Gate {
    fn now(&self) -> Time {
        NOW
    }
    fn monotonic(&self) -> Mono {
        Mono(0)
    }
    async fn sleep_until(&self, _: Time) {
        while !self.open.load(Ordering::SeqCst) {
            self.opened.notified().await;
        }
    }
}

/// A mail server that takes connections and says nothing.
#[tokio::test]
async fn a_receiver_that_is_silent_holds_up_nobody_and_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mail = Mail {
        host: "127.0.0.1".to_owned(),
        port,
        tls: MailTls::Off,
        login: None,
        from: "haggle@example.org".to_owned(),
        to: vec!["me@example.org".to_owned()],
    };
    let (phone, failed) = (Taken::default(), Arc::new(Notify::new()));
    let heard = Arc::clone(&failed);
    let count: Count = Arc::new(move |channel, outcome, n| {
        if (channel, outcome, n) == ("mail", "failed", 1) {
            heard.notify_one();
        }
    });
    let gate = Arc::new(Gate::default());
    let email: Arc<dyn Sender> = Arc::new(Email::new(&mail, None).unwrap());
    let mut begin = with(
        &Remembered::default(),
        vec![("mail", email), ("phone", Arc::new(phone.clone()))],
        count,
    );
    begin.machine = gate.clone();
    begin.clock = Arc::new(Gate::default());
    let (facts, taken) = mpsc::channel(FACTS_MAX);
    let telling = tokio::spawn(run(taken, begin));
    facts.send(Fact::Event(event("lost", NOW))).await.unwrap();
    // The mail server has the connection, and is waited for.
    let _connection = listener.accept().await.unwrap();
    phone.told.notified().await;
    facts
        .send(Fact::Event(event("adopted", NOW)))
        .await
        .unwrap();
    phone.told.notified().await;
    assert_eq!(phone.kinds(), ["lost", "adopted"]);
    // And now the time is over.
    gate.open.store(true, Ordering::SeqCst);
    gate.opened.notify_waiters();
    failed.notified().await;
    drop(facts);
    telling.await.unwrap();
}
