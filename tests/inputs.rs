//! What a supervised job needs is on its machine before its command starts: the real daemon, a server of S3
//! that tries signatures, a server of files, and real processes.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail by panicking, and waits for real processes"
)]
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use haggle::ports::Clock;
use haggle::storage::Sum;
use haggle::types::deadline::DeadlineKind;
use haggle::types::input::{Input, Source};
use haggle::types::instance::{Phase, Rental};
use haggle::types::job::{Job, RentalChoice, SecretRef, Storage};
use haggle::types::start::StartFault;
use haggle::types::state::Ending;
use haggle::types::time::Time;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

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

fn input(from: Source, to: &Path) -> Input {
    Input {
        from,
        to: to.display().to_string(),
        into: false,
        sha256: None,
        packing: None,
        found: None,
    }
}

/// A job with inputs, and storage at an address.
fn needing(command: &str, inputs: Vec<Input>, endpoint: Option<&str>) -> Job {
    let mut job = supervised(command);
    // Real processes have seconds where the market has minutes.
    for (name, value) in [
        ("TICK", "0.1"),
        ("TICK_GATE", "0.1"),
        ("PAUSE", "0.1"),
        ("AGAIN", "1"),
    ] {
        let name = format!("HAGGLE_{name}");
        job.run.env.insert(name, value.to_owned());
    }
    let runner = job.run.runner.as_mut().unwrap();
    runner.silent_after = Duration::from_hours(48);
    runner.inputs = inputs;
    runner.storage = endpoint.map(|endpoint| Storage {
        endpoint: endpoint.to_owned(),
        region: server::REGION.to_owned(),
        bucket: server::BUCKET.to_owned(),
        prefix: "runs".to_owned(),
        access_key: SecretRef::Env("A".to_owned()),
        secret_key: SecretRef::Env("S".to_owned()),
    });
    job
}

/// An address at which a text is read.
async fn address(text: &'static str) -> String {
    let router = Router::new().route("/x", get(move || async move { text }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

impl Bench {
    /// Ticks until something is so. While a runner moves data the market's time goes slowly.
    async fn goes_on(
        &mut self,
        storage: Option<&server::Server>,
        what: &str,
        is_so: impl Fn(&Self) -> bool,
    ) {
        let began = Instant::now();
        while !is_so(self) {
            let heard = self.heard.0.lock().unwrap().clone();
            assert!(began.elapsed() < 2 * WAIT_MAX, "not {what}: {heard:#?}");
            if let Some(storage) = storage {
                storage.set_clock(self.clock.now());
            }
            let failures = self.daemon.tick().await.unwrap();
            assert_eq!(failures, Vec::new());
            let held = self.daemon.state().held.values();
            let up = held.filter(|held| held.phase == Phase::Running);
            let moves = up
                .filter_map(|held| held.runner.as_ref())
                .any(|view| !view.worked);
            let passes = if moves { 3 } else { 60 };
            self.clock.advance(Duration::from_secs(passes));
            pause(Duration::from_millis(100)).await;
        }
    }

    fn log(&self) -> String {
        self.heard.0.lock().unwrap().0.clone()
    }
}

/// The objects that were brought from here.
fn brought(storage: &server::Server) -> Vec<String> {
    let keys = storage.keys();
    keys.into_iter()
        .filter(|key| key.starts_with("runs/count/inputs/"))
        .collect()
}

#[tokio::test]
async fn a_directory_an_object_and_an_address_are_there_before_the_command_starts() {
    let storage = server::Server::start(Time(0)).await;
    let (here, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |name: &str| disk.path().join(name);
    fs::create_dir_all(here.path().join("code/deep")).unwrap();
    fs::write(here.path().join("code/main"), "of a directory").unwrap();
    fs::write(here.path().join("code/deep/other"), "and below it").unwrap();
    std::os::unix::fs::symlink("deep/other", here.path().join("code/link")).unwrap();
    fs::write(here.path().join("list"), "of a file").unwrap();
    storage.hold("sets/one", "of an object");
    let mut object = input(Source::Object("sets/one".to_owned()), &at("set"));
    object.sha256 = Some(Sum::of(b"of an object").to_string());
    let mut read = input(Source::Address(address("of an address").await), &at("read"));
    read.sha256 = Some(Sum::of(b"of an address").to_string());
    let inputs = vec![
        input(Source::Path(here.path().join("code")), &at("code")),
        input(Source::Path(here.path().join("list")), &at("list")),
        object,
        read,
    ];
    let command = format!(
        "cd {} && for f in code/main code/link list set read; do cat $f; echo; done",
        disk.path().display()
    );
    let job = needing(&command, inputs, Some(&storage.origin));
    let mut bench = Bench::with(job, keys).await;
    let ended = |bench: &Bench| bench.ending().is_some();
    bench.goes_on(Some(&storage), "ended", ended).await;
    assert_eq!(bench.ending(), Some(Ending::Finished), "{}", bench.log());
    let log = bench.log();
    for text in [
        "of a directory",
        "and below it",
        "of a file",
        "of an object",
        "of an address",
    ] {
        assert!(log.lines().any(|line| line == text), "{text}: {log}");
    }
    assert_eq!(bench.starts(), 1);
    // By their content, and no more than they are.
    let kept = brought(&storage);
    assert_eq!(kept.len(), 2, "{kept:?}");
    for key in &kept {
        let sum = Sum::of(&storage.has(key).unwrap()).to_string();
        assert!(key.ends_with(&sum), "{key}");
    }
    // What it costs to bring them is a part of what a rental is expected to cost.
    let asked = storage.inside.lock().unwrap().asked.clone();
    let puts = asked
        .iter()
        .filter(|line| line.starts_with("PUT") && line.contains("/inputs/"));
    assert_eq!(puts.count(), 2, "each is uploaded once");
}

#[tokio::test]
async fn without_storage_what_has_an_address_is_there() {
    let disk = tempfile::tempdir().unwrap();
    let to = disk.path().join("deep/read");
    let read = input(Source::Address(address("of an address").await), &to);
    let job = needing(&format!("cat {}; echo", to.display()), vec![read], None);
    let mut bench = Bench::new(job).await;
    bench
        .goes_on(None, "ended", |bench| bench.ending().is_some())
        .await;
    assert_eq!(bench.ending(), Some(Ending::Finished), "{}", bench.log());
    assert!(bench.log().contains("of an address"));
}

#[tokio::test]
async fn the_next_rental_has_what_a_file_is_then() {
    let storage = server::Server::start(Time(0)).await;
    let (here, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (file, to) = (here.path().join("f"), disk.path().join("f"));
    fs::write(&file, "at first").unwrap();
    let inputs = vec![input(Source::Path(file.clone()), &to)];
    let command = format!("cat {}; echo; exit 3", to.display());
    let mut bench = Bench::with(needing(&command, inputs, Some(&storage.origin)), keys).await;
    let failed = |bench: &Bench| bench.was_told("failed") == 1;
    bench.goes_on(Some(&storage), "failed once", failed).await;
    assert!(bench.log().contains("at first"));
    fs::write(&file, "and then another").unwrap();
    let given_up = |bench: &Bench| bench.ending() == Some(Ending::Failed);
    bench
        .goes_on(Some(&storage), "failed for good", given_up)
        .await;
    assert!(bench.log().contains("and then another"), "{}", bench.log());
    // What the first one had is still there.
    assert_eq!(brought(&storage).len(), 2);
}

#[tokio::test]
async fn what_no_machine_can_get_holds_the_job_back_and_blames_nobody() {
    let disk = tempfile::tempdir().unwrap();
    let mut read = input(
        Source::Address(address("of an address").await),
        &disk.path().join("x"),
    );
    read.sha256 = Some(Sum::of(b"of another").to_string());
    let mut bench = Bench::new(needing("echo it began", vec![read], None)).await;
    let held_back = |bench: &Bench| bench.was_told("cannot-start") == 1;
    bench.goes_on(None, "held back", held_back).await;
    let state = bench.daemon.state();
    let hold = state
        .jobs
        .values()
        .find_map(|job| job.starts.hold.clone())
        .unwrap();
    assert_eq!((hold.fault, hold.until), (StartFault::Inputs, None));
    assert!(
        hold.message.contains("another SHA-256: input 1 for "),
        "{}",
        hold.message
    );
    assert!(!hold.message.contains("127.0.0.1"), "{}", hold.message);
    assert!(state.machines.values().all(|machine| machine.failures == 0));
    assert!(bench.starts() >= 2);
    assert!(bench.was_told("input-refused") >= 2 && bench.was_told("failed") == 0);
    bench
        .goes_on(None, "gone", |bench| bench.labels().is_empty())
        .await;
    assert!(!bench.log().contains("it began") && bench.ending().is_none());
}

#[tokio::test]
async fn what_is_not_there_keeps_its_job_back_until_it_is() {
    let storage = server::Server::start(Time(0)).await;
    let disk = tempfile::tempdir().unwrap();
    let object = input(
        Source::Object("sets/one".to_owned()),
        &disk.path().join("x"),
    );
    let job = needing("true", vec![object], Some(&storage.origin));
    let mut bench = Bench::with(job, keys).await;
    let told = |bench: &Bench| bench.was_told("inputs-not-ready-count") == 1;
    bench.goes_on(Some(&storage), "told", told).await;
    for _ in 0..5 {
        storage.set_clock(bench.clock.now());
        bench.daemon.tick().await.unwrap();
    }
    assert_eq!((bench.starts(), bench.labels().len()), (0, 0));
    storage.hold("sets/one", "here it is");
    bench
        .goes_on(Some(&storage), "ended", |bench| bench.ending().is_some())
        .await;
    assert_eq!(bench.ending(), Some(Ending::Finished));
}

/// A way to the storage on which nothing gets on while it is stuck: where it is, and how much has passed.
async fn way_to(origin: &str, stuck: Arc<AtomicBool>, passed: Arc<AtomicU64>) -> String {
    let there = origin.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (stuck, passed) = (Arc::clone(&stuck), Arc::clone(&passed));
            let server = TcpStream::connect(&there).await.unwrap();
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
                });
                let (mut piece, mut all) = (vec![0; 64 * 1024], 0);
                while let Ok(length @ 1..) = from_client.read(&mut piece).await {
                    all += length as u64;
                    passed.fetch_max(all, Ordering::Relaxed);
                    // Small requests pass.
                    while all > 1_000_000 && stuck.load(Ordering::Relaxed) {
                        pause(Duration::from_millis(20)).await;
                    }
                    if to_server.write_all(&piece[..length]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    here
}

#[tokio::test]
async fn an_upload_holds_up_no_tick_and_is_begun_again_by_the_next_daemon() {
    let storage = server::Server::start(Time(0)).await;
    let (stuck, passed) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let way = way_to(&storage.origin, Arc::clone(&stuck), Arc::clone(&passed)).await;
    let (here, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (file, to) = (here.path().join("large"), disk.path().join("large"));
    let large: Vec<u8> = (0..8_000_000_u32).map(|n| (n * 31 % 253) as u8).collect();
    fs::write(&file, &large).unwrap();
    let inputs = vec![input(Source::Path(file), &to)];
    let command = format!("sha256sum <{}", to.display());
    let mut bench = Bench::with(needing(&command, inputs, Some(&way)), keys).await;
    let under_way = |_: &Bench| passed.load(Ordering::Relaxed) > 1_000_000;
    bench.goes_on(Some(&storage), "under way", under_way).await;
    // Nothing gets on, and the ticks do.
    for _ in 0..3 {
        storage.set_clock(bench.clock.now());
        bench.daemon.tick().await.unwrap();
    }
    assert_eq!((bench.starts(), bench.labels().len()), (0, 0));
    assert_eq!(bench.was_told("inputs-uploading"), 1);
    let mut bench = bench.restart();
    stuck.store(false, Ordering::Relaxed);
    assert_eq!(brought(&storage), Vec::<String>::new());
    bench
        .goes_on(Some(&storage), "ended", |bench| bench.ending().is_some())
        .await;
    assert_eq!(bench.ending(), Some(Ending::Finished));
    let sum = Sum::of(&large).to_string();
    assert!(bench.log().contains(&sum), "{}", bench.log());
    assert_eq!(brought(&storage), [format!("runs/count/inputs/{sum}")]);
}

#[tokio::test]
async fn what_is_stuck_is_told_of_once_and_goes_on_when_it_can() {
    let storage = server::Server::start(Time(0)).await;
    let (stuck, passed) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let way = way_to(&storage.origin, Arc::clone(&stuck), Arc::clone(&passed)).await;
    let (here, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (file, to) = (here.path().join("large"), disk.path().join("large"));
    fs::write(&file, vec![7; 8_000_000]).unwrap();
    let inputs = vec![input(Source::Path(file), &to)];
    let command = format!("wc -c <{}", to.display());
    let mut bench = Bench::with(needing(&command, inputs, Some(&way)), keys).await;
    let under_way = |_: &Bench| passed.load(Ordering::Relaxed) > 1_000_000;
    bench.goes_on(Some(&storage), "under way", under_way).await;
    let begun = bench.clock.now();
    let told = |bench: &Bench| bench.was_told("inputs-not-ready-count");
    let is_told = |bench: &Bench| told(bench) == 1;
    bench.goes_on(Some(&storage), "told", is_told).await;
    let after = bench.clock.now().since(begun);
    assert!(after >= Duration::from_mins(15), "{after:?}");
    {
        let heard = bench.heard.0.lock().unwrap();
        let said = heard.1.iter().find(|text| text.contains("not-ready"));
        let said = said.unwrap();
        assert!(
            said.contains("do not get on for 15m")
                && said.contains("large is uploaded, ")
                && said.contains(" of 8.0 MB")
                && said.contains("`haggle pause count`"),
            "{said}"
        );
    }
    // It stays so for an hour.
    for _ in 0..60 {
        bench.clock.advance(Duration::from_mins(1));
        storage.set_clock(bench.clock.now());
        bench.daemon.tick().await.unwrap();
    }
    assert_eq!((told(&bench), bench.starts()), (1, 0));
    assert_eq!(brought(&storage), Vec::<String>::new());
    // Its address is good for a while only, and so it is sent once more where it has expired.
    stuck.store(false, Ordering::Relaxed);
    bench
        .goes_on(Some(&storage), "ended", |bench| bench.ending().is_some())
        .await;
    assert_eq!(bench.ending(), Some(Ending::Finished));
    assert!(bench.log().contains("8000000"), "{}", bench.log());
}

#[tokio::test]
async fn what_runs_is_not_left_before_what_has_changed_is_there() {
    let storage = server::Server::start(Time(0)).await;
    let (here, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (file, to) = (here.path().join("f"), disk.path().join("f"));
    fs::write(&file, "at first").unwrap();
    let inputs = vec![input(Source::Path(file.clone()), &to)];
    let command = format!("cat {}; echo; sleep 600", to.display());
    let mut job = needing(&command, inputs, Some(&storage.origin));
    job.rental = RentalChoice::Interruptible;
    job.work_mgpu_h = Some(20_000);
    let mut bench = Bench::with(job, keys).await;
    let runs = |text: &'static str| move |bench: &Bench| bench.log().contains(text);
    bench
        .goes_on(Some(&storage), "at work", runs("at first"))
        .await;
    // From now on it has a deadline: it rides for some time, and then takes what nobody takes away.
    bench.job.rental = RentalChoice::Auto;
    bench.job.deadline_policy = DeadlineKind::Greedy;
    bench.job.deadline = Some(bench.clock.now() + Duration::from_hours(22));
    let mut bench = bench.restart();
    let looked = || {
        let asked = storage.inside.lock().unwrap().asked.clone();
        let looks = asked.iter().filter(|line| line.contains("/inputs/"));
        looks.count()
    };
    let before = looked();
    let is_ready = |_: &Bench| looked() > before;
    bench.goes_on(Some(&storage), "looked at", is_ready).await;
    let settled = bench.clock.now() + Duration::from_mins(3);
    let is_settled = |bench: &Bench| bench.clock.now() > settled;
    bench.goes_on(Some(&storage), "settled", is_settled).await;
    fs::write(&file, "and then another").unwrap();
    // What it is by now is there before what runs is left for it.
    let left = |bench: &Bench| bench.was_told("destroy") > 0;
    bench.goes_on(Some(&storage), "left", left).await;
    assert_eq!(brought(&storage).len(), 2, "{:#?}", bench.heard.0.lock());
    bench
        .goes_on(Some(&storage), "at work again", runs("and then another"))
        .await;
    assert_eq!((bench.starts(), bench.was_told("destroyed")), (2, 1));
    let rents = bench.daemon.state().held.values().map(|held| held.rental);
    assert_eq!(rents.collect::<Vec<_>>(), [Rental::OnDemand]);
}
