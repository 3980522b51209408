//! `[[notify]]`: the channels on which people are told.

use std::collections::BTreeSet;

use chrono::NaiveTime;
use serde::Deserialize;

use super::raw::some_secret;
use crate::types::job::SecretRef;
use crate::types::spelling::nearest;
use crate::types::state::Severity;
use crate::types::telling::{Channel, KINDS, Mail, MailTls, Quiet, TEST, Way};

/// Channels at most: each is a label of a metric.
const CHANNELS_MAX: usize = 16;

/// Messages in an hour to a channel that says nothing of it.
const PER_HOUR: u32 = 20;

/// The ways that there are.
const WAYS: [&str; 6] = ["webhook", "slack", "discord", "ntfy", "email", "command"];

/// A channel as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawChannel {
    name: Option<String>,
    kind: String,
    #[serde(default, deserialize_with = "some_secret")]
    url: Option<SecretRef>,
    #[serde(default, deserialize_with = "some_secret")]
    secret: Option<SecretRef>,
    #[serde(default, deserialize_with = "some_secret")]
    token: Option<SecretRef>,
    command: Option<String>,
    smtp: Option<String>,
    tls: Option<String>,
    user: Option<String>,
    #[serde(default, deserialize_with = "some_secret")]
    password: Option<SecretRef>,
    from: Option<String>,
    to: Option<Vec<String>>,
    events: Option<Vec<String>>,
    severity: Option<String>,
    per_hour: Option<u32>,
    quiet: Option<String>,
}

/// The channels; what is wrong with them is told.
pub(super) fn channels(raw: Vec<RawChannel>, wrong: &mut Vec<String>) -> Vec<Channel> {
    if raw.len() > CHANNELS_MAX {
        wrong.push(format!(
            "`notify` has {} channels; at most {CHANNELS_MAX} may be",
            raw.len()
        ));
    }
    let mut names = BTreeSet::new();
    let mut channels = Vec::new();
    for (at, raw) in raw.into_iter().enumerate() {
        let name = raw.name.clone().unwrap_or_else(|| raw.kind.clone());
        let place = format!("`notify` number {} ({name})", at + 1);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 40 || !name.chars().all(plain) {
            wrong.push(format!(
                "`notify` number {}: a name is 1 to 40 letters, digits, `-`, `_` and `.`",
                at + 1
            ));
        } else if !names.insert(name.clone()) {
            wrong.push(format!(
                "{place}: another one has this name; give each a `name`"
            ));
        }
        match raw.channel(name) {
            Ok(channel) => channels.push(channel),
            Err(problems) => {
                wrong.extend(problems.into_iter().map(|why| format!("{place}: {why}")));
            }
        }
    }
    channels
}

impl RawChannel {
    fn channel(self, name: String) -> Result<Channel, Vec<String>> {
        let mut wrong = Vec::new();
        let events = self.events.as_ref().map(|words| events(words, &mut wrong));
        let least = severity(self.severity.as_deref(), &mut wrong);
        let per_hour = self.per_hour.unwrap_or(PER_HOUR);
        if !(1..=1000).contains(&per_hour) {
            wrong.push("`per_hour` must be from 1 to 1000".to_owned());
        }
        let quiet = self.quiet.as_deref().and_then(|text| {
            let read = quiet(text);
            if read.is_none() {
                wrong.push(format!(
                    "`quiet` {text:?} is no time of day, such as \"22:00-07:00\", in `timezone`"
                ));
            }
            read
        });
        let way = self.way(&mut wrong);
        match way {
            Some(way) if wrong.is_empty() => Ok(Channel {
                name,
                way,
                events,
                least,
                per_hour,
                quiet,
            }),
            _ => Err(wrong),
        }
    }

    fn way(self, wrong: &mut Vec<String>) -> Option<Way> {
        let kind = self.kind.as_str();
        if !WAYS.contains(&kind) {
            let near = nearest(kind, WAYS.into_iter());
            let near = near.map_or_else(String::new, |near| format!("did you mean {near:?}? "));
            wrong.push(format!(
                "{kind:?} is no `kind`; {near}there are {}",
                WAYS.join(", ")
            ));
            return None;
        }
        let given = [
            ("url", self.url.is_some()),
            ("secret", self.secret.is_some()),
            ("token", self.token.is_some()),
            ("command", self.command.is_some()),
            ("smtp", self.smtp.is_some()),
            ("tls", self.tls.is_some()),
            ("user", self.user.is_some()),
            ("password", self.password.is_some()),
            ("from", self.from.is_some()),
            ("to", self.to.is_some()),
        ];
        let (needed, allowed): (&[&str], &[&str]) = match kind {
            "webhook" => (&["url", "secret"], &[]),
            "ntfy" => (&["url"], &["token"]),
            "email" => (&["smtp", "from", "to"], &["tls", "user", "password"]),
            "command" => (&["command"], &[]),
            _ => (&["url"], &[]),
        };
        for (key, is_given) in given {
            if !is_given && needed.contains(&key) {
                wrong.push(format!(
                    "a channel of the kind {kind:?} needs `{key}`{}",
                    example(key)
                ));
            } else if is_given && !needed.contains(&key) && !allowed.contains(&key) {
                wrong.push(format!("`{key}` is not for a channel of the kind {kind:?}"));
            }
        }
        match kind {
            "webhook" => Some(Way::Webhook {
                url: self.url?,
                secret: self.secret?,
            }),
            "slack" => Some(Way::Slack { url: self.url? }),
            "discord" => Some(Way::Discord { url: self.url? }),
            "ntfy" => Some(Way::Ntfy {
                url: self.url?,
                token: self.token,
            }),
            "command" => Some(Way::Command {
                line: self.command?,
            }),
            _ => self.mail(wrong).map(Way::Email),
        }
    }

    fn mail(self, wrong: &mut Vec<String>) -> Option<Mail> {
        let (server, from, to) = (self.smtp?, self.from?, self.to?);
        let tls = match self.tls.as_deref() {
            None | Some("starttls") => MailTls::StartTls,
            Some("tls") => MailTls::Tls,
            Some("off") => MailTls::Off,
            Some(other) => {
                wrong.push(format!(
                    "`tls` {other:?} is none of \"starttls\", \"tls\", \"off\""
                ));
                return None;
            }
        };
        let usual = if tls == MailTls::Tls { 465 } else { 587 };
        let (host, port) = match server.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()),
            None => (server.as_str(), Some(usual)),
        };
        let named =
            !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/@".contains(c));
        let Some(port) = port.filter(|port| named && *port > 0) else {
            wrong.push(format!(
                "`smtp` {server:?} is no server, such as \"smtp.example.org:587\""
            ));
            return None;
        };
        let here = host == "localhost"
            || host
                .parse()
                .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        if tls == MailTls::Off && !here {
            wrong.push("`tls` may be \"off\" to this machine only: mail and password would travel in clear".to_owned());
        }
        for address in std::iter::once(&from).chain(&to) {
            if !address.contains('@') || address.contains(char::is_control) {
                wrong.push(format!(
                    "{address:?} is no address such as \"me@example.org\""
                ));
            }
        }
        if to.is_empty() || to.len() > 20 {
            wrong.push("`to` must name 1 to 20 addresses".to_owned());
        }
        let login = match (self.user, self.password) {
            (Some(user), Some(password)) => Some((user, password)),
            (None, None) => None,
            _ => {
                wrong.push("`user` and `password` belong together".to_owned());
                None
            }
        };
        Some(Mail {
            host: host.to_owned(),
            port,
            tls,
            login,
            from,
            to,
        })
    }
}

fn example(key: &str) -> &'static str {
    match key {
        "url" | "secret" => ", given by reference: { env = \"NAME\" } or { file = \"path\" }",
        "command" => ", a line for the shell",
        "smtp" => ", such as \"smtp.example.org:587\"",
        "from" => ", such as \"haggle@example.org\"",
        "to" => ", such as [\"me@example.org\"]",
        _ => "",
    }
}

fn events(words: &[String], wrong: &mut Vec<String>) -> BTreeSet<&'static str> {
    let mut events = BTreeSet::new();
    for word in words {
        if word == "all" {
            events.extend(KINDS.iter().map(|kind| kind.word));
        } else if word == "usual" {
            events.extend(KINDS.iter().filter(|kind| kind.usual).map(|kind| kind.word));
        } else if let Some(kind) = KINDS.iter().find(|kind| kind.word == word && word != TEST) {
            events.insert(kind.word);
        } else {
            let near = nearest(word, KINDS.iter().map(|kind| kind.word));
            let help = near.map_or_else(
                || "docs/notifications.md lists the words".to_owned(),
                |near| format!("did you mean {near:?}?"),
            );
            wrong.push(format!(
                "`events`: {word:?} is nothing that is told; {help}"
            ));
        }
    }
    events
}

fn severity(word: Option<&str>, wrong: &mut Vec<String>) -> Severity {
    match word {
        None | Some("info") => Severity::Info,
        Some("warning") => Severity::Warning,
        Some("alarm") => Severity::Alarm,
        Some(other) => {
            wrong.push(format!(
                "`severity` {other:?} is none of \"info\", \"warning\", \"alarm\""
            ));
            Severity::Info
        }
    }
}

fn quiet(text: &str) -> Option<Quiet> {
    let (from, to) = text.split_once('-')?;
    let time = |text: &str| NaiveTime::parse_from_str(text.trim(), "%H:%M").ok();
    let (from, to) = (time(from)?, time(to)?);
    (from != to).then_some(Quiet { from, to })
}
