//! `haggle doctor`: each of the usual misconfigurations is found, and not where it is not.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::support::{Gateway, POLICY, Running, haggle};
use haggle::ports::{Reply, Request};
use serde_json::{Value, json};
use tempfile::TempDir;

const TOKEN: &str = "at_right";

/// A directory in which nothing is wrong: limits, a policy whose image is nobody's secret, a token.
struct Scene {
    directory: TempDir,
    gateway: Gateway,
    token: &'static str,
}

impl Scene {
    fn new(script: impl Fn(u64, &Request) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let gateway = Gateway::start(None, Box::new(script));
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("policies")).unwrap();
        let scene = Self {
            directory,
            gateway,
            token: TOKEN,
        };
        scene.policy("train", POLICY);
        scene.configure("[limits]\nper_day = \"$20\"\nper_month = \"$300\"\n");
        scene
    }

    fn healthy() -> Self {
        Self::new(|_, _| None)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// `haggle.toml`: the marketplace's own API, and what else is given.
    fn configure(&self, rest: &str) {
        self.configure_whole(&format!(
            "listen = \"127.0.0.1:0\"\n[provider]\nkind = \"vast\"\nbase_url = \"{}\"\n{rest}",
            self.gateway.origin
        ));
    }

    fn configure_whole(&self, text: &str) {
        fs::write(self.path().join("haggle.toml"), text).unwrap();
    }

    fn policy(&self, file: &str, text: &str) {
        // A registry that nobody has is asked on this machine, and at once.
        let text = text.replace("ghcr.io/me/private:1", "127.0.0.1:1/me/image:1");
        fs::write(self.path().join(format!("policies/{file}.toml")), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = haggle(self.path());
        command.args(args).env("HAGGLE_TOKEN", self.token);
        command
    }

    fn runs(&self, args: &[&str]) {
        let output = self.command(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {stderr}");
    }

    /// What is found, asking the marketplace or not.
    fn report(&self, args: &[&str]) -> Value {
        self.report_of(&mut self.command(args))
    }

    fn report_of(&self, command: &mut Command) -> Value {
        let output = command.args(["doctor", "--json"]).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        let healthy = report["healthy"] == true;
        assert_eq!(healthy, output.status.success(), "{report}");
        for finding in report["findings"].as_array().unwrap() {
            let said = finding["found"].as_str().unwrap();
            assert!(!said.contains(self.token) && !said.contains('\n'), "{said}");
            // What is wrong comes with what would be right.
            let advised = finding["advice"].is_string() || finding["what"] == "secrets";
            assert!(finding["health"] == "ok" || advised, "{finding}");
        }
        report
    }

    fn offline(&self) -> Value {
        let mut command = haggle(self.path());
        command.env("HAGGLE_TOKEN", self.token);
        let output = command
            .args(["doctor", "--offline", "--json"])
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// All of one thing: how it is, and the line.
fn of(report: &Value, what: &str) -> Vec<(String, String)> {
    let findings = report["findings"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    findings
        .iter()
        .filter(|finding| finding["what"] == what)
        .map(|finding| (text(&finding["health"]), text(&finding["found"])))
        .collect()
}

/// It is found, with these words.
#[track_caller]
fn found(report: &Value, what: &str, health: &str, words: &str) {
    let all = of(report, what);
    let one = |(is, said): &(String, String)| is == health && said.contains(words);
    assert!(
        all.iter().any(one),
        "{what} {health} {words:?}: {all:?}\n{report}"
    );
}

/// Nothing is wrong with it.
#[track_caller]
fn fine(report: &Value, what: &str) {
    let all = of(report, what);
    assert!(
        all.iter().all(|(health, _)| health == "ok"),
        "{what}: {all:?}"
    );
}

/// Nothing is wrong with it, and it was looked at.
#[track_caller]
fn looked(report: &Value, what: &str) {
    assert!(!of(report, what).is_empty(), "{what}: {report}");
    fine(report, what);
}

fn reply(body: &Value) -> Reply {
    Reply {
        status: 200,
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: body.to_string().into(),
    }
}

// ---------------------------------------------------------------------------- nothing, and each thing

#[test]
fn where_nothing_is_wrong_nothing_is_found() {
    let scene = Scene::healthy();
    scene.runs(&["run", "--once"]);
    let report = scene.report(&[]);
    assert_eq!(report["healthy"], true, "{report}");
    for what in [
        "configuration",
        "database",
        "page",
        "installation",
        "policies",
        "limits",
        "address",
        "clock",
        "token",
        "account",
        "credit",
        "instances",
        "bill",
        "bids",
    ] {
        looked(&report, what);
    }
    for what in [
        "guard",
        "secrets",
        "paused",
        "leftovers",
        "notify",
        "runway",
        "spending",
    ] {
        assert_eq!(of(&report, what), [], "{what}");
    }
}

#[test]
fn a_token_that_is_missing_wrong_or_of_another_account_is_found() {
    let mut scene = Scene::healthy();
    scene.runs(&["run", "--once"]);
    looked(&scene.report(&[]), "token");
    let report = scene.report_of(&mut haggle(scene.path()));
    found(&report, "token", "fail", "HAGGLE_TOKEN is not set");
    scene.token = "at_somebody_elses";
    let report = scene.report(&[]);
    found(&report, "account", "fail", "the database is bound to");

    let gateway = Gateway::plain(Some("the right one"));
    let text = format!(
        "[provider]\nkind = \"vast\"\nbase_url = \"{}\"\n",
        gateway.origin
    );
    scene.configure_whole(&text);
    let report = scene.report(&[]);
    found(&report, "account", "fail", "the token was refused");
}

#[cfg(unix)]
#[test]
fn a_secrets_file_that_everybody_can_read_is_found() {
    use std::os::unix::fs::PermissionsExt as _;
    let scene = Scene::healthy();
    let file = scene.path().join("token");
    fs::write(&file, TOKEN).unwrap();
    let open = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    scene.configure("token = { file = \"token\" }\n");
    open(0o644);
    let report = scene.offline();
    found(&report, "secret files", "warn", "token (provider.token)");
    open(0o640);
    looked(&scene.offline(), "secret files");
}

#[test]
fn an_address_in_clear_or_of_somebody_else_is_found() {
    let scene = Scene::healthy();
    let at = |url: &str| {
        let text = format!("[provider]\nkind = \"vast\"\nbase_url = \"{url}\"\n");
        scene.configure_whole(&text);
        scene.offline()
    };
    found(&at("http://console.vast.ai"), "address", "fail", "in clear");
    let report = at("https://vast.example.com/api");
    found(&report, "address", "warn", "vast.example.com");
    looked(&at("https://console.vast.ai"), "address");
}

#[test]
fn a_clock_that_is_off_is_found() {
    let scene = Scene::new(|_, _| {
        let mut reply = reply(&json!({}));
        let date = "Tue, 01 Dec 2020 00:00:00 GMT".to_owned();
        reply.headers.push(("date".to_owned(), date));
        Some(reply)
    });
    let report = scene.report(&[]);
    found(&report, "clock", "fail", "ahead of the marketplace's");
}

#[test]
fn a_time_zone_that_does_not_exist_is_found() {
    let scene = Scene::healthy();
    scene.configure_whole("timezone = \"Europe/Berlim\"\n");
    let report = scene.offline();
    found(&report, "configuration", "fail", "timezone");
    scene.configure_whole("timezone = \"Europe/Berlin\"\n");
    looked(&scene.offline(), "configuration");
}

#[test]
fn a_database_that_cannot_be_used_is_found() {
    let scene = Scene::healthy();
    found(
        &scene.offline(),
        "database",
        "warn",
        "none at haggle.db yet",
    );
    scene.runs(&["run", "--once"]);
    looked(&scene.offline(), "database");
    let of_database = |database: &str| {
        let mut command = scene.command(&["--database", database]);
        scene.report_of(&mut command)
    };
    let report = of_database("nowhere/haggle.db");
    found(&report, "database", "fail", "there is no directory nowhere");
    if cfg!(target_os = "linux") {
        let report = of_database("/proc/self/haggle.db");
        found(&report, "disk", "fail", "no file can be made in /proc/self");
    }
    fs::write(
        scene.path().join("diary.db"),
        "no database at all".repeat(100),
    )
    .unwrap();
    found(
        &of_database("diary.db"),
        "database",
        "unreachable",
        "damaged",
    );

    let connection = rusqlite::Connection::open(scene.path().join("haggle.db")).unwrap();
    let later = "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
                 VALUES (999, 'later', '2031-01-01T00:00:00Z', '1')";
    connection.execute(later, []).unwrap();
    drop(connection);
    let report = scene.offline();
    found(&report, "database", "fail", "newer than this haggle");
    assert!(report.to_string().contains("update haggle"), "{report}");
}

#[test]
fn a_disk_that_is_nearly_full_is_found() {
    let scene = Scene::healthy();
    fs::create_dir(scene.path().join("small")).unwrap();
    let line = format!(
        "mount -t tmpfs -o size=8m none small && exec {} doctor --offline --json --database small/haggle.db",
        env!("CARGO_BIN_EXE_haggle")
    );
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &line])
        .current_dir(scene.path())
        .output();
    let Some(report) = output
        .ok()
        .and_then(|output| serde_json::from_slice::<Value>(&output.stdout).ok())
    else {
        // Without namespaces there is no small disk; the bounds are tested beside the code.
        return;
    };
    found(&report, "disk", "fail", "nearly full");
    found(&report, "disk", "warn", "in memory (tmpfs)");
}

#[test]
fn policies_that_are_missing_broken_or_there_twice_are_found() {
    let scene = Scene::healthy();
    looked(&scene.offline(), "policies");
    scene.policy("again", POLICY);
    let report = scene.offline();
    found(&report, "policies", "fail", "train");
    assert!(
        of(&report, "policies")[0].1.contains("again.toml"),
        "{report}"
    );
    scene.policy("again", "name = 7\n");
    found(&scene.offline(), "policies", "fail", "1 valid");
    for file in ["again", "train"] {
        fs::remove_file(scene.path().join(format!("policies/{file}.toml"))).unwrap();
    }
    found(&scene.offline(), "policies", "warn", "none in policies");
    fs::remove_dir(scene.path().join("policies")).unwrap();
    found(
        &scene.offline(),
        "policies",
        "fail",
        "no directory of policies",
    );
}

#[test]
fn limits_that_are_absent_or_contradict_each_other_are_found() {
    let scene = Scene::healthy();
    looked(&scene.offline(), "limits");
    scene.policy("train", &POLICY.replace("[budget]\ntotal = \"$4\"\n", ""));
    scene.configure("");
    let report = scene.offline();
    found(
        &report,
        "limits",
        "warn",
        "nothing but the credit bounds what is spent for train",
    );
    for (limits, words) in [
        (
            "per_day = \"$30\"\nper_month = \"$20\"",
            "limits: per_day $30.00 is over per_month $20.00",
        ),
        (
            "per_day = \"$0\"",
            "per_day is 0, so nothing is ever rented",
        ),
        (
            "per_day = \"$5\"\n[limits.owner.ml]\nper_day = \"$9\"",
            "limits.owner.ml: per_day $9.00 is over that of limits, $5.00",
        ),
        (
            "per_day = \"$5\"\ngpus_max = 2\n[limits.tag.night]\ngpus_max = 3",
            "limits.tag.night: gpus_max 3 is over that of limits, 2",
        ),
    ] {
        scene.configure(&format!("[limits]\n{limits}\n"));
        found(&scene.offline(), "limits", "warn", words);
    }
    scene.configure("[limits]\nper_day = \"$5\"\n[limits.owner.ml]\nper_day = \"$5\"\n");
    looked(&scene.offline(), "limits");
}

#[test]
fn a_reserve_over_the_credit_is_found() {
    let scene = Scene::healthy();
    looked(&scene.report(&[]), "credit");
    scene.configure("[limits]\ncredit_reserve = \"$1000000\"\n");
    found(&scene.report(&[]), "credit", "fail", "not over the reserve");
}

#[test]
fn a_credit_that_runs_out_while_nothing_is_paid_in_is_found() {
    let scene = Scene::healthy();
    scene.runs(&["run", "--once", "--live"]);
    let report = scene.report(&[]);
    let credit = of(&report, "credit")[0].1.clone();
    looked(&report, "runway");
    // All but a little of it is kept back.
    let dollars: f64 = credit[1..].split(',').next().unwrap().parse().unwrap();
    let reserve = format!("[limits]\ncredit_reserve = \"${:.2}\"\n", dollars - 0.5);
    scene.configure(&reserve);
    let report = scene.report(&[]);
    found(&report, "runway", "warn", "autobilling is off");
    let body = "{\"balance_threshold_enabled\": true, \"balance_threshold\": 10}";
    scene.runs(&["api", "update_user", "--body", body, "--yes"]);
    looked(&scene.report(&[]), "runway");
}

#[test]
fn a_daemon_that_is_not_there_or_a_dry_run_and_a_missing_guard_are_found() {
    let scene = Scene::healthy();
    scene.runs(&["run", "--once"]);
    found(&scene.offline(), "daemon", "warn", "none runs");
    let daemon = |args: &[&str], name: &str| {
        let mut command = scene.command(args);
        let requests = scene.gateway.requests();
        let running = Running::start(&mut command, scene.path(), name);
        // Its first tick begins with the account, after the heartbeat has told the mode.
        let polls = |all| all >= requests + 2;
        scene.gateway.wait_until("the daemon polls", polls);
        running
    };
    let mut dry = daemon(&["run"], "dry");
    found(&scene.offline(), "daemon", "warn", "as a dry run");
    dry.terminate();
    dry.wait();
    let mut live = daemon(&["run", "--live"], "live");
    let report = scene.offline();
    looked(&report, "daemon");
    found(&report, "guard", "warn", "none has ever looked");
    let guard = [
        "guard",
        "--once",
        "--state",
        "guard.json",
        "--heartbeat",
        "haggle.db.heartbeat",
    ];
    scene.runs(&guard);
    looked(&scene.offline(), "guard");
    live.terminate();
    live.wait();
}

#[test]
fn secrets_that_a_policy_names_and_nobody_has_are_found() {
    let scene = Scene::healthy();
    let secrets = "[run]\nsecrets = { KEY = { env = \"HAGGLE_TEST_NOWHERE\" } }";
    scene.policy("train", &POLICY.replace("[run]", secrets));
    found(
        &scene.offline(),
        "secrets",
        "warn",
        "HAGGLE_TEST_NOWHERE is not set",
    );
    let mut command = scene.command(&[]);
    command.env("HAGGLE_TEST_NOWHERE", "hush");
    assert_eq!(of(&scene.report_of(&mut command), "secrets"), []);
}

/// A bucket that answers to any key, in which nothing is.
fn bucket(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            let head = format!("content-length: {}\r\nconnection: close", answer.len());
            let status = if answer.contains("NoSuchKey") {
                404
            } else {
                403
            };
            write!(stream, "HTTP/1.1 {status} X\r\n{head}\r\n\r\n{answer}").unwrap();
        }
    });
    origin
}

#[test]
fn storage_that_cannot_be_reached_or_refuses_its_key_is_found() {
    let scene = Scene::healthy();
    let with = |endpoint: &str| {
        let storage = format!(
            "[data.storage]\nendpoint = \"{endpoint}\"\nregion = \"eu-1\"\nbucket = \"a-bucket\"\n\
             access_key = {{ env = \"HAGGLE_TEST_ACCESS\" }}\nsecret_key = {{ env = \"HAGGLE_TEST_SECRET\" }}\n"
        );
        let policy = POLICY
            .replace("[run]", "[run]\nsupervised = true\ncommand = \"true\"")
            .replace(
                "disposable = true",
                "disposable = true\ncheckpoint = \"/work/ckpt\"",
            );
        scene.policy("train", &format!("{policy}{storage}"));
        let mut command = scene.command(&[]);
        command
            .env("HAGGLE_TEST_ACCESS", "AKTEST")
            .env("HAGGLE_TEST_SECRET", "hush-hush");
        scene.report_of(&mut command)
    };
    looked(
        &with(&bucket("<Error><Code>NoSuchKey</Code></Error>")),
        "storage",
    );
    let report = with(&bucket("<Error><Code>InvalidAccessKeyId</Code></Error>"));
    found(
        &report,
        "storage",
        "fail",
        "does not know the access key's id",
    );
    found(
        &with("http://127.0.0.1:1"),
        "storage",
        "unreachable",
        "no connection",
    );
    // Without its keys it is not asked, and that they are not there is told.
    let report = scene.report(&[]);
    assert_eq!(of(&report, "storage"), []);
    found(&report, "secrets", "warn", "data.storage.access_key");
}

#[test]
fn that_nobody_is_told_or_a_channel_is_out_of_reach_is_found() {
    let scene = Scene::healthy();
    let live = |rest: &str| {
        let text = format!(
            "live = true\nlisten = \"127.0.0.1:0\"\n[provider]\nkind = \"vast\"\nbase_url = \"{}\"\n{rest}",
            scene.gateway.origin
        );
        scene.configure_whole(&text);
        let mut command = scene.command(&[]);
        for name in [
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
        ] {
            command.env_remove(name);
        }
        command.env("HAGGLE_TEST_HOOK", "http://127.0.0.1:1/hook");
        command.env(
            "HAGGLE_TEST_HOOK_THERE",
            format!("{}/hook", scene.gateway.origin),
        );
        scene.report_of(&mut command)
    };
    found(&live(""), "notify", "warn", "nobody is told of anything");
    let slack = |variable: &str| {
        live(&format!(
            "[[notify]]\nname = \"chat\"\nkind = \"slack\"\nurl = {{ env = \"{variable}\" }}\n"
        ))
    };
    found(
        &slack("HAGGLE_TEST_HOOK"),
        "notify",
        "unreachable",
        "chat: its server cannot be reached",
    );
    found(
        &slack("HAGGLE_TEST_UNSET"),
        "notify",
        "fail",
        "chat cannot be used",
    );
    looked(&slack("HAGGLE_TEST_HOOK_THERE"), "notify");
}

#[test]
fn a_page_that_others_reach_or_that_cannot_be_served_is_found() {
    let scene = Scene::healthy();
    let at = |listen: &str, rest: &str| {
        scene.configure_whole(&format!("listen = \"{listen}\"\n{rest}"));
        scene.offline()
    };
    looked(&at("127.0.0.1:0", ""), "page");
    found(
        &at("0.0.0.0:0", ""),
        "page",
        "warn",
        "there is no web.token",
    );
    let file = scene.path().join("web-token");
    let token = "[web]\ntoken = { file = \"web-token\" }\n";
    found(&at("127.0.0.1:0", token), "page", "fail", "web.token");
    fs::write(&file, "short").unwrap();
    found(
        &at("127.0.0.1:0", token),
        "page",
        "fail",
        "fewer than 16 characters",
    );
    fs::write(&file, "0123456789abcdef").unwrap();
    looked(&at("127.0.0.1:0", token), "page");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    found(&at(&listen, ""), "page", "fail", "cannot be listened on");
}

#[test]
fn an_image_of_which_nobody_knows_whether_it_can_be_pulled_is_told() {
    let scene = Scene::healthy();
    found(
        &scene.report(&[]),
        "image",
        "warn",
        "127.0.0.1:1/me/image:1",
    );
    assert_eq!(of(&scene.offline(), "image"), []);
}

#[test]
fn an_account_without_an_ssh_key_is_found() {
    let scene = Scene::healthy();
    assert_eq!(of(&scene.report(&[]), "ssh key"), [], "no job needs one");
    scene.policy("train", &POLICY.replace("[run]", "[run]\ntype = \"ssh\""));
    found(
        &scene.report(&[]),
        "ssh key",
        "warn",
        "the instances of train",
    );
    let key = "ssh_key=ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3f6k8pYcCwYk0Zr1uXoS2yYj1e6z0kz7v2y1w3x4y5 me";
    scene.runs(&["api", "create_ssh_key", "--param", key, "--yes"]);
    looked(&scene.report(&[]), "ssh key");
}

#[test]
fn instances_of_another_installation_and_unknown_ones_are_found() {
    let scene = Scene::healthy();
    scene.runs(&["run", "--once", "--live"]);
    assert_eq!(of(&scene.report(&[]), "leftovers"), []);
    // The same account, another database.
    let report = scene.report(&["--database", "other.db"]);
    found(&report, "leftovers", "warn", "of another haggle");
    // The same installation, and a database that knows nothing of what it rented.
    let connection = rusqlite::Connection::open(scene.path().join("haggle.db")).unwrap();
    connection
        .pragma_update(None, "foreign_keys", false)
        .unwrap();
    connection.execute("DELETE FROM held", []).unwrap();
    connection.execute("DELETE FROM intents", []).unwrap();
    drop(connection);
    let report = scene.report(&[]);
    found(&report, "leftovers", "warn", "in no record");
}

#[test]
fn a_kill_that_still_holds_and_a_job_that_is_paused_are_found() {
    let scene = Scene::healthy();
    scene.runs(&["run", "--once"]);
    assert_eq!(of(&scene.offline(), "spending"), []);
    scene.runs(&["pause", "train"]);
    scene.runs(&["run", "--once"]);
    let report = scene.offline();
    found(&report, "paused", "warn", "train is paused");
    scene.runs(&["resume", "train"]);
    scene.runs(&["run", "--once"]);
    assert_eq!(of(&scene.offline(), "paused"), []);
    fs::write(scene.path().join("haggle.db.killed"), "").unwrap();
    found(
        &scene.offline(),
        "spending",
        "warn",
        "forbidden by `haggle kill`",
    );
}
