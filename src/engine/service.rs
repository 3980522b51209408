//! What holds of the replicas of a service together: on which hosts they are, and how many of them are
//! at the host's fixed rate.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::types::ids::{HostId, MachineId, ReplicaId};
use crate::types::instance::{Held, Rental};
use crate::types::intent::Effect;
use crate::types::job::{Job, RentalChoice};
use crate::types::world::World;

use super::array::Member;
use super::budget::rows_of;
use super::rank::{MarketIndex, Ranking, rank};

/// Whose a machine is, as far as the market says.
pub(crate) fn host_of(world: &World, machine: MachineId) -> Option<HostId> {
    rows_of(world, machine).iter().find_map(|offer| offer.host)
}

/// Whether no two replicas of a job may be on one host.
pub(crate) fn is_spread(job: &Job) -> bool {
    job.service.is_some_and(|service| service.one_per_host)
}

/// A job as slots are ranked for it: one that is spread takes none of a host that it is on. A host may
/// have more slots than are ranked.
pub(crate) fn as_ranked<'a>(world: &World, job: &'a Job) -> Cow<'a, Job> {
    if !is_spread(job) {
        return Cow::Borrowed(job);
    }
    let own = world
        .state
        .held
        .values()
        .filter(|held| held.replica.job == job.name);
    let hosts = own.filter_map(|held| held.host.or_else(|| host_of(world, held.slot.machine)));
    let mut job = job.clone();
    job.requirements.hosts_denied.extend(hosts);
    Cow::Owned(job)
}

/// The hosts that the other replicas of a job are on, or may come to be on. `None`: of one of them it is
/// not known, so that it might be any.
pub(crate) fn hosts_of_others(
    world: &World,
    job: &Job,
    replica: &ReplicaId,
) -> Option<BTreeSet<HostId>> {
    let is_other = |of: &ReplicaId| of.job == job.name && of != replica;
    let held = world
        .state
        .held
        .values()
        .filter(|held| is_other(&held.replica));
    let held = held.map(|held| held.host.or_else(|| host_of(world, held.slot.machine)));
    let intents = world.state.intents.values();
    let rents = intents.filter_map(|intent| match &intent.effect {
        Effect::Rent { replica, slot, .. } if is_other(replica) => Some(slot.machine),
        _ => None,
    });
    held.chain(rents.map(|machine| host_of(world, machine)))
        .collect()
}

/// What of a service has to be rented at the host's fixed rate.
#[derive(Default)]
pub(crate) struct Base {
    /// So many of the replicas that are rented for next.
    pub(crate) wanted: u32,
    /// What they may take.
    pub(crate) ranking: Ranking,
}

impl Base {
    pub(crate) fn of(
        world: &World,
        job: &Job,
        members: &[Member<'_>],
        index: &MarketIndex<'_>,
    ) -> Self {
        let least = job.service.map_or(0, |service| service.base_on_demand);
        if least == 0 {
            return Self::default();
        }
        let has = |member: &&Member<'_>| is_on_demand(world, job, member.index);
        let has = members.iter().filter(has).count();
        let wanted = least.saturating_sub(u32::try_from(has).unwrap_or(u32::MAX));
        if wanted == 0 {
            return Self::default();
        }
        let job = Job {
            rental: RentalChoice::OnDemand,
            ..job.clone()
        };
        Self {
            wanted,
            ranking: rank(world, &job, index),
        }
    }
}

/// Whether a replica has an instance at the host's fixed rate, or is being rented one.
fn is_on_demand(world: &World, job: &Job, index: u32) -> bool {
    let is_it = |of: &ReplicaId| of.job == job.name && of.index == index;
    // One that is parked serves nobody, and may never again.
    let stands = |held: &&Held| is_it(&held.replica) && held.destroying.is_none() && !held.parked;
    let newest = world.state.held.values().filter(stands);
    let newest = newest.max_by_key(|held| (held.generation, held.intent, held.id));
    let renting = world.state.intents.values().any(|intent| {
        matches!(&intent.effect, Effect::Rent { replica, rental: Rental::OnDemand, .. } if is_it(replica))
    });
    renting || newest.is_some_and(|held| held.rental == Rental::OnDemand)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::check::check;
    use super::super::decide::decide;
    use super::super::eligible::samples::{job, offer, usd, world};
    use super::super::properties::{act, list};
    use super::*;
    use crate::types::job::{Finish, Service};
    use crate::types::offer::Offer;
    use crate::types::plan::{Limit, Plan, Situation};

    /// A service, and a market in which every machine is the host's of its number.
    fn scene(replicas: u32, base_on_demand: u32, hosts: &[Option<u64>]) -> World {
        let offers: Vec<Offer> = hosts
            .iter()
            .zip(1..)
            .map(|(host, machine)| {
                let mut offer = offer(machine);
                offer.host = host.map(HostId);
                // The first is the cheapest.
                offer.floor = Some(usd(0.1 + machine as f64 / 1000.0));
                offer
            })
            .collect();
        let mut world = world(offers);
        world.jobs = vec![Arc::new(Job {
            replicas,
            rental: RentalChoice::Auto,
            finish: Finish::Never,
            disposable: true,
            service: Some(Service {
                one_per_host: true,
                base_on_demand,
            }),
            ..job("a")
        })];
        list(&mut world, true);
        world
    }

    /// What is rented next: the replica, its machine and how.
    fn rents(plan: &Plan) -> BTreeMap<u32, (u64, Rental)> {
        let rent = |effect: &Effect| match effect {
            Effect::Rent {
                replica,
                slot,
                rental,
                ..
            } => Some((replica.index, (slot.machine.0, *rental))),
            _ => None,
        };
        plan.actions
            .iter()
            .filter_map(|action| rent(&action.effect))
            .collect()
    }

    #[test]
    fn no_two_replicas_are_on_one_host() {
        let mut world = scene(3, 0, &[Some(7), Some(7), None, Some(8)]);
        let (plan, report) = decide(&world);
        let first: Vec<u64> = rents(&plan).values().map(|(machine, _)| *machine).collect();
        assert_eq!(
            first,
            [1, 4],
            "not the second of the same host, nor one of nobody knows whom"
        );
        let held_back = Situation::OverLimit {
            limit: Limit::OneHost,
        };
        assert_eq!(report.jobs[0].replicas[1].situation, held_back);
        assert_eq!(check(&world, &plan).1, Vec::new());
        act(&mut world, &plan);
        let (plan, report) = decide(&world);
        assert_eq!(rents(&plan), BTreeMap::new());
        assert_eq!(report.jobs[0].replicas[1].situation, held_back);
        // Whose an instance is that is ours is not known any more: it might be anybody's.
        let mut blind = scene(2, 0, &[Some(7), Some(8)]);
        let mut lost =
            super::super::eligible::samples::held(5, &blind.jobs[0], &offer(99), usd(0.2));
        lost.host = None;
        blind.state.held.insert(lost.id, lost);
        list(&mut blind, true);
        let (plan, _) = decide(&blind);
        assert_eq!(rents(&plan), BTreeMap::new());
    }

    #[test]
    fn the_base_is_on_demand_whoever_is_rented_for_next() {
        let hosts: Vec<Option<u64>> = (1..=6).map(Some).collect();
        let mut world = scene(3, 1, &hosts);
        let (plan, _) = decide(&world);
        let how: Vec<Rental> = rents(&plan).values().map(|(_, rental)| *rental).collect();
        assert_eq!(how, [Rental::OnDemand, Rental::Bid, Rental::Bid]);
        act(&mut world, &plan);
        // One on a bid is lost: the next one is again. The one on demand is lost: so is the next.
        for (index, rental) in [(2, Rental::Bid), (0, Rental::OnDemand)] {
            world
                .state
                .held
                .retain(|_, held| held.replica.index != index);
            list(&mut world, true);
            let (plan, _) = decide(&world);
            assert_eq!(rents(&plan)[&index].1, rental);
            act(&mut world, &plan);
        }
        // More are wanted than there are: what runs goes on, and the next one is on demand.
        let mut job = (*world.jobs[0]).clone();
        job.service = Some(Service {
            one_per_host: true,
            base_on_demand: 2,
        });
        world.jobs = vec![Arc::new(job)];
        assert_eq!(rents(&decide(&world).0), BTreeMap::new());
        world.state.held.retain(|_, held| held.replica.index != 1);
        list(&mut world, true);
        assert_eq!(rents(&decide(&world).0)[&1].1, Rental::OnDemand);
    }

    #[test]
    fn the_second_reckoning_holds_hosts_and_the_base() {
        let world = scene(3, 2, &[Some(7), Some(8), Some(9)]);
        let (plan, _) = decide(&world);
        assert_eq!(check(&world, &plan).1, Vec::new());
        let dropped = |change: &dyn Fn(&mut Effect)| {
            let mut plan = plan.clone();
            for action in &mut plan.actions {
                change(&mut action.effect);
            }
            check(&world, &plan)
                .1
                .into_iter()
                .map(|(_, limit)| limit)
                .collect::<Vec<_>>()
        };
        let bids = |effect: &mut Effect| {
            if let Effect::Rent { rental, price, .. } = effect {
                *rental = Rental::Bid;
                *price = usd(0.2);
            }
        };
        assert_eq!(dropped(&bids), [Limit::BaseOnDemand, Limit::BaseOnDemand]);
        let mut world = world.clone();
        let mut market = (*world.market).clone();
        for offer in &mut market.offers {
            offer.host = Some(HostId(7));
        }
        world.market = Arc::new(market);
        let limits: Vec<Limit> = check(&world, &plan)
            .1
            .into_iter()
            .map(|(_, limit)| limit)
            .collect();
        assert_eq!(limits, [Limit::OneHost, Limit::OneHost]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whatever is lost when: no host has two, and with all of them up the base is there.
        #[test]
        fn hosts_are_distinct_and_the_base_is_kept(
            losses in proptest::collection::vec(0_u32..4, 0..20),
            base in 0_u32..4,
        ) {
            let hosts: Vec<Option<u64>> = (0..18).map(|machine| Some(machine % 6)).collect();
            let mut world = scene(4, base, &hosts);
            for lost in losses {
                let (plan, report) = decide(&world);
                prop_assert_eq!(&check(&world, &plan).1, &Vec::new(), "{:?}", report);
                act(&mut world, &plan);
                let all: Vec<&Held> = world.state.held.values().collect();
                let distinct: BTreeSet<_> = all.iter().map(|held| held.host).collect();
                prop_assert_eq!(distinct.len(), all.len());
                let fixed = all.iter().filter(|held| held.rental == Rental::OnDemand).count();
                prop_assert!(all.len() < 4 || fixed >= base as usize, "{fixed} of {base}");
                world.state.held.retain(|_, held| held.replica.index != lost);
                world.now = world.now + Duration::from_mins(1);
                list(&mut world, true);
            }
        }
    }
}
