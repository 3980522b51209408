//! Searches.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::routes::Operation;
use super::{Call, invalid_request, not_here, written};
use crate::market::api::MarketError;
use crate::market::operations::{OFFER_BYTES, text_of};
use crate::market::query::Search;
use crate::market::raw::RawOffer;
use crate::market::sim::Market;
use crate::types::offer::Market as SearchType;

/// Performs an operation of this family.
pub(super) fn perform(
    market: &mut Market,
    operation: Operation,
    call: &Call<'_>,
) -> Result<String, MarketError> {
    match operation {
        Operation::Search => found(market, call, &read(call.body)?),
        Operation::SearchByQuery => {
            let search = Search::parse(call.query, false).map_err(invalid_request)?;
            found(market, call, &search)
        }
        Operation::SearchAsks => {
            let filters = match call.field("q") {
                Some(Value::Object(filters)) => filters.clone(),
                None => Map::new(),
                Some(_) => return Err(invalid_request("q is not an object")),
            };
            let columns = columns(call.field("select_cols"))?;
            let rows = rows(market, call, &read(&filters)?);
            match columns {
                None => written(&json!({ "offers": rows })),
                Some(columns) => {
                    let rows: Vec<Value> = rows
                        .iter()
                        .map(|row| selected(&json!(row), &columns))
                        .collect();
                    written(&json!({ "offers": rows }))
                }
            }
        }
        Operation::GpuNames => {
            let rows = market.offers(0, SearchType::OnDemand, 0.0);
            let names: BTreeSet<&str> = rows.iter().map(|row| &*row.gpu_name).collect();
            written(&json!({ "gpu_names": names }))
        }
        _ => Err(not_here(operation)),
    }
}

/// The best offer of a search, for whoever rents the first that fits.
pub(super) fn first(
    market: &Market,
    call: &Call<'_>,
    filters: &Map<String, Value>,
) -> Result<Option<RawOffer>, MarketError> {
    Ok(rows(market, call, &read(filters)?).into_iter().next())
}

fn read(filters: &Map<String, Value>) -> Result<Search, MarketError> {
    Search::of_object(filters).map_err(invalid_request)
}

fn found(market: &Market, call: &Call<'_>, search: &Search) -> Result<String, MarketError> {
    #[derive(Serialize)]
    struct Answer {
        offers: Vec<RawOffer>,
    }
    let offers = rows(market, call, search);
    let length = offers.len() * OFFER_BYTES;
    text_of(&Answer { offers }, length)
}

fn rows(market: &Market, call: &Call<'_>, search: &Search) -> Vec<RawOffer> {
    market.search(call.account.unwrap_or(0), search)
}

/// The columns that are asked for; `None` for all.
///
/// # Errors
/// 400 `invalid_request` where it is no list of names.
pub(super) fn columns(asked: Option<&Value>) -> Result<Option<Vec<String>>, MarketError> {
    let wrong = || invalid_request("Error in query parameters: select_cols is no list of names");
    let Some(asked) = asked else {
        return Ok(None);
    };
    let names: Vec<String> = asked
        .as_array()
        .ok_or_else(wrong)?
        .iter()
        .map(|name| name.as_str().map(str::to_owned).ok_or_else(wrong))
        .collect::<Result<_, _>>()?;
    Ok(Some(names).filter(|names| !names.is_empty() && !names.iter().any(|name| name == "*")))
}

/// A row with these columns only; one that it does not have is null.
pub(super) fn selected(row: &Value, columns: &[String]) -> Value {
    let pairs = columns
        .iter()
        .map(|name| (name.clone(), row.get(name).cloned().unwrap_or(Value::Null)));
    Value::Object(pairs.collect())
}
