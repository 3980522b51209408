//! What the API answers beside what is published.

use serde::Serialize;
use utoipa::ToSchema;

use crate::types::money::Money;
use crate::view::board::{EventDocument, InstanceRow, JobRow, LimitRow};
use crate::view::instances::InstanceDocument;
use crate::view::plan::{ActionDocument, DroppedDocument, PlanDocument, ReasonsDocument};
use crate::view::sentence::Sentence;

/// A job with everything that is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobPage {
    /// For which moment it holds.
    pub(super) at: String,
    /// The job, with all its replicas.
    pub(super) job: JobRow,
    /// Its limits, with those that it falls under.
    pub(super) limits: Vec<LimitRow>,
    /// Its instances.
    pub(super) instances: Vec<InstanceRow>,
    /// Its last instances that are gone, the newest first.
    pub(super) ended: Vec<InstanceDocument>,
    /// What happened to it last, the newest first.
    pub(super) events: Vec<EventDocument>,
}

/// Why a job runs where it runs, waits, or was passed over.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplainDocument {
    /// For which moment it holds.
    pub(super) at: String,
    /// What it does and waits for, in words.
    pub(super) text: String,
    /// The same of each replica.
    pub(super) sentences: Vec<Sentence>,
    /// Which slots it could take, with every part of their prices, and why others were refused; `null`:
    /// its policy cannot be used.
    pub(super) reasons: Option<ReasonsDocument>,
    /// What the last tick decided for it.
    pub(super) actions: Vec<ActionDocument>,
    /// What the last tick decided for it and a limit held back.
    pub(super) dropped: Vec<DroppedDocument>,
    /// The last decisions that did something for it, the newest first.
    pub(super) decisions: Vec<DecisionDocument>,
    /// What happened to it last, the newest first.
    pub(super) events: Vec<EventDocument>,
}

/// What a tick decided to do.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DecisionDocument {
    /// The tick's number.
    pub(super) tick: u64,
    /// When.
    pub(super) at: String,
    /// What, in order.
    pub(super) actions: Vec<ActionDocument>,
}

/// A page of decisions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DecisionsDocument {
    /// The newest first.
    pub(super) decisions: Vec<DecisionDocument>,
    /// Where the next page begins, as `before`; `null`: there is none.
    pub(super) next_before: Option<u64>,
}

/// A decision, made again from what the journal kept of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DecisionPage {
    /// The tick's number.
    pub(super) tick: u64,
    /// What was decided, as the journal has it.
    pub(super) decided: DecisionDocument,
    /// What the same world gives now, with its reasons; `null`: its market is not kept any more, or its
    /// form is older.
    pub(super) again: Option<PlanDocument>,
    /// Why there is none.
    pub(super) not_again: Option<String>,
}

/// An event with its number.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StoryLine {
    /// Its number; they grow.
    pub(super) id: i64,
    /// What happened.
    #[serde(flatten)]
    pub(super) event: EventDocument,
}

/// A page of what happened.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StoryDocument {
    /// The newest first.
    pub(super) events: Vec<StoryLine>,
    /// Where the next page begins, as `before`; `null`: there is none.
    pub(super) next_before: Option<i64>,
}

/// Prices at a moment, for all GPUs of a slot.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PricePoint {
    /// When.
    pub(super) at: String,
    /// The least bid that runs it; `null`: not listed, or unknown.
    pub(super) floor_dollars_per_hour: Option<String>,
    /// The host's fixed rate; `null`: not listed, or unknown.
    pub(super) on_demand_dollars_per_hour: Option<String>,
}

/// What was bid from a moment on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BidPoint {
    /// From when.
    pub(super) at: String,
    /// How much, for all GPUs.
    pub(super) dollars_per_hour: String,
}

/// An instance of a job on the market.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InstanceMarket {
    /// Which.
    pub(super) instance: u64,
    /// Of which replica.
    pub(super) replica: String,
    /// Where.
    pub(super) machine: u64,
    /// Its GPUs.
    pub(super) gpus: u32,
    /// Their model.
    pub(super) gpu_name: String,
    /// `bid` or `on-demand`.
    pub(super) rental: &'static str,
    /// When it was made.
    pub(super) from: String,
    /// When it was settled as gone; `null`: it is there.
    pub(super) to: Option<String>,
    /// What was bid for it over time.
    pub(super) bids: Vec<BidPoint>,
    /// Its slot over time.
    pub(super) slot: Vec<PricePoint>,
}

/// The market of a job over time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MarketDocument {
    /// Which job.
    pub(super) job: String,
    /// From when.
    pub(super) from: String,
    /// To when.
    pub(super) to: String,
    /// GPUs of a slot that it takes.
    pub(super) gpus: u32,
    /// The models that it takes; empty: any.
    pub(super) models: Vec<String>,
    /// The ceiling of its policy on compute and disk, for all GPUs of a slot.
    pub(super) ceiling_dollars_per_hour: String,
    /// The cheapest that slots of its models and number of GPUs were listed at, whatever else it
    /// requires.
    pub(super) cheapest: Vec<PricePoint>,
    /// Its last instances.
    pub(super) instances: Vec<InstanceMarket>,
}

/// An attempt at a replica: an instance that ran it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AttemptDocument {
    /// Counted from the newest, which is 1.
    pub(super) attempt: usize,
    /// Of which replica.
    pub(super) replica: String,
    /// The instance.
    pub(super) instance: u64,
    /// Whether it is there.
    pub(super) is_there: bool,
    /// When it was settled as gone.
    pub(super) ended_at: Option<String>,
    /// Whether anything that it wrote was kept.
    pub(super) has_log: bool,
}

/// What a job wrote.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LogDocument {
    /// Which job.
    pub(super) job: String,
    /// The attempts that are known, the newest first.
    pub(super) attempts: Vec<AttemptDocument>,
    /// Of which of them the lines are; `null`: none was found.
    pub(super) attempt: Option<usize>,
    /// The last lines, harmless to a terminal and without secrets.
    pub(super) lines: Vec<String>,
    /// Whether there are more before them.
    pub(super) is_cut: bool,
}

/// A policy that can be used.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PolicyDocument {
    /// Its job.
    pub(super) job: String,
    /// Its file; `null`: it is none.
    pub(super) file: Option<String>,
    /// On whose behalf it spends.
    pub(super) owner: Option<String>,
    /// Its tags.
    pub(super) tags: Vec<String>,
    /// Higher is served first.
    pub(super) priority: i32,
    /// How many copies, or elements of an array.
    pub(super) replicas: u32,
    /// The models that it takes; empty: any.
    pub(super) gpu_models: Vec<String>,
    /// GPUs of a slot.
    pub(super) gpus: u32,
    /// `interruptible`, `on-demand` or `auto`.
    pub(super) rental: String,
    /// Its ceiling.
    pub(super) price_max_dollars_per_gpu_hour: String,
    /// What it may spend in all; `null`: no limit of its own.
    pub(super) budget_dollars: Option<String>,
}

/// A mistake in a policy file.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MistakeDocument {
    /// The file.
    pub(super) file: String,
    /// Its job, where that much could be read.
    pub(super) job: Option<String>,
    /// From 1.
    pub(super) line: usize,
    /// From 1, in characters.
    pub(super) column: usize,
    /// What is wrong.
    pub(super) message: String,
    /// What would be right.
    pub(super) help: Option<String>,
}

/// The policies.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PoliciesDocument {
    /// Their directory; `null`: they are not files.
    pub(super) directory: Option<String>,
    /// Those that can be used.
    pub(super) policies: Vec<PolicyDocument>,
    /// What is wrong with the others.
    pub(super) mistakes: Vec<MistakeDocument>,
}

/// What was spent for something.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SpendRow {
    /// The job, the day, the month, or the model.
    pub(super) key: String,
    /// For compute.
    pub(super) gpu_dollars: String,
    /// For disks.
    pub(super) disk_dollars: String,
    /// For traffic.
    pub(super) traffic_dollars: String,
    /// In all.
    pub(super) spend_dollars: String,
    /// What the marketplace has charged; `null`: not divided so.
    pub(super) billed_dollars: Option<String>,
}

impl From<crate::store::Spend> for SpendRow {
    fn from(spend: crate::store::Spend) -> Self {
        Self {
            key: spend.key,
            gpu_dollars: spend.gpu.decimal(),
            disk_dollars: spend.disk.decimal(),
            traffic_dollars: spend.traffic.decimal(),
            spend_dollars: spend.total.decimal(),
            billed_dollars: spend.billed.map(Money::decimal),
        }
    }
}

/// What was spent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SpendDocument {
    /// By what it is added up.
    pub(super) by: &'static str,
    /// The time zone of days and months.
    pub(super) timezone: String,
    /// Ordered by key; of days the last hundred.
    pub(super) rows: Vec<SpendRow>,
}

/// A change was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AskedDocument {
    /// The request's number; `null`: it stands in a file beside the database alone.
    pub(super) request: Option<i64>,
    /// What will be done, by whom, and when, in words.
    pub(super) text: String,
    /// Whether the daemon that answers carries it out, at its next look: within seconds.
    pub(super) is_taken_up: bool,
}
