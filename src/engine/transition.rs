//! What a change of an instance's state means: for its replica, its machine, and the story.

use std::time::Duration;

use crate::types::ids::MachineId;
use crate::types::instance::{DestroyWhy, Held, Phase, Rental, RunnerView};
use crate::types::intent::{Effect, Intent, IntentState};
use crate::types::job::{Finish, Job};
use crate::types::ledger::{Component, EntryKind, Line, month_of};
use crate::types::money::{BID_PARKED, Money, Rate};
use crate::types::start::StartFault;
use crate::types::state::{Ending, Severity};
use crate::types::time::{Time, human, millis};

use super::accrue::{Before, Sight, lose_disk, lose_volatile, work_cost};
use super::act::given_up;
use super::budget::unbilled_traffic;
use super::ladder::names_fault;
use super::observe::Fold;
use super::outbid::{takes_effect, waited_for};
use super::track::Ill;

/// A wait that doubles with each failure in a row, to a longest.
pub(crate) fn backoff(first: Duration, longest: Duration, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    first.saturating_mul(1 << doublings).min(longest)
}

pub(super) fn hours(gpu_ms: i64) -> f64 {
    gpu_ms as f64 / 3_600_000.0
}

/// An instance that was not seen for so long before it stood still may have worked meanwhile, so its
/// disk may hold work.
pub(crate) const UNSEEN_WORK_AFTER: Duration = Duration::from_mins(5);

/// What a failure speaks against.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The machine, and its host.
    Machine,
    /// The machine or the job: what ended within seconds.
    Either,
}

/// What was outbid has won its slot back and comes up again: that it was waited for long enough is over.
fn comes_back(held: &mut Held) {
    let replaced = held.runner.as_ref().is_some_and(RunnerView::is_replaced);
    if !held.stop_asked && !replaced && given_up(held) {
        held.bid_before_park = None;
    }
}

impl Fold<'_> {
    /// Takes up that an instance went from one state to another; `ran_ms` is how long at most it
    /// had run without a break.
    pub(crate) fn transition(&mut self, held: &mut Held, before: Phase, ran_ms: i64) {
        let now = self.seen.now;
        let since = held.phase_since;
        if held.phase != before {
            held.phase_since = now;
        }
        let stands = matches!(held.phase, Phase::Exited | Phase::Stopped | Phase::Offline);
        let came_up = matches!(before, Phase::Provisioning | Phase::Unclear);
        if (before, held.phase) == (Phase::Stopped, Phase::Provisioning) {
            comes_back(held);
        }
        let seen = self.seen.ran.contains(&held.id);
        if stands && (seen || (came_up && ran_ms >= millis(UNSEEN_WORK_AFTER))) {
            held.first_ran_at.get_or_insert(now);
        }
        match (before, held.phase) {
            (before, after) if before == after => {}
            (Phase::Unclear, Phase::Running) if held.run_ms > 0 => {}
            (_, Phase::Running) => self.started(held, before, since),
            // Nothing is known of it; what it was doing may go on.
            (_, Phase::Unclear) => {}
            (_, Phase::Exited) => self.exited(held, ran_ms),
            (Phase::Running | Phase::Unclear, Phase::Stopped) => self.stopped(held),
            (Phase::Running | Phase::Unclear, _) => {
                let lost = self.interrupted(held);
                if held.phase == Phase::Offline {
                    self.blame_for_work(held, lost);
                    self.befell(held, Ill::HostLost);
                }
            }
            _ => {}
        }
        if held.phase == Phase::Offline && before != Phase::Offline {
            let text = format!("the host of instance {} is not heard from", held.id);
            self.tell(Severity::Warning, "offline", held, text);
        }
        self.finish_when_done(held);
    }

    /// What waits with its bid standing may win its slot, work, and lose it again, while nobody looks.
    pub(crate) fn may_have_worked(&self, held: &mut Held, before: Phase, unseen_ms: i64) {
        let could = !held.parked && !held.stop_asked && held.price > BID_PARKED;
        let lay = before == Phase::Stopped && held.phase == Phase::Stopped && could;
        if lay && unseen_ms >= millis(UNSEEN_WORK_AFTER) {
            held.first_ran_at.get_or_insert(self.seen.now);
        }
    }

    /// Marks an instance that was waited for long enough: there is no bid to bring it back to, so
    /// once it is parked it is left for another.
    pub(super) fn give_up_waiting(&self, held: &mut Held) {
        let Some(job) = self.job(&held.replica.job) else {
            return;
        };
        let patience = match held.phase {
            Phase::Stopped if !held.stop_asked => waited_for(&job, held),
            Phase::Provisioning if held.first_ran_at.is_some() => job.provision_timeout,
            _ => return,
        };
        let raised = held.phase == Phase::Stopped && takes_effect(held, self.seen.now);
        if self.seen.now >= held.phase_since + patience && !raised {
            held.bid_before_park = Some(Rate::ZERO);
        }
    }

    fn started(&mut self, held: &mut Held, before: Phase, since: Time) {
        let now = self.seen.now;
        held.run_ms = 0;
        let was_outbid = held.outbid_at.take().is_some();
        if held.first_ran_at.is_none() {
            held.first_ran_at = Some(now);
            let image = held.asked.as_ref().map(|asked| asked.image.as_str());
            let took = now.ms_since(held.created_at);
            let limit = self.job(&held.replica.job).map(|job| job.provision_timeout);
            let in_time = limit.is_some_and(|limit| took <= millis(limit));
            // Later than a start may take it was not looked at, or stopped before.
            let boot = (before == Phase::Provisioning && in_time).then_some(took);
            self.machine_of(held, |record| record.past.came_up(image, boot));
            self.start_succeeded(held);
            let took = human(now.since(held.created_at));
            let text = format!(
                "running on machine {} ({} x {}), {took} after it was rented",
                held.slot.machine, held.slot.gpus, held.gpu_name
            );
            self.tell(Severity::Info, "running", held, text);
            self.passes_over(held);
            if held.bringing.is_none() {
                self.leave_old_disk(held);
            }
        } else if before == Phase::Stopped {
            if was_outbid {
                self.recovered(held, since);
            }
            let text = format!("instance {} runs again", held.id);
            self.tell(Severity::Info, "resumed", held, text);
        }
    }

    /// Work on another instance's disk does not help this one: it begins anew.
    pub(crate) fn leave_old_disk(&mut self, held: &Held) {
        let Some(job) = self.job(&held.replica.job) else {
            return;
        };
        let mut replica = self.draft.state.replica(&held.replica);
        let lost = lose_disk(&job, &mut replica);
        if lost > 0 {
            self.count_lost(held, lost);
            for other in self.draft.state.held.values_mut() {
                if other.replica == held.replica {
                    other.kept_gpu_ms = 0;
                }
            }
            self.draft
                .state
                .replicas
                .insert(replica.id.clone(), replica);
            let text = format!(
                "{:.2} GPU-hours of work are on another machine's disk; the work begins anew",
                hours(lost)
            );
            self.tell(Severity::Warning, "work-lost", held, text);
        }
    }

    /// A run was broken. Returns the useful GPU-milliseconds that it cost.
    pub(crate) fn interrupted(&mut self, held: &mut Held) -> i64 {
        let mut replica = self.draft.state.replica(&held.replica);
        let lost = lose_volatile(held, &mut replica);
        self.draft
            .state
            .replicas
            .insert(replica.id.clone(), replica);
        self.count_lost(held, lost);
        lost
    }

    /// Counts useful work as lost in this month.
    pub(super) fn count_lost(&mut self, held: &Held, gpu_ms: i64) {
        if gpu_ms > 0 {
            let day = self.seen.now.day(self.config.timezone);
            let mut record = self.draft.state.job(&held.replica.job);
            record.month_of(day).lost_gpu_ms += gpu_ms;
            self.draft.state.jobs.insert(record.name.clone(), record);
        }
    }

    /// Holds what lost work cost against the host of an instance.
    fn blame_for_work(&self, held: &mut Held, gpu_ms: i64) {
        let Some(job) = self.job(&held.replica.job) else {
            return;
        };
        let cost = work_cost(&job, held, gpu_ms);
        if cost > Money::ZERO {
            let month = month_of(self.seen.now.day(self.config.timezone));
            *held.lost_work.entry(month).or_default() += cost;
        }
    }

    fn stopped(&mut self, held: &mut Held) {
        // What it has done may be all of its share: that is looked at before anything is lost.
        self.finish_when_done(held);
        let lost = self.interrupted(held);
        let after = format!(
            "{:.2} GPU-hours since the last checkpoint lost",
            hours(lost)
        );
        let ended = held.ends_at.is_some_and(|ends| ends <= self.seen.now);
        if held.stop_asked {
            let text = format!("instance {} stopped as asked; {after}", held.id);
            self.tell(Severity::Info, "stopped", held, text);
        } else if ended {
            let text = format!("the rental of instance {} ended; {after}", held.id);
            self.tell(Severity::Warning, "rental-ended", held, text);
        } else if held.bids_nothing() {
            // No rival has to bid more than that, and it was not we who bid so little.
            let text = format!(
                "instance {} was parked by the guard or by somebody else: its bid was set to {:.4}/h, \
                 nobody outbid it; {after}",
                held.id, held.price
            );
            self.tell(Severity::Warning, "parked-by-others", held, text);
        } else if held.rental == Rental::Bid {
            held.outbid_at = Some(self.seen.now);
            let mut replica = self.draft.state.replica(&held.replica);
            replica.outbids += 1;
            self.draft
                .state
                .replicas
                .insert(replica.id.clone(), replica);
            self.befell(held, Ill::Outbid);
            let text = format!(
                "outbid on machine {} at {:.4}/h; {after}",
                held.slot.machine, held.price
            );
            self.tell(Severity::Info, "outbid", held, text);
        } else {
            let text = format!(
                "instance {} was stopped by somebody else (the host, or credit ran out); {after}",
                held.id
            );
            self.tell(Severity::Warning, "stopped-by-others", held, text);
        }
    }

    /// The container ended while its contract runs on: the end of the work, or a failure.
    pub(crate) fn exited(&mut self, held: &mut Held, ran_ms: i64) {
        self.finish_when_done(held);
        if names_fault(held) {
            // It never began: that is judged as a start.
            held.run_ms = 0;
            return;
        }
        if held.is_behind_gate() {
            // The command has not begun: that says nothing of the job, and the next machine may do the same.
            self.blame(held, Whose::Machine);
            if let Some(job) = self.job(&held.replica.job) {
                self.waits(held, &job);
            }
            held.run_ms = 0;
            return;
        }
        let job = self.job(&held.replica.job);
        let ended = self.draft.state.replica(&held.replica).ending.is_some();
        if let (Some(job), false) = (&job, ended || held.destroying.is_some()) {
            let long_enough = ran_ms >= millis(job.min_run);
            // A container with a runner goes on after its command; that it ends says nothing good.
            let view = held.runner.as_ref();
            let told = |view: &RunnerView| view.has_ended() && view.exit == Some(0);
            let done = view.map_or(long_enough, told);
            // However much its work was said to be: a command that has ended has nothing left to do.
            let ends =
                job.finish == Finish::Exit || (view.is_some() && job.finish != Finish::Never);
            let judged = view.is_some_and(|view| view.verdict.is_some()) || held.gpu_use.over;
            if ends && done && !judged {
                self.outputs(held);
                self.finished(held, "its container ended");
            } else if judged {
                // It was judged before, and is not to be counted twice.
                self.interrupted(held);
            } else {
                self.interrupted(held);
                let ran = human(Duration::from_millis(u64::try_from(ran_ms).unwrap_or(0)));
                self.failed(
                    held,
                    job,
                    &format!("its container ended after {ran} at most"),
                );
                if !long_enough {
                    self.blame(held, Whose::Either);
                }
            }
        }
        held.run_ms = 0;
    }

    /// A share of work that is done ends its replica.
    fn finish_when_done(&mut self, held: &Held) {
        let Some(job) = self.job(&held.replica.job) else {
            return;
        };
        let replica = self.draft.state.replica(&held.replica);
        let done = job
            .work_share_gpu_ms()
            .is_some_and(|share| replica.done_gpu_ms() >= share);
        if job.finish == Finish::Work && replica.ending.is_none() && done {
            self.finished(held, "its work is done");
        }
    }

    pub(crate) fn finished(&mut self, held: &Held, how: &str) {
        let mut replica = self.draft.state.replica(&held.replica);
        replica.durable_gpu_ms += std::mem::take(&mut replica.volatile_gpu_ms);
        replica.ending = Some((Ending::Finished, self.seen.now));
        let text = format!(
            "finished: {how}; {:.2} useful GPU-hours done, {:.2} lost on the way",
            hours(replica.durable_gpu_ms),
            hours(replica.lost_gpu_ms)
        );
        self.draft
            .state
            .replicas
            .insert(replica.id.clone(), replica);
        self.tell(Severity::Info, "finished", held, text);
        self.gets_on(held);
    }

    /// Counts a failure: the replica waits, or has failed for good.
    pub(crate) fn failed(&mut self, held: &Held, job: &Job, how: &str) {
        let now = self.seen.now;
        let mut replica = self.draft.state.replica(&held.replica);
        if replica.ending.is_some() {
            return;
        }
        replica.failures += 1;
        let text = if replica.failures > job.retries.max {
            replica.ending = Some((Ending::Failed, now));
            format!(
                "failed for good: {how}, {} times in a row",
                replica.failures
            )
        } else {
            let wait = backoff(
                job.retries.backoff,
                job.retries.backoff_max,
                replica.failures,
            );
            replica.retry_at = Some(now + wait);
            format!("failed: {how}; tried again after {}", human(wait))
        };
        let severity = if replica.ending.is_some() {
            Severity::Alarm
        } else {
            Severity::Warning
        };
        self.draft
            .state
            .replicas
            .insert(replica.id.clone(), replica);
        self.tell(severity, "failed", held, text);
        self.sets_back(held, job);
    }

    /// A machine failed us: nothing is rented there for a while, longer each time.
    pub(crate) fn blame(&mut self, held: &Held, whose: Whose) {
        let (now, first, longest) = (
            self.seen.now,
            self.config.cooldown,
            self.config.cooldown_max,
        );
        let never_ran = held.first_ran_at.is_none();
        self.machine_of(held, |record| {
            record.past.failures = record.past.failures.saturating_add(1);
            let no_starts = record.past.no_starts.saturating_add(u32::from(never_ran));
            record.past.no_starts = no_starts;
            record.failures += 1;
            let until: Time = now + backoff(first, longest, record.failures);
            record.cool_until = record.cool_until.max(Some(until));
            if whose == Whose::Machine {
                record.failing_until = record.cool_until;
            }
        });
    }

    /// A machine served us well: earlier failures do not count any more.
    pub(crate) fn trust(&mut self, machine: MachineId) {
        if let Some(record) = self.draft.state.machines.get_mut(&machine) {
            record.failures = 0;
        }
    }

    /// An instance is proven gone: the last accrual, what became of requests on it, and what its
    /// end means where we did not destroy it.
    pub(crate) fn gone(&mut self, mut held: Held) {
        let now = self.seen.now;
        let before = Before::of(&held);
        // What was destroyed was not billed while its absence was being proven; where nobody
        // answered, it may have been.
        let destroyed = held.destroyed_at.filter(|_| held.destroying.is_some());
        let until = destroyed.map_or(now, |at| at.max(held.accrued_to).min(now));
        let sight = destroyed.map_or(Sight::Gone, |_| Sight::Answered);
        let (ran_ms, _) = self.account(&mut held, before, false, (sight, until));
        let at_work = matches!(before.phase, Phase::Running | Phase::Unclear);
        // Its echo may be seen for a while from now on, and not from when the moment was last written.
        self.remember_bid(&held, 0);
        self.draft.state.held.insert(held.id, held.clone());
        match held.destroying {
            None => {
                let job = self.job(&held.replica.job);
                let its_word = job.is_some_and(|job| job.finish == Finish::Gone);
                let ended = held.ends_at.is_some_and(|ends| ends <= now);
                if at_work && !its_word && !ended {
                    self.befell(&mut held, Ill::HostLost);
                }
                self.lost(&mut held, if at_work { ran_ms } else { 0 });
            }
            Some(why) => {
                // What was given up before was blamed then.
                let fails = matches!(why, DestroyWhy::ProvisionTimeout | DestroyWhy::HostLost);
                // Nor is it its machine's failure that a rival stopped it first.
                let outbid = why == DestroyWhy::ProvisionTimeout && held.phase == Phase::Stopped;
                if fails && held.start_fault.is_none() && !outbid {
                    self.blame(&held, Whose::Machine);
                }
                self.never_came_up(&held, why);
                let text = format!(
                    "instance {} is gone; it cost {:.4} in all",
                    held.id,
                    held.spent()
                );
                self.tell(Severity::Info, "destroyed", &held, text);
            }
        }
        self.expose(&mut held);
        let mut lost = self.interrupted(&mut held);
        lost += self.lose_with_disk(&held);
        if matches!(held.destroying, None | Some(DestroyWhy::HostLost)) {
            self.blame_for_work(&mut held, lost);
        }
        let about: Vec<Intent> = self
            .draft
            .state
            .intents
            .values()
            .filter(|intent| intent.effect.instance() == Some(held.id))
            .cloned()
            .collect();
        for intent in about {
            let to = match intent.effect {
                Effect::Destroy { .. } => IntentState::Done { instance: held.id },
                _ => IntentState::Void,
            };
            if matches!(intent.effect, Effect::Copy { .. }) {
                self.draft.state.held.insert(held.id, held.clone());
                self.post_copy(&intent);
                let posted = self.draft.state.held.get(&held.id).cloned();
                held = posted.unwrap_or(held);
            }
            self.draft.intent(self.config.timezone, now, &intent, to);
        }
        self.copied_in_vain(&held);
        self.keep_for_traffic(&mut held);
        self.draft.state.held.insert(held.id, held.clone());
        self.draft.gone(held.id, now);
    }

    /// Counts an instance that was given up for it did not come up in time.
    fn never_came_up(&mut self, held: &Held, why: DestroyWhy) {
        let job = self.job(&held.replica.job);
        // One that a rival stopped before it ran says nothing of its start, and one that was given up before
        // was counted then.
        let starts = matches!(held.phase, Phase::Provisioning | Phase::Exited);
        let too_late = why == DestroyWhy::ProvisionTimeout
            && held.first_ran_at.is_none()
            && held.start_fault.is_none()
            && starts;
        if let Some(job) = job.filter(|_| too_late) {
            self.counts_start(held, &job, StartFault::TimedOut);
        }
    }

    /// What traffic may still be billed for an instance that is gone is posted, and given back once
    /// its bill is whole: money that may be spent is not free before. What was never seen to run moved
    /// its image at most.
    fn keep_for_traffic(&mut self, held: &mut Held) {
        let job = self.job(&held.replica.job);
        let Some(job) = job.filter(|_| held.first_ran_at.is_some()) else {
            return;
        };
        let amount = unbilled_traffic(&job, held);
        held.spent_traffic = held.spent_traffic.saturating_add(amount);
        let line = Line {
            at: self.seen.now,
            kind: EntryKind::Correct,
            replica: held.replica.clone(),
            intent: held.intent,
            instance: Some(held.id),
            component: Some(Component::Traffic),
            amount,
        };
        self.draft.entry(self.config.timezone, line);
    }

    /// An instance went without our doing.
    fn lost(&mut self, held: &mut Held, ran_ms: i64) {
        let job = self.job(&held.replica.job);
        let ended = self.draft.state.replica(&held.replica).ending.is_some();
        let its_word = job
            .as_ref()
            .filter(|job| job.finish == Finish::Gone && held.first_ran_at.is_some() && !ended);
        if let Some(job) = its_word {
            if ran_ms >= millis(job.min_run) {
                self.finished(held, "its instance is gone");
            } else {
                self.failed(held, job, "its instance went too soon");
            }
            return;
        }
        self.blame(held, Whose::Machine);
        if held.first_ran_at.is_some() {
            let mut replica = self.draft.state.replica(&held.replica);
            replica.outbids += 1;
            self.draft
                .state
                .replicas
                .insert(replica.id.clone(), replica);
        }
        let text = format!(
            "instance {} on machine {} is gone without our doing",
            held.id, held.slot.machine
        );
        self.tell(Severity::Warning, "lost", held, text);
    }

    /// The checkpoints on a disk go with it, where no newer instance has begun anew already. Returns
    /// the useful GPU-milliseconds that it cost.
    fn lose_with_disk(&mut self, held: &Held) -> i64 {
        let newer = self
            .draft
            .state
            .held_by(&held.replica)
            .any(|other| other.generation > held.generation && other.first_ran_at.is_some());
        let mut replica = self.draft.state.replica(&held.replica);
        // Behind its gate there is nothing of its own.
        let idle = held.first_ran_at.is_none() || held.is_behind_gate();
        if newer || idle || replica.ending.is_some() {
            return 0;
        }
        let Some(job) = self.job(&held.replica.job) else {
            return 0;
        };
        let lost = lose_disk(&job, &mut replica);
        if lost > 0 {
            self.count_lost(held, lost);
            self.draft
                .state
                .replicas
                .insert(replica.id.clone(), replica);
        }
        lost
    }
}
