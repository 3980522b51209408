//! The marketplace's own JSON rows, read into our types.
//!
//! Whoever delivers them, the gateway or the provider itself, the rows are the provider's. They are
//! read leniently where a field does not matter (what cannot be read is unknown) and strictly where
//! money or identity hangs on it: then the row is malformed, and set aside alone.

mod charge;
mod instance;
mod lenient;
mod offer;
mod told;

pub(crate) use charge::touches;
pub use charge::{ChargeRows, charges};
pub(crate) use instance::{INSTANCE_FIELDS, row_id};
pub use instance::{InstanceRow, instance};
pub use lenient::{Flag, Ints, Num, Text};
pub use offer::{GpuNames, OfferRow, SearchRows, offer, search_rows};
pub use told::{Payment, machine_report, notification, payment, price_increase};

/// Why a row was set aside: the field that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRow(
    /// The field, or what is wrong with the row as a whole.
    pub &'static str,
);
