//! The machines of a market: drawn from the seed, or taken from rows.
//!
//! The figures are fitted to published observations of the real marketplace in 2026 (a snapshot of
//! some 1,300 offers, and series over days to weeks): GPUs per offer 49 % one, 30 % two, 14 % four,
//! 5 % eight; reliability with a median of 0.9955; download with a median of 870 Mb/s; a third of
//! the offers in the US; 9 % in datacenters; 7 % of floors over the on-demand price.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::api::MarketOptions;
use super::dice::{Dice, Purpose, quantile};
use super::hosts::Lie;
use super::machine::{BASE_LEVEL, GPUS_MAX, Gpus, Machine, Slice};
use super::models::{MODELS, Model, compute_cap};
use super::raw::RawOffer;
use crate::types::money::{Money, Rate};
use crate::types::time::Time;

/// Machines of a market whose size was not given.
const USUAL_MACHINES: u32 = 540;

const DAY_SECONDS: i64 = 86_400;

/// GPUs of a machine, by weight. With [`least_slice`] they give the observed mix of offers.
const MACHINE_GPUS: &[(u32, f64)] = &[(1, 0.48), (2, 0.26), (3, 0.01), (4, 0.15), (8, 0.10)];

/// At most so many equal slices of a machine are listed.
const EQUAL_SLICES_MAX: u32 = 2;

/// Places, by weight in percent of offers.
const PLACES: &[(&str, f64)] = &[
    ("California, US", 9.0),
    ("Texas, US", 8.0),
    ("Washington, US", 6.0),
    ("New York, US", 5.0),
    ("Nevada, US", 4.0),
    (", US", 2.0),
    ("Quebec, CA", 7.0),
    ("British Columbia, CA", 5.0),
    ("South Korea, KR", 7.0),
    ("Oslo, NO", 4.0),
    ("Taiwan, TW", 3.0),
    ("United Kingdom, GB", 3.0),
    ("Vietnam, VN", 3.0),
    ("Japan, JP", 3.0),
    ("Czechia, CZ", 3.0),
    ("China, CN", 3.0),
    ("Germany, DE", 3.0),
    ("France, FR", 2.5),
    ("Poland, PL", 2.5),
    ("Sweden, SE", 2.5),
    ("Spain, ES", 2.0),
    ("Bulgaria, BG", 2.0),
    ("Hungary, HU", 2.0),
    ("Netherlands, NL", 2.0),
    ("India, IN", 2.0),
    ("Australia, AU", 1.5),
    ("Romania, RO", 1.5),
    ("Ukraine, UA", 1.5),
];

const RELIABILITY: &[(f64, f64)] = &[
    (0.0, 0.85),
    (0.01, 0.912),
    (0.1, 0.972),
    (0.5, 0.9955),
    (0.9, 0.9989),
    (1.0, 0.9999),
];
const DOWNLOAD: &[(f64, f64)] = &[
    (0.0, 80.0),
    (0.1, 437.0),
    (0.5, 870.0),
    (0.7, 1800.0),
    (0.9, 6815.0),
    (1.0, 9500.0),
];
const DISK_GB: &[(f64, f64)] = &[
    (0.0, 40.0),
    (0.1, 171.0),
    (0.5, 690.0),
    (0.7, 1250.0),
    (0.9, 2953.0),
    (1.0, 7000.0),
];
/// $/GB/month.
const STORAGE: &[(f64, f64)] = &[
    (0.0, 0.08),
    (0.1, 0.10),
    (0.5, 0.15),
    (0.9, 0.30),
    (1.0, 0.4),
];
/// $/GB.
const TRAFFIC: &[(f64, f64)] = &[
    (0.0, 0.0),
    (0.1, 0.0007),
    (0.5, 0.003),
    (0.9, 0.01),
    (1.0, 0.02),
];
const DRIVERS: &[(&str, f64, f64)] = &[
    ("535.183.01", 12.2, 10.0),
    ("550.127.05", 12.4, 15.0),
    ("560.35.03", 12.6, 15.0),
    ("570.124.06", 12.8, 30.0),
    ("580.95.05", 13.0, 30.0),
];
const PROCESSORS: &[(&str, u32, f64)] = &[
    ("AMD EPYC 7B13 64-Core Processor", 128, 2.4),
    ("AMD EPYC 9354 32-Core Processor", 64, 3.2),
    ("AMD Ryzen 9 7950X 16-Core Processor", 32, 4.5),
    ("AMD Ryzen 7 5700X 8-Core Processor", 16, 3.8),
    ("Intel Xeon E5-2680 v4", 56, 2.4),
    ("13th Gen Intel Core i7-13700K", 24, 3.4),
];

/// Machines drawn from the seed.
pub(crate) fn machines(options: &MarketOptions) -> Vec<Machine> {
    let mut dice = Dice::new(options.seed, Purpose::Generator);
    let count = options.machines.unwrap_or(USUAL_MACHINES);
    let mut ids = Ids {
        machine: 11_000,
        ask: 24_000_000,
    };
    (0..count)
        .map(|_| machine(options, &mut dice, &mut ids))
        .collect()
}

struct Ids {
    machine: u64,
    ask: u64,
}

/// The smallest slice that a host lists: all GPUs, or a part that the real marketplace lets a host
/// double until it has all.
fn least_slice(gpus: u32, dice: &mut Dice) -> u32 {
    match gpus {
        2 if dice.chance(0.45) => 1,
        3 => *dice.pick(&[1, 3], |_| 1.0),
        4 => *dice.pick(&[1, 2, 4], |_| 1.0),
        8 => *dice.pick(&[1, 2, 4, 8], |_| 1.0),
        all => all,
    }
}

fn machine(options: &MarketOptions, dice: &mut Dice, ids: &mut Ids) -> Machine {
    let model = dice.pick(MODELS, |model| f64::from(model.weight));
    let (gpus, _) = *dice.pick(MACHINE_GPUS, |(_, weight)| *weight);
    ids.machine += dice.whole(3, 60) as u64;
    let facts = facts(options, dice, model, gpus, ids.machine);
    let unit_price = dice.quantile(&spread(model.price));
    let unit_floor = unit_price * floor_share(options, floor_ratio(dice, model.floor));
    let least = least_slice(gpus, dice);
    let mut slices = Vec::new();
    let mut size = least;
    while size <= gpus {
        // Doubling ends with all GPUs, also where their number is no power of two.
        let size_now = if size * 2 > gpus { gpus } else { size };
        let copies = (gpus / size_now).min(EQUAL_SLICES_MAX);
        // Larger slices are a little cheaper per GPU, and each has its own floor.
        let rebate = 1.0 - 0.01 * f64::from(size_now);
        let nudge = dice.between(0.94, 1.0);
        for copy in 0..copies {
            ids.ask += dice.whole(1, 40) as u64;
            let price = dollars(unit_price * rebate * f64::from(size_now));
            let floor = dollars(unit_floor * rebate * nudge * f64::from(size_now));
            slices.push(slice(
                options,
                dice,
                &facts,
                (size_now, copy * size_now),
                ids.ask,
                (price, floor),
            ));
        }
        if size_now == gpus {
            break;
        }
        size *= 2;
    }
    // A slice of a machine ends with the machine's listing.
    let ends = slices.first().map(|slice| slice.ends);
    for slice in &mut slices {
        slice.ends = ends.unwrap_or(slice.ends);
    }
    with_habits(options, ids.machine, slices)
}

/// A machine that is not on the market, and what its slices are made of. It is drawn from the
/// given chance alone; new machines of small hosts are dependable here, so that who lists one sees
/// it in a default search.
pub(crate) fn unlisted(
    options: &MarketOptions,
    dice: &mut Dice,
    id: u64,
    gpus: u32,
) -> (Machine, RawOffer) {
    let model = dice.pick(MODELS, |model| f64::from(model.weight));
    let facts = RawOffer {
        verification: "verified".into(),
        hosting_type: 0,
        ..facts(options, dice, model, gpus, id)
    };
    (with_habits(options, id, Vec::new()), facts)
}

/// A machine of these slices, with habits drawn from its own stream of chance.
fn with_habits(options: &MarketOptions, id: u64, slices: Vec<Slice>) -> Machine {
    let mut dice = Dice::new(options.seed, Purpose::Machine(id));
    let failure = if dice.chance(0.05) { 0.3 } else { 0.015 };
    let mut host_dice = Dice::new(options.seed, Purpose::Host(id));
    let lie = Lie::drawn(&mut host_dice, options.liars, &slices);
    Machine {
        id,
        online: true,
        floor_level: BASE_LEVEL,
        price_level: BASE_LEVEL,
        busy: dice.chance(0.2),
        restless: dice.chance(0.2),
        failure,
        cached: BTreeSet::new(),
        slices,
        contracts: BTreeSet::new(),
        dice,
        host_dice,
        ties: options.disputed.ties,
        deverified_until: None,
        downtime: None,
        lie,
    }
}

/// Quantiles through a 10th percentile, a median and a 90th percentile, with tails.
fn spread([p10, median, p90]: [f64; 3]) -> [(f64, f64); 5] {
    [
        (0.0, p10 * 0.88),
        (0.1, p10),
        (0.5, median),
        (0.9, p90),
        (1.0, p90 * 1.3),
    ]
}

/// A floor's share of the on-demand price as the market's options have it.
fn floor_share(options: &MarketOptions, usual: f64) -> f64 {
    let wanted = usual * options.floors;
    if options.floors > 1.0 {
        // What is over the price anyway stays so.
        wanted.min(usual.max(1.0))
    } else {
        wanted
    }
}

/// Floor over on-demand price. Seven in a hundred are over one, whatever the model.
fn floor_ratio(dice: &mut Dice, [p10, median, p90]: [f64; 3]) -> f64 {
    const OVER: f64 = 0.93;
    let share = dice.unit();
    let top = p90.min(0.999);
    let points = [
        (0.0, p10 * 0.7),
        (0.1, p10),
        (0.5, median.min(top)),
        (0.9, top),
        (OVER, top),
    ];
    if share < OVER {
        quantile(share, &points)
    } else {
        // Beyond the nudge that each slice's floor gets.
        quantile(share, &[(OVER, 1.1), (1.0, p90.max(1.6))])
    }
}

/// Dollars to a rate, to the ten-thousandth, as hosts set prices.
fn dollars(amount: f64) -> Rate {
    Rate((amount * 10_000.0).round() as i64 * 100_000).max(Rate(2_000_000))
}

fn facts(
    options: &MarketOptions,
    dice: &mut Dice,
    model: &Model,
    gpus: u32,
    machine_id: u64,
) -> RawOffer {
    let (driver, cuda, _) = *dice.pick(DRIVERS, |driver| driver.2);
    let blackwell = compute_cap(model.name).is_some_and(|cap| cap >= 1000);
    let (driver, cuda) = if blackwell && cuda < 12.8 {
        ("570.124.06", 12.8)
    } else {
        (driver, cuda)
    };
    let (cpu, cores, ghz) = if gpus >= 4 {
        PROCESSORS[dice.whole(0, 1) as usize]
    } else {
        *dice.pick(PROCESSORS, |_| 1.0)
    };
    let place = dice.pick(PLACES, |(_, weight)| *weight).0;
    let down = dice.quantile(DOWNLOAD);
    let datacenter = dice.chance(0.09);
    let verification = match dice.unit() {
        share if share < 0.88 => "verified",
        share if share < 0.98 => "unverified",
        _ => "deverified",
    };
    let reliability = dice.quantile(RELIABILITY);
    let sxm = model.name.contains("SXM");
    let down_cost = round(dice.quantile(TRAFFIC), 4);
    let up_cost = round(dice.quantile(TRAFFIC), 4);
    let country = place.rsplit(", ").next().unwrap_or("US");
    let ram_per_gpu = dice.between(1.0, 3.0) * f64::from(model.ram_mb);
    RawOffer {
        machine_id,
        host_id: 1_000
            + dice.whole(0, i64::from(options.machines.unwrap_or(USUAL_MACHINES)) / 2) as u64 * 37,
        gpu_name: model.name.into(),
        gpu_arch: "nvidia".into(),
        gpu_ram: model.ram_mb,
        gpu_lanes: 16,
        gpu_mem_bw: round(model.mem_gb_s * dice.between(0.82, 0.95), 1),
        gpu_max_power: model.watts,
        gpu_max_temp: 88.0,
        bw_nvlink: if sxm && gpus > 1 { 300.0 } else { 0.0 },
        compute_cap: compute_cap(model.name).unwrap_or(0),
        cuda_max_good: cuda,
        driver_version: driver.into(),
        driver_vers: driver_number(driver),
        cpu_name: cpu.into(),
        cpu_arch: "amd64".into(),
        cpu_ghz: ghz,
        has_avx: 1,
        cpu_cores: Some(cores),
        cpu_ram: (ram_per_gpu * f64::from(gpus)) as u32,
        disk_space: round(dice.quantile(DISK_GB), 1),
        disk_bw: round(dice.between(400.0, 6000.0), 1),
        disk_name: "nvme".into(),
        inet_down: round(down, 1),
        inet_up: round(down * dice.between(0.3, 1.0), 1),
        inet_down_cost: down_cost,
        inet_up_cost: up_cost,
        direct_port_count: dice.whole(0, 500) as u32,
        static_ip: datacenter || dice.chance(0.6),
        public_ipaddr: format!("198.51.100.{}", dice.whole(1, 254)).into(),
        pci_gen: if gpus >= 4 || blackwell { 4.0 } else { 3.0 },
        pcie_bw: round(dice.between(6.0, 26.0), 1),
        mobo_name: "ROMED8-2T".into(),
        os_version: "22.04".into(),
        storage_cost: round(dice.quantile(STORAGE), 3),
        credit_discount_max: 0.4,
        dlperf: model.dlperf * dice.between(0.94, 1.05),
        total_flops: model.tflops,
        reliability: round(reliability, 6),
        verification: verification.into(),
        hosting_type: u32::from(datacenter),
        geolocation: Some(place.into()),
        geolocode: u64::from(country.bytes().fold(0_u32, |n, b| n * 256 + u32::from(b))),
        country_code: Some(country.into()),
        gpu_frac: f64::from(gpus),
        end_date: options.start.epoch_seconds() + listing_seconds(dice) as f64,
        ..RawOffer::default()
    }
}

/// For how long a host lists: most for weeks, a few for hours.
pub(crate) fn listing_seconds(dice: &mut Dice) -> i64 {
    if dice.chance(0.06) {
        dice.whole(DAY_SECONDS / 4, 3 * DAY_SECONDS)
    } else {
        dice.whole(7 * DAY_SECONDS, 90 * DAY_SECONDS)
    }
}

/// A slice of a drawn machine. `facts` holds what is true of the machine: its RAM as a whole, its
/// score and TFLOPs per GPU, and its GPUs in `gpu_frac`.
pub(crate) fn slice(
    options: &MarketOptions,
    dice: &mut Dice,
    facts: &RawOffer,
    (gpus, first): (u32, u32),
    ask: u64,
    (price, floor): (Rate, Rate),
) -> Slice {
    let all = facts.gpu_frac;
    let share = f64::from(gpus) / all;
    let row = RawOffer {
        num_gpus: gpus,
        gpu_frac: share,
        gpu_ids: (first..first + gpus)
            .map(|gpu| gpu_number(facts.machine_id, gpu))
            .collect(),
        gpu_total_ram: facts.gpu_ram * gpus,
        cpu_cores_effective: f64::from(facts.cpu_cores.unwrap_or(1)) * share,
        cpu_ram: (f64::from(facts.cpu_ram) * share) as u32,
        disk_space: round(facts.disk_space * share.max(0.25), 1),
        direct_port_count: (f64::from(facts.direct_port_count) * share) as u32,
        dlperf: round(facts.dlperf * f64::from(gpus), 1),
        total_flops: round(facts.total_flops * f64::from(gpus), 1),
        ..facts.clone()
    };
    let listed =
        options.start - std::time::Duration::from_secs(dice.whole(3600, 40 * DAY_SECONDS) as u64);
    from_row(
        row,
        ask,
        mask(first, gpus),
        (price, floor),
        listed,
        options.start,
    )
}

/// GPU ids are numbers of the whole marketplace; ours follow from the machine's.
fn gpu_number(machine: u64, gpu: u32) -> u32 {
    ((machine * 16 + u64::from(gpu)) % u64::from(u32::MAX)) as u32
}

/// So many GPUs from the first on.
pub(crate) fn mask(first: u32, gpus: u32) -> Gpus {
    (0..gpus).fold(0, |mask, gpu| mask | 1 << ((first + gpu) % GPUS_MAX))
}

fn from_row(
    mut row: RawOffer,
    ask: u64,
    mask: Gpus,
    (base_price, base_floor): (Rate, Rate),
    listed: Time,
    start: Time,
) -> Slice {
    let fill = |text: &mut Arc<str>, with: &str| {
        if text.is_empty() {
            *text = with.into();
        }
    };
    fill(&mut row.gpu_arch, "nvidia");
    fill(&mut row.cpu_arch, "amd64");
    fill(&mut row.resource_type, "gpu");
    fill(&mut row.verification, "verified");
    fill(&mut row.logo, "/static/logos/vastai_small2.png");
    row.reliability2 = row.reliability;
    row.vericode = u32::from(&*row.verification == "verified");
    row.external = row.external.or(Some(false));
    row.bundle_id = row.machine_id * 1_000 + u64::from(row.num_gpus);
    row.rn = 1;
    row.internet_down_cost_per_tb = row.inet_down_cost * 1024.0;
    row.internet_up_cost_per_tb = row.inet_up_cost * 1024.0;
    row.score = round(
        row.dlperf / base_price.as_dollars().max(0.001) * row.reliability,
        3,
    );
    Slice {
        gpus: row.num_gpus,
        mask,
        ask,
        used_by: BTreeSet::new(),
        base_floor,
        base_price,
        storage_price: Money::from_dollars(row.storage_cost).unwrap_or(Money::ZERO),
        listed,
        // Recorded rows may have ended long ago: those are listed for the usual month.
        ends: Time::from_epoch_seconds(row.end_date)
            .filter(|&ends| ends > start)
            .unwrap_or(start + std::time::Duration::from_secs(30 * DAY_SECONDS as u64)),
        echo: None,
        echo_version: 0,
        row,
    }
}

/// Machines made of rows: rows of one machine are its slices. Rows that cannot be one (no GPUs, or
/// more than a machine may have, an id that was seen, a price that is no number) are left out.
pub(crate) fn from_rows(options: &MarketOptions, rows: Vec<RawOffer>) -> Vec<Machine> {
    let mut by_machine: BTreeMap<u64, Vec<RawOffer>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for row in rows {
        if (1..=GPUS_MAX).contains(&row.num_gpus) && seen.insert(row.id) {
            by_machine.entry(row.machine_id).or_default().push(row);
        }
    }
    by_machine
        .into_iter()
        .map(|(id, rows)| with_habits(options, id, slices_of(options, rows)))
        .collect()
}

fn slices_of(options: &MarketOptions, rows: Vec<RawOffer>) -> Vec<Slice> {
    let total = rows.iter().map(machine_gpus).max().unwrap_or(1);
    let mut places = Places::new(total);
    rows.into_iter()
        .filter_map(|mut row| {
            let price = Rate::from_dollars(row.dph_base).ok()?;
            let floor = Rate::from_dollars(row.min_bid).ok()?;
            if price <= Rate::ZERO || floor < Rate::ZERO {
                return None;
            }
            let mask = places.place(&row.gpu_ids, row.num_gpus);
            let machine = row.machine_id;
            if row.gpu_ids.is_empty() {
                row.gpu_ids = (0..GPUS_MAX)
                    .filter(|gpu| mask >> gpu & 1 == 1)
                    .map(|gpu| gpu_number(machine, gpu))
                    .collect();
            }
            let listed = Time::from_epoch_seconds(row.start_date).unwrap_or(options.start);
            let ask = row.id;
            Some(from_row(
                row,
                ask,
                mask,
                (price, floor),
                listed,
                options.start,
            ))
        })
        .collect()
}

/// GPUs of the row's machine, by its share of it.
fn machine_gpus(row: &RawOffer) -> u32 {
    let all = if row.gpu_frac > 0.0 {
        (f64::from(row.num_gpus) / row.gpu_frac).round() as u32
    } else {
        row.num_gpus
    };
    all.clamp(row.num_gpus, GPUS_MAX)
}

/// Gives the GPUs of recorded rows their bits: by their ids, or, where a row has none, side by
/// side among rows of its size.
struct Places {
    total: u32,
    known: BTreeMap<u32, u32>,
    next_of_size: BTreeMap<u32, u32>,
}

impl Places {
    fn new(total: u32) -> Self {
        Self {
            total,
            known: BTreeMap::new(),
            next_of_size: BTreeMap::new(),
        }
    }

    fn place(&mut self, ids: &[u32], gpus: u32) -> Gpus {
        if ids.len() == gpus as usize {
            return ids.iter().fold(0, |mask, &id| {
                let free = self.known.len() as u32 % GPUS_MAX;
                mask | 1 << *self.known.entry(id).or_insert(free)
            });
        }
        let next = self.next_of_size.entry(gpus).or_insert(0);
        let first = if *next + gpus > self.total { 0 } else { *next };
        *next = first + gpus;
        mask(first, gpus)
    }
}

pub(crate) fn round(value: f64, places: i32) -> f64 {
    let scale = (0..places).fold(1.0, |scale, _| scale * 10.0);
    (value * scale).round() / scale
}

/// Three groups of a driver's version as one number: 535.86.05 is 535086005.
fn driver_number(version: &str) -> u64 {
    version
        .split('.')
        .map(|group| group.parse().unwrap_or(0))
        .chain(std::iter::repeat(0))
        .take(3)
        .fold(0, |number, group: u64| number * 1000 + group)
}
