//! Hosts that fail, plan, ask for more, prolong, and lie.

use super::*;
use crate::market::hosts::{Downtime, Lie};

fn search(market: &Market, account: u64) -> RawOffer {
    market
        .offers(account, SearchType::OnDemand, 8.0)
        .pop()
        .unwrap()
}

#[test]
fn an_error_takes_the_verification_for_a_while_and_instances_live_on() {
    let (mut market, account) = single();
    let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    assert_eq!(&*search(&market, account).verification, "verified");
    market.host_errs(0);
    let shown = search(&market, account);
    assert_eq!((&*shown.verification, shown.vericode), ("deverified", 0));
    let held = market.instance(account, id).unwrap();
    assert_eq!(&*held.verification, "deverified");
    assert_eq!(&*held.cur_state, "running");
    assert!(happened(&market, &Happening::Deverified));
    assert!(told(&market, account).contains(&"instance_error".to_owned()));
    later(&mut market, 10 * 86_400);
    assert_eq!(&*search(&market, account).verification, "verified");
    assert!(happened(&market, &Happening::Verified));
}

#[test]
fn a_second_error_prolongs_the_first() {
    let (mut market, account) = single();
    market.host_errs(0);
    let first = market.machines[0].deverified_until.unwrap();
    let mut until = first;
    while until <= first {
        market.host_errs(0);
        until = market.machines[0].deverified_until.unwrap();
    }
    market.advance_to(Time(until.0 - 1));
    assert_eq!(&*search(&market, account).verification, "deverified");
    market.advance_to(until);
    assert_eq!(&*search(&market, account).verification, "verified");
}

#[test]
fn a_container_that_hangs_is_billed_and_one_that_died_stays_rented() {
    for (what, reads) in [(Container::Frozen, "frozen"), (Container::Ended, "exited")] {
        let (mut market, account) = single();
        let id = market.create(account, bid(100, 0.36)).unwrap().new_contract;
        later(&mut market, 1200);
        market.fails(id, what);
        assert_eq!(states(&market, account, id), four("running", Some(reads)));
        assert!(happened(&market, &Happening::Failed { instance: id }));
        let shown = market.instance(account, id).unwrap();
        assert!(shown.status_msg.unwrap().starts_with("Error"));
        let then = bill(&market, account, id);
        later(&mut market, 1);
        let now = bill(&market, account, id);
        assert_eq!(now.gpu - then.gpu, Money(100_000));
        assert_eq!(now.traffic, then.traffic);
        later(&mut market, 86_400);
        assert_eq!(
            is_running(&market, account, id),
            what == Container::Frozen,
            "what hung comes back"
        );
        // What died runs again when it is started anew.
        market.stop(account, id).unwrap();
        assert!(market.start(account, id).unwrap().success);
        later(&mut market, 30);
        assert!(is_running(&market, account, id));
    }
}

#[test]
fn maintenance_is_announced_then_the_host_is_away_unbilled_and_comes_back() {
    let (mut market, account) = single();
    let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    later(&mut market, 1200);
    let from = Time(market.now().0 + 7_200_000);
    market.announces_maintenance(
        0,
        Downtime {
            from,
            ms: 3_600_000,
        },
    );
    assert!(told(&market, account).contains(&"upcoming_downtime".to_owned()));
    market.advance_to(Time(from.0 - 1));
    assert!(is_running(&market, account, id));
    market.advance_to(from);
    assert_eq!(
        states(&market, account, id),
        four("running", Some("offline"))
    );
    let then = bill(&market, account, id);
    later(&mut market, 3599);
    assert_eq!(bill(&market, account, id), then);
    later(&mut market, 60);
    assert!(is_running(&market, account, id));
    let kinds = told(&market, account);
    for kind in ["instance_offline", "instance_online"] {
        assert!(kinds.contains(&kind.to_owned()), "{kinds:?}");
    }
}

#[test]
fn a_host_that_is_away_for_maintenance_does_not_leave_as_well() {
    let mut options = still_options();
    options.intensity = 1.0;
    let (mut market, account) = single_with(options);
    let from = market.now();
    let ms = 3_600_000;
    market.announces_maintenance(0, Downtime { from, ms });
    later(&mut market, 1);
    market.host_leaves(0);
    later(&mut market, 3600);
    assert_eq!(market.offers(account, SearchType::Bid, 8.0).len(), 1);
}

#[test]
fn a_raised_price_is_asked_for_and_paid_only_when_it_is_accepted() {
    for accept in [true, false] {
        let (mut market, account) = single();
        market.deposit(account, Money::dollars(900));
        let other = market.account_for("at_two");
        let id = market.create(account, on_demand(100)).unwrap().new_contract;
        later(&mut market, 1200);
        let ends = market.instance(account, id).unwrap().end_date;
        market.machines[0].price_level = 1500;
        market.machines[0].slices[0].ends = Time::from_epoch_seconds(ends + 86_400.0).unwrap();
        while market.price_increases(account).is_empty() {
            market.asks_for_more(0);
        }
        market.asks_for_more(0);
        let rows = market.price_increases(account);
        assert_eq!(rows.len(), 1, "one at a time");
        assert_eq!(rows[0]["contract_id"], id);
        let per_hour = |name: &str| rows[0][name].as_f64().unwrap() * 3600.0;
        assert!((per_hour("old_gpu_costpersec") - 0.4).abs() < 1e-9);
        assert!((per_hour("new_gpu_costpersec") - 0.6).abs() < 1e-9);
        assert_eq!(rows[0]["contract_end_date"], ends);
        assert_eq!(rows[0]["ask_end_date"], ends + 86_400.0);
        assert!(told(&market, account).contains(&"price_increase".to_owned()));
        assert!(market.price_increases(other).is_empty());
        let request = rows[0]["pending_price_increase_id"].as_u64().unwrap();
        let refusal = market.answer_price_increase(other, request, true);
        assert_eq!(refusal.unwrap_err().status, 404);
        assert_eq!(market.instance(account, id).unwrap().dph_base, 0.4);
        market
            .answer_price_increase(account, request, accept)
            .unwrap();
        let shown = market.instance(account, id).unwrap();
        let (price, end) = if accept {
            (0.6, ends + 86_400.0)
        } else {
            (0.4, ends)
        };
        assert_eq!((shown.dph_base, shown.end_date), (price, end));
        let then = bill(&market, account, id).gpu;
        later(&mut market, 3600);
        let paid = bill(&market, account, id).gpu - then;
        assert_eq!(paid, Money::from_dollars(price).unwrap());
        let again = market
            .answer_price_increase(account, request, true)
            .unwrap_err();
        assert_eq!(again.code, "no_pending_price_increase");
        let left = (end - market.now().epoch_seconds()) as i64;
        later(&mut market, left - 1);
        assert!(is_running(&market, account, id));
        later(&mut market, 1);
        assert!(is_stopped(&market, account, id));
    }
}

#[test]
fn bids_are_not_asked_for_more_and_withdrawn_requests_are_gone() {
    let (mut market, account) = single();
    let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    market.machines[0].price_level = 1500;
    for _ in 0..20 {
        market.asks_for_more(0);
    }
    assert!(market.price_increases(account).is_empty());
    market.destroy(account, id).unwrap();
    market.machines[0].price_level = 1000;
    let again = offer(&market, account, 1, 1).id;
    let id = market
        .create(account, on_demand(again))
        .unwrap()
        .new_contract;
    let asks = |market: &mut Market| {
        let rate = |dollars| Rate::from_dollars(dollars).unwrap();
        market.asks(id, rate(0.4), rate(0.5));
        assert_eq!(market.price_increases(account).len(), 1);
    };
    asks(&mut market);
    market.asks_for_more(0);
    assert!(
        market.price_increases(account).is_empty(),
        "it asks for no more"
    );
    asks(&mut market);
    market.destroy(account, id).unwrap();
    assert!(market.price_increases(account).is_empty());
}

#[test]
fn an_end_is_moved_to_a_later_time_only() {
    let (mut market, account) = single();
    market.deposit(account, Money::dollars(900));
    let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    let ends = Time::from_epoch_seconds(market.instance(account, id).unwrap().end_date).unwrap();
    assert!(!market.extend(id, Time(ends.0 - 1)));
    assert!(!market.extend(id, ends));
    let until = Time(ends.0 + 86_400_000);
    assert!(market.extend(id, until));
    assert!(happened(
        &market,
        &Happening::Extended {
            instance: id,
            until
        }
    ));
    market.advance_to(Time(until.0 - 1));
    assert!(is_running(&market, account, id));
    market.advance_to(until);
    assert!(is_stopped(&market, account, id));
    assert!(
        !market.extend(id, Time(until.0 + 1)),
        "what ended has ended"
    );
    let ended = Happening::Expired { instance: id };
    let expiries = market.events().iter().filter(|event| event.what == ended);
    assert_eq!(expiries.count(), 1);
}

#[test]
fn hosts_prolong_some_rentals_with_their_listings() {
    let mut options = still_options();
    options.intensity = 0.5;
    let rows = (0..20)
        .map(|n| {
            let mut listed = row(100 + n, n, 1, 1, 0.4, 0.2);
            listed.end_date = options.start.epoch_seconds() + 7200.0;
            listed
        })
        .collect();
    let mut market = Market::from_rows(options, rows);
    let account = market.account_for("at_one");
    for n in 0..20 {
        market.create(account, on_demand(100 + n)).unwrap();
    }
    later(&mut market, 7300);
    let count = |is: fn(&Happening) -> bool| {
        let events = market.events().iter();
        events.filter(|event| is(&event.what)).count()
    };
    let extended = count(|what| matches!(what, Happening::Extended { .. }));
    let expired = count(|what| matches!(what, Happening::Expired { .. }));
    assert!(
        extended >= 4 && expired >= 4,
        "{extended} extended, {expired} expired"
    );
    assert_eq!(extended + expired, 20);
}

fn liar(lie: Lie) -> (Market, u64, u64) {
    let (mut market, account) = still(vec![row(100, 1, 2, 2, 0.8, 0.4)]);
    market.machines[0].lie = Some(lie);
    let id = market.create(account, bid(100, 0.5)).unwrap().new_contract;
    (market, account, id)
}

#[test]
fn a_host_that_lies_about_its_bandwidth_pulls_for_longer() {
    let seconds = |lie: Option<Lie>| {
        let (mut market, account, id) = liar(Lie::Missing(0));
        market.machines[0].lie = lie;
        let mut seconds = 0;
        while !is_running(&market, account, id) {
            later(&mut market, 1);
            seconds += 1;
        }
        seconds
    };
    let (honest, lying) = (seconds(None), seconds(Some(Lie::Bandwidth(0.1))));
    assert!(lying > honest * 2, "{honest} {lying}");
    let (market, account, id) = liar(Lie::Bandwidth(0.1));
    assert_eq!(market.instance(account, id).unwrap().inet_down, 900.0);
    assert_eq!(market.inside(id).unwrap().download, 90.0);
}

#[test]
fn a_lie_about_gpus_is_seen_from_inside_only() {
    for lie in [Lie::Missing(1), Lie::Model("RTX 3060".into())] {
        let (mut market, account, id) = liar(lie.clone());
        later(&mut market, 3600);
        assert!(is_running(&market, account, id));
        let shown = market.instance(account, id).unwrap();
        assert_eq!((&*shown.gpu_name, shown.num_gpus), ("RTX 4090", 2));
        assert!(shown.status_msg.unwrap().starts_with("success"));
        let inside = market.inside(id).unwrap();
        let expected = match lie {
            Lie::Missing(_) => ("RTX 4090", 1),
            _ => ("RTX 3060", 2),
        };
        assert_eq!((&*inside.gpu_name, inside.gpus), expected);
    }
}

#[test]
fn as_many_lie_as_is_asked_for() {
    let lying = |liars| {
        let options = MarketOptions {
            liars,
            ..still_options()
        };
        let machines = Market::generated(options).machines;
        let all = machines.len() as f64;
        machines.iter().filter(|m| m.lie.is_some()).count() as f64 / all
    };
    assert_eq!(lying(0.0), 0.0);
    assert!((0.2..0.4).contains(&lying(0.3)));
    assert_eq!(lying(1.0), 1.0);
}

#[test]
fn hosts_fail_and_plan_as_often_as_failures_say() {
    let count = |failures| {
        let options = MarketOptions {
            intensity: 0.0,
            failures,
            ..MarketOptions::default()
        };
        let mut market = Market::generated(options);
        later(&mut market, 4 * 86_400);
        let of = |is: fn(&Happening) -> bool| {
            let events = market.events().iter();
            events.filter(|event| is(&event.what)).count()
        };
        [
            of(|what| matches!(what, Happening::Deverified)),
            of(|what| matches!(what, Happening::MaintenancePlanned { .. })),
        ]
    };
    assert_eq!(count(0.0), [0, 0]);
    // 540 machines, once in 20 and in 30 days.
    let [errors, maintenance] = count(1.0);
    assert!((70..150).contains(&errors), "{errors}");
    assert!((45..105).contains(&maintenance), "{maintenance}");
}
