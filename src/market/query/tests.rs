//! The search language, over rows made by hand.

use super::*;
use proptest::prelude::*;
use serde_json::json;

impl Row for Value {
    fn cell(&self, field: &str) -> Field<'_> {
        match &self[field] {
            Value::Bool(truth) => Field::Flag(*truth),
            Value::Number(number) => number.as_f64().map_or(Field::Null, Field::Number),
            Value::String(text) => Field::Text(text),
            _ => Field::Null,
        }
    }

    fn stands_for(&mut self, rows: u32) {
        self["bundled_results"] = Value::from(rows);
    }
}

fn row(id: u64, more: Value) -> Value {
    let mut row = json!({
        "id": id, "ask_contract_id": id, "num_gpus": 1, "gpu_name": "RTX 4090",
        "gpu_ram": 24564, "dph_total": 0.4, "score": 100.0, "verification": "verified",
        "rentable": true, "rented": false, "hosting_type": 0, "external": null,
        "geolocation": "Oslo, NO", "driver_version": "535.86.05", "driver_vers": 535086005,
        "static_ip": true, "reliability2": 0.99, "os_version": "22.04",
    });
    let fields = more.as_object().cloned().unwrap_or_default();
    row.as_object_mut().unwrap().extend(fields);
    row
}

fn rows() -> Vec<Value> {
    vec![
        row(1, json!({})),
        row(
            2,
            json!({"gpu_name": "RTX 3090", "dph_total": 0.2, "geolocation": ", US"}),
        ),
        row(3, json!({"verification": "unverified", "dph_total": 0.1})),
        row(4, json!({"rentable": false})),
        row(5, json!({"rented": true})),
        row(
            6,
            json!({"hosting_type": 1, "num_gpus": 4, "dph_total": 1.6, "dlperf": 300.0}),
        ),
        row(
            7,
            json!({"static_ip": false, "driver_version": "570.10", "driver_vers": 570010000, "score": 900.0}),
        ),
    ]
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn ids(list: &[(&str, &str)]) -> Vec<u64> {
    let search = Search::parse(&pairs(list), false).unwrap();
    let selected = search.select(rows());
    selected.iter().map(|r| r["id"].as_u64().unwrap()).collect()
}

fn q(filters: Value) -> Vec<u64> {
    let text = filters.to_string();
    ids(&[("q", &text), ("order", r#"[["ask_contract_id","asc"]]"#)])
}

#[test]
fn defaults_hide_what_is_unverified_taken_or_own_and_an_open_filter_shows_it() {
    assert_eq!(q(json!({})), [1, 2, 6, 7]);
    assert_eq!(q(json!({"verified": {"eq": false}})), [3]);
    assert_eq!(
        q(json!({"verified": {}, "rentable": {}, "rented": {}})),
        [1, 2, 3, 4, 5, 6, 7]
    );
    assert_eq!(q(json!({"rented": {"in": [true, false]}})), [1, 2, 5, 6, 7]);
    assert_eq!(
        q(json!({"rented": null})),
        [1, 2, 6, 7],
        "null is as good as absent"
    );
}

#[test]
fn operands_are_coerced_by_what_the_field_holds() {
    assert_eq!(
        q(json!({"num_gpus": {"eq": "1"}, "dph_total": {"lt": "0.3"}})),
        [2]
    );
    assert_eq!(q(json!({"num_gpus": {"gte": 2}})), [6]);
    assert_eq!(q(json!({"static_ip": {"eq": "false"}})), [7]);
    assert_eq!(q(json!({"static_ip": {"eq": 0}})), [7]);
    assert_eq!(q(json!({"datacenter": {"eq": true}})), [6]);
    assert_eq!(q(json!({"external": {"eq": false}})), [1, 2, 6, 7]);
    assert_eq!(q(json!({"driver_version": {"gt": 535086005}})), [7]);
    assert_eq!(q(json!({"driver_version": {"gte": "570.10"}})), [7]);
    assert_eq!(q(json!({"geolocation": {"in": ["US", "CA"]}})), [2]);
    assert_eq!(q(json!({"geolocation": {"notin": ["US"]}})), [1, 6, 7]);
    assert_eq!(q(json!({"gpu_name": {"neq": "RTX 4090"}})), [2]);
    assert_eq!(
        q(json!({"gpu_ram": {"gte": 24000.0, "lte": "24564"}})),
        [1, 2, 6, 7]
    );
    assert_eq!(q(json!({"ubuntu_version": {"eq": "22.04"}})), [1, 2, 6, 7]);
    assert_eq!(
        q(json!({"dlperf": {"gt": 0}})),
        [6],
        "what is missing meets no test"
    );
    assert_eq!(
        q(json!({"id": {"eq": 1}})),
        [0_u64; 0],
        "as on the real marketplace"
    );
    assert_eq!(q(json!({"ask_contract_id": {"eq": 1}})), [1]);
}

#[test]
fn parameters_beside_q_count_and_outweigh_it() {
    assert_eq!(ids(&[("gpu_name", "RTX 3090")]), [2]);
    assert_eq!(
        ids(&[
            ("q", r#"{"limit": 1}"#),
            ("limit", "2"),
            ("order", "dph_total")
        ]),
        [2, 1]
    );
    assert_eq!(
        ids(&[
            ("num_gpus", r#"{"gt":"1"}"#),
            ("api_token", "at_x"),
            ("else", "1")
        ]),
        [6]
    );
}

#[test]
fn orders_in_every_spelling_with_missing_values_last() {
    let by = |text: &str| ids(&[("order", text)]);
    assert_eq!(
        by(r#"[["num_gpus","desc"],["dph_total","asc"]]"#),
        [6, 2, 1, 7]
    );
    assert_eq!(by("num_gpus-,dph_total"), [6, 2, 1, 7]);
    assert_eq!(by("num_gpus desc, dph_total asc"), [6, 2, 1, 7]);
    assert_eq!(by("dlperf"), [6, 1, 2, 7]);
    assert_eq!(by("dlperf-"), [6, 1, 2, 7]);
    assert_eq!(by(""), [7, 1, 2, 6], "by score, best first");
    assert_eq!(
        ids(&[("sort_option", r#"{"0":["dph_total","asc"]}"#)])[0],
        2
    );
    assert_eq!(ids(&[("sort_option", "auto")])[0], 7);
}

#[test]
fn never_more_than_the_cap() {
    let many: Vec<_> = (1..200).map(|id| row(id, json!({}))).collect();
    let count = |list: &[(&str, &str)], honour| {
        let search = Search::parse(&pairs(list), honour).unwrap();
        let rows = search.select(many.clone());
        (rows.len(), rows.first().map(|r| r["id"].as_u64().unwrap()))
    };
    assert_eq!(count(&[("limit", "1000")], false), (64, Some(1)));
    assert_eq!(
        count(&[("limit", "10"), ("offset", "20")], false),
        (10, Some(1))
    );
    assert_eq!(
        count(&[("limit", "10"), ("offset", "20")], true),
        (10, Some(21))
    );
    assert_eq!(count(&[("offset", "500")], true), (0, None));
}

#[test]
fn one_row_is_found_whatever_its_flags() {
    for id in ["3", "4", "5"] {
        let search = Search::by_id(id, &pairs(&[("type", "bid"), ("limit", "0")])).unwrap();
        assert_eq!(search.kind, SearchType::Bid);
        assert_eq!(search.select(rows()).len(), 1);
    }
    assert!(Search::by_id("offer_id", &[]).is_err());
}

#[test]
fn what_is_wrong_is_named() {
    for (key, value, message) in [
        ("q", r#"{"dph":{"lt":1}}"#, "dph is not a valid search key"),
        (
            "q",
            r#"{"dph_total":{"below":1}}"#,
            "below is not a valid operator (dph_total)",
        ),
        (
            "q",
            r#"{"dph_total":{"lt":"cheap"}}"#,
            "dph_total: \"cheap\" does not fit",
        ),
        ("q", r#"{"dph_total":0.3}"#, "dph_total must be an object"),
        (
            "q",
            r#"{"gpu_name":{"in":"RTX 4090"}}"#,
            "in needs an array",
        ),
        ("q", "[1]", "q is not a JSON object"),
        ("q", "{", "q is not a JSON object"),
        (
            "type",
            "interruptible",
            "type \"interruptible\" is not one of",
        ),
        ("limit", "many", "limit \"many\" is not a whole number"),
        ("limit", "-1", "limit -1 is not a whole number"),
        ("order", "price", "price is not a valid search key"),
        ("order", r#"[["dph_total","up"]]"#, "is not [[field"),
        ("allocated_storage", "-5", "is not a size in GB"),
    ] {
        let error = Search::parse(&pairs(&[(key, value)]), false).unwrap_err();
        assert!(
            error.to_string().contains(message),
            "{key}={value}: {error}"
        );
    }
}

proptest! {
    #[test]
    fn any_query_is_read_or_refused(key in "q|order|limit|type|gpu_name", text in ".{0,60}") {
        let _ = Search::parse(&[(key, text)], true);
    }

    #[test]
    fn what_is_selected_meets_a_bound_and_keeps_the_order(prices in prop::collection::vec(0.01_f64..5.0, 0..120), bound in 0.0_f64..5.0) {
        let rows: Vec<_> = prices.iter().enumerate().map(|(id, price)| row(id as u64, json!({"dph_total": price}))).collect();
        let text = json!({"dph_total": {"gt": bound.to_string()}}).to_string();
        let search = Search::parse(&pairs(&[("q", &text), ("order", "dph_total")]), false).unwrap();
        let selected: Vec<f64> = search.select(rows).iter().map(|r| r["dph_total"].as_f64().unwrap()).collect();
        prop_assert!(selected.iter().all(|price| *price > bound));
        prop_assert!(selected.is_sorted());
        prop_assert_eq!(selected.len(), prices.iter().filter(|price| **price > bound).count().min(64));
    }
}

#[test]
fn a_key_that_stands_again_in_an_order_decides_and_costs_nothing() {
    let keys = vec![json!(["dph_total", "desc"]), json!(["num_gpus", "asc"])];
    let many: Vec<Value> = keys.iter().cycle().take(60_000).cloned().collect();
    let search = |order: &[Value]| {
        let object = json!({ "order": order });
        Search::of_object(object.as_object().unwrap()).unwrap()
    };
    assert_eq!(search(&many), search(&keys));
    let reversed = [keys.clone(), vec![json!(["dph_total", "asc"])]].concat();
    assert_eq!(search(&reversed), search(&keys));
}

#[test]
fn what_the_official_classes_send_bare_is_what_the_field_must_equal() {
    let search = |object: Value| Search::of_object(object.as_object().unwrap());
    for (name, value) in [("external", json!(false)), ("has_avx", json!(1))] {
        let bare = search(json!({ name: value })).unwrap();
        assert_eq!(bare, search(json!({ name: {"eq": value} })).unwrap());
        assert!(search(json!({ name: [value] })).is_err());
    }
}
