//! Instances as documents: what is rented, how to reach it, what it costs.

use serde::Serialize;
use utoipa::ToSchema;

use super::address::Address;
use super::jobs::{burn, held_word};
use super::words;
use crate::types::instance::Held;
use crate::types::time::Time;

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct InstanceDocument {
    pub(crate) instance: u64,
    pub(crate) replica: String,
    pub(crate) status: &'static str,
    pub(crate) since: String,
    pub(crate) machine: u64,
    pub(crate) gpus: u32,
    pub(crate) gpu_name: String,
    pub(crate) rental: &'static str,
    pub(crate) price_dollars_per_hour: String,
    pub(crate) storage_dollars_per_hour: String,
    pub(crate) burn_dollars_per_hour: String,
    pub(crate) spend_dollars: String,
    pub(crate) billed_dollars: String,
    pub(crate) ssh: Option<String>,
    pub(crate) ssh_command: Option<String>,
    pub(crate) created_at: String,
    pub(crate) ends_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) destroyed_because: Option<&'static str>,
}

/// The document of an instance; of one that is gone, with when that was settled.
pub(crate) fn instance(held: &Held, ended_at: Option<Time>) -> InstanceDocument {
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

/// The command that opens a shell; `None` where the address is not known or not one.
pub(crate) fn ssh_command(address: &str) -> Option<String> {
    Address::parse(address).map(|address| address.ssh_command())
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
