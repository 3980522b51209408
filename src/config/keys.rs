//! The table of all keys: their defaults, and what they mean.

use super::PREFIX;

/// A key, for the reference and for what an unknown one may have meant.
pub(super) struct Key {
    pub(super) path: &'static str,
    /// Its default as TOML; empty for none.
    pub(super) default: &'static str,
    meaning: &'static str,
}

const fn key(path: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key {
        path,
        default,
        meaning,
    }
}

/// All keys. The defaults that are read are these.
pub(super) const KEYS: &[Key] = &[
    key("database", "\"haggle.db\"", "The database's file"),
    key("policies", "\"policies\"", "The directory of policies"),
    key(
        "live",
        "false",
        "Whether money may be spent; otherwise it is a dry run",
    ),
    key(
        "listen",
        "\"127.0.0.1:9464\"",
        "Where metrics, the API and the page are served",
    ),
    key(
        "timezone",
        "\"UTC\"",
        "The zone in which days begin and `poll.cron` is read",
    ),
    key(
        "provider.kind",
        "\"lowcodeapi\"",
        "`lowcodeapi` for the gateway, `vast` for the marketplace's own API",
    ),
    key(
        "provider.base_url",
        "\"https://api.lowcodeapi.com/vastai\"",
        "Where the marketplace is, with the gateway's path for it; for `vast` by default `https://console.vast.ai`",
    ),
    key(
        "provider.token",
        "{ env = \"HAGGLE_TOKEN\" }",
        "Where the token is found: `{ env = \"NAME\" }` or `{ file = \"path\" }`, never the token itself",
    ),
    key(
        "provider.timeout",
        "\"30s\"",
        "How long one request may take, 1s to 5m",
    ),
    key(
        "provider.share_job_secrets",
        "false",
        "Whether the secrets that jobs name may go through the gateway, a third party; without it such jobs wait",
    ),
    key(
        "provider.paths",
        "{}",
        "Paths that differ from the usual ones, by operation",
    ),
    key(
        "provider.fields",
        "{}",
        "Names of body fields that differ from the usual ones, by field",
    ),
    key(
        "poll.every",
        "\"60s\"",
        "Time between polls, 10s to 1h; where neither it nor `poll.cron` is given",
    ),
    key(
        "poll.cron",
        "",
        "Polls at these times instead: minute, hour, day of the month, month, day of the week",
    ),
    key(
        "poll.instances_every",
        "\"15s\"",
        "Time between two looks at the instances while one of ours is there, 5s to 10m: what changed makes the poll come early",
    ),
    key(
        "poll.history_every",
        "\"5m\"",
        "Time between two searches that only record what the market shows, 1m to 1d, or `\"off\"`",
    ),
    key(
        "poll.history_kept",
        "\"90d\"",
        "For how long offers, decisions and events are kept, 7d to 3650d; the ledger always is",
    ),
    key(
        "events.webhook_secret",
        "",
        "Where the secret is found by which the marketplace signs its notifications; with it they are taken at `/webhooks/vast`",
    ),
    key(
        "notify",
        "[]",
        "Where to tell people: a list of tables, `[[notify]]`, see [notifications](notifications.md)",
    ),
    key(
        "web.token",
        "",
        "Where the token is found that changes through the page and the API take, at least 16 characters; without it they can be read only",
    ),
    key(
        "web.hosts",
        "[]",
        "Names under which a proxy passes the page and the API on, such as `[\"haggle.example.com\"]`; called so, reading takes the token too",
    ),
    key(
        "limits.credit_reserve",
        "\"$1\"",
        "Credit that is never touched",
    ),
    key(
        "limits.per_day",
        "",
        "Most that may be spent in a calendar day, all jobs together",
    ),
    key(
        "limits.per_month",
        "",
        "Most that may be spent in a calendar month, all jobs together",
    ),
    key(
        "limits.per_hour",
        "",
        "Most that the sum of rates may be, such as `\"$2.50/hour\"`",
    ),
    key(
        "limits.instances_max",
        "32",
        "Most instances at once, parked ones included, 1 to 1000",
    ),
    key(
        "limits.gpus_max",
        "",
        "Most GPUs at once over all instances, those of parked ones not counted, 1 to 10000",
    ),
    key(
        "limits.min_runway",
        "",
        "Nothing new is spent where the credit less its reserve would last for less than this at what the whole account spends, 1m to 366d",
    ),
    key(
        "limits.owner",
        "{}",
        "Limits of an owner by name, such as `limits.owner.ml.per_day`: `total`, `per_day`, `per_month`, `per_hour`, `instances_max`, `gpus_max`",
    ),
    key(
        "limits.tag",
        "{}",
        "The same for all jobs with a tag, by its name",
    ),
    key(
        "limits.rents_per_tick_max",
        "8",
        "Most new rentals in a tick, 1 to 100",
    ),
    key(
        "limits.outage_allowance",
        "\"30m\"",
        "How long the marketplace may be out of reach without a limit being passed, 0s to 1d",
    ),
];

/// A Markdown table of all keys.
pub fn reference_table() -> String {
    let mut text = String::from("| key | default | environment | meaning |\n|---|---|---|---|\n");
    for key in KEYS {
        let default = match key.default {
            "" => "none".to_owned(),
            default => format!("`{default}`"),
        };
        let variable = key.path.replace('.', "__").to_ascii_uppercase();
        text.push_str(&format!(
            "| `{}` | {default} | `{PREFIX}{variable}` | {} |\n",
            key.path, key.meaning
        ));
    }
    text
}

/// What an owner or a tag may be held to.
const BOUNDS: [&str; 6] = [
    "total",
    "per_day",
    "per_month",
    "per_hour",
    "instances_max",
    "gpus_max",
];

/// What a channel of notifications is made of.
const CHANNEL: [&str; 16] = [
    "name", "kind", "url", "secret", "token", "command", "smtp", "tls", "user", "password", "from",
    "to", "events", "severity", "per_hour", "quiet",
];

/// The keys directly under a table.
pub(super) fn paths_under(parent: &str) -> Vec<&'static str> {
    let named = parent
        .strip_prefix("limits.owner.")
        .or_else(|| parent.strip_prefix("limits.tag."));
    if named.is_some() {
        return BOUNDS.to_vec();
    }
    if parent == "notify" || parent.starts_with("notify.") {
        return CHANNEL.to_vec();
    }
    let mut names: Vec<&str> = KEYS
        .iter()
        .filter_map(|key| {
            let rest = if parent.is_empty() {
                key.path
            } else {
                key.path.strip_prefix(parent)?.strip_prefix('.')?
            };
            rest.split('.').next()
        })
        .collect();
    names.dedup();
    names
}
