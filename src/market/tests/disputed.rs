//! Each disputed fact, the other way round.

use super::*;
use crate::market::disputed::{BalanceMeans, BilledFrom, Ties};

#[test]
fn a_tie_may_be_the_challengers() {
    let (mut market, account) = single_where(|facts| facts.ties = Ties::Challenger);
    let id = market.create(account, bid(100, 0.25)).unwrap().new_contract;
    rival(&mut market, 0, 0, Some(0.25));
    assert!(is_stopped(&market, account, id));
    // It stays with who came last, auction after auction.
    market.settle(0);
    later(&mut market, 300);
    assert!(is_stopped(&market, account, id));
    assert_eq!(offer(&market, account, 1, 1).min_bid, 0.25);
    // Bidding the same again is coming last.
    market.set_bid(account, id, Some(0.25)).unwrap();
    later(&mut market, 60);
    assert_eq!(states(&market, account, id).0, "running");
}

#[test]
fn provisioning_may_be_billed() {
    let (mut market, account) = single_where(|facts| facts.billed_from = BilledFrom::Granted);
    let id = market.create(account, bid(100, 0.36)).unwrap().new_contract;
    later(&mut market, 10);
    assert!(!is_running(&market, account, id));
    assert_eq!(bill(&market, account, id).gpu, Money(1_000_000));
}

#[test]
fn pulls_may_be_free() {
    let (mut market, account) = single_where(|facts| facts.pulls_billed = false);
    let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    while !is_running(&market, account, id) {
        assert_eq!(bill(&market, account, id).traffic, Money::ZERO);
        later(&mut market, 1);
    }
    later(&mut market, 60);
    assert!(bill(&market, account, id).traffic > Money::ZERO);
}

#[test]
fn what_ended_by_itself_may_be_free() {
    let (mut market, account) = single_where(|facts| facts.ended_billed = false);
    let mut params = bid(100, 0.36);
    params.env = vec![("HAGGLE_MARKET_RUN_FOR".to_owned(), "600".to_owned())];
    let id = market.create(account, params).unwrap().new_contract;
    later(&mut market, 7200);
    assert_eq!(
        states(&market, account, id),
        four("running", Some("exited"))
    );
    assert_eq!(bill(&market, account, id).gpu, Money(60_000_000));
}

#[test]
fn a_stopped_disk_may_cost_more() {
    let (mut market, account) = single_where(|facts| facts.stopped_storage_percent = 200);
    let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    later(&mut market, 1200);
    let running = market.instance(account, id).unwrap();
    assert_eq!(running.storage_total_cost, 0.005);
    market.stop(account, id).unwrap();
    let stopped = market.instance(account, id).unwrap();
    assert_eq!(stopped.storage_total_cost, 0.01);
    assert_eq!(stopped.instance.total_hour, 0.01);
    assert_eq!(
        stopped.dph_total, running.dph_total,
        "the price when it runs"
    );
    let then = bill(&market, account, id).disk;
    later(&mut market, 3600);
    assert_eq!(bill(&market, account, id).disk - then, Money(10_000_000));
}

#[test]
fn charges_may_come_late_and_are_the_same_then() {
    let run = |hours| {
        let (mut market, account) = single_where(|facts| facts.charges_late_hours = hours);
        let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
        later(&mut market, 5 * 3600);
        market.set_bid(account, id, Some(0.4)).unwrap();
        later(&mut market, 5 * 3600);
        let now = market.charges(account, still_options().start, market.now());
        market.destroy(account, id).unwrap();
        later(&mut market, 30 * 3600);
        let then = market.charges(account, still_options().start, market.now());
        (now, then)
    };
    let (prompt, settled) = run(0);
    let (late, late_settled) = run(4);
    assert!(run(26).0.is_empty());
    assert!(late[0].amount < prompt[0].amount && late[0].amount > 0.0);
    assert_eq!(late[0].end, prompt[0].end - 4.0 * 3600.0);
    // Four hours ago it cost 0.4 for the last hour and 0.3 for the five before.
    let gpu = |row: &crate::market::RawCharge| row.items[0].amount;
    assert!((prompt[0].amount - gpu(&prompt[0])) < 0.2);
    assert!((gpu(&prompt[0]) - gpu(&late[0]) - 1.6).abs() < 0.002);
    assert_eq!(settled, late_settled);
    assert_eq!(settled, run(26).1);
}

#[test]
fn a_charge_may_be_the_sum_of_its_rounded_items() {
    let (mut market, account) = single_where(|facts| facts.charges_by_component = true);
    market.create(account, bid(100, 0.3333)).unwrap();
    for _ in 0..50 {
        later(&mut market, 333);
        for row in market.charges(account, still_options().start, market.now()) {
            let items: f64 = row.items.iter().map(|item| item.amount).sum();
            assert!((row.amount - items).abs() < 1e-9);
        }
    }
}

#[test]
fn labels_may_be_cut_in_silence() {
    let (mut market, account) = single_where(|facts| facts.label_kept = Some(3));
    let mut params = bid(100, 0.3);
    params.label = Some("äbcdef".to_owned());
    let id = market.create(account, params).unwrap().new_contract;
    let label = |market: &Market| market.instance(account, id).unwrap().label.unwrap();
    assert_eq!(&*label(&market), "äbc");
    market.set_label(account, id, "xyz/g2.go").unwrap();
    assert_eq!(&*label(&market), "xyz");
}

#[test]
fn a_destroyed_instance_may_show_in_so_many_listings_more() {
    for by_id in [false, true] {
        let (mut market, account) = single_where(|facts| {
            facts.ghosts = 2;
            facts.ghosts_by_id = by_id;
        });
        let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
        later(&mut market, 1200);
        let ids = |market: &mut Market, begins| -> Vec<u64> {
            let rows = market.listing(account, begins);
            rows.iter().map(|row| row.id).collect()
        };
        assert_eq!(ids(&mut market, true), [id]);
        let before = market.instance(account, id).unwrap();
        market.destroy(account, id).unwrap();
        assert!(
            market.instances(account).is_empty(),
            "the truth is without it"
        );
        for _ in 0..2 {
            assert_eq!(market.reading(account, id).is_some(), by_id);
            assert_eq!(market.listing(account, true), std::slice::from_ref(&before));
            // A further page is no further listing.
            assert_eq!(ids(&mut market, false), [id]);
        }
        assert_eq!(ids(&mut market, true), [0; 0]);
        assert_eq!(market.reading(account, id), None);
        let refusal = market.destroy(account, id).unwrap_err();
        assert_eq!(refusal.code, "no_such_instance");
    }
}

#[test]
fn a_new_instance_may_not_be_shown_at_first() {
    let (mut market, account) = single_where(|facts| facts.shown_after_seconds = 90);
    let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    later(&mut market, 89);
    assert!(market.listing(account, true).is_empty());
    assert!(market.reading(account, id).is_none());
    assert_eq!(market.instances(account).len(), 1);
    later(&mut market, 1);
    assert_eq!(market.listing(account, true).len(), 1);
    assert!(market.reading(account, id).is_some());
}

#[test]
fn a_queued_start_may_never_fire() {
    let (mut market, account) = single_where(|facts| {
        facts.queued_fires = false;
        facts.queued_intends_running = false;
    });
    let id = market.create(account, on_demand(100)).unwrap().new_contract;
    later(&mut market, 1200);
    market.stop(account, id).unwrap();
    rival(&mut market, 0, 0, None);
    let started = market.start(account, id).unwrap();
    assert!(!started.success);
    assert!(started.msg.unwrap().contains("queued"));
    assert!(
        is_stopped(&market, account, id),
        "it does not intend to run"
    );
    later(&mut market, 40_000);
    assert!(is_stopped(&market, account, id));
    assert!(market.start(account, id).unwrap().success);
}

#[test]
fn an_outbid_instance_waits_on_whatever_happens_to_queued_starts() {
    let (mut market, account) = single_where(|facts| facts.queued_fires = false);
    let id = market.create(account, bid(100, 0.25)).unwrap().new_contract;
    rival(&mut market, 0, 0, Some(0.3));
    assert!(!market.start(account, id).unwrap().success);
    later(&mut market, 40_000);
    assert!(is_running(&market, account, id));
}

#[test]
fn a_raise_may_start_what_its_owner_stopped() {
    for starts in [false, true] {
        let (mut market, account) = single_where(|facts| facts.bid_starts_stopped = starts);
        let id = market.create(account, bid(100, 0.25)).unwrap().new_contract;
        market.stop(account, id).unwrap();
        market.set_bid(account, id, Some(0.21)).unwrap();
        later(&mut market, 60);
        assert_eq!(states(&market, account, id).0, "stopped", "a cut does not");
        market.set_bid(account, id, Some(0.3)).unwrap();
        later(&mut market, 60);
        assert_eq!(states(&market, account, id).0 == "running", starts);
    }
}

#[test]
fn words_for_what_does_not_run_may_be_others() {
    let (mut market, account) = single_where(|facts| {
        facts.reads_stopped = true;
        facts.outbid_intends_running = true;
        facts.lost_reads_unknown = true;
    });
    let id = market.create(account, bid(100, 0.25)).unwrap().new_contract;
    later(&mut market, 1200);
    market.host_leaves(0);
    assert_eq!(
        states(&market, account, id),
        four("running", Some("unknown"))
    );
    market.host_returns(0);
    rival(&mut market, 0, 0, Some(0.3));
    let text = |text: &str| text.to_owned();
    assert_eq!(
        states(&market, account, id),
        (
            text("stopped"),
            text("running"),
            text("stopped"),
            Some(text("stopped"))
        )
    );
    market.stop(account, id).unwrap();
    assert_eq!(
        states(&market, account, id),
        four("stopped", Some("stopped"))
    );
}

#[test]
fn the_start_may_be_that_of_the_last_run() {
    let start = |moves| {
        let (mut market, account) = single_where(|facts| facts.start_moves = moves);
        let id = market.create(account, bid(100, 0.25)).unwrap().new_contract;
        let first = market.instance(account, id).unwrap().start_date;
        later(&mut market, 1200);
        market.stop(account, id).unwrap();
        later(&mut market, 600);
        market.start(account, id).unwrap();
        market.instance(account, id).unwrap().start_date - first
    };
    assert_eq!(start(false), 0.0);
    assert_eq!(start(true), 1800.0);
}

#[test]
fn the_balance_may_mean_what_is_owed_or_be_left_out() {
    let balance = |means, amount| {
        let (mut market, account) = single_where(|facts| facts.balance = means);
        market.deposit(account, amount);
        serde_json::to_value(market.user(account)).unwrap()
    };
    let some = Money::dollars(1);
    let debt = Money::dollars(-150);
    assert_eq!(balance(BalanceMeans::Credit, some)["balance"], 101.0);
    assert_eq!(balance(BalanceMeans::Owed, some)["balance"], 0.0);
    assert_eq!(balance(BalanceMeans::Owed, debt)["balance"], 50.0);
    assert_eq!(balance(BalanceMeans::Owed, debt)["credit"], -50.0);
    let absent = balance(BalanceMeans::Absent, some);
    assert!(absent.get("balance").is_none());
    assert_eq!(absent["credit"], 101.0);
}

#[test]
fn an_echo_may_take_minutes() {
    let (mut market, account) = single_where(|facts| facts.slow_echo = true);
    market.create(account, bid(100, 0.3)).unwrap();
    later(&mut market, 74);
    assert_eq!(offer(&market, account, 1, 1).min_bid, 0.2);
    later(&mut market, 402);
    assert_eq!(offer(&market, account, 1, 1).min_bid, 0.3);
}

#[test]
fn bids_may_take_minutes_to_be_acted_on() {
    let waits = |late: bool, from: f64, to: f64, state: &str| {
        let (mut market, account) = single_where(|facts| {
            facts.resumes_late = late;
            facts.parks_late = late;
        });
        let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
        market.set_bid(account, id, Some(from)).unwrap();
        later(&mut market, 600);
        market.set_bid(account, id, Some(to)).unwrap();
        let mut seconds = 0;
        while states(&market, account, id).0 != state {
            later(&mut market, 1);
            seconds += 1;
            assert!(seconds <= 300);
        }
        seconds
    };
    let resumed = waits(false, 0.001, 0.3, "running");
    assert!(resumed <= 50);
    let late = waits(true, 0.001, 0.3, "running");
    assert!((resumed * 6 - 6..=resumed * 6).contains(&late));
    let parked = waits(false, 0.3, 0.001, "stopped");
    assert!(parked <= 50);
    let late = waits(true, 0.3, 0.001, "stopped");
    assert!((parked * 3 - 3..=parked * 3).contains(&late));
}

#[test]
fn what_ended_may_be_deleted_two_days_later() {
    for hours in [None, Some(48)] {
        let mut listed = row(100, 1, 1, 1, 0.4, 0.2);
        listed.end_date = still_options().start.epoch_seconds() + 7200.0;
        let mut options = still_options();
        options.disputed.ended_deleted_hours = hours;
        let mut market = Market::from_rows(options, vec![listed]);
        let account = market.account_for("at_one");
        let id = market.create(account, on_demand(100)).unwrap().new_contract;
        later(&mut market, 50 * 3600 - 1);
        assert_eq!(market.instances(account).len(), 1);
        later(&mut market, 1);
        assert_eq!(market.instances(account).is_empty(), hours.is_some());
        assert_eq!(
            happened(&market, &Happening::Deleted { instance: id }),
            hours.is_some()
        );
    }
}
