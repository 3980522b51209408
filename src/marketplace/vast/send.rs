//! Sending: limits, retries of reads, and what an answer says of whether it is one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use secrecy::ExposeSecret;
use serde_json::Value;

use super::Vast;
use super::routes::Route;
use crate::marketplace::answer::Answer;
use crate::marketplace::rental::refused;
use crate::marketplace::sending::{Retries, shown};
use crate::ports::{Outcome, ReadError, RefusedWhy, Reply, Request, TransportError};

/// The marketplace has no such route, by status: it says so of routes it lost or never had.
const NOT_IMPLEMENTED: u16 = 501;

/// How long to stay silent after a throttled answer that does not say.
const SILENCE: Duration = Duration::from_secs(2);

/// A request, yet without its credential.
pub(super) struct Call {
    pub(super) route: Route,
    pub(super) query: Vec<(String, String)>,
    pub(super) body: Option<Value>,
}

impl Call {
    /// Without query or body.
    pub(super) fn to(route: Route) -> Self {
        Self {
            route,
            query: Vec::new(),
            body: None,
        }
    }

    /// With a body.
    pub(super) fn with(route: Route, body: Value) -> Self {
        Self {
            body: Some(body),
            ..Self::to(route)
        }
    }

    /// With a further pair in its query.
    pub(super) fn asking(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }
}

/// Why there is no reply.
enum Unsent {
    /// The id is none.
    NoPlace,
    /// The marketplace asked for silence for so long.
    Silenced(Duration),
    /// The transport failed.
    Failed(TransportError),
}

impl Vast {
    /// Sends one request, once, when the limits allow it.
    async fn send(&self, call: &Call) -> Result<Reply, Unsent> {
        let place = call.route.place().ok_or(Unsent::NoPlace)?;
        let gate = place.gate;
        self.limits
            .admit(gate)
            .await
            .map_err(|too_long| Unsent::Silenced(too_long.0))?;
        let request = Request {
            method: place.method,
            path: place.path,
            query: call.query.clone(),
            bearer: Some(self.token.expose_secret().to_owned()),
            body: call.body.as_ref().map(|body| Bytes::from(body.to_string())),
        };
        let sent = self.transport.send(request).await;
        let reply = sent.map_err(|error| Unsent::Failed(shown(&self.redactor, error)))?;
        if reply.status == 429 {
            let told = Answer::read(&reply).retry_after(&reply, self.clock.now());
            let wait = self.limits.throttled(gate, told);
            tracing::debug!(route = ?call.route, ?wait, "too many requests");
        } else {
            self.limits.passed(gate);
        }
        Ok(reply)
    }

    /// Sends a read, and again where it found nobody or met a server's error. What comes back has a
    /// status under 500, or says that there is no such route, and is not a throttling.
    pub(super) async fn read(&self, call: Call) -> Result<Reply, ReadError> {
        let number = self.reads.fetch_add(1, Ordering::Relaxed);
        let mut retries = Retries::new(self.read_retries, self.jitter_seed ^ number);
        loop {
            let error = match self.send(&call).await {
                Ok(reply) if reply.status == 429 => {
                    let told = Answer::read(&reply).retry_after(&reply, self.clock.now());
                    ReadError::Throttled {
                        retry_after: told.unwrap_or(SILENCE),
                    }
                }
                Ok(reply) if reply.status >= 500 && reply.status != NOT_IMPLEMENTED => {
                    self.failed(&Answer::read(&reply))
                }
                Ok(reply) => return Ok(reply),
                Err(Unsent::NoPlace) => return Err(ReadError::Unsupported("look up that id")),
                Err(Unsent::Silenced(retry_after)) => {
                    return Err(ReadError::Throttled { retry_after });
                }
                Err(Unsent::Failed(error)) => ReadError::Unreachable(error),
            };
            retries.wait(&*self.clock, error).await?;
        }
    }

    /// Sends a read whose answer is wanted only where it is a success.
    pub(super) async fn ask(&self, call: Call) -> Result<Answer, ReadError> {
        let answer = Answer::read(&self.read(call).await?);
        self.check(&answer)?;
        Ok(answer)
    }

    /// Sends a mutation, once. `Err` is what came of one that brought no answer to look at.
    pub(super) async fn mutate<T>(&self, call: Call) -> Result<Answer, Outcome<T>> {
        match self.send(&call).await {
            Ok(reply) => {
                let answer = Answer::read(&reply);
                if answer.is_throttled() {
                    return Err(refused(RefusedWhy::Throttled, self.words(&answer)));
                }
                Ok(answer)
            }
            Err(Unsent::NoPlace) => Err(refused(RefusedWhy::Invalid, "there is no id 0")),
            Err(Unsent::Silenced(wait)) => Err(refused(
                RefusedWhy::Throttled,
                format!("the marketplace asked for silence for {} s", wait.as_secs()),
            )),
            Err(Unsent::Failed(error @ TransportError::Connect(_))) => {
                Err(refused(RefusedWhy::NotSent, error.to_string()))
            }
            Err(Unsent::Failed(error)) => Err(Outcome::Unknown(error.to_string())),
        }
    }

    /// What an answer says, fit to be shown.
    pub(super) fn words(&self, answer: &Answer) -> String {
        answer.show(&self.redactor)
    }

    /// An answer as the error that it is.
    pub(super) fn failed(&self, answer: &Answer) -> ReadError {
        ReadError::Failed {
            status: answer.status,
            message: self.words(answer),
        }
    }

    /// Refuses what is no successful answer to a read. A 404 is not taken for an absence here: the
    /// marketplace answers it to bad keys as well.
    pub(super) fn check(&self, answer: &Answer) -> Result<(), ReadError> {
        if answer.is_unauthorized() {
            Err(ReadError::Unauthorized {
                status: answer.status,
                message: self.words(answer),
            })
        } else if answer.is_success() {
            Ok(())
        } else if answer.says_failed() || !(200..300).contains(&answer.status) {
            Err(self.failed(answer))
        } else {
            Err(ReadError::Malformed(self.words(answer)))
        }
    }

    /// Whether an answer is that of a route which this marketplace does not have.
    pub(super) fn is_missing_route(answer: &Answer) -> bool {
        let by_status = matches!(answer.status, 404 | 405 | NOT_IMPLEMENTED);
        // A 404 that says what is not there came from the route itself.
        by_status && !answer.is_unauthorized() && !answer.says("no_such_")
    }
}
