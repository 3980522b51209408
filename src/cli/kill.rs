//! `haggle kill`: the red button. Destroys all that is ours, proves it gone, and forbids spending.
//!
//! It needs neither daemon nor database: a token and the installation are enough.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::clock::ClockChoice;
use super::context::{Context, Patience, block_on};
use super::failure::{Done, Exit, Failure};
use super::output::{self, Output};
use super::winddown::{WindDown, list, ours, show};
use super::wish::daemon_running;
use crate::config::Config;
use crate::ports::{Marketplace, ReadError};
use crate::store::{Reader, append_request, installation_file, read_installation, set_kill_file};
use crate::types::ids::{Installation, InstanceId};
use crate::types::state::{Ask, State};

/// Destroys everything of ours and forbids spending.
#[derive(Args, Clone, Debug)]
pub(crate) struct KillArgs {
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Whose instances; without it, as the database or the file beside it says.
    #[arg(long, value_name = "ID")]
    installation: Option<Installation>,
    /// How long to go on until everything is proven gone.
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = humantime::parse_duration)]
    within: Duration,
    /// Whose time it goes by: `market` follows a `haggle market` on this machine, however fast.
    #[arg(long, value_name = "WHOSE", default_value = "system")]
    clock: ClockChoice,
}

#[derive(Debug, Serialize)]
struct DestroyedDocument {
    instance: u64,
    label: String,
}

#[derive(Debug, Serialize)]
struct KillDocument {
    installation: String,
    account: Option<u64>,
    destroyed: Vec<DestroyedDocument>,
    instances_left: Vec<u64>,
    settled: bool,
    kill_file_written: bool,
    kill_recorded_in_database: bool,
    /// Whether a daemon that lives somewhere may not hear of it, and would rent again.
    daemon_elsewhere_would_rent: bool,
    daemon_running: bool,
}

pub(crate) fn run(context: &Context, args: &KillArgs) -> Done {
    let config = context
        .config_for_ending()
        .map_err(|failure| without_config(context, args, failure))?;
    let context = &args.clock.of(context, &config.provider)?;
    let state = read_state(context.output, &config.database);
    let installation = installation(args, &config, state.as_ref())?;
    // Nobody is asked, so spending is forbidden first, whatever comes of the rest: a daemon that lives and
    // hears of it destroys by itself what this cannot.
    let here = whose(&config.database, state.as_ref());
    let other = here.filter(|here| *here != installation);
    let recording = || record(context, &config.database, other.as_ref());
    let early = args.yes.then(recording);
    let after = |failure: Failure| in_vain(context.output, early.as_ref(), failure);
    let remembered = state.as_ref().map(|state| state.wire.clone());
    let marketplace = context
        .connect(&config, &remembered.unwrap_or_default(), Patience::Retry)
        .map_err(after)?;
    let clock = context.clock.clone();
    block_on(async {
        let account = account(&*marketplace, state.as_ref())
            .await
            .map_err(after)?;
        if state.is_none() {
            context.output.note(&told_account(account));
        }
        let known: BTreeSet<InstanceId> = state
            .iter()
            .filter(|state| state.installation == installation)
            .flat_map(|state| state.held.keys().copied())
            .collect();
        match marketplace.instances().await {
            Ok(listing) => {
                let ours = ours(&listing, &installation, &known);
                show(context.output, &installation, &ours, &listing);
                confirm(args, &installation, ours.len())?;
            }
            // It is tried again until the time is up, and what is known is asked for by its id.
            Err(error) if args.yes && !matches!(error, ReadError::Unauthorized { .. }) => {
                context
                    .output
                    .note(&format!("the instances cannot be listed now: {error}"));
            }
            Err(error) => {
                let doing = "the instances cannot be listed";
                return Err(after(Failure::from(error).context(doing)));
            }
        }
        let recorded = early.clone().unwrap_or_else(recording);
        let mut down = WindDown::new(
            &*marketplace,
            &*clock,
            context.output,
            &installation,
            &known,
        );
        let left = down.destroy_all(args.within).await;
        let document = KillDocument {
            installation: installation.to_string(),
            account,
            destroyed: down
                .touched()
                .iter()
                .map(|(id, label)| DestroyedDocument {
                    instance: id.0,
                    label: label.clone(),
                })
                .collect(),
            settled: left.as_ref().is_some_and(BTreeSet::is_empty),
            instances_left: left.iter().flatten().map(|id| id.0).collect(),
            kill_file_written: recorded.file,
            kill_recorded_in_database: recorded.database,
            daemon_elsewhere_would_rent: !recorded.is_heard(),
            daemon_running: daemon_running(&config.database),
        };
        warn_of_daemons(context.output, &recorded);
        finish(context.output, &document)
    })
}

/// Nothing was destroyed; what was achieved all the same.
fn in_vain(output: Output, early: Option<&Recorded>, failure: Failure) -> Failure {
    let mut so_far = "nothing was destroyed".to_owned();
    if let Some(recorded) = early {
        warn_of_daemons(output, recorded);
        if recorded.is_heard() {
            so_far.push_str(", and spending is forbidden until `haggle resume --all`");
        }
    }
    failure.context(so_far)
}

/// Where the configuration does not even say where the marketplace is, a daemon can still be told by the
/// file beside its database.
fn without_config(context: &Context, args: &KillArgs, failure: Failure) -> Failure {
    let named = context.global.database.clone();
    let named = named.or_else(|| std::env::var_os("HAGGLE_DATABASE").map(PathBuf::from));
    // As by default.
    let database = named.unwrap_or_else(|| PathBuf::from("haggle.db"));
    let here = whose(&database, read_state(context.output, &database).as_ref());
    let other = here.filter(|here| {
        args.installation
            .as_ref()
            .is_some_and(|asked| asked != here)
    });
    let known = args.yes && database.exists();
    let recorded = known.then(|| record(context, &database, other.as_ref()));
    in_vain(context.output, recorded.as_ref(), failure)
}

fn finish(output: Output, document: &KillDocument) -> Done {
    output.show(document, || {
        let count = document.destroyed.len();
        let mut lines = vec![match (count, document.settled) {
            (0, true) => "nothing of ours is rented".to_owned(),
            (_, true) => format!("{count} destroyed, and proven gone"),
            (_, false) => format!("{count} asked to be destroyed"),
        }];
        if !document.daemon_elsewhere_would_rent {
            lines.push("spending is forbidden until `haggle resume --all`".into());
        }
        lines.join("\n")
    })?;
    if document.settled {
        return Ok(Exit::Success);
    }
    let left = list(document.instances_left.iter().map(|&id| InstanceId(id)));
    let failure = if left.is_empty() {
        Failure::world("it is not proven that everything is gone")
    } else {
        Failure::world(format!("still there: {left}"))
    };
    Err(failure.hint("run `haggle kill --yes` again, or look at the marketplace's console"))
}

/// Says where a daemon may live that does not hear of the kill.
fn warn_of_daemons(output: Output, recorded: &Recorded) {
    if recorded.is_heard() {
        return;
    }
    output.note(if recorded.file {
        "warning: there is no database here: the kill file stops only a daemon that is started \
         beside it; one that lives elsewhere would rent again: stop it, or kill there too"
    } else {
        "warning: the kill could be recorded neither in the database nor beside it; a daemon that \
         lives would rent again: stop it"
    });
}

/// The state, where the database can be read. It is not needed, so a bad one only gets a note.
fn read_state(output: Output, database: &Path) -> Option<State> {
    if !database.exists() {
        return None;
    }
    match Reader::open(database).and_then(|reader| reader.state()) {
        Ok(state) => Some(state),
        Err(error) => {
            output.note(&format!("note: going on without the database: {error}"));
            None
        }
    }
}

/// Of which installation a database is, as it says itself, or else the file beside it.
fn whose(database: &Path, state: Option<&State>) -> Option<Installation> {
    let said = state.map(|state| state.installation.clone());
    said.or_else(|| read_installation(database).ok().flatten())
}

fn installation(
    args: &KillArgs,
    config: &Config,
    state: Option<&State>,
) -> Result<Installation, Failure> {
    if let Some(named) = &args.installation {
        return Ok(named.clone());
    }
    if let Some(state) = state {
        return Ok(state.installation.clone());
    }
    let file = installation_file(&config.database);
    match read_installation(&config.database) {
        Ok(Some(installation)) => Ok(installation),
        Ok(None) => Err(Failure::mendable(format!(
            "it is not known which instances are ours: neither {} nor {} is there",
            config.database.display(),
            file.display()
        ))
        .hint("name it with --installation ID: it is in every label, hg-ID-…, and `haggle doctor` shows it")),
        Err(error) => Err(Failure::from(error)
            .context("it is not known which instances are ours")
            .hint("name it with --installation ID: it is in every label, hg-ID-…")),
    }
}

/// Whose the token is. Another account's clean, empty listing would look like success.
async fn account(
    marketplace: &dyn Marketplace,
    state: Option<&State>,
) -> Result<Option<u64>, Failure> {
    let pinned = state.and_then(|state| state.account);
    match (marketplace.account().await, pinned) {
        (Ok(found), Some(pinned)) if found.id != pinned => Err(Failure::mendable(format!(
            "the token belongs to account {}, but what is ours is on account {pinned}; nothing was \
             destroyed",
            found.id
        ))
        .hint("use the token of that account")),
        (Ok(found), _) => Ok(Some(found.id.0)),
        // Of a token that is refused nobody knows whose it is, and another account's empty list would prove
        // nothing of ours.
        (Err(error @ ReadError::Unauthorized { .. }), Some(_)) => Err(error.into()),
        // Destroying works without the balance; the button must not hang on it. Labels carry the whole name of
        // the installation.
        (Err(_), _) => Ok(None),
    }
}

/// Without the database nobody knows which account it should be, so it is said which it is.
fn told_account(account: Option<u64>) -> String {
    match account {
        Some(id) => format!(
            "note: this is account {id}; which one it should be is in the database, which is not read"
        ),
        None => "note: whose account this is cannot be read".to_owned(),
    }
}

fn confirm(args: &KillArgs, installation: &Installation, count: usize) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    let question = format!(
        "Destroy these {count}, with their disks, and forbid spending for installation {installation}?"
    );
    match output::confirm(&question) {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::mendable("not confirmed; nothing was destroyed")),
        None => Err(
            Failure::mendable("nobody is there to confirm; nothing was destroyed")
                .hint("say --yes to destroy without being asked"),
        ),
    }
}

/// Where a kill was recorded.
#[derive(Clone, Debug)]
struct Recorded {
    file: bool,
    database: bool,
    /// Whether there is a database that a daemon could be working on.
    is_there: bool,
}

impl Recorded {
    /// Whether a daemon of this database hears of it: from the database, or from the file, which
    /// it looks for at every tick.
    fn is_heard(&self) -> bool {
        self.database || (self.file && self.is_there)
    }
}

/// Forbids spending before anything is destroyed, so that a live daemon does not rent anew.
///
/// A database of another installation is left alone: its daemon rents nothing of this one's, and
/// who would is not stopped by it.
fn record(context: &Context, database: &Path, other: Option<&Installation>) -> Recorded {
    if let Some(other) = other {
        context.output.note(&format!(
            "warning: {} is of installation {other}, so the kill is not recorded there",
            database.display()
        ));
        return Recorded {
            file: false,
            database: false,
            is_there: false,
        };
    }
    let file = set_kill_file(database);
    if let Err(error) = &file {
        context.output.note(&format!(
            "warning: the kill file cannot be written: {error}"
        ));
    }
    let request = database
        .exists()
        .then(|| append_request(database, context.now(), &Ask::Kill));
    if let Some(Err(error)) = &request {
        context.output.note(&format!(
            "warning: the kill cannot be recorded in the database: {error}"
        ));
    }
    Recorded {
        file: file.is_ok(),
        database: matches!(request, Some(Ok(_))),
        is_there: request.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::winddown::testing::Town;

    #[tokio::test]
    async fn another_accounts_token_is_refused() {
        let town = Town::default();
        let mut state = State::new(Installation::from_seed(7));
        state.account = Some(crate::types::ids::AccountId(1));
        let failure = account(&*town.client, Some(&state)).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Mendable);
        assert!(failure.to_string().contains("nothing was destroyed"));
    }

    /// Where it is known which account it should be, one that cannot be told is no proof.
    #[tokio::test]
    async fn a_token_that_is_refused_is_believed_nothing_where_the_account_is_known() {
        let town = Town::default();
        let wrong = crate::marketplace::lowcode::LowCode::new(
            std::sync::Arc::new(Refusing),
            town.clock.clone(),
            crate::marketplace::lowcode::LowCodeOptions::new("at_x".into()),
            &std::collections::BTreeMap::new(),
        );
        let mut state = State::new(Installation::from_seed(7));
        state.account = Some(crate::types::ids::AccountId(1));
        assert!(account(&wrong, Some(&state)).await.is_err());
        assert_eq!(account(&wrong, None).await.unwrap(), None);
    }

    /// A way on which every token is refused.
    struct Refusing;

    #[async_trait::async_trait]
    impl crate::ports::Transport for Refusing {
        async fn send(
            &self,
            _: crate::ports::Request,
        ) -> Result<crate::ports::Reply, crate::ports::TransportError> {
            Ok(crate::ports::Reply {
                status: 401,
                headers: Vec::new(),
                body: "{\"error\":\"unauthorized\"}".into(),
            })
        }
    }

    #[test]
    fn another_installations_database_is_not_told_of_the_kill() {
        use clap::Parser as _;
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("haggle.db");
        let here = Installation::from_seed(7);
        drop(crate::store::SqliteStore::open(&database, Some(here.clone()), 7).unwrap());
        let cli = crate::cli::Cli::try_parse_from(["haggle", "doctor"]).unwrap();
        let context = Context::new(cli.global);
        for state in [read_state(context.output, &database), None] {
            assert_eq!(whose(&database, state.as_ref()), Some(here.clone()));
        }
        let recorded = record(&context, &database, Some(&here));
        assert!(!recorded.is_heard(), "a daemon elsewhere would rent on");
        assert!(!crate::store::kill_file_present(&database));
        assert!(record(&context, &database, None).is_heard());
        assert!(crate::store::kill_file_present(&database));
    }
}
