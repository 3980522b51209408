//! What must hold, looked at from the marketplace's side.
//!
//! The checker knows nothing of the daemon's books. It reads the market's own, after every request,
//! and says what was broken and when.

mod bids;
mod books;
mod disks;
mod end;
mod limits;
mod obeys;
mod runners;
mod runway;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::market::{ExactBill, Happening, Market, RawInstance};
use crate::types::ids::{Installation, IntentId, JobName, Label, ReplicaId};
use crate::types::intent::{Effect, Intent};
use crate::types::job::{CheckpointPlace, Finish, Job, RentalChoice};
use crate::types::money::{BID_PARKED, Money, Rate};
use crate::types::state::Event;
use crate::types::time::Time;
use crate::types::world::EngineConfig;

use bids::Bids;
use disks::Disks;
use limits::Limits;
use obeys::Obeys;
use runners::Runners;
use runway::Runway;
use versions::Versions;

/// Watches one account of a market.
#[derive(Debug)]
pub struct Checker {
    account: u64,
    /// Somebody else's account, which the token may open for a while.
    elsewhere: Option<u64>,
    /// What was rented there, and how many creates went there of which no client could have known.
    rented_elsewhere: BTreeSet<u64>,
    exchanged: usize,
    config: EngineConfig,
    /// Instances that carried a label of ours, and what they ran.
    ours: BTreeMap<u64, Option<ReplicaId>>,
    installation: Option<Installation>,
    /// Whether GPUs are billed for no longer than they are shown to run.
    bills_what_it_shows: bool,
    /// What instances of ours cost by what is shown of them: GPUs while the container runs, and the
    /// disk. What is billed beyond that is known from the bill alone.
    reckoned: BTreeMap<u64, Money>,
    looked_at: Option<Time>,
    /// What an instance's traffic may cost at most that limits count.
    traffic_most: BTreeMap<u64, Money>,
    limits: Limits,
    obeys: Obeys,
    runway: Runway,
    /// When the rows of the bill were last looked at.
    bill_looked_at: Option<Time>,
    /// How far the daemon's wall clock is ahead, in milliseconds.
    ahead_ms: i64,
    /// Instances that are not ours and must still be there, and those that their owner destroyed.
    foreign: BTreeSet<u64>,
    foreign_gone: BTreeSet<u64>,
    /// What others took from the credit.
    others_took: Money,
    /// What all that is ours costs by the hour while it runs, whether or not it does now.
    running_rate: Rate,
    /// Since when the credit is under its reserve: what was billed for ours then, and that rate.
    short: Option<(Money, Rate)>,
    bids: Bids,
    /// Whether nothing but the daemon acts any more.
    still: bool,
    /// Rents since then, by replica.
    rents: BTreeMap<ReplicaId, u32>,
    disks: Disks,
    runners: Runners,
    /// Events of the market that were looked at.
    events_seen: usize,
    /// Instances that the daemon announced to destroy for a limit.
    announced: BTreeSet<u64>,
    /// When a destroy was last sent, by its path.
    destroys: BTreeMap<String, Time>,
    /// How often something was told in the present hour, by its kind and subject.
    stories: BTreeMap<(String, String), (i64, u32)>,
    /// Whether everything is being destroyed on purpose.
    ending: bool,
    violations: BTreeSet<String>,
    first: Option<Time>,
}

/// The rows of the bill are looked at no more often than this.
const BILL_LOOK_APART_MS: i64 = 20 * 60_000;

/// The same destroy is not sent again before this: each request begins the proof of absence anew.
const DESTROY_APART_MS: i64 = 60_000;

/// What came out as something else is destroyed, or stopped for good, within this, whatever fails.
const NOT_ASKED_FOR_MS: i64 = 60 * 60_000;

/// Where the credit is under its reserve, ours may cost what it costs for so long: until it is seen,
/// and wound down, with an outage in between.
const SHORT_FOR: Duration = Duration::from_hours(2);

/// Once nothing but the daemon acts, a replica is not rented for more often than this: what fails at
/// once is tried again a few times.
const RENTS_AT_REST_MAX: u32 = 12;

/// Something that is told oftener than this in an hour, about one subject, is a storm.
const STORY_MAX: u32 = 30;

impl Checker {
    /// A checker of one account, with the jobs and limits that are promised to hold.
    pub fn new(account: u64, jobs: &[Arc<Job>], config: EngineConfig) -> Self {
        let mut checker = Self {
            account,
            elsewhere: None,
            rented_elsewhere: BTreeSet::new(),
            exchanged: 0,
            limits: Limits::new(config.clone()),
            config,
            ours: BTreeMap::new(),
            installation: None,
            bills_what_it_shows: false,
            reckoned: BTreeMap::new(),
            looked_at: None,
            traffic_most: BTreeMap::new(),
            obeys: Obeys::default(),
            runway: Runway::default(),
            bill_looked_at: None,
            ahead_ms: 0,
            foreign: BTreeSet::new(),
            foreign_gone: BTreeSet::new(),
            others_took: Money::ZERO,
            running_rate: Rate::ZERO,
            short: None,
            bids: Bids::default(),
            still: false,
            rents: BTreeMap::new(),
            disks: Disks::default(),
            runners: Runners::default(),
            events_seen: 0,
            announced: BTreeSet::new(),
            destroys: BTreeMap::new(),
            stories: BTreeMap::new(),
            ending: false,
            violations: BTreeSet::new(),
            first: None,
        };
        for job in jobs {
            checker.policy(job, Time(0));
        }
        checker
    }

    /// The account that it watches.
    pub fn account(&self) -> u64 {
        self.account
    }

    /// GPUs are billed for no longer than they are shown to run. What a marketplace bills beyond that
    /// is in no limit before it is on the bill: nothing can measure it.
    pub fn bills_what_it_shows(&mut self) {
        self.bills_what_it_shows = true;
    }

    /// From now on no process of the daemon lives for so long.
    pub fn asleep(&mut self, now: Time, time: Duration) {
        self.limits.asleep(now, time);
    }

    /// A process begins.
    pub fn begins(&mut self) {
        self.runway.begins();
    }

    /// A listing of the account's instances was answered with this.
    pub fn listed(&mut self, text: &str, market: &Market) {
        let ids = market.held(self.account).map(|rented| rented.id);
        self.runway.listed(text, ids);
    }

    /// The account was read, and showed this credit.
    pub fn account_read(&mut self, credit: Money) {
        self.runway.account_read(credit);
    }

    /// Somebody else's account, on which nothing of ours may ever be.
    pub fn elsewhere(&mut self, account: u64) {
        self.elsewhere = Some(account);
    }

    /// A create went to somebody else's account although the request just before it was answered that
    /// the token opens ours: it was exchanged in between, which no client can know.
    pub fn exchanged(&mut self) {
        self.exchanged += 1;
    }

    /// An instance that somebody else holds on the account: it must never be touched.
    pub fn foreign(&mut self, instance: u64) {
        self.foreign.insert(instance);
    }

    /// From now on a job's policy is this.
    pub fn policy(&mut self, job: &Arc<Job>, now: Time) {
        self.limits.policy(job, now);
        self.obeys.has_policy(&job.name);
    }

    /// The daemon's wall clock was set so far ahead, in milliseconds.
    pub fn clock_is_ahead(&mut self, ahead_ms: i64) {
        self.ahead_ms = ahead_ms;
        // By that clock it may be long ago that something was sent.
        self.destroys.clear();
    }

    /// Somebody else took so much from the credit.
    pub fn others_took(&mut self, amount: Money) {
        self.others_took += amount;
    }

    /// Somebody else destroys the instance that they have had longest: which it is.
    pub fn foreign_goes(&mut self) -> Option<u64> {
        let id = self.foreign.pop_first()?;
        self.foreign_gone.insert(id);
        Some(id)
    }

    /// From now on nothing but the daemon acts, and nothing fails.
    pub fn still(&mut self) {
        self.still = true;
    }

    /// Whether nothing but the daemon acts any more.
    pub fn is_still(&self) -> bool {
        self.still && !self.ending
    }

    /// The daemon is about to do something.
    pub fn intends(&mut self, intent: &Intent, market: &Market) {
        self.bids.asks(intent, market);
        let effect = &intent.effect;
        self.check_obeys(effect, market);
        let mut may_stop = false;
        match effect {
            Effect::Rent { .. } => self.runway.decided(intent.id),
            Effect::Destroy { instance, .. } => self.disks.destroys(instance.0),
            Effect::Start { instance } => self.disks.starts(instance.0),
            Effect::Stop { instance } => may_stop = self.disks.may_stop_again(instance.0),
            Effect::SetBid { .. } | Effect::Relabel { .. } | Effect::Copy { .. } => {}
        }
        if !self.still || self.ending {
            return;
        }
        let stands = effect
            .instance()
            .and_then(|instance| market.standing(self.account, instance.0));
        let is_so = match (effect, stands) {
            (Effect::Rent { replica, .. }, _) => {
                let rents = self.rents.entry(replica.clone()).or_default();
                *rents += 1;
                if *rents > RENTS_AT_REST_MAX {
                    self.violations
                        .insert(format!("{replica} does not come to rest"));
                }
                false
            }
            (Effect::SetBid { bid, .. }, Some(stands)) => stands.bid == Some(*bid),
            (Effect::Stop { .. }, Some(stands)) => !stands.wants && !may_stop,
            (Effect::Start { .. }, Some(stands)) => stands.wants,
            _ => false,
        };
        if is_so {
            self.violations
                .insert(format!("it asks for what is so already: {effect:?}"));
        }
    }

    /// Planning again on a state that satisfies the plan planned something.
    pub fn planned_again(&mut self, effect: &Effect, done: Option<&Effect>) {
        self.violations.insert(match done {
            Some(done) => format!("planned again: {effect:?} after {done:?}"),
            None => format!("a settled state plans something: {effect:?}"),
        });
    }

    /// What the bill comes to, and what is wrong with the market's own rows.
    pub fn books(&self, market: &Market, decimals: u32) -> (Money, Vec<String>) {
        let ours = self.ours.keys().copied().collect();
        books::compared(market, self.account, &ours, decimals)
    }

    /// What GPUs and disks of ours cost exactly, traffic left out.
    pub fn exact_without_traffic(&self, market: &Market) -> Money {
        let bills = market.exact_bill(self.account).into_iter();
        bills
            .filter(|(id, _)| self.ours.contains_key(id))
            .map(|(_, bill)| bill.gpu + bill.disk)
            .sum()
    }

    /// Instances that carried a label of ours so far.
    pub fn made(&self) -> usize {
        self.ours.len()
    }

    /// What was broken, each thing once.
    pub fn violations(&self) -> Vec<String> {
        self.violations.iter().cloned().collect()
    }

    /// What the charge rows that the market reports come to, by job.
    pub fn charged(&self, market: &Market) -> BTreeMap<JobName, Money> {
        let mut sums: BTreeMap<JobName, Money> = BTreeMap::new();
        for row in market.charges(self.account, Time(0), market.now()) {
            let id = row
                .source
                .strip_prefix("instance-")
                .and_then(|id| id.parse().ok());
            let replica = id.and_then(|id: u64| self.ours.get(&id)).cloned().flatten();
            let amount = Money::from_dollars(row.amount).unwrap_or_default();
            if let Some(replica) = replica {
                *sums.entry(replica.job).or_default() += amount;
            }
        }
        sums
    }

    /// Looks at the market now.
    pub fn look(&mut self, market: &Market) {
        let rows = market.instances(self.account);
        let now = market.now();
        let since = self.looked_at.replace(now).unwrap_or(now);
        let mut working: BTreeMap<ReplicaId, Vec<u64>> = BTreeMap::new();
        let mut new: Vec<(u64, IntentId)> = Vec::new();
        let (mut worst, mut others) = (Rate::ZERO, Rate::ZERO);
        self.running_rate = Rate::ZERO;
        self.limits.begins();
        self.runners.begins();
        self.runners.is_still(self.is_still(), now);
        let account = self.account;
        self.bids.looks_around(now, |machine, gpus| {
            market.floor_of_others(account, machine, gpus)
        });
        for row in &rows {
            // Ours is what was made by us, even where the market shows less of the label.
            let text = market.label_asked(row.id).unwrap_or_default();
            let burn = Rate::from_dollars(row.instance.total_hour).unwrap_or_default();
            let Some(label) = Label::parse(text).filter(|_| !self.foreign.contains(&row.id)) else {
                if self.runway.has_shown(row.id) {
                    others += burn;
                }
                continue;
            };
            self.installation
                .get_or_insert_with(|| label.installation.clone());
            self.ours.insert(row.id, Some(label.replica.clone()));
            self.running_rate += Rate::from_dollars(row.dph_total).unwrap_or_default();
            let runs = row.actual_status.as_deref() == Some("running");
            let asked = row.is_bid || !self.is_not_asked(&label.replica);
            self.check_rental(market, &label.replica, row.id, asked, runs);
            let may_work = runners::may_work(market, row.id, runs);
            self.runs(row.id, may_work, &label.replica.job, now);
            self.check_runner(market, row, &label.replica);
            let shown = if runs {
                row.dph_total
            } else {
                row.storage_total_cost
            };
            let shown = Rate::from_dollars(shown).unwrap_or_default();
            *self.reckoned.entry(row.id).or_default() += shown.cost_ms(now.ms_since(since));
            let may_run = self.may_run(market, row);
            let gpus = if may_run { row.num_gpus } else { 0 };
            let counted = self.without_excess(burn, row.id, label.intent, row.is_bid, now);
            self.limits.holds(&label.replica.job, counted, gpus);
            let by_itself = if may_run {
                row.dph_total
            } else {
                row.storage_total_cost
            };
            // What a gateway makes of a bid cannot be known when the rent is decided on. What was asked
            // for counts in full, so a rent that would not last at its own price is found all the same.
            let by_itself = Rate::from_dollars(by_itself).unwrap_or_default();
            worst += self.without_excess(by_itself, row.id, label.intent, row.is_bid, now);
            new.push((row.id, label.intent));
            self.notes_traffic(row, &label.replica.job);
            if runs {
                working
                    .entry(label.replica.clone())
                    .or_default()
                    .push(row.id);
            }
            self.check_ceiling(market, &label.replica, row.id, row.dph_total, row.num_gpus);
            if let Some(stands) = market.standing(self.account, row.id)
                && let Some(wrong) = self.bids.look(row.id, label.intent, now, &stands)
            {
                self.broken(market, wrong);
            }
        }
        for (replica, ids) in working {
            if ids.len() > 1 {
                // Ids and not the time, so that a lasting violation is told once.
                self.violations
                    .insert(format!("two at work for {replica}: {ids:?}"));
            }
        }
        self.check_events(market);
        self.check_foreign(market);
        self.check_elsewhere(market);
        self.runway.others = others;
        let credit = market.credit(self.account);
        for wrong in self.runway.look(&self.config, &new, worst, credit) {
            self.broken(market, wrong);
        }
        self.check_limits(market);
    }

    fn check_runner(&mut self, market: &Market, row: &RawInstance, replica: &ReplicaId) {
        let Some(runner) = market.at_work(row.id) else {
            return;
        };
        let (label, now) = (row.label.as_deref(), market.now());
        for wrong in self.runners.look(row.id, replica, label, &runner, now) {
            self.broken(market, wrong);
        }
        let once = |versions: &Versions| {
            let mut in_force = versions.in_force();
            in_force.all(|job| job.finish == Finish::Exit)
        };
        if self.limits.versions(&replica.job).is_some_and(once) {
            let wrong = self.runners.look_for_ends(row.id, replica, &runner, now);
            if let Some(wrong) = wrong {
                self.broken(market, wrong);
            }
        }
    }

    /// How often a command that was to run once was begun again after it had ended well.
    pub fn begun_again(&self) -> u64 {
        self.runners.begun_again()
    }

    /// Whether an instance runs, or may by itself: it has its GPUs, or waits for them with more than
    /// the least bid.
    fn may_run(&self, market: &Market, row: &RawInstance) -> bool {
        let stands = market.standing(self.account, row.id);
        let waits = stands
            .is_some_and(|stands| stands.wants && stands.bid.is_none_or(|bid| bid > BID_PARKED));
        waits || &*row.cur_state == "running"
    }

    /// What an instance's traffic may cost that limits count: the cap of its job, at the dearer
    /// direction's price.
    fn notes_traffic(&mut self, row: &RawInstance, job: &JobName) {
        let cap = self.limits.versions(job).map_or(0.0, Versions::traffic_gb);
        let price = row.inet_down_cost.max(row.inet_up_cost);
        let most = Money::from_dollars(cap * price).unwrap_or_default();
        let before = self.traffic_most.entry(row.id).or_default();
        *before = most.max(*before);
    }

    /// Whether an instance runs now, and since when; and whether what it does may be lost.
    fn runs(&mut self, id: u64, runs: bool, job: &JobName, now: Time) {
        let may_be_lost = |job: &Arc<Job>| {
            // An instance that goes by itself is what `gone` waits for.
            job.disposable
                || job.checkpoint_place == Some(CheckpointPlace::Remote)
                || job.finish == Finish::Gone
        };
        let versions = self.limits.versions(job);
        let may = versions.is_none_or(|versions| versions.in_force().any(may_be_lost));
        self.disks.runs(id, runs, may, now);
    }

    fn check_ceiling(
        &mut self,
        market: &Market,
        replica: &ReplicaId,
        id: u64,
        dph: f64,
        gpus: u32,
    ) {
        let Some(job) = self.limits.versions(&replica.job) else {
            return;
        };
        let Some(stands) = market.standing(self.account, id) else {
            return;
        };
        // What is stopped on purpose costs its disk alone, and cannot run by itself. An on-demand
        // rental where a bid was asked for is another matter, with a time of its own.
        if !stands.wants || (stands.bid.is_none() && self.is_not_asked(replica)) {
            return;
        }
        let (Some(ceiling), Ok(rate)) = (job.ceiling(), Rate::from_dollars(dph)) else {
            return;
        };
        // The wire's floats are rounded to more decimals than a bid has; a step is far below. An
        // on-demand rate cannot be lowered, and a hundredth is worth no move.
        let slack = match stands.bid {
            Some(_) => Rate(100_000),
            None => Rate(ceiling.0 / 100).max(Rate(100_000)),
        };
        if rate.div_ceil(gpus) > ceiling + slack {
            let text = format!("instance {id} of {replica} costs {rate}/h, ceiling {ceiling}");
            self.broken(market, text);
        }
    }

    /// Whether an on-demand rental of a replica was not asked for.
    fn is_not_asked(&self, replica: &ReplicaId) -> bool {
        let job = self.limits.versions(&replica.job);
        let job = job.and_then(Versions::newest);
        job.is_some_and(|job| job.rental == RentalChoice::Interruptible)
    }

    /// A gateway may rent on-demand where a bid was meant: that must not last.
    fn check_rental(
        &mut self,
        market: &Market,
        replica: &ReplicaId,
        id: u64,
        asked: bool,
        runs: bool,
    ) {
        if asked {
            return;
        }
        let stands = market.standing(self.account, id);
        let at_work = runs || stands.is_none_or(|stands| stands.wants);
        if self.disks.not_asked_ms(id, at_work, market.now()) > NOT_ASKED_FOR_MS {
            self.violations.insert(format!(
                "instance {id} of {replica} is on-demand, which was not asked for, and stays"
            ));
        }
    }

    /// What an instance counts by the hour. What a gateway made on-demand of a bid counts as what was
    /// asked for, and no longer than it may last: the excess is the gateway's doing, and shows only
    /// once the instance can be read. What it is billed counts in full.
    fn without_excess(
        &mut self,
        burn: Rate,
        id: u64,
        rent: IntentId,
        is_bid: bool,
        now: Time,
    ) -> Rate {
        let Some(asked) = self.bids.asked_for(rent).filter(|_| !is_bid) else {
            return burn;
        };
        if self.disks.not_asked_ms(id, true, now) > NOT_ASKED_FOR_MS {
            return burn;
        }
        burn.min(asked)
    }

    fn check_foreign(&mut self, market: &Market) {
        for &id in &self.foreign {
            if market.instance(self.account, id).is_none() {
                self.violations
                    .insert(format!("foreign instance {id} was destroyed"));
            }
        }
    }

    /// Nothing of ours is on somebody else's account.
    fn check_elsewhere(&mut self, market: &Market) {
        let rows = self.elsewhere.map(|account| market.instances(account));
        for row in rows.unwrap_or_default() {
            self.rented_elsewhere.insert(row.id);
            if self.rented_elsewhere.len() > self.exchanged {
                self.violations.insert(format!(
                    "instance {} was rented on an account that is not ours",
                    row.id
                ));
            }
        }
    }

    /// A disk that must be kept is destroyed only for a limit, or because the user asked. And we are
    /// not the rival who displaces us.
    fn check_events(&mut self, market: &Market) {
        let events = market.events();
        for event in events.get(self.events_seen..).unwrap_or_default() {
            let instance = match event.what {
                Happening::Outbid { .. } | Happening::OnDemandTook { .. } => {
                    self.bids.displaced(event.machine, event.at);
                    continue;
                }
                // The marketplace deletes what is not paid for, whoever's it is.
                Happening::Deleted { instance } => {
                    if self.foreign.remove(&instance) {
                        self.foreign_gone.insert(instance);
                    }
                    continue;
                }
                Happening::Destroyed { instance } => instance,
                _ => continue,
            };
            // What nobody renews any more ends itself, and its disk with it: its policy says so.
            let kept = self.disks.is_kept(instance) && !market.ended_itself(instance);
            if kept && !self.ending && !self.announced.contains(&instance) {
                self.violations.insert(format!(
                    "the disk of instance {instance} was destroyed against its policy"
                ));
            }
        }
        self.events_seen = events.len();
    }

    /// From now on everything is destroyed on purpose.
    pub fn ending(&mut self) {
        self.ending = true;
    }

    /// A destroy was sent.
    pub fn destroy_sent(&mut self, path: String, now: Time) {
        let before = self.destroys.insert(path.clone(), now);
        if before.is_some_and(|at| now.ms_since(at) < DESTROY_APART_MS) {
            self.violations
                .insert(format!("{path} was destroyed twice within a minute"));
        }
    }

    /// The daemon told something.
    pub fn told(&mut self, event: &Event) {
        let subject = match (event.instance, &event.replica) {
            (Some(instance), _) => instance.to_string(),
            (None, Some(replica)) => replica.to_string(),
            (None, None) => String::new(),
        };
        let hour = event.at.0.div_euclid(3_600_000);
        let story = self
            .stories
            .entry((event.kind.clone(), subject.clone()))
            .or_insert((hour, 0));
        if story.0 != hour {
            *story = (hour, 0);
        }
        story.1 += 1;
        if story.1 > STORY_MAX {
            self.violations.insert(format!(
                "`{}` was told more than {STORY_MAX} times an hour of {subject}",
                event.kind
            ));
        }
    }

    /// The daemon recorded that it destroys an instance for a limit, or because it was asked to.
    pub fn announced(&mut self, instance: u64) {
        self.announced.insert(instance);
    }

    fn check_limits(&mut self, market: &Market) {
        let now = market.now();
        let zone = self.config.timezone;
        // By the clock that the daemon goes by.
        let day = Time(now.0 + self.ahead_ms).day(zone);
        let mut bills: BTreeMap<JobName, Money> = BTreeMap::new();
        let mut whole: BTreeMap<JobName, Money> = BTreeMap::new();
        let (mut ours, mut others) = (Money::ZERO, Money::ZERO);
        for (id, bill) in market.exact_bill(self.account) {
            match self.ours.get(&id) {
                Some(Some(replica)) => {
                    let job = &replica.job;
                    *bills.entry(job.clone()).or_default() += self.counts(id, &bill);
                    *whole.entry(job.clone()).or_default() += bill.total();
                    ours += bill.gpu + bill.disk;
                }
                Some(None) => {}
                None => others += bill.total(),
            }
        }
        self.limits.spent(bills, day);
        let mut broken = self.limits.passed(now, day);
        let due = self
            .bill_looked_at
            .is_none_or(|at| now.ms_since(at) >= BILL_LOOK_APART_MS);
        if due {
            self.bill_looked_at = Some(now);
            let shown = self.charged(market);
            broken.extend(self.limits.billed(&shown, &whole, now, day));
        }
        for what in broken {
            self.broken(market, what);
        }
        self.check_credit(market.credit(self.account), ours, others);
    }

    /// What of an instance's bill limits count. Left out is its traffic beyond the cap of its job, or
    /// without one; and where GPUs are billed before they are shown to run, what that is more.
    fn counts(&self, id: u64, bill: &ExactBill) -> Money {
        let of = |sums: &BTreeMap<u64, Money>| sums.get(&id).copied().unwrap_or_default();
        let exact = bill.gpu + bill.disk;
        let known = if self.bills_what_it_shows {
            exact
        } else {
            exact.min(of(&self.reckoned))
        };
        known + bill.traffic.min(of(&self.traffic_most))
    }

    /// The credit's reserve is never touched by our own doing: not even if everything that others
    /// took were still there. And once it is, for whatever reason, we go on spending no longer than
    /// it takes to see that and to wind down.
    fn check_credit(&mut self, credit: Money, ours: Money, others: Money) {
        let reserve = self.config.credit_reserve;
        if credit >= reserve {
            self.short = None;
            return;
        }
        if credit + self.others_took + others < reserve {
            self.violations
                .insert("the credit fell under its reserve".to_owned());
        }
        // What boots then, or whose host is away, may run before it can be wound down.
        let (billed, rate) = *self.short.get_or_insert((ours, self.running_rate));
        if ours > billed + rate.cost(SHORT_FOR) {
            self.violations
                .insert("spending goes on while the credit is under its reserve".to_owned());
        }
    }

    fn broken(&mut self, market: &Market, text: String) {
        let at = *self.first.get_or_insert(market.now());
        self.violations
            .insert(format!("{text} (first trouble at {at})"));
    }
}
