//! `haggle logs`, `haggle ssh` and `haggle cp` as a user meets them: the binary, a database, a book of
//! logs, and the embedded market or one that answers with what it should not.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may stop")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use haggle::clock::ScaledClock;
use haggle::logbook::{Attempt, Book};
use haggle::market::faults::Faults;
use haggle::market::{Market, MarketOptions, MarketServer, WireOptions, server};
use haggle::marketplace::http::HttpTransport;
use haggle::marketplace::vast::{Vast, VastOptions};
use haggle::ports::{Clock, CreateRequest, Marketplace, Outcome, Reply, Store};
use haggle::store::SqliteStore;
use haggle::types::ids::{InstanceId, IntentId, ReplicaId};
use haggle::types::instance::{Held, Phase};
use haggle::types::offer::{Bounds, Market as Kind, OfferQuery};
use haggle::types::state::{Change, JobRecord};
use haggle::types::time::Time;
use secrecy::SecretString;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Gateway, POLICY, Running, haggle, set_up_with};

const TOKEN: &str = "a-key-of-play-money";

/// A directory with a policy, a configuration for a marketplace, a database and a book.
struct Home {
    directory: TempDir,
}

impl Home {
    fn new(origin: &str, run_type: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let provider = format!("kind = \"vast\"\nbase_url = \"{origin}\"\n");
        let policy = POLICY.replace("[run]\n", &format!("[run]\ntype = \"{run_type}\"\n"));
        set_up_with(directory.path(), &provider, &policy);
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn book(&self) -> Book {
        Book::of_database(&self.path().join("haggle.db"))
    }

    fn know(&self, changes: &[Change]) {
        let mut store = SqliteStore::open(&self.path().join("haggle.db"), None, 7).unwrap();
        let job = Change::Job(JobRecord::new("train".parse().unwrap()));
        store.commit(&[&[job], changes].concat()).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = haggle(self.path());
        command.args(args).env("HAGGLE_TOKEN", TOKEN);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    #[track_caller]
    fn shows(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {told}");
        assert!(told.contains("error: "), "{args:?}: {told}");
        told
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn held(id: u64, index: u32, intent: u64) -> Held {
    let replica = ReplicaId {
        job: "train".parse().unwrap(),
        index,
    };
    Held {
        phase: Phase::Running,
        ..Held::new(
            InstanceId(id),
            IntentId(intent),
            replica,
            Time(1_795_478_400_000),
        )
    }
}

fn is_held(held: &Held) -> Change {
    Change::Held(Box::new(held.clone()))
}

fn is_gone(held: &Held) -> [Change; 2] {
    let gone = Change::Gone {
        instance: held.id,
        at: Time(1_795_478_500_000),
    };
    [is_held(held), gone]
}

/// Nothing listens there.
const NOWHERE: &str = "http://127.0.0.1:9";

#[test]
fn what_was_kept_is_shown_when_the_machine_is_gone() {
    let home = Home::new(NOWHERE, "args");
    assert!(home.fails(1, &["logs", "train"]).contains("no database"));
    home.know(&[]);
    let told = home.fails(1, &["logs", "train"]);
    assert!(told.contains("train never ran"), "{told}");
    let told = home.fails(1, &["logs", "trian"]);
    assert!(
        told.contains("no job named trian") && told.contains("known jobs: train"),
        "{told}"
    );

    // The database has forgotten the first; nothing was kept of the second.
    let all = [
        held(1, 0, 10),
        held(2, 0, 20),
        held(3, 0, 30),
        held(4, 1, 25),
    ];
    home.know(&all[1..].iter().flat_map(is_gone).collect::<Vec<_>>());
    let book = home.book();
    for (held, text) in [
        (&all[0], "first\n"),
        (&all[2], "a\nb\nlast"),
        (&all[3], "other\n"),
    ] {
        book.add(&Attempt::of(held), text.as_bytes()).unwrap();
    }
    assert_eq!(home.shows(&["logs", "train"]), "a\nb\nlast\n");
    assert_eq!(home.shows(&["logs", "train", "-n", "2"]), "b\nlast\n");
    assert_eq!(home.shows(&["logs", "train/1", "--follow"]), "other\n");
    assert_eq!(
        home.shows(&["logs", "train/0", "--attempt", "3"]),
        "first\n"
    );
    assert_eq!(home.shows(&["logs", "train", "--instance", "4"]), "other\n");
    let every = home.shows(&["logs", "train", "--all"]);
    assert_eq!(
        every,
        "== train/0, attempt 4, instance 1, gone ==\nfirst\n\
         == train/1, attempt 2, instance 4, gone since 2026-11-24T00:01:40Z ==\nother\n\
         == train/0, attempt 1, instance 3, gone since 2026-11-24T00:01:40Z ==\na\nb\nlast\n"
    );
    let document: Value = serde_json::from_str(&home.shows(&["logs", "train", "--json"])).unwrap();
    let log = &document["logs"][0];
    assert_eq!(
        (&log["instance"], &log["machine"]),
        (&3.into(), &"gone".into())
    );
    assert_eq!(log["lines"], serde_json::json!(["a", "b", "last"]));
    assert_eq!(log["newer_unread"], Value::Null);

    let told = home.fails(1, &["logs", "train", "--instance", "2"]);
    assert!(told.contains("instance 2 of train/0 is gone"), "{told}");
    let told = home.fails(1, &["logs", "train", "--attempt", "9"]);
    assert!(told.contains("4 the oldest that is known"), "{told}");
    for wrong in [
        &["logs", "train/x"][..],
        &["logs", "../train"],
        &["logs", "train", "--all", "--attempt", "1"],
        &["logs", "train", "--every", "1ms"],
        &["logs", "train", "-n", "0"],
        &["logs", "train", "-f", "--json"],
    ] {
        assert_eq!(home.run(wrong).status.code(), Some(1), "{wrong:?}");
    }
    assert!(!home.path().join("train").exists());
}

#[test]
fn what_cannot_be_asked_for_is_told_after_what_was_kept() {
    let home = Home::new(NOWHERE, "args");
    let live = held(7, 0, 10);
    home.know(&[is_held(&live)]);
    home.book().add(&Attempt::of(&live), b"kept").unwrap();
    let output = home.run(&["logs", "train"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert_eq!(output.stdout, b"kept\n");
    assert!(
        stderr(&output).contains("cannot be reached"),
        "{}",
        stderr(&output)
    );

    let output = home
        .command(&["logs", "train"])
        .env_remove("HAGGLE_TOKEN")
        .output()
        .unwrap();
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(1), &b"kept\n"[..])
    );
    assert!(
        stderr(&output).contains("HAGGLE_TOKEN"),
        "{}",
        stderr(&output)
    );

    let gateway = Gateway::plain(None);
    for args in [&["logs", "train"][..], &["logs", "train", "-f"]] {
        let output = home
            .command(args)
            .env("HAGGLE_PROVIDER__KIND", "lowcodeapi")
            .env("HAGGLE_PROVIDER__BASE_URL", &gateway.base_url)
            .env("HAGGLE_TOKEN", "at_any")
            .output()
            .unwrap();
        assert_eq!(
            (output.status.code(), &output.stdout[..]),
            (Some(1), &b"kept\n"[..])
        );
        let told = stderr(&output);
        assert!(
            told.contains("cannot show logs") && told.contains("provider.kind"),
            "{told}"
        );
    }
}

#[test]
fn what_the_daemon_has_not_settled_yet_is_gone_all_the_same() {
    let market = scripted(|_| None);
    let home = Home::new(&market.origin, "args");
    let live = held(7, 0, 10);
    home.know(&[is_held(&live)]);
    let told = home.fails(1, &["logs", "train"]);
    assert!(told.contains("instance 7 of train/0 is gone"), "{told}");
    home.book().add(&Attempt::of(&live), b"kept\n").unwrap();
    for args in [&["logs", "train"][..], &["logs", "train", "-f"]] {
        let output = home.run(args);
        assert_eq!(
            (output.status.code(), &output.stdout[..]),
            (Some(0), &b"kept\n"[..])
        );
        assert!(stderr(&output).contains("gone"), "{}", stderr(&output));
    }
}

/// The embedded market over HTTP, two market minutes a second, and an instance in it that runs.
async fn rented() -> (String, InstanceId) {
    let start = Time(1_795_478_400_000);
    let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(start, 120.0));
    let market = Market::generated(MarketOptions {
        start,
        failures: 0.0,
        intensity: 0.0,
        ..MarketOptions::default()
    });
    let wire = WireOptions {
        token: Some(SecretString::from(TOKEN)),
        ..WireOptions::default()
    };
    let market = Arc::new(MarketServer::new(
        market,
        wire,
        Faults::none(),
        Arc::clone(&clock),
    ));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(server::serve(
        listener,
        market,
        None,
        std::future::pending(),
    ));
    let transport = Arc::new(HttpTransport::new(&origin, Duration::from_secs(30)).unwrap());
    let options = VastOptions::new(SecretString::from(TOKEN));
    let client = Vast::new(transport, Arc::clone(&clock), options, &BTreeMap::new());
    let query = OfferQuery {
        market: Kind::OnDemand,
        gpu_name: None,
        machine: None,
        disk_gb: 24,
        open: false,
        bounds: Bounds::default(),
    };
    let offer = client.offers(&query).await.unwrap().offers.remove(0);
    let request = CreateRequest {
        offer: offer.id,
        bid: None,
        label: "hg-logs".to_owned(),
        disk_gb: 24,
        image: Some("pytorch/pytorch:2".to_owned()),
        template: None,
        run_type: "args",
        onstart: None,
        args: vec!["train".to_owned(), "it".to_owned()],
        env: Vec::new(),
        image_login: None,
    };
    let Outcome::Done(id) = client.create(&request).await else {
        panic!("not rented");
    };
    // Until it has something to say: market minutes are fractions of a second here.
    for _ in 0..1000 {
        if client
            .logs(id, 10)
            .await
            .is_ok_and(|log| log.ends_with(b"working\n"))
        {
            return (origin, id);
        }
        clock
            .sleep_until(clock.now() + Duration::from_mins(1))
            .await;
    }
    panic!("it never wrote");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_newer_comes_from_the_marketplace() {
    let (origin, id) = rented().await;
    let home = Home::new(&origin, "args");
    let live = held(id.0, 0, 10);
    home.know(&[is_held(&live)]);
    let shown = home.shows(&["logs", "train"]);
    assert!(
        shown.contains("+ train it\n") && shown.contains("[1 min] working\n"),
        "{shown}"
    );
    assert!(
        home.book().kept(&live.replica.job).unwrap().is_empty(),
        "only the daemon adds"
    );

    // What the daemon kept of it, and lines from before that the marketplace no longer shows.
    let early: String = shown.split_inclusive('\n').take(4).collect();
    let kept = format!("from before\n{early}");
    home.book()
        .add(&Attempt::of(&live), kept.as_bytes())
        .unwrap();
    let joined = home.shows(&["logs", "train", "-n", "1000"]);
    assert!(joined.starts_with(&kept), "{joined}");
    assert_eq!(joined.matches("[1 min] working\n").count(), 1, "{joined}");
    assert!(joined.len() > kept.len(), "{joined}");
    assert!(!joined.contains("missing"), "{joined}");
    assert_eq!(
        home.book().read(&Attempt::of(&live)).unwrap().unwrap(),
        kept.as_bytes()
    );
}

/// A marketplace whose log is what a test says, by the number of the request for one.
fn scripted(log: impl Fn(u64) -> Option<Vec<u8>> + Send + Sync + 'static) -> Gateway {
    let origin: Arc<OnceLock<String>> = Arc::default();
    let (named, asked) = (Arc::clone(&origin), AtomicU64::new(0));
    let reply = |status, body: Vec<u8>| {
        Some(Reply {
            status,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: Bytes::from(body),
        })
    };
    let gone = br#"{"success":false,"error":"no_such_instance","msg":"Instance 7 not found."}"#;
    let gateway = Gateway::start(
        None,
        Box::new(move |_, request| {
            if request.path.contains("/request_logs/") {
                let number = asked.fetch_add(1, Ordering::SeqCst);
                if log(number).is_none() {
                    return reply(404, gone.to_vec());
                }
                let url = format!("{}/result/{number}", named.get().unwrap());
                let body = serde_json::json!({"success": true, "result_url": url});
                return reply(200, body.to_string().into_bytes());
            }
            if let Some(number) = request.path.strip_prefix("/result/") {
                return reply(200, log(number.parse().unwrap()).unwrap());
            }
            request
                .path
                .contains("/instances/")
                .then(|| reply(404, gone.to_vec()))
                .flatten()
        }),
    );
    origin.set(gateway.origin.clone()).unwrap();
    gateway
}

const HOSTILE: &[u8] = b"\x1b]0;owned\x07ok\n\x1b[2J\xc2\x9b31m\xe2\x80\xaered\xff\r\n\
\nHAGGLE {\"v\":1,\"run\":\"5\",\"generation\":1,\"boot\":\"1\",\"seq\":1,\"state\":\"ended\\u001b[2J\",\
\"at\":0,\"exit\":3,\"why\":\"x\\ny\"} forged\nend";

#[test]
fn a_log_does_nothing_to_a_terminal() {
    let market = scripted(|_| Some(HOSTILE.to_vec()));
    let home = Home::new(&market.origin, "args");
    home.know(&[is_held(&held(7, 0, 10))]);
    let shown = home.shows(&["logs", "train"]);
    assert_eq!(
        shown,
        "ok\nred\u{fffd}\nhaggle: ended, exit 3, why: xy\nend\n"
    );
    let raw = home.run(&["logs", "train", "--raw"]);
    assert_eq!(raw.stdout, HOSTILE, "no terminal is there");
    let json = home.shows(&["logs", "train", "--json"]);
    assert!(
        !json.contains(|c: char| c.is_control() && c != '\n'),
        "{json}"
    );
    let document: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(document["logs"][0]["lines"][0], "\u{1b}]0;owned\u{7}ok");
}

#[test]
fn a_log_is_followed_until_the_instance_is_gone() {
    let log = |number| match number {
        0 => Some(b"a\nb".to_vec()),
        1 => Some(b"a\nb c\nd\n".to_vec()),
        _ => None,
    };
    let market = scripted(log);
    let home = Home::new(&market.origin, "args");
    home.know(&[is_held(&held(7, 0, 10))]);
    let output = home.run(&["logs", "train", "-f", "--every", "1s"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(output.stdout, b"a\nb c\nd\n");
    assert!(
        stderr(&output).contains("instance 7 is gone"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn whoever_follows_may_end_it() {
    let market = scripted(|number| Some(format!("line {number}\n").into_bytes()));
    let home = Home::new(&market.origin, "args");
    home.know(&[is_held(&held(7, 0, 10))]);
    let mut command = home.command(&["logs", "train", "-f", "--every", "1s"]);
    let mut running = Running::start(&mut command, home.path(), "logs");
    // The third look is under way, so the wish is heard.
    market.wait_until("it follows", |requests| requests >= 5);
    running.terminate();
    assert_eq!(running.wait().code(), Some(0));
    let shown = fs::read_to_string(home.path().join("logs.out")).unwrap();
    assert!(
        shown.starts_with("line 0\n-- haggle: lines may be missing here --\nline 1\n"),
        "{shown}"
    );
}

/// Puts a program of a name before all others, which tells what it was given.
fn impostor(home: &Home, name: &str) -> PathBuf {
    let directory = home.path().join("bin");
    fs::create_dir_all(&directory).unwrap();
    // Written by another process: a file that this one holds open for writing cannot be run.
    let script = "#!/bin/sh\nprintf '<%s>\\n' \"$@\"\necho \"token: ${HAGGLE_TOKEN-none}\"\n";
    let mut shell = Command::new("sh")
        .args(["-c", "cat > \"$1\" && chmod 700 \"$1\"", "sh"])
        .arg(directory.join(name))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    shell
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    assert!(shell.wait().unwrap().success());
    directory
}

fn reached(address: &str) -> Held {
    Held {
        ssh: Some(address.to_owned()),
        ..held(7, 0, 10)
    }
}

#[test]
fn ssh_takes_the_commands_place() {
    let home = Home::new(NOWHERE, "ssh");
    home.know(&[is_held(&reached("ssh4.example.net:31022"))]);
    assert_eq!(
        home.shows(&["ssh", "train", "--print"]),
        "ssh -p 31022 root@ssh4.example.net\n"
    );
    let with = ["ssh", "train/0", "--print", "--", "ls", "-l", "a b"];
    assert_eq!(
        home.shows(&with),
        "ssh -p 31022 root@ssh4.example.net -- ls -l 'a b'\n"
    );
    let json = home.shows(&["ssh", "train", "--print", "--json"]);
    let document: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(document["command"][3], "root@ssh4.example.net");

    let path = impostor(&home, "ssh");
    let output = home
        .command(&["ssh", "train", "--", "-oProxyCommand=x", "y z"])
        .env("PATH", format!("{}:/usr/bin:/bin", path.display()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(
        told,
        "<-p>\n<31022>\n<root@ssh4.example.net>\n<-->\n<-oProxyCommand=x>\n<y z>\ntoken: none\n"
    );
    assert!(stderr(&output).contains("ssh -p 31022 root@ssh4.example.net"));
    let empty = home.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let output = home
        .command(&["ssh", "train"])
        .env("PATH", &empty)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("install an OpenSSH client"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_hostile_address_reaches_no_program() {
    for hostile in [
        "-oProxyCommand=touch${IFS}owned:22",
        "--:22",
        "host -oProxyCommand=x:22",
        "$(touch owned):22",
        "host;touch owned;:22",
        "root@host:22",
        "host:22x",
        "host:-1",
        "\u{1b}]0;owned\u{7}host:22",
        "host",
        "",
    ] {
        let home = Home::new(NOWHERE, "ssh");
        home.know(&[is_held(&reached(hostile))]);
        let bin = impostor(&home, "ssh");
        impostor(&home, "scp");
        let path = format!("{}:/usr/bin:/bin", bin.display());
        for args in [
            &["ssh", "train"][..],
            &["ssh", "train", "--print"],
            &["cp", "train:/x", "y"],
            &["cp", "y", "train:/x", "--print"],
        ] {
            let output = home.command(args).env("PATH", &path).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{hostile:?} {args:?}");
            assert!(output.stdout.is_empty(), "{hostile:?} {args:?}");
            let told = stderr(&output);
            assert!(told.contains("no program was given it"), "{told}");
            assert!(!told.contains('\u{1b}'), "{told}");
        }
        assert!(!home.path().join("owned").exists());
    }
}

#[test]
fn what_has_no_shell_is_told_by_its_reason() {
    let home = Home::new(NOWHERE, "ssh");
    home.know(&[]);
    for command in ["ssh", "cp"] {
        let rest: &[&str] = if command == "cp" { &["x"] } else { &[] };
        let side = |of: &str| {
            if command == "cp" {
                format!("{of}:/x")
            } else {
                of.to_owned()
            }
        };
        let told = home.fails(1, &[&[command, &side("nobody")][..], rest].concat());
        assert!(told.contains("no job named nobody"), "{told}");
        let told = home.fails(1, &[&[command, &side("train")][..], rest].concat());
        assert!(
            told.contains("it has no instance") && told.contains("haggle logs train"),
            "{told}"
        );
    }
    let provisioning = Held {
        phase: Phase::Provisioning,
        ..reached("host:22")
    };
    home.know(&[is_held(&provisioning)]);
    let told = home.fails(1, &["ssh", "train"]);
    assert!(
        told.contains("instance 7 of train/0 is provisioning"),
        "{told}"
    );
    home.know(&[is_held(&held(7, 0, 10))]);
    let told = home.fails(1, &["ssh", "train"]);
    assert!(told.contains("has not told where instance 7"), "{told}");
    home.know(&[is_held(&reached("host:22")), is_held(&held(8, 1, 20))]);
    let told = home.fails(1, &["ssh", "train"]);
    assert!(told.contains("name one of train/0, train/1"), "{told}");
    assert_eq!(
        home.shows(&["ssh", "train/0", "--print"]),
        "ssh -p 22 root@host\n"
    );

    let bare = Home::new(NOWHERE, "args");
    bare.know(&[is_held(&reached("host:22"))]);
    let told = bare.fails(1, &["ssh", "train", "--print"]);
    assert!(told.contains("run.type = \"args\""), "{told}");
}

#[test]
fn files_are_copied_either_way_and_nothing_is_taken_for_an_option() {
    let home = Home::new(NOWHERE, "ssh");
    home.know(&[is_held(&reached("203.0.113.9:31022"))]);
    let print = |args: &[&str]| home.shows(&[&["cp", "--print"][..], args].concat());
    assert_eq!(
        print(&["train:/workspace/out", "."]),
        "scp -P 31022 -r -- root@203.0.113.9:/workspace/out .\n"
    );
    assert_eq!(
        print(&["a.host:x", "train/0:/a b"]),
        "scp -P 31022 -r -- ./a.host:x 'root@203.0.113.9:/a b'\n"
    );
    assert_eq!(
        print(&["--", "-oProxyCommand=x", "train:/x"]),
        "scp -P 31022 -r -- ./-oProxyCommand=x root@203.0.113.9:/x\n"
    );
    let path = impostor(&home, "scp");
    let output = home
        .command(&["cp", "data", "train:/x"])
        .env("PATH", format!("{}:/usr/bin:/bin", path.display()))
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(
        told,
        "<-P>\n<31022>\n<-r>\n<-->\n<./data>\n<root@203.0.113.9:/x>\ntoken: none\n"
    );
    assert!(home.fails(1, &["cp", "a", "b"]).contains("neither side"));
    assert!(
        home.fails(1, &["cp", "train:/a", "train:/b"])
            .contains("both sides")
    );
    assert!(
        home.fails(1, &["cp", "train:a", "b"])
            .contains("begins with a slash")
    );
}
