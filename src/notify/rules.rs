//! What is worth a message. Pure: from what was known and what is known now, and from what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Message;
use super::facts::Tick;
use crate::types::ids::{InstanceId, ReplicaId};
use crate::types::money::{Money, Rate};
use crate::types::state::{Event, Severity};
use crate::types::telling::{
    AGAIN_AFTER, CREDIT_LOW, DAEMON_ENDED, JOB_ENDED, Kind, LIMIT_USED, ORPHAN, OUTBID_LONG,
    RENTAL_ENDING, STORE_FAILED, SUMMARY, kind_of,
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

/// What each tick shows is over when no tick has shown it for so long.
const OVER_AFTER: Duration = Duration::from_mins(30);

/// What no tick shows is over when it was not told of for so long: what the daemon tells of while it
/// lasts, it tells of each hour at least.
const UNTOLD_AFTER: Duration = Duration::from_hours(3);

/// A job that ended longer ago is old news.
const ENDED_WITHIN: Duration = Duration::from_hours(24);

/// What the rules remember from tick to tick.
#[derive(Debug, Default)]
pub struct Rules {
    /// Since when each replica has been outbid.
    outbid: BTreeMap<ReplicaId, Time>,
    /// Since when each orphan has been seen.
    orphans: BTreeMap<InstanceId, Time>,
    /// What stands, by what it is.
    standing: BTreeMap<String, Standing>,
    /// Instances rented at the last tick, and what they cost.
    rented: Option<(usize, Rate)>,
}

/// Something that stands.
#[derive(Debug)]
struct Standing {
    /// Its message's key. It has the time at which this began, so that what is over and comes back is
    /// news.
    key: String,
    /// When it was told of or seen last.
    last: Time,
    /// Since when ticks have not shown it.
    absent: Option<Time>,
}

impl Standing {
    /// Whether it is over, by a time at which it is told of anew.
    fn is_over(&self, shown: bool, at: Time) -> bool {
        if shown {
            self.absent
                .is_some_and(|absent| at.since(absent) >= OVER_AFTER)
        } else {
            at.since(self.last) >= UNTOLD_AFTER
        }
    }
}

impl Rules {
    /// Goes on where an earlier process ended that told these keys a short while ago: nobody knows that
    /// what they are of is over.
    pub fn resume(&mut self, keys: Vec<String>, now: Time) {
        for key in keys {
            let what = key.split(" @").next().unwrap_or_default().to_owned();
            if !kind_in(&what).stands {
                continue;
            }
            let standing = Standing {
                key,
                last: now,
                absent: None,
            };
            self.standing.insert(what, standing);
        }
    }

    /// The key of something that stands, at a time at which it is told of or shown.
    fn key_of(&mut self, what: String, shown: bool, at: Time) -> String {
        if let Some(standing) = self.standing.get_mut(&what)
            && !standing.is_over(shown, at)
        {
            standing.last = standing.last.max(at);
            standing.absent = None;
            return standing.key.clone();
        }
        let key = format!("{what} @{}", at.0);
        let standing = Standing {
            key: key.clone(),
            last: at,
            absent: None,
        };
        self.standing.insert(what, standing);
        key
    }

    /// What an event is to people.
    pub fn event(&mut self, event: &Event) -> Message {
        let kind = kind_of(&event.kind);
        let what = what_of(event);
        let key = if kind.stands {
            self.key_of(what, kind.shown, event.at)
        } else {
            format!("{what} {}", event.at.0)
        };
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

    /// What an event of an earlier process is to people, who may not have been told of it. What each
    /// tick shows, the next one tells if it still is so.
    pub fn missed(&mut self, event: &Event) -> Option<Message> {
        let shown = kind_of(&event.kind).shown;
        (!shown).then(|| self.event(event))
    }

    /// What it is to people that the database cannot be written; `None`: that it works again, of which
    /// there is an event.
    pub fn store(&mut self, why: Option<&str>, now: Time) -> Option<Message> {
        let what = format!("{STORE_FAILED} now");
        let Some(why) = why else {
            if let Some(standing) = self.standing.get_mut(&what) {
                standing.absent = Some(now);
            }
            return None;
        };
        let key = self.key_of(what, true, now);
        let text = format!(
            "{why}: nothing is sent to the marketplace until it can be written again, and what is \
             rented goes on billing{}; after some minutes haggle gives up and ends",
            self.goes_on()
        );
        let title = "the database cannot be written";
        let (kind, severity) = (STORE_FAILED, Severity::Alarm);
        Some(Message::new(key, now, kind, severity, title, &text))
    }

    /// What it is to people that the daemon has ended, and why where nobody asked it to.
    pub fn ended(&self, why: Option<&str>, now: Time) -> Message {
        let (severity, title, text) = match why {
            Some(why) => (
                Severity::Alarm,
                "haggle has ended with an error",
                format!("{why}\n"),
            ),
            None => (Severity::Info, "haggle has ended as asked", String::new()),
        };
        let rented = match self.rented {
            Some((0, _)) => "nothing was rented at the last tick".to_owned(),
            Some(_) => format!(
                "nobody follows what goes on billing{}; `haggle kill` destroys it",
                self.goes_on()
            ),
            None => "there was no tick; what is rented goes on billing".to_owned(),
        };
        let key = format!("{DAEMON_ENDED} {}", now.0);
        let text = format!("{text}{rented}");
        Message::new(key, now, DAEMON_ENDED, severity, title, &text)
    }

    fn goes_on(&self) -> String {
        let rented = self
            .rented
            .map(|(count, burn)| format!(" ({count} instances at the last tick, {burn:.4}/h)"));
        rented.unwrap_or_default()
    }

    /// What a tick is to people.
    pub fn tick(&mut self, tick: &Tick) -> Vec<Message> {
        self.rented = Some((tick.held.len(), tick.burn));
        let mut messages = Vec::new();
        messages.extend(self.outbid_long(tick));
        messages.extend(self.orphaned(tick));
        messages.extend(limits(tick));
        messages.extend(self.credit(tick));
        messages.extend(self.noticed(tick));
        messages.extend(endings(tick));
        messages.extend(jobs_ended(tick));
        messages.extend(summary(tick));
        self.look_at_what_stands(tick, &messages);
        messages
    }

    /// What the engine says of now. It tells of it as an event when it begins, of which this is the same.
    fn noticed(&mut self, tick: &Tick) -> Vec<Message> {
        let mut messages = Vec::new();
        for notice in &tick.notices {
            let event = Event {
                at: tick.now,
                severity: notice.severity,
                kind: notice.kind.clone(),
                replica: notice.replica.clone(),
                instance: None,
                text: notice.text.clone(),
            };
            messages.push(self.event(&event));
        }
        messages
    }

    /// Takes note of what the tick does not show any more.
    fn look_at_what_stands(&mut self, tick: &Tick, messages: &[Message]) {
        let told: BTreeSet<&str> = messages.iter().map(|m| m.key.as_str()).collect();
        self.standing.retain(|what, standing| {
            let kind = kind_in(what);
            if !kind.shown {
                return tick.now.since(standing.last) < Duration::from_hours(24);
            }
            if told.contains(standing.key.as_str()) || still(tick, kind.word, what) {
                standing.absent = None;
                return true;
            }
            let absent = standing.absent.filter(|&absent| absent <= tick.now);
            standing.absent = Some(absent.unwrap_or(tick.now));
            !standing.is_over(true, tick.now)
        });
    }

    fn outbid_long(&mut self, tick: &Tick) -> Vec<Message> {
        let stopped = |replica: &ReplicaId| {
            // What it left behind stands still for other reasons.
            let waits = tick.held.iter().filter(|held| !held.runs && !held.parked);
            let of = waits.filter(|held| held.replica == *replica);
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
        let long: Vec<(InstanceId, Time)> = self
            .orphans
            .iter()
            .filter(|&(_, &since)| tick.now.since(since) >= ORPHAN_FOR)
            .map(|(&id, &since)| (id, since))
            .collect();
        long.into_iter()
            .map(|(id, since)| {
            let text = format!(
                "instance {id} carries our label, is in no record, and has been billed for {} at \
                 least; look at it on the marketplace's own page",
                human(tick.now.since(since))
            );
            let title = format!("instance {id}: orphan");
            let key = self.key_of(format!("{ORPHAN} {id}"), true, tick.now);
            Message::new(key, tick.now, ORPHAN, Severity::Alarm, &title, &text).on(id)
        })
        .collect()
    }

    /// A credit that is used up. That it soon will be, the daemon tells as an event.
    fn credit(&mut self, tick: &Tick) -> Option<Message> {
        let credit = tick.credit.filter(|&credit| credit <= Money::ZERO)?;
        let text =
            format!("the account's credit is {credit}: the marketplace stops what is rented");
        let key = self.key_of(format!("{CREDIT_LOW} none"), true, tick.now);
        let (kind, title) = (CREDIT_LOW, "the credit is used up");
        let message = Message::new(key, tick.now, kind, Severity::Alarm, title, &text);
        Some(message)
    }
}

/// The kind of what begins with its word.
fn kind_in(what: &str) -> &'static Kind {
    kind_of(what.split(' ').next().unwrap_or_default())
}

/// What an event is of. Some name only in their text what tells one from another.
fn what_of(event: &Event) -> String {
    let subject = event
        .replica
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    let which = match event.kind.as_str() {
        "storage-failed" => named(&event.text, "the storage of job ")
            .or_else(|| named(&event.text, "nothing is rented for ")),
        "price-increase" => event.instance.map(|id| {
            let asked = named(&event.text, " asks for ").unwrap_or_default();
            format!("{id} {asked}")
        }),
        _ => event.instance.map(|id| id.to_string()).or_else(|| {
            let named = named(&event.text, "instance ")?;
            named.bytes().all(|b| b.is_ascii_digit()).then_some(named)
        }),
    };
    format!("{} {subject} {}", event.kind, which.unwrap_or_default())
}

/// The word that follows others in a text.
fn named(text: &str, after: &str) -> Option<String> {
    let (_, rest) = text.split_once(after)?;
    let word: &str = rest.split_whitespace().next()?;
    Some(word.trim_end_matches([':', ';', ',', '.']).to_owned())
}

/// Whether something still is so that a tick shows and of which it makes no message, or whether that is
/// not known.
fn still(tick: &Tick, kind: &str, what: &str) -> bool {
    let among = |held: &BTreeSet<InstanceId>| {
        let id = what.rsplit(' ').next().and_then(|id| id.parse().ok());
        id.is_some_and(|id| held.contains(&InstanceId(id)))
    };
    match kind {
        "idle-billing" => among(&tick.idle),
        "gpu-idle" => among(&tick.unused),
        ORPHAN => tick.orphans.is_none(),
        CREDIT_LOW => tick.credit.is_none(),
        _ => false,
    }
}

/// Jobs whose replicas have all ended a short while ago. That of them which was told is known by when the
/// last one did: neither a restart nor a policy that was away for a while makes it another.
fn jobs_ended(tick: &Tick) -> impl Iterator<Item = Message> {
    let recent = tick
        .ended
        .iter()
        .filter(|(_, ended)| tick.now.since(ended.at) < ENDED_WITHIN);
    recent.map(|(job, ended)| {
        let parts: Vec<String> = ended
            .ways
            .iter()
            .map(|(way, count)| format!("{count} {way}"))
            .collect();
        let failed = ended.ways.contains_key("failed");
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
        let key = format!("{JOB_ENDED} {job} {}", ended.at.0);
        let mut message = Message::new(key, ended.at, JOB_ENDED, severity, &title, &text);
        message.job = Some(job.clone());
        message
    })
}

fn limits(tick: &Tick) -> impl Iterator<Item = Message> {
    let near = tick
        .limits
        .iter()
        .filter(|used| used.thousandths >= LIMIT_USED_AT);
    near.map(|used| {
        let (limit, percent) = (&used.limit, used.thousandths / 10);
        let text = format!(
            "the {limit} is used to {percent} %; where it would be passed, instances are parked and \
             nothing new is rented"
        );
        // A limit that was changed is another one.
        let key = format!("{LIMIT_USED} {limit} {}", used.bound.0);
        let title = format!("{limit}: {percent} % used");
        Message::new(key, tick.now, LIMIT_USED, Severity::Warning, &title, &text)
    })
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
