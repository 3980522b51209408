//! Alerts, and the ways on which they go out: stderr always, a command, a webhook.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::cli::context::Context;
use crate::cli::failure::{Failure, OrFail};
use crate::clock::SystemClock;
use crate::config::{ProviderConfig, resolve_secret};
use crate::marketplace::http::HttpTransport;
use crate::marketplace::redact::Redactor;
use crate::ports::{Clock, Method, Request, Transport};
use crate::types::ids::{AccountId, Installation, InstanceId};
use crate::types::job::SecretRef;
use crate::types::time::Mono;

/// How long a command, or the receiver of a webhook, may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks whether a command has ended.
const COMMAND_LOOK_EVERY: Duration = Duration::from_millis(20);

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// The daemon's tick does not move.
    DaemonSilent,
    /// The daemon lives and carries nothing out, and instances are billed.
    DaemonIdle,
    /// The guard could not wind down.
    CannotAct,
    /// What the guard remembered is lost, or cannot be kept.
    MemoryLost,
    /// The guard wound down.
    WoundDown,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::DaemonSilent => "daemon-silent",
            Self::DaemonIdle => "daemon-idle",
            Self::CannotAct => "cannot-act",
            Self::MemoryLost => "memory-lost",
            Self::WoundDown => "wound-down",
        }
    }
}

/// Where in its course something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Course {
    /// It begins.
    Begins,
    /// It goes on, and is told again.
    GoesOn,
    /// It is over.
    Over,
    /// It happened, once.
    Happened,
}

/// What is told, as the command reads it on its stdin and the webhook receives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Alert {
    pub(super) kind: Kind,
    pub(super) course: Course,
    /// For people: one line, without secrets.
    pub(super) text: String,
    /// By the guard's clock, RFC 3339.
    pub(super) at: String,
    pub(super) installation: Option<Installation>,
    pub(super) account: Option<AccountId>,
    pub(super) tick: Option<u64>,
    pub(super) silent_seconds: u64,
    /// The instances that the daemon knew of when it was last heard.
    pub(super) held: Vec<InstanceId>,
    pub(super) burn_dollars_per_hour: Option<String>,
}

/// An alert on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outgoing {
    pub(super) alert: Alert,
    /// Whether the command has yet to take it.
    to_command: bool,
    /// Whether the webhook has yet to take it.
    to_url: bool,
}

impl Outgoing {
    /// Whether every way has taken it.
    pub(super) fn is_delivered(&self) -> bool {
        !self.to_command && !self.to_url
    }
}

/// Ways that failed in one round of sending. They are not tried again in it: each try may take as
/// long as a receiver that hangs, and what the guard is there for would wait for all of them.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    command: bool,
    url: bool,
}

/// A webhook. Whoever knows its address can write to it, so the address is a secret.
struct Webhook {
    transport: HttpTransport,
    query: Vec<(String, String)>,
}

/// The ways out.
pub(super) struct Ways {
    command: Option<String>,
    webhook: Option<Webhook>,
    /// The variable that holds the marketplace's token: a command has no use for it.
    token_variable: Option<String>,
    redactor: Arc<Redactor>,
}

impl Ways {
    /// The ways that the user named. An address is given as it is, or as `env:NAME` or `file:PATH`.
    pub(super) fn new(
        context: &Context,
        provider: &ProviderConfig,
        command: Option<&str>,
        url: Option<&str>,
    ) -> Result<Self, Failure> {
        let webhook = url
            .map(|named| webhook(&context.redactor, named))
            .transpose()?;
        let token_variable = match &provider.token {
            SecretRef::Env(name) => Some(name.clone()),
            SecretRef::File(_) => None,
        };
        Ok(Self {
            command: command.map(str::to_owned),
            webhook,
            token_variable,
            redactor: Arc::clone(&context.redactor),
        })
    }

    /// An alert with the ways that it has to take.
    pub(super) fn outgoing(&self, alert: Alert) -> Outgoing {
        Outgoing {
            alert,
            to_command: self.command.is_some(),
            to_url: self.webhook.is_some(),
        }
    }

    /// Sends one on the ways that have not taken it and are not stuck. What went wrong, in words.
    pub(super) async fn deliver(&self, outgoing: &mut Outgoing, stuck: &mut Stuck) -> Vec<String> {
        let mut problems = Vec::new();
        let body = match serde_json::to_string(&outgoing.alert) {
            Ok(body) => body,
            Err(error) => return vec![format!("an alert cannot be written as JSON: {error}")],
        };
        let by_command = outgoing.to_command && !stuck.command;
        if let Some(command) = self.command.as_ref().filter(|_| by_command) {
            let ran = self.run(command, &outgoing.alert, &body).await;
            outgoing.to_command = ran.is_err();
            stuck.command = ran.is_err();
            problems.extend(ran.err().map(|why| format!("--on-alert: {why}")));
        }
        let by_url = outgoing.to_url && !stuck.url;
        if let Some(webhook) = self.webhook.as_ref().filter(|_| by_url) {
            let posted = webhook.post(body).await;
            outgoing.to_url = posted.is_err();
            stuck.url = posted.is_err();
            problems.extend(posted.err().map(|why| format!("--alert-url: {why}")));
        }
        problems.iter().map(|why| self.redactor.show(why)).collect()
    }

    /// Runs the command: the kind and the text are its arguments, the whole is on its stdin.
    async fn run(&self, command: &str, alert: &Alert, body: &str) -> Result<(), String> {
        let mut shell = shell(command);
        shell.args([alert.kind.as_str(), &alert.text]);
        if let Some(name) = &self.token_variable {
            shell.env_remove(name);
        }
        // A file, for a pipe that nobody reads would hold the guard up.
        let stdin = file_of(body).map_err(|error| error.to_string())?;
        let mut child = shell
            .stdin(stdin)
            // The guard's own stdout is for its document.
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let clock = SystemClock::new();
        while clock.monotonic() < Mono(0) + TIMEOUT {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("the command failed: {status}")),
                Ok(None) => clock.sleep_until(clock.now() + COMMAND_LOOK_EVERY).await,
                Err(error) => return Err(error.to_string()),
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        Err(format!(
            "the command did not end within {} s",
            TIMEOUT.as_secs()
        ))
    }
}

/// A file without a name that is read from its beginning.
fn file_of(text: &str) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

#[cfg(unix)]
fn shell(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", command, "haggle-guard"]);
    shell
}

#[cfg(not(unix))]
fn shell(command: &str) -> Command {
    let mut shell = Command::new("cmd");
    shell.args(["/C", command]);
    shell
}

fn webhook(redactor: &Redactor, named: &str) -> Result<Webhook, Failure> {
    let url = address(named).or_mendable("--alert-url cannot be read")?;
    let url = url.expose_secret().trim();
    redactor.add_lasting(url);
    let mut base = reqwest::Url::parse(url)
        .map_err(|_| Failure::mendable("--alert-url is not a URL").hint(URL_HINT))?;
    if base.path().len() > 1 {
        redactor.add_lasting(base.path());
    }
    let query = base.query_pairs().into_owned().collect();
    base.set_query(None);
    let transport = HttpTransport::new(base.as_str(), TIMEOUT)
        .or_mendable("--alert-url cannot be used")
        .map_err(|failure| failure.hint(URL_HINT))?;
    Ok(Webhook { transport, query })
}

const URL_HINT: &str = "name an https:// address, or env:NAME or file:PATH that holds it";

fn address(named: &str) -> Result<SecretString, crate::config::ConfigError> {
    if let Some(name) = named.strip_prefix("env:") {
        return resolve_secret(&SecretRef::Env(name.to_owned()));
    }
    match named.strip_prefix("file:") {
        Some(path) => resolve_secret(&SecretRef::File(path.into())),
        None => Ok(SecretString::from(named)),
    }
}

impl Webhook {
    async fn post(&self, body: String) -> Result<(), String> {
        let request = Request {
            method: Method::Post,
            path: String::new(),
            query: self.query.clone(),
            bearer: None,
            body: Some(body.into()),
        };
        match self.transport.send(request).await {
            Ok(reply) if (200..300).contains(&reply.status) => Ok(()),
            Ok(reply) => Err(format!("the receiver answers {}", reply.status)),
            Err(error) => Err(error.to_string()),
        }
    }
}
