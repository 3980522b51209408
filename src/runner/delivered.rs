//! Reading back what was packed, for whoever plays a runner: the embedded marketplace.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::read::GzDecoder;

use super::{BOOTSTRAP, Expected, From, Run};
use crate::types::ids::Label;

/// The script and what it is told are shorter than this, unpacked; what is longer is not ours.
const TEXT_MAX: u64 = 1 << 18;

/// More entries than there can be of a delivery.
const PARTS_MAX: usize = 512;

/// Whether a start script, or an argument of one, begins the run that the environment carries.
pub fn begins_run(script: &str) -> bool {
    script.contains(BOOTSTRAP)
}

impl Run {
    /// Reads what [`Run::deliver`] packed into an environment; `None` where that carries no run, or
    /// none that can be read.
    pub fn delivered(env: &[(String, String)]) -> Option<Self> {
        let text = unpacked(env)?;
        let told = variables(&text)?;
        let text_of = |name: &str| told.get(name).cloned();
        let seconds = |name: &str| {
            let seconds = told.get(name)?.parse().ok()?;
            Some(Duration::from_secs(seconds))
        };
        let expected = match told.get("PREFLIGHT").map(String::as_str) {
            Some("0") => None,
            _ => Some(expected(&told)),
        };
        Some(Self {
            label: Label::parse(told.get("LABEL")?)?,
            generation: told.get("GENERATION")?.parse().ok()?,
            key: text_of("KEY")?,
            command: text_of("COMMAND")?,
            lease: Some(seconds("LEASE")?).filter(|term| !term.is_zero()),
            checkpoint: text_of("CHECKPOINT_DIR"),
            sync_every: seconds("SYNC")?,
            outputs: text_of("OUTPUTS_DIR"),
            progress: text_of("PROGRESS"),
            control: text_of("CONTROL"),
            inputs: match told.get("INPUTS") {
                None => 0,
                Some(number) => number.parse().ok()?,
            },
            fetch: text_of("FETCH"),
            kept: text_of("KEPT"),
            from: match told.get("FROM") {
                None => None,
                Some(run) => Some(From {
                    run: run.parse().ok()?,
                    key: text_of("FROM_KEY")?,
                    dir: text_of("BROUGHT")?,
                }),
            },
            grace: seconds("GRACE")?,
            linger: seconds("LINGER")?,
            looks: (seconds("LOOK_GATE")?, seconds("LOOK")?),
            expected,
        })
    }
}

fn expected(told: &BTreeMap<&str, String>) -> Expected {
    let number = |name: &str| told.get(name)?.parse().ok();
    Expected {
        gpus: number("GPUS"),
        model: told.get("MODEL").cloned(),
        vram: number("VRAM"),
        disk: number("DISK"),
        download: number("DOWN").zip(told.get("SPEED_URL").cloned()),
        percent: number("SHARE").unwrap_or(70),
    }
}

/// Puts the entries together again, as the bootstrap does.
fn unpacked(env: &[(String, String)]) -> Option<String> {
    let mut packed = String::new();
    for number in 0..PARTS_MAX {
        let name = format!("HAGGLE_R{number}");
        let part = env.iter().find(|(key, _)| *key == name);
        let Some((_, part)) = part.filter(|(_, part)| !part.is_empty()) else {
            break;
        };
        packed.push_str(part);
    }
    let bytes = BASE64_STANDARD.decode(packed).ok()?;
    let mut text = Vec::new();
    let mut reader = GzDecoder::new(&bytes[..]).take(TEXT_MAX);
    reader.read_to_end(&mut text).ok()?;
    String::from_utf8(text).ok()
}

/// The assignments before the script's first line, without the names' beginning.
fn variables(text: &str) -> Option<BTreeMap<&str, String>> {
    let mut all = BTreeMap::new();
    let mut rest = text;
    while let Some(after) = rest.strip_prefix("HAGGLE_") {
        let (name, after) = after.split_once('=')?;
        let (value, after) = word(after)?;
        all.insert(name, value);
        rest = after;
    }
    Some(all)
}

/// A word as the packing quotes it, which fills the rest of its line; and what comes after that.
fn word(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('\'')?;
    let mut value = String::new();
    loop {
        let (part, after) = rest.split_once('\'')?;
        value.push_str(part);
        if let Some(after) = after.strip_prefix('\n') {
            return Some((value, after));
        }
        value.push('\'');
        rest = after.strip_prefix("\\''")?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::ids::{Installation, IntentId, ReplicaId};

    fn run(command: &str) -> Run {
        Run {
            label: Label {
                installation: Installation::from_seed(7),
                replica: ReplicaId {
                    job: "train".parse().unwrap(),
                    index: 2,
                },
                intent: IntentId(1_795_478_400_000),
            },
            generation: 3,
            key: "a key".to_owned(),
            command: command.to_owned(),
            lease: Some(Duration::from_hours(2)),
            checkpoint: Some("/w/it's".to_owned()),
            sync_every: Duration::from_mins(10),
            outputs: None,
            progress: Some("/w/progress".to_owned()),
            control: None,
            inputs: 2,
            fetch: Some("input0 https://a/b\ninput0.to /c\n".to_owned()),
            kept: Some("/w/it's.haggle".to_owned()),
            from: Some(From {
                run: IntentId(1_795_478_300_000),
                key: "another key".to_owned(),
                dir: "/w/it's.haggle-brought".to_owned(),
            }),
            grace: Duration::from_secs(30),
            linger: Duration::from_hours(24),
            looks: (Duration::from_secs(10), Duration::from_secs(60)),
            expected: Some(Expected {
                gpus: Some(1),
                model: Some("4090".to_owned()),
                vram: Some(24_564),
                disk: None,
                download: Some((500, "http://a/b".to_owned())),
                percent: 70,
            }),
        }
    }

    proptest! {
        #[test]
        fn what_is_packed_is_read_as_it_was(command in "[ -~\n']{0,300}") {
            let plain = run(&command);
            let free = Run {
                lease: None,
                checkpoint: None,
                inputs: 0,
                fetch: None,
                kept: None,
                from: None,
                progress: None,
                outputs: Some("/w/out".to_owned()),
                expected: None,
                ..plain.clone()
            };
            for run in [plain, free] {
                let env = run.deliver(0).unwrap().env;
                prop_assert_eq!(Run::delivered(&env), Some(run));
            }
        }
    }

    #[test]
    fn what_is_no_delivery_is_none() {
        let env = run("true").deliver(0).unwrap().env;
        assert!(begins_run(&format!("({}) &", super::super::BOOTSTRAP)));
        assert!(!begins_run("exec sh"));
        assert_eq!(Run::delivered(&[]), None);
        assert_eq!(Run::delivered(&env[1..]), None, "the first is missing");
        assert_eq!(Run::delivered(&env[..env.len() - 1]), None, "it was cut");
        let mut other = env;
        other[0].1 = "!".repeat(40);
        assert_eq!(Run::delivered(&other), None);
    }
}
