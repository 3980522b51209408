//! Wires adapters to the daemon: for play, in this process; in life, as the configuration says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;
use tempfile::TempDir;

use super::failure::{Failure, OrFail};
use crate::daemon::metrics::Metrics;
use crate::marketplace::counted::{Count, Counted};
use crate::marketplace::lowcode::{LowCode, LowCodeOptions};
use crate::marketplace::vast::{Vast, VastOptions};
use crate::ports::{Clock, Marketplace, Store, Transport};
use crate::simulate::{Adapters, TOKEN};
use crate::store::{Reader, SqliteStore, append_request};

/// A directory that is gone with the process, for a database of play money.
pub(crate) struct Scratch {
    dir: TempDir,
    metrics: Arc<Metrics>,
}

impl Scratch {
    /// A new one.
    pub(crate) fn new() -> Result<Self, Failure> {
        let dir = tempfile::Builder::new()
            .prefix("haggle-")
            .tempdir()
            .or_mendable("cannot make a temporary directory")?;
        Ok(Self {
            dir,
            metrics: Arc::new(Metrics::new()),
        })
    }

    /// Where its database is.
    pub(crate) fn database(&self) -> PathBuf {
        self.dir.path().join("haggle.db")
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// The gateway's client, or the marketplace's own, and SQLite, for an embedded market.
    pub(crate) fn adapters(&self, seed: u64, native: bool) -> Adapters {
        let (database, metrics) = (self.database(), self.metrics());
        let (asked, audited) = (database.clone(), database.clone());
        Adapters {
            marketplace: Arc::new(move |transport, clock, remembered| {
                let inner = play_client(transport, clock, (seed, native), remembered);
                Arc::new(Counted::new(inner, count(&metrics)))
            }),
            store: Arc::new(move || {
                let store = SqliteStore::open(&database, None, seed)?;
                Ok(Box::new(store) as Box<dyn Store>)
            }),
            ask: Arc::new(move |now, ask| append_request(&asked, now, ask).map(drop)),
            disk: Arc::new(|_| Ok(())),
            audit: Arc::new(move || {
                let audit = Reader::open(&audited)?.audit()?;
                Ok((audit.billed(), audit.problems))
            }),
        }
    }
}

/// Counts operations in the metrics.
pub(crate) fn count(metrics: &Arc<Metrics>) -> Count {
    let metrics = Arc::clone(metrics);
    Arc::new(move |operation, outcome| metrics.api_call(operation, outcome))
}

fn play_client(
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    (seed, native): (u64, bool),
    remembered: &BTreeMap<String, String>,
) -> Arc<dyn Marketplace> {
    let token = SecretString::from(TOKEN.to_owned());
    if native {
        let options = VastOptions {
            jitter_seed: seed,
            ..VastOptions::new(token)
        };
        return Arc::new(Vast::new(transport, clock, options, remembered));
    }
    let options = LowCodeOptions {
        jitter_seed: seed,
        ..LowCodeOptions::new(token)
    };
    Arc::new(LowCode::new(transport, clock, options, remembered))
}
