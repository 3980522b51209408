//! The gateway's operations on machines, users, templates, keys and invoices, in both path formats.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::clock::SimClock;
use crate::market::faults::Faults;
use crate::market::router::Wire;
use crate::market::routes::ROUTES;
use crate::market::{Envelope, Handled, Market, MarketOptions, MarketServer, Paths, WireOptions};
use crate::ports::{Clock, Method, Request};

use Method::{Delete, Get, Post, Put};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN me@example";

struct World {
    server: MarketServer,
    paths: Paths,
}

fn world(paths: Paths) -> World {
    world_with(WireOptions {
        paths,
        ..WireOptions::default()
    })
}

fn world_with(options: WireOptions) -> World {
    let clock: Arc<dyn Clock> = Arc::new(SimClock::new(MarketOptions::default().start));
    let market = Market::generated(MarketOptions {
        machines: Some(20),
        intensity: 0.0,
        failures: 0.0,
        ..MarketOptions::default()
    });
    let paths = options.paths;
    let server = MarketServer::new(market, options, Faults::none(), clock);
    World { server, paths }
}

impl World {
    fn raw(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: &Value,
    ) -> (u16, Value) {
        let query = query.iter().chain(&[("api_token", "at_one")]);
        let request = Request {
            method,
            path: format!("/vastai{path}"),
            query: query
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            bearer: None,
            body: (!body.is_null()).then(|| Bytes::from(body.to_string())),
        };
        let Handled::Reply(reply) = self.server.handle(&request) else {
            panic!("{path} hangs");
        };
        (reply.status, serde_json::from_slice(&reply.body).unwrap())
    }

    /// Calls a path with one parameter, in the format that the gateway speaks.
    fn call(&self, method: Method, path: &str, id: impl ToString, body: Value) -> (u16, Value) {
        let id = id.to_string();
        let name = path.split(['{', '}']).nth(1);
        let (status, answer) = match (name, self.paths) {
            (Some(name), Paths::Old) => {
                let path = path.replace(['{', '}'], "");
                self.raw(method, &path, &[(name, &id)], &body)
            }
            (Some(name), _) => {
                let path = path.replace(&format!("{{{name}}}"), &id);
                self.raw(method, &path, &[], &body)
            }
            (None, _) => self.raw(method, path, &[], &body),
        };
        let data = answer["data"].clone();
        match data.get("error").map(|error| error["code"].clone()) {
            Some(code) if status != 200 => (status, code),
            _ => (status, data),
        }
    }

    fn ok(&self, method: Method, path: &str, id: impl ToString, body: Value) -> Value {
        let (status, answer) = self.call(method, path, id, body);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }
}

#[test]
fn a_host_offers_changes_and_withdraws_its_machine() {
    for paths in [Paths::New, Paths::Old, Paths::Both] {
        let world = world(paths);
        let one = "/machines/{machine_id}";
        let all = world.ok(Get, "/machines", "", Value::Null);
        let id = all["machines"][0]["id"].as_u64().unwrap();
        let terms = json!({"machine_id": id.to_string(), "price": 0.5, "min_bid": 0.2,
            "discount": 0.1, "verified": true});
        assert_eq!(world.ok(Post, "/machines", "", terms)["success"], true);
        let machine = |world: &World| world.ok(Get, one, id, Value::Null)[0].clone();
        let shown = machine(&world);
        assert_eq!(
            (
                &shown["listed_gpu_cost"],
                &shown["min_bid_price"],
                &shown["credit_discount_max"]
            ),
            (&json!(0.5), &json!(0.2), &json!(0.1))
        );
        world.ok(Put, one, id, json!({"price": 0.4, "verified": false}));
        assert_eq!(machine(&world)["listed_gpu_cost"], 0.4);
        let q = json!({"machine_id": {"eq": id}}).to_string();
        let search = |world: &World| {
            let (_, answer) = world.raw(Get, "/offers", &[("q", &q)], &Value::Null);
            answer["data"]["offers"].as_array().unwrap().len()
        };
        assert!(search(&world) > 1);
        world.ok(Delete, one, id, Value::Null);
        assert_eq!(search(&world), 0);
        assert_eq!(machine(&world)["listed"], false);
        assert_eq!(
            world.call(Get, one, 11_003, Value::Null),
            (404, json!("not_found"))
        );
        assert_eq!(
            world.call(Delete, one, 11_003, Value::Null),
            (403, json!("not_authorized"))
        );
        let free = json!({"price": -1});
        assert_eq!(
            world.call(Put, one, id, free),
            (400, json!("invalid_price"))
        );
    }
}

#[test]
fn a_user_reads_and_changes_itself_only() {
    for paths in [Paths::New, Paths::Old] {
        let world = world(paths);
        let me = world.ok(Get, "/users/me", "", Value::Null);
        let id = me["id"].as_u64().unwrap();
        assert_eq!(world.ok(Get, "/users/{user_id}", id, Value::Null), me);
        let other = world.call(Get, "/users/{user_id}", id + 1, Value::Null);
        assert_eq!(other, (403, json!("not_authorized")));
        world.ok(Put, "/users/me", "", json!({"fullname": "Ada"}));
        assert_eq!(
            world.ok(Get, "/balance", "", Value::Null)["fullname"],
            "Ada"
        );
        let empty = world.call(Put, "/users/me", "", json!({}));
        assert_eq!(empty, (400, json!("missing_input")));
    }
}

#[test]
fn a_template_is_named_by_its_number_or_its_hash() {
    for paths in [Paths::New, Paths::Old] {
        let world = world(paths);
        let one = "/templates/{template_id}";
        let made = world.ok(Post, "/templates", "", json!({"name": "t", "image": "a"}));
        let (id, hash) = (
            made["template"]["id"].clone(),
            made["template"]["hash_id"].clone(),
        );
        let hash = hash.as_str().unwrap();
        for name in [id.to_string(), hash.to_owned()] {
            let found = world.ok(Get, one, name, Value::Null);
            assert_eq!(found["templates"][0]["name"], "t");
        }
        let edited = world.ok(Put, one, hash, json!({"name": "u", "id": 9}));
        assert_eq!(edited["template"]["id"], id);
        let edited = world.ok(Put, one, &id, json!({"name": "v"}));
        let hash = edited["template"]["hash_id"].as_str().unwrap();
        assert_eq!(
            world.ok(Get, "/templates", "", Value::Null)["templates_found"],
            1
        );
        world.ok(Delete, one, hash, Value::Null);
        let gone = world.call(Delete, one, &id, Value::Null);
        assert_eq!(gone, (404, json!("no_such_template")));
        assert_eq!(world.ok(Get, one, &id, Value::Null)["templates_found"], 0);
    }
}

#[test]
fn keys_and_invoices_of_an_account() {
    for paths in [Paths::New, Paths::Old] {
        let world = world(paths);
        let made = world.ok(Post, "/ssh_keys", "", json!({"ssh_key": KEY}));
        let id = made["key"]["id"].clone();
        assert_eq!(world.ok(Get, "/ssh_keys", "", Value::Null)[0]["key"], KEY);
        world.ok(Delete, "/ssh_keys/{key_id}", &id, Value::Null);
        let gone = world.call(Delete, "/ssh_keys/{key_id}", &id, Value::Null);
        assert_eq!(gone, (400, json!("no_ssh_key")));
        let list = world.ok(Get, "/invoices", "", Value::Null);
        let number = list["results"][0]["metadata"]["invoice_id"].clone();
        let one = world.ok(Get, "/invoices/{invoice_id}", number, Value::Null);
        assert_eq!(
            (&one["amount_cents"], &one["is_credit"]),
            (&json!(10_000), &json!(true))
        );
        let none = world.call(Get, "/invoices/{invoice_id}", 99, Value::Null);
        assert_eq!(none, (404, json!("not_found")));
    }
}

#[test]
fn calls_that_change_something_are_in_the_audit_log_once() {
    let world = world(Paths::New);
    world.ok(Post, "/ssh_keys", "", json!({"ssh_key": KEY}));
    world.ok(Get, "/ssh_keys", "", Value::Null);
    world.call(
        Post,
        "/bids",
        "",
        json!({"offer_id": 1, "env": {"A": "hush"}}),
    );
    let rows = world.server.with_market(|market| {
        let account = market.account_for("at_one");
        let rows = market.records(account).unwrap().audit();
        rows.map(|row| (row.route.clone(), row.args.to_string()))
            .collect::<Vec<_>>()
    });
    let routes: Vec<&str> = rows.iter().map(|(route, _)| route.as_str()).collect();
    assert_eq!(routes, ["api.ssh_keys__post", "api.bids__post"]);
    assert!(!rows[1].1.contains("hush"));
}

#[test]
fn the_description_is_under_openapi_where_it_is_asked_to_be() {
    for openapi in [false, true] {
        let world = world_with(WireOptions {
            openapi,
            ..WireOptions::default()
        });
        let (status, described) = world.raw(Get, "/openapi", &[], &Value::Null);
        assert_eq!(status, if openapi { 200 } else { 404 });
        let (_, definition) = world.raw(Get, "/definition", &[], &Value::Null);
        // Nineteen paths in the new format, and the ten with a parameter in the old one, too.
        assert_eq!(definition["paths"].as_object().unwrap().len(), 19 + 10);
        assert_eq!(described == definition, openapi);
    }
}

#[test]
fn both_formats_show_the_same_records() {
    let world = world_with(WireOptions {
        wire: Wire::Both,
        ..WireOptions::default()
    });
    let native = |method: Method, path: &str, body: Value| {
        let request = Request {
            method,
            path: path.to_owned(),
            query: Vec::new(),
            bearer: Some("at_one".to_owned()),
            body: (!body.is_null()).then(|| Bytes::from(body.to_string())),
        };
        let Handled::Reply(reply) = world.server.handle(&request) else {
            panic!("{path} hangs");
        };
        let answer: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(reply.status, 200, "{path}: {answer}");
        answer
    };
    native(Post, "/api/v0/ssh/", json!({"ssh_key": KEY}));
    assert_eq!(
        world.ok(Get, "/ssh_keys", "", Value::Null),
        native(Get, "/api/v0/ssh/", Value::Null)
    );
    let made = world.ok(Post, "/templates", "", json!({"name": "t", "image": "a"}));
    let mut whole = made["template"].clone();
    whole["name"] = json!("u");
    let edited = native(Put, "/api/v1/template/", whole);
    assert_eq!(edited["template"]["id"], made["template"]["id"]);
    assert_eq!(
        world.ok(Get, "/templates", "", Value::Null)["templates"][0],
        edited["template"]
    );
    let machines = native(Get, "/api/v0/machines", Value::Null);
    assert_eq!(machines, world.ok(Get, "/machines", "", Value::Null));
    let id = machines["machines"][0]["id"].clone();
    native(
        Put,
        "/api/v0/machines/create_asks/",
        json!({"machine": id, "price_gpu": 0.5}),
    );
    assert_eq!(
        native(Get, &format!("/api/v0/machines/{id}/"), Value::Null),
        world.ok(Get, "/machines/{machine_id}", &id, Value::Null)
    );
    let reports = native(Get, &format!("/api/v0/machines/{id}/reports/"), Value::Null);
    assert!(reports.is_array());
    let user = native(Get, "/api/v0/users/current", Value::Null);
    assert_eq!(user, world.ok(Get, "/users/me", "", Value::Null));
    assert_eq!(user["host_agreement_accepted"], true);
    let rows = native(Get, "/api/v0/audit_logs/", Value::Null);
    let routes: Vec<&str> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["api_route"].as_str().unwrap())
        .collect();
    assert_eq!(
        routes,
        [
            "api.machines.create_asks__put",
            "api.template__put",
            "api.templates__post",
            "api.ssh__post"
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is sent to any of the operations, there is a JSON answer with a status that is
    /// documented.
    #[test]
    fn any_body_is_answered(
        calls in prop::collection::vec(
            (0..ROUTES.len(), "[0-9a-z]{1,8}|900001", prop::collection::btree_map(
                prop::sample::select(vec!["price", "machine_id", "name", "image", "offer_id", "disk",
                    "label", "ssh_key", "discount", "min_bid", "env", "args", "state"]),
                prop_oneof![
                    Just(Value::Null), any::<f64>().prop_map(Value::from), any::<i64>().prop_map(Value::from),
                    ".{0,12}".prop_map(Value::from), Just(json!([1, {"a": null}])), Just(json!({"a": [true]})),
                ], 0..5)),
            1..12),
        envelope in prop::sample::select(vec![Envelope::Data, Envelope::Result, Envelope::None]),
    ) {
        let world = world_with(WireOptions { envelope, ..WireOptions::default() });
        for (route, id, body) in calls {
            let route = &ROUTES[route];
            let path = match route.path.split(['{', '}']).nth(1) {
                Some(name) => route.path.replace(&format!("{{{name}}}"), &id),
                None => route.path.to_owned(),
            };
            let (status, _) = world.raw(route.method, &path, &[], &json!(body));
            prop_assert!(matches!(status, 200 | 400 | 403 | 404 | 410 | 422), "{} {status}", route.path);
        }
    }
}
