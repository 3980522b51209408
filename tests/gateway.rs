//! The gateway's client against the embedded market, in every dialect that a gateway speaks: both
//! forms of URL, every envelope, with the marketplace's rate limits held against it.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use haggle::clock::SimClock;
use haggle::market::faults::Faults;
use haggle::market::transport::InProcess;
use haggle::market::{Envelope, Market, MarketOptions, MarketServer, Paths, WireOptions};
use haggle::marketplace::lowcode::{LowCode, LowCodeOptions};
use haggle::ports::{Clock, CreateRequest, Marketplace, Outcome, ReadError, RefusedWhy, Transport};
use haggle::types::ids::InstanceId;
use haggle::types::money::{Money, Rate};
use haggle::types::offer::{Market as Kind, Offer, OfferQuery};
use haggle::types::time::Time;
use secrecy::SecretString;

const TOKEN: &str = "at_the_only_one";
const START: Time = Time(1_795_478_400_000);

struct Rig {
    server: Arc<MarketServer>,
    clock: Arc<SimClock>,
    transport: Arc<dyn Transport>,
}

impl Rig {
    fn new(paths: Paths, envelope: Envelope) -> Self {
        let clock = Arc::new(SimClock::new(START));
        let market = Market::generated(MarketOptions {
            start: START,
            failures: 0.0,
            intensity: 0.0,
            ..MarketOptions::default()
        });
        let options = WireOptions {
            paths,
            envelope,
            token: Some(SecretString::from(TOKEN)),
            rate_limits: true,
            ..WireOptions::default()
        };
        let shared: Arc<dyn Clock> = clock.clone();
        let server = Arc::new(MarketServer::new(market, options, Faults::none(), shared));
        let transport: Arc<dyn Transport> =
            Arc::new(InProcess::new(server.clone(), Duration::from_secs(30)));
        Self {
            server,
            clock,
            transport,
        }
    }

    fn client(&self, token: &str, remembered: &BTreeMap<String, String>) -> LowCode {
        self.connect(token, remembered, false)
    }

    fn connect(&self, token: &str, remembered: &BTreeMap<String, String>, ask: bool) -> LowCode {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let options = LowCodeOptions {
            discover: ask,
            ..LowCodeOptions::new(SecretString::from(token))
        };
        LowCode::new(self.transport.clone(), clock, options, remembered)
    }
}

fn dialects() -> impl Iterator<Item = (Paths, Envelope)> {
    [Paths::New, Paths::Old, Paths::Both]
        .into_iter()
        .flat_map(|paths| {
            [Envelope::Data, Envelope::Result, Envelope::None].map(|envelope| (paths, envelope))
        })
}

fn query(market: Kind) -> OfferQuery {
    OfferQuery {
        market,
        gpu_name: None,
        machine: None,
        disk_gb: 24,
        open: false,
        bounds: haggle::types::offer::Bounds::default(),
    }
}

fn request(offer: &Offer, bid: Option<Rate>, label: &str) -> CreateRequest {
    CreateRequest {
        offer: offer.id,
        bid,
        label: label.to_owned(),
        disk_gb: 24,
        image: Some("pytorch/pytorch:2".to_owned()),
        template: None,
        run_type: "args",
        onstart: None,
        args: vec!["train".to_owned()],
        env: vec![("A".to_owned(), "1".to_owned())],
        image_login: None,
    }
}

fn done<T: std::fmt::Debug>(outcome: Outcome<T>) -> T {
    match outcome {
        Outcome::Done(value) => value,
        other => panic!("not done: {other:?}"),
    }
}

fn why<T>(outcome: &Outcome<T>) -> Option<RefusedWhy> {
    match outcome {
        Outcome::Refused { why, .. } => Some(*why),
        _ => None,
    }
}

/// Rents at a bid and on demand, changes, stops, starts and destroys, and reads it all back.
async fn whole_life(rig: &Rig, client: &LowCode) {
    let account = client.account().await.unwrap();
    assert_eq!(account.credit, Some(Money::dollars(100)));
    assert!(client.instances().await.unwrap().complete);

    let page = client.offers(&query(Kind::OnDemand)).await.unwrap();
    assert_eq!((page.malformed, page.complete), (0, true));
    let listed = rig.server.with_market(|market| {
        let rows = market.offers(account.id.0, Kind::OnDemand, 24.0);
        let open = |row: &&haggle::market::RawOffer| {
            let row = serde_json::to_value(row).unwrap();
            row["verification"] == "verified" && row["rentable"] == true && row["rented"] == false
        };
        rows.iter().filter(open).count()
    });
    assert_eq!(page.offers.len(), listed, "every page was seen");

    let offer = &page.offers[0];
    assert_eq!(client.offer(offer.id).await.unwrap().as_ref(), Some(offer));
    let floor = offer.floor.unwrap();
    let bid = Rate(floor.0 + 10_000_000).round_up_to_bid_step();
    let id = done(client.create(&request(offer, Some(bid), "hg-a")).await);
    let made = client.instance(id).await.unwrap().unwrap();
    assert_eq!((made.is_bid, made.price), (Some(true), Some(bid)));
    assert_eq!(made.label.as_deref(), Some("hg-a"));

    let raised = Rate(bid.0 + 10_000_000);
    done(client.set_bid(id, raised).await);
    let listing = client.instances().await.unwrap();
    assert!(listing.complete);
    assert_eq!(listing.rows[0].price, Some(raised));

    let other = page
        .offers
        .iter()
        .find(|o| o.machine != offer.machine)
        .unwrap();
    let fixed = done(client.create(&request(other, None, "hg-b")).await);
    let made = client.instance(fixed).await.unwrap().unwrap();
    assert_eq!((made.is_bid, made.price), (Some(false), other.on_demand));
    assert_eq!(
        why(&client.create(&request(other, None, "hg-c")).await),
        Some(RefusedWhy::NoSuchOffer)
    );
    done(client.stop(fixed).await);
    done(client.start(fixed).await);

    rig.clock
        .sleep_until(rig.clock.now() + Duration::from_hours(2))
        .await;
    for instance in [id, fixed] {
        done(client.destroy(instance).await);
        assert_eq!(client.instance(instance).await, Ok(None));
        assert_eq!(
            why(&client.destroy(instance).await),
            Some(RefusedWhy::NoSuchInstance)
        );
    }
    let charges = client.charges(START, rig.clock.now()).await.unwrap();
    assert!(
        charges
            .iter()
            .any(|c| c.instance == Some(id) && c.amount > Money::ZERO)
    );
    assert!(charges.iter().any(|c| c.instance == Some(fixed)));
}

#[tokio::test]
async fn a_whole_life_in_every_dialect() {
    for (number, (paths, envelope)) in dialects().enumerate() {
        let rig = Rig::new(paths, envelope);
        // Whether it is asked what it can do makes no difference to what is done.
        let client = rig.connect(TOKEN, &BTreeMap::new(), number % 2 == 0);
        whole_life(&rig, &client).await;
        let learnt: BTreeMap<String, String> = client
            .learnt()
            .into_iter()
            .filter_map(|(key, form)| Some((key, form?)))
            .collect();
        let expected = if paths == Paths::Old { "old" } else { "new" };
        for family in ["offers", "instances", "bids"] {
            let form = learnt.get(&format!("lowcode.path.{family}"));
            assert_eq!(
                form.map(String::as_str),
                Some(expected),
                "{paths:?} {family}"
            );
        }
    }
}

/// What was remembered of one gateway does no harm at another.
#[tokio::test]
async fn a_wrong_memory_is_corrected() {
    for (paths, remembered) in [
        (Paths::New, "old"),
        (Paths::Old, "new"),
        (Paths::Both, "old"),
    ] {
        let rig = Rig::new(paths, Envelope::Data);
        let memory = ["offers", "instances", "bids"]
            .map(|family| (format!("lowcode.path.{family}"), remembered.to_owned()));
        let client = rig.client(TOKEN, &BTreeMap::from(memory));
        whole_life(&rig, &client).await;
    }
}

#[tokio::test]
async fn a_wrong_token_is_refused_everywhere() {
    for (paths, envelope) in dialects() {
        let rig = Rig::new(paths, envelope);
        for token in ["at_another", "nonsense"] {
            let client = rig.client(token, &BTreeMap::new());
            let refused = |error: ReadError| {
                assert!(matches!(error, ReadError::Unauthorized { .. }), "{error}");
                assert!(!error.to_string().contains(token), "{error}");
            };
            refused(client.account().await.unwrap_err());
            refused(client.instances().await.unwrap_err());
            refused(client.instance(InstanceId(5)).await.unwrap_err());
            refused(client.offers(&query(Kind::Bid)).await.unwrap_err());
            assert_eq!(
                why(&client.destroy(InstanceId(5)).await),
                Some(RefusedWhy::Unauthorized)
            );
        }
    }
}

/// A bid under the floor either is refused, or leaves a stopped instance that the refusal names.
#[tokio::test]
async fn a_low_bid_never_leaves_anything_unnamed() {
    for (paths, envelope) in dialects() {
        let rig = Rig::new(paths, envelope);
        let client = rig.client(TOKEN, &BTreeMap::new());
        let page = client.offers(&query(Kind::Bid)).await.unwrap();
        let offer = page.offers.last().unwrap();
        let low = Rate(offer.floor.unwrap().0 / 2);
        let outcome = client.create(&request(offer, Some(low), "hg-low")).await;
        let Outcome::Refused { leftover, .. } = outcome else {
            panic!("{outcome:?}");
        };
        let left = client.instances().await.unwrap().rows;
        let ids: Vec<InstanceId> = left.iter().map(|row| row.id).collect();
        assert_eq!(ids, Vec::from_iter(leftover));
    }
}
