//! The client of the LowCodeAPI gateway.
//!
//! The gateway's document and its behaviour disagree, so nothing here depends on which of its forms
//! it speaks: any envelope or none, either form of URL (`dialect`), errors of the gateway and of the
//! provider. Reads are retried; a mutation is sent once, and what came of it is one of done, refused
//! with a reason, or unknown.

mod account;
mod by_hand;
mod describe;
mod dialect;
mod discover;
mod listing;
mod mutate;
mod routes;
mod search;
mod send;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

pub use describe::{Asked, Description, describe};
pub use routes::{Routes, problem_with_paths};

use self::dialect::Dialect;
use self::discover::Discovery;
use super::answer as wire;
use super::limits::Limits;
use super::operation::Operation;
use super::redact::Redactor;
use super::searching::OfferReader;
use super::sending::READ_RETRIES;
use crate::ports::{
    Charge, Clock, CreateRequest, Marketplace, OfferPage, Outcome, ReadError, Transport,
};
use crate::types::ids::{InstanceId, OfferId};
use crate::types::instance::{Account, Instance, Listing};
use crate::types::money::Rate;
use crate::types::offer::{Offer, OfferQuery};
use crate::types::time::Time;

/// The names of the fields of a create and of a bid. The gateway's document does not give those of
/// bids, so every one can be configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FieldNames {
    /// The offer to rent.
    pub offer_id: String,
    /// The bid in dollars per hour for the whole offer.
    pub price: String,
    /// The image.
    pub image: String,
    /// Disk in GB.
    pub disk: String,
    /// The environment, an object.
    pub env: String,
    /// The start script.
    pub onstart: String,
    /// Arguments, a list.
    pub args: String,
    /// The label.
    pub label: String,
    /// Whether an offer that is taken is an error rather than a stopped instance.
    pub cancel_unavail: String,
    /// How the container is started.
    pub run_type: String,
    /// A template's hash.
    pub template: String,
    /// The login of a private registry.
    pub image_login: String,
}

impl Default for FieldNames {
    fn default() -> Self {
        Self {
            offer_id: "offer_id".to_owned(),
            price: "price".to_owned(),
            image: "image".to_owned(),
            disk: "disk".to_owned(),
            env: "env".to_owned(),
            onstart: "onstart".to_owned(),
            args: "args".to_owned(),
            label: "label".to_owned(),
            cancel_unavail: "cancel_unavail".to_owned(),
            run_type: "runtype".to_owned(),
            template: "template_hash_id".to_owned(),
            image_login: "image_login".to_owned(),
        }
    }
}

/// What the client is told.
#[derive(Clone, Debug)]
pub struct LowCodeOptions {
    /// The gateway's token.
    pub token: SecretString,
    /// Paths by operation name that replace the usual ones; see [`problem_with_paths`].
    pub paths: BTreeMap<String, String>,
    /// Names of the fields of creates and bids.
    pub fields: FieldNames,
    /// Seed of the jitter in waits.
    pub jitter_seed: u64,
    /// Knows further secrets. The token is added to it.
    pub redactor: Arc<Redactor>,
    /// How often a read that failed is tried again; 0 for a command that rather gives up.
    pub read_retries: usize,
    /// Whether the gateway is asked once to describe itself, before its first use.
    pub discover: bool,
}

impl LowCodeOptions {
    /// The usual options with a token.
    pub fn new(token: SecretString) -> Self {
        Self {
            token,
            paths: BTreeMap::new(),
            fields: FieldNames::default(),
            jitter_seed: 0,
            redactor: Arc::default(),
            read_retries: READ_RETRIES,
            discover: false,
        }
    }
}

/// The client.
pub struct LowCode {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    token: SecretString,
    routes: Routes,
    /// `None` where the gateway is not to be asked.
    discovery: Option<Discovery>,
    fields: FieldNames,
    limits: Limits,
    dialect: Dialect,
    redactor: Arc<Redactor>,
    reader: OfferReader,
    can_bid: AtomicBool,
    jitter_seed: u64,
    read_retries: usize,
    /// Reads so far: gives each its own jitter.
    reads: AtomicU64,
}

impl std::fmt::Debug for LowCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LowCode")
    }
}

impl LowCode {
    /// A client that speaks through a transport, waits on a clock, and begins with what it had
    /// learnt before.
    pub fn new(
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        options: LowCodeOptions,
        remembered: &BTreeMap<String, String>,
    ) -> Self {
        options.redactor.add_lasting(options.token.expose_secret());
        Self {
            transport,
            limits: Limits::new(Arc::clone(&clock), options.jitter_seed),
            clock,
            token: options.token,
            routes: Routes::new(options.paths),
            discovery: options.discover.then(Discovery::default),
            fields: options.fields,
            dialect: Dialect::new(remembered),
            redactor: options.redactor,
            reader: OfferReader::default(),
            can_bid: AtomicBool::new(true),
            jitter_seed: options.jitter_seed,
            read_retries: options.read_retries,
            reads: AtomicU64::new(0),
        }
    }

    /// What this client knows to be secret; others may clean their texts with it.
    pub fn redactor(&self) -> Arc<Redactor> {
        Arc::clone(&self.redactor)
    }
}

#[async_trait]
impl Marketplace for LowCode {
    async fn offers(&self, query: &OfferQuery) -> Result<OfferPage, ReadError> {
        self.search(query).await
    }

    async fn offer(&self, id: OfferId) -> Result<Option<Offer>, ReadError> {
        self.read_offer(id).await
    }

    async fn instances(&self) -> Result<Listing, ReadError> {
        self.list_instances().await
    }

    async fn instance(&self, id: InstanceId) -> Result<Option<Instance>, ReadError> {
        self.read_instance(id).await
    }

    async fn account(&self) -> Result<Account, ReadError> {
        self.read_account().await
    }

    async fn charges(&self, from: Time, to: Time) -> Result<Vec<Charge>, ReadError> {
        self.read_charges(from, to).await
    }

    async fn create(&self, request: &CreateRequest) -> Outcome<InstanceId> {
        self.rent(request).await
    }

    async fn set_bid(&self, id: InstanceId, bid: Rate) -> Outcome<()> {
        self.change_bid(id, bid).await
    }

    async fn stop(&self, id: InstanceId) -> Outcome<()> {
        self.act(Operation::StopInstance, id, None).await
    }

    async fn start(&self, id: InstanceId) -> Outcome<()> {
        self.act(Operation::StartInstance, id, None).await
    }

    async fn destroy(&self, id: InstanceId) -> Outcome<()> {
        self.act(Operation::DeleteInstance, id, None).await
    }

    async fn set_label(&self, id: InstanceId, label: &str) -> Outcome<()> {
        self.change_label(id, label).await
    }

    fn learnt(&self) -> Vec<(String, Option<String>)> {
        self.dialect.news()
    }

    fn disable_bids(&self) {
        self.can_bid.store(false, Ordering::SeqCst);
    }

    fn can_bid(&self) -> bool {
        let described = [Operation::CreateBid, Operation::UpdateBid]
            .into_iter()
            .all(|operation| !self.routes.lacks(operation));
        described && self.can_bid.load(Ordering::SeqCst)
    }
}
