//! An array of two hundred elements from its first rent to its end: the real daemon over the embedded
//! market, with runners whose lines the test writes.

#![allow(clippy::unwrap_used)] // A test that cannot go on says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use haggle::clock::SimClock;
use haggle::daemon::{Daemon, Looking, Observer, Pace, Parts, Policies, PolicySet, Settings};
use haggle::engine::array::Standing;
use haggle::market::faults::Faults;
use haggle::market::transport::InProcess;
use haggle::market::{Market, MarketOptions, MarketServer, WireOptions};
use haggle::marketplace::vast::{Vast, VastOptions};
use haggle::policy;
use haggle::ports::{
    Charge, Clock, CreateRequest, Marketplace, OfferPage, Outcome, ReadError, RefusedWhy,
};
use haggle::runner::key_of;
use haggle::simulate::PlaySecrets;
use haggle::store::{SqliteStore, append_request};
use haggle::types::ids::{InstanceId, Label, OfferId};
use haggle::types::instance::{Account, Instance, Listing, Phase};
use haggle::types::job::{Job, Parameters};
use haggle::types::money::Rate;
use haggle::types::offer::{Offer, OfferQuery};
use haggle::types::state::{Ask, Change, Ending, SETBACKS_MAX, Wish};
use haggle::types::time::Time;
use haggle::types::world::EngineConfig;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

const START: Time = Time(1_767_643_200_000);
const SECRET: &str = "a secret of this test, which is long enough";
const MAX_RUNNING: usize = 12;

/// A command on an instance.
struct Run {
    label: Label,
    seed: u32,
    /// When its instance was first seen to run.
    began: Option<Time>,
    ended: bool,
    destroyed: bool,
}

/// What all commands did.
#[derive(Default)]
struct Told {
    runs: BTreeMap<InstanceId, Run>,
    /// How often the command of each element ended, and how often well.
    ended: BTreeMap<u32, (u32, u32)>,
    /// What each element was told of itself.
    numbers: BTreeMap<u32, BTreeSet<(String, String)>>,
    /// An element for which the marketplace rents nothing, and how often it was asked to.
    refuses: Option<u32>,
    refused: u32,
}

/// The marketplace, with a runner on each instance: its command takes some minutes, and fails for good
/// where the seed ends in 7, and once where it ends in 3.
struct Played {
    inner: Vast,
    clock: Arc<SimClock>,
    told: Mutex<Told>,
}

/// A line as a runner writes it.
fn line(label: &Label, seq: u64, state: &str, exit: Option<i32>) -> String {
    let exit = exit.map_or("null".to_owned(), |exit| exit.to_string());
    let document = format!(
        "{{\"v\":1,\"run\":\"{}\",\"generation\":1,\"boot\":\"{}.1\",\"seq\":{seq},\"state\":\"{state}\",\
         \"at\":0,\"progress\":null,\"checkpoint\":null,\"exit\":{exit}}}",
        label.intent, label.intent
    );
    let key = key_of(&SecretString::from(SECRET), label);
    let digest = Sha256::digest(format!("{key}\n{document}\n{key}"));
    let signature = digest.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    format!("HAGGLE {document} {signature}\n")
}

impl Played {
    fn with<T>(&self, f: impl FnOnce(&mut Told) -> T) -> T {
        f(&mut self.told.lock().unwrap())
    }

    /// Elements whose command works now.
    fn at_work(&self) -> BTreeSet<u32> {
        self.with(|told| {
            let works = |run: &&Run| run.began.is_some() && !run.ended && !run.destroyed;
            told.runs
                .values()
                .filter(works)
                .map(|run| run.seed)
                .collect()
        })
    }
}

#[async_trait]
impl Marketplace for Played {
    async fn offers(&self, query: &OfferQuery) -> Result<OfferPage, ReadError> {
        self.inner.offers(query).await
    }

    async fn offer(&self, id: OfferId) -> Result<Option<Offer>, ReadError> {
        self.inner.offer(id).await
    }

    async fn instances(&self) -> Result<Listing, ReadError> {
        let listing = self.inner.instances().await?;
        let now = self.clock.now();
        self.with(|told| {
            for row in listing
                .rows
                .iter()
                .filter(|row| row.phase() == Phase::Running)
            {
                if let Some(run) = told.runs.get_mut(&row.id) {
                    run.began.get_or_insert(now);
                }
            }
        });
        Ok(listing)
    }

    async fn instance(&self, id: InstanceId) -> Result<Option<Instance>, ReadError> {
        self.inner.instance(id).await
    }

    async fn account(&self) -> Result<Account, ReadError> {
        self.inner.account().await
    }

    async fn charges(&self, from: Time, to: Time) -> Result<Vec<Charge>, ReadError> {
        self.inner.charges(from, to).await
    }

    async fn create(&self, request: &CreateRequest) -> Outcome<InstanceId> {
        let given = |name: &str| {
            let mut all = request.env.iter().filter(|(key, _)| key == name);
            all.next().unwrap().1.clone()
        };
        let seed = given("SEED").parse().unwrap();
        let refused = self.with(|told| {
            let refused = told.refuses == Some(seed);
            told.refused += u32::from(refused);
            refused
        });
        if refused {
            return Outcome::Refused {
                why: RefusedWhy::Invalid,
                message: "invalid args".to_owned(),
                leftover: None,
            };
        }
        let outcome = self.inner.create(request).await;
        let Outcome::Done(id) = outcome else {
            return outcome;
        };
        let run = Run {
            label: Label::parse(&request.label).unwrap(),
            seed,
            began: None,
            ended: false,
            destroyed: false,
        };
        let own = (given("HAGGLE_ARRAY_INDEX"), given("HAGGLE_ARRAY_COUNT"));
        assert_eq!(own.0, run.label.replica.index.to_string());
        self.with(|told| {
            told.runs.insert(id, run);
            told.numbers.entry(seed).or_default().insert(own);
        });
        outcome
    }

    async fn set_bid(&self, id: InstanceId, bid: Rate) -> Outcome<()> {
        self.inner.set_bid(id, bid).await
    }

    async fn stop(&self, id: InstanceId) -> Outcome<()> {
        self.inner.stop(id).await
    }

    async fn start(&self, id: InstanceId) -> Outcome<()> {
        self.inner.start(id).await
    }

    async fn destroy(&self, id: InstanceId) -> Outcome<()> {
        self.with(|told| told.runs.get_mut(&id).unwrap().destroyed = true);
        self.inner.destroy(id).await
    }

    async fn set_label(&self, id: InstanceId, label: &str) -> Outcome<()> {
        self.inner.set_label(id, label).await
    }

    async fn logs(&self, id: InstanceId, _lines: u32) -> Result<Bytes, ReadError> {
        let now = self.clock.now();
        Ok(self.with(|told| {
            let run = told.runs.get_mut(&id).unwrap();
            let Some(began) = run.began else {
                return Bytes::new();
            };
            let mut text = line(&run.label, 1, "running", None);
            let takes = Duration::from_mins(2 + u64::from(run.seed % 5));
            if now < began + takes {
                return text.into();
            }
            let (times, well) = told.ended.entry(run.seed).or_default();
            if !std::mem::replace(&mut run.ended, true) {
                *times += 1;
            }
            let fails = run.seed % 10 == 7 || (run.seed % 10 == 3 && *times == 1);
            *well += u32::from(!fails && *well == 0);
            text += &line(&run.label, 2, "result", Some(i32::from(fails)));
            text.into()
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

/// A policy that somebody edits.
#[derive(Clone)]
struct Edited(Arc<Mutex<Arc<Job>>>);

impl Policies for Edited {
    fn load(&mut self) -> PolicySet {
        let job = Arc::clone(&self.0.lock().unwrap());
        PolicySet {
            jobs: vec![("sweep.toml".into(), job)],
            broken: Vec::new(),
        }
    }
}

/// Events of arrays that were told.
#[derive(Clone, Default)]
struct Story(Arc<Mutex<Vec<String>>>);

impl Observer for Story {
    fn committed(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Event(event) = change
                && event.kind.starts_with("array-")
            {
                self.0.lock().unwrap().push(event.text.clone());
            }
        }
    }
}

fn sweep(seeds: impl IntoIterator<Item = u32>) -> Arc<Job> {
    sweep_of(seeds, MAX_RUNNING)
}

fn sweep_of(seeds: impl IntoIterator<Item = u32>, max_running: usize) -> Arc<Job> {
    let sets: Vec<String> = seeds
        .into_iter()
        .map(|seed| format!("{{ SEED = {seed} }}"))
        .collect();
    let text = format!(
        r#"
        name = "sweep"
        rental = "on-demand"
        [run]
        image = "a/b:c"
        supervised = true
        command = "python train.py"
        silent_after = "1h"
        [gpu]
        count = 1
        [machine]
        disk = "8GB"
        [price]
        max = "$2/gpu-hour"
        [data]
        disposable = true
        [retries]
        max = 1
        backoff = "1m"
        [array]
        max_running = {max_running}
        values = [{}]
        "#,
        sets.join(", ")
    );
    Arc::new(policy::parse("sweep.toml", &text).unwrap())
}

fn daemon(
    dir: &Path,
    clock: &Arc<SimClock>,
    played: &Arc<Played>,
    policies: &Edited,
    story: &Story,
) -> Daemon {
    let parts = Parts {
        marketplace: played.clone(),
        store: Box::new(SqliteStore::open(&dir.join("haggle.db"), None, 1).unwrap()),
        clock: clock.clone(),
        policies: Box::new(policies.clone()),
        secrets: Box::new(PlaySecrets),
        run_secret: SecretString::from(SECRET),
        observers: vec![Box::new(story.clone())],
    };
    let settings = Settings {
        engine: EngineConfig::default(),
        live: true,
        pace: Pace::Every,
        seed: 1,
        looking: Looking::default(),
    };
    Daemon::new(parts, settings).unwrap()
}

fn market(clock: &Arc<SimClock>) -> Arc<Played> {
    let market = Market::generated(MarketOptions {
        seed: 5,
        start: START,
        machines: Some(150),
        intensity: 0.0,
        failures: 0.0,
        balance: haggle::types::money::Money::dollars(10_000),
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
    Arc::new(Played {
        inner,
        clock: clock.clone(),
        told: Mutex::default(),
    })
}

/// Never more at work than may be, nor with an instance before their end. How many have one.
fn holds_the_cap(daemon: &Daemon, played: &Played) -> usize {
    let state = daemon.state();
    let open = |index: &u32| {
        let mut records = state.replicas.values();
        records.any(|record| record.id.index == *index && record.ending.is_none())
    };
    let with_instance: BTreeSet<u32> = state
        .held
        .values()
        .map(|held| held.replica.index)
        .filter(open)
        .collect();
    assert!(with_instance.len() <= MAX_RUNNING, "{with_instance:?}");
    let at_work = played.at_work();
    assert!(at_work.len() <= MAX_RUNNING, "{at_work:?}");
    with_instance.len()
}

#[tokio::test]
async fn two_hundred_elements_each_run_once_never_more_at_a_time_than_may() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SimClock::new(START));
    let played = market(&clock);
    let policies = Edited(Arc::new(Mutex::new(sweep(0..200))));
    let story = Story::default();
    let mut daemon = daemon(dir.path(), &clock, &played, &policies, &story);
    let (mut ticks, mut most_at_once) = (0, 0);
    while !(is_over(&daemon, &policies) && daemon.state().held.is_empty()) {
        assert!(
            ticks < 1000,
            "{:?}",
            Standing::of(daemon.state(), &policies.0.lock().unwrap())
        );
        match ticks {
            // Its process dies, and another goes on from its database.
            40 => {
                drop(daemon);
                daemon = self::daemon(dir.path(), &clock, &played, &policies, &story);
            }
            // Twenty are taken out, ended and running and waiting ones; others come, and all are turned
            // round.
            60 => {
                let stay = (0..200).filter(|seed| seed % 10 != 4);
                *policies.0.lock().unwrap() = sweep(stay.chain(300..320).rev());
            }
            _ => {}
        }
        let failures = daemon.tick().await.unwrap();
        assert_eq!(failures, Vec::new());
        most_at_once = most_at_once.max(holds_the_cap(&daemon, &played));
        clock.advance(Duration::from_mins(1));
        ticks += 1;
    }
    assert_eq!(most_at_once, MAX_RUNNING, "and as many as may");

    let job = Arc::clone(&policies.0.lock().unwrap());
    let standing = Standing::of(daemon.state(), &job);
    assert_eq!((standing.finished, standing.failed), (178, 22));
    assert_eq!(
        story.0.lock().unwrap().last().unwrap(),
        "every element of sweep has ended: 178 finished and 22 failed"
    );
    let seed_of = |set: &Parameters| -> u32 { set["SEED"].parse().unwrap() };
    let told = played.told.lock().unwrap();
    for set in &job.array.as_ref().unwrap().elements {
        let seed = seed_of(set);
        let wanted = match seed % 10 {
            7 => (2, 0),
            3 => (2, 1),
            _ => (1, 1),
        };
        assert_eq!(told.ended[&seed], wanted, "{seed}");
    }
    // What was taken out ended once, or never; whatever was begun had one number all along.
    for seed in (0..200).filter(|seed| seed % 10 == 4) {
        let (times, well) = told.ended.get(&seed).copied().unwrap_or_default();
        assert!(times == well && well <= 1, "{seed}");
    }
    let mut numbers = BTreeSet::new();
    for (seed, given) in &told.numbers {
        let indexes: BTreeSet<&String> = given.iter().map(|(index, _)| index).collect();
        assert_eq!(indexes.len(), 1, "{seed}");
        assert!(numbers.insert(*indexes.first().unwrap()), "{seed}");
        assert!(given.iter().all(|(_, count)| count == "200"), "{seed}");
    }
    // Nothing that ended is forgotten, in the policy or not.
    for record in daemon.state().replicas.values() {
        let seed = seed_of(record.parameters.as_ref().unwrap());
        let well = told.ended.get(&seed).is_some_and(|(_, well)| *well == 1);
        assert_eq!(
            record
                .ending
                .is_some_and(|(ending, _)| ending == Ending::Finished),
            well,
            "{seed}"
        );
    }
}

fn is_over(daemon: &Daemon, policies: &Edited) -> bool {
    Standing::of(daemon.state(), &policies.0.lock().unwrap()).is_over()
}

/// A daemon with a job of its own, and what belongs to it.
struct Scene {
    dir: tempfile::TempDir,
    clock: Arc<SimClock>,
    played: Arc<Played>,
    policies: Edited,
    story: Story,
    daemon: Daemon,
}

impl Scene {
    fn new(job: Arc<Job>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(SimClock::new(START));
        let played = market(&clock);
        let policies = Edited(Arc::new(Mutex::new(job)));
        let story = Story::default();
        let daemon = daemon(dir.path(), &clock, &played, &policies, &story);
        Self {
            dir,
            clock,
            played,
            policies,
            story,
            daemon,
        }
    }

    async fn minutes(&mut self, count: u32) -> Standing {
        for _ in 0..count {
            assert_eq!(self.daemon.tick().await.unwrap(), Vec::new());
            self.clock.advance(Duration::from_mins(1));
        }
        Standing::of(self.daemon.state(), &self.policies.0.lock().unwrap())
    }
}

/// What is refused for its own sake keeps neither its place from the others nor machines from anybody.
#[tokio::test]
async fn one_that_cannot_be_rented_for_lets_the_others_have_their_turn() {
    let mut scene = Scene::new(sweep_of(0..3, 1));
    scene.played.with(|told| told.refuses = Some(0));
    let standing = scene.minutes(40).await;
    assert_eq!((standing.finished, standing.waiting), (2, 1));
    let refused = scene.played.with(|told| told.refused);
    assert!((2..=9).contains(&refused), "{refused}");
    let state = scene.daemon.state();
    let cooled = state.machines.values();
    let cooled: Vec<Time> = cooled.filter_map(|machine| machine.cool_until).collect();
    assert_eq!(cooled.len(), 1, "it could have been the machine");
    assert!(cooled[0] < START + Duration::from_mins(25), "{cooled:?}");
    // It is tried on, should it be something else.
    scene.played.with(|told| told.refuses = None);
    assert_eq!(scene.minutes(15).await.finished, 3);
}

/// A slip in the command does not go through all elements.
#[tokio::test]
async fn what_fails_everywhere_stops_until_somebody_has_looked() {
    let mut scene = Scene::new(sweep_of((0..20).map(|at| at * 10 + 7), 3));
    let standing = scene.minutes(120).await;
    let tried = scene.played.with(|told| told.ended.len());
    assert!(
        (SETBACKS_MAX..=SETBACKS_MAX + 3).contains(&tried),
        "{tried}"
    );
    assert_eq!((standing.failed as usize, standing.begun), (tried, 0));
    let told = scene.story.0.lock().unwrap().clone();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("`haggle resume sweep`"), "{told:?}");

    let ask = Ask::Job {
        job: "sweep".parse().unwrap(),
        wish: Wish::Run,
    };
    append_request(&scene.dir.path().join("haggle.db"), scene.clock.now(), &ask).unwrap();
    scene.minutes(120).await;
    let more = scene.played.with(|told| told.ended.len()) - tried;
    assert!((SETBACKS_MAX..=SETBACKS_MAX + 3).contains(&more), "{more}");
    assert_eq!(scene.story.0.lock().unwrap().len(), 2);
}
