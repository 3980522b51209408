//! What haggle has to reach beside the marketplace: the channels on which people are told, and the storage of
//! jobs. Nothing is sent to a channel, and nothing written to storage.

use std::collections::BTreeSet;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::findings::{Findings, Health};
use crate::cli::context::{Context, block_on};
use crate::cli::notify::sender;
use crate::cli::sources::SystemSecrets;
use crate::config::{Config, resolve_secret};
use crate::daemon::Secrets as _;
use crate::policy::LoadedJob;
use crate::storage::{Key, Objects, Place};
use crate::types::job::{SecretRef, Storage};
use crate::types::telling::{Channel, Way};

/// Longest wait for a server.
const WAIT: Duration = Duration::from_secs(10);

/// Variables by which requests go through a proxy: then its reach is what counts, not this machine's.
const PROXIES: [&str; 6] = [
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "http_proxy",
    "HTTP_PROXY",
];

/// The channels of `[[notify]]`: whether there are any, can be used, and can be reached.
pub(super) fn channels(context: &Context, config: &Config, offline: bool, findings: &mut Findings) {
    if config.notify.is_empty() {
        // A dry run has nothing to tell that could not wait.
        if config.live {
            findings.advise(
                "notify",
                Health::Warn,
                "nobody is told of anything: there is no [[notify]]",
                "docs/notifications.md has the channels; `haggle notify test` tries them",
            );
        }
        return;
    }
    for channel in &config.notify {
        let name = &channel.name;
        if let Err(why) = sender(context, config, channel) {
            findings.advise(
                "notify",
                Health::Fail,
                format!("{name} cannot be used: {}", context.redactor.show(&why)),
                "the daemon does not start with it: correct it, and try it with `haggle notify test`",
            );
            continue;
        }
        match (!offline).then(|| server(channel)).flatten() {
            Some(server) => match connect(&server) {
                Ok(()) => findings.ok("notify", format!("{name}: its server can be reached")),
                Err(why) => findings.advise(
                    "notify",
                    Health::Unreachable,
                    // Not by its name: an address is a secret here.
                    format!("{name}: its server cannot be reached: {why}"),
                    "look at its address and the network; `haggle notify test` sends a message",
                ),
            },
            None => findings.ok("notify", format!("{name} can be used")),
        }
    }
}

/// The machine and port of a channel; `None`: it has none that could be tried from here.
fn server(channel: &Channel) -> Option<(String, u16)> {
    let url = match &channel.way {
        Way::Email(mail) => return Some((mail.host.clone(), mail.port)),
        Way::Command { .. } => return None,
        Way::Webhook { url, .. }
        | Way::Slack { url }
        | Way::Discord { url }
        | Way::Ntfy { url, .. } => url,
    };
    if PROXIES.iter().any(|name| std::env::var_os(name).is_some()) {
        return None;
    }
    let url = resolve_secret(url).ok()?;
    let url = reqwest::Url::parse(url.expose_secret().trim()).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    Some((host, url.port_or_known_default()?))
}

fn connect((host, port): &(String, u16)) -> Result<(), String> {
    let addresses = (host.as_str(), *port)
        .to_socket_addrs()
        .map_err(|_| "its name is not known here".to_owned())?;
    let mut last = "its name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, WAIT) {
            Ok(_) => return Ok(()),
            Err(error) => last = error.kind().to_string(),
        }
    }
    Err(last)
}

/// Whether the jobs' buckets answer to their keys. An object is asked for that is not there.
pub(super) fn storage(context: &Context, jobs: &[LoadedJob], findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for loaded in jobs {
        let runner = loaded.job.run.runner.as_deref();
        let Some(storage) = runner.and_then(|runner| runner.storage.as_ref()) else {
            continue;
        };
        let key = |of: &SecretRef| format!("{of:?}");
        let same = (
            storage.endpoint.clone(),
            storage.bucket.clone(),
            key(&storage.access_key),
        );
        if !seen.insert(same) {
            continue;
        }
        let (bucket, name) = (&storage.bucket, &loaded.job.name);
        // Which secrets cannot be read is told with the policies.
        let Some(asked) = ask(context, storage) else {
            continue;
        };
        match asked {
            Ok(()) => findings.ok("storage", format!("the bucket {bucket} of {name} answers")),
            Err((health, why)) => findings.advise(
                "storage",
                health,
                format!("of {name}: {why}"),
                "nothing is rented for it until its storage works: correct [data.storage]",
            ),
        }
    }
}

/// What came of asking; `None`: its keys cannot be read.
fn ask(context: &Context, storage: &Storage) -> Option<Result<(), (Health, String)>> {
    let secrets = SystemSecrets(Arc::clone(&context.redactor));
    let access = secrets.resolve(&storage.access_key).ok()?;
    let secret = secrets.resolve(&storage.secret_key).ok()?;
    let objects = Place::new(storage, access, secret).and_then(Objects::new);
    let objects = match objects {
        Ok(objects) => objects.within(WAIT),
        Err(error) => return Some(Err((Health::Fail, error.to_string()))),
    };
    let prefix = &storage.prefix;
    let slash = if prefix.is_empty() { "" } else { "/" };
    let key = Key::named(&format!("{prefix}{slash}haggle-doctor"))?;
    let now = context.now();
    let asked = block_on(async { Ok(objects.about(&key, now).await) });
    Some(match asked {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            let health = if error.why.is_passing() {
                Health::Unreachable
            } else {
                Health::Fail
            };
            Err((health, error.to_string()))
        }
        Err(failure) => Err((Health::Unreachable, failure.in_short())),
    })
}
