//! What lies on this machine, as one object: a file as it is, a directory as an archive that is the same
//! wherever and whenever it is made. Nothing is held in memory but names.

use std::fmt::Write as _;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::Sum;

/// The most that one object may have: what S3 takes in one PUT.
pub const OBJECT_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;

/// The most files and directories of one directory: all of them are looked at before each rental.
const ENTRIES_MAX: usize = 100_000;

/// Why something here cannot be brought to storage.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// It cannot be read.
    #[error("{} cannot be read: {why}", .path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// It is none of what can be brought.
    #[error("{} is neither a file nor a directory nor a link that stays inside: take it away, or pack an archive and give that", .0.display())]
    Kind(PathBuf),
    /// There is too much of it.
    #[error("{} has more than {ENTRIES_MAX} files and directories: pack an archive and give that", .0.display())]
    Many(PathBuf),
    /// It is too large for one object.
    #[error(
        "{} has {}, and an object that haggle uploads has at most {}: upload it to the bucket by another \
         tool and give storage:KEY, or give it in parts",
        .path.display(), crate::types::input::size(*.bytes), crate::types::input::size(OBJECT_BYTES_MAX)
    )]
    Large {
        /// What.
        path: PathBuf,
        /// Its bytes.
        bytes: u64,
    },
    /// It was changed while it was read.
    #[error("{} changes while it is read; it is tried again", .0.display())]
    Changed(PathBuf),
    /// Whoever takes it up has gone.
    #[error("it was given up: {0}")]
    Out(io::Error),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Directory,
    File { bytes: u64, executable: bool },
    Link(PathBuf),
}

#[derive(Clone, Debug)]
struct Entry {
    /// Below the root; empty for the root.
    path: PathBuf,
    what: What,
    /// When it was changed, in nanoseconds of Unix time.
    changed: i128,
}

/// What was found at a path.
#[derive(Clone, Debug)]
pub struct Local {
    root: PathBuf,
    /// In the order of their paths.
    entries: Vec<Entry>,
}

impl Local {
    /// Looks at a file, or at all that is in a directory. Contents are not read.
    ///
    /// # Errors
    /// What cannot be brought to storage, with what would be right.
    pub fn look(root: &Path) -> Result<Self, LocalError> {
        let read = |path: &Path, why| LocalError::Read {
            path: path.to_owned(),
            why,
        };
        // What the policy names may be a link; what is inside may not lead out.
        let of_root = fs::metadata(root).map_err(|why| read(root, why))?;
        let mut found = Self {
            root: root.to_owned(),
            entries: Vec::new(),
        };
        if of_root.is_file() {
            found.entries.push(entry(PathBuf::new(), &of_root));
        } else if of_root.is_dir() {
            found.walk(&of_root)?;
        } else {
            return Err(LocalError::Kind(root.to_owned()));
        }
        let bytes = found.content_bytes();
        if bytes > OBJECT_BYTES_MAX {
            let path = root.to_owned();
            return Err(LocalError::Large { path, bytes });
        }
        Ok(found)
    }

    fn walk(&mut self, of_root: &Metadata) -> Result<(), LocalError> {
        let read = |path: &Path, why| LocalError::Read {
            path: path.to_owned(),
            why,
        };
        self.entries.push(entry(PathBuf::new(), of_root));
        let mut open = vec![PathBuf::new()];
        while let Some(below) = open.pop() {
            let directory = self.root.join(&below);
            for item in fs::read_dir(&directory).map_err(|why| read(&directory, why))? {
                let item = item.map_err(|why| read(&directory, why))?;
                let (path, full) = (below.join(item.file_name()), item.path());
                let metadata = item.metadata().map_err(|why| read(&full, why))?;
                let kind = metadata.file_type();
                if kind.is_symlink() {
                    let target = fs::read_link(&full).map_err(|why| read(&full, why))?;
                    if !stays_inside(&path, &target) {
                        return Err(LocalError::Kind(full));
                    }
                    let link = Entry {
                        what: What::Link(target),
                        ..entry(path, &metadata)
                    };
                    self.entries.push(link);
                } else if kind.is_dir() || kind.is_file() {
                    if kind.is_dir() {
                        open.push(path.clone());
                    }
                    self.entries.push(entry(path, &metadata));
                } else {
                    return Err(LocalError::Kind(full));
                }
                if self.entries.len() > ENTRIES_MAX {
                    return Err(LocalError::Many(self.root.clone()));
                }
            }
        }
        self.entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(())
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        let first = self.entries.first();
        first.is_some_and(|entry| entry.what == What::Directory)
    }

    /// The bytes of its files.
    pub fn content_bytes(&self) -> u64 {
        let of = |entry: &Entry| match entry.what {
            What::File { bytes, .. } => bytes,
            What::Directory | What::Link(_) => 0,
        };
        self.entries.iter().map(of).fold(0, u64::saturating_add)
    }

    /// What changes when a name, a length or a time of change does: while it is the same, contents need
    /// not be read again.
    pub fn stamp(&self) -> Sum {
        let mut text = String::new();
        for Entry {
            path,
            what,
            changed,
        } in &self.entries
        {
            // A directory's own time says nothing of its files.
            let changed = Some(changed).filter(|_| *what != What::Directory);
            let seen = (path, what, changed);
            // Writing to a text does not fail.
            let _ = writeln!(text, "{seen:?}");
        }
        Sum::of(text.as_bytes())
    }

    /// The SHA-256 and the length of the object that it makes; `ends`: whether that is not wanted any more.
    ///
    /// # Errors
    /// What cannot be read, changes meanwhile, or is too large.
    pub fn digest(&self, ends: &dyn Fn() -> bool) -> Result<(Sum, u64), LocalError> {
        let mut counted = Counted::default();
        self.write(&mut Until {
            counted: &mut counted,
            ends,
        })?;
        let (path, bytes) = (self.root.clone(), counted.bytes);
        if bytes > OBJECT_BYTES_MAX {
            return Err(LocalError::Large { path, bytes });
        }
        Ok((counted.sum(), bytes))
    }

    /// Writes the object: a file as it is, a directory as an archive without owners and times.
    ///
    /// # Errors
    /// What cannot be read, changes meanwhile, or cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> Result<(), LocalError> {
        let mut out = BufWriter::with_capacity(256 * 1024, out);
        if self.is_directory() {
            self.archive(&mut out)?;
        } else if let Some(entry) = self.entries.first() {
            let (mut file, _) = self.open(entry)?;
            io::copy(&mut file, &mut out).map_err(LocalError::Out)?;
            self.ended(entry, &file)?;
        }
        out.flush().map_err(LocalError::Out)
    }

    fn archive(&self, out: &mut dyn Write) -> Result<(), LocalError> {
        let mut builder = tar::Builder::new(out);
        for entry in self.entries.iter().skip(1) {
            let mut header = Header::new_gnu();
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            let done = match &entry.what {
                What::Directory => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(0o755);
                    header.set_size(0);
                    builder.append_data(&mut header, &entry.path, io::empty())
                }
                What::Link(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_size(0);
                    builder.append_link(&mut header, &entry.path, target)
                }
                What::File { bytes, executable } => {
                    if *executable {
                        header.set_mode(0o755);
                    }
                    header.set_size(*bytes);
                    let (mut file, _) = self.open(entry)?;
                    let done = builder.append_data(&mut header, &entry.path, &mut file);
                    self.ended(entry, &file)?;
                    done
                }
            };
            done.map_err(LocalError::Out)?;
        }
        builder.finish().map_err(LocalError::Out)
    }

    /// Opens a file to read as many bytes of it as it had.
    fn open(&self, entry: &Entry) -> Result<(io::Take<File>, u64), LocalError> {
        let path = self.root.join(&entry.path);
        // Joining nothing puts a slash at its end.
        let path = if entry.path.as_os_str().is_empty() {
            self.root.clone()
        } else {
            path
        };
        let file = File::open(&path).map_err(|why| LocalError::Read { path, why })?;
        let bytes = match entry.what {
            What::File { bytes, .. } => bytes,
            What::Directory | What::Link(_) => 0,
        };
        Ok((file.take(bytes), bytes))
    }

    /// Whether a file was read as it was found: no byte less, and as old.
    fn ended(&self, entry: &Entry, file: &io::Take<File>) -> Result<(), LocalError> {
        let now = file.get_ref().metadata();
        let same = now.is_ok_and(|now| {
            let now = self::entry(entry.path.clone(), &now);
            now.what == entry.what && now.changed == entry.changed
        });
        if file.limit() == 0 && same {
            Ok(())
        } else {
            Err(LocalError::Changed(self.root.join(&entry.path)))
        }
    }
}

fn entry(path: PathBuf, metadata: &Metadata) -> Entry {
    let changed = metadata.modified().ok().map_or(0, |at| {
        at.duration_since(UNIX_EPOCH).map_or_else(
            |before| -(before.duration().as_nanos() as i128),
            |after| after.as_nanos() as i128,
        )
    });
    let what = if metadata.is_dir() {
        What::Directory
    } else {
        What::File {
            bytes: metadata.len(),
            executable: metadata.permissions().mode() & 0o100 != 0,
        }
    };
    Entry {
        path,
        what,
        changed,
    }
}

/// Whether a link at a path below a root leads to something below it.
fn stays_inside(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count() as i64 - 1;
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => depth -= 1,
            Component::RootDir | Component::Prefix(_) => return false,
        }
        if depth < 0 {
            return false;
        }
    }
    true
}

/// Counts and sums up what is written, and keeps none of it.
#[derive(Default)]
pub(super) struct Counted {
    hash: Sha256,
    pub(super) bytes: u64,
}

impl Counted {
    pub(super) fn sum(&self) -> Sum {
        let sum: [u8; 32] = self.hash.clone().finalize().into();
        Sum::from(sum)
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The same, until nobody wants it any more.
struct Until<'a> {
    counted: &'a mut Counted,
    ends: &'a dyn Fn() -> bool,
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.ends)() {
            return Err(io::Error::other("the process ends"));
        }
        self.counted.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn written(local: &Local) -> Vec<u8> {
        let mut bytes = Vec::new();
        local.write(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_file_is_itself() {
        let dir = directory(&[("a", "some text")]);
        let local = Local::look(&dir.path().join("a")).unwrap();
        assert!(!local.is_directory());
        assert_eq!(written(&local), b"some text");
        assert_eq!(local.digest(&|| false).unwrap(), (Sum::of(b"some text"), 9));
    }

    #[test]
    fn a_directory_is_the_same_archive_wherever_and_whenever_it_is_made() {
        let long = format!("deep/{}", "n".repeat(150));
        let files = [("b", "2"), ("a/x", "1"), (long.as_str(), "3")];
        let first = directory(&files);
        let second = directory(&[files[2], files[1], files[0]]);
        for dir in [&first, &second] {
            symlink("a/x", dir.path().join("link")).unwrap();
            fs::create_dir(dir.path().join("empty")).unwrap();
            let mode = fs::Permissions::from_mode(0o700);
            fs::set_permissions(dir.path().join("b"), mode).unwrap();
        }
        let old = UNIX_EPOCH + std::time::Duration::from_secs(1000);
        let file = File::options().write(true).open(second.path().join("b"));
        file.unwrap().set_modified(old).unwrap();
        let (one, two) = (
            Local::look(first.path()).unwrap(),
            Local::look(second.path()).unwrap(),
        );
        assert_eq!(written(&one), written(&two));
        assert_ne!(one.stamp(), two.stamp(), "a time is another");
        let (sum, bytes) = one.digest(&|| false).unwrap();
        assert_eq!(
            (sum, bytes),
            (Sum::of(&written(&one)), written(&one).len() as u64)
        );

        let into = tempfile::tempdir().unwrap();
        tar::Archive::new(&written(&one)[..])
            .unpack(into.path())
            .unwrap();
        let read = |path: &str| fs::read_to_string(into.path().join(path)).unwrap();
        assert_eq!(
            (read("a/x"), read("b"), read("link"), read(&long)),
            ("1".into(), "2".into(), "1".into(), "3".into())
        );
        assert!(into.path().join("empty").is_dir());
        let mode = fs::metadata(into.path().join("b"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
    }

    #[test]
    fn what_leads_out_or_is_no_file_is_refused_with_what_would_be_right() {
        for target in ["/etc/passwd", "../x", "a/../../x"] {
            let dir = directory(&[("a/x", "1")]);
            symlink(target, dir.path().join("link")).unwrap();
            let error = Local::look(dir.path()).unwrap_err().to_string();
            assert!(
                error.contains("link that stays inside") && error.contains("pack an archive"),
                "{error}"
            );
        }
        let dir = directory(&[("a/x", "1")]);
        symlink("../a/./x", dir.path().join("a/link")).unwrap();
        assert!(Local::look(dir.path()).is_ok());
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        assert!(matches!(Local::look(dir.path()), Err(LocalError::Kind(_))));
        assert!(matches!(
            Local::look(&dir.path().join("none")),
            Err(LocalError::Read { .. })
        ));
        let large = dir.path().join("large");
        File::create(&large)
            .unwrap()
            .set_len(OBJECT_BYTES_MAX + 1)
            .unwrap();
        let error = Local::look(&large).unwrap_err().to_string();
        assert!(
            error.contains("at most 5.3 GB") && error.contains("storage:KEY"),
            "{error}"
        );
    }

    #[test]
    fn what_changes_between_two_looks_is_not_taken_for_what_it_was() {
        let dir = directory(&[("a", "1"), ("b", "2")]);
        let local = Local::look(dir.path()).unwrap();
        let stamp = local.stamp();
        assert_eq!(Local::look(dir.path()).unwrap().stamp(), stamp);
        for (path, text) in [("a", "11"), ("a", ""), ("c", "new")] {
            fs::write(dir.path().join(path), text).unwrap();
            assert_ne!(Local::look(dir.path()).unwrap().stamp(), stamp, "{path}");
            if path == "a" {
                let error = local.digest(&|| false).unwrap_err();
                assert!(matches!(error, LocalError::Changed(_)), "{error}");
            }
        }
    }
}
