//! What can be looked at without asking anybody: the configuration, the database, the daemon, the guard, the
//! page, and who can read the secrets' files.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::disk;
use super::findings::{Findings, Health, line};
use crate::cli::context::{Context, missing_directory, open_reader};
use crate::cli::daemon;
use crate::config::{Config, resolve_secret};
use crate::daemon::heartbeat::guarded_file;
use crate::daemon::web;
use crate::policy::LoadedJob;
use crate::store::{
    DaemonLock, LockError, installation_file, kill_file_present, read_installation,
};
use crate::types::job::SecretRef;
use crate::types::state::State;
use crate::types::time::human;
use crate::web::TOKEN_CHARS_MIN;

/// A guard that has not looked for so long is none: timers of a day would find the bill, not the fault.
const GUARD_LOOKS: Duration = Duration::from_hours(1);

pub(super) fn configuration(context: &Context, findings: &mut Findings) -> Option<Config> {
    match context.config() {
        Ok(config) => {
            findings.ok("configuration", mode(&config));
            Some(config)
        }
        Err(failure) => {
            findings.advise(
                "configuration",
                Health::Fail,
                line(&failure),
                "correct the file; unknown keys are refused",
            );
            None
        }
    }
}

/// Whether plans are executed: by the daemon, which may have been started with another word, or by one
/// that would be started now.
fn mode(config: &Config) -> &'static str {
    let runs = config
        .database
        .exists()
        .then(|| daemon::look(&config.database));
    match (runs.and_then(|seen| seen.is_live()), config.live) {
        (Some(true) | None, true) => "live: plans are executed",
        (Some(true), false) => {
            "the daemon was started live: plans are executed; another start without --live would be a \
             dry run"
        }
        (Some(false), true) => {
            "the daemon makes a dry run, although this configuration is live: start it anew"
        }
        (Some(false) | None, false) => "dry run: plans are shown, not executed",
    }
}

pub(super) fn database(config: &Config, findings: &mut Findings) -> Option<State> {
    let path = config.database.display();
    if let Some(directory) = missing_directory(&config.database) {
        findings.advise(
            "database",
            Health::Fail,
            format!(
                "is to be {path}, and there is no directory {}",
                directory.display()
            ),
            format!("make it: `mkdir -p {}`", directory.display()),
        );
        return None;
    }
    disk::look(&directory_of(&config.database), findings);
    if !config.database.exists() {
        findings.advise(
            "database",
            Health::Warn,
            format!("none at {path} yet"),
            "`haggle run` makes it",
        );
        return None;
    }
    let writable = std::fs::OpenOptions::new()
        .append(true)
        .open(&config.database);
    if let Err(error) = writable {
        findings.advise(
            "database",
            Health::Fail,
            format!("{path} cannot be written: {error}"),
            "give this user the right to write to the file and its directory",
        );
    }
    let state = open_reader(config).and_then(|reader| Ok(reader.state()?));
    match state {
        Ok(state) => {
            let size = size(&config.database);
            findings.ok(
                "database",
                format!(
                    "{path}, {:.1} MB, {} ticks, {} instances, {} requests not settled",
                    size as f64 / 1e6,
                    state.ticks,
                    state.held.len(),
                    state.intents.len()
                ),
            );
            Some(state)
        }
        Err(failure) => {
            let advice = "restore a copy, or name another with --database";
            findings.failed("database", &failure, advice);
            None
        }
    }
}

/// Of a name alone it is this one.
fn directory_of(database: &Path) -> PathBuf {
    match database.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Bytes of the database with what was not yet moved into it from its log.
fn size(database: &Path) -> u64 {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
    bytes(database) + bytes(Path::new(&log))
}

/// Whether a daemon runs on the database, ticks, and carries out what it plans.
pub(super) fn daemon(config: &Config, findings: &mut Findings) {
    if !config.database.exists() {
        return;
    }
    let pid = match DaemonLock::acquire(&config.database) {
        Ok(_) => {
            return findings.advise(
                "daemon",
                Health::Warn,
                "none runs on this database",
                "start it with `haggle run`",
            );
        }
        Err(LockError::Held { pid, .. }) => pid,
        Err(error) => {
            return findings.advise(
                "daemon",
                Health::Fail,
                error.to_string(),
                "give this user the right to write to the database's directory",
            );
        }
    };
    let runs = pid.map_or_else(|| "runs".into(), |pid| format!("runs, process {pid}"));
    let seen = daemon::look(&config.database);
    if let Some(trouble) = seen.trouble() {
        let advice = "look at its log; where it hangs, start it anew: what is open is settled then";
        findings.advise("daemon", Health::Fail, trouble, advice);
    } else if seen.is_live() == Some(false) {
        findings.advise(
            "daemon",
            Health::Warn,
            format!(
                "{runs}, as a dry run: nothing is rented, and what is rented is not looked after"
            ),
            "where it is to spend, start it anew with --live, or with live = true in haggle.toml",
        );
    } else {
        findings.ok("daemon", runs);
    }
}

/// Whether anything watches the heartbeat of a daemon that spends.
pub(super) fn guard(config: &Config, findings: &mut Findings) {
    let seen = daemon::look(&config.database);
    if !config.live && seen.is_live() != Some(true) {
        return;
    }
    let looked = std::fs::metadata(guarded_file(&config.database))
        .and_then(|meta| meta.modified())
        .ok()
        // One that looked in the future, by a clock that was set back, has just looked.
        .map(|at| at.elapsed().unwrap_or_default());
    let found = match looked {
        Some(ago) if ago <= GUARD_LOOKS => {
            return findings.ok("guard", format!("looked {} ago", human(ago)));
        }
        Some(ago) => format!("none has looked at the heartbeat for {}", human(ago)),
        None => "none has ever looked at the heartbeat".to_owned(),
    };
    findings.advise(
        "guard",
        Health::Warn,
        found,
        "`haggle guard`, best on another machine, ends what is rented when this one is gone",
    );
}

/// Where the page is served, and who may use it.
pub(super) fn page(config: &Config, findings: &mut Findings) {
    let before = findings.0.len();
    let listen = config.listen;
    if let Some(warning) = web::warning(listen) {
        let (found, advice) = match config.web_token {
            Some(_) => (
                warning,
                "listen on 127.0.0.1, behind a proxy with a login and TLS",
            ),
            None => (
                format!("{warning}; there is no web.token, so the page refuses other machines"),
                "listen on 127.0.0.1, or set web.token, and put a proxy with TLS in front",
            ),
        };
        findings.advise("page", Health::Warn, found, advice);
    }
    if let Some(reference) = &config.web_token {
        page_token(reference, findings);
    }
    let runs = config.database.exists() && daemon::look(&config.database).runs;
    if let Some(error) = taken(listen).filter(|_| !runs) {
        findings.advise(
            "page",
            Health::Fail,
            format!("{listen} cannot be listened on: {error}"),
            "another program has it, or another haggle: give each its own `listen`",
        );
    }
    if findings.0.len() == before {
        findings.ok("page", format!("at {listen}"));
    }
}

fn page_token(reference: &SecretRef, findings: &mut Findings) {
    let (found, advice) = match resolve_secret(reference) {
        Err(error) => (
            format!("web.token: {error}"),
            "correct where web.token is to be found, or leave it away: then the page can be read only",
        ),
        Ok(token) if token.expose_secret().chars().count() < TOKEN_CHARS_MIN => (
            format!("web.token has fewer than {TOKEN_CHARS_MIN} characters, which can be guessed"),
            "`openssl rand -hex 32` makes one",
        ),
        Ok(_) => return,
    };
    findings.advise("page", Health::Fail, found, advice);
}

fn taken(listen: SocketAddr) -> Option<std::io::Error> {
    TcpListener::bind(listen).err()
}

/// Secrets' files that every user of this machine can read or change.
pub(super) fn secret_files(config: &Config, jobs: &[LoadedJob], findings: &mut Findings) {
    let of_config = [
        ("provider.token", Some(&config.provider.token)),
        ("web.token", config.web_token.as_ref()),
        ("events.webhook_secret", config.webhook_secret.as_ref()),
    ];
    let of_config = of_config
        .into_iter()
        .filter_map(|(key, reference)| Some((key.to_owned(), reference?)));
    let channels = config.notify.iter().flat_map(|channel| {
        let named = |reference| (format!("notify {}", channel.name), reference);
        channel.way.secrets().into_iter().map(named)
    });
    let of_jobs = jobs.iter().flat_map(|loaded| {
        let named = |(key, reference)| (format!("{key} of {}", loaded.job.name), reference);
        loaded.job.run.secret_places().into_iter().map(named)
    });
    let mut files = 0;
    let before = findings.0.len();
    for (key, reference) in of_config.chain(channels).chain(of_jobs) {
        let SecretRef::File(path) = reference else {
            continue;
        };
        files += 1;
        if open_to_all(path) {
            findings.advise(
                "secret files",
                Health::Warn,
                format!(
                    "{} ({key}) is open to every user of this machine",
                    path.display()
                ),
                format!("`chmod 600 {}`", path.display()),
            );
        }
    }
    if files > 0 && findings.0.len() == before {
        findings.ok("secret files", format!("{files}, none open to every user"));
    }
}

#[cfg(unix)]
fn open_to_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    const OTHERS_READ_OR_WRITE: u32 = 0o006;
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & OTHERS_READ_OR_WRITE != 0)
}

#[cfg(not(unix))]
fn open_to_all(_path: &Path) -> bool {
    false
}

pub(super) fn installation(config: &Config, state: Option<&State>, findings: &mut Findings) {
    let file = installation_file(&config.database);
    match (state, read_installation(&config.database)) {
        (Some(state), Ok(Some(beside))) if beside != state.installation => findings.advise(
            "installation",
            Health::Fail,
            format!(
                "{} in the database, {beside} in {}",
                state.installation,
                file.display()
            ),
            "put back the database and the file that belong together",
        ),
        (Some(state), Ok(Some(_))) => {
            findings.ok("installation", state.installation.to_string());
        }
        (Some(state), _) => findings.advise(
            "installation",
            Health::Warn,
            format!(
                "{}, but {} is not there to remember it",
                state.installation,
                file.display()
            ),
            "note it down: `haggle kill --installation` needs it if the database is lost",
        ),
        (None, Ok(Some(beside))) => findings.advise(
            "installation",
            Health::Warn,
            format!("{beside}, without its database"),
            "`haggle run` makes a new database for it",
        ),
        (None, _) => {}
    }
    let killed = state.is_some_and(|state| state.killed) || kill_file_present(&config.database);
    if killed {
        findings.advise(
            "spending",
            Health::Warn,
            "forbidden by `haggle kill`",
            "`haggle resume --all` allows it again",
        );
    }
}
