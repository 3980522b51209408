use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::market::{CreateParams, MarketOptions, RawOffer};
use crate::types::offer::Market as SearchType;

const FIRST: u64 = 900_001;
const SECOND: u64 = 900_002;

fn options() -> MarketOptions {
    MarketOptions {
        machines: Some(20),
        intensity: 0.0,
        failures: 0.0,
        ..MarketOptions::default()
    }
}

/// A still market with a host and a renter.
fn world() -> (Market, u64, u64) {
    let mut market = Market::generated(options());
    let host = market.account_for("at_host");
    let renter = market.account_for("at_renter");
    (market, host, renter)
}

fn usual() -> Ask {
    Ask {
        price: Some(0.4),
        floor: Some(0.1),
        disk_price: Some(0.15),
        up_price: Some(0.004),
        down_price: Some(0.002),
        least_gpus: Some(1.0),
        ..Ask::default()
    }
}

fn of_machine(market: &Market, account: u64, kind: SearchType, id: u64) -> Vec<RawOffer> {
    let mut rows = market.offers(account, kind, 10.0);
    rows.retain(|row| row.machine_id == id);
    rows
}

fn sizes(market: &Market, account: u64, id: u64) -> Vec<u32> {
    let rows = of_machine(market, account, SearchType::OnDemand, id);
    let mut sizes: Vec<u32> = rows.iter().map(|row| row.num_gpus).collect();
    sizes.sort_unstable();
    sizes
}

fn rent(market: &mut Market, account: u64, gpus: u32, price: Option<f64>) -> u64 {
    let rows = of_machine(market, account, SearchType::OnDemand, FIRST);
    let row = rows
        .iter()
        .find(|row| row.num_gpus == gpus && !row.rented && row.rentable);
    let params = CreateParams {
        offer_id: row.unwrap().id,
        price,
        image: Some("a:b".to_owned()),
        disk: Some(10.0),
        ..CreateParams::default()
    };
    market.create(account, params).unwrap().new_contract
}

fn later(market: &mut Market, seconds: i64) {
    market.advance_to(Time(market.now().0 + seconds * 1000));
}

fn kinds(market: &Market, account: u64) -> Vec<String> {
    let rows = market.inbox(account);
    rows.iter()
        .rev()
        .map(|row| row["notif_type"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_an_account_owns_changes_nothing_for_the_others() {
    let market_of = |own_machines: u32| {
        let mut market = Market::generated(MarketOptions {
            machines: Some(40),
            own_machines,
            ..MarketOptions::default()
        });
        let account = market.account_for("at_one");
        later(&mut market, 30 * 3600);
        (
            market.offers(account, SearchType::Bid, 8.0),
            market.events().to_vec(),
        )
    };
    assert_eq!(market_of(0), market_of(2));
}

#[test]
fn machines_are_owned_from_the_first_call_on_and_not_listed() {
    let (market, host, renter) = world();
    let ids = |account: u64| -> Vec<u64> {
        let rows = market.machines_of(account);
        rows.iter().map(|row| row["id"].as_u64().unwrap()).collect()
    };
    assert_eq!(ids(host), [FIRST, SECOND]);
    assert_eq!(ids(renter), [900_003, 900_004]);
    let row = market.machine_of(host, FIRST).unwrap();
    assert_eq!(
        (&row["num_gpus"], &row["listed"]),
        (&json!(4), &json!(false))
    );
    assert_eq!(row["listed_gpu_cost"], Value::Null);
    assert_eq!(row["gpu_occupancy"], "x x x x");
    assert!(row["hostname"].is_string());
    assert!(
        market.machine_of(renter, FIRST).is_none(),
        "not the renter's"
    );
    assert!(sizes(&market, host, FIRST).is_empty());
    assert!(!market.is_host(host));
}

#[test]
fn a_listing_puts_slices_on_the_market_at_its_prices() {
    let (mut market, host, renter) = world();
    assert_eq!(market.list_machine(host, FIRST, &usual()), Ok(0));
    assert_eq!(sizes(&market, renter, FIRST), [1, 1, 1, 1, 2, 2, 4]);
    assert!(market.is_host(host));
    for row in of_machine(&market, renter, SearchType::Bid, FIRST) {
        let gpus = f64::from(row.num_gpus);
        assert!((row.min_bid - 0.1 * gpus).abs() < 1e-9);
        assert_eq!((row.storage_cost, row.host_id), (0.15, host));
        assert_eq!((row.inet_up_cost, row.inet_down_cost), (0.004, 0.002));
        assert!(row.rentable && &*row.verification == "verified");
    }
    for row in of_machine(&market, renter, SearchType::OnDemand, FIRST) {
        assert!((row.dph_base - 0.4 * f64::from(row.num_gpus)).abs() < 1e-9);
    }
    let shown = market.machine_of(host, FIRST).unwrap();
    assert_eq!(
        (
            &shown["listed"],
            &shown["listed_gpu_cost"],
            &shown["min_bid_price"]
        ),
        (&json!(true), &json!(0.4), &json!(0.1))
    );
}

#[test]
fn an_update_keeps_the_offers_and_another_least_size_makes_others() {
    let (mut market, host, renter) = world();
    market.list_machine(host, FIRST, &usual()).unwrap();
    let ids = |market: &Market| -> Vec<u64> {
        let rows = of_machine(market, renter, SearchType::OnDemand, FIRST);
        rows.iter().map(|row| row.id).collect()
    };
    let before = ids(&market);
    let cheaper = Ask {
        price: Some(0.3),
        ..Ask::default()
    };
    market.list_machine(host, FIRST, &cheaper).unwrap();
    assert_eq!(ids(&market), before);
    let row = &of_machine(&market, renter, SearchType::Bid, FIRST)[0];
    assert!(
        (row.min_bid - 0.1 * f64::from(row.num_gpus)).abs() < 1e-9,
        "the floor stays"
    );
    let halves = Ask {
        least_gpus: Some(2.0),
        ..Ask::default()
    };
    market.list_machine(host, FIRST, &halves).unwrap();
    assert_eq!(sizes(&market, renter, FIRST), [2, 2, 4]);
    market.list_machine(host, FIRST, &usual()).unwrap();
    assert_eq!(sizes(&market, renter, FIRST), [1, 1, 1, 1, 2, 2, 4]);
    assert!(
        ids(&market)
            .iter()
            .all(|id| before.contains(id) || *id > before[0])
    );
}

#[test]
fn slices_double_up_to_all_gpus() {
    assert_eq!(places(1, 1), [(1, 0)]);
    assert_eq!(places(2, 2), [(2, 0)]);
    assert_eq!(places(3, 1), [(1, 0), (1, 1), (1, 2), (2, 0), (3, 0)]);
    assert_eq!(places(8, 3), [(3, 0), (3, 3), (6, 0), (8, 0)]);
}

#[test]
fn a_machine_off_the_market_keeps_its_renters_and_gets_no_more() {
    let (mut market, host, renter) = world();
    market.list_machine(host, FIRST, &usual()).unwrap();
    let id = rent(&mut market, renter, 1, None);
    later(&mut market, 3600);
    market.unlist_machine(host, FIRST).unwrap();
    assert!(sizes(&market, renter, FIRST).is_empty());
    later(&mut market, 3600);
    let row = market.instance(renter, id).unwrap();
    assert_eq!(row.actual_status.as_deref(), Some("running"));
    let shown = market.machine_of(host, FIRST).unwrap();
    assert_eq!(shown["current_rentals_running_on_demand"], 1);
    assert_eq!(shown["gpu_occupancy"], "D x x x");
    market.destroy(renter, id).unwrap();
    assert!(
        sizes(&market, renter, FIRST).is_empty(),
        "a slice that is free again stays off"
    );
}

#[test]
fn a_bid_on_a_listed_machine_runs_over_its_floor() {
    let (mut market, host, renter) = world();
    market.list_machine(host, FIRST, &usual()).unwrap();
    let id = rent(&mut market, renter, 2, Some(0.25));
    later(&mut market, 3600);
    assert_eq!(
        market.machine_of(host, FIRST).unwrap()["gpu_occupancy"],
        "I I x x"
    );
    market.set_floor(host, FIRST, 0.2).unwrap();
    later(&mut market, 120);
    let row = market.instance(renter, id).unwrap();
    assert_eq!(
        row.actual_status.as_deref(),
        Some("running"),
        "it keeps its terms"
    );
    let rows = of_machine(&market, host, SearchType::Bid, FIRST);
    let free = rows
        .iter()
        .find(|row| row.num_gpus == 1 && row.min_bid > 0.19);
    assert!(free.is_some(), "{rows:?}");
}

#[test]
fn a_later_end_prolongs_rentals_and_an_earlier_one_does_not_shorten_them() {
    let (mut market, host, renter) = world();
    let start = market.now().epoch_seconds();
    let until = |hours: f64| Ask {
        ends: Some(start + hours * 3600.0),
        ..usual()
    };
    market.list_machine(host, FIRST, &until(5.0)).unwrap();
    let id = rent(&mut market, renter, 1, None);
    let end = |market: &Market| market.instance(renter, id).unwrap().end_date - start;
    assert_eq!(end(&market), 5.0 * 3600.0);
    assert_eq!(market.list_machine(host, FIRST, &until(3.0)), Ok(0));
    assert_eq!(end(&market), 5.0 * 3600.0);
    assert_eq!(market.list_machine(host, FIRST, &until(9.0)), Ok(1));
    assert_eq!(end(&market), 9.0 * 3600.0);
    assert!(kinds(&market, renter).contains(&"contract_extended".to_owned()));
    later(&mut market, 6 * 3600);
    let status = |market: &Market| market.instance(renter, id).unwrap().cur_state.to_string();
    assert_eq!(status(&market), "running", "the first end no longer counts");
    later(&mut market, 4 * 3600);
    assert_eq!(status(&market), "stopped");
}

#[test]
fn a_higher_price_is_put_to_who_rents_on_demand() {
    let (mut market, host, renter) = world();
    market.list_machine(host, FIRST, &usual()).unwrap();
    let id = rent(&mut market, renter, 1, None);
    rent(&mut market, renter, 2, Some(0.3));
    let dearer = |price: f64| Ask {
        price: Some(price),
        ..Ask::default()
    };
    market.list_machine(host, FIRST, &dearer(0.35)).unwrap();
    let asked = |market: &Market| {
        let kinds = kinds(market, renter);
        kinds
            .iter()
            .filter(|kind| *kind == "price_increase")
            .count()
    };
    assert_eq!(asked(&market), 0, "it is lower");
    market.list_machine(host, FIRST, &dearer(0.5)).unwrap();
    assert_eq!(asked(&market), 1);
    let pays = |market: &Market| market.instance(renter, id).unwrap().dph_base;
    assert!((pays(&market) - 0.4).abs() < 1e-9, "it keeps its price");
    market.list_machine(host, FIRST, &dearer(0.5)).unwrap();
    assert_eq!(asked(&market), 1, "the same is asked once");
    market.list_machine(host, FIRST, &dearer(0.6)).unwrap();
    let pending = market.price_increases(renter);
    assert_eq!(pending.len(), 1, "the later takes the place of the earlier");
    let number = pending[0]["pending_price_increase_id"].as_u64().unwrap();
    market.answer_price_increase(renter, number, true).unwrap();
    assert!((pays(&market) - 0.6).abs() < 1e-9);
    market.list_machine(host, FIRST, &dearer(0.7)).unwrap();
    market.list_machine(host, FIRST, &dearer(0.6)).unwrap();
    assert_eq!(
        market.price_increases(renter),
        Vec::<Value>::new(),
        "it was withdrawn"
    );
}

#[test]
fn downtime_is_told_and_ended_rentals_are_cleaned_up() {
    let (mut market, host, renter) = world();
    let soon = Ask {
        duration: Some(7200.0),
        ..usual()
    };
    market.list_machine(host, FIRST, &soon).unwrap();
    let id = rent(&mut market, renter, 1, None);
    let plan = Maintenance {
        begins: Time(market.now().0 + 3_600_000),
        hours: 2.0,
        category: "power".to_owned(),
    };
    market
        .plan_maintenance(host, FIRST, Some(plan.clone()))
        .unwrap();
    assert!(kinds(&market, renter).contains(&"upcoming_downtime".to_owned()));
    let planned =
        |market: &Market| market.machine_of(host, FIRST).unwrap()["machine_maintenance"].clone();
    assert_eq!(planned(&market)[0]["duration_hours"], 2.0);
    market.plan_maintenance(host, FIRST, None).unwrap();
    assert_eq!(planned(&market), json!([]));
    assert_eq!(market.clean_up(host, FIRST), Ok(0), "it still runs");
    market.plan_maintenance(host, FIRST, Some(plan)).unwrap();
    later(&mut market, 3700);
    let status = |market: &Market| market.instance(renter, id).unwrap().actual_status;
    assert_eq!(status(&market).as_deref(), Some("offline"));
    later(&mut market, 2 * 3600);
    assert_ne!(status(&market).as_deref(), Some("offline"));
    assert_eq!(planned(&market), json!([]));
    assert_eq!(market.clean_up(host, FIRST), Ok(1));
    assert!(market.instance(renter, id).is_none());
    assert!(kinds(&market, renter).contains(&"instance_deleted".to_owned()));
}

#[test]
fn a_machine_that_is_deleted_by_force_takes_its_rentals_along() {
    let (mut market, host, renter) = world();
    market.list_machine(host, FIRST, &usual()).unwrap();
    let id = rent(&mut market, renter, 4, None);
    later(&mut market, 3600);
    let owed = market.credit(renter);
    market.force_delete(host, FIRST).unwrap();
    assert!(market.instance(renter, id).is_none());
    assert_eq!(market.machines_of(host).len(), 1);
    assert!(sizes(&market, renter, FIRST).is_empty());
    assert_eq!(
        market
            .list_machine(host, FIRST, &usual())
            .unwrap_err()
            .status,
        403
    );
    later(&mut market, 3600);
    assert_eq!(market.credit(renter), owed, "nothing bills on");
}

#[test]
fn a_host_earns_what_its_renters_used() {
    let (mut market, host, renter) = world();
    market.list_machine(host, FIRST, &usual()).unwrap();
    rent(&mut market, renter, 1, None);
    rent(&mut market, host, 2, Some(0.3));
    later(&mut market, 30 * 3600);
    let all = |machine| market.earnings(host, Time(0), market.now(), machine);
    let earned = all(None);
    let sum: f64 = ["total_gpu", "total_stor", "total_bwu", "total_bwd"]
        .iter()
        .map(|name| earned["summary"][*name].as_f64().unwrap())
        .sum();
    let used = Money::dollars(100) - market.credit(renter);
    assert!((sum - used.as_dollars()).abs() < 1e-6, "{sum} {used}");
    assert_eq!(earned["per_day"].as_array().unwrap().len(), 2);
    assert_eq!(earned["per_machine"][0]["machine_id"], FIRST);
    assert_eq!(all(Some(SECOND))["per_machine"], json!([]));
    let before = market.earnings(host, Time(0), Time(1000), None);
    assert_eq!(before["summary"]["total_gpu"], 0.0);
    assert_eq!(before["current"]["balance"], earned["current"]["balance"]);
}

#[test]
fn reports_are_the_same_each_time_and_more_of_bad_machines() {
    let market = Market::generated(MarketOptions {
        machines: Some(300),
        ..MarketOptions::default()
    });
    let mut machines: Vec<(f64, usize)> = market
        .machines
        .iter()
        .map(|machine| {
            let reports = market.machine_reports(machine.id).unwrap();
            assert_eq!(market.machine_reports(machine.id).unwrap(), reports);
            assert!(reports.iter().all(|report| report.at < market.now()));
            assert!(reports.windows(2).all(|pair| pair[0].at >= pair[1].at));
            (machine.slices[0].row.reliability, reports.len())
        })
        .collect();
    machines.sort_by(|a, b| a.0.total_cmp(&b.0));
    let count = |part: &[(f64, usize)]| part.iter().map(|(_, n)| n).sum::<usize>();
    let (bad, good) = machines.split_at(150);
    assert!(
        count(bad) > 2 * count(good),
        "{} {}",
        count(bad),
        count(good)
    );
    assert_eq!(market.machine_reports(5), None);
}

#[test]
fn terms_that_cannot_be_change_nothing() {
    let (mut market, host, renter) = world();
    market.list_machine(host, FIRST, &usual()).unwrap();
    let before = market.machine_of(host, FIRST);
    let with = |change: fn(&mut Ask)| {
        let mut ask = usual();
        change(&mut ask);
        ask
    };
    for ask in [
        with(|ask| ask.price = Some(-1.0)),
        with(|ask| ask.price = Some(0.0)),
        with(|ask| ask.price = Some(1e308)),
        with(|ask| ask.floor = Some(0.001)),
        with(|ask| ask.floor = Some(33.0)),
        with(|ask| ask.disk_price = Some(-0.1)),
        with(|ask| ask.up_price = Some(1e9)),
        with(|ask| ask.least_gpus = Some(0.0)),
        with(|ask| ask.least_gpus = Some(5.0)),
        with(|ask| ask.least_gpus = Some(1.5)),
        with(|ask| ask.ends = Some(1.0)),
        with(|ask| ask.ends = Some(1e300)),
        with(|ask| ask.duration = Some(-5.0)),
        with(|ask| ask.discount = Some(1.1)),
    ] {
        let refused = market.list_machine(host, FIRST, &ask).unwrap_err();
        assert_eq!(refused.status, 400, "{ask:?}");
        assert_eq!(market.machine_of(host, FIRST), before, "{ask:?}");
    }
    let first = market.list_machine(host, SECOND, &Ask::default());
    assert_eq!(
        first.unwrap_err().code,
        "invalid_args",
        "the first listing needs a price"
    );
    for price in [-1.0, 0.001, 1e300] {
        assert_eq!(
            market.set_floor(host, FIRST, price).unwrap_err().status,
            422
        );
    }
    assert_eq!(
        market.set_floor(host, SECOND, 0.2).unwrap_err().status,
        422,
        "not listed"
    );
    for (account, id) in [(renter, FIRST), (host, 11_003), (host, 0)] {
        let refused = market.list_machine(account, id, &usual()).unwrap_err();
        assert_eq!((refused.status, refused.code), (403, "not_authorized"));
        assert_eq!(market.unlist_machine(account, id).unwrap_err().status, 403);
        assert_eq!(market.force_delete(account, id).unwrap_err().status, 403);
        assert_eq!(market.clean_up(account, id).unwrap_err().status, 403);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is listed, rented, unlisted and deleted, offers and machines stay consistent.
    #[test]
    fn a_host_cannot_break_the_market(steps in prop::collection::vec((0..7_u8, 1..5_u32, 0.002..2.0_f64), 1..25)) {
        let (mut market, host, renter) = world();
        for (step, gpus, price) in steps {
            let ask = Ask { price: Some(price), floor: Some(price / 1.5), least_gpus: Some(f64::from(gpus)), ..Ask::default() };
            let id = if gpus % 2 == 0 { FIRST } else { SECOND };
            match step {
                0 | 1 => drop(market.list_machine(host, id, &ask)),
                2 => drop(market.unlist_machine(host, id)),
                3 => {
                    let rows = of_machine(&market, renter, SearchType::Bid, id);
                    if let Some(row) = rows.iter().find(|row| row.rentable) {
                        let params = CreateParams {
                            offer_id: row.id,
                            price: (gpus > 2).then_some(price),
                            image: Some("a:b".to_owned()),
                            ..CreateParams::default()
                        };
                        drop(market.create(renter, params));
                    }
                }
                4 => later(&mut market, 1800),
                5 => {
                    if let Some(row) = market.instances(renter).first() {
                        drop(market.destroy(renter, row.id));
                    }
                }
                _ => drop(market.set_floor(host, id, price)),
            }
            for (ask, &(machine, slice)) in &market.asks {
                prop_assert_eq!(market.machines[machine].slices[slice].ask, *ask);
                prop_assert!(market.may_be_offered(machine, slice));
                prop_assert!(!market.old_asks.contains(ask));
            }
            for machine in &market.machines {
                let mut taken = 0;
                for contract in machine.contracts.iter().map(|id| &market.contracts[id]).filter(|held| held.granted) {
                    prop_assert_eq!(taken & contract.mask, 0);
                    taken |= contract.mask;
                }
            }
        }
    }
}
