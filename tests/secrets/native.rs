//! The same search along the marketplace's own format, by hand, and of what is delivered to us.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use haggle::clock::SystemClock;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::*;
use crate::support::set_up_with;

/// Everything secret, as a careless or hostile sender could put it into a text.
fn everything() -> String {
    let plain = [TOKEN, IN_ENVIRONMENT, IN_FILE, PASSWORD, SIGNING].join(" and ");
    let escaped = Value::from(plain.as_str()).to_string();
    format!("{plain}\n{escaped}")
}

/// A key that a shell in a terminal would take for its own.
const ESCAPE: &str = "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}";

fn with_all_canaries(command: &mut Command) -> &mut Command {
    with_canaries(command).env("CANARY_SIGNING", SIGNING)
}

/// Looks at what a command wrote for secrets, and for what a terminal would obey.
fn assert_tame(name: &str, bytes: &[u8]) {
    assert_clean(name, bytes);
    let text = String::from_utf8_lossy(bytes);
    let obeyed = |c: &char| (c.is_control() && !"\n\t".contains(*c)) || *c == '\u{202e}';
    let found = text.chars().find(obeyed);
    assert_eq!(found, None, "{name} holds a control character: {text:?}");
}

/// Now, in whole seconds since 1970.
fn seconds() -> i64 {
    SystemClock::new().now().0.div_euclid(1000)
}

/// Delivers a notification and gives back what was answered.
fn deliver(address: &str, body: &str, key: &str) -> String {
    let now = seconds();
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(format!("{now}.{body}").as_bytes());
    let mut signature = String::new();
    for byte in mac.finalize().into_bytes() {
        write!(signature, "{byte:02x}").unwrap();
    }
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST /webhooks/vast HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         X-Vast-Timestamp: {now}\r\nX-Vast-Signature-256: sha256={signature}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The inbox of a marketplace that repeats everything it was ever told.
fn inbox() -> Reply {
    let now = seconds();
    let rows: Vec<Value> = ["low_credit", "webhook_test", "a kind \u{1b}[2J of its own"]
        .into_iter()
        .map(|kind| {
            json!({
                "event_id": format!("e-{kind}-{}", everything()), "notif_type": kind,
                "subject": everything(), "message": format!("{ESCAPE} {}", everything()),
                "created_at": now, "associated_id": null,
            })
        })
        .collect();
    reply(
        200,
        "application/json",
        json!({ "notifications": rows }).to_string(),
    )
}

#[test]
fn the_marketplaces_own_format_leads_no_secret_out_either() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let pem = directory.join("secret.pem");
    fs::write(&pem, format!("{IN_FILE}\n")).unwrap();
    let first_shape = 3;
    let creates = Arc::new(AtomicU64::new(0));
    let echoes = Arc::new(AtomicU64::new(first_shape));
    let (counted_creates, counted_echoes) = (Arc::clone(&creates), Arc::clone(&echoes));
    let market = Gateway::start(
        Some(TOKEN),
        Box::new(move |number, request| {
            if request.path.contains("/notifications/inbox") {
                return Some(inbox());
            }
            let echoed = if carries_secrets(request) {
                counted_creates.fetch_add(1, Ordering::SeqCst) != 1
            } else {
                number > 4 && number % 3 == 0
            };
            echoed.then(|| {
                let shape = counted_echoes.fetch_add(1, Ordering::SeqCst);
                let answer = echo(shape, request);
                answer.unwrap_or_else(|error| reply(400, "text/plain", error.to_string()))
            })
        }),
    );
    // No consent: there is no third party.
    let provider = format!(
        "kind = \"vast\"\nbase_url = \"{}\"\n[events]\nwebhook_secret = {{ env = \"CANARY_SIGNING\" }}\n",
        market.origin
    );
    set_up_with(directory, &provider, &policy(&pem));
    let mut command = haggle(directory);
    with_all_canaries(&mut command)
        .args(["run", "--live", "-vv"])
        .env("HAGGLE_POLL__INSTANCES_EVERY", "5s")
        .env("RUST_LOG", "trace");
    let mut daemon = Running::start(&mut command, directory, "run");
    market.wait_until("creates and echoes", |_| {
        creates.load(Ordering::SeqCst) >= 2 && echoes.load(Ordering::SeqCst) >= first_shape + 4
    });
    let stderr = fs::read_to_string(directory.join("run.err")).unwrap();
    let address = served_at(&stderr).to_owned();
    let body = |id: &str| {
        json!({
            "event_id": format!("{id} {}", TOKEN), "user_id": 1, "notif_type": "outbid",
            "subject": format!("{ESCAPE}\n2026 ERROR forged"), "message": everything(),
            "timestamp": 0,
        })
        .to_string()
    };
    for (id, key, status) in [("a", SIGNING, "204"), ("b", WRONG_TOKEN, "401")] {
        let answer = deliver(&address, &body(id), key);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert_clean("what a delivery is answered", answer.as_bytes());
    }
    // The event is written down with the tick that it wakes.
    let database = directory.join("haggle.db");
    market.wait_until("the notifications are recorded", |_| {
        let events = Reader::open(&database).and_then(|reader| reader.events(None, 1000));
        let told = ["told-outbid", "told-low-credit"];
        events.is_ok_and(|events| {
            let events = format!("{events:?}");
            told.iter().all(|kind| events.contains(kind))
        })
    });
    for path in PATHS {
        let answer = get(&address, path);
        assert!(answer.starts_with("HTTP/1.1 "), "{path}: {answer}");
        assert_clean(path, answer.as_bytes());
    }
    daemon.terminate();
    daemon.wait_to_say("ending:");
    daemon.terminate();
    assert_eq!(daemon.wait().code(), Some(2));
    let stderr = fs::read_to_string(directory.join("run.err")).unwrap();
    assert!(stderr.contains("TRACE"), "nothing was traced");
    assert!(stderr.contains("[redacted]"), "no echo was told");
    let reader = Reader::open(&database).unwrap();
    let events = reader.events(None, 100_000).unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert!(kinds.contains(&"told-low-credit"), "{kinds:?}");
    assert_clean("events", format!("{events:?}").as_bytes());
    for event in &events {
        assert_tame("an event", event.text.as_bytes());
        assert_tame("an event's kind", event.kind.as_bytes());
    }

    for args in [
        &["jobs"][..],
        &["instances"],
        &["explain", "train"],
        &["spend"],
        &["doctor"],
        &["plan"],
        &["offers"],
        &["check"],
    ] {
        for json in [&[][..], &["--json", "--log-format", "json"]] {
            let mut command = haggle(directory);
            let output = with_all_canaries(&mut command)
                .args(args)
                .args(json)
                .arg("-vv")
                .env("RUST_LOG", "trace")
                .output()
                .unwrap();
            let name = format!("{args:?} {json:?}");
            assert!(!output.stdout.is_empty() || !output.stderr.is_empty());
            assert_tame(&name, &output.stdout);
            assert_tame(&name, &output.stderr);
        }
    }
    for args in [&["run", "--live", "--once"][..], &["plan"], &["doctor"]] {
        let output = haggle(directory)
            .args(args)
            .env("HAGGLE_TOKEN", WRONG_TOKEN)
            .env("CANARY_SIGNING", SIGNING)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{args:?}: {text}");
        assert_tame(&format!("{args:?}"), &output.stdout);
        assert_tame(&format!("{args:?}"), &output.stderr);
    }
    let looked = assert_files_clean(directory, &pem);
    for file in ["haggle.db", "run.err", "run.out"] {
        assert!(looked.iter().any(|path| path.ends_with(file)), "{file}");
    }
}

/// Runs `haggle api` against a marketplace of a kind.
fn by_hand(directory: &Path, kind: &str, base_url: &str, args: &[&str]) -> std::process::Output {
    let mut command = haggle(directory);
    with_all_canaries(&mut command)
        .env("HAGGLE_PROVIDER__KIND", kind)
        .env("HAGGLE_PROVIDER__BASE_URL", base_url)
        .env("RUST_LOG", "trace")
        .arg("api")
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn operations_by_hand_show_no_secret_whatever_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let file = directory.join("body.json");
    let body = json!({
        "image": "ghcr.io/me/private:1", "disk": 16,
        "env": {"CANARY_ENV": IN_ENVIRONMENT, "CANARY_PEM": IN_FILE},
        "image_login": format!("-u me -p {PASSWORD} ghcr.io"),
        "onstart": format!("export A={IN_ENVIRONMENT}"),
    });
    fs::write(&file, body.to_string()).unwrap();
    let body = format!("@{}", file.display());
    let shape = Arc::new(AtomicU64::new(0));
    let picked = Arc::clone(&shape);
    let server = Gateway::start(
        None,
        Box::new(move |_, request| {
            if request.path.ends_with("/openapi") || request.path.ends_with("/definition") {
                return Some(reply(404, "application/json", "{}".to_owned()));
            }
            let answer = echo(picked.load(Ordering::SeqCst), request);
            Some(answer.unwrap_or_else(|error| reply(500, "text/plain", error.to_string())))
        }),
    );
    let create = [
        "create_instance",
        "--param",
        "offer_id=7",
        "--yes",
        "--body",
    ];
    for (kind, base_url) in [("vast", &server.origin), ("lowcodeapi", &server.base_url)] {
        for number in 0..SHAPES {
            shape.store(number, Ordering::SeqCst);
            for args in [
                &[create.as_slice(), &[body.as_str()]].concat()[..],
                &["instances", "--reveal"],
                &["instance", "--param", "instance_id=7", "-vv"],
            ] {
                let output = by_hand(directory, kind, base_url, args);
                let name = format!("{kind} {number} {args:?}");
                let said = output.stdout.len() + output.stderr.len();
                assert!(said > 0, "{name}");
                assert_tame(&name, &output.stdout);
                assert_tame(&name, &output.stderr);
            }
        }
        // What would be sent is shown, but for the token, wherever it was put.
        let label = format!("label={TOKEN}");
        let args = [
            create.as_slice(),
            &[body.as_str(), "--param", &label, "--dry-run"],
        ]
        .concat();
        let filter = format!("state={TOKEN}");
        for args in [&args[..], &["instances", "--param", &filter, "--dry-run"]] {
            for json in [&[][..], &["--json"]] {
                let output = by_hand(directory, kind, base_url, &[args, json].concat());
                assert!(output.status.success(), "{output:?}");
                let text = String::from_utf8_lossy(&output.stdout);
                let core = &CORES[0][..TELLTALE];
                assert!(!text.contains(core), "{kind} {args:?}: {text}");
                assert!(text.contains("[redacted]"), "{kind} {args:?}: {text}");
                assert_tame("beside what would be sent", &output.stderr);
            }
        }
        let output = by_hand(directory, kind, base_url, &["--list"]);
        assert!(output.status.success());
        assert_tame("the list", &output.stdout);
    }
}

#[test]
fn a_message_of_the_marketplace_does_nothing_to_a_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let server = Gateway::start(
        None,
        Box::new(|_, _| {
            let said = json!({"success": false, "error": "invalid_args", "msg": format!("no {ESCAPE} such")});
            Some(reply(400, "application/json", said.to_string()))
        }),
    );
    set_up_with(
        directory,
        &format!("kind = \"vast\"\nbase_url = \"{}\"\n", server.origin),
        POLICY,
    );
    for args in [
        &["doctor"][..],
        &["plan"],
        &["offers"],
        &["api", "instances"],
    ] {
        let mut command = haggle(directory);
        let output = with_canaries(&mut command).args(args).output().unwrap();
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        assert!(String::from_utf8_lossy(&text).contains("such"), "{args:?}");
        assert_tame(&format!("{args:?}"), &text);
    }
}

/// The play market as a process of its own, and where it is as the marketplace itself.
fn market(directory: &Path) -> (Running, String) {
    let mut command = haggle(directory);
    let mut child = command
        .args(["market", "--listen", "127.0.0.1:0", "--token", TOKEN])
        .args(["--json", "-vv", "--rate-limits", "off"])
        .env("RUST_LOG", "trace")
        .stdout(Stdio::piped())
        .stderr(fs::File::create(directory.join("market.err")).unwrap())
        .spawn()
        .unwrap();
    let mut document = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        document.push_str(&line);
        if line == "}" {
            break;
        }
    }
    assert_clean("what the market says of itself", document.as_bytes());
    let document: Value = serde_json::from_str(&document).unwrap();
    let url = document["vast_base_url"].as_str().unwrap().to_owned();
    (Running::of(child), url)
}

#[test]
fn the_play_market_keeps_what_it_is_told_to_itself() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (_market, url) = market(directory);
    let api = |args: &[&str]| {
        let output = by_hand(directory, "vast", &url, args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        assert_tame(&format!("{args:?}"), &output.stderr);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains(CORES[0]), "{args:?}: {text}");
        text
    };
    let offers: Value = serde_json::from_str(&api(&["offers", "-p", "limit=1"])).unwrap();
    let offer = format!("offer_id={}", offers["offers"][0]["id"]);
    let file = directory.join("body.json");
    let body = json!({
        "image": "ghcr.io/me/private:1", "disk": 16,
        "env": {"CANARY_ENV": IN_ENVIRONMENT, "CANARY_PEM": IN_FILE},
        "image_login": format!("-u me -p {PASSWORD} ghcr.io"),
    });
    fs::write(&file, body.to_string()).unwrap();
    let body = format!("@{}", file.display());
    api(&["create_instance", "-p", &offer, "--body", &body, "--yes"]);
    let hook = r#"{"webhook_url":"http://127.0.0.1:9/","event_types":["client:outbid"]}"#;
    let create = ["create_webhook", "--yes", "--body", hook];
    let (shown, revealed) = (
        api(&create),
        api(&[create.as_slice(), &["--reveal"]].concat()),
    );
    assert!(!shown.contains("whsec_"), "{shown}");
    assert!(revealed.contains("whsec_"), "{revealed}");
    for args in [&["instances"][..], &["user"], &["webhooks", "--reveal"]] {
        let text = api(args);
        assert_clean(&format!("{args:?}"), text.as_bytes());
        assert!(!text.contains("whsec_"), "{args:?}: {text}");
    }
    // What the log of calls keeps of secrets is nothing that could be revealed.
    let calls = api(&["audit_logs", "--reveal"]);
    assert!(calls.contains("asks"), "{calls}");
    assert_clean("the log of calls", calls.as_bytes());
    let said = fs::read(directory.join("market.err")).unwrap();
    assert_clean("the market's log", &said);
    assert!(String::from_utf8_lossy(&said).contains("TRACE"));
}
