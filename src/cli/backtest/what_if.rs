//! `haggle backtest --what-if`: what a policy would have cost on the market that the daemon recorded.

mod page;
mod variants;
mod words;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::time::Duration;

use chrono::Datelike;
use serde::Serialize;

use super::super::context::{Context, open_reader};
use super::super::failure::{Done, Exit, Failure};
use super::super::history::moment;
use super::BacktestArgs;
use super::parallel::in_parallel;
use super::shown::{Forms, show};
use crate::backtest::past::{Answer, Cover, Question, WorkFrom, cover, for_job, prepared, relive};
use crate::config::Config;
use crate::store::{EntryFilter, Reader};
use crate::types::ids::{JobName, MachineId};
use crate::types::instance::Held;
use crate::types::job::Job;
use crate::types::money::{Money, Rate};
use crate::types::past::{Past, Stay};
use crate::types::state::{Ending, State};
use crate::types::time::{Time, human, millis};
use variants::{Variant, variants};

/// What is asked for where nothing is said.
const DAYS: u32 = 30;

/// A record of less than this says nothing of a policy.
const LEAST: Duration = Duration::from_hours(1);

#[derive(Debug, Serialize)]
pub(super) struct Document {
    pub(super) policy: String,
    pub(super) job: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) history: HistoryDocument,
    /// What a record cannot say, in sentences.
    pub(super) not_known: Vec<String>,
    /// In the order of the values that were asked for.
    pub(super) variants: Vec<VariantDocument>,
    /// What the job of this name cost in the same time; `None`: it cost nothing then.
    pub(super) really: Option<ReallyDocument>,
}

/// What the record covers.
#[derive(Debug, Serialize)]
pub(super) struct HistoryDocument {
    pub(super) looks: usize,
    /// Slots of the job's models and size that were seen.
    pub(super) slots: usize,
    /// Their rows, as they changed.
    pub(super) rows: usize,
    pub(super) asked_hours: f64,
    pub(super) looked_hours: f64,
    /// Hours in which the searches for the job's models were answered completely.
    pub(super) complete_hours: f64,
    /// The same, as a share of what was asked for.
    pub(super) coverage_share: f64,
    pub(super) not_asked_hours: f64,
    pub(super) gaps: usize,
    pub(super) longest_gap_hours: f64,
    /// Searches left out slots that the policy takes.
    pub(super) narrower: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct VariantDocument {
    /// The keys that were set, with their values.
    pub(super) set: BTreeMap<String, String>,
    pub(super) replicas: u32,
    pub(super) cost_dollars: String,
    /// Of the cost, by component; `on_demand` is of `gpu`.
    pub(super) gpu_dollars: String,
    pub(super) on_demand_dollars: String,
    pub(super) disk_dollars: String,
    pub(super) traffic_dollars: String,
    pub(super) dollars_per_useful_gpu_hour: Option<f64>,
    /// What the same work would have cost on demand, at the cheapest rate of each moment; absent: no slot that
    /// suited it was on offer.
    pub(super) on_demand_equivalent_dollars: Option<String>,
    /// What it would have cost less than the job of this name did; negative: more.
    pub(super) less_than_really_dollars: Option<String>,
    /// `policy`, `record` or `unknown`: from where it is known how much work there is.
    pub(super) work_from: &'static str,
    pub(super) work_gpu_hours: Option<f64>,
    pub(super) useful_gpu_hours: f64,
    pub(super) lost_gpu_hours: f64,
    /// When the work was done; absent: it was not.
    pub(super) done_at: Option<String>,
    pub(super) deadline: Option<String>,
    /// Absent where there is no deadline, or it lies after the record.
    pub(super) late: Option<bool>,
    pub(super) failed: bool,
    /// Hours of all replicas together.
    pub(super) bid_hours: f64,
    pub(super) on_demand_hours: f64,
    pub(super) starting_hours: f64,
    pub(super) paused_hours: f64,
    pub(super) nothing_hours: f64,
    pub(super) instances: u32,
    pub(super) outbids: u32,
    pub(super) slots_that_suited_most: u32,
    pub(super) looks_without_offer: usize,
    pub(super) looks_over_limit: usize,
    /// Looks at which a slot that our own instances hid was shown as before.
    pub(super) looks_carried: usize,
    /// Looks at which nobody had looked for a slot that it held.
    pub(super) looks_unseen: usize,
    pub(super) gap_hours: f64,
    pub(super) events: BTreeMap<String, u32>,
    /// The first replica's time, where something changed.
    pub(super) timeline: Vec<MomentDocument>,
    /// What happened, the first of it.
    pub(super) happened: Vec<HappenedDocument>,
}

#[derive(Debug, Serialize)]
pub(super) struct MomentDocument {
    pub(super) at: String,
    #[serde(skip)]
    pub(super) at_ms: i64,
    pub(super) phase: &'static str,
    pub(super) machine: Option<u64>,
    pub(super) price_dollars_per_hour: Option<String>,
    pub(super) floor_dollars_per_hour: Option<String>,
    pub(super) useful_gpu_hours: f64,
    pub(super) cost_dollars: String,
}

#[derive(Debug, Serialize)]
pub(super) struct HappenedDocument {
    at: String,
    kind: String,
    text: String,
}

/// What the ledger says of the job.
#[derive(Debug, Serialize)]
pub(super) struct ReallyDocument {
    pub(super) spend_dollars: String,
    pub(super) billed_dollars: String,
    /// Of instances made in the time.
    pub(super) instances: usize,
    /// GPU-hours that those were billed for, whatever came of them.
    pub(super) gpu_hours: f64,
    /// Useful GPU-hours of the calendar months that the time touches, which may be longer.
    pub(super) useful_gpu_hours_of_months: f64,
}

/// Runs the question, and shows what came of it.
pub(super) fn run(context: &Context, args: &BacktestArgs, policy: &Path, threads: usize) -> Done {
    let asked = variants(policy, &args.set)?;
    let config = context.config()?;
    let span = span(context, args, &config)?;
    let reader = open_reader(&config)?;
    let facts = Facts::read(&reader, &config, &asked, span)?;
    let now = context.now();
    let job = &asked[0].job;
    let mut past = facts.past_of(job)?.clone();
    for_job(&mut past, job);
    let cover = cover(&past, job, span, facts.stands_ms);
    enough(&reader, &cover, job, span)?;
    let answers = in_parallel(context.output, &asked, threads, &|variant: &Variant| {
        facts.answer(variant, now)
    })?;
    let really = facts.really(&reader, &config, &job.name, span)?;
    let document = Document {
        policy: policy.display().to_string(),
        job: job.name.to_string(),
        from: span.0.to_string(),
        to: span.1.to_string(),
        not_known: words::not_known(&cover, job, &answers),
        history: history_document(&cover),
        variants: asked
            .iter()
            .zip(&answers)
            .map(|(variant, played)| variant_document(variant, played, really.as_ref()))
            .collect(),
        really: really.map(|really| really.document),
    };
    let forms = Forms {
        text: &|| words::text(context.output, &document),
        csv: &|| page::csv(&document),
        page: &|| page::page(&document),
    };
    show(context, args, &document, &forms)?;
    Ok(Exit::Success)
}

/// The time that is asked for.
fn span(context: &Context, args: &BacktestArgs, config: &Config) -> Result<(Time, Time), Failure> {
    let now = context.now();
    let when = |text: &str| moment(text, now, config.timezone);
    // What is to come is not on record.
    let to = args.to.as_deref().map_or(Ok(now), when)?.min(now);
    let days = Duration::from_hours(24) * args.days.unwrap_or(DAYS);
    let from = args.from.as_deref().map_or(Ok(to - days), when)?;
    if from >= to {
        return Err(Failure::mendable(format!(
            "the time from {from} to {to} is none: nothing that has passed is between them"
        )));
    }
    Ok((from, to))
}

/// Refuses a record that says too little.
fn enough(
    reader: &Reader,
    cover: &Cover,
    job: &Job,
    (from, to): (Time, Time),
) -> Result<(), Failure> {
    if cover.looks == 0 {
        let kept = reader.recorded()?.map_or_else(
            || "; no look at the market is on record at all".to_owned(),
            |(first, last)| format!("; the record has looks from {first} to {last}"),
        );
        return Err(Failure::mendable(format!(
            "nothing was recorded of the market between {from} and {to}{kept}"
        ))
        .hint(
            "`haggle run` records it as it polls; poll.history_kept says for how long it is kept",
        ));
    }
    if cover.looked_ms < millis(LEAST) {
        let looked = human(Duration::from_millis(cover.looked_ms.unsigned_abs()));
        return Err(Failure::mendable(format!(
            "the record is too short: {} looks at the market between {from} and {to}, which stand for \
             {looked}; an hour at least is wanted",
            cover.looks
        )));
    }
    if cover.not_asked_ms >= cover.looked_ms {
        let models = &job.requirements.gpu_models;
        let models = if models.is_empty() {
            "all models".to_owned()
        } else {
            models.join(", ")
        };
        return Err(Failure::mendable(format!(
            "nobody searched for what {} takes between {from} and {to} ({} GPU of {models}): the \
             daemon's searches were about other slots",
            job.name, job.requirements.gpu_count
        ))
        .hint(
            "history is recorded of what the policies of the time, or poll.history_every, look for",
        ));
    }
    Ok(())
}

// ---------------------------------------------------------------------------------------- facts

/// What the database says.
struct Facts {
    /// The market, by the size of slots.
    pasts: BTreeMap<u32, Past>,
    state: State,
    ours: Vec<(Held, Option<Time>)>,
    boots: BTreeMap<MachineId, i64>,
    config: crate::types::world::EngineConfig,
    stands_ms: i64,
    span: (Time, Time),
}

/// What a variant came to.
pub(super) struct Played {
    pub(super) answer: Answer,
    pub(super) work_from: WorkFrom,
    /// Useful GPU-milliseconds of the whole job.
    pub(super) work: Option<i64>,
    to: Time,
}

struct Really {
    spend: Money,
    document: ReallyDocument,
}

impl Facts {
    fn read(
        reader: &Reader,
        config: &Config,
        asked: &[Variant],
        span: (Time, Time),
    ) -> Result<Self, Failure> {
        let state = reader.state()?;
        let mut pasts = BTreeMap::new();
        for variant in asked {
            let gpus = variant.job.requirements.gpu_count;
            if let Entry::Vacant(place) = pasts.entry(gpus) {
                place.insert(reader.past(span, gpus)?);
            }
        }
        let ended = reader.ended(u32::MAX)?;
        let ended = ended.into_iter().map(|one| (one.held, Some(one.at)));
        let held = state.held.values().map(|held| (held.clone(), None));
        let boots = state.machines.values();
        let boots = boots.filter_map(|record| Some((record.id, record.past.boot_ms?)));
        let engine = config.engine();
        Ok(Self {
            pasts,
            ours: ended.chain(held).collect(),
            boots: boots.collect(),
            stands_ms: millis(engine.offers_max_age.max(engine.poll_every * 2)),
            config: engine,
            state,
            span,
        })
    }

    fn past_of(&self, job: &Job) -> Result<&Past, Failure> {
        let gpus = job.requirements.gpu_count;
        self.pasts
            .get(&gpus)
            .ok_or_else(|| Failure::world(format!("no record was read for {gpus} GPUs")))
    }

    fn answer(&self, variant: &Variant, now: Time) -> Result<Played, String> {
        let job = &variant.job;
        let past = self.past_of(job).map_err(|failure| failure.in_short())?;
        let mut past = past.clone();
        for_job(&mut past, job);
        let begins = past.looks.first().map_or(self.span.0, |look| look.at);
        let (job, work_from) = prepared(job, self.did(&job.name), (begins, now));
        let to = self.span.1;
        let answer = relive(&Question {
            job: &job,
            config: self.config.clone(),
            past: &past,
            stays: &self.stays(&job.name),
            boots: &self.boots,
            from: begins,
            to,
            stands_ms: self.stands_ms,
        });
        Ok(Played {
            answer,
            work_from,
            work: job.work_mgpu_h.map(|work| work.saturating_mul(3600)),
            to,
        })
    }

    /// What the job did in all where every replica of it finished, in useful GPU-milliseconds.
    fn did(&self, job: &JobName) -> Option<i64> {
        let mut replicas = self.state.replicas_of(job).peekable();
        replicas.peek()?;
        replicas.try_fold(0_i64, |sum, record| {
            let finished = matches!(record.ending, Some((Ending::Finished, _)));
            finished.then(|| sum.saturating_add(record.durable_gpu_ms))
        })
    }

    /// The job's own instances, which hid their slots.
    fn stays(&self, job: &JobName) -> Vec<Stay> {
        let own = self
            .ours
            .iter()
            .filter(|(held, _)| held.replica.job == *job);
        own.map(|(held, to)| Stay {
            slot: held.slot,
            from: held.created_at,
            to: *to,
        })
        .collect()
    }

    /// What the ledger says of the job in the time; `None`: nothing.
    fn really(
        &self,
        reader: &Reader,
        config: &Config,
        job: &JobName,
        (from, to): (Time, Time),
    ) -> Result<Option<Really>, Failure> {
        let entries = reader.entries(&EntryFilter {
            job: Some(job.clone()),
            from: Some(from),
            to: Some(to),
            ..EntryFilter::default()
        })?;
        let (mut spend, mut billed, mut any) = (Money::ZERO, Money::ZERO, false);
        for entry in entries.iter().filter(|entry| !entry.kind.reserves()) {
            any = true;
            if entry.kind.spends() {
                spend += entry.amount;
            } else {
                billed += entry.amount;
            }
        }
        if !any {
            return Ok(None);
        }
        let made = self.ours.iter().filter(|(held, _)| {
            held.replica.job == *job && held.created_at >= from && held.created_at < to
        });
        let (mut instances, mut gpu_ms) = (0, 0_i64);
        for (held, _) in made {
            instances += 1;
            gpu_ms += held.billed_ms.saturating_mul(i64::from(held.slot.gpus));
        }
        let (first, last) = (from.day(config.timezone), to.day(config.timezone));
        let months = self.state.job(job).months.into_iter();
        let touched = months.filter(|(month, _)| {
            let of = |day: chrono::NaiveDate| (day.year(), day.month());
            (of(first)..=of(last)).contains(&of(*month))
        });
        let useful: i64 = touched.map(|(_, achieved)| achieved.useful_gpu_ms).sum();
        Ok(Some(Really {
            spend,
            document: ReallyDocument {
                spend_dollars: spend.decimal(),
                billed_dollars: billed.decimal(),
                instances,
                gpu_hours: hours(gpu_ms),
                useful_gpu_hours_of_months: hours(useful),
            },
        }))
    }
}

// ------------------------------------------------------------------------------------ documents

fn hours(ms: i64) -> f64 {
    // To the thousandth: what is shown has no more.
    (ms as f64 / 3600.0).round() / 1000.0
}

fn history_document(cover: &Cover) -> HistoryDocument {
    HistoryDocument {
        looks: cover.looks,
        slots: cover.slots,
        rows: cover.rows,
        asked_hours: hours(cover.asked_ms),
        looked_hours: hours(cover.looked_ms),
        complete_hours: hours(cover.complete_ms),
        coverage_share: cover.complete_ms as f64 / cover.asked_ms.max(1) as f64,
        not_asked_hours: hours(cover.not_asked_ms),
        gaps: cover.gaps,
        longest_gap_hours: hours(cover.gap_longest_ms),
        narrower: cover.narrower,
    }
}

fn variant_document(
    variant: &Variant,
    played: &Played,
    really: Option<&Really>,
) -> VariantDocument {
    let Answer {
        bill, hours: of, ..
    } = played.answer;
    let answer = &played.answer;
    let total = bill.total();
    let useful = hours(answer.useful_gpu_ms);
    let done = answer.ended_at.filter(|_| !answer.failed);
    let late = answer.deadline.and_then(|deadline| match done {
        Some(done) => Some(done > deadline),
        None => (deadline <= played.to).then_some(true),
    });
    VariantDocument {
        set: variant.set.clone(),
        replicas: variant.job.replicas,
        cost_dollars: total.decimal(),
        gpu_dollars: bill.gpu.decimal(),
        on_demand_dollars: bill.on_demand.decimal(),
        disk_dollars: bill.disk.decimal(),
        traffic_dollars: bill.traffic.decimal(),
        dollars_per_useful_gpu_hour: (useful > 0.0).then(|| total.as_dollars() / useful),
        on_demand_equivalent_dollars: Some(answer.on_demand_equivalent)
            .filter(|amount| *amount > Money::ZERO)
            .map(Money::decimal),
        less_than_really_dollars: really.map(|really| (really.spend - total).decimal()),
        work_from: played.work_from.as_str(),
        work_gpu_hours: played.work.map(hours),
        useful_gpu_hours: useful,
        lost_gpu_hours: hours(answer.lost_gpu_ms),
        done_at: done.map(|at| at.to_string()),
        deadline: answer.deadline.map(|at| at.to_string()),
        late,
        failed: answer.failed,
        bid_hours: hours(of.bid_ms),
        on_demand_hours: hours(of.on_demand_ms),
        starting_hours: hours(of.starting_ms),
        paused_hours: hours(of.paused_ms),
        nothing_hours: hours(of.nothing_ms),
        instances: answer.instances,
        outbids: answer.outbids,
        slots_that_suited_most: answer.eligible_max,
        looks_without_offer: answer.looks_without_offer,
        looks_over_limit: answer.looks_over_limit,
        looks_carried: answer.carried,
        looks_unseen: answer.unseen_looks,
        gap_hours: hours(answer.blind_ms),
        events: answer.events.clone(),
        timeline: answer
            .timeline
            .iter()
            .map(|moment| MomentDocument {
                at: moment.at.to_string(),
                at_ms: moment.at.0,
                phase: moment.phase.as_str(),
                machine: moment.machine.map(|machine| machine.0),
                price_dollars_per_hour: moment.price.map(Rate::decimal),
                floor_dollars_per_hour: moment.floor.map(Rate::decimal),
                useful_gpu_hours: hours(moment.done_gpu_ms),
                cost_dollars: moment.cost.decimal(),
            })
            .collect(),
        happened: answer
            .happened
            .iter()
            .map(|one| HappenedDocument {
                at: one.at.to_string(),
                kind: one.kind.clone(),
                text: one.text.clone(),
            })
            .collect(),
    }
}
