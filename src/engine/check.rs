//! The second reckoning: every plan is held against the invariants by code that shares nothing
//! with the code that made it. What does not pass is dropped, with the limit it would have passed.
//!
//! What only saves passes, where it is about an instance of ours. What spends must keep every
//! limit, together with all that is posted, held, reserved and planned before it.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::ids::{InstanceId, JobName, MachineId, Permit, ReplicaId, Slot, Tail};
use crate::types::instance::{Held, Phase, Rental};
use crate::types::intent::Effect;
use crate::types::job::Job;
use crate::types::ledger::{Scope, month_of};
use crate::types::limit::{LimitRow, Measure};
use crate::types::money::{BID_PARKED, BID_STEP, Rate};
use crate::types::mutant::Mutant;
use crate::types::plan::{Action, Limit, Plan};
use crate::types::world::World;

mod copies;

/// The plan without the actions that break an invariant, and those with what they break.
pub fn check(world: &World, plan: &Plan) -> (Plan, Vec<(Action, Limit)>) {
    let mut checker = Checker::new(world, plan.actions.len());
    let mut kept = Plan::default();
    let mut dropped = Vec::new();
    for action in &plan.actions {
        match checker.pass(action) {
            Ok(()) => kept.actions.push(action.clone()),
            Err(limit) => dropped.push((action.clone(), limit)),
        }
    }
    (kept, dropped)
}

/// Nano-dollars, nano-dollars per hour and counts, wide enough never to overflow.
#[derive(Clone, Copy, Default)]
struct Sum {
    total: i128,
    day: i128,
    month: i128,
    rate: i128,
    instances: i128,
    gpus: i128,
}

/// What an action adds to the sums.
#[derive(Clone, Copy, Default)]
struct Step {
    amount: i128,
    rate: i128,
    instances: i128,
    gpus: i128,
}

struct Checker<'a> {
    world: &'a World,
    horizon_ms: i128,
    sums: BTreeMap<Scope, Sum>,
    /// Future spending that the credit must cover.
    ahead: i128,
    machines_begun: BTreeSet<MachineId>,
    replicas_begun: BTreeSet<ReplicaId>,
    /// What this plan rents.
    rented: Vec<(ReplicaId, MachineId, Rental)>,
    touched: BTreeSet<InstanceId>,
}

/// What a rate costs over a time, rounded up.
fn cost(rate: i128, ms: i128) -> i128 {
    let product = rate * ms;
    product.div_euclid(3_600_000) + i128::from(product.rem_euclid(3_600_000) != 0)
}

fn worst(held: &Held) -> i128 {
    let gpu = if held.parked {
        held.price.0.min(BID_PARKED.0)
    } else {
        held.price.0
    };
    i128::from(held.storage.0) + i128::from(gpu)
}

/// By how much an effect may raise what an instance costs per hour.
fn rise(held: &Held, effect: &Effect) -> i128 {
    let to = match effect {
        Effect::SetBid { bid, .. } => bid.0,
        Effect::Start { .. } => held.price.0,
        _ => return 0,
    };
    (i128::from(held.storage.0) + i128::from(to) - worst(held)).max(0)
}

impl<'a> Checker<'a> {
    fn new(world: &'a World, requests: usize) -> Self {
        let config = &world.config;
        // Until a poll, the reaction to it, an outage, and until a later poll proves the end.
        let waits = [
            config.poll_every,
            config.reaction,
            config.outage_allowance,
            config.settle_allowance,
            config.poll_every,
        ];
        let wait: i128 = waits.iter().map(|wait| wait.as_millis() as i128).sum();
        let queue = config.request_interval.as_millis() as i128 * (requests as i128 + 1);
        // The mistake is made on both sides: either alone is stopped by the other.
        let skipped = config.mutant == Some(Mutant::ReservationSkipped);
        let mut checker = Self {
            world,
            horizon_ms: if skipped { 0 } else { wait + queue },
            sums: BTreeMap::new(),
            ahead: 0,
            machines_begun: BTreeSet::new(),
            replicas_begun: BTreeSet::new(),
            rented: Vec::new(),
            touched: BTreeSet::new(),
        };
        checker.count_posted();
        checker.count_held();
        checker.count_reserved();
        checker
    }

    fn count_posted(&mut self) {
        let today = self.world.now.day(self.world.config.timezone);
        let mut whole = Sum::default();
        for (scope, usage) in &self.world.state.usage {
            // What all jobs spent is what the account did.
            if *scope == Scope::Account {
                continue;
            }
            let at = |periods: &BTreeMap<_, crate::types::money::Money>, period| {
                periods.get(&period).map_or(0, |spent| i128::from(spent.0))
            };
            let sum = self.sums.entry(scope.clone()).or_default();
            sum.total += i128::from(usage.total.0);
            sum.day += at(&usage.days, today);
            sum.month += at(&usage.months, month_of(today));
            if matches!(scope, Scope::Job(_)) {
                whole.total += i128::from(usage.total.0);
                whole.day += at(&usage.days, today);
                whole.month += at(&usage.months, month_of(today));
            }
        }
        self.sums.insert(Scope::Account, whole);
    }

    fn count_held(&mut self) {
        for held in self.world.state.held.values() {
            let rate = worst(held);
            let lag = i128::from(self.world.now.ms_since(held.accrued_to).max(0));
            let ahead = cost(rate, self.horizon_ms) + self.copy_held(held);
            let step = Step {
                amount: ahead + cost(rate, lag),
                rate,
                instances: 1,
                gpus: if held.parked {
                    0
                } else {
                    held.slot.gpus.into()
                },
            };
            self.add(&held.replica.job, step);
            self.ahead += ahead;
        }
    }

    fn count_reserved(&mut self) {
        let state = &self.world.state;
        for intent in state.intents.values() {
            let amount = state
                .reserved
                .get(&intent.id)
                .map_or(0, |m| i128::from(m.0));
            match &intent.effect {
                Effect::Rent {
                    replica,
                    price,
                    storage,
                    slot,
                    ..
                } => {
                    let step = Step {
                        amount,
                        rate: i128::from(price.0) + i128::from(storage.0),
                        instances: 1,
                        gpus: slot.gpus.into(),
                    };
                    self.add(&replica.job, step);
                }
                other => {
                    let held = other.instance().and_then(|id| state.held.get(&id));
                    if let Some(held) = held {
                        let step = Step {
                            amount,
                            rate: rise(held, other),
                            instances: 0,
                            gpus: woken(held, other),
                        };
                        self.add(&held.replica.job, step);
                    }
                }
            }
            self.ahead += amount;
        }
    }

    /// The scopes that a job's spending counts in, by its policy or by what that last said.
    fn scopes(&self, name: &JobName) -> BTreeSet<Scope> {
        let known = self.world.jobs.iter().find(|job| job.name == *name);
        let (owner, tags): (Option<String>, Vec<String>) = if let Some(job) = known {
            (job.owner.clone(), job.tags.clone())
        } else {
            let record = self.world.state.jobs.get(name);
            let payer = record
                .map(|record| record.payer.clone())
                .unwrap_or_default();
            (payer.owner, payer.tags.into_iter().collect())
        };
        let mut scopes = BTreeSet::from([Scope::Account, Scope::Job(name.clone())]);
        scopes.extend(owner.filter(|name| !name.is_empty()).map(Scope::Owner));
        scopes.extend(tags.into_iter().map(Scope::Tag));
        scopes
    }

    fn add(&mut self, job: &JobName, step: Step) {
        for scope in self.scopes(job) {
            let sum = self.sums.entry(scope).or_default();
            sum.total += step.amount;
            sum.day += step.amount;
            sum.month += step.amount;
            sum.rate += step.rate;
            sum.instances += step.instances;
            sum.gpus += step.gpus;
        }
    }

    // ------------------------------------------------------------------------------------ passing

    fn pass(&mut self, action: &'a Action) -> Result<(), Limit> {
        match &action.effect {
            Effect::Rent {
                replica,
                slot,
                rental,
                price,
                storage,
                ..
            } => self.rent(action, replica, *slot, *rental, *price, *storage),
            Effect::SetBid { instance, bid } => {
                let held = self.ours(*instance)?;
                if *bid < BID_PARKED || bid.0 % BID_STEP.0 != 0 {
                    return Err(Limit::Ceiling);
                }
                if *bid <= BID_PARKED || (*bid <= held.price && !held.stop_asked) {
                    return Ok(());
                }
                let most = action.on_demand_seen.ok_or(Limit::OnDemandRate)?;
                if *bid > most {
                    return Err(Limit::OnDemandRate);
                }
                self.grow(action, held, *bid)
            }
            Effect::Start { instance } => {
                let held = self.ours(*instance)?;
                self.grow(action, held, held.price)
            }
            Effect::Stop { instance } | Effect::Destroy { instance, .. } => {
                self.ours(*instance).map(|_| ())
            }
            Effect::Copy { instance, from } => self.copy(action, *instance, *from),
            // It costs nothing, and goes beside whatever else is done.
            Effect::Relabel { instance, tail } => self.relabel(*instance, *tail),
        }
    }

    /// Only the newest instance of a replica may be let work.
    fn relabel(&self, id: InstanceId, tail: Tail) -> Result<(), Limit> {
        let state = &self.world.state;
        let held = state.held.get(&id).ok_or(Limit::OwnSlots)?;
        let works = tail.permit == Permit::Go && tail.generation == held.generation;
        let newer = |generation: u32| generation > held.generation;
        let replaced = state
            .held
            .values()
            .any(|other| other.replica == held.replica && newer(other.generation))
            || state.intents.values().any(|intent| {
                matches!(&intent.effect, Effect::Rent { replica, generation, .. }
                if *replica == held.replica && newer(*generation))
            });
        // What waits for another's checkpoint does not work without it, unless it is to begin anew.
        let unready = held.bringing.as_ref().is_some_and(|bringing| {
            !bringing.opened && !bringing.anew && bringing.verified.is_none()
        });
        if works && (replaced || unready) {
            return Err(Limit::Fence);
        }
        Ok(())
    }

    /// An instance of ours, acted on once a tick.
    fn ours(&mut self, id: InstanceId) -> Result<&'a Held, Limit> {
        let held = self.world.state.held.get(&id).ok_or(Limit::OwnSlots)?;
        if self.touched.insert(id) {
            Ok(held)
        } else {
            Err(Limit::Fence)
        }
    }

    fn rent(
        &mut self,
        action: &'a Action,
        replica: &'a ReplicaId,
        slot: Slot,
        rental: Rental,
        price: Rate,
        storage: Rate,
    ) -> Result<(), Limit> {
        let job = self.may_spend(&replica.job)?;
        let secret = job.run.login.is_some() || !job.run.secrets.is_empty();
        if secret && self.world.config.withhold_secrets {
            return Err(Limit::Consent);
        }
        if job.run.runner.is_some() && self.world.config.shows_no_logs {
            return Err(Limit::Unheard);
        }
        if !self.world.listing.as_ref().is_some_and(|l| l.complete) {
            return Err(Limit::Fence);
        }
        within_ceiling(job, price, storage, slot.gpus)?;
        match (rental, action.on_demand_seen) {
            (Rental::Bid, Some(most)) if price > most => return Err(Limit::OnDemandRate),
            (Rental::Bid, _) if price <= BID_PARKED || price.0 % BID_STEP.0 != 0 => {
                return Err(Limit::Ceiling);
            }
            (Rental::OnDemand, None) => return Err(Limit::OnDemandRate),
            _ => {}
        }
        self.own_slots(slot)?;
        self.fence(replica, None)?;
        self.element(job, replica)?;
        self.service(job, replica, slot.machine, rental)?;
        let rate = i128::from(price.0) + i128::from(storage.0);
        let step = Step {
            amount: 0,
            rate,
            instances: 1,
            gpus: slot.gpus.into(),
        };
        self.limits(job, action, step)?;
        self.machines_begun.insert(slot.machine);
        self.rented.push((replica.clone(), slot.machine, rental));
        self.replicas_begun.insert(replica.clone());
        Ok(())
    }

    /// A raise, or bringing back what is parked or stopped.
    fn grow(&mut self, action: &'a Action, held: &'a Held, price: Rate) -> Result<(), Limit> {
        let job = self.may_spend(&held.replica.job)?;
        within_ceiling(job, price, held.storage, held.slot.gpus)?;
        if held.parked {
            self.own_slots(held.slot)?;
        }
        self.fence(&held.replica, Some(held.id))?;
        self.max_running(job, &held.replica)?;
        let step = Step {
            amount: 0,
            rate: rise(held, &action.effect),
            instances: 0,
            gpus: woken(held, &action.effect),
        };
        self.limits(job, action, step)?;
        self.machines_begun.insert(held.slot.machine);
        self.replicas_begun.insert(held.replica.clone());
        Ok(())
    }

    /// Nothing is spent while that is forbidden, nor on what is not known.
    fn may_spend(&self, name: &JobName) -> Result<&'a Job, Limit> {
        let world = self.world;
        let credit = world.account.and_then(|account| account.credit);
        let other = matches!(
            (world.account, world.state.account),
            (Some(seen), Some(pinned)) if seen.id != pinned
        );
        if world.state.killed || world.wind_down || other || credit.is_none() {
            return Err(Limit::CREDIT);
        }
        let job = world.jobs.iter().find(|job| job.name == *name);
        job.map(|job| &**job).ok_or(Limit::CREDIT)
    }

    /// One new rental a machine and tick, and no more of its GPUs than it has.
    fn own_slots(&self, slot: Slot) -> Result<(), Limit> {
        let world = self.world;
        let rents = world.state.intents.values().filter_map(|i| match i.effect {
            Effect::Rent { slot, .. } => Some(slot),
            _ => None,
        });
        let held = world.state.held.values();
        let ours: i64 = held
            .filter(|held| held.slot.machine == slot.machine && !held.parked)
            .map(|held| i64::from(held.slot.gpus))
            .chain(
                rents
                    .filter(|other| other.machine == slot.machine)
                    .map(|other| i64::from(other.gpus)),
            )
            .sum();
        let rows = world.market.offers.iter();
        let known = rows
            .filter(|offer| offer.machine == slot.machine)
            .filter_map(|offer| offer.machine_gpus)
            .max();
        let too_many = match known {
            Some(all) => ours + i64::from(slot.gpus) > i64::from(all),
            None => ours > 0,
        };
        if self.machines_begun.contains(&slot.machine) || too_many {
            return Err(Limit::OwnSlots);
        }
        Ok(())
    }

    /// Whether an instance at work would be the replica's only one.
    fn fence(&self, replica: &ReplicaId, but: Option<InstanceId>) -> Result<(), Limit> {
        let state = &self.world.state;
        let mut others = state
            .held
            .values()
            .filter(|held| held.replica == *replica && Some(held.id) != but);
        let might_run = others.any(|held| {
            let stirring = state.intents.values().any(|intent| match intent.effect {
                Effect::SetBid { instance, bid } => instance == held.id && bid > BID_PARKED,
                Effect::Start { instance } => instance == held.id,
                _ => false,
            });
            !held.parked || stirring
        });
        let renting = state.intents.values().any(|intent| {
            matches!(&intent.effect, Effect::Rent { replica: other, .. } if other == replica)
        });
        if might_run || renting || self.replicas_begun.contains(replica) {
            return Err(Limit::Fence);
        }
        Ok(())
    }

    /// An element of an array is begun under a number that is its own, and not after it has ended.
    fn element(&self, job: &Job, replica: &ReplicaId) -> Result<(), Limit> {
        let Some(array) = &job.array else {
            return Ok(());
        };
        if let Some(record) = self.world.state.replicas.get(replica) {
            let parameters = record.parameters.as_ref();
            let known = parameters.is_some_and(|own| array.elements.contains(own));
            if record.ending.is_some() || !known {
                return Err(Limit::Fence);
            }
        }
        self.max_running(job, replica)
    }

    /// Whether a replica may be at work beside the others of its array that are, or might be.
    fn max_running(&self, job: &Job, replica: &ReplicaId) -> Result<(), Limit> {
        let (Some(array), state) = (&job.array, &self.world.state) else {
            return Ok(());
        };
        let held = state.held.values().filter(|held| !held.parked);
        let held = held.map(|held| &held.replica);
        let begun = state
            .intents
            .values()
            .filter_map(|intent| match &intent.effect {
                Effect::Rent { replica, .. } => Some(replica),
                Effect::SetBid { instance, bid } if *bid > BID_PARKED => {
                    Some(&state.held.get(instance)?.replica)
                }
                Effect::Start { instance } => Some(&state.held.get(instance)?.replica),
                _ => None,
            });
        let is_open = |of: &&ReplicaId| {
            let record = state.replicas.get(*of);
            of.job == job.name && record.is_none_or(|record| record.ending.is_none())
        };
        let all = held.chain(begun).chain(&self.replicas_begun);
        let at_work: BTreeSet<&ReplicaId> = all.filter(is_open).collect();
        let fits = at_work.len() < array.max_running as usize;
        if fits || at_work.contains(replica) {
            Ok(())
        } else {
            Err(Limit::MaxRunning)
        }
    }

    /// A replica of a service has a host of its own, and leaves as many at the fixed rate as there have
    /// to be.
    fn service(
        &self,
        job: &Job,
        replica: &ReplicaId,
        machine: MachineId,
        rental: Rental,
    ) -> Result<(), Limit> {
        let (Some(service), state) = (job.service, &self.world.state) else {
            return Ok(());
        };
        let is_other = |of: &ReplicaId| of.job == job.name && of != replica;
        let host_of = |machine: MachineId| {
            let mut rows = self.world.market.offers.iter();
            rows.find_map(|row| row.host.filter(|_| row.machine == machine))
        };
        let held = state.held.values().filter(|held| is_other(&held.replica));
        let renting = state
            .intents
            .values()
            .filter_map(|intent| match &intent.effect {
                Effect::Rent {
                    replica,
                    slot,
                    rental,
                    ..
                } => Some((replica, slot.machine, *rental)),
                _ => None,
            });
        let planned = self
            .rented
            .iter()
            .map(|(of, machine, rental)| (of, *machine, *rental));
        let rents: Vec<_> = renting
            .chain(planned)
            .filter(|(of, ..)| is_other(of))
            .collect();
        if service.one_per_host {
            let own = host_of(machine).ok_or(Limit::OneHost)?;
            let hosts = held
                .clone()
                .map(|held| held.host.or_else(|| host_of(held.slot.machine)));
            let mut hosts = hosts.chain(rents.iter().map(|(_, machine, _)| host_of(*machine)));
            if hosts.any(|host| host.is_none_or(|host| host == own)) {
                return Err(Limit::OneHost);
            }
        }
        let on_bids = held
            .filter(|held| held.rental == Rental::Bid && !held.parked && held.destroying.is_none());
        let bids = rents
            .iter()
            .filter(|(_, _, rental)| *rental == Rental::Bid)
            .map(|(of, ..)| *of);
        let bids: BTreeSet<&ReplicaId> = on_bids.map(|held| &held.replica).chain(bids).collect();
        let most = job.replicas.saturating_sub(service.base_on_demand) as usize;
        let is_base = service.base_on_demand > 0 && rental == Rental::Bid;
        if is_base && bids.len() >= most {
            return Err(Limit::BaseOnDemand);
        }
        Ok(())
    }

    fn limits(&mut self, job: &Job, action: &Action, step: Step) -> Result<(), Limit> {
        let amount = i128::from(action.reserve.0);
        // A reserve that is less than the worst case is no reserve.
        if amount < cost(step.rate, self.horizon_ms) {
            return Err(Limit::CREDIT);
        }
        let step = Step { amount, ..step };
        let rows = self.world.config.rows_of(job);
        for row in &rows {
            if !self.keeps(row, step) {
                return Err(Limit::Of(row.scope.clone(), row.measure));
            }
        }
        self.add(&job.name, step);
        self.ahead += amount;
        Ok(())
    }

    /// Whether a limit holds with a step more.
    fn keeps(&self, row: &LimitRow, step: Step) -> bool {
        let sum = self.sums.get(&row.scope).copied().unwrap_or_default();
        let bound = i128::from(row.bound);
        let credit = self.world.account.and_then(|account| account.credit);
        let would_be = match row.measure {
            Measure::Total => sum.total + step.amount,
            Measure::Day => sum.day + step.amount,
            Measure::Month => sum.month + step.amount,
            Measure::Hour => sum.rate + step.rate,
            Measure::Instances if step.instances == 0 => return true,
            Measure::Gpus if step.gpus == 0 => return true,
            Measure::Instances => sum.instances + step.instances,
            Measure::Gpus => sum.gpus + step.gpus,
            Measure::Credit => {
                let left = credit.map(|c| i128::from(c.0) - bound);
                return left.is_some_and(|left| self.ahead + step.amount <= left);
            }
            Measure::Runway => {
                let reserve = i128::from(self.world.config.credit_reserve.0);
                let left = credit.map(|c| i128::from(c.0) - reserve);
                let burn = self.burn(step.rate);
                return left
                    .zip(burn)
                    .is_some_and(|(left, burn)| outlasts(left, burn, bound));
            }
        };
        would_be <= bound
    }

    /// What all instances on the account cost per hour, or the credit was seen to fall by, with
    /// `more`.
    fn burn(&self, more: i128) -> Option<i128> {
        let listing = self.world.listing.as_ref().filter(|l| l.complete)?;
        let mut all = self.sums.get(&Scope::Account).map_or(0, |sum| sum.rate);
        let held = &self.world.state.held;
        for row in listing
            .rows
            .iter()
            .filter(|row| !held.contains_key(&row.id))
        {
            let running = match (row.price, row.storage) {
                (Some(price), Some(storage)) => Some(i128::from(price.0) + i128::from(storage.0)),
                _ => None,
            };
            let shown = row.burn.map(|burn| i128::from(burn.0));
            // A row of what does not run yet shows less than it will cost.
            all += match (shown, running) {
                (Some(shown), Some(running)) if row.phase() != Phase::Stopped => shown.max(running),
                (Some(shown), _) => shown,
                (None, running) => running?,
            };
        }
        let seen = self
            .world
            .credit_slope
            .map_or(0, |slope| i128::from(slope.0));
        Some(all.max(seen) + more)
    }
}

/// Whether an amount lasts for so many milliseconds at a rate per hour.
fn outlasts(amount: i128, rate: i128, ms: i128) -> bool {
    if amount <= 0 {
        return ms <= 0;
    }
    rate <= 0 || amount.saturating_mul(3_600_000) / rate >= ms
}

/// How many GPUs an effect may set to work that could not run before.
fn woken(held: &Held, effect: &Effect) -> i128 {
    let wakes = match effect {
        Effect::SetBid { bid, .. } => *bid > BID_PARKED,
        Effect::Start { .. } => true,
        _ => false,
    };
    if wakes && held.parked {
        held.slot.gpus.into()
    } else {
        0
    }
}

/// (compute + disk) per raw GPU-hour, in integers.
fn within_ceiling(job: &Job, price: Rate, storage: Rate, gpus: u32) -> Result<(), Limit> {
    let asked = i128::from(price.0) + i128::from(storage.0);
    if asked > i128::from(job.price_max.0) * i128::from(gpus) {
        return Err(Limit::Ceiling);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::eligible::samples::{NOW, held, job, offer, usd, world};
    use super::*;
    use crate::types::instance::Listing;
    use crate::types::ledger::Usage;
    use crate::types::money::Money;
    use crate::types::plan::Why;

    fn scene() -> World {
        let mut world = world(vec![offer(1), offer(2)]);
        let mut second = job("b");
        second.price_max = usd(0.5);
        world.jobs = vec![Arc::new(job("a")), Arc::new(second)];
        world.listing = Some(Listing {
            complete: true,
            ..Listing::default()
        });
        world
    }

    fn rent(name: &str, machine: u64, price: f64) -> Action {
        let replica = ReplicaId {
            job: name.parse().unwrap(),
            index: 0,
        };
        Action {
            replica: Some(replica.clone()),
            effect: Effect::Rent {
                replica,
                generation: 2,
                slot: Slot {
                    machine: MachineId(machine),
                    gpus: 1,
                },
                offer: crate::types::ids::OfferId(machine * 10),
                rental: Rental::Bid,
                price: usd(price),
                disk_gb: 48,
                storage: usd(0.01),
                from: None,
                traffic: None,
            },
            why: Why::Cheapest,
            reserve: Money::dollars(1),
            parts: None,
            on_demand_seen: Some(usd(0.9)),
        }
    }

    fn verdicts(world: &World, actions: Vec<Action>) -> Vec<Limit> {
        let (kept, dropped) = check(
            world,
            &Plan {
                actions: actions.clone(),
            },
        );
        assert_eq!(kept.actions.len() + dropped.len(), actions.len());
        dropped.into_iter().map(|(_, limit)| limit).collect()
    }

    #[test]
    fn a_sound_plan_passes() {
        assert_eq!(
            verdicts(&scene(), vec![rent("a", 1, 0.2), rent("b", 2, 0.2)]),
            []
        );
    }

    #[test]
    fn each_invariant_is_held() {
        let world = scene();
        assert_eq!(
            verdicts(&world, vec![rent("b", 1, 0.4901)]),
            [Limit::Ceiling]
        );
        assert_eq!(
            verdicts(&world, vec![rent("a", 1, 0.900_1)]),
            [Limit::OnDemandRate]
        );
        assert_eq!(
            verdicts(&world, vec![rent("a", 1, 0.200_05)]),
            [Limit::Ceiling]
        );
        let twice = vec![rent("a", 1, 0.2), rent("b", 1, 0.2)];
        assert_eq!(verdicts(&world, twice), [Limit::OwnSlots]);
        let same = vec![rent("a", 1, 0.2), rent("a", 2, 0.2)];
        assert_eq!(verdicts(&world, same), [Limit::Fence]);
        let mut short = rent("a", 1, 0.2);
        short.reserve = Money(1);
        assert_eq!(verdicts(&world, vec![short]), [Limit::CREDIT]);
    }

    #[test]
    fn what_is_posted_counts_against_the_total() {
        let mut world = scene();
        let mut limited = job("a");
        limited.budget.total = Some(Money::dollars(3));
        world.jobs[0] = Arc::new(limited);
        let scope = Scope::Job("a".parse().unwrap());
        let mut usage = Usage {
            total: Money::dollars(2),
            ..Usage::default()
        };
        world.state.usage.insert(scope.clone(), usage.clone());
        assert_eq!(verdicts(&world, vec![rent("a", 1, 0.2)]), []);
        usage.total += Money(1);
        world.state.usage.insert(scope, usage);
        assert_eq!(
            verdicts(&world, vec![rent("a", 1, 0.2)]),
            [Limit::Of(Scope::Job("a".parse().unwrap()), Measure::Total)]
        );
    }

    #[test]
    fn nothing_is_spent_where_that_is_forbidden_or_unknown() {
        let sound = || vec![rent("a", 1, 0.2)];
        let spoil: [fn(&mut World); 4] = [
            |world| world.account = None,
            |world| world.state.killed = true,
            |world| world.wind_down = true,
            |world| world.state.account = Some(crate::types::ids::AccountId(2)),
        ];
        for spoil in spoil {
            let mut world = scene();
            spoil(&mut world);
            assert_eq!(verdicts(&world, sound()), [Limit::CREDIT]);
        }
        let mut world = scene();
        world.listing = None;
        assert_eq!(verdicts(&world, sound()), [Limit::Fence]);
    }

    #[test]
    fn nothing_replaces_what_may_run() {
        let mut world = scene();
        let mut running = held(5, &job("a"), &offer(9), usd(0.2));
        running.created_at = NOW;
        world.state.held.insert(running.id, running.clone());
        assert_eq!(verdicts(&world, vec![rent("a", 1, 0.2)]), [Limit::Fence]);
        running.parked = true;
        world.state.held.insert(running.id, running);
        assert_eq!(verdicts(&world, vec![rent("a", 1, 0.2)]), []);
    }

    #[test]
    fn a_raise_needs_a_known_on_demand_rate() {
        let mut world = scene();
        let stopped = held(5, &job("a"), &offer(9), usd(0.2));
        world.state.held.insert(stopped.id, stopped);
        let raise = |seen| Action {
            effect: Effect::SetBid {
                instance: InstanceId(5),
                bid: usd(0.3),
            },
            on_demand_seen: seen,
            ..rent("a", 1, 0.2)
        };
        assert_eq!(verdicts(&world, vec![raise(None)]), [Limit::OnDemandRate]);
        assert_eq!(
            verdicts(&world, vec![raise(Some(usd(0.29)))]),
            [Limit::OnDemandRate]
        );
        assert_eq!(verdicts(&world, vec![raise(Some(usd(0.3)))]), []);
    }
}
