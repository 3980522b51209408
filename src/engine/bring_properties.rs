//! Moving without storage, played in every order.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::properties::{act, list};
use super::samples::*;
use super::*;
use crate::types::ids::Permit;
use crate::types::instance::Verdict;
use crate::types::job::RentalChoice;

/// What happens to a replica whose work moves from disk to disk.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// A plan is made, and so many of its actions are carried out before the process dies.
    Tick(usize),
    ComesUp,
    Waits,
    /// The copy came; whether it is what was heard of.
    FindsIt(bool),
    Works,
    /// It tells of a checkpoint of its own.
    Keeps,
    Outbid,
    Late,
    Lost,
    Settles,
    Minutes(u64),
}

fn turns() -> impl Strategy<Value = Turn> {
    prop_oneof![
        5 => Just(Turn::Tick(usize::MAX)),
        3 => (0..3_usize).prop_map(Turn::Tick),
        3 => Just(Turn::ComesUp),
        3 => Just(Turn::Waits),
        3 => any::<bool>().prop_map(Turn::FindsIt),
        3 => Just(Turn::Works),
        2 => Just(Turn::Keeps),
        2 => Just(Turn::Outbid),
        1 => Just(Turn::Late),
        1 => Just(Turn::Lost),
        3 => Just(Turn::Settles),
        1 => (1..90_u64).prop_map(Turn::Minutes),
    ]
}

/// A world in which what is destroyed is not gone at once, and which of its disks that stay have all the
/// work that was done.
struct Play {
    world: World,
    has_all: BTreeSet<InstanceId>,
}

impl Play {
    fn takes(&mut self, turn: Turn) {
        let world = &mut self.world;
        match turn {
            Turn::Tick(most) => {
                let mut plan = planned(world);
                plan.actions.truncate(most);
                plan.actions.retain(|action| {
                    let Effect::Destroy { instance, why } = action.effect else {
                        return true;
                    };
                    let held = world.state.held.get_mut(&instance).unwrap();
                    held.destroying = Some(why);
                    held.destroy_sent_at = Some(world.now);
                    false
                });
                act(world, &plan);
            }
            Turn::Settles => {
                let held = &mut world.state.held;
                held.retain(|_, held| held.destroying.is_none());
            }
            Turn::Minutes(minutes) => {
                world.now = world.now + Duration::from_mins(minutes);
                Arc::make_mut(&mut world.market).at = world.now;
                for held in world.state.held.values_mut() {
                    held.accrued_to = world.now;
                }
            }
            other => self.happens(other),
        }
        list(&mut self.world, true);
        let held = &self.world.state.held;
        let stays = |id: &InstanceId| held.get(id).is_some_and(|h| h.destroying.is_none());
        self.has_all.retain(stays);
    }

    /// Something happens to the newest instance.
    fn happens(&mut self, turn: Turn) {
        let now = self.world.now;
        let held = newest(&mut self.world);
        let id = held.id;
        if held.destroying.is_some() {
            return;
        }
        let up = held.phase == Phase::Running && held.runner.is_some();
        let view = held.runner.as_mut().unwrap();
        match turn {
            Turn::ComesUp if held.phase == Phase::Provisioning => {
                held.phase = Phase::Running;
                held.first_ran_at.get_or_insert(now);
            }
            Turn::Outbid if up => {
                held.phase = Phase::Stopped;
                held.phase_since = now - Duration::from_hours(2);
                held.bid_before_park = Some(Rate::ZERO);
                view.verdict = None;
            }
            Turn::Works if up && !held.parked && view.verdict.is_none() => {
                let own = held.tail.is_some_and(|tail| {
                    tail.permit == Permit::Go && tail.generation == held.generation
                });
                if own {
                    view.worked = true;
                    assert!(
                        self.has_all.contains(&id),
                        "it works without the work before it"
                    );
                    self.has_all = BTreeSet::from([id]);
                }
            }
            Turn::Lost if held.bringing.as_ref().is_some_and(|b| !b.opened) => {
                self.world.state.held.remove(&id);
            }
            Turn::Keeps if up => {
                let bringing = held.bringing.as_mut().filter(|b| b.opened);
                if let Some(bringing) = bringing.filter(|_| view.worked) {
                    bringing.kept_at.get_or_insert(now);
                }
            }
            Turn::Waits | Turn::FindsIt(_) | Turn::Late if up => {
                let Some(bringing) = held.bringing.as_mut().filter(|b| !b.opened) else {
                    return;
                };
                match turn {
                    Turn::Waits => {
                        bringing.ready_at.get_or_insert(now);
                    }
                    Turn::Late if bringing.verified.is_none() => {
                        view.verdict = Some(Verdict::NotBrought);
                    }
                    Turn::FindsIt(as_told) if bringing.accepted => {
                        bringing.verified = Some("a".repeat(64));
                        bringing.as_told = as_told;
                        bringing.own = Some("b".repeat(64));
                        view.checkpoint = Some((0, "b".repeat(64), 40_000_000_000));
                        if self.has_all.contains(&bringing.from) {
                            self.has_all.insert(id);
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn holds(&self) {
        let held = self.world.state.held.values();
        let lets_work = |held: &&Held| {
            let own = held.tail.is_some_and(|tail| {
                tail.permit == Permit::Go && tail.generation == held.generation
            });
            own && !held.parked && held.phase == Phase::Running
        };
        assert!(held.filter(lets_work).count() <= 1, "two at work");
        assert!(
            !self.has_all.is_empty(),
            "the work is lost: {:?}",
            self.world.state.held
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens and wherever a plan is broken off: there is always a disk with all the work,
    /// what works has it, and never do two work.
    #[test]
    fn the_work_is_never_lost_and_never_done_twice(
        turns in proptest::collection::vec(turns(), 1..60),
        auto in any::<bool>(),
    ) {
        let mut job = carried();
        if auto {
            job.rental = RentalChoice::Auto;
        }
        let mut play = Play {
            world: left(job),
            has_all: BTreeSet::from([OLD]),
        };
        play.world.account.as_mut().unwrap().credit = Some(Money::dollars(100_000));
        for turn in turns {
            play.takes(turn);
            play.holds();
        }
    }
}
