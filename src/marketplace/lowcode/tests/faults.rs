//! What goes wrong: retries, throttling, and secrets thrown back.

use super::*;

#[test]
fn reads_are_retried_with_pauses_and_give_up() {
    let rig = rig();
    rig.script
        .fail(TransportError::Connect("refused".to_owned()));
    rig.script.reply(503, "<html>");
    rig.script.reply(200, json!({"instances":[]}));
    assert!(run(rig.client.instances()).unwrap().complete);
    let waited = rig.clock.monotonic().0;
    assert!((1500..=4000).contains(&waited), "{waited}");

    for _ in 0..4 {
        rig.script
            .reply(500, json!({"message":"connect ECONNREFUSED 1.2.3.4:443"}));
    }
    let error = run(rig.client.instances()).unwrap_err();
    assert!(
        matches!(error, ReadError::Failed { status: 500, .. }),
        "{error}"
    );

    let timeout = TransportError::Timeout(Duration::from_secs(30));
    rig.script.fail(timeout.clone()).fail(timeout.clone());
    assert_eq!(
        run(rig.client.instances()),
        Err(ReadError::Unreachable(timeout))
    );
    assert_eq!(rig.script.left(), 0);
    for status in [401, 403] {
        rig.script
            .reply(status, json!({"message":"Invalid api_token"}));
        let error = run(rig.client.instances()).unwrap_err();
        assert!(
            matches!(error, ReadError::Unauthorized { .. }),
            "not retried: {error}"
        );
    }
}

#[test]
fn throttled_reads_wait_as_long_as_they_are_told() {
    let rig = rig();
    let body = json!({"message":"x","provider":"vastai","error":{},"headers":{"retry-after":"17"}});
    rig.script.reply(429, body);
    rig.script.reply(200, json!({"instances":[]}));
    assert!(run(rig.client.instances()).unwrap().complete);
    assert_eq!(rig.clock.monotonic().0, 17_000);
}

#[test]
fn an_exhausted_search_quota_silences_searches_and_nothing_else() {
    let rig = rig();
    rig.script.reply(
        429,
        json!({"success":false,"error":"search_quota_exceeded"}),
    );
    for _ in 0..2 {
        let error = run(rig.client.offers(&query(Market::Bid))).unwrap_err();
        let day = Duration::from_hours(24);
        assert_eq!(error, ReadError::Throttled { retry_after: day });
    }
    assert_eq!(rig.script.take().len(), 1, "the second was not sent");
    rig.script.reply(200, json!({"instances":[]}));
    assert!(run(rig.client.instances()).is_ok());
}

/// Whatever the gateway throws back, with the token in every form, no text of ours shows it.
#[test]
fn no_error_shows_a_secret() {
    let encoded = crate::marketplace::redact::percent(CANARY, false);
    let texts = [
        format!("token {CANARY} hf_canary987654"),
        format!("GET /vastai/x?api_token={encoded}&q=1"),
        json!({"message":"Unauthorized","query":{"api_token":CANARY},"headers":{"cookie":CANARY}}).to_string(),
        json!({"message":format!("bad {CANARY}"),"provider":"vastai","error":{"msg":format!("see {encoded} pwcanary99"),
            "onstart":CANARY,"extra_env":[["A",CANARY]],"instance_api_key":"ikcanary"}}).to_string(),
        json!({"data":{"error":{"message":format!("{{\"jupyter_token\":\"jtcanary\",\"a\":\"{CANARY}\"")}}}).to_string(),
        json!({"success":false,"msg":format!("https://s3/x?sig=sgcanary&t={encoded}")}).to_string(),
    ];
    let mut shown = String::new();
    for text in &texts {
        let mut lines = vec![
            Err(TransportError::Connect(text.clone())),
            Err(TransportError::Broken(text.clone())),
        ];
        lines.extend(
            [200, 400, 401, 403, 404, 410, 429, 500].map(|status| Ok((status, text.clone()))),
        );
        for line in lines {
            let rig = rig_with(&[(Family::Instances, "new"), (Family::Bids, "new")]);
            // As often as the most patient read asks.
            let again = || {
                (0..8).for_each(|_| {
                    rig.script.line(line.clone());
                });
            };
            again();
            let client = &rig.client;
            shown += &format!("{:?}", run(client.create(&create(None))));
            shown += &format!("{:?}", run(client.create(&create(Some(Rate(100_000_000))))));
            again();
            shown += &format!("{:?}", run(client.set_bid(InstanceId(7), Rate(2_000_000))));
            again();
            shown += &format!("{:?}", run(client.destroy(InstanceId(7))));
            again();
            for error in [
                run(client.offers(&query(Market::Bid))).map(|_| ()),
                {
                    again();
                    run(client.offer(OfferId(5))).map(|_| ())
                },
                {
                    again();
                    run(client.instances()).map(|_| ())
                },
                {
                    again();
                    run(client.instance(InstanceId(7))).map(|_| ())
                },
                {
                    again();
                    run(client.account()).map(|_| ())
                },
                {
                    again();
                    run(client.charges(Time(0), Time(1))).map(|_| ())
                },
            ] {
                let error = error.unwrap_err();
                shown += &format!("{error} {error:?}");
            }
            shown += &format!("{client:?} {:?} {:?}", client.redactor(), client.learnt());
        }
    }
    assert!(shown.contains("[redacted]"));
    for secret in ["canary", "0123456789"] {
        if let Some(at) = shown.find(secret) {
            panic!("shown: {}", &shown[at.saturating_sub(200)..at + 40]);
        }
    }
}
