//! What jobs need on their machines, made ready before anything is rented: what lies here is brought to
//! storage, and what lies there is looked up.
//!
//! It is done by one task beside the ticks, for one job at a time. A tick takes up what that has found, and
//! what is not ready keeps its job back, in words. What a rental was made with stays as it is, for objects
//! lie by their content; what is another by the next one is brought again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::inputs_need::{Need, need, no_room, says_changed};
use super::inputs_work::Work;
use super::poll::Jobs;
use super::{Daemon, DaemonError};
use crate::storage::{Sum, are_the_same};
use crate::types::ids::JobName;
use crate::types::input::{Found, Input, Source, size};
use crate::types::job::{Job, Storage};
use crate::types::plan::{Action, Why};
use crate::types::state::{Change, Event, Severity};
use crate::types::time::{Mono, human};
use crate::types::world::World;

/// What is ready is looked at again after this: it may have changed.
const AGAIN: Duration = Duration::from_mins(1);

/// What failed is tried again after the first of these, and after twice as long each time, up to the second.
const RETRY: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(1));

/// That something cannot be made ready is told again after this.
const TOLD_EVERY: Duration = Duration::from_hours(1);

/// That nothing gets on with what is made ready is told after this.
const STUCK: Duration = Duration::from_mins(15);

/// What a job asks for: another answer is needed once this is another.
pub(super) type Asked = (Vec<Input>, Option<Storage>);

/// What came of making a job's inputs ready.
#[derive(Clone, Debug)]
struct Outcome {
    asked: Asked,
    /// What was found of each, or what is wrong.
    found: Result<Vec<Option<Found>>, String>,
    /// When that was.
    at: Mono,
    /// How often in a row it failed.
    fails: u32,
    /// Whether the tick has told it.
    told: bool,
}

/// A file or a directory whose content was read.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) stamp: Sum,
    pub(super) sum: Sum,
    pub(super) bytes: u64,
}

/// How many bytes were sent, of how many.
pub(super) type Sent = (Arc<AtomicU64>, u64);

/// What the task does: for which job, in words, and how much of it is sent.
pub(super) type Doing = (JobName, String, Option<Sent>);

/// What the task and the ticks share. It is locked for moments only.
#[derive(Default)]
pub(super) struct Shared {
    outcomes: BTreeMap<JobName, Outcome>,
    pub(super) known: BTreeMap<PathBuf, Known>,
    pub(super) doing: Option<Doing>,
}

/// The task that makes the inputs of a job ready.
struct Task {
    handle: JoinHandle<()>,
    job: JobName,
    asked: Asked,
    /// Set when nobody wants it any more: what reads a large file looks at it.
    ends: Arc<AtomicBool>,
    /// Grows with whatever gets on.
    beats: Arc<AtomicU64>,
    /// How far it was when it last got on, and when that was.
    seen: (u64, Mono),
    /// Whether it was told that it does not.
    told: bool,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.handle.abort();
    }
}

/// Makes inputs ready.
#[derive(Default)]
pub(super) struct Stager {
    shared: Arc<Mutex<Shared>>,
    task: Option<Task>,
    told: BTreeMap<JobName, Mono>,
    /// The upload that was told of last.
    announced: Option<(JobName, String)>,
}

impl Stager {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        locked(&self.shared)
    }

    /// What came of what a job asks for; `None`: nothing yet.
    fn outcome(&self, job: &JobName, asked: &Asked) -> Option<Outcome> {
        let shared = self.shared();
        let outcome = shared.outcomes.get(job);
        outcome.filter(|outcome| outcome.asked == *asked).cloned()
    }

    /// What a job waits for, in words, while it is not ready.
    fn words(&self, job: &JobName) -> String {
        match &self.shared().doing {
            Some((doing, what, sent)) if doing == job => match sent {
                Some((sent, of)) => {
                    let sent = sent.load(Ordering::Relaxed);
                    format!("{what}, {} of {}", size(sent), size(*of))
                }
                None => what.clone(),
            },
            Some((other, ..)) => format!("those of {other} are made ready first"),
            None => "they are looked at".to_owned(),
        }
    }
}

pub(super) fn locked(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What of a job has to be made ready; `None`: nothing has to be.
fn asked(job: &Job) -> Option<Asked> {
    let runner = job.run.runner.as_deref()?;
    let mut all = runner.inputs.clone();
    let is_address = |input: &Input| matches!(input.from, Source::Address(_));
    if all.iter().all(is_address) {
        return None;
    }
    for input in &mut all {
        input.found = None;
    }
    Some((all, runner.storage.clone()))
}

impl Daemon {
    /// What is ready, or what is waited for, as the jobs of a tick have it.
    pub(super) fn fill_inputs(&self, jobs: &mut [Arc<Job>]) {
        if !self.settings.live {
            return;
        }
        for job in jobs {
            let Some(asked) = asked(job) else {
                continue;
            };
            let outcome = self.stager.outcome(&job.name, &asked);
            let waits = match outcome.as_ref().map(|outcome| &outcome.found) {
                Some(Ok(_)) => None,
                Some(Err(why)) => Some(why.clone()),
                None => Some(self.stager.words(&job.name)),
            };
            let Some(runner) = Arc::make_mut(job).run.runner.as_mut() else {
                continue;
            };
            runner.inputs_wait = waits;
            let found = outcome.and_then(|outcome| outcome.found.ok());
            for (input, found) in runner.inputs.iter_mut().zip(found.into_iter().flatten()) {
                input.found = found;
            }
            let lacks = no_room(job);
            let Some(runner) = Arc::make_mut(job).run.runner.as_mut() else {
                continue;
            };
            runner.inputs_wait = runner.inputs_wait.take().or(lacks);
        }
    }

    /// Begins on what is not ready, and tells what cannot be. It asks nobody and reads no file.
    pub(super) fn prepare_inputs(&mut self, jobs: &Jobs) -> Result<(), DaemonError> {
        if !self.settings.live {
            return Ok(());
        }
        let mono = self.parts.clock.monotonic();
        self.tell_upload()?;
        self.watch_inputs(jobs, mono)?;
        let known = |name: &JobName| jobs.known(name).is_some();
        self.stager.shared().outcomes.retain(|name, _| known(name));
        let mut due = None;
        for job in &jobs.valid {
            let Some(asked) = asked(job) else {
                continue;
            };
            if says_changed(&self.state, &job.name) {
                self.stager.shared().outcomes.remove(&job.name);
            }
            let need = need(&self.state, job);
            if need == Need::None {
                continue;
            }
            let outcome = self.stager.outcome(&job.name, &asked);
            let why = match outcome.as_ref().map(|outcome| &outcome.found) {
                Some(Err(why)) => Some(why.clone()),
                Some(Ok(_)) => no_room(job),
                None => None,
            };
            if let Some(why) = why {
                self.tell_inputs(&job.name, &why, mono)?;
            }
            // What is at work is not brought again with each change.
            if need == Need::Once && outcome.as_ref().is_some_and(|known| known.found.is_ok()) {
                continue;
            }
            // Those first that were not looked at for longest: one that is looked at again and again keeps no
            // other from its turn.
            let at = outcome.as_ref().map(|outcome| outcome.at);
            let is_first = due.as_ref().is_none_or(|(_, _, first)| at < *first);
            if is_first && outcome.is_none_or(|outcome| is_due(&outcome, mono)) {
                due = Some((job.name.clone(), asked, at));
            }
        }
        if let Some((job, asked, _)) = due {
            self.begin_on_inputs(job, asked, mono);
        }
        Ok(())
    }

    /// Ends what nobody needs any more, and tells of what does not get on.
    fn watch_inputs(&mut self, jobs: &Jobs, mono: Mono) -> Result<(), DaemonError> {
        let Some(task) = self.stager.task.as_ref() else {
            return Ok(());
        };
        let is_it = |job: &&Arc<Job>| job.name == task.job;
        let job = jobs.valid.iter().find(is_it);
        let is_needed = job.is_some_and(|job| {
            asked(job).as_ref() == Some(&task.asked) && need(&self.state, job) != Need::None
        });
        if task.handle.is_finished() {
            return Ok(());
        }
        if !is_needed {
            tracing::info!("the inputs of {} are not needed any more", task.job);
            self.stager.task = None;
            self.stager.shared().doing = None;
            return Ok(());
        }
        let sent = match &self.stager.shared().doing {
            Some((_, _, Some((sent, _)))) => sent.load(Ordering::Relaxed),
            _ => 0,
        };
        let far = task.beats.load(Ordering::Relaxed).saturating_add(sent);
        let words = self.stager.words(&task.job);
        let Some(task) = self.stager.task.as_mut() else {
            return Ok(());
        };
        if task.seen.0 != far {
            (task.seen, task.told) = ((far, mono), false);
            return Ok(());
        }
        if task.told || mono.since(task.seen.1) < STUCK {
            return Ok(());
        }
        task.told = true;
        let job = task.job.clone();
        let text = format!(
            "nothing is rented for {job}: its inputs do not get on for {} ({words}), and those of other jobs \
             wait for them: see whether what is read there and the storage can be reached, or `haggle pause \
             {job}`",
            human(STUCK)
        );
        let warning = self.warn(&not_ready(&job), text, None);
        self.commit(&[warning])
    }

    /// Tells of an upload that was begun, once.
    fn tell_upload(&mut self) -> Result<(), DaemonError> {
        let doing = match &self.stager.shared().doing {
            Some((job, what, Some((_, bytes)))) => Some((job.clone(), what.clone(), *bytes)),
            _ => None,
        };
        let Some((job, what, bytes)) = doing else {
            return Ok(());
        };
        let announced = (job.clone(), what.clone());
        if self.stager.announced.as_ref() == Some(&announced) {
            return Ok(());
        }
        self.stager.announced = Some(announced);
        let text = format!(
            "{what} to the storage of {job} ({}): what is not there yet keeps it from being rented",
            size(bytes)
        );
        let told = Change::Event(Event {
            at: self.now(),
            severity: Severity::Info,
            kind: "inputs-uploading".to_owned(),
            replica: None,
            instance: None,
            text,
        });
        self.commit(&[told])
    }

    /// Tells that inputs cannot be made ready: once each time, and not oftener than once in an hour.
    fn tell_inputs(&mut self, job: &JobName, why: &str, mono: Mono) -> Result<(), DaemonError> {
        let mut shared = self.stager.shared();
        let Some(outcome) = shared.outcomes.get_mut(job).filter(|outcome| !outcome.told) else {
            return Ok(());
        };
        outcome.told = true;
        let (first, fails) = (outcome.fails == 1, outcome.fails);
        drop(shared);
        tracing::warn!(fails, "the inputs of {job} are not ready: {why}");
        let before = self.stager.told.get(job);
        if !first && before.is_some_and(|at| mono.since(*at) < TOLD_EVERY) {
            return Ok(());
        }
        self.stager.told.insert(job.clone(), mono);
        let text = format!("nothing is rented for {job}: its inputs are not ready: {why}");
        let warning = self.warn(&not_ready(job), text, None);
        self.commit(&[warning])
    }

    /// Begins on the inputs of a job, unless those of one are being made ready.
    fn begin_on_inputs(&mut self, job: JobName, asked: Asked, mono: Mono) {
        let busy = self.stager.task.as_ref();
        if busy.is_some_and(|task| !task.handle.is_finished()) {
            return;
        }
        let fails = self
            .stager
            .shared()
            .outcomes
            .get(&job)
            .map_or(0, |before| before.fails);
        let objects = match &asked.1 {
            Some(storage) => self.objects_without_haste(storage),
            None => Err("the job has no [data.storage]".to_owned()),
        };
        let work = Work {
            job: job.clone(),
            asked: asked.clone(),
            shared: Arc::clone(&self.stager.shared),
            clock: Arc::clone(&self.parts.clock),
            ends: Arc::default(),
            beats: Arc::default(),
        };
        let (ends, beats) = (Arc::clone(&work.ends), Arc::clone(&work.beats));
        let handle = tokio::spawn(async move {
            let found = match objects {
                Ok(objects) => work.all(&objects).await,
                Err(why) => Err(why),
            };
            let fails = if found.is_ok() {
                0
            } else {
                fails.saturating_add(1)
            };
            let mut shared = locked(&work.shared);
            shared.doing = None;
            let outcome = Outcome {
                asked: work.asked,
                found,
                at: mono.max(work.clock.monotonic()),
                fails,
                told: false,
            };
            shared.outcomes.insert(work.job, outcome);
        });
        self.stager.task = Some(Task {
            handle,
            job,
            asked,
            ends,
            beats,
            seen: (0, mono),
            told: false,
        });
    }

    /// Whether what runs well is left as it was chosen: only where its job could begin anew at once. What
    /// is at work is not looked at all the time, and so its inputs may have changed.
    pub(super) async fn may_leave(&self, action: &Action, world: &World) -> bool {
        if !matches!(action.why, Why::CheaperElsewhere | Why::Deadline) {
            return true;
        }
        let instance = action.effect.instance();
        let Some(held) = instance.and_then(|id| self.state.held.get(&id)) else {
            return true;
        };
        let mut jobs = world.jobs.iter();
        match jobs.find(|job| job.name == held.replica.job) {
            Some(job) => self.inputs_stand(job).await,
            None => true,
        }
    }

    /// Whether all of a job's inputs are ready for a rental: those that lie here are looked at once more,
    /// for they may have changed since a moment ago.
    pub(super) async fn inputs_stand(&self, job: &Job) -> bool {
        let runner = job.run.runner.as_deref();
        let inputs = runner.map_or(&[][..], |runner| &runner.inputs);
        let mut looks = Vec::new();
        for input in inputs {
            let Source::Path(path) = &input.from else {
                continue;
            };
            let known = self.stager.shared().known.get(path).cloned();
            let found = input.found.as_ref().map(|found| found.mark.clone());
            let Some(known) = known.filter(|known| Some(known.sum.to_string()) == found) else {
                return false;
            };
            looks.push((path.clone(), known.stamp));
        }
        if looks.is_empty() {
            return true;
        }
        match are_the_same(looks).await {
            Some(true) => return true,
            Some(false) => tracing::info!("the inputs of {} have changed", job.name),
            None => tracing::warn!("the disk with the inputs of {} does not answer", job.name),
        }
        // They are brought anew.
        self.stager.shared().outcomes.remove(&job.name);
        false
    }
}

/// The kind of the event that a job's inputs are not ready: one that stands for each job.
fn not_ready(job: &JobName) -> String {
    format!("inputs-not-ready-{job}")
}

/// Whether it is to be looked at again.
fn is_due(outcome: &Outcome, mono: Mono) -> bool {
    let after = if outcome.found.is_ok() {
        AGAIN
    } else {
        let doubled = 1 << outcome.fails.saturating_sub(1).min(16);
        RETRY.0.saturating_mul(doubled).min(RETRY.1)
    };
    mono.since(outcome.at) >= after
}
