//! For which jobs inputs have to be ready: what will not be rented needs none.

use crate::engine::array::members;
use crate::types::ids::{JobName, ReplicaId};
use crate::types::input::size;
use crate::types::instance::{Held, Phase};
use crate::types::job::Job;
use crate::types::state::{State, Wish};

/// How much a job needs its inputs to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing is rented for it.
    None,
    /// All of it is at work, and may have to go elsewhere: what they are now is looked at before that.
    Once,
    /// Something of it may be rented any time.
    Always,
}

/// How much a job needs its inputs now.
pub(super) fn need(state: &State, job: &Job) -> Need {
    if state.killed || state.job(&job.name).wish != Wish::Run {
        return Need::None;
    }
    let mut need = Need::None;
    for member in members(state, job) {
        let id = ReplicaId {
            job: job.name.clone(),
            index: member.index,
        };
        let record = state.replicas.get(&id);
        if record.is_some_and(|record| record.ending.is_some()) {
            continue;
        }
        if !state.held_by(&id).any(is_at_work) {
            return Need::Always;
        }
        need = Need::Once;
    }
    need
}

/// Whether its command has begun and goes on.
fn is_at_work(held: &Held) -> bool {
    let begun = held.runner.as_ref().is_some_and(|view| view.worked);
    begun && is_up(held)
}

fn is_up(held: &Held) -> bool {
    held.phase == Phase::Running && !held.parked && held.destroying.is_none()
}

/// Whether a run says that an input is another one than was looked up.
pub(super) fn says_changed(state: &State, job: &JobName) -> bool {
    let says = |held: &&Held| {
        let view = held.runner.as_ref();
        view.is_some_and(|view| view.input_changed) && is_up(held)
    };
    let mut held = state.held.values().filter(says);
    held.any(|held| held.replica.job == *job)
}

/// Why a job's disk has no room for its inputs, as far as they are known.
pub(super) fn no_room(job: &Job) -> Option<String> {
    let room = job.run.runner.as_deref()?.input_room();
    let disk = u64::from(job.requirements.disk_gb) * 1_000_000_000;
    (room > disk).then(|| {
        format!(
            "its inputs need {} (archives twice, until they are unpacked), and its disk is {}: raise \
             `[machine] disk`",
            size(room),
            size(disk)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::eligible::samples::{NOW, held, input, job, offer, runner, usd, world};
    use crate::types::input::Packing;
    use crate::types::instance::RunnerView;
    use crate::types::state::Ending;

    #[test]
    fn what_will_not_be_rented_needs_no_inputs() {
        let mut job = job("a");
        job.replicas = 2;
        let mut state = world(Vec::new()).state;
        let id = |index| ReplicaId {
            job: job.name.clone(),
            index,
        };
        assert_eq!(need(&state, &job), Need::Always);
        // The first has ended, and the second is at work.
        let mut first = state.replica(&id(0));
        first.ending = Some((Ending::Finished, NOW));
        state.replicas.insert(first.id.clone(), first);
        let mut second = held(5, &job, &offer(1), usd(0.2));
        second.replica = id(1);
        second.runner = Some(RunnerView::of(&runner("true")));
        let at = second.id;
        state.held.insert(at, second);
        assert_eq!(need(&state, &job), Need::Always, "it only comes up");
        let view = |state: &mut State, change: fn(&mut Held)| {
            change(state.held.get_mut(&at).unwrap());
        };
        view(&mut state, |held| {
            held.runner.as_mut().unwrap().worked = true;
        });
        assert_eq!(need(&state, &job), Need::Once);
        view(&mut state, |held| held.parked = true);
        assert_eq!(need(&state, &job), Need::Always);
        for wish in [Wish::Pause, Wish::Stop, Wish::Done] {
            let mut record = state.job(&job.name);
            record.wish = wish;
            state.jobs.insert(record.name.clone(), record);
            assert_eq!(need(&state, &job), Need::None);
        }
    }

    #[test]
    fn what_a_run_calls_changed_is_looked_up_anew() {
        let job = job("a");
        let mut state = world(Vec::new()).state;
        let mut one = held(5, &job, &offer(1), usd(0.2));
        let mut view = RunnerView::of(&runner("true"));
        view.input_changed = true;
        one.runner = Some(view);
        let at = one.id;
        state.held.insert(at, one);
        assert!(says_changed(&state, &job.name));
        state.held.get_mut(&at).unwrap().parked = true;
        assert!(!says_changed(&state, &job.name), "that was long ago");
    }

    #[test]
    fn a_disk_has_room_for_an_archive_and_what_is_in_it() {
        let mut job = job("a");
        job.requirements.disk_gb = 10;
        let mut spec = runner("true");
        spec.inputs = vec![input(Some(6_000_000_000))];
        job.run.runner = Some(Box::new(spec.clone()));
        assert_eq!(no_room(&job), None);
        spec.inputs[0].packing = Some(Packing::Tar);
        job.run.runner = Some(Box::new(spec));
        let told = no_room(&job).unwrap();
        assert!(
            told.contains("need 12.0 GB") && told.contains("its disk is 10.0 GB"),
            "{told}"
        );
    }
}
