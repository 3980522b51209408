//! What an account keeps: keys, templates, webhooks, the inbox.

use serde_json::{Value, json};

use super::routes::Operation;
use super::{Call, columns, done, missing, not_here, written};
use crate::market::api::MarketError;
use crate::market::records::{NOTIFICATION_TYPES, Records, no_ssh_key};
use crate::market::sim::Market;
use crate::types::time::Time;

/// Performs an operation of this family.
pub(super) fn perform(
    market: &mut Market,
    operation: Operation,
    call: &Call<'_>,
) -> Result<String, MarketError> {
    let account = call.account()?;
    match operation {
        Operation::NotificationTypes => return notification_types(),
        Operation::Inbox => return inbox(market, account),
        _ => {}
    }
    let now = market.now();
    let records = market
        .records(account)
        .ok_or_else(|| MarketError::new(401, "auth_error", "Invalid user key"))?;
    match operation {
        Operation::SshKeys => {
            let keys = records.keys().all().iter();
            let keys: Vec<Value> = keys.map(|key| key.shown(account, "key")).collect();
            written(&keys)
        }
        Operation::CreateSshKey => {
            let key = call.text("ssh_key")?.unwrap_or_default();
            let key = records.keys().add(now, &key)?;
            written(&json!({"success": true, "key": key.shown(account, "public_key")}))
        }
        Operation::UpdateSshKey => {
            let key = call.text("ssh_key")?.unwrap_or_default();
            let key = records.keys().replace(key_id(call)?, &key)?;
            written(&json!({"success": true, "key": key.shown(account, "public_key")}))
        }
        Operation::DeleteSshKey => {
            records.keys().delete(key_id(call)?)?;
            Ok(done())
        }
        Operation::Templates
        | Operation::CreateTemplate
        | Operation::UpdateTemplate
        | Operation::DeleteTemplate => templates(records, account, operation, now, call),
        _ => webhooks(records, account, operation, now, call),
    }
}

fn key_id(call: &Call<'_>) -> Result<u64, MarketError> {
    let id = call.ids.first().and_then(|id| id.parse().ok());
    id.ok_or_else(no_ssh_key)
}

fn templates(
    records: &mut Records,
    account: u64,
    operation: Operation,
    now: Time,
    call: &Call<'_>,
) -> Result<String, MarketError> {
    let templates = records.templates();
    match operation {
        Operation::Templates => {
            let rows = templates.all().iter().map(|held| held.shown(account));
            let rows = columns::select(call, rows.collect())?;
            written(&json!({
                "success": true, "templates_found": rows.len(), "templates": rows,
            }))
        }
        Operation::CreateTemplate => {
            let made = templates.add(now, call.body)?;
            written(&json!({
                "success": true, "msg": "Template created.", "template": made.shown(account),
            }))
        }
        Operation::UpdateTemplate => {
            let (id, hash) = (call.whole("id")?, call.text("hash_id")?);
            let edited = templates.edit(id, hash.as_deref(), call.body)?;
            written(&json!({
                "success": true, "msg": "Template updated.", "template": edited.shown(account),
            }))
        }
        _ => {
            let (id, hash) = (call.whole("template_id")?, call.text("hash_id")?);
            if id.is_none() && hash.is_none() {
                return Err(missing("template_id"));
            }
            templates.delete(id, hash.as_deref())?;
            written(&json!({"success": true, "msg": "Template deleted."}))
        }
    }
}

fn webhooks(
    records: &mut Records,
    account: u64,
    operation: Operation,
    now: Time,
    call: &Call<'_>,
) -> Result<String, MarketError> {
    let webhooks = records.webhooks();
    // What is no number names no webhook.
    let id = call.ids.first().and_then(|id| id.parse().ok()).unwrap_or(0);
    match operation {
        Operation::Webhooks => {
            let rows = webhooks.all().iter().map(|held| held.shown(account));
            written(&json!({"success": true, "webhooks": rows.collect::<Vec<_>>()}))
        }
        Operation::CreateWebhook => {
            let made = webhooks.add(now, call.body)?;
            written(&json!({
                "success": true, "webhook": made.shown_with_secret(account),
                "enabled_notification_preferences": made.events(),
            }))
        }
        Operation::UpdateWebhook => {
            let edited = webhooks.edit(now, id, call.body)?;
            written(&json!({
                "success": true, "webhook": edited.shown(account),
                "enabled_notification_preferences": edited.events(),
            }))
        }
        Operation::DeleteWebhook => {
            webhooks.delete(id)?;
            Ok(done())
        }
        Operation::RotateWebhookSecret => {
            let rotated = webhooks.rotate(now, id)?;
            written(&json!({"success": true, "webhook": rotated.shown_with_secret(account)}))
        }
        Operation::TestWebhook => {
            webhooks.test(now, id)?;
            written(&json!({"success": true, "msg": "A test event is on its way."}))
        }
        other => Err(not_here(other)),
    }
}

fn notification_types() -> Result<String, MarketError> {
    let types = NOTIFICATION_TYPES.iter().map(|(slug, description)| {
        json!({
            "key": format!("client:{slug}"), "notif_type": slug, "user_context": "client",
            "description": description, "channels": ["email", "webhooks"],
        })
    });
    written(&json!({"success": true, "notification_types": types.collect::<Vec<_>>()}))
}

fn inbox(market: &Market, account: u64) -> Result<String, MarketError> {
    let rows = market.inbox(account);
    written(&json!({
        "success": true, "unread_count": rows.len(), "notifications": rows,
        "last_seen_at": null, "seen_through_at": null,
    }))
}
