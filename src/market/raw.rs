//! Rows in the marketplace's native JSON shapes.
//!
//! A row's fields can also be read by name without making JSON of it ([`RawOffer::field`]): a
//! search filters a thousand rows, and most of them are dropped.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A scalar field of a row, as a filter compares it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Field<'a> {
    /// JSON null, or a field that is not a scalar.
    Null,
    /// Any number.
    Number(f64),
    /// A text.
    Text(&'a str),
    /// A boolean.
    Flag(bool),
}

/// What can be compared by a filter.
trait AsField {
    fn as_field(&self) -> Field<'_>;
}

macro_rules! number_field {
    ($($type:ty)*) => {$(
        impl AsField for $type {
            #[allow(clippy::cast_lossless)]
            fn as_field(&self) -> Field<'_> {
                Field::Number(*self as f64)
            }
        }
    )*};
}
number_field!(u32 u64 i64 f64);

impl AsField for bool {
    fn as_field(&self) -> Field<'_> {
        Field::Flag(*self)
    }
}

impl AsField for Arc<str> {
    fn as_field(&self) -> Field<'_> {
        Field::Text(self)
    }
}

impl<T: AsField> AsField for Option<T> {
    fn as_field(&self) -> Field<'_> {
        self.as_ref().map_or(Field::Null, AsField::as_field)
    }
}

impl AsField for Vec<u32> {
    fn as_field(&self) -> Field<'_> {
        Field::Null
    }
}

impl AsField for RawRates {
    fn as_field(&self) -> Field<'_> {
        Field::Null
    }
}

macro_rules! row {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            /// The field of that name; `None` where the row has no such field.
            pub fn field(&self, name: &str) -> Option<Field<'_>> {
                Self::reader(name).map(|read| read(self))
            }

            /// What reads the field of that name, for who reads it of many rows.
            pub(crate) fn reader(name: &str) -> Option<fn(&Self) -> Field<'_>> {
                match name {
                    $(stringify!($field) => Some(|row| row.$field.as_field()),)*
                    _ => None,
                }
            }

            /// The names of all fields, in the order in which they are written.
            pub const FIELDS: &'static [&'static str] = &[$(stringify!($field),)*];
        }
    };
}

/// The rates of an offer or an instance, in dollars per hour: `search` when it runs, `instance`
/// in its present state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RawRates {
    /// GPUs.
    pub gpu_cost_per_hour: f64,
    /// Disk.
    pub disk_hour: f64,
    /// Both.
    pub total_hour: f64,
    /// Discount of a prepaid rental.
    pub discount_total_hour: f64,
    /// Both, less the discount.
    pub discounted_total_per_hour: f64,
}

impl RawRates {
    /// Rates without a discount.
    pub fn new(gpu: f64, disk: f64) -> Self {
        Self {
            gpu_cost_per_hour: gpu,
            disk_hour: disk,
            total_hour: gpu + disk,
            discount_total_hour: 0.0,
            discounted_total_per_hour: gpu + disk,
        }
    }
}

row! {
/// One row of a search. Prices are for the whole offer, all its GPUs. Field names, units and
/// nullability are the marketplace's documented ones.
pub struct RawOffer {
    /// Offer ("ask") id.
    id: u64,
    /// The same.
    ask_contract_id: u64,
    /// Equal for equal offers of a machine.
    bundle_id: u64,
    /// How many rows were collapsed into this one.
    bundled_results: Option<u32>,
    /// Physical machine.
    machine_id: u64,
    /// Its owner.
    host_id: u64,
    /// GPUs in this slice.
    num_gpus: u32,
    /// Its share of the machine's GPUs.
    gpu_frac: f64,
    /// Which GPUs.
    gpu_ids: Vec<u32>,
    /// Model, with spaces.
    gpu_name: Arc<str>,
    /// `nvidia` or `amd`.
    gpu_arch: Arc<str>,
    /// MB per GPU.
    gpu_ram: u32,
    /// MB of all GPUs.
    gpu_total_ram: u32,
    /// PCIe lanes.
    gpu_lanes: u32,
    /// GB/s.
    gpu_mem_bw: f64,
    /// W.
    gpu_max_power: f64,
    /// °C.
    gpu_max_temp: f64,
    /// Whether a display hangs on it.
    gpu_display_active: bool,
    /// NVLink, GB/s.
    bw_nvlink: f64,
    /// Compute capability × 100.
    compute_cap: u32,
    /// Highest CUDA of the driver.
    cuda_max_good: f64,
    /// Text form.
    driver_version: Arc<str>,
    /// Three zero-padded groups as one number.
    driver_vers: u64,
    /// CPU model.
    cpu_name: Arc<str>,
    /// CPU architecture.
    cpu_arch: Arc<str>,
    /// GHz.
    cpu_ghz: f64,
    /// 0 or 1.
    has_avx: u32,
    /// Cores of the machine.
    cpu_cores: Option<u32>,
    /// Cores of this slice.
    cpu_cores_effective: f64,
    /// MB of this slice.
    cpu_ram: u32,
    /// GB that can be rented.
    disk_space: f64,
    /// MB/s.
    disk_bw: f64,
    /// Disk model.
    disk_name: Arc<str>,
    /// Mb/s.
    inet_up: f64,
    /// Mb/s.
    inet_down: f64,
    /// $/GB.
    inet_up_cost: f64,
    /// $/GB.
    inet_down_cost: f64,
    /// $/TB.
    internet_up_cost_per_tb: f64,
    /// $/TB.
    internet_down_cost_per_tb: f64,
    /// Ports that can be opened.
    direct_port_count: u32,
    /// Whether the address stays.
    static_ip: bool,
    /// Address.
    public_ipaddr: Arc<str>,
    /// PCIe generation.
    pci_gen: f64,
    /// GB/s.
    pcie_bw: f64,
    /// Mainboard.
    mobo_name: Arc<str>,
    /// Ubuntu version.
    os_version: Arc<str>,
    /// $/GB/month of 720 hours.
    storage_cost: f64,
    /// $/h for the allocated storage of the search.
    storage_total_cost: f64,
    /// $/h of the GPUs: on-demand rate, or the floor in a bid search.
    dph_base: f64,
    /// `dph_base + storage_total_cost`.
    dph_total: f64,
    /// Least bid that runs it now, $/h.
    min_bid: f64,
    /// Whether the row is of a bid search.
    is_bid: bool,
    /// Largest prepay discount.
    credit_discount_max: f64,
    /// Discount applied.
    discount_rate: Option<f64>,
    /// $ saved per hour.
    discounted_hourly: f64,
    /// `dph_total - discounted_hourly`.
    discounted_dph_total: f64,
    /// Rates when running.
    search: RawRates,
    /// Rates in the present state.
    instance: RawRates,
    /// $/h per MB of GPU memory.
    vram_costperhour: f64,
    /// Deep-learning score of the offer.
    dlperf: f64,
    /// Score per dollar.
    dlperf_per_dphtotal: f64,
    /// TFLOPs of the offer.
    total_flops: f64,
    /// TFLOPs per dollar.
    flops_per_dphtotal: f64,
    /// The marketplace's ranking value.
    score: f64,
    /// 0 to 1.
    reliability: f64,
    /// The same.
    reliability2: f64,
    /// `verified`, `unverified` or `deverified`.
    verification: Arc<str>,
    /// 1 for verified.
    vericode: u32,
    /// 0 community, 1 datacenter.
    hosting_type: u32,
    /// Offers of other platforms.
    external: Option<bool>,
    /// Whether it can be rented now.
    rentable: bool,
    /// Whether the caller holds it.
    rented: bool,
    /// `City or state, CC`.
    geolocation: Option<Arc<str>>,
    /// A number for the place.
    geolocode: u64,
    /// Two letters.
    country_code: Option<Arc<str>>,
    /// Listing began, epoch seconds.
    start_date: f64,
    /// Listing ends, epoch seconds: the end of a rental begun now.
    end_date: f64,
    /// Seconds left.
    duration: f64,
    /// Human text.
    time_remaining: Arc<str>,
    /// Human text.
    time_remaining_isbid: Arc<str>,
    /// Whether virtual machines are offered.
    vms_enabled: bool,
    /// Whether it lost verification for them.
    is_vm_deverified: bool,
    /// `gpu`.
    resource_type: Arc<str>,
    /// Cluster.
    cluster_id: Option<u64>,
    /// Host's name.
    hostname: Option<Arc<str>>,
    /// Logo.
    logo: Arc<str>,
    /// Web page.
    webpage: Option<Arc<str>>,
    /// Creates under way.
    pending_count: u32,
    /// Result number of its bundle.
    rn: u32,
    /// `dph_total` with a ranking adjustment.
    dph_total_adj: f64,
}
}

row! {
/// An instance, as the marketplace's instance list shows it.
pub struct RawInstance {
    /// Contract id.
    id: u64,
    /// Container state; null while provisioning.
    actual_status: Option<Arc<str>>,
    /// What should be.
    intended_status: Arc<str>,
    /// Contract state now.
    cur_state: Arc<str>,
    /// Contract state scheduled.
    next_state: Arc<str>,
    /// The marketplace's words.
    status_msg: Option<Arc<str>>,
    /// Interruptible.
    is_bid: bool,
    /// On-demand rate, or the standing bid.
    dph_base: f64,
    /// `dph_base` and this disk.
    dph_total: f64,
    /// Floor when it was made; stale.
    min_bid: f64,
    /// Rates when running.
    search: RawRates,
    /// Rates in the present state.
    instance: RawRates,
    /// $/GB/month.
    storage_cost: f64,
    /// $/h.
    storage_total_cost: f64,
    /// GB allocated.
    disk_space: f64,
    /// GB used; -1 unknown.
    disk_usage: f64,
    /// The same.
    disk_util: f64,
    /// Created, epoch seconds.
    start_date: f64,
    /// Rental ends, epoch seconds.
    end_date: f64,
    /// Seconds left.
    duration: f64,
    /// Minutes since the container started.
    uptime_mins: Option<f64>,
    /// Label.
    label: Option<Arc<str>>,
    /// Image.
    image_uuid: Arc<str>,
    /// How it runs.
    image_runtype: Arc<str>,
    /// Arguments.
    image_args: Texts,
    /// Start script.
    onstart: Option<Arc<str>>,
    /// Environment: a list of pairs, never null.
    extra_env: Pairs,
    /// SSH proxy host.
    ssh_host: Arc<str>,
    /// SSH proxy port.
    ssh_port: u32,
    /// SSH proxy number.
    ssh_idx: Arc<str>,
    /// Address of the machine.
    public_ipaddr: Arc<str>,
    /// Local addresses.
    local_ipaddrs: Arc<str>,
    /// Mapped ports, only while running.
    ports: Option<Ports>,
    /// First direct port.
    direct_port_start: i64,
    /// Last direct port.
    direct_port_end: i64,
    /// Machine's own SSH port.
    machine_dir_ssh_port: u32,
    /// Token of the notebook server.
    jupyter_token: Arc<str>,
    /// %
    gpu_util: Option<f64>,
    /// °C.
    gpu_temp: Option<f64>,
    /// %
    cpu_util: Option<f64>,
    /// GB.
    mem_usage: Option<f64>,
    /// GB.
    mem_limit: Option<f64>,
    /// Share of GPU memory.
    vmem_usage: Option<f64>,
    /// Template.
    template_id: Option<u64>,
    /// Template's hash.
    template_hash_id: Option<Arc<str>>,
    /// Template's name.
    template_name: Option<Arc<str>>,
    /// Volumes.
    volume_info: Texts,
    /// Prepaid.
    credit_balance: Option<f64>,
    /// Prepay discount.
    credit_discount: Option<f64>,
    /// Seconds it ran for the client.
    client_run_time: f64,
    /// Seconds the host promises.
    host_run_time: f64,
    /// Physical machine.
    machine_id: u64,
    /// Its owner.
    host_id: u64,
    /// GPUs.
    num_gpus: u32,
    /// Share of the machine.
    gpu_frac: f64,
    /// Which GPUs.
    gpu_ids: Vec<u32>,
    /// Model.
    gpu_name: Arc<str>,
    /// `nvidia` or `amd`.
    gpu_arch: Arc<str>,
    /// MB per GPU.
    gpu_ram: u32,
    /// MB of all.
    gpu_totalram: u32,
    /// PCIe lanes.
    gpu_lanes: u32,
    /// GB/s.
    gpu_mem_bw: f64,
    /// NVLink, GB/s.
    bw_nvlink: f64,
    /// Compute capability × 100.
    compute_cap: u32,
    /// Highest CUDA.
    cuda_max_good: f64,
    /// Driver.
    driver_version: Arc<str>,
    /// CPU model.
    cpu_name: Arc<str>,
    /// CPU architecture.
    cpu_arch: Arc<str>,
    /// Cores of the machine.
    cpu_cores: Option<u32>,
    /// Cores of this instance.
    cpu_cores_effective: f64,
    /// MB of this instance.
    cpu_ram: u32,
    /// MB/s.
    disk_bw: f64,
    /// Disk model.
    disk_name: Arc<str>,
    /// Mb/s.
    inet_up: f64,
    /// Mb/s.
    inet_down: f64,
    /// $/GB.
    inet_up_cost: f64,
    /// $/GB.
    inet_down_cost: f64,
    /// Ports that can be opened.
    direct_port_count: u32,
    /// Whether the address stays.
    static_ip: bool,
    /// PCIe generation.
    pci_gen: f64,
    /// GB/s.
    pcie_bw: f64,
    /// Mainboard.
    mobo_name: Arc<str>,
    /// Ubuntu version.
    os_version: Arc<str>,
    /// Deep-learning score.
    dlperf: f64,
    /// Score per dollar.
    dlperf_per_dphtotal: f64,
    /// TFLOPs.
    total_flops: f64,
    /// TFLOPs per dollar.
    flops_per_dphtotal: f64,
    /// Ranking value.
    score: f64,
    /// 0 to 1.
    reliability2: f64,
    /// `verified` and so on.
    verification: Arc<str>,
    /// 0 community, 1 datacenter.
    hosting_type: u32,
    /// Offers of other platforms.
    external: Option<bool>,
    /// `City or state, CC`.
    geolocation: Option<Arc<str>>,
    /// Two letters.
    country_code: Option<Arc<str>>,
    /// Human text.
    time_remaining: Arc<str>,
    /// Human text.
    time_remaining_isbid: Arc<str>,
    /// Whether the machine takes rentals.
    rentable: bool,
    /// `gpu`.
    resource_type: Arc<str>,
    /// Host's name.
    hostname: Option<Arc<str>>,
    /// Logo.
    logo: Arc<str>,
    /// Web page.
    webpage: Option<Arc<str>>,
}
}

/// A list of texts.
pub type Texts = Vec<String>;
/// Environment entries, in the order they were given.
pub type Pairs = Vec<(String, String)>;
/// Container ports by `22/tcp`, each with where it is reached.
pub type Ports = std::collections::BTreeMap<String, Vec<RawPort>>;

macro_rules! no_field {
    ($($type:ty)*) => {$(
        impl AsField for $type {
            fn as_field(&self) -> Field<'_> {
                Field::Null
            }
        }
    )*};
}
no_field!(Texts Pairs Ports);

/// Where a container's port is reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RawPort {
    /// Address on the host.
    pub host_ip: String,
    /// Port, as text.
    pub host_port: String,
}

/// The user record. Only what a renter reads of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RawUser {
    /// Account id.
    pub id: u64,
    /// Number of the key.
    pub key_id: u64,
    /// Name.
    pub username: String,
    /// Address.
    pub email: String,
    /// Whether it was confirmed.
    pub email_verified: bool,
    /// Name.
    pub fullname: String,
    /// Prepaid dollars left; may be negative.
    pub credit: f64,
    /// Disputed: the same, or what is owed, or left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<f64>,
    /// Credit at which a saved card is charged.
    pub balance_threshold: f64,
    /// Whether it is.
    pub balance_threshold_enabled: bool,
    /// The older name of the threshold.
    pub autobill_threshold: Option<f64>,
    /// Top-up.
    pub autobill_amount: Option<f64>,
    /// Whether a card is saved.
    pub has_billing: bool,
    /// Whether it can pay.
    pub can_pay: bool,
    /// Whether it is paid out.
    pub has_payout: bool,
    /// Last four digits of the card.
    pub last4: Option<String>,
    /// Paid in so far, dollars.
    pub paid_expected: f64,
    /// Paid in and checked.
    pub paid_verified: f64,
    /// Billed so far, dollars.
    pub billed_expected: f64,
    /// Billed and checked.
    pub billed_verified: f64,
    /// Whether the sign-up credit was given.
    pub got_signup_credit: bool,
    /// Public key.
    pub ssh_key: String,
    /// Session.
    pub sid: String,
    /// Whether it is a host.
    pub host_agreement_accepted: bool,
}

/// One row of the usage charges: an instance's use within one UTC day.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RawCharge {
    /// Epoch seconds.
    pub start: f64,
    /// Epoch seconds.
    pub end: f64,
    /// `instance`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `instance-N`.
    pub source: String,
    /// Human text.
    pub description: String,
    /// Dollars, rounded.
    pub amount: f64,
    /// More.
    pub metadata: RawChargeMetadata,
    /// By component.
    pub items: Vec<RawChargeItem>,
}

/// What else a charge says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RawChargeMetadata {
    /// The instance's label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// A component of a charge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RawChargeItem {
    /// `gpu`, `disk`, `bwd` (down) or `bwu` (up).
    #[serde(rename = "type")]
    pub kind: String,
    /// Human text.
    pub description: String,
    /// Dollars, rounded.
    pub amount: f64,
}
