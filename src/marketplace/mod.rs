//! Clients of the marketplace: everything that knows how it is spoken to.
//!
//! [`http`] sends one request and brings one reply; [`limits`] keeps to the marketplace's rates;
//! [`redact`] keeps secrets out of every text that leaves this module; `rows` reads the
//! marketplace's own JSON rows, whoever delivers them; [`lowcode`] is the client of the LowCodeAPI
//! gateway.

pub mod counted;
pub(crate) mod filters;
pub mod http;
pub mod limits;
pub mod lowcode;
pub mod redact;
pub mod rows;
#[cfg(test)]
pub(crate) mod testing;
