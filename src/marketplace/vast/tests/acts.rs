//! What is changed: rentals, bids, states, ends.

use super::*;

#[test]
fn a_rental_says_its_price_or_says_null() {
    let rig = rig();
    let made = json!({"success":true,"new_contract":77,"instance_api_key":"k"});
    rig.script.reply(200, &made).reply(200, &made);
    let on_demand = run(rig.client.create(&create(None)));
    assert_eq!(on_demand, Outcome::Done(InstanceId(77)));
    let at_bid = run(rig.client.create(&create(Some(Rate(210_050_000)))));
    assert_eq!(at_bid, Outcome::Done(InstanceId(77)));
    let requests = rig.script.take();
    assert_eq!(format!("{:?}", requests[0]), "PUT /api/v0/asks/5/");
    let body = |at: usize| -> Value {
        serde_json::from_slice(requests[at].body.as_deref().unwrap()).unwrap()
    };
    assert_eq!(
        body(0),
        json!({"client_id":"me","price":null,"disk":24,"label":"hg-abcdefgh-train-r0-1",
            "runtype":"args","target_state":"running","cancel_unavail":true,
            "image":"pytorch/pytorch:2","args":["python"],"env":{"HF_TOKEN":"hf_canary987654"},
            "image_login":"-u me -p pwcanary99 ghcr.io"})
    );
    let mut bid = body(1);
    assert_eq!(bid["price"], json!(0.21), "never above what was decided");
    bid["price"] = Value::Null;
    assert_eq!(bid, body(0));
}

#[test]
fn a_bid_that_is_none_is_never_sent() {
    let rig = rig();
    for bid in [
        Rate::ZERO,
        Rate(-1),
        Rate(999_999),
        Rate(128_000_100_000),
        Rate(i64::MAX),
    ] {
        let outcome = run(rig.client.create(&create(Some(bid))));
        assert_eq!(why(&outcome), Some(RefusedWhy::Invalid), "{bid:?}");
    }
    for bid in [Rate::ZERO, Rate(-1), Rate(999_999)] {
        let outcome = run(rig.client.set_bid(InstanceId(7), bid));
        assert_eq!(why(&outcome), Some(RefusedWhy::Invalid), "{bid:?}");
    }
    rig.client.disable_bids();
    let outcome = run(rig.client.create(&create(Some(BID))));
    assert_eq!(why(&outcome), Some(RefusedWhy::Unsupported));
    assert!(rig.script.take().is_empty());
}

#[test]
fn what_is_out_of_bounds_is_never_sent() {
    let rig = rig();
    let bad: [fn(&mut CreateRequest); 10] = [
        |r| r.offer = OfferId(0),
        |r| r.label = String::new(),
        |r| r.label = "x".repeat(257),
        |r| r.disk_gb = 7,
        |r| r.image = None,
        |r| r.image = Some("x".repeat(1025)),
        |r| r.env = vec![("A".to_owned(), "x".repeat(255))],
        |r| {
            let entry = |n| (format!("A{n}"), "x".repeat(220));
            r.env = (0..150).map(entry).collect();
        },
        |r| r.args = vec!["x".repeat(4097)],
        |r| r.onstart = Some("x".repeat(4091)),
    ];
    for (number, spoil) in bad.into_iter().enumerate() {
        let mut request = create(None);
        spoil(&mut request);
        let outcome = run(rig.client.create(&request));
        assert_eq!(why(&outcome), Some(RefusedWhy::Invalid), "{number}");
    }
    for label in ["", &"x".repeat(1025)] {
        let outcome = run(rig.client.set_label(InstanceId(7), label));
        assert_eq!(why(&outcome), Some(RefusedWhy::Invalid));
    }
    for act in [
        run(rig.client.destroy(InstanceId(0))),
        run(rig.client.stop(InstanceId(0))),
        run(rig.client.destroy_many(&[InstanceId(1), InstanceId(0)])),
    ] {
        assert_eq!(
            why(&act),
            Some(RefusedWhy::Invalid),
            "it would name the list"
        );
    }
    assert!(rig.script.take().is_empty());
}

#[test]
fn a_bid_too_low_leaves_an_instance_that_is_named() {
    for (status, body) in [
        (
            400,
            json!({"success":false,"error":"invalid_price","msg":"too low","new_contract":77}),
        ),
        (
            200,
            json!({"success":false,"msg":"bid is too low","new_contract":"77"}),
        ),
        (200, json!({"success":false,"new_contract":77})),
    ] {
        let rig = rig();
        rig.script.reply(status, &body);
        match run(rig.client.create(&create(Some(BID)))) {
            Outcome::Refused { why, leftover, .. } => {
                assert_eq!(why, RefusedWhy::BidTooLow, "{body}");
                assert_eq!(leftover, Some(InstanceId(77)), "{body}");
            }
            other => panic!("{body}: {other:?}"),
        }
    }
}

#[test]
fn an_on_demand_rental_that_left_a_stopped_instance_names_it_too() {
    let rig = rig();
    let said = "Required resources are currently unavailable";
    rig.script
        .reply(200, json!({"success":false,"msg":said,"new_contract":78}));
    match run(rig.client.create(&create(None))) {
        Outcome::Refused { why, leftover, .. } => {
            assert_eq!(why, RefusedWhy::NoSuchOffer, "taken: try the next");
            assert_eq!(leftover, Some(InstanceId(78)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_offer_that_is_gone_is_told_by_its_word_whatever_the_status() {
    let gone = "error 410/3907: no_such_ask Instance type 5 is no longer available.";
    for (status, body) in [
        (400, error("no_such_ask", gone)),
        (410, error("no_such_ask", gone)),
        (404, error("invalid_args", gone)),
        (200, error("invalid_args", gone)),
        (404, json!({"detail":gone})),
    ] {
        let rig = rig();
        rig.script.reply(status, &body);
        let outcome = run(rig.client.create(&create(None)));
        assert_eq!(
            why(&outcome),
            Some(RefusedWhy::NoSuchOffer),
            "{status} {body}"
        );
    }
}

#[test]
fn a_poor_account_blames_no_host() {
    for (status, body) in [
        (
            400,
            error("insufficient_credit", "Your account lacks credit"),
        ),
        (
            400,
            error("invalid_args", "spend_rate_limit: verify your e-mail"),
        ),
        (402, json!({"msg":"payment required"})),
        (400, error("missing_billing", "")),
        (411, json!({"msg":"Insufficient credit"})),
    ] {
        let rig = rig();
        rig.script.reply(status, &body);
        let outcome = run(rig.client.create(&create(Some(BID))));
        assert_eq!(why(&outcome), Some(RefusedWhy::Account), "{status} {body}");
    }
}

#[test]
fn a_create_that_does_not_name_what_it_made_is_unknown() {
    for body in [
        json!({"success":true}),
        json!({"success":true,"new_contract":null}),
        json!({"success":true,"new_contract":0}),
        json!({}),
        json!(null),
        json!([]),
    ] {
        let rig = rig();
        rig.script.reply(200, &body);
        let outcome = run(rig.client.create(&create(None)));
        assert!(
            matches!(outcome, Outcome::Unknown(_)),
            "{body}: {outcome:?}"
        );
    }
}

#[test]
fn a_queued_start_is_no_start() {
    let rig = rig();
    let said = "Required resources are currently unavailable, state change queued.";
    rig.script.reply(200, json!({"success":false,"msg":said}));
    let outcome = run(rig.client.start(InstanceId(7)));
    assert_eq!(why(&outcome), Some(RefusedWhy::Queued));
    rig.script.reply(200, json!({"success":true}));
    assert_eq!(run(rig.client.start(InstanceId(7))), Outcome::Done(()));
    assert_eq!(rig.script.bodies()[1], json!({"state":"running"}));
}

#[test]
fn each_change_goes_where_it_is_documented() {
    let rig = rig();
    let id = InstanceId(7);
    for _ in 0..5 {
        rig.script.reply(200, json!({"success":true}));
    }
    assert_eq!(
        run(rig.client.set_bid(id, Rate(123_456_789))),
        Outcome::Done(())
    );
    assert_eq!(run(rig.client.stop(id)), Outcome::Done(()));
    assert_eq!(run(rig.client.set_label(id, "hg-x")), Outcome::Done(()));
    assert_eq!(run(rig.client.destroy(id)), Outcome::Done(()));
    assert_eq!(
        run(rig.client.destroy_many(&[id, InstanceId(8)])),
        Outcome::Done(())
    );
    let requests = rig.script.take();
    let shown: Vec<String> = requests
        .iter()
        .map(|r| {
            let body = r.body.as_deref().map(String::from_utf8_lossy);
            format!("{r:?} {}", body.unwrap_or_default())
        })
        .collect();
    assert_eq!(
        shown,
        [
            r#"PUT /api/v0/instances/bid_price/7/ {"client_id":"me","price":0.1234}"#,
            r#"PUT /api/v0/instances/7/ {"state":"stopped"}"#,
            r#"PUT /api/v0/instances/7/ {"label":"hg-x"}"#,
            "DELETE /api/v0/instances/7/ ",
            r#"DELETE /api/v0/instances/ {"instance_ids":[7,8]}"#,
        ]
    );
}

#[test]
fn a_success_that_says_false_is_a_refusal_and_one_that_says_nothing_is_unknown() {
    let rig = rig();
    let id = InstanceId(7);
    let acts: [fn(&Vast) -> Outcome<()>; 5] = [
        |c| run(c.stop(InstanceId(7))),
        |c| run(c.destroy(InstanceId(7))),
        |c| run(c.set_bid(InstanceId(7), BID)),
        |c| run(c.set_label(InstanceId(7), "x")),
        |c| run(c.destroy_many(&[InstanceId(7)])),
    ];
    for act in acts {
        rig.script.reply(200, json!({"success":false,"msg":"no"}));
        assert_eq!(why(&act(&rig.client)), Some(RefusedWhy::Invalid));
        for body in ["{}", "", "<html>", r#"{"success":tr"#, "null"] {
            rig.script.reply(200, body);
            let outcome = act(&rig.client);
            assert!(
                matches!(outcome, Outcome::Unknown(_)),
                "{body}: {outcome:?}"
            );
        }
    }
    // A second destroy.
    rig.script
        .reply(404, error("no_such_instance", "No such instance"));
    assert_eq!(
        why(&run(rig.client.destroy(id))),
        Some(RefusedWhy::NoSuchInstance)
    );
    rig.script
        .reply(404, error("not_found", "Instance not found"));
    assert_eq!(
        why(&run(rig.client.stop(id))),
        Some(RefusedWhy::NoSuchInstance)
    );
    // A 404 of nobody in particular.
    rig.script.reply(404, "<html>nginx</html>");
    assert_ne!(
        why(&run(rig.client.destroy(id))),
        Some(RefusedWhy::NoSuchInstance)
    );
}

#[test]
fn many_are_destroyed_in_few_requests_where_that_is_possible() {
    let ids: Vec<InstanceId> = (1..=130).map(InstanceId).collect();
    let rig = rig();
    assert_eq!(run(rig.client.destroy_many(&[])), Outcome::Done(()));
    for _ in 0..3 {
        rig.script.reply(200, json!({"success":true}));
    }
    assert_eq!(run(rig.client.destroy_many(&ids)), Outcome::Done(()));
    let sizes: Vec<usize> = rig
        .script
        .bodies()
        .iter()
        .map(|body| body["instance_ids"].as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [64, 64, 2]);
    rig.script
        .reply(404, error("no_such_instance", "instance 5"));
    let outcome = run(rig.client.destroy_many(&ids[..2]));
    assert_eq!(why(&outcome), Some(RefusedWhy::NoSuchInstance));
    // A marketplace without that route is asked once.
    for _ in 0..2 {
        if rig.script.left() == 0 {
            rig.script.reply(405, "Method Not Allowed");
        }
        let outcome = run(rig.client.destroy_many(&ids[..2]));
        assert_eq!(why(&outcome), Some(RefusedWhy::Unsupported));
    }
    assert_eq!(rig.script.take().len(), 2);
}

#[test]
fn a_refused_key_is_a_refused_key_for_every_change() {
    for (status, body) in [
        (401, bad_key()),
        (
            403,
            json!({"error":"auth_error","msg":"This action requires login."}),
        ),
        (404, bad_key()),
        (404, json!({"msg":"Session expired. Please log in again."})),
        (
            404,
            json!({"error":"auth_error","msg":"no_such_instance no_such_ask"}),
        ),
        (200, bad_key()),
    ] {
        let rig = rig();
        for _ in 0..3 {
            rig.script.reply(status, &body);
        }
        assert_eq!(
            why(&run(rig.client.create(&create(None)))),
            Some(RefusedWhy::Unauthorized)
        );
        let outcomes = [
            run(rig.client.destroy(InstanceId(7))),
            run(rig.client.destroy_many(&[InstanceId(7)])),
        ];
        for outcome in outcomes {
            assert_eq!(
                why(&outcome),
                Some(RefusedWhy::Unauthorized),
                "{status} {body}"
            );
        }
    }
    // Renting somebody else's machine is not a matter of the key.
    let rig = rig();
    rig.script
        .reply(403, error("invalid_args", "not your machine"));
    let outcome = run(rig.client.create(&create(None)));
    assert_eq!(why(&outcome), Some(RefusedWhy::Invalid));
}
