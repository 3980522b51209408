//! Instances as documents: what is rented, how to reach it, what it costs.

use serde::Serialize;
use utoipa::ToSchema;

use super::address::Address;
use super::jobs::{burn, held_word};
use super::words;
use crate::types::instance::Held;
use crate::types::job::{Job, RunType};
use crate::types::start::Asked;
use crate::types::time::Time;

/// The port on which an image of the user's own may listen for SSH.
const SSH_PORT: u16 = 22;

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

/// The document of an instance, with its job where that is known; of one that is gone, with when that was
/// settled.
pub(crate) fn instance(held: &Held, job: Option<&Job>, ended_at: Option<Time>) -> InstanceDocument {
    let reachable = ended_at.is_none() && has_shell(held, job);
    let ssh = held.ssh.as_deref().filter(|_| reachable);
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
        ssh: ssh.map(str::to_owned),
        ssh_command: ssh.and_then(ssh_command),
        created_at: held.created_at.to_string(),
        ends_at: held.ends_at.map(|at| at.to_string()),
        ended_at: ended_at.map(|at| at.to_string()),
        destroyed_because: held.destroying.map(words::destroy),
    }
}

/// Whether a job's containers have an SSH server, as far as its policy says.
pub(crate) fn has_ssh_server(job: &Job) -> bool {
    let mut ports = job.run.ports.iter();
    let own = ports.any(|(port, protocol)| *port == SSH_PORT && protocol == "tcp");
    job.run.run_type != RunType::Args || own
}

/// Whether a shell can be had on an instance: not where its image's own entry point runs, whatever
/// address the marketplace shows. Where its policy has changed since, or is not known, that is not known.
pub(crate) fn has_shell(held: &Held, job: Option<&Job>) -> bool {
    let asked = held.asked.as_ref();
    job.is_none_or(|job| {
        let same = asked.is_none_or(|asked| asked.start == Asked::of(&job.run).start);
        has_ssh_server(job) || !same
    })
}

/// The command that opens a shell; `None` where the address is not known or not one.
pub(crate) fn ssh_command(address: &str) -> Option<String> {
    Address::parse(address).map(|address| address.ssh_command())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::{InstanceId, IntentId, ReplicaId};

    #[test]
    fn no_address_is_shown_where_the_image_runs_its_own_entry_point() {
        let job = |name: &str, rest: &str| {
            let text = format!(
                "name = \"{name}\"\n[run]\nimage = \"x\"\n{rest}\n[price]\nmax = \"$1/gpu-hour\"\n"
            );
            crate::policy::parse("a.toml", &text).unwrap()
        };
        let of = |job: &Job| {
            let replica = ReplicaId {
                job: job.name.clone(),
                index: 0,
            };
            let mut held = Held::new(InstanceId(1), IntentId(1), replica, Time(0));
            held.asked = Some(Asked::of(&job.run));
            held.ssh = Some("ssh4.example.net:31022".to_owned());
            held
        };
        let (args, ssh) = (job("a", "type = \"args\""), job("b", "type = \"ssh\""));
        let own = job("c", "type = \"args\"\nports = [\"22/tcp\"]");
        let shown = |held: &Held, job: Option<&Job>, ended| {
            let document = instance(held, job, ended);
            assert_eq!(document.ssh.is_some(), document.ssh_command.is_some());
            document.ssh.is_some()
        };
        assert!(!shown(&of(&args), Some(&args), None));
        assert!(shown(&of(&ssh), Some(&ssh), None));
        assert!(shown(&of(&own), Some(&own), None), "a server of its own");
        // It was rented when its policy said otherwise.
        let before = job("a", "type = \"ssh\"");
        assert!(shown(&of(&before), Some(&args), None));
        assert!(shown(&of(&args), None, None), "nothing is known of it");
        assert!(!shown(&of(&ssh), Some(&ssh), Some(Time(1))), "it is gone");
    }

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
