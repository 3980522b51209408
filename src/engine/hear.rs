//! What runners tell, taken up: how far they are, how they ended, and what silence means.
//!
//! A line counts that is signed with the run's key. The host can sign, too: so nothing that a line says
//! makes anything cost more, and an end that it claims ends the bill.

use std::time::Duration;

use crate::runner::Told;
use crate::types::instance::{Held, Phase, RunnerView, Verdict};
use crate::types::job::{Finish, Job, Runner};
use crate::types::money::Rate;
use crate::types::state::{KeptCheckpoint, Severity};
use crate::types::time::{Time, human, millis};

use super::observe::Fold;

/// What was read of the log of an instance with a runner.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// When it was read.
    pub at: Time,
    /// The runner's signed lines, in their order.
    pub lines: Vec<Told>,
    /// Whether there is any line of a runner, signed or not. A key can be lost, and what works all the
    /// same is not to be taken for silent.
    pub signs: bool,
    /// Whether it is all of the log: what a command writes can push a runner's lines out of the last
    /// ones.
    pub whole: bool,
}

/// A runner whose command works says a line at least this often.
const HEARD_EVERY: Duration = Duration::from_mins(5);

/// States in which the command has been begun in this start of the container.
const AT_WORK: [&str; 4] = ["running", "result", "ending", "ended"];

impl RunnerView {
    /// Takes up lines that were not known yet; whether there were any.
    fn take_up(&mut self, lines: &[Told], now: Time) -> bool {
        let mut news = false;
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
                self.begins_anew();
            }
            self.take_up_one(told, now);
            news = true;
        }
        news
    }

    fn take_up_one(&mut self, told: &Told, now: Time) {
        let began = told.state == "running" && self.progress_at.is_none();
        if began || (told.progress.is_some() && told.progress != self.progress) {
            self.progress_at = Some(now);
        }
        self.worked |= AT_WORK.contains(&told.state.as_str());
        self.line = Some((told.boot.clone(), told.seq));
        self.state = Some(told.state.clone());
        self.progress = told.progress.or(self.progress);
        self.exit = told.exit;
        self.why = told
            .bad
            .clone()
            .filter(|bad| !bad.is_empty())
            .or_else(|| told.why.clone())
            .or_else(|| told.trouble.clone());
        if let Some(kept) = &told.checkpoint {
            self.checkpoint = Some((kept.slot, kept.manifest.clone(), kept.bytes));
        }
    }
}

/// Starts of a container whose names are remembered, so that their lines do not pass for new ones.
const BOOTS_KEPT: usize = 8;

/// Whether a line says that the checkpoint which its run was to begin with cannot be had.
fn cannot_restore(told: &Told) -> bool {
    let trouble = told.trouble.as_deref().unwrap_or_default();
    told.state == "trouble" && trouble.contains("restored")
}

/// What is to be said of an instance by what its runner told or did not tell.
fn judged(
    view: &RunnerView,
    runner: &Runner,
    (read_at, phase_since): (Time, Time),
) -> Option<Verdict> {
    match view.state.as_deref() {
        Some("result" | "ended") if view.exit.is_some() => return Some(Verdict::Ended),
        Some("refused") => return Some(Verdict::Refused),
        _ => {}
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
    if read_at >= since + after {
        return Some(Verdict::Silent);
    }
    let hung = runner.hung_after.zip(view.progress_at);
    let hangs = view.state.as_deref() == Some("running")
        && hung.is_some_and(|(after, at)| read_at >= at + after);
    hangs.then_some(Verdict::Hung)
}

impl Fold<'_> {
    /// Takes up what was heard of an instance.
    pub(crate) fn listen(&mut self, held: &mut Held, before: Phase) {
        let Some(mut view) = held.runner.take() else {
            return;
        };
        if before == Phase::Stopped && held.phase != Phase::Stopped {
            view.begins_anew();
        }
        if let Some(heard) = self.seen.heard.get(&held.id) {
            view.read_at = Some(heard.at);
            let news = view.take_up(&heard.lines, heard.at);
            if news || (heard.signs && view.line.is_none()) || !heard.whole {
                view.heard_at = Some(heard.at);
            }
            self.comes_further(held, view.progress);
            self.checkpoints(held, &view, &heard.lines);
        }
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
        if !may || held.phase != Phase::Running {
            return;
        }
        let read = (heard.at, held.phase_since);
        let verdict = judged(view, &runner, read);
        view.verdict = verdict;
        if matches!(verdict, Some(Verdict::Refused | Verdict::Silent)) && view.worked {
            // It is replaced, and not woken on the same machine.
            held.bid_before_park = Some(Rate::ZERO);
        }
        match verdict {
            Some(Verdict::Ended) => self.command_ended(held, &job),
            Some(Verdict::Refused) => {
                self.blame(held.slot.machine);
                let what = held.runner.as_ref().and_then(|view| view.why.clone());
                let text = format!(
                    "machine {} is less than was advertised: {}",
                    held.slot.machine,
                    what.unwrap_or_else(|| "its runner does not say how".to_owned())
                );
                self.tell(Severity::Warning, "machine-refused", held, text);
                self.waits(held, &job);
            }
            Some(Verdict::Silent) => {
                self.blame(held.slot.machine);
                let text = format!(
                    "nothing was heard of its runner for {}",
                    human(heard.at.since(held.phase_since))
                );
                self.interrupted(held);
                self.failed(held, &job, &text);
            }
            Some(Verdict::Hung) => {
                self.interrupted(held);
                let after = runner.hung_after.unwrap_or_default();
                let how = format!("its command made no progress for {}", human(after));
                self.failed(held, &job, &how);
            }
            None => {}
        }
    }

    /// The next machine is not tried at once: what refuses every machine should not go through the
    /// whole market in an hour. It is not the job's failure.
    fn waits(&mut self, held: &Held, job: &Job) {
        let mut replica = self.draft.state.replica(&held.replica);
        let until = self.seen.now + job.retries.backoff;
        replica.retry_at = replica.retry_at.max(Some(until));
        self.draft
            .state
            .replicas
            .insert(replica.id.clone(), replica);
    }

    /// A command that gets further than it ever was has not failed in a row. How long it runs says
    /// nothing: one that fails after hours fails after hours again.
    fn comes_further(&mut self, held: &Held, progress: Option<f64>) {
        let mut replica = self.draft.state.replica(&held.replica);
        let Some(progress) = progress.filter(|&now| replica.furthest.is_none_or(|most| now > most))
        else {
            return;
        };
        replica.furthest = Some(progress);
        replica.failures = 0;
        self.draft
            .state
            .replicas
            .insert(replica.id.clone(), replica);
    }

    /// Remembers the last checkpoint that a run told of, and steps back to one from before where the
    /// next run says that it cannot be restored.
    fn checkpoints(&mut self, held: &Held, view: &RunnerView, lines: &[Told]) {
        let mut replica = self.draft.state.replica(&held.replica);
        let known = replica.checkpoint.clone();
        if let Some((slot, manifest, bytes)) = view.checkpoint.clone() {
            let run = held.intent;
            let told = KeptCheckpoint {
                run,
                slot,
                manifest,
                bytes,
            };
            // What an older run tells late is older work.
            if known.as_ref().is_none_or(|known| known.run <= run) && known.as_ref() != Some(&told)
            {
                let other = known.filter(|known| known.run != run);
                replica.checkpoint_before = other.or(replica.checkpoint_before.take());
                replica.checkpoint = Some(told);
            }
        } else if let Some(bad) = known.filter(|known| known.run < held.intent)
            && !view.worked
            && lines.last().is_some_and(cannot_restore)
        {
            let before = replica.checkpoint_before.take();
            let text = format!(
                "the checkpoint of run {} cannot be restored on machine {}; {}",
                bad.run,
                held.slot.machine,
                match &before {
                    Some(before) => format!("the one of run {} is taken", before.run),
                    None => "there is none from before, and the work begins anew".to_owned(),
                }
            );
            replica.checkpoint = before;
            self.tell(Severity::Alarm, "checkpoint-unreadable", held, text);
        }
        self.draft
            .state
            .replicas
            .insert(replica.id.clone(), replica);
    }

    /// The command ended by itself.
    fn command_ended(&mut self, held: &mut Held, job: &Job) {
        let Some(exit) = held.runner.as_ref().and_then(|view| view.exit) else {
            return;
        };
        if exit == 0 && job.finish != Finish::Never {
            self.finished(held, "its command ended with exit code 0");
            return;
        }
        self.interrupted(held);
        let how = format!("its command ended with exit code {exit}");
        self.failed(held, job, &how);
        // What fails at once on one machine after another is the command; but a machine that kills it
        // within seconds is passed over first.
        if held.run_ms < millis(job.min_run) {
            self.blame(held.slot.machine);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use super::super::eligible::samples::{NOW, held, job, offer, runner, usd, world};
    use super::super::observe::{Moved, Observation, observe};
    use super::*;
    use crate::types::instance::{Instance, Listing, RawState};
    use crate::types::offer::Snapshot;
    use crate::types::state::{Change, Ending, State};
    use crate::types::world::EngineConfig;

    struct Scene {
        state: State,
        job: Job,
        row: Instance,
        now: Time,
        told: Vec<String>,
    }

    fn line(boot: &str, seq: u64, state: &str) -> Told {
        Told {
            v: 1,
            run: "1".to_owned(),
            generation: 1,
            boot: boot.to_owned(),
            seq,
            state: state.to_owned(),
            at: 0,
            progress: None,
            checkpoint: None,
            exit: None,
            why: None,
            trouble: None,
            lacks: None,
            bad: None,
            signed: true,
        }
    }

    impl Scene {
        /// A supervised job whose instance has run for a while.
        fn new() -> Self {
            let mut job = job("a");
            job.finish = Finish::Exit;
            let mut spec = runner("true");
            spec.hung_after = Some(Duration::from_mins(20));
            job.run.runner = Some(Box::new(spec));
            let mut held = held(5, &job, &offer(1), usd(0.2));
            held.runner = job.run.runner.as_deref().map(RunnerView::of);
            let row = Instance {
                id: held.id,
                label: None,
                machine: Some(held.slot.machine),
                host: None,
                gpus: Some(1),
                gpu_ids: Vec::new(),
                gpu_name: None,
                is_bid: Some(true),
                price: Some(usd(0.2)),
                storage: None,
                burn: None,
                cur_state: Some(RawState::Running),
                intended: Some(RawState::Running),
                next_state: None,
                actual: Some(RawState::Running),
                status_msg: None,
                started_at: Some(NOW),
                up_ms: None,
                ends_at: None,
                disk_gb: None,
                ssh: None,
            };
            let mut state = world(Vec::new()).state;
            state.held.insert(held.id, held);
            Self {
                state,
                job,
                row,
                now: NOW,
                told: Vec::new(),
            }
        }

        /// Some minutes later its log is read; `None`: it cannot be.
        fn hears(&mut self, minutes: u64, lines: Option<Vec<Told>>) -> Option<Verdict> {
            self.now = self.now + Duration::from_mins(minutes);
            let at = self.now;
            let heard: BTreeMap<_, _> = lines
                .map(|lines| {
                    let signs = !lines.is_empty();
                    let whole = true;
                    let heard = Heard {
                        at,
                        lines,
                        signs,
                        whole,
                    };
                    (self.row.id, heard)
                })
                .into_iter()
                .collect();
            let listing = Listing {
                rows: vec![self.row.clone()],
                complete: true,
                unreadable: Vec::new(),
            };
            let seen = Observation {
                now: at,
                moved: Moved::default(),
                listing: Some(&listing),
                market: &Snapshot::default(),
                proven_gone: &BTreeSet::new(),
                proven_void: &BTreeSet::new(),
                on_demand: &BTreeMap::new(),
                unchanged: &BTreeMap::new(),
                ended: &BTreeMap::new(),
                heard: &heard,
            };
            let jobs = [Arc::new(self.job.clone())];
            for change in observe(&self.state, &jobs, &EngineConfig::default(), &seen) {
                self.state.apply(&change);
                if let Change::Event(event) = change {
                    self.told.push(event.kind);
                }
            }
            self.view().verdict
        }

        fn view(&self) -> &RunnerView {
            self.state.held[&self.row.id].runner.as_ref().unwrap()
        }

        fn ending(&self) -> Option<Ending> {
            let id = &self.state.held[&self.row.id].replica;
            self.state.replica(id).ending.map(|(ending, _)| ending)
        }

        fn is_cooled_down(&self) -> bool {
            let machine = self.row.machine.unwrap();
            self.state.machine(machine).cool_until.is_some()
        }
    }

    fn result(boot: &str, seq: u64, exit: i32) -> Told {
        Told {
            exit: Some(exit),
            ..line(boot, seq, "result")
        }
    }

    #[test]
    fn a_command_that_ends_well_finishes_its_replica_once() {
        let mut scene = Scene::new();
        let begun = vec![line("1.1", 1, "boot"), line("1.1", 2, "running")];
        assert_eq!(scene.hears(1, Some(begun.clone())), None);
        assert!(scene.view().worked);
        let mut all = begun;
        all.push(result("1.1", 3, 0));
        assert_eq!(scene.hears(1, Some(all.clone())), Some(Verdict::Ended));
        assert_eq!(scene.ending(), Some(Ending::Finished));
        scene.hears(1, Some(all));
        let finished = scene.told.iter().filter(|kind| *kind == "finished");
        assert_eq!(finished.count(), 1);
        assert!(!scene.is_cooled_down());
    }

    #[test]
    fn one_that_fails_is_tried_again_and_its_next_start_is_another() {
        let mut scene = Scene::new();
        let first = vec![line("1.1", 1, "running"), result("1.1", 2, 3)];
        assert_eq!(scene.hears(1, Some(first.clone())), Some(Verdict::Ended));
        assert_eq!(scene.ending(), None);
        assert!(scene.told.contains(&"failed".to_owned()));
        // The log begins with the lines from before.
        let mut second = first.clone();
        second.push(line("2.2", 1, "running"));
        assert_eq!(scene.hears(1, Some(second.clone())), None);
        assert_eq!(scene.view().exit, None);
        // And a log that shows the old ones alone says nothing new.
        assert_eq!(scene.hears(1, Some(first)), None);
        second.push(result("2.2", 2, 0));
        assert_eq!(scene.hears(1, Some(second)), Some(Verdict::Ended));
        assert_eq!(scene.ending(), Some(Ending::Finished));
    }

    #[test]
    fn failures_are_in_a_row_until_it_gets_further_than_before() {
        let mut scene = Scene::new();
        let failures = |scene: &Scene| {
            let id = &scene.state.held[&scene.row.id].replica;
            scene.state.replica(id).failures
        };
        let mut all = Vec::new();
        let mut attempt = |scene: &mut Scene, boot: &str, progress| {
            all.push(Told {
                progress: Some(progress),
                ..line(boot, 1, "running")
            });
            scene.hears(30, Some(all.clone()));
            all.push(result(boot, 2, 1));
            scene.hears(30, Some(all.clone()));
            failures(scene)
        };
        assert_eq!(attempt(&mut scene, "1.1", 5.0), 1);
        assert_eq!(attempt(&mut scene, "2.1", 5.0), 2);
        assert_eq!(attempt(&mut scene, "3.1", 6.0), 1);
        assert_eq!(attempt(&mut scene, "4.1", 3.0), 2);
    }

    #[test]
    fn the_last_checkpoint_is_remembered_and_a_bad_one_stepped_over() {
        let mut scene = Scene::new();
        let kept = |seq, manifest: &str| Told {
            checkpoint: Some(crate::runner::Kept {
                slot: 1,
                manifest: manifest.to_owned(),
                bytes: 9,
            }),
            ..line("1.1", seq, "running")
        };
        let replica = |scene: &Scene| {
            let id = &scene.state.held[&scene.row.id].replica;
            let record = scene.state.replica(id);
            (record.checkpoint, record.checkpoint_before)
        };
        scene.hears(1, Some(vec![kept(1, "aa")]));
        scene.hears(1, Some(vec![kept(2, "bb")]));
        let (first, before) = replica(&scene);
        assert_eq!((first.unwrap().manifest.as_str(), before), ("bb", None));
        // The next run, on another instance.
        let next = |scene: &mut Scene, id: u64| {
            let mut held = scene.state.held.remove(&scene.row.id).unwrap();
            held.id = crate::types::ids::InstanceId(id);
            held.intent = crate::types::ids::IntentId(id);
            held.runner = Some(RunnerView::of(&runner("true")));
            scene.row.id = held.id;
            scene.state.held.insert(held.id, held);
        };
        next(&mut scene, 6);
        scene.hears(1, Some(vec![kept(1, "cc")]));
        let (last, before) = replica(&scene);
        assert_eq!(last.unwrap().manifest, "cc");
        assert_eq!(before.unwrap().manifest, "bb");
        next(&mut scene, 7);
        let bad = Told {
            trouble: Some("the checkpoint could not be restored".to_owned()),
            ..line("3.1", 4, "trouble")
        };
        scene.hears(1, Some(vec![bad]));
        let (last, before) = replica(&scene);
        assert_eq!((last.unwrap().manifest.as_str(), before), ("bb", None));
        assert!(scene.told.contains(&"checkpoint-unreadable".to_owned()));
    }

    #[test]
    fn a_service_that_ends_has_failed() {
        let mut scene = Scene::new();
        scene.job.finish = Finish::Never;
        let lines = vec![line("1.1", 1, "running"), result("1.1", 2, 0)];
        assert_eq!(scene.hears(1, Some(lines)), Some(Verdict::Ended));
        assert_eq!(scene.ending(), None);
        assert!(scene.told.contains(&"failed".to_owned()));
    }

    #[test]
    fn silence_counts_only_where_the_log_was_read() {
        let mut scene = Scene::new();
        assert_eq!(scene.hears(1, Some(Vec::new())), None);
        assert_eq!(scene.hears(60, None), None, "it could not be read");
        assert!(!scene.is_cooled_down());
        assert_eq!(scene.hears(1, Some(Vec::new())), Some(Verdict::Silent));
        assert!(scene.is_cooled_down());
        // A line whose key is not ours any more is a sign all the same.
        let mut scene = Scene::new();
        let at = scene.now;
        let view = scene.state.held.get_mut(&scene.row.id).unwrap();
        view.runner.as_mut().unwrap().heard_at = Some(at);
        assert_eq!(scene.hears(9, Some(Vec::new())), None);
        assert_eq!(scene.hears(2, Some(Vec::new())), Some(Verdict::Silent));
    }

    #[test]
    fn a_container_with_a_runner_that_dies_has_not_finished() {
        let mut scene = Scene::new();
        scene.hears(1, Some(vec![line("1.1", 1, "running")]));
        scene.hears(9, Some(vec![line("1.1", 2, "running")]));
        scene.row.actual = Some(RawState::Exited);
        scene.hears(1, None);
        assert_eq!(scene.ending(), None);
        assert!(scene.told.contains(&"failed".to_owned()));
    }

    #[test]
    fn what_is_said_of_one_start_is_not_said_of_the_next() {
        let mut scene = Scene::new();
        let first = vec![line("1.1", 1, "running"), result("1.1", 2, 3)];
        assert_eq!(scene.hears(1, Some(first)), Some(Verdict::Ended));
        scene.row.cur_state = Some(RawState::Stopped);
        scene.hears(1, None);
        scene.row.cur_state = Some(RawState::Running);
        assert_eq!(scene.hears(1, None), None, "nothing was read of it yet");
    }

    #[test]
    fn a_machine_that_was_refused_is_cooled_down() {
        let mut scene = Scene::new();
        let refused = Told {
            bad: Some("vram".to_owned()),
            ..line("1.1", 2, "refused")
        };
        assert_eq!(scene.hears(1, Some(vec![refused])), Some(Verdict::Refused));
        assert!(scene.is_cooled_down());
        assert!(!scene.view().worked);
    }

    #[test]
    fn what_makes_no_progress_hangs() {
        let mut scene = Scene::new();
        let at = |seq, progress| Told {
            progress,
            ..line("1.1", seq, "running")
        };
        assert_eq!(scene.hears(1, Some(vec![at(1, Some(1.0))])), None);
        assert_eq!(scene.hears(19, Some(vec![at(2, Some(2.0))])), None);
        assert_eq!(scene.hears(19, Some(vec![at(3, Some(2.0))])), None);
        assert_eq!(
            scene.hears(1, Some(vec![at(3, Some(2.0))])),
            Some(Verdict::Hung)
        );
        assert!(scene.told.contains(&"failed".to_owned()));
    }
}
