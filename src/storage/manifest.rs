//! The manifest of a directory that a run kept. `run.sh` writes it after the archive:
//!
//! ```text
//! haggle 1 RUN SHA256 SIZE        the run, and the archive's sum and bytes
//! SHA256 SIZE ./PATH              one line a file
//! ```
//!
//! It comes from a machine that is not ours. What it says is believed of nothing but itself.

use std::collections::BTreeSet;

use super::Sum;
use crate::types::ids::IntentId;

/// The largest manifest that is read, in bytes: some 150,000 files.
pub const MANIFEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of a path, and of one name in it.
const PATH_MAX: usize = 2048;
const NAME_MAX: usize = 255;

/// A file that a manifest lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its SHA-256.
    pub sum: Sum,
    /// Its bytes.
    pub size: u64,
    /// Where it is in the directory: relative, without `.` and `..`.
    pub path: String,
}

/// What a kept directory is, by the word of the machine that kept it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The run that wrote it.
    pub run: IntentId,
    /// The archive's SHA-256.
    pub archive: Sum,
    /// The archive's bytes.
    pub size: u64,
    files: Vec<Listed>,
    total: u64,
}

/// Why a manifest is none. No text of the manifest is shown but numbers of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is another one.
    #[error(
        "the manifest is not the one that the run told of: its SHA-256 is {found}, not {expected}"
    )]
    Sum {
        /// What was told.
        expected: Sum,
        /// What there is.
        found: Sum,
    },
    /// Too many bytes.
    #[error("the manifest has more than {} MiB", MANIFEST_BYTES_MAX / 1024 / 1024)]
    Large,
    /// It ends in the middle of a line, or has none.
    #[error("the manifest is cut off: its last line has no end")]
    CutOff,
    /// The first line.
    #[error("line 1 of the manifest is not `haggle 1 RUN SHA256 SIZE`")]
    Head,
    /// Another line.
    #[error("line {0} of the manifest is not `SHA256 SIZE PATH`")]
    Line(usize),
    /// A path that is not taken.
    #[error("line {line} of the manifest: the path {why}")]
    Path {
        /// The line.
        line: usize,
        /// Why.
        why: PathFault,
    },
    /// A path twice, or one that is a file and a directory.
    #[error("line {0} of the manifest: the path is listed twice, or is a directory of another one")]
    Twice(usize),
    /// More bytes than there are numbers for.
    #[error("line {0} of the manifest: the files together have more bytes than can be")]
    Total(usize),
}

/// Why a path is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// Nothing.
    #[error("is empty, or a part of it is")]
    Empty,
    /// From the root.
    #[error("is absolute")]
    Absolute,
    /// Upwards, or in place.
    #[error("has a part that is `.` or `..`")]
    Dots,
    /// Characters that do something.
    #[error("has control characters")]
    Control,
    /// More than a file system takes.
    #[error("is longer than {PATH_MAX} bytes, or a part of it than {NAME_MAX}")]
    Long,
    /// Bytes that are no text.
    #[error("is not UTF-8")]
    NotText,
}

/// A path in an archive or a manifest, without the `./` that `find` and `tar` put before it.
pub(super) fn clean_path(path: &[u8]) -> Result<&str, PathFault> {
    let text = std::str::from_utf8(path).map_err(|_| PathFault::NotText)?;
    let text = text.strip_prefix("./").unwrap_or(text);
    if text.starts_with('/') {
        return Err(PathFault::Absolute);
    }
    if text.len() > PATH_MAX {
        return Err(PathFault::Long);
    }
    if text.contains(char::is_control) {
        return Err(PathFault::Control);
    }
    for part in text.split('/') {
        match part {
            "" => return Err(PathFault::Empty),
            "." | ".." => return Err(PathFault::Dots),
            _ if part.len() > NAME_MAX => return Err(PathFault::Long),
            _ => {}
        }
    }
    Ok(text)
}

impl Manifest {
    /// Reads one.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::Large);
        }
        let lines = bytes.strip_suffix(b"\n").ok_or(ManifestError::CutOff)?;
        let mut lines = lines.split(|b| *b == b'\n');
        let head = lines.next().and_then(head).ok_or(ManifestError::Head)?;
        let (run, archive, size) = head;
        let mut manifest = Self {
            run,
            archive,
            size,
            files: Vec::new(),
            total: 0,
        };
        for (number, line) in (2..).zip(lines) {
            manifest.add(number, line)?;
        }
        manifest.has_each_once()?;
        Ok(manifest)
    }

    /// Reads one that must have a SHA-256, as a run told it.
    pub fn verify(bytes: &[u8], expected: Sum) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::Large);
        }
        let found = Sum::of(bytes);
        if found != expected {
            return Err(ManifestError::Sum { expected, found });
        }
        Self::parse(bytes)
    }

    /// What its first line says: the run, and the bytes of the archive. `None`: it is no such line.
    pub fn head(bytes: &[u8]) -> Option<(IntentId, u64)> {
        let line = bytes.split(|byte| *byte == b'\n').next()?;
        head(line).map(|(run, _, size)| (run, size))
    }

    /// The files, in the order of their lines.
    pub fn files(&self) -> &[Listed] {
        &self.files
    }

    /// Bytes of all files together.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn add(&mut self, number: usize, line: &[u8]) -> Result<(), ManifestError> {
        let mut parts = line.splitn(3, |b| *b == b' ');
        let mut next = || parts.next().ok_or(ManifestError::Line(number));
        let (sum, size, path) = (next()?, next()?, next()?);
        let (Some(sum), Some(size)) = (sum_of(sum), number_of(size)) else {
            return Err(ManifestError::Line(number));
        };
        let path = clean_path(path).map_err(|why| ManifestError::Path { line: number, why })?;
        let total = self.total.checked_add(size);
        self.total = total.ok_or(ManifestError::Total(number))?;
        self.files.push(Listed {
            sum,
            size,
            path: path.to_owned(),
        });
        Ok(())
    }

    fn has_each_once(&self) -> Result<(), ManifestError> {
        let mut paths = BTreeSet::new();
        for (number, file) in (2..).zip(&self.files) {
            if !paths.insert(file.path.as_str()) {
                return Err(ManifestError::Twice(number));
            }
        }
        for (number, file) in (2..).zip(&self.files) {
            let above = file.path.match_indices('/').map(|(at, _)| &file.path[..at]);
            for directory in above {
                if paths.contains(directory) {
                    return Err(ManifestError::Twice(number));
                }
            }
        }
        Ok(())
    }
}

fn head(line: &[u8]) -> Option<(IntentId, Sum, u64)> {
    let line = std::str::from_utf8(line).ok()?.strip_prefix("haggle 1 ")?;
    let parts: Vec<&str> = line.splitn(4, ' ').collect();
    let &[run, sum, size] = parts.as_slice() else {
        return None;
    };
    Some((
        run.parse().ok()?,
        sum.parse().ok()?,
        number_of(size.as_bytes())?,
    ))
}

fn sum_of(text: &[u8]) -> Option<Sum> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Digits only: no sign, and no zeros before.
fn number_of(text: &[u8]) -> Option<u64> {
    let digits = text.iter().all(u8::is_ascii_digit);
    let plain = digits && (text.len() == 1 || text.first() != Some(&b'0'));
    let text = std::str::from_utf8(text).ok().filter(|_| plain)?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(of: &str) -> Sum {
        Sum::of(of.as_bytes())
    }

    fn with(lines: &str) -> Vec<u8> {
        format!("haggle 1 5 {} 10240\n{lines}", sum("archive")).into_bytes()
    }

    #[test]
    fn reads_what_the_runner_writes() {
        let (a, b) = (sum("a"), sum("b"));
        let bytes = with(&format!("{a} 1 ./a file\n{b} 4294967297 ./deep/er/ü.bin\n"));
        let manifest = Manifest::parse(&bytes).unwrap();
        assert_eq!(manifest.run, IntentId(5));
        assert_eq!(manifest.archive, sum("archive"));
        assert_eq!((manifest.size, manifest.total()), (10240, 4294967298));
        let files: Vec<_> = manifest
            .files()
            .iter()
            .map(|f| (f.sum, f.size, f.path.as_str()))
            .collect();
        assert_eq!(files, [(a, 1, "a file"), (b, 4294967297, "deep/er/ü.bin")]);
        // A directory may be empty.
        let empty = Manifest::parse(&with("")).unwrap();
        assert_eq!((empty.files().len(), empty.total()), (0, 0));
    }

    #[test]
    fn another_manifest_than_was_told_of_is_refused() {
        let bytes = with("");
        assert!(Manifest::verify(&bytes, Sum::of(&bytes)).is_ok());
        let other = with(&format!("{} 1 ./a\n", sum("a")));
        let error = Manifest::verify(&other, Sum::of(&bytes)).unwrap_err();
        let (expected, found) = (Sum::of(&bytes), Sum::of(&other));
        assert_eq!(error, ManifestError::Sum { expected, found });
        // The right sum makes nothing good that is not.
        assert_eq!(
            Manifest::verify(b"x\n", Sum::of(b"x\n")),
            Err(ManifestError::Head)
        );
    }

    #[test]
    fn heads_that_are_none() {
        let sum = sum("archive");
        for bad in [
            String::new(),
            "haggle 2 5 x 1".to_owned(),
            format!("haggle 1 5 {sum}"),
            format!("haggle 1  {sum} 1"),
            format!("haggle 1 ../5 {sum} 1"),
            format!("haggle 1 5 {sum} -1"),
            format!("haggle 1 5 {sum} 01"),
            format!("haggle 1 5 {sum} "),
            format!("haggle 1 5 {sum} 1 2"),
            format!("haggle 1 5 {sum} 18446744073709551616"),
            format!("haggle 1 5 {sum}0 1"),
        ] {
            let parsed = Manifest::parse(format!("{bad}\n").as_bytes());
            assert_eq!(parsed, Err(ManifestError::Head), "{bad}");
        }
        assert_eq!(Manifest::parse(b""), Err(ManifestError::CutOff));
    }

    #[test]
    fn lines_that_are_none() {
        let sum = sum("a");
        let path = |why| ManifestError::Path { line: 2, why };
        let name = "n".repeat(256);
        let long = "n/".repeat(1024) + "n";
        for (line, expected) in [
            (String::new(), ManifestError::Line(2)),
            (format!("{sum} 1"), ManifestError::Line(2)),
            (format!("\\{sum} 1 ./a\\\\b"), ManifestError::Line(2)),
            (format!("{sum} +1 ./a"), ManifestError::Line(2)),
            (format!("{sum}  ./a"), ManifestError::Line(2)),
            (format!("{sum} 1 "), path(PathFault::Empty)),
            (format!("{sum} 1 ./"), path(PathFault::Empty)),
            (format!("{sum} 1 a//b"), path(PathFault::Empty)),
            (format!("{sum} 1 a/"), path(PathFault::Empty)),
            (format!("{sum} 1 /etc/passwd"), path(PathFault::Absolute)),
            (format!("{sum} 1 .//etc/passwd"), path(PathFault::Absolute)),
            (format!("{sum} 1 .."), path(PathFault::Dots)),
            (format!("{sum} 1 ./../a"), path(PathFault::Dots)),
            (format!("{sum} 1 a/../../b"), path(PathFault::Dots)),
            (format!("{sum} 1 ././a"), path(PathFault::Dots)),
            (format!("{sum} 1 a\rb"), path(PathFault::Control)),
            (format!("{sum} 1 a\0"), path(PathFault::Control)),
            (format!("{sum} 1 a\x1b[2J"), path(PathFault::Control)),
            (format!("{sum} 1 a\u{9b}2J"), path(PathFault::Control)),
            (format!("{sum} 1 {name}"), path(PathFault::Long)),
            (format!("{sum} 1 {long}"), path(PathFault::Long)),
            (format!("{sum} 1 a\n{sum} 1 ./a"), ManifestError::Twice(3)),
            (format!("{sum} 1 a/b/c\n{sum} 1 a"), ManifestError::Twice(2)),
            (format!("{sum} 1 a\n{sum} 1 a/b"), ManifestError::Twice(3)),
            (
                format!("{sum} {} a\n{sum} 1 b", u64::MAX),
                ManifestError::Total(3),
            ),
        ] {
            let parsed = Manifest::parse(&with(&format!("{line}\n")));
            assert_eq!(parsed, Err(expected), "{line:?}");
        }
        let mut bytes = with(&format!("{sum} 1 a"));
        assert_eq!(Manifest::parse(&bytes), Err(ManifestError::CutOff));
        bytes.extend_from_slice(b"\xff\n");
        let parsed = Manifest::parse(&bytes);
        assert_eq!(parsed, Err(path(PathFault::NotText)));
    }

    #[test]
    fn a_manifest_without_end_is_refused() {
        let mut bytes = with("");
        bytes.resize(MANIFEST_BYTES_MAX, b'\n');
        assert_eq!(Manifest::parse(&bytes), Err(ManifestError::Line(2)));
        bytes.push(b'\n');
        assert_eq!(Manifest::parse(&bytes), Err(ManifestError::Large));
        let verified = Manifest::verify(&bytes, Sum::of(&bytes));
        assert_eq!(verified, Err(ManifestError::Large));
    }

    proptest! {
        #[test]
        fn whatever_it_reads_stays_inside(lines in "([./a]{0,9}\n){0,3}") {
            let listed: Vec<String> = lines.lines().map(|l| format!("{} 1 {l}\n", sum("x"))).collect();
            let Ok(manifest) = Manifest::parse(&with(&listed.concat())) else { return Ok(()) };
            let root = std::path::Path::new("/root/of/it");
            for file in manifest.files() {
                let whole = root.join(&file.path);
                prop_assert!(whole.starts_with(root));
                prop_assert!(whole.components().all(|c| c != std::path::Component::ParentDir));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Manifest::parse(&bytes);
            let _ = Manifest::parse(&[with("").as_slice(), &bytes].concat());
        }
    }
}
