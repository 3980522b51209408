//! Who is answered, and who is not.

use super::*;

#[test]
fn without_a_token_everything_can_be_read_and_nothing_changed() {
    let place = Place::new(With {
        no_token: true,
        ..With::default()
    });
    assert_eq!(
        place.get("/api/v1/state", &[]).json()["changes_allowed"],
        false
    );
    let answer = place.change("/api/v1/jobs/train-0/stop", "{}");
    assert_eq!(answer.error(), (403, "no-token-configured".to_owned()));
    assert!(
        answer.json()["help"]
            .as_str()
            .unwrap()
            .contains("web.token")
    );
    assert_eq!(place.asks(), Vec::new());
}

#[test]
fn who_has_no_token_or_sends_from_another_site_changes_nothing() {
    let place = Place::new(With::default());
    let bearer = format!("authorization: Bearer {TOKEN}");
    let own = format!("x-haggle-token: {TOKEN}");
    let json = "content-type: application/json";
    let stop = "/api/v1/jobs/train-0/stop";
    for (headers, status, word) in [
        (vec![json], 401, "no-token"),
        (
            vec![json, "authorization: Bearer wrong"],
            401,
            "wrong-token",
        ),
        (
            vec![json, "authorization: Basic MDEyMzQ1Njc4OWFiY2RlZg=="],
            401,
            "no-token",
        ),
        (vec![json, &bearer, &bearer], 400, "bad-header"),
        (vec![json, &own, &own], 400, "bad-header"),
        (
            vec![json, "cookie: token=0123456789abcdef-canary"],
            401,
            "no-token",
        ),
        (vec![&bearer], 415, "not-json"),
        (vec![&bearer, "content-type: text/plain"], 415, "not-json"),
        (
            vec![&bearer, "content-type: application/x-www-form-urlencoded"],
            415,
            "not-json",
        ),
        (
            vec![json, &bearer, "origin: http://evil.example"],
            403,
            "another-site",
        ),
        (vec![json, &bearer, "origin: null"], 403, "another-site"),
        (
            vec![json, &bearer, "sec-fetch-site: cross-site"],
            403,
            "another-site",
        ),
        (
            vec![json, &bearer, "sec-fetch-site: same-site"],
            403,
            "another-site",
        ),
    ] {
        let answer = place.post(stop, &headers, "{}");
        assert_eq!(answer.error(), (status, word.to_owned()), "{headers:?}");
    }
    for path in [
        format!("{stop}?token={TOKEN}"),
        format!("{stop}?access_token={TOKEN}"),
    ] {
        assert_eq!(place.post(&path, &[json], "{}").status, 401, "{path}");
    }
    let get = place.get(stop, &[&bearer, "x-http-method-override: POST"]);
    assert_eq!(get.error(), (405, "method-not-allowed".to_owned()));
    let large = place.post(stop, &[json, &bearer], &format!("{{{}}}", " ".repeat(5000)));
    assert_eq!(large.error(), (413, "unreadable-body".to_owned()));
    assert_eq!(place.asks(), Vec::new());
    let ours = place.post(
        stop,
        &[
            json,
            &own,
            "origin: http://127.0.0.1:9464",
            "sec-fetch-site: same-origin",
        ],
        "{}",
    );
    assert_eq!(ours.status, 202, "{}", ours.text());
    for _ in 0..12 {
        place.post(stop, &[json, "authorization: Bearer guess"], "{}");
    }
    let locked = place.post(stop, &[json, "authorization: Bearer guess"], "{}");
    assert_eq!(locked.error(), (429, "too-many-failures".to_owned()));
    assert_eq!(locked.header("retry-after"), "5");
    let right = place.post(stop, &[json, &bearer], "{}");
    assert_eq!(right.status, 202, "nobody locks the right one out");
}

#[test]
fn a_name_that_somebody_else_points_here_is_not_answered_to() {
    let place = Place::new(With {
        hosts: vec!["haggle.example.com".to_owned()],
        ..With::default()
    });
    let ask = |host: &str, headers: &[&str]| {
        place.ask(&request("GET", "/api/v1/state", host, headers, ""))
    };
    // There is a proxy, and it may call by this machine's name for whoever calls it.
    let own = format!("x-haggle-token: {TOKEN}");
    for host in ["localhost:9464", "[::1]:9464", HOST] {
        assert_eq!(ask(host, &[]).error(), (401, "no-token".to_owned()));
        assert_eq!(ask(host, &[&own]).status, 200);
    }
    let other = ask(
        "evil.example:9464",
        &["x-forwarded-host: localhost", "forwarded: host=localhost"],
    );
    assert_eq!(other.error(), (403, "unknown-host".to_owned()));
    assert_eq!(ask("haggle.example.com", &[]).error().0, 401);
    assert_eq!(ask("haggle.example.com", &[&own]).status, 200);
    let twice = place.ask("GET /api/v1/state HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
    assert!([400, 403].contains(&twice.status), "{twice:?}");
    let line = place.ask("GET http://evil.example/api/v1/state HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert_eq!(line.error(), (400, "two-hosts".to_owned()));
    let none = place.ask("GET /api/v1/state HTTP/1.0\r\n\r\n");
    assert_eq!(none.error(), (400, "no-host".to_owned()));
    let foreign = place.get("/api/v1/state", &["sec-fetch-site: cross-site"]);
    assert_eq!(foreign.error(), (403, "another-site".to_owned()));
}

#[test]
fn what_a_proxy_passes_on_under_this_machines_name_takes_the_token() {
    let place = Place::new(With::default());
    let own = format!("x-haggle-token: {TOKEN}");
    assert_eq!(place.get("/api/v1/state", &[]).status, 200);
    for header in [
        "x-forwarded-for: 10.0.0.1",
        "forwarded: for=10.0.0.1",
        "via: 1.1 proxy",
    ] {
        let answer = place.get("/api/v1/state", &[header]);
        assert_eq!(answer.error(), (401, "no-token".to_owned()), "{header}");
        assert_eq!(place.get("/api/v1/state", &[header, &own]).status, 200);
    }
    let old = |more: &str| {
        place.ask(&format!(
            "GET /api/v1/state HTTP/1.0\r\nhost: {HOST}\r\n{more}\r\n"
        ))
    };
    assert_eq!(old("").error(), (401, "no-token".to_owned()));
    assert_eq!(old(&format!("{own}\r\n")).status, 200);
}

#[test]
fn what_jobs_wrote_takes_the_token_wherever_there_is_one() {
    let place = Place::new(With::default());
    let logs = "/api/v1/jobs/train-0/logs";
    assert_eq!(place.get(logs, &[]).error(), (401, "no-token".to_owned()));
    let wrong = place.get(logs, &["x-haggle-token: another"]);
    assert_eq!(wrong.error(), (401, "wrong-token".to_owned()));
    let own = format!("x-haggle-token: {TOKEN}");
    assert_eq!(place.get(logs, &[&own]).status, 200);
    let without = Place::new(With {
        no_token: true,
        ..With::default()
    });
    assert_eq!(without.get(logs, &[]).status, 200);
}

#[test]
fn where_other_machines_can_reach_it_reading_takes_the_token_too() {
    let own = format!("x-haggle-token: {TOKEN}");
    let place = Place::new(With {
        exposed: true,
        ..With::default()
    });
    for path in [
        "/api/v1/state",
        "/api/v1/events",
        "/api/v1/policies",
        "/api/v1/openapi.json",
    ] {
        assert_eq!(
            place.get(path, &[]).error(),
            (401, "no-token".to_owned()),
            "{path}"
        );
    }
    assert_eq!(place.get("/api/v1/state", &[&own]).status, 200);
    let by_address = request("GET", "/api/v1/state", "192.168.1.4:9464", &[&own], "");
    assert_eq!(place.ask(&by_address).status, 200);
    let by_name = request("GET", "/api/v1/state", "evil.example", &[&own], "");
    assert_eq!(place.ask(&by_name).error().0, 403);
    let without = Place::new(With {
        exposed: true,
        no_token: true,
        ..With::default()
    });
    let answer = without.get("/api/v1/state", &[]);
    assert_eq!(answer.error(), (403, "no-token-configured".to_owned()));
}
