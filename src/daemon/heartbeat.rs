//! Tells the outside that the daemon lives: at each tick, at the web server and in a file beside
//! the database.
//!
//! What proves life is that the tick's number moves. The web server answers whatever the loop does,
//! and a file stays when its writer is gone; neither proves anything by being there.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::web::Shared;
use super::{Observer, Pace, TickView};
use crate::types::ids::{AccountId, Installation, InstanceId};
use crate::types::money::{Money, Rate};
use crate::types::state::State;
use crate::types::time::Time;

/// The most of a heartbeat that is read, bytes: room for ten thousand instances.
pub const HEARTBEAT_BYTES_MAX: usize = 256 * 1024;

/// What the daemon tells of itself at each tick. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Whose instances it looks after.
    pub installation: Installation,
    /// The account that they are on; `None` until it was pinned.
    pub account: Option<AccountId>,
    /// The number of the last tick. That it moves is what shows that the daemon lives.
    pub tick: u64,
    /// When that was, by the daemon's clock, in RFC 3339: for people, never to be compared.
    pub at: String,
    /// Whether plans are carried out; else it is a dry run, which looks after nothing.
    pub live: bool,
    /// Whether spending is forbidden until `haggle resume --all`.
    pub killed: bool,
    /// The instances that it knows of.
    pub held: Vec<InstanceId>,
    /// What they are being billed now, dollars per hour, a decimal.
    pub burn_dollars_per_hour: String,
    /// Prepaid money left on the account, dollars, a decimal; `None`: unknown.
    pub credit_dollars: Option<String>,
    /// The next tick begins within so many seconds of this one's end.
    pub next_tick_within_seconds: u64,
}

impl Heartbeat {
    /// Reads what was served or written. What comes back is safe to show: its texts are plain.
    ///
    /// # Errors
    /// Says in a few words why it is no heartbeat.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > HEARTBEAT_BYTES_MAX {
            return Err("it is too long to be a heartbeat".to_owned());
        }
        let heartbeat: Self = serde_json::from_slice(bytes)
            .map_err(|_| "it is not the heartbeat of a haggle daemon".to_owned())?;
        let texts = [&heartbeat.at, &heartbeat.burn_dollars_per_hour];
        let plain = |text: &&String| {
            let fits = |c: char| c.is_ascii_digit() || "-:.TZ+".contains(c);
            text.len() <= 40 && text.chars().all(fits)
        };
        if texts
            .into_iter()
            .chain(&heartbeat.credit_dollars)
            .all(|text| plain(&text))
        {
            Ok(heartbeat)
        } else {
            Err("its numbers cannot be read".to_owned())
        }
    }

    fn of(state: &State, at: Time, live: bool, credit: Option<Money>, next: Duration) -> Self {
        let held = state.held.values();
        let burn = held.fold(Rate::ZERO, |sum, held| {
            let gpus = if held.bills_gpu() {
                held.price
            } else {
                Rate::ZERO
            };
            sum.saturating_add(held.storage).saturating_add(gpus)
        });
        Self {
            installation: state.installation.clone(),
            account: state.account,
            tick: state.ticks,
            at: at.to_string(),
            live,
            killed: state.killed,
            held: state.held.keys().copied().collect(),
            burn_dollars_per_hour: burn.decimal(),
            credit_dollars: credit.map(Money::decimal),
            next_tick_within_seconds: next.as_secs() + u64::from(next.subsec_nanos() > 0),
        }
    }
}

/// The file in which the daemon of a database tells that it lives: `<database>.heartbeat`.
pub fn heartbeat_file(database: &Path) -> PathBuf {
    with_ending(database, ".heartbeat")
}

/// The file by which is known that somebody watches the heartbeat: `<database>.guarded`. It is empty; when
/// it was written last is what counts.
pub fn guarded_file(database: &Path) -> PathBuf {
    with_ending(database, ".guarded")
}

/// Notes that the heartbeat of a database was looked at. Where it cannot be noted, as in a directory that
/// is another user's, `haggle doctor` does not see the guard, and nothing else is lost.
pub fn note_guarded(database: &Path) {
    if let Err(error) = std::fs::write(guarded_file(database), "") {
        tracing::debug!("that the heartbeat is watched cannot be noted: {error}");
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

/// An observer that publishes the heartbeat.
pub struct Pulse {
    shared: Arc<Shared>,
    database: PathBuf,
    file: PathBuf,
    pace: Pace,
    /// Whether the file could not be written the last time: it is told once.
    failed: bool,
}

impl Pulse {
    /// Publishes to `shared`, and to the file beside `database`.
    pub fn new(shared: Arc<Shared>, database: &Path, pace: Pace) -> Self {
        Self {
            shared,
            database: database.to_owned(),
            file: heartbeat_file(database),
            pace,
            failed: false,
        }
    }

    /// Tells who this is before the first tick. A process that never comes to tick does not count
    /// as alive: the number is that of the last process's last tick.
    pub fn prime(&mut self, state: &State, now: Time, live: bool, poll_every: Duration) {
        let next = self.pace.next_within(now, poll_every);
        self.publish(&Heartbeat::of(state, now, live, None, next));
    }

    /// How long after `now` the next tick is due.
    fn publish(&mut self, heartbeat: &Heartbeat) {
        let text = match serde_json::to_string(heartbeat) {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!("the heartbeat cannot be written as JSON: {error}");
                return;
            }
        };
        match write_whole(&self.file, &text) {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                tracing::warn!(
                    "the heartbeat cannot be written to {}: {error}; a guard that reads it would \
                     take the daemon for dead",
                    self.file.display()
                );
                self.failed = true;
            }
            Err(_) => {}
        }
        self.shared.publish_heartbeat(text);
    }
}

impl Observer for Pulse {
    fn ticked(&mut self, view: &TickView<'_>) {
        let world = view.world;
        let next = self.pace.next_within(world.now, world.config.poll_every);
        let credit = view.polled.account.and_then(|account| account.credit);
        let heartbeat = Heartbeat::of(view.state, world.now, view.live, credit, next);
        self.publish(&heartbeat);
        if self.shared.heartbeat_was_read() {
            note_guarded(&self.database);
        }
    }
}

/// Writes a file so that readers see it whole. It proves nothing but life, so it is not made
/// durable: the next tick writes it again.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let new = with_ending(path, ".new");
    std::fs::write(&new, text)?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse(database: &Path) -> (Pulse, Arc<Shared>) {
        let shared = Arc::new(Shared::new());
        (
            Pulse::new(Arc::clone(&shared), database, Pace::Every),
            shared,
        )
    }

    #[test]
    fn it_says_who_lives_and_for_how_long_it_will_be_silent() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("haggle.db");
        let (mut pulse, shared) = pulse(&database);
        let mut state = State::new(Installation::from_seed(7));
        state.account = Some(AccountId(5));
        state.ticks = 41;
        pulse.prime(
            &state,
            Time(1_795_478_400_000),
            true,
            Duration::from_millis(90_500),
        );
        let written = std::fs::read(heartbeat_file(&database)).unwrap();
        assert_eq!(written, shared.heartbeat().as_bytes());
        let read = Heartbeat::read(&written).unwrap();
        assert_eq!((read.tick, read.account), (41, Some(AccountId(5))));
        assert_eq!(read.next_tick_within_seconds, 91);
        assert_eq!(read.at, "2026-11-24T00:00:00Z");
        assert_eq!((read.live, read.killed, read.held.len()), (true, false, 0));
        assert_eq!(read.credit_dollars, None, "unknown is not zero");
    }

    #[test]
    fn a_file_that_cannot_be_written_stops_nothing() {
        let (mut pulse, shared) = pulse(Path::new("/nowhere/at/all/haggle.db"));
        let state = State::new(Installation::from_seed(7));
        pulse.prime(&state, Time(0), false, Duration::from_secs(60));
        assert!(Heartbeat::read(shared.heartbeat().as_bytes()).is_ok());
    }

    #[test]
    fn what_is_no_heartbeat_is_refused_without_repeating_it() {
        let (mut pulse, shared) = pulse(Path::new("/nowhere/at/all/haggle.db"));
        let state = State::new(Installation::from_seed(7));
        pulse.prime(&state, Time(0), false, Duration::from_secs(60));
        let good = shared.heartbeat().to_string();
        for bad in [
            String::new(),
            "<html>secret".to_owned(),
            "{}".to_owned(),
            good.replace("\"at\":\"1970", "\"at\":\"secret\\u001b[2J"),
            " ".repeat(HEARTBEAT_BYTES_MAX + 1),
        ] {
            let why = Heartbeat::read(bad.as_bytes()).unwrap_err();
            assert!(!why.contains("secret"), "{why}");
        }
    }
}
