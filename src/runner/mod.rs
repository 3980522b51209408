//! What runs on a rented machine: a shell script that waits for its instance's label to say `go`,
//! tries the machine, restores, runs the command, keeps its checkpoints and outputs elsewhere, and
//! ends the instance where nobody renews its lease. `docs/runner.md` has the protocol.

mod delivered;
mod inputs;
mod key;
mod marks;
mod told;

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::types::ids::{IntentId, Label};
pub use delivered::begins_run;
pub use inputs::{fetch_lines, input_lines};
pub use key::{key_of, secret_in};
pub use marks::gpu_mark;
pub use told::{Brought, Fault, Fetch, Kept, Place, Told, kept_key, signed, told};

/// The script: POSIX shell.
pub const SCRIPT: &str = include_str!("run.sh");

/// An entry of the environment holds its name and its value in so many characters, as documented.
const ENTRY_MAX: usize = 256;

/// All of them together in so many, as documented.
const ENTRIES_MAX: usize = 32_768;

/// What puts the script together again and becomes it. It reads what is needed from the environment
/// and takes it out of there, so that the command does not inherit it.
const BOOTSTRAP: &str = "i=0;s=;while eval \"c=\\${HAGGLE_R$i-}\";[ -n \"$c\" ];do s=$s$c;unset \
                         HAGGLE_R$i;i=$((i+1));done;exec sh -c \"$(printf %s \"$s\"|base64 -d|\
                         gzip -dc)\" haggle";

/// What a machine is expected to have; what is not given is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// GPUs.
    pub gpus: Option<u32>,
    /// The model, or a part of its name.
    pub model: Option<String>,
    /// Memory of one GPU, in MiB.
    pub vram: Option<u32>,
    /// Disk bandwidth, in MB/s.
    pub disk: Option<u32>,
    /// Download speed, in Mbit/s, and a URL to try it with.
    pub download: Option<(u32, String)>,
    /// The share of it that suffices, in percent.
    pub percent: u32,
}

/// One run of a command on one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The instance's label, without the part that changes.
    pub label: Label,
    /// The generation that the label must carry for this instance to work.
    pub generation: u64,
    /// With what the lines that it writes are signed.
    pub key: String,
    /// The command, for `sh -c`.
    pub command: String,
    /// The length of a term: so long after the lease's end the instance destroys itself. `None`:
    /// it works whatever its label says.
    pub lease: Option<Duration>,
    /// The directory that is kept and restored.
    pub checkpoint: Option<String>,
    /// How often it is kept.
    pub sync_every: Duration,
    /// The directory of results.
    pub outputs: Option<String>,
    /// The file in which the command says how far it is: the last line is a number.
    pub progress: Option<String>,
    /// Where the control document is, which says where data goes.
    pub control: Option<String>,
    /// How many inputs it has.
    pub inputs: u32,
    /// What is to be known of them, where there is no control document that says it.
    pub fetch: Option<String>,
    /// Where the last whole checkpoint stays, on its own disk, where there is no storage.
    pub kept: Option<String>,
    /// Another run's checkpoint that it is to begin with, and waits for behind its gate.
    pub from: Option<From>,
    /// How long a command that is asked to end may take.
    pub grace: Duration,
    /// How long a result waits to be taken.
    pub linger: Duration,
    /// How often the label is looked at: while it waits, and while it works.
    pub looks: (Duration, Duration),
    /// What the machine should have; `None`: it is not tried.
    pub expected: Option<Expected>,
}

/// A checkpoint that the marketplace copies from another disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// The run that left it there.
    pub run: IntentId,
    /// With what that one signed it: its [`kept_key`].
    pub key: String,
    /// The directory that it is copied to.
    pub dir: String,
}

/// What is given to a create so that the run happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// For `/bin/sh -c`, or as a start script.
    pub bootstrap: &'static str,
    /// Entries of the environment.
    pub env: Vec<(String, String)>,
}

/// The script and what it is told do not fit into the environment of an instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the runner and its command take {characters} characters of environment, {most} are to be had"
)]
pub struct TooLarge {
    /// What they take.
    pub characters: usize,
    /// What there is.
    pub most: usize,
}

impl Run {
    /// Packs the run. `others` is what the environment's other entries take, in characters.
    ///
    /// # Errors
    /// [`TooLarge`] where it does not fit beside them.
    pub fn deliver(&self, others: usize) -> Result<Delivery, TooLarge> {
        let text = format!("{}{}", self.settings(), stripped(SCRIPT));
        let packed = BASE64_STANDARD.encode(compressed(text.as_bytes()));
        let mut env = Vec::new();
        let mut rest = packed.as_str();
        while !rest.is_empty() {
            let name = format!("HAGGLE_R{}", env.len());
            let (part, after) = rest.split_at(rest.len().min(ENTRY_MAX - 16));
            env.push((name, part.to_owned()));
            rest = after;
        }
        let characters: usize = env.iter().map(|(name, part)| name.len() + part.len()).sum();
        let most = ENTRIES_MAX.saturating_sub(others);
        if characters > most {
            return Err(TooLarge { characters, most });
        }
        Ok(Delivery {
            bootstrap: BOOTSTRAP,
            env,
        })
    }

    /// The number of its rent, as its lines name it.
    pub fn number(&self) -> String {
        self.label.intent.to_string()
    }

    /// What the script is told, as assignments before its first line.
    fn settings(&self) -> String {
        let seconds = |span: Duration| span.as_secs().to_string();
        let mut all = vec![
            ("LABEL", self.label.to_string()),
            ("GENERATION", self.generation.to_string()),
            ("RUN", self.number()),
            ("KEY", self.key.clone()),
            ("COMMAND", self.command.clone()),
            ("LEASE", self.lease.map_or("0".to_owned(), seconds)),
            ("SYNC", seconds(self.sync_every)),
            ("GRACE", seconds(self.grace)),
            ("LINGER", seconds(self.linger)),
            ("LOOK_GATE", seconds(self.looks.0)),
            ("LOOK", seconds(self.looks.1)),
        ];
        let mut given = |name, value: Option<String>| all.extend(value.map(|value| (name, value)));
        given("CHECKPOINT_DIR", self.checkpoint.clone());
        given("OUTPUTS_DIR", self.outputs.clone());
        given("PROGRESS", self.progress.clone());
        given("CONTROL", self.control.clone());
        given("INPUTS", (self.inputs > 0).then(|| self.inputs.to_string()));
        given("FETCH", self.fetch.clone());
        given("KEPT", self.kept.clone());
        if let Some(from) = &self.from {
            given("FROM", Some(from.run.to_string()));
            given("FROM_KEY", Some(from.key.clone()));
            given("BROUGHT", Some(from.dir.clone()));
        }
        match &self.expected {
            None => given("PREFLIGHT", Some("0".to_owned())),
            Some(expected) => {
                given("SHARE", Some(expected.percent.to_string()));
                given("GPUS", expected.gpus.map(|gpus| gpus.to_string()));
                given("MODEL", expected.model.clone());
                given("VRAM", expected.vram.map(|vram| vram.to_string()));
                given("DISK", expected.disk.map(|disk| disk.to_string()));
                if let Some((speed, url)) = &expected.download {
                    given("DOWN", Some(speed.to_string()));
                    given("SPEED_URL", Some(url.clone()));
                }
            }
        }
        all.iter().fold(String::new(), |mut text, (name, value)| {
            // Writing to a String does not fail.
            let _ = writeln!(text, "HAGGLE_{name}={}", quoted(value));
            text
        })
    }
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The script without its comments. Indentation stays: there is Python in it.
fn stripped(script: &str) -> String {
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("# ");
    let mut text = String::new();
    for line in script.lines().filter(is_code) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}
