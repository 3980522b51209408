//! `haggle instances`: what is rented, how to reach it, what it costs.

use clap::Args;
use serde::Serialize;

use super::context::{Context, open_reader};
use super::failure::{Done, Exit};
use super::jobs::{burn, held_word};
use super::output::Align;
use super::reach::Address;
use super::words;
use crate::types::instance::Held;
use crate::types::time::{Time, human};

/// Ended instances shown with `--all`.
const ENDED_SHOWN: u32 = 100;

/// Shows what is rented.
#[derive(Args, Clone, Debug)]
pub(crate) struct InstancesArgs {
    /// Show instances that are gone too, the last hundred.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Serialize)]
struct InstanceDocument {
    instance: u64,
    replica: String,
    status: &'static str,
    since: String,
    machine: u64,
    gpus: u32,
    gpu_name: String,
    rental: &'static str,
    price_dollars_per_hour: String,
    storage_dollars_per_hour: String,
    burn_dollars_per_hour: String,
    spend_dollars: String,
    billed_dollars: String,
    ssh: Option<String>,
    ssh_command: Option<String>,
    created_at: String,
    ends_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destroyed_because: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct InstancesDocument {
    instances: Vec<InstanceDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<Vec<InstanceDocument>>,
}

pub(crate) fn run(context: &Context, args: &InstancesArgs) -> Done {
    let config = context.config()?;
    let reader = open_reader(&config)?;
    let held: Vec<Held> = reader.state()?.held.into_values().collect();
    let ended = if args.all {
        reader.ended(ENDED_SHOWN)?
    } else {
        Vec::new()
    };
    let document = InstancesDocument {
        instances: held.iter().map(|held| instance(held, None)).collect(),
        ended: args.all.then(|| {
            ended
                .iter()
                .map(|ended| instance(&ended.held, Some(ended.at)))
                .collect()
        }),
    };
    let now = context.now();
    context.output.show(&document, || {
        let mut text = if held.is_empty() {
            "nothing is rented".to_owned()
        } else {
            table(context, &held, now)
        };
        if !ended.is_empty() {
            text.push_str("\n\n");
            text.push_str(&ended_table(context, &ended));
        }
        text
    })?;
    Ok(Exit::Success)
}

/// The command that opens a shell; `None` where the address is not known or not one.
pub(crate) fn ssh_command(address: &str) -> Option<String> {
    Address::parse(address).map(|address| address.ssh_command())
}

fn instance(held: &Held, ended_at: Option<Time>) -> InstanceDocument {
    InstanceDocument {
        instance: held.id.0,
        replica: held.replica.to_string(),
        status: if ended_at.is_some() {
            "gone"
        } else {
            held_word(held)
        },
        since: ended_at.unwrap_or(held.phase_since).to_string(),
        machine: held.slot.machine.0,
        gpus: held.slot.gpus,
        gpu_name: held.gpu_name.clone(),
        rental: held.rental.as_str(),
        price_dollars_per_hour: held.price.decimal(),
        storage_dollars_per_hour: held.storage.decimal(),
        burn_dollars_per_hour: if ended_at.is_some() {
            "0.00".into()
        } else {
            burn(held).decimal()
        },
        spend_dollars: held.spent().decimal(),
        billed_dollars: held.billed.decimal(),
        ssh: held.ssh.clone(),
        ssh_command: held.ssh.as_deref().and_then(ssh_command),
        created_at: held.created_at.to_string(),
        ends_at: held.ends_at.map(|at| at.to_string()),
        ended_at: ended_at.map(|at| at.to_string()),
        destroyed_because: held.destroying.map(words::destroy),
    }
}

fn table(context: &Context, held: &[Held], now: Time) -> String {
    let columns = [
        ("instance", Align::Right),
        ("replica", Align::Left),
        ("status", Align::Left),
        ("for", Align::Right),
        ("machine", Align::Right),
        ("gpus", Align::Left),
        ("rental", Align::Left),
        ("price/h", Align::Right),
        ("spent", Align::Right),
        ("shell", Align::Left),
    ];
    let rows = held
        .iter()
        .map(|held| {
            vec![
                held.id.to_string(),
                held.replica.to_string(),
                held_word(held).into(),
                human(now.since(held.phase_since)),
                held.slot.machine.to_string(),
                format!("{}x {}", held.slot.gpus, held.gpu_name),
                held.rental.as_str().into(),
                format!("{:.4}", held.price),
                format!("{:.2}", held.spent()),
                held.ssh
                    .as_deref()
                    .and_then(ssh_command)
                    .unwrap_or_else(|| "-".into()),
            ]
        })
        .collect();
    context.output.table(&columns, rows)
}

fn ended_table(context: &Context, ended: &[crate::store::Ended]) -> String {
    let columns = [
        ("gone", Align::Right),
        ("replica", Align::Left),
        ("ended", Align::Left),
        ("ran", Align::Right),
        ("machine", Align::Right),
        ("gpus", Align::Left),
        ("rental", Align::Left),
        ("price/h", Align::Right),
        ("spent", Align::Right),
        ("because", Align::Left),
    ];
    let rows = ended
        .iter()
        .map(|ended| {
            let held = &ended.held;
            let ran = u64::try_from(held.billed_ms).unwrap_or(0);
            vec![
                held.id.to_string(),
                held.replica.to_string(),
                ended.at.to_string(),
                human(std::time::Duration::from_millis(ran)),
                held.slot.machine.to_string(),
                format!("{}x {}", held.slot.gpus, held.gpu_name),
                held.rental.as_str().into(),
                format!("{:.4}", held.price),
                format!("{:.2}", held.spent()),
                held.destroying.map_or("-", words::destroy).into(),
            ]
        })
        .collect();
    context.output.table(&columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_command_is_made_of_safe_addresses_only() {
        assert_eq!(
            ssh_command("ssh4.example.net:31022").as_deref(),
            Some("ssh -p 31022 root@ssh4.example.net")
        );
        assert_eq!(ssh_command("-oProxyCommand=x:22"), None);
        assert_eq!(ssh_command("host;rm:22"), None);
        assert_eq!(ssh_command("host:99999"), None);
        assert_eq!(ssh_command("host"), None);
    }
}
