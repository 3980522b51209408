//! What the market shows: offers, instances, the account and its charges.

use std::collections::BTreeMap;

use super::api::{ExactBill, Rented, Standing};
use super::contract::{Contract, Task};
use super::disputed::BalanceMeans;
use super::meter::Use;
use super::raw::{
    Ports, RawCharge, RawChargeItem, RawChargeMetadata, RawInstance, RawOffer, RawPort, RawRates,
    RawUser,
};
use super::sim::Market;
use crate::types::money::{Money, NANOS_PER_DOLLAR, Rate};
use crate::types::time::Time;

/// The items of a charge row, in order of their amounts in a [`Use`].
const COMPONENTS: [&str; 4] = ["gpu", "disk", "bwd", "bwu"];

impl Market {
    /// The account's instances, in order of id.
    pub fn instances(&self, account: u64) -> Vec<RawInstance> {
        self.contracts
            .values()
            .filter_map(|contract| self.shown(account, contract))
            .collect()
    }

    /// The account's instances, in order of id, as far as a checker compares them: the truth, without
    /// rows made. For checkers; no wire shows it.
    pub fn held(&self, account: u64) -> impl Iterator<Item = Rented<'_>> {
        self.contracts.values().filter_map(move |contract| {
            let task = contract.task().filter(|task| task.account == account)?;
            let online = self.machines[contract.machine].online;
            let burn = task.meter.rates();
            Some(Rented {
                id: contract.id,
                machine: self.machines[contract.machine].id,
                label: task.label.as_deref(),
                label_asked: task.params.label.as_deref(),
                actual_status: contract.states(online).1,
                is_bid: contract.bid.is_some(),
                num_gpus: contract.gpus,
                price: contract.price() + task.disk_rate,
                burn: burn.gpu + burn.disk,
            })
        })
    }

    /// One instance of the account; `None` where there is none, or it was destroyed.
    pub fn instance(&self, account: u64, id: u64) -> Option<RawInstance> {
        self.shown(account, self.contracts.get(&id)?)
    }

    fn shown(&self, account: u64, contract: &Contract) -> Option<RawInstance> {
        let task = contract.task().filter(|task| task.account == account)?;
        let machine = &self.machines[contract.machine];
        let row = &machine.slices[contract.slice].row;
        let ([cur, intended, next], actual) = contract.states(machine.online);
        let running = actual == Some("running");
        let gpu = contract.price().as_dollars();
        let disk = task.disk_rate.as_dollars();
        let total = gpu + disk;
        let burn = task.meter.rates();
        let stored = if contract.granted {
            task.disk_rate
        } else {
            task.stopped_disk_rate
        };
        let start = if task.facts.start_moves {
            task.granted_at
        } else {
            task.created
        };
        let id = contract.id;
        let up_ms = task.up_since.map(|since| self.now.ms_since(since) as f64);
        let runtype = task.params.runtype.clone().unwrap_or_else(|| {
            let args = !task.params.args.is_empty();
            if args { "args" } else { "ssh" }.to_owned()
        });
        let telemetry = |value: f64| running.then_some(value);
        Some(RawInstance {
            id,
            actual_status: actual.map(Into::into),
            intended_status: intended.into(),
            cur_state: cur.into(),
            next_state: next.into(),
            status_msg: task.words(self.now),
            is_bid: contract.bid.is_some(),
            dph_base: gpu,
            dph_total: total,
            min_bid: task.floor_then.as_dollars(),
            search: RawRates::new(gpu, disk),
            instance: RawRates::new(burn.gpu.as_dollars(), burn.disk.as_dollars()),
            storage_cost: machine.slices[contract.slice].storage_price.as_dollars(),
            storage_total_cost: stored.as_dollars(),
            disk_space: task.disk_gb,
            disk_usage: if task.image_ready { 4.0 } else { -1.0 },
            disk_util: if task.image_ready { 4.0 } else { -1.0 },
            start_date: start.epoch_seconds(),
            end_date: task.ends.epoch_seconds(),
            duration: task.ends.ms_since(self.now).max(0) as f64 / 1000.0,
            uptime_mins: up_ms.map(|ms| ms / 60_000.0),
            label: task.label.clone(),
            image_uuid: task.params.image.clone().unwrap_or_default().into(),
            image_runtype: runtype.into(),
            image_args: task.params.args.clone(),
            onstart: task.params.onstart.as_deref().map(Into::into),
            extra_env: task.params.env.clone(),
            ssh_host: format!("ssh{}.vast.ai", id % 9 + 1).into(),
            ssh_port: 10_000 + (id % 30_000) as u32,
            ssh_idx: (id % 9 + 1).to_string().into(),
            public_ipaddr: row.public_ipaddr.clone(),
            local_ipaddrs: format!("192.168.{}.{}", id % 250, machine.id % 250 + 2).into(),
            ports: running.then(|| ports(task, id)),
            direct_port_start: -1,
            direct_port_end: -1,
            machine_dir_ssh_port: 22_000 + (machine.id % 20_000) as u32,
            jupyter_token: task.api_key.get(..32).unwrap_or_default().into(),
            gpu_util: telemetry(92.0),
            gpu_temp: telemetry(64.0),
            cpu_util: telemetry(0.4),
            mem_usage: telemetry(6.0),
            mem_limit: telemetry(f64::from(row.cpu_ram) / 1000.0),
            vmem_usage: telemetry(0.7),
            template_hash_id: task.params.template_hash_id.as_deref().map(Into::into),
            client_run_time: task.ran(self.now) as f64 / 1000.0,
            host_run_time: task.ends.ms_since(task.created) as f64 / 1000.0,
            machine_id: machine.id,
            num_gpus: contract.gpus,
            rentable: machine.online,
            score: row.score,
            dlperf_per_dphtotal: ratio(row.dlperf, total),
            flops_per_dphtotal: ratio(row.total_flops, total),
            verification: machine.verification(contract.slice),
            ..hardware(row)
        })
    }

    /// The account's user record, with the credit as of now.
    pub fn user(&self, account: u64) -> RawUser {
        let left = self.credit(account);
        let credit = left.as_dollars();
        let held = self.accounts.get(&account);
        let paid = held.map_or(Money::ZERO, |held| held.balance).as_dollars();
        let settings = held
            .map(|held| held.records.settings.clone())
            .unwrap_or_default();
        let balance = match self.options.disputed.balance {
            BalanceMeans::Credit => Some(credit),
            BalanceMeans::Owed => Some((Money::ZERO - left).max(Money::ZERO).as_dollars()),
            BalanceMeans::Absent => None,
        };
        RawUser {
            id: account,
            key_id: account % 100_000,
            username: format!("play-{account}"),
            email: format!("play-{account}@example.com"),
            email_verified: true,
            credit,
            balance,
            balance_threshold: settings.balance_threshold.as_dollars(),
            balance_threshold_enabled: settings.balance_threshold_enabled,
            autobill_threshold: settings.autobill_threshold.map(Money::as_dollars),
            autobill_amount: settings.autobill_amount.map(Money::as_dollars),
            has_billing: settings.has_billing,
            can_pay: true,
            paid_expected: paid,
            paid_verified: paid,
            billed_expected: paid - credit,
            billed_verified: paid - credit,
            got_signup_credit: true,
            ..RawUser::default()
        }
    }

    /// The account's charges of the UTC days that touch `from..to`, one row per instance and day,
    /// rounded as the marketplace rounds them. Rows are whole days up to now, or, where charges
    /// come late, up to so long ago; never clipped to the range, so that the same row comes back
    /// whatever range holds it.
    pub fn charges(&self, account: u64, from: Time, to: Time) -> Vec<RawCharge> {
        let late = i64::from(self.options.disputed.charges_late_hours) * 3_600_000;
        let living = self.contracts.values().map(|contract| (contract, self.now));
        let past = self
            .past
            .values()
            .map(|(contract, ended)| (contract, *ended));
        let mut rows: Vec<RawCharge> = past
            .chain(living)
            .filter_map(|(contract, until)| {
                let task = contract.task().filter(|task| task.account == account)?;
                let days = if late == 0 {
                    task.meter.by_day(until)
                } else {
                    let seen = Time(self.now.0 - late).min(until);
                    task.meter.as_of(seen).by_day(seen)
                };
                Some((contract, task, days))
            })
            .flat_map(|(contract, task, days)| {
                days.into_iter()
                    .filter(move |(start, end, _)| *start < to && *end > from)
                    .map(move |(start, end, used)| self.charge(contract, task, start, end, &used))
            })
            .collect();
        rows.sort_by(|a, b| {
            a.start
                .total_cmp(&b.start)
                .then_with(|| a.source.cmp(&b.source))
        });
        rows
    }

    fn charge(
        &self,
        contract: &Contract,
        task: &Task,
        start: Time,
        end: Time,
        used: &Use,
    ) -> RawCharge {
        let places = self.options.charge_decimals;
        let row = &self.machines[contract.machine].slices[contract.slice].row;
        let items: Vec<RawChargeItem> = COMPONENTS
            .iter()
            .enumerate()
            .filter(|&(component, _)| used.amounts[component] != 0)
            .map(|(component, kind)| {
                let amount = used.money(component);
                let description = match component {
                    0 | 1 => by_the_hour(amount, used.charged_ms[component]),
                    2 => by_the_gigabyte(amount, row.inet_down_cost),
                    _ => by_the_gigabyte(amount, row.inet_up_cost),
                };
                RawChargeItem {
                    kind: (*kind).to_owned(),
                    description,
                    amount: rounded(amount, places),
                }
            })
            .collect();
        let amount = if self.options.disputed.charges_by_component {
            // In units of the rounding, so that the sum has no more decimals than its parts.
            let unit = 10.0_f64.powi(places.min(9) as i32);
            let whole: f64 = items.iter().map(|item| (item.amount * unit).round()).sum();
            whole / unit
        } else {
            rounded(used.bill().total(), places)
        };
        RawCharge {
            start: start.epoch_seconds(),
            end: end.epoch_seconds(),
            kind: "instance".to_owned(),
            source: format!("instance-{}", contract.id),
            description: format!(
                "Instance {}: {}x {}",
                contract.id, contract.gpus, row.gpu_name
            ),
            amount,
            metadata: RawChargeMetadata {
                label: task.label.as_deref().map(str::to_owned),
            },
            items,
        }
    }

    /// The label that an instance was made with, whatever of it is shown. For checkers; no wire
    /// shows it.
    pub fn label_asked(&self, instance: u64) -> Option<&str> {
        let gone = || self.past.get(&instance).map(|(contract, _)| contract);
        let contract = self.contracts.get(&instance).or_else(gone)?;
        contract.task()?.params.label.as_deref()
    }

    /// The exact books of every instance that the account ever had, day by day: what each charge row
    /// is the rounding of, by instance and the row's first moment. For checkers; no wire shows it.
    pub fn exact_days(&self, account: u64) -> BTreeMap<(u64, Time), ExactBill> {
        let living = self.contracts.values().map(|contract| (contract, self.now));
        let past = self
            .past
            .values()
            .map(|(contract, ended)| (contract, *ended));
        past.chain(living)
            .filter_map(|(contract, until)| {
                let task = contract.task().filter(|task| task.account == account)?;
                Some((contract.id, task.meter.by_day(until)))
            })
            .flat_map(|(id, days)| {
                days.into_iter()
                    .map(move |(start, _, used)| ((id, start), used.bill()))
            })
            .collect()
    }

    /// How an instance stands in the auction. For checkers; no wire shows it.
    pub fn standing(&self, account: u64, id: u64) -> Option<Standing> {
        let contract = self
            .contracts
            .get(&id)
            .filter(|contract| contract.account() == Some(account))?;
        let machine = &self.machines[contract.machine];
        let others = machine
            .contracts
            .iter()
            .filter_map(|other| self.contracts.get(other))
            .filter(|other| other.id != id && other.mask & contract.mask != 0);
        Some(Standing {
            machine: machine.id,
            gpus: contract.gpus,
            bid: contract.bid,
            wants: contract.wants,
            agreed: contract.on_demand,
            on_demand: machine.on_demand(contract.slice),
            floor: machine.floor(contract.slice),
            rivals: others
                .filter(|other| other.account() != Some(account))
                .count(),
        })
    }

    /// The on-demand rate of a machine's slices of so many GPUs now, the highest where they differ;
    /// `None` where there are none. For checkers; no wire shows what is not on offer.
    pub fn on_demand_of(&self, machine: u64, gpus: u32) -> Option<Rate> {
        let machine = self.machines.iter().find(|known| known.id == machine)?;
        let slices = machine.slices.iter().enumerate();
        slices
            .filter(|(_, slice)| slice.gpus == gpus)
            .map(|(index, _)| machine.on_demand(index))
            .max()
    }

    /// The most that others have a machine's slices of so many GPUs cost by a bid now: its host's floors,
    /// and the bids that hold GPUs of theirs and are not the account's. For checkers; no wire shows it.
    pub fn floor_of_others(&self, account: u64, machine: u64, gpus: u32) -> Option<Rate> {
        let machine = self.machines.iter().find(|known| known.id == machine)?;
        let slices = machine.slices.iter().enumerate();
        slices
            .filter(|(_, slice)| slice.gpus == gpus)
            .map(|(index, slice)| {
                let bids = machine
                    .holders(&self.contracts, slice.mask)
                    .filter(|holder| holder.account() != Some(account))
                    .filter_map(|holder| {
                        let each = holder.bid?.0 / i64::from(holder.gpus.max(1));
                        Some(Rate(each.saturating_mul(i64::from(gpus))))
                    });
                bids.fold(machine.floor(index), Rate::max)
            })
            .max()
    }

    /// From now on hosts and rivals do nothing new, and nothing fails any more. For checkers.
    pub fn freeze(&mut self) {
        self.options.intensity = 0.0;
        self.options.failures = 0.0;
        self.frozen = true;
    }

    /// The exact books of every instance the account ever had, as of now. For checkers; no wire
    /// shows it.
    pub fn exact_bill(&self, account: u64) -> BTreeMap<u64, ExactBill> {
        self.bills_of(account).collect()
    }
}

/// What an instance shows of its machine.
fn hardware(row: &RawOffer) -> RawInstance {
    RawInstance {
        host_id: row.host_id,
        gpu_frac: row.gpu_frac,
        gpu_ids: row.gpu_ids.clone(),
        gpu_name: row.gpu_name.clone(),
        gpu_arch: row.gpu_arch.clone(),
        gpu_ram: row.gpu_ram,
        gpu_totalram: row.gpu_total_ram,
        gpu_lanes: row.gpu_lanes,
        gpu_mem_bw: row.gpu_mem_bw,
        bw_nvlink: row.bw_nvlink,
        compute_cap: row.compute_cap,
        cuda_max_good: row.cuda_max_good,
        driver_version: row.driver_version.clone(),
        cpu_name: row.cpu_name.clone(),
        cpu_arch: row.cpu_arch.clone(),
        cpu_cores: row.cpu_cores,
        cpu_cores_effective: row.cpu_cores_effective,
        cpu_ram: row.cpu_ram,
        disk_bw: row.disk_bw,
        disk_name: row.disk_name.clone(),
        inet_up: row.inet_up,
        inet_down: row.inet_down,
        inet_up_cost: row.inet_up_cost,
        inet_down_cost: row.inet_down_cost,
        direct_port_count: row.direct_port_count,
        static_ip: row.static_ip,
        pci_gen: row.pci_gen,
        pcie_bw: row.pcie_bw,
        mobo_name: row.mobo_name.clone(),
        os_version: row.os_version.clone(),
        dlperf: row.dlperf,
        total_flops: row.total_flops,
        reliability2: row.reliability,
        verification: row.verification.clone(),
        hosting_type: row.hosting_type,
        external: row.external,
        geolocation: row.geolocation.clone(),
        country_code: row.country_code.clone(),
        resource_type: row.resource_type.clone(),
        hostname: row.hostname.clone(),
        logo: row.logo.clone(),
        webpage: row.webpage.clone(),
        ..RawInstance::default()
    }
}

/// SSH, and what the environment asks for in the form `-p 8000:8000/udp`.
fn ports(task: &Task, id: u64) -> Ports {
    let asked = task.params.env.iter().filter_map(|(key, _)| {
        let mapping = key.strip_prefix("-p ")?.trim();
        let (mapping, protocol) = mapping.split_once('/').unwrap_or((mapping, "tcp"));
        let (_, inside) = mapping.rsplit_once(':')?;
        let inside: u16 = inside.parse().ok()?;
        Some(format!("{inside}/{protocol}"))
    });
    std::iter::once("22/tcp".to_owned())
        .chain(asked)
        .zip(40_000 + id % 20_000..)
        .map(|(port, outside)| {
            let reached = RawPort {
                host_ip: "0.0.0.0".to_owned(),
                host_port: outside.to_string(),
            };
            (port, vec![reached])
        })
        .collect()
}

pub(super) fn ratio(value: f64, by: f64) -> f64 {
    if by > 0.0 { value / by } else { 0.0 }
}

/// Dollars rounded half up to so many decimals.
fn rounded(amount: Money, decimals: u32) -> f64 {
    let decimals = decimals.min(9);
    let unit = 10_i64.pow(9 - decimals);
    let whole = (amount.0 + unit / 2).div_euclid(unit);
    whole as f64 / (NANOS_PER_DOLLAR / unit) as f64
}

fn by_the_hour(amount: Money, ms: i64) -> String {
    let hours = ms as f64 / 3_600_000.0;
    format!(
        "{hours:.3} hours at ${:.3}/hour",
        ratio(amount.as_dollars(), hours)
    )
}

fn by_the_gigabyte(amount: Money, price: f64) -> String {
    let gigabytes = ratio(amount.as_dollars(), price);
    format!("{gigabytes:.3} GB at ${price:.4}/GB")
}
