//! What is heard of a checkpoint on its way from another disk, and what follows where it does not come.
//!
//! That it came is the word of the machine that it came to. It counts once the marketplace has answered
//! that it copies, and the old disk is let go by it only where the manifest is the one that the other run
//! told of: a machine that got no copy cannot know that one's sum.

use std::time::Duration;

use crate::runner::Brought;
use crate::types::ids::InstanceId;
use crate::types::instance::{Bringing, Held, Phase, Rental, RunnerView, Verdict};
use crate::types::intent::{Effect, Intent};
use crate::types::job::Job;
use crate::types::ledger::{Component, EntryKind, Line};
use crate::types::money::Money;
use crate::types::state::Severity;
use crate::types::time::{Time, human};

use super::act::given_up;
use super::bring::{COPIES_MAX, LEFT_KEPT, REFUSED_MAX, is_too_late, latest, shares};
use super::observe::Fold;
use super::transition::{Whose, hours};

/// The manifest of the last checkpoint that a runner told of.
fn manifest(view: Option<&RunnerView>) -> Option<&String> {
    let (_, manifest, _) = view?.checkpoint.as_ref()?;
    Some(manifest)
}

/// What is said of a checkpoint on its way from another disk, and by one that goes on from it.
pub(super) fn is_brought(
    held: &mut Held,
    view: &RunnerView,
    (waits, told): (bool, Option<Brought>),
    at: Time,
) {
    let Some(bringing) = &mut held.bringing else {
        return;
    };
    let own = manifest(Some(view));
    if bringing.opened {
        let made = view.worked && own.is_some() && own != bringing.own.as_ref();
        if made {
            bringing.kept_at.get_or_insert(at);
        }
        return;
    }
    if waits {
        bringing.ready_at.get_or_insert(at);
    }
    if let Some(told) = told.filter(|told| told.run == bringing.run.to_string()) {
        bringing.told.get_or_insert(told.manifest);
        bringing.own = own.cloned();
    }
}

impl Fold<'_> {
    /// Takes up that the marketplace has taken the copy up of which a runner says that it came.
    pub(super) fn confirms(&mut self, held: &mut Held) {
        let id = held.id;
        let Some(bringing) = &mut held.bringing else {
            return;
        };
        let Some(told) = bringing.told.clone().filter(|_| !bringing.anew) else {
            return;
        };
        let old = self.draft.state.held.get(&bringing.from);
        // Its log may be read once more after that.
        bringing.as_told |= manifest(old.and_then(|old| old.runner.as_ref())) == Some(&told);
        if bringing.verified.is_some() || bringing.accepted_at.is_none() {
            return;
        }
        bringing.verified = Some(told);
        if let Some(old) = self.draft.state.held.get_mut(&bringing.from) {
            old.copies_failed = 0;
        }
        let (from, as_told) = (bringing.from, bringing.as_told);
        let text = format!(
            "the checkpoint on the disk of instance {from} is on that of instance {id}, and as it should be"
        );
        self.tell(Severity::Info, "brought", held, text);
        if !as_told {
            let text = format!(
                "instance {id} goes on with another checkpoint than the last that was heard of from \
                 instance {from}; that one's disk is kept until {} after it has kept a checkpoint of its \
                 own",
                human(LEFT_KEPT)
            );
            self.tell(Severity::Warning, "brought-unknown", held, text);
        }
    }

    /// Whether the disk is there that has the checkpoint that an instance waits for.
    fn has_old(&self, bringing: &Bringing) -> bool {
        self.draft.state.held.contains_key(&bringing.from)
    }

    /// Judges one that waits behind its gate, whether anything is heard of it or not: it is billed.
    pub(super) fn judge_bringing(&mut self, held: &mut Held) {
        let waiting = held
            .bringing
            .as_ref()
            .filter(|bringing| !bringing.opened && !bringing.anew && bringing.verified.is_none());
        let judged = held.runner.as_ref().is_none_or(|v| v.verdict.is_some());
        // What no row says anything of may be billed, too.
        let up = matches!(held.phase, Phase::Running | Phase::Unclear);
        let stands = !up || held.destroying.is_some() || judged;
        let Some(bringing) = waiting.filter(|_| !stands).cloned() else {
            return;
        };
        if !self.has_old(&bringing) {
            // There is nothing to keep.
            self.begins_anew(held);
            return;
        }
        let job = self.job(&held.replica.job);
        let Some(job) = job.filter(|_| is_too_late(held, &bringing, self.seen.now)) else {
            return;
        };
        let times = self.copy_failed(&bringing);
        if job.restartable && times >= COPIES_MAX && !self.has_another(held, &job) {
            self.begins_anew(held);
        } else {
            self.not_brought(held, &job, &bringing, times);
        }
    }

    /// Whether another disk has what an instance behind its gate was to begin with.
    fn has_another(&self, held: &Held, job: &Job) -> bool {
        let all = self.draft.state.held_by(&held.replica);
        let mut others: Vec<&Held> = all.filter(|other| other.id != held.id).collect();
        others.sort_by_key(|other| std::cmp::Reverse((other.generation, other.intent, other.id)));
        latest(job, &others).is_some_and(|from| from.copies_failed < COPIES_MAX)
    }

    /// One is gone to which a copy was under way: the next is not made at once, for that one's copy is paid
    /// as well, and rivals may stop it as soon.
    pub(super) fn copied_in_vain(&mut self, held: &Held) {
        let waited = held.bringing.as_ref().is_some_and(|bringing| {
            let paid = bringing.accepted_at.is_some() || bringing.asks_unknown > 0;
            paid && !bringing.opened && !bringing.anew && bringing.verified.is_none()
        });
        let verdict = held.runner.as_ref().and_then(|view| view.verdict);
        if waited
            && verdict != Some(Verdict::NotBrought)
            && let Some(job) = self.job(&held.replica.job)
        {
            self.waits(held, &job);
        }
    }

    /// Counts that a copy from a disk did not come, where it was asked for: that a limit did not let it be is
    /// no failed copy. How often in a row.
    fn copy_failed(&mut self, bringing: &Bringing) -> u32 {
        let waited = bringing.accepted_at.is_some() || bringing.begun_at.is_some();
        let old = self.draft.state.held.get_mut(&bringing.from);
        old.map_or(0, |old| {
            old.copies_failed = old.copies_failed.saturating_add(u32::from(waited));
            old.copies_failed
        })
    }

    /// Its policy lets it begin again from nothing, and the old disk stays as it is; or that is gone.
    fn begins_anew(&mut self, held: &mut Held) {
        let Some(bringing) = &mut held.bringing else {
            return;
        };
        bringing.anew = true;
        let text = format!(
            "the checkpoint of instance {} did not come to instance {}, and it begins anew",
            bringing.from, held.id
        );
        self.tell(Severity::Warning, "not-brought", held, text);
        self.leave_old_disk(held);
    }

    /// It is given up, the old disk stays, and its instance may be brought back where it is.
    fn not_brought(&mut self, held: &mut Held, job: &Job, bringing: &Bringing, times: u32) {
        let from = bringing.from;
        if let Some(view) = &mut held.runner {
            view.verdict = Some(Verdict::NotBrought);
        }
        // That nothing was on its way to it is no machine's fault, and where copies to two machines fail it
        // is rather the disk that they come from.
        let came_short = bringing.ready_at.is_none() || bringing.accepted_at.is_some();
        if came_short && times <= 1 {
            self.blame(held, Whose::Machine);
        }
        let why = why_not(held, bringing);
        let mut text = format!(
            "the checkpoint of instance {from} did not come to instance {}, which is given up: {why}; the \
             old disk is kept",
            held.id
        );
        let severity = if times < COPIES_MAX {
            Severity::Warning
        } else {
            text.push_str(&format!(
                ", and after {times} times nothing is copied from it any more: `haggle resume {}` tries \
                 again, `restartable = true` in the policy lets the work begin anew",
                job.name
            ));
            Severity::Alarm
        };
        self.tell(severity, "not-brought", held, text);
        self.waits(held, job);
        self.may_come_back(from);
    }

    /// One that was given up may be brought back where it is, at what was bid for it last.
    fn may_come_back(&mut self, from: InstanceId) {
        let state = &mut self.draft.state;
        let unfit = |old: &Held| old.runner.as_ref().is_some_and(RunnerView::is_replaced);
        let old = state.held.get_mut(&from);
        let Some(old) = old.filter(|old| given_up(old) && !unfit(old)) else {
            return;
        };
        old.bid_before_park = match old.rental {
            // Where that is not known it stays given up.
            Rental::Bid => old.last_bid.or(old.bid_before_park),
            Rental::OnDemand => None,
        };
    }

    /// Tells of what ran after the disk that an instance goes on from, and does not come with it: what those
    /// did is done again. `held` is about to begin.
    pub(super) fn passes_over(&mut self, held: &Held) {
        let from = held.bringing.as_ref().map(|bringing| bringing.from);
        let old = from.and_then(|from| self.draft.state.held.get(&from));
        let after = old.map(|old| old.generation);
        let is_passed = |other: &&Held| {
            let newer = after.is_none_or(|after| other.generation > after);
            let ran = other.first_ran_at.is_some() && !other.is_behind_gate();
            newer && ran && other.generation < held.generation && from != Some(other.id)
        };
        let all = self.draft.state.held_by(&held.replica);
        let passed: Vec<Held> = all.filter(is_passed).cloned().collect();
        let unread = |view: &RunnerView| view.read_at.is_none();
        let mut kept = 0;
        for other in &passed {
            kept += other.kept_gpu_ms;
            if other.runner.as_ref().is_some_and(unread) {
                let ran = Duration::from_millis(other.billed_ms.max(0).unsigned_abs());
                let text = format!(
                    "the log of instance {} could never be read while it ran for {}: whether its disk has a \
                     checkpoint is not known, and what it did is done again",
                    other.id,
                    human(ran)
                );
                self.tell(Severity::Warning, "work-unheard", other, text);
            }
        }
        if from.is_some() {
            self.loses(held, &passed, kept);
        }
    }

    /// Counts what was taken for kept on disks that are passed over.
    fn loses(&mut self, held: &Held, passed: &[Held], kept: i64) {
        let mut replica = self.draft.state.replica(&held.replica);
        let lost = kept.min(replica.durable_gpu_ms);
        if lost <= 0 {
            return;
        }
        replica.durable_gpu_ms -= lost;
        replica.lost_gpu_ms += lost;
        self.count_lost(held, lost);
        let state = &mut self.draft.state;
        state.replicas.insert(replica.id.clone(), replica);
        for other in passed {
            if let Some(other) = state.held.get_mut(&other.id) {
                other.kept_gpu_ms = 0;
            }
        }
        let text = format!(
            "{:.2} GPU-hours of work are on disks without a checkpoint that was heard of; they are done again",
            hours(lost)
        );
        self.tell(Severity::Warning, "work-lost", held, text);
    }

    /// Books what a copy may have cost that was, or may have been, made: no row shows it. It is given back
    /// where the bill says less.
    pub(super) fn post_copy(&mut self, intent: &Intent) {
        let Effect::Copy { instance, from } = intent.effect else {
            return;
        };
        let to = self.draft.state.held.get_mut(&instance);
        if let Some(bringing) = to.and_then(|to| to.bringing.as_mut()) {
            bringing.asks_unknown = bringing.asks_unknown.saturating_add(1);
        }
        let (up, down) = shares(self.draft.state.held.get(&from), intent.reserved);
        for (id, amount) in [(from, up), (instance, down)] {
            let Some(held) = self.draft.state.held.get_mut(&id) else {
                continue;
            };
            let line = booked(held, amount, self.seen.now);
            self.draft.entry(self.config.timezone, line);
        }
    }
}

/// Why a copy did not come, in words: the marketplace's, where it took none up.
fn why_not(held: &Held, bringing: &Bringing) -> String {
    let refused = bringing.refused_why.as_ref();
    let refused = refused.filter(|_| bringing.accepted_at.is_none());
    if let Some(words) = refused {
        return format!("the marketplace refuses to copy it ({words})");
    }
    let why = held.runner.as_ref().and_then(|view| view.why.clone());
    why.unwrap_or_else(|| "its runner does not say why".to_owned())
}

/// A definite answer that nothing is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// This copy was refused.
    This,
    /// The marketplace, or what stands before it, has no copies.
    Any,
}

/// Takes up that a copy was refused, and in which words. Where there are no copies at all, none is planned
/// from that disk any more.
pub(crate) fn refused(to: &mut Held, from: Option<&mut Held>, kind: Refusal, words: &str) {
    let Some(bringing) = &mut to.bringing else {
        return;
    };
    bringing.refused = bringing.refused.saturating_add(1);
    bringing.refused_why = Some(words.to_owned());
    if kind == Refusal::Any {
        bringing.refused = REFUSED_MAX;
        if let Some(from) = from {
            from.copies_failed = COPIES_MAX;
        }
    }
}

/// Adds a copy's traffic to what an instance cost; the line that says so.
pub(crate) fn booked(held: &mut Held, amount: Money, now: Time) -> Line {
    held.spent_traffic = held.spent_traffic.saturating_add(amount);
    held.copied = held.copied.saturating_add(amount);
    Line {
        at: now,
        kind: EntryKind::Correct,
        replica: held.replica.clone(),
        intent: held.intent,
        instance: Some(held.id),
        component: Some(Component::Traffic),
        amount,
    }
}
