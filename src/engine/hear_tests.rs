//! What runners tell, taken up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::observe::{Moved, Observation, observe};
use super::*;
use crate::engine::eligible::samples::{NOW, held, job, offer, runner, usd, world};
use crate::runner::Place;
use crate::types::ids::{InstanceId, IntentId, MachineId};
use crate::types::instance::{Instance, Listing, RawState};
use crate::types::job::{SecretRef, Storage};
use crate::types::offer::Snapshot;
use crate::types::state::{Change, Ending, State};
use crate::types::world::EngineConfig;

pub(super) struct Scene {
    pub(super) state: State,
    pub(super) job: Job,
    pub(super) row: Instance,
    now: Time,
    pub(super) told: Vec<String>,
    /// What the log's last lines say of a broken GPU.
    mark: Option<&'static str>,
}

pub(super) fn line(boot: &str, seq: u64, state: &str) -> Told {
    Told {
        v: 1,
        run: "1".to_owned(),
        generation: 1,
        boot: boot.to_owned(),
        seq,
        state: state.to_owned(),
        at: 0,
        progress: None,
        checkpoint: None,
        exit: None,
        why: None,
        trouble: None,
        lacks: None,
        restore: None,
        fetch: None,
        waits: None,
        brought: None,
        outputs: None,
        fault: None,
        disk: None,
        down: None,
        bad: None,
        signed: true,
    }
}

impl Scene {
    /// A supervised job whose instance has run for a while.
    pub(super) fn new() -> Self {
        let mut job = job("a");
        job.finish = Finish::Exit;
        let mut spec = runner("true");
        spec.hung_after = Some(Duration::from_mins(20));
        job.run.runner = Some(Box::new(spec));
        let mut held = held(5, &job, &offer(1), usd(0.2));
        held.runner = job.run.runner.as_deref().map(RunnerView::of);
        let row = Instance {
            id: held.id,
            label: None,
            machine: Some(held.slot.machine),
            host: None,
            gpus: Some(1),
            gpu_ids: Vec::new(),
            gpu_name: None,
            is_bid: Some(true),
            price: Some(usd(0.2)),
            storage: None,
            burn: None,
            cur_state: Some(RawState::Running),
            intended: Some(RawState::Running),
            next_state: None,
            actual: Some(RawState::Running),
            status_msg: None,
            started_at: Some(NOW),
            up_ms: None,
            ends_at: None,
            disk_gb: None,
            ssh: None,
            gpu_util: None,
        };
        let mut state = world(Vec::new()).state;
        state.held.insert(held.id, held);
        Self {
            state,
            job,
            row,
            now: NOW,
            told: Vec::new(),
            mark: None,
        }
    }

    /// The same, with its data in storage.
    fn stored() -> Self {
        let mut scene = Self::new();
        let secret = || SecretRef::Env("S".to_owned());
        let mut spec = runner("true");
        spec.outputs = Some("/out".to_owned());
        spec.storage = Some(Storage {
            endpoint: "https://s3.example.com".to_owned(),
            region: "r".to_owned(),
            bucket: "bucket".to_owned(),
            prefix: String::new(),
            access_key: secret(),
            secret_key: secret(),
        });
        let held = scene.state.held.get_mut(&scene.row.id).unwrap();
        held.runner = Some(RunnerView::of(&spec));
        scene.job.run.runner = Some(Box::new(spec));
        scene
    }

    /// Some minutes later its log is read; `None`: it cannot be.
    pub(super) fn hears(&mut self, minutes: u64, lines: Option<Vec<Told>>) -> Option<Verdict> {
        self.now = self.now + Duration::from_mins(minutes);
        let at = self.now;
        let heard: BTreeMap<_, _> = lines
            .map(|lines| {
                let signs = !lines.is_empty();
                let whole = true;
                let heard = Heard {
                    at,
                    lines,
                    mark: self.mark,
                    signs,
                    whole,
                };
                (self.row.id, heard)
            })
            .into_iter()
            .collect();
        let listing = Listing {
            rows: vec![self.row.clone()],
            complete: true,
            unreadable: Vec::new(),
        };
        let seen = Observation {
            now: at,
            moved: Moved::default(),
            broke: false,
            listing: Some(&listing),
            market: &Snapshot::default(),
            proven_gone: &BTreeSet::new(),
            proven_void: &BTreeSet::new(),
            on_demand: &BTreeMap::new(),
            unchanged: &BTreeMap::new(),
            ran: &BTreeSet::new(),
            ended: &BTreeMap::new(),
            heard: &heard,
        };
        let jobs = [Arc::new(self.job.clone())];
        for change in observe(&self.state, &jobs, &EngineConfig::default(), &seen) {
            self.state.apply(&change);
            if let Change::Event(event) = change {
                self.told.push(event.kind);
            }
        }
        self.view().verdict
    }

    pub(super) fn view(&self) -> &RunnerView {
        self.state.held[&self.row.id].runner.as_ref().unwrap()
    }

    fn ending(&self) -> Option<Ending> {
        let id = &self.state.held[&self.row.id].replica;
        self.state.replica(id).ending.map(|(ending, _)| ending)
    }

    pub(super) fn is_cooled_down(&self) -> bool {
        let machine = self.row.machine.unwrap();
        self.state.machine(machine).cool_until.is_some()
    }
}

fn result(boot: &str, seq: u64, exit: i32) -> Told {
    Told {
        exit: Some(exit),
        ..line(boot, seq, "result")
    }
}

#[test]
fn a_command_that_ends_well_finishes_its_replica_once() {
    let mut scene = Scene::new();
    let begun = vec![line("1.1", 1, "boot"), line("1.1", 2, "running")];
    assert_eq!(scene.hears(1, Some(begun.clone())), None);
    assert!(scene.view().worked);
    let mut all = begun;
    all.push(result("1.1", 3, 0));
    assert_eq!(scene.hears(1, Some(all.clone())), Some(Verdict::Ended));
    assert_eq!(scene.ending(), Some(Ending::Finished));
    scene.hears(1, Some(all));
    let finished = scene.told.iter().filter(|kind| *kind == "finished");
    assert_eq!(finished.count(), 1);
    assert!(!scene.is_cooled_down());
}

#[test]
fn a_command_that_ended_before_its_instance_was_stopped_is_not_paid_for_again() {
    let stops = |exit: i32| {
        let mut scene = Scene::new();
        let begun = line("1.1", 1, "running");
        scene.hears(1, Some(vec![begun.clone()]));
        scene.row.cur_state = Some(RawState::Stopped);
        scene.row.actual = Some(RawState::Exited);
        assert_eq!(scene.hears(60, None), None);
        assert_eq!(scene.ending(), None, "nobody knows");
        let last = vec![begun, result("1.1", 2, exit)];
        assert_eq!(scene.hears(1, Some(last.clone())), Some(Verdict::Ended));
        scene.hears(1, Some(last));
        scene
    };
    assert_eq!(stops(0).ending(), Some(Ending::Finished));
    let failed = stops(3);
    let times = failed.told.iter().filter(|kind| *kind == "failed").count();
    assert_eq!((failed.ending(), times), (None, 1));
    // One that was at work is judged by nothing else.
    let mut scene = Scene::new();
    scene.hears(1, Some(vec![line("1.1", 1, "running")]));
    scene.row.cur_state = Some(RawState::Stopped);
    scene.hears(1, None);
    let silent = vec![line("1.1", 1, "running")];
    assert_eq!(scene.hears(600, Some(silent)), None);
}

/// Its bid won again before anybody read how it had ended.
#[test]
fn a_command_that_ended_well_before_its_container_was_started_again_has_finished() {
    let both = |exit: i32| {
        vec![
            line("1.1", 1, "running"),
            result("1.1", 2, exit),
            line("2.2", 1, "running"),
        ]
    };
    let mut scene = Scene::new();
    scene.hears(1, Some(vec![line("1.1", 1, "running")]));
    assert_eq!(scene.hears(9, Some(both(0))), Some(Verdict::Ended));
    assert_eq!(scene.ending(), Some(Ending::Finished));
    let mut failed = Scene::new();
    assert_eq!(failed.hears(9, Some(both(3))), None);
    assert_eq!(failed.ending(), None, "it is tried again already");
    let mut service = Scene::new();
    service.job.finish = Finish::Never;
    assert_eq!(service.hears(9, Some(both(0))), None);
    assert_eq!(service.view().exit, None);
}

#[test]
fn what_a_row_does_not_say_its_log_does() {
    let mut scene = Scene::new();
    scene.hears(1, Some(vec![line("1.1", 1, "running")]));
    scene.row.cur_state = Some(RawState::Other);
    scene.row.actual = Some(RawState::Other);
    let last = vec![line("1.1", 1, "running"), result("1.1", 2, 0)];
    assert_eq!(scene.hears(1, Some(last)), Some(Verdict::Ended));
    assert_eq!(scene.ending(), Some(Ending::Finished));
}

#[test]
fn one_that_fails_is_tried_again_and_its_next_start_is_another() {
    let mut scene = Scene::new();
    let first = vec![line("1.1", 1, "running"), result("1.1", 2, 3)];
    assert_eq!(scene.hears(1, Some(first.clone())), Some(Verdict::Ended));
    assert_eq!(scene.ending(), None);
    assert!(scene.told.contains(&"failed".to_owned()));
    // The log begins with the lines from before.
    let mut second = first.clone();
    second.push(line("2.2", 1, "running"));
    assert_eq!(scene.hears(1, Some(second.clone())), None);
    assert_eq!(scene.view().exit, None);
    // And a log that shows the old ones alone says nothing new.
    assert_eq!(scene.hears(1, Some(first)), None);
    second.push(result("2.2", 2, 0));
    assert_eq!(scene.hears(1, Some(second)), Some(Verdict::Ended));
    assert_eq!(scene.ending(), Some(Ending::Finished));
}

#[test]
fn failures_are_in_a_row_until_it_gets_further_than_before() {
    let mut scene = Scene::new();
    let failures = |scene: &Scene| {
        let id = &scene.state.held[&scene.row.id].replica;
        scene.state.replica(id).failures
    };
    let mut all = Vec::new();
    let mut attempt = |scene: &mut Scene, boot: &str, progress| {
        all.push(Told {
            progress: Some(progress),
            ..line(boot, 1, "running")
        });
        scene.hears(30, Some(all.clone()));
        all.push(result(boot, 2, 1));
        scene.hears(30, Some(all.clone()));
        failures(scene)
    };
    assert_eq!(attempt(&mut scene, "1.1", 5.0), 1);
    assert_eq!(attempt(&mut scene, "2.1", 5.0), 2);
    assert_eq!(attempt(&mut scene, "3.1", 6.0), 1);
    assert_eq!(attempt(&mut scene, "4.1", 3.0), 2);
}

/// A SHA-256 that is not one of anything.
fn sum(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn keeps(boot: &str, seq: u64, slot: u8, digit: char) -> Told {
    Told {
        checkpoint: Some(Kept {
            slot,
            manifest: sum(digit),
            bytes: 9,
        }),
        ..line(boot, seq, "running")
    }
}

fn known(scene: &Scene) -> Vec<(u64, u8, String)> {
    let id = &scene.state.held[&scene.row.id].replica;
    let record = scene.state.replica(id);
    let all = record.checkpoints.iter();
    all.map(|kept| (kept.run.0, kept.slot, kept.manifest[..1].to_owned()))
        .collect()
}

/// The next run, on another instance of another machine.
fn next(scene: &mut Scene, id: u64) {
    let mut held = scene.state.held.remove(&scene.row.id).unwrap();
    held.id = InstanceId(id);
    held.intent = IntentId(id);
    held.slot.machine = MachineId(id);
    held.runner = scene.job.run.runner.as_deref().map(RunnerView::of);
    scene.row.id = held.id;
    scene.row.machine = Some(held.slot.machine);
    scene.state.held.insert(held.id, held);
}

#[test]
fn the_last_checkpoint_of_each_place_is_remembered_newest_first() {
    let mut scene = Scene::stored();
    let run = scene.state.held[&scene.row.id].intent.0;
    // Two lines between two looks, and each line repeats what the one before it said.
    let lines = vec![
        keeps("1.1", 1, 0, 'a'),
        keeps("1.1", 2, 1, 'b'),
        keeps("1.1", 3, 1, 'b'),
    ];
    scene.hears(1, Some(lines));
    let of = |slot, text: &str| (run, slot, text.to_owned());
    assert_eq!(known(&scene), [of(1, "b"), of(0, "a")]);
    scene.hears(1, Some(vec![keeps("1.1", 4, 2, 'c')]));
    scene.hears(1, Some(vec![keeps("1.1", 5, 0, 'd')]));
    assert_eq!(known(&scene), [of(0, "d"), of(2, "c"), of(1, "b")]);
    // What cannot be a checkpoint is none.
    let mut odd = keeps("1.1", 6, 3, 'e');
    scene.hears(1, Some(vec![odd.clone()]));
    odd = keeps("1.1", 7, 1, 'x');
    scene.hears(1, Some(vec![odd]));
    assert_eq!(known(&scene).len(), 3);
    next(&mut scene, 60);
    scene.hears(1, Some(vec![keeps("2.1", 1, 0, 'f')]));
    assert_eq!(known(&scene)[0], (60, 0, "f".to_owned()));
    assert_eq!(known(&scene).len(), 4);
}

#[test]
fn a_checkpoint_is_given_up_where_two_machines_say_that_it_is_bad() {
    let mut scene = Scene::stored();
    scene.hears(1, Some(vec![keeps("1.1", 1, 0, 'a')]));
    scene.hears(1, Some(vec![keeps("1.1", 2, 1, 'b')]));
    let bad = |boot: &str, digit| Told {
        restore: Some(sum(digit)),
        trouble: Some("the checkpoint is not what it should be".to_owned()),
        ..line(boot, 4, "trouble")
    };
    next(&mut scene, 60);
    let verdict = scene.hears(1, Some(vec![bad("2.1", 'b')]));
    assert_eq!(verdict, Some(Verdict::Refused), "another machine tries");
    assert_eq!(known(&scene).len(), 2);
    scene.hears(1, Some(vec![bad("2.1", 'b')]));
    assert_eq!(known(&scene).len(), 2, "the same machine once more");
    next(&mut scene, 61);
    scene.hears(1, Some(vec![bad("3.1", 'c')]));
    assert_eq!(known(&scene).len(), 2, "there is no such checkpoint");
    next(&mut scene, 62);
    scene.hears(1, Some(vec![bad("4.1", 'b')]));
    assert_eq!(known(&scene).len(), 1);
    assert_eq!(known(&scene)[0].2, "a");
    assert!(scene.told.contains(&"checkpoint-unreadable".to_owned()));
}

#[test]
fn a_container_that_ends_while_its_outputs_are_on_their_way_has_not_finished() {
    let mut scene = Scene::stored();
    let saving = Told {
        exit: Some(0),
        ..line("1.1", 2, "saving")
    };
    scene.hears(1, Some(vec![line("1.1", 1, "running"), saving]));
    assert!(scene.view().unsaved_since().is_some());
    scene.row.actual = Some(RawState::Exited);
    scene.hears(1, None);
    assert_eq!(scene.ending(), None);
    // Once they were told to be elsewhere, it has.
    let mut scene = Scene::stored();
    let kept = Kept {
        slot: 0,
        manifest: sum('e'),
        bytes: 5,
    };
    let ends = Told {
        outputs: Some(Place::Kept(kept)),
        ..result("1.1", 2, 0)
    };
    scene.row.actual = Some(RawState::Exited);
    scene.hears(1, Some(vec![line("1.1", 1, "running"), ends]));
    assert_eq!(scene.ending(), Some(Ending::Finished));
    let record = scene
        .state
        .replica(&scene.state.held[&scene.row.id].replica);
    assert!(record.outputs.is_some());
}

#[test]
fn machines_that_are_unfit_one_after_the_other_are_tried_ever_later() {
    let mut scene = Scene::new();
    scene.job.retries.backoff = Duration::from_mins(2);
    let mut waits = Vec::new();
    for id in 60..66 {
        next(&mut scene, id);
        let refused = Told {
            bad: Some("vram".to_owned()),
            ..line(&format!("{id}.1"), 2, "refused")
        };
        scene.hears(600, Some(vec![refused]));
        let record = scene
            .state
            .replica(&scene.state.held[&scene.row.id].replica);
        waits.push(record.retry_at.unwrap().since(scene.now));
    }
    assert!(
        waits.windows(2).all(|pair| pair[1] == pair[0] * 2),
        "{waits:?}"
    );
    let alarms = scene.told.iter().filter(|kind| *kind == "machines-unfit");
    assert_eq!(alarms.count(), 1);
    next(&mut scene, 66);
    scene.hears(1, Some(vec![line("66.1", 1, "running")]));
    let record = scene
        .state
        .replica(&scene.state.held[&scene.row.id].replica);
    assert_eq!(record.unfit, 0);
}

#[test]
fn a_machine_that_cannot_get_the_checkpoint_is_left_after_a_while() {
    let mut scene = Scene::new();
    let tries = |seq| Told {
        trouble: Some("the checkpoint could not be fetched".to_owned()),
        ..line("1.1", seq, "trouble")
    };
    assert_eq!(scene.hears(1, Some(vec![tries(1)])), None);
    assert_eq!(scene.hears(9, Some(vec![tries(2)])), None);
    assert_eq!(scene.hears(1, Some(vec![tries(3)])), Some(Verdict::Refused));
    assert!(scene.is_cooled_down());
    // One that gets it in time works.
    let mut scene = Scene::new();
    scene.hears(1, Some(vec![tries(1)]));
    scene.hears(9, Some(vec![line("1.1", 2, "running")]));
    assert_eq!(scene.hears(5, Some(vec![line("1.1", 3, "running")])), None);
}

#[test]
fn outputs_that_are_on_the_disk_alone_are_waited_for_and_told_of() {
    let ends = |seq, outputs| Told {
        outputs,
        ..result("1.1", seq, 0)
    };
    let here = || Some(Place::Word("here".to_owned()));
    let mut scene = Scene::stored();
    scene.hears(1, Some(vec![line("1.1", 1, "running")]));
    assert_eq!(scene.hears(1, Some(vec![ends(2, here())])), None);
    assert_eq!(scene.hears(9, Some(vec![ends(3, here())])), None);
    let kept = Kept {
        slot: 0,
        manifest: sum('e'),
        bytes: 5,
    };
    let stored = Some(Place::Kept(kept));
    assert_eq!(
        scene.hears(1, Some(vec![ends(4, stored)])),
        Some(Verdict::Ended)
    );
    let record = scene
        .state
        .replica(&scene.state.held[&scene.row.id].replica);
    assert_eq!(record.outputs.unwrap().manifest, sum('e'));
    assert_eq!(scene.view().unsaved_since(), None);

    let mut scene = Scene::stored();
    scene.hears(1, Some(vec![line("1.1", 1, "running"), ends(2, here())]));
    scene.hears(9, Some(vec![ends(3, here())]));
    let verdict = scene.hears(6, Some(vec![ends(4, here())]));
    assert_eq!(verdict, Some(Verdict::Ended));
    assert_eq!(scene.ending(), Some(Ending::Finished));
    assert!(scene.told.contains(&"outputs-here".to_owned()));
    assert!(scene.view().unsaved_since().is_some());
    // Woken once more, its disk has them still.
    scene.row.cur_state = Some(RawState::Stopped);
    scene.hears(1, None);
    scene.row.cur_state = Some(RawState::Running);
    scene.hears(1, None);
    assert!(scene.view().unsaved_since().is_some());
    // A command that failed has none to wait for.
    let mut scene = Scene::stored();
    let fails = Told {
        outputs: here(),
        ..result("1.1", 2, 3)
    };
    let verdict = scene.hears(1, Some(vec![line("1.1", 1, "running"), fails]));
    assert_eq!(verdict, Some(Verdict::Ended));
}

#[test]
fn a_service_that_ends_has_failed() {
    let mut scene = Scene::new();
    scene.job.finish = Finish::Never;
    let lines = vec![line("1.1", 1, "running"), result("1.1", 2, 0)];
    assert_eq!(scene.hears(1, Some(lines)), Some(Verdict::Ended));
    assert_eq!(scene.ending(), None);
    assert!(scene.told.contains(&"failed".to_owned()));
}

#[test]
fn silence_counts_only_where_the_log_was_read() {
    let mut scene = Scene::new();
    assert_eq!(scene.hears(1, Some(Vec::new())), None);
    assert_eq!(scene.hears(60, None), None, "it could not be read");
    assert!(!scene.is_cooled_down());
    assert_eq!(
        scene.hears(1, Some(Vec::new())),
        None,
        "one read proves nothing"
    );
    assert_eq!(scene.hears(1, Some(Vec::new())), Some(Verdict::Silent));
    assert!(scene.is_cooled_down());
    // A line whose key is not ours any more is a sign all the same.
    let mut scene = Scene::new();
    let at = scene.now;
    let view = scene.state.held.get_mut(&scene.row.id).unwrap();
    view.runner.as_mut().unwrap().heard_at = Some(at);
    assert_eq!(scene.hears(9, Some(Vec::new())), None);
    assert_eq!(scene.hears(2, Some(Vec::new())), None);
    assert_eq!(scene.hears(1, Some(Vec::new())), Some(Verdict::Silent));
}

#[test]
fn one_read_without_a_new_line_is_no_silence() {
    let mut scene = Scene::new();
    let known = vec![line("1.1", 1, "boot"), line("1.1", 2, "gate")];
    scene.hears(1, Some(known.clone()));
    assert_eq!(
        scene.hears(2, Some(known.clone())),
        None,
        "nothing is overdue"
    );
    // Cut short on its way, after a poll that was long ago.
    assert_eq!(scene.hears(11, Some(known[..1].to_vec())), None);
    let mut more = known.clone();
    more.push(line("1.1", 3, "preflight"));
    assert_eq!(scene.hears(1, Some(more.clone())), None);
    assert_eq!(scene.hears(11, Some(more.clone())), None);
    assert_eq!(scene.hears(1, Some(more)), Some(Verdict::Silent));
    assert!(scene.is_cooled_down());
}

#[test]
fn a_container_with_a_runner_that_dies_has_not_finished() {
    let mut scene = Scene::new();
    scene.hears(1, Some(vec![line("1.1", 1, "running")]));
    scene.hears(9, Some(vec![line("1.1", 2, "running")]));
    scene.row.actual = Some(RawState::Exited);
    scene.hears(1, None);
    assert_eq!(scene.ending(), None);
    assert!(scene.told.contains(&"failed".to_owned()));
}

#[test]
fn what_is_said_of_one_start_is_not_said_of_the_next() {
    let mut scene = Scene::new();
    let first = vec![line("1.1", 1, "running"), result("1.1", 2, 3)];
    assert_eq!(scene.hears(1, Some(first)), Some(Verdict::Ended));
    scene.row.cur_state = Some(RawState::Stopped);
    scene.hears(1, None);
    scene.row.cur_state = Some(RawState::Running);
    assert_eq!(scene.hears(1, None), None, "nothing was read of it yet");
}

fn failures(scene: &Scene) -> (u32, u32) {
    let replica = &scene.state.held[&scene.row.id].replica;
    let record = scene.state.replica(replica);
    (record.failures, record.broken)
}

/// Another instance of the same replica fails with a GPU that is lost.
fn breaks(scene: &mut Scene, boot: &str) -> Option<Verdict> {
    scene.row.cur_state = Some(RawState::Stopped);
    scene.hears(1, None);
    scene.row.cur_state = Some(RawState::Running);
    scene.hears(1, None);
    let fails = Told {
        fault: Some("gpu-lost".to_owned()),
        ..result(boot, 2, 1)
    };
    scene.hears(1, Some(vec![line(boot, 1, "running"), fails]))
}

#[test]
fn a_gpu_that_breaks_is_the_machines_failure() {
    let mut scene = Scene::new();
    assert_eq!(breaks(&mut scene, "1.1"), Some(Verdict::Broken));
    assert!(scene.is_cooled_down());
    assert_eq!(failures(&scene), (0, 1));
    assert!(scene.told.contains(&"machine-broken".to_owned()));
    assert_eq!(
        scene.state.held[&scene.row.id].bid_before_park,
        Some(Rate::ZERO)
    );
}

#[test]
fn what_breaks_every_machine_is_the_job() {
    let mut scene = Scene::new();
    for boot in ["1.1", "2.1", "3.1"] {
        assert_eq!(breaks(&mut scene, boot), Some(Verdict::Broken));
    }
    assert_eq!(failures(&scene), (0, 3));
    assert_eq!(
        breaks(&mut scene, "4.1"),
        Some(Verdict::Broken),
        "it goes elsewhere"
    );
    assert_eq!(failures(&scene), (1, 3));
    // One that gets further than ever was not broken in a row.
    let further = Told {
        progress: Some(7.0),
        ..line("5.1", 1, "running")
    };
    scene.hears(1, Some(vec![further]));
    assert_eq!(failures(&scene), (0, 0));
}

#[test]
fn what_a_log_says_of_a_gpu_counts_only_where_the_command_failed() {
    for (exit, verdict, ending) in [
        (0, Verdict::Ended, Some(Ending::Finished)),
        (1, Verdict::Broken, None),
    ] {
        let mut scene = Scene::new();
        scene.mark = Some("gpu-xid");
        let lines = vec![line("1.1", 1, "running"), result("1.1", 2, exit)];
        assert_eq!(scene.hears(1, Some(lines)), Some(verdict));
        assert_eq!(scene.ending(), ending);
    }
}

#[test]
fn a_machine_that_was_refused_is_cooled_down() {
    let mut scene = Scene::new();
    let refused = Told {
        bad: Some("vram".to_owned()),
        ..line("1.1", 2, "refused")
    };
    assert_eq!(scene.hears(1, Some(vec![refused])), Some(Verdict::Refused));
    assert!(scene.is_cooled_down());
    assert!(!scene.view().worked);
}

#[test]
fn what_makes_no_progress_hangs() {
    let mut scene = Scene::new();
    let at = |seq, progress| Told {
        progress,
        ..line("1.1", seq, "running")
    };
    assert_eq!(scene.hears(1, Some(vec![at(1, Some(1.0))])), None);
    assert_eq!(scene.hears(19, Some(vec![at(2, Some(2.0))])), None);
    assert_eq!(scene.hears(19, Some(vec![at(3, Some(2.0))])), None);
    assert_eq!(
        scene.hears(1, Some(vec![at(3, Some(2.0))])),
        Some(Verdict::Hung)
    );
    assert!(scene.told.contains(&"failed".to_owned()));
}

#[cfg(test)]
#[path = "brought_tests.rs"]
mod brought;
