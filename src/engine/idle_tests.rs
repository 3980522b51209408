use super::super::eligible::samples::{job, runner};
use super::super::watched::{MINUTE, Scene};
use super::*;
use crate::types::instance::{DestroyWhy, RawState, RunnerView, Verdict};
use crate::types::job::CheckpointPlace;
use crate::types::plan::Why;
use crate::types::state::Ending;

/// A job whose instance has just begun to run, with no time to warm up.
fn running(job: Job) -> Scene {
    let mut scene = Scene::new(Job {
        boot_overhead: Duration::ZERO,
        ..job
    });
    scene.row.actual = Some(RawState::Running);
    scene.after(MINUTE);
    scene
}

fn ends_after(minutes: u64) -> Job {
    Job {
        idle_after: Some(Duration::from_mins(minutes)),
        ..job("a")
    }
}

impl Scene {
    /// A minute later its GPUs are used so much; the same for so many minutes.
    fn used(&mut self, minutes: u32, percent: Option<f32>) {
        for _ in 0..minutes {
            self.row.gpu_util = percent;
            self.after(MINUTE);
        }
    }

    fn told(&self) -> usize {
        self.count("gpu-idle")
    }
}

#[test]
fn idle_gpus_are_told_once_after_twenty_minutes_and_end_nothing_by_themselves() {
    let mut scene = running(job("a"));
    // The first reading begins it.
    scene.used(1 + 19, Some(4.9));
    assert_eq!(scene.told(), 0);
    scene.used(1, Some(0.0));
    assert_eq!(scene.told(), 1);
    let text = &scene.events.last().unwrap().text;
    assert!(
        text.contains("less than 5 % for 20m00s") && text.contains("`idle_after`"),
        "{text}"
    );
    scene.used(300, Some(0.0));
    assert_eq!((scene.told(), scene.failures()), (1, 0));
    assert!(scene.actions().is_empty());
    // What is used is not idle, and the next time is told again.
    scene.used(1, Some(5.0));
    assert_eq!(scene.held().gpu_use.idle, None);
    scene.used(20, Some(1.0));
    assert_eq!(scene.told(), 1);
    scene.used(1, Some(1.0));
    assert_eq!(scene.told(), 2);
}

#[test]
fn a_gap_is_not_idle_and_unknown_is_not_zero() {
    let mut scene = running(job("a"));
    scene.used(120, None);
    assert_eq!(scene.held().gpu_use, GpuUse::default());
    // A few readings that are missing are bridged: five minutes from one to the next.
    scene.used(11, Some(0.0));
    scene.used(4, None);
    scene.used(5, Some(0.0));
    assert_eq!(scene.told(), 0);
    scene.used(1, Some(0.0));
    assert_eq!(scene.told(), 1);
    // More than that begins anew.
    let mut scene = running(job("a"));
    scene.used(19, Some(0.0));
    scene.used(5, None);
    scene.used(20, Some(0.0));
    assert_eq!(scene.told(), 0);
    scene.used(1, Some(0.0));
    assert_eq!(scene.told(), 1);
    // As does a time in which nothing at all was read.
    let mut scene = running(job("a"));
    scene.used(19, Some(0.0));
    scene.after(30 * MINUTE);
    assert_eq!(scene.told(), 0);
    // And a clock that is set ahead makes no gap, and no idle time.
    let mut scene = running(job("a"));
    scene.used(11, Some(0.0));
    scene.moved.ahead_ms = 60 * MINUTE;
    scene.after(61 * MINUTE);
    scene.used(8, Some(0.0));
    assert_eq!(scene.told(), 0);
    scene.used(1, Some(0.0));
    assert_eq!(scene.told(), 1);
}

#[test]
fn what_warms_up_is_not_idle() {
    let mut scene = Scene::new(Job {
        boot_overhead: Duration::from_mins(30),
        ..job("a")
    });
    scene.row.actual = Some(RawState::Running);
    scene.used(30, Some(0.0));
    assert_eq!(scene.held().gpu_use.idle, None);
    scene.used(20, Some(0.0));
    assert_eq!(scene.told(), 0);
    scene.used(1, Some(0.0));
    assert_eq!(scene.told(), 1);
    // What works while it warms up works.
    let mut scene = Scene::new(scene.job);
    scene.row.actual = Some(RawState::Running);
    scene.used(2, Some(50.0));
    assert!(scene.held().gpu_use.worked);
}

#[test]
fn where_the_policy_says_so_a_run_with_idle_gpus_has_failed() {
    let mut scene = running(ends_after(30));
    scene.used(1 + 14, Some(0.0));
    assert_eq!(scene.told(), 0);
    // It is told before it ends.
    scene.used(1, Some(0.0));
    assert_eq!((scene.told(), scene.failures()), (1, 0));
    assert!(
        scene
            .events
            .last()
            .unwrap()
            .text
            .contains("begun anew after 30m00s")
    );
    scene.used(14, Some(0.0));
    assert_eq!((scene.told(), scene.failures()), (1, 0));
    assert!(scene.actions().is_empty());
    scene.used(1, Some(0.0));
    assert_eq!((scene.told(), scene.failures()), (1, 1));
    let actions = scene.actions();
    assert_eq!((actions.len(), actions[0].why), (1, Why::Idle));
    assert_eq!(scene.destroyed(), Some(DestroyWhy::Idle));
    // It is counted once, and a reading that comes late takes nothing back.
    scene.used(3, Some(90.0));
    assert_eq!(
        (scene.failures(), scene.destroyed()),
        (1, Some(DestroyWhy::Idle))
    );
}

#[test]
fn a_disk_with_work_is_kept_and_its_container_begun_anew() {
    let mut scene = running(Job {
        checkpoint_place: Some(CheckpointPlace::Disk),
        ..ends_after(30)
    });
    scene.used(5, Some(80.0));
    scene.used(1 + 30, Some(0.0));
    assert_eq!(scene.failures(), 1);
    assert_eq!(scene.destroyed(), None);
    let actions = scene.actions();
    let parks = crate::types::intent::Effect::SetBid {
        instance: scene.row.id,
        bid: crate::types::money::BID_PARKED,
    };
    assert_eq!((actions.len(), &actions[0].effect), (1, &parks));
}

/// It stops, and runs again.
fn restarted(scene: &mut Scene) {
    scene.row.cur_state = Some(RawState::Stopped);
    scene.row.actual = Some(RawState::Exited);
    scene.used(1, None);
    assert_eq!(scene.held().gpu_use, GpuUse::default());
    scene.row.cur_state = Some(RawState::Running);
    scene.row.actual = Some(RawState::Running);
    scene.used(1, None);
}

#[test]
fn runs_with_idle_gpus_fail_in_a_row_until_they_are_used() {
    let mut scene = running(ends_after(30));
    for failures in 1..=2 {
        // What is not read yet says nothing.
        scene.used(10, None);
        scene.used(1 + 30, Some(0.0));
        assert_eq!(scene.failures(), failures);
        restarted(&mut scene);
    }
    // What loads its model and hangs then is used for a moment, too.
    scene.used(29, Some(50.0));
    assert_eq!(scene.failures(), 2);
    scene.used(3, Some(50.0));
    assert_eq!(scene.failures(), 0);
    for _ in 1..=3 {
        scene.used(1 + 30, Some(0.0));
        restarted(&mut scene);
    }
    scene.used(1 + 30, Some(0.0));
    let ending = scene.state.replica(&scene.held().replica).ending;
    assert_eq!(ending.map(|(ending, _)| ending), Some(Ending::Failed));
    // Where nothing is ever read, a run that lasts has done something.
    let mut scene = running(ends_after(30));
    scene.used(1 + 30, Some(0.0));
    restarted(&mut scene);
    scene.used(29, None);
    assert_eq!(scene.failures(), 1);
    scene.used(3, None);
    assert_eq!(scene.failures(), 0);
}

#[test]
fn a_service_may_wait_for_work() {
    let mut scene = running(Job {
        finish: Finish::Never,
        ..ends_after(30)
    });
    scene.used(120, Some(0.0));
    assert_eq!((scene.told(), scene.failures()), (1, 0));
    assert!(scene.actions().is_empty());
}

#[test]
fn what_has_ended_uses_no_gpu() {
    let mut scene = running(ends_after(30));
    let held = scene.held_mut();
    let mut view = RunnerView::of(&runner("true"));
    view.verdict = Some(Verdict::Ended);
    view.exit = Some(0);
    held.runner = Some(view);
    scene.used(60, Some(0.0));
    assert_eq!((scene.told(), scene.failures()), (0, 0));
    let mut scene = running(ends_after(30));
    let mut replica = scene.state.replica(&scene.held().replica);
    replica.ending = Some((Ending::Finished, scene.now));
    scene.state.replicas.insert(replica.id.clone(), replica);
    scene.used(60, Some(0.0));
    assert_eq!(scene.told(), 0);
}

#[test]
fn it_takes_five_readings() {
    let mut scene = running(ends_after(30));
    scene.config.poll_every = Duration::from_mins(10);
    for reading in 1..=4 {
        scene.row.gpu_util = Some(0.0);
        scene.after(10 * MINUTE);
        assert_eq!((scene.told(), scene.failures()), (0, 0), "{reading}");
    }
    scene.after(10 * MINUTE);
    assert_eq!((scene.told(), scene.failures()), (1, 1));
}

#[test]
fn one_of_several_gpus_at_work_is_not_idle() {
    let mut scene = running(job("a"));
    scene.row.gpus = Some(8);
    // Were it their mean, one of them would be used for 5.6 %.
    scene.used(30, Some(0.7));
    assert_eq!((scene.told(), scene.held().gpu_use.worked), (0, true));
    scene.used(1 + 20, Some(0.6));
    assert_eq!(scene.told(), 1);
    let text = &scene.events.last().unwrap().text;
    assert!(text.contains("less than 0.625 % on average"), "{text}");
}

#[test]
fn a_command_that_gets_on_is_not_idle_nor_is_one_that_moves_data() {
    let mut scene = running(ends_after(30));
    let mut view = RunnerView::of(&runner("true"));
    view.state = Some("running".to_owned());
    scene.held_mut().runner = Some(view);
    for _ in 0..4 {
        scene.used(14, Some(0.0));
        let now = scene.now;
        scene.held_mut().runner.as_mut().unwrap().progress_at = Some(now);
    }
    assert_eq!((scene.told(), scene.failures()), (0, 0));
    for state in ["restoring", "saving"] {
        scene.held_mut().runner.as_mut().unwrap().state = Some(state.to_owned());
        scene.used(60, Some(0.0));
        assert_eq!((scene.told(), scene.held().gpu_use.idle), (0, None));
    }
    scene.held_mut().runner.as_mut().unwrap().state = Some("running".to_owned());
    scene.used(1 + 30, Some(0.0));
    assert_eq!((scene.told(), scene.failures()), (1, 1));
}

#[test]
fn one_that_is_begun_anew_for_its_gpus_are_idle_does_not_fail_once_more() {
    use super::super::hear::Heard;
    let mut scene = running(ends_after(30));
    let mut given = runner("true");
    given.hung_after = Some(Duration::from_mins(2));
    let mut view = RunnerView::of(&given);
    view.state = Some("running".to_owned());
    scene.held_mut().runner = Some(view);
    scene.used(1 + 30, Some(0.0));
    assert_eq!(scene.failures(), 1);
    let now = scene.now;
    let view = scene.held_mut().runner.as_mut().unwrap();
    (view.progress_at, view.heard_at) = (Some(now), Some(now));
    let hears = |scene: &mut Scene| {
        scene.used(3, Some(0.0));
        scene.heard = Some(Heard {
            mark: None,
            at: scene.now,
            lines: Vec::new(),
            signs: true,
            whole: true,
        });
        scene.used(1, Some(0.0));
        scene.held().runner.as_ref().unwrap().verdict
    };
    assert_eq!((hears(&mut scene), scene.failures()), (None, 1));
    // It is otherwise where it is not on its way.
    scene.held_mut().gpu_use = GpuUse::default();
    scene.used(3, Some(50.0));
    assert_eq!(
        (hears(&mut scene), scene.failures()),
        (Some(Verdict::Hung), 2)
    );
}

/// It is parked on its way to be begun anew: nothing takes that back before it stopped, and it comes back
/// when its wait is over.
#[test]
fn a_park_of_what_is_idle_is_not_taken_back() {
    use crate::types::intent::Effect;
    use crate::types::money::BID_PARKED;
    let mut scene = running(Job {
        checkpoint_place: Some(CheckpointPlace::Disk),
        ..ends_after(30)
    });
    scene.on_sale();
    scene.job.retries.backoff = Duration::from_mins(1);
    scene.used(5, Some(80.0));
    scene.used(1 + 30, Some(0.0));
    let bid = scene.held().price;
    let parks = |scene: &Scene| {
        let actions = scene.actions();
        actions.len() == 1
            && matches!(actions[0].effect, Effect::SetBid { bid, .. } if bid == BID_PARKED)
    };
    assert!(parks(&scene));
    // The request was sent, and the marketplace shows it at work for a while.
    let held = scene.held_mut();
    held.stop_asked = true;
    held.bid_before_park = Some(bid);
    held.price = BID_PARKED;
    scene.row.price = Some(BID_PARKED);
    for _ in 0..10 {
        scene.used(1, Some(0.0));
        assert!(scene.actions().is_empty(), "{:?}", scene.actions());
    }
    assert!(scene.replica().retry_at.is_some_and(|at| at < scene.now));
    scene.row.cur_state = Some(RawState::Stopped);
    scene.row.intended = Some(RawState::Stopped);
    scene.row.actual = Some(RawState::Exited);
    scene.used(1, None);
    assert_eq!(scene.held().gpu_use, GpuUse::default());
    let actions = scene.actions();
    assert!(
        matches!(actions[..], [crate::types::plan::Action { effect: Effect::SetBid { bid: back, .. }, .. }] if back >= bid),
        "{actions:?}"
    );
    // While it waits for its next try it is not brought back, whatever else stopped it.
    let later = scene.now + Duration::from_mins(5);
    let mut replica = scene.replica();
    replica.retry_at = Some(later);
    scene.state.replicas.insert(replica.id.clone(), replica);
    scene.row.cur_state = Some(RawState::Running);
    scene.row.actual = Some(RawState::Running);
    scene.used(1, None);
    assert!(scene.held().stop_asked && scene.actions().is_empty());
    scene.used(5, None);
    assert_eq!(scene.actions().len(), 1, "it is wanted again");
}

#[test]
fn what_waits_for_a_checkpoint_is_not_idle() {
    let mut scene = running(ends_after(30));
    let id = scene.held().id;
    let bringing = super::super::bring::bringing(scene.held());
    scene.state.held.get_mut(&id).unwrap().bringing = Some(bringing);
    scene.used(60, Some(0.0));
    assert_eq!((scene.told(), scene.failures()), (0, 0));
    let held = scene.state.held.get_mut(&id).unwrap();
    held.bringing.as_mut().unwrap().opened = true;
    scene.used(1 + 30, Some(0.0));
    assert_eq!((scene.told(), scene.failures()), (1, 1));
}
