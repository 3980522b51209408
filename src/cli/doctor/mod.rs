//! `haggle doctor`: is everything in order, and what would be right where it is not.
//!
//! It changes nothing and sends nobody anything but questions. `docs/troubleshooting.md` lists what it finds.

mod account;
mod disk;
mod findings;
mod here;
mod jobs;
mod limits;
mod reached;
mod registry;
mod there;

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::failure::{Done, Exit};
use super::output::Align;
use findings::{Finding, Findings, Health};

/// Looks whether everything is in order.
#[derive(Args, Clone, Debug)]
pub(crate) struct DoctorArgs {
    /// Ask nothing of the marketplace.
    #[arg(long)]
    offline: bool,
    /// Reckon the ledger again from its lines, and nothing else.
    #[arg(long)]
    ledger: bool,
}

#[derive(Debug, Serialize)]
struct DoctorDocument {
    healthy: bool,
    findings: Vec<Finding>,
}

pub(crate) fn run(context: &Context, args: &DoctorArgs) -> Done {
    if args.ledger {
        return super::ledger::run(context);
    }
    show(context, look(context, args.offline))
}

/// All that is found, in the order in which one thing hangs on another.
fn look(context: &Context, offline: bool) -> Vec<Finding> {
    let mut findings = Findings::default();
    let Some(config) = here::configuration(context, &mut findings) else {
        return findings.0;
    };
    let state = here::database(&config, &mut findings);
    let state = state.as_ref();
    here::daemon(&config, &mut findings);
    here::guard(&config, &mut findings);
    here::page(&config, &mut findings);
    here::installation(&config, state, &mut findings);
    let jobs = jobs::policies(context, &config, &mut findings);
    jobs::paused(state, &jobs, &mut findings);
    limits::look(&config, &jobs, &mut findings);
    here::secret_files(&config, &jobs, &mut findings);
    reached::channels(context, &config, offline, &mut findings);
    there::address(&config, &mut findings);
    if !offline {
        reached::storage(context, &jobs, &mut findings);
        registry::images(&jobs, &mut findings);
        there::marketplace(context, &config, state, &jobs, &mut findings);
    }
    findings.0
}

fn show(context: &Context, findings: Vec<Finding>) -> Done {
    let worst = findings.iter().map(|finding| finding.health).max();
    let exit = match worst {
        None | Some(Health::Ok | Health::Warn) => Exit::Success,
        Some(Health::Fail) => Exit::Mendable,
        Some(Health::Unreachable) => Exit::World,
    };
    let document = DoctorDocument {
        healthy: exit == Exit::Success,
        findings,
    };
    context.output.show(&document, || {
        let columns = [
            ("health", Align::Left),
            ("what", Align::Left),
            ("found", Align::Left),
        ];
        let rows = document
            .findings
            .iter()
            .map(|finding| {
                let health = match finding.health {
                    Health::Ok => "ok",
                    Health::Warn => "warn",
                    Health::Fail | Health::Unreachable => "fail",
                };
                vec![health.into(), finding.what.into(), finding.found.clone()]
            })
            .collect();
        let mut text = context.output.table(&columns, rows);
        for finding in &document.findings {
            if let Some(advice) = &finding.advice {
                text.push_str(&format!("\nhint: {}: {advice}", finding.what));
            }
        }
        text
    })?;
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use regex::Regex;
    use std::collections::BTreeSet;

    #[test]
    fn all_that_is_looked_at_is_in_the_documents() {
        let sources = [
            include_str!("account.rs"),
            include_str!("disk.rs"),
            include_str!("here.rs"),
            include_str!("jobs.rs"),
            include_str!("limits.rs"),
            include_str!("reached.rs"),
            include_str!("registry.rs"),
            include_str!("there.rs"),
        ];
        let named = Regex::new(r#"findings\s*\.(?:add|ok|advise|failed)\(\s*"([a-z ]+)""#).unwrap();
        let all: BTreeSet<&str> = sources
            .iter()
            .flat_map(|text| named.captures_iter(text))
            .map(|found| found.get(1).unwrap().as_str())
            .collect();
        assert!(all.len() > 25, "{all:?}");
        let page = include_str!("../../../docs/troubleshooting.md");
        let absent = all
            .iter()
            .filter(|what| !page.contains(&format!("`{what}`")));
        assert_eq!(absent.collect::<Vec<_>>(), [] as [&&str; 0]);
    }
}
