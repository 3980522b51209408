//! What a run tells, as lines of its log.

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::types::hex::hex;

/// What every such line begins with.
const MARK: &str = "HAGGLE ";

/// A longer line is none of ours.
const LINE_MAX: usize = 4096;

/// One line of a run. All of it is the word of a machine that is not ours: the signature shows that
/// the run's key made it, and the host has that, too.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Told {
    /// The version of the format.
    pub v: u32,
    /// The number of the rent.
    pub run: String,
    /// The generation.
    pub generation: u64,
    /// Which start of the container this is: numbers begin again with each.
    pub boot: String,
    /// The number of the line.
    pub seq: u64,
    /// `boot`, `gate`, `preflight`, `refused`, `fetching`, `restoring`, `running`, `saving`, `result`, `ending`,
    /// `ended`, `forgotten` or `trouble`.
    pub state: String,
    /// Seconds of Unix time, by the marketplace's clock; 0 before it was read.
    pub at: i64,
    /// How far the command says that it is.
    pub progress: Option<f64>,
    /// The last checkpoint that was kept elsewhere.
    pub checkpoint: Option<Kept>,
    /// The command's exit code; over 128, the signal and 128.
    pub exit: Option<i32>,
    /// Why it waits or ends.
    #[serde(default)]
    pub why: Option<String>,
    /// What failed.
    #[serde(default)]
    pub trouble: Option<String>,
    /// What the image lacks, in words; empty: nothing.
    #[serde(default)]
    pub lacks: Option<String>,
    /// The SHA-256 of the manifest of a checkpoint that is not what it should be.
    #[serde(default)]
    pub restore: Option<String>,
    /// How far it is with its inputs, or what it is about one that cannot be had.
    #[serde(default)]
    pub fetch: Option<Fetch>,
    /// What it waits for behind its gate: `copy`.
    #[serde(default)]
    pub waits: Option<String>,
    /// The checkpoint of another run that was copied to its disk and is as it should be.
    #[serde(default)]
    pub brought: Option<Brought>,
    /// Where the outputs are, with the result: `"here"`, or what was kept elsewhere.
    #[serde(default)]
    pub outputs: Option<Place>,
    /// What is broken of the machine, with the result of a command that failed: `gpu-lost` or
    /// `gpu-ecc`.
    #[serde(default)]
    pub fault: Option<String>,
    /// Its disk, MB/s, as measured before the command.
    #[serde(default)]
    pub disk: Option<u32>,
    /// Its download, Mbit/s, as measured before the command.
    #[serde(default)]
    pub down: Option<u32>,
    /// What of the machine was refused; empty: nothing.
    #[serde(default)]
    pub bad: Option<String>,
    /// Whether the signature is right.
    #[serde(skip)]
    pub signed: bool,
}

/// Where outputs are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Place {
    /// Elsewhere.
    Kept(Kept),
    /// `here`: on the instance's disk.
    Word(String),
}

/// What was kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Kept {
    /// In which of the places for checkpoints.
    #[serde(default)]
    pub slot: u8,
    /// The SHA-256 of its manifest, in hexadecimal.
    pub manifest: String,
    /// Bytes of the archive.
    pub bytes: u64,
}

/// An input that is on its way, or does not come.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Fetch {
    /// Which, from 1 on.
    pub input: u32,
    /// How many KB of it are there; `None`: it is not said, for none come in now.
    #[serde(default)]
    pub kb: Option<u64>,
    /// Why it cannot be had; `None`: it is on its way.
    #[serde(default)]
    pub fault: Option<Fault>,
}

/// Why an input cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Whoever has it does not give it: there is no such thing, or it is not to be had without a login.
    Refused,
    /// What came is not what it should be.
    Wrong,
    /// It cannot be put where it is to go: the image has something else there, or the disk has no room.
    Place,
    /// It came whole, and is longer or shorter than it was when it was looked up.
    Changed,
    /// It could not be read.
    Unread,
    /// Another reason, of a newer runner.
    #[serde(other)]
    Other,
}

impl Fault {
    /// Whether it is about the job, and would be the same on every machine.
    pub fn is_of_job(self) -> bool {
        matches!(self, Self::Refused | Self::Wrong | Self::Place)
    }
}

/// A checkpoint of another run on this one's disk.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Brought {
    /// That run.
    pub run: String,
    /// The SHA-256 of its manifest, in hexadecimal.
    pub manifest: String,
    /// Bytes of its archive.
    pub bytes: u64,
}

/// Reads a line of a log; `None` where it is none of a run's. `key` is that of the run.
pub fn told(line: &str, key: &str) -> Option<Told> {
    let rest = line.strip_prefix(MARK).filter(|_| line.len() <= LINE_MAX)?;
    let (document, signature) = rest.trim_end().rsplit_once(' ')?;
    let mut told: Told = serde_json::from_str(document).ok()?;
    told.signed = signature == signature_of(document, key);
    Some(told)
}

/// With what a run signs the manifests that it leaves on its disk. The run that goes on from there is given
/// it, and cannot sign the other's lines with it.
pub fn kept_key(key: &str) -> String {
    signature_of("kept", key)
}

/// A document as a line of a run, signed with the key of that.
pub fn signed(document: &str, key: &str) -> String {
    format!("{MARK}{document} {}", signature_of(document, key))
}

/// The key before and after it, so that nothing can be appended under the same signature.
fn signature_of(document: &str, key: &str) -> String {
    hex(&Sha256::digest(format!("{key}\n{document}\n{key}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{"v":1,"run":"5","generation":3,"boot":"7.1","seq":2,"state":"running","at":9,"progress":0.5,"checkpoint":{"slot":1,"manifest":"ab","bytes":10},"exit":null}"#;

    #[test]
    fn a_line_is_read_and_its_signature_tried() {
        let line = signed(DOCUMENT, "k");
        let read = told(&line, "k").unwrap();
        assert!(read.signed);
        assert_eq!((read.seq, read.progress, read.exit), (2, Some(0.5), None));
        assert!(!told(&line, "another").unwrap().signed);
        let changed = line.replace("0.5", "0.9");
        assert!(!told(&changed, "k").unwrap().signed);
    }

    #[test]
    fn what_was_brought_names_its_run() {
        let with = DOCUMENT.replace(
            "null}",
            r#"null,"brought":{"run":"4","manifest":"ab","bytes":7}}"#,
        );
        let brought = told(&format!("HAGGLE {with} x"), "k")
            .unwrap()
            .brought
            .unwrap();
        assert_eq!((brought.run.as_str(), brought.bytes), ("4", 7));
        assert_ne!(kept_key("k"), kept_key("l"));
    }

    #[test]
    fn outputs_are_here_or_elsewhere() {
        let with = |what: &str| {
            let document = DOCUMENT.replace("null}", &format!("0,\"outputs\":{what}}}"));
            told(&format!("HAGGLE {document} x"), "k").unwrap().outputs
        };
        assert_eq!(with("null"), None);
        assert_eq!(with("\"here\""), Some(Place::Word("here".to_owned())));
        let Some(Place::Kept(kept)) = with(r#"{"manifest":"ab","bytes":7}"#) else {
            panic!("they are elsewhere");
        };
        assert_eq!((kept.manifest.as_str(), kept.bytes), ("ab", 7));
    }

    #[test]
    fn what_is_no_line_of_a_run_is_none() {
        let long = format!("HAGGLE {DOCUMENT}{} x", " ".repeat(LINE_MAX));
        for line in ["", "HAGGLE", "HAGGLE x", "HAGGLE {} x", "step 1", &long] {
            assert_eq!(told(line, "k"), None, "{line}");
        }
    }
}
