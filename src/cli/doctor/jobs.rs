//! The policies: whether there are any, whether they can be used, and what their jobs wait for.

use super::findings::{Findings, Health};
use crate::cli::check::{HEAR_ADVICE, SHARE_ADVICE, unheard, withheld, without_secrets};
use crate::cli::context::{Context, load_policies};
use crate::config::Config;
use crate::policy::LoadedJob;
use crate::types::state::{State, Wish};

/// Looks at the directory, and gives the jobs that can be used.
pub(super) fn policies(
    context: &Context,
    config: &Config,
    findings: &mut Findings,
) -> Vec<LoadedJob> {
    let loaded = match load_policies(config) {
        Ok(loaded) => loaded,
        Err(failure) => {
            findings.advise(
                "policies",
                Health::Fail,
                super::findings::line(&failure),
                "name the directory with --policies, or write a first policy with `haggle init`",
            );
            return Vec::new();
        }
    };
    let valid = loaded.jobs.len();
    match loaded.errors.first() {
        Some(error) => findings.advise(
            "policies",
            Health::Fail,
            format!(
                "{valid} valid, {} errors: {}:{}: {}",
                loaded.errors.len(),
                error.file(),
                error.line(),
                error.message()
            ),
            "`haggle check` shows each with its place",
        ),
        None if valid == 0 => findings.advise(
            "policies",
            Health::Warn,
            format!("none in {}", config.policies.display()),
            "write a first one with `haggle init`",
        ),
        None => findings.ok("policies", format!("{valid} valid")),
    }
    if let Some(waiting) = withheld(config, &loaded.jobs) {
        findings.advise("secrets", Health::Warn, waiting, SHARE_ADVICE);
    }
    if let Some(waiting) = unheard(config, &loaded.jobs) {
        findings.advise("runner", Health::Warn, waiting, HEAR_ADVICE);
    }
    for unread in without_secrets(&context.redactor, &loaded.jobs) {
        findings.add("secrets", Health::Warn, unread);
    }
    loaded.jobs
}

/// Jobs that have a policy and do not run because somebody said so, which is easily forgotten.
pub(super) fn paused(state: Option<&State>, jobs: &[LoadedJob], findings: &mut Findings) {
    let Some(state) = state else {
        return;
    };
    for loaded in jobs {
        let name = &loaded.job.name;
        let wish = state.jobs.get(name).map(|record| record.wish);
        let found = match wish {
            Some(Wish::Pause) => format!("{name} is paused; its disks are kept, and billed"),
            Some(Wish::Stop) => format!("{name} is stopped"),
            Some(Wish::Run | Wish::Done) | None => continue,
        };
        findings.advise(
            "paused",
            Health::Warn,
            found,
            format!("`haggle resume {name}` lets it go on, `haggle done {name}` ends it"),
        );
    }
}
