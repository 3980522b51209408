//! `haggle backup`: a copy of the database, made while the daemon may be writing it.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::context::{Context, no_database};
use super::failure::{Done, Exit, Failure};
use crate::store::{Contents, CopyError, back_up};

/// Where to, and whether over what is there.
#[derive(Args, Clone, Debug)]
pub(crate) struct BackupArgs {
    /// The copy; `<database>.backup-<time>` where none is named.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Overwrite a file that is there.
    #[arg(long)]
    force: bool,
}

/// What a copy holds, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct CopyDocument {
    /// The copy.
    pub(crate) file: String,
    installation: String,
    account: Option<u64>,
    schema_version: i64,
    ticks: u64,
    last_intent: Option<String>,
    instances: usize,
    unsettled_requests: usize,
    posted_dollars: String,
    bytes: u64,
}

impl CopyDocument {
    pub(crate) fn new(file: &Path, contents: &Contents) -> Self {
        Self {
            file: file.display().to_string(),
            installation: contents.installation.to_string(),
            account: contents.account.map(|account| account.0),
            schema_version: contents.schema,
            ticks: contents.ticks,
            last_intent: contents.last_intent.map(|intent| intent.to_string()),
            instances: contents.held,
            unsettled_requests: contents.open_intents,
            posted_dollars: contents.posted.decimal(),
            bytes: contents.bytes,
        }
    }
}

/// What a copy holds, for people.
pub(crate) fn told(contents: &Contents) -> String {
    format!(
        "installation {}, {} ticks, {} instances, {:.4} posted",
        contents.installation, contents.ticks, contents.held, contents.posted
    )
}

pub(crate) fn run(context: &Context, args: &BackupArgs) -> Done {
    let config = context.config()?;
    if !config.database.exists() {
        return Err(no_database(&config));
    }
    let file = args.file.clone().unwrap_or_else(|| {
        let mut name = config.database.clone().into_os_string();
        // Without colons, which some file systems do not take.
        let now = context.now().to_string().replace(':', "");
        name.push(format!(".backup-{now}"));
        PathBuf::from(name)
    });
    let contents = back_up(&config.database, &file, args.force)
        .map_err(|error| Failure::from(error).context("nothing was copied"))?;
    context
        .output
        .show(&CopyDocument::new(&file, &contents), || {
            format!("{}: {}", file.display(), told(&contents))
        })?;
    Ok(Exit::Success)
}

/// Whether a file is the log that SQLite keeps beside a database.
fn is_log(file: &Path) -> bool {
    let name = file.to_string_lossy();
    name.ends_with("-wal") || name.ends_with("-journal")
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Store(error) => error.into(),
            CopyError::Exists(ref file) if is_log(file) => Self::new(Exit::Mendable, error.into())
                .hint(
                    "it would be played into the copy; name another file, or remove it where it is \
                 nobody's",
                ),
            CopyError::Exists(_) => Self::new(Exit::Mendable, error.into())
                .hint("name another file, or add --force to overwrite it"),
            CopyError::Same(_) => Self::new(Exit::Mendable, error.into()).hint("name another file"),
            CopyError::Damaged { .. } => Self::new(Exit::World, error.into())
                .hint("keep it, and try an older copy; `haggle kill` works without a database"),
            CopyError::OtherInstallation { .. } => Self::new(Exit::Mendable, error.into()).hint(
                "instances of the one would be strangers to the other; name that installation's \
                 database with --database",
            ),
        }
    }
}
