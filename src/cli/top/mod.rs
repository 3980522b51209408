//! `haggle top`: a live view for a terminal, of the account, the jobs, the instances and what happened.
//!
//! It reads the database and the heartbeat beside it, and writes nothing. What jobs wait for is
//! decided anew on what the database holds, as `haggle explain` does.

mod frame;
mod screen;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use clap::Args;

use frame::{Scene, Size, frame, painted};
use screen::{Keys, Screen};

use super::clock::ClockChoice;
use super::context::{Context, block_on, open_reader};
use super::explain::known_world;
use super::failure::{Done, Exit, Failure};
use super::run::interrupted;
use super::signals::Signals;
use super::sources::broken;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::daemon::heartbeat::{HEARTBEAT_BYTES_MAX, Heartbeat, heartbeat_file};
use crate::engine::decide::decide;
use crate::policy::{self, Loaded};
use crate::ports::Clock as _;
use crate::types::ids::Installation;
use crate::types::job::Job;
use crate::types::money::Money;
use crate::types::plan::{Plan, Report};
use crate::types::state::Event;
use crate::types::time::{Time, human};
use crate::view::board::{BoardDocument, BrokenDocument, EventDocument, Seen, board};
use crate::view::limits;
use crate::view::sentence::Tone;

/// Events read: more than any terminal shows.
const EVENTS_READ: u32 = 60;

/// A heartbeat may be so late before the daemon is called silent: a tick takes its time.
const LATE_MAX: Duration = Duration::from_mins(2);

/// How often it may look at most.
const EVERY_MIN: Duration = Duration::from_millis(200);

/// Shows what goes on, live.
#[derive(Args, Clone, Debug)]
pub(crate) struct TopArgs {
    /// Print one frame and end, also where no terminal is.
    #[arg(long)]
    once: bool,
    /// How often to look.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// Whose time it goes by: `market` follows a `haggle market` on this machine, however fast.
    #[arg(long, value_name = "WHOSE", default_value = "system")]
    clock: ClockChoice,
}

pub(crate) fn run(context: &Context, args: &TopArgs) -> Done {
    let config = context.config()?;
    let context = &args.clock.of(context, &config.provider)?;
    // What cannot be read at all is told before the screen is taken.
    let first = look(context, &config)?;
    if args.once || context.output.is_json() {
        context.output.show(&first.board, || {
            let lines = frame(&first.scene(None), Size::of_output());
            painted(&lines, context.output.is_styled())
        })?;
        return Ok(Exit::Success);
    }
    if !(context.output.is_terminal() && std::io::stdin().is_terminal()) {
        return Err(Failure::mendable("`haggle top` needs a terminal")
            .hint("--once prints one frame, and --json the same as data"));
    }
    if args.every < EVERY_MIN {
        return Err(Failure::mendable("--every is too short to be looked at")
            .hint(format!("at least {}ms", EVERY_MIN.as_millis())));
    }
    block_on(live(context, args, &config, first))
}

async fn live(context: &Context, args: &TopArgs, config: &Config, first: Looked) -> Done {
    let output = context.output;
    let pace = SystemClock::new();
    let stop = interrupted();
    let (mut hangups, mut resizes) = (Signals::hangups(), Signals::resizes());
    tokio::pin!(stop);
    // From here on the terminal is ours, until this is dropped: at the end, at an error, in a panic.
    let screen = Screen::take(output)?;
    let mut keys = Keys::read();
    let mut looked = first;
    let mut trouble = None;
    loop {
        let lines = frame(&looked.scene(trouble.as_deref()), Size::of_output());
        if !screen.draw(&painted(&lines, output.is_styled()))? {
            break;
        }
        tokio::select! {
            biased;
            () = &mut stop => break,
            () = hangups.next() => break,
            goes_on = keys.next() => if !goes_on { break },
            () = resizes.next() => continue,
            () = pace.sleep_until(pace.now() + args.every) => {}
        }
        // A database that is locked for a moment, or restored, does not end the view.
        match look(context, config) {
            Ok(now) => (looked, trouble) = (now, None),
            Err(failure) => trouble = Some(failure.in_short()),
        }
    }
    drop(screen);
    Ok(Exit::Success)
}

/// What one look saw.
struct Looked {
    board: BoardDocument,
    /// The newest first.
    events: Vec<Event>,
    now: Time,
    zone: chrono_tz::Tz,
    pulse: (Tone, String),
}

impl Looked {
    fn scene<'a>(&'a self, trouble: Option<&'a str>) -> Scene<'a> {
        Scene {
            board: &self.board,
            events: &self.events,
            now: self.now,
            zone: self.zone,
            pulse: (self.pulse.0, &self.pulse.1),
            trouble,
        }
    }
}

fn look(context: &Context, config: &Config) -> Result<Looked, Failure> {
    let reader = open_reader(config)?;
    let state = reader.state()?;
    let mut events = reader.events(None, EVENTS_READ)?;
    events.reverse();
    let loaded = if config.policies.is_dir() {
        policy::load_dir(&config.policies)
    } else {
        Loaded::default()
    };
    let (engine, now) = (config.engine(), context.now());
    let heartbeat = heartbeat(config, &state.installation);
    let credit = heartbeat.as_ref().and_then(credit_of);
    let all: Vec<&Job> = loaded.jobs.iter().map(|loaded| &loaded.job).collect();
    let snapshot = reader.last_snapshot()?;
    let decided = match snapshot {
        Some((_, snapshot)) => {
            // What is decided holds for what was seen, and not for what was not looked at since.
            let then = now.min(snapshot.at + engine.poll_every);
            let mut world =
                known_world(context, &engine, &reader, &state, &loaded, (then, snapshot))?;
            if let (Some(account), Some(credit)) = (&mut world.account, credit) {
                account.credit = Some(credit);
            }
            let (_, report) = decide(&world);
            Some((world.jobs, report))
        }
        None => None,
    };
    let was_decided = decided.is_some();
    let (jobs, report) = decided.unwrap_or_else(|| {
        let report = Report {
            limits: limits::known(now, &engine, &all, &state),
            ..Report::default()
        };
        let jobs = all.iter().map(|job| Arc::new((*job).clone()));
        (jobs.collect(), report)
    });
    let unusable: Vec<BrokenDocument> = loaded.errors.iter().map(broken_document).collect();
    let (board, _) = board(&Seen {
        version: 0,
        now,
        live: heartbeat.as_ref().map_or(config.live, |beat| beat.live),
        changes_allowed: false,
        config: &engine,
        state: &state,
        jobs: &jobs,
        broken: &unusable,
        plan: &Plan::default(),
        report: &report,
        was_decided,
        credit,
        next_tick: Duration::ZERO,
        trouble: Vec::new(),
        news: events.iter().map(EventDocument::of).collect(),
    });
    Ok(Looked {
        board,
        events,
        now,
        zone: config.timezone,
        pulse: pulse(heartbeat.as_ref(), now),
    })
}

fn broken_document(error: &policy::PolicyError) -> BrokenDocument {
    let of = broken(error);
    BrokenDocument {
        file: of.path.display().to_string(),
        job: of.job.map(|job| job.to_string()),
        message: of.message,
    }
}

/// The heartbeat beside the database, where it is of the same installation.
fn heartbeat(config: &Config, installation: &Installation) -> Option<Heartbeat> {
    let path = heartbeat_file(&config.database);
    let file = std::fs::metadata(&path).ok()?;
    if !file.is_file() || file.len() > HEARTBEAT_BYTES_MAX as u64 {
        return None;
    }
    let beat = Heartbeat::read(&std::fs::read(&path).ok()?).ok()?;
    (beat.installation == *installation).then_some(beat)
}

fn credit_of(beat: &Heartbeat) -> Option<Money> {
    beat.credit_dollars.as_ref()?.parse().ok()
}

/// Whether the daemon ticks, as far as its heartbeat tells.
fn pulse(beat: Option<&Heartbeat>, now: Time) -> (Tone, String) {
    let at = beat.and_then(|beat| {
        let at = DateTime::parse_from_rfc3339(&beat.at).ok()?;
        Some((beat, Time(at.timestamp_millis())))
    });
    let Some((beat, at)) = at else {
        return (Tone::Bad, "no heartbeat: no daemon runs".to_owned());
    };
    let ago = now.since(at);
    let due = Duration::from_secs(beat.next_tick_within_seconds) + LATE_MAX;
    if ago <= due {
        (
            Tone::Good,
            format!("tick {}, {} ago", beat.tick, human(ago)),
        )
    } else {
        let silent = format!("silent: tick {} was {} ago", beat.tick, human(ago));
        (Tone::Bad, silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_does_not_tick_is_called_silent() {
        let text = r#"{"installation":"k3x09a7q","account":5,"tick":41,"at":"2026-11-24T12:00:00Z",
            "live":true,"killed":false,"held":[],"burn_dollars_per_hour":"0.62",
            "credit_dollars":"41.7","next_tick_within_seconds":60}"#;
        let beat = Heartbeat::read(text.as_bytes()).unwrap();
        let noon = Time(1_795_521_600_000);
        let after = |seconds: u64| pulse(Some(&beat), noon + Duration::from_secs(seconds));
        assert_eq!(after(12), (Tone::Good, "tick 41, 12s ago".to_owned()));
        assert_eq!(after(180).0, Tone::Good);
        let (tone, text) = after(181);
        assert_eq!(
            (tone, &text[..]),
            (Tone::Bad, "silent: tick 41 was 3m01s ago")
        );
        // A clock that runs behind makes nobody silent.
        assert_eq!(pulse(Some(&beat), Time(0)).0, Tone::Good);
        assert_eq!(pulse(None, noon).0, Tone::Bad);
        assert_eq!(credit_of(&beat), Some("41.7".parse().unwrap()));
    }
}
