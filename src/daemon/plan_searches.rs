//! Which searches a poll makes now, inside the marketplace's quota, and which wait their turn.
//!
//! Pure: the clock's readings are arguments. What a search costs is learnt from its answers, for a
//! page holds so many rows and each page is a search by the quota.
//!
//! The order is by age: what was never asked comes first, then what was asked longest ago. The age is
//! that of what a search is about, a model or a machine, and not of the search: models are shared
//! among searches anew with each answer, and were a search as old as itself, new mixtures of the same
//! few models would go before all that waits. A search for history counts as a tenth as old as it is,
//! so that it takes its turn where there is room and is never left out for good. Where the next in
//! turn does not fit, nothing behind it is asked either: so that everything has its turn within a
//! bounded number of polls, however much there is and however dear it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::engine::searches::{history_searches, market_searches, own_searches};
use crate::types::ids::MachineId;
use crate::types::job::Job;
use crate::types::offer::{Market, OfferQuery, Snapshot, same_model};
use crate::types::time::{Mono, Time};

/// Pages that the poller asks for in any minute. The marketplace's documented quota is ten; the
/// rest is for reading offers again right before they are rented.
pub const PAGES_PER_MINUTE: u32 = 7;

/// Pages of one poll that may wait for the quota: the first of a process, when nothing is known,
/// and one that somebody waits for.
pub const PAGES_PATIENT: u32 = 24;

/// The quota's window.
const WINDOW: Duration = Duration::from_secs(60);

/// Pages kept for the market's searches however many machines we hold.
const MARKET_PAGES_MIN: u32 = 2;

/// Rows by which a further page moves on: a page holds 64, and the next begins with the last one.
const ROWS_PER_PAGE: u32 = 63;

/// Rows expected of a model of which nothing is known: a common model's listed slots, by the
/// observed market.
const ROWS_UNKNOWN: usize = 19;

/// By how much a search for history counts as fresher than it is.
const HISTORY_WEIGHT: u64 = 10;

/// What was learnt of a search is forgotten after it was not asked for so long.
const REMEMBERED: Duration = Duration::from_hours(6);

/// The pages that so many rows take.
pub fn pages(rows: usize) -> u32 {
    1 + u32::try_from(rows).unwrap_or(u32::MAX) / ROWS_PER_PAGE
}

/// What a poll looks for.
pub struct Wanted<'a> {
    /// The jobs that could take something.
    pub jobs: &'a [Arc<Job>],
    /// Machines on which we hold something.
    pub own: &'a BTreeSet<MachineId>,
    /// The market as last seen.
    pub market: &'a Snapshot,
    /// A search that was asked less than this ago is not asked again yet.
    pub again_after: Duration,
    /// How often one search for history is made; `None`: never.
    pub history_every: Option<Duration>,
    /// Whether the poll may wait for the quota.
    pub patient: bool,
}

/// A poll's searches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// To be asked now, in this order.
    pub asked: Vec<OfferQuery>,
    /// Planned, and left for a later poll.
    pub waiting: Vec<OfferQuery>,
    /// Those of the waiting that were due.
    pub deferred: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// When it was asked last.
    asked: Mono,
    /// When it last answered, so far as it did.
    answered: Option<Time>,
    /// Rows of its last answer.
    rows: Option<usize>,
}

/// What a search is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Model(Market, String),
    Machine(MachineId),
    /// Nothing smaller than itself.
    Whole(Box<OfferQuery>),
}

/// What is known of searches made.
#[derive(Debug, Default)]
pub struct Searches {
    records: BTreeMap<OfferQuery, Record>,
    /// When something was last asked for, by whichever search; not for history.
    turns: BTreeMap<Subject, Mono>,
    /// Pages asked for within the window, oldest first, and whether for our own machines.
    spent: VecDeque<(Mono, u32, bool)>,
    /// When a search for history was made last.
    history_at: Option<Mono>,
    /// Which searches of the last round were for history.
    history: BTreeSet<OfferQuery>,
}

impl Searches {
    /// Plans a poll.
    pub fn round(&mut self, now: Mono, wanted: &Wanted<'_>) -> Round {
        while let Some(&(at, _, _)) = self.spent.front()
            && now.since(at) >= WINDOW
        {
            self.spent.pop_front();
        }
        let answers = self.answers();
        let expected = |query: &OfferQuery| self.expected_rows(query, wanted.market, &answers);
        let own = own_searches(wanted.own);
        let jobs = market_searches(wanted.jobs, wanted.market, &expected);
        let mut history = BTreeSet::new();
        if wanted.history_every.is_some() {
            history.extend(history_searches(wanted.jobs, wanted.market));
        }
        for query in &jobs {
            history.remove(query);
        }
        let spent = |own| -> u32 {
            let of_class = self.spent.iter().filter(|&&(_, _, of)| of == own);
            of_class.map(|&(_, pages, _)| pages).sum()
        };
        let (spent_own, spent_market) = (spent(true), spent(false));
        let room = if wanted.patient {
            PAGES_PATIENT
        } else {
            PAGES_PER_MINUTE.saturating_sub(spent_own + spent_market)
        };
        let mut round = Round::default();
        self.history = history;
        let answers = self.answers();
        let kept_back = room.min(MARKET_PAGES_MIN);
        let mut budget = Budget {
            room: room - kept_back,
            spent: spent_own,
        };
        self.take_turns(now, wanted, &answers, own, &mut budget, &mut round);
        budget.room += kept_back;
        budget.spent = spent_market;
        let all = jobs
            .into_iter()
            .chain(self.history.iter().cloned())
            .collect();
        self.take_turns(now, wanted, &answers, all, &mut budget, &mut round);
        self.forget(now, &round);
        round
    }

    /// Takes note of a search that was made; `rows` of its answer, where one came.
    pub fn asked(&mut self, query: &OfferQuery, now: Mono, rows: Option<usize>) {
        let record = self.records.entry(query.clone()).or_default();
        record.asked = now;
        record.rows = rows.or(record.rows);
        let cost = rows.map_or(1, pages);
        self.spent.push_back((now, cost, query.open));
        if self.is_for_history(query) {
            self.history_at = Some(now);
            return;
        }
        for subject in subjects(query) {
            self.turns.insert(subject, now);
        }
    }

    /// Takes note of an answer that can be relied on.
    pub fn answered(&mut self, query: &OfferQuery, at: Time) {
        self.records.entry(query.clone()).or_default().answered = Some(at);
    }

    /// When a search last answered.
    pub fn answered_at(&self, query: &OfferQuery) -> Option<Time> {
        self.records.get(query)?.answered
    }

    /// Whether a search of the last round was for history alone.
    pub fn is_for_history(&self, query: &OfferQuery) -> bool {
        self.history.contains(query)
    }

    /// Rows that a search is expected to return: those of its last answer; else those known that
    /// match it, with a guess for models of which none are known; at least as many as a search of
    /// some of its models returned, for what is shared is bounded no tighter.
    fn expected_rows(
        &self,
        query: &OfferQuery,
        market: &Snapshot,
        answers: &[(usize, &OfferQuery)],
    ) -> usize {
        if let Some(rows) = self.records.get(query).and_then(|record| record.rows) {
            return rows;
        }
        let known = market
            .offers
            .iter()
            .filter(|offer| query.matches(offer))
            .count();
        let unknown = names(query)
            .filter(|name| {
                let mut offers = market.offers.iter();
                !offers.any(|offer| same_model(name, &offer.gpu_name))
            })
            .count();
        let expected = known + unknown * ROWS_UNKNOWN;
        let more = answers.iter().take_while(|&&(rows, _)| rows > expected);
        let mut of_some = more.filter(|(_, part)| {
            part.market == query.market
                && names(part).all(|name| names(query).any(|other| name == other))
        });
        of_some.next().map_or(expected, |&(rows, _)| rows)
    }

    /// Rows that searches by model returned last, those with most first; not those for history.
    fn answers(&self) -> Vec<(usize, &OfferQuery)> {
        let records = self.records.iter();
        let mut answers: Vec<(usize, &OfferQuery)> = records
            .filter(|(query, _)| names(query).next().is_some() && !self.is_for_history(query))
            .filter_map(|(query, record)| Some((record.rows?, query)))
            .collect();
        answers.sort_by_key(|&(rows, _)| std::cmp::Reverse(rows));
        answers
    }

    /// Asks in turn what is due, as long as there is room.
    fn take_turns(
        &self,
        now: Mono,
        wanted: &Wanted<'_>,
        answers: &[(usize, &OfferQuery)],
        queries: Vec<OfferQuery>,
        budget: &mut Budget,
        round: &mut Round,
    ) {
        let mut turns: Vec<(u64, OfferQuery)> = queries
            .into_iter()
            .map(|query| (self.age_ms(now, &query), query))
            .collect();
        // Stable: of equal age, on-demand rows before others, as they were planned.
        turns.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
        let history_due = wanted.history_every.is_some_and(|every| {
            wanted.patient || self.history_at.is_none_or(|at| now.since(at) >= every)
        });
        let (mut full, mut looked_back) = (false, false);
        for (_, query) in turns {
            let history = self.is_for_history(&query);
            let asked = self.records.get(&query).map(|record| record.asked);
            let rested = asked.is_none_or(|at| now.since(at) >= wanted.again_after);
            let due = rested && (!history || (history_due && (wanted.patient || !looked_back)));
            if !due {
                round.waiting.push(query);
                continue;
            }
            let cost = pages(self.expected_rows(&query, wanted.market, answers));
            if full || !budget.takes(cost) {
                full = true;
                round.deferred += 1;
                round.waiting.push(query);
                continue;
            }
            looked_back |= history;
            round.asked.push(query);
        }
    }

    fn age_ms(&self, now: Mono, query: &OfferQuery) -> u64 {
        if self.is_for_history(query) {
            let asked = self.records.get(query).map(|record| record.asked.0);
            return now.0.saturating_sub(asked.unwrap_or(0)) / HISTORY_WEIGHT;
        }
        let of = |subject| {
            let asked = self.turns.get(&subject);
            asked.map_or(u64::MAX, |asked| now.0.saturating_sub(asked.0))
        };
        subjects(query).into_iter().map(of).max().unwrap_or(0)
    }

    fn forget(&mut self, now: Mono, round: &Round) {
        let planned: BTreeSet<&OfferQuery> = round.asked.iter().chain(&round.waiting).collect();
        self.records.retain(|query, record| {
            planned.contains(query) || now.since(record.asked) <= REMEMBERED
        });
        self.turns
            .retain(|_, asked| now.since(*asked) <= REMEMBERED);
    }
}

/// The models that a search names.
fn names(query: &OfferQuery) -> impl Iterator<Item = &String> {
    query.gpu_name.iter().chain(&query.bounds.gpu_names)
}

/// What a search is about: its models, or its machines; itself, where it names neither.
fn subjects(query: &OfferQuery) -> Vec<Subject> {
    let models = names(query).map(|name| Subject::Model(query.market, name.clone()));
    let machines = query.machine.iter().chain(&query.bounds.machines);
    let machines = machines.map(|&machine| Subject::Machine(machine));
    let mut all: Vec<Subject> = models.chain(machines).collect();
    if all.is_empty() {
        all.push(Subject::Whole(Box::new(query.clone())));
    }
    all
}

/// What is left of the quota for a poll, for one of the two classes of searches.
struct Budget {
    room: u32,
    /// Pages asked for within the window and in this poll, of this class.
    spent: u32,
}

impl Budget {
    /// Takes a search's pages where they fit. A search that does not fit goes all the same where
    /// nothing of its class was asked for a whole window: else one that is dearer than the quota
    /// would never be asked. The quota recovers from it before the next.
    fn takes(&mut self, cost: u32) -> bool {
        if cost > self.room && self.spent > 0 {
            return false;
        }
        self.room = self.room.saturating_sub(cost);
        self.spent += cost;
        true
    }
}

#[cfg(test)]
#[path = "plan_searches_tests.rs"]
mod tests;
