//! `haggle restore`: puts a copy back in the database's place.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::backup::{CopyDocument, told};
use super::context::Context;
use super::failure::{Done, Exit, Failure};
use crate::daemon::older::RESTORED;
use crate::store::{DaemonLock, LockError, restore};

/// Which copy.
#[derive(Args, Clone, Debug)]
pub(crate) struct RestoreArgs {
    /// The copy, as `haggle backup` made it.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Serialize)]
struct RestoreDocument {
    #[serde(flatten)]
    copy: CopyDocument,
    database: String,
    set_aside: Option<String>,
}

pub(crate) fn run(context: &Context, args: &RestoreArgs) -> Done {
    let config = context.config()?;
    let lock = DaemonLock::acquire(&config.database).map_err(|error| {
        let held = matches!(error, LockError::Held { .. });
        let failure = Failure::new(Exit::Mendable, error.into());
        if held {
            failure.hint("stop it first: it would go on writing to the database that is set aside")
        } else {
            failure.hint("the database's directory has to be there, and writable")
        }
    })?;
    let word = format!("it was restored from {}", args.file.display());
    let restored = restore(&args.file, &config.database, &lock, (RESTORED, &word))
        .map_err(|error| Failure::from(error).context("nothing was restored"))?;
    let set_aside = restored.aside.map(|path| path.display().to_string());
    let document = RestoreDocument {
        copy: CopyDocument::new(&args.file, &restored.contents),
        database: config.database.display().to_string(),
        set_aside: set_aside.clone(),
    };
    context.output.show(&document, || {
        let mut text = format!(
            "{} is now {}: {}\n",
            config.database.display(),
            args.file.display(),
            told(&restored.contents)
        );
        if let Some(aside) = &set_aside {
            text.push_str(&format!("what was there before is kept as {aside}\n"));
        }
        text.push_str(
            "the next daemon compares it with the account's instances and bill before it rents \
             anything",
        );
        text
    })?;
    Ok(Exit::Success)
}
