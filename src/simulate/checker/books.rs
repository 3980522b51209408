//! The market's charge rows against its own exact books.

use std::collections::BTreeSet;

use crate::market::Market;
use crate::types::money::Money;
use crate::types::time::Time;

/// Half a unit of the last decimal of a charge row's amount, in nano-dollars; nothing at nine.
fn half_unit(decimals: u32) -> i64 {
    10_i64.pow(9_u32.saturating_sub(decimals)) / 2
}

/// What the rows of these instances come to in all, and what is wrong with them.
pub(super) fn compared(
    market: &Market,
    account: u64,
    ours: &BTreeSet<u64>,
    decimals: u32,
) -> (Money, Vec<String>) {
    let exact = market.exact_days(account);
    let (mut billed, mut wrong) = (Money::ZERO, Vec::new());
    for row in market.charges(account, Time(0), market.now()) {
        let id = row
            .source
            .strip_prefix("instance-")
            .and_then(|id| id.parse().ok())
            .filter(|id| ours.contains(id));
        let Some(id) = id else { continue };
        let amount = Money::from_dollars(row.amount).unwrap_or_default();
        billed += amount;
        let start = Time((row.start * 1000.0).round() as i64);
        let Some(bill) = exact.get(&(id, start)) else {
            wrong.push(format!("a charge row of instance {id} is of no day"));
            continue;
        };
        // Where each item is rounded by itself, the row may be off by as many halves.
        let halves = row.items.len().max(1) as i64;
        let off = (amount.0 - bill.total().0).abs();
        if off > half_unit(decimals) * halves {
            wrong.push(format!(
                "a charge row of instance {id} is {amount}, its use {}",
                bill.total()
            ));
        }
    }
    (billed, wrong)
}
