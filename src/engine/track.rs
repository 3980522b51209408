//! What befalls instances is kept with their machines, beside what was to be expected.

use crate::types::instance::{Held, Rental};
use crate::types::machine::MachineRecord;
use crate::types::time::{Time, millis};

use std::time::Duration;

use super::observe::Fold;

/// What can befall a running instance without anybody's wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ill {
    /// A rival, or an on-demand renter, took a bid's GPUs.
    Outbid,
    /// The host failed.
    HostLost,
}

/// Between two looks this far apart an instance may be lost and come back without being seen to.
const WATCHED_WITHIN: Duration = Duration::from_mins(30);

/// An instance's hours go to its machine's record this often, to spare a write each tick.
const KEPT_EVERY: Duration = Duration::from_hours(1);

impl Fold<'_> {
    /// Changes the record of an instance's machine, which knows its owner and its model since.
    pub(crate) fn machine_of(&mut self, held: &Held, change: impl FnOnce(&mut MachineRecord)) {
        let mut record = self.draft.state.machine(held.slot.machine);
        record.host = held.host.or(record.host);
        if !held.gpu_name.is_empty() {
            record.gpu_name = Some(held.gpu_name.clone());
        }
        change(&mut record);
        self.draft.state.machines.insert(record.id, record);
    }

    /// Takes up that an instance ran for so long. Where nobody looked for long, or the clock was set ahead,
    /// it is not known that nothing befell it.
    pub(crate) fn ran(&mut self, held: &mut Held, ms: i64) {
        if ms > millis(WATCHED_WITHIN) || self.seen.moved.ahead_ms > 0 {
            return;
        }
        held.exposed_ms = held.exposed_ms.saturating_add(ms.max(0));
        if held.exposed_ms >= millis(KEPT_EVERY) {
            self.expose(held);
        }
    }

    /// Keeps with the machine for how long an instance ran. Of one whose offer was not seen it is not
    /// known what was to be expected, so it says nothing.
    pub(crate) fn expose(&mut self, held: &mut Held) {
        let ms = std::mem::take(&mut held.exposed_ms);
        let Some(odds) = held.odds.filter(|_| ms > 0) else {
            return;
        };
        let now = self.seen.now;
        let (gpus, bids) = (held.slot.gpus, held.rental == Rental::Bid);
        self.machine_of(held, |record| {
            record.track.fade(now);
            record.track.losses.exposed(odds.lost_ppm_h, ms);
            if bids {
                record.track.outbids_of(gpus).exposed(odds.outbid_ppm_h, ms);
            }
        });
    }

    /// Keeps with the machine what befell an instance.
    pub(crate) fn befell(&mut self, held: &mut Held, ill: Ill) {
        self.expose(held);
        // Without money the marketplace stops every bid: no rival did.
        let broke = ill == Ill::Outbid && self.seen.broke;
        if held.odds.is_none() || held.first_ran_at.is_none() || broke {
            return;
        }
        let now = self.seen.now;
        let gpus = held.slot.gpus;
        self.machine_of(held, |record| {
            record.track.fade(now);
            match ill {
                Ill::Outbid => record.track.outbids_of(gpus).met(),
                Ill::HostLost => record.track.losses.met(),
            }
        });
    }

    /// Keeps with the machine how long a slot was lost that runs again, where no bid of ours brought it
    /// back and no wish of ours kept it away.
    pub(crate) fn recovered(&mut self, held: &Held, since: Time) {
        let by_itself = held.bid_sent_at.is_none_or(|at| at < since);
        if held.rental == Rental::Bid && by_itself && !held.stop_asked {
            let away = self.seen.now.ms_since(since);
            self.machine_of(held, |record| record.track.recovered(away));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::eligible::samples::job;
    use super::super::watched::{MINUTE, Scene};
    use crate::types::instance::RawState;
    use crate::types::machine::{Odds, Tally, Track};
    use crate::types::money::BID_PARKED;
    use crate::types::plan::Situation;

    const ODDS: Odds = Odds {
        outbid_ppm_h: 60_000,
        lost_ppm_h: 6_000,
    };

    /// One that has been seen to run, just now.
    fn running() -> Scene {
        let mut scene = Scene::new(job("a"));
        scene.held_mut().odds = Some(ODDS);
        scene.shows(MINUTE, Some(RawState::Running), None);
        scene
    }

    fn shows(scene: &mut Scene, cur: RawState, actual: RawState) {
        scene.row.cur_state = Some(cur);
        scene.shows(MINUTE, Some(actual), None);
    }

    fn track(scene: &Scene) -> Track {
        scene.state.machine(scene.row.machine.unwrap()).track
    }

    #[test]
    fn hours_and_outbids_are_kept_with_the_machine() {
        let mut scene = running();
        scene.minutes(30);
        assert_eq!(track(&scene).outbids_in_all(), Tally::default(), "not yet");
        shows(&mut scene, RawState::Stopped, RawState::Exited);
        let tally = track(&scene).outbids[&1];
        assert_eq!(tally.met_ppm, 1_000_000);
        assert_eq!(tally.expected_ppm, 30_000, "of half an hour");
        assert_eq!(track(&scene).losses.expected_ppm, 3_000);
        let record = scene.state.machine(scene.row.machine.unwrap());
        assert_eq!(record.gpu_name.as_deref(), Some("RTX 4090"));
        // A quarter of an hour later it runs again by itself.
        scene.minutes(14);
        shows(&mut scene, RawState::Running, RawState::Running);
        assert_eq!(track(&scene).recovery_ms, Some(15 * MINUTE));
        scene.minutes(61);
        assert_eq!(track(&scene).outbids[&1].expected_ppm, 90_000, "every hour");
    }

    #[test]
    fn what_we_asked_for_befalls_nobody() {
        let mut scene = running();
        scene.held_mut().stop_asked = true;
        shows(&mut scene, RawState::Stopped, RawState::Exited);
        shows(&mut scene, RawState::Running, RawState::Running);
        let track = track(&scene);
        assert_eq!(track.outbids_in_all().met_ppm, 0);
        assert_eq!((track.recoveries, track.losses.met_ppm), (0, 0));
    }

    #[test]
    fn a_host_that_fails_is_told_from_a_rival() {
        let mut scene = running();
        shows(&mut scene, RawState::Running, RawState::Offline);
        assert_eq!(track(&scene).losses.met_ppm, 1_000_000);
        assert_eq!(track(&scene).outbids_in_all().met_ppm, 0);
        scene.look(&[scene.row.id]);
        assert_eq!(track(&scene).losses.met_ppm, 1_000_000, "once");
        let mut scene = running();
        scene.look(&[scene.row.id]);
        assert_eq!(track(&scene).losses.met_ppm, 1_000_000, "gone while it ran");
    }

    #[test]
    fn what_nobody_saw_says_nothing() {
        let mut scene = running();
        scene.after(3 * 24 * 60 * MINUTE);
        scene.minutes(61);
        let known = track(&scene).outbids[&1].expected_ppm;
        assert_eq!(known, 60_000, "of the hour that was watched");
        // Out of money: every bid is stopped at once.
        let mut scene = running();
        scene.broke = true;
        shows(&mut scene, RawState::Stopped, RawState::Exited);
        assert_eq!(track(&scene).outbids_in_all().met_ppm, 0);
        // What we bid for again did not come back by itself.
        scene.held_mut().bid_sent_at = Some(scene.now);
        shows(&mut scene, RawState::Running, RawState::Running);
        assert_eq!(track(&scene).recoveries, 0);
    }

    #[test]
    fn an_end_by_the_jobs_own_word_is_no_failure_of_the_host() {
        let mut scene = running();
        scene.job.finish = crate::types::job::Finish::Gone;
        scene.look(&[scene.row.id]);
        assert_eq!(track(&scene).losses.met_ppm, 0);
        let mut scene = running();
        scene.held_mut().ends_at = Some(scene.now);
        scene.look(&[scene.row.id]);
        assert_eq!(track(&scene).losses.met_ppm, 0, "its rental ended");
    }

    #[test]
    fn what_the_guard_parked_was_outbid_by_nobody() {
        let mut scene = running();
        scene.row.price = Some(BID_PARKED);
        shows(&mut scene, RawState::Stopped, RawState::Exited);
        assert_eq!(scene.events.last().unwrap().kind, "parked-by-others");
        assert_eq!((scene.count("outbid"), scene.replica().outbids), (0, 0));
        assert_eq!(scene.held().outbid_at, None);
        let situation = scene.situation();
        assert!(
            matches!(situation, Situation::ParkedByOthers { .. }),
            "{situation:?}"
        );
        // Somebody lets it go on: that says nothing of rivals either.
        scene.row.price = Some(crate::engine::eligible::samples::usd(0.2));
        shows(&mut scene, RawState::Running, RawState::Running);
        let track = track(&scene);
        assert_eq!(track.outbids_in_all().met_ppm, 0);
        assert_eq!(track.recoveries, 0);
    }

    #[test]
    fn of_an_unknown_offer_nothing_is_counted() {
        let mut scene = running();
        scene.held_mut().odds = None;
        scene.minutes(90);
        shows(&mut scene, RawState::Stopped, RawState::Exited);
        assert_eq!(track(&scene).outbids_in_all(), Tally::default());
    }
}
