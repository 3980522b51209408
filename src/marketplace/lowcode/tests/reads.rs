//! What is read: offers, instances, the account and the bill.

use super::*;

#[test]
fn offers_are_read_from_any_envelope() {
    for body in [
        json!({"offers":[offer_row(1, 0.5)]}),
        json!({"data":{"offers":[offer_row(1, 0.5)]}}),
        json!({"data":[offer_row(1, 0.5)]}),
        wrapped(json!({"offers":[offer_row(1, 0.5)]})),
        json!({"offers":offer_row(1, 0.5)}),
    ] {
        let rig = rig();
        rig.script.reply(200, body);
        let page = run(rig.client.offers(&query(Market::OnDemand))).unwrap();
        assert!(page.complete);
        let offer = &page.offers[0];
        assert_eq!(offer.machine, MachineId(1001));
        assert_eq!(offer.machine_gpus, Some(8));
        assert_eq!(offer.on_demand, Some(Rate(494_000_000)));
        assert_eq!(offer.floor, Some(Rate(100_000_000)));
        assert_eq!(offer.cuda_max, Some(1280));
        assert_eq!(offer.driver_version, Some(570_124_006));
        assert_eq!(offer.cpu_ram_mb, Some(128_000));
        assert_eq!(offer.reliability, Some(0.99));
        assert_eq!(offer.verified, Some(true));
        assert_eq!(offer.datacenter, Some(true));
        assert_eq!(offer.country.map(String::from).as_deref(), Some("NO"));
        assert_eq!(offer.ends_at, Some(Time(1_798_990_000_000)));
        assert_eq!(
            rig.script.asked(),
            vec![
                "GET /offers?type=on-demand&q={\"gpu_name\":{\"eq\":\"RTX 4090\"}}&order=[[\"dph_total\",\"asc\"]]&limit=64&allocated_storage=24&disable_bundling=true"
            ]
        );
    }
}

#[test]
fn a_bidders_row_has_no_on_demand_rate() {
    let rig = rig();
    rig.script.reply(200, json!({"offers":[offer_row(1, 0.5)]}));
    let page = run(rig.client.offers(&query(Market::Bid))).unwrap();
    assert_eq!(page.offers[0].on_demand, None);
    assert_eq!(page.offers[0].floor, Some(Rate(100_000_000)));
}

#[test]
fn a_bad_row_is_set_aside_alone() {
    let mut priced_wrong = offer_row(2, 0.5);
    priced_wrong["min_bid"] = json!("NaN");
    let mut negative = offer_row(3, 0.5);
    negative["dph_base"] = json!(-0.1);
    let mut absurd = offer_row(4, 0.5);
    absurd["dph_total"] = json!(1e12);
    let mut derived = offer_row(5, 0.5);
    derived["dph_base"] = Value::Null;
    let mut strange = offer_row(6, 0.5);
    strange["geolocation"] = Value::Null;
    strange["gpu_ram"] = json!({"a":[1]});
    let rig = rig();
    let rows = json!([
        null,
        7,
        "x",
        [],
        {},
        priced_wrong,
        negative,
        absurd,
        derived,
        strange
    ]);
    // The same key twice in one row spoils that row.
    let rows = rows.to_string().replacen("{}", r#"{"id":1,"id":2}"#, 1);
    rig.script.reply(200, format!(r#"{{"offers":{rows}}}"#));
    let page = run(rig.client.offers(&query(Market::OnDemand))).unwrap();
    assert_eq!(page.malformed, 8);
    assert!(page.complete);
    let ids: Vec<u64> = page.offers.iter().map(|offer| offer.id.0).collect();
    assert_eq!(ids, vec![5, 6]);
    assert_eq!(page.offers[0].on_demand, Some(Rate(494_000_000)));
    assert_eq!(page.offers[1].country, None);
    assert_eq!(page.offers[1].gpu_ram_mb, None);
}

fn page_of(ids: std::ops::Range<u64>, total: impl Fn(u64) -> f64) -> Value {
    let rows: Vec<Value> = ids.map(|id| offer_row(id, total(id))).collect();
    json!({"offers":rows})
}

fn searched(rig: &Rig) -> OfferPage {
    run(rig.client.offers(&query(Market::OnDemand))).unwrap()
}

#[test]
fn pages_by_price_and_drops_what_comes_twice() {
    let rig = rig();
    let total = |id: u64| id as f64 / 100.0;
    rig.script.reply(200, page_of(1..65, total));
    rig.script.reply(200, page_of(64..128, total));
    rig.script.reply(200, page_of(127..130, total));
    let page = searched(&rig);
    assert_eq!((page.offers.len(), page.complete), (129, true));
    let asked = rig.script.asked();
    assert!(
        asked[1].contains(r#""dph_total":{"gte":0.63999"#),
        "a hair under: {}",
        asked[1]
    );
}

#[test]
fn a_page_of_one_price_is_stepped_past_and_told() {
    let rig = rig();
    rig.script.reply(200, page_of(1..65, |_| 0.5));
    rig.script.reply(200, page_of(65..66, |_| 0.6));
    let page = searched(&rig);
    assert_eq!((page.offers.len(), page.complete), (65, false));
    assert!(rig.script.asked()[1].contains(r#""dph_total":{"gt":0.50000"#));
}

#[test]
fn what_cannot_be_paged_is_incomplete() {
    // Not ordered.
    let rig = rig();
    rig.script
        .reply(200, page_of(1..65, |id| 2.0 - id as f64 / 100.0));
    assert!(!searched(&rig).complete);
    // The bound is not kept to: no endless loop.
    let rig = self::rig();
    for _ in 0..2 {
        rig.script.reply(200, page_of(1..65, |id| id as f64));
    }
    let page = searched(&rig);
    assert_eq!((page.offers.len(), page.complete), (64, false));
    // A further page fails.
    let rig = self::rig();
    rig.script.reply(200, page_of(1..65, |id| id as f64));
    rig.script.reply(400, r#"{"error":"invalid_request"}"#);
    assert!(!searched(&rig).complete);
    // More pages than are asked for.
    let rig = self::rig();
    for page in 0..40 {
        let first = 1 + page * 63;
        rig.script
            .reply(200, page_of(first..first + 64, |id| id as f64));
    }
    let page = searched(&rig);
    assert_eq!((page.complete, rig.script.left()), (false, 0));
}

#[test]
fn an_empty_search_is_complete_and_a_null_is_an_error() {
    let rig = rig();
    rig.script.reply(200, r#"{"data":{"offers":[]}}"#);
    assert_eq!(
        searched(&rig),
        OfferPage {
            complete: true,
            ..OfferPage::default()
        }
    );
    for body in [
        r#"{"offers":null}"#,
        "{}",
        "null",
        "",
        "<html>",
        r#"{"success":false,"error":"x","offers":[]}"#,
    ] {
        rig.script.reply(200, body);
        let error = run(rig.client.offers(&query(Market::OnDemand))).unwrap_err();
        assert!(
            matches!(
                error,
                ReadError::Malformed(_) | ReadError::Failed { status: 200, .. }
            ),
            "{body}: {error}"
        );
    }
}

#[test]
fn our_own_machines_are_searched_with_open_filters() {
    let rig = rig();
    rig.script.reply(200, r#"{"offers":[]}"#);
    let query = OfferQuery {
        market: Market::Bid,
        gpu_name: None,
        machine: Some(MachineId(9)),
        disk_gb: 8,
        open: true,
        bounds: crate::types::offer::Bounds::default(),
    };
    run(rig.client.offers(&query)).unwrap();
    let asked = rig.script.asked();
    for part in [
        r#""machine_id":{"eq":9}"#,
        r#""rentable":{"in":[true,false]}"#,
        r#""rented":{"in":[true,false]}"#,
        r#""verified":{"in":[true,false]}"#,
    ] {
        assert!(asked[0].contains(part), "{}", asked[0]);
    }
}

#[test]
fn one_offer_by_id_or_by_search() {
    let rig = rig();
    rig.script
        .reply(200, wrapped(json!({"offers":offer_row(5, 0.5)})));
    let offer = run(rig.client.offer(OfferId(5))).unwrap().unwrap();
    assert_eq!(offer.on_demand, Some(Rate(494_000_000)));
    // Another than was asked for.
    rig.script.reply(200, json!({"offers":[offer_row(6, 0.5)]}));
    assert!(matches!(
        run(rig.client.offer(OfferId(5))),
        Err(ReadError::Malformed(_))
    ));
    // Gone.
    rig.script.reply(
        404,
        wrapped_error(json!({"msg":"error 404/3603: no_such_ask by id 5"})),
    );
    assert_eq!(run(rig.client.offer(OfferId(5))), Ok(None));
    // The provider has no such route: its search knows.
    rig.script.reply(404, wrapped_error(json!("Not Found")));
    rig.script.reply(200, r#"{"offers":[]}"#);
    rig.script.take();
    assert_eq!(run(rig.client.offer(OfferId(5))), Ok(None));
    assert!(rig.script.asked()[1].contains(r#""ask_contract_id":{"eq":5}"#));
}

#[test]
fn a_listing_is_complete_only_as_announced() {
    let two = json!([{"id":2},{"id":1}]);
    for (body, complete) in [
        (json!({"instances":two}), true),
        (json!({"data":two}), true),
        (
            wrapped(
                json!({"instances":two,"instances_found":2,"total_instances":2,"next_token":null}),
            ),
            true,
        ),
        (json!({"instances":two,"total_instances":3}), false),
        (json!({"instances":two,"instances_found":"1"}), false),
        (json!({"instances":[{"id":1},{"id":1}]}), false),
        (json!({"instances":[{"id":1},{"id":2},null]}), false),
        (json!({"instances":{"id":1}}), false),
    ] {
        let rig = rig();
        rig.script.reply(200, &body);
        let listing = run(rig.client.instances()).unwrap();
        assert_eq!(listing.complete, complete, "{body}");
        assert_eq!(listing.rows[0].id, InstanceId(1));
    }
    for body in [
        r#"{"instances":null}"#,
        "null",
        "{}",
        "[",
        r#"{"success":false,"msg":"no"}"#,
    ] {
        let rig = rig();
        rig.script.reply(200, body);
        assert!(run(rig.client.instances()).is_err(), "{body}");
    }
}

#[test]
fn a_listing_that_may_be_a_page_cut_off_is_not_complete() {
    let rows = |count: u64| -> Vec<_> { (1..=count).map(|id| json!({ "id": id })).collect() };
    for (body, complete) in [
        (json!({"instances":rows(24)}), true),
        (json!({"instances":rows(25)}), false),
        (json!({"instances":rows(25),"instances_found":25}), false),
        (json!({"instances":rows(50)}), false),
        (json!({"instances":rows(26)}), true),
        (json!({"instances":[]}), true),
        (json!({"instances":rows(25),"total_instances":25}), true),
    ] {
        let rig = rig();
        rig.script.reply(200, &body);
        assert_eq!(run(rig.client.instances()).unwrap().complete, complete);
    }
}

#[test]
fn a_listing_follows_its_pages_and_keeps_unreadable_ids() {
    let rig = rig();
    rig.script.reply(
        200,
        json!({"instances":[{"id":1}],"next_token":"t1","total_instances":3}),
    );
    rig.script.reply(200, json!({"instances":[{"id":2,"dph_base":-1},{"id":3}],"next_token":null,"total_instances":3}));
    let listing = run(rig.client.instances()).unwrap();
    assert_eq!(listing.rows.len(), 2);
    assert_eq!(listing.unreadable, vec![InstanceId(2)]);
    assert!(!listing.complete);
    assert_eq!(
        rig.script.asked(),
        vec!["GET /instances", "GET /instances?after_token=t1"]
    );
    // A page that fails, and one that repeats itself.
    rig.script
        .reply(200, json!({"instances":[{"id":1}],"next_token":"t1"}));
    rig.script.reply(400, "no");
    assert!(!run(rig.client.instances()).unwrap().complete);
    for _ in 0..2 {
        rig.script
            .reply(200, json!({"instances":[],"next_token":"t1"}));
    }
    assert!(!run(rig.client.instances()).unwrap().complete);
}

#[test]
fn absence_is_believed_only_in_so_many_words() {
    let absent = [
        (200, json!({"instances":null})),
        (200, json!({"data":{"instances":null}})),
        (
            404,
            wrapped_error(json!({"success":false,"error":"no_such_instance"})),
        ),
        (
            404,
            json!({"data":{"error":{"message":"gone","code":"no_such_instance"}}}),
        ),
    ];
    for (status, body) in absent {
        let rig = rig();
        rig.script.reply(status, &body);
        assert_eq!(run(rig.client.instance(InstanceId(7))), Ok(None), "{body}");
    }
    let unknown = [
        (
            404,
            wrapped_error(json!({"error":"auth_error","msg":"Invalid user key: no_such_instance"})),
        ),
        (404, wrapped_error(json!("Not Found"))),
        (200, json!({"instances":[]})),
        (200, json!({})),
        (200, json!(null)),
        (200, json!({"instances":{"id":8}})),
        (200, json!({"success":false,"error":"no_such_instance"})),
    ];
    for (status, body) in unknown {
        let rig = rig();
        rig.script.reply(status, &body);
        assert!(run(rig.client.instance(InstanceId(7))).is_err(), "{body}");
    }
}

#[test]
fn the_account_comes_from_whichever_answers() {
    let rig = rig();
    rig.script
        .reply(200, json!({"data":{"id":9,"credit":"12.5","balance":3}}));
    let account = run(rig.client.account()).unwrap();
    assert_eq!(
        (account.id, account.credit),
        (AccountId(9), Some(Money(12_500_000_000)))
    );
    // No such path: the balance with an id.
    rig.script.reply(404, UNROUTED);
    rig.script
        .reply(200, wrapped(json!({"id":9,"balance":-1.5})));
    let account = run(rig.client.account()).unwrap();
    assert_eq!(account.credit, Some(Money(-1_500_000_000)));
    // A balance of nobody.
    rig.script.reply(404, UNROUTED);
    rig.script.reply(200, json!({"credit":5}));
    assert!(matches!(
        run(rig.client.account()),
        Err(ReadError::Malformed(_))
    ));
    // The id from one, the credit from the other, or not at all.
    rig.script.reply(200, json!({"id":9}));
    rig.script.reply(200, json!({"credit":5}));
    assert_eq!(
        run(rig.client.account()).unwrap().credit,
        Some(Money::dollars(5))
    );
    rig.script.reply(200, json!({"id":9}));
    rig.script.reply(404, UNROUTED);
    assert_eq!(run(rig.client.account()).unwrap().credit, None);
    // A bad token is not asked twice.
    rig.script.reply(
        404,
        wrapped_error(json!({"error":"auth_error","msg":"Invalid user key"})),
    );
    assert!(matches!(
        run(rig.client.account()),
        Err(ReadError::Unauthorized { .. })
    ));
}

#[test]
fn charges_are_paged_and_whole() {
    let rig = rig();
    let row = json!({"start":1795478400,"end":1795482000,"type":"instance","source":"instance-7",
        "amount":0.196,"items":[{"type":"gpu","amount":0.19},{"type":"disk","amount":0.006}]});
    rig.script.reply(
        200,
        json!({"data":{"success":true,"results":[row],"next_token":"t"}}),
    );
    rig.script.reply(
        200,
        json!({"invoices":[
        {"type":"charge","instance_id":7,"amount":"0.25","timestamp":1795482000},
        {"type":"charge","instance_id":7,"amount":"9","timestamp":1},
        {"type":"payment","amount":"-50","timestamp":1795482000}]}),
    );
    let (from, to) = (Time(1_795_478_000_000), Time(1_795_490_000_000));
    let charges = run(rig.client.charges(from, to)).unwrap();
    assert_eq!(charges.len(), 3);
    assert_eq!(charges[1].component, Some(Component::Disk));
    assert_eq!(charges[2].amount, Money(250_000_000));
    assert!(rig.script.asked()[1].contains("after_token=t"));
    for body in [
        json!({"results":[{"type":"instance","amount":"?","start":1795478400}]}),
        json!({"success":false,"error":"Invalid date range","results":[]}),
        json!({}),
    ] {
        rig.script.reply(200, &body);
        assert!(run(rig.client.charges(from, to)).is_err(), "{body}");
    }
}
