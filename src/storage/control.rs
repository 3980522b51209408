//! The control document: what a run may read and write, as addresses that expire.

use std::fmt::Write as _;
use std::time::Duration;

use super::Sum;
use super::keys::{Tree, Turn};
use super::place::{Place, SignError};
use crate::types::ids::{IntentId, ReplicaId};
use crate::types::time::Time;

/// The longest that S3 takes an address for: seven days.
pub const VALID_MAX: Duration = Duration::from_hours(7 * 24);

/// A good checkpoint of an earlier run of the same replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restore {
    /// The run that made it.
    pub run: IntentId,
    /// In which of its places.
    pub turn: Turn,
    /// The SHA-256 of its manifest, as the run told it under its key. The machine that the run was on
    /// may still be able to write there; what has another sum is not that checkpoint.
    pub manifest: Sum,
}

/// The document for a run, as `run.sh` reads it: `haggle 1`, then `NAME URL` a line. The run may write
/// its own checkpoints and outputs, and read the checkpoint to begin with; nothing else, each for
/// `valid` from `now` (at most [`VALID_MAX`]), two terms of its lease as a rule. This document's own
/// next version may be read for as long as S3 allows: whoever was away for long finds new addresses
/// there. Two lines are no addresses: `restore.sum` is what `restore.manifest` must have as its
/// SHA-256, and `keep` the place of the run's own checkpoint that is not to be written over, for it
/// is the one that the daemon knows of. The text holds signatures: it is for the run's eyes only.
pub fn control(
    place: &Place,
    replica: &ReplicaId,
    run: IntentId,
    (restore, keep): (Option<&Restore>, Option<Turn>),
    now: Time,
    valid: Duration,
) -> Result<String, SignError> {
    let keys = place.keys(replica, run);
    let mut text = "haggle 1\n".to_owned();
    let mut line = |name: &str, value: &str| {
        // Writing to a text does not fail.
        let _ = writeln!(text, "{name} {value}");
    };
    let next = place.get_url(&keys.control(), now, VALID_MAX)?;
    line("control", next.expose());
    if let Some(turn) = keep {
        line("keep", &turn.slot().to_string());
    }
    for tree in Tree::ALL {
        let tar = place.put_url(&keys.tar(tree), now, valid)?;
        line(&format!("{}.tar", tree.name()), tar.expose());
        let manifest = place.put_url(&keys.manifest(tree), now, valid)?;
        line(&format!("{}.manifest", tree.name()), manifest.expose());
    }
    if let Some(from) = restore {
        let keys = place.keys(replica, from.run);
        let tree = Tree::Checkpoint(from.turn);
        let tar = place.get_url(&keys.tar(tree), now, valid)?;
        line("restore.tar", tar.expose());
        let manifest = place.get_url(&keys.manifest(tree), now, valid)?;
        line("restore.manifest", manifest.expose());
        line("restore.sum", &from.manifest.to_string());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::place::tests::{AWS_NOW, example};
    use super::*;

    fn replica() -> ReplicaId {
        ReplicaId {
            job: "train".parse().unwrap(),
            index: 2,
        }
    }

    fn lines(text: &str) -> Vec<(&str, &str)> {
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("haggle 1"));
        lines.map(|line| line.split_once(' ').unwrap()).collect()
    }

    #[test]
    fn a_run_may_write_its_own_and_read_its_next_document() {
        let (place, hour) = (example(), Duration::from_hours(1));
        let text = control(&place, &replica(), IntentId(5), (None, None), AWS_NOW, hour).unwrap();
        assert!(text.ends_with('\n'));
        let lines = lines(&text);
        let names: Vec<&str> = lines.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            [
                "control",
                "checkpoint0.tar",
                "checkpoint0.manifest",
                "checkpoint1.tar",
                "checkpoint1.manifest",
                "checkpoint2.tar",
                "checkpoint2.manifest",
                "outputs.tar",
                "outputs.manifest",
            ]
        );
        let keys = place.keys(&replica(), IntentId(5));
        let own = place.get_url(&keys.control(), AWS_NOW, VALID_MAX).unwrap();
        assert_eq!(lines[0].1, own.expose());
        for (name, url) in &lines[1..] {
            let home = "https://s3.amazonaws.com/examplebucket/runs/train/r2/5/";
            assert!(url.starts_with(&format!("{home}{name}?")), "{url}");
            assert!(url.contains("X-Amz-Expires=3600&"), "{url}");
            assert!(url.bytes().all(|b| b.is_ascii_graphic()), "{url}");
        }
        // Each is signed for writing, not for reading.
        let tar = place.put_url(&keys.tar(Tree::Outputs), AWS_NOW, hour);
        assert_eq!(lines[7].1, tar.unwrap().expose());
    }

    #[test]
    fn a_checkpoint_to_begin_with_may_be_read_and_has_its_sum() {
        let (place, hour) = (example(), Duration::from_hours(1));
        let from = Restore {
            run: IntentId(4),
            turn: Turn::One,
            manifest: Sum::of(b"a manifest"),
        };
        let known = (Some(&from), Some(Turn::Two));
        let text = control(&place, &replica(), IntentId(5), known, AWS_NOW, hour).unwrap();
        assert_eq!(lines(&text)[1], ("keep", "2"));
        let keys = place.keys(&replica(), IntentId(4));
        let tree = Tree::Checkpoint(Turn::One);
        let tar = place.get_url(&keys.tar(tree), AWS_NOW, hour).unwrap();
        let manifest = place.get_url(&keys.manifest(tree), AWS_NOW, hour).unwrap();
        assert_eq!(
            lines(&text)[10..],
            [
                ("restore.tar", tar.expose()),
                ("restore.manifest", manifest.expose()),
                ("restore.sum", Sum::of(b"a manifest").to_string().as_str()),
            ]
        );
        assert!(tar.expose().contains("/train/r2/4/checkpoint1.tar?"));
    }

    #[test]
    fn an_address_that_cannot_be_signed_is_an_error() {
        let made = control(
            &example(),
            &replica(),
            IntentId(5),
            (None, None),
            AWS_NOW,
            Duration::ZERO,
        );
        assert_eq!(made, Err(SignError::Expired));
    }
}
