//! What the daemon reaches the world by: both clients of the marketplace, and the database.

#![allow(clippy::unwrap_used)]

mod gateway;
mod native;
mod store;
