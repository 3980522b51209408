//! An offer as a row of `offer_specs` and one of `offer_versions`, and back.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::{Row, Transaction, params};

use crate::ports::StoreError;
use crate::types::ids::{HostId, MachineId, OfferId};
use crate::types::money::{Money, Rate};
use crate::types::offer::{Country, Offer};
use crate::types::time::Time;

use super::error::{conversion, id, id_at, optional_id_at};

/// Model names, each kept once however many offers have it.
#[derive(Default)]
pub(super) struct Names(BTreeSet<Arc<str>>);

impl Names {
    fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}

pub(super) const SPEC_COLUMNS: &str = "machine, gpus, host, machine_gpus, gpu_ids, gpu_name, gpu_ram_mb, \
    compute_cap, cuda_max, driver_version, nvlink_gb_s, pcie_gb_s, cpu_cores, cpu_ram_mb, \
    disk_mb_s, inet_down_price, inet_up_price, storage_price, verified, datacenter, static_ip, \
    direct_ports, country";

pub(super) const VERSION_COLUMNS: &str = "offer, on_demand, floor, rentable, rented, ends_at, reliability, \
    disk_gb, inet_down_mbit_s, inet_up_mbit_s, dlperf";
const VERSION_COLUMNS_COUNT: usize = 11;

/// Whether two offers agree in what `offer_specs` holds. Taken apart by name, so that a new field
/// does not compile until it is decided where it belongs.
pub(super) fn same_spec(a: &Offer, b: &Offer) -> bool {
    let Offer {
        // Of the version.
        id: _,
        on_demand: _,
        floor: _,
        rentable: _,
        rented: _,
        ends_at: _,
        reliability: _,
        disk_gb: _,
        inet_down_mbit_s: _,
        inet_up_mbit_s: _,
        dlperf: _,
        // Of the spec.
        machine,
        host,
        gpus,
        machine_gpus,
        gpu_ids,
        gpu_name,
        gpu_ram_mb,
        compute_cap,
        cuda_max,
        driver_version,
        nvlink_gb_s,
        pcie_gb_s,
        cpu_cores,
        cpu_ram_mb,
        disk_mb_s,
        inet_down_price,
        inet_up_price,
        storage_price,
        verified,
        datacenter,
        static_ip,
        direct_ports,
        country,
    } = a;
    *machine == b.machine
        && *host == b.host
        && *gpus == b.gpus
        && *machine_gpus == b.machine_gpus
        && *gpu_ids == b.gpu_ids
        && *gpu_name == b.gpu_name
        && *gpu_ram_mb == b.gpu_ram_mb
        && *compute_cap == b.compute_cap
        && *cuda_max == b.cuda_max
        && *driver_version == b.driver_version
        && *nvlink_gb_s == b.nvlink_gb_s
        && *pcie_gb_s == b.pcie_gb_s
        && *cpu_cores == b.cpu_cores
        && *cpu_ram_mb == b.cpu_ram_mb
        && *disk_mb_s == b.disk_mb_s
        && *inet_down_price == b.inet_down_price
        && *inet_up_price == b.inet_up_price
        && *storage_price == b.storage_price
        && *verified == b.verified
        && *datacenter == b.datacenter
        && *static_ip == b.static_ip
        && *direct_ports == b.direct_ports
        && *country == b.country
}

pub(super) fn insert_spec(transaction: &Transaction<'_>, o: &Offer) -> Result<(), StoreError> {
    let gpu_ids: Vec<String> = o.gpu_ids.iter().map(u32::to_string).collect();
    let sql = format!(
        "INSERT INTO offer_specs ({SPEC_COLUMNS}) VALUES \
         (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    );
    transaction.prepare_cached(&sql)?.execute(params![
        id(o.machine.0),
        o.gpus,
        o.host.map(|host| id(host.0)),
        o.machine_gpus,
        gpu_ids.join(","),
        &*o.gpu_name,
        o.gpu_ram_mb,
        o.compute_cap,
        o.cuda_max,
        o.driver_version,
        o.nvlink_gb_s,
        o.pcie_gb_s,
        o.cpu_cores,
        o.cpu_ram_mb,
        o.disk_mb_s,
        o.inet_down_price.map(|price| price.0),
        o.inet_up_price.map(|price| price.0),
        o.storage_price.map(|price| price.0),
        o.verified,
        o.datacenter,
        o.static_ip,
        o.direct_ports,
        o.country.map(String::from),
    ])?;
    Ok(())
}

pub(super) fn insert_version(
    transaction: &Transaction<'_>,
    spec: i64,
    from_snapshot: i64,
    o: &Offer,
) -> Result<(), StoreError> {
    let sql = format!(
        "INSERT INTO offer_versions (spec, from_snapshot, {VERSION_COLUMNS}) VALUES \
         (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    );
    transaction.prepare_cached(&sql)?.execute(params![
        spec,
        from_snapshot,
        id(o.id.0),
        o.on_demand.map(|rate| rate.0),
        o.floor.map(|rate| rate.0),
        o.rentable,
        o.rented,
        o.ends_at.map(|time| time.0),
        o.reliability,
        o.disk_gb,
        o.inet_down_mbit_s,
        o.inet_up_mbit_s,
        o.dlperf,
    ])?;
    Ok(())
}

/// An offer from the columns of its version followed by those of its spec.
pub(super) fn offer_at(row: &Row<'_>, first: usize, names: &mut Names) -> rusqlite::Result<Offer> {
    let spec = spec_with_names_at(row, first + VERSION_COLUMNS_COUNT, names)?;
    Ok(Offer {
        id: OfferId(id_at(row, first)?),
        on_demand: row.get::<_, Option<i64>>(first + 1)?.map(Rate),
        floor: row.get::<_, Option<i64>>(first + 2)?.map(Rate),
        rentable: row.get(first + 3)?,
        rented: row.get(first + 4)?,
        ends_at: row.get::<_, Option<i64>>(first + 5)?.map(Time),
        reliability: row.get(first + 6)?,
        disk_gb: row.get(first + 7)?,
        inet_down_mbit_s: row.get(first + 8)?,
        inet_up_mbit_s: row.get(first + 9)?,
        dlperf: row.get(first + 10)?,
        ..spec
    })
}

pub(super) fn spec_at(row: &Row<'_>, first: usize) -> rusqlite::Result<Offer> {
    spec_with_names_at(row, first, &mut Names::default())
}

/// An offer of which only the spec's part says something.
fn spec_with_names_at(row: &Row<'_>, first: usize, names: &mut Names) -> rusqlite::Result<Offer> {
    let money = |column: usize| -> rusqlite::Result<Option<Money>> {
        Ok(row.get::<_, Option<i64>>(first + column)?.map(Money))
    };
    let name = row
        .get_ref(first + 5)?
        .as_str()
        .map_err(|error| conversion(first + 5, error))?;
    Ok(Offer {
        id: OfferId(0),
        machine: MachineId(id_at(row, first)?),
        gpus: row.get(first + 1)?,
        host: optional_id_at(row, first + 2)?.map(HostId),
        machine_gpus: row.get(first + 3)?,
        gpu_ids: gpu_ids_at(row, first + 4)?,
        gpu_name: names.shared(name),
        gpu_ram_mb: row.get(first + 6)?,
        compute_cap: row.get(first + 7)?,
        cuda_max: row.get(first + 8)?,
        driver_version: row.get(first + 9)?,
        nvlink_gb_s: row.get(first + 10)?,
        pcie_gb_s: row.get(first + 11)?,
        cpu_cores: row.get(first + 12)?,
        cpu_ram_mb: row.get(first + 13)?,
        disk_mb_s: row.get(first + 14)?,
        inet_down_price: money(15)?,
        inet_up_price: money(16)?,
        storage_price: money(17)?,
        verified: row.get(first + 18)?,
        datacenter: row.get(first + 19)?,
        static_ip: row.get(first + 20)?,
        direct_ports: row.get(first + 21)?,
        country: country_at(row, first + 22)?,
        on_demand: None,
        floor: None,
        rentable: None,
        rented: None,
        ends_at: None,
        reliability: None,
        disk_gb: None,
        inet_down_mbit_s: None,
        inet_up_mbit_s: None,
        dlperf: None,
    })
}

fn gpu_ids_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<u32>> {
    let text = row
        .get_ref(column)?
        .as_str()
        .map_err(|error| conversion(column, error))?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',')
        .map(|number| number.parse().map_err(|error| conversion(column, error)))
        .collect()
}

fn country_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Country>> {
    let text: Option<String> = row.get(column)?;
    let refused = |error: &'static str| conversion(column, std::io::Error::other(error));
    text.map(|text| Country::try_from(text).map_err(refused))
        .transpose()
}
