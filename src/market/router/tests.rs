//! The router over a small generated market: every envelope, path format and fault.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::clock::SimClock;
use crate::market::MarketOptions;
use crate::market::faults::{FaultScript, FaultSpec};

const ENVELOPES: [Envelope; 3] = [Envelope::Data, Envelope::Result, Envelope::None];

struct World {
    server: MarketServer,
    clock: Arc<SimClock>,
    envelope: Envelope,
}

/// A still market of some machines, where nothing happens but what is asked.
fn market() -> Market {
    Market::generated(MarketOptions {
        machines: Some(40),
        intensity: 0.0,
        failures: 0.0,
        ..MarketOptions::default()
    })
}

fn world_with(options: WireOptions, faults: Faults) -> World {
    let clock = Arc::new(SimClock::new(MarketOptions::default().start));
    let envelope = options.envelope;
    let server = MarketServer::new(
        market(),
        options,
        faults,
        Arc::clone(&clock) as Arc<dyn Clock>,
    );
    World {
        server,
        clock,
        envelope,
    }
}

fn world(options: WireOptions) -> World {
    world_with(options, Faults::none())
}

fn enveloped(envelope: Envelope) -> WireOptions {
    WireOptions {
        envelope,
        ..WireOptions::default()
    }
}

fn request(method: Method, path: &str, query: &[(&str, &str)], body: Value) -> Request {
    let query = query
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Request {
        method,
        path: format!("/vastai{path}"),
        query: query.collect(),
        bearer: None,
        body: (!body.is_null()).then(|| Bytes::from(body.to_string())),
    }
}

fn body(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

impl World {
    fn raw(&self, request: &Request) -> Reply {
        match self.server.handle(request) {
            Handled::Reply(reply) => reply,
            Handled::Hang => panic!("{request:?} hangs"),
        }
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        fields: Value,
    ) -> (u16, Value) {
        let mut query = query.to_vec();
        query.push(("api_token", "at_one"));
        let reply = self.raw(&request(method, path, &query, fields));
        (reply.status, body(&reply))
    }

    /// The answer of a call that succeeds, out of its envelope.
    fn ok(&self, method: Method, path: &str, query: &[(&str, &str)], fields: Value) -> Value {
        let (status, answer) = self.send(method, path, query, fields);
        assert_eq!(status, 200, "{path}: {answer}");
        match self.envelope {
            Envelope::Data => answer["data"].clone(),
            Envelope::Result => {
                assert_eq!(answer["provider"], "vastai");
                answer["result"].clone()
            }
            Envelope::None => answer,
        }
    }

    /// The status, code and the rest of a refusal, out of its envelope.
    fn refused(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        fields: Value,
    ) -> (u16, String, Value) {
        let (status, answer) = self.send(method, path, query, fields);
        let (error, code) = match self.envelope {
            Envelope::Data => (answer["data"]["error"].clone(), "code"),
            Envelope::Result => (answer["error"].clone(), "error"),
            Envelope::None => (answer.clone(), "error"),
        };
        let code = error[code]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned();
        (status, code, error)
    }

    fn offers(&self, query: &[(&str, &str)]) -> Vec<Value> {
        let answer = self.ok(Method::Get, "/offers", query, Value::Null);
        answer["offers"].as_array().unwrap().clone()
    }

    /// An offer whose floor is under its fixed rate, on a machine that nothing was rented on.
    fn offer(&self) -> Value {
        let rented: Vec<Value> = self
            .instances()
            .iter()
            .map(|i| i["machine_id"].clone())
            .collect();
        let free = |row: &Value| {
            !rented.contains(&row["machine_id"])
                && number(&row["min_bid"]) < number(&row["dph_base"])
        };
        self.offers(&[("order", "dph_total")])
            .into_iter()
            .find(free)
            .unwrap()
    }

    fn bid(&self, over: f64) -> u64 {
        let offer = self.offer();
        let fields = json!({"offer_id": offer["id"], "price": number(&offer["min_bid"]) + over,
            "image": "ubuntu:24.04", "disk": 10, "label": "mine", "env": {"A": 1, "-p 80:80": "1"},
            "args": ["x"], "onstart": null});
        let made = self.ok(Method::Post, "/bids", &[], fields);
        made["new_contract"].as_u64().unwrap()
    }

    fn instances(&self) -> Vec<Value> {
        let answer = self.ok(Method::Get, "/instances", &[], Value::Null);
        answer["instances"].as_array().unwrap().clone()
    }

    fn instance(&self, id: u64) -> Value {
        let answer = self.ok(Method::Get, &format!("/instances/{id}"), &[], Value::Null);
        answer["instances"].clone()
    }
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_rental_lives_and_dies_in_every_envelope_and_path_format() {
    for envelope in ENVELOPES {
        for (paths, old) in [
            (Paths::New, false),
            (Paths::Old, true),
            (Paths::Both, false),
            (Paths::Both, true),
        ] {
            let world = world(WireOptions {
                paths,
                ..enveloped(envelope)
            });
            let offer = world.offer();
            let fields = json!({"offer_id": offer["id"].to_string(), "price": number(&offer["min_bid"]) + 0.02,
                "image": "ubuntu:24.04", "disk": 12.0, "label": "a", "env": {"K": "v"}});
            let made = world.ok(Method::Post, "/bids", &[], fields);
            let id = made["new_contract"].as_u64().unwrap();
            let text = id.to_string();
            let call = |method, kind: &str, tail: &str, fields: Value| {
                let family = format!("/{kind}s");
                if old {
                    let path = format!("{family}/{kind}_id{tail}");
                    world.ok(method, &path, &[(&format!("{kind}_id"), &text)], fields)
                } else {
                    world.ok(method, &format!("{family}/{text}{tail}"), &[], fields)
                }
            };
            let read = || call(Method::Get, "instance", "", Value::Null)["instances"].clone();
            assert_eq!(read()["is_bid"], true, "{envelope} {paths}");
            assert_eq!(
                call(Method::Get, "bid", "", Value::Null)["instances"]["id"],
                id
            );
            assert_eq!(
                call(Method::Put, "instance", "", json!({"label": "b"}))["success"],
                true
            );
            assert_eq!(read()["label"], "b");
            let raised = number(&offer["min_bid"]) + 0.05;
            call(Method::Put, "bid", "", json!({"price": raised.to_string()}));
            assert!((number(&read()["dph_base"]) - raised).abs() < 1e-4);
            assert_eq!(
                call(Method::Post, "instance", "/stop", json!({}))["success"],
                true
            );
            assert_eq!(read()["cur_state"], "stopped");
            assert_eq!(
                call(Method::Post, "instance", "/start", Value::Null)["success"],
                true
            );
            assert_eq!(
                call(Method::Delete, "instance", "", json!({}))["success"],
                true
            );
            assert_eq!(read(), Value::Null);
            assert_eq!(world.instances(), Vec::<Value>::new());
        }
    }
}

#[test]
fn refusals_and_the_gateways_own_404_are_told_apart_in_every_envelope() {
    for envelope in ENVELOPES {
        let world = world(enveloped(envelope));
        let (status, code, _) = world.refused(Method::Delete, "/instances/99", &[], Value::Null);
        assert_eq!((status, code.as_str()), (404, "no_such_instance"));
        let gone = json!({"offer_id": 1, "image": "a:b"});
        let (status, _, error) = world.refused(Method::Post, "/instances", &[], gone);
        assert!(matches!(status, 404 | 410), "{status}");
        assert!(
            error.to_string().contains("no_such_ask") && error["ask_id"] == 1,
            "{error}"
        );
        let (status, code, _) =
            world.refused(Method::Get, "/offers", &[("q", r#"{"a":1}"#)], Value::Null);
        assert_eq!((status, code.as_str()), (400, "invalid_request"));
        let (status, code, _) = world.refused(Method::Post, "/bids", &[], json!({"offer_id": "x"}));
        assert_eq!((status, code.as_str()), (400, "invalid_args"));
        for (method, path) in [
            (Method::Get, "/openapi"),
            (Method::Post, "/offers"),
            (Method::Get, "/instances/1/2/3"),
        ] {
            let own = world.raw(&request(method, path, &[], Value::Null));
            assert_eq!(
                (own.status, body(&own)),
                (404, json!({"message": "Not Found"})),
                "before the token"
            );
        }
        let elsewhere = Request {
            path: "/vast/offers".to_owned(),
            ..request(Method::Get, "", &[], Value::Null)
        };
        assert_eq!(world.raw(&elsewhere).status, 404);
    }
}

#[test]
fn a_low_bid_is_an_error_that_names_what_it_left_behind() {
    for envelope in ENVELOPES {
        let world = world(enveloped(envelope));
        let offer = world.offer();
        let fields = json!({"offer_id": offer["id"], "price": 0.001, "image": "a:b", "disk": 10});
        let (status, _, error) = world.refused(Method::Post, "/bids", &[], fields);
        assert!(status >= 400);
        let id = error["new_contract"].as_u64().unwrap();
        assert_eq!(world.instance(id)["cur_state"], "stopped");
    }
}

#[test]
fn only_the_query_token_counts_and_a_refusal_echoes_it() {
    let with = |token: Option<&str>, query: &[(&str, &str)]| {
        let token = token.map(|token| SecretString::from(token.to_owned()));
        let world = world(WireOptions {
            token,
            ..enveloped(Envelope::Result)
        });
        let mut request = request(Method::Get, "/users/me", query, Value::Null);
        request.bearer = Some("at_good".to_owned());
        world.raw(&request)
    };
    for query in [
        &[][..],
        &[("api_token", "key_1")],
        &[("api_token", "")],
        &[("api_key", "at_good")],
    ] {
        let reply = with(Some("at_good"), query);
        assert_eq!(reply.status, 401);
        assert_eq!(body(&reply)["headers"]["authorization"], "Bearer at_good");
        for (key, value) in query {
            assert_eq!(body(&reply)["query"][key], *value);
        }
    }
    let wrong = with(Some("at_good"), &[("api_token", "at_bad")]);
    assert_eq!(
        (wrong.status, body(&wrong)),
        (403, json!({"message": "Invalid api_token"}))
    );
    let twice = [("api_token", "at_good"), ("api_token", "at_good")];
    assert_eq!(with(Some("at_good"), &twice).status, 500);
    assert_eq!(
        with(Some("at_good"), &[("api_token", "at_good")]).status,
        200
    );
    let id = |token| {
        body(&with(None, &[("api_token", token)]))["result"]["id"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(id("at_a"), id("at_a"));
    assert_ne!(
        id("at_a"),
        id("at_b"),
        "each token is an account of its own"
    );
}

#[test]
fn a_gateway_of_the_new_format_takes_the_placeholder_for_an_id() {
    let old = |literal_ids| {
        let paths = Paths::New;
        let world = world(WireOptions {
            paths,
            literal_ids,
            ..enveloped(Envelope::Result)
        });
        let id = world.bid(0.02).to_string();
        let sent = world.send(
            Method::Delete,
            "/instances/instance_id",
            &[("instance_id", &id)],
            Value::Null,
        );
        assert_eq!(world.instances().len(), 1);
        sent
    };
    let (status, answer) = old(true);
    assert_eq!((status, &answer["provider"]), (404, &json!("vastai")));
    assert_eq!(answer["error"]["error"], "no_such_instance");
    assert_eq!(old(false), (404, json!({"message": "Not Found"})));
}

#[test]
fn searches_filter_order_and_cap_and_one_offer_is_read_by_id() {
    let world = world(WireOptions::default());
    let all = world.offers(&[]);
    assert!(!all.is_empty() && all.len() <= 64);
    assert!(
        all.iter()
            .all(|row| row["rentable"] == true && row["verification"] == "verified")
    );
    let cheap = world.offers(&[("order", r#"[["dph_total","asc"]]"#), ("limit", "5")]);
    assert_eq!(cheap.len(), 5);
    assert!(cheap.is_sorted_by_key(|row| number(&row["dph_total"])));
    let next = number(&cheap[4]["dph_total"]).to_string();
    let q = json!({"dph_total": {"gt": next}, "type": "on-demand"}).to_string();
    let more = world.offers(&[("order", "dph_total"), ("q", &q)]);
    assert!(
        more.iter()
            .all(|row| number(&row["dph_total"]) > number(&cheap[4]["dph_total"]))
    );
    let id = cheap[0]["id"].to_string();
    let one = world.ok(
        Method::Get,
        &format!("/offers/{id}"),
        &[("type", "bid")],
        Value::Null,
    );
    let row = &one["offers"][0];
    assert_eq!((row["id"].to_string(), row["is_bid"] == true), (id, true));
    assert_eq!(row["dph_base"], row["min_bid"]);
    let none = world.ok(Method::Get, "/offers/4", &[], Value::Null);
    assert_eq!(none, json!({"offers": []}));
    let of_disk = |gigabytes: &str| {
        number(
            &world.offers(&[
                ("allocated_storage", gigabytes),
                ("order", "ask_contract_id"),
            ])[0]["storage_total_cost"],
        )
    };
    assert!(of_disk("100") > of_disk("10"));
}

#[test]
fn instances_come_whole_or_in_pages() {
    let world = world(WireOptions::default());
    let mut ids: Vec<u64> = (0..5).map(|_| world.bid(0.02)).collect();
    ids.sort_unstable();
    let whole = world.ok(
        Method::Get,
        "/instances",
        &[("owner_id", "me"), ("offset", "3")],
        Value::Null,
    );
    assert_eq!(
        (&whole["instances_found"], &whole["next_token"]),
        (&json!(5), &Value::Null)
    );
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = world.ok(
            Method::Get,
            "/instances",
            &[("limit", "2"), ("after_token", &token)],
            Value::Null,
        );
        assert_eq!(page["total_instances"], 5);
        let rows = page["instances"].as_array().unwrap();
        assert!(rows.len() <= 2 && page["instances_found"] == rows.len());
        seen.extend(rows.iter().map(|row| row["id"].as_u64().unwrap()));
        match page["next_token"].as_str() {
            Some(next) => next.clone_into(&mut token),
            None => break,
        }
    }
    assert_eq!(seen, ids);
    let running = world.ok(
        Method::Get,
        "/instances",
        &[("state", "exited")],
        Value::Null,
    );
    assert_eq!(running["instances_found"], 0);
    let (status, code, _) = world.refused(
        Method::Get,
        "/instances",
        &[("after_token", "?")],
        Value::Null,
    );
    assert_eq!((status, code.as_str()), (400, "invalid_token"));
    assert_eq!(
        world.ok(Method::Get, "/bids", &[], Value::Null)["instances_found"],
        5
    );
}

#[test]
fn a_price_makes_a_bid_on_either_route_unless_the_gateway_drops_it() {
    let rent = |path: &str, quirks, priced: bool| {
        let world = world(WireOptions {
            quirks,
            ..WireOptions::default()
        });
        let offer = world.offer();
        let price = priced.then(|| number(&offer["min_bid"]) + 0.02);
        let fields = json!({"offer_id": offer["id"], "price": price, "image": "a:b", "disk": 10});
        let made = world.ok(Method::Post, path, &[], fields);
        world.instance(made["new_contract"].as_u64().unwrap())["is_bid"] == true
    };
    let ignoring = Quirks {
        bids_ignore_price: true,
        ..Quirks::default()
    };
    assert!(rent("/bids", Quirks::default(), true));
    assert!(rent("/instances", Quirks::default(), true));
    assert!(!rent("/instances", Quirks::default(), false));
    assert!(
        !rent("/bids", ignoring, true),
        "it silently comes out as on-demand"
    );
    let none = Quirks {
        no_bids: true,
        ..Quirks::default()
    };
    let world = world(WireOptions {
        quirks: none,
        ..WireOptions::default()
    });
    assert_eq!(
        world.send(Method::Post, "/bids", &[], json!({})),
        (404, json!({"message": "Not Found"}))
    );
    assert_eq!(
        world.send(Method::Get, "/instances", &[], Value::Null).0,
        200
    );
}

#[test]
fn the_bill_holds_payments_and_charges_and_comes_in_pages() {
    let world = world(WireOptions::default());
    let ids = [world.bid(0.02), world.bid(0.02)];
    world.clock.advance(Duration::from_hours(30));
    let bill = world.ok(Method::Get, "/invoices", &[], Value::Null);
    let rows = bill["results"].as_array().unwrap();
    assert_eq!(
        (&bill["count"], &bill["next_token"]),
        (&json!(rows.len()), &Value::Null)
    );
    for id in ids {
        let source = format!("instance-{id}");
        let of: Vec<_> = rows
            .iter()
            .filter(|row| row["source"] == source.as_str())
            .collect();
        assert_eq!(of.len(), 2, "two days: {rows:?}");
        assert!(of.iter().all(|row| number(&row["amount"]) > 0.0));
    }
    let paid: Vec<_> = rows.iter().filter(|row| row["type"] == "credit").collect();
    assert!(
        paid.len() == 1 && number(&paid[0]["amount"]) < 0.0,
        "{paid:?}"
    );
    for latest in ["false", "true"] {
        let mut paged = Vec::new();
        let mut token = String::new();
        loop {
            let query = [
                ("limit", "2"),
                ("after_token", token.as_str()),
                ("latest_first", latest),
            ];
            let page = world.ok(Method::Get, "/invoices", &query, Value::Null);
            paged.extend(page["results"].as_array().unwrap().clone());
            match page["next_token"].as_str() {
                Some(next) => next.clone_into(&mut token),
                None => break,
            }
        }
        if latest == "true" {
            paged.reverse();
        }
        assert_eq!(&paged, rows);
    }
    let at = MarketOptions::default().start.epoch_seconds();
    let range = |key: &str| json!({key: {"gte": at, "lte": at + 3600.0}}).to_string();
    let count = |filters: &str| {
        world.ok(
            Method::Get,
            "/invoices",
            &[("select_filters", filters)],
            Value::Null,
        )["count"]
            .clone()
    };
    assert_eq!(
        (count(&range("day")), count(&range("when"))),
        (json!(2), json!(1))
    );
    let bad = world.ok(
        Method::Get,
        "/invoices",
        &[("select_filters", "{}")],
        Value::Null,
    );
    assert_eq!(bad["error"], "Invalid date range");
    let balance = world.ok(Method::Get, "/balance", &[], Value::Null);
    assert_eq!(
        balance,
        world.ok(Method::Get, "/users/me", &[], Value::Null)
    );
    assert!(number(&balance["credit"]) < 100.0);
}

#[test]
fn the_clock_and_the_definition_need_no_token() {
    let world = world(WireOptions {
        speed: 360.0,
        ..WireOptions::default()
    });
    let clock = Request {
        path: "/clock".to_owned(),
        ..request(Method::Get, "", &[], Value::Null)
    };
    world.clock.advance(Duration::from_millis(1500));
    let start = MarketOptions::default().start.epoch_seconds();
    assert_eq!(
        body(&world.raw(&clock)),
        json!({"now": start + 1.5, "speed": 360.0})
    );
    let definition = world.raw(&request(Method::Get, "/definition", &[], Value::Null));
    let paths = body(&definition)["paths"].as_object().unwrap().len();
    assert!(paths > 10, "{paths}");
    assert_eq!(
        world.server.with_faults(|faults| faults.requests()),
        0,
        "neither counts"
    );
}

#[test]
fn rate_limits_hold_in_market_time_by_route_and_account() {
    for envelope in ENVELOPES {
        let world = world(WireOptions {
            rate_limits: true,
            ..enveloped(envelope)
        });
        let list = |token: &str| {
            let reply = world.raw(&request(
                Method::Get,
                "/instances",
                &[("api_token", token)],
                Value::Null,
            ));
            reply.status
        };
        assert_eq!([list("at_a"), list("at_a"), list("at_b")], [200, 429, 200]);
        world.clock.advance(Duration::from_secs(1));
        assert_eq!([list("at_a"), list("at_a")], [200, 429]);
        for _ in 0..10 {
            world.offers(&[("limit", "1")]);
        }
        let reply = world.raw(&request(
            Method::Get,
            "/offers",
            &[("api_token", "at_one")],
            Value::Null,
        ));
        assert_eq!(reply.status, 429, "ten searches in a minute");
        world.clock.advance(Duration::from_mins(1));
        world.offers(&[("limit", "1")]);
    }
}

fn cue(envelope: Envelope, number: u64, fault: Fault) -> World {
    let script = FaultScript::new([(number, fault)]);
    world_with(
        enveloped(envelope),
        Faults::new(FaultSpec::default(), script, 1),
    )
}

#[test]
fn each_fault_has_its_effect_or_none() {
    for envelope in ENVELOPES {
        for (fault, effect) in [
            (Fault::ErrorBefore, false),
            (Fault::ErrorAfter, true),
            (Fault::TimeoutBefore, false),
            (Fault::TimeoutAfter, true),
            (Fault::Garbage, true),
            (Fault::Throttled, false),
            (Fault::Empty, true),
            (Fault::SearchQuota, true),
            (Fault::Html, true),
            (Fault::Truncated, true),
            (Fault::Partial, true),
            (Fault::ContentType, true),
            (Fault::Stale, true),
            (Fault::Skewed, true),
            (Fault::Duplicated, true),
            (Fault::KeyDeleted, false),
            (Fault::SessionExpired, false),
        ] {
            // `bid` makes two reads before its create; this repeats the create by hand.
            let world = cue(envelope, 3, fault);
            let offer = world.offer();
            let fields = json!({"offer_id": offer["id"], "price": number(&offer["min_bid"]) + 0.02,
                "image": "a:b", "disk": 10});
            let create = request(Method::Post, "/bids", &[("api_token", "at_one")], fields);
            let handled = world.server.handle(&create);
            let status = match &handled {
                Handled::Reply(reply) => Some(reply.status),
                Handled::Hang => None,
            };
            match fault {
                Fault::TimeoutBefore | Fault::TimeoutAfter => assert_eq!(status, None),
                Fault::ErrorBefore | Fault::ErrorAfter => assert!(status >= Some(500)),
                Fault::Throttled => assert_eq!(status, Some(429)),
                Fault::Html => assert!([Some(200), Some(403), Some(503)].contains(&status)),
                Fault::Duplicated => assert_eq!(status, Some(410), "of the second create"),
                Fault::KeyDeleted => assert_eq!(status, Some(401)),
                Fault::SessionExpired => assert_eq!(status, Some(404)),
                _ => assert_eq!(status, Some(200), "{fault:?}"),
            }
            if let (Fault::Garbage | Fault::Html | Fault::Truncated, Handled::Reply(reply)) =
                (fault, &handled)
            {
                assert!(serde_json::from_slice::<Value>(&reply.body).is_err());
            }
            assert_eq!(world.instances().len(), usize::from(effect), "{fault:?}");
        }
    }
}

#[test]
fn an_empty_listing_looks_like_a_true_one_and_faults_can_be_turned_off() {
    for envelope in ENVELOPES {
        let always: FaultSpec = "empty=100%".parse().unwrap();
        let world = world_with(
            enveloped(envelope),
            Faults::new(always, FaultScript::default(), 1),
        );
        assert_eq!(world.offers(&[]), Vec::<Value>::new());
        let listing = world.ok(Method::Get, "/instances", &[], Value::Null);
        assert_eq!(
            (&listing["total_instances"], &listing["instances"]),
            (&json!(0), &json!([]))
        );
        assert_eq!(
            world.ok(Method::Get, "/invoices", &[], Value::Null)["count"],
            0
        );
        assert!(
            world.ok(Method::Get, "/users/me", &[], Value::Null)["id"].is_u64(),
            "no listing"
        );
        world.server.with_faults(|faults| faults.set_enabled(false));
        assert!(!world.offers(&[]).is_empty());
        assert_eq!(world.server.with_faults(|faults| faults.requests()), 5);
    }
}

#[test]
fn every_shape_of_failure_comes_up() {
    for envelope in ENVELOPES {
        let spec: FaultSpec = "5xx=50%,429=20%,garbage=30%".parse().unwrap();
        let world = world_with(
            enveloped(envelope),
            Faults::new(spec, FaultScript::default(), 3),
        );
        let mut statuses = std::collections::BTreeSet::new();
        for _ in 0..80 {
            let reply = world.raw(&request(
                Method::Get,
                "/offers",
                &[("api_token", "at_one")],
                Value::Null,
            ));
            if reply.status == 429 && envelope == Envelope::Result {
                assert_eq!(
                    body(&reply)["headers"]["retry-after"],
                    "2",
                    "in the body only"
                );
                assert_eq!(reply.header("retry-after"), None);
            }
            statuses.insert(reply.status);
        }
        assert_eq!(
            statuses.into_iter().collect::<Vec<_>>(),
            [200, 429, 500, 502, 503, 504]
        );
    }
}

#[test]
fn an_odd_body_is_refused_not_fatal() {
    let world = world(WireOptions::default());
    for text in ["[1]", "{", "null", "\u{0}"] {
        let mut odd = request(
            Method::Post,
            "/bids",
            &[("api_token", "at_one")],
            Value::Null,
        );
        odd.body = Some(Bytes::from_static(text.as_bytes()));
        assert_eq!(world.raw(&odd).status, 400, "{text}");
    }
    for fields in [
        json!({"offer_id": 1, "price": "cheap"}),
        json!({"offer_id": 1, "label": 7}),
        json!({"offer_id": 1, "cancel_unavail": 3}),
    ] {
        assert_eq!(world.send(Method::Post, "/bids", &[], fields).0, 400);
    }
    assert_eq!(
        world.refused(Method::Put, "/bids/1", &[], json!({})).1,
        "invalid_args"
    );
    assert_eq!(
        world
            .refused(Method::Put, "/instances/1", &[], json!({"x": 1}))
            .1,
        "invalid_args"
    );
}

#[test]
fn a_debug_print_holds_no_token() {
    let token = Some(SecretString::from("at_canary".to_owned()));
    let world = world(WireOptions {
        token,
        ..WireOptions::default()
    });
    assert!(!format!("{:?}", world.server).contains("canary"));
}
