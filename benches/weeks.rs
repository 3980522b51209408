//! Weeks of the daemon at high speed: `haggle run` against `haggle market`, as two processes, over HTTP, with
//! the database in a file. At the end of each week: how much memory the daemon holds, how many descriptors and
//! threads, how large the database is and of what, and what a tick costs.
//!
//! `cargo bench --bench weeks -- --weeks 12 --speed 4000`. Linux only: what a process holds is read in `/proc`.
//! The speed is market seconds a second; where a tick takes longer than what is between two, there are fewer
//! of them, and the weeks are as long. Meanwhile somebody reads metrics, page and API, and opens and leaves
//! streams of events. It fails where descriptors or threads become more, or where memory grows in the second
//! half of the weeks by more than a tenth.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // It measures and prints.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

/// Between two readings of the daemon's pages there is so much real time.
const READ_EVERY: Duration = Duration::from_millis(500);

/// With fewer ticks a week shows nothing: the market does not keep up with its own time.
const TICKS_MIN: u64 = 100;

const WEEK_SECONDS: f64 = 7.0 * 86_400.0;

/// Linux counts processor time in hundredths of a second, whatever the machine.
const TICKS_OF_CPU: f64 = 100.0;

/// Jobs that never end: one whose instances live for half a day, so that many are rented and destroyed; one
/// that is outbid and waits; a service.
const POLICIES: [(&str, &str); 3] = [
    (
        "turning",
        "replicas = 3\nrental = \"auto\"\nfinish = \"manual\"\nmax_lifetime = \"12h\"\n[gpu]\nmodels = [\"RTX 4090\", \"RTX 3090\", \"RTX A5000\"]\n[price]\nmax = \"$0.60/gpu-hour\"\n",
    ),
    (
        "bidding",
        "replicas = 3\nrental = \"interruptible\"\nfinish = \"manual\"\nmax_lifetime = \"2d\"\n[gpu]\nmodels = [\"RTX 3090\", \"RTX 4090\"]\n[price]\nmax = \"$0.40/gpu-hour\"\n",
    ),
    (
        "service",
        "replicas = 2\nrental = \"auto\"\n[service]\nbase_on_demand = 1\n[gpu]\nmodels = [\"RTX 4090\", \"RTX A5000\"]\n[price]\nmax = \"$0.80/gpu-hour\"\n",
    ),
];

struct Args {
    weeks: u32,
    speed: f64,
    offers: Option<String>,
    kept_days: u32,
}

impl Args {
    fn read() -> Self {
        let mut args = Self {
            weeks: 12,
            speed: 4000.0,
            offers: None,
            kept_days: 14,
        };
        let mut given = std::env::args().skip(1);
        while let Some(flag) = given.next() {
            let mut value = || given.next().expect("a value after the flag");
            match flag.as_str() {
                "--weeks" => args.weeks = value().parse().expect("--weeks takes a number"),
                "--speed" => args.speed = value().parse().expect("--speed takes a number"),
                "--kept" => args.kept_days = value().parse().expect("--kept takes days"),
                "--offers" => args.offers = Some(value()),
                // What cargo adds by itself.
                "--bench" => {}
                other => panic!("{other} is none of --weeks, --speed, --kept, --offers"),
            }
        }
        args
    }
}

/// A child that ends with this program.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn haggle(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haggle"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HAGGLE_") {
            command.env_remove(name);
        }
    }
    command.current_dir(directory).env("HAGGLE_LOG", "error");
    command
}

/// What the daemon was at a moment.
#[derive(Clone, Debug, Default)]
struct Sample {
    rss_kb: u64,
    /// Of it, what is not of files: the program's own code and the index of the database's log are.
    own_kb: u64,
    descriptors: usize,
    threads: u64,
    cpu_seconds: f64,
    ticks: u64,
    /// Of the database: all of the file and its log, the pages in use, what is forgotten after a while and
    /// what is kept for ever, in rows.
    file_bytes: u64,
    used_bytes: u64,
    passing_rows: u64,
    lasting_rows: u64,
}

const PASSING: [&str; 7] = [
    "ticks",
    "events",
    "snapshots",
    "offer_versions",
    "offer_specs",
    "coverages",
    "intents",
];
const LASTING: [&str; 5] = ["entries", "ended", "machines", "slots", "usage"];

impl Sample {
    fn take(pid: u32, database: &Path, listen: SocketAddr) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // After the name, which may hold blanks: user and system time are the 12th and 13th.
        let after: Vec<&str> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        let cpu = |at: usize| after[at].parse::<f64>().unwrap() / TICKS_OF_CPU;
        let metrics = get(listen, "/metrics").unwrap_or_default();
        let ticks = metrics
            .lines()
            .find_map(|line| line.strip_prefix("haggle_ticks_total "))
            .map_or(0.0, |count| count.parse().unwrap());
        let wal = PathBuf::from(format!("{}-wal", database.display()));
        let bytes = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
        let connection =
            Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let number = |sql: &str| {
            connection
                .query_row(sql, [], |row| row.get::<_, i64>(0))
                .unwrap() as u64
        };
        let pages = number("PRAGMA page_count") - number("PRAGMA freelist_count");
        let rows = |tables: &[&str]| {
            let of = |table: &&str| number(&format!("SELECT COUNT(*) FROM {table}"));
            tables.iter().map(of).sum()
        };
        Self {
            rss_kb: field("VmRSS:"),
            own_kb: field("RssAnon:"),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            threads: field("Threads:"),
            cpu_seconds: cpu(11) + cpu(12),
            ticks: ticks as u64,
            file_bytes: bytes(database) + bytes(&wal),
            used_bytes: pages * number("PRAGMA page_size"),
            passing_rows: rows(&PASSING),
            lasting_rows: rows(&LASTING),
        }
    }
}

/// A body, read to its end.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = ask(address, path)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

fn ask(address: SocketAddr, path: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .ok()?;
    let host = format!("127.0.0.1:{}", address.port());
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    )
    .ok()?;
    Some(stream)
}

/// What people and programs do meanwhile.
fn read_around(address: SocketAddr) {
    for path in [
        "/metrics",
        "/heartbeat",
        "/",
        "/api/v1/state",
        "/api/v1/story",
        "/api/v1/decisions",
        "/api/v1/jobs/turning/explain",
    ] {
        let _ = get(address, path);
    }
    // Somebody opens the page, reads a piece of the stream, and closes it.
    if let Some(mut stream) = ask(address, "/api/v1/events") {
        let _ = stream.read(&mut [0; 256]);
    }
}

/// A market in a process of its own, and where it is.
fn market(directory: &Path, args: &Args) -> (Ended, String) {
    let mut command = haggle(directory);
    command.args(["market", "--listen", "127.0.0.1:0", "--balance", "1000000"]);
    command.args(["--rate-limits", "off", "--speed", &args.speed.to_string()]);
    if let Some(offers) = &args.offers {
        command.args(["--offers", offers]);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let address = line.trim().rsplit(' ').next().unwrap().to_owned();
    let address = address.trim_start_matches("http://").to_owned();
    (Ended(child), format!("http://{address}"))
}

fn daemon(directory: &Path, origin: &str, args: &Args) -> (Ended, SocketAddr) {
    fs::create_dir(directory.join("policies")).unwrap();
    for (name, rest) in POLICIES {
        let (top, tables) = rest.split_at(rest.find('[').unwrap());
        let text = format!(
            "name = \"{name}\"\n{top}[run]\nimage = \"debian:12\"\n[data]\ndisposable = true\n[machine]\ndisk = \"10GB\"\n{tables}"
        );
        fs::write(directory.join(format!("policies/{name}.toml")), text).unwrap();
    }
    // Taken and let go: nobody else will take it in between.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = listener.local_addr().unwrap();
    drop(listener);
    let text = format!(
        "listen = \"{listen}\"\nlive = true\n[poll]\nevery = \"5m\"\ninstances_every = \"10m\"\nhistory_every = \"30m\"\nhistory_kept = \"{}d\"\n\
         [provider]\nkind = \"vast\"\nbase_url = \"{origin}\"\n",
        args.kept_days
    );
    fs::write(directory.join("haggle.toml"), text).unwrap();
    let mut command = haggle(directory);
    let log = fs::File::create(directory.join("daemon.log")).unwrap();
    let child = command
        .args(["run", "--clock", "market"])
        .env("HAGGLE_TOKEN", "play")
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    (Ended(child), listen)
}

/// The least-squares slope of values that are one apart.
fn slope(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean_x = (n - 1.0) / 2.0;
    let mean_y = values.iter().sum::<f64>() / n;
    let points = || {
        values
            .iter()
            .enumerate()
            .map(|(x, y)| (x as f64 - mean_x, y - mean_y))
    };
    let (xy, xx) = points().fold((0.0, 0.0), |(xy, xx), (x, y)| (xy + x * y, xx + x * x));
    if xx > 0.0 { xy / xx } else { 0.0 }
}

fn main() {
    let args = Args::read();
    let directory = tempfile::tempdir().unwrap();
    let (_market, origin) = market(directory.path(), &args);
    let (mut daemon, listen) = daemon(directory.path(), &origin, &args);
    let database = directory.path().join("haggle.db");
    let began = Instant::now();
    println!(
        "week    RSS kB    own kB  fds  threads  ticks  CPU ms/tick  file MB  used MB  passing rows  lasting rows"
    );
    let mut samples: Vec<Sample> = vec![Sample::default()];
    for week in 1..=args.weeks {
        let ends = Duration::from_secs_f64(f64::from(week) * WEEK_SECONDS / args.speed);
        while began.elapsed() < ends {
            if let Some(status) = daemon.0.try_wait().unwrap() {
                let log = fs::read_to_string(directory.path().join("daemon.log")).unwrap();
                panic!("the daemon ended: {status}\n{log}");
            }
            read_around(listen);
            std::thread::sleep(READ_EVERY.min(ends.saturating_sub(began.elapsed())));
        }
        let sample = Sample::take(daemon.0.id(), &database, listen);
        let last = samples.last().unwrap();
        let ticks = sample.ticks - last.ticks;
        assert!(
            ticks >= TICKS_MIN,
            "{ticks} ticks in week {week}: --speed {} is too fast for this machine",
            args.speed
        );
        println!(
            "{week:>4} {:>9} {:>9} {:>4} {:>8} {ticks:>6} {:>12.2} {:>8.2} {:>8.2} {:>13} {:>13}",
            sample.rss_kb,
            sample.own_kb,
            sample.descriptors,
            sample.threads,
            (sample.cpu_seconds - last.cpu_seconds) * 1000.0 / ticks.max(1) as f64,
            sample.file_bytes as f64 / 1e6,
            sample.used_bytes as f64 / 1e6,
            sample.passing_rows,
            sample.lasting_rows,
        );
        samples.push(sample);
    }
    let log = fs::read_to_string(directory.path().join("daemon.log")).unwrap();
    println!("the log has {} lines:", log.lines().count());
    log.lines().take(20).for_each(|line| println!("  {line}"));
    judge(&samples[1..]);
}

/// What the second half of the weeks shows: by then what is forgotten is forgotten as fast as it comes.
fn judge(samples: &[Sample]) {
    let half = &samples[samples.len() / 2..];
    let of = |what: fn(&Sample) -> f64| slope(&half.iter().map(what).collect::<Vec<_>>());
    println!(
        "second half, a week: own memory {:+.0} kB, descriptors {:+.2}, threads {:+.2}, database in use {:+.1} kB, \
         lasting rows {:+.0}, passing rows {:+.0}",
        of(|s| s.own_kb as f64),
        of(|s| s.descriptors as f64),
        of(|s| s.threads as f64),
        of(|s| s.used_bytes as f64 / 1e3),
        of(|s| s.lasting_rows as f64),
        of(|s| s.passing_rows as f64),
    );
    let (first, last) = (&half[0], &half[half.len() - 1]);
    // One more or less is a request that is under way.
    assert!(
        last.descriptors <= first.descriptors + 4,
        "descriptors are leaked"
    );
    assert!(last.threads <= first.threads + 2, "threads are leaked");
    assert!(last.own_kb * 10 <= first.own_kb * 11, "memory grows");
}
