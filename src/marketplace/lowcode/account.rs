//! The account and its bill.

use serde::Deserialize;

use super::LowCode;
use super::wire::{Answer, Single};
use crate::marketplace::bill::{self, Bill};
use crate::marketplace::operation::Operation;
use crate::marketplace::rows::Num;
use crate::ports::{Charge, ReadError};
use crate::types::ids::AccountId;
use crate::types::instance::Account;
use crate::types::money::Money;
use crate::types::time::Time;

/// What an answer says of the account.
#[derive(Clone, Copy, Default)]
struct Said {
    id: Option<u64>,
    credit: Option<Money>,
    balance: Option<Money>,
}

impl LowCode {
    /// The account: by the user's own record, and what that lacks by the balance.
    pub(super) async fn read_account(&self) -> Result<Account, ReadError> {
        let user = self.ask_account(Operation::User).await;
        if let Err(error @ ReadError::Unauthorized { .. }) = user {
            return Err(error);
        }
        let whole = user
            .as_ref()
            .is_ok_and(|said| said.id.is_some() && said.credit.is_some());
        let balance = if whole {
            Ok(Said::default())
        } else {
            self.ask_account(Operation::Balance).await
        };
        let said = match (user, balance) {
            (Ok(user), Ok(balance)) => Said {
                id: user.id.or(balance.id),
                credit: user.credit.or(balance.credit),
                balance: balance.balance.or(user.balance),
            },
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => one,
            (Err(error), Err(_)) => return Err(error),
        };
        let id = said.id.ok_or_else(|| {
            ReadError::Malformed("the account's id is in neither /users/me nor /balance".to_owned())
        })?;
        Ok(Account {
            id: AccountId(id),
            // Prepaid money left is `credit`; where there is none, `balance` is what is known.
            credit: said.credit.or(said.balance),
        })
    }

    async fn ask_account(&self, operation: Operation) -> Result<Said, ReadError> {
        let reply = self.read_plain(operation, &[]).await?;
        let answer = Answer::read(&reply);
        self.check(&answer, "show the account")?;
        let record = match answer.single(&["user", "users"]) {
            Single::Row(row) => Some(row),
            _ => answer.payload().filter(|value| value.is_object()),
        };
        let record =
            record.ok_or_else(|| ReadError::Malformed("no record of the account".to_owned()))?;
        let number = |name: &str| {
            record
                .get(name)
                .and_then(|value| Num::deserialize(value).ok())
                .unwrap_or_default()
        };
        Ok(Said {
            id: number("id").id().or(number("user_id").id()),
            credit: number("credit").amount(),
            balance: number("balance").amount(),
        })
    }

    /// The charges that touch a span of time. A bill with a hole in it is an error.
    pub(super) async fn read_charges(
        &self,
        from: Time,
        to: Time,
    ) -> Result<Vec<Charge>, ReadError> {
        let mut bill = Bill::new(from, to);
        for _ in 0..bill::PAGES_MAX {
            let query = charges_query(from, to, bill.after());
            let reply = self.read_plain(Operation::Invoices, &query).await?;
            let answer = Answer::read(&reply);
            self.check(&answer, "list charges")?;
            if !bill.take(&answer)? {
                return Ok(bill.charges());
            }
        }
        Err(bill::endless())
    }
}

/// Asks for charges in both of the marketplace's documented ways: by its filter, and by the dates
/// of the older one.
fn charges_query(from: Time, to: Time, after: Option<&str>) -> Vec<(String, String)> {
    let (from, to) = (from.0.div_euclid(1000), to.0.div_euclid(1000) + 1);
    let mut query = vec![
        ("select_filters", bill::charges_filter(from, to).to_string()),
        ("limit", bill::ROWS_MAX.to_string()),
        ("sdate", from.to_string()),
        ("edate", to.to_string()),
        ("inc_charges", "true".to_owned()),
    ];
    if let Some(token) = after {
        query.push(("after_token", token.to_owned()));
    }
    query
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
