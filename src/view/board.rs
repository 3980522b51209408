//! What haggle is doing and what it costs, all at once: what the page shows first.
//!
//! It is made of what a tick saw and decided, and bounded: whatever there is, so many rows are in it,
//! and how many were left out is said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::instances::{self, InstanceDocument};
use super::jobs::{self, JobDocument};
use super::limits::{self, LimitDocument};
use super::plan::{self, ActionDocument, DroppedDocument, NoticeDocument};
use super::rented::Rented;
use super::sentence::{self, DeadlineRow, Sentence, Tone};
use crate::engine::eligible::factor_ppm;
use crate::engine::projection::{burn_now, first_breach};
use crate::engine::runway::lasts;
use crate::types::ids::JobName;
use crate::types::instance::{Held, Phase};
use crate::types::job::Job;
use crate::types::ledger::Scope;
use crate::types::limit::Measure;
use crate::types::money::{Money, Rate};
use crate::types::plan::{JobReport, Plan, Projection, Report};
use crate::types::state::{Event, Severity, State};
use crate::types::time::Time;
use crate::types::world::EngineConfig;

/// Jobs shown at most.
pub(crate) const JOBS_MAX: usize = 500;

/// Replicas of a job shown at most; the job by itself shows all.
const REPLICAS_MAX: usize = 8;

/// Instances shown at most.
pub(crate) const INSTANCES_MAX: usize = 1000;

/// Actions of the last tick shown at most, and as many that were held back.
const ACTIONS_MAX: usize = 50;

/// Limits shown at most: the account's first, then those nearest to being reached.
const LIMITS_MAX: usize = 60;

/// What is wrong with a policy file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct BrokenDocument {
    /// The file.
    pub(crate) file: String,
    /// Its job, where that much could be read.
    pub(crate) job: Option<String>,
    /// What is wrong, with its line.
    pub(crate) message: String,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct EventDocument {
    /// When.
    pub(crate) at: String,
    /// `info`, `warning` or `alarm`.
    #[schema(value_type = String)]
    pub(crate) severity: Severity,
    /// A word that can be counted.
    pub(crate) kind: String,
    /// Of which replica.
    pub(crate) replica: Option<String>,
    /// Of which instance.
    pub(crate) instance: Option<u64>,
    /// A sentence.
    pub(crate) text: String,
}

impl EventDocument {
    /// The document of an event.
    pub(crate) fn of(event: &Event) -> Self {
        Self {
            at: event.at.to_string(),
            severity: event.severity,
            kind: event.kind.clone(),
            replica: event.replica.as_ref().map(ToString::to_string),
            instance: event.instance.map(|id| id.0),
            text: event.text.clone(),
        }
    }
}

/// The account and what is spent of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct MoneyDocument {
    /// The account's credit as it was read last; `null`: it could not be.
    pub(crate) credit_dollars: Option<String>,
    /// Of it, what is never touched.
    pub(crate) credit_reserve_dollars: String,
    /// Set aside for requests that are not settled.
    pub(crate) reserved_dollars: String,
    /// What is billed per hour now.
    pub(crate) burn_dollars_per_hour: String,
    /// What it may come to by itself, such as when an outbid instance resumes.
    pub(crate) worst_dollars_per_hour: String,
    /// For how long the credit less its reserve lasts at the present burn; `null`: for ever, or unknown.
    pub(crate) runway_seconds: Option<u64>,
    /// Spent in all.
    pub(crate) spend_dollars: String,
    /// Spent today, in the configured time zone.
    pub(crate) spend_today_dollars: String,
    /// Spent this month, in the configured time zone.
    pub(crate) spend_month_dollars: String,
    /// What the same useful GPU-hours would have cost on-demand.
    pub(crate) on_demand_equivalent_dollars: String,
    /// The difference to what was spent; negative: nothing was saved.
    pub(crate) saved_dollars: String,
}

/// A limit and how far it is used.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct LimitRow {
    /// In words: `per-day limit of the account`.
    pub(crate) text: String,
    /// How much of it is used, from 0 to 1 and beyond; `null`: unknown, or a limit from below.
    pub(crate) share: Option<f64>,
    /// The numbers.
    #[serde(flatten)]
    pub(crate) limit: LimitDocument,
}

/// A job and where it stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct JobRow {
    /// What it does and waits for, in words.
    pub(crate) text: String,
    /// How that is to be taken.
    pub(crate) tone: Tone,
    /// The same of its replicas, those that rest alike together.
    pub(crate) sentences: Vec<Sentence>,
    /// Replicas that are not among `replicas` here; the job by itself shows all.
    pub(crate) replicas_left_out: usize,
    /// Higher is served first; `null`: its policy is not known.
    pub(crate) priority: Option<i32>,
    /// How much of its work is done, from 0 to 1; `null`: its policy states none.
    pub(crate) work_share: Option<f64>,
    /// When its work would be done at the present pace; `null`: nothing of it runs, or no work is stated.
    pub(crate) expected_end_at: Option<String>,
    /// How the replica with the least time to spare stands with its deadline; `null`: there is none, or
    /// nothing was decided for it.
    pub(crate) deadline: Option<DeadlineRow>,
    /// What on-demand would have cost more; negative: nothing was saved.
    pub(crate) saved_dollars: String,
    /// The ceiling of its policy.
    pub(crate) price_max_dollars_per_gpu_hour: Option<String>,
    /// Slots that it could take now; `null`: nothing was decided for it.
    pub(crate) eligible: Option<u32>,
    /// Slots that were refused; `null`: nothing was decided for it.
    pub(crate) refused: Option<u32>,
    /// The landed price of the best slot that it could take, per useful GPU-hour.
    pub(crate) best_dollars_per_gpu_hour: Option<String>,
    /// The landed price of the cheapest on-demand slot that would suit, per useful GPU-hour.
    pub(crate) on_demand_dollars_per_gpu_hour: Option<String>,
    /// The rest.
    #[serde(flatten)]
    pub(crate) job: JobDocument,
}

/// An instance, and how its state is to be taken.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct InstanceRow {
    /// How its state is to be taken.
    pub(crate) tone: Tone,
    /// The rest.
    #[serde(flatten)]
    pub(crate) instance: InstanceDocument,
}

/// All of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct BoardDocument {
    /// Grows with each publication of this process.
    pub(crate) version: u64,
    /// haggle's version.
    pub(crate) haggle: &'static str,
    /// Which installation this is.
    pub(crate) installation: String,
    /// The account that it is bound to.
    pub(crate) account: Option<u64>,
    /// For which moment all this holds, by the daemon's clock.
    pub(crate) at: String,
    /// The time zone of days, and of times in sentences.
    pub(crate) timezone: String,
    /// Whether plans are carried out; else it is a dry run.
    pub(crate) live: bool,
    /// Whether spending is forbidden until `resume --all`.
    pub(crate) spending_forbidden: bool,
    /// Whether changes can be asked for here at all, with the token.
    pub(crate) changes_allowed: bool,
    /// Ticks of the installation so far.
    pub(crate) tick: u64,
    /// The next tick comes within this, if nothing calls for it earlier.
    pub(crate) next_tick_within_seconds: u64,
    /// Why the daemon cannot be relied on right now; empty: it can.
    pub(crate) trouble: Vec<String>,
    /// The account and what is spent of it.
    pub(crate) money: MoneyDocument,
    /// Limits, the account's first.
    pub(crate) limits: Vec<LimitRow>,
    /// Limits that are not shown.
    pub(crate) limits_left_out: usize,
    /// Jobs, by priority and name; those without a policy last.
    pub(crate) jobs: Vec<JobRow>,
    /// Jobs that are not shown.
    pub(crate) jobs_left_out: usize,
    /// Instances of ours.
    pub(crate) instances: Vec<InstanceRow>,
    /// Instances that are not shown.
    pub(crate) instances_left_out: usize,
    /// Policy files that cannot be used.
    pub(crate) broken_policies: Vec<BrokenDocument>,
    /// Whether the last tick could read the account and all that is rented; else that there are no
    /// `actions` does not say that none are needed.
    pub(crate) was_decided: bool,
    /// What the last tick decided to do.
    pub(crate) actions: Vec<ActionDocument>,
    /// What it decided and a limit held back.
    pub(crate) dropped: Vec<DroppedDocument>,
    /// What it had to tell.
    pub(crate) notices: Vec<NoticeDocument>,
    /// What happened last, the newest first.
    pub(crate) news: Vec<EventDocument>,
}

/// What a board is made of.
pub(crate) struct Seen<'a> {
    pub(crate) version: u64,
    pub(crate) now: Time,
    pub(crate) live: bool,
    pub(crate) changes_allowed: bool,
    pub(crate) config: &'a EngineConfig,
    pub(crate) state: &'a State,
    /// The jobs whose policies can be used, by priority and name.
    pub(crate) jobs: &'a [Arc<Job>],
    pub(crate) broken: &'a [BrokenDocument],
    pub(crate) plan: &'a Plan,
    pub(crate) report: &'a Report,
    /// Whether the plan comes of what the marketplace said.
    pub(crate) was_decided: bool,
    /// As it was read last; `None`: it could not be.
    pub(crate) credit: Option<Money>,
    pub(crate) next_tick: Duration,
    pub(crate) trouble: Vec<String>,
    /// The newest first.
    pub(crate) news: Vec<EventDocument>,
}

/// Makes the board, and the rows of its jobs with all their replicas.
pub(crate) fn board(seen: &Seen<'_>) -> (BoardDocument, Vec<JobRow>) {
    let rented = Rented::of(seen.state);
    let mut rows = job_rows(seen, &rented);
    let (config, state) = (seen.config, seen.state);
    let jobs = seen.jobs.iter();
    let by_name: BTreeMap<&JobName, &Job> = jobs.map(|job| (&job.name, &**job)).collect();
    let mut limits: Vec<&Projection> = seen.report.limits.iter().collect();
    limits.sort_by_key(|limit| {
        let of_account = limit.row.scope == Scope::Account;
        (
            !of_account,
            limit.breach_at.is_none(),
            limit.breach_at,
            limit.row.clone(),
        )
    });
    let shown = limits.len().min(LIMITS_MAX);
    let document = BoardDocument {
        version: seen.version,
        haggle: env!("CARGO_PKG_VERSION"),
        installation: state.installation.to_string(),
        account: state.account.map(|id| id.0),
        at: seen.now.to_string(),
        timezone: config.timezone.to_string(),
        live: seen.live,
        spending_forbidden: state.killed,
        changes_allowed: seen.changes_allowed,
        tick: state.ticks,
        next_tick_within_seconds: seen.next_tick.as_secs(),
        trouble: seen.trouble.clone(),
        money: money(seen),
        limits_left_out: limits.len() - shown,
        limits: limits.into_iter().take(shown).map(limit_row).collect(),
        jobs_left_out: rows.len().saturating_sub(JOBS_MAX),
        jobs: rows.iter_mut().take(JOBS_MAX).map(shortened).collect(),
        instances_left_out: state.held.len().saturating_sub(INSTANCES_MAX),
        instances: state
            .held
            .values()
            .take(INSTANCES_MAX)
            .map(|held| instance_row(held, by_name.get(&held.replica.job).copied()))
            .collect(),
        broken_policies: seen.broken.to_vec(),
        was_decided: seen.was_decided,
        actions: seen
            .plan
            .actions
            .iter()
            .take(ACTIONS_MAX)
            .map(plan::action_document)
            .collect(),
        dropped: plan::dropped(seen.report, ACTIONS_MAX),
        notices: plan::notices(seen.report, ACTIONS_MAX),
        news: seen.news.clone(),
    };
    (document, rows)
}

/// A row with its first replicas. What is not shown is not copied either: an array has thousands.
fn shortened(row: &mut JobRow) -> JobRow {
    let replicas = std::mem::take(&mut row.job.replicas);
    let sentences = std::mem::take(&mut row.sentences);
    let mut short = row.clone();
    short.replicas_left_out = replicas.len().saturating_sub(REPLICAS_MAX);
    short.job.replicas = replicas.iter().take(REPLICAS_MAX).cloned().collect();
    short.sentences = sentences.iter().take(REPLICAS_MAX).cloned().collect();
    row.job.replicas = replicas;
    row.sentences = sentences;
    short
}

fn money(seen: &Seen<'_>) -> MoneyDocument {
    let (config, state) = (seen.config, seen.state);
    let today = seen.now.day(config.timezone);
    let usage = state.usage(&Scope::Account);
    let burn: Rate = state.held.values().map(burn_now).sum();
    let worst: Rate = state.held.values().map(Held::worst_rate).sum();
    let equivalent: Money = state
        .jobs
        .values()
        .map(|job| job.on_demand_equivalent)
        .sum();
    let free = seen.credit.map(|credit| credit - config.credit_reserve);
    let runway = free.and_then(|free| lasts(i128::from(free.0), i128::from(burn.0)));
    MoneyDocument {
        credit_dollars: seen.credit.map(Money::decimal),
        credit_reserve_dollars: config.credit_reserve.decimal(),
        reserved_dollars: state.reserved.values().copied().sum::<Money>().decimal(),
        burn_dollars_per_hour: burn.decimal(),
        worst_dollars_per_hour: worst.decimal(),
        runway_seconds: runway.map(|runway| runway.as_secs()),
        spend_dollars: usage.total.decimal(),
        spend_today_dollars: usage.on(today).decimal(),
        spend_month_dollars: usage.in_month_of(today).decimal(),
        on_demand_equivalent_dollars: equivalent.decimal(),
        saved_dollars: (equivalent - usage.total).decimal(),
    }
}

/// A limit with how much of it is used.
pub(crate) fn limit_row(limit: &Projection) -> LimitRow {
    let from_below = matches!(limit.row.measure, Measure::Credit | Measure::Runway);
    let share = limit
        .used
        .filter(|_| !from_below && limit.row.bound > 0)
        .map(|used| used as f64 / limit.row.bound as f64);
    LimitRow {
        text: limit.row.to_string(),
        share,
        limit: limits::document(limit),
    }
}

fn job_rows(seen: &Seen<'_>, rented: &Rented<'_>) -> Vec<JobRow> {
    let mut reports: BTreeMap<&JobName, &JobReport> = BTreeMap::new();
    for report in &seen.report.jobs {
        reports.insert(&report.job, report);
    }
    let mut rows: Vec<JobRow> = seen
        .jobs
        .iter()
        .map(|job| {
            let report = reports.get(&job.name).copied();
            job_row((seen, rented), &job.name, Some(job), report)
        })
        .collect();
    let known: BTreeSet<&JobName> = seen.jobs.iter().map(|job| &job.name).collect();
    let names = seen.state.jobs.keys();
    let mut others: Vec<&JobName> = names.filter(|name| !known.contains(name)).collect();
    // Those with something rented first: they cost money without a policy.
    others.sort_by_cached_key(|name| rented.of_job(name).next().is_none());
    rows.extend(
        others
            .into_iter()
            .map(|name| job_row((seen, rented), name, None, None)),
    );
    rows
}

fn job_row(
    (seen, rented): (&Seen<'_>, &Rented<'_>),
    name: &JobName,
    job: Option<&Job>,
    report: Option<&JobReport>,
) -> JobRow {
    let (config, state) = (seen.config, seen.state);
    let zone = config.timezone;
    let broken = seen
        .broken
        .iter()
        .any(|broken| broken.job.as_deref() == Some(name.as_str()));
    let policy = match (job, broken) {
        (Some(_), _) => "valid",
        (None, true) => "broken",
        (None, false) => "missing",
    };
    let breach = job.and_then(|job| first_breach(config, job, &seen.report.limits));
    let document = JobDocument {
        projected_breach_at: breach.map(|(_, at)| at.to_string()),
        projected_breach_limit: breach.map(|(limit, _)| limit.row.to_string()),
        ..jobs::document(rented, name, job, policy, (seen.now, seen.now.day(zone)))
    };
    let sentences = report.map_or_else(Vec::new, |report| {
        sentence::sentences(report, rented, (seen.now, zone))
    });
    let (tone, text) = sentence::headline(&sentences).unwrap_or_else(|| match policy {
        "broken" => (
            Tone::Bad,
            "its policy cannot be used; it is left as it is".to_owned(),
        ),
        "missing" if document.burn_dollars_per_hour != Rate::ZERO.decimal() => (
            Tone::Warn,
            format!("it has no policy any more: {}", document.status),
        ),
        "missing" => (Tone::Rest, "it has no policy any more".to_owned()),
        _ => (Tone::Wait, document.status.clone()),
    });
    let landed = |price: f64| format!("{price:.4}");
    let equivalent = state
        .jobs
        .get(name)
        .map(|record| record.on_demand_equivalent);
    let done: i64 = state
        .replicas_of(name)
        .map(crate::types::state::ReplicaRecord::done_gpu_ms)
        .sum();
    let work = job
        .and_then(|job| job.work_mgpu_h)
        .map(|work| work.saturating_mul(3600));
    JobRow {
        text,
        tone,
        sentences,
        replicas_left_out: 0,
        priority: job.map(|job| job.priority),
        work_share: work
            .filter(|&work| work > 0)
            .map(|work| (done as f64 / work as f64).clamp(0.0, 1.0)),
        expected_end_at: job.zip(work).and_then(|(job, work)| {
            expected_end(rented, job, work - done, seen.now).map(|at| at.to_string())
        }),
        deadline: report.and_then(|report| sentence::deadline(report, (seen.now, zone))),
        saved_dollars: (equivalent.unwrap_or_default() - state.spent(name)).decimal(),
        price_max_dollars_per_gpu_hour: job.map(|job| job.price_max.decimal()),
        eligible: report.map(|report| report.eligible),
        refused: report.map(|report| report.refused.values().sum()),
        best_dollars_per_gpu_hour: report
            .and_then(|report| report.best.first())
            .map(|best| landed(best.parts.total())),
        on_demand_dollars_per_gpu_hour: report
            .and_then(|report| report.on_demand_best.as_ref())
            .map(|best| landed(best.parts.total())),
        job: document,
    }
}

/// When what is left of a job's work, in useful GPU-milliseconds, would be done by what runs of it now.
/// `None`: nothing runs.
fn expected_end(rented: &Rented<'_>, job: &Job, left: i64, now: Time) -> Option<Time> {
    let useful: i128 = rented
        .of_job(&job.name)
        .filter(|held| held.phase == Phase::Running && held.destroying.is_none())
        .map(|held| i128::from(held.slot.gpus) * i128::from(factor_ppm(job, &held.gpu_name)))
        .sum();
    if useful <= 0 || left <= 0 {
        return None;
    }
    let ms = i128::from(left) * 1_000_000 / useful;
    Some(Time(now.0.saturating_add(i64::try_from(ms).ok()?)))
}

fn instance_row(held: &Held, job: Option<&Job>) -> InstanceRow {
    let document = instances::instance(held, job, None);
    let tone = match document.status {
        "running" => Tone::Good,
        "provisioning" | "clearing" => Tone::Wait,
        "parked" => Tone::Rest,
        "offline" => Tone::Bad,
        _ => Tone::Warn,
    };
    InstanceRow {
        tone,
        instance: document,
    }
}
