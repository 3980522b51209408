//! The ways on which messages go out. Each knows its receiver's format and keeps its own time limit.

pub mod command;
pub mod email;
pub mod post;

use std::time::Duration;

use serde_json::{Value, json};

use super::{Message, severity_word};
use crate::types::ids::JobName;

/// How long one message may take on its way.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// A message as a document, for programs.
fn document(message: &Message) -> Value {
    json!({
        "at": message.at.to_string(),
        "kind": message.kind,
        "severity": severity_word(message.severity),
        "title": message.title,
        "text": message.text,
        "job": message.job.as_ref().map(JobName::as_str),
        "replica": message.replica.as_ref().map(|replica| replica.index),
        "instance": message.instance.map(|instance| instance.0),
    })
}
