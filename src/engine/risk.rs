//! How likely a rental is to be interrupted, and how it is likely to begin.
//!
//! A row gives a first idea: its host's reliability says how often the host fails, and the margin of a
//! bid over the floor how often it is outbid. What befell our own instances corrects it. For both it is
//! counted how often something happened and how often it was to be expected by the first idea; the
//! hazard is the first idea's, times
//!
//! `prior × (weight + happened) ÷ (weight + prior × expected)`
//!
//! which is the mean of a gamma distribution after Poisson counts. It is worked out for all our instances
//! first, then with that as the prior for those of a model, then for a machine's, and then for a slot's
//! (for failures: of all, of a host, of a machine). So a slot that nothing is known of is taken for one
//! of its class, and one that was held for long without a loss is trusted more with each hour: spells
//! that have lasted, last. What one machine says of others is bounded: it is one witness, however long it
//! served or however often it failed. Counts fade, half of them in two weeks.

use std::collections::BTreeMap;

use crate::types::ids::HostId;
use crate::types::instance::Rental;
use crate::types::machine::{MachineRecord, Odds, Tally};
use crate::types::money::{BID_STEP, Rate};
use crate::types::offer::Offer;
use crate::types::state::State;
use crate::types::time::Time;

/// Reliability where the row does not say it: the observed market's lowest hundredth.
pub const RELIABILITY_UNKNOWN: f64 = 0.912;

/// Hours that a host is away when it fails: an assumption. With it, reliability as a share of time
/// gives how often a host fails: (1 − r) ÷ (r × this).
pub const OUTAGE_HOURS: f64 = 2.0;

/// Chance per hour that a bid at the floor is outbid. In the observed market a slot's floor moved
/// in 3.9 % of looks 25 minutes apart, one in three upwards: 1.3 % ÷ 0.417 h.
pub const OUTBID_PER_HOUR: f64 = 0.031;

/// Margin, as a share of the floor, that divides the chance of being outbid by e: an assumption.
/// Observed rises of a floor are mostly 10 to 30 %.
pub const OUTBID_MARGIN_SCALE: f64 = 0.15;

/// Chance per hour that an on-demand renter takes the GPUs of a bid, whatever it is: an
/// assumption, in the order of the outbid rate.
pub const TAKEN_PER_HOUR: f64 = 0.02;

/// How many events the first idea of all rentals, and that of a class or a host, is worth.
const WEIGHT_CLASS: f64 = 4.0;

/// How many events what a single machine says of others is worth at most.
const WITNESS_MAX: f64 = 2.0;

/// How many events a class is worth where a machine is judged.
const WEIGHT_MACHINE: f64 = 2.0;

/// How many events a machine is worth where one of its slots is judged. With one, the chance that a
/// spell ends soon falls with its age as of a spell whose hazard is not known at all.
const WEIGHT_SLOT: f64 = 1.0;

/// Share of starts that fail where nothing is known of a machine, and how many starts that is worth: an
/// assumption.
const START_FAILS: f64 = 0.05;
const WEIGHT_STARTS: f64 = 20.0;

/// Chance per hour that a rival outbids a bid that is so far over the floor, as a share of it, where
/// nothing is known but that.
pub(crate) fn rivals_per_hour(margin: f64) -> f64 {
    OUTBID_PER_HOUR * (-margin / OUTBID_MARGIN_SCALE).exp()
}

/// Expected interruptions in an hour of running.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Hazard {
    /// That a rival or an on-demand renter takes a bid's GPUs.
    pub(crate) outbid: f64,
    /// That the host fails.
    pub(crate) lost: f64,
}

impl Hazard {
    /// The first idea that a row gives.
    pub(crate) fn of(offer: &Offer, rental: Rental, price: Rate) -> Self {
        let reliability = offer
            .reliability
            .map_or(RELIABILITY_UNKNOWN, f64::from)
            .clamp(0.01, 1.0);
        let outbid = match rental {
            Rental::OnDemand => 0.0,
            Rental::Bid => {
                let floor = offer.floor.unwrap_or(price).max(BID_STEP).as_dollars();
                let margin = (price.as_dollars() / floor - 1.0).max(0.0);
                rivals_per_hour(margin) + TAKEN_PER_HOUR
            }
        };
        Self {
            outbid,
            lost: (1.0 - reliability) / (reliability * OUTAGE_HOURS),
        }
    }

    /// To be kept with an instance.
    pub(crate) fn odds(self) -> Odds {
        let ppm = |hazard: f64| (hazard * 1e6).round() as i64;
        Odds {
            outbid_ppm_h: ppm(self.outbid),
            lost_ppm_h: ppm(self.lost),
        }
    }
}

/// By how much what befell us differs from the first idea, by class and by host. Made once for a tick.
pub(crate) struct Risks<'a> {
    now: Time,
    /// Where nothing is known of a model.
    outbids_of_all: f64,
    outbids: BTreeMap<&'a str, f64>,
    losses_of_all: f64,
    losses: BTreeMap<HostId, f64>,
}

impl<'a> Risks<'a> {
    /// From what is known of machines.
    pub(crate) fn new(state: &'a State, now: Time) -> Self {
        let (mut all_outbids, mut all_losses) = (Counts::default(), Counts::default());
        let mut outbids: BTreeMap<&str, Counts> = BTreeMap::new();
        let mut losses: BTreeMap<HostId, Counts> = BTreeMap::new();
        for record in state.machines.values() {
            let track = &record.track;
            if track.faded_to.is_none() {
                continue;
            }
            let left = track.left(now);
            let of_bids = Counts::of(track.outbids_in_all(), left).of_one_witness();
            let of_host = Counts::of(track.losses, left).of_one_witness();
            all_outbids.add(of_bids);
            all_losses.add(of_host);
            if let Some(model) = record.gpu_name.as_deref() {
                outbids.entry(model).or_default().add(of_bids);
            }
            if let Some(host) = record.host {
                losses.entry(host).or_default().add(of_host);
            }
        }
        let outbids_of_all = all_outbids.factor(1.0, WEIGHT_CLASS);
        let losses_of_all = all_losses.factor(1.0, WEIGHT_CLASS);
        let factors =
            |(key, counts): (_, Counts)| (key, counts.factor(outbids_of_all, WEIGHT_CLASS));
        let of_hosts =
            |(key, counts): (_, Counts)| (key, counts.factor(losses_of_all, WEIGHT_CLASS));
        Self {
            now,
            outbids_of_all,
            outbids: outbids.into_iter().map(factors).collect(),
            losses_of_all,
            losses: losses.into_iter().map(of_hosts).collect(),
        }
    }

    /// By how much bids on a model's slots are lost more often than by the first idea.
    pub(crate) fn of_model(&self, gpu_name: &str) -> f64 {
        let known = self.outbids.get(gpu_name);
        known.copied().unwrap_or(self.outbids_of_all)
    }

    /// By how much bids on a slot are lost more often, where those on slots of its model are by
    /// `of_model`.
    pub(crate) fn of_slot(&self, of_model: f64, record: Option<&MachineRecord>, gpus: u32) -> f64 {
        let Some(track) = record.map(|record| &record.track) else {
            return of_model;
        };
        let left = track.left(self.now);
        let machine = Counts::of(track.outbids_in_all(), left).factor(of_model, WEIGHT_MACHINE);
        let slot = track.outbids.get(&gpus).copied().unwrap_or_default();
        Counts::of(slot, left).factor(machine, WEIGHT_SLOT)
    }

    /// By how much a machine's host fails more often than its reliability says.
    pub(crate) fn of_host(&self, host: Option<HostId>, record: Option<&MachineRecord>) -> f64 {
        let host = host.or(record.and_then(|record| record.host));
        let known = host.and_then(|host| self.losses.get(&host));
        let of_host = known.copied().unwrap_or(self.losses_of_all);
        let Some(track) = record.map(|record| &record.track) else {
            return of_host;
        };
        let left = track.left(self.now);
        Counts::of(track.losses, left).factor(of_host, WEIGHT_MACHINE)
    }
}

/// Share of a machine's starts that are expected to fail.
pub(crate) fn start_fails(record: Option<&MachineRecord>) -> f64 {
    let (starts, failures) =
        record.map_or((0, 0), |record| (record.past.starts, record.past.no_starts));
    let (starts, failures) = (f64::from(starts), f64::from(failures));
    (START_FAILS * WEIGHT_STARTS + failures) / (WEIGHT_STARTS + starts + failures)
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    met: f64,
    expected: f64,
}

impl Counts {
    fn of(tally: Tally, left: f64) -> Self {
        Self {
            met: tally.met_ppm.max(0) as f64 / 1e6 * left,
            expected: tally.expected_ppm.max(0) as f64 / 1e6 * left,
        }
    }

    /// What a machine says of others: its share, with the weight of a few events at most.
    fn of_one_witness(self) -> Self {
        let scale = (WITNESS_MAX / self.met.max(self.expected)).min(1.0);
        if scale.is_finite() {
            Self {
                met: self.met * scale,
                expected: self.expected * scale,
            }
        } else {
            self
        }
    }

    fn add(&mut self, other: Self) {
        self.met += other.met;
        self.expected += other.expected;
    }

    fn factor(self, prior: f64, weight: f64) -> f64 {
        prior * (weight + self.met) / (weight + prior * self.expected)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::eligible::samples::{NOW, offer, usd, world};
    use super::*;
    use crate::types::ids::MachineId;

    fn record(id: u64, met: u32, expected: f64) -> MachineRecord {
        let mut record = MachineRecord::new(MachineId(id));
        record.gpu_name = Some("RTX 4090".to_owned());
        record.host = Some(HostId(7));
        record.track.fade(NOW);
        let tally = Tally {
            met_ppm: i64::from(met) * 1_000_000,
            expected_ppm: (expected * 1e6) as i64,
        };
        *record.track.outbids_of(1) = tally;
        record.track.losses = tally;
        record
    }

    fn state(records: impl IntoIterator<Item = MachineRecord>) -> State {
        let mut state = world(Vec::new()).state;
        for record in records {
            state.machines.insert(record.id, record);
        }
        state
    }

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }

    #[test]
    fn without_history_the_row_alone_counts() {
        let state = state([]);
        let risks = Risks::new(&state, NOW);
        near(risks.of_model("RTX 4090"), 1.0);
        near(risks.of_slot(1.0, None, 1), 1.0);
        near(risks.of_host(Some(HostId(7)), None), 1.0);
        let bare = MachineRecord::new(MachineId(1));
        near(risks.of_slot(1.0, Some(&bare), 1), 1.0);
        near(start_fails(None), 0.05);
        near(start_fails(Some(&bare)), 0.05);
    }

    #[test]
    fn what_befell_us_is_weighed_by_how_near_it_is() {
        // Six losses where one was expected, on one machine; none of its model where four were.
        let bad = record(1, 6, 1.0);
        let calm = record(2, 0, 4.0);
        let state = state([bad.clone(), calm.clone()]);
        let risks = Risks::new(&state, NOW);
        // As witnesses they are worth two events each.
        let (met, expected) = (2.0, 1.0 / 3.0 + 2.0);
        let all = (4.0 + met) / (4.0 + expected);
        let model = all * (4.0 + met) / (4.0 + all * expected);
        near(risks.of_model("RTX 4090"), model);
        near(risks.of_model("H100 SXM"), all);
        let of = |record| risks.of_slot(model, Some(record), 1);
        let machine = model * (2.0 + 6.0) / (2.0 + model);
        near(of(&bad), machine * (1.0 + 6.0) / (1.0 + machine));
        assert!(of(&calm) < 0.3 * model, "{}", of(&calm));
        let other = risks.of_slot(model, Some(&bad), 2);
        near(other, machine);
        let host = risks.of_host(Some(HostId(7)), None);
        near(host, model);
        assert!(risks.of_host(Some(HostId(7)), Some(&bad)) > host);
        near(risks.of_host(None, None), all);
        // In two weeks half of it is forgotten, whether or not anybody wrote that down.
        let later = Risks::new(&state, NOW + Duration::from_hours(14 * 24));
        let half = later.of_model("H100 SXM");
        // Six and four have faded to three and two; the first is still more than a witness may say.
        let (bad, calm) = (2.0 / (6.0 * left()), 2.0_f64.min(4.0 * left()));
        let expected = bad * left() + calm;
        near(half, (4.0 + 2.0) / (4.0 + expected));
    }

    fn left() -> f64 {
        0.9517_f64.powi(14)
    }

    #[test]
    fn one_machine_speaks_for_others_only_so_much() {
        let quiet = state([record(1, 0, 1000.0)]);
        let loud = state([record(1, 1000, 1.0)]);
        for (state, bounds) in [(quiet, 0.3..1.0), (loud, 1.0..4.0)] {
            let risks = Risks::new(&state, NOW);
            let other = risks.of_model("RTX 4090");
            assert!(bounds.contains(&other), "{other}");
        }
    }

    #[test]
    fn a_spell_that_has_lasted_lasts() {
        let state = state([]);
        let risks = Risks::new(&state, NOW);
        let hazard = |hours: f64| {
            let mut record = MachineRecord::new(MachineId(1));
            record.track.fade(NOW);
            record
                .track
                .outbids_of(1)
                .exposed(50_000, (hours * 3.6e6) as i64);
            risks.of_slot(1.0, Some(&record), 1)
        };
        let hazards = [0.0, 1.0, 5.0, 20.0, 100.0].map(hazard);
        assert!(
            hazards.windows(2).all(|pair| pair[1] < pair[0]),
            "{hazards:?}"
        );
        // After twenty hours in which one loss was to be expected.
        near(hazards[3], 2.0 / 3.0 / (1.0 + 2.0 / 3.0));
    }

    #[test]
    fn a_bid_further_over_the_floor_is_lost_less_often() {
        let offer = offer(1);
        let of = |rental, price| Hazard::of(&offer, rental, usd(price));
        near(of(Rental::Bid, 0.2).outbid, 0.051);
        assert!(of(Rental::Bid, 0.25).outbid < 0.03);
        near(of(Rental::OnDemand, 0.4).outbid, 0.0);
        near(of(Rental::OnDemand, 0.4).lost, of(Rental::Bid, 0.2).lost);
        let odds = of(Rental::Bid, 0.2).odds();
        assert_eq!(odds.outbid_ppm_h, 51_000);
    }

    proptest! {
        #[test]
        fn hazards_stay_numbers_over_nothing(met in 0_u32..10_000, expected in 0.0_f64..1e9, days in 0_u64..4000) {
            let bad = record(1, met, expected);
            let state = state([bad.clone()]);
            let risks = Risks::new(&state, NOW + Duration::from_hours(24 * days));
            let model = risks.of_model("RTX 4090");
            for factor in [model, risks.of_slot(model, Some(&bad), 1), risks.of_host(None, Some(&bad))] {
                prop_assert!(factor.is_finite() && factor > 0.0, "{factor}");
            }
        }
    }
}
