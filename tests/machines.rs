//! What runs on rented machines, and what it keeps: real processes, and real servers of storage.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail by panicking, and waits for real processes"
)]

#[cfg(target_os = "linux")]
#[path = "support/bench.rs"]
mod bench;
#[cfg(target_os = "linux")]
#[path = "support/processes.rs"]
mod processes;
#[path = "storage/server.rs"]
mod server;

mod inputs;
mod moves;
mod runner;
mod storage;
mod supervised;
