//! Where the database lies: whether files can be made there, how much room is left, and whether it is a
//! place where SQLite's locks hold and a restart finds it again.

use std::path::Path;

use super::findings::{Findings, Health};

/// Under so many free bytes the disk is nearly full: snapshots of some weeks fit into the first, and a day
/// into the second.
const ROOM_WARN: u64 = 1_000_000_000;
const ROOM_FAIL: u64 = 100_000_000;

/// A file system on which a database does not belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unfit {
    /// Its locks are another machine's, or none.
    Network(&'static str),
    /// It is gone after a restart.
    Memory(&'static str),
    /// It is gone with the container.
    Container,
}

/// By the number that Linux gives to kinds of file systems (`statfs(2)`).
fn unfit(magic: u64) -> Option<Unfit> {
    Some(match magic {
        0x6969 => Unfit::Network("NFS"),
        0x517B | 0xFE53_4D42 | 0xFF53_4D42 => Unfit::Network("SMB"),
        0x0102_1997 => Unfit::Network("9p"),
        0x00C3_6400 => Unfit::Network("Ceph"),
        0x5346_414F | 0x6B41_4653 => Unfit::Network("AFS"),
        0x0BD0_0BD0 => Unfit::Network("Lustre"),
        0x4750_4653 => Unfit::Network("GPFS"),
        0x0102_1994 => Unfit::Memory("tmpfs"),
        0x8584_58F6 => Unfit::Memory("ramfs"),
        0x794C_7630 => Unfit::Container,
        _ => return None,
    })
}

#[cfg(target_os = "linux")]
fn magic(directory: &Path) -> Option<u64> {
    // The type of the field differs between machines; the number has 32 bits on all.
    let kind = rustix::fs::statfs(directory).ok()?.f_type;
    Some((kind as u64) & 0xFFFF_FFFF)
}

#[cfg(not(target_os = "linux"))]
fn magic(_directory: &Path) -> Option<u64> {
    None
}

/// Looks at the directory of a database.
pub(super) fn look(directory: &Path, findings: &mut Findings) {
    let shown = directory.display();
    // A file without a name, which the system forgets: nothing is left behind.
    if let Err(error) = tempfile::tempfile_in(directory) {
        findings.advise(
            "disk",
            Health::Fail,
            format!("no file can be made in {shown}: {error}"),
            "give the user that runs haggle the right to write to the database's directory",
        );
        return;
    }
    let before = findings.0.len();
    kind(directory, magic(directory).and_then(unfit), findings);
    #[cfg(unix)]
    if let Ok(disk) = rustix::fs::statvfs(directory) {
        room(
            directory,
            disk.f_bavail.saturating_mul(disk.f_frsize),
            findings,
        );
    }
    if findings.0.len() == before {
        findings.ok("disk", format!("{shown} can be written, and has room"));
    }
}

fn kind(directory: &Path, unfit: Option<Unfit>, findings: &mut Findings) {
    let shown = directory.display();
    let (found, advice) = match unfit {
        None => return,
        Some(Unfit::Network(name)) => (
            format!(
                "{shown} is on a network file system ({name}), where SQLite's locks may not hold"
            ),
            "put the database on a disk of this machine, and copy it elsewhere with `haggle backup`",
        ),
        Some(Unfit::Memory(name)) => (
            format!("{shown} is in memory ({name}): a restart of the machine loses the database"),
            "put the database on a disk: what is rented is known by it",
        ),
        Some(Unfit::Container) => (
            format!(
                "{shown} is in a container's own layer: the database is lost with the container"
            ),
            "put the database on a volume",
        ),
    };
    findings.advise("disk", Health::Warn, found, advice);
}

fn room(directory: &Path, free: u64, findings: &mut Findings) {
    let health = if free < ROOM_FAIL {
        Health::Fail
    } else if free < ROOM_WARN {
        Health::Warn
    } else {
        return;
    };
    findings.advise(
        "disk",
        health,
        format!(
            "nearly full: {:.0} MB free at {}",
            free as f64 / 1e6,
            directory.display()
        ),
        "make room, or shorten poll.history_kept; where nothing can be written, nothing is rented",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(look: impl FnOnce(&mut Findings)) -> Vec<(Health, String)> {
        let mut findings = Findings::default();
        look(&mut findings);
        let all = findings.0.into_iter();
        all.map(|finding| (finding.health, finding.found)).collect()
    }

    #[test]
    fn a_database_on_the_network_in_memory_or_in_a_container_is_warned_of() {
        let path = Path::new("/data");
        for (magic, words) in [
            (0x6969, "network file system (NFS)"),
            (0xFE53_4D42, "network file system (SMB)"),
            (0x0102_1994, "in memory (tmpfs)"),
            (0x794C_7630, "container"),
        ] {
            let found = of(|findings| kind(path, unfit(magic), findings));
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].0, Health::Warn);
            assert!(found[0].1.contains(words), "{found:?}");
        }
        // Ext4, XFS, Btrfs and ZFS.
        for magic in [0xEF53, 0x5846_5342, 0x9123_683E, 0x2FC1_2FC1] {
            assert_eq!(of(|findings| kind(path, unfit(magic), findings)), []);
        }
    }

    #[test]
    fn a_disk_that_is_nearly_full_is_told_before_it_is() {
        let path = Path::new("/data");
        let health = |free| of(|findings| room(path, free, findings)).pop();
        assert_eq!(health(50_000_000_000), None);
        assert_eq!(
            health(999_000_000),
            Some((Health::Warn, "nearly full: 999 MB free at /data".to_owned()))
        );
        assert_eq!(health(5_000_000).map(|found| found.0), Some(Health::Fail));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_directory_in_which_no_file_can_be_made_is_found_and_another_is_not() {
        // Not even root makes a file there.
        let found = of(|findings| look(Path::new("/proc/self"), findings));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, Health::Fail);
        let fine = tempfile::tempdir().unwrap();
        let found = of(|findings| look(fine.path(), findings));
        assert!(
            !found
                .iter()
                .any(|(_, text)| text.contains("no file can be made")),
            "{found:?}"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kind_of_a_file_system_is_asked_of_the_system() {
        assert_eq!(magic(Path::new("/proc")), Some(0x9FA0));
        assert_eq!(magic(Path::new("/nowhere/at/all")), None);
    }
}
