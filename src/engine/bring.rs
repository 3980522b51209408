//! Moving without storage: the last checkpoint on a disk that was left is copied by the marketplace to
//! the instance that takes its place, before that may work.
//!
//! The old instance is parked, and that was read back. The new one is made behind its gate: its label
//! says `hold`. Once its runner waits there the copy is asked for, and again where nothing comes of it.
//! The runner judges what arrived: an archive with the sum that a manifest of the other run, signed with
//! that run's key, says. Then the label says `go` with the next generation, and once that is so the old
//! disk goes. Until the gate was opened all work is on the old disk, and the new instance has nothing to
//! lose; from then on it is the other way round.

use std::time::Duration;

use crate::types::ids::{InstanceId, MachineId, Permit};
use crate::types::instance::{Bringing, DestroyWhy, Held};
use crate::types::intent::Effect;
use crate::types::job::Job;
use crate::types::money::Money;
use crate::types::plan::{Action, Situation, Why};
use crate::types::time::Time;
use crate::types::world::World;

use super::act::{at_rest, busy, plain};
use super::budget::Load;
use super::replica::{Ground, Step, leave, spendable};
use super::view::restore_patience;

/// A copy that was not accepted is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_mins(1);

/// An instance that waits behind its gate for so long beyond its copy's time is given up whatever is heard
/// of it: it is billed.
const UNHEARD_MAX: Duration = Duration::from_mins(30);

/// A disk's gigabyte, in bytes.
const GB: u64 = 1_000_000_000;

/// The disk that a replica's next instance is to go on from: of those that it left, newest first, the
/// first with work on it, if the runner there kept its checkpoints for that.
pub(super) fn source<'a>(job: &Job, held: &[&'a Held]) -> Option<&'a Held> {
    let runner = job.run.runner.as_deref().filter(|runner| runner.carried)?;
    let has_work = |held: &&&Held| {
        let worked = held.runner.as_ref().is_some_and(|view| view.worked);
        (worked || is_its_own(held)) && held.destroying.is_none()
    };
    let from = held.iter().find(has_work)?;
    let given = from.runner.as_ref()?.given.as_deref()?;
    let same = given.carried && given.checkpoint == runner.checkpoint;
    (same && from.parked).then_some(*from)
}

/// Whether a checkpoint was brought to it, with which it was let work.
fn is_its_own(held: &Held) -> bool {
    let bringing = held.bringing.as_ref();
    bringing.is_some_and(|bringing| bringing.opened && bringing.verified.is_some())
}

/// How many bytes a copy from a disk moves at most: two archives, for one may be half written.
fn bytes(from: &Held) -> u64 {
    let kept = from
        .runner
        .as_ref()
        .and_then(|view| view.checkpoint.as_ref());
    let disk = u64::from(from.disk_gb).saturating_mul(GB);
    kept.map_or(disk, |(_, _, bytes)| {
        bytes.saturating_mul(2).saturating_add(GB / 100).min(disk)
    })
}

/// What is known of a copy before an instance is made that begins with it.
pub(crate) fn bringing(from: &Held) -> Bringing {
    Bringing {
        from: from.id,
        run: from.intent,
        bytes: bytes(from),
        ready_at: None,
        begun_at: None,
        asked_at: None,
        accepted: false,
        posted: false,
        verified: None,
        anew: false,
        opened: false,
    }
}

/// What the copy's traffic costs where it leaves and where it arrives: nothing on one machine. At no known
/// price it may cost anything.
pub(crate) fn traffic(
    job: &Job,
    from: &Held,
    (machine, down): (MachineId, Option<Money>),
    bytes: u64,
) -> (Money, Money) {
    if from.slot.machine == machine {
        return (Money::ZERO, Money::ZERO);
    }
    let most = job.requirements.traffic_price_max;
    let up = from.traffic_prices.map(|(_, up)| up).or(most);
    let of = |price: Option<Money>| price.map_or(Money::MAX, |price| cost(price, bytes));
    (of(up), of(down.or(most)))
}

/// What so many bytes cost at a price for a GB, rounded up.
pub(crate) fn cost(price: Money, bytes: u64) -> Money {
    let whole = i128::from(price.0.max(0)) * i128::from(bytes);
    let nanos = (whole + i128::from(GB) - 1) / i128::from(GB);
    i64::try_from(nanos).map_or(Money::MAX, Money)
}

/// What a copy that was asked for costs in traffic, by the instances that it is billed to.
pub(crate) fn copy_traffic(job: &Job, from: &Held, to: &Held) -> (Money, Money) {
    let down = to.traffic_prices.map(|(down, _)| down);
    let most = to.bringing.as_ref().map_or(0, |bringing| bringing.bytes);
    traffic(job, from, (to.slot.machine, down), most)
}

/// How long a copy may take from when it was first asked for.
pub(super) fn patience(bringing: &Bringing) -> Duration {
    restore_patience(bringing.bytes)
}

/// Whether a copy has had its time at a moment.
pub(super) fn is_over(bringing: &Bringing, at: Time) -> bool {
    bringing
        .begun_at
        .is_some_and(|begun| at >= begun + patience(bringing))
}

/// Whether all that an instance holds is on another disk: it waits behind its gate, and nothing on it has
/// worked. What was brought is its own only once the other one is gone.
pub(super) fn holds_nothing(world: &World, held: &Held) -> bool {
    held.bringing.as_ref().is_some_and(|bringing| {
        let old = world.state.held.get(&bringing.from);
        let has_old = old.is_some_and(|old| old.destroying.is_none());
        !bringing.opened && (bringing.verified.is_none() || has_old)
    })
}

/// Whether a newer instance goes on with what was on a disk: its copy was verified, and its gate is open.
pub(super) fn is_carried_on(held: &Held, newer: &Held) -> bool {
    let from_it = |bringing: &Bringing| bringing.from == held.id && newer.destroying.is_none();
    let carried = newer.bringing.as_ref().is_some_and(from_it) && is_its_own(newer);
    let works = newer
        .tail
        .is_some_and(|tail| tail.generation == newer.generation && tail.permit == Permit::Go);
    carried && works && newer.generation > held.generation
}

/// What an instance behind its gate needs; `None`: it has none, or it is open.
pub(super) fn bring(
    ground: &mut Ground<'_, '_>,
    held: &Held,
    count: usize,
    step: &mut Step,
) -> Option<Situation> {
    let bringing = held.bringing.as_ref().filter(|bringing| !bringing.opened)?;
    let world = ground.world;
    let until = bringing.begun_at.map(|begun| begun + patience(bringing));
    let situation = Situation::Bringing {
        from: bringing.from,
        until,
    };
    if bringing.verified.is_some() || bringing.anew {
        // Its label comes to say `go`.
        return Some(situation);
    }
    let from = world.state.held.get(&bringing.from);
    let came = held.first_ran_at.unwrap_or(held.created_at);
    let most = patience(bringing).saturating_mul(2) + UNHEARD_MAX;
    if world.now >= came + most {
        let (why, destroy_why) = (Why::NotBrought, DestroyWhy::NotBrought);
        return Some(leave(ground, held, why, destroy_why, count, step));
    }
    let from = from.filter(|from| at_rest(world, from) && from.destroying.is_none());
    if let Some(from) = from.filter(|_| is_due(world, held, bringing) && spendable(ground)) {
        let (up, down) = copy_traffic(ground.job, from, held);
        let reserve = up.saturating_add(down);
        let taken = ground
            .purse
            .take(ground.job, reserve, Money::ZERO, Load::default());
        match taken {
            Ok(()) => step.actions.push(Action {
                reserve,
                ..plain(held, copy(from.id, held), Why::Bring)
            }),
            Err(limit) => return Some(Situation::OverLimit { limit }),
        }
    }
    Some(situation)
}

fn copy(from: InstanceId, to: &Held) -> Effect {
    Effect::Copy {
        instance: to.id,
        from,
    }
}

/// Whether the copy is to be asked for now: its runner waits for it, and what was asked for before came to
/// nothing or has had half of its time.
fn is_due(world: &World, held: &Held, bringing: &Bringing) -> bool {
    if bringing.ready_at.is_none() || busy(world, held) || is_over(bringing, world.now) {
        return false;
    }
    let after = if bringing.accepted {
        patience(bringing) / 2
    } else {
        ASK_AGAIN
    };
    bringing
        .asked_at
        .is_none_or(|asked| world.now >= asked + after)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::check::check;
    use super::super::decide::decide;
    use super::super::eligible::samples::{NOW, held, job, offer, runner, usd, world};
    use super::super::properties::{act, list};
    use super::*;
    use crate::types::ids::Tail;
    use crate::types::instance::{Phase, RunnerView, Verdict};
    use crate::types::job::{CheckpointPlace, RentalChoice};
    use crate::types::money::{BID_PARKED, Rate};
    use crate::types::plan::Plan;

    const OLD: InstanceId = InstanceId(5);

    /// A job whose checkpoint is on its disk and stays there for the next one.
    fn carried() -> Job {
        let mut spec = runner("true");
        spec.checkpoint = Some("/work/checkpoint".to_owned());
        spec.carried = true;
        let mut job = job("a");
        job.checkpoint_place = Some(CheckpointPlace::Disk);
        job.run.runner = Some(Box::new(spec));
        job
    }

    /// It worked on machine 9, was outbid, waited for and parked; there are others.
    fn left(job: Job) -> World {
        let mut old = held(OLD.0, &job, &offer(9), BID_PARKED);
        let mut view = RunnerView::of(job.run.runner.as_deref().unwrap());
        view.worked = true;
        view.checkpoint = Some((0, "a".repeat(64), 40_000_000_000));
        old.runner = Some(view);
        old.bid_before_park = Some(Rate::ZERO);
        (old.phase, old.parked, old.stop_asked) = (Phase::Stopped, true, true);
        old.tail = Some(Tail {
            generation: 1,
            permit: Permit::Go,
            until: NOW + Duration::from_hours(2),
        });
        let mut world = world((2..5).map(offer).collect());
        let mut record = world.state.replica(&old.replica);
        record.generation = old.generation;
        world.state.replicas.insert(record.id.clone(), record);
        world.state.held.insert(old.id, old);
        world.jobs = vec![Arc::new(job)];
        list(&mut world, true);
        world
    }

    /// What is planned, all of which passes the second reckoning.
    fn planned(world: &World) -> Plan {
        let (plan, _) = decide(world);
        let (kept, dropped) = check(world, &plan);
        assert_eq!(dropped, []);
        kept
    }

    fn effects(world: &World) -> Vec<Effect> {
        let plan = planned(world);
        plan.actions
            .into_iter()
            .map(|action| action.effect)
            .collect()
    }

    fn tick(world: &mut World) -> Vec<Effect> {
        let plan = planned(world);
        act(world, &plan);
        plan.actions
            .into_iter()
            .map(|action| action.effect)
            .collect()
    }

    fn newest(world: &mut World) -> &mut Held {
        let held = world.state.held.values_mut();
        held.max_by_key(|held| held.generation).unwrap()
    }

    /// The one that was made last comes up, and waits behind its gate.
    fn comes_up(world: &mut World) -> InstanceId {
        let now = world.now;
        let new = newest(world);
        new.phase = Phase::Running;
        new.first_ran_at.get_or_insert(now);
        let id = new.id;
        list(world, true);
        id
    }

    /// Up to the moment at which its runner waits for the copy.
    fn waiting() -> (World, InstanceId) {
        let mut world = left(carried());
        tick(&mut world);
        tick(&mut world);
        let id = comes_up(&mut world);
        assert_eq!(effects(&world), [], "its runner does not wait yet");
        let now = world.now;
        newest(&mut world).bringing.as_mut().unwrap().ready_at = Some(now);
        (world, id)
    }

    fn permits(effects: &[Effect]) -> Vec<(u64, u32, Permit)> {
        let tails = effects.iter().filter_map(|effect| match effect {
            Effect::Relabel { instance, tail } => Some((instance.0, tail.generation, tail.permit)),
            _ => None,
        });
        tails.collect()
    }

    #[test]
    fn the_next_one_waits_behind_its_gate_and_the_old_disk_goes_last() {
        let mut world = left(carried());
        let (plan, _) = decide(&world);
        let rent = plan.actions.last().unwrap();
        let Effect::Rent {
            from, generation, ..
        } = rent.effect
        else {
            panic!("{plan:?}")
        };
        assert_eq!((from, generation), (Some(OLD), 2));
        // 48 GB of disk are the most that two archives can be, at $0.003 a GB each way.
        let mut plain = carried();
        plain.run.runner.as_mut().unwrap().carried = false;
        let plain = decide(&left(plain));
        let more = rent.reserve - plain.0.actions[0].reserve;
        assert_eq!(more, Money(48 * 6_000_000));
        tick(&mut world);
        let new = newest(&mut world).id;
        let labels = permits(&tick(&mut world));
        let hold = Permit::Hold;
        assert_eq!(labels, [(OLD.0, 2, hold), (new.0, 2, hold)]);
        comes_up(&mut world);
        assert_eq!(effects(&world), [], "its runner does not wait yet");
        let now = world.now;
        newest(&mut world).bringing.as_mut().unwrap().ready_at = Some(now);
        let plan = planned(&world);
        let copies = Effect::Copy {
            instance: new,
            from: OLD,
        };
        assert_eq!((plan.actions.len(), &plan.actions[0].effect), (1, &copies));
        assert_eq!(plan.actions[0].reserve, more, "its traffic is set aside");
        tick(&mut world);
        assert_eq!(effects(&world), [], "it is under way");
        newest(&mut world).bringing.as_mut().unwrap().verified = Some("a".repeat(64));
        let opened = tick(&mut world);
        assert_eq!(permits(&opened), [(new.0, 2, Permit::Go)]);
        assert_eq!(opened.len(), 1, "nothing goes before the gate is open");
        let why = DestroyWhy::Moved;
        let instance = OLD;
        assert_eq!(tick(&mut world), [Effect::Destroy { instance, why }]);
        assert_eq!(effects(&world), []);
    }

    #[test]
    fn on_the_same_machine_the_copy_is_free() {
        let mut back = offer(9);
        // The old bid explains no such floor, and nothing under the on-demand rate beats it.
        back.floor = Some(usd(0.5));
        let mut world = left(Job {
            rental: RentalChoice::Auto,
            ..carried()
        });
        Arc::make_mut(&mut world.market).offers.push(back);
        let effects = tick(&mut world);
        let machine = effects.iter().find_map(|effect| match effect {
            Effect::Rent { slot, from, .. } => from.map(|_| slot.machine.0),
            _ => None,
        });
        assert_eq!(machine, Some(9));
        comes_up(&mut world);
        let now = world.now;
        newest(&mut world).bringing.as_mut().unwrap().ready_at = Some(now);
        let plan = planned(&world);
        let copy = plan.actions.iter().find(|action| action.why == Why::Bring);
        assert_eq!(copy.unwrap().reserve, Money::ZERO);
    }

    #[test]
    fn a_copy_is_asked_for_again_within_its_time() {
        let (mut world, _) = waiting();
        let copies = |world: &World| {
            let all = effects(world);
            all.iter()
                .any(|effect| matches!(effect, Effect::Copy { .. }))
        };
        assert!(copies(&world));
        tick(&mut world);
        let begun = world.now;
        let mut at = |seconds: u64, accepted| {
            world.now = begun + Duration::from_secs(seconds);
            newest(&mut world).bringing.as_mut().unwrap().accepted = accepted;
            copies(&world)
        };
        assert!(!at(59, false), "it was refused, or nobody knows");
        assert!(at(60, false));
        // 48 GB at 5 MB/s are 9600 s.
        assert!(!at(4799, true));
        assert!(at(4800, true));
        assert!(!at(9600, true), "its time is over");
    }

    #[test]
    fn before_its_gate_is_open_the_new_one_goes_and_the_old_one_stays() {
        let outbid = |held: &mut Held| {
            held.phase = Phase::Stopped;
            held.phase_since = NOW - Duration::from_hours(2);
            held.bid_before_park = Some(Rate::ZERO);
        };
        let refused = |held: &mut Held| {
            held.runner.as_mut().unwrap().verdict = Some(Verdict::Refused);
        };
        let late = |held: &mut Held| {
            held.runner.as_mut().unwrap().verdict = Some(Verdict::NotBrought);
        };
        let ends: [fn(&mut Held); 3] = [outbid, refused, late];
        for (number, end) in ends.into_iter().enumerate() {
            for verified in [None, Some("a".repeat(64))] {
                let (mut world, new) = waiting();
                tick(&mut world);
                let held = newest(&mut world);
                held.bringing.as_mut().unwrap().verified = verified.clone();
                end(held);
                let all = effects(&world);
                let goes = |effect: &Effect| matches!(effect, Effect::Destroy { instance, .. } if *instance == new);
                let (gone, rest): (Vec<&Effect>, Vec<&Effect>) = all.iter().partition(|e| goes(e));
                assert_eq!(gone.len(), 1, "{number} {verified:?}: {all:?}");
                assert_eq!(rest, Vec::<&Effect>::new(), "{number}: the gate stays shut");
            }
        }
    }

    #[test]
    fn once_its_gate_is_open_the_new_disk_is_kept_and_gone_on_from() {
        let (mut world, new) = waiting();
        tick(&mut world);
        newest(&mut world).bringing.as_mut().unwrap().verified = Some("a".repeat(64));
        tick(&mut world);
        // It is outbid before anything was heard of its command.
        let held = newest(&mut world);
        held.phase = Phase::Stopped;
        held.phase_since = NOW - Duration::from_hours(2);
        held.bid_before_park = Some(Rate::ZERO);
        let all = tick(&mut world);
        let parks = Effect::SetBid {
            instance: new,
            bid: BID_PARKED,
        };
        assert!(all.contains(&parks), "{all:?}");
        let all = tick(&mut world);
        let from = all.iter().find_map(|effect| match effect {
            Effect::Rent { from, .. } => *from,
            _ => None,
        });
        assert_eq!(from, Some(new), "{all:?}");
    }

    #[test]
    fn what_begins_anew_is_let_and_the_old_disk_is_kept() {
        let (mut world, new) = waiting();
        tick(&mut world);
        newest(&mut world).bringing.as_mut().unwrap().anew = true;
        let all = tick(&mut world);
        assert_eq!(permits(&all), [(new.0, 2, Permit::Go)]);
        assert_eq!(all.len(), 1);
        assert_eq!(effects(&world), []);
        assert!(world.state.held.contains_key(&OLD));
    }

    #[test]
    fn a_disk_that_was_not_kept_for_that_is_not_gone_on_from() {
        let mut world = left(carried());
        let old = world.state.held.get_mut(&OLD).unwrap();
        let given = old.runner.as_mut().unwrap().given.as_mut().unwrap();
        given.carried = false;
        let all = effects(&world);
        let rent = all.iter().find_map(|effect| match effect {
            Effect::Rent { from, .. } => Some(*from),
            _ => None,
        });
        assert_eq!(rent, Some(None));
    }

    /// What happens to a replica whose work moves from disk to disk.
    #[derive(Clone, Copy, Debug)]
    enum Turn {
        /// A plan is made, and so many of its actions are carried out before the process dies.
        Tick(usize),
        ComesUp,
        Waits,
        FindsIt,
        Works,
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
            3 => Just(Turn::FindsIt),
            3 => Just(Turn::Works),
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
                Turn::Waits | Turn::FindsIt | Turn::Late if up => {
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
                        Turn::FindsIt if bringing.accepted => {
                            bringing.verified = Some("a".repeat(64));
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
}
