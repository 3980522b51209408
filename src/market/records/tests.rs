use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::market::{CreateParams, MarketOptions};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN me@example";

/// A still market with one account.
fn world() -> (Market, u64) {
    let mut market = Market::generated(MarketOptions {
        machines: Some(20),
        intensity: 0.0,
        failures: 0.0,
        ..MarketOptions::default()
    });
    let account = market.account_for("at_one");
    (market, account)
}

fn fields(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn code<T: std::fmt::Debug>(result: Result<T, crate::market::MarketError>) -> (u16, &'static str) {
    let error = result.unwrap_err();
    (error.status, error.code)
}

#[test]
fn keys_are_added_replaced_and_deleted() {
    let (mut market, account) = world();
    let now = market.now();
    let keys = market.records(account).unwrap().keys();
    let first = keys.add(now, KEY).unwrap();
    let second = keys.add(now, &format!("  {KEY}\n")).unwrap();
    assert_eq!((first.key.as_str(), second.id), (KEY, first.id + 1));
    let other = "ecdsa-sha2-nistp256 AAAAE2VjZHNh";
    assert_eq!(keys.replace(first.id, other).unwrap().key, other);
    keys.delete(first.id).unwrap();
    assert_eq!(keys.all(), [second]);
    assert_eq!(code(keys.delete(first.id)), (400, "no_ssh_key"));
    assert_eq!(code(keys.replace(9, KEY)), (400, "no_ssh_key"));
}

#[test]
fn what_is_no_public_key_is_refused() {
    let (mut market, account) = world();
    let now = market.now();
    let keys = market.records(account).unwrap().keys();
    assert_eq!(code(keys.add(now, " ")), (400, "no_ssh_key"));
    let long = format!("ssh-rsa {}", "A".repeat(9000));
    for text in [
        "hello",
        "ssh-rsa",
        "ssh-rsa AA",
        "ssh-rsa AAAA\nssh-rsa BBBB",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        &long,
    ] {
        assert_eq!(code(keys.add(now, text)), (400, "invalid_args"), "{text}");
    }
    for _ in 0..100 {
        keys.add(now, KEY).unwrap();
    }
    assert_eq!(code(keys.add(now, KEY)), (400, "invalid_args"), "too many");
}

#[test]
fn a_templates_hash_changes_with_every_edit_and_its_number_stays() {
    let (mut market, account) = world();
    let now = market.now();
    let templates = market.records(account).unwrap().templates();
    let given = fields(
        json!({"name": "t", "image": "a:b", "recommended_disk_space": "16",
        "env": "-e A=1", "tag": null, "creator_id": 7}),
    );
    let made = templates.add(now, &given).unwrap();
    assert_eq!(made.hash_id.len(), 32);
    assert_eq!(made.shown(account)["recommended_disk_space"], 16.0);
    assert_eq!(made.shown(account)["creator_id"], account);
    let mut hashes = std::collections::BTreeSet::from([made.hash_id.clone()]);
    let mut hash = made.hash_id.clone();
    for name in ["u", "t", "t"] {
        let edit = fields(json!({ "name": name }));
        let edited = templates.edit(None, Some(&hash), &edit).unwrap();
        assert_eq!(
            (edited.id, &edited.fields["image"]),
            (made.id, &json!("a:b"))
        );
        assert!(hashes.insert(edited.hash_id.clone()), "a new hash");
        hash = edited.hash_id;
    }
    let stale = templates.edit(None, Some(&made.hash_id), &given);
    assert_eq!(code(stale), (404, "no_such_template"));
    let by_id = templates.edit(Some(made.id), Some(&made.hash_id), &given);
    assert_eq!(by_id.unwrap().id, made.id, "the number counts");
    templates.delete(Some(made.id), None).unwrap();
    assert_eq!(
        code(templates.delete(Some(made.id), None)),
        (404, "no_such_template")
    );
}

#[test]
fn a_bad_template_is_refused_and_changes_nothing() {
    let (mut market, account) = world();
    let now = market.now();
    let templates = market.records(account).unwrap().templates();
    let good = json!({"name": "t", "image": "a:b"});
    let made = templates.add(now, &fields(good)).unwrap();
    for bad in [
        json!({"image": "a:b"}),
        json!({"name": "t"}),
        json!({"name": "", "image": "a:b"}),
        json!({"name": "t", "image": 7}),
        json!({"name": "t", "image": "a:b", "env": {"A": "1"}}),
        json!({"name": "t", "image": "a:b", "runtype": "vm"}),
        json!({"name": "t", "image": "a:b", "private": "yes"}),
        json!({"name": "t", "image": "a:b", "recommended_disk_space": -1}),
        json!({"name": "t", "image": "a:b", "recommended_disk_space": "NaN"}),
        json!({"name": "t", "image": "a:b", "extra_filters": "[1]"}),
        json!({"name": "t", "image": "x".repeat(1025)}),
    ] {
        let result = templates.add(now, &fields(bad.clone()));
        assert_eq!(code(result), (400, "invalid_args"), "{bad}");
    }
    let worse = fields(json!({"image": "", "name": "other"}));
    assert_eq!(
        code(templates.edit(Some(made.id), None, &worse)),
        (400, "invalid_args")
    );
    assert_eq!(templates.all()[0].hash_id, made.hash_id);
}

#[test]
fn a_rental_is_completed_by_its_template_and_what_it_gives_itself_counts() {
    let (mut market, account) = world();
    let now = market.now();
    let given = fields(
        json!({"name": "t", "image": "a", "tag": "b", "onstart": "go",
        "recommended_disk_space": 30, "env": "-e A=1 -e B=\"2\" -p 80:80/tcp --rm -e"}),
    );
    let templates = market.records(account).unwrap().templates();
    let hash = templates.add(now, &given).unwrap().hash_id;
    let asked = CreateParams {
        template_hash_id: Some(hash),
        onstart: Some("mine".to_owned()),
        env: vec![("A".to_owned(), "mine".to_owned())],
        ..CreateParams::default()
    };
    let mut params = asked.clone();
    market.complete_by_template(account, &mut params);
    assert_eq!(params.image.as_deref(), Some("a:b"));
    assert_eq!(
        (params.onstart.as_deref(), params.disk),
        (Some("mine"), Some(30.0))
    );
    let entries = params.env.iter();
    let entries: Vec<_> = entries.map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(entries, [("B", "2"), ("-p 80:80/tcp", "1"), ("A", "mine")]);
    let mut others = asked.clone();
    market.complete_by_template(account + 1, &mut others);
    assert_eq!(others, asked, "another account's");
}

#[test]
fn a_registrys_password_is_never_shown() {
    let (mut market, account) = world();
    let now = market.now();
    let given = fields(
        json!({"name": "t", "image": "a:b", "docker_login_pass": "hunter2",
        "docker_login_user": "me"}),
    );
    let made = market
        .records(account)
        .unwrap()
        .templates()
        .add(now, &given)
        .unwrap();
    let shown = made.shown(account).to_string();
    assert!(
        shown.contains("docker_login_user") && !shown.contains("hunter2"),
        "{shown}"
    );
}

#[test]
fn settings_are_taken_as_a_whole_or_not_at_all() {
    let (mut market, account) = world();
    let settings = &mut market.records(account).unwrap().settings;
    let mut set = |value: Value| settings.update(&fields(value));
    for (bad, expected) in [
        (json!({}), "missing_input"),
        (json!({"client_id": "me", "email": null}), "missing_input"),
        (json!({"email": " "}), "empty_input"),
        (json!({"fullname": "x".repeat(600)}), "input_too_long"),
        (json!({"fullname": "a\u{7}b"}), "invalid_characters"),
        (json!({"fullname": "ok", "nonsense": 1}), "nonexistent_key"),
        (json!({"fullname": 5}), "invalid_args"),
        (json!({"balance_threshold": -1}), "invalid_args"),
        (json!({"balance_threshold": 1e300}), "invalid_args"),
        (json!({"balance_threshold": "NaN"}), "invalid_args"),
        (json!({"balance_threshold_enabled": 3}), "invalid_args"),
    ] {
        assert_eq!(code(set(bad.clone())), (400, expected), "{bad}");
    }
    let all = json!({"balance_threshold_enabled": true, "balance_threshold": "5.5",
        "autobill_threshold": 2, "fullname": "Ada", "phone_number": "123"});
    set(all).unwrap();
    let user = json!(market.user_record(account));
    assert_eq!(user["balance_threshold"], 5.5);
    assert_eq!(user["autobill_threshold"], 2.0);
    assert_eq!(user["has_billing"], true);
    assert_eq!(
        (&user["fullname"], &user["phone_number"]),
        (&json!("Ada"), &json!("123"))
    );
    assert_eq!(user["id"], account);
}

#[test]
fn a_webhook_needs_a_public_address_or_this_machine() {
    let (mut market, account) = world();
    let now = market.now();
    let hooks = market.records(account).unwrap().webhooks();
    let mut add = |url: &str| {
        let given = json!({"webhook_url": url, "event_types": ["client:outbid"]});
        let made = hooks.add(now, &fields(given));
        if let Ok(made) = &made {
            hooks.delete(made.id).unwrap();
        }
        made.is_ok()
    };
    for url in [
        "https://example.com/hook?a=b",
        "https://203.0.113.9:8443/",
        "http://127.0.0.1:9464/hook",
        "http://localhost:1/",
        "http://[::1]:80/x",
    ] {
        assert!(add(url), "{url}");
    }
    let long = format!("https://example.com/{}", "a".repeat(2048));
    for url in [
        "http://example.com/hook",
        "https://169.254.169.254/latest",
        "https://10.0.0.1/",
        "https://[fd00::1]/",
        "https://[::ffff:169.254.169.254]/latest",
        "https://user:word@example.com/",
        "http://127.0.0.1@example.com/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "/hook",
        "not a url",
        "",
        &long,
    ] {
        assert!(!add(url), "{url}");
    }
}

#[test]
fn a_user_has_four_webhooks_and_each_secret_is_shown_once() {
    let (mut market, account) = world();
    let now = market.now();
    let hooks = market.records(account).unwrap().webhooks();
    let good = fields(json!({"webhook_url": "https://example.com/",
        "event_types": ["client:outbid", "outbid", "client:low_credit"], "name": "ops"}));
    let made = hooks.add(now, &good).unwrap();
    assert_eq!(made.events(), ["client:outbid", "client:low_credit"]);
    let secret = made.shown_with_secret(account)["webhook_secret"].clone();
    assert!(
        hooks.all()[0]
            .shown(account)
            .get("webhook_secret")
            .is_none()
    );
    let rotated = hooks.rotate(now, made.id).unwrap();
    assert_ne!(rotated.shown_with_secret(account)["webhook_secret"], secret);
    for _ in 0..3 {
        hooks.add(now, &good).unwrap();
    }
    assert_eq!(code(hooks.add(now, &good)), (400, "invalid_args"));
    for bad in [
        json!({"event_types": []}),
        json!({"event_types": ["client:nonsense"]}),
        json!({"event_types": "client:outbid"}),
        json!({"event_types": [7]}),
        json!({"name": "x".repeat(121)}),
        json!({"webhook_url": 5}),
    ] {
        let result = hooks.edit(now, made.id, &fields(bad.clone()));
        assert_eq!(code(result), (400, "invalid_args"), "{bad}");
    }
    assert_eq!(code(hooks.edit(now, 999, &good)), (404, "not_found"));
    assert_eq!(code(hooks.test(now, 999)), (404, "not_found"));
}

#[test]
fn a_notification_waits_for_the_webhooks_that_ask_for_its_kind() {
    let (mut market, account) = world();
    let now = market.now();
    let hooks = market.records(account).unwrap().webhooks();
    let given = fields(json!({"webhook_url": "https://example.com/", "event_types": ["outbid"]}));
    let id = hooks.add(now, &given).unwrap().id;
    let about = json!({"instance_id": 7});
    market.notify(
        account,
        "instance_started",
        "it runs".to_owned(),
        about.clone(),
    );
    market.notify(account, "outbid", "it does not".to_owned(), about.clone());
    let waiting: Vec<Delivery> = market
        .records(account)
        .unwrap()
        .webhooks()
        .outbox()
        .cloned()
        .collect();
    assert_eq!(waiting.len(), 1);
    let event: Value = serde_json::from_str(&waiting[0].body).unwrap();
    assert_eq!(event["notif_type"], "outbid");
    assert_eq!(event["event_id"], waiting[0].event_id.as_str());
    assert_eq!(market.inbox(account).len(), 2, "the inbox has both");
    assert_eq!(
        market.inbox(account)[0]["notif_type"],
        "outbid",
        "newest first"
    );
    assert_eq!(market.take_deliveries(), waiting);
    assert_eq!(market.take_deliveries(), []);
    for _ in 0..1500 {
        market.notify(account, "outbid", String::new(), about.clone());
    }
    let hooks = market.records(account).unwrap().webhooks();
    assert_eq!(hooks.outbox().count(), 1000, "what waits is bounded");
    hooks.delete(id).unwrap();
    assert_eq!(
        hooks.outbox().count(),
        0,
        "nothing goes to a deleted webhook"
    );
}

#[test]
fn a_signature_follows_from_secret_time_and_body() {
    let (mut market, account) = world();
    let now = market.now();
    let hooks = market.records(account).unwrap().webhooks();
    let given = fields(json!({"webhook_url": "https://example.com/", "event_types": ["outbid"]}));
    let made = hooks.add(now, &given).unwrap();
    market.notify(account, "outbid", "a".to_owned(), Value::Null);
    market
        .records(account)
        .unwrap()
        .webhooks()
        .rotate(now, made.id)
        .unwrap();
    market.notify(account, "outbid", "a".to_owned(), Value::Null);
    let sent = market.take_deliveries();
    let first = sent[0].signature(5);
    assert!(first.len() == 71 && first.starts_with("sha256="), "{first}");
    assert_eq!(first, sent[0].signature(5));
    assert_ne!(first, sent[0].signature(6));
    assert_ne!(first, sent[1].signature(5), "another secret");
}

#[test]
fn the_audit_log_keeps_no_secrets_and_is_bounded() {
    let (mut market, account) = world();
    let args = fields(json!({
        "label": "l", "env": {"TOKEN": "hush"}, "onstart": "hush", "image_login": "-p hush",
        "api_key": "hush", "nested": {"docker_login_pass": "hush", "deep": {"secret": ["hush"]}},
        "long": "x".repeat(5000), "many": vec![1; 500], "price": null,
    }));
    market.log_call(account, "api.asks__put", &args);
    let records = market.records(account).unwrap();
    let row = records.audit().next().unwrap();
    let shown = row.args.to_string();
    assert!(
        !shown.contains("hush") && shown.contains("\"label\":\"l\""),
        "{shown}"
    );
    assert!(shown.len() < 2000, "{}", shown.len());
    for _ in 0..1500 {
        market.log_call(account, "api.x", &Map::new());
    }
    assert_eq!(market.records(account).unwrap().audit().count(), 1000);
}

#[test]
fn a_transfer_is_refused_where_it_cannot_be() {
    let (mut market, one) = world();
    let two = market.account_for("at_two");
    let dollar = Money::dollars(1);
    for (to, amount, expected) in [
        (two, Money::ZERO, "invalid_args"),
        (two, Money(-5), "invalid_args"),
        (one, dollar, "invalid_recipient"),
        (7, dollar, "invalid_recipient"),
        (two, Money::dollars(101), "insufficient_balance"),
    ] {
        assert_eq!(code(market.transfer(one, to, amount)), (400, expected));
    }
    assert_eq!(market.payments(one).len(), 1);
    market.transfer(one, two, Money::dollars(100)).unwrap();
    assert_eq!(market.credit(one), Money::ZERO);
    assert_eq!(market.credit(two), Money::dollars(200));
    assert_eq!(market.payments(one)[1].row()["amount"], 100.0);
    assert_eq!(market.payments(two)[1].row()["amount"], -100.0, "paid in");
    assert_eq!(market.payments(two)[1].invoice(two)["amount_cents"], 10_000);
}

#[test]
fn who_was_out_of_credit_and_is_given_some_can_rent_again() {
    let (mut market, one) = world();
    let two = market.account_for("at_two");
    market.transfer(two, one, Money::dollars(100)).unwrap();
    market.advance_to(Time(market.now().0 + 60_000));
    let offers = market.offers(two, crate::types::offer::Market::OnDemand, 8.0);
    let free = offers.iter().find(|offer| offer.rentable).unwrap();
    let params = CreateParams {
        offer_id: free.id,
        image: Some("a:b".to_owned()),
        ..CreateParams::default()
    };
    let refused = market.create(two, params.clone());
    assert_eq!(code(refused), (400, "insufficient_credit"));
    market.transfer(one, two, Money::dollars(50)).unwrap();
    let made = market.create(two, params).unwrap();
    market.advance_to(Time(market.now().0 + 3_600_000));
    assert!(market.instance(two, made.new_contract).is_some());
}

proptest! {
    /// Whatever is moved, no money is made and none is lost; and nobody is moved below zero.
    #[test]
    fn transfers_conserve_money(moves in prop::collection::vec((0..3_usize, 0..4_usize, any::<i64>()), 0..20)) {
        let (mut market, one) = world();
        let accounts = [one, market.account_for("at_two"), market.account_for("at_three"), 5];
        let total = |market: &Market| accounts.iter().map(|&id| market.credit(id)).sum::<Money>();
        let before = total(&market);
        for (from, to, amount) in moves {
            let amount = Money(amount % 200_000_000_000);
            let result = market.transfer(accounts[from], accounts[to], amount);
            if let Err(error) = result {
                prop_assert_eq!(error.status, 400);
            }
            prop_assert_eq!(total(&market), before);
            for id in accounts {
                prop_assert!(market.credit(id) >= Money::ZERO);
                let paid: Money = market.payments(id).iter().map(|payment| payment.amount).sum();
                prop_assert_eq!(paid, market.credit(id), "the payments tell the credit");
            }
        }
    }
}

#[test]
fn a_market_that_runs_for_long_remembers_what_was_last() {
    let mut market = Market::generated(MarketOptions::default());
    market.advance_to(market.now() + std::time::Duration::from_secs(6 * 3600));
    let all = market.events().to_vec();
    assert!(all.len() > 20);
    market.forget_events(all.len());
    assert_eq!(market.events(), all);
    market.forget_events(20);
    assert_eq!(market.events(), &all[all.len() - 10..]);
}
