//! Searches, paged by price, and one offer by id.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use serde_json::{Value, json};

use super::LowCode;
use super::routes::Operation;
use super::wire::{Answer, Single};
use crate::marketplace::filters::add_bounds;
use crate::marketplace::rows::{self, OfferRow};
use crate::ports::{OfferPage, ReadError};
use crate::types::ids::OfferId;
use crate::types::offer::{Market, Offer, OfferQuery};

/// A search never returns more rows, whatever limit is asked for: the marketplace's observed cap.
const ROWS_MAX: usize = 64;

/// Pages of one search. 40 hold some 2,500 rows, more than any one model has; beyond, the answer is
/// incomplete, and at ten searches a minute a poll would last too long.
const PAGES_MAX: usize = 40;

/// Totals nearer than this part of themselves are one price. A total loses its last bits between
/// the marketplace's own number, its JSON and back, and a bound that is off by one bit loses a row.
const PRICE_BLUR: f64 = 1e-9;

/// Where the next page begins.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
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
struct Page {
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

impl LowCode {
    pub(super) async fn search(&self, query: &OfferQuery) -> Result<OfferPage, ReadError> {
        let mut pager = Pager::default();
        let mut stepped_past = false;
        for number in 0..PAGES_MAX {
            let page = match self.page(query, pager.start).await {
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

    async fn page(&self, query: &OfferQuery, start: Option<Start>) -> Result<Page, ReadError> {
        let kind = match query.market {
            Market::OnDemand => "on-demand",
            Market::Bid => "bid",
        };
        let pairs = [
            ("type", kind.to_owned()),
            ("q", filter(query, start).to_string()),
            ("order", r#"[["dph_total","asc"]]"#.to_owned()),
            ("limit", ROWS_MAX.to_string()),
            ("allocated_storage", query.disk_gb.to_string()),
            // Equal offers of a host are collapsed into one row otherwise, and a slot would seem
            // gone while it is not.
            ("disable_bundling", "true".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let reply = self.read_plain(Operation::Offers, &pairs).await?;
        let body = std::str::from_utf8(&reply.body)
            .map_err(|_| ReadError::Malformed("the answer is not text".to_owned()))?;
        // The quick way, in one pass without a tree; what it cannot take apart is looked at again.
        if (200..300).contains(&reply.status)
            && let Ok(found) = rows::search_rows(body)
            && found.found
            && !found.failed
        {
            return Ok(self.read_rows(found.rows.iter().map(|row| row.get()), query.market));
        }
        let answer = Answer::read(&reply);
        self.check(&answer, "search offers")?;
        match answer.single(&["offers"]) {
            Single::Row(row) => {
                Ok(self.read_rows(std::iter::once(row.to_string().as_str()), query.market))
            }
            _ => Err(ReadError::Malformed("no list of offers".to_owned())),
        }
    }

    fn read_rows<'a>(&self, rows: impl Iterator<Item = &'a str>, market: Market) -> Page {
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

    /// One offer: by the gateway's own operation, and where the provider has no such thing, by a
    /// search, as the marketplace documents it.
    pub(super) async fn read_offer(&self, id: OfferId) -> Result<Option<Offer>, ReadError> {
        let answer = self.read_by_id(Operation::Offer, id.0).await?;
        if answer.status != 404 || answer.is_unauthorized() {
            self.check(&answer, "look up an offer")?;
            return match answer.single(&["offers", "offer"]) {
                Single::Row(row) => self.only(&row.to_string(), id),
                Single::Nothing | Single::Empty => Ok(None),
                Single::Unclear => Err(ReadError::Malformed("no offer".to_owned())),
            };
        }
        if answer.says("no_such_ask") {
            return Ok(None);
        }
        let mut q = open_filter();
        q["ask_contract_id"] = json!({ "eq": id.0 });
        let pairs = [("type", "on-demand".to_owned()), ("q", q.to_string())]
            .map(|(name, value)| (name.to_owned(), value));
        let reply = self.read_plain(Operation::Offers, &pairs).await?;
        let answer = Answer::read(&reply);
        self.check(&answer, "look up an offer")?;
        match answer.single(&["offers"]) {
            Single::Row(row) => self.only(&row.to_string(), id),
            Single::Empty => Ok(None),
            Single::Nothing | Single::Unclear => {
                Err(ReadError::Malformed("no list of one offer".to_owned()))
            }
        }
    }

    fn only(&self, json: &str, id: OfferId) -> Result<Option<Offer>, ReadError> {
        let mut page = self.read_rows(std::iter::once(json), Market::OnDemand);
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
}

/// The marketplace's filter: a field, an operator, a value. Fields that are left out have its
/// defaults: verified, rentable, not rented.
fn filter(query: &OfferQuery, start: Option<Start>) -> Value {
    let mut q = if query.open { open_filter() } else { json!({}) };
    if let Some(name) = &query.gpu_name {
        q["gpu_name"] = json!({ "eq": name });
    }
    if let Some(machine) = query.machine {
        q["machine_id"] = json!({ "eq": machine.0 });
    }
    add_bounds(&mut q, &query.bounds);
    match start {
        None => {}
        Some(at @ Start::At(_)) => q["dph_total"]["gte"] = json!(at.bound()),
        Some(past @ Start::Past(_)) => q["dph_total"]["gt"] = json!(past.bound()),
    }
    q
}

/// Opens the filters that are set by default.
fn open_filter() -> Value {
    let any = json!({ "in": [true, false] });
    json!({ "verified": any, "rentable": any, "rented": any })
}
