//! The courier with receivers that take and refuse as told, and the time as told.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::types::telling::{Quiet, Way};

/// A morning in winter, 8:00 UTC.
const NOW: Time = Time(1_796_025_600_000);

const MINUTE: Duration = Duration::from_mins(1);

/// A receiver: what it took, and what it answers next, good unless something is here.
#[derive(Clone, Default)]
struct Receiver {
    took: Arc<Mutex<Vec<Message>>>,
    answers: Arc<Mutex<VecDeque<Unsent>>>,
}

impl Receiver {
    fn titles(&self) -> Vec<String> {
        let took = std::mem::take(&mut *self.took.lock().unwrap());
        took.into_iter().map(|message| message.title).collect()
    }

    fn refuse(&self, unsent: Unsent, times: usize) {
        let mut answers = self.answers.lock().unwrap();
        answers.extend(std::iter::repeat_n(unsent, times));
    }
}

#[async_trait]
impl Sender for Receiver {
    async fn send(&self, message: &Message) -> Result<(), Unsent> {
        if let Some(unsent) = self.answers.lock().unwrap().pop_front() {
            return Err(unsent);
        }
        self.took.lock().unwrap().push(message.clone());
        Ok(())
    }
}

type Table = BTreeMap<(String, String), (Time, Option<String>)>;

/// A memory that outlasts couriers.
#[derive(Clone, Default)]
struct Remembered(Arc<Mutex<Table>>);

impl Memory for Remembered {
    fn told(&mut self, channel: &str, key: &str) -> Option<Time> {
        let table = self.0.lock().unwrap();
        let row = table.get(&(channel.to_owned(), key.to_owned()));
        row.map(|(at, _)| *at)
    }

    fn queued(&mut self, channel: &str, key: &str, at: Time, body: &str) {
        let row = (at, Some(body.to_owned()));
        self.0
            .lock()
            .unwrap()
            .insert((channel.to_owned(), key.to_owned()), row);
    }

    fn settled(&mut self, channel: &str, key: &str) {
        if let Some(row) = self
            .0
            .lock()
            .unwrap()
            .get_mut(&(channel.to_owned(), key.to_owned()))
        {
            row.1 = None;
        }
    }

    fn pending(&mut self, channel: &str) -> Vec<String> {
        let table = self.0.lock().unwrap();
        let of = table.iter().filter(|((name, _), _)| name == channel);
        of.filter_map(|(_, (_, body))| body.clone()).collect()
    }

    fn forget(&mut self, before: Time) {
        self.0
            .lock()
            .unwrap()
            .retain(|_, (at, body)| *at >= before || body.is_some());
    }
}

struct Scene {
    channel: Channel,
    receiver: Receiver,
    memory: Remembered,
    counts: Arc<Mutex<BTreeMap<&'static str, usize>>>,
    courier: Courier,
}

fn channel() -> Channel {
    Channel {
        name: "phone".to_owned(),
        way: Way::Command {
            line: "true".to_owned(),
        },
        events: None,
        least: Severity::Info,
        per_hour: 20,
        quiet: None,
    }
}

impl Scene {
    fn new(channel: Channel) -> Self {
        let (receiver, memory) = (Receiver::default(), Remembered::default());
        let counts: Arc<Mutex<BTreeMap<&'static str, usize>>> = Arc::default();
        let courier = courier(&channel, &receiver, &memory, &counts);
        Self {
            channel,
            receiver,
            memory,
            counts,
            courier,
        }
    }

    /// Another process begins with what was remembered.
    fn restart(&mut self) {
        self.courier = courier(&self.channel, &self.receiver, &self.memory, &self.counts);
    }

    async fn tell(&mut self, message: &Message, now: Time) -> Vec<String> {
        self.courier.tell(message, now);
        self.deliver(now).await
    }

    async fn deliver(&mut self, now: Time) -> Vec<String> {
        self.courier.deliver(now).await;
        self.receiver.titles()
    }

    fn count(&self, outcome: &str) -> usize {
        self.counts
            .lock()
            .unwrap()
            .get(outcome)
            .copied()
            .unwrap_or(0)
    }
}

fn courier(
    channel: &Channel,
    receiver: &Receiver,
    memory: &Remembered,
    counts: &Arc<Mutex<BTreeMap<&'static str, usize>>>,
) -> Courier {
    let counts = Arc::clone(counts);
    let count: Count = Arc::new(move |_, outcome, n| {
        *counts.lock().unwrap().entry(outcome).or_default() += n;
    });
    Courier::new(
        vec![(channel.clone(), Box::new(receiver.clone()))],
        Box::new(memory.clone()),
        Tz::UTC,
        count,
    )
}

fn message(n: usize, kind: &str, severity: Severity, at: Time) -> Message {
    let title = format!("{kind} {n}");
    Message::new(title.clone(), at, kind, severity, &title, "a sentence")
}

#[tokio::test]
async fn the_same_is_told_once_also_after_a_restart() {
    let mut scene = Scene::new(channel());
    let failed = message(1, "failed", Severity::Alarm, NOW);
    let stuck = message(1, "destroy-stuck", Severity::Alarm, NOW);
    assert_eq!(scene.tell(&failed, NOW).await, ["failed 1"]);
    assert_eq!(scene.tell(&stuck, NOW).await, ["destroy-stuck 1"]);
    for hours in [0, 1, 11] {
        scene.restart();
        let later = NOW + Duration::from_hours(hours);
        assert!(scene.tell(&failed, later).await.is_empty());
        assert!(scene.tell(&stuck, later).await.is_empty());
    }
    // What stands is told again after half a day; what happened once is not.
    let later = NOW + Duration::from_hours(12);
    assert!(scene.tell(&failed, later).await.is_empty());
    assert_eq!(scene.tell(&stuck, later).await, ["destroy-stuck 1"]);
    assert_eq!(scene.count("delivered"), 3);
}

#[tokio::test]
async fn a_receiver_that_fails_is_tried_again_less_and_less_often() {
    let mut scene = Scene::new(channel());
    scene.receiver.refuse(Unsent::for_now("busy"), 3);
    assert!(
        scene
            .tell(&message(1, "failed", Severity::Alarm, NOW), NOW)
            .await
            .is_empty()
    );
    let mut tries = Vec::new();
    let mut now = NOW;
    for _ in 0..3 {
        let next = scene.courier.next_due(now).unwrap();
        tries.push(next.since(now).as_secs());
        assert!(
            scene
                .deliver(next - Duration::from_secs(1))
                .await
                .is_empty()
        );
        now = next;
        let took = scene.deliver(now).await;
        assert_eq!(took.len(), usize::from(tries.len() == 3), "{tries:?}");
    }
    assert_eq!(tries, [30, 60, 120]);
    assert_eq!((scene.count("failed"), scene.count("delivered")), (3, 1));
    assert_eq!(scene.courier.next_due(now), None);
}

#[tokio::test]
async fn a_receiver_that_says_when_is_not_tried_before() {
    let mut scene = Scene::new(channel());
    let wait = Duration::from_secs(900);
    let busy = Unsent {
        after: Some(wait),
        ..Unsent::for_now("429")
    };
    scene.receiver.refuse(busy, 1);
    scene
        .tell(&message(1, "failed", Severity::Alarm, NOW), NOW)
        .await;
    assert_eq!(scene.courier.next_due(NOW), Some(NOW + wait));
}

#[tokio::test]
async fn what_is_not_wanted_is_not_tried_again_and_holds_up_nothing() {
    let mut scene = Scene::new(channel());
    scene.receiver.refuse(Unsent::for_good("400"), 1);
    scene
        .courier
        .tell(&message(1, "failed", Severity::Alarm, NOW), NOW);
    let took = scene
        .tell(&message(2, "failed", Severity::Alarm, NOW), NOW)
        .await;
    assert_eq!(took, ["failed 2"]);
    assert_eq!(scene.count("refused"), 1);
}

#[tokio::test]
async fn a_receiver_that_stays_away_is_given_up_and_what_is_new_is_not() {
    let mut scene = Scene::new(channel());
    scene.receiver.refuse(Unsent::for_now("gone"), 1000);
    scene
        .tell(&message(1, "failed", Severity::Alarm, NOW), NOW)
        .await;
    let mut now = NOW;
    for _ in 0..100 {
        now = match scene.courier.next_due(now) {
            Some(next) => next,
            None => break,
        };
        scene.deliver(now).await;
    }
    assert_eq!(scene.count("gave-up"), 1);
    assert!(now.since(NOW) >= GIVE_UP_AFTER && now.since(NOW) < GIVE_UP_AFTER + HOUR * 2);
    assert!(scene.count("failed") < 40, "{}", scene.count("failed"));
    scene.receiver.answers.lock().unwrap().clear();
    let news = message(2, "failed", Severity::Alarm, now);
    scene.courier.tell(&news, now);
    let next = scene.courier.next_due(now).unwrap();
    assert_eq!(scene.deliver(next).await, ["failed 2"]);
    // Nor is it taken up by the next process.
    scene.restart();
    assert_eq!(scene.courier.next_due(now), None);
}

#[tokio::test]
async fn what_a_process_did_not_send_the_next_one_does() {
    let mut scene = Scene::new(channel());
    scene.receiver.refuse(Unsent::for_now("away"), 1);
    let mut job = message(1, "job-ended", Severity::Info, NOW);
    job.job = Some("train".parse().unwrap());
    assert!(scene.tell(&job, NOW).await.is_empty());
    scene.restart();
    scene.courier.deliver(NOW + MINUTE).await;
    assert_eq!(scene.receiver.took.lock().unwrap().as_slice(), [job]);
}

#[tokio::test]
async fn many_go_out_as_one_and_the_hour_has_its_limit() {
    let mut scene = Scene::new(Channel {
        per_hour: 3,
        ..channel()
    });
    for n in 0..40 {
        let severity = if n == 30 {
            Severity::Alarm
        } else {
            Severity::Warning
        };
        scene
            .courier
            .tell(&message(n, "failed", severity, NOW), NOW);
    }
    scene.courier.deliver(NOW).await;
    let took = std::mem::take(&mut *scene.receiver.took.lock().unwrap());
    assert_eq!(took.len(), 1);
    assert_eq!(
        (took[0].title.as_str(), took[0].severity),
        ("40 messages", Severity::Alarm)
    );
    // What matters most is read first.
    assert!(
        took[0]
            .text
            .starts_with("alarm: failed 30\nwarning: failed 0"),
        "{}",
        took[0].text
    );
    assert!(took[0].text.ends_with("and 25 more"), "{}", took[0].text);

    let mut now = NOW;
    let mut tell = async |n: usize| {
        now = now + MINUTE;
        scene
            .tell(&message(n, "failed", Severity::Warning, now), now)
            .await
    };
    assert_eq!(tell(100).await, ["failed 100"]);
    assert_eq!(tell(101).await, ["failed 101"]);
    for n in 102..105 {
        assert!(tell(n).await.is_empty());
    }
    // An hour after the first, what was held up goes out at once.
    let next = scene.courier.next_due(now).unwrap();
    assert_eq!(next, NOW + HOUR);
    let took = scene.deliver(next).await;
    assert_eq!(
        took,
        ["3 messages"],
        "the last that the hour allows takes all with it"
    );
    assert_eq!(scene.courier.next_due(next), None);
}

#[tokio::test]
async fn at_night_only_alarms_are_told() {
    let at = |hour| chrono::NaiveTime::from_hms_opt(hour, 0, 0).unwrap();
    let mut scene = Scene::new(Channel {
        quiet: Some(Quiet {
            from: at(7),
            to: at(9),
        }),
        ..channel()
    });
    assert!(
        scene
            .tell(&message(1, "limit-used", Severity::Warning, NOW), NOW)
            .await
            .is_empty()
    );
    let alarm = message(2, "failed", Severity::Alarm, NOW);
    assert_eq!(scene.tell(&alarm, NOW).await, ["failed 2"]);
    let nine = NOW + HOUR;
    assert_eq!(scene.courier.next_due(NOW + MINUTE), Some(nine));
    assert!(scene.deliver(nine - MINUTE).await.is_empty());
    assert_eq!(scene.deliver(nine).await, ["limit-used 1"]);
}

#[tokio::test]
async fn a_queue_that_is_full_keeps_its_alarms() {
    let mut scene = Scene::new(channel());
    scene.receiver.refuse(Unsent::for_now("away"), 1);
    scene
        .tell(&message(0, "failed", Severity::Alarm, NOW), NOW)
        .await;
    for n in 1..=QUEUE_MAX + 5 {
        scene
            .courier
            .tell(&message(n, "failed", Severity::Warning, NOW), NOW);
    }
    assert_eq!(scene.count("dropped"), 6);
    let outlet = &scene.courier.outlets[0];
    assert_eq!(outlet.queue.len(), QUEUE_MAX);
    assert!(outlet.has_alarm());
}

#[tokio::test]
async fn a_clock_that_was_set_back_neither_holds_up_nor_repeats_for_ever() {
    let mut scene = Scene::new(channel());
    let stuck = message(1, "destroy-stuck", Severity::Alarm, NOW);
    scene.tell(&stuck, NOW).await;
    let before = NOW - Duration::from_hours(48);
    assert_eq!(scene.tell(&stuck, before).await, ["destroy-stuck 1"]);
    assert!(scene.tell(&stuck, before + MINUTE).await.is_empty());
}
