//! Which disks hold work, and what runs that was not asked for.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::time::Time;

/// What ran for less may fall between two looks of the daemon, and holds no work to speak of.
const WORKED_AFTER_MS: i64 = 6 * 60_000;

/// What instances of ours did, as far as it matters for their disks and their rental.
#[derive(Debug, Default)]
pub(super) struct Disks {
    /// Since when instances run without a break.
    running: BTreeMap<u64, Time>,
    /// Instances that worked, and whether their disks may be lost.
    worked: BTreeMap<u64, bool>,
    /// Instances that were to be destroyed before they had worked.
    ending: BTreeSet<u64>,
    /// For how many milliseconds instances were at work, or meant to be, that are on-demand where a
    /// bid was asked for; and when they were looked at last.
    not_asked: BTreeMap<u64, (i64, Time)>,
    /// Instances that were asked to start, and not to stop since.
    started: BTreeSet<u64>,
    /// Instances that were ever asked to stop.
    stopped: BTreeSet<u64>,
}

impl Disks {
    /// An instance runs now, or not; and whether what it does may be lost.
    pub(super) fn runs(&mut self, id: u64, runs: bool, may_be_lost: bool, now: Time) {
        if !runs {
            self.running.remove(&id);
            return;
        }
        let since = *self.running.entry(id).or_insert(now);
        if now.ms_since(since) >= WORKED_AFTER_MS {
            self.worked.insert(id, may_be_lost);
        }
    }

    /// The daemon recorded that it destroys an instance. That stands: the request, whose outcome may
    /// stay unknown and which is repeated until it takes, may take at any time, so what an instance
    /// that held no work until then does afterwards is on no disk that is kept.
    pub(super) fn destroys(&mut self, id: u64) {
        if !self.worked.contains_key(&id) {
            self.ending.insert(id);
        }
    }

    /// The daemon asks an instance to start.
    pub(super) fn starts(&mut self, id: u64) {
        self.started.insert(id);
    }

    /// The daemon asks an instance to stop, which may be stopped. Whether that has a reason: a start that
    /// found no free GPU may come true at any later time, or never, and no row says which, so what is
    /// to be left for good must be asked to stop, once for each start; and what stopped by itself, whose
    /// row may be an old one, once in all. A second stop makes nothing surer.
    pub(super) fn may_stop_again(&mut self, id: u64) -> bool {
        let first = self.stopped.insert(id);
        self.started.remove(&id) || first
    }

    /// Whether its policy keeps the disk of an instance for the work on it.
    pub(super) fn is_kept(&self, id: u64) -> bool {
        self.worked.get(&id) == Some(&false) && !self.ending.contains(&id)
    }

    /// For how many milliseconds an on-demand instance was at work that was to be a bid. What neither
    /// runs nor is meant to costs its disk alone, which its policy may keep; it counts on when it
    /// runs again.
    pub(super) fn not_asked_ms(&mut self, id: u64, at_work: bool, now: Time) -> i64 {
        let (ms, looked_at) = self.not_asked.entry(id).or_insert((0, now));
        if at_work {
            *ms += now.ms_since(*looked_at);
        }
        *looked_at = now;
        *ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn worked(disks: &mut Disks, from: i64) {
        disks.runs(7, true, false, Time(from));
        disks.runs(7, true, false, Time(from + WORKED_AFTER_MS));
    }

    #[test]
    fn a_disk_is_kept_once_its_instance_worked() {
        let mut disks = Disks::default();
        disks.runs(7, true, false, Time(0));
        disks.runs(7, false, false, Time(5 * MINUTE));
        disks.runs(7, true, false, Time(9 * MINUTE));
        assert!(!disks.is_kept(7));
        worked(&mut disks, 20 * MINUTE);
        assert!(disks.is_kept(7));
        disks.destroys(7);
        assert!(disks.is_kept(7), "it had worked before");
    }

    #[test]
    fn what_was_to_be_destroyed_before_it_worked_holds_nothing_that_is_kept() {
        let mut disks = Disks::default();
        disks.runs(7, true, false, Time(0));
        disks.destroys(7);
        worked(&mut disks, MINUTE);
        assert!(!disks.is_kept(7));
    }

    #[test]
    fn what_stands_still_is_asked_to_stop_once_and_once_for_each_start() {
        let mut disks = Disks::default();
        assert!(disks.may_stop_again(7), "it may have stopped by itself");
        assert!(!disks.may_stop_again(7));
        disks.starts(7);
        assert!(disks.may_stop_again(8));
        assert!(disks.may_stop_again(7));
        assert!(!disks.may_stop_again(7));
    }

    #[test]
    fn what_was_not_asked_for_counts_while_it_is_at_work() {
        let mut disks = Disks::default();
        let mut look = |at_work, minutes| disks.not_asked_ms(7, at_work, Time(minutes * MINUTE));
        assert_eq!(look(true, 0), 0);
        assert_eq!(look(true, 10), 10 * MINUTE);
        assert_eq!(look(false, 300), 10 * MINUTE);
        assert_eq!(look(true, 320), 30 * MINUTE, "it does not begin anew");
    }
}
