//! The account, its bill, and its payments.

use serde::Deserialize;
use serde_json::json;

use super::Vast;
use super::routes::Route;
use super::send::Call;
use crate::marketplace::bill::{self, Bill};
use crate::marketplace::rows::{self, Num, Payment};
use crate::ports::{Charge, ReadError};
use crate::types::ids::AccountId;
use crate::types::instance::Account;
use crate::types::time::Time;

const DAY_MS: i64 = 86_400_000;

/// The marketplace's services by which money comes and goes.
const SERVICES: [&str; 8] = [
    "transfer",
    "stripe_payments",
    "bitpay",
    "coinbase",
    "crypto.com",
    "instance_prepay",
    "paypal_manual",
    "wise_manual",
];

impl Vast {
    /// The account. Prepaid money left is `credit`; what `balance` beside it means is documented
    /// nowhere, so it is not believed.
    pub(super) async fn read_account(&self) -> Result<Account, ReadError> {
        let answer = self.ask(Call::to(Route::User)).await?;
        let number = |name: &str| {
            let value = answer.field(&[name])?;
            Num::deserialize(value).ok()
        };
        let id = number("id").and_then(Num::id).ok_or_else(|| {
            ReadError::Malformed("the account's id is not in its record".to_owned())
        })?;
        Ok(Account {
            id: AccountId(id),
            credit: number("credit").and_then(Num::amount),
        })
    }

    /// The charges that touch a span of time. The marketplace filters by day, so whole days are
    /// asked for.
    pub(super) async fn read_charges(
        &self,
        from: Time,
        to: Time,
    ) -> Result<Vec<Charge>, ReadError> {
        let filter = bill::charges_filter(day(from) * DAY_MS / 1000, (day(to) + 1) * DAY_MS / 1000);
        let mut bill = Bill::new(from, to);
        for _ in 0..bill::PAGES_MAX {
            let mut call = Call::to(Route::Charges)
                .asking("select_filters", &filter)
                .asking("format", "table")
                .asking("latest_first", false)
                .asking("limit", bill::ROWS_MAX);
            if let Some(token) = bill.after() {
                call = call.asking("after_token", token);
            }
            let answer = self.ask(call).await?;
            if !bill.take(&answer)? {
                return Ok(bill.charges());
            }
        }
        Err(bill::endless())
    }

    /// Money paid in and out between two moments. A row that cannot be read is an error: a list of
    /// payments with a hole in it is none.
    pub async fn payments(&self, from: Time, to: Time) -> Result<Vec<Payment>, ReadError> {
        let filter = json!({
            "when": { "gte": from.0.div_euclid(1000), "lte": to.0.div_euclid(1000) + 1 },
            "service": { "in": SERVICES },
        });
        let mut payments = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..bill::PAGES_MAX {
            let mut call = Call::to(Route::Payments)
                .asking("select_filters", &filter)
                .asking("limit", bill::ROWS_MAX);
            if let Some(token) = &after {
                call = call.asking("after_token", token);
            }
            let answer = self.ask(call).await?;
            let rows = answer
                .rows(&["results", "invoices"])
                .ok_or_else(|| ReadError::Malformed("no list of payments".to_owned()))?;
            for row in rows {
                let payment = rows::payment(row, &self.redactor);
                payments.push(
                    payment.ok_or_else(|| {
                        ReadError::Malformed("a payment cannot be read".to_owned())
                    })?,
                );
            }
            if !bill::next_page(&mut after, &answer)? {
                return Ok(payments);
            }
        }
        Err(bill::endless())
    }
}

fn day(at: Time) -> i64 {
    at.0.div_euclid(DAY_MS)
}
