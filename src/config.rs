//! Configuration: defaults, then `haggle.toml`, then the environment, then the command line.
//!
//! Each layer may say as little as it likes; figment joins them. Unknown keys are refused, and a
//! message names the key, where it came from and what would be right. A value is never repeated in
//! a message where it could be a secret.

mod keys;
mod layers;
mod notify;
mod raw;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono_tz::Tz;
use figment::Figment;
use figment::value::Value;
use secrecy::SecretString;

pub use keys::reference_table;

use crate::types::job::SecretRef;
use crate::types::ledger::Scope;
use crate::types::limit::Bounds;
use crate::types::money::{Money, Rate};
use crate::types::schedule::Schedule;
use crate::types::telling::Channel;
use crate::types::time::Time;
use crate::types::world::EngineConfig;
use layers::Layer;
use raw::Raw;

/// The file that is read where none is named, if it is there.
pub const DEFAULT_FILE: &str = "haggle.toml";

/// What an environment variable must begin with to be configuration.
const PREFIX: &str = "HAGGLE_";

/// Variables with the prefix that are no keys: the default place of the token, the file's name, the
/// log's filter, what the tests take, and what haggle gives to a container, in which it may run too.
/// Further names that end in `_TOKEN` may hold a token that `provider.token` names.
const NOT_KEYS: [&str; 7] = [
    "HAGGLE_TOKEN",
    "HAGGLE_CONFIG",
    "HAGGLE_LOG",
    "HAGGLE_SEED",
    "HAGGLE_SEEDS",
    "HAGGLE_JOB",
    "HAGGLE_REPLICA",
];

/// Families of such variables.
const NOT_KEYS_BEGIN: [&str; 3] = ["HAGGLE_TEST_", "HAGGLE_MARKET_", "HAGGLE_MESSAGE_"];

/// Largest file that is read as configuration or as a secret, bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// How haggle runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The database's file.
    pub database: PathBuf,
    /// The directory of policies.
    pub policies: PathBuf,
    /// Whether money may be spent; otherwise plans are made and not carried out.
    pub live: bool,
    /// Where metrics, the API and the page are served.
    pub listen: SocketAddr,
    /// By which days are counted.
    pub timezone: Tz,
    /// The marketplace.
    pub provider: ProviderConfig,
    /// When the marketplace is looked at.
    pub poll: Poll,
    /// Time between two looks at the instances while one of ours is there.
    pub instances_every: Duration,
    /// Time between two searches for history; `None`: none are made.
    pub history_every: Option<Duration>,
    /// For how long history is kept; the ledger always is.
    pub history_kept: Duration,
    /// Where the secret of the marketplace's notifications is found; `None`: none are taken.
    pub webhook_secret: Option<SecretRef>,
    /// Where people are told, in the order of the file.
    pub notify: Vec<Channel>,
    /// Where the token is found that changes through the page and the API take; `None`: they are
    /// read only.
    pub web_token: Option<SecretRef>,
    /// Names under which the page and the API are called beside this machine's own.
    pub web_hosts: Vec<String>,
    /// What bounds everything.
    pub limits: Limits,
}

/// The marketplace, and the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderConfig {
    /// Which wire format it speaks.
    pub kind: ProviderKind,
    /// Where it is, without a trailing slash.
    pub base_url: String,
    /// Where the token is found.
    pub token: SecretRef,
    /// How long one request may take.
    pub timeout: Duration,
    /// Whether the secrets that jobs name may go through a third party.
    pub share_job_secrets: bool,
    /// Paths that differ from the usual ones, by operation.
    pub paths: BTreeMap<String, String>,
    /// Names of body fields that differ from the usual ones, by field.
    pub fields: BTreeMap<String, String>,
}

/// Which wire format a marketplace speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// The LowCodeAPI gateway.
    LowCodeApi,
    /// Vast's own API.
    Vast,
}

impl ProviderKind {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LowCodeApi => "lowcodeapi",
            Self::Vast => "vast",
        }
    }

    /// From the word in the configuration.
    fn from_word(word: &str) -> Option<Self> {
        [Self::LowCodeApi, Self::Vast]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }

    /// Where it is unless the configuration says otherwise.
    pub fn default_base_url(self) -> &'static str {
        match self {
            Self::LowCodeApi => "https://api.lowcodeapi.com/vastai",
            Self::Vast => "https://console.vast.ai",
        }
    }
}

/// When the marketplace is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Again after so long.
    Every(Duration),
    /// At these times, in the configured time zone.
    At(Schedule),
}

/// What bounds everything, beside the jobs' own limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Credit that is never touched.
    pub credit_reserve: Money,
    /// Most that may be spent in a calendar day.
    pub per_day: Option<Money>,
    /// Most that may be spent in a calendar month.
    pub per_month: Option<Money>,
    /// Most that the sum of rates may be.
    pub per_hour: Option<Rate>,
    /// Most instances at once, parked ones included.
    pub instances_max: u32,
    /// Most GPUs at once, those of parked instances not counted.
    pub gpus_max: Option<u32>,
    /// Nothing new is spent where the credit lasts for less than this.
    pub min_runway: Option<Duration>,
    /// What owners and tags are held to.
    pub groups: BTreeMap<Scope, Bounds>,
    /// Most new rentals in a tick.
    pub rents_per_tick_max: u32,
    /// How long the marketplace may be out of reach without a limit being passed.
    pub outage_allowance: Duration,
}

/// Why there is no configuration, or no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The named file is not there or cannot be read.
    #[error("the configuration {} cannot be read: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The file is not TOML.
    #[error("{}:{line}:{column}: this is not TOML: {why}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What the parser says, without the text.
        why: String,
    },
    /// Keys or values are wrong: one line each.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    /// A secret cannot be had. Names the place, never the value.
    #[error("{0}")]
    Secret(String),
}

impl Config {
    /// Joins the layers. Without a `path`, `haggle.toml` is read if it is there; a named file must
    /// be. `overrides` are dotted keys with values, from the command line.
    pub fn load(path: Option<&Path>, overrides: &[(&str, Value)]) -> Result<Self, ConfigError> {
        let variables = std::env::vars_os()
            .filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
            .map(|(name, value)| match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => Ok((name, value)),
                (Ok(name), Err(_)) => Err(ConfigError::Invalid(vec![format!(
                    "the environment variable {name} is not UTF-8"
                )])),
                (Err(_), _) => Err(ConfigError::Invalid(vec![format!(
                    "an environment variable that begins with {PREFIX} has a name that is not UTF-8"
                )])),
            })
            .collect::<Result<BTreeMap<_, _>, _>>()?;
        Self::from_layers(path, &variables, overrides)
    }

    /// What the red button needs of a configuration that cannot be used as a whole: where the database and
    /// the marketplace are, and where the token is found. Everything else is as by default.
    ///
    /// # Errors
    /// These cannot be read: the file is no TOML, or what it or a variable says of them is wrong. They are not
    /// guessed then, for a token must not be sent to a marketplace that was not meant.
    pub fn load_for_ending(
        path: Option<&Path>,
        overrides: &[(&str, Value)],
    ) -> Result<Self, ConfigError> {
        let needed = |key: &str| key == "database" || key.starts_with("provider");
        let variables = std::env::vars().filter(|(name, _)| {
            let key = name.strip_prefix(PREFIX).unwrap_or_default();
            needed(&key.replace("__", ".").to_ascii_lowercase())
        });
        Self::merged(path, &variables.collect(), overrides, &needed)
    }

    fn from_layers(
        path: Option<&Path>,
        variables: &BTreeMap<String, String>,
        overrides: &[(&str, Value)],
    ) -> Result<Self, ConfigError> {
        Self::merged(path, variables, overrides, &|_| true)
    }

    /// Of the file, the parts that are needed, by their first word.
    fn merged(
        path: Option<&Path>,
        variables: &BTreeMap<String, String>,
        overrides: &[(&str, Value)],
        needed: &dyn Fn(&str) -> bool,
    ) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(layers::defaults()?);
        if let Some(layer) = layers::file_layer(path)? {
            figment = figment.merge(layer.only(needed));
        }
        for (name, value) in variables {
            if let Some(layer) = layers::variable_layer(name, value)? {
                figment = figment.merge(layer);
            }
        }
        for (key, value) in overrides {
            figment = figment.merge(Layer::nested("the command line", key, value.clone()));
        }
        let raw: Raw = figment.extract().map_err(|error| {
            ConfigError::Invalid(error.into_iter().map(layers::explain).collect())
        })?;
        raw.validate()
    }

    /// What the engine is bounded by.
    pub fn engine(&self) -> EngineConfig {
        EngineConfig {
            poll_every: self.poll.longest_gap(),
            outage_allowance: self.limits.outage_allowance,
            credit_reserve: self.limits.credit_reserve,
            instances_max: self.limits.instances_max,
            rents_per_tick_max: self.limits.rents_per_tick_max,
            per_day: self.limits.per_day,
            per_month: self.limits.per_month,
            per_hour: self.limits.per_hour,
            gpus_max: self.limits.gpus_max,
            min_runway: self.limits.min_runway,
            groups: self.limits.groups.clone(),
            timezone: self.timezone,
            withhold_secrets: self.provider.withholds_secrets(),
            shows_no_logs: self.provider.kind == ProviderKind::LowCodeApi,
            ..EngineConfig::default()
        }
    }
}

impl ProviderConfig {
    /// Whether what jobs keep secret may not be sent: it would pass a third party, and nobody has
    /// agreed to that.
    pub fn withholds_secrets(&self) -> bool {
        self.kind == ProviderKind::LowCodeApi && !self.share_job_secrets
    }
}

impl Poll {
    /// The next poll after one that began at `now`.
    pub fn next_after(&self, now: Time) -> Time {
        match self {
            Self::Every(interval) => now + *interval,
            // A schedule that is over is looked at once a day: limits have still to be kept.
            Self::At(schedule) => schedule
                .next_after(now)
                .unwrap_or(now + Duration::from_hours(24)),
        }
    }

    /// The longest time between two polls, by which reservations are reckoned. Of a schedule a year
    /// is looked at, or a thousand runs.
    pub fn longest_gap(&self) -> Duration {
        const RUNS_MAX: usize = 1000;
        // Any moment will do; this one begins a week and a year.
        const FROM: Time = Time(1_767_225_600_000);
        const YEAR: Duration = Duration::from_hours(366 * 24);
        match self {
            Self::Every(interval) => *interval,
            Self::At(schedule) => {
                let (mut last, mut longest) = (FROM, Duration::ZERO);
                for _ in 0..RUNS_MAX {
                    let Some(next) = schedule.next_after(last) else {
                        return YEAR;
                    };
                    longest = longest.max(next.since(last));
                    last = next;
                    if last > FROM + YEAR {
                        break;
                    }
                }
                longest
            }
        }
    }
}

/// The secret that a reference names. Errors name the place, never what was found there.
pub fn resolve_secret(reference: &SecretRef) -> Result<SecretString, ConfigError> {
    let (text, place) = match reference {
        SecretRef::Env(name) => {
            let place = format!("the environment variable {name}");
            let value = std::env::var_os(name)
                .ok_or_else(|| ConfigError::Secret(format!("{place} is not set")))?;
            let text = value
                .into_string()
                .map_err(|_| ConfigError::Secret(format!("{place} is not UTF-8")))?;
            (text, place)
        }
        SecretRef::File(path) => {
            let place = format!("the secret's file {}", path.display());
            let text = read_bounded(path)
                .map_err(|why| ConfigError::Secret(format!("{place} cannot be read: {why}")))?;
            // Editors end a file with a line break, which is not part of the secret.
            let text = text.strip_suffix('\n').unwrap_or(&text);
            (text.strip_suffix('\r').unwrap_or(text).to_owned(), place)
        }
    };
    if text.trim().is_empty() {
        return Err(ConfigError::Secret(format!("{place} is empty")));
    }
    Ok(SecretString::from(text))
}

fn read_bounded(path: &Path) -> Result<String, String> {
    // Process substitution hands over a pipe, so it need not be a regular file.
    if path.is_dir() {
        return Err("it is a directory".to_owned());
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|why| why.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is larger than {} KB", FILE_BYTES_MAX / 1024));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
}

#[cfg(test)]
mod tests;
