//! What can be rented, as the marketplace shows it.
//!
//! A field that the marketplace left out is `None`: unknown, never zero. A requirement that meets
//! an unknown is not met.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ids::{HostId, MachineId, OfferId, Slot};
use super::money::{Money, Rate, storage_rate};
use super::time::Time;

/// A two-letter country code in capitals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Country(pub [u8; 2]);

impl TryFrom<String> for Country {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        match *text.as_bytes() {
            [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Ok(Self([a.to_ascii_uppercase(), b.to_ascii_uppercase()]))
            }
            _ => Err("a country is two letters, such as \"NO\""),
        }
    }
}

impl From<Country> for String {
    fn from(country: Country) -> Self {
        country.0.iter().map(|&b| char::from(b)).collect()
    }
}

impl Country {
    /// The country of a location text such as `Oslo, NO`: its last two letters after a comma, or
    /// the whole text where it is two letters.
    pub fn from_location(location: &str) -> Option<Self> {
        let tail = location.rsplit(',').next()?.trim();
        Self::try_from(tail.to_owned()).ok()
    }
}

/// One row of a marketplace search. All prices are for the whole offer, all its GPUs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// The row's id. Not stable.
    pub id: OfferId,
    /// The machine.
    pub machine: MachineId,
    /// Its owner.
    pub host: Option<HostId>,
    /// GPUs in this offer; at least one.
    pub gpus: u32,
    /// GPUs of the whole machine.
    pub machine_gpus: Option<u32>,
    /// Which of the machine's GPUs. Empty: unknown.
    pub gpu_ids: Vec<u32>,
    /// The model, such as `RTX 4090`.
    pub gpu_name: Arc<str>,
    /// Memory of one GPU in MB.
    pub gpu_ram_mb: Option<u32>,
    /// Compute capability times 100: 8.9 is 890.
    pub compute_cap: Option<u32>,
    /// Highest CUDA version of the driver, times 100: 12.8 is 1280.
    pub cuda_max: Option<u32>,
    /// Driver version in three groups: 535.86.05 is 535086005.
    pub driver_version: Option<u32>,
    /// NVLink bandwidth in GB/s.
    pub nvlink_gb_s: Option<f32>,
    /// PCIe bandwidth in GB/s.
    pub pcie_gb_s: Option<f32>,
    /// CPU cores that come with this offer.
    pub cpu_cores: Option<f32>,
    /// RAM that comes with this offer, in MB.
    pub cpu_ram_mb: Option<u32>,
    /// Disk that can be rented, in GB.
    pub disk_gb: Option<f32>,
    /// Disk bandwidth in MB/s.
    pub disk_mb_s: Option<f32>,
    /// Download in Mb/s.
    pub inet_down_mbit_s: Option<f32>,
    /// Upload in Mb/s.
    pub inet_up_mbit_s: Option<f32>,
    /// Price of a GB downloaded.
    pub inet_down_price: Option<Money>,
    /// Price of a GB uploaded.
    pub inet_up_price: Option<Money>,
    /// Price of a GB of disk for a month of 720 hours.
    pub storage_price: Option<Money>,
    /// 0 to 1.
    pub reliability: Option<f32>,
    /// Whether the marketplace has verified the machine.
    pub verified: Option<bool>,
    /// Whether it stands in a datacenter.
    pub datacenter: Option<bool>,
    /// Whether its address is static.
    pub static_ip: Option<bool>,
    /// Ports that can be opened directly.
    pub direct_ports: Option<u32>,
    /// Where it stands.
    pub country: Option<Country>,
    /// Whether it can be rented now.
    pub rentable: Option<bool>,
    /// Whether this account holds it already.
    pub rented: Option<bool>,
    /// When the listing, and so a rental begun now, ends.
    pub ends_at: Option<Time>,
    /// The on-demand rate of the GPUs. Unknown where only the bid search returned the row.
    pub on_demand: Option<Rate>,
    /// The least bid that runs it now.
    pub floor: Option<Rate>,
    /// The marketplace's deep-learning score for the whole offer.
    pub dlperf: Option<f32>,
}

impl Offer {
    /// The stable identity.
    pub fn slot(&self) -> Slot {
        Slot {
            machine: self.machine,
            gpus: self.gpus,
        }
    }

    /// The rate of a disk of so many GB; `None` where the price is unknown.
    pub fn disk_rate(&self, gigabytes: u32) -> Option<Rate> {
        self.storage_price
            .map(|price| storage_rate(price, gigabytes))
    }
}

/// Which searches a poll makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Market {
    /// Rows with the on-demand rate; they carry the floor too.
    OnDemand,
    /// Rows as a bidder sees them; a floor, no on-demand rate.
    Bid,
}

/// One search of the marketplace: what matches is a row whose every stated field fits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OfferQuery {
    /// Which prices.
    pub market: Market,
    /// The model; `None` for all.
    pub gpu_name: Option<String>,
    /// Exactly this machine; used for the machines that we hold.
    pub machine: Option<MachineId>,
    /// Disk size by which the marketplace computes totals, in GB.
    pub disk_gb: u32,
    /// Whether to open every default filter (verified, rentable, rented): for our own machines.
    pub open: bool,
    /// What else a row must meet. Queries that were stored without it had none.
    #[serde(default, skip_serializing_if = "Bounds::are_none")]
    pub bounds: Bounds,
}

/// What a row must meet beside its model: each bound that is set is one that everybody who looks
/// at the answer has, so that nothing that somebody could take is left out.
///
/// Whole numbers in units small enough that rounding down loses nothing, so that a query can be a
/// key. A row that does not say what a bound is about does not meet it, at the marketplace as here.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Bounds {
    /// The model is one of these. Empty: `gpu_name` decides alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpu_names: Vec<String>,
    /// The machine is one of these. Empty: `machine` decides alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<MachineId>,
    /// The number of GPUs is one of these. Empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<u32>,
    /// Least memory of one GPU, MB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_ram_mb_min: Option<u32>,
    /// Least compute capability, times 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_cap_min: Option<u32>,
    /// Least CUDA version of the driver, times 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cuda_min: Option<u32>,
    /// Least disk that can be rented, GB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_gb_min: Option<u32>,
    /// Least download, Mb/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inet_down_mbit_s_min: Option<u32>,
    /// Least upload, Mb/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inet_up_mbit_s_min: Option<u32>,
    /// Least reliability, in parts per million.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reliability_ppm_min: Option<u32>,
    /// Least number of direct ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_ports_min: Option<u32>,
    /// Only machines in datacenters.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub datacenter: bool,
    /// Only machines with a static address.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub static_ip: bool,
    /// Machines that are not verified too, which are left out otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unverified: bool,
    /// Countries allowed. Empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub countries: Vec<Country>,
    /// Countries denied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub countries_denied: Vec<Country>,
    /// Greatest total of the row in this query's prices: the on-demand rate or the floor, and the
    /// query's disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_max: Option<Rate>,
}

impl Bounds {
    /// Whether nothing is bounded.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a row meets all that does not depend on prices.
    fn meet_apart_from_price(&self, offer: &Offer) -> bool {
        let least = |have: Option<u32>, least: Option<u32>| {
            least.is_none_or(|least| have.is_some_and(|have| have >= least))
        };
        let least_f = |have: Option<f32>, scale: f64, least: Option<u32>| {
            least.is_none_or(|least| {
                have.is_some_and(|have| f64::from(have) * scale >= f64::from(least))
            })
        };
        // What is cheap to tell goes first: this is asked of every row by every search of a poll.
        let gpus = self.gpus.is_empty() || self.gpus.contains(&offer.gpus);
        let model = || {
            self.gpu_names.is_empty()
                || self
                    .gpu_names
                    .iter()
                    .any(|name| same_model(name, &offer.gpu_name))
        };
        if !gpus || !model() {
            return false;
        }
        let machine = self.machines.is_empty() || self.machines.contains(&offer.machine);
        let allowed =
            self.countries.is_empty() || offer.country.is_some_and(|c| self.countries.contains(&c));
        let denied = !self.countries_denied.is_empty()
            && offer
                .country
                .is_none_or(|c| self.countries_denied.contains(&c));
        machine
            && least(offer.gpu_ram_mb, self.gpu_ram_mb_min)
            && least(offer.compute_cap, self.compute_cap_min)
            && least(offer.cuda_max, self.cuda_min)
            && least_f(offer.disk_gb, 1.0, self.disk_gb_min)
            && least_f(offer.inet_down_mbit_s, 1.0, self.inet_down_mbit_s_min)
            && least_f(offer.inet_up_mbit_s, 1.0, self.inet_up_mbit_s_min)
            && least_f(offer.reliability, 1e6, self.reliability_ppm_min)
            && least(offer.direct_ports, self.direct_ports_min)
            && (!self.datacenter || offer.datacenter == Some(true))
            && (!self.static_ip || offer.static_ip == Some(true))
            && allowed
            && !denied
    }
}

/// Whether two names are of the same GPU model: case does not matter, and an underscore is a
/// space, for the marketplace's command line writes `RTX_4090` where its rows say `RTX 4090`.
pub fn same_model(a: &str, b: &str) -> bool {
    let plain = |byte: u8| match byte {
        b'_' => b' ',
        other => other.to_ascii_lowercase(),
    };
    a.len() == b.len() && a.bytes().map(plain).eq(b.bytes().map(plain))
}

impl OfferQuery {
    /// A search of a market for all that is listed, by the least disk that can be rented.
    pub fn all(market: Market) -> Self {
        Self {
            market,
            gpu_name: None,
            machine: None,
            disk_gb: 8,
            open: false,
            bounds: Bounds::default(),
        }
    }

    /// Whether an offer would be in this query's answer, were the answer complete. A row that does
    /// not say whether it is listed counts as listed, for answers need not repeat it; one that does
    /// not say what a bound is about does not meet it.
    pub fn matches(&self, offer: &Offer) -> bool {
        let model = self
            .gpu_name
            .as_deref()
            .is_none_or(|name| name == &*offer.gpu_name);
        let machine = self.machine.is_none_or(|machine| machine == offer.machine);
        let listed = self.open
            || ((self.bounds.unverified || offer.verified != Some(false))
                && offer.rentable != Some(false)
                && offer.rented != Some(true));
        model
            && machine
            && listed
            && self.bounds.meet_apart_from_price(offer)
            && self.within_price(offer)
    }

    fn within_price(&self, offer: &Offer) -> bool {
        let Some(most) = self.bounds.total_max else {
            return true;
        };
        let compute = match self.market {
            Market::OnDemand => offer.on_demand,
            Market::Bid => offer.floor,
        };
        compute
            .zip(offer.disk_rate(self.disk_gb))
            .is_some_and(|(compute, disk)| {
                i128::from(compute.0) + i128::from(disk.0) <= i128::from(most.0)
            })
    }
}

/// How far a query's answer can be trusted to hold all that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Extent {
    /// Every matching row was seen.
    Complete,
    /// Some were: pages failed, the row cap cut it, or it was empty without corroboration.
    Partial,
    /// The query failed; what is known is as old as this.
    Stale {
        /// When it last answered; `None` for never.
        since: Option<Time>,
    },
}

/// A query with what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// What was asked.
    pub query: OfferQuery,
    /// How complete the answer was.
    pub extent: Extent,
    /// Rows that could not be read and were set aside.
    pub malformed: u32,
}

/// What one poll saw of the market.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was taken.
    pub at: Time,
    /// The rows, ordered by (slot, id), each id once.
    pub offers: Vec<Offer>,
    /// What was asked, and how completely it was answered.
    pub coverage: Vec<Coverage>,
}
