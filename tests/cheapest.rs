//! The cheapest slot of every example job, found twice: by the daemon, and by trying everything.
//!
//! The real daemon looks at a market that stands still, over real HTTP, and plans. Then every row
//! of that market is fetched as raw JSON, each is held against the policy and priced at both
//! rentals from a plain reading of what `docs/pricing.md` says, and all ways to serve a job are
//! tried. Nothing of the engine is used for it.
//!
//! With `HAGGLE_TEST_OFFERS` set to a file of recorded offers, the same is done on those.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test that cannot go on says so.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use haggle::clock::SimClock;
use haggle::daemon::{Daemon, Pace, Parts, Settings};
use haggle::market::faults::Faults;
use haggle::market::{
    Market, MarketOptions, MarketServer, WireOptions, offers_file, router, server,
};
use haggle::marketplace::http::HttpTransport;
use haggle::marketplace::lowcode::{LowCode, LowCodeOptions};
use haggle::policy;
use haggle::ports::{Clock, Method, Request, Transport};
use haggle::simulate::{FixedPolicies, PlaySecrets};
use haggle::store::SqliteStore;
use haggle::types::instance::Rental;
use haggle::types::intent::Effect;
use haggle::types::job::{BidMargin, CheckpointPlace, Finish, Job, RentalChoice};
use haggle::types::offer::Country;
use haggle::types::plan::{Candidate, Plan, PriceParts, Report};
use haggle::types::time::Time;
use haggle::types::world::{EngineConfig, World};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// One in the morning in Berlin: the nightly batch may run.
const START: Time = Time(1_795_478_400_000);
const TOKEN: &str = "at_still";
/// Sums of the same numbers in another order differ by less.
const BLUR: f64 = 1e-9;

/// What the daemon saw and would do, and the rows as the market sends them.
struct Looked {
    world: World,
    plan: Plan,
    report: Report,
    rows: Vec<Value>,
}

async fn look(market: Market) -> Looked {
    let clock = Arc::new(SimClock::new(START));
    let shared: Arc<dyn Clock> = clock.clone();
    let options = WireOptions::default();
    let served = Arc::new(MarketServer::new(market, options, Faults::none(), shared));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!(
        "http://{}{}",
        listener.local_addr().unwrap(),
        router::PREFIX
    );
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server::serve(listener, served, None, async {
        let _ = ended.await;
    }));

    let transport = HttpTransport::new(&base, Duration::from_secs(60)).unwrap();
    let transport: Arc<dyn Transport> = Arc::new(transport);
    let directory = tempfile::tempdir().unwrap();
    let (world, plan, report) = preview(&transport, clock, directory.path()).await;
    let rows = raw_rows(&transport).await;
    drop(transport);
    end.send(()).unwrap();
    serving.await.unwrap().unwrap();
    Looked {
        world,
        plan,
        report,
        rows,
    }
}

/// What a tick would do, as `haggle plan` asks it. The clock jumps over the waits between searches.
async fn preview(
    transport: &Arc<dyn Transport>,
    clock: Arc<SimClock>,
    directory: &Path,
) -> (World, Plan, Report) {
    let clock: Arc<dyn Clock> = clock;
    let options = LowCodeOptions::new(SecretString::from(TOKEN));
    let store = SqliteStore::open(&directory.join("haggle.db"), None, 1).unwrap();
    let parts = Parts {
        marketplace: Arc::new(LowCode::new(
            transport.clone(),
            clock.clone(),
            options,
            &std::collections::BTreeMap::new(),
        )),
        store: Box::new(store),
        clock,
        policies: Box::new(FixedPolicies(jobs())),
        secrets: Box::new(PlaySecrets),
        run_secret: secrecy::SecretString::from("play"),
        observers: Vec::new(),
    };
    let settings = Settings {
        engine: EngineConfig::default(),
        live: false,
        pace: Pace::Every,
        seed: 1,
        looking: haggle::daemon::Looking::default(),
    };
    let mut daemon = Daemon::new(parts, settings).unwrap();
    daemon.preview().await.unwrap()
}

/// The example policies, in the order in which they are served.
fn jobs() -> Vec<Arc<Job>> {
    let loaded = policy::load_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("policies"));
    assert!(loaded.errors.is_empty(), "{:#?}", loaded.errors);
    // Elements of an array take turns, and a gateway shows no logs for them to be heard by: the search
    // below knows neither.
    let mut jobs: Vec<Arc<Job>> = loaded
        .jobs
        .into_iter()
        .filter(|loaded| loaded.job.array.is_none())
        .map(|loaded| Arc::new(loaded.job))
        .collect();
    jobs.sort_by_key(|job| std::cmp::Reverse(job.priority));
    let priorities: BTreeSet<i32> = jobs.iter().map(|job| job.priority).collect();
    assert_eq!(
        priorities.len(),
        jobs.len(),
        "the search below goes job by job"
    );
    jobs
}

/// Every row of the on-demand search. Paged by id, where the daemon pages by price.
async fn raw_rows(transport: &Arc<dyn Transport>) -> Vec<Value> {
    let mut rows: Vec<Value> = Vec::new();
    loop {
        let last = rows.last().map_or(0, |row| whole(row, "id").unwrap());
        let query = [
            ("type", "on-demand".to_owned()),
            ("q", json!({"ask_contract_id": {"gt": last}}).to_string()),
            ("order", r#"[["ask_contract_id","asc"]]"#.to_owned()),
            ("api_token", TOKEN.to_owned()),
        ];
        let request = Request {
            method: Method::Get,
            path: "/offers".to_owned(),
            query: query.map(|(name, value)| (name.to_owned(), value)).into(),
            bearer: None,
            body: None,
        };
        let reply = transport.send(request).await.unwrap();
        assert_eq!(reply.status, 200);
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        let page = body["data"]["offers"].as_array().unwrap();
        if page.is_empty() {
            return rows;
        }
        rows.extend(page.iter().cloned());
    }
}

// ------------------------------------------------------------------------------ fields of a row

fn float(row: &Value, field: &str) -> Option<f64> {
    row[field].as_f64()
}

fn whole(row: &Value, field: &str) -> Option<u64> {
    row[field].as_u64()
}

/// Speeds, sizes and shares are kept in single precision.
fn single(row: &Value, field: &str) -> Option<f32> {
    float(row, field).map(|value| value as f32)
}

/// Dollars in nano-dollars.
fn nanos(row: &Value, field: &str) -> Option<i64> {
    float(row, field).map(|dollars| (dollars * 1e9).round() as i64)
}

fn dollars(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}

fn hours(duration: Duration) -> f64 {
    duration.as_secs_f64() / 3600.0
}

fn hours_left(row: &Value, now: Time) -> Option<f64> {
    Some((float(row, "end_date")? - now.0 as f64 / 1e3) / 3600.0)
}

/// Whether a least value is met; an unknown field does not meet it.
fn least<T: PartialOrd>(have: Option<T>, wanted: Option<T>) -> bool {
    wanted.is_none_or(|wanted| have.is_some_and(|have| have >= wanted))
}

fn most<T: PartialOrd>(have: Option<T>, wanted: Option<T>) -> bool {
    wanted.is_none_or(|wanted| have.is_some_and(|have| have <= wanted))
}

// ---------------------------------------------------------------------------- by trying everything

/// A row at one of its rentals.
#[derive(Clone, Debug)]
struct Priced {
    machine: u64,
    gpus: u64,
    offer: u64,
    rental: Rental,
    price: i64,
    storage: i64,
    parts: [f64; 6],
}

impl Priced {
    fn landed(&self) -> f64 {
        self.parts.iter().sum()
    }

    /// What one replica's hour is worth of: the landed price of all GPUs.
    fn cost(&self) -> f64 {
        self.landed() * self.gpus as f64
    }

    /// Cheapest first; then by slot, then by row, on-demand before a bid that is as dear.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let key = |p: &Self| (p.machine, p.gpus, p.offer, p.rental == Rental::Bid);
        let by_price = self.landed().total_cmp(&other.landed());
        by_price.then_with(|| key(self).cmp(&key(other)))
    }
}

fn suits(job: &Job, row: &Value, now: Time) -> bool {
    let need = &job.requirements;
    let name = |text: &str| text.replace('_', " ").to_lowercase();
    let gpu = name(row["gpu_name"].as_str().unwrap());
    let hundredfold = |field: &str| float(row, field).map(|v| (v * 100.0).round() as u32);
    let count = |field: &str| whole(row, field).map(|v| v as u32);
    let country = row["geolocation"].as_str().and_then(Country::from_location);

    let model = need.gpu_models.is_empty() || need.gpu_models.iter().any(|m| name(m) == gpu);
    let card = count("num_gpus") == Some(need.gpu_count)
        && least(count("gpu_ram"), need.gpu_ram_mb_min)
        && least(count("compute_cap"), need.compute_cap_min)
        && least(hundredfold("cuda_max_good"), need.cuda_min)
        && least(count("driver_vers"), need.driver_min)
        && least(single(row, "bw_nvlink"), need.nvlink_gb_s_min)
        && least(single(row, "pcie_bw"), need.pcie_gb_s_min);
    let machine = least(single(row, "cpu_cores_effective"), need.cpu_cores_min)
        && least(count("cpu_ram"), need.cpu_ram_mb_min)
        && least(single(row, "disk_space"), Some(need.disk_gb as f32))
        && least(single(row, "disk_bw"), need.disk_mb_s_min);
    let traffic_max = need.traffic_price_max.map(|price| price.0);
    let network = least(single(row, "inet_down"), need.inet_down_mbit_s_min)
        && least(single(row, "inet_up"), need.inet_up_mbit_s_min)
        && most(nanos(row, "inet_down_cost"), traffic_max)
        && most(nanos(row, "inet_up_cost"), traffic_max)
        && most(
            nanos(row, "storage_cost"),
            need.storage_price_max.map(|price| price.0),
        );
    let place = least(single(row, "reliability2"), need.reliability_min)
        && (!need.verified || row["verification"] == "verified")
        && (!need.datacenter || whole(row, "hosting_type") >= Some(1))
        && (!need.static_ip || row["static_ip"] == true)
        && least(count("direct_port_count"), need.direct_ports_min)
        && (need.countries.is_empty() || country.is_some_and(|c| need.countries.contains(&c)))
        && (need.countries_denied.is_empty()
            || country.is_some_and(|c| !need.countries_denied.contains(&c)));

    // Work that a move would lose has to be done before the rental ends.
    let lead = hours(job.provision_timeout) + hours(job.boot_overhead);
    let movable = job.checkpoint_place == Some(CheckpointPlace::Remote) || job.disposable;
    let work = work_hours(job, row).filter(|_| !movable).unwrap_or(0.0);
    let stay = hours(need.remaining_min).max(lead + work);
    let free = row["rentable"] == true && row["rented"] == false;
    model && card && machine && network && place && free && least(hours_left(row, now), Some(stay))
}

/// Useful GPU-hours that an hour of the row's slot counts.
fn speed(job: &Job, row: &Value) -> f64 {
    let factor = job.factors_ppm.get(row["gpu_name"].as_str().unwrap());
    let factor = factor.map_or(1.0, |&ppm| f64::from(ppm) / 1e6);
    whole(row, "num_gpus").unwrap() as f64 * factor
}

/// Hours that a replica's share of the work takes on the row's slot.
fn work_hours(job: &Job, row: &Value) -> Option<f64> {
    let share = job.work_mgpu_h? as f64 / 1000.0 / f64::from(job.replicas);
    Some(share / speed(job, row))
}

/// The disk's rate: the price is of 720 hours, and a part of a nano-dollar is one.
fn storage(job: &Job, row: &Value) -> i64 {
    let month = nanos(row, "storage_cost").unwrap() * i64::from(job.requirements.disk_gb);
    month / 720 + i64::from(month % 720 != 0)
}

/// The floor and the margin, in steps of $0.0001, under the on-demand rate and inside the ceiling;
/// a bid of $0.001 is a parked one, so it is over that.
fn bid(job: &Job, row: &Value, now: Time) -> Option<i64> {
    const STEP: i64 = 100_000;
    let up = |rate: i64| (rate + STEP - 1) / STEP * STEP;
    let down = |rate: i64| rate / STEP * STEP;
    let floor = nanos(row, "min_bid")?;
    let gpus = i64::from(job.requirements.gpu_count);
    let margin = match job.bid_margin {
        BidMargin::Auto => best_margin(job, row, now, floor).max(500_000),
        BidMargin::PartsPerMillion(ppm) => floor * i64::from(ppm) / 1_000_000,
        BidMargin::PerGpu(rate) => rate.0 * gpus,
    };
    let least = up(floor).max(1_100_000);
    let ceiling = job.price_max.0 * gpus - storage(job, row);
    let under = nanos(row, "dph_base").map_or(i64::MAX, |rate| rate - 1);
    let most = down(ceiling.min(under));
    (least <= most).then(|| up(floor + margin).clamp(least, most))
}

/// The margin that makes an hour cheapest, by closing in on it: there is one only.
fn best_margin(job: &Job, row: &Value, now: Time, floor: i64) -> i64 {
    let landed = |margin: f64| {
        let price = floor + (floor as f64 * margin) as i64;
        parts(job, row, now, Rental::Bid, price).iter().sum::<f64>()
    };
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..100 {
        let third = (high - low) / 3.0;
        if landed(low + third) <= landed(high - third) {
            high -= third;
        } else {
            low += third;
        }
    }
    (floor as f64 * low) as i64
}

fn on_demand(job: &Job, row: &Value) -> Option<i64> {
    let rate = nanos(row, "dph_base").filter(|&rate| rate > 0)?;
    let most = job.price_max.0 * i64::from(job.requirements.gpu_count);
    (rate + storage(job, row) <= most).then_some(rate)
}

/// Compute, disk, traffic, boot, interruption and waiting, per useful GPU-hour, where nothing is known
/// of the machine.
fn parts(job: &Job, row: &Value, now: Time, rental: Rental, price: i64) -> [f64; 6] {
    let (gpu, disk) = (dollars(price), dollars(storage(job, row)));
    let speed = speed(job, row);
    let down = f64::from(single(row, "inet_down").unwrap());
    let down = if down > 0.0 { down } else { 100.0 };
    let pull = 6.0 * 8000.0 / down / 3600.0;
    let boot = hours(job.boot_overhead);
    let end = hours_left(row, now).unwrap();
    let end = job.lifetime_max.map_or(end, |life| end.min(hours(life)));
    let stay = work_hours(job, row).unwrap_or(6.0);
    let stay = stay.min(end - boot - pull).clamp(1.0 / 60.0, 72.0);

    let moved = job.traffic_down_gb * dollars(nanos(row, "inet_down_cost").unwrap())
        + job.traffic_up_gb * dollars(nanos(row, "inet_up_cost").unwrap());
    let up_share = f64::from(single(row, "reliability2").unwrap()).max(0.01);
    let fails = (1.0 - up_share) / up_share / 2.0;
    let outbid = if rental == Rental::Bid {
        let over = dollars(price) / dollars(nanos(row, "min_bid").unwrap().max(100_000)) - 1.0;
        0.031 * (-over.max(0.0) / 0.15).exp() + 0.02
    } else {
        0.0
    };
    let lost = match (job.finish, job.checkpoint_every) {
        (Finish::Never, _) => 0.0,
        (_, Some(every)) if job.checkpoint_place.is_some() => hours(every).min(stay) / 2.0,
        _ => stay / 2.0,
    };
    [
        gpu / speed,
        disk / speed,
        moved / stay / speed,
        // One start in twenty comes to nothing.
        (boot * (gpu + disk) + pull * disk) / 0.95 / stay / speed,
        (fails + outbid) * (lost + boot) * (gpu + disk) / speed,
        outbid * hours(job.patience) * disk / speed,
    ]
}

/// The job on a row at a rental and a price.
fn priced(job: &Job, row: &Value, now: Time, rental: Rental, price: i64) -> Priced {
    Priced {
        machine: whole(row, "machine_id").unwrap(),
        gpus: whole(row, "num_gpus").unwrap(),
        offer: whole(row, "id").unwrap(),
        rental,
        price,
        storage: storage(job, row),
        parts: parts(job, row, now, rental, price),
    }
}

/// Everything that the job may take, each row at each rental, cheapest first.
fn everything(job: &Job, rows: &[Value], now: Time) -> Vec<Priced> {
    let mut all = Vec::new();
    for row in rows.iter().filter(|row| suits(job, row, now)) {
        if job.rental != RentalChoice::OnDemand {
            all.extend(bid(job, row, now).map(|price| priced(job, row, now, Rental::Bid, price)));
        }
        if job.rental != RentalChoice::Interruptible {
            let rate = on_demand(job, row);
            all.extend(rate.map(|price| priced(job, row, now, Rental::OnDemand, price)));
        }
    }
    all.sort_by(Priced::order);
    all
}

/// The cheapest on-demand rental, whatever the policy takes and its ceiling is.
fn yardstick(job: &Job, rows: &[Value], now: Time) -> Option<Priced> {
    let suiting = rows.iter().filter(|row| suits(job, row, now));
    let all = suiting.filter_map(|row| {
        let rate = nanos(row, "dph_base").filter(|&rate| rate > 0)?;
        Some(priced(job, row, now, Rental::OnDemand, rate))
    });
    all.min_by(Priced::order)
}

/// The least cost of so many rentals on as many machines, by trying every choice.
fn least_cost(options: &[Priced], replicas: usize, taken: &mut Vec<u64>) -> f64 {
    if replicas == 0 {
        return 0.0;
    }
    let mut best = f64::INFINITY;
    for (at, option) in options.iter().enumerate() {
        if !taken.contains(&option.machine) {
            taken.push(option.machine);
            best = best.min(option.cost() + least_cost(&options[at + 1..], replicas - 1, taken));
            taken.pop();
        }
    }
    best
}

// --------------------------------------------------------------------------------- one against one

fn same_price(found: &Priced, parts: &PriceParts) -> bool {
    let theirs = [
        parts.compute,
        parts.disk,
        parts.traffic,
        parts.boot,
        parts.interruption,
        parts.waiting,
    ];
    let close = |a: f64, b: f64| (a - b).abs() <= BLUR * a.abs().max(b.abs());
    found.parts.iter().zip(theirs).all(|(a, b)| close(*a, b))
        && close(theirs.iter().sum(), parts.total())
        && close(found.landed(), parts.total())
}

fn assert_same(found: &Priced, candidate: &Candidate, whose: &str) {
    let theirs = (
        candidate.slot.machine.0,
        u64::from(candidate.slot.gpus),
        candidate.offer.0,
        candidate.rental,
        candidate.price.0,
        candidate.storage.0,
    );
    let ours = (
        found.machine,
        found.gpus,
        found.offer,
        found.rental,
        found.price,
        found.storage,
    );
    assert_eq!(ours, theirs, "{whose}: {found:#?} against {candidate:#?}");
    assert!(
        same_price(found, &candidate.parts),
        "{whose}: {found:#?} against {candidate:#?}"
    );
}

/// Holds the daemon's ranking and plan against the search, job by job. Returns how many rentals the
/// plan makes.
fn compare(looked: &Looked) -> usize {
    let Looked {
        world,
        plan,
        report,
        rows,
    } = looked;
    assert!(report.dropped.is_empty(), "{:#?}", report.dropped);
    let mut taken: Vec<u64> = Vec::new();
    let mut rented = 0;
    for job in jobs() {
        let whose = job.name.as_str();
        let all = everything(&job, rows, world.now);
        let told = report
            .jobs
            .iter()
            .find(|told| told.job == job.name)
            .unwrap();

        // Of a slot's rows and rentals only the cheapest is ranked.
        let mut slots = BTreeSet::new();
        let mut ranked = all.clone();
        ranked.retain(|priced| slots.insert((priced.machine, priced.gpus)));
        assert_eq!(told.eligible as usize, ranked.len(), "{whose}");
        assert_eq!(told.best.is_empty(), ranked.is_empty(), "{whose}");
        for (found, candidate) in ranked.iter().zip(&told.best) {
            assert_same(found, candidate, whose);
        }
        let best = yardstick(&job, rows, world.now);
        assert_eq!(best.is_some(), told.on_demand_best.is_some(), "{whose}");
        if let (Some(found), Some(candidate)) = (&best, &told.on_demand_best) {
            assert_same(found, candidate, whose);
        }

        // What is left of higher priorities; the cheapest rental of each machine.
        let free: Vec<Priced> = ranked
            .iter()
            .filter(|priced| !taken.contains(&priced.machine))
            .cloned()
            .collect();
        let mut machines = BTreeSet::new();
        let mut cheapest = free.clone();
        cheapest.retain(|priced| machines.insert(priced.machine));
        cheapest.truncate(job.replicas as usize);

        let chosen: Vec<Priced> = chosen(plan, &job, &all);
        assert_eq!(chosen.len(), cheapest.len(), "{whose}: {plan:#?}");
        for (found, chosen) in cheapest.iter().zip(&chosen) {
            assert!(
                found.order(chosen).is_eq(),
                "{whose}: {found:#?} {chosen:#?}"
            );
        }
        let least = least_cost(&free, chosen.len(), &mut Vec::new());
        let cost: f64 = chosen.iter().map(Priced::cost).sum();
        assert!(
            (cost - least).abs() <= BLUR * least,
            "{whose}: {cost} {least}"
        );

        show(&job, rows.len(), &ranked, &chosen, best.as_ref());
        taken.extend(chosen.iter().map(|priced| priced.machine));
        rented += chosen.len();
    }
    rented
}

/// What the plan rents for a job, in the order of its replicas.
fn chosen(plan: &Plan, job: &Job, all: &[Priced]) -> Vec<Priced> {
    let mut rents: Vec<(u32, Priced)> = Vec::new();
    for action in &plan.actions {
        let Effect::Rent {
            replica,
            slot,
            offer,
            rental,
            price,
            disk_gb,
            storage,
            ..
        } = &action.effect
        else {
            panic!("nothing is held, so all there is to do is to rent: {action:?}");
        };
        if replica.job != job.name {
            continue;
        }
        let found = all.iter().find(|found| {
            let ours = (found.machine, found.offer, found.rental, found.price);
            ours == (slot.machine.0, offer.0, *rental, price.0)
        });
        let found = found.unwrap_or_else(|| panic!("not to be had: {action:#?}"));
        assert_eq!(*disk_gb, job.requirements.disk_gb);
        assert_eq!(storage.0, found.storage);
        assert!(same_price(found, action.parts.as_ref().unwrap()));
        rents.push((replica.index, found.clone()));
    }
    rents.sort_by_key(|(index, _)| *index);
    rents.into_iter().map(|(_, found)| found).collect()
}

fn show(job: &Job, rows: usize, ranked: &[Priced], chosen: &[Priced], best: Option<&Priced>) {
    println!("{}: {} slots of {rows} rows", job.name, ranked.len());
    let chosen = chosen.iter().map(|priced| ("takes", priced));
    for (word, priced) in chosen.chain(best.map(|best| ("on demand", best))) {
        let [compute, disk, traffic, boot, interruption, waiting] = priced.parts;
        println!(
            "  {word:9} offer {} on machine {}: {:9} ${:.4}/h + ${:.4}/h; landed ${:.4} = compute \
             {compute:.4} + disk {disk:.4} + traffic {traffic:.4} + boot {boot:.4} + interruption \
             {interruption:.4} + waiting {waiting:.4}",
            priced.offer,
            priced.machine,
            priced.rental.as_str(),
            dollars(priced.price),
            dollars(priced.storage),
            priced.landed(),
        );
    }
}

fn still(seed: u64) -> MarketOptions {
    MarketOptions {
        seed,
        start: START,
        intensity: 0.0,
        failures: 0.0,
        ..MarketOptions::default()
    }
}

#[tokio::test]
async fn the_cheapest_of_generated_offers_is_chosen() {
    for seed in 1..=3 {
        let looked = look(Market::generated(still(seed))).await;
        assert!(looked.rows.len() > 500, "{}", looked.rows.len());
        assert_eq!(compare(&looked), 5, "seed {seed}");
    }
}

#[tokio::test]
async fn the_cheapest_of_recorded_offers_is_chosen() {
    let Some(path) = std::env::var_os("HAGGLE_TEST_OFFERS") else {
        println!("skipped: HAGGLE_TEST_OFFERS names no file of recorded offers");
        return;
    };
    let recorded = offers_file::load(Path::new(&path), START).unwrap();
    let count = recorded.len();
    let looked = look(Market::from_rows(still(1), recorded)).await;
    assert!(looked.rows.len() <= count);
    assert!(compare(&looked) > 0);
}
