//! Real daemons on a served market whose time runs fast: what watches them, and what becomes of what they
//! rented.

#![allow(clippy::unwrap_used)]

mod support;

mod guard;
mod paths;
mod watching;
