//! What ticks and events come to.

use std::collections::BTreeSet;

use chrono_tz::Tz;

use super::super::facts::{Ended, Rented, Used};
use super::*;
use crate::types::plan::Notice;

/// 2026-11-30 12:00 UTC.
const NOW: Time = Time(1_796_040_000_000);

fn replica() -> ReplicaId {
    ReplicaId {
        job: "train".parse().unwrap(),
        index: 0,
    }
}

fn tick(now: Time) -> Tick {
    let today = now.day(Tz::UTC);
    Tick {
        now,
        zone: Tz::UTC,
        credit: Some(Money::dollars(25)),
        burn: Rate(400_000_000),
        held: vec![Rented {
            id: InstanceId(7),
            replica: replica(),
            runs: true,
            parked: false,
            since: NOW,
            ends_at: None,
        }],
        orphans: Some(BTreeSet::new()),
        limits: vec![Used {
            limit: "per-day limit of the account on 2026-11-30".to_owned(),
            bound: Money::dollars(10),
            thousandths: 500,
        }],
        ended: BTreeMap::new(),
        notices: Vec::new(),
        idle: BTreeSet::new(),
        unused: BTreeSet::new(),
        outbid: BTreeSet::new(),
        yesterday: (today.pred_opt().unwrap(), BTreeMap::new()),
    }
}

fn kinds(messages: &[Message]) -> Vec<&str> {
    messages
        .iter()
        .map(|message| message.kind.as_str())
        .collect()
}

#[test]
fn a_quiet_day_comes_to_its_summary_and_nothing_else() {
    let mut rules = Rules::default();
    let messages = rules.tick(&tick(NOW));
    assert_eq!(kinds(&messages), [SUMMARY]);
    // The same all day long, so that it is told once; another one after midnight.
    let later = rules.tick(&tick(NOW + Duration::from_hours(11)));
    assert_eq!(messages[0].key, later[0].key);
    let next = rules.tick(&tick(NOW + Duration::from_hours(12)));
    assert_ne!(messages[0].key, next[0].key);
    assert_eq!(next[0].key, "summary 2026-11-30");
    // Days are those of the zone.
    let mut east = tick(NOW);
    east.zone = Tz::Pacific__Auckland;
    assert_eq!(NOW.day(east.zone).to_string(), "2026-12-01");
    let mut idle = tick(NOW);
    idle.held.clear();
    assert!(
        rules.tick(&idle).is_empty(),
        "nothing was spent and nothing is rented"
    );
}

#[test]
fn a_summary_says_what_the_day_cost_by_job() {
    let mut tick = tick(NOW);
    for n in 0..14 {
        let job = format!("job-{n:02}").parse().unwrap();
        tick.yesterday.1.insert(job, Money::dollars(n + 1));
    }
    let text = summary(&tick).unwrap().text;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "spent $105.00");
    assert_eq!(lines[1], "job-13: $14.00");
    assert_eq!(lines[11], "4 others: $10.00");
    assert_eq!(
        lines[12],
        "rented now: 1 instances, 1 of them at work, $0.4000/h"
    );
    assert_eq!(lines[13], "credit: $25.00");
}

#[test]
fn outbid_for_half_an_hour_is_long_and_told_of_one_time_each() {
    let mut rules = Rules::default();
    let at = |minutes| {
        let mut tick = tick(NOW + Duration::from_mins(minutes));
        tick.outbid = [replica()].into();
        tick.held[0].runs = false;
        tick
    };
    assert_eq!(kinds(&rules.tick(&at(29))), [SUMMARY]);
    let first = rules.tick(&at(30));
    assert_eq!(kinds(&first), [OUTBID_LONG, SUMMARY]);
    assert_eq!(first[0].replica, Some(replica()));
    // A process that began anew tells the same.
    let again = Rules::default().tick(&at(45));
    assert_eq!(again[0].key, first[0].key);
    // What it left on another disk, long ago, is not for how long it has been outbid.
    let mut left = at(20);
    left.held.push(Rented {
        parked: true,
        since: NOW - Duration::from_hours(9),
        ..left.held[0].clone()
    });
    assert_eq!(kinds(&Rules::default().tick(&left)), [SUMMARY]);
    // It ran in between: another time.
    rules.tick(&tick(NOW + Duration::from_mins(50)));
    let mut later = at(100);
    later.held[0].since = NOW + Duration::from_mins(60);
    assert_ne!(rules.tick(&later)[0].key, first[0].key);
}

#[test]
fn an_orphan_is_one_when_it_stays() {
    let mut rules = Rules::default();
    let seen = |minutes, orphans: Option<BTreeSet<InstanceId>>| Tick {
        orphans,
        ..tick(NOW + Duration::from_mins(minutes))
    };
    let one = Some([InstanceId(9)].into());
    assert_eq!(kinds(&rules.tick(&seen(0, one.clone()))), [SUMMARY]);
    // A listing that failed says nothing either way.
    assert_eq!(kinds(&rules.tick(&seen(10, None))), [SUMMARY]);
    let told = rules.tick(&seen(16, one.clone()));
    assert_eq!(kinds(&told), [ORPHAN, SUMMARY]);
    assert_eq!(
        (told[0].severity, told[0].instance),
        (Severity::Alarm, Some(InstanceId(9)))
    );
    rules.tick(&seen(17, Some(BTreeSet::new())));
    assert_eq!(kinds(&rules.tick(&seen(18, one))), [SUMMARY]);
}

#[test]
fn limits_rentals_and_credit_are_told_when_they_are_near() {
    let mut rules = Rules::default();
    let mut near = tick(NOW);
    near.limits[0].thousandths = 953;
    near.credit = Some(Money::ZERO);
    near.held[0].ends_at = Some(NOW + Duration::from_hours(20));
    let messages = rules.tick(&near);
    assert_eq!(
        kinds(&messages),
        [LIMIT_USED, CREDIT_LOW, RENTAL_ENDING, SUMMARY]
    );
    assert!(
        messages[0].text.contains("used to 95 %"),
        "{}",
        messages[0].text
    );
    assert!(
        messages[2].text.contains("ends in 20h00m"),
        "{}",
        messages[2].text
    );
    near.held[0].ends_at = Some(NOW + Duration::from_hours(30));
    near.credit = None;
    near.limits[0].thousandths = 899;
    assert_eq!(kinds(&rules.tick(&near)), [SUMMARY]);
}

#[test]
fn a_job_has_ended_when_all_of_it_has_and_that_is_one_thing() {
    let mut rules = Rules::default();
    let mut tick = tick(NOW);
    let ended = |minutes, ways: &[(&'static str, usize)]| Ended {
        at: NOW - Duration::from_mins(minutes),
        ways: ways.iter().copied().collect(),
    };
    let train: crate::types::ids::JobName = "train".parse().unwrap();
    let batch = ended(7, &[("failed", 1), ("finished", 3)]);
    tick.ended.insert("batch".parse().unwrap(), batch);
    tick.ended
        .insert(train.clone(), ended(5, &[("finished", 2)]));
    // Also where it had when this process began: it may be that nobody was told.
    let told = rules.tick(&tick);
    assert_eq!(kinds(&told), [JOB_ENDED, JOB_ENDED, SUMMARY]);
    assert_eq!(
        (told[0].severity, told[0].title.as_str()),
        (Severity::Alarm, "batch: failed")
    );
    assert!(
        told[0].text.contains("1 failed, 3 finished"),
        "{}",
        told[0].text
    );
    assert_eq!(
        (told[1].severity, told[1].title.as_str()),
        (Severity::Info, "train: done")
    );
    // Its policy is away for a while, and back: it is the same, as it is to another process.
    let ended_jobs = std::mem::take(&mut tick.ended);
    assert_eq!(kinds(&rules.tick(&tick)), [SUMMARY]);
    tick.ended = ended_jobs;
    tick.now = NOW + Duration::from_hours(1);
    for again in [rules.tick(&tick), Rules::default().tick(&tick)] {
        assert_eq!(again[0].key, told[0].key);
        assert_eq!(again[1].key, told[1].key);
    }
    // It was begun anew and ended again: another one. What ended long ago is none.
    tick.ended.insert(train, ended(1, &[("finished", 2)]));
    assert_ne!(rules.tick(&tick)[1].key, told[1].key);
    tick.now = NOW + Duration::from_hours(25);
    assert_eq!(kinds(&rules.tick(&tick)), [SUMMARY]);
}

fn notice(kind: &str, text: &str) -> Notice {
    Notice {
        severity: Severity::Alarm,
        kind: kind.to_owned(),
        replica: Some(replica()),
        text: text.to_owned(),
    }
}

#[test]
fn what_stands_is_one_thing_until_no_tick_has_shown_it_for_half_an_hour() {
    let mut rules = Rules::default();
    let lost = notice("host-lost", "the host of instance 7 is not heard from");
    let at = |minutes, notices: &[Notice]| Tick {
        notices: notices.to_vec(),
        ..tick(NOW + Duration::from_mins(minutes))
    };
    let shown = std::slice::from_ref(&lost);
    let key = |rules: &mut Rules, minutes| rules.tick(&at(minutes, shown))[0].key.clone();
    let first = key(&mut rules, 0);
    // What the daemon tells of it is the same.
    let told = Event {
        at: NOW + Duration::from_mins(1),
        severity: lost.severity,
        kind: lost.kind.clone(),
        replica: lost.replica.clone(),
        instance: None,
        text: lost.text.clone(),
    };
    assert_eq!(rules.event(&told).key, first);
    assert_eq!(key(&mut rules, 300), first, "however seldom ticks are");
    // Away for a moment, it is the same; for half an hour, it was over.
    for minutes in [301, 329] {
        assert_eq!(kinds(&rules.tick(&at(minutes, &[]))), [SUMMARY]);
    }
    assert_eq!(key(&mut rules, 330), first);
    rules.tick(&at(331, &[]));
    rules.tick(&at(361, &[]));
    let second = key(&mut rules, 362);
    assert_ne!(second, first);
    // Another host of the same replica is another thing.
    let other = notice("host-lost", "the host of instance 8 is not heard from");
    let both = rules.tick(&at(363, &[lost.clone(), other]));
    assert_eq!(both[0].key, second);
    assert_ne!(both[1].key, second);
    // A process that began anew, and knows what was told, goes on with it.
    let mut later = Rules::default();
    later.resume(vec![first, second.clone()], NOW + Duration::from_mins(364));
    assert_eq!(key(&mut later, 365), second);
}

#[test]
fn what_cannot_be_seen_is_not_over() {
    let mut rules = Rules::default();
    let at = |minutes, orphans: Option<&[u64]>, credit: Option<i64>| Tick {
        orphans: orphans.map(|ids| ids.iter().map(|&id| InstanceId(id)).collect()),
        credit: credit.map(Money::dollars),
        ..tick(NOW + Duration::from_mins(minutes))
    };
    rules.tick(&at(0, Some(&[9]), Some(0)));
    let first = rules.tick(&at(20, Some(&[9]), Some(0)));
    assert_eq!(kinds(&first), [ORPHAN, CREDIT_LOW, SUMMARY]);
    for minutes in [30, 90] {
        assert_eq!(kinds(&rules.tick(&at(minutes, None, None))), [SUMMARY]);
    }
    let again = rules.tick(&at(91, Some(&[9]), Some(0)));
    assert_eq!(
        (&again[0].key, &again[1].key),
        (&first[0].key, &first[1].key)
    );
    // And what is seen not to be, is.
    for minutes in [92, 130] {
        rules.tick(&at(minutes, Some(&[]), Some(5)));
    }
    rules.tick(&at(131, Some(&[9]), Some(0)));
    let back = rules.tick(&at(150, Some(&[9]), Some(0)));
    assert_ne!(back[0].key, first[0].key);
    assert_ne!(back[1].key, first[1].key);
}

#[test]
fn what_ticks_show_without_a_message_is_over_when_they_do_not() {
    let mut rules = Rules::default();
    let idle = |minutes| Event {
        at: NOW + Duration::from_mins(minutes),
        severity: Severity::Warning,
        kind: "idle-billing".to_owned(),
        replica: Some(replica()),
        instance: Some(InstanceId(7)),
        text: "it stands still".to_owned(),
    };
    let at = |minutes, ids: &[u64]| Tick {
        idle: ids.iter().map(|&id| InstanceId(id)).collect(),
        ..tick(NOW + Duration::from_mins(minutes))
    };
    let first = rules.event(&idle(0)).key;
    rules.tick(&at(600, &[7]));
    assert_eq!(rules.event(&idle(601)).key, first);
    rules.tick(&at(602, &[8]));
    rules.tick(&at(640, &[8]));
    assert_ne!(rules.event(&idle(700)).key, first);
}

#[test]
fn a_key_has_the_job_the_price_and_the_bound_that_it_is_of() {
    let mut rules = Rules::default();
    let mut key = |minutes, kind: &str, text: &str| {
        let event = Event {
            at: NOW + Duration::from_mins(minutes),
            severity: Severity::Warning,
            kind: kind.to_owned(),
            replica: None,
            instance: (kind == "price-increase").then_some(InstanceId(7)),
            text: text.to_owned(),
        };
        rules.event(&event).key
    };
    let fails = "the storage of job train cannot be used: no answer";
    let first = key(0, "storage-failed", fails);
    assert_ne!(
        key(1, "storage-failed", &fails.replace("train", "batch")),
        first
    );
    assert_ne!(
        key(
            1,
            "storage-failed",
            "nothing is rented for train/0: no object"
        ),
        first
    );
    // It is told each hour while it lasts. Not told for long, it was over.
    assert_eq!(key(61, "storage-failed", fails), first);
    assert_eq!(key(200, "storage-failed", fails), first);
    assert_ne!(key(200 + 180, "storage-failed", fails), first);
    let asks = "the host of instance 7 asks for $0.5000/h instead of $0.4000/h; it is not accepted";
    let once = key(0, "price-increase", asks);
    assert_ne!(key(1, "price-increase", &asks.replace("0.5", "0.6")), once);
    // These are the words of the rooms that tell.
    let data = include_str!("../daemon/data.rs");
    let events = include_str!("../daemon/events.rs");
    let replica = include_str!("../engine/replica.rs");
    for (room, words) in [
        (data, "the storage of job {} cannot be used"),
        (data, "nothing is rented for {replica}: "),
        (events, "the host of instance {} asks for {} instead"),
        (replica, "the host of instance {} has not been heard from"),
    ] {
        assert!(room.contains(words), "{words}");
    }

    let mut near = tick(NOW);
    near.limits[0].thousandths = 950;
    let first = rules.tick(&near)[0].key.clone();
    assert_eq!(rules.tick(&near)[0].key, first);
    near.limits[0].bound = Money::dollars(20);
    assert_ne!(rules.tick(&near)[0].key, first);
}

#[test]
fn the_daemons_own_end_says_what_goes_on() {
    let mut rules = Rules::default();
    let end = rules.ended(Some("spending stops: the disk is full"), NOW);
    assert_eq!(
        (end.severity, end.kind()),
        (Severity::Alarm, kind_of(DAEMON_ENDED))
    );
    rules.tick(&tick(NOW));
    let end = rules.ended(Some("spending stops: the disk is full"), NOW);
    assert!(end.text.contains("the disk is full\n"), "{}", end.text);
    assert!(
        end.text.contains("1 instances at the last tick, $0.4000/h"),
        "{}",
        end.text
    );
    let asked = rules.ended(None, NOW);
    assert_eq!(asked.severity, Severity::Info);
    assert!(asked.text.contains("haggle kill"), "{}", asked.text);
}

#[test]
fn an_event_is_a_message_of_its_own_kind() {
    let event = |kind: &str, minutes| Event {
        at: NOW + Duration::from_mins(minutes),
        severity: Severity::Warning,
        kind: kind.to_owned(),
        replica: Some(replica()),
        instance: Some(InstanceId(7)),
        text: "city \u{1b}[31m<script>\nBcc: x".to_owned(),
    };
    let mut rules = Rules::default();
    let lost = rules.event(&event("lost", 0));
    assert_eq!(
        (lost.kind.as_str(), lost.title.as_str()),
        ("lost", "train/0: lost")
    );
    assert_eq!(
        (lost.job, lost.instance),
        (Some("train".parse().unwrap()), Some(InstanceId(7)))
    );
    assert!(!lost.text.contains('\u{1b}'), "{}", lost.text);
    // It happens again, and that is another one; what stands is the same.
    assert_ne!(lost.key, rules.event(&event("lost", 5)).key);
    let near = rules.event(&event("limit-near-job-total-train", 0));
    assert_eq!(near.kind, "limit-near");
    assert_eq!(
        near.key,
        rules.event(&event("limit-near-job-total-train", 5)).key
    );
    assert_ne!(
        near.key,
        rules.event(&event("limit-near-job-total-batch", 5)).key
    );
    assert_eq!(rules.event(&event("limit-near-credit", 0)).kind, CREDIT_LOW);
}
