//! Money: the user, payments, charges, earnings, the audit log.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::columns::{self, Keyed};
use super::routes::Operation;
use super::{Call, missing, not_here, written};
use crate::market::api::MarketError;
use crate::market::raw::RawCharge;
use crate::market::sim::Market;
use crate::types::money::Money;
use crate::types::time::Time;

/// Rows of a page of payments and of charges: the documented defaults and bound.
const PAYMENTS_PAGE: usize = 60;
const CHARGES_PAGE: usize = 100;
const PAGE_MAX: usize = 500;

const DAY_MS: i64 = 86_400_000;

/// Performs an operation of this family.
pub(super) fn perform(
    market: &mut Market,
    operation: Operation,
    call: &Call<'_>,
) -> Result<String, MarketError> {
    let account = call.account()?;
    match operation {
        Operation::User => written(&market.user_record(account)),
        Operation::UpdateUser => {
            let records = market.records(account);
            let records =
                records.ok_or_else(|| MarketError::new(401, "auth_error", "Invalid user key"))?;
            records.settings.update(call.body)?;
            written(&json!({"success": true, "msg": "Settings were saved.", "id": account}))
        }
        Operation::Payments => payments(market, account, call),
        Operation::Charges => charges(market, account, call),
        Operation::OldInvoices => old_invoices(market, account, call),
        Operation::SearchInvoices => {
            let rows = market.payments(account).iter();
            let rows = rows.map(|payment| payment.invoice(account)).collect();
            written(&columns::select(call, rows)?)
        }
        Operation::AuditLogs => audit_logs(market, account),
        Operation::Earnings => earnings(market, account, call),
        Operation::TransferCredit => transfer(market, account, call),
        other => Err(not_here(other)),
    }
}

/// Whether a filter such as `{"in": ["instance"]}` lets a word pass; no filter lets all.
fn passes(filter: Option<&Value>, word: &str) -> Result<bool, MarketError> {
    let Some(filter) = filter.filter(|filter| !filter.is_null()) else {
        return Ok(true);
    };
    let (among, one) = (filter.get("in"), filter.get("eq"));
    match (among, one) {
        (Some(Value::Array(among)), _) => Ok(among.iter().any(|one| one == word)),
        (None, Some(one)) => Ok(one == word),
        _ => Err(columns::refuse("a filter of kinds needs `in` or `eq`")),
    }
}

/// What was paid. Without a range of dates the marketplace answers 200 and that it did not work.
fn payments(market: &Market, account: u64, call: &Call<'_>) -> Result<String, MarketError> {
    let filters = columns::object(call, "select_filters")?;
    let Some((from, to)) = filters.get("when").and_then(columns::span) else {
        return written(&json!({
            "success": false, "error": "Invalid date range",
            "count": 0, "total": 0, "results": [], "next_token": null,
        }));
    };
    let mut rows: Vec<Keyed> = Vec::new();
    for payment in market.payments(account) {
        let within = (from..=to).contains(&payment.at);
        if within && passes(filters.get("service"), payment.service)? {
            let id = format!("{:012}", payment.id);
            rows.push(((payment.at.0, id), payment.row()));
        }
    }
    paged(call, rows, PAYMENTS_PAGE)
}

fn paged(call: &Call<'_>, rows: Vec<Keyed>, usual: usize) -> Result<String, MarketError> {
    let page = columns::page(call, rows, usual, PAGE_MAX)?;
    written(&json!({
        "success": true, "count": page.rows.len(), "total": page.total,
        "results": page.rows, "next_token": page.next,
    }))
}

/// What was used: a row an instance and day, or as a tree a row an instance with its days within.
/// Days count whole: the one that holds the end of the range, too.
fn charges(market: &Market, account: u64, call: &Call<'_>) -> Result<String, MarketError> {
    let filters = columns::object(call, "select_filters")?;
    let range = filters.get("day").and_then(columns::span);
    let (from, to) = range.ok_or_else(|| columns::refuse("a range of day is required"))?;
    let as_tree = match call.parameter("format") {
        None | Some("table") => false,
        Some("tree") => true,
        Some(_) => return Err(columns::refuse("format is neither table nor tree")),
    };
    let instances = passes(filters.get("type"), "instance")?;
    let end = Time(to.0 - to.0.rem_euclid(DAY_MS) + DAY_MS);
    let charges = if instances && from <= to {
        market.charges(account, from, end)
    } else {
        Vec::new()
    };
    let rows = if as_tree {
        tree(charges)
    } else {
        table(charges)
    };
    paged(call, rows, CHARGES_PAGE)
}

fn table(charges: Vec<RawCharge>) -> Vec<Keyed> {
    let keyed = charges.into_iter().map(|charge| {
        let at = (charge.start * 1000.0).round() as i64;
        ((at, charge.source.clone()), json!(charge))
    });
    keyed.collect()
}

fn tree(charges: Vec<RawCharge>) -> Vec<Keyed> {
    let mut by_source: BTreeMap<String, Vec<RawCharge>> = BTreeMap::new();
    for charge in charges {
        by_source
            .entry(charge.source.clone())
            .or_default()
            .push(charge);
    }
    let mut rows = Vec::new();
    for (source, days) in by_source {
        let (Some(first), Some(last)) = (days.first(), days.last()) else {
            continue;
        };
        let at = (first.start * 1000.0).round() as i64;
        // Days are rounded already; their sum is to show no more digits than they do.
        let sum: f64 = days.iter().map(|day| day.amount).sum();
        let row = json!({
            "start": first.start, "end": last.end, "type": first.kind, "source": source,
            "description": first.description, "amount": (sum * 1.0e9).round() / 1.0e9,
            "metadata": first.metadata, "items": days,
        });
        rows.push(((at, source), row));
    }
    rows
}

/// A day's epoch seconds, or a bound of all time.
fn seconds(call: &Call<'_>, name: &str, usual: Time) -> Result<Time, MarketError> {
    let Some(text) = call.parameter(name).filter(|text| !is_none(text)) else {
        return Ok(usual);
    };
    let at = text.trim().parse().ok().and_then(Time::from_epoch_seconds);
    at.ok_or_else(|| columns::refuse(&format!("{name} is no time")))
}

/// Clients of the marketplace write what they do not set as a text of their language's null.
fn is_none(text: &str) -> bool {
    matches!(text, "null" | "None" | "")
}

/// The older list of payments and, where asked, charges; amounts are texts.
fn old_invoices(market: &Market, account: u64, call: &Call<'_>) -> Result<String, MarketError> {
    let from = seconds(call, "sdate", Time(0))?;
    let to = seconds(call, "edate", market.now())?;
    let mut rows = Vec::new();
    for payment in market.payments(account) {
        if (from..=to).contains(&payment.at) {
            rows.push(json!({
                "id": payment.id, "type": "payment", "description": payment.description,
                "quantity": "1", "rate": payment.amount.decimal(),
                "amount": payment.amount.decimal(), "timestamp": payment.at.epoch_seconds(),
                "instance_id": null,
            }));
        }
    }
    let charges = market.charges(account, Time(0), Time(market.now().0 + 1));
    let used: f64 = charges.iter().map(|charge| charge.amount).sum();
    if matches!(call.parameter("inc_charges"), Some("true" | "True" | "1")) {
        let within = |charge: &&RawCharge| {
            charge.start <= to.epoch_seconds() && charge.end >= from.epoch_seconds()
        };
        for charge in charges.iter().filter(within) {
            let instance = charge.source.trim_start_matches("instance-");
            let instance: Option<u64> = instance.parse().ok();
            for item in &charge.items {
                let description = format!("Instance {} {} charge", charge.source, item.kind);
                rows.push(json!({
                    "type": "charge", "description": description,
                    "quantity": "1", "rate": format!("{}", item.amount),
                    "amount": format!("{}", item.amount), "timestamp": charge.end,
                    "instance_id": instance,
                }));
            }
        }
    }
    written(&json!({
        "invoices": rows,
        "current": {
            "charges": used, "service_fee": 0.0, "total": used,
            "credit": market.user(account).credit,
        },
    }))
}

fn audit_logs(market: &mut Market, account: u64) -> Result<String, MarketError> {
    let key = market.user(account).key_id;
    let records = market.records(account);
    let rows = records.into_iter().flat_map(|records| {
        let rows = records.audit().rev().map(|row| {
            json!({
                "ip_address": "127.0.0.1", "api_key_id": key,
                "created_at": row.at.epoch_seconds(), "api_route": row.route, "args": row.args,
            })
        });
        rows.collect::<Vec<Value>>()
    });
    written(&rows.collect::<Vec<Value>>())
}

/// Days are counted from the epoch and need not be whole.
fn earnings(market: &Market, account: u64, call: &Call<'_>) -> Result<String, MarketError> {
    let day = |name: &str, usual: Time| {
        let Some(text) = call.parameter(name).filter(|text| !is_none(text)) else {
            return Ok(usual);
        };
        let days: Option<f64> = text.trim().parse().ok();
        let at = days.and_then(|days| Time::from_epoch_seconds(days * 86_400.0));
        at.ok_or_else(|| columns::refuse(&format!("{name} is no day")))
    };
    let (from, to) = (day("sday", Time(0))?, day("eday", market.now())?);
    let machine = match call.parameter("machid").filter(|text| !is_none(text)) {
        None => None,
        Some(text) => match text.parse() {
            Ok(id) => Some(id),
            Err(_) => return Err(columns::refuse("machid is no id")),
        },
    };
    written(&market.earnings(account, from, to, machine))
}

fn transfer(market: &mut Market, account: u64, call: &Call<'_>) -> Result<String, MarketError> {
    let recipient = match call.field("recipient") {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Number(id)) => id.to_string(),
        _ => return Err(missing("recipient")),
    };
    let amount = call.number("amount")?.ok_or_else(|| missing("amount"))?;
    let amount = Money::from_dollars(amount)
        .map_err(|_| MarketError::invalid_args("amount is not an amount"))?;
    // An account that there is not is refused as the account itself is.
    let recipient = market.account_named(&recipient).unwrap_or(account);
    market.transfer(account, recipient, amount)?;
    written(&json!({"success": true, "msg": "The credit was transferred."}))
}
