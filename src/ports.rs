//! The seams: what the daemon needs of the world, as traits. Adapters implement them; only `cli`
//! names the adapters.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::NaiveDate;

use crate::types::ids::{InstanceId, IntentId, MachineId, OfferId};
use crate::types::instance::{Account, Held, Instance, Listing};
pub use crate::types::intent::Charge;
use crate::types::ledger::{BilledDays, Drift};
use crate::types::money::Rate;
use crate::types::notification::{MachineReport, Notification, PriceIncrease};
use crate::types::offer::{Offer, OfferQuery, Snapshot};
use crate::types::state::{Change, State, UserRequest};
use crate::types::time::{Mono, Time};

// ------------------------------------------------------------------------------------------ clock

/// Time. In life the system's; in simulation a number that sleeping moves on.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The wall clock.
    fn now(&self) -> Time;
    /// The monotonic clock, from the process's start. Waits that prove something are counted on it.
    fn monotonic(&self) -> Mono;
    /// Returns when the wall clock has reached `deadline`, at once where it has; and where it is set
    /// back meanwhile, when as much time has passed as there was to go.
    async fn sleep_until(&self, deadline: Time);
}

// -------------------------------------------------------------------------------------- transport

/// An HTTP method that the marketplaces use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// Reads.
    Get,
    /// Creates and acts.
    Post,
    /// Updates.
    Put,
    /// Deletes.
    Delete,
}

impl Method {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// One HTTP request. Its `Debug` shows neither the query nor the body, which hold secrets.
#[derive(Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path under the base URL, beginning with `/`, its segments percent-encoded.
    pub path: String,
    /// Query pairs, not encoded.
    pub query: Vec<(String, String)>,
    /// A bearer token for the `Authorization` header.
    pub bearer: Option<String>,
    /// A JSON body.
    pub body: Option<Bytes>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method.as_str(), self.path)
    }
}

/// One HTTP reply. Its `Debug` shows no body: replies echo secrets.
#[derive(Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.status, self.body.len())
    }
}

impl Reply {
    /// The first header of a name given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Why there was no reply. No variant carries a URL, for URLs hold tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The connection was not made: the request surely had no effect.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// No reply in time: nobody knows whether the request had an effect.
    #[error("no reply within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The connection broke after the request left, or the reply could not be read.
    #[error("connection broken: {0}")]
    Broken(String),
}

/// One request, one reply. No retries, no redirects followed for anything but GET.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends a request and waits for its reply, no longer than the transport's own timeout.
    async fn send(&self, request: Request) -> Result<Reply, TransportError>;

    /// Reads an absolute URL that the marketplace named, such as an instance's log, without any
    /// credential. Refused unless the transport says otherwise.
    async fn fetch(&self, _url: &str) -> Result<Reply, TransportError> {
        Err(TransportError::Connect(
            "this transport reads no URLs outside the marketplace".to_owned(),
        ))
    }
}

// ------------------------------------------------------------------------------------ marketplace

/// Why a read failed. The answer is then unknown, never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No reply.
    #[error("the marketplace cannot be reached: {0}")]
    Unreachable(#[from] TransportError),
    /// The token is not accepted.
    #[error("the token was refused ({status}): {message}")]
    Unauthorized {
        /// HTTP status.
        status: u16,
        /// What the marketplace said, redacted.
        message: String,
    },
    /// Too many requests.
    #[error("too many requests; again in {} s", .retry_after.as_secs())]
    Throttled {
        /// When to try again.
        retry_after: Duration,
    },
    /// The marketplace answered with an error.
    #[error("the marketplace answered {status}: {message}")]
    Failed {
        /// HTTP status.
        status: u16,
        /// What it said, redacted.
        message: String,
    },
    /// The answer could not be understood.
    #[error("the answer is not what was expected: {0}")]
    Malformed(String),
    /// This marketplace or gateway has no such operation.
    #[error("this marketplace cannot {0}")]
    Unsupported(&'static str),
}

/// Why the marketplace refused a mutation: what we do about it differs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum RefusedWhy {
    /// The offer is taken or gone: try the next.
    NoSuchOffer,
    /// The instance is unknown. For a destroy this is not yet proof.
    NoSuchInstance,
    /// The bid is under the floor. May have left a stopped instance behind.
    BidTooLow,
    /// The GPU is busy; a start is queued and may happen later.
    Queued,
    /// The account lacks credit, or may not spend so fast: the account waits, no host is blamed.
    Account,
    /// The token is not accepted.
    Unauthorized,
    /// Too many requests: it was not taken up.
    Throttled,
    /// Connecting failed: it never left.
    NotSent,
    /// The request itself is wrong.
    Invalid,
    /// This marketplace or gateway has no such operation.
    Unsupported,
}

impl RefusedWhy {
    /// The word in tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSuchOffer => "no-such-offer",
            Self::NoSuchInstance => "no-such-instance",
            Self::BidTooLow => "bid-too-low",
            Self::Queued => "queued",
            Self::Account => "account",
            Self::Unauthorized => "unauthorized",
            Self::Throttled => "throttled",
            Self::NotSent => "not-sent",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
        }
    }
}

/// What came of a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It took effect.
    Done(T),
    /// It did not, and will not by itself (but see [`RefusedWhy::Queued`]).
    Refused {
        /// Why.
        why: RefusedWhy,
        /// What the marketplace said, redacted.
        message: String,
        /// An instance that it left behind all the same.
        leftover: Option<InstanceId>,
    },
    /// Nobody knows: a timeout, a 5xx, an answer that cannot be read.
    Unknown(String),
}

/// A create. The label is the idempotency key.
#[derive(Clone)]
pub struct CreateRequest {
    /// The row to rent.
    pub offer: OfferId,
    /// The bid for all its GPUs; `None` rents on-demand. The adapters send the two through
    /// different operations, so that a bid is never absent by accident.
    pub bid: Option<Rate>,
    /// The label.
    pub label: String,
    /// Disk in GB.
    pub disk_gb: u32,
    /// The image.
    pub image: Option<String>,
    /// A template's hash.
    pub template: Option<String>,
    /// `ssh`, `args` or `jupyter`.
    pub run_type: &'static str,
    /// Shell script.
    pub onstart: Option<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// Environment with secrets resolved, and ports as `-p 8000:8000` keys.
    pub env: Vec<(String, String)>,
    /// `-u USER -p PASSWORD REGISTRY`.
    pub image_login: Option<String>,
}

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyEnd {
    /// The instance; stopped ones can be copied from and to.
    pub instance: InstanceId,
    /// The folder; never `/` nor `/root`.
    pub path: String,
}

/// A copy between an instance and a cloud storage connection of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudCopy {
    /// The instance.
    pub instance: InstanceId,
    /// The connection's id, made on the marketplace's account page.
    pub connection: String,
    /// From where.
    pub source: String,
    /// To where.
    pub destination: String,
    /// Whether it goes to the cloud; else from it.
    pub upload: bool,
}

/// Rows of one search, after paging.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OfferPage {
    /// The rows, in the order of the answer.
    pub offers: Vec<Offer>,
    /// Rows that could not be read.
    pub malformed: u32,
    /// Whether every matching row was seen.
    pub complete: bool,
}

/// The marketplace.
#[async_trait]
pub trait Marketplace: Send + Sync {
    /// All rows of a search, paged by price under the row cap.
    async fn offers(&self, query: &OfferQuery) -> Result<OfferPage, ReadError>;
    /// One row by id; `None` where the marketplace says that it is not there.
    async fn offer(&self, id: OfferId) -> Result<Option<Offer>, ReadError>;
    /// Every instance of the account.
    async fn instances(&self) -> Result<Listing, ReadError>;
    /// One instance by id; `None` only where the marketplace says positively that it does not exist.
    async fn instance(&self, id: InstanceId) -> Result<Option<Instance>, ReadError>;
    /// The account: whose it is and what is left.
    async fn account(&self) -> Result<Account, ReadError>;
    /// The charges from one moment to another.
    async fn charges(&self, from: Time, to: Time) -> Result<Vec<Charge>, ReadError>;
    /// Rents. `Done` names the new instance.
    async fn create(&self, request: &CreateRequest) -> Outcome<InstanceId>;
    /// Changes a bid.
    async fn set_bid(&self, id: InstanceId, bid: Rate) -> Outcome<()>;
    /// Stops.
    async fn stop(&self, id: InstanceId) -> Outcome<()>;
    /// Starts.
    async fn start(&self, id: InstanceId) -> Outcome<()>;
    /// Destroys. An unknown id is `Refused(NoSuchInstance)`.
    async fn destroy(&self, id: InstanceId) -> Outcome<()>;
    /// Destroys several at once. An instance that is unknown does not make the others fail.
    async fn destroy_many(&self, _ids: &[InstanceId]) -> Outcome<()> {
        unsupported("destroy in bulk")
    }
    /// Changes a label.
    async fn set_label(&self, _id: InstanceId, _label: &str) -> Outcome<()> {
        unsupported("change labels")
    }
    /// The last notifications, newest last.
    async fn notifications(&self) -> Result<Vec<Notification>, ReadError> {
        Err(ReadError::Unsupported("show notifications"))
    }
    /// What hosts ask for and was not accepted yet.
    async fn price_increases(&self) -> Result<Vec<PriceIncrease>, ReadError> {
        Err(ReadError::Unsupported("show price increases"))
    }
    /// What was reported of a machine.
    async fn machine_reports(&self, _machine: MachineId) -> Result<Vec<MachineReport>, ReadError> {
        Err(ReadError::Unsupported("show reports of a machine"))
    }
    /// The last lines of an instance's output.
    async fn logs(&self, _id: InstanceId, _lines: u32) -> Result<Bytes, ReadError> {
        Err(ReadError::Unsupported("show logs"))
    }
    /// Begins a copy between two instances.
    async fn copy(&self, _from: &CopyEnd, _to: &CopyEnd) -> Outcome<()> {
        unsupported("copy between instances")
    }
    /// Begins a copy to or from cloud storage.
    async fn cloud_copy(&self, _copy: &CloudCopy) -> Outcome<()> {
        unsupported("copy to cloud storage")
    }
    /// What it has learnt about the wire since the last call, to be remembered: (key, value or
    /// forget).
    fn learnt(&self) -> Vec<(String, Option<String>)>;
    /// Never bid through this marketplace again in this process: a bid came out as something else.
    fn disable_bids(&self);
    /// Whether bids can be placed.
    fn can_bid(&self) -> bool;
}

/// The outcome of what this marketplace has no operation for.
fn unsupported(what: &str) -> Outcome<()> {
    Outcome::Refused {
        why: RefusedWhy::Unsupported,
        message: format!("this marketplace cannot {what}"),
        leftover: None,
    }
}

// ------------------------------------------------------------------------------------------ store

/// Why the store failed. Whatever the reason, spending stops.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full.
    #[error("the disk that holds the database is full")]
    Full,
    /// Another process holds the database.
    #[error("the database is locked by another process")]
    Locked,
    /// It cannot be written.
    #[error("the database cannot be written: it is read-only")]
    ReadOnly,
    /// It is damaged.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// It was written by a newer version.
    #[error("the database is of schema version {found}, newer than this haggle's {known}")]
    Newer {
        /// Its version.
        found: i64,
        /// The newest that we know.
        known: i64,
    },
    /// Anything else.
    #[error("the database failed: {0}")]
    Other(String),
}

impl StoreError {
    /// Whether it may pass by itself, or by what somebody does beside the daemon: space is freed, a
    /// lock is let go, a disk is mounted for writing again. Damage and a newer schema do not.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Full | Self::Locked | Self::ReadOnly | Self::Other(_) => true,
            Self::Corrupt(_) | Self::Newer { .. } => false,
        }
    }

    /// The word in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Locked => "locked",
            Self::ReadOnly => "read-only",
            Self::Corrupt(_) => "corrupt",
            Self::Newer { .. } => "newer",
            Self::Other(_) => "other",
        }
    }
}

/// Whether a store holds all that was ever written to it, as far as it can tell without the
/// marketplace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing says otherwise.
    Whole,
    /// What would say it is not there: it may have been moved here without it.
    Unmarked,
    /// More was written once than it holds: it is an older copy, or it lost something.
    Behind {
        /// The last intent that was ever recorded.
        last_intent: Option<IntentId>,
        /// Ticks that were ever recorded.
        ticks: u64,
    },
}

/// What is durable. Synchronous: it is called inline by the one loop that writes.
pub trait Store: Send {
    /// All that is known.
    fn load(&mut self) -> Result<State, StoreError>;
    /// Whether what [`Store::load`] gave is all that was ever written.
    fn standing(&mut self) -> Standing {
        Standing::Whole
    }
    /// Makes changes durable, all or none, at once, before it returns.
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError>;
    /// Stores a snapshot, only what changed since the last; the returned number names it.
    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<i64, StoreError>;
    /// The snapshot that was stored last, whole.
    fn last_snapshot(&mut self) -> Result<Option<(i64, Snapshot)>, StoreError>;
    /// The last records of instances that were settled as gone since `from`.
    fn ended_since(&mut self, from: Time) -> Result<Vec<Held>, StoreError>;
    /// The last record of an instance that was settled as gone, however long ago.
    fn ended(&mut self, instance: InstanceId) -> Result<Option<Held>, StoreError>;
    /// What the ledger's bill lines of an instance come to.
    fn billed(&mut self, instance: InstanceId) -> Result<BilledDays, StoreError>;
    /// What was reckoned and what was billed on a day in UTC, by instance.
    fn drift(&mut self, day: NaiveDate) -> Result<Vec<Drift>, StoreError>;
    /// Requests of the user that were not taken up yet, oldest first.
    fn requests(&mut self) -> Result<Vec<UserRequest>, StoreError>;
    /// Forgets history older than `before`, a bounded piece at a time.
    fn prune(&mut self, before: Time) -> Result<(), StoreError>;
}
