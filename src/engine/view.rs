//! What the lines of a runner come to: how far it is, and what is to be said of its instance.

use std::time::Duration;

use crate::runner::{Brought, Fault, Fetch, Kept, Place, Told};
use crate::types::instance::{Outputs, RunnerView, Verdict};
use crate::types::job::Runner;
use crate::types::state::CHECKPOINT_PLACES;
use crate::types::time::Time;

/// A runner whose command works, or that moves data, says a line at least this often.
const HEARD_EVERY: Duration = Duration::from_mins(5);

/// How long a machine may try to get the checkpoint to begin with, at least and at most. Its size is the
/// word of the machine that made it.
const RESTORE_PATIENCE: (Duration, Duration) = (Duration::from_mins(10), Duration::from_hours(4));

/// A machine that brings a checkpoint more slowly than so many bytes a second is passed over.
const RESTORE_SLOWEST: u64 = 5_000_000;

/// A machine to which nothing of an input comes for so long is passed over.
pub(super) const STALL: Duration = Duration::from_mins(10);

/// How long a command that has ended well may go on trying to bring its outputs to storage. Its
/// instance is billed meanwhile; then it is parked, and the outputs stay on its disk.
const OUTPUTS_PATIENCE: Duration = Duration::from_mins(15);

/// Starts of a container whose names are remembered, so that their lines do not pass for new ones.
const BOOTS_KEPT: usize = 8;

/// States in which the command has been begun in this start of the container.
const AT_WORK: [&str; 5] = ["running", "saving", "result", "ending", "ended"];

/// What lines said that was not known yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// Whether there was any line.
    pub(super) any: bool,
    /// Checkpoints that were kept elsewhere, oldest first.
    pub(super) kept: Vec<Kept>,
    /// The SHA-256 of the manifest of a checkpoint that is not what it should be.
    pub(super) bad: Option<String>,
    /// Whether it waits behind its gate for another run's checkpoint.
    pub(super) waits: bool,
    /// Another run's checkpoint that it was brought, and found to be right.
    pub(super) brought: Option<Brought>,
    /// Whether its command had ended with exit code 0 when its container was started again.
    pub(super) ended_well: bool,
}

impl RunnerView {
    /// Whether its command has ended, and how is known.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state.as_deref(), Some("result" | "ended")) && self.exit.is_some()
    }

    /// Takes up lines that were not known yet.
    pub(super) fn take_up(&mut self, lines: &[Told], now: Time) -> News {
        let mut news = News::default();
        for told in lines {
            let known = self.line.as_ref();
            if known.is_some_and(|(boot, seq)| *boot == told.boot && told.seq <= *seq) {
                continue;
            }
            // Lines of an earlier start stand before those of the present one.
            let again = known.is_none_or(|(boot, _)| *boot != told.boot);
            if again {
                if self.boots.contains(&told.boot) {
                    continue;
                }
                self.boots.push(told.boot.clone());
                let over = self.boots.len().saturating_sub(BOOTS_KEPT);
                self.boots.drain(..over);
                news.ended_well |= self.has_ended() && self.exit == Some(0);
                self.begins_anew();
            }
            self.take_up_one(told, now, &mut news);
            news.any = true;
        }
        news
    }

    fn take_up_one(&mut self, told: &Told, now: Time, news: &mut News) {
        let began = told.state == "running" && self.progress_at.is_none();
        // Time in which it moves data is no time in which the command could get on.
        let resumes = told.state == "running" && self.state.as_deref() == Some("saving");
        if began || resumes || (told.progress.is_some() && told.progress != self.progress) {
            self.progress_at = Some(now);
        }
        let at_work = AT_WORK.contains(&told.state.as_str());
        self.worked |= at_work;
        self.line = Some((told.boot.clone(), told.seq));
        self.state = Some(told.state.clone());
        self.progress = told.progress.or(self.progress);
        self.exit = told.exit;
        if told.fault.is_some() {
            self.fault.clone_from(&told.fault);
        }
        self.why = told
            .bad
            .clone()
            .filter(|bad| !bad.is_empty())
            .or_else(|| told.trouble.clone())
            .or_else(|| told.why.clone());
        if told.state == "result" {
            self.result_at.get_or_insert(now);
            self.outputs = told.outputs.as_ref().and_then(outputs);
        }
        if let Some(fetch) = &told.fetch {
            self.fetches(fetch, now);
        }
        self.restoring(told, at_work, now, news);
        news.waits |= told.waits.is_some();
        if let Some(brought) = told.brought.as_ref().filter(|b| is_sum(&b.manifest)) {
            news.brought = Some(brought.clone());
        }
        self.keeping(told, now, news);
    }

    /// What is said of one input.
    fn fetches(&mut self, fetch: &Fetch, now: Time) {
        self.input_fault |= fetch.fault.is_some_and(Fault::is_of_job);
        self.input_changed |= fetch.fault == Some(Fault::Changed);
        if fetch.fault.is_some() {
            // It is begun once more, and what comes then is more than nothing.
            self.came = self.came.map(|(input, _, at)| (input, 0, at));
            return;
        }
        let Some(kb) = fetch.kb else {
            // What is tried or unpacked does not grow.
            self.came = None;
            self.stalled = false;
            return;
        };
        let known = self.came.filter(|(input, ..)| *input == fetch.input);
        // What is begun again is shorter at first.
        let since = match known {
            Some((_, before, at)) if kb <= before => at,
            _ => now,
        };
        self.came = Some((fetch.input, kb, since));
        self.stalled = now >= since + STALL;
    }

    /// What is said of the inputs and the checkpoint to begin with.
    fn restoring(&mut self, told: &Told, at_work: bool, now: Time, news: &mut News) {
        let state = told.state.as_str();
        if at_work || state == "restoring" {
            // Each has its own time.
            if self.fetching || at_work {
                self.restoring_since = None;
            }
            self.fetching = false;
            self.came = None;
            self.stalled = false;
        }
        self.fetching |= state == "fetching";
        if matches!(state, "fetching" | "restoring" | "trouble") {
            self.restoring_since.get_or_insert(now);
        }
        if let Some(bad) = &told.restore {
            self.restored_badly = true;
            news.bad = Some(bad.clone());
        }
    }

    /// What is said of the checkpoints that it makes, and of its outputs.
    fn keeping(&mut self, told: &Told, now: Time, news: &mut News) {
        let good = told.checkpoint.as_ref().filter(|kept| is_checkpoint(kept));
        let mut saved = false;
        if let Some(kept) = good {
            let said = (kept.slot, kept.manifest.clone(), kept.bytes);
            // Each line repeats the last one.
            if self.checkpoint.as_ref() != Some(&said) {
                self.checkpoint = Some(said);
                news.kept.push(kept.clone());
                saved = true;
            }
        }
        let failed = |text: &String| text.contains("uploaded");
        let fails = told.trouble.as_ref().is_some_and(failed);
        let stored = matches!(self.outputs, Some(Outputs::Stored { .. }));
        if fails || self.outputs == Some(Outputs::Here) {
            self.unsaved_since.get_or_insert(now);
        } else if saved || stored {
            self.unsaved_since = None;
        }
    }

    /// Since when something that its command made is on its disk alone, although it was to be elsewhere.
    /// The command may also have ended well and its outputs be on their way.
    pub(crate) fn unsaved_since(&self) -> Option<Time> {
        let given = self.given.as_ref();
        let has_outputs = given.is_some_and(|runner| runner.outputs.is_some());
        let on_their_way = has_outputs && self.exit == Some(0) && self.outputs.is_none();
        let since = self.unsaved_since;
        since.or(self.progress_at.filter(|_| on_their_way))
    }
}

/// Whether it can be one: what a host makes up otherwise is passed over.
fn is_checkpoint(kept: &Kept) -> bool {
    kept.slot < CHECKPOINT_PLACES && is_sum(&kept.manifest)
}

/// Whether it is a SHA-256 as runners write it.
fn is_sum(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 64 && text.bytes().all(digit)
}

fn outputs(told: &Place) -> Option<Outputs> {
    match told {
        Place::Word(word) => (word == "here").then_some(Outputs::Here),
        Place::Kept(kept) => is_sum(&kept.manifest).then(|| Outputs::Stored {
            manifest: kept.manifest.clone(),
            bytes: kept.bytes,
        }),
    }
}

/// How long a machine may take to bring a checkpoint of so many bytes.
pub(super) fn restore_patience(bytes: u64) -> Duration {
    let (least, most) = RESTORE_PATIENCE;
    Duration::from_secs(bytes / RESTORE_SLOWEST).clamp(least, most)
}

/// How long a machine may take to bring what its runner has to get before the command begins: its inputs,
/// and a checkpoint of so many bytes. It is counted anew once the inputs are there. What is of unknown length
/// may take as long as anything.
pub(super) fn fetch_patience(view: &RunnerView, runner: &Runner, checkpoint: u64) -> Duration {
    let restore = restore_patience(checkpoint);
    if !view.fetching {
        return restore;
    }
    let (bytes, all) = runner.input_bytes();
    let inputs = if all {
        restore_patience(bytes)
    } else {
        RESTORE_PATIENCE.1
    };
    restore.saturating_add(inputs)
}

/// What is to be said of an instance by what its runner told or did not tell. It may take so long to get
/// its inputs and the checkpoint to begin with.
pub(super) fn judged(
    view: &mut RunnerView,
    runner: &Runner,
    restore: Duration,
    (read_at, phase_since): (Time, Time),
) -> Option<Verdict> {
    match view.state.as_deref() {
        _ if view.has_ended() => {
            return (!still_uploads(view, runner, read_at)).then_some(Verdict::Ended);
        }
        Some("refused") => return Some(Verdict::Refused),
        _ => {}
    }
    let too_long = |since: Time| read_at >= since + restore;
    let of_input = view.input_fault || view.input_changed || view.stalled;
    if view.restored_badly || of_input || view.restoring_since.is_some_and(too_long) {
        return Some(Verdict::Refused);
    }
    // One that was heard says a line every five minutes; a state that was misread for a moment is no
    // reason to end it.
    let (since, after) = match view.heard_at {
        Some(at) => (
            at.max(phase_since),
            runner.silent_after.max(HEARD_EVERY * 2),
        ),
        None => (phase_since, runner.silent_after),
    };
    // What one read shows may be cut short, or from before: two have to show that a line is overdue.
    if read_at >= since + after {
        let overdue_since = *view.overdue_since.get_or_insert(read_at);
        if overdue_since < read_at {
            return Some(Verdict::Silent);
        }
    }
    let hung = runner.hung_after.zip(view.progress_at);
    let hangs = view.state.as_deref() == Some("running")
        && hung.is_some_and(|(after, at)| read_at >= at + after);
    hangs.then_some(Verdict::Hung)
}

/// Whether a command that ended well is about to bring its outputs to storage.
fn still_uploads(view: &RunnerView, runner: &Runner, read_at: Time) -> bool {
    let waits = view.exit == Some(0)
        && view.state.as_deref() == Some("result")
        && view.outputs == Some(Outputs::Here)
        && runner.storage.is_some();
    waits
        && view
            .result_at
            .is_some_and(|at| read_at < at + OUTPUTS_PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::eligible::samples::{input, runner};

    #[test]
    fn a_large_checkpoint_may_take_longer() {
        assert_eq!(restore_patience(0), Duration::from_mins(10));
        assert_eq!(
            restore_patience(60_000_000_000),
            Duration::from_secs(12_000)
        );
        assert_eq!(restore_patience(u64::MAX), Duration::from_hours(4));
    }

    #[test]
    fn inputs_have_their_time_beside_the_checkpoint() {
        let mut spec = runner("true");
        let mut view = RunnerView::of(&spec);
        let minutes =
            |view: &RunnerView, spec: &Runner| fetch_patience(view, spec, 0).as_secs() / 60;
        assert_eq!(minutes(&view, &spec), 10);
        view.fetching = true;
        spec.inputs = vec![input(Some(6_000_000_000))];
        assert_eq!(minutes(&view, &spec), 10 + 20);
        // What is of unknown length has time as long as it is on its way, whatever was said last.
        spec.inputs[0].found = None;
        view.state = Some("trouble".to_owned());
        assert_eq!(minutes(&view, &spec), 10 + 240);
        view.fetching = false;
        assert_eq!(minutes(&view, &spec), 10);
    }
}
