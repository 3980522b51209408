use std::sync::Arc;
use std::time::Duration;

use expect_test::expect;

use super::*;
use crate::policy;
use crate::types::ids::{Installation, InstanceId, IntentId, MachineId, ReplicaId, Slot};
use crate::types::instance::{Held, Phase, Rental};
use crate::types::job::Job;
use crate::types::money::Rate;
use crate::types::plan::{JobReport, Plan, ReplicaReport, Report, Situation};
use crate::types::state::State;
use crate::types::world::EngineConfig;
use crate::view::board::{BrokenDocument, Seen, board};
use crate::view::limits;

const NOW: Time = Time(1_800_000_000_000); // 2027-01-15 08:00 UTC

fn job(name: &str) -> Arc<Job> {
    let text = format!(
        "name = \"{name}\"\nrental = \"interruptible\"\n[run]\nimage = \"a/b:c\"\n[gpu]\nmodels = [\"RTX 4090\"]\n\
         [machine]\ndisk = \"16GB\"\n[price]\nmax = \"$0.80/gpu-hour\"\n[budget]\ntotal = \"$4\"\n\
         [work]\ngpu_hours = 6\n[data]\ndisposable = true\n"
    );
    Arc::new(policy::parse("job.toml", &text).unwrap())
}

fn held(id: u64, name: &str, gpu: &str) -> Held {
    let replica = ReplicaId {
        job: name.parse().unwrap(),
        index: 0,
    };
    let mut held = Held::new(InstanceId(id), IntentId(id), replica, NOW);
    held.slot = Slot {
        machine: MachineId(4821),
        gpus: 2,
    };
    held.gpu_name = gpu.to_owned();
    held.phase = Phase::Running;
    held.rental = Rental::Bid;
    held.price = Rate(400_000_000);
    held.storage = Rate(2_000_000);
    held
}

/// What a world of these names, GPUs and texts looks like.
struct Sample {
    board: BoardDocument,
    events: Vec<Event>,
}

fn sample(names: &[&str], gpu: &str, text: &str) -> Sample {
    let mut state = State::new(Installation::from_seed(1));
    let jobs: Vec<Arc<Job>> = names.iter().map(|name| job(name)).collect();
    let first = names[0];
    for id in 0..names.len() as u64 {
        let one = held(9000 + id, names[id as usize], gpu);
        state.held.insert(one.id, one);
    }
    let events: Vec<Event> = (0..9)
        .map(|minute| Event {
            at: Time(NOW.0 - minute * 60_000),
            severity: [Severity::Info, Severity::Warning, Severity::Alarm][minute as usize % 3],
            kind: "outbid".to_owned(),
            replica: Some(held(1, first, gpu).replica),
            instance: None,
            text: text.to_owned(),
        })
        .collect();
    let all: Vec<&Job> = jobs.iter().map(|job| &**job).collect();
    let engine = EngineConfig::default();
    let reports = names.iter().map(|name| JobReport {
        job: name.parse().unwrap(),
        replicas: vec![ReplicaReport {
            replica: held(1, name, gpu).replica,
            situation: Situation::Running,
            recourses: Vec::new(),
            deadline: None,
        }],
        eligible: 3,
        best: Vec::new(),
        refused: std::collections::BTreeMap::new(),
        best_refused: Vec::new(),
        on_demand_best: None,
    });
    let report = Report {
        limits: limits::known(NOW, &engine, &all, &state),
        jobs: reports.collect(),
        ..Report::default()
    };
    let broken = [BrokenDocument {
        file: format!("policies/{text}.toml"),
        job: None,
        message: "line 1: no".to_owned(),
    }];
    let (board, _) = board(&Seen {
        version: 0,
        now: NOW,
        live: true,
        changes_allowed: false,
        config: &engine,
        state: &state,
        jobs: &jobs,
        broken: &broken,
        plan: &Plan::default(),
        report: &report,
        was_decided: true,
        credit: Some(Money::dollars(42)),
        next_tick: Duration::ZERO,
        trouble: Vec::new(),
        news: Vec::new(),
    });
    Sample { board, events }
}

impl Sample {
    fn lines(&self, columns: usize, rows: usize) -> Vec<Line> {
        let scene = Scene {
            board: &self.board,
            events: &self.events,
            now: NOW,
            zone: Tz::UTC,
            pulse: (Tone::Good, "tick 4711, 12s ago"),
            trouble: None,
        };
        frame(&scene, Size { columns, rows })
    }

    fn shown(&self, columns: usize, rows: usize) -> String {
        painted(&self.lines(columns, rows), false)
    }
}

fn width(line: &str) -> usize {
    line.chars().map(|c| c.width().unwrap_or(1)).sum()
}

/// That a frame does nothing to a terminal, and stays within it.
fn fits(sample: &Sample, columns: usize, rows: usize) {
    let shown = sample.shown(columns, rows);
    assert!(!shown.contains(|c| is_obeyed(c) && c != '\n'), "{shown:?}");
    let lines: Vec<&str> = shown.split('\n').collect();
    assert_eq!(lines.len(), rows, "{columns}x{rows}:\n{shown}");
    for line in lines {
        assert!(width(line) <= columns, "{columns}x{rows}: {line:?}");
    }
    assert!(
        shown.ends_with('q') || shown.contains("q quit") || columns < 6,
        "{shown}"
    );
}

#[test]
fn a_frame_of_80_by_24() {
    let sample = sample(
        &["train", "serve"],
        "RTX 4090",
        "outbid: the floor is at $0.41/h",
    );
    expect![[r"
        08:00 haggle live  tick 4711, 12s ago  no account yet
        cannot be used: policies/outbid: the floor is at $0.41/h.toml; `haggle check`
        credit $42.00  burn $0.8040/h  lasts 2d02h  today $0.00  month $0.00
        at worst $0.8040/h  saved $0.00
        [..........]   6 % of number of instances of the account
        [..........]   0 % of total limit of job serve
        [..........]   0 % of total limit of job train
        JOBS 2            STATE                                   WORK    SPENT    NOW/H
        train             running on machine 4821 (2× RTX 4090)…   0 %    $0.00  $0.4020
        serve             running on machine 4821 (2× RTX 4090)…   0 %    $0.00  $0.4020
        INSTANCES 2       STATE                                           SPENT    NOW/H
        9000 train/0      running, 2× RTX 4090 on machine 4821,…          $0.00  $0.4020
        9001 serve/0      running, 2× RTX 4090 on machine 4821,…          $0.00  $0.4020
        WHAT HAPPENED
        08:00 train/0: outbid: the floor is at $0.41/h
        07:59 train/0: outbid: the floor is at $0.41/h
        07:58 train/0: outbid: the floor is at $0.41/h
        07:57 train/0: outbid: the floor is at $0.41/h
        07:56 train/0: outbid: the floor is at $0.41/h
        07:55 train/0: outbid: the floor is at $0.41/h
        07:54 train/0: outbid: the floor is at $0.41/h
        07:53 train/0: outbid: the floor is at $0.41/h
        07:52 train/0: outbid: the floor is at $0.41/h
        q quits"]]
    .assert_eq(&sample.shown(80, 24));
    fits(&sample, 80, 24);
}

#[test]
fn a_frame_of_40_by_12() {
    let sample = sample(
        &["train", "serve"],
        "RTX 4090",
        "outbid: the floor is at $0.41/h",
    );
    expect![[r"
        08:00 haggle live  tick 4711, 12s ago  …
        cannot be used: policies/outbid: the fl…
        credit $42.00  burn $0.8040/h
        lasts 2d02h  today $0.00  month $0.00
        [..........]   6 % of number of instanc…
        JOBS 2        STATE
        train         running on machine 4821 (…
        INSTANCES 2   STATE
        9000 train/0  running, 2× RTX 4090 on m…
        WHAT HAPPENED
        08:00 train/0: outbid: the floor is at …
        q quits"]]
    .assert_eq(&sample.shown(40, 12));
    fits(&sample, 40, 12);
}

#[test]
fn hostile_and_endless_texts_stay_in_their_columns_at_every_size() {
    let long = "a".repeat(40);
    let wide = "\u{6f22}".repeat(300);
    let marks = format!("e{}", "\u{301}".repeat(5000));
    let texts = [
        "\u{1b}[2J\u{1b}]0;owned\u{7}\r\nline\ttab\u{9b}31m\u{202e}reversed",
        wide.as_str(),
        marks.as_str(),
        "",
    ];
    for text in texts {
        let sample = sample(&[&long, "b"], text, text);
        for (columns, rows) in [
            (80, 24),
            (40, 12),
            (200, 60),
            (60, 5),
            (20, 3),
            (5, 2),
            (1, 1),
        ] {
            fits(&sample, columns, rows);
        }
    }
}

#[test]
fn what_there_is_no_room_for_is_counted() {
    let names: Vec<String> = (0..40).map(|index| format!("job{index:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let sample = sample(&names, "RTX 4090", "x");
    let shown = sample.shown(80, 24);
    assert!(shown.contains("JOBS 40"), "{shown}");
    assert!(shown.contains("more: `haggle jobs`"), "{shown}");
    assert!(shown.contains("more: `haggle instances`"), "{shown}");
    let jobs = shown.lines().filter(|line| line.starts_with("job")).count();
    let left_out = shown.lines().find(|line| line.contains("`haggle jobs`"));
    let count = format!("and {} more", 40 - jobs);
    assert!(left_out.unwrap().contains(&count), "{shown}");
    fits(&sample, 80, 24);
}

#[test]
fn colours_are_there_only_where_they_are_welcome_and_never_alone() {
    let sample = sample(&["train"], "RTX 4090", "x");
    let lines = sample.lines(80, 24);
    let (plain, styled) = (painted(&lines, false), painted(&lines, true));
    assert!(!plain.contains('\u{1b}'));
    assert!(
        styled.contains("\u{1b}[32mrunning on machine 4821"),
        "{styled}"
    );
    let codes = regex::Regex::new("\u{1b}\\[[0-9]*m").unwrap();
    let stripped = codes.replace_all(&styled, "");
    let trimmed = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    };
    assert_eq!(trimmed(&stripped), trimmed(&plain));
}

#[test]
fn rooms_are_shared_by_need() {
    assert_eq!(shared(21, [40, 40, 40]), [Some(6); 3]);
    assert_eq!(shared(21, [2, 1, 40]), [Some(2), Some(1), Some(15)]);
    assert_eq!(shared(21, [0, 0, 2]), [Some(0), Some(0), Some(2)]);
    assert_eq!(shared(5, [9, 9, 9]), [Some(2), Some(1), None]);
    assert_eq!(shared(1, [9, 9, 9]), [None; 3]);
    assert_eq!(shared(0, [9, 9, 9]), [None; 3]);
}

#[test]
fn a_text_is_cut_where_its_columns_end() {
    assert_eq!(fitted("four", 4), ("four".to_owned(), 4));
    assert_eq!(fitted("fiver", 4), ("fiv\u{2026}".to_owned(), 4));
    assert_eq!(
        fitted("\u{6f22}\u{6f22}\u{6f22}", 4),
        ("\u{6f22}\u{2026}".to_owned(), 3)
    );
    assert_eq!(fitted("x", 0), (String::new(), 0));
    assert_eq!(fitted("a\u{1b}b", 9), ("a\u{fffd}b".to_owned(), 3));
}
