//! What an account keeps: keys, templates, webhooks, the inbox.

use super::routes::Operation;
use super::{Call, not_here};
use crate::market::api::MarketError;
use crate::market::sim::Market;

/// Performs an operation of this family.
pub(super) fn perform(
    _market: &mut Market,
    operation: Operation,
    _call: &Call<'_>,
) -> Result<String, MarketError> {
    Err(not_here(operation))
}
