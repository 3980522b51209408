//! What a supervised job needs on its machine before its command begins.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::hex::hex;

/// Where an input comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// An address that the machine reads itself.
    Address(String),
    /// The key of an object of the job's own bucket.
    Object(String),
    /// A file or a directory where the daemon runs, which it brings to the job's storage.
    Path(PathBuf),
}

impl Source {
    /// The last part of its name; empty where it has none.
    pub fn name(&self) -> String {
        let last = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
        match self {
            Self::Address(address) => {
                let rest = address.split_once("://").map_or("", |(_, rest)| rest);
                let path = rest.split_once('/').map_or("", |(_, path)| path);
                last(path.split(['?', '#']).next().unwrap_or_default())
            }
            Self::Object(key) => last(key),
            Self::Path(path) => path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
        }
    }
}

/// How an archive is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// `.tar`.
    Tar,
    /// `.tar.gz` or `.tgz`.
    TarGz,
}

impl Packing {
    /// By a file's name; `None`: it is no archive that can be unpacked.
    pub fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let ends = |end: &str| name.ends_with(end) && name.len() > end.len();
        if ends(".tar") {
            Some(Self::Tar)
        } else if ends(".tar.gz") || ends(".tgz") {
            Some(Self::TarGz)
        } else {
            None
        }
    }

    /// The word by which the runner knows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::TarGz => "tgz",
        }
    }
}

/// What the daemon has found out about an input, and holds ready for the next rental.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What tells this content from another one: of a local one the SHA-256 of what lies in storage, of
    /// an object what the server says of it.
    pub mark: String,
    /// Its length in bytes, as it is transferred.
    pub bytes: u64,
    /// Whether it is a directory here, which travels as an archive.
    pub is_directory: bool,
}

/// One input, as the policy names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Where it comes from.
    pub from: Source,
    /// Where it goes to: an absolute path without a slash at its end.
    pub to: String,
    /// Whether the policy has a slash at its end: a file goes into that directory by its own name.
    pub into: bool,
    /// The SHA-256 that it has to have, in hexadecimal, as it is before it is unpacked.
    pub sha256: Option<String>,
    /// How it is to be unpacked; `None`: it stays as it is.
    pub packing: Option<Packing>,
    /// What is known of it; of an address nothing has to be.
    #[serde(default)]
    pub found: Option<Found>,
}

impl Input {
    /// Whether it becomes a directory on the machine.
    pub fn is_tree(&self) -> bool {
        let directory = self.found.as_ref().is_some_and(|found| found.is_directory);
        self.packing.is_some() || directory
    }

    /// Where it will be, as far as it is known what it is.
    pub fn place(&self) -> String {
        if self.into && !self.is_tree() {
            format!("{}/{}", self.to.trim_end_matches('/'), self.from.name())
        } else {
            self.to.clone()
        }
    }

    /// How the machine is to unpack what it gets.
    pub fn unpacks(&self) -> Option<Packing> {
        match &self.found {
            Some(found) if found.is_directory => Some(Packing::Tar),
            _ => self.packing,
        }
    }

    /// The SHA-256 that what the machine gets must have, where it is known.
    pub fn sum(&self) -> Option<&str> {
        match (&self.from, &self.found) {
            (Source::Path(_), Some(found)) => Some(&found.mark),
            _ => self.sha256.as_deref(),
        }
    }

    /// Its length in bytes as it is transferred, where it is known.
    pub fn bytes(&self) -> Option<u64> {
        self.found.as_ref().map(|found| found.bytes)
    }

    /// Whether all is known that a machine has to be told.
    pub fn is_ready(&self) -> bool {
        matches!(self.from, Source::Address(_)) || self.found.is_some()
    }

    /// What tells this input from another one at the same place: a machine that has it already does not
    /// get it again. In hexadecimal.
    pub fn identity(&self) -> String {
        let what = match (&self.from, &self.found) {
            // The same content is the same, wherever it came from.
            (Source::Path(_), Some(found)) => format!("sum {}", found.mark),
            (from, found) => format!("{from:?} {:?} {found:?}", self.sha256),
        };
        let unpacks = self.unpacks().map_or("", Packing::as_str);
        hex(&Sha256::digest(format!("{what} {unpacks}"))[..16])
    }

    /// In words, for messages: where it comes from.
    pub fn origin(&self) -> String {
        match &self.from {
            Source::Address(address) => {
                // What follows the path may be more than a place.
                address
                    .split(['?', '#'])
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            }
            Source::Object(key) => format!("storage:{key}"),
            Source::Path(path) => path.display().to_string(),
        }
    }
}

/// Two inputs that would be in each other's way: their numbers, from 0, and where. One is in the way of
/// another at the same place, or inside of a directory that is replaced as a whole.
pub fn in_the_way(inputs: &[Input]) -> Option<(usize, usize, String)> {
    for (number, input) in inputs.iter().enumerate() {
        let place = input.place();
        for (earlier, other) in inputs[..number].iter().enumerate() {
            let of_other = other.place();
            let inside = (other.is_tree() && is_below(&place, &of_other))
                || (input.is_tree() && is_below(&of_other, &place));
            if place == of_other || inside {
                return Some((earlier, number, place));
            }
        }
    }
    None
}

/// Whether a path is below another one.
pub fn is_below(path: &str, directory: &str) -> bool {
    let directory = directory.trim_end_matches('/');
    path.strip_prefix(directory)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// A path of a policy, which is relative to the folder of its file.
pub fn beside(policy: &Path, path: &Path) -> PathBuf {
    match policy.parent() {
        Some(folder) => folder.join(path),
        None => path.to_owned(),
    }
}

/// An amount of data in words: whole units of 1000.
pub fn size(bytes: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "KB")];
    match units.into_iter().find(|&(unit, _)| bytes >= unit) {
        Some((unit, word)) => {
            let tenths = bytes / (unit / 10);
            format!("{}.{} {word}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(from: Source, to: &str) -> Input {
        Input {
            from,
            to: to.trim_end_matches('/').to_owned(),
            into: to.ends_with('/'),
            sha256: None,
            packing: None,
            found: None,
        }
    }

    fn address(text: &str, to: &str) -> Input {
        input(Source::Address(text.to_owned()), to)
    }

    #[test]
    fn a_name_is_the_last_part_of_the_path() {
        for (from, name) in [
            ("https://a.example/x/model.bin?download=true", "model.bin"),
            ("https://a.example/x/#y", ""),
            ("https://a.example", ""),
        ] {
            assert_eq!(Source::Address(from.to_owned()).name(), name, "{from}");
        }
        assert_eq!(Source::Object("a/b.tar".to_owned()).name(), "b.tar");
        assert_eq!(Source::Path("../data".into()).name(), "data");
        assert_eq!(Packing::of("A.TGZ"), Some(Packing::TarGz));
        assert_eq!(Packing::of("a.tar"), Some(Packing::Tar));
        assert_eq!((Packing::of(".tar"), Packing::of("a.zip")), (None, None));
    }

    #[test]
    fn a_place_is_a_directory_where_it_is_said_or_found_to_be_one() {
        assert_eq!(address("https://a/b/c", "/d/").place(), "/d/c");
        assert_eq!(address("https://a/b/c", "/d").place(), "/d");
        let mut packed = address("https://a/b/c.tar", "/d/");
        packed.packing = Some(Packing::Tar);
        assert_eq!(packed.place(), "/d");
        let mut found = input(Source::Path("c".into()), "/d/");
        assert_eq!(
            (found.place(), found.is_ready()),
            ("/d/c".to_owned(), false)
        );
        found.found = Some(Found {
            mark: "ab".to_owned(),
            bytes: 7,
            is_directory: true,
        });
        assert_eq!((found.place(), found.is_ready()), ("/d".to_owned(), true));
        assert_eq!(
            (found.unpacks(), found.sum()),
            (Some(Packing::Tar), Some("ab"))
        );
    }

    #[test]
    fn what_is_replaced_as_a_whole_has_nothing_else_in_it() {
        let file = |to: &str| address("https://a/b/c", to);
        let mut tree = file("/w/d");
        tree.packing = Some(Packing::Tar);
        assert_eq!(in_the_way(&[file("/w/"), file("/w/d")]), None);
        let both = in_the_way(&[file("/x"), file("/w/"), file("/w/c")]);
        assert_eq!(both, Some((1, 2, "/w/c".to_owned())));
        for all in [
            [file("/w/d/x"), tree.clone()],
            [tree.clone(), file("/w/d/x")],
        ] {
            assert!(in_the_way(&all).is_some());
        }
        assert_eq!(in_the_way(&[tree, file("/w/dx")]), None);
    }

    #[test]
    fn another_content_is_another_input() {
        let plain = address("https://a/b", "/d");
        let mut summed = plain.clone();
        summed.sha256 = Some("ab".to_owned());
        assert_ne!(plain.identity(), summed.identity());
        let mut here = input(Source::Path("c".into()), "/d");
        let found = |mark: &str| {
            Some(Found {
                mark: mark.to_owned(),
                bytes: 7,
                is_directory: false,
            })
        };
        here.found = found("ab");
        let first = here.identity();
        here.from = Source::Path("elsewhere".into());
        assert_eq!(here.identity(), first);
        here.found = found("cd");
        assert_ne!(here.identity(), first);
    }

    #[test]
    fn sizes_in_words() {
        for (bytes, words) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1_050, "1.0 KB"),
            (2_340_000, "2.3 MB"),
            (5_368_709_120, "5.3 GB"),
        ] {
            assert_eq!(size(bytes), words);
        }
    }
}
