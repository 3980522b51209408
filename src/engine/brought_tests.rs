//! What is heard of checkpoints that are brought from another disk, and what is not.

use super::*;
use crate::engine::bring;
use crate::engine::brought::{Refusal, refused};
use crate::runner::Brought;
use crate::types::instance::Bringing;
use crate::types::intent::{Effect, Intent, IntentState};
use crate::types::job::CheckpointPlace;
use crate::types::ledger::Entry;
use crate::types::money::Money;
use crate::types::state::{Event, ReplicaRecord};

const OLD: InstanceId = InstanceId(4);

/// It waits behind its gate for the checkpoint of an older one. Its copy was not asked for.
fn rented(restartable: bool) -> Scene {
    let mut scene = Scene::new();
    scene.job.restartable = restartable;
    scene.job.checkpoint_place = Some(CheckpointPlace::Disk);
    let mut old = scene.state.held[&scene.row.id].clone();
    (old.id, old.intent) = (OLD, IntentId(4));
    old.slot.machine = MachineId(44);
    (old.phase, old.parked, old.stop_asked) = (Phase::Stopped, true, true);
    old.bid_before_park = Some(Rate::ZERO);
    let view = old.runner.as_mut().unwrap();
    view.checkpoint = Some((0, sum('c'), 1000));
    view.read_at = Some(NOW);
    old.last_bid = Some(usd(0.3));
    // Another one of ours bid more on its machine.
    let mut machine = scene.state.machine(old.slot.machine);
    machine.highest_bid = Some((usd(0.9), NOW));
    scene.state.machines.insert(machine.id, machine);
    let mut record = scene.state.replica(&old.replica);
    record.durable_gpu_ms = 3_600_000;
    scene.state.replicas.insert(record.id.clone(), record);
    let held = scene.state.held.get_mut(&scene.row.id).unwrap();
    held.generation = 2;
    held.first_ran_at = None;
    held.phase = Phase::Provisioning;
    let mut bringing = bring::bringing(&old);
    bringing.bytes = 1000;
    held.bringing = Some(bringing);
    scene.state.held.insert(old.id, old);
    scene
}

/// The same, and its copy was asked for just now.
fn waiting(restartable: bool) -> Scene {
    let mut scene = rented(restartable);
    scene.change(|bringing| bringing.begun_at = Some(NOW));
    scene
}

impl Scene {
    fn bringing(&self) -> Bringing {
        self.state.held[&self.row.id].bringing.clone().unwrap()
    }

    fn change(&mut self, change: impl FnOnce(&mut Bringing)) {
        let held = self.state.held.get_mut(&self.row.id).unwrap();
        change(held.bringing.as_mut().unwrap());
    }

    /// The marketplace answers that it copies.
    fn accepts(&mut self) {
        let now = self.now;
        self.change(|bringing| {
            bringing.accepted = true;
            bringing.accepted_at = Some(now);
        });
    }

    fn done_gpu_ms(&self) -> i64 {
        let id = &self.state.held[&self.row.id].replica;
        self.state.replica(id).done_gpu_ms()
    }

    /// Some minutes later its row is seen, its log cannot be read, and of some requests it is proven that
    /// nothing more comes of them. `gone`: there is no row.
    fn sees(
        &mut self,
        minutes: u64,
        void: &[IntentId],
        gone: Option<InstanceId>,
    ) -> (Vec<Event>, Vec<Entry>) {
        self.now = self.now + Duration::from_mins(minutes);
        let listing = Listing {
            rows: gone.map_or_else(|| vec![self.row.clone()], |_| Vec::new()),
            complete: true,
            unreadable: Vec::new(),
        };
        let seen = Observation {
            now: self.now,
            moved: Moved::default(),
            broke: false,
            listing: Some(&listing),
            market: &Snapshot::default(),
            proven_gone: &gone.into_iter().collect(),
            proven_void: &void.iter().copied().collect(),
            on_demand: &BTreeMap::new(),
            unchanged: &BTreeMap::new(),
            ran: &BTreeSet::new(),
            ended: &BTreeMap::new(),
            heard: &BTreeMap::new(),
        };
        let jobs = [Arc::new(self.job.clone())];
        let (mut events, mut entries) = (Vec::new(), Vec::new());
        for change in observe(&self.state, &jobs, &EngineConfig::default(), &seen) {
            self.state.apply(&change);
            match change {
                Change::Event(event) => events.push(event),
                Change::Entry(entry) => entries.push(entry),
                _ => {}
            }
        }
        (events, entries)
    }

    fn is_given_up(&self) -> bool {
        self.view().verdict == Some(Verdict::NotBrought)
    }

    fn old(&self) -> &Held {
        &self.state.held[&OLD]
    }
}

fn waits(seq: u64) -> Told {
    Told {
        waits: Some("copy".to_owned()),
        why: Some("hold".to_owned()),
        ..line("1.1", seq, "gate")
    }
}

fn brings(seq: u64, run: &str, digit: char) -> Told {
    Told {
        brought: Some(Brought {
            run: run.to_owned(),
            manifest: sum(digit),
            bytes: 900,
        }),
        checkpoint: Some(Kept {
            slot: 0,
            manifest: sum('d'),
            bytes: 900,
        }),
        ..line("1.1", seq, "gate")
    }
}

#[test]
fn what_was_brought_is_the_checkpoint_of_that_run_and_waiting_is_no_work() {
    let mut scene = waiting(false);
    assert_eq!(scene.hears(1, Some(vec![waits(1)])), None);
    assert_eq!(scene.bringing().ready_at, Some(scene.now));
    scene.accepts();
    assert_eq!(scene.hears(1, Some(vec![brings(2, "9", 'c')])), None);
    assert_eq!(scene.bringing().verified, None, "it is another run's");
    assert_eq!(scene.hears(1, Some(vec![brings(3, "4", 'c')])), None);
    let bringing = scene.bringing();
    assert_eq!(bringing.verified, Some(sum('c')));
    assert!(bringing.as_told);
    assert!(scene.told.contains(&"brought".to_owned()));
    let heard = scene.hears(9, Some(vec![brings(4, "4", 'c')]));
    assert_eq!(heard, None, "in time");
    assert_eq!(scene.done_gpu_ms(), 3_600_000);
    assert!(!scene.told.contains(&"work-lost".to_owned()));
}

#[test]
fn what_the_marketplace_has_not_taken_up_did_not_come() {
    let mut scene = waiting(false);
    scene.hears(1, Some(vec![waits(1), brings(2, "4", 'c')]));
    assert_eq!(scene.bringing().verified, None, "nobody else says so");
    scene.accepts();
    scene.sees(1, &[], None);
    assert_eq!(scene.bringing().verified, Some(sum('c')));
}

#[test]
fn what_is_not_what_the_other_run_told_of_is_told() {
    let mut scene = waiting(false);
    scene.accepts();
    scene.hears(1, Some(vec![waits(1), brings(2, "4", 'e')]));
    let bringing = scene.bringing();
    assert_eq!(bringing.verified, Some(sum('e')));
    assert!(!bringing.as_told);
    assert!(scene.told.contains(&"brought-unknown".to_owned()));
    // Its log is read once more, and has that one.
    let old = scene.state.held.get_mut(&OLD).unwrap();
    old.runner.as_mut().unwrap().checkpoint = Some((0, sum('e'), 1000));
    scene.sees(1, &[], None);
    assert!(scene.bringing().as_told);
}

#[test]
fn a_checkpoint_of_its_own_is_another_than_what_it_began_with() {
    let mut scene = waiting(false);
    scene.accepts();
    scene.hears(1, Some(vec![waits(1), brings(2, "4", 'c')]));
    scene.change(|bringing| bringing.opened = true);
    let kept = |seq, state, digit| Told {
        checkpoint: Some(Kept {
            slot: 0,
            manifest: sum(digit),
            bytes: 900,
        }),
        ..line("1.1", seq, state)
    };
    scene.hears(1, Some(vec![kept(3, "running", 'd')]));
    assert_eq!(scene.bringing().kept_at, None, "that is what was brought");
    scene.hears(1, Some(vec![kept(4, "running", 'f')]));
    assert_eq!(scene.bringing().kept_at, Some(scene.now));
}

#[test]
fn a_checkpoint_that_does_not_come_in_time_is_given_up_and_the_old_one_may_come_back() {
    let mut scene = waiting(false);
    scene.accepts();
    assert_eq!(scene.hears(9, Some(vec![waits(1)])), None);
    let verdict = scene.hears(1, Some(vec![waits(2)]));
    assert_eq!(verdict, Some(Verdict::NotBrought));
    assert!(scene.is_cooled_down());
    assert_eq!(scene.old().bid_before_park, Some(usd(0.3)));
    assert_eq!(scene.old().copies_failed, 1);
    let record = scene.state.replica(&scene.old().replica);
    assert!(record.retry_at.is_some_and(|at| at > scene.now));
    assert_eq!((record.failures, record.done_gpu_ms()), (0, 3_600_000));
}

#[test]
fn copies_that_fail_in_a_row_are_waited_for_longer_and_told_as_an_alarm() {
    let mut waited = Vec::new();
    let mut told = Vec::new();
    let mut state = None;
    for _ in 0..3 {
        let mut scene = waiting(false);
        if let Some((failed, replica)) = state.take() {
            scene.state.held.get_mut(&OLD).unwrap().copies_failed = failed;
            let _: Option<ReplicaRecord> = scene
                .state
                .replicas
                .insert(scene.old().replica.clone(), replica);
        }
        scene.hears(1, Some(vec![waits(1)]));
        let (events, _) = scene.sees(9, &[], None);
        assert!(scene.is_given_up());
        let event = events.iter().find(|event| event.kind == "not-brought");
        told.push(event.unwrap().severity);
        let mut record = scene.state.replica(&scene.old().replica);
        waited.push(record.retry_at.take().unwrap().since(scene.now).as_secs());
        state = Some((scene.old().copies_failed, record));
    }
    assert_eq!(waited, [3600, 7200, 14_400]);
    let warning = Severity::Warning;
    assert_eq!(told, [warning, warning, Severity::Alarm]);
    assert_eq!(state.unwrap().0, bring::COPIES_MAX);
}

#[test]
fn what_is_never_heard_of_is_given_up_all_the_same() {
    let mut scene = rented(false);
    scene.sees(1, &[], None);
    scene.sees(29, &[], None);
    assert!(!scene.is_given_up());
    scene.sees(1, &[], None);
    assert!(scene.is_given_up());
    assert!(scene.is_cooled_down());
    let record = scene.state.replica(&scene.old().replica);
    assert!(record.retry_at.is_some_and(|at| at > scene.now));
    assert_eq!(scene.old().copies_failed, 0, "it was no copy's fault");
}

#[test]
fn that_a_copy_may_not_be_paid_for_is_no_machines_fault() {
    let mut scene = rented(false);
    scene.hears(1, Some(vec![waits(1)]));
    scene.sees(30, &[], None);
    assert!(scene.is_given_up() && !scene.is_cooled_down());
    assert_eq!(scene.old().copies_failed, 0, "no copy failed");
}

#[test]
fn what_the_marketplace_refuses_to_copy_is_given_up_soon_and_in_its_words() {
    let mut scene = waiting(false);
    scene.hears(1, Some(vec![waits(1)]));
    let refuses = |scene: &mut Scene, kind| {
        let mut to = scene.state.held[&scene.row.id].clone();
        let mut from = scene.state.held[&OLD].clone();
        refused(&mut to, Some(&mut from), kind, "no such path");
        for held in [to, from] {
            scene.state.held.insert(held.id, held);
        }
    };
    for times in 0..bring::REFUSED_MAX {
        scene.sees(0, &[], None);
        assert!(!scene.is_given_up(), "{times}");
        refuses(&mut scene, Refusal::This);
    }
    let (events, _) = scene.sees(0, &[], None);
    assert!(scene.is_given_up() && !scene.is_cooled_down());
    assert_eq!(scene.old().copies_failed, 1);
    let event = events.iter().find(|event| event.kind == "not-brought");
    assert!(event.unwrap().text.contains("(no such path)"));
    // Where there are no copies, none is planned from there any more.
    let mut scene = waiting(false);
    scene.hears(1, Some(vec![waits(1)]));
    refuses(&mut scene, Refusal::Any);
    scene.sees(0, &[], None);
    assert!(scene.is_given_up());
    assert!(scene.old().copies_failed >= bring::COPIES_MAX);
}

#[test]
fn what_was_stopped_behind_its_gate_has_all_its_time_again() {
    let mut scene = waiting(false);
    scene.hears(1, Some(vec![waits(1)]));
    scene.accepts();
    scene.change(|bringing| (bringing.asked_at, bringing.asks_taken) = (Some(NOW), 1));
    scene.row.cur_state = Some(RawState::Stopped);
    scene.sees(1, &[], None);
    assert_eq!(scene.state.held[&scene.row.id].phase, Phase::Stopped);
    scene.row.cur_state = Some(RawState::Running);
    scene.sees(120, &[], None);
    assert!(!scene.is_given_up(), "it stood still for two hours");
    let bringing = scene.bringing();
    let marks = (bringing.ready_at, bringing.begun_at, bringing.asked_at);
    assert_eq!(marks, (None, None, None));
    assert_eq!(bringing.asks_taken, 1, "what was paid stays paid");
    scene.sees(29, &[], None);
    assert!(!scene.is_given_up());
    scene.sees(1, &[], None);
    assert!(scene.is_given_up());
}

#[test]
fn what_its_row_says_nothing_of_is_judged_behind_its_gate_too() {
    let mut scene = waiting(false);
    scene.hears(1, Some(vec![waits(1)]));
    scene.row.actual = Some(RawState::Other);
    scene.sees(8, &[], None);
    assert_eq!(scene.state.held[&scene.row.id].phase, Phase::Unclear);
    assert!(!scene.is_given_up());
    scene.sees(1, &[], None);
    assert!(scene.is_given_up());
}

#[test]
fn silence_behind_its_gate_is_the_machines_and_no_failure_of_the_job() {
    let mut scene = waiting(false);
    scene.change(|bringing| {
        bringing.begun_at = None;
        bringing.bytes = 1_000_000_000_000;
    });
    let silent = scene.job.run.runner.as_ref().unwrap().silent_after;
    let minutes = silent.as_secs() / 60 + 11;
    scene.hears(1, Some(Vec::new()));
    scene.hears(minutes, Some(Vec::new()));
    let verdict = scene.hears(1, Some(Vec::new()));
    assert_eq!(verdict, Some(Verdict::Silent));
    assert!(scene.is_cooled_down());
    let record = scene.state.replica(&scene.old().replica);
    assert_eq!((record.failures, record.unfit), (0, 1));
    assert!(record.retry_at.is_some_and(|at| at > scene.now));
}

#[test]
fn where_the_policy_allows_it_it_begins_anew_without_what_did_not_come() {
    let mut scene = waiting(true);
    scene.hears(9, Some(vec![waits(1)]));
    let verdict = scene.hears(1, Some(vec![waits(2)]));
    assert_eq!(verdict, Some(Verdict::NotBrought), "others are tried first");
    let mut scene = waiting(true);
    scene.state.held.get_mut(&OLD).unwrap().copies_failed = bring::COPIES_MAX - 1;
    scene.hears(9, Some(vec![waits(1)]));
    assert_eq!(scene.hears(1, Some(vec![waits(2)])), None);
    assert!(scene.bringing().anew);
    assert!(scene.told.contains(&"not-brought".to_owned()));
    assert_eq!(scene.done_gpu_ms(), 0, "what was done is on the old disk");
    // What cannot come any more is not waited for.
    let mut scene = waiting(false);
    scene.state.held.remove(&OLD);
    assert_eq!(scene.hears(1, Some(vec![waits(1)])), None);
    assert!(scene.bringing().anew);
}

#[test]
fn a_container_that_ends_behind_its_gate_is_not_tried_again_at_once() {
    let mut scene = waiting(false);
    scene.hears(1, Some(vec![waits(1)]));
    scene.row.actual = Some(RawState::Exited);
    scene.sees(1, &[], None);
    assert_eq!(scene.state.held[&scene.row.id].phase, Phase::Exited);
    let record = scene.state.replica(&scene.old().replica);
    assert_eq!((record.failures, record.unfit), (0, 1));
    let wait = record.retry_at.unwrap().since(scene.now);
    assert_eq!(
        wait,
        Duration::from_hours(1),
        "as after any machine that is unfit"
    );
    assert!(scene.is_cooled_down());
}

#[test]
fn work_of_a_disk_that_is_passed_over_is_lost_and_what_was_never_read_is_told() {
    for read in [false, true] {
        let mut scene = rented(false);
        let mut between = scene.old().clone();
        (between.id, between.intent) = (InstanceId(7), IntentId(4));
        between.generation = 2;
        between.kept_gpu_ms = 600_000;
        between.billed_ms = 900_000;
        let view = between.runner.as_mut().unwrap();
        view.checkpoint = None;
        view.read_at = read.then_some(NOW);
        scene.state.held.insert(between.id, between);
        scene.state.held.get_mut(&OLD).unwrap().generation = 1;
        scene.state.held.get_mut(&scene.row.id).unwrap().generation = 3;
        let (events, _) = scene.sees(1, &[], None);
        let about = |kind: &str| {
            let mut all = events.iter().filter(|event| event.kind == kind);
            all.next().map(|event| (event.severity, event.instance))
        };
        let unheard = (Severity::Warning, Some(InstanceId(7)));
        assert_eq!(about("work-unheard"), (!read).then_some(unheard));
        assert!(about("work-lost").is_some());
        let record = scene.state.replica(&scene.old().replica);
        assert_eq!(record.durable_gpu_ms, 3_000_000);
        assert_eq!(record.lost_gpu_ms, 600_000);
    }
}

/// A copy was asked for, and nobody knows what came of it.
fn unknown() -> (Scene, Intent) {
    let mut scene = waiting(false);
    scene.hears(1, Some(vec![waits(1)]));
    for (id, price) in [(OLD, 2), (scene.row.id, 3)] {
        let held = scene.state.held.get_mut(&id).unwrap();
        held.traffic_prices = Some((Money(price), Money(price)));
    }
    let intent = Intent {
        id: IntentId(70),
        at: scene.now,
        effect: Effect::Copy {
            instance: scene.row.id,
            from: OLD,
        },
        reserved: Money(48 * 5),
        state: IntentState::Unknown { since: scene.now },
    };
    scene.state.apply(&Change::Intent(intent.clone()));
    (scene, intent)
}

#[test]
fn a_copy_of_which_nobody_knows_stays_in_the_books_as_the_worst_that_it_may_be() {
    let (mut scene, intent) = unknown();
    scene.sees(1, &[], None);
    scene.hears(1, Some(vec![brings(2, "4", 'c')]));
    assert!(
        scene.state.intents.contains_key(&intent.id),
        "a runner's word settles nothing"
    );
    let (_, entries) = scene.sees(1, &[intent.id], None);
    let posted = |id| {
        let of_it = entries.iter().filter(|entry| entry.instance == Some(id));
        of_it.map(|entry| entry.amount).collect::<Vec<_>>()
    };
    assert_eq!(posted(OLD), [Money(48 * 2)]);
    assert!(posted(scene.row.id).contains(&Money(48 * 3)));
    let held = &scene.state.held[&scene.row.id];
    assert_eq!((held.spent_traffic, held.copied), (Money(144), Money(144)));
    assert_eq!(scene.old().spent_traffic, Money(96));
    assert_eq!(
        scene.bringing().asks_unknown,
        1,
        "it counts as one that was made"
    );
    // The same where the instance is gone before anybody knows.
    let (mut scene, _) = unknown();
    let id = scene.row.id;
    let (_, entries) = scene.sees(1, &[], Some(id));
    let of_it = entries.iter().filter(|entry| entry.instance == Some(id));
    let mut amounts = of_it.map(|entry| entry.amount);
    assert!(amounts.any(|amount| amount == Money(48 * 3)), "{entries:?}");
}

#[test]
fn stops_behind_its_gate_do_not_lengthen_its_time_without_end() {
    let mut scene = waiting(false);
    scene.accepts();
    let mut minutes = 0;
    while !scene.is_given_up() {
        scene.hears(1, Some(vec![waits(1)]));
        scene.change(|bringing| {
            bringing.begun_at.get_or_insert(NOW);
        });
        scene.row.cur_state = Some(RawState::Stopped);
        scene.sees(1, &[], None);
        scene.row.cur_state = Some(RawState::Running);
        scene.sees(5, &[], None);
        minutes += 7;
        assert!(minutes < 120, "it is billed all the while");
    }
    // And what was given up is not waited for once more.
    let failed = scene.old().copies_failed;
    scene.row.cur_state = Some(RawState::Stopped);
    scene.sees(1, &[], None);
    scene.row.cur_state = Some(RawState::Running);
    scene.sees(1, &[], None);
    assert!(scene.is_given_up());
    assert_eq!(scene.old().copies_failed, failed);
}

#[test]
fn one_that_goes_with_a_copy_under_way_is_not_replaced_at_once() {
    for (accepted, waited) in [(true, true), (false, false)] {
        let mut scene = waiting(false);
        scene.hears(1, Some(vec![waits(1)]));
        if accepted {
            scene.accepts();
        }
        let id = scene.row.id;
        let held = scene.state.held.get_mut(&id).unwrap();
        held.destroying = Some(crate::types::instance::DestroyWhy::Moved);
        scene.sees(1, &[], Some(id));
        let record = scene.state.replica(&scene.old().replica);
        assert_eq!(record.retry_at.is_some_and(|at| at > scene.now), waited);
        assert_eq!(record.failures, 0);
    }
}

#[test]
fn copies_that_failed_long_ago_do_not_count_once_its_disk_has_a_new_checkpoint() {
    let mut scene = Scene::new();
    let id = scene.row.id;
    let failed = |scene: &Scene| scene.state.held[&id].copies_failed;
    scene.state.held.get_mut(&id).unwrap().copies_failed = 2;
    let kept = |seq, digit| Told {
        checkpoint: Some(Kept {
            slot: 0,
            manifest: sum(digit),
            bytes: 900,
        }),
        ..line("1.1", seq, "running")
    };
    scene.hears(1, Some(vec![line("1.1", 1, "running")]));
    assert_eq!(failed(&scene), 2);
    scene.hears(1, Some(vec![kept(2, 'd')]));
    assert_eq!(failed(&scene), 0);
}

#[test]
fn where_two_machines_had_no_copy_it_is_rather_the_disk_than_the_second_machine() {
    let mut scene = waiting(false);
    scene.state.held.get_mut(&OLD).unwrap().copies_failed = 1;
    scene.accepts();
    scene.hears(10, Some(vec![waits(1)]));
    scene.sees(1, &[], None);
    assert!(scene.is_given_up() && !scene.is_cooled_down());
}
