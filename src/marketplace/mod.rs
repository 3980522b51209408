//! Clients of the marketplace: everything that knows how it is spoken to.
//!
//! [`http`] sends one request and brings one reply; [`limits`] keeps to the marketplace's rates;
//! [`redact`] keeps secrets out of every text that leaves this module; `rows` reads the
//! marketplace's own JSON rows, whoever delivers them; [`operation`] is the table of every operation;
//! [`lowcode`] is the client of the LowCodeAPI gateway, [`vast`] that of Vast's own API. Both read the
//! same answers: `answer` takes one apart, `searching`, `listed` and `bill` put pages together,
//! `rental` and `sending` are what requests have in common; [`by_hand`] runs any one operation.

mod answer;
mod bill;
pub mod by_hand;
pub mod counted;
pub(crate) mod filters;
pub mod http;
pub mod limits;
mod listed;
pub mod lowcode;
pub mod operation;
pub mod redact;
mod rental;
pub mod rows;
mod searching;
mod sending;
mod sifted;
#[cfg(test)]
pub(crate) mod testing;
pub mod vast;
