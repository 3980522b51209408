//! Operations by hand: every one in every form of URL and in both wire formats, against a server
//! that keeps what it was asked; what is refused, what is shown, and how the process ends.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use haggle::marketplace::operation::{Operation, Route, Wire, old_form, reference_table};
use haggle::ports::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

const TOKEN: &str = "at_canary_0123456789";
const ID: &str = "17";

/// One request as it came.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    bearer: Option<String>,
    body: Value,
}

impl Asked {
    /// `PUT /path?a=b`, without the token.
    fn line(&self) -> String {
        let query: Vec<String> = self
            .query
            .iter()
            .filter(|(name, _)| name != "api_token")
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{} {}{mark}{}", self.method, self.path, query.join("&"))
    }
}

/// How the server behaves.
#[derive(Clone)]
struct Manners {
    /// Whether ids stand in the path.
    new: bool,
    /// Whether ids stand in the query.
    old: bool,
    /// What it says of itself, and where.
    description: Option<(&'static str, Value)>,
    /// The answer to a request that is matched; the usual one without.
    answer: Option<(u16, Value)>,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            new: true,
            old: false,
            description: None,
            answer: None,
        }
    }
}

struct Shared {
    manners: Manners,
    asked: Mutex<Vec<Asked>>,
}

/// A gateway, or the marketplace itself, that keeps what it is asked.
struct Server {
    shared: Arc<Shared>,
    origin: String,
    directory: TempDir,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

impl Server {
    fn start(manners: Manners) -> Self {
        let shared = Arc::new(Shared {
            manners,
            asked: Mutex::default(),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let state = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let router = axum::Router::new().fallback(answer).with_state(state);
                let served = axum::serve(listener, router);
                tokio::select! {
                    _ = served.into_future() => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            shared,
            origin,
            directory: tempfile::tempdir().unwrap(),
            stop: Some(stop),
        }
    }

    /// Runs `haggle api` against it as a gateway.
    fn api(&self, args: &[&str]) -> Output {
        self.run("lowcodeapi", "api", args)
    }

    fn run(&self, kind: &str, command: &str, args: &[&str]) -> Output {
        let prefix = if kind == "vast" { "" } else { "/vastai" };
        haggle(self.directory.path(), |process| {
            process
                .env("HAGGLE_PROVIDER__KIND", kind)
                .env(
                    "HAGGLE_PROVIDER__BASE_URL",
                    format!("{}{prefix}", self.origin),
                )
                .env("HAGGLE_PROVIDER__TIMEOUT", "10s")
                .env("HAGGLE_TOKEN", TOKEN)
                // What `policies/finetune.toml` can be made to name: it is there, so that consent alone lacks.
                .env("S3_SECRET", "a secret of a job")
                .arg(command)
                .args(args);
        })
    }

    /// What it was asked since the last call, but for its description.
    fn asked(&self) -> Vec<Asked> {
        let mut asked = std::mem::take(&mut *self.shared.asked.lock().unwrap());
        asked.retain(|asked| !["/openapi", "/definition"].contains(&asked.path.as_str()));
        asked
    }
}

fn haggle(directory: &Path, set: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haggle"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HAGGLE_") {
            command.env_remove(name);
        }
    }
    command.current_dir(directory).stdin(Stdio::null());
    set(&mut command);
    command.output().unwrap()
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let url = reqwest::Url::parse(&format!("http://here{}", head.uri)).unwrap();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let path = url.path().to_owned();
    let gateway = path.starts_with("/vastai");
    let asked = Asked {
        method: head.method.to_string(),
        path: path.strip_prefix("/vastai").unwrap_or(&path).to_owned(),
        query: url
            .query_pairs()
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect(),
        bearer: head
            .headers
            .get("authorization")
            .map(|value| value.to_str().unwrap().to_owned()),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    let matched = !gateway || matches(&asked, &shared.manners);
    shared.asked.lock().unwrap().push(asked.clone());
    if let Some((place, description)) = &shared.manners.description
        && asked.path == *place
    {
        return reply(200, description);
    }
    if !matched {
        return reply(404, &json!({"message": "Not Found"}));
    }
    match &shared.manners.answer {
        Some((status, answer)) => reply(*status, answer),
        None => reply(
            200,
            &json!({"data": {"id": 17, "success": true, "instance_api_key": "key_canary",
                "onstart": "echo onstart_canary", "extra_env": [["A", "env_canary"]],
                "jupyter_token": "jupyter_canary", "result_url": "https://logs.example/url_canary",
                "note": format!("your token is {TOKEN}"), "label": "shown"}}),
        ),
    }
}

fn reply(status: u16, body: &Value) -> Response {
    let status = axum::http::StatusCode::from_u16(status).unwrap();
    (
        status,
        [("content-type", "application/json")],
        body.to_string(),
    )
        .into_response()
}

/// Whether a gateway that speaks these forms has such a path.
fn matches(asked: &Asked, manners: &Manners) -> bool {
    Operation::of(Wire::Gateway).any(|op| {
        let route = op.route(Wire::Gateway).unwrap();
        if route.method.as_str() != asked.method {
            return false;
        }
        let id = asked.path.split('/').nth(2).unwrap_or_default();
        let in_path = route
            .path
            .replace(&format!("{{{}}}", id_name(route).unwrap_or_default()), id);
        let old = old_form(route.path);
        let in_query = old.split('?').next().unwrap();
        let plain = !route.path.contains('{') && route.path == asked.path;
        let new = manners.new && route.path.contains('{') && in_path == asked.path;
        let old = manners.old
            && route.path.contains('{')
            && in_query == asked.path
            && asked
                .query
                .iter()
                .any(|(name, value)| Some(name.as_str()) == id_name(route) && !value.is_empty());
        plain || new || old
    })
}

fn id_name(route: &Route) -> Option<&'static str> {
    route.path.split(['{', '}']).nth(1)
}

/// As a gateway describes itself, in the old form or in the new one, without some operations.
fn description(old: bool, without: &[&str]) -> Value {
    let mut paths = serde_json::Map::new();
    for op in Operation::of(Wire::Gateway).filter(|op| !without.contains(&op.name())) {
        let route = op.route(Wire::Gateway).unwrap();
        let path = if old {
            old_form(route.path).split('?').next().unwrap().to_owned()
        } else {
            route.path.to_owned()
        };
        let place = if old { "query" } else { "path" };
        let parameters: Vec<Value> = id_name(route)
            .into_iter()
            .map(|name| json!({"name": name, "in": place, "required": true}))
            .collect();
        let method = route.method.as_str().to_ascii_lowercase();
        paths.entry(path).or_insert_with(|| json!({}))[method] =
            json!({"summary": op.fact().title, "parameters": parameters});
    }
    json!({"openapi": "3.0.0", "info": {"title": "vastai"}, "paths": paths})
}

/// Arguments that fill an operation: all that it needs, and one more of the query and of the body.
fn filled(op: Operation, route: &Route) -> (Vec<String>, Option<Value>) {
    let mut args = vec![op.name().to_owned(), "--yes".to_owned()];
    for name in route.required() {
        args.push("--param".to_owned());
        args.push(format!("{name}={ID}"));
    }
    if let Some(name) = route.query.first() {
        args.push(format!("--param={name}=some thing&more"));
    }
    let body = route.body.first().map(|name| json!({*name: "of the body"}));
    if let Some(body) = &body {
        args.push(format!("--body={body}"));
    }
    (args, body)
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn succeeded(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stdout(output)
}

/// Everything that a process said, and that no secret is in it.
fn said(output: &Output) -> String {
    let said = format!("{}{}", stdout(output), stderr(output));
    assert!(!said.contains("canary"), "{said}");
    said
}

#[test]
fn all_thirty_three_go_through_a_gateway_in_both_forms() {
    for old in [false, true] {
        let server = Server::start(Manners {
            new: !old,
            old,
            description: old.then(|| ("/definition", description(true, &[]))),
            ..Manners::default()
        });
        for op in Operation::of(Wire::Gateway) {
            let route = op.route(Wire::Gateway).unwrap();
            let (args, body) = filled(op, route);
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let output = server.api(&args);
            let answer: Value = serde_json::from_str(&succeeded(&output)).unwrap();
            assert_eq!(answer["label"], "shown", "out of the envelope: {answer}");
            said(&output);

            let asked = server.asked();
            let last = asked.last().unwrap();
            let mut expected = route.method.as_str().to_owned() + " ";
            let path = if old {
                old_form(route.path)
            } else {
                route.path.to_owned()
            };
            expected += &path.replace(&format!("{{{}}}", id_name(route).unwrap_or_default()), ID);
            if let Some(name) = route.query.first() {
                expected += &format!("?{name}=some thing&more");
            }
            assert_eq!(last.line(), expected, "{}", op.name());
            let tokens = last.query.iter().filter(|(name, _)| name == "api_token");
            assert_eq!(tokens.count(), 1, "{}", op.name());
            assert_eq!(last.bearer, None);
            let mut expected = body.unwrap_or_default();
            if route.required().contains(&"price") {
                expected["price"] = json!(17);
            }
            assert_eq!(last.body, expected, "{}", op.name());
            let changes = asked.iter().filter(|asked| asked.method != "GET").count();
            assert_eq!(
                changes,
                usize::from(op.changes()),
                "{}: {asked:?}",
                op.name()
            );
        }
    }
}

#[test]
fn without_a_description_the_old_form_is_learnt_by_reading_or_not_taken() {
    let server = Server::start(Manners {
        new: false,
        old: true,
        ..Manners::default()
    });
    succeeded(&server.api(&["delete_machine", "-p", "machine_id=17", "--yes"]));
    let lines: Vec<String> = server.asked().iter().map(Asked::line).collect();
    assert_eq!(
        lines,
        [
            "GET /machines/17",
            "GET /machines/machine_id?machine_id=17",
            "DELETE /machines/machine_id?machine_id=17"
        ]
    );
    // Nothing can be read by a key's id, so nothing proves the old form.
    let output = server.api(&["delete_ssh_key", "-p", "key_id=17", "--yes"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("unsupported"), "{output:?}");
    let lines: Vec<String> = server.asked().iter().map(Asked::line).collect();
    assert_eq!(lines, ["DELETE /ssh_keys/17"]);
}

#[test]
fn the_marketplaces_own_format_has_every_operation_it_documents() {
    let server = Server::start(Manners::default());
    for op in Operation::of(Wire::Native) {
        let route = op.route(Wire::Native).unwrap();
        let (args, body) = filled(op, route);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = server.run("vast", "api", &args);
        succeeded(&output);
        said(&output);
        let asked = server.asked();
        assert_eq!(asked.len(), 1, "{}: {asked:?}", op.name());
        let asked = &asked[0];
        let mut path = route.path.to_owned();
        for name in route.required() {
            path = path.replace(&format!("{{{name}}}"), ID);
        }
        assert_eq!(asked.path, path, "{}", op.name());
        assert_eq!(asked.method, route.method.as_str(), "{}", op.name());
        assert_eq!(
            asked.bearer.as_deref(),
            Some(format!("Bearer {TOKEN}").as_str())
        );
        for (name, value) in &asked.query {
            assert!(name != "api_token" && !value.contains(TOKEN), "{asked:?}");
            let known = route.query.contains(&name.as_str())
                || route.fixed_query.iter().any(|(fixed, _)| fixed == name);
            assert!(known, "{}: {name}", op.name());
            assert!(!value.contains("{o") && !value.contains("_id}"), "{value}");
        }
        if let Some(body) = body.as_ref().and_then(Value::as_object) {
            for (name, value) in body {
                assert_eq!(&asked.body[name], value, "{}", op.name());
            }
        }
        if route.method != Method::Get && !route.fixed_body.is_empty() {
            let fixed: Value = serde_json::from_str(route.fixed_body).unwrap();
            for name in fixed.as_object().unwrap().keys() {
                assert!(!asked.body[name].is_null(), "{}: {name}", op.name());
            }
        }
    }
}

#[test]
fn the_list_says_where_each_path_is_known_from() {
    let mut described = description(false, &["create_bid", "update_bid"]);
    let paths = described["paths"].as_object_mut().unwrap();
    let keys = paths.remove("/ssh_keys").unwrap();
    paths.insert("/ssh-keys".to_owned(), keys);
    let server = Server::start(Manners {
        description: Some(("/openapi", described)),
        ..Manners::default()
    });
    fs::write(
        server.directory.path().join("haggle.toml"),
        "[provider.paths]\nstop_instance = \"/instances/{id}/halt\"\n",
    )
    .unwrap();
    let list: Value = serde_json::from_str(&succeeded(&server.api(&["--list", "--json"]))).unwrap();
    let rows = list["operations"].as_array().unwrap();
    assert_eq!(rows.len(), 33);
    let row = |name: &str| rows.iter().find(|row| row["operation"] == name).unwrap();
    assert_eq!(row("stop_instance")["from"], "overridden");
    assert_eq!(row("stop_instance")["path"], "/instances/{id}/halt");
    assert_eq!(
        row("stop_instance")["old_path"],
        "/instances/id/halt?id={id}"
    );
    assert_eq!(row("ssh_keys")["from"], "described");
    assert_eq!(row("ssh_keys")["path"], "/ssh-keys");
    assert_eq!(row("create_bid")["from"], "inferred");
    assert_eq!(row("create_bid")["lacking"], true);
    assert_eq!(row("offers")["lacking"], false);
    let elsewhere = list["elsewhere"]["operations"].as_array().unwrap();
    assert!(elsewhere.contains(&json!("audit_logs")));
    let text = succeeded(&server.api(&["--list"]));
    assert!(text.contains("this gateway does not describe it"), "{text}");
    for asked in server.shared.asked.lock().unwrap().iter() {
        assert!(
            asked.query.is_empty(),
            "no token is needed to describe oneself: {asked:?}"
        );
    }

    // One that does not describe itself has the usual paths.
    let plain = Server::start(Manners::default());
    let list: Value = serde_json::from_str(&succeeded(&plain.api(&["--list", "--json"]))).unwrap();
    let from: BTreeSet<&str> = list["operations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["from"].as_str().unwrap())
        .collect();
    assert_eq!(from, BTreeSet::from(["documented", "inferred"]));
    let native = plain.run("vast", "api", &["--list", "--json"]);
    let native: Value = serde_json::from_str(&succeeded(&native)).unwrap();
    assert!(native["operations"].as_array().unwrap().len() > 60);
}

#[test]
fn a_dry_run_shows_the_request_without_the_token_and_sends_nothing() {
    let server = Server::start(Manners::default());
    let args = [
        "update_bid",
        "--param",
        "bid_id=777",
        "--param",
        "price=0.21",
        "--dry-run",
    ];
    let output = server.api(&args);
    let text = succeeded(&output);
    let expected = format!("PUT {}/vastai/bids/777?api_token=[redacted]", server.origin);
    assert!(text.contains(&expected), "{text}");
    assert!(
        text.contains("/bids/bid_id?bid_id=777&api_token=[redacted]"),
        "{text}"
    );
    assert!(text.contains("\"price\": 0.21"), "{text}");
    said(&output);
    let output = server.run("vast", "api", &[&args[..], &["--json"]].concat());
    let request: Value = serde_json::from_str(&succeeded(&output)).unwrap();
    assert_eq!(request["method"], "PUT");
    assert_eq!(
        request["url"],
        format!("{}/api/v0/instances/bid_price/777/", server.origin)
    );
    assert_eq!(request["body"], json!({"client_id": "me", "price": 0.21}));
    assert_eq!(request["authorization"], "Bearer [redacted]");
    said(&output);
    assert_eq!(server.shared.asked.lock().unwrap().len(), 0);
}

#[test]
fn what_is_wrong_is_said_before_anything_is_sent() {
    let server = Server::start(Manners::default());
    for (args, why) in [
        (
            &["delete_instance", "--yes"][..],
            "needs --param instance_id=…",
        ),
        (
            &["delete_instance", "-p", "instance_id=", "--yes"],
            "whole list",
        ),
        (
            &["delete_instance", "-p", "instance_id=7/../8", "--yes"],
            "only letters, digits",
        ),
        (
            &["delete_instance", "-p", "instance_id=%2e", "--yes"],
            "only letters, digits",
        ),
        (
            &["delete_instance", "-p", "instance_id=null", "--yes"],
            "names nothing",
        ),
        (
            &["delete_instance", "-p", "instance_id", "--yes"],
            "form name=value",
        ),
        (&["delete_instance", "-p", "instance_id=7"], "say --yes"),
        (
            &["delete_instanse", "-p", "instance_id=7"],
            "did you mean `delete_instance`?",
        ),
        (&["instances", "--body", "{}"], "takes no body"),
        (
            &["create_bid", "--body", "[1]", "--yes"],
            "must be a JSON object",
        ),
        (&["create_bid", "--body", "{", "--yes"], "not JSON"),
        (
            &["create_bid", "--body", "@nowhere.json", "--yes"],
            "cannot read nowhere.json",
        ),
        (
            &["create_bid", "--body", r#"{"offer_id":"5"}"#, "--yes"],
            "needs --param price=…",
        ),
        (
            &["create_instance", "--body", r#"{"price":1}"#, "--yes"],
            "a bid is `create_bid`",
        ),
        (&["instances", "-p", "api_token=x"], "provider.token"),
        (&["audit_logs"], "provider.kind = \"vast\""),
        (&["--list", "offers"], "cannot be used with"),
        (&[], "required"),
    ] {
        let output = server.api(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            stderr(&output).contains(why),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    let native = server.run("vast", "api", &["user_by_id", "-p", "user_id=7"]);
    assert_eq!(native.status.code(), Some(1));
    assert!(stderr(&native).contains("no route reads another user"));
    assert_eq!(server.shared.asked.lock().unwrap().len(), 0);

    // What is only not known is sent, with a word.
    let output = server.api(&["instances", "-p", "stat=running", "-p", "limit=5"]);
    succeeded(&output);
    assert!(
        stderr(&output).contains("did you mean `state`?"),
        "{}",
        stderr(&output)
    );
    let asked = server.asked();
    assert_eq!(asked[0].line(), "GET /instances?stat=running&limit=5");
}

#[test]
fn a_body_comes_from_a_file_or_from_standard_input() {
    let server = Server::start(Manners::default());
    fs::write(
        server.directory.path().join("body.json"),
        r#"{"label":"x"}"#,
    )
    .unwrap();
    let id = "instance_id=7";
    succeeded(&server.api(&["update-instance", "-p", id, "--body", "@body.json", "--yes"]));
    assert_eq!(server.asked().last().unwrap().body, json!({"label": "x"}));

    let mut child = Command::new(env!("CARGO_BIN_EXE_haggle"))
        .current_dir(server.directory.path())
        .env(
            "HAGGLE_PROVIDER__BASE_URL",
            format!("{}/vastai", server.origin),
        )
        .env("HAGGLE_TOKEN", TOKEN)
        .args(["api", "update_instance", "-p", id, "--body", "-", "--yes"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(br#"{"label":"y"}"#).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    assert_eq!(server.asked().last().unwrap().body, json!({"label": "y"}));
}

#[test]
fn secrets_in_an_answer_are_shown_only_when_asked_for_and_the_token_never() {
    let server = Server::start(Manners::default());
    let shown = said(&server.api(&["instance", "-p", "id=17"]));
    assert!(
        shown.contains("\"label\": \"shown\"") && shown.contains("[redacted]"),
        "{shown}"
    );
    let revealed = succeeded(&server.api(&["instance", "-p", "id=17", "--reveal"]));
    assert!(
        revealed.contains("url_canary") && revealed.contains("key_canary"),
        "{revealed}"
    );
    assert!(!revealed.contains(TOKEN), "{revealed}");
}

#[test]
fn how_it_ends_says_who_can_mend_it_and_a_change_is_sent_once() {
    let stop = ["stop_instance", "-p", "instance_id=17", "--yes"];
    let create = ["create_bid", "-p", "offer_id=5", "-p", "price=0.1", "--yes"];
    let read = ["balance"];
    for (status, answer, args, exit, why) in [
        (
            401,
            json!({"message": "Unauthorized", "query": {"api_token": TOKEN}}),
            &read[..],
            1,
            "token",
        ),
        (
            500,
            json!({"message": format!("failed for {TOKEN}")}),
            &read,
            2,
            "500",
        ),
        (
            429,
            json!({"detail": "too frequent", "retry_after": 7}),
            &read,
            2,
            "again in 7 s",
        ),
        (
            200,
            json!({"data": {"success": false, "msg": "no"}}),
            &read,
            2,
            "no",
        ),
        (
            500,
            json!({"message": "socket hang up"}),
            &stop,
            2,
            "nobody knows",
        ),
        (
            429,
            json!({"detail": "too frequent"}),
            &stop,
            2,
            "throttled",
        ),
        (
            200,
            json!({"data": {"success": false, "msg": "Required resources are currently unavailable, state change queued."}}),
            &stop,
            1,
            "may still happen",
        ),
        (
            400,
            json!({"provider": "vastai", "error": {"error": "insufficient_credit", "msg": "lacks credit"}}),
            &stop,
            1,
            "account",
        ),
        (
            400,
            json!({"provider": "vastai", "error": {"msg": "bid too low", "new_contract": 99}}),
            &create,
            1,
            "instance_id=99",
        ),
    ] {
        let server = Server::start(Manners {
            answer: Some((status, answer)),
            ..Manners::default()
        });
        let output = server.api(args);
        let said = said(&output);
        assert_eq!(
            output.status.code(),
            Some(exit),
            "{status} {args:?}: {said}"
        );
        assert!(said.contains(why), "{status} {args:?}: {said}");
        let asked = server.asked();
        let changes = asked.iter().filter(|asked| asked.method != "GET").count();
        assert_eq!(changes, usize::from(args.len() > 1), "{asked:?}");
    }
    // Nobody is there.
    let server = Server::start(Manners::default());
    let nowhere = haggle(server.directory.path(), |process| {
        process
            .env("HAGGLE_PROVIDER__BASE_URL", "http://127.0.0.1:9/vastai")
            .env("HAGGLE_TOKEN", TOKEN)
            .args(["api"])
            .args(stop);
    });
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(said(&nowhere).contains("not-sent"), "{nowhere:?}");
}

#[test]
fn doctor_says_what_a_gateway_cannot_do() {
    let bids = ["bids", "bid", "create_bid", "update_bid", "delete_bid"];
    for (without, expected) in [
        (&bids[..], "this gateway cannot bid"),
        (&[], "lacks none of the 33 operations"),
    ] {
        let server = Server::start(Manners {
            description: Some(("/definition", description(false, without))),
            ..Manners::default()
        });
        let output = server.run("lowcodeapi", "doctor", &["--json"]);
        let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let found = |what: &str| {
            let findings = report["findings"].as_array().unwrap();
            let finding = findings.iter().find(|finding| finding["what"] == what);
            finding.unwrap()["found"].as_str().unwrap().to_owned()
        };
        assert!(found("gateway").contains(expected), "{}", found("gateway"));
        let can = found("bids").starts_with("can be placed");
        assert_eq!(can, without.is_empty(), "{}", found("bids"));
    }
}

#[test]
fn jobs_with_secrets_wait_for_consent_and_everyone_says_so() {
    let server = Server::start(Manners::default());
    let policies = server.directory.path().join("policies");
    fs::create_dir(&policies).unwrap();
    let policy = include_str!("../policies/finetune.toml");
    let with_secret = policy.replace("# secrets =", "secrets =");
    assert!(with_secret != policy);
    fs::write(policies.join("finetune.toml"), with_secret).unwrap();
    let output = server.run("lowcodeapi", "check", &["--json"]);
    let checked: Value = serde_json::from_str(&succeeded(&output)).unwrap();
    assert_eq!(checked["warnings"].as_array().unwrap().len(), 1);
    assert!(
        stderr(&output).contains("provider.share_job_secrets"),
        "{}",
        stderr(&output)
    );
    let report = stdout(&server.run("lowcodeapi", "doctor", &["--offline"]));
    assert!(
        report.contains("may not go through the gateway"),
        "{report}"
    );

    let native = server.run("vast", "check", &["--json"]);
    let checked: Value = serde_json::from_str(&succeeded(&native)).unwrap();
    assert_eq!(checked["warnings"], json!([]), "no third party is between");
}

/// The embedded marketplace in a process of its own, ended with the test.
struct Town {
    child: std::process::Child,
    base_url: String,
    directory: TempDir,
}

impl Town {
    fn open(paths: &str) -> Self {
        use std::io::BufRead as _;
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_haggle"))
            .current_dir(directory.path())
            .args([
                "market",
                "--listen",
                "127.0.0.1:0",
                "--paths",
                paths,
                "--token",
                TOKEN,
            ])
            .args(["--rate-limits", "off"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().rsplit(' ').next().unwrap();
        Self {
            base_url: format!("http://{address}/vastai"),
            child,
            directory,
        }
    }

    fn api(&self, args: &[&str]) -> Output {
        haggle(self.directory.path(), |process| {
            process
                .env("HAGGLE_PROVIDER__BASE_URL", &self.base_url)
                .env("HAGGLE_TOKEN", TOKEN)
                .arg("api")
                .args(args);
        })
    }

    fn answer(&self, args: &[&str]) -> Value {
        let output = self.api(args);
        said(&output);
        serde_json::from_str(&succeeded(&output)).unwrap()
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_embedded_marketplace_knows_all_thirty_three() {
    for paths in ["new", "old"] {
        let town = Town::open(paths);
        let list = town.answer(&["--list", "--json"]);
        for row in list["operations"].as_array().unwrap() {
            assert_eq!(row["from"], "described", "{row}");
        }
        // In the old form nothing is proven by what is not there, and much is waited for.
        let tried = Operation::of(Wire::Gateway).filter(|_| paths == "new");
        for op in tried {
            let (args, _) = filled(op, op.route(Wire::Gateway).unwrap());
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let output = town.api(&args);
            let said = said(&output);
            // Most name what is not there; none is unknown.
            let known = !said.contains("unsupported") && !said.contains("no such path");
            assert!(known, "{paths} {}: {said}", op.name());
        }
        let offers = town.answer(&["offers", "-p", "type=bid", "-p", "limit=1"]);
        let offer = &offers["offers"][0];
        let price = offer["min_bid"].as_f64().unwrap() * 1.5;
        let body = json!({"offer_id": offer["id"].to_string(), "price": price, "disk": 10,
            "image": "pytorch/pytorch:2", "label": "mine"});
        let made = town.answer(&["create_bid", "--body", &body.to_string(), "--yes"]);
        let id = format!("instance_id={}", made["new_contract"]);
        town.answer(&["update_instance", "-p", &id, "-p", "label=renamed", "--yes"]);
        let shown = town.answer(&["instance", "-p", &id]);
        assert_eq!(shown["instances"]["label"], "renamed", "{shown}");
        assert_eq!(shown["instances"]["is_bid"], true);
        town.answer(&["delete_instance", "-p", &id, "--yes"]);
    }
}

#[test]
fn the_document_has_every_operation() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let marker =
        "<!-- Generated from the table of operations; a test tells when it is out of date. -->";
    let text = fs::read_to_string(&document).unwrap();
    let (head, _) = text.split_once(marker).unwrap();
    let whole = format!("{head}{marker}\n\n{}\n", reference_table().trim_end());
    expect_test::expect_file![&document].assert_eq(&whole);
    for op in Operation::ALL {
        let tested = op.fact().tested;
        assert!(!tested.is_empty(), "{} is not tested", op.name());
        for file in tested {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            assert!(file.is_file(), "{}: {}", op.name(), file.display());
        }
    }
}
