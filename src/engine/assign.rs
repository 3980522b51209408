//! Who gets which slot.
//!
//! Replicas of a higher priority are served first, as many of them as can be, at the least cost;
//! those of the next take what is left. Inside one priority it is an assignment problem, solved
//! exactly by the Hungarian algorithm: as many replicas as can be, then the least total cost, then
//! the lowest machines. A replica's cost is the landed price times its GPUs: dollars for an hour's
//! work of its reference GPUs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use pathfinding::kuhn_munkres::kuhn_munkres_min;
use pathfinding::matrix::Matrix;

use crate::types::ids::{MachineId, ReplicaId};
use crate::types::plan::Candidate;

/// Replicas solved for at once. The algorithm's time grows with the third power; a greater class
/// is served in batches, in the order of the needs.
pub const BATCH_MAX: usize = 64;

/// Costs are cut off here, a million dollars an hour, so that no sum overflows.
const COST_MAX: f64 = 1.0e15;

/// A replica that wants an instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    /// Which.
    pub replica: ReplicaId,
    /// Higher is served first.
    pub priority: i32,
    /// What it could take, cheapest first.
    pub candidates: Vec<Candidate>,
}

/// Gives slots to replicas: at most one new rental a machine, at most `limit` in all, higher
/// priorities first, then the least total cost. In the order of priority, then of replicas.
pub fn assign(needs: &[Need], limit: usize) -> Vec<(ReplicaId, Candidate)> {
    let mut order: Vec<&Need> = needs.iter().collect();
    order.sort_by_key(|need| Reverse(need.priority));
    let mut taken: BTreeSet<MachineId> = BTreeSet::new();
    let mut given = Vec::new();
    for class in order.chunk_by(|a, b| a.priority == b.priority) {
        let mut served = Vec::new();
        for batch in class.chunks(BATCH_MAX) {
            let left = limit.saturating_sub(given.len() + served.len());
            if left == 0 {
                break;
            }
            let new = assign_batch(batch, left, &taken);
            taken.extend(new.iter().map(|(_, candidate)| candidate.slot.machine));
            served.extend(new);
        }
        given.extend(in_turn(class, &served));
    }
    given
}

/// A candidate's cost in nano-dollars; `None` for what is not a number.
fn cost(candidate: &Candidate) -> Option<i128> {
    let dollars = candidate.parts.total() * f64::from(candidate.slot.gpus);
    dollars
        .is_finite()
        .then(|| (dollars * 1e9).clamp(0.0, COST_MAX).round() as i128)
}

/// The cheapest candidate on each machine that is still free, for the `most` cheapest machines.
/// Where at most so many replicas are served, one of a replica's so many best is always free, so
/// the rest cannot make it cheaper.
fn options<'a>(
    need: &'a Need,
    taken: &BTreeSet<MachineId>,
    most: usize,
) -> Vec<(i128, &'a Candidate)> {
    let mut priced: Vec<(i128, &Candidate)> = need
        .candidates
        .iter()
        .filter(|candidate| !taken.contains(&candidate.slot.machine))
        .filter_map(|candidate| Some((cost(candidate)?, candidate)))
        .collect();
    priced.sort_by_key(|&(cost, candidate)| (cost, candidate.slot, candidate.offer));
    let mut seen = BTreeSet::new();
    priced.retain(|(_, candidate)| seen.insert(candidate.slot.machine));
    priced.truncate(most);
    priced
}

/// Serves up to `limit` replicas of one class: as many as can be, at the least cost.
fn assign_batch<'a>(
    batch: &[&'a Need],
    limit: usize,
    taken: &BTreeSet<MachineId>,
) -> Vec<(&'a Need, &'a Candidate)> {
    let rows: Vec<(&Need, Vec<(i128, &Candidate)>)> = batch
        .iter()
        .map(|&need| (need, options(need, taken, limit.min(batch.len()))))
        .filter(|(_, options)| !options.is_empty())
        .collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let machines: BTreeSet<MachineId> = rows
        .iter()
        .flat_map(|(_, options)| options.iter().map(|(_, c)| c.slot.machine))
        .collect();
    let column: BTreeMap<MachineId, usize> = machines
        .iter()
        .enumerate()
        .map(|(at, &machine)| (machine, at))
        .collect();

    // Columns: the machines; then as many free places to wait as replicas that the limit leaves
    // out; then a dear place to wait for each, so that every row finds a column. Costs are scaled
    // up to leave room for the tie-break below them.
    let (n, m) = (rows.len(), column.len());
    let waiting = n.saturating_sub(limit);
    let scale = (n * (m + 1)) as i128;
    let dearest = rows.iter().flat_map(|(_, o)| o.iter()).map(|(c, _)| *c);
    let unserved = (dearest.max().unwrap_or(0) + 2) * scale * (n as i128 + 1);
    let mut weights = Matrix::new(n, m + waiting + n, unserved);
    for (row, (_, options)) in rows.iter().enumerate() {
        for at in 0..m {
            // Not to be had: worse than to wait.
            weights[(row, at)] = unserved * 2;
        }
        for &(cost, candidate) in options {
            let at = column[&candidate.slot.machine];
            weights[(row, at)] = (cost + 1) * scale + at as i128;
        }
        for at in m..m + waiting {
            weights[(row, at)] = 0;
        }
    }
    let (_, chosen) = kuhn_munkres_min(&weights);
    rows.iter()
        .zip(chosen)
        .filter_map(|((need, options), at)| {
            let (_, candidate) = options
                .iter()
                .find(|(_, c)| column[&c.slot.machine] == at)?;
            Some((*need, *candidate))
        })
        .collect()
}

/// Replicas of a job that could take the same are interchangeable: the first gets the cheapest, so
/// that who gets what depends on nothing but the market, and who gets nothing are the last.
fn in_turn(class: &[&Need], served: &[(&Need, &Candidate)]) -> Vec<(ReplicaId, Candidate)> {
    let mut got: BTreeMap<&ReplicaId, &Candidate> = served
        .iter()
        .map(|(need, candidate)| (&need.replica, *candidate))
        .collect();
    let mut order = class.to_vec();
    order.sort_by(|a, b| a.replica.cmp(&b.replica));
    let alike =
        |a: &&Need, b: &&Need| a.replica.job == b.replica.job && a.candidates == b.candidates;
    let mut given = Vec::new();
    for group in order.chunk_by(alike) {
        let of_group = group.iter().filter_map(|need| got.remove(&need.replica));
        let mut candidates: Vec<&Candidate> = of_group.collect();
        candidates.sort_by_key(|c| (cost(c), c.slot, c.offer));
        let pairs = group.iter().zip(candidates);
        given.extend(pairs.map(|(need, candidate)| (need.replica.clone(), candidate.clone())));
    }
    given
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::ids::{OfferId, Slot};
    use crate::types::instance::Rental;
    use crate::types::money::Rate;
    use crate::types::plan::PriceParts;

    fn candidate(machine: u64, dollars: f64) -> Candidate {
        Candidate {
            slot: Slot {
                machine: MachineId(machine),
                gpus: 1,
            },
            offer: OfferId(machine * 100),
            gpu_name: "RTX 4090".to_owned(),
            rental: Rental::Bid,
            price: Rate::ZERO,
            storage: Rate::ZERO,
            parts: PriceParts {
                compute: dollars,
                ..PriceParts::default()
            },
        }
    }

    fn need(job: &str, index: u32, priority: i32, candidates: &[(u64, f64)]) -> Need {
        Need {
            replica: ReplicaId {
                job: job.parse().unwrap(),
                index,
            },
            priority,
            candidates: candidates.iter().map(|&(m, d)| candidate(m, d)).collect(),
        }
    }

    fn given(needs: &[Need], limit: usize) -> Vec<(String, u64)> {
        assign(needs, limit)
            .into_iter()
            .map(|(replica, c)| (replica.to_string(), c.slot.machine.0))
            .collect()
    }

    #[test]
    fn the_total_counts_not_the_first_comer() {
        let needs = [
            need("a", 0, 0, &[(1, 0.10), (2, 0.11)]),
            need("b", 0, 0, &[(1, 0.10), (2, 0.50)]),
        ];
        let want = [("a/0".to_owned(), 2), ("b/0".to_owned(), 1)];
        assert_eq!(given(&needs, 8), want);
    }

    #[test]
    fn serving_more_beats_paying_less() {
        let needs = [
            need("a", 0, 0, &[(1, 0.10), (2, 9.0)]),
            need("b", 0, 0, &[(1, 0.20)]),
        ];
        let want = [("a/0".to_owned(), 2), ("b/0".to_owned(), 1)];
        assert_eq!(given(&needs, 8), want);
    }

    #[test]
    fn priority_comes_before_cost_and_before_number() {
        let needs = [
            need("low", 0, 0, &[(1, 0.10)]),
            need("mid", 0, 1, &[(1, 0.20), (2, 0.30)]),
            need("top", 0, 2, &[(2, 0.10)]),
        ];
        let want = [("top/0".to_owned(), 2), ("mid/0".to_owned(), 1)];
        assert_eq!(given(&needs, 8), want);
        assert_eq!(given(&needs, 1), want[..1]);
        assert_eq!(given(&needs, 0), []);
    }

    #[test]
    fn replicas_of_a_job_are_served_in_turn_and_ties_by_machine() {
        let market = [(4, 0.1), (3, 0.1), (2, 0.1), (1, 0.2)];
        let needs = [need("a", 1, 0, &market), need("a", 0, 0, &market)];
        let want = [("a/0".to_owned(), 2), ("a/1".to_owned(), 3)];
        assert_eq!(given(&needs, 8), want);
        let needs: Vec<Need> = (0..5)
            .rev()
            .map(|i| need("a", i, 0, &market[..2]))
            .collect();
        let want = [("a/0".to_owned(), 3), ("a/1".to_owned(), 4)];
        assert_eq!(
            given(&needs, 8),
            want,
            "where there are too few, the first get them"
        );
    }

    #[test]
    fn what_is_not_a_number_is_not_given() {
        let needs = [need("a", 0, 0, &[(1, f64::NAN), (2, f64::INFINITY)])];
        assert_eq!(given(&needs, 8), []);
        let needs = [need("a", 0, 0, &[(1, f64::NAN), (3, 1e300)])];
        assert_eq!(given(&needs, 8), [("a/0".to_owned(), 3)]);
    }

    #[test]
    fn a_class_larger_than_a_batch_is_served() {
        let market: Vec<(u64, f64)> = (0..64).map(|m| (m, 0.1)).collect();
        let mut needs: Vec<Need> = (0..70).map(|i| need("a", i, 0, &market)).collect();
        let last = need("b", 0, 0, &[(99, 0.5)]);
        needs.push(last);
        let given = given(&needs, 1000);
        assert_eq!(given.len(), 65);
        assert_eq!(given.last(), Some(&("b/0".to_owned(), 99)));
    }

    /// Every way to serve some replicas of the first class, then of the next: the best by
    /// (served, cost) class by class. Written without the algorithm.
    fn brute_force(needs: &[Need], limit: usize) -> Vec<(usize, i128)> {
        fn search(
            left: &[&Need],
            limit: usize,
            taken: &mut Vec<MachineId>,
        ) -> Vec<(usize, i128, Vec<MachineId>)> {
            let Some((first, rest)) = left.split_first() else {
                return vec![(0, 0, taken.clone())];
            };
            let mut all = search(rest, limit, taken);
            for candidate in &first.candidates {
                if limit == 0 || taken.contains(&candidate.slot.machine) {
                    continue;
                }
                taken.push(candidate.slot.machine);
                let cost = (candidate.parts.compute * 1e9).round() as i128;
                for (served, sum, used) in search(rest, limit - 1, taken) {
                    all.push((served + 1, sum + cost, used));
                }
                taken.pop();
            }
            all
        }
        let mut taken: Vec<MachineId> = Vec::new();
        let mut left = limit;
        let mut result = Vec::new();
        for priority in [2, 1, 0] {
            let class: Vec<&Need> = needs.iter().filter(|n| n.priority == priority).collect();
            let all = search(&class, left, &mut taken.clone());
            let best = all
                .iter()
                .map(|(n, cost, _)| (Reverse(*n), *cost))
                .min()
                .unwrap();
            // Equal bests may take different machines; what the engine took decides for the next.
            let engine = assign(needs, limit);
            taken.extend(engine.iter().filter_map(|(replica, c)| {
                let of_class = class.iter().any(|n| n.replica == *replica);
                of_class.then_some(c.slot.machine)
            }));
            left -= best.0.0;
            result.push((best.0.0, best.1));
        }
        result
    }

    fn needs() -> impl Strategy<Value = Vec<Need>> {
        let market = proptest::collection::vec((0_u64..6, 1_u32..20), 0..5);
        proptest::collection::vec((0_i32..3, market), 0..6).prop_map(|rows| {
            rows.into_iter()
                .enumerate()
                .map(|(index, (priority, market))| {
                    let mut market: Vec<(u64, f64)> = market
                        .into_iter()
                        .map(|(machine, cents)| (machine, f64::from(cents) / 100.0))
                        .collect();
                    market.sort_by(|a, b| a.1.total_cmp(&b.1));
                    need("a", index as u32, priority, &market)
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn no_machine_twice_and_as_cheap_as_brute_force(needs in needs(), limit in 0_usize..7) {
            let given = assign(&needs, limit);
            let machines: BTreeSet<MachineId> = given.iter().map(|(_, c)| c.slot.machine).collect();
            let replicas: BTreeSet<&ReplicaId> = given.iter().map(|(r, _)| r).collect();
            prop_assert!(machines.len() == given.len() && replicas.len() == given.len());
            prop_assert!(given.len() <= limit);
            for (replica, candidate) in &given {
                let need = needs.iter().find(|need| need.replica == *replica).unwrap();
                prop_assert!(need.candidates.contains(candidate));
            }
            let by_class: Vec<(usize, i128)> = [2, 1, 0].iter().map(|&priority| {
                let of_class = |replica: &ReplicaId| {
                    needs.iter().any(|n| n.replica == *replica && n.priority == priority)
                };
                let costs = given.iter().filter(|(r, _)| of_class(r)).map(|(_, c)| cost(c).unwrap());
                costs.fold((0, 0), |(n, sum), cost| (n + 1, sum + cost))
            }).collect();
            prop_assert_eq!(by_class, brute_force(&needs, limit));
        }

        /// A replica that is left out could not have had anything that a lower one got.
        #[test]
        fn no_lower_priority_goes_first(needs in needs(), limit in 0_usize..7) {
            let given = assign(&needs, limit);
            for left_out in needs.iter().filter(|n| given.iter().all(|(r, _)| *r != n.replica)) {
                for (replica, got) in &given {
                    let lower = needs.iter().any(|n| n.replica == *replica && n.priority < left_out.priority);
                    let wanted = left_out.candidates.iter().any(|c| c.slot.machine == got.slot.machine);
                    prop_assert!(!(lower && wanted));
                }
            }
        }
    }
}
