//! What may still be spent.
//!
//! Everything that is held may cost its worst rate until we can surely stop it: until the next
//! poll, the reaction to it, the queue of requests, and an outage. A limit holds when what is
//! posted, what is held at its worst, what is reserved for open intents and what the plan adds
//! stay within it. Beginning something needs a margin on top, so that what was just begun is not
//! wound down at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::types::ids::{InstanceId, JobName, MachineId};
use crate::types::instance::Held;
use crate::types::intent::Effect;
use crate::types::job::Job;
use crate::types::ledger::Scope;
use crate::types::money::{BID_PARKED, Money, Rate};
use crate::types::offer::Offer;
use crate::types::plan::Limit;
use crate::types::world::World;

use super::price::IMAGE_GB;

/// A beginning is worth while only if it can go on for at least so long.
const BEGIN_MARGIN: Duration = Duration::from_mins(15);

/// The time for which everything that may cost is reckoned. It allows for a request on every
/// instance and every rental of a tick before ours.
pub fn horizon(world: &World) -> Duration {
    let requests = world.state.held.len() as u32 + world.config.rents_per_tick_max;
    world.config.horizon(requests)
}

/// The rows of one machine. A snapshot is ordered by slot.
pub(crate) fn rows_of(world: &World, machine: MachineId) -> &[Offer] {
    let offers = &world.market.offers;
    let from = offers.partition_point(|offer| offer.machine < machine);
    let to = offers.partition_point(|offer| offer.machine <= machine);
    offers.get(from..to).unwrap_or_default()
}

/// What a job's traffic may cost at most on a machine: its cap at the dearer direction, or what it
/// expects. Where no price is known, the greatest that the policy accepts.
fn traffic(job: &Job, offer: Option<&Offer>) -> Money {
    let most = job.requirements.traffic_price_max;
    let down = offer
        .and_then(|o| o.inet_down_price)
        .or(most)
        .unwrap_or_default();
    let up = offer
        .and_then(|o| o.inet_up_price)
        .or(most)
        .unwrap_or_default();
    let cost = |gigabytes: f64, price: Money| {
        // Quantities in a policy are floats; the product is refused where it is no amount.
        Money::from_dollars((gigabytes * price.as_dollars()).max(0.0)).unwrap_or(Money::MAX)
    };
    match job.traffic_gb_max {
        Some(cap) => cost(cap, down.max(up)),
        None => cost(job.traffic_down_gb, down).saturating_add(cost(job.traffic_up_gb, up)),
    }
}

/// What a rental may cost until we can surely stop it.
pub(crate) fn rent_reserve(
    world: &World,
    job: &Job,
    offer: Option<&Offer>,
    price: Rate,
    storage: Rate,
) -> Money {
    price
        .saturating_add(storage)
        .cost(horizon(world))
        .saturating_add(traffic(job, offer).max(pull(job, offer)))
}

/// What the image's own bytes may cost: they are billed whatever the policy expects. At no known
/// price they may cost anything.
fn pull(job: &Job, offer: Option<&Offer>) -> Money {
    let most = job.requirements.traffic_price_max;
    let down = offer.and_then(|o| o.inet_down_price).or(most);
    down.and_then(|price| Money::from_dollars(IMAGE_GB * price.as_dollars()).ok())
        .unwrap_or(Money::MAX)
}

/// What it takes to begin something at a rate, beside its reserve.
pub(crate) fn begin_margin(job: &Job, rate: Rate) -> Money {
    rate.cost(BEGIN_MARGIN + job.boot_overhead)
}

/// What an instance may yet cost: time that is not posted yet, and the time ahead.
#[derive(Clone, Copy)]
struct Exposure {
    unposted: Money,
    ahead: Money,
    rate: Rate,
}

fn exposure(world: &World, job: Option<&Job>, held: &Held, rate: Rate) -> Exposure {
    let lag = world.now.since(held.accrued_to);
    let ahead = rate.cost(horizon(world));
    let traffic = job.map_or(Money::ZERO, |job| {
        let offer = rows_of(world, held.slot.machine).first();
        (traffic(job, offer) - held.spent_traffic).max(Money::ZERO)
    });
    Exposure {
        unposted: held.worst_rate().cost(lag),
        ahead: ahead.saturating_add(traffic),
        rate,
    }
}

/// What is used of a scope of limits.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    total: Money,
    day: Money,
    rate: Rate,
}

impl Used {
    fn add(&mut self, cost: Money, rate: Rate) {
        self.total = self.total.saturating_add(cost);
        self.day = self.day.saturating_add(cost);
        self.rate = self.rate.saturating_add(rate);
    }
}

/// What is used of every limit, and what the limits are.
pub(crate) struct Purse<'a> {
    world: &'a World,
    jobs: BTreeMap<JobName, Used>,
    all: Used,
    /// What may yet be taken from the credit.
    committed: Money,
    instances: u32,
    /// Machines on which something begins in this tick: no second thing does.
    pub(crate) begun: BTreeSet<MachineId>,
}

impl<'a> Purse<'a> {
    /// What is used before anything is planned.
    pub(crate) fn of(world: &'a World) -> Self {
        let mut purse = Self::posted(world);
        for held in world.state.held.values() {
            purse.hold(held, held.worst_rate());
        }
        purse
    }

    /// What is posted, and reserved for open intents.
    fn posted(world: &'a World) -> Self {
        let today = world.now.day(world.config.timezone);
        let mut purse = Self {
            world,
            jobs: BTreeMap::new(),
            all: Used::default(),
            committed: Money::ZERO,
            instances: world.state.held.len() as u32,
            begun: BTreeSet::new(),
        };
        for (scope, usage) in &world.state.usage {
            let used = match scope {
                Scope::Job(name) => purse.jobs.entry(name.clone()).or_default(),
                Scope::Account => &mut purse.all,
                Scope::Owner(_) | Scope::Tag(_) => continue,
            };
            used.total = used.total.saturating_add(usage.total);
            used.day = used.day.saturating_add(usage.on(today));
        }
        for (id, &reserved) in &world.state.reserved {
            let intent = world.state.intents.get(id);
            let rate = intent.map_or(Rate::ZERO, |intent| purse.intent_rate(&intent.effect));
            let job = intent
                .and_then(|intent| super::draft::replica_of(&world.state, &intent.effect))
                .map(|replica| replica.job);
            purse.commit(job.as_ref(), reserved, rate);
        }
        purse.instances += world
            .state
            .intents
            .values()
            .filter(|intent| matches!(intent.effect, Effect::Rent { .. }))
            .count() as u32;
        purse
    }

    fn intent_rate(&self, effect: &Effect) -> Rate {
        match effect {
            Effect::Rent { price, storage, .. } => price.saturating_add(*storage),
            Effect::SetBid { instance, bid } => self
                .world
                .state
                .held
                .get(instance)
                .map_or(Rate::ZERO, |held| rise(held, *bid)),
            Effect::Start { instance } => self
                .world
                .state
                .held
                .get(instance)
                .map_or(Rate::ZERO, |held| rise(held, held.price)),
            Effect::Stop { .. } | Effect::Destroy { .. } => Rate::ZERO,
        }
    }

    fn hold(&mut self, held: &Held, rate: Rate) {
        let job = self
            .world
            .jobs
            .iter()
            .find(|job| job.name == held.replica.job);
        let exposed = exposure(self.world, job.map(|job| &**job), held, rate);
        let used = self.jobs.entry(held.replica.job.clone()).or_default();
        // What is not posted yet has left the credit already.
        let cost = exposed.ahead.saturating_add(exposed.unposted);
        used.add(cost, exposed.rate);
        self.all.add(cost, exposed.rate);
        self.committed = self.committed.saturating_add(exposed.ahead);
    }

    fn commit(&mut self, job: Option<&JobName>, cost: Money, rate: Rate) {
        if let Some(job) = job {
            self.jobs.entry(job.clone()).or_default().add(cost, rate);
        }
        self.all.add(cost, rate);
        self.committed = self.committed.saturating_add(cost);
    }

    /// The credit that may be used; `None` where the account or its credit is not known, or is of
    /// another account.
    pub(crate) fn credit(world: &World) -> Option<Money> {
        let account = world.account?;
        let pinned = world.state.account.is_none_or(|id| id == account.id);
        account
            .credit
            .filter(|_| pinned)
            .map(|credit| credit.saturating_sub(world.config.credit_reserve))
    }

    /// Whether so much more fits every limit, `margin` included.
    pub(crate) fn affords(
        &self,
        job: &Job,
        cost: Money,
        margin: Money,
        rate: Rate,
        instances: u32,
    ) -> Result<(), Limit> {
        let cost = cost.saturating_add(margin);
        let used = self.jobs.get(&job.name).copied().unwrap_or_default();
        let fits = |used: Money, limit: Option<Money>| {
            limit.is_none_or(|limit| used.saturating_add(cost) <= limit)
        };
        let fits_rate = |used: Rate, limit: Option<Rate>| {
            limit.is_none_or(|limit| used.saturating_add(rate) <= limit)
        };
        let config = &self.world.config;
        let credit = Self::credit(self.world).unwrap_or(Money(i64::MIN));
        for (ok, limit) in [
            (fits(used.total, job.budget.total), Limit::JobTotal),
            (fits(used.day, job.budget.per_day), Limit::JobDay),
            (fits_rate(used.rate, job.budget.per_hour), Limit::JobHour),
            (fits(self.committed, Some(credit)), Limit::Credit),
            (fits(self.all.day, config.per_day), Limit::AccountDay),
            (
                fits_rate(self.all.rate, config.per_hour),
                Limit::AccountHour,
            ),
            (
                instances == 0 || self.instances.saturating_add(instances) <= config.instances_max,
                Limit::Instances,
            ),
        ] {
            if !ok {
                return Err(limit);
            }
        }
        Ok(())
    }

    /// Takes so much, if it fits with the margin; the margin itself is not taken.
    pub(crate) fn take(
        &mut self,
        job: &Job,
        cost: Money,
        margin: Money,
        rate: Rate,
        instances: u32,
    ) -> Result<(), Limit> {
        self.affords(job, cost, margin, rate, instances)?;
        self.commit(Some(&job.name), cost, rate);
        self.instances += instances;
        Ok(())
    }

    /// The first limit that is passed as things are, with the job that it is of.
    fn passed(&self) -> Option<(Option<JobName>, Limit)> {
        let over = |used: Money, limit: Option<Money>| limit.is_some_and(|limit| used > limit);
        let over_rate = |used: Rate, limit: Option<Rate>| limit.is_some_and(|limit| used > limit);
        for job in &self.world.jobs {
            let used = self.jobs.get(&job.name).copied().unwrap_or_default();
            let limit = if over(used.total, job.budget.total) {
                Limit::JobTotal
            } else if over(used.day, job.budget.per_day) {
                Limit::JobDay
            } else if over_rate(used.rate, job.budget.per_hour) {
                Limit::JobHour
            } else {
                continue;
            };
            return Some((Some(job.name.clone()), limit));
        }
        let config = &self.world.config;
        if Self::credit(self.world).is_some_and(|credit| self.committed > credit) {
            Some((None, Limit::Credit))
        } else if over(self.all.day, config.per_day) {
            Some((None, Limit::AccountDay))
        } else if over_rate(self.all.rate, config.per_hour) {
            Some((None, Limit::AccountHour))
        } else {
            None
        }
    }
}

/// How much dearer an instance may become by a bid or a start at `price`.
pub(crate) fn rise(held: &Held, price: Rate) -> Rate {
    let now = if held.parked {
        held.price.min(BID_PARKED)
    } else {
        held.price
    };
    (price - now).max(Rate::ZERO)
}

/// How an instance is wound down for a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saving {
    /// Parked: what its disk costs still fits.
    Park(Limit),
    /// Destroyed: its disk would pass the limit too.
    Destroy(Limit),
}

/// Which instances must be wound down so that no limit is passed: those of the lowest priority
/// first, the newest of them first, and no more than needed.
pub(crate) fn wind_down(world: &World) -> BTreeMap<InstanceId, Saving> {
    let priority = |held: &Held| {
        let job = world.jobs.iter().find(|job| job.name == held.replica.job);
        job.map_or(i32::MIN, |job| job.priority)
    };
    let leave = |held: &Held| world.unreadable_jobs.contains(&held.replica.job);
    let mut order: Vec<&Held> = world
        .state
        .held
        .values()
        .filter(|held| held.destroying.is_none() && !leave(held))
        .collect();
    order.sort_by_key(|held| {
        (
            priority(held),
            std::cmp::Reverse((held.created_at, held.id)),
        )
    });
    let mut savings: BTreeMap<InstanceId, Saving> = BTreeMap::new();
    // What is being parked already counts as parked: acting on it again would save nothing.
    let mut parked: BTreeSet<InstanceId> = world
        .state
        .held
        .values()
        .filter(|held| held.parked || held.stop_asked)
        .map(|held| held.id)
        .collect();
    // Each round winds one instance down one step, so there are at most two for each.
    for _ in 0..order.len() * 2 {
        let Some((scope, limit)) = reckoned(world, &parked, &savings).passed() else {
            break;
        };
        let within = |held: &&&Held| scope.as_ref().is_none_or(|job| held.replica.job == *job);
        let next = order.iter().filter(within);
        if let Some(held) = next.clone().find(|held| !parked.contains(&held.id)) {
            parked.insert(held.id);
            savings.insert(held.id, Saving::Park(limit));
        } else if let Some(held) = next
            .clone()
            .find(|held| !matches!(savings.get(&held.id), Some(Saving::Destroy(_))))
        {
            savings.insert(held.id, Saving::Destroy(limit));
        } else {
            break;
        }
    }
    savings
}

/// What would be used once the savings have taken effect.
fn reckoned<'a>(
    world: &'a World,
    parked: &BTreeSet<InstanceId>,
    savings: &BTreeMap<InstanceId, Saving>,
) -> Purse<'a> {
    let mut purse = Purse::posted(world);
    for held in world.state.held.values() {
        let going =
            held.destroying.is_some() || matches!(savings.get(&held.id), Some(Saving::Destroy(_)));
        let rate = if going {
            continue;
        } else if parked.contains(&held.id) {
            held.storage + held.price.min(BID_PARKED)
        } else {
            held.worst_rate()
        };
        purse.hold(held, rate);
    }
    purse
}
