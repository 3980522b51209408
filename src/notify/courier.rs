//! Which channel is told what, and when: once, no more often than it wants, not at night, and again
//! after a failure, less and less often. It reads no clock: what time it is, it is told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveTime;
use chrono_tz::Tz;

use super::{Memory, Message, Sender, Unsent, rules, severity_word};
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

const HOUR: Duration = Duration::from_hours(1);

/// Counts messages: the channel, what became of them, how many.
pub type Count = Arc<dyn Fn(&str, &'static str, usize) + Send + Sync>;

/// A channel, and what waits for it.
struct Outlet {
    channel: Channel,
    sender: Box<dyn Sender>,
    queue: VecDeque<Message>,
    /// When messages were sent within the last hour.
    sent: VecDeque<Time>,
    /// Tries in a row that failed.
    failed: u32,
    /// Not before this.
    retry_at: Option<Time>,
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
    /// when the last process ended is sent.
    pub fn new(
        channels: Vec<(Channel, Box<dyn Sender>)>,
        mut memory: Box<dyn Memory>,
        zone: Tz,
        count: Count,
    ) -> Self {
        let mut outlet = |(channel, sender): (Channel, Box<dyn Sender>)| {
            let pending = memory.pending(&channel.name);
            let read = pending
                .iter()
                .filter_map(|body| serde_json::from_str(body).ok());
            let queue: VecDeque<Message> = read.collect();
            // What has not happened yet is shown as 0.
            for outcome in ["delivered", "failed", "refused", "gave-up", "dropped"] {
                count(&channel.name, outcome, 0);
            }
            Outlet {
                channel,
                sender,
                queue,
                sent: VecDeque::new(),
                failed: 0,
                retry_at: None,
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

    /// Takes up a message for every channel that wants it and was not told of it.
    pub fn tell(&mut self, message: &Message, now: Time) {
        for outlet in &mut self.outlets {
            let name = &outlet.channel.name;
            if !outlet.channel.wants(message.kind(), message.severity) {
                continue;
            }
            let told = self.memory.told(name, &message.key);
            if told.is_some_and(|told| !rules::is_due(message, told, now))
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
            outlet.queue.push_back(message.clone());
        }
        if self
            .tidied_at
            .is_none_or(|at| at > now || now.since(at) >= HOUR)
        {
            self.tidied_at = Some(now);
            self.memory.forget(now - REMEMBERED);
        }
    }

    /// When something is next to be sent; `None`: nothing waits.
    pub fn next_due(&self, now: Time) -> Option<Time> {
        let due = |outlet: &Outlet| outlet.due(now, self.zone);
        self.outlets.iter().filter_map(due).min()
    }

    /// Sends what is due. Each channel is tried until it has taken all, or fails.
    pub async fn deliver(&mut self, now: Time) {
        for outlet in &mut self.outlets {
            while outlet.due(now, self.zone).is_some_and(|due| due <= now) {
                let batch = outlet.batch(now, self.zone);
                let sent = match together(&batch, now) {
                    Some(message) => outlet.sender.send(&message).await,
                    None => break,
                };
                let name = &outlet.channel.name;
                let settled = match sent {
                    Ok(()) => {
                        outlet.failed = 0;
                        outlet.retry_at = None;
                        outlet.sent.push_back(now);
                        (self.count)(name, "delivered", batch.len());
                        batch
                    }
                    Err(unsent) => {
                        tracing::warn!("{name} was not told: {}", unsent.why);
                        outlet.fails(&unsent, batch, now, &self.count)
                    }
                };
                for message in settled {
                    self.memory.settled(&outlet.channel.name, &message.key);
                    outlet.queue.retain(|queued| queued.key != message.key);
                }
            }
        }
    }
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

    fn due(&self, now: Time, zone: Tz) -> Option<Time> {
        if self.queue.is_empty() {
            return None;
        }
        let mut due = self.retry_at.unwrap_or(now).max(now);
        let recent: Vec<Time> = self.recent(now).collect();
        let most = self.channel.per_hour.max(1) as usize;
        if recent.len() >= most {
            due = due.max(recent[recent.len() - most] + HOUR);
        }
        if self.has_alarm() {
            return Some(due);
        }
        Some(self.after_the_night(due, zone))
    }

    fn has_alarm(&self) -> bool {
        self.queue
            .iter()
            .any(|queued| queued.severity == Severity::Alarm)
    }

    fn recent(&self, now: Time) -> impl Iterator<Item = Time> {
        let sent = self.sent.iter().copied();
        sent.filter(move |&at| at <= now && now.since(at) < HOUR)
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

    /// What goes out next: one message, or all that wait where they are many. In the quiet time alarms
    /// alone.
    fn batch(&mut self, now: Time, zone: Tz) -> Vec<Message> {
        while self
            .sent
            .front()
            .is_some_and(|&at| at > now || now.since(at) >= HOUR)
        {
            self.sent.pop_front();
        }
        let quiet = self.after_the_night(now, zone) > now;
        let may = |queued: &&Message| !quiet || queued.severity == Severity::Alarm;
        let waiting: Vec<Message> = self.queue.iter().filter(may).cloned().collect();
        let most = self.channel.per_hour.max(1) as usize;
        // The last one that the hour allows takes all with it.
        let last = self.sent.len() + 1 >= most && waiting.len() > 1;
        if waiting.len() >= TOGETHER_FROM || last {
            waiting
        } else {
            waiting.into_iter().take(1).collect()
        }
    }

    /// After a try that failed: when the next one is, and which messages it is not worth any more.
    fn fails(
        &mut self,
        unsent: &Unsent,
        batch: Vec<Message>,
        now: Time,
        count: &Count,
    ) -> Vec<Message> {
        let name = &self.channel.name;
        if !unsent.again {
            // The receiver works, and does not want this.
            count(name, "refused", batch.len());
            return batch;
        }
        count(name, "failed", batch.len());
        let doubled = AGAIN
            .saturating_mul(1 << self.failed.min(10))
            .min(AGAIN_MAX);
        let wait = unsent
            .after
            .map_or(doubled, |after| after.clamp(doubled, GIVE_UP_AFTER));
        self.failed = self.failed.saturating_add(1);
        self.retry_at = Some(now + wait);
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

/// Several messages as one, as urgent as the most urgent of them.
fn together(batch: &[Message], now: Time) -> Option<Message> {
    let (first, rest) = batch.split_first()?;
    if rest.is_empty() {
        return Some(first.clone());
    }
    let severity = batch.iter().map(|message| message.severity).max()?;
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
    let title = format!("{} messages", batch.len());
    let text = lines.join("\n");
    Some(Message::new(
        first.key.clone(),
        now,
        &first.kind,
        severity,
        &title,
        &text,
    ))
}

#[cfg(test)]
#[path = "courier_tests.rs"]
mod tests;
