//! The command line: one file a command, output in text and JSON.
//!
//! Data goes to stdout and everything else to stderr. Exit codes: 0 as asked; 1 what the user can
//! mend; 2 the world's fault, or ours.

mod adapters;
mod api;
mod backtest;
mod backup;
mod bill;
mod check;
mod check_inputs;
mod clock;
mod completions;
mod connect;
mod context;
mod cp;
mod daemon;
mod demo;
mod doctor;
mod dry_run;
mod explain;
mod failure;
mod fetch;
mod guard;
mod history;
mod init;
mod instances;
mod jobs;
mod kill;
mod ledger;
mod logging;
mod logs;
mod man;
mod market;
mod notify;
mod output;
mod page;
mod plan;
mod reach;
mod receipt;
mod restore;
mod run;
mod schema;
mod scribe;
mod service;
mod sheet;
mod show_limits;
mod show_plan;
mod signals;
mod simulate;
mod sources;
mod spend;
mod ssh;
mod top;
mod winddown;
mod wish;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use context::{Context, Global};
use failure::{Done, Exit};

pub use simulate::play_adapters;

use crate::types::state::Wish;

/// Rents GPUs on the Vast.ai marketplace as cheaply as a job allows.
///
/// A policy file says what a job needs and what it may cost; the daemon finds the cheapest slot,
/// bids, follows the market, and stops at the limits.
#[derive(Debug, Parser)]
#[command(name = "haggle", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The two-minute look: an embedded market, the daemon and example policies, on play money.
    Demo(demo::DemoArgs),
    /// Run the daemon; metrics and health are served, on 127.0.0.1:9464 by default.
    Run(run::RunArgs),
    /// Show what one tick would do, and why; changes nothing.
    Plan,
    /// Show the slots that jobs could take, with every part of the price.
    Offers(plan::OffersArgs),
    /// Say why a job runs where it runs, waits, or was passed over.
    Explain(explain::ExplainArgs),
    /// Show what each job is doing and what it has cost.
    Jobs(jobs::JobsArgs),
    /// Watch it live in a terminal: money, jobs, instances, and what happened.
    Top(top::TopArgs),
    /// Show what is rented, how to reach it, and what it costs.
    Instances(instances::InstancesArgs),
    /// Show what a job wrote, also after its machine is gone.
    Logs(logs::LogsArgs),
    /// Open a shell on the instance that runs a job, or run a command there.
    Ssh(ssh::SshArgs),
    /// Copy files to or from the instance that runs a job.
    Cp(cp::CpArgs),
    /// Bring a job's outputs from storage to this machine, verified.
    Fetch(fetch::FetchArgs),
    /// Show what was spent.
    Spend(spend::SpendArgs),
    /// Show the marketplace's bill beside our own reckoning, by instance and day.
    Bill(bill::BillArgs),
    /// Show what a month came to: paid, saved, and lost to hosts that failed.
    Receipt(receipt::ReceiptArgs),
    /// Show what is known of a slot or of machines: prices as they changed, and what befell ours there.
    History(history::HistoryArgs),
    /// Park a job's bids and stop its instances; their disks are kept, and billed.
    Pause(wish::JobArg),
    /// Run a job again, or all.
    Resume(wish::ResumeArgs),
    /// Destroy a job's instances, and leave it down until it is resumed.
    Stop(wish::JobArg),
    /// Destroy a job's instances, for good.
    Done(wish::JobArg),
    /// The red button: destroy all that is ours, and forbid spending until `resume --all`.
    Kill(kill::KillArgs),
    /// Watch the daemon from outside: alert, or wind down, when it no longer ticks.
    Guard(guard::GuardArgs),
    /// Try the channels on which people are told.
    Notify(notify::NotifyArgs),
    /// Check policies: every error, with its place and what would be right.
    Check(check::CheckArgs),
    /// Write a commented policy to begin with.
    Init(init::InitArgs),
    /// Print the JSON Schema of a policy, for editors.
    Schema,
    /// Start the embedded marketplace as a server, to try everything on play money.
    Market(market::MarketArgs),
    /// Copy the database, whole and proven, whether or not the daemon runs.
    Backup(backup::BackupArgs),
    /// Put a copy back in the database's place; the present one is set aside.
    Restore(restore::RestoreArgs),
    /// Check this build's guarantees: the real daemon against a market with faults, over seeds.
    Simulate(simulate::SimulateArgs),
    /// Run deadline policies on recorded traces, beside the least that they could have cost.
    Backtest(backtest::BacktestArgs),
    /// Look whether everything is in order.
    Doctor(doctor::DoctorArgs),
    /// Run any operation of the marketplace by hand, or list them all.
    Api(api::ApiArgs),
    /// Print a script by which a shell completes commands.
    Completions(completions::CompletionsArgs),
    /// Write a page for `man` of each command.
    Man(man::ManArgs),
}

/// The command line as it is read, so that what documents say of it can be held against it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command that the arguments name, the program's own name first.
pub fn run<I, T>(args: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() {
                Exit::Mendable
            } else {
                Exit::Success
            };
            // Help and usage go where clap sends them; where that is closed, nobody reads.
            let _ = error.print();
            return exit.into();
        }
    };
    let context = Context::new(cli.global);
    let logging = logging::start(
        &context.global,
        matches!(cli.command, Command::Demo(_) | Command::Simulate(_)),
    );
    let done = match logging {
        // Nothing of the log may be in the red button's way.
        Err(failure) if !matches!(cli.command, Command::Kill(_)) => Err(failure),
        _ => dispatch(&context, cli.command),
    };
    done.unwrap_or_else(|failure| output::failed(&failure))
        .into()
}

fn dispatch(context: &Context, command: Command) -> Done {
    match command {
        Command::Demo(args) => demo::run(context, &args),
        Command::Run(args) => run::run(context, &args),
        Command::Plan => plan::plan(context),
        Command::Offers(args) => plan::offers(context, &args),
        Command::Explain(args) => explain::run(context, &args),
        Command::Jobs(args) => jobs::run(context, &args),
        Command::Top(args) => top::run(context, &args),
        Command::Instances(args) => instances::run(context, &args),
        Command::Logs(args) => logs::run(context, &args),
        Command::Ssh(args) => ssh::run(context, &args),
        Command::Cp(args) => cp::run(context, &args),
        Command::Fetch(args) => fetch::run(context, &args),
        Command::Spend(args) => spend::run(context, &args),
        Command::Bill(args) => bill::run(context, &args),
        Command::Receipt(args) => receipt::run(context, &args),
        Command::History(args) => history::run(context, &args),
        Command::Pause(arg) => wish::run(context, &arg.job, Wish::Pause),
        Command::Resume(args) => wish::resume(context, &args),
        Command::Stop(arg) => wish::run(context, &arg.job, Wish::Stop),
        Command::Done(arg) => wish::run(context, &arg.job, Wish::Done),
        Command::Kill(args) => kill::run(context, &args),
        Command::Guard(args) => guard::run(context, &args),
        Command::Notify(args) => notify::run(context, &args),
        Command::Check(args) => check::run(context, &args),
        Command::Init(args) => init::run(context, &args),
        Command::Schema => schema::run(context),
        Command::Market(args) => market::run(context, &args),
        Command::Backup(args) => backup::run(context, &args),
        Command::Restore(args) => restore::run(context, &args),
        Command::Simulate(args) => simulate::run(context, &args),
        Command::Backtest(args) => backtest::run(context, &args),
        Command::Doctor(args) => doctor::run(context, &args),
        Command::Api(args) => api::run(context, &args),
        Command::Completions(args) => completions::run(context, &args),
        Command::Man(args) => man::run(context, &args),
    }
}
