//! What the daemon asks for while it runs: policies from their directory, secrets from where they
//! are kept, and, for a look ahead, what is known without the right to change it.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::NaiveDate;
use secrecy::{ExposeSecret, SecretString};

use super::failure::Failure;
use crate::config::resolve_secret;
use crate::daemon::{BrokenPolicy, Policies, PolicySet, Secrets};
use crate::marketplace::redact::Redactor;
use crate::policy;
use crate::ports::{Store, StoreError};
use crate::store::Reader;
use crate::types::ids::{Installation, InstanceId, JobName};
use crate::types::instance::Held;
use crate::types::job::SecretRef;
use crate::types::ledger::{BilledDays, Drift};
use crate::types::offer::Snapshot;
use crate::types::state::{Change, State, UserRequest};
use crate::types::time::Time;

/// What is wrong with a policy, in a line.
pub(crate) fn broken(error: &policy::PolicyError) -> BrokenPolicy {
    BrokenPolicy {
        path: PathBuf::from(error.file()),
        job: error.job_name(),
        message: format!("line {}: {}", error.line(), error.message()),
    }
}

/// Policies from a directory, read anew at each tick, so that edits are taken up.
pub(crate) struct PolicyDirectory(pub(crate) PathBuf);

impl Policies for PolicyDirectory {
    fn load(&mut self) -> PolicySet {
        let loaded = policy::load_dir(&self.0);
        PolicySet {
            jobs: loaded
                .jobs
                .into_iter()
                .map(|loaded| (loaded.path, Arc::new(loaded.job)))
                .collect(),
            broken: loaded.errors.iter().map(broken).collect(),
        }
    }
}

/// The policies of a directory, or one of them.
pub(crate) struct OnlyJob {
    pub(crate) directory: PolicyDirectory,
    /// `None`: all.
    pub(crate) only: Option<JobName>,
}

impl Policies for OnlyJob {
    fn load(&mut self) -> PolicySet {
        let mut all = self.directory.load();
        if let Some(only) = &self.only {
            all.jobs.retain(|(_, job)| job.name == *only);
        }
        all
    }
}

/// Secrets from the environment and from files, read when they are needed.
pub(crate) struct SystemSecrets(pub(crate) Arc<Redactor>);

impl Secrets for SystemSecrets {
    fn resolve(&self, reference: &SecretRef) -> Result<SecretString, String> {
        let secret = resolve_secret(reference).map_err(|error| error.to_string())?;
        // The marketplace may send it back in an error's text.
        self.0.add(secret.expose_secret());
        Ok(secret)
    }
}

/// What is known, for a look ahead: reads as the database did once, and forgets what it is told.
pub(crate) struct Aside {
    state: State,
    snapshot: Option<(i64, Snapshot)>,
    ended: Vec<(Time, Held)>,
}

/// Ended instances that a look ahead can still see.
const ENDED_KEPT: u32 = 1000;

impl Aside {
    /// Of a database; without one, of an installation that knows nothing.
    pub(crate) fn new(reader: Option<&Reader>) -> Result<Self, Failure> {
        let Some(reader) = reader else {
            return Ok(Self {
                state: State::new(Installation::from_seed(0)),
                snapshot: None,
                ended: Vec::new(),
            });
        };
        let ended = reader.ended(ENDED_KEPT)?;
        Ok(Self {
            state: reader.state()?,
            snapshot: reader.last_snapshot()?,
            ended: ended
                .into_iter()
                .map(|ended| (ended.at, ended.held))
                .collect(),
        })
    }

    /// What was known.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }
}

impl Store for Aside {
    fn load(&mut self) -> Result<State, StoreError> {
        Ok(self.state.clone())
    }

    fn commit(&mut self, _changes: &[Change]) -> Result<(), StoreError> {
        Ok(())
    }

    fn snapshot(&mut self, _snapshot: &Snapshot) -> Result<i64, StoreError> {
        Ok(self.snapshot.as_ref().map_or(0, |(id, _)| *id))
    }

    fn last_snapshot(&mut self) -> Result<Option<(i64, Snapshot)>, StoreError> {
        Ok(self.snapshot.clone())
    }

    fn ended_since(&mut self, from: Time) -> Result<Vec<Held>, StoreError> {
        let since = self.ended.iter().filter(|(at, _)| *at >= from);
        Ok(since.map(|(_, held)| held.clone()).collect())
    }

    fn ended(&mut self, instance: InstanceId) -> Result<Option<Held>, StoreError> {
        let found = self.ended.iter().find(|(_, held)| held.id == instance);
        Ok(found.map(|(_, held)| held.clone()))
    }

    fn billed(&mut self, _instance: InstanceId) -> Result<BilledDays, StoreError> {
        // Nothing is compared with a bill where nothing is written.
        Ok(BilledDays::new())
    }

    fn drift(&mut self, _day: NaiveDate) -> Result<Vec<Drift>, StoreError> {
        Ok(Vec::new())
    }

    fn requests(&mut self) -> Result<Vec<UserRequest>, StoreError> {
        Ok(Vec::new())
    }

    fn prune(&mut self, _before: Time) -> Result<(), StoreError> {
        Ok(())
    }
}
