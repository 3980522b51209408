//! Which replicas a job has, and which elements of an array have their turn.
//!
//! An element of an array is known by its parameters. It has the number under which it was first rented
//! for good, so that its label, its records and its place in storage stay its own, however the policy is
//! edited; one that was never rented for has the lowest number that nobody ever had, in the order of the
//! policy. In a policy that was not edited every number is the element's place.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::ids::ReplicaId;
use crate::types::intent::Effect;
use crate::types::job::{Job, Parameters};
use crate::types::plan::Situation;
use crate::types::state::{Ending, ReplicaRecord, State};
use crate::types::world::World;

use super::act::at_rest;

/// A replica that a job's policy asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its number.
    pub index: u32,
    /// Its parameters, where the job is an array.
    pub parameters: Option<&'a Parameters>,
}

/// The replicas that a job's policy asks for, by their numbers.
pub fn members<'a>(state: &State, job: &'a Job) -> Vec<Member<'a>> {
    let mut known: BTreeMap<&Parameters, u32> = BTreeMap::new();
    let mut taken: BTreeSet<u32> = BTreeSet::new();
    for record in state.replicas_of(&job.name) {
        match &record.parameters {
            Some(parameters) => {
                known.insert(parameters, record.id.index);
                taken.insert(record.id.index);
            }
            // Of which parameters its work was nobody knows any more, so it is no element's.
            None if job.array.is_some() => {
                taken.insert(record.id.index);
            }
            None => {}
        }
    }
    let mut free = (0..u32::MAX).filter(|number| !taken.contains(number));
    let Some(array) = &job.array else {
        let plain = |index| Member {
            index,
            parameters: None,
        };
        return free.take(job.replicas as usize).map(plain).collect();
    };
    let mut members: Vec<Member<'a>> = array
        .elements
        .iter()
        .filter_map(|parameters| {
            let index = known.get(parameters).copied().or_else(|| free.next())?;
            let parameters = Some(parameters);
            Some(Member { index, parameters })
        })
        .collect();
    members.sort_by_key(|member| member.index);
    members
}

/// The replica that a job's policy asks for under a number.
pub fn member<'a>(state: &State, job: &'a Job, index: u32) -> Option<Member<'a>> {
    let members = members(state, job);
    members.into_iter().find(|member| member.index == index)
}

/// How the elements of an array stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Finished.
    pub finished: u32,
    /// Failed for good.
    pub failed: u32,
    /// Neither, and with an instance, whatever that does.
    pub begun: u32,
    /// Neither, and without one.
    pub waiting: u32,
}

impl Standing {
    /// Counts the replicas that a job's policy asks for.
    pub fn of(state: &State, job: &Job) -> Self {
        let held: BTreeSet<&ReplicaId> = state.held.values().map(|held| &held.replica).collect();
        let mut standing = Self::default();
        for member in members(state, job) {
            let id = ReplicaId {
                job: job.name.clone(),
                index: member.index,
            };
            let ending = state.replicas.get(&id).and_then(|record| record.ending);
            let count = match ending {
                Some((Ending::Finished, _)) => &mut standing.finished,
                Some((Ending::Failed, _)) => &mut standing.failed,
                None if held.contains(&id) => &mut standing.begun,
                None => &mut standing.waiting,
            };
            *count += 1;
        }
        standing
    }

    /// Whether all have ended.
    pub fn is_over(&self) -> bool {
        self.begun == 0 && self.waiting == 0
    }
}

/// Whether nothing is begun for a replica now, because too many elements of its array failed in a row. What
/// was tried before is tried again, as its retries allow: it may get on.
fn held_back(world: &World, job: &Job, record: Option<&ReplicaRecord>) -> bool {
    let in_array = job.array.is_some();
    let tried = record.is_some_and(ReplicaRecord::was_tried);
    in_array && !tried && world.state.job(&job.name).fails_everywhere()
}

/// The elements of an array that wait for their turn. What may be at work has its place until it ends;
/// then those that have a disk, then the lowest numbers, as many as there are places. A replica that
/// waits after a failure, and has no disk, leaves its place to others.
pub(crate) fn queued(world: &World, job: &Job, members: &[Member<'_>]) -> BTreeMap<u32, Situation> {
    let Some(array) = &job.array else {
        return BTreeMap::new();
    };
    let (mut at_work, mut with_disk) = (BTreeSet::new(), BTreeSet::new());
    for held in world
        .state
        .held
        .values()
        .filter(|held| held.replica.job == job.name)
    {
        let set = if at_rest(world, held) {
            &mut with_disk
        } else {
            &mut at_work
        };
        set.insert(held.replica.index);
    }
    for intent in world.state.intents.values() {
        if let Effect::Rent { replica, .. } = &intent.effect
            && replica.job == job.name
        {
            at_work.insert(replica.index);
        }
    }
    let records: BTreeMap<u32, &ReplicaRecord> = world
        .state
        .replicas_of(&job.name)
        .map(|record| (record.id.index, record))
        .collect();
    let is_open = |index: u32| {
        records
            .get(&index)
            .is_none_or(|record| record.ending.is_none())
    };
    let backs_off = |index: u32| {
        let until = records.get(&index).and_then(|record| record.retry_at);
        until.is_some_and(|until| until > world.now)
    };
    let mut open: Vec<u32> = members
        .iter()
        .map(|member| member.index)
        .filter(|&index| is_open(index))
        .collect();
    // Stable: inside each kind the lowest number is first.
    open.sort_by_key(|index| match index {
        index if at_work.contains(index) => 0,
        index if with_disk.contains(index) => 1,
        _ => 2,
    });
    // What was taken out of the array is at work until it has been wound down.
    let asked_for: BTreeSet<u32> = members.iter().map(|member| member.index).collect();
    let leaving = at_work
        .difference(&asked_for)
        .filter(|index| is_open(**index));
    let mut places = (array.max_running as usize).saturating_sub(leaving.count());
    let mut queued = BTreeMap::new();
    for index in open {
        let has_instance = at_work.contains(&index) || with_disk.contains(&index);
        if !has_instance && held_back(world, job, records.get(&index).copied()) {
            queued.insert(index, Situation::HeldBack);
            continue;
        }
        if !has_instance && backs_off(index) {
            continue;
        }
        if places > 0 {
            places -= 1;
        } else if !at_work.contains(&index) {
            queued.insert(index, Situation::Queued);
        }
    }
    queued
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::check::check;
    use super::super::decide::decide;
    use super::super::eligible::samples::{NOW, held, job, offer, usd, world};
    use super::super::properties::{act, list};
    use super::*;
    use crate::types::instance::Phase;
    use crate::types::job::{Array, CheckpointPlace, Finish};
    use crate::types::offer::Offer;
    use crate::types::plan::{Action, Limit, Plan};

    fn set(seed: u32) -> Parameters {
        Parameters::from([("SEED".to_owned(), seed.to_string())])
    }

    fn array(seeds: impl IntoIterator<Item = u32>, max_running: u32) -> Job {
        let elements: Vec<Parameters> = seeds.into_iter().map(set).collect();
        Job {
            replicas: elements.len() as u32,
            array: Some(Array {
                elements,
                max_running,
            }),
            finish: Finish::Exit,
            disposable: true,
            ..job("a")
        }
    }

    fn record(state: &mut State, index: u32, seed: Option<u32>) -> &mut ReplicaRecord {
        let id = ReplicaId {
            job: "a".parse().unwrap(),
            index,
        };
        let mut record = state.replica(&id);
        record.parameters = seed.map(set);
        state.replicas.insert(id.clone(), record);
        state.replicas.get_mut(&id).unwrap()
    }

    /// Each element's number, in the order of the policy.
    fn numbers(state: &State, job: &Job) -> Vec<u32> {
        let members = members(state, job);
        let array = job.array.as_ref().unwrap();
        let number = |set: &Parameters| {
            let mut of_set = members.iter().filter(|one| one.parameters == Some(set));
            of_set.next().unwrap().index
        };
        array.elements.iter().map(number).collect()
    }

    #[test]
    fn an_element_keeps_the_number_that_it_was_rented_under() {
        let mut state = world(Vec::new()).state;
        assert_eq!(numbers(&state, &array([10, 11, 12], 1)), [0, 1, 2]);
        record(&mut state, 0, Some(10));
        record(&mut state, 2, Some(12));
        assert_eq!(numbers(&state, &array([10, 11, 12], 1)), [0, 1, 2]);
        // Turned round, with one in front, and one that was never begun taken out.
        assert_eq!(numbers(&state, &array([9, 12, 10], 1)), [1, 2, 0]);
        // What is taken out keeps its number for when it comes back.
        assert_eq!(numbers(&state, &array([9, 12, 8], 1)), [1, 2, 3]);
        record(&mut state, 1, Some(9));
        assert_eq!(numbers(&state, &array([10, 11, 12], 1)), [0, 3, 2]);
    }

    #[test]
    fn a_number_of_which_nobody_knows_the_parameters_is_no_elements() {
        let mut state = world(Vec::new()).state;
        record(&mut state, 0, None);
        assert_eq!(numbers(&state, &array([10, 11], 1)), [1, 2]);
        // Nor does a plain job take an element's.
        record(&mut state, 1, Some(10));
        let mut plain = job("a");
        plain.replicas = 3;
        let plain: Vec<u32> = members(&state, &plain)
            .iter()
            .map(|one| one.index)
            .collect();
        assert_eq!(plain, [0, 2, 3]);
    }

    /// A market of so many machines, and a job.
    fn scene(job: Job, machines: u64) -> World {
        let offers: Vec<Offer> = (1..=machines).map(offer).collect();
        let mut world = world(offers);
        world.config.rents_per_tick_max = 1000;
        world.config.instances_max = 1000;
        world.account.as_mut().unwrap().credit = Some(crate::types::money::Money::dollars(100_000));
        world.jobs = vec![Arc::new(job)];
        list(&mut world, true);
        world
    }

    fn waiting(world: &World) -> Vec<u32> {
        let job = &world.jobs[0];
        queued(world, job, &members(&world.state, job))
            .into_keys()
            .collect()
    }

    fn holds(world: &mut World, index: u32, parked: bool) {
        let job = Arc::clone(&world.jobs[0]);
        let mut held = held(
            u64::from(index) + 1,
            &job,
            &offer(u64::from(index) + 1),
            usd(0.2),
        );
        held.replica.index = index;
        held.parked = parked;
        held.phase = if parked {
            Phase::Stopped
        } else {
            Phase::Running
        };
        world.state.held.insert(held.id, held);
    }

    #[test]
    fn places_go_to_what_works_then_to_what_has_a_disk_then_to_the_lowest() {
        let mut world = scene(array(0..6, 2), 6);
        assert_eq!(waiting(&world), [2, 3, 4, 5]);
        holds(&mut world, 5, false);
        assert_eq!(waiting(&world), [1, 2, 3, 4]);
        holds(&mut world, 3, true);
        assert_eq!(waiting(&world), [0, 1, 2, 4]);
        // What works goes on, and what has a disk waits for its turn.
        world.jobs = vec![Arc::new(array(0..6, 1))];
        assert_eq!(waiting(&world), [0, 1, 2, 3, 4]);
        holds(&mut world, 4, false);
        assert_eq!(waiting(&world), [0, 1, 2, 3]);
    }

    #[test]
    fn who_has_ended_or_waits_after_a_failure_has_no_place() {
        let mut world = scene(array(0..5, 2), 5);
        record(&mut world.state, 0, Some(0)).ending = Some((Ending::Finished, NOW));
        record(&mut world.state, 1, Some(1)).retry_at = Some(NOW + Duration::from_mins(1));
        assert_eq!(waiting(&world), [4]);
        // Its disk is a place, or there were ever more of them.
        holds(&mut world, 1, true);
        assert_eq!(waiting(&world), [3, 4]);
        // What has ended is no longer at work, whatever its instance does.
        holds(&mut world, 0, false);
        assert_eq!(waiting(&world), [3, 4]);
        world.now = NOW + Duration::from_mins(2);
        assert_eq!(waiting(&world), [3, 4]);
    }

    #[test]
    fn after_too_many_failures_in_a_row_only_what_was_tried_has_a_turn() {
        let mut world = scene(array(0..9, 3), 9);
        record(&mut world.state, 1, Some(1)).failures = 1;
        record(&mut world.state, 2, Some(2)).starts = 1;
        holds(&mut world, 4, false);
        let name = world.jobs[0].name.clone();
        let mut of_job = world.state.job(&name);
        of_job.setbacks = BTreeSet::from([1, 5, 6, 7]);
        world.state.jobs.insert(name.clone(), of_job.clone());
        assert_eq!(waiting(&world), [2, 3, 5, 6, 7, 8]);
        of_job.setbacks.insert(8);
        world.state.jobs.insert(name, of_job);
        assert_eq!(waiting(&world), [0, 2, 3, 5, 6, 7, 8]);
        let (plan, report) = decide(&world);
        let begun: Vec<u32> = plan
            .actions
            .iter()
            .filter(|action| matches!(action.effect, Effect::Rent { .. }))
            .map(|action| action.replica.as_ref().unwrap().index)
            .collect();
        assert_eq!(begun, [1]);
        let situations = &report.jobs[0].replicas;
        assert_eq!(situations[0].situation, Situation::HeldBack);
        // A plain job is none of this.
        let plain = Arc::new(Job {
            replicas: 9,
            array: None,
            ..(*world.jobs[0]).clone()
        });
        world.jobs = vec![plain];
        assert!(waiting(&world).is_empty());
    }

    /// Where many were at work, then paused, and fewer may be.
    #[test]
    fn who_waits_with_a_disk_that_may_be_lost_loses_it() {
        let decided = |disposable: bool| {
            let job = Job {
                disposable,
                checkpoint_place: Some(CheckpointPlace::Disk),
                ..array(0..3, 1)
            };
            let mut world = scene(job, 3);
            for index in 0..3 {
                record(&mut world.state, index, Some(index));
                holds(&mut world, index, true);
            }
            list(&mut world, true);
            let (plan, report) = decide(&world);
            let destroyed: Vec<u32> = plan
                .actions
                .iter()
                .filter(|action| matches!(action.effect, Effect::Destroy { .. }))
                .map(|action| action.replica.as_ref().unwrap().index)
                .filter(|index| *index > 0)
                .collect();
            let situations = &report.jobs[0].replicas[1..];
            let queued =
                |one: &crate::types::plan::ReplicaReport| one.situation == Situation::Queued;
            assert!(situations.iter().all(queued), "{situations:?}");
            destroyed
        };
        assert_eq!(decided(true), [1, 2]);
        assert_eq!(decided(false), Vec::<u32>::new());
    }

    /// Where there is less than could be taken, the first get it.
    #[test]
    fn the_lowest_are_begun_first_and_the_others_wait() {
        let world = scene(array(0..9, 6), 4);
        let (plan, report) = decide(&world);
        let begun: Vec<u32> = plan
            .actions
            .iter()
            .map(|action| action.replica.as_ref().unwrap().index)
            .collect();
        assert_eq!(begun, [0, 1, 2, 3]);
        let situations = &report.jobs[0].replicas;
        assert!(
            situations[6..]
                .iter()
                .all(|one| one.situation == Situation::Queued)
        );
        let groups = report.jobs[0].grouped();
        let (first, last) = groups.last().unwrap();
        assert_eq!((first.replica.index, last.replica.index), (6, 8));
    }

    #[test]
    fn the_second_reckoning_holds_the_cap_and_the_numbers() {
        let mut world = scene(array(0..4, 2), 4);
        world.config.rents_per_tick_max = 1;
        let rents = |world: &World| -> Vec<Action> {
            let (plan, _) = decide(world);
            let template = plan.actions.first().unwrap();
            let one = |index: u32| {
                let mut action = template.clone();
                if let Effect::Rent { replica, slot, .. } = &mut action.effect {
                    replica.index = index;
                    slot.machine = crate::types::ids::MachineId(u64::from(index) + 1);
                }
                action
            };
            (0..4).map(one).collect()
        };
        let dropped = |world: &World, actions: Vec<Action>| -> Vec<(u32, Limit)> {
            let (_, dropped) = check(world, &Plan { actions });
            let number = |action: &Action| match &action.effect {
                Effect::Rent { replica, .. } => replica.index,
                _ => u32::MAX,
            };
            dropped
                .iter()
                .map(|(action, limit)| (number(action), limit.clone()))
                .collect()
        };
        let all = rents(&world);
        let over = |index| (index, Limit::MaxRunning);
        assert_eq!(dropped(&world, all.clone()), [over(2), over(3)]);
        record(&mut world.state, 0, Some(0)).ending = Some((Ending::Finished, NOW));
        record(&mut world.state, 1, Some(77));
        record(&mut world.state, 2, None);
        let fenced = |index| (index, Limit::Fence);
        assert_eq!(dropped(&world, all), [fenced(0), fenced(1), fenced(2)]);
    }

    /// What one tick is to do beside deciding.
    #[derive(Clone, Debug)]
    enum Turn {
        /// Some that run end: which, and whether well.
        End(u8, bool),
        /// One is outbid, and its disk kept.
        Park(u8),
        /// The array is another one.
        Edit(Vec<u8>, u8),
    }

    fn turn() -> impl Strategy<Value = Turn> {
        prop_oneof![
            8 => (any::<u8>(), any::<bool>()).prop_map(|(which, well)| Turn::End(which, well)),
            2 => any::<u8>().prop_map(Turn::Park),
            1 => (proptest::collection::vec(0_u8..30, 1..20), 1_u8..6)
                .prop_map(|(seeds, most)| Turn::Edit(seeds, most)),
        ]
    }

    impl Turn {
        fn take(&self, world: &mut World) {
            let chosen = |world: &World, which: u8| {
                let running: Vec<_> = world
                    .state
                    .held
                    .values()
                    .filter(|held| !held.parked)
                    .collect();
                let at = usize::from(which).checked_rem(running.len())?;
                Some((*running.get(at)?).clone())
            };
            match self {
                Self::End(which, well) => {
                    let Some(held) = chosen(world, *which) else {
                        return;
                    };
                    let record = world.state.replicas.get_mut(&held.replica).unwrap();
                    let ending = if *well {
                        Ending::Finished
                    } else {
                        Ending::Failed
                    };
                    assert_eq!(record.ending, None, "{} ended twice", record.id);
                    record.ending = Some((ending, world.now));
                }
                Self::Park(which) => {
                    let Some(mut held) = chosen(world, *which) else {
                        return;
                    };
                    held.parked = true;
                    held.phase = Phase::Stopped;
                    held.bid_before_park = Some(crate::types::money::Rate::ZERO);
                    world.state.held.insert(held.id, held);
                }
                Self::Edit(seeds, most) => {
                    let seeds: BTreeSet<u32> = seeds.iter().map(|seed| u32::from(*seed)).collect();
                    // Not in their order.
                    let seeds = seeds.into_iter().rev();
                    world.jobs = vec![Arc::new(array(seeds, u32::from(*most)))];
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However its policy is edited: never more at once than may be once those that ran before
        /// have ended, no number for two sets of parameters, none of them begun again after its end.
        #[test]
        fn edits_neither_pass_the_cap_nor_begin_anything_twice(turns in proptest::collection::vec(turn(), 1..60)) {
            let mut world = scene(array(0..12, 4), 40);
            let mut sets: BTreeMap<u32, Parameters> = BTreeMap::new();
            for turn in turns {
                let before: BTreeSet<u32> = world.state.held.values().map(|held| held.replica.index).collect();
                let (plan, report) = decide(&world);
                prop_assert_eq!(&check(&world, &plan).1, &Vec::new(), "{:?}", report);
                for action in &plan.actions {
                    if let Effect::Rent { replica, .. } = &action.effect {
                        let record = world.state.replicas.get(replica);
                        prop_assert!(record.is_none_or(|record| record.ending.is_none()));
                    }
                }
                act(&mut world, &plan);
                for record in world.state.replicas.values() {
                    let own = record.parameters.clone().unwrap();
                    let known = sets.entry(record.id.index).or_insert_with(|| own.clone());
                    prop_assert_eq!(known, &own);
                }
                let most = world.jobs[0].array.as_ref().unwrap().max_running as usize;
                let open: BTreeSet<u32> = world.state.held.values()
                    .filter(|held| !held.parked && world.state.replica(&held.replica).ending.is_none())
                    .map(|held| held.replica.index)
                    .collect();
                let begun = open.difference(&before).count();
                prop_assert!(begun == 0 || open.len() <= most, "{open:?} of {most}");
                turn.take(&mut world);
                world.now = world.now + Duration::from_mins(1);
                list(&mut world, true);
            }
            let distinct: BTreeSet<&Parameters> = sets.values().collect();
            prop_assert_eq!(distinct.len(), sets.len(), "two numbers for one set");
        }
    }
}
