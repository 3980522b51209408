//! One seed's run: trouble, then calm, then the end; and what must hold in each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::checker::Checker;
use super::fate::{Hazards, MarketTime, lock};
use super::rig::{Adapters, Rig, Watch, Way};
use super::turn::{OTHER_TOKEN, Turn, rent};
use crate::clock::SimClock;
use crate::daemon::{Daemon, DaemonError, Looking, Observer, Pace, Settings, TickView};
use crate::engine::check::check;
use crate::engine::decide::decide;
use crate::market::faults::{FaultScript, FaultSpec, Faults};
use crate::market::{
    Disputed, Envelope, Market, MarketOptions, MarketServer, Paths, Quirks, WireOptions,
};
use crate::ports::{Clock, StoreError};
use crate::types::instance::{DestroyWhy, Phase, Rental};
use crate::types::intent::{Effect, IntentState};
use crate::types::job::Job;
use crate::types::ledger::{EntryKind, Scope};
use crate::types::money::Money;
use crate::types::plan::Action;
use crate::types::state::Change;
use crate::types::time::{Time, millis};
use crate::types::world::{EngineConfig, World};

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
    /// When the market begins.
    pub start: Time,
    /// The jobs.
    pub jobs: Vec<Arc<Job>>,
    /// The limits.
    pub engine: EngineConfig,
    /// What is looked at between polls.
    pub looking: Looking,
    /// How long requests fail and processes die.
    pub trouble: Duration,
    /// How long all is well after that.
    pub calm: Duration,
    /// At the end of the calm, how long nothing but the daemon acts.
    pub still: Duration,
    /// The faults, as the market's `--faults` takes them.
    pub faults: FaultSpec,
    /// What goes wrong around the processes.
    pub hazards: Hazards,
    /// The market, where it is not made of what follows.
    pub market: Option<MarketOptions>,
    /// Machines of the market.
    pub machines: u32,
    /// How busy rivals, takers and hosts are.
    pub intensity: f64,
    /// The play balance.
    pub balance: Money,
    /// Decimals of the charge rows.
    pub charge_decimals: u32,
    /// How often provisioning fails, as a multiple of the usual.
    pub failures: f64,
    /// Share of the machines whose host lies about them.
    pub liars: f64,
    /// How the market settles what its sources dispute.
    pub disputed: Disputed,
    /// What is particular about the gateway.
    pub quirks: Quirks,
    /// Whether another program holds instances on the same account.
    pub shared: bool,
    /// How the marketplace is reached.
    pub path: Path,
    /// What happens, and how long after the beginning; in order.
    pub script: Vec<(Duration, Turn)>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What was broken; empty is good.
    pub violations: Vec<String>,
    /// Processes that died on the way.
    pub crashes: u64,
    /// Processes that ended by themselves, because they could not go on, and were started again.
    pub restarts: u64,
    /// What went wrong, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Requests that were sent.
    pub requests: u64,
    /// Instances that were made.
    pub starts: u64,
    /// Times an instance of ours was displaced.
    pub outbids: u64,
    /// Replicas that finished.
    pub finished: u64,
    /// Commands that were to run once and were begun again after they had ended well, for their end was
    /// not heard.
    pub begun_again: u64,
    /// Market time that passed.
    pub passed: Duration,
    /// What the ledger says was spent, once all is settled.
    pub spend: Money,
    /// What the reported charge rows come to.
    pub billed: Money,
    /// What was accrued before anything was corrected by the bill; traffic is not.
    pub accrued: Money,
    /// What that cost exactly.
    pub exact: Money,
}

/// The token of the play account, which the adapters have to send.
pub const TOKEN: &str = "at_play";

/// At the end everything is destroyed, and that must be settled within this.
const END_WITHIN: Duration = Duration::from_secs(3600);

/// Charges are shown, and taken for final, so much later than the use.
const CHARGES_SHOWN_WITHIN: Duration = Duration::from_hours(40);

/// A process that ended by itself is started again after this.
const STARTED_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// When the market begins where nothing else is said: a Monday evening.
pub const START: Time = Time(1_767_643_200_000);

/// Runs a scenario. The same scenario gives the same outcome, request by request.
pub async fn run(scenario: &Scenario, adapters: Adapters) -> Result<Outcome, DaemonError> {
    play(scenario, build(scenario, adapters)).await
}

/// The same with somebody who sees the market at least every minute, and after whatever changed it.
///
/// # Errors
/// As [`run`].
pub async fn run_watched(
    scenario: &Scenario,
    adapters: Adapters,
    watch: Watch,
) -> Result<Outcome, DaemonError> {
    let rig = build(scenario, adapters);
    rig.watched_by(watch);
    play(scenario, rig).await
}

async fn play(scenario: &Scenario, rig: Rig) -> Result<Outcome, DaemonError> {
    let mut outcome = Outcome::default();
    let accrued = Arc::new(Mutex::new(Money::ZERO));
    let ends = scenario.start + scenario.trouble;
    rig.set_hazards(scenario.hazards.clone());
    Box::pin(run_until(&rig, ends, &mut outcome, &accrued)).await?;
    rig.set_hazards(Hazards {
        latency_ms: scenario.hazards.latency_ms.clone(),
        ..Hazards::default()
    });
    // The last turns of the script are due by then.
    rig.rests_until(ends);
    rig.server.with_faults(|faults| faults.set_enabled(false));
    let calm_ends = ends + scenario.calm;
    let still_from = Time(calm_ends.0 - millis(scenario.still));
    Box::pin(run_until(&rig, still_from, &mut outcome, &accrued)).await?;
    rig.server.with_market(Market::freeze);
    lock(&rig.checker).still();
    Box::pin(run_until(&rig, calm_ends, &mut outcome, &accrued)).await?;
    end(&rig, scenario, &mut outcome, &accrued).await?;
    outcome.violations.extend(rig.violations());
    outcome.requests = rig.requests();
    outcome.faults = rig.met();
    outcome.accrued = *lock(&accrued);
    Ok(outcome)
}

fn build(scenario: &Scenario, adapters: Adapters) -> Rig {
    let options = scenario.market.clone().unwrap_or(MarketOptions {
        seed: scenario.seed,
        start: scenario.start,
        balance: scenario.balance,
        charge_decimals: scenario.charge_decimals,
        machines: Some(scenario.machines),
        intensity: scenario.intensity,
        failures: scenario.failures,
        liars: scenario.liars,
        disputed: scenario.disputed,
        ..MarketOptions::default()
    });
    let clock = Arc::new(SimClock::new(scenario.start));
    let market_time = Arc::new(MarketTime::new(Arc::clone(&clock)));
    let mut market = Market::generated(options);
    let account = market.account_for(TOKEN);
    let mut checker = Checker::new(account, &scenario.jobs, scenario.engine.clone());
    if scenario.bills_what_it_shows() {
        checker.bills_what_it_shows();
    }
    let other = |(_, turn): &(Duration, Turn)| matches!(turn, Turn::OtherAccount(_));
    if scenario.script.iter().any(other) {
        checker.elsewhere(market.account_for(OTHER_TOKEN));
    }
    if scenario.shared {
        // What others hold is none of the daemon's business, whatever its labels look like.
        for label in [None, Some("hg-zzzzzzzz-train-r0-12"), Some("train")] {
            if let Some(id) = rent(&mut market, account, label) {
                checker.foreign(id);
            }
        }
    }
    let faults = Faults::new(
        scenario.faults.clone(),
        FaultScript::default(),
        scenario.seed,
    );
    let wire = scenario.path.wire(scenario.quirks);
    let server = MarketServer::new(market, wire, faults, market_time.clone());
    let settings = Settings {
        engine: scenario.engine.clone(),
        live: true,
        pace: Pace::Every,
        seed: scenario.seed,
        looking: scenario.looking,
    };
    let script = scenario
        .script
        .iter()
        .map(|(after, turn)| (scenario.start + *after, turn.clone()))
        .collect();
    let rig = Rig::new(
        clock,
        Arc::new(server),
        Way {
            native: scenario.path == Path::Native,
            latency_ms: scenario.hazards.latency_ms.clone(),
        },
        checker,
        adapters,
        settings,
        scenario.jobs.clone(),
    );
    rig.scripted(market_time, script)
}

/// Lets the checker read the story that the daemon tells, and what it is about to do; and adds up
/// what it accrues.
struct Story {
    checker: Arc<Mutex<Checker>>,
    server: Arc<MarketServer>,
    accrued: Arc<Mutex<Money>>,
    /// What took effect since the last tick.
    done: Vec<Effect>,
}

impl Story {
    fn of(rig: &Rig, accrued: &Arc<Mutex<Money>>) -> Box<dyn Observer> {
        Box::new(Self {
            checker: Arc::clone(&rig.checker),
            server: Arc::clone(&rig.server),
            accrued: Arc::clone(accrued),
            done: Vec::new(),
        })
    }
}

impl Observer for Story {
    fn committed(&mut self, changes: &[Change]) {
        let mut checker = lock(&self.checker);
        for change in changes {
            match change {
                Change::Event(event) => checker.told(event),
                Change::Entry(entry) if entry.kind == EntryKind::Accrue => {
                    *lock(&self.accrued) += entry.amount;
                }
                Change::Intent(intent) if intent.state == IntentState::Open => {
                    if let Effect::Destroy {
                        instance,
                        why: DestroyWhy::Limit | DestroyWhy::UserRequest,
                    } = intent.effect
                    {
                        checker.announced(instance.0);
                    }
                    self.server
                        .with_market(|market| checker.intends(intent, market));
                }
                Change::Intent(intent) if matches!(intent.state, IntentState::Done { .. }) => {
                    self.done.push(intent.effect.clone());
                }
                _ => {}
            }
        }
    }

    /// Plans again on what is known after a tick. Where it planned nothing, it plans nothing again.
    /// Where it did something, and that took effect, it does not plan the same again for the same
    /// replica or instance: another thing it may, for offers and the listing are still those from
    /// before, one machine is begun on once a tick, and what was refused is tried elsewhere.
    fn ticked(&mut self, view: &TickView<'_>) {
        let done = std::mem::take(&mut self.done);
        let mut checker = lock(&self.checker);
        checker.ticked();
        if !checker.is_still() {
            return;
        }
        let mut world = World {
            state: view.state.clone(),
            ..view.world.clone()
        };
        for effect in &done {
            read_back(effect, &mut world);
        }
        let (plan, _) = decide(&world);
        let (plan, _) = check(&world, &plan);
        let settled = view.plan.actions.is_empty();
        for Action { effect, .. } in plan.actions {
            let before = done.iter().find(|done| is_of_the_same(done, &effect));
            if settled || before.is_some() {
                checker.planned_again(&effect, before);
            }
        }
    }
}

/// What the next listing shows of what took effect: the record of an instance goes by what was read,
/// and asks for a bid or a stop again until it was.
fn read_back(effect: &Effect, world: &mut World) {
    let held = effect
        .instance()
        .and_then(|id| world.state.held.get_mut(&id));
    match (effect, held) {
        (Effect::SetBid { bid, .. }, Some(held)) => held.price = *bid,
        (Effect::Stop { .. }, Some(held)) => {
            held.phase = Phase::Stopped;
            held.parked = held.rental == Rental::OnDemand && held.stop_asked;
        }
        _ => {}
    }
}

/// Whether two effects are of one kind and for one replica or instance.
fn is_of_the_same(one: &Effect, other: &Effect) -> bool {
    match (one, other) {
        (Effect::Rent { replica, .. }, Effect::Rent { replica: other, .. }) => replica == other,
        // What was told to go on is told to hold once another was rented in its place.
        (
            Effect::Relabel { instance, tail },
            Effect::Relabel {
                instance: other,
                tail: then,
            },
        ) => instance == other && (tail.generation, tail.permit) == (then.generation, then.permit),
        _ => one.as_str() == other.as_str() && one.instance() == other.instance(),
    }
}

/// Runs a daemon, and the next one after each end, until a moment.
async fn run_until(
    rig: &Rig,
    until: Time,
    outcome: &mut Outcome,
    accrued: &Arc<Mutex<Money>>,
) -> Result<(), DaemonError> {
    while rig.clock.now() < until {
        let life = async {
            let mut daemon = rig.start(vec![Story::of(rig, accrued)])?;
            // It goes by its own clock.
            let until = Time(until.0 + rig.wall_is_ahead());
            daemon.run(Some(until), std::future::pending()).await
        };
        // A whole daemon is in it, which is much for a stack.
        match rig.until_crash(Box::pin(life)).await {
            None => outcome.crashes += 1,
            Some(Ok(())) => return Ok(()),
            // A process that cannot go on ends; somebody starts the next.
            Some(Err(
                DaemonError::Token(_)
                | DaemonError::OtherAccount { .. }
                | DaemonError::Store(StoreError::Full),
            )) => {
                outcome.restarts += 1;
                rig.rests(STARTED_AGAIN_AFTER);
            }
            Some(Err(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Everything is calm: what was open must be settled, and all can be destroyed.
async fn end(
    rig: &Rig,
    scenario: &Scenario,
    outcome: &mut Outcome,
    accrued: &Arc<Mutex<Money>>,
) -> Result<(), DaemonError> {
    lock(&rig.checker).ending();
    let mut daemon = rig.start(vec![Story::of(rig, accrued)])?;
    count(&daemon, outcome);
    outcome.begun_again = lock(&rig.checker).begun_again();
    rig.server
        .with_market(|market| lock(&rig.checker).look_for_leaks(market, daemon.state()));
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
    let reserved = &daemon.state().reserved;
    if reserved.values().any(|&money| money != Money::ZERO) {
        outcome
            .violations
            .push("money stays reserved for nothing".to_owned());
    }
    rig.server
        .with_market(|market| lock(&rig.checker).look_at_the_end(market));
    outcome.passed = rig.clock.now().since(scenario.start);
    // Nothing runs any more: once the last charges are shown, the books have to be the bill.
    rig.clock.advance(CHARGES_SHOWN_WITHIN);
    daemon.reconcile().await?;
    compare(rig, scenario, &daemon, outcome);
    Ok(())
}

/// The ledger against the bill, job by job, and the bill against the market's own books.
fn compare(rig: &Rig, scenario: &Scenario, daemon: &Daemon, outcome: &mut Outcome) {
    let checker = lock(&rig.checker);
    rig.server.with_market(|market| {
        for (name, bill) in checker.charged(market) {
            let posted = daemon.state().spent(&name);
            if posted != bill {
                outcome
                    .violations
                    .push(format!("{name} was billed {bill}, the books say {posted}"));
            }
        }
        let (billed, wrong) = checker.books(market, scenario.charge_decimals);
        outcome.billed = billed;
        outcome.violations.extend(wrong);
        outcome.exact = checker.exact_without_traffic(market);
        outcome.starts = checker.made() as u64;
    });
    outcome.spend = daemon.state().usage(&Scope::Account).total;
    if outcome.spend != outcome.billed {
        let text = format!(
            "the books say {} was spent, the bill {}",
            outcome.spend, outcome.billed
        );
        outcome.violations.push(text);
    }
    match rig.audit() {
        Ok((billed, problems)) => {
            if billed != outcome.billed {
                let of_rows = outcome.billed;
                let text = format!("the ledger's bill is {billed}, the rows come to {of_rows}");
                outcome.violations.push(text);
            }
            outcome.violations.extend(problems);
        }
        Err(error) => outcome.violations.push(format!("no audit: {error}")),
    }
}

fn count(daemon: &Daemon, outcome: &mut Outcome) {
    for replica in daemon.state().replicas.values() {
        outcome.outbids += u64::from(replica.outbids);
        outcome.finished += u64::from(replica.ending.is_some());
    }
    for intent in daemon.state().intents.values() {
        outcome
            .violations
            .push(format!("intent {} is still open after the calm", intent.id));
    }
}
