//! `haggle completions`: a script by which a shell completes commands.

use clap::Args;
use clap_complete::Shell;

use super::command;
use super::context::Context;
use super::failure::{Done, Exit};

/// Prints a completion script.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn run(context: &Context, args: &CompletionsArgs) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "haggle", &mut script);
    context.output.bytes(&script)?;
    Ok(Exit::Success)
}
