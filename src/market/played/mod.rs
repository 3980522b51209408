//! Haggle's runner, played: the market runs no commands, but tells in an instance's log what a runner
//! there would tell, and does to the instance what it would do.
//!
//! [`player`] follows `runner/run.sh`; here is what ties it to an instance. Where commands are run for
//! real nothing is played.

mod command;
mod machine;
mod player;
#[cfg(test)]
mod tests;

use super::api::AtWork;
use super::contract::{Container, Contract, Task};
use super::sim::{Due, Market};

pub use command::{EXITS, HANGS_AFTER};
use machine::Machine;
use player::Act;
pub(super) use player::Player;

/// Nothing is due sooner than this after something was: as the script sleeps between two looks.
const STEP_MS_LEAST: i64 = 1_000;

/// What of a GPU's memory the driver takes, in MiB.
const DRIVER_MIB: u32 = 300;

impl Market {
    /// Takes up what an instance is to run, where that is haggle's runner.
    pub(super) fn takes_up_runner(&mut self, id: u64) {
        if self.extras.is_real {
            return;
        }
        let task = self.contracts.get_mut(&id).and_then(Contract::task_mut);
        let player = task.and_then(|task| {
            let player = Player::of(&task.params)?;
            // What ends the command does not end the container, which the runner is.
            task.run_for = None;
            Some(player)
        });
        match player {
            Some(player) => {
                self.extras.players.insert(id, player);
            }
            None => {
                self.extras.players.remove(&id);
            }
        }
    }

    /// A container has come up, for this version of its instance.
    pub(super) fn runner_boots(&mut self, id: u64, version: u64) {
        let now = self.now;
        if let Some(player) = self.extras.players.get_mut(&id) {
            player.boots(now);
            self.runner_steps(id, version);
        }
    }

    /// What a runner does next, if its container still runs.
    pub(super) fn runner_steps(&mut self, id: u64, version: u64) {
        let Some(task) = self.living_task(id).filter(|task| task.version == version) else {
            return;
        };
        let (account, label) = (task.account, task.label.clone());
        let (now, machine) = (self.now, self.as_tried(id));
        let Some(player) = self.extras.players.get_mut(&id) else {
            return;
        };
        let step = player.step(now, label.as_deref().unwrap_or_default(), &machine);
        // Its own key opens its own instance, so neither is refused.
        let done = match step.act {
            None => Ok(()),
            Some(Act::Stop) => self.stop(account, id),
            Some(Act::Destroy) => {
                self.extras.ended_themselves.insert(id);
                self.destroy(account, id)
            }
        };
        if let Err(error) = done {
            tracing::warn!(%error, "the runner of instance {id} was refused");
        }
        if let Some(next) = step.next {
            let ms = next.ms_since(now).max(STEP_MS_LEAST);
            self.later(ms, Due::Runner(id, version));
        }
    }

    /// What an instance of an account is, if its container runs.
    fn living_task(&self, id: u64) -> Option<&Task> {
        let contract = self.contracts.get(&id).filter(|held| held.granted)?;
        let online = self.machines[contract.machine].online;
        let task = contract.task()?;
        (online && task.container == Container::Running).then_some(task)
    }

    /// What an instance's machine shows whoever tries it.
    fn as_tried(&self, id: u64) -> Machine {
        let contract = self.contracts.get(&id);
        let Some((contract, inside)) = contract.zip(self.inside(id)) else {
            return Machine::default();
        };
        let row = &self.machines[contract.machine].slices[contract.slice].row;
        Machine {
            gpus: inside.gpus,
            model: inside.gpu_name.to_string(),
            vram: (row.gpu_ram, row.gpu_ram.saturating_sub(DRIVER_MIB)),
            driver: row.driver_version.to_string(),
            disk: row.disk_bw as u32,
            download: inside.download as u32,
        }
    }

    /// What the runner of an instance does; `None` where it has none that is played. For checkers; no
    /// wire shows it.
    pub fn at_work(&self, instance: u64) -> Option<AtWork> {
        let player = self.extras.players.get(&instance)?;
        let lives = self.living_task(instance).is_some();
        Some(AtWork {
            generation: player.generation(),
            fenced: player.is_fenced(),
            works: lives && player.works(),
            ended: player.ended().filter(|_| lives),
            ended_well: lives && player.ended_well(),
        })
    }

    /// Whether an instance was destroyed by its own runner. For checkers; no wire shows it.
    pub fn ended_itself(&self, instance: u64) -> bool {
        self.extras.ended_themselves.contains(&instance)
    }
}
