//! Backtests: deadline policies on recorded traces, beside the least that they could have cost.
//!
//! Nothing here reads files, clocks or threads: the command does, and hands in what it read. A
//! [`Sweep`] is cut into [`Batch`]es that are independent of each other.

mod chance;
mod optimum;
pub mod past;
mod replay;
mod series;
mod summary;
mod sweep;
#[cfg(test)]
mod tests;
mod trouble;
mod windows;

pub use optimum::Optimizer;
pub use replay::{Outcome, Step, Tick, replay, replay_seen};
pub use series::{Series, SeriesError, TICK_SECONDS};
pub use summary::{Interval, over_optimum};
pub use sweep::{Batch, Played, Prices, Sweep};
pub use trouble::Trouble;
pub use windows::{Asked, Suite, Window, WindowError};
