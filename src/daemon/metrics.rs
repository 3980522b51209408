//! What Prometheus scrapes. One narrow type in front of the registry: the daemon tells it what
//! was committed, what was called and what a tick decided; it knows the names and the labels.
//!
//! Gauges are made anew at each tick, so the series of an instance, a model or a job vanish with
//! it, and what is unknown has no series instead of a zero. Counters only grow; where a bill
//! corrects spending downwards the counter waits until spending has caught up. Labels come from
//! closed sets, from the jobs' names and models, and, on live instances only, from their ids.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{
    CounterVec, GaugeVec, Histogram, HistogramOpts, HistogramVec, Opts, Registry, TextEncoder,
};

mod instances;
mod limits;

use super::events::Way;
use crate::types::ids::{InstanceId, JobName, ReplicaId};
use crate::types::instance::{Account, Held, Listing, Rental};
use crate::types::intent::{Intent, IntentState};
use crate::types::job::Job;
use crate::types::ledger::{Component, EntryKind, Scope};
use crate::types::money::Money;
use crate::types::notification::NotificationKind;
use crate::types::offer::{Extent, Offer, Snapshot};
use crate::types::plan::{Plan, Report};
use crate::types::state::{Change, ReplicaRecord, Severity, State};
use crate::types::time::Time;
use crate::types::world::EngineConfig;

/// What a tick saw and decided.
#[derive(Clone, Copy, Debug)]
pub struct MetricsInput<'a> {
    /// When it was decided.
    pub now: Time,
    /// What is known after it.
    pub state: &'a State,
    /// The jobs whose policies are valid.
    pub jobs: &'a [Arc<Job>],
    /// The market as last seen.
    pub market: &'a Snapshot,
    /// The account's instances; `None`: the listing failed.
    pub listing: Option<&'a Listing>,
    /// The account; `None`: unreadable.
    pub account: Option<&'a Account>,
    /// Whether bids can be placed.
    pub can_bid: bool,
    /// The engine's configuration.
    pub config: &'a EngineConfig,
    /// What it decided, after the check.
    pub plan: &'a Plan,
    /// Why.
    pub report: &'a Report,
    /// Whether plans are executed; a dry run only shows them.
    pub live: bool,
    /// The database's size; `None`: unknown.
    pub store_bytes: Option<u64>,
}

/// Every metric of the daemon.
pub struct Metrics {
    registry: Registry,
    gauges: Gauges,
    counters: Counters,
    tick_seconds: Histogram,
    woken_seconds: Histogram,
    provision_seconds: HistogramVec,
    known: Mutex<Known>,
}

/// What counters are reckoned from: the records as they were before a change.
#[derive(Debug, Default)]
struct Known {
    spent: BTreeMap<(JobName, Component), Spent>,
    drift: BTreeMap<JobName, Money>,
    held: BTreeMap<InstanceId, Held>,
    replicas: BTreeMap<ReplicaId, ReplicaRecord>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// What was spent, and how much of it the counter shows: the most that it ever was.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    sum: Money,
    shown: Money,
}

macro_rules! metric_set {
    ($set:ident of $vec:ident { $($field:ident: $name:literal [$($label:literal),*] $help:literal,)* }) => {
        struct $set {
            $($field: $vec,)*
        }

        impl $set {
            fn new(registry: &Registry) -> Self {
                Self {
                    $($field: register(
                        registry,
                        $vec::new(Opts::new($name, $help), &[$($label),*]),
                    ),)*
                }
            }

            #[allow(dead_code, reason = "counters are never reset")]
            fn reset(&self) {
                $(self.$field.reset();)*
            }
        }
    };
}

metric_set! { Gauges of GaugeVec {
    build: "haggle_build_info" ["version"] "The running build, always 1.",
    live: "haggle_live" [] "1 where plans are executed, 0 in a dry run.",
    killed: "haggle_killed" [] "1 where spending is forbidden until `haggle resume --all`.",
    can_bid: "haggle_can_bid" [] "1 where bids can be placed through this gateway.",
    last_tick: "haggle_tick_timestamp_seconds" [] "When the last tick was decided.",
    snapshot: "haggle_snapshot_timestamp_seconds" [] "When the market was last seen.",
    queries: "haggle_snapshot_queries" ["extent"] "Searches of the last snapshot by how completely they were answered.",
    malformed: "haggle_snapshot_malformed_offers" [] "Rows of the last snapshot that could not be read.",
    offers: "haggle_offers" ["gpu_name", "rental"] "Offers with a known price, of the models that jobs name.",
    offer_price: "haggle_offer_price_per_gpu_dollars_per_hour" ["gpu_name", "rental", "quantile"] "Price of the GPU part: the floor for bids, else the on-demand rate.",
    eligible: "haggle_job_offers_eligible" ["job"] "Slots that the job could take.",
    refused: "haggle_job_offers_refused" ["job", "reason"] "Slots refused, by the first reason against each.",
    best: "haggle_job_best_price_per_gpu_dollars_per_hour" ["job", "rental"] "Landed price per useful GPU-hour of the cheapest slot.",
    credit: "haggle_account_credit_dollars" [] "Prepaid money left on the account.",
    reserve: "haggle_account_credit_reserve_dollars" [] "Credit that is never touched.",
    account_day: "haggle_account_limit_dollars_per_day" [] "The account's limit for a calendar day.",
    account_month: "haggle_account_limit_dollars_per_month" [] "The account's limit for a calendar month.",
    limit_used: "haggle_limit_used_ratio" ["scope", "name", "measure"] "How far a limit is used: 1 is all of it.",
    limit_breach: "haggle_limit_breach_seconds" ["scope", "name", "measure"] "Time until a limit is reached at the present burn; none where it is not reached in its period.",
    limit_used_dollars: "haggle_limit_used_dollars" ["scope", "name", "measure"] "What counts against a limit in dollars.",
    limit_bound_dollars: "haggle_limit_bound_dollars" ["scope", "name", "measure"] "A limit in dollars.",
    runway: "haggle_account_runway_seconds" [] "For how long the credit less its reserve lasts at what the whole account spends, where a minimum is set.",
    account_hour: "haggle_account_limit_dollars_per_hour" [] "The account's limit on the sum of rates.",
    instances_max: "haggle_instances_limit" [] "Most instances at once.",
    job_total: "haggle_job_limit_dollars" ["job"] "The job's budget in total.",
    job_day: "haggle_job_limit_dollars_per_day" ["job"] "The job's budget for a calendar day.",
    job_month: "haggle_job_limit_dollars_per_month" ["job"] "The job's budget for a calendar month.",
    job_hour: "haggle_job_limit_dollars_per_hour" ["job"] "The job's budget for the sum of rates.",
    job_ceiling: "haggle_job_price_limit_per_gpu_dollars_per_hour" ["job"] "The job's ceiling on compute and disk.",
    today: "haggle_job_spend_today_dollars" ["job"] "Spent on the current calendar day.",
    on_demand: "haggle_job_on_demand_equivalent_dollars" ["job"] "What the same useful GPU-hours would have cost on-demand.",
    done: "haggle_job_work_done_gpu_seconds" ["job"] "Useful GPU time done.",
    work: "haggle_job_work_gpu_seconds" ["job"] "Useful GPU time asked for.",
    reserved: "haggle_reserved_dollars" [] "Money set aside for requests that are not settled.",
    drift: "haggle_billing_drift_dollars" ["job"] "What bills corrected of our reckoning of GPUs and disks since this process began.",
    burn: "haggle_burn_dollars_per_hour" ["job"] "What is being billed now, GPUs and disks.",
    burn_worst: "haggle_burn_worst_dollars_per_hour" ["job"] "What may be billed at worst without our doing anything.",
    instances: "haggle_instances" ["phase"] "Instances of ours by what they do.",
    parked: "haggle_instances_parked" [] "Instances of ours that cannot resume by themselves.",
    orphans: "haggle_instances_orphaned" [] "Instances that carry our label and that no record knows.",
    destroying: "haggle_destroys_unsettled" [] "Instances whose destroy is not proven.",
    intents: "haggle_intents_unsettled" ["action"] "Requests of which the outcome is not proven.",
    instance_price: "haggle_instance_price_per_gpu_dollars_per_hour" ["instance", "job", "gpu_name", "rental"] "The standing bid, or the on-demand rate.",
    instance_running: "haggle_instance_running" ["instance", "job", "gpu_name", "rental"] "1 where it runs.",
    instance_spend: "haggle_instance_spend_dollars" ["instance", "job"] "What the instance has cost so far.",
    store_bytes: "haggle_store_size_bytes" [] "Size of the database.",
    store_failing: "haggle_store_failing" ["why"] "1 while the database cannot be written and nothing is sent.",
    idle: "haggle_idle_dollars_per_hour" ["why"] "What instances of ours cost that are not at work, by what they do instead.",
} }

metric_set! { Counters of CounterVec {
    api: "haggle_api_requests_total" ["operation", "outcome"] "Operations of the marketplace by outcome.",
    ticks: "haggle_ticks_total" [] "Ticks decided.",
    decisions: "haggle_decisions_total" ["action", "reason"] "Actions planned, by reason.",
    dropped: "haggle_decisions_dropped_total" ["action", "limit"] "Actions that the check refused, by limit.",
    actions: "haggle_actions_total" ["action", "outcome"] "Requests by what came of them.",
    bid_changes: "haggle_bid_changes_total" ["job", "direction"] "Changes of a standing bid.",
    outbids: "haggle_outbids_total" ["job"] "Losses of a running instance to a rival or the host.",
    starts: "haggle_instance_starts_total" ["job"] "Instances made.",
    lost: "haggle_work_lost_gpu_seconds_total" ["job"] "Useful GPU time that losses took.",
    spend: "haggle_spend_dollars_total" ["job", "component"] "Spent, by our own reckoning and as corrected by the bill.",
    billed: "haggle_billed_dollars_total" ["job"] "Charged by the marketplace, as its bill says, since this process began.",
    events: "haggle_events_total" ["severity"] "Things told to the user.",
    searches: "haggle_searches_total" ["outcome"] "Searches of the market that were due: made, or deferred for the quota.",
    notified: "haggle_notifications_total" ["way", "kind", "outcome"] "What the marketplace told by itself, by what became of it.",
} }

fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> C {
    // Names and labels are constants of this file: a bad one fails every test and every start.
    let collector = made.expect("a metric's name and labels are valid");
    registry
        .register(Box::new(collector.clone()))
        .expect("a metric is registered once");
    collector
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry of its own, with every metric and nothing known.
    pub fn new() -> Self {
        let registry = Registry::new();
        let gauges = Gauges::new(&registry);
        let counters = Counters::new(&registry);
        let tick_seconds = register(
            &registry,
            Histogram::with_opts(
                HistogramOpts::new("haggle_tick_duration_seconds", "Time that a tick took.")
                    .buckets(vec![
                        0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
                    ]),
            ),
        );
        let provision_seconds = register(
            &registry,
            HistogramVec::new(
                HistogramOpts::new(
                    "haggle_provision_duration_seconds",
                    "Time from an instance's creation to its first run.",
                )
                .buckets(vec![15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0]),
                &["job"],
            ),
        );
        let woken_seconds = register(
            &registry,
            Histogram::with_opts(
                HistogramOpts::new(
                    "haggle_notification_wait_duration_seconds",
                    "Time from an urgent notification to the tick that it woke.",
                )
                .buckets(vec![0.1, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]),
            ),
        );
        Self {
            registry,
            gauges,
            counters,
            tick_seconds,
            woken_seconds,
            provision_seconds,
            known: Mutex::default(),
        }
    }

    /// Takes up what was spent before this process began, so that spend does not begin at zero.
    pub fn seed_spend(&self, job: &JobName, component: Component, amount: Money) {
        self.add_spend(&mut self.known(), job, component, amount);
    }

    /// Counts an operation of the marketplace. `outcome` is a word of a closed set.
    pub fn api_call(&self, operation: &'static str, outcome: &'static str) {
        self.counters
            .api
            .with_label_values(&[operation, outcome])
            .inc();
    }

    /// Counts a notification of the marketplace. `outcome` is a word of a closed set.
    pub fn notified(&self, way: Way, kind: NotificationKind, outcome: &'static str) {
        self.counters
            .notified
            .with_label_values(&[way.as_str(), kind.as_str(), outcome])
            .inc();
    }

    /// Takes up why the store fails, if it does.
    pub fn store_failed(&self, why: Option<&str>) {
        self.gauges.store_failing.reset();
        if let Some(why) = why {
            self.gauges.store_failing.with_label_values(&[why]).set(1.0);
        }
    }

    /// Takes up how long an urgent notification waited for its tick.
    pub fn woken(&self, after: Duration) {
        self.woken_seconds.observe(after.as_secs_f64());
    }

    /// Counts the searches of a poll.
    pub fn searched(&self, made: usize, deferred: usize) {
        for (outcome, count) in [("made", made), ("deferred", deferred)] {
            let counter = self.counters.searches.with_label_values(&[outcome]);
            counter.inc_by(count as f64);
        }
    }

    /// Takes up the time that a tick took.
    pub fn tick_took(&self, duration: Duration) {
        self.tick_seconds.observe(duration.as_secs_f64());
    }

    /// Takes up what was known before this process began, so that none of it is counted as new.
    pub fn prime(&self, state: &State) {
        let mut known = self.known();
        known.held.clone_from(&state.held);
        known.replicas.clone_from(&state.replicas);
    }

    /// Counts what a committed batch of changes says.
    pub fn committed(&self, changes: &[Change]) {
        let mut known = self.known();
        for change in changes {
            match change {
                Change::Entry(entry) => {
                    if let (true, Some(component)) = (entry.kind.spends(), entry.component) {
                        let job = &entry.replica.job;
                        self.add_spend(&mut known, job, component, entry.amount);
                        if entry.kind == EntryKind::Correct && component != Component::Traffic {
                            *known.drift.entry(job.clone()).or_default() += entry.amount;
                        }
                    }
                }
                Change::Held(now) => {
                    let was = known.held.insert(now.id, (**now).clone());
                    self.count_held(was.as_ref(), now);
                }
                Change::Gone { instance, .. } => {
                    known.held.remove(instance);
                }
                Change::Intent(intent) => self.count_intent(intent),
                Change::Replica(now) => {
                    let was = known
                        .replicas
                        .insert(now.id.clone(), now.clone())
                        .unwrap_or_else(|| ReplicaRecord::new(now.id.clone()));
                    self.count_replica(&was, now);
                }
                Change::Event(event) => {
                    let severity = match event.severity {
                        Severity::Info => "info",
                        Severity::Warning => "warning",
                        Severity::Alarm => "alarm",
                    };
                    self.counters.events.with_label_values(&[severity]).inc();
                }
                _ => {}
            }
        }
    }

    /// Takes up what a tick saw and decided: once a tick.
    pub fn update(&self, input: &MetricsInput<'_>) {
        self.gauges.reset();
        self.count_decisions(input);
        self.show_self(input);
        self.show_market(input);
        self.show_jobs(input);
        self.show_instances(input);
        self.show_limits(input);
    }

    /// The text format of Prometheus, version 0.0.4.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| format!("# the metrics cannot be shown: {error}\n"))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_spend(&self, known: &mut Known, job: &JobName, component: Component, amount: Money) {
        let spent = known.spent.entry((job.clone(), component)).or_default();
        spent.sum += amount;
        if spent.sum > spent.shown {
            let grown = spent.sum - spent.shown;
            spent.shown = spent.sum;
            self.counters
                .spend
                .with_label_values(&[job.as_str(), component.as_str()])
                .inc_by(grown.as_dollars());
        }
    }

    fn count_held(&self, was: Option<&Held>, now: &Held) {
        let job = now.replica.job.as_str();
        if let Some(was) = was
            && now.rental == Rental::Bid
            && now.price != was.price
        {
            let direction = if now.price > was.price { "up" } else { "down" };
            self.counters
                .bid_changes
                .with_label_values(&[job, direction])
                .inc();
        }
        let billed = now.billed - was.map_or(Money::ZERO, |was| was.billed);
        if billed > Money::ZERO {
            self.counters
                .billed
                .with_label_values(&[job])
                .inc_by(billed.as_dollars());
        }
        let ran_before = was.is_some_and(|was| was.first_ran_at.is_some());
        if let (false, Some(first)) = (ran_before, now.first_ran_at) {
            self.provision_seconds
                .with_label_values(&[job])
                .observe(first.since(now.created_at).as_secs_f64());
        }
    }

    fn count_replica(&self, was: &ReplicaRecord, now: &ReplicaRecord) {
        let job = &[now.id.job.as_str()];
        let c = &self.counters;
        let outbids = now.outbids.saturating_sub(was.outbids);
        c.outbids.with_label_values(job).inc_by(outbids.into());
        let starts = now.starts.saturating_sub(was.starts);
        c.starts.with_label_values(job).inc_by(starts.into());
        let lost = (now.lost_gpu_ms - was.lost_gpu_ms).max(0);
        c.lost.with_label_values(job).inc_by(lost as f64 / 1000.0);
    }

    fn count_intent(&self, intent: &Intent) {
        let outcome = match &intent.state {
            IntentState::Open => "recorded",
            IntentState::Unknown { .. } => "unknown",
            IntentState::Done { .. } => "done",
            IntentState::Refused { .. } => "refused",
            IntentState::Void => "void",
        };
        self.counters
            .actions
            .with_label_values(&[intent.effect.as_str(), outcome])
            .inc();
    }

    fn count_decisions(&self, input: &MetricsInput<'_>) {
        let c = &self.counters;
        c.ticks.with_label_values::<&str>(&[]).inc();
        for action in &input.plan.actions {
            c.decisions
                .with_label_values(&[action.effect.as_str(), action.why.as_str()])
                .inc();
        }
        for (action, limit) in &input.report.dropped {
            c.dropped
                .with_label_values(&[action.effect.as_str(), limit.as_str()])
                .inc();
        }
    }

    fn show_self(&self, input: &MetricsInput<'_>) {
        let g = &self.gauges;
        let MetricsInput {
            state, config, now, ..
        } = *input;
        g.build
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        set(&g.live, f64::from(u8::from(input.live)));
        set(&g.killed, f64::from(u8::from(state.killed)));
        set(&g.can_bid, f64::from(u8::from(input.can_bid)));
        set(&g.last_tick, now.epoch_seconds());
        set(&g.reserve, config.credit_reserve.as_dollars());
        set(&g.instances_max, f64::from(config.instances_max));
        if let Some(limit) = config.per_day {
            set(&g.account_day, limit.as_dollars());
        }
        if let Some(limit) = config.per_month {
            set(&g.account_month, limit.as_dollars());
        }
        if let Some(limit) = config.per_hour {
            set(&g.account_hour, limit.as_dollars());
        }
        if let Some(credit) = input.account.and_then(|account| account.credit) {
            set(&g.credit, credit.as_dollars());
        }
        if let Some(bytes) = input.store_bytes {
            set(&g.store_bytes, bytes as f64);
        }
        let reserved: Money = state.reserved.values().copied().sum();
        set(&g.reserved, reserved.as_dollars());
    }

    fn show_market(&self, input: &MetricsInput<'_>) {
        let g = &self.gauges;
        let market = input.market;
        // A snapshot that was never taken has no age.
        if market.at.0 > 0 {
            set(&g.snapshot, market.at.epoch_seconds());
        }
        let malformed: u32 = market.coverage.iter().map(|c| c.malformed).sum();
        set(&g.malformed, f64::from(malformed));
        for coverage in &market.coverage {
            let extent = match coverage.extent {
                Extent::Complete => "complete",
                Extent::Partial => "partial",
                Extent::Stale { .. } => "stale",
            };
            g.queries.with_label_values(&[extent]).inc();
        }
        let models: BTreeSet<&str> = input
            .jobs
            .iter()
            .flat_map(|job| &job.requirements.gpu_models)
            .map(String::as_str)
            .collect();
        let mut prices: BTreeMap<(&str, Rental), Vec<f64>> = BTreeMap::new();
        for offer in &market.offers {
            let Some(model) = models.get(&*offer.gpu_name) else {
                continue;
            };
            for (rental, price) in per_gpu_prices(offer) {
                prices.entry((model, rental)).or_default().push(price);
            }
        }
        for ((model, rental), mut prices) in prices {
            prices.sort_by(f64::total_cmp);
            let labels = [model, rental.as_str()];
            g.offers.with_label_values(&labels).set(prices.len() as f64);
            for (quantile, per_mille) in [
                ("0", 0),
                ("0.1", 100),
                ("0.5", 500),
                ("0.9", 900),
                ("1", 1000),
            ] {
                let index = (prices.len() - 1) * per_mille / 1000;
                g.offer_price
                    .with_label_values(&[model, rental.as_str(), quantile])
                    .set(prices[index]);
            }
        }
    }

    fn show_jobs(&self, input: &MetricsInput<'_>) {
        let g = &self.gauges;
        let state = input.state;
        for (job, drift) in &self.known().drift {
            g.drift
                .with_label_values(&[job.as_str()])
                .set(drift.as_dollars());
        }
        for job in input.jobs {
            let label = &[job.name.as_str()];
            if let Some(total) = job.budget.total {
                g.job_total.with_label_values(label).set(total.as_dollars());
            }
            if let Some(day) = job.budget.per_day {
                g.job_day.with_label_values(label).set(day.as_dollars());
            }
            if let Some(month) = job.budget.per_month {
                g.job_month.with_label_values(label).set(month.as_dollars());
            }
            if let Some(hour) = job.budget.per_hour {
                g.job_hour.with_label_values(label).set(hour.as_dollars());
            }
            g.job_ceiling
                .with_label_values(label)
                .set(job.price_max.as_dollars());
            if let Some(work) = job.work_mgpu_h {
                // A milli-GPU-hour is 3.6 GPU-seconds.
                g.work.with_label_values(label).set(work as f64 * 3.6);
            }
        }
        let today = input.now.day(input.config.timezone);
        for record in state.jobs.values() {
            let label = &[record.name.as_str()];
            let scope = Scope::Job(record.name.clone());
            let spent = state.usage.get(&scope).map(|usage| usage.on(today));
            let spent = spent.unwrap_or_default();
            g.today.with_label_values(label).set(spent.as_dollars());
            g.on_demand
                .with_label_values(label)
                .set(record.on_demand_equivalent.as_dollars());
        }
        for replica in state.replicas.values() {
            g.done
                .with_label_values(&[replica.id.job.as_str()])
                .add(replica.done_gpu_ms() as f64 / 1000.0);
        }
        for report in &input.report.jobs {
            let job = report.job.as_str();
            g.eligible
                .with_label_values(&[job])
                .set(f64::from(report.eligible));
            for (reason, count) in &report.refused {
                g.refused
                    .with_label_values(&[job, reason.as_str()])
                    .set(f64::from(*count));
            }
            let on_demand = report.on_demand_best.as_ref();
            for best in report.best.first().into_iter().chain(on_demand) {
                g.best
                    .with_label_values(&[job, best.rental.as_str()])
                    .set(best.parts.total());
            }
        }
    }
}

fn set(gauge: &GaugeVec, value: f64) {
    gauge.with_label_values::<&str>(&[]).set(value);
}

fn per_gpu_prices(offer: &Offer) -> impl Iterator<Item = (Rental, f64)> {
    let gpus = f64::from(offer.gpus.max(1));
    let bid = offer.floor.map(|floor| (Rental::Bid, floor));
    let on_demand = offer.on_demand.map(|rate| (Rental::OnDemand, rate));
    bid.into_iter()
        .chain(on_demand)
        .map(move |(rental, rate)| (rental, rate.as_dollars() / gpus))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::{AccountId, Installation, IntentId, MachineId, OfferId, Slot};
    use crate::types::instance::DestroyWhy;
    use crate::types::instance::Phase;
    use crate::types::intent::Effect;
    use crate::types::ledger::{Entry, Payer};
    use crate::types::money::Rate;
    use crate::types::plan::{Action, Why};
    use crate::types::start::{GpuUse, StartRules};

    fn replica() -> ReplicaId {
        ReplicaId {
            job: "train".parse().unwrap(),
            index: 0,
        }
    }

    fn held(id: u64) -> Held {
        Held {
            id: InstanceId(id),
            intent: IntentId(id),
            replica: replica(),
            generation: 1,
            slot: Slot {
                machine: MachineId(7),
                gpus: 2,
            },
            host: None,
            gpu_ids: vec![0, 1],
            gpu_name: "RTX 4090".into(),
            rental: Rental::Bid,
            price: Rate(400_000_000),
            bid_before_park: None,
            last_bid: None,
            storage: Rate(2_000_000),
            disk_gb: 10,
            traffic_prices: None,
            created_at: Time(1_000),
            ends_at: None,
            ssh: None,
            phase: Phase::Running,
            phase_since: Time(61_000),
            parked: false,
            stop_asked: false,
            first_ran_at: Some(Time(61_000)),
            raised_at: None,
            bid_sent_at: None,
            raises: 0,
            accrued_to: Time(61_000),
            billed_ms: 0,
            run_ms: 0,
            spent_gpu: Money::ZERO,
            spent_disk: Money::ZERO,
            spent_traffic: Money::ZERO,
            billed: Money::ZERO,
            on_demand_rate: None,
            destroying: None,
            destroy_sent_at: None,
            destroying_since: None,
            destroyed_at: None,
            tail: None,
            relabelled_at: None,
            runner: None,
            bringing: None,
            lost_work: std::collections::BTreeMap::new(),
            asked: None,
            coming_up: None,
            start_fault: None,
            gpu_use: GpuUse::default(),
            odds: None,
            exposed_ms: 0,
            outbid_at: None,
            copies_failed: 0,
            copied: Money::ZERO,
            kept_gpu_ms: 0,
        }
    }

    struct Tick {
        state: State,
        market: Snapshot,
        listing: Option<Listing>,
        account: Option<Account>,
        plan: Plan,
    }

    impl Tick {
        fn new() -> Self {
            let mut state = State::new(Installation::from_seed(1));
            state.apply(&Change::Held(Box::new(held(4711))));
            Self {
                state,
                market: Snapshot::default(),
                listing: Some(Listing::default()),
                account: Some(Account {
                    id: AccountId(1),
                    credit: Some(Money::dollars(25)),
                }),
                plan: Plan {
                    actions: vec![Action {
                        replica: Some(replica()),
                        effect: Effect::Destroy {
                            instance: InstanceId(4711),
                            why: DestroyWhy::Finished,
                        },
                        why: Why::Ended,
                        reserve: Money::ZERO,
                        parts: None,
                        on_demand_seen: None,
                    }],
                },
            }
        }

        fn shown_by(&self, metrics: &Metrics) -> String {
            metrics.update(&MetricsInput {
                now: Time(120_000),
                state: &self.state,
                jobs: &[],
                market: &self.market,
                listing: self.listing.as_ref(),
                account: self.account.as_ref(),
                can_bid: true,
                config: &EngineConfig::default(),
                plan: &self.plan,
                report: &Report::default(),
                live: true,
                store_bytes: Some(4096),
            });
            metrics.render()
        }
    }

    fn entry(amount: i64) -> Change {
        Change::Entry(Entry {
            at: Time(1),
            day: chrono::NaiveDate::default(),
            payer: Payer::default(),
            kind: EntryKind::Accrue,
            replica: replica(),
            intent: IntentId(1),
            instance: Some(InstanceId(4711)),
            component: Some(Component::Gpu),
            amount: Money(amount),
        })
    }

    #[test]
    fn series_of_an_instance_vanish_with_it() {
        let metrics = Metrics::new();
        let mut tick = Tick::new();
        let text = tick.shown_by(&metrics);
        let price = r#"haggle_instance_price_per_gpu_dollars_per_hour{gpu_name="RTX 4090",instance="4711",job="train",rental="bid"} 0.2"#;
        assert!(text.contains(price), "{text}");
        assert!(text.contains(r#"haggle_burn_dollars_per_hour{job="train"} 0.402"#));
        assert!(text.contains(r#"haggle_decisions_total{action="destroy",reason="ended"} 1"#));
        tick.state.apply(&Change::Gone {
            instance: InstanceId(4711),
            at: Time(2),
        });
        let text = tick.shown_by(&metrics);
        assert!(!text.contains("4711"), "{text}");
        assert!(text.contains(r#"haggle_instances{phase="running"} 0"#));
    }

    #[test]
    fn the_unknown_has_no_series() {
        let metrics = Metrics::new();
        let mut tick = Tick::new();
        let known = tick.shown_by(&metrics);
        assert!(known.contains("haggle_account_credit_dollars 25"));
        assert!(known.contains("haggle_instances_orphaned 0"));
        tick.account = None;
        tick.listing = None;
        let unknown = tick.shown_by(&metrics);
        assert!(!unknown.contains("haggle_account_credit_dollars"));
        assert!(!unknown.contains("haggle_instances_orphaned"));
        assert!(!unknown.contains("haggle_snapshot_timestamp_seconds"));
    }

    #[test]
    fn spend_only_grows_and_waits_out_a_correction_downwards() {
        let metrics = Metrics::new();
        let job = replica().job;
        metrics.seed_spend(&job, Component::Gpu, Money::dollars(1));
        metrics.committed(&[entry(500_000_000), entry(-200_000_000)]);
        let spend = r#"haggle_spend_dollars_total{component="gpu",job="train"}"#;
        assert!(metrics.render().contains(&format!("{spend} 1.5\n")));
        metrics.committed(&[entry(300_000_000)]);
        assert!(metrics.render().contains(&format!("{spend} 1.6\n")));
    }

    #[test]
    fn changes_of_records_are_counted_once() {
        let metrics = Metrics::new();
        metrics.prime(&Tick::new().state);
        let mut raised = held(4711);
        raised.price = Rate(420_000_000);
        raised.billed = Money::dollars(2);
        let mut replica = ReplicaRecord::new(replica());
        replica.outbids = 1;
        let again = ReplicaRecord { ..replica.clone() };
        metrics.committed(&[
            Change::Held(Box::new(raised.clone())),
            Change::Held(Box::new(raised)),
            Change::Replica(replica),
            Change::Replica(again),
        ]);
        let text = metrics.render();
        let up = r#"haggle_bid_changes_total{direction="up",job="train"} 1"#;
        assert!(text.contains(up), "{text}");
        assert!(text.contains(r#"haggle_billed_dollars_total{job="train"} 2"#));
        assert!(text.contains(r#"haggle_outbids_total{job="train"} 1"#));
        // It had run before this process began.
        assert!(!text.contains("haggle_provision_duration_seconds_count"));
    }

    #[test]
    fn prices_are_shown_of_the_models_that_jobs_name() {
        let metrics = Metrics::new();
        let mut tick = Tick::new();
        let offer = |id: u64, model: &str, floor: i64| {
            let mut offer: Offer = serde_json::from_value(serde_json::json!({
                "id": id, "machine": id, "host": null, "gpus": 2, "machine_gpus": 2,
                "gpu_ids": [], "gpu_name": model, "gpu_ram_mb": null, "compute_cap": null,
                "cuda_max": null, "driver_version": null, "nvlink_gb_s": null,
                "pcie_gb_s": null, "cpu_cores": null, "cpu_ram_mb": null, "disk_gb": null,
                "disk_mb_s": null, "inet_down_mbit_s": null, "inet_up_mbit_s": null,
                "inet_down_price": null, "inet_up_price": null, "storage_price": null,
                "reliability": null, "verified": null, "datacenter": null, "static_ip": null,
                "direct_ports": null, "country": null, "rentable": null, "rented": null,
                "ends_at": null, "on_demand": null, "floor": null, "dlperf": null
            }))
            .unwrap();
            offer.id = OfferId(id);
            offer.floor = Some(Rate(floor));
            offer
        };
        tick.market.offers = vec![
            offer(1, "RTX 4090", 200_000_000),
            offer(2, "RTX 4090", 600_000_000),
            offer(3, "RTX 3090", 100_000_000),
        ];
        let job = job_naming("RTX 4090");
        metrics.update(&MetricsInput {
            now: Time(120_000),
            state: &tick.state,
            jobs: &[Arc::new(job)],
            market: &tick.market,
            listing: None,
            account: None,
            can_bid: true,
            config: &EngineConfig::default(),
            plan: &tick.plan,
            report: &Report::default(),
            live: true,
            store_bytes: None,
        });
        let text = metrics.render();
        let count = r#"haggle_offers{gpu_name="RTX 4090",rental="bid"} 2"#;
        assert!(text.contains(count), "{text}");
        let least = r#"haggle_offer_price_per_gpu_dollars_per_hour{gpu_name="RTX 4090",quantile="0",rental="bid"} 0.1"#;
        assert!(text.contains(least), "{text}");
        assert!(!text.contains("RTX 3090"), "{text}");
    }

    fn job_naming(model: &str) -> Job {
        use crate::types::job::{
            BidMargin, Budget, Finish, RentalChoice, Requirements, Retries, Run, RunType,
        };
        Job {
            name: "train".parse().unwrap(),
            owner: None,
            tags: Vec::new(),
            priority: 0,
            replicas: 1,
            array: None,
            service: None,
            run: Run {
                image: Some("image".into()),
                login: None,
                template: None,
                run_type: RunType::Args,
                runner: None,
                onstart: None,
                args: Vec::new(),
                env: BTreeMap::new(),
                secrets: BTreeMap::new(),
                ports: Vec::new(),
            },
            requirements: Requirements {
                gpu_models: vec![model.into()],
                gpu_count: 2,
                disk_gb: 10,
                ..Requirements::default()
            },
            traffic_down_gb: 0.0,
            traffic_up_gb: 0.0,
            traffic_gb_max: None,
            rental: RentalChoice::Auto,
            price_max: Rate(500_000_000),
            bid_margin: BidMargin::PartsPerMillion(50_000),
            patience: Duration::from_mins(10),
            budget: Budget::default(),
            work_mgpu_h: None,
            reference_gpu: None,
            factors_ppm: BTreeMap::new(),
            checkpoint_every: None,
            checkpoint_place: None,
            disposable: true,
            restartable: false,
            boot_overhead: Duration::ZERO,
            windows: Vec::new(),
            finish: Finish::Manual,
            min_run: Duration::ZERO,
            retries: Retries {
                max: 3,
                backoff: Duration::from_mins(1),
                backoff_max: Duration::from_hours(1),
            },
            lifetime_max: None,
            provision_timeout: Duration::from_mins(15),
            start: StartRules::default(),
            idle_after: None,
            deadline: None,
            deadline_policy: crate::types::deadline::DeadlineKind::default(),
        }
    }

    /// The conventions of Prometheus, held for every name that is exported.
    #[test]
    fn names_and_labels_follow_the_conventions() {
        let metrics = Metrics::new();
        metrics.api_call("offers", "ok");
        metrics.tick_took(Duration::from_millis(20));
        metrics.committed(&[entry(1), Change::Held(Box::new(held(4711)))]);
        let text = Tick::new().shown_by(&metrics);
        let mut kinds = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            kinds.insert(name, kind);
        }
        assert!(kinds.len() > 25, "{kinds:?}");
        for (name, kind) in &kinds {
            assert!(name.starts_with("haggle_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == "counter", "{name}");
            for unit in [
                "_ms", "_millis", "_minutes", "_hours", "_percent", "_cents", "_mb",
            ] {
                assert!(!name.ends_with(unit), "{name} is not in a base unit");
            }
        }
        // Only the series of live instances may name an instance.
        for line in text.lines().filter(|line| line.contains("instance=\"")) {
            assert!(line.starts_with("haggle_instance_"), "{line}");
        }
        let helps = text.lines().filter(|line| line.starts_with("# HELP "));
        assert_eq!(helps.count(), kinds.len());
    }
}
