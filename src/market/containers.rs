//! The accounts' containers, for whoever runs their commands for real.

use super::api::{CreateParams, Inside};
use super::contract::{Container, Contract};
use super::sim::Market;

/// So many lines of what a container writes are kept.
const LINES_KEPT: usize = 20_000;

/// An instance that there is, as the host that runs it knows it.
#[derive(Clone, Debug)]
pub(super) struct Hosted {
    /// The instance.
    pub(super) id: u64,
    /// Counts its starts: the same number is the same run of its container.
    pub(super) version: u64,
    /// Whether its container runs.
    pub(super) runs: bool,
    /// What was asked for.
    pub(super) params: CreateParams,
    /// The key inside.
    pub(super) api_key: String,
    /// What the machine really has.
    pub(super) inside: Inside,
    /// Memory of one GPU, in MiB.
    pub(super) gpu_ram: u32,
    /// The driver's version.
    pub(super) driver: String,
}

impl Market {
    /// All instances of accounts, in order.
    pub(super) fn hosted(&self) -> Vec<Hosted> {
        let contracts = self.contracts.values();
        contracts
            .filter_map(|contract| self.host_of(contract))
            .collect()
    }

    fn host_of(&self, contract: &Contract) -> Option<Hosted> {
        let task = contract.task()?;
        let machine = &self.machines[contract.machine];
        let row = &machine.slices[contract.slice].row;
        Some(Hosted {
            id: contract.id,
            version: task.version,
            runs: contract.granted && machine.online && task.container == Container::Running,
            params: task.params.clone(),
            api_key: task.api_key.clone(),
            inside: self.inside(contract.id)?,
            gpu_ram: row.gpu_ram,
            driver: row.driver_version.to_string(),
        })
    }

    /// A container's main process ended by itself. One that was stopped meanwhile is another
    /// matter, and nothing is said of it.
    pub(super) fn container_exits(&mut self, id: u64, version: u64) {
        let task = self.contracts.get(&id).and_then(Contract::task);
        if task.is_some_and(|task| task.version == version && task.container == Container::Running)
        {
            self.container_ended(id);
        }
    }

    /// From now on containers are run for real: what they write, and copies, are theirs.
    pub(super) fn hosts_for_real(&mut self) {
        self.extras.is_real = true;
    }

    /// Lines that a container wrote, after those from before.
    pub(super) fn container_writes(&mut self, id: u64, lines: Vec<String>) {
        if !self.contracts.contains_key(&id) {
            return;
        }
        let kept = self.extras.written.entry(id).or_default();
        kept.extend(lines);
        let over = kept.len().saturating_sub(LINES_KEPT);
        kept.drain(..over);
    }

    /// Copies between instances that were asked for and are not done yet: from, its path, to, its
    /// path.
    pub(super) fn take_copies(&mut self) -> Vec<Copied> {
        std::mem::take(&mut self.extras.to_copy)
    }
}

/// A copy between two instances.
#[derive(Clone, Debug)]
pub(super) struct Copied {
    /// Where from: the instance and a path in it.
    pub(super) from: (u64, String),
    /// Where to.
    pub(super) to: (u64, String),
}
