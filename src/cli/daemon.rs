//! The daemon as other commands see it: whether one runs, and when it ticked last.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::context::Context;
use super::wish::daemon_running;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::daemon::heartbeat::{Heartbeat, heartbeat_file};
use crate::ports::Clock;
use crate::types::time::{Time, human};

/// Beyond the time within which it would tick again a daemon may be late by so much.
const LATE: Duration = Duration::from_mins(2);

/// What is known of a database's daemon.
pub(crate) struct Seen {
    /// Whether a process holds the database.
    pub(crate) runs: bool,
    /// What was told last, and how long ago by this machine's clock.
    told: Option<(Heartbeat, Duration)>,
}

/// Looks for the daemon of a database.
pub(crate) fn look(database: &Path) -> Seen {
    Seen {
        runs: daemon_running(database),
        told: told(database),
    }
}

fn told(database: &Path) -> Option<(Heartbeat, Duration)> {
    let path = heartbeat_file(database);
    let heartbeat = Heartbeat::read(&std::fs::read(&path).ok()?).ok()?;
    // By the file and not by what it says: the daemon may go by another clock than this machine's.
    let written = std::fs::metadata(&path).ok()?.modified().ok()?;
    Some((heartbeat, SystemClock::new().now().since(time_of(written)?)))
}

fn time_of(at: SystemTime) -> Option<Time> {
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(Time)
}

impl Seen {
    /// Whether plans are carried out; `None`: none runs, or it has told nothing yet.
    pub(crate) fn is_live(&self) -> Option<bool> {
        let told = self.told.as_ref().filter(|_| self.runs);
        told.map(|(heartbeat, _)| heartbeat.live)
    }

    /// What is wrong with the daemon, for whoever reads what it wrote down; `None`: it runs and ticks.
    pub(crate) fn trouble(&self) -> Option<String> {
        let since = |(heartbeat, ago): &(Heartbeat, Duration)| {
            format!("its last tick was at {}, {} ago", heartbeat.at, human(*ago))
        };
        match (&self.told, self.runs) {
            (Some(told), false) => Some(format!(
                "no daemon runs ({}): this is what it wrote down; `haggle run` starts one",
                since(told)
            )),
            (None, false) => Some(
                "no daemon runs, and none has told since when: this is what was written down last; \
                 `haggle run` starts one"
                    .to_owned(),
            ),
            (Some(told), true) => {
                let within = Duration::from_secs(told.0.next_tick_within_seconds) + LATE;
                (told.1 > within).then(|| {
                    format!("the daemon runs and does not tick ({}): its log says why", since(told))
                })
            }
            (None, true) => None,
        }
    }
}

/// Says on stderr that what is shown may be old, where no daemon keeps it up to date.
pub(crate) fn note_trouble(context: &Context, config: &Config) {
    if !config.database.exists() {
        return;
    }
    if let Some(trouble) = look(&config.database).trouble() {
        context.output.note(&format!("note: {trouble}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::Installation;

    fn heartbeat(live: bool) -> Heartbeat {
        Heartbeat {
            installation: Installation::from_seed(1),
            account: None,
            tick: 4,
            at: "2026-11-24T00:00:00Z".to_owned(),
            live,
            killed: false,
            held: Vec::new(),
            burn_dollars_per_hour: "0.00".to_owned(),
            credit_dollars: None,
            next_tick_within_seconds: 60,
        }
    }

    #[test]
    fn a_daemon_that_is_not_there_or_does_not_tick_is_told_with_since_when() {
        let seen = |runs, minutes: Option<u64>| Seen {
            runs,
            told: minutes.map(|minutes| (heartbeat(true), Duration::from_mins(minutes))),
        };
        assert_eq!(seen(true, Some(1)).trouble(), None);
        assert_eq!(seen(true, None).trouble(), None, "it has just begun");
        let late = seen(true, Some(4)).trouble().unwrap();
        assert!(late.contains("does not tick (its last tick was at 2026-11-24T00:00:00Z"));
        let gone = seen(false, Some(4)).trouble().unwrap();
        assert!(gone.starts_with("no daemon runs (its last tick was at 2026-11-24"));
        assert!(
            seen(false, None)
                .trouble()
                .unwrap()
                .starts_with("no daemon runs")
        );
        assert_eq!(seen(true, Some(1)).is_live(), Some(true));
        assert_eq!(seen(false, Some(1)).is_live(), None, "it is not there");
    }
}
