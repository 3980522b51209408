//! From the loop to the courier: a bounded channel into which facts are put without waiting, and the
//! thread that takes them out.

use std::sync::Arc;
use std::sync::mpsc as done;
use std::time::Duration;

use tokio::sync::mpsc;

use super::courier::{Count, Courier};
use super::facts::{Fact, Tick};
use super::rules::Rules;
use super::sending::Sending;
use crate::daemon::{Observer, TickView};
use crate::ports::{Clock, StoreError};
use crate::types::state::{Change, Event};
use crate::types::telling::AGAIN_AFTER;

/// Facts that may wait to be looked at. Receivers do not hold up who looks at them; a database that is
/// locked may.
const FACTS_MAX: usize = 512;

/// What counts facts for which there was no room, as a channel's name.
pub const OVERFLOW: &str = "all";

/// Puts what the loop does into the channel.
pub struct Herald {
    facts: mpsc::Sender<Fact>,
    count: Count,
    full: bool,
    /// Why the database cannot be written, as it was told last.
    store: Option<String>,
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

    fn store_failed(&mut self, error: Option<&StoreError>) {
        let why = error.map(ToString::to_string);
        if self.store != why {
            self.store.clone_from(&why);
            self.put(Fact::Store(why));
        }
    }

    fn ticked(&mut self, view: &TickView<'_>) {
        self.put(Fact::Tick(Box::new(Tick::of(view))));
    }
}

/// The thread that tells, to be waited for at the end.
pub struct Telling {
    done: done::Receiver<()>,
    facts: mpsc::Sender<Fact>,
}

impl Telling {
    /// Tells that the daemon has ended; why, where nobody asked it to.
    pub fn ended(&self, why: Option<String>) {
        if self.facts.try_send(Fact::End(why)).is_err() {
            tracing::warn!("that haggle has ended is not told");
        }
    }

    /// Waits until what can be sent was sent, or for so long. What is left is sent by the next process.
    pub fn finish(self, within: Duration) {
        let Self { done, facts } = self;
        drop(facts);
        // An error is that it has ended, or that the time is over.
        let _ = done.recv_timeout(within);
    }
}

/// What the thread that tells begins with.
pub struct Start {
    /// The channels.
    pub courier: Courier,
    /// The daemon's clock.
    pub clock: Arc<dyn Clock>,
    /// The clock of this machine.
    pub machine: Arc<dyn Clock>,
    /// Events of earlier processes, the oldest first: what was not told of them is told.
    pub before: Vec<Event>,
    /// Counts messages.
    pub count: Count,
}

/// A herald for the loop, and the thread that does the rest. It ends when the herald is gone and the
/// end is waited for.
///
/// # Errors
/// The system gives no thread, or no event loop.
pub fn start(start: Start) -> std::io::Result<(Herald, Telling)> {
    let (facts, taken) = mpsc::channel(FACTS_MAX);
    let (ended, done) = done::channel();
    let count = Arc::clone(&start.count);
    // What has not happened yet is shown as 0.
    count(OVERFLOW, "dropped", 0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("notify".to_owned())
        .spawn(move || {
            runtime.block_on(run(taken, start));
            // Nobody need be waiting.
            let _ = ended.send(());
        })?;
    let herald = Herald {
        facts: facts.clone(),
        count,
        full: false,
        store: None,
    };
    Ok((herald, Telling { done, facts }))
}

/// What happened next to who tells.
enum Next {
    Fact(Option<Fact>),
    Sent(usize, Result<(), super::Unsent>),
    Due,
}

/// Takes facts, and sends what is due, until no more facts can come.
async fn run(mut facts: mpsc::Receiver<Fact>, start: Start) {
    let Start {
        mut courier,
        clock,
        machine,
        before,
        ..
    } = start;
    let mut rules = Rules::default();
    let now = clock.now();
    rules.resume(courier.told_since(now - AGAIN_AFTER), now);
    for message in before.iter().filter_map(|event| rules.missed(event)) {
        courier.catch_up(&message, now);
    }
    let mut sending = Sending::new(machine);
    loop {
        sending.begin(&mut courier, clock.now());
        let next = courier.next_due(clock.now());
        let due = async {
            match next {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let next = tokio::select! {
            biased;
            fact = facts.recv() => Next::Fact(fact),
            Some((outlet, sent)) = sending.next() => Next::Sent(outlet, sent),
            () = due => Next::Due,
        };
        match next {
            Next::Fact(None) => break,
            Next::Fact(Some(fact)) => take(fact, &mut rules, &mut courier, clock.as_ref()),
            Next::Sent(outlet, sent) => courier.ended(outlet, sent, clock.now()),
            Next::Due => {}
        }
        while let Ok(fact) = facts.try_recv() {
            take(fact, &mut rules, &mut courier, clock.as_ref());
        }
    }
    sending.all(&mut courier, || clock.now()).await;
}

fn take(fact: Fact, rules: &mut Rules, courier: &mut Courier, clock: &dyn Clock) {
    let now = clock.now();
    let messages = match fact {
        Fact::Event(event) => vec![rules.event(&event)],
        Fact::Tick(tick) => rules.tick(&tick),
        Fact::Store(why) => rules.store(why.as_deref(), now).into_iter().collect(),
        Fact::End(why) => vec![rules.ended(why.as_deref(), now)],
    };
    for message in messages {
        courier.tell(&message, now);
    }
}

#[cfg(test)]
#[path = "herald_tests.rs"]
mod tests;
