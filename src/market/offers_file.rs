//! Recorded offers from a file, instead of generated ones.
//!
//! A recording seldom holds all that the marketplace tells. What is missing is derived by the
//! rules of [`RULES_HELP`], which are also what a user reads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Number, Value, json};

use super::models::compute_cap;
use super::query::driver_number;
use super::raw::{RawOffer, RawRates};
use crate::types::time::Time;

/// What an offers file may hold and how the rest is derived, for the help.
pub const RULES_HELP: &str = "\
An offers file is one of
  - CSV with a header; columns ts, id, gpu_name, num_gpus, dph_total, gpu_ram, dlperf,
    dlperf_per_dphtotal, reliability2, geolocation, cuda_max_good, inet_down, inet_up, disk_space,
    static_ip, min_bid, cpu_cores_effective, cpu_ram, hosting_type, and any other field of an offer
  - a JSON array of offers as the marketplace sends them
  - {\"offers\": [...]}, a saved answer of the marketplace
Each row needs id, gpu_name, num_gpus, gpu_ram (MB of one GPU), min_bid, and dph_total or dph_base
($/h for all its GPUs, on-demand). What else a row lacks is derived:
  machine_id, host_id   the row's id: every row is a whole machine with an owner of its own
  gpu_frac, gpu_ids     the whole machine
  verification          verified; rentable, and held by nobody
  compute_cap           by the model's name (0 for one that is not known)
  storage_cost          $0.15/GB/month
  dph_base              dph_total less the storage of 8 GB; or dph_total the other way round
  inet_*_cost           $0.003/GB both ways
  duration              ends in 30 days; where the file says how long an offer lasts, so long from
                        the market's opening
  cpu_cores, cpu_ram    as many cores as the offer has, 4 where it does not say; 4 GB for each
  disk_space, disk_bw   100 GB, 1000 MB/s
  inet_down, inet_up    500 Mb/s
  reliability           0.99
  cuda_max_good         12.8; drivers 570.124.06, or 580.65.06 from CUDA 13
  dlperf, total_flops   0
  PCIe, direct ports    generation 4, 16 lanes, 24 GB/s; no NVLink; 100 ports; no static address
  place, hosting        unknown; not in a datacenter";

/// Largest file that is read, in bytes: a whole market is some megabytes.
const FILE_MAX: u64 = 256 << 20;

/// Disk by which recorded totals were reckoned, in GB: the marketplace's default.
const ALLOCATED_STORAGE_GB: f64 = 8.0;

/// Hours of the month by which storage is priced.
const HOURS_PER_MONTH: f64 = 720.0;

/// How long an offer lasts where the file does not say, in seconds.
const DURATION_S: f64 = 30.0 * 86_400.0;

/// Why a file of offers cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {message}", path.display(), place.as_deref().unwrap_or(""))]
pub struct OffersFileError {
    path: PathBuf,
    /// `, line 3, column gpu_ram` or `, offer 3, field gpu_ram`.
    place: Option<String>,
    message: String,
}

impl OffersFileError {
    /// What is wrong, and what would be right.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// What is wrong with one field.
struct Wrong {
    field: &'static str,
    message: String,
}

fn wrong(field: &'static str, message: impl Into<String>) -> Wrong {
    Wrong {
        field,
        message: message.into(),
    }
}

/// Reads offers for a market that opens at `opens_at`: the time that an offer has left is counted
/// from there.
///
/// # Errors
/// Where the file cannot be read, is none of the known forms, or a row is wrong; the error names
/// the line or row and the field, and what is right.
pub fn load(path: &Path, opens_at: Time) -> Result<Vec<RawOffer>, OffersFileError> {
    let fail = |place: Option<String>, message: String| OffersFileError {
        path: path.to_owned(),
        place,
        message,
    };
    let text = read(path).map_err(|message| fail(None, message))?;
    let is_json = text.trim_start().starts_with(['[', '{']);
    let (rows, word, field_word) = if is_json {
        let rows = json_rows(&text).map_err(|message| fail(None, message))?;
        (rows, "offer", "field")
    } else {
        let rows = csv_rows(&text)
            .map_err(|(line, message)| fail(line.map(|line| format!(", line {line}")), message))?;
        (rows, "line", "column")
    };
    if rows.is_empty() {
        return Err(fail(None, "there are no offers in it".to_owned()));
    }
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    let mut offers = Vec::with_capacity(rows.len());
    for (number, row) in rows {
        let place = |field: &str| Some(format!(", {word} {number}, {field_word} {field}"));
        let offer = offer(row, opens_at).map_err(|w| fail(place(w.field), w.message))?;
        if let Some(first) = seen.insert(offer.id, number) {
            let message = format!(
                "offer {} is there already, at {word} {first}; a file holds one snapshot of the \
                 market, each offer once",
                offer.id
            );
            return Err(fail(place("id"), message));
        }
        offers.push(offer);
    }
    Ok(offers)
}

fn read(path: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if metadata.len() > FILE_MAX {
        return Err(format!("it is larger than {} MB", FILE_MAX >> 20));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    // Spreadsheets put a mark before what they save.
    Ok(text
        .strip_prefix('\u{feff}')
        .map_or(text.clone(), str::to_owned))
}

type Rows = Vec<(u64, Map<String, Value>)>;

fn json_rows(text: &str) -> Result<Rows, String> {
    const RIGHT: &str = "right is a JSON array of offers, or {\"offers\": [...]}";
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}; {RIGHT}"))?;
    let rows = match value {
        Value::Array(rows) => rows,
        Value::Object(mut answer) => match answer.remove("offers") {
            Some(Value::Array(rows)) => rows,
            _ => return Err(format!("it has no array `offers`; {RIGHT}")),
        },
        _ => return Err(RIGHT.to_owned()),
    };
    (1..)
        .zip(rows)
        .map(|(number, row)| match row {
            Value::Object(fields) => Ok((number, fields)),
            _ => Err(format!("offer {number} is no JSON object; {RIGHT}")),
        })
        .collect()
}

fn csv_rows(text: &str) -> Result<Rows, (Option<u64>, String)> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let failed = |error: csv::Error| {
        let line = error.position().map(csv::Position::line);
        let message = match error.kind() {
            csv::ErrorKind::UnequalLengths {
                expected_len, len, ..
            } => format!("it has {len} values; the header has {expected_len}"),
            _ => error.to_string(),
        };
        (line, message)
    };
    let header = reader.headers().map_err(failed)?.clone();
    let missing: Vec<&str> = ["id", "gpu_name", "num_gpus", "gpu_ram", "min_bid"]
        .into_iter()
        .filter(|column| !header.iter().any(|name| name == *column))
        .collect();
    if !missing.is_empty() {
        let mut message = format!("the header lacks {}", missing.join(", "));
        let _ = write!(
            message,
            "; right is a header such as id,gpu_name,num_gpus,dph_total,gpu_ram,min_bid,..."
        );
        return Err((Some(1), message));
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(failed)?;
        let line = record.position().map_or(0, csv::Position::line);
        let cells = header.iter().zip(record.iter());
        let fields = cells
            .filter(|(_, cell)| !cell.is_empty())
            .map(|(name, cell)| (name.to_owned(), cell_value(cell)))
            .collect();
        rows.push((line, fields));
    }
    Ok(rows)
}

fn cell_value(cell: &str) -> Value {
    match cell {
        "True" | "true" | "TRUE" => Value::Bool(true),
        "False" | "false" | "FALSE" => Value::Bool(false),
        _ => cell
            .parse::<i64>()
            .map(Value::from)
            .ok()
            .or_else(|| {
                cell.parse::<f64>()
                    .ok()
                    .and_then(Number::from_f64)
                    .map(Value::Number)
            })
            .unwrap_or_else(|| Value::from(cell)),
    }
}

// --------------------------------------------------------------------------------------- one offer

/// A field as a number within bounds; `None` where the row does not have it.
fn number(
    row: &Map<String, Value>,
    field: &'static str,
    bounds: std::ops::RangeInclusive<f64>,
    right: &str,
) -> Result<Option<f64>, Wrong> {
    let Some(value) = row.get(field).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    value
        .as_f64()
        .filter(|number| bounds.contains(number))
        .map(Some)
        .ok_or_else(|| wrong(field, format!("{value} is not {right}")))
}

fn needed(value: Option<f64>, field: &'static str, right: &str) -> Result<f64, Wrong> {
    value.ok_or_else(|| wrong(field, format!("it is missing; right is {right}")))
}

const PRICES: std::ops::RangeInclusive<f64> = 0.0..=10_000.0;
const PRICE: &str = "a price in dollars per hour for all GPUs of the offer, such as 0.412";

/// One offer: what the row says over what the rules derive.
fn offer(mut row: Map<String, Value>, opens_at: Time) -> Result<RawOffer, Wrong> {
    let derived = derived(&row, opens_at)?;
    // These follow from the others or from the opening, whatever the recording says.
    for field in [
        "search",
        "instance",
        "start_date",
        "end_date",
        "duration",
        "rented",
    ] {
        row.remove(field);
    }
    overlay(derived, row)
}

fn derived(row: &Map<String, Value>, opens_at: Time) -> Result<RawOffer, Wrong> {
    const ID: &str = "a whole number such as 29117402";
    const GPUS: &str = "a number of GPUs from 1 to 64";
    const RAM: &str = "the memory of one GPU in MB, such as 24564";
    if row.get("is_bid") == Some(&Value::Bool(true)) {
        let message = "the row is of a bid search, which does not tell the on-demand rate; right \
                       is a recording of an on-demand search";
        return Err(wrong("is_bid", message));
    }
    let id = needed(number(row, "id", 1.0..=9.0e15, ID)?, "id", ID)?;
    let gpus = number(row, "num_gpus", 1.0..=64.0, GPUS)?;
    let gpus = needed(gpus, "num_gpus", GPUS)?;
    let name = match row.get("gpu_name") {
        Some(Value::String(name)) if !name.is_empty() => name.as_str(),
        _ => return Err(wrong("gpu_name", "right is a model such as RTX 4090")),
    };
    // A number under this is surely of GB.
    let ram = number(row, "gpu_ram", 512.0..=4.0e6, RAM)?;
    let ram = needed(ram, "gpu_ram", RAM)?;
    for (field, whole) in [("id", id), ("num_gpus", gpus)] {
        if whole.fract() != 0.0 {
            return Err(wrong(field, format!("{whole} is not a whole number")));
        }
    }
    let storage =
        number(row, "storage_cost", 0.0..=100.0, "a price in $/GB/month")?.unwrap_or(0.15);
    let disk = storage * ALLOCATED_STORAGE_GB / HOURS_PER_MONTH;
    let base = match number(row, "dph_base", PRICES, PRICE)? {
        Some(base) => base,
        None => needed(number(row, "dph_total", PRICES, PRICE)?, "dph_total", PRICE)? - disk,
    };
    if base <= 0.0 {
        let message = format!(
            "it leaves nothing for the GPUs after ${disk:.4}/h for the storage of 8 GB; right is {PRICE}"
        );
        return Err(wrong("dph_total", message));
    }
    let floor = needed(number(row, "min_bid", PRICES, PRICE)?, "min_bid", PRICE)?;
    let reliability = number(row, "reliability2", 0.0..=1.0, "a share from 0 to 1")?
        .or(number(
            row,
            "reliability",
            0.0..=1.0,
            "a share from 0 to 1",
        )?)
        .unwrap_or(0.99);
    let cores = number(row, "cpu_cores_effective", 0.0..=1.0e5, "a number of cores")?;
    let cuda = number(
        row,
        "cuda_max_good",
        0.0..=1.0e4,
        "a CUDA version such as 12.8",
    )?;
    let (cores, cuda) = (cores.unwrap_or(4.0), cuda.unwrap_or(12.8));
    let dlperf = number(row, "dlperf", 0.0..=1.0e9, "a score")?.unwrap_or(0.0);
    let machine = number(row, "machine_id", 1.0..=9.0e15, ID)?.unwrap_or(id) as u64;
    let left = time_left(row, opens_at)?;
    let driver = match row.get("driver_version") {
        Some(Value::String(version)) => version.as_str(),
        _ if cuda < 13.0 => "570.124.06",
        _ => "580.65.06",
    };
    let verified = row
        .get("verification")
        .is_none_or(|word| word.as_str() == Some("verified"));
    let country = row
        .get("geolocation")
        .and_then(Value::as_str)
        .and_then(|place| place.rsplit(',').next())
        .map(str::trim)
        .filter(|code| code.len() == 2);
    let id = id as u64;
    let total = base + disk;
    let opened = opens_at.epoch_seconds();
    Ok(RawOffer {
        id,
        ask_contract_id: id,
        bundle_id: id,
        machine_id: machine,
        host_id: machine,
        num_gpus: gpus as u32,
        gpu_frac: 1.0,
        gpu_ids: (0..gpus as u32).collect(),
        gpu_name: name.into(),
        gpu_arch: if name.starts_with("MI") {
            "amd"
        } else {
            "nvidia"
        }
        .into(),
        gpu_ram: ram as u32,
        gpu_total_ram: (ram * gpus) as u32,
        gpu_lanes: 16,
        compute_cap: compute_cap(name).unwrap_or(0),
        cuda_max_good: cuda,
        driver_version: driver.into(),
        driver_vers: driver_number(driver).unwrap_or(0),
        cpu_arch: "amd64".into(),
        has_avx: 1,
        cpu_cores: Some(cores.ceil() as u32),
        cpu_cores_effective: cores,
        cpu_ram: (cores * 4096.0) as u32,
        disk_space: 100.0,
        disk_bw: 1000.0,
        inet_up: 500.0,
        inet_down: 500.0,
        inet_up_cost: 0.003,
        inet_down_cost: 0.003,
        internet_up_cost_per_tb: 3.0,
        internet_down_cost_per_tb: 3.0,
        direct_port_count: 100,
        pci_gen: 4.0,
        pcie_bw: 24.0,
        os_version: "22.04".into(),
        storage_cost: storage,
        storage_total_cost: disk,
        dph_base: base,
        dph_total: total,
        min_bid: floor,
        discounted_dph_total: total,
        search: RawRates::new(base, disk),
        instance: RawRates::new(0.0, disk),
        vram_costperhour: total / (ram * gpus),
        dlperf,
        dlperf_per_dphtotal: dlperf / total,
        score: dlperf / total,
        reliability,
        reliability2: reliability,
        verification: "verified".into(),
        vericode: u32::from(verified),
        rentable: true,
        country_code: country.map(Into::into),
        start_date: opened,
        end_date: opened + left,
        duration: left,
        resource_type: "gpu".into(),
        rn: 1,
        dph_total_adj: total,
        ..RawOffer::default()
    })
}

/// How long the offer lasts from the opening, in seconds. A recording is mostly older than its
/// replay, so what it says of time left counts from there, and an end that is past does not count.
fn time_left(row: &Map<String, Value>, opens_at: Time) -> Result<f64, Wrong> {
    const SECONDS: std::ops::RangeInclusive<f64> = 0.0..=1.0e10;
    if let Some(left) = number(row, "duration", SECONDS, "a number of seconds")? {
        return Ok(left);
    }
    let end = number(row, "end_date", SECONDS, "a time in seconds since 1970")?;
    let left = end.map(|end| end - opens_at.epoch_seconds());
    Ok(left.filter(|left| *left > 0.0).unwrap_or(DURATION_S))
}

/// Puts what the row says over what was derived, field by field, and reads the sum.
fn overlay(derived: RawOffer, row: Map<String, Value>) -> Result<RawOffer, Wrong> {
    let unreadable = |_| wrong("id", "the row cannot be read");
    let base = serde_json::to_value(derived).map_err(unreadable)?;
    let mut merged = base.clone();
    let mut said: Vec<&'static str> = Vec::new();
    for &field in RawOffer::FIELDS {
        let Some(value) = row.get(field).filter(|value| !value.is_null()) else {
            continue;
        };
        merged[field] = fitted(&base[field], value);
        said.push(field);
    }
    if let Ok(offer) = serde_json::from_value(merged.clone()) {
        return Ok(offer);
    }
    // Which field it was is looked for only now, one by one.
    let culprit = said.into_iter().find(|field| {
        let mut one = base.clone();
        one[*field] = merged[*field].clone();
        serde_json::from_value::<RawOffer>(one).is_err()
    });
    let field = culprit.unwrap_or("id");
    let right = match &base[field] {
        Value::Number(_) => "a number",
        Value::Bool(_) => "true or false",
        Value::String(_) => "a text",
        _ => "what the marketplace sends there",
    };
    Err(wrong(field, format!("{} is not {right}", merged[field])))
}

/// A value in the form that the field has: counts without a fraction, texts for what looks like a
/// number, booleans for 0 and 1.
fn fitted(like: &Value, value: &Value) -> Value {
    match (like, value) {
        (Value::Number(like), Value::Number(number)) if !like.is_f64() => match number.as_f64() {
            Some(float) if (0.0..9.0e15).contains(&float) => json!(float.round() as u64),
            _ => value.clone(),
        },
        (Value::Bool(_), Value::Number(number)) => match number.as_u64() {
            Some(flag @ (0 | 1)) => json!(flag == 1),
            _ => value.clone(),
        },
        (Value::String(_), Value::Number(number)) => json!(number.to_string()),
        _ => value.clone(),
    }
}

#[cfg(test)]
#[path = "offers_file_tests.rs"]
mod tests;
