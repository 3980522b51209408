//! What is rented, by replica: found once for all that is shown of a state.

use std::collections::BTreeMap;

use crate::types::ids::{JobName, ReplicaId};
use crate::types::instance::Held;
use crate::types::state::State;

/// A state, with its instances by the replicas that they are of.
pub(crate) struct Rented<'a> {
    /// The state.
    pub(crate) state: &'a State,
    by_replica: BTreeMap<&'a ReplicaId, Vec<&'a Held>>,
}

impl<'a> Rented<'a> {
    /// Looks through a state once.
    pub(crate) fn of(state: &'a State) -> Self {
        let mut by_replica: BTreeMap<&ReplicaId, Vec<&Held>> = BTreeMap::new();
        for held in state.held.values() {
            by_replica.entry(&held.replica).or_default().push(held);
        }
        Self { state, by_replica }
    }

    /// The instances of a replica, in the order of their numbers.
    pub(crate) fn of_replica(&self, replica: &ReplicaId) -> &[&'a Held] {
        self.by_replica.get(replica).map_or(&[], Vec::as_slice)
    }

    /// The instances of a job, by replica.
    pub(crate) fn of_job(&self, job: &JobName) -> impl Iterator<Item = &'a Held> {
        let numbered = |index| ReplicaId {
            job: job.clone(),
            index,
        };
        self.by_replica
            .range::<ReplicaId, _>(numbered(0)..=numbered(u32::MAX))
            .flat_map(|(_, held)| held.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::{Installation, InstanceId, IntentId};
    use crate::types::time::Time;

    #[test]
    fn instances_are_found_by_replica_and_by_job() {
        let mut state = State::new(Installation::from_seed(1));
        let named = |job: &str, index| ReplicaId {
            job: job.parse().unwrap(),
            index,
        };
        for (number, job, index) in [
            (7, "b", 0),
            (3, "b", 1),
            (5, "b", 0),
            (4, "a", 0),
            (9, "c", 0),
        ] {
            let id = InstanceId(number);
            let held = Held::new(id, IntentId(number), named(job, index), Time(0));
            state.held.insert(id, held);
        }
        let rented = Rented::of(&state);
        let numbers = |held: &[&Held]| held.iter().map(|held| held.id.0).collect::<Vec<_>>();
        assert_eq!(numbers(rented.of_replica(&named("b", 0))), [5, 7]);
        assert_eq!(numbers(rented.of_replica(&named("b", 2))), [] as [u64; 0]);
        let of_b: Vec<&Held> = rented.of_job(&"b".parse().unwrap()).collect();
        assert_eq!(numbers(&of_b), [5, 7, 3]);
    }
}
