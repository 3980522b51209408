//! One decision: a world becomes a plan and a report that says why.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::types::deadline::Stance;
use crate::types::ids::{HostId, InstanceId, JobName, MachineId, ReplicaId};
use crate::types::instance::{DestroyWhy, Held, Rental};
use crate::types::intent::{Effect, Intent};
use crate::types::job::{Job, RentalChoice};
use crate::types::money::BID_PARKED;
use crate::types::plan::{
    Action, Candidate, JobReport, Limit, Missing, Notice, Plan, Refusal, ReplicaReport, Report,
    Situation, Why,
};
use crate::types::state::{Severity, Wish};
use crate::types::world::World;

use super::act::{destroy, destroy_again, expendable, lets_go, never_ran, park, wound_down};
use super::array::{members, queued};
use super::assign::{Need, assign};
use super::budget::{Load, Purse, Saving, offered, wind_down};
use super::eligible::factor_ppm;
use super::ladder::cannot_start;
use super::lease::relabel;
use super::means::cost;
use super::moving::{cheaper_elsewhere, no_dearer_elsewhere};
use super::pace::{Pace, pace};
use super::projection;
use super::rank::{MarketIndex, Ranking, rank};
use super::replica::{Ground, step};
use super::service::{Base, as_ranked, host_of, hosts_of_others, is_spread};

/// Best slots that a report shows for a job.
const BEST_SHOWN: usize = 5;

/// What this tick should do, and why. Saving comes first, then what spends by priority.
pub fn decide(world: &World) -> (Plan, Report) {
    let saving = wind_down(world);
    let wanted = |job: &Job| {
        let members = members(&world.state, job);
        members.into_iter().map(|member| member.index).collect()
    };
    let mut tick = Tick {
        world,
        wanted: world
            .jobs
            .iter()
            .map(|job| (&job.name, wanted(job)))
            .collect(),
        saving: &saving,
        purse: Purse::of(world),
        actions: Vec::new(),
        needs: Vec::new(),
        reclaims: BTreeSet::new(),
        from: BTreeMap::new(),
        hosts: BTreeSet::new(),
        moves: false,
        report: Report::default(),
    };
    tick.leftovers();
    let index = MarketIndex::new(world);
    for (order, job) in world.jobs.iter().enumerate() {
        tick.job(order, job, &index);
    }
    tick.rent();
    tick.leases();
    tick.finish()
}

/// A decision under way.
struct Tick<'a> {
    world: &'a World,
    /// The replicas that each job asks for.
    wanted: BTreeMap<&'a JobName, BTreeSet<u32>>,
    saving: &'a BTreeMap<InstanceId, Saving>,
    purse: Purse<'a>,
    /// With the place of its job in the order of priority.
    actions: Vec<(usize, Action)>,
    needs: Vec<Need>,
    /// Replicas that take their machine back on-demand.
    reclaims: BTreeSet<ReplicaId>,
    /// The instances from whose disks replicas go on.
    from: BTreeMap<ReplicaId, InstanceId>,
    /// The hosts of what is rented in this tick, by job.
    hosts: BTreeSet<(&'a JobName, HostId)>,
    /// Whether something leaves for a cheaper slot: one at a time.
    moves: bool,
    report: Report,
}

/// What a job can take, by what its deadline wishes for; ranked once it is asked for.
struct Rankings<'r, 'w> {
    world: &'r World,
    job: &'r Job,
    index: &'r MarketIndex<'w>,
    /// Whatever the rental.
    free: &'r Ranking,
    bids: Option<Ranking>,
    sure: Option<Ranking>,
}

impl<'r, 'w> Rankings<'r, 'w> {
    fn new(world: &'r World, job: &'r Job, index: &'r MarketIndex<'w>, free: &'r Ranking) -> Self {
        Self {
            world,
            job,
            index,
            free,
            bids: None,
            sure: None,
        }
    }

    /// The ranking of a stance. Of what is sure, that on which the rest can be done in time, where there is any.
    fn of(&mut self, stance: Stance, pace: Option<&Pace>) -> Cow<'_, Ranking> {
        let (kept, rental) = match stance {
            Stance::Ride => return Cow::Borrowed(self.free),
            Stance::Wait => (&mut self.bids, RentalChoice::Interruptible),
            Stance::Sure => (&mut self.sure, RentalChoice::OnDemand),
        };
        let job = self.job;
        let all = kept.get_or_insert_with(|| {
            let job = Job {
                rental,
                ..job.clone()
            };
            rank(self.world, &job, self.index)
        });
        let fast = |slot: &Candidate| {
            let factor = factor_ppm(job, &slot.gpu_name);
            pace.is_some_and(|pace| pace.is_in_time_on(factor))
        };
        if stance != Stance::Sure || !all.candidates.iter().any(fast) {
            return Cow::Borrowed(all);
        }
        let mut in_time = all.clone();
        in_time.candidates.retain(fast);
        Cow::Owned(in_time)
    }
}

/// Whether an action only saves.
fn saves(world: &World, effect: &Effect) -> bool {
    match effect {
        Effect::Destroy { .. } | Effect::Stop { .. } | Effect::Relabel { .. } => true,
        Effect::SetBid { instance, bid } => {
            let held = world.state.held.get(instance);
            *bid <= BID_PARKED || held.is_some_and(|held| *bid < held.price)
        }
        Effect::Rent { .. } | Effect::Start { .. } | Effect::Copy { .. } => false,
    }
}

impl<'a> Tick<'a> {
    fn blind(&self) -> Option<Missing> {
        let world = self.world;
        let stale = world.now.since(world.market.at) > world.config.offers_max_age;
        if !world
            .listing
            .as_ref()
            .is_some_and(|listing| listing.complete)
        {
            Some(Missing::Listing)
        } else if Purse::credit(world).is_none() {
            Some(Missing::Account)
        } else if stale {
            Some(Missing::Offers)
        } else {
            None
        }
    }

    /// Labels before everything else: what is woken reads its own at once.
    fn leases(&mut self) {
        // What goes is let do nothing more.
        let goes = self
            .actions
            .iter()
            .filter_map(|(_, action)| match action.effect {
                Effect::Destroy { instance, .. } => Some(instance),
                _ => None,
            });
        let goes: BTreeSet<InstanceId> = goes.collect();
        let held = self.world.state.held.values();
        let stays = held.filter(|held| !goes.contains(&held.id));
        let labels = stays.filter_map(|held| relabel(self.world, held));
        let labels: Vec<_> = labels.map(|action| (0, action)).collect();
        self.actions.splice(0..0, labels);
    }

    // ------------------------------------------------------------------------------------- jobs

    fn job(&mut self, order: usize, job: &'a Job, index: &MarketIndex<'_>) {
        let world = self.world;
        let over = matches!(world.state.job(&job.name).wish, Wish::Stop | Wish::Done);
        let ranked = as_ranked(world, job);
        let ranking = if over {
            Ranking::default()
        } else {
            rank(world, &ranked, index)
        };
        let mut rankings = Rankings::new(world, &ranked, index, &ranking);
        let mut replicas = Vec::new();
        let members = members(&world.state, job);
        let queued = queued(world, job, &members);
        let mut base = if over {
            Base::default()
        } else {
            Base::of(world, &ranked, &members, index)
        };
        for member in members {
            let id = ReplicaId {
                job: job.name.clone(),
                index: member.index,
            };
            let waits = queued.get(&member.index).cloned();
            replicas.push(if world.state.killed {
                ReplicaReport {
                    replica: id,
                    situation: Situation::Killed,
                    recourses: Vec::new(),
                    deadline: None,
                }
            } else {
                let all = (&mut rankings, &mut base, index);
                self.replica(order, job, &id, all, waits)
            });
        }
        self.report.jobs.push(JobReport {
            job: job.name.clone(),
            replicas,
            eligible: ranking.eligible,
            best: ranking
                .candidates
                .iter()
                .take(BEST_SHOWN)
                .cloned()
                .collect(),
            refused: ranking.refused,
            best_refused: ranking.best_refused,
            on_demand_best: ranking.on_demand_best,
        });
    }

    fn replica(
        &mut self,
        order: usize,
        job: &'a Job,
        id: &ReplicaId,
        (rankings, base, index): (&mut Rankings<'_, '_>, &mut Base, &MarketIndex<'_>),
        queued: Option<Situation>,
    ) -> ReplicaReport {
        let world = self.world;
        let mut held: Vec<&Held> = world
            .state
            .held
            .values()
            .filter(|held| held.replica == *id)
            .collect();
        held.sort_by_key(|held| std::cmp::Reverse((held.generation, held.intent, held.id)));
        let blind = self.blind();
        let may_rent =
            world.config.keeps_back(&job.run).is_none() && cannot_start(world, job).is_none();
        let record = world.state.replica(id);
        let works = world.state.job(&job.name).wish == Wish::Run;
        let pace = works
            .then(|| pace(world, job, &record, &held, rankings.free))
            .flatten();
        let stance = pace.as_ref().map_or(Stance::Ride, |pace| pace.stance);
        let leaves = pace.as_ref().is_some_and(|pace| pace.leaves);
        let in_time = pace.as_ref().is_some_and(|pace| pace.in_time);
        let may_move = pace.as_ref().is_none_or(|pace| pace.may_move);
        let view = pace.as_ref().map(|pace| pace.view);
        let free = rankings.free;
        let ranking = &*rankings.of(stance, pace.as_ref());
        if let Some(pace) = &pace {
            self.report.notices.extend(pace.notices.iter().cloned());
            self.report.watches.push((id.clone(), pace.watch.clone()));
        }
        let newest = held.first().filter(|_| may_rent && may_move && !self.moves);
        let cheaper = newest.is_some_and(|held| {
            let best = cheaper_elsewhere(world, job, (ranking, index), held, &record);
            best.is_some_and(|best| self.affords(job, id, best).is_ok())
        });
        // One at a time: what there is elsewhere is there once.
        let alone = !self.moves && !self.others_are_between(job, id);
        let no_dearer = held
            .first()
            .filter(|_| alone)
            .is_some_and(|held| no_dearer_elsewhere(world, job, (ranking, index), held, &record));
        let step = step(&mut Ground {
            world,
            job,
            record,
            held,
            saving: self.saving,
            blind,
            risks: index.risks(),
            best: if may_rent { &ranking.candidates } else { &[] },
            cheaper,
            no_dearer,
            stance,
            in_time,
            leaves,
            queued,
            purse: &mut self.purse,
        });
        let is_move = |action: &Action| {
            let leaves = matches!(action.effect, Effect::Destroy { .. });
            action.why == Why::CheaperElsewhere || (no_dearer && leaves)
        };
        self.moves |= step.actions.iter().any(is_move);
        self.actions
            .extend(step.actions.into_iter().map(|action| (order, action)));
        self.report.notices.extend(step.notices);
        let report = |situation| ReplicaReport {
            replica: id.clone(),
            situation,
            recourses: step.recourses,
            deadline: view,
        };
        if !step.wants {
            return report(step.situation);
        }
        self.from.extend(step.from.map(|from| (id.clone(), from)));
        let own = step.reclaims.map(|slot| Ranking {
            candidates: vec![slot],
            ..Ranking::default()
        });
        let reclaims = own.map(|own| self.need(job, id, &own));
        let got = self.needs.last().is_some_and(|need| need.replica == *id);
        let situation = match reclaims {
            Some(situation) if got => {
                self.reclaims.insert(id.clone());
                // It is at the host's fixed rate.
                base.wanted = base.wanted.saturating_sub(1);
                situation
            }
            _ if base.wanted > 0 => {
                base.wanted -= 1;
                self.need(job, id, &base.ranking)
            }
            _ => {
                let situation = self.need(job, id, ranking);
                let got = self.needs.last().is_some_and(|need| need.replica == *id);
                if stance == Stance::Sure && !got {
                    // What may be taken away is better than nothing.
                    self.need(job, id, free)
                } else {
                    situation
                }
            }
        };
        report(situation)
    }

    /// Keeps the candidates that the limits leave a replica; its situation while it has none.
    fn need(&mut self, job: &Job, id: &ReplicaId, ranking: &Ranking) -> Situation {
        if let Some(kept_back) = self.world.config.keeps_back(&job.run) {
            self.report.notices.push(Notice {
                severity: Severity::Warning,
                kind: kept_back.as_str().to_owned(),
                replica: Some(id.clone()),
                text: format!("{id} is not rented: {}", kept_back.text()),
            });
            return Situation::OverLimit {
                limit: kept_back.limit(),
            };
        }
        let mut limit = None;
        let others = is_spread(job).then(|| hosts_of_others(self.world, job, id));
        let may_be_there = |candidate: &Candidate| match &others {
            None => true,
            Some(others) => {
                let own = host_of(self.world, candidate.slot.machine);
                own.zip(others.as_ref())
                    .is_some_and(|(own, others)| !others.contains(&own))
            }
        };
        let denied = ranking.refused.contains_key(&Refusal::HostDenied);
        let mut crowded = others.is_some() && denied;
        let affordable: Vec<Candidate> = ranking
            .candidates
            .iter()
            .filter(|candidate| !self.purse.begun.contains(&candidate.slot.machine))
            .filter(|candidate| {
                let may = may_be_there(candidate);
                crowded |= !may;
                may
            })
            .filter(|candidate| match self.affords(job, id, candidate) {
                Ok(()) => true,
                Err(passed) => {
                    limit.get_or_insert(passed);
                    false
                }
            })
            .cloned()
            .collect();
        if affordable.is_empty() {
            let limit = limit.or(crowded.then_some(Limit::OneHost));
            return limit.map_or(Situation::NoOffer, |limit| Situation::OverLimit { limit });
        }
        self.needs.push(Need {
            replica: id.clone(),
            priority: job.priority,
            candidates: affordable,
        });
        // Until it gets one, it is the others that are before it.
        Situation::OverLimit {
            limit: Limit::OwnSlots,
        }
    }

    fn affords(&self, job: &Job, id: &ReplicaId, candidate: &Candidate) -> Result<(), Limit> {
        let (reserve, margin, load) = self.price(job, id, candidate);
        self.purse.affords(job, reserve, margin, load)
    }

    fn price(
        &self,
        job: &Job,
        id: &ReplicaId,
        candidate: &Candidate,
    ) -> (crate::types::money::Money, crate::types::money::Money, Load) {
        let from = self.from.get(id);
        let from = from.and_then(|from| self.world.state.held.get(from));
        let asked = cost(self.world, job, candidate, from);
        let load = Load {
            rate: asked.rate,
            instances: 1,
            gpus: candidate.slot.gpus,
        };
        (asked.reserve, asked.margin, load)
    }

    // ---------------------------------------------------------------------------------- renting

    /// Gives slots to those who need one, inside the limits. Where a limit refuses what was
    /// assigned, the replica's next candidates are tried.
    fn rent(&mut self) {
        let mut needs = std::mem::take(&mut self.needs);
        // A later job's instance may have been brought back on a machine that was free before.
        for need in &mut needs {
            let begun = &self.purse.begun;
            need.candidates
                .retain(|candidate| !begun.contains(&candidate.slot.machine));
        }
        let most = self.world.config.rents_per_tick_max as usize;
        let given = assign(&needs, most);
        let mut machines: BTreeSet<MachineId> =
            given.iter().map(|(_, given)| given.slot.machine).collect();
        if given.len() >= most {
            self.waits_for_next_tick(&needs, &given, &machines);
        }
        for (replica, first) in given {
            let Some(order) = self
                .world
                .jobs
                .iter()
                .position(|job| job.name == replica.job)
            else {
                continue;
            };
            let job = &self.world.jobs[order];
            let others = needs
                .iter()
                .filter(|need| need.replica == replica)
                .flat_map(|need| &need.candidates)
                .filter(|other| !machines.contains(&other.slot.machine));
            let mut refused = None;
            let mut found = None;
            for candidate in std::iter::once(&first).chain(others) {
                let spread = is_spread(job).then_some(candidate.slot.machine);
                let host = spread.and_then(|machine| host_of(self.world, machine));
                if host.is_some_and(|host| self.hosts.contains(&(&job.name, host))) {
                    refused = refused.or(Some(Limit::OneHost));
                    continue;
                }
                let (reserve, margin, load) = self.price(job, &replica, candidate);
                match self.purse.take(job, reserve, margin, load) {
                    Ok(()) => {
                        self.hosts.extend(host.map(|host| (&job.name, host)));
                        found = Some((candidate.clone(), reserve));
                        break;
                    }
                    Err(limit) => refused = refused.or(Some(limit)),
                }
            }
            if let Some((candidate, reserve)) = found {
                machines.insert(candidate.slot.machine);
                let action = self.rental(job, &replica, &candidate, reserve);
                self.actions.push((order, action));
                self.situation(&replica, Situation::Renting);
            } else if let Some(limit) = refused {
                self.situation(&replica, Situation::OverLimit { limit });
            }
        }
    }

    /// Says of those that would have a slot, were more rented in a tick, that they wait for the next one.
    fn waits_for_next_tick(
        &mut self,
        needs: &[Need],
        given: &[(ReplicaId, Candidate)],
        machines: &BTreeSet<MachineId>,
    ) {
        let is_free = |candidate: &Candidate| !machines.contains(&candidate.slot.machine);
        let waits: BTreeSet<&ReplicaId> = needs
            .iter()
            .filter(|need| need.candidates.iter().any(is_free))
            .map(|need| &need.replica)
            .filter(|replica| given.iter().all(|(got, _)| got != *replica))
            .collect();
        let reports = self
            .report
            .jobs
            .iter_mut()
            .flat_map(|job| &mut job.replicas);
        for report in reports.filter(|report| waits.contains(&report.replica)) {
            report.situation = Situation::OverLimit {
                limit: Limit::RentsPerTick,
            };
        }
    }

    fn rental(
        &self,
        job: &Job,
        replica: &ReplicaId,
        candidate: &Candidate,
        reserve: crate::types::money::Money,
    ) -> Action {
        let offer = offered(self.world, candidate);
        let seen = offer.and_then(|offer| offer.on_demand);
        Action {
            replica: Some(replica.clone()),
            effect: Effect::Rent {
                replica: replica.clone(),
                generation: self.world.state.replica(replica).generation + 1,
                slot: candidate.slot,
                offer: candidate.offer,
                rental: candidate.rental,
                price: candidate.price,
                disk_gb: job.requirements.disk_gb,
                storage: candidate.storage,
                from: self.from.get(replica).copied(),
                traffic: offer.and_then(|offer| offer.inet_down_price.zip(offer.inet_up_price)),
            },
            why: if self.reclaims.contains(replica) {
                Why::Reclaim
            } else {
                Why::Cheapest
            },
            reserve,
            parts: Some(candidate.parts),
            on_demand_seen: match candidate.rental {
                Rental::OnDemand => Some(candidate.price),
                Rental::Bid => seen,
            },
        }
    }

    fn situation(&mut self, replica: &ReplicaId, situation: Situation) {
        let reports = self
            .report
            .jobs
            .iter_mut()
            .flat_map(|job| &mut job.replicas);
        for report in reports {
            if report.replica == *replica {
                report.situation = situation.clone();
            }
        }
    }

    // -------------------------------------------------------------------------------- leftovers

    /// Instances that no replica of a valid policy wants: everything after a kill, jobs whose
    /// policy was removed, replicas that are too many.
    fn leftovers(&mut self) {
        let world = self.world;
        for held in world.state.held.values() {
            let action = if held.destroying.is_some() {
                let wanted = !world.state.killed && self.wanted(held);
                // A replica sees to its own.
                (!wanted).then(|| destroy_again(world, held)).flatten()
            } else if world.state.killed {
                Some(destroy(held, DestroyWhy::UserRequest, Why::UserRequest))
            } else if self.wanted(held) {
                None
            } else {
                self.unwanted(held)
            };
            self.actions.extend(action.map(|action| (0, action)));
        }
    }

    /// Whether another replica of a job is between two machines, and takes what there is first.
    fn others_are_between(&self, job: &Job, id: &ReplicaId) -> bool {
        let state = &self.world.state;
        let other = |replica: &ReplicaId| replica.job == job.name && replica != id;
        let goes = |held: &Held| held.destroying.is_some() && other(&held.replica);
        let comes = |intent: &Intent| matches!(&intent.effect, Effect::Rent { replica, .. } if other(replica));
        state.held.values().any(goes)
            || state.intents.values().any(comes)
            || self.needs.iter().any(|need| other(&need.replica))
    }

    fn wanted(&self, held: &Held) -> bool {
        let wanted = self.wanted.get(&held.replica.job);
        wanted.is_some_and(|wanted| wanted.contains(&held.replica.index))
    }

    fn unwanted(&mut self, held: &Held) -> Option<Action> {
        let world = self.world;
        let user = (DestroyWhy::UserRequest, Why::UserRequest);
        let wish = world.state.job(&held.replica.job).wish;
        if matches!(wish, Wish::Stop | Wish::Done) {
            return Some(destroy(held, user.0, user.1));
        }
        if world.unreadable_jobs.contains(&held.replica.job) {
            // Its policy cannot be read: it is left as it is, but for what the user asked, and for
            // the limits. A file that stays broken must not let a job run past its budget.
            if let Some(saving) = self.saving.get(&held.id) {
                let job = world.known_job(&held.replica.job);
                let gone = job.is_some_and(|job| expendable(world, job, held));
                let (action, notice) = wound_down(world, held, saving, gone);
                self.report.notices.push(notice);
                return action;
            }
            // What was asked to stop, and was not seen to, is asked again.
            return (wish == Wish::Pause || held.stop_asked)
                .then(|| park(world, held, Why::UserRequest))
                .flatten();
        }
        let job = world.jobs.iter().find(|job| job.name == held.replica.job);
        let limit = self.saving.get(&held.id);
        if let Some(Saving::Destroy(_)) = limit {
            return Some(destroy(held, DestroyWhy::Limit, Why::Limit));
        }
        // Without its policy nobody knows whether its data may be lost.
        let may_go = job.map_or_else(
            || never_ran(world, held),
            |job| expendable(world, job, held),
        );
        if may_go {
            return Some(destroy(held, DestroyWhy::Drained, Why::Orphan));
        }
        let let_go = job.map_or_else(
            || format!("`haggle done {}` destroys it", held.replica.job),
            |job| lets_go(job, "done", "destroys it"),
        );
        self.report.notices.push(Notice {
            severity: Severity::Warning,
            kind: "drained".to_owned(),
            replica: Some(held.replica.clone()),
            text: format!(
                "no policy asks for {} any more; instance {} is parked, and its disk costs \
                 {:.4}/h; {let_go}",
                held.replica, held.id, held.storage
            ),
        });
        park(world, held, Why::Orphan)
    }

    fn finish(mut self) -> (Plan, Report) {
        let world = self.world;
        self.actions
            .sort_by_key(|(order, action)| (!saves(world, &action.effect), *order));
        let actions = self.actions.into_iter().map(|(_, action)| action).collect();
        let (limits, near) = projection::of_world(world);
        self.report.limits = limits;
        self.report.notices.extend(near);
        (Plan { actions }, self.report)
    }
}
