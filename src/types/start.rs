//! How an instance comes up, or does not: what was seen of it, how a start came to nothing, and what holds
//! a job back because no host could start it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::hex::hex;
use super::ids::{HostId, MachineId};
use super::input::Input;
use super::instance::RawState;
use super::job::Run;
use super::time::{Time, millis};

/// How long each step of a start may take. `None`: it is not watched, and the time for the whole of it
/// is the only bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRules {
    /// From when it was listed first until anything is told of it.
    pub status_within: Option<Duration>,
    /// For how long it may load with the same message.
    pub loading_unchanged: Option<Duration>,
}

/// For how long each reading has said the same. Only time between two readings counts that are not too
/// far apart, so neither a clock that is set, nor a time in which nobody looked, makes anything older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stood {
    /// Milliseconds from the first such reading to the last one.
    pub ms: i64,
    /// When that was.
    pub read_at: Time,
    /// How many there were.
    pub readings: u32,
}

impl Stood {
    /// One reading says so.
    pub fn first(now: Time) -> Self {
        Self {
            ms: 0,
            read_at: now,
            readings: 1,
        }
    }

    /// The next one says the same. After a longer gap than this, or by a clock that was set back, it is
    /// the first one.
    #[must_use]
    pub fn again(self, now: Time, gap_max: Duration) -> Self {
        let passed = now.ms_since(self.read_at);
        if !(0..=millis(gap_max)).contains(&passed) {
            return Self::first(now);
        }
        Self {
            ms: self.ms.saturating_add(passed),
            read_at: now,
            readings: self.readings.saturating_add(1),
        }
    }

    /// From the first reading to the last one.
    pub fn lasted(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.ms).unwrap_or(0))
    }

    /// The clock was set ahead by so many milliseconds, at most, and shows `now`: the last reading was
    /// not that long ago.
    pub fn set_ahead(&mut self, ms: i64, now: Time) {
        self.read_at = Time(self.read_at.0.saturating_add(ms)).min(now);
    }
}

/// What was last seen of an instance that has not run yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComingUp {
    /// The container's state; `None`: none was told.
    pub actual: Option<RawState>,
    /// The marketplace's words on it, cut to [`MESSAGE_MAX`] characters; `None`: there were none.
    pub message: Option<String>,
    /// Which words these are, whole: a digest that tells them from others.
    pub words: Option<String>,
    /// For how long both stand.
    pub stands: Stood,
    /// What the words, whole, say of the start, and for how long they say that.
    pub named: Option<(StartFault, Stood)>,
    /// Milliseconds for which it is known to come up: between readings that were not too far apart.
    pub watched_ms: i64,
}

impl ComingUp {
    /// What the clock, which was set ahead by so many milliseconds, must not make older.
    pub fn set_ahead(&mut self, ms: i64, now: Time) {
        self.stands.set_ahead(ms, now);
        if let Some((_, stood)) = &mut self.named {
            stood.set_ahead(ms, now);
        }
    }
}

/// Characters of a message that are kept.
pub const MESSAGE_MAX: usize = 240;

/// Of a longer message, so many of them are its end: that is where progress and causes stand.
const MESSAGE_END: usize = 100;

/// A message as it is kept: on one line, and the beginning and the end of a long one. `None` where
/// nothing is left of it.
pub fn shortened(message: &str) -> Option<String> {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let line: String = message.chars().map(plain).collect();
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let length = line.chars().count();
    if length <= MESSAGE_MAX {
        return (length > 0).then_some(line);
    }
    let begin = line.chars().take(MESSAGE_MAX - MESSAGE_END - 1);
    let end = line.chars().skip(length - MESSAGE_END);
    Some(begin.chain(['…']).chain(end).collect())
}

/// How a start came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartFault {
    /// Nothing was told of it.
    NoStatus,
    /// It loads, and its message stays the same.
    Stalled,
    /// It did not come up in the time for the whole of it.
    TimedOut,
    /// Its host's container runtime reports an error.
    HostError,
    /// The registry knows no such image, or none for this kind of machine.
    ImageMissing,
    /// The registry does not let the image be pulled: the login is wrong, or there is none.
    ImageDenied,
    /// The registry lets no more be pulled for now, by this host's address.
    PullQuota,
    /// The image has no such command, or cannot run it.
    Command,
    /// A run says that one of the job's inputs cannot be had by anybody, or is not what it should be.
    Inputs,
}

impl StartFault {
    /// The word in tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoStatus => "no-status",
            Self::Stalled => "stalled",
            Self::TimedOut => "timed-out",
            Self::HostError => "host-error",
            Self::ImageMissing => "image-missing",
            Self::ImageDenied => "image-denied",
            Self::PullQuota => "pull-quota",
            Self::Command => "command",
            Self::Inputs => "inputs",
        }
    }

    /// Whether it may be that no host can start what is asked for. That it is so takes more than the
    /// word of one machine.
    pub fn may_be_ours(self) -> bool {
        match self {
            Self::NoStatus | Self::Stalled | Self::TimedOut | Self::HostError => false,
            Self::ImageMissing
            | Self::ImageDenied
            | Self::PullQuota
            | Self::Command
            | Self::Inputs => true,
        }
    }

    /// Whether it depends on how the container is begun, and not on its image alone.
    fn is_of_command(self) -> bool {
        !matches!(
            self,
            Self::ImageMissing | Self::ImageDenied | Self::PullQuota
        )
    }

    /// What is wrong, as the end of a sentence.
    pub fn what(self) -> &'static str {
        match self {
            Self::NoStatus => "nothing is told of its instances",
            Self::Stalled => "its image stops loading",
            Self::TimedOut => "it does not come up in `provision_timeout`",
            Self::HostError => "hosts report errors",
            Self::ImageMissing => "the registry has no such image",
            Self::ImageDenied => "the registry does not let its image be pulled",
            Self::PullQuota => "the registry lets no more be pulled for now",
            Self::Command => "the image has no such command, or cannot run it",
            Self::Inputs => "one of its inputs cannot be had, or is not what it should be",
        }
    }

    /// What would be right; `job` is the job's name.
    pub fn help(self, job: &str) -> String {
        let after = format!("or mend it elsewhere and say `haggle resume {job}`");
        match self {
            Self::NoStatus | Self::HostError => {
                format!("see whether the image starts anywhere, {after}")
            }
            Self::Stalled => {
                format!(
                    "give a smaller `image`, or more time in [start] `loading_unchanged`, {after}"
                )
            }
            Self::TimedOut => {
                format!("give a smaller `image`, or a longer `provision_timeout`, {after}")
            }
            Self::ImageMissing => format!("correct `image` in [run], {after}"),
            Self::ImageDenied => format!("correct `image` or [run.login], {after}"),
            Self::PullQuota => format!(
                "give [run.login], for a registry counts what is pulled without a login by the host's \
                 address, or another `image`, {after}"
            ),
            Self::Command => format!("correct `command`, `args` or `image` in [run], {after}"),
            Self::Inputs => format!("correct [[data.inputs]], {after}"),
        }
    }
}

/// What of a policy decides whether its image can be pulled and started, as digests: they tell whether
/// that has changed, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The image, the template and the login.
    pub image: String,
    /// How the container is begun.
    pub start: String,
    /// What its inputs are; empty: it has none.
    #[serde(default)]
    pub inputs: String,
}

impl Asked {
    /// What a policy asks for.
    pub fn of(run: &Run) -> Self {
        let runner = run.runner.as_deref();
        let command = runner.map(|runner| &runner.command);
        let inputs = runner.map_or(&[][..], |runner| &runner.inputs);
        // What was found out about them is no part of what the policy says.
        let said = |input: &Input| digest(&(&input.from, &input.to, &input.sha256, input.packing));
        let said: Vec<String> = inputs.iter().map(said).collect();
        Self {
            inputs: if said.is_empty() {
                String::new()
            } else {
                digest(&said)
            },
            image: digest(&(&run.image, &run.template, &run.login)),
            start: digest(&(run.run_type, command, &run.onstart, &run.args)),
        }
    }

    /// Whether this and another are the same, as far as a fault depends on it.
    pub fn is_same(&self, other: &Self, fault: StartFault) -> bool {
        if fault == StartFault::Inputs {
            return self.inputs == other.inputs;
        }
        let start = !fault.is_of_command() || self.start == other.start;
        start && self.image == other.image
    }
}

/// The first half of a SHA-256, in hexadecimal.
fn digest(parts: &impl Serialize) -> String {
    let text = serde_json::to_string(parts).unwrap_or_default();
    hex(&Sha256::digest(text.as_bytes())[..16])
}

/// The digest of a message, whole, by which it is told from another.
pub fn words(message: &str) -> String {
    hex(&Sha256::digest(message.as_bytes())[..16])
}

/// What is known of how a job's instances start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Starts {
    /// What it asked for when an instance of it came up last. What has run once can be started.
    pub ran: Option<Asked>,
    /// Starts that came to nothing since one came up, by how.
    pub failed: BTreeMap<StartFault, FailedStarts>,
    /// What keeps it back, when that was seen last. It binds only where [`Hold::binds`] says so.
    pub hold: Option<Hold>,
}

/// The machines on which starts came to nothing in the same way, without one that came up since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedStarts {
    /// What was asked for.
    pub asked: Asked,
    /// Where, and whose machine that is; no more of them than decide anything.
    pub on: BTreeMap<MachineId, Option<HostId>>,
    /// When the first of them was judged.
    #[serde(default)]
    pub first_at: Option<Time>,
}

/// So many machines are remembered on which the same went wrong: then it is taken to be no accident.
pub const IN_A_ROW: usize = 5;

impl FailedStarts {
    /// None yet.
    pub fn of(asked: Asked) -> Self {
        Self {
            asked,
            on: BTreeMap::new(),
            first_at: None,
        }
    }

    /// Takes up one more machine, judged at a time. Where there are enough, one of an owner who is not
    /// among them takes the place of one whose owner has another.
    pub fn add(&mut self, machine: MachineId, host: Option<HostId>, now: Time) {
        self.first_at.get_or_insert(now);
        let is_new = host.is_some() && !self.on.values().any(|known| *known == host);
        if self.on.len() >= IN_A_ROW && is_new {
            let twice = |of: &Option<HostId>| {
                of.is_some() && self.on.values().filter(|known| *known == of).count() > 1
            };
            let spare = self.on.iter().find(|(_, of)| twice(of));
            if let Some(spare) = spare.map(|(machine, _)| *machine) {
                self.on.remove(&spare);
            }
        }
        if self.on.len() < IN_A_ROW {
            self.on.insert(machine, host);
        }
    }

    /// How many that say so do not belong to the same owner, as far as that is known: the machines of
    /// one owner may fail, or lie, together.
    pub fn owners(&self) -> usize {
        let known: std::collections::BTreeSet<HostId> =
            self.on.values().flatten().copied().collect();
        known.len() + self.on.values().filter(|host| host.is_none()).count()
    }
}

/// What holds a job back: no host could start what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// How starts came to nothing.
    pub fault: StartFault,
    /// What it was that could not be started.
    pub asked: Asked,
    /// The marketplace's words on it, shortened.
    pub message: String,
    /// When it was seen.
    pub since: Time,
    /// Until when; `None`: until the policy asks for something else.
    pub until: Option<Time>,
    /// How often in a row.
    pub times: u32,
}

impl Hold {
    /// Whether it is about what a policy asks for.
    pub fn is_about(&self, run: &Run) -> bool {
        self.asked.is_same(&Asked::of(run), self.fault)
    }

    /// Whether nothing is rented for what a policy asks for.
    pub fn binds(&self, run: &Run, now: Time) -> bool {
        self.until.is_none_or(|until| now < until) && self.is_about(run)
    }
}

/// How much the GPUs of an instance were used in its present run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuUse {
    /// Whether they were ever seen at work.
    pub worked: bool,
    /// For how long every reading says that they are hardly used; `None`: they are used, or nothing was
    /// read.
    pub idle: Option<Stood>,
    /// Whether that was told.
    pub told: bool,
    /// Whether it lasted for longer than the policy allows: then it is begun anew.
    pub over: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::job::{RegistryLogin, RunType, SecretRef};

    fn run() -> Run {
        Run {
            image: Some("me/image:1".to_owned()),
            login: None,
            template: None,
            run_type: RunType::Args,
            runner: None,
            onstart: None,
            args: vec!["a".to_owned()],
            env: std::collections::BTreeMap::new(),
            secrets: std::collections::BTreeMap::new(),
            ports: Vec::new(),
        }
    }

    fn hold(fault: StartFault) -> Hold {
        Hold {
            fault,
            asked: Asked::of(&run()),
            message: "no".to_owned(),
            since: Time(0),
            until: None,
            times: 1,
        }
    }

    #[test]
    fn a_message_is_kept_on_one_line_with_both_of_its_ends() {
        assert_eq!(shortened(" \n\t"), None);
        assert_eq!(shortened("a\r\n  b\u{7}").as_deref(), Some("a b"));
        let exact = "x".repeat(MESSAGE_MAX);
        assert_eq!(shortened(&exact), Some(exact.clone()));
        let long = format!("begin {} end", "é".repeat(MESSAGE_MAX));
        let kept = shortened(&long).unwrap();
        assert_eq!(kept.chars().count(), MESSAGE_MAX);
        assert!(kept.starts_with("begin é") && kept.ends_with("é end") && kept.contains('…'));
    }

    #[test]
    fn a_hold_binds_until_what_failed_is_changed() {
        let mut other = run();
        other.env.insert("A".to_owned(), "b".to_owned());
        other.ports.push((80, "tcp".to_owned()));
        assert!(hold(StartFault::ImageMissing).binds(&other, Time(9)));
        other.args.push("b".to_owned());
        assert!(hold(StartFault::ImageMissing).binds(&other, Time(9)));
        assert!(!hold(StartFault::Command).binds(&other, Time(9)));
        for fault in [StartFault::ImageMissing, StartFault::PullQuota] {
            let image = Run {
                image: Some("me/image:2".to_owned()),
                ..run()
            };
            assert!(!hold(fault).binds(&image, Time(9)));
            let login = Run {
                login: Some(RegistryLogin {
                    registry: "ghcr.io".to_owned(),
                    user: "me".to_owned(),
                    password: SecretRef::Env("PASSWORD".to_owned()),
                }),
                ..run()
            };
            assert!(!hold(fault).binds(&login, Time(9)));
        }
    }

    #[test]
    fn time_between_readings_counts_and_nothing_else_does() {
        let gap = Duration::from_secs(100);
        let at = |seconds: i64| Time(seconds * 1000);
        let stood = Stood::first(at(50)).again(at(110), gap).again(at(210), gap);
        assert_eq!((stood.ms, stood.readings), (160_000, 3));
        assert_eq!(stood.lasted(), Duration::from_secs(160));
        // Nobody looked for too long, or the clock was set back.
        for seconds in [311, 209] {
            assert_eq!(stood.again(at(seconds), gap), Stood::first(at(seconds)));
        }
        // The clock was set ahead by an hour, of which a minute passed.
        let mut ahead = stood;
        ahead.set_ahead(3_600_000, at(210 + 3660));
        assert_eq!(ahead.again(at(210 + 3660), gap).ms, 220_000);
        // By how much is not known: nothing is older.
        let mut ahead = stood;
        ahead.set_ahead(3_600_000, at(270));
        assert_eq!(ahead.again(at(270), gap).ms, 160_000);
    }

    #[test]
    fn machines_of_one_owner_are_one_witness() {
        let mut failed = FailedStarts::of(Asked::of(&run()));
        for (machine, owner, owners) in [
            (1, Some(7), 1),
            (2, Some(7), 1),
            (1, Some(7), 1),
            (3, None, 2),
            (4, Some(8), 3),
            (5, None, 4),
            (6, None, 4),
        ] {
            failed.add(MachineId(machine), owner.map(HostId), Time(1));
            assert_eq!(failed.owners(), owners, "{machine}");
        }
        assert_eq!(failed.on.len(), IN_A_ROW);
    }

    #[test]
    fn another_owner_is_heard_after_many_machines_of_one() {
        let mut failed = FailedStarts::of(Asked::of(&run()));
        for machine in 1..=5 {
            failed.add(MachineId(machine), Some(HostId(7)), Time(1));
        }
        assert_eq!(failed.owners(), 1);
        failed.add(MachineId(6), Some(HostId(8)), Time(2));
        assert_eq!((failed.owners(), failed.on.len()), (2, IN_A_ROW));
        assert_eq!(failed.first_at, Some(Time(1)));
    }

    #[test]
    fn what_is_known_of_starts_is_read_back() {
        let asked = Asked::of(&run());
        let mut failed = FailedStarts::of(asked.clone());
        failed.add(MachineId(3), Some(HostId(4)), Time(2));
        failed.add(MachineId(5), None, Time(3));
        let starts = Starts {
            ran: Some(asked),
            failed: BTreeMap::from([(StartFault::PullQuota, failed)]),
            hold: Some(hold(StartFault::TimedOut)),
        };
        let text = serde_json::to_string(&starts).unwrap();
        assert!(text.contains(r#""pull-quota":{"#), "{text}");
        assert_eq!(serde_json::from_str::<Starts>(&text).unwrap(), starts);
    }

    #[test]
    fn a_hold_that_ends_binds_up_to_its_end() {
        let ends = Hold {
            until: Some(Time(100)),
            ..hold(StartFault::PullQuota)
        };
        assert!(ends.binds(&run(), Time(99)));
        assert!(!ends.binds(&run(), Time(100)));
        assert!(ends.is_about(&run()), "how often is counted on");
    }
}
