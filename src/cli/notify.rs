//! `haggle notify test`, and the channels of `[[notify]]` put together from their parts.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, Subcommand};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::context::{Context, block_on};
use super::failure::{Done, Exit, Failure};
use crate::clock::SystemClock;
use crate::config::{Config, resolve_secret};
use crate::daemon::metrics::Metrics;
use crate::marketplace::redact::Redactor;
use crate::notify::courier::{Count, Courier};
use crate::notify::herald::{self, Herald, Start, Telling};
use crate::notify::ways::command::{Hidden, Run};
use crate::notify::ways::email::Email;
use crate::notify::ways::post::Post;
use crate::notify::{Memory, Message, Sender, Unsent, within};
use crate::ports::{Clock as _, StoreError};
use crate::store::{Reader, Told};
use crate::types::job::SecretRef;
use crate::types::state::Severity;
use crate::types::telling::{Channel, TEST, Way};
use crate::types::time::Time;

/// Messages to a channel that are taken up again after a restart, at most.
const PENDING_MAX: usize = crate::notify::courier::QUEUE_MAX;

/// Events of earlier processes are looked at for so long after they happened: a process that was killed
/// may not have come to tell them.
const LOOK_BACK: Duration = Duration::from_hours(24);

/// And so many at most, the newest.
const BEFORE_MAX: u32 = 2000;

/// What was left to be said is waited for at the end, for so long.
pub(crate) const FINISH_WITHIN: Duration = Duration::from_secs(10);

/// Tells people.
#[derive(Args, Clone, Debug)]
pub(crate) struct NotifyArgs {
    #[command(subcommand)]
    command: NotifyCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum NotifyCommand {
    /// Send a test message to each channel of `[[notify]]`, and say what came of it.
    Test {
        /// To this one only.
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
}

#[derive(Debug, Serialize)]
struct TestDocument {
    channels: Vec<TestedChannel>,
}

#[derive(Debug, Serialize)]
struct TestedChannel {
    name: String,
    kind: &'static str,
    told: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

pub(crate) fn run(context: &Context, args: &NotifyArgs) -> Done {
    let NotifyCommand::Test { name } = &args.command;
    let config = context.config()?;
    let wanted = |channel: &&Channel| name.as_ref().is_none_or(|name| channel.name == *name);
    let channels: Vec<&Channel> = config.notify.iter().filter(wanted).collect();
    if channels.is_empty() {
        return Err(none_to_test(&config, name.as_deref()));
    }
    let now = context.now();
    let message = Message::new(
        format!("{TEST} {}", now.0),
        now,
        TEST,
        Severity::Info,
        "a test of haggle",
        "this channel works: haggle tells here what its configuration asks for",
    );
    block_on(async {
        let mut tested = Vec::new();
        let mut exit = Exit::Success;
        for channel in channels {
            let sent = match sender(context, &config, channel) {
                Ok(sender) => within(&SystemClock::new(), sender.as_ref(), &message).await,
                Err(why) => Err(Unsent::for_good(why)),
            };
            let why = sent.err().map(|unsent| {
                let worst = if unsent.yours {
                    Exit::Mendable
                } else {
                    Exit::World
                };
                exit = if exit == Exit::Success { worst } else { exit };
                context.redactor.show(&unsent.why)
            });
            tested.push(TestedChannel {
                name: channel.name.clone(),
                kind: channel.way.as_str(),
                told: why.is_none(),
                why,
            });
        }
        let document = TestDocument { channels: tested };
        context.output.show(&document, || {
            let line = |channel: &TestedChannel| {
                let outcome = match &channel.why {
                    None => "told".to_owned(),
                    Some(why) => format!("NOT told: {why}"),
                };
                format!("{} ({}): {outcome}", channel.name, channel.kind)
            };
            let lines: Vec<String> = document.channels.iter().map(line).collect();
            lines.join("\n")
        })?;
        Ok(exit)
    })
}

fn none_to_test(config: &Config, name: Option<&str>) -> Failure {
    let names: Vec<&str> = config.notify.iter().map(|c| c.name.as_str()).collect();
    match name {
        Some(name) if !names.is_empty() => {
            Failure::mendable(format!("there is no channel named {name:?}"))
                .hint(format!("there are {}", names.join(", ")))
        }
        _ => Failure::mendable("the configuration has no channel of notifications")
            .hint("add a [[notify]] to haggle.toml; docs/notifications.md says how"),
    }
}

/// What sends to a channel. Its secrets are kept out of whatever is shown.
pub(crate) fn sender(
    context: &Context,
    config: &Config,
    channel: &Channel,
) -> Result<Box<dyn Sender>, String> {
    let secret = |reference: &SecretRef| {
        let secret = resolve_secret(reference).map_err(|error| error.to_string())?;
        keep_secret(&context.redactor, &secret);
        Ok::<SecretString, String>(secret)
    };
    let url = |reference: &SecretRef| secret(reference);
    Ok(match &channel.way {
        Way::Webhook {
            url: to,
            secret: key,
        } => {
            let (to, key) = (url(to)?, secret(key)?);
            Box::new(Post::webhook(to.expose_secret(), key, wall_clock)?)
        }
        Way::Slack { url: to } => Box::new(Post::slack(url(to)?.expose_secret())?),
        Way::Discord { url: to } => Box::new(Post::discord(url(to)?.expose_secret())?),
        Way::Ntfy { url: to, token } => {
            let token = token.as_ref().map(secret).transpose()?;
            Box::new(Post::ntfy(url(to)?.expose_secret(), token)?)
        }
        Way::Email(mail) => {
            let password = mail.login.as_ref().map(|(_, password)| secret(password));
            Box::new(Email::new(mail, password.transpose()?)?)
        }
        Way::Command { line } => {
            let clock = Arc::new(SystemClock::new());
            Box::new(Run::new(line.clone(), hidden_variables(config), clock))
        }
    })
}

/// A receiver compares with the time of this machine, whatever clock the daemon goes by.
fn wall_clock() -> Time {
    SystemClock::new().now()
}

/// A path that is shorter is a word, such as the topic `train`, and words are not blanked.
const PATH_MIN: usize = 16;

/// An address is a secret, and so is its path: the path alone is what errors repeat.
fn keep_secret(redactor: &Redactor, secret: &SecretString) {
    let text = secret.expose_secret().trim();
    redactor.add_lasting(text);
    let after_host = text
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('/'));
    if let Some((_, path)) = after_host
        && path.len() >= PATH_MIN
    {
        redactor.add_lasting(path);
    }
}

/// The variables that hold secrets: those that the configuration names, and those that policies name now
/// or have named since this process began.
fn hidden_variables(config: &Config) -> Hidden {
    let secrets = config
        .notify
        .iter()
        .flat_map(|channel| channel.way.secrets());
    let all = secrets
        .chain([&config.provider.token])
        .chain(&config.webhook_secret);
    let named = all.filter_map(|reference| match reference {
        SecretRef::Env(name) => Some(name.clone()),
        SecretRef::File(_) => None,
    });
    let known: Mutex<BTreeSet<String>> = Mutex::new(named.collect());
    let policies = config.policies.clone();
    Arc::new(move || {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(variables_of_policies(&policies));
        known.iter().cloned().collect()
    })
}

/// The variables that the files of a directory name as `env = "NAME"`, wherever it stands. Also files that
/// cannot be used as policies: what they name may hold a secret all the same.
fn variables_of_policies(directory: &Path) -> BTreeSet<String> {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names = BTreeSet::new();
    for path in files.map(|file| file.path()) {
        // A pipe would be waited on for ever.
        if !path.is_file() || path.extension().is_none_or(|end| end != "toml") {
            continue;
        }
        let text = std::fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        if let Ok(table) = text.parse::<toml::Table>() {
            walk(&toml::Value::Table(table), &mut names);
        }
        names.extend(text.match_indices("env").filter_map(|(at, word)| {
            let rest = text[at + word.len()..].trim_start_matches(['"', '\'']);
            let value = rest.trim_start().strip_prefix('=')?.trim_start();
            let quote = value.chars().next().filter(|c| "\"'".contains(*c))?;
            Some(value[1..].split(quote).next()?.to_owned())
        }));
    }
    // What the system takes for no name would keep the command from starting.
    names.retain(|name| !name.is_empty() && !name.contains(['=', '\0']));
    names
}

fn walk(value: &toml::Value, names: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                match value {
                    toml::Value::String(name) if key == "env" => {
                        names.insert(name.clone());
                    }
                    value => walk(value, names),
                }
            }
        }
        toml::Value::Array(values) => values.iter().for_each(|value| walk(value, names)),
        _ => {}
    }
}

/// What tells people while the daemon runs; `None` where nobody is to be told. The database is there and
/// up to date.
///
/// # Errors
/// A channel cannot be used, or the database not be opened.
pub(crate) fn start(
    context: &Context,
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<Option<(Herald, Telling)>, Failure> {
    if config.notify.is_empty() {
        return Ok(None);
    }
    let mut channels: Vec<(Channel, Arc<dyn Sender>)> = Vec::new();
    for channel in &config.notify {
        let sender = sender(context, config, channel).map_err(|why| {
            Failure::mendable(format!("`notify` {}: {why}", channel.name))
                .hint("`haggle notify test` tries every channel")
        })?;
        let redactor = Arc::clone(&context.redactor);
        channels.push((channel.clone(), Arc::new(Discreet { sender, redactor })));
    }
    let memory = Kept::open(&config.database)?;
    let metrics = Arc::clone(metrics);
    let count: Count = Arc::new(move |channel, outcome, n| metrics.messages(channel, outcome, n));
    let now = context.clock.now();
    let courier = Courier::new(
        channels,
        Box::new(memory),
        config.timezone,
        Arc::clone(&count),
        now,
    );
    let mut before = Reader::open(&config.database)?.events(None, BEFORE_MAX)?;
    before.retain(|event| event.at >= now - LOOK_BACK);
    let started = herald::start(Start {
        courier,
        clock: context.clock.clone(),
        machine: Arc::new(SystemClock::new()),
        before,
        count,
    });
    let started = started.map_err(|error| Failure::new(Exit::World, error.into()))?;
    Ok(Some(started))
}

/// Says why something was not sent without any secret that is known.
struct Discreet {
    sender: Box<dyn Sender>,
    redactor: Arc<Redactor>,
}

#[async_trait::async_trait]
impl Sender for Discreet {
    async fn send(&self, message: &Message) -> Result<(), Unsent> {
        let clean = |text: &str| self.redactor.clean(text);
        let shown = Message {
            title: clean(&message.title),
            text: clean(&message.text),
            ..message.clone()
        };
        self.sender.send(&shown).await.map_err(|unsent| Unsent {
            why: self.redactor.show(&unsent.why),
            ..unsent
        })
    }
}

/// The table of what was told. Where it cannot be written people are told all the same; they may be told
/// again.
struct Kept {
    told: Told,
    fails: bool,
}

impl Kept {
    fn open(database: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            told: Told::open(database)?,
            fails: false,
        })
    }

    fn or_warn<T: Default>(&mut self, done: Result<T, StoreError>) -> T {
        match done {
            Ok(value) => {
                self.fails = false;
                value
            }
            Err(error) => {
                if !std::mem::replace(&mut self.fails, true) {
                    tracing::warn!("what was told cannot be kept, and may be told again: {error}");
                }
                T::default()
            }
        }
    }
}

impl Memory for Kept {
    fn only(&mut self, channels: &[&str]) -> usize {
        let left = self.told.only(channels);
        self.or_warn(left)
    }

    fn begun(&mut self, channel: &str, asked_for: &str, now: Time) -> Time {
        let begun = self.told.begun(channel, asked_for, now);
        // Where that is not known, it is told of nothing that was before.
        self.or_warn(begun.map(Some)).unwrap_or(now)
    }

    fn recent(&mut self, since: Time) -> Vec<String> {
        let recent = self.told.recent(since);
        self.or_warn(recent)
    }

    fn told(&mut self, channel: &str, key: &str) -> Option<Time> {
        let told = self.told.at(channel, key);
        self.or_warn(told)
    }

    fn queued(&mut self, channel: &str, key: &str, at: Time, body: &str) {
        let done = self.told.queue(channel, key, at, body);
        self.or_warn(done);
    }

    fn settled(&mut self, channel: &str, key: &str) {
        let done = self.told.settle(channel, key);
        self.or_warn(done);
    }

    fn pending(&mut self, channel: &str) -> Vec<String> {
        let pending = self.told.pending(channel, PENDING_MAX);
        self.or_warn(pending)
    }

    fn forget(&mut self, before: Time) {
        let done = self.told.forget(before);
        self.or_warn(done);
    }
}
