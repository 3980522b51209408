//! The client of Vast's own API against the embedded market, over HTTP on loopback and in process,
//! with the marketplace's rate limits held against it.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use haggle::clock::SimClock;
use haggle::market::disputed::Missing;
use haggle::market::faults::Faults;
use haggle::market::transport::InProcess;
use haggle::market::{Disputed, Market, MarketOptions, MarketServer, WireOptions, server};
use haggle::marketplace::http::HttpTransport;
use haggle::marketplace::lowcode::{LowCode, LowCodeOptions};
use haggle::marketplace::vast::{Vast, VastOptions};
use haggle::ports::{
    Clock, CopyEnd, CreateRequest, Marketplace, Outcome, ReadError, RefusedWhy, Transport,
};
use haggle::types::ids::{InstanceId, OfferId};
use haggle::types::money::{Money, Rate};
use haggle::types::offer::{Bounds, Market as Kind, Offer, OfferQuery};
use haggle::types::time::Time;
use secrecy::SecretString;
use tokio::net::TcpListener;

/// Taken by the gateway as well, for what compares the two.
const TOKEN: &str = "at_the_only_one";
const START: Time = Time(1_795_478_400_000);

struct Rig {
    server: Arc<MarketServer>,
    clock: Arc<SimClock>,
    transport: Arc<dyn Transport>,
}

impl Rig {
    /// In process.
    fn new(disputed: Disputed) -> Self {
        let (server, clock) = market(disputed);
        let transport = InProcess::native(server.clone(), Duration::from_secs(30));
        Self {
            server,
            clock,
            transport: Arc::new(transport),
        }
    }

    /// Over HTTP. The server ends with the test's runtime.
    async fn over_http() -> Self {
        let (server, clock) = market(Disputed::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::clone(&server);
        tokio::spawn(server::serve(
            listener,
            served,
            None,
            std::future::pending(),
        ));
        let transport = HttpTransport::new(&base, Duration::from_secs(30)).unwrap();
        Self {
            server,
            clock,
            transport: Arc::new(transport),
        }
    }

    fn client(&self, token: &str) -> Vast {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let options = VastOptions::new(SecretString::from(token));
        Vast::new(self.transport.clone(), clock, options, &BTreeMap::new())
    }

    async fn wait(&self, span: Duration) {
        self.clock.sleep_until(self.clock.now() + span).await;
    }
}

fn market(disputed: Disputed) -> (Arc<MarketServer>, Arc<SimClock>) {
    let clock = Arc::new(SimClock::new(START));
    let market = Market::generated(MarketOptions {
        start: START,
        failures: 0.0,
        intensity: 0.0,
        disputed,
        ..MarketOptions::default()
    });
    let options = WireOptions {
        token: Some(SecretString::from(TOKEN)),
        rate_limits: true,
        ..WireOptions::default()
    };
    let shared: Arc<dyn Clock> = clock.clone();
    let server = MarketServer::new(market, options, Faults::none(), shared);
    (Arc::new(server), clock)
}

fn query(market: Kind) -> OfferQuery {
    OfferQuery {
        market,
        gpu_name: None,
        machine: None,
        disk_gb: 24,
        open: false,
        bounds: Bounds::default(),
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

fn over(floor: Option<Rate>) -> Rate {
    Rate(floor.unwrap().0 + 10_000_000).round_up_to_bid_step()
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
async fn whole_life(rig: &Rig) {
    let client = rig.client(TOKEN);
    let account = client.account().await.unwrap();
    assert_eq!(account.credit, Some(Money::dollars(100)));
    assert!(client.instances().await.unwrap().complete);

    let page = client.offers(&query(Kind::OnDemand)).await.unwrap();
    assert_eq!((page.malformed, page.complete), (0, true));
    assert!(page.offers.len() > 64, "several pages");
    let offer = &page.offers[0];
    assert_eq!(client.offer(offer.id).await.unwrap().as_ref(), Some(offer));
    assert_eq!(client.offer(OfferId(1 << 50)).await, Ok(None));

    let bid = over(offer.floor);
    let id = done(client.create(&request(offer, Some(bid), "hg-a")).await);
    let made = client.instance(id).await.unwrap().unwrap();
    assert_eq!((made.is_bid, made.price), (Some(true), Some(bid)));
    assert_eq!(made.label.as_deref(), Some("hg-a"));
    let raised = Rate(bid.0 + 10_000_000);
    done(client.set_bid(id, raised).await);
    done(client.set_label(id, "hg-a go").await);
    let listing = client.instances().await.unwrap();
    assert!(listing.complete);
    assert_eq!(listing.rows[0].price, Some(raised));
    assert_eq!(listing.rows[0].label.as_deref(), Some("hg-a go"));

    let elsewhere = |o: &&Offer| o.machine != offer.machine;
    let other = page.offers.iter().find(elsewhere).unwrap();
    let fixed = done(client.create(&request(other, None, "hg-b")).await);
    let made = client.instance(fixed).await.unwrap().unwrap();
    assert_eq!((made.is_bid, made.price), (Some(false), other.on_demand));
    let taken = client.create(&request(other, None, "hg-c")).await;
    assert_eq!(why(&taken), Some(RefusedWhy::NoSuchOffer));
    done(client.stop(fixed).await);
    done(client.start(fixed).await);

    rig.wait(Duration::from_hours(2)).await;
    done(client.destroy(id).await);
    done(client.destroy_many(&[fixed]).await);
    for instance in [id, fixed] {
        assert_eq!(client.instance(instance).await, Ok(None));
        let again = client.destroy(instance).await;
        assert_eq!(why(&again), Some(RefusedWhy::NoSuchInstance));
    }
    let charges = client.charges(START, rig.clock.now()).await.unwrap();
    let charged: BTreeSet<InstanceId> = charges
        .iter()
        .filter(|charge| charge.amount > Money::ZERO)
        .filter_map(|charge| charge.instance)
        .collect();
    assert_eq!(charged, BTreeSet::from([id, fixed]));
}

#[tokio::test]
async fn a_whole_life_over_http() {
    whole_life(&Rig::over_http().await).await;
}

#[tokio::test]
async fn a_whole_life_in_process() {
    whole_life(&Rig::new(Disputed::default())).await;
}

#[tokio::test]
async fn logs_copies_and_what_is_told_over_http() {
    let rig = Rig::over_http().await;
    let client = rig.client(TOKEN);
    let page = client.offers(&query(Kind::OnDemand)).await.unwrap();
    let (one, two) = (&page.offers[0], page.offers.last().unwrap());
    let from = done(client.create(&request(one, None, "hg-from")).await);
    let to = done(client.create(&request(two, None, "hg-to")).await);
    rig.wait(Duration::from_hours(1)).await;
    client.logs(from, 20).await.unwrap();
    assert!(client.logs(InstanceId(1 << 50), 20).await.is_err());
    let end = |instance, path: &str| CopyEnd {
        instance,
        path: path.to_owned(),
    };
    done(
        client
            .copy(&end(from, "/workspace"), &end(to, "/workspace"))
            .await,
    );
    let nobody = end(InstanceId(1 << 50), "/x");
    let nowhere = client.copy(&end(from, "/workspace"), &nobody).await;
    assert!(why(&nowhere).is_some(), "{nowhere:?}");
    client.machine_reports(one.machine).await.unwrap();
    assert_eq!(client.price_increases().await, Ok(Vec::new()));
    let told = client.notifications().await.unwrap();
    assert!(told.is_sorted_by_key(|notification| notification.at));
    client.payments(START, rig.clock.now()).await.unwrap();
    done(client.destroy_many(&[from, to]).await);
    let listing = client.instances().await.unwrap();
    assert!(listing.complete && listing.rows.is_empty());
}

#[tokio::test]
async fn many_instances_are_listed_page_by_page() {
    let rig = Rig::new(Disputed::default());
    let client = rig.client(TOKEN);
    let page = client.offers(&query(Kind::OnDemand)).await.unwrap();
    let mut made = BTreeSet::new();
    let mut machines = BTreeSet::new();
    for offer in &page.offers {
        if made.len() < 30 && machines.insert(offer.machine) {
            let label = format!("hg-{}", made.len());
            made.insert(done(client.create(&request(offer, None, &label)).await));
        }
    }
    let listing = client.instances().await.unwrap();
    assert!(listing.complete);
    let listed: BTreeSet<InstanceId> = listing.rows.iter().map(|row| row.id).collect();
    assert_eq!((listed.len(), &listed), (30, &made));
    let all: Vec<InstanceId> = made.into_iter().collect();
    done(client.destroy_many(&all).await);
    assert!(client.instances().await.unwrap().rows.is_empty());
}

/// However the disputed facts are settled, a refusal says what it is about.
#[tokio::test]
async fn statuses_that_sources_dispute_change_nothing() {
    for gone_status in [400, 404, 410] {
        for bad_key_status in [401, 403, 404] {
            for (low_bid_status, missing) in [(400, Missing::Null), (200, Missing::NotFound)] {
                let rig = Rig::new(Disputed {
                    gone_status,
                    bad_key_status,
                    low_bid_status,
                    missing,
                    ..Disputed::default()
                });
                refusals(&rig).await;
            }
        }
    }
}

async fn refusals(rig: &Rig) {
    let client = rig.client(TOKEN);
    assert_eq!(client.instance(InstanceId(1 << 50)).await, Ok(None));
    let page = client.offers(&query(Kind::Bid)).await.unwrap();
    let (offer, last) = (&page.offers[0], page.offers.last().unwrap());
    let bid = over(offer.floor);
    let id = done(client.create(&request(offer, Some(bid), "hg-a")).await);
    let taken = client.create(&request(offer, Some(bid), "hg-b")).await;
    assert_eq!(why(&taken), Some(RefusedWhy::NoSuchOffer));

    let low = Rate(last.floor.unwrap().0 / 2);
    let outcome = client.create(&request(last, Some(low), "hg-low")).await;
    let Outcome::Refused {
        why: low_why,
        leftover,
        ..
    } = outcome
    else {
        panic!("{outcome:?}");
    };
    // We ask for an error rather than a stopped instance, which is then the error of a taken offer.
    let told = [RefusedWhy::BidTooLow, RefusedWhy::NoSuchOffer];
    assert!(told.contains(&low_why), "{low_why:?}");
    let left = client.instances().await.unwrap().rows;
    let ids: BTreeSet<InstanceId> = left.iter().map(|row| row.id).collect();
    assert_eq!(ids, leftover.into_iter().chain([id]).collect());

    let stranger = rig.client("another_key");
    let refused = |error: ReadError| {
        assert!(matches!(error, ReadError::Unauthorized { .. }), "{error}");
        assert!(!error.to_string().contains("another_key"), "{error}");
    };
    refused(stranger.account().await.unwrap_err());
    refused(stranger.instances().await.unwrap_err());
    refused(stranger.instance(id).await.unwrap_err());
    refused(stranger.charges(START, START).await.unwrap_err());
    for outcome in [
        stranger.destroy(id).await,
        stranger.destroy_many(&[id]).await,
        stranger.set_bid(id, bid).await,
    ] {
        assert_eq!(why(&outcome), Some(RefusedWhy::Unauthorized));
    }
}

/// What the gateway passes through and what the marketplace says itself are the same to whoever
/// reads it.
#[tokio::test]
async fn both_ways_to_one_market_read_the_same() {
    let rig = Rig::new(Disputed::default());
    let native = rig.client(TOKEN);
    let clock: Arc<dyn Clock> = rig.clock.clone();
    let passed = InProcess::new(rig.server.clone(), Duration::from_secs(30));
    let options = LowCodeOptions::new(SecretString::from(TOKEN));
    let gateway = LowCode::new(Arc::new(passed), clock, options, &BTreeMap::new());
    let mut bounded = query(Kind::Bid);
    bounded.bounds.total_max = Some(Rate(600_000_000));
    bounded.bounds.gpus = vec![1, 2];
    for query in [query(Kind::OnDemand), bounded] {
        let page = native.offers(&query).await.unwrap();
        assert!(page.complete && !page.offers.is_empty());
        assert_eq!(gateway.offers(&query).await.unwrap(), page);
    }
    let page = native.offers(&query(Kind::OnDemand)).await.unwrap();
    let id = done(native.create(&request(&page.offers[0], None, "hg-x")).await);
    rig.wait(Duration::from_mins(30)).await;
    assert_eq!(gateway.instance(id).await, native.instance(id).await);
    assert_eq!(gateway.instances().await, native.instances().await);
    assert_eq!(
        gateway.account().await.unwrap().id,
        native.account().await.unwrap().id
    );
    let (from, to) = (START, rig.clock.now());
    assert_eq!(
        gateway.charges(from, to).await,
        native.charges(from, to).await
    );
}
