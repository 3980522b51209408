//! Logs, commands, copies.

use serde_json::{Value, json};

use super::routes::Operation;
use super::{Call, done, not_here, whole, written};
use crate::market::api::MarketError;
use crate::market::sim::Market;

/// Lines of a log where none are asked for.
const TAIL: usize = 1000;

/// Performs an operation of this family.
pub(super) fn perform(
    market: &mut Market,
    operation: Operation,
    call: &Call<'_>,
) -> Result<String, MarketError> {
    if operation == Operation::Result {
        return result(market, call);
    }
    let account = call.account()?;
    match operation {
        Operation::RequestLogs => logs(market, call, account),
        Operation::Command => command(market, call, account),
        Operation::Copy => copy(market, call, account),
        Operation::CancelCopy | Operation::CancelCloudCopy => {
            let id = end(call, "dst_id")?;
            market.cancel_copies(account, id).map(|()| done())
        }
        Operation::LocalCopy => local_copy(market, call, account),
        Operation::CloudCopy => cloud_copy(market, call, account),
        Operation::AttachSshKey => {
            let key = call.text("ssh_key")?.filter(|key| !key.trim().is_empty());
            let key = key.ok_or_else(|| MarketError::invalid_args("ssh_key is not given"))?;
            market.attach_key(account, call.id()?, key.trim())?;
            written(&json!({"success": true, "msg": "SSH key was added to the instance."}))
        }
        Operation::AttachedSshKeys => {
            let keys = market.attached_keys(account, call.id()?)?;
            let rows: Vec<Value> = keys
                .into_iter()
                .map(|(id, key)| json!({"id": id, "public_key": key}))
                .collect();
            written(&json!({"success": true, "ssh_keys": rows}))
        }
        Operation::DetachSshKey => {
            let number = call.ids.get(1).and_then(|key| key.parse().ok());
            let id = call.id()?;
            let known = match number {
                Some(number) => market.detach_key(account, id, number)?,
                None => false,
            };
            if known {
                written(&json!({"success": true, "msg": "SSH key was removed from the instance."}))
            } else {
                Err(MarketError::new(
                    400,
                    "no_ssh_key",
                    "There is no such SSH key.",
                ))
            }
        }
        _ => Err(not_here(operation)),
    }
}

/// A result, once it is there. Its address is all that is asked for.
fn result(market: &Market, call: &Call<'_>) -> Result<String, MarketError> {
    let name = call.ids.first().map_or("", String::as_str);
    market
        .result(name)
        .map(str::to_owned)
        .ok_or_else(|| MarketError::new(404, "not_found", "The specified key does not exist."))
}

fn address(market: &mut Market, call: &Call<'_>, account: u64, text: String) -> String {
    format!(
        "{}/results/{}",
        call.origin,
        market.keep_result(account, text)
    )
}

/// The last lines of a log, those that hold a text where one is asked for.
fn logs(market: &mut Market, call: &Call<'_>, account: u64) -> Result<String, MarketError> {
    let id = call.id()?;
    let tail = match call.field("tail") {
        None => TAIL,
        Some(value) => whole(value)
            .and_then(|lines| usize::try_from(lines).ok())
            .ok_or_else(|| MarketError::invalid_args("tail is not a number of lines"))?,
    };
    let held = call.text("filter")?.unwrap_or_default();
    let daemon = call.truth("daemon_logs")?.unwrap_or(false);
    let mut lines = market.log_lines(account, id, daemon)?;
    lines.retain(|line| line.contains(&held));
    let from = lines.len().saturating_sub(tail);
    let mut text = lines[from..].join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    let url = address(market, call, account, text);
    written(&json!({
        "success": true, "result_url": url,
        "msg": "Result will be available at result_url in a moment.",
    }))
}

/// One of the few commands that are allowed: `ls`, `du`, `rm`.
fn command(market: &mut Market, call: &Call<'_>, account: u64) -> Result<String, MarketError> {
    let id = call.id()?;
    let line = call
        .text("command")?
        .ok_or_else(|| MarketError::invalid_args("command is not given"))?;
    if market.instance(account, id).is_none() {
        return Err(MarketError::no_such_instance(id));
    }
    let output = match line.split_whitespace().next() {
        Some("ls") => "onstart.sh\nworkspace\n",
        Some("du") => "1.9G\t./workspace\n1.9G\t.\n",
        Some("rm") => "",
        _ => {
            return Err(MarketError::invalid_args(
                "command is not one of ls, du, rm",
            ));
        }
    };
    let url = address(market, call, account, output.to_owned());
    written(&json!({"success": true, "result_url": url, "writeable_path": "/var/lib/docker"}))
}

/// An instance of a copy: its id, or `C.` and its id.
fn end(call: &Call<'_>, name: &str) -> Result<u64, MarketError> {
    let given = call
        .field(name)
        .ok_or_else(|| MarketError::invalid_args(format_args!("{name} is not given")))?;
    let id = match given {
        Value::String(text) => text.strip_prefix("C.").unwrap_or(text).trim().parse().ok(),
        other => whole(other),
    };
    id.ok_or_else(|| MarketError::invalid_args(format_args!("{name} is not an instance")))
}

/// A folder of a copy. Copies onto `/` and `/root` break an instance, so they are refused.
fn folder(call: &Call<'_>, name: &str, written_to: bool) -> Result<String, MarketError> {
    let path = call
        .text(name)?
        .filter(|path| !path.trim().is_empty())
        .ok_or_else(|| MarketError::invalid_args(format_args!("{name} is not given")))?;
    if written_to && matches!(plain_path(&path).as_str(), "/" | "/root") {
        return Err(MarketError::invalid_args(format_args!(
            "{name} must not be / or /root"
        )));
    }
    Ok(path)
}

/// A path without `.`, `..` and double slashes.
fn plain_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.trim().split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn copy(market: &mut Market, call: &Call<'_>, account: u64) -> Result<String, MarketError> {
    let (from, to) = (end(call, "src_id")?, end(call, "dst_id")?);
    let source = folder(call, "src_path", false)?;
    let target = folder(call, "dst_path", true)?;
    if from == to && plain_path(&source) == plain_path(&target) {
        return Err(MarketError::invalid_args(
            "source and destination are the same",
        ));
    }
    market.copy(account, (from, &source), (to, &target))?;
    written(&json!({"success": true, "msg": "Remote to Remote copy initiated."}))
}

/// A copy between an instance and the caller's own machine: the caller does it, and is told how
/// the instance is reached.
fn local_copy(market: &Market, call: &Call<'_>, account: u64) -> Result<String, MarketError> {
    let remote = |name: &str| match call.field(name) {
        None => Ok(None),
        Some(Value::String(text)) if text == "local" => Ok(None),
        Some(_) => end(call, name).map(Some),
    };
    let (from, to) = (remote("src_id")?, remote("dst_id")?);
    if to.is_some() {
        folder(call, "dst_path", true)?;
    }
    let (id, side) = match (from, to) {
        (Some(id), None) => (id, "src"),
        (None, Some(id)) => (id, "dst"),
        _ => return Err(MarketError::invalid_args("one end must be an instance")),
    };
    let row = market.instance(account, id);
    let row = row.ok_or_else(|| MarketError::no_such_instance(id))?;
    let mut answer = json!({"success": true});
    answer[format!("{side}_addr")] = json!(row.public_ipaddr.trim());
    answer[format!("{side}_port")] = json!(row.machine_dir_ssh_port);
    written(&answer)
}

fn cloud_copy(market: &mut Market, call: &Call<'_>, account: u64) -> Result<String, MarketError> {
    let id = end(call, "instance_id")?;
    let connection = call
        .field("selected")
        .ok_or_else(|| MarketError::invalid_args("selected is not given"))?;
    let transfer = call.text("transfer")?.unwrap_or_default();
    let to_cloud = match transfer.to_ascii_lowercase().as_str() {
        "instance to cloud" => true,
        "cloud to instance" => false,
        _ => {
            return Err(MarketError::invalid_args(
                "transfer is not one of Instance To Cloud, Cloud To Instance",
            ));
        }
    };
    let source = folder(call, "src", false)?;
    let target = folder(call, "dst", !to_cloud)?;
    let connection = connection
        .as_str()
        .map_or_else(|| connection.to_string(), str::to_owned);
    let what = if to_cloud {
        format!("C.{id}:{source} -> cloud.{connection}:{target}")
    } else {
        format!("cloud.{connection}:{source} -> C.{id}:{target}")
    };
    market.cloud_copy(account, id, what.clone())?;
    let url = address(market, call, account, format!("{what}\n"));
    written(&json!({"success": true, "msg": "Cloud copy started.", "result_url": url}))
}
