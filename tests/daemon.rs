//! The daemon on the embedded market, in one process and mostly in virtual time.

#![allow(clippy::unwrap_used)]

mod support;

mod arrays;
mod cheapest;
mod deadlines;
mod loss;
mod money;
mod planner;
mod secrets;
mod starts;
