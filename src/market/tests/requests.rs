//! What is refused, and with which words.

use super::*;
use crate::market::MarketError;

fn refused(market: &mut Market, account: u64, params: CreateParams) -> MarketError {
    market.create(account, params).unwrap_err()
}

#[test]
fn offers_that_are_not_there() {
    let (mut market, account) = single();
    let unknown = refused(&mut market, account, bid(5, 0.3));
    assert_eq!((unknown.status, unknown.ask_id), (404, Some(5)));
    assert!(unknown.msg.contains("no_such_ask"));
    let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    let twice = refused(&mut market, account, bid(100, 0.4));
    assert_eq!((twice.status, twice.code), (410, "no_such_ask"));
    market.destroy(account, id).unwrap();
    let relisted = refused(&mut market, account, bid(100, 0.4));
    assert_eq!((relisted.status, relisted.code), (410, "no_such_ask"));
    let again = offer(&market, account, 1, 1).id;
    assert_ne!(again, 100, "the id changed when it was returned");
    market.create(account, bid(again, 0.3)).unwrap();
}

#[test]
fn a_bid_under_the_floor_leaves_a_stopped_instance() {
    let (mut market, account) = single();
    let mut params = bid(100, 0.19);
    params.cancel_unavail = Some(true);
    let cancelled = refused(&mut market, account, params.clone());
    assert_eq!((cancelled.status, cancelled.new_contract), (410, None));
    assert!(market.instances(account).is_empty());
    params.cancel_unavail = None;
    let left = refused(&mut market, account, params);
    let id = left.new_contract.unwrap();
    assert!(is_stopped(&market, account, id));
    later(&mut market, 3600);
    let books = bill(&market, account, id);
    assert_eq!(books.gpu, Money::ZERO);
    assert!(books.disk > Money::ZERO);
    assert_eq!(
        market
            .instance(account, id)
            .unwrap()
            .instance
            .gpu_cost_per_hour,
        0.0
    );
}

#[test]
fn prices_out_of_bounds() {
    for price in [0.0, -1.0, 0.0004, 32.1, f64::NAN, f64::INFINITY] {
        let (mut market, account) = single();
        let refusal = refused(&mut market, account, bid(100, price));
        assert_eq!(
            (refusal.status, refusal.code),
            (400, "invalid_price"),
            "{price}"
        );
    }
    let (mut market, account) = single();
    let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    for price in [0.0, 32.1] {
        let refusal = market.set_bid(account, id, Some(price)).unwrap_err();
        assert_eq!(refusal.code, "invalid_price");
    }
    assert_eq!(market.instance(account, id).unwrap().dph_base, 0.3);
}

#[test]
fn arguments_out_of_bounds() {
    type Spoil = Box<dyn Fn(&mut CreateParams)>;
    let long = |length: usize| "x".repeat(length);
    let cases: Vec<Spoil> = vec![
        Box::new(|p| p.disk = Some(7.9)),
        Box::new(|p| p.disk = Some(500.1)),
        Box::new(|p| p.disk = Some(f64::NAN)),
        Box::new(|p| p.image = None),
        Box::new(move |p| p.onstart = Some(long(4097))),
        Box::new(move |p| {
            p.onstart = Some(long(4000));
            p.args = vec![long(97)];
        }),
        Box::new(move |p| p.env = vec![("K".to_owned(), long(256))]),
        Box::new(move |p| p.label = Some(long(257))),
    ];
    for (number, spoil) in cases.iter().enumerate() {
        let (mut market, account) = single();
        let mut params = bid(100, 0.3);
        spoil(&mut params);
        let refusal = refused(&mut market, account, params);
        assert_eq!(
            (refusal.status, refusal.code),
            (400, "invalid_args"),
            "case {number}"
        );
    }
    let (mut market, account) = single();
    let mut params = bid(100, 0.3);
    params.onstart = Some("x".repeat(4096));
    params.label = Some("é".repeat(256));
    params.disk = Some(500.0);
    market.create(account, params).unwrap();
}

#[test]
fn instances_of_others_are_not_there() {
    let (mut market, account) = single();
    let other = market.account_for("at_two");
    assert_ne!(account, other);
    assert_eq!(account, market.account_for("at_one"));
    let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    assert!(market.instance(other, id).is_none());
    assert!(market.instances(other).is_empty());
    assert!(!offer(&market, other, 1, 1).rented);
    assert!(offer(&market, account, 1, 1).rented);
    for refusal in [
        market.destroy(other, id).unwrap_err(),
        market.stop(other, id).unwrap_err(),
        market.start(other, id).unwrap_err(),
        market.set_label(other, id, "x").unwrap_err(),
        market.set_bid(other, id, Some(0.5)).unwrap_err(),
    ] {
        assert_eq!((refusal.status, refusal.code), (404, "no_such_instance"));
    }
    market.destroy(account, id).unwrap();
    assert_eq!(
        market.destroy(account, id).unwrap_err().code,
        "no_such_instance"
    );
}

#[test]
fn a_start_is_queued_while_the_gpu_is_taken() {
    let (mut market, account) = single();
    let id = market.create(account, on_demand(100)).unwrap().new_contract;
    later(&mut market, 1200);
    assert!(is_running(&market, account, id));
    market.stop(account, id).unwrap();
    assert!(is_stopped(&market, account, id));
    rival(&mut market, 0, 0, None);
    let started = market.start(account, id).unwrap();
    assert!(!started.success);
    assert_eq!(
        started.msg.as_deref(),
        Some("Required resources are currently unavailable, state change queued.")
    );
    assert_eq!(states(&market, account, id).1, "running");
    later(&mut market, 36_060);
    assert_eq!(states(&market, account, id).0, "running", "it was queued");
    // Stopping cancels a queue.
    market.stop(account, id).unwrap();
    rival(&mut market, 0, 0, None);
    assert!(!market.start(account, id).unwrap().success);
    market.stop(account, id).unwrap();
    later(&mut market, 36_060);
    assert!(is_stopped(&market, account, id));
}

#[test]
fn labels_change() {
    let (mut market, account) = single();
    let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    market.set_label(account, id, "hg-x/g2.go").unwrap();
    assert_eq!(
        market.instance(account, id).unwrap().label.as_deref(),
        Some("hg-x/g2.go")
    );
    let refusal = market
        .set_label(account, id, &"x".repeat(1025))
        .unwrap_err();
    assert_eq!((refusal.status, refusal.code), (400, "label_too_long"));
}

#[test]
fn a_bid_is_changed_only_on_an_interruptible() {
    let (mut market, account) = single();
    let id = market.create(account, on_demand(100)).unwrap().new_contract;
    let shown = market.instance(account, id).unwrap();
    assert!(!shown.is_bid);
    assert_eq!(shown.dph_base, 0.4);
    assert_eq!(
        market.set_bid(account, id, Some(0.5)).unwrap_err().code,
        "invalid_args"
    );
}

#[test]
fn without_a_price_the_market_picks_a_bid_that_wins() {
    let (mut market, account) = single();
    let id = market.create(account, bid(100, 0.21)).unwrap().new_contract;
    rival(&mut market, 0, 0, Some(0.3));
    market.set_bid(account, id, None).unwrap();
    later(&mut market, 60);
    assert_eq!(states(&market, account, id).0, "running");
    assert_eq!(market.instance(account, id).unwrap().dph_base, 0.301);
}

#[test]
fn recorded_rows_come_back_as_they_were() {
    let mut rows = vec![
        row(100, 1, 1, 4, 0.41, 0.0667),
        row(7, 1, 2, 4, 0.8, 1.1),
        row(9, 3, 1, 1, 0.1, 0.05),
    ];
    rows[2].rentable = false;
    let (market, account) = still(rows);
    let shown = market.offers(account, SearchType::OnDemand, 24.0);
    let seen: Vec<_> = shown
        .iter()
        .map(|offer| (offer.id, offer.dph_base, offer.min_bid, offer.rentable))
        .collect();
    assert_eq!(
        seen,
        [
            (7, 0.8, 1.1, true),
            (9, 0.1, 0.05, false),
            (100, 0.41, 0.0667, true)
        ]
    );
    assert_eq!(shown[2].storage_total_cost, 0.006);
    assert!((shown[2].dph_total - 0.416).abs() < 1e-12);
    assert!(
        shown
            .iter()
            .all(|offer| offer.gpu_ids.len() == offer.num_gpus as usize)
    );
    let asked = market.offers(account, SearchType::Bid, 24.0);
    assert_eq!((asked[2].dph_base, asked[2].is_bid), (0.0667, true));
}

#[test]
fn rows_are_in_the_native_shape() {
    let (mut market, account) = single();
    let mut params = bid(100, 0.3);
    params.env = vec![
        ("A".to_owned(), "1".to_owned()),
        ("-p 8000:8000".to_owned(), "1".to_owned()),
    ];
    let id = market.create(account, params).unwrap().new_contract;
    let provisioning = serde_json::to_value(market.instance(account, id).unwrap()).unwrap();
    assert!(provisioning["actual_status"].is_null());
    assert!(provisioning["ports"].is_null());
    later(&mut market, 1200);
    let shown = serde_json::to_value(market.instance(account, id).unwrap()).unwrap();
    assert_eq!(
        shown["extra_env"],
        serde_json::json!([["A", "1"], ["-p 8000:8000", "1"]])
    );
    assert!(shown["start_date"].is_number());
    assert!(shown["ports"]["22/tcp"][0]["HostPort"].is_string());
    assert!(shown["ports"]["8000/tcp"][0]["HostPort"].is_string());
    assert_eq!(shown["search"]["gpuCostPerHour"], 0.3);
    assert_eq!(shown["instance"]["totalHour"], 0.305);
    let offer = serde_json::to_value(offer(&market, account, 1, 1)).unwrap();
    for field in RawOffer::FIELDS {
        assert!(offer.get(field).is_some(), "{field}");
    }
    assert_eq!(offer["search"]["totalHour"], offer["dph_total"]);
}

#[test]
fn fields_are_read_by_name() {
    use crate::market::Field;
    let row = row(100, 1, 2, 4, 0.4, 0.2);
    assert_eq!(row.field("num_gpus"), Some(Field::Number(2.0)));
    assert_eq!(row.field("gpu_name"), Some(Field::Text("RTX 4090")));
    assert_eq!(row.field("rentable"), Some(Field::Flag(true)));
    assert_eq!(row.field("cluster_id"), Some(Field::Null));
    assert_eq!(row.field("colour"), None);
}
