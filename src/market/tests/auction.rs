//! Who gets the GPUs, and what is shown of it.

use super::*;

#[test]
fn highest_bid_runs_and_the_loser_resumes_when_the_winner_leaves() {
    let (mut market, account) = single();
    let id = market.create(account, bid(100, 0.25)).unwrap().new_contract;
    later(&mut market, 1200);
    assert!(is_running(&market, account, id));
    rival(&mut market, 0, 0, Some(0.3));
    assert!(is_stopped(&market, account, id));
    let by = Rate::from_dollars(0.3).unwrap();
    assert!(happened(&market, &Happening::Outbid { instance: id, by }));
    // Its disk bills on, its GPU does not.
    let then = bill(&market, account, id);
    later(&mut market, 3600);
    let now = bill(&market, account, id);
    assert_eq!(now.gpu, then.gpu);
    assert!(now.disk > then.disk);
    later(&mut market, 36_000);
    assert!(is_running(&market, account, id));
    assert!(happened(&market, &Happening::Resumed { instance: id }));
}

#[test]
fn a_tie_is_the_incumbents() {
    let (mut market, account) = single();
    let id = market.create(account, bid(100, 0.25)).unwrap().new_contract;
    rival(&mut market, 0, 0, Some(0.25));
    later(&mut market, 1200);
    assert!(is_running(&market, account, id));
    // And so is the rival's: an equal bid is under the floor.
    let (mut market, account) = single();
    rival(&mut market, 0, 0, Some(0.25));
    assert_eq!(offer(&market, account, 1, 1).min_bid, 0.251);
    let refusal = market.create(account, bid(100, 0.25)).unwrap_err();
    assert!(is_stopped(&market, account, refusal.new_contract.unwrap()));
}

#[test]
fn on_demand_beats_every_bid_and_is_not_displaced() {
    let (mut market, account) = single();
    let id = market.create(account, bid(100, 30.0)).unwrap().new_contract;
    rival(&mut market, 0, 0, None);
    assert!(is_stopped(&market, account, id));
    assert!(happened(&market, &Happening::OnDemandTook { instance: id }));
    assert!(!offer(&market, account, 1, 1).rentable);
    market.set_bid(account, id, Some(31.0)).unwrap();
    later(&mut market, 600);
    assert!(is_stopped(&market, account, id));
}

#[test]
fn raising_over_the_floor_resumes_within_a_minute_and_cutting_under_it_parks() {
    let (mut market, account) = single();
    let id = market.create(account, bid(100, 0.21)).unwrap().new_contract;
    later(&mut market, 1200);
    rival(&mut market, 0, 0, Some(0.3));
    assert!(is_stopped(&market, account, id));
    market.set_bid(account, id, Some(0.35)).unwrap();
    later(&mut market, 60);
    assert_eq!(states(&market, account, id).0, "running");
    assert_eq!(market.instance(account, id).unwrap().dph_base, 0.35);
    market.set_bid(account, id, Some(0.001)).unwrap();
    later(&mut market, 60);
    assert!(is_stopped(&market, account, id));
    assert!(happened(&market, &Happening::Parked { instance: id }));
    later(&mut market, 7 * 86_400);
    assert!(is_stopped(&market, account, id), "parked stays parked");
}

#[test]
fn the_floor_of_a_held_slot_echoes_our_bid_and_hides_waiting_rivals() {
    let (mut market, account) = single();
    let id = market
        .create(account, bid(100, 0.2512))
        .unwrap()
        .new_contract;
    assert_eq!(offer(&market, account, 1, 1).min_bid, 0.2);
    later(&mut market, 14);
    assert_eq!(offer(&market, account, 1, 1).min_bid, 0.2);
    later(&mut market, 82);
    assert_eq!(offer(&market, account, 1, 1).min_bid, 0.251);
    rival(&mut market, 0, 0, Some(0.24));
    assert_eq!(offer(&market, account, 1, 1).min_bid, 0.251);
    market.set_bid(account, id, Some(0.22)).unwrap();
    // The rival wins, and is seen.
    later(&mut market, 60);
    assert_eq!(offer(&market, account, 1, 1).min_bid, 0.241);
}

#[test]
fn an_echo_lags_longer_after_a_cut() {
    let (mut market, account) = single();
    let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    later(&mut market, 100);
    market.set_bid(account, id, Some(0.25)).unwrap();
    later(&mut market, 119);
    assert_eq!(offer(&market, account, 1, 1).min_bid, 0.3);
    later(&mut market, 1500 - 119);
    assert_eq!(offer(&market, account, 1, 1).min_bid, 0.25);
    market.destroy(account, id).unwrap();
    later(&mut market, 1500);
    assert_eq!(offer(&market, account, 1, 1).min_bid, 0.2, "the echo fades");
}

#[test]
fn overlapping_slices_compete_gpu_for_gpu() {
    let rows = vec![
        row(100, 1, 1, 2, 0.4, 0.2),
        row(101, 1, 1, 2, 0.4, 0.2),
        row(102, 1, 2, 2, 0.8, 0.4),
    ];
    let (mut market, account) = still(rows);
    let all = market.create(account, bid(102, 0.5)).unwrap().new_contract;
    // 0.26 on one GPU beats 0.25 a GPU; the other GPU is left idle.
    let one = market.create(account, bid(100, 0.26)).unwrap().new_contract;
    assert_eq!(states(&market, account, all).0, "stopped");
    assert_eq!(states(&market, account, one).0, "running");
    let other = market.create(account, bid(101, 0.2)).unwrap().new_contract;
    assert_eq!(states(&market, account, other).0, "running");
    let ids = |id| market.instance(account, id).unwrap().gpu_ids;
    assert!(ids(one).iter().all(|gpu| !ids(other).contains(gpu)));
    // Under 0.52 the whole machine would not displace the first.
    market.set_bid(account, all, Some(0.52)).unwrap();
    later(&mut market, 60);
    assert_eq!(states(&market, account, all).0, "stopped");
    market.set_bid(account, all, Some(0.5202)).unwrap();
    later(&mut market, 60);
    assert_eq!(states(&market, account, all).0, "running");
}

#[test]
fn a_running_bid_keeps_its_terms_when_the_host_raises_its_floor() {
    let (mut market, account) = single();
    let id = market.create(account, bid(100, 0.21)).unwrap().new_contract;
    market.machines[0].floor_level = 1200;
    market.settle(0);
    assert_eq!(states(&market, account, id).0, "running");
    market.stop(account, id).unwrap();
    let started = market.start(account, id).unwrap();
    assert!(!started.success, "anew it needs the floor of now");
}

#[test]
fn a_twin_raises_once_and_leaves() {
    let (mut market, account) = single();
    market.bids(0, 0, RivalKind::Twin);
    let opening = offer(&market, account, 1, 1).min_bid;
    assert!(
        opening > 0.2 && opening < 0.25,
        "floor and margin: {opening}"
    );
    let id = market
        .create(account, bid(100, opening))
        .unwrap()
        .new_contract;
    assert_eq!(states(&market, account, id).0, "running");
    later(&mut market, 200);
    assert_eq!(states(&market, account, id).0, "stopped", "it raised");
    let raised = offer(&market, account, 1, 1).min_bid;
    market.set_bid(account, id, Some(raised)).unwrap();
    later(&mut market, 60);
    assert_eq!(states(&market, account, id).0, "running");
    later(&mut market, 200);
    assert_eq!(
        states(&market, account, id).0,
        "running",
        "it does not raise twice"
    );
    assert_eq!(market.machines[0].contracts.len(), 1, "it left");
}
