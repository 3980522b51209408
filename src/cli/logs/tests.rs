//! How a log is shown, which attempt is meant, and how one is followed.

use std::collections::BTreeMap;
use std::sync::Mutex;

use expect_test::expect;
use secrecy::SecretString;

use super::attempts::choose;
use super::*;
use crate::clock::SimClock;
use crate::logbook::{Attempt, Kept};
use crate::marketplace::redact::Redactor;
use crate::marketplace::testing::{Scripted, run};
use crate::marketplace::vast::{Vast, VastOptions};
use crate::ports::{Clock, Transport};
use crate::store::Ended;
use crate::types::ids::{Installation, IntentId, ReplicaId};
use crate::types::instance::Held;
use crate::types::time::Time;

fn show_all(style: Style, pieces: &[&[u8]]) -> String {
    let redactor = Arc::new(Redactor::new("at_nobody_sees_this"));
    let mut shown = Shown::new(style, known_secrets(&redactor));
    let mut text = Vec::new();
    for piece in pieces {
        shown.take(piece);
        text.extend(shown.ready());
    }
    shown.finish();
    text.extend(shown.ready());
    String::from_utf8(text).unwrap()
}

const TOLD: &str = r#"{"v":1,"run":"5","generation":3,"boot":"7.1","seq":2,"state":"running","at":1795478400,"progress":0.5,"checkpoint":{"slot":1,"manifest":"ab","bytes":10},"exit":null}"#;
const ENDED: &str = r#"{"v":1,"run":"5","generation":3,"boot":"7.1","seq":3,"state":"ended","at":0,"progress":null,"checkpoint":{"slot":1,"manifest":"ab","bytes":10},"exit":137,"why":"a\u001b[2J\nb"}"#;

#[test]
fn lines_of_the_runner_are_short_and_a_terminal_obeys_none() {
    let log = format!(
        "start\n\nHAGGLE {TOLD} sig\n\u{1b}[1;32mgreen\u{1b}[0m\tand \u{9b}31mred\n\n\nbar 1%\rbar 2%\r\nx\u{7}\u{8}\n\
         \u{1b}]0;title\u{7}after\u{1b}]8;;http://x\u{1b}\\link\n\u{202e}left\u{1b}c\n\nHAGGLE {ENDED} sig\nHAGGLE none\nat_nobody_sees_this\nlast"
    );
    expect![[r"
        start
        haggle: 2026-11-24T00:00:00Z running, progress 0.5, checkpoint of 10 bytes kept
        green	and red


        bar 2%
        x
        afterlink
        leftc
        haggle: ended, exit 137 (signal 9), why: ab
        HAGGLE none
        [redacted]
        last
    "]]
    .assert_eq(&show_all(Style::Short, &[log.as_bytes()]));
    // However it is cut to pieces.
    let bytes: Vec<&[u8]> = log.as_bytes().chunks(3).collect();
    assert_eq!(
        show_all(Style::Short, &bytes),
        show_all(Style::Short, &[log.as_bytes()])
    );
    let plain = show_all(Style::Plain, &[log.as_bytes()]);
    assert!(
        plain.contains(&format!("\n\nHAGGLE {TOLD} sig\n")),
        "{plain}"
    );
    assert!(!plain.contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
    assert_eq!(show_all(Style::Untouched, &bytes), log);
}

#[test]
fn what_is_no_text_and_sequences_without_an_end_are_shown_as_far_as_they_can_be() {
    let shown = show_all(
        Style::Short,
        &[b"a\xff\xfeb\n\x1b[\n\x1b\n\x1b]0;x\n\x1b[1;\xc3\xa9\n\n"],
    );
    assert_eq!(shown, "a\u{fffd}\u{fffd}b\n\n\n0;x\n\u{e9}\n\n");
}

#[test]
fn the_last_lines_are_counted_by_line_feeds() {
    for (text, lines, expected) in [
        ("a\nb\nc\n", 1, "c\n"),
        ("a\nb\nc", 2, "b\nc"),
        ("a\nb\nc\n", 9, "a\nb\nc\n"),
        ("a\r1\r2\nb\n", 2, "a\r1\r2\nb\n"),
        ("\n\n", 1, "\n"),
        ("", 1, ""),
    ] {
        assert_eq!(last_lines(text.as_bytes(), lines), expected.as_bytes());
    }
}

fn held(id: u64, index: u32, intent: u64) -> Held {
    let replica = ReplicaId {
        job: "train".parse().unwrap(),
        index,
    };
    Held::new(InstanceId(id), IntentId(intent), replica, Time(0))
}

#[test]
fn attempts_are_counted_from_the_newest_whatever_is_known_of_them() {
    let mut state = State::new(Installation::from_seed(1));
    state.held.insert(InstanceId(9), held(9, 1, 50));
    let ended = |held: Held| Ended {
        at: Time(1000),
        held,
    };
    let kept = |held: Held, bytes| Kept {
        attempt: Attempt::of(&held),
        bytes,
        written: None,
    };
    let all = |of: &str| {
        known(
            &of.parse().unwrap(),
            &state,
            vec![ended(held(8, 0, 40)), ended(held(3, 0, 20))],
            vec![
                kept(held(2, 0, 10), 5),
                kept(held(8, 0, 40), 5),
                kept(held(9, 1, 50), 0),
            ],
        )
    };
    let chosen = |of: &str, choice| {
        let chosen = choose(&of.parse().unwrap(), choice, all(of))?;
        Ok::<_, Failure>(
            chosen
                .iter()
                .map(|(number, known)| (*number, known.attempt.instance.0))
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(chosen("train", Choice::Newest).unwrap(), [(1, 9)]);
    assert_eq!(chosen("train/0", Choice::Newest).unwrap(), [(1, 8)]);
    assert_eq!(chosen("train/0", Choice::Number(2)).unwrap(), [(2, 3)]);
    // Nothing was kept of the third.
    assert_eq!(
        chosen("train", Choice::All).unwrap(),
        [(4, 2), (2, 8), (1, 9)]
    );
    assert_eq!(
        chosen("train", Choice::Instance(InstanceId(2))).unwrap(),
        [(4, 2)]
    );
    let told = all("train")[1].told(2, &state);
    assert_eq!(
        told,
        "train/0, attempt 2, instance 8, gone since 1970-01-01T00:00:01Z"
    );
    assert!(
        all("train")[0]
            .told(1, &state)
            .ends_with("instance 9, provisioning")
    );
    for (of, choice, says) in [
        ("train/2", Choice::Newest, "train/2 never ran"),
        ("train", Choice::Number(5), "4 the oldest that is known"),
        ("train/1", Choice::Number(2), "1 the oldest that is known"),
        (
            "train/0",
            Choice::Instance(InstanceId(9)),
            "known on instance 9",
        ),
    ] {
        let told = chosen(of, choice).unwrap_err();
        assert!(told.to_string().contains(says), "{told}");
        assert_eq!(told.exit(), Exit::Mendable);
    }
}

/// A marketplace that answers from a script, in virtual time.
struct Rig {
    script: Arc<Scripted>,
    clock: Arc<SimClock>,
    written: Mutex<Vec<(u64, String)>>,
    notes: Mutex<Vec<String>>,
}

const START: Time = Time(1_795_478_400_000);
const GONE: &str = r#"{"success":false,"error":"no_such_instance","msg":"Instance 7 not found."}"#;

impl Rig {
    fn new() -> Self {
        Self {
            script: Arc::default(),
            clock: Arc::new(SimClock::new(START)),
            written: Mutex::default(),
            notes: Mutex::default(),
        }
    }

    /// A log that can be read.
    fn shows(&self, log: &str) -> &Self {
        self.script
            .reply(
                200,
                r#"{"success":true,"result_url":"https://logs.example/7"}"#,
            )
            .elsewhere(Ok((200, log.to_owned())));
        self
    }

    fn follow(&self, seen: &str, readers: usize) -> Result<End, Failure> {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let transport: Arc<dyn Transport> = self.script.clone();
        let options = VastOptions {
            read_retries: 0,
            ..VastOptions::new(SecretString::from("key"))
        };
        let marketplace = Vast::new(transport, clock, options, &BTreeMap::new());
        let follow = Follow {
            clock: &*self.clock,
            marketplace: &marketplace,
            instance: InstanceId(7),
            every: Duration::from_secs(10),
            lines: 1000,
        };
        let write = |new: &[u8]| {
            let mut written = self.written.lock().unwrap();
            let after = self.clock.now().since(START).as_secs();
            written.push((after, String::from_utf8(new.to_vec()).unwrap()));
            Ok(written.len() < readers)
        };
        let note = |text: &str| self.notes.lock().unwrap().push(text.to_owned());
        run(follow.run(
            seen.as_bytes().to_vec(),
            std::future::pending(),
            write,
            note,
        ))
    }

    fn written(&self) -> Vec<(u64, String)> {
        self.written.lock().unwrap().clone()
    }
}

#[test]
fn a_log_is_followed_until_its_instance_is_gone() {
    let rig = Rig::new();
    rig.shows("a\nb\nc");
    // The marketplace asks for patience, then fails, and the log goes on where it was.
    rig.script.headed(429, ("retry-after", "40"), "{}");
    rig.script.reply(500, "{}").reply(500, "{}");
    rig.shows("b\nc d\n").shows("far\nfrom it\n");
    rig.script.reply(404, GONE).reply(404, GONE);
    assert_eq!(rig.follow("a\nb\n", 100).unwrap(), End::Gone);
    let written = rig.written();
    let texts: Vec<&str> = written.iter().map(|(_, text)| text.as_str()).collect();
    let missing = format!("{}\nfar\nfrom it\n", crate::logbook::MISSING);
    assert_eq!(texts, ["c", " d\n", missing.as_str()]);
    let times: Vec<u64> = written.iter().map(|(after, _)| *after).collect();
    assert!(times[0] == 10 && (70..75).contains(&times[1]), "{times:?}");
    assert_eq!(rig.notes.lock().unwrap().len(), 1);
    assert_eq!(rig.script.left(), 0);
    assert!(
        rig.script
            .bodies()
            .iter()
            .any(|body| body["tail"] == "1000")
    );
}

#[test]
fn a_log_that_outlives_its_instance_is_not_followed_for_ever() {
    let rig = Rig::new();
    for look in 1..=6 {
        rig.shows(&format!("line {look}\n"));
    }
    rig.script.reply(404, GONE);
    assert_eq!(rig.follow("", 100).unwrap(), End::Gone);
    assert_eq!(rig.written().len(), 6, "what it wrote last is shown");
    assert_eq!(rig.script.left(), 0);
}

#[test]
fn what_does_not_pass_ends_it_and_so_does_a_reader_that_left() {
    let rig = Rig::new();
    rig.script.reply(
        401,
        r#"{"success":false,"error":"auth_error","msg":"Invalid key."}"#,
    );
    assert_eq!(rig.follow("", 100).unwrap_err().exit(), Exit::Mendable);

    let rig = Rig::new();
    for _ in 0..30 {
        rig.script.reply(500, "{}").reply(500, "{}");
    }
    let failure = rig.follow("", 100).unwrap_err();
    assert_eq!(failure.exit(), Exit::World);
    assert_eq!((rig.script.left(), rig.notes.lock().unwrap().len()), (0, 1));

    let rig = Rig::new();
    rig.shows("a\n").shows("a\nb\n");
    assert_eq!(rig.follow("", 2).unwrap(), End::Enough);
    assert_eq!(rig.written().len(), 2);
}

#[test]
fn a_wait_is_within_bounds() {
    assert_eq!(every("10s"), Ok(Duration::from_secs(10)));
    for bad in ["0s", "999ms", "61m", "x", ""] {
        assert!(every(bad).is_err(), "{bad}");
    }
}
