//! What ticks and events come to.

use std::collections::BTreeSet;

use chrono_tz::Tz;

use super::super::facts::Rented;
use super::*;
use crate::types::money::Rate;

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
            since: NOW,
            ends_at: None,
        }],
        orphans: Some(BTreeSet::new()),
        limits: vec![("per-day limit of the account on 2026-11-30".to_owned(), 500)],
        ended: BTreeMap::new(),
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
    near.limits[0].1 = 953;
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
    near.limits[0].1 = 899;
    assert_eq!(kinds(&rules.tick(&near)), [SUMMARY]);
}

#[test]
fn a_job_has_ended_when_all_of_it_has_and_that_is_news_once() {
    let mut rules = Rules::default();
    let mut ended = tick(NOW);
    ended
        .ended
        .insert("train".parse().unwrap(), [("finished", 2)].into());
    // It had when this process began.
    assert_eq!(kinds(&rules.tick(&ended)), [SUMMARY]);
    rules.tick(&tick(NOW));
    ended.ended.insert(
        "batch".parse().unwrap(),
        [("failed", 1), ("finished", 3)].into(),
    );
    let told = rules.tick(&ended);
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
    assert_eq!(kinds(&rules.tick(&ended)), [SUMMARY]);
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
    let lost = Rules::event(&event("lost", 0));
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
    assert_ne!(lost.key, Rules::event(&event("lost", 5)).key);
    let near = Rules::event(&event("limit-near-job-total-train", 0));
    assert_eq!(near.kind, "limit-near");
    assert_eq!(
        near.key,
        Rules::event(&event("limit-near-job-total-train", 5)).key
    );
    assert_ne!(
        near.key,
        Rules::event(&event("limit-near-job-total-batch", 5)).key
    );
    assert_eq!(
        Rules::event(&event("limit-near-credit", 0)).kind,
        CREDIT_LOW
    );
}
