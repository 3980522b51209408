//! What bidding and choosing are worth: haggle and the rules that people use, on the same generated
//! markets, by what a useful GPU-hour costs.
//!
//! Everybody runs the same jobs on a market of the same seed. What is useful is reckoned by one meter that
//! looks at the market's own records, and costs are the market's own bill: no player's books count.

mod family;
mod jobs;
mod meter;
mod play;
mod rules;

pub use family::Family;
pub use jobs::jobs;
pub use meter::{Bound, Meter, Recovery, Way};
pub use play::{MakeAdapters, Match, Played, Player, play};
