//! Searches, and one offer by id.

use super::LowCode;
use super::send::place;
use super::wire::{Answer, Single};
use crate::marketplace::operation::Operation;
use crate::marketplace::searching::{
    Page, ROWS_MAX, Start, all_pages, filter, filter_of_one, kind_word,
};
use crate::ports::{OfferPage, ReadError};
use crate::types::ids::OfferId;
use crate::types::offer::{Offer, OfferQuery};

impl LowCode {
    pub(super) async fn search(&self, query: &OfferQuery) -> Result<OfferPage, ReadError> {
        all_pages(|start| self.page(query, start)).await
    }

    async fn page(&self, query: &OfferQuery, start: Option<Start>) -> Result<Page, ReadError> {
        let pairs = [
            ("type", kind_word(query.market).to_owned()),
            ("q", filter(query, start).into_text()),
            ("order", r#"[["dph_total","asc"]]"#.to_owned()),
            ("limit", ROWS_MAX.to_string()),
            ("allocated_storage", query.disk_gb.to_string()),
            // Equal offers of a host are collapsed into one row otherwise, and a slot would seem
            // gone while it is not.
            ("disable_bundling", "true".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let reply = self.read_plain(Operation::Offers, &pairs).await?;
        self.reader.page(&reply, query.market, |answer| {
            self.check(answer, "search offers")
        })
    }

    /// One offer: by the gateway's own operation, and where the provider has no such thing, by a
    /// search, as the marketplace documents it.
    pub(super) async fn read_offer(&self, id: OfferId) -> Result<Option<Offer>, ReadError> {
        let answer = self
            .read_by_id(Operation::Offer, &place(id.0)?, &[])
            .await?;
        if answer.status != 404 || answer.is_unauthorized() {
            self.check(&answer, "look up an offer")?;
            return match answer.single(&["offers", "offer"]) {
                Single::Row(row) => self.reader.only(&row.to_string(), id),
                Single::Nothing | Single::Empty => Ok(None),
                Single::Unclear => Err(ReadError::Malformed("no offer".to_owned())),
            };
        }
        if answer.says("no_such_ask") {
            return Ok(None);
        }
        let pairs = [
            ("type", "on-demand".to_owned()),
            ("q", filter_of_one(id).into_text()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let reply = self.read_plain(Operation::Offers, &pairs).await?;
        let answer = Answer::read(&reply);
        self.check(&answer, "look up an offer")?;
        self.reader.found(&answer, id)
    }
}
