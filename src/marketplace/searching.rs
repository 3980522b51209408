//! Searches as the marketplace answers them, whoever carries them: the filter, the paging by price
//! under the row cap, and the rows of a page.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::answer::{Answer, Single};
use super::filters::add_bounds;
use super::rows::{self, GpuNames, OfferRow};
use crate::ports::{OfferPage, ReadError, Reply};
use crate::types::ids::OfferId;
use crate::types::offer::{Market, Offer, OfferQuery};

/// A search never returns more rows, whatever limit is asked for: the marketplace's observed cap.
pub(crate) const ROWS_MAX: usize = 64;

/// Pages of one search. 40 hold some 2,500 rows, more than any one model has; beyond, the answer is
/// incomplete, and at ten searches a minute a poll would last too long.
const PAGES_MAX: usize = 40;

/// Totals nearer than this part of themselves are one price. A total loses its last bits between
/// the marketplace's own number, its JSON and back, and a bound that is off by one bit loses a row.
const PRICE_BLUR: f64 = 1e-9;

/// Where the next page begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Start {
    /// At this total, which the last page ended with: others may have the same.
    At(f64),
    /// Past this total, of which there are more rows than a page holds.
    Past(f64),
}

impl Start {
    /// After a page whose totals ran from `first` to `last`.
    fn after(first: f64, last: f64) -> Self {
        if last - first > 2.0 * PRICE_BLUR * last.abs() {
            Self::At(last)
        } else {
            Self::Past(last)
        }
    }

    /// The bound as it is sent: a hair under the price that is wanted again, a hair over the one
    /// that is not.
    fn bound(self) -> f64 {
        match self {
            Self::At(price) => price - PRICE_BLUR * price.abs(),
            Self::Past(price) => price + PRICE_BLUR * price.abs(),
        }
    }
}

/// One page as it came.
#[derive(Debug, Default)]
pub(crate) struct Page {
    offers: Vec<Offer>,
    /// Totals in the order of the rows, where they could be read.
    totals: Vec<f64>,
    malformed: u32,
}

/// Puts pages together.
#[derive(Debug, Default)]
struct Pager {
    seen: BTreeSet<OfferId>,
    found: OfferPage,
    start: Option<Start>,
}

impl Pager {
    /// Takes a page in. `true`: there is another, from `self.start`.
    fn take(&mut self, page: Page) -> bool {
        let rows = page.offers.len() + page.malformed as usize;
        self.found.malformed += page.malformed;
        for offer in page.offers {
            if self.seen.insert(offer.id) {
                self.found.offers.push(offer);
            }
        }
        if rows < ROWS_MAX {
            self.found.complete = true;
            return false;
        }
        let ordered = page.totals.is_sorted();
        let (Some(&first), Some(&last), true) = (page.totals.first(), page.totals.last(), ordered)
        else {
            // Without an order by price there is no next page.
            return false;
        };
        let begins_right = self.start.is_none_or(|start| {
            let bound = start.bound();
            first >= bound - PRICE_BLUR * bound.abs() / 2.0
        });
        if !begins_right {
            // The bound was not kept to, so every page would be this one.
            return false;
        }
        self.start = Some(Start::after(first, last));
        true
    }
}

/// Asks for page after page until every matching row was seen, or it is known that not all can be.
pub(crate) async fn all_pages<F, Fut>(page_from: F) -> Result<OfferPage, ReadError>
where
    F: Fn(Option<Start>) -> Fut,
    Fut: Future<Output = Result<Page, ReadError>>,
{
    let mut pager = Pager::default();
    let mut stepped_past = false;
    for number in 0..PAGES_MAX {
        let page = match page_from(pager.start).await {
            Ok(page) => page,
            Err(error) if number == 0 => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "a further page of a search failed");
                return Ok(pager.found);
            }
        };
        if !pager.take(page) {
            break;
        }
        stepped_past |= matches!(pager.start, Some(Start::Past(_)));
    }
    pager.found.complete &= !stepped_past;
    Ok(pager.found)
}

/// The word for a search's kind of prices.
pub(crate) fn kind_word(market: Market) -> &'static str {
    match market {
        Market::OnDemand => "on-demand",
        Market::Bid => "bid",
    }
}

/// Reads the rows of searches and keeps the models' names.
#[derive(Debug, Default)]
pub(crate) struct OfferReader {
    names: Mutex<GpuNames>,
}

impl OfferReader {
    /// A page from a reply that was a success, or that `check` finds to be one.
    pub(crate) fn page(
        &self,
        reply: &Reply,
        market: Market,
        check: impl FnOnce(&Answer) -> Result<(), ReadError>,
    ) -> Result<Page, ReadError> {
        let body = std::str::from_utf8(&reply.body)
            .map_err(|_| ReadError::Malformed("the answer is not text".to_owned()))?;
        // The quick way, in one pass without a tree; what it cannot take apart is looked at again.
        if (200..300).contains(&reply.status)
            && let Ok(found) = rows::search_rows(body)
            && found.found
            && !found.failed
        {
            return Ok(self.rows(found.rows.iter().map(|row| row.get()), market));
        }
        let answer = Answer::read(reply);
        check(&answer)?;
        match answer.single(&["offers"]) {
            Single::Row(row) => Ok(self.rows(std::iter::once(row.to_string().as_str()), market)),
            _ => Err(ReadError::Malformed("no list of offers".to_owned())),
        }
    }

    fn rows<'a>(&self, rows: impl Iterator<Item = &'a str>, market: Market) -> Page {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut page = Page::default();
        for json in rows {
            let Ok(row) = OfferRow::parse(json) else {
                page.malformed += 1;
                continue;
            };
            match rows::offer(&row, market, &mut names) {
                Ok(offer) => {
                    page.totals.extend(row.total());
                    page.offers.push(offer);
                }
                Err(_) => page.malformed += 1,
            }
        }
        page
    }

    /// The offer of an id from its row. Another, or one that cannot be read, is no answer.
    pub(crate) fn only(&self, json: &str, id: OfferId) -> Result<Option<Offer>, ReadError> {
        let mut page = self.rows(std::iter::once(json), Market::OnDemand);
        match page.offers.pop() {
            Some(offer) if offer.id == id => Ok(Some(offer)),
            Some(_) => Err(ReadError::Malformed(
                "another offer than was asked for".to_owned(),
            )),
            None => Err(ReadError::Malformed(
                "an offer that cannot be read".to_owned(),
            )),
        }
    }

    /// The offer of an id from the answer of a search for it; `None` where nothing was found.
    pub(crate) fn found(&self, answer: &Answer, id: OfferId) -> Result<Option<Offer>, ReadError> {
        match answer.single(&["offers"]) {
            Single::Row(row) => self.only(&row.to_string(), id),
            Single::Empty => Ok(None),
            Single::Nothing | Single::Unclear => {
                Err(ReadError::Malformed("no list of one offer".to_owned()))
            }
        }
    }
}

/// The marketplace's filter: for each field, operators with a value each, all of which must hold.
#[derive(Debug, Default)]
pub(crate) struct Filter(Map<String, Value>);

impl Filter {
    /// With the filters opened that are set by default.
    pub(crate) fn open() -> Self {
        let mut filter = Self::default();
        for field in ["verified", "rentable", "rented"] {
            filter.and(field, "in", json!([true, false]));
        }
        filter
    }

    /// Adds a condition. Several on one field are all to hold.
    pub(crate) fn and(&mut self, field: &str, operator: &str, value: Value) {
        let conditions = self.0.entry(field).or_insert_with(|| json!({}));
        conditions[operator] = value;
    }

    /// As it is sent.
    pub(crate) fn into_map(self) -> Map<String, Value> {
        self.0
    }

    /// As it is sent in a query.
    pub(crate) fn into_text(self) -> String {
        Value::from(self.0).to_string()
    }
}

/// The filter of a query's page. Fields that are left out have the marketplace's defaults:
/// verified, rentable, not rented.
pub(crate) fn filter(query: &OfferQuery, start: Option<Start>) -> Filter {
    let mut filter = if query.open {
        Filter::open()
    } else {
        Filter::default()
    };
    if let Some(name) = &query.gpu_name {
        filter.and("gpu_name", "eq", json!(name));
    }
    if let Some(machine) = query.machine {
        filter.and("machine_id", "eq", json!(machine.0));
    }
    add_bounds(&mut filter, &query.bounds);
    match start {
        None => {}
        Some(at @ Start::At(_)) => filter.and("dph_total", "gte", json!(at.bound())),
        Some(past @ Start::Past(_)) => filter.and("dph_total", "gt", json!(past.bound())),
    }
    filter
}

/// The filter that finds one offer whatever its state. The marketplace documents a filter on `id`,
/// which was seen to match nothing; this one works.
pub(crate) fn filter_of_one(id: OfferId) -> Filter {
    let mut filter = Filter::open();
    filter.and("ask_contract_id", "eq", json!(id.0));
    filter
}
