//! What a policy would have cost on the market that the daemon itself recorded.
//!
//! The engine is the daemon's: at each recorded look it observes, decides and is checked, on a state that
//! begins with nothing. Around it is an account whose instances run where the recorded market lets them: a
//! bid runs as long as the recorded floor of its slot is not over it, and stands still while it is, or while
//! the slot is somebody else's. What nobody recorded is not made up: hosts do not fail, starts do not come
//! to nothing, and no rival answers a bid that was not made then.

mod account;
mod cover;
mod live;
mod tape;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::types::ids::MachineId;
use crate::types::job::{CheckpointPlace, Finish, Job};
use crate::types::money::{Money, Rate};
use crate::types::offer::same_model;
use crate::types::past::{Past, Stay};
use crate::types::time::Time;
use crate::types::world::EngineConfig;

pub use account::Bill;
pub use cover::{Cover, cover};

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The policy, as [`prepared`].
    pub job: &'a Job,
    /// What bounds it beside: the account's own limits.
    pub config: EngineConfig,
    /// The market, for slots of the job's size.
    pub past: &'a Past,
    /// The job's own instances of that time, which hid their slots from the record.
    pub stays: &'a [Stay],
    /// How long containers took to come up where ours did, by machine, in milliseconds.
    pub boots: &'a BTreeMap<MachineId, i64>,
    /// The time that is asked for.
    pub from: Time,
    /// Its end.
    pub to: Time,
    /// For how many milliseconds a look at the market stands: what is longer without one is a gap.
    pub stands_ms: i64,
}

/// What a replica did with its time, in milliseconds of all replicas together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hours {
    /// A bid ran.
    pub bid_ms: i64,
    /// It ran at a host's fixed rate.
    pub on_demand_ms: i64,
    /// A container came up.
    pub starting_ms: i64,
    /// An instance stood still: outbid, or parked.
    pub paused_ms: i64,
    /// There was no instance, and work was left.
    pub nothing_ms: i64,
}

impl Hours {
    /// All of it.
    pub fn total_ms(self) -> i64 {
        self.bid_ms + self.on_demand_ms + self.starting_ms + self.paused_ms + self.nothing_ms
    }
}

/// What the first replica did at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It has no instance.
    Nothing,
    /// Its container comes up.
    Starting,
    /// It runs at a bid.
    Bid,
    /// It runs at the host's fixed rate.
    OnDemand,
    /// It stands still.
    Paused,
}

impl Phase {
    /// Its word in results.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Starting => "starting",
            Self::Bid => "bid",
            Self::OnDemand => "on-demand",
            Self::Paused => "paused",
        }
    }
}

/// A moment of the first replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: Time,
    /// What it does from then on.
    pub phase: Phase,
    /// Its bid, or the fixed rate, for all GPUs.
    pub price: Option<Rate>,
    /// The recorded floor of its slot; `None`: not listed.
    pub floor: Option<Rate>,
    /// Where it is.
    pub machine: Option<MachineId>,
    /// Useful GPU-milliseconds that it has done.
    pub done_gpu_ms: i64,
    /// What all replicas have cost so far.
    pub cost: Money,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// When.
    pub at: Time,
    /// What, as the daemon's events name it.
    pub kind: String,
    /// In words.
    pub text: String,
}

/// What the policy came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// What it owes.
    pub bill: Bill,
    /// Useful GPU-milliseconds done, those since the last checkpoints with them.
    pub useful_gpu_ms: i64,
    /// Useful GPU-milliseconds lost with runs that ended.
    pub lost_gpu_ms: i64,
    /// What the same work would have cost on demand, at the cheapest eligible rate that was seen last; nothing
    /// where none was.
    pub on_demand_equivalent: Money,
    /// When all of its work was done; `None`: it was not.
    pub ended_at: Option<Time>,
    /// Whether a replica failed for good.
    pub failed: bool,
    /// Until when it had to be done.
    pub deadline: Option<Time>,
    /// What its replicas did.
    pub hours: Hours,
    /// Instances made.
    pub instances: u32,
    /// Times that a bid lost its slot.
    pub outbids: u32,
    /// What the engine did in all.
    pub actions: u32,
    /// The most slots that suited it at once.
    pub eligible_max: u32,
    /// Looks at which none did.
    pub looks_without_offer: usize,
    /// Looks at which a limit kept a replica from what suited it.
    pub looks_over_limit: usize,
    /// Looks at which a slot that our own instances hid was shown as it was before.
    pub carried: usize,
    /// Looks, of each instance, at which nobody had looked for its slot: it is taken to have gone on.
    pub unseen_looks: usize,
    /// Milliseconds of gaps in the record: what ran is taken to have run on, and nothing is decided.
    pub blind_ms: i64,
    /// How often what happened, by the events' kinds.
    pub events: BTreeMap<String, u32>,
    /// What happened, the first of it.
    pub happened: Vec<Happened>,
    /// The first replica's time, where something changed.
    pub timeline: Vec<Moment>,
}

/// Plays the question through.
pub fn relive(question: &Question<'_>) -> Answer {
    let mut live = live::Live::new(question, question.job.clone());
    live.run();
    live.answer
}

/// From where it is known how much work there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkFrom {
    /// The policy says it.
    Policy,
    /// The job ended, and did so much.
    Record,
    /// Nobody knows: it runs through the whole time.
    Nowhere,
}

impl WorkFrom {
    /// Its word in results.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Record => "record",
            Self::Nowhere => "unknown",
        }
    }
}

/// The policy without what cannot be played on a record: what runs on machines, what is kept in storage,
/// how GPUs are used. `did` is how many useful GPU-milliseconds the job did where it came to its end by
/// itself. Its deadline is put as far from the beginning as it is from `now`, where it is yet to come.
pub fn prepared(job: &Job, did: Option<i64>, (from, now): (Time, Time)) -> (Job, WorkFrom) {
    let mut job = job.clone();
    job.traffic_down_gb = job.expected_down_gb();
    // What a runner copies from disk to disk is brought along as if it lay elsewhere.
    let runner = job.run.runner.take();
    if runner.is_some_and(|runner| runner.carried) {
        job.checkpoint_place = Some(CheckpointPlace::Remote);
    }
    job.run.secrets.clear();
    job.run.login = None;
    job.idle_after = None;
    let ends = !matches!(job.finish, Finish::Never);
    let known = job.work_mgpu_h.filter(|_| ends);
    // A milli-GPU-hour is 3.6 GPU-seconds.
    let recorded = did.filter(|ms| ends && *ms > 0).map(|ms| ms / 3600);
    let from_where = if known.is_some() {
        WorkFrom::Policy
    } else if recorded.is_some() {
        WorkFrom::Record
    } else {
        WorkFrom::Nowhere
    };
    job.work_mgpu_h = known.or(recorded);
    if job.work_mgpu_h.is_some() {
        job.finish = Finish::Work;
    }
    job.deadline = job.deadline.map(|deadline| {
        let ahead = deadline.ms_since(now);
        if ahead > 0 {
            Time(from.0.saturating_add(ahead))
        } else {
            deadline
        }
    });
    (job, from_where)
}

/// Leaves out the rows of models that a job does not take: they bear on nothing that it does.
pub fn for_job(past: &mut Past, job: &Job) {
    let models = &job.requirements.gpu_models;
    if !models.is_empty() {
        past.rows.retain(|row| {
            let name = &row.offer.gpu_name;
            models.iter().any(|model| same_model(model, name))
        });
    }
}
