//! What a policy says of haggle's runner: what belongs together, and whether it fits.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

use super::super::reader::Reading;
use super::super::sets::RESERVED;
use super::array;
use super::inputs;
use super::run::{ENV_TOTAL_MAX, env_characters};
use crate::runner::{self, fetch_lines};
use crate::types::ids::{Installation, IntentId, JobName, Label, ReplicaId};
use crate::types::job::{CheckpointPlace, Finish, RunType, Runner, Storage, looks};
use crate::types::time::human;

/// What is for the runner alone.
const FOR_IT: [&str; 13] = [
    "run.fenced",
    "run.lease",
    "run.progress",
    "run.hung_after",
    "run.silent_after",
    "run.preflight",
    "run.grace",
    "run.linger",
    "data.checkpoint",
    "data.outputs",
    "data.sync_every",
    "data.storage",
    "data.inputs",
];

/// A signed address of a control document is not longer, in characters.
const ADDRESS_MAX: usize = 1024;

/// Nor is the key that the runner signs its lines with.
const KEY_MAX: usize = 64;

/// Notes what is wrong with it.
pub(super) fn check(reading: &mut Reading) {
    match reading.supervised() {
        None => {}
        Some(false) => check_absent(reading),
        Some(true) => {
            check_command(reading);
            check_variables(reading);
            check_watch(reading);
            check_data(reading);
            check_place(reading);
            inputs::check(reading);
            check_fit(reading);
        }
    }
}

fn check_absent(reading: &mut Reading) {
    for path in FOR_IT {
        if reading.given(path) {
            reading.fault(
                path,
                format!("`{path}` needs `run.supervised = true`: without haggle's runner it has no effect"),
                "add supervised = true to [run], or remove it",
            );
        }
    }
}

fn check_command(reading: &mut Reading) {
    if reading.given("run.onstart") {
        reading.fault(
            "run.onstart",
            "the runner takes the place of `run.onstart`",
            "write it as `command`",
        );
    } else if !reading.given("run.command") {
        reading.fault(
            "run.supervised",
            "`run.supervised` needs `run.command`: what the runner is to look after",
            "add command = \"python train.py\" to [run]",
        );
    }
    if reading.given("run.args") {
        reading.fault(
            "run.args",
            "the runner takes the place of the image's entry point, and of its arguments",
            "put the entry point and its arguments into `command`",
        );
    }
    if reading.run_type() == Some(RunType::Jupyter) {
        reading.fault(
            "run.type",
            "the runner is not started beside a notebook server",
            "use type = \"args\" or type = \"ssh\"",
        );
    }
    // It also destroys its instance where nobody renews the lease, with the work undone.
    if reading.finish() == Some(Finish::Gone) {
        reading.fault(
            "finish",
            "that its instance is gone does not say that a supervised job is finished",
            "use finish = \"exit\": when the command ends",
        );
    }
}

fn check_variables(reading: &mut Reading) {
    for path in ["run.env", "run.secrets"] {
        let plain = reading.env(path).unwrap_or_default().into_keys();
        let secret = reading.secrets(path).unwrap_or_default().into_keys();
        let names = plain.chain(secret);
        let is_its = |name: &String| RESERVED.iter().any(|part| name.starts_with(part));
        for name in names.filter(is_its) {
            reading.fault(
                path,
                format!("`{name}` is the runner's: it is told by such variables what to do"),
                "use a name that begins neither with HAGGLE_ nor with CONTAINER_",
            );
        }
    }
}

/// What ends the command, and by what it is judged.
fn check_watch(reading: &mut Reading) {
    if reading.flag("run.fenced") == Some(false) && reading.given("run.lease") {
        reading.fault(
            "run.lease",
            "`run.lease` has no effect with `run.fenced = false`, which works without one",
            "remove one of the two",
        );
    }
    if !reading.given("run.hung_after") {
        return;
    }
    if !reading.given("run.progress") {
        reading.fault(
            "run.hung_after",
            "`run.hung_after` needs `run.progress`: without it nobody knows how far the command is",
            "add progress = \"/workspace/progress\", a file to whose end the command writes numbers",
        );
    }
    if let (true, Some(boot), Some(hung)) = (
        reading.given("boot_overhead"),
        reading.span("boot_overhead"),
        reading.span("run.hung_after"),
    ) && boot > hung
    {
        reading.fault(
            "run.hung_after",
            format!(
                "`run.hung_after` ({}) is over before useful work begins: `boot_overhead` is {}",
                human(hung),
                human(boot)
            ),
            "make `run.hung_after` the longer of the two",
        );
    }
}

fn check_data(reading: &mut Reading) {
    let keeps = reading.given("data.checkpoint");
    let uses = keeps || reading.given("data.outputs") || inputs::need_storage(reading);
    if reading.given("data.storage") && !uses {
        reading.fault(
            "data.storage",
            "[data.storage] needs `data.checkpoint` or `data.outputs`, or `data.inputs` from storage or from here: what is to go there",
            "add checkpoint = \"/workspace/checkpoints\" to [data], or remove [data.storage]",
        );
    }
    if reading.given("data.sync_every") && !keeps {
        reading.fault(
            "data.sync_every",
            "`data.sync_every` needs `data.checkpoint`: what is kept",
            "add checkpoint = \"/workspace/checkpoints\" to [data], or remove it",
        );
    }
    // What changes while it is packed is not kept.
    if let (Some(kept), Some(file)) = (
        reading.text("data.checkpoint"),
        reading.text("run.progress"),
    ) && file
        .strip_prefix(&kept)
        .is_some_and(|rest| rest.starts_with('/'))
    {
        reading.fault(
            "run.progress",
            "`run.progress` lies in `data.checkpoint`, which could hardly be kept: it would change all the time",
            "write progress to a file elsewhere",
        );
    }
}

/// Where the checkpoints are is said twice, and must be the same.
fn check_place(reading: &mut Reading) {
    let (Some(kept), Some(said)) = (reading.kept_place(), reading.text("checkpoint.place")) else {
        return;
    };
    let (right, why) = match kept {
        CheckpointPlace::Remote => ("remote", "[data.storage] keeps `data.checkpoint` elsewhere"),
        CheckpointPlace::Disk => (
            "disk",
            "`data.checkpoint` stays on the instance's disk without [data.storage]",
        ),
    };
    if said != right {
        reading.fault(
            "checkpoint.place",
            format!("\"{said}\" contradicts [data]: {why}"),
            format!(
                "write place = \"{right}\", or remove [checkpoint], whose fields follow from [data]"
            ),
        );
    }
}

/// The runner and its command travel in the environment, compressed. What else it is told is not known
/// yet; as much as it can be is tried.
fn check_fit(reading: &mut Reading) {
    let own = env_characters(reading);
    let (Some(trial), Some(added)) = (trial(reading), added_characters(reading)) else {
        return;
    };
    // The environment alone is too long: that was told.
    if own > ENV_TOTAL_MAX {
        return;
    }
    if let Err(why) = trial.deliver(own + added) {
        let bare = runner::Run {
            fetch: None,
            ..trial.clone()
        };
        if bare.deliver(own + added).is_ok() {
            reading.fault(
                "data.inputs",
                format!("with what is said of the inputs, {why}"),
                "give fewer, or shorter addresses, or [data.storage]: then they do not travel in the environment",
            );
            return;
        }
        let of_set = array::characters(reading);
        if of_set > 0 && trial.deliver(own + added - of_set).is_ok() {
            reading.fault(
                "array",
                format!("with the longest set of parameters, {of_set} characters, {why}"),
                "give it less to carry: let the command look the rest up by a shorter parameter",
            );
            return;
        }
        reading.fault(
            "run.command",
            why.to_string(),
            "put the script into the image, or fetch it in the command; or let the job read its variables from a file",
        );
    }
}

/// What haggle adds to the environment of every instance, in characters.
fn added_characters(reading: &Reading) -> Option<usize> {
    let name = reading.text("name")?;
    let ports = reading.ports("run.ports").unwrap_or_default();
    // Elements of an array that change have ever higher numbers.
    let number = if reading.given("array") {
        "4294967295"
    } else {
        "1000"
    };
    let said = ["HAGGLE_JOB", &name, "HAGGLE_REPLICA", number];
    let of_arrays = ["HAGGLE_ARRAY_INDEX", number, "HAGGLE_ARRAY_COUNT", "1000"];
    let of_arrays = of_arrays.iter().filter(|_| reading.given("array"));
    let said: usize = said.iter().chain(of_arrays).map(|text| text.len()).sum();
    let opened = "-p 65535:65535/udp=1".len() * ports.len();
    Some(said + array::characters(reading) + opened)
}

/// A run that takes as much room as one of this job can.
fn trial(reading: &Reading) -> Option<runner::Run> {
    let runner = runner(reading)?;
    let job: JobName = reading.text("name")?.parse().ok()?;
    let stores = runner.storage.is_some();
    let carries = runner.carries();
    Some(runner::Run {
        label: Label {
            installation: Installation::from_seed(u64::MAX),
            replica: ReplicaId {
                job,
                // Elements of an array that change have ever higher numbers.
                index: if reading.given("array") {
                    u32::MAX
                } else {
                    999
                },
            },
            intent: IntentId(u64::MAX),
        },
        generation: u64::MAX,
        key: noise(KEY_MAX),
        command: runner.command,
        lease: runner.lease,
        checkpoint: runner.checkpoint,
        sync_every: runner.sync_every,
        outputs: runner.outputs,
        progress: runner.progress,
        control: stores.then(|| noise(ADDRESS_MAX)),
        inputs: runner.inputs.len() as u32,
        fetch: fetch_lines(&runner.inputs).filter(|_| !stores),
        from: carries.as_ref().map(|(_, dir)| runner::From {
            run: IntentId(u64::MAX),
            key: noise(KEY_MAX),
            dir: dir.clone(),
        }),
        kept: carries.map(|(kept, _)| kept),
        grace: runner.grace,
        linger: runner.linger,
        looks: runner.looks,
        expected: runner.preflight.then(|| runner::Expected {
            gpus: Some(u32::MAX),
            model: Some(noise(60)),
            vram: Some(u32::MAX),
            disk: Some(u32::MAX),
            download: Some((u32::MAX, noise(200))),
            percent: 100,
        }),
    })
}

/// A text that hardly shrinks when it is compressed, as keys and signed addresses do not.
fn noise(length: usize) -> String {
    let mut block = Sha256::digest(b"haggle");
    let mut text = String::new();
    while text.len() < length {
        text.push_str(&BASE64_STANDARD.encode(block));
        block = Sha256::digest(block);
    }
    text.truncate(length);
    text
}

/// The command and how it is looked after; `None` only if a required field is absent or wrong, which
/// was told.
pub(super) fn runner(reading: &Reading) -> Option<Runner> {
    let storage = if reading.given("data.storage") {
        Some(Storage {
            endpoint: reading.text("data.storage.endpoint")?,
            region: reading.text("data.storage.region")?,
            bucket: reading.text("data.storage.bucket")?,
            prefix: reading.text("data.storage.prefix")?,
            access_key: reading.secret("data.storage.access_key")?,
            secret_key: reading.secret("data.storage.secret_key")?,
        })
    } else {
        None
    };
    // What is not known to be unfenced has a lease.
    let lease = if reading.flag("run.fenced")? {
        Some(reading.span("run.lease")?)
    } else {
        None
    };
    let disposable = reading.flag("data.disposable")?;
    let carried =
        reading.given("data.checkpoint") && storage.is_none() && lease.is_some() && !disposable;
    Some(Runner {
        command: reading.text("run.command")?,
        lease,
        progress: reading.text("run.progress"),
        hung_after: reading.span("run.hung_after"),
        silent_after: reading.span("run.silent_after")?,
        preflight: reading.flag("run.preflight")?,
        grace: reading.span("run.grace")?,
        linger: reading.span("run.linger")?,
        looks: looks(),
        checkpoint: reading.text("data.checkpoint"),
        outputs: reading.text("data.outputs"),
        storage,
        sync_every: reading.span("data.sync_every")?,
        carried,
        inputs: inputs::inputs(reading)?,
        inputs_wait: None,
    })
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;

    /// What is added to the environment of the element with the longest number.
    #[test]
    fn numbers_of_elements_are_reckoned_with_as_long_as_they_can_be() {
        let added = |array: &str| {
            let text = format!("name = \"abc\"\n{array}");
            let document = DeTable::parse(&text).unwrap();
            let mut reading = Reading::of(document.get_ref());
            array::check(&mut reading);
            added_characters(&reading).unwrap()
        };
        let longest = u32::MAX.to_string();
        let told = [
            ("HAGGLE_JOB", "abc"),
            ("HAGGLE_REPLICA", &longest),
            ("HAGGLE_ARRAY_INDEX", &longest),
            ("HAGGLE_ARRAY_COUNT", "1000"),
            ("seed", "22"),
        ];
        let told: usize = told
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        assert_eq!(
            added("[array]\nvalues = [{ seed = 1 }, { seed = 22 }]"),
            told
        );
        assert_eq!(added(""), "HAGGLE_JOBabcHAGGLE_REPLICA1000".len());
    }
}
