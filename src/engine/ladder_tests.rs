use super::super::eligible::samples::{NOW, job};
use super::super::watched::{MINUTE, MISSING, OCI, PULLS, Scene, watched};
use super::*;
use crate::types::instance::Listing;
use crate::types::job::{CheckpointPlace, Finish};

const SECOND: i64 = 1000;

// ------------------------------------------------------------------------------- what takes too long

#[test]
fn what_nothing_is_told_of_is_given_up_after_three_minutes() {
    let mut scene = Scene::new(watched());
    scene.after(MINUTE);
    scene.minutes(2);
    scene.after(MINUTE - 1);
    assert_eq!((scene.fault(), scene.destroyed()), (None, None));
    assert!(!scene.is_cooled_down());
    scene.after(1);
    assert_eq!(scene.fault(), Some(StartFault::NoStatus));
    assert!(scene.is_cooled_down());
    assert_eq!(scene.actions()[0].why, Why::StartFailed);
    assert_eq!(scene.destroyed(), Some(DestroyWhy::StartFailed));
    scene.after(MINUTE);
    assert_eq!(scene.count("start-failed"), 1);
    let text = &scene.events[0].text;
    assert!(
        text.contains("no status was told of it for 3m00s"),
        "{text}"
    );
    // Its machine is blamed once.
    assert_eq!(scene.machine_failures(), 1);
    scene.goes();
    assert_eq!(scene.machine_failures(), 1);
    assert_eq!(scene.failures(), 0, "it is not the job's failure");
}

#[test]
fn a_step_that_is_switched_off_is_not_watched() {
    let mut scene = Scene::new(job("a"));
    scene.minutes(13);
    scene.loads(0, PULLS);
    scene.minutes(2);
    assert_eq!((scene.fault(), scene.destroyed()), (None, None));
    scene.minutes(1);
    assert_eq!(scene.fault(), None);
    // The time for the whole of it is the bound.
    assert_eq!(scene.destroyed(), Some(DestroyWhy::ProvisionTimeout));
}

#[test]
fn neither_a_clock_nor_a_time_without_a_look_makes_a_start_older() {
    // It was rented before the process began anew, or the listing failed meanwhile.
    let mut scene = Scene::new(watched());
    scene.after(60 * MINUTE);
    assert_eq!(scene.fault(), None, "a first sight");
    scene.minutes(2);
    assert_eq!(scene.fault(), None);
    scene.minutes(1);
    assert_eq!(scene.fault(), Some(StartFault::NoStatus));
    for (message, least) in [(None, 3), (Some(PULLS), 10), (Some(OCI), 1)] {
        let actual = message.map(|_| RawState::Loading);
        let known = || {
            let mut scene = Scene::new(watched());
            scene.shows(MINUTE, actual, message);
            scene
        };
        // Nobody looked for an hour.
        let mut scene = known();
        scene.after(60 * MINUTE);
        scene.minutes(least - 1);
        assert_eq!(scene.fault(), None, "{message:?}");
        scene.minutes(1);
        assert!(scene.fault().is_some(), "{message:?}");
        // The clock was set ahead by an hour within a minute.
        let mut scene = known();
        scene.moved.ahead_ms = 60 * MINUTE;
        scene.after(61 * MINUTE - 1);
        assert_eq!(scene.fault(), None, "{message:?}");
        scene.minutes(least - 1);
        assert_eq!(scene.fault(), None, "{message:?}");
        scene.minutes(1);
        assert!(scene.fault().is_some(), "{message:?}");
        // The process began anew and does not know how the clock was moved.
        let mut scene = known();
        scene.moved.ahead_ms = 30 * MINUTE;
        scene.after(MINUTE);
        scene.minutes(least - 1);
        assert_eq!(scene.fault(), None, "{message:?}");
        // It was set back.
        let mut scene = known();
        scene.after(-30 * MINUTE);
        scene.minutes(least - 1);
        assert_eq!(scene.fault(), None, "{message:?}");
    }
}

#[test]
fn nor_is_the_time_for_the_whole_of_it_over() {
    let mut scene = Scene::new(job("a"));
    scene.loads(MINUTE, PULLS);
    scene.moved.ahead_ms = 60 * MINUTE;
    scene.after(61 * MINUTE);
    assert_eq!(scene.destroyed(), None);
    // Nobody looked for longer than that.
    scene.after(60 * MINUTE);
    assert_eq!(scene.destroyed(), None);
    scene.minutes(8);
    assert_eq!(scene.destroyed(), None);
    scene.minutes(6);
    assert_eq!(scene.destroyed(), Some(DestroyWhy::ProvisionTimeout));
}

#[test]
fn a_runner_is_not_silent_because_a_clock_was_set() {
    use super::super::eligible::samples::runner;
    use super::super::hear::Heard;
    use crate::types::instance::{RunnerView, Verdict};
    let verdict = |ahead_ms: i64| {
        let mut scene = Scene::new(watched());
        let given = runner("true");
        scene.held_mut().runner = Some(RunnerView::of(&given));
        scene.job.run.runner = Some(Box::new(given));
        scene.runs();
        scene.moved.ahead_ms = ahead_ms;
        // Two reads have to show it.
        for ms in [61 * MINUTE, MINUTE] {
            scene.heard = Some(Heard {
                mark: None,
                at: Time(scene.now.0 + ms),
                lines: Vec::new(),
                signs: false,
                whole: true,
            });
            scene.after(ms);
            scene.moved.ahead_ms = 0;
        }
        scene.held().runner.clone().unwrap().verdict
    };
    assert_eq!(verdict(0), Some(Verdict::Silent));
    assert_eq!(verdict(60 * MINUTE), None);
}

#[test]
fn the_same_message_for_ten_minutes_is_too_long_and_a_new_one_begins_anew() {
    let mut scene = Scene::new(watched());
    scene.loads(MINUTE, PULLS);
    for layer in ["a1: Pull complete", "b2: Pull complete"] {
        scene.minutes(9);
        scene.after(MINUTE - 1);
        assert_eq!(scene.fault(), None, "{layer}");
        scene.loads(1, layer);
        assert_eq!(scene.fault(), None, "{layer}");
    }
    scene.minutes(9);
    assert_eq!(scene.fault(), None);
    scene.minutes(1);
    assert_eq!(scene.fault(), Some(StartFault::Stalled));
    assert!(scene.is_cooled_down());
    // The time for the whole of it is over, too.
    assert_eq!(scene.destroyed(), Some(DestroyWhy::ProvisionTimeout));
    let text = &scene.events[0].text;
    assert!(
        text.contains("for 10m00s (\"b2: Pull complete\")"),
        "{text}"
    );
}

#[test]
fn two_long_messages_are_told_apart_although_they_are_shown_alike() {
    let long = |middle: &str| format!("{}{middle}{}", "x".repeat(300), "y".repeat(300));
    let mut scene = Scene::new(watched());
    for minute in 0..20 {
        scene.loads(MINUTE, &long(&format!("layer {}", minute / 8)));
        assert_eq!(scene.fault(), None, "{minute}");
    }
    // An error in the part that is not shown is one.
    let mut scene = Scene::new(watched());
    scene.fails(&long(OCI));
    assert_eq!(scene.fault(), Some(StartFault::HostError));
    let shown = scene.held().coming_up.clone().unwrap().message.unwrap();
    assert!(!shown.contains("nvidia") && shown.chars().count() == 240);
}

#[test]
fn the_same_message_has_to_be_read_three_times() {
    let mut scene = Scene::new(watched());
    scene.config.poll_every = Duration::from_mins(10);
    scene.loads(MINUTE, PULLS);
    scene.after(11 * MINUTE);
    assert_eq!(scene.fault(), None, "twice");
    scene.after(11 * MINUTE);
    assert_eq!(scene.fault(), Some(StartFault::Stalled));
}

#[test]
fn what_loads_without_a_word_is_not_known_to_stand_still() {
    let mut scene = Scene::new(watched());
    scene.shows(MINUTE, Some(RawState::Loading), None);
    scene.minutes(13);
    assert_eq!(scene.fault(), None);
    // Nor is what is said of a created one a pull.
    let mut scene = Scene::new(watched());
    let said = Some("Setting up liberror-perl");
    scene.shows(MINUTE, Some(RawState::Created), said);
    scene.minutes(13);
    assert_eq!(scene.fault(), None);
}

// ------------------------------------------------------------------------------------- what is said

#[test]
fn an_error_is_believed_when_it_was_said_for_a_minute() {
    let mut scene = Scene::new(watched());
    scene.shows(MINUTE, Some(RawState::Created), Some(OCI));
    for seconds in [20, 39] {
        scene.after(seconds * SECOND);
        assert_eq!((scene.fault(), scene.destroyed()), (None, None));
    }
    assert!(!scene.is_cooled_down());
    // In other words it is the same.
    let other = Some("Error: OCI runtime create failed: nvidia-container-cli: device error");
    scene.shows(SECOND, Some(RawState::Created), other);
    assert_eq!(scene.fault(), Some(StartFault::HostError));
    // One that is said now and then is not.
    let mut scene = Scene::new(watched());
    for _ in 0..5 {
        scene.loads(30 * SECOND, OCI);
        scene.loads(30 * SECOND, PULLS);
    }
    assert_eq!(scene.fault(), None);
}

#[test]
fn an_error_of_the_host_is_given_up_in_any_state_that_is_none_of_running() {
    for (cur, actual) in [
        (RawState::Running, None),
        (RawState::Running, Some(RawState::Created)),
        (RawState::Running, Some(RawState::Loading)),
        (RawState::Running, Some(RawState::Exited)),
        (RawState::Stopped, Some(RawState::Exited)),
        (RawState::Other, Some(RawState::Other)),
    ] {
        let mut scene = Scene::new(Job {
            finish: Finish::Exit,
            ..watched()
        });
        scene.row.cur_state = Some(cur);
        scene.shows(MINUTE, actual, Some(OCI));
        assert_eq!(scene.destroyed(), None, "{actual:?}: one reading");
        scene.after(MINUTE);
        assert_eq!(scene.fault(), Some(StartFault::HostError), "{actual:?}");
        assert!(scene.is_cooled_down());
        assert_eq!(scene.destroyed(), Some(DestroyWhy::StartFailed));
        // It is not the job's failure, nor the end of its work.
        assert_eq!((scene.failures(), scene.replica().ending), (0, None));
        assert_eq!(scene.count("start-failed"), 1);
        assert_eq!(scene.count("failed"), 0);
    }
    let mut scene = Scene::new(watched());
    scene.shows(MINUTE, Some(RawState::Running), Some(OCI));
    scene.after(MINUTE);
    assert_eq!((scene.fault(), scene.destroyed()), (None, None));
}

#[test]
fn what_ended_and_is_said_no_longer_to_have_failed_to_start_has_failed() {
    let mut scene = Scene::new(watched());
    scene.shows(MINUTE, Some(RawState::Exited), Some(OCI));
    assert_eq!((scene.failures(), scene.destroyed()), (0, None));
    scene.shows(
        30 * SECOND,
        Some(RawState::Exited),
        Some("container exited"),
    );
    assert_eq!(scene.failures(), 1);
    assert_eq!(scene.destroyed(), Some(DestroyWhy::EndedTooSoon));
    scene.after(MINUTE);
    assert_eq!(scene.failures(), 1);
}

#[test]
fn what_gets_on_after_all_is_left_alone() {
    let mut scene = Scene::new(watched());
    scene.fails(OCI);
    assert_eq!(scene.destroyed(), Some(DestroyWhy::StartFailed));
    // It is read once more before it is destroyed, and does otherwise.
    assert!(still_fails(scene.held(), &scene.row));
    scene.row.status_msg = Some(PULLS.to_owned());
    assert!(!still_fails(scene.held(), &scene.row));
    scene.after(SECOND);
    assert_eq!((scene.fault(), scene.destroyed()), (None, None));
    scene.runs();
    assert_eq!((scene.fault(), scene.destroyed()), (None, None));
    assert_eq!(scene.replica().failed_starts, 0);
    scene.shows(MINUTE, Some(RawState::Exited), Some(OCI));
    scene.after(MINUTE);
    assert_eq!(scene.fault(), None, "it has run");
}

#[test]
fn a_later_look_has_to_show_the_same() {
    let mut silent = Scene::new(watched());
    silent.minutes(4);
    assert_eq!(silent.fault(), Some(StartFault::NoStatus));
    let mut stalled = Scene::new(watched());
    stalled.loads(MINUTE, PULLS);
    stalled.minutes(10);
    assert_eq!(stalled.fault(), Some(StartFault::Stalled));
    for scene in [&silent, &stalled] {
        let shows = |actual, message: Option<&str>| {
            let mut row = scene.row.clone();
            row.actual = actual;
            row.status_msg = message.map(str::to_owned);
            still_fails(scene.held(), &row)
        };
        assert!(still_fails(scene.held(), &scene.row));
        assert!(!shows(Some(RawState::Loading), Some("a1: Pull complete")));
        assert!(!shows(
            Some(RawState::Running),
            scene.row.status_msg.as_deref()
        ));
    }
    let mut scene = Scene::new(watched());
    scene.fails(MISSING);
    scene.row.status_msg = Some(OCI.to_owned());
    assert!(!still_fails(scene.held(), &scene.row), "another error");
}

#[test]
fn what_may_have_worked_is_not_destroyed() {
    let mut scene = Scene::new(Job {
        checkpoint_place: Some(CheckpointPlace::Disk),
        ..watched()
    });
    scene.fails(OCI);
    assert_eq!(scene.destroyed(), Some(DestroyWhy::StartFailed));
    // A listing that leaves it out proves nothing, once there was time to do work.
    scene.now = Time(NOW.0 + 6 * MINUTE);
    assert!(scene.destroyed().is_some());
    for listing in [Some(Listing::default()), None] {
        let mut world = scene.world();
        world.listing = listing;
        assert_eq!(scene.destroyed_in(&world), None);
    }
}

#[test]
fn what_we_asked_to_stop_does_not_fail_to_start() {
    let mut scene = Scene::new(watched());
    scene.held_mut().stop_asked = true;
    scene.minutes(20);
    scene.fails(MISSING);
    assert_eq!((scene.fault(), scene.hold()), (None, None));
}

#[test]
fn what_was_given_up_and_cannot_be_read_again_is_not_billed_without_end() {
    let mut scene = Scene::new(watched());
    scene.fails(OCI);
    assert_eq!(scene.destroyed(), Some(DestroyWhy::StartFailed));
    // The second look never shows the same, and the whole time is over.
    scene.row.status_msg = Some(OCI.to_owned());
    scene.minutes(20);
    assert_eq!(scene.destroyed(), Some(DestroyWhy::ProvisionTimeout));
}

#[test]
fn a_start_that_was_given_up_and_paused_is_begun_anew() {
    let mut scene = Scene::new(watched());
    scene.fails(OCI);
    assert!(scene.fault().is_some());
    scene.held_mut().stop_asked = true;
    scene.shows(MINUTE, Some(RawState::Stopped), None);
    assert_eq!(scene.fault(), None);
    assert_ne!(scene.destroyed(), Some(DestroyWhy::StartFailed));
}
