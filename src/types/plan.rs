//! What a decision is: actions as data, and a report that says why.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::deadline::{DeadlineView, Watch};
use super::ids::{InstanceId, JobName, OfferId, ReplicaId, Slot};
use super::instance::Rental;
use super::intent::Effect;
use super::ledger::Scope;
use super::limit::{LimitRow, Measure};
use super::money::{Money, Rate};
use super::recourse::{Recourse, Turn};
use super::start::StartFault;
use super::state::{Ending, Severity};
use super::time::Time;

/// Why an offer is not taken for a job. Closed, so that it can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Another GPU model.
    GpuModel,
    /// Another number of GPUs.
    GpuCount,
    /// Too little GPU memory, or unknown.
    GpuRam,
    /// Compute capability too low, or unknown.
    ComputeCap,
    /// CUDA version too low, or unknown.
    Cuda,
    /// Driver too old, or unknown.
    Driver,
    /// NVLink too slow, absent or unknown.
    Nvlink,
    /// PCIe too slow, or unknown.
    Pcie,
    /// Too few CPU cores, or unknown.
    CpuCores,
    /// Too little RAM, or unknown.
    CpuRam,
    /// Too little disk, or unknown.
    DiskSize,
    /// Disk too slow, or unknown.
    DiskBandwidth,
    /// Download too slow, or unknown.
    Download,
    /// Upload too slow, or unknown.
    Upload,
    /// Traffic too dear, or its price unknown.
    TrafficPrice,
    /// Storage too dear, or its price unknown.
    StoragePrice,
    /// Reliability too low, or unknown.
    Reliability,
    /// Not verified, or unknown.
    Unverified,
    /// Not in a datacenter, or unknown.
    NotDatacenter,
    /// No static address, or unknown.
    NoStaticIp,
    /// Too few direct ports, or unknown.
    DirectPorts,
    /// Country not allowed, or unknown where it matters.
    Country,
    /// The policy excludes the machine.
    MachineDenied,
    /// The policy excludes the host.
    HostDenied,
    /// The rental would end too soon, or its end is unknown.
    EndsTooSoon,
    /// Not rentable now.
    NotRentable,
    /// We hold it already, or its GPUs overlap with ours, or might.
    Held,
    /// It was seen too long ago.
    StaleOffer,
    /// The machine is cooling down after failures.
    CoolingDown,
    /// Several machines of its host are cooling down after failures.
    HostCoolingDown,
    /// The least bid, or the on-demand rate, is over the ceiling.
    OverCeiling,
    /// The price that the rental needs is unknown.
    PriceUnknown,
    /// A bid would not be under the on-demand rate, and the job takes bids only.
    BidNotBelowOnDemand,
    /// Our own traces keep the floor up: it is no evidence, and without it there is no bid.
    RatchetGuard,
    /// This route cannot bid.
    CannotBid,
    /// The score came out as not a number.
    NotANumber,
}

impl Refusal {
    /// The word in tables and metrics, the same as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GpuModel => "gpu-model",
            Self::GpuCount => "gpu-count",
            Self::GpuRam => "gpu-ram",
            Self::ComputeCap => "compute-cap",
            Self::Cuda => "cuda",
            Self::Driver => "driver",
            Self::Nvlink => "nvlink",
            Self::Pcie => "pcie",
            Self::CpuCores => "cpu-cores",
            Self::CpuRam => "cpu-ram",
            Self::DiskSize => "disk-size",
            Self::DiskBandwidth => "disk-bandwidth",
            Self::Download => "download",
            Self::Upload => "upload",
            Self::TrafficPrice => "traffic-price",
            Self::StoragePrice => "storage-price",
            Self::Reliability => "reliability",
            Self::Unverified => "unverified",
            Self::NotDatacenter => "not-datacenter",
            Self::NoStaticIp => "no-static-ip",
            Self::DirectPorts => "direct-ports",
            Self::Country => "country",
            Self::MachineDenied => "machine-denied",
            Self::HostDenied => "host-denied",
            Self::EndsTooSoon => "ends-too-soon",
            Self::NotRentable => "not-rentable",
            Self::Held => "held",
            Self::StaleOffer => "stale-offer",
            Self::CoolingDown => "cooling-down",
            Self::HostCoolingDown => "host-cooling-down",
            Self::OverCeiling => "over-ceiling",
            Self::PriceUnknown => "price-unknown",
            Self::BidNotBelowOnDemand => "bid-not-below-on-demand",
            Self::RatchetGuard => "ratchet-guard",
            Self::CannotBid => "cannot-bid",
            Self::NotANumber => "not-a-number",
        }
    }
}

/// The parts of a landed price, in dollars per useful GPU-hour. They add up to the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PriceParts {
    /// Compute at the bid or the on-demand rate.
    pub compute: f64,
    /// Disk.
    pub disk: f64,
    /// Expected traffic over the expected stay.
    pub traffic: f64,
    /// Boot and image pull: what is paid for time before work begins.
    pub boot: f64,
    /// Work lost to interruptions.
    pub interruption: f64,
    /// The disk, while an outbid instance is waited for.
    #[serde(default)]
    pub waiting: f64,
}

impl PriceParts {
    /// The landed price.
    pub fn total(&self) -> f64 {
        self.compute + self.disk + self.traffic + self.boot + self.interruption + self.waiting
    }
}

/// A slot that a job could take, with what it would pay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The slot.
    pub slot: Slot,
    /// The row.
    pub offer: OfferId,
    /// The model.
    pub gpu_name: String,
    /// Bid or on-demand.
    pub rental: Rental,
    /// The bid, or the on-demand rate, for all GPUs.
    pub price: Rate,
    /// The disk's rate.
    pub storage: Rate,
    /// The landed price, in parts.
    pub parts: PriceParts,
}

/// What a replica is doing and waiting for, in a word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Situation {
    /// It runs.
    Running,
    /// Its instance is coming up.
    Provisioning {
        /// Given up at this time.
        until: Time,
    },
    /// A create has been sent and is not settled.
    Settling,
    /// It is outbid; its instance is waited for until this time.
    Outbid {
        /// Then it is moved.
        until: Time,
    },
    /// Its bid was cut to a parked one, and not by the daemon: nobody outbid it, and it is waited for
    /// until this time.
    ParkedByOthers {
        /// Then it is bid for again, or moved.
        until: Time,
    },
    /// Its instance waits behind its gate for the checkpoint on the disk that it left.
    Bringing {
        /// That disk's instance.
        from: InstanceId,
        /// Given up at this time; `None`: the copy was not asked for yet.
        until: Option<Time>,
    },
    /// The host of the disk that has its checkpoint is not heard from: nothing is rented until it is.
    SourceAway {
        /// That disk's instance.
        from: InstanceId,
    },
    /// Copies from the disk that has its checkpoint came to nothing too often: it waits for the user.
    NotCopied {
        /// That disk's instance.
        from: InstanceId,
        /// How often.
        times: u32,
    },
    /// An instance of it is being destroyed, and until that is settled nothing replaces it.
    Clearing,
    /// Rented in this tick.
    Renting,
    /// Nothing suits.
    NoOffer,
    /// Something suits, but a limit forbids it.
    OverLimit {
        /// Which.
        limit: Limit,
    },
    /// The market, the listing or the account is not known well enough.
    Blind {
        /// What is missing.
        missing: Missing,
    },
    /// After a failure, waiting.
    BackingOff {
        /// Until then.
        until: Time,
    },
    /// An element of an array that waits for its turn: as many as may be are at work.
    Queued,
    /// Its starts came to nothing on one machine after the other: nothing is rented until its policy asks
    /// for something else, or for a while.
    CannotStart {
        /// Why.
        fault: StartFault,
        /// The marketplace's words on it, shortened.
        message: String,
        /// Until then; `None`: until the policy is changed, or the user says `resume`.
        until: Option<Time>,
    },
    /// Something that it needs on its machine is not in its storage yet.
    WaitsForInputs {
        /// What is done about it, in words.
        what: String,
    },
    /// A secret that is sent with its rent cannot be read.
    WaitsForSecrets {
        /// Which, where it was looked for, and what would be right, in words.
        what: String,
    },
    /// An element of an array that is not begun before another one gets on: too many failed in a row.
    HeldBack,
    /// Outside its windows.
    WindowClosed {
        /// It opens then; `None`: never again.
        opens: Option<Time>,
    },
    /// The user said so.
    Paused,
    /// The user said so.
    Stopped,
    /// It ended.
    Ended {
        /// How.
        ending: Ending,
    },
    /// Spending is forbidden.
    Killed,
}

/// What a decision could not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// No recent snapshot of the market.
    Offers,
    /// The listing of instances failed or was incomplete.
    Listing,
    /// The account could not be read.
    Account,
}

/// A limit that an action may not pass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// A row of the table of limits: the measure of a scope.
    Of(Scope, Measure),
    /// The job's ceiling per GPU-hour.
    Ceiling,
    /// The last seen on-demand rate of the slot.
    OnDemandRate,
    /// One new rental a machine and tick, disjoint GPUs, never against our own.
    OwnSlots,
    /// One instance at work per replica.
    Fence,
    /// So many new rentals in a tick.
    RentsPerTick,
    /// The job's secrets may not go through the gateway.
    Consent,
    /// The gateway shows no logs, by which the runner of a supervised job is heard.
    Unheard,
    /// So many elements of an array at work at once.
    MaxRunning,
    /// One replica of a service a host.
    OneHost,
    /// So many replicas of a service at the host's fixed rate.
    BaseOnDemand,
}

impl Limit {
    /// The account's credit less its reserve.
    pub const CREDIT: Self = Self::Of(Scope::Account, Measure::Credit);

    /// The number of instances on the account.
    pub const INSTANCES: Self = Self::Of(Scope::Account, Measure::Instances);

    /// The word in tables and metrics. It names the kind of scope, not which one: there are only so
    /// many words.
    pub fn as_str(&self) -> &'static str {
        use Measure as M;
        match self {
            Self::Of(_, M::Credit) => "credit",
            Self::Of(_, M::Runway) => "runway",
            Self::Of(Scope::Account, measure) => match measure {
                M::Total => "account-total",
                M::Day => "account-day",
                M::Month => "account-month",
                M::Hour => "account-hour",
                M::Gpus => "gpus",
                M::Instances | M::Credit | M::Runway => "instances",
            },
            Self::Of(Scope::Job(_), measure) => match measure {
                M::Day => "job-day",
                M::Month => "job-month",
                M::Hour => "job-hour",
                M::Instances => "job-instances",
                M::Gpus => "job-gpus",
                M::Total | M::Credit | M::Runway => "job-total",
            },
            Self::Of(Scope::Owner(_), measure) => match measure {
                M::Day => "owner-day",
                M::Month => "owner-month",
                M::Hour => "owner-hour",
                M::Instances => "owner-instances",
                M::Gpus => "owner-gpus",
                M::Total | M::Credit | M::Runway => "owner-total",
            },
            Self::Of(Scope::Tag(_), measure) => match measure {
                M::Day => "tag-day",
                M::Month => "tag-month",
                M::Hour => "tag-hour",
                M::Instances => "tag-instances",
                M::Gpus => "tag-gpus",
                M::Total | M::Credit | M::Runway => "tag-total",
            },
            Self::Ceiling => "ceiling",
            Self::OnDemandRate => "on-demand-rate",
            Self::OwnSlots => "own-slots",
            Self::Fence => "fence",
            Self::RentsPerTick => "rents-per-tick",
            Self::Consent => "consent",
            Self::Unheard => "unheard",
            Self::MaxRunning => "max-running",
            Self::OneHost => "one-host",
            Self::BaseOnDemand => "base-on-demand",
        }
    }
}

impl std::fmt::Display for Limit {
    /// Which limit, in words: "per-month limit of owner ml".
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Of(scope, measure) => super::limit::described(f, scope, *measure),
            other => f.write_str(other.as_str()),
        }
    }
}

/// Why an action is taken. Closed, so that it can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The cheapest slot for a replica without one.
    Cheapest,
    /// Outbid, and one raise still fits under the ceiling.
    Outbid,
    /// The floor has long been lower than the bid.
    FloorFell,
    /// Waited long enough; parked before moving.
    PatienceOver,
    /// Outbid, and its machine is taken back on-demand.
    Reclaim,
    /// A useful GPU-hour costs much less on another slot.
    CheaperElsewhere,
    /// The deadline leaves no time for what may be taken away.
    Deadline,
    /// The user asked.
    UserRequest,
    /// Outside the job's windows.
    WindowClosed,
    /// Inside the job's windows again, or resumed.
    Resume,
    /// The replica ended.
    Ended,
    /// It did not come up.
    ProvisionTimeout,
    /// A step of its start took too long, or its host reported an error.
    StartFailed,
    /// The rental ends soon.
    RentalEnding,
    /// The policy's ceiling was lowered under its price.
    OverCeiling,
    /// The host is lost.
    HostLost,
    /// It lived long enough.
    MaxLifetime,
    /// Nothing wants it.
    Orphan,
    /// It replaces nothing any more.
    Superseded,
    /// A limit is at hand.
    Limit,
    /// A start was queued that we no longer want.
    CancelQueued,
    /// Its destroy has not taken.
    DestroyAgain,
    /// Its lease is to be renewed, or the label to say who may work.
    Lease,
    /// The runner refused the machine.
    Refused,
    /// The command failed, and the machine's GPUs with it.
    Broken,
    /// Nothing was heard of the runner.
    Silent,
    /// The command made no progress.
    Hung,
    /// A checkpoint is brought over from the disk that was left.
    Bring,
    /// The checkpoint did not come, or not as it should be.
    NotBrought,
    /// The GPUs were hardly used.
    Idle,
}

impl Why {
    /// The word in tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cheapest => "cheapest",
            Self::Outbid => "outbid",
            Self::FloorFell => "floor-fell",
            Self::PatienceOver => "patience-over",
            Self::Reclaim => "reclaim",
            Self::CheaperElsewhere => "cheaper-elsewhere",
            Self::Deadline => "deadline",
            Self::UserRequest => "user-request",
            Self::WindowClosed => "window-closed",
            Self::Resume => "resume",
            Self::Ended => "ended",
            Self::ProvisionTimeout => "provision-timeout",
            Self::StartFailed => "start-failed",
            Self::RentalEnding => "rental-ending",
            Self::OverCeiling => "over-ceiling",
            Self::HostLost => "host-lost",
            Self::MaxLifetime => "max-lifetime",
            Self::Orphan => "orphan",
            Self::Superseded => "superseded",
            Self::Limit => "limit",
            Self::CancelQueued => "cancel-queued",
            Self::DestroyAgain => "destroy-again",
            Self::Lease => "lease",
            Self::Refused => "refused",
            Self::Broken => "broken",
            Self::Silent => "silent",
            Self::Hung => "hung",
            Self::Bring => "bring",
            Self::NotBrought => "not-brought",
            Self::Idle => "idle",
        }
    }
}

/// One thing to do. The executor does it or drops it; it chooses nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// For which replica; `None` for an orphan.
    pub replica: Option<ReplicaId>,
    /// What.
    pub effect: Effect,
    /// Why.
    pub why: Why,
    /// The most that it may cost until we can surely stop it; zero for what only saves.
    pub reserve: Money,
    /// For a rent: the offer's parts, for the record.
    pub parts: Option<PriceParts>,
    /// For a rent or a raise: the highest price that a revalidated offer may ask, and the
    /// on-demand rate that was seen (unknown: no raise).
    pub on_demand_seen: Option<Rate>,
}

/// What one tick decided. Actions are ordered: what saves money first, then by priority.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What to do.
    pub actions: Vec<Action>,
}

/// Something to tell the user that no action shows. The daemon tells a notice once, and again
/// only after it was absent for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// How urgent.
    pub severity: Severity,
    /// A word that can be counted.
    pub kind: String,
    /// Of which replica.
    pub replica: Option<ReplicaId>,
    /// A sentence.
    pub text: String,
}

/// Why one replica is where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// Which.
    pub replica: ReplicaId,
    /// What it is doing and waiting for.
    pub situation: Situation,
    /// What is done about an outbid, in the order in which it is done, and why or why not.
    #[serde(default)]
    pub recourses: Vec<(Recourse, Turn)>,
    /// How it stands with its deadline.
    #[serde(default)]
    pub deadline: Option<DeadlineView>,
}

/// Why a job got what it got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobReport {
    /// Which.
    pub job: JobName,
    /// Its replicas.
    pub replicas: Vec<ReplicaReport>,
    /// Slots that it could take.
    pub eligible: u32,
    /// The best of them, cheapest first; a bounded number.
    pub best: Vec<Candidate>,
    /// Slots refused, by the first reason against each.
    pub refused: BTreeMap<Refusal, u32>,
    /// The best refused slots whose price is known, with the least rate at which the job could have
    /// rented each, cheapest first; a bounded number.
    pub best_refused: Vec<(Slot, OfferId, Rate, Refusal)>,
    /// The cheapest eligible on-demand candidate, whatever rental the job takes: what savings are
    /// measured against.
    pub on_demand_best: Option<Candidate>,
}

impl JobReport {
    /// Its replicas, where those beside each other that wait for their turn, or have ended in the same
    /// way, are one: the first, the last, and what they do.
    pub fn grouped(&self) -> Vec<(&ReplicaReport, &ReplicaReport)> {
        let rest = |of: &ReplicaReport| {
            matches!(
                of.situation,
                Situation::Queued | Situation::HeldBack | Situation::Ended { .. }
            )
        };
        let alike = |a: &ReplicaReport, b: &ReplicaReport| rest(a) && a.situation == b.situation;
        let groups = self.replicas.chunk_by(alike);
        groups
            .filter_map(|group| group.first().zip(group.last()))
            .collect()
    }

    /// The replica that has the least time to spare before its deadline, and how it stands with it.
    pub fn nearest_deadline(&self) -> Option<(&ReplicaReport, &DeadlineView)> {
        let all = self.replicas.iter();
        all.filter_map(|one| Some((one, one.deadline.as_ref()?)))
            .min_by_key(|(_, view)| view.slack_ms())
    }
}

/// How far a limit is used, and when it is reached if nothing changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Projection {
    /// The limit.
    pub row: LimitRow,
    /// How much of it is used, in the measure's unit: what is posted, and what is billed and not
    /// posted yet. Of credit and runway, how much there is. `None`: unknown.
    pub used: Option<i64>,
    /// When it is reached at the present burn; `None`: not in its period, not at all, or unknown.
    pub breach_at: Option<Time>,
}

/// Why a tick decided what it decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// By job, in the order of the world.
    pub jobs: Vec<JobReport>,
    /// What to tell.
    pub notices: Vec<Notice>,
    /// Every limit, how far it is used and when it is reached.
    #[serde(default)]
    pub limits: Vec<Projection>,
    /// What replicas with a deadline have seen up to now, to be kept for the next tick.
    #[serde(default)]
    pub watches: Vec<(ReplicaId, Watch)>,
    /// Actions that the check refused, with the limit.
    pub dropped: Vec<(Action, Limit)>,
}
