//! Folding what one poll saw into what is known.
//!
//! Presence is believed from any listing; absence only where the caller has proven it. Our
//! instances are those that we know by id, and those whose label names this installation: a row
//! of ours that nothing known explains is adopted, so that it can be kept or destroyed, never
//! leaked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::types::ids::{
    InstanceId, IntentId, JobName, Label, MachineId, Permit, ReplicaId, Slot, Tail,
};
use crate::types::instance::{Held, Instance, Listing, Phase, RawState, Rental, RunnerView};
use crate::types::intent::{Effect, Intent, IntentState};
use crate::types::job::{Finish, Job};
use crate::types::ledger::{Component, EntryKind, Line};
use crate::types::money::{BID_PARKED, Rate};
use crate::types::mutant::Mutant;
use crate::types::offer::{Offer, Snapshot};
use crate::types::start::Asked;
use crate::types::state::{Change, Severity, State};
use crate::types::time::{Time, millis};
use crate::types::world::EngineConfig;

use super::accrue::{Before, Sight, accrue, work};
use super::act::given_up;
use super::bid::ECHO_LASTS;
use super::draft::Draft;
use super::forgotten::CLOCK_OFF_MAX;
use super::hear::Heard;
use super::idle::is_at_work;
pub use super::moved::Moved;
use super::risk::Hazard;
use super::transition::UNSEEN_WORK_AFTER;

/// What one poll saw, and what the caller proved by waiting.
pub struct Observation<'a> {
    /// When the poll was made.
    pub now: Time,
    /// How the wall clock was moved since the last observation.
    pub moved: Moved,
    /// Whether the account was seen to have no money left.
    pub broke: bool,
    /// The instances of the account; `None` where the listing failed.
    pub listing: Option<&'a Listing>,
    /// The market, for what a row does not say.
    pub market: &'a Snapshot,
    /// Instances of ours that are proven to exist no more.
    pub proven_gone: &'a BTreeSet<InstanceId>,
    /// Intents that are proven to have no effect any more, if they had none until now.
    pub proven_void: &'a BTreeSet<IntentId>,
    /// By job, the cheapest eligible on-demand landed rate per useful GPU-hour at the last tick.
    pub on_demand: &'a BTreeMap<JobName, Rate>,
    /// When an instance was last looked at since and did what it is known to do.
    pub unchanged: &'a BTreeMap<InstanceId, Time>,
    /// Instances that were seen to run between listings, and are not known to have run.
    pub ran: &'a BTreeSet<InstanceId>,
    /// The last records of instances that were settled as gone and are listed all the same.
    pub ended: &'a BTreeMap<InstanceId, Held>,
    /// What was read of the logs of instances with a runner.
    pub heard: &'a BTreeMap<InstanceId, Heard>,
}

/// How long a listing may show a bid from before its last raise. A raised bid counts until then.
const BID_LAG_MS: i64 = 120_000;

/// After so long an unbroken run, a lost slot may be raised for again.
const RAISE_AGAIN_AFTER_MS: i64 = 3_600_000;

/// How long a bid of ours explains a machine's floor.
pub(crate) const EVIDENCE_MS: i64 = ECHO_LASTS.as_millis() as i64;

/// The moment at which we last held a machine is renewed this often, to spare a write each tick.
const EVIDENCE_RENEWED_MS: i64 = 5 * 60_000;

/// The changes that an observation makes. Applied to the state, they are what is known after it.
pub fn observe(
    state: &State,
    jobs: &[Arc<Job>],
    config: &EngineConfig,
    seen: &Observation<'_>,
) -> Vec<Change> {
    let mut fold = Fold {
        draft: Draft::new(state),
        jobs,
        config,
        seen,
    };
    fold.payers();
    fold.holds();
    fold.clock_set_back();
    fold.clock_set_ahead();
    if let Some(listing) = seen.listing {
        fold.rows(listing);
    }
    fold.traffic_prices();
    fold.absences();
    fold.voids();
    fold.arrays_end();
    fold.draft.finish()
}

/// What a row tells of the time up to it. A host that is not heard from bills no disk, as documented;
/// of a stopped instance on such a host only its present burn says so.
fn sight(row: &Instance) -> Sight {
    Sight::Listed {
        up_ms: row.up_ms,
        idle: match row.burn {
            Some(burn) => burn == Rate::ZERO,
            None => row.phase() == Phase::Offline,
        },
    }
}

/// Whether an instance of which nothing is on record may hold work: it runs, or it is not known to be
/// too young for that. Whatever it does now, it may have run before, and been outbid or stopped.
fn may_have_run(row: &Instance, now: Time) -> bool {
    let age_ms = row.started_at.map(|at| now.ms_since(at));
    let young = age_ms.is_some_and(|ms| (0..millis(UNSEEN_WORK_AFTER)).contains(&ms));
    row.phase() == Phase::Running || !young
}

/// An observation being folded in.
pub(crate) struct Fold<'a> {
    pub(crate) draft: Draft<'a>,
    pub(crate) jobs: &'a [Arc<Job>],
    pub(crate) config: &'a EngineConfig,
    pub(crate) seen: &'a Observation<'a>,
}

impl Fold<'_> {
    pub(crate) fn job(&self, name: &JobName) -> Option<Arc<Job>> {
        self.jobs.iter().find(|job| job.name == *name).cloned()
    }

    pub(crate) fn tell(&mut self, severity: Severity, kind: &str, held: &Held, text: String) {
        let subject = (Some(&held.replica), Some(held.id));
        self.draft
            .event(self.seen.now, severity, kind, subject, text);
    }

    /// Remembers on whose behalf each job spends, for when its policy is gone.
    fn payers(&mut self) {
        for job in self.jobs {
            let mut record = self.draft.state.job(&job.name);
            let payer = job.payer();
            if record.payer != payer {
                record.payer = payer;
                self.draft.state.jobs.insert(job.name.clone(), record);
            }
        }
    }

    // ------------------------------------------------------------------------------------- rows

    fn rows(&mut self, listing: &Listing) {
        let mut ours: Vec<(IntentId, &Instance)> = Vec::new();
        for row in &listing.rows {
            if let Some(held) = self.draft.state.held.get(&row.id) {
                ours.push((held.intent, row));
                self.settle_rent(held.intent, row.id);
            } else if let Some(label) = self.our_label(row) {
                self.meet(&label, row);
                ours.push((label.intent, row));
            }
        }
        // In the order in which they were made: a later instance of a replica finds the earlier
        // ones up to date.
        ours.sort_by_key(|&(intent, row)| (intent, row.id));
        for (_, row) in ours {
            self.update(row);
        }
    }

    /// The label of a row that is ours and not known by its id. Cut short, it is that of the rent
    /// that it may be; where there is none, what is left of it, and the oldest intent of all, so
    /// that it never passes for the current instance of its replica.
    fn our_label(&self, row: &Instance) -> Option<Label> {
        if self.config.mutant == Some(Mutant::LabelIgnored) {
            return None;
        }
        let state = &self.draft.state;
        let text = row.label.as_deref()?;
        if !Label::has_prefix(text, &state.installation) {
            return None;
        }
        // Before it is read as whole: cut within the intent it would read as another one.
        let rent = state.rents_shown_by(row).next();
        let (replica, intent) = match rent.map(|intent| (&intent.effect, intent.id)) {
            Some((Effect::Rent { replica, .. }, intent)) => (replica.clone(), intent),
            _ => match Label::parse(text) {
                Some(label) => return Some(label),
                None => (
                    Label::replica_of_cut(text).unwrap_or_else(ReplicaId::unnamed),
                    IntentId(0),
                ),
            },
        };
        Some(Label {
            installation: state.installation.clone(),
            replica,
            intent,
        })
    }

    /// An instance that is there settles the rent that made it, if the process died between keeping
    /// the one and closing the other.
    fn settle_rent(&mut self, rent: IntentId, made: InstanceId) {
        let open = self.draft.state.intents.get(&rent).cloned();
        let open = open.filter(|intent| matches!(intent.effect, Effect::Rent { .. }));
        if let Some(intent) = open {
            let done = IntentState::Done { instance: made };
            self.draft
                .intent(self.config.timezone, self.seen.now, &intent, done);
        }
    }

    /// A row of ours that is not known by its id: a create that shows late, or one of a time that
    /// the database has forgotten.
    fn meet(&mut self, label: &Label, row: &Instance) {
        let now = self.seen.now;
        let intent = self.draft.state.intents.get(&label.intent).cloned();
        let made = intent
            .filter(|intent| matches!(intent.effect, Effect::Rent { .. }))
            .and_then(|intent| {
                // What was booked on it before must be in its record.
                let held = match self.seen.ended.get(&row.id) {
                    Some(last) => self.resumed(last, row),
                    None => self.held_from_rent(&intent, row)?,
                };
                Some((intent, held))
            });
        let held = if let Some((intent, held)) = made {
            let done = IntentState::Done { instance: row.id };
            self.draft.intent(self.config.timezone, now, &intent, done);
            self.tell(
                Severity::Info,
                "settled",
                &held,
                "an instance showed whose creation was in doubt".to_owned(),
            );
            held
        } else {
            let held = self.adopted(label, row);
            self.tell(
                Severity::Warning,
                "adopted",
                &held,
                format!(
                    "instance {} carries our label and is not in our records; it is taken over",
                    row.id
                ),
            );
            held
        };
        let mut record = self.draft.state.replica(&held.replica);
        record.generation = record.generation.max(held.generation);
        self.draft
            .state
            .replicas
            .insert(held.replica.clone(), record);
        self.draft.state.held.insert(row.id, held);
    }

    fn offer(&self, found: impl Fn(&Offer) -> bool) -> Option<&Offer> {
        self.seen.market.offers.iter().find(|offer| found(offer))
    }

    /// What a GB costs on each machine that is held, as soon as an offer of it says. The offer that
    /// was rented is no longer listed when its instance shows, and without a price the traffic that
    /// is billed after an instance is gone would be kept no money for.
    fn traffic_prices(&mut self) {
        let unpriced = self.draft.state.held.values();
        let unpriced = unpriced.filter(|held| held.traffic_prices.is_none());
        let found: Vec<_> = unpriced
            .filter_map(|held| {
                let mut offers = self.seen.market.offers.iter();
                let prices = offers.find_map(|offer| {
                    let prices = offer.inet_down_price.zip(offer.inet_up_price);
                    prices.filter(|_| offer.machine == held.slot.machine)
                });
                Some((held.id, prices?))
            })
            .collect();
        for (id, prices) in found {
            if let Some(held) = self.draft.state.held.get_mut(&id) {
                held.traffic_prices = Some(prices);
            }
        }
    }

    fn held_from_rent(&self, intent: &Intent, row: &Instance) -> Option<Held> {
        let Effect::Rent {
            replica,
            generation,
            slot,
            offer,
            rental,
            price,
            disk_gb,
            storage,
            from,
            traffic,
        } = &intent.effect
        else {
            return None;
        };
        let old = from.and_then(|from| self.draft.state.held.get(&from));
        let seen = self.offer(|o| o.id == *offer);
        let model = seen.map(|o| &*o.gpu_name);
        Some(Held {
            generation: *generation,
            slot: *slot,
            gpu_name: model.unwrap_or_default().to_owned(),
            rental: *rental,
            price: *price,
            last_bid: (*rental == Rental::Bid).then_some(*price),
            storage: *storage,
            disk_gb: *disk_gb,
            runner: self.runner_of(replica),
            bringing: old.map(super::bring::bringing),
            asked: self.job(&replica.job).map(|job| Asked::of(&job.run)),
            traffic_prices: traffic
                .or_else(|| seen.and_then(|o| o.inet_down_price.zip(o.inet_up_price))),
            odds: seen.map(|o| Hazard::of(o, *rental, *price).odds()),
            // It was not made before the intent, and its disk is billed from then on at most.
            created_at: intent.at,
            accrued_to: intent.at,
            ..Held::new(row.id, intent.id, replica.clone(), self.seen.now)
        })
    }

    /// What is known at first of the runner of a replica's instance, where it is given one.
    fn runner_of(&self, replica: &ReplicaId) -> Option<RunnerView> {
        let job = self.job(&replica.job)?;
        job.run.runner.as_deref().map(RunnerView::of)
    }

    /// What a row says of an instance that our records do not hold. What it does not say is
    /// reckoned at its dearest: billed since it was made, on-demand.
    fn adopted(&self, label: &Label, row: &Instance) -> Held {
        let now = self.seen.now;
        if let Some(last) = self.seen.ended.get(&row.id) {
            return self.resumed(last, row);
        }
        let machine = row.machine.unwrap_or(MachineId(0));
        let disk_gb = row.disk_gb.unwrap_or(0);
        let storage = row.storage.or_else(|| {
            self.offer(|offer| offer.machine == machine)
                .and_then(|offer| offer.disk_rate(disk_gb))
        });
        // A rent's number is the moment of the clock at which it was asked for, or a little more.
        let asked_at = i64::try_from(label.intent.0).ok().map(Time);
        let asked_at = asked_at.filter(|&at| at <= now && now.since(at) <= CLOCK_OFF_MAX);
        let started_at = row.started_at.filter(|&at| at <= now);
        let created_at = started_at.or(asked_at).unwrap_or(now);
        // An instance that is older than another of its replica must not pass for the newer one.
        let superseded = self
            .draft
            .state
            .held_by(&label.replica)
            .any(|other| other.intent > label.intent)
            || self.draft.state.intents.values().any(|intent| {
                intent.id > label.intent
                    && matches!(&intent.effect, Effect::Rent { replica, .. } if *replica == label.replica)
            });
        // What its own label lets work is what its runner was given; another number would stop it.
        let tail = row.tail();
        let own = tail.filter(|tail| tail.permit == Permit::Go);
        let generation = match own {
            _ if superseded => 0,
            Some(tail) => tail.generation,
            None if tail.is_some() => 0,
            None => self.draft.state.replica(&label.replica).generation + 1,
        };
        Held {
            generation,
            slot: Slot {
                machine,
                gpus: row.gpus.unwrap_or(1).max(1),
            },
            rental: if row.is_bid == Some(true) {
                Rental::Bid
            } else {
                Rental::OnDemand
            },
            price: row.price.unwrap_or_default(),
            last_bid: row
                .price
                .filter(|&bid| row.is_bid == Some(true) && bid > BID_PARKED),
            storage: storage.unwrap_or_default(),
            disk_gb,
            created_at,
            accrued_to: created_at,
            phase: row.phase(),
            // Only a label with a tail is that of an instance with a runner.
            runner: row.tail().and_then(|_| self.runner_of(&label.replica)),
            first_ran_at: may_have_run(row, now).then_some(now),
            stop_asked: row.is_bid == Some(true) && row.is_parked(),
            ..Held::new(row.id, label.intent, label.replica.clone(), now)
        }
    }

    /// An instance that was settled as gone shows again: a listing from before, or a proof that was
    /// none. Its books go on where they were left, for what is posted already must not be posted
    /// again; whether it is to be destroyed stands, and is asked for anew.
    fn resumed(&self, last: &Held, row: &Instance) -> Held {
        Held {
            phase: row.phase(),
            phase_since: self.seen.now,
            destroy_sent_at: None,
            destroyed_at: None,
            destroying_since: None,
            ..last.clone()
        }
    }

    /// Takes up what a row says of a known instance: its state, what that cost, what it means.
    fn update(&mut self, row: &Instance) {
        let Some(mut held) = self.draft.state.held.get(&row.id).cloned() else {
            return;
        };
        let before = Before::of(&held);
        // A first sight is no evidence of a run before it.
        let known = self.draft.was_known(held.id);
        self.refresh(&mut held, row);
        let again = !known && self.seen.ended.contains_key(&held.id);
        let sight = if again { Sight::Again } else { sight(row) };
        let no_fault = self.watch_start(&mut held, row);
        let (ran_ms, unseen_ms) = self.account(&mut held, before, known, (sight, self.seen.now));
        if known {
            self.may_have_worked(&mut held, before.phase, unseen_ms);
        }
        self.settle_changes(&held, row);
        if held.destroying.is_some() {
            held.destroying_since.get_or_insert(self.seen.now);
        }
        self.listen(&mut held, before.phase);
        if known || before.phase != held.phase {
            self.transition(&mut held, before.phase, ran_ms);
        }
        if no_fault && (before.phase, held.phase) == (Phase::Exited, Phase::Exited) {
            // It was taken for a start that came to nothing; then it ended.
            self.exited(&mut held, 0);
        }
        self.judge(&mut held);
        self.judge_bringing(&mut held);
        self.judge_start(&mut held);
        self.watch_gpus(&mut held, row);
        self.give_up_waiting(&mut held);
        self.remember_bid(&held, EVIDENCE_RENEWED_MS);
        self.draft.state.held.insert(held.id, held);
    }

    fn refresh(&self, held: &mut Held, row: &Instance) {
        let now = self.seen.now;
        if let Some(machine) = row.machine {
            held.slot.machine = machine;
        }
        if let Some(gpus) = row.gpus.filter(|&gpus| gpus > 0) {
            held.slot.gpus = gpus;
        }
        if !row.gpu_ids.is_empty() {
            held.gpu_ids.clone_from(&row.gpu_ids);
        }
        if let Some(name) = &row.gpu_name {
            held.gpu_name.clone_from(name);
        }
        if let Some(is_bid) = row.is_bid {
            held.rental = if is_bid {
                Rental::Bid
            } else {
                Rental::OnDemand
            };
        }
        if let Some(price) = row.price {
            let lagging = held
                .raised_at
                .is_some_and(|at| now.ms_since(at) <= BID_LAG_MS);
            if price >= held.price || !lagging || held.stop_asked {
                held.price = price;
            }
        }
        // A listing may be from before a change of ours, whose lease ends later.
        let lagging = held
            .relabelled_at
            .is_some_and(|at| now.ms_since(at) <= BID_LAG_MS);
        let tail = row.tail();
        let newer = |tail: &Tail| held.tail.is_none_or(|known| tail.until >= known.until);
        if let Some(tail) = tail.filter(|tail| !lagging || newer(tail)) {
            held.tail = Some(tail);
        }
        held.host = row.host.or(held.host);
        held.storage = row.storage.unwrap_or(held.storage);
        held.disk_gb = row.disk_gb.unwrap_or(held.disk_gb);
        held.ends_at = row.ends_at.or(held.ends_at);
        held.ssh = row.ssh.clone().or(held.ssh.take());
        held.phase = row.phase();
        // A price of nothing that we did not ask for may be a request of ours on its way up.
        held.parked = row.is_parked() && held.stop_asked;
        if self.config.mutant == Some(Mutant::OldOneNotParked) {
            held.parked |= held.phase == Phase::Stopped;
        }
        // One that is to be replaced stays so until it is parked.
        let replaced = held.runner.as_ref().is_some_and(RunnerView::is_replaced);
        let runs = held.phase == Phase::Running && held.price > BID_PARKED;
        if runs && !held.stop_asked && !replaced {
            held.bid_before_park = None;
        }
    }

    /// Posts what the time since the last sight cost, up to a moment, and books what it achieved.
    /// What it may have cost beyond the estimate is posted beside it: money that may be spent is not
    /// free before the bill gives it back. Returns for how long, at most, it ran without a break, and for
    /// how long nobody looked.
    pub(crate) fn account(
        &mut self,
        held: &mut Held,
        before: Before,
        known: bool,
        (sight, until): (Sight, Time),
    ) -> (i64, i64) {
        let now = self.seen.now;
        let unchanged = self.seen.unchanged.get(&held.id).copied();
        let cost = accrue(held, before, unchanged, sight, until);
        for (component, part) in [(Component::Gpu, cost.gpu), (Component::Disk, cost.disk)] {
            for (kind, amount) in [
                (EntryKind::Accrue, part.likely),
                (EntryKind::Correct, part.doubt),
            ] {
                let entry = Line {
                    at: now,
                    kind,
                    replica: held.replica.clone(),
                    intent: held.intent,
                    instance: Some(held.id),
                    component: Some(component),
                    amount,
                };
                self.draft.entry(self.config.timezone, entry);
            }
        }
        let ran_ms = held.run_ms + cost.ms;
        let at_work = known && before.phase == Phase::Running && held.phase == Phase::Running;
        if at_work {
            self.ran(held, cost.ms);
        }
        let at_work = at_work && !held.is_behind_gate();
        if let (true, Some(job)) = (at_work, self.job(&held.replica.job)) {
            self.book(&job, held, cost.ms);
        }
        (ran_ms, cost.unseen_ms)
    }

    fn book(&mut self, job: &Job, held: &mut Held, ms: i64) {
        let mut replica = self.draft.state.replica(&held.replica);
        let added = work(job, held, &mut replica, ms);
        // Of a command that is looked after it is known whether it comes further.
        let long_enough = held.run_ms > millis(job.min_run) && is_at_work(job, held);
        let judged = held
            .runner
            .as_ref()
            .is_some_and(|view| view.verdict.is_some());
        let runs_well = held.runner.is_none() && long_enough;
        // A service comes to no end, and may have nothing to tell: what it got over is not in a row.
        let serves = job.finish == Finish::Never && long_enough && !judged;
        if (runs_well || serves) && replica.failures > 0 {
            replica.failures = 0;
            replica.retry_at = None;
        }
        if serves {
            replica.broken = 0;
        }
        self.draft
            .state
            .replicas
            .insert(held.replica.clone(), replica);
        // What was found unfit or broken goes on running until it is parked.
        if held.run_ms > millis(job.min_run) && !judged && held.destroying.is_none() {
            self.trust(held.slot.machine);
        }
        if held.run_ms >= RAISE_AGAIN_AFTER_MS {
            held.raises = 0;
        }
        let yardstick = self.seen.on_demand.get(&job.name).copied();
        held.on_demand_rate = yardstick.or(held.on_demand_rate);
        if added > 0 {
            let instead = held.on_demand_rate.map(|rate| rate.cost_ms(added));
            let instead = instead.unwrap_or_default();
            let mut record = self.draft.state.job(&job.name);
            record.on_demand_equivalent += instead;
            let month = record.month_of(self.seen.now.day(self.config.timezone));
            month.useful_gpu_ms += added;
            month.on_demand_equivalent += instead;
            self.draft.state.jobs.insert(job.name.clone(), record);
        }
    }

    /// Requests on an instance whose outcome nobody knew, and which its row now shows.
    fn settle_changes(&mut self, held: &Held, row: &Instance) {
        let stopped = held.phase == Phase::Stopped;
        let meant_to_run = row.intended == Some(RawState::Running);
        let shown: Vec<Intent> = self
            .draft
            .state
            .intents
            .values()
            .filter(|intent| intent.effect.instance() == Some(held.id))
            .filter(|intent| match intent.effect {
                Effect::SetBid { bid, .. } => row.price == Some(bid),
                Effect::Stop { .. } => stopped && !meant_to_run,
                Effect::Start { .. } => !stopped || meant_to_run,
                Effect::Relabel { tail, .. } => row.tail() == Some(tail),
                // No row shows a copy.
                Effect::Copy { .. } | Effect::Rent { .. } | Effect::Destroy { .. } => false,
            })
            .cloned()
            .collect();
        for intent in shown {
            let done = IntentState::Done { instance: held.id };
            self.draft
                .intent(self.config.timezone, self.seen.now, &intent, done);
        }
    }

    /// Remembers our highest bid on a machine: a floor there that is no higher is our own shadow. A
    /// moment that is remembered already is renewed once it is so many milliseconds old.
    pub(super) fn remember_bid(&mut self, held: &Held, renewed_ms: i64) {
        if held.rental != Rental::Bid {
            return;
        }
        let now = self.seen.now;
        let mut machine = self.draft.state.machine(held.slot.machine);
        let recent = machine
            .highest_bid
            .filter(|(_, at)| now.ms_since(*at) <= EVIDENCE_MS);
        let highest = recent.map_or(held.price, |(bid, _)| bid.max(held.price));
        let told = recent.is_some_and(|(bid, at)| bid == highest && now.ms_since(at) < renewed_ms);
        if !told {
            machine.highest_bid = Some((highest, now));
            self.draft.state.machines.insert(machine.id, machine);
        }
    }

    // --------------------------------------------------------------------------------- absences

    fn absences(&mut self) {
        let listed: BTreeSet<InstanceId> = self
            .seen
            .listing
            .iter()
            .flat_map(|listing| {
                let rows = listing.rows.iter().map(|row| row.id);
                rows.chain(listing.unreadable.iter().copied())
            })
            .collect();
        for &id in self.seen.proven_gone {
            if let (false, Some(held)) = (
                listed.contains(&id),
                self.draft.state.held.get(&id).cloned(),
            ) {
                self.gone(held);
            }
        }
    }

    fn voids(&mut self) {
        for id in self.seen.proven_void {
            let Some(intent) = self.draft.state.intents.get(id).cloned() else {
                continue;
            };
            // A destroy is settled by its instance being gone, and by nothing else.
            if matches!(intent.effect, Effect::Destroy { .. })
                && intent
                    .effect
                    .instance()
                    .is_some_and(|id| self.draft.state.held.contains_key(&id))
            {
                continue;
            }
            self.take_back(&intent);
            // Nothing refutes that it was made.
            self.post_copy(&intent);
            self.draft.intent(
                self.config.timezone,
                self.seen.now,
                &intent,
                IntentState::Void,
            );
        }
    }

    /// Takes back what was assumed of an instance when a request was recorded that had no effect.
    fn take_back(&mut self, intent: &Intent) {
        let Some(held) = intent
            .effect
            .instance()
            .and_then(|id| self.draft.state.held.get_mut(&id))
        else {
            return;
        };
        let stopped = held.phase == Phase::Stopped;
        match intent.effect {
            Effect::SetBid { bid, .. } if bid <= BID_PARKED => {
                held.stop_asked &= held.price <= BID_PARKED;
            }
            Effect::SetBid { .. } => held.stop_asked |= stopped && held.price <= BID_PARKED,
            // What is left for another is stopped for good, however often that has to be asked for.
            Effect::Stop { .. } => held.stop_asked &= stopped || given_up(held),
            // A start that found no free GPU is queued at the marketplace, and may come true and bill
            // at any later time. Until it is seen to run, or a stop is read back, it counts as one
            // that may run: nothing takes its place, and its whole rate is reckoned with.
            Effect::Start { .. }
            | Effect::Rent { .. }
            | Effect::Relabel { .. }
            | Effect::Copy { .. }
            | Effect::Destroy { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::eligible::samples::{NOW, held, job, offer, usd, world};
    use super::*;
    use crate::types::ids::OfferId;
    use crate::types::ids::ReplicaId;
    use crate::types::instance::DestroyWhy;
    use crate::types::job::{CheckpointPlace, Finish};
    use crate::types::ledger::Entry;
    use crate::types::money::Money;
    use crate::types::state::{Ending, ReplicaRecord};

    const MINUTE: i64 = 60_000;

    /// What is known, and the marketplace's row of the one instance in it.
    struct Scene {
        state: State,
        job: Job,
        row: Instance,
        now: Time,
        on_demand: BTreeMap<JobName, Rate>,
        unchanged: BTreeMap<InstanceId, Time>,
        ran: BTreeSet<InstanceId>,
        ended: BTreeMap<InstanceId, Held>,
        market: Snapshot,
        moved: Moved,
        events: Vec<String>,
        entries: Vec<Entry>,
    }

    impl Scene {
        fn new(job: Job) -> Self {
            let mut state = world(Vec::new()).state;
            let mut made = held(5, &job, &offer(9), usd(0.36));
            made.phase = Phase::Provisioning;
            made.first_ran_at = None;
            let row = Instance {
                id: made.id,
                label: None,
                machine: Some(made.slot.machine),
                host: None,
                gpus: Some(1),
                gpu_ids: Vec::new(),
                gpu_name: Some("RTX 4090".to_owned()),
                is_bid: Some(true),
                price: Some(usd(0.36)),
                storage: Some(usd(0.01)),
                burn: None,
                cur_state: Some(RawState::Running),
                intended: Some(RawState::Running),
                next_state: Some(RawState::Running),
                actual: None,
                status_msg: None,
                started_at: None,
                up_ms: None,
                ends_at: None,
                disk_gb: Some(48),
                ssh: None,
                gpu_util: None,
            };
            state.held.insert(made.id, made);
            Self {
                state,
                job,
                row,
                now: NOW,
                on_demand: BTreeMap::new(),
                unchanged: BTreeMap::new(),
                ran: BTreeSet::new(),
                ended: BTreeMap::new(),
                market: Snapshot::default(),
                moved: Moved::default(),
                events: Vec::new(),
                entries: Vec::new(),
            }
        }

        fn see(&mut self, rows: Option<(Vec<Instance>, bool)>, gone: &[u64], void: &[u64]) {
            let listing = rows.map(|(rows, complete)| Listing {
                rows,
                complete,
                unreadable: Vec::new(),
            });
            let seen = Observation {
                now: self.now,
                moved: std::mem::take(&mut self.moved),
                broke: false,
                listing: listing.as_ref(),
                market: &self.market,
                proven_gone: &gone.iter().map(|&id| InstanceId(id)).collect(),
                proven_void: &void.iter().map(|&id| IntentId(id)).collect(),
                on_demand: &self.on_demand,
                unchanged: &self.unchanged,
                ran: &self.ran,
                ended: &self.ended,
                heard: &BTreeMap::new(),
            };
            let jobs = [Arc::new(self.job.clone())];
            let config = EngineConfig::default();
            for change in observe(&self.state, &jobs, &config, &seen) {
                if let Change::Gone { instance, .. } = change {
                    let last = self.state.held.get(&instance).cloned();
                    self.ended.extend(last.map(|held| (instance, held)));
                }
                self.state.apply(&change);
                match change {
                    Change::Event(event) => self.events.push(event.kind),
                    Change::Entry(entry) => self.entries.push(entry),
                    _ => {}
                }
            }
        }

        /// A minute later the row shows this.
        fn minute(&mut self, cur: RawState, actual: Option<RawState>) {
            self.now = Time(self.now.0 + MINUTE);
            self.row.cur_state = Some(cur);
            self.row.actual = actual;
            self.see(Some((vec![self.row.clone()], true)), &[], &[]);
        }

        fn run_for(&mut self, minutes: u32) {
            for _ in 0..minutes {
                self.minute(RawState::Running, Some(RawState::Running));
            }
        }

        fn gone(&mut self) {
            self.now = Time(self.now.0 + MINUTE);
            self.see(Some((Vec::new(), true)), &[5], &[]);
        }

        fn held(&self) -> &Held {
            &self.state.held[&InstanceId(5)]
        }

        fn replica(&self) -> ReplicaRecord {
            self.state.replica(&ReplicaId {
                job: self.job.name.clone(),
                index: 0,
            })
        }

        fn posted(&self) -> Money {
            self.state.spent(&self.job.name)
        }
    }

    fn minutes(gpu_ms: i64) -> i64 {
        gpu_ms / MINUTE
    }

    #[test]
    fn an_outbid_run_loses_what_was_not_in_a_checkpoint() {
        let mut scene = Scene::new(Job {
            checkpoint_place: Some(CheckpointPlace::Disk),
            ..job("a")
        });
        scene.minute(RawState::Running, Some(RawState::Loading));
        scene.run_for(1 + 5 + 40);
        assert_eq!(minutes(scene.replica().durable_gpu_ms), 30);
        assert_eq!(minutes(scene.replica().volatile_gpu_ms), 10);
        scene.minute(RawState::Stopped, Some(RawState::Exited));
        let replica = scene.replica();
        assert_eq!((replica.outbids, replica.volatile_gpu_ms), (1, 0));
        assert_eq!(minutes(replica.lost_gpu_ms), 10);
        assert_eq!(scene.events, ["running", "outbid"]);
        scene.run_for(1);
        assert_eq!(scene.events.last().unwrap(), "resumed");
        scene.gone();
        let replica = scene.replica();
        assert_eq!(
            replica.durable_gpu_ms, 0,
            "the checkpoint went with its disk"
        );
        assert_eq!(minutes(replica.lost_gpu_ms), 40);
        assert!(scene.state.held.is_empty());
        let cooled = &scene.state.machines[&MachineId(9)];
        assert!(cooled.cool_until > Some(scene.now));
    }

    #[test]
    fn a_raise_that_wins_is_not_given_up_while_it_comes_up() {
        let mut scene = Scene::new(Job {
            patience: Duration::from_mins(10),
            ..job("a")
        });
        scene.run_for(2);
        let outbid = |scene: &mut Scene, minutes| {
            for _ in 0..minutes {
                scene.minute(RawState::Stopped, Some(RawState::Exited));
            }
        };
        outbid(&mut scene, 12);
        assert!(given_up(scene.held()), "it was waited for");
        let (bid, now) = (usd(0.4), scene.now);
        let held = scene.state.held.get_mut(&InstanceId(5)).unwrap();
        held.asked_to_run_at(bid, now);
        scene.row.price = Some(bid);
        assert!(!given_up(scene.held()));
        // Its row lags, and then it comes up again.
        outbid(&mut scene, 4);
        assert!(!given_up(scene.held()), "the raise takes effect");
        scene.minute(RawState::Running, Some(RawState::Loading));
        assert_eq!(scene.held().phase, Phase::Provisioning);
        assert!(!given_up(scene.held()));
        // One that did not win is given up again; where it wins late it is welcome all the same.
        outbid(&mut scene, 12);
        assert!(given_up(scene.held()));
        scene.minute(RawState::Running, Some(RawState::Created));
        assert!(!given_up(scene.held()));
    }

    #[test]
    fn only_an_outbid_is_one() {
        let mut scene = Scene::new(job("a"));
        scene.run_for(2);
        scene.state.held.get_mut(&InstanceId(5)).unwrap().stop_asked = true;
        scene.minute(RawState::Stopped, Some(RawState::Exited));
        assert_eq!(scene.held().outbid_at, None, "we stopped it");
        scene.state.held.get_mut(&InstanceId(5)).unwrap().stop_asked = false;
        scene.run_for(1);
        scene.minute(RawState::Stopped, Some(RawState::Exited));
        assert_eq!(scene.held().outbid_at, Some(scene.now));
        scene.run_for(1);
        assert_eq!(scene.held().outbid_at, None);
    }

    #[test]
    fn our_bid_is_remembered_from_when_the_machine_was_left() {
        let mut scene = Scene::new(job("a"));
        scene.row.price = Some(usd(0.36));
        // Renewed at the first minute, and for the sake of few writes not at the fourth.
        scene.run_for(4);
        let mark = |scene: &Scene| scene.state.machines[&MachineId(9)].highest_bid;
        assert!(mark(&scene) < Some((usd(0.36), scene.now)));
        scene.gone();
        assert_eq!(mark(&scene), Some((usd(0.36), scene.now)));
    }

    #[test]
    fn what_shows_again_after_it_was_gone_is_not_posted_twice() {
        let mut scene = Scene::new(job("a"));
        scene.run_for(30);
        let label = Label {
            installation: scene.state.installation.clone(),
            replica: scene.held().replica.clone(),
            intent: scene.held().intent,
        };
        let created = scene.held().created_at;
        scene.gone();
        assert!(scene.state.held.is_empty());
        let posted = scene.posted();
        // A listing from before; it says when it was made.
        scene.row.label = Some(label.to_string());
        scene.row.started_at = Some(created);
        scene.run_for(1);
        assert_eq!(scene.events.last().unwrap(), "adopted");
        let a_minute = usd(0.36).cost_ms(MINUTE) + usd(0.01).cost_ms(MINUTE);
        assert_eq!(scene.posted() - posted, a_minute);
        assert_eq!(scene.held().spent(), scene.posted());
    }

    #[test]
    fn what_traffic_may_still_be_billed_is_not_free_when_an_instance_is_gone() {
        let mut scene = Scene::new(job("a"));
        scene.job.traffic_gb_max = Some(50.0);
        scene.run_for(30);
        let posted = scene.posted();
        let (down, up) = scene.held().traffic_prices.unwrap();
        scene.gone();
        let most = Money(down.max(up).0 * 50);
        assert!(most > Money::ZERO);
        let minute = scene.posted() - posted - most;
        assert!(
            minute >= Money::ZERO && minute < Money::from_dollars(0.01).unwrap(),
            "{minute}"
        );
        let ended = &scene.ended[&InstanceId(5)];
        assert_eq!(ended.spent_traffic, most);
        assert_eq!(ended.spent(), scene.posted());
    }

    #[test]
    fn what_traffic_costs_is_learnt_from_the_machine_when_its_offer_is_gone() {
        let mut scene = Scene::new(job("a"));
        if let Some(held) = scene.state.held.get_mut(&InstanceId(5)) {
            held.traffic_prices = None;
        }
        let of_machine = |machine| Offer {
            machine,
            ..offer(77)
        };
        let ours = scene.held().slot.machine;
        scene.market.offers = vec![of_machine(MachineId(ours.0 + 1))];
        scene.run_for(1);
        assert_eq!(scene.held().traffic_prices, None);
        scene.market.offers.insert(0, of_machine(ours));
        scene.run_for(1);
        let agreed = offer(77).inet_down_price.zip(offer(77).inet_up_price);
        assert!(agreed.is_some());
        assert_eq!(scene.held().traffic_prices, agreed);
        // What the host asks of others later is not what was agreed.
        scene.market.offers[0].inet_down_price = Some(Money::dollars(1));
        scene.run_for(1);
        assert_eq!(scene.held().traffic_prices, agreed);
    }

    #[test]
    fn time_that_a_clock_set_back_shows_twice_is_paid_for_twice() {
        let mut scene = Scene::new(job("a"));
        scene.run_for(30);
        let posted = scene.posted();
        scene.now = Time(scene.now.0 - 12 * MINUTE);
        scene.moved.back_ms = 12 * MINUTE;
        scene.run_for(12);
        let twelve = usd(0.36).cost_ms(12 * MINUTE) + usd(0.01).cost_ms(12 * MINUTE);
        assert_eq!(scene.posted() - posted, twelve);
        assert_eq!(scene.held().spent(), scene.posted());
    }

    #[test]
    fn a_clock_set_ahead_makes_no_bid_of_ours_old() {
        let mut scene = Scene::new(job("a"));
        scene.row.price = Some(usd(0.36));
        scene.run_for(4);
        scene.gone();
        let mark = |scene: &Scene| scene.state.machines[&MachineId(9)].highest_bid.unwrap();
        let left_at = scene.now;
        // Ten minutes pass and a quarter of an hour is skipped: it was ten minutes ago.
        scene.now = scene.now + Duration::from_mins(25);
        scene.moved.ahead_ms = 15 * MINUTE;
        scene.see(Some((Vec::new(), true)), &[], &[]);
        assert_eq!(mark(&scene).1, left_at + Duration::from_mins(15));
        // What is older than all that is not made young again, nor what is young from the future.
        scene.now = scene.now + Duration::from_mins(60);
        scene.moved.ahead_ms = 15 * MINUTE;
        scene.see(Some((Vec::new(), true)), &[], &[]);
        assert_eq!(mark(&scene).1, left_at + Duration::from_mins(15));
        scene.moved.ahead_ms = 24 * 60 * MINUTE;
        scene.see(Some((Vec::new(), true)), &[], &[]);
        assert_eq!(mark(&scene).1, scene.now);
    }

    /// A listing may be older than a look before it.
    #[test]
    fn what_a_look_showed_running_has_run_whatever_the_next_listing_shows() {
        let mut scene = Scene::new(job("a"));
        let boots = scene.row.clone();
        scene.see(Some((vec![boots], true)), &[], &[]);
        scene.minute(RawState::Stopped, Some(RawState::Exited));
        assert_eq!(scene.held().first_ran_at, None);
        scene.ran.insert(scene.row.id);
        scene.minute(RawState::Stopped, Some(RawState::Exited));
        assert_eq!(scene.held().first_ran_at, Some(scene.now));
    }

    #[test]
    fn what_goes_silent_after_it_was_not_seen_for_long_may_have_worked() {
        let lost_after = |minutes: i64| {
            let mut scene = Scene::new(job("a"));
            let boots = scene.row.clone();
            scene.see(Some((vec![boots], true)), &[], &[]);
            assert_eq!(scene.held().first_ran_at, None);
            scene.now = scene.now + Duration::from_millis((minutes * MINUTE) as u64);
            scene.row.actual = Some(RawState::Offline);
            let row = scene.row.clone();
            scene.see(Some((vec![row], true)), &[], &[]);
            assert_eq!(scene.held().phase, Phase::Offline);
            scene.held().first_ran_at.is_some()
        };
        assert!(!lost_after(4));
        assert!(lost_after(6));
    }

    #[test]
    fn what_was_booked_before_its_rent_was_settled_is_kept() {
        let mut scene = Scene::new(job("a"));
        scene.run_for(30);
        let rent = rent_of(scene.held());
        scene.row.label = Some(
            Label {
                installation: scene.state.installation.clone(),
                replica: scene.held().replica.clone(),
                intent: rent.id,
            }
            .to_string(),
        );
        scene.gone();
        let posted = scene.posted();
        assert_eq!(scene.ended[&InstanceId(5)].spent(), posted);
        scene.state.apply(&Change::Intent(rent));
        scene.run_for(1);
        assert!(scene.events.contains(&"settled".to_owned()));
        assert!(scene.state.intents.is_empty());
        let a_minute = usd(0.36).cost_ms(MINUTE) + usd(0.01).cost_ms(MINUTE);
        assert_eq!(scene.posted() - posted, a_minute);
        assert_eq!(scene.held().spent(), scene.posted());
    }

    fn rent_of(held: &Held) -> Intent {
        Intent {
            id: held.intent,
            at: NOW,
            effect: Effect::Rent {
                replica: held.replica.clone(),
                generation: held.generation,
                slot: held.slot,
                offer: OfferId(1),
                rental: held.rental,
                price: held.price,
                disk_gb: held.disk_gb,
                storage: held.storage,
                from: None,
                traffic: None,
            },
            reserved: Money(7),
            state: IntentState::Unknown { since: NOW },
        }
    }

    #[test]
    fn an_instance_that_is_known_settles_the_rent_that_made_it() {
        let mut scene = Scene::new(job("a"));
        let rent = rent_of(scene.held());
        // The process died between keeping the instance and closing the intent.
        scene.state.apply(&Change::Intent(rent.clone()));
        scene.state.reserved.insert(rent.id, rent.reserved);
        scene.run_for(1);
        assert!(scene.state.intents.is_empty());
        assert!(scene.state.reserved.is_empty());
    }

    #[test]
    fn what_stood_still_after_we_were_blind_may_hold_work() {
        for (blind, ran) in [(1, false), (30, true)] {
            let mut scene = Scene::new(job("a"));
            scene.minute(RawState::Running, Some(RawState::Loading));
            scene.now = Time(scene.now.0 + (blind - 1) * MINUTE);
            scene.minute(RawState::Stopped, Some(RawState::Exited));
            assert_eq!(scene.held().first_ran_at.is_some(), ran, "{blind} minutes");
        }
    }

    /// Its bid stands: it may have won its slot and lost it again.
    #[test]
    fn what_stands_still_again_after_we_were_blind_may_hold_work_unless_it_is_parked() {
        for (blind, parked, ran) in [(4, false, false), (6, false, true), (6, true, false)] {
            let mut scene = Scene::new(job("a"));
            scene.minute(RawState::Running, Some(RawState::Loading));
            if parked {
                scene.state.held.get_mut(&InstanceId(5)).unwrap().stop_asked = true;
                scene.row.price = Some(BID_PARKED);
            }
            scene.minute(RawState::Stopped, Some(RawState::Exited));
            assert_eq!(scene.held().first_ran_at, None);
            scene.now = Time(scene.now.0 + (blind - 1) * MINUTE);
            scene.minute(RawState::Stopped, Some(RawState::Exited));
            assert_eq!(scene.held().first_ran_at.is_some(), ran, "{blind} {parked}");
        }
    }

    #[test]
    fn provisioning_bills_disk_alone_and_a_stop_as_asked_is_no_outbid() {
        let mut scene = Scene::new(job("a"));
        scene.minute(RawState::Running, None);
        assert_eq!(scene.held().spent_gpu, Money::ZERO);
        assert_eq!(scene.held().spent_disk, usd(0.01).cost_ms(MINUTE));
        scene.run_for(2);
        assert_eq!(scene.held().spent_gpu, usd(0.36).cost_ms(2 * MINUTE));
        scene.state.held.get_mut(&InstanceId(5)).unwrap().stop_asked = true;
        scene.row.price = Some(BID_PARKED);
        scene.minute(RawState::Stopped, Some(RawState::Exited));
        assert!(scene.held().parked);
        assert_eq!(scene.replica().outbids, 0);
        assert_eq!(scene.posted(), scene.held().spent());
    }

    #[test]
    fn a_stop_at_the_parked_price_that_we_did_not_ask_for_is_not_parked() {
        let mut scene = Scene::new(job("a"));
        scene.row.price = Some(BID_PARKED);
        scene.minute(RawState::Stopped, Some(RawState::Exited));
        assert!(!scene.held().parked);
    }

    #[test]
    fn an_absence_says_nothing_until_it_is_proven() {
        let mut scene = Scene::new(job("a"));
        scene.run_for(2);
        let before = scene.state.clone();
        for rows in [None, Some((Vec::new(), false)), Some((Vec::new(), true))] {
            scene.now = Time(scene.now.0 + MINUTE);
            scene.see(rows, &[], &[]);
        }
        assert_eq!(scene.state, before);
        // Seen again, the time in between is accrued.
        scene.run_for(1);
        assert_eq!(scene.held().billed_ms, 6 * MINUTE);
    }

    #[test]
    fn a_share_of_work_that_is_done_finishes() {
        let mut scene = Scene::new(Job {
            finish: Finish::Work,
            work_mgpu_h: Some(200),
            checkpoint_every: None,
            checkpoint_place: None,
            ..job("a")
        });
        scene.on_demand.insert(scene.job.name.clone(), usd(0.60));
        scene.run_for(1 + 5 + 11);
        assert_eq!(scene.replica().ending, None);
        scene.run_for(1);
        assert_eq!(scene.replica().ending, Some((Ending::Finished, scene.now)));
        // 12 useful minutes at $0.60 an hour.
        let equivalent = scene.state.job(&scene.job.name).on_demand_equivalent;
        assert_eq!(equivalent, usd(0.60).cost_ms(12 * MINUTE));
    }

    #[test]
    fn a_container_that_ends_too_soon_fails_and_then_fails_for_good() {
        let mut scene = Scene::new(Job {
            finish: Finish::Exit,
            min_run: Duration::from_mins(10),
            ..job("a")
        });
        for failures in 1..=4 {
            scene.run_for(2);
            scene.minute(RawState::Running, Some(RawState::Exited));
            assert_eq!(scene.replica().failures, failures);
        }
        assert_eq!(
            scene.replica().ending.map(|(ending, _)| ending),
            Some(Ending::Failed)
        );
        let mut scene = Scene::new(scene.job);
        scene.run_for(12);
        scene.minute(RawState::Running, Some(RawState::Exited));
        assert_eq!(
            scene.replica().ending.map(|(ending, _)| ending),
            Some(Ending::Finished)
        );
    }

    #[test]
    fn an_instance_that_ends_itself_finishes_where_the_policy_says_so() {
        let mut scene = Scene::new(Job {
            finish: Finish::Gone,
            min_run: Duration::from_mins(3),
            ..job("a")
        });
        scene.run_for(5);
        scene.gone();
        assert_eq!(
            scene.replica().ending.map(|(ending, _)| ending),
            Some(Ending::Finished)
        );
        assert!(scene.state.machines[&MachineId(9)].cool_until.is_none());
    }

    fn rent(scene: &mut Scene, id: u64) -> Label {
        let replica = scene.held().replica.clone();
        let intent = Intent {
            id: IntentId(id),
            at: scene.now,
            effect: Effect::Rent {
                replica: replica.clone(),
                generation: 2,
                slot: Slot {
                    machine: MachineId(4),
                    gpus: 1,
                },
                offer: crate::types::ids::OfferId(40),
                rental: Rental::Bid,
                price: usd(0.2),
                disk_gb: 48,
                storage: usd(0.01),
                from: None,
                traffic: None,
            },
            reserved: Money(1000),
            state: IntentState::Unknown { since: scene.now },
        };
        scene.state.reserved.insert(intent.id, intent.reserved);
        scene.state.intents.insert(intent.id, intent);
        Label {
            installation: scene.state.installation.clone(),
            replica,
            intent: IntentId(id),
        }
    }

    fn labelled(scene: &Scene, id: u64, label: &Label) -> Instance {
        Instance {
            id: InstanceId(id),
            label: Some(format!("{label}/g2.go")),
            machine: Some(MachineId(4)),
            ..scene.row.clone()
        }
    }

    #[test]
    fn a_create_in_doubt_is_settled_by_its_label() {
        let mut scene = Scene::new(job("a"));
        let label = rent(&mut scene, 77);
        let row = labelled(&scene, 8, &label);
        scene.see(Some((vec![row], false)), &[], &[]);
        let made = &scene.state.held[&InstanceId(8)];
        assert_eq!((made.generation, made.intent), (2, IntentId(77)));
        assert!(scene.state.intents.is_empty() && scene.state.reserved.is_empty());
        assert_eq!(scene.entries[0].amount, Money(-1000));
    }

    #[test]
    fn a_create_that_is_proven_void_gives_its_money_back() {
        let mut scene = Scene::new(job("a"));
        rent(&mut scene, 77);
        scene.see(Some((vec![scene.row.clone()], true)), &[], &[77]);
        assert!(scene.state.intents.is_empty() && scene.state.reserved.is_empty());
    }

    #[test]
    fn what_carries_our_label_is_adopted_and_others_are_left() {
        let mut scene = Scene::new(job("a"));
        let label = rent(&mut scene, 77);
        scene.state.intents.clear();
        let mut stranger = label.clone();
        stranger.installation = crate::types::ids::Installation::from_seed(2);
        let rows = vec![labelled(&scene, 8, &label), labelled(&scene, 9, &stranger)];
        scene.see(Some((rows, true)), &[], &[]);
        assert!(scene.state.held.contains_key(&InstanceId(8)));
        assert!(!scene.state.held.contains_key(&InstanceId(9)));
        // It is newer than the one that was known, so it carries the next generation.
        assert_eq!(scene.state.held[&InstanceId(8)].generation, 1);
        assert_eq!(scene.events, ["adopted"]);
    }

    /// What it cost so far counts against limits long before a bill shows it.
    #[test]
    fn what_is_adopted_without_a_start_is_as_old_as_its_label() {
        let age = |hours: Option<u64>| {
            let mut scene = Scene::new(job("a"));
            let asked_at = hours.map_or(77, |hours| (scene.now - Duration::from_hours(hours)).0);
            let label = rent(&mut scene, asked_at.cast_unsigned());
            scene.state.intents.clear();
            let mut row = labelled(&scene, 8, &label);
            row.started_at = None;
            scene.see(Some((vec![row], true)), &[], &[]);
            let adopted = &scene.state.held[&InstanceId(8)];
            (
                scene.now.since(adopted.created_at),
                adopted.spent() > Money::ZERO,
            )
        };
        assert_eq!(age(Some(20)), (Duration::from_hours(20), true));
        assert_eq!(age(None).0, Duration::ZERO, "no moment of a clock");
    }

    #[test]
    fn what_is_adopted_may_hold_work_unless_it_is_known_to_be_too_young() {
        let ages = [Some(1), Some(30), Some(-10), None];
        for (minutes, ran) in ages.into_iter().zip([false, true, true, true]) {
            for state in [RawState::Stopped, RawState::Running] {
                let mut scene = Scene::new(job("a"));
                let label = rent(&mut scene, 77);
                scene.state.intents.clear();
                let mut row = labelled(&scene, 8, &label);
                row.cur_state = Some(state);
                row.actual = Some(RawState::Loading);
                row.started_at = minutes.map(|minutes| Time(scene.now.0 - minutes * MINUTE));
                scene.see(Some((vec![row], true)), &[], &[]);
                let adopted = &scene.state.held[&InstanceId(8)];
                assert_eq!(adopted.first_ran_at.is_some(), ran, "{minutes:?} {state:?}");
            }
        }
    }

    #[test]
    fn a_start_whose_answer_was_lost_may_come_true_at_any_time_until_a_stop_is_read_back() {
        let mut scene = Scene::new(job("a"));
        scene.row.is_bid = Some(false);
        scene.row.intended = Some(RawState::Stopped);
        let held = scene.state.held.get_mut(&InstanceId(5)).unwrap();
        (held.rental, held.stop_asked) = (Rental::OnDemand, true);
        held.first_ran_at = Some(NOW);
        scene.minute(RawState::Stopped, Some(RawState::Exited));
        assert!(scene.held().parked);
        // The start is recorded and its answer lost; the row shows nothing of it.
        let start = Intent {
            id: IntentId(90),
            at: scene.now,
            effect: Effect::Start {
                instance: InstanceId(5),
            },
            reserved: Money(1000),
            state: IntentState::Unknown { since: scene.now },
        };
        scene.state.reserved.insert(start.id, start.reserved);
        scene.state.intents.insert(start.id, start);
        let held = scene.state.held.get_mut(&InstanceId(5)).unwrap();
        (held.stop_asked, held.parked) = (false, false);
        scene.now = Time(scene.now.0 + 3 * MINUTE);
        scene.see(Some((vec![scene.row.clone()], true)), &[], &[90]);
        assert!(scene.state.intents.is_empty());
        for _ in 0..3 {
            assert!(!scene.held().parked, "it may be queued still");
            assert_eq!(scene.held().worst_rate(), usd(0.36) + usd(0.01));
            scene.minute(RawState::Stopped, Some(RawState::Exited));
        }
        // A stop was sent and answered; the row is what it was.
        scene.state.held.get_mut(&InstanceId(5)).unwrap().stop_asked = true;
        scene.minute(RawState::Stopped, Some(RawState::Exited));
        assert!(scene.held().parked);
    }

    #[test]
    fn a_destroy_is_settled_by_absence_alone() {
        let mut scene = Scene::new(job("a"));
        scene.run_for(2);
        let why = DestroyWhy::UserRequest;
        let intent = Intent {
            id: IntentId(90),
            at: scene.now,
            effect: Effect::Destroy {
                instance: InstanceId(5),
                why,
            },
            reserved: Money::ZERO,
            state: IntentState::Unknown { since: scene.now },
        };
        scene.state.intents.insert(intent.id, intent);
        scene.state.held.get_mut(&InstanceId(5)).unwrap().destroying = Some(why);
        scene.see(Some((vec![scene.row.clone()], true)), &[], &[90]);
        assert_eq!(scene.state.intents.len(), 1);
        scene.gone();
        assert!(scene.state.intents.is_empty() && scene.state.held.is_empty());
        assert!(scene.state.machines[&MachineId(9)].cool_until.is_none());
    }

    proptest! {
        /// However a run is cut into polls, it costs the same, and the ledger is what was spent.
        #[test]
        fn polls_do_not_change_what_time_costs(cuts in prop::collection::vec(1..90_000_i64, 1..40)) {
            let mut scene = Scene::new(job("a"));
            scene.row.actual = Some(RawState::Running);
            for cut in &cuts {
                scene.now = Time(scene.now.0 + cut);
                scene.see(Some((vec![scene.row.clone()], true)), &[], &[]);
            }
            let whole = cuts.iter().sum();
            prop_assert_eq!(scene.held().spent_gpu, usd(0.36).cost_ms(whole));
            prop_assert_eq!(scene.held().spent_disk, usd(0.01).cost_ms(whole));
            prop_assert_eq!(scene.posted(), scene.held().spent());
            let entries: Money = scene.entries.iter().map(|entry| entry.amount).sum();
            prop_assert_eq!(entries, scene.posted());
        }
    }
}
