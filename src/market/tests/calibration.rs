//! A generated market looks like the observed one.

use std::collections::BTreeMap;

use super::*;

fn usual(seed: u64) -> Market {
    Market::generated(MarketOptions {
        seed,
        ..MarketOptions::default()
    })
}

fn listed(market: &Market) -> Vec<RawOffer> {
    let mut rows = market.offers(1, SearchType::OnDemand, 8.0);
    rows.retain(|row| row.rentable && &*row.verification == "verified");
    rows
}

fn share(rows: &[RawOffer], is: impl Fn(&RawOffer) -> bool) -> f64 {
    rows.iter().filter(|row| is(row)).count() as f64 / rows.len() as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn assert_within(what: &str, value: f64, low: f64, high: f64) {
    assert!(
        (low..=high).contains(&value),
        "{what}: {value} is not in {low}..{high}"
    );
}

#[test]
fn offers_have_the_observed_mix() {
    let rows: Vec<RawOffer> = (0..6).flat_map(|seed| listed(&usual(seed))).collect();
    assert_within("offers of a market", rows.len() as f64 / 6.0, 650.0, 1100.0);
    for (gpus, expected) in [(1, 0.49), (2, 0.30), (4, 0.14), (8, 0.05)] {
        let is = share(&rows, |row| row.num_gpus == gpus);
        assert_within(&format!("{gpus} GPUs"), is, expected * 0.7, expected * 1.35);
    }
    let above = share(&rows, |row| row.min_bid > row.dph_base);
    assert_within("floors over on-demand", above, 0.04, 0.10);
    let half = share(&rows, |row| row.min_bid <= row.dph_base * 0.5);
    assert_within("floors of half", half, 0.05, 0.15);
    assert_within(
        "datacenters",
        share(&rows, |row| row.hosting_type == 1),
        0.05,
        0.13,
    );
    let us = share(&rows, |row| row.country_code.as_deref() == Some("US"));
    assert_within("US", us, 0.28, 0.40);
    assert_within(
        "reliability",
        median(rows.iter().map(|r| r.reliability).collect()),
        0.99,
        0.998,
    );
    assert_within(
        "download",
        median(rows.iter().map(|r| r.inet_down).collect()),
        700.0,
        1100.0,
    );
}

#[test]
fn prices_follow_the_models() {
    let mut prices: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut floors: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for row in (0..10).flat_map(|seed| listed(&usual(seed))) {
        let name = row.gpu_name.to_string();
        prices
            .entry(name.clone())
            .or_default()
            .push(row.dph_base / f64::from(row.num_gpus));
        floors
            .entry(name)
            .or_default()
            .push(row.min_bid / row.dph_base);
    }
    for (name, price, floor) in [
        ("RTX 4090", 0.364, 0.86),
        ("RTX 5090", 0.441, 0.87),
        ("RTX 3060", 0.064, 0.88),
    ] {
        assert_within(
            name,
            median(prices[name].clone()),
            price * 0.85,
            price * 1.15,
        );
        assert_within(
            name,
            median(floors[name].clone()),
            floor * 0.85,
            floor * 1.15,
        );
    }
}

/// Shares of slots, listed both times, whose floor, on-demand price and id changed over a span.
fn changes(market: &mut Market, seconds: i64) -> [f64; 3] {
    let by_slot = |market: &Market| -> BTreeMap<Vec<u32>, RawOffer> {
        listed(market)
            .into_iter()
            .map(|row| (row.gpu_ids.clone(), row))
            .collect()
    };
    let before = by_slot(market);
    later(market, seconds);
    let after = by_slot(market);
    let pairs: Vec<_> = before
        .iter()
        .filter_map(|(slot, row)| Some((row, after.get(slot)?)))
        .collect();
    let of = |changed: fn(&RawOffer, &RawOffer) -> bool| {
        pairs.iter().filter(|(a, b)| changed(a, b)).count() as f64 / pairs.len() as f64
    };
    [
        of(|a, b| a.min_bid != b.min_bid),
        of(|a, b| a.dph_base != b.dph_base),
        of(|a, b| a.id != b.id),
    ]
}

#[test]
fn floors_prices_and_ids_change_as_often_as_observed() {
    let mut market = usual(3);
    later(&mut market, 86_400);
    let mut short = [0.0; 3];
    for _ in 0..40 {
        for (sum, share) in short.iter_mut().zip(changes(&mut market, 1500)) {
            *sum += share / 40.0;
        }
    }
    let mut long = [0.0; 3];
    for _ in 0..4 {
        for (sum, share) in long.iter_mut().zip(changes(&mut market, 86_400)) {
            *sum += share / 4.0;
        }
    }
    assert_within("floors in 25 minutes", short[0], 0.025, 0.055);
    assert_within("on-demand prices in 25 minutes", short[1], 0.012, 0.03);
    assert_within("floors in a day", long[0], 0.15, 0.40);
    assert_within("on-demand prices in a day", long[1], 0.10, 0.28);
    assert_within("ids in a day", long[2], 0.58, 0.82);
    let above = share(&listed(&market), |row| row.min_bid > row.dph_base);
    assert_within("floors over on-demand, days on", above, 0.02, 0.13);
}

#[test]
fn bids_at_the_floor_are_outbid_and_resume_as_often_as_is_worth_managing() {
    let (mut outbid, mut resumed, mut taken, mut hours) = (0, 0, 0, 0.0);
    for seed in 0..8 {
        let mut market = usual(seed);
        let account = market.account_for("at_one");
        let cheap: Vec<RawOffer> = listed(&market).into_iter().step_by(30).collect();
        for offer in &cheap {
            let mut params = bid(offer.id, offer.min_bid * 1.02);
            params.disk = None;
            let created = market.create(account, params);
            hours += if created.is_ok() { 6.0 } else { 0.0 };
        }
        later(&mut market, 6 * 3600);
        for event in market.events() {
            outbid += i32::from(matches!(event.what, Happening::Outbid { .. }));
            resumed += i32::from(matches!(event.what, Happening::Resumed { .. }));
            taken += i32::from(matches!(event.what, Happening::OnDemandTook { .. }));
        }
    }
    let per_hour = |count: i32| f64::from(count) / hours;
    assert_within("outbid an hour", per_hour(outbid), 0.04, 0.3);
    assert_within("resumed an hour", per_hour(resumed), 0.01, 0.3);
    assert_within("taken on demand an hour", per_hour(taken), 0.005, 0.1);
}

/// The rows of one machine's offers were seen to show RAM in proportion to their GPUs.
#[test]
fn an_offer_shows_its_own_share_of_the_ram() {
    let rows = usual(1).offers(1, SearchType::OnDemand, 8.0);
    let mut machines: BTreeMap<u64, Vec<&RawOffer>> = BTreeMap::new();
    for row in &rows {
        machines.entry(row.machine_id).or_default().push(row);
    }
    let per_gpu = |row: &RawOffer| row.cpu_ram / row.num_gpus;
    let mut compared = 0;
    for slices in machines.values() {
        for pair in slices.windows(2) {
            assert!(
                per_gpu(pair[0]).abs_diff(per_gpu(pair[1])) <= 1,
                "{pair:#?}"
            );
            compared += u32::from(pair[0].num_gpus != pair[1].num_gpus);
        }
    }
    assert!(compared > 50, "{compared}");
}
