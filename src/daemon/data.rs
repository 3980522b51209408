//! What runs keep in storage: the documents that say where, and which checkpoint a run begins with.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use secrecy::SecretString;

use super::{Daemon, DaemonError};
use crate::engine::lease::term;
use crate::storage::{Objects, Place, Restore, Turn, VALID_MAX, control};
use crate::types::ids::{IntentId, ReplicaId};
use crate::types::instance::Held;
use crate::types::job::{Job, Runner, Storage};
use crate::types::state::ReplicaRecord;

/// The addresses of a run without a lease are good for so long, and made anew when half of it is over.
const WITHOUT_LEASE: Duration = Duration::from_hours(4);

/// That a job's storage does not work is told again after this.
const TOLD_EVERY: Duration = Duration::from_hours(1);

impl Daemon {
    /// Publishes what a run may read and write, and gives the address of that. `None`: the job keeps
    /// nothing in storage. It is done before the instance is made, and again with each renewal.
    pub(super) async fn publish_control(
        &self,
        job: &Job,
        replica: &ReplicaId,
        run: IntentId,
    ) -> Result<Option<SecretString>, String> {
        let Some((runner, storage)) = stored(job) else {
            return Ok(None);
        };
        let objects = self.objects(storage)?;
        let place = objects.place();
        let record = self.state.replica(replica);
        let restore = restore(&record).filter(|from| from.run != run);
        let valid = self.valid(runner);
        let now = self.now();
        let text = control(place, replica, run, restore.as_ref(), now, valid);
        let text =
            text.map_err(|error| format!("addresses in storage cannot be signed: {error}"))?;
        let key = place.keys(replica, run).control();
        let put = objects.put(&key, Bytes::from(text), now).await;
        put.map_err(|error| error.to_string())?;
        let address = place.get_url(&key, now, valid);
        let address = address.map_err(|error| error.to_string())?;
        Ok(Some(SecretString::from(address.expose())))
    }

    /// Publishes anew what is about to expire, or names another checkpoint to begin with.
    pub(super) async fn renew_controls(&mut self, jobs: &[Arc<Job>]) -> Result<(), DaemonError> {
        self.published
            .retain(|id, _| self.state.held.contains_key(id));
        let due = |held: &Held| {
            let job = jobs.iter().find(|job| job.name == held.replica.job)?;
            let is_ours = held.destroying.is_none() && held.runner.is_some();
            stored(job).filter(|_| is_ours)?;
            Some((held.clone(), Arc::clone(job)))
        };
        let kept: Vec<_> = self.state.held.values().filter_map(due).collect();
        for (held, job) in kept {
            let Some((runner, _)) = stored(&job) else {
                continue;
            };
            let worked = held.runner.as_ref().is_some_and(|view| view.worked);
            let record = self.state.replica(&held.replica);
            let from = record
                .checkpoint
                .filter(|from| !worked && from.run != held.intent);
            let half = self.valid(runner) / 2;
            let now = self.now();
            let is_good = self.published.get(&held.id).is_some_and(|(at, named)| {
                (Duration::ZERO..half).contains(&now.since(*at)) && *at <= now && *named == from
            });
            if is_good {
                continue;
            }
            match self.publish_control(&job, &held.replica, held.intent).await {
                Ok(_) => {
                    self.published.insert(held.id, (now, from));
                }
                Err(message) => self.tell_storage(&job, &message)?,
            }
        }
        Ok(())
    }

    /// Tells that the storage of a job does not work, not oftener than once in an hour.
    pub(super) fn tell_storage(&mut self, job: &Job, message: &str) -> Result<(), DaemonError> {
        tracing::warn!("the storage of {}: {message}", job.name);
        let mono = self.parts.clock.monotonic();
        let told = self.storage_told.get(&job.name);
        if told.is_some_and(|told| mono.since(*told) < TOLD_EVERY) {
            return Ok(());
        }
        self.storage_told.insert(job.name.clone(), mono);
        let text = format!(
            "the storage of job {} cannot be used: {message}; nothing is rented for it, and what runs \
             cannot keep its checkpoints once its addresses have expired",
            job.name
        );
        let warning = self.warn("storage-failed", text, None);
        self.commit(&[warning])
    }

    /// For how long addresses are good: two terms, so that a renewal may fail once.
    fn valid(&self, runner: &Runner) -> Duration {
        let term = term(&self.settings.engine, runner).unwrap_or(WITHOUT_LEASE);
        term.saturating_mul(2).min(VALID_MAX)
    }

    fn objects(&self, storage: &Storage) -> Result<Objects, String> {
        let access = self.parts.secrets.resolve(&storage.access_key)?;
        let secret = self.parts.secrets.resolve(&storage.secret_key)?;
        let place = Place::new(storage, access, secret).map_err(|error| error.to_string())?;
        Objects::new(place).map_err(|error| error.to_string())
    }
}

fn stored(job: &Job) -> Option<(&Runner, &Storage)> {
    let runner = job.run.runner.as_deref()?;
    Some((runner, runner.storage.as_ref()?))
}

/// The last checkpoint that a run of a replica told of. What cannot be one is none.
fn restore(record: &ReplicaRecord) -> Option<Restore> {
    let kept = record.checkpoint.as_ref()?;
    Some(Restore {
        run: kept.run,
        turn: Turn::from_slot(kept.slot)?,
        manifest: kept.manifest.parse().ok()?,
    })
}
