//! What runners tell, taken up: how far they are, how they ended, and what silence means.
//!
//! A line counts that is signed with the run's key. The host can sign, too: so nothing that a line says
//! makes anything cost more than its own disk for a day, and an end that it claims ends the bill within a
//! quarter of an hour.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::runner::{Kept, Told};
use crate::types::instance::{Held, Outputs, Phase, RunnerView, Verdict};
use crate::types::job::{Finish, Job};
use crate::types::money::Rate;
use crate::types::state::{KeptCheckpoint, KeptOutputs, Severity};
use crate::types::time::{Time, human, millis};

use super::act::{UNSAVED_KEPT, is_stored, lets_go};
use super::brought::is_brought;
use super::observe::Fold;
use super::transition::{Whose, backoff};
use super::view::{STALL, fetch_patience, judged};

/// After a machine that was unfit nothing is rented for so long, twice as long after the next, and so on
/// up to the second.
pub(super) const UNFIT_WAIT: Duration = Duration::from_mins(1);
pub(super) const UNFIT_WAIT_MAX: Duration = Duration::from_hours(6);

/// So many unfit machines in a row are told of.
const UNFIT_TOLD: u32 = 5;

/// So many machines in a row may break under a command before it counts as the command's failure: one
/// that says so itself, or breaks them, must not go through the whole market for nothing.
const BROKEN_MAX: u32 = 3;

/// So many machines have to say that a checkpoint is not what it should be.
const BAD_BY: usize = 2;

/// What was read of the log of an instance with a runner.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// When it was read.
    pub at: Time,
    /// The runner's signed lines, in their order.
    pub lines: Vec<Told>,
    /// What its last lines say of a broken GPU.
    pub mark: Option<&'static str>,
    /// Whether there is any line of a runner, signed or not. A key can be lost, and what works all the
    /// same is not to be taken for silent.
    pub signs: bool,
    /// Whether it is all of the log: what a command writes can push a runner's lines out of the last
    /// ones.
    pub whole: bool,
}

/// Why a machine was refused, in words.
fn why_unfit(view: &RunnerView) -> String {
    let said = view.why.clone();
    said.unwrap_or_else(|| {
        if let Some((input, kb, _)) = view.came.filter(|_| view.stalled) {
            let after = human(STALL);
            format!("nothing more of input {input} came for {after}, after {kb} KB")
        } else if view.restoring_since.is_some() {
            "it did not get its inputs or the checkpoint to begin with in time".to_owned()
        } else {
            "its runner does not say how".to_owned()
        }
    })
}

impl Fold<'_> {
    /// Takes up what was heard of an instance.
    pub(crate) fn listen(&mut self, held: &mut Held, before: Phase) {
        let Some(mut view) = held.runner.take() else {
            return;
        };
        if before == Phase::Stopped && held.phase != Phase::Stopped {
            let given_up = view
                .verdict
                .filter(|verdict| *verdict == Verdict::NotBrought);
            view.begins_anew();
            // What was given up behind its gate is not waited for once more.
            view.verdict = given_up;
            if let Some(bringing) = &mut held.bringing {
                bringing.waits_again(self.seen.now);
            }
        }
        if let Some(heard) = self.seen.heard.get(&held.id) {
            view.read_at = Some(heard.at);
            let worked = view.worked;
            let kept = view.checkpoint.clone();
            let news = view.take_up(&heard.lines, heard.at);
            let once = |job: Arc<Job>| job.finish != Finish::Never;
            if news.ended_well && self.job(&held.replica.job).is_some_and(once) {
                // What its container was started with once more is of no use.
                view.state = Some("ended".to_owned());
                view.exit = Some(0);
            }
            if held.phase == Phase::Running && !held.is_behind_gate() && view.checkpoint != kept {
                // Its disk works: what was not copied from it some time ago may be now.
                held.copies_failed = 0;
            }
            self.measured(held, &heard.lines);
            if news.any || (heard.signs && view.line.is_none()) || !heard.whole {
                view.heard_at = Some(heard.at);
                view.overdue_since = None;
            }
            self.comes_further(held, view.progress);
            if view.worked {
                self.is_fit(held);
            }
            if view.worked && !worked {
                self.finds_fit(held);
                self.has_its_inputs(held);
            }
            // What stays on a disk goes with it.
            if view
                .given
                .as_ref()
                .is_some_and(|runner| runner.storage.is_some())
            {
                self.checkpoints(held, news.kept);
            }
            is_brought(held, &view, (news.waits, news.brought), heard.at);
            if let Some(bad) = news.bad {
                self.cannot_restore(held, &bad);
            }
        }
        self.confirms(held);
        held.runner = Some(view);
    }

    /// Judges what was heard, once in each start of the container.
    pub(crate) fn judge(&mut self, held: &mut Held) {
        let Some(job) = self.job(&held.replica.job) else {
            return;
        };
        let Some(heard) = self.seen.heard.get(&held.id) else {
            return;
        };
        let Some(view) = &mut held.runner else {
            return;
        };
        let Some(runner) = view.given.clone() else {
            return;
        };
        let may = view.verdict.is_none() && held.destroying.is_none();
        // What stands still may have ended before: what it said last of its end is true, and would be paid
        // for again if it were not believed. Nothing else is expected of it.
        let well = view.exit == Some(0);
        let unseen = matches!(held.phase, Phase::Exited | Phase::Unclear);
        let stands = held.phase == Phase::Stopped || (unseen && well);
        if !may || !(held.phase == Phase::Running || (stands && view.has_ended())) {
            return;
        }
        let read = (heard.at, held.phase_since);
        let of_others = |kept: &&KeptCheckpoint| kept.run < held.intent;
        let replica = self.draft.state.replicas.get(&held.replica);
        let from = replica.and_then(|record| record.checkpoints.iter().find(of_others));
        let patience = fetch_patience(view, &runner, from.map_or(0, |kept| kept.bytes));
        // Nothing is uploaded from where it stands still.
        let mut verdict = if stands {
            Some(Verdict::Ended)
        } else {
            judged(view, &runner, patience, read)
        };
        let failed = verdict == Some(Verdict::Ended) && view.exit != Some(0);
        let fault = view.fault.clone().or(heard.mark.map(str::to_owned));
        if failed && fault.is_some() {
            verdict = Some(Verdict::Broken);
        }
        // One that failed for its GPUs are idle is on its way to be begun anew: it has not failed once more.
        let over = held.gpu_use.over;
        let done = |verdict: &Verdict| *verdict == Verdict::Ended && view.exit == Some(0);
        let verdict = verdict.filter(|verdict| !over || done(verdict));
        view.verdict = verdict;
        if view.is_replaced() {
            // It is replaced, and not woken on the same machine.
            held.bid_before_park = Some(Rate::ZERO);
        }
        match verdict {
            Some(Verdict::Ended) => self.command_ended(held, &job),
            Some(Verdict::Refused) if held.runner.as_ref().is_some_and(|view| view.input_fault) => {
                self.lacks_input(held, &job);
                self.waits(held, &job);
            }
            Some(Verdict::Refused)
                if held.runner.as_ref().is_some_and(|view| view.input_changed) =>
            {
                let why = held.runner.as_ref().map(why_unfit).unwrap_or_default();
                let text = format!(
                    "{} has to begin anew, for an input is another one than when it was rented: {why}",
                    held.replica
                );
                self.tell(Severity::Warning, "input-changed", held, text);
                self.waits(held, &job);
            }
            Some(Verdict::Refused) => {
                self.blame(held, Whose::Machine);
                let why = held.runner.as_ref().map(why_unfit).unwrap_or_default();
                let text = format!(
                    "machine {} is not fit for the job: {why}",
                    held.slot.machine
                );
                self.tell(Severity::Warning, "machine-refused", held, text);
                self.waits(held, &job);
            }
            Some(Verdict::Broken) => self.broke(held, &job, &fault.unwrap_or_default()),
            Some(Verdict::Silent) => {
                self.blame(held, Whose::Machine);
                let text = format!(
                    "nothing was heard of its runner for {}",
                    human(heard.at.since(held.phase_since))
                );
                if held.is_behind_gate() {
                    // The job's command was not begun there.
                    self.tell(Severity::Warning, "machine-refused", held, text);
                    self.waits(held, &job);
                } else {
                    self.interrupted(held);
                    self.failed(held, &job, &text);
                }
            }
            Some(Verdict::Hung) => {
                self.interrupted(held);
                let after = runner.hung_after.unwrap_or_default();
                let how = format!("its command made no progress for {}", human(after));
                self.failed(held, &job, &how);
            }
            // That is judged by the time alone.
            Some(Verdict::NotBrought) | None => {}
        }
    }

    /// The next machine is not tried at once, and later with each: what every machine is unfit for should
    /// not go through the whole market. It is not the job's failure.
    pub(super) fn waits(&mut self, held: &Held, job: &Job) {
        let mut replica = self.draft.state.replica(&held.replica);
        replica.unfit = replica.unfit.saturating_add(1);
        let first = job.retries.backoff.max(UNFIT_WAIT);
        let until = self.seen.now + backoff(first, UNFIT_WAIT_MAX, replica.unfit);
        replica.retry_at = replica.retry_at.max(Some(until));
        if replica.unfit == UNFIT_TOLD {
            let text = format!(
                "{} machines in a row were unfit for {}; is it the job that asks too much (`haggle logs {}` \
                 has what they said), or storage that they cannot reach?",
                replica.unfit, replica.id, replica.id
            );
            self.tell(Severity::Alarm, "machines-unfit", held, text);
        }
        self.draft
            .state
            .replicas
            .insert(replica.id.clone(), replica);
        self.sets_back(held, job);
    }

    /// A GPU broke under the command, as its machine or its log says: the machine's failure, and not the
    /// job's.
    fn broke(&mut self, held: &mut Held, job: &Job, fault: &str) {
        self.blame(held, Whose::Machine);
        self.interrupted(held);
        let what = match fault {
            "gpu-lost" => "a GPU was lost",
            "gpu-ecc" => "a GPU's memory has errors that cannot be corrected",
            _ => "the driver reported a broken GPU (Xid)",
        };
        let mut replica = self.draft.state.replica(&held.replica);
        if replica.broken >= BROKEN_MAX {
            // It goes elsewhere all the same.
            let how = format!("its command failed and {what}, as on {BROKEN_MAX} machines before");
            self.failed(held, job, &how);
            return;
        }
        replica.broken += 1;
        let wait = job.retries.backoff.max(UNFIT_WAIT);
        replica.retry_at = replica.retry_at.max(Some(self.seen.now + wait));
        let text = format!(
            "machine {} broke under the command: {what}; it does not count as a failure of the job, \
             {} in a row at most do not",
            held.slot.machine, BROKEN_MAX
        );
        self.tell(Severity::Warning, "machine-broken", held, text);
        self.draft
            .state
            .replicas
            .insert(replica.id.clone(), replica);
        self.sets_back(held, job);
    }

    /// A machine on which the command was begun was fit for it.
    fn is_fit(&mut self, held: &Held) {
        let Some(replica) = self.draft.state.replicas.get_mut(&held.replica) else {
            return;
        };
        replica.unfit = 0;
    }

    /// Remembers what its runner measured of the machine.
    fn measured(&mut self, held: &Held, lines: &[Told]) {
        let last = |of: fn(&Told) -> Option<u32>| lines.iter().rev().find_map(of);
        let (disk, down) = (last(|told| told.disk), last(|told| told.down));
        if disk.is_none() && down.is_none() {
            return;
        }
        self.machine_of(held, |record| {
            record.past.disk_mb_s = disk.or(record.past.disk_mb_s);
            record.past.down_mbit_s = down.or(record.past.down_mbit_s);
        });
    }

    /// A command that gets further than it ever was has not failed in a row. How long it runs says
    /// nothing: one that fails after hours fails after hours again.
    fn comes_further(&mut self, held: &Held, progress: Option<f64>) {
        let mut replica = self.draft.state.replica(&held.replica);
        let Some(progress) = progress.filter(|&now| replica.furthest.is_none_or(|most| now > most))
        else {
            return;
        };
        if self.is_furthest(&held.replica.job, progress) {
            self.gets_on(held);
        }
        replica.furthest = Some(progress);
        replica.failures = 0;
        replica.broken = 0;
        self.draft
            .state
            .replicas
            .insert(replica.id.clone(), replica);
    }

    /// Remembers the checkpoints that a run told of.
    fn checkpoints(&mut self, held: &Held, kept: Vec<Kept>) {
        if kept.is_empty() {
            return;
        }
        let mut replica = self.draft.state.replica(&held.replica);
        replica.broken = 0;
        for kept in kept {
            replica.keeps(KeptCheckpoint {
                run: held.intent,
                slot: kept.slot,
                manifest: kept.manifest,
                bytes: kept.bytes,
                bad_on: BTreeSet::new(),
            });
        }
        self.draft
            .state
            .replicas
            .insert(replica.id.clone(), replica);
    }

    /// A run says that the checkpoint it was to begin with is not what it should be. Its archive is
    /// tried by nobody else, and a machine may lie to make us lose work: two have to say so.
    fn cannot_restore(&mut self, held: &Held, manifest: &str) {
        let mut replica = self.draft.state.replica(&held.replica);
        let machine = held.slot.machine;
        let is_it =
            |kept: &&mut KeptCheckpoint| kept.manifest == manifest && kept.run < held.intent;
        let Some(bad) = replica.checkpoints.iter_mut().find(is_it) else {
            return;
        };
        bad.bad_on.insert(machine);
        let (run, is_bad) = (bad.run, bad.bad_on.len() >= BAD_BY);
        if is_bad {
            replica.checkpoints.retain(|kept| kept.manifest != manifest);
            let text = format!(
                "the checkpoint of run {run} cannot be restored: machine {machine} is not the first \
                 that says so; {}",
                match replica.checkpoints.first() {
                    Some(before) => format!("the one of run {} before it is taken", before.run),
                    None => "there is none from before, and the work begins anew".to_owned(),
                }
            );
            self.tell(Severity::Alarm, "checkpoint-unreadable", held, text);
        }
        self.draft
            .state
            .replicas
            .insert(replica.id.clone(), replica);
    }

    /// Remembers where the outputs of a run that ended well are.
    pub(crate) fn outputs(&mut self, held: &Held) {
        let outputs = held.runner.as_ref().and_then(|view| view.outputs.clone());
        match outputs {
            Some(Outputs::Stored { manifest, bytes }) => {
                let mut replica = self.draft.state.replica(&held.replica);
                replica.outputs = Some(KeptOutputs {
                    run: held.intent,
                    manifest,
                    bytes,
                });
                self.draft
                    .state
                    .replicas
                    .insert(replica.id.clone(), replica);
            }
            Some(Outputs::Here) if is_stored(held) => {
                let let_go = self.job(&held.replica.job).map_or_else(
                    || format!("`haggle stop {}` lets them go", held.replica.job),
                    |job| lets_go(&job, "stop", "lets them go"),
                );
                let text = format!(
                    "the outputs could not be brought to storage and are on the disk of instance {} \
                     alone, which is kept for {}; `haggle api copy` copies from a stopped disk, and {}",
                    held.id,
                    human(UNSAVED_KEPT),
                    let_go
                );
                self.tell(Severity::Alarm, "outputs-here", held, text);
            }
            Some(Outputs::Here) | None => {}
        }
    }

    /// The command ended by itself.
    fn command_ended(&mut self, held: &mut Held, job: &Job) {
        let Some(exit) = held.runner.as_ref().and_then(|view| view.exit) else {
            return;
        };
        if exit == 0 && job.finish != Finish::Never {
            self.outputs(held);
            let outputs = held.runner.as_ref().and_then(|view| view.outputs.as_ref());
            let how = match outputs {
                Some(Outputs::Stored { .. }) => format!(
                    "its command ended with exit code 0, and its outputs are in storage (`haggle fetch {}`)",
                    held.replica
                ),
                _ => "its command ended with exit code 0".to_owned(),
            };
            self.finished(held, &how);
            return;
        }
        self.interrupted(held);
        let how = format!("its command ended with exit code {exit}");
        self.failed(held, job, &how);
        // What fails at once on one machine after another is the command; but a machine that kills it
        // within seconds is passed over first.
        if held.run_ms < millis(job.min_run) {
            self.blame(held, Whose::Either);
        }
    }
}

#[cfg(test)]
#[path = "hear_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "hear_input_tests.rs"]
mod input_tests;
