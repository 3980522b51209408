//! Jobs whose command haggle's runner looks after.

use super::*;
use crate::types::job::{Runner, looks};

/// A supervised job: lines at the top, in `[run]` and below.
fn job(top: &str, run: &str, below: &str) -> String {
    format!(
        "{top}\nname = \"a\"\n[price]\nmax = \"$1/gpu-hour\"\n[run]\nimage = \"x\"\nsupervised = true\n{run}\n{below}\n"
    )
}

/// The same with a command.
fn with_command(top: &str, run: &str, below: &str) -> String {
    job(top, &format!("command = \"c\"\n{run}"), below)
}

#[track_caller]
fn read(text: &str) -> Job {
    parse("a.toml", text).unwrap_or_else(|errors| panic!("{text}\n{errors:#?}"))
}

fn runner(text: &str) -> Runner {
    *read(text).run.runner.unwrap()
}

const STORAGE: &str = "[data.storage]\nendpoint = \"https://s3.example\"\nbucket = \"my-bucket\"\n\
                       access_key = { env = \"A\" }\nsecret_key = { env = \"B\" }";

#[test]
fn the_least_one_has_the_documented_defaults() {
    let job = read(&with_command("", "", ""));
    assert_eq!(job.finish, Finish::Exit);
    assert_eq!((job.checkpoint_every, job.checkpoint_place), (None, None));
    assert_eq!(job.run.onstart, None, "the runner takes its place");
    assert!(!job.run.has_secrets());
    let expected = Runner {
        command: "c".to_owned(),
        lease: Some(Duration::from_hours(2)),
        progress: None,
        hung_after: None,
        silent_after: Duration::from_secs(180),
        preflight: true,
        grace: Duration::from_secs(30),
        linger: Duration::from_hours(24),
        looks: looks(),
        checkpoint: None,
        outputs: None,
        storage: None,
        sync_every: Duration::from_mins(10),
        carried: false,
        inputs: Vec::new(),
        inputs_wait: None,
    };
    assert_eq!(job.run.runner.as_deref(), Some(&expected));
}

#[test]
fn without_the_runner_a_command_is_what_it_was() {
    let text = with_command("", "", "").replace("supervised = true", "supervised = false");
    let job = read(&text);
    assert_eq!(job.run.onstart.as_deref(), Some("c"));
    assert_eq!((job.run.runner, job.finish), (None, Finish::Manual));
}

#[test]
fn what_follows_from_what_else_is_said() {
    assert_eq!(runner(&with_command("", "fenced = false", "")).lease, None);
    let work = "[work]\ngpu_hours = 1";
    let finish = |top: &str, below: &str| read(&with_command(top, "", below)).finish;
    assert_eq!(
        finish("", work),
        Finish::Exit,
        "what it takes was estimated"
    );
    assert_eq!(finish("finish = \"work\"", work), Finish::Work);
    assert_eq!(finish("finish = \"manual\"", ""), Finish::Manual);

    let checkpoints = |data: &str| {
        let job = read(&with_command("", "", data));
        let every = job.checkpoint_every.map(|every| every.as_secs());
        (every, job.checkpoint_place)
    };
    let (disk, remote) = (Some(CheckpointPlace::Disk), Some(CheckpointPlace::Remote));
    let kept = "[data]\ncheckpoint = \"/c\"";
    assert_eq!(checkpoints(kept), (Some(600), disk));
    assert_eq!(
        checkpoints(&format!("{kept}\n{STORAGE}")),
        (Some(600), remote)
    );
    assert_eq!(
        checkpoints(&format!("{kept}\nsync_every = \"5s\"\n{STORAGE}")),
        (Some(5), remote)
    );
    // What the policy says itself holds, as long as it does not contradict.
    for (place, storage) in [("disk", ""), ("remote", STORAGE)] {
        let said = format!("{kept}\n{storage}\n[checkpoint]\nevery = \"1h\"\nplace = \"{place}\"");
        assert_eq!(checkpoints(&said).0, Some(3600));
    }
    // Only outputs go there: there are no checkpoints.
    let outputs = format!("[data]\noutputs = \"/o\"\n{STORAGE}");
    assert_eq!(checkpoints(&outputs), (None, None));
    assert!(read(&with_command("", "", &outputs)).run.has_secrets());
    let storage = runner(&with_command("", "", &outputs)).storage.unwrap();
    assert_eq!((&*storage.region, &*storage.prefix), ("us-east-1", ""));
}

#[test]
fn a_checkpoint_that_is_kept_lets_long_work_run_on_bids() {
    let work = "[work]\ngpu_hours = 40";
    let kept = format!("{work}\n[data]\ncheckpoint = \"/c\"");
    read(&with_command("", "", &kept));
    read(&with_command("restartable = true", "", work));
    one_mistake(
        &with_command("", "", work),
        &[
            "lose 1d16h of work",
            "[data] checkpoint to a supervised job",
        ],
    );
}

#[test]
fn nothing_of_the_runner_is_said_without_it() {
    for (run, below, path) in [
        ("fenced = true", "", "run.fenced"),
        ("lease = \"2h\"", "", "run.lease"),
        ("progress = \"/p\"", "", "run.progress"),
        ("hung_after = \"1h\"", "", "run.hung_after"),
        ("silent_after = \"1m\"", "", "run.silent_after"),
        ("preflight = false", "", "run.preflight"),
        ("grace = \"1m\"", "", "run.grace"),
        ("linger = \"1h\"", "", "run.linger"),
        ("", "[data]\ncheckpoint = \"/c\"", "data.checkpoint"),
        ("", "[data]\noutputs = \"/o\"", "data.outputs"),
        ("", "[data]\nsync_every = \"1m\"", "data.sync_every"),
        ("", STORAGE, "data.storage"),
    ] {
        for said in ["supervised = false", ""] {
            let text = with_command("", run, below).replace("supervised = true", said);
            let message = format!("`{path}` needs `run.supervised = true`");
            one_mistake(&text, &[&message, "(add supervised = true to [run]"]);
        }
    }
    // A mistake there does not make others of all that is for it.
    let unclear = with_command("", "lease = \"3h\"", "").replace("= true", "= \"yes\"");
    one_mistake(&unclear, &["7:14 `run.supervised`", "true or false"]);
}

#[test]
fn a_value_that_is_wrong_is_told_what_would_be_right() {
    let storage = |key: &str, value: &str| {
        let lines: Vec<&str> = STORAGE.lines().filter(|l| !l.starts_with(key)).collect();
        format!(
            "[data]\noutputs = \"/o\"\n{}\n{key} = {value}",
            lines.join("\n")
        )
    };
    let data = |line: &str| format!("[data]\n{line}");
    for (run, below, parts) in [
        (
            "fenced = 1",
            "",
            &["9:10", "`run.fenced`", "true or false"][..],
        ),
        (
            "preflight = \"no\"",
            "",
            &["`run.preflight`", "true or false"],
        ),
        ("lease = \"9m\"", "", &["`run.lease`", "from 10m to 7d"]),
        ("lease = \"8d\"", "", &["from 10m to 7d"]),
        ("lease = 7200", "", &["is an integer"]),
        (
            "progress = \"p\"",
            "",
            &[
                "9:12",
                "the absolute path of a file",
                "begin it with a slash",
            ],
        ),
        (
            "progress = \"/p\"\nhung_after = \"119s\"",
            "",
            &["`run.hung_after`", "from 2m to 30d"],
        ),
        (
            "silent_after = \"29s\"",
            "",
            &["`run.silent_after`", "from 30s to 1d"],
        ),
        ("grace = \"11m\"", "", &["`run.grace`", "from 0s to 10m"]),
        ("linger = \"9m\"", "", &["`run.linger`", "from 10m to 30d"]),
        (
            "",
            &data("checkpoint = \"c\""),
            &["11:14", "the absolute path of a directory"],
        ),
        (
            "",
            &data("outputs = [\"/o\"]"),
            &["`data.outputs`", "is an array", "\"/workspace/out\""],
        ),
        (
            "",
            &storage("endpoint", "\"http://s3.example\""),
            &["`data.storage.endpoint`", "use https://"],
        ),
        (
            "",
            &storage("endpoint", "\"https://s3.example/b\""),
            &["end it after the host and its port"],
        ),
        (
            "",
            &storage("region", "\"us east\""),
            &["`data.storage.region`", "as the storage service"],
        ),
        (
            "",
            &storage("bucket", "\"My_Bucket\""),
            &["`data.storage.bucket`", "3 to 63 of a-z"],
        ),
        (
            "",
            &storage("prefix", "\"/a\""),
            &["`data.storage.prefix`", "without a slash at either end"],
        ),
        (
            "",
            &storage("access_key", "\"k\""),
            &["`data.storage.access_key`", "by reference"],
        ),
        (
            "",
            &storage("secret_key", "{ env = \"A-B\" }"),
            &["`data.storage.secret_key`", "name of an env"],
        ),
    ] {
        one_mistake(&with_command("", run, below), parts);
    }
    let kept = format!("[data]\ncheckpoint = \"/c\"\nsync_every = \"4s\"\n{STORAGE}");
    one_mistake(
        &with_command("", "", &kept),
        &["12:14", "`data.sync_every`", "from 5s to 30d"],
    );
    for key in ["endpoint", "bucket", "access_key", "secret_key"] {
        let lines: Vec<&str> = STORAGE.lines().filter(|l| !l.starts_with(key)).collect();
        let below = format!("[data]\noutputs = \"/o\"\n{}", lines.join("\n"));
        one_mistake(
            &with_command("", "", &below),
            &[
                "12:7",
                &format!("`data.storage.{key}` is missing"),
                "to [data.storage]",
            ],
        );
    }
}

#[test]
fn what_must_hold_between_fields() {
    let kept = |line: &str| format!("[data]\ncheckpoint = \"/c\"\n{line}");
    let placed = |place: &str| format!("[checkpoint]\nevery = \"1h\"\nplace = \"{place}\"");
    let hung = "progress = \"/p\"\nhung_after = \"5m\"";
    for (top, run, below, parts) in [
        (
            "",
            "onstart = \"o\"",
            "",
            &["9:11", "takes the place of `run.onstart`", "`command`"][..],
        ),
        (
            "",
            "args = [\"b\"]",
            "",
            &["9:8", "entry point, and of its arguments", "`command`"],
        ),
        (
            "",
            "type = \"jupyter\"",
            "",
            &["9:8", "a notebook server", "type = \"ssh\""],
        ),
        (
            "finish = \"gone\"",
            "",
            "",
            &["1:10", "does not say", "finish = \"exit\""],
        ),
        (
            "",
            "env = { HAGGLE_LEASE = \"0\" }",
            "",
            &["9:7", "`HAGGLE_LEASE` is the runner's"],
        ),
        (
            "",
            "secrets = { CONTAINER_API_KEY = { env = \"A\" } }",
            "",
            &["`CONTAINER_API_KEY` is the"],
        ),
        (
            "",
            "fenced = false\nlease = \"2h\"",
            "",
            &["10:9", "no effect with `run.fenced = false`"],
        ),
        (
            "",
            "hung_after = \"5m\"",
            "",
            &["9:14", "needs `run.progress`", "progress = \"/work"],
        ),
        (
            "boot_overhead = \"6m\"",
            hung,
            "",
            &["10:14", "`boot_overhead` is 6m00s"],
        ),
        (
            "",
            "",
            STORAGE,
            &["10:7", "needs `data.checkpoint` or `data.outputs`"],
        ),
        (
            "",
            "",
            "[data]\nsync_every = \"1m\"",
            &["11:14", "`data.sync_every` needs `data.checkpoint`"],
        ),
        (
            "",
            "progress = \"/c/p\"",
            &kept(""),
            &["9:12", "lies in `data.checkpoint`"],
        ),
        (
            "",
            "",
            &kept(&placed("remote")),
            &["\"remote\" contradicts [data]", "place = \"disk\""],
        ),
        (
            "",
            "",
            &kept(&format!("{STORAGE}\n{}", placed("disk"))),
            &["\"disk\" contradicts [data]", "place = \"remote\""],
        ),
    ] {
        // A command stands in line 8, but for where `onstart` is tried alone.
        one_mistake(&with_command(top, run, below), parts);
    }
    one_mistake(
        &job("", "", ""),
        &["7:14", "`run.supervised` needs `run.command`"],
    );
    one_mistake(
        &job("", "onstart = \"o\"", ""),
        &["takes the place of `run.onstart`"],
    );
    // What is near and right.
    for (top, run, below) in [
        ("", "type = \"ssh\"", ""),
        ("", hung, ""),
        ("boot_overhead = \"5m\"", hung, ""),
        ("", "progress = \"/c.progress\"", &*kept("")),
        ("", "env = { HAGGLER = \"1\" }", ""),
        ("", "", &placed("remote")),
    ] {
        read(&with_command(top, run, below));
    }
}

/// A text that does not shrink by much: the digits of a generator.
fn dense(length: usize) -> String {
    let mut state = 1_u64;
    let mut digit = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        char::from(b'!' + ((state >> 33) % 90) as u8)
    };
    let plain = |c: &char| !matches!(c, '"' | '\\' | '\'');
    std::iter::repeat_with(&mut digit)
        .filter(plain)
        .take(length)
        .collect()
}

#[test]
fn a_command_may_be_long_and_must_fit() {
    let of = |length: usize, env: usize| {
        let env: Vec<String> = (0..env)
            .map(|i| format!("V{i:03} = \"{}\"", "v".repeat(250)))
            .collect();
        let command = format!("command = \"{}\"", dense(length));
        job("", &command, &format!("[run.env]\n{}", env.join("\n")))
    };
    assert_eq!(runner(&of(6000, 0)).command.chars().count(), 6000);
    read(&of(6000, 38));
    read(&of(10, 60));
    one_mistake(
        &of(6001, 0),
        &["8:11", "`run.command`", "1 to 6000 characters"],
    );
    one_mistake(
        &of(6000, 70),
        &[
            "8:11",
            "the runner and its command take",
            "characters of environment",
            "image",
        ],
    );
    one_mistake(&of(10, 110), &["8:11", "the runner and its command take"]);
    // Where the environment alone is too long, that is what is told.
    one_mistake(&of(10, 140), &["9:1 all variables together"]);
    // What the marketplace takes of a bare command is as it was.
    let bare = of(4097, 0).replace("supervised = true", "");
    one_mistake(
        &bare,
        &[
            "4097 characters",
            "4096",
            "supervised = true it may have 6000",
        ],
    );
}
