//! Whether what lies here is still what was read of it.

use std::path::PathBuf;
use std::time::Duration;

use super::{Local, Sum};

/// A disk that does not say so in this time is not waited for.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Whether there is at each path what had this stamp; `None`: nobody knows, for a disk does not answer.
/// It takes ten seconds of real time at most.
pub async fn are_the_same(looks: Vec<(PathBuf, Sum)>) -> Option<bool> {
    let look = tokio::task::spawn_blocking(move || {
        let same = |(path, stamp): &(PathBuf, Sum)| {
            Local::look(path).is_ok_and(|local| local.stamp() == *stamp)
        };
        looks.iter().all(same)
    });
    // The disk takes real time, whatever the clock shows.
    tokio::time::timeout(LOOK_MAX, look).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_changed_or_is_gone_is_not_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, "one").unwrap();
        std::fs::write(&b, "another").unwrap();
        let stamp = |path: &PathBuf| (path.clone(), Local::look(path).unwrap().stamp());
        let looks = vec![stamp(&a), stamp(&b)];
        assert_eq!(are_the_same(looks.clone()).await, Some(true));
        std::fs::write(&b, "of other length").unwrap();
        assert_eq!(are_the_same(looks.clone()).await, Some(false));
        assert_eq!(are_the_same(looks[..1].to_vec()).await, Some(true));
        std::fs::remove_file(&a).unwrap();
        assert_eq!(are_the_same(looks[..1].to_vec()).await, Some(false));
    }
}
