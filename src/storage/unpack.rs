//! Unpacks an archive that a machine made which is not ours, onto a disk which is.
//!
//! The `tar` crate reads the headers, and that is all that is relied on: that it tries their check
//! sums, reads sizes without overflow, and gives of an entry its own bytes and no more. Its `unpack`
//! is not used. Headers are taken raw, so that no size or name from an extension is believed without
//! being looked at here, and none of any length is read into the memory.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tar::{Archive, Entry, EntryType, PaxExtensions};

use super::Sum;
use super::manifest::{Listed, Manifest, PathFault, clean_path};

/// Bytes of an extension to a header, which has a name or two.
const EXTENSION_MAX: u64 = 64 * 1024;

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Links and files of the runner's own that were in the archive and are not on the disk.
    pub left_out: u64,
}

/// Why nothing was unpacked. Paths are shown only after they were found harmless.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The destination.
    #[error("{} is there already: name a directory that is not", .0.display())]
    There(PathBuf),
    /// The disk.
    #[error("cannot {what} {}: {why}", .path.display())]
    Disk {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// The archive is another one.
    #[error("the archive is not the one of its manifest: {0}")]
    Another(String),
    /// It is no archive.
    #[error("entry {entry} of the archive cannot be read: {why}")]
    Broken {
        /// Which, from 1.
        entry: u64,
        /// What the reader says.
        why: String,
    },
    /// What is never unpacked.
    #[error("entry {entry} of the archive is {what}, which is not unpacked")]
    Kind {
        /// Which, from 1.
        entry: u64,
        /// What it is.
        what: String,
    },
    /// A name that leads elsewhere.
    #[error("entry {entry} of the archive: the path {why}")]
    Path {
        /// Which, from 1.
        entry: u64,
        /// Why.
        why: PathFault,
    },
    /// A file that the manifest does not have, or not again.
    #[error("the archive has `{0}`, which its manifest does not list, or does not list twice")]
    Unlisted(String),
    /// A file that is not as the manifest says.
    #[error("`{path}` is not as the manifest says: {what}")]
    Differs {
        /// Its path.
        path: String,
        /// In what.
        what: &'static str,
    },
    /// A file that is not there.
    #[error("`{0}` is in the manifest, and not in the archive as a file of its own")]
    Missing(String),
}

/// Unpacks an archive that must be as its manifest says: its files, all of them and no others, in a
/// directory that is not there yet and whose parent is. They are written beside it first, and take
/// its name when all is right and on the disk; else they go again. Modes, times and owners are not
/// kept.
///
/// Links are left out, for a manifest lists none and results often have one; so is what the runner
/// itself left there (`.haggle…`). A file that is a second name of another one is such a link, and
/// then missing.
pub fn unpack(archive: &Path, manifest: &Manifest, into: &Path) -> Result<Unpacked, UnpackError> {
    if into.symlink_metadata().is_ok() {
        return Err(UnpackError::There(into.to_owned()));
    }
    let parent = match into.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(UnpackError::There(into.to_owned())),
    };
    let file = File::open(archive).map_err(disk("read", archive))?;
    let fresh = tempfile::Builder::new()
        .prefix(".haggle-unpacking-")
        .tempdir_in(parent)
        .map_err(disk("write in", parent))?;
    let mut unpacking = Unpacking::new(manifest, fresh.path());
    let mut reader = Summing::new(BufReader::with_capacity(128 * 1024, file), manifest.size);
    unpacking.read(&mut reader)?;
    reader.finish(manifest, archive)?;
    let done = unpacking.finish()?;
    // Onto a directory that came there meanwhile this fails, where it is not empty.
    fs::rename(fresh.path(), into).map_err(disk("make", into))?;
    // It has gone from there: nothing to clean up.
    let _ = fresh.keep();
    sync(parent)?;
    Ok(done)
}

/// A reader's error. Its text can have names of the archive in it, so only what is harmless is shown.
fn broken(entry: u64) -> impl Fn(io::Error) -> UnpackError {
    move |why| {
        let text = why.to_string();
        let harmless = text.chars().filter(|c| !c.is_control()).take(200);
        UnpackError::Broken {
            entry,
            why: harmless.collect(),
        }
    }
}

fn disk(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> UnpackError {
    let path = path.to_owned();
    move |why| UnpackError::Disk { what, path, why }
}

fn sync(directory: &Path) -> Result<(), UnpackError> {
    File::open(directory)
        .and_then(|open| open.sync_all())
        .map_err(disk("keep", directory))
}

/// Reads at most so many bytes, and sums up what it reads.
struct Summing<R> {
    inner: io::Take<R>,
    hash: Sha256,
    read: u64,
}

impl<R: Read> Summing<R> {
    fn new(inner: R, most: u64) -> Self {
        Self {
            // One more shows that there is more.
            inner: inner.take(most.saturating_add(1)),
            hash: Sha256::new(),
            read: 0,
        }
    }

    /// Reads what the archive's end left, and tries size and sum.
    fn finish(mut self, manifest: &Manifest, path: &Path) -> Result<(), UnpackError> {
        io::copy(&mut self, &mut io::sink()).map_err(disk("read", path))?;
        if self.read != manifest.size {
            let than = if self.read > manifest.size {
                "more"
            } else {
                "less"
            };
            let size = manifest.size;
            return Err(UnpackError::Another(format!("{than} than {size} bytes")));
        }
        let found = Sum(self.hash.finalize().into());
        if found != manifest.archive {
            let expected = manifest.archive;
            let why = format!("its SHA-256 is {found}, not {expected}");
            return Err(UnpackError::Another(why));
        }
        Ok(())
    }
}

impl<R: Read> Read for Summing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.read += count as u64;
        Ok(count)
    }
}

struct Unpacking<'a> {
    /// What is still to come.
    wanted: BTreeMap<&'a str, &'a Listed>,
    fresh: &'a Path,
    done: Unpacked,
    /// Directories that were made, from the outermost on.
    directories: Vec<PathBuf>,
    /// A name for the next entry that is none itself, from a header before it.
    name: Option<Vec<u8>>,
}

impl<'a> Unpacking<'a> {
    fn new(manifest: &'a Manifest, fresh: &'a Path) -> Self {
        let listed = manifest.files().iter();
        Self {
            wanted: listed.map(|file| (file.path.as_str(), file)).collect(),
            fresh,
            done: Unpacked::default(),
            directories: vec![fresh.to_owned()],
            name: None,
        }
    }

    fn read(&mut self, reader: impl Read) -> Result<(), UnpackError> {
        let mut archive = Archive::new(reader);
        let entries = archive.entries().map_err(broken(1))?.raw(true);
        for (number, entry) in (1..).zip(entries) {
            self.take(number, entry.map_err(broken(number))?)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Unpacked, UnpackError> {
        if let Some(missing) = self.wanted.into_keys().next() {
            return Err(UnpackError::Missing(missing.to_owned()));
        }
        for directory in self.directories.iter().rev() {
            sync(directory)?;
        }
        Ok(self.done)
    }

    fn take(&mut self, number: u64, mut entry: Entry<impl Read>) -> Result<(), UnpackError> {
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => {
                let mut name = extension(number, &mut entry)?;
                if name.last() == Some(&0) {
                    name.pop();
                }
                return self.name_next(number, name);
            }
            // The target of a link, which is not made.
            EntryType::GNULongLink => return extension(number, &mut entry).map(|_| ()),
            EntryType::XHeader => {
                let records = extension(number, &mut entry)?;
                return match path_of(number, &records)? {
                    Some(name) => self.name_next(number, name),
                    None => Ok(()),
                };
            }
            _ => {}
        }
        let name = match self.name.take() {
            Some(name) => name,
            None => entry.path_bytes().into_owned(),
        };
        let fault = |why| UnpackError::Path { entry: number, why };
        match kind {
            EntryType::Regular => {
                let path = clean_path(&name).map_err(fault)?;
                self.file(number, path, entry)
            }
            EntryType::Directory => {
                let bare = name.strip_suffix(b"/").unwrap_or(&name);
                // Those that lead to a file are made for it; others hold nothing that is listed.
                if bare != b"." {
                    clean_path(bare).map_err(fault)?;
                }
                Ok(())
            }
            EntryType::Symlink | EntryType::Link => {
                clean_path(&name).map_err(fault)?;
                self.done.left_out += 1;
                Ok(())
            }
            other => Err(UnpackError::Kind {
                entry: number,
                what: in_words(other),
            }),
        }
    }

    fn name_next(&mut self, entry: u64, name: Vec<u8>) -> Result<(), UnpackError> {
        if self.name.replace(name).is_some() {
            let what = "a second name for one file".to_owned();
            return Err(UnpackError::Kind { entry, what });
        }
        Ok(())
    }

    fn file(
        &mut self,
        number: u64,
        path: &str,
        mut entry: Entry<impl Read>,
    ) -> Result<(), UnpackError> {
        let Some(listed) = self.wanted.remove(path) else {
            let name = path.rsplit('/').next().unwrap_or(path);
            if name.starts_with(".haggle") {
                self.done.left_out += 1;
                return Ok(());
            }
            return Err(UnpackError::Unlisted(path.to_owned()));
        };
        let differs = |what| UnpackError::Differs {
            path: path.to_owned(),
            what,
        };
        if entry.size() != listed.size {
            return Err(differs("its size"));
        }
        self.make_directories(path)?;
        let to = self.fresh.join(path);
        // Nothing is written through what is there already, whatever it is.
        let opened = OpenOptions::new().write(true).create_new(true).open(&to);
        let mut file = BufWriter::with_capacity(128 * 1024, opened.map_err(disk("make", &to))?);
        let mut hash = Sha256::new();
        let mut left = listed.size;
        let mut buffer = vec![0; 64 * 1024];
        while left > 0 {
            let read = entry.read(&mut buffer);
            let count = read.map_err(broken(number))?;
            if count == 0 || count as u64 > left {
                return Err(differs("its size"));
            }
            left -= count as u64;
            hash.update(&buffer[..count]);
            file.write_all(&buffer[..count])
                .map_err(disk("write", &to))?;
        }
        if Sum(hash.finalize().into()) != listed.sum {
            return Err(differs("its SHA-256"));
        }
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .map_err(disk("write", &to))?;
        self.done.files += 1;
        self.done.bytes += listed.size;
        Ok(())
    }

    /// The directories above a file, one at a time: no link was made that could be one of them.
    fn make_directories(&mut self, path: &str) -> Result<(), UnpackError> {
        for (at, _) in path.match_indices('/') {
            let directory = self.fresh.join(&path[..at]);
            match fs::create_dir(&directory) {
                Ok(()) => self.directories.push(directory),
                Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
                Err(why) => return Err(disk("make", &directory)(why)),
            }
        }
        Ok(())
    }
}

fn extension(number: u64, entry: &mut Entry<impl Read>) -> Result<Vec<u8>, UnpackError> {
    if entry.size() > EXTENSION_MAX {
        return Err(UnpackError::Kind {
            entry: number,
            what: format!("an extension of more than {} KiB", EXTENSION_MAX / 1024),
        });
    }
    let mut bytes = Vec::new();
    let read = entry.take(EXTENSION_MAX).read_to_end(&mut bytes);
    read.map_err(broken(number))?;
    if bytes.len() as u64 != entry.size() {
        return Err(broken(number)(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(bytes)
}

/// The path in the records of an extended header. What says that a file is of another size, or has
/// holes, is refused: readers disagree on it, and no archive that S3 takes at once needs it.
fn path_of(number: u64, records: &[u8]) -> Result<Option<Vec<u8>>, UnpackError> {
    let mut path = None;
    for record in PaxExtensions::new(records) {
        let record = record.map_err(broken(number))?;
        match record.key_bytes() {
            b"path" => path = Some(record.value_bytes().to_vec()),
            key if key == b"size" || key.starts_with(b"GNU.sparse") => {
                return Err(UnpackError::Kind {
                    entry: number,
                    what: "a file whose size is said twice, or one with holes".to_owned(),
                });
            }
            _ => {}
        }
    }
    Ok(path)
}

fn in_words(kind: EntryType) -> String {
    match kind {
        EntryType::Char | EntryType::Block => "a device".to_owned(),
        EntryType::Fifo => "a pipe".to_owned(),
        EntryType::GNUSparse => "a file with holes".to_owned(),
        EntryType::XGlobalHeader => "a header for all others".to_owned(),
        other => format!("of the type {}", other.as_byte()),
    }
}
