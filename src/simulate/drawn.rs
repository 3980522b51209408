//! A seed's scenario: the market, the jobs, the limits, and all that goes wrong.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono_tz::Tz;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::fate::Hazards;
use super::jobs::{self, Fence, Kind, Terms};
use super::rig::file_of;
use super::scenario::{Path, START, Scenario};
use super::turn::{Others, Policy, Turn};
use crate::daemon::Looking;
use crate::market::faults::FaultSpec;
use crate::market::{Disputed, Quirks};
use crate::types::deadline::DeadlineKind;
use crate::types::job::{Finish, Job, RentalChoice};
use crate::types::ledger::Scope;
use crate::types::limit::Bounds;
use crate::types::money::{Money, Rate};
use crate::types::mutant::Mutant;
use crate::types::state::{Ask, Wish};
use crate::types::time::Time;
use crate::types::world::EngineConfig;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// A cent.
const CENT: i64 = 10_000_000;

/// When a market may begin: a Monday evening, hours before the end of a month, and the evening
/// before clocks are set forward in Europe.
const BEGINNINGS: [Time; 3] = [START, Time(1_769_810_400_000), Time(1_774_713_600_000)];

/// The longest that a spell lasts. With the requests that fail by chance before and after it, and those
/// that are on their way when it ends, that is what a reservation allows for.
const EPISODE_MAX: u64 = 25 * MINUTE;

/// Spells, in which something goes wrong without pause.
const SPELLS: [&str; 5] = [
    "5xx=100%",
    "timeout-before=60%,timeout-after=40%",
    "empty=95%",
    "429=100%",
    "stale=60%,partial=30%",
];

/// What goes wrong on the wire all the time.
const WIRES: [&str; 8] = [
    "5xx=3%,timeout-before=1%,timeout-after=2%,garbage=2%,empty=2%,429=2%",
    "timeout-after=15%,empty=15%",
    "html=3%,truncated=3%,content-type=3%,duplicated=8%,timeout-after=3%",
    "stale=10%,partial=8%,empty=4%,skew=3%,duplicated=3%",
    "session-expired=4%,key-deleted=3%,429=4%,5xx=2%",
    "5xx=1%,timeout-after=1%,duplicated=1%,stale=1%,partial=1%,garbage=1%",
    "timeout-before=4%,timeout-after=6%,5xx-after=4%",
    "none",
];

struct Draw(ChaCha8Rng);

impl Draw {
    fn whole(&mut self, range: RangeInclusive<u64>) -> u64 {
        self.0.random_range(range)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.whole(1..=n) == 1
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.0.random_range(0..all.len())]
    }

    fn cents(&mut self, range: RangeInclusive<u64>) -> Money {
        Money(self.whole(range) as i64 * CENT)
    }
}

impl Scenario {
    /// What a seed draws: so many days of trouble, then a calm.
    pub fn drawn(seed: u64, days: u32) -> Self {
        let mut draw = Draw(ChaCha8Rng::seed_from_u64(seed ^ 0x5ce2_a210));
        let trouble = Duration::from_secs(24 * HOUR * u64::from(days));
        // What came to be drawn later is drawn from a generator of its own, so that where it draws
        // nothing a seed is what it was.
        let mut more = Draw(ChaCha8Rng::seed_from_u64(seed ^ 0x71b3_4c09));
        let jobs = jobs_drawn(&mut draw, &mut more);
        let poll_every = Duration::from_secs(draw.whole(60..=600));
        let shared = draw.one_in(4);
        let balance = if draw.one_in(4) {
            draw.cents(180..=450)
        } else {
            Money::dollars(30)
        };
        let disputed = if draw.one_in(4) {
            Disputed::default()
        } else {
            Disputed::drawn(seed)
        };
        let faults = spec(draw.of(&WIRES));
        let script = script_drawn(&mut draw, &mut more, &jobs, trouble, &faults, shared);
        let drawn = Self {
            seed,
            start: draw.of(&BEGINNINGS),
            engine: limits_drawn(&mut draw, &mut more, poll_every),
            looking: Looking {
                requests_every: poll_every,
                instances_every: glances_drawn(&mut draw, poll_every),
                history_every: draw.one_in(8).then_some(Duration::from_mins(15)),
                ..Looking::default()
            },
            trouble,
            calm: Duration::from_secs(3 * HOUR),
            still: Duration::from_mins(75),
            faults,
            hazards: hazards_drawn(&mut draw),
            market: None,
            machines: draw.whole(10..=40) as u32,
            intensity: draw.of(&[0.5, 1.0, 2.0, 5.0, 10.0]),
            balance,
            charge_decimals: draw.of(&[3, 9]),
            failures: draw.of(&[0.0, 1.0, 1.0, 4.0]),
            liars: 0.0,
            disputed,
            quirks: Quirks {
                bids_ignore_price: draw.one_in(12),
                ..Quirks::default()
            },
            shared,
            path: draw.of(&Path::ALL),
            jobs,
            script,
        };
        // Later still, and again by itself.
        let drawn = drawn.supervised(&mut Draw(ChaCha8Rng::seed_from_u64(seed ^ 0x2f6e_91d5)));
        drawn.hurried(&mut Draw(ChaCha8Rng::seed_from_u64(seed ^ 0x44d0_b3e7)))
    }

    /// The same with deadlines for some of the work that may be done on demand: some that there is time for,
    /// some that nobody could keep.
    fn hurried(mut self, draw: &mut Draw) -> Self {
        let hurries = |job: &Job| job.finish == Finish::Work && job.rental == RentalChoice::Auto;
        for job in self.jobs.iter_mut().filter(|job| hurries(job)) {
            let hours = draw.whole(3..=20);
            let deadline_policy = draw.of(&DeadlineKind::ALL);
            if draw.one_in(2) {
                *job = Arc::new(Job {
                    deadline: Some(self.start + Duration::from_secs(hours * HOUR)),
                    deadline_policy,
                    ..(**job).clone()
                });
            }
        }
        self
    }

    /// The same with jobs that haggle's runner looks after, in some of the seeds that can read logs:
    /// beside what was drawn, so that the rest stays as it is.
    fn supervised(mut self, draw: &mut Draw) -> Self {
        if self.path != Path::Native || draw.one_in(3) {
            return self;
        }
        self.liars = draw.of(&[0.0, 0.1, 0.3]);
        let mut kinds: Vec<Kind> = Vec::new();
        for _ in 0..draw.whole(1..=2) {
            let kind = draw.of(&Kind::SUPERVISED);
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        for kind in kinds {
            let fence = match draw.of(&[10, 10, 20, 60, 120, 0]) {
                // Where labels are cut short their tails are lost, and nothing fenced would work.
                minutes if minutes > 0 && self.disputed.label_kept.is_none() => {
                    Fence::Lease(minutes)
                }
                _ => Fence::Open,
            };
            let terms = Terms {
                ceiling_cents: draw.whole(15..=60),
                disk_gb: draw.whole(8..=32),
                total_cents: Some(draw.whole(150..=900)),
                day_cents: None,
                hour_cents: None,
                month_cents: None,
                gpus: 1,
                owner: None,
                tags: &[],
                traffic_gb: None,
                fence,
            };
            let Some(job) = jobs::job(kind, &terms) else {
                continue;
            };
            if draw.one_in(2) {
                let wish = draw.of(&[Wish::Stop, Wish::Pause]);
                let at = draw.whole(HOUR..=self.trouble.as_secs() - 2 * HOUR);
                let lasts = draw.whole(2 * MINUTE..=HOUR);
                for (at, wish) in [(at, wish), (at + lasts, Wish::Run)] {
                    let job = job.name.clone();
                    let ask = Turn::Ask(Ask::Job { job, wish });
                    self.script.push((Duration::from_secs(at), ask));
                }
            }
            self.jobs.push(job);
        }
        self.script.sort_by_key(|(at, _)| *at);
        self
    }

    /// The same with a mistake in haggle itself.
    pub fn with_mutant(mut self, mutant: Option<Mutant>) -> Self {
        self.engine.mutant = mutant;
        self
    }

    /// Whether GPUs are billed for no longer than they are shown to run, as documented.
    pub(super) fn bills_what_it_shows(&self) -> bool {
        let usual = Disputed::default();
        self.disputed.billed_from == usual.billed_from
    }

    /// Whether the disputed facts are as the marketplace documents them.
    pub fn is_documented(&self) -> bool {
        self.disputed == Disputed::default()
    }
}

/// Who pays, where somebody is named; and what jobs are tagged with.
const OWNERS: [&str; 2] = ["ml", "ops"];
const TAGS: [&[&str]; 3] = [&["nightly"], &["shared"], &["nightly", "shared"]];

fn jobs_drawn(draw: &mut Draw, more: &mut Draw) -> Vec<Arc<Job>> {
    let mut kinds: Vec<Kind> = Vec::new();
    for _ in 0..draw.whole(1..=3) {
        let kind = draw.of(&Kind::ALONE);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let made = kinds.into_iter().filter_map(|kind| {
        let tight = kind == Kind::Mite || draw.one_in(3);
        let terms = Terms {
            ceiling_cents: draw.whole(15..=60),
            disk_gb: draw.whole(8..=32),
            total_cents: Some(if tight {
                draw.whole(30..=150)
            } else {
                draw.whole(300..=900)
            }),
            day_cents: draw.one_in(3).then(|| draw.whole(40..=300)),
            hour_cents: draw.one_in(3).then(|| draw.whole(15..=80)),
            month_cents: more.one_in(6).then(|| more.whole(60..=500)),
            gpus: if more.one_in(5) { 2 } else { 1 },
            owner: more.one_in(2).then(|| more.of(&OWNERS)),
            tags: if more.one_in(2) { more.of(&TAGS) } else { &[] },
            traffic_gb: more.one_in(4).then(|| more.whole(8..=40)),
            fence: Fence::Open,
        };
        jobs::job(kind, &terms)
    });
    made.collect()
}

fn limits_drawn(draw: &mut Draw, more: &mut Draw, poll_every: Duration) -> EngineConfig {
    let hour = |cents: u64| Rate(cents as i64 * CENT);
    let scopes = OWNERS.iter().map(|owner| Scope::Owner((*owner).to_owned()));
    let tags = TAGS[2].iter().map(|tag| Scope::Tag((*tag).to_owned()));
    let scopes: Vec<Scope> = scopes.chain(tags).collect();
    let groups = scopes.into_iter().filter_map(|scope| {
        let bounds = Bounds {
            total: more.one_in(3).then(|| more.cents(150..=900)),
            per_day: more.one_in(4).then(|| more.cents(60..=400)),
            per_month: more.one_in(4).then(|| more.cents(100..=600)),
            per_hour: more.one_in(4).then(|| hour(more.whole(20..=120))),
            instances_max: more.one_in(5).then(|| more.whole(1..=4) as u32),
            gpus_max: more.one_in(5).then(|| more.whole(1..=4) as u32),
        };
        more.one_in(3).then_some((scope, bounds))
    });
    let groups = groups.collect();
    EngineConfig {
        poll_every,
        instances_max: draw.of(&[2, 3, 5, 32]),
        per_day: draw.one_in(4).then(|| draw.cents(80..=600)),
        per_hour: draw.one_in(4).then(|| hour(draw.whole(20..=150))),
        timezone: draw.of(&[Tz::UTC, Tz::Europe__Berlin, Tz::Asia__Kolkata]),
        per_month: more.one_in(6).then(|| more.cents(100..=800)),
        gpus_max: more.one_in(5).then(|| more.whole(1..=5) as u32),
        min_runway: more
            .one_in(5)
            .then(|| Duration::from_hours(more.whole(1..=60))),
        groups,
        ..EngineConfig::default()
    }
}

/// A look at the instances is what a simulated day costs most, so it is seldom as often as in life.
fn glances_drawn(draw: &mut Draw, poll_every: Duration) -> Duration {
    match draw.whole(0..=15) {
        0 => Duration::from_secs(15),
        1..=4 => poll_every / 2,
        _ => Duration::from_secs(6 * HOUR),
    }
}

fn hazards_drawn(draw: &mut Draw) -> Hazards {
    Hazards {
        crash_per_mille: draw.of(&[0, 20, 60, 120]),
        commit_crash_per_100k: draw.of(&[0, 20, 100, 300]),
        late_per_mille: draw.of(&[0, 20, 80]),
        slow_per_mille: draw.of(&[0, 2, 10]),
        down_seconds: 0..=draw.of(&[0, 30, 300]),
        latency_ms: 40..=draw.of(&[400, 1500]),
    }
}

fn spec(text: &str) -> FaultSpec {
    // A test reads them all.
    text.parse().unwrap_or_default()
}

/// What happens on top of chance. Things that keep haggle from acting are an hour apart, so that no
/// outage is longer than what reservations allow for.
fn script_drawn(
    draw: &mut Draw,
    more: &mut Draw,
    jobs: &[Arc<Job>],
    trouble: Duration,
    usual: &FaultSpec,
    shared: bool,
) -> Vec<(Duration, Turn)> {
    let mut script = Vec::new();
    let mut at = draw.whole(HOUR / 2..=2 * HOUR);
    while at + 2 * HOUR < trouble.as_secs() {
        let lasts = draw.whole(2 * MINUTE..=EPISODE_MAX);
        for (after, turn) in episode(draw, more, jobs, lasts, usual, shared) {
            script.push((Duration::from_secs(at + after), turn));
        }
        at += lasts + draw.whole(HOUR..=5 * HOUR);
    }
    // The clock is right again before the calm.
    let last = trouble.saturating_sub(Duration::from_secs(1));
    script.push((last, Turn::WallClock(0)));
    script
}

/// One thing that happens, and the end of it so many seconds later.
fn episode(
    draw: &mut Draw,
    more: &mut Draw,
    jobs: &[Arc<Job>],
    lasts: u64,
    usual: &FaultSpec,
    shared: bool,
) -> Vec<(u64, Turn)> {
    let job = jobs.get(draw.whole(0..=jobs.len().max(1) as u64 - 1) as usize);
    let both = |from, to| vec![(0, from), (lasts, to)];
    match (draw.whole(0..=15), job) {
        (0..=2, _) => both(
            Turn::Faults(spec(draw.of(&SPELLS))),
            Turn::Faults(usual.clone()),
        ),
        (3, _) => both(Turn::Disk { full: true }, Turn::Disk { full: false }),
        (4..=5, _) => both(Turn::OtherAccount(true), Turn::OtherAccount(false)),
        (6, _) => {
            let back = draw.one_in(2);
            let ms = draw.whole(1..=15 * MINUTE * 1000) as i64;
            let ahead = if back { -ms } else { ms };
            vec![(0, Turn::WallClock(ahead))]
        }
        (7, _) if shared => {
            let what = draw.of(&[Others::Rent, Others::Destroy]);
            vec![(0, Turn::Others(what))]
        }
        (7 | 8, _) => {
            let amount = draw.cents(10..=300);
            let what = if draw.one_in(2) {
                Others::Spend(amount)
            } else {
                Others::PayIn(amount)
            };
            vec![(0, Turn::Others(what))]
        }
        (9..=11, Some(job)) => edited(draw, more, job, lasts),
        (12, _) => both(Turn::Ask(Ask::Kill), Turn::Ask(Ask::ResumeAll)),
        (_, Some(job)) => {
            let wish = draw.of(&[Wish::Stop, Wish::Stop, Wish::Pause]);
            let ask = |wish| {
                Turn::Ask(Ask::Job {
                    job: job.name.clone(),
                    wish,
                })
            };
            both(ask(wish), ask(Wish::Run))
        }
        _ => Vec::new(),
    }
}

/// A policy is broken or removed for a while, or changed.
fn edited(draw: &mut Draw, more: &mut Draw, job: &Arc<Job>, lasts: u64) -> Vec<(u64, Turn)> {
    let file: PathBuf = file_of(job);
    let turn = |policy| Turn::Policy {
        file: file.clone(),
        policy,
    };
    let good = || Some(Policy::Good(Arc::clone(job)));
    match draw.whole(0..=2) {
        0 => vec![(0, turn(Some(Policy::Broken))), (lasts, turn(good()))],
        1 => vec![(0, turn(None)), (lasts, turn(good()))],
        _ => {
            let mut other = Job::clone(job);
            let percent = draw.whole(50..=200) as i64;
            other.price_max = Rate(job.price_max.0 / 100 * percent);
            let raised = draw.whole(100..=200) as i64;
            let lowered = more.one_in(2).then(|| more.whole(50..=100) as i64);
            let percent = lowered.unwrap_or(raised);
            let money = |money: Money| Money(money.0 / 100 * percent);
            other.budget.total = job.budget.total.map(money);
            other.budget.per_day = job.budget.per_day.map(money);
            other.budget.per_month = job.budget.per_month.map(money);
            if let Some(percent) = lowered {
                let rate = |rate: Rate| Rate(rate.0 / 100 * percent);
                other.budget.per_hour = job.budget.per_hour.map(rate);
            }
            vec![(0, turn(Some(Policy::Good(Arc::new(other)))))]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_wrong_can_be_read() {
        for text in WIRES.iter().chain(&SPELLS) {
            assert!(text.parse::<FaultSpec>().is_ok(), "{text}");
        }
    }

    #[test]
    fn a_seed_draws_the_same_and_another_something_else() {
        let text = |seed| format!("{:?}", Scenario::drawn(seed, 1));
        assert_eq!(text(5), text(5));
        assert_ne!(text(5), text(6));
    }

    type Has<T> = fn(&T) -> bool;

    #[test]
    fn every_limit_and_what_it_counts_is_drawn() {
        let drawn: Vec<Scenario> = (0..300).map(|seed| Scenario::drawn(seed, 1)).collect();
        let of_a_job: [(&str, Has<Job>); 7] = [
            ("total", |job| job.budget.total.is_some()),
            ("day", |job| job.budget.per_day.is_some()),
            ("month", |job| job.budget.per_month.is_some()),
            ("hour", |job| job.budget.per_hour.is_some()),
            ("GPUs", |job| job.requirements.gpu_count == 2),
            ("traffic", |job| job.traffic_gb_max.is_some()),
            ("payer", |job| job.owner.is_some() && !job.tags.is_empty()),
        ];
        for (what, has) in of_a_job {
            let mut jobs = drawn.iter().flat_map(|drawn| &drawn.jobs);
            assert!(jobs.any(|job| has(job)), "{what}");
        }
        let measured: [(&str, Has<Bounds>); 6] = [
            ("total", |bounds| bounds.total.is_some()),
            ("day", |bounds| bounds.per_day.is_some()),
            ("month", |bounds| bounds.per_month.is_some()),
            ("hour", |bounds| bounds.per_hour.is_some()),
            ("instances", |bounds| bounds.instances_max.is_some()),
            ("GPUs", |bounds| bounds.gpus_max.is_some()),
        ];
        for (what, has) in measured {
            let binds = |drawn: &Scenario| {
                let pays = |scope: &Scope| {
                    let mut jobs = drawn.jobs.iter();
                    jobs.any(|job| Scope::of(&job.name, &job.payer()).any(|of| of == *scope))
                };
                let mut groups = drawn.engine.groups.iter();
                groups.any(|(scope, bounds)| has(bounds) && pays(scope))
            };
            assert!(drawn.iter().any(binds), "{what}");
        }
        let of_the_account: [(&str, Has<EngineConfig>); 3] = [
            ("month", |engine| engine.per_month.is_some()),
            ("GPUs", |engine| engine.gpus_max.is_some()),
            ("runway", |engine| engine.min_runway.is_some()),
        ];
        for (what, has) in of_the_account {
            assert!(drawn.iter().any(|drawn| has(&drawn.engine)), "{what}");
        }
        let lowers = |drawn: &Scenario| {
            drawn.script.iter().any(|(_, turn)| match turn {
                Turn::Policy {
                    policy: Some(Policy::Good(new)),
                    ..
                } => drawn
                    .jobs
                    .iter()
                    .any(|job| job.name == new.name && new.budget.total < job.budget.total),
                _ => false,
            })
        };
        assert!(drawn.iter().any(lowers));
    }

    #[test]
    fn supervised_jobs_are_drawn_where_they_can_be_heard() {
        let drawn: Vec<Scenario> = (0..300).map(|seed| Scenario::drawn(seed, 1)).collect();
        let supervised = |drawn: &Scenario| {
            let runners = drawn.jobs.iter().filter(|job| job.run.runner.is_some());
            runners.count()
        };
        let all: usize = drawn.iter().map(supervised).sum();
        assert!(all > 60, "{all}");
        for drawn in drawn.iter().filter(|drawn| supervised(drawn) > 0) {
            assert_eq!(drawn.path, Path::Native, "seed {}", drawn.seed);
            let cut = drawn.disputed.label_kept.is_some();
            let mut leases = drawn.jobs.iter().filter_map(|job| job.run.runner.as_ref());
            assert!(!cut || leases.all(|runner| runner.lease.is_none()));
        }
        let mut runners = drawn.iter().flat_map(|drawn| &drawn.jobs);
        let short = |job: &Arc<Job>| {
            let lease = job.run.runner.as_ref().and_then(|runner| runner.lease);
            lease == Some(Duration::from_mins(10))
        };
        assert!(runners.any(short));
        assert!(drawn.iter().any(|drawn| drawn.liars > 0.0));
    }

    #[test]
    fn every_seed_has_jobs_and_a_script_in_order() {
        for seed in 0..200 {
            let drawn = Scenario::drawn(seed, 1);
            assert!(!drawn.jobs.is_empty(), "seed {seed}");
            assert!(drawn.script.is_sorted_by_key(|(at, _)| *at), "seed {seed}");
        }
    }
}
