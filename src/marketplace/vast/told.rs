//! What the marketplace tells beside its listings: the inbox, price increases, reports of machines.

use std::sync::atomic::Ordering;

use serde_json::Value;

use super::Vast;
use super::routes::Route;
use super::send::Call;
use crate::marketplace::answer::Answer;
use crate::marketplace::rows;
use crate::ports::ReadError;
use crate::types::ids::MachineId;
use crate::types::notification::{MachineReport, Notification, PriceIncrease};

impl Vast {
    /// The last notifications. The route is not documented and may vanish; once it is found to be
    /// missing it is not asked for again in this process.
    pub(super) async fn read_inbox(&self) -> Result<Vec<Notification>, ReadError> {
        const MISSING: ReadError = ReadError::Unsupported("show notifications");
        if self.no_inbox.load(Ordering::Relaxed) {
            return Err(MISSING);
        }
        let answer = Answer::read(&self.read(Call::to(Route::Inbox)).await?);
        if Self::is_missing_route(&answer) {
            self.no_inbox.store(true, Ordering::Relaxed);
            return Err(MISSING);
        }
        self.check(&answer)?;
        let rows = rows_of(&answer, &["notifications", "results"], "notifications")?;
        let mut all = read_all(rows, |row| rows::notification(row, &self.redactor));
        // Stable: what has no time stays behind what came before it.
        all.sort_by_key(|notification| notification.at);
        Ok(all)
    }

    pub(super) async fn read_price_increases(&self) -> Result<Vec<PriceIncrease>, ReadError> {
        let answer = self.ask(Call::to(Route::PriceIncreases)).await?;
        let names = ["pending_price_increases", "price_increases", "results"];
        let rows = rows_of(&answer, &names, "price increases")?;
        Ok(read_all(rows, rows::price_increase))
    }

    pub(super) async fn read_reports(
        &self,
        machine: MachineId,
    ) -> Result<Vec<MachineReport>, ReadError> {
        let answer = self.ask(Call::to(Route::Reports(machine))).await?;
        let rows = rows_of(&answer, &["reports", "results"], "reports")?;
        Ok(read_all(rows, |row| {
            rows::machine_report(row, &self.redactor)
        }))
    }
}

fn rows_of<'a>(
    answer: &'a Answer,
    names: &[&str],
    what: &str,
) -> Result<&'a Vec<Value>, ReadError> {
    answer
        .rows(names)
        .ok_or_else(|| ReadError::Malformed(format!("no list of {what}")))
}

/// The rows that can be read. They are evidence only, so one that cannot be costs nothing else.
fn read_all<T>(rows: &[Value], read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    let all: Vec<T> = rows.iter().filter_map(read).collect();
    if all.len() < rows.len() {
        tracing::debug!(left_out = rows.len() - all.len(), "rows cannot be read");
    }
    all
}
