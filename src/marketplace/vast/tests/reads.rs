//! What is read: offers, instances, the account, the bill, and what is told beside.

use super::*;
use crate::types::instance::Account;
use crate::types::ledger::Component;
use crate::types::notification::NotificationKind;

#[test]
fn a_search_is_a_body_of_filters_and_control_fields() {
    let rig = rig();
    rig.script.reply(200, json!({"offers":[offer_row(1, 0.5)]}));
    let page = run(rig.client.offers(&query(Market::Bid))).unwrap();
    assert!(page.complete);
    assert_eq!(page.offers[0].on_demand, None);
    assert_eq!(page.offers[0].country, None);
    let asked = rig.script.take().remove(0);
    assert_eq!(format!("{asked:?}"), "POST /api/v0/bundles/");
    assert_eq!(asked.bearer.as_deref(), Some(CANARY));
    assert!(asked.query.is_empty(), "the key is in no URL");
    let body: Value = serde_json::from_slice(&asked.body.unwrap()).unwrap();
    assert_eq!(
        body,
        json!({"gpu_name":{"eq":"RTX 4090"},"type":"bid","order":[["dph_total","asc"]],"limit":64,
            "allocated_storage":24,"disable_bundling":true})
    );
}

#[test]
fn our_own_machines_are_searched_with_open_filters() {
    let rig = rig();
    rig.script.reply(200, r#"{"offers":[]}"#);
    let query = OfferQuery {
        gpu_name: None,
        machine: Some(MachineId(9)),
        open: true,
        ..query(Market::OnDemand)
    };
    let page = run(rig.client.offers(&query)).unwrap();
    assert!(page.complete && page.offers.is_empty());
    let body = rig.script.bodies().remove(0);
    let any = json!({"in":[true,false]});
    assert_eq!(body["machine_id"], json!({"eq":9}));
    assert_eq!(
        [&body["verified"], &body["rentable"], &body["rented"]],
        [&any; 3]
    );
    assert_eq!(body["type"], "on-demand");
}

#[test]
fn pages_by_price_and_drops_what_comes_twice() {
    let page_of = |ids: std::ops::Range<u64>| {
        let rows: Vec<Value> = ids.map(|id| offer_row(id, id as f64 / 100.0)).collect();
        json!({"offers":rows})
    };
    let rig = rig();
    rig.script.reply(200, page_of(1..65));
    rig.script.reply(200, page_of(64..70));
    let page = run(rig.client.offers(&query(Market::OnDemand))).unwrap();
    assert_eq!((page.offers.len(), page.complete), (69, true));
    let bodies = rig.script.bodies();
    let from = bodies[1]["dph_total"]["gte"].as_f64().unwrap();
    assert!(
        from < 0.64 && from > 0.6399,
        "a hair under the last: {from}"
    );
}

#[test]
fn a_ceiling_holds_on_every_page() {
    let rows: Vec<Value> = (1..65).map(|id| offer_row(id, id as f64 / 100.0)).collect();
    let rig = rig();
    rig.script.reply(200, json!({"offers":rows}));
    rig.script.reply(200, json!({"offers":[]}));
    let mut query = query(Market::OnDemand);
    query.bounds.total_max = Some(Rate(1_000_000_000));
    query.bounds.gpus = vec![1];
    run(rig.client.offers(&query)).unwrap();
    let bodies = rig.script.bodies();
    for body in &bodies {
        let ceiling = body["dph_total"]["lte"].as_f64().unwrap();
        assert!((1.0..1.001).contains(&ceiling), "{body}");
        assert_eq!(body["num_gpus"], json!({"eq":1}));
    }
    assert!(bodies[1]["dph_total"]["gte"].is_f64());
}

#[test]
fn one_offer_is_searched_for_whatever_its_state() {
    let rig = rig();
    rig.script.reply(200, json!({"offers":[offer_row(5, 0.5)]}));
    let offer = run(rig.client.offer(OfferId(5))).unwrap().unwrap();
    assert_eq!(offer.on_demand, Some(Rate(494_000_000)));
    let body = rig.script.bodies().remove(0);
    assert_eq!(body["ask_contract_id"], json!({"eq":5}));
    assert_eq!(body["rentable"], json!({"in":[true,false]}));
    rig.script.reply(200, r#"{"offers":[]}"#);
    assert_eq!(run(rig.client.offer(OfferId(5))), Ok(None));
    // The marketplace also answers 404 to keys, so a 404 is no absence, and a null is none either.
    for (status, body) in [
        (404, json!("Not Found")),
        (200, json!({"offers":null})),
        (200, json!({"offers":[offer_row(6, 0.5)]})),
        (
            200,
            json!({"offers":[offer_row(5, 0.5), offer_row(5, 0.5)]}),
        ),
    ] {
        rig.script.reply(status, &body);
        assert!(run(rig.client.offer(OfferId(5))).is_err(), "{body}");
    }
}

#[test]
fn nulls_and_text_numbers_anywhere_do_not_spoil_an_answer() {
    let rig = rig();
    let mut row = offer_row(1, 0.5);
    for field in [
        "host_id",
        "reliability2",
        "verification",
        "end_date",
        "gpu_ram",
        "min_bid",
    ] {
        row[field] = Value::Null;
    }
    row["dph_total"] = json!("0.5");
    row["num_gpus"] = json!("1");
    rig.script.reply(200, json!({"offers":[row, null]}));
    let page = run(rig.client.offers(&query(Market::OnDemand))).unwrap();
    assert_eq!((page.offers.len(), page.malformed), (1, 1));
    assert_eq!(page.offers[0].floor, None, "unknown, not zero");
    let row = json!({"id":"7","label":null,"actual_status":null,"dph_base":"0.19","ports":null,
        "machine_id":null,"instance":null,"status_msg":null,"start_date":null});
    rig.script.reply(200, json!({"instances":row}));
    let instance = run(rig.client.instance(InstanceId(7))).unwrap().unwrap();
    assert_eq!(instance.price, Some(Rate(190_000_000)));
    assert_eq!((instance.machine, instance.burn), (None, None));
}

#[test]
fn a_listing_is_followed_to_its_end_and_complete_only_as_announced() {
    let rig = rig();
    let page = |ids: &[u64], token: Value, total: u64| {
        let rows: Vec<Value> = ids.iter().map(|id| json!({"id":id})).collect();
        json!({"success":true,"instances_found":ids.len(),"total_instances":total,
            "next_token":token,"instances":rows})
    };
    rig.script.reply(200, page(&[1, 2], json!("t1"), 3));
    rig.script.reply(200, page(&[3], Value::Null, 3));
    let listing = run(rig.client.instances()).unwrap();
    assert_eq!((listing.rows.len(), listing.complete), (3, true));
    assert_eq!(
        rig.script.asked(),
        [
            "GET /api/v1/instances/?limit=25",
            "GET /api/v1/instances/?limit=25&after_token=t1"
        ]
    );
    // One too few; one twice; one came between the pages; the total is not told.
    for (first, second) in [
        (page(&[1, 2], json!("t"), 4), page(&[3], Value::Null, 4)),
        (page(&[1, 2], json!("t"), 3), page(&[2], Value::Null, 3)),
        (page(&[1, 2], json!("t"), 2), page(&[3], Value::Null, 3)),
        (
            json!({"instances":[{"id":1}],"next_token":"t"}),
            json!({"instances":[{"id":2}]}),
        ),
        (
            page(&[1, 2], json!("t"), 3),
            json!({"error":"invalid_token"}),
        ),
        (page(&[1, 2], json!("t"), 2), page(&[], json!("t"), 2)),
    ] {
        rig.script.reply(200, &first).reply(200, &second);
        let listing = run(rig.client.instances()).unwrap();
        assert!(!listing.complete, "{first} {second}");
        assert!(!listing.rows.is_empty());
    }
}

#[test]
fn an_unreadable_row_keeps_its_id_and_the_listing_incomplete() {
    let rig = rig();
    let rows = json!([{"id":1},{"id":2,"dph_base":-1},null]);
    rig.script.reply(
        200,
        json!({"instances":rows,"total_instances":3,"next_token":null}),
    );
    let listing = run(rig.client.instances()).unwrap();
    assert_eq!(listing.unreadable, [InstanceId(2)]);
    assert_eq!((listing.rows.len(), listing.complete), (1, false));
}

#[test]
fn the_older_list_serves_where_the_paged_one_is_missing_and_that_is_remembered() {
    let unpaged = json!({"instances_found":1,"instances":[{"id":1}]});
    for (status, body) in [
        (404, "<html>"),
        (501, "no"),
        (404, r#"{"msg":"not found"}"#),
    ] {
        let rig = rig();
        rig.script.reply(status, body).reply(200, &unpaged);
        assert!(run(rig.client.instances()).unwrap().complete);
        let word = Some("v0".to_owned());
        assert_eq!(rig.client.learnt(), [("vast.instances".to_owned(), word)]);
        rig.script.reply(200, &unpaged).take();
        run(rig.client.instances()).unwrap();
        assert_eq!(rig.script.asked(), ["GET /api/v0/instances/"]);
    }
    // Remembered from another life, and tried again after an hour.
    let rig = rig_with(true, &[("vast.instances", "v0")]);
    rig.script.reply(200, &unpaged);
    assert!(run(rig.client.instances()).unwrap().complete);
    run(rig
        .clock
        .sleep_until(rig.clock.now() + Duration::from_hours(1)));
    rig.script
        .reply(200, json!({"instances":[{"id":1}],"total_instances":1}));
    assert!(run(rig.client.instances()).unwrap().complete);
    assert_eq!(rig.client.learnt(), [("vast.instances".to_owned(), None)]);
    // A bad key is no missing route.
    rig.script.reply(404, bad_key());
    let refused = run(rig.client.instances()).unwrap_err();
    assert!(matches!(refused, ReadError::Unauthorized { .. }));
}

#[test]
fn absence_is_believed_only_in_so_many_words() {
    let rig = rig();
    for (status, body) in [
        (200, json!({"instances":null})),
        (404, error("no_such_instance", "No such instance")),
    ] {
        rig.script.reply(status, &body);
        assert_eq!(run(rig.client.instance(InstanceId(7))), Ok(None), "{body}");
    }
    assert_eq!(rig.script.asked()[0], "GET /api/v0/instances/7/?owner=me");
    for (status, body) in [
        (404, json!({"error":"auth_error","msg":"no_such_instance"})),
        (404, json!({"msg":"Session expired. Please log in again."})),
        (404, json!("Not Found")),
        (404, json!({})),
        (200, json!({})),
        (200, json!(null)),
        (200, json!({"instances":[]})),
        (200, json!({"instances":{"id":8}})),
        (200, error("no_such_instance", "")),
    ] {
        rig.script.reply(status, &body);
        let read = run(rig.client.instance(InstanceId(7)));
        assert!(read.is_err(), "{status} {body}");
    }
}

#[test]
fn credit_is_what_is_left_and_balance_is_not_believed() {
    let rig = rig();
    for (body, credit) in [
        (
            json!({"id":9,"credit":"-1.5","balance":30}),
            Some(Money(-1_500_000_000)),
        ),
        (json!({"id":"9","balance":30}), None),
        (json!({"id":9,"credit":null,"balance":30}), None),
    ] {
        rig.script.reply(200, &body);
        let account = run(rig.client.account()).unwrap();
        let id = AccountId(9);
        assert_eq!(account, Account { id, credit }, "{body}");
    }
    rig.script.reply(200, json!({"credit":3}));
    assert!(matches!(
        run(rig.client.account()),
        Err(ReadError::Malformed(_))
    ));
}

#[test]
fn charges_are_asked_for_by_whole_days_and_paged() {
    let rig = rig();
    let noon = Time(1_795_478_400_000 + 43_200_000);
    let row = |start: i64, amount: f64| {
        json!({"start":start,"end":start + 3600,"type":"instance","source":"instance-7",
            "amount":amount,"items":[{"type":"gpu","amount":amount}]})
    };
    let in_time = 1_795_478_400 + 43_300;
    rig.script.reply(
        200,
        json!({"success":true,"results":[row(in_time, 0.19), row(1_795_478_400, 0.5)],"next_token":"n"}),
    );
    rig.script.reply(
        200,
        json!({"results":[row(in_time, 0.01)],"next_token":null}),
    );
    let charges = run(rig.client.charges(noon, noon + Duration::from_hours(2))).unwrap();
    assert_eq!(charges.len(), 2, "what ended before is left out");
    assert_eq!(charges[0].component, Some(Component::Gpu));
    let asked = rig.script.asked();
    let day = r#""day":{"gte":1795478400,"lte":1795564800}"#;
    assert!(asked[0].contains(day), "{}", asked[0]);
    assert!(asked[1].ends_with("&after_token=n"), "{}", asked[1]);
    for body in [
        json!({"results":[{"type":"instance","amount":"much"}]}),
        json!({"success":false,"error":"Invalid date range","results":[]}),
        json!({}),
    ] {
        rig.script.reply(200, &body);
        assert!(run(rig.client.charges(noon, noon)).is_err(), "{body}");
    }
}

#[test]
fn a_bill_whose_later_page_comes_empty_is_no_bill() {
    let rig = rig();
    let noon = Time(1_795_478_400_000 + 43_200_000);
    let row = json!({"start":1_795_521_700,"end":1_795_525_300,"type":"instance",
        "source":"instance-7","amount":0.19,"items":[]});
    let first = json!({"success":true,"count":1,"total":2,"results":[row],"next_token":"n"});
    let last = json!({"success":true,"count":1,"total":2,"results":[row],"next_token":null});
    let emptied = json!({"success":true,"count":0,"total":0,"results":[],"next_token":null});
    for (page, read) in [(&last, Some(2)), (&emptied, None)] {
        rig.script.reply(200, &first);
        rig.script.reply(200, page);
        let charges = run(rig.client.charges(noon, noon + Duration::from_hours(2)));
        assert_eq!(charges.ok().map(|charges| charges.len()), read);
    }
}

#[test]
fn payments_are_whole_or_an_error() {
    let rig = rig();
    let row =
        json!({"start":1795478400,"end":null,"type":"credit","amount":-25,"description":"card"});
    rig.script.reply(
        200,
        json!({"success":true,"results":[row],"next_token":null}),
    );
    let (from, to) = (Time(0), Time(1_795_478_400_000));
    let payments = run(rig.client.payments(from, to)).unwrap();
    assert_eq!(payments[0].amount, Money::dollars(-25));
    rig.script
        .reply(200, json!({"results":[{"type":"credit"}]}));
    assert!(run(rig.client.payments(from, to)).is_err());
    rig.script.reply(
        200,
        json!({"success":false,"error":"Invalid date range","results":[]}),
    );
    assert!(run(rig.client.payments(from, to)).is_err());
}

#[test]
fn the_inbox_is_read_newest_last_and_forgotten_where_it_is_missing() {
    let rig = rig();
    let row =
        |id: u64, kind: &str, at: u64| json!({"event_id":id,"notif_type":kind,"created_at":at});
    let rows = json!([
        row(2, "outbid", 1_795_478_500),
        row(1, "instance_offline", 1_795_478_400),
        null
    ]);
    rig.script
        .reply(200, json!({"success":true,"notifications":rows}));
    let kinds: Vec<NotificationKind> = run(rig.client.notifications())
        .unwrap()
        .iter()
        .map(|notification| notification.kind)
        .collect();
    assert_eq!(kinds, [NotificationKind::Offline, NotificationKind::Outbid]);
    rig.script.reply(404, bad_key());
    let refused = run(rig.client.notifications()).unwrap_err();
    assert!(matches!(refused, ReadError::Unauthorized { .. }));
    rig.script.reply(404, "Not Found");
    for _ in 0..2 {
        let missing = Err(ReadError::Unsupported("show notifications"));
        assert_eq!(run(rig.client.notifications()), missing);
    }
    assert_eq!(rig.script.left(), 0, "asked once");
}

#[test]
fn price_increases_and_reports_come_in_either_wrapping() {
    let rig = rig();
    let row = json!({"id":3,"contract_id":7,"new_gpu_costpersec":0.0001,"old_gpu_costpersec":null});
    for body in [
        json!([row]),
        json!({"success":true,"pending_price_increases":[row]}),
    ] {
        rig.script.reply(200, body);
        let increases = run(rig.client.price_increases()).unwrap();
        assert_eq!(increases[0].new_rate, Some(Rate(360_000_000)));
        assert_eq!(increases[0].old_rate, None);
    }
    let row = json!({"problem":"GPU","message":"gone","created_at":1795478400});
    rig.script.reply(200, json!([row, {}])).take();
    let reports = run(rig.client.machine_reports(MachineId(9))).unwrap();
    assert_eq!(reports.len(), 1);
    assert_eq!(rig.script.asked(), ["GET /api/v0/machines/9/reports/"]);
    rig.script.reply(200, json!({"x":1}));
    assert!(run(rig.client.machine_reports(MachineId(9))).is_err());
}

#[test]
fn without_extras_only_what_the_gateway_has_too_is_asked() {
    let rig = rig_with(false, &[]);
    let client = &rig.client;
    let id = InstanceId(7);
    assert!(matches!(
        run(client.notifications()),
        Err(ReadError::Unsupported(_))
    ));
    assert!(matches!(
        run(client.price_increases()),
        Err(ReadError::Unsupported(_))
    ));
    assert!(matches!(
        run(client.machine_reports(MachineId(1))),
        Err(ReadError::Unsupported(_))
    ));
    assert!(matches!(
        run(client.logs(id, 10)),
        Err(ReadError::Unsupported(_))
    ));
    assert_eq!(
        why(&run(client.destroy_many(&[id]))),
        Some(RefusedWhy::Unsupported)
    );
    assert!(rig.script.take().is_empty());
}
