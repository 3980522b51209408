//! GPUs that are paid for and not used: told after a while, and begun anew where the policy says so.
//!
//! A reading that is missing says nothing, a time without readings is not idle, and neither is a run
//! whose command gets on.

use std::time::Duration;

use crate::types::instance::{Held, Instance, Phase};
use crate::types::job::{Finish, Job};
use crate::types::start::{GpuUse, Stood};
use crate::types::state::{Severity, State};
use crate::types::time::{Time, human, millis};

use super::observe::Fold;

/// A GPU that is used less than this, in percent, is idle.
const IDLE_UNDER: f32 = 5.0;

/// That they are idle is told after so long, or after half of the time for which it ends a run.
const TOLD_AFTER: Duration = Duration::from_mins(20);

/// It takes so many readings to say that they are idle.
const READINGS: u32 = 5;

/// The time for which idle GPUs end a run, where they do: a service may have nothing to do.
fn ends_after(job: &Job) -> Option<Duration> {
    job.idle_after.filter(|_| job.finish != Finish::Never)
}

/// What all GPUs together are used less than where each of them may be idle, in percent: the marketplace
/// shows one number for them, which may be their mean.
fn idle_under(gpus: u32) -> f32 {
    IDLE_UNDER / gpus.max(1) as f32
}

/// Whether a run counts as one that does something: where idle GPUs end it, it has lasted for longer than
/// they would have let it, and they are not idle now. One that loads its model and hangs then does not.
pub(crate) fn is_at_work(job: &Job, held: &Held) -> bool {
    let seen = &held.gpu_use;
    ends_after(job)
        .is_none_or(|after| !seen.over && seen.idle.is_none() && held.run_ms > millis(after))
}

impl GpuUse {
    /// Takes up that they are hardly used.
    fn is_idle(&mut self, now: Time, gap_max: Duration) {
        let stood = match self.idle {
            Some(stood) => stood.again(now, gap_max),
            None => Stood::first(now),
        };
        self.told &= stood.readings > 1;
        self.idle = Some(stood);
    }

    /// Whether every reading has said so for a time, often enough.
    fn lasted(&self, after: Duration) -> bool {
        self.idle
            .is_some_and(|idle| idle.readings >= READINGS && idle.lasted() >= after)
    }
}

/// Whether a run is over for its replica: what waits to be fetched uses no GPU.
fn has_ended(state: &State, held: &Held) -> bool {
    let runner = held.runner.as_ref();
    let judged = runner.is_some_and(|view| view.verdict.is_some() || view.exit.is_some());
    judged || state.replica(&held.replica).ending.is_some()
}

/// Whether its runner tells of something that uses no GPU, or of progress since the last reading.
fn gets_on(held: &Held) -> bool {
    let Some(view) = &held.runner else {
        return false;
    };
    let last = held.gpu_use.idle.map(|idle| idle.read_at);
    let news = view
        .progress_at
        .zip(last)
        .is_some_and(|(at, last)| at >= last);
    news || view
        .state
        .as_deref()
        .is_some_and(|state| state != "running")
}

impl Fold<'_> {
    /// Takes up how much the GPUs of an instance are used.
    pub(crate) fn watch_gpus(&mut self, held: &mut Held, row: &Instance) {
        match held.phase {
            Phase::Running => {}
            Phase::Unclear => return,
            Phase::Provisioning | Phase::Stopped | Phase::Exited | Phase::Offline => {
                held.gpu_use = GpuUse::default();
                return;
            }
        }
        let (Some(job), Some(percent)) = (self.job(&held.replica.job), row.gpu_util) else {
            return;
        };
        let leaves = held.destroying.is_some() || held.stop_asked || held.gpu_use.over;
        // What waits for its checkpoint has nothing to use them for.
        let leaves = leaves || held.is_behind_gate();
        if leaves || has_ended(&self.draft.state, held) {
            return;
        }
        if percent >= idle_under(held.slot.gpus) {
            held.gpu_use = GpuUse {
                worked: true,
                ..GpuUse::default()
            };
            return;
        }
        let boots = self.seen.now < held.phase_since + job.boot_overhead;
        if boots || gets_on(held) {
            held.gpu_use.idle = None;
            return;
        }
        held.gpu_use.is_idle(self.seen.now, self.gap_max());
        self.judge_idle(held, &job);
    }

    fn judge_idle(&mut self, held: &mut Held, job: &Job) {
        let after = ends_after(job);
        let told_after = after.map_or(TOLD_AFTER, |after| TOLD_AFTER.min(after / 2));
        if !held.gpu_use.told && held.gpu_use.lasted(told_after) {
            held.gpu_use.told = true;
            self.tell_idle(held, job);
        }
        if after.is_some_and(|after| held.gpu_use.lasted(after)) {
            held.gpu_use.over = true;
            self.interrupted(held);
            let how = format!("its GPUs were used {}", hardly(held));
            self.failed(held, job, &how);
        }
    }

    fn tell_idle(&mut self, held: &Held, job: &Job) {
        let then = match ends_after(job) {
            Some(after) => format!("it is begun anew after {}", human(after)),
            None if job.finish == Finish::Never => "a service is left to wait for work".to_owned(),
            None => "`idle_after` in [run] would end that".to_owned(),
        };
        let text = format!(
            "the GPUs of instance {} are used {}, at {:.4}/h; {then}",
            held.id,
            hardly(held),
            held.price
        );
        self.tell(Severity::Warning, "gpu-idle", held, text);
    }
}

/// How little they are used, and for how long.
fn hardly(held: &Held) -> String {
    let lasted = held.gpu_use.idle.map(|idle| idle.lasted());
    let (gpus, lasted) = (held.slot.gpus, human(lasted.unwrap_or_default()));
    let under = (idle_under(gpus) * 1000.0).round() / 1000.0;
    let mean = if gpus > 1 { " on average" } else { "" };
    format!("less than {under} %{mean} for {lasted}")
}

#[cfg(test)]
#[path = "idle_tests.rs"]
mod tests;
