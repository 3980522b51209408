//! What is shown, and how much of it there can be.

use std::collections::BTreeSet;

use super::*;
use crate::types::ids::{AccountId, Installation, IntentId, MachineId, OfferId, Slot};
use crate::types::instance::{DestroyWhy, Phase, Rental};
use crate::types::intent::Effect;
use crate::types::job::{RentalChoice, Requirements};
use crate::types::ledger::{Entry, EntryKind, Payer, Scope};
use crate::types::limit::{LimitRow, Measure};
use crate::types::money::Rate;
use crate::types::offer::Offer;
use crate::types::plan::{
    Action, Candidate, JobReport, PriceParts, Projection, Refusal, ReplicaReport, Situation, Why,
};
use crate::types::state::{Change, JobRecord, Wish};

/// When ticks are decided here.
const NOW: Time = Time(120_000);

fn replica() -> ReplicaId {
    ReplicaId {
        job: "train".parse().unwrap(),
        index: 0,
    }
}

fn held(id: u64) -> Held {
    Held {
        generation: 1,
        slot: Slot {
            machine: MachineId(7),
            gpus: 2,
        },
        gpu_ids: vec![0, 1],
        gpu_name: "RTX 4090".into(),
        price: Rate(400_000_000),
        storage: Rate(2_000_000),
        disk_gb: 10,
        created_at: Time(1_000),
        phase: Phase::Running,
        first_ran_at: Some(Time(61_000)),
        ..Held::new(InstanceId(id), IntentId(id), replica(), Time(61_000))
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
        self.shown_with(metrics, &[], &Report::default())
    }

    fn shown_with(&self, metrics: &Metrics, jobs: &[Arc<Job>], report: &Report) -> String {
        metrics.update(&MetricsInput {
            now: NOW,
            state: &self.state,
            jobs,
            policies_broken: 0,
            unread: 0,
            market: &self.market,
            listing: self.listing.as_ref(),
            account: self.account.as_ref(),
            can_bid: true,
            config: &EngineConfig::default(),
            plan: &self.plan,
            report,
            live: true,
            store_bytes: Some(4096),
        });
        metrics.render()
    }
}

fn offer(id: u64, model: &str, floor: i64) -> Offer {
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
    assert!(text.contains("haggle_provision_duration_seconds_count 0"));
}

#[test]
fn prices_are_shown_of_the_models_that_jobs_name() {
    let metrics = Metrics::new();
    let mut tick = Tick::new();
    tick.market.offers = vec![
        offer(1, "RTX 4090", 200_000_000),
        offer(2, "RTX 4090", 600_000_000),
        offer(3, "RTX 3090", 100_000_000),
    ];
    let jobs = [Arc::new(job_naming("RTX 4090"))];
    let text = tick.shown_with(&metrics, &jobs, &Report::default());
    let count = r#"haggle_offers{gpu_name="RTX 4090",rental="bid"} 2"#;
    assert!(text.contains(count), "{text}");
    let least = r#"haggle_offer_price_per_gpu_dollars_per_hour{at="min",gpu_name="RTX 4090",rental="bid"} 0.1"#;
    assert!(text.contains(least), "{text}");
    assert!(!text.contains("RTX 3090"), "{text}");
}

fn job_naming(model: &str) -> Job {
    let sample = crate::engine::eligible::samples::job("train");
    Job {
        requirements: Requirements {
            gpu_models: vec![model.into()],
            gpu_count: 2,
            ..sample.requirements
        },
        rental: RentalChoice::Auto,
        ..sample
    }
}

/// The series that a text has.
fn series(text: &str) -> usize {
    text.lines().filter(|line| !line.starts_with('#')).count()
}

/// What a scene of 10,000 offers has of jobs and instances.
fn crowd(jobs: usize, rented: u64) -> (Tick, Vec<Arc<Job>>, Report) {
    let mut tick = Tick::new();
    let models: Vec<String> = (0..40).map(|n| format!("Model {n}")).collect();
    tick.market.offers = (0..10_000_u64)
        .map(|id| offer(id, &models[id as usize % models.len()], 200_000_000))
        .collect();
    for offer in &mut tick.market.offers {
        offer.on_demand = Some(Rate(900_000_000));
    }
    let mut report = Report::default();
    let mut all = Vec::new();
    for n in 0..jobs {
        let mut job = job_naming(&models[n % models.len()]);
        job.name = format!("job-{n}").parse().unwrap();
        let every = Money::dollars(9);
        job.budget.total = Some(every);
        job.budget.per_day = Some(every);
        job.budget.per_month = Some(every);
        job.budget.per_hour = Some(Rate(900_000_000));
        job.work_mgpu_h = Some(5_000);
        let id = ReplicaId {
            job: job.name.clone(),
            index: 0,
        };
        let mut record = JobRecord::new(job.name.clone());
        record.on_demand_equivalent = every;
        tick.state.jobs.insert(job.name.clone(), record);
        let mut replica = ReplicaRecord::new(id.clone());
        replica.durable_gpu_ms = 3_600_000;
        tick.state.replicas.insert(id.clone(), replica);
        for measure in [
            Measure::Total,
            Measure::Day,
            Measure::Month,
            Measure::Hour,
            Measure::Instances,
            Measure::Gpus,
        ] {
            report.limits.push(Projection {
                row: LimitRow {
                    scope: Scope::Job(job.name.clone()),
                    measure,
                    bound: every.0,
                },
                used: Some(1_000_000_000),
                breach_at: Some(NOW + Duration::from_hours(1)),
            });
        }
        let candidate = |rental| Candidate {
            slot: Slot {
                machine: MachineId(1),
                gpus: 2,
            },
            offer: OfferId(1),
            gpu_name: "RTX 4090".to_owned(),
            rental,
            price: Rate(1),
            storage: Rate(1),
            parts: PriceParts::default(),
        };
        report.jobs.push(JobReport {
            job: job.name.clone(),
            replicas: vec![ReplicaReport {
                replica: id,
                situation: Situation::Running,
                recourses: Vec::new(),
                deadline: None,
            }],
            eligible: 100,
            best: vec![candidate(Rental::Bid)],
            // As many reasons as a policy that asks for everything meets.
            refused: [
                Refusal::GpuModel,
                Refusal::GpuCount,
                Refusal::GpuRam,
                Refusal::DiskSize,
                Refusal::Download,
                Refusal::Reliability,
                Refusal::Unverified,
                Refusal::Country,
                Refusal::EndsTooSoon,
                Refusal::OverCeiling,
                Refusal::PriceUnknown,
                Refusal::StaleOffer,
            ]
            .map(|refusal| (refusal, 7))
            .into(),
            best_refused: Vec::new(),
            on_demand_best: Some(candidate(Rental::OnDemand)),
        });
        all.push(Arc::new(job));
    }
    for n in 0..rented {
        let mut held = held(10_000 + n);
        held.replica.job = format!("job-{}", n as usize % jobs).parse().unwrap();
        held.slot.machine = MachineId(n);
        tick.state.apply(&Change::Held(Box::new(held)));
    }
    (tick, all, report)
}

/// The series that 10,000 offers, 100 jobs and 32 instances (the usual most) make, and what a
/// scrape takes: run with `--nocapture` to see. More jobs and models make no more series.
#[test]
#[allow(clippy::print_stdout, reason = "a test says what it measured")]
fn series_are_bounded() {
    let clock = crate::clock::SystemClock::new();
    let mut counts = Vec::new();
    for (jobs, rented) in [(10, 32), (100, 32), (400, 32)] {
        let metrics = Metrics::new();
        let (tick, all, report) = crowd(jobs, rented);
        for n in 0..jobs {
            let name = format!("job-{n}").parse().unwrap();
            for component in [Component::Gpu, Component::Disk, Component::Traffic] {
                metrics.seed_spend(&name, component, Money::dollars(1));
            }
        }
        let begun = clock.seconds();
        let text = tick.shown_with(&metrics, &all, &report);
        let both = clock.seconds() - begun;
        let begun = clock.seconds();
        metrics.render();
        let scrape = clock.seconds() - begun;
        let count = series(&text);
        println!(
            "10000 offers, {jobs} jobs, {rented} instances: {count} series, {} KB, shown in {:.1} ms \
             after a tick, {:.1} ms of them the text",
            text.len() / 1024,
            both * 1000.0,
            scrape * 1000.0
        );
        // Of a text for each scrape: the daemon hands out one that is ready. An unoptimized build
        // on a busy machine stays far below this.
        assert!(scrape < 5.0, "{scrape}");
        let labels = text
            .lines()
            .filter(|line| line.starts_with("haggle_job_offers_eligible{"));
        assert!(labels.count() <= JOBS_MAX);
        let models: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("haggle_offers{gpu_name=\""))
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert!(models.len() <= MODELS_MAX, "{models:?}");
        counts.push(count);
    }
    // 75 a job with every limit and a dozen reasons, and 1,000 for all else.
    assert!(counts[1] <= 75 * 100 + 1_000, "{counts:?}");
    assert!(counts[2] <= counts[1] + 100, "{counts:?}");
}

#[test]
fn a_loss_is_seen_and_recovered_from() {
    let metrics = Metrics::new();
    let mut state = Tick::new().state;
    metrics.prime(&state);
    let minute = Duration::from_mins(1);
    let count = |name: &str, value: &str| {
        let text = metrics.render();
        assert!(
            text.contains(&format!("{name} {value}\n")),
            "{name}: {text}"
        );
    };
    let mut change = |edit: &dyn Fn(&mut Held)| {
        let mut held = state.held[&InstanceId(4711)].clone();
        edit(&mut held);
        let change = Change::Held(Box::new(held));
        state.apply(&change);
        metrics.committed(&[change]);
    };
    // Seen at work at 61 s, and outbid when it was looked at again.
    change(&|held| {
        held.phase = Phase::Stopped;
        held.phase_since = Time(91_000);
        held.accrued_to = Time(91_000);
    });
    count("haggle_loss_detection_duration_seconds_count", "1");
    count("haggle_loss_detection_duration_seconds_sum", "30");
    change(&|held| {
        held.phase = Phase::Running;
        held.phase_since = Time(91_000) + minute * 3;
    });
    count(
        r#"haggle_recovery_duration_seconds_sum{way="resumed"}"#,
        "180",
    );
    // It is destroyed elsewhere, and another one takes its place.
    let gone = Change::Gone {
        instance: InstanceId(4711),
        at: Time(301_000),
    };
    metrics.committed(&[gone]);
    count("haggle_loss_detection_duration_seconds_count", "2");
    let mut other = held(4712);
    other.phase_since = Time(301_000) + minute;
    metrics.committed(&[Change::Held(Box::new(other.clone()))]);
    count(
        r#"haggle_recovery_duration_seconds_sum{way="replaced"}"#,
        "60",
    );
    // What we stop ourselves is no loss.
    other.stop_asked = true;
    other.phase = Phase::Stopped;
    metrics.committed(&[Change::Held(Box::new(other))]);
    count("haggle_loss_detection_duration_seconds_count", "2");
}

#[test]
fn what_the_user_puts_to_rest_does_not_recover() {
    let metrics = Metrics::new();
    metrics.prime(&Tick::new().state);
    let mut lost = held(4711);
    lost.phase = Phase::Stopped;
    metrics.committed(&[Change::Held(Box::new(lost))]);
    let mut job = JobRecord::new(replica().job);
    job.wish = Wish::Pause;
    metrics.committed(&[Change::Job(job), Change::Held(Box::new(held(4711)))]);
    let text = metrics.render();
    let none = r#"haggle_recovery_duration_seconds_count{way="resumed"} 0"#;
    assert!(text.contains(none), "{text}");
}

#[test]
fn a_useful_hour_has_its_price_and_the_floor_stands_beside_the_bid() {
    let metrics = Metrics::new();
    let mut tick = Tick::new();
    let mut done = ReplicaRecord::new(replica());
    done.durable_gpu_ms = 2 * 3_600_000;
    tick.state.apply(&Change::Replica(done));
    let mut record = JobRecord::new(replica().job);
    record.on_demand_equivalent = Money::dollars(5);
    tick.state.apply(&Change::Job(record));
    tick.state.apply(&entry(1_500_000_000));
    tick.market.offers = vec![offer(7, "RTX 4090", 300_000_000)];
    let text = tick.shown_by(&metrics);
    for line in [
        r#"haggle_job_cost_per_useful_gpu_dollars_per_hour{job="train"} 0.75"#,
        r#"haggle_job_savings_dollars{job="train"} 3.5"#,
        r#"haggle_instance_floor_per_gpu_dollars_per_hour{gpu_name="RTX 4090",instance="4711",job="train",rental="bid"} 0.15"#,
    ] {
        assert!(text.contains(line), "{line}: {text}");
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
