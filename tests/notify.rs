//! People are told: by senders against real servers on loopback, by `haggle notify test`, and by the
//! daemon, which neither repeats nor forgets over a restart.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may stop")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use haggle::clock::SystemClock;
use haggle::notify::ways::command::{Hidden, Run};
use haggle::notify::ways::email::Email;
use haggle::notify::ways::post::Post;
use haggle::notify::{Message, Sender};
use haggle::ports::Clock as _;
use haggle::types::ids::ReplicaId;
use haggle::types::state::Severity;
use haggle::types::telling::{KINDS, Mail, MailTls, kind_of};
use haggle::types::time::Time;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::SecretString;
use serde_json::Value;
use sha2::Sha256;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::support;

/// 2026-11-30 12:00 UTC.
const NOW: Time = Time(1_796_040_000_000);

fn message() -> Message {
    let title = "train/0: lost @everyone";
    let text = "instance 7 in Berlin\r\nBcc: all@example.org <script>alert(1)</script> is gone";
    let message = Message::new(
        "lost 7".to_owned(),
        NOW,
        "lost",
        Severity::Alarm,
        title,
        text,
    );
    message.of(&ReplicaId {
        job: "train".parse().unwrap(),
        index: 0,
    })
}

// ------------------------------------------------------------------------------------------ HTTP

/// What a server was sent: the path, the headers, the body.
type Took = Arc<Mutex<Vec<(String, HeaderMap, String)>>>;

/// A server that answers with one status, and tells what it was sent.
async fn receiver(status: u16) -> (SocketAddr, Took) {
    let took: Took = Arc::default();
    let shared = Arc::clone(&took);
    let answer = move |request: Request| {
        let took = Arc::clone(&shared);
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let text = String::from_utf8(body.to_vec()).unwrap();
            took.lock()
                .unwrap()
                .push((parts.uri.path().to_owned(), parts.headers, text));
            let mut answer: Response = StatusCode::from_u16(status).unwrap().into_response();
            answer
                .headers_mut()
                .insert("retry-after", "7".parse().unwrap());
            answer
                .headers_mut()
                .insert("location", "https://example.org/".parse().unwrap());
            answer
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer);
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    (address, took)
}

fn only(took: &Took) -> (String, HeaderMap, Value) {
    let took = std::mem::take(&mut *took.lock().unwrap());
    assert_eq!(took.len(), 1);
    let (path, headers, body) = took.into_iter().next().unwrap();
    (path, headers, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn a_webhook_is_signed_and_says_all_there_is() {
    let (address, took) = receiver(204).await;
    let url = format!("http://{address}/hook?key=abc");
    let hook = Post::webhook(&url, SecretString::from("s3cret"), || NOW).unwrap();
    hook.send(&message()).await.unwrap();
    hook.send(&message()).await.unwrap();
    let took = took.lock().unwrap();
    let (path, headers, body) = &took[0];
    assert_eq!(path, "/hook");
    let header = |name: &str| headers[name].to_str().unwrap();
    assert_eq!(header("x-haggle-timestamp"), "1796040000");
    let mut mac = Hmac::<Sha256>::new_from_slice(b"s3cret").unwrap();
    mac.update(format!("1796040000.{body}").as_bytes());
    let signature = haggle::types::hex::hex(&mac.finalize().into_bytes());
    assert_eq!(
        header("x-haggle-signature-256"),
        format!("sha256={signature}")
    );
    let read: Value = serde_json::from_str(body).unwrap();
    assert_eq!(read["kind"], "lost");
    assert_eq!(read["severity"], "alarm");
    assert_eq!(
        (&read["job"], &read["replica"]),
        (&"train".into(), &0.into())
    );
    assert_eq!(read["at"], "2026-11-30T12:00:00Z");
    // The same message has the same id, so that a receiver can tell a second try.
    assert_eq!(read["id"], header("x-haggle-id"));
    assert_eq!(took[1].1["x-haggle-id"], headers["x-haggle-id"]);
}

#[tokio::test]
async fn slack_discord_and_ntfy_get_what_they_take() {
    let (address, took) = receiver(200).await;
    let slack = Post::slack(&format!("http://{address}/services/T/B/x")).unwrap();
    slack.send(&message()).await.unwrap();
    let (path, _, body) = only(&took);
    assert_eq!(path, "/services/T/B/x");
    let text = body["text"].as_str().unwrap();
    assert!(
        text.contains("&lt;script&gt;") && !text.contains('<'),
        "{text}"
    );

    let discord = Post::discord(&format!("http://{address}/api/webhooks/1/x")).unwrap();
    discord.send(&message()).await.unwrap();
    let (_, _, body) = only(&took);
    assert_eq!(body["allowed_mentions"]["parse"], serde_json::json!([]));
    assert!(body.get("content").is_none());
    assert_eq!(body["embeds"][0]["timestamp"], "2026-11-30T12:00:00Z");

    let token = Some(SecretString::from("tk_1"));
    let ntfy = Post::ntfy(&format!("http://{address}/haggle"), token).unwrap();
    ntfy.send(&message()).await.unwrap();
    let (path, headers, body) = only(&took);
    assert_eq!((path.as_str(), &body["topic"]), ("/", &"haggle".into()));
    assert_eq!(headers["authorization"], "Bearer tk_1");
    assert_eq!(body["priority"], 5);
}

#[tokio::test]
async fn what_went_wrong_is_said_without_the_address() {
    let busy = receiver(429).await.0;
    let gone = receiver(404).await.0;
    let elsewhere = receiver(302).await.0;
    let unwanted = receiver(413).await.0;
    // A port at which nobody listens any more.
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    for (address, again) in [
        (busy, true),
        (gone, true),
        (elsewhere, true),
        (unwanted, false),
        (nobody, true),
    ] {
        let slack = Post::slack(&format!("http://{address}/T0K3N?key=T0K3N")).unwrap();
        let unsent = slack.send(&message()).await.unwrap_err();
        assert_eq!(unsent.again, again, "{}", unsent.why);
        let said = format!("{unsent:?} {slack:?}");
        assert!(!said.contains("T0K3N") && !said.contains("http:"), "{said}");
        let after = unsent.after.filter(|_| address == busy);
        assert_eq!(after.is_some(), address == busy);
    }
}

// ------------------------------------------------------------------------------------------ mail

/// A mail server that takes one connection, answers each command by the table, and tells what it heard.
async fn mail_server(
    answers: &'static [(&'static str, &'static str)],
) -> (u16, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard: Arc<Mutex<String>> = Arc::default();
    let shared = Arc::clone(&heard);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        write.write_all(b"220 sink ESMTP\r\n").await.unwrap();
        let mut in_letter = false;
        while let Ok(Some(line)) = lines.next_line().await {
            shared.lock().unwrap().push_str(&format!("{line}\n"));
            let known = answers
                .iter()
                .find(|(command, _)| line.starts_with(command));
            let answer = match known {
                _ if in_letter && line != "." => continue,
                Some((_, answer)) => answer,
                None if line.starts_with("EHLO") => {
                    "250-sink\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN"
                }
                None if line.starts_with("DATA") => "354 go on",
                None if line.starts_with("QUIT") => "221 bye",
                None => "250 ok",
            };
            in_letter = answer.starts_with("354");
            if write
                .write_all(format!("{answer}\r\n").as_bytes())
                .await
                .is_err()
            {
                return;
            }
        }
    });
    (port, heard)
}

fn mail(port: u16) -> Mail {
    Mail {
        host: "127.0.0.1".to_owned(),
        port,
        tls: MailTls::Off,
        login: None,
        from: "haggle <haggle@example.org>".to_owned(),
        to: vec!["me@example.org".to_owned(), "you@example.org".to_owned()],
    }
}

#[tokio::test]
async fn a_letter_arrives_at_those_who_are_named_and_nobody_else() {
    let (port, heard) = mail_server(&[("AUTH", "235 welcome")]).await;
    let mut mail = mail(port);
    let reference = haggle::types::job::SecretRef::Env("X".to_owned());
    mail.login = Some(("me".to_owned(), reference));
    let email = Email::new(&mail, Some(SecretString::from("pa55"))).unwrap();
    email.send(&message()).await.unwrap();
    let heard = heard.lock().unwrap().clone();
    let commands: Vec<&str> = heard
        .lines()
        .filter(|line| line.starts_with("RCPT"))
        .collect();
    assert_eq!(
        commands,
        ["RCPT TO:<me@example.org>", "RCPT TO:<you@example.org>"]
    );
    assert!(heard.contains("MAIL FROM:<haggle@example.org>"), "{heard}");
    let login = base64::engine::general_purpose::STANDARD.encode("\0me\0pa55");
    assert!(heard.contains(&format!("AUTH PLAIN {login}")), "{heard}");
    let (_, letter) = heard.split_once("DATA\n").unwrap();
    let (head, body) = letter.split_once("\n\n").unwrap();
    assert!(
        head.contains("Subject: [haggle] train/0: lost @everyone"),
        "{head}"
    );
    assert!(!head.contains("Bcc"), "{head}");
    assert!(body.contains("instance 7 in Berlin"), "{body}");
}

#[tokio::test]
async fn what_a_mail_server_refuses_for_good_is_not_tried_again() {
    for (answers, again) in [
        (&[("RCPT", "550 no such user")][..], false),
        (&[("MAIL", "451 try later")][..], true),
        (&[("MAIL", "530 log in first")][..], true),
        (&[("MAIL", "535 who are you")][..], true),
    ] {
        let (port, _) = mail_server(answers).await;
        let email = Email::new(&mail(port), None).unwrap();
        let unsent = email.send(&message()).await.unwrap_err();
        assert_eq!(unsent.again, again, "{unsent:?}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let email = Email::new(&mail(nobody.port()), None).unwrap();
    assert!(email.send(&message()).await.unwrap_err().again);
}

// --------------------------------------------------------------------------------------- command

fn hidden(names: &'static [&'static str]) -> Hidden {
    Arc::new(|| names.iter().map(|&name| name.to_owned()).collect())
}

#[tokio::test]
async fn a_command_gets_the_message_and_no_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    let line = format!(
        "cat > '{0}'; printf '%s|%s|%s|%s' \"$HAGGLE_MESSAGE_KIND\" \"$HAGGLE_MESSAGE_SEVERITY\" \
         \"$HAGGLE_MESSAGE_JOB\" \"${{HOME-none}}\" >> '{0}'",
        told.display()
    );
    let clock = Arc::new(SystemClock::new());
    let run = Run::new(line, hidden(&["HOME"]), clock.clone());
    run.send(&message()).await.unwrap();
    let text = fs::read_to_string(&told).unwrap();
    let (document, environment) = text.split_once('\n').unwrap();
    let read: Value = serde_json::from_str(document).unwrap();
    assert_eq!(read["title"], message().title);
    assert_eq!(environment, "lost|alarm|train|none");
    let failing = Run::new("exit 3".to_owned(), hidden(&[]), clock.clone());
    let unsent = failing.send(&message()).await.unwrap_err();
    assert!(unsent.again && unsent.why.contains('3'), "{unsent:?}");
}

#[tokio::test]
async fn a_command_that_hangs_is_ended_with_all_that_it_began() {
    let directory = tempfile::tempdir().unwrap();
    let pid = directory.path().join("pid");
    let line = format!("sleep 300 & echo $! > '{}'; wait", pid.display());
    let run = Run::new(line, hidden(&[]), Arc::new(SystemClock::new()));
    let run = run.within(Duration::from_millis(700));
    let unsent = run.send(&message()).await.unwrap_err();
    assert!(unsent.again, "{unsent:?}");
    let child = fs::read_to_string(&pid).unwrap();
    // A process that has ended and that nobody has waited for yet is one that has ended.
    for _ in 0..200 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            return;
        }
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("what it began goes on");
}

// -------------------------------------------------------------------------------------- the whole

/// A policy that waits at once, for what it keeps secret may not go through the gateway.
const WITHHELD: &str = r#"
name = "train"
[run]
image = "image:1"
secrets = { KEY = { env = "NOTHING" } }
[gpu]
models = ["RTX 4090"]
[machine]
disk = "16GB"
[price]
max = "$0.80/gpu-hour"
[budget]
total = "$4"
[work]
gpu_hours = 6
[data]
disposable = true
"#;

fn set_up(directory: &Path, base_url: &str, notify: &str) {
    support::set_up_with(directory, &format!("base_url = \"{base_url}\"\n"), WITHHELD);
    let file = directory.join("haggle.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}\n{notify}")).unwrap();
}

fn once(directory: &Path) {
    let mut command = support::haggle(directory);
    command
        .args(["run", "--once"])
        .env("HAGGLE_TOKEN", "at_told");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_daemon_tells_once_and_what_could_not_be_told_later() {
    let gateway = support::Gateway::plain(None);
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let told = directory.join("told");
    let channel = |line: &str| format!("[[notify]]\nkind = \"command\"\ncommand = {line:?}\n");
    let works = channel("cat >> told");
    // It fails at first: what it was to tell is kept.
    set_up(directory, &gateway.base_url, &channel("exit 1"));
    once(directory);
    assert!(!told.exists());
    set_up(directory, &gateway.base_url, &works);
    once(directory);
    let first = lines(&told);
    let kinds: Vec<&str> = first
        .iter()
        .map(|line| line["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["secrets-withheld"]);
    assert_eq!(first[0]["job"], "train");
    // It is still so, and was told.
    once(directory);
    assert_eq!(lines(&told), first);
}

/// What the tests of the whole tell, a line each.
fn lines(told: &Path) -> Vec<Value> {
    let text = fs::read_to_string(told).unwrap_or_default();
    let read = |line: &str| serde_json::from_str(line).unwrap();
    text.lines().map(read).collect()
}

#[test]
fn the_secrets_of_policies_do_not_reach_a_command() {
    let gateway = support::Gateway::plain(None);
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let line = "env > environment; cat >> told";
    let channel = format!("[[notify]]\nkind = \"command\"\ncommand = {line:?}\n");
    set_up(directory, &gateway.base_url, &channel);
    // One that cannot be used has its secrets, too.
    let broken = "name = \"broken\"\n[run\nsecrets = { OTHER = { env = \"OF_A_BROKEN_ONE\" } }\n";
    fs::write(directory.join("policies").join("broken.toml"), broken).unwrap();
    let mut command = support::haggle(directory);
    command
        .args(["run", "--once"])
        .env("HAGGLE_TOKEN", "at_told")
        .env("NOTHING", "S3CRET-1")
        .env("OF_A_BROKEN_ONE", "S3CRET-2")
        .env("PLAIN", "shown");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(lines(&directory.join("told")).len(), 1);
    let environment = fs::read_to_string(directory.join("environment")).unwrap();
    assert!(environment.contains("PLAIN=shown"), "{environment}");
    assert!(!environment.contains("S3CRET"), "{environment}");
    assert!(!environment.contains("at_told"), "{environment}");
}

#[test]
fn what_a_process_committed_and_did_not_tell_the_next_one_tells() {
    let gateway = support::Gateway::plain(None);
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    set_up(
        directory,
        &gateway.base_url,
        "[[notify]]\nkind = \"command\"\ncommand = \"cat >> told\"\n",
    );
    let told = directory.join("told");
    once(directory);
    assert_eq!(lines(&told).len(), 1);
    // As an event that was committed just before the process was killed.
    let database = rusqlite::Connection::open(directory.join("haggle.db")).unwrap();
    let at = SystemClock::new().now();
    let event = "INSERT INTO events (at, severity, kind, job, replica, text)
                 VALUES (?1, 'warning', 'lost', 'train', 0, 'instance 7 is gone')";
    database.execute(event, [at.0]).unwrap();
    for _ in 0..2 {
        once(directory);
        let lines = lines(&told);
        let kinds: Vec<&str> = lines
            .iter()
            .filter_map(|line| line["kind"].as_str())
            .collect();
        assert_eq!(kinds, ["secrets-withheld", "lost"]);
        assert_eq!(lines[1]["text"], "instance 7 is gone");
    }
}

#[test]
fn that_the_daemon_has_ended_is_told() {
    let gateway = support::Gateway::plain(None);
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    set_up(
        directory,
        &gateway.base_url,
        "[[notify]]\nkind = \"command\"\ncommand = \"cat >> told\"\n",
    );
    let mut command = support::haggle(directory);
    command.arg("run").env("HAGGLE_TOKEN", "at_told");
    let mut daemon = support::Running::start(&mut command, directory, "daemon");
    daemon.wait_to_say("metrics at http://");
    daemon.terminate();
    daemon.wait();
    let lines = lines(&directory.join("told"));
    let last = lines.last().unwrap();
    assert_eq!(last["kind"], "daemon-ended");
    assert_eq!(last["severity"], "info");
}

fn notify_test(directory: &Path, arguments: &[&str]) -> (Output, String) {
    let mut command = support::haggle(directory);
    command
        .args(["notify", "test"])
        .args(arguments)
        .env("HOOK_URL", "http://127.0.0.1:1/T0K3N-0123456789")
        .env("HOOK_KEY", "K3Y-0123456789");
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    (output, said)
}

#[test]
fn each_channel_can_be_tried_and_says_what_came_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (output, said) = notify_test(directory, &[]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no channel of notifications"), "{said}");
    let channels = "[[notify]]\nname = \"here\"\nkind = \"command\"\ncommand = \"cat > told\"\n\
                    [[notify]]\nkind = \"webhook\"\nurl = { env = \"HOOK_URL\" }\n\
                    secret = { env = \"HOOK_KEY\" }\nseverity = \"alarm\"\n";
    set_up(directory, "http://127.0.0.1:1", channels);
    let (output, said) = notify_test(directory, &[]);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("here (command): told"), "{said}");
    assert!(said.contains("webhook (webhook): NOT told: "), "{said}");
    assert!(!said.contains("T0K3N") && !said.contains("K3Y"), "{said}");
    let told = fs::read_to_string(directory.join("told")).unwrap();
    assert!(told.contains("\"kind\":\"test\""), "{told}");
    let (output, said) = notify_test(directory, &["here", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["channels"][0]["told"], true);
    let (_, said) = notify_test(directory, &["phone"]);
    assert!(said.contains("there are here, webhook"), "{said}");
}

/// Every kind of event that the code tells of is one that the configuration can name.
#[test]
fn every_kind_of_event_has_its_word() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let patterns = [
        r#"Severity::\w+,\s*"([a-z][a-z-]+)""#,
        r#"\bkind: "([a-z-]+)"\.to_owned"#,
        r#"\.warn\(\s*"([a-z-]+)""#,
        r#"severity,\s*"([a-z-]+)""#,
    ];
    let patterns = patterns.map(|pattern| regex::Regex::new(pattern).unwrap());
    let mut found = std::collections::BTreeSet::new();
    let mut left: Vec<_> = ["engine", "daemon"].map(|room| root.join(room)).into();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for pattern in &patterns {
            found.extend(pattern.captures_iter(code).map(|found| found[1].to_owned()));
        }
    }
    assert!(found.len() > 40, "{found:?}");
    let unknown: Vec<&String> = found
        .iter()
        .filter(|word| kind_of(word).word == "other")
        .collect();
    assert!(
        unknown.is_empty(),
        "not in the table of src/types/telling.rs: {unknown:?}"
    );
    assert!(KINDS.len() < 80);
}
