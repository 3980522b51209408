//! Counts every operation of a marketplace, by outcome.

use std::sync::Arc;

use async_trait::async_trait;

use crate::ports::{CreateRequest, Marketplace, OfferPage, Outcome, ReadError};
use crate::types::ids::{InstanceId, OfferId};
use crate::types::instance::{Account, Instance, Listing};
use crate::types::intent::Charge;
use crate::types::money::Rate;
use crate::types::offer::{Offer, OfferQuery};
use crate::types::time::Time;

/// Told of each operation and what came of it, both words of closed sets.
pub type Count = Arc<dyn Fn(&'static str, &'static str) + Send + Sync>;

/// A marketplace whose operations are counted.
pub struct Counted {
    inner: Arc<dyn Marketplace>,
    count: Count,
}

impl Counted {
    /// Counts what goes through.
    pub fn new(inner: Arc<dyn Marketplace>, count: Count) -> Self {
        Self { inner, count }
    }

    fn read<T>(
        &self,
        operation: &'static str,
        answer: Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        (self.count)(
            operation,
            match &answer {
                Ok(_) => "ok",
                Err(ReadError::Unreachable(_)) => "unreachable",
                Err(ReadError::Unauthorized { .. }) => "unauthorized",
                Err(ReadError::Throttled { .. }) => "throttled",
                Err(ReadError::Failed { .. }) => "failed",
                Err(ReadError::Malformed(_)) => "malformed",
                Err(ReadError::Unsupported(_)) => "unsupported",
            },
        );
        answer
    }

    fn change<T>(&self, operation: &'static str, outcome: Outcome<T>) -> Outcome<T> {
        (self.count)(
            operation,
            match &outcome {
                Outcome::Done(_) => "ok",
                Outcome::Refused { why, .. } => why.as_str(),
                Outcome::Unknown(_) => "unknown",
            },
        );
        outcome
    }
}

#[async_trait]
impl Marketplace for Counted {
    async fn offers(&self, query: &OfferQuery) -> Result<OfferPage, ReadError> {
        self.read("offers", self.inner.offers(query).await)
    }

    async fn offer(&self, id: OfferId) -> Result<Option<Offer>, ReadError> {
        self.read("offer", self.inner.offer(id).await)
    }

    async fn instances(&self) -> Result<Listing, ReadError> {
        self.read("instances", self.inner.instances().await)
    }

    async fn instance(&self, id: InstanceId) -> Result<Option<Instance>, ReadError> {
        self.read("instance", self.inner.instance(id).await)
    }

    async fn account(&self) -> Result<Account, ReadError> {
        self.read("account", self.inner.account().await)
    }

    async fn charges(&self, from: Time, to: Time) -> Result<Vec<Charge>, ReadError> {
        self.read("charges", self.inner.charges(from, to).await)
    }

    async fn create(&self, request: &CreateRequest) -> Outcome<InstanceId> {
        let operation = if request.bid.is_some() {
            "create-bid"
        } else {
            "create"
        };
        self.change(operation, self.inner.create(request).await)
    }

    async fn set_bid(&self, id: InstanceId, bid: Rate) -> Outcome<()> {
        self.change("set-bid", self.inner.set_bid(id, bid).await)
    }

    async fn stop(&self, id: InstanceId) -> Outcome<()> {
        self.change("stop", self.inner.stop(id).await)
    }

    async fn start(&self, id: InstanceId) -> Outcome<()> {
        self.change("start", self.inner.start(id).await)
    }

    async fn destroy(&self, id: InstanceId) -> Outcome<()> {
        self.change("destroy", self.inner.destroy(id).await)
    }

    fn learnt(&self) -> Vec<(String, Option<String>)> {
        self.inner.learnt()
    }

    fn disable_bids(&self) {
        self.inner.disable_bids();
    }

    fn can_bid(&self) -> bool {
        self.inner.can_bid()
    }
}
