//! What a gateway says of itself, and what is made of it.

use super::*;

/// A client that asks, with a script.
fn asking(paths: &[(&str, &str)]) -> Rig {
    let script = Arc::new(Scripted::default());
    let clock = Arc::new(SimClock::default());
    let options = LowCodeOptions {
        discover: true,
        read_retries: 0,
        paths: paths
            .iter()
            .map(|&(name, path)| (name.to_owned(), path.to_owned()))
            .collect(),
        ..LowCodeOptions::new(SecretString::from(CANARY))
    };
    let client = LowCode::new(
        Arc::clone(&script) as Arc<dyn Transport>,
        Arc::clone(&clock) as Arc<dyn Clock>,
        options,
        &BTreeMap::new(),
    );
    Rig {
        script,
        clock,
        client,
    }
}

/// A description of what no marketplace can be without, and more.
fn description(more: Value) -> Value {
    let mut paths = json!({
        "/vastai/offers": {"get": {"summary": "List available GPU offers"}},
        "/vastai/instances": {
            "get": {"summary": "List instances"},
            "post": {"summary": "Create new instance"},
        },
    });
    for (path, item) in more.as_object().unwrap() {
        paths[path] = item.clone();
    }
    json!({"openapi": "3.0.0", "paths": paths})
}

#[test]
fn it_is_asked_once_and_without_the_token() {
    let rig = asking(&[]);
    rig.script.reply(404, UNROUTED);
    rig.script.reply(
        200,
        description(
            json!({"/vastai/account/balance": {"get": {"summary": "Get account balance"}},
            "/vastai/user": {"get": {"summary": "Get current user information"}}}),
        ),
    );
    rig.script.reply(200, json!({"data":{"id":7}}));
    rig.script.reply(200, json!({"data":{"credit":5}}));
    run(rig.client.account()).unwrap();
    let requests = rig.script.take();
    assert!(
        requests[..2]
            .iter()
            .all(|r| r.query.is_empty() && r.bearer.is_none())
    );
    let asked: Vec<String> = requests.iter().map(|r| format!("{r:?}")).collect();
    assert_eq!(
        asked,
        [
            "GET /openapi",
            "GET /definition",
            "GET /user",
            "GET /account/balance"
        ]
    );
    rig.script.reply(200, json!({"instances":[]}));
    run(rig.client.instances()).unwrap();
    assert_eq!(rig.script.asked(), ["GET /instances"]);
}

#[test]
fn a_gateway_without_bids_is_never_bid_at_but_the_configuration_knows_better() {
    for (paths, can) in [
        (&[][..], false),
        (&[("create_bid", "/bid"), ("update_bid", "/bid/{id}")], true),
    ] {
        let rig = asking(paths);
        assert!(rig.client.can_bid(), "as far as is known");
        rig.script.reply(200, description(json!({})));
        rig.script.reply(200, json!({"instances":[]}));
        run(rig.client.instances()).unwrap();
        assert_eq!(rig.client.can_bid(), can);
        if !can {
            rig.script.take();
            let outcome = run(rig.client.create(&create(Some(Rate(200_000_000)))));
            assert_eq!(why(&outcome), Some(RefusedWhy::Unsupported));
            assert_eq!(rig.script.asked(), Vec::<String>::new());
        }
    }
}

#[test]
fn a_gateway_that_does_not_describe_itself_is_used_all_the_same() {
    for (status, body) in [
        (404, UNROUTED.to_owned()),
        (200, "<html>".to_owned()),
        (200, json!({"paths": {"/pets": {"get": {}}}}).to_string()),
        (401, json!({"message": "no"}).to_string()),
    ] {
        let rig = asking(&[]);
        rig.script.reply(status, &body).reply(status, &body);
        rig.script.reply(200, json!({"instances":[]}));
        run(rig.client.instances()).unwrap();
        assert!(rig.client.can_bid());
        rig.script.reply(200, json!({"instances":[]}));
        run(rig.client.instances()).unwrap();
        assert_eq!(rig.script.left(), 0);
    }
}

#[test]
fn one_that_did_not_answer_is_asked_again_after_a_while() {
    let rig = asking(&[]);
    let silent = || TransportError::Timeout(Duration::from_secs(30));
    rig.script.fail(silent()).fail(silent());
    rig.script.reply(200, json!({"instances":[]}));
    run(rig.client.instances()).unwrap();
    rig.script.take();
    rig.script.reply(200, json!({"instances":[]}));
    run(rig.client.instances()).unwrap();
    assert_eq!(rig.script.asked(), ["GET /instances"]);
    run(rig
        .clock
        .sleep_until(rig.clock.now() + Duration::from_mins(11)));
    rig.script.reply(200, description(json!({})));
    rig.script.reply(200, json!({"instances":[]}));
    run(rig.client.instances()).unwrap();
    assert_eq!(rig.script.asked(), ["GET /openapi", "GET /instances"]);
    assert!(!rig.client.can_bid());
}

#[test]
fn the_old_form_that_is_described_is_read_first_and_a_change_still_needs_proof() {
    let parameters = json!([{"name": "instance_id", "in": "query", "required": true}]);
    let old = description(json!({"/vastai/instances/instance_id": {
        "parameters": parameters,
        "get": {"summary": "Get instance details"},
        "delete": {"summary": "Delete instance"},
    }}));
    // It is as described.
    let rig = asking(&[]);
    rig.script.reply(200, &old);
    rig.script.reply(200, json!({"instances":{"id":7}}));
    rig.script.reply(200, json!({"success":true}));
    assert_eq!(run(rig.client.destroy(InstanceId(7))), Outcome::Done(()));
    assert_eq!(
        rig.script.asked(),
        [
            "GET /openapi",
            "GET /instances/instance_id?instance_id=7",
            "DELETE /instances/instance_id?instance_id=7"
        ]
    );
    // It is not: the placeholder was taken for an id, so the change goes the other way.
    let rig = asking(&[]);
    rig.script.reply(200, &old);
    rig.script.reply(200, json!({"instances":null}));
    rig.script.reply(200, json!({"instances":{"id":7}}));
    rig.script.reply(200, json!({"success":true}));
    assert_eq!(run(rig.client.destroy(InstanceId(7))), Outcome::Done(()));
    assert_eq!(rig.script.asked().last().unwrap(), "DELETE /instances/7");
}
