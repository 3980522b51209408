//! Replies of any shape, to every operation of both clients. None may panic, and none may lead to a
//! belief that the reply does not support: a refused, failed or unreadable one never becomes a
//! success, nothing is absent unless the reply says just that, and what a client names stands in
//! the reply.
//!
//! An input is a byte that chooses the client, one that chooses the operation, two of the status,
//! and the body; a header line may stand before the body, ended by a zero byte.

#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use haggle::clock::SimClock;
use haggle::marketplace::lowcode::{LowCode, LowCodeOptions};
use haggle::marketplace::vast::{Vast, VastOptions};
use haggle::ports::{
    Clock, CloudCopy, CopyEnd, CreateRequest, Marketplace, Outcome, Reply, Request, Transport,
    TransportError,
};
use haggle::types::ids::{InstanceId, MachineId, OfferId};
use haggle::types::instance::Listing;
use haggle::types::money::Rate;
use haggle::types::offer::{Market, OfferQuery};
use haggle::types::time::Time;
use libfuzzer_sys::fuzz_target;
use secrecy::SecretString;
use serde_json::Value;

const START: Time = Time(1_795_478_400_000);

/// Of which instance everything is asked.
const ID: InstanceId = InstanceId(31_000_000);

struct Always {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Always {
    fn reply(&self) -> Reply {
        Reply {
            status: self.status,
            headers: self.headers.clone(),
            body: self.body.clone(),
        }
    }
}

#[async_trait]
impl Transport for Always {
    async fn send(&self, _request: Request) -> Result<Reply, TransportError> {
        Ok(self.reply())
    }

    async fn fetch(&self, _url: &str) -> Result<Reply, TransportError> {
        Ok(self.reply())
    }
}

/// What a reply says, read without any code of the clients.
struct Said {
    status: u16,
    /// The body in lower case.
    text: String,
    /// Whether it is JSON.
    valid: bool,
    /// The JSON, unless it holds a number too large for any: then nobody can tell what it says.
    json: Option<Value>,
}

impl Said {
    fn new(status: u16, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        Self {
            status,
            valid: serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(),
            json: serde_json::from_str(&text).ok(),
            text: text.to_lowercase(),
        }
    }

    /// Whether it can be a success: by its status, as JSON, and not failed by its own word.
    fn may_succeed(&self) -> bool {
        let failed = self
            .json
            .as_ref()
            .is_some_and(|json| json["success"] == false);
        (200..300).contains(&self.status) && self.valid && !failed
    }

    fn any(&self, accepted: impl Fn(&Value) -> bool + Copy) -> bool {
        match &self.json {
            Some(json) => holds(json, accepted),
            None => self.valid,
        }
    }

    /// Whether it says that there is no such instance: by a null, or in the marketplace's words.
    fn denies_instance(&self) -> bool {
        let null = (200..300).contains(&self.status) && self.any(Value::is_null);
        let word = "no_such_instance";
        let told = self.text.contains(word)
            || self.any(|value| {
                value
                    .as_str()
                    .is_some_and(|text| text.to_lowercase().contains(word))
            });
        null || (self.status == 404 && told)
    }

    fn names(&self, id: u64) -> bool {
        self.any(|value| match value {
            Value::Number(number) => number.as_f64() == Some(id as f64),
            Value::String(text) => {
                text.contains(&id.to_string()) || text.trim().parse() == Ok(id as f64)
            }
            _ => false,
        })
    }
}

/// Whether a value, or one inside it, is accepted.
fn holds(value: &Value, accepted: impl Fn(&Value) -> bool + Copy) -> bool {
    accepted(value)
        || match value {
            Value::Array(values) => values.iter().any(|inner| holds(inner, accepted)),
            Value::Object(map) => map.values().any(|inner| holds(inner, accepted)),
            _ => false,
        }
}

fn create(bid: Option<Rate>) -> CreateRequest {
    CreateRequest {
        offer: OfferId(7),
        bid,
        label: "hg-abcdefgh-job-r0-1".to_owned(),
        disk_gb: 16,
        image: Some("a:1".to_owned()),
        template: None,
        run_type: "ssh",
        onstart: None,
        args: Vec::new(),
        env: Vec::new(),
        image_login: None,
    }
}

/// Asks for one thing, and looks at what was taken from the reply.
async fn ask(marketplace: &dyn Marketplace, operation: u8, said: &Said) {
    let query = OfferQuery {
        gpu_name: Some("RTX 4090".to_owned()),
        disk_gb: 16,
        ..OfferQuery::all(Market::Bid)
    };
    let end = || CopyEnd {
        instance: ID,
        path: "/data".to_owned(),
    };
    match operation % 20 {
        0 => {
            if let Some(page) = read(said, marketplace.offers(&query).await) {
                let told = |offer: &haggle::types::offer::Offer| said.names(offer.id.0);
                assert!(page.offers.iter().all(told), "an offer that was not shown");
            }
        }
        1 => {
            if let Some(listing) = read(said, marketplace.instances().await) {
                listed(said, &listing);
            }
        }
        2 => match marketplace.instance(ID).await {
            Ok(Some(instance)) => {
                assert!(
                    said.may_succeed() && instance.id == ID,
                    "another instance is believed"
                );
            }
            Ok(None) => assert!(said.denies_instance(), "an absence that was not said"),
            Err(_) => {}
        },
        3 => {
            if let Some(account) = read(said, marketplace.account().await) {
                assert!(said.names(account.id.0), "whose account?");
            }
        }
        4 => {
            let day = Duration::from_secs(86_400);
            read(said, marketplace.charges(START, START + day).await);
        }
        5 => made(said, marketplace.create(&create(None)).await),
        6 => made(
            said,
            marketplace.create(&create(Some(Rate(200_000_000)))).await,
        ),
        7 => changed(said, marketplace.set_bid(ID, Rate(200_000_000)).await),
        8 => changed(said, marketplace.stop(ID).await),
        9 => changed(said, marketplace.start(ID).await),
        10 => changed(said, marketplace.destroy(ID).await),
        11 => changed(said, marketplace.destroy_many(&[ID]).await),
        12 => changed(said, marketplace.set_label(ID, "x").await),
        13 => {
            read(said, marketplace.notifications().await);
        }
        14 => {
            read(said, marketplace.price_increases().await);
        }
        15 => {
            read(said, marketplace.machine_reports(MachineId(1)).await);
        }
        16 => {
            let logs = marketplace.logs(ID, 10).await;
            assert!(logs.is_err() || (200..300).contains(&said.status));
        }
        17 => changed(said, marketplace.copy(&end(), &end()).await),
        18 => match marketplace.offer(OfferId(7)).await {
            Ok(Some(offer)) => assert!(said.may_succeed() && offer.id == OfferId(7)),
            Ok(None) => assert!(said.may_succeed() || matches!(said.status, 404 | 410)),
            Err(_) => {}
        },
        _ => {
            let copy = CloudCopy {
                instance: ID,
                connection: "1".to_owned(),
                source: "/a".to_owned(),
                destination: "/b".to_owned(),
                upload: true,
            };
            changed(said, marketplace.cloud_copy(&copy).await);
        }
    }
}

fn read<T, E>(said: &Said, answer: Result<T, E>) -> Option<T> {
    let read = answer.ok()?;
    assert!(said.may_succeed(), "a failed read is believed");
    Some(read)
}

/// A listing that is taken for complete is one from which absences follow.
fn listed(said: &Said, listing: &Listing) {
    assert!(
        listing.rows.is_sorted_by(|a, b| a.id < b.id),
        "an id stands twice, or out of order"
    );
    let told = listing
        .rows
        .iter()
        .map(|row| row.id)
        .chain(listing.unreadable.iter().copied());
    assert!(
        told.into_iter().all(|id| said.names(id.0)),
        "an instance that was not shown"
    );
    if listing.complete {
        assert!(listing.unreadable.is_empty());
        let as_many = |value: &Value| {
            let rows = value.as_array();
            rows.is_some_and(|rows| rows.len() == listing.rows.len())
        };
        assert!(said.any(as_many), "complete, yet no list is that long");
    }
}

fn changed<T>(said: &Said, outcome: Outcome<T>) {
    let done = matches!(outcome, Outcome::Done(_));
    assert!(!done || said.may_succeed(), "an error is taken for done");
}

fn made(said: &Said, outcome: Outcome<InstanceId>) {
    match outcome {
        Outcome::Done(id) => {
            assert!(said.may_succeed(), "an error is taken for done");
            assert!(
                id.0 > 0 && said.names(id.0),
                "an instance that was not named"
            );
        }
        Outcome::Refused { leftover, .. } => {
            assert!(leftover.is_none_or(|id| id.0 > 0));
        }
        Outcome::Unknown(_) => {}
    }
}

fuzz_target!(|input: &[u8]| {
    let [client, operation, high, low, rest @ ..] = input else {
        return;
    };
    // Half of them are successes.
    let status = match u16::from_be_bytes([*high, *low]) {
        0x8000.. => 200,
        status => 200 + status % 400,
    };
    let (header, body) = match rest.iter().position(|&byte| byte == 0) {
        Some(end) => (&rest[..end], &rest[end + 1..]),
        None => (&[][..], rest),
    };
    let header = String::from_utf8_lossy(header).to_ascii_lowercase();
    let headers = header.split_once(':');
    let transport: Arc<dyn Transport> = Arc::new(Always {
        status,
        headers: headers
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .into_iter()
            .collect(),
        body: Bytes::copy_from_slice(body),
    });
    let clock: Arc<dyn Clock> = Arc::new(SimClock::new(START));
    let nothing = BTreeMap::new();
    let token = || SecretString::from("at_fuzz".to_owned());
    let gateway = |discover| LowCodeOptions {
        discover,
        ..LowCodeOptions::new(token())
    };
    let marketplace: Box<dyn Marketplace> = match client % 4 {
        0 => Box::new(LowCode::new(transport, clock, gateway(false), &nothing)),
        1 => Box::new(LowCode::new(transport, clock, gateway(true), &nothing)),
        _ => Box::new(Vast::new(
            transport,
            clock,
            VastOptions::new(token()),
            &nothing,
        )),
    };
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(ask(&*marketplace, *operation, &Said::new(status, body)));
});
