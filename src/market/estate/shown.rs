//! What a host sees of its machines, and what it earns by them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Holding, Maintenance};
use crate::market::contract::Contract;
use crate::market::meter::Use;
use crate::market::sim::Market;
use crate::types::time::Time;

const DAY_MS: i64 = 86_400_000;

impl Market {
    /// The machines that an account owns, in order of id.
    pub(in crate::market) fn machines_of(&self, account: u64) -> Vec<Value> {
        self.owned(account)
            .map(|(id, holding)| self.machine_row(id, holding))
            .collect()
    }

    /// One of them.
    pub(in crate::market) fn machine_of(&self, account: u64, id: u64) -> Option<Value> {
        let (_, holding) = self.owned(account).find(|(held, _)| *held == id)?;
        Some(self.machine_row(id, holding))
    }

    fn machine_row(&self, id: u64, holding: &Holding) -> Value {
        let facts = &holding.facts;
        let machine = &self.machines[holding.index];
        let listed = !holding.offered.is_empty();
        let terms = holding.terms.filter(|_| listed);
        let here: Vec<&Contract> = machine
            .contracts
            .iter()
            .filter_map(|id| self.contracts.get(id))
            .collect();
        let count = |wanted: &dyn Fn(&Contract) -> bool| {
            here.iter().filter(|contract| wanted(contract)).count()
        };
        let on_demand = |contract: &Contract| contract.bid.is_none();
        let running = |contract: &Contract| contract.granted;
        let mut row = json!({
            "id": id, "machine_id": id, "host_id": holding.owner,
            "num_gpus": holding.gpus, "gpu_name": facts.gpu_name, "gpu_ram": facts.gpu_ram,
            "gpu_arch": facts.gpu_arch, "cpu_name": facts.cpu_name, "cpu_cores": facts.cpu_cores,
            "cpu_ram": facts.cpu_ram, "cuda_max_good": facts.cuda_max_good,
            "driver_version": facts.driver_version, "mobo_name": facts.mobo_name,
            "pcie_bw": facts.pcie_bw, "inet_up": facts.inet_up, "inet_down": facts.inet_down,
            "hostname": format!("host-{id}"), "public_ipaddr": facts.public_ipaddr,
            "geolocation": facts.geolocation, "os_version": facts.os_version,
            "disk_space": facts.disk_space, "max_disk_space": facts.disk_space,
            "alloc_disk_space": here.iter().filter_map(|held| held.task())
                .fold(0.0, |sum, task| sum + task.disk_gb),
            "reliability2": facts.reliability, "verification": facts.verification,
            "num_reports": self.machine_reports(id).map_or(0, |reports| reports.len()),
            "timeout": 0, "error_description": null,
            "gpu_occupancy": occupancy(&here, holding.gpus),
            "current_rentals_running": count(&running),
            "current_rentals_running_on_demand":
                count(&|held: &Contract| running(held) && on_demand(held)),
            "current_rentals_resident": here.len(),
            "current_rentals_resident_on_demand": count(&on_demand),
        });
        row["listed"] = json!(listed);
        row["listed_gpu_cost"] = json!(terms.map(|terms| terms.price.as_dollars()));
        row["min_bid_price"] = json!(terms.map(|terms| terms.floor.as_dollars()));
        row["listed_storage_cost"] = json!(terms.map(|terms| terms.disk_price));
        row["listed_inet_up_cost"] = json!(terms.map(|terms| terms.traffic.0));
        row["listed_inet_down_cost"] = json!(terms.map(|terms| terms.traffic.1));
        row["listed_min_gpu_count"] = json!(terms.map(|terms| terms.least_gpus));
        row["credit_discount_max"] = json!(terms.map(|terms| terms.discount));
        row["end_date"] = json!(terms.map(|terms| terms.ends.epoch_seconds()));
        let job = holding.default_job.as_ref();
        row["bid_image"] = json!(job.map(|job| &job.image));
        row["bid_gpu_cost"] = json!(job.map(|job| job.price));
        row["bid_inet_up_cost"] = json!(job.map(|job| job.traffic.0));
        row["bid_inet_down_cost"] = json!(job.map(|job| job.traffic.1));
        let ahead = |plan: &&Maintenance| {
            plan.begins.epoch_seconds() + plan.hours * 3600.0 > self.now.epoch_seconds()
        };
        let plan = holding.maintenance.as_ref().filter(ahead).map(|plan| {
            json!({
                "machine_id": id, "start_time": plan.begins.epoch_seconds(),
                "end_time": plan.begins.epoch_seconds() + plan.hours * 3600.0,
                "duration_hours": plan.hours, "maintenance_category": plan.category,
            })
        });
        row["machine_maintenance"] = plan.into_iter().collect();
        row
    }

    /// What others' instances on an account's machines used, within a span of time. The play market
    /// takes no fee, and pays nothing out: a host's earnings are not its credit.
    pub(in crate::market) fn earnings(
        &self,
        account: u64,
        from: Time,
        to: Time,
        machine: Option<u64>,
    ) -> Value {
        let mut by_machine: BTreeMap<u64, Use> = BTreeMap::new();
        let mut by_day: BTreeMap<i64, Use> = BTreeMap::new();
        let (mut total, mut ever) = (Use::default(), Use::default());
        let living = self.contracts.values().map(|contract| (contract, self.now));
        let past = self
            .past
            .values()
            .map(|(contract, ended)| (contract, *ended));
        for (contract, until) in past.chain(living) {
            let id = self.machines[contract.machine].id;
            let owner = self.estate.holdings.get(&id).map(|holding| holding.owner);
            let Some(task) = contract.task().filter(|task| task.account != account) else {
                continue;
            };
            if owner != Some(account) || machine.is_some_and(|wanted| wanted != id) {
                continue;
            }
            for (start, end, used) in task.meter.by_day(until) {
                ever.merge(&used);
                if start < to && end > from {
                    total.merge(&used);
                    by_machine.entry(id).or_default().merge(&used);
                    let day = start.0.div_euclid(DAY_MS);
                    by_day.entry(day).or_default().merge(&used);
                }
            }
        }
        let parts = |used: &Use| {
            json!({
                "gpu_earn": used.money(0).as_dollars(), "sto_earn": used.money(1).as_dollars(),
                "bwd_earn": used.money(2).as_dollars(), "bwu_earn": used.money(3).as_dollars(),
            })
        };
        let with = |name: &str, number: Value, used: &Use| {
            let mut row = parts(used);
            row[name] = number;
            row
        };
        let earned = ever.bill().total().as_dollars();
        json!({
            "summary": {
                "total_gpu": total.money(0).as_dollars(), "total_stor": total.money(1).as_dollars(),
                "total_bwd": total.money(2).as_dollars(), "total_bwu": total.money(3).as_dollars(),
            },
            "username": format!("play-{account}"),
            "current": {
                "balance": earned, "service_fee": 0.0, "total": earned,
                "credit": self.credit(account).as_dollars(),
            },
            "per_machine": by_machine.iter()
                .map(|(id, used)| with("machine_id", json!(id), used)).collect::<Vec<_>>(),
            "per_day": by_day.iter()
                .map(|(day, used)| with("day", json!(day), used)).collect::<Vec<_>>(),
        })
    }
}

/// A letter a GPU: `D` rented on demand, `I` by a bid, `x` idle.
fn occupancy(here: &[&Contract], gpus: u32) -> String {
    let letters: Vec<&str> = (0..gpus)
        .map(|gpu| {
            let holder = here
                .iter()
                .find(|contract| contract.granted && contract.mask >> gpu & 1 == 1);
            match holder.map(|contract| contract.bid) {
                Some(None) => "D",
                Some(Some(_)) => "I",
                None => "x",
            }
        })
        .collect();
    letters.join(" ")
}
