//! The table of all metrics: names, labels and meanings. `docs/metrics.md` is made of it.

use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry};

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

pub(super) fn register<C: prometheus::core::Collector + Clone + 'static>(
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

macro_rules! metric_set {
    ($set:ident of $vec:ident, $kind:literal { $($field:ident: $name:literal [$($label:literal),*] $help:literal,)* }) => {
        pub(super) struct $set {
            $(pub(super) $field: $vec,)*
        }

        impl $set {
            pub(super) const ROWS: &[Row] = &[
                $(Row { name: $name, kind: $kind, labels: &[$($label),*], help: $help },)*
            ];

            pub(super) fn new(registry: &Registry) -> Self {
                Self {
                    $($field: register(
                        registry,
                        $vec::new(Opts::new($name, $help), &[$($label),*]),
                    ),)*
                }
            }

            #[allow(dead_code, reason = "what is counted as it happens is never reset")]
            pub(super) fn reset(&self) {
                $(self.$field.reset();)*
            }
        }
    };
}

metric_set! { Gauges of GaugeVec, "gauge" {
    build: "haggle_build_info" ["version"] "The running build, always 1.",
    live: "haggle_live" [] "1 where plans are executed, 0 in a dry run.",
    killed: "haggle_killed" [] "1 where spending is forbidden until `haggle resume --all`.",
    can_bid: "haggle_can_bid" [] "1 where bids can be placed through this gateway.",
    last_tick: "haggle_tick_timestamp_seconds" [] "When the last tick was decided.",
    policies_broken: "haggle_policies_broken" [] "Policy files that cannot be used.",
    jobs: "haggle_jobs" [] "Jobs whose policies are valid.",
    unread: "haggle_poll_unread" [] "What the last poll could not read: the account, the instances, searches.",
    snapshot: "haggle_snapshot_timestamp_seconds" [] "When the market was last seen.",
    queries: "haggle_snapshot_queries" ["extent"] "Searches of the last snapshot by how completely they were answered.",
    malformed: "haggle_snapshot_malformed_offers" [] "Rows of the last snapshot that could not be read.",
    offers: "haggle_offers" ["gpu_name", "rental"] "Offers with a known price, of the models that jobs name.",
    offer_price: "haggle_offer_price_per_gpu_dollars_per_hour" ["gpu_name", "rental", "at"] "Price of the GPU part, the floor for bids, else the on-demand rate: the least, what a tenth, half and nine tenths cost at most, and the most.",
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
    savings: "haggle_job_savings_dollars" ["job"] "What the same useful GPU-hours would have cost more on-demand; negative where they would have cost less.",
    useful_cost: "haggle_job_cost_per_useful_gpu_dollars_per_hour" ["job"] "What a useful GPU-hour has cost so far, everything in it; none before there is one.",
    done: "haggle_job_work_done_gpu_seconds" ["job"] "Useful GPU time done.",
    work: "haggle_job_work_gpu_seconds" ["job"] "Useful GPU time asked for.",
    slack: "haggle_job_deadline_slack_seconds" ["job"] "Time that the job's least replica has left beyond what the rest of its work takes on demand, with a start; negative where its deadline cannot be kept.",
    replicas: "haggle_job_replicas" ["job", "situation"] "The job's replicas by what they do or wait for.",
    reserved: "haggle_reserved_dollars" [] "Money set aside for requests that are not settled.",
    drift: "haggle_billing_drift_dollars" ["job"] "What bills corrected of our reckoning of GPUs and disks since this process began.",
    burn: "haggle_burn_dollars_per_hour" ["job"] "What is being billed now, GPUs and disks.",
    burn_worst: "haggle_burn_worst_dollars_per_hour" ["job"] "What may be billed at worst without our doing anything.",
    instances: "haggle_instances" ["phase"] "Instances of ours by what they do.",
    parked: "haggle_instances_parked" [] "Instances of ours that cannot resume by themselves.",
    orphans: "haggle_instances_orphaned" [] "Instances that carry our label and that no record knows.",
    destroying: "haggle_destroys_unsettled" [] "Instances whose destroy is not proven.",
    destroy_oldest: "haggle_destroy_unsettled_seconds" [] "For how long the oldest such instance has been seen to be there although it is being destroyed; 0 where there is none.",
    intents: "haggle_intents_unsettled" ["action"] "Requests of which the outcome is not proven.",
    instance_price: "haggle_instance_price_per_gpu_dollars_per_hour" ["instance", "job", "gpu_name", "rental"] "The standing bid, or the on-demand rate.",
    instance_floor: "haggle_instance_floor_per_gpu_dollars_per_hour" ["instance", "job", "gpu_name", "rental"] "The least bid that the market shows for the same slot; where we hold it, it lags and may be the echo of our own.",
    instance_running: "haggle_instance_running" ["instance", "job", "gpu_name", "rental"] "1 where it runs.",
    instance_spend: "haggle_instance_spend_dollars" ["instance", "job"] "What the instance has cost so far.",
    store_bytes: "haggle_store_size_bytes" [] "Size of the database.",
    store_failing: "haggle_store_failing" ["why"] "1 while the database cannot be written and nothing is sent.",
    idle: "haggle_idle_dollars_per_hour" ["why"] "What instances of ours cost that are not at work, by what they do instead.",
} }

metric_set! { Counters of CounterVec, "counter" {
    api: "haggle_api_requests_total" ["operation", "outcome"] "Operations of the marketplace by outcome; `throttled` is one of them.",
    ticks: "haggle_ticks_total" [] "Ticks decided.",
    decisions: "haggle_decisions_total" ["action", "reason"] "Actions planned, by reason.",
    dropped: "haggle_decisions_dropped_total" ["action", "limit"] "Actions that the check refused, by limit.",
    actions: "haggle_actions_total" ["action", "outcome"] "Requests by what came of them.",
    events: "haggle_events_total" ["severity"] "Things told to the user.",
    searches: "haggle_searches_total" ["outcome"] "Searches of the market that were due: made, or deferred for the quota.",
    notified: "haggle_notifications_total" ["way", "kind", "outcome"] "What the marketplace told by itself, by what became of it.",
    messages: "haggle_messages_total" ["channel", "outcome"] "Messages to the channels of `[[notify]]` by what became of them.",
} }

// Summed up by job apart, and shown anew each time: see `totals.rs`.
metric_set! { JobCounters of CounterVec, "counter" {
    bid_changes: "haggle_bid_changes_total" ["job", "direction"] "Changes of a standing bid.",
    outbids: "haggle_outbids_total" ["job"] "Losses of a running instance to a rival or the host.",
    starts: "haggle_instance_starts_total" ["job"] "Instances made.",
    lost: "haggle_work_lost_gpu_seconds_total" ["job"] "Useful GPU time that losses took.",
    spend: "haggle_spend_dollars_total" ["job", "component"] "Spent, by our own reckoning and as corrected by the bill.",
    billed: "haggle_billed_dollars_total" ["job"] "Charged by the marketplace, as its bill says, since this process began.",
} }

macro_rules! histograms {
    ($($field:ident: $name:literal [$($label:literal),*] [$($bound:literal),*] $help:literal,)*) => {
        pub(super) struct Histograms {
            $(pub(super) $field: HistogramVec,)*
        }

        impl Histograms {
            pub(super) const ROWS: &[Row] = &[
                $(Row { name: $name, kind: "histogram", labels: &[$($label),*], help: $help },)*
            ];

            pub(super) fn new(registry: &Registry) -> Self {
                Self {
                    $($field: register(
                        registry,
                        HistogramVec::new(
                            HistogramOpts::new($name, $help).buckets(vec![$($bound),*]),
                            &[$($label),*],
                        ),
                    ),)*
                }
            }
        }
    };
}

histograms! {
    tick: "haggle_tick_duration_seconds" []
        [0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0]
        "Time that a tick took.",
    woken: "haggle_notification_wait_duration_seconds" []
        [0.1, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]
        "Time from an urgent notification to the tick that it woke.",
    provision: "haggle_provision_duration_seconds" []
        [15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0]
        "Time from an instance's creation to its first run.",
    loss_detection: "haggle_loss_detection_duration_seconds" []
        [5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0]
        "Time from when a lost instance was last seen at work to when it was seen not to be: it was gone for as long at most.",
    recovery: "haggle_recovery_duration_seconds" ["way"]
        [30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0, 43200.0]
        "Time from when a loss was seen to when its replica ran again: the same instance, or another one.",
}

/// Every row, in the order of the names.
fn rows() -> Vec<Row> {
    let mut rows = [
        Gauges::ROWS,
        Counters::ROWS,
        JobCounters::ROWS,
        Histograms::ROWS,
    ]
    .concat();
    rows.sort_by_key(|row| row.name);
    rows
}

/// The unit that a name ends with.
fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    for (ending, unit) in [
        ("_timestamp_seconds", "seconds since 1970"),
        ("_gpu_seconds", "GPU-seconds"),
        ("_seconds", "seconds"),
        ("_per_gpu_dollars_per_hour", "dollars per GPU and hour"),
        ("_dollars_per_hour", "dollars per hour"),
        ("_dollars_per_day", "dollars per day"),
        ("_dollars_per_month", "dollars per month"),
        ("_dollars", "dollars"),
        ("_bytes", "bytes"),
        ("_ratio", "1 is all"),
    ] {
        if name.ends_with(ending) {
            return unit;
        }
    }
    "number"
}

/// A Markdown table of all metrics.
pub fn reference_table() -> String {
    let mut text =
        String::from("| metric | type | labels | unit | meaning |\n|---|---|---|---|---|\n");
    for row in rows() {
        let labels: Vec<String> = row
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        text.push_str(&format!(
            "| `{}` | {} | {} | {} | {} |\n",
            row.name,
            row.kind,
            labels.join(" "),
            unit(row.name),
            row.help
        ));
    }
    text
}
