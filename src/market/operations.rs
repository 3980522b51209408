//! What each operation of the gateway asks of the market, and its answer in the native shapes.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::api::{CreateParams, MarketError};
use super::handed_on;
use super::query::Search;
use super::raw::{RawInstance, RawOffer};
use super::routes::{Operation, ROUTES};
use super::sim::Market;
use crate::ports::Method;
use crate::types::time::Time;

/// One call, after matching and authentication.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) account: u64,
    /// The parameter of the path.
    pub(crate) id: Option<&'a str>,
    pub(crate) query: &'a [(String, String)],
    /// The fields of the body; none where there is no body.
    pub(crate) body: &'a Map<String, Value>,
    /// What is particular about this gateway.
    pub(crate) quirks: Quirks,
    /// Market time at which the market was opened: when accounts were paid in.
    pub(crate) opened_at: Time,
}

/// What is particular about a gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// Bids are placed without their price, so that they silently come out as on-demand rentals.
    pub bids_ignore_price: bool,
    /// There are no bid routes.
    pub no_bids: bool,
    /// `offset` is obeyed. The marketplace itself knows none and ignores it.
    pub honour_offset: bool,
}

/// Rows of a page of instances, and what a limit of zero or less means: the marketplace's
/// documented bounds.
const INSTANCES_PAGE: usize = 25;
const INSTANCES_PAGE_MIN: usize = 5;

/// Rows of a page of charges: the documented default and bound.
const CHARGES_PAGE: usize = 100;
const CHARGES_PAGE_MAX: usize = 500;

/// Performs an operation. The answer is the text of a JSON object.
pub(crate) fn perform(
    market: &mut Market,
    operation: Operation,
    call: &Call<'_>,
) -> Result<String, MarketError> {
    if let Some(route) = audited(operation) {
        market.log_call(call.account, &route, call.body);
    }
    match operation {
        Operation::OffersList => {
            let search = Search::parse(call.query, call.quirks.honour_offset);
            offers(market, call, search.map_err(invalid_request)?)
        }
        Operation::OfferGet => {
            let search = Search::by_id(call.id.unwrap_or_default(), call.query);
            offers(market, call, search.map_err(invalid_request)?)
        }
        Operation::InstancesList => {
            let rows = market.listing(call.account, begins(call));
            instances(call, rows)
        }
        Operation::BidsList => {
            let mut rows = market.listing(call.account, begins(call));
            rows.retain(|row| row.is_bid);
            instances(call, rows)
        }
        Operation::InstanceGet => {
            let id = instance_id(call)?;
            text(&json!({ "instances": market.reading(call.account, id) }))
        }
        Operation::BidGet => {
            let id = instance_id(call)?;
            let row = market.reading(call.account, id).filter(|row| row.is_bid);
            text(&json!({ "instances": row }))
        }
        Operation::InstanceCreate => create(market, call, true),
        Operation::BidCreate => create(market, call, !call.quirks.bids_ignore_price),
        Operation::InstanceUpdate => update(market, call),
        Operation::InstanceStop => {
            market.stop(call.account, instance_id(call)?)?;
            Ok(done())
        }
        Operation::InstanceStart => start(market, call, instance_id(call)?),
        Operation::InstanceDelete => destroy(market, call, instance_id(call)?),
        Operation::BidUpdate => set_bid(market, call),
        Operation::BidDelete => {
            let id = instance_id(call)?;
            let is_bid = |row: RawInstance| row.is_bid;
            if market.instance(call.account, id).is_some_and(is_bid) {
                destroy(market, call, id)
            } else {
                Err(MarketError::no_such_instance(id))
            }
        }
        Operation::InvoicesList => invoices(market, call),
        Operation::UserCurrent | Operation::Balance => text(&market.user_record(call.account)),
        other => handed_on::perform(market, other, call),
    }
}

/// What the audit log calls an operation; `None` for one that changes nothing.
fn audited(operation: Operation) -> Option<String> {
    let route = ROUTES.iter().find(|route| route.operation == operation)?;
    (route.method != Method::Get).then(|| {
        let words = route.path.trim_start_matches('/').split('/');
        let words: Vec<&str> = words.filter(|word| !word.starts_with('{')).collect();
        let method = route.method.as_str().to_ascii_lowercase();
        format!("api.{}__{method}", words.join("."))
    })
}

/// The answer that this operation would give if there were nothing; `None` where it is no list.
pub(crate) fn nothing(operation: Operation) -> Option<&'static str> {
    match operation {
        Operation::OffersList => Some(r#"{"offers":[]}"#),
        Operation::InstancesList | Operation::BidsList => Some(
            r#"{"success":true,"instances_found":0,"total_instances":0,"next_token":null,"instances":[]}"#,
        ),
        Operation::MachinesList => Some(r#"{"machines":[]}"#),
        Operation::TemplatesList => Some(r#"{"success":true,"templates_found":0,"templates":[]}"#),
        Operation::SshKeysList => Some("[]"),
        Operation::InvoicesList => {
            Some(r#"{"success":true,"results":[],"count":0,"total":0,"next_token":null}"#)
        }
        _ => None,
    }
}

fn text(answer: &impl Serialize) -> Result<String, MarketError> {
    text_of(answer, 256)
}

/// About as long is the row of an offer, as text.
pub(super) const OFFER_BYTES: usize = 3000;

/// The text of an answer that is about so long.
pub(super) fn text_of(answer: &impl Serialize, length: usize) -> Result<String, MarketError> {
    let cannot = |error: &dyn std::fmt::Display| {
        MarketError::new(500, "server_error", format!("cannot be written: {error}"))
    };
    let mut text = Vec::with_capacity(length);
    serde_json::to_writer(&mut text, answer).map_err(|error| cannot(&error))?;
    String::from_utf8(text).map_err(|error| cannot(&error))
}

/// The answer where there is nothing to say but that it was done.
fn done() -> String {
    r#"{"success":true}"#.to_owned()
}

fn invalid_request(why: impl std::fmt::Display) -> MarketError {
    MarketError::new(400, "invalid_request", why.to_string())
}

fn instance_id(call: &Call<'_>) -> Result<u64, MarketError> {
    let id = call.id.unwrap_or("null");
    // A text that is no number names no instance; the marketplace answers as for any unknown one.
    id.parse().map_err(|_| {
        MarketError::new(
            404,
            "no_such_instance",
            format!("Instance {id} was not found."),
        )
    })
}

fn parameter<'a>(call: &Call<'a>, name: &str) -> Option<&'a str> {
    let pair = call.query.iter().find(|(key, _)| key == name);
    pair.map(|(_, value)| value.as_str())
}

// ----------------------------------------------------------------------------------------- offers

fn offers(market: &Market, call: &Call<'_>, search: Search) -> Result<String, MarketError> {
    #[derive(Serialize)]
    struct Answer {
        offers: Vec<RawOffer>,
    }
    let offers = market.search(call.account, &search);
    let length = offers.len() * OFFER_BYTES;
    text_of(&Answer { offers }, length)
}

// -------------------------------------------------------------------------------------- instances

/// Whether a call begins a listing, rather than asking for a further page of one.
fn begins(call: &Call<'_>) -> bool {
    let later = |name| parameter(call, name).is_some_and(|value| !["", "0"].contains(&value));
    let by_offset = call.quirks.honour_offset && later("offset");
    !later("after_token") && !by_offset
}

/// The whole list, or a page of it where the call asks for pages.
fn instances(call: &Call<'_>, mut rows: Vec<RawInstance>) -> Result<String, MarketError> {
    #[derive(Serialize)]
    struct Answer<'a> {
        success: bool,
        instances_found: usize,
        total_instances: usize,
        next_token: Option<String>,
        instances: &'a [RawInstance],
    }
    if let Some(state) = parameter(call, "state").filter(|state| !state.is_empty()) {
        rows.retain(|row| row.actual_status.as_deref() == Some(state));
    }
    rows.sort_by_key(|row| row.id);
    let total = rows.len();
    let limit = parameter(call, "limit").filter(|limit| !limit.is_empty());
    let after = parameter(call, "after_token").filter(|token| !token.is_empty());
    if let Some(token) = after {
        let last = token.strip_prefix("id.").and_then(|id| id.parse().ok());
        let last: u64 = last.ok_or_else(invalid_token)?;
        rows.retain(|row| row.id > last);
    } else if call.quirks.honour_offset {
        let offset = parameter(call, "offset").and_then(|n| n.parse().ok());
        rows.drain(..offset.unwrap_or(0).min(total));
    }
    let mut next_token = None;
    if limit.is_some() || after.is_some() {
        let page = match limit.map(str::parse::<i64>) {
            None => INSTANCES_PAGE,
            Some(Ok(n)) if n <= 0 => INSTANCES_PAGE_MIN,
            Some(Ok(n)) => usize::try_from(n).map_or(INSTANCES_PAGE, |n| n.min(INSTANCES_PAGE)),
            Some(Err(_)) => return Err(invalid_request("limit is not a number")),
        };
        if rows.len() > page {
            rows.truncate(page);
            next_token = rows.last().map(|row| format!("id.{}", row.id));
        }
    }
    text(&Answer {
        success: true,
        instances_found: rows.len(),
        total_instances: total,
        next_token,
        instances: &rows,
    })
}

fn invalid_token() -> MarketError {
    MarketError::new(400, "invalid_token", "Invalid pagination token")
}

/// A field of the body; null is as good as absent, for clients send what they do not set as null.
fn given<'a>(call: &Call<'a>, name: &str) -> Option<&'a Value> {
    call.body.get(name).filter(|value| !value.is_null())
}

fn number(call: &Call<'_>, name: &str) -> Result<Option<f64>, MarketError> {
    let Some(value) = given(call, name) else {
        return Ok(None);
    };
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let number = number.filter(|number: &f64| number.is_finite());
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(MarketError::invalid_args(format_args!(
            "{name} is not a number"
        ))),
    }
}

fn string(call: &Call<'_>, name: &str) -> Result<Option<String>, MarketError> {
    match given(call, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(MarketError::invalid_args(format_args!(
            "{name} is not a text"
        ))),
    }
}

fn truth(call: &Call<'_>, name: &str) -> Result<Option<bool>, MarketError> {
    match given(call, name) {
        None => Ok(None),
        Some(Value::Bool(truth)) => Ok(Some(*truth)),
        Some(_) => Err(MarketError::invalid_args(format_args!(
            "{name} is not a boolean"
        ))),
    }
}

/// A value as the text that a container's environment or arguments get.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn create(market: &mut Market, call: &Call<'_>, priced: bool) -> Result<String, MarketError> {
    let offer_id = match given(call, "offer_id") {
        Some(Value::Number(id)) => id.as_u64(),
        Some(Value::String(id)) => id.trim().parse().ok(),
        _ => None,
    };
    let offer_id = offer_id.ok_or_else(|| MarketError::invalid_args("offer_id is not an id"))?;
    // Anything but an object of entries, or an array of texts, is ignored in silence.
    let env = given(call, "env").and_then(Value::as_object);
    let args = given(call, "args").and_then(Value::as_array);
    let mut params = CreateParams {
        offer_id,
        price: number(call, "price")?.filter(|_| priced),
        image: string(call, "image")?,
        disk: number(call, "disk")?,
        env: env.map_or_else(Vec::new, |entries| {
            let entries = entries.iter();
            entries
                .map(|(key, value)| (key.clone(), plain(value)))
                .collect()
        }),
        onstart: string(call, "onstart")?,
        args: args.map_or_else(Vec::new, |args| args.iter().map(plain).collect()),
        label: string(call, "label")?,
        runtype: string(call, "runtype")?,
        template_hash_id: string(call, "template_hash_id")?,
        image_login: string(call, "image_login")?,
        cancel_unavail: truth(call, "cancel_unavail")?,
    };
    market.complete_by_template(call.account, &mut params);
    let created = market.create(call.account, params)?;
    text(&json!({
        "success": true,
        "new_contract": created.new_contract,
        "instance_api_key": created.instance_api_key,
    }))
}

/// The native route takes a label or a state.
fn update(market: &mut Market, call: &Call<'_>) -> Result<String, MarketError> {
    let id = instance_id(call)?;
    if let Some(label) = string(call, "label")? {
        market.set_label(call.account, id, &label)?;
        return Ok(done());
    }
    match string(call, "state")?.as_deref() {
        Some("stopped") => market.stop(call.account, id).map(|()| done()),
        Some("running") => start(market, call, id),
        _ => Err(MarketError::invalid_args(
            "neither label nor state is given",
        )),
    }
}

fn start(market: &mut Market, call: &Call<'_>, id: u64) -> Result<String, MarketError> {
    let started = market.start(call.account, id)?;
    match started.msg {
        Some(msg) => text(&json!({ "success": started.success, "msg": msg })),
        None => text(&json!({ "success": started.success })),
    }
}

fn destroy(market: &mut Market, call: &Call<'_>, id: u64) -> Result<String, MarketError> {
    market.destroy(call.account, id)?;
    text(&json!({ "success": true, "msg": format!("Instance {id} was destroyed.") }))
}

fn set_bid(market: &mut Market, call: &Call<'_>) -> Result<String, MarketError> {
    let id = instance_id(call)?;
    // A price of null asks the marketplace to pick one that wins; no price at all is a slip.
    if !call.body.contains_key("price") {
        return Err(MarketError::invalid_args("price is not given"));
    }
    market.set_bid(call.account, id, number(call, "price")?)?;
    Ok(done())
}

// --------------------------------------------------------------------------------------- invoices

/// What of the bill a call asks for.
struct Bill {
    from: Time,
    to: Time,
    payments: bool,
    charges: bool,
}

/// Payments and charges, oldest first. `select_filters` narrows them as the native routes do:
/// `when` to payments, `day` to charges, each with a range of epoch seconds; without it, all.
fn invoices(market: &Market, call: &Call<'_>) -> Result<String, MarketError> {
    let Some(bill) = bill(call, market.now())? else {
        return text(&json!({
            "success": false, "error": "Invalid date range",
            "count": 0, "total": 0, "results": [], "next_token": null,
        }));
    };
    let mut rows = Vec::new();
    if bill.charges {
        for row in market.charges(call.account, bill.from, bill.to) {
            let key = (
                Time((row.start * 1000.0).round() as i64),
                row.source.clone(),
            );
            rows.push((key, json!(row)));
        }
    }
    let paid = market.payments(call.account).iter();
    for payment in paid.filter(|_| bill.payments) {
        if (bill.from..=bill.to).contains(&payment.at) {
            let key = format!("payment-{:06}", payment.id);
            rows.push(((payment.at, key), payment.row()));
        }
    }
    rows.sort_by(|(a, _), (b, _)| a.cmp(b));
    let latest_first = parameter(call, "latest_first") == Some("true");
    if latest_first {
        rows.reverse();
    }
    let total = rows.len();
    if let Some(token) = parameter(call, "after_token").filter(|token| !token.is_empty()) {
        let (at, source) = token.split_once('.').ok_or_else(invalid_token)?;
        let last = (
            Time(at.parse().map_err(|_| invalid_token())?),
            source.to_owned(),
        );
        rows.retain(|(key, _)| {
            if latest_first {
                *key < last
            } else {
                *key > last
            }
        });
    }
    let page = match parameter(call, "limit").map(str::parse::<usize>) {
        None => CHARGES_PAGE,
        Some(Ok(n)) => n.clamp(1, CHARGES_PAGE_MAX),
        Some(Err(_)) => return Err(invalid_request("limit is not a number")),
    };
    let more = rows.len() > page;
    rows.truncate(page);
    let next_token = rows
        .last()
        .filter(|_| more)
        .map(|((at, source), _)| format!("{}.{source}", at.0));
    let results: Vec<Value> = rows.into_iter().map(|(_, row)| row).collect();
    text(&json!({
        "success": true, "count": results.len(), "total": total,
        "results": results, "next_token": next_token,
    }))
}

/// What is asked for; `None` where the range is missing or no range.
fn bill(call: &Call<'_>, now: Time) -> Result<Option<Bill>, MarketError> {
    let all = Bill {
        from: call.opened_at,
        to: now,
        payments: true,
        charges: true,
    };
    let Some(given) = parameter(call, "select_filters").filter(|text| !text.is_empty()) else {
        return Ok(Some(all));
    };
    let Ok(Value::Object(filters)) = serde_json::from_str(given) else {
        return Err(invalid_request(
            "Error in query parameters: select_filters is no JSON object",
        ));
    };
    let (range, charges) = match (filters.get("day"), filters.get("when")) {
        (Some(range), _) => (range, true),
        (None, Some(range)) => (range, false),
        (None, None) => return Ok(None),
    };
    let bound = |op: &str| {
        let seconds = match &range[op] {
            Value::String(text) => text.parse().ok(),
            value => value.as_f64(),
        };
        seconds.and_then(Time::from_epoch_seconds)
    };
    Ok(bound("gte").zip(bound("lte")).map(|(from, to)| Bill {
        from,
        to,
        payments: !charges,
        charges,
    }))
}
