//! The market's rules, by what an account sees.

mod auction;
mod books;
mod calibration;
mod credit;
mod disputed;
mod hosts;
mod invariants;
mod life;
mod notices;
mod requests;

use super::contract::{Container, RivalKind};
use super::disputed::Disputed;
use super::{CreateParams, Happening, Market, MarketOptions, RawInstance, RawOffer};
use crate::types::money::{Money, Rate};
use crate::types::offer::Market as SearchType;
use crate::types::time::Time;

/// A market in which nobody else acts and nothing fails.
fn still_options() -> MarketOptions {
    MarketOptions {
        intensity: 0.0,
        failures: 0.0,
        ..MarketOptions::default()
    }
}

/// A row of a machine; `all` is how many GPUs the machine has.
fn row(id: u64, machine: u64, gpus: u32, all: u32, price: f64, floor: f64) -> RawOffer {
    RawOffer {
        id,
        machine_id: machine,
        host_id: 7,
        num_gpus: gpus,
        gpu_frac: f64::from(gpus) / f64::from(all),
        gpu_name: "RTX 4090".into(),
        gpu_ram: 24564,
        gpu_total_ram: 24564 * gpus,
        dph_base: price,
        min_bid: floor,
        storage_cost: 0.18,
        inet_down: 900.0,
        inet_down_cost: 0.002,
        inet_up_cost: 0.004,
        disk_space: 500.0,
        dlperf: 90.0,
        total_flops: 82.0,
        reliability: 0.99,
        rentable: true,
        ..RawOffer::default()
    }
}

fn still(rows: Vec<RawOffer>) -> (Market, u64) {
    let mut market = Market::from_rows(still_options(), rows);
    let account = market.account_for("at_one");
    (market, account)
}

/// The same market as [`single`], with some disputed facts settled otherwise.
fn single_where(settle: impl FnOnce(&mut Disputed)) -> (Market, u64) {
    let mut options = still_options();
    settle(&mut options.disputed);
    single_with(options)
}

fn single_with(options: MarketOptions) -> (Market, u64) {
    let mut market = Market::from_rows(options, vec![row(100, 1, 1, 1, 0.4, 0.2)]);
    let account = market.account_for("at_one");
    (market, account)
}

/// One machine with one GPU: 0.40 on demand, floor 0.20.
fn single() -> (Market, u64) {
    still(vec![row(100, 1, 1, 1, 0.4, 0.2)])
}

fn bid(offer_id: u64, price: f64) -> CreateParams {
    CreateParams {
        offer_id,
        price: Some(price),
        image: Some("pytorch/pytorch:2.9".to_owned()),
        disk: Some(20.0),
        ..CreateParams::default()
    }
}

fn on_demand(offer_id: u64) -> CreateParams {
    CreateParams {
        price: None,
        ..bid(offer_id, 0.0)
    }
}

fn later(market: &mut Market, seconds: i64) {
    let to = Time(market.now().0 + seconds * 1000);
    market.advance_to(to);
}

/// cur, intended, next, actual.
fn states(market: &Market, account: u64, id: u64) -> (String, String, String, Option<String>) {
    let shown: RawInstance = market.instance(account, id).unwrap();
    let text = |text: &std::sync::Arc<str>| text.to_string();
    (
        text(&shown.cur_state),
        text(&shown.intended_status),
        text(&shown.next_state),
        shown.actual_status.as_ref().map(text),
    )
}

fn is_running(market: &Market, account: u64, id: u64) -> bool {
    states(market, account, id) == four("running", Some("running"))
}

fn is_stopped(market: &Market, account: u64, id: u64) -> bool {
    states(market, account, id) == four("stopped", Some("exited"))
}

fn four(contract: &str, container: Option<&str>) -> (String, String, String, Option<String>) {
    let text = contract.to_owned();
    (
        text.clone(),
        text.clone(),
        text,
        container.map(str::to_owned),
    )
}

/// A rival's contract for ten hours; it never raises.
fn rival(market: &mut Market, machine: usize, slice: usize, price: Option<f64>) {
    let kind = match price {
        Some(_) => RivalKind::Plain,
        None => RivalKind::Taker,
    };
    let bid = price.map(|price| Rate::from_dollars(price).unwrap());
    market.join(machine, slice, kind, bid, (Rate::ZERO, 36_000_000));
}

fn offer(market: &Market, account: u64, machine: u64, gpus: u32) -> RawOffer {
    market
        .offers(account, SearchType::Bid, 8.0)
        .into_iter()
        .find(|offer| offer.machine_id == machine && offer.num_gpus == gpus)
        .unwrap()
}

fn happened(market: &Market, what: &Happening) -> bool {
    market.events().iter().any(|event| event.what == *what)
}

fn bill(market: &Market, account: u64, id: u64) -> super::ExactBill {
    market.exact_bill(account)[&id]
}

/// The kinds of an account's notifications, oldest first.
fn told(market: &Market, account: u64) -> Vec<String> {
    let mut rows = market.inbox(account);
    rows.reverse();
    rows.iter()
        .map(|row| row["notif_type"].as_str().unwrap().to_owned())
        .collect()
}

fn credit(market: &Market, account: u64) -> Money {
    Money::from_dollars(market.user(account).credit).unwrap()
}
