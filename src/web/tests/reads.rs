//! What can be read, and what is in it.

use super::*;
use crate::types::job::RunType;

const READS: [&str; 12] = [
    "/api/v1/state",
    "/api/v1/jobs/train-0",
    "/api/v1/jobs/train-0/explain",
    "/api/v1/jobs/train-0/market?hours=3",
    "/api/v1/jobs/train-0/logs?attempt=1&lines=5&replica=0",
    "/api/v1/decisions?job=train-0&before=4&limit=2",
    "/api/v1/story?job=train-0&before=9&limit=2",
    "/api/v1/story",
    "/api/v1/spend?by=gpu",
    "/api/v1/policies",
    "/api/v1/openapi.json",
    "/page/app.js",
];

#[test]
fn whatever_is_answered_has_headers_that_hold_a_browser_back() {
    let place = Place::new(With::default());
    let others = [
        "/",
        "/metrics",
        "/healthz",
        "/nothing",
        "/api/v1/nothing",
        "/page/nothing",
    ];
    for path in READS.iter().chain(&others) {
        let answer = place.get(path, &[]);
        assert!(answer.status > 0, "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(
            answer.header("cross-origin-resource-policy"),
            "same-origin",
            "{path}"
        );
        assert_eq!(
            answer.header("cross-origin-opener-policy"),
            "same-origin",
            "{path}"
        );
        assert!(
            answer
                .header("content-security-policy")
                .starts_with("default-src 'none'"),
            "{path}"
        );
        assert!(
            !answer.headers.contains_key("access-control-allow-origin"),
            "{path}"
        );
        let kept = answer.header("cache-control");
        assert!(["no-store", "no-cache"].contains(&kept), "{path}: {kept}");
    }
    let page = place.get("/", &[]);
    assert_eq!(
        page.header("content-security-policy"),
        crate::web::assets::POLICY
    );
    assert!(page.header("content-type").starts_with("text/html"));
    assert_eq!(
        place
            .get("/api/v1/jobs/train-0", &[])
            .header("cache-control"),
        "no-store"
    );
}

#[test]
fn everything_can_be_read_and_no_secret_is_in_it() {
    let place = Place::new(With::default());
    let own = format!("x-haggle-token: {TOKEN}");
    for path in READS {
        // What is kept from others takes the token, and the rest none.
        let headers: Vec<&str> = path
            .contains("/logs")
            .then_some(&own[..])
            .into_iter()
            .collect();
        let answer = place.get(path, &headers);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let text = answer.text();
        assert!(
            !text.contains(SECRET) && !text.contains(TOKEN),
            "{path}: {text}"
        );
        if path.starts_with("/api") {
            assert_eq!(answer.header("content-type"), "application/json", "{path}");
            answer.json();
        }
    }
    let told = place.get("/api/v1/story", &[]).text();
    assert!(told.contains("[redacted]"), "{told}");
    let state = place.get("/api/v1/state", &[]).json();
    assert_eq!(state["jobs"][0]["job"], "train-0");
    assert_eq!(
        state["instances"][0]["gpu_name"],
        "<script>alert(1)</script>"
    );
    assert_eq!(
        state["instances"][0]["ssh_command"],
        serde_json::Value::Null
    );
    let mistakes = place.get("/api/v1/policies", &[]).json();
    assert_eq!(mistakes["mistakes"][0]["job"], "bad");
    let mut wrong = mistakes["mistakes"].as_array().unwrap().iter();
    assert!(wrong.any(|one| one["line"] == 2), "{mistakes}");
    let market = place.get("/api/v1/jobs/train-0/market", &[]).json();
    assert_eq!(market["ceiling_dollars_per_hour"], "1.00");
}

#[test]
fn what_is_known_already_is_not_sent_again() {
    let place = Place::new(With::default());
    let first = place.get("/api/v1/state", &[]);
    let tag = format!("if-none-match: {}", first.header("etag"));
    assert_eq!(place.get("/api/v1/state", &[&tag]).status, 304);
    place.tick(&filled(2, 2));
    assert_eq!(place.get("/api/v1/state", &[&tag]).status, 200);
    let packed = place.get("/api/v1/state", &["accept-encoding: br, gzip"]);
    assert_eq!(packed.header("content-encoding"), "gzip");
    let mut text = String::new();
    let body = unchunked(&packed);
    flate2::read::GzDecoder::new(&body[..])
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(
        text,
        place
            .get("/api/v1/state", &["accept-encoding: gzip;q=0"])
            .text()
    );
}

/// The whole body, however it was sent.
fn unchunked(answer: &Answer) -> Vec<u8> {
    assert_ne!(answer.header("transfer-encoding"), "chunked");
    answer.body.clone()
}

#[test]
fn before_the_first_tick_nothing_is_claimed_that_is_not_known() {
    let place = Place::new(With::default());
    let world = filled(2, 1);
    place.publisher.lock().unwrap().prime(
        &world.state,
        &[],
        (&world.jobs, &[broken()]),
        (NOW, true, &world.config),
    );
    let state = place.get("/api/v1/state", &[]).json();
    assert_eq!(state["was_decided"], false);
    assert_eq!(state["jobs"][0]["eligible"], serde_json::Value::Null);
    assert_eq!(state["jobs"][0]["refused"], serde_json::Value::Null);
    assert_eq!(state["broken_policies"][0]["file"], "policies/bad.toml");
    let limits = state["limits"].as_array().unwrap();
    let budget = |limit: &&serde_json::Value| limit["scope"] == "job/train-1";
    assert!(limits.iter().any(|limit| budget(&limit)), "{state}");
    place.tick(&world);
    let state = place.get("/api/v1/state", &[]).json();
    // The marketplace's list of instances was not read.
    assert_eq!(state["was_decided"], false);
    assert!(state["jobs"][0]["eligible"].is_u64(), "{state}");
}

#[test]
fn no_path_leads_out_and_no_name_is_taken_for_markup() {
    let place = Place::new(With::default());
    let own = format!("x-haggle-token: {TOKEN}");
    for path in [
        "/page/../Cargo.toml",
        "/page/..%2f..%2f..%2fetc%2fpasswd",
        "/page/%2e%2e/%2e%2e/etc/passwd",
        "/page//etc/passwd",
        "/page/app.js%00.html",
        "/page/",
        "/../../etc/passwd",
    ] {
        let answer = place.get(path, &[]);
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.text().contains("root:"), "{path}");
    }
    for name in [
        "..%2f..%2fhaggle",
        "%2e%2e",
        "train-0%2f..",
        "<script>",
        "%3Cscript%3E",
        "%00",
        "%ff",
        "Train",
        "a".repeat(41).as_str(),
    ] {
        for rest in ["", "/explain", "/market", "/logs"] {
            let answer = place.get(&format!("/api/v1/jobs/{name}{rest}"), &[&own]);
            assert_eq!(answer.status, 400, "{name}{rest}: {}", answer.text());
            // What is no path at all is refused before anything looks at it, without a word.
            let said = answer.header("content-type");
            assert!(
                said == "application/json" || answer.body.is_empty(),
                "{name}: {said}"
            );
        }
    }
    for query in [
        "limit=0",
        "limit=201",
        "limit=x",
        "limit=-1",
        "before=x",
        "before=-1",
        "before=9223372036854775808",
        "job=..%2f",
        "job=%3Cb%3E",
        "x=1",
        "limit=1&limit=2",
    ] {
        let answer = place.get(&format!("/api/v1/decisions?{query}"), &[]);
        assert_eq!(answer.error(), (400, "bad-request".to_owned()), "{query}");
    }
    assert_eq!(place.get("/api/v1/decisions/99", &[]).error().0, 404);
    assert_eq!(place.get("/api/v1/decisions/-1", &[]).error().0, 400);
    // A reply is not split by what a request says.
    let split = place.get("/api/v1/jobs/x%0d%0aset-cookie:%20a=1", &[]);
    assert_eq!(split.status, 400);
    assert!(!split.headers.contains_key("set-cookie"));
}

#[test]
fn the_description_is_of_this_api() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    // UPDATE_EXPECT=1 writes it anew.
    expect_test::expect_file![path].assert_eq(&description());
    let described: serde_json::Value = serde_json::from_str(&description()).unwrap();
    let described: BTreeSet<String> = described["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods
                .map(|method| format!("{method} {path}"))
                .collect::<Vec<_>>()
        })
        .collect();
    let source = include_str!("../mod.rs");
    let routed: BTreeSet<String> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix(".route(\"/")?.split_once("\", "))
        .filter(|(path, _)| !path.is_empty() && !path.starts_with("page/"))
        .map(|(path, rest)| {
            let method = if rest.starts_with("post") {
                "post"
            } else {
                "get"
            };
            format!("{method} /api/v1/{path}")
        })
        .collect();
    assert_eq!(described, routed);
    // And each of them is answered, by what it says of itself.
    let place = Place::new(With::default());
    for one in &described {
        let (method, path) = one.split_once(' ').unwrap();
        if path.ends_with("/events") {
            continue;
        }
        let path = path.replace("{name}", "train-0").replace("{tick}", "99");
        let answer = place.ask(&request(&method.to_uppercase(), &path, HOST, &[], ""));
        assert!(
            [200, 401, 404].contains(&answer.status),
            "{one}: {}",
            answer.status
        );
        assert_ne!(
            answer.json()["message"],
            "the API has no such path",
            "{one}"
        );
    }
}

#[test]
fn how_a_job_stands_with_its_deadline_is_told_wherever_it_is_shown() {
    let place = Place::new(With::default());
    let mut world = filled(1, 0);
    let mut due = (*world.jobs[0]).clone();
    due.rental = RentalChoice::Auto;
    due.work_mgpu_h = Some(2_000);
    due.deadline = Some(NOW + Duration::from_hours(9));
    world.jobs = vec![Arc::new(due)];
    place.tick(&world);
    let state = place.get("/api/v1/state", &[]).json();
    let told = &state["jobs"][0]["deadline"];
    assert_eq!(told["replica"], "train-0/0", "{state}");
    assert_eq!(told["tone"], "good");
    assert_eq!(told["left_seconds"], 9 * 3600);
    let spare = told["left_seconds"].as_i64().unwrap() - told["needs_seconds"].as_i64().unwrap();
    let sentence = told["sentence"].as_str().unwrap();
    let words = crate::types::time::human(Duration::from_secs(spare.unsigned_abs()));
    assert!(
        sentence.starts_with("due ") && sentence.contains(&format!("{words} to spare")),
        "{sentence}"
    );
    let page = place.get("/api/v1/jobs/train-0", &[]).json();
    assert_eq!(page["job"]["deadline"], *told);
    let why = place.get("/api/v1/jobs/train-0/explain", &[]).json();
    let why = &why["reasons"]["replicas"][0]["deadline"];
    assert_eq!(why["needs_seconds"], told["needs_seconds"]);
    // Without one there is nothing to tell.
    place.tick(&filled(1, 0));
    let state = place.get("/api/v1/state", &[]).json();
    assert!(state["jobs"][0]["deadline"].is_null());
}

#[test]
fn an_address_is_shown_only_where_a_server_listens() {
    let place = Place::new(With::default());
    for (of_type, shown) in [(RunType::Args, false), (RunType::Ssh, true)] {
        let mut world = filled(1, 1);
        Arc::make_mut(&mut world.jobs[0]).run.run_type = of_type;
        let one = world.state.held.get_mut(&InstanceId(1)).unwrap();
        one.ssh = Some("ssh4.example.net:31022".to_owned());
        place.tick(&world);
        let state = place.get("/api/v1/state", &[]).json();
        let one = &state["instances"][0];
        assert_eq!(one["ssh"].is_string(), shown, "{of_type:?}: {one}");
        assert_eq!(one["ssh_command"].is_string(), shown, "{of_type:?}");
    }
}
