//! What is shown of haggle, as documents: the command line's JSON, the HTTP API and the page are made
//! of these, so that they say the same.
//!
//! All of it is made from values; nothing here reads a database or a clock. Amounts are decimal
//! strings in dollars with the unit in the name, times are RFC 3339 in UTC.

pub(crate) mod address;
pub(crate) mod attempts;
pub(crate) mod board;
pub(crate) mod instances;
pub(crate) mod jobs;
pub(crate) mod limits;
pub(crate) mod plan;
pub(crate) mod rented;
pub(crate) mod sentence;
pub(crate) mod shown;
pub(crate) mod which;
pub(crate) mod words;
