//! The real program, killed at any moment and started again, neither forgets nor doubles anything.
//!
//! The test is the marketplace: it serves an embedded market over HTTP, in market time that runs
//! fast, and at a request that a seed draws it kills the daemon's process: before the request is
//! applied, after it, or so that it is applied late, when the next process has already looked. What
//! must hold is looked at from the market's side at every request, in the database at every death,
//! and in both at the end.
//!
//! `HAGGLE_SEED=N cargo test --test crash -- --nocapture` replays the draws of a seed; processes are
//! real, so two runs of one seed are alike and not the same.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may stop")]
#![allow(clippy::print_stdout, reason = "a test says its seed, and what it did")]
#![allow(
    clippy::disallowed_methods,
    reason = "the deadline of a test with real processes is of real time"
)]

mod books;
mod host;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use haggle::ports::Clock;
use haggle::store::{Reader, append_request};
use haggle::types::ids::JobName;
use haggle::types::job::Job;
use haggle::types::state::{Ask, Wish};
use haggle::types::time::Time;
use host::{Doom, Fate, Host, Of, TOKEN, Told};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// How often a process is killed, in all.
const KILLS: u32 = 50;

/// Kills of one market's daemon while it works; one more hits it while it destroys everything.
const KILLS_AT_WORK: u32 = 4;

/// However slow the machine is, it is not this slow.
const PATIENCE: Duration = Duration::from_mins(10);

const POLICIES: [(&str, &str); 2] = [
    (
        "train.toml",
        r#"
        name = "train"
        rental = "auto"
        priority = 10
        patience = "5m"
        [run]
        image = "pytorch/pytorch:2.4"
        [gpu]
        models = ["RTX 4090", "RTX 3090"]
        count = 1
        [machine]
        disk = "16GB"
        [price]
        max = "$0.60/gpu-hour"
        [budget]
        total = "$40"
        [work]
        gpu_hours = 3
        [checkpoint]
        every = "15m"
        place = "remote"
        [data]
        disposable = true
        "#,
    ),
    (
        "serve.toml",
        r#"
        name = "serve"
        rental = "interruptible"
        replicas = 2
        finish = "never"
        [run]
        image = "vllm/vllm-openai:latest"
        [gpu]
        models = ["RTX 3060"]
        count = 1
        [machine]
        disk = "10GB"
        [price]
        max = "$0.20/gpu-hour"
        [budget]
        per_day = "$20"
        [data]
        disposable = true
        "#,
    ),
];

fn jobs() -> Vec<Arc<Job>> {
    POLICIES
        .iter()
        .map(|(name, text)| {
            let parsed = haggle::policy::parse(name, text);
            Arc::new(parsed.unwrap_or_else(|errors| panic!("{name}: {}", errors[0])))
        })
        .collect()
}

/// What was killed, over all markets.
#[derive(Default)]
struct Tally {
    kills: u32,
    at: BTreeMap<(String, Fate), u32>,
    instances: usize,
    hours: f64,
}

/// One market and the processes that come and go on one database.
struct Trial<'a> {
    name: String,
    host: Arc<Host>,
    told: Receiver<Told>,
    /// The market's server.
    serving: JoinHandle<()>,
    rng: &'a mut ChaCha8Rng,
    tally: &'a mut Tally,
    dir: tempfile::TempDir,
    base_url: String,
    deadline: Instant,
    life: u32,
    /// What the present process wrote, where it was already heard to have ended.
    ended: Option<String>,
    wishes: BTreeMap<JobName, Wish>,
}

impl<'a> Trial<'a> {
    fn new(
        seed: u64,
        number: u64,
        runtime: &Runtime,
        rng: &'a mut ChaCha8Rng,
        tally: &'a mut Tally,
        deadline: Instant,
    ) -> Self {
        let (tell, told) = channel();
        let host = Arc::new(Host::new(seed.wrapping_add(number), &jobs(), tell));
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let base_url = format!("http://{}/vastai", listener.local_addr().unwrap());
        let serving = runtime.spawn(host::serve(listener, Arc::clone(&host)));
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("policies")).unwrap();
        for (name, text) in POLICIES {
            fs::write(dir.path().join("policies").join(name), text).unwrap();
        }
        Self {
            name: format!("seed {seed}, market {number}"),
            host,
            told,
            serving,
            rng,
            tally,
            dir,
            base_url,
            deadline,
            life: 0,
            ended: None,
            wishes: BTreeMap::new(),
        }
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("haggle.db")
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.database()).unwrap_or_else(|error| self.fail(&error.to_string()))
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join(format!("life-{}.log", self.life))
    }

    fn fail(&self, why: &str) -> ! {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(40)..].join("\n");
        panic!(
            "{}, process {}: {why}\nits log ends:\n{tail}\nreplay with HAGGLE_SEED",
            self.name, self.life
        );
    }

    /// Starts a process, which the market kills at its doom.
    fn start(&mut self, doom: Option<Doom>, flags: &[&str]) {
        self.life += 1;
        let mut child = Command::new(env!("CARGO_BIN_EXE_haggle"))
            .args(["run", "--live", "--clock", "market"])
            .args(["--listen", "127.0.0.1:0"])
            .args(flags)
            .current_dir(self.dir.path())
            .env_clear()
            .env("HAGGLE_TOKEN", TOKEN)
            .env("HAGGLE_PROVIDER__BASE_URL", &self.base_url)
            .env("HAGGLE_PROVIDER__TIMEOUT", "20s")
            // Often, so that there are two listings before what is late must have come.
            .env("HAGGLE_POLL__EVERY", "10s")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(self.log()).unwrap())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (life, tell) = (self.life, self.host.teller());
        let mut inside = self.host.lock();
        inside.child = Some(child);
        inside.requests = 0;
        inside.doom = doom;
        drop(inside);
        // Its output ends when the process does, however it ends.
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stdout.read_to_string(&mut text);
            let _ = tell.send(Told::Ended(life, text));
        });
    }

    fn hear(&self) -> Told {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.told.recv_timeout(left) {
            Ok(told) => told,
            Err(RecvTimeoutError::Timeout) => self.fail("it takes too long"),
            Err(RecvTimeoutError::Disconnected) => unreachable!("the host tells"),
        }
    }

    /// Until the process was killed; false where it ended by itself before.
    fn until_killed(&mut self) -> bool {
        loop {
            match self.hear() {
                Told::Killed(count, asked, fate) => {
                    self.tally.kills += 1;
                    *self.tally.at.entry((asked.clone(), fate)).or_default() += 1;
                    println!(
                        "{}: killed at request {count}, {asked}, {fate:?}",
                        self.name
                    );
                    self.look_at_death();
                    return true;
                }
                // One that was killed ends too, and may be heard to before it is told why.
                Told::Ended(life, text)
                    if life == self.life && self.host.lock().child.is_some() =>
                {
                    self.ended = Some(text);
                    return false;
                }
                Told::Ended(..) | Told::Answered(_) => {}
            }
        }
    }

    /// Until the process was answered so often and the market has come so far.
    fn until(&mut self, requests: u64, time: Time) {
        loop {
            match self.hear() {
                Told::Answered(count) if count >= requests && self.host.clock().now() >= time => {
                    return;
                }
                Told::Ended(life, _) if life == self.life => self.fail("it ended by itself"),
                _ => {}
            }
        }
    }

    /// Has the process end, or be killed on the way.
    fn interrupt(&mut self, doom: Option<Doom>) {
        let mut inside = self.host.lock();
        inside.doom = doom;
        let pid = inside.child.as_ref().unwrap().id().to_string();
        drop(inside);
        let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
    }

    fn until_ended(&mut self) -> (ExitStatus, String) {
        let mut ended = self.ended.take();
        let text = loop {
            match ended.take() {
                Some(text) => break text,
                None => match self.hear() {
                    Told::Ended(life, text) if life == self.life => ended = Some(text),
                    _ => {}
                },
            }
        };
        let child = self.host.lock().child.take();
        let status = child.unwrap().wait().unwrap();
        self.host.clock().stop();
        (status, text)
    }

    /// The user changes their mind about one of the jobs, so that there is something to do.
    fn wish(&mut self) {
        let job = jobs()[self.rng.random_range(0..2)].name.clone();
        let wish = match self.wishes.get(&job) {
            Some(Wish::Pause | Wish::Stop) => Wish::Run,
            _ if self.rng.random_bool(0.5) => Wish::Pause,
            _ => Wish::Stop,
        };
        self.ask(&Ask::Job {
            job: job.clone(),
            wish,
        });
        self.wishes.insert(job, wish);
    }

    fn ask(&self, ask: &Ask) {
        append_request(&self.database(), self.host.clock().now(), ask)
            .unwrap_or_else(|error| self.fail(&error.to_string()));
    }

    fn fate(&mut self) -> Fate {
        match self.rng.random_range(0..3) {
            0 => Fate::Before,
            1 => Fate::After,
            _ => Fate::Late(self.rng.random_range(1..=2)),
        }
    }

    /// Where the next process dies: at its k-th request, or at one of its first mutations. The
    /// first process of a market has to rent, so it dies at that.
    fn doom(&mut self, first: bool) -> Doom {
        let any = !first && self.rng.random_range(0..4) == 0;
        Doom {
            skip: self.rng.random_range(0..if any { 60 } else { 3 }),
            of: if any { Of::Any } else { Of::Mutations },
            most: Some(if first { 200 } else { 60 }),
            fate: self.fate(),
        }
    }

    fn run(mut self) {
        for kill in 0..KILLS_AT_WORK {
            if kill > 0 {
                self.wish();
                // As if nobody had noticed for a while.
                if self.host.lock().late.is_none() {
                    let outage = Duration::from_secs(self.rng.random_range(0..600));
                    self.host.clock().jump(outage);
                }
            }
            let doom = self.doom(kill == 0);
            self.start(Some(doom), &[]);
            if !self.until_killed() {
                self.fail("it ended by itself");
            }
        }
        // One that lives comes to terms with all that the dead ones left.
        if self.rng.random_bool(0.5) {
            self.ask(&Ask::ResumeAll);
            self.wishes.clear();
        }
        self.start(None, &["--destroy-on-exit"]);
        let calm = self.host.clock().now() + Duration::from_mins(10);
        self.until(30, calm);
        let doom = Doom {
            skip: self.rng.random_range(0..2),
            of: Of::Destroys,
            most: None,
            fate: self.fate(),
        };
        self.interrupt(Some(doom));
        if self.until_killed() {
            // Told to end in its first tick, it ends after it.
            self.start(None, &["--destroy-on-exit"]);
            self.until(1, Time(0));
            self.interrupt(None);
        }
        let (status, said) = self.until_ended();
        if !status.success() {
            self.fail(&format!("{status}: {said}"));
        }
        self.look_when_destroyed();
        self.settle_the_bill();
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.host.kill(&mut self.host.lock());
        self.serving.abort();
    }
}

fn seed() -> u64 {
    match std::env::var("HAGGLE_SEED") {
        Ok(text) => text.parse().expect("HAGGLE_SEED is a number"),
        Err(_) => RandomState::new().build_hasher().finish() % 1_000_000,
    }
}

#[test]
fn killed_at_any_moment_it_neither_forgets_nor_doubles() {
    let seed = seed();
    println!("seed {seed}; replay with HAGGLE_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut tally = Tally::default();
    let deadline = Instant::now() + PATIENCE;
    let mut number = 0;
    while tally.kills < KILLS {
        number += 1;
        Trial::new(seed, number, &runtime, &mut rng, &mut tally, deadline).run();
    }
    println!(
        "{} kills, {number} markets, {} instances, {:.1} market hours",
        tally.kills, tally.instances, tally.hours
    );
    for ((asked, fate), count) in &tally.at {
        println!("  {count:>3} {asked}, {fate:?}");
    }
    // Kills that hit nothing that matters prove nothing.
    for verb in ["POST", "DELETE"] {
        let hit = tally.at.keys().any(|(asked, _)| asked.starts_with(verb));
        assert!(hit, "seed {seed}: no kill hit a {verb}");
    }
}
