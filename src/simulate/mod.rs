//! Simulation: the real daemon code against the embedded marketplace, with faults and crashes in
//! virtual time, watched by a checker that knows nothing of the daemon's books.
//!
//! A seed draws everything. What fails prints its seed, and the seed replays it.

mod checker;
mod rig;
mod scenario;

pub use checker::Checker;
pub use rig::{
    Adapters, FixedPolicies, MakeMarketplace, MakeStore, PlaySecrets, Rig, TellStore, Way,
};
pub use scenario::{Outcome, Path, Scenario, TOKEN, run};
