//! `haggle doctor --ledger`: the ledger, reckoned again from its lines.

use serde::Serialize;

use super::context::{Context, open_reader};
use super::failure::{Done, Exit};
use super::output::Align;
use crate::types::money::Money;

#[derive(Debug, Serialize)]
struct LedgerDocument {
    balanced: bool,
    entries: u64,
    accounts: Vec<Balance>,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Balance {
    account: String,
    balance_dollars: String,
}

/// Accounts of single days are too many to read: the text leaves them to `--json`.
fn of_a_day(account: &str) -> bool {
    account.starts_with("limit/") && account.contains("/day/")
}

pub(crate) fn run(context: &Context) -> Done {
    let config = context.config()?;
    let reader = open_reader(&config)?;
    let audit = reader.audit()?;
    let accounts: Vec<(String, Money)> = audit.accounts.into_iter().collect();
    let document = LedgerDocument {
        balanced: audit.problems.is_empty(),
        entries: audit.entries,
        accounts: accounts
            .iter()
            .map(|(account, balance)| Balance {
                account: account.clone(),
                balance_dollars: balance.decimal(),
            })
            .collect(),
        problems: audit.problems,
    };
    context.output.show(&document, || {
        let columns = [("account", Align::Left), ("balance", Align::Right)];
        let shown = accounts.iter().filter(|(account, _)| !of_a_day(account));
        let rows = shown
            .map(|(account, balance)| vec![account.clone(), balance.to_string()])
            .collect();
        let mut text = context.output.table(&columns, rows);
        let days = accounts.iter().filter(|(name, _)| of_a_day(name)).count();
        text.push_str(&format!(
            "\n{} lines, {} accounts ({days} of single days not shown)\n",
            document.entries,
            accounts.len()
        ));
        for problem in &document.problems {
            text.push_str(&format!("problem: {problem}\n"));
        }
        text.push_str(if document.balanced {
            "every balance is what its lines come to"
        } else {
            "hint: stop the daemon, keep a copy of the database, and restore a backup"
        });
        text
    })?;
    Ok(if document.balanced {
        Exit::Success
    } else {
        Exit::World
    })
}
