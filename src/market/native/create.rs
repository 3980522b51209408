//! Rentals are made: of one offer, of several, of the first that a search finds.

use serde_json::{Map, Value, json};

use super::offers::first;
use super::{Call, instances, invalid_request, whole, written};
use crate::market::api::{CreateParams, Created, MarketError};
use crate::market::records::Template;
use crate::market::sim::Market;

/// Rents the offer that the path names.
pub(super) fn one(
    market: &mut Market,
    call: &Call<'_>,
    account: u64,
) -> Result<String, MarketError> {
    let offer = call.ids.first().and_then(|id| id.parse().ok());
    let offer = offer.ok_or_else(|| MarketError::unknown_ask(0))?;
    let created = create(market, call, account, offer)?;
    written(&created_answer(&created))
}

/// A value as the text that a container's environment or arguments get.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The environment of a body. Anything but an object is ignored in silence, as was seen.
pub(super) fn environment(call: &Call<'_>) -> Option<Vec<(String, String)>> {
    let entries = call.field("env")?.as_object()?;
    let pairs = entries.iter();
    Some(
        pairs
            .map(|(key, value)| (key.clone(), plain(value)))
            .collect(),
    )
}

/// The arguments of a body: a list, or one text.
pub(super) fn arguments(call: &Call<'_>) -> Result<Option<Vec<String>>, MarketError> {
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
fn params(
    market: &mut Market,
    call: &Call<'_>,
    account: u64,
    offer_id: u64,
) -> Result<CreateParams, MarketError> {
    let mut asked = CreateParams {
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
    };
    let number = call.field("template_id").and_then(whole);
    let hash = asked.template_hash_id.as_deref();
    if let Some(template) = template(market, account, hash, number) {
        template.complete(&mut asked);
    }
    Ok(asked)
}

/// What an instance of these runs by a template of the account from now on.
pub(super) fn by_template(
    market: &mut Market,
    account: u64,
    hash: Option<&str>,
    number: Option<u64>,
) -> Option<impl FnOnce(&mut CreateParams) + use<>> {
    let template = template(market, account, hash, number)?;
    Some(move |params: &mut CreateParams| {
        params.image = None;
        params.onstart = None;
        params.args = Vec::new();
        params.env = Vec::new();
        template.complete(params);
    })
}

/// The account's own template of a hash, else of a number. A hash of none may be a public one, of
/// which this market knows nothing.
fn template(
    market: &mut Market,
    account: u64,
    hash: Option<&str>,
    number: Option<u64>,
) -> Option<Template> {
    let templates = market.records(account)?.templates();
    if let Some(hash) = hash {
        return templates.by_hash(hash).cloned();
    }
    let is_it = |template: &&Template| Some(template.id) == number;
    templates.all().iter().find(is_it).cloned()
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
    let params = params(market, call, account, offer_id)?;
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
pub(super) fn refused_part(error: &MarketError) -> Value {
    json!({
        "success": false, "error": error.code, "msg": error.msg, "ask_id": error.ask_id,
        "new_contract": error.new_contract,
    })
}

/// Each offer is rented by itself; that one fails says nothing about the others.
pub(super) fn many(
    market: &mut Market,
    call: &Call<'_>,
    account: u64,
) -> Result<String, MarketError> {
    let offers = instances::many(call, "ids")?;
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
pub(super) fn launched(
    market: &mut Market,
    call: &Call<'_>,
    account: u64,
) -> Result<String, MarketError> {
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
