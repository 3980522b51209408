//! An instance's life: provisioning, containers that end, hosts that go, rentals that end.

use super::*;
use crate::market::{RUN_FOR, SELF_DESTROY};

fn with_env(mut params: CreateParams, key: &str, value: &str) -> CreateParams {
    params.env.push((key.to_owned(), value.to_owned()));
    params
}

#[test]
fn provisioning_goes_through_its_states_unbilled() {
    let (mut market, account) = single();
    let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    let mut seen = vec![states(&market, account, id).3];
    while !is_running(&market, account, id) {
        later(&mut market, 1);
        let now = states(&market, account, id).3;
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        if !is_running(&market, account, id) {
            assert_eq!(bill(&market, account, id).gpu, Money::ZERO);
        }
        assert!(
            market.now().0 - still_options().start.0 < 3_600_000,
            "{seen:?}"
        );
    }
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        seen,
        [None, text("created"), text("loading"), text("running")]
    );
    let shown = market.instance(account, id).unwrap();
    assert_eq!(
        shown.status_msg.as_deref(),
        Some("success, running pytorch/pytorch:2.9")
    );
    assert!(
        bill(&market, account, id).traffic > Money::ZERO,
        "the pull is paid"
    );
}

#[test]
fn a_pull_shows_layer_after_layer_however_slow_it_is() {
    for speed in [1.0, 100.0] {
        let mut slow = row(100, 1, 1, 1, 0.4, 0.2);
        slow.inet_down = speed;
        let mut market = Market::from_rows(still_options(), vec![slow]);
        let account = market.account_for("at_one");
        let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
        let words = |market: &Market| market.instance(account, id).unwrap().status_msg;
        let (mut last, mut stands, mut longest, mut shown) = (None, 0, 0, 0);
        while !is_running(&market, account, id) {
            let now = words(&market);
            stands = if now == last { stands + 10 } else { 0 };
            shown += u32::from(now != last);
            longest = longest.max(stands);
            last = now;
            later(&mut market, 10);
            assert!(market.now().0 - still_options().start.0 < 3 * 3_600_000);
        }
        assert!(longest <= 5 * 60, "{speed}: {longest} s");
        assert!(shown >= 20, "{speed}: {shown}");
        assert!(words(&market).unwrap().starts_with("success"));
    }
}

#[test]
fn a_registry_refuses_what_its_name_says_on_any_host() {
    let tried = |image: &str, login: Option<&str>| {
        let (mut market, account) = single();
        let params = CreateParams {
            image: Some(image.to_owned()),
            image_login: login.map(str::to_owned),
            ..bid(100, 0.3)
        };
        let id = market.create(account, params).unwrap().new_contract;
        later(&mut market, 60);
        let soon = market.instance(account, id).unwrap().status_msg;
        later(&mut market, 3600);
        let shown = market.instance(account, id).unwrap();
        let words = shown.status_msg.unwrap().to_string();
        if words.starts_with("Error") {
            assert_eq!(soon.as_deref(), Some(words.as_str()), "refused at once");
        }
        (states(&market, account, id).3, words)
    };
    let login = Some("-u me -p word private.invalid");
    for (image, login, mark) in [
        ("missing.invalid/a:1", None, "manifest unknown"),
        ("missing.invalid/a:1", login, "manifest unknown"),
        ("private.invalid/a:1", None, "unauthorized"),
        ("quota.invalid/a:1", None, "toomanyrequests: "),
    ] {
        let (status, words) = tried(image, login);
        assert_eq!(status.as_deref(), Some("loading"), "{image}");
        assert!(words.starts_with("Error response from daemon: ") && words.contains(mark));
    }
    let (status, words) = tried("private.invalid/a:1", login);
    assert_eq!(status.as_deref(), Some("running"));
    assert!(words.starts_with("success"));
}

#[test]
fn a_cached_image_comes_up_in_half_a_minute() {
    let (mut market, account) = single();
    let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    later(&mut market, 1200);
    market.destroy(account, id).unwrap();
    let again = offer(&market, account, 1, 1).id;
    let id = market
        .create(account, bid(again, 0.3))
        .unwrap()
        .new_contract;
    later(&mut market, 46);
    assert!(is_running(&market, account, id));
}

#[test]
fn a_container_ends_by_itself_and_is_billed_on() {
    let (mut market, account) = single();
    let params = with_env(bid(100, 0.36), RUN_FOR, "600");
    let id = market.create(account, params).unwrap().new_contract;
    later(&mut market, 7200);
    assert_eq!(
        states(&market, account, id),
        four("running", Some("exited"))
    );
    assert!(happened(&market, &Happening::Ended { instance: id }));
    assert_eq!(market.instance(account, id).unwrap().client_run_time, 600.0);
    let then = bill(&market, account, id).gpu;
    later(&mut market, 100);
    assert_eq!(bill(&market, account, id).gpu - then, Money(10_000_000));
}

#[test]
fn running_counts_over_interruptions() {
    let (mut market, account) = single();
    let params = with_env(bid(100, 0.3), RUN_FOR, "10000");
    let id = market.create(account, params).unwrap().new_contract;
    later(&mut market, 5000);
    rival(&mut market, 0, 0, Some(0.35));
    let ran = market.instance(account, id).unwrap().client_run_time;
    assert!(ran > 4000.0 && ran < 5000.0);
    later(&mut market, 36_000 + 90);
    assert!(is_running(&market, account, id));
    later(&mut market, 10_000 - ran as i64 - 100);
    assert!(is_running(&market, account, id));
    later(&mut market, 200);
    assert_eq!(
        states(&market, account, id),
        four("running", Some("exited"))
    );
}

#[test]
fn an_instance_destroys_itself() {
    let (mut market, account) = single();
    let params = with_env(bid(100, 0.3), SELF_DESTROY, "300");
    let id = market.create(account, params).unwrap().new_contract;
    later(&mut market, 7200);
    assert!(market.instance(account, id).is_none());
    assert!(happened(&market, &Happening::Destroyed { instance: id }));
    let books = bill(&market, account, id);
    assert_eq!(books.gpu, Rate::from_dollars(0.3).unwrap().cost_ms(300_000));
    later(&mut market, 7200);
    assert_eq!(bill(&market, account, id), books, "closed books stay");
}

#[test]
fn nonsense_in_the_markets_own_variables_is_passed_over() {
    for value in ["", "-5", "soon", "1e400"] {
        let (mut market, account) = single();
        let params = with_env(bid(100, 0.3), RUN_FOR, value);
        let id = market.create(account, params).unwrap().new_contract;
        later(&mut market, 7200);
        assert!(is_running(&market, account, id), "{value}");
    }
}

#[test]
fn provisioning_fails_in_two_ways() {
    let options = MarketOptions {
        failures: 1000.0,
        ..still_options()
    };
    let rows = (0..20).map(|n| row(100 + n, n, 1, 1, 0.4, 0.2)).collect();
    let mut market = Market::from_rows(options, rows);
    let account = market.account_for("at_one");
    let ids: Vec<u64> = (0..20)
        .map(|n| {
            market
                .create(account, bid(100 + n, 0.3))
                .unwrap()
                .new_contract
        })
        .collect();
    later(&mut market, 3600);
    let (mut stuck, mut crashed) = (0, 0);
    for id in ids {
        match states(&market, account, id).3.as_deref() {
            Some("loading") => {
                stuck += 1;
                assert_eq!(bill(&market, account, id).gpu, Money::ZERO);
            }
            Some("exited") => crashed += 1,
            other => panic!("{other:?}"),
        }
        let shown = market.instance(account, id).unwrap();
        assert!(shown.status_msg.unwrap().starts_with("Error"));
        assert_eq!(&*shown.cur_state, "running");
    }
    assert!(stuck > 0 && crashed > 0, "{stuck} {crashed}");
}

#[test]
fn a_lost_host_bills_nothing_and_comes_back_with_other_ids() {
    let (mut market, account) = single();
    let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    later(&mut market, 1200);
    market.host_leaves(0);
    assert_eq!(
        states(&market, account, id),
        four("running", Some("offline"))
    );
    assert!(market.offers(account, SearchType::Bid, 8.0).is_empty());
    let then = bill(&market, account, id);
    later(&mut market, 60);
    assert_eq!(bill(&market, account, id), then);
    assert_eq!(
        market.create(account, bid(100, 0.3)).unwrap_err().status,
        410
    );
    market.host_returns(0);
    later(&mut market, 30);
    assert!(is_running(&market, account, id));
    assert_ne!(offer(&market, account, 1, 1).id, 100);
}

#[test]
fn a_rental_ends_with_the_offer_it_began_with() {
    let mut listed = row(100, 1, 1, 1, 0.4, 0.2);
    listed.end_date = still_options().start.epoch_seconds() + 7200.0;
    let (mut market, account) = still(vec![listed]);
    let id = market.create(account, on_demand(100)).unwrap().new_contract;
    later(&mut market, 7199);
    assert!(is_running(&market, account, id));
    later(&mut market, 1);
    assert!(is_stopped(&market, account, id));
    assert!(happened(&market, &Happening::Expired { instance: id }));
    assert_eq!(market.start(account, id).unwrap_err().code, "invalid_args");
    let then = bill(&market, account, id);
    later(&mut market, 7200);
    assert_eq!(bill(&market, account, id).gpu, then.gpu);
    assert!(bill(&market, account, id).disk > then.disk);
    // The slot is listed anew, with a later end.
    assert!(offer(&market, account, 1, 1).duration > 3600.0);
}
