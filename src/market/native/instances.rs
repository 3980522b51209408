//! Rentals: made, read, changed, ended.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::offers::{columns, first, selected};
use super::routes::Operation;
use super::{Call, done, invalid_request, not_here, whole, written};
use crate::market::api::{CreateParams, Created, MarketError};
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
        Operation::Create => {
            let offer = call.ids.first().and_then(|id| id.parse().ok());
            let offer = offer.ok_or_else(|| MarketError::unknown_ask(0))?;
            let created = create(market, call, account, offer)?;
            written(&created_answer(&created))
        }
        Operation::CreateMany => create_many(market, call, account),
        Operation::Launch => launch(market, call, account),
        Operation::ListPaged => list_paged(market, call, account),
        Operation::List => {
            let rows = rows(market, account);
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

// ------------------------------------------------------------------------------------------- made

/// A value as the text that a container's environment or arguments get.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The environment of a body. Anything but an object is ignored in silence, as was seen.
fn environment(call: &Call<'_>) -> Option<Vec<(String, String)>> {
    let entries = call.field("env")?.as_object()?;
    let pairs = entries.iter();
    Some(
        pairs
            .map(|(key, value)| (key.clone(), plain(value)))
            .collect(),
    )
}

/// The arguments of a body: a list, or one text.
fn arguments(call: &Call<'_>) -> Result<Option<Vec<String>>, MarketError> {
    if let Some(text) = call.text("args_str")? {
        return Ok(Some(text.split_whitespace().map(str::to_owned).collect()));
    }
    Ok(match call.field("args") {
        Some(Value::Array(args)) => Some(args.iter().map(plain).collect()),
        Some(Value::String(text)) if !text.is_empty() => Some(vec![text.clone()]),
        _ => None,
    })
}

/// What the body asks for; a price makes it interruptible, its absence on demand.
fn params(call: &Call<'_>, offer_id: u64) -> Result<CreateParams, MarketError> {
    Ok(CreateParams {
        offer_id,
        price: call.number("price")?,
        image: call.text("image")?.filter(|image| !image.is_empty()),
        disk: call.number("disk")?,
        env: environment(call).unwrap_or_default(),
        onstart: call.text("onstart")?,
        args: arguments(call)?.unwrap_or_default(),
        label: call.text("label")?,
        runtype: call.text("runtype")?,
        template_hash_id: call.text("template_hash_id")?,
        image_login: call.text("image_login")?,
        cancel_unavail: call.truth("cancel_unavail")?,
    })
}

fn create(
    market: &mut Market,
    call: &Call<'_>,
    account: u64,
    offer_id: u64,
) -> Result<Created, MarketError> {
    let stopped = match call.text("target_state")?.as_deref() {
        None | Some("running") => false,
        Some("stopped") => true,
        Some(_) => {
            return Err(MarketError::invalid_args(
                "target_state is not one of running, stopped",
            ));
        }
    };
    let mut params = params(call, offer_id)?;
    market.complete_by_template(account, &mut params);
    let created = market.create(account, params)?;
    if stopped {
        market.stop(account, created.new_contract)?;
    }
    Ok(created)
}

fn created_answer(created: &Created) -> Value {
    json!({
        "success": true,
        "new_contract": created.new_contract,
        "instance_api_key": created.instance_api_key,
    })
}

/// What became of one of many, as a part of an answer.
fn refused_part(error: &MarketError) -> Value {
    json!({
        "success": false, "error": error.code, "msg": error.msg, "ask_id": error.ask_id,
        "new_contract": error.new_contract,
    })
}

/// Each offer is rented by itself; that one fails says nothing about the others.
fn create_many(market: &mut Market, call: &Call<'_>, account: u64) -> Result<String, MarketError> {
    let offers = many(call, "ids")?;
    let mut results = Vec::new();
    let mut made = Vec::new();
    let mut refusal = None;
    for offer in offers {
        match create(market, call, account, offer) {
            Ok(created) => {
                let mut part = created_answer(&created);
                part["ask_id"] = json!(offer);
                made.push(created.new_contract);
                results.push(part);
            }
            Err(error) => {
                results.push(refused_part(&error));
                refusal.get_or_insert(error);
            }
        }
    }
    match refusal {
        Some(error) if made.is_empty() && results.len() == 1 => Err(error),
        _ => written(&json!({
            "success": !made.is_empty(), "new_contracts": made, "results": results,
        })),
    }
}

/// Searches, and rents the first row.
fn launch(market: &mut Market, call: &Call<'_>, account: u64) -> Result<String, MarketError> {
    let mut filters = match call.field("q") {
        Some(Value::Object(filters)) => filters.clone(),
        None => Map::new(),
        Some(_) => return Err(invalid_request("q is not an object")),
    };
    if let Some(gpus) = call.field("num_gpus") {
        filters
            .entry("num_gpus")
            .or_insert_with(|| json!({ "eq": gpus }));
    }
    if let Some(Value::String(model)) = call.field("gpu_name") {
        filters
            .entry("gpu_name")
            .or_insert_with(|| json!({ "eq": model.replace('_', " ") }));
    }
    let offer = first(market, call, &filters)?.ok_or_else(|| {
        MarketError::new(
            404,
            "no_such_ask",
            "error 404/3603: no_such_ask No offer matches the search.",
        )
    })?;
    let created = create(market, call, account, offer.id)?;
    let mut answer = created_answer(&created);
    answer["ask_id"] = json!(offer.id);
    written(&answer)
}

// ------------------------------------------------------------------------------------------- read

/// The account's instances as they are shown: with the progress of copies and what is prepaid.
fn rows(market: &Market, account: u64) -> Vec<RawInstance> {
    let rows = market.instances(account).into_iter();
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
        .instance(account, id)
        .map(|row| completed(market, account, row));
    match (row, market.options.disputed.missing) {
        (None, Missing::NotFound) => Err(MarketError::no_such_instance(id)),
        (row, _) => written(&json!({ "instances": row })),
    }
}

/// A page of the list, by a token that names the last row of the page before.
fn list_paged(market: &Market, call: &Call<'_>, account: u64) -> Result<String, MarketError> {
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
    let mut rows = listing.select(rows(market, account));
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
    let instances: Vec<Value> = match &columns {
        None => rows.iter().map(|row| json!(row)).collect(),
        Some(columns) => rows
            .iter()
            .map(|row| selected(&json!(row), columns))
            .collect(),
    };
    written(&json!({
        "success": true, "instances_found": instances.len(), "total_instances": total,
        "label_counts": label_counts, "next_token": next_token, "instances": instances,
    }))
}

/// What the account's instances can be told apart by.
fn list_filters(market: &Market, account: u64) -> Result<String, MarketError> {
    let rows = market.instances(account);
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

fn count(market: &Market, account: u64) -> Result<String, MarketError> {
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    let rows = market.instances(account);
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
fn many(call: &Call<'_>, name: &str) -> Result<Vec<u64>, MarketError> {
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
    market.rerun(account, id, |params| {
        if template.is_some() {
            params.template_hash_id = template;
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
