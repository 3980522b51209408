//! Rows of the list of instances, and an instance by itself.

use serde::Deserialize;
use serde_json::Value;

use super::BadRow;
use super::lenient::{Flag, Ints, Num, Text};
use crate::marketplace::redact::Redactor;
use crate::types::ids::{HostId, InstanceId, MachineId};
use crate::types::instance::{Instance, RawState};
use crate::types::money::{Money, Rate, storage_rate};

/// No instance costs as much per hour.
const DPH_MAX: f64 = 10_000.0;

/// Labels are at most 1024 characters at the marketplace.
const LABEL_BYTES_MAX: usize = 4096;

/// The names of [`InstanceRow`]'s fields.
pub(crate) const INSTANCE_FIELDS: [&str; 26] = [
    "id",
    "label",
    "machine_id",
    "host_id",
    "num_gpus",
    "gpu_ids",
    "gpu_name",
    "is_bid",
    "dph_base",
    "storage_cost",
    "storage_total_cost",
    "instance",
    "cur_state",
    "intended_status",
    "next_state",
    "actual_status",
    "status_msg",
    "start_date",
    "uptime_mins",
    "end_date",
    "disk_space",
    "gpu_util",
    "ssh_host",
    "ssh_port",
    "public_ipaddr",
    "ports",
];

/// The fields of a row that we read, as they came.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct InstanceRow<'a> {
    id: Num,
    #[serde(borrow)]
    label: Text<'a>,
    machine_id: Num,
    host_id: Num,
    num_gpus: Num,
    gpu_ids: Ints,
    #[serde(borrow)]
    gpu_name: Text<'a>,
    is_bid: Flag,
    dph_base: Num,
    storage_cost: Num,
    storage_total_cost: Num,
    instance: Burn,
    #[serde(borrow)]
    cur_state: Text<'a>,
    #[serde(borrow)]
    intended_status: Text<'a>,
    #[serde(borrow)]
    next_state: Text<'a>,
    #[serde(borrow)]
    actual_status: Text<'a>,
    #[serde(borrow)]
    status_msg: Text<'a>,
    start_date: Num,
    uptime_mins: Num,
    end_date: Num,
    disk_space: Num,
    gpu_util: Num,
    #[serde(borrow)]
    ssh_host: Text<'a>,
    ssh_port: Num,
    #[serde(borrow)]
    public_ipaddr: Text<'a>,
    ports: Value,
}

/// What an instance costs in its present state.
#[derive(Debug, Default)]
struct Burn {
    total_hour: Num,
}

impl<'de> Deserialize<'de> for Burn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let total_hour = value
            .get("totalHour")
            .and_then(|total| Num::deserialize(total).ok())
            .unwrap_or_default();
        Ok(Self { total_hour })
    }
}

/// The id of a row, where at least that can be read.
pub(crate) fn row_id(row: &Value) -> Option<u64> {
    Num::deserialize(row.get("id")?).ok()?.id()
}

/// An instance from its row. The provider's words in it are redacted.
pub fn instance(row: &Value, redactor: &Redactor) -> Result<Instance, BadRow> {
    let row = InstanceRow::deserialize(row).map_err(|_| BadRow("row"))?;
    let id = row.id.id().ok_or(BadRow("id"))?;
    let price = row.dph_base.rate(DPH_MAX, "dph_base")?;
    let disk_gb = row
        .disk_space
        .float()
        .filter(|gb| *gb >= 0.0)
        .map(f64::ceil);
    let storage = match row.storage_total_cost.rate(DPH_MAX, "storage_total_cost")? {
        Some(rate) => Some(rate),
        None => derived_storage(&row, disk_gb)?,
    };
    let label = row.label.0.as_deref().filter(|label| !label.is_empty());
    if label.is_some_and(|label| label.len() > LABEL_BYTES_MAX) {
        return Err(BadRow("label"));
    }
    Ok(Instance {
        id: InstanceId(id),
        label: label.map(str::to_owned),
        machine: row.machine_id.id().map(MachineId),
        host: row.host_id.id().map(HostId),
        gpus: row.num_gpus.count().filter(|&gpus| gpus > 0),
        gpu_ids: row.gpu_ids.0.clone(),
        gpu_name: row.gpu_name.get().map(str::to_owned),
        is_bid: row.is_bid.0,
        price,
        storage,
        burn: row.instance.total_hour.rate(DPH_MAX, "totalHour")?,
        cur_state: state(&row.cur_state),
        intended: state(&row.intended_status),
        next_state: state(&row.next_state),
        actual: state(&row.actual_status),
        status_msg: row.status_msg.get().map(|text| redactor.words(text)),
        started_at: row.start_date.time(),
        up_ms: up_ms(row.uptime_mins),
        ends_at: row.end_date.time(),
        disk_gb: disk_gb
            .filter(|gb| *gb <= f64::from(u32::MAX))
            .map(|gb| gb as u32),
        ssh: ssh(&row),
        gpu_util: gpu_util(row.gpu_util),
    })
}

/// The time for which a container has been up: a row gives minutes. What is no time is unknown.
fn up_ms(minutes: Num) -> Option<i64> {
    /// No rental lasts longer.
    const YEARS_10_MIN: f64 = 10.0 * 366.0 * 24.0 * 60.0;
    let minutes = minutes.float()?;
    (0.0..YEARS_10_MIN)
        .contains(&minutes)
        .then_some((minutes * 60_000.0) as i64)
}

/// How much the GPUs are used, in percent, or in percent of each of them. What is no share is unknown.
fn gpu_util(percent: Num) -> Option<f32> {
    percent.quantity().filter(|percent| *percent <= 10_000.0)
}

fn derived_storage(row: &InstanceRow<'_>, disk_gb: Option<f64>) -> Result<Option<Rate>, BadRow> {
    let price: Option<Money> = row.storage_cost.price(DPH_MAX, "storage_cost")?;
    Ok(price
        .zip(disk_gb)
        .map(|(price, gb)| storage_rate(price, gb as u32)))
}

fn state(text: &Text<'_>) -> Option<RawState> {
    let word = text.get()?;
    Some(match word.to_ascii_lowercase().as_str() {
        "created" => RawState::Created,
        "loading" => RawState::Loading,
        "running" => RawState::Running,
        "stopped" => RawState::Stopped,
        "exited" => RawState::Exited,
        "rebooting" => RawState::Rebooting,
        "frozen" => RawState::Frozen,
        "offline" => RawState::Offline,
        _ => RawState::Other,
    })
}

/// Where its SSH listens: directly where port 22 is mapped, else through the marketplace's proxy.
fn ssh(row: &InstanceRow<'_>) -> Option<String> {
    let mapped = row
        .ports
        .get("22/tcp")
        .and_then(|bindings| bindings.get(0))
        .and_then(|binding| Num::deserialize(binding.get("HostPort")?).ok())
        .and_then(Num::id);
    let direct = row.public_ipaddr.get().zip(mapped);
    let proxied = row.ssh_host.get().zip(row.ssh_port.id());
    let (host, port) = direct.or(proxied)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    (u16::try_from(port).is_ok() && host.chars().all(plain)).then(|| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_a_documented_row() {
        let row = json!({"id":31884210,"actual_status":null,"intended_status":"running","cur_state":"running",
            "next_state":"running","is_bid":true,"label":"bot-7","machine_id":40211,"host_id":91277,"num_gpus":1,
            "gpu_name":"RTX 4090","dph_base":"0.19","dph_total":0.196,"storage_cost":0.18,"storage_total_cost":0.006,
            "disk_space":23.2,"uptime_mins":1.5,"start_date":1795502100.4,"end_date":1798990000.0,"extra_env":[["A","1"]],
            "ssh_host":"ssh4.vast.ai","ssh_port":18210,"public_ipaddr":"203.0.113.9","ports":null,
            "status_msg":"success, running x?jupyter_token=abc","instance":{"totalHour":0.006}});
        let read = instance(&row, &Redactor::default()).unwrap();
        assert_eq!(read.id, InstanceId(31884210));
        assert_eq!(read.price, Some(Rate(190_000_000)));
        assert_eq!(read.storage, Some(Rate(6_000_000)));
        assert_eq!(read.burn, Some(Rate(6_000_000)));
        assert_eq!(read.disk_gb, Some(24));
        assert_eq!(read.up_ms, Some(90_000));
        assert_eq!(read.actual, None);
        assert_eq!(read.gpu_util, None);
        assert_eq!(read.cur_state, Some(RawState::Running));
        assert_eq!(read.ssh.as_deref(), Some("ssh4.vast.ai:18210"));
        assert!(!read.status_msg.unwrap().contains("abc"));
    }

    #[test]
    fn the_fields_that_are_kept_are_those_that_are_read() {
        /// Refuses everything, but remembers which fields a struct asked for.
        struct Asked<'a>(&'a mut Vec<&'static str>);
        impl<'de> serde::Deserializer<'de> for Asked<'_> {
            type Error = serde_json::Error;
            fn deserialize_any<V: serde::de::Visitor<'de>>(
                self,
                _: V,
            ) -> Result<V::Value, Self::Error> {
                Err(serde::de::Error::custom("no value"))
            }
            fn deserialize_struct<V: serde::de::Visitor<'de>>(
                self,
                _: &'static str,
                fields: &'static [&'static str],
                visitor: V,
            ) -> Result<V::Value, Self::Error> {
                self.0.extend(fields);
                self.deserialize_any(visitor)
            }
            serde::forward_to_deserialize_any! {
                bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
                option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
                ignored_any
            }
        }
        let mut asked = Vec::new();
        assert!(InstanceRow::deserialize(Asked(&mut asked)).is_err());
        assert_eq!(asked, INSTANCE_FIELDS);
    }

    #[test]
    fn prefers_the_direct_port_and_derives_storage() {
        let row = json!({"id":1,"storage_cost":0.18,"disk_space":24,"public_ipaddr":"203.0.113.9 ",
            "ports":{"22/tcp":[{"HostIp":"0.0.0.0","HostPort":"41022"}]},"ssh_host":"h","ssh_port":1,
            "actual_status":"unknown"});
        let read = instance(&row, &Redactor::default()).unwrap();
        assert_eq!(read.ssh.as_deref(), Some("203.0.113.9:41022"));
        assert_eq!(read.storage, Some(Rate(6_000_000)));
        assert_eq!(read.actual, Some(RawState::Other));
        assert_eq!((read.price, read.label), (None, None));
    }

    #[test]
    fn a_use_of_gpus_that_is_not_known_is_not_none() {
        let read = |value: Value| {
            let row = json!({"id":1,"gpu_util":value});
            instance(&row, &Redactor::default()).unwrap().gpu_util
        };
        assert_eq!(read(json!(0)), Some(0.0));
        assert_eq!(read(json!("4.5")), Some(4.5));
        assert_eq!(read(json!(92.0)), Some(92.0));
        for unknown in [json!(null), json!(-1), json!("n/a"), json!(1e9)] {
            assert_eq!(read(unknown), None);
        }
    }

    #[test]
    fn a_price_that_is_none_spoils_the_row_but_not_its_id() {
        let row = json!({"id":"77","dph_base":-1});
        assert_eq!(
            instance(&row, &Redactor::default()),
            Err(BadRow("dph_base"))
        );
        assert_eq!(row_id(&row), Some(77));
        assert_eq!(row_id(&json!({"id":null})), None);
        assert_eq!(row_id(&json!(null)), None);
    }
}
