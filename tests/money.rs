//! The daemon against a marketplace whose answers are twisted: what is told wrongly, late or not at
//! all must neither cost money nor leak an instance.

#![allow(clippy::unwrap_used)] // A test that cannot go on says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use haggle::clock::SimClock;
use haggle::daemon::{Daemon, DaemonError, Looking, Observer, Pace, Parts, Settings, TickView};
use haggle::market::faults::Faults;
use haggle::market::transport::InProcess;
use haggle::market::{Market, MarketOptions, MarketServer, WireOptions};
use haggle::marketplace::vast::{Vast, VastOptions};
use haggle::ports::{
    Charge, Clock, CreateRequest, Marketplace, OfferPage, Outcome, ReadError, RefusedWhy, Store,
};
use haggle::simulate::{FixedPolicies, PlaySecrets};
use haggle::store::{Reader, SqliteStore, append_request, set_kill_file};
use haggle::types::ids::{AccountId, InstanceId, OfferId};
use haggle::types::instance::{Account, DestroyWhy, Instance, Listing, Phase, RawState, Rental};
use haggle::types::job::Job;
use haggle::types::money::{Money, Rate};
use haggle::types::notification::{Notification, NotificationKind, PriceIncrease};
use haggle::types::offer::{Bounds, Market as Kind, Offer, OfferQuery};
use haggle::types::state::{Ask, Change, Event, Wish};
use haggle::types::time::{Mono, Time};
use haggle::types::world::EngineConfig;
use secrecy::SecretString;

const START: Time = Time(1_767_643_200_000);

/// How a marketplace's answers are twisted, and what was asked of it.
#[derive(Default)]
struct Twist {
    /// Instances that neither lists nor reads by id show.
    hidden: BTreeSet<InstanceId>,
    /// Instances that are shown as stopped, whatever they do.
    stopped: BTreeSet<InstanceId>,
    /// Bids that listings show in place of those that are.
    bids_shown: BTreeMap<InstanceId, Rate>,
    /// The second create is answered so, from the instance of the first.
    second: Option<fn(InstanceId) -> Outcome<InstanceId>>,
    first: Option<InstanceId>,
    /// The first create arrives twice: the second copy's answer comes back, and what the first one
    /// made is hidden. `Some(false)`: it arrives once, and somebody else was faster.
    arrives_twice: Option<bool>,
    /// Listings are empty.
    empty: bool,
    /// What the inbox holds once it is time; without, there is none.
    inbox: Option<Vec<Notification>>,
    /// What hosts ask for, and since when.
    increases: Vec<PriceIncrease>,
    increases_since: Time,
    /// The token is refused until then.
    refused_until: Option<Time>,
    /// Bids come out as on-demand rentals.
    ignores_bids: bool,
    /// Neither lists nor reads by id are answered, from the first create on.
    blind_once_made: bool,
    blind: bool,
    /// Stops are not answered, and have no effect, until then.
    stops_lost_until: Option<Time>,
    /// Whose account the token opens, after so many more reads of that.
    opens: Option<(usize, AccountId)>,
    /// What the account shows as its credit, after so many more reads of that.
    credit: Option<(usize, Option<Money>)>,
    /// What happens when the offer that is to be rented is looked at once more.
    then: Option<Box<dyn FnOnce() + Send>>,
    starts: usize,
    destroys: Vec<InstanceId>,
    creates: usize,
    inbox_reads: usize,
}

struct Twisted {
    inner: Vast,
    clock: Arc<SimClock>,
    twist: Mutex<Twist>,
}

impl Twisted {
    fn with<T>(&self, f: impl FnOnce(&mut Twist) -> T) -> T {
        f(&mut self.twist.lock().unwrap())
    }

    fn seeing(&self) -> Result<(), ReadError> {
        if self.with(|twist| twist.blind) {
            return Err(ReadError::Malformed("no answer".to_owned()));
        }
        Ok(())
    }

    fn shown(&self, mut row: Instance) -> Instance {
        if let Some(&bid) = self
            .with(|twist| twist.bids_shown.get(&row.id).copied())
            .as_ref()
        {
            row.price = Some(bid);
        }
        if self.with(|twist| twist.stopped.contains(&row.id)) {
            let stopped = Some(RawState::Stopped);
            (row.cur_state, row.next_state) = (stopped, stopped);
            row.actual = Some(RawState::Exited);
        }
        row
    }
}

#[async_trait]
impl Marketplace for Twisted {
    async fn offers(&self, query: &OfferQuery) -> Result<OfferPage, ReadError> {
        self.inner.offers(query).await
    }

    async fn offer(&self, id: OfferId) -> Result<Option<Offer>, ReadError> {
        if let Some(then) = self.with(|twist| twist.then.take()) {
            then();
        }
        self.inner.offer(id).await
    }

    async fn instances(&self) -> Result<Listing, ReadError> {
        self.seeing()?;
        let mut listing = self.inner.instances().await?;
        if self.with(|twist| twist.empty) {
            listing.rows.clear();
        }
        let hidden = self.with(|twist| twist.hidden.clone());
        listing.rows.retain(|row| !hidden.contains(&row.id));
        let rows = std::mem::take(&mut listing.rows).into_iter();
        listing.rows = rows.map(|row| self.shown(row)).collect();
        Ok(listing)
    }

    async fn instance(&self, id: InstanceId) -> Result<Option<Instance>, ReadError> {
        self.seeing()?;
        if self.with(|twist| twist.hidden.contains(&id)) {
            return Ok(None);
        }
        let row = self.inner.instance(id).await?;
        Ok(row.map(|row| self.shown(row)))
    }

    async fn account(&self) -> Result<Account, ReadError> {
        let until = self.with(|twist| twist.refused_until);
        if until.is_some_and(|until| self.clock.now() < until) {
            return Err(ReadError::Unauthorized {
                status: 404,
                message: "Session expired. Please log in again.".to_owned(),
            });
        }
        let mut account = self.inner.account().await?;
        self.with(|twist| {
            if let Some((reads, opened)) = &mut twist.opens {
                if *reads == 0 {
                    account.id = *opened;
                }
                *reads = reads.saturating_sub(1);
            }
            if let Some((reads, credit)) = &mut twist.credit {
                if *reads == 0 {
                    account.credit = *credit;
                }
                *reads = reads.saturating_sub(1);
            }
        });
        Ok(account)
    }

    async fn charges(&self, from: Time, to: Time) -> Result<Vec<Charge>, ReadError> {
        self.inner.charges(from, to).await
    }

    async fn create(&self, request: &CreateRequest) -> Outcome<InstanceId> {
        let mut request = request.clone();
        self.with(|twist| {
            if twist.ignores_bids {
                request.bid = None;
            }
            twist.blind |= twist.blind_once_made;
        });
        if let Some(is_ours) = self.with(|twist| twist.arrives_twice.take()) {
            let mut other = request.clone();
            if !is_ours {
                "somebody-elses".clone_into(&mut other.label);
            }
            if let Outcome::Done(id) = self.inner.create(&other).await {
                self.with(|twist| twist.hidden.insert(id));
            }
        }
        let outcome = self.inner.create(&request).await;
        self.with(|twist| {
            twist.creates += 1;
            if let (2, Some(answer), Some(first)) = (twist.creates, twist.second, twist.first) {
                return answer(first);
            }
            if let Outcome::Done(id) = outcome {
                twist.first = twist.first.or(Some(id));
            }
            outcome
        })
    }

    async fn set_bid(&self, id: InstanceId, bid: Rate) -> Outcome<()> {
        self.inner.set_bid(id, bid).await
    }

    async fn stop(&self, id: InstanceId) -> Outcome<()> {
        let until = self.with(|twist| twist.stops_lost_until);
        if until.is_some_and(|until| self.clock.now() < until) {
            return Outcome::Unknown("no answer".to_owned());
        }
        self.inner.stop(id).await
    }

    async fn start(&self, id: InstanceId) -> Outcome<()> {
        self.with(|twist| twist.starts += 1);
        self.inner.start(id).await
    }

    async fn destroy(&self, id: InstanceId) -> Outcome<()> {
        self.with(|twist| twist.destroys.push(id));
        self.inner.destroy(id).await
    }

    async fn notifications(&self) -> Result<Vec<Notification>, ReadError> {
        self.with(|twist| {
            twist.inbox_reads += 1;
            let mut inbox = twist.inbox.clone();
            if let Some(rows) = &mut inbox {
                rows.retain(|row| row.at.is_some_and(|at| at <= self.clock.now()));
            }
            inbox.ok_or(ReadError::Unsupported("show notifications"))
        })
    }

    async fn price_increases(&self) -> Result<Vec<PriceIncrease>, ReadError> {
        let now = self.clock.now();
        Ok(self.with(|twist| {
            let mut increases = twist.increases.clone();
            increases.retain(|_| now >= twist.increases_since);
            increases
        }))
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

/// When each tick was decided.
struct Ticks(Arc<Mutex<Vec<Time>>>);

impl Observer for Ticks {
    fn ticked(&mut self, view: &TickView<'_>) {
        self.0.lock().unwrap().push(view.world.now);
    }
}

/// A wall clock that somebody sets back by an hour.
struct SetBack {
    inner: Arc<SimClock>,
    at: Time,
}

#[async_trait]
impl Clock for SetBack {
    fn now(&self) -> Time {
        let now = self.inner.now();
        if now >= self.at {
            now - Duration::from_secs(3600)
        } else {
            now
        }
    }

    fn monotonic(&self) -> Mono {
        self.inner.monotonic()
    }

    async fn sleep_until(&self, deadline: Time) {
        let left = deadline.since(self.now());
        self.inner.sleep_until(self.inner.now() + left).await;
    }
}

struct Town {
    /// The clock that daemons see; without, the market's.
    daemons_clock: Option<Arc<dyn Clock>>,
    clock: Arc<SimClock>,
    twisted: Arc<Twisted>,
    ticks: Arc<Mutex<Vec<Time>>>,
    directory: tempfile::TempDir,
    jobs: Vec<Arc<Job>>,
    poll_every: Duration,
    min_runway: Option<Duration>,
}

fn job(replicas: u32) -> Arc<Job> {
    rented_as("interruptible", replicas, true)
}

fn rented_as(rental: &str, replicas: u32, disposable: bool) -> Arc<Job> {
    let text = format!(
        r#"
        name = "serve"
        rental = "{rental}"
        replicas = {replicas}
        finish = "never"
        [run]
        image = "a/b:c"
        [gpu]
        models = ["RTX 3060", "RTX 3070", "RTX 3080", "RTX 4070", "RTX 3090"]
        count = 1
        [machine]
        disk = "12GB"
        [price]
        max = "$0.30/gpu-hour"
        [budget]
        total = "$40"
        [data]
        disposable = {disposable}
        "#
    );
    Arc::new(haggle::policy::parse("serve.toml", &text).unwrap())
}

impl Town {
    /// A market that stands still, so that nothing happens but what the test does.
    fn new(replicas: u32) -> Self {
        let clock = Arc::new(SimClock::new(START));
        let market = Market::generated(MarketOptions {
            seed: 5,
            start: START,
            machines: Some(120),
            intensity: 0.0,
            failures: 0.0,
            ..MarketOptions::default()
        });
        let server = MarketServer::new(
            market,
            WireOptions::default(),
            Faults::none(),
            clock.clone(),
        );
        let transport = InProcess::native(Arc::new(server), Duration::from_secs(20));
        let options = VastOptions::new(SecretString::from("vk_play"));
        let inner = Vast::new(
            Arc::new(transport),
            clock.clone(),
            options,
            &BTreeMap::new(),
        );
        let twisted = Twisted {
            inner,
            clock: clock.clone(),
            twist: Mutex::default(),
        };
        Self {
            daemons_clock: None,
            clock,
            twisted: Arc::new(twisted),
            ticks: Arc::default(),
            directory: tempfile::tempdir().unwrap(),
            jobs: vec![job(replicas)],
            poll_every: Duration::from_secs(60),
            min_runway: None,
        }
    }

    fn database(&self) -> std::path::PathBuf {
        self.directory.path().join("haggle.db")
    }

    fn daemon(&self) -> Daemon {
        let parts = Parts {
            marketplace: self.twisted.clone(),
            store: Box::new(SqliteStore::open(&self.database(), None, 5).unwrap()),
            clock: self.daemons_clock.clone().unwrap_or(self.clock.clone()),
            policies: Box::new(FixedPolicies(self.jobs.clone())),
            secrets: Box::new(PlaySecrets),
            run_secret: secrecy::SecretString::from("play"),
            observers: vec![Box::new(Ticks(self.ticks.clone()))],
        };
        let settings = Settings {
            engine: EngineConfig {
                poll_every: self.poll_every,
                min_runway: self.min_runway,
                ..EngineConfig::default()
            },
            live: true,
            pace: Pace::Every,
            seed: 5,
            looking: Looking::default(),
        };
        Daemon::new(parts, settings).unwrap()
    }

    /// Runs a daemon for so long.
    async fn run(&self, daemon: &mut Daemon, seconds: u64) {
        let until = self.clock.now() + Duration::from_secs(seconds);
        daemon
            .run(Some(until), std::future::pending())
            .await
            .unwrap();
    }

    /// Somebody else rents three of the dearest, and the minimum runway is what the credit lasts for
    /// at that: with anything more it is too short.
    async fn others_rent(&mut self) -> Vec<InstanceId> {
        let query = OfferQuery {
            market: Kind::OnDemand,
            gpu_name: None,
            machine: None,
            disk_gb: 12,
            open: false,
            bounds: Bounds::default(),
        };
        let mut offers = self.twisted.inner.offers(&query).await.unwrap().offers;
        offers.sort_by_key(|offer| offer.on_demand);
        let mut made = Vec::new();
        for offer in offers.iter().rev().take(3) {
            let request = CreateRequest {
                offer: offer.id,
                bid: None,
                label: "somebody-elses".to_owned(),
                disk_gb: 12,
                image: Some("a/b:c".to_owned()),
                template: None,
                run_type: "args",
                onstart: None,
                args: Vec::new(),
                env: Vec::new(),
                image_login: None,
            };
            match self.twisted.inner.create(&request).await {
                Outcome::Done(id) => made.push(id),
                other => panic!("{other:?}"),
            }
        }
        let rows = self.twisted.inner.instances().await.unwrap().rows;
        let burn = rows.iter().fold(Rate::ZERO, |sum, row| {
            sum + row.price.unwrap() + row.storage.unwrap()
        });
        assert!(burn > Rate::from_dollars(2.0).unwrap(), "{burn}");
        let credit = self.twisted.inner.account().await.unwrap().credit.unwrap();
        let hours =
            (credit - EngineConfig::default().credit_reserve).as_dollars() / burn.as_dollars();
        self.min_runway = Some(Duration::from_secs_f64(hours * 3600.0));
        made
    }

    fn events(&self, kind: &str) -> Vec<Event> {
        let reader = Reader::open(&self.database()).unwrap();
        let all = reader.events(None, 2000).unwrap();
        all.into_iter().filter(|event| event.kind == kind).collect()
    }

    /// Ids of the account's instances, as the marketplace knows them.
    async fn there(&self) -> Vec<InstanceId> {
        let listing = self.twisted.inner.instances().await.unwrap();
        listing.rows.iter().map(|row| row.id).collect()
    }

    fn ticks_after(&self, moment: Time) -> Vec<Duration> {
        let ticks = self.ticks.lock().unwrap();
        let after = ticks.iter().filter(|&&at| at > moment);
        after.map(|at| at.since(moment)).collect()
    }
}

fn only(daemon: &Daemon) -> InstanceId {
    let held: Vec<InstanceId> = daemon.state().held.keys().copied().collect();
    assert_eq!(held.len(), 1, "{held:?}");
    held[0]
}

#[tokio::test]
async fn an_instance_that_shows_late_is_neither_lost_nor_replaced() {
    let town = Town::new(1);
    let mut daemon = town.daemon();
    // The process is old when it rents: the account was unknown at first.
    town.twisted
        .with(|twist| twist.refused_until = Some(START + Duration::from_secs(5)));
    daemon.tick().await.unwrap();
    assert!(daemon.state().held.is_empty());
    town.clock.advance(Duration::from_secs(3600));
    daemon.tick().await.unwrap();
    let made = only(&daemon);
    town.twisted.with(|twist| twist.hidden.insert(made));
    // Listings lack it at once, and so do reads by id.
    for _ in 0..3 {
        town.clock.advance(Duration::from_secs(34));
        daemon.tick().await.unwrap();
        assert_eq!(only(&daemon), made);
    }
    town.twisted.with(|twist| twist.hidden.clear());
    town.run(&mut daemon, 300).await;
    assert_eq!(only(&daemon), made);
    assert_eq!(town.there().await, [made]);
    assert_eq!(town.twisted.with(|twist| twist.creates), 1);
    assert_eq!(town.events("lost"), []);
}

#[tokio::test]
async fn an_instance_that_stays_away_is_given_up_in_the_end() {
    let town = Town::new(1);
    let mut daemon = town.daemon();
    daemon.tick().await.unwrap();
    let made = only(&daemon);
    town.run(&mut daemon, 300).await;
    town.twisted.with(|twist| twist.hidden.insert(made));
    town.run(&mut daemon, 400).await;
    assert_eq!(town.events("lost").len(), 1);
    assert_ne!(only(&daemon), made);
}

/// The first create is answered that its offer is gone; the daemon ran on for a minute and a half, in
/// which nothing shows who took it.
async fn offer_gone(is_ours: bool) -> (Town, Daemon) {
    let town = Town::new(1);
    town.twisted
        .with(|twist| twist.arrives_twice = Some(is_ours));
    let mut daemon = town.daemon();
    town.run(&mut daemon, 90).await;
    assert_eq!(town.twisted.with(|twist| twist.creates), 1);
    assert_eq!(town.there().await.len(), 1);
    assert!(daemon.state().held.is_empty());
    town.twisted.with(|twist| twist.hidden.clear());
    (town, daemon)
}

#[tokio::test]
async fn a_create_that_arrives_twice_and_finds_its_own_offer_gone_is_not_made_up_for() {
    let (town, mut daemon) = offer_gone(true).await;
    town.run(&mut daemon, 600).await;
    assert_eq!(town.there().await, [only(&daemon)]);
    assert_eq!(town.twisted.with(|twist| twist.creates), 1);
    assert_eq!(town.events("adopted"), [], "its rent was still open");
}

#[tokio::test]
async fn a_create_whose_offer_somebody_else_took_is_tried_elsewhere_once_that_is_proven() {
    let (town, mut daemon) = offer_gone(false).await;
    town.run(&mut daemon, 150).await;
    let made = only(&daemon);
    assert_eq!(town.there().await.len(), 2);
    assert_eq!(town.twisted.with(|twist| twist.creates), 2);
    assert_eq!(town.twisted.with(|twist| twist.first), Some(made));
}

#[tokio::test]
async fn what_others_rent_is_not_forgotten_over_one_empty_listing() {
    let mut town = Town::new(1);
    let others = town.others_rent().await;
    let mut daemon = town.daemon();
    daemon.tick().await.unwrap();
    assert!(daemon.state().held.is_empty(), "the runway is too short");
    town.twisted.with(|twist| twist.empty = true);
    for _ in 0..2 {
        town.clock.advance(Duration::from_secs(60));
        daemon.tick().await.unwrap();
        assert!(daemon.state().held.is_empty());
    }
    town.twisted.with(|twist| twist.empty = false);
    town.run(&mut daemon, 300).await;
    assert_eq!(town.twisted.with(|twist| twist.creates), 0);
    // Gone indeed, they cost nothing more.
    for id in others {
        town.twisted.inner.destroy(id).await;
    }
    town.run(&mut daemon, 300).await;
    assert_eq!(town.there().await, [only(&daemon)]);
}

/// Two replicas, the second of whose creates is answered with what belongs to the first.
async fn second_answered(answer: fn(InstanceId) -> Outcome<InstanceId>) {
    let town = Town::new(2);
    town.twisted.with(|twist| twist.second = Some(answer));
    let mut daemon = town.daemon();
    town.run(&mut daemon, 600).await;
    let held = &daemon.state().held;
    let replicas: BTreeSet<u32> = held.values().map(|held| held.replica.index).collect();
    assert_eq!(replicas, BTreeSet::from([0, 1]));
    let ours: Vec<InstanceId> = held.keys().copied().collect();
    let first = town.twisted.with(|twist| twist.first.unwrap());
    assert_eq!(held[&first].replica.index, 0, "it is the first's for good");
    assert_eq!(town.there().await, ours, "and none is leaked");
    assert_eq!(town.events("destroyed"), []);
    assert_eq!(town.twisted.with(|twist| twist.creates), 2);
}

#[tokio::test]
async fn an_answer_that_names_what_another_rent_made_is_no_answer() {
    second_answered(Outcome::Done).await;
}

#[tokio::test]
async fn a_refusal_that_names_what_another_rent_made_destroys_it_not() {
    second_answered(|first| Outcome::Refused {
        why: RefusedWhy::BidTooLow,
        message: "new_contract".to_owned(),
        leftover: Some(first),
    })
    .await;
}

#[tokio::test]
async fn a_bid_that_was_ours_lately_is_not_taken_for_another_than_was_asked() {
    let town = Town::new(1);
    let mut daemon = town.daemon();
    town.run(&mut daemon, 200).await;
    let made = only(&daemon);
    let held = &daemon.state().held[&made];
    let (bid, higher) = (held.price, held.price + Rate(5_000_000));
    let mut machine = daemon.state().machine(held.slot.machine);
    drop(daemon);
    // It was lowered a while ago, and an old listing comes.
    machine.highest_bid = Some((higher, town.clock.now()));
    let mut store = SqliteStore::open(&town.database(), None, 5).unwrap();
    store.commit(&[Change::Machine(machine)]).unwrap();
    drop(store);
    town.twisted
        .with(|twist| twist.bids_shown.insert(made, higher));
    let mut daemon = town.daemon();
    town.run(&mut daemon, 130).await;
    assert_eq!(daemon.state().held[&made].price, higher, "it counts");
    town.twisted.with(|twist| twist.bids_shown.clear());
    town.run(&mut daemon, 130).await;
    assert_eq!(daemon.state().held[&made].price, bid);
    assert_eq!(town.events("not-as-asked"), []);
    assert!(town.twisted.can_bid());
    // One that never was ours is.
    town.twisted
        .with(|twist| twist.bids_shown.insert(made, higher + Rate(5_000_000)));
    daemon.tick().await.unwrap();
    assert_eq!(town.events("not-as-asked").len(), 1);
    assert!(!town.twisted.can_bid());
}

#[tokio::test]
async fn a_token_that_is_refused_for_a_moment_does_not_leave_what_is_ours_alone() {
    let town = Town::new(1);
    let refused_for = |seconds| {
        let until = town.clock.now() + Duration::from_secs(seconds);
        town.twisted.with(|twist| twist.refused_until = Some(until));
    };
    refused_for(90);
    let mut daemon = town.daemon();
    let ended = daemon.run(None, std::future::pending()).await;
    assert!(matches!(ended, Err(DaemonError::Token(_))), "{ended:?}");
    town.clock.advance(Duration::from_secs(90));
    daemon.tick().await.unwrap();
    let made = only(&daemon);
    drop(daemon);
    refused_for(90);
    let mut daemon = town.daemon();
    town.run(&mut daemon, 300).await;
    assert_eq!(only(&daemon), made);
    assert_eq!(daemon.state().held[&made].phase, Phase::Running);
}

fn outbid(id: &str, at: Time, instance: InstanceId) -> Notification {
    Notification {
        id: id.to_owned(),
        kind: NotificationKind::Outbid,
        at: Some(at),
        instance: Some(instance),
        machine: None,
        winning_bid: Some(Rate(123_400_000)),
        text: "You were outbid".to_owned(),
    }
}

#[tokio::test]
async fn the_inbox_wakes_a_tick_once_for_each_of_its_rows() {
    let mut town = Town::new(1);
    town.poll_every = Duration::from_secs(900);
    town.twisted.with(|twist| twist.inbox = Some(Vec::new()));
    let mut daemon = town.daemon();
    daemon.tick().await.unwrap();
    let made = only(&daemon);
    // Let it come up, which wakes ticks of its own.
    town.run(&mut daemon, 1000).await;
    let begun = town.clock.now();
    let told_at = begun + Duration::from_secs(1300);
    let stranger = InstanceId(made.0 + 1000);
    town.twisted.with(|twist| {
        twist.inbox = Some(vec![
            outbid("a", told_at, made),
            outbid("b", begun + Duration::from_secs(200), stranger),
        ]);
    });
    town.run(&mut daemon, 3000).await;
    let ticks = town.ticks_after(begun);
    let woken: Vec<&Duration> = ticks
        .iter()
        .filter(|after| (1300..1390).contains(&after.as_secs()))
        .collect();
    assert_eq!(woken.len(), 1, "{ticks:?}");
    // At 0, 900, when told, and each 900 s after that; nobody else's news wakes anybody.
    assert!(ticks.len() <= 5, "{ticks:?}");
    let told = town.events("told-outbid");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].instance, Some(made));
    assert!(told[0].text.contains("0.1234"), "{told:?}");
    assert_eq!(only(&daemon), made, "a message alone changes nothing");
}

#[tokio::test]
async fn an_inbox_that_does_not_exist_is_asked_for_once() {
    let town = Town::new(1);
    let mut daemon = town.daemon();
    town.run(&mut daemon, 900).await;
    assert_eq!(town.twisted.with(|twist| twist.inbox_reads), 1);
}

#[tokio::test]
async fn a_host_that_wants_more_is_told_of_once_and_its_rental_ends_as_it_says() {
    let town = Town::new(1);
    let mut daemon = town.daemon();
    town.run(&mut daemon, 300).await;
    let made = only(&daemon);
    let price = daemon.state().held[&made].price;
    let ends = town.clock.now() + Duration::from_secs(4 * 3600);
    town.twisted.with(|twist| {
        let asked = |id, instance, ends_at| PriceIncrease {
            id,
            instance,
            old_rate: Some(price),
            new_rate: Some(price + price),
            ends_at: Some(ends_at),
        };
        twist.increases = vec![
            asked(7, made, ends),
            asked(8, InstanceId(made.0 + 1000), town.clock.now()),
        ];
    });
    town.run(&mut daemon, 1500).await;
    let held = &daemon.state().held[&made];
    assert_eq!(held.ends_at, Some(ends));
    assert_eq!(held.price, price, "it is not paid");
    let told = town.events("price-increase");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].instance, Some(made));
    // Nothing is left on the machine when the rental ends.
    town.run(&mut daemon, 4 * 3600).await;
    assert!(!daemon.state().held.contains_key(&made));
    assert!(!town.there().await.contains(&made));
    assert_eq!(town.events("price-increase").len(), 1);
}

#[tokio::test]
async fn what_is_brought_back_after_a_long_pause_is_waited_for_anew() {
    let town = Town::new(1);
    let mut daemon = town.daemon();
    town.run(&mut daemon, 300).await;
    let made = only(&daemon);
    let wish = |wish| {
        let job = town.jobs[0].name.clone();
        append_request(&town.database(), town.clock.now(), &Ask::Job { job, wish }).unwrap();
    };
    wish(Wish::Pause);
    town.run(&mut daemon, 4 * 3600).await;
    assert!(daemon.state().held[&made].parked);
    // Its bid is raised again, and it takes a while to come up.
    town.twisted.with(|twist| twist.stopped.insert(made));
    wish(Wish::Run);
    town.run(&mut daemon, 200).await;
    assert!(!daemon.state().held[&made].parked);
    assert_eq!(daemon.state().held[&made].phase, Phase::Stopped);
    town.twisted.with(|twist| twist.stopped.clear());
    town.run(&mut daemon, 300).await;
    assert_eq!(only(&daemon), made, "it was waited for");
    assert_eq!(daemon.state().held[&made].phase, Phase::Running);
    assert_eq!(town.twisted.with(|twist| twist.creates), 1);
}

#[tokio::test]
async fn a_price_increase_that_is_told_of_is_looked_for_at_once() {
    let town = Town::new(1);
    town.twisted.with(|twist| twist.inbox = Some(Vec::new()));
    let mut daemon = town.daemon();
    town.run(&mut daemon, 300).await;
    let made = only(&daemon);
    // They are read every ten minutes, and were a moment ago.
    let asked_at = town.clock.now() + Duration::from_secs(700);
    let told = Notification {
        kind: NotificationKind::PriceIncrease,
        ..outbid("p", asked_at, made)
    };
    let ends = asked_at + Duration::from_secs(48 * 3600);
    town.twisted.with(|twist| {
        twist.inbox = Some(vec![told]);
        twist.increases_since = asked_at;
        twist.increases = vec![PriceIncrease {
            id: 7,
            instance: made,
            old_rate: None,
            new_rate: None,
            ends_at: Some(ends),
        }];
    });
    town.run(&mut daemon, 860).await;
    let told = town.events("price-increase");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].at.since(asked_at) <= Duration::from_secs(90),
        "{told:?}"
    );
    assert_eq!(daemon.state().held[&made].ends_at, Some(ends));
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_put_off_the_next_look() {
    let mut town = Town::new(1);
    town.daemons_clock = Some(Arc::new(SetBack {
        inner: town.clock.clone(),
        at: START + Duration::from_secs(200),
    }));
    let mut daemon = town.daemon();
    let ends = START + Duration::from_secs(1400);
    let over = std::future::poll_fn(|_| {
        if town.clock.now() >= ends {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    daemon.run(None, over).await.unwrap();
    // One a minute, as if nothing had been.
    let ticks = town.ticks.lock().unwrap().len();
    assert!(ticks >= 22, "{ticks}");
}

/// A bid that comes out as an on-demand rental, of which nothing is seen for so many minutes.
async fn seen_late(town: &Town, minutes: u64) -> (Daemon, InstanceId) {
    town.twisted
        .with(|twist| (twist.ignores_bids, twist.blind_once_made) = (true, true));
    let mut daemon = town.daemon();
    daemon.tick().await.unwrap();
    let made = only(&daemon);
    assert_eq!(daemon.state().held[&made].rental, Rental::Bid, "as asked");
    town.run(&mut daemon, minutes * 60).await;
    town.twisted
        .with(|twist| (twist.blind, twist.blind_once_made) = (false, false));
    town.run(&mut daemon, 61).await;
    assert_eq!(town.events("not-as-asked").len(), 1);
    assert!(!town.twisted.can_bid());
    (daemon, made)
}

fn town_of(rental: &str, disposable: bool) -> Town {
    let mut town = Town::new(1);
    town.jobs = vec![rented_as(rental, 1, disposable)];
    town
}

#[tokio::test]
async fn an_on_demand_rental_that_worked_before_it_was_seen_is_stopped_for_good() {
    let town = town_of("interruptible", false);
    // Its stop does not take for a while.
    let until = town.clock.now() + Duration::from_mins(30);
    town.twisted
        .with(|twist| twist.stops_lost_until = Some(until));
    let (mut daemon, made) = seen_late(&town, 12).await;
    assert!(daemon.state().held[&made].stop_asked);
    // Meanwhile the process is another one.
    drop(daemon);
    daemon = town.daemon();
    town.run(&mut daemon, 30 * 60).await;
    let held = &daemon.state().held[&made];
    assert_eq!((held.phase, held.parked), (Phase::Stopped, true));
    assert_eq!(held.destroying, None);
    assert!(held.worst_rate() <= held.storage + Rate(1_000_000));
    town.run(&mut daemon, 3 * 3600).await;
    assert_eq!(town.there().await, [made], "its disk is kept");
    assert!(daemon.state().held[&made].parked);
    let text = town.events("not-as-asked")[0].text.clone();
    assert!(text.contains("its disk kept"), "{text}");
    let (starts, destroys) = town
        .twisted
        .with(|twist| (twist.starts, twist.destroys.clone()));
    assert_eq!((starts, destroys), (0, vec![]));
}

#[tokio::test]
async fn an_on_demand_rental_that_did_not_work_yet_is_destroyed_at_once() {
    let town = town_of("interruptible", false);
    let (daemon, made) = seen_late(&town, 2).await;
    assert_eq!(
        daemon.state().held[&made].destroying,
        Some(DestroyWhy::NotAsAsked)
    );
    assert_eq!(town.there().await, []);
}

#[tokio::test]
async fn an_on_demand_rental_whose_disk_may_be_lost_is_destroyed_however_long_it_worked() {
    let town = town_of("interruptible", true);
    let (daemon, made) = seen_late(&town, 12).await;
    assert_eq!(
        daemon.state().held[&made].destroying,
        Some(DestroyWhy::NotAsAsked)
    );
    assert_eq!(town.there().await, []);
}

#[tokio::test]
async fn an_on_demand_rental_that_its_policy_would_have_taken_goes_on() {
    let town = town_of("auto", false);
    let (mut daemon, made) = seen_late(&town, 12).await;
    town.run(&mut daemon, 1800).await;
    let held = &daemon.state().held[&made];
    assert_eq!(
        (held.phase, held.rental),
        (Phase::Running, Rental::OnDemand)
    );
    assert_eq!(town.events("not-as-asked").len(), 1);
    assert_eq!(town.there().await, [made]);
}

#[tokio::test]
async fn nothing_is_rented_once_the_token_opens_another_account() {
    let town = Town::new(1);
    let mut daemon = town.daemon();
    // The tick begins with a look at our account.
    town.twisted
        .with(|twist| twist.opens = Some((1, AccountId(4711))));
    let ended = daemon.tick().await;
    assert!(
        matches!(ended, Err(DaemonError::OtherAccount { .. })),
        "{ended:?}"
    );
    assert_eq!(town.twisted.with(|twist| twist.creates), 0);
    assert_eq!(daemon.state().reserved.len(), 0);
    assert!(daemon.state().held.is_empty());
}

#[tokio::test]
async fn what_was_rented_while_the_token_was_exchanged_is_destroyed_and_told_of() {
    let town = Town::new(1);
    let mut daemon = town.daemon();
    town.twisted
        .with(|twist| twist.opens = Some((2, AccountId(4711))));
    let ended = daemon.tick().await;
    assert!(
        matches!(ended, Err(DaemonError::OtherAccount { .. })),
        "{ended:?}"
    );
    let made = town.twisted.with(|twist| twist.first.unwrap());
    assert_eq!(town.twisted.with(|twist| twist.destroys.clone()), [made]);
    let told = town.events("rented-elsewhere");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].instance, Some(made));
    assert_eq!(town.there().await, []);
}

/// Others may spend it between the plan and the request.
#[tokio::test(flavor = "current_thread")]
async fn nothing_is_rented_once_the_credit_does_not_cover_it_any_more() {
    for (credit, creates) in [
        (Some(Money::dollars(1)), 0),
        (None, 0),
        (Some(Money::dollars(100)), 1),
    ] {
        let town = Town::new(1);
        // The poll reads it, and then the last look before the create.
        town.twisted.with(|twist| twist.credit = Some((1, credit)));
        let mut daemon = town.daemon();
        daemon.tick().await.unwrap();
        let made = town.twisted.with(|twist| twist.creates);
        assert_eq!(made, creates, "{credit:?}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_tick_under_way_begins_nothing_after_the_red_button_or_a_long_sleep() {
    let town = Town::new(1);
    let mut daemon = town.daemon();
    let database = town.database();
    town.twisted.with(|twist| {
        twist.then = Some(Box::new(move || set_kill_file(&database).unwrap()));
    });
    daemon.tick().await.unwrap();
    assert_eq!(town.twisted.with(|twist| twist.creates), 0);
    daemon.tick().await.unwrap();
    assert!(daemon.state().killed, "and the next one knows");

    let town = Town::new(1);
    let mut daemon = town.daemon();
    let clock = town.clock.clone();
    // The machine sleeps while the plan is carried out.
    town.twisted.with(|twist| {
        twist.then = Some(Box::new(move || clock.advance(Duration::from_hours(12))));
    });
    daemon.tick().await.unwrap();
    daemon.tick().await.unwrap();
    assert_eq!(
        town.twisted.with(|twist| twist.creates),
        1,
        "at the next one"
    );
}
