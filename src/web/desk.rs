//! What is kept ready for whoever asks, and the way to the database beside the loop.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use utoipa::ToSchema;

use super::READERS;
use super::access::Access;
use super::answer::{Problem, gzip};
use crate::ports::{Clock, StoreError};
use crate::store::Reader;
use crate::types::ids::JobName;
use crate::types::job::Job;
use crate::types::plan::{JobReport, Plan, Report};
use crate::types::time::{Mono, Time};
use crate::types::world::EngineConfig;
use crate::view::board::{BoardDocument, JobRow};
use crate::view::shown::Redact;

/// Streams of events at once.
const STREAMS_MAX: usize = 64;

/// A stream is told so often how old the last publication is, where there is none that is newer.
const TOLD_EVERY: Duration = Duration::from_secs(10);

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
    /// What it was made of.
    made: Ready,
}

impl std::ops::Deref for Published {
    type Target = Ready;

    fn deref(&self) -> &Ready {
        &self.made
    }
}

impl Published {
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

/// What is made ready. It is shared, not copied, where it is published again.
#[derive(Clone)]
pub(super) struct Ready {
    /// The entity tag of its text.
    pub(super) tag: String,
    /// For which moment it holds.
    pub(super) now: Time,
    /// When a tick made it; what is published again is as old as before.
    pub(super) made_at: Mono,
    /// What the page shows first.
    pub(super) board: Arc<BoardDocument>,
    /// The jobs with all their replicas.
    pub(super) rows: Arc<BTreeMap<String, Arc<JobRow>>>,
    /// The jobs whose policies can be used.
    pub(super) jobs: Arc<[Arc<Job>]>,
    /// What bounds decisions.
    pub(super) config: Arc<EngineConfig>,
    /// What the last tick decided.
    pub(super) plan: Arc<Plan>,
    /// Why.
    pub(super) report: Arc<Report>,
}

/// What is told to streams: what was published last, and how old it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct NewsDocument {
    /// The number of what was published last; 0: nothing was.
    pub(super) version: u64,
    /// For how long no tick has made anything newer.
    pub(super) age_seconds: u64,
}

/// Hands out what was published, and reads the database for whoever asks for more.
pub struct Desk {
    sources: Sources,
    published: RwLock<Option<Arc<Published>>>,
    versions: watch::Sender<u64>,
    readers: Arc<Semaphore>,
    writers: Arc<Semaphore>,
    killers: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    exposed: AtomicBool,
    ending: AtomicBool,
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
            writers: Arc::new(Semaphore::new(1)),
            killers: Arc::new(Semaphore::new(1)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            ending: AtomicBool::new(false),
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

    /// From now on nothing that is asked for is taken up by this process.
    pub fn ends(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Whether what is asked for is left to the next daemon.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
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
    pub(super) fn publish(&self, version: u64, json: &str, made: Ready) {
        let published = Published {
            json: Bytes::from((self.sources.redact)(json)),
            packed: OnceLock::new(),
            made,
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

    /// The next thing to tell a stream: at once where `at_once`, else when something new is published, or
    /// after a while that nothing was, so that whoever follows knows how old it is. `None`: there is no
    /// more.
    pub(super) async fn news(
        &self,
        versions: &mut watch::Receiver<u64>,
        at_once: bool,
    ) -> Option<NewsDocument> {
        if !at_once && let Ok(changed) = tokio::time::timeout(TOLD_EVERY, versions.changed()).await
        {
            changed.ok()?;
        }
        let version = *versions.borrow_and_update();
        let made_at = self.published().map(|published| published.made_at);
        let age = made_at.map_or(Duration::ZERO, |made_at| self.monotonic().since(made_at));
        Some(NewsDocument {
            version,
            age_seconds: age.as_secs(),
        })
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
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        self.bounded(over, move || {
            let mut reader = Reader::open(&path)?;
            reader.ends_with(ends)?;
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

    /// Reads something that blocks on one of the few threads for it, for a while at most.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        self.bounded(Arc::default(), work).await
    }

    /// The same. `over` is set where it takes longer, and where nobody waits for it any more.
    async fn bounded<T: Send + 'static>(
        &self,
        over: Arc<AtomicBool>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let busy = || Problem::busy("too much is read at the same time");
        let place = Arc::clone(&self.readers).acquire_owned();
        let place = tokio::time::timeout(WAITS_MAX, place).await;
        let place = place.map_err(|_| busy())?.map_err(|_| busy())?;
        // A client that goes away has this dropped.
        let _asked = Asked(over);
        let work = tokio::task::spawn_blocking(move || {
            // The place is free once the thread is.
            let _place = place;
            work()
        });
        tokio::time::timeout(READ_MAX, work)
            .await
            .map_err(|_| Problem::busy("reading it took too long"))?
            .map_err(|_| failed())
    }

    /// Writes to the database, after whatever else is written for the page and apart from what is read.
    /// It has no limit of its own: SQLite gives up by itself, and what was told as failed must not be
    /// done later.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        alone(&self.writers, work).await
    }

    /// Kills, behind nothing but another kill.
    pub(super) async fn kill<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        alone(&self.killers, work).await
    }
}

/// Sets that nobody waits any more.
struct Asked(Arc<AtomicBool>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn alone<T: Send + 'static>(
    places: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let place = Arc::clone(places).acquire_owned().await;
    let place = place.map_err(|_| failed())?;
    let work = tokio::task::spawn_blocking(move || {
        let _place = place;
        work()
    });
    work.await.map_err(|_| failed())
}

fn failed() -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "failed",
        "this went wrong; the daemon's log says more",
    )
}
