//! One decision on a large market: 10,000 offers, 100 jobs.
//!
//! `cargo bench --bench decide`. The market's make-up (models, GPUs per offer, prices, floors)
//! follows the real one; the jobs are a mix of narrow and wide ones.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use haggle::engine::assign::{Need, assign};
use haggle::engine::rank::{MarketIndex, Ranking, rank};
use haggle::types::ids::{AccountId, HostId, Installation, MachineId, OfferId, ReplicaId};
use haggle::types::instance::{Account, Listing};
use haggle::types::job::{
    BidMargin, Budget, CheckpointPlace, Finish, Job, RentalChoice, Requirements, Retries, Run,
    RunType,
};
use haggle::types::machine::MachineRecord;
use haggle::types::money::{Money, Rate};
use haggle::types::offer::{Country, Offer, Snapshot};
use haggle::types::start::StartRules;
use haggle::types::state::State;
use haggle::types::time::Time;
use haggle::types::world::{EngineConfig, World};

const NOW: Time = Time(1_800_000_000_000);
const OFFERS: u64 = 10_000;
const JOBS: u64 = 100;
const HOUR: Duration = Duration::from_hours(1);

/// (model, share of offers, on-demand rate of a GPU in tenths of a cent, memory in GB).
const MODELS: [(&str, u64, u64, u32); 20] = [
    ("RTX 4090", 106, 364, 24),
    ("RTX 5090", 99, 441, 32),
    ("RTX 3090", 72, 169, 24),
    ("RTX 5060 Ti", 70, 121, 16),
    ("RTX 3060", 62, 64, 12),
    ("RTX PRO 6000 WS", 43, 1402, 96),
    ("RTX 5080", 41, 175, 16),
    ("RTX A4000", 36, 120, 16),
    ("RTX 5070 Ti", 36, 135, 16),
    ("RTX 3080", 34, 108, 10),
    ("RTX 3070", 32, 81, 8),
    ("A100 SXM4", 32, 1174, 80),
    ("RTX PRO 6000 S", 32, 1601, 96),
    ("RTX 4080S", 28, 150, 16),
    ("Tesla V100", 27, 148, 32),
    ("A100 PCIE", 26, 867, 60),
    ("RTX 4070", 23, 83, 12),
    ("GTX 1080 Ti", 17, 64, 11),
    ("RTX A5000", 17, 231, 24),
    ("H100 SXM", 13, 3070, 80),
];

/// A small generator (splitmix64), so that the market is the same on every run and machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn of_hundred(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

fn model(dice: &mut Dice) -> (&'static str, u64, u32) {
    let mut left = dice.below(MODELS.iter().map(|m| m.1).sum());
    for (name, share, rate, ram) in MODELS {
        if left < share {
            return (name, rate, ram);
        }
        left -= share;
    }
    unreachable!("the shares add up")
}

fn offer(dice: &mut Dice, machine: u64, names: &mut BTreeMap<&'static str, Arc<str>>) -> Offer {
    let (name, rate, ram) = model(dice);
    let gpus = match dice.below(100) {
        0..49 => 1,
        49..79 => 2,
        79..94 => 4,
        _ => 8,
    };
    let milli = rate * u64::from(gpus) * (80 + dice.below(60)) / 100;
    let on_demand = Rate(milli as i64 * 1_000_000);
    let floor = Rate(on_demand.0 / 100 * (50 + dice.below(55)) as i64);
    Offer {
        id: OfferId(30_000_000 + dice.below(9_000_000)),
        machine: MachineId(machine),
        host: Some(HostId(machine / 3)),
        gpus,
        machine_gpus: Some(8),
        gpu_ids: (0..gpus).collect(),
        gpu_name: names.entry(name).or_insert_with(|| Arc::from(name)).clone(),
        gpu_ram_mb: Some(ram * 1024),
        compute_cap: Some(890),
        cuda_max: Some(if dice.of_hundred(80) { 1280 } else { 1240 }),
        driver_version: Some(570_086_010),
        nvlink_gb_s: Some(0.0),
        pcie_gb_s: Some(24.0),
        cpu_cores: Some(4.0 + dice.below(60) as f32),
        cpu_ram_mb: Some(16_000 + dice.below(200_000) as u32),
        disk_gb: Some(100.0 + dice.below(2000) as f32),
        disk_mb_s: Some(2000.0),
        inet_down_mbit_s: Some(400.0 + dice.below(4000) as f32),
        inet_up_mbit_s: Some(400.0),
        inet_down_price: Some(Money(3_000_000)),
        inet_up_price: Some(Money(3_000_000)),
        storage_price: Some(Money(100_000_000 + dice.below(100_000_000) as i64)),
        reliability: Some(0.97 + dice.below(30) as f32 / 1000.0),
        verified: Some(true),
        datacenter: Some(dice.of_hundred(9)),
        static_ip: Some(dice.of_hundred(40)),
        direct_ports: Some(100),
        country: Some(Country(if dice.of_hundred(34) { *b"US" } else { *b"CA" })),
        rentable: Some(true),
        rented: Some(false),
        ends_at: Some(NOW + HOUR * (12 + dice.below(1000) as u32)),
        on_demand: Some(on_demand),
        floor: Some(floor),
        dlperf: Some(80.0),
    }
}

/// Most jobs name a model or three; one in ten takes any with enough memory.
fn job(dice: &mut Dice, number: u64) -> Job {
    let models = match dice.below(10) {
        0 => 0,
        1..7 => 1,
        _ => 3,
    };
    let gpu_models = (0..models).map(|_| model(dice).0.to_owned()).collect();
    Job {
        name: format!("job-{number}").parse().expect("a valid name"),
        owner: None,
        tags: Vec::new(),
        priority: (number % 3) as i32,
        replicas: 1 + (number % 2) as u32,
        array: None,
        service: None,
        run: Run {
            image: Some("pytorch/pytorch:latest".to_owned()),
            login: None,
            template: None,
            run_type: RunType::Ssh,
            runner: None,
            onstart: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            ports: Vec::new(),
        },
        requirements: Requirements {
            gpu_models,
            gpu_count: if dice.of_hundred(60) { 1 } else { 2 },
            gpu_ram_mb_min: Some(16_000),
            cuda_min: Some(1240),
            cpu_ram_mb_min: Some(24_000),
            disk_gb: 64,
            inet_down_mbit_s_min: Some(500.0),
            reliability_min: Some(0.975),
            verified: true,
            remaining_min: HOUR * 24,
            ..Requirements::default()
        },
        traffic_down_gb: 40.0,
        traffic_up_gb: 5.0,
        traffic_gb_max: None,
        rental: match number % 3 {
            0 => RentalChoice::Auto,
            1 => RentalChoice::Interruptible,
            _ => RentalChoice::OnDemand,
        },
        price_max: Rate(1_500_000_000),
        bid_margin: BidMargin::PartsPerMillion(50_000),
        patience: HOUR,
        budget: Budget::default(),
        work_mgpu_h: Some(20_000),
        reference_gpu: None,
        factors_ppm: BTreeMap::from([("RTX 3090".to_owned(), 500_000)]),
        checkpoint_every: Some(HOUR / 2),
        checkpoint_place: Some(CheckpointPlace::Remote),
        disposable: false,
        restartable: false,
        boot_overhead: Duration::from_mins(5),
        windows: Vec::new(),
        finish: Finish::Work,
        min_run: Duration::ZERO,
        retries: Retries {
            max: 3,
            backoff: HOUR,
            backoff_max: HOUR,
        },
        lifetime_max: None,
        provision_timeout: Duration::from_mins(15),
        start: StartRules::default(),
        idle_after: None,
        deadline: None,
        deadline_policy: haggle::types::deadline::DeadlineKind::default(),
    }
}

fn world() -> World {
    let mut dice = Dice(7);
    let mut names = BTreeMap::new();
    let mut offers: Vec<Offer> = (0..OFFERS)
        .map(|machine| offer(&mut dice, machine, &mut names))
        .collect();
    offers.sort_by_key(|offer| (offer.slot(), offer.id));
    let mut jobs: Vec<Job> = (0..JOBS).map(|number| job(&mut dice, number)).collect();
    jobs.sort_by_key(|job| (-job.priority, job.name.clone()));
    let mut state = State::new(Installation::from_seed(1));
    for machine in (0..OFFERS).step_by(50).map(MachineId) {
        let record = MachineRecord {
            failures: 1,
            cool_until: Some(NOW),
            highest_bid: Some((Rate(100_000_000), NOW)),
            ..MachineRecord::new(machine)
        };
        state.machines.insert(machine, record);
    }
    World {
        now: NOW,
        seed: 1,
        config: EngineConfig::default(),
        jobs: jobs.into_iter().map(Arc::new).collect(),
        unreadable_jobs: Vec::new(),
        last_policies: Vec::new(),
        unreadable_secrets: BTreeMap::new(),
        state,
        market: Arc::new(Snapshot {
            at: NOW,
            offers,
            coverage: Vec::new(),
        }),
        listing: Some(Listing {
            complete: true,
            ..Listing::default()
        }),
        account: Some(Account {
            id: AccountId(1),
            credit: Some(Money::dollars(1000)),
        }),
        credit_read: None,
        credit_slope: None,
        can_bid: true,
        wind_down: false,
    }
}

fn rank_all(world: &World, index: &MarketIndex<'_>) -> Vec<Ranking> {
    world
        .jobs
        .iter()
        .map(|job| rank(world, job, index))
        .collect()
}

fn needs(world: &World, rankings: &[Ranking]) -> Vec<Need> {
    let jobs = world.jobs.iter().zip(rankings);
    jobs.flat_map(|(job, ranking)| {
        (0..job.replicas).map(|index| Need {
            replica: ReplicaId {
                job: job.name.clone(),
                index,
            },
            priority: job.priority,
            candidates: ranking.candidates.clone(),
        })
    })
    .collect()
}

fn decide(criterion: &mut Criterion) {
    let world = world();
    let index = MarketIndex::new(&world);
    let rankings = rank_all(&world, &index);
    let needs_of_all = needs(&world, &rankings);
    let limit = world.config.rents_per_tick_max as usize;
    let (plan, _) = haggle::engine::decide::decide(&world);
    assert!(
        !plan.actions.is_empty(),
        "the decision must have work to do"
    );

    let mut group = criterion.benchmark_group("decide 10000 offers x 100 jobs");
    group.bench_function("index", |b| {
        b.iter(|| black_box(MarketIndex::new(black_box(&world))));
    });
    group.bench_function("rank", |b| {
        b.iter(|| black_box(rank_all(black_box(&world), &index)));
    });
    group.bench_function("assign 8", |b| {
        b.iter(|| black_box(assign(black_box(&needs_of_all), limit)));
    });
    group.bench_function("assign all", |b| {
        b.iter(|| black_box(assign(black_box(&needs_of_all), 1000)));
    });
    group.bench_function("index, rank and assign", |b| {
        b.iter(|| {
            let index = MarketIndex::new(black_box(&world));
            let rankings = rank_all(&world, &index);
            black_box(assign(&needs(&world, &rankings), limit))
        });
    });
    group.bench_function("decide", |b| {
        b.iter(|| black_box(haggle::engine::decide::decide(black_box(&world))));
    });
    group.finish();
}

criterion_group!(benches, decide);
criterion_main!(benches);
