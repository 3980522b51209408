//! The client of Vast's own API.
//!
//! No third party holds the key on this way, and the marketplace says more: notifications, pending
//! price increases, reports of machines, logs, copies. Reads are retried; a mutation is sent once,
//! and what came of it is one of done, refused with a reason, or unknown. A 2xx is no success until
//! its body says so, and a 404 is no absence unless it says of what.

mod account;
mod files;
mod listing;
mod mutate;
mod routes;
mod search;
mod send;
mod told;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};

use super::limits::Limits;
use super::redact::Redactor;
use super::rental::refused;
use super::searching::OfferReader;
use super::sending::READ_RETRIES;
use crate::ports::{
    Charge, Clock, CloudCopy, CopyEnd, CreateRequest, Marketplace, OfferPage, Outcome, ReadError,
    RefusedWhy, Transport,
};
use crate::types::ids::{InstanceId, MachineId, OfferId};
use crate::types::instance::{Account, Instance, Listing};
use crate::types::money::Rate;
use crate::types::notification::{MachineReport, Notification, PriceIncrease};
use crate::types::offer::{Offer, OfferQuery};
use crate::types::time::{Mono, Time};

/// What the client is told.
#[derive(Clone, Debug)]
pub struct VastOptions {
    /// The account's key.
    pub token: SecretString,
    /// Knows further secrets. The token is added to it.
    pub redactor: Arc<Redactor>,
    /// Seed of the jitter in waits.
    pub jitter_seed: u64,
    /// How often a read that failed is tried again; 0 for a command that rather gives up.
    pub read_retries: usize,
    /// Whether to use what the gateway has no counterpart of. Without it, both ways to one
    /// marketplace lead to the same requests.
    pub extras: bool,
}

impl VastOptions {
    /// The usual options with a key.
    pub fn new(token: SecretString) -> Self {
        Self {
            token,
            redactor: Arc::default(),
            jitter_seed: 0,
            read_retries: READ_RETRIES,
            extras: true,
        }
    }
}

/// The client.
pub struct Vast {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    token: SecretString,
    limits: Limits,
    redactor: Arc<Redactor>,
    reader: OfferReader,
    jitter_seed: u64,
    read_retries: usize,
    extras: bool,
    /// Reads so far: gives each its own jitter.
    reads: AtomicU64,
    can_bid: AtomicBool,
    /// Since when the paged list of instances is known to be missing.
    unpaged: Mutex<Option<Mono>>,
    /// Whether the inbox, which is not documented, was found to be missing.
    no_inbox: AtomicBool,
    /// Whether destroying several at once was found to be missing.
    no_bulk: AtomicBool,
    news: Mutex<Vec<(String, Option<String>)>>,
}

impl std::fmt::Debug for Vast {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vast")
    }
}

impl Vast {
    /// A client that speaks through a transport, waits on a clock, and begins with what it had
    /// learnt before.
    pub fn new(
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        options: VastOptions,
        remembered: &BTreeMap<String, String>,
    ) -> Self {
        options.redactor.add_lasting(options.token.expose_secret());
        let unpaged = remembered
            .get(listing::LIST_KEY)
            .is_some_and(|word| word == listing::UNPAGED)
            .then(|| clock.monotonic());
        Self {
            transport,
            limits: Limits::new(Arc::clone(&clock), options.jitter_seed),
            clock,
            token: options.token,
            redactor: options.redactor,
            reader: OfferReader::default(),
            jitter_seed: options.jitter_seed,
            read_retries: options.read_retries,
            extras: options.extras,
            reads: AtomicU64::new(0),
            can_bid: AtomicBool::new(true),
            unpaged: Mutex::new(unpaged),
            no_inbox: AtomicBool::new(false),
            no_bulk: AtomicBool::new(false),
            news: Mutex::default(),
        }
    }

    /// What this client knows to be secret; others may clean their texts with it.
    pub fn redactor(&self) -> Arc<Redactor> {
        Arc::clone(&self.redactor)
    }

    /// Refuses a read that only this marketplace has, where such are switched off.
    fn extra(&self, can: &'static str) -> Result<(), ReadError> {
        if self.extras {
            Ok(())
        } else {
            Err(ReadError::Unsupported(can))
        }
    }
}

/// The outcome of what is switched off.
fn switched_off(what: &str) -> Outcome<()> {
    refused(
        RefusedWhy::Unsupported,
        format!("this marketplace cannot {what}"),
    )
}

#[async_trait]
impl Marketplace for Vast {
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
        self.stop_instance(id).await
    }

    async fn start(&self, id: InstanceId) -> Outcome<()> {
        self.start_instance(id).await
    }

    async fn destroy(&self, id: InstanceId) -> Outcome<()> {
        self.destroy_instance(id).await
    }

    async fn destroy_many(&self, ids: &[InstanceId]) -> Outcome<()> {
        if !self.extras {
            return switched_off("destroy in bulk");
        }
        self.destroy_in_bulk(ids).await
    }

    async fn set_label(&self, id: InstanceId, label: &str) -> Outcome<()> {
        self.change_label(id, label).await
    }

    async fn notifications(&self) -> Result<Vec<Notification>, ReadError> {
        self.extra("show notifications")?;
        self.read_inbox().await
    }

    async fn price_increases(&self) -> Result<Vec<PriceIncrease>, ReadError> {
        self.extra("show price increases")?;
        self.read_price_increases().await
    }

    async fn machine_reports(&self, machine: MachineId) -> Result<Vec<MachineReport>, ReadError> {
        self.extra("show reports of a machine")?;
        self.read_reports(machine).await
    }

    async fn logs(&self, id: InstanceId, lines: u32) -> Result<Bytes, ReadError> {
        self.extra("show logs")?;
        self.read_logs(id, lines).await
    }

    async fn copy(&self, from: &CopyEnd, to: &CopyEnd) -> Outcome<()> {
        if !self.extras {
            return switched_off("copy between instances");
        }
        self.begin_copy(from, to).await
    }

    async fn cloud_copy(&self, copy: &CloudCopy) -> Outcome<()> {
        if !self.extras {
            return switched_off("copy to cloud storage");
        }
        self.begin_cloud_copy(copy).await
    }

    fn learnt(&self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn disable_bids(&self) {
        self.can_bid.store(false, Ordering::SeqCst);
    }

    fn can_bid(&self) -> bool {
        self.can_bid.load(Ordering::SeqCst)
    }
}
