//! What a deadline makes of a replica's rentals, by a [`DeadlinePolicy`] over what is known now.
//!
//! The time to the deadline is cut into ticks of some minutes. At each, and whenever what can be had or what
//! is held changes, the policy says whether the replica waits for interruptible capacity, rides it, or takes
//! what nobody takes away; between them the safe set is looked at with each decision, so that nothing is
//! late by waiting for a tick. Progress is what a loss cannot take back.
//!
//! Assumptions: a start takes half of the provision timeout and the boot overhead until it works; so many
//! starts in a row are allowed for that all of them fail once in a thousand times, each with the share of
//! starts that failed so far (one in ten where nothing is known), and each for as long as the provision
//! timeout.

use std::sync::Arc;

use crate::types::deadline::{DeadlineView, Stance, Watch};
use crate::types::instance::{Held, Phase, Rental};
use crate::types::job::Job;
use crate::types::money::{Money, Rate};
use crate::types::plan::{Candidate, Notice};
use crate::types::state::{ReplicaRecord, Severity};
use crate::types::time::{Time, human, millis};
use crate::types::world::World;

use super::deadline::{
    Belief, Costs, DeadlineKind, DeadlinePolicy, Greedy, HazardMdp, HazardTables, Mode, Moment,
    OnDemand, Prelude, Prior, SafeSet, Seen, SlackBand, Terms, UniformProgress, age_class, retries,
};
use super::price::over_ceiling;
use super::rank::Ranking;

/// The time to a deadline has so many ticks, at most.
const TICKS_MAX: i64 = 192;

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
    pub(super) watch: Watch,
    pub(super) view: DeadlineView,
    pub(super) notices: Vec<Notice>,
}

/// What is held, as far as a deadline is concerned: it works, or comes up and is going to.
fn live(held: Option<&Held>) -> Option<&Held> {
    held.filter(|held| {
        let up = !matches!(held.phase, Phase::Stopped | Phase::Exited);
        up && held.destroying.is_none() && !held.parked && !held.stop_asked
    })
}

/// Decides for a replica whose newest instance is `held`; `None`: it has no deadline, or nothing to do.
/// `ranking` has what the job can take, whatever the rental.
pub(super) fn pace(
    world: &World,
    job: &Job,
    record: &ReplicaRecord,
    held: Option<&Held>,
    ranking: &Ranking,
) -> Option<Pace> {
    let deadline = job.deadline?;
    let share = job.work_share_gpu_ms()?;
    if record.ending.is_some() || record.durable_gpu_ms >= share {
        return None;
    }
    let scene = Scene::new(world, job, (record, share), live(held), ranking);
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
        None => Watch::new(deadline, scene.up, world.now),
    };
    let left = deadline.ms_since(world.now).div_euclid(1000);
    let tick = tick_seconds(deadline.ms_since(watch.begun) / 1000);
    watch.sees(scene.up, tick * 1000, world.now, |up, age| {
        let class = age_class(age);
        Seen { up, class }.index()
    });
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
    let in_time = moment.work_left + terms.overhead <= left;
    let rides = moment.mode == Mode::Spot;
    let pace = Pace {
        stance: stance(mode),
        leaves: sure && rides && in_time && scene.on_demand.is_some(),
        view: DeadlineView {
            deadline,
            stance: stance(mode),
            needs_ms: (moment.work_left + terms.overhead).saturating_mul(1000),
            left_ms: left.saturating_mul(1000),
        },
        notices: scene.notices(&terms, &moment, left),
        watch,
    };
    Some(pace)
}

fn stance(mode: Mode) -> Stance {
    match mode {
        Mode::Idle => Stance::Wait,
        Mode::Spot => Stance::Ride,
        Mode::OnDemand => Stance::Sure,
    }
}

/// Length of a tick where there are so many seconds in all, in whole minutes.
fn tick_seconds(total: i64) -> i64 {
    let least = (total.max(0) + TICKS_MAX - 1) / TICKS_MAX;
    ((least + 59) / 60 * 60).max(TICK_MIN)
}

/// A replica and what it could have.
struct Scene<'a> {
    world: &'a World,
    job: &'a Job,
    record: &'a ReplicaRecord,
    /// Useful GPU-milliseconds in all.
    share: i64,
    live: Option<&'a Held>,
    ranking: &'a Ranking,
    /// The cheapest on-demand slot within its ceiling.
    on_demand: Option<&'a Candidate>,
    /// Whether interruptible capacity is held or could be.
    up: bool,
}

impl<'a> Scene<'a> {
    fn new(
        world: &'a World,
        job: &'a Job,
        (record, share): (&'a ReplicaRecord, i64),
        live: Option<&'a Held>,
        ranking: &'a Ranking,
    ) -> Self {
        let within =
            |slot: &&Candidate| !over_ceiling(job, slot.price, slot.storage, slot.slot.gpus);
        let mut candidates = ranking.candidates.iter();
        let rides = live.is_some_and(|held| held.rental == Rental::Bid);
        Self {
            world,
            job,
            record,
            share,
            live,
            ranking,
            on_demand: ranking.on_demand_best.as_ref().filter(within),
            up: rides || candidates.any(|slot| slot.rental == Rental::Bid),
        }
    }

    /// Seconds that so much work takes on the model that would be taken, rounded up.
    fn seconds(&self, gpu_ms: i64) -> i64 {
        let model = self.on_demand.map(|slot| slot.gpu_name.as_str());
        let model = model.or_else(|| self.live.map(|held| held.gpu_name.as_str()));
        let factor = model
            .map_or(1_000_000, |model| self.job.factor_ppm(model))
            .max(1);
        let speed = i128::from(factor) * i128::from(self.job.requirements.gpu_count.max(1)) * 1000;
        let whole = i128::from(gpu_ms.max(0)) * 1_000_000;
        i64::try_from((whole + speed - 1) / speed).unwrap_or(i64::MAX / 4)
    }

    /// Seconds that a start takes before it works.
    fn overhead(&self) -> i64 {
        let up = millis(self.job.provision_timeout) / 2;
        up.saturating_add(millis(self.job.boot_overhead)) / 1000
    }

    /// The share of starts that fail.
    fn start_fails(&self) -> f64 {
        let (mut failed, mut all) = STARTS_ASSUMED;
        for machine in self.world.state.machines.values() {
            failed += f64::from(machine.past.no_starts);
            all += f64::from(machine.past.no_starts) + f64::from(machine.past.starts);
        }
        failed / all
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
            margin: i64::from(retries(self.start_fails(), PROMISE)).saturating_mul(ticks),
        }
    }

    fn moment(&self, terms: &Terms, left: i64, watch: &Watch) -> Moment {
        let now = self.world.now;
        let mode = self.live.map_or(Mode::Idle, |held| match held.rental {
            Rental::Bid => Mode::Spot,
            Rental::OnDemand => Mode::OnDemand,
        });
        let boot = millis(self.job.boot_overhead) / 1000;
        let overhead_left = self.live.map_or(0, |held| match held.first_ran_at {
            Some(_) => boot - held.run_ms.max(0) / 1000,
            None => (terms.overhead - now.ms_since(held.created_at).max(0) / 1000).max(boot),
        });
        Moment {
            tick: now.ms_since(watch.begun).max(0) / 1000 / terms.tick,
            ticks_left: left.div_euclid(terms.tick),
            work_left: self.seconds(self.share - self.record.durable_gpu_ms).max(1),
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
        let stands = before.is_some_and(|before| {
            let since = now.ms_since(watch.decided_at);
            let in_tick = (0..terms.tick * 1000).contains(&since);
            in_tick && before.up == watch.up && before.held_bid == held_bid
        });
        if stands {
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
            start_fails: self.start_fails(),
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
                let factor = f64::from(self.job.factor_ppm(&held.gpu_name)) / 1e6;
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
        let boot = self.live.map_or(terms.overhead, |_| moment.overhead_left);
        let now_left = self.seconds(self.share - self.record.done_gpu_ms());
        let needs = now_left.saturating_add(boot);
        if needs > left {
            let text = format!(
                "{id} cannot be done by {deadline}: {} are left, and it needs {} even if nothing takes its \
                 machine away; a deadline from {} on would do, or more GPUs",
                span(left),
                span(needs),
                Time(self.world.now.0.saturating_add(needs.saturating_mul(1000)))
            );
            told.push(tell(Severity::Alarm, "deadline-unreachable", text));
        } else if self.on_demand.is_none() && moment.mode != Mode::OnDemand {
            let cheapest = self.ranking.on_demand_best.as_ref();
            let safe = SafeSet::new(terms, moment);
            if !safe.may_wait() {
                let why = cheapest.map_or_else(
                    || "nothing suits on-demand".to_owned(),
                    |slot| {
                        let all = slot.price.saturating_add(slot.storage).as_dollars();
                        let each = all / f64::from(slot.slot.gpus.max(1));
                        format!(
                            "the cheapest on-demand takes ${each:.4} a GPU-hour, over `price.max`"
                        )
                    },
                );
                let text = format!(
                    "the deadline of {id}, {deadline}, is at risk: it needs what nobody takes away, and {why}"
                );
                told.push(tell(Severity::Alarm, "deadline-at-risk", text));
            }
        }
        told.extend(self.over_budget(now_left.saturating_add(boot), tell));
        told
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
        let rate = self
            .on_demand
            .map(|slot| slot.price.saturating_add(slot.storage));
        let rate: Rate = match self.live {
            Some(held) => held.price.saturating_add(held.storage),
            None => rate?,
        };
        let needs = rate.cost(std::time::Duration::from_secs(
            seconds.max(0).unsigned_abs(),
        ));
        (needs > left).then(|| {
            let text = format!(
                "{} needs about ${:.2} more to be done by its deadline, and {:.2} of `budget.total` are left",
                self.record.id,
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
