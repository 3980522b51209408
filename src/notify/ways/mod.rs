//! The ways on which messages go out. Each knows its receiver's format and keeps its own time limit.

pub mod command;
pub mod email;
pub mod post;

use std::time::Duration;

/// How long one message may take on its way.
pub const TIMEOUT: Duration = Duration::from_secs(10);
