//! `haggle plan` and `haggle offers`: a look at the market as it is now. Nothing is changed.

use std::num::NonZeroUsize;
use std::sync::Arc;

use clap::Args;
use secrecy::SecretString;
use serde::Serialize;

use super::context::{
    Context, Patience, block_on, known_jobs, load_policies, open_reader, require_known,
};
use super::failure::{Done, Exit, Failure};
use super::show_plan;
use super::sources::{Aside, OnlyJob, PolicyDirectory, SystemSecrets};
use crate::config::Config;
use crate::daemon::{Daemon, Pace, Parts, Settings};
use crate::engine::rank::{MarketIndex, rank};
use crate::types::ids::JobName;
use crate::types::job::Job;
use crate::types::plan::{JobReport, Plan, Report};
use crate::types::world::World;
use crate::view::plan::{self, ReasonsDocument};

/// Shows the slots that jobs could take.
#[derive(Args, Clone, Debug)]
pub(crate) struct OffersArgs {
    /// The job; without it, all.
    #[arg(value_name = "JOB")]
    job: Option<JobName>,
    /// How many slots to show of each job.
    #[arg(long, value_name = "N", default_value = "10")]
    limit: NonZeroUsize,
}

#[derive(Debug, Serialize)]
struct OffersDocument {
    at: String,
    offers_seen: usize,
    jobs: Vec<ReasonsDocument>,
}

/// A plan, with what of the jobs' spending no limit covers ahead of time.
#[derive(Debug, Serialize)]
struct DryPlan {
    #[serde(flatten)]
    plan: plan::PlanDocument,
    not_covered: Vec<String>,
}

pub(crate) fn plan(context: &Context) -> Done {
    let config = context.config()?;
    context.jobs(&config)?;
    let (world, plan, report) = look(context, &config, None)?;
    let uncovered: Vec<String> = world
        .jobs
        .iter()
        .filter_map(|job| super::show_limits::uncovered(job))
        .collect();
    let document = DryPlan {
        plan: plan::plan_document(&plan, &report, world.now),
        not_covered: uncovered.clone(),
    };
    context.output.show(&document, || {
        let text = show_plan::plan_text(context.output, &plan, &report, world.now);
        let mut text = format!("What a tick would do now; nothing was changed.\n\n{text}");
        for line in &uncovered {
            text.push_str(&format!("\nnot covered by limits: {line}\n"));
        }
        text
    })?;
    Ok(Exit::Success)
}

pub(crate) fn offers(context: &Context, args: &OffersArgs) -> Done {
    let config = context.config()?;
    let jobs = context.jobs(&config)?;
    if let Some(job) = &args.job {
        let loaded = load_policies(&config)?;
        require_known(job, &known_jobs(None, Some(&loaded)))?;
        if !jobs.iter().any(|known| known.name == *job) {
            return Err(
                Failure::mendable(format!("the policy of {job} cannot be used"))
                    .hint("`haggle check` says why"),
            );
        }
    }
    let (world, _, _) = look(context, &config, args.job.as_ref())?;
    let index = MarketIndex::new(&world);
    let reports: Vec<JobReport> = jobs
        .iter()
        .filter(|job| args.job.as_ref().is_none_or(|name| job.name == *name))
        .map(|job| ranking(&world, job, &index, args.limit.get()))
        .collect();
    let document = OffersDocument {
        at: world.now.to_string(),
        offers_seen: world.market.offers.len(),
        jobs: reports
            .iter()
            .map(|report| plan::reasons(report, world.now))
            .collect(),
    };
    context.output.show(&document, || {
        let mut text = format!("{} offers seen\n", world.market.offers.len());
        for report in &reports {
            text.push_str(&format!("\n{}\n", report.job));
            text.push_str(&show_plan::slots_text(
                context.output,
                report,
                args.limit.get(),
            ));
        }
        text
    })?;
    Ok(Exit::Success)
}

/// How a job's slots rank, as a report without replicas.
pub(crate) fn ranking(
    world: &World,
    job: &Job,
    index: &MarketIndex<'_>,
    limit: usize,
) -> JobReport {
    let ranking = rank(world, job, index);
    let mut best = ranking.candidates;
    best.truncate(limit);
    JobReport {
        job: job.name.clone(),
        replicas: Vec::new(),
        eligible: ranking.eligible,
        best,
        refused: ranking.refused,
        best_refused: ranking.best_refused,
        on_demand_best: ranking.on_demand_best,
    }
}

/// Polls the marketplace once and decides, beside the database. Gives up where a read fails. With
/// `only`, that job alone is there: searches are few a minute, and those of others tell it nothing.
fn look(
    context: &Context,
    config: &Config,
    only: Option<&JobName>,
) -> Result<(World, Plan, Report), Failure> {
    context
        .output
        .progress("searching the market; the marketplace takes about ten searches a minute");
    let reader = config
        .database
        .exists()
        .then(|| open_reader(config))
        .transpose()?;
    let aside = Aside::new(reader.as_ref())?;
    let remembered = aside.state().wire.clone();
    let marketplace = context.connect(config, &remembered, Patience::GiveUp)?;
    let parts = Parts {
        marketplace,
        store: Box::new(aside),
        clock: context.clock.clone(),
        policies: Box::new(OnlyJob {
            directory: PolicyDirectory(config.policies.clone()),
            only: only.cloned(),
        }),
        run_secret: SecretString::from("a preview sends nothing"),
        secrets: Box::new(SystemSecrets(Arc::clone(&context.redactor))),
        observers: Vec::new(),
    };
    let settings = Settings {
        engine: config.engine(),
        live: false,
        pace: Pace::Every,
        seed: context.now().0.unsigned_abs(),
        looking: crate::daemon::Looking {
            instances_every: config.instances_every,
            history_every: config.history_every,
            history_kept: config.history_kept,
            ..crate::daemon::Looking::default()
        },
    };
    block_on(async {
        let mut daemon = Daemon::new(parts, settings)?;
        Ok(daemon.preview().await?)
    })
}
