//! What commands share: the configuration, the database, the policies, the marketplace.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::failure::{Exit, Failure, OrFail};
use super::output::Output;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::marketplace::redact::Redactor;
use crate::policy::{self, Loaded, PolicyError};
use crate::ports::Clock;
use crate::store::Reader;
use crate::types::ids::JobName;
use crate::types::job::Job;
use crate::types::state::State;
use crate::types::time::Time;

/// Flags that every command takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// Configuration file; `haggle.toml` where it is there.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "HAGGLE_CONFIG",
        hide_env_values = true
    )]
    pub(crate) config: Option<PathBuf>,
    /// Directory of the policies.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) policies: Option<PathBuf>,
    /// Database file.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) database: Option<PathBuf>,
    /// Write the result as one JSON document.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log more, to stderr; twice for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// How log lines are written, to stderr.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A configuration value given by a flag: a dotted key and its value.
pub(crate) type Override = (&'static str, figment::value::Value);

/// What becomes of a read that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It is tried again: for what works on its own.
    Retry,
    /// It is told at once: for whoever sits and waits.
    GiveUp,
}

/// What a command works with.
pub(crate) struct Context {
    /// Where results go.
    pub(crate) output: Output,
    /// The flags that every command takes.
    pub(crate) global: Global,
    /// The system's clock, unless the command goes by another.
    pub(crate) clock: Arc<dyn Clock>,
    /// Knows every secret that was read, and keeps it out of texts.
    pub(crate) redactor: Arc<Redactor>,
}

impl Context {
    /// For one run of a command.
    pub(crate) fn new(global: Global) -> Self {
        Self {
            output: Output::new(global.json),
            global,
            clock: Arc::new(SystemClock::new()),
            redactor: Arc::default(),
        }
    }

    /// The same, going by another clock.
    pub(crate) fn with_clock(&self, clock: Arc<dyn Clock>) -> Self {
        Self {
            output: self.output,
            global: self.global.clone(),
            clock,
            redactor: Arc::clone(&self.redactor),
        }
    }

    /// The wall clock.
    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    /// The configuration with the global flags laid over it.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        self.config_with(Vec::new())
    }

    /// The configuration as far as the red button needs it: one that cannot be used otherwise, for a word
    /// in it that has nothing to do with that, must not be in its way.
    pub(crate) fn config_for_ending(&self) -> Result<Config, Failure> {
        self.config().or_else(|failure| {
            let overrides = self.with_flags(Vec::new());
            let config = Config::load_for_ending(self.global.config.as_deref(), &overrides);
            let Ok(config) = config else {
                return Err(failure);
            };
            self.output.note(&format!(
                "warning: {}; going on with where the database and the marketplace are",
                failure.in_short()
            ));
            Ok(config)
        })
    }

    /// The configuration with the global flags and a command's own laid over it.
    pub(crate) fn config_with(&self, overrides: Vec<Override>) -> Result<Config, Failure> {
        let overrides = self.with_flags(overrides);
        Config::load(self.global.config.as_deref(), &overrides)
            .or_mendable("the configuration cannot be used")
    }

    fn with_flags(&self, mut overrides: Vec<Override>) -> Vec<Override> {
        let mut path = |key, value: &Option<PathBuf>| {
            if let Some(path) = value {
                overrides.push((key, path.to_string_lossy().into_owned().into()));
            }
        };
        path("database", &self.global.database);
        path("policies", &self.global.policies);
        overrides
    }

    /// The valid jobs, and a note on stderr for each policy that cannot be used.
    pub(crate) fn jobs(&self, config: &Config) -> Result<Vec<Arc<Job>>, Failure> {
        let loaded = load_policies(config)?;
        self.note_broken(&loaded);
        Ok(loaded
            .jobs
            .into_iter()
            .map(|loaded| Arc::new(loaded.job))
            .collect())
    }

    /// Says on stderr which policy files cannot be used.
    pub(crate) fn note_broken(&self, loaded: &Loaded) {
        let files: BTreeSet<&str> = loaded.errors.iter().map(PolicyError::file).collect();
        for file in files {
            self.output.note(&format!(
                "warning: {file} cannot be used; `haggle check` says why"
            ));
        }
    }
}

/// The database, for reading. Works whether or not a daemon runs.
pub(crate) fn open_reader(config: &Config) -> Result<Reader, Failure> {
    let path = &config.database;
    if !path.exists() {
        return Err(no_database(config));
    }
    Reader::open(path).map_err(|error| {
        Failure::from(error).context(format!("cannot read the database {}", path.display()))
    })
}

/// All that is known, or `None` where there is no database yet.
pub(crate) fn state_if_any(config: &Config) -> Result<Option<State>, Failure> {
    if !config.database.exists() {
        return Ok(None);
    }
    Ok(Some(open_reader(config)?.state()?))
}

/// The policies, with what is wrong in them. A directory that is not there is an error here:
/// the user named it, or expects it.
pub(crate) fn load_policies(config: &Config) -> Result<Loaded, Failure> {
    if !config.policies.is_dir() {
        return Err(Failure::mendable(format!(
            "there is no directory of policies at {}",
            config.policies.display()
        ))
        .hint("name another with --policies, or write a first policy with `haggle init`"));
    }
    Ok(policy::load_dir(&config.policies))
}

/// There is no database where it is looked for.
pub(crate) fn no_database(config: &Config) -> Failure {
    let mut text = format!("there is no database at {}", config.database.display());
    if let Some(directory) = missing_directory(&config.database) {
        text.push_str(&format!(
            ", nor a directory {} that it could be in",
            directory.display()
        ));
    }
    Failure::mendable(text).hint("`haggle run` makes it; name another with --database")
}

/// The directory that a database is to be in, where that is not there.
pub(crate) fn missing_directory(database: &Path) -> Option<&Path> {
    let parent = database.parent()?;
    // Of a name alone it is this one.
    (parent != Path::new("") && !parent.is_dir()).then_some(parent)
}

/// Jobs that may be named: those of the policies, and those that were ever run.
pub(crate) fn known_jobs(state: Option<&State>, loaded: Option<&Loaded>) -> BTreeSet<JobName> {
    let ran = state.into_iter().flat_map(|state| state.jobs.keys());
    let mut known: BTreeSet<JobName> = ran.cloned().collect();
    if let Some(loaded) = loaded {
        known.extend(loaded.jobs.iter().map(|loaded| loaded.job.name.clone()));
        known.extend(loaded.errors.iter().filter_map(PolicyError::job_name));
    }
    known
}

/// Refuses a job that nobody knows, and lists those that are known.
pub(crate) fn require_known(job: &JobName, known: &BTreeSet<JobName>) -> Result<(), Failure> {
    if known.contains(job) {
        return Ok(());
    }
    let names: Vec<&str> = known.iter().map(JobName::as_str).collect();
    let hint = if names.is_empty() {
        "no job is known; write a policy with `haggle init`".into()
    } else {
        format!("known jobs: {}", names.join(", "))
    };
    Err(Failure::mendable(format!("there is no job named {job}")).hint(hint))
}

/// Runs a future to its end on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(Exit::World, error.into()).context("cannot start the event loop")
        })?
        .block_on(future)
}
