//! What it is operated with: units for systemd, tried with systemd's own tools and with the real
//! program in the environment that they make; pages for man; the Containerfile.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may stop")]
#![allow(clippy::print_stdout, reason = "a test says what it did")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::{Gateway, POLICY, Running, haggle, set_up};

/// Exposure that is still well, in tenths, as `systemd-analyze security --threshold` takes it.
const EXPOSURE_MAX: f64 = 1.5;

/// No message is waited for longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nor through so many others: life is told of ten times a second.
const MESSAGES_MAX: usize = 1200;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(path)
}

/// Whether a tool is here; where not, it is said what is skipped.
fn is_here(tool: &str, what: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    if !found {
        println!("skipped: {what}, for there is no {tool} here");
    }
    found
}

// --------------------------------------------------------------------------------------- systemd

const SERVICES: [&str; 2] = ["haggle.service", "haggle-guard.service"];
const TIMER: &str = "haggle-guard.timer";

/// Puts the units into a directory, with the program that was built in the place of the installed one.
fn installed(directory: &Path) -> Vec<PathBuf> {
    let put = |unit: &str| {
        let text = fs::read_to_string(deploy("systemd").join(unit)).unwrap();
        let built = text.replace("/usr/local/bin/haggle", env!("CARGO_BIN_EXE_haggle"));
        assert!(built != text || unit == TIMER, "{unit} starts what?");
        let path = directory.join(unit);
        fs::write(&path, built).unwrap();
        path
    };
    SERVICES.into_iter().chain([TIMER]).map(put).collect()
}

/// Whether systemd understands units, and what it says of them.
fn verified(units: &[PathBuf]) -> (bool, String) {
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(units)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}

#[test]
fn the_units_are_what_systemd_understands_without_a_word() {
    if !is_here("systemd-analyze", "the units are not verified") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let units = installed(directory.path());
    let (fine, said) = verified(&units);
    // What it says of units that are none of ours is the machine's.
    let of_ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("haggle") || !line.contains(".service"))
        .collect();
    assert!(fine, "{said}");
    assert_eq!(of_ours, Vec::<&str>::new());
}

#[test]
fn the_services_are_exposed_to_little() {
    if !is_here(
        "systemd-analyze",
        "how far the units are exposed is not reckoned",
    ) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    installed(directory.path());
    for unit in SERVICES {
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(directory.path().join(unit))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
        let level = said
            .lines()
            .find_map(|line| line.split("exposure level for ").nth(1))
            .and_then(|rest| rest.split_whitespace().nth(1))
            .and_then(|level| level.parse::<f64>().ok());
        println!("{unit}: exposure {level:?}, at most {EXPOSURE_MAX}");
        assert!(level.is_some_and(|level| level <= EXPOSURE_MAX), "{said}");
    }
}

/// A machine on which a unit runs: directories in the place of systemd's.
struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["etc/haggle/policies", "var/haggle", "credentials"] {
            fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("etc/haggle/haggle.toml"), "").unwrap();
        fs::write(directory.path().join("credentials/token"), "at_play\n").unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What a unit starts, as systemd starts it: its specifiers, environment, arguments and directory.
    fn command(&self, unit: &str) -> Command {
        let text = fs::read_to_string(deploy("systemd").join(unit)).unwrap();
        let at = |name: &str| self.path(name).display().to_string();
        let text = text
            .replace("%S", &at("var"))
            .replace("%E", &at("etc"))
            .replace("%d", &at("credentials"));
        let all = |key: &str| -> Vec<String> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(key));
            lines.map(|value| unquoted(value).to_owned()).collect()
        };
        let mut environment: Vec<(String, String)> = Vec::new();
        for pair in all("Environment=") {
            let (name, value) = pair.split_once('=').unwrap();
            environment.push((name.to_owned(), value.to_owned()));
        }
        let [start] = &all("ExecStart=")[..] else {
            panic!("{unit} starts more than one thing");
        };
        let mut arguments = Vec::new();
        for word in start.split_whitespace().skip(1) {
            let name = word.trim_matches(['$', '{', '}']);
            let known = environment.iter().find(|(known, _)| known == name);
            match known {
                Some((_, value)) if word.starts_with("${") => arguments.push(value.clone()),
                Some((_, value)) => {
                    arguments.extend(value.split_whitespace().map(str::to_owned));
                }
                None => arguments.push(word.to_owned()),
            }
        }
        let mut command = haggle(&self.path("var/haggle"));
        command.envs(environment).args(arguments);
        command
    }
}

/// A value of a unit without the quotes around it.
fn unquoted(value: &str) -> &str {
    let inside = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}

/// What a manager hears, message by message.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    heard: Vec<String>,
}

impl Manager {
    fn new(directory: &Path) -> Self {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            path,
            heard: Vec::new(),
        }
    }

    /// Where what is heard from now on begins.
    fn mark(&self) -> usize {
        self.heard.len()
    }

    /// The first message since a mark that is so; listens until there is one.
    fn hear(&mut self, since: usize, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let mut bytes = [0; 4096];
        let mut looked = since;
        loop {
            if let Some(found) = self.heard[looked..].iter().find(|message| is_so(message)) {
                return found.clone();
            }
            looked = self.heard.len();
            assert!(
                looked < since + MESSAGES_MAX,
                "no {what}: {:#?}",
                self.heard
            );
            let length = self.socket.recv(&mut bytes);
            let length = length.unwrap_or_else(|error| panic!("no {what}: {error}"));
            let message = String::from_utf8(bytes[..length].to_vec()).unwrap();
            self.heard.push(message);
        }
    }
}

fn signal(process: &Running, name: &str) {
    let id = process.id().to_string();
    let sent = Command::new("kill").args([name, &id]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn a_manager_is_told_of_the_real_daemon_from_its_start_to_its_end() {
    let gateway = Gateway::plain(Some("at_play"));
    let host = Host::new();
    set_up(&host.path("etc/haggle"), &gateway.base_url, POLICY);
    let config = host.path("etc/haggle/haggle.toml");
    let slow = fs::read_to_string(&config)
        .unwrap()
        .replace("\"10s\"", "\"10m\"");
    fs::write(&config, &slow).unwrap();
    let mut manager = Manager::new(&host.path(""));
    let mut command = host.command("haggle.service");
    command
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "300000");
    let mut daemon = Running::start(&mut command, &host.path(""), "daemon");
    let is_ready = |message: &str| message == "READY=1\n";
    let lives = |message: &str| message == "WATCHDOG=1\n";
    manager.hear(0, "READY", is_ready);
    manager.hear(0, "WATCHDOG", lives);
    let status = manager.hear(0, "STATUS of a tick", |message| {
        message.starts_with("STATUS=dry run, tick ")
    });
    let expected = ": 1 jobs, 0 instances at $0.0000/h, credit $";
    assert!(status.contains(expected), "{status}");
    assert!(!status.contains("cannot be used"), "{status}");
    // That it is alive is told again and again, not once.
    let mark = manager.mark();
    manager.hear(mark, "second WATCHDOG", lives);

    // A policy is broken, and read anew long before the next poll is due.
    fs::write(host.path("etc/haggle/policies/bad.toml"), "name = ").unwrap();
    let mark = manager.mark();
    signal(&daemon, "-HUP");
    let reloading = manager.hear(mark, "RELOADING", |message| message.contains("RELOADING=1"));
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.hear(mark, "READY again", is_ready);
    let between = &manager.heard[mark..];
    assert!(
        between
            .iter()
            .any(|message| message.contains("1 policy files cannot be used")),
        "{between:#?}"
    );
    assert!(daemon.is_alive(), "a hangup ends nothing");

    // What is not read anew is said.
    fs::write(&config, format!("timezone = \"Europe/Berlin\"\n{slow}")).unwrap();
    let mark = manager.mark();
    signal(&daemon, "-HUP");
    daemon.wait_to_say("the configuration was changed");
    manager.hear(mark, "READY a third time", is_ready);

    let mark = manager.mark();
    signal(&daemon, "-TERM");
    let stopping = manager.hear(mark, "STOPPING", |message| message.contains("STOPPING=1"));
    assert!(stopping.contains("STATUS=ending"), "{stopping}");
    assert!(daemon.wait().success());
    let leaked = manager
        .heard
        .iter()
        .any(|message| message.contains("at_play"));
    assert!(!leaked, "the token is in what is told");
    assert!(host.path("var/haggle/haggle.db").exists());
}

#[test]
fn without_a_manager_a_hangup_ends_nothing_either() {
    let gateway = Gateway::plain(Some("at_play"));
    let host = Host::new();
    set_up(&host.path("etc/haggle"), &gateway.base_url, POLICY);
    let mut command = host.command("haggle.service");
    command
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC");
    let mut daemon = Running::start(&mut command, &host.path(""), "daemon");
    daemon.wait_to_say("page at http://");
    signal(&daemon, "-HUP");
    daemon.wait_to_say("the policies were read anew");
    daemon.terminate();
    assert!(daemon.wait().success());
}

#[test]
fn the_guards_unit_looks_at_the_heartbeat_that_the_daemons_unit_writes() {
    let gateway = Gateway::plain(Some("at_play"));
    let host = Host::new();
    set_up(&host.path("etc/haggle"), &gateway.base_url, POLICY);
    let looked = |host: &Host| {
        let output = host.command("haggle-guard.service").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), format!("{said}{shown}"))
    };
    let mut command = host.command("haggle.service");
    let mut daemon = Running::start(&mut command, &host.path(""), "daemon");
    daemon.wait_to_say("page at http://");
    assert!(host.path("var/haggle/haggle.db.heartbeat").exists());
    gateway.wait_until("a first look", |requests| requests > 0);
    let (code, said) = looked(&host);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("the daemon is heard for the first time"),
        "{said}"
    );
    assert!(host.path("var/haggle/guard.json").exists());
    daemon.terminate();
    assert!(daemon.wait().success());
}

#[test]
fn the_timer_comes_often_enough_for_the_guard() {
    let timer = fs::read_to_string(deploy("systemd/haggle-guard.timer")).unwrap();
    let every = timer
        .lines()
        .find_map(|line| line.strip_prefix("OnUnitInactiveSec="))
        .unwrap();
    let service = fs::read_to_string(deploy("systemd/haggle-guard.service")).unwrap();
    let after = service.split("--after=").nth(1).unwrap();
    let minutes = |text: &str| -> u32 { text.split_once('m').unwrap().0.parse().unwrap() };
    assert!(minutes(every) * 3 <= minutes(after), "{every} is too rare");
}

/// Lines of hardening of a unit.
fn hardening(unit: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(deploy("systemd").join(unit)).unwrap();
    let from = text.find("UMask=").unwrap();
    text[from..]
        .lines()
        .take_while(|line| !line.is_empty() && !line.starts_with("LimitNOFILE"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_guard_is_as_hardened_as_the_daemon() {
    assert_eq!(
        hardening("haggle.service"),
        hardening("haggle-guard.service")
    );
}

/// Lines of the documents' shell that make other units of these.
fn templates_of_the_documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/operating.md")).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("sed -e"));
    lines
        .map(|line| {
            let (made, name) = line.split_once(" > ").unwrap();
            let made = Command::new("sh")
                .args(["-c", made])
                .current_dir(root)
                .output();
            (
                name.to_owned(),
                String::from_utf8(made.unwrap().stdout).unwrap(),
            )
        })
        .collect()
}

#[test]
fn units_of_several_accounts_share_nothing() {
    let templates = templates_of_the_documents();
    assert_eq!(templates.len(), 2, "{templates:#?}");
    let directory = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for (name, text) in templates {
        for place in ["%S/haggle", "%E/haggle"] {
            for (at, _) in text.match_indices(place) {
                let rest = &text[at + place.len()..];
                assert!(rest.starts_with("/%i"), "{name} shares {place}{rest:.20}");
            }
        }
        assert!(text.contains("StateDirectory=haggle/%i\n"), "{name}");
        assert!(
            text.contains("ConfigurationDirectory=haggle/%i\n"),
            "{name}"
        );
        let built = text.replace("/usr/local/bin/haggle", env!("CARGO_BIN_EXE_haggle"));
        let unit = directory.path().join(name.replace('@', "@lab"));
        fs::write(&unit, built).unwrap();
        units.push(unit);
    }
    if !is_here("systemd-analyze", "the templates are not verified") {
        return;
    }
    let (fine, said) = verified(&units);
    assert!(fine && !said.contains("haggle"), "{said}");
}

// ----------------------------------------------------------------------------------------- pages

#[test]
fn the_pages_are_what_troff_understands_without_a_word() {
    let directory = tempfile::tempdir().unwrap();
    let written = haggle(directory.path())
        .args(["man", "made/man1", "--json"])
        .output()
        .unwrap();
    assert!(written.status.success(), "{written:?}");
    let document: serde_json::Value = serde_json::from_slice(&written.stdout).unwrap();
    let pages: Vec<PathBuf> = document["pages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|page| {
            directory
                .path()
                .join("made/man1")
                .join(page.as_str().unwrap())
        })
        .collect();
    let there = fs::read_dir(directory.path().join("made/man1"))
        .unwrap()
        .count();
    assert_eq!(pages.len(), there);
    let commands = haggle::cli::command();
    assert!(pages.len() > commands.get_subcommands().count());
    if !is_here("groff", "the pages are not set") {
        return;
    }
    for page in pages {
        let set = Command::new("groff")
            .args(["-K", "utf8", "-man", "-Tutf8", "-ww", "-z"])
            .arg(&page)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&set.stderr);
        assert!(
            set.status.success() && said.is_empty(),
            "{}: {said}",
            page.display()
        );
    }
}

#[test]
fn each_shell_is_told_how_to_complete_the_commands() {
    let directory = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = haggle(directory.path())
            .args(["completions", shell])
            .output()
            .unwrap();
        assert!(output.status.success(), "{shell}");
        let script = String::from_utf8(output.stdout).unwrap();
        for command in haggle::cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(script.contains(name), "{shell} does not know {name}");
        }
    }
}

// ------------------------------------------------------------------------------------- container

/// The instructions of the Containerfile, each on one line.
fn instructions() -> Vec<(String, String)> {
    let text = fs::read_to_string(deploy("Containerfile")).unwrap();
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (word, rest) = line.split_once(' ').unwrap();
            (word.to_owned(), rest.trim().to_owned())
        })
        .collect()
}

#[test]
fn a_container_is_built_of_what_is_there_and_runs_as_nobody() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ignored = fs::read_to_string(root.join(".dockerignore")).unwrap();
    let all = instructions();
    let stages: Vec<usize> = (0..all.len()).filter(|&at| all[at].0 == "FROM").collect();
    let [_, last] = stages[..] else {
        panic!("a stage that builds, and one that is kept: {all:?}");
    };
    let made: &str = &all
        .iter()
        .find(|(word, rest)| word == "RUN" && rest.contains("cargo build"))
        .unwrap()
        .1;
    assert!(
        made.contains("--locked") && made.contains("--release"),
        "{made}"
    );
    let mut copied = BTreeSet::new();
    for (at, (word, rest)) in all
        .iter()
        .enumerate()
        .filter(|(_, (word, _))| word == "COPY")
    {
        let paths: Vec<&str> = rest
            .split_whitespace()
            .filter(|p| !p.starts_with("--"))
            .collect();
        let (to, from) = paths.split_last().unwrap();
        for from in from {
            if at < last {
                assert!(
                    root.join(from).exists(),
                    "{word} {rest}: there is no {from}"
                );
                let name = from.trim_end_matches('/');
                assert!(
                    !ignored.lines().any(|line| line == name),
                    "{name} is not sent"
                );
                copied.insert(name.to_owned());
            } else {
                // What is kept was made by the other stage, and lands where it is said to be.
                assert!(rest.contains("--from=build"), "{rest}");
                assert!(made.contains(from), "{from} is not made");
                assert_eq!(from.strip_prefix("/out"), Some(*to), "{rest}");
            }
        }
    }
    // All that the program is compiled of, and that the manifest names, is sent.
    for path in compiled_in(&root.join("src")) {
        let first = path.split('/').next().unwrap().to_owned();
        assert!(
            copied.contains(&first),
            "{path} is compiled in and not copied"
        );
    }
    for named in ["benches", "migrations"] {
        assert!(copied.contains(named), "{named} is needed to compile");
    }
    let kept = &all[last..];
    let has = |word: &str, text: &str| {
        kept.iter()
            .any(|(w, rest)| w == word && rest.contains(text))
    };
    assert!(has("USER", "65532"), "{kept:?}");
    assert!(
        !kept.iter().any(|(word, _)| word == "RUN"),
        "there is no shell to run it"
    );
    // What it starts, and asks for its health, is what the command line takes.
    for word in ["ENTRYPOINT", "HEALTHCHECK"] {
        let (_, rest) = kept.iter().find(|(w, _)| w == word).unwrap();
        let list: Vec<String> = serde_json::from_str(&rest[rest.find('[').unwrap()..]).unwrap();
        assert_eq!(list[0], "/usr/local/bin/haggle");
        if word == "HEALTHCHECK" {
            let read = haggle::cli::command().try_get_matches_from(list);
            assert!(read.is_ok(), "{read:?}");
        }
    }
}

/// What sources take in at compile time from outside `src`, by paths from the root.
fn compiled_in(directory: &Path) -> Vec<String> {
    let taken = regex::Regex::new(r#"include_(?:str|bytes)!\(\s*"((?:\.\./)+)([^"]+)""#).unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(compiled_in(&path));
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        // What only tests take in is not compiled into the program.
        let text = text.split("#[cfg(test)]").next().unwrap();
        let source = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
        if source.to_string_lossy().contains("tests") {
            continue;
        }
        let depth = source.components().count() - 1;
        for one in taken.captures_iter(text) {
            if one[1].matches("../").count() >= depth {
                found.push(one[2].to_owned());
            }
        }
    }
    found
}

#[test]
fn the_containers_health_is_that_its_tick_moves() {
    let gateway = Gateway::plain(Some("at_play"));
    let host = Host::new();
    set_up(&host.path("etc/haggle"), &gateway.base_url, POLICY);
    let (_, check) = instructions()
        .into_iter()
        .find(|(word, _)| word == "HEALTHCHECK")
        .unwrap();
    let list: Vec<String> = serde_json::from_str(&check[check.find('[').unwrap()..]).unwrap();
    let state = host.path("var/haggle").display().to_string();
    let asked = || {
        let args = list[1..]
            .iter()
            .map(|arg| arg.replace("/var/lib/haggle", &state));
        haggle(&host.path("")).args(args).output().unwrap()
    };
    let mut command = host.command("haggle.service");
    let mut daemon = Running::start(&mut command, &host.path(""), "daemon");
    daemon.wait_to_say("page at http://");
    let asked = asked();
    assert!(asked.status.success(), "{asked:?}");
    daemon.terminate();
    assert!(daemon.wait().success());
}

// -------------------------------------------------------------------------------------- terminal

/// A database that a dry run made, with its configuration.
fn ticked() -> (Gateway, tempfile::TempDir) {
    let gateway = Gateway::plain(Some("at_play"));
    let directory = tempfile::tempdir().unwrap();
    set_up(directory.path(), &gateway.base_url, POLICY);
    let mut command = haggle(directory.path());
    command
        .args(["run", "--once"])
        .env("HAGGLE_TOKEN", "at_play");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    (gateway, directory)
}

#[test]
fn a_frame_is_printed_where_no_terminal_is() {
    let (_gateway, directory) = ticked();
    let top = |args: &[&str], size: (&str, &str)| {
        let mut command = haggle(directory.path());
        command.arg("top").args(args);
        command.env("COLUMNS", size.0).env("LINES", size.1);
        command.output().unwrap()
    };
    let output = top(&["--once"], ("80", "24"));
    assert!(output.status.success(), "{output:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(shown.lines().count(), 24, "{shown}");
    for text in [
        "haggle dry run",
        "tick 1, ",
        "credit $",
        "JOBS 1",
        "train",
        "q quits",
    ] {
        assert!(shown.contains(text), "no {text}:\n{shown}");
    }
    assert!(!shown.contains('\u{1b}'), "{shown}");
    // It says what the job waits for, in words, and not only that it waits.
    let train = shown
        .lines()
        .find(|line| line.starts_with("train"))
        .unwrap();
    println!("{shown}");
    assert!(train.split_whitespace().count() > 5, "{train}");
    let small = top(&["--once"], ("40", "12"));
    let shown = String::from_utf8(small.stdout).unwrap();
    assert!(
        shown.lines().all(|line| line.chars().count() <= 40),
        "{shown}"
    );
    let json = top(&["--json"], ("80", "24"));
    let board: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(board["jobs"][0]["job"], "train");
    let refused = top(&[], ("80", "24"));
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("needs a terminal") && said.contains("--once"),
        "{said}"
    );
}

/// Runs it on a terminal of its own until it is told to end, and gives what the terminal was sent, and
/// how it was set before and after.
fn on_a_terminal(
    directory: &Path,
    end: impl Fn(&mut std::process::Child),
) -> (String, String, String) {
    use std::io::Read as _;
    let program = env!("CARGO_BIN_EXE_haggle");
    // The shell that says its number becomes the program.
    let start = format!("sh -c 'echo $$ > number; exec \"{program}\" top'");
    let script = format!("stty -a > before; {start}; stty -a > after");
    let mut command = Command::new("script");
    command
        .current_dir(directory)
        .args(["-q", "-c", &script, "typed"])
        .env("TERM", "xterm")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut sent = Vec::new();
    let mut out = child.stdout.take().unwrap();
    let mut bytes = [0; 4096];
    while !String::from_utf8_lossy(&sent).contains("q quits") {
        let count = out.read(&mut bytes).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&sent));
        sent.extend(&bytes[..count]);
    }
    end(&mut child);
    out.read_to_end(&mut sent).unwrap();
    child.wait().unwrap();
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    (
        String::from_utf8_lossy(&sent).into_owned(),
        read("before"),
        read("after"),
    )
}

#[test]
fn a_terminal_is_given_back_as_it_was() {
    use std::io::Write as _;
    if !is_here("script", "no terminal is tried") {
        return;
    }
    let (_gateway, directory) = ticked();
    let quits = |child: &mut std::process::Child| {
        child.stdin.as_mut().unwrap().write_all(b"q").unwrap();
    };
    let is_told = |_: &mut std::process::Child| {
        let number = fs::read_to_string(directory.path().join("number")).unwrap();
        let sent = Command::new("kill")
            .args(["-TERM", number.trim()])
            .status()
            .unwrap();
        assert!(sent.success());
    };
    let ends: [&dyn Fn(&mut std::process::Child); 2] = [&quits, &is_told];
    for end in ends {
        let (sent, before, after) = on_a_terminal(directory.path(), end);
        assert!(sent.contains("\u{1b}[?1049h"), "{sent:?}");
        assert!(sent.contains("\u{1b}[?25h\u{1b}[?1049l"), "{sent:?}");
        assert_eq!(before, after);
        assert!(before.contains(" icanon"), "{before}");
    }
}
