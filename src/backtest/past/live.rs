//! The engine on the recorded market: the loop of the daemon without what is around it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::engine::array::member;
use crate::engine::check::check;
use crate::engine::decide::decide;
use crate::engine::observe::{Moved, Observation, observe};
use crate::engine::sent::sent;
use crate::types::ids::{AccountId, Installation, IntentId, JobName, Label, ReplicaId};
use crate::types::instance::{Account as Credit, Rental};
use crate::types::intent::{Effect, Intent, IntentState};
use crate::types::job::Job;
use crate::types::money::{Money, Rate};
use crate::types::offer::Snapshot;
use crate::types::plan::{Action, Report, Situation};
use crate::types::state::{Change, Ending, ReplicaRecord, State};
use crate::types::time::{Time, millis};
use crate::types::world::World;

use super::account::{Account, Order, Rented};
use super::tape::{Seen, Standing, Tape};
use super::{Answer, Happened, Moment, Phase, Question};

/// Credit that no job comes to the end of: what the account had then nobody knows.
const CREDIT: Money = Money::dollars(1_000_000);

/// The timeline has so many moments in which nothing changes, at most.
const MOMENTS: i64 = 400;

/// What happened is kept up to so many lines.
const HAPPENED_MAX: usize = 500;

/// A run under way.
pub(super) struct Live<'a> {
    question: &'a Question<'a>,
    job: Arc<Job>,
    state: State,
    account: Account<'a>,
    on_demand: BTreeMap<JobName, Rate>,
    pub(super) answer: Answer,
}

impl<'a> Live<'a> {
    pub(super) fn new(question: &'a Question<'a>, job: Job) -> Self {
        Self {
            question,
            job: Arc::new(job),
            state: State::new(Installation::from_seed(1)),
            account: Account::new(question.boots),
            on_demand: BTreeMap::new(),
            answer: Answer::default(),
        }
    }

    /// Goes through all looks, or until all is done and gone.
    pub(super) fn run(&mut self) {
        let past = self.question.past;
        let mut tape = Tape::new(past, self.question.stays);
        let mut last: Option<Time> = None;
        for look in 0..past.looks.len() {
            let seen = tape.at(look);
            if let Some(last) = last {
                self.passes(last, seen.at);
            }
            last = Some(seen.at);
            self.step(&seen);
            if self.is_over() {
                break;
            }
        }
        // The last look stands until the end.
        if let Some(last) = last.filter(|_| !self.is_over()) {
            self.passes(last, self.question.to);
        }
        self.sum_up();
    }

    fn is_over(&self) -> bool {
        self.state.replicas.len() >= self.job.replicas as usize
            && self.account.rented.is_empty()
            && self.state.held.is_empty()
            && self.unended() == 0
    }

    fn unended(&self) -> u32 {
        let ended = self.state.replicas_of(&self.job.name);
        let ended = ended.filter(|record| record.ending.is_some()).count();
        self.job
            .replicas
            .saturating_sub(u32::try_from(ended).unwrap_or(u32::MAX))
    }

    /// Books the time between two looks by what the job did in it.
    fn passes(&mut self, from: Time, to: Time) {
        self.account.passes(from, to);
        let ms = to.ms_since(from).max(0);
        let left = i64::from(self.unended());
        let hours = &mut self.answer.hours;
        let mut busy = 0;
        for rented in self.account.rented.values() {
            let up = rented.is_up(to);
            if up && rented.rental == Rental::OnDemand {
                hours.on_demand_ms += ms;
            } else if up {
                hours.bid_ms += ms;
            } else if rented.has_gpus() {
                hours.starting_ms += ms;
            } else {
                hours.paused_ms += ms;
            }
            busy += 1;
        }
        hours.nothing_ms += ms * (left - busy).max(0);
        self.answer.blind_ms += (ms - self.question.stands_ms).max(0);
    }

    /// One look: what is seen of what is rented, what the engine makes of it, and what that does.
    fn step(&mut self, seen: &Seen<'_>) {
        self.account.look(seen);
        self.answer.carried += usize::from(seen.carried > 0);
        let unseen = |rented: &&Rented| {
            rented.rental == Rental::Bid && seen.standing(&rented.offer) == Standing::Unseen
        };
        self.answer.unseen_looks += self.account.rented.values().filter(unseen).count();
        let market = self.market(seen);
        self.observe(seen.at, &market);
        let world = self.world(seen.at, &market);
        let (plan, report) = decide(&world);
        let (plan, _) = check(&world, &plan);
        self.watches(&report);
        for action in &plan.actions {
            self.carry_out(action, seen);
        }
        self.state.ticks += 1;
        // What it holds itself is no longer offered: then the last rate that was goes on to stand.
        self.on_demand.extend(yardsticks(&report));
        if !plan.actions.is_empty() {
            self.account.look(seen);
            let market = self.market(seen);
            self.observe(seen.at, &market);
        }
        self.note(seen, &report);
    }

    /// The market as whoever holds what the account holds would see it: on his own slots he sees his own
    /// bid, and no rival.
    fn market(&self, seen: &Seen<'_>) -> Arc<Snapshot> {
        let mut offers = seen.offers.clone();
        for rented in self.account.rented.values().filter(|one| one.has_gpus()) {
            if let Some(row) = seen.row_of(&rented.offer) {
                offers[row].rented = Some(true);
                if rented.rental == Rental::Bid {
                    offers[row].floor = Some(rented.price);
                }
            }
        }
        Arc::new(Snapshot {
            at: seen.at,
            offers,
            coverage: seen.coverage.to_vec(),
        })
    }

    fn observe(&mut self, now: Time, market: &Snapshot) {
        let listing = self.account.listing(now);
        let settle = millis(self.question.config.settle_allowance);
        let gone = self.account.gone(now, settle);
        let changes = observe(
            &self.state,
            std::slice::from_ref(&self.job),
            &self.question.config,
            &Observation {
                now,
                moved: Moved::default(),
                broke: false,
                listing: Some(&listing),
                market,
                proven_gone: &gone,
                proven_void: &BTreeSet::new(),
                on_demand: &self.on_demand,
                unchanged: &BTreeMap::new(),
                ran: &BTreeSet::new(),
                ended: &BTreeMap::new(),
                heard: &BTreeMap::new(),
            },
        );
        for change in &changes {
            self.state.apply(change);
            // It settles a rent like one whose answer was lost; here none is.
            if let Change::Event(event) = change
                && event.kind != "settled"
            {
                self.happened(event.at, &event.kind, &event.text);
            }
        }
        let held = &self.state.held;
        self.account.settled(|id| held.contains_key(&id));
    }

    fn happened(&mut self, at: Time, kind: &str, text: &str) {
        let count = self.answer.events.entry(kind.to_owned()).or_default();
        *count += 1;
        if self.answer.happened.len() < HAPPENED_MAX {
            self.answer.happened.push(Happened {
                at,
                kind: kind.to_owned(),
                text: text.to_owned(),
            });
        }
    }

    fn world(&self, now: Time, market: &Arc<Snapshot>) -> World {
        World {
            now,
            seed: self.state.ticks,
            config: self.question.config.clone(),
            jobs: vec![Arc::clone(&self.job)],
            unreadable_jobs: Vec::new(),
            last_policies: Vec::new(),
            unreadable_secrets: BTreeMap::new(),
            state: self.state.clone(),
            market: Arc::clone(market),
            listing: Some(self.account.listing(now)),
            account: Some(Credit {
                id: AccountId(1),
                credit: Some(CREDIT),
            }),
            credit_read: None,
            credit_slope: None,
            can_bid: true,
            wind_down: false,
        }
    }

    fn watches(&mut self, report: &Report) {
        for (id, watch) in &report.watches {
            let known = self.state.replica(id);
            let watch = Some(watch.clone());
            self.state
                .apply(&Change::Replica(ReplicaRecord { watch, ..known }));
        }
    }

    /// Records an action, and lets the account do it.
    fn carry_out(&mut self, action: &Action, seen: &Seen<'_>) {
        let config = &self.question.config;
        let now = seen.at;
        let intent = Intent {
            id: IntentId::next(self.state.last_intent, now.0),
            at: now,
            effect: action.effect.clone(),
            reserved: action.reserve,
            state: IntentState::Open,
        };
        let parameters = match &action.effect {
            Effect::Rent { replica, .. } => member(&self.state, &self.job, replica.index)
                .and_then(|member| member.parameters.cloned()),
            _ => None,
        };
        for change in sent(&self.state, config, &intent, parameters) {
            self.state.apply(&change);
        }
        self.answer.actions += 1;
        match &action.effect {
            Effect::Rent { .. } => self.rent(&intent, seen),
            Effect::SetBid { instance, bid } => self.account.set_bid(*instance, *bid),
            Effect::Stop { instance } => self.account.wants(*instance, false),
            Effect::Start { instance } => self.account.wants(*instance, true),
            Effect::Destroy { instance, why } => {
                self.account.destroy(*instance, now);
                let text = format!("instance {instance} is destroyed: {}", why.words());
                self.happened(now, "destroy", &text);
            }
            // There is no runner that would wait for either.
            Effect::Relabel { .. } | Effect::Copy { .. } => {}
        }
    }

    fn rent(&mut self, intent: &Intent, seen: &Seen<'_>) {
        let Effect::Rent {
            replica,
            slot,
            offer,
            rental,
            price,
            storage,
            disk_gb,
            ..
        } = &intent.effect
        else {
            return;
        };
        let Some(row) = seen.offers.iter().find(|row| row.id == *offer) else {
            return;
        };
        let label = Label {
            installation: self.state.installation.clone(),
            replica: replica.clone(),
            intent: intent.id,
        };
        let order = Order {
            rental: *rental,
            price: *price,
            storage: *storage,
            disk_gb: *disk_gb,
            traffic: (self.job.traffic_down_gb, self.job.traffic_up_gb),
        };
        self.account.rent((label, row), &order, seen.at);
        let text = format!(
            "{replica} rents {} x {} on machine {} at {price:.4}/h {}",
            slot.gpus,
            row.gpu_name,
            slot.machine,
            rental.as_str()
        );
        self.happened(seen.at, "rented", &text);
    }

    /// Keeps what the timeline and the sums need of a look.
    fn note(&mut self, seen: &Seen<'_>, report: &Report) {
        let eligible = report.jobs.first().map_or(0, |job| job.eligible);
        self.answer.eligible_max = self.answer.eligible_max.max(eligible);
        self.answer.looks_without_offer += usize::from(eligible == 0);
        let replicas = report.jobs.iter().flat_map(|job| &job.replicas);
        let limited = replicas.filter(|one| matches!(one.situation, Situation::OverLimit { .. }));
        self.answer.looks_over_limit += usize::from(limited.count() > 0);
        let first = ReplicaId {
            job: self.job.name.clone(),
            index: 0,
        };
        let newest = self.account.newest(&first);
        let record = self.state.replica(&first);
        let moment = Moment {
            at: seen.at,
            phase: newest.map_or(Phase::Nothing, |rented| phase(rented, seen.at)),
            price: newest.map(|rented| rented.price),
            floor: newest.and_then(|rented| match seen.standing(&rented.offer) {
                Standing::Floor(floor) => floor,
                Standing::Taken | Standing::Unseen => None,
            }),
            machine: newest.map(|rented| rented.offer.machine),
            done_gpu_ms: record.done_gpu_ms(),
            cost: self.account.bill.total(),
        };
        let most = self.question.to.ms_since(self.question.from) / MOMENTS;
        let changes = self.answer.timeline.last().is_none_or(|last| {
            let what = |of: &Moment| (of.phase, of.price, of.floor, of.machine);
            what(last) != what(&moment) || moment.at.ms_since(last.at) >= most
        });
        if changes {
            self.answer.timeline.push(moment);
        }
        let done = self.unended() == 0 && !self.state.replicas.is_empty();
        if done && self.answer.ended_at.is_none() {
            self.answer.ended_at = Some(seen.at);
        }
    }

    fn sum_up(&mut self) {
        let answer = &mut self.answer;
        answer.bill = self.account.bill;
        answer.instances = self.state.replicas.values().map(|one| one.starts).sum();
        for record in self.state.replicas.values() {
            answer.useful_gpu_ms += record.done_gpu_ms();
            answer.lost_gpu_ms += record.lost_gpu_ms;
            answer.outbids += record.outbids;
            answer.failed |= matches!(record.ending, Some((Ending::Failed, _)));
        }
        let job = self.state.job(&self.job.name);
        answer.on_demand_equivalent = job.on_demand_equivalent;
        answer.deadline = self.job.deadline;
    }
}

fn phase(rented: &Rented, now: Time) -> Phase {
    match (rented.is_up(now), rented.has_gpus(), rented.rental) {
        (true, _, Rental::OnDemand) => Phase::OnDemand,
        (true, _, Rental::Bid) => Phase::Bid,
        (false, true, _) => Phase::Starting,
        (false, false, _) => Phase::Paused,
    }
}

/// By job, the cheapest eligible on-demand rate of a useful GPU-hour.
fn yardsticks(report: &Report) -> BTreeMap<JobName, Rate> {
    let of = report.jobs.iter().filter_map(|job| {
        let best = job.on_demand_best.as_ref()?;
        let rate = Rate::from_dollars(best.parts.total()).ok()?;
        Some((job.job.clone(), rate))
    });
    of.collect()
}
