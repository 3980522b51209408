//! Counts every operation of a marketplace, by outcome.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::ports::{CloudCopy, CopyEnd, CreateRequest, Marketplace, OfferPage, Outcome, ReadError};
use crate::types::ids::{InstanceId, MachineId, OfferId};
use crate::types::instance::{Account, Instance, Listing};
use crate::types::intent::Charge;
use crate::types::money::Rate;
use crate::types::notification::{MachineReport, Notification, PriceIncrease};
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

    async fn destroy_many(&self, ids: &[InstanceId]) -> Outcome<()> {
        self.change("destroy-many", self.inner.destroy_many(ids).await)
    }

    async fn set_label(&self, id: InstanceId, label: &str) -> Outcome<()> {
        self.change("set-label", self.inner.set_label(id, label).await)
    }

    async fn notifications(&self) -> Result<Vec<Notification>, ReadError> {
        self.read("notifications", self.inner.notifications().await)
    }

    async fn price_increases(&self) -> Result<Vec<PriceIncrease>, ReadError> {
        self.read("price-increases", self.inner.price_increases().await)
    }

    async fn machine_reports(&self, machine: MachineId) -> Result<Vec<MachineReport>, ReadError> {
        self.read("machine-reports", self.inner.machine_reports(machine).await)
    }

    async fn logs(&self, id: InstanceId, lines: u32) -> Result<Bytes, ReadError> {
        self.read("logs", self.inner.logs(id, lines).await)
    }

    async fn copy(&self, from: &CopyEnd, to: &CopyEnd) -> Outcome<()> {
        self.change("copy", self.inner.copy(from, to).await)
    }

    async fn cloud_copy(&self, copy: &CloudCopy) -> Outcome<()> {
        self.change("cloud-copy", self.inner.cloud_copy(copy).await)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use crate::marketplace::testing::{Scripted, SimClock, run};
    use crate::marketplace::vast::{Vast, VastOptions};
    use secrecy::SecretString;

    #[test]
    fn what_only_some_marketplaces_can_do_goes_through_and_is_counted() {
        let script = Arc::new(Scripted::default());
        let options = VastOptions::new(SecretString::from("vk_counted"));
        let inner = Vast::new(
            script.clone(),
            Arc::new(SimClock::default()),
            options,
            &BTreeMap::new(),
        );
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        let count: Count =
            Arc::new(move |operation, outcome| told.lock().unwrap().push((operation, outcome)));
        let counted = Counted::new(Arc::new(inner), count);
        let id = InstanceId(7);
        let end = CopyEnd {
            instance: id,
            path: "/data".to_owned(),
        };
        let cloud = CloudCopy {
            instance: id,
            connection: "1".to_owned(),
            source: "/data".to_owned(),
            destination: "/bucket".to_owned(),
            upload: true,
        };
        for _ in 0..4 {
            script.reply(200, r#"{"success":true}"#);
        }
        for _ in 0..3 {
            script.reply(200, "[]");
        }
        script.reply(200, r#"{"success":true,"result_url":"https://x/y"}"#);
        script.elsewhere(Ok((200, "log".to_owned())));
        run(async {
            assert_eq!(counted.destroy_many(&[id]).await, Outcome::Done(()));
            assert_eq!(counted.set_label(id, "x").await, Outcome::Done(()));
            assert_eq!(counted.copy(&end, &end).await, Outcome::Done(()));
            assert_eq!(counted.cloud_copy(&cloud).await, Outcome::Done(()));
            assert_eq!(counted.notifications().await, Ok(Vec::new()));
            assert_eq!(counted.price_increases().await, Ok(Vec::new()));
            assert_eq!(counted.machine_reports(MachineId(1)).await, Ok(Vec::new()));
            assert_eq!(counted.logs(id, 5).await, Ok(Bytes::from_static(b"log")));
        });
        let operations: Vec<&str> = seen.lock().unwrap().iter().map(|&(name, _)| name).collect();
        assert_eq!(
            operations,
            [
                "destroy-many",
                "set-label",
                "copy",
                "cloud-copy",
                "notifications",
                "price-increases",
                "machine-reports",
                "logs"
            ]
        );
        assert!(seen.lock().unwrap().iter().all(|&(_, came)| came == "ok"));
    }
}
