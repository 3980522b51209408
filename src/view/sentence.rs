//! What a job does and waits for, said in a sentence with the time by the user's clock.

use chrono::Datelike;
use chrono_tz::Tz;
use serde::Serialize;
use utoipa::ToSchema;

use super::jobs::held_word;
use super::plan::{DeadlineDocument, deadline_document};
use super::rented::Rented;
use super::words;
use crate::types::deadline::DeadlineView;
use crate::types::instance::{Held, Rental};
use crate::types::plan::{JobReport, ReplicaReport, Situation};
use crate::types::state::Ending;
use crate::types::time::Time;

/// How a state is to be taken, for a colour that never stands alone: the sentence says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Tone {
    /// Somebody has to look.
    Bad,
    /// Something holds it up.
    Warn,
    /// It waits as it should.
    Wait,
    /// It works.
    Good,
    /// It is over, or the user wants it down.
    Rest,
}

/// One replica, or several beside each other that rest alike, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Sentence {
    /// Which: `train/0`, or `train/3 to 17`.
    pub(crate) replicas: String,
    /// How many.
    pub(crate) count: usize,
    /// How it is to be taken.
    pub(crate) tone: Tone,
    /// What it does and waits for.
    pub(crate) text: String,
}

/// A moment by the clock in a zone: `14:20` today, else with the day.
pub(crate) fn clock(at: Time, now: Time, zone: Tz) -> String {
    let local = at.utc().with_timezone(&zone);
    let days = (at.day(zone).num_days_from_ce() - now.day(zone).num_days_from_ce()).abs();
    let form = match days {
        0 => "%H:%M",
        1..=6 => "%a %H:%M",
        _ => "%Y-%m-%d %H:%M",
    };
    local.format(form).to_string()
}

/// The sentences of a job's replicas, those that rest alike together.
pub(crate) fn sentences(
    report: &JobReport,
    rented: &Rented<'_>,
    (now, zone): (Time, Tz),
) -> Vec<Sentence> {
    let groups = report.grouped();
    let say = |(first, last): (&ReplicaReport, &ReplicaReport)| {
        let held = rented.of_replica(&first.replica).last().copied();
        let replicas = if first.replica == last.replica {
            first.replica.to_string()
        } else {
            format!("{} to {}", first.replica, last.replica.index)
        };
        let between = last.replica.index.saturating_sub(first.replica.index);
        Sentence {
            replicas,
            count: between as usize + 1,
            tone: tone(&first.situation),
            text: sentence(&first.situation, held, (now, zone)),
        }
    };
    groups.into_iter().map(say).collect()
}

/// How a situation is to be taken.
pub(crate) fn tone(situation: &Situation) -> Tone {
    match situation {
        Situation::Running => Tone::Good,
        Situation::Provisioning { .. }
        | Situation::Settling
        | Situation::Renting
        | Situation::Clearing
        | Situation::Bringing { .. }
        | Situation::Queued
        | Situation::WindowClosed { opens: Some(_) } => Tone::Wait,
        Situation::Outbid { .. }
        | Situation::ParkedByOthers { .. }
        | Situation::NoOffer
        | Situation::WaitsForInputs { .. }
        | Situation::OverLimit { .. }
        | Situation::Blind { .. }
        | Situation::BackingOff { .. }
        | Situation::HeldBack => Tone::Warn,
        Situation::CannotStart { .. }
        | Situation::WaitsForSecrets { .. }
        | Situation::SourceAway { .. }
        | Situation::NotCopied { .. }
        | Situation::Killed
        | Situation::Ended {
            ending: Ending::Failed,
        } => Tone::Bad,
        Situation::WindowClosed { opens: None }
        | Situation::Paused
        | Situation::Stopped
        | Situation::Ended {
            ending: Ending::Finished,
        } => Tone::Rest,
    }
}

fn sentence(situation: &Situation, held: Option<&Held>, (now, zone): (Time, Tz)) -> String {
    let by = |at: Time| clock(at, now, zone);
    let machine = held.map(|held| held.slot.machine);
    let there = machine.map_or_else(String::new, |machine| format!(" on machine {machine}"));
    match situation {
        Situation::Running => match held {
            Some(held) => format!(
                "running{there} ({}) {} since {}",
                gpus(held),
                price(held),
                by(held.phase_since)
            ),
            None => "running".into(),
        },
        Situation::Provisioning { until } => {
            let told = held.and_then(|held| held.coming_up.as_ref()?.message.as_ref());
            let told = told.map_or_else(String::new, |message| {
                format!(" (\u{201c}{message}\u{201d})")
            });
            format!("coming up{there}{told}, given up at {}", by(*until))
        }
        Situation::Outbid { until } => format!(
            "paused: outbid{there}, waiting until {}, then reclaiming or moving",
            by(*until)
        ),
        Situation::ParkedByOthers { until } => format!(
            "paused: parked by the guard or by somebody else{there}, bid for again at {}",
            by(*until)
        ),
        Situation::Clearing => format!(
            "its old instance{there} is being destroyed; nothing replaces it before that is proven"
        ),
        Situation::BackingOff { until } => format!("waits until {} after a failure", by(*until)),
        Situation::Paused => resting("paused by you", held),
        Situation::Stopped => resting("stopped by you", held),
        Situation::WindowClosed { opens: Some(at) } => {
            resting(&format!("outside its windows, opens {}", by(*at)), held)
        }
        Situation::CannotStart {
            fault,
            message,
            until,
        } => {
            let ends = match until {
                Some(until) => format!("tried again at {}", by(*until)),
                None => "waits for a change of its policy, or Resume".to_owned(),
            };
            format!(
                "cannot start: {} (\u{201c}{message}\u{201d}); {ends}",
                fault.what()
            )
        }
        other => words::situation(other, now),
    }
}

/// With less to spare than this a deadline is at risk, milliseconds: what `HaggleDeadlineAtRisk` goes by, too.
const SPARE_MIN_MS: i64 = 600_000;

/// How the replica with the least time to spare stands with its deadline.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct DeadlineRow {
    /// Which.
    pub(crate) replica: String,
    /// How it is to be taken.
    pub(crate) tone: Tone,
    /// The deadline and what is to spare, with the time by the user's clock.
    pub(crate) sentence: String,
    /// The rest.
    #[serde(flatten)]
    pub(crate) deadline: DeadlineDocument,
}

/// How a job stands with its deadline; `None`: it has none, or nothing was decided for it.
pub(crate) fn deadline(report: &JobReport, (now, zone): (Time, Tz)) -> Option<DeadlineRow> {
    let (replica, view) = report.nearest_deadline()?;
    let (tone, sentence) = due(view, (now, zone));
    Some(DeadlineRow {
        replica: replica.replica.to_string(),
        tone,
        sentence,
        deadline: deadline_document(view),
    })
}

fn due(view: &DeadlineView, (now, zone): (Time, Tz)) -> (Tone, String) {
    let at = clock(view.deadline, now, zone);
    if view.left_ms <= 0 {
        let text = format!("its deadline passed at {at}; it goes on as if there were none");
        return (Tone::Bad, text);
    }
    let tone = match view.slack_ms() {
        slack if slack < 0 => Tone::Bad,
        slack if slack < SPARE_MIN_MS => Tone::Warn,
        _ => Tone::Good,
    };
    let (spare, takes) = (words::spare(view), words::takes(view.stance));
    (tone, format!("due {at}, {spare}: {takes}"))
}

/// What rests, and what becomes of its instance meanwhile.
fn resting(word: &str, held: Option<&Held>) -> String {
    match held {
        Some(held) if held.destroying.is_some() => {
            format!("{word}; its instance is being destroyed")
        }
        Some(held) => format!(
            "{word}; its instance on machine {} is {}, its disk is billed at {:.4}/h",
            held.slot.machine,
            held_word(held),
            held.storage
        ),
        None => word.to_owned(),
    }
}

fn gpus(held: &Held) -> String {
    format!("{}\u{d7} {}", held.slot.gpus, held.gpu_name)
}

fn price(held: &Held) -> String {
    match held.rental {
        Rental::Bid => format!("at a bid of {:.4}/h", held.price),
        Rental::OnDemand => format!("on-demand at {:.4}/h", held.price),
    }
}

/// A whole job in a sentence: its only replica's, what all say alike, or how many do what.
pub(crate) fn headline(sentences: &[Sentence]) -> Option<(Tone, String)> {
    let worst = sentences.iter().map(|one| one.tone).min()?;
    let first = sentences.first()?;
    if sentences.iter().all(|one| one.text == first.text) {
        let count: usize = sentences.iter().map(|one| one.count).sum();
        let text = if count == 1 {
            first.text.clone()
        } else {
            format!("all {count}: {}", first.text)
        };
        return Some((first.tone, text));
    }
    let mut parts: Vec<(Tone, String, usize)> = Vec::new();
    for one in sentences {
        let word = kind(&one.text);
        match parts.iter_mut().find(|(_, known, _)| *known == word) {
            Some((_, _, count)) => *count += one.count,
            None => parts.push((one.tone, word, one.count)),
        }
    }
    let working = parts.iter().any(|(tone, ..)| *tone == Tone::Good);
    // What is wrong with one of many does not hide that others work.
    let tone = if worst == Tone::Warn && working {
        Tone::Good
    } else {
        worst
    };
    parts.sort_by_key(|(tone, _, count)| (*tone != Tone::Good, *tone, std::cmp::Reverse(*count)));
    let parts: Vec<String> = parts
        .into_iter()
        .map(|(_, word, count)| format!("{count} {word}"))
        .collect();
    Some((tone, parts.join(", ")))
}

/// What a sentence begins with, by which alike ones are counted.
fn kind(text: &str) -> String {
    let end = text.find([',', ';', '(', ':']).unwrap_or(text.len());
    let begin = text[..end].trim();
    let begin = begin.split(" on machine ").next().unwrap_or(begin);
    let begin = begin.split(" until ").next().unwrap_or(begin);
    match begin {
        "paused" if text.starts_with("paused: outbid") => "outbid".to_owned(),
        "paused" if text.starts_with("paused: parked") => "parked".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::deadline::Stance;
    use crate::types::ids::{Installation, InstanceId, IntentId, MachineId, ReplicaId, Slot};
    use crate::types::instance::Phase;
    use crate::types::money::Rate;
    use crate::types::state::State;
    use std::collections::BTreeMap;

    const NOW: Time = Time(1_800_000_000_000); // 2027-01-15 08:00 UTC, a Friday

    fn replica(index: u32) -> ReplicaId {
        ReplicaId {
            job: "train".parse().unwrap(),
            index,
        }
    }

    fn report(situations: Vec<Situation>) -> JobReport {
        let of = |(index, situation): (usize, Situation)| ReplicaReport {
            replica: replica(index as u32),
            situation,
            recourses: Vec::new(),
            deadline: None,
        };
        JobReport {
            job: "train".parse().unwrap(),
            replicas: situations.into_iter().enumerate().map(of).collect(),
            eligible: 0,
            best: Vec::new(),
            refused: BTreeMap::new(),
            best_refused: Vec::new(),
            on_demand_best: None,
        }
    }

    fn state() -> State {
        let mut state = State::new(Installation::from_seed(1));
        let mut held = Held::new(InstanceId(5), IntentId(1), replica(0), NOW);
        held.slot = Slot {
            machine: MachineId(4821),
            gpus: 2,
        };
        held.gpu_name = "RTX 4090".to_owned();
        held.phase = Phase::Stopped;
        held.price = Rate(400_000_000);
        held.storage = Rate(2_000_000);
        state.held.insert(held.id, held);
        state
    }

    fn says(situation: Situation) -> String {
        let zone = chrono_tz::Europe::Berlin;
        let all = sentences(&report(vec![situation]), &Rented::of(&state()), (NOW, zone));
        let (_, text) = headline(&all).unwrap();
        text
    }

    #[test]
    fn states_are_told_with_the_time_by_the_users_clock() {
        let until = Time(NOW.0 + 80 * 60_000);
        assert_eq!(
            says(Situation::Outbid { until }),
            "paused: outbid on machine 4821, waiting until 10:20, then reclaiming or moving"
        );
        assert_eq!(
            says(Situation::ParkedByOthers { until }),
            "paused: parked by the guard or by somebody else on machine 4821, bid for again at 10:20"
        );
        assert_eq!(
            says(Situation::Running),
            "running on machine 4821 (2\u{d7} RTX 4090) at a bid of $0.4000/h since 09:00"
        );
        assert_eq!(
            says(Situation::Paused),
            "paused by you; its instance on machine 4821 is outbid, its disk is billed at $0.0020/h"
        );
        let tomorrow = Time(NOW.0 + 24 * 3_600_000);
        assert_eq!(
            says(Situation::BackingOff { until: tomorrow }),
            "waits until Sat 09:00 after a failure"
        );
        let later = Time(NOW.0 + 30 * 24 * 3_600_000);
        let zone = chrono_tz::Tz::UTC;
        assert_eq!(clock(later, NOW, zone), "2027-02-14 08:00");
    }

    #[test]
    fn a_deadline_is_told_of_the_replica_that_has_the_least_to_spare() {
        let minutes = |minutes: i64| minutes * 60_000;
        let due = |needs: i64, left: i64| {
            let mut report = report(vec![
                Situation::Running,
                Situation::Running,
                Situation::Queued,
            ]);
            for (one, needs) in report.replicas.iter_mut().zip([minutes(30), needs]) {
                one.deadline = Some(DeadlineView {
                    deadline: Time(NOW.0 + left),
                    stance: Stance::Ride,
                    needs_ms: needs,
                    left_ms: left,
                });
            }
            deadline(&report, (NOW, chrono_tz::Europe::Berlin)).unwrap()
        };
        let row = due(minutes(60), minutes(150));
        assert_eq!((&row.replica[..], row.tone), ("train/1", Tone::Good));
        assert_eq!(
            row.sentence,
            "due 11:30, 1h30m to spare: it takes what is cheapest"
        );
        assert_eq!(row.deadline.needs_seconds, 3600);
        assert_eq!(due(minutes(61), minutes(70)).tone, Tone::Warn);
        let late = due(minutes(80), minutes(70));
        assert_eq!(late.tone, Tone::Bad);
        assert_eq!(
            late.sentence,
            "due 10:10, 10m00s too little: it takes what is cheapest"
        );
        let over = due(minutes(80), minutes(-60));
        assert_eq!(
            over.sentence,
            "its deadline passed at 08:00; it goes on as if there were none"
        );
        let none = report(vec![Situation::Running]);
        assert!(deadline(&none, (NOW, chrono_tz::Tz::UTC)).is_none());
    }

    #[test]
    fn many_replicas_are_counted_by_what_they_do() {
        let until = Time(NOW.0 + 60_000);
        let ended = Situation::Ended {
            ending: Ending::Finished,
        };
        let all = report(vec![
            Situation::Running,
            Situation::Running,
            Situation::Outbid { until },
            Situation::Queued,
            Situation::Queued,
            ended.clone(),
            ended,
        ]);
        let told = sentences(&all, &Rented::of(&state()), (NOW, chrono_tz::Tz::UTC));
        assert_eq!(told.len(), 5, "{told:?}");
        assert_eq!(told[3].replicas, "train/3 to 4");
        let (tone, text) = headline(&told).unwrap();
        assert_eq!(
            (tone, &text[..]),
            (
                Tone::Good,
                "2 running, 1 outbid, 2 waits for its turn, 2 finished"
            )
        );
        assert_eq!(headline(&[]), None);
        // What all say alike is said once, and not counted by its first words.
        let all = report(vec![Situation::Killed, Situation::Killed]);
        let told = sentences(&all, &Rented::of(&state()), (NOW, chrono_tz::Tz::UTC));
        let (tone, text) = headline(&told).unwrap();
        assert_eq!(tone, Tone::Bad);
        assert_eq!(
            text,
            "all 2: spending is forbidden until `haggle resume --all`"
        );
    }
}
