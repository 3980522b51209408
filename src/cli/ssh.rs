//! `haggle ssh JOB`: a shell on the instance that runs it, or one command there.

use std::ffi::OsString;

use clap::Args;

use super::context::Context;
use super::failure::Done;
use super::reach::{hand_over, reach};
use crate::view::which::Of;

/// Opens a shell on the instance that runs a job.
#[derive(Args, Clone, Debug)]
pub(crate) struct SshArgs {
    /// The job; with several replicas that run, one of them.
    #[arg(value_name = "JOB[/REPLICA]")]
    of: Of,
    /// Print the command and do not run it.
    #[arg(long)]
    print: bool,
    /// A command to run there, after `--`; without it, a shell. A shell there reads its words anew.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) fn run(context: &Context, args: &SshArgs) -> Done {
    let config = context.config()?;
    let reached = reach(&config, &args.of)?;
    let words = reached.address.ssh(&args.command);
    hand_over(context, &config, &reached, "ssh", &words, args.print)
}
