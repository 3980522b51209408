//! What the daemon tells a service manager, in systemd's words: that it is ready, what it does, that
//! it lives, that it reads its policies anew, and that it ends. Where none listens, nothing is told.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::failure::{Failure, OrFail};
use super::signals::Signals;
use super::sources::PolicyDirectory;
use crate::daemon::events::Mailbox;
use crate::daemon::life::Life;
use crate::daemon::watch::unready;
use crate::daemon::{Observer, Pace, Policies, PolicySet, TickView};
use crate::engine::projection::burn_now;
use crate::ports::StoreError;
use crate::types::money::{Money, Rate};
use crate::types::spelling::is_obeyed;
use crate::types::state::Change;

/// The longest status, characters: it stands in a line of `systemctl status`.
const STATUS_MAX: usize = 300;

/// The manager is told of life so many times in the time after which it no longer believes in it.
const BEATS: u32 = 3;

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Ready,
    Reloading,
    Stopping,
    Lives,
    Status(String),
}

/// Where a reload is, for it is over when a tick has ended that read the policies after it was asked for.
#[derive(Default)]
struct Reload(AtomicU8);

impl Reload {
    const NONE: u8 = 0;
    const ASKED: u8 = 1;
    const READ: u8 = 2;

    fn asked(&self) {
        self.0.store(Self::ASKED, Ordering::SeqCst);
    }

    fn read(&self) {
        let (from, to) = (Self::ASKED, Self::READ);
        // Where nobody asked, there is nothing to note.
        let _ = self
            .0
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Whether a tick's end is the reload's end.
    fn ends(&self) -> bool {
        let (from, to) = (Self::READ, Self::NONE);
        let swapped = self
            .0
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
        swapped.is_ok()
    }
}

/// The daemon as a service.
pub(crate) struct Service {
    life: Arc<Life>,
    reload: Reload,
    tell: fn(&[Word]),
    /// The last status, which comes back after a reload.
    status: Mutex<String>,
}

impl Service {
    /// Of a loop whose signs of life are these.
    pub(crate) fn new(life: Arc<Life>) -> Arc<Self> {
        Arc::new(Self {
            life,
            reload: Reload::default(),
            tell,
            status: Mutex::default(),
        })
    }

    /// It serves, and ticks from now on. While what is returned lives, the manager's watchdog is told
    /// of life for as long as the loop gets on.
    pub(crate) fn ready(self: &Arc<Self>) -> Result<Beating, Failure> {
        self.status("the first tick is under way".to_owned());
        (self.tell)(&[Word::Ready]);
        let Some(within) = watchdog() else {
            return Ok(Beating(None));
        };
        let (ends, ended) = mpsc::channel();
        let service = Arc::clone(self);
        thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || service.beat(within / BEATS, &ended))
            .or_world("the thread that tells the watchdog of life cannot be started")?;
        Ok(Beating(Some(ends)))
    }

    fn beat(&self, every: Duration, ended: &mpsc::Receiver<Infallible>) {
        let mut hung = false;
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(every) {
            hung = self.beat_once(hung);
        }
    }

    /// Tells of life, or why not; whether the loop hangs.
    fn beat_once(&self, hung: bool) -> bool {
        let Some(why) = self.life.hangs() else {
            (self.tell)(&[Word::Lives]);
            return false;
        };
        if !hung {
            tracing::error!("the loop hangs: {why}; the service manager is not told that it lives");
            self.status(format!("the loop hangs: {why}"));
        }
        true
    }

    /// It ends by itself or was asked to.
    pub(crate) fn stopping(&self) {
        (self.tell)(&[
            Word::Stopping,
            Word::Status("ending: what was sent is settled first".to_owned()),
        ]);
    }

    fn status(&self, text: String) {
        let text = one_line(&text);
        (self.tell)(&[Word::Status(text.clone())]);
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// Reads the policies anew at each SIGHUP, in a tick that comes early. `note` says what else there
    /// is to know then. It goes on for as long as it is polled.
    pub(crate) async fn reload_when_asked(
        &self,
        mailbox: &Mailbox,
        mut note: impl FnMut(),
    ) -> Infallible {
        let mut hangups = Signals::hangups();
        loop {
            hangups.next().await;
            (self.tell)(&[Word::Reloading]);
            tracing::info!("reading the policies anew");
            note();
            self.reload.asked();
            mailbox.wake();
        }
    }

    fn ticked(&self, view: &TickView<'_>, next: Duration) {
        self.life.ticks(next);
        self.status(status_of(view));
        if self.reload.ends() {
            tracing::info!(
                policies = view.world.jobs.len(),
                unusable = view.broken_policies.len(),
                "the policies were read anew"
            );
            (self.tell)(&[Word::Ready]);
        }
    }
}

/// While it lives, the watchdog is told of life.
pub(crate) struct Beating(
    #[expect(dead_code, reason = "dropping it ends the thread")] Option<mpsc::Sender<Infallible>>,
);

/// An observer by which the service knows what the loop does.
pub(crate) struct Follower {
    pub(crate) service: Arc<Service>,
    pub(crate) pace: Pace,
}

impl Observer for Follower {
    fn committed(&mut self, _changes: &[Change]) {
        self.service.life.changes();
    }

    fn store_failed(&mut self, error: Option<&StoreError>) {
        // The loop gives up by itself where that goes on.
        self.service.life.changes();
        if let Some(error) = error {
            self.service.status(format!("spending stops: {error}"));
        }
    }

    fn ticked(&mut self, view: &TickView<'_>) {
        let world = view.world;
        let next = self.pace.next_within(world.now, world.config.poll_every);
        self.service.ticked(view, next);
    }
}

/// Policies from a directory, and the service knows when they were read.
pub(crate) struct Reloaded {
    pub(crate) directory: PolicyDirectory,
    pub(crate) service: Arc<Service>,
}

impl Policies for Reloaded {
    fn load(&mut self) -> PolicySet {
        // Noted before: what is asked for while files are read is for the next tick.
        self.service.reload.read();
        self.directory.load()
    }
}

/// What the daemon does, in a line.
fn status_of(view: &TickView<'_>) -> String {
    let state = view.state;
    let burn: Rate = state.held.values().map(burn_now).sum();
    let mode = match (view.live, state.killed) {
        (false, _) => "dry run, ",
        (true, true) => "spending is forbidden, ",
        (true, false) => "",
    };
    let credit = view.polled.account.and_then(|account| account.credit);
    let mut text = format!(
        "{mode}tick {}: {} jobs, {} instances at {burn:.4}/h, credit {}",
        state.ticks,
        view.world.jobs.len(),
        state.held.len(),
        credit.map_or_else(
            || "unknown".to_owned(),
            |credit: Money| format!("{credit:.2}")
        ),
    );
    if !view.broken_policies.is_empty() {
        let count = view.broken_policies.len();
        text.push_str(&format!("; {count} policy files cannot be used"));
    }
    if let Some(first) = unready(view).first() {
        text.push_str(&format!("; {first}"));
    }
    text
}

/// A text that stays one line, and short.
fn one_line(text: &str) -> String {
    let plain = text.chars().map(|c| if is_obeyed(c) { ' ' } else { c });
    plain.take(STATUS_MAX).collect()
}

#[cfg(unix)]
fn tell(words: &[Word]) {
    use sd_notify::NotifyState;
    let mut states = Vec::new();
    for word in words {
        match word {
            Word::Ready => states.push(NotifyState::Ready),
            Word::Reloading => {
                states.push(NotifyState::Reloading);
                // Newer managers ask from when on it reloads.
                states.extend(NotifyState::monotonic_usec_now());
            }
            Word::Stopping => states.push(NotifyState::Stopping),
            Word::Lives => states.push(NotifyState::Watchdog),
            Word::Status(text) => states.push(NotifyState::Status(text)),
        }
    }
    // Without a manager nothing is sent. One that cannot be reached must not end the daemon.
    if let Err(error) = sd_notify::notify(&states) {
        tracing::warn!("the service manager cannot be told: {error}");
    }
}

#[cfg(not(unix))]
fn tell(_words: &[Word]) {}

/// Within which time the manager wants to be told of life; `None`: it does not watch.
#[cfg(unix)]
fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|within| !within.is_zero())
}

#[cfg(not(unix))]
fn watchdog() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::clock::SimClock;
    use crate::types::time::Time;

    thread_local! {
        static TOLD: RefCell<Vec<Word>> = const { RefCell::new(Vec::new()) };
    }

    fn keep(words: &[Word]) {
        TOLD.with(|told| told.borrow_mut().extend(words.iter().cloned()));
    }

    fn told() -> Vec<Word> {
        TOLD.with(|told| told.borrow_mut().drain(..).collect())
    }

    #[test]
    fn a_loop_that_hangs_is_not_reported_as_alive_and_why_is_told_once() {
        let clock = Arc::new(SimClock::new(Time(1_795_478_400_000)));
        let life = Arc::new(Life::new(clock.clone(), Duration::from_secs(30)));
        let mut service = Service::new(Arc::clone(&life));
        Arc::get_mut(&mut service).unwrap().tell = keep;
        assert!(!service.beat_once(false));
        assert_eq!(told(), [Word::Lives]);
        clock.advance(Duration::from_hours(1));
        assert!(service.beat_once(false));
        let words = told();
        assert!(
            matches!(&words[..], [Word::Status(why)] if why.starts_with("the loop hangs: no step")),
            "{words:?}"
        );
        assert!(service.beat_once(true));
        assert_eq!(told(), []);
        life.changes();
        assert!(!service.beat_once(true));
        assert_eq!(told(), [Word::Lives]);
    }

    #[test]
    fn a_reload_is_over_when_a_tick_ended_that_read_the_policies_after_it_was_asked_for() {
        let reload = Reload::default();
        reload.read();
        assert!(!reload.ends(), "nobody asked");
        reload.asked();
        assert!(!reload.ends(), "this tick had read them before");
        reload.read();
        assert!(reload.ends());
        assert!(!reload.ends());
        reload.asked();
        reload.read();
        reload.asked();
        assert!(!reload.ends(), "asked again meanwhile");
    }

    #[test]
    fn a_status_stays_a_line() {
        let long = format!("one\nREADY=1\u{1b}[2J{}", "x".repeat(1000));
        let line = one_line(&long);
        assert!(line.starts_with("one READY=1 [2Jx"), "{line}");
        assert_eq!(line.chars().count(), STATUS_MAX);
    }
}
