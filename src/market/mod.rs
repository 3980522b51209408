//! The embedded marketplace: a deterministic stand-in for the real one.
//!
//! [`Market`] is a state machine in market time. It does no I/O and reads no clock; everything
//! random follows from its seed, and moving on in one step or in many gives the same market.

mod api;
mod containers;
mod contract;
mod credit;
mod deliveries;
mod dice;
pub mod disputed;
mod estate;
pub mod exec;
pub mod faults;
mod generate;
mod handed_on;
mod hosts;
mod life;
mod machine;
mod meter;
mod models;
mod native;
mod notices;
mod offered;
pub mod offers_file;
mod operations;
mod ops;
mod played;
mod query;
pub mod raw;
mod records;
mod restart;
mod rivals;
pub mod router;
mod routes;
pub mod server;
mod sim;
mod spoil;
#[cfg(test)]
mod tests;
pub mod transport;
mod view;
mod wire;

pub use api::{
    AtWork, CreateParams, Created, ExactBill, Happening, Inside, MarketError, MarketEvent,
    MarketOptions, Payments, Rented, Standing, Started,
};
pub use contract::{RUN_FOR, SELF_DESTROY};
pub use disputed::{Disputed, DisputedError};
pub use models::compute_cap;
pub use played::{EXITS, HANGS_AFTER};
pub use raw::{Field, RawCharge, RawInstance, RawOffer, RawUser};
pub use router::{Envelope, Handled, MarketServer, Paths, Quirks, Wire, WireOptions};
pub use sim::Market;
