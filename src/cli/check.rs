//! `haggle check`: every error of every policy, with the place and what would be right.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use serde::Serialize;

use super::check_inputs::{self, InputDocument};
use super::context::{Context, load_policies};
use super::failure::{Done, Exit, OrFail};
use super::show_limits;
use super::sources::SystemSecrets;
use crate::config::Config;
use crate::daemon::unreadable_secrets;
use crate::marketplace::redact::Redactor;
use crate::policy::{self, LoadedJob, PolicyError};
use crate::types::ledger::Scope;

/// Checks policies.
#[derive(Args, Clone, Debug)]
pub(crate) struct CheckArgs {
    /// Files to check, or directories of them; without any, every policy of the configured one.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, Serialize)]
struct ErrorDocument {
    file: String,
    line: usize,
    column: usize,
    message: String,
    help: Option<String>,
}

#[derive(Debug, Serialize)]
struct JobDocument {
    file: String,
    job: String,
}

#[derive(Debug, Serialize)]
struct CheckDocument {
    valid: Vec<JobDocument>,
    errors: Vec<ErrorDocument>,
    warnings: Vec<String>,
    /// The jobs' inputs that lie on this machine.
    inputs: Vec<InputDocument>,
    /// What of the jobs' spending no limit covers ahead of time.
    not_covered: Vec<String>,
}

/// What lets jobs run that need secrets.
pub(crate) const SHARE_ADVICE: &str = "provider.share_job_secrets = true lets the gateway, a third party, see them; \
     provider.kind = \"vast\" needs no third party";

/// Which jobs wait because their secrets may not go through the gateway, if any do.
pub(crate) fn withheld(config: &Config, jobs: &[LoadedJob]) -> Option<String> {
    let waiting: Vec<&str> = jobs
        .iter()
        .filter(|loaded| config.provider.withholds_secrets() && loaded.job.run.has_secrets())
        .map(|loaded| loaded.job.name.as_str())
        .collect();
    (!waiting.is_empty()).then(|| {
        format!(
            "not rented, for they need secrets, which may not go through the gateway: {}",
            waiting.join(", ")
        )
    })
}

/// What lets supervised jobs run.
pub(crate) const HEAR_ADVICE: &str =
    "provider.kind = \"vast\" shows logs; or give the command without run.supervised";

/// Which jobs wait because the gateway shows no logs, by which their runners are heard, if any do.
pub(crate) fn unheard(config: &Config, jobs: &[LoadedJob]) -> Option<String> {
    let engine = config.engine();
    let waiting: Vec<&str> = jobs
        .iter()
        .filter(|loaded| engine.shows_no_logs && loaded.job.run.runner.is_some())
        .map(|loaded| loaded.job.name.as_str())
        .collect();
    (!waiting.is_empty()).then(|| {
        format!(
            "not rented, for they are supervised, and the gateway shows no logs, by which a runner is \
             heard: {}",
            waiting.join(", ")
        )
    })
}

/// Which secrets of jobs cannot be read from here: which job's, where they were looked for, and what
/// would be right.
pub(crate) fn without_secrets(redactor: &Arc<Redactor>, jobs: &[LoadedJob]) -> Vec<String> {
    let secrets = SystemSecrets(Arc::clone(redactor));
    jobs.iter()
        .filter_map(|loaded| {
            let what = unreadable_secrets(&secrets, &loaded.job.run)?;
            Some(format!(
                "`{}` is not rented by a daemon that sees what is seen here: {what}",
                loaded.job.name
            ))
        })
        .collect()
}

/// Jobs that work whatever happens to haggle.
fn unfenced(jobs: &[LoadedJob]) -> Vec<String> {
    let is_unfenced = |loaded: &&LoadedJob| {
        let runner = loaded.job.run.runner.as_ref();
        runner.is_some_and(|runner| runner.lease.is_none())
    };
    jobs.iter()
        .filter(is_unfenced)
        .map(|loaded| {
            format!(
                "`{}` has run.fenced = false: an instance of its works, and is billed, on and on when \
                 haggle is gone, and beside the one that took its place",
                loaded.job.name
            )
        })
        .collect()
}

/// Arrays whose elements each leave a disk behind.
fn keeping_disks(jobs: &[LoadedJob]) -> Vec<String> {
    let keeps = |loaded: &&LoadedJob| loaded.job.array.is_some() && !loaded.job.may_lose_disks();
    jobs.iter()
        .filter(keeps)
        .map(|loaded| {
            let name = &loaded.job.name;
            format!(
                "each of the {} elements of `{name}` that has ended leaves its disk behind, which is billed, \
                 and counts as an instance, until `haggle done {name}` ends them all; [data.storage] with \
                 `data.checkpoint` and `data.outputs`, or data.disposable = true, lets each go at its end",
                loaded.job.replicas
            )
        })
        .collect()
}

/// Limits of owners and tags that no policy has.
fn unmatched(config: &Config, jobs: &[LoadedJob]) -> Vec<String> {
    let scopes: BTreeSet<Scope> = jobs
        .iter()
        .flat_map(|loaded| {
            let payer = loaded.job.payer();
            Scope::of(&loaded.job.name, &payer).collect::<Vec<_>>()
        })
        .collect();
    let groups = config.limits.groups.keys();
    groups
        .filter(|scope| !scopes.contains(scope))
        .map(|scope| {
            let name = scope.to_string().replacen('/', ".", 1);
            format!("[limits.{name}] bounds nothing: no policy has that name")
        })
        .collect()
}

pub(crate) fn run(context: &Context, args: &CheckArgs) -> Done {
    let (jobs, errors) = load(context, args)?;
    // Files can be checked without a configuration that can be used.
    let config = context.config().ok();
    let of_gateway = |of: fn(&Config, &[LoadedJob]) -> Option<String>| {
        config.as_ref().and_then(|config| of(config, &jobs))
    };
    let by_gateway: Vec<(String, &str)> = [
        of_gateway(withheld).map(|warning| (warning, SHARE_ADVICE)),
        of_gateway(unheard).map(|warning| (warning, HEAR_ADVICE)),
    ]
    .into_iter()
    .flatten()
    .collect();
    // Only the whole directory says which names no policy has.
    let unmatched = config
        .filter(|_| args.files.is_empty() && errors.is_empty())
        .map_or_else(Vec::new, |config| unmatched(&config, &jobs));
    let (inputs, not_there) = check_inputs::look(&jobs);
    let secrets = without_secrets(&context.redactor, &jobs);
    let of_jobs = [unfenced(&jobs), keeping_disks(&jobs), not_there, secrets].concat();
    for warning in unmatched.iter().chain(&of_jobs) {
        context.output.note(&format!("warning: {warning}"));
    }
    for input in &inputs {
        context.output.note(&input.text());
    }
    for (warning, advice) in &by_gateway {
        context
            .output
            .note(&format!("warning: {warning}\nhint: {advice}"));
    }
    let document = CheckDocument {
        valid: jobs
            .iter()
            .map(|loaded| JobDocument {
                file: loaded.path.display().to_string(),
                job: loaded.job.name.to_string(),
            })
            .collect(),
        errors: errors
            .iter()
            .map(|error| ErrorDocument {
                file: error.file().to_owned(),
                line: error.line(),
                column: error.column(),
                message: error.message().to_owned(),
                help: error.help().map(|help| help.to_string()),
            })
            .collect(),
        warnings: by_gateway
            .into_iter()
            .map(|(warning, _)| warning)
            .chain(unmatched)
            .chain(of_jobs)
            .collect(),
        inputs,
        not_covered: jobs
            .iter()
            .filter_map(|loaded| show_limits::uncovered(&loaded.job))
            .collect(),
    };
    context
        .output
        .show(&document, || text(context, &jobs, &errors))?;
    Ok(if errors.is_empty() {
        Exit::Success
    } else {
        Exit::Mendable
    })
}

fn load(
    context: &Context,
    args: &CheckArgs,
) -> Result<(Vec<LoadedJob>, Vec<PolicyError>), super::failure::Failure> {
    if args.files.is_empty() {
        let config = context.config()?;
        let loaded = load_policies(&config)?;
        return Ok((loaded.jobs, loaded.errors));
    }
    let mut jobs = Vec::new();
    let mut errors = Vec::new();
    for path in &args.files {
        if path.is_dir() {
            let loaded = policy::load_dir(path);
            jobs.extend(loaded.jobs);
            errors.extend(loaded.errors);
            continue;
        }
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).or_mendable(format!("cannot read {name}"))?;
        match policy::parse(&name, &text) {
            Ok(job) => jobs.push(LoadedJob {
                path: path.clone(),
                job,
            }),
            Err(found) => errors.extend(found),
        }
    }
    Ok((jobs, errors))
}

fn text(context: &Context, jobs: &[LoadedJob], errors: &[PolicyError]) -> String {
    let mut text = String::new();
    for error in errors {
        text.push_str(&report(context, error));
        text.push('\n');
    }
    for loaded in jobs {
        text.push_str(&format!(
            "ok: {} ({})\n",
            loaded.path.display(),
            loaded.job.name
        ));
    }
    for uncovered in jobs.iter().filter_map(|l| show_limits::uncovered(&l.job)) {
        text.push_str(&format!("not covered by limits: {uncovered}\n"));
    }
    match (jobs.len(), errors.len()) {
        (0, 0) => text.push_str("no policies; write a first one with `haggle init`\n"),
        (_, 0) => {}
        (_, 1) => text.push_str("1 error\n"),
        (_, count) => text.push_str(&format!("{count} errors\n")),
    }
    text
}

/// Narrow enough for a terminal of the usual width.
const REPORT_WIDTH: usize = 100;

fn report(context: &Context, error: &PolicyError) -> String {
    let theme = if context.output.is_styled() {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(REPORT_WIDTH)
        .with_links(false);
    let mut text = String::new();
    match handler.render_report(&mut text, error) {
        Ok(()) => text,
        // The place and the message say it too.
        Err(_) => format!(
            "{}:{}:{}: {}\n",
            error.file(),
            error.line(),
            error.column(),
            error.message()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_no_lease_is_warned_of() {
        let job = |lines: &str| {
            let text = format!(
                "name = \"a\"\n[price]\nmax = \"$1/gpu-hour\"\n[run]\nimage = \"x\"\ncommand = \"c\"\n{lines}"
            );
            LoadedJob {
                path: PathBuf::from("a.toml"),
                job: policy::parse("a.toml", &text).unwrap(),
            }
        };
        let plain = job("");
        let fenced = job("supervised = true\n");
        let free = job("supervised = true\nfenced = false\n");
        assert_eq!(unfenced(&[plain, fenced]), Vec::<String>::new());
        let told = unfenced(&[free]);
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("`a` has run.fenced = false"), "{told:?}");
    }

    #[test]
    fn a_secret_that_cannot_be_read_is_warned_of_by_job_name_and_place() {
        let text = "name = \"a\"\n[price]\nmax = \"$1/gpu-hour\"\n[run]\nimage = \"x\"\n\
                    secrets = { HF_TOKEN = { env = \"HAGGLE_TEST_NOWHERE\" } }\n";
        let job = LoadedJob {
            path: PathBuf::from("a.toml"),
            job: policy::parse("a.toml", text).unwrap(),
        };
        let told = without_secrets(&Arc::default(), &[job]);
        assert_eq!(told.len(), 1);
        for part in [
            "`a` is not rented",
            "`run.secrets.HF_TOKEN`",
            "the environment variable HAGGLE_TEST_NOWHERE is not set",
            "set it where `haggle run` is started",
        ] {
            assert!(told[0].contains(part), "{part}: {told:?}");
        }
    }

    #[test]
    fn a_small_array_whose_disks_stay_is_warned_of() {
        let job = |lines: &str| {
            let text = format!(
                "name = \"a\"\n{lines}\n[price]\nmax = \"$1/gpu-hour\"\n[run]\nimage = \"x\"\n\
                 supervised = true\ncommand = \"c\"\n"
            );
            LoadedJob {
                path: PathBuf::from("a.toml"),
                job: policy::parse("a.toml", &text).unwrap(),
            }
        };
        let array = "[array]\nmax_running = 1\nvalues = [{ a = 1 }, { a = 2 }]";
        let free = job(&format!("{array}\n[data]\ndisposable = true"));
        assert_eq!(keeping_disks(&[job(""), free]), Vec::<String>::new());
        let told = keeping_disks(&[job(array)]);
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("the 2 elements of `a`"), "{told:?}");
    }
}
