//! What tests of who tells share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::Memory;
use crate::types::state::Severity;
use crate::types::telling::{Channel, Way};
use crate::types::time::Time;

/// A morning in winter, 8:00 UTC.
pub(super) const NOW: Time = Time(1_796_025_600_000);

/// A channel that wants all that is usual.
pub(super) fn channel(name: &str) -> Channel {
    Channel {
        name: name.to_owned(),
        way: Way::Command {
            line: "true".to_owned(),
        },
        events: None,
        least: Severity::Info,
        per_hour: 20,
        quiet: None,
    }
}

type Table = BTreeMap<(String, String), (Time, Option<String>)>;

/// A memory that outlasts couriers, unless it fails.
#[derive(Clone, Default)]
pub(super) struct Remembered {
    table: Arc<Mutex<Table>>,
    begun: Arc<Mutex<BTreeMap<String, (String, Time)>>>,
    fails: bool,
}

impl Remembered {
    /// Keeps nothing and knows nothing from now on.
    pub(super) fn fail(&mut self) {
        self.fails = true;
    }

    /// Every channel that is known was there since then.
    pub(super) fn begun_at(&self, at: Time) {
        for (_, begun) in self.begun.lock().unwrap().values_mut() {
            *begun = at;
        }
    }
}

impl Memory for Remembered {
    fn only(&mut self, channels: &[&str]) -> usize {
        let gone = |name: &str| !channels.contains(&name);
        self.begun.lock().unwrap().retain(|name, _| !gone(name));
        let mut table = self.table.lock().unwrap();
        let left = table
            .iter_mut()
            .filter(|((name, _), (_, body))| gone(name) && body.is_some());
        left.map(|(_, row)| row.1 = None).count()
    }

    fn begun(&mut self, channel: &str, asked_for: &str, now: Time) -> Time {
        let mut begun = self.begun.lock().unwrap();
        let new = (asked_for.to_owned(), now);
        let row = begun.entry(channel.to_owned()).or_insert(new.clone());
        if row.0 != asked_for {
            *row = new;
        }
        row.1
    }

    fn told(&mut self, channel: &str, key: &str) -> Option<Time> {
        let table = self.table.lock().unwrap();
        let row = table.get(&(channel.to_owned(), key.to_owned()));
        row.map(|(at, _)| *at).filter(|_| !self.fails)
    }

    fn recent(&mut self, since: Time) -> Vec<String> {
        let table = self.table.lock().unwrap();
        let recent = table.iter().filter(|(_, (at, _))| *at >= since);
        recent.map(|((_, key), _)| key.clone()).collect()
    }

    fn queued(&mut self, channel: &str, key: &str, at: Time, body: &str) {
        if self.fails {
            return;
        }
        let row = (at, Some(body.to_owned()));
        let key = (channel.to_owned(), key.to_owned());
        self.table.lock().unwrap().insert(key, row);
    }

    fn settled(&mut self, channel: &str, key: &str) {
        let key = (channel.to_owned(), key.to_owned());
        if let Some(row) = self.table.lock().unwrap().get_mut(&key) {
            row.1 = None;
        }
    }

    fn pending(&mut self, channel: &str) -> Vec<String> {
        let table = self.table.lock().unwrap();
        let of = table.iter().filter(|((name, _), _)| name == channel);
        of.filter_map(|(_, (_, body))| body.clone()).collect()
    }

    fn forget(&mut self, before: Time) {
        self.table
            .lock()
            .unwrap()
            .retain(|_, (at, body)| *at >= before || body.is_some());
    }
}
