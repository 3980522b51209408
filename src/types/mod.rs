//! The vocabulary: plain values, no I/O, no clock.

pub mod deadline;
pub mod hex;
pub mod ids;
pub mod input;
pub mod instance;
pub mod intent;
pub mod job;
pub mod ledger;
pub mod limit;
pub mod machine;
pub mod money;
pub mod mutant;
pub mod notification;
pub mod offer;
pub mod past;
pub mod plan;
pub mod recourse;
pub mod schedule;
pub(crate) mod spelling;
pub mod start;
pub mod state;
pub mod telling;
pub mod time;
pub(crate) mod units;
pub mod world;
