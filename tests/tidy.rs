//! Holds the shape of the house: which room may name which, what the pure rooms may not do, and
//! how large a file may grow.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

mod docs;

/// Which rooms of `src/` a room may name beside itself. `cli` may name all.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("engine", &["runner", "types"]),
    ("backtest", &["engine", "types"]),
    ("ports", &["types"]),
    ("policy", &["runner", "types"]),
    ("runner", &["types"]),
    ("logbook", &["types"]),
    ("config", &["types"]),
    ("clock", &["ports", "types"]),
    ("net", &[]),
    ("marketplace", &["net", "ports", "types"]),
    ("storage", &["net", "types"]),
    ("notify", &["daemon", "engine", "net", "ports", "types"]),
    ("store", &["ports", "types"]),
    ("market", &["net", "ports", "runner", "types"]),
    ("daemon", &["engine", "ports", "runner", "storage", "types"]),
    ("view", &["engine", "logbook", "runner", "store", "types"]),
    (
        "web",
        &[
            "daemon", "engine", "logbook", "policy", "ports", "store", "types", "view",
        ],
    ),
    (
        "simulate",
        &[
            "daemon", "engine", "ports", "types", "market", "clock", "policy",
        ],
    ),
    (
        "arena",
        &["daemon", "market", "policy", "simulate", "types"],
    ),
];

/// What decisions and their vocabulary must not know.
const IMPURE: &[&str] = &[
    "tokio",
    "reqwest",
    "axum",
    "rusqlite",
    "SystemTime",
    "Instant::now",
    "Utc::now",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "HashMap",
    "HashSet",
    "rand::rng",
];

/// Rooms and files that may wait on real time: the clock itself, HTTP timeouts, the clients of what
/// the daemon serves, the market's server and what it delivers to webhooks.
const REAL_TIME: &[&str] = &[
    "clock.rs",
    "daemon/doors.rs",
    "marketplace/http.rs",
    "market/deliveries.rs",
    "market/exec/mod.rs",
    "market/server.rs",
    "storage/look.rs",
    "storage/upload.rs",
    "web/desk.rs",
];

/// Code lines, tests not counted.
const FILE_LINES_MAX: usize = 650;

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

struct Source {
    name: String,
    room: String,
    /// Code without comments and without the tests at its end.
    code: String,
}

fn read_all() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root);
    let tests = test_modules(&files);
    files
        .into_iter()
        .filter(|path| {
            !tests
                .iter()
                .any(|module| path.with_extension("").starts_with(module))
        })
        .map(|path| {
            let name = path
                .strip_prefix(&root)
                .unwrap()
                .to_string_lossy()
                .into_owned();
            let room = name
                .split('/')
                .next()
                .unwrap()
                .trim_end_matches(".rs")
                .to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let code: Vec<&str> = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect();
            Source {
                name,
                room,
                code: code.join("\n"),
            }
        })
        .collect()
}

/// The modules that are compiled for tests only, as paths without an ending.
fn test_modules(files: &[PathBuf]) -> Vec<PathBuf> {
    let mut modules = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let home = match file.file_name().and_then(|name| name.to_str()) {
            Some("mod.rs" | "lib.rs" | "main.rs") => file.parent().unwrap().to_owned(),
            _ => file.with_extension(""),
        };
        for rest in text.split("#[cfg(test)]\n").skip(1) {
            // Attributes may stand between.
            let line = rest
                .lines()
                .map(str::trim)
                .find(|line| !line.starts_with("#["))
                .unwrap_or("");
            let name = line
                .strip_suffix(';')
                .and_then(|line| line.rsplit_once("mod "));
            let path = rest
                .lines()
                .find_map(|line| line.trim().strip_prefix("#[path = \""));
            if let Some((_, name)) = name {
                let name = path.and_then(|p| p.strip_suffix(".rs\"]")).unwrap_or(name);
                modules.push(home.join(name));
                modules.push(file.parent().unwrap().join(name));
            }
        }
    }
    modules
}

fn rooms_named(code: &str) -> BTreeSet<String> {
    code.match_indices("crate::")
        .map(|(at, found)| {
            let rest = &code[at + found.len()..];
            rest.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect::<String>()
        })
        .filter(|room| !room.is_empty())
        .collect()
}

fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn imports_point_one_way() {
    let mut problems = Vec::new();
    for source in read_all() {
        let Some((_, allowed)) = MAY_NAME.iter().find(|(room, _)| *room == source.room) else {
            continue;
        };
        for named in rooms_named(&source.code) {
            if named != source.room && !allowed.contains(&named.as_str()) {
                problems.push(format!(
                    "{} names `{named}`, which `{}` may not",
                    source.name, source.room
                ));
            }
        }
    }
    report(problems);
}

#[test]
fn every_room_has_a_rule() {
    let known: BTreeSet<&str> = MAY_NAME
        .iter()
        .map(|(room, _)| *room)
        .chain(["cli", "main", "lib"])
        .collect();
    let missing = read_all()
        .into_iter()
        .filter(|source| !known.contains(source.room.as_str()));
    report(
        missing
            .map(|source| format!("{} is in a room without a rule", source.name))
            .collect(),
    );
}

#[test]
fn the_pure_rooms_are_pure() {
    let mut problems = Vec::new();
    for source in read_all()
        .iter()
        .filter(|s| s.room == "types" || s.room == "engine")
    {
        for word in IMPURE {
            if source.code.contains(word) {
                problems.push(format!("{} knows `{word}`", source.name));
            }
        }
    }
    report(problems);
}

#[test]
fn only_adapters_wait_on_real_time() {
    let mut problems = Vec::new();
    for source in read_all() {
        let adapter = REAL_TIME.contains(&source.name.as_str());
        if !adapter && source.code.contains("tokio::time") {
            problems.push(format!("{} waits on real time", source.name));
        }
        for (at, _) in source.code.match_indices("select! {") {
            let body = source.code[at + "select! {".len()..].trim_start();
            if !body.starts_with("biased;") {
                problems.push(format!("{} has a select! that is not biased", source.name));
            }
        }
    }
    report(problems);
}

#[test]
fn files_stay_small() {
    let long = read_all()
        .into_iter()
        .filter(|source| source.code.lines().count() > FILE_LINES_MAX);
    report(
        long.map(|s| format!("{} has {} lines", s.name, s.code.lines().count()))
            .collect(),
    );
}

/// The files that the programs of tests are made of.
fn files_of_programs(root: &Path) -> BTreeSet<PathBuf> {
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let programs = manifest["test"].as_array().unwrap();
    // Each with the directory that its modules are in.
    let mut unread: Vec<(PathBuf, PathBuf)> = programs
        .iter()
        .map(|program| {
            let beside = format!("tests/{}.rs", program["name"].as_str().unwrap());
            let path = program.get("path").and_then(toml::Value::as_str);
            let file = root.join(path.unwrap_or(&beside));
            let home = file.parent().unwrap().to_owned();
            (file, home)
        })
        .collect();
    let mut found = BTreeSet::new();
    while let Some((file, home)) = unread.pop() {
        let text = fs::read_to_string(&file).unwrap();
        let mut path = None;
        for line in text.lines() {
            let given = line.strip_prefix("#[path = \"");
            if let Some(given) = given.and_then(|line| line.strip_suffix("\"]")) {
                path = Some(file.parent().unwrap().join(given));
            }
            let module = line.strip_prefix("mod ");
            let Some(name) = module.and_then(|line| line.strip_suffix(';')) else {
                continue;
            };
            let module = path.take().unwrap_or(home.join(name).with_extension("rs"));
            if module.exists() {
                let home = module.with_extension("");
                unread.push((module, home));
            } else {
                unread.push((home.join(name).join("mod.rs"), home.join(name)));
            }
        }
        found.insert(file);
    }
    found
}

/// Cargo looks for no programs of tests by itself here: a file that none names would never be compiled.
#[test]
fn every_file_of_tests_is_in_a_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let known = files_of_programs(root);
    let files = sources(&root.join("tests"));
    assert!(files.len() > 40, "only {} files are found", files.len());
    let unknown = files.iter().filter(|file| !known.contains(*file));
    report(
        unknown
            .map(|file| format!("no program of `[[test]]` names {}", file.display()))
            .collect(),
    );
}

#[test]
fn crates_come_from_the_registry() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let lock = fs::read_to_string(lock).unwrap();
    let foreign = lock
        .lines()
        .filter(|line| line.starts_with("source = ") && !line.contains("\"registry+"))
        .map(ToOwned::to_owned);
    report(foreign.collect());
}
