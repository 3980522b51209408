//! The start ladder: what a start that comes to nothing looks like, step by step, before the time for
//! the whole of it is over.
//!
//! An instance that was rented and has not run yet is judged by what the marketplace tells of it:
//! nothing at all, the same message for too long, or an error. Then it is destroyed, and its machine is
//! left alone for a while. What may have worked is never judged here. One reading decides nothing: what
//! an error says has to be said for a minute, and the daemon reads the instance once more before it
//! destroys it.
//!
//! An error may say that no host could start it, for there is no such image. That is the word of a
//! machine that is not ours, which may be broken, or lie. So the next machine is tried; where one of
//! another owner says the same, and nothing of the kind has ever run, no host is blamed, and the job is
//! held back until its policy asks for something else. Whatever else goes wrong on one machine after the
//! other holds it back for a while, longer each time, for it may be the job after all.

use std::time::Duration;

use crate::types::ids::MachineId;
use crate::types::instance::{DestroyWhy, Held, Instance, Phase, RawState};
use crate::types::job::Job;
use crate::types::plan::{Action, Situation, Why};
use crate::types::start::{
    Asked, ComingUp, FailedStarts, Hold, IN_A_ROW, StartFault, StartRules, Stood, shortened, words,
};
use crate::types::state::Severity;
use crate::types::time::{Time, human, millis};
use crate::types::world::World;

use super::act::{destroy, expendable};
use super::hear::{UNFIT_WAIT, UNFIT_WAIT_MAX};
use super::observe::Fold;
use super::start_words::named;
use super::transition::{Whose, backoff};

/// What a message names it has to name for so long, in two readings at least.
const NAMED_FOR: Duration = Duration::from_mins(1);

/// A message that stays the same has to be read so often.
const UNCHANGED_READINGS: u32 = 3;

/// Two readings that are further apart than this, or than a few polls, say nothing of the time between
/// them.
const GAP_MAX: Duration = Duration::from_mins(5);
const GAP_POLLS: u32 = 3;

/// So many owners' machines have to say that no host could start it.
const AGREEING: usize = 2;

/// Wait after the same went wrong on [`IN_A_ROW`] machines; doubles with each time in a row.
const HOST_WAIT: Duration = Duration::from_mins(15);
/// Wait after two registries' answers that no more may be pulled; doubles with each time in a row.
const QUOTA_WAIT: Duration = Duration::from_hours(1);
/// Longest wait of either kind: a registry's window is mostly six hours.
const HOLD_MAX: Duration = Duration::from_hours(6);

/// Whether an instance is on its way to its first run, and we did not ask it to stop.
fn comes_up(held: &Held) -> bool {
    let never_ran = held.first_ran_at.is_none() && held.phase != Phase::Running;
    never_ran && !held.stop_asked && !held.parked && held.destroying.is_none()
}

/// Whether the marketplace's words on an instance that never ran name an error of its start.
pub(crate) fn names_fault(held: &Held) -> bool {
    let named = held.coming_up.as_ref().and_then(|view| view.named);
    named.is_some() && comes_up(held)
}

/// What its start has come to by now, if to nothing.
fn judged(held: &Held, rules: &StartRules) -> Option<StartFault> {
    let view = held.coming_up.as_ref().filter(|_| comes_up(held))?;
    if let Some((fault, stood)) = view.named {
        return (stood.readings >= 2 && stood.lasted() >= NAMED_FOR).then_some(fault);
    }
    let over = |after: Option<Duration>, readings: u32| {
        let enough = view.stands.readings >= readings;
        enough && after.is_some_and(|after| view.stands.lasted() >= after)
    };
    match (held.phase, view.actual) {
        (Phase::Provisioning, None) if over(rules.status_within, 2) => Some(StartFault::NoStatus),
        // Without any message nobody knows whether it gets on.
        (Phase::Provisioning, Some(RawState::Loading))
            if view.message.is_some() && over(rules.loading_unchanged, UNCHANGED_READINGS) =>
        {
            Some(StartFault::Stalled)
        }
        _ => None,
    }
}

/// Whether the time for the whole of a first start is over. Neither a clock that was set ahead nor a time
/// in which nobody looked makes it so.
fn is_too_late(held: &Held, timeout: Duration, now: Time) -> bool {
    let watched = held.coming_up.as_ref().map(|view| view.watched_ms);
    let long_enough = watched.is_none_or(|ms| ms >= millis(timeout));
    held.first_ran_at.is_none() && now >= held.created_at + timeout && long_enough
}

/// Takes an instance down whose start came to nothing, or takes too long. One that may have worked after
/// all is left to what is done with its phase.
pub(super) fn failed_start(world: &World, job: &Job, held: &Held) -> Option<Action> {
    if held.first_ran_at.is_some() || !expendable(world, job, held) {
        return None;
    }
    let given_up = held.start_fault.is_some() && comes_up(held);
    let waits = matches!(held.phase, Phase::Provisioning | Phase::Stopped);
    let may = waits || given_up || names_fault(held);
    // Asked first: what was given up is destroyed only where a second look shows the same, and must not
    // be billed without end where there is none.
    if may && !held.stop_asked && is_too_late(held, job.provision_timeout, world.now) {
        let why = (DestroyWhy::ProvisionTimeout, Why::ProvisionTimeout);
        return Some(destroy(held, why.0, why.1));
    }
    given_up.then(|| destroy(held, DestroyWhy::StartFailed, Why::StartFailed))
}

/// What a job waits for before anything is rented: its inputs, or, where its starts came to nothing, the
/// end of what holds it back.
pub(super) fn cannot_start(world: &World, job: &Job) -> Option<Situation> {
    if world.config.keeps_back(&job.run).is_none()
        && let Some(what) = world.unreadable_secrets.get(&job.name)
    {
        return Some(Situation::WaitsForSecrets { what: what.clone() });
    }
    let runner = job.run.runner.as_deref();
    if let Some(what) = runner.and_then(|runner| runner.inputs_wait.clone()) {
        return Some(Situation::WaitsForInputs { what });
    }
    let record = world.state.jobs.get(&job.name)?;
    let hold = record.held_by_fault(&job.run, world.now)?;
    Some(Situation::CannotStart {
        fault: hold.fault,
        message: hold.message.clone(),
        until: hold.until,
    })
}

/// Whether a later look at an instance shows what its start was given up for.
pub(crate) fn still_fails(held: &Held, row: &Instance) -> bool {
    let (Some(fault), Some(view)) = (held.start_fault, &held.coming_up) else {
        return false;
    };
    let said = row.status_msg.as_deref();
    match fault {
        StartFault::NoStatus | StartFault::Stalled => {
            row.actual == view.actual && said.map(words) == view.words
        }
        fault => row.phase() != Phase::Running && said.and_then(named) == Some(fault),
    }
}

/// The marketplace's words on an instance, as an event quotes them.
fn quoted(held: &Held) -> String {
    said(held).map_or_else(|| "no message".to_owned(), |text| format!("\"{text}\""))
}

/// What was said of its start: by its runner of an input, or by the marketplace.
fn said(held: &Held) -> Option<String> {
    let runner = held.runner.as_ref().filter(|view| view.input_fault);
    let why = runner.and_then(|view| view.why.as_deref());
    let loading = held.coming_up.as_ref();
    why.and_then(shortened)
        .or_else(|| loading.and_then(|view| view.message.clone()))
}

impl Fold<'_> {
    /// How far two readings may be apart for the time between them to count.
    pub(crate) fn gap_max(&self) -> Duration {
        GAP_MAX.max(self.config.poll_every.saturating_mul(GAP_POLLS))
    }

    /// A policy that asks for something else is not held back by what it asked for before.
    pub(crate) fn holds(&mut self) {
        for job in self.jobs {
            let Some(record) = self.draft.state.jobs.get_mut(&job.name) else {
                continue;
            };
            let starts = &mut record.starts;
            if starts.hold.is_none() && starts.failed.is_empty() {
                continue;
            }
            let asked = Asked::of(&job.run);
            starts
                .hold
                .take_if(|hold| !hold.asked.is_same(&asked, hold.fault));
            starts
                .failed
                .retain(|&fault, failed| failed.asked.is_same(&asked, fault));
        }
    }

    /// Remembers what is seen of an instance that has not run yet. Whether one that has ended without
    /// having run is said no longer to have failed to start.
    pub(crate) fn watch_start(&self, held: &mut Held, row: &Instance) -> bool {
        if held.first_ran_at.is_some() {
            held.coming_up = None;
            return false;
        }
        let (now, gap_max) = (self.seen.now, self.gap_max());
        let said = row.status_msg.as_deref();
        let view = held.coming_up.take();
        let fault = said.and_then(named);
        let same = |view: &&ComingUp| view.actual == row.actual && view.words == said.map(words);
        let stands = match view.as_ref().filter(same) {
            Some(view) => view.stands.again(now, gap_max),
            None => Stood::first(now),
        };
        let before = view.as_ref().and_then(|view| view.named);
        let named = fault.map(|fault| match before {
            Some((known, stood)) if known == fault => (fault, stood.again(now, gap_max)),
            _ => (fault, Stood::first(now)),
        });
        let watched_ms = view.as_ref().map_or(0, |view| {
            let passed = now.ms_since(view.stands.read_at).clamp(0, millis(gap_max));
            view.watched_ms.saturating_add(passed)
        });
        held.coming_up = Some(ComingUp {
            actual: row.actual,
            message: said.and_then(shortened),
            words: said.map(words),
            stands,
            named,
            watched_ms,
        });
        before.is_some() && named.is_none()
    }

    /// Judges a start. What follows from it is taken up once; where it gets on after all, it is not
    /// given up.
    pub(crate) fn judge_start(&mut self, held: &mut Held) {
        let Some(job) = self.job(&held.replica.job) else {
            return;
        };
        if !comes_up(held) {
            // What was put away is judged anew when it is begun again.
            if held.destroying.is_none() {
                held.start_fault = None;
            }
            return;
        }
        let was = held.start_fault;
        held.start_fault = judged(held, &job.start);
        if let (None, Some(fault)) = (was, held.start_fault) {
            self.start_failed(held, &job, fault);
        }
    }

    /// A start came to nothing. The next machine is not tried at once, and later with each.
    fn start_failed(&mut self, held: &Held, job: &Job, fault: StartFault) {
        let mut replica = self.draft.state.replica(&held.replica);
        replica.failed_starts = replica.failed_starts.saturating_add(1);
        let first = job.retries.backoff.max(UNFIT_WAIT);
        let wait = backoff(first, UNFIT_WAIT_MAX, replica.failed_starts);
        replica.retry_at = replica.retry_at.max(Some(self.seen.now + wait));
        self.draft
            .state
            .replicas
            .insert(replica.id.clone(), replica);
        let stood = held.coming_up.as_ref().map(|view| view.stands.lasted());
        let stood = human(stood.unwrap_or_default());
        let what = match fault {
            StartFault::NoStatus => format!("no status was told of it for {stood}"),
            StartFault::Stalled => format!("it loads with the same message for {stood}"),
            StartFault::TimedOut => "it did not come up in time".to_owned(),
            StartFault::HostError => "its host reports an error".to_owned(),
            StartFault::ImageMissing
            | StartFault::ImageDenied
            | StartFault::PullQuota
            | StartFault::Inputs
            | StartFault::Command => format!("its host says that {}", fault.what()),
        };
        let text = format!(
            "instance {} on machine {} did not start: {what} ({})",
            held.id,
            held.slot.machine,
            quoted(held)
        );
        self.tell(Severity::Warning, "start-failed", held, text);
        if self.counts_start(held, job, fault) {
            return;
        }
        if fault == StartFault::PullQuota {
            self.pass_over(held.slot.machine);
        } else {
            // What may be ours says nothing of the host's other machines.
            let whose = if fault.may_be_ours() {
                Whose::Either
            } else {
                Whose::Machine
            };
            self.blame(held, whose);
        }
    }

    /// Counts a start that came to nothing for its job, and holds it back where that is due. Whether it
    /// is known to be no fault of the host.
    pub(crate) fn counts_start(&mut self, held: &Held, job: &Job, fault: StartFault) -> bool {
        let present = Asked::of(&job.run);
        let asked = held.asked.clone().unwrap_or_else(|| present.clone());
        if !asked.is_same(&present, fault) {
            // Its policy was changed since.
            return fault.may_be_ours();
        }
        let has_run = self.has_run(job, &asked, fault);
        let mut record = self.draft.state.job(&job.name);
        let stands = record.held_by_fault(&job.run, self.seen.now);
        let stands = stands.map(|hold| (hold.fault, hold.until.is_none()));
        let failed = record.starts.failed.entry(fault);
        let failed = failed.or_insert_with(|| FailedStarts::of(asked));
        failed.add(held.slot.machine, held.host, self.seen.now);
        let failed = failed.clone();
        self.draft.state.jobs.insert(record.name.clone(), record);
        match stands {
            // What holds it until it is changed is not made to end by itself.
            Some((known, true)) => return known == fault,
            // What was under way when it was held back is not the next time.
            Some((known, false)) if known == fault => return false,
            _ => {}
        }
        // Two that were made at once see the same minute of a registry, and are one witness.
        let apart = failed.first_at.is_some_and(|at| held.created_at >= at);
        let agreed = fault.may_be_ours() && failed.owners() >= AGREEING && apart;
        match fault {
            StartFault::PullQuota if agreed => self.hold_back(held, job, fault, Some(QUOTA_WAIT)),
            _ if agreed && !has_run => {
                let blamed = failed.on.keys().filter(|_| fault != StartFault::Inputs);
                for &machine in blamed.filter(|&&on| on != held.slot.machine) {
                    self.absolve(machine);
                }
                self.hold_back(held, job, fault, None);
                return true;
            }
            _ if failed.on.len() >= IN_A_ROW => {
                self.hold_back(held, job, fault, Some(HOST_WAIT));
            }
            _ => {}
        }
        false
    }

    /// Whether what is asked for has ever come up, for whatever job: then it can.
    fn has_run(&self, job: &Job, asked: &Asked, fault: StartFault) -> bool {
        let state = &self.draft.state;
        let same = |known: &Asked| known.is_same(asked, fault);
        if fault == StartFault::Inputs {
            // A container that came up may not have got them.
            let worked = |held: &&Held| held.runner.as_ref().is_some_and(|view| view.worked);
            let mut at_work = state.held.values().filter(worked);
            return at_work.any(|held| held.asked.as_ref().is_some_and(same));
        }
        let mut ran = state
            .jobs
            .values()
            .filter_map(|job| job.starts.ran.as_ref());
        let mut here = state
            .held
            .values()
            .filter(|held| held.first_ran_at.is_some());
        // Of what was rented before that was remembered, it is taken to be the same.
        let is_it = |held: &Held| {
            held.asked
                .as_ref()
                .map_or(held.replica.job == job.name, same)
        };
        ran.any(same) || here.any(is_it)
    }

    /// Nothing is rented for the job: for a while, which is longer each time in a row, or until its
    /// policy is changed. That is told as an alarm, the first time.
    fn hold_back(&mut self, held: &Held, job: &Job, fault: StartFault, first: Option<Duration>) {
        let now = self.seen.now;
        let mut record = self.draft.state.job(&job.name);
        // Whatever it was that held it back before: what is not to be started now comes to nothing in
        // one way and then in another.
        let again = record.starts.hold.filter(|hold| hold.is_about(&job.run));
        let times = again
            .as_ref()
            .map_or(0, |hold| hold.times)
            .saturating_add(1);
        let left = again
            .and_then(|hold| hold.until)
            .map(|until| until.since(now));
        let wait = first.map(|first| backoff(first, HOLD_MAX, times).max(left.unwrap_or_default()));
        let on = record.starts.failed.get(&fault);
        let machines = on.map_or(0, |failed| failed.on.len());
        record.starts.hold = Some(Hold {
            fault,
            asked: Asked::of(&job.run),
            message: said(held).unwrap_or_default(),
            since: now,
            until: wait.map(|wait| now + wait),
            times,
        });
        self.draft.state.jobs.insert(record.name.clone(), record);
        let text = format!(
            "{} (so on {machines} machines, on the last one {}): nothing is rented for {} {}; {}",
            fault.what(),
            quoted(held),
            job.name,
            wait.map_or_else(
                || "until its policy is changed".to_owned(),
                |wait| format!("for {}", human(wait))
            ),
            fault.help(job.name.as_str())
        );
        let severity = if times > 1 {
            Severity::Warning
        } else {
            Severity::Alarm
        };
        self.tell(severity, "cannot-start", held, text);
    }

    /// It runs for the first time: what failed before it is over.
    pub(crate) fn start_succeeded(&mut self, held: &mut Held) {
        held.coming_up = None;
        held.start_fault = None;
        if let Some(replica) = self.draft.state.replicas.get_mut(&held.replica) {
            if replica.failed_starts > 0 {
                // It got on after all, and waits for nothing.
                replica.retry_at = None;
            }
            replica.failed_starts = 0;
        }
        let Some(job) = self.job(&held.replica.job) else {
            return;
        };
        let present = Asked::of(&job.run);
        let asked = held.asked.clone().unwrap_or_else(|| present.clone());
        if asked.image != present.image {
            return;
        }
        let mut record = self.draft.state.job(&job.name);
        let starts = &mut record.starts;
        // Whether it gets its inputs is only seen once its command begins.
        let over =
            |known: &Asked, fault| fault != StartFault::Inputs && known.is_same(&asked, fault);
        starts
            .failed
            .retain(|&fault, failed| !over(&failed.asked, fault));
        starts.hold.take_if(|hold| over(&hold.asked, hold.fault));
        starts.ran = Some(asked);
        self.draft.state.jobs.insert(record.name.clone(), record);
    }

    /// A run says of an input that it would be the same on every machine. No host is blamed for that: the
    /// next machine is tried, and where one of another owner says it, too, the job is held back.
    pub(crate) fn lacks_input(&mut self, held: &Held, job: &Job) {
        let text = format!(
            "machine {} cannot give {} what it needs: {}",
            held.slot.machine,
            held.replica,
            quoted(held)
        );
        self.tell(Severity::Warning, "input-refused", held, text);
        self.counts_start(held, job, StartFault::Inputs);
        self.pass_over(held.slot.machine);
    }

    /// A command was begun: its inputs were to be had.
    pub(crate) fn has_its_inputs(&mut self, held: &Held) {
        let Some(record) = self.draft.state.jobs.get_mut(&held.replica.job) else {
            return;
        };
        let starts = &mut record.starts;
        starts.failed.remove(&StartFault::Inputs);
        starts.hold.take_if(|hold| hold.fault == StartFault::Inputs);
    }

    /// Nothing is rented on a machine for a while, which is no fault of its.
    fn pass_over(&mut self, machine: MachineId) {
        let mut record = self.draft.state.machine(machine);
        let until = self.seen.now + self.config.cooldown;
        record.cool_until = record.cool_until.max(Some(until));
        self.draft.state.machines.insert(machine, record);
    }

    /// What a machine was blamed for was not its fault.
    fn absolve(&mut self, machine: MachineId) {
        let Some(record) = self.draft.state.machines.get_mut(&machine) else {
            return;
        };
        record.past.failures = record.past.failures.saturating_sub(1);
        record.past.no_starts = record.past.no_starts.saturating_sub(1);
        record.failures = record.failures.saturating_sub(1);
        if record.failures == 0 {
            record.cool_until = None;
        }
    }
}

#[cfg(test)]
#[path = "ladder_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "ladder_job_tests.rs"]
mod job_tests;
