//! One operation by hand: what came of it, for a person who asked for just that.

use std::time::Duration;

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::answer::Answer;
use super::operation::{Operation, Prepared, Wire};
use super::redact::Redactor;
use super::sending::shown;
use crate::ports::{ReadError, RefusedWhy, Request, Transport, TransportError};
use crate::types::ids::InstanceId;
use crate::types::time::Time;

/// What came of one operation. It has no `Debug`: an answer holds secrets.
pub enum ByHand {
    /// It did what was asked; the answer, out of its envelope and not yet redacted.
    Done(Value),
    /// A read failed.
    Failed(ReadError),
    /// A change did not take effect.
    Refused {
        /// Why.
        why: RefusedWhy,
        /// What the marketplace said, redacted.
        message: String,
        /// An instance that it left behind all the same.
        leftover: Option<InstanceId>,
    },
    /// Nobody knows whether a change took effect.
    Unknown(String),
}

/// Runs an operation by the marketplace's own format, once.
///
/// # Errors
/// None; that it cannot be sent is one of the outcomes.
pub async fn native(
    transport: &dyn Transport,
    token: &SecretString,
    redactor: &Redactor,
    operation: Operation,
    prepared: &Prepared,
    now: Time,
) -> ByHand {
    let Some(route) = operation.route(Wire::Native) else {
        return ByHand::Failed(ReadError::Unsupported("do this in its own format"));
    };
    let request = Request {
        method: route.method,
        path: prepared.native_path(route),
        query: prepared.query.clone(),
        bearer: Some(token.expose_secret().to_owned()),
        body: body(prepared),
    };
    match transport.send(request).await {
        Ok(reply) => {
            let answer = Answer::read(&reply);
            let told = answer.retry_after(&reply, now);
            judge(operation, &answer, told, redactor)
        }
        Err(error) => unsent(operation, &error, redactor),
    }
}

/// The body as it is sent.
pub(super) fn body(prepared: &Prepared) -> Option<Bytes> {
    let body = prepared.body.clone()?;
    Some(Bytes::from(Value::from(body).to_string()))
}

/// What a failed transport means.
pub(super) fn unsent(operation: Operation, error: &TransportError, redactor: &Redactor) -> ByHand {
    let message = redactor.show(&error.to_string());
    match error {
        _ if !operation.changes() => {
            ByHand::Failed(ReadError::Unreachable(shown(redactor, error.clone())))
        }
        TransportError::Connect(_) => ByHand::Refused {
            why: RefusedWhy::NotSent,
            message,
            leftover: None,
        },
        TransportError::Broken(_) | TransportError::Timeout(_) => ByHand::Unknown(message),
    }
}

/// What an answer means; `told` is how long it asks for silence.
pub(super) fn judge(
    operation: Operation,
    answer: &Answer,
    told: Option<Duration>,
    redactor: &Redactor,
) -> ByHand {
    let message = answer.show(redactor);
    if answer.is_success() {
        return ByHand::Done(answer.payload().cloned().unwrap_or_default());
    }
    if operation.changes() {
        if answer.is_open() {
            return ByHand::Unknown(message);
        }
        return ByHand::Refused {
            why: answer.refused_why(),
            message,
            leftover: answer.new_contract(),
        };
    }
    let status = answer.status;
    ByHand::Failed(if answer.is_throttled() {
        ReadError::Throttled {
            retry_after: told.unwrap_or(Duration::from_secs(2)),
        }
    } else if answer.is_unauthorized() {
        ReadError::Unauthorized { status, message }
    } else if answer.is_unrouted() {
        ReadError::Unsupported("do this: it knows no such path")
    } else if (200..300).contains(&status) && !answer.says_failed() {
        ReadError::Malformed(message)
    } else {
        ReadError::Failed { status, message }
    })
}
