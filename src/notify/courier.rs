//! Which channel is told what, and when: once, no more often than it wants, not at night, and again
//! after a failure, less and less often. It reads no clock and waits for nothing: what time it is, it is
//! told, and what it wants sent, [`super::sending`] sends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveTime;
use chrono_tz::Tz;
use sha2::{Digest, Sha256};

use super::{Memory, Message, Sender, Unsent, rules, severity_word};
use crate::types::hex::hex;
use crate::types::state::Severity;
use crate::types::telling::Channel;
use crate::types::time::Time;

/// Messages that wait for one channel, at most.
pub const QUEUE_MAX: usize = 200;

/// So many that wait go out as one.
const TOGETHER_FROM: usize = 5;

/// So many lines of those that go out as one are shown.
const TOGETHER_SHOWN: usize = 15;

/// A failed channel is tried again after this, then after twice as long, and so on.
const AGAIN: Duration = Duration::from_secs(30);

/// And at least this often.
const AGAIN_MAX: Duration = Duration::from_hours(1);

/// What could not be sent for so long is given up.
pub const GIVE_UP_AFTER: Duration = Duration::from_hours(24);

/// What was told longer ago is forgotten.
const REMEMBERED: Duration = Duration::from_hours(90 * 24);

/// Alarms that are over what a channel wants in an hour go out together, no more often than this.
const ALARMS_EVERY: Duration = Duration::from_mins(1);

const HOUR: Duration = Duration::from_hours(1);

/// Counts messages: the channel, what became of them, how many.
pub type Count = Arc<dyn Fn(&str, &'static str, usize) + Send + Sync>;

/// A time that is waited for, and since when. Both are of the wall clock, which may be set back.
#[derive(Clone, Copy, Debug)]
struct Wait {
    from: Time,
    until: Time,
}

/// A channel, and what waits for it.
struct Outlet {
    channel: Channel,
    sender: Arc<dyn Sender>,
    queue: VecDeque<Message>,
    /// What is being sent. It is in the queue, too.
    under_way: Vec<Message>,
    /// When messages were sent within the last hour.
    sent: VecDeque<Time>,
    /// Tries in a row that failed.
    failed: u32,
    /// Not before this.
    retry: Option<Wait>,
    /// What was tried last and failed is tried again as it was, so that a receiver which took it all
    /// the same can tell.
    retrying: Vec<String>,
    /// So many go out as one, at most: less where the receiver refused more, for one of them may be what
    /// it does not want.
    most: usize,
    /// When this process told what: it counts where the database cannot be read or written.
    told: BTreeMap<String, Time>,
    /// What happened before this is not for this channel: it was not there, or was not asked for it.
    begun: Time,
}

/// Something to be sent to a channel.
pub struct Errand {
    /// Which channel, for [`Courier::ended`].
    pub outlet: usize,
    /// On which way.
    pub sender: Arc<dyn Sender>,
    /// What.
    pub message: Message,
}

/// Tells the channels.
pub struct Courier {
    outlets: Vec<Outlet>,
    memory: Box<dyn Memory>,
    zone: Tz,
    count: Count,
    /// When what was told long ago was last forgotten.
    tidied_at: Option<Time>,
}

impl Courier {
    /// With the channels, what is remembered, and the time zone of nights. What was still to be sent
    /// when the last process ended is sent; not to channels that are no more.
    pub fn new(
        channels: Vec<(Channel, Arc<dyn Sender>)>,
        mut memory: Box<dyn Memory>,
        zone: Tz,
        count: Count,
        now: Time,
    ) -> Self {
        let names: Vec<&str> = channels.iter().map(|(c, _)| c.name.as_str()).collect();
        let left = memory.only(&names);
        if left > 0 {
            tracing::warn!(
                "{left} messages waited for channels that are no more; nobody gets them"
            );
        }
        let mut outlet = |(channel, sender): (Channel, Arc<dyn Sender>)| {
            let pending = memory.pending(&channel.name);
            let read = pending
                .iter()
                .filter_map(|body| serde_json::from_str(body).ok());
            let queue: VecDeque<Message> = read.collect();
            // What has not happened yet is shown as 0.
            for outcome in ["delivered", "failed", "refused", "gave-up", "dropped"] {
                count(&channel.name, outcome, 0);
            }
            let begun = memory.begun(&channel.name, &asked_for(&channel), now);
            Outlet {
                channel,
                sender,
                queue,
                under_way: Vec::new(),
                sent: VecDeque::new(),
                failed: 0,
                retry: None,
                retrying: Vec::new(),
                most: QUEUE_MAX,
                told: BTreeMap::new(),
                begun,
            }
        };
        let outlets = channels.into_iter().map(&mut outlet).collect();
        Self {
            outlets,
            memory,
            zone,
            count,
            tidied_at: None,
        }
    }

    /// The keys of what was told since then, of any channel.
    pub fn told_since(&mut self, since: Time) -> Vec<String> {
        self.memory.recent(since)
    }

    /// Takes up a message for every channel that wants it and was not told of it.
    pub fn tell(&mut self, message: &Message, now: Time) {
        let due = |told: Time| rules::is_due(message, told, now);
        self.take_up(message, now, due);
        if self
            .tidied_at
            .is_none_or(|at| at > now || now.since(at) >= HOUR)
        {
            self.tidied_at = Some(now);
            self.memory.forget(now - REMEMBERED);
            for outlet in &mut self.outlets {
                outlet.told.retain(|_, &mut at| at >= now - REMEMBERED);
            }
        }
    }

    /// Takes up what an earlier process may not have come to tell: not what was told since it happened.
    pub fn catch_up(&mut self, message: &Message, now: Time) {
        let at = message.at;
        self.take_up(message, now, |told| {
            told < at && rules::is_due(message, told, at)
        });
    }

    fn take_up(&mut self, message: &Message, now: Time, due: impl Fn(Time) -> bool) {
        for outlet in &mut self.outlets {
            let name = &outlet.channel.name;
            // A clock that is set back must not mute a channel until it has caught up.
            outlet.begun = outlet.begun.min(now);
            let before = !message.kind().stands && message.at < outlet.begun;
            if before || !outlet.channel.wants(message.kind(), message.severity) {
                continue;
            }
            let here = outlet.told.get(&message.key).copied();
            let told = here.or_else(|| self.memory.told(name, &message.key));
            if told.is_some_and(|told| !due(told))
                || outlet.queue.iter().any(|queued| queued.key == message.key)
            {
                continue;
            }
            let Ok(body) = serde_json::to_string(message) else {
                continue;
            };
            if outlet.queue.len() >= QUEUE_MAX
                && let Some(dropped) = outlet.drop_one()
            {
                self.memory.settled(&outlet.channel.name, &dropped.key);
                (self.count)(&outlet.channel.name, "dropped", 1);
            }
            let name = &outlet.channel.name;
            self.memory.queued(name, &message.key, now, &body);
            outlet.told.insert(message.key.clone(), now);
            outlet.queue.push_back(message.clone());
        }
    }

    /// When something is next to be sent; `None`: nothing waits but for what is being sent.
    pub fn next_due(&self, now: Time) -> Option<Time> {
        let due = |outlet: &Outlet| outlet.due(now, self.zone);
        self.outlets.iter().filter_map(due).min()
    }

    /// What is to be sent now: at most one to each channel, and nothing to one that is still being told.
    pub fn begin(&mut self, now: Time) -> Vec<Errand> {
        let mut errands = Vec::new();
        for (at, outlet) in self.outlets.iter_mut().enumerate() {
            outlet.mind_the_clock(now);
            if outlet.due(now, self.zone).is_none_or(|due| due > now) {
                continue;
            }
            let batch = outlet.batch(now, self.zone);
            let Some(message) = together(&batch) else {
                continue;
            };
            outlet.under_way = batch;
            errands.push(Errand {
                outlet: at,
                sender: Arc::clone(&outlet.sender),
                message,
            });
        }
        errands
    }

    /// Takes up what came of an errand.
    pub fn ended(&mut self, outlet: usize, sent: Result<(), Unsent>, now: Time) {
        let Some(outlet) = self.outlets.get_mut(outlet) else {
            return;
        };
        let batch = std::mem::take(&mut outlet.under_way);
        let settled = match sent {
            Ok(()) => {
                outlet.is_well();
                outlet.sent.push_back(now);
                (self.count)(&outlet.channel.name, "delivered", batch.len());
                batch
            }
            Err(unsent) => {
                tracing::warn!("{} was not told: {}", outlet.channel.name, unsent.why);
                if unsent.again {
                    outlet.fails(&unsent, &batch, now, &self.count)
                } else {
                    outlet.is_refused(batch, &self.count)
                }
            }
        };
        for message in settled {
            self.memory.settled(&outlet.channel.name, &message.key);
            outlet.queue.retain(|queued| queued.key != message.key);
        }
    }
}

/// What a channel asks for, in short: where that is changed, what happened before is not told.
fn asked_for(channel: &Channel) -> String {
    let asked = format!("{:?} {:?}", channel.events, channel.least);
    hex(&Sha256::digest(asked.as_bytes()))[..16].to_owned()
}

impl Outlet {
    /// Makes room: for an alarm by what is none, else by what is oldest.
    fn drop_one(&mut self) -> Option<Message> {
        let least = self
            .queue
            .iter()
            .position(|queued| queued.severity < Severity::Alarm);
        self.queue.remove(least.unwrap_or(0))
    }

    /// Where the clock was set back, what there was to wait is waited for from now on, once.
    fn mind_the_clock(&mut self, now: Time) {
        if let Some(wait) = self.retry.filter(|wait| now < wait.from) {
            self.retry = Some(Wait {
                from: now,
                until: now + wait.until.since(wait.from),
            });
        }
    }

    fn due(&self, now: Time, zone: Tz) -> Option<Time> {
        if self.queue.is_empty() || !self.under_way.is_empty() {
            return None;
        }
        let free = match self.retry {
            Some(wait) if now < wait.from => now + wait.until.since(wait.from),
            Some(wait) => wait.until.max(now),
            None => now,
        };
        let room = self.room_at(now);
        let all = self.after_the_night(free.max(room), zone);
        let alarms = self.queue.iter().any(|m| m.severity == Severity::Alarm);
        if !alarms {
            return Some(all);
        }
        let last = self.recent(now).last().filter(|_| room > now);
        let alarm = last.map_or(free, |last| free.max(last + ALARMS_EVERY));
        Some(alarm.min(all))
    }

    fn recent(&self, now: Time) -> impl Iterator<Item = Time> {
        let sent = self.sent.iter().copied();
        sent.filter(move |&at| at <= now && now.since(at) < HOUR)
    }

    /// When there is room in the hour for one more.
    fn room_at(&self, now: Time) -> Time {
        let recent: Vec<Time> = self.recent(now).collect();
        let most = self.channel.per_hour.max(1) as usize;
        if recent.len() >= most {
            recent[recent.len() - most] + HOUR
        } else {
            now
        }
    }

    /// The first moment from then on that is not in the quiet time.
    fn after_the_night(&self, from: Time, zone: Tz) -> Time {
        const MINUTE: Duration = Duration::from_mins(1);
        let Some(quiet) = self.channel.quiet else {
            return from;
        };
        let mut at = from;
        // A day has so many minutes, and a change of the clocks at most some hours.
        for _ in 0..36 * 60 {
            if !quiet.holds(time_of_day(at, zone)) {
                return at;
            }
            at = at + MINUTE;
        }
        at
    }

    /// What goes out next: what failed as it was, one message, or all that wait where they are many. In
    /// the quiet time, and where the hour has no room, alarms alone.
    fn batch(&mut self, now: Time, zone: Tz) -> Vec<Message> {
        self.sent.retain(|&at| at <= now && now.since(at) < HOUR);
        let full = self.room_at(now) > now;
        let alone = full || self.after_the_night(now, zone) > now;
        let may = |queued: &&Message| !alone || queued.severity == Severity::Alarm;
        let waiting: Vec<Message> = self.queue.iter().filter(may).cloned().collect();
        let again = |queued: &&Message| self.retrying.contains(&queued.key);
        let same: Vec<Message> = waiting.iter().filter(again).cloned().collect();
        if !same.is_empty() && same.len() == self.retrying.len() {
            return same;
        }
        self.retrying.clear();
        let most = self.channel.per_hour.max(1) as usize;
        // The last one that the hour allows takes all with it.
        let last = full || self.sent.len() + 1 >= most;
        let size = if waiting.len() >= TOGETHER_FROM || last {
            self.most
        } else {
            1
        };
        waiting.into_iter().take(size).collect()
    }

    /// The receiver took something.
    fn is_well(&mut self) {
        self.failed = 0;
        self.retry = None;
        self.retrying.clear();
        self.most = (self.most * 2).min(QUEUE_MAX);
    }

    /// The receiver works, and does not want this. Which messages it is not to get: of several it may be
    /// one that it does not want, so that they are tried in smaller parts.
    fn is_refused(&mut self, batch: Vec<Message>, count: &Count) -> Vec<Message> {
        if batch.len() > 1 {
            self.retrying.clear();
            self.most = batch.len() / 2;
            return Vec::new();
        }
        self.is_well();
        count(&self.channel.name, "refused", batch.len());
        batch
    }

    /// After a try that failed: when the next one is, and which messages it is not worth any more.
    fn fails(
        &mut self,
        unsent: &Unsent,
        batch: &[Message],
        now: Time,
        count: &Count,
    ) -> Vec<Message> {
        let name = &self.channel.name;
        count(name, "failed", batch.len());
        let doubled = AGAIN
            .saturating_mul(1 << self.failed.min(10))
            .min(AGAIN_MAX);
        let wait = unsent
            .after
            .map_or(doubled, |after| after.clamp(doubled, GIVE_UP_AFTER));
        self.failed = self.failed.saturating_add(1);
        self.retry = Some(Wait {
            from: now,
            until: now + wait,
        });
        self.retrying = batch.iter().map(|message| message.key.clone()).collect();
        let old = |message: &Message| now.since(message.at) >= GIVE_UP_AFTER;
        let given_up: Vec<Message> = self.queue.iter().filter(|m| old(m)).cloned().collect();
        if !given_up.is_empty() {
            tracing::error!("{name} is not told of {} things any more", given_up.len());
            count(name, "gave-up", given_up.len());
        }
        given_up
    }
}

fn time_of_day(at: Time, zone: Tz) -> NaiveTime {
    at.utc().with_timezone(&zone).time()
}

/// Several messages as one, as urgent as the most urgent of them. The same ones make the same.
fn together(batch: &[Message]) -> Option<Message> {
    let (first, rest) = batch.split_first()?;
    if rest.is_empty() {
        return Some(first.clone());
    }
    let severity = batch.iter().map(|message| message.severity).max()?;
    let at = batch.iter().map(|message| message.at).max()?;
    let mut by_weight: Vec<&Message> = batch.iter().collect();
    by_weight.sort_by_key(|message| std::cmp::Reverse(message.severity));
    let mut lines: Vec<String> = by_weight
        .iter()
        .take(TOGETHER_SHOWN)
        .map(|message| format!("{}: {}", severity_word(message.severity), message.title))
        .collect();
    if batch.len() > TOGETHER_SHOWN {
        lines.push(format!("and {} more", batch.len() - TOGETHER_SHOWN));
    }
    let mut all = Sha256::new();
    for message in batch {
        all.update(message.key.as_bytes());
        all.update([0]);
    }
    let key = format!("together {}", hex(&all.finalize()));
    let title = format!("{} messages", batch.len());
    let text = lines.join("\n");
    Some(Message::new(key, at, &first.kind, severity, &title, &text))
}

#[cfg(test)]
#[path = "courier_tests.rs"]
mod tests;
