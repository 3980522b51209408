//! What the marketplace keeps of an account beside its instances.

use serde_json::{Value, json};

use super::sim::Market;
use crate::types::time::Time;

/// Notifications that the inbox shows.
const INBOX_ROWS: usize = 50;

/// What is kept of an account.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    /// Every notification, oldest first.
    pub(super) inbox: Vec<Notice>,
}

/// A notification, as the inbox shows it.
#[derive(Clone, Debug)]
pub(super) struct Notice {
    /// Its id.
    pub(super) event_id: String,
    /// The marketplace's word for its kind, such as `outbid`.
    pub(super) kind: &'static str,
    /// When.
    pub(super) at: Time,
    /// A line.
    pub(super) message: String,
    /// The instance and machine, and with an outbid `your_bid` and `new_min_bid`.
    pub(super) about: Value,
}

impl Market {
    /// Tells an account of something.
    pub(super) fn notify(
        &mut self,
        account: u64,
        kind: &'static str,
        message: String,
        about: Value,
    ) {
        let at = self.now;
        let Some(held) = self.accounts.get_mut(&account) else {
            return;
        };
        let inbox = &mut held.records.inbox;
        let event_id = format!("{account:x}-{}", inbox.len() + 1);
        inbox.push(Notice {
            event_id,
            kind,
            at,
            message,
            about,
        });
    }

    /// The inbox's rows, newest first.
    pub(super) fn inbox(&self, account: u64) -> Vec<Value> {
        let rows = self.accounts.get(&account).map(|held| &held.records.inbox);
        let row = |notice: &Notice| {
            json!({
                "event_id": notice.event_id,
                "notif_type": notice.kind,
                "user_context": "client",
                "created_at": notice.at.epoch_seconds(),
                "subject": notice.kind.replace('_', " "),
                "message": notice.message,
                "associated_id": notice.about,
            })
        };
        rows.into_iter()
            .flatten()
            .rev()
            .take(INBOX_ROWS)
            .map(row)
            .collect()
    }
}
