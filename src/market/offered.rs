//! Offers as a search shows them.
//!
//! Most of a row never changes and is stored with its slice; the rest is reckoned when it is looked
//! at. Most rows fail a search by what never changes, and of the others only a page is shown: so
//! that is tested first, and only what is shown is made into rows.

use std::sync::Arc;

use super::life::disk_rate;
use super::machine::{Machine, Slice};
use super::query::{Reader, Row, Search};
use super::raw::{Field, RawOffer, RawRates};
use super::sim::Market;
use super::view::ratio;
use crate::types::offer::Market as SearchType;

/// The fields that are reckoned; names that exist only in searches included.
const RECKONED: &[&str] = &[
    "id",
    "ask_contract_id",
    "bundled_results",
    "discount_rate",
    "discounted_dph_total",
    "discounted_hourly",
    "dlperf_per_dphtotal",
    "dph_base",
    "dph_total",
    "dph_total_adj",
    "duration",
    "end_date",
    "flops_per_dphtotal",
    "is_bid",
    "min_bid",
    "rentable",
    "rented",
    "start_date",
    "storage_total_cost",
    "time_remaining",
    "time_remaining_isbid",
    "vericode",
    "verification",
    "verified",
    "vram_costperhour",
];

/// Who looks at offers, and for what.
#[derive(Clone, Copy)]
struct View {
    account: u64,
    kind: SearchType,
    storage_gb: f64,
    /// Whether prices are those of a rental that is prepaid as far as the host's discount goes.
    prepaid: bool,
}

/// An offer as it is now, not yet made into a row.
struct Offered<'m> {
    stored: &'m RawOffer,
    ask: u64,
    bundled: Option<u32>,
    base: f64,
    storage: f64,
    total: f64,
    min_bid: f64,
    is_bid: bool,
    /// The discount, and what it saves per hour.
    prepaid: Option<(f64, f64)>,
    rentable: bool,
    rented: bool,
    listed: f64,
    ends: f64,
    left: f64,
    vericode: u32,
    verification: Arc<str>,
}

impl Market {
    /// Every row of a search, in order of id: unverified, taken and held ones too, told by their
    /// flags; a machine that is offline has none. Filters, defaults and the row cap are the wire's.
    /// `allocated_storage` is the disk, in GB, by which totals are computed.
    pub fn offers(&self, account: u64, kind: SearchType, allocated_storage: f64) -> Vec<RawOffer> {
        let view = View {
            account,
            kind,
            storage_gb: storage(allocated_storage),
            prepaid: false,
        };
        self.asks
            .iter()
            .filter(|(_, (machine, _))| self.machines[*machine].online)
            .map(|(_, &(machine, slice))| self.offered(view, &self.machines[machine], slice))
            .map(Offered::row)
            .collect()
    }

    /// The rows that a search finds for an account, in its order.
    pub(super) fn search(&self, account: u64, search: &Search) -> Vec<RawOffer> {
        let view = View {
            account,
            kind: search.kind,
            storage_gb: storage(search.allocated_storage),
            prepaid: search.reserved,
        };
        let passes = search.tests_besides::<RawOffer>(RECKONED);
        let mut found = Vec::new();
        // As they lie in memory, which is faster than by id.
        for machine in self.machines.iter().filter(|machine| machine.online) {
            for (slice, place) in machine.slices.iter().enumerate() {
                if passes(&place.row) && self.asks.contains_key(&place.ask) {
                    found.push(self.offered(view, machine, slice));
                }
            }
        }
        found.sort_unstable_by_key(|offered| offered.ask);
        let chosen = search.select(found).into_iter();
        chosen.map(Offered::row).collect()
    }

    fn offered<'m>(&'m self, view: View, machine: &'m Machine, slice: usize) -> Offered<'m> {
        let place: &Slice = &machine.slices[slice];
        let floor = machine.shown_floor(&self.contracts, slice);
        let is_bid = view.kind == SearchType::Bid;
        let base = if is_bid {
            floor
        } else {
            machine.on_demand(slice)
        }
        .as_dollars();
        let storage = disk_rate(place.storage_price, view.storage_gb).as_dollars();
        let left = place.ends.ms_since(self.now).max(0) as f64 / 1000.0;
        let free = !machine.held_on_demand(&self.contracts, slice);
        let rented = machine
            .contracts
            .iter()
            .filter_map(|id| self.contracts.get(id))
            .any(|contract| contract.slice == slice && contract.account() == Some(view.account));
        let discount = place.row.credit_discount_max.clamp(0.0, 1.0);
        Offered {
            stored: &place.row,
            ask: place.ask,
            bundled: None,
            base,
            storage,
            total: base + storage,
            min_bid: floor.as_dollars(),
            is_bid,
            prepaid: view.prepaid.then_some((discount, base * discount)),
            rentable: free && left > 0.0,
            rented,
            listed: place.listed.epoch_seconds(),
            ends: place.ends.epoch_seconds(),
            left,
            vericode: if machine.deverified_until.is_some() {
                0
            } else {
                place.row.vericode
            },
            verification: machine.verification(slice),
        }
    }
}

/// The disk of a search, in GB: never absurd.
fn storage(gigabytes: f64) -> f64 {
    if gigabytes.is_finite() {
        gigabytes.clamp(0.0, 1.0e6)
    } else {
        0.0
    }
}

impl Offered<'_> {
    fn discounted(&self) -> f64 {
        self.total - self.prepaid.map_or(0.0, |(_, saved)| saved)
    }

    fn vram_cost(&self) -> f64 {
        ratio(self.total, f64::from(self.stored.gpu_total_ram))
    }

    fn row(self) -> RawOffer {
        let mut search = RawRates::new(self.base, self.storage);
        if let Some((_, saved)) = self.prepaid {
            search.discount_total_hour = saved;
            search.discounted_total_per_hour = self.discounted();
        }
        let (rate, saved) = match self.prepaid {
            Some((rate, saved)) => (Some(rate), saved),
            None => (self.stored.discount_rate, self.stored.discounted_hourly),
        };
        RawOffer {
            id: self.ask,
            ask_contract_id: self.ask,
            bundled_results: self.bundled.or(self.stored.bundled_results),
            dph_base: self.base,
            dph_total: self.total,
            dph_total_adj: self.total,
            discount_rate: rate,
            discounted_hourly: saved,
            discounted_dph_total: self.discounted(),
            storage_total_cost: self.storage,
            min_bid: self.min_bid,
            is_bid: self.is_bid,
            search,
            instance: RawRates::new(0.0, self.storage),
            vram_costperhour: self.vram_cost(),
            dlperf_per_dphtotal: ratio(self.stored.dlperf, self.total),
            flops_per_dphtotal: ratio(self.stored.total_flops, self.total),
            rentable: self.rentable,
            rented: self.rented,
            start_date: self.listed,
            end_date: self.ends,
            duration: self.left,
            time_remaining: "".into(),
            time_remaining_isbid: "".into(),
            vericode: self.vericode,
            verification: self.verification,
            ..self.stored.clone()
        }
    }
}

impl Row for Offered<'_> {
    fn cell(&self, field: &str) -> Field<'_> {
        let number = Field::Number;
        let known = |number: Option<f64>| number.map_or(Field::Null, Field::Number);
        match field {
            "id" | "ask_contract_id" => number(self.ask as f64),
            "bundled_results" => known(self.bundled.or(self.stored.bundled_results).map(f64::from)),
            "discount_rate" => match self.prepaid {
                Some((rate, _)) => number(rate),
                None => known(self.stored.discount_rate),
            },
            "discounted_hourly" => match self.prepaid {
                Some((_, saved)) => number(saved),
                None => number(self.stored.discounted_hourly),
            },
            "discounted_dph_total" => number(self.discounted()),
            "dlperf_per_dphtotal" => number(ratio(self.stored.dlperf, self.total)),
            "dph_base" => number(self.base),
            "dph_total" | "dph_total_adj" => number(self.total),
            "duration" => number(self.left),
            "end_date" => number(self.ends),
            "flops_per_dphtotal" => number(ratio(self.stored.total_flops, self.total)),
            "is_bid" => Field::Flag(self.is_bid),
            "min_bid" => number(self.min_bid),
            "rentable" => Field::Flag(self.rentable),
            "rented" => Field::Flag(self.rented),
            "start_date" => number(self.listed),
            "storage_total_cost" => number(self.storage),
            "time_remaining" | "time_remaining_isbid" => Field::Text(""),
            "vericode" => number(f64::from(self.vericode)),
            "verification" => Field::Text(&self.verification),
            "vram_costperhour" => number(self.vram_cost()),
            _ => self.stored.field(field).unwrap_or(Field::Null),
        }
    }

    fn reader(name: &'static str) -> Reader<Self> {
        match RawOffer::reader(name).filter(|_| !RECKONED.contains(&name)) {
            Some(_) => {
                let read = <RawOffer as Row>::reader(name);
                Box::new(move |offered| read(offered.stored))
            }
            None => Box::new(move |offered| offered.looked_up(name)),
        }
    }

    fn stands_for(&mut self, rows: u32) {
        self.bundled = Some(rows);
    }
}

impl Row for RawOffer {
    fn cell(&self, field: &str) -> Field<'_> {
        self.field(field).unwrap_or(Field::Null)
    }

    fn reader(name: &'static str) -> Reader<Self> {
        // These are not what the row has under their names.
        let other = matches!(name, "id" | "external" | "driver_version");
        match RawOffer::reader(name).filter(|_| !other) {
            Some(read) => Box::new(read),
            None => Box::new(move |row| row.looked_up(name)),
        }
    }

    fn stands_for(&mut self, rows: u32) {
        self.bundled_results = Some(rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::api::CreateParams;
    use crate::market::{Field, MarketOptions};
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::sync::LazyLock;

    const ACCOUNT: u64 = 7;

    /// A market in which the account holds something, machines came and went, and prices moved.
    static MARKET: LazyLock<Market> = LazyLock::new(|| {
        let mut market = Market::generated(MarketOptions {
            machines: Some(80),
            ..MarketOptions::default()
        });
        market.opens(ACCOUNT);
        let mut rows = market.offers(ACCOUNT, SearchType::Bid, 8.0);
        let mut machines = std::collections::BTreeSet::new();
        rows.retain(|row| row.rentable && machines.insert(row.machine_id));
        for row in rows.iter().take(5) {
            let params = CreateParams {
                offer_id: row.id,
                price: Some(row.min_bid + 0.2),
                image: Some("a:1".to_owned()),
                ..CreateParams::default()
            };
            market.create(ACCOUNT, params).unwrap();
        }
        market.advance_to(market.now() + std::time::Duration::from_secs(40 * 3600));
        market
    });

    fn search(object: &Value) -> Search {
        Search::of_object(object.as_object().unwrap()).unwrap()
    }

    /// The rows that a search finds where every row is made before any is tested.
    fn plainly(object: &Value) -> Vec<RawOffer> {
        let search = search(object);
        let view = View {
            account: ACCOUNT,
            kind: search.kind,
            storage_gb: storage(search.allocated_storage),
            prepaid: search.reserved,
        };
        let places = MARKET.asks.values();
        let online = places.filter(|(machine, _)| MARKET.machines[*machine].online);
        let rows = online
            .map(|&(machine, slice)| MARKET.offered(view, &MARKET.machines[machine], slice).row());
        search.select(rows.collect())
    }

    #[test]
    fn what_is_not_reckoned_is_shown_as_it_is_stored() {
        for kind in [SearchType::Bid, SearchType::OnDemand] {
            for row in MARKET.offers(ACCOUNT, kind, 100.0) {
                let (machine, slice) = MARKET.asks[&row.id];
                let stored = &MARKET.machines[machine].slices[slice].row;
                for name in RawOffer::FIELDS {
                    if !RECKONED.contains(name) {
                        assert_eq!(row.field(name), stored.field(name), "{name}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_offer_and_its_row_have_the_same_fields() {
        for prepaid in [false, true] {
            let view = View {
                account: ACCOUNT,
                kind: SearchType::Bid,
                storage_gb: 20.0,
                prepaid,
            };
            for &(machine, slice) in MARKET.asks.values() {
                let offered = || MARKET.offered(view, &MARKET.machines[machine], slice);
                let row = offered().row();
                for name in RawOffer::FIELDS {
                    let (offered, name) = (offered(), *name);
                    let read = <Offered<'_> as Row>::reader(name);
                    assert_eq!(read(&offered), row.looked_up(name), "{name}");
                }
                assert_eq!(row.looked_up("id"), Field::Null);
            }
        }
    }

    fn filters() -> impl Strategy<Value = Value> {
        let price = || prop::sample::select(vec!["dph_total", "dph_base", "min_bid", "score"]);
        let ways = prop::sample::select(vec!["asc", "desc"]);
        let kinds = prop::sample::select(vec!["bid", "on-demand", "reserved"]);
        let open = prop::sample::subsequence(vec!["verified", "rentable", "rented"], 0..=3);
        let gpus = prop::option::of(1_u32..5);
        let models = prop::option::of(prop::sample::select(vec!["RTX 4090", "H100 SXM"]));
        let most = prop::option::of(0.05_f64..6.0);
        (
            (price(), ways, kinds, open),
            (gpus, models, most, price()),
            (0_usize..80, any::<bool>(), 0_u32..500),
        )
            .prop_map(|(order, few, rest)| {
                let ((by, way, kind, open), (gpus, model, most, name)) = (order, few);
                let mut object = json!({"order": [[by, way], ["num_gpus", "desc"]], "type": kind,
                    "limit": rest.0, "disable_bundling": rest.1, "allocated_storage": rest.2});
                for field in open {
                    object[field] = json!({});
                }
                if let Some(gpus) = gpus {
                    object["num_gpus"] = json!({"gte": gpus.to_string()});
                }
                if let Some(model) = model {
                    object["gpu_name"] = json!({"in": [model, "RTX 3090"]});
                }
                if let Some(most) = most {
                    object[name] = json!({"lt": most});
                }
                object
            })
    }

    proptest! {
        #[test]
        fn a_search_finds_what_it_would_find_among_all_rows(object in filters()) {
            prop_assert_eq!(MARKET.search(ACCOUNT, &search(&object)), plainly(&object));
        }
    }
}
