//! `haggle fetch JOB`: brings what a job kept in storage to this machine, whole and verified.
//!
//! What a run kept is its host's word: the manifest must have the SHA-256 that the run told, and each
//! file the size and SHA-256 that the manifest says. Nothing is left in the destination otherwise.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::context::{Context, block_on, load_policies, open_reader};
use super::failure::{Done, Exit, Failure};
use super::output::Align;
use crate::config::{Config, resolve_secret};
use crate::storage::{Objects, Place, Sum, Tree, Turn, download};
use crate::types::ids::{IntentId, JobName};
use crate::types::job::{Parameters, SecretRef, Storage};
use crate::types::state::{ReplicaRecord, State};
use crate::view::which::Of;

/// Brings a job's outputs from storage to this machine.
#[derive(Args, Clone, Debug)]
pub(crate) struct FetchArgs {
    /// The job, or one of its replicas.
    #[arg(value_name = "JOB[/REPLICA]")]
    of: Of,
    /// Where to: a folder that is not there yet; the job's name by default. Of several replicas, and of
    /// an array, each gets a folder `r<number>` in it.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// The last checkpoint instead of the outputs; of a job that has not finished, too.
    #[arg(long)]
    checkpoint: bool,
    /// Take at most so many gigabytes for each replica, archive and files together.
    #[arg(long, value_name = "GB", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    most_gb: u64,
}

/// What was brought, for programs.
#[derive(Debug, Serialize)]
struct FetchedDocument {
    replica: String,
    /// The parameters of an element of an array.
    parameters: Option<Parameters>,
    run: String,
    /// The SHA-256 of the manifest.
    manifest: String,
    files: u64,
    bytes: u64,
    /// Links and the like, which are not brought.
    left_out: u64,
    directory: String,
}

/// One tree in storage.
struct Kept {
    record: ReplicaRecord,
    run: IntentId,
    tree: Tree,
    manifest: Sum,
}

pub(crate) fn run(context: &Context, args: &FetchArgs) -> Done {
    let config = context.config()?;
    let state = open_reader(&config)?.state()?;
    let kept = all_kept(&state, args)?;
    let objects = objects(&config, &args.of.job)?;
    let root = match &args.into {
        Some(into) => into.clone(),
        None => PathBuf::from(args.of.job.to_string()),
    };
    let is_array =
        args.of.index.is_none() && kept.iter().any(|kept| kept.record.parameters.is_some());
    let several = kept.len() > 1 || is_array;
    if several {
        std::fs::create_dir(&root).map_err(|why| at(&root, &why))?;
    }
    let mut fetched = Vec::new();
    for kept in &kept {
        let into = if several {
            root.join(format!("r{}", kept.record.id.index))
        } else {
            root.clone()
        };
        fetched.push(fetch(context, args, &objects, kept, &into)?);
    }
    context.output.show(&fetched, || table(context, &fetched))?;
    Ok(Exit::Success)
}

fn at(path: &Path, why: &std::io::Error) -> Failure {
    let failure = Failure::mendable(format!("cannot make {}: {why}", path.display()));
    failure.hint("name a folder that is not there yet with --into")
}

/// What the replicas that are meant have in storage.
fn all_kept(state: &State, args: &FetchArgs) -> Result<Vec<Kept>, Failure> {
    let meant = state.replicas.values();
    let meant: Vec<_> = meant
        .filter(|record| args.of.includes(&record.id))
        .collect();
    let kept: Vec<Kept> = meant
        .iter()
        .filter_map(|record| kept_of(record, args.checkpoint))
        .collect();
    if !kept.is_empty() {
        return Ok(kept);
    }
    let failure = if meant.is_empty() {
        Failure::mendable(format!("nothing was ever rented for {}", args.of))
            .hint("`haggle jobs` lists what there is")
    } else if args.checkpoint {
        Failure::mendable(format!(
            "no run of {} has told of a checkpoint in storage",
            args.of
        ))
        .hint("checkpoints are kept where the policy has data.checkpoint and [data.storage]")
    } else {
        Failure::mendable(format!(
            "no run of {} has brought its outputs to storage",
            args.of
        ))
        .hint("they come at its end, where the policy has data.outputs and [data.storage]")
        .hint("`--checkpoint` brings the last checkpoint; `haggle cp` copies from an instance")
    };
    Err(failure)
}

fn kept_of(record: &ReplicaRecord, checkpoint: bool) -> Option<Kept> {
    let (run, tree, manifest) = if checkpoint {
        let kept = record.checkpoints.first()?;
        let tree = Tree::Checkpoint(Turn::from_slot(kept.slot)?);
        (kept.run, tree, &kept.manifest)
    } else {
        let kept = record.outputs.as_ref()?;
        (kept.run, Tree::Outputs, &kept.manifest)
    };
    Some(Kept {
        record: record.clone(),
        run,
        tree,
        manifest: manifest.parse().ok()?,
    })
}

/// The storage that the job's policy names.
fn objects(config: &Config, job: &JobName) -> Result<Objects, Failure> {
    let loaded = load_policies(config)?;
    let policy = loaded.jobs.iter().find(|loaded| loaded.job.name == *job);
    let Some(policy) = policy else {
        return Err(Failure::mendable(format!(
            "there is no policy of {job} that can be read, and it says where its data is"
        ))
        .hint(format!("put it back into {}", config.policies.display())));
    };
    let runner = policy.job.run.runner.as_ref();
    let Some(storage) = runner.and_then(|runner| runner.storage.as_ref()) else {
        return Err(
            Failure::mendable(format!("the policy of {job} has no [data.storage]"))
                .hint("what stays on an instance's disk is copied with `haggle cp`"),
        );
    };
    let place = place(storage)?;
    Objects::new(place).map_err(Failure::mendable)
}

fn place(storage: &Storage) -> Result<Place, Failure> {
    let key = |reference: &SecretRef| resolve_secret(reference).map_err(Failure::mendable);
    let (access, secret) = (key(&storage.access_key)?, key(&storage.secret_key)?);
    Place::new(storage, access, secret).map_err(Failure::mendable)
}

fn fetch(
    context: &Context,
    args: &FetchArgs,
    objects: &Objects,
    kept: &Kept,
    into: &Path,
) -> Result<FetchedDocument, Failure> {
    let keys = objects.place().keys(&kept.record.id, kept.run);
    let (told, most) = (Some(kept.manifest), args.most_gb * 1_000_000_000);
    let now = context.now();
    let unpacked = block_on(async {
        let done = download(objects, &keys, kept.tree, told, most, into, now).await;
        done.map_err(|error| {
            Failure::mendable(error).context(format!("nothing of {} was fetched", kept.record.id))
        })
    })?;
    let Some(unpacked) = unpacked else {
        let key = keys.manifest(kept.tree);
        let bucket = objects.place().bucket();
        return Err(Failure::mendable(format!(
            "{} told that it kept `{key}` in the bucket `{bucket}`, and it is not there",
            kept.record.id
        ))
        .hint("was [data.storage] changed since, or the bucket emptied?"));
    };
    Ok(FetchedDocument {
        replica: kept.record.id.to_string(),
        parameters: kept.record.parameters.clone(),
        run: kept.run.to_string(),
        manifest: kept.manifest.to_string(),
        files: unpacked.files,
        bytes: unpacked.bytes,
        left_out: unpacked.left_out,
        directory: into.display().to_string(),
    })
}

fn table(context: &Context, fetched: &[FetchedDocument]) -> String {
    let columns = [
        ("replica", Align::Left),
        ("files", Align::Right),
        ("bytes", Align::Right),
        ("left out", Align::Right),
        ("in", Align::Left),
        ("parameters", Align::Left),
    ];
    let is_array = fetched.iter().any(|one| one.parameters.is_some());
    let shown = columns.len() - usize::from(!is_array);
    let row = |one: &FetchedDocument| {
        let parameters = one.parameters.iter().flatten();
        let parameters: Vec<String> = parameters
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut row = vec![
            one.replica.clone(),
            one.files.to_string(),
            one.bytes.to_string(),
            one.left_out.to_string(),
            one.directory.clone(),
            parameters.join(" "),
        ];
        row.truncate(shown);
        row
    };
    let rows = fetched.iter().map(row).collect();
    context.output.table(&columns[..shown], rows)
}
