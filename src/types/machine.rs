//! What is kept of a machine: how it served us, and what befell us there beside what was to be expected.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::{HostId, MachineId};
use super::money::Rate;
use super::time::{Time, millis};

/// What is kept of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// Which.
    pub id: MachineId,
    /// Failures (starts that did not come up, hosts lost, too-early ends) in a row.
    pub failures: u32,
    /// No new rental there before this.
    pub cool_until: Option<Time>,
    /// Our highest bid there, and when we last held or bid: evidence against ratchets.
    pub highest_bid: Option<(Rate, Time)>,
    /// Until when its last failures count against its host, too.
    #[serde(default)]
    pub failing_until: Option<Time>,
    /// Its owner, as our last instance there had it.
    #[serde(default)]
    pub host: Option<HostId>,
    /// The model of its GPUs, as our last instance there had it.
    #[serde(default)]
    pub gpu_name: Option<String>,
    /// What our instances there were like.
    #[serde(default)]
    pub past: Past,
    /// What befell them.
    #[serde(default)]
    pub track: Track,
}

impl MachineRecord {
    /// A machine that nothing is known of yet.
    pub fn new(id: MachineId) -> Self {
        Self {
            id,
            failures: 0,
            cool_until: None,
            highest_bid: None,
            failing_until: None,
            host: None,
            gpu_name: None,
            past: Past::default(),
            track: Track::default(),
        }
    }
}

/// What is known of a span of time in milliseconds once another was seen, which counts a quarter.
fn blended(known: Option<i64>, ms: i64) -> i64 {
    let ms = ms.max(0);
    known.map_or(ms, |known| known.saturating_add((ms - known.max(0)) / 4))
}

/// Images of which it is known how long a machine takes to bring them up, at most.
pub const BOOTS_KEPT: usize = 8;

/// What instances of ours on a machine were like, over all time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// Those that came up.
    pub starts: u32,
    /// Those that failed by the machine: did not come up, were refused or silent, broke, were lost with
    /// the host, or ended within seconds.
    pub failures: u32,
    /// Those of the failed that never came up.
    #[serde(default)]
    pub no_starts: u32,
    /// Milliseconds from the rent to being seen to run, whatever the image: each new start counts a
    /// quarter.
    pub boot_ms: Option<i64>,
    /// The same by image, as [`Asked`](super::start::Asked) names it; at most [`BOOTS_KEPT`].
    #[serde(default)]
    pub boots: BTreeMap<String, i64>,
    /// Its disk as the runner measured it last, MB/s.
    pub disk_mb_s: Option<u32>,
    /// Its download as the runner measured it last, Mbit/s.
    pub down_mbit_s: Option<u32>,
}

impl Past {
    /// Takes up that an instance with an image came up, so long after it was rented; `None`: how long it took
    /// is not known, for it came up later than a start may take, or was stopped first.
    pub fn came_up(&mut self, image: Option<&str>, boot_ms: Option<i64>) {
        self.starts = self.starts.saturating_add(1);
        let Some(boot_ms) = boot_ms else { return };
        self.boot_ms = Some(blended(self.boot_ms, boot_ms));
        let Some(image) = image else { return };
        let known = self.boots.get(image).copied();
        if known.is_none() && self.boots.len() >= BOOTS_KEPT {
            // Which one was not used for longest is not known; any is as good.
            self.boots.pop_first();
        }
        self.boots.insert(image.to_owned(), blended(known, boot_ms));
    }

    /// Milliseconds from the rent to being seen to run that are expected with an image: as it was with
    /// this one, or else with any.
    pub fn boot_ms_of(&self, image: &str) -> Option<i64> {
        self.boots.get(image).copied().or(self.boot_ms)
    }
}

/// How often in an hour something was to be expected to befall an instance when it was rented, in
/// millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Odds {
    /// That a bid loses its GPUs. Nothing for a rental on demand.
    pub outbid_ppm_h: i64,
    /// That the host fails.
    pub lost_ppm_h: i64,
}

/// How often something happened, and how often it was to be expected, in millionths. Both fade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How often it happened.
    pub met_ppm: i64,
    /// How often it was to be expected.
    pub expected_ppm: i64,
}

const ONCE_PPM: i64 = 1_000_000;

impl Tally {
    /// Takes up that it happened.
    pub fn met(&mut self) {
        self.met_ppm = self.met_ppm.saturating_add(ONCE_PPM);
    }

    /// Takes up a time in which it was to be expected so often an hour.
    pub fn exposed(&mut self, ppm_h: i64, ms: i64) {
        const MS_PER_HOUR: i128 = 3_600_000;
        let expected = i128::from(ppm_h.max(0)) * i128::from(ms.max(0)) / MS_PER_HOUR;
        let expected = i64::try_from(expected).unwrap_or(i64::MAX);
        self.expected_ppm = self.expected_ppm.saturating_add(expected);
    }

    /// Both tallies as one.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            met_ppm: self.met_ppm.saturating_add(other.met_ppm),
            expected_ppm: self.expected_ppm.saturating_add(other.expected_ppm),
        }
    }

    fn fade(&mut self) {
        self.met_ppm -= faded(self.met_ppm);
        self.expected_ppm -= faded(self.expected_ppm);
    }
}

/// What a day takes of an amount, in ten-thousandths, so that half is left after two weeks: 2^(-1/14) is
/// 0.9517.
const FADES_A_DAY: u16 = 483;

const DAY: Duration = Duration::from_hours(24);

fn faded(amount: i64) -> i64 {
    let gone = i128::from(amount) * i128::from(FADES_A_DAY) / 10_000;
    i64::try_from(gone).unwrap_or(amount)
}

/// Days that fade at once, at most: a clock that is wrong by years for a moment does not take everything, and
/// a daemon that was away for long catches up within some looks.
const FADED_DAYS: i64 = 7;

/// Numbers of GPUs of which a machine's slots are told apart, at most.
const SLOTS_KEPT: usize = 16;

/// What befell our instances on a machine, beside what was to be expected. What is older counts less:
/// half after two weeks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    /// Bids that lost their GPUs, by the number of GPUs of the slot.
    pub outbids: BTreeMap<u32, Tally>,
    /// Failures of the host under a running instance.
    pub losses: Tally,
    /// Slots lost to a rival that ran again by themselves.
    pub recoveries: u32,
    /// Milliseconds that they took: each new one counts a quarter.
    pub recovery_ms: Option<i64>,
    /// Up to when this has faded.
    pub faded_to: Option<Time>,
}

impl Track {
    /// Lets what is known fade up to a moment, by whole days.
    pub fn fade(&mut self, now: Time) {
        let Some(at) = self.faded_to.filter(|&at| at <= now) else {
            // After a clock that was set back it fades on from there.
            self.faded_to = Some(now);
            return;
        };
        let days = (now.ms_since(at) / millis(DAY)).min(FADED_DAYS);
        for _ in 0..days {
            self.losses.fade();
            for tally in self.outbids.values_mut() {
                tally.fade();
            }
        }
        self.faded_to = Some(at + DAY * u32::try_from(days).unwrap_or(u32::MAX));
    }

    /// What is left at a moment of what this holds, as a share: it fades whether or not anybody writes that
    /// down.
    pub fn left(&self, now: Time) -> f64 {
        let days = self
            .faded_to
            .map_or(0, |at| now.ms_since(at).max(0) / millis(DAY));
        let a_day = f64::from(10_000 - FADES_A_DAY) / 10_000.0;
        a_day.powi(i32::try_from(days).unwrap_or(i32::MAX))
    }

    /// Bids on a slot with so many GPUs.
    pub fn outbids_of(&mut self, gpus: u32) -> &mut Tally {
        let full = self.outbids.len() >= SLOTS_KEPT && !self.outbids.contains_key(&gpus);
        // Slots have few sizes; a marketplace that names ever new ones does not fill the memory.
        let key = if full {
            self.outbids.keys().next().copied().unwrap_or(gpus)
        } else {
            gpus
        };
        self.outbids.entry(key).or_default()
    }

    /// Bids on any of the machine's slots.
    pub fn outbids_in_all(&self) -> Tally {
        self.outbids
            .values()
            .fold(Tally::default(), |sum, tally| sum.and(*tally))
    }

    /// Takes up that a slot which was lost to a rival ran again by itself.
    pub fn recovered(&mut self, away_ms: i64) {
        self.recoveries = self.recoveries.saturating_add(1);
        self.recovery_ms = Some(blended(self.recovery_ms, away_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_767_643_200_000);

    #[test]
    fn what_befell_fades_to_half_in_two_weeks() {
        let mut track = Track::default();
        track.fade(NOW);
        track.outbids_of(2).met();
        track.losses.exposed(500_000, 3_600_000);
        assert_eq!(track.losses.expected_ppm, 500_000);
        track.fade(NOW + Duration::from_hours(23));
        assert_eq!(track.outbids_in_all().met_ppm, ONCE_PPM);
        let later = NOW + Duration::from_hours(14 * 24 + 5);
        track.fade(later);
        assert_eq!(
            track.faded_to,
            Some(NOW + Duration::from_hours(7 * 24)),
            "half at once"
        );
        track.fade(later);
        let half = track.outbids_in_all().met_ppm;
        assert!((495_000..=505_000).contains(&half), "{half}");
        assert_eq!(track.faded_to, Some(NOW + Duration::from_hours(14 * 24)));
        track.fade(later);
        // Set back.
        track.fade(NOW);
        assert_eq!(track.outbids_in_all().met_ppm, half);
        track.fade(NOW + Duration::from_hours(23));
        assert_eq!(track.outbids_in_all().met_ppm, half);
        for _ in 0..100 {
            track.fade(NOW + Duration::from_hours(24 * 5000));
        }
        assert_eq!(track.outbids_in_all().met_ppm / 100, 0);
    }

    #[test]
    fn a_boot_is_known_by_image_and_otherwise_by_any() {
        let mut past = Past::default();
        assert_eq!(past.boot_ms_of("a"), None);
        past.came_up(Some("a"), Some(100_000));
        past.came_up(Some("b"), Some(500_000));
        past.came_up(Some("b"), Some(100_000));
        assert_eq!(past.boot_ms_of("a"), Some(100_000));
        assert_eq!(past.boot_ms_of("b"), Some(400_000));
        assert_eq!(past.boot_ms_of("c"), past.boot_ms);
        for image in 0..100 {
            past.came_up(Some(&format!("image {image:03}")), Some(i64::MAX));
            past.came_up(None, Some(-5));
        }
        assert_eq!(past.boots.len(), BOOTS_KEPT);
        assert_eq!(past.starts, 203);
        let known = past.boot_ms;
        past.came_up(Some("a"), None);
        assert_eq!((past.starts, past.boot_ms), (204, known));
    }

    #[test]
    fn ever_new_sizes_of_slots_do_not_fill_the_memory() {
        let mut track = Track::default();
        for gpus in 1..1000 {
            track.outbids_of(gpus).met();
        }
        assert_eq!(track.outbids.len(), SLOTS_KEPT);
        assert_eq!(track.outbids_in_all().met_ppm, 999 * ONCE_PPM);
    }
}
