//! One seed's run: trouble, then calm, then the end; and what must hold in each.

use std::ops::RangeInclusive;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::checker::Checker;
use super::rig::{Adapters, Rig, Way};
use crate::clock::SimClock;
use crate::daemon::{Daemon, DaemonError, Observer, Pace, Settings};
use crate::market::faults::{FaultScript, FaultSpec, Faults};
use crate::market::{
    CreateParams, Disputed, Envelope, Market, MarketOptions, MarketServer, Paths, Quirks,
    WireOptions,
};
use crate::ports::Clock;
use crate::types::instance::DestroyWhy;
use crate::types::intent::Effect;
use crate::types::job::Job;
use crate::types::money::Money;
use crate::types::offer::Market as SearchType;
use crate::types::state::{Ask, Change};
use crate::types::time::Time;
use crate::types::world::EngineConfig;

/// A way to the marketplace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// The gateway, ids in the path, answers as its documentation wraps them.
    New,
    /// The gateway, ids in the query, answers as gateways were seen to wrap them.
    Old,
    /// The marketplace's own format.
    Native,
}

impl Path {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::New, Self::Old, Self::Native];

    fn wire(self, quirks: Quirks) -> WireOptions {
        let (paths, envelope) = match self {
            Self::New => (Paths::New, Envelope::Data),
            Self::Old => (Paths::Old, Envelope::Result),
            Self::Native => (Paths::Both, Envelope::None),
        };
        WireOptions {
            paths,
            envelope,
            quirks,
            ..WireOptions::default()
        }
    }
}

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Draws everything.
    pub seed: u64,
    /// The jobs.
    pub jobs: Vec<Arc<Job>>,
    /// The limits.
    pub engine: EngineConfig,
    /// How long requests fail and processes die.
    pub trouble: Duration,
    /// How long all is well after that.
    pub calm: Duration,
    /// The faults, as the market's `--faults` takes them.
    pub faults: FaultSpec,
    /// Chance that a mutation kills the process, in parts per thousand.
    pub crash_per_mille: u64,
    /// Machines of the market.
    pub machines: u32,
    /// How busy rivals, takers and hosts are.
    pub intensity: f64,
    /// The play balance.
    pub balance: Money,
    /// How often provisioning fails, as a multiple of the usual.
    pub failures: f64,
    /// How the market settles what its sources dispute.
    pub disputed: Disputed,
    /// What is particular about the gateway.
    pub quirks: Quirks,
    /// Whether another program holds instances on the same account.
    pub shared: bool,
    /// How long a request takes, in milliseconds of market time.
    pub latency_ms: RangeInclusive<u64>,
    /// How the marketplace is reached.
    pub path: Path,
    /// What the user asks, and how long after the beginning.
    pub asks: Vec<(Duration, Ask)>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What was broken; empty is good.
    pub violations: Vec<String>,
    /// Processes that died on the way.
    pub crashes: u32,
    /// Requests that were sent.
    pub requests: u64,
    /// Instances that were made.
    pub starts: u32,
    /// Times an instance of ours was displaced.
    pub outbids: u32,
    /// Replicas that finished.
    pub finished: u32,
    /// Market hours that passed.
    pub hours: f64,
}

/// The token of the play account, which the adapters have to send.
pub const TOKEN: &str = "at_play";

/// At the end everything is destroyed, and that must be settled within this.
const END_WITHIN: Duration = Duration::from_secs(3600);

/// Charges may be shown so much later than the use.
const CHARGES_SHOWN_WITHIN: Duration = Duration::from_secs(30 * 3600);

/// A process that ended by itself is started again after this.
const STARTED_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// When the market begins: a Monday evening.
const START: Time = Time(1_767_643_200_000);

/// Runs a scenario. The same scenario gives the same outcome, request by request.
pub async fn run(scenario: &Scenario, adapters: Adapters) -> Result<Outcome, DaemonError> {
    let rig = build(scenario, adapters);
    let mut outcome = Outcome::default();
    rig.crash_per_mille(scenario.crash_per_mille);
    let trouble_ends = START + scenario.trouble;
    for (after, ask) in &scenario.asks {
        run_until(&rig, START + *after, &mut outcome).await?;
        rig.ask(ask)?;
    }
    run_until(&rig, trouble_ends, &mut outcome).await?;
    rig.crash_per_mille(0);
    rig.server.with_faults(|faults| faults.set_enabled(false));
    run_until(&rig, trouble_ends + scenario.calm, &mut outcome).await?;
    end(&rig, &mut outcome).await?;
    outcome.violations.extend(rig.violations());
    outcome.requests = rig.requests();
    outcome.hours = rig.hours_since(START);
    Ok(outcome)
}

fn build(scenario: &Scenario, adapters: Adapters) -> Rig {
    let options = MarketOptions {
        seed: scenario.seed,
        start: START,
        balance: scenario.balance,
        machines: Some(scenario.machines),
        intensity: scenario.intensity,
        failures: scenario.failures,
        disputed: scenario.disputed,
        ..MarketOptions::default()
    };
    let clock = Arc::new(SimClock::new(START));
    let mut market = Market::generated(options);
    let account = market.account_for(TOKEN);
    let foreign = if scenario.shared {
        somebody_elses(&mut market, account)
    } else {
        Vec::new()
    };
    let faults = Faults::new(
        scenario.faults.clone(),
        FaultScript::default(),
        scenario.seed,
    );
    let wire = scenario.path.wire(scenario.quirks);
    let server = MarketServer::new(market, wire, faults, clock.clone());
    let mut checker = Checker::new(account, &scenario.jobs, scenario.engine.clone());
    for id in foreign {
        checker.foreign(id);
    }
    let settings = Settings {
        engine: scenario.engine.clone(),
        live: true,
        pace: Pace::Every,
        seed: scenario.seed,
        looking: crate::daemon::Looking::default(),
    };
    Rig::new(
        clock,
        Arc::new(server),
        Way {
            native: scenario.path == Path::Native,
            latency_ms: scenario.latency_ms.clone(),
        },
        checker,
        adapters,
        settings,
        scenario.jobs.clone(),
    )
}

/// Another program shares the account: what it holds is none of the daemon's business, whatever
/// its labels look like.
fn somebody_elses(market: &mut Market, account: u64) -> Vec<u64> {
    let labels = [None, Some("hg-zzzzzzzz-train-r0-12"), Some("train")];
    let offers: Vec<u64> = market
        .offers(account, SearchType::OnDemand, 8.0)
        .into_iter()
        .map(|offer| offer.id)
        .collect();
    let mut left = labels.into_iter();
    let mut made = Vec::new();
    for offer_id in offers {
        let Some(label) = left.as_slice().first() else {
            break;
        };
        let params = CreateParams {
            offer_id,
            image: Some("somebody/elses:latest".to_owned()),
            label: label.map(str::to_owned),
            ..CreateParams::default()
        };
        if let Ok(created) = market.create(account, params) {
            made.push(created.new_contract);
            left.next();
        }
    }
    made
}

/// Lets the checker read the story that the daemon tells.
struct Story(Arc<std::sync::Mutex<Checker>>);

impl Observer for Story {
    fn committed(&mut self, changes: &[Change]) {
        let mut checker = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            match change {
                Change::Event(event) => checker.told(event),
                Change::Intent(intent) => {
                    if let Effect::Destroy {
                        instance,
                        why: DestroyWhy::Limit | DestroyWhy::UserRequest,
                    } = intent.effect
                    {
                        checker.announced(instance.0);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Runs a daemon, and the next one after each crash, until a moment.
async fn run_until(rig: &Rig, until: Time, outcome: &mut Outcome) -> Result<(), DaemonError> {
    loop {
        let mut daemon = rig.start(vec![Box::new(Story(Arc::clone(&rig.checker)))])?;
        let life = daemon.run(Some(until), std::future::pending());
        match rig.until_crash(life).await {
            // A process that was refused before anything was its to look after ends; somebody
            // starts the next.
            Some(Err(DaemonError::Token(_))) => {
                rig.clock.advance(STARTED_AGAIN_AFTER);
                if rig.clock.now() >= until {
                    return Ok(());
                }
            }
            Some(done) => return done,
            None => outcome.crashes += 1,
        }
    }
}

/// Everything is calm: what was open must be settled, and all can be destroyed.
async fn end(rig: &Rig, outcome: &mut Outcome) -> Result<(), DaemonError> {
    rig.checker
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .ending();
    let mut daemon = rig.start(Vec::new())?;
    count(&daemon, outcome);
    let ended = daemon.destroy_all(END_WITHIN).await?;
    for left in ended.remaining {
        outcome
            .violations
            .push(format!("instance {} is not settled as gone", left.instance));
    }
    if ended.unsettled > 0 {
        outcome
            .violations
            .push(format!("{} intents are not settled", ended.unsettled));
    }
    if daemon
        .state()
        .reserved
        .values()
        .any(|&money| money != Money::ZERO)
    {
        outcome
            .violations
            .push("money stays reserved for nothing".to_owned());
    }
    {
        let mut checker = rig.checker.lock().unwrap_or_else(PoisonError::into_inner);
        rig.server
            .with_market(|market| checker.look_at_the_end(market));
    }
    // Nothing runs any more: once the last charges are shown, the books have to be the bill.
    rig.clock.advance(CHARGES_SHOWN_WITHIN);
    daemon.reconcile().await?;
    let checker = rig.checker.lock().unwrap_or_else(PoisonError::into_inner);
    let charged = rig.server.with_market(|market| checker.charged(market));
    for (name, bill) in charged {
        let posted = daemon.state().spent(&name);
        if posted != bill {
            outcome
                .violations
                .push(format!("{name} was billed {bill}, the books say {posted}"));
        }
    }
    Ok(())
}

fn count(daemon: &Daemon, outcome: &mut Outcome) {
    for replica in daemon.state().replicas.values() {
        outcome.starts += replica.starts;
        outcome.outbids += replica.outbids;
        outcome.finished += u32::from(replica.ending.is_some());
    }
    for intent in daemon.state().intents.values() {
        outcome
            .violations
            .push(format!("intent {} is still open after the calm", intent.id));
    }
}
