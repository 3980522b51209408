//! From the loop to the courier: a bounded channel into which facts are put without waiting, and the
//! thread that takes them out.

use std::sync::Arc;
use std::sync::mpsc as done;
use std::time::Duration;

use tokio::sync::mpsc;

use super::courier::{Count, Courier};
use super::facts::{Fact, Tick};
use super::rules::Rules;
use crate::daemon::{Observer, TickView};
use crate::ports::Clock;
use crate::types::state::Change;

/// Facts that may wait to be looked at. A courier that is held up by its receivers misses what is more.
const FACTS_MAX: usize = 512;

/// What counts facts for which there was no room, as a channel's name.
pub const OVERFLOW: &str = "all";

/// Puts what the loop does into the channel.
pub struct Herald {
    facts: mpsc::Sender<Fact>,
    count: Count,
    full: bool,
}

impl Herald {
    /// Never waits: where there is no room, what happened is not told, and that is counted.
    fn put(&mut self, fact: Fact) {
        if self.facts.try_send(fact).is_ok() {
            self.full = false;
            return;
        }
        (self.count)(OVERFLOW, "dropped", 1);
        if !std::mem::replace(&mut self.full, true) {
            tracing::warn!("more happens than can be told; some of it is not");
        }
    }
}

impl Observer for Herald {
    fn committed(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Event(event) = change {
                self.put(Fact::Event(event.clone()));
            }
        }
    }

    fn ticked(&mut self, view: &TickView<'_>) {
        self.put(Fact::Tick(Box::new(Tick::of(view))));
    }
}

/// The thread that tells, to be waited for at the end.
pub struct Telling {
    done: done::Receiver<()>,
}

impl Telling {
    /// Waits until what can be sent was sent, or for so long. What is left is sent by the next process.
    pub fn finish(self, within: Duration) {
        // An error is that it has ended, or that the time is over.
        let _ = self.done.recv_timeout(within);
    }
}

/// A herald for the loop, and the thread that does the rest. It ends when the herald is gone.
///
/// # Errors
/// The system gives no thread, or no event loop.
pub fn start(
    courier: Courier,
    clock: Arc<dyn Clock>,
    count: Count,
) -> std::io::Result<(Herald, Telling)> {
    let (facts, taken) = mpsc::channel(FACTS_MAX);
    let (ended, done) = done::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("notify".to_owned())
        .spawn(move || {
            runtime.block_on(run(taken, courier, clock));
            // Nobody need be waiting.
            let _ = ended.send(());
        })?;
    let herald = Herald {
        facts,
        count,
        full: false,
    };
    Ok((herald, Telling { done }))
}

/// Takes facts, and sends what is due, until no more facts can come.
async fn run(mut facts: mpsc::Receiver<Fact>, mut courier: Courier, clock: Arc<dyn Clock>) {
    let mut rules = Rules::default();
    loop {
        let next = courier.next_due(clock.now());
        let due = async {
            match next {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let fact = tokio::select! {
            biased;
            fact = facts.recv() => match fact {
                Some(fact) => Some(fact),
                None => break,
            },
            () = due => None,
        };
        if let Some(fact) = fact {
            take(fact, &mut rules, &mut courier, clock.as_ref());
            while let Ok(fact) = facts.try_recv() {
                take(fact, &mut rules, &mut courier, clock.as_ref());
            }
        }
        courier.deliver(clock.now()).await;
    }
    courier.deliver(clock.now()).await;
}

fn take(fact: Fact, rules: &mut Rules, courier: &mut Courier, clock: &dyn Clock) {
    let now = clock.now();
    let messages = match fact {
        Fact::Event(event) => vec![Rules::event(&event)],
        Fact::Tick(tick) => rules.tick(&tick),
    };
    for message in messages {
        courier.tell(&message, now);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::clock::SystemClock;
    use crate::notify::{Memory, Message, Sender, Unsent};
    use crate::types::state::{Event, Severity};
    use crate::types::telling::{Channel, Way};
    use crate::types::time::Time;

    fn lost() -> Change {
        Change::Event(Event {
            at: Time(1),
            severity: Severity::Warning,
            kind: "lost".to_owned(),
            replica: None,
            instance: None,
            text: "it is gone".to_owned(),
        })
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
        };
        for _ in 0..FACTS_MAX + 88 {
            herald.committed(&[lost()]);
        }
        assert_eq!(*dropped.lock().unwrap(), 88);
    }

    struct Nothing;

    impl Memory for Nothing {
        fn told(&mut self, _: &str, _: &str) -> Option<Time> {
            None
        }
        fn queued(&mut self, _: &str, _: &str, _: Time, _: &str) {}
        fn settled(&mut self, _: &str, _: &str) {}
        fn pending(&mut self, _: &str) -> Vec<String> {
            Vec::new()
        }
        fn forget(&mut self, _: Time) {}
    }

    struct Taken(Arc<Mutex<Vec<String>>>);

    #[async_trait]
    impl Sender for Taken {
        async fn send(&self, message: &Message) -> Result<(), Unsent> {
            self.0.lock().unwrap().push(message.kind.clone());
            Ok(())
        }
    }

    #[test]
    fn what_was_put_in_is_told_before_the_end() {
        let took: Arc<Mutex<Vec<String>>> = Arc::default();
        let channel = Channel {
            name: "phone".to_owned(),
            way: Way::Command {
                line: String::new(),
            },
            events: None,
            least: Severity::Info,
            per_hour: 20,
            quiet: None,
        };
        let count: Count = Arc::new(|_, _, _| {});
        let courier = Courier::new(
            vec![(channel, Box::new(Taken(Arc::clone(&took))))],
            Box::new(Nothing),
            chrono_tz::Tz::UTC,
            Arc::clone(&count),
        );
        let clock = Arc::new(SystemClock::new());
        let (mut herald, telling) = start(courier, clock, count).unwrap();
        herald.committed(&[lost()]);
        drop(herald);
        telling.finish(Duration::from_secs(60));
        assert_eq!(*took.lock().unwrap(), ["lost"]);
    }
}
