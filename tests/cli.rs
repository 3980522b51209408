//! The command line as a user meets it: what is printed where, and how the process ends.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

/// Runs haggle in an empty directory, without the environment's own settings.
fn haggle(directory: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haggle"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HAGGLE_") {
            command.env_remove(name);
        }
    }
    command
        .current_dir(directory)
        .args(args)
        .output()
        .expect("haggle starts")
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_str(&stdout(output)).unwrap_or_else(|error| {
        panic!(
            "{error}: stdout {}, stderr {}",
            stdout(output),
            stderr(output)
        )
    })
}

#[test]
fn wrong_usage_is_the_users_to_mend() {
    let directory = directory();
    for args in [
        &["frobnicate"][..],
        &[],
        &["resume"],
        &["resume", "a-job", "--all"],
        &["spend", "--by", "moon"],
        &["pause", "Not A Job"],
        &["market", "--speed", "-1"],
    ] {
        let output = haggle(directory.path(), args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_version_are_data() {
    let directory = directory();
    for args in [&["--help"][..], &["--version"], &["market", "--help"]] {
        let output = haggle(directory.path(), args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty(), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
    }
    let help = stdout(&haggle(directory.path(), &["--help"]));
    for command in [
        "run",
        "plan",
        "offers",
        "explain",
        "jobs",
        "instances",
        "logs",
        "ssh",
        "cp",
        "spend",
        "bill",
        "receipt",
        "pause",
        "resume",
        "stop",
        "done",
        "kill",
        "guard",
        "notify",
        "check",
        "init",
        "schema",
        "market",
        "backtest",
        "doctor",
        "api",
        "completions",
    ] {
        assert!(
            help.contains(&format!("\n  {command}")),
            "{command}: {help}"
        );
    }
}

#[test]
fn init_writes_a_policy_that_checks_and_is_never_overwritten() {
    let directory = directory();
    let output = haggle(directory.path(), &["init"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let path = directory.path().join("policies/my-job.toml");
    let written = fs::read_to_string(&path).unwrap();
    let output = haggle(directory.path(), &["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));

    let again = haggle(directory.path(), &["init"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        stderr(&again).contains("never overwritten"),
        "{}",
        stderr(&again)
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), written);
}

#[test]
fn init_names_the_job_as_the_file() {
    let directory = directory();
    fs::create_dir(directory.path().join("policies")).unwrap();
    for (file, name) in [("train", "train"), ("Not A Name", "my-job")] {
        let path = format!("policies/{file}.toml");
        let output = haggle(directory.path(), &["init", &path]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let written = fs::read_to_string(directory.path().join(path)).unwrap();
        assert!(written.contains(&format!("name = \"{name}\"")), "{written}");
    }
    let output = haggle(directory.path(), &["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
}

#[test]
fn a_dry_run_destroys_nothing_at_its_end() {
    let directory = directory();
    fs::create_dir(directory.path().join("policies")).unwrap();
    let output = haggle(directory.path(), &["run", "--once", "--destroy-on-exit"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--live"), "{}", stderr(&output));
}

const FIVE_MISTAKES: &str = r#"name = "Bad Name"
replicas = "two"
colour = "blue"

[gpu]
models = ["RTX 4090"]
count = 0

[price]
max = "0.45"
"#;

#[test]
fn check_shows_every_mistake_of_every_file() {
    let directory = directory();
    fs::create_dir(directory.path().join("policies")).unwrap();
    fs::write(directory.path().join("policies/bad.toml"), FIVE_MISTAKES).unwrap();
    fs::write(directory.path().join("policies/worse.toml"), "name = ").unwrap();
    let output = haggle(directory.path(), &["check", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let document = json(&output);
    let errors = document["errors"].as_array().unwrap();
    let of = |file: &str| {
        errors
            .iter()
            .filter(|error| error["file"].as_str().unwrap().ends_with(file))
            .count()
    };
    assert!(of("bad.toml") >= 5, "{document:#}");
    assert!(of("worse.toml") >= 1, "{document:#}");
    for error in errors {
        assert!(error["line"].as_u64().unwrap() >= 1, "{error}");
        assert!(error["column"].as_u64().unwrap() >= 1, "{error}");
        assert!(!error["message"].as_str().unwrap().is_empty(), "{error}");
    }
    let named = haggle(directory.path(), &["check", "--json", "policies"]);
    assert_eq!(
        json(&named)["errors"].as_array().unwrap().len(),
        errors.len()
    );
    let text = haggle(directory.path(), &["check"]);
    assert_eq!(text.status.code(), Some(1));
    let shown = stdout(&text);
    assert!(shown.contains("bad.toml:3:"), "{shown}");
    assert!(shown.contains("colour = \"blue\""), "{shown}");
    assert!(
        !shown.contains('\u{1b}'),
        "no colours where no terminal is: {shown}"
    );
}

#[test]
fn check_warns_of_jobs_that_go_on_without_haggle() {
    let directory = directory();
    fs::create_dir(directory.path().join("policies")).unwrap();
    let policy = "name = \"train\"\n[price]\nmax = \"$1/gpu-hour\"\n[run]\nimage = \"a/b:c\"\n\
                  command = \"c\"\nsupervised = true\n";
    let path = directory.path().join("policies/train.toml");
    for (line, warned) in [("", false), ("fenced = false\n", true)] {
        fs::write(&path, format!("{policy}{line}")).unwrap();
        let output = haggle(directory.path(), &["check", "--json"]);
        assert_eq!(output.status.code(), Some(0), "it is no mistake");
        let warnings = json(&output)["warnings"].to_string();
        let told = "`train` has run.fenced = false";
        assert_eq!(warnings.contains(told), warned, "{warnings}");
        let shown = stderr(&haggle(directory.path(), &["check"]));
        assert_eq!(
            shown.contains(&format!("warning: {told}")),
            warned,
            "{shown}"
        );
    }
}

#[test]
fn a_job_that_nobody_knows_is_refused_with_those_that_are() {
    let directory = directory();
    haggle(directory.path(), &["init"]);
    let output = haggle(directory.path(), &["offers", "no-such-job"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains("error: there is no job named no-such-job"),
        "{text}"
    );
    assert!(text.contains("hint: known jobs: "), "{text}");
}

#[test]
fn without_a_database_reads_say_what_makes_one() {
    let directory = directory();
    haggle(directory.path(), &["init"]);
    for args in [
        &["instances"][..],
        &["spend"],
        &["pause", "my-job"],
        &["resume", "--all"],
        &["explain", "my-job"],
    ] {
        let output = haggle(directory.path(), args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let text = stderr(&output);
        assert!(
            text.contains("there is no database at haggle.db"),
            "{args:?}: {text}"
        );
        assert!(text.contains("hint: "), "{args:?}: {text}");
    }
    assert!(!directory.path().join("haggle.db").exists());
}

#[test]
fn kill_refuses_where_it_cannot_know_whose_instances() {
    let directory = directory();
    let output = haggle(directory.path(), &["kill", "--yes"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("--installation"),
        "{}",
        stderr(&output)
    );
}

/// A daemon that lives elsewhere has its token, and destroys what it holds once it hears of the kill.
#[test]
fn a_kill_that_comes_to_nothing_forbids_spending_all_the_same() {
    let directory = directory();
    haggle(directory.path(), &["init"]);
    let town = Town::open(directory.path());
    let run = ["run", "--once", "--json"];
    assert_eq!(
        town.haggle(directory.path(), "at_right", &run)
            .status
            .code(),
        Some(0)
    );
    let marked = directory.path().join("haggle.db.killed");
    // No token is at hand.
    let output = haggle(directory.path(), &["kill", "--yes"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("nothing was destroyed, and spending is forbidden"),
        "{said}"
    );
    assert!(said.contains("HAGGLE_TOKEN"), "{said}");
    assert!(marked.exists());
    fs::remove_file(&marked).unwrap();
    // The configuration has a word that nobody knows; where everything is, it says.
    let config = directory.path().join("haggle.toml");
    let before = fs::read_to_string(&config).unwrap_or_default();
    fs::write(&config, format!("{before}\n[notiffy]\nx = 1\n")).unwrap();
    let output = town.haggle(
        directory.path(),
        "at_right",
        &["kill", "--yes", "--within", "1s", "--json"],
    );
    let said = stderr(&output);
    assert!(
        said.contains("going on with where the database and the marketplace are"),
        "{said}"
    );
    assert!(
        stdout(&output).contains("\"kill_file_written\": true"),
        "{said}"
    );
    assert!(marked.exists());
    fs::remove_file(&marked).unwrap();
    // It is no TOML: where the marketplace is is not guessed.
    fs::write(&config, "[provider\n").unwrap();
    let output = haggle(directory.path(), &["kill", "--yes"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("spending is forbidden") && said.contains("haggle.toml"),
        "{said}"
    );
    assert!(marked.exists());
}

#[test]
fn a_missing_token_is_the_users_to_mend() {
    let directory = directory();
    haggle(directory.path(), &["init"]);
    let output = haggle(directory.path(), &["plan"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("HAGGLE_TOKEN"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_schema_is_one_json_document() {
    let directory = directory();
    let output = haggle(directory.path(), &["schema"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(json(&output)["properties"].is_object());
}

#[test]
fn completions_name_the_commands() {
    let directory = directory();
    for shell in ["bash", "zsh", "fish"] {
        let output = haggle(directory.path(), &["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(stdout(&output).contains("explain"), "{shell}");
    }
}

#[test]
fn a_configuration_with_an_unknown_key_is_refused() {
    let directory = directory();
    fs::write(directory.path().join("haggle.toml"), "databse = \"x.db\"\n").unwrap();
    let output = haggle(directory.path(), &["jobs"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("databse"), "{}", stderr(&output));
    let doctor = haggle(directory.path(), &["doctor", "--offline", "--json"]);
    assert_eq!(doctor.status.code(), Some(1));
    assert_eq!(json(&doctor)["healthy"], false);
}

#[test]
fn what_is_logged_is_said_by_a_variable_that_has_to_make_sense() {
    let directory = directory();
    fs::create_dir(directory.path().join("policies")).unwrap();
    let with = |log: &str, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_haggle"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HAGGLE_") {
                command.env_remove(name);
            }
        }
        // Nobody listens there, and the daemon says so in its log.
        command
            .current_dir(directory.path())
            .env("HAGGLE_TOKEN", "at_nowhere")
            .env("HAGGLE_PROVIDER__BASE_URL", "http://127.0.0.1:1/vastai")
            .env("HAGGLE_LISTEN", "127.0.0.1:0")
            .env("HAGGLE_LOG", log)
            .args(args)
            .output()
            .unwrap()
    };
    let quiet = stderr(&with("off", &["run", "--once"]));
    let lines = |text: &str, level: &str| text.lines().filter(|l| l.contains(level)).count();
    assert_eq!(lines(&quiet, "DEBUG") + lines(&quiet, "WARN"), 0, "{quiet}");
    let all = stderr(&with("haggle=debug", &["run", "--once"]));
    assert!(lines(&all, "DEBUG") > 0, "{all}");
    let wrong = with("haggle=debgu", &["check"]);
    assert_eq!(wrong.status.code(), Some(1));
    let told = stderr(&wrong);
    assert!(
        told.contains("HAGGLE_LOG") && told.contains("hint: "),
        "{told}"
    );
    // It is not in the red button's way, which fails here for want of a database.
    let kill = stderr(&with("debgu", &["kill", "--yes", "--database", "none.db"]));
    assert!(
        !kill.contains("HAGGLE_LOG") && kill.contains("--installation"),
        "{kill}"
    );
}

/// An embedded marketplace in a process of its own, ended with the test.
struct Town {
    child: Child,
    base_url: String,
}

impl Town {
    fn open(directory: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_haggle"))
            .current_dir(directory)
            .args(["market", "--listen", "127.0.0.1:0", "--token", "at_right"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().rsplit(' ').next().unwrap();
        let base_url = format!("http://{address}/vastai");
        Self { child, base_url }
    }

    fn haggle(&self, directory: &Path, token: &str, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_haggle"))
            .current_dir(directory)
            .env("HAGGLE_PROVIDER__BASE_URL", &self.base_url)
            .env("HAGGLE_TOKEN", token)
            .args(args)
            .output()
            .unwrap()
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_job_with_secrets_waits_until_the_user_agrees_that_the_gateway_sees_them() {
    let directory = directory();
    haggle(directory.path(), &["init"]);
    let path = directory.path().join("policies/my-job.toml");
    let policy = fs::read_to_string(&path).unwrap();
    let with_secret = policy.replacen(
        "[run]\n",
        "[run]\nsecrets = { HF_TOKEN = { file = \"my-secret\" } }\n",
        1,
    );
    assert_ne!(with_secret, policy);
    fs::write(&path, with_secret).unwrap();
    let town = Town::open(directory.path());
    let plan = |agreed: &str, args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_haggle"))
            .current_dir(directory.path())
            .env("HAGGLE_PROVIDER__BASE_URL", &town.base_url)
            .env("HAGGLE_PROVIDER__SHARE_JOB_SECRETS", agreed)
            .env("HAGGLE_TOKEN", "at_right")
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        output
    };
    let waiting = json(&plan("false", &["plan", "--json"]));
    assert_eq!(waiting["actions"], serde_json::json!([]), "{waiting:#}");
    let why = waiting["jobs"][0]["replicas"].to_string();
    assert!(why.contains("share_job_secrets"), "{why}");
    let text = stdout(&plan("false", &["plan"]));
    assert!(text.contains("provider.share_job_secrets"), "{text}");
    plan("false", &["run", "--once", "--listen", "127.0.0.1:0"]);
    let text = stdout(&plan("false", &["explain", "my-job"]));
    assert!(text.contains("provider.share_job_secrets"), "{text}");
    // Where it cannot be read nothing is rented either, and it is said which, and where it was looked for.
    let unread = json(&plan("true", &["plan", "--json"]));
    assert_eq!(unread["actions"], serde_json::json!([]), "{unread:#}");
    let why = unread["jobs"][0]["replicas"].to_string();
    assert!(
        why.contains("`run.secrets.HF_TOKEN` cannot be read: the secret's file my-secret"),
        "{why}"
    );
    let told = stderr(&plan("true", &["check"]));
    assert!(
        told.contains("`my-job` is not rented by a daemon"),
        "{told}"
    );
    fs::write(directory.path().join("my-secret"), "hunter2").unwrap();
    let agreed = json(&plan("true", &["plan", "--json"]));
    assert_eq!(agreed["actions"][0]["action"], "rent", "{agreed:#}");
}

#[test]
fn a_look_ahead_decides_and_changes_nothing() {
    let directory = directory();
    haggle(directory.path(), &["init"]);
    let town = Town::open(directory.path());
    let output = town.haggle(directory.path(), "at_right", &["plan", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let plan = json(&output);
    assert_eq!(plan["jobs"][0]["job"], "my-job");
    let rent = &plan["actions"][0];
    assert_eq!(rent["action"], "rent", "{plan:#}");
    let price: f64 = rent["price_dollars_per_hour"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(price > 0.0 && price <= 0.45, "{rent}");

    let output = town.haggle(
        directory.path(),
        "at_right",
        &["offers", "my-job", "--limit", "2", "--json"],
    );
    let offers = json(&output);
    assert_eq!(offers["jobs"][0]["best"].as_array().unwrap().len(), 2);
    assert!(!directory.path().join("haggle.db").exists());
}

#[test]
fn a_refused_token_is_the_users_to_mend_and_an_unreachable_gateway_is_not() {
    let directory = directory();
    haggle(directory.path(), &["init"]);
    let mut town = Town::open(directory.path());
    for args in [&["plan"][..], &["run", "--once"], &["doctor"]] {
        let output = town.haggle(directory.path(), "at_wrong", args);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{args:?}: {}",
            stderr(&output)
        );
        let all = stdout(&output) + &stderr(&output);
        assert!(all.contains("the token was refused"), "{args:?}: {all}");
        assert!(!all.contains("at_wrong"), "{args:?}: {all}");
    }
    town.child.kill().unwrap();
    town.child.wait().unwrap();
    for args in [&["plan"][..], &["run", "--once"], &["doctor"]] {
        let output = town.haggle(directory.path(), "at_right", args);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{args:?}: {}",
            stderr(&output)
        );
        let all = stdout(&output) + &stderr(&output);
        assert!(all.contains("cannot be reached"), "{args:?}: {all}");
    }
}

/// After a first tick, at which offers were seen and nothing was spent.
fn what_is_kept_is_written_for_other_programs(directory: &Path) {
    let all = |args: &[&str]| {
        let output = haggle(directory, args);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{args:?}: {}",
            stderr(&output)
        );
        output
    };
    let offers = stdout(&all(&["history", "export", "offers"]));
    let mut lines = offers.lines();
    let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!(columns[..4], ["from", "to", "offer", "machine"]);
    let in_lines = lines.count();
    let array = json(&all(&["history", "export", "offers", "--json"]));
    let array = array.as_array().unwrap();
    assert!(in_lines > 10 && array.len() == in_lines, "{in_lines}");
    for column in &columns {
        assert!(
            array.iter().all(|row| row.get(column).is_some()),
            "{column}"
        );
    }
    let none = json(&all(&[
        "history",
        "export",
        "offers",
        "--until",
        "2001-01-01",
        "--json",
    ]));
    assert_eq!(none, serde_json::json!([]));
    assert!(stdout(&all(&["history", "export", "decisions"])).contains(",plan\r\n"));
    assert_eq!(
        json(&all(&["history", "export", "ledger", "--json"])),
        serde_json::json!([])
    );
    let spend = stdout(&all(&["spend", "--by", "month", "--csv"]));
    assert!(
        spend.starts_with("month,gpu_dollars,disk_dollars,"),
        "{spend}"
    );
    let receipt = stdout(&all(&["receipt", "--html"]));
    assert!(receipt.starts_with("<!DOCTYPE html>") && receipt.ends_with("</html>\n"));
    let pruned = json(&all(&["history", "prune", "--keep", "30d", "--json"]));
    assert_eq!(pruned["rows"], 0);
    for (args, says) in [
        (
            &["history", "export", "offers", "--since", "soon"][..],
            "`soon` is no moment; right is",
        ),
        (
            &[
                "history", "export", "events", "--since", "1d", "--until", "2d",
            ],
            "nothing is between them",
        ),
        (
            &["history", "prune", "--keep", "1h"],
            "--keep must be a day at least",
        ),
        (&["receipt", "--csv", "--html"], "take one"),
    ] {
        let output = haggle(directory, args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            stderr(&output).contains(says),
            "{args:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_dry_run_leaves_what_reads_can_show() {
    let directory = directory();
    haggle(directory.path(), &["init"]);
    let town = Town::open(directory.path());
    let run = ["run", "--once", "--json"];
    let output = town.haggle(directory.path(), "at_right", &run);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(json(&output)["still_rented"].as_array().unwrap().len(), 0);
    for (args, key) in [
        (&["instances", "--all", "--json"][..], "instances"),
        (&["spend", "--by", "owner", "--json"], "rows"),
        (&["bill", "--json"], "rows"),
        (&["receipt", "--json"], "hosts"),
        (&["jobs", "--json"], "jobs"),
        (&["explain", "my-job", "--json"], "best"),
    ] {
        let output = haggle(directory.path(), args);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(json(&output)[key].is_array(), "{args:?}");
    }
    what_is_kept_is_written_for_other_programs(directory.path());
    let output = haggle(directory.path(), &["pause", "no-such-job"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("known jobs: my-job"),
        "{}",
        stderr(&output)
    );
    let output = haggle(directory.path(), &["pause", "my-job", "--json"]);
    assert_eq!(json(&output)["daemon_running"], false);

    // A database of a newer version is left as it is.
    let database = rusqlite::Connection::open(directory.path().join("haggle.db")).unwrap();
    database
        .execute(
            "UPDATE refinery_schema_history SET version = 999 WHERE version = \
             (SELECT max(version) FROM refinery_schema_history)",
            [],
        )
        .unwrap();
    drop(database);
    let output = haggle(directory.path(), &["jobs"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("newer"), "{}", stderr(&output));
}
