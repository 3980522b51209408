//! `haggle explain JOB`: why a job runs where it runs, waits, or was passed over.
//!
//! It asks nothing of the marketplace: it decides anew on what the database holds, with the
//! functions that the daemon decides with.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::clock::ClockArgs;
use super::context::{Context, known_jobs, load_policies, open_reader, require_known};
use super::daemon;
use super::failure::{Done, Exit, Failure};
use super::jobs::ago;
use super::show_plan;
use super::sources::SystemSecrets;
use super::wish::JobArg;
use crate::config::Config;
use crate::daemon::unreadable_secrets;
use crate::engine::decide::decide;
use crate::engine::rank::MarketIndex;
use crate::policy::{Loaded, LoadedJob, PolicyError};
use crate::store::Reader;
use crate::types::ids::JobName;
use crate::types::instance::{Account, Held, Instance, Listing, Phase, RawState};
use crate::types::job::Job;
use crate::types::money::Money;
use crate::types::offer::Snapshot;
use crate::types::plan::{JobReport, Plan};
use crate::types::state::{Event, State};
use crate::types::time::{Time, human};
use crate::types::world::{EngineConfig, World};
use crate::view::jobs::held_word;
use crate::view::plan::{self, ReasonsDocument};
use crate::view::words;

/// Events of the job shown.
const EVENTS_SHOWN: u32 = 12;

/// Slots shown.
const SLOTS_SHOWN: usize = 5;

/// Stands in for a balance that this command does not read: explaining spends nothing.
const CREDIT_ASSUMED: Money = Money::dollars(1_000_000);

#[derive(Debug, Serialize)]
struct EventDocument {
    at: String,
    kind: String,
    replica: Option<String>,
    instance: Option<u64>,
    text: String,
}

#[derive(Debug, Serialize)]
struct ExplainDocument {
    at: String,
    wish: &'static str,
    spend_dollars: String,
    budget_dollars: Option<String>,
    on_demand_equivalent_dollars: String,
    #[serde(flatten)]
    report: Option<ReasonsDocument>,
    events: Vec<EventDocument>,
}

/// Names the job to explain.
#[derive(Args, Clone, Debug)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    arg: JobArg,
    #[command(flatten)]
    clock: ClockArgs,
}

pub(crate) fn run(context: &Context, args: &ExplainArgs) -> Done {
    let arg = &args.arg;
    let config = context.config()?;
    let context = &args.clock.of(context, &config.provider)?;
    let reader = open_reader(&config)?;
    let state = reader.state()?;
    let loaded = load_policies(&config)?;
    require_known(&arg.job, &known_jobs(Some(&state), Some(&loaded)))?;
    let events = reader.events(Some(&arg.job), EVENTS_SHOWN)?;
    let job = loaded
        .jobs
        .iter()
        .map(|loaded| &loaded.job)
        .find(|job| job.name == arg.job)
        .cloned();
    if job.is_none() {
        context.output.note(&format!(
            "note: {} has no policy that can be used, so it is left as it is; `haggle check` says more",
            arg.job
        ));
    }
    let snapshot = reader.last_snapshot()?.map(|(_, snapshot)| snapshot);
    let explained = match (&job, snapshot) {
        (Some(job), Some(snapshot)) => Some(decide_anew(
            context, &config, &reader, &state, &loaded, job, snapshot,
        )?),
        (Some(_), None) => {
            context
                .output
                .note("note: the market was never seen; start `haggle run`, or try `haggle plan`");
            None
        }
        (None, _) => None,
    };
    show(
        context,
        &config,
        &state,
        &arg.job,
        job.as_ref(),
        explained,
        &events,
    )
}

/// A job's report with the moment for which it holds.
struct Explained {
    now: Time,
    report: JobReport,
    plan: Plan,
}

fn decide_anew(
    context: &Context,
    config: &Config,
    reader: &Reader,
    state: &State,
    loaded: &Loaded,
    job: &Job,
    snapshot: Snapshot,
) -> Result<Explained, Failure> {
    let engine = config.engine();
    // What the daemon saw last is what it decided on; later than its next poll it would have
    // looked again.
    let now = context.now().min(snapshot.at + engine.poll_every);
    let behind = context.now().since(now);
    if behind > engine.poll_every {
        context.output.note(&format!(
            "note: as of {}, {}: the market was not seen since",
            snapshot.at,
            ago(context.now(), snapshot.at)
        ));
    }
    let world = known_world(context, &engine, reader, state, loaded, (now, snapshot))?;
    let (plan, report) = decide(&world);
    let mut found = report
        .jobs
        .into_iter()
        .find(|report| report.job == job.name);
    let ranked = super::plan::ranking(&world, job, &MarketIndex::new(&world), SLOTS_SHOWN);
    let replicas = found.take().map_or_else(Vec::new, |report| report.replicas);
    Ok(Explained {
        now,
        report: JobReport { replicas, ..ranked },
        plan: Plan {
            actions: plan
                .actions
                .into_iter()
                .filter(|action| {
                    let of = action.replica.as_ref().map(|replica| &replica.job);
                    of == Some(&job.name)
                })
                .collect(),
        },
    })
}

/// The world as the database knows it, to be decided on anew. Where the balance is not known it is assumed
/// to be ample, for nothing is spent.
pub(crate) fn known_world(
    context: &Context,
    engine: &EngineConfig,
    reader: &Reader,
    state: &State,
    loaded: &Loaded,
    (now, snapshot): (Time, Snapshot),
) -> Result<World, Failure> {
    let last = last_world(reader)?;
    let credit = last
        .as_ref()
        .and_then(|world| world.account?.credit)
        .unwrap_or(CREDIT_ASSUMED);
    let mut jobs: Vec<Arc<Job>> = loaded
        .jobs
        .iter()
        .map(|loaded| Arc::new(loaded.job.clone()))
        .collect();
    jobs.sort_by(|a, b| (-a.priority, &a.name).cmp(&(-b.priority, &b.name)));
    Ok(World {
        now,
        seed: 0,
        config: engine.clone(),
        jobs,
        unreadable_jobs: loaded
            .errors
            .iter()
            .filter_map(PolicyError::job_name)
            .collect(),
        last_policies: Vec::new(),
        unreadable_secrets: secrets_as_seen(context, last.as_ref(), &loaded.jobs),
        state: state.clone(),
        market: Arc::new(snapshot),
        listing: Some(as_listed(state)),
        account: state.account.map(|id| Account {
            id,
            credit: Some(credit),
        }),
        credit_read: last.as_ref().and_then(|world| world.credit_read),
        credit_slope: last.as_ref().and_then(|world| world.credit_slope),
        can_bid: last.is_none_or(|world| world.can_bid),
        wind_down: false,
    })
}

/// Which secrets cannot be read: as the daemon saw it, whose environment is its own, or else as it is
/// here.
fn secrets_as_seen(
    context: &Context,
    last: Option<&World>,
    jobs: &[LoadedJob],
) -> BTreeMap<JobName, String> {
    if let Some(last) = last {
        return last.unreadable_secrets.clone();
    }
    let secrets = SystemSecrets(Arc::clone(&context.redactor));
    let unread = |loaded: &LoadedJob| {
        let what = unreadable_secrets(&secrets, &loaded.job.run)?;
        Some((loaded.job.name.clone(), what))
    };
    jobs.iter().filter_map(unread).collect()
}

/// The last world that was journalled whole; an old form that cannot be read is passed over.
fn last_world(reader: &Reader) -> Result<Option<World>, Failure> {
    let tick = reader.tick_with_world(None)?;
    Ok(tick
        .and_then(|tick| tick.world)
        .and_then(|text| serde_json::from_str(&text).ok()))
}

/// The instances as the daemon last knew them, in the form of a listing.
fn as_listed(state: &State) -> Listing {
    Listing {
        rows: state.held.values().map(listed).collect(),
        complete: true,
        unreadable: Vec::new(),
    }
}

fn listed(held: &Held) -> Instance {
    let (contract, container) = match held.phase {
        Phase::Provisioning => (RawState::Running, Some(RawState::Loading)),
        Phase::Running => (RawState::Running, Some(RawState::Running)),
        Phase::Stopped => (RawState::Stopped, Some(RawState::Exited)),
        Phase::Exited => (RawState::Running, Some(RawState::Exited)),
        Phase::Offline => (RawState::Running, Some(RawState::Offline)),
        Phase::Unclear => (RawState::Other, None),
    };
    Instance {
        id: held.id,
        label: None,
        machine: Some(held.slot.machine),
        host: held.host,
        gpus: Some(held.slot.gpus),
        gpu_ids: held.gpu_ids.clone(),
        gpu_name: Some(held.gpu_name.clone()),
        is_bid: Some(held.rental == crate::types::instance::Rental::Bid),
        price: Some(held.price),
        storage: Some(held.storage),
        burn: None,
        cur_state: Some(contract),
        intended: Some(contract),
        next_state: Some(contract),
        actual: container,
        status_msg: None,
        started_at: Some(held.created_at),
        up_ms: None,
        ends_at: held.ends_at,
        disk_gb: Some(held.disk_gb),
        ssh: held.ssh.clone(),
        gpu_util: None,
    }
}

fn show(
    context: &Context,
    config: &Config,
    state: &State,
    name: &JobName,
    job: Option<&Job>,
    explained: Option<Explained>,
    events: &[Event],
) -> Done {
    let record = state.job(name);
    let budget = job.and_then(|job| job.budget.total);
    let now = explained.as_ref().map_or(context.now(), |e| e.now);
    let document = ExplainDocument {
        at: now.to_string(),
        wish: words::wish(record.wish),
        spend_dollars: state.spent(name).decimal(),
        budget_dollars: budget.map(Money::decimal),
        on_demand_equivalent_dollars: record.on_demand_equivalent.decimal(),
        report: explained.as_ref().map(|e| plan::reasons(&e.report, e.now)),
        events: events.iter().map(event_document).collect(),
    };
    context.output.show(&document, || {
        let mut text = format!(
            "{name}: spent {:.2}{}; the same on-demand would have cost {:.2}\n",
            state.spent(name),
            budget.map_or_else(String::new, |budget| format!(" of {budget:.2}")),
            record.on_demand_equivalent
        );
        for held in state.held.values().filter(|h| h.replica.job == *name) {
            text.push_str(&held_line(held, now));
        }
        if let Some(explained) = &explained {
            let seen = daemon::look(&config.database);
            let is_done = seen.runs && seen.is_live() != Some(false);
            text.push_str(&show_plan::job_text(
                context.output,
                &explained.report,
                explained.now,
                (SLOTS_SHOWN, is_done),
            ));
            if !is_done {
                text.push_str(&would_do(&explained.plan, seen.runs));
            }
        }
        if !events.is_empty() {
            text.push_str("what happened last\n");
            for event in events {
                text.push_str(&format!("  {} {}\n", event.at, event.text));
            }
        }
        text
    })?;
    Ok(Exit::Success)
}

/// What would be done, and why it is not.
fn would_do(plan: &Plan, runs: bool) -> String {
    let mut text = String::new();
    for action in &plan.actions {
        let (effect, why) = (plan::effect_text(&action.effect), words::why(action.why));
        text.push_str(&format!("  would {effect}: {why}\n"));
    }
    if plan.actions.is_empty() {
        return text;
    }
    text.push_str(if runs {
        "the daemon makes a dry run, so nothing of this is done; `haggle run --live` does it\n"
    } else {
        "no daemon runs, so nothing of this is done; start `haggle run`\n"
    });
    text
}

fn held_line(held: &Held, now: Time) -> String {
    // What is told of one that has not run yet.
    let told = held
        .coming_up
        .as_ref()
        .and_then(|view| view.message.as_ref());
    let told = told.map_or_else(String::new, |message| format!(", \"{message}\""));
    format!(
        "  instance {} of {}: {} for {}, {}x {} on machine {}, {} at {:.4}/h{told}\n",
        held.id,
        held.replica,
        held_word(held),
        human(now.since(held.phase_since)),
        held.slot.gpus,
        held.gpu_name,
        held.slot.machine,
        held.rental.as_str(),
        held.price
    )
}

fn event_document(event: &Event) -> EventDocument {
    EventDocument {
        at: event.at.to_string(),
        kind: event.kind.clone(),
        replica: event.replica.as_ref().map(ToString::to_string),
        instance: event.instance.map(|id| id.0),
        text: event.text.clone(),
    }
}
