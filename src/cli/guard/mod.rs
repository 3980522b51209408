//! `haggle guard`: watches the daemon from outside, best from another machine, and alerts or winds
//! down when it no longer ticks: what it rented goes on billing.
//!
//! That the tick's number moves under the guard's own clock is what counts as life. A process that
//! is there, a server that answers, a time that the other machine says: none of these do.

mod act;
mod alert;
mod memory;
mod source;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use act::{Acted, Hands, How, Wound};
use alert::{Alert, Course, Kind, Stuck, Ways};
use memory::{AGAIN_AFTER, LOOKS_MIN, Memory, Sight};
use source::Source;

use super::clock::ClockChoice;
use super::context::{Context, block_on};
use super::failure::{Done, Exit, Failure};
use super::run::interrupted;
use super::winddown::list;
use crate::config::Config;
use crate::types::ids::{Installation, InstanceId};
use crate::types::time::{Mono, human};

/// The shortest and the longest wait before winding down is tried again.
const TRY_AGAIN_FIRST: Duration = Duration::from_secs(30);
const TRY_AGAIN_LAST: Duration = Duration::from_mins(10);

/// Watches a daemon.
#[derive(Args, Clone, Debug)]
pub(crate) struct GuardArgs {
    /// The daemon's heartbeat: the address that it serves, or the file beside its database.
    #[arg(long, value_name = "URL|FILE")]
    heartbeat: String,
    /// How often to look.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// How long the tick may stand still, or the heartbeat be out of reach. A daemon that can be
    /// reached and announced its next tick for later is waited for until then.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = humantime::parse_duration)]
    after: Duration,
    /// What to do then, beside alerting.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Then::Alert)]
    then: Then,
    /// A shell command to run at each alert: its arguments are the kind and the text, and the
    /// alert is on its stdin as JSON.
    #[arg(long, value_name = "COMMAND")]
    on_alert: Option<String>,
    /// Where each alert is posted as JSON: an address, or `env:NAME` or `file:PATH` that holds it.
    #[arg(long, value_name = "URL")]
    alert_url: Option<String>,
    /// Whose heartbeat it has to be; without it, that of the first that is seen.
    #[arg(long, value_name = "ID")]
    installation: Option<Installation>,
    /// Look once and end, for a timer: 0 where nothing is wrong, 2 where the daemon is dead, 1
    /// where what was seen cannot be remembered.
    #[arg(long, requires = "state")]
    once: bool,
    /// Where to remember what was seen.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// How long one winding down goes on until it is proven.
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = humantime::parse_duration)]
    within: Duration,
    /// Whose time it goes by: `market` follows a `haggle market` on this machine, however fast.
    #[arg(long, value_name = "WHOSE", default_value = "system")]
    clock: ClockChoice,
}

/// What to do when the daemon is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Then {
    /// Nothing but tell.
    Alert,
    /// Cut bids and stop instances; their disks are kept, and billed.
    Park,
    /// Destroy instances with their disks.
    Destroy,
}

impl Then {
    fn how(self) -> Option<How> {
        match self {
            Self::Alert => None,
            Self::Park => Some(How::Park),
            Self::Destroy => Some(How::Destroy),
        }
    }
}

/// How the daemon is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    /// Its tick moved.
    Alive,
    /// Its tick has not moved yet, or it is not heard, and not for long enough to say more.
    #[default]
    Quiet,
    /// It is dead, or out of reach.
    Silent,
}

#[derive(Debug, Serialize)]
struct GuardDocument {
    status: Status,
    installation: Option<Installation>,
    account: Option<u64>,
    tick: Option<u64>,
    live: Option<bool>,
    killed: Option<bool>,
    held: Vec<u64>,
    burn_dollars_per_hour: Option<String>,
    silent_seconds: u64,
    why: Option<String>,
    alerts: Vec<Kind>,
    wound_down: Option<Wound>,
}

pub(crate) fn run(context: &Context, args: &GuardArgs) -> Done {
    let config = context.config()?;
    check(args)?;
    let ways = Ways::new(
        context,
        &config.provider,
        args.on_alert.as_deref(),
        args.alert_url.as_deref(),
    )?;
    if args.then.how().is_some() && !args.once {
        // Better now than when it is needed. A timer has nobody to tell but by alerts.
        super::connect::token(&config.provider)?;
    }
    let context = &args.clock.of(context, &config.provider)?;
    let mut guard = Guard::new(context, &config, args, ways)?;
    block_on(guard.watch())
}

fn check(args: &GuardArgs) -> Result<(), Failure> {
    if args.after.is_zero() || args.every.is_zero() {
        return Err(Failure::mendable(
            "--every and --after have to be longer than nothing",
        ));
    }
    if !args.once && args.after < args.every * LOOKS_MIN {
        return Err(Failure::mendable(format!(
            "--after {} is shorter than {LOOKS_MIN} looks, {} apart: a daemon is dead when that \
             many saw the same tick",
            human(args.after),
            human(args.every)
        ))
        .hint("make --after longer, or --every shorter"));
    }
    Ok(())
}

struct Guard<'a> {
    context: &'a Context,
    config: &'a Config,
    args: &'a GuardArgs,
    source: Source,
    ways: Ways,
    memory: Memory,
    /// When this process looked last.
    looked: Option<Mono>,
    /// When winding down, or trying it out, may be tried again.
    try_at: Mono,
    try_again: Duration,
    status: Status,
    /// Why the last look saw no life.
    why: Option<String>,
    /// What the last winding down came to.
    wound: Option<Wound>,
    /// Whether the daemon was last said to be live, and killed.
    mode: Option<(bool, bool)>,
    /// Whether what it knows could be kept for the next process.
    is_kept: bool,
}

impl<'a> Guard<'a> {
    fn new(
        context: &'a Context,
        config: &'a Config,
        args: &'a GuardArgs,
        ways: Ways,
    ) -> Result<Self, Failure> {
        Ok(Self {
            context,
            config,
            args,
            source: Source::new(&args.heartbeat, args.every)?,
            ways,
            memory: Memory::default(),
            looked: None,
            try_at: Mono(0),
            try_again: TRY_AGAIN_FIRST,
            status: Status::default(),
            why: None,
            wound: None,
            mode: None,
            is_kept: true,
        })
    }

    async fn watch(&mut self) -> Done {
        self.remember().await;
        if self.args.once {
            self.look().await;
        } else {
            self.context.output.note(&format!(
                "watching {}: a look every {}, dead after {}",
                self.args.heartbeat,
                human(self.args.every),
                human(self.args.after)
            ));
            self.look_until_interrupted().await;
        }
        self.show()?;
        Ok(match self.status {
            Status::Silent if self.args.once => Exit::World,
            _ if self.args.once && !self.is_kept => Exit::Mendable,
            _ => Exit::Success,
        })
    }

    async fn look_until_interrupted(&mut self) {
        let stop = interrupted();
        tokio::pin!(stop);
        let clock = self.context.clock.clone();
        loop {
            let looked = async {
                self.look().await;
                clock.sleep_until(clock.now() + self.args.every).await;
            };
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = looked => {}
            }
        }
    }

    /// One look, and all that follows from it.
    async fn look(&mut self) {
        let now = self.context.now();
        let mono = self.context.clock.monotonic();
        // Between two processes there is only the wall clock. How little it can do is in `memory`.
        let step = match (self.looked.replace(mono), self.memory.looked_at) {
            (Some(last), _) => mono.since(last),
            (None, Some(at)) => now.since(at),
            (None, None) => Duration::ZERO,
        };
        let read = self.source.read().await;
        let expected = self.args.installation.as_ref();
        let mut sight = self.memory.take(read, step, self.args.after, expected);
        let waits = self.memory.silence() >= self.args.after;
        if sight == Sight::Still && waits && self.source.process_has_ended() {
            // Its file stays, and what it announced is announced no longer.
            sight = Sight::Unreadable("the daemon's process has ended".to_owned());
        }
        self.memory.looked_at = Some(now);
        self.why = match &sight {
            Sight::First | Sight::Moved => None,
            Sight::Still => Some("its tick does not move".to_owned()),
            Sight::Other(why) => Some(why.clone()),
            Sight::Unreadable(why) => Some(format!("no heartbeat: {why}")),
        };
        self.status = match sight {
            Sight::Moved => Status::Alive,
            _ if self.memory.is_silent(&sight, self.args.after) => Status::Silent,
            _ => Status::Quiet,
        };
        match self.status {
            Status::Alive => self.is_alive(),
            Status::Silent => self.is_silent().await,
            Status::Quiet => {}
        }
        if matches!(sight, Sight::First | Sight::Moved) {
            self.tell_mode();
            self.try_out().await;
        }
        self.deliver().await;
        self.keep().await;
    }

    // --------------------------------------------------------------------------- what was seen

    fn is_alive(&mut self) {
        self.over(Kind::DaemonSilent, "the daemon ticks again");
        self.memory.wound_down_at = None;
        self.try_again = TRY_AGAIN_FIRST;
    }

    /// Says once that the daemon carries nothing out, and alerts where something is billed.
    fn tell_mode(&mut self) {
        let Some(last) = &self.memory.last else {
            return;
        };
        let mode = (last.live, last.killed);
        let idle = !last.live && !last.held.is_empty();
        if self.mode.replace(mode) != Some(mode) {
            let text = match mode {
                (false, _) => "the daemon is a dry run: it looks after nothing",
                (true, true) => {
                    "the daemon is killed: it rents nothing until `haggle resume --all`"
                }
                (true, false) => "the daemon is live",
            };
            self.context.output.note(text);
        }
        if idle {
            let text = format!(
                "the daemon is a dry run, so nobody looks after its {}",
                self.held()
            );
            self.raise(Kind::DaemonIdle, text);
        } else {
            self.over(Kind::DaemonIdle, "the daemon looks after its instances");
        }
    }

    async fn is_silent(&mut self) {
        let why = self.why.clone().unwrap_or_default();
        let text = match &self.memory.last {
            None => format!("no daemon was heard for {}: {why}", self.silence()),
            Some(last) => format!(
                "the daemon of installation {} has not ticked for {}, since tick {}: {why}; {}",
                last.installation,
                self.silence(),
                last.tick,
                self.held()
            ),
        };
        self.raise(Kind::DaemonSilent, text);
        // The news must not wait for what takes minutes.
        self.deliver().await;
        self.keep().await;
        if let Some(how) = self.args.then.how() {
            self.wind_down(how).await;
        }
    }

    fn silence(&self) -> String {
        human(self.memory.silence())
    }

    /// What the daemon held when it was last heard.
    fn held(&self) -> String {
        match &self.memory.last {
            Some(last) if !last.held.is_empty() => format!(
                "{} instances, {} dollars an hour: {}",
                last.held.len(),
                last.burn_dollars_per_hour,
                list(last.held.iter().copied())
            ),
            _ => "it held nothing when it was last heard".to_owned(),
        }
    }

    // ------------------------------------------------------------------------------- what is done

    fn hands(&self, how: How) -> Hands<'_> {
        Hands {
            context: self.context,
            config: self.config,
            source: &self.source,
            memory: &self.memory,
            how,
            within: self.args.within,
        }
    }

    fn may_try(&self) -> bool {
        self.args.once || self.context.clock.monotonic() >= self.try_at
    }

    /// Puts the next try off, longer each time.
    fn put_off(&mut self) {
        self.try_at = self.context.clock.monotonic() + self.try_again;
        self.try_again = (self.try_again * 2).min(TRY_AGAIN_LAST);
    }

    /// Looks whether it could wind down if it had to, until it once could.
    async fn try_out(&mut self) {
        let Some(how) = self.args.then.how() else {
            return;
        };
        let known = self.memory.last.as_ref().and_then(|last| last.account);
        if self.memory.armed || known.is_none() || !self.may_try() {
            return;
        }
        match self.hands(how).try_out().await {
            Ok(()) => {
                self.memory.armed = true;
                self.over(Kind::CannotAct, "winding down would be possible now");
                self.try_again = TRY_AGAIN_FIRST;
            }
            Err(why) => {
                let text = format!("winding down would fail if the daemon died now: {why}");
                self.raise(Kind::CannotAct, text);
                self.put_off();
            }
        }
    }

    async fn wind_down(&mut self, how: How) {
        let now = self.context.now();
        let at = self.memory.wound_down_at;
        // Once it is proven, what shows late or was rented since is looked for now and then.
        if at.is_some_and(|at| at <= now && now.since(at) < AGAIN_AFTER) || !self.may_try() {
            return;
        }
        match self.hands(how).wind_down().await {
            Ok(Acted::DaemonIsBack) => {
                self.context
                    .output
                    .note("the daemon ticks after all: nothing is touched");
            }
            Ok(Acted::Wound(wound)) => {
                self.over(Kind::CannotAct, "the marketplace was reached");
                if wound.settled {
                    self.memory.wound_down_at = Some(self.context.now());
                    self.try_again = TRY_AGAIN_FIRST;
                } else {
                    self.put_off();
                }
                // A later look that finds nothing new is no news.
                if at.is_none() || !wound.touched.is_empty() {
                    let text = format!("wound down: {}", wound.told(how));
                    self.post(Kind::WoundDown, Course::Happened, text);
                }
                self.wound = Some(wound);
            }
            Err(why) => {
                self.memory.armed = false;
                self.raise(Kind::CannotAct, format!("cannot wind down: {why}"));
                self.put_off();
            }
        }
    }

    // ------------------------------------------------------------------------------ what is told

    /// Tells of what begins or goes on, the latter once an hour.
    fn raise(&mut self, kind: Kind, text: String) {
        if let Some(again) = self.memory.should_tell(kind, self.context.now()) {
            let course = if again {
                Course::GoesOn
            } else {
                Course::Begins
            };
            self.post(kind, course, text);
        }
    }

    /// Tells that something that was told is over.
    fn over(&mut self, kind: Kind, text: &str) {
        if self.memory.is_over(kind) {
            self.post(kind, Course::Over, text.to_owned());
        }
    }

    fn post(&mut self, kind: Kind, course: Course, text: String) {
        let text = self.context.redactor.clean(&text);
        let word = match course {
            Course::Over => "over",
            Course::Begins | Course::GoesOn | Course::Happened => "alert",
        };
        self.context
            .output
            .note(&format!("{word}: {}: {text}", kind.as_str()));
        let last = self.memory.last.as_ref();
        let alert = Alert {
            kind,
            course,
            text,
            at: self.context.now().to_string(),
            installation: last.map(|last| last.installation.clone()),
            account: last.and_then(|last| last.account),
            tick: last.map(|last| last.tick),
            silent_seconds: self.memory.silence().as_secs(),
            held: last.map(|last| last.held.clone()).unwrap_or_default(),
            burn_dollars_per_hour: last.map(|last| last.burn_dollars_per_hour.clone()),
        };
        self.memory.post(self.ways.outgoing(alert));
    }

    /// Sends what waits, the oldest first. What cannot be delivered waits for the next look.
    async fn deliver(&mut self) {
        let mut waiting = Vec::new();
        let mut stuck = Stuck::default();
        for mut outgoing in std::mem::take(&mut self.memory.outbox) {
            let problems = self.ways.deliver(&mut outgoing, &mut stuck).await;
            if !outgoing.is_delivered() {
                waiting.push(outgoing);
            }
            for problem in problems {
                let text = format!("an alert was not delivered and waits: {problem}");
                self.context.output.note(&text);
            }
        }
        self.memory.outbox = waiting;
    }

    // ------------------------------------------------------------------------- what is remembered

    /// Takes up what an earlier process remembered.
    async fn remember(&mut self) {
        let Some(path) = &self.args.state else {
            return;
        };
        match read_memory(path) {
            Ok(memory) => self.memory = memory.unwrap_or_default(),
            Err(why) => {
                let path = path.display();
                let text = format!("what the guard remembered in {path} is lost: {why}");
                self.post(Kind::MemoryLost, Course::Happened, text);
                self.deliver().await;
            }
        }
    }

    /// Remembers it for the next process. Where that fails no timer ever sees a silence grow.
    async fn keep(&mut self) {
        let Some(path) = &self.args.state else {
            return;
        };
        let kept = write_memory(path, &self.memory);
        self.is_kept = kept.is_ok();
        if let Err(error) = kept {
            let path = path.display();
            let text = format!("what the guard sees cannot be remembered in {path}: {error}");
            self.raise(Kind::MemoryLost, text);
            self.deliver().await;
        } else if self.memory.is_over(Kind::MemoryLost) {
            self.post(
                Kind::MemoryLost,
                Course::Over,
                "it can be remembered again".to_owned(),
            );
            self.deliver().await;
        }
    }

    fn show(&self) -> Result<(), Failure> {
        let last = self.memory.last.as_ref();
        let numbers = |ids: &[InstanceId]| ids.iter().map(|id| id.0).collect();
        let document = GuardDocument {
            status: self.status,
            installation: last.map(|last| last.installation.clone()),
            account: last.and_then(|last| last.account).map(|id| id.0),
            tick: last.map(|last| last.tick),
            live: last.map(|last| last.live),
            killed: last.map(|last| last.killed),
            held: last.map(|last| numbers(&last.held)).unwrap_or_default(),
            burn_dollars_per_hour: last.map(|last| last.burn_dollars_per_hour.clone()),
            silent_seconds: self.memory.silence().as_secs(),
            why: self.why.clone(),
            alerts: self.memory.goes_on(),
            wound_down: self.wound.clone(),
        };
        self.context.output.show(&document, || {
            let why = self.why.clone().unwrap_or_default();
            match self.status {
                Status::Alive => format!("the daemon lives; {}", self.held()),
                Status::Quiet if why.is_empty() => "the daemon is heard for the first time".into(),
                Status::Quiet => format!("quiet for {}: {why}", self.silence()),
                Status::Silent => format!("dead for {}: {why}; {}", self.silence(), self.held()),
            }
        })
    }
}

/// What was remembered; `None` where nothing was yet.
fn read_memory(path: &Path) -> Result<Option<Memory>, String> {
    match fs::read(path) {
        Ok(bytes) => {
            let memory = serde_json::from_slice(&bytes);
            memory
                .map(Some)
                .map_err(|_| "it is not what a guard wrote".to_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Whole, or not at all.
fn write_memory(path: &Path, memory: &Memory) -> io::Result<()> {
    let text = serde_json::to_string(memory).map_err(io::Error::other)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
