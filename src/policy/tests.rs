use std::time::Duration;

use miette::{GraphicalReportHandler, GraphicalTheme};
use proptest::prelude::*;

use super::*;
use crate::types::job::{BidMargin, CheckpointPlace, Finish, RentalChoice, RunType, SecretRef};
use crate::types::money::{Money, Rate};

mod array;
mod inputs;
mod service;
mod supervised;

const LEAST: &str = "name = \"a\"\n[run]\nimage = \"x\"\n[price]\nmax = \"$1/gpu-hour\"\n";

/// The mistakes of a text as `line:column message (help)`.
fn mistakes(text: &str) -> Vec<String> {
    let errors = parse("policies/a.toml", text).unwrap_err();
    errors
        .iter()
        .map(|e| {
            let help = e.help_text().unwrap_or("no help");
            format!("{}:{} {} ({help})", e.line(), e.column(), e.message())
        })
        .collect()
}

/// The least policy with lines at its top and sections below.
fn with(top: &str, below: &str) -> String {
    format!("{top}\n{LEAST}{below}")
}

/// Asserts that a text has exactly one mistake, and that it says all of these.
fn one_mistake(text: &str, parts: &[&str]) {
    let found = mistakes(text);
    assert_eq!(found.len(), 1, "{text}\n{found:#?}");
    for part in parts {
        assert!(found[0].contains(part), "{part:?} is not in {}", found[0]);
    }
}

#[test]
fn the_least_policy_has_the_documented_defaults() {
    let job = parse("a.toml", LEAST).unwrap();
    assert_eq!(job.name.as_str(), "a");
    assert_eq!((job.priority, job.replicas), (0, 1));
    assert_eq!(job.rental, RentalChoice::Auto);
    assert_eq!(job.finish, Finish::Manual);
    assert_eq!(job.run.run_type, RunType::Args);
    assert_eq!(job.price_max, Rate(1_000_000_000));
    assert_eq!(job.bid_margin, BidMargin::Auto);
    assert_eq!(job.patience, Duration::from_mins(2));
    assert_eq!(job.provision_timeout, Duration::from_mins(15));
    assert_eq!(job.start.status_within, Some(Duration::from_mins(3)));
    assert_eq!(job.start.loading_unchanged, Some(Duration::from_mins(10)));
    assert_eq!(job.idle_after, None);
    assert_eq!(job.requirements.gpu_count, 1);
    assert_eq!(job.requirements.disk_gb, 16);
    assert_eq!(job.requirements.reliability_min, Some(0.95));
    assert!(job.requirements.verified && !job.requirements.datacenter);
    assert_eq!(job.requirements.gpu_ram_mb_min, None);
    assert!(!job.disposable && job.windows.is_empty());
    assert_eq!(job.retries.max, 5);
}

#[test]
fn the_steps_of_a_start_can_be_switched_off_and_stay_within_the_whole() {
    let start = |top: &str, below: &str| parse("a.toml", &with(top, below)).unwrap().start;
    let off = start(
        "",
        "[start]\nstatus_within = \"off\"\nloading_unchanged = \"off\"",
    );
    assert_eq!(off, crate::types::start::StartRules::default());
    let shorter = start(
        "provision_timeout = \"8m\"",
        "[start]\nloading_unchanged = \"7m\"",
    );
    assert_eq!(shorter.loading_unchanged, Some(Duration::from_mins(7)));
    // A default that is longer than the whole is no mistake of the policy.
    let short = start("provision_timeout = \"2m\"", "");
    assert_eq!(short.loading_unchanged, Some(Duration::from_mins(10)));
    // Whoever gives a large image its time gives its layers theirs.
    let long = start("provision_timeout = \"90m\"", "");
    assert_eq!(long.loading_unchanged, Some(Duration::from_mins(60)));
}

#[test]
fn idle_gpus_end_a_run_only_where_something_ends() {
    let run = |top: &str, below: &str| {
        format!(
            "{top}\nname = \"a\"\n[run]\nimage = \"x\"\n{below}\n[price]\nmax = \"$1/gpu-hour\"\n"
        )
    };
    let text = run("", "idle_after = \"5m\"");
    let job = parse("a.toml", &text).unwrap();
    assert_eq!(job.idle_after, Some(Duration::from_mins(5)));
    one_mistake(&run("", "idle_after = \"4m\""), &["from 5m to 30d"]);
    one_mistake(
        &run("finish = \"never\"", "idle_after = \"1h\""),
        &["`run.idle_after` has no effect", "a service"],
    );
}

#[test]
fn every_field_arrives() {
    // One has a runner and the other what excludes one. What arrays become, their own tests hold.
    let full = include_str!("tests/full.toml");
    let supervised = include_str!("tests/supervised.toml");
    let shown = |text| format!("{:#?}", parse("a.toml", text).unwrap());
    expect_test::expect_file!["tests/full.txt"].assert_eq(&shown(full));
    expect_test::expect_file!["tests/supervised.txt"].assert_eq(&shown(supervised));
    // A field that is forgotten in the builder would leave its default in the texts above; that it
    // is in a file at all is what the next assertion holds.
    let arrays = [array::VALUES, array::MATRIX].map(|lines| array::text("", "", lines));
    let service = with("replicas = 2", service::SERVICE);
    let read = [full, supervised, &arrays[0], &arrays[1], &service].map(|text| {
        let document = DeTable::parse(text).unwrap();
        Reading::of(document.get_ref())
    });
    for section in fields::SECTIONS {
        for field in section.fields {
            let path = match (section.path, section.repeated) {
                ("", _) => field.key.to_owned(),
                (path, true) => format!("{path}[0].{}", field.key),
                (path, false) => format!("{path}.{}", field.key),
            };
            let expected = field.applies != fields::Applies::NotYet && path != "run.onstart";
            let given = read.iter().any(|reading| reading.given(&path));
            assert_eq!(given, expected, "{path}");
        }
    }
}

#[test]
fn five_mistakes_are_all_shown_where_they_are() {
    let text = r#"name = "My Job"
prioritty = 3
[run]
image = "x"
[gpu]
vram = 24
count = 0
[price]
max = "$0.45"
"#;
    let found = mistakes(text);
    expect_test::expect![[r#"
        1:8 `name`: this is not a name of 1 to 40 of a-z, 0-9 and hyphens (a job's name must be 1 to 40 of a-z, 0-9 and hyphens, with a letter or digit at both ends)
        2:1 unknown key `prioritty` in the top of the file (did you mean `priority`?)
        6:8 `gpu.vram`: this must be a quantity from 1 to 10000000 MB with its unit, and is an integer (write it as "24GB")
        7:9 `gpu.count`: this is not a whole number from 1 to 64 (write it as 1)
        9:7 `price.max`: this is not an amount over $0 and up to $128/gpu-hour (what it is per is missing ("/gpu-hour"): write it as "$0.45/gpu-hour")"#]]
    .assert_eq(&found.join("\n"));
}

#[test]
fn a_syntax_error_does_not_hide_the_others() {
    let text = "name = \"a\nprioritty = 3\n[run]\nimage = \"x\"\n[gpu]\ncount = 0\n[price]\nmax = \"$1/gpu-hour\"\n";
    let found = mistakes(text);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].starts_with("1:") && found[0].contains("not TOML"));
    assert!(found[1].starts_with("2:1 unknown key"));
    assert!(found[2].starts_with("6:9 `gpu.count`"));
}

#[test]
fn what_is_missing_is_told() {
    let found = mistakes("");
    assert_eq!(found.len(), 3, "{found:#?}");
    for part in ["`name` is missing", "section [run]", "section [price]"] {
        assert!(found.iter().any(|f| f.contains(part)), "{part}: {found:#?}");
    }
    one_mistake(
        "name = \"a\"\n[run]\nimage = \"x\"\n[price]\nbid_margin = \"1%\"\n",
        &["4:2 `price.max` is missing", "add max = \"$0.45/gpu-hour\""],
    );
}

#[test]
fn a_value_that_is_wrong_is_told_what_would_be_right() {
    for (top, below, parts) in [
        (
            "patience = 10",
            "",
            &["`patience`", "is an integer", "\"15m\""][..],
        ),
        ("patience = \"10\"", "", &["unit is missing"]),
        ("patience = \"100d\"", "", &["from 0s to 7d"]),
        ("replicas = 0", "", &["from 1 to 1000"]),
        ("replicas = 1.5", "", &["is a float"]),
        ("replicas = \"2\"", "", &["is a string"]),
        (
            "rental = \"interuptible\"",
            "",
            &["did you mean \"interruptible\""],
        ),
        ("tags = \"a\"", "", &["a list of at most 32"]),
        ("tags = [\"a\", 1]", "", &["1:14", "each is a text"]),
        ("", "[machine]\ndisk = \"4GB\"", &["from 8 to 100000 GB"]),
        ("", "[machine]\ndisk = \"40\"", &["one of GB, TB"]),
        ("", "[machine]\nreliability = 95", &["from 0 to 1"]),
        ("", "[machine]\nreliability = nan", &["from 0 to 1"]),
        ("", "[machine]\ncountries = [\"NOR\"]", &["two letters"]),
        ("", "[machine]\nmachines_denied = [-1]", &["whole number"]),
        ("", "[gpu]\nvram = \"24gb\"", &["\"24GB\""]),
        (
            "",
            "[gpu]\ncuda = 12.4",
            &["a version", "is a float", "\"12.4\""],
        ),
        ("", "[budget]\ntotal = \"$0\"", &["over $0"]),
        ("", "[budget]\nper_hour = \"$2\"", &["/hour"]),
        ("", "[budget]\ntotal = 25", &["\"$25\""]),
        (
            "",
            "[traffic]\nprice_max = \"0.01/GB\"",
            &["currency is missing"],
        ),
        ("", "[work]\ngpu_hours = -4", &["from 0.001"]),
        ("", "[work]\nfactors = { \"RTX 3090\" = 0 }", &["over 0"]),
        (
            "",
            "[gpus]\ncount = 1",
            &["unknown key `gpus`", "did you mean `gpu`"],
        ),
        ("", "[gpu]\nram = \"1GB\"", &["`ram` stands in [machine]"]),
        ("", "[gpu]\npriority = 1", &["at the top of the file"]),
        (
            "budget = \"$25\"",
            "",
            &["`budget` is a section", "[budget]"],
        ),
        ("window = { cron = \"* * * * *\" }", "", &["[[window]]"]),
        (
            "",
            "[[window]]\ncron = \"0 22 * *\"\nlasts = \"9h\"",
            &["five fields"],
        ),
        (
            "",
            "[[window]]\ncron = \"0 22 * * 9\"\nlasts = \"9h\"",
            &["8:8", "day of the week"],
        ),
        (
            "",
            "[[window]]\ncron = \"0 22 * * 1\"",
            &["`window[0].lasts` is missing"],
        ),
        (
            "",
            "[[window]]\ncron = \"0 2 * * 1\"\nlasts = \"9h\"\ntimezone = \"Europe/Berln\"",
            &["did you mean \"Europe/Berlin\""],
        ),
        (
            "",
            "[checkpoint]\nevery = \"15m\"",
            &["`checkpoint.place` is missing"],
        ),
        ("deadline = \"tomorrow\"", "", &["a moment with its offset"]),
        (
            "policy = \"uniform\"",
            "",
            &["hazard-mdp", "uniform-progress"],
        ),
    ] {
        one_mistake(&with(top, below), parts);
    }
}

#[test]
fn what_must_hold_between_fields() {
    for (top, below, parts) in [
        (
            "finish = \"work\"",
            "",
            &["needs to know how much work"][..],
        ),
        (
            "deadline = 2027-01-31T18:00:00Z",
            "",
            &["not known without `work.gpu_hours`", "add [work] gpu_hours"],
        ),
        (
            "deadline = 2027-01-31T18:00:00Z\nrental = \"interruptible\"",
            "[work]\ngpu_hours = 1",
            &["nothing can be promised", "use rental = \"auto\""],
        ),
        (
            "policy = \"greedy\"",
            "[work]\ngpu_hours = 1",
            &["there is none", "add deadline"],
        ),
        (
            "deadline = 2027-01-31T18:00:00Z",
            "[work]\ngpu_hours = 1\n[[window]]\ncron = \"0 22 * * *\"\nlasts = \"8h\"",
            &["does not go with [[window]] yet"],
        ),
        (
            "finish = \"never\"",
            "[work]\ngpu_hours = 1",
            &["never finishes"],
        ),
        (
            "rental = \"on-demand\"\npatience = \"5m\"",
            "",
            &["places no bids"],
        ),
        (
            "rental = \"on-demand\"",
            "bid_margin = \"5%\"",
            &["places no bids"],
        ),
        (
            "",
            "[work]\ngpu_hours = 40",
            &["lose 1d16h of work", "[checkpoint]", "restartable"],
        ),
        (
            "",
            "[gpu]\nmodels = [\"A\"]\n[work]\nfactors = { B = 0.5 }",
            &["\"B\" is not among"],
        ),
        (
            "",
            "[work]\nreference = \"A\"\nfactors = { A = 0.5 }",
            &["counts 1"],
        ),
        (
            "",
            "[machine]\ncountries = [\"NO\"]\ncountries_denied = [\"no\"]",
            &["NO is both"],
        ),
        ("", "[traffic]\ndown = \"5GB\"\nmax = \"4GB\"", &["5 GB"]),
        (
            "",
            "[retries]\nbackoff = \"2h\"",
            &["`retries.backoff` (2h00m) is longer"],
        ),
        (
            "max_lifetime = \"10m\"",
            "",
            &["`provision_timeout` (15m00s) is longer"],
        ),
        (
            "provision_timeout = \"8m\"",
            "[start]\nloading_unchanged = \"8m\"",
            &["`start.loading_unchanged` (8m00s) has no effect", "\"off\""],
        ),
        (
            "",
            "[start]\nstatus_within = \"0s\"",
            &["from 1m to 1d, or \"off\""],
        ),
        (
            "",
            "[budget]\ntotal = \"$5\"\nper_day = \"$6\"",
            &["no effect"],
        ),
        (
            "",
            "[budget]\ntotal = \"$5\"\nper_month = \"$6\"",
            &["$6.00 a month has no effect"],
        ),
        (
            "",
            "[budget]\nper_month = \"$5\"\nper_day = \"$6\"",
            &["no effect under a month's $5"],
        ),
    ] {
        one_mistake(&with(top, below), parts);
    }
    for (top, below) in [
        ("", "[work]\ngpu_hours = 1"),
        ("restartable = true", "[work]\ngpu_hours = 40"),
        ("rental = \"on-demand\"", "[work]\ngpu_hours = 40"),
        ("", "[data]\ndisposable = true\n[work]\ngpu_hours = 40"),
        (
            "",
            "[checkpoint]\nevery = \"1h\"\nplace = \"disk\"\n[work]\ngpu_hours = 40",
        ),
        ("replicas = 40", "[work]\ngpu_hours = 40"),
    ] {
        let text = with(top, below);
        assert!(parse("a.toml", &text).is_ok(), "{:#?}", mistakes(&text));
    }
}

#[test]
fn the_marketplaces_bounds_on_what_is_run() {
    let run =
        |lines: &str| format!("name = \"a\"\n[price]\nmax = \"$1/gpu-hour\"\n[run]\n{lines}\n");
    let long = "x".repeat(250);
    one_mistake(&run(""), &["4:2", "neither `run.image` nor `run.template`"]);
    one_mistake(&run("image = \"a b\""), &["no blanks"]);
    one_mistake(
        &run(&format!(
            "image = \"x\"\nenv = {{ VALUE = \"{long}{long}\" }}"
        )),
        &["VALUE=… is 506 characters long", "256"],
    );
    let many: Vec<String> = (0..150).map(|i| format!("V{i} = \"{long}\"")).collect();
    one_mistake(
        &run(&format!("image = \"x\"\n[run.env]\n{}", many.join("\n"))),
        &["32768"],
    );
    one_mistake(
        &run(&format!(
            "image = \"x\"\ncommand = \"{}\"\nargs = [\"{}\"]",
            "c".repeat(4000),
            "a".repeat(100)
        )),
        &["4101 characters", "4096"],
    );
    one_mistake(
        &run("image = \"x\"\ncommand = \"a\"\nonstart = \"b\""),
        &["the same thing"],
    );
    one_mistake(
        &run("image = \"x\"\ntype = \"ssh\"\nargs = [\"b\"]"),
        &["entry point"],
    );
    one_mistake(&run("image = \"x\"\nports = [\"80\"]"), &["/tcp or /udp"]);
    one_mistake(
        &run("image = \"x\"\nenv = { \"A-B\" = \"1\" }"),
        &["name of an environment variable"],
    );
    one_mistake(&run("image = \"x\"\nenv = { A = 1 }"), &["in quotes"]);
    one_mistake(
        &run("image = \"x\"\nenv = { A = \"1\" }\nsecrets = { A = { env = \"A\" } }"),
        &["`A` is in `run.env` and in `run.secrets`"],
    );
    one_mistake(
        &run(
            "template = \"t\"\n[run.login]\nregistry = \"r\"\nuser = \"u\"\npassword = { env = \"P\" }",
        ),
        &["a login is for `run.image`"],
    );
}

#[test]
fn a_secret_is_never_inline_and_never_shown() {
    const CANARY: &str = "canary-5ae1";
    for lines in [
        format!("env = {{ HF_TOKEN = \"{CANARY}\" }}"),
        format!("secrets = {{ HF_TOKEN = \"{CANARY}\" }}"),
        format!("secrets = {{ HF_TOKEN = {{ value = \"{CANARY}\" }} }}"),
        format!("env = {{ HF_TOKEN = \"{CANARY} }}"),
        format!("[run.login]\nregistry = \"r\"\nuser = \"u\"\npassword = \"{CANARY}\""),
        format!(
            "[data.storage]\naccess_key = \"{CANARY}\"\nsecret_key = {{ value = \"{CANARY}\" }}"
        ),
        format!("[data.storage]\nendpoint = \"https://me:{CANARY}@s3.example\""),
        format!("[data.storage]\nendpoint = \"https://s3.example?signature={CANARY}\""),
        format!("secrets = \"{CANARY}\""),
    ] {
        let text = format!("name = \"a\"\n[run]\nimage = \"x\"\n{lines}\n");
        let errors = parse("a.toml", &text).unwrap_err();
        for error in errors {
            let mut shown = format!("{error} {error:?}");
            GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
                .with_context_lines(5)
                .render_report(&mut shown, &error)
                .unwrap();
            assert!(!shown.contains(CANARY), "{shown}");
        }
    }
    one_mistake(
        "name = \"a\"\n[price]\nmax = \"$1/gpu-hour\"\n[run]\nimage = \"x\"\nenv = { HF_TOKEN = \"t\" }",
        &["6:9", "looks like a secret", "secrets = { HF_TOKEN = { env"],
    );
}

#[test]
fn an_error_is_shown_with_its_line() {
    let errors = parse("policies/a.toml", &with("replicas = 0", "")).unwrap_err();
    let mut shown = String::new();
    GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .render_report(&mut shown, &errors[0])
        .unwrap();
    for part in [
        "policies/a.toml:1:12",
        "replicas = 0",
        "a whole number from 1 to 1000",
        "write it as 1",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn columns_count_characters() {
    one_mistake(
        &with("owner = \"Ærøskøbing\"\ntags = [\"ø\", 1]", ""),
        &["2:14 "],
    );
}

#[test]
fn the_name_is_known_of_a_file_that_is_wrong() {
    let name = |text: &str| {
        let errors = parse("policies/from-file.toml", text).unwrap_err();
        errors[0].job_name().map(String::from)
    };
    assert_eq!(name("name = \"mine\""), Some("mine".to_owned()));
    assert_eq!(name("name = \"mine\"\nx = ["), Some("mine".to_owned()));
    assert_eq!(name("name = 5"), Some("from-file".to_owned()));
}

#[test]
fn secrets_logins_and_ports_are_read() {
    let text = with(
        "",
        "[run.login]\nregistry = \"ghcr.io\"\nuser = \"me\"\npassword = { file = \"/run/pw\" }\n",
    )
    .replace(
        "image = \"x\"",
        "image = \"x\"\nsecrets = { HF_TOKEN = { env = \"HF\" } }\nports = [\"8000/tcp\", \"53/udp\"]",
    );
    let run = parse("a.toml", &text).unwrap().run;
    assert_eq!(run.secrets["HF_TOKEN"], SecretRef::Env("HF".to_owned()));
    assert_eq!(
        run.login.unwrap().password,
        SecretRef::File("/run/pw".into())
    );
    assert_eq!(
        run.ports,
        [(8000, "tcp".to_owned()), (53, "udp".to_owned())]
    );
}

#[test]
fn the_example_is_right_and_asks_for_no_secret() {
    let job = parse("example.toml", example()).unwrap();
    assert_eq!(job.finish, Finish::Work);
    assert_eq!(job.checkpoint_place, Some(CheckpointPlace::Remote));
    assert_eq!(job.budget.total, Some(Money::dollars(25)));
    assert!(job.run.secrets.is_empty());
}

#[test]
fn a_directory_is_read_as_far_as_it_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let named = |name: &str| LEAST.replace("\"a\"", &format!("\"{name}\""));
    write("b.toml", &named("second"));
    write("a.toml", &named("first"));
    write("c.toml", "name = \"broken\"\nreplicas = 0\n");
    write("d.toml", &named("twice"));
    write("e.toml", &named("twice"));
    write("f.toml", &"#".repeat(300 * 1024));
    std::fs::write(dir.path().join("g.toml"), b"name = \"\xff\"").unwrap();
    std::fs::create_dir(dir.path().join("h.toml")).unwrap();
    write(".hidden.toml", "?");
    write("notes.txt", "?");
    let loaded = load_dir(dir.path());
    let names: Vec<&str> = loaded.jobs.iter().map(|j| j.job.name.as_str()).collect();
    assert_eq!(names, ["first", "second"]);
    let told: Vec<String> = loaded
        .errors
        .iter()
        .map(|e| {
            let file = Path::new(e.file()).file_name().unwrap().to_string_lossy();
            format!("{file}: {}", e.message())
        })
        .collect();
    for (file, part) in [
        ("c.toml", "from 1 to 1000"),
        ("d.toml", "e.toml"),
        ("e.toml", "d.toml"),
        ("f.toml", "larger than 256 KB"),
        ("g.toml", "not UTF-8"),
        ("h.toml", "not a file"),
    ] {
        assert!(
            told.iter().any(|t| t.starts_with(file) && t.contains(part)),
            "{file} {part}: {told:#?}"
        );
    }
    let twice = loaded
        .errors
        .iter()
        .filter(|e| e.job_name().is_some_and(|n| n.as_str() == "twice"));
    assert_eq!(twice.count(), 2);
    let order: Vec<&str> = loaded.errors.iter().map(PolicyError::file).collect();
    assert!(order.is_sorted());
}

#[test]
fn a_missing_directory_is_told() {
    let loaded = load_dir(Path::new("no/such/directory"));
    assert!(loaded.jobs.is_empty());
    assert_eq!(loaded.errors.len(), 1);
    assert!(loaded.errors[0].message().contains("does not exist"));
}

/// Lines that look like policies, in any order and with any slips.
fn tomlish() -> impl Strategy<Value = String> {
    let keys: Vec<String> = fields::SECTIONS
        .iter()
        .flat_map(|s| {
            s.fields
                .iter()
                .map(|f| f.key.to_owned())
                .chain([s.header()])
        })
        .collect();
    let value = prop_oneof![
        Just("\"5%\"".to_owned()),
        Just("{ env = \"X\" }".to_owned()),
        Just("[1, \"NO\", {}]".to_owned()),
        Just("\"0 22 * * 1-5\"".to_owned()),
        Just("nan".to_owned()),
        "\"[$0-9.]{0,9}[/a-zGBM-]{0,9}\"",
        "-?[0-9]{1,20}",
        "\\PC{0,12}",
    ];
    let line = (prop::sample::select(keys), value).prop_map(|(key, value)| {
        if key.starts_with('[') {
            key
        } else {
            format!("{key} = {value}")
        }
    });
    prop::collection::vec(line, 0..30).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in prop_oneof![tomlish(), "\\PC{0,200}", "[\\[\\]{}=\"'#.\\na-z0-9]{0,200}"]) {
        match parse("a.toml", &text) {
            Ok(_) => {}
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                for error in errors {
                    prop_assert!(error.line() >= 1 && error.column() >= 1);
                    prop_assert!(!error.message().contains("could not be built"), "{:?}", error);
                    let mut shown = String::new();
                    GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
                        .render_report(&mut shown, &error)
                        .unwrap();
                }
            }
        }
    }
}
