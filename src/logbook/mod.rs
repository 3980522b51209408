//! The book of logs: what instances wrote, kept on disk, so that it can be read when their machine
//! is gone.
//!
//! The marketplace shows the last lines of a log and nothing else. Reads of it overlap, or do not
//! where much was written in between, and a container that starts anew begins its log anew. The
//! book joins such reads to one text for each attempt, an instance of a replica:
//! `<directory>/<job>/r<index>/<intent>-<instance>.log`. It keeps bytes as they came, so they may
//! hold what a terminal obeys; whoever prints them strips that. What it keeps is bounded: the length
//! of a line, of a file, and how many files there are of a job.

mod news;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::types::ids::{InstanceId, IntentId, JobName, ReplicaId};
use crate::types::instance::Held;
use crate::types::time::{Time, millis};

pub use news::{LINE_BYTES_MAX, LOOK_BACK_BYTES, MISSING, News, news, recent};

/// A file that has grown to more bytes than this is cut to [`FILE_BYTES_KEPT`].
pub const FILE_BYTES_MAX: u64 = 11 * 1024 * 1024;

/// The bytes at its end that are kept of a file that has grown too long.
pub const FILE_BYTES_KEPT: u64 = 10 * 1024 * 1024;

/// Files kept of a job unless [`Book::with_attempts_kept`] says otherwise.
pub const ATTEMPTS_KEPT: usize = 200;

/// The name of the directory beside the database.
const DIRECTORY: &str = "logs";

/// How the name of a log ends.
const ENDING: &str = ".log";

/// How the name of a file ends that is not finished. No log's name ends so.
const UNFINISHED: &str = ".log.new";

/// An instance that ran a replica: what a log is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// What it ran.
    pub replica: ReplicaId,
    /// The intent that made it. Intents grow, so by them attempts are in order.
    pub intent: IntentId,
    /// The instance.
    pub instance: InstanceId,
}

impl Attempt {
    /// That of an instance of ours.
    pub fn of(held: &Held) -> Self {
        Self {
            replica: held.replica.clone(),
            intent: held.intent,
            instance: held.id,
        }
    }

    /// The name of its file. It is made of two numbers, and the directories' names of a job's name,
    /// which has no character but a-z, 0-9 and hyphens, and of a number: so nothing that somebody
    /// else chose leads out of the book's directory.
    fn file_name(&self) -> String {
        format!("{}-{}{ENDING}", self.intent, self.instance)
    }

    /// From a file's name; `None` where it is not one that we would give.
    fn named(replica: &ReplicaId, name: &str) -> Option<Self> {
        let (intent, instance) = name.strip_suffix(ENDING)?.split_once('-')?;
        let attempt = Self {
            replica: replica.clone(),
            intent: intent.parse().ok()?,
            instance: InstanceId(instance.parse().ok()?),
        };
        (attempt.file_name() == name).then_some(attempt)
    }
}

/// A log in the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Of which attempt.
    pub attempt: Attempt,
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was last added to; `None` where the file system does not say.
    pub written: Option<Time>,
}

/// The book. It holds nothing open; one process adds, and any may read meanwhile.
#[derive(Clone, Debug)]
pub struct Book {
    directory: PathBuf,
    attempts_kept: usize,
}

impl Book {
    /// The book in a directory, which is made with the first log that is added.
    pub fn open(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            attempts_kept: ATTEMPTS_KEPT,
        }
    }

    /// The book that belongs to a database: `logs`, in the same directory.
    pub fn of_database(database: &Path) -> Self {
        Self::open(database.with_file_name(DIRECTORY))
    }

    /// The same, keeping so many files of a job, at least one.
    pub fn with_attempts_kept(self, attempts_kept: usize) -> Self {
        Self {
            attempts_kept: attempts_kept.max(1),
            ..self
        }
    }

    /// Adds what is new in a read of an attempt's log, and says how many bytes that were.
    ///
    /// What is new is what comes after what we have: the longest end of it that the read begins
    /// with, or all of it that is looked at, wherever in the read. A line that had no end yet is
    /// completed. Where nothing of it is in the read, lines may be missing in between: [`MISSING`]
    /// stands there, and all of the read follows. A read that brings nothing new adds nothing.
    ///
    /// # Errors
    /// What the file system says, such as [`ErrorKind::StorageFull`]. What could not be added whole
    /// is not there in part, as far as that can be had, and the next read brings it again.
    pub fn add(&self, attempt: &Attempt, read: &[u8]) -> io::Result<usize> {
        if read.is_empty() {
            return Ok(0);
        }
        let path = self.path(attempt);
        make_directory(&self.replica_directory(&attempt.replica))?;
        let mut file =
            private(OpenOptions::new().read(true).write(true).create(true)).open(&path)?;
        let len = file.metadata()?.len();
        let had = end_of(&mut file, len, LOOK_BACK_BYTES as u64)?;
        let new = news(&had, read).bytes;
        append(&mut file, len, &new)?;
        if len + new.len() as u64 > FILE_BYTES_MAX {
            shorten(&mut file, len + new.len() as u64, &path)?;
        }
        if len == 0 {
            self.drop_oldest(attempt)?;
        }
        Ok(new.len())
    }

    /// What is kept of an attempt's log; `None` where nothing is. No more than the end of it that
    /// is kept anyway, whatever was made of the file.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn read(&self, attempt: &Attempt) -> io::Result<Option<Vec<u8>>> {
        let mut file = match File::open(self.path(attempt)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let len = file.metadata()?.len();
        let text = end_of(&mut file, len, FILE_BYTES_MAX)?;
        Ok((!text.is_empty()).then_some(text))
    }

    /// The logs that are kept of a job, those of the oldest attempts first. What else lies in the
    /// directory is passed over.
    ///
    /// # Errors
    /// A directory is there and cannot be read.
    pub fn kept(&self, job: &JobName) -> io::Result<Vec<Kept>> {
        let mut kept = Vec::new();
        for (name, _) in entries(&self.job_directory(job))? {
            let index = name.strip_prefix('r').and_then(|index| index.parse().ok());
            let Some(index) = index else { continue };
            let replica = ReplicaId {
                job: job.clone(),
                index,
            };
            for (name, entry) in entries(&self.replica_directory(&replica))? {
                let Some(attempt) = Attempt::named(&replica, &name) else {
                    continue;
                };
                // It may have been removed since it was listed.
                let Ok(metadata) = entry.metadata() else {
                    continue;
                };
                kept.push(Kept {
                    attempt,
                    bytes: metadata.len(),
                    written: written(&metadata),
                });
            }
        }
        kept.sort_by_key(|kept| (kept.attempt.intent, kept.attempt.instance));
        Ok(kept)
    }

    /// Removes the logs that were not added to for longest, as long as there are too many; never
    /// that of `but`. The order is not that of attempts: one that began long ago may go on.
    fn drop_oldest(&self, but: &Attempt) -> io::Result<()> {
        let mut kept = self.kept(&but.replica.job)?;
        let over = kept.len().saturating_sub(self.attempts_kept);
        kept.retain(|kept| kept.attempt != *but);
        kept.sort_by_key(|kept| (kept.written, kept.attempt.intent, kept.attempt.instance));
        for old in kept.iter().take(over) {
            let path = self.path(&old.attempt);
            remove(&path)?;
            remove(&path.with_extension(&UNFINISHED[1..]))?;
        }
        Ok(())
    }

    fn job_directory(&self, job: &JobName) -> PathBuf {
        self.directory.join(job.as_str())
    }

    fn replica_directory(&self, replica: &ReplicaId) -> PathBuf {
        self.job_directory(&replica.job)
            .join(format!("r{}", replica.index))
    }

    fn path(&self, attempt: &Attempt) -> PathBuf {
        self.replica_directory(&attempt.replica)
            .join(attempt.file_name())
    }
}

/// What was written last, to the beginning of a line: at most so many bytes.
fn end_of(file: &mut File, len: u64, most: u64) -> io::Result<Vec<u8>> {
    // With the byte before, so that it shows whether a line begins there.
    let from = len.saturating_sub(most + 1);
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    Read::take(&mut *file, len - from).read_to_end(&mut text)?;
    if from > 0 {
        let kept = recent(&text, usize::try_from(most).unwrap_or(usize::MAX)).len();
        text.drain(..text.len() - kept);
    }
    Ok(text)
}

/// Writes at the end, all or nothing.
fn append(file: &mut File, len: u64, new: &[u8]) -> io::Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    file.seek(SeekFrom::Start(len))?;
    file.write_all(new).inspect_err(|_| {
        // What was half written would be taken for what was read. Where this fails too, the next
        // read may find it and add it again behind a mark: nothing is lost.
        let _ = file.set_len(len);
    })
}

/// Puts the end of a log in its place, whole or not at all.
fn shorten(file: &mut File, len: u64, path: &Path) -> io::Result<()> {
    let text = end_of(file, len, FILE_BYTES_KEPT)?;
    let unfinished = path.with_extension(&UNFINISHED[1..]);
    let write = || {
        let mut new = private(OpenOptions::new().write(true).create(true).truncate(true))
            .open(&unfinished)?;
        new.write_all(&text)?;
        fs::rename(&unfinished, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&unfinished);
    })
}

/// Only the owner reads what jobs write.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

fn make_directory(directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(directory)
}

/// What is in a directory, by name; nothing where there is none.
fn entries(directory: &Path) -> io::Result<Vec<(String, fs::DirEntry)>> {
    let listed = match fs::read_dir(directory) {
        Ok(listed) => listed,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry));
        }
    }
    Ok(found)
}

fn written(metadata: &fs::Metadata) -> Option<Time> {
    let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Time(millis(since)))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
