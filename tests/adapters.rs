//! What the daemon reaches the world by: both clients of the marketplace, and the database.

mod gateway;
mod native;
mod store;
