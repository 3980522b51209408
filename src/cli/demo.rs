//! `haggle demo`: the embedded market, the real daemon and the example policies, on play money.
//!
//! Everything runs in this process and in market time, so a seed gives the same story each time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::adapters::Scratch;
use super::context::{Context, block_on};
use super::failure::{Done, Exit, Failure};
use super::output::{Align, Output};
use super::run::{interruptions, serve};
use crate::clock::SimClock;
use crate::daemon::watch::Watch;
use crate::daemon::web::Shared;
use crate::daemon::{Daemon, Observer, Pace, RunEnd, Settings};
use crate::market::faults::Faults;
use crate::market::{Market, MarketOptions, MarketServer, WireOptions};
use crate::policy;
use crate::ports::Clock;
use crate::simulate::{Checker, Rig, TOKEN, Way};
use crate::types::ids::{JobName, MachineId};
use crate::types::instance::Held;
use crate::types::job::Job;
use crate::types::ledger::Scope;
use crate::types::money::Money;
use crate::types::state::{Change, Ending, Event, Severity};
use crate::types::time::{Time, human};
use crate::types::world::EngineConfig;
use crate::web::{Access, Desk, Publisher, Sources};

/// The examples, for when they are not in the working directory.
const EXAMPLES: &[(&str, &str)] = &[
    (
        "finetune.toml",
        include_str!("../../policies/finetune.toml"),
    ),
    (
        "inference.toml",
        include_str!("../../policies/inference.toml"),
    ),
    (
        "overnight.toml",
        include_str!("../../policies/overnight.toml"),
    ),
];

/// A Monday evening, so that the overnight window opens: 2026-01-05 20:00 UTC.
const START: Time = Time(1_767_643_200_000);

/// Play money on the account.
const BALANCE: Money = Money::dollars(40);

/// What the page's buttons take: there is nothing to lose, and what is shown is what is real elsewhere.
const PLAY_TOKEN: &str = "haggle-play-money";

/// How long the end may take to settle, in market time.
const END_WITHIN: Duration = Duration::from_secs(3600);

/// Flags of `haggle demo`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// How much market time to run
    #[arg(long = "for", value_name = "DURATION", default_value = "6h", value_parser = humantime::parse_duration)]
    lasts: Duration,
    /// Market seconds in a real one
    #[arg(long, default_value_t = 360.0, value_parser = positive)]
    speed: f64,
    /// Draws the market; the same seed tells the same story
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Serve the page and metrics at this address while it runs
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("a positive number, such as 360".to_owned()),
    }
}

/// Runs the demo.
pub(crate) fn run(context: &Context, args: &DemoArgs) -> Done {
    let jobs = load_jobs(context)?;
    block_on(play(context.output, args, jobs))
}

async fn play(output: Output, args: &DemoArgs, jobs: Vec<Arc<Job>>) -> Done {
    let scratch = Scratch::new()?;
    let story = Story::new(output);
    let rig = build(args, &jobs, &scratch);
    let shared = Arc::new(Shared::new());
    let watch = Watch::new(
        scratch.metrics(),
        Arc::clone(&shared),
        Some(scratch.database()),
    );
    let desk = Arc::new(Desk::new(Sources {
        database: scratch.database(),
        policies: None,
        clock: rig.clock.clone(),
        redact: Arc::new(str::to_owned),
        redact_logs: Arc::new(str::to_owned),
        access: Access::new(Some(PLAY_TOKEN.into()), Vec::new()),
    }));
    let publisher = Publisher::new(Arc::clone(&desk), Pace::Every);
    let stop = args
        .listen
        .map(|address| serve(output, address, shared, desk))
        .transpose()?;
    if stop.is_some() {
        output.note(&format!("the page's buttons take the token {PLAY_TOKEN}"));
    }
    introduce(output, args, &jobs);
    let observers: Vec<Box<dyn Observer>> = vec![
        Box::new(story.clone()),
        Box::new(watch),
        Box::new(publisher),
    ];
    let mut daemon = rig.start(observers)?;
    let told = "interrupted: everything that the demo rented is destroyed; again to quit at once";
    let (first, second) = interruptions(output, told);
    let work = async {
        daemon.run(Some(START + args.lasts), first).await?;
        finish(&mut daemon).await
    };
    let ended = tokio::select! {
        biased;
        ended = work => ended?,
        () = second => return Err(Failure::world("quit; the demo's market is gone with it")),
    };
    let summary = Summary::of(&rig, &daemon, &jobs, &story, &ended);
    drop(stop);
    output.show(&summary, || summary.text(output))?;
    let clean = summary.limit_violations.is_empty() && summary.instances_left == 0;
    Ok(if clean { Exit::Success } else { Exit::World })
}

async fn finish(daemon: &mut Daemon) -> Result<RunEnd, Failure> {
    let ended = daemon.destroy_all(END_WITHIN).await?;
    daemon.reconcile().await?;
    Ok(ended)
}

/// The policies that were named, or the examples.
fn load_jobs(context: &Context) -> Result<Vec<Arc<Job>>, Failure> {
    let Some(dir) = &context.global.policies else {
        let parse = |&(name, text): &(&str, &str)| {
            policy::parse(name, text).map(Arc::new).map_err(|_| {
                Failure::world(format!("the example {name} cannot be used")).hint("this is a bug")
            })
        };
        return EXAMPLES.iter().map(parse).collect();
    };
    let loaded = policy::load_dir(dir);
    if !loaded.errors.is_empty() {
        return Err(
            Failure::mendable(format!("policies in {} cannot be used", dir.display()))
                .hint("`haggle check` says why"),
        );
    }
    if loaded.jobs.is_empty() {
        return Err(
            Failure::mendable(format!("there is no policy in {}", dir.display()))
                .hint("`haggle init` writes one"),
        );
    }
    Ok(loaded
        .jobs
        .into_iter()
        .map(|loaded| Arc::new(loaded.job))
        .collect())
}

fn build(args: &DemoArgs, jobs: &[Arc<Job>], scratch: &Scratch) -> Rig {
    let engine = EngineConfig::default();
    let options = MarketOptions {
        seed: args.seed,
        start: START,
        balance: BALANCE,
        ..MarketOptions::default()
    };
    let mut market = Market::generated(options);
    let account = market.account_for(TOKEN);
    let clock = Arc::new(SimClock::paced(START, args.speed));
    let shared_clock: Arc<dyn Clock> = clock.clone();
    let server = MarketServer::new(market, WireOptions::default(), Faults::none(), shared_clock);
    let checker = Checker::new(account, jobs, engine.clone());
    let settings = Settings {
        engine,
        live: true,
        pace: Pace::Every,
        seed: args.seed,
        looking: crate::daemon::Looking::default(),
    };
    // What runners tell stands in logs, of which a gateway shows none.
    let native = jobs.iter().any(|job| job.run.runner.is_some());
    let adapters = scratch.adapters(args.seed, native);
    Rig::new(
        clock,
        Arc::new(server),
        Way {
            native,
            ..Way::default()
        },
        checker,
        adapters,
        settings,
        jobs.to_vec(),
    )
}

fn introduce(output: Output, args: &DemoArgs, jobs: &[Arc<Job>]) {
    let names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    output.note(&format!(
        "An embedded market (seed {}), the real daemon, {} of play money, {} jobs: {}.\n\
         {} of market time at {} times its speed, from {START}. Ctrl-C ends it and destroys everything.\n",
        args.seed,
        format_args!("{BALANCE:.2}"),
        jobs.len(),
        names.join(", "),
        human(args.lasts),
        args.speed,
    ));
}

/// Tells what happens as it happens, and remembers where each job ran.
#[derive(Clone)]
struct Story {
    output: Output,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// The last record of every instance that there ever was.
    instances: BTreeMap<u64, Held>,
}

impl Story {
    fn new(output: Output) -> Self {
        Self {
            output,
            seen: Arc::default(),
        }
    }

    fn tell(&self, event: &Event) {
        let mark = match event.severity {
            Severity::Info => ' ',
            Severity::Warning => '!',
            Severity::Alarm => '*',
        };
        let clock = event.at.utc().format("%H:%M");
        let who = event
            .replica
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        self.output.note(&format!(
            "{clock} {mark} {who:<16} {:<10} {}",
            event.kind, event.text
        ));
    }

    fn instances(&self) -> Vec<Held> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.instances.values().cloned().collect()
    }
}

impl Observer for Story {
    fn committed(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Event(event) => self.tell(event),
                Change::Held(held) => {
                    let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.instances.insert(held.id.0, (**held).clone());
                }
                _ => {}
            }
        }
    }
}

/// What the demo came to.
#[derive(Serialize)]
struct Summary {
    seed: u64,
    market_hours: String,
    jobs: Vec<JobSummary>,
    spend_dollars: String,
    billed_dollars: String,
    on_demand_equivalent_dollars: String,
    credit_dollars: String,
    instances_left: usize,
    unsettled_intents: usize,
    limit_violations: Vec<String>,
}

#[derive(Serialize)]
struct JobSummary {
    name: JobName,
    outcome: String,
    useful_gpu_hours: String,
    lost_gpu_hours: String,
    starts: u32,
    outbids: u32,
    ran_on: Vec<RanOn>,
    spend_dollars: String,
    billed_dollars: String,
    on_demand_equivalent_dollars: String,
    budget_dollars: Option<String>,
    price_ceiling_dollars_per_gpu_hour: String,
}

#[derive(Serialize)]
struct RanOn {
    machine: MachineId,
    gpus: u32,
    gpu_name: String,
    rental: &'static str,
    price_dollars_per_hour: String,
    gpu_hours_billed: String,
    spend_dollars: String,
}

/// The market's own books of the play account.
struct Books {
    /// What its charge rows sum to, by instance.
    charged: BTreeMap<u64, Money>,
    credit: Money,
    rented: usize,
}

impl Books {
    fn of(rig: &Rig) -> Self {
        rig.server.with_market(|market| {
            let account = market.account_for(TOKEN);
            let mut charged: BTreeMap<u64, Money> = BTreeMap::new();
            for row in market.charges(account, START, market.now()) {
                let id = row.source.rsplit('-').next().and_then(|id| id.parse().ok());
                let amount = Money::from_dollars(row.amount).unwrap_or_default();
                *charged.entry(id.unwrap_or_default()).or_default() += amount;
            }
            let credit = Money::from_dollars(market.user(account).credit).unwrap_or_default();
            Self {
                charged,
                credit,
                rented: market.instances(account).len(),
            }
        })
    }

    fn by_job(&self, instances: &[Held]) -> BTreeMap<JobName, Money> {
        let mut bills: BTreeMap<JobName, Money> = BTreeMap::new();
        for held in instances {
            let amount = self.charged.get(&held.id.0).copied().unwrap_or_default();
            *bills.entry(held.replica.job.clone()).or_default() += amount;
        }
        bills
    }
}

const MS_PER_HOUR: f64 = 3_600_000.0;

fn hours(gpu_ms: i64) -> String {
    format!("{:.2}", gpu_ms as f64 / MS_PER_HOUR)
}

impl Summary {
    fn of(rig: &Rig, daemon: &Daemon, jobs: &[Arc<Job>], story: &Story, ended: &RunEnd) -> Self {
        let instances = story.instances();
        let account = Books::of(rig);
        let bills = account.by_job(&instances);
        let of_job = |job: &Arc<Job>| JobSummary::of(job, daemon, &instances, &bills);
        let jobs: Vec<JobSummary> = jobs.iter().map(of_job).collect();
        let spend = daemon.state().usage(&Scope::Account).total;
        let records = daemon.state().jobs.values();
        let equivalent: Money = records.map(|record| record.on_demand_equivalent).sum();
        Self {
            seed: daemon.seed(),
            market_hours: format!("{:.2}", rig.hours_since(START)),
            jobs,
            spend_dollars: spend.decimal(),
            billed_dollars: account.charged.values().copied().sum::<Money>().decimal(),
            on_demand_equivalent_dollars: equivalent.decimal(),
            credit_dollars: account.credit.decimal(),
            instances_left: account.rented.max(ended.remaining.len()),
            unsettled_intents: ended.unsettled,
            limit_violations: rig.violations(),
        }
    }

    fn text(&self, output: Output) -> String {
        let mut text = String::from("\n");
        text.push_str(&output.table(JOB_COLUMNS, self.jobs.iter().map(JobSummary::row).collect()));
        text.push_str("\n\nwhere it ran\n");
        let places = self
            .jobs
            .iter()
            .flat_map(|job| job.ran_on.iter().map(|place| place.row(&job.name)));
        text.push_str(&output.table(PLACE_COLUMNS, places.collect()));
        text.push_str(&format!("\n\n{}\n", self.verdict()));
        text
    }

    fn verdict(&self) -> String {
        let money = |text: &str| text.parse::<Money>().unwrap_or_default();
        let (spend, billed) = (money(&self.spend_dollars), money(&self.billed_dollars));
        let equivalent = money(&self.on_demand_equivalent_dollars);
        let mut lines = vec![format!(
            "{} market hours: spent {spend:.2}; the same useful GPU-hours on demand would have cost {equivalent:.2}{}.",
            self.market_hours,
            saving(spend, equivalent)
                .map(|saved| format!(" ({saved} saved)"))
                .unwrap_or_default(),
        )];
        let difference = Money((spend - billed).0.abs());
        let agree = if difference < Money(10_000_000) {
            "agrees with"
        } else {
            "DIFFERS from"
        };
        lines.push(format!(
            "The market's own bill, {billed:.2}, {agree} the ledger; {} of credit are left.",
            format_args!("{:.2}", money(&self.credit_dollars))
        ));
        lines.push(match (self.instances_left, self.unsettled_intents) {
            (0, 0) => "Nothing is left rented.".to_owned(),
            (left, open) => {
                format!("{left} instances are LEFT and {open} intents are not settled.")
            }
        });
        lines.push(if self.limit_violations.is_empty() {
            "No limit was passed.".to_owned()
        } else {
            format!(
                "LIMITS WERE PASSED:\n  {}",
                self.limit_violations.join("\n  ")
            )
        });
        lines.join("\n")
    }
}

fn saving(spend: Money, equivalent: Money) -> Option<String> {
    let share = 1.0 - spend.as_dollars() / equivalent.as_dollars();
    (equivalent > Money::ZERO && share.is_finite()).then(|| format!("{:.0} %", share * 100.0))
}

const JOB_COLUMNS: &[(&str, Align)] = &[
    ("job", Align::Left),
    ("outcome", Align::Left),
    ("useful GPU-h", Align::Right),
    ("starts", Align::Right),
    ("outbid", Align::Right),
    ("spent", Align::Right),
    ("on demand", Align::Right),
    ("saved", Align::Right),
    ("budget", Align::Right),
];

const PLACE_COLUMNS: &[(&str, Align)] = &[
    ("job", Align::Left),
    ("machine", Align::Right),
    ("GPUs", Align::Left),
    ("rental", Align::Left),
    ("$/h", Align::Right),
    ("GPU-h", Align::Right),
    ("spent", Align::Right),
];

impl JobSummary {
    fn of(
        job: &Arc<Job>,
        daemon: &Daemon,
        instances: &[Held],
        bills: &BTreeMap<JobName, Money>,
    ) -> Self {
        let state = daemon.state();
        let record = state.job(&job.name);
        let replicas = state
            .replicas
            .values()
            .filter(|replica| replica.id.job == job.name);
        let sum = |of: fn(&crate::types::state::ReplicaRecord) -> i64| {
            replicas.clone().map(of).sum::<i64>()
        };
        let ended = |wanted| {
            replicas
                .clone()
                .filter(|r| r.ending.is_some_and(|(e, _)| e == wanted))
                .count()
        };
        let (finished, failed) = (ended(Ending::Finished), ended(Ending::Failed));
        let outcome = match (finished, failed) {
            (0, 0) => "stopped with the demo".to_owned(),
            (done, 0) if done == job.replicas as usize => "finished".to_owned(),
            (done, failed) => format!("{done} of {} finished, {failed} failed", job.replicas),
        };
        Self {
            name: job.name.clone(),
            outcome,
            useful_gpu_hours: hours(sum(crate::types::state::ReplicaRecord::done_gpu_ms)),
            lost_gpu_hours: hours(sum(|replica| replica.lost_gpu_ms)),
            starts: replicas.clone().map(|replica| replica.starts).sum(),
            outbids: replicas.clone().map(|replica| replica.outbids).sum(),
            ran_on: instances
                .iter()
                .filter(|held| held.replica.job == job.name)
                .map(RanOn::of)
                .collect(),
            spend_dollars: daemon.state().spent(&job.name).decimal(),
            billed_dollars: bills.get(&job.name).copied().unwrap_or_default().decimal(),
            on_demand_equivalent_dollars: record.on_demand_equivalent.decimal(),
            budget_dollars: job.budget.total.map(Money::decimal),
            price_ceiling_dollars_per_gpu_hour: job.price_max.decimal(),
        }
    }

    fn row(&self) -> Vec<String> {
        let money = |text: &str| text.parse::<Money>().unwrap_or_default();
        let (spend, equivalent) = (
            money(&self.spend_dollars),
            money(&self.on_demand_equivalent_dollars),
        );
        vec![
            self.name.to_string(),
            self.outcome.clone(),
            self.useful_gpu_hours.clone(),
            self.starts.to_string(),
            self.outbids.to_string(),
            format!("{spend:.2}"),
            format!("{equivalent:.2}"),
            saving(spend, equivalent).unwrap_or_else(|| "-".to_owned()),
            self.budget_dollars
                .as_deref()
                .map_or("-".to_owned(), |text| format!("{:.2}", money(text))),
        ]
    }
}

impl RanOn {
    fn of(held: &Held) -> Self {
        Self {
            machine: held.slot.machine,
            gpus: held.slot.gpus,
            gpu_name: held.gpu_name.clone(),
            rental: held.rental.as_str(),
            price_dollars_per_hour: held
                .bid_before_park
                .unwrap_or_default()
                .max(held.price)
                .decimal(),
            gpu_hours_billed: hours(held.billed_ms * i64::from(held.slot.gpus)),
            spend_dollars: held.spent().decimal(),
        }
    }

    fn row(&self, job: &JobName) -> Vec<String> {
        let money = |text: &str| text.parse::<Money>().unwrap_or_default();
        vec![
            job.to_string(),
            self.machine.to_string(),
            format!("{} x {}", self.gpus, self.gpu_name),
            self.rental.to_owned(),
            format!("{:.4}", money(&self.price_dollars_per_hour)),
            self.gpu_hours_billed.clone(),
            format!("{:.3}", money(&self.spend_dollars)),
        ]
    }
}
