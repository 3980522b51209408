//! `haggle init`: writes a commented policy to begin with.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::failure::{Done, Exit, Failure, OrFail};
use crate::policy;
use crate::types::ids::JobName;

/// Writes a policy.
#[derive(Args, Clone, Debug)]
pub(crate) struct InitArgs {
    /// The file, which gives the job its name; without it, `my-job.toml` in the directory of the
    /// policies.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct InitDocument {
    file: String,
}

pub(crate) fn run(context: &Context, args: &InitArgs) -> Done {
    let path = match &args.file {
        Some(file) => file.clone(),
        None => context.config()?.policies.join("my-job.toml"),
    };
    // Of a name alone the directory is this one.
    if let Some(directory) = path.parent().filter(|parent| *parent != Path::new("")) {
        std::fs::create_dir_all(directory)
            .or_mendable(format!("cannot make the directory {}", directory.display()))?;
    }
    // Made only where nothing is: a policy that a job runs by is never overwritten.
    let mut file = File::create_new(&path).map_err(|error| {
        let exists = error.kind() == ErrorKind::AlreadyExists;
        let failure = Failure::new(Exit::Mendable, error.into())
            .context(format!("cannot write {}", path.display()));
        if exists {
            failure.hint("an existing file is never overwritten; name another")
        } else {
            failure
        }
    })?;
    file.write_all(example(&path).as_bytes())
        .and_then(|()| file.sync_all())
        .or_mendable(format!("cannot write {}", path.display()))?;
    let document = InitDocument {
        file: path.display().to_string(),
    };
    context.output.show(&document, || {
        format!(
            "wrote {}; edit it, then `haggle check`, then `haggle plan`",
            path.display()
        )
    })?;
    Ok(Exit::Success)
}

/// The example, its job named as the file is, where that is a name for a job.
fn example(path: &Path) -> String {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    match stem.and_then(|stem| stem.parse::<JobName>().ok()) {
        Some(name) => policy::example().replacen("\"my-job\"", &format!("\"{name}\""), 1),
        None => policy::example().to_owned(),
    }
}
