//! Simulation: the real daemon code against the embedded marketplace, with faults and crashes in
//! virtual time, watched by a checker that knows nothing of the daemon's books.
//!
//! A seed draws everything. What fails prints its seed, and the seed replays it.

mod checker;
mod drawn;
mod fate;
mod jobs;
mod rig;
mod scenario;
mod sweep;
mod turn;

pub use checker::Checker;
pub use fate::{Hazards, MarketTime};
pub use rig::{
    Adapters, AuditLedger, FillDisk, FixedPolicies, MakeMarketplace, MakeStore, PlaySecrets, Rig,
    TellStore, Watch, Way,
};
pub use scenario::{Outcome, Path, START, Scenario, TOKEN, run, run_watched};
pub use sweep::{Failed, Sweep, Totals};
pub use turn::{Others, Policy, Turn};
