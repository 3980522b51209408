//! Logs and copies.

use super::*;
use crate::ports::{CloudCopy, CopyEnd};

const URL: &str = "https://logs.example/abcdef0123456789?X-Signature=canary";

fn requested() -> Value {
    json!({"success":true,"result_url":URL})
}

#[test]
fn a_log_is_looked_for_until_it_is_there() {
    let rig = rig();
    rig.script.reply(200, requested());
    rig.script
        .elsewhere(Ok((404, "not yet".to_owned())))
        .elsewhere(Err(TransportError::Broken("reset".to_owned())))
        .elsewhere(Ok((200, "one\ntwo\n".to_owned())));
    let log = run(rig.client.logs(InstanceId(7), 100)).unwrap();
    assert_eq!(&log[..], b"one\ntwo\n");
    assert_eq!(rig.script.fetched(), [URL, URL, URL]);
    assert!(rig.clock.monotonic().0 >= 1000);
    let request = rig.script.take().remove(0);
    assert_eq!(
        format!("{request:?}"),
        "PUT /api/v0/instances/request_logs/7/"
    );
    assert_eq!(
        request.body.as_deref(),
        Some(br#"{"tail":"100"}"#.as_slice())
    );
}

#[test]
fn a_log_that_does_not_come_is_given_up() {
    let rig = rig();
    rig.script.reply(200, requested());
    for _ in 0..30 {
        rig.script.elsewhere(Ok((403, "AccessDenied".to_owned())));
    }
    let late = run(rig.client.logs(InstanceId(7), 10)).unwrap_err();
    assert!(matches!(late, ReadError::Failed { status: 403, .. }));
    assert_eq!(rig.script.fetched().len(), 30);
    rig.script.reply(200, requested());
    for _ in 0..3 {
        let why = format!("cannot reach {URL}");
        rig.script.elsewhere(Err(TransportError::Connect(why)));
    }
    let error = run(rig.client.logs(InstanceId(7), 10)).unwrap_err();
    assert!(matches!(error, ReadError::Unreachable(_)));
    assert!(!format!("{error:?}").contains("abcdef"), "{error:?}");
    assert_eq!(rig.script.fetched().len(), 3);
}

#[test]
fn a_page_in_place_of_a_log_is_none() {
    let rig = rig();
    rig.script.reply(200, requested());
    let page = "<!DOCTYPE html><title>Just a moment…</title>";
    let log = "first\n<html>\n";
    rig.script
        .elsewhere(Ok((200, page.to_owned())))
        .elsewhere(Ok((200, log.to_owned())));
    let read = run(rig.client.logs(InstanceId(7), 10)).unwrap();
    assert_eq!(read, log, "a command may write what it likes");
    rig.script.reply(200, requested());
    for _ in 0..30 {
        let page = "\n<HTML><body>504 Gateway Time-out</body></html>";
        rig.script.elsewhere(Ok((200, page.to_owned())));
    }
    let error = run(rig.client.logs(InstanceId(7), 10)).unwrap_err();
    assert!(matches!(error, ReadError::Failed { status: 200, .. }));
}

#[test]
fn only_an_address_of_http_is_read() {
    let rig = rig();
    for body in [
        json!({"success":true,"result_url":"file:///etc/passwd"}),
        json!({"success":true,"result_url":null}),
        json!({"success":true}),
        json!({"success":false,"msg":"no","result_url":URL}),
    ] {
        rig.script.reply(200, &body);
        assert!(run(rig.client.logs(InstanceId(7), 10)).is_err(), "{body}");
    }
    assert!(rig.script.fetched().is_empty());
}

#[test]
fn a_long_log_keeps_its_end_from_the_beginning_of_a_line() {
    let rig = rig();
    rig.script.reply(200, requested());
    let line = "0123456789abcde\n";
    let long = format!("first\n{}last\n", line.repeat(300_000));
    rig.script.elsewhere(Ok((200, long)));
    let log = run(rig.client.logs(InstanceId(7), 10)).unwrap();
    assert!(log.len() <= 4 * 1024 * 1024 && log.len() > 4_000_000);
    assert!(log.starts_with(line.as_bytes()) && log.ends_with(b"last\n"));
}

fn end(instance: u64, path: &str) -> CopyEnd {
    CopyEnd {
        instance: InstanceId(instance),
        path: path.to_owned(),
    }
}

#[test]
fn a_copy_names_both_ends_and_never_the_whole_disk() {
    let rig = rig();
    rig.script
        .reply(200, json!({"success":true,"msg":"started"}));
    let from = end(7, "/workspace/out");
    assert_eq!(
        run(rig.client.copy(&from, &end(8, "/data"))),
        Outcome::Done(())
    );
    assert_eq!(
        rig.script.bodies()[0],
        json!({"client_id":"me","src_id":"7","dst_id":"8","src_path":"/workspace/out","dst_path":"/data"})
    );
    for path in ["/", "/root", "/root/", "//root/.", "", "/a/../root", " / "] {
        for (from, to) in [(from.clone(), end(8, path)), (end(8, path), from.clone())] {
            let outcome = run(rig.client.copy(&from, &to));
            assert_eq!(why(&outcome), Some(RefusedWhy::Invalid), "{path}");
        }
    }
    let nobody = run(rig.client.copy(&from, &end(0, "/data")));
    assert_eq!(why(&nobody), Some(RefusedWhy::Invalid));
    assert!(rig.script.take().is_empty());
    rig.script.reply(404, error("no_such_instance", ""));
    let gone = run(rig.client.copy(&from, &end(8, "/root/out")));
    assert_eq!(why(&gone), Some(RefusedWhy::NoSuchInstance));
}

#[test]
fn a_cloud_copy_does_not_carry_the_key() {
    let rig = rig();
    let copy = CloudCopy {
        instance: InstanceId(7),
        connection: "1001".to_owned(),
        source: "/workspace/out".to_owned(),
        destination: "/bucket/out".to_owned(),
        upload: true,
    };
    rig.script.reply(200, json!({"success":true}));
    assert_eq!(run(rig.client.cloud_copy(&copy)), Outcome::Done(()));
    assert_eq!(
        rig.script.bodies()[0],
        json!({"instance_id":7,"src":"/workspace/out","dst":"/bucket/out","selected":"1001",
            "transfer":"Instance To Cloud","flags":[]})
    );
    let down = CloudCopy {
        upload: false,
        source: "/bucket".to_owned(),
        destination: "/root".to_owned(),
        ..copy.clone()
    };
    let nothing = CloudCopy {
        connection: " ".to_owned(),
        ..copy
    };
    for bad in [down, nothing] {
        let outcome = run(rig.client.cloud_copy(&bad));
        assert_eq!(why(&outcome), Some(RefusedWhy::Invalid), "{bad:?}");
    }
}
