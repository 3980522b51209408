//! A job: what to run, on what, for how long, for how much. The validated form of a policy file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::deadline::DeadlineKind;
use super::ids::{HostId, JobName, MachineId};
use super::input::Input;
use super::ledger::Payer;
use super::money::{Money, Rate};
use super::offer::Country;
use super::schedule::Window;
use super::start::StartRules;
use super::time::Time;

/// Where a secret is found. Its value is never in a policy, a world, a journal or a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretRef {
    /// An environment variable of the daemon.
    Env(String),
    /// A file that the daemon can read; the trailing line break is not part of the secret.
    File(PathBuf),
}

/// Login to a private image registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryLogin {
    /// The registry's host.
    pub registry: String,
    /// The user.
    pub user: String,
    /// The password.
    pub password: SecretRef,
}

/// How the container is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunType {
    /// The image's entry point with arguments.
    Args,
    /// An SSH server, then the command.
    Ssh,
    /// A notebook server, then the command.
    Jupyter,
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The image; `None` only where a template is given.
    pub image: Option<String>,
    /// Login for the image's registry.
    pub login: Option<RegistryLogin>,
    /// A template of the marketplace, by its hash.
    pub template: Option<String>,
    /// How it is started.
    pub run_type: RunType,
    /// The command that haggle's runner looks after on the machine; `None`: the container runs `onstart`
    /// and `args` as they are.
    #[serde(default)]
    pub runner: Option<Box<Runner>>,
    /// A shell command or script, at most 4096 characters together with `args`.
    pub onstart: Option<String>,
    /// Arguments of the image's entry point.
    pub args: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Environment whose values are secrets.
    pub secrets: BTreeMap<String, SecretRef>,
    /// Ports to open, as `8000/tcp` or `8000/udp` (number, protocol).
    pub ports: Vec<(u16, String)>,
}

impl Run {
    /// Whether its runner keeps checkpoints or outputs in storage.
    pub fn keeps_in_storage(&self) -> bool {
        let runner = self.runner.as_ref();
        runner.is_some_and(|runner| runner.storage.is_some())
    }

    /// Where the secrets are that are sent with a rent for it, by their places in its policy.
    pub fn secret_places(&self) -> Vec<(String, &SecretRef)> {
        let named = self.secrets.iter();
        let mut all: Vec<_> = named
            .map(|(name, place)| (format!("run.secrets.{name}"), place))
            .collect();
        let login = self.login.as_ref();
        all.extend(login.map(|login| ("run.login.password".to_owned(), &login.password)));
        let runner = self.runner.as_ref();
        if let Some(storage) = runner.and_then(|runner| runner.storage.as_ref()) {
            all.push(("data.storage.access_key".to_owned(), &storage.access_key));
            all.push(("data.storage.secret_key".to_owned(), &storage.secret_key));
        }
        all
    }

    /// Whether renting for it sends a secret: of the environment, or the registry's password.
    pub fn has_secrets(&self) -> bool {
        let stores = self.keeps_in_storage();
        !self.secrets.is_empty() || self.login.is_some() || stores
    }
}

/// How often an instance looks at its label where nothing else is said: while it waits, and while it
/// works.
pub const fn looks() -> (Duration, Duration) {
    (Duration::from_secs(10), Duration::from_secs(60))
}

/// A command, and how haggle's runner looks after it. `docs/runner.md` has the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runner {
    /// The command, for `sh -c`.
    pub command: String,
    /// The length of the lease, which is renewed when half of it is over. `None`: the command works
    /// whatever the instance's label says, and goes on when the daemon is gone.
    pub lease: Option<Duration>,
    /// The file in which the command says how far it is: its last line is a number.
    pub progress: Option<String>,
    /// A command that makes no progress for so long hangs.
    pub hung_after: Option<Duration>,
    /// An instance that runs for so long without a line of the runner has failed.
    pub silent_after: Duration,
    /// Whether the machine is tried before the command begins.
    pub preflight: bool,
    /// How long a command that is asked to end may take.
    pub grace: Duration,
    /// How long a result waits to be taken.
    pub linger: Duration,
    /// How often it looks at its label: while it waits, and while it works.
    #[serde(default = "looks")]
    pub looks: (Duration, Duration),
    /// The directory that is kept and restored.
    pub checkpoint: Option<String>,
    /// The directory of results.
    pub outputs: Option<String>,
    /// Where both go; `None`: they stay on the instance's disk.
    pub storage: Option<Storage>,
    /// How often the checkpoint is kept there.
    pub sync_every: Duration,
    /// Whether the last whole checkpoint stays beside its directory, so that the marketplace's copy can
    /// carry it to another disk: there is no storage, the disk may not be lost, and labels are gates.
    #[serde(default)]
    pub carried: bool,
    /// What has to be on the machine before the command begins.
    #[serde(default)]
    pub inputs: Vec<Input>,
    /// Why nothing is rented yet: what its inputs wait for, in words. Only the daemon says that.
    #[serde(default)]
    pub inputs_wait: Option<String>,
}

impl Job {
    /// What a stay downloads, GB: what the policy expects, and the inputs whose length is known.
    pub fn expected_down_gb(&self) -> f64 {
        let runner = self.run.runner.as_deref();
        let inputs = runner.map_or(0, |runner| runner.input_bytes().0);
        self.traffic_down_gb + inputs as f64 / 1e9
    }
}

impl Runner {
    /// The bytes of all inputs whose length is known, and whether it is of all of them.
    pub fn input_bytes(&self) -> (u64, bool) {
        let known = self.inputs.iter().filter_map(Input::bytes);
        let all = self.inputs.iter().all(|input| input.bytes().is_some());
        (known.fold(0, u64::saturating_add), all)
    }

    /// The room that the inputs whose length is known take on the disk at once, in bytes: an archive is there
    /// until it is unpacked.
    pub fn input_room(&self) -> u64 {
        let room = |input: &Input| {
            let times = if input.unpacks().is_some() { 2 } else { 1 };
            input.bytes().unwrap_or_default().saturating_mul(times)
        };
        self.inputs.iter().map(room).fold(0, u64::saturating_add)
    }

    /// The directories beside that of the checkpoint: where its last whole one stays, and where another
    /// run's is copied to. `None`: none is carried.
    pub fn carries(&self) -> Option<(String, String)> {
        let dir = self.checkpoint.as_deref().filter(|_| self.carried)?;
        let dir = dir.trim_end_matches('/');
        Some((format!("{dir}.haggle"), format!("{dir}.haggle-brought")))
    }
}

/// A place in S3-compatible storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// The endpoint, such as `https://s3.eu-central-1.amazonaws.com`.
    pub endpoint: String,
    /// The region, as requests are signed for it.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// What the keys of objects begin with, without a slash at either end; may be empty.
    pub prefix: String,
    /// The id of the access key.
    pub access_key: SecretRef,
    /// The access key's secret.
    pub secret_key: SecretRef,
}

/// What the slot must have. `None` and empty: no requirement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Requirements {
    /// GPU models, any of. Empty: any model.
    pub gpu_models: Vec<String>,
    /// GPUs of the slot, exactly.
    pub gpu_count: u32,
    /// Least memory of one GPU, MB.
    pub gpu_ram_mb_min: Option<u32>,
    /// Least compute capability, times 100.
    pub compute_cap_min: Option<u32>,
    /// Least CUDA version, times 100.
    pub cuda_min: Option<u32>,
    /// Least driver version, three groups as one number.
    pub driver_min: Option<u32>,
    /// Least NVLink bandwidth, GB/s.
    pub nvlink_gb_s_min: Option<f32>,
    /// Least PCIe bandwidth, GB/s.
    pub pcie_gb_s_min: Option<f32>,
    /// Least CPU cores.
    pub cpu_cores_min: Option<f32>,
    /// Least RAM, MB.
    pub cpu_ram_mb_min: Option<u32>,
    /// Disk to rent, GB; at least 8.
    pub disk_gb: u32,
    /// Least disk bandwidth, MB/s.
    pub disk_mb_s_min: Option<f32>,
    /// Least download, Mb/s.
    pub inet_down_mbit_s_min: Option<f32>,
    /// Least upload, Mb/s.
    pub inet_up_mbit_s_min: Option<f32>,
    /// Greatest price of a GB of traffic, either way.
    pub traffic_price_max: Option<Money>,
    /// Greatest price of a GB of disk and month.
    pub storage_price_max: Option<Money>,
    /// Least reliability, 0 to 1.
    pub reliability_min: Option<f32>,
    /// Only verified machines.
    pub verified: bool,
    /// Only machines in datacenters.
    pub datacenter: bool,
    /// Only machines with a static address.
    pub static_ip: bool,
    /// Least number of direct ports.
    pub direct_ports_min: Option<u32>,
    /// Countries allowed. Empty: all.
    pub countries: Vec<Country>,
    /// Countries denied.
    pub countries_denied: Vec<Country>,
    /// Machines denied.
    pub machines_denied: Vec<MachineId>,
    /// Hosts denied.
    pub hosts_denied: Vec<HostId>,
    /// Least time until the rental ends.
    pub remaining_min: Duration,
}

/// Which rentals the job takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RentalChoice {
    /// Bids only.
    Interruptible,
    /// The host's fixed rate only.
    OnDemand,
    /// Bids, or on-demand where it is no dearer.
    Auto,
}

/// Where a job's checkpoints are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointPlace {
    /// On the instance's disk: survives a pause, not a move.
    Disk,
    /// Somewhere else, by the job's own doing: survives both.
    Remote,
}

/// When a job's replica is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    /// When its share of `work` is done.
    Work,
    /// When its container ends, not before `min_run`.
    Exit,
    /// When its instance is gone: it destroyed itself.
    Gone,
    /// When the user says `done`.
    Manual,
    /// Never: a service. A container that ends is a failure.
    Never,
}

/// What may be spent. `None`: no limit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// In total.
    pub total: Option<Money>,
    /// In a calendar day of the configured time zone.
    pub per_day: Option<Money>,
    /// In a calendar month of the configured time zone.
    #[serde(default)]
    pub per_month: Option<Money>,
    /// At any moment, the sum of rates.
    pub per_hour: Option<Rate>,
}

/// How much the bid is put over the floor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BidMargin {
    /// What makes an hour of use cheapest: what it costs to be outbid against what it costs to bid more.
    Auto,
    /// A fraction of the floor in parts per million: 5 % is 50 000.
    PartsPerMillion(u32),
    /// A rate per GPU.
    PerGpu(Rate),
}

/// Retries after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// Failures in a row after which the replica is failed for good.
    pub max: u32,
    /// Wait after the first; doubles with each, to `backoff_max`.
    pub backoff: Duration,
    /// Longest wait.
    pub backoff_max: Duration,
}

/// The parameters of an element of an array: environment variables of its command.
pub type Parameters = BTreeMap<String, String>;

/// An array: the same run for each of many sets of parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Array {
    /// The sets in the order of the policy, no two of them the same.
    pub elements: Vec<Parameters>,
    /// So many elements are at work at once, at most.
    pub max_running: u32,
}

/// A service: what holds of its replicas together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Whether no two of its replicas are on machines of one host.
    pub one_per_host: bool,
    /// So many of its replicas are at the host's fixed rate, at least.
    pub base_on_demand: u32,
}

/// A validated policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    pub name: JobName,
    /// Who pays for it, for reports.
    pub owner: Option<String>,
    /// Tags, for reports.
    pub tags: Vec<String>,
    /// Higher is served first.
    pub priority: i32,
    /// How many copies; of an array, how many elements.
    pub replicas: u32,
    /// The parameters of each replica, where they differ.
    #[serde(default)]
    pub array: Option<Array>,
    /// What holds of its replicas together, where it is a service.
    #[serde(default)]
    pub service: Option<Service>,
    /// What to run.
    pub run: Run,
    /// On what.
    pub requirements: Requirements,
    /// Expected download over a stay, GB.
    pub traffic_down_gb: f64,
    /// Expected upload over a stay, GB.
    pub traffic_up_gb: f64,
    /// Most traffic in all, GB both ways, for the reservation.
    pub traffic_gb_max: Option<f64>,
    /// Which rentals.
    pub rental: RentalChoice,
    /// Ceiling on (compute + disk) per raw GPU-hour.
    pub price_max: Rate,
    /// Margin over the floor.
    pub bid_margin: BidMargin,
    /// How long an outbid instance is waited for.
    pub patience: Duration,
    /// What may be spent.
    pub budget: Budget,
    /// Work per job, all replicas together, in milli-GPU-hours of the reference GPU.
    pub work_mgpu_h: Option<i64>,
    /// The GPU by which work is counted; the first model, or raw hours, without it.
    pub reference_gpu: Option<String>,
    /// Useful hours that an hour of another model counts, in parts per million.
    pub factors_ppm: BTreeMap<String, u32>,
    /// How often it checkpoints; `None`: it does not.
    pub checkpoint_every: Option<Duration>,
    /// Where the checkpoints are; `None`: there are none.
    pub checkpoint_place: Option<CheckpointPlace>,
    /// Whether its disk may be lost.
    pub disposable: bool,
    /// Whether it may begin again from nothing.
    #[serde(default)]
    pub restartable: bool,
    /// Time from running to useful work, each start.
    pub boot_overhead: Duration,
    /// When it may run. Empty: always.
    pub windows: Vec<Window>,
    /// When it is finished.
    pub finish: Finish,
    /// A container that ends sooner than this has failed.
    pub min_run: Duration,
    /// Retries after failures.
    pub retries: Retries,
    /// Longest life of one instance.
    pub lifetime_max: Option<Duration>,
    /// How long an instance may take to run.
    pub provision_timeout: Duration,
    /// How long each step of that may take.
    #[serde(default)]
    pub start: StartRules,
    /// An instance whose GPUs are hardly used for so long has failed; `None`: that is told, and no more.
    #[serde(default)]
    pub idle_after: Option<Duration>,
    /// When its work has to be done; `None`: there is time.
    #[serde(default)]
    pub deadline: Option<Time>,
    /// By which rule it is kept in time.
    #[serde(default)]
    pub deadline_policy: DeadlineKind,
}

impl Job {
    /// Useful time per time on a GPU model, in parts per million. The reference counts 1; a model
    /// without a factor counts 1 as well, for without a measurement an hour is an hour.
    pub fn factor_ppm(&self, gpu_name: &str) -> u32 {
        self.factors_ppm.get(gpu_name).copied().unwrap_or(1_000_000)
    }

    /// Whether a disk of its may be lost with the work on it: its policy says so, or the work is
    /// elsewhere.
    pub fn may_lose_disks(&self) -> bool {
        self.disposable || self.checkpoint_place == Some(CheckpointPlace::Remote)
    }

    /// On whose behalf it spends.
    pub fn payer(&self) -> Payer {
        Payer {
            owner: self.owner.clone().filter(|name| !name.is_empty()),
            tags: self.tags.iter().cloned().collect(),
        }
    }

    /// One replica's share of the work, in useful GPU-milliseconds, rounded up.
    pub fn work_share_gpu_ms(&self) -> Option<i64> {
        // A milli-GPU-hour is 3.6 GPU-seconds.
        let replicas = i64::from(self.replicas.max(1));
        self.work_mgpu_h
            .map(|work| work.saturating_mul(3600).saturating_add(replicas - 1) / replicas)
    }
}
