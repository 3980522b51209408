//! The landed price: what a useful GPU-hour costs with everything in it, and the ceiling.
//!
//! The landed price only orders offers; it is a float. What binds is the ceiling, in integers.
//!
//! With `rate` = price and disk per hour, `speed` = GPUs × factor (useful GPU-hours an hour) and
//! `useful` = the hours of useful work that are expected of one stay, the parts are, per useful
//! GPU-hour:
//!
//! | part | formula |
//! |---|---|
//! | compute | price ÷ speed |
//! | disk | disk ÷ speed |
//! | traffic | (GB down × its price + GB up × its price) ÷ (useful × speed) |
//! | boot | (boot overhead × rate + start × disk) ÷ (share of starts that come up × useful × speed) |
//! | interruption | hazard × (work lost + boot overhead) × rate ÷ speed |
//! | waiting | hazard of an outbid × time that is waited × disk ÷ speed |
//!
//! GPUs are not billed while an image is pulled, by the marketplace's documented billing, but the
//! disk is from its creation on, and while the GPUs are a rival's. How long a start takes is known of a
//! machine where ours came up before, with this image or another; else the image's pull is reckoned
//! from the download's speed. Hazards are those of [`super::risk`].

use std::time::Duration;

use crate::types::instance::{Held, Rental};
use crate::types::job::{Finish, Job};
use crate::types::machine::MachineRecord;
use crate::types::money::{Money, Rate};
use crate::types::offer::Offer;
use crate::types::plan::{PriceParts, Refusal};
use crate::types::start::Asked;

use super::eligible::{Fit, Scope};
use super::risk::{
    Hazard, OUTBID_MARGIN_SCALE, Risks, TAKEN_PER_HOUR, rivals_per_hour, start_fails,
};

/// Hours of useful work expected of a stay where the policy states no work: an assumption, a
/// working day less its breaks.
pub const STAY_DEFAULT_HOURS: f64 = 6.0;

/// Longest stay over which fixed costs are spread. Few interruptible slots stay listed for longer
/// than some days, so what is further away is not counted on.
pub const STAY_MAX_HOURS: f64 = 72.0;

/// Shortest useful stay, one minute: it keeps the division sane for work that is all but done.
pub const STAY_MIN_HOURS: f64 = 1.0 / 60.0;

/// Compressed size of an image in GB, where nobody says it: the usual deep-learning images are 4
/// to 9 GB.
pub const IMAGE_GB: f64 = 6.0;

/// Megabits in a gigabyte.
pub(crate) const MBIT_A_GB: f64 = 8000.0;

/// Download in Mb/s where the row does not say it: a poor host by the observed market, whose
/// slowest tenth is under 437.
pub const INET_DOWN_UNKNOWN_MBIT_S: f64 = 100.0;

/// Whether a price with its disk is over the job's ceiling per raw GPU-hour. Exact.
pub fn over_ceiling(job: &Job, price: Rate, storage: Rate, gpus: u32) -> bool {
    let asked = i128::from(price.0) + i128::from(storage.0);
    asked > i128::from(job.price_max.0) * i128::from(gpus)
}

/// The most that the GPUs may cost per hour under the job's ceiling, beside a disk; negative where
/// the disk alone is over it.
pub fn ceiling_room(job: &Job, storage: Rate, gpus: u32) -> Rate {
    let room = i128::from(job.price_max.0) * i128::from(gpus) - i128::from(storage.0);
    Rate(i64::try_from(room).unwrap_or(i64::MAX))
}

/// What a job's landed prices are made of, whatever the offer. Times are in hours.
pub(crate) struct Terms {
    /// Useful GPU-hours that a replica still has to do at most; `None`: not stated.
    work: Option<f64>,
    /// Longest life of an instance.
    lifetime: f64,
    /// From running to useful work.
    boot: f64,
    /// Between checkpoints; `None`: there are none.
    checkpoint: Option<f64>,
    /// Whether an interruption loses work.
    loses_work: bool,
    /// Expected download and upload over a stay, GB.
    down_gb: f64,
    up_gb: f64,
    /// How long an outbid instance is waited for.
    patience: f64,
    /// Its image, as machines' starts are known by.
    image: String,
}

impl Terms {
    /// From a job and the useful GPU-milliseconds that a replica still has to do at most.
    pub(crate) fn new(job: &Job, work_left_gpu_ms: Option<i64>) -> Self {
        let hours = |duration: Duration| duration.as_secs_f64() / 3600.0;
        Self {
            work: work_left_gpu_ms.map(|left| left as f64 / MS_PER_HOUR),
            lifetime: job.lifetime_max.map_or(f64::INFINITY, hours),
            boot: hours(job.boot_overhead),
            checkpoint: job
                .checkpoint_every
                .filter(|_| job.checkpoint_place.is_some())
                .map(hours),
            loses_work: job.finish != Finish::Never,
            down_gb: job.expected_down_gb(),
            up_gb: job.traffic_up_gb,
            patience: hours(job.patience),
            image: Asked::of(&job.run).image,
        }
    }

    /// Hours of work that an interruption takes: half a checkpoint's interval, or half the stay
    /// without one. A service has no work to lose.
    fn lost_hours(&self, useful: f64) -> f64 {
        if self.loses_work {
            self.checkpoint.map_or(useful, |every| every.min(useful)) / 2.0
        } else {
            0.0
        }
    }
}

const MS_PER_HOUR: f64 = 3_600_000.0;

/// What is expected of a rental on a machine, whatever its price.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outlook {
    /// By how much a bid on the slot is lost more often than a row says.
    outbids: f64,
    /// By how much the host fails more often than a row says.
    losses: f64,
    /// Hours from the rent until the container runs.
    start: f64,
    /// Share of starts that come up.
    comes_up: f64,
    /// Hours that an outbid instance is waited for.
    wait: f64,
}

impl Outlook {
    /// What an offer's row and what is known of its machine say; `of_model`: by how much bids on its
    /// model are lost more often than rows say.
    pub(crate) fn new(
        terms: &Terms,
        risks: &Risks<'_>,
        of_model: f64,
        offer: &Offer,
        record: Option<&MachineRecord>,
    ) -> Self {
        let past = record.map(|record| &record.past);
        let booted = past.and_then(|past| past.boot_ms_of(&terms.image));
        let down = past.and_then(|past| past.down_mbit_s);
        let recovery = record.and_then(|record| record.track.recovery_ms);
        let in_hours = |ms: i64| ms.max(0) as f64 / MS_PER_HOUR;
        Self {
            outbids: risks.of_slot(of_model, record, offer.gpus),
            losses: risks.of_host(offer.host, record),
            start: booted.map_or_else(|| pull_hours(offer, down), in_hours),
            comes_up: 1.0 - start_fails(record),
            // What comes back sooner is waited for no longer.
            wait: recovery.map_or(terms.patience, |ms| terms.patience.min(in_hours(ms))),
        }
    }
}

/// What an offer's model makes of the job, and what is to be expected of a rental there.
pub(crate) fn sight(scope: &Scope<'_>, risks: &Risks<'_>, offer: &Offer) -> (Fit, Outlook) {
    let record = scope.world.state.machines.get(&offer.machine);
    let of_model = risks.of_model(&offer.gpu_name);
    let outlook = Outlook::new(&scope.terms, risks, of_model, offer, record);
    (scope.fit(&offer.gpu_name), outlook)
}

/// The landed price of an offer at a price, in parts.
///
/// # Errors
/// [`Refusal::PriceUnknown`] where the price of a download is unknown, for every rental pulls an
/// image, or where the job expects uploads and their price is unknown;
/// [`Refusal::NotANumber`] where the parts do not add up to a number.
pub(crate) fn landed(
    scope: &Scope<'_>,
    offer: &Offer,
    fit: Fit,
    outlook: Outlook,
    (rental, price): (Rental, Rate),
    storage: Rate,
) -> Result<PriceParts, Refusal> {
    let terms = &scope.terms;
    let speed = f64::from(offer.gpus) * f64::from(fit.factor_ppm) / 1e6;
    let (price_h, storage_h) = (price.as_dollars(), storage.as_dollars());
    let rate = price_h + storage_h;
    let useful = useful_hours(scope, offer, speed, terms.boot + outlook.start);
    let down = offer.inet_down_price.ok_or(Refusal::PriceUnknown)?;
    let traffic =
        terms.down_gb * down.as_dollars() + traffic_cost(terms.up_gb, offer.inet_up_price)?;
    let hazard = Hazard::of(offer, rental, price);
    let (outbid, lost) = (
        hazard.outbid * outlook.outbids,
        hazard.lost * outlook.losses,
    );
    let starts = terms.boot * rate + outlook.start * storage_h;
    let parts = PriceParts {
        compute: price_h / speed,
        disk: storage_h / speed,
        traffic: traffic / (useful * speed),
        boot: starts / (outlook.comes_up * useful * speed),
        interruption: (outbid + lost) * (terms.lost_hours(useful) + terms.boot) * rate / speed,
        waiting: outbid * outlook.wait * storage_h / speed,
    };
    if parts.total().is_finite() {
        Ok(parts)
    } else {
        Err(Refusal::NotANumber)
    }
}

/// Highest margin that is looked at.
const MARGIN_MAX: f64 = 1.0;

/// How far over the floor, as a share of it, a bid makes an hour of use cheapest.
///
/// A higher bid costs more in each hour, and is outbid less often. With *m* the margin, the landed price
/// of an hour is
///
/// (floor × (1 + *m*) + disk) × (1 + hazard(*m*) × (work lost + boot overhead) + boot overhead ÷ stay) +
/// hazard of an outbid(*m*) × time that is waited × disk
///
/// which is convex in *m* as long as the hazard falls with a scale of less than half: so the best is where
/// its slope is nothing, or at the floor where it rises from there. That is where it is for most slots, for
/// an outbid takes some minutes of work: it is work without checkpoints, and slots that were often lost,
/// that are worth a margin.
pub(crate) fn best_margin(
    scope: &Scope<'_>,
    offer: &Offer,
    (fit, outlook): (Fit, Outlook),
    floor: Rate,
    storage: Rate,
) -> f64 {
    let terms = &scope.terms;
    let speed = f64::from(offer.gpus) * f64::from(fit.factor_ppm) / 1e6;
    let useful = useful_hours(scope, offer, speed, terms.boot + outlook.start);
    let (floor_h, disk_h) = (floor.as_dollars(), storage.as_dollars());
    let takes = terms.lost_hours(useful) + terms.boot;
    let bare = Hazard::of(offer, Rental::Bid, floor);
    let steady = TAKEN_PER_HOUR * outlook.outbids + bare.lost * outlook.losses;
    let once = terms.boot / (outlook.comes_up * useful);
    let slope = |margin: f64| {
        let rivals = rivals_per_hour(margin) * outlook.outbids;
        let rate = floor_h * (1.0 + margin) + disk_h;
        let dearer = floor_h * (1.0 + (rivals + steady) * takes + once);
        let safer = rivals / OUTBID_MARGIN_SCALE * (rate * takes + outlook.wait * disk_h);
        dearer - safer
    };
    if slope(0.0) >= 0.0 {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, MARGIN_MAX);
    for _ in 0..32 {
        let middle = f64::midpoint(low, high);
        if slope(middle) < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// What is expected of an instance where it is.
pub(crate) struct Staying {
    /// What a useful GPU-hour costs from now on, in dollars: what is paid for its GPUs and its disk, and what
    /// interruptions there are expected to take.
    pub(crate) total: f64,
    /// Useful GPU-hours until it is expected to be interrupted.
    pub(crate) lasts: f64,
}

/// What is expected of an instance from now on where it is. `None`: that is no number.
pub(crate) fn staying(scope: &Scope<'_>, risks: &Risks<'_>, held: &Held) -> Option<Staying> {
    let terms = &scope.terms;
    let factor = scope.fit(&held.gpu_name).factor_ppm;
    let speed = f64::from(held.slot.gpus) * f64::from(factor) / 1e6;
    let rate = (held.price + held.storage).as_dollars();
    let record = scope.world.state.machines.get(&held.slot.machine);
    let odds = held.odds.unwrap_or_default();
    let an_hour = |ppm: i64| ppm as f64 / 1e6;
    let of_slot = risks.of_slot(risks.of_model(&held.gpu_name), record, held.slot.gpus);
    let outbid = match held.rental {
        Rental::Bid => an_hour(odds.outbid_ppm_h) * of_slot,
        Rental::OnDemand => 0.0,
    };
    let lost = an_hour(odds.lost_ppm_h) * risks.of_host(held.host, record);
    let stay = terms.work.map_or(STAY_DEFAULT_HOURS, |work| work / speed);
    let stay = stay.clamp(STAY_MIN_HOURS, STAY_MAX_HOURS);
    let hazard = outbid + lost;
    let interruption = hazard * (terms.lost_hours(stay) + terms.boot) * rate;
    let total = (rate + interruption) / speed;
    let lasts = speed / hazard.max(1.0 / STAY_MAX_HOURS);
    (total.is_finite() && total > 0.0 && lasts > 0.0).then_some(Staying { total, lasts })
}

/// Hours of useful work expected of one stay: what is left to do, or the default, within the
/// rental's end, the instance's longest life and the longest stay that is counted on.
fn useful_hours(scope: &Scope<'_>, offer: &Offer, speed: f64, lead: f64) -> f64 {
    let wanted = scope
        .terms
        .work
        .map_or(STAY_DEFAULT_HOURS, |work| work / speed);
    let until_end = offer.ends_at.map_or(f64::INFINITY, |ends| {
        ends.ms_since(scope.world.now) as f64 / MS_PER_HOUR
    });
    wanted
        .min(until_end.min(scope.terms.lifetime) - lead)
        .clamp(STAY_MIN_HOURS, STAY_MAX_HOURS)
}

/// Useful GPU-hours that are expected of a stay on an offer: what is paid once is spread over them.
pub(crate) fn stay_gpu_hours(scope: &Scope<'_>, offer: &Offer) -> f64 {
    let speed = f64::from(offer.gpus) * f64::from(scope.fit(&offer.gpu_name).factor_ppm) / 1e6;
    let record = scope.world.state.machines.get(&offer.machine);
    let measured = record.and_then(|record| record.past.down_mbit_s);
    let lead = scope.terms.boot + pull_hours(offer, measured);
    useful_hours(scope, offer, speed, lead) * speed
}

/// Hours that pulling an image takes, at the speed that was measured on the machine or else at that of
/// its row.
fn pull_hours(offer: &Offer, measured_mbit_s: Option<u32>) -> f64 {
    // A row that says zero, or no number, says nothing.
    let stated = offer.inet_down_mbit_s.filter(|&speed| speed > 0.0);
    let measured = measured_mbit_s.filter(|&speed| speed > 0).map(f64::from);
    let mbit_s = measured.or(stated.map(f64::from));
    let mbit_s = mbit_s.unwrap_or(INET_DOWN_UNKNOWN_MBIT_S);
    IMAGE_GB * MBIT_A_GB / 3600.0 / mbit_s
}

fn traffic_cost(gigabytes: f64, price: Option<Money>) -> Result<f64, Refusal> {
    if gigabytes == 0.0 {
        return Ok(0.0);
    }
    price
        .map(|price| gigabytes * price.as_dollars())
        .ok_or(Refusal::PriceUnknown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::eligible::samples::{NOW, job, offer, usd, world};
    use super::super::risk::{OUTBID_PER_HOUR, TAKEN_PER_HOUR};
    use super::*;
    use crate::types::job::CheckpointPlace;

    fn parts(job: &Job, offer: &Offer, rental: Rental, price: f64) -> Result<PriceParts, Refusal> {
        let world = world(Vec::new());
        let scope = Scope::new(&world, job);
        on(&scope, None, offer, (rental, usd(price)))
    }

    fn on(
        scope: &Scope<'_>,
        record: Option<&MachineRecord>,
        offer: &Offer,
        price: (Rental, Rate),
    ) -> Result<PriceParts, Refusal> {
        let fit = scope.fit(&offer.gpu_name);
        let risks = Risks::new(&scope.world.state, scope.world.now);
        let of_model = risks.of_model(&offer.gpu_name);
        let outlook = Outlook::new(&scope.terms, &risks, of_model, offer, record);
        landed(scope, offer, fit, outlook, price, usd(0.01))
    }

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }

    #[test]
    fn inputs_of_known_length_are_expected_traffic() {
        use crate::engine::eligible::samples::{input, runner};
        let traffic = |job: &Job| {
            parts(job, &offer(1), Rental::OnDemand, 0.39)
                .unwrap()
                .traffic
        };
        let mut expects = job("a");
        expects.traffic_down_gb = 12.0;
        let mut needs = job("a");
        let mut spec = runner("true");
        spec.inputs.push(input(Some(12_000_000_000)));
        needs.run.runner = Some(Box::new(spec));
        assert!(traffic(&needs) > traffic(&job("a")));
        near(traffic(&needs), traffic(&expects));
    }

    #[test]
    fn every_part_is_what_the_formula_says() {
        let mut job = job("a");
        job.factors_ppm.insert("RTX 4090".to_owned(), 2_000_000);
        job.traffic_down_gb = 12.0;
        job.traffic_up_gb = 12.0;
        let offer = Offer {
            reliability: Some(0.8),
            ..offer(1)
        };
        let parts = parts(&job, &offer, Rental::OnDemand, 0.39).unwrap();
        // Two useful hours an hour, six hours a stay.
        near(parts.compute, 0.195);
        near(parts.disk, 0.005);
        near(parts.traffic, 24.0 * 0.003 / 12.0);
        // 5 minutes at the full rate, and a minute of pulling 6 GB at 800 Mb/s on disk alone; one
        // start in twenty comes to nothing.
        near(parts.boot, (0.4 / 12.0 + 0.01 / 60.0) / 12.0 / 0.95);
        // Fails once in eight hours, which takes half of half an hour and a boot.
        near(parts.interruption, (0.25 + 1.0 / 12.0) * 0.4 / 8.0 / 2.0);
        near(
            parts.total(),
            parts.compute
                + parts.disk
                + parts.traffic
                + parts.boot
                + parts.interruption
                + parts.waiting,
        );
        near(parts.waiting, 0.0);
    }

    #[test]
    fn a_lost_bid_waits_on_its_disk_as_long_as_slots_there_take_to_come_back() {
        let mut job = job("a");
        job.patience = Duration::from_mins(30);
        let at = |record: Option<&MachineRecord>| {
            let world = world(Vec::new());
            let scope = Scope::new(&world, &job);
            on(&scope, record, &offer(1), (Rental::Bid, usd(0.2))).unwrap()
        };
        let outbid = OUTBID_PER_HOUR + TAKEN_PER_HOUR;
        near(at(None).waiting, outbid * 0.5 * 0.01);
        let mut record = MachineRecord::new(offer(1).machine);
        record.track.recovered(360_000);
        near(at(Some(&record)).waiting, at(None).waiting / 5.0);
        record.track.recovery_ms = Some(i64::MAX);
        near(at(Some(&record)).waiting, at(None).waiting);
    }

    #[test]
    fn what_a_machine_was_like_counts_more_than_what_its_row_says() {
        let job = job("a");
        let world = world(Vec::new());
        let scope = Scope::new(&world, &job);
        let at = |record: &MachineRecord| {
            on(&scope, Some(record), &offer(1), (Rental::Bid, usd(0.2))).unwrap()
        };
        let bare = MachineRecord::new(offer(1).machine);
        let usual = at(&bare);
        assert_eq!(
            Ok(usual),
            on(&scope, None, &offer(1), (Rental::Bid, usd(0.2)))
        );
        let with = |change: &dyn Fn(&mut MachineRecord)| {
            let mut record = bare.clone();
            record.track.fade(world.now);
            change(&mut record);
            at(&record)
        };
        // Half an hour from the rent, in place of a minute.
        let slow = with(&|record| record.past.boot_ms = Some(1_800_000));
        assert!(slow.boot > usual.boot && slow.total() > usual.total());
        let measured = with(&|record| record.past.down_mbit_s = Some(1));
        assert!(measured.boot > usual.boot);
        let fails = with(&|record| record.past.no_starts = 20);
        assert!(fails.boot > 1.5 * usual.boot);
        let hostile = with(&|record| record.track.outbids_of(1).met());
        assert!(hostile.interruption > 1.5 * usual.interruption);
        let trusted = with(&|record| record.track.outbids_of(1).exposed(50_000, 360_000_000));
        assert!(trusted.interruption < 0.5 * usual.interruption);
        let breaks = with(&|record| record.track.losses.met());
        assert!(breaks.interruption > usual.interruption);
    }

    #[test]
    fn a_margin_is_paid_where_being_outbid_costs_more() {
        let mut job = job("a");
        let margin = |job: &Job, outbids: f64| {
            let world = world(Vec::new());
            let scope = Scope::new(&world, job);
            let offer = offer(1);
            let fit = scope.fit(&offer.gpu_name);
            let risks = Risks::new(&scope.world.state, scope.world.now);
            let outlook = Outlook::new(&scope.terms, &risks, outbids, &offer, None);
            best_margin(&scope, &offer, (fit, outlook), usd(0.2), usd(0.01))
        };
        // Half of half an hour and a boot, once in thirty-two hours: no margin is worth that.
        assert_eq!(margin(&job, 1.0), 0.0);
        assert_eq!(margin(&job, 10.0), 0.0);
        assert!(margin(&job, 60.0) > 0.05);
        // Without checkpoints half a stay is lost, which is six hours.
        job.checkpoint_place = None;
        assert_eq!(margin(&job, 1.0), 0.0);
        assert!(margin(&job, 4.0) > 0.05);
        assert!(margin(&job, 8.0) > margin(&job, 4.0));
        // A service has nothing to lose but its boots.
        job.finish = Finish::Never;
        assert_eq!(margin(&job, 8.0), 0.0);
    }

    proptest! {
        #[test]
        fn no_other_margin_makes_an_hour_cheaper(
            floor in 0.002..5.0,
            outbids in 0.01..200.0,
            losses in 0.01..20.0,
            checkpoint in proptest::option::of(1_u64..600),
            patience in 0_u64..240,
            work in proptest::option::of(1_i64..500),
            other in 0.0..1.0,
        ) {
            let mut job = job("a");
            job.checkpoint_place = checkpoint.map(|_| CheckpointPlace::Remote);
            job.checkpoint_every = checkpoint.map(Duration::from_mins);
            job.patience = Duration::from_mins(patience);
            job.work_mgpu_h = work.map(|hours| hours * 1000);
            let world = world(Vec::new());
            let scope = Scope::new(&world, &job);
            let offer = Offer { floor: Some(usd(floor)), ..offer(1) };
            let fit = scope.fit(&offer.gpu_name);
            let risks = Risks::new(&scope.world.state, scope.world.now);
            let outlook = Outlook {
                losses,
                ..Outlook::new(&scope.terms, &risks, outbids, &offer, None)
            };
            let total = |margin: f64| {
                let price = usd(floor * (1.0 + margin));
                landed(&scope, &offer, fit, outlook, (Rental::Bid, price), usd(0.01)).unwrap().total()
            };
            let best = best_margin(&scope, &offer, (fit, outlook), usd(floor), usd(0.01));
            prop_assert!((0.0..=MARGIN_MAX).contains(&best));
            prop_assert!(total(best) <= total(other) * (1.0 + 1e-6), "{best} and {other}");
        }
    }

    #[test]
    fn work_without_a_checkpoint_costs_half_the_stay_and_a_service_none() {
        let mut job = job("a");
        let lost = |job: &Job| {
            parts(job, &offer(1), Rental::Bid, 0.2)
                .unwrap()
                .interruption
        };
        let (outbid, host) = (
            OUTBID_PER_HOUR + TAKEN_PER_HOUR,
            0.01_f32 / (0.99_f32 * 2.0),
        );
        let hazard = outbid + f64::from(host);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} is not {b}");
        near(lost(&job), hazard * (0.25 + 1.0 / 12.0) * 0.21);
        job.checkpoint_place = None;
        near(lost(&job), hazard * (3.0 + 1.0 / 12.0) * 0.21);
        job.finish = Finish::Never;
        near(lost(&job), hazard / 12.0 * 0.21);
    }

    #[test]
    fn fixed_costs_spread_over_the_stay() {
        let mut job = job("a");
        job.checkpoint_place = Some(CheckpointPlace::Remote);
        let boot =
            |job: &Job, offer: &Offer| parts(job, offer, Rental::OnDemand, 0.4).unwrap().boot;
        let stays = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-3, "{a} is not {b}");
        let six = boot(&job, &offer(1));
        job.work_mgpu_h = Some(3000);
        stays(boot(&job, &offer(1)), six * 2.0);
        job.work_mgpu_h = Some(1_000_000);
        stays(boot(&job, &offer(1)), six / 12.0);
        let mut ends = offer(1);
        ends.ends_at = Some(NOW + Duration::from_mins(186));
        stays(boot(&job, &ends), six * 2.0);
        job.lifetime_max = Some(Duration::from_mins(186));
        stays(boot(&job, &offer(1)), six * 2.0);
        job.work_mgpu_h = Some(0);
        assert!(boot(&job, &offer(1)).is_finite());
    }

    #[test]
    fn an_unknown_price_of_traffic_is_not_zero() {
        let mut job = job("a");
        let offer = Offer {
            inet_up_price: None,
            ..offer(1)
        };
        assert!(parts(&job, &offer, Rental::Bid, 0.2).is_ok());
        job.traffic_up_gb = 0.1;
        let unknown = Err(Refusal::PriceUnknown);
        assert_eq!(parts(&job, &offer, Rental::Bid, 0.2), unknown);
        job.traffic_up_gb = 0.0;
        let undisclosed = Offer {
            inet_down_price: None,
            ..offer
        };
        assert_eq!(
            parts(&job, &undisclosed, Rental::Bid, 0.2),
            unknown,
            "the image's own bytes are billed"
        );
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        let mut job = job("a");
        job.factors_ppm.insert("RTX 4090".to_owned(), 0);
        let refused = Err(Refusal::NotANumber);
        assert_eq!(parts(&job, &offer(1), Rental::Bid, 0.2), refused);
        job.factors_ppm.clear();
        job.traffic_down_gb = f64::NAN;
        assert_eq!(parts(&job, &offer(1), Rental::Bid, 0.2), refused);
    }

    #[test]
    fn the_ceiling_is_exact_to_the_nano_dollar() {
        let mut job = job("a");
        job.price_max = usd(0.45);
        assert!(!over_ceiling(&job, Rate(3_599_999_999), Rate(1), 8));
        assert!(over_ceiling(&job, Rate(3_600_000_000), Rate(1), 8));
        assert!(over_ceiling(&job, Rate(i64::MAX), Rate(i64::MAX), u32::MAX));
    }

    proptest! {
        #[test]
        fn room_and_ceiling_agree(
            price in 0_i64..20_000_000_000,
            storage in 0_i64..1_000_000_000,
            most in 0_i64..5_000_000_000,
            gpus in 1_u32..16,
        ) {
            let mut job = job("a");
            job.price_max = Rate(most);
            let room = ceiling_room(&job, Rate(storage), gpus);
            prop_assert_eq!(over_ceiling(&job, Rate(price), Rate(storage), gpus), Rate(price) > room);
        }

        #[test]
        fn a_dearer_price_never_lands_cheaper_on_demand(
            price in 0.0_f64..10.0, more in 0.0001_f64..1.0, work in proptest::option::of(0_i64..1_000_000),
        ) {
            let mut job = job("a");
            job.work_mgpu_h = work;
            let at = |price| parts(&job, &offer(1), Rental::OnDemand, price).unwrap().total();
            prop_assert!(at(price) < at(price + more));
        }
    }
}
