//! Asking the gateway what it can do: once, before its first use, and never as a condition of it.

use std::time::Duration;

use tokio::sync::Mutex;

use super::LowCode;
use super::describe::{Asked, describe};
use crate::types::time::Mono;

/// How long a gateway that did not answer is left alone with the question.
const AGAIN_AFTER: Duration = Duration::from_mins(10);

/// Whether the gateway was asked.
#[derive(Default)]
pub(super) struct Discovery(Mutex<State>);

#[derive(Default)]
enum State {
    /// Not yet.
    #[default]
    Unasked,
    /// It did not answer; again not before this moment.
    Waits(Mono),
    /// It answered.
    Settled,
}

impl LowCode {
    /// Asks the gateway to describe itself, where it was not asked yet and is to be. Whatever comes
    /// of it, the built-in paths serve for what it does not describe.
    pub(super) async fn discover(&self) {
        let Some(Discovery(state)) = &self.discovery else {
            return;
        };
        let mut state = state.lock().await;
        let due = match *state {
            State::Unasked => true,
            State::Waits(until) => self.clock.monotonic() >= until,
            State::Settled => false,
        };
        if !due {
            return;
        }
        *state = match describe(&*self.transport).await {
            Asked::Described(description) => {
                for operation in description.missing() {
                    tracing::info!(
                        operation = operation.name(),
                        "the gateway does not describe it"
                    );
                }
                self.routes.describe(*description);
                State::Settled
            }
            Asked::Undescribed => {
                tracing::debug!("the gateway has no description; the built-in paths are used");
                State::Settled
            }
            Asked::Unanswered(why) => {
                let why = self.redactor.show(&why);
                tracing::debug!("the gateway did not describe itself: {why}");
                State::Waits(self.clock.monotonic() + AGAIN_AFTER)
            }
        };
    }
}
