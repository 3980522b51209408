//! What is changed, and in which form of URL.

use super::*;

#[test]
fn the_old_form_is_learnt_from_a_read_and_remembered() {
    let rig = rig();
    rig.script.reply(404, UNROUTED);
    rig.script.reply(200, json!({"instances":{"id":7}}));
    assert!(run(rig.client.instance(InstanceId(7))).unwrap().is_some());
    let key = Family::Instances.key().to_owned();
    assert_eq!(rig.client.learnt(), vec![(key, Some("old".to_owned()))]);
    assert_eq!(rig.client.learnt(), vec![]);
    rig.script.reply(200, json!({"success":true}));
    assert_eq!(run(rig.client.destroy(InstanceId(7))), Outcome::Done(()));
    assert_eq!(
        rig.script.asked(),
        vec![
            "GET /instances/7",
            "GET /instances/instance_id?instance_id=7",
            "DELETE /instances/instance_id?instance_id=7",
        ]
    );
}

#[test]
fn a_first_mutation_is_preceded_by_a_harmless_read() {
    let rig = rig();
    rig.script.reply(200, json!({"instances":{"id":7}}));
    rig.script.reply(200, json!({"data":{"success":true}}));
    assert_eq!(
        run(rig.client.set_bid(InstanceId(7), Rate(123_456_789))),
        Outcome::Done(())
    );
    let requests = rig.script.take();
    assert_eq!(format!("{:?}", requests[0]), "GET /bids/7");
    assert_eq!(format!("{:?}", requests[1]), "PUT /bids/7");
    assert_eq!(
        requests[1].body.as_deref(),
        Some(br#"{"price":0.1234}"#.as_slice())
    );
}

#[test]
fn a_mutation_never_takes_the_old_form_without_proof() {
    // Remembered as old, but the gateway now knows only the new form, and takes the placeholder for
    // the id: the read says "absent", the new form answers, and the mutation goes there.
    let rig = rig_with(&[(Family::Instances, "old")]);
    rig.script.reply(200, json!({"instances":null}));
    rig.script.reply(200, json!({"instances":{"id":7}}));
    rig.script.reply(200, json!({"success":true}));
    assert_eq!(run(rig.client.destroy(InstanceId(7))), Outcome::Done(()));
    assert_eq!(
        rig.script.asked(),
        vec![
            "GET /instances/instance_id?instance_id=7",
            "GET /instances/7",
            "DELETE /instances/7"
        ]
    );
    // Nothing is proven: the new form is sent, the gateway does not know it, and it ends there.
    let rig = self::rig();
    for _ in 0..2 {
        rig.script.reply(404, UNROUTED);
        rig.script
            .reply(404, wrapped_error(json!({"error":"no_such_instance"})));
        rig.script.reply(404, UNROUTED);
    }
    let outcome = run(rig.client.destroy(InstanceId(7)));
    assert_eq!(why(&outcome), Some(RefusedWhy::Unsupported));
    assert!(
        rig.script
            .asked()
            .iter()
            .all(|a| !a.starts_with("DELETE /instances/instance_id"))
    );
}

#[test]
fn a_form_that_stops_working_is_learnt_anew() {
    let rig = rig_with(&[(Family::Instances, "new")]);
    rig.script.reply(404, UNROUTED);
    rig.script.reply(404, UNROUTED);
    rig.script.reply(200, json!({"instances":{"id":7}}));
    rig.script.reply(200, json!({"success":true}));
    assert_eq!(run(rig.client.stop(InstanceId(7))), Outcome::Done(()));
    assert_eq!(
        rig.script.asked(),
        vec![
            "POST /instances/7/stop",
            "GET /instances/7",
            "GET /instances/instance_id?instance_id=7",
            "POST /instances/instance_id/stop?instance_id=7",
        ]
    );
    let key = Family::Instances.key().to_owned();
    assert_eq!(
        rig.client.learnt(),
        vec![(key.clone(), None), (key, Some("old".to_owned()))]
    );
}

#[test]
fn an_id_of_zero_is_never_sent() {
    let rig = rig();
    let outcome = run(rig.client.destroy(InstanceId(0)));
    assert_eq!(why(&outcome), Some(RefusedWhy::Invalid));
    assert!(run(rig.client.instance(InstanceId(0))).is_err());
    assert_eq!(rig.script.take().len(), 0);
}

#[test]
fn bids_and_on_demand_go_different_ways() {
    let rig = rig();
    rig.script.reply(
        200,
        wrapped(json!({"success":true,"new_contract":"77","instance_api_key":"k"})),
    );
    rig.script
        .reply(200, json!({"success":true,"new_contract":78}));
    let bid = run(rig.client.create(&create(Some(Rate(162_050_000)))));
    assert_eq!(bid, Outcome::Done(InstanceId(77)));
    assert_eq!(
        run(rig.client.create(&create(None))),
        Outcome::Done(InstanceId(78))
    );
    let requests = rig.script.take();
    assert_eq!(format!("{:?}", requests[0]), "POST /bids");
    assert_eq!(format!("{:?}", requests[1]), "POST /instances");
    let body: Value = serde_json::from_slice(requests[0].body.as_ref().unwrap()).unwrap();
    assert_eq!(
        body,
        json!({"offer_id":"5","price":0.162,"disk":24,"label":"hg-abcdefgh-train-r0-1","runtype":"args",
            "cancel_unavail":true,"image":"pytorch/pytorch:2","args":["python"],
            "env":{"HF_TOKEN":"hf_canary987654"},"image_login":"-u me -p pwcanary99 ghcr.io"})
    );
    let body: Value = serde_json::from_slice(requests[1].body.as_ref().unwrap()).unwrap();
    assert_eq!(body.get("price"), None);
    assert!(
        rig.clock.monotonic() >= crate::types::time::Mono(4500),
        "creates are spaced"
    );
}

#[test]
fn refused_creates_say_why_and_what_they_left() {
    let low = json!({"success":false,"error":"invalid_args","msg":"bid","new_contract":77});
    let rows = [
        (
            410,
            json!({"success":false,"error":"no_such_ask"}),
            RefusedWhy::NoSuchOffer,
            None,
        ),
        (
            400,
            wrapped_error(low.clone()),
            RefusedWhy::BidTooLow,
            Some(InstanceId(77)),
        ),
        (200, low, RefusedWhy::BidTooLow, Some(InstanceId(77))),
        (
            400,
            json!({"error":"insufficient_credit","new_contract":5}),
            RefusedWhy::Account,
            Some(InstanceId(5)),
        ),
        (
            403,
            json!({"message":"Invalid api_token"}),
            RefusedWhy::Unauthorized,
            None,
        ),
        (
            404,
            json!({"message":"Not Found"}),
            RefusedWhy::Unsupported,
            None,
        ),
        (
            404,
            wrapped_error(json!({"error":"auth_error"})),
            RefusedWhy::Unauthorized,
            None,
        ),
        (
            429,
            json!("API requests too frequent"),
            RefusedWhy::Throttled,
            None,
        ),
        (
            400,
            json!({"error":"invalid_args"}),
            RefusedWhy::Invalid,
            None,
        ),
    ];
    for (status, body, expected, left) in rows {
        let rig = rig();
        rig.script.reply(status, &body);
        match run(rig.client.create(&create(Some(Rate(100_000_000))))) {
            Outcome::Refused { why, leftover, .. } => {
                assert_eq!((why, leftover), (expected, left), "{body}");
            }
            other => panic!("{body}: {other:?}"),
        }
        assert_eq!(rig.script.take().len(), 1, "a mutation is never retried");
    }
}

#[test]
fn what_nobody_knows_is_unknown() {
    let timeout = TransportError::Timeout(Duration::from_secs(30));
    let broken = TransportError::Broken("reset".to_owned());
    for line in [
        Err(timeout),
        Err(broken),
        Ok((
            500,
            wrapped_error(json!({"error":"no_such_ask"})).to_string(),
        )),
        Ok((502, "<html>".to_owned())),
        Ok((308, String::new())),
        Ok((200, String::new())),
        Ok((200, "{\"success\":tr".to_owned())),
        Ok((200, "{\"success\":true}".to_owned())),
        Ok((200, "{}".to_owned())),
        Ok((200, "null".to_owned())),
    ] {
        let rig = rig();
        rig.script.line(line.clone());
        let outcome = run(rig.client.create(&create(None)));
        assert!(
            matches!(outcome, Outcome::Unknown(_)),
            "{line:?}: {outcome:?}"
        );
    }
    let rig = rig();
    rig.script
        .fail(TransportError::Connect("refused".to_owned()));
    assert_eq!(
        why(&run(rig.client.create(&create(None)))),
        Some(RefusedWhy::NotSent)
    );
}

#[test]
fn acts_on_instances_are_told_apart() {
    let queued = "Required resources are currently unavailable, state change queued.";
    let rows = [
        (
            200,
            json!({"success":false,"msg":queued}),
            Some(RefusedWhy::Queued),
        ),
        (
            404,
            json!({"success":false,"error":"no_such_instance"}),
            Some(RefusedWhy::NoSuchInstance),
        ),
        (
            404,
            json!({"success":false,"error":"not_found"}),
            Some(RefusedWhy::NoSuchInstance),
        ),
        (
            404,
            json!({"success":false,"error":"auth_error"}),
            Some(RefusedWhy::Unauthorized),
        ),
        (200, json!({"data":{}}), None),
        (
            500,
            json!({"success":false,"error":"no_such_instance"}),
            None,
        ),
    ];
    for (status, body, expected) in rows {
        let rig = rig_with(&[(Family::Instances, "new")]);
        rig.script.reply(status, &body);
        let outcome = run(rig.client.start(InstanceId(7)));
        assert_eq!(why(&outcome), expected, "{body}");
        assert_eq!(
            matches!(outcome, Outcome::Unknown(_)),
            expected.is_none(),
            "{body}"
        );
    }
}

#[test]
fn what_must_not_be_sent_is_not() {
    let rig = rig();
    let unlabelled = CreateRequest {
        label: String::new(),
        ..create(None)
    };
    assert_eq!(
        why(&run(rig.client.create(&unlabelled))),
        Some(RefusedWhy::Invalid)
    );
    for bid in [Rate(0), Rate(-1), Rate(999_999)] {
        let outcome = run(rig.client.create(&create(Some(bid))));
        assert_eq!(why(&outcome), Some(RefusedWhy::Invalid));
        assert_eq!(
            why(&run(rig.client.set_bid(InstanceId(7), bid))),
            Some(RefusedWhy::Invalid)
        );
    }
    assert!(rig.client.can_bid());
    rig.client.disable_bids();
    assert!(!rig.client.can_bid());
    let outcome = run(rig.client.create(&create(Some(Rate(100_000_000)))));
    assert_eq!(why(&outcome), Some(RefusedWhy::Unsupported));
    assert_eq!(rig.script.take().len(), 0);
}

#[test]
fn a_label_is_changed_by_updating_the_instance() {
    let rig = rig_with(&[(Family::Instances, "new")]);
    rig.script.reply(200, json!({"data":{"success":true}}));
    let outcome = run(rig
        .client
        .set_label(InstanceId(7), "hg-abcdefgh-train-r0-2"));
    assert_eq!(outcome, Outcome::Done(()));
    let requests = rig.script.take();
    assert_eq!(format!("{:?}", requests[0]), "PUT /instances/7");
    assert_eq!(
        requests[0].body.as_deref(),
        Some(br#"{"label":"hg-abcdefgh-train-r0-2"}"#.as_slice())
    );
    rig.script
        .reply(404, wrapped_error(json!({"error":"no_such_instance"})));
    let outcome = run(rig.client.set_label(InstanceId(8), "x"));
    assert_eq!(why(&outcome), Some(RefusedWhy::NoSuchInstance));
}
