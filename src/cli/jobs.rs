//! `haggle jobs`: what each job is doing and what it has cost.

use std::collections::BTreeSet;

use clap::Args;
use serde::Serialize;

use super::clock::ClockArgs;
use super::context::{Context, load_policies, state_if_any};
use super::daemon;
use super::failure::{Done, Exit};
use super::output::Align;
use crate::engine::projection::first_breach;
use crate::policy::PolicyError;
use crate::types::ids::JobName;
use crate::types::job::Job;
use crate::types::money::Money;
use crate::types::plan::Situation;
use crate::types::state::State;
use crate::types::time::Time;
use crate::types::world::EngineConfig;
use crate::view::jobs::{JobDocument, document, is_closed};
use crate::view::limits;
use crate::view::rented::Rented;
use crate::view::words;

#[derive(Debug, Serialize)]
struct JobsDocument {
    spending_forbidden: bool,
    /// What cannot be rented by the way to the marketplace that is configured.
    kept_back: Vec<KeptBackDocument>,
    jobs: Vec<JobDocument>,
}

/// Shows jobs.
#[derive(Args, Clone, Debug)]
pub(crate) struct JobsArgs {
    #[command(flatten)]
    clock: ClockArgs,
}

/// A job for which nothing is rented, whatever the market has.
#[derive(Debug, Serialize)]
struct KeptBackDocument {
    job: String,
    why: &'static str,
    text: &'static str,
}

pub(crate) fn run(context: &Context, args: &JobsArgs) -> Done {
    let config = context.config()?;
    let context = &args.clock.of(context, &config.provider)?;
    daemon::note_trouble(context, &config);
    let state = state_if_any(&config)?;
    let loaded = if config.policies.is_dir() {
        load_policies(&config)?
    } else {
        crate::policy::Loaded::default()
    };
    context.note_broken(&loaded);
    if state.is_none() {
        context.output.note(&format!(
            "note: there is no database at {} yet; nothing has run",
            config.database.display()
        ));
    }
    let broken: BTreeSet<JobName> = loaded
        .errors
        .iter()
        .filter_map(PolicyError::job_name)
        .collect();
    let jobs: Vec<&Job> = loaded.jobs.iter().map(|loaded| &loaded.job).collect();
    let empty = State::new(crate::types::ids::Installation::from_seed(0));
    let state = state.unwrap_or(empty);
    let known = super::context::known_jobs(Some(&state), Some(&loaded));
    let now = context.now();
    let today = now.day(config.timezone);
    let engine = config.engine();
    let limits = limits::known(now, &engine, &jobs, &state);
    let rented = Rented::of(&state);
    let documents: Vec<JobDocument> = known
        .iter()
        .map(|name| {
            let job = jobs.iter().find(|job| job.name == *name).copied();
            let policy = match job {
                Some(_) => "valid",
                None if broken.contains(name) => "broken",
                None => "missing",
            };
            let breach = job.and_then(|job| first_breach(&engine, job, &limits));
            JobDocument {
                projected_breach_at: breach.map(|(_, at)| at.to_string()),
                projected_breach_limit: breach.map(|(limit, _)| limit.row.to_string()),
                breach_in: breach.map(|(_, at)| limits::until(now, at)),
                ..document(&rented, name, job, policy, (now, today))
            }
        })
        .collect();
    let killed = state.killed;
    let output = context.output;
    let document = JobsDocument {
        spending_forbidden: killed,
        kept_back: kept_back(&engine, &jobs),
        jobs: documents,
    };
    output.show(&document, || {
        let mut text = table(context, &document.jobs);
        for job in &document.jobs {
            if let Some(why) = &job.cannot_start {
                text.push_str(&format!(
                    "\n{} cannot start: {} (\"{}\"); {}",
                    job.job, why.what, why.message, why.help
                ));
            }
        }
        for one in &document.kept_back {
            text.push_str(&format!("\n{} is not rented: {}", one.job, one.text));
        }
        for job in jobs.iter().filter(|job| !killed && is_closed(job, now)) {
            text.push_str(&format!("\n{} {}", job.name, opens(job, now)));
        }
        if killed {
            text.push_str("\nspending is forbidden until `haggle resume --all`");
        }
        text
    })?;
    Ok(Exit::Success)
}

fn kept_back(engine: &EngineConfig, jobs: &[&Job]) -> Vec<KeptBackDocument> {
    let of = |job: &&Job| {
        let kept_back = engine.keeps_back(&job.run)?;
        Some(KeptBackDocument {
            job: job.name.to_string(),
            why: kept_back.as_str(),
            text: kept_back.text(),
        })
    };
    jobs.iter().filter_map(of).collect()
}

/// When a job's windows open next, in words.
fn opens(job: &Job, now: Time) -> String {
    let next = job
        .windows
        .iter()
        .filter_map(|window| window.next_opening(now));
    let situation = Situation::WindowClosed { opens: next.min() };
    format!("is {}", words::situation(&situation, now))
}

/// The status, and how far the command says that it is where there is one replica.
fn with_progress(job: &JobDocument) -> String {
    match &job.replicas[..] {
        [only] => match only.progress {
            Some(progress) => format!("{} at {progress}", job.status),
            None => job.status.clone(),
        },
        _ => job.status.clone(),
    }
}

fn table(context: &Context, jobs: &[JobDocument]) -> String {
    if jobs.is_empty() {
        return "no jobs; write a policy with `haggle init`".into();
    }
    let columns = [
        ("job", Align::Left),
        ("status", Align::Left),
        ("work", Align::Right),
        ("spent", Align::Right),
        ("today", Align::Right),
        ("budget", Align::Right),
        ("on-demand", Align::Right),
        ("now/h", Align::Right),
        ("limit", Align::Right),
    ];
    let dollars = |text: &str, places: usize| match text.parse::<Money>() {
        Ok(money) => format!("{money:.places$}"),
        Err(_) => text.to_owned(),
    };
    let rows = jobs
        .iter()
        .map(|job| {
            let done: f64 = job.work_done_gpu_hours.parse().unwrap_or(0.0);
            let work = match &job.work_gpu_hours {
                Some(all) => format!(
                    "{done:.1}/{} h",
                    all.trim_end_matches('0').trim_end_matches('.')
                ),
                None => format!("{done:.1} h"),
            };
            let budget = job.budget_dollars.as_deref();
            vec![
                job.job.clone(),
                with_progress(job),
                work,
                dollars(&job.spend_dollars, 2),
                dollars(&job.spend_today_dollars, 2),
                budget.map_or_else(|| "-".into(), |budget| dollars(budget, 2)),
                dollars(&job.on_demand_equivalent_dollars, 2),
                dollars(&job.burn_dollars_per_hour, 4),
                job.breach_in.clone().unwrap_or_else(|| "-".into()),
            ]
        })
        .collect();
    context.output.table(&columns, rows)
}

/// How long ago something was, for people.
pub(crate) fn ago(now: Time, then: Time) -> String {
    format!("{} ago", crate::types::time::human(now.since(then)))
}
