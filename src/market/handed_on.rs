//! Operations that the gateway hands on to the marketplace's own routes: what it is asked is put
//! into the native words, and the native answer is the answer.

use serde_json::{Map, Value, json};

use super::api::MarketError;
use super::native::routes::{Family, Operation as Native};
use super::native::{self, Call as NativeCall};
use super::operations::Call;
use super::routes::Operation;
use super::sim::Market;

/// What the gateway calls the terms of a listing, and their native names. `verified` is documented
/// though no host can set it: it is passed over.
const TERMS: &[(&str, &str)] = &[
    ("price", "price_gpu"),
    ("min_bid", "price_min_bid"),
    ("discount", "credit_discount_max"),
    ("machine_id", "machine"),
];

/// Performs an operation by its native counterpart.
pub(super) fn perform(
    market: &mut Market,
    operation: Operation,
    call: &Call<'_>,
) -> Result<String, MarketError> {
    use Family::{Account, Host, Records};
    match operation {
        Operation::MachinesList => native(market, Host, Native::Machines, call, None, None),
        Operation::MachineGet => native(market, Host, Native::Machine, call, None, None),
        Operation::MachineCreate | Operation::MachineUpdate => {
            let terms = terms(call);
            native(market, Host, Native::ListMachine, call, None, Some(&terms))
        }
        Operation::MachineDelete => native(market, Host, Native::UnlistMachine, call, None, None),
        Operation::UserGet => user(market, call),
        Operation::UserUpdate => native(market, Account, Native::UpdateUser, call, None, None),
        Operation::TemplatesList => native(market, Records, Native::Templates, call, None, None),
        Operation::TemplateGet => {
            let (name, id) = template(call);
            let filters = json!({name: {"eq": id}}).to_string();
            let query = [("select_filters".to_owned(), filters)];
            native(market, Records, Native::Templates, call, Some(&query), None)
        }
        Operation::TemplateCreate => {
            native(market, Records, Native::CreateTemplate, call, None, None)
        }
        Operation::TemplateUpdate => {
            let (name, id) = template(call);
            let mut body = call.body.clone();
            body.remove("id");
            body.insert(name.to_owned(), id);
            native(
                market,
                Records,
                Native::UpdateTemplate,
                call,
                None,
                Some(&body),
            )
        }
        Operation::TemplateDelete => {
            let (name, id) = template(call);
            let name = if name == "id" { "template_id" } else { name };
            let body = Map::from_iter([(name.to_owned(), id)]);
            native(
                market,
                Records,
                Native::DeleteTemplate,
                call,
                None,
                Some(&body),
            )
        }
        Operation::SshKeysList => native(market, Records, Native::SshKeys, call, None, None),
        Operation::SshKeyCreate => native(market, Records, Native::CreateSshKey, call, None, None),
        Operation::SshKeyDelete => native(market, Records, Native::DeleteSshKey, call, None, None),
        Operation::InvoiceGet => invoice(market, call),
        other => {
            let words = format!("{other:?} is not served");
            Err(MarketError::new(501, "server_error", words))
        }
    }
}

/// Calls a native operation with the gateway call's id, and its query and body unless others are
/// given.
fn native(
    market: &mut Market,
    family: Family,
    operation: Native,
    call: &Call<'_>,
    query: Option<&[(String, String)]>,
    body: Option<&Map<String, Value>>,
) -> Result<String, MarketError> {
    let ids: Vec<String> = call.id.map(str::to_owned).into_iter().collect();
    let call = NativeCall {
        account: Some(call.account),
        ids: &ids,
        query: query.unwrap_or(call.query),
        body: body.unwrap_or(call.body),
        origin: "",
    };
    native::answer(market, family, operation, &call)
}

/// The terms of a listing in the native words; words that are native already pass.
fn terms(call: &Call<'_>) -> Map<String, Value> {
    let mut terms = Map::new();
    for (name, value) in call.body.iter().filter(|(_, value)| !value.is_null()) {
        let renamed = TERMS.iter().find(|(gateway, _)| gateway == name);
        let name = renamed.map_or(name.as_str(), |(_, native)| *native);
        terms.insert(name.to_owned(), value.clone());
    }
    if let Some(id) = call.id {
        terms.insert("machine".to_owned(), json!(id));
    }
    terms
}

/// A template is named by its number, or by its hash.
fn template(call: &Call<'_>) -> (&'static str, Value) {
    let id = call.id.unwrap_or("null");
    match id.parse::<u64>() {
        Ok(number) => ("id", json!(number)),
        Err(_) => ("hash_id", json!(id)),
    }
}

/// The caller itself: nobody reads another user.
fn user(market: &mut Market, call: &Call<'_>) -> Result<String, MarketError> {
    let id = call.id.unwrap_or("null");
    if id.parse() == Ok(call.account) || id.eq_ignore_ascii_case("me") || id == "current" {
        return native(market, Family::Account, Native::User, call, None, None);
    }
    let words = "A key reads its own user only.";
    Err(MarketError::new(403, "not_authorized", words))
}

/// One payment; the marketplace itself has no route by id.
fn invoice(market: &Market, call: &Call<'_>) -> Result<String, MarketError> {
    let id: Option<u64> = call.id.and_then(|id| id.parse().ok());
    let mut payments = market.payments(call.account).iter();
    match payments.find(|payment| Some(payment.id) == id) {
        Some(payment) => Ok(payment.invoice(call.account).to_string()),
        None => Err(MarketError::new(404, "not_found", "No such invoice.")),
    }
}

#[cfg(test)]
mod tests;
