//! What to do for one replica: a small state machine over its instances.
//!
//! Each instance gets at most one action a tick. A replacement is asked for only when no instance
//! of the replica can run any more by itself: each is parked, and that was read back, or gone.
//! A disk is given up only where it may be: its data is disposable or elsewhere, it never ran, the
//! user said so, or a limit forces it.

use std::time::Duration;

use crate::types::deadline::Stance;
use crate::types::ids::InstanceId;
use crate::types::instance::{DestroyWhy, Held, Phase, Verdict};
use crate::types::intent::Effect;
use crate::types::job::Job;
use crate::types::plan::{Action, Candidate, Limit, Missing, Notice, Situation, Why};
use crate::types::recourse::{Recourse, Turn};
use crate::types::state::{Ending, ReplicaRecord, Severity, Wish};
use crate::types::world::World;

use super::act::{
    at_rest, destroy, destroy_again, does_nothing, expendable, given_up, heard_out, lets_go, lower,
    overpriced, park, wound_down,
};
use super::back::{keep_running, rest_or_resume, spendable};
use super::bring::{COPIES_MAX, bring, holds_nothing, is_away, is_carried_on, leads, source};
use super::budget::{Purse, Saving};
use super::ladder::{cannot_start, failed_start, names_fault};
use super::means::can_move;
use super::outbid::stopped;
use super::risk::Risks;

/// Parked instances that a replica may leave behind; with more, it waits.
pub(super) const PARKED_MAX: usize = 2;

/// A replica is moved off a rental that ends within its patience, but no sooner than this.
const ENDING_LEAD_MAX: Duration = Duration::from_hours(2);
const ENDING_LEAD_MIN: Duration = Duration::from_mins(15);

/// Why what has ended by itself is begun anew.
const ENDED: (Why, DestroyWhy) = (Why::Ended, DestroyWhy::EndedTooSoon);

/// What one replica does in this tick.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) situation: Situation,
    /// Whether it needs an instance.
    pub(crate) wants: bool,
    /// The instance from whose disk it goes on.
    pub(crate) from: Option<InstanceId>,
    /// The slot that it needs, where it is that one or, once it cannot be had, any other.
    pub(crate) reclaims: Option<Candidate>,
    /// What is done about an outbid, step by step.
    pub(crate) recourses: Vec<(Recourse, Turn)>,
    pub(crate) actions: Vec<Action>,
    pub(crate) notices: Vec<Notice>,
}

/// What a replica's instances are decided in.
pub(crate) struct Ground<'a, 'p> {
    pub(crate) world: &'a World,
    pub(crate) job: &'a Job,
    pub(crate) record: ReplicaRecord,
    /// Its instances, newest generation first.
    pub(crate) held: Vec<&'a Held>,
    pub(crate) saving: &'a std::collections::BTreeMap<crate::types::ids::InstanceId, Saving>,
    /// What keeps anything new from being rented, if something does.
    pub(crate) blind: Option<Missing>,
    /// What is known of how slots are lost, made once for the tick.
    pub(crate) risks: &'p Risks<'p>,
    /// Slots that would take the job now, cheapest first.
    pub(crate) best: &'p [Candidate],
    /// Whether its newest instance is better left for another slot.
    pub(crate) cheaper: bool,
    /// Whether what its newest instance was outbid of is to be had elsewhere at no more.
    pub(crate) no_dearer: bool,
    /// What its deadline wishes for.
    pub(crate) stance: Stance,
    /// Whether what its deadline calls for could still be in time, begun anew.
    pub(crate) in_time: bool,
    /// Whether its deadline has it leave what it has at a bid.
    pub(crate) leaves: bool,
    /// What it waits for, where it is an element of an array that has no turn.
    pub(crate) queued: Option<Situation>,
    pub(crate) purse: &'p mut Purse<'a>,
}

/// What a replica should be doing.
enum Aim {
    Run,
    /// Keep the disks, nothing running.
    Rest(Why, Situation),
    /// Like rest, but what may be lost is destroyed, for it is cheaper.
    Close(Why, DestroyWhy, Situation),
    /// Nothing is kept.
    Clear(Why, DestroyWhy, Situation),
}

pub(crate) fn step(ground: &mut Ground<'_, '_>) -> Step {
    let mut step = Step {
        situation: Situation::NoOffer,
        wants: false,
        from: None,
        reclaims: None,
        recourses: Vec::new(),
        actions: Vec::new(),
        notices: Vec::new(),
    };
    let (destroying, standing): (Vec<&Held>, Vec<&Held>) = ground
        .held
        .iter()
        .partition(|held| held.destroying.is_some());
    for held in &destroying {
        step.actions.extend(destroy_again(ground.world, held));
    }
    match aim(ground) {
        Aim::Clear(why, destroy_why, situation) => {
            step.situation = situation;
            for held in standing {
                step.actions.push(destroy(held, destroy_why, why));
            }
        }
        Aim::Close(why, destroy_why, situation) => {
            step.situation = situation;
            for held in standing {
                close(ground, held, why, destroy_why, &mut step);
            }
        }
        Aim::Rest(why, situation) => {
            step.situation = situation;
            for held in standing {
                if holds_nothing(ground.world, held) {
                    // Its copy would not go on, and its disk is billed.
                    step.actions.push(destroy(held, DestroyWhy::Orphan, why));
                } else if !saved(ground, held, &mut step) {
                    step.actions.extend(park(ground.world, held, why));
                }
            }
        }
        Aim::Run => run(ground, &standing, !destroying.is_empty(), &mut step),
    }
    step
}

fn aim(ground: &Ground<'_, '_>) -> Aim {
    let world = ground.world;
    let wish = world.state.job(&ground.job.name).wish;
    let user = DestroyWhy::UserRequest;
    match wish {
        Wish::Stop => return Aim::Clear(Why::UserRequest, user, Situation::Stopped),
        Wish::Done => {
            let ending = ground.record.ending.map_or(Ending::Finished, |(e, _)| e);
            return Aim::Clear(Why::UserRequest, user, Situation::Ended { ending });
        }
        Wish::Run | Wish::Pause => {}
    }
    if let Some((ending, _)) = ground.record.ending {
        return Aim::Close(
            Why::Ended,
            DestroyWhy::Finished,
            Situation::Ended { ending },
        );
    }
    if wish == Wish::Pause {
        return Aim::Rest(Why::UserRequest, Situation::Paused);
    }
    let windows = &ground.job.windows;
    if !windows.is_empty() && !windows.iter().any(|window| window.is_open(world.now)) {
        let opens = windows
            .iter()
            .filter_map(|window| window.next_opening(world.now))
            .min();
        let situation = Situation::WindowClosed { opens };
        return Aim::Close(Why::WindowClosed, DestroyWhy::WindowClosed, situation);
    }
    if let Some(situation) = ground.queued.clone() {
        // It can be days until its turn: a disk that may be lost is not paid for meanwhile.
        return Aim::Close(Why::Limit, DestroyWhy::Orphan, situation);
    }
    Aim::Run
}

/// Puts an instance away: destroyed where its disk may be lost, else parked.
fn close(ground: &Ground<'_, '_>, held: &Held, why: Why, destroy_why: DestroyWhy, step: &mut Step) {
    if carried_on(ground, held) || expendable(ground.world, ground.job, held) {
        step.actions.push(destroy(held, destroy_why, why));
        return;
    }
    if why == Why::Ended {
        step.notices.push(Notice {
            severity: Severity::Warning,
            kind: "disk-kept".to_owned(),
            replica: Some(held.replica.clone()),
            text: format!(
                "{} has ended; the disk of instance {} is kept and costs {:.4}/h; {}",
                held.replica,
                held.id,
                held.storage,
                lets_go(ground.job, "done", "destroys it")
            ),
        });
    }
    if !saved(ground, held, step) {
        step.actions.extend(park(ground.world, held, why));
    }
}

/// Winds an instance down where a limit calls for it; whether it does.
fn saved(ground: &Ground<'_, '_>, held: &Held, step: &mut Step) -> bool {
    let Some(saving) = ground.saving.get(&held.id) else {
        return false;
    };
    let (Saving::Park(limit) | Saving::Destroy(limit)) = saving;
    let (action, notice) = wound_down(
        ground.world,
        held,
        saving,
        expendable(ground.world, ground.job, held),
    );
    step.actions.extend(action);
    step.notices.push(notice);
    step.situation = Situation::OverLimit {
        limit: limit.clone(),
    };
    true
}

// ---------------------------------------------------------------------------------------- running

fn run(ground: &mut Ground<'_, '_>, standing: &[&Held], clearing: bool, step: &mut Step) {
    let world = ground.world;
    let renting = world.state.intents.values().any(|intent| {
        matches!(&intent.effect, Effect::Rent { replica, .. } if *replica == ground.record.id)
    });
    let Some((&current, older)) = standing.split_first() else {
        step.situation = if renting {
            Situation::Settling
        } else if clearing {
            Situation::Clearing
        } else {
            want(ground, step)
        };
        return;
    };
    // The oldest goes first: what goes on from one that is gone would not be known to go on from it.
    for held in older.iter().rev() {
        set_aside(ground, held, step);
    }
    if saved(ground, current, step) {
        return;
    }
    // Invariant: nothing is started or raised beside an instance that might run.
    let alone = !clearing && !renting && older.iter().all(|held| at_rest(world, held));
    if renting {
        step.situation = Situation::Settling;
        step.actions.extend(park(world, current, Why::Superseded));
        return;
    }
    if let Some(action) = failed_start(world, ground.job, current) {
        step.actions.push(action);
        step.situation = Situation::Clearing;
        return;
    }
    step.situation = match current.phase {
        _ if current.parked => rest_or_resume(ground, current, alone, standing.len(), step),
        Phase::Running => running(ground, current, alone, standing.len(), step),
        Phase::Stopped => stopped(ground, current, alone, standing.len(), step),
        // It may have ended well: what it said last says.
        Phase::Exited if !heard_out(world, current) => Situation::Clearing,
        Phase::Exited if !names_fault(current) => begin_anew(ground, current, ENDED, step),
        // What a message says of a start has to be said for a while.
        Phase::Provisioning | Phase::Exited => provisioning(ground, current, standing.len(), step),
        Phase::Offline | Phase::Unclear => silent(ground, current, standing.len(), step),
    };
}

/// Whether another one goes on with what was on its disk, so that this may go.
fn carried_on(ground: &Ground<'_, '_>, held: &Held) -> bool {
    is_carried_on(ground.world.now, held, &ground.held)
}

/// An older instance beside the current one: parked ones are kept for their checkpoints.
fn set_aside(ground: &Ground<'_, '_>, held: &Held, step: &mut Step) {
    if carried_on(ground, held) || expendable(ground.world, ground.job, held) {
        let (why, word) = if held.parked {
            (DestroyWhy::Moved, Why::Superseded)
        } else {
            (DestroyWhy::Orphan, Why::Orphan)
        };
        step.actions.push(destroy(held, why, word));
    } else if !saved(ground, held, step) {
        step.actions
            .extend(park(ground.world, held, Why::Superseded));
    }
}

/// Asks for an instance, where one may be had.
pub(super) fn want(ground: &Ground<'_, '_>, step: &mut Step) -> Situation {
    let now = ground.world.now;
    if let Some(situation) = cannot_start(ground.world, ground.job) {
        if let Situation::WaitsForSecrets { what } = &situation {
            let id = &ground.record.id;
            step.notices.push(Notice {
                severity: Severity::Warning,
                kind: "secret-unread".to_owned(),
                replica: Some(id.clone()),
                text: format!("{id} is not rented: {what}"),
            });
        }
        return situation;
    }
    // That hosts let starts come to nothing is reckoned with: there is no time to wait for better ones.
    let record = &ground.record;
    let no_time = ground.stance == Stance::Sure && record.failed_starts > 0 && record.failures == 0;
    if let Some(until) = record.retry_at.filter(|&until| until > now && !no_time) {
        return Situation::BackingOff { until };
    }
    if let Some(missing) = ground.blind {
        return Situation::Blind { missing };
    }
    let from = source(ground.job, &ground.held);
    let fails = from.filter(|from| from.copies_failed >= COPIES_MAX);
    if let Some(from) = fails.filter(|_| !ground.job.restartable) {
        return Situation::NotCopied {
            from: from.id,
            times: from.copies_failed,
        };
    }
    let mut begins_with = from.filter(|_| fails.is_none());
    if let Some(from) = begins_with.filter(|from| is_away(ground.world, from)) {
        let patience = ground.world.config.offline_patience;
        if !ground.job.restartable || now < from.phase_since + patience {
            step.notices.push(source_away(ground, from));
            return Situation::SourceAway { from: from.id };
        }
        begins_with = None;
    }
    step.wants = !ground.world.wind_down;
    // Where its copies fail it may begin anew.
    step.from = begins_with.map(|from| from.id);
    Situation::NoOffer
}

/// Tells that what a replica is to begin with is on the disk of a host that is not heard from.
fn source_away(ground: &Ground<'_, '_>, from: &Held) -> Notice {
    Notice {
        severity: Severity::Alarm,
        kind: "source-away".to_owned(),
        replica: Some(ground.record.id.clone()),
        text: format!(
            "the host of instance {} is not heard from, and its disk has the checkpoint that {} is to go on \
             with: nothing is rented until it is back; {}",
            from.id,
            ground.record.id,
            lets_go(ground.job, "stop", "gives it up")
        ),
    }
}

fn running(
    ground: &mut Ground<'_, '_>,
    held: &Held,
    alone: bool,
    count: usize,
    step: &mut Step,
) -> Situation {
    let world = ground.world;
    let verdict = held.runner.as_ref().and_then(|view| view.verdict);
    if held.stop_asked {
        // It was to be parked, and is wanted again; or the cut did not take. What has ended or hangs is
        // wanted, too, but has to stop before it begins anew; as has what waits for its next try.
        let waits = ground.record.retry_at.is_some_and(|at| at > world.now);
        let goes_on = alone && verdict.is_none() && !held.gpu_use.over && !waits;
        if let Some(action) = goes_on.then(|| keep_running(ground, held)).flatten() {
            step.actions.push(action);
            return Situation::Running;
        }
        step.actions.extend(park(world, held, Why::Limit));
        return Situation::Clearing;
    }
    match verdict {
        None => {}
        Some(Verdict::Ended) => return begin_anew(ground, held, ENDED, step),
        Some(Verdict::Hung) => {
            let why = (Why::Hung, DestroyWhy::Hung);
            return begin_anew(ground, held, why, step);
        }
        Some(Verdict::Refused) => {
            let (why, destroy_why) = (Why::Refused, DestroyWhy::Refused);
            return leave(ground, held, why, destroy_why, count, step);
        }
        Some(Verdict::Broken) => {
            let (why, destroy_why) = (Why::Broken, DestroyWhy::Broken);
            return leave(ground, held, why, destroy_why, count, step);
        }
        Some(Verdict::Silent) => {
            let (why, destroy_why) = (Why::Silent, DestroyWhy::Silent);
            return leave(ground, held, why, destroy_why, count, step);
        }
        Some(Verdict::NotBrought) => {
            let (why, destroy_why) = (Why::NotBrought, DestroyWhy::NotBrought);
            return leave(ground, held, why, destroy_why, count, step);
        }
    }
    if held.gpu_use.over {
        return begin_anew(ground, held, (Why::Idle, DestroyWhy::Idle), step);
    }
    if let Some((why, destroy_why)) = due(ground, held) {
        return leave(ground, held, why, destroy_why, count, step);
    }
    if let Some(situation) = bring(ground, held, step) {
        return situation;
    }
    if ground.leaves && alone && finds_sure(ground, held) {
        return leave(ground, held, Why::Deadline, DestroyWhy::Moved, count, step);
    }
    if ground.cheaper && alone && count == 1 && spendable(ground) && ground.blind.is_none() {
        let (why, destroy_why) = (Why::CheaperElsewhere, DestroyWhy::Moved);
        return leave(ground, held, why, destroy_why, count, step);
    }
    step.actions.extend(lower(ground.world, ground.job, held));
    Situation::Running
}

/// Whether what a deadline calls for would be rented in the place of an instance: where limits forbid it, or
/// something is not known, or it may not be tried yet, what there is is better than nothing.
pub(super) fn finds_sure(ground: &Ground<'_, '_>, held: &Held) -> bool {
    let waits = ground
        .record
        .retry_at
        .is_some_and(|at| at > ground.world.now);
    let may =
        !waits && spendable(ground) && ground.blind.is_none() && ground.stance == Stance::Sure;
    may && !ground.best.is_empty() && can_move(ground, held).is_ok()
}

/// Why an instance that runs well has to be left all the same.
pub(super) fn due(ground: &Ground<'_, '_>, held: &Held) -> Option<(Why, DestroyWhy)> {
    let now = ground.world.now;
    if let Some(most) = ground.job.lifetime_max
        && now.since(held.created_at) >= most
    {
        return Some((Why::MaxLifetime, DestroyWhy::MaxLifetime));
    }
    if overpriced(ground.world, ground.job, held) {
        return Some((Why::OverCeiling, DestroyWhy::Moved));
    }
    // Work that is on its disk alone would be lost by moving sooner: it runs to the end.
    let given = held.runner.as_ref().and_then(|view| view.given.as_ref());
    let carried = given.is_some_and(|runner| runner.carried);
    let early = carried || expendable(ground.world, ground.job, held);
    let lead = if early {
        // What is copied has to be so before the disk goes with its rental.
        let copied = leads(ground.job, held).unwrap_or_default();
        ending_lead(ground.job).saturating_add(copied)
    } else {
        Duration::ZERO
    };
    let ending = held.ends_at.is_some_and(|ends| ends <= now + lead);
    ending.then_some((Why::RentalEnding, DestroyWhy::RentalEnding))
}

/// How long before its rental ends a replica that can move does.
pub(super) fn ending_lead(job: &Job) -> Duration {
    job.patience.clamp(ENDING_LEAD_MIN, ENDING_LEAD_MAX)
}

/// Leaves an instance for another: at once where its disk may be lost, by parking it otherwise.
pub(super) fn leave(
    ground: &Ground<'_, '_>,
    held: &Held,
    why: Why,
    destroy_why: DestroyWhy,
    count: usize,
    step: &mut Step,
) -> Situation {
    if expendable(ground.world, ground.job, held) {
        step.actions.push(destroy(held, destroy_why, why));
    } else if count <= PARKED_MAX || does_nothing(why) || why == Why::OverCeiling {
        // What may not cost what it costs, or costs it for nothing, is parked, however many disks there
        // are.
        step.actions.extend(park(ground.world, held, why));
    } else {
        step.notices.push(Notice {
            severity: Severity::Warning,
            kind: "too-many-disks".to_owned(),
            replica: Some(held.replica.clone()),
            text: format!(
                "{} has left {} parked instances behind and leaves no more; it waits",
                held.replica,
                count - 1
            ),
        });
        return Situation::OverLimit {
            limit: Limit::INSTANCES,
        };
    }
    Situation::Clearing
}

fn provisioning(ground: &Ground<'_, '_>, held: &Held, count: usize, step: &mut Step) -> Situation {
    let (now, timeout) = (ground.world.now, ground.job.provision_timeout);
    if held.stop_asked {
        step.actions.extend(park(ground.world, held, Why::Limit));
        return Situation::Clearing;
    }
    if overpriced(ground.world, ground.job, held) {
        let (why, destroy_why) = (Why::OverCeiling, DestroyWhy::Moved);
        return leave(ground, held, why, destroy_why, count, step);
    }
    if ground.leaves && finds_sure(ground, held) {
        return leave(ground, held, Why::Deadline, DestroyWhy::Moved, count, step);
    }
    if held.first_ran_at.is_none() {
        let until = held.created_at + timeout;
        step.actions.extend(lower(ground.world, ground.job, held));
        return Situation::Provisioning { until };
    }
    let until = held.phase_since + timeout;
    if now >= until && expendable(ground.world, ground.job, held) {
        let why = (DestroyWhy::ProvisionTimeout, Why::ProvisionTimeout);
        step.actions.push(destroy(held, why.0, why.1));
        return Situation::Clearing;
    }
    if given_up(held) {
        step.actions
            .extend(park(ground.world, held, Why::ProvisionTimeout));
        return Situation::Clearing;
    }
    step.actions.extend(lower(ground.world, ground.job, held));
    Situation::Provisioning { until }
}

/// What was heard to have failed, or to hang, only after its instance was stopped: it is not begun again before
/// its time, at whatever price.
pub(super) fn failed_before(
    ground: &Ground<'_, '_>,
    held: &Held,
    step: &mut Step,
) -> Option<Situation> {
    let verdict = held.runner.as_ref().and_then(|view| view.verdict);
    let failed = matches!(verdict, Some(Verdict::Ended | Verdict::Hung));
    let waits = ground
        .record
        .retry_at
        .is_some_and(|at| at > ground.world.now);
    (failed && waits).then(|| begin_anew(ground, held, ENDED, step))
}

/// What it runs has ended, or hangs, and is begun anew: its container on the same disk, where that is
/// kept, by stopping and starting it.
fn begin_anew(
    ground: &Ground<'_, '_>,
    held: &Held,
    (why, destroy_why): (Why, DestroyWhy),
    step: &mut Step,
) -> Situation {
    if expendable(ground.world, ground.job, held) {
        step.actions.push(destroy(held, destroy_why, why));
    } else {
        step.actions.extend(park(ground.world, held, why));
    }
    match ground.record.retry_at.filter(|&at| at > ground.world.now) {
        Some(until) => Situation::BackingOff { until },
        None => Situation::Clearing,
    }
}

/// Its host is not heard from, or its record says nothing: it may be at work, so nothing takes
/// its place unless its disk may be lost and it can be destroyed.
fn silent(ground: &Ground<'_, '_>, held: &Held, count: usize, step: &mut Step) -> Situation {
    // What has to be left whatever it does is left also where nobody knows that.
    if let Some((why, destroy_why)) = due(ground, held) {
        return leave(ground, held, why, destroy_why, count, step);
    }
    let until = held.phase_since + ground.world.config.offline_patience;
    if held.stop_asked && given_up(held) {
        // It may be at work, at a price that was not asked for.
        step.actions
            .extend(park(ground.world, held, Why::Superseded));
    }
    if held.phase == Phase::Unclear && held.first_ran_at.is_some() {
        // What waits behind its gate is billed, and its host's word for it may never come.
        let waits = held.is_behind_gate() && expendable(ground.world, ground.job, held);
        if !waits || ground.world.now < until {
            step.actions.extend(lower(ground.world, ground.job, held));
            return Situation::Running;
        }
    }
    let may_go = expendable(ground.world, ground.job, held);
    let no_time = may_go && ground.leaves && finds_sure(ground, held);
    let waits = ground.world.now < until && !no_time;
    if may_go && !waits {
        let why = (DestroyWhy::HostLost, Why::HostLost);
        step.actions.push(destroy(held, why.0, why.1));
        return Situation::Clearing;
    }
    // Once its host is back it would run at what it bids now.
    step.actions.extend(lower(ground.world, ground.job, held));
    if waits {
        return Situation::Provisioning { until };
    }
    step.notices.push(Notice {
        severity: Severity::Alarm,
        kind: "host-lost".to_owned(),
        replica: Some(held.replica.clone()),
        text: format!(
            "the host of instance {} has not been heard from since {}; its disk holds work that \
             is nowhere else, so it is neither destroyed nor replaced; {}",
            held.id,
            held.phase_since,
            lets_go(ground.job, "stop", "gives it up")
        ),
    });
    Situation::Provisioning { until }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::decide::decide;
    use super::super::eligible::samples::{held, job, offer, runner, usd, world};
    use super::super::properties::list;
    use super::*;
    use crate::types::instance::RunnerView;
    use crate::types::job::CheckpointPlace;
    use crate::types::money::{BID_PARKED, Rate};

    /// It would run at its old bid from the moment at which its host is back, and a poll later.
    #[test]
    fn a_lowered_ceiling_binds_what_is_not_heard_from() {
        let mut job = job("a");
        job.checkpoint_place = Some(CheckpointPlace::Disk);
        let mut away = held(1, &job, &offer(1), usd(0.3));
        let high = job.price_max;
        let mut world = world(vec![offer(1)]);
        let mut plans = |phase, price_max| {
            away.phase = phase;
            job.price_max = price_max;
            world.jobs = vec![Arc::new(job.clone())];
            world.state.held.insert(away.id, away.clone());
            list(&mut world, true);
            let bids = decide(&world)
                .0
                .actions
                .into_iter()
                .map(|action| action.effect);
            bids.collect::<Vec<_>>()
        };
        for phase in [Phase::Offline, Phase::Unclear, Phase::Running] {
            assert_eq!(plans(phase, high), [], "{phase:?}");
            let cut = plans(phase, usd(0.2));
            assert!(
                matches!(cut[..], [Effect::SetBid { bid, .. }] if bid < usd(0.2) && bid > BID_PARKED),
                "{phase:?} {cut:?}"
            );
        }
    }

    /// Nothing but its money's limits would end what is billed on behind a row that says nothing.
    #[test]
    fn what_has_to_be_left_is_left_also_where_its_row_says_nothing() {
        let mut job = job("a");
        job.checkpoint_place = Some(CheckpointPlace::Remote);
        let mut world = world(vec![offer(1)]);
        let mut plans = |phase, lifetime_max| {
            job.lifetime_max = lifetime_max;
            let mut held = held(1, &job, &offer(1), usd(0.3));
            (held.phase, held.created_at) = (phase, world.now - Duration::from_mins(61));
            held.phase_since = world.now;
            world.jobs = vec![Arc::new(job.clone())];
            world.state.held.insert(held.id, held);
            list(&mut world, true);
            let actions = decide(&world).0.actions;
            actions.iter().any(|action| action.why == Why::MaxLifetime)
        };
        for phase in [Phase::Unclear, Phase::Offline, Phase::Running] {
            assert!(!plans(phase, None), "{phase:?}");
            assert!(plans(phase, Some(Duration::from_mins(60))), "{phase:?}");
        }
    }

    /// Its command may have ended well, which its log says.
    #[test]
    fn what_exited_is_heard_out_before_it_is_begun_anew() {
        let mut job = job("a");
        job.checkpoint_place = Some(CheckpointPlace::Remote);
        let given = runner("true");
        job.run.runner = Some(Box::new(given.clone()));
        let mut exited = held(1, &job, &offer(1), usd(0.3));
        let mut view = RunnerView::of(&given);
        view.worked = true;
        exited.runner = Some(view);
        exited.phase = Phase::Exited;
        let mut world = world(vec![offer(1)]);
        exited.phase_since = world.now - Duration::from_mins(1);
        world.jobs = vec![Arc::new(job)];
        let mut destroys = |read_at, phase_since| {
            let mut exited = exited.clone();
            exited.runner.as_mut().unwrap().read_at = read_at;
            exited.phase_since = phase_since;
            world.state.held.insert(exited.id, exited);
            list(&mut world, true);
            let actions = decide(&world).0.actions;
            let destroys = |action: &Action| matches!(action.effect, Effect::Destroy { .. });
            actions.iter().any(destroys)
        };
        let since = exited.phase_since;
        let now = since + Duration::from_mins(1);
        assert!(!destroys(None, since));
        assert!(destroys(Some(now), since));
        assert!(
            destroys(None, since - Duration::from_mins(3)),
            "it cannot be read"
        );
    }

    #[test]
    fn what_hangs_stops_before_it_is_begun_anew() {
        let mut job = job("a");
        job.checkpoint_place = Some(CheckpointPlace::Disk);
        let mut given = runner("true");
        given.lease = None;
        let mut parking = held(1, &job, &offer(1), BID_PARKED);
        parking.runner = Some(RunnerView::of(&given));
        parking.bid_before_park = Some(usd(0.3));
        parking.stop_asked = true;
        job.run.runner = Some(Box::new(given));
        let mut world = world(vec![offer(1)]);
        world.jobs = vec![Arc::new(job)];
        let mut plans = |verdict| {
            let mut held = parking.clone();
            held.runner.as_mut().unwrap().verdict = verdict;
            world.state.held.insert(held.id, held);
            list(&mut world, true);
            let (plan, _) = decide(&world);
            plan.actions.len()
        };
        assert_eq!(plans(None), 1, "it is wanted again, and its bid comes back");
        for verdict in [Verdict::Hung, Verdict::Ended] {
            assert_eq!(plans(Some(verdict)), 0, "{verdict:?}");
        }
    }

    #[test]
    fn what_broke_is_parked_however_many_disks_there_are() {
        let mut job = job("a");
        job.checkpoint_place = Some(CheckpointPlace::Disk);
        let mut given = runner("true");
        given.lease = None;
        job.run.runner = Some(Box::new(given.clone()));
        let mut world = world(Vec::new());
        for id in 1..=3 {
            let mut held = held(id, &job, &offer(id), usd(0.3));
            let mut view = RunnerView::of(&given);
            view.worked = true;
            if id == 3 {
                view.verdict = Some(Verdict::Broken);
            } else {
                held.phase = Phase::Stopped;
                held.stop_asked = true;
                held.parked = true;
                held.price = BID_PARKED;
                held.bid_before_park = Some(Rate::ZERO);
            }
            held.runner = Some(view);
            world.state.held.insert(held.id, held);
        }
        world.jobs = vec![Arc::new(job)];
        list(&mut world, true);
        let (plan, _) = decide(&world);
        let broken: Vec<&Action> = plan
            .actions
            .iter()
            .filter(|action| action.why == Why::Broken)
            .collect();
        assert!(
            matches!(broken[..], [Action { effect: Effect::SetBid { bid, .. }, .. }] if *bid == BID_PARKED),
            "{:?}",
            plan.actions
        );
    }
}
