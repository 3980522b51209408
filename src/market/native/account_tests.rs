//! The routes of an account, of what it keeps, and of the host, by what they answer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::routes::{Family, Operation, ROUTES};
use super::{Call, perform};
use crate::market::api::MarketError;
use crate::market::sim::Market;
use crate::market::{CreateParams, MarketOptions};
use crate::types::money::Money;
use crate::types::offer::Market as SearchType;
use crate::types::time::Time;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN me@example";
const MACHINE: u64 = 900_001;

struct World {
    market: Market,
    account: u64,
}

fn world() -> World {
    let mut market = Market::generated(MarketOptions {
        machines: Some(20),
        intensity: 0.0,
        failures: 0.0,
        ..MarketOptions::default()
    });
    let account = market.account_for("at_one");
    World { market, account }
}

/// A path's parameters, a query, a body.
#[derive(Clone, Debug, Default)]
struct Asked {
    ids: Vec<String>,
    query: Vec<(String, String)>,
    body: Map<String, Value>,
}

fn body(body: Value) -> Asked {
    Asked {
        body: body.as_object().unwrap().clone(),
        ..Asked::default()
    }
}

fn id(id: impl ToString) -> Asked {
    Asked {
        ids: vec![id.to_string()],
        ..Asked::default()
    }
}

fn query(pairs: &[(&str, String)]) -> Asked {
    let pairs = pairs.iter();
    Asked {
        query: pairs
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect(),
        ..Asked::default()
    }
}

impl Asked {
    fn with(self, other: Self) -> Self {
        Self {
            ids: [self.ids, other.ids].concat(),
            query: [self.query, other.query].concat(),
            body: self.body.into_iter().chain(other.body).collect(),
        }
    }
}

impl World {
    fn ask(&mut self, operation: Operation, asked: &Asked) -> Result<Value, MarketError> {
        let route = ROUTES.iter().find(|route| route.operation == operation);
        let call = Call {
            account: Some(self.account),
            ids: &asked.ids,
            query: &asked.query,
            body: &asked.body,
            origin: "http://127.0.0.1:1",
        };
        let answer = perform(&mut self.market, route.unwrap().family, operation, &call)?;
        Ok(serde_json::from_str(&answer).expect("an answer is JSON"))
    }

    fn ok(&mut self, operation: Operation, asked: &Asked) -> Value {
        self.ask(operation, asked).unwrap()
    }

    fn refused(&mut self, operation: Operation, asked: &Asked) -> (u16, &'static str) {
        let error = self.ask(operation, asked).unwrap_err();
        (error.status, error.code)
    }

    /// Rents something, and lets time pass.
    fn uses(&mut self, hours: i64) -> u64 {
        let offers = self.market.offers(self.account, SearchType::OnDemand, 8.0);
        let free = offers.iter().find(|row| row.rentable && !row.rented);
        let params = CreateParams {
            offer_id: free.unwrap().id,
            image: Some("a:b".to_owned()),
            label: Some("job".to_owned()),
            ..CreateParams::default()
        };
        let made = self.market.create(self.account, params).unwrap();
        let to = Time(self.market.now().0 + hours * 3_600_000);
        self.market.advance_to(to);
        made.new_contract
    }

    fn range(&self, column: &str) -> String {
        let now = self.market.now().epoch_seconds();
        json!({column: {"gte": now - 400_000.0, "lte": now}}).to_string()
    }
}

#[test]
fn the_user_is_a_flat_record() {
    let mut world = world();
    let user = world.ok(Operation::User, &Asked::default());
    assert_eq!(
        (&user["id"], &user["credit"]),
        (&json!(world.account), &json!(100.0))
    );
    assert_eq!(user["host_agreement_accepted"], false);
    assert_eq!(user["has_billing"], false);
    let set = body(
        json!({"client_id": "me", "balance_threshold": 10, "balance_threshold_enabled": true}),
    );
    assert_eq!(world.ok(Operation::UpdateUser, &set)["success"], true);
    let user = world.ok(Operation::User, &Asked::default());
    assert_eq!(
        (&user["balance_threshold"], &user["has_billing"]),
        (&json!(10.0), &json!(true))
    );
    let wrong = body(json!({"shoe_size": 44}));
    assert_eq!(
        world.refused(Operation::UpdateUser, &wrong),
        (400, "nonexistent_key")
    );
    assert_eq!(
        world.refused(Operation::UpdateUser, &Asked::default()),
        (400, "missing_input")
    );
}

#[test]
fn payments_need_a_range_of_dates() {
    let mut world = world();
    world.uses(5);
    for filters in [
        "{}",
        r#"{"when":{"gte":5}}"#,
        r#"{"when":{"gte":"x","lte":1}}"#,
    ] {
        let answer = world.ok(
            Operation::Payments,
            &query(&[("select_filters", filters.to_owned())]),
        );
        assert_eq!(
            (&answer["success"], &answer["error"], &answer["results"]),
            (&json!(false), &json!("Invalid date range"), &json!([]))
        );
    }
    let absent = world.ok(Operation::Payments, &Asked::default());
    assert_eq!(absent["success"], false);
    let all = query(&[("select_filters", world.range("when"))]);
    let answer = world.ok(Operation::Payments, &all);
    let row = &answer["results"][0];
    assert_eq!(
        (&row["type"], &row["amount"]),
        (&json!("credit"), &json!(-100.0))
    );
    assert_eq!(row["metadata"]["service"], "stripe_payments");
    assert_eq!(
        (&answer["count"], &answer["next_token"]),
        (&json!(1), &Value::Null)
    );
    let filters = json!({"when": {"gte": 0, "lte": 4e9}, "service": {"in": ["transfer"]}});
    let none = world.ok(
        Operation::Payments,
        &query(&[("select_filters", filters.to_string())]),
    );
    assert_eq!(none["count"], 0);
    let bad = query(&[("select_filters", "[]".to_owned())]);
    assert_eq!(
        world.refused(Operation::Payments, &bad),
        (400, "invalid_request")
    );
}

#[test]
fn charges_come_by_day_in_pages_with_opaque_tokens() {
    let mut world = world();
    let first = world.uses(40);
    world.uses(10);
    let all = query(&[("select_filters", world.range("day"))]);
    let whole = world.ok(Operation::Charges, &all);
    let rows = whole["results"].as_array().unwrap().clone();
    assert!(rows.len() >= 4, "{rows:?}");
    assert_eq!(rows[0]["source"], format!("instance-{first}"));
    assert_eq!(rows[0]["metadata"]["label"], "job");
    for latest in ["false", "true"] {
        let (mut pages, mut token) = (Vec::new(), String::new());
        loop {
            let page = all.clone().with(query(&[
                ("limit", "1".to_owned()),
                ("latest_first", latest.to_owned()),
                ("after_token", token.clone()),
            ]));
            let page = world.ok(Operation::Charges, &page);
            assert_eq!(
                (&page["count"], &page["total"]),
                (&json!(1), &json!(rows.len()))
            );
            pages.extend(page["results"].as_array().unwrap().clone());
            let Some(next) = page["next_token"].as_str() else {
                break;
            };
            let read: Value = serde_json::from_slice(&STANDARD.decode(next).unwrap()).unwrap();
            assert!(read["values"]["id"].is_string());
            next.clone_into(&mut token);
        }
        if latest == "true" {
            pages.reverse();
        }
        assert_eq!(pages, rows);
    }
    for token in ["x", "e30=", "bnVsbA=="] {
        let bad = all
            .clone()
            .with(query(&[("after_token", token.to_owned())]));
        assert_eq!(
            world.refused(Operation::Charges, &bad),
            (400, "invalid_token"),
            "{token}"
        );
    }
    let bad = all.clone().with(query(&[("limit", "ten".to_owned())]));
    assert_eq!(
        world.refused(Operation::Charges, &bad),
        (400, "invalid_request")
    );
    let none = all.with(query(&[("limit", "-5".to_owned())]));
    assert_eq!(
        world.ok(Operation::Charges, &none)["count"],
        1,
        "a page has a row at least"
    );
}

#[test]
fn charges_are_a_table_or_a_tree_and_filtered_by_type() {
    let mut world = world();
    let instance = world.uses(40);
    let range = world.range("day");
    let format = |format: &str| {
        query(&[
            ("select_filters", range.clone()),
            ("format", format.to_owned()),
        ])
    };
    let table = world.ok(Operation::Charges, &format("table"));
    let tree = world.ok(Operation::Charges, &format("tree"));
    assert_eq!((&table["count"], &tree["count"]), (&json!(2), &json!(1)));
    let node = &tree["results"][0];
    assert_eq!(node["source"], format!("instance-{instance}"));
    assert_eq!(node["items"], table["results"]);
    let sum: f64 = table["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["amount"].as_f64().unwrap())
        .sum();
    assert!((node["amount"].as_f64().unwrap() - sum).abs() < 1e-9);
    for (types, count) in [
        (r#"{"in":["volume"]}"#, 0),
        (r#"{"in":["volume","instance"]}"#, 2),
        (r#"{"eq":"instance"}"#, 2),
    ] {
        let mut filters: Value = serde_json::from_str(&range).unwrap();
        filters["type"] = serde_json::from_str(types).unwrap();
        let answer = world.ok(
            Operation::Charges,
            &query(&[("select_filters", filters.to_string())]),
        );
        assert_eq!(answer["count"], count, "{types}");
    }
    assert_eq!(
        world.refused(Operation::Charges, &format("poem")),
        (400, "invalid_request")
    );
    assert_eq!(
        world.refused(Operation::Charges, &Asked::default()),
        (400, "invalid_request")
    );
}

#[test]
fn the_last_day_of_a_range_counts_whole() {
    let mut world = world();
    world.uses(40);
    // The market opened at midnight: the second day begins with the end of this range.
    let midnight = world.market.now().epoch_seconds() - 16.0 * 3600.0;
    let filters = json!({"day": {"gte": midnight - 86_400.0, "lte": midnight}}).to_string();
    let answer = world.ok(Operation::Charges, &query(&[("select_filters", filters)]));
    assert_eq!(answer["count"], 2);
}

#[test]
fn the_older_bill_has_payments_and_charges_as_texts() {
    let mut world = world();
    let instance = world.uses(5);
    let plain = world.ok(Operation::OldInvoices, &Asked::default());
    assert_eq!(plain["invoices"].as_array().unwrap().len(), 1);
    let with = query(&[
        ("inc_charges", "true".to_owned()),
        ("sdate", "None".to_owned()),
    ]);
    let answer = world.ok(Operation::OldInvoices, &with);
    let rows = answer["invoices"].as_array().unwrap();
    let charged: f64 = rows
        .iter()
        .filter(|row| row["type"] == "charge")
        .map(|row| {
            assert_eq!(row["instance_id"], instance);
            row["amount"].as_str().unwrap().parse::<f64>().unwrap()
        })
        .sum();
    assert!(charged > 0.0);
    assert!((answer["current"]["charges"].as_f64().unwrap() - charged).abs() < 0.003);
    let early = query(&[
        ("edate", "1000".to_owned()),
        ("inc_charges", "true".to_owned()),
    ]);
    assert_eq!(
        world.ok(Operation::OldInvoices, &early)["invoices"],
        json!([])
    );
    let bad = query(&[("sdate", "yesterday".to_owned())]);
    assert_eq!(
        world.refused(Operation::OldInvoices, &bad),
        (400, "invalid_request")
    );
}

#[test]
fn invoices_are_searched_by_columns_with_numbers_as_texts() {
    let mut world = world();
    let two = world.market.account_for("at_two");
    let give = body(json!({"sender": "me", "recipient": two, "amount": "2.5"}));
    world.ok(Operation::TransferCredit, &give);
    let found = |world: &mut World, filters: Value| {
        let asked = query(&[
            ("select_cols", r#"["*"]"#.to_owned()),
            ("select_filters", filters.to_string()),
        ]);
        world
            .ok(Operation::SearchInvoices, &asked)
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(found(&mut world, json!({})), 2);
    assert_eq!(
        found(&mut world, json!({"amount_cents": {"gt": "3000"}})),
        1
    );
    assert_eq!(found(&mut world, json!({"amount_cents": {"eq": -250}})), 1);
    assert_eq!(
        found(&mut world, json!({"service": {"notin": ["transfer"]}})),
        1
    );
    assert_eq!(found(&mut world, json!({"is_credit": {"eq": "true"}})), 1);
    assert_eq!(found(&mut world, json!({"id": {"gte": 1, "lt": 2}})), 1);
    assert_eq!(
        found(&mut world, json!({"service": {"gt": 5, "neq": null}})),
        2
    );
    for filters in [
        r#"{"nonsense":{"eq":1}}"#,
        r#"{"id":{"almost":1}}"#,
        r#"{"id":5}"#,
        r#"{"id":{"in":5}}"#,
        "no json",
    ] {
        let asked = query(&[("select_filters", filters.to_owned())]);
        let refused = world.refused(Operation::SearchInvoices, &asked);
        assert_eq!(refused, (400, "invalid_request"), "{filters}");
    }
    let columns = query(&[("select_cols", r#"["id","nonsense"]"#.to_owned())]);
    let rows = world.ok(Operation::SearchInvoices, &columns);
    assert_eq!(rows[0], json!({"id": 1, "nonsense": null}));
}

#[test]
fn credit_goes_to_an_account_by_id_name_or_address() {
    let mut world = world();
    let two = world.market.account_for("at_two");
    for recipient in [
        json!(two),
        json!(two.to_string()),
        json!(format!("play-{two}@example.com")),
    ] {
        let give = body(json!({"recipient": recipient, "amount": 10}));
        assert_eq!(world.ok(Operation::TransferCredit, &give)["success"], true);
    }
    assert_eq!(world.market.credit(world.account), Money::dollars(70));
    assert_eq!(world.market.credit(two), Money::dollars(130));
    for (give, code) in [
        (
            json!({"recipient": two, "amount": 1000}),
            "insufficient_balance",
        ),
        (
            json!({"recipient": "nobody", "amount": 1}),
            "invalid_recipient",
        ),
        (json!({"recipient": "me", "amount": 1}), "invalid_recipient"),
        (json!({"recipient": two, "amount": -1}), "invalid_args"),
        (json!({"recipient": two, "amount": 1e200}), "invalid_args"),
        (json!({"recipient": two}), "invalid_args"),
        (json!({"amount": 1}), "invalid_args"),
    ] {
        assert_eq!(
            world.refused(Operation::TransferCredit, &body(give.clone())),
            (400, code),
            "{give}"
        );
    }
}

#[test]
fn ssh_keys_are_called_differently_in_lists_and_answers() {
    let mut world = world();
    assert_eq!(world.ok(Operation::SshKeys, &Asked::default()), json!([]));
    let made = world.ok(Operation::CreateSshKey, &body(json!({"ssh_key": KEY})));
    let key = made["key"]["id"].as_u64().unwrap();
    assert_eq!(
        (&made["success"], &made["key"]["public_key"]),
        (&json!(true), &json!(KEY))
    );
    let rows = world.ok(Operation::SshKeys, &Asked::default());
    assert_eq!(
        (&rows[0]["key"], &rows[0]["deleted_at"]),
        (&json!(KEY), &Value::Null)
    );
    let other = body(json!({"id": key, "ssh_key": "ssh-rsa AAAAB3"}));
    let edited = world.ok(Operation::UpdateSshKey, &id(key).with(other));
    assert_eq!(edited["key"]["public_key"], "ssh-rsa AAAAB3");
    assert_eq!(
        world.ok(Operation::DeleteSshKey, &id(key)),
        json!({"success": true})
    );
    for wrong in [json!(key), json!("x"), json!(-1), json!(u64::MAX)] {
        let wrong = id(wrong.to_string());
        assert_eq!(
            world.refused(Operation::DeleteSshKey, &wrong),
            (400, "no_ssh_key")
        );
    }
    assert_eq!(
        world.refused(Operation::CreateSshKey, &Asked::default()),
        (400, "no_ssh_key")
    );
    let number = body(json!({"ssh_key": 5}));
    assert_eq!(
        world.refused(Operation::CreateSshKey, &number),
        (400, "invalid_args")
    );
}

#[test]
fn templates_are_made_found_edited_both_ways_and_deleted() {
    let mut world = world();
    let given = body(
        json!({"name": "base", "image": "a", "tag": "b", "recommended_disk_space": "16",
        "env": "-e A=1", "ssh_direct": true, "runtype": "ssh"}),
    );
    let made = world.ok(Operation::CreateTemplate, &given)["template"].clone();
    world.ok(
        Operation::CreateTemplate,
        &body(json!({"name": "other", "image": "c"})),
    );
    let find = |world: &mut World, filters: Value| {
        let asked = query(&[
            ("select_filters", filters.to_string()),
            ("select_cols", r#"["*"]"#.to_owned()),
        ]);
        world.ok(Operation::Templates, &asked)
    };
    let found = find(
        &mut world,
        json!({"name": {"eq": "base"}, "count_created": {"gte": "0"}}),
    );
    assert_eq!(
        (&found["templates_found"], &found["templates"][0]),
        (&json!(1), &made)
    );
    let by_hash = body(json!({"hash_id": made["hash_id"], "name": "base2"}));
    let second = world.ok(Operation::UpdateTemplate, &by_hash)["template"].clone();
    assert_eq!(second["id"], made["id"]);
    assert_ne!(second["hash_id"], made["hash_id"]);
    assert_eq!(second["image"], "a");
    assert_eq!(
        world.refused(Operation::UpdateTemplate, &by_hash),
        (404, "no_such_template")
    );
    let mut whole = second.clone();
    whole["name"] = json!("base3");
    let third = world.ok(Operation::UpdateTemplate, &body(whole))["template"].clone();
    assert_eq!(
        (&third["id"], &third["name"]),
        (&made["id"], &json!("base3"))
    );
    assert_eq!(
        find(&mut world, json!({"hash_id": {"eq": third["hash_id"]}}))["templates_found"],
        1
    );
    let ordered = query(&[("order_by", r#"[{"col":"name","dir":"desc"}]"#.to_owned())]);
    assert_eq!(
        world.ok(Operation::Templates, &ordered)["templates"][0]["name"],
        "other"
    );
    let gone = body(json!({"template_id": made["id"]}));
    assert_eq!(world.ok(Operation::DeleteTemplate, &gone)["success"], true);
    assert_eq!(
        world.refused(Operation::DeleteTemplate, &gone),
        (404, "no_such_template")
    );
    assert_eq!(
        world.refused(Operation::DeleteTemplate, &Asked::default()),
        (400, "invalid_args")
    );
}

#[test]
fn webhooks_and_the_inbox() {
    let mut world = world();
    let types = world.ok(Operation::NotificationTypes, &Asked::default());
    let keys: Vec<&str> = types["notification_types"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["key"].as_str().unwrap())
        .collect();
    assert!(keys.contains(&"client:outbid") && keys.contains(&"client:low_credit"));
    let given =
        body(json!({"name": "ops", "webhook_url": "http://127.0.0.1:9/hook", "event_types": keys}));
    let made = world.ok(Operation::CreateWebhook, &given);
    let hook = made["webhook"]["id"].as_u64().unwrap();
    let secret = made["webhook"]["webhook_secret"]
        .as_str()
        .unwrap()
        .to_owned();
    let listed = world.ok(Operation::Webhooks, &Asked::default());
    assert_eq!(
        listed["webhooks"][0]["webhook_url"],
        "http://127.0.0.1:9/hook"
    );
    assert!(!listed.to_string().contains(&secret));
    let edited = world.ok(
        Operation::UpdateWebhook,
        &id(hook).with(body(json!({"name": "x"}))),
    );
    assert_eq!(edited["webhook"]["name"], "x");
    assert!(!edited.to_string().contains(&secret));
    let rotated = world.ok(Operation::RotateWebhookSecret, &id(hook));
    assert_ne!(rotated["webhook"]["webhook_secret"], secret.as_str());
    world.ok(Operation::TestWebhook, &id(hook));
    let (account, now) = (world.account, world.market.now());
    let about = json!({"instance_id": 1, "machine_id": 2, "your_bid": 0.1, "new_min_bid": 0.2});
    world
        .market
        .notify(account, "outbid", "outbid".to_owned(), about.clone());
    assert_eq!(
        world.market.take_deliveries().len(),
        2,
        "the test and the event"
    );
    let inbox = world.ok(Operation::Inbox, &Asked::default());
    assert_eq!(
        (&inbox["unread_count"], &inbox["success"]),
        (&json!(1), &json!(true))
    );
    let row = &inbox["notifications"][0];
    assert_eq!(
        (&row["notif_type"], &row["associated_id"]),
        (&json!("outbid"), &about)
    );
    assert_eq!(row["created_at"], now.epoch_seconds());
    world.ok(Operation::DeleteWebhook, &id(hook));
    for operation in [
        Operation::DeleteWebhook,
        Operation::RotateWebhookSecret,
        Operation::TestWebhook,
    ] {
        assert_eq!(world.refused(operation, &id("x")), (404, "not_found"));
    }
}

#[test]
fn a_host_lists_sets_its_floor_and_unlists() {
    let mut world = world();
    let all = world.ok(Operation::Machines, &query(&[("owner", "me".to_owned())]));
    assert_eq!(all["machines"].as_array().unwrap().len(), 2);
    let terms = body(
        json!({"machine": MACHINE, "price_gpu": 0.34, "price_disk": 0.15, "price_inetu": 0.004,
        "price_inetd": 0.002, "price_min_bid": 0.12, "min_chunk": 1, "end_date": 1_830_211_200.0,
        "credit_discount_max": 0.2, "duration": null, "vol_size": null, "vol_price": null}),
    );
    let listed = world.ok(Operation::ListMachine, &terms);
    assert_eq!(
        (&listed["success"], &listed["extended"]),
        (&json!(true), &json!(0))
    );
    let one = world.ok(Operation::Machine, &id(MACHINE));
    assert_eq!(one.as_array().unwrap().len(), 1, "a bare array of one");
    assert_eq!(
        (&one[0]["listed_gpu_cost"], &one[0]["end_date"]),
        (&json!(0.34), &json!(1_830_211_200.0))
    );
    let floor = id(MACHINE).with(body(json!({"client_id": "me", "price": "0.2"})));
    assert_eq!(
        world.ok(Operation::SetMinBid, &floor)["you_sent"]["price"],
        0.2
    );
    let job = body(json!({"machine": MACHINE, "price_gpu": 0.05, "image": "miner"}));
    world.ok(Operation::SetDefaultJob, &job);
    let one = world.ok(Operation::Machine, &id(MACHINE));
    assert_eq!(
        (&one[0]["min_bid_price"], &one[0]["bid_image"]),
        (&json!(0.2), &json!("miner"))
    );
    world.ok(Operation::RemoveDefaultJob, &id(MACHINE));
    let soon = world.market.now().epoch_seconds() + 3600.0;
    let plan = id(MACHINE).with(body(
        json!({"sdate": soon, "duration": 2, "maintenance_category": "power"}),
    ));
    world.ok(Operation::ScheduleMaintenance, &plan);
    world.ok(Operation::CancelMaintenance, &id(MACHINE));
    world.ok(Operation::CleanupMachine, &id(MACHINE));
    let unlisted = world.ok(Operation::UnlistMachine, &id(MACHINE));
    assert_eq!(
        (&unlisted["machine_id"], &unlisted["user_id"]),
        (&json!(MACHINE), &json!(world.account))
    );
    world.ok(Operation::ForceDeleteMachine, &id(MACHINE));
    assert_eq!(
        world.refused(Operation::Machine, &id(MACHINE)),
        (404, "not_found")
    );
}

#[test]
fn a_hosts_mistakes_get_the_documented_refusals() {
    let mut world = world();
    let mine = json!({"machine": MACHINE, "price_gpu": 0.3});
    world.ok(Operation::ListMachine, &body(mine));
    for (fields, refused) in [
        (json!({"price_gpu": 0.3}), (400, "invalid_args")),
        (
            json!({"machine": 11_003, "price_gpu": 0.3}),
            (403, "not_authorized"),
        ),
        (
            json!({"machine": -1, "price_gpu": 0.3}),
            (400, "invalid_args"),
        ),
        (
            json!({"machine": MACHINE, "price_gpu": -0.3}),
            (400, "invalid_price"),
        ),
        (
            json!({"machine": MACHINE, "price_gpu": [1]}),
            (400, "invalid_args"),
        ),
        (
            json!({"machine": MACHINE, "min_chunk": 3.5}),
            (400, "invalid_args"),
        ),
    ] {
        assert_eq!(
            world.refused(Operation::ListMachine, &body(fields.clone())),
            refused,
            "{fields}"
        );
    }
    for (price, refused) in [
        (json!(-1), (422, "invalid_price")),
        (json!(null), (400, "invalid_args")),
        (json!("dear"), (400, "invalid_args")),
    ] {
        let floor = id(MACHINE).with(body(json!({ "price": price })));
        assert_eq!(
            world.refused(Operation::SetMinBid, &floor),
            refused,
            "{price}"
        );
    }
    for plan in [
        json!({"duration": 2}),
        json!({"sdate": 5, "duration": 2}),
        json!({"sdate": 4e9, "duration": -2}),
        json!({"sdate": 4e9, "duration": 1e300}),
    ] {
        let asked = id(MACHINE).with(body(plan));
        assert_eq!(
            world.refused(Operation::ScheduleMaintenance, &asked),
            (400, "invalid_args")
        );
    }
    for job in [
        json!({"machine": MACHINE}),
        json!({"machine": MACHINE, "image": " "}),
    ] {
        assert_eq!(
            world.refused(Operation::SetDefaultJob, &body(job)),
            (400, "invalid_args")
        );
    }
    for operation in [
        Operation::UnlistMachine,
        Operation::RemoveDefaultJob,
        Operation::CancelMaintenance,
        Operation::CleanupMachine,
        Operation::ForceDeleteMachine,
    ] {
        for wrong in ["11003", "x", "-1", "99999999999999999999999"] {
            assert_eq!(
                world.refused(operation, &id(wrong)),
                (403, "not_authorized")
            );
        }
    }
    assert_eq!(
        world.refused(Operation::MachineReports, &id("x")),
        (404, "not_found")
    );
    assert!(world.ok(Operation::MachineReports, &id(MACHINE)).is_array());
}

#[test]
fn what_changes_something_is_in_the_audit_log_and_what_reads_is_not() {
    let mut world = world();
    world.ok(Operation::User, &Asked::default());
    world.ok(Operation::SshKeys, &Asked::default());
    let given = body(json!({"name": "t", "image": "a", "env": "-e KEY=hush"}));
    world.ok(Operation::CreateTemplate, &given);
    world.refused(Operation::DeleteSshKey, &id(7));
    let rows = world.ok(Operation::AuditLogs, &Asked::default());
    let routes: Vec<&str> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["api_route"].as_str().unwrap())
        .collect();
    assert_eq!(
        routes,
        ["api.ssh__delete", "api.template__post"],
        "newest first"
    );
    assert_eq!(rows[1]["args"]["name"], "t");
    assert_eq!(rows[1]["args"]["env"], "[redacted]");
    assert_eq!(rows[1]["created_at"], world.market.now().epoch_seconds());
}

#[test]
fn earnings_are_asked_for_by_days_and_machine() {
    let mut world = world();
    let asked = query(&[
        ("sday", "20780.28".to_owned()),
        ("eday", "20790.5".to_owned()),
        ("machid", "null".to_owned()),
    ]);
    let earned = world.ok(Operation::Earnings, &asked);
    assert_eq!(earned["summary"]["total_gpu"], 0.0);
    assert_eq!(earned["current"]["credit"], 100.0);
    for (name, value) in [("sday", "monday"), ("eday", "1e300"), ("machid", "x")] {
        let bad = query(&[(name, value.to_owned())]);
        assert_eq!(
            world.refused(Operation::Earnings, &bad),
            (400, "invalid_request")
        );
    }
}

#[test]
fn nobody_is_served_without_a_key() {
    let mut world = world();
    for route in ROUTES {
        if matches!(
            route.family,
            Family::Account | Family::Records | Family::Host
        ) {
            let call = Call {
                account: None,
                ids: &[],
                query: &[],
                body: &Map::new(),
                origin: "",
            };
            let error =
                perform(&mut world.market, route.family, route.operation, &call).unwrap_err();
            assert_eq!(
                (error.status, error.code),
                (403, "auth_error"),
                "{}",
                route.path
            );
        }
    }
}

/// Names that routes know, among others.
const NAMES: &[&str] = &[
    "machine",
    "price_gpu",
    "price_min_bid",
    "min_chunk",
    "end_date",
    "duration",
    "price",
    "sdate",
    "credit_discount_max",
    "image",
    "name",
    "hash_id",
    "id",
    "template_id",
    "env",
    "ssh_key",
    "amount",
    "recipient",
    "webhook_url",
    "event_types",
    "balance_threshold",
    "email",
    "extra_filters",
    "recommended_disk_space",
    "nonsense",
];
const PARAMETERS: &[&str] = &[
    "select_filters",
    "select_cols",
    "order_by",
    "limit",
    "after_token",
    "latest_first",
    "format",
    "sdate",
    "edate",
    "sday",
    "eday",
    "machid",
    "inc_charges",
];

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec![0.0, -1.0, 0.5, 1.0, 4e9, 1e308, 900_001.0])
            .prop_map(Value::from),
        Just(json!(MACHINE)),
        ".{0,20}".prop_map(Value::from),
        prop::sample::select(vec![
            KEY,
            "client:outbid",
            "https://example.com/",
            "me",
            "{}",
            "[]"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,8}", inner.clone(), 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
            prop::collection::btree_map(
                prop::sample::select(vec![
                    "eq", "gte", "lte", "in", "when", "day", "type", "id", "col"
                ])
                .prop_map(str::to_owned),
                inner,
                0..4
            )
            .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_call() -> impl Strategy<Value = (usize, Asked)> {
    let served: Vec<usize> = (0..ROUTES.len())
        .filter(|&at| {
            matches!(
                ROUTES[at].family,
                Family::Account | Family::Records | Family::Host
            )
        })
        .collect();
    let id = prop_oneof![
        Just("900001".to_owned()),
        Just("301".to_owned()),
        Just("41".to_owned()),
        Just("3001".to_owned()),
        ".{0,12}"
    ];
    let body = prop::collection::btree_map(prop::sample::select(NAMES), any_value(), 0..6);
    let text = prop_oneof![any_value().prop_map(|value| value.to_string()), ".{0,12}"];
    let query = prop::collection::btree_map(prop::sample::select(PARAMETERS), text, 0..4);
    (prop::sample::select(served), id, body, query).prop_map(|(route, id, body, query)| {
        let asked = Asked {
            ids: vec![id],
            query: query
                .into_iter()
                .map(|(name, text)| (name.to_owned(), text))
                .collect(),
            body: body
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        };
        (route, asked)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Whatever comes, it is answered or refused as documented, and the money stays.
    #[test]
    fn any_call_is_answered_or_refused(calls in prop::collection::vec(any_call(), 1..30)) {
        let mut world = world();
        let two = world.market.account_for("at_two");
        for (route, asked) in calls {
            match world.ask(ROUTES[route].operation, &asked) {
                Ok(answer) => prop_assert!(answer.is_object() || answer.is_array()),
                Err(error) => prop_assert!(
                    matches!(error.status, 400 | 403 | 404 | 422), "{} {asked:?}: {error}", ROUTES[route].path
                ),
            }
        }
        let all = world.market.credit(world.account) + world.market.credit(two);
        prop_assert_eq!(all, Money::dollars(200));
        world.market.advance_to(Time(world.market.now().0 + 3_600_000));
        prop_assert!(!world.market.offers(two, SearchType::Bid, 8.0).is_empty());
    }
}
