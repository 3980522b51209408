//! Rows of a search.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::BadRow;
use super::lenient::{Flag, Ints, Num, Text};
use crate::types::ids::{HostId, MachineId, OfferId};
use crate::types::offer::{Country, Market, Offer};

/// No offer costs as much per hour: the marketplace's documented highest bid is $32 per GPU and
/// hour, and its largest machines have 16.
const DPH_MAX: f64 = 10_000.0;

/// No GB costs as much, neither a month of it stored nor moved once.
const PER_GB_MAX: f64 = 1000.0;

/// No machine has as many.
const GPUS_MAX: u32 = 1024;

/// Longer is no model's name.
const GPU_NAME_BYTES_MAX: usize = 80;

/// Distinct names kept; there are some two hundred.
const GPU_NAMES_MAX: usize = 4096;

/// The names of GPU models, each kept once.
#[derive(Debug, Default)]
pub struct GpuNames(BTreeSet<Arc<str>>);

impl GpuNames {
    /// The shared copy of a name.
    pub fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(name);
        if self.0.len() < GPU_NAMES_MAX {
            self.0.insert(Arc::clone(&new));
        }
        new
    }
}

/// The fields of a row that we read, as they came.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct OfferRow<'a> {
    id: Num,
    ask_contract_id: Num,
    machine_id: Num,
    host_id: Num,
    num_gpus: Num,
    gpu_frac: Num,
    gpu_ids: Ints,
    #[serde(borrow)]
    gpu_name: Text<'a>,
    gpu_ram: Num,
    compute_cap: Num,
    cuda_max_good: Num,
    driver_vers: Num,
    #[serde(borrow)]
    driver_version: Text<'a>,
    bw_nvlink: Num,
    pcie_bw: Num,
    cpu_cores_effective: Num,
    cpu_ram: Num,
    disk_space: Num,
    disk_bw: Num,
    inet_down: Num,
    inet_up: Num,
    inet_down_cost: Num,
    inet_up_cost: Num,
    storage_cost: Num,
    storage_total_cost: Num,
    dph_base: Num,
    dph_total: Num,
    min_bid: Num,
    is_bid: Flag,
    reliability: Num,
    reliability2: Num,
    #[serde(borrow)]
    verification: Text<'a>,
    verified: Flag,
    hosting_type: Num,
    static_ip: Flag,
    direct_port_count: Num,
    #[serde(borrow)]
    geolocation: Text<'a>,
    #[serde(borrow)]
    country_code: Text<'a>,
    rentable: Flag,
    rented: Flag,
    end_date: Num,
    dlperf: Num,
}

impl<'a> OfferRow<'a> {
    /// Reads the fields of one row's JSON.
    pub fn parse(json: &'a str) -> Result<Self, BadRow> {
        serde_json::from_str(json).map_err(|_| BadRow("row"))
    }

    /// The total by which a search is ordered and paged, in dollars per hour.
    pub fn total(&self) -> Option<f64> {
        self.dph_total.float()
    }
}

/// An offer from a row that a search of `market` returned.
pub fn offer(row: &OfferRow<'_>, market: Market, names: &mut GpuNames) -> Result<Offer, BadRow> {
    let gpus = row
        .num_gpus
        .count()
        .filter(|gpus| (1..=GPUS_MAX).contains(gpus))
        .ok_or(BadRow("num_gpus"))?;
    let gpu_name = row
        .gpu_name
        .get()
        .filter(|name| name.len() <= GPU_NAME_BYTES_MAX && !name.contains(char::is_control))
        .ok_or(BadRow("gpu_name"))?;
    let id = row
        .id
        .id()
        .or(row.ask_contract_id.id())
        .ok_or(BadRow("id"))?;
    let machine = row.machine_id.id().ok_or(BadRow("machine_id"))?;

    let floor = row.min_bid.rate(DPH_MAX, "min_bid")?;
    let base = row.dph_base.rate(DPH_MAX, "dph_base")?;
    let total = row.dph_total.rate(DPH_MAX, "dph_total")?;
    let storage_total = row.storage_total_cost.rate(DPH_MAX, "storage_total_cost")?;
    // On a row of the bid search the base price is the floor, by the marketplace's rule.
    let as_bidder = market == Market::Bid || row.is_bid.0 == Some(true);
    let on_demand = base
        .or_else(|| Some(total? - storage_total?))
        // Nothing is free: a rate of zero is a rate that is not known.
        .filter(|rate| !as_bidder && rate.0 > 0);

    Ok(Offer {
        id: OfferId(id),
        machine: MachineId(machine),
        host: row.host_id.id().map(HostId),
        gpus,
        machine_gpus: machine_gpus(gpus, row.gpu_frac),
        gpu_ids: row.gpu_ids.0.clone(),
        gpu_name: names.intern(gpu_name),
        gpu_ram_mb: row.gpu_ram.count().filter(|&mb| mb > 0),
        compute_cap: row.compute_cap.count().filter(|&cap| cap > 0),
        cuda_max: cuda(row.cuda_max_good),
        driver_version: row
            .driver_vers
            .count()
            .filter(|&version| version > 0)
            .or_else(|| driver(row.driver_version.get()?)),
        nvlink_gb_s: row.bw_nvlink.quantity(),
        pcie_gb_s: row.pcie_bw.quantity(),
        cpu_cores: row.cpu_cores_effective.quantity(),
        // The RAM that comes with the offer, not the machine's: the rows of one machine's offers were
        // seen to show it in proportion to their GPUs. Taking the share of a share would refuse the
        // small offers of large machines for want of RAM that they have.
        cpu_ram_mb: row.cpu_ram.count().filter(|&mb| mb > 0),
        disk_gb: row.disk_space.quantity(),
        disk_mb_s: row.disk_bw.quantity(),
        inet_down_mbit_s: row.inet_down.quantity(),
        inet_up_mbit_s: row.inet_up.quantity(),
        inet_down_price: row.inet_down_cost.price(PER_GB_MAX, "inet_down_cost")?,
        inet_up_price: row.inet_up_cost.price(PER_GB_MAX, "inet_up_cost")?,
        storage_price: row.storage_cost.price(PER_GB_MAX, "storage_cost")?,
        reliability: fraction(row.reliability2).or(fraction(row.reliability)),
        verified: row
            .verification
            .get()
            .map(|word| word == "verified")
            .or(row.verified.0),
        datacenter: row.hosting_type.count().map(|kind| kind >= 1),
        static_ip: row.static_ip.0,
        direct_ports: row.direct_port_count.count(),
        country: row
            .geolocation
            .get()
            .and_then(Country::from_location)
            .or_else(|| Country::from_location(row.country_code.get()?)),
        rentable: row.rentable.0,
        rented: row.rented.0,
        ends_at: row.end_date.time(),
        on_demand,
        floor,
        dlperf: row.dlperf.quantity(),
    })
}

/// GPUs of the machine: the offer's over its fraction of the machine.
fn machine_gpus(gpus: u32, gpu_frac: Num) -> Option<u32> {
    let fraction = gpu_frac.float().filter(|f| *f > 0.0 && *f <= 1.0)?;
    let all = (f64::from(gpus) / fraction).round();
    (all <= f64::from(GPUS_MAX)).then_some(all as u32)
}

fn fraction(number: Num) -> Option<f32> {
    number.quantity().filter(|&f| f <= 1.0)
}

/// 12.8 is 1280.
fn cuda(version: Num) -> Option<u32> {
    let hundredfold = (version.float()? * 100.0).round();
    (1.0..=100_000.0)
        .contains(&hundredfold)
        .then_some(hundredfold as u32)
}

/// `535.86.05` is 535086005: three groups of three digits.
fn driver(version: &str) -> Option<u32> {
    let mut groups = version.split('.').map(str::parse::<u32>);
    let mut number = groups.next()?.ok()?;
    for _ in 0..2 {
        let group = groups.next().unwrap_or(Ok(0)).ok()?;
        if group > 999 {
            return None;
        }
        number = number.checked_mul(1000)?.checked_add(group)?;
    }
    Some(number)
}

/// The rows of a search's answer, each still as JSON, so that a broken one spoils only itself.
#[derive(Debug, Default)]
pub struct SearchRows<'a> {
    /// The rows.
    pub rows: Vec<&'a RawValue>,
    /// Whether a list of rows was there at all.
    pub found: bool,
    /// Whether the answer says, beside any rows, that it failed.
    pub failed: bool,
}

/// Finds the rows of a search's answer in one pass, in whichever envelope they came: `data`,
/// `result` or none.
pub fn search_rows(body: &str) -> Result<SearchRows<'_>, serde_json::Error> {
    serde_json::from_str(body)
}

impl<'de> Deserialize<'de> for SearchRows<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SearchVisitor)
    }
}

struct SearchVisitor;

impl<'de> Visitor<'de> for SearchVisitor {
    type Value = SearchRows<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer of a search")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut rows = Vec::with_capacity(64);
        while let Some(row) = seq.next_element::<&RawValue>()? {
            rows.push(row);
        }
        Ok(SearchRows {
            rows,
            found: true,
            failed: false,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut all = SearchRows::default();
        while let Some(key) = map.next_key::<Text<'de>>()? {
            match key.get().unwrap_or_default() {
                "offers" | "data" | "result" => {
                    let inner: Self::Value = map.next_value()?;
                    if inner.found && all.found {
                        return Err(A::Error::custom("two lists of offers"));
                    }
                    all.failed |= inner.failed;
                    if inner.found {
                        all.rows = inner.rows;
                        all.found = true;
                    }
                }
                "success" => all.failed |= map.next_value::<Flag>()?.0 == Some(false),
                "error" => all.failed |= map.next_value::<Option<IgnoredAny>>()?.is_some(),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(all)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(SearchRows::default())
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(SearchRows::default())
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(SearchRows::default())
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(SearchRows::default())
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(SearchRows::default())
    }
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(SearchRows::default())
    }
}
