//! Searches, and one offer by id.

use serde_json::{Value, json};

use super::Vast;
use super::routes::Route;
use super::send::Call;
use crate::marketplace::searching::{
    Filter, Page, ROWS_MAX, Start, all_pages, filter, filter_of_one, kind_word,
};
use crate::ports::{OfferPage, ReadError};
use crate::types::ids::OfferId;
use crate::types::offer::{Market, Offer, OfferQuery};

/// The disk, in GB, by which totals are reckoned where nobody asks for them: the least one.
const DISK_GB_MIN: u32 = 8;

impl Vast {
    pub(super) async fn search(&self, query: &OfferQuery) -> Result<OfferPage, ReadError> {
        all_pages(|start| self.page(query, start)).await
    }

    async fn page(&self, query: &OfferQuery, start: Option<Start>) -> Result<Page, ReadError> {
        let body = search_body(filter(query, start), query.market, query.disk_gb);
        let reply = self.read(Call::with(Route::Search, body)).await?;
        self.reader
            .page(&reply, query.market, |answer| self.check(answer))
    }

    /// One offer. There is no route for one: it is searched for, whatever its state.
    pub(super) async fn read_offer(&self, id: OfferId) -> Result<Option<Offer>, ReadError> {
        let body = search_body(filter_of_one(id), Market::OnDemand, DISK_GB_MIN);
        let answer = self.ask(Call::with(Route::Search, body)).await?;
        self.reader.found(&answer, id)
    }
}

/// The body of a search: the filter's fields with the control fields beside them.
fn search_body(filter: Filter, market: Market, disk_gb: u32) -> Value {
    let mut body = filter.into_map();
    body.extend([
        ("type".to_owned(), json!(kind_word(market))),
        ("order".to_owned(), json!([["dph_total", "asc"]])),
        ("limit".to_owned(), json!(ROWS_MAX)),
        ("allocated_storage".to_owned(), json!(disk_gb)),
        // Equal offers of a host are collapsed into one row otherwise, and a slot would seem gone
        // while it is not.
        ("disable_bundling".to_owned(), json!(true)),
    ]);
    Value::from(body)
}
