use super::super::eligible::samples::{NOW, job};
use super::super::watched::{DENIED, MINUTE, MISSING, OCI, PULLS, QUOTA, Scene, watched};
use super::*;
use crate::types::ids::InstanceId;
use crate::types::state::{JobRecord, ReplicaRecord};

// -------------------------------------------------------------------------------- whose fault it is

#[test]
fn one_machine_does_not_hold_a_job_back_whatever_it_says() {
    for message in [
        "exec: \"nvidia-container-runtime\": executable file not found in $PATH",
        "no such image: me/image:1",
        "no matching manifest for linux/amd64 in the manifest list entries",
        "exec /bin/sh: exec format error",
        MISSING,
        DENIED,
    ] {
        let mut scene = Scene::new(watched());
        scene.fails(message);
        assert!(scene.fault().is_some());
        assert_eq!(scene.hold(), None, "{message}");
        assert!(scene.is_cooled_down() && scene.machine_failures() == 1);
        assert_eq!(scene.destroyed(), Some(DestroyWhy::StartFailed));
        // Another one is tried.
        scene.goes();
        assert!(!scene.rents());
        scene.now = scene.replica().retry_at.unwrap();
        assert!(scene.rents());
        // The same machine is no other one.
        scene.comes(6, 0);
        scene.stands_on(5, None);
        scene.fails(message);
        assert_eq!(scene.hold(), None, "{message}");
    }
}

#[test]
fn what_two_machines_say_holds_the_job_until_its_policy_is_changed() {
    let mut scene = Scene::new(watched());
    scene.fails(MISSING);
    let first = scene.row.machine.unwrap();
    scene.next_fails(6, MISSING);
    assert_eq!(scene.fault(), Some(StartFault::ImageMissing));
    assert!(!scene.is_cooled_down(), "no host is to blame");
    let record = scene.state.machine(first);
    assert_eq!((record.failures, record.cool_until), (0, None));
    assert_eq!(scene.destroyed(), Some(DestroyWhy::StartFailed));
    let told = scene.events.last().unwrap();
    assert_eq!(
        (told.severity, told.kind.as_str()),
        (Severity::Alarm, "cannot-start")
    );
    for part in [MISSING, "correct `image` in [run]", "haggle resume a"] {
        assert!(told.text.contains(part), "{part:?} is not in {}", told.text);
    }
    // Another one that was under way tells nothing new, and is not blamed.
    scene.goes();
    scene.comes(7, 1);
    scene.fails(MISSING);
    assert!(!scene.is_cooled_down());
    scene.goes();
    assert_eq!(scene.count("cannot-start"), 1);
    assert_eq!(scene.failures(), 0);
    // It waits, for good.
    scene.now = scene.now + Duration::from_hours(100);
    let Situation::CannotStart {
        fault,
        message,
        until,
    } = scene.situation()
    else {
        panic!("{:?}", scene.situation())
    };
    assert_eq!(
        (fault, message.as_str(), until),
        (StartFault::ImageMissing, MISSING, None)
    );
    assert!(scene.actions().is_empty());
    // What it needs otherwise does not matter; its image does.
    scene.job.run.env.insert("A".to_owned(), "b".to_owned());
    assert!(!scene.rents());
    let wrong = scene.job.run.image.replace("me/image:2".to_owned());
    assert!(scene.rents());
    // And it is not held back again by what was wrong once.
    scene.look(&[]);
    assert_eq!(scene.state.job(&scene.job.name).starts.failed.len(), 0);
    scene.job.run.image = wrong;
    assert!(scene.rents());
}

#[test]
fn machines_of_one_owner_are_one_witness() {
    let mut scene = Scene::new(watched());
    scene.stands_on(5, Some(70));
    scene.fails(MISSING);
    for id in 6..=8 {
        scene.goes();
        scene.comes(id, 0);
        scene.stands_on(id, Some(70));
        scene.fails(MISSING);
        assert_eq!(scene.hold(), None, "{id}");
    }
    scene.goes();
    scene.comes(9, 0);
    scene.stands_on(9, Some(71));
    scene.fails(MISSING);
    assert_eq!(scene.hold().unwrap().until, None);
}

#[test]
fn what_has_ever_run_is_not_taken_for_our_fault() {
    let mut scene = Scene::new(watched());
    scene.runs();
    let ran = scene.state.job(&scene.job.name).starts.ran;
    assert_eq!(ran, Some(Asked::of(&scene.job.run)));
    // It is gone, and what comes after it on other machines fails.
    scene.state.held.clear();
    let mut id = 5;
    for _ in 0..4 {
        id += 1;
        scene.comes(id, 0);
        scene.fails(MISSING);
        assert!(scene.is_cooled_down() && scene.machine_failures() == 1);
        scene.goes();
        assert_eq!(scene.hold(), None, "{id}");
    }
    scene.comes(10, 0);
    scene.fails(MISSING);
    assert!(scene.hold().unwrap().until.is_some(), "for a while");
    // Another image has not run.
    scene.goes();
    scene.job.run.image = Some("me/image:2".to_owned());
    for id in 11..=12 {
        assert_eq!(scene.hold(), None);
        scene.comes(id, 0);
        scene.fails(MISSING);
        scene.goes();
    }
    assert_eq!(scene.hold().unwrap().until, None);
}

#[test]
fn an_instance_that_runs_shows_that_its_image_can_be_had() {
    let mut scene = Scene::new(watched());
    let mut other = scene.held().clone();
    other.id = InstanceId(50);
    other.replica.index = 1;
    other.first_ran_at = Some(NOW);
    for asked in [Some(Asked::of(&scene.job.run)), None] {
        other.asked = asked;
        scene.state.held.insert(other.id, other.clone());
        scene.fails(MISSING);
        scene.next_fails(scene.row.id.0 + 1, MISSING);
        assert_eq!(scene.hold(), None);
    }
    // But not that it has another command.
    let command = "container process: exec: \"x\": stat x: no such file";
    scene.job.run.args.push("x".to_owned());
    let mut asked = other.clone();
    asked.asked = Some(Asked::of(&job("a").run));
    scene.state.held.insert(asked.id, asked);
    for id in 60..=61 {
        scene.next_fails(id, command);
    }
    let hold = scene.hold().unwrap();
    assert_eq!((hold.fault, hold.until), (StartFault::Command, None));
}

#[test]
fn a_replica_that_runs_is_not_moved_while_its_job_is_held_back() {
    let mut scene = Scene::new(Job {
        patience: Duration::from_mins(5),
        ..watched()
    });
    scene.runs();
    scene.row.cur_state = Some(RawState::Stopped);
    scene.shows(MINUTE, Some(RawState::Exited), Some("stopped"));
    let mut record = JobRecord::new(scene.job.name.clone());
    record.starts.hold = Some(Hold {
        fault: StartFault::ImageDenied,
        asked: Asked::of(&scene.job.run),
        message: DENIED.to_owned(),
        since: scene.now,
        until: None,
        times: 1,
    });
    scene.minutes(6);
    assert_eq!(scene.destroyed(), Some(DestroyWhy::Moved));
    scene.state.jobs.insert(record.name.clone(), record);
    assert_eq!(scene.destroyed(), None, "its image is there");
}

#[test]
fn what_was_changed_before_it_failed_holds_nothing() {
    let mut scene = Scene::new(watched());
    scene.fails(MISSING);
    scene.goes();
    scene.comes(6, 0);
    scene.job.run.image = Some("me/image:2".to_owned());
    scene.fails(MISSING);
    assert_eq!(scene.hold(), None);
    assert!(!scene.is_cooled_down(), "nor is that machine to blame");
    scene.goes();
    scene.now = scene.replica().retry_at.unwrap();
    assert!(scene.rents());
}

// ----------------------------------------------------------------------------------------- in a row

#[test]
fn starts_that_fail_one_after_the_other_wait_longer_each_time_until_one_runs() {
    let mut scene = Scene::new(watched());
    scene.job.retries.backoff = Duration::from_mins(1);
    for (id, minutes) in [(5, 1), (6, 2), (7, 4), (8, 8)] {
        scene.fails(OCI);
        let wait = scene.replica().retry_at.unwrap().since(scene.now);
        assert_eq!(wait, Duration::from_mins(minutes), "{id}");
        scene.goes();
        assert!(!scene.rents());
        scene.now = scene.replica().retry_at.unwrap();
        assert!(scene.rents());
        scene.comes(id + 1, 0);
    }
    scene.runs();
    assert_eq!(scene.replica().failed_starts, 0);
    assert_eq!(scene.held().coming_up, None);
    assert!(scene.state.job(&scene.job.name).starts.failed.is_empty());
}

#[test]
fn hosts_that_fail_in_a_row_hold_the_job_back_longer_each_time() {
    let mut scene = Scene::new(watched());
    for id in 6..=9 {
        scene.fails(OCI);
        assert_eq!(scene.hold(), None);
        scene.goes();
        scene.comes(id, 0);
    }
    for (id, minutes) in [
        (10, 15),
        (11, 30),
        (12, 60),
        (13, 120),
        (14, 240),
        (15, 360),
    ] {
        scene.fails(OCI);
        assert!(scene.is_cooled_down(), "the host is to blame all the same");
        let hold = scene.hold().unwrap();
        let until = hold.until.unwrap();
        assert_eq!(hold.fault, StartFault::HostError);
        assert_eq!(until.since(scene.now), Duration::from_mins(minutes), "{id}");
        scene.goes();
        // Its other replica was under way: that is not the next time.
        scene.comes(id + 100, 1);
        scene.fails(OCI);
        scene.goes();
        assert_eq!(scene.hold().unwrap().until, Some(until));
        scene.now = Time(until.0 - 1);
        assert!(!scene.rents());
        scene.now = until.max(scene.replica().retry_at.unwrap());
        assert!(scene.rents());
        scene.comes(id, 0);
    }
    assert_eq!((scene.alarms(), scene.count("cannot-start")), (1, 6));
    scene.loads(MINUTE, PULLS);
    scene.runs();
    assert_eq!(scene.hold(), None);
}

#[test]
fn the_same_machine_is_counted_once_and_each_way_to_fail_apart() {
    let mut scene = Scene::new(watched());
    for id in 6..=12 {
        scene.stands_on(5, None);
        scene.fails(OCI);
        assert_eq!(scene.hold(), None);
        scene.goes();
        scene.comes(id, 0);
    }
    // Those that change do not go on for ever, either.
    let mut scene = Scene::new(watched());
    let mut tried = 0;
    while scene.hold().is_none() {
        tried += 1;
        if tried % 2 == 0 {
            scene.fails(OCI);
        } else {
            scene.minutes(4);
        }
        assert!(scene.fault().is_some());
        scene.goes();
        scene.comes(5 + tried, 0);
    }
    assert_eq!(tried, 9);
}

#[test]
fn what_never_comes_up_in_time_is_counted_too() {
    let mut scene = Scene::new(job("a"));
    for id in 6..=10 {
        assert_eq!(scene.hold(), None, "{id}");
        scene.minutes(16);
        assert_eq!(scene.destroyed(), Some(DestroyWhy::ProvisionTimeout));
        scene.goes();
        scene.comes(id, 0);
    }
    let hold = scene.hold().unwrap();
    assert_eq!(hold.fault, StartFault::TimedOut);
    assert!(hold.until.is_some() && scene.alarms() == 1);
}

#[test]
fn a_pull_quota_is_of_one_address_until_two_machines_have_it() {
    let mut scene = Scene::new(watched());
    scene.job.retries.backoff = Duration::from_mins(1);
    scene.fails(QUOTA);
    assert_eq!(scene.hold(), None);
    let first = scene.row.machine.unwrap();
    let passed_over = |scene: &Scene| {
        let record = scene.state.machine(scene.row.machine.unwrap());
        record.failures == 0 && record.cool_until.is_some()
    };
    assert!(passed_over(&scene), "and not blamed");
    scene.goes();
    scene.now = scene.replica().retry_at.unwrap();
    assert!(scene.rents());
    scene.comes(6, 0);
    for (id, hours) in [(7, 1), (8, 2), (9, 4), (10, 6), (11, 6)] {
        scene.fails(QUOTA);
        assert!(passed_over(&scene));
        let until = scene.hold().unwrap().until.unwrap();
        assert_eq!(until.since(scene.now), Duration::from_hours(hours), "{id}");
        scene.goes();
        scene.now = Time(until.0 - 1);
        let waits = matches!(scene.situation(), Situation::CannotStart { until: Some(at), .. } if at == until);
        assert!(waits && !scene.rents());
        scene.now = until;
        assert!(scene.rents());
        scene.comes(id, 0);
    }
    assert_eq!(scene.state.machine(first).failures, 0);
    assert_eq!((scene.alarms(), scene.count("cannot-start")), (1, 5));
    let alarm = scene
        .events
        .iter()
        .find(|event| event.kind == "cannot-start");
    assert!(alarm.unwrap().text.contains("[run.login]"));
    scene.loads(MINUTE, PULLS);
    scene.runs();
    assert_eq!(scene.hold(), None, "it was pulled");
}

#[test]
fn what_waits_for_a_change_does_not_begin_again_by_itself() {
    let mut scene = Scene::new(watched());
    scene.fails(MISSING);
    scene.next_fails(6, MISSING);
    for id in 7..=8 {
        scene.goes();
        scene.comes(id, 1);
        scene.fails(QUOTA);
    }
    assert_eq!(scene.hold().unwrap().fault, StartFault::ImageMissing);
    // The other way round it does.
    let mut scene = Scene::new(watched());
    scene.fails(QUOTA);
    scene.next_fails(6, QUOTA);
    assert_eq!(scene.hold().unwrap().fault, StartFault::PullQuota);
    for id in 7..=8 {
        scene.goes();
        scene.comes(id, 1);
        scene.fails(MISSING);
    }
    let hold = scene.hold().unwrap();
    assert_eq!((hold.fault, hold.until), (StartFault::ImageMissing, None));
}

// ------------------------------------------------------------------------------------------ records

#[test]
fn records_from_before_are_read() {
    let without = |value: serde_json::Value, names: &[&str]| {
        let mut value = value;
        for name in names {
            let removed = value.as_object_mut().unwrap().remove(*name);
            assert!(removed.is_some(), "{name}");
        }
        value
    };
    let scene = Scene::new(job("a"));
    let new = ["asked", "coming_up", "start_fault", "gpu_use"];
    let old = without(serde_json::to_value(scene.held()).unwrap(), &new);
    let read: Held = serde_json::from_value(old).unwrap();
    assert_eq!(read.asked, None);
    let record = JobRecord::new(scene.job.name.clone());
    let old = without(serde_json::to_value(&record).unwrap(), &["starts"]);
    assert_eq!(serde_json::from_value::<JobRecord>(old).unwrap(), record);
    let replica = serde_json::to_value(scene.replica()).unwrap();
    let read: ReplicaRecord = serde_json::from_value(without(replica, &["failed_starts"])).unwrap();
    assert_eq!(read, scene.replica());
    let old = serde_json::to_value(&scene.job).unwrap();
    let old = without(old, &["start", "idle_after"]);
    assert_eq!(serde_json::from_value::<Job>(old).unwrap(), scene.job);
    let old = without(serde_json::to_value(&scene.row).unwrap(), &["gpu_util"]);
    assert_eq!(serde_json::from_value::<Instance>(old).unwrap(), scene.row);
    // Of one that was rented before, what its policy asks for now is what it asked for.
    let mut scene = Scene::new(watched());
    scene.held_mut().asked = None;
    scene.fails(MISSING);
    scene.next_fails(6, MISSING);
    assert!(scene.hold().is_some());
}
