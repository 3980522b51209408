//! `haggle instances`: what is rented, how to reach it, what it costs.

use clap::Args;
use serde::Serialize;

use super::clock::ClockArgs;
use super::context::{Context, load_policies, open_reader};
use super::daemon;
use super::failure::{Done, Exit};
use super::output::Align;
use crate::types::instance::Held;

use crate::types::time::{Time, human};
use crate::view::instances::{InstanceDocument, has_shell, instance, ssh_command};
use crate::view::jobs::held_word;
use crate::view::words;

/// Ended instances shown with `--all`.
const ENDED_SHOWN: u32 = 100;

/// Shows what is rented.
#[derive(Args, Clone, Debug)]
pub(crate) struct InstancesArgs {
    /// Show instances that are gone too, the last hundred.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    clock: ClockArgs,
}

#[derive(Debug, Serialize)]
struct InstancesDocument {
    instances: Vec<InstanceDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<Vec<InstanceDocument>>,
}

pub(crate) fn run(context: &Context, args: &InstancesArgs) -> Done {
    let config = context.config()?;
    let context = &args.clock.of(context, &config.provider)?;
    let reader = open_reader(&config)?;
    daemon::note_trouble(context, &config);
    let mut held: Vec<Held> = reader.state()?.held.into_values().collect();
    let loaded = if config.policies.is_dir() {
        load_policies(&config)?
    } else {
        crate::policy::Loaded::default()
    };
    let job_of = |held: &Held| {
        let mut jobs = loaded.jobs.iter().map(|loaded| &loaded.job);
        jobs.find(|job| job.name == held.replica.job)
    };
    for held in &mut held {
        if !has_shell(held, job_of(held)) {
            held.ssh = None;
        }
    }
    let ended = if args.all {
        reader.ended(ENDED_SHOWN)?
    } else {
        Vec::new()
    };
    let document = InstancesDocument {
        instances: held
            .iter()
            .map(|held| instance(held, job_of(held), None))
            .collect(),
        ended: args.all.then(|| {
            ended
                .iter()
                .map(|ended| instance(&ended.held, None, Some(ended.at)))
                .collect()
        }),
    };
    let now = context.now();
    context.output.show(&document, || {
        let mut text = if held.is_empty() {
            "nothing is rented".to_owned()
        } else {
            table(context, &held, now)
        };
        if !ended.is_empty() {
            text.push_str("\n\n");
            text.push_str(&ended_table(context, &ended));
        }
        text
    })?;
    Ok(Exit::Success)
}

fn table(context: &Context, held: &[Held], now: Time) -> String {
    let columns = [
        ("instance", Align::Right),
        ("replica", Align::Left),
        ("status", Align::Left),
        ("for", Align::Right),
        ("machine", Align::Right),
        ("gpus", Align::Left),
        ("rental", Align::Left),
        ("price/h", Align::Right),
        ("spent", Align::Right),
        ("shell", Align::Left),
    ];
    let rows = held
        .iter()
        .map(|held| {
            vec![
                held.id.to_string(),
                held.replica.to_string(),
                held_word(held).into(),
                human(now.since(held.phase_since)),
                held.slot.machine.to_string(),
                format!("{}x {}", held.slot.gpus, held.gpu_name),
                held.rental.as_str().into(),
                format!("{:.4}", held.price),
                format!("{:.2}", held.spent()),
                held.ssh
                    .as_deref()
                    .and_then(ssh_command)
                    .unwrap_or_else(|| "-".into()),
            ]
        })
        .collect();
    context.output.table(&columns, rows)
}

fn ended_table(context: &Context, ended: &[crate::store::Ended]) -> String {
    let columns = [
        ("gone", Align::Right),
        ("replica", Align::Left),
        ("ended", Align::Left),
        ("ran", Align::Right),
        ("machine", Align::Right),
        ("gpus", Align::Left),
        ("rental", Align::Left),
        ("price/h", Align::Right),
        ("spent", Align::Right),
        ("because", Align::Left),
    ];
    let rows = ended
        .iter()
        .map(|ended| {
            let held = &ended.held;
            let ran = u64::try_from(held.billed_ms).unwrap_or(0);
            vec![
                held.id.to_string(),
                held.replica.to_string(),
                ended.at.to_string(),
                human(std::time::Duration::from_millis(ran)),
                held.slot.machine.to_string(),
                format!("{}x {}", held.slot.gpus, held.gpu_name),
                held.rental.as_str().into(),
                format!("{:.4}", held.price),
                format!("{:.2}", held.spent()),
                held.destroying.map_or("-", words::destroy).into(),
            ]
        })
        .collect();
    context.output.table(&columns, rows)
}
