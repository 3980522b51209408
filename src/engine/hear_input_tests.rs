//! What runners tell of their inputs, taken up.

use super::tests::{Scene, line};
use super::*;
use crate::engine::eligible::samples::input;
use crate::runner::{Fault, Fetch};

/// A job that needs inputs of so many bytes; `None`: nobody knows how many.
fn needing(bytes: Option<u64>) -> Scene {
    let mut scene = Scene::new();
    let mut spec = *scene.job.run.runner.take().unwrap();
    spec.inputs = vec![input(bytes)];
    let held = scene.state.held.get_mut(&scene.row.id).unwrap();
    held.runner = Some(RunnerView::of(&spec));
    scene.job.run.runner = Some(Box::new(spec));
    scene
}

/// A line of an input that comes in.
fn came(seq: u64, kb: Option<u64>) -> Told {
    Told {
        fetch: Some(Fetch {
            input: 1,
            kb,
            fault: None,
        }),
        ..line("b", seq, "fetching")
    }
}

/// A line of an input that does not come.
fn lacks(seq: u64, fault: Fault) -> Told {
    Told {
        trouble: Some("it could not be read".to_owned()),
        fetch: Some(Fetch {
            input: 1,
            kb: None,
            fault: Some(fault),
        }),
        ..line("b", seq, "trouble")
    }
}

#[test]
fn what_is_restored_after_a_long_fetch_has_its_own_time() {
    // 50 minutes for 12 GB.
    let mut scene = needing(Some(12_000_000_000));
    assert_eq!(scene.hears(0, Some(vec![came(1, Some(0))])), None);
    assert_eq!(scene.hears(9, Some(vec![came(2, Some(9))])), None);
    for minute in 1..=4 {
        let grown = came(2 + minute, Some(9 + minute));
        assert_eq!(scene.hears(8, Some(vec![grown])), None);
    }
    let restores = |seq| vec![line("b", seq, "restoring")];
    assert_eq!(scene.hears(1, Some(restores(7))), None, "42 minutes");
    assert_eq!(scene.hears(9, Some(restores(8))), None);
    assert_eq!(
        scene.hears(1, Some(restores(9))),
        Some(Verdict::Refused),
        "ten minutes are over for the checkpoint"
    );
}

#[test]
fn an_input_that_is_read_in_vain_keeps_its_time() {
    let mut scene = needing(None);
    assert_eq!(scene.hears(0, Some(vec![came(1, None)])), None);
    for seq in 2..25 {
        let told = lacks(seq, Fault::Unread);
        assert_eq!(scene.hears(9, Some(vec![told])), None, "{seq}");
    }
    // Behind its gate meanwhile, too.
    assert_eq!(scene.hears(5, Some(vec![line("b", 30, "gate")])), None);
    let late = scene.hears(60, Some(vec![lacks(31, Fault::Unread)]));
    assert_eq!(late, Some(Verdict::Refused));
    assert!(scene.is_cooled_down());
}

#[test]
fn an_input_of_which_nothing_more_comes_is_too_late() {
    let mut scene = needing(None);
    assert_eq!(scene.hears(0, Some(vec![came(1, Some(70))])), None);
    assert_eq!(scene.hears(9, Some(vec![came(2, Some(70))])), None);
    // A little more, and then it is begun again.
    assert_eq!(scene.hears(3, Some(vec![came(3, Some(71))])), None);
    assert_eq!(scene.hears(5, Some(vec![lacks(4, Fault::Unread)])), None);
    assert_eq!(scene.hears(4, Some(vec![came(5, Some(20))])), None);
    // It is unpacked, which takes its time.
    assert_eq!(scene.hears(9, Some(vec![came(6, None)])), None);
    assert_eq!(scene.hears(9, Some(vec![came(7, None)])), None);
    assert_eq!(scene.hears(9, Some(vec![came(8, Some(30))])), None);
    // What is not heard is not known.
    assert_eq!(scene.hears(30, None), None);
    assert_eq!(scene.hears(0, Some(vec![came(9, Some(31))])), None);
    let stuck = scene.hears(10, Some(vec![came(10, Some(31))]));
    assert_eq!(stuck, Some(Verdict::Refused));
    assert!(scene.is_cooled_down());
}

#[test]
fn an_object_that_was_written_over_is_nobodys_fault() {
    let mut scene = needing(Some(7));
    assert_eq!(scene.hears(0, Some(vec![came(1, Some(0))])), None);
    let verdict = scene.hears(1, Some(vec![lacks(2, Fault::Changed)]));
    assert_eq!(verdict, Some(Verdict::Refused));
    assert!(!scene.is_cooled_down());
    assert_eq!(scene.told, ["input-changed"]);
    assert!(scene.view().input_changed && !scene.view().input_fault);
}
