//! What runners do, by the market's own word: nothing works that its label does not let work, nor two
//! runners of one replica, and what has ended does not go on being paid for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::market::{AtWork, Market};
use crate::types::ids::{Permit, ReplicaId, Tail};
use crate::types::time::{Time, millis};

/// A command goes on for so long at most after its label lets it no more: until its runner looks at it
/// again, and as long again until the checker does; and some steps of each.
const GOES_ON_MAX: Duration = Duration::from_secs(60 + 60 + 10);

/// Once nothing but the daemon acts, an instance whose command has ended is stopped or destroyed within
/// this: a log is read once in a poll, and a bid that was cut is acted on within minutes.
const ENDED_FOR_MAX: Duration = Duration::from_mins(40);

/// What was seen of runners.
#[derive(Debug, Default)]
pub(super) struct Runners {
    /// When the label of what works was last seen to let it.
    let_at: BTreeMap<u64, Time>,
    /// Which instance's command works, by replica, in the look that goes on.
    working: BTreeMap<ReplicaId, u64>,
    /// Since when nothing but the daemon acts.
    still_from: Option<Time>,
    /// Where and when a command ended well that is to run once, by replica.
    ended_well: BTreeMap<ReplicaId, (u64, Time)>,
    /// Instances on which one did, and which was counted.
    counted: BTreeSet<u64>,
    /// How often one was begun once more.
    begun_again: u64,
}

impl Runners {
    /// A look at all instances begins.
    pub(super) fn begins(&mut self) {
        self.working.clear();
    }

    /// Nothing but the daemon acts; whether it does so still.
    pub(super) fn is_still(&mut self, still: bool, now: Time) {
        self.still_from = still.then(|| self.still_from.unwrap_or(now));
    }

    /// How often a command that was to run once, and had ended well, was begun and paid for once more: its
    /// end was not heard before its machine was gone.
    pub(super) fn begun_again(&self) -> u64 {
        self.begun_again
    }

    /// Looks at whether a command that is to run once does. What ends while all is still is heard.
    pub(super) fn look_for_ends(
        &mut self,
        id: u64,
        replica: &ReplicaId,
        runner: &AtWork,
        now: Time,
    ) -> Option<String> {
        if runner.ended_well && self.counted.insert(id) {
            self.ended_well.insert(replica.clone(), (id, now));
        }
        let (on, at) = *self.ended_well.get(replica).filter(|_| runner.works)?;
        self.ended_well.remove(replica);
        self.begun_again += 1;
        self.still_from.filter(|&from| at >= from).map(|_| {
            format!(
                "the command of {replica} ended well on instance {on} and is begun again on {id}"
            )
        })
    }

    /// Looks at an instance of ours with its label as it is now; what is wrong. Whether its command
    /// works, and so may leave something on its disk, is its `works`.
    pub(super) fn look(
        &mut self,
        id: u64,
        replica: &ReplicaId,
        label: Option<&str>,
        runner: &AtWork,
        now: Time,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        if !runner.works {
            self.let_at.remove(&id);
            wrong.extend(self.ended(id, runner, now));
            return wrong;
        }
        if let Some(other) = self.working.insert(replica.clone(), id) {
            wrong.push(format!("runners work twice for {replica}: {other}, {id}"));
        }
        if !runner.fenced {
            return wrong;
        }
        let lets = |tail: Tail| {
            let own = u64::from(tail.generation) == runner.generation;
            own && tail.permit == Permit::Go && tail.until > now
        };
        let may = label.and_then(Tail::of).is_some_and(lets);
        let last = self.let_at.entry(id).or_insert(now);
        if may {
            *last = now;
        } else if now.ms_since(*last) > millis(GOES_ON_MAX) {
            wrong.push(format!(
                "the command on instance {id} of {replica} works on although its label does not let it"
            ));
        }
        wrong
    }

    fn ended(&self, id: u64, runner: &AtWork, now: Time) -> Option<String> {
        let since = runner.ended?.max(self.still_from?);
        (now.ms_since(since) > millis(ENDED_FOR_MAX)).then(|| {
            format!("the command on instance {id} has ended, and the instance is kept running")
        })
    }
}

/// Whether an instance whose container runs may leave work on its disk: where a runner looks after it,
/// only while its command works.
pub(super) fn may_work(market: &Market, id: u64, runs: bool) -> bool {
    runs && market.at_work(id).is_none_or(|runner| runner.works)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn replica() -> ReplicaId {
        ReplicaId {
            job: "watch".parse().unwrap(),
            index: 0,
        }
    }

    fn runner(works: bool) -> AtWork {
        AtWork {
            generation: 3,
            fenced: true,
            works,
            ended: None,
            ended_well: false,
        }
    }

    fn label(tail: &str) -> String {
        format!("hg-abcdefgh-watch-r0-12/{tail}")
    }

    fn look(runners: &mut Runners, id: u64, tail: &str, minutes: i64) -> usize {
        runners.begins();
        let at = Time(minutes * MINUTE);
        let text = label(tail);
        let wrong = runners.look(id, &replica(), Some(&text), &runner(true), at);
        wrong.len()
    }

    #[test]
    fn what_works_on_past_its_lease_or_its_generation_is_found() {
        for wrong in ["g3.go.600", "g4.go.9999", "g3.hold.9999", "nothing"] {
            let mut runners = Runners::default();
            assert_eq!(look(&mut runners, 1, "g3.go.9999", 9), 0);
            assert_eq!(look(&mut runners, 1, wrong, 10), 0, "it was not read yet");
            assert_eq!(look(&mut runners, 1, wrong, 11), 0);
            assert_eq!(look(&mut runners, 1, wrong, 12), 1, "{wrong}");
            // One that heeds no label may.
            let free = AtWork {
                fenced: false,
                ..runner(true)
            };
            let text = label(wrong);
            let found = runners.look(2, &replica(), Some(&text), &free, Time(99 * MINUTE));
            assert_eq!(found.len(), 1, "beside another: {found:?}");
        }
    }

    #[test]
    fn two_of_one_replica_are_found_in_one_look() {
        let mut runners = Runners::default();
        let text = label("g3.go.9999");
        let mut at = |id| {
            let seen = runner(true);
            let wrong = runners.look(id, &replica(), Some(&text), &seen, Time(0));
            wrong.len()
        };
        assert_eq!((at(1), at(2)), (0, 1));
        runners.begins();
        let seen = runner(true);
        let wrong = runners.look(2, &replica(), Some(&text), &seen, Time(0));
        assert_eq!(wrong, Vec::<String>::new());
    }

    #[test]
    fn a_command_that_ended_well_and_is_begun_again_is_counted_and_wrong_once_all_is_still() {
        for still in [false, true] {
            let mut runners = Runners::default();
            runners.is_still(still, Time(0));
            let well = AtWork {
                ended: Some(Time(MINUTE)),
                ended_well: true,
                ..runner(false)
            };
            let mut look = |id, seen: &AtWork, minutes| {
                let at = Time(minutes * MINUTE);
                runners.look_for_ends(id, &replica(), seen, at).is_some()
            };
            assert!(!look(1, &runner(true), 0), "it works for the first time");
            assert!(!look(1, &well, 2));
            assert_eq!(look(2, &runner(true), 3), still);
            assert!(!look(1, &well, 4), "it lingers, and was counted");
            assert!(!look(2, &runner(true), 5));
            assert_eq!(runners.begun_again(), 1);
        }
    }

    #[test]
    fn what_has_ended_is_not_kept_running_once_all_is_still() {
        let mut runners = Runners::default();
        let ended = AtWork {
            ended: Some(Time(0)),
            ..runner(false)
        };
        let mut look = |still, minutes| {
            let at = Time(minutes * MINUTE);
            runners.is_still(still, at);
            runners.look(1, &replica(), None, &ended, at).len()
        };
        assert_eq!(look(false, 90), 0);
        assert_eq!(look(true, 100), 0);
        assert_eq!(look(true, 140), 0);
        assert_eq!(look(true, 141), 1);
    }
}
