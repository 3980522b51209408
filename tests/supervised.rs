//! A supervised job from the rent to its end: the real daemon, over real HTTP, and real processes.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test may fail by panicking, and waits for real processes"
)]
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use haggle::market::{ExactBill, Market};
use haggle::ports::Clock;
use haggle::storage::{Objects, Place, Tree, download};
use haggle::types::ids::{Permit, Tail};
use haggle::types::instance::Phase;
use haggle::types::job::{CheckpointPlace, Job, RentalChoice, SecretRef, Storage};
use haggle::types::money::Money;
use haggle::types::state::Ending;
use haggle::types::time::Time;

use crate::bench::{Bench, WAIT_MAX, supervised};
use crate::processes::pause;
use crate::server;

/// The keys of the tests' storage, whatever they are asked for.
fn keys(reference: &SecretRef) -> &'static str {
    if *reference == SecretRef::Env("A".to_owned()) {
        server::ACCESS
    } else {
        server::SECRET
    }
}

#[tokio::test]
async fn a_command_runs_to_its_end_and_the_bill_stops() {
    let mut bench = Bench::new(supervised("echo the answer is $((6 * 7))")).await;
    bench
        .until("finished", |bench| bench.ending() == Some(Ending::Finished))
        .await;
    assert!(bench.heard.0.lock().unwrap().0.contains("the answer is 42"));
    bench.until("gone", |bench| bench.labels().is_empty()).await;
    assert_eq!(bench.starts(), 1);
    assert_eq!(bench.was_told("finished"), 1);
}

#[tokio::test]
async fn a_command_that_fails_is_tried_again_and_then_given_up() {
    let mut bench = Bench::new(supervised("exit 3")).await;
    bench
        .until("failed", |bench| bench.ending() == Some(Ending::Failed))
        .await;
    bench.until("gone", |bench| bench.labels().is_empty()).await;
    assert_eq!(bench.was_told("failed"), 2);
    assert_eq!(bench.starts(), 2);
}

#[tokio::test]
async fn the_lease_of_one_that_works_is_renewed() {
    let mut bench = Bench::new(supervised("sleep 600")).await;
    bench
        .until("running", |bench| {
            let held = bench.daemon.state().held.values();
            held.filter_map(|held| held.runner.as_ref())
                .any(|view| view.worked)
        })
        .await;
    let tail = |bench: &Bench| Tail::of(bench.labels().first().unwrap()).unwrap();
    let first = tail(&bench);
    assert_eq!((first.generation, first.permit), (1, Permit::Go));
    let renewed = move |bench: &Bench| tail(bench).until > first.until + Duration::from_mins(50);
    bench.until("renewed", renewed).await;
    assert_eq!(bench.starts(), 1);
    let left = bench
        .daemon
        .destroy_all(Duration::from_hours(1))
        .await
        .unwrap();
    assert_eq!((left.remaining.len(), left.unsettled), (0, 0));
}

// ----------------------------------------------------------------------------- outbid, and moved

/// Numbers from a seed.
struct Draw(u64);

impl Draw {
    /// From 0 up to `below`, without it: splitmix64.
    fn under(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

/// How far the job counts.
const COUNTS: u64 = 240;

/// So far it counts before it has been outbid often enough.
const WAITS_AT: u64 = 200;

/// How often it is outbid.
const OUTBIDS: u32 = 10;

/// Counts on from the last number that its checkpoint has, and takes the list for its result.
const COUNT: &str = "mkdir -p out; f=$HAGGLE_CHECKPOINT/counted; \
                     n=$(tail -n 1 $f 2>/dev/null || echo 0); n=${n:-0}; \
                     while [ $n -lt 240 ]; do \
                     if [ $n -ge 200 ] && [ ! -e $ENOUGH ]; then sleep 0.1; continue; fi; \
                     n=$((n+1)); echo $n >> $f; echo $n > $HAGGLE_PROGRESS; sleep 0.05; done; \
                     cp $f out/result";

/// A job that counts, bids, and keeps what it has in storage every second.
fn counting(storage: &server::Server) -> Job {
    let mut job = supervised(COUNT);
    job.rental = RentalChoice::Interruptible;
    job.disposable = false;
    job.checkpoint_place = Some(CheckpointPlace::Remote);
    job.checkpoint_every = Some(Duration::from_secs(1));
    job.patience = Duration::from_mins(3);
    job.retries.max = 0;
    // Real processes have seconds where the market has minutes.
    for (name, value) in [
        ("TICK", "0.1"),
        ("TICK_GATE", "0.1"),
        ("TELL", "1"),
        ("AGAIN", "1"),
    ] {
        job.run
            .env
            .insert(format!("HAGGLE_{name}"), value.to_owned());
    }
    let runner = job.run.runner.as_mut().unwrap();
    // The market's minutes pass in tenths of a second, and a busy machine says nothing for some.
    runner.silent_after = Duration::from_hours(48);
    runner.checkpoint = Some("checkpoint".to_owned());
    runner.outputs = Some("out".to_owned());
    runner.progress = Some("progress".to_owned());
    runner.sync_every = Duration::from_secs(1);
    runner.storage = Some(Storage {
        endpoint: storage.origin.clone(),
        region: server::REGION.to_owned(),
        bucket: server::BUCKET.to_owned(),
        prefix: "runs".to_owned(),
        access_key: SecretRef::Env("A".to_owned()),
        secret_key: SecretRef::Env("S".to_owned()),
    });
    job
}

impl Bench {
    /// Some time of the market, in which processes get a tenth of a second: a minute, or less while
    /// one of them has to bring its checkpoint here, for which a market has minutes and not seconds.
    async fn moment(&mut self, storage: &server::Server) {
        storage.set_clock(self.clock.now());
        let failures = self.daemon.tick().await.unwrap();
        assert_eq!(failures, Vec::new());
        let held = self.daemon.state().held.values();
        let up = held.filter(|held| held.phase == Phase::Running);
        let mut views = up.filter_map(|held| held.runner.as_ref());
        let quiet = |state: &str| matches!(state, "running" | "ended");
        let moves = views.any(|view| !view.state.as_deref().is_some_and(quiet));
        let passes = if moves { 3 } else { 60 };
        self.clock.advance(Duration::from_secs(passes));
        pause(Duration::from_millis(100)).await;
    }
}

/// Outbid again and again, moved, its daemon killed: every number is counted once, the result is in
/// storage as it was told, and nothing is left.
async fn counts_through_outbids(seed: u64) {
    let storage = server::Server::start(Time(0)).await;
    let gate = tempfile::tempdir().unwrap();
    let enough = gate.path().join("enough");
    let mut job = counting(&storage);
    let path = enough.display().to_string();
    job.run.env.insert("ENOUGH".to_owned(), path);
    let mut bench = Bench::with(job, keys).await;
    let mut draw = Draw(seed);
    let (mut outbids, mut reached) = (0, 0);
    let mut leaves: Option<((u64, u64), u64)> = None;
    let mut at = 1 + draw.under(10);
    let began = Instant::now();
    while bench.ending().is_none() || !bench.labels().is_empty() {
        let heard = bench.heard.0.lock().unwrap().1.clone();
        assert!(began.elapsed() < 10 * WAIT_MAX, "seed {seed}: {heard:#?}");
        bench.moment(&storage).await;
        if let Some((rival, minutes)) = leaves {
            leaves = (minutes > 0).then(|| (rival, minutes.saturating_sub(1)));
            if leaves.is_none() {
                let (account, id) = rival;
                let gone = |market: &mut Market| market.destroy(account, id);
                bench.server.with_market(gone).unwrap();
            }
        }
        let far = |now: &u64| *now >= (reached + at).min(WAITS_AT);
        if outbids == OUTBIDS {
            std::fs::write(&enough, "").unwrap();
        } else if let Some(progress) = bench.progress().filter(far) {
            if let Some(rival) = bench.outbid(outbids) {
                (outbids, reached, at) = (outbids + 1, progress, 1 + draw.under(10));
                // Some go again before the patience is over, and some stay.
                leaves = (draw.under(2) == 0).then(|| (rival, draw.under(3)));
            }
            if draw.under(3) == 0 {
                bench = bench.restart();
            }
        }
    }
    assert_eq!(bench.ending(), Some(Ending::Finished), "seed {seed}");
    assert_eq!(outbids, OUTBIDS, "seed {seed}: it ended before");
    let replicas = &bench.daemon.state().replicas;
    let replica = replicas.values().next().unwrap();
    let kept = replica.outputs.clone().unwrap();
    let place = Place::new(
        bench
            .job
            .run
            .runner
            .as_ref()
            .unwrap()
            .storage
            .as_ref()
            .unwrap(),
        server::ACCESS.into(),
        server::SECRET.into(),
    );
    let objects = Objects::new(place.unwrap()).unwrap();
    let keys = objects.place().keys(&replica.id, kept.run);
    let into = bench.dir.path().join("fetched");
    let (told, now) = (kept.manifest.parse().unwrap(), bench.clock.now());
    let fetched = download(
        &objects,
        &keys,
        Tree::Outputs,
        Some(told),
        1 << 20,
        &into,
        now,
    )
    .await;
    fetched.unwrap().unwrap();
    let counted = std::fs::read_to_string(into.join("result")).unwrap();
    let counted: Vec<u64> = counted.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(counted, (1..=COUNTS).collect::<Vec<_>>(), "seed {seed}");
}

#[tokio::test]
async fn a_job_that_is_outbid_ten_times_counts_every_number_once() {
    counts_through_outbids(1).await;
}

#[tokio::test]
async fn a_second_job_that_is_outbid_counts_every_number_once() {
    counts_through_outbids(2).await;
}

#[tokio::test]
async fn a_third_job_that_is_outbid_counts_every_number_once() {
    counts_through_outbids(3).await;
}

/// As many more seeds as `OUTBID_SEEDS` says.
#[tokio::test]
async fn as_many_jobs_as_wanted_count_every_number_once() {
    let Ok(seeds) = std::env::var("OUTBID_SEEDS") else {
        eprintln!("skipped: OUTBID_SEEDS=30 runs thirty more seeds");
        return;
    };
    for seed in 4..4 + seeds.parse::<u64>().unwrap() {
        counts_through_outbids(seed).await;
    }
}

// ------------------------------------------------------------------------------- the plug is pulled

/// A term of the lease.
const TERM: Duration = Duration::from_mins(30);

/// By how much a machine may be late: its looks at the label are seconds apart, in which the market has
/// minutes.
const LATE: Duration = Duration::from_mins(15);

/// The daemon is gone for good while three replicas work: each ends its command when its lease ends, and
/// destroys its own instance a term later, so that the bill is bounded with nobody there.
#[tokio::test]
async fn when_nobody_is_there_any_more_every_instance_ends_itself() {
    let mut job = supervised("sleep 600000");
    job.replicas = 3;
    for (name, value) in [("TICK", "0.1"), ("TICK_GATE", "0.1"), ("TELL", "1")] {
        job.run
            .env
            .insert(format!("HAGGLE_{name}"), value.to_owned());
    }
    let runner = job.run.runner.as_mut().unwrap();
    runner.lease = Some(TERM);
    runner.looks = (Duration::from_secs(1), Duration::from_secs(1));
    let mut bench = Bench::new(job).await;
    let works = |bench: &Bench| {
        let held = bench.daemon.state().held.values();
        let views = held.filter_map(|held| held.runner.as_ref());
        views.filter(|view| view.worked).count() == 3
    };
    bench.until("at work", works).await;
    let labels = bench.labels();
    let ends = labels.iter().map(|label| Tail::of(label).unwrap().until);
    let ends = ends.max().unwrap();
    let spent = |bench: &Bench| {
        let bills = bench
            .server
            .with_market(|market| market.exact_bill(bench.account));
        bills
            .values()
            .map(ExactBill::total)
            .fold(Money::ZERO, |sum, one| sum + one)
    };
    let (pulled, before) = (bench.clock.now(), spent(&bench));
    let rates = bench.server.with_market(|market| {
        let rows = market.instances(bench.account);
        rows.iter().map(|row| row.instance.total_hour).sum::<f64>()
    });
    // Nothing of the daemon is left: what follows is the instances' own doing.
    let Bench {
        daemon,
        server,
        clock,
        account,
        dir,
        ..
    } = bench;
    drop(daemon);
    let ending = || {
        let rooms = std::fs::read_dir(dir.path().join("instances")).unwrap();
        let logs = rooms.map(|room| std::fs::read_to_string(room.unwrap().path().join("log")));
        let told = |log: &String| log.contains("\"state\":\"ending\"");
        logs.filter(|log| log.as_ref().is_ok_and(told)).count()
    };
    let left = || server.with_market(|market| market.instances(account).len());
    let began = Instant::now();
    let (mut ended, mut gone) = (None, None);
    while gone.is_none() {
        assert!(
            began.elapsed() < WAIT_MAX,
            "{} ended, {} are left",
            ending(),
            left()
        );
        // While they are waited for the market goes on slowly: how late a busy machine is says nothing.
        let awaited = if ended.is_none() { ends } else { ends + TERM };
        let slow = clock.now() >= awaited;
        clock.advance(Duration::from_secs(if slow { 1 } else { 30 }));
        pause(Duration::from_millis(100)).await;
        let now = clock.now();
        if ended.is_none() && ending() == 3 {
            ended = Some(now);
        }
        assert!(
            left() == 3 || ended.is_some(),
            "one went before it had ended its command"
        );
        gone = (left() == 0).then_some(now);
    }
    let (ended, gone) = (ended.unwrap(), gone.unwrap());
    assert!(
        pulled < ends && ended >= ends && ended <= ends + LATE,
        "{ended} {ends}"
    );
    assert!(
        gone >= ends + TERM && gone <= ends + TERM + LATE,
        "{gone} {ends}"
    );
    let bills = server.with_market(|market| market.exact_bill(account));
    let after = bills
        .values()
        .map(ExactBill::total)
        .fold(Money::ZERO, |sum, one| sum + one);
    let cost = (after - before).as_dollars();
    let most = rates * (2.0 * TERM.as_secs_f64() + LATE.as_secs_f64()) / 3600.0;
    assert!(cost <= most, "${cost:.4} and not ${most:.4}");
    eprintln!(
        "from the plug to the last destroy: {:.0} min, ${cost:.4} at ${rates:.4}/h; at most ${most:.4}",
        gone.since(pulled).as_secs_f64() / 60.0
    );
}
