//! What goes wrong on the way: throttling in every shape, broken answers, secrets thrown back.

use super::*;

/// A throttled answer's body and header, and how long it asks to wait.
type Shape = (
    &'static str,
    Option<(&'static str, &'static str)>,
    Option<u64>,
);

#[test]
fn every_shape_of_a_throttling_is_obeyed() {
    let plain = "API requests too frequent";
    let shapes: [Shape; 9] = [
        (plain, None, None),
        (
            "API requests too frequent: endpoint threshold=5.5",
            None,
            Some(5_500),
        ),
        (
            r#"{"detail":"API requests too frequent endpoint threshold=5.5"}"#,
            None,
            Some(5_500),
        ),
        (
            r#"{"success":false,"error":"x","msg":"too frequent"}"#,
            None,
            None,
        ),
        (r#"{"msg":"slow","retry_after":7}"#, None, Some(7_000)),
        (r#"{"msg":"slow","retry_after":"7.5"}"#, None, Some(7_500)),
        (plain, Some(("retry-after", "11")), Some(11_000)),
        (
            plain,
            Some(("retry-after", "Tue, 24 Nov 2026 00:00:13 GMT")),
            Some(13_000),
        ),
        ("<html>429</html>", None, None),
    ];
    for (body, header, wait) in shapes {
        let rig = rig();
        match header {
            Some(header) => rig.script.headed(429, header, body),
            None => rig.script.reply(429, body),
        };
        rig.script.reply(200, json!({"id":9,"credit":1}));
        run(rig.client.account()).unwrap();
        let waited = rig.clock.monotonic().0;
        match wait {
            Some(wait) => assert_eq!(waited, wait, "{body}"),
            None => assert!((2_000..=4_000).contains(&waited), "{body}: {waited}"),
        }
    }
}

#[test]
fn an_exhausted_search_quota_silences_searches_until_its_reset_and_nothing_else() {
    let rig = rig();
    let reset = ("x-ratelimit-reset", "1795485600");
    rig.script
        .headed(429, reset, error("search_quota_exceeded", "daily quota"));
    let hours = Duration::from_hours(2);
    let quiet = Err(ReadError::Throttled { retry_after: hours });
    assert_eq!(run(rig.client.offers(&query(Market::Bid))), quiet);
    assert_eq!(
        run(rig.client.offer(OfferId(5))),
        Err(ReadError::Throttled { retry_after: hours })
    );
    assert_eq!(rig.script.take().len(), 1, "the second was not sent");
    rig.script.reply(200, json!({"id":9,"credit":1}));
    assert!(run(rig.client.account()).is_ok());
    rig.script.reply(200, json!({"success":true}));
    assert_eq!(run(rig.client.destroy(InstanceId(7))), Outcome::Done(()));
    run(rig.clock.sleep_until(rig.clock.now() + hours));
    rig.script.reply(200, r#"{"offers":[]}"#);
    assert!(
        run(rig.client.offers(&query(Market::Bid)))
            .unwrap()
            .complete
    );
}

#[test]
fn a_change_is_sent_once_and_is_unknown_where_nobody_can_tell() {
    let broken = TransportError::Broken("reset".to_owned());
    let timeout = TransportError::Timeout(Duration::from_secs(30));
    let unknown = [
        Err(timeout),
        Err(broken),
        Ok((500, error("server_error", "x").to_string())),
        Ok((502, "<html>".to_owned())),
        Ok((503, String::new())),
        Ok((504, "{\"success\":fal".to_owned())),
        Ok((302, String::new())),
        Ok((308, r#"{"success":true}"#.to_owned())),
        Ok((200, "<html>".to_owned())),
        Ok((200, "{\"success\":true,\"new_con".to_owned())),
        Ok((408, "timeout".to_owned())),
        // A page of what stands in front, in place of whatever was answered.
        Ok((
            403,
            "<!DOCTYPE html><title>Just a moment</title>".to_owned(),
        )),
        Ok((404, "<html>Not Found</html>".to_owned())),
        Ok((400, r#"{"success":true,"new_contr"#.to_owned())),
    ];
    for line in unknown {
        let rig = rig();
        rig.script.line(line.clone()).line(line.clone());
        let created = run(rig.client.create(&create(Some(BID))));
        assert!(
            matches!(created, Outcome::Unknown(_)),
            "{line:?}: {created:?}"
        );
        let destroyed = run(rig.client.destroy(InstanceId(7)));
        assert!(
            matches!(destroyed, Outcome::Unknown(_)),
            "{line:?}: {destroyed:?}"
        );
        assert_eq!(rig.script.take().len(), 2, "each once");
    }
    let rig = rig();
    rig.script
        .fail(TransportError::Connect("refused".to_owned()))
        .reply(429, "API requests too frequent");
    assert_eq!(
        why(&run(rig.client.create(&create(None)))),
        Some(RefusedWhy::NotSent)
    );
    assert_eq!(
        why(&run(rig.client.destroy(InstanceId(7)))),
        Some(RefusedWhy::Throttled)
    );
}

#[test]
fn reads_are_tried_again_and_broken_answers_are_errors() {
    let rig = rig();
    rig.script
        .fail(TransportError::Connect("refused".to_owned()))
        .reply(503, "<html>")
        .reply(200, json!({"id":9,"credit":1}));
    assert!(run(rig.client.account()).is_ok());
    for (status, body) in [
        (200, "<html>"),
        (200, r#"{"offers":[{"id":1"#),
        (200, ""),
        (302, ""),
        // Of nobody's key.
        (403, "<!DOCTYPE html><title>Just a moment</title>"),
        (400, r#"{"success":false,"error":"invalid_request"}"#),
        (200, r#"{"success":false,"msg":"no","offers":[]}"#),
    ] {
        rig.script.reply(status, body);
        let read = run(rig.client.offers(&query(Market::OnDemand)));
        assert!(
            matches!(
                read,
                Err(ReadError::Malformed(_) | ReadError::Failed { .. })
            ),
            "{status} {body}: {read:?}"
        );
    }
    assert_eq!(rig.script.left(), 0);
}

#[test]
fn a_bad_key_is_told_on_every_read_and_never_taken_for_an_absence() {
    let expired = json!({"msg":"Session expired. Please log in again."});
    for (status, body) in [
        (401, bad_key()),
        (403, bad_key()),
        (404, bad_key()),
        (404, expired),
    ] {
        let rig = rig();
        for _ in 0..6 {
            rig.script.reply(status, &body);
        }
        let client = &rig.client;
        let unauthorized = [
            run(client.offers(&query(Market::Bid))).err(),
            run(client.offer(OfferId(5))).err(),
            run(client.instances()).err(),
            run(client.instance(InstanceId(7))).err(),
            run(client.account()).err(),
            run(client.charges(Time(0), Time(1))).err(),
        ];
        for error in unauthorized {
            assert!(
                matches!(error, Some(ReadError::Unauthorized { .. })),
                "{status} {body}: {error:?}"
            );
        }
    }
}

#[test]
fn routes_keep_their_own_intervals() {
    let rig = rig();
    for _ in 0..5 {
        rig.script.reply(200, json!({"success":true}));
    }
    let id = InstanceId(7);
    run(rig.client.set_bid(id, BID));
    run(rig.client.stop(id));
    run(rig.client.destroy(id));
    assert_eq!(rig.clock.monotonic().0, 0);
    run(rig.client.set_bid(id, BID));
    assert!(rig.clock.monotonic().0 >= 5_500);
    run(rig.client.destroy(id));
    assert!(rig.clock.monotonic().0 < 6_000);
}

#[test]
fn secrets_that_are_thrown_back_are_blanked() {
    let rig = rig();
    let echo = format!(
        "bad request: Bearer {CANARY} hf_canary987654 pwcanary99 vk_canary%2F0123456789%2Bx"
    );
    rig.script.reply(400, error("invalid_args", &echo));
    let outcome = run(rig.client.create(&create(None)));
    rig.script.reply(400, error("invalid_args", &echo));
    let read = run(rig.client.account());
    rig.script.fail(TransportError::Broken(echo));
    let broken = run(rig.client.destroy(InstanceId(7)));
    let shown = format!("{outcome:?} {read:?} {broken:?}");
    for secret in ["canary/", "canary%2F", "hf_canary", "pwcanary"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
