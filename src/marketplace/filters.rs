//! A query's bounds as the marketplace's filters, `{field: {operator: value}}`, for every wire
//! format.
//!
//! A bound is sent a hair looser than it is: the marketplace compares its own numbers, of which
//! ours are roundings, and a row that lies on the bound must come.

use serde_json::{Value, json};

use super::searching::Filter;
use crate::types::money::Rate;
use crate::types::offer::{Bounds, Country};

/// Single precision keeps seven digits; this is more than it loses.
const HAIR: f64 = 1e-6;

/// Adds a query's bounds to its filter. The documented names of the
/// fields are those of the rows, but for `datacenter` and `verified`, which only filters have.
pub(crate) fn add_bounds(filter: &mut Filter, bounds: &Bounds) {
    let mut set = |field: &str, operator: &str, value: Value| filter.and(field, operator, value);
    match bounds.gpu_names.as_slice() {
        [] => {}
        names => set("gpu_name", "in", json!(names)),
    }
    match bounds.machines.as_slice() {
        [] => {}
        machines => {
            let ids: Vec<u64> = machines.iter().map(|machine| machine.0).collect();
            set("machine_id", "in", json!(ids));
        }
    }
    match bounds.gpus.as_slice() {
        [] => {}
        [one] => set("num_gpus", "eq", json!(one)),
        several => set("num_gpus", "in", json!(several)),
    }
    let whole = [
        ("gpu_ram", bounds.gpu_ram_mb_min),
        ("compute_cap", bounds.compute_cap_min),
        ("direct_port_count", bounds.direct_ports_min),
    ];
    for (field, least) in whole {
        if let Some(least) = least {
            set(field, "gte", json!(least));
        }
    }
    let scaled = [
        ("disk_space", bounds.disk_gb_min, 1.0),
        ("inet_down", bounds.inet_down_mbit_s_min, 1.0),
        ("inet_up", bounds.inet_up_mbit_s_min, 1.0),
        ("reliability", bounds.reliability_ppm_min, 1e-6),
    ];
    for (field, least, unit) in scaled {
        if let Some(least) = least {
            set(field, "gte", json!(f64::from(least) * unit * (1.0 - HAIR)));
        }
    }
    if let Some(least) = bounds.cuda_min {
        // Ours is rounded to hundredths.
        set(
            "cuda_max_good",
            "gte",
            json!(f64::from(least) / 100.0 - 0.005),
        );
    }
    if bounds.datacenter {
        set("datacenter", "eq", json!(true));
    }
    if bounds.static_ip {
        set("static_ip", "eq", json!(true));
    }
    if bounds.unverified {
        set("verified", "in", json!([true, false]));
    }
    if !bounds.countries.is_empty() {
        set("geolocation", "in", codes(&bounds.countries));
    }
    if !bounds.countries_denied.is_empty() {
        set("geolocation", "notin", codes(&bounds.countries_denied));
    }
    if let Some(Rate(most)) = bounds.total_max {
        let dollars = most as f64 / 1e9;
        set("dph_total", "lte", json!(dollars * (1.0 + HAIR) + 1e-8));
    }
}

fn codes(countries: &[Country]) -> Value {
    let codes: Vec<String> = countries.iter().copied().map(String::from).collect();
    json!(codes)
}
