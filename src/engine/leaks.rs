//! What costs money without being at work: destroys that do not take, and instances that stand
//! still and are billed. Each is told once when it is past what is tolerated, then now and again
//! for as long as it lasts.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::ids::InstanceId;
use crate::types::instance::{Held, Listing, Phase};
use crate::types::money::Rate;
use crate::types::state::{Event, Severity, State};
use crate::types::time::{Time, human};

/// A destroy that shows no effect for so long is a person's to look at. It is sent again every few
/// minutes before and after that.
pub const DESTROY_STUCK_AFTER: Duration = Duration::from_mins(15);

/// What is stuck is told of again no sooner than this.
const STUCK_AGAIN: Duration = Duration::from_hours(1);

/// An instance may stand still for so long before it is told of: outbid, parked, being made, its
/// container ended, its host silent. The policy's own patience acts much earlier where it can.
pub const IDLE_TOLERATED: Duration = Duration::from_hours(1);

/// What stands still is told of again no sooner than this.
const IDLE_AGAIN: Duration = Duration::from_hours(24);

/// When each thing was told of last.
pub type Told = BTreeMap<(InstanceId, &'static str), Time>;

/// What an instance is that is not at work; `None` where it is.
pub fn idle(held: &Held) -> Option<&'static str> {
    if held.destroying.is_some() {
        Some("destroying")
    } else if held.phase == Phase::Running {
        None
    } else if held.parked {
        Some("parked")
    } else {
        Some(held.phase.as_str())
    }
}

/// What an instance costs per hour as it stands.
pub fn costs_now(held: &Held) -> Rate {
    let gpus = if held.bills_gpu() {
        held.price
    } else {
        Rate::ZERO
    };
    gpus + held.storage
}

/// What is to be told now. What is no longer so is forgotten in `told`.
pub fn leaks(state: &State, listing: Option<&Listing>, now: Time, told: &mut Told) -> Vec<Event> {
    told.retain(|(id, kind), _| {
        let held = state.held.get(id);
        held.is_some_and(|held| match *kind {
            STUCK => held.destroying.is_some(),
            _ => held.destroying.is_none() && idle(held).is_some(),
        })
    });
    let mut events = Vec::new();
    for held in state.held.values() {
        let found = match held.destroying {
            Some(_) => stuck(held, listing, now),
            None => standing(held, now),
        };
        let Some((kind, again, severity, text)) = found else {
            continue;
        };
        let last = told.get(&(held.id, kind));
        // In the future: the clock was set back, and nobody knows how long ago it was.
        if last.is_none_or(|&last| last > now || now.since(last) >= again) {
            told.insert((held.id, kind), now);
            events.push(Event {
                at: now,
                severity,
                kind: kind.to_owned(),
                replica: Some(held.replica.clone()),
                instance: Some(held.id),
                text,
            });
        }
    }
    events
}

const STUCK: &str = "destroy-stuck";
const IDLE: &str = "idle-billing";

type Found = (&'static str, Duration, Severity, String);

/// A destroy that does not take. Absence from a listing is for others to prove; here it only keeps
/// quiet.
fn stuck(held: &Held, listing: Option<&Listing>, now: Time) -> Option<Found> {
    let listing = listing?;
    let listed =
        listing.rows.iter().any(|row| row.id == held.id) || listing.unreadable.contains(&held.id);
    let since = held.destroying_since?;
    let lasted = now.since(since);
    (listed && lasted >= DESTROY_STUCK_AFTER).then(|| {
        let text = format!(
            "instance {} was asked to be destroyed {} ago and is still there, at {:.4}/h now and \
             {:.4}/h at most; it is asked again every few minutes; look at it on the marketplace's \
             own page",
            held.id,
            human(lasted),
            costs_now(held),
            held.worst_rate()
        );
        (STUCK, STUCK_AGAIN, Severity::Alarm, text)
    })
}

fn standing(held: &Held, now: Time) -> Option<Found> {
    let state = idle(held)?;
    let lasted = now.since(held.phase_since);
    (lasted >= IDLE_TOLERATED).then(|| {
        let text = format!(
            "instance {} has been {state} for {} and costs {:.4}/h all the same; `haggle explain {}` \
             says what it waits for",
            held.id,
            human(lasted),
            costs_now(held),
            held.replica.job
        );
        (IDLE, IDLE_AGAIN, Severity::Warning, text)
    })
}

#[cfg(test)]
mod tests {
    use super::super::eligible::samples::{NOW, held, job, offer, usd, world};
    use super::*;
    use crate::types::instance::DestroyWhy;

    struct Scene {
        state: State,
        told: Told,
    }

    impl Scene {
        fn new(change: impl FnOnce(&mut Held)) -> Self {
            let mut state = world(Vec::new()).state;
            let mut made = held(5, &job("a"), &offer(9), usd(0.36));
            made.phase_since = NOW;
            change(&mut made);
            state.held.insert(made.id, made);
            Self {
                state,
                told: Told::new(),
            }
        }

        /// What is told so many minutes later, where the instance is listed or not.
        fn after(&mut self, minutes: u64, listed: Option<bool>) -> Vec<Event> {
            let listing = listed.map(|listed| Listing {
                rows: Vec::new(),
                complete: true,
                unreadable: listed.then_some(InstanceId(5)).into_iter().collect(),
            });
            let now = NOW + Duration::from_mins(minutes);
            leaks(&self.state, listing.as_ref(), now, &mut self.told)
        }

        fn count(&mut self, minutes: u64, listed: Option<bool>) -> usize {
            self.after(minutes, listed).len()
        }
    }

    #[test]
    fn a_destroy_that_does_not_take_is_an_alarm_once_and_then_each_hour() {
        let mut scene = Scene::new(|held| {
            held.destroying = Some(DestroyWhy::Finished);
            held.destroying_since = Some(NOW);
        });
        assert_eq!(scene.count(14, Some(true)), 0);
        let told = scene.after(15, Some(true));
        assert_eq!(told[0].severity, Severity::Alarm);
        assert!(told[0].text.contains("$0.3700/h"), "{}", told[0].text);
        for quiet in [16, 40, 74] {
            assert_eq!(scene.count(quiet, Some(true)), 0, "{quiet}");
        }
        assert_eq!(scene.count(75, Some(true)), 1);
        assert_eq!(scene.count(20, Some(true)), 1, "the clock was set back");
        assert_eq!(scene.count(200, Some(false)), 0, "it is not there any more");
        assert_eq!(scene.count(200, None), 0, "nobody knows");
    }

    #[test]
    fn what_stands_still_and_is_billed_is_told_with_what_it_costs() {
        for (phase, parked, costs, word) in [
            (Phase::Stopped, true, "$0.0100/h", "parked"),
            (Phase::Stopped, false, "$0.0100/h", "stopped"),
            (Phase::Exited, false, "$0.3700/h", "exited"),
            (Phase::Offline, false, "$0.0100/h", "offline"),
            (Phase::Provisioning, false, "$0.0100/h", "provisioning"),
        ] {
            let mut scene = Scene::new(|held| {
                held.phase = phase;
                held.parked = parked;
                held.storage = usd(0.01);
            });
            assert_eq!(scene.count(59, Some(true)), 0, "{word}");
            let told = scene.after(60, Some(true));
            assert_eq!(told.len(), 1, "{word}");
            let text = &told[0].text;
            assert!(text.contains(costs) && text.contains(word), "{text}");
            assert_eq!(scene.count(24 * 60, Some(true)), 0, "{word}");
            assert_eq!(scene.count(25 * 60, Some(true)), 1, "{word}");
        }
        let mut scene = Scene::new(|held| held.phase = Phase::Running);
        assert_eq!(scene.count(600, Some(true)), 0);
    }

    #[test]
    fn what_came_back_to_work_is_told_anew_when_it_stands_still_again() {
        let mut scene = Scene::new(|held| held.phase = Phase::Stopped);
        assert_eq!(scene.count(60, None), 1);
        scene.state.held.get_mut(&InstanceId(5)).unwrap().phase = Phase::Running;
        assert_eq!(scene.count(61, None), 0);
        scene.state.held.get_mut(&InstanceId(5)).unwrap().phase = Phase::Stopped;
        assert_eq!(scene.count(62, None), 1);
    }
}
