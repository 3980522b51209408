//! Whether an offer may be taken for a job at all, whatever it costs.
//!
//! The reasons are checked in a fixed order, the order of [`Refusal`], and the first one against
//! an offer is the one that is told. A requirement that meets an unknown field is not met.

use std::collections::{BTreeMap, BTreeSet};

use std::time::Duration;

use crate::types::ids::{HostId, InstanceId, MachineId, ReplicaId};
use crate::types::instance::{Held, Rental};
use crate::types::intent::Effect;
use crate::types::job::{CheckpointPlace, Job};
use crate::types::machine::MachineRecord;
use crate::types::money::Rate;
pub use crate::types::offer::same_model;
use crate::types::offer::{Extent, Offer};
use crate::types::plan::Refusal;
use crate::types::state::{ReplicaRecord, State};
use crate::types::time::{Time, millis};
use crate::types::world::World;

use super::act::elsewhere;
use super::array::members;
use super::bring::{GB, leads_by, told_bytes};
use super::price::{STAY_DEFAULT_HOURS, STAY_MAX_HOURS, Terms};
use super::replica::ending_lead;
use super::view::restore_patience;

/// Whether a job may take an offer, its price aside.
///
/// # Errors
/// The first reason against it.
pub fn eligible(world: &World, job: &Job, offer: &Offer) -> Result<(), Refusal> {
    let scope = Scope::new(world, job);
    scope
        .eligible(offer, scope.fit(&offer.gpu_name))
        .map(|_| ())
}

/// What one useful hour of a model counts for a job, in parts per million, however the policy
/// spells the model.
pub(crate) fn factor_ppm(job: &Job, gpu_name: &str) -> u32 {
    if job.factors_ppm.is_empty() || job.factors_ppm.contains_key(gpu_name) {
        return job.factor_ppm(gpu_name);
    }
    job.factors_ppm
        .iter()
        .find(|(name, _)| same_model(name, gpu_name))
        .map_or_else(|| job.factor_ppm(gpu_name), |(_, &factor)| factor)
}

/// The most useful GPU-milliseconds that a replica of the job still has to do; `None` where the
/// policy states no work. What a loss could take back is not counted as done: a new instance may
/// have to do it again.
fn work_left_gpu_ms(state: &State, job: &Job) -> Option<i64> {
    let share = job.work_share_gpu_ms()?;
    members(state, job)
        .into_iter()
        .map(|member| {
            let id = ReplicaId {
                job: job.name.clone(),
                index: member.index,
            };
            state
                .replicas
                .get(&id)
                .map_or(share, |record| match record.ending {
                    Some(_) => 0,
                    None => share.saturating_sub(record.durable_gpu_ms).max(0),
                })
        })
        .max()
}

/// What a job makes of a GPU model.
#[derive(Clone, Copy)]
pub(crate) struct Fit {
    /// Whether it takes the model.
    pub(crate) taken: bool,
    /// What one useful hour of it counts, in parts per million.
    pub(crate) factor_ppm: u32,
}

/// What is ours on a machine.
#[derive(Default)]
pub(crate) struct Ours<'a> {
    /// Whether an instance of ours is there, parked or not.
    pub(crate) holds: bool,
    /// Our highest bid there that stands or is under way.
    pub(crate) bid: Option<Rate>,
    /// Instances that have a GPU or could take one by themselves.
    live: Vec<&'a Held>,
    /// Whether a rental there is not settled.
    renting: bool,
}

/// A job in its world, with what every offer is held against worked out once.
pub(crate) struct Scope<'a> {
    /// The world.
    pub(crate) world: &'a World,
    /// The job.
    pub(crate) job: &'a Job,
    /// What its prices are made of.
    pub(crate) terms: Terms,
    /// What is ours, by machine.
    pub(crate) ours: BTreeMap<MachineId, Ours<'a>>,
    /// Hosts that machine after machine fails of.
    failing: BTreeSet<HostId>,
    /// The most that a replica still has to do, in useful GPU-milliseconds, where the rental must
    /// last until it is done.
    work_gpu_ms: Option<i64>,
    /// Least time from now to the rental's end, milliseconds.
    stay_least_ms: i64,
    /// Least time before any work, milliseconds.
    lead_ms: i64,
    /// Whether the whole snapshot is too old.
    market_is_old: bool,
    /// Whether a query failed, so that single rows may be too old.
    queries_failed: bool,
}

/// How long the copies of a stay take at most, beside coming up: to it, where a disk was left with something
/// to begin with, and from it, in time before its rental ends. What is not known yet fills the disk.
fn copies_take(world: &World, job: &Job) -> Duration {
    let of_job = world.state.held.values();
    let of_job = of_job.filter(|held| held.replica.job == job.name);
    let known = of_job.filter_map(told_bytes).max();
    let disk = u64::from(job.requirements.disk_gb).saturating_mul(GB);
    let comes = known.map(restore_patience).unwrap_or_default();
    let goes = ending_lead(job).saturating_add(leads_by(job, known.unwrap_or(disk)));
    goes.saturating_add(comes)
}

impl<'a> Scope<'a> {
    pub(crate) fn new(world: &'a World, job: &'a Job) -> Self {
        let lead_ms = millis(job.provision_timeout).saturating_add(millis(job.boot_overhead));
        let work_left = work_left_gpu_ms(&world.state, job);
        let carried = job.run.runner.as_ref().is_some_and(|runner| runner.carried);
        let remote = job.checkpoint_place == Some(CheckpointPlace::Remote);
        // A checkpoint that is copied from disk to disk moves as long as both are there: the rental has to
        // last for the work, and for the copy away from it in any case.
        let movable = remote || job.disposable;
        let copies_ms = if carried && !job.disposable {
            millis(copies_take(world, job))
        } else {
            0
        };
        Self {
            world,
            job,
            terms: Terms::new(job, work_left),
            ours: ours(&world.state),
            failing: failing(world),
            work_gpu_ms: work_left.filter(|_| !movable),
            stay_least_ms: millis(job.requirements.remaining_min)
                .max(lead_ms.saturating_add(copies_ms)),
            lead_ms,
            market_is_old: too_old(world, world.market.at),
            queries_failed: world
                .market
                .coverage
                .iter()
                .any(|coverage| matches!(coverage.extent, Extent::Stale { .. })),
        }
    }

    /// As if one of our instances were parked.
    pub(crate) fn without(&mut self, parked: InstanceId) {
        for ours in self.ours.values_mut() {
            ours.live.retain(|held| held.id != parked);
        }
    }

    /// Whether the job may take the offer, its price aside; what is known of its machine, or the
    /// first reason against it.
    pub(crate) fn eligible(
        &self,
        offer: &Offer,
        fit: Fit,
    ) -> Result<Option<&'a MachineRecord>, Refusal> {
        self.gpu(offer, fit)?;
        self.machine(offer)?;
        self.network(offer)?;
        self.place(offer)?;
        self.available(offer, fit)
    }

    /// Useful GPU-hours that a replica still has to do, as far as a stay is counted on; `None`: its share is
    /// done.
    pub(crate) fn hours_left(&self, held: &Held, record: &ReplicaRecord) -> Option<f64> {
        let most = STAY_MAX_HOURS * f64::from(held.slot.gpus);
        let Some(share) = self.job.work_share_gpu_ms() else {
            return Some(STAY_DEFAULT_HOURS * f64::from(held.slot.gpus));
        };
        let left = share.saturating_sub(record.done_gpu_ms());
        (left > 0).then(|| (left as f64 / 3_600_000.0).min(most))
    }

    /// What the job makes of a model.
    pub(crate) fn fit(&self, gpu_name: &str) -> Fit {
        let taken = self.takes_model(gpu_name);
        Fit {
            taken,
            // Of no use for a model that is not taken.
            factor_ppm: if taken {
                factor_ppm(self.job, gpu_name)
            } else {
                0
            },
        }
    }

    fn takes_model(&self, gpu_name: &str) -> bool {
        let models = &self.job.requirements.gpu_models;
        models.is_empty() || models.iter().any(|model| same_model(model, gpu_name))
    }

    fn gpu(&self, offer: &Offer, fit: Fit) -> Result<(), Refusal> {
        let need = &self.job.requirements;
        require(fit.taken, Refusal::GpuModel)?;
        require(offer.gpus == need.gpu_count, Refusal::GpuCount)?;
        at_least(offer.gpu_ram_mb, need.gpu_ram_mb_min, Refusal::GpuRam)?;
        at_least(offer.compute_cap, need.compute_cap_min, Refusal::ComputeCap)?;
        at_least(offer.cuda_max, need.cuda_min, Refusal::Cuda)?;
        at_least(offer.driver_version, need.driver_min, Refusal::Driver)?;
        at_least(offer.nvlink_gb_s, need.nvlink_gb_s_min, Refusal::Nvlink)?;
        at_least(offer.pcie_gb_s, need.pcie_gb_s_min, Refusal::Pcie)
    }

    fn machine(&self, offer: &Offer) -> Result<(), Refusal> {
        let need = &self.job.requirements;
        at_least(offer.cpu_cores, need.cpu_cores_min, Refusal::CpuCores)?;
        at_least(offer.cpu_ram_mb, need.cpu_ram_mb_min, Refusal::CpuRam)?;
        at_least(offer.disk_gb, Some(need.disk_gb as f32), Refusal::DiskSize)?;
        at_least(offer.disk_mb_s, need.disk_mb_s_min, Refusal::DiskBandwidth)
    }

    fn network(&self, offer: &Offer) -> Result<(), Refusal> {
        let need = &self.job.requirements;
        at_least(
            offer.inet_down_mbit_s,
            need.inet_down_mbit_s_min,
            Refusal::Download,
        )?;
        at_least(
            offer.inet_up_mbit_s,
            need.inet_up_mbit_s_min,
            Refusal::Upload,
        )?;
        at_most(
            offer.inet_down_price,
            need.traffic_price_max,
            Refusal::TrafficPrice,
        )?;
        at_most(
            offer.inet_up_price,
            need.traffic_price_max,
            Refusal::TrafficPrice,
        )?;
        at_most(
            offer.storage_price,
            need.storage_price_max,
            Refusal::StoragePrice,
        )
    }

    fn place(&self, offer: &Offer) -> Result<(), Refusal> {
        let need = &self.job.requirements;
        let has = |wanted: bool, field: Option<bool>| !wanted || field == Some(true);
        at_least(
            offer.reliability,
            need.reliability_min,
            Refusal::Reliability,
        )?;
        require(has(need.verified, offer.verified), Refusal::Unverified)?;
        require(
            has(need.datacenter, offer.datacenter),
            Refusal::NotDatacenter,
        )?;
        require(has(need.static_ip, offer.static_ip), Refusal::NoStaticIp)?;
        at_least(
            offer.direct_ports,
            need.direct_ports_min,
            Refusal::DirectPorts,
        )?;
        let allowed =
            need.countries.is_empty() || offer.country.is_some_and(|c| need.countries.contains(&c));
        let denied = !need.countries_denied.is_empty()
            && offer
                .country
                .is_none_or(|c| need.countries_denied.contains(&c));
        require(allowed && !denied, Refusal::Country)?;
        require(
            !need.machines_denied.contains(&offer.machine),
            Refusal::MachineDenied,
        )?;
        let host_denied = !need.hosts_denied.is_empty()
            && offer
                .host
                .is_none_or(|host| need.hosts_denied.contains(&host));
        require(!host_denied, Refusal::HostDenied)
    }

    fn available(&self, offer: &Offer, fit: Fit) -> Result<Option<&'a MachineRecord>, Refusal> {
        let left_ms = offer.ends_at.map(|ends| ends.ms_since(self.world.now));
        let lasts = left_ms.is_some_and(|left| left >= self.stay_least_ms(offer, fit));
        require(lasts, Refusal::EndsTooSoon)?;
        // Searches show only rentable rows unless told otherwise, and need not repeat it in the row.
        let rentable = offer.rentable != Some(false) && offer.rented != Some(true);
        require(rentable, Refusal::NotRentable)?;
        require(!self.holds(offer), Refusal::Held)?;
        require(!self.is_stale(offer), Refusal::StaleOffer)?;
        let record = self.world.state.machines.get(&offer.machine);
        let cooling = record
            .and_then(|record| record.cool_until)
            .is_some_and(|until| until > self.world.now);
        require(!cooling, Refusal::CoolingDown)?;
        let host_fails = offer.host.is_some_and(|host| self.failing.contains(&host));
        require(!host_fails, Refusal::HostCoolingDown)?;
        Ok(record)
    }

    /// How long the rental must last: what the policy asks, at least until work can begin, and
    /// until the work is done where a move would lose it.
    fn stay_least_ms(&self, offer: &Offer, fit: Fit) -> i64 {
        let Some(work) = self.work_gpu_ms else {
            return self.stay_least_ms;
        };
        let speed_ppm = i128::from(offer.gpus) * i128::from(fit.factor_ppm);
        let work_ms = i128::from(work) * 1_000_000 / speed_ppm.max(1);
        let work_ms = i64::try_from(work_ms).unwrap_or(i64::MAX);
        self.stay_least_ms.max(self.lead_ms.saturating_add(work_ms))
    }

    /// Whether its GPUs are ours, might be, or would be more than the machine has together with
    /// ours. Where either side does not say which GPUs it means, they might be the same: a bid on
    /// them could be a bid against ourselves.
    fn holds(&self, offer: &Offer) -> bool {
        let Some(ours) = self.ours.get(&offer.machine) else {
            return false;
        };
        if ours.renting || ours.live.is_empty() {
            return ours.renting;
        }
        let together = ours
            .live
            .iter()
            .map(|held| held.slot.gpus)
            .fold(offer.gpus, u32::saturating_add);
        offer.machine_gpus.is_none_or(|all| together > all)
            || !ours.live.iter().all(|held| elsewhere(held, offer))
    }

    /// Whether the row was last seen too long ago: the snapshot is old, or every query that could
    /// have shown the row has failed for too long.
    pub(crate) fn is_stale(&self, offer: &Offer) -> bool {
        if self.market_is_old {
            return true;
        }
        if !self.queries_failed {
            return false;
        }
        let mut matching = self
            .world
            .market
            .coverage
            .iter()
            .filter(|coverage| coverage.query.matches(offer))
            .peekable();
        matching.peek().is_some()
            && matching.all(|coverage| match coverage.extent {
                Extent::Complete | Extent::Partial => false,
                Extent::Stale { since } => since.is_none_or(|since| too_old(self.world, since)),
            })
    }
}

/// What is ours, by machine. A parked instance keeps its disk and cannot take a GPU by itself; the
/// bid that it had may still show in the floors.
fn ours(state: &State) -> BTreeMap<MachineId, Ours<'_>> {
    let mut all: BTreeMap<MachineId, Ours<'_>> = BTreeMap::new();
    for held in state.held.values() {
        let ours = all.entry(held.slot.machine).or_default();
        ours.holds = true;
        if held.rental == Rental::Bid {
            ours.bid = ours.bid.max(Some(held.price)).max(held.bid_before_park);
        }
        if !held.parked {
            ours.live.push(held);
        }
    }
    for intent in state.intents.values().filter(|i| i.state.is_open()) {
        match intent.effect {
            Effect::Rent {
                slot,
                rental,
                price,
                ..
            } => {
                let ours = all.entry(slot.machine).or_default();
                ours.renting = true;
                if rental == Rental::Bid {
                    ours.bid = ours.bid.max(Some(price));
                }
            }
            Effect::SetBid { instance, bid } => {
                if let Some(held) = state.held.get(&instance) {
                    let ours = all.entry(held.slot.machine).or_default();
                    ours.bid = ours.bid.max(Some(bid));
                }
            }
            Effect::Stop { .. }
            | Effect::Start { .. }
            | Effect::Relabel { .. }
            | Effect::Copy { .. }
            | Effect::Destroy { .. } => {}
        }
    }
    all
}

/// Whether what was seen then is too old to go by.
pub(super) fn too_old(world: &World, seen: Time) -> bool {
    world.now.ms_since(seen) > millis(world.config.offers_max_age)
}

/// So many machines of a host that fail at once are the host's failure, where they are such a share of
/// those that it lists.
const FAILING_MACHINES: usize = 2;
const FAILING_SHARE: usize = 4;

/// Hosts whose machines fail one after another: what ails several at once is likely in the others, too.
fn failing(world: &World) -> BTreeSet<HostId> {
    let mut machines: BTreeMap<HostId, usize> = BTreeMap::new();
    for record in world.state.machines.values() {
        let fails = record.failing_until.is_some_and(|at| at > world.now);
        if let Some(host) = record.host.filter(|_| fails) {
            *machines.entry(host).or_default() += 1;
        }
    }
    machines.retain(|_, failing| *failing >= FAILING_MACHINES);
    machines.retain(|host, failing| {
        let of_host = world
            .market
            .offers
            .iter()
            .filter(|row| row.host == Some(*host));
        let listed: BTreeSet<MachineId> = of_host.map(|row| row.machine).collect();
        *failing * FAILING_SHARE >= listed.len()
    });
    machines.into_keys().collect()
}

fn require(met: bool, otherwise: Refusal) -> Result<(), Refusal> {
    if met { Ok(()) } else { Err(otherwise) }
}

fn at_least<T: PartialOrd>(
    have: Option<T>,
    least: Option<T>,
    otherwise: Refusal,
) -> Result<(), Refusal> {
    let met = least.is_none_or(|least| have.is_some_and(|have| have >= least));
    require(met, otherwise)
}

fn at_most<T: PartialOrd>(
    have: Option<T>,
    most: Option<T>,
    otherwise: Refusal,
) -> Result<(), Refusal> {
    let met = most.is_none_or(|most| have.is_some_and(|have| have <= most));
    require(met, otherwise)
}

/// A job, an offer that it takes, and a world in which it may: what the engine's tests vary.
#[cfg(test)]
pub(crate) mod samples {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::types::ids::{HostId, Installation, InstanceId, IntentId, OfferId, Slot};
    use crate::types::input::{Found, Input, Source};
    use crate::types::instance::{Account, Phase};
    use crate::types::job::{
        BidMargin, Budget, Finish, RentalChoice, Requirements, Retries, Run, RunType, Runner,
    };
    use crate::types::money::{Money, Rate};
    use crate::types::offer::{Country, Snapshot};
    use crate::types::start::StartRules;
    use crate::types::world::EngineConfig;
    use crate::types::{ids::AccountId, state::State};

    pub(crate) const NOW: Time = Time(1_800_000_000_000);
    const HOUR: Duration = Duration::from_hours(1);

    pub(crate) fn usd(dollars: f64) -> Rate {
        Rate::from_dollars(dollars).unwrap()
    }

    pub(crate) fn offer(machine: u64) -> Offer {
        Offer {
            id: OfferId(machine * 10),
            machine: MachineId(machine),
            host: Some(HostId(7)),
            gpus: 1,
            machine_gpus: Some(4),
            gpu_ids: vec![0],
            gpu_name: Arc::from("RTX 4090"),
            gpu_ram_mb: Some(24_564),
            compute_cap: Some(890),
            cuda_max: Some(1280),
            driver_version: Some(570_086_010),
            nvlink_gb_s: Some(0.0),
            pcie_gb_s: Some(24.0),
            cpu_cores: Some(16.0),
            cpu_ram_mb: Some(64_000),
            disk_gb: Some(500.0),
            disk_mb_s: Some(2000.0),
            inet_down_mbit_s: Some(800.0),
            inet_up_mbit_s: Some(400.0),
            inet_down_price: Some(Money(3_000_000)),
            inet_up_price: Some(Money(3_000_000)),
            storage_price: Some(Money(150_000_000)),
            reliability: Some(0.99),
            verified: Some(true),
            datacenter: Some(true),
            static_ip: Some(true),
            direct_ports: Some(100),
            country: Some(Country(*b"NO")),
            rentable: Some(true),
            rented: Some(false),
            ends_at: Some(NOW + HOUR * 24 * 30),
            on_demand: Some(usd(0.40)),
            floor: Some(usd(0.20)),
            dlperf: Some(87.0),
        }
    }

    /// An object of the bucket that is brought to `/a`, of so many bytes; `None`: nobody knows how many.
    pub(crate) fn input(bytes: Option<u64>) -> Input {
        Input {
            from: Source::Object("a".to_owned()),
            to: "/a".to_owned(),
            into: false,
            sha256: None,
            packing: None,
            found: bytes.map(|bytes| Found {
                mark: String::new(),
                bytes,
                is_directory: false,
            }),
        }
    }

    /// A command that is looked after, with a lease of two hours.
    pub(crate) fn runner(command: &str) -> Runner {
        Runner {
            command: command.to_owned(),
            lease: Some(Duration::from_hours(2)),
            progress: None,
            hung_after: None,
            silent_after: Duration::from_mins(3),
            preflight: true,
            grace: Duration::from_secs(30),
            linger: Duration::from_hours(24),
            looks: crate::types::job::looks(),
            checkpoint: None,
            outputs: None,
            storage: None,
            sync_every: Duration::from_mins(10),
            carried: false,
            inputs: Vec::new(),
            inputs_wait: None,
        }
    }

    pub(crate) fn job(name: &str) -> Job {
        Job {
            name: name.parse().unwrap(),
            owner: None,
            tags: Vec::new(),
            priority: 0,
            replicas: 1,
            array: None,
            service: None,
            run: Run {
                image: Some("image".to_owned()),
                login: None,
                template: None,
                run_type: RunType::Args,
                runner: None,
                onstart: None,
                args: Vec::new(),
                env: BTreeMap::new(),
                secrets: BTreeMap::new(),
                ports: Vec::new(),
            },
            requirements: Requirements {
                gpu_models: vec!["rtx_4090".to_owned()],
                gpu_count: 1,
                disk_gb: 48,
                ..Requirements::default()
            },
            traffic_down_gb: 0.0,
            traffic_up_gb: 0.0,
            traffic_gb_max: None,
            rental: RentalChoice::Interruptible,
            price_max: usd(1.0),
            bid_margin: BidMargin::PartsPerMillion(50_000),
            patience: HOUR,
            budget: Budget::default(),
            work_mgpu_h: None,
            reference_gpu: None,
            factors_ppm: BTreeMap::new(),
            checkpoint_every: Some(Duration::from_mins(30)),
            checkpoint_place: Some(CheckpointPlace::Remote),
            disposable: false,
            restartable: false,
            boot_overhead: Duration::from_mins(5),
            windows: Vec::new(),
            finish: Finish::Manual,
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
            deadline_policy: crate::types::deadline::DeadlineKind::default(),
        }
    }

    pub(crate) fn world(offers: Vec<Offer>) -> World {
        World {
            now: NOW,
            seed: 1,
            config: EngineConfig::default(),
            jobs: Vec::new(),
            unreadable_jobs: Vec::new(),
            last_policies: Vec::new(),
            unreadable_secrets: BTreeMap::new(),
            state: State::new(Installation::from_seed(1)),
            market: Arc::new(Snapshot {
                at: NOW,
                offers,
                coverage: Vec::new(),
            }),
            listing: None,
            account: Some(Account {
                id: AccountId(1),
                credit: Some(Money::dollars(100)),
            }),
            credit_read: None,
            credit_slope: None,
            can_bid: true,
            wind_down: false,
        }
    }

    pub(crate) fn held(id: u64, job: &Job, offer: &Offer, price: Rate) -> Held {
        let replica = ReplicaId {
            job: job.name.clone(),
            index: 0,
        };
        Held {
            generation: 1,
            slot: Slot {
                machine: offer.machine,
                gpus: offer.gpus,
            },
            host: offer.host,
            gpu_ids: offer.gpu_ids.clone(),
            gpu_name: offer.gpu_name.to_string(),
            price,
            last_bid: Some(price),
            storage: usd(0.01),
            disk_gb: job.requirements.disk_gb,
            traffic_prices: offer.inet_down_price.zip(offer.inet_up_price),
            ends_at: offer.ends_at,
            phase: Phase::Running,
            first_ran_at: Some(NOW),
            ..Held::new(InstanceId(id), IntentId(id), replica, NOW)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::samples::{NOW, held, job, offer, usd, world};
    use super::*;
    use crate::types::ids::{HostId, IntentId, OfferId, Slot};
    use crate::types::instance::Rental;
    use crate::types::intent::{Intent, IntentState};
    use crate::types::money::Money;
    use crate::types::offer::{Country, Coverage, Market, OfferQuery};

    /// A job that asks for everything, which the sample offer just meets.
    fn demanding() -> Job {
        let sample = offer(1);
        let mut job = job("demanding");
        let need = &mut job.requirements;
        need.gpu_ram_mb_min = sample.gpu_ram_mb;
        need.compute_cap_min = sample.compute_cap;
        need.cuda_min = sample.cuda_max;
        need.driver_min = sample.driver_version;
        need.nvlink_gb_s_min = sample.nvlink_gb_s;
        need.pcie_gb_s_min = sample.pcie_gb_s;
        need.cpu_cores_min = sample.cpu_cores;
        need.cpu_ram_mb_min = sample.cpu_ram_mb;
        need.disk_gb = 500;
        need.disk_mb_s_min = sample.disk_mb_s;
        need.inet_down_mbit_s_min = sample.inet_down_mbit_s;
        need.inet_up_mbit_s_min = sample.inet_up_mbit_s;
        need.traffic_price_max = sample.inet_down_price;
        need.storage_price_max = sample.storage_price;
        need.reliability_min = sample.reliability;
        need.verified = true;
        need.datacenter = true;
        need.static_ip = true;
        need.direct_ports_min = sample.direct_ports;
        need.countries = sample.country.into_iter().collect();
        need.machines_denied = vec![MachineId(99)];
        need.hosts_denied = vec![HostId(99)];
        need.remaining_min = Duration::from_hours(720);
        job
    }

    type Break = fn(&mut Offer);

    #[test]
    fn each_requirement_refuses_what_falls_short_and_what_is_unknown() {
        let cases: Vec<(Refusal, Break, Break)> = vec![
            (
                Refusal::GpuRam,
                |o| o.gpu_ram_mb = Some(24_563),
                |o| o.gpu_ram_mb = None,
            ),
            (
                Refusal::ComputeCap,
                |o| o.compute_cap = Some(860),
                |o| o.compute_cap = None,
            ),
            (
                Refusal::Cuda,
                |o| o.cuda_max = Some(1240),
                |o| o.cuda_max = None,
            ),
            (
                Refusal::Driver,
                |o| o.driver_version = Some(1),
                |o| o.driver_version = None,
            ),
            (
                Refusal::Nvlink,
                |o| o.nvlink_gb_s = Some(f32::NAN),
                |o| o.nvlink_gb_s = None,
            ),
            (
                Refusal::Pcie,
                |o| o.pcie_gb_s = Some(23.9),
                |o| o.pcie_gb_s = None,
            ),
            (
                Refusal::CpuCores,
                |o| o.cpu_cores = Some(15.9),
                |o| o.cpu_cores = None,
            ),
            (
                Refusal::CpuRam,
                |o| o.cpu_ram_mb = Some(63_999),
                |o| o.cpu_ram_mb = None,
            ),
            (
                Refusal::DiskSize,
                |o| o.disk_gb = Some(499.9),
                |o| o.disk_gb = None,
            ),
            (
                Refusal::DiskBandwidth,
                |o| o.disk_mb_s = Some(1.0),
                |o| o.disk_mb_s = None,
            ),
            (
                Refusal::Download,
                |o| o.inet_down_mbit_s = Some(1.0),
                |o| o.inet_down_mbit_s = None,
            ),
            (
                Refusal::Upload,
                |o| o.inet_up_mbit_s = Some(1.0),
                |o| o.inet_up_mbit_s = None,
            ),
            (
                Refusal::TrafficPrice,
                |o| o.inet_up_price = Some(Money(3_000_001)),
                |o| o.inet_down_price = None,
            ),
            (
                Refusal::StoragePrice,
                |o| o.storage_price = Some(Money(150_000_001)),
                |o| o.storage_price = None,
            ),
            (
                Refusal::Reliability,
                |o| o.reliability = Some(0.98),
                |o| o.reliability = None,
            ),
            (
                Refusal::Unverified,
                |o| o.verified = Some(false),
                |o| o.verified = None,
            ),
            (
                Refusal::NotDatacenter,
                |o| o.datacenter = Some(false),
                |o| o.datacenter = None,
            ),
            (
                Refusal::NoStaticIp,
                |o| o.static_ip = Some(false),
                |o| o.static_ip = None,
            ),
            (
                Refusal::DirectPorts,
                |o| o.direct_ports = Some(99),
                |o| o.direct_ports = None,
            ),
            (
                Refusal::Country,
                |o| o.country = Some(Country(*b"SE")),
                |o| o.country = None,
            ),
            (
                Refusal::MachineDenied,
                |o| o.machine = MachineId(99),
                |o| o.machine = MachineId(99),
            ),
            (
                Refusal::HostDenied,
                |o| o.host = Some(HostId(99)),
                |o| o.host = None,
            ),
            (
                Refusal::EndsTooSoon,
                |o| o.ends_at = o.ends_at.map(|at| Time(at.0 - 1)),
                |o| o.ends_at = None,
            ),
            (
                Refusal::NotRentable,
                |o| o.rentable = Some(false),
                |o| o.rented = Some(true),
            ),
            (Refusal::GpuCount, |o| o.gpus = 2, |o| o.gpus = 2),
            (
                Refusal::GpuModel,
                |o| o.gpu_name = "RTX 4090 D".into(),
                |o| o.gpu_name = "RTX 409".into(),
            ),
        ];
        let (world, job) = (world(Vec::new()), demanding());
        assert_eq!(eligible(&world, &job, &offer(1)), Ok(()));
        for (refusal, short, unknown) in cases {
            for spoil in [short, unknown] {
                let mut spoilt = offer(1);
                spoil(&mut spoilt);
                assert_eq!(eligible(&world, &job, &spoilt), Err(refusal));
            }
        }
    }

    #[test]
    fn without_requirements_unknown_fields_do_not_matter() {
        let bare = Offer {
            host: None,
            gpu_ids: Vec::new(),
            machine_gpus: None,
            gpu_ram_mb: None,
            compute_cap: None,
            inet_down_mbit_s: None,
            reliability: None,
            verified: None,
            country: None,
            rentable: None,
            rented: None,
            ..offer(1)
        };
        assert_eq!(eligible(&world(Vec::new()), &job("a"), &bare), Ok(()));
    }

    #[test]
    fn the_rental_lasts_until_work_that_cannot_move_is_done() {
        let world = world(Vec::new());
        let mut job = job("a");
        let mut offer = offer(1);
        job.work_mgpu_h = Some(10_000);
        // Ten hours of work, 15 minutes to come up, 5 to begin.
        offer.ends_at = Some(NOW + Duration::from_secs(36_000 + 1200 - 1));
        assert_eq!(
            eligible(&world, &job, &offer),
            Ok(()),
            "remote checkpoints move"
        );
        job.checkpoint_place = Some(CheckpointPlace::Disk);
        assert_eq!(eligible(&world, &job, &offer), Err(Refusal::EndsTooSoon));
        job.factors_ppm.insert("rtx_4090".to_owned(), 1_100_000);
        assert_eq!(
            eligible(&world, &job, &offer),
            Ok(()),
            "a faster GPU is done in time"
        );
        job.factors_ppm.clear();
        job.disposable = true;
        assert_eq!(eligible(&world, &job, &offer), Ok(()), "it may be lost");
    }

    #[test]
    fn gpus_that_are_ours_or_might_be_are_not_rented_again() {
        let (job, ours) = (job("a"), offer(1));
        let other = |ids: &[u32], all: Option<u32>| Offer {
            id: OfferId(11),
            gpu_ids: ids.to_vec(),
            machine_gpus: all,
            ..offer(1)
        };
        let holding = |spoil: fn(&mut Held)| {
            let mut world = world(Vec::new());
            let mut held = held(5, &job, &ours, usd(0.3));
            spoil(&mut held);
            world.state.held.insert(held.id, held);
            world
        };
        let refused = Err(Refusal::Held);
        let world = holding(|_| {});
        assert_eq!(eligible(&world, &job, &other(&[1], Some(4))), Ok(()));
        assert_eq!(eligible(&world, &job, &offer(2)), Ok(()));
        assert_eq!(
            eligible(&world, &job, &other(&[0], Some(4))),
            refused,
            "the same GPU"
        );
        assert_eq!(
            eligible(&world, &job, &other(&[], Some(4))),
            refused,
            "unknown GPUs"
        );
        assert_eq!(
            eligible(&world, &job, &other(&[1], Some(1))),
            refused,
            "too many"
        );
        assert_eq!(
            eligible(&world, &job, &other(&[1], None)),
            refused,
            "unknown machine"
        );
        let world = holding(|held| held.gpu_ids.clear());
        assert_eq!(
            eligible(&world, &job, &other(&[1], Some(4))),
            refused,
            "ours unknown"
        );
        let world = holding(|held| held.parked = true);
        assert_eq!(
            eligible(&world, &job, &other(&[0], Some(1))),
            Ok(()),
            "parked"
        );
    }

    #[test]
    fn an_unsettled_rental_keeps_its_machine() {
        let (mut world, job) = (world(Vec::new()), job("a"));
        let intent = |state| Intent {
            id: IntentId(3),
            at: NOW,
            effect: Effect::Rent {
                replica: ReplicaId {
                    job: job.name.clone(),
                    index: 0,
                },
                generation: 1,
                slot: Slot {
                    machine: MachineId(1),
                    gpus: 4,
                },
                offer: OfferId(12),
                rental: Rental::Bid,
                price: usd(0.1),
                disk_gb: 48,
                storage: usd(0.01),
                from: None,
                traffic: None,
            },
            reserved: Money::ZERO,
            state,
        };
        let unknown = IntentState::Unknown { since: NOW };
        world.state.intents.insert(IntentId(3), intent(unknown));
        assert_eq!(eligible(&world, &job, &offer(1)), Err(Refusal::Held));
        assert_eq!(eligible(&world, &job, &offer(2)), Ok(()));
    }

    #[test]
    fn old_offers_and_cooling_machines_are_refused() {
        let job = job("a");
        let mut world = world(Vec::new());
        let stale = Err(Refusal::StaleOffer);
        world.now = NOW + world.config.offers_max_age;
        assert_eq!(eligible(&world, &job, &offer(1)), Ok(()));
        world.now = world.now + Duration::from_millis(1);
        assert_eq!(eligible(&world, &job, &offer(1)), stale);
        world.now = NOW;

        let coverage = |gpu_name: &str, extent| Coverage {
            query: OfferQuery {
                market: Market::OnDemand,
                gpu_name: Some(gpu_name.to_owned()),
                machine: None,
                disk_gb: 48,
                open: false,
                bounds: crate::types::offer::Bounds::default(),
            },
            extent,
            malformed: 0,
        };
        let failed = coverage("RTX 4090", Extent::Stale { since: None });
        let fresh = coverage("RTX 4090", Extent::Partial);
        let set = |world: &mut World, coverage: Vec<Coverage>| {
            let mut market = (*world.market).clone();
            market.coverage = coverage;
            world.market = market.into();
        };
        set(&mut world, vec![failed.clone()]);
        assert_eq!(eligible(&world, &job, &offer(1)), stale);
        set(&mut world, vec![failed, fresh]);
        assert_eq!(eligible(&world, &job, &offer(1)), Ok(()));
        set(
            &mut world,
            vec![coverage("H100", Extent::Stale { since: None })],
        );
        assert_eq!(
            eligible(&world, &job, &offer(1)),
            Ok(()),
            "another model's query"
        );

        world.state.machines.insert(
            MachineId(1),
            MachineRecord {
                id: MachineId(1),
                failures: 1,
                cool_until: Some(Time(NOW.0 + 1)),
                ..MachineRecord::new(MachineId(1))
            },
        );
        assert_eq!(eligible(&world, &job, &offer(1)), Err(Refusal::CoolingDown));
        world.now = Time(NOW.0 + 1);
        assert_eq!(eligible(&world, &job, &offer(1)), Ok(()));
    }

    #[test]
    fn a_host_is_passed_over_while_two_of_its_machines_cool_down() {
        let (mut world, job) = (world(vec![offer(1), offer(2), offer(3)]), job("a"));
        let host = offer(1).host;
        assert!(host.is_some(), "the sample says whose it is");
        let mut fails = |id: u64, failing: bool, host: Option<HostId>| {
            let until = Some(Time(NOW.0 + id as i64));
            let record = MachineRecord {
                failures: 1,
                cool_until: until,
                failing_until: until.filter(|_| failing),
                host,
                ..world.state.machine(MachineId(id))
            };
            world.state.machines.insert(MachineId(id), record);
            eligible(&world, &job, &offer(1))
        };
        assert_eq!(fails(11, true, host), Ok(()), "one machine may fail");
        assert_eq!(fails(12, false, host), Ok(()), "we were outbid there");
        assert_eq!(fails(13, true, Some(HostId(99))), Ok(()), "another host's");
        assert_eq!(fails(14, true, host), Err(Refusal::HostCoolingDown));
        world.now = Time(NOW.0 + 11);
        assert_eq!(eligible(&world, &job, &offer(1)), Ok(()), "one is over it");
    }
}
