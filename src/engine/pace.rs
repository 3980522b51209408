//! What a deadline makes of a replica's rentals, by a [`DeadlinePolicy`] over what is known now.
//!
//! The time to the deadline is cut into ticks of some minutes. At each, and whenever what can be had or what
//! is held changes, the policy says whether the replica waits for interruptible capacity, rides it, or takes
//! what nobody takes away; between them the safe set is looked at with each decision, so that nothing is
//! late by waiting for a tick. Progress is what a loss cannot take back.
//!
//! Assumptions: a start takes half of the provision timeout and the boot overhead until it works, and the copy
//! of what it begins with; so many starts in a row are allowed for that all of them fail once in a thousand
//! times, each with the share of starts that failed so far (one in ten where nothing is known), and each for as
//! long as the provision timeout. Inputs come as slowly as they may, as far as their lengths are known; how long
//! they take to be made ready before that nobody knows. What ends sooner where it is than another one would have begun is left to
//! end, although it may be taken away till then.

use std::sync::Arc;

use crate::types::deadline::{DeadlineView, Stance, Watch};
use crate::types::instance::{Held, Phase, Rental};
use crate::types::job::{CheckpointPlace, Finish, Job};
use crate::types::money::{Money, Rate};
use crate::types::plan::{Candidate, Notice, Situation};
use crate::types::state::{ReplicaRecord, Severity};
use crate::types::time::{Time, human, millis};
use crate::types::world::World;

use super::bring::{copied_from, told_bytes};
use super::deadline::{
    Belief, Costs, DeadlineKind, DeadlinePolicy, Greedy, HazardMdp, HazardTables, Mode, Moment,
    OnDemand, Prelude, Prior, SafeSet, Seen, SlackBand, Terms, UniformProgress, age_class, retries,
};
use super::eligible::{factor_ppm, too_old};
use super::ladder::cannot_start;
use super::rank::Ranking;
use super::view::restore_patience;

/// The time to a deadline has so many ticks, at most.
const TICKS_MAX: u64 = 192;

/// A tick takes so many seconds, at least.
const TICK_MIN: i64 = 60;

/// So many levels of slack the tables have, at most, and so many bytes.
const LEVELS_MAX: i64 = 48;
const TABLE_BYTES: usize = 4 << 20;

/// The share of jobs that are to be in time although starts fail.
const PROMISE: f64 = 0.999;

/// Starts that failed, and starts, before any was seen.
const STARTS_ASSUMED: (f64, f64) = (1.0, 10.0);

/// What a deadline makes of a replica's rentals now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pace {
    pub(super) stance: Stance,
    /// Whether what it has at a bid is left for what is sure.
    pub(super) leaves: bool,
    /// Whether the rest could be done in time by an instance that is begun anew now.
    pub(super) in_time: bool,
    /// Whether there is time to move for a lower price.
    pub(super) may_move: bool,
    pub(super) watch: Watch,
    pub(super) view: DeadlineView,
    pub(super) notices: Vec<Notice>,
    /// Seconds of work that are left for a new instance on the reference, and that there are for it.
    work: (i64, i64),
}

impl Pace {
    /// Whether the rest could be done in time on a model of which an hour is worth so much, in parts per
    /// million.
    pub(super) fn is_in_time_on(&self, factor: u32) -> bool {
        let (work, left) = self.work;
        work.saturating_mul(1_000_000) / i64::from(factor.max(1)) <= left
    }
}

/// Whether an instance stands, or is going to: parked and outbid ones do not.
fn stands(held: &Held) -> bool {
    let up = !matches!(held.phase, Phase::Stopped | Phase::Exited);
    up && held.destroying.is_none() && !held.parked && !held.stop_asked
}

/// What works, or comes up: of what is not heard from nothing is hoped.
fn works(held: &Held) -> bool {
    stands(held) && matches!(held.phase, Phase::Running | Phase::Provisioning)
}

/// Decides for a replica whose instances are `held`, the newest first; `None`: it has no deadline, or nothing to
/// do. `ranking` has what the job can take, whatever the rental.
pub(super) fn pace(
    world: &World,
    job: &Job,
    record: &ReplicaRecord,
    held: &[&Held],
    ranking: &Ranking,
) -> Option<Pace> {
    let deadline = job.deadline?;
    let share = job.work_share_gpu_ms()?;
    let done = job.finish == Finish::Work && record.durable_gpu_ms >= share;
    if record.ending.is_some() || done {
        return None;
    }
    let scene = Scene::new(world, job, (record, share), held, ranking);
    let before = record.watch.clone();
    let mut watch = match before.clone() {
        Some(known) if known.deadline == deadline => known,
        // Another deadline is another race; what was seen of the market stays.
        Some(known) => Watch {
            begun: world.now,
            deadline,
            decided_at: Time(i64::MIN),
            near: None,
            ..known
        },
        // What is not known is not begun with.
        None if !scene.seen => return None,
        None => Watch::new(deadline, scene.up, world.now),
    };
    watch.begun = watch.begun.min(world.now);
    let left = deadline.ms_since(world.now).div_euclid(1000);
    // Finer as it comes nearer, by halves: a long race would else be rounded by hours at its end.
    let tick = tick_seconds(left.max(1).unsigned_abs().next_power_of_two());
    if scene.seen {
        watch.sees(scene.up, tick * 1000, world.now, |up, age| {
            let class = age_class(age);
            Seen { up, class }.index()
        });
    }
    let terms = scene.terms(tick, left, &watch);
    let moment = scene.moment(&terms, left, &watch);
    let mode = if left <= 0 {
        // It is too late: from here on it costs as little as it can.
        Mode::Spot
    } else {
        scene.choose(&terms, &moment, before.as_ref(), &mut watch)
    };
    let sure = mode == Mode::OnDemand;
    // What cannot be done in time elsewhere either is best left to what is at work.
    let anew = moment.work_left.saturating_add(terms.overhead);
    let in_time = anew <= left;
    let here = scene.here(&moment);
    let sooner = here.is_none_or(|here| here > terms.overhead);
    let rides = scene
        .newest
        .is_some_and(|held| stands(held) && held.rental == Rental::Bid);
    let needs = match (moment.mode, here) {
        (Mode::OnDemand, Some(here)) => here,
        _ => anew,
    };
    Some(Pace {
        stance: stance(mode),
        leaves: sure && rides && in_time && sooner && scene.on_demand.is_some(),
        in_time,
        may_move: left <= 0 || SafeSet::new(&terms, &moment).may_wait(),
        view: DeadlineView {
            deadline,
            stance: stance(mode),
            needs_ms: needs.saturating_mul(1000),
            left_ms: left.saturating_mul(1000),
        },
        notices: scene.notices(&terms, &moment, left),
        watch,
        work: (
            scene.raw_seconds(share - scene.kept()),
            left - terms.overhead,
        ),
    })
}

fn stance(mode: Mode) -> Stance {
    match mode {
        Mode::Idle => Stance::Wait,
        Mode::Spot => Stance::Ride,
        Mode::OnDemand => Stance::Sure,
    }
}

/// Length of a tick where there are so many seconds in all, in whole minutes.
fn tick_seconds(total: u64) -> i64 {
    let least = i64::try_from(total.div_ceil(TICKS_MAX)).unwrap_or(i64::MAX / 4);
    ((least + 59) / 60 * 60).max(TICK_MIN)
}

/// The share of starts that fail, of all machines.
fn start_fails(world: &World) -> f64 {
    let (mut failed, mut all) = STARTS_ASSUMED;
    for machine in world.state.machines.values() {
        failed += f64::from(machine.past.no_starts);
        all += f64::from(machine.past.no_starts) + f64::from(machine.past.starts);
    }
    failed / all
}

/// A replica and what it could have.
struct Scene<'a> {
    world: &'a World,
    job: &'a Job,
    record: &'a ReplicaRecord,
    /// Useful GPU-milliseconds in all.
    share: i64,
    /// Its newest instance.
    newest: Option<&'a Held>,
    /// The same, where it works or comes up.
    live: Option<&'a Held>,
    /// The disk whose checkpoint the next one begins with, where it is copied.
    carried: Option<&'a Held>,
    ranking: &'a Ranking,
    /// The cheapest on-demand slot within its ceiling.
    on_demand: Option<&'a Candidate>,
    /// Whether the market was seen lately: else it says nothing of what can be had.
    seen: bool,
    /// Whether interruptible capacity is held or could be, as far as was seen.
    up: bool,
    /// The share of starts that fail.
    start_fails: f64,
}

impl<'a> Scene<'a> {
    fn new(
        world: &'a World,
        job: &'a Job,
        (record, share): (&'a ReplicaRecord, i64),
        held: &[&'a Held],
        ranking: &'a Ranking,
    ) -> Self {
        let newest = held.first().copied();
        let live = newest.filter(|held| works(held));
        let mut candidates = ranking.candidates.iter();
        let rides = live.is_some_and(|held| held.rental == Rental::Bid);
        let seen = !too_old(world, world.market.at);
        let was_up = record.watch.as_ref().is_some_and(|watch| watch.up);
        let offered = candidates.any(|slot| slot.rental == Rental::Bid);
        Self {
            world,
            job,
            record,
            share,
            newest,
            live,
            carried: copied_from(job, held),
            ranking,
            on_demand: ranking.on_demand_fits.as_ref(),
            seen,
            up: rides || if seen { offered } else { was_up },
            start_fails: start_fails(world),
        }
    }

    /// Useful GPU-milliseconds that the next instance would begin with: of what is on a disk, where that goes
    /// along.
    fn kept(&self) -> i64 {
        let remote = self.job.checkpoint_place == Some(CheckpointPlace::Remote);
        if remote || self.carried.is_some() {
            self.record.durable_gpu_ms
        } else {
            0
        }
    }

    /// Useful time of a model, in parts per million.
    fn factor(&self, model: &str) -> u32 {
        factor_ppm(self.job, model).max(1)
    }

    /// Seconds that so much work takes on the reference, rounded up.
    fn raw_seconds(&self, gpu_ms: i64) -> i64 {
        self.seconds_at(gpu_ms, 1_000_000)
    }

    fn seconds_at(&self, gpu_ms: i64, factor: u32) -> i64 {
        let gpus = i128::from(self.job.requirements.gpu_count.max(1));
        let speed = i128::from(factor) * gpus * 1000;
        let whole = i128::from(gpu_ms.max(0)) * 1_000_000;
        i64::try_from((whole + speed - 1) / speed).unwrap_or(i64::MAX / 4)
    }

    /// Seconds that so much work takes on the model that would be taken on demand.
    fn seconds(&self, gpu_ms: i64) -> i64 {
        let model = self.on_demand.map(|slot| slot.gpu_name.as_str());
        let model = model.or_else(|| self.newest.map(|held| held.gpu_name.as_str()));
        self.seconds_at(gpu_ms, model.map_or(1_000_000, |model| self.factor(model)))
    }

    /// Seconds until it is done where it works or comes up, if nothing takes that away.
    fn here(&self, moment: &Moment) -> Option<i64> {
        let live = self.live?;
        let left = self.share - self.record.done_gpu_ms();
        let work = self.seconds_at(left, self.factor(&live.gpu_name));
        Some(work.saturating_add(moment.overhead_left))
    }

    /// Seconds that a start takes before it works.
    fn overhead(&self) -> i64 {
        let up = millis(self.job.provision_timeout) / 2;
        let copied = self.carried.and_then(told_bytes);
        let stored = self.record.checkpoints.first().map(|kept| kept.bytes);
        let copy = copied
            .or(stored)
            .map_or(0, |bytes| millis(restore_patience(bytes)));
        up.saturating_add(millis(self.job.boot_overhead))
            .saturating_add(copy)
            .saturating_add(self.fetch_ms())
            / 1000
    }

    /// Milliseconds that a machine may take to get the inputs whose length is known.
    fn fetch_ms(&self) -> i64 {
        let runner = self.job.run.runner.as_deref();
        let needing = runner.filter(|runner| !runner.inputs.is_empty());
        needing.map_or(0, |runner| millis(restore_patience(runner.input_bytes().0)))
    }

    fn terms(&self, tick: i64, left: i64, watch: &Watch) -> Terms {
        let timeout = millis(self.job.provision_timeout) / 1000;
        let ticks = (timeout + tick - 1) / tick;
        Terms {
            tick,
            work: self.seconds(self.share),
            deadline: (watch.deadline.ms_since(watch.begun) / 1000)
                .max(left)
                .max(1),
            overhead: self.overhead(),
            margin: i64::from(retries(self.start_fails, PROMISE)).saturating_mul(ticks),
        }
    }

    fn moment(&self, terms: &Terms, left: i64, watch: &Watch) -> Moment {
        let now = self.world.now;
        let mode = self.live.map_or(Mode::Idle, |held| match held.rental {
            Rental::Bid => Mode::Spot,
            Rental::OnDemand => Mode::OnDemand,
        });
        // From when it runs until it works: what has worked there has its inputs.
        let boot = |held: &Held| {
            let worked = held.runner.as_ref().is_some_and(|view| view.worked);
            let fetch = if worked { 0 } else { self.fetch_ms() };
            millis(self.job.boot_overhead).saturating_add(fetch) / 1000
        };
        let overhead_left = self.live.map_or(0, |held| match held.first_ran_at {
            Some(_) => boot(held) - held.run_ms.max(0) / 1000,
            None => (terms.overhead - now.ms_since(held.created_at).max(0) / 1000).max(boot(held)),
        });
        Moment {
            tick: now.ms_since(watch.begun).max(0) / 1000 / terms.tick,
            ticks_left: left.div_euclid(terms.tick),
            work_left: self.seconds(self.share - self.kept()).max(1),
            mode,
            overhead_left: overhead_left.max(0),
            spot: self.up,
            on_demand: self.on_demand.is_some(),
            age: watch.age(terms.tick * 1000, now),
        }
    }

    /// The mode of the tick: as it was decided, or decided anew once it is over or something has changed.
    fn choose(
        &self,
        terms: &Terms,
        moment: &Moment,
        before: Option<&Watch>,
        watch: &mut Watch,
    ) -> Mode {
        let now = self.world.now;
        let held_bid = self.live.map(|held| held.rental == Rental::Bid);
        let holds = before.is_some_and(|before| {
            let since = now.ms_since(watch.decided_at);
            let in_tick = (0..terms.tick * 1000).contains(&since);
            in_tick && before.up == watch.up && before.held_bid == held_bid
        });
        // What is not known is no reason to decide otherwise.
        if holds || !self.seen {
            let mode = match watch.stance {
                Stance::Wait => Mode::Idle,
                Stance::Ride => Mode::Spot,
                Stance::Sure => Mode::OnDemand,
            };
            return SafeSet::new(terms, moment).bound(mode);
        }
        let mode = self.decide(terms, moment, watch);
        (watch.stance, watch.decided_at, watch.held_bid) = (stance(mode), now, held_bid);
        mode
    }

    fn decide(&self, terms: &Terms, moment: &Moment, watch: &mut Watch) -> Mode {
        match self.job.deadline_policy {
            DeadlineKind::OnDemand => OnDemand.choose(terms, moment),
            DeadlineKind::Greedy => Greedy.choose(terms, moment),
            DeadlineKind::UniformProgress => UniformProgress.choose(terms, moment),
            DeadlineKind::SlackBand => SlackBand.choose(terms, moment),
            DeadlineKind::UniformProgressPrelude => {
                let near = |(at, work): (Time, i64)| {
                    (at.ms_since(watch.begun).max(0) / 1000 / terms.tick, work)
                };
                let mut prelude = Prelude::since(watch.near.map(near));
                let mode = prelude.choose(terms, moment);
                if watch.near.is_none() && prelude.is_near() {
                    watch.near = Some((self.world.now, moment.work_left));
                }
                mode
            }
            DeadlineKind::HazardMdp => self.by_hazard(terms, moment, watch),
        }
    }

    /// The policy that knows how long spells last, from here on.
    fn by_hazard(&self, terms: &Terms, moment: &Moment, watch: &Watch) -> Mode {
        let safe = SafeSet::new(terms, moment);
        if !safe.may_wait() && !safe.may_ride() {
            return safe.bound(Mode::OnDemand);
        }
        let rest = Terms {
            work: moment.work_left,
            deadline: moment.ticks_left * terms.tick,
            ..*terms
        };
        let moment = Moment { tick: 0, ..*moment };
        let prior = Prior::built_in();
        let costs = Costs {
            spot: self.spot_price(),
            start_fails: self.start_fails,
        };
        let slack = (rest.deadline - rest.work).max(0);
        let step = (slack / LEVELS_MAX).max(1);
        let tables = HazardTables::within(&rest, costs, &prior, step, TABLE_BYTES);
        let belief = Belief::after(&prior, &watch.stayed, &watch.ended);
        HazardMdp::believing(Arc::new(tables), belief).choose(&rest, &moment)
    }

    /// What interruptible capacity costs as a share of what is sure, by compute and disk: that it is
    /// interrupted is in the tables.
    fn spot_price(&self) -> f64 {
        let paid = |slot: &Candidate| slot.parts.compute + slot.parts.disk;
        let Some(sure) = self.on_demand.map(paid).filter(|&cost| cost > 0.0) else {
            return 1.0;
        };
        let bids = self.ranking.candidates.iter();
        let bids = bids.filter(|slot| slot.rental == Rental::Bid).map(paid);
        let held = self
            .live
            .filter(|held| held.rental == Rental::Bid)
            .map(|held| {
                let factor = f64::from(self.factor(&held.gpu_name)) / 1e6;
                let speed = f64::from(held.slot.gpus.max(1)) * factor;
                (held.price + held.storage).as_dollars() / speed
            });
        let least = bids.chain(held).fold(f64::INFINITY, f64::min);
        if least.is_finite() {
            (least / sure).clamp(0.01, 4.0)
        } else {
            1.0
        }
    }

    /// What has to be told.
    fn notices(&self, terms: &Terms, moment: &Moment, left: i64) -> Vec<Notice> {
        let id = &self.record.id;
        let tell = |severity, kind: &str, text: String| Notice {
            severity,
            kind: kind.to_owned(),
            replica: Some(id.clone()),
            text,
        };
        let span = |seconds: i64| {
            human(std::time::Duration::from_secs(
                seconds.max(0).unsigned_abs(),
            ))
        };
        let deadline = self.job.deadline.unwrap_or(self.world.now);
        if left <= 0 {
            let text = format!(
                "the deadline of {id}, {deadline}, has passed with {} of work left; it goes on as if there \
                 were none",
                span(moment.work_left)
            );
            return vec![tell(Severity::Alarm, "deadline-missed", text)];
        }
        let mut told = Vec::new();
        let anew = self
            .seconds(self.share - self.kept())
            .saturating_add(terms.overhead);
        let needs = self.here(moment).map_or(anew, |here| here.min(anew));
        if needs > left {
            let text = format!(
                "{id} cannot be done by {deadline}: {} are left, and it needs {} even if nothing takes its \
                 machine away; a deadline from {} on would do, or more GPUs",
                span(left),
                span(needs),
                Time(self.world.now.0.saturating_add(needs.saturating_mul(1000)))
            );
            told.push(tell(Severity::Alarm, "deadline-unreachable", text));
        } else if !SafeSet::new(terms, moment).may_wait()
            && let Some(why) = self.against_sure(moment)
        {
            let text = format!(
                "the deadline of {id}, {deadline}, is at risk: it needs what nobody takes away, and {why}"
            );
            told.push(tell(Severity::Alarm, "deadline-at-risk", text));
        }
        told.extend(self.over_budget(needs, tell));
        told
    }

    /// Why what nobody takes away cannot be had now, in words; `None`: it is held, or nothing is known against
    /// it.
    fn against_sure(&self, moment: &Moment) -> Option<String> {
        if moment.mode == Mode::OnDemand {
            return None;
        }
        match cannot_start(self.world, self.job) {
            Some(Situation::WaitsForInputs { what }) => {
                return Some(format!("its inputs are not ready: {what}"));
            }
            Some(Situation::WaitsForSecrets { what }) => {
                return Some(format!("nothing is rented: {what}"));
            }
            Some(Situation::CannotStart { fault, .. }) => {
                return Some(format!("it is held back, for {}", fault.what()));
            }
            _ => {}
        }
        if !self.seen || self.on_demand.is_some() {
            return None;
        }
        let over = |slot: &Candidate| {
            let all = slot.price.saturating_add(slot.storage).as_dollars();
            let each = all / f64::from(slot.slot.gpus.max(1));
            format!("the cheapest on-demand takes ${each:.4} a GPU-hour, over `price.max`")
        };
        let cheapest = self.ranking.on_demand_best.as_ref();
        Some(cheapest.map_or_else(|| "nothing suits on-demand".to_owned(), over))
    }

    /// Whether what is left of the budget suffices for what is left of the work at the surest price.
    fn over_budget(
        &self,
        seconds: i64,
        tell: impl Fn(Severity, &str, String) -> Notice,
    ) -> Option<Notice> {
        let total = self.job.budget.total?;
        let spent = self.world.state.spent(&self.job.name);
        let left = total.saturating_sub(spent).max(Money::ZERO);
        let sure = self
            .on_demand
            .map(|slot| slot.price.saturating_add(slot.storage));
        let held = self
            .live
            .map(|held| held.price.saturating_add(held.storage));
        let rate: Rate = sure.or(held)?;
        let of_job = self.world.state.replicas.values();
        let ended =
            of_job.filter(|record| record.id.job == self.job.name && record.ending.is_some());
        let others = self
            .job
            .replicas
            .saturating_sub(u32::try_from(ended.count()).unwrap_or(u32::MAX));
        let rate = Rate(rate.0.saturating_mul(i64::from(others.max(1))));
        let needs = rate.cost(std::time::Duration::from_secs(
            seconds.max(0).unsigned_abs(),
        ));
        (needs > left).then(|| {
            let text = format!(
                "{} needs about ${:.2} more to be done by its deadline on demand, and {:.2} of `budget.total` are left",
                self.job.name,
                needs.as_dollars(),
                left.as_dollars()
            );
            tell(Severity::Warning, "deadline-over-budget", text)
        })
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
