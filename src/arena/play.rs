//! A player's days on a market.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::daemon::Looking;
use crate::market::faults::FaultSpec;
use crate::market::{Disputed, Market, Quirks};
use crate::simulate::{Adapters, Hazards, Path, START, Scenario, TOKEN, run_watched};
use crate::types::ids::Label;
use crate::types::job::Job;
use crate::types::offer::Market as SearchType;
use crate::types::world::EngineConfig;

use super::family::Family;
use super::meter::{Bound, Meter, Recovery};
use super::rules::{Renter, Rule, disk, suits};

/// Who plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Player {
    /// The real daemon.
    Haggle,
    /// The cheapest reliable on-demand slot.
    OnDemand,
    /// 1.2 × the floor, checkpoints, moves when lost.
    Human,
    /// The floor, once; rented anew when lost.
    FloorOnce,
}

impl Player {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Haggle, Self::OnDemand, Self::Human, Self::FloorOnce];

    /// Its name in results.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Haggle => "haggle",
            Self::OnDemand => "on-demand",
            Self::Human => "human",
            Self::FloorOnce => "floor-once",
        }
    }

    fn rule(self) -> Option<Rule> {
        match self {
            Self::Haggle => None,
            Self::OnDemand => Some(Rule::OnDemand),
            Self::Human => Some(Rule::Human),
            Self::FloorOnce => Some(Rule::FloorOnce),
        }
    }
}

/// What is played.
#[derive(Clone, Debug)]
pub struct Match {
    /// On which kind of market.
    pub family: Family,
    /// Draws the market.
    pub seed: u64,
    /// For how many days.
    pub days: u32,
    /// What is to be done.
    pub jobs: Vec<Arc<Job>>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Played {
    /// What the market charges, exactly, in dollars.
    pub cost: f64,
    /// Useful GPU-hours.
    pub useful_gpu_hours: f64,
    /// What the work that was left undone would have cost on demand, in dollars: at the cheapest rate that
    /// suited each job when the market began, or at its ceiling where none did.
    pub undone_cost: f64,
    /// Jobs that are done.
    pub done: usize,
    /// Runs that ended before their job was done.
    pub interruptions: u64,
    /// Instances made.
    pub starts: u64,
    /// How jobs came to work again whose GPUs somebody else had taken.
    pub recoveries: Vec<Recovery>,
    /// GPU-hours of work that was done and lost with a run that ended.
    pub lost_gpu_hours: f64,
}

/// Between two looks.
const LOOK: Duration = Duration::from_secs(60);

/// Makes the daemon's adapters for a scenario.
pub type MakeAdapters<'a> = &'a (dyn Fn(&Scenario) -> Result<Adapters, String> + Sync);

/// Plays a match. The daemon needs adapters.
///
/// # Errors
/// Why the daemon could not be run, or which rule of its own it broke.
pub fn play(what: &Match, player: Player, adapters: MakeAdapters<'_>) -> Result<Played, String> {
    let Some(rule) = player.rule() else {
        let scenario = scenario(what);
        let adapters = adapters(&scenario)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| format!("there is no runtime: {error}"))?;
        return runtime.block_on(by_daemon(what, &scenario, adapters));
    };
    Ok(by_rule(what, rule))
}

impl Match {
    /// What each job pays on demand for a GPU-hour when the market begins, in dollars.
    fn on_demand(&self) -> Vec<f64> {
        let mut market = Market::generated(self.family.options(self.seed, START));
        let account = market.account_for(TOKEN);
        let of = |job: &Arc<Job>| {
            let gpus = f64::from(job.requirements.gpu_count.max(1));
            let disk_gb = f64::from(job.requirements.disk_gb);
            let offers = market.offers(account, SearchType::OnDemand, disk_gb);
            let suiting = offers.iter().filter(|offer| suits(job, offer));
            let rates = suiting.map(|offer| (offer.dph_base + disk(job, offer)) / gpus);
            let ceiling = job.price_max.as_dollars();
            rates.fold(ceiling, f64::min)
        };
        self.jobs.iter().map(of).collect()
    }

    /// What work that was left undone costs, a job's GPU-hours each.
    fn priced(&self, undone: &[f64]) -> f64 {
        let rates = self.on_demand();
        undone
            .iter()
            .zip(rates)
            .map(|(hours, rate)| hours * rate)
            .sum()
    }

    /// The least that the jobs could cost on the market where nobody touches it, in dollars.
    pub fn bound(&self) -> f64 {
        let mut market = Market::generated(self.family.options(self.seed, START));
        let account = market.account_for(TOKEN);
        let mut bound = Bound::new(&self.jobs, LOOK_BOUND.as_secs_f64() / 3600.0);
        let end = START + Duration::from_hours(24) * self.days;
        let mut now = START;
        while now < end {
            market.advance_to(now);
            for (at, job) in self.jobs.iter().enumerate() {
                let disk_gb = f64::from(job.requirements.disk_gb);
                let offers = market.offers(account, SearchType::OnDemand, disk_gb);
                let suiting = offers.iter().filter(|offer| suits(job, offer));
                let prices =
                    suiting.map(|offer| offer.min_bid.min(offer.dph_base) + disk(job, offer));
                bound.saw(at, prices.reduce(f64::min));
            }
            now = now + LOOK_BOUND;
        }
        let (cost, undone) = bound.least();
        cost + self.priced(&undone)
    }
}

/// Between two looks for the bound: floors stand for longer.
const LOOK_BOUND: Duration = Duration::from_mins(10);

fn by_rule(what: &Match, rule: Rule) -> Played {
    let mut market = Market::generated(what.family.options(what.seed, START));
    let account = market.account_for(TOKEN);
    let mut meter = Meter::new(account, &what.jobs);
    let mut renter = Renter::new(rule, account, &what.jobs);
    let end = START + Duration::from_hours(24) * what.days;
    let mut now = START;
    while now < end && meter.done() < what.jobs.len() {
        market.advance_to(now);
        meter.look(&market, &|label| Some(label.to_owned()));
        renter.acts(&mut market, &meter);
        now = now + LOOK;
    }
    let undone_cost = what.priced(&meter.undone_gpu_hours());
    meter.log(&format!("{rule:?}"));
    Played {
        undone_cost,
        ..played(&market, account, &meter, renter.starts)
    }
}

fn played(market: &Market, account: u64, meter: &Meter, starts: u64) -> Played {
    let bills = market.exact_bill(account);
    Played {
        cost: bills.values().map(|bill| bill.total().as_dollars()).sum(),
        useful_gpu_hours: meter.useful_gpu_hours(),
        undone_cost: 0.0,
        done: meter.done(),
        interruptions: meter.interruptions(),
        starts,
        recoveries: meter.recoveries().to_vec(),
        lost_gpu_hours: meter.lost_gpu_hours(),
    }
}

async fn by_daemon(
    what: &Match,
    scenario: &Scenario,
    adapters: Adapters,
) -> Result<Played, String> {
    let options = what.family.options(what.seed, START);
    let account = Market::generated(options).account_for(TOKEN);
    let meter = Arc::new(Mutex::new((
        Meter::new(account, &what.jobs),
        Played::default(),
    )));
    let watched = Arc::clone(&meter);
    let end = START + scenario.trouble;
    let watch = move |market: &Market| {
        let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
        let (meter, last) = &mut *watched;
        if market.now() > end {
            return;
        }
        let job_of = |text: &str| Label::parse(text).map(|label| label.replica.job.to_string());
        meter.look(market, &job_of);
        *last = played(market, account, meter, 0);
    };
    let outcome = run_watched(scenario, adapters, Arc::new(watch))
        .await
        .map_err(|error| error.to_string())?;
    if !outcome.violations.is_empty() {
        return Err(outcome.violations.join("; "));
    }
    let (meter, last) = &*meter.lock().unwrap_or_else(PoisonError::into_inner);
    meter.log(Player::Haggle.as_str());
    Ok(Played {
        starts: outcome.starts,
        undone_cost: what.priced(&meter.undone_gpu_hours()),
        ..last.clone()
    })
}

/// The daemon with its usual settings on a market where nothing fails but what fails by itself.
fn scenario(what: &Match) -> Scenario {
    let engine = EngineConfig {
        rents_per_tick_max: 8,
        ..EngineConfig::default()
    };
    Scenario {
        seed: what.seed,
        start: START,
        jobs: what.jobs.clone(),
        looking: Looking {
            requests_every: engine.poll_every,
            instances_every: Duration::from_hours(6),
            history_every: None,
            ..Looking::default()
        },
        engine,
        trouble: Duration::from_hours(24) * what.days,
        calm: Duration::from_hours(2),
        still: Duration::from_mins(75),
        faults: FaultSpec::default(),
        hazards: Hazards::default(),
        market: Some(what.family.options(what.seed, START)),
        machines: 0,
        intensity: 1.0,
        balance: crate::types::money::Money::dollars(10_000),
        charge_decimals: 9,
        failures: 1.0,
        liars: 0.0,
        disputed: Disputed::default(),
        quirks: Quirks::default(),
        shared: false,
        path: Path::Native,
        script: Vec::new(),
    }
}
