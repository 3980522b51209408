//! Sends to several channels side by side, each within a time limit: none holds up another.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::{Id, JoinSet};

use super::courier::Courier;
use super::{Unsent, within};
use crate::ports::Clock;
use crate::types::time::Time;

/// What is being sent.
pub struct Sending {
    /// The clock of this machine: receivers take real time, whatever clock the daemon goes by.
    clock: Arc<dyn Clock>,
    under_way: JoinSet<Result<(), Unsent>>,
    outlets: HashMap<Id, usize>,
}

impl Sending {
    /// Nothing yet. `clock` is that of this machine.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            under_way: JoinSet::new(),
            outlets: HashMap::new(),
        }
    }

    /// Begins what is due.
    pub fn begin(&mut self, courier: &mut Courier, now: Time) {
        for errand in courier.begin(now) {
            let clock = Arc::clone(&self.clock);
            let sent = self.under_way.spawn(async move {
                within(clock.as_ref(), errand.sender.as_ref(), &errand.message).await
            });
            self.outlets.insert(sent.id(), errand.outlet);
        }
    }

    /// Which channel was told next, and what came of it; `None`: nothing is being sent.
    pub async fn next(&mut self) -> Option<(usize, Result<(), Unsent>)> {
        loop {
            let (id, sent) = match self.under_way.join_next_with_id().await? {
                Ok(sent) => sent,
                Err(error) => {
                    let why = Unsent::for_now(format!("sending failed within haggle: {error}"));
                    (error.id(), Err(why))
                }
            };
            if let Some(outlet) = self.outlets.remove(&id) {
                return Some((outlet, sent));
            }
        }
    }

    /// Sends all that is due, until nothing is.
    pub async fn all(&mut self, courier: &mut Courier, now: impl Fn() -> Time) {
        loop {
            self.begin(courier, now());
            match self.next().await {
                Some((outlet, sent)) => courier.ended(outlet, sent, now()),
                None => return,
            }
        }
    }
}
