//! What is kept ready for whoever asks, and the way to the database beside the loop.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::READERS;
use super::access::Access;
use super::answer::{Problem, gzip};
use crate::ports::{Clock, StoreError};
use crate::store::{Interrupter, Reader};
use crate::types::ids::JobName;
use crate::types::job::Job;
use crate::types::plan::{JobReport, Plan, Report};
use crate::types::time::{Mono, Time};
use crate::types::world::EngineConfig;
use crate::view::board::{InstanceRow, JobRow};
use crate::view::shown::Redact;

/// Streams of events at once.
const STREAMS_MAX: usize = 64;

/// Whoever waits longer than this for a place to read is sent away.
const WAITS_MAX: Duration = Duration::from_secs(2);

/// A read that takes longer is ended.
const READ_MAX: Duration = Duration::from_secs(5);

/// Where the page reads what is not published, and by which clock it goes.
pub struct Sources {
    /// The database.
    pub database: PathBuf,
    /// The directory of policies, where they are files.
    pub policies: Option<PathBuf>,
    /// The daemon's clock.
    pub clock: Arc<dyn Clock>,
    /// Takes secrets out of a document.
    pub redact: Redact,
    /// Takes whatever might be a secret out of what jobs wrote.
    pub redact_logs: Redact,
    /// Who may ask for what.
    pub access: Access,
}

/// What the loop published last.
pub(super) struct Published {
    /// The answer to `GET /api/v1/state`.
    pub(super) json: Bytes,
    /// Compressed, once somebody asked for it so.
    packed: OnceLock<Option<Bytes>>,
    /// Its entity tag.
    pub(super) tag: String,
    /// For which moment it holds.
    pub(super) now: Time,
    /// The jobs with all their replicas.
    pub(super) rows: BTreeMap<String, Arc<JobRow>>,
    /// The instances.
    pub(super) instances: Vec<InstanceRow>,
    /// The jobs whose policies can be used.
    pub(super) jobs: Vec<Arc<Job>>,
    /// What bounds decisions.
    pub(super) config: EngineConfig,
    /// What the last tick decided.
    pub(super) plan: Plan,
    /// Why.
    pub(super) report: Report,
}

impl Published {
    /// With the answer to `GET /api/v1/state`, and the tag that tells it from others.
    pub(super) fn text(json: String, tag: String) -> (Bytes, OnceLock<Option<Bytes>>, String) {
        (Bytes::from(json), OnceLock::new(), tag)
    }

    /// The answer, compressed.
    pub(super) fn packed(&self) -> Option<&Bytes> {
        self.packed.get_or_init(|| gzip(&self.json)).as_ref()
    }

    /// A job's policy.
    pub(super) fn job(&self, name: &JobName) -> Option<&Arc<Job>> {
        self.jobs.iter().find(|job| job.name == *name)
    }

    /// Why a job got what it got in the last tick.
    pub(super) fn reasons(&self, name: &JobName) -> Option<&JobReport> {
        self.report.jobs.iter().find(|report| report.job == *name)
    }
}

/// What is made ready.
pub(super) struct Ready {
    pub(super) json: String,
    pub(super) tag: String,
    pub(super) now: Time,
    pub(super) rows: BTreeMap<String, Arc<JobRow>>,
    pub(super) instances: Vec<InstanceRow>,
    pub(super) jobs: Vec<Arc<Job>>,
    pub(super) config: EngineConfig,
    pub(super) plan: Plan,
    pub(super) report: Report,
}

/// Hands out what was published, and reads the database for whoever asks for more.
pub struct Desk {
    sources: Sources,
    published: RwLock<Option<Arc<Published>>>,
    versions: watch::Sender<u64>,
    readers: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    exposed: AtomicBool,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Desk {
    /// Nothing published yet.
    pub fn new(sources: Sources) -> Self {
        Self {
            sources,
            published: RwLock::new(None),
            versions: watch::Sender::new(0),
            readers: Arc::new(Semaphore::new(READERS)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            // Until it is known where is listened.
            exposed: AtomicBool::new(true),
        }
    }

    /// Whether other machines can reach what is served.
    pub(super) fn is_exposed(&self, exposed: bool) {
        self.exposed.store(exposed, Ordering::Relaxed);
    }

    /// Whether other machines can reach what is served.
    pub(super) fn exposed(&self) -> bool {
        self.exposed.load(Ordering::Relaxed)
    }

    /// Who may ask for what.
    pub(super) fn access(&self) -> &Access {
        &self.sources.access
    }

    /// Where is read from.
    pub(super) fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The daemon's monotonic clock.
    pub(super) fn monotonic(&self) -> Mono {
        self.sources.clock.monotonic()
    }

    /// Publishes, and tells every stream.
    pub(super) fn publish(&self, version: u64, ready: Ready) {
        let clean = (self.sources.redact)(&ready.json);
        let (json, packed, tag) = Published::text(clean, ready.tag);
        let published = Published {
            json,
            packed,
            tag,
            now: ready.now,
            rows: ready.rows,
            instances: ready.instances,
            jobs: ready.jobs,
            config: ready.config,
            plan: ready.plan,
            report: ready.report,
        };
        *self
            .published
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(published));
        self.versions.send_replace(version);
    }

    /// What was published last.
    pub(super) fn published(&self) -> Result<Arc<Published>, Problem> {
        let published = self
            .published
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        published.clone().ok_or_else(|| {
            Problem::busy("nothing was published yet").help("the daemon is just starting")
        })
    }

    /// The numbers of what is published.
    pub(super) fn versions(&self) -> watch::Receiver<u64> {
        self.versions.subscribe()
    }

    /// A place for a stream; `None`: there is none left.
    pub(super) fn stream(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().ok()
    }

    /// Reads the database beside the loop, on a thread of its own.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let path = self.sources.database.clone();
        let (tell, told) = oneshot::channel::<Interrupter>();
        self.blocking(Some(told), move || {
            let reader = Reader::open(&path)?;
            // Nobody waits for it any more where this fails.
            let _ = tell.send(reader.interrupter());
            work(&reader)
        })
        .await?
        .map_err(|error| {
            tracing::warn!("the database cannot be read for the page: {error}");
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unreadable",
                format!("the database cannot be read: {error}"),
            )
        })
    }

    /// Does something that blocks on one of the few threads for it, for a while at most. Where it takes
    /// longer, its read is interrupted.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        told: Option<oneshot::Receiver<Interrupter>>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let busy = || Problem::busy("too much is read at the same time");
        let place = Arc::clone(&self.readers).acquire_owned();
        let place = tokio::time::timeout(WAITS_MAX, place).await;
        let place = place.map_err(|_| busy())?.map_err(|_| busy())?;
        let work = tokio::task::spawn_blocking(move || {
            // The place is free once the thread is.
            let _place = place;
            work()
        });
        tokio::pin!(work);
        let Ok(done) = tokio::time::timeout(READ_MAX, &mut work).await else {
            if let Some(interrupter) = told.and_then(|mut told| told.try_recv().ok()) {
                interrupter.interrupt();
            }
            return Err(Problem::busy("reading it took too long"));
        };
        done.map_err(|_| {
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "failed",
                "this went wrong; the daemon's log says more",
            )
        })
    }
}
