//! What may still be spent.
//!
//! Everything that is held may cost its worst rate until we can surely stop it: until the next
//! poll, the reaction to it, the queue of requests, and an outage. A limit holds when what is
//! posted, what is held at its worst, what is reserved for open intents and what the plan adds
//! stay within it. Beginning something needs a margin on top, so that what was just begun is not
//! wound down at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::types::ids::{InstanceId, JobName, MachineId};
use crate::types::instance::{Held, Rental};
use crate::types::intent::Effect;
use crate::types::job::Job;
use crate::types::ledger::{Payer, Scope};
use crate::types::limit::{LimitRow, Measure};
use crate::types::money::{BID_PARKED, Money, Rate};
use crate::types::offer::Offer;
use crate::types::plan::{Candidate, Limit};
use crate::types::world::World;

use super::bring::set_aside;
use super::price::IMAGE_GB;
use super::runway::{burn_of_others, lasts};

/// A beginning is worth while only if it can go on for at least so long.
const BEGIN_MARGIN: Duration = Duration::from_mins(15);

/// The time for which everything that may cost is reckoned. It allows for a request on every
/// instance and every rental of a tick before ours.
pub fn horizon(world: &World) -> Duration {
    let held = u32::try_from(world.state.held.len()).unwrap_or(u32::MAX);
    let requests = held.saturating_add(world.config.rents_per_tick_max);
    world.config.horizon(requests)
}

/// The rows of one machine. A snapshot is ordered by slot.
pub(crate) fn rows_of(world: &World, machine: MachineId) -> &[Offer] {
    let offers = &world.market.offers;
    let from = offers.partition_point(|offer| offer.machine < machine);
    let to = offers.partition_point(|offer| offer.machine <= machine);
    offers.get(from..to).unwrap_or_default()
}

/// The market's row of a candidate.
pub(crate) fn offered<'a>(world: &'a World, candidate: &Candidate) -> Option<&'a Offer> {
    let mut rows = rows_of(world, candidate.slot.machine).iter();
    rows.find(|offer| offer.id == candidate.offer)
}

/// What a job's traffic may cost at most on a machine: its cap at the dearer direction, or what it
/// expects. Where no price is known, the greatest that the policy accepts.
///
/// The cap counts whole, and not only what the line could move until it is seen: nothing but the
/// bill shows bytes, and nobody promises how late. Without a cap, what goes beyond the expectation
/// is not covered, and is said not to be.
fn traffic(job: &Job, (down, up): (Option<Money>, Option<Money>)) -> Money {
    let most = job.requirements.traffic_price_max;
    let down = down.or(most).unwrap_or_default();
    let up = up.or(most).unwrap_or_default();
    let cost = |gigabytes: f64, price: Money| {
        // Quantities in a policy are floats; the product is refused where it is no amount.
        Money::from_dollars((gigabytes * price.as_dollars()).max(0.0)).unwrap_or(Money::MAX)
    };
    match job.traffic_gb_max {
        Some(cap) => cost(cap, down.max(up)),
        None => cost(job.traffic_down_gb, down).saturating_add(cost(job.traffic_up_gb, up)),
    }
}

/// What an instance that is gone may still be billed for traffic: bytes are billed late, up to the
/// cap. Without a cap its traffic is in no limit.
pub(crate) fn unbilled_traffic(job: &Job, held: &Held) -> Money {
    if job.traffic_gb_max.is_none() {
        return Money::ZERO;
    }
    traffic_left(job, held, || (None, None))
}

/// What a job's traffic on an instance may cost beyond what is posted of it. `shown`: the prices of
/// its machine, where none were agreed.
fn traffic_left(
    job: &Job,
    held: &Held,
    shown: impl FnOnce() -> (Option<Money>, Option<Money>),
) -> Money {
    let agreed = held.traffic_prices.map(|(down, up)| (Some(down), Some(up)));
    let most = traffic(job, agreed.unwrap_or_else(shown));
    // What is posted for copies between disks is no part of what the policy reckons with.
    let posted = held.spent_traffic.saturating_sub(held.copied);
    most.saturating_sub(posted.max(Money::ZERO))
        .max(Money::ZERO)
}

/// What a GB costs down and up, as far as a row says.
fn prices(offer: Option<&Offer>) -> (Option<Money>, Option<Money>) {
    (
        offer.and_then(|offer| offer.inet_down_price),
        offer.and_then(|offer| offer.inet_up_price),
    )
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
        .saturating_add(traffic(job, prices(offer)).max(pull(job, offer)))
        .saturating_add(unpriced_uploads(job, offer))
}

/// Uploads that are reckoned with and that no price is known for may cost anything.
fn unpriced_uploads(job: &Job, offer: Option<&Offer>) -> Money {
    let up = offer.and_then(|o| o.inet_up_price);
    let is_priced = up.or(job.requirements.traffic_price_max).is_some();
    if is_priced || (job.traffic_gb_max.is_none() && job.traffic_up_gb <= 0.0) {
        Money::ZERO
    } else {
        Money::MAX
    }
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
    rate.cost(BEGIN_MARGIN.saturating_add(job.boot_overhead))
}

/// What an instance may yet cost: time that is not posted yet, and the time ahead.
#[derive(Clone, Copy)]
struct Exposure {
    unposted: Money,
    ahead: Money,
}

fn exposure(world: &World, job: Option<&Job>, held: &Held, rate: Rate, over: Duration) -> Exposure {
    let lag = world.now.since(held.accrued_to);
    let traffic = job.map_or(Money::ZERO, |job| {
        traffic_left(job, held, || {
            prices(rows_of(world, held.slot.machine).first())
        })
    });
    Exposure {
        unposted: held.worst_rate().cost(lag),
        ahead: rate.cost(over).saturating_add(traffic),
    }
}

/// What is used of a scope of limits, in the units of the measures. Wide enough never to overflow.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    total: i128,
    day: i128,
    month: i128,
    rate: i128,
    instances: i128,
    gpus: i128,
}

impl Used {
    fn spend(&mut self, cost: i128) {
        self.total += cost;
        self.day += cost;
        self.month += cost;
    }

    fn add(&mut self, cost: i128, load: Load) {
        self.spend(cost);
        self.rate += i128::from(load.rate.0);
        self.instances += i128::from(load.instances);
        self.gpus += i128::from(load.gpus);
    }
}

/// What something takes of the limits that are kept at every moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// By how much the sum of rates grows.
    pub(crate) rate: Rate,
    /// New instances.
    pub(crate) instances: u32,
    /// GPUs that may run and could not before.
    pub(crate) gpus: u32,
}

/// The scopes that a job's spending counts in, by their places, and the limits that bind it.
#[derive(Debug, Default)]
struct Binding {
    scopes: Vec<usize>,
    rows: Vec<(usize, LimitRow)>,
}

/// The table of limits, with each scope's place in the reckoning.
#[derive(Debug)]
struct Frame {
    places: BTreeMap<Scope, usize>,
    jobs: BTreeMap<JobName, Binding>,
    account: usize,
}

impl Frame {
    fn new(world: &World) -> Self {
        let mut frame = Self {
            places: BTreeMap::new(),
            jobs: BTreeMap::new(),
            account: 0,
        };
        frame.account = frame.place(&Scope::Account);
        for job in world.binding_jobs() {
            let rows = world.config.rows_of(job);
            let rows = rows.into_iter().map(|row| (frame.place(&row.scope), row));
            let rows = rows.collect();
            let scopes = frame.scopes(&job.name, &job.payer());
            frame
                .jobs
                .insert(job.name.clone(), Binding { scopes, rows });
        }
        let held = world.state.held.values().map(|held| &held.replica.job);
        let renting = world
            .state
            .intents
            .values()
            .filter_map(|i| match &i.effect {
                Effect::Rent { replica, .. } => Some(&replica.job),
                _ => None,
            });
        for name in held.chain(renting) {
            // Without its policy it is on whose behalf it last was.
            if !frame.jobs.contains_key(name) {
                let scopes = frame.scopes(name, &world.state.job(name).payer);
                let rows = Vec::new();
                frame.jobs.insert(name.clone(), Binding { scopes, rows });
            }
        }
        for scope in world.state.usage.keys().chain(world.config.groups.keys()) {
            frame.place(scope);
        }
        frame
    }

    fn place(&mut self, scope: &Scope) -> usize {
        let next = self.places.len();
        *self.places.entry(scope.clone()).or_insert(next)
    }

    fn scopes(&mut self, name: &JobName, payer: &Payer) -> Vec<usize> {
        Scope::of(name, payer)
            .map(|scope| self.place(&scope))
            .collect()
    }

    /// Every limit, narrow scopes first: what keeps a job's limit helps its owner's.
    fn rows(&self, world: &World) -> Vec<(usize, LimitRow)> {
        let mut rows = world.config.rows(world.binding_jobs().map(|job| &**job));
        rows.sort_by_key(|row| match row.scope {
            Scope::Job(_) => 0,
            Scope::Owner(_) | Scope::Tag(_) => 1,
            Scope::Account => 2,
        });
        let placed = rows.into_iter().filter_map(|row| {
            let place = *self.places.get(&row.scope)?;
            Some((place, row))
        });
        placed.collect()
    }
}

/// What is used of every limit, and what the limits are.
#[derive(Clone)]
pub(crate) struct Purse<'a> {
    world: &'a World,
    frame: Arc<Frame>,
    /// By the scope's place.
    used: Vec<Used>,
    /// What may yet be taken from the credit.
    committed: i128,
    /// What the account's other instances cost; `None`: unknown.
    others: Option<Rate>,
    /// Machines on which something begins in this tick: no second thing does.
    pub(crate) begun: BTreeSet<MachineId>,
}

impl<'a> Purse<'a> {
    /// What is used before anything is planned.
    pub(crate) fn of(world: &'a World) -> Self {
        let mut purse = Self::posted(world);
        let horizon = horizon(world);
        for held in world.state.held.values() {
            let gpus = if held.parked { 0 } else { held.slot.gpus };
            purse.hold(held, held.worst_rate(), gpus, horizon);
        }
        purse
    }

    /// What is posted, and reserved for open intents.
    fn posted(world: &'a World) -> Self {
        let frame = Arc::new(Frame::new(world));
        let today = world.now.day(world.config.timezone);
        let mut used = vec![Used::default(); frame.places.len()];
        for (scope, usage) in &world.state.usage {
            if let Some(used) = frame.places.get(scope).and_then(|&n| used.get_mut(n)) {
                used.total += i128::from(usage.total.0);
                used.day += i128::from(usage.on(today).0);
                used.month += i128::from(usage.in_month_of(today).0);
            }
        }
        let mut purse = Self {
            world,
            frame,
            used,
            committed: 0,
            others: burn_of_others(world),
            begun: BTreeSet::new(),
        };
        for intent in world.state.intents.values() {
            let reserved = world.state.reserved.get(&intent.id).copied();
            let load = purse.load_of(&intent.effect);
            let job = super::draft::replica_of(&world.state, &intent.effect);
            let job = job.map(|replica| replica.job);
            purse.commit(job.as_ref(), reserved.unwrap_or_default(), load);
        }
        let closed = world.state.reserved.iter();
        for (_, &reserved) in closed.filter(|(id, _)| !world.state.intents.contains_key(*id)) {
            purse.commit(None, reserved, Load::default());
        }
        purse
    }

    fn load_of(&self, effect: &Effect) -> Load {
        let of = |instance: &InstanceId, price: Option<Rate>| {
            self.world
                .state
                .held
                .get(instance)
                .map_or_else(Load::default, |held| {
                    let price = price.unwrap_or(held.price);
                    Load {
                        rate: rise(held, price),
                        instances: 0,
                        gpus: stirs(held, price),
                    }
                })
        };
        match effect {
            Effect::Rent {
                price,
                storage,
                slot,
                ..
            } => Load {
                rate: price.saturating_add(*storage),
                instances: 1,
                gpus: slot.gpus,
            },
            Effect::SetBid { instance, bid } => of(instance, Some(*bid)),
            Effect::Start { instance } => of(instance, None),
            Effect::Stop { .. }
            | Effect::Relabel { .. }
            | Effect::Copy { .. }
            | Effect::Destroy { .. } => Load::default(),
        }
    }

    fn hold(&mut self, held: &Held, rate: Rate, gpus: u32, over: Duration) {
        let job = self.world.known_job(&held.replica.job);
        let exposed = exposure(self.world, job.map(|job| &**job), held, rate, over);
        // What is not posted yet has left the credit already.
        // What cannot run is not copied to.
        let copy = if gpus > 0 {
            set_aside(self.world, held)
        } else {
            Money::ZERO
        };
        let ahead = i128::from(exposed.ahead.0) + i128::from(copy.0);
        let load = Load {
            rate,
            instances: 1,
            gpus,
        };
        self.add(
            Some(&held.replica.job),
            ahead + i128::from(exposed.unposted.0),
            load,
        );
        self.committed += ahead;
    }

    /// What was asked to end may be billed until that is settled.
    fn hold_ending(&mut self, held: &Held) {
        let over = self.world.config.settling();
        let exposed = exposure(self.world, None, held, held.worst_rate(), over);
        let ahead = i128::from(exposed.ahead.0);
        let load = Load {
            instances: 1,
            ..Load::default()
        };
        self.add(
            Some(&held.replica.job),
            ahead + i128::from(exposed.unposted.0),
            load,
        );
        self.committed += ahead;
    }

    fn commit(&mut self, job: Option<&JobName>, cost: Money, load: Load) {
        self.add(job, cost.0.into(), load);
        self.committed += i128::from(cost.0);
    }

    fn add(&mut self, job: Option<&JobName>, cost: i128, load: Load) {
        let frame = Arc::clone(&self.frame);
        let account = [frame.account];
        let binding = job.and_then(|job| frame.jobs.get(job));
        let scopes = binding.map_or(&account[..], |binding| &binding.scopes);
        for &place in scopes {
            if let Some(used) = self.used.get_mut(place) {
                used.add(cost, load);
            }
        }
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
        load: Load,
    ) -> Result<(), Limit> {
        let Some(credit) = Self::credit(self.world) else {
            return Err(Limit::CREDIT);
        };
        let Some(binding) = self.frame.jobs.get(&job.name) else {
            return Err(Limit::CREDIT);
        };
        let cost = i128::from(cost.0) + i128::from(margin.0);
        for (place, row) in &binding.rows {
            let used = self.used.get(*place).copied().unwrap_or_default();
            let bound = i128::from(row.bound);
            let fits = match row.measure {
                Measure::Total => used.total + cost <= bound,
                Measure::Day => used.day + cost <= bound,
                Measure::Month => used.month + cost <= bound,
                Measure::Hour => used.rate + i128::from(load.rate.0) <= bound,
                // What takes none of these passes whatever is there.
                Measure::Instances => {
                    load.instances == 0 || used.instances + i128::from(load.instances) <= bound
                }
                Measure::Gpus => load.gpus == 0 || used.gpus + i128::from(load.gpus) <= bound,
                Measure::Credit => self.committed + cost <= i128::from(credit.0),
                Measure::Runway => self.lasts(credit, load.rate, row.bound),
            };
            if !fits {
                return Err(Limit::Of(row.scope.clone(), row.measure));
            }
        }
        Ok(())
    }

    /// Whether the credit lasts for at least so many milliseconds with `more` to pay per hour.
    fn lasts(&self, credit: Money, more: Rate, least: i64) -> bool {
        let Some(others) = self.others else {
            return false;
        };
        let ours = self
            .used
            .get(self.frame.account)
            .map_or(0, |used| used.rate);
        let seen = self.world.credit_slope.unwrap_or(Rate::ZERO);
        let burn = (ours + i128::from(others.0)).max(seen.0.into()) + i128::from(more.0);
        let least = Duration::from_millis(u64::try_from(least).unwrap_or(0));
        lasts(credit.0.into(), burn).is_none_or(|time| time >= least)
    }

    /// Takes so much, if it fits with the margin; the margin itself is not taken.
    pub(crate) fn take(
        &mut self,
        job: &Job,
        cost: Money,
        margin: Money,
        load: Load,
    ) -> Result<(), Limit> {
        self.affords(job, cost, margin, load)?;
        self.commit(Some(&job.name), cost, load);
        Ok(())
    }

    /// The limits that are passed as things are and that winding down helps, of the given rows. A
    /// count of instances and the runway only keep new ones out; what is unknown is not passed.
    fn passed<'r>(
        &'r self,
        rows: &'r [(usize, LimitRow)],
    ) -> impl Iterator<Item = &'r (usize, LimitRow)> {
        let reserve = self.world.config.credit_reserve;
        let read = self.world.credit_read;
        let read = read.map(|credit| credit.saturating_sub(reserve));
        let credit =
            Self::credit(self.world).map(|least| read.map_or(least, |read| read.max(least)));
        rows.iter().filter(move |(place, row)| {
            let used = self.used.get(*place).copied().unwrap_or_default();
            let bound = i128::from(row.bound);
            match row.measure {
                Measure::Total => used.total > bound,
                Measure::Day => used.day > bound,
                Measure::Month => used.month > bound,
                Measure::Hour => used.rate > bound,
                Measure::Gpus => used.gpus > bound,
                Measure::Credit => credit.is_some_and(|c| self.committed > i128::from(c.0)),
                Measure::Instances | Measure::Runway => false,
            }
        })
    }
}

/// How many GPUs may run, and could not before, by a bid or a start at `price`.
pub(crate) fn stirs(held: &Held, price: Rate) -> u32 {
    let starts = price > BID_PARKED || held.rental == Rental::OnDemand;
    if held.parked && starts {
        held.slot.gpus
    } else {
        0
    }
}

/// How much dearer an instance may become by a bid or a start at `price`.
pub(crate) fn rise(held: &Held, price: Rate) -> Rate {
    let now = if held.parked {
        held.price.min(BID_PARKED)
    } else {
        held.price
    };
    Rate(price.0.saturating_sub(now.0)).max(Rate::ZERO)
}

/// How an instance is wound down for a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Saving {
    /// Parked: what its disk costs still fits.
    Park(Limit),
    /// Destroyed: its disk would pass the limit too.
    Destroy(Limit),
}

/// Which instances must be wound down so that no limit is passed: those of the lowest priority
/// first, the newest of them first, and no more than needed.
pub(crate) fn wind_down(world: &World) -> BTreeMap<InstanceId, Saving> {
    let posted = Purse::posted(world);
    let rows = posted.frame.rows(world);
    let mut descent = Descent::new(world, &posted, &rows);
    // Each round winds one instance down one step, so there are at most two for each.
    for _ in 0..descent.order.len() * 2 {
        if !descent.step() {
            break;
        }
    }
    descent.give_back();
    descent.savings
}

/// A winding down being worked out.
struct Descent<'a> {
    world: &'a World,
    posted: &'a Purse<'a>,
    rows: &'a [(usize, LimitRow)],
    /// What may be wound down, the first to go first.
    order: Vec<&'a Held>,
    /// What is parked or being parked, as things are: acting on it again would save nothing.
    parked: BTreeSet<InstanceId>,
    savings: BTreeMap<InstanceId, Saving>,
}

impl<'a> Descent<'a> {
    fn new(world: &'a World, posted: &'a Purse<'a>, rows: &'a [(usize, LimitRow)]) -> Self {
        let priority = |held: &Held| {
            let job = world.known_job(&held.replica.job);
            job.map_or(i32::MIN, |job| job.priority)
        };
        let held = world.state.held.values();
        let mut order: Vec<&Held> = held.filter(|held| held.destroying.is_none()).collect();
        order.sort_by_key(|held| {
            (
                priority(held),
                std::cmp::Reverse((held.created_at, held.id)),
            )
        });
        let held = world.state.held.values();
        let parked = held
            .filter(|held| held.parked || held.stop_asked)
            .map(|held| held.id)
            .collect();
        Self {
            world,
            posted,
            rows,
            order,
            parked,
            savings: BTreeMap::new(),
        }
    }

    /// What would be used once the savings have taken effect.
    fn reckoned(&self) -> Purse<'a> {
        let mut purse = self.posted.clone();
        let horizon = horizon(self.world);
        for held in self.world.state.held.values() {
            let saving = self.savings.get(&held.id);
            if held.destroying.is_some() || matches!(saving, Some(Saving::Destroy(_))) {
                purse.hold_ending(held);
            } else if saving.is_some() || self.parked.contains(&held.id) {
                let rate = held.storage.saturating_add(held.price.min(BID_PARKED));
                purse.hold(held, rate, 0, horizon);
            } else {
                purse.hold(held, held.worst_rate(), held.slot.gpus, horizon);
            }
        }
        purse
    }

    /// Winds one instance down one step further, for the first limit that this helps; whether
    /// there was one.
    fn step(&mut self) -> bool {
        let purse = self.reckoned();
        for (place, row) in purse.passed(self.rows) {
            let within = |held: &&&Held| {
                let binding = purse.frame.jobs.get(&held.replica.job);
                binding.is_some_and(|binding| binding.scopes.contains(place))
            };
            let limit = || Limit::Of(row.scope.clone(), row.measure);
            let next = self.order.iter().filter(within);
            let stands = |held: &&&Held| {
                !self.parked.contains(&held.id) && !self.savings.contains_key(&held.id)
            };
            if let Some(held) = next.clone().find(stands) {
                self.savings.insert(held.id, Saving::Park(limit()));
                return true;
            }
            // Disks have neither GPUs nor more than a trace of the sum of rates.
            let disks = row.measure != Measure::Gpus;
            let there = |held: &&&Held| {
                disks && !matches!(self.savings.get(&held.id), Some(Saving::Destroy(_)))
            };
            if let Some(held) = next.clone().find(there) {
                self.savings.insert(held.id, Saving::Destroy(limit()));
                return true;
            }
        }
        false
    }

    /// Takes back what turned out not to be needed: what was done for one limit may have been
    /// enough for another. The highest priority first.
    fn give_back(&mut self) {
        if self.savings.len() < 2 || self.reckoned().passed(self.rows).next().is_some() {
            return;
        }
        for held in self.order.clone().into_iter().rev() {
            if let Some(saving) = self.savings.remove(&held.id)
                && self.reckoned().passed(self.rows).next().is_some()
            {
                self.savings.insert(held.id, saving);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::eligible::samples::{job, offer, usd, world};
    use super::*;

    #[test]
    fn uploads_that_no_price_is_known_for_are_not_taken_for_free() {
        let world = world(Vec::new());
        let mut unpriced = offer(9);
        unpriced.inet_up_price = None;
        let reserve =
            |job: &Job, offer: &Offer| rent_reserve(&world, job, Some(offer), usd(0.2), Rate::ZERO);
        let mut job = job("a");
        (job.traffic_up_gb, job.traffic_gb_max) = (0.0, None);
        assert!(reserve(&job, &unpriced) < Money::MAX);
        let uses: [fn(&mut Job); 2] = [
            |job| job.traffic_gb_max = Some(50.0),
            |job| job.traffic_up_gb = 1.0,
        ];
        for uses in uses {
            let mut job = job.clone();
            uses(&mut job);
            assert_eq!(reserve(&job, &unpriced), Money::MAX);
            assert!(reserve(&job, &offer(9)) < Money::MAX);
            job.requirements.traffic_price_max = Some(Money(3_000_000));
            assert!(reserve(&job, &unpriced) < Money::MAX);
        }
    }
}
