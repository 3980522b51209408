//! What accounts are notified of, and how reliably.

use super::*;
use crate::market::disputed::Notices;

#[test]
fn a_life_is_told_in_order() {
    let (mut market, account) = single();
    let id = market.create(account, bid(100, 0.25)).unwrap().new_contract;
    later(&mut market, 1200);
    rival(&mut market, 0, 0, Some(0.3));
    later(&mut market, 40_000);
    market.stop(account, id).unwrap();
    market.destroy(account, id).unwrap();
    assert_eq!(
        told(&market, account),
        [
            "instance_created",
            "instance_started",
            "outbid",
            "instance_resumed",
            "instance_started",
            "instance_stopped",
            "instance_deleted",
        ]
    );
    let inbox = market.inbox(account);
    let outbid = inbox
        .iter()
        .find(|row| row["notif_type"] == "outbid")
        .unwrap();
    assert_eq!(
        outbid["associated_id"],
        serde_json::json!({
            "instance_id": id, "machine_id": 1, "your_bid": 0.25, "new_min_bid": 0.3,
        })
    );
    let other = market.account_for("at_two");
    assert!(market.inbox(other).is_empty());
}

#[test]
fn an_end_is_told_a_day_and_two_hours_before_unless_it_was_moved() {
    let mut listed = row(100, 1, 1, 1, 0.4, 0.2);
    listed.end_date = still_options().start.epoch_seconds() + 30.0 * 3600.0;
    let (mut market, account) = still(vec![listed]);
    let id = market.create(account, on_demand(100)).unwrap().new_contract;
    let expiring = |market: &Market| {
        let kinds = told(market, account);
        kinds.iter().filter(|k| *k == "instance_expiring").count()
    };
    later(&mut market, 6 * 3600 - 1);
    assert_eq!(expiring(&market), 0);
    later(&mut market, 1);
    assert_eq!(expiring(&market), 1);
    let end = Time(market.now().0 + 60 * 3_600_000);
    market.extend(id, end);
    later(&mut market, 36 * 3600 - 1);
    assert_eq!(expiring(&market), 1, "the end that was near is off");
    later(&mut market, 1);
    assert_eq!(expiring(&market), 2);
    later(&mut market, 22 * 3600);
    assert_eq!(expiring(&market), 3);
}

/// How many of many notifications came after so many seconds.
fn came(notices: Notices) -> [usize; 2] {
    let mut options = still_options();
    options.disputed.notices = notices;
    let rows = (0..60).map(|n| row(100 + n, n, 1, 1, 0.4, 0.2)).collect();
    let mut market = Market::from_rows(options, rows);
    let account = market.account_for("at_one");
    for n in 0..60 {
        let mut params = bid(100 + n, 0.1);
        params.disk = None;
        // Under the floor, so that they are made and nothing more.
        market.create(account, params).unwrap_err();
    }
    let count = |market: &Market| market.accounts[&account].records.inbox.len();
    let at_once = count(&market);
    later(&mut market, 400);
    [at_once, count(&market)]
}

#[test]
fn notifications_come_at_once_late_or_never() {
    assert_eq!(came(Notices::Prompt), [60, 60]);
    let [at_once, all] = came(Notices::Late);
    assert!((10..50).contains(&at_once), "{at_once}");
    assert_eq!(all, 60);
    let [at_once, some] = came(Notices::Lossy);
    assert_eq!(at_once, 0);
    assert!((25..58).contains(&some), "{some}");
}

#[test]
fn low_credit_is_told_once_and_again_after_a_payment() {
    let options = MarketOptions {
        balance: Money::from_dollars(1.2).unwrap(),
        ..still_options()
    };
    let (mut market, account) = single_with(options);
    market.create(account, bid(100, 0.3)).unwrap();
    let low = |market: &Market| {
        let kinds = told(market, account);
        kinds.iter().filter(|kind| *kind == "low_credit").count()
    };
    later(&mut market, 2 * 3600);
    assert_eq!(low(&market), 1);
    market.deposit(account, Money::dollars(1));
    later(&mut market, 3 * 3600);
    assert_eq!(low(&market), 2);
}
