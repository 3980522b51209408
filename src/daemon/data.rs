//! What runs keep in storage: the documents that say where, and which checkpoint a run begins with.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use secrecy::SecretString;

use super::{Daemon, DaemonError};
use crate::engine::lease::term;
use crate::runner::input_lines;
use crate::storage::{Key, Objects, Place, Restore, Tree, Turn, VALID_MAX, control, is_whole};
use crate::types::ids::{IntentId, ReplicaId};
use crate::types::input::{Input, Source};
use crate::types::instance::Held;
use crate::types::job::{Job, Runner, Storage};
use crate::types::state::{KeptCheckpoint, ReplicaRecord};
use crate::types::time::{Mono, Time};

/// The addresses of a run without a lease are good for so long, and made anew when half of it is over.
const WITHOUT_LEASE: Duration = Duration::from_hours(4);

/// That a job's storage does not work is told again after this.
const TOLD_EVERY: Duration = Duration::from_hours(1);

/// A storage that failed is left alone for so long: what is asked of it keeps the tick waiting.
const RESTS: Duration = Duration::from_mins(5);

/// A request of a tick to storage takes no longer.
const REQUEST_MAX: Duration = Duration::from_secs(10);

/// No further document is begun on in a tick after so long: limits do not wait for storage.
const RENEWING_MAX: Duration = Duration::from_secs(15);

/// So many checkpoints are looked up for one rent: each takes two requests.
const LOOKED_UP_MAX: usize = 3;

/// Why a run cannot be given its storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The storage does not work: nothing of that job is asked of it for a while.
    Fails(String),
    /// It works, and what this replica is to begin with is not there.
    Missing(String),
}

/// What a run's document says beside its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    /// The checkpoint to begin with.
    restore: Option<Restore>,
    /// The place of its own that it must not write over.
    keep: Option<Turn>,
}

/// What was published for an instance, and when.
pub(super) type Published = (Time, Named);

impl Daemon {
    /// Publishes what a run may read and write, and gives the address of that. `None`: the job keeps
    /// nothing in storage. It is done before the instance is made, and again with each renewal.
    pub(super) async fn publish_control(
        &self,
        job: &Job,
        replica: &ReplicaId,
        run: IntentId,
    ) -> Result<Option<SecretString>, Trouble> {
        let Some((runner, storage)) = stored(job) else {
            return Ok(None);
        };
        let objects = self.objects(storage).map_err(Trouble::Fails)?;
        let record = self.state.replica(replica);
        let restore = self.to_begin_with(&objects, &record, run).await?;
        let named = Named {
            restore,
            keep: own(&record, run),
        };
        if !runner.inputs.iter().all(Input::is_ready) {
            return Err(Trouble::Missing(
                "its inputs are not in storage yet".to_owned(),
            ));
        }
        let given = (runner, &runner.inputs[..]);
        let address = self.publish(&objects, given, (replica, run), &named);
        Ok(Some(address.await.map_err(Trouble::Fails)?))
    }

    /// Writes a run's document, and signs its address.
    async fn publish(
        &self,
        objects: &Objects,
        (runner, inputs): (&Runner, &[Input]),
        (replica, run): (&ReplicaId, IntentId),
        named: &Named,
    ) -> Result<SecretString, String> {
        let place = objects.place();
        let (now, valid) = (self.now(), self.valid(runner));
        let known = (named.restore.as_ref(), named.keep);
        let text = control(place, replica, run, known, now, valid);
        let unsigned = |error| format!("addresses in storage cannot be signed: {error}");
        let mut text = text.map_err(unsigned)?;
        text += &input_lines::<String>(inputs, |input| {
            let key = match (&input.from, &input.found) {
                (Source::Address(address), _) => return Ok(address.clone()),
                (Source::Object(key), _) => Key::named(key),
                (Source::Path(_), found) => found.as_ref().and_then(|found| {
                    let sum = found.mark.parse().ok()?;
                    Some(place.input_key(&replica.job, sum))
                }),
            };
            let key = key.ok_or_else(|| format!("{} is not in storage", input.origin()))?;
            let signed = place.get_url(&key, now, valid).map_err(unsigned)?;
            Ok(signed.expose().to_owned())
        })?;
        let key = place.keys(replica, run).control();
        let put = objects.put(&key, Bytes::from(text), now).await;
        put.map_err(|error| error.to_string())?;
        let address = place.get_url(&key, now, VALID_MAX);
        let address = address.map_err(|error| error.to_string())?;
        Ok(SecretString::from(address.expose()))
    }

    /// The newest checkpoint of earlier runs that is in storage as it was told of. Whether it is there
    /// is looked up by us, and not left to the word of a machine.
    async fn to_begin_with(
        &self,
        objects: &Objects,
        record: &ReplicaRecord,
        run: IntentId,
    ) -> Result<Option<Restore>, Trouble> {
        let mut missing = Vec::new();
        let earlier = record.checkpoints.iter().filter(|kept| kept.run != run);
        for kept in earlier.take(LOOKED_UP_MAX) {
            let Some(from) = restore(kept) else { continue };
            let keys = objects.place().keys(&record.id, from.run);
            let tree = Tree::Checkpoint(from.turn);
            let whole = is_whole(objects, &keys, tree, from.manifest, self.now()).await;
            if whole.map_err(|error| Trouble::Fails(error.to_string()))? {
                return Ok(Some(from));
            }
            missing.push(format!("`{}`", keys.manifest(tree)));
        }
        if missing.is_empty() {
            return Ok(None);
        }
        // Begun anew, it would do all its work once more. Who moved the storage wants to know first.
        Err(Trouble::Missing(format!(
            "none of the last checkpoints of {} that were told of is in the bucket `{}` as it was told: {}; \
             put them back where they were (was [data.storage] changed?), or give the job another name \
             to begin anew",
            record.id,
            objects.place().bucket(),
            missing.join(", ")
        )))
    }

    /// Publishes anew what is about to expire, or names other checkpoints.
    pub(super) async fn renew_controls(&mut self, jobs: &[Arc<Job>]) -> Result<(), DaemonError> {
        self.published
            .retain(|id, _| self.state.held.contains_key(id));
        let due = |held: &Held| {
            let job = jobs.iter().find(|job| job.name == held.replica.job)?;
            let is_ours = held.destroying.is_none() && held.runner.is_some();
            stored(job).filter(|_| is_ours)?;
            Some((held.clone(), Arc::clone(job)))
        };
        let mut kept: Vec<_> = self.state.held.values().filter_map(due).collect();
        // Those first whose document is the oldest, or of which this process knows none.
        kept.sort_by_key(|(held, _)| (self.published.get(&held.id).map(|(at, _)| *at), held.id));
        let begun = self.parts.clock.monotonic();
        for (held, job) in kept {
            if self.parts.clock.monotonic().since(begun) >= RENEWING_MAX {
                break;
            }
            if self.storage_rests(&job, &held.replica) {
                continue;
            }
            match self.renew_control(&held, &job).await {
                Ok(Some(published)) => {
                    self.published.insert(held.id, published);
                }
                Ok(None) => {}
                Err(trouble) => self.tell_storage(&job, &held.replica, &trouble)?,
            }
        }
        Ok(())
    }

    /// Publishes anew for one instance, where that is due.
    async fn renew_control(&self, held: &Held, job: &Job) -> Result<Option<Published>, Trouble> {
        let Some((runner, storage)) = stored(job) else {
            return Ok(None);
        };
        let record = self.state.replica(&held.replica);
        let worked = held.runner.as_ref().is_some_and(|view| view.worked);
        let keep = own(&record, held.intent);
        let (now, half) = (self.now(), self.valid(runner) / 2);
        let fresh = |at: Time| (Duration::ZERO..half).contains(&now.since(at)) && at <= now;
        // A run that has begun needs nothing to begin with; what one was given stays, unless it turned
        // out to be bad.
        let stands = |named: &Named| {
            let is_known = |from: &Restore| {
                let mut all = record.checkpoints.iter().filter_map(restore);
                all.any(|known| known == *from)
            };
            worked || named.restore.as_ref().is_none_or(is_known)
        };
        let before = self.published.get(&held.id);
        if before.is_some_and(|(at, named)| fresh(*at) && named.keep == keep && stands(named)) {
            return Ok(None);
        }
        // What it was made with, whatever its policy says by now.
        let view = held.runner.as_ref();
        let given = view.and_then(|view| view.given.as_deref());
        let given = given.map_or(&[][..], |given| &given.inputs);
        let inputs = match known(given, &runner.inputs) {
            Some(inputs) => inputs,
            // It has them.
            None if worked => Vec::new(),
            // One without them would make it wait for ever: what was published before stands.
            None => return Ok(None),
        };
        let objects = self.objects(storage).map_err(Trouble::Fails)?;
        let restore = if worked {
            None
        } else {
            self.to_begin_with(&objects, &record, held.intent).await?
        };
        let named = Named { restore, keep };
        let run = (&held.replica, held.intent);
        let given = (runner, &inputs[..]);
        let published = self.publish(&objects, given, run, &named).await;
        published.map_err(Trouble::Fails)?;
        Ok(Some((now, named)))
    }

    /// Whether a job's storage failed a moment ago, or did not have what a replica needs, and is not
    /// asked again yet.
    pub(super) fn storage_rests(&self, job: &Job, replica: &ReplicaId) -> bool {
        let mono = self.parts.clock.monotonic();
        let rests = |at: Option<&Mono>| at.is_some_and(|at| mono.since(*at) < RESTS);
        rests(self.storage_failed.get(&job.name)) || rests(self.storage_lacks.get(replica))
    }

    /// Tells that the storage of a job does not work, not oftener than once in an hour.
    pub(super) fn tell_storage(
        &mut self,
        job: &Job,
        replica: &ReplicaId,
        trouble: &Trouble,
    ) -> Result<(), DaemonError> {
        let mono = self.parts.clock.monotonic();
        let text = match trouble {
            Trouble::Fails(message) => {
                self.storage_failed.insert(job.name.clone(), mono);
                format!(
                    "the storage of job {} cannot be used: {message}; nothing is rented for it, and what \
                     runs cannot keep its checkpoints once its addresses have expired",
                    job.name
                )
            }
            Trouble::Missing(message) => {
                self.storage_lacks.insert(replica.clone(), mono);
                format!("nothing is rented for {replica}: {message}")
            }
        };
        tracing::warn!("{text}");
        let about = match trouble {
            Trouble::Fails(_) => (job.name.clone(), None),
            Trouble::Missing(_) => (job.name.clone(), Some(replica.clone())),
        };
        let told = self.storage_told.get(&about);
        if told.is_some_and(|told| mono.since(*told) < TOLD_EVERY) {
            return Ok(());
        }
        self.storage_told.insert(about, mono);
        let warning = self.warn("storage-failed", text, None);
        self.commit(&[warning])
    }

    /// For how long addresses are good: two terms, so that a renewal may fail once.
    fn valid(&self, runner: &Runner) -> Duration {
        let term = term(&self.settings.engine, runner).unwrap_or(WITHOUT_LEASE);
        term.saturating_mul(2).min(VALID_MAX)
    }

    /// Those of a tick, which cannot wait.
    fn objects(&self, storage: &Storage) -> Result<Objects, String> {
        Ok(self.objects_without_haste(storage)?.within(REQUEST_MAX))
    }

    /// The objects of a place, for whoever can wait.
    pub(super) fn objects_without_haste(&self, storage: &Storage) -> Result<Objects, String> {
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

/// The inputs that a run was given. Of those of which nothing was known then, for it was taken over from a
/// database that is lost, what is known of the same ones by now; `None`: not all are known.
fn known(given: &[Input], now: &[Input]) -> Option<Vec<Input>> {
    let said = |input: &Input| {
        let (from, to) = (input.from.clone(), input.to.clone());
        (from, to, input.into, input.sha256.clone(), input.packing)
    };
    let one = |input: &Input| {
        let all = std::iter::once(input).chain(now.iter());
        let mut same = all.filter(|other| said(other) == said(input));
        same.find(|other| other.is_ready()).cloned()
    };
    given.iter().map(one).collect()
}

/// A checkpoint that was told of, to begin with. What cannot be one is none.
fn restore(kept: &KeptCheckpoint) -> Option<Restore> {
    Some(Restore {
        run: kept.run,
        turn: Turn::from_slot(kept.slot)?,
        manifest: kept.manifest.parse().ok()?,
    })
}

/// The place of a run's newest checkpoint that was told of.
fn own(record: &ReplicaRecord, run: IntentId) -> Option<Turn> {
    Turn::from_slot(record.newest_of(run)?.slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::input::Found;

    #[test]
    fn what_is_not_known_of_a_runs_inputs_is_taken_from_the_same_ones() {
        let input = |name: &str, mark: Option<&str>| Input {
            from: Source::Object(name.to_owned()),
            to: format!("/{name}"),
            into: false,
            sha256: None,
            packing: None,
            found: mark.map(|mark| Found {
                mark: mark.to_owned(),
                bytes: 7,
                is_directory: false,
            }),
        };
        let given = [input("a", Some("old")), input("b", None)];
        let now = [input("b", Some("new")), input("a", Some("new"))];
        // What it was given stays, whatever it is by now.
        let all = [input("a", Some("old")), input("b", Some("new"))];
        assert_eq!(known(&given, &now), Some(all.to_vec()));
        assert_eq!(known(&given, &now[1..]), None);
        let mut elsewhere = input("b", Some("new"));
        elsewhere.to = "/c".to_owned();
        assert_eq!(known(&given, &[elsewhere]), None);
        assert_eq!(known(&[], &now), Some(Vec::new()));
    }
}
