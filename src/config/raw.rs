//! A configuration as its layers give it, and the checks that make it one that holds.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chrono_tz::Tz;
use figment::value::Value;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::notify::{RawChannel, channels};
use super::{Config, ConfigError, Limits, Poll, ProviderConfig, ProviderKind};
use crate::types::job::SecretRef;
use crate::types::ledger::Scope;
use crate::types::limit::Bounds;
use crate::types::money::{Money, Rate};
use crate::types::schedule::Schedule;
use crate::types::spelling::nearest;
use crate::types::units::{self, DOLLARS, PER_HOUR};

/// As the layers give it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    database: PathBuf,
    policies: PathBuf,
    live: bool,
    listen: SocketAddr,
    #[serde(deserialize_with = "zone")]
    timezone: Tz,
    provider: RawProvider,
    poll: RawPoll,
    #[serde(default)]
    events: RawEvents,
    #[serde(default)]
    notify: Vec<RawChannel>,
    web: RawWeb,
    limits: RawLimits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProvider {
    kind: String,
    base_url: Option<String>,
    #[serde(default, deserialize_with = "some_secret")]
    token: Option<SecretRef>,
    #[serde(deserialize_with = "span")]
    timeout: Duration,
    share_job_secrets: bool,
    paths: BTreeMap<String, String>,
    fields: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEvents {
    #[serde(default, deserialize_with = "some_secret")]
    webhook_secret: Option<SecretRef>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWeb {
    #[serde(default, deserialize_with = "some_secret")]
    token: Option<SecretRef>,
    hosts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPoll {
    #[serde(default, deserialize_with = "some_span")]
    every: Option<Duration>,
    cron: Option<String>,
    #[serde(deserialize_with = "span")]
    instances_every: Duration,
    #[serde(deserialize_with = "span_or_off")]
    history_every: Option<Duration>,
    #[serde(deserialize_with = "span")]
    history_kept: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    #[serde(deserialize_with = "dollars")]
    credit_reserve: Money,
    #[serde(default, deserialize_with = "some_dollars")]
    per_day: Option<Money>,
    #[serde(default, deserialize_with = "some_dollars")]
    per_month: Option<Money>,
    #[serde(default, deserialize_with = "some_per_hour")]
    per_hour: Option<Rate>,
    instances_max: u32,
    gpus_max: Option<u32>,
    #[serde(default, deserialize_with = "some_span")]
    min_runway: Option<Duration>,
    owner: BTreeMap<String, RawBounds>,
    tag: BTreeMap<String, RawBounds>,
    rents_per_tick_max: u32,
    #[serde(deserialize_with = "span")]
    outage_allowance: Duration,
}

/// What an owner or a tag is held to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBounds {
    #[serde(default, deserialize_with = "some_dollars")]
    total: Option<Money>,
    #[serde(default, deserialize_with = "some_dollars")]
    per_day: Option<Money>,
    #[serde(default, deserialize_with = "some_dollars")]
    per_month: Option<Money>,
    #[serde(default, deserialize_with = "some_per_hour")]
    per_hour: Option<Rate>,
    instances_max: Option<u32>,
    gpus_max: Option<u32>,
}

impl RawLimits {
    /// The bounds that are out of theirs are told.
    fn validate(self, wrong: &mut Vec<String>) -> Limits {
        let mut within = |key: &str, ok: bool, bounds: &str| {
            if !ok {
                wrong.push(format!("`{key}` must be {bounds}"));
            }
        };
        let seconds = |least, most| Duration::from_secs(least)..=Duration::from_secs(most);
        within(
            "limits.instances_max",
            (1..=1000).contains(&self.instances_max),
            "from 1 to 1000",
        );
        within(
            "limits.gpus_max",
            self.gpus_max
                .is_none_or(|most| (1..=10_000).contains(&most)),
            "from 1 to 10000",
        );
        within(
            "limits.min_runway",
            self.min_runway
                .is_none_or(|least| seconds(60, 366 * 86_400).contains(&least)),
            "from 1m to 366d",
        );
        within(
            "limits.rents_per_tick_max",
            (1..=100).contains(&self.rents_per_tick_max),
            "from 1 to 100",
        );
        within(
            "limits.outage_allowance",
            seconds(0, 86_400).contains(&self.outage_allowance),
            "from 0s to 1d",
        );
        let owners = self
            .owner
            .into_iter()
            .map(|(name, raw)| (Scope::Owner(name), raw));
        let tags = self
            .tag
            .into_iter()
            .map(|(name, raw)| (Scope::Tag(name), raw));
        let mut groups = BTreeMap::new();
        for (scope, raw) in owners.chain(tags) {
            // What is 0 here keeps a group from renting at all, which is a limit as well.
            let most = [
                (raw.instances_max, "instances_max"),
                (raw.gpus_max, "gpus_max"),
            ];
            for (value, key) in most {
                within(
                    &format!("limits.{}.{key}", scope.to_string().replace('/', ".")),
                    value.is_none_or(|most| most <= 10_000),
                    "from 0 to 10000",
                );
            }
            let bounds = Bounds {
                total: raw.total,
                per_day: raw.per_day,
                per_month: raw.per_month,
                per_hour: raw.per_hour,
                instances_max: raw.instances_max,
                gpus_max: raw.gpus_max,
            };
            groups.insert(scope, bounds);
        }
        Limits {
            credit_reserve: self.credit_reserve,
            per_day: self.per_day,
            per_month: self.per_month,
            per_hour: self.per_hour,
            instances_max: self.instances_max,
            gpus_max: self.gpus_max,
            min_runway: self.min_runway,
            groups,
            rents_per_tick_max: self.rents_per_tick_max,
            outage_allowance: self.outage_allowance,
        }
    }
}

impl Raw {
    /// Checks the bounds; all that is out of them is told.
    pub(super) fn validate(self) -> Result<Config, ConfigError> {
        let mut wrong = Vec::new();
        let kind = ProviderKind::from_word(&self.provider.kind);
        if kind.is_none() {
            wrong.push(format!(
                "`provider.kind` is {:?}, which is not known; it is \"lowcodeapi\" or \"vast\"",
                self.provider.kind
            ));
        }
        let renames = !self.provider.paths.is_empty() || !self.provider.fields.is_empty();
        if kind == Some(ProviderKind::Vast) && renames {
            wrong.push(
                "`provider.paths` and `provider.fields` are the gateway's: `provider.kind` = \"vast\" takes none"
                    .to_owned(),
            );
        }
        let base_url = self
            .provider
            .base_url
            .as_deref()
            .unwrap_or_else(|| kind.unwrap_or(ProviderKind::LowCodeApi).default_base_url());
        let base_url = base_url.trim_end_matches('/').to_owned();
        if !is_url(&base_url) {
            // Not repeated: a URL may have a token in its query.
            wrong.push("`provider.base_url` must be http:// or https:// with a host, and no query, blank or @".to_owned());
        }
        if kind.is_some_and(|kind| is_of_other_kind(kind, &base_url)) {
            wrong.push(
                "`provider.base_url` is of the other `provider.kind`, which would be sent the token; \
                 leave it away, or change the kind with it"
                    .to_owned(),
            );
        }
        let mut within = |key: &str, ok: bool, bounds: &str| {
            if !ok {
                wrong.push(format!("`{key}` must be {bounds}"));
            }
        };
        let seconds = |least, most| Duration::from_secs(least)..=Duration::from_secs(most);
        let timeout = self.provider.timeout;
        within(
            "provider.timeout",
            seconds(1, 300).contains(&timeout),
            "from 1s to 5m",
        );
        within(
            "poll.every",
            self.poll
                .every
                .is_none_or(|every| seconds(10, 3600).contains(&every)),
            "from 10s to 1h: searches are rate-limited, and reservations reach to the next poll",
        );
        within(
            "poll.instances_every",
            seconds(5, 600).contains(&self.poll.instances_every),
            "from 5s to 10m",
        );
        within(
            "poll.history_every",
            self.poll
                .history_every
                .is_none_or(|every| seconds(60, 86_400).contains(&every)),
            "from 1m to 1d, or \"off\"",
        );
        within(
            "poll.history_kept",
            seconds(7 * 86_400, 3650 * 86_400).contains(&self.poll.history_kept),
            "from 7d to 3650d",
        );
        within(
            "database",
            !self.database.as_os_str().is_empty(),
            "a file's name",
        );
        within(
            "policies",
            !self.policies.as_os_str().is_empty(),
            "a directory's name",
        );
        within(
            "web.hosts",
            self.web.hosts.iter().all(|host| is_host(host)),
            "names without a port, such as [\"haggle.example.com\"]",
        );
        let limits = self.limits.validate(&mut wrong);
        let looks = (
            self.poll.instances_every,
            self.poll.history_every,
            self.poll.history_kept,
        );
        let poll = self.poll.validate(self.timezone, &mut wrong);
        let notify = channels(self.notify, &mut wrong);
        match (kind, poll) {
            (Some(kind), Some(poll)) if wrong.is_empty() => Ok(Config {
                database: self.database,
                policies: self.policies,
                live: self.live,
                listen: self.listen,
                timezone: self.timezone,
                provider: ProviderConfig {
                    kind,
                    base_url,
                    token: self
                        .provider
                        .token
                        .unwrap_or_else(|| SecretRef::Env("HAGGLE_TOKEN".to_owned())),
                    timeout,
                    share_job_secrets: self.provider.share_job_secrets,
                    paths: self.provider.paths,
                    fields: self.provider.fields,
                },
                poll,
                instances_every: looks.0,
                history_every: looks.1,
                history_kept: looks.2,
                webhook_secret: self.events.webhook_secret,
                notify,
                web_token: self.web.token,
                web_hosts: self.web.hosts,
                limits,
            }),
            _ => Err(ConfigError::Invalid(wrong)),
        }
    }
}

impl RawPoll {
    fn validate(self, zone: Tz, wrong: &mut Vec<String>) -> Option<Poll> {
        const DEFAULT: Duration = Duration::from_mins(1);
        match (self.every, self.cron) {
            (None, None) => Some(Poll::Every(DEFAULT)),
            (Some(every), None) => Some(Poll::Every(every)),
            (None, Some(cron)) => match Schedule::parse(&cron, zone) {
                Ok(schedule) => Some(Poll::At(schedule)),
                Err(why) => {
                    wrong.push(format!("`poll.cron`: {why}"));
                    None
                }
            },
            (Some(_), Some(_)) => {
                wrong.push("`poll.every` and `poll.cron` exclude each other; keep one".to_owned());
                None
            }
        }
    }
}

/// Whether a URL is evidently that of the other side: what is sent there has the token with it.
fn is_of_other_kind(kind: ProviderKind, url: &str) -> bool {
    let other = match kind {
        ProviderKind::LowCodeApi => "vast.ai",
        ProviderKind::Vast => "lowcodeapi.com",
    };
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split(['/', ':']).next().unwrap_or_default();
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let above = host.strip_suffix(other);
    above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

/// Whether a text is a host's name as a browser sends it, without its port.
fn is_host(host: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    !host.is_empty() && host.len() <= 253 && host.chars().all(plain)
}

fn is_url(url: &str) -> bool {
    let Some(rest) = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
    else {
        return false;
    };
    let host = rest.split('/').next().unwrap_or_default();
    !host.is_empty() && !rest.contains(|c: char| c.is_whitespace() || "?#@".contains(c))
}

// ----------------------------------------------------------------------------- values from layers

/// Text that a function reads.
fn text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    read(&text).map_err(de::Error::custom)
}

fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    text(deserializer, units::duration)
}

fn some_span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    span(deserializer).map(Some)
}

/// A span, or `off`.
fn span_or_off<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    text(deserializer, |text| match text {
        "off" => Ok(None),
        text => units::duration(text).map(Some),
    })
}

fn dollars<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Money, D::Error> {
    text(deserializer, |text| DOLLARS.read(text)).and_then(not_negative)
}

fn not_negative<E: de::Error>(money: Money) -> Result<Money, E> {
    if money < Money::ZERO {
        return Err(E::custom("an amount is not negative"));
    }
    Ok(money)
}

fn some_dollars<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Money>, D::Error> {
    dollars(deserializer).map(Some)
}

fn some_per_hour<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Rate>, D::Error> {
    let money = text(deserializer, |text| PER_HOUR.read(text)).and_then(not_negative)?;
    Ok(Some(Rate(money.0)))
}

fn zone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tz, D::Error> {
    text(deserializer, |text| {
        text.parse().map_err(|_| {
            let zones = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
            match nearest(text, zones) {
                Some(near) => format!("not a time zone; did you mean \"{near}\"?"),
                None => "not a time zone, such as \"Europe/Berlin\"".to_owned(),
            }
        })
    })
}

pub(super) fn some_secret<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SecretRef>, D::Error> {
    deserializer.deserialize_any(SecretVisitor).map(Some)
}

/// Takes a reference, and refuses anything else without repeating it: it may be the secret.
struct SecretVisitor;

const BY_REFERENCE: &str = "a secret is given by reference, never by its value: \
     { env = \"NAME\" } or { file = \"path\" }";

/// The visits of plain values, all refused alike.
macro_rules! refuse {
    ($($visit:ident($type:ty);)*) => {
        $(fn $visit<E: de::Error>(self, _: $type) -> Result<SecretRef, E> {
            Err(E::custom(BY_REFERENCE))
        })*
    };
}

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = SecretRef;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{ env = \"NAME\" } or { file = \"path\" }")
    }

    refuse! {
        visit_str(&str);
        visit_bool(bool);
        visit_i64(i64);
        visit_i128(i128);
        visit_u64(u64);
        visit_u128(u128);
        visit_f64(f64);
        visit_char(char);
        visit_bytes(&[u8]);
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<SecretRef, A::Error> {
        Err(de::Error::custom(BY_REFERENCE))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretRef, A::Error> {
        // Layers are joined key by key, so that two places may meet here; which was meant is not
        // known.
        let entry = map.next_entry::<String, Value>()?;
        let more = map.next_entry::<String, Value>()?.is_some();
        let Some((key, place)) = entry.filter(|_| !more) else {
            return Err(de::Error::custom(
                "a secret has one place: either { env = \"NAME\" } or { file = \"path\" }",
            ));
        };
        match (key.as_str(), place.as_str()) {
            ("env", Some(name)) if !name.trim().is_empty() => Ok(SecretRef::Env(name.to_owned())),
            ("file", Some(path)) if !path.trim().is_empty() => {
                Ok(SecretRef::File(PathBuf::from(path)))
            }
            _ => Err(de::Error::custom(BY_REFERENCE)),
        }
    }
}
