//! Rentals: made, read, changed, ended.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::create::{self, arguments, environment, refused_part};
use super::offers::{columns, selected};
use super::routes::Operation;
use super::{Call, done, invalid_request, not_here, whole, written};
use crate::market::api::MarketError;
use crate::market::disputed::Missing;
use crate::market::query::Listing;
use crate::market::raw::RawInstance;
use crate::market::sim::Market;

/// Rows of a page, and what a limit of zero or less means: the documented bounds.
const PAGE: usize = 25;
const PAGE_MIN: usize = 5;

/// Most instances that one call changes, by the command line and as documented for starts.
const MANY_MAX: usize = 100;

/// Performs an operation of this family.
pub(super) fn perform(
    market: &mut Market,
    operation: Operation,
    call: &Call<'_>,
) -> Result<String, MarketError> {
    let account = call.account()?;
    match operation {
        Operation::Create => create::one(market, call, account),
        Operation::CreateMany => create::many(market, call, account),
        Operation::Launch => create::launched(market, call, account),
        Operation::ListPaged => list_paged(market, call, account),
        Operation::List => {
            let rows = rows(market, account, true);
            written(&json!({ "success": true, "instances_found": rows.len(), "instances": rows }))
        }
        Operation::ListFilters => list_filters(market, account),
        Operation::Count => count(market, account),
        Operation::Show => show(market, call, account),
        Operation::Manage => manage(market, call, account, call.id()?),
        Operation::ManageMany => {
            let ids = many(call, "ids")?;
            change_many(&ids, |id| manage(market, call, account, id))
        }
        Operation::StartMany => {
            let ids = match many(call, "IDs") {
                Ok(ids) => ids,
                Err(_) => many(call, "ids")?,
            };
            change_many(&ids, |id| start(market, account, id))
        }
        Operation::ChangeBid => {
            market.set_bid(account, call.id()?, call.number("price")?)?;
            Ok(done())
        }
        Operation::Destroy => destroy(market, account, call.id()?),
        Operation::DestroyMany => {
            let ids = many(call, "instance_ids")?;
            change_many(&ids, |id| destroy(market, account, id))
        }
        Operation::Reboot => market.reboot(account, call.id()?).map(|()| done()),
        Operation::Recycle => market.recycle(account, call.id()?).map(|()| done()),
        Operation::Prepay | Operation::PrepaidBalance => prepaid(market, operation, call, account),
        Operation::UpdateTemplateOf => update_template(market, call, account),
        Operation::PriceIncreases => {
            let rows = market.price_increases(account);
            written(&json!({
                "success": true, "count": rows.len(), "truncated": false,
                "pending_price_increases": rows,
            }))
        }
        Operation::AcceptPriceIncrease => answer_increase(market, call, account, true),
        Operation::RejectPriceIncrease => answer_increase(market, call, account, false),
        _ => Err(not_here(operation)),
    }
}

// ------------------------------------------------------------------------------------------- read

/// The account's instances as they are shown: with the progress of copies and what is prepaid.
/// `begins` is whether this is a new listing, rather than a further page of one.
fn rows(market: &mut Market, account: u64, begins: bool) -> Vec<RawInstance> {
    let rows = market.listing(account, begins).into_iter();
    rows.map(|row| completed(market, account, row)).collect()
}

fn completed(market: &Market, account: u64, mut row: RawInstance) -> RawInstance {
    if let Some(words) = market.copy_status(row.id) {
        row.status_msg = Some(words.into());
    }
    if let Some((left, discount)) = market.prepaid_shown(account, row.id) {
        row.credit_balance = Some(left);
        row.credit_discount = Some(discount);
    }
    row
}

fn show(market: &Market, call: &Call<'_>, account: u64) -> Result<String, MarketError> {
    let id = call.id()?;
    let row = market
        .reading(account, id)
        .map(|row| completed(market, account, row));
    match (row, market.options.disputed.missing) {
        (None, Missing::NotFound) => Err(MarketError::no_such_instance(id)),
        (row, _) => written(&json!({ "instances": row })),
    }
}

/// A page of the list, by a token that names the last row of the page before.
fn list_paged(market: &mut Market, call: &Call<'_>, account: u64) -> Result<String, MarketError> {
    let wrong = |why| invalid_request(format_args!("Error in query parameters: {why}"));
    let (filters, order) = (call.json("select_filters")?, call.json("order_by")?);
    let listing = Listing::of_instances(filters.as_ref(), order.as_ref()).map_err(wrong)?;
    let columns = columns(call.json("select_cols")?.as_ref())?;
    let limit = match call.parameter("limit").map(str::parse::<i64>) {
        None => PAGE,
        Some(Ok(n)) if n <= 0 => PAGE_MIN,
        Some(Ok(n)) => usize::try_from(n).map_or(PAGE, |n| n.min(PAGE)),
        Some(Err(_)) => {
            return Err(invalid_request(
                "Error in query parameters: limit is not a number",
            ));
        }
    };
    let begins = call.parameter("after_token").is_none();
    let mut rows = listing.select(rows(market, account, begins));
    let total = rows.len();
    let mut labels: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &rows {
        *labels
            .entry(row.label.as_deref().unwrap_or_default())
            .or_default() += 1;
    }
    let label_counts = json!(labels);
    if let Some(token) = call.parameter("after_token") {
        let after = listing
            .read_token(token)
            .ok_or_else(|| MarketError::new(400, "invalid_token", "Invalid pagination token"))?;
        rows.retain(|row| listing.follows(row, &after));
    }
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_token = rows.last().filter(|_| more).map(|row| listing.token(row));
    match &columns {
        None => written(&Page {
            success: true,
            instances_found: rows.len(),
            total_instances: total,
            label_counts,
            next_token,
            instances: &rows,
        }),
        Some(columns) => {
            let rows = rows.iter().map(|row| selected(&json!(row), columns));
            let instances: Vec<Value> = rows.collect();
            written(&Page {
                success: true,
                instances_found: instances.len(),
                total_instances: total,
                label_counts,
                next_token,
                instances: &instances,
            })
        }
    }
}

/// A page of the list.
#[derive(Serialize)]
struct Page<'a, R> {
    success: bool,
    instances_found: usize,
    total_instances: usize,
    label_counts: Value,
    next_token: Option<String>,
    instances: &'a [R],
}

/// What the account's instances can be told apart by.
fn list_filters(market: &mut Market, account: u64) -> Result<String, MarketError> {
    let rows = market.listing(account, false);
    let combinations: BTreeSet<_> = rows
        .iter()
        .map(|row| {
            (
                row.actual_status.clone(),
                row.gpu_name.clone(),
                row.verification.clone(),
            )
        })
        .collect();
    let filters: Vec<Value> = combinations
        .into_iter()
        .map(|(status, gpu, verification)| {
            json!({"actual_status": status, "gpu_name": gpu, "verification": verification})
        })
        .collect();
    written(&json!({ "success": true, "filters": filters }))
}

fn count(market: &mut Market, account: u64) -> Result<String, MarketError> {
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    let rows = market.listing(account, false);
    for row in &rows {
        *states.entry(row.cur_state.to_string()).or_default() += 1;
    }
    written(&json!({ "success": true, "count": rows.len(), "by_state": states }))
}

// ---------------------------------------------------------------------------------------- changed

/// A label, a state, or both.
fn manage(
    market: &mut Market,
    call: &Call<'_>,
    account: u64,
    id: u64,
) -> Result<String, MarketError> {
    let label = call.text("label")?;
    let state = call.text("state")?;
    if let Some(label) = &label {
        market.set_label(account, id, label)?;
    }
    match state.as_deref() {
        Some("stopped") => market.stop(account, id).map(|()| done()),
        Some("running") => start(market, account, id),
        None if label.is_some() => Ok(done()),
        _ => Err(MarketError::invalid_args(
            "state is not one of running, stopped",
        )),
    }
}

fn start(market: &mut Market, account: u64, id: u64) -> Result<String, MarketError> {
    let started = market.start(account, id)?;
    match started.msg {
        Some(msg) => written(&json!({ "success": started.success, "msg": msg })),
        None => written(&json!({ "success": started.success })),
    }
}

fn destroy(market: &mut Market, account: u64, id: u64) -> Result<String, MarketError> {
    market.destroy(account, id)?;
    written(&json!({ "success": true, "msg": format!("Instance {id} was destroyed.") }))
}

/// The ids of a call about many.
pub(super) fn many(call: &Call<'_>, name: &str) -> Result<Vec<u64>, MarketError> {
    let ids = call
        .id_list(name)?
        .filter(|ids| !ids.is_empty())
        .ok_or_else(|| MarketError::invalid_args(format_args!("{name} is not given")))?;
    if ids.len() > MANY_MAX {
        return Err(MarketError::invalid_args(format_args!(
            "{name} has over {MANY_MAX} ids"
        )));
    }
    Ok(ids)
}

/// Changes each; one that is unknown does not make the others fail. All unknown is a refusal.
fn change_many(
    ids: &[u64],
    mut change: impl FnMut(u64) -> Result<String, MarketError>,
) -> Result<String, MarketError> {
    let mut results = Map::new();
    let mut refusal = None;
    let mut queued = None;
    let mut changed = 0;
    for id in ids {
        let part = match change(*id) {
            Ok(text) => {
                let part: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
                if part["success"] == json!(false) {
                    queued = part["msg"].as_str().map(str::to_owned);
                } else {
                    changed += 1;
                }
                part
            }
            Err(error) => {
                let part = refused_part(&error);
                refusal.get_or_insert(error);
                part
            }
        };
        results.insert(id.to_string(), part);
    }
    match refusal {
        Some(error) if changed == 0 && queued.is_none() => Err(error),
        _ => {
            let mut answer = json!({ "success": queued.is_none(), "results": results });
            if let Some(msg) = queued {
                answer["msg"] = json!(msg);
            }
            written(&answer)
        }
    }
}

fn prepaid(
    market: &mut Market,
    operation: Operation,
    call: &Call<'_>,
    account: u64,
) -> Result<String, MarketError> {
    let id = call.id()?;
    if operation == Operation::PrepaidBalance {
        let prepaid = market.prepaid(account, id)?;
        return written(&json!({
            "success": true,
            "refundable_deposit": prepaid.left.as_dollars(),
            "total_discount": prepaid.saved.as_dollars(),
            "discount_months": prepaid.months,
        }));
    }
    let amount = call
        .number("amount")?
        .ok_or_else(|| MarketError::invalid_args("amount is not given"))?;
    let prepaid = market.prepay(account, id, amount)?;
    written(&json!({
        "success": true, "timescale": prepaid.months, "discount_rate": prepaid.discount,
    }))
}

/// Changes what an instance runs; there is no bid in it.
fn update_template(
    market: &mut Market,
    call: &Call<'_>,
    account: u64,
) -> Result<String, MarketError> {
    let id = call.id()?;
    let image = call.text("image")?;
    let onstart = call.text("onstart")?;
    let template = call.text("template_hash_id")?;
    let (args, env) = (arguments(call)?, environment(call));
    let number = call.field("template_id").and_then(whole);
    let by_template = create::by_template(market, account, template.as_deref(), number);
    market.rerun(account, id, |params| {
        match by_template {
            Some(fill) => fill(params),
            None if template.is_some() => params.template_hash_id = template,
            None => {}
        }
        if image.is_some() {
            params.image = image;
        }
        if onstart.is_some() {
            params.onstart = onstart;
        }
        if let Some(args) = args {
            params.args = args;
        }
        if let Some(env) = env {
            params.env = env;
        }
    })?;
    let row = market.instance(account, id);
    written(&json!({ "success": true, "updated_instance": row }))
}

/// The body holds the id and nothing else.
fn answer_increase(
    market: &mut Market,
    call: &Call<'_>,
    account: u64,
    accept: bool,
) -> Result<String, MarketError> {
    const NAME: &str = "pending_price_increase_id";
    if let Some(other) = call.body.keys().find(|name| *name != NAME) {
        return Err(MarketError::invalid_args(format_args!(
            "{other} is not a field of this call"
        )));
    }
    let id = call
        .field(NAME)
        .and_then(whole)
        .ok_or_else(|| MarketError::invalid_args(format_args!("{NAME} is not an id")))?;
    let asked = market.price_increases(account).into_iter();
    let asked = asked.into_iter().find(|row| row[NAME] == json!(id));
    market.answer_price_increase(account, id, accept)?;
    let contract = asked.map(|row| row["contract_id"].clone());
    written(&json!({"success": true, NAME: id, "contract_id": contract}))
}
