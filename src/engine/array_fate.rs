//! What becomes of an array by what befalls its elements: whether they fail because of what all of them
//! share, and that the last of them has ended.

use crate::types::ids::{JobName, ReplicaId};
use crate::types::instance::Held;
use crate::types::job::Job;
use crate::types::state::{ReplicaRecord, Severity};

use super::array::{Standing, member};
use super::observe::Fold;

impl Fold<'_> {
    /// An element failed, or its machine was unfit for it. From so many in a row on nothing more is begun:
    /// what fails everywhere, such as a slip in the command, should not go through all of them. One that
    /// fails again and again may be alone with it, and counts once.
    pub(crate) fn sets_back(&mut self, held: &Held, job: &Job) {
        let state = &self.draft.state;
        let is_element = || member(state, job, held.replica.index).is_some();
        let mut record = state.job(&job.name);
        if job.array.is_none() || record.fails_everywhere() || !is_element() {
            return;
        }
        record.setbacks.insert(held.replica.index);
        let (count, enough) = (record.setbacks.len(), record.fails_everywhere());
        self.draft.state.jobs.insert(job.name.clone(), record);
        if enough {
            let text = format!(
                "{count} elements of {} failed, or found no machine that is fit, and none got on meanwhile: \
                 is something wrong with the command, the image, or what is asked of machines? (`haggle \
                 logs {}` has what the last one said.) No element is begun that was not tried yet, until \
                 one gets on; `haggle resume {}` lets them begin all the same",
                job.name, held.replica, job.name
            );
            self.tell(Severity::Alarm, "array-held-back", held, text);
        }
    }

    /// An element came to a good end, or further than any before it: what they share is in order.
    pub(crate) fn gets_on(&mut self, held: &Held) {
        if let Some(record) = self.draft.state.jobs.get_mut(&held.replica.job) {
            record.setbacks.clear();
        }
    }

    /// The command was begun on a machine: not all are unfit. That it fails everywhere may be so all the
    /// same.
    pub(crate) fn finds_fit(&mut self, held: &Held) {
        let state = &mut self.draft.state;
        let Some(record) = state.jobs.get_mut(&held.replica.job) else {
            return;
        };
        let failed = |index: &u32| {
            let id = ReplicaId {
                job: held.replica.job.clone(),
                index: *index,
            };
            let replica = state.replicas.get(&id);
            replica.is_some_and(|replica| replica.failures > 0 || replica.broken > 0)
        };
        record.setbacks.retain(failed);
    }

    /// Whether no replica of a job ever said that it was so far.
    pub(crate) fn is_furthest(&self, job: &JobName, progress: f64) -> bool {
        let mut furthest = self
            .draft
            .state
            .replicas_of(job)
            .filter_map(|record| record.furthest);
        furthest.all(|known| progress > known)
    }

    /// Tells that an array is over, when the last of its elements has ended.
    pub(crate) fn arrays_end(&mut self) {
        let jobs = self.jobs;
        for job in jobs.iter().filter(|job| job.array.is_some()) {
            let Some(last) = self.ended_now(job) else {
                continue;
            };
            let standing = Standing::of(&self.draft.state, job);
            if !standing.is_over() {
                continue;
            }
            let (severity, how) = match standing.failed {
                0 => (
                    Severity::Info,
                    format!("all {} finished", standing.finished),
                ),
                failed => (
                    Severity::Alarm,
                    format!("{} finished and {failed} failed", standing.finished),
                ),
            };
            let text = format!("every element of {} has ended: {how}", job.name);
            let subject = (Some(&last), None);
            self.draft
                .event(self.seen.now, severity, "array-ended", subject, text);
        }
    }

    /// An element that ended by this observation. What the policy does not ask for any more is none.
    fn ended_now(&self, job: &Job) -> Option<ReplicaId> {
        let state = &self.draft.state;
        let ended =
            |record: &&ReplicaRecord| record.ending.is_some() && !self.draft.had_ended(&record.id);
        let is_element = |record: &&ReplicaRecord| member(state, job, record.id.index).is_some();
        let mut found = state
            .replicas_of(&job.name)
            .filter(ended)
            .filter(is_element);
        found.next().map(|record| record.id.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use super::super::draft::Draft;
    use super::super::eligible::samples::{NOW, held, job, offer, usd, world};
    use super::super::observe::{Moved, Observation};
    use super::*;
    use crate::types::job::{Array, Parameters};
    use crate::types::offer::Snapshot;
    use crate::types::state::{Change, Ending, Event, SETBACKS_MAX, State};
    use crate::types::world::EngineConfig;

    fn set(seed: u32) -> Parameters {
        Parameters::from([("SEED".to_owned(), seed.to_string())])
    }

    /// An array of so many elements, each of which was rented for; one more was taken out of it.
    fn scene(elements: u32) -> (Arc<Job>, State) {
        let mut job = job("a");
        job.replicas = elements;
        job.array = Some(Array {
            elements: (0..elements).map(set).collect(),
            max_running: 1,
        });
        let mut state = world(Vec::new()).state;
        for index in 0..=elements {
            let mut record = state.replica(&id(index));
            record.parameters = Some(set(index));
            state.replicas.insert(record.id.clone(), record);
        }
        (Arc::new(job), state)
    }

    fn id(index: u32) -> ReplicaId {
        ReplicaId {
            job: "a".parse().unwrap(),
            index,
        }
    }

    fn instance(job: &Job, index: u32) -> Held {
        let mut held = held(5, job, &offer(1), usd(0.2));
        held.replica.index = index;
        held
    }

    /// One observation, in which something befalls; the events of it that are about arrays.
    fn befalls(state: &mut State, job: &Arc<Job>, what: impl FnOnce(&mut Fold<'_>)) -> Vec<Event> {
        let nothing = (BTreeSet::new(), BTreeSet::new());
        let maps = (
            BTreeMap::new(),
            BTreeMap::new(),
            BTreeMap::new(),
            BTreeMap::new(),
        );
        let (market, config) = (Snapshot::default(), EngineConfig::default());
        let seen = Observation {
            now: NOW,
            moved: Moved::default(),
            broke: false,
            listing: None,
            market: &market,
            proven_gone: &nothing.0,
            proven_void: &nothing.1,
            on_demand: &maps.0,
            unchanged: &maps.1,
            ran: &BTreeSet::new(),
            ended: &maps.2,
            heard: &maps.3,
        };
        let before = state.clone();
        let jobs = [Arc::clone(job)];
        let mut fold = Fold {
            draft: Draft::new(&before),
            jobs: &jobs,
            config: &config,
            seen: &seen,
        };
        what(&mut fold);
        fold.arrays_end();
        let mut told = Vec::new();
        for change in fold.draft.finish() {
            state.apply(&change);
            if let Change::Event(event) = change
                && event.kind.starts_with("array-")
            {
                told.push(event);
            }
        }
        told
    }

    fn fails(state: &mut State, job: &Arc<Job>, index: u32) -> usize {
        let held = instance(job, index);
        befalls(state, job, |fold| fold.failed(&held, job, "it failed")).len()
    }

    #[test]
    fn elements_that_fail_one_after_the_other_are_told_of_once() {
        let (job, mut state) = scene(9);
        let max = SETBACKS_MAX as u32;
        assert_eq!(
            (0..max - 1)
                .map(|at| fails(&mut state, &job, at))
                .sum::<usize>(),
            0
        );
        // Nor does it count that one fails again, or one that was taken out.
        assert_eq!(fails(&mut state, &job, 0) + fails(&mut state, &job, 9), 0);
        assert!(!state.job(&job.name).fails_everywhere());
        assert_eq!(fails(&mut state, &job, max), 1);
        assert!(state.job(&job.name).fails_everywhere());
        assert_eq!(fails(&mut state, &job, max + 1), 0);

        let held = instance(&job, 1);
        befalls(&mut state, &job, |fold| fold.finished(&held, "it is done"));
        assert!(state.job(&job.name).setbacks.is_empty());
    }

    #[test]
    fn copies_of_a_plain_job_fail_each_for_itself() {
        let (job, mut state) = scene(9);
        let plain = Arc::new(Job {
            array: None,
            ..(*job).clone()
        });
        assert_eq!(
            (0..9)
                .map(|at| fails(&mut state, &plain, at))
                .sum::<usize>(),
            0
        );
        assert!(state.job(&plain.name).setbacks.is_empty());
    }

    #[test]
    fn a_machine_that_is_fit_says_nothing_of_commands_that_fail() {
        let (job, mut state) = scene(9);
        fails(&mut state, &job, 0);
        let held = instance(&job, 1);
        befalls(&mut state, &job, |fold| fold.sets_back(&held, &job));
        assert_eq!(state.job(&job.name).setbacks, BTreeSet::from([0, 1]));
        befalls(&mut state, &job, |fold| fold.finds_fit(&held));
        assert_eq!(state.job(&job.name).setbacks, BTreeSet::from([0]));
    }

    #[test]
    fn only_progress_beyond_all_elements_counts() {
        let (_, mut state) = scene(3);
        let (job, _) = scene(3);
        state.replicas.get_mut(&id(1)).unwrap().furthest = Some(0.5);
        befalls(&mut state, &job, |fold| {
            assert!(!fold.is_furthest(&job.name, 0.5));
            assert!(fold.is_furthest(&job.name, 0.6));
        });
    }

    #[test]
    fn the_end_of_an_array_is_told_once_by_the_last_that_it_asks_for() {
        let (job, mut state) = scene(3);
        let ends = |state: &mut State, all: &[u32]| {
            befalls(state, &job, |fold| {
                for &index in all {
                    fold.finished(&instance(&job, index), "it is done");
                }
            })
        };
        assert_eq!(ends(&mut state, &[0]), Vec::new());
        let told = ends(&mut state, &[1, 2]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].text, "every element of a has ended: all 3 finished");
        assert_eq!(ends(&mut state, &[]), Vec::new());
        // One that was taken out ends after all.
        assert_eq!(ends(&mut state, &[3]), Vec::new());
        assert_eq!(state.replica(&id(3)).ending, Some((Ending::Finished, NOW)));
    }
}
