//! `haggle pause`, `resume`, `stop` and `done`: what the user wants of a job.
//!
//! A request is a row that the daemon takes up; so these work whether or not it runs.

use clap::Args;
use serde::Serialize;

use super::context::{Context, known_jobs, load_policies, no_database, open_reader, require_known};
use super::failure::{Done, Exit, Failure};
use crate::store::{DaemonLock, LockError, append_request};
use crate::types::ids::JobName;
use crate::types::state::{Ask, Wish};
use crate::view::words;

/// Names a job.
#[derive(Args, Clone, Debug)]
pub(crate) struct JobArg {
    /// The job.
    #[arg(value_name = "JOB")]
    pub(crate) job: JobName,
}

/// Resumes a job, or all.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct ResumeArgs {
    /// The job.
    #[arg(value_name = "JOB")]
    job: Option<JobName>,
    /// Every job that is paused or stopped, or could not be started; also allows spending again after `kill`.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Serialize)]
struct RequestDocument {
    request: i64,
    #[serde(flatten)]
    ask: Ask,
    daemon_running: bool,
}

pub(crate) fn run(context: &Context, job: &JobName, wish: Wish) -> Done {
    let config = context.config()?;
    if !config.database.exists() {
        return Err(no_database(&config));
    }
    let state = open_reader(&config)?.state()?;
    let loaded = config
        .policies
        .is_dir()
        .then(|| load_policies(&config))
        .transpose()?;
    require_known(job, &known_jobs(Some(&state), loaded.as_ref()))?;
    let ask = Ask::Job {
        job: job.clone(),
        wish,
    };
    let will = words::will(job, wish);
    ask_daemon(context, &ask, &will)
}

pub(crate) fn resume(context: &Context, args: &ResumeArgs) -> Done {
    match &args.job {
        Some(job) => run(context, job, Wish::Run),
        None => ask_daemon(context, &Ask::ResumeAll, words::WILL_RESUME_ALL),
    }
}

fn ask_daemon(context: &Context, ask: &Ask, will: &str) -> Done {
    let config = context.config()?;
    if !config.database.exists() {
        return Err(no_database(&config));
    }
    let request = append_request(&config.database, context.now(), ask)
        .map_err(|error| Failure::from(error).context("the request was not recorded"))?;
    let running = daemon_running(&config.database);
    let document = RequestDocument {
        request,
        ask: ask.clone(),
        daemon_running: running,
    };
    context.output.show(&document, || {
        if running {
            format!("{will}, at the daemon's next look (within seconds)")
        } else {
            format!("{will}, when a daemon runs: none does now (`haggle run`)")
        }
    })?;
    Ok(Exit::Success)
}

/// Whether a daemon works on this database.
pub(crate) fn daemon_running(database: &std::path::Path) -> bool {
    matches!(DaemonLock::acquire(database), Err(LockError::Held { .. }))
}
