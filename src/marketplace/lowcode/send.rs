//! Sending: limits, retries of reads, and the two forms of URL.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::LowCode;
use super::routes::{Family, Form};
use super::wire::{Answer, Single};
use crate::marketplace::operation::{Operation, PlainId, Wire};
use crate::marketplace::rows::Num;
use crate::marketplace::sending::{Retries, shown};
use crate::ports::{ReadError, Reply, Request, TransportError};

/// The names under which an answer about one thing holds it.
const SINGLE_NAMES: [&str; 14] = [
    "instances",
    "instance",
    "bid",
    "bids",
    "offers",
    "offer",
    "machines",
    "machine",
    "templates",
    "template",
    "invoices",
    "invoice",
    "results",
    "user",
];

/// An id for a path.
pub(super) fn place(id: u64) -> Result<PlainId, ReadError> {
    PlainId::number(id).ok_or(ReadError::Unsupported("look up that id"))
}

/// Why there is no reply.
pub(super) enum Unsent {
    /// The path has no place for the id, or there is no id: it would have acted on something else.
    NoPlace,
    /// The marketplace asked for silence for so long.
    Silenced(Duration),
    /// The transport failed.
    Failed(TransportError),
}

impl LowCode {
    /// Sends one request, once, when the limits allow it.
    pub(super) async fn send(
        &self,
        operation: Operation,
        id: Option<&PlainId>,
        form: Form,
        query: &[(String, String)],
        body: Option<Bytes>,
    ) -> Result<Reply, Unsent> {
        self.discover().await;
        let route = operation.route(Wire::Gateway).ok_or(Unsent::NoPlace)?;
        let (path, mut pairs) = self
            .routes
            .target(operation, id, form)
            .ok_or(Unsent::NoPlace)?;
        let gate = operation.gate();
        self.limits
            .admit(gate)
            .await
            .map_err(|too_long| Unsent::Silenced(too_long.0))?;
        pairs.extend_from_slice(query);
        // Exactly once: the gateway fails on a repeated token.
        pairs.push((
            "api_token".to_owned(),
            self.token.expose_secret().to_owned(),
        ));
        let request = Request {
            method: route.method,
            path,
            query: pairs,
            bearer: None,
            body,
        };
        let reply = self
            .transport
            .send(request)
            .await
            .map_err(|error| Unsent::Failed(shown(&self.redactor, error)))?;
        if reply.status == 429 {
            let told = Answer::read(&reply).retry_after(&reply, self.clock.now());
            let wait = self.limits.throttled(gate, told);
            tracing::debug!(operation = operation.name(), ?wait, "too many requests");
        } else {
            self.limits.passed(gate);
        }
        Ok(reply)
    }

    /// Sends a read, and again where it found nobody or met a server's error. What comes back has a
    /// status under 500 and is not a throttling.
    pub(super) async fn read(
        &self,
        operation: Operation,
        id: Option<&PlainId>,
        form: Form,
        query: &[(String, String)],
    ) -> Result<Reply, ReadError> {
        let call = self.reads.fetch_add(1, Ordering::Relaxed);
        let mut retries = Retries::new(self.read_retries, self.jitter_seed ^ call);
        loop {
            let error = match self.send(operation, id, form, query, None).await {
                Ok(reply) if reply.status == 429 => self.throttled(&reply),
                Ok(reply) if reply.status >= 500 => self.failed(&Answer::read(&reply)),
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

    /// Reads what has no id in its path, so that both forms of its URL are the same.
    pub(super) async fn read_plain(
        &self,
        operation: Operation,
        query: &[(String, String)],
    ) -> Result<Reply, ReadError> {
        self.read(operation, None, Form::New, query).await
    }

    /// Reads one thing by id, in the form of URL that works, and learns which that is.
    pub(super) async fn read_by_id(
        &self,
        operation: Operation,
        id: &PlainId,
        query: &[(String, String)],
    ) -> Result<Answer, ReadError> {
        self.discover().await;
        let family = Family::of(operation);
        let known = self.dialect.known(family);
        match known
            .or_else(|| self.routes.hint(operation))
            .unwrap_or(Form::New)
        {
            Form::New => {
                let answer = self.read_in(operation, id, Form::New, query).await?;
                if !answer.is_unrouted() {
                    self.learn_new(family, &answer);
                    return Ok(answer);
                }
                self.dialect.forget(family);
                let answer = self.read_in(operation, id, Form::Old, query).await?;
                self.learn_old(family, &answer, id);
                Ok(answer)
            }
            Form::Old => {
                let old = self.read_in(operation, id, Form::Old, query).await?;
                if self.learn_old(family, &old, id) || old.is_unauthorized() {
                    return Ok(old);
                }
                // It may not exist. Or the gateway knows only the new form by now and took the
                // placeholder's name for the id: then the new form answers.
                let new = self.read_in(operation, id, Form::New, query).await?;
                if new.is_unrouted() {
                    if old.is_unrouted() {
                        self.dialect.forget(family);
                    }
                    return Ok(old);
                }
                self.learn_new(family, &new);
                Ok(new)
            }
        }
    }

    async fn read_in(
        &self,
        operation: Operation,
        id: &PlainId,
        form: Form,
        query: &[(String, String)],
    ) -> Result<Answer, ReadError> {
        let reply = self.read(operation, Some(id), form, query).await?;
        Ok(Answer::read(&reply))
    }

    /// The new form is proven by any answer of the provider: the gateway matched the path.
    fn learn_new(&self, family: Family, answer: &Answer) {
        if !answer.is_unauthorized() {
            self.dialect
                .learn(family, Form::New, self.clock.monotonic());
        }
    }

    /// The old form is proven only by the very thing that was asked for.
    fn learn_old(&self, family: Family, answer: &Answer, id: &PlainId) -> bool {
        let proven = answer.is_success() && names(family, answer, id);
        if proven {
            self.dialect
                .learn(family, Form::Old, self.clock.monotonic());
        }
        proven
    }

    /// What a reply of 429 means to a reader.
    pub(super) fn throttled(&self, reply: &Reply) -> ReadError {
        let told = Answer::read(reply).retry_after(reply, self.clock.now());
        ReadError::Throttled {
            retry_after: told.unwrap_or(Duration::from_secs(2)),
        }
    }

    fn failed(&self, answer: &Answer) -> ReadError {
        ReadError::Failed {
            status: answer.status,
            message: answer.show(&self.redactor),
        }
    }

    /// Refuses what is no successful answer to a read.
    pub(super) fn check(&self, answer: &Answer, can: &'static str) -> Result<(), ReadError> {
        if answer.is_unauthorized() {
            Err(ReadError::Unauthorized {
                status: answer.status,
                message: answer.show(&self.redactor),
            })
        } else if answer.is_unrouted() {
            Err(ReadError::Unsupported(can))
        } else if answer.is_success() {
            Ok(())
        } else if answer.says_failed() || !(200..300).contains(&answer.status) {
            Err(self.failed(answer))
        } else {
            Err(ReadError::Malformed(answer.show(&self.redactor)))
        }
    }
}

/// Whether an answer is about the thing of this id. Rows also name other things by theirs, so that
/// only a family's own names count.
fn names(family: Family, answer: &Answer, id: &PlainId) -> bool {
    let keys: &[&str] = match family {
        Family::Offers => &["id", "ask_contract_id"],
        Family::Bids => &["id", "bid_id"],
        Family::Machines => &["id", "machine_id"],
        Family::Templates => &["id", "hash_id"],
        Family::Instances
        | Family::Invoices
        | Family::Users
        | Family::Balance
        | Family::SshKeys => &["id"],
    };
    let Single::Row(row) = answer.single(&SINGLE_NAMES) else {
        return false;
    };
    keys.iter().filter_map(|key| row.get(key)).any(|value| {
        let number = Num::deserialize(value).ok().and_then(Num::id);
        value.as_str() == Some(id.as_str())
            || number.is_some_and(|number| number.to_string() == id.as_str())
    })
}
