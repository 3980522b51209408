//! What a policy says of the inputs of a supervised job: what belongs together, and what is in each
//! other's way.

use std::path::PathBuf;

use super::super::reader::Reading;
use crate::types::input::{Input, Packing, Source, in_the_way, is_below};

/// So many a job may have.
const INPUTS_MAX: usize = 64;

/// What else lies on the machine, each a field and whether it is a directory.
const OTHERS: [(&str, bool); 3] = [
    ("data.checkpoint", true),
    ("data.outputs", true),
    ("run.progress", false),
];

/// Notes what is wrong with them.
pub(super) fn check(reading: &mut Reading) {
    let count = reading.count("data.inputs");
    if count > INPUTS_MAX {
        reading.fault(
            "data.inputs",
            format!("a job has at most {INPUTS_MAX} inputs, and these are {count}"),
            "give a directory, or an archive to unpack, instead of its files one by one",
        );
        return;
    }
    let stored = reading.given("data.storage");
    for number in 0..count {
        let at = |key: &str| format!("data.inputs[{number}].{key}");
        // What is wrong by itself was told.
        let Some(input) = input(reading, number) else {
            continue;
        };
        check_source(reading, &at("from"), &input, stored);
        check_name(reading, number, &input);
        check_others(reading, &at("to"), &input);
    }
    check_places(reading, count);
}

/// Whether any of them comes from storage, or goes through it.
pub(super) fn need_storage(reading: &Reading) -> bool {
    (0..reading.count("data.inputs").min(INPUTS_MAX))
        .filter_map(|number| input(reading, number))
        .any(|input| !matches!(input.from, Source::Address(_)))
}

fn check_source(reading: &mut Reading, at: &str, input: &Input, stored: bool) {
    let what = match &input.from {
        Source::Address(_) => return,
        Source::Object(_) => "an object of the job's storage",
        Source::Path(_) => "a file or directory here, which goes through the job's storage,",
    };
    if !stored {
        reading.fault(
            at,
            format!("`{at}`: {what} needs [data.storage]"),
            "add [data.storage] with endpoint, bucket, access_key and secret_key, or give an https:// address",
        );
    }
}

/// Its name says how it is unpacked, and how it is called in a directory.
fn check_name(reading: &mut Reading, number: usize, input: &Input) {
    let name = input.from.name();
    let at = format!("data.inputs[{number}].unpack");
    if reading.flag(&at) == Some(true) && input.packing.is_none() {
        reading.fault(
            &at,
            format!("`{at}`: what it comes from is no archive by its name"),
            "such as data.tar, data.tar.gz or data.tgz; unpack others in the command",
        );
    }
    // A local directory has its place, and needs no name.
    let needs_name = input.into && input.packing.is_none();
    let bad = matches!(name.as_str(), "" | "." | "..") || name.starts_with(".haggle");
    if needs_name && bad {
        let at = format!("data.inputs[{number}].to");
        reading.fault(
            &at,
            format!("`{at}` is a directory, and what it comes from has no name of its own"),
            "write the whole path of the file, without a slash at its end",
        );
    }
}

/// It is not in the way of what the job keeps: that changes, and is put back as a whole.
fn check_others(reading: &mut Reading, at: &str, input: &Input) {
    let place = input.place();
    for (field, is_directory) in OTHERS {
        let Some(other) = reading.text(field) else {
            continue;
        };
        let within = is_directory && is_below(&place, &other);
        // Of a local one nobody knows yet whether it is a directory.
        let may_hold = input.is_tree() || matches!(input.from, Source::Path(_));
        let around = may_hold && is_below(&other, &input.to);
        if place == other || input.to == other || within || around {
            reading.fault(
                at,
                format!("`{at}` and `{field}` are in each other's way"),
                "give each a place of its own",
            );
            return;
        }
    }
}

fn check_places(reading: &mut Reading, count: usize) {
    let all: Option<Vec<Input>> = (0..count).map(|number| input(reading, number)).collect();
    let Some((earlier, number, place)) = all.as_deref().and_then(in_the_way) else {
        return;
    };
    let at = format!("data.inputs[{number}].to");
    reading.fault(
        &at,
        format!("`{at}`: `data.inputs[{earlier}]` is in the way of {place}"),
        "give each a place of its own, and none inside of a directory that another one fills",
    );
}

/// One of them; `None` where something of it is absent or wrong, which was told.
fn input(reading: &Reading, number: usize) -> Option<Input> {
    let at = |key: &str| format!("data.inputs[{number}].{key}");
    let (from, to) = (reading.text(&at("from"))?, reading.text(&at("to"))?);
    let from = if let Some(key) = from.strip_prefix("storage:") {
        Source::Object(key.to_owned())
    } else if from.contains("://") && !from.starts_with(['.', '/']) {
        Source::Address(from)
    } else {
        Source::Path(PathBuf::from(from))
    };
    let sha256 = reading.text(&at("sha256"));
    if sha256.is_none() && reading.given(&at("sha256")) {
        return None;
    }
    let unpack = reading.flag(&at("unpack"))?;
    let packing = Packing::of(&from.name()).filter(|_| unpack);
    Some(Input {
        to: to.strip_suffix('/').unwrap_or(&to).to_owned(),
        into: to.ends_with('/'),
        sha256: sha256.map(|sum| sum.to_ascii_lowercase()),
        packing,
        from,
        found: None,
    })
}

/// All of them, in their order.
pub(super) fn inputs(reading: &Reading) -> Option<Vec<Input>> {
    (0..reading.count("data.inputs"))
        .map(|number| input(reading, number))
        .collect()
}
