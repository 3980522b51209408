//! A runner, played: what `runner/run.sh` does, as a state machine in market time.
//!
//! It is told the time, its instance's label and its machine, and says when it is to be told them next.
//! Between those moments nothing that it does depends on anything else.
//!
//! It keeps nothing in storage: it does as one whose control document can be read and names no places.

use std::collections::VecDeque;
use std::time::Duration;

use super::command::Command;
use super::machine::Machine;
use crate::market::api::CreateParams;
use crate::runner::{Run, begins_run, signed};
use crate::types::time::Time;

/// So many of its last lines are kept.
const LINES_KEPT: usize = 256;

/// It says a line at least so often while its command works, and about progress no oftener.
const SAID_EVERY_MS: i64 = 300_000;
const PROGRESS_EVERY_MS: i64 = 30_000;

/// How often one that was refused, or has ended, looks whether anything is wanted of it.
const RESTS: Duration = Duration::from_secs(60);

/// A length of time of nothing would never let time pass.
const LEAST: Duration = Duration::from_secs(1);

/// What it does to its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Stops it.
    Stop,
    /// Destroys it.
    Destroy,
}

/// What a step came to: an act, and when the next step is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) act: Option<Act>,
    /// `None`: it waits for nothing but its end.
    pub(super) next: Option<Time>,
}

/// What the label was last found to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Unread,
    Go,
    Hold,
    Done,
    Else,
    /// That it may work, until a moment that is past.
    Lapsed,
}

impl Says {
    fn word(self) -> &'static str {
        match self {
            Self::Unread => "unread",
            Self::Go => "go",
            Self::Hold => "hold",
            Self::Done => "done",
            Self::Else => "else",
            Self::Lapsed => "lapsed",
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Waits until it may work: before its machine was tried, or after.
    Gate { first: bool, told: Option<Says> },
    /// Tries its machine.
    Preflight { until: Time },
    /// Its machine is less than expected.
    Refused,
    /// The command works.
    Working { seen: Time, said: Time },
    /// The command has ended, and its result waits to be taken.
    Linger { until: Time },
    /// Nobody took it.
    Ended,
}

/// One start of the container.
#[derive(Clone, Debug)]
struct Boot {
    name: String,
    seq: u64,
    stage: Stage,
    looked: Option<Time>,
    says: Says,
    /// The lease's end, in seconds of Unix time; 0: none was read.
    lease: i64,
    progress: Option<i64>,
    exit: Option<i32>,
    /// When the command ended.
    ended: Option<Time>,
    /// When its checkpoint was last tried to be kept beside the command; whether one could not be.
    synced: Option<Time>,
    unsaved: bool,
}

/// What follows a stage.
enum Next {
    Stage(Stage),
    At(Option<Time>),
    Act(Act),
}

/// A runner that is played.
#[derive(Clone, Debug)]
pub(in crate::market) struct Player {
    run: Run,
    command: Command,
    /// Milliseconds of work that the command has done, over interruptions.
    worked_ms: i64,
    /// Whether its disk has its inputs.
    fetched: bool,
    /// Whether its disk says that the work was begun on it.
    begun: bool,
    /// Whether its disk says that the command has ended well and its outputs are to be brought away.
    has_result: bool,
    lines: VecDeque<String>,
    boot: Option<Boot>,
}

impl Player {
    /// The runner that an instance is given; `None`: it is given none, or does not begin it.
    pub(super) fn of(params: &CreateParams) -> Option<Self> {
        let scripts = params.onstart.iter().chain(&params.args);
        if !scripts.into_iter().any(|script| begins_run(script)) {
            return None;
        }
        let run = Run::delivered(&params.env)?;
        Some(Self {
            command: Command::of(&run.command, &params.env),
            run,
            worked_ms: 0,
            fetched: false,
            begun: false,
            has_result: false,
            lines: VecDeque::new(),
            boot: None,
        })
    }

    /// The container starts. Whatever ran in it before is gone.
    pub(super) fn boots(&mut self, now: Time) {
        self.boot = Some(Boot {
            name: format!("7.{}", now.0 / 10),
            seq: 0,
            stage: Stage::Gate {
                first: true,
                told: None,
            },
            looked: None,
            says: Says::Unread,
            lease: 0,
            progress: None,
            exit: None,
            ended: None,
            synced: None,
            unsaved: false,
        });
    }

    /// The generation that its label must carry.
    pub(super) fn generation(&self) -> u64 {
        self.run.generation
    }

    /// Whether it heeds its label.
    pub(super) fn is_fenced(&self) -> bool {
        self.run.lease.is_some()
    }

    /// Whether its command works, where its container runs.
    pub(super) fn works(&self) -> bool {
        let boot = self.boot.as_ref();
        boot.is_some_and(|boot| matches!(boot.stage, Stage::Working { .. }))
    }

    /// When its command ended by itself in this start of the container.
    pub(super) fn ended(&self) -> Option<Time> {
        self.boot.as_ref().and_then(|boot| boot.ended)
    }

    /// Whether that was with exit code 0.
    pub(super) fn ended_well(&self) -> bool {
        let ended = |boot: &Boot| boot.ended.is_some() && boot.exit == Some(0);
        self.boot.as_ref().is_some_and(ended)
    }

    /// What it wrote: an empty line before each of its own, so that none is the end of another's.
    pub(in crate::market) fn log(&self) -> Vec<String> {
        let lines = self.lines.iter();
        lines
            .flat_map(|line| [String::new(), line.clone()])
            .collect()
    }

    /// Does what is due. Its container runs, and its label is this.
    pub(super) fn step(&mut self, now: Time, label: &str, machine: &Machine) -> Step {
        let Some(mut boot) = self.boot.take() else {
            return Step {
                act: None,
                next: None,
            };
        };
        if boot.seq == 0 {
            self.say(&mut boot, now, "boot", ",\"http\":\"curl\",\"lacks\":\"\"");
        }
        let step = loop {
            match self.follow(&mut boot, now, label, machine) {
                Next::Stage(stage) => boot.stage = stage,
                Next::At(next) => break Step { act: None, next },
                Next::Act(act) => {
                    break Step {
                        act: Some(act),
                        next: Some(now + RESTS),
                    };
                }
            }
        };
        self.boot = Some(boot);
        step
    }

    fn follow(&mut self, boot: &mut Boot, now: Time, label: &str, machine: &Machine) -> Next {
        match boot.stage {
            Stage::Gate { first, told } => self.gate(boot, now, label, (first, told), machine),
            Stage::Preflight { until } if now < until => Next::At(Some(until)),
            Stage::Preflight { .. } => self.tries(boot, now, machine),
            Stage::Refused => match self.may_work(boot, now, RESTS, label) {
                // haggle reads that and destroys it; if nobody does, the lease ends it.
                Ok(()) => Next::At(self.looks_next(boot, RESTS)),
                Err(_) => Next::Stage(waits()),
            },
            Stage::Working { seen, said } => self.works_on(boot, now, label, (seen, said)),
            Stage::Linger { until } => {
                let look = self.run.looks.1;
                if now < until && self.may_work(boot, now, look, label).is_ok() {
                    let looks = self.looks_next(boot, look).into_iter();
                    return Next::At(looks.chain([until]).min());
                }
                self.say(boot, now, "ended", "");
                Next::Stage(Stage::Ended)
            }
            // Where nothing but this disk has what was made, it is not for it to throw that away.
            Stage::Ended => {
                let here = self.run.outputs.is_some() || boot.unsaved;
                Next::Act(if boot.says == Says::Done || !here {
                    Act::Destroy
                } else {
                    Act::Stop
                })
            }
        }
    }

    // ------------------------------------------------------------------------------------ the label

    /// Looks at the label, not oftener than every so long; else why it may not work.
    fn may_work(
        &self,
        boot: &mut Boot,
        now: Time,
        every: Duration,
        label: &str,
    ) -> Result<(), Says> {
        if self.run.lease.is_none() {
            return Ok(());
        }
        if boot.looked.is_none_or(|at| now >= at + every.max(LEAST)) {
            boot.looked = Some(now);
            self.reads(boot, label);
        }
        match boot.says {
            Says::Go if now.0.div_euclid(1000) < boot.lease => Ok(()),
            Says::Go => Err(Says::Lapsed),
            other => Err(other),
        }
    }

    fn reads(&self, boot: &mut Boot, label: &str) {
        boot.says = Says::Else;
        let own = format!("{}/g{}.", self.run.label, self.run.generation);
        let tail = label.strip_prefix(&own);
        let Some((word, until)) = tail.and_then(|tail| tail.split_once('.')) else {
            return;
        };
        let says = match word {
            "go" => Says::Go,
            "hold" => Says::Hold,
            "done" => Says::Done,
            _ => return,
        };
        if !until.bytes().all(|byte| byte.is_ascii_digit()) {
            return;
        }
        if let Ok(until) = until.parse() {
            boot.says = says;
            boot.lease = until;
        }
    }

    /// When it looks at its label next, or its lease ends.
    fn looks_next(&self, boot: &Boot, every: Duration) -> Option<Time> {
        self.run.lease?;
        let looks = boot.looked? + every.max(LEAST);
        let ends = Time(boot.lease.saturating_mul(1000));
        let still = boot.says == Says::Go && ends > boot.looked?;
        Some(if still { looks.min(ends) } else { looks })
    }

    /// When nobody renews its lease any more.
    fn is_forgotten_at(&self, boot: &Boot) -> Option<Time> {
        let term = self.run.lease.filter(|_| boot.lease > 0)?;
        Some(Time(boot.lease.saturating_mul(1000)) + term)
    }

    fn gate(
        &mut self,
        boot: &mut Boot,
        now: Time,
        label: &str,
        (first, told): (bool, Option<Says>),
        machine: &Machine,
    ) -> Next {
        let look = self.run.looks.0;
        let Err(why) = self.may_work(boot, now, look, label) else {
            return Next::Stage(match first {
                true if self.run.expected.is_some() => Stage::Preflight {
                    until: now + machine.trial(),
                },
                true => waits(),
                false => self.begins(boot, now),
            });
        };
        if told != Some(why) {
            let why = format!(",\"why\":\"{}\"", why.word());
            self.say(boot, now, "gate", &why);
        }
        let told = Some(why);
        boot.stage = Stage::Gate { first, told };
        let forgotten = self.is_forgotten_at(boot);
        if forgotten.is_some_and(|at| now >= at) {
            self.say(boot, now, "forgotten", "");
            return Next::Act(Act::Destroy);
        }
        match why {
            // Another one has the work, or it is done: what woke by itself stops by itself.
            Says::Else => Next::Act(Act::Stop),
            Says::Done => Next::Act(Act::Destroy),
            _ => {
                let looks = boot.looked.map(|at| at + look.max(LEAST));
                Next::At(looks.into_iter().chain(forgotten).min())
            }
        }
    }

    // ------------------------------------------------------------------------------ the machine

    fn tries(&mut self, boot: &mut Boot, now: Time, machine: &Machine) -> Next {
        let expected = self.run.expected.clone().unwrap_or_default();
        let (bad, measured) = machine.against(&expected);
        let state = if bad.is_empty() {
            "preflight"
        } else {
            "refused"
        };
        self.say(boot, now, state, &format!(",{measured},\"bad\":\"{bad}\""));
        Next::Stage(if bad.is_empty() {
            waits()
        } else {
            Stage::Refused
        })
    }

    // ------------------------------------------------------------------------------ the command

    /// Begins the command, unless its disk says that it has ended well before.
    fn begins(&mut self, boot: &mut Boot, now: Time) -> Stage {
        if self.run.inputs > 0 && !self.fetched && !self.has_result {
            self.say(boot, now, "fetching", "");
            self.fetched = true;
        }
        if self.stores_checkpoints() && !self.begun {
            self.say(boot, now, "restoring", "");
            self.begun = true;
        }
        if self.has_result {
            boot.exit = Some(0);
            return self.results(boot, now);
        }
        self.say(boot, now, "running", "");
        Stage::Working {
            seen: now,
            said: now,
        }
    }

    fn works_on(
        &mut self,
        boot: &mut Boot,
        now: Time,
        label: &str,
        (seen, said): (Time, Time),
    ) -> Next {
        // What it did since it was last seen stays done if it is interrupted now.
        self.worked_ms += now.ms_since(seen).max(0);
        if self.command.ends_in(self.worked_ms) == Some(0) {
            boot.exit = Some(self.command.exit());
            self.reads_progress(boot);
            self.worked_ms = 0;
            return Next::Stage(self.results(boot, now));
        }
        let look = self.run.looks.1;
        if let Err(why) = self.may_work(boot, now, look, label) {
            let why = format!(",\"why\":\"{}\"", why.word());
            self.say(boot, now, "ending", &why);
            self.keeps_now(boot, now);
            return Next::Stage(waits());
        }
        let every = self.run.sync_every.max(LEAST);
        let is_due = boot.synced.is_none_or(|at| now >= at + every);
        if is_due && self.stores_checkpoints() {
            self.fails_to_keep(boot, now, "running");
            boot.synced = Some(now);
        }
        let mut said = said;
        let quiet_ms = now.ms_since(said);
        let moved = self.reads_progress(boot);
        if quiet_ms >= SAID_EVERY_MS || (moved && quiet_ms >= PROGRESS_EVERY_MS) {
            self.say(boot, now, "running", "");
            said = now;
        }
        boot.stage = Stage::Working { seen: now, said };
        let after = |ms: i64| Time(now.0.saturating_add(ms));
        let ends = self.command.ends_in(self.worked_ms).map(after);
        let moves = self.command.moves_in(self.worked_ms).map(after);
        let moves = moves.filter(|_| self.run.progress.is_some());
        let says = Time(said.0 + SAID_EVERY_MS);
        let keeps = boot.synced.map(|at| at + every);
        let all = [ends, moves, keeps, Some(says), self.looks_next(boot, look)];
        Next::At(all.into_iter().flatten().min())
    }

    /// The command has ended: what is tried to be kept, and what is told.
    fn results(&mut self, boot: &mut Boot, now: Time) -> Stage {
        boot.ended = Some(now);
        self.keeps_now(boot, now);
        let here = self.run.outputs.is_some();
        if here && self.run.control.is_some() {
            self.say(boot, now, "saving", "");
            self.has_result |= boot.exit == Some(0);
        }
        let outputs = if here { "\"here\"" } else { "null" };
        self.say(boot, now, "result", &format!(",\"outputs\":{outputs}"));
        Stage::Linger {
            until: now + self.run.linger,
        }
    }

    // ------------------------------------------------------------------------------ storage

    /// Whether its checkpoints belong in storage.
    fn stores_checkpoints(&self) -> bool {
        self.run.checkpoint.is_some() && self.run.control.is_some()
    }

    /// Tries to keep the checkpoint of a command that does not work any more.
    fn keeps_now(&mut self, boot: &mut Boot, now: Time) {
        if self.stores_checkpoints() {
            self.say(boot, now, "saving", "");
            self.fails_to_keep(boot, now, "saving");
        }
    }

    fn fails_to_keep(&mut self, boot: &mut Boot, now: Time, state: &str) {
        boot.unsaved = true;
        let trouble = ",\"trouble\":\"the checkpoint could not be uploaded\"";
        self.say(boot, now, state, trouble);
    }

    /// Reads how far the command is; whether that is another number than before.
    fn reads_progress(&self, boot: &mut Boot) -> bool {
        if self.run.progress.is_none() {
            return false;
        }
        let found = self.command.progress(self.worked_ms);
        let moved = found.is_some() && found != boot.progress;
        boot.progress = found.or(boot.progress);
        moved
    }

    // -------------------------------------------------------------------------- what it tells

    fn say(&mut self, boot: &mut Boot, now: Time, state: &str, more: &str) {
        boot.seq += 1;
        // It knows the time from the reply that carried its label.
        let at = boot.looked.map_or(0, |_| now.0.div_euclid(1000));
        let number = |value: Option<i64>| value.map_or("null".to_owned(), |n| n.to_string());
        let document = format!(
            "{{\"v\":1,\"run\":\"{}\",\"generation\":{},\"boot\":\"{}\",\"seq\":{},\"state\":\"{state}\",\
             \"at\":{at},\"progress\":{},\"checkpoint\":null,\"exit\":{}{more}}}",
            self.run.number(),
            self.run.generation,
            boot.name,
            boot.seq,
            number(boot.progress),
            number(boot.exit.map(i64::from)),
        );
        self.lines.push_back(signed(&document, &self.run.key));
        if self.lines.len() > LINES_KEPT {
            self.lines.pop_front();
        }
    }
}

/// It waits until it may work, and then begins its command.
fn waits() -> Stage {
    Stage::Gate {
        first: false,
        told: None,
    }
}
