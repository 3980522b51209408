//! Which searches of the marketplace see every slot that the jobs could take.
//!
//! A search returns one page of rows, and few searches are allowed, so what no job could take is
//! left out on the wire, and jobs share searches. A bound is only set where every job that shares
//! the search has it, and never tighter than the tightest of them allows the loosest of them: what
//! eligibility would accept is never hidden by the question. The reverse does not hold; a row in an
//! answer may still be refused.
//!
//! - On-demand rows carry the floor too, so every model is searched on-demand.
//! - Rows as a bidder sees them are searched for the models of jobs that bid: a row that only
//!   bidders see is in no other answer.
//! - The ceiling bounds what is asked in the prices that the job would pay. On-demand rows are not
//!   bounded for a job that bids: their floor may be within its reach, and their rate is what a bid
//!   must stay under and what savings are measured against.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::types::ids::MachineId;
use crate::types::job::{Job, RentalChoice};
use crate::types::money::Rate;
use crate::types::offer::{Bounds, Market, OfferQuery, Snapshot, same_model};

/// Rows that a shared search may be expected to return. The marketplace's observed cap is 64 a
/// page; a few rows more than expected should not cost a second one.
pub const SHARED_ROWS_MAX: usize = 58;

/// Machines of ours in one search: a machine lists a handful of slices, so that these fit a page.
pub const MACHINES_PER_SEARCH: usize = 16;

/// The disk by which the totals of our own machines' rows are computed; only their floors and
/// on-demand rates are looked at.
const OWN_DISK_GB: u32 = 8;

/// The fewest searches that see every slot a job could take, on-demand rows first. `rows` says how
/// many rows a search is expected to return; models share a search while that fits a page.
pub fn market_searches(
    jobs: &[Arc<Job>],
    market: &Snapshot,
    rows: &dyn Fn(&OfferQuery) -> usize,
) -> Vec<OfferQuery> {
    let mut all = of_type(Market::OnDemand, jobs, market, rows);
    let bidding: Vec<Arc<Job>> = jobs
        .iter()
        .filter(|job| job.rental != RentalChoice::OnDemand)
        .cloned()
        .collect();
    all.extend(of_type(Market::Bid, &bidding, market, rows));
    all
}

/// Searches of the machines that we hold something on, every filter opened: rows that are rented,
/// held by us or no longer verified are in no other answer.
pub fn own_searches(machines: &BTreeSet<MachineId>) -> Vec<OfferQuery> {
    let machines: Vec<MachineId> = machines.iter().copied().collect();
    let search = |chunk: &[MachineId]| {
        let mut query = OfferQuery {
            open: true,
            disk_gb: OWN_DISK_GB,
            ..OfferQuery::all(Market::OnDemand)
        };
        match chunk {
            [one] => query.machine = Some(*one),
            several => query.bounds.machines = several.to_vec(),
        }
        query
    };
    machines.chunks(MACHINES_PER_SEARCH).map(search).collect()
}

/// Searches for history, one for each model that a job names, without the jobs' bounds: what is
/// over every ceiling has a history too. A job that takes any model adds none, for the whole
/// market is more than the quota holds.
pub fn history_searches(jobs: &[Arc<Job>], market: &Snapshot) -> Vec<OfferQuery> {
    let search = |names: BTreeSet<String>| {
        let mut query = OfferQuery::all(Market::OnDemand);
        name_models(&mut query, &names);
        query
    };
    models(jobs)
        .into_keys()
        .flatten()
        .map(|model| search(spellings(&model, market)))
        .collect()
}

/// What one search asks for, before it is one.
#[derive(Clone)]
struct Unit {
    /// Names of models as the marketplace may spell them. Empty: all.
    names: BTreeSet<String>,
    bounds: Bounds,
    disk_gb: u32,
}

impl Unit {
    fn joined(&self, other: &Self) -> Self {
        let either_all = self.names.is_empty() || other.names.is_empty();
        let names = if either_all {
            BTreeSet::new()
        } else {
            self.names.union(&other.names).cloned().collect()
        };
        Self {
            names,
            bounds: looser(&self.bounds, &other.bounds),
            disk_gb: self.disk_gb.min(other.disk_gb),
        }
    }

    fn query(&self, market: Market) -> OfferQuery {
        let mut query = OfferQuery {
            disk_gb: self.disk_gb,
            bounds: self.bounds.clone(),
            ..OfferQuery::all(market)
        };
        name_models(&mut query, &self.names);
        query
    }
}

fn of_type(
    market: Market,
    jobs: &[Arc<Job>],
    known: &Snapshot,
    rows: &dyn Fn(&OfferQuery) -> usize,
) -> Vec<OfferQuery> {
    let mut units: Vec<Unit> = Vec::new();
    let mut any: Option<Unit> = None;
    for (model, takers) in models(jobs) {
        let unit = takers
            .iter()
            .map(|job| unit_of(job, market))
            .reduce(|a, b| Unit {
                bounds: looser(&a.bounds, &b.bounds),
                disk_gb: a.disk_gb.min(b.disk_gb),
                names: a.names,
            });
        let Some(mut unit) = unit else { continue };
        match model {
            None => any = Some(unit),
            Some(model) => {
                unit.names = spellings(&model, known);
                units.push(unit);
            }
        }
    }
    if let Some(any) = &any {
        // What a search without a model sees anyway is not searched again.
        units.retain(|unit| any.query(market) != any.joined(unit).query(market));
    }
    any.into_iter()
        .chain(share(market, units, rows))
        .map(|unit| unit.query(market))
        .collect()
}

/// Puts models together into searches, each into the first that has room for it. Models have no row
/// in common, so two that are expected to return too many apart are not asked about together: most
/// pairs are of this kind, and a search that is made only to be thrown away is dear.
fn share(market: Market, units: Vec<Unit>, rows: &dyn Fn(&OfferQuery) -> usize) -> Vec<Unit> {
    let mut shared: Vec<(Unit, usize)> = Vec::new();
    for unit in units {
        let alone = rows(&unit.query(market));
        let joined = shared
            .iter()
            .enumerate()
            .filter(|(_, (_, expected))| expected + alone <= SHARED_ROWS_MAX)
            .find_map(|(at, (with, _))| {
                let joined = with.joined(&unit);
                let expected = rows(&joined.query(market));
                (expected <= SHARED_ROWS_MAX).then_some((at, joined, expected))
            });
        match joined {
            Some((at, joined, expected)) => shared[at] = (joined, expected),
            None => shared.push((unit, alone)),
        }
    }
    shared.into_iter().map(|(unit, _)| unit).collect()
}

/// Who takes which model; `None`: any. Spellings of one model are one.
fn models(jobs: &[Arc<Job>]) -> BTreeMap<Option<String>, Vec<&Job>> {
    let mut models: BTreeMap<Option<String>, Vec<&Job>> = BTreeMap::new();
    for job in jobs {
        let named = &job.requirements.gpu_models;
        if named.is_empty() {
            models.entry(None).or_default().push(job);
        }
        for name in named {
            let known = models
                .keys()
                .flatten()
                .find(|known| same_model(known, name));
            let key = known.cloned().unwrap_or_else(|| name.replace('_', " "));
            models.entry(Some(key)).or_default().push(job);
        }
    }
    models
}

/// How the marketplace may spell a model: as its rows do, where some are known; as the policy does,
/// with the blanks that its rows have; in capitals, where the policy has none.
fn spellings(model: &str, market: &Snapshot) -> BTreeSet<String> {
    let seen = market
        .offers
        .iter()
        .filter(|offer| same_model(model, &offer.gpu_name))
        .map(|offer| offer.gpu_name.to_string());
    let mut names: BTreeSet<String> = seen.collect();
    let capitals = model.chars().any(|c| c.is_ascii_uppercase());
    if !capitals {
        names.insert(model.to_ascii_uppercase());
    }
    names.insert(model.to_owned());
    names
}

fn name_models(query: &mut OfferQuery, names: &BTreeSet<String>) {
    if names.len() == 1 {
        query.gpu_name = names.first().cloned();
    } else {
        query.bounds.gpu_names = names.iter().cloned().collect();
    }
}

/// What a job needs of a row, as far as a search can ask for it.
fn unit_of(job: &Job, market: Market) -> Unit {
    let need = &job.requirements;
    let down = |least: Option<f32>, scale: f64| {
        // A conversion to a whole number cuts off what does not fit, downwards as it should.
        least.map(|least| (f64::from(least) * scale).floor() as u32)
    };
    let ceiling = i128::from(job.price_max.0) * i128::from(need.gpu_count);
    let ceiling = Rate(i64::try_from(ceiling).unwrap_or(i64::MAX));
    let pays = match market {
        Market::OnDemand => job.rental == RentalChoice::OnDemand,
        Market::Bid => true,
    };
    Unit {
        names: BTreeSet::new(),
        bounds: Bounds {
            gpus: vec![need.gpu_count],
            gpu_ram_mb_min: need.gpu_ram_mb_min,
            compute_cap_min: need.compute_cap_min,
            cuda_min: need.cuda_min,
            disk_gb_min: Some(need.disk_gb),
            inet_down_mbit_s_min: down(need.inet_down_mbit_s_min, 1.0),
            inet_up_mbit_s_min: down(need.inet_up_mbit_s_min, 1.0),
            reliability_ppm_min: down(need.reliability_min, 1e6),
            direct_ports_min: need.direct_ports_min,
            datacenter: need.datacenter,
            static_ip: need.static_ip,
            unverified: !need.verified,
            countries: sorted(need.countries.iter().copied()),
            countries_denied: sorted(need.countries_denied.iter().copied()),
            total_max: pays.then_some(ceiling),
            ..Bounds::default()
        },
        disk_gb: need.disk_gb,
    }
}

fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    items.collect::<BTreeSet<T>>().into_iter().collect()
}

/// The bounds that hold for whoever has either: a row that meets one of the two meets this.
fn looser(a: &Bounds, b: &Bounds) -> Bounds {
    fn least(a: Option<u32>, b: Option<u32>) -> Option<u32> {
        Some(a?.min(b?))
    }
    fn any_of<T: Ord + Copy>(a: &[T], b: &[T]) -> Vec<T> {
        if a.is_empty() || b.is_empty() {
            return Vec::new();
        }
        sorted(a.iter().chain(b).copied())
    }
    Bounds {
        // The models are joined by whoever joins the searches.
        gpu_names: Vec::new(),
        machines: any_of(&a.machines, &b.machines),
        gpus: any_of(&a.gpus, &b.gpus),
        gpu_ram_mb_min: least(a.gpu_ram_mb_min, b.gpu_ram_mb_min),
        compute_cap_min: least(a.compute_cap_min, b.compute_cap_min),
        cuda_min: least(a.cuda_min, b.cuda_min),
        disk_gb_min: least(a.disk_gb_min, b.disk_gb_min),
        inet_down_mbit_s_min: least(a.inet_down_mbit_s_min, b.inet_down_mbit_s_min),
        inet_up_mbit_s_min: least(a.inet_up_mbit_s_min, b.inet_up_mbit_s_min),
        reliability_ppm_min: least(a.reliability_ppm_min, b.reliability_ppm_min),
        direct_ports_min: least(a.direct_ports_min, b.direct_ports_min),
        datacenter: a.datacenter && b.datacenter,
        static_ip: a.static_ip && b.static_ip,
        unverified: a.unverified || b.unverified,
        countries: any_of(&a.countries, &b.countries),
        countries_denied: sorted(
            a.countries_denied
                .iter()
                .filter(|country| b.countries_denied.contains(country))
                .copied(),
        ),
        total_max: a.total_max.zip(b.total_max).map(|(a, b)| a.max(b)),
    }
}
