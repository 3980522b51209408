//! Money: what is billed, to whom, and how it is shown.

use super::*;

#[test]
fn each_component_is_billed_to_the_millisecond() {
    let (mut market, account) = single();
    let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    later(&mut market, 1200);
    let then = bill(&market, account, id);
    let to = Time(market.now().0 + 3_600_001);
    market.advance_to(to);
    let now = bill(&market, account, id);
    let gpu = Rate::from_dollars(0.3).unwrap().cost_ms(3_600_001);
    assert!((now.gpu.0 - then.gpu.0 - gpu.0).abs() <= 1);
    // 20 GB at 0.18 a month is 0.005 an hour.
    let disk = Rate::from_dollars(0.005).unwrap().cost_ms(3_600_001);
    assert!((now.disk.0 - then.disk.0 - disk.0).abs() <= 1);
    assert!(now.traffic > then.traffic);
}

#[test]
fn the_bid_is_what_is_paid_from_the_moment_it_changes() {
    let (mut market, account) = single();
    let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    later(&mut market, 1200);
    let then = bill(&market, account, id).gpu;
    market.set_bid(account, id, Some(0.6)).unwrap();
    later(&mut market, 3600);
    let spent = bill(&market, account, id).gpu - then;
    assert!((spent.0 - 600_000_000).abs() <= 1);
}

#[test]
fn charges_are_rounded_rows_of_instance_and_day() {
    let (mut market, account) = single();
    let mut params = bid(100, 0.3);
    params.label = Some("hg-x".to_owned());
    let id = market.create(account, params).unwrap().new_contract;
    later(&mut market, 36 * 3600);
    market.destroy(account, id).unwrap();
    later(&mut market, 36 * 3600);
    let start = still_options().start;
    let rows = market.charges(account, start, market.now());
    assert_eq!(rows.len(), 2);
    let first = serde_json::to_value(&rows[0]).unwrap();
    assert_eq!(first["type"], "instance");
    assert_eq!(first["source"], format!("instance-{id}"));
    assert_eq!(first["metadata"]["label"], "hg-x");
    assert_eq!(rows[1].end - rows[1].start, 12.0 * 3600.0);
    assert_eq!(rows[1].items[0].description, "12.000 hours at $0.300/hour");
    assert_eq!(rows[1].items[0].amount, 3.6);
    for row in &rows {
        assert!((row.amount * 1000.0 - (row.amount * 1000.0).round()).abs() < 1e-9);
    }
    let total: f64 = rows.iter().map(|row| row.amount).sum();
    assert!((total - bill(&market, account, id).total().as_dollars()).abs() <= 0.001);
    // The second day alone, whole.
    let second = market.charges(account, Time(start.0 + 30 * 3_600_000), market.now());
    assert_eq!(second, rows[1..]);
    assert!(
        market
            .charges(account, market.now(), market.now())
            .is_empty()
    );
}

#[test]
fn used_up_credit_stops_everything_and_storage_goes_on() {
    let options = MarketOptions {
        balance: Money::dollars(1),
        ..still_options()
    };
    let rows = vec![
        row(100, 1, 1, 1, 0.4, 0.2),
        row(101, 2, 1, 1, 0.4, 0.2),
        row(102, 3, 1, 1, 0.4, 0.2),
    ];
    let mut market = Market::from_rows(options, rows);
    let account = market.account_for("at_one");
    let other = market.account_for("at_two");
    let mut params = bid(100, 0.3);
    params.disk = Some(100.0);
    let interruptible = market.create(account, params).unwrap().new_contract;
    let fixed = market.create(account, on_demand(101)).unwrap().new_contract;
    later(&mut market, 2 * 3600);
    assert!(is_stopped(&market, account, interruptible));
    assert!(is_stopped(&market, account, fixed));
    assert!(happened(&market, &Happening::CreditExhausted { account }));
    let then = credit(&market, account);
    assert!(then <= Money::ZERO && then.as_dollars() > -0.1);
    later(&mut market, 24 * 3600);
    assert!(credit(&market, account) < then);
    let refusal = market.create(account, bid(102, 0.3)).unwrap_err();
    assert_eq!((refusal.status, refusal.code), (400, "insufficient_credit"));
    assert_eq!(
        market.start(account, fixed).unwrap_err().code,
        "insufficient_credit"
    );
    market.create(other, bid(102, 0.3)).unwrap();
}
