//! What is worth a message. Pure: from what was known and what is known now, and from what happened.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Message;
use super::facts::Tick;
use crate::types::ids::{InstanceId, ReplicaId};
use crate::types::money::Money;
use crate::types::state::{Event, Severity};
use crate::types::telling::{
    AGAIN_AFTER, CREDIT_LOW, JOB_ENDED, LIMIT_USED, ORPHAN, OUTBID_LONG, RENTAL_ENDING, SUMMARY,
    kind_of,
};
use crate::types::time::{Time, human, millis};

/// Outbid for so long is long.
const OUTBID_FOR: Duration = Duration::from_mins(30);

/// In no record for so long is an orphan: most are adopted at the next listing.
const ORPHAN_FOR: Duration = Duration::from_mins(15);

/// A limit is told of when so much of it is used, in thousandths.
const LIMIT_USED_AT: i64 = 900;

/// A rental that ends within this is told of.
const ENDS_WITHIN: Duration = Duration::from_hours(24);

/// Jobs that a summary names.
const JOBS_NAMED: usize = 10;

/// What the rules remember from tick to tick.
#[derive(Debug, Default)]
pub struct Rules {
    /// Since when each replica has been outbid.
    outbid: BTreeMap<ReplicaId, Time>,
    /// Since when each orphan has been seen.
    orphans: BTreeMap<InstanceId, Time>,
    /// Whether there was a tick.
    ticked: bool,
    /// The jobs of which all had ended at the last tick.
    ended: std::collections::BTreeSet<crate::types::ids::JobName>,
}

impl Rules {
    /// What an event is to people.
    pub fn event(event: &Event) -> Message {
        let kind = kind_of(&event.kind);
        // What stands is one thing for as long as it does; what happens again is another one.
        let occasion = if kind.stands {
            String::new()
        } else {
            format!(" {}", event.at.0)
        };
        let subject = event
            .replica
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let instance = event.instance.map(|id| id.to_string()).unwrap_or_default();
        let key = format!("{} {subject} {instance}{occasion}", event.kind);
        let title = match (&event.replica, event.instance) {
            (Some(replica), _) => format!("{replica}: {}", words(kind.word)),
            (None, Some(instance)) => format!("instance {instance}: {}", words(kind.word)),
            (None, None) => words(kind.word),
        };
        let mut message = Message::new(
            key,
            event.at,
            kind.word,
            event.severity,
            &title,
            &event.text,
        );
        if let Some(replica) = &event.replica {
            message = message.of(replica);
        }
        message.instance = event.instance;
        message
    }

    /// What a tick is to people.
    pub fn tick(&mut self, tick: &Tick) -> Vec<Message> {
        let mut messages = Vec::new();
        messages.extend(self.outbid_long(tick));
        messages.extend(self.orphaned(tick));
        messages.extend(limits(tick));
        messages.extend(credit(tick));
        messages.extend(endings(tick));
        messages.extend(self.jobs_ended(tick));
        messages.extend(summary(tick));
        self.ticked = true;
        messages
    }

    fn outbid_long(&mut self, tick: &Tick) -> Vec<Message> {
        let stopped = |replica: &ReplicaId| {
            let waits = tick.held.iter();
            let of = waits.filter(|held| held.replica == *replica && !held.runs);
            of.map(|held| held.since).min()
        };
        // A process that began anew goes by what its instance has done since.
        self.outbid
            .retain(|replica, _| tick.outbid.contains(replica));
        for replica in &tick.outbid {
            let since = stopped(replica).unwrap_or(tick.now).min(tick.now);
            self.outbid.entry(replica.clone()).or_insert(since);
        }
        let long = self
            .outbid
            .iter()
            .filter(|&(_, &since)| tick.now.since(since) >= OUTBID_FOR);
        long.map(|(replica, since)| {
            let text = format!(
                "{replica} has been outbid for {}; it is waited for, or its ceiling is too low; \
                 `haggle explain {}` says more",
                human(tick.now.since(*since)),
                replica.job
            );
            let title = format!("{replica}: outbid for long");
            let key = format!("{OUTBID_LONG} {replica} {}", since.0);
            Message::new(key, tick.now, OUTBID_LONG, Severity::Warning, &title, &text).of(replica)
        })
        .collect()
    }

    fn orphaned(&mut self, tick: &Tick) -> Vec<Message> {
        // A listing that failed shows neither that they are there nor that they are gone.
        let Some(orphans) = &tick.orphans else {
            return Vec::new();
        };
        self.orphans.retain(|id, _| orphans.contains(id));
        for &id in orphans {
            self.orphans.entry(id).or_insert(tick.now);
        }
        let long = self
            .orphans
            .iter()
            .filter(|&(_, &since)| tick.now.since(since) >= ORPHAN_FOR);
        long.map(|(&id, since)| {
            let text = format!(
                "instance {id} carries our label, is in no record, and has been billed for {} at \
                 least; look at it on the marketplace's own page",
                human(tick.now.since(*since))
            );
            let title = format!("instance {id}: orphan");
            let key = format!("{ORPHAN} {id}");
            Message::new(key, tick.now, ORPHAN, Severity::Alarm, &title, &text).on(id)
        })
        .collect()
    }

    /// A job whose replicas have all ended, where they had not before. One that had when this process
    /// began is old news: which of them were told, the courier knows.
    fn jobs_ended(&mut self, tick: &Tick) -> Vec<Message> {
        let before = std::mem::replace(&mut self.ended, tick.ended.keys().cloned().collect());
        let mut messages = Vec::new();
        for (job, ways) in &tick.ended {
            if !self.ticked || before.contains(job) {
                continue;
            }
            let parts: Vec<String> = ways
                .iter()
                .map(|(way, count)| format!("{count} {way}"))
                .collect();
            let failed = ways.contains_key("failed");
            let severity = if failed {
                Severity::Alarm
            } else {
                Severity::Info
            };
            let title = format!("{job}: {}", if failed { "failed" } else { "done" });
            let text = format!(
                "all replicas of {job} have ended: {}; `haggle jobs` shows what it cost",
                parts.join(", ")
            );
            let key = format!("{JOB_ENDED} {job} {}", tick.now.0);
            let mut message = Message::new(key, tick.now, JOB_ENDED, severity, &title, &text);
            message.job = Some(job.clone());
            messages.push(message);
        }
        messages
    }
}

fn limits(tick: &Tick) -> impl Iterator<Item = Message> {
    let near = tick
        .limits
        .iter()
        .filter(|&&(_, used)| used >= LIMIT_USED_AT);
    near.map(|(limit, used)| {
        let text = format!(
            "the {limit} is used to {} %; where it would be passed, instances are parked and nothing \
             new is rented",
            used / 10
        );
        let key = format!("{LIMIT_USED} {limit}");
        let title = format!("{limit}: {} % used", used / 10);
        Message::new(key, tick.now, LIMIT_USED, Severity::Warning, &title, &text)
    })
}

/// A credit that is used up. That it soon will be, the daemon tells as an event.
fn credit(tick: &Tick) -> Option<Message> {
    let credit = tick.credit.filter(|&credit| credit <= Money::ZERO)?;
    let text = format!("the account's credit is {credit}: the marketplace stops what is rented");
    let key = format!("{CREDIT_LOW} none");
    let title = "the credit is used up";
    let message = Message::new(key, tick.now, CREDIT_LOW, Severity::Alarm, title, &text);
    Some(message)
}

fn endings(tick: &Tick) -> impl Iterator<Item = Message> {
    tick.held.iter().filter_map(|held| {
        let ends = held.ends_at?;
        let left = ends.since(tick.now);
        if left > ENDS_WITHIN {
            return None;
        }
        let text = format!(
            "the rental of instance {} of {} ends in {}, at {ends}",
            held.id,
            held.replica,
            human(left)
        );
        let key = format!("{RENTAL_ENDING} {} {}", held.id, ends.0);
        let title = format!("{}: its rental ends", held.replica);
        let (kind, severity) = (RENTAL_ENDING, Severity::Warning);
        let message = Message::new(key, tick.now, kind, severity, &title, &text);
        Some(message.of(&held.replica).on(held.id))
    })
}

/// What the day before came to. It is made at each tick, and told once.
fn summary(tick: &Tick) -> Option<Message> {
    let (day, spent) = &tick.yesterday;
    if spent.is_empty() && tick.held.is_empty() {
        return None;
    }
    let total: Money = spent.values().copied().sum();
    let mut by_job: Vec<_> = spent.iter().collect();
    by_job.sort_by_key(|&(job, amount)| (std::cmp::Reverse(*amount), job));
    let mut lines = vec![format!("spent {total:.2}")];
    for (job, amount) in by_job.iter().take(JOBS_NAMED) {
        lines.push(format!("{job}: {amount:.2}"));
    }
    if by_job.len() > JOBS_NAMED {
        let rest: Money = by_job.iter().skip(JOBS_NAMED).map(|(_, m)| **m).sum();
        lines.push(format!("{} others: {rest:.2}", by_job.len() - JOBS_NAMED));
    }
    let run = tick.held.iter().filter(|held| held.runs).count();
    lines.push(format!(
        "rented now: {} instances, {run} of them at work, {:.4}/h",
        tick.held.len(),
        tick.burn
    ));
    lines.push(match tick.credit {
        Some(credit) => format!("credit: {credit:.2}"),
        None => "credit: unknown".to_owned(),
    });
    let key = format!("{SUMMARY} {day}");
    let title = format!("{day}: {total:.2} spent");
    let text = lines.join("\n");
    Some(Message::new(
        key,
        tick.now,
        SUMMARY,
        Severity::Info,
        &title,
        &text,
    ))
}

/// Whether what was told at a time is to be told again.
pub fn is_due(message: &Message, told: Time, now: Time) -> bool {
    let stands = message.kind().stands;
    // Told in the future: the clock was set back, and nobody knows how long ago it was.
    stands && (told > now || now.ms_since(told) >= millis(AGAIN_AFTER))
}

/// A word as it is read.
fn words(word: &str) -> String {
    word.replace('-', " ")
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
