//! The courier with receivers that take and refuse as told, and the time as told.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;

use super::super::sending::Sending;
use super::super::testing::{self, Remembered};
use super::*;
use crate::clock::SystemClock;
use crate::types::telling::Quiet;

const NOW: Time = testing::NOW;

const MINUTE: Duration = Duration::from_mins(1);

/// A receiver: what it took, and what it answers next, good unless something is here.
#[derive(Clone, Default)]
struct Receiver {
    took: Arc<Mutex<Vec<Message>>>,
    answers: Arc<Mutex<VecDeque<Unsent>>>,
    /// Texts that it never wants.
    unwanted: Arc<Mutex<Option<String>>>,
    /// The keys of all that was tried.
    tried: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    fn titles(&self) -> Vec<String> {
        let took = std::mem::take(&mut *self.took.lock().unwrap());
        took.into_iter().map(|message| message.title).collect()
    }

    fn not_wanted(&self, text: &str) {
        *self.unwanted.lock().unwrap() = Some(text.to_owned());
    }

    fn refuse(&self, unsent: Unsent, times: usize) {
        let mut answers = self.answers.lock().unwrap();
        answers.extend(std::iter::repeat_n(unsent, times));
    }
}

#[async_trait]
impl Sender for Receiver {
    async fn send(&self, message: &Message) -> Result<(), Unsent> {
        let tried = format!("{} {}", message.at.0, message.key);
        self.tried.lock().unwrap().push(tried);
        if let Some(unwanted) = self.unwanted.lock().unwrap().as_ref() {
            let lines = message.text.lines().chain([message.title.as_str()]);
            if lines.into_iter().any(|line| line.ends_with(unwanted)) {
                return Err(Unsent::for_good("400"));
            }
        }
        if let Some(unsent) = self.answers.lock().unwrap().pop_front() {
            return Err(unsent);
        }
        self.took.lock().unwrap().push(message.clone());
        Ok(())
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
    testing::channel("phone")
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
        deliver(&mut self.courier, now).await;
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
        vec![(channel.clone(), Arc::new(receiver.clone()))],
        Box::new(memory.clone()),
        Tz::UTC,
        count,
        NOW - HOUR * 48,
    )
}

async fn deliver(courier: &mut Courier, now: Time) {
    let machine = Arc::new(SystemClock::new());
    Sending::new(machine).all(courier, || now).await;
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
    deliver(&mut scene.courier, NOW + MINUTE).await;
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
    deliver(&mut scene.courier, NOW).await;
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
    assert!(outlet.queue.iter().any(|m| m.severity == Severity::Alarm));
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

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_mute_a_channel_that_failed() {
    let mut scene = Scene::new(channel());
    let busy = Unsent {
        after: Some(Duration::from_mins(20)),
        ..Unsent::for_now("429")
    };
    scene.receiver.refuse(busy, 1);
    let failed = message(1, "failed", Severity::Alarm, NOW);
    assert!(scene.tell(&failed, NOW).await.is_empty());
    // Ten hours back: what there was to wait is waited for once more, and no longer.
    let before = NOW - HOUR * 10;
    let after = before + Duration::from_mins(20);
    assert_eq!(scene.courier.next_due(before), Some(after));
    assert!(scene.deliver(before).await.is_empty());
    assert!(scene.deliver(before + MINUTE).await.is_empty());
    assert_eq!(scene.courier.next_due(before + MINUTE), Some(after));
    assert_eq!(scene.deliver(after).await, ["failed 1"]);
}

#[tokio::test]
async fn one_that_is_not_wanted_takes_no_other_along() {
    let mut scene = Scene::new(channel());
    // The receiver takes no message that has the seventh in it.
    scene.receiver.not_wanted("failed 7");
    for n in 0..40 {
        let message = message(n, "failed", Severity::Warning, NOW);
        scene.courier.tell(&message, NOW);
    }
    let took = scene.deliver(NOW).await;
    assert_eq!((scene.count("refused"), scene.count("delivered")), (1, 39));
    assert!(took.len() < 10, "{took:?}");
    assert_eq!(scene.courier.next_due(NOW), None);
}

#[tokio::test]
async fn what_is_tried_again_is_the_same_as_before() {
    let mut scene = Scene::new(channel());
    scene.receiver.refuse(Unsent::for_now("cut off"), 2);
    for n in 0..6 {
        let message = message(n, "failed", Severity::Warning, NOW);
        scene.courier.tell(&message, NOW);
    }
    scene.deliver(NOW).await;
    // More comes meanwhile, and waits for the next one.
    let more = message(9, "failed", Severity::Alarm, NOW + MINUTE);
    scene.courier.tell(&more, NOW + MINUTE);
    for minutes in [1, 3] {
        deliver(&mut scene.courier, NOW + MINUTE * minutes).await;
    }
    let tried = scene.receiver.tried.lock().unwrap().clone();
    assert_eq!(tried.len(), 4, "{tried:?}");
    assert!(tried[0] == tried[1] && tried[1] == tried[2], "{tried:?}");
    assert_eq!(scene.receiver.titles(), ["6 messages", "failed 9"]);
}

#[tokio::test]
async fn the_hour_holds_up_no_alarm() {
    let mut scene = Scene::new(Channel {
        per_hour: 2,
        ..channel()
    });
    let mut now = NOW;
    let mut tell = async |n: usize, severity: Severity| {
        now = now + Duration::from_secs(20);
        scene.tell(&message(n, "failed", severity, now), now).await
    };
    assert_eq!(tell(1, Severity::Warning).await, ["failed 1"]);
    assert_eq!(tell(2, Severity::Warning).await, ["failed 2"]);
    assert!(tell(3, Severity::Warning).await.is_empty());
    // Those over the limit go out together, once in a minute.
    assert!(tell(4, Severity::Alarm).await.is_empty());
    assert_eq!(tell(5, Severity::Alarm).await, ["2 messages"]);
    assert!(tell(6, Severity::Alarm).await.is_empty());
    let next = scene.courier.next_due(now).unwrap();
    assert_eq!(next, NOW + Duration::from_secs(100) + MINUTE);
    assert_eq!(scene.deliver(next).await, ["failed 6"]);
    assert!(scene.deliver(NOW + HOUR).await.is_empty());
    let next = scene.courier.next_due(next).unwrap();
    assert_eq!(scene.deliver(next).await, ["failed 3"]);
}

#[tokio::test]
async fn what_was_for_a_channel_that_is_no_more_is_for_nobody() {
    let mut scene = Scene::new(channel());
    scene.receiver.refuse(Unsent::for_now("away"), 1);
    let failed = message(1, "failed", Severity::Alarm, NOW);
    scene.tell(&failed, NOW).await;
    let phone = std::mem::replace(&mut scene.channel, testing::channel("mail"));
    scene.restart();
    scene.channel = phone;
    scene.restart();
    assert_eq!(scene.courier.next_due(NOW + HOUR), None);
}
