//! `haggle simulate`: checks this build's guarantees on this machine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::NaiveDate;
use clap::Args;
use secrecy::SecretString;
use serde::Serialize;

use super::context::Context;
use super::failure::{Done, Exit};
use super::output::Output;
use crate::clock::SystemClock;
use crate::marketplace::lowcode::{LowCode, LowCodeOptions};
use crate::marketplace::vast::{Vast, VastOptions};
use crate::ports::{Clock, Marketplace, Standing, Store, StoreError};
use crate::simulate::{Adapters, Failed, Path, Scenario, Sweep, TOKEN, Totals};
use crate::store::SqliteStore;
use crate::types::ids::{Installation, InstanceId};
use crate::types::instance::Held;
use crate::types::ledger::{BilledDays, Drift};
use crate::types::mutant::Mutant;
use crate::types::offer::Snapshot;
use crate::types::state::{Change, State, UserRequest};
use crate::types::time::Time;

/// Runs the real daemon against the embedded market, in virtual time, with faults and crashes, and
/// checks that nothing is ever broken. A seed draws everything, and replays what it found.
#[derive(Args, Clone, Debug)]
pub(crate) struct SimulateArgs {
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Days of trouble in each, before the calm
    #[arg(long, value_name = "D", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=365))]
    days: u32,
    /// The first seed
    #[arg(long, value_name = "FIRST", default_value_t = 1)]
    seed: u64,
    /// How many seeds at once; by default as many as there are cores
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs_in_parallel: Option<u16>,
    /// A mistake that is planted in haggle, to see that it is found
    #[arg(long, value_name = "NAME", hide = true)]
    mutant: Option<Mutant>,
}

#[derive(Debug, Serialize)]
struct Document {
    seeds: u64,
    first_seed: u64,
    days: u32,
    violations: usize,
    crashes: u64,
    restarts: u64,
    faults: u64,
    faults_by_kind: BTreeMap<String, u64>,
    requests: u64,
    starts: u64,
    outbids: u64,
    finished: u64,
    /// Commands that were to run once and were begun again after they had ended well.
    begun_again: u64,
    spend_dollars: String,
    billed_dollars: String,
    /// Of what was accrued before any correction, at the documented settings of the disputed facts,
    /// traffic left out, as a fraction of the bill.
    estimate_error: Option<f64>,
    simulated_days: f64,
    wall_seconds: f64,
    threads: usize,
    simulated_days_per_second: f64,
    failing_seeds: Vec<FailedSeed>,
}

#[derive(Debug, Serialize)]
struct FailedSeed {
    seed: u64,
    violations: Vec<String>,
    replay: String,
}

/// Runs the simulation.
pub(crate) fn run(context: &Context, args: &SimulateArgs) -> Done {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let sweep = Sweep {
        first: args.seed,
        seeds: args.seeds,
        days: args.days,
        threads: args.jobs_in_parallel.map_or(cores, usize::from),
        mutant: args.mutant,
        until_failure: false,
    };
    let clock = SystemClock::new();
    let output = context.output;
    let totals = sweep.run(&play_adapters, &|totals| told(output, &sweep, totals));
    let document = document(args, &sweep, &totals, clock.monotonic().0 as f64 / 1000.0);
    output.show(&document, || text(&document))?;
    Ok(if totals.failed.is_empty() {
        Exit::Success
    } else {
        Exit::World
    })
}

/// Tells how far it is, now and then.
fn told(output: Output, sweep: &Sweep, totals: &Totals) {
    let every = (sweep.seeds / 100).max(1);
    if totals.seeds.is_multiple_of(every) {
        output.progress(&format!(
            "{} of {} seeds, {} failed",
            totals.seeds,
            sweep.seeds,
            totals.failed.len()
        ));
    }
}

fn document(args: &SimulateArgs, sweep: &Sweep, totals: &Totals, seconds: f64) -> Document {
    const DAY_SECONDS: f64 = 86_400.0;
    let days = totals.passed.as_secs_f64() / DAY_SECONDS;
    let mutant = args.mutant.map_or(String::new(), |mutant| {
        format!(" --mutant {}", mutant.as_str())
    });
    let failed = |failed: &Failed| FailedSeed {
        seed: failed.seed,
        violations: failed.violations.clone(),
        replay: format!(
            "haggle simulate --seed {} --seeds 1 --days {}{mutant}",
            failed.seed, args.days
        ),
    };
    Document {
        seeds: totals.seeds,
        first_seed: args.seed,
        days: args.days,
        violations: totals.violations(),
        crashes: totals.crashes,
        restarts: totals.restarts,
        faults: totals.faults_met(),
        faults_by_kind: totals.faults.clone(),
        requests: totals.requests,
        starts: totals.starts,
        outbids: totals.outbids,
        finished: totals.finished,
        begun_again: totals.begun_again,
        spend_dollars: totals.spend.decimal(),
        billed_dollars: totals.billed.decimal(),
        estimate_error: totals.estimate_error(),
        simulated_days: days,
        wall_seconds: seconds,
        threads: sweep.threads,
        simulated_days_per_second: if seconds > 0.0 { days / seconds } else { 0.0 },
        failing_seeds: totals.failed.iter().map(failed).collect(),
    }
}

fn text(document: &Document) -> String {
    let mut text = String::new();
    for failed in &document.failing_seeds {
        for violation in &failed.violations {
            text.push_str(&format!("seed {}: {violation}\n", failed.seed));
        }
        text.push_str(&format!("  replay: {}\n", failed.replay));
    }
    let error = document
        .estimate_error
        .map_or("unknown".to_owned(), |error| {
            format!("{:+.2} %", error * 100.0)
        });
    text.push_str(&format!(
        "{} seeds from {}, {} violations\n\
         {} crashes, {} restarts, {} faults, {} requests, {} instances made, {} outbids\n\
         {} replicas finished, {} commands begun again after they had ended well\n\
         spent ${}, billed ${}; estimates before correction are off by {error}\n\
         {:.1} simulated days in {:.1} s, {:.2} a second with {} threads\n",
        document.seeds,
        document.first_seed,
        document.violations,
        document.crashes,
        document.restarts,
        document.faults,
        document.requests,
        document.starts,
        document.outbids,
        document.finished,
        document.begun_again,
        document.spend_dollars,
        document.billed_dollars,
        document.simulated_days,
        document.wall_seconds,
        document.simulated_days_per_second,
        document.threads,
    ));
    text
}

// --------------------------------------------------------------------------------------- adapters

/// The clients and the store, for one seed. The database is in memory and outlives the processes
/// that use it: what was committed is there for the next one, as after the crash of a process.
///
/// # Errors
/// Why there is no database, in words.
pub fn play_adapters(scenario: &Scenario) -> Result<Adapters, String> {
    let (seed, path) = (scenario.seed, scenario.path);
    let installation = Installation::from_seed(seed);
    let database = SqliteStore::open_in_memory(&installation).map_err(|error| error.to_string())?;
    let database = Arc::new(Mutex::new(database));
    let (asked, disk) = (Arc::clone(&database), Arc::clone(&database));
    let audited = Arc::clone(&database);
    Ok(Adapters {
        marketplace: Arc::new(move |transport, clock, remembered| {
            let token = SecretString::from(TOKEN.to_owned());
            if path == Path::Native {
                let options = VastOptions {
                    jitter_seed: seed,
                    ..VastOptions::new(token)
                };
                return Arc::new(Vast::new(transport, clock, options, remembered))
                    as Arc<dyn Marketplace>;
            }
            let options = LowCodeOptions {
                jitter_seed: seed,
                ..LowCodeOptions::new(token)
            };
            Arc::new(LowCode::new(transport, clock, options, remembered))
        }),
        store: Arc::new(move || {
            let store = Opened(Arc::clone(&database));
            store.database().forget();
            Ok(Box::new(store) as Box<dyn Store>)
        }),
        ask: Arc::new(move |now, ask| {
            let mut database = asked.lock().unwrap_or_else(PoisonError::into_inner);
            database.append_request(now, ask).map(drop)
        }),
        disk: Arc::new(move |full| {
            let mut database = disk.lock().unwrap_or_else(PoisonError::into_inner);
            database.fill_disk(full)
        }),
        audit: Arc::new(move || {
            let database = audited.lock().unwrap_or_else(PoisonError::into_inner);
            database
                .audit()
                .map(|audit| (audit.billed(), audit.problems))
        }),
    })
}

/// A process's hold of the database that outlives it.
struct Opened(Arc<Mutex<SqliteStore>>);

impl Opened {
    fn database(&self) -> std::sync::MutexGuard<'_, SqliteStore> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Opened {
    fn load(&mut self) -> Result<State, StoreError> {
        self.database().load()
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.database().commit(changes)
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<i64, StoreError> {
        self.database().snapshot(snapshot)
    }

    fn last_snapshot(&mut self) -> Result<Option<(i64, Snapshot)>, StoreError> {
        self.database().last_snapshot()
    }

    fn ended_since(&mut self, from: Time) -> Result<Vec<Held>, StoreError> {
        self.database().ended_since(from)
    }

    fn requests(&mut self) -> Result<Vec<UserRequest>, StoreError> {
        self.database().requests()
    }

    fn ended(&mut self, instance: InstanceId) -> Result<Option<Held>, StoreError> {
        self.database().ended(instance)
    }

    fn billed(&mut self, instance: InstanceId) -> Result<BilledDays, StoreError> {
        self.database().billed(instance)
    }

    fn drift(&mut self, day: NaiveDate) -> Result<Vec<Drift>, StoreError> {
        self.database().drift(day)
    }

    fn standing(&mut self) -> Standing {
        self.database().standing()
    }

    fn prune(&mut self, before: Time) -> Result<(), StoreError> {
        self.database().prune(before)
    }
}
