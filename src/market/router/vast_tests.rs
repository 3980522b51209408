//! The marketplace's own wire format over a small still market.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::super::{Handled, MarketServer, Wire, WireOptions};
use crate::clock::SimClock;
use crate::market::disputed::{Disputed, Missing};
use crate::market::faults::{Fault, FaultScript, FaultSpec, Faults};
use crate::market::{Market, MarketOptions};
use crate::ports::{Clock, Method, Reply, Request};

struct World {
    server: MarketServer,
    clock: Arc<SimClock>,
}

fn world_of(options: WireOptions, disputed: Disputed, faults: Faults) -> World {
    let clock = Arc::new(SimClock::new(MarketOptions::default().start));
    let market = Market::generated(MarketOptions {
        machines: Some(60),
        intensity: 0.0,
        failures: 0.0,
        disputed,
        ..MarketOptions::default()
    });
    let shared = Arc::clone(&clock) as Arc<dyn Clock>;
    World {
        server: MarketServer::new(market, options, faults, shared),
        clock,
    }
}

fn world() -> World {
    world_of(WireOptions::default(), Disputed::default(), Faults::none())
}

fn request(method: Method, path: &str, key: Option<&str>, body: &str) -> Request {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    Request {
        method,
        path: path.to_owned(),
        query: pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        bearer: key.map(str::to_owned),
        body: (!body.is_empty()).then(|| Bytes::from(body.to_owned())),
    }
}

impl World {
    fn raw(&self, method: Method, path: &str, key: Option<&str>, body: &str) -> Reply {
        match self.server.handle(&request(method, path, key, body)) {
            Handled::Reply(reply) => reply,
            Handled::Hang => panic!("{path} hangs"),
        }
    }

    fn send(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let reply = self.raw(method, path, Some("key"), &body);
        (reply.status, serde_json::from_slice(&reply.body).unwrap())
    }

    fn ok(&self, method: Method, path: &str, body: &Value) -> Value {
        let (status, answer) = self.send(method, path, body);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    fn offers(&self, filters: &Value) -> Vec<Value> {
        let answer = self.ok(Method::Post, "/api/v0/bundles/", filters);
        answer["offers"].as_array().unwrap().clone()
    }

    /// Rents the n-th cheapest slice of one GPU, on demand or with a bid over its floor.
    fn rent(&self, nth: usize, bids: bool) -> Value {
        let one = json!({"num_gpus": {"eq": 1}, "order": [["machine_id", "asc"]],
            "disable_bundling": true});
        let mut machines = std::collections::BTreeSet::new();
        let mut rows = self.offers(&one);
        rows.retain(|row| machines.insert(row["machine_id"].as_u64()));
        let row = &rows[nth];
        let price = bids.then(|| row["min_bid"].as_f64().unwrap() + 0.03);
        let body = json!({"image": "a:b", "disk": 10, "price": price, "label": format!("n{nth}")});
        self.ok(Method::Put, &format!("/api/v0/asks/{}/", row["id"]), &body)
    }

    fn list(&self, query: &str) -> Value {
        self.ok(
            Method::Get,
            &format!("/api/v1/instances/?{query}"),
            &Value::Null,
        )
    }
}

#[test]
fn only_searches_are_answered_without_a_key() {
    let world = world();
    let anonymous = |method, path| world.raw(method, path, None, "");
    for (method, path) in [
        (Method::Post, "/api/v0/bundles/"),
        (Method::Get, "/api/v0/bundles"),
        (Method::Put, "/api/v0/search/asks/"),
        (Method::Get, "/api/v0/gpu_names/unique/"),
    ] {
        let reply = anonymous(method, path);
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
    }
    let refused = anonymous(Method::Get, "/api/v0/instances/");
    let body: Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!(
        (refused.status, &body["msg"]),
        (403, &json!("This action requires login."))
    );
    assert_eq!(
        anonymous(Method::Get, "/api/v0/instances/?api_key=key").status,
        200
    );
    assert_eq!(anonymous(Method::Get, "/api/v0/nonsense/").status, 404);
}

#[test]
fn a_bad_key_reads_as_it_is_documented_route_by_route() {
    for status in [401, 403, 404] {
        let options = WireOptions {
            token: Some(SecretString::from("right".to_owned())),
            ..WireOptions::default()
        };
        let disputed = Disputed {
            bad_key_status: status,
            ..Disputed::default()
        };
        let world = world_of(options, disputed, Faults::none());
        for (method, path, expected) in [
            (Method::Get, "/api/v0/instances/", status),
            (Method::Post, "/api/v0/bundles/", 404),
            (Method::Get, "/api/v0/charges/", 404),
        ] {
            let reply = world.raw(method, path, Some("wrong"), "");
            let body: Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(reply.status, expected, "{path}");
            assert_eq!(
                (&body["error"], &body["msg"]),
                (&json!("auth_error"), &json!("Invalid user key"))
            );
        }
        assert_eq!(
            world
                .raw(Method::Get, "/api/v0/instances/", Some("right"), "")
                .status,
            200
        );
    }
}

#[test]
fn an_instances_own_key_opens_that_instance_only() {
    let world = world();
    let (own, other) = (world.rent(0, false), world.rent(1, false));
    let key = own["instance_api_key"].as_str().unwrap();
    let path = |instance: &Value| format!("/api/v0/instances/{}/", instance["new_contract"]);
    let call = |method, path: &str, body| world.raw(method, path, Some(key), body).status;
    assert_eq!(call(Method::Get, &path(&own), ""), 200);
    assert_eq!(
        call(Method::Put, &path(&own), r#"{"state":"stopped"}"#),
        200
    );
    for (method, path, body) in [
        (Method::Get, path(&other), ""),
        (Method::Delete, path(&other), ""),
        (Method::Put, path(&own), r#"{"label":"x"}"#),
        (Method::Get, "/api/v1/instances/".to_owned(), ""),
        (Method::Get, "/api/v0/users/current/".to_owned(), ""),
        (
            Method::Delete,
            "/api/v0/instances/".to_owned(),
            r#"{"instance_ids":[1]}"#,
        ),
    ] {
        assert_eq!(call(method, &path, body), 403, "{path} {body}");
    }
    assert_eq!(call(Method::Delete, &path(&own), "{}"), 200);
    let left = world.list("limit=25");
    assert_eq!(left["instances"][0]["id"], other["new_contract"]);
    assert_eq!(left["total_instances"], 1);
}

#[test]
fn filters_are_coerced_as_clients_send_them() {
    let world = world();
    let all = world.offers(&json!({"limit": 64}));
    assert!(!all.is_empty());
    let texts = json!({"num_gpus": {"eq": "1"}, "reliability": {"gt": "0.5"},
        "verified": {"eq": "true"}, "driver_version": {"gte": 400_000_000},
        "dph_total": {"lt": "100", "gt": 0}, "geolocation": {"not in": ["CN"], "nin": ["VN"]}});
    let rows = world.offers(&texts);
    assert!(!rows.is_empty() && rows.iter().all(|row| row["num_gpus"] == 1));
    let id = &all[0]["id"];
    assert_eq!(
        world.offers(&json!({"id": {"eq": id}})),
        Vec::<Value>::new()
    );
    assert_eq!(
        world.offers(&json!({"ask_contract_id": {"eq": id}})).len(),
        1
    );
    for body in [
        r#"{"q": {"num_gpus": {"eq": 1}}}"#,
        r#"{"nonsense": {"eq": 1}}"#,
        r#"{"num_gpus": {"about": 1}}"#,
        r#"{"num_gpus": {"eq": "many"}}"#,
        r#"{"limit": -1}"#,
        r#"{"allocated_storage": -5}"#,
        r#"{"order": [["nonsense", "asc"]]}"#,
        r#"{"type": "auction"}"#,
        "[1]",
        "{",
    ] {
        let reply = world.raw(Method::Post, "/api/v0/bundles/", None, body);
        let answer: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(
            (reply.status, &answer["error"]),
            (400, &json!("invalid_request")),
            "{body}"
        );
    }
}

#[test]
fn equal_slices_of_a_machine_are_one_row_unless_asked_apart() {
    let world = world();
    let filters = |apart: bool| {
        json!({"disable_bundling": apart, "num_gpus": {"eq": 1}, "limit": 64,
            "verified": {"in": [true, false]}})
    };
    let apart = world.offers(&filters(true));
    let together = world.offers(&filters(false));
    let stands = |row: &Value| row["bundled_results"].as_u64().unwrap_or(1);
    assert!(
        together.iter().any(|row| stands(row) > 1),
        "some machine has equal slices"
    );
    assert!(apart.iter().all(|row| row["bundled_results"].is_null()));
    let key = |row: &Value| {
        (
            row["bundle_id"].to_string(),
            row["dph_total"].to_string(),
            row["min_bid"].to_string(),
        )
    };
    let distinct: std::collections::BTreeSet<_> = together.iter().map(key).collect();
    assert_eq!(distinct.len(), together.len());
}

#[test]
fn a_prepaid_search_shows_the_discount() {
    let world = world();
    for row in world.offers(&json!({"type": "reserved"})) {
        let part = |name: &str| row[name].as_f64().unwrap();
        let saved = part("dph_base") * part("credit_discount_max");
        assert!((part("discounted_hourly") - saved).abs() < 1e-9);
        assert!((part("discounted_dph_total") + saved - part("dph_total")).abs() < 1e-9);
    }
}

#[test]
fn the_list_is_read_page_by_page_in_any_order() {
    let world = world();
    let made: Vec<u64> = (0..7)
        .map(|n| world.rent(n, n % 2 == 0)["new_contract"].as_u64().unwrap())
        .collect();
    for order in ["id\",\"dir\":\"asc", "label\",\"dir\":\"desc", "gpu_name"] {
        let order = format!("order_by=[{{\"col\":\"{order}\"}}]");
        let mut seen = Vec::new();
        let mut token = String::new();
        loop {
            let page = world.list(&format!("limit=3&{order}{token}"));
            assert_eq!(page["total_instances"], 7);
            let rows = page["instances"].as_array().unwrap();
            seen.extend(rows.iter().map(|row| row["id"].as_u64().unwrap()));
            match page["next_token"].as_str() {
                Some(next) => token = format!("&after_token={next}"),
                None => break,
            }
        }
        let mut sorted = seen.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, made, "{order}: each once");
    }
    let page =
        world.list("select_filters={\"label\":{\"eq\":\"n3\"}}&select_cols=[\"id\",\"nonsense\"]");
    assert_eq!(
        page["instances"],
        json!([{"id": made[3], "nonsense": null}])
    );
    assert_eq!(page["label_counts"], json!({"n3": 1}));
    assert_eq!(
        world.list("limit=0")["instances"].as_array().unwrap().len(),
        5
    );
    for (query, code) in [
        ("after_token=bm9uc2Vuc2U=", "invalid_token"),
        ("limit=many", "invalid_request"),
        (
            "select_filters={\"dph_total\":{\"lt\":1}}",
            "invalid_request",
        ),
        ("order_by=[{\"col\":\"num_gpus\"}]", "invalid_request"),
        ("select_filters={", "invalid_request"),
    ] {
        let (status, answer) = world.send(
            Method::Get,
            &format!("/api/v1/instances/?{query}"),
            &Value::Null,
        );
        assert_eq!((status, &answer["error"]), (400, &json!(code)), "{query}");
    }
}

#[test]
fn a_template_fills_in_what_a_rental_does_not_say() {
    let world = world();
    let fields = json!({"name": "t", "image": "team/image", "tag": "2", "onstart": "echo t",
        "env": "-e A=1 -e B=2 -p 8000:8000", "recommended_disk_space": "16"});
    let made = world.ok(Method::Post, "/api/v0/template/", &fields);
    let offer = &world.offers(&json!({"num_gpus": {"eq": 1}}))[0];
    let path = format!("/api/v0/asks/{}/", offer["id"]);
    let body = json!({"template_hash_id": made["template"]["hash_id"], "env": {"B": "3"}});
    let id = world.ok(Method::Put, &path, &body)["new_contract"].clone();
    let row = world.list("")["instances"][0].clone();
    assert_eq!(
        (&row["image_uuid"], &row["disk_space"]),
        (&json!("team/image:2"), &json!(16.0))
    );
    assert_eq!(row["onstart"], "echo t");
    assert_eq!(
        row["extra_env"],
        json!([["A", "1"], ["-p 8000:8000", "1"], ["B", "3"]])
    );
    let path = format!("/api/v0/instances/update_template/{id}/");
    let changed = world.ok(Method::Put, &path, &json!({"id": id, "image": "other:1"}));
    assert_eq!(changed["updated_instance"]["image_uuid"], "other:1");
}

#[test]
fn what_is_prepaid_is_cheaper_from_then_on_and_shown() {
    let world = world();
    let id = world.rent(0, false)["new_contract"].clone();
    let before = world.list("")["instances"][0]["dph_base"].as_f64().unwrap();
    let prepay = format!("/api/v0/instances/prepay/{id}/");
    let (status, _) = world.send(Method::Put, &prepay, &json!({"amount": 1000}));
    assert_eq!(status, 411, "more than the credit");
    for amount in [json!(0), json!(-5), json!("much"), Value::Null] {
        let (status, _) = world.send(Method::Put, &prepay, &json!({ "amount": amount }));
        assert_eq!(status, 400, "{amount}");
    }
    let paid = world.ok(Method::Put, &prepay, &json!({"amount": 50.0}));
    let rate = paid["discount_rate"].as_f64().unwrap();
    let row = world.list("")["instances"][0].clone();
    assert!(rate > 0.0 && row["credit_balance"] == 50.0);
    assert!((row["dph_base"].as_f64().unwrap() - before * (1.0 - rate)).abs() < 1e-6);
    let left = world.ok(
        Method::Get,
        &format!("/api/v0/instances/balance/{id}/"),
        &Value::Null,
    );
    assert_eq!(left["refundable_deposit"], 50.0);
}

#[test]
fn an_instance_that_is_not_there_reads_as_it_is_disputed() {
    for (missing, status) in [(Missing::Null, 200), (Missing::NotFound, 404)] {
        let disputed = Disputed {
            missing,
            ..Disputed::default()
        };
        let world = world_of(WireOptions::default(), disputed, Faults::none());
        let (got, answer) = world.send(Method::Get, "/api/v0/instances/7/?owner=me", &Value::Null);
        assert_eq!(got, status);
        match missing {
            Missing::Null => assert_eq!(answer, json!({"instances": null})),
            Missing::NotFound => assert_eq!(answer["error"], "no_such_instance"),
        }
    }
}

#[test]
fn a_bid_under_the_floor_leaves_an_instance_whatever_the_status() {
    for status in [200, 400] {
        let disputed = Disputed {
            low_bid_status: status,
            ..Disputed::default()
        };
        let world = world_of(WireOptions::default(), disputed, Faults::none());
        let offer = &world.offers(&json!({"num_gpus": {"eq": 1}}))[0];
        let path = format!("/api/v0/asks/{}/", offer["id"]);
        let body = json!({"image": "a:b", "disk": 10, "price": 0.001});
        let (got, answer) = world.send(Method::Put, &path, &body);
        assert_eq!((got, &answer["success"]), (status, &json!(false)));
        assert!(answer["new_contract"].is_u64());
        // A price of null asks for one that wins.
        let bid = format!("/api/v0/instances/bid_price/{}/", answer["new_contract"]);
        world.ok(
            Method::Put,
            &bid,
            &json!({"client_id": "me", "price": null}),
        );
        world.clock.advance(Duration::from_mins(5));
        assert_eq!(world.list("")["instances"][0]["cur_state"], "running");
        for price in [json!(0), json!(-1), json!(33), json!("dear"), json!(1e300)] {
            let (status, _) = world.send(Method::Put, &bid, &json!({"price": price}));
            assert_eq!(status, 400, "{price}");
        }
    }
}

#[test]
fn an_offer_that_was_taken_is_gone_with_the_status_in_dispute() {
    for status in [410, 404, 400] {
        let disputed = Disputed {
            gone_status: status,
            ..Disputed::default()
        };
        let world = world_of(WireOptions::default(), disputed, Faults::none());
        let offer = &world.offers(&json!({"num_gpus": {"eq": 1}}))[0];
        let path = format!("/api/v0/asks/{}/", offer["id"]);
        let body = json!({"image": "a:b", "disk": 10, "price": null});
        world.ok(Method::Put, &path, &body);
        let (got, answer) = world.send(Method::Put, &path, &body);
        assert!(
            answer["msg"].as_str().unwrap().contains("no_such_ask"),
            "{answer}"
        );
        assert_eq!((got, &answer["ask_id"]), (status, &offer["id"]));
    }
}

#[test]
fn a_log_is_read_at_an_address_of_its_own_a_moment_later() {
    let world = world();
    let id = world.rent(0, false)["new_contract"].clone();
    world.clock.advance(Duration::from_hours(3));
    let asked = world.ok(
        Method::Put,
        &format!("/api/v0/instances/request_logs/{id}/"),
        &json!({"tail": "2"}),
    );
    let url = asked["result_url"].as_str().unwrap();
    let path = url.strip_prefix(super::super::IN_PROCESS).unwrap();
    assert_eq!(
        world.raw(Method::Get, path, None, "").status,
        404,
        "not there yet"
    );
    world.clock.advance(Duration::from_secs(3));
    let reply = world.raw(Method::Get, path, None, "");
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert_eq!(
        world.raw(Method::Get, "/results/0000", None, "").status,
        404
    );
}

#[test]
fn calls_that_come_too_soon_are_refused_by_key_and_route_in_market_time() {
    let options = WireOptions {
        native_rate_limits: true,
        ..WireOptions::default()
    };
    let world = world_of(options, Disputed::default(), Faults::none());
    let list = |key| world.raw(Method::Get, "/api/v1/instances/", Some(key), "");
    assert_eq!(
        [list("a").status, list("a").status, list("b").status],
        [200, 429, 200]
    );
    assert!(list("a").header("retry-after").is_some());
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(list("a").status, 200);
    let search = || world.raw(Method::Post, "/api/v0/bundles/", None, "").status;
    let statuses: Vec<u16> = (0..11).map(|_| search()).collect();
    assert_eq!((&statuses[..10], statuses[10]), (&[200; 10][..], 429));
}

#[test]
fn a_market_speaks_the_formats_it_is_told_to() {
    for (wire, native, gateway) in [
        (Wire::Vast, 200, 404),
        (Wire::LowCode, 404, 200),
        (Wire::Both, 200, 200),
    ] {
        let options = WireOptions {
            wire,
            ..WireOptions::default()
        };
        let world = world_of(options, Disputed::default(), Faults::none());
        assert_eq!(
            world.raw(Method::Post, "/api/v0/bundles/", None, "").status,
            native
        );
        let offers = "/vastai/offers?api_token=at_x";
        assert_eq!(world.raw(Method::Get, offers, None, "").status, gateway);
    }
}

#[test]
fn each_fault_spoils_an_answer_in_its_own_way() {
    let spoilt = |fault: Fault, path: &str, method| {
        let script = FaultScript::new([(2, fault)]);
        let faults = Faults::new(FaultSpec::default(), script, 1);
        let world = world_of(WireOptions::default(), Disputed::default(), faults);
        let true_reply = world.raw(method, path, Some("key"), "");
        world.clock.advance(Duration::from_hours(1));
        (true_reply, world.raw(method, path, Some("key"), ""))
    };
    let search = "/api/v0/bundles/";
    let rows = |reply: &Reply| -> usize {
        let answer: Value = serde_json::from_slice(&reply.body).unwrap();
        answer["offers"].as_array().unwrap().len()
    };
    let (before, after) = spoilt(Fault::Partial, search, Method::Post);
    assert!(rows(&after) < rows(&before));
    let (_, after) = spoilt(Fault::Empty, search, Method::Post);
    assert_eq!(rows(&after), 0);
    let (before, after) = spoilt(Fault::Stale, search, Method::Post);
    assert_eq!(before.body, after.body);
    let (_, after) = spoilt(Fault::Truncated, search, Method::Post);
    assert!(serde_json::from_slice::<Value>(&after.body).is_err());
    let (_, after) = spoilt(Fault::ContentType, search, Method::Post);
    assert_ne!(after.header("content-type"), Some("application/json"));
    assert!(rows(&after) > 0);
    let (_, after) = spoilt(Fault::Skewed, search, Method::Post);
    assert!(after.header("date").is_some());
    let (_, after) = spoilt(Fault::Html, search, Method::Post);
    assert_eq!(after.header("content-type"), Some("text/html"));
    let (_, after) = spoilt(Fault::SearchQuota, search, Method::Post);
    assert_eq!(
        (after.status, after.header("x-ratelimit-reset")),
        (429, Some("1795564800"))
    );
    let (_, after) = spoilt(Fault::SearchQuota, "/api/v0/instances/", Method::Get);
    assert_eq!(after.status, 200, "no search");
}

#[test]
fn faults_are_changed_at_run_time_only_where_that_was_asked_for() {
    for control in [true, false] {
        let options = WireOptions {
            control,
            ..WireOptions::default()
        };
        let world = world_of(options, Disputed::default(), Faults::none());
        let put = |body| world.raw(Method::Put, "/faults", None, body).status;
        assert_eq!(
            put(r#"{"faults":"5xx-before=100%"}"#),
            if control { 200 } else { 404 }
        );
        let search = world.raw(Method::Post, "/api/v0/bundles/", None, "");
        assert_eq!(search.status >= 500, control);
        assert_eq!(
            put(r#"{"faults":"gremlins=1%"}"#),
            if control { 400 } else { 404 }
        );
    }
}

#[test]
fn time_is_moved_on_only_where_that_was_asked_for() {
    for control in [true, false] {
        let options = WireOptions {
            control,
            ..WireOptions::default()
        };
        let world = world_of(options, Disputed::default(), Faults::none());
        let now = || world.server.with_market(|market| market.now());
        let began = now();
        let put = |body| world.raw(Method::Put, "/clock", None, body).status;
        let (done, refused) = if control { (200, 400) } else { (404, 404) };
        assert_eq!(put(r#"{"forward_seconds":3600}"#), done);
        let hours = u64::from(control);
        assert_eq!(now().since(began), Duration::from_hours(hours));
        for bad in [
            "",
            "{}",
            r#"{"forward_seconds":-1}"#,
            r#"{"forward_seconds":2592001}"#,
        ] {
            assert_eq!(put(bad), refused, "{bad}");
        }
        assert_eq!(now().since(began), Duration::from_hours(hours));
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let names = prop_oneof![
            Just("eq".to_owned()),
            Just("in".to_owned()),
            Just("price".to_owned()),
            Just("image".to_owned()),
            Just("disk".to_owned()),
            Just("state".to_owned()),
            Just("num_gpus".to_owned()),
            Just("order".to_owned()),
            Just("limit".to_owned()),
            Just("ids".to_owned()),
            Just("instance_ids".to_owned()),
            Just("q".to_owned()),
            Just("src_id".to_owned()),
            Just("amount".to_owned()),
            "[a-z_]{1,8}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names, inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_body_on_any_route_is_answered(bodies in prop::collection::vec(any_json(), 4), id: u64) {
        let world = world();
        world.rent(0, true);
        for route in crate::market::native::routes::ROUTES {
            for body in &bodies {
                let path = route.path.replace("{id}", &id.to_string()).replace("{key}", "1");
                let reply = world.raw(route.method, &path, Some("key"), &body.to_string());
                prop_assert!((200..600).contains(&reply.status));
            }
        }
    }
}

#[test]
fn a_market_that_takes_any_key_does_not_take_any_number_of_them() {
    let world = world();
    let path = "/api/v0/users/current/";
    for number in 0..crate::market::sim::ACCOUNTS_MAX {
        let key = format!("key-{number}");
        world.server.with_market(|market| market.account_for(&key));
    }
    let status = |key: &str| world.raw(Method::Get, path, Some(key), "").status;
    assert_eq!(status("key-0"), 200);
    assert_eq!(status("one-too-many"), 401);
    let gateway = |key: &str| {
        let path = format!("/vastai/users/me?api_token={key}");
        world.raw(Method::Get, &path, None, "").status
    };
    assert_eq!(gateway("at_one-too-many"), 403);
}
