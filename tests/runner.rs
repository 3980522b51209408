//! What runs on a rented machine, run for real: the embedded market starts instances as processes.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail by panicking, says what it skips, and waits for real processes"
)]
#![cfg(target_os = "linux")]

mod inputs;

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::get;
use haggle::clock::SimClock;
use haggle::market::faults::Faults;
use haggle::market::transport::InProcess;
use haggle::market::{CreateParams, Market, MarketOptions, MarketServer, WireOptions};
use haggle::marketplace::vast::{Vast, VastOptions};
use haggle::ports::{Clock, Marketplace, Transport};
use haggle::runner::{Expected, From, Run, SCRIPT, Told, kept_key, told};
use haggle::types::ids::{Installation, InstanceId, IntentId, Label, ReplicaId};
use haggle::types::offer::Market as Search;
use haggle::types::time::Time;
use secrecy::SecretString;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::processes::{pause, serve};

const KEY: &str = "the key of this run";

/// No wait is this long.
const WAIT_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn label() -> Label {
    Label {
        installation: Installation::from_seed(7),
        replica: ReplicaId {
            job: "train".parse().unwrap(),
            index: 0,
        },
        intent: IntentId(5),
    }
}

fn run(command: &str) -> Run {
    Run {
        label: label(),
        generation: 1,
        key: KEY.to_owned(),
        command: command.to_owned(),
        lease: Some(Duration::from_hours(2)),
        checkpoint: None,
        sync_every: Duration::from_secs(1),
        outputs: None,
        progress: None,
        control: None,
        inputs: 0,
        fetch: None,
        kept: None,
        from: None,
        grace: Duration::from_secs(1),
        linger: Duration::from_hours(24),
        looks: (Duration::from_secs(1), Duration::from_secs(1)),
        expected: None,
    }
}

/// What an instance's label says: its generation, whether it may work, and until when.
fn says(generation: u64, word: &str, until: Time) -> String {
    format!("{}/g{generation}.{word}.{}", label(), until.0 / 1000)
}

type Objects = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// Variables of an instance.
type Variables<'a> = &'a [(&'a str, &'a str)];

/// Rents the first offer for a run.
fn rent(
    market: &mut Market,
    account: u64,
    run: &Run,
    (tools, variables): (Option<&Path>, Variables<'_>),
    says: String,
) -> u64 {
    let delivery = run.deliver(0).unwrap();
    let mut env = delivery.env;
    let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    env.extend(variables.iter().map(own));
    env.extend(tools.map(|path| ("PATH".to_owned(), path.display().to_string())));
    let offers = market.offers(account, Search::OnDemand, 8.0);
    let params = CreateParams {
        offer_id: offers[0].id,
        image: Some("a/b:c".to_owned()),
        env,
        runtype: Some("args".to_owned()),
        onstart: Some("sh".to_owned()),
        args: vec!["-c".to_owned(), delivery.bootstrap.to_owned()],
        label: Some(says),
        ..CreateParams::default()
    };
    market.create(account, params).unwrap().new_contract
}

/// A market whose instances are processes, and a place for objects.
struct Bench {
    dir: tempfile::TempDir,
    server: Arc<MarketServer>,
    clock: Arc<SimClock>,
    objects: Objects,
    store: String,
    account: u64,
    id: u64,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (server, clock, _) = serve(dir.path(), 8).await;
        let (objects, store) = object_store().await;
        let account = server.with_market(|market| market.account_for("at_one"));
        Self {
            dir,
            server,
            clock,
            objects,
            store,
            account,
            id: 0,
        }
    }

    /// Rents an instance for a run, on a path of tools of its own where one is given, and lets its
    /// container come up.
    fn rent(&mut self, run: &Run, tools: Option<&Path>, says: String) {
        self.rent_with(run, tools, says, &[]);
    }

    /// The same, with variables.
    fn rent_with(
        &mut self,
        run: &Run,
        tools: Option<&Path>,
        says: String,
        variables: Variables<'_>,
    ) {
        let account = self.account;
        let rents = |market: &mut Market| rent(market, account, run, (tools, variables), says);
        self.id = self.server.with_market(rents);
        self.pass(Duration::from_hours(1));
    }

    fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    fn now(&self) -> Time {
        self.server.now()
    }

    fn relabel(&self, says: &str) {
        let (account, id) = (self.account, self.id);
        let set = |market: &mut Market| market.set_label(account, id, says);
        self.server.with_market(set).unwrap();
    }

    fn room(&self) -> PathBuf {
        self.dir.path().join("instances").join(self.id.to_string())
    }

    fn root(&self) -> PathBuf {
        self.room().join("root")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.room().join("log")).unwrap_or_default()
    }

    /// What the run told so far.
    fn told(&self) -> Vec<Told> {
        let log = self.log();
        log.lines().filter_map(|line| told(line, KEY)).collect()
    }

    fn is_there(&self) -> bool {
        let (account, id) = (self.account, self.id);
        self.server
            .with_market(|market| market.instance(account, id).is_some())
    }

    /// Waits until something is so; fails with the log where it does not become so.
    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < WAIT_MAX, "not {what}:\n{}", self.log());
            pause(LOOK_EVERY).await;
        }
    }

    async fn until_told(&self, state: &str) -> Told {
        let is = |bench: &Self| bench.told().iter().any(|told| told.state == state);
        self.until(state, is).await;
        let all = self.told();
        all.into_iter().find(|told| told.state == state).unwrap()
    }

    fn keep(&self, name: &str, text: String) {
        self.keep_bytes(name, text.into_bytes());
    }

    fn keep_bytes(&self, name: &str, bytes: Vec<u8>) {
        let mut objects = self.objects.lock().unwrap();
        objects.insert(name.to_owned(), Bytes::from(bytes));
    }

    /// Makes the control document, and says where it is.
    fn control(&self, restore: bool) -> String {
        let url = |name: &str| format!("{}/{name}", self.store);
        let mut text = "haggle 1\n".to_owned();
        let mut line = |name: &str, object: &str| {
            text.push_str(&format!("{name} {}\n", url(object)));
        };
        line("control", "control");
        for name in ["checkpoint0", "checkpoint1", "checkpoint2", "outputs"] {
            line(&format!("{name}.tar"), &format!("{name}.tar"));
            line(&format!("{name}.manifest"), &format!("{name}.manifest"));
        }
        if restore {
            line("restore.tar", "checkpoint0.tar");
            line("restore.manifest", "checkpoint0.manifest");
        }
        self.keep("control", text);
        url("control")
    }
}

async fn object_store() -> (Objects, String) {
    async fn read(
        State(all): State<Objects>,
        UrlPath(name): UrlPath<String>,
    ) -> (StatusCode, Bytes) {
        let found = all.lock().unwrap().get(&name).cloned();
        match found {
            Some(bytes) => (StatusCode::OK, bytes),
            None => (StatusCode::NOT_FOUND, Bytes::new()),
        }
    }
    async fn write(State(all): State<Objects>, UrlPath(name): UrlPath<String>, body: Bytes) {
        all.lock().unwrap().insert(name, body);
    }
    let objects = Objects::default();
    let router = Router::new()
        .route("/{name}", get(read).put(write))
        .with_state(objects.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (objects, url)
}

/// Where a program is; `None`, and a word, where it is not.
fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let place = std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|place| place.is_file());
    if place.is_none() {
        println!("skipped: there is no {program}");
    }
    place
}

/// How many processes there are whose command begins so.
fn commands(beginning: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap();
    let lines = all.filter_map(|one| std::fs::read(one.ok()?.path().join("cmdline")).ok());
    let words = |line: Vec<u8>| String::from_utf8_lossy(&line).replace('\0', " ");
    lines
        .filter(|line| words(line.clone()).starts_with(beginning))
        .count()
}

/// The interpreter itself, which may be found by a script only.
fn python() -> Option<PathBuf> {
    let asked = Command::new(found("python3")?)
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .ok()?;
    let place = String::from_utf8(asked.stdout).ok()?;
    Some(PathBuf::from(place.trim()))
}

/// What every image has, and nothing else.
const TOOLS: &[&str] = &[
    "base64",
    "cat",
    "cp",
    "cmp",
    "cut",
    "date",
    "dd",
    "env",
    "find",
    "grep",
    "gzip",
    "head",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mv",
    "rm",
    "sed",
    "setsid",
    "sha256sum",
    "sleep",
    "sort",
    "tail",
    "tar",
    "tr",
    "wc",
];

/// A directory of tools, with a shell and perhaps a client for HTTP.
fn tools(shell: &str, client: Option<&str>) -> Option<tempfile::TempDir> {
    let dir = tempfile::tempdir().unwrap();
    for tool in TOOLS {
        symlink(found(tool)?, dir.path().join(tool)).unwrap();
    }
    let place = |name: &str| dir.path().join(name);
    match shell {
        "ash" => symlink(found("busybox")?, place("ash")).unwrap(),
        shell => symlink(found(shell)?, place(shell)).unwrap(),
    }
    symlink(place(shell), place("sh")).unwrap();
    if shell == "ash" {
        // Busybox is what it is called.
        std::fs::remove_file(place("sh")).unwrap();
        symlink(found("busybox")?, place("sh")).unwrap();
    }
    match client {
        Some("busybox wget") => symlink(found("busybox")?, place("wget")).unwrap(),
        Some("python3") => symlink(python()?, place("python3")).unwrap(),
        Some(client) => symlink(found(client)?, place(client)).unwrap(),
        None => {}
    }
    Some(dir)
}

#[tokio::test]
async fn it_waits_for_go_and_tells_its_result() {
    let mut bench = Bench::new().await;
    let run = run("echo it worked; exit 3");
    let until = bench.now() + Duration::from_hours(5);
    bench.rent(&run, None, says(1, "hold", until));
    assert_eq!(bench.until_told("gate").await.why.as_deref(), Some("hold"));
    assert!(!bench.log().contains("it worked"));
    bench.relabel(&says(1, "go", until));
    let result = bench.until_told("result").await;
    assert_eq!((result.exit, result.run.as_str()), (Some(3), "5"));
    assert!(bench.told().iter().all(|told| told.signed));
    assert!(bench.log().lines().any(|line| line == "it worked"));
    // It was collected.
    bench.relabel(&says(1, "done", until));
    bench.until("gone", |bench| !bench.is_there()).await;
}

#[tokio::test]
async fn any_shell_and_any_client_will_do() {
    let combinations = [
        ("dash", Some("curl"), true),
        ("bash", Some("wget"), true),
        ("ash", Some("python3"), true),
        ("ash", Some("busybox wget"), true),
        ("dash", None, false),
    ];
    for (shell, client, works) in combinations {
        let Some(tools) = tools(shell, client) else {
            continue;
        };
        println!("{shell}, {client:?}");
        let mut bench = Bench::new().await;
        let until = bench.now() + Duration::from_hours(5);
        bench.rent(&run("exit 0"), Some(tools.path()), says(1, "go", until));
        let boot = bench.until_told("boot").await;
        if works {
            assert_eq!(bench.until_told("result").await.exit, Some(0), "{shell}");
        } else {
            assert!(boot.lacks.unwrap().contains("an-HTTP-client"));
            let gate = bench.until_told("gate").await;
            assert_eq!(gate.why.as_deref(), Some("unread"));
        }
    }
}

#[tokio::test]
async fn a_lease_that_nobody_renews_ends_the_command_and_then_the_instance() {
    let mut bench = Bench::new().await;
    // It does not want to end, and has somebody who left its session.
    let stubborn = "trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 1; echo away >> away; \
                    done' & while :; do sleep 1; echo here >> here; done";
    let until = bench.now() + Duration::from_hours(3);
    bench.rent(&run(stubborn), None, says(1, "go", until));
    bench
        .until("at work", |bench| bench.root().join("away").exists())
        .await;
    // For a moment there are two: the one, and what it has forked to become a sleep.
    let is_one = |_: &Bench| commands("sh -c trap \"\" TERM; while") == 1;
    bench.until("one", is_one).await;
    bench.pass(Duration::from_hours(2));
    let ending = bench.until_told("ending").await;
    assert_eq!(ending.why.as_deref(), Some("lapsed"));
    let gate = |bench: &Bench| bench.told().last().is_some_and(|told| told.state == "gate");
    bench.until("waiting again", gate).await;
    assert_eq!(commands("sh -c trap '' TERM; setsid"), 0);
    assert_eq!(commands("sh -c trap \"\" TERM; while"), 0);
    assert!(bench.is_there(), "the second term runs");
    bench.pass(Duration::from_hours(2));
    bench.until("gone", |bench| !bench.is_there()).await;
    assert!(bench.log().is_empty() || bench.told().iter().any(|told| told.state == "forgotten"));
}

#[tokio::test]
async fn what_wakes_with_an_old_generation_stops_itself() {
    let mut bench = Bench::new().await;
    let until = bench.now() + Duration::from_hours(5);
    bench.rent(&run("sleep 1000"), None, says(1, "go", until));
    bench.until_told("running").await;
    bench.relabel(&says(2, "go", until));
    let ending = bench.until_told("ending").await;
    assert_eq!(ending.why.as_deref(), Some("else"));
    let stopped = |bench: &Bench| {
        let (account, id) = (bench.account, bench.id);
        let row = bench
            .server
            .with_market(|market| market.instance(account, id));
        row.is_some_and(|row| &*row.cur_state == "stopped")
    };
    bench.until("stopped", stopped).await;
}

#[tokio::test]
async fn a_checkpoint_is_kept_and_restored_elsewhere() {
    let mut bench = Bench::new().await;
    let count = "n=$(cat $HAGGLE_CHECKPOINT/n 2>/dev/null || echo 0)\n\
                 while [ $n -lt 400 ]; do n=$((n+1)); echo $n >> counted; \
                 echo $n > $HAGGLE_CHECKPOINT/n; echo $n > $HAGGLE_PROGRESS; sleep 1; done";
    let mut run = run(count);
    run.checkpoint = Some("checkpoint".to_owned());
    run.progress = Some("progress".to_owned());
    run.control = Some(bench.control(false));
    let until = bench.now() + Duration::from_hours(50);
    bench.rent(&run, None, says(1, "go", until));
    let kept = |bench: &Bench| {
        let told = bench.told();
        let kept = told.iter().rev().find_map(|told| told.checkpoint.clone());
        kept.filter(|kept| kept.slot == 0)
    };
    bench.until("kept", |bench| kept(bench).is_some()).await;
    // The host takes it from us, and another one goes on.
    let (account, id) = (bench.account, bench.id);
    let gone = bench
        .server
        .with_market(|market| market.destroy(account, id));
    gone.unwrap();
    bench.until("gone", |bench| !bench.room().exists()).await;
    let manifest = bench.objects.lock().unwrap()["checkpoint0.manifest"].clone();
    let manifest = String::from_utf8_lossy(&manifest).into_owned();
    assert!(manifest.starts_with("haggle 1 5 "), "{manifest}");
    let work = "cat $HAGGLE_CHECKPOINT/n; mkdir out; echo done > out/result";
    run.command = work.to_owned();
    run.outputs = Some("out".to_owned());
    run.control = Some(bench.control(true));
    bench.rent(&run, None, says(1, "go", until));
    let result = bench.until_told("result").await;
    assert_eq!(result.exit, Some(0), "{}", bench.log());
    let first = bench
        .log()
        .lines()
        .find_map(|line| line.parse::<u64>().ok());
    assert!(first.is_some_and(|first| first >= 1), "{}", bench.log());
    let objects = bench.objects.lock().unwrap();
    assert!(objects.contains_key("outputs.manifest"));
}

#[tokio::test]
async fn a_checkpoint_that_was_tampered_with_is_not_worked_on() {
    let mut bench = Bench::new().await;
    let mut run = run("echo worked on it");
    run.checkpoint = Some("checkpoint".to_owned());
    run.control = Some(bench.control(true));
    bench.keep("checkpoint0.tar", "not what it was".to_owned());
    bench.keep(
        "checkpoint0.manifest",
        format!("haggle 1 4 {} 15\n", "a".repeat(64)),
    );
    let until = bench.now() + Duration::from_hours(5);
    bench.rent(&run, None, says(1, "go", until));
    let trouble = bench.until_told("trouble").await;
    assert_eq!(
        trouble.trouble.as_deref(),
        Some("the checkpoint is not what it should be")
    );
    assert!(!bench.log().lines().any(|line| line == "worked on it"));
}

/// A directory with all that is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Without storage: what one run left beside its directory is taken by the next one behind its gate, once
/// it is whole, and nothing else is.
async fn is_taken_from_another_disk(shell: &str, client: Option<&str>) {
    let Some(tools) = tools(shell, client) else {
        return;
    };
    println!("{shell}, {client:?}");
    let mut bench = Bench::new().await;
    let until = bench.now() + Duration::from_hours(50);
    let write = "mkdir -p $HAGGLE_CHECKPOINT/deep; echo 7 > $HAGGLE_CHECKPOINT/deep/n; sleep 1000";
    let mut first = run(write);
    first.checkpoint = Some("checkpoint".to_owned());
    first.kept = Some("checkpoint.haggle".to_owned());
    bench.rent(&first, Some(tools.path()), says(1, "go", until));
    let beside = bench.root().join("checkpoint.haggle");
    let has = |bench: &Bench| {
        let told = bench.told();
        let kept = told.iter().rev().find_map(|told| told.checkpoint.clone())?;
        // What it wrote first may have been kept before it had written all.
        let manifest = std::fs::read_to_string(beside.join("manifest")).ok()?;
        manifest.contains("./deep/n").then_some(kept)
    };
    bench.until("kept", |bench| has(bench).is_some()).await;
    let listed = |bench: &Bench| has(bench).is_some_and(|kept| kept.bytes > 0);
    bench.until("told of", listed).await;

    let mut next = run("cat $HAGGLE_CHECKPOINT/deep/n; ls $HAGGLE_CHECKPOINT; echo that is all");
    next.checkpoint = first.checkpoint.clone();
    next.kept = first.kept.clone();
    next.generation = 2;
    next.key = String::from("another key");
    next.from = Some(From {
        run: IntentId(5),
        key: kept_key(KEY),
        dir: "checkpoint.haggle-brought".to_owned(),
    });
    let told_by = |bench: &Bench| -> Vec<Told> {
        let log = bench.log();
        let told = log.lines().filter_map(|line| told(line, "another key"));
        told.collect()
    };
    let left = tempfile::tempdir().unwrap();
    copy(&beside, left.path());
    let (account, id) = (bench.account, bench.id);
    let gone = bench
        .server
        .with_market(|market| market.destroy(account, id));
    gone.unwrap();
    bench.until("gone", |bench| !bench.room().exists()).await;
    bench.rent(&next, Some(tools.path()), says(2, "hold", until));
    let waits = |bench: &Bench| told_by(bench).iter().any(|told| told.waits.is_some());
    bench.until("waiting for the copy", waits).await;
    let there = bench.root().join("checkpoint.haggle-brought");
    // An archive without its manifest, then one that is cut, then a manifest that somebody changed.
    copy(left.path(), &there);
    let manifest = std::fs::read_to_string(there.join("manifest")).unwrap();
    std::fs::remove_file(there.join("manifest")).unwrap();
    let sum = manifest.split(' ').nth(3).unwrap();
    let archive = std::fs::read(there.join(format!("{sum}.tar"))).unwrap();
    std::fs::write(
        there.join(format!("{sum}.tar")),
        &archive[..archive.len() / 2],
    )
    .unwrap();
    std::fs::write(there.join("manifest"), &manifest).unwrap();
    pause(Duration::from_secs(1)).await;
    assert!(told_by(&bench).iter().all(|told| told.brought.is_none()));
    let forged = manifest.replace("./deep/n", "./deep/m");
    std::fs::write(there.join("manifest"), forged).unwrap();
    std::fs::write(there.join(format!("{sum}.tar")), &archive).unwrap();
    pause(Duration::from_secs(1)).await;
    assert!(told_by(&bench).iter().all(|told| told.brought.is_none()));
    std::fs::write(there.join("manifest"), &manifest).unwrap();
    let brought = |bench: &Bench| told_by(bench).into_iter().find_map(|told| told.brought);
    bench
        .until("brought", |bench| brought(bench).is_some())
        .await;
    let what = brought(&bench).unwrap();
    assert_eq!((what.run.as_str(), what.bytes), ("5", archive.len() as u64));
    assert!(!bench.log().contains("that is all"), "its gate is shut");
    bench.relabel(&says(2, "go", until));
    let done = |bench: &Bench| told_by(bench).iter().any(|told| told.state == "result");
    bench.until("done", done).await;
    let log = bench.log();
    assert!(log.contains("7\n") && log.contains("that is all"), "{log}");
    // It is this run's own now, for the next one.
    let own = bench.root().join("checkpoint.haggle").join("manifest");
    let own = std::fs::read_to_string(own).unwrap();
    assert!(own.starts_with("haggle 1 5 ") && own != manifest, "{own}");
    assert!(!there.exists());
}

#[tokio::test]
async fn a_checkpoint_is_taken_from_another_disk_once_it_is_whole() {
    is_taken_from_another_disk("dash", Some("curl")).await;
}

#[tokio::test]
async fn any_shell_takes_a_checkpoint_from_another_disk() {
    is_taken_from_another_disk("bash", Some("curl")).await;
    is_taken_from_another_disk("ash", Some("busybox wget")).await;
}

#[tokio::test]
async fn a_machine_that_is_less_than_was_promised_is_refused() {
    let mut bench = Bench::new().await;
    let mut run = run("echo worked on it");
    run.expected = Some(Expected {
        gpus: Some(64),
        percent: 70,
        ..Expected::default()
    });
    let until = bench.now() + Duration::from_hours(5);
    bench.rent(&run, None, says(1, "go", until));
    let refused = bench.until_told("refused").await;
    assert_eq!(refused.bad.as_deref(), Some("gpus"));
    assert!(!bench.log().lines().any(|line| line == "worked on it"));
}

#[tokio::test]
async fn a_gpu_that_is_lost_under_the_command_is_told_of() {
    for (command, fault) in [
        ("exit 1", None),
        (
            "touch \"$(dirname \"$(command -v nvidia-smi)\")/gone\"; exit 1",
            Some("gpu-lost"),
        ),
    ] {
        let mut bench = Bench::new().await;
        let until = bench.now() + Duration::from_hours(5);
        bench.rent(&run(command), None, says(1, "go", until));
        let result = bench.until_told("result").await;
        assert_eq!(result.exit, Some(1));
        assert_eq!(result.fault.as_deref(), fault);
    }
}

#[test]
fn the_script_is_clean() {
    let Some(shellcheck) = found("shellcheck") else {
        return;
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), SCRIPT).unwrap();
    let checked = Command::new(shellcheck)
        .args(["-s", "sh"])
        .arg(file.path())
        .output()
        .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stdout)
    );
}

#[test]
fn it_fits_into_an_instance_and_says_where_it_does_not() {
    let plain = run("true").deliver(0).unwrap();
    assert!(plain.bootstrap.len() < 4096);
    assert!(
        plain
            .env
            .iter()
            .all(|(name, part)| name.len() + part.len() <= 256)
    );
    let taken: usize = plain
        .env
        .iter()
        .map(|(name, part)| name.len() + part.len())
        .sum();
    assert!(taken < 15_000, "{taken}");
    let refused = run("true").deliver(32_000).unwrap_err();
    assert_eq!(refused.characters, taken);
    assert_eq!(refused.most, 768);
}

// ------------------------------------------------------------------------------------- the played one

/// What the lines of a log tell: each state, with its reason and the names of its document's fields.
fn shapes(log: &str) -> Vec<(String, String, Vec<String>)> {
    let lines = log.lines().filter(|line| told(line, KEY).is_some());
    let mut shapes: Vec<_> = lines
        .map(|line| {
            assert!(told(line, KEY).unwrap().signed, "{line}");
            let document = line.strip_prefix("HAGGLE ").unwrap();
            let document = document.rsplit_once(' ').unwrap().0;
            let document: Value = serde_json::from_str(document).unwrap();
            let names = document.as_object().unwrap().keys().cloned().collect();
            let text = |name: &str| document[name].as_str().unwrap_or_default().to_owned();
            (text("state"), text("why"), names)
        })
        .collect();
    shapes.dedup();
    shapes
}

/// A run in a market without processes: its label says one thing, and then another. Its log in the end,
/// as a client reads it.
async fn played(run: &Run, first: &str, second: String) -> String {
    let start = Time(1_795_478_400_000);
    let options = MarketOptions {
        start,
        machines: Some(8),
        intensity: 0.0,
        failures: 0.0,
        ..MarketOptions::default()
    };
    let clock = Arc::new(SimClock::new(start));
    let market = Market::generated(options);
    let wire = WireOptions::default();
    let server = MarketServer::new(market, wire, Faults::none(), clock.clone());
    let server = Arc::new(server);
    let until = start + Duration::from_hours(5);
    let (account, id) = server.with_market(|market| {
        let account = market.account_for("at_one");
        let id = rent(market, account, run, (None, &[]), says(1, first, until));
        (account, id)
    });
    clock.advance(Duration::from_hours(1));
    server
        .with_market(|market| market.set_label(account, id, &second))
        .unwrap();
    clock.advance(Duration::from_mins(10));
    let transport = InProcess::native(server, Duration::from_secs(20));
    let transport: Arc<dyn Transport> = Arc::new(transport);
    let clock: Arc<dyn Clock> = clock;
    let options = VastOptions::new(SecretString::from("at_one"));
    let client = Vast::new(transport, clock, options, &BTreeMap::new());
    let log = client.logs(InstanceId(id), 1000).await.unwrap();
    String::from_utf8(log.to_vec()).unwrap()
}

#[tokio::test]
async fn what_the_market_plays_is_what_the_script_does() {
    let mut bench = Bench::new().await;
    let until = bench.now() + Duration::from_hours(5);
    let mut ends = run("HAGGLE_MARKET_RUN_FOR=1 HAGGLE_MARKET_EXIT=3 sh -c 'exit 3'");
    ends.expected = Some(Expected {
        gpus: Some(1),
        percent: 70,
        ..Expected::default()
    });
    bench.rent(&ends, None, says(1, "hold", until));
    bench.until_told("gate").await;
    bench.relabel(&says(1, "go", until));
    assert_eq!(bench.until_told("result").await.exit, Some(3));
    let log = played(&ends, "hold", says(1, "go", until)).await;
    assert_eq!(shapes(&log), shapes(&bench.log()));
    let last = log.lines().last().unwrap();
    assert_eq!(told(last, KEY).unwrap().exit, Some(3));

    let mut bench = Bench::new().await;
    let lasts = run("sleep 600");
    bench.rent(&lasts, None, says(1, "go", until));
    bench.until_told("running").await;
    bench.relabel(&says(2, "hold", until));
    bench.until_told("gate").await;
    let log = played(&lasts, "go", says(2, "hold", until)).await;
    assert_eq!(shapes(&log), shapes(&bench.log()));

    // A market that plays has no storage: it is as where the document names no places.
    let mut bench = Bench::new().await;
    bench.keep("control", "haggle 1\n".to_owned());
    // Once at its beginning, and at its end: whether a command of a moment is seen at work is chance.
    let mut stored = run("HAGGLE_MARKET_RUN_FOR=3 sh -c 'mkdir out; sleep 3'");
    stored.checkpoint = Some("checkpoint".to_owned());
    stored.sync_every = Duration::from_hours(24);
    stored.outputs = Some("out".to_owned());
    stored.control = Some(format!("{}/control", bench.store));
    bench.rent(&stored, None, says(1, "go", until));
    assert_eq!(bench.until_told("result").await.exit, Some(0));
    let log = played(&stored, "go", says(1, "go", until)).await;
    assert_eq!(shapes(&log), shapes(&bench.log()));
}
