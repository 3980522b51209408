//! The real daemon, live for a day of the market's against the real server, over each of the three
//! paths: the gateway with new URLs, with old ones, and the marketplace's own API. Much goes wrong
//! on the way. At the end nothing is rented, and the books are the bill.
//!
//! Everything passes over HTTP on loopback. Processes are real, so two runs of one seed are alike
//! and not the same. `HAGGLE_SEED` draws another market, `HAGGLE_TEST_HOURS` makes the day longer,
//! `HAGGLE_TEST_SPEED` slower or faster, `HAGGLE_TEST_FAULTS` worse, and `HAGGLE_TEST_DISPUTED`
//! settles what is disputed another way.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may stop")]
#![allow(clippy::print_stdout, reason = "a test says what it did")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use haggle::market::Disputed;
use haggle::store::{EntryFilter, Reader, append_request};
use haggle::types::ledger::Scope;
use haggle::types::money::Money;
use haggle::types::state::Ask;
use haggle::types::time::Time;
use serde_json::Value;

use crate::support;

/// At the gateway a token, at the marketplace a key: the same account.
const TOKEN: &str = "at_paths";

/// Market seconds a second, by default: a day takes a minute.
const SPEED: f64 = 1440.0;

/// Everything that can go wrong with a request, about one in eight. What is never answered costs a
/// second of real time, so it is rare.
const FAULTS: &str = "latency=0ms..4ms,5xx=3%,429=2%,garbage=1%,html=1%,truncated=1%,partial=1%,\
                      empty=1%,content-type=1%,stale=1%,skew=0.5%,duplicated=1%,timeout-after=0.1%,\
                      timeout-before=0.1%,key-deleted=0.2%,session-expired=0.2%";

/// One that does not end in so many goes does not end.
const LIVES_MAX: u32 = 8;

fn setting<T: std::str::FromStr>(name: &str, usual: T) -> T {
    let Ok(text) = std::env::var(name) else {
        return usual;
    };
    let read = text.parse().ok();
    read.unwrap_or_else(|| panic!("{name}={text} cannot be read"))
}

/// One way to the market.
struct Way {
    name: &'static str,
    kind: &'static str,
    market: &'static [&'static str],
    base: &'static str,
    /// How the market settles some of what is disputed.
    disputed: &'static str,
}

impl Way {
    fn disputed(&self) -> Disputed {
        setting("HAGGLE_TEST_DISPUTED", self.disputed.parse().unwrap())
    }
}

/// A market that is served, and the daemon's directory.
struct World {
    way: Way,
    market: Child,
    address: String,
    directory: tempfile::TempDir,
    lives: u32,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.market.kill();
        let _ = self.market.wait();
    }
}

impl World {
    fn new(way: Way) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut market = support::haggle(directory.path())
            .args(["market", "--json", "--listen", "127.0.0.1:0", "--control"])
            .args(["--wire", "both", "--charge-decimals", "3"])
            .args(["--rate-limits", "both", "--intensity", "2"])
            .args(["--seed", &setting("HAGGLE_SEED", 1_u64).to_string()])
            .args(["--speed", &setting("HAGGLE_TEST_SPEED", SPEED).to_string()])
            .args([
                "--faults",
                &setting("HAGGLE_TEST_FAULTS", FAULTS.to_owned()),
            ])
            .args(["--disputed", &way.disputed().to_string()])
            .args(way.market)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut document = String::new();
        let mut lines = BufReader::new(market.stdout.take().unwrap());
        let url = loop {
            assert_ne!(lines.read_line(&mut document).unwrap(), 0, "no market");
            if let Ok(read) = serde_json::from_str::<Value>(&document) {
                break read["vast_base_url"].as_str().unwrap().to_owned();
            }
        };
        let policies = concat!(env!("CARGO_MANIFEST_DIR"), "/policies");
        let config = format!(
            "policies = {policies:?}\nlisten = \"127.0.0.1:0\"\n[provider]\nkind = {:?}\n\
             base_url = \"{url}{}\"\ntimeout = \"1s\"\n[poll]\nevery = \"3m\"\n\
             instances_every = \"1m\"\n",
            way.kind, way.base
        );
        fs::write(directory.path().join("haggle.toml"), config).unwrap();
        Self {
            way,
            market,
            address: url.strip_prefix("http://").unwrap().to_owned(),
            directory,
            lives: 0,
        }
    }

    // ------------------------------------------------------------------------------- the market

    /// The market's own answer to a call. Its rate limits hold here, too, in its time.
    fn api(&self, method: &str, path: &str, body: &str) -> Value {
        const TRIES: u32 = 200;
        for _ in 0..TRIES {
            let answer = self.exchange(method, path, body);
            if !answer.starts_with("HTTP/1.1 429") {
                let (_, body) = answer.split_once("\r\n\r\n").unwrap();
                return serde_json::from_str(body)
                    .unwrap_or_else(|_| panic!("{method} {path}: {answer}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{method} {path} was always too much");
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\n\
             Connection: close\r\nContent-Length: {length}\r\n\r\n{body}",
            self.address
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn now(&self) -> Time {
        let clock = self.api("GET", "/clock", "");
        Time::from_epoch_seconds(clock["now"].as_f64().unwrap()).unwrap()
    }

    /// Moves the market on while no daemon follows its clock.
    fn jump(&self, hours: u32) {
        let before = self.now();
        let body = format!("{{\"forward_seconds\": {}}}", hours * 3600);
        self.api("PUT", "/clock", &body);
        assert!(self.now().since(before) >= Duration::from_hours(hours.into()));
        // All that happens meanwhile happens at the next request, which need not be a daemon's.
        self.left();
    }

    fn set_faults(&self, faults: &str) {
        let body = format!("{{\"faults\": \"{faults}\"}}");
        let told = self.api("PUT", "/faults", &body);
        assert_eq!(told["faults"], faults);
    }

    /// What the account still has, as the market says.
    fn left(&self) -> Vec<u64> {
        let listing = self.api("GET", "/api/v0/instances/", "");
        let rows = listing["instances"].as_array().unwrap();
        rows.iter().map(|row| row["id"].as_u64().unwrap()).collect()
    }

    /// What the market charged, by instance.
    fn bill(&self) -> BTreeMap<u64, Money> {
        let to = self.now().epoch_seconds() as u64 + 86_400;
        let filters = format!("%7B%22day%22%3A%7B%22gte%22%3A0%2C%22lte%22%3A{to}%7D%7D");
        let mut bill: BTreeMap<u64, Money> = BTreeMap::new();
        let mut after = String::new();
        loop {
            let path = format!("/api/v0/charges/?limit=100&select_filters={filters}{after}");
            let page = self.api("GET", &path, "");
            for row in page["results"].as_array().unwrap() {
                let source = row["source"].as_str().unwrap();
                let id = source.strip_prefix("instance-").unwrap().parse().unwrap();
                let amount = Money::from_dollars(row["amount"].as_f64().unwrap()).unwrap();
                *bill.entry(id).or_default() += amount;
            }
            match page["next_token"].as_str() {
                Some(token) => after = format!("&after_token={token}"),
                None => return bill,
            }
        }
    }

    // ------------------------------------------------------------------------------- the daemon

    fn log(&self) -> PathBuf {
        self.directory
            .path()
            .join(format!("life-{}.err", self.lives))
    }

    fn fail(&self, why: &str) -> ! {
        let kept = std::env::temp_dir().join(format!("haggle-paths-{}", self.way.name));
        let _ = fs::remove_dir_all(&kept);
        let _ = fs::create_dir_all(&kept);
        for entry in fs::read_dir(self.directory.path()).unwrap().flatten() {
            let _ = fs::copy(entry.path(), kept.join(entry.file_name()));
        }
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(30)..].join("\n");
        panic!(
            "{}, life {}: {why}\nkept in {}; the log ends:\n{tail}",
            self.way.name,
            self.lives,
            kept.display()
        );
    }

    fn start(&mut self, flags: &[&str]) -> support::Running {
        self.lives += 1;
        let mut command = support::haggle(self.directory.path());
        command
            .args(["run", "--live", "--clock", "market"])
            .args(flags)
            .env("HAGGLE_TOKEN", TOKEN);
        if flags.contains(&"--once") {
            // Nothing hangs any more, and nothing is tried again.
            command.env("HAGGLE_PROVIDER__TIMEOUT", "1m");
        }
        let name = format!("life-{}", self.lives);
        support::Running::start(&mut command, self.directory.path(), &name)
    }

    fn database(&self) -> PathBuf {
        self.directory.path().join("haggle.db")
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.database()).unwrap_or_else(|error| self.fail(&error.to_string()))
    }

    fn ticks(&self) -> u64 {
        self.reader().state().unwrap().ticks
    }

    /// The daemon works until the market has come so far. A key that is refused before anything is
    /// known ends it, and it is started again, as whoever runs it would.
    fn work_until(&mut self, end: Time) -> support::Running {
        let mut daemon = self.start(&["--destroy-on-exit"]);
        let mut ticks = 0;
        while self.now() < end {
            std::thread::sleep(Duration::from_millis(50));
            if daemon.is_alive() {
                continue;
            }
            let refused = fs::read_to_string(self.log()).unwrap();
            let at_once = refused.contains("the token was refused") && self.ticks() <= ticks + 1;
            if !at_once || self.lives >= LIVES_MAX {
                self.fail("it ended by itself");
            }
            ticks = self.ticks();
            daemon = self.start(&["--destroy-on-exit"]);
        }
        daemon
    }

    /// Asks it to end, and where it could not see to everything in its time, has the next one do it.
    fn wind_down(&mut self, mut daemon: support::Running) {
        loop {
            daemon.terminate();
            let status = daemon.wait();
            if status.success() {
                return;
            }
            if status.code() != Some(2) || self.lives >= LIVES_MAX {
                self.fail(&format!("it ended with {status}"));
            }
            daemon = self.start(&["--destroy-on-exit"]);
            daemon.wait_to_say("metrics at");
        }
    }

    /// What the ledger holds, by instance.
    fn books(&self) -> BTreeMap<u64, Money> {
        let mut books: BTreeMap<u64, Money> = BTreeMap::new();
        for entry in self.reader().entries(&EntryFilter::default()).unwrap() {
            if entry.kind.spends() {
                let id = entry.instance.expect("what is spent is spent on something");
                *books.entry(id.0).or_default() += entry.amount;
            }
        }
        books.retain(|_, amount| *amount != Money::ZERO);
        books
    }

    fn look_at_what_is_left(&self) {
        let left = self.left();
        if !left.is_empty() {
            self.fail(&format!("{left:?} are still rented"));
        }
        let state = self.reader().state().unwrap();
        if !(state.held.is_empty() && state.intents.is_empty() && state.reserved.is_empty()) {
            self.fail(&format!(
                "held {:?}, open {:?}, reserved {:?}",
                state.held.keys(),
                state.intents,
                state.reserved
            ));
        }
    }

    fn look_at_the_books(&self) {
        let (mut bill, books) = (self.bill(), self.books());
        bill.retain(|_, amount| *amount != Money::ZERO);
        if bill != books {
            let ids: BTreeSet<&u64> = bill.keys().chain(books.keys()).collect();
            let wrong = ids.into_iter().filter(|id| bill.get(id) != books.get(id));
            let wrong: Vec<String> = wrong
                .map(|id| {
                    let told =
                        |amount: Option<&Money>| format!("{:?}", amount.map(|a| a.decimal()));
                    format!(
                        "{id}: billed {}, booked {}",
                        told(bill.get(id)),
                        told(books.get(id))
                    )
                })
                .collect();
            self.fail(&format!("the books are not the bill: {}", wrong.join("; ")));
        }
        let state = self.reader().state().unwrap();
        let posted = state.usage(&Scope::Account).total;
        if posted != books.values().copied().sum() {
            self.fail(&format!("the jobs' totals are {}", posted.decimal()));
        }
        let told = self.reader().events(None, 100_000).unwrap();
        if let Some(event) = told.iter().find(|event| event.kind == "unknown-charges") {
            self.fail(&event.text);
        }
    }
}

fn a_day_over(way: Way) {
    let mut world = World::new(way);
    let hours: f64 = setting("HAGGLE_TEST_HOURS", 24.0);
    let begun = world.now();
    let end = begun + Duration::from_secs_f64(hours * 3600.0);
    let daemon = world.work_until(end);
    world.wind_down(daemon);
    world.set_faults("none");
    world.look_at_what_is_left();

    // Nothing is to be rented any more. What is billed late is taken up by the next start. Where the
    // answer to a destroy was lost, the instance may have ended before its bill seems whole: such a
    // bill is closed only 36 hours later.
    world.jump(37 + world.way.disputed().charges_late_hours);
    append_request(&world.database(), world.now(), &Ask::Kill).unwrap();
    let mut once = world.start(&["--once"]);
    let status = once.wait();
    if !status.success() {
        world.fail(&format!("--once ended with {status}"));
    }
    world.look_at_what_is_left();
    world.look_at_the_books();

    let state = world.reader().state().unwrap();
    let books = world.books();
    let total: Money = books.values().copied().sum();
    println!(
        "{}: {:.1} market hours, {} ticks, {} instances, {} booked, {} lives",
        world.way.name,
        world.now().since(begun).as_secs_f64() / 3600.0,
        state.ticks,
        books.len(),
        total.decimal(),
        world.lives
    );
    // A day on which nothing was rented, or nothing went wrong, proves nothing.
    assert!(books.len() >= 3, "{} instances", books.len());
    let unread = (1..=world.lives).any(|life| {
        let log = world.directory.path().join(format!("life-{life}.err"));
        let log = fs::read_to_string(log).unwrap();
        log.contains("is unknown, the next poll tries again")
    });
    assert!(unread, "everything could always be read");
}

#[test]
fn a_day_over_each_path_leaks_nothing_and_agrees_with_the_bill() {
    let ways = [
        Way {
            name: "new",
            kind: "lowcodeapi",
            market: &["--paths", "new", "--envelope", "data"],
            base: "/vastai",
            disputed: "default",
        },
        Way {
            name: "old",
            kind: "lowcodeapi",
            market: &["--paths", "old", "--envelope", "result"],
            base: "/vastai",
            disputed: "charges_late_hours=1,charges_by_component=yes,billed_from=granted,ghosts=2",
        },
        Way {
            name: "native",
            kind: "vast",
            market: &[],
            base: "",
            disputed: "missing=404,gone_status=404,bad_key_status=403,shown_after_seconds=20,\
                       reads_stopped=yes,outbid_intends_running=yes,notices=lossy",
        },
    ];
    // They mostly wait, so they need no core each.
    let days = ways.map(|way| (way.name, std::thread::spawn(move || a_day_over(way))));
    let failed: Vec<&str> = days
        .into_iter()
        .filter_map(|(name, day)| day.join().is_err().then_some(name))
        .collect();
    assert!(failed.is_empty(), "over {failed:?}: see above");
}
