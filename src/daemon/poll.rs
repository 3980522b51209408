//! Polling: what the market, the instances and the account are, or that it is not known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::plan_searches::{Round, Wanted};
use super::settle::APART;
use super::{Daemon, DaemonError, PolicySet};
use crate::engine::array::Standing;
use crate::ports::ReadError;
use crate::types::ids::{InstanceId, JobName, MachineId, OfferId};
use crate::types::instance::{Account, Listing};
use crate::types::intent::Effect;
use crate::types::job::Job;
use crate::types::mutant::Mutant;
use crate::types::offer::{Coverage, Extent, Market, Offer, OfferQuery, Snapshot};
use crate::types::state::Change;
use crate::types::time::{Mono, Time};

/// An empty answer to a search that was not empty before is believed when it has come this often
/// in a row: gateways and caches answer empty when they mean "I do not know".
const EMPTY_BELIEVED_AFTER: u32 = 3;

/// Empty listings in a row, as far as each says something new: one that comes right after another,
/// because a tick came early, only says the same once more.
#[derive(Debug, Default)]
pub(super) struct Empties {
    count: u32,
    counted_at: Mono,
}

impl Empties {
    /// One more came now. How many there were.
    fn one_more(&mut self, now: Mono) -> u32 {
        if self.count == 0 || now.since(self.counted_at) >= APART {
            self.count += 1;
            self.counted_at = now;
        }
        self.count
    }
}

/// Whether an empty listing, the n-th in a row, may be taken for whole: while it may hide what cannot
/// be asked for by id, and with or without an instance of ours that is known to be absent.
fn empty_believed(in_a_row: u32, hides: bool, witness_absent: Option<bool>) -> bool {
    witness_absent != Some(false) && (!hides || in_a_row >= EMPTY_BELIEVED_AFTER)
}

/// A search is asked again after half a poll's interval, or half of this where polls are further
/// apart: what an early tick needs is as new as that.
const SEARCH_AGAIN_MAX: Duration = Duration::from_mins(2);

/// A row for history alone is kept this long after it was last seen; nothing is rented from it.
const HISTORY_ROWS_KEPT: Duration = Duration::from_hours(6);

/// What one poll saw.
#[derive(Debug)]
pub struct Polled {
    /// The wall clock after the last answer.
    pub at: Time,
    /// The instances; `None`: unknown.
    pub listing: Option<Listing>,
    /// When the listing's request began.
    pub listing_begun: Mono,
    /// The account; `None`: unknown.
    pub account: Option<Account>,
    /// Why something is unknown, for the log and the page.
    pub failures: Vec<ReadError>,
    /// Searches that were made.
    pub searched: usize,
    /// Searches that were due and wait for the quota.
    pub deferred: usize,
}

impl Daemon {
    /// Reads the account first: whoever's it is decides whether anything else may be believed.
    pub(super) async fn poll_account(&mut self) -> Result<Result<Account, ReadError>, DaemonError> {
        let mut account = match self.parts.marketplace.account().await {
            Ok(account) => account,
            Err(error) => return Ok(Err(error)),
        };
        if self.makes_mistake(Mutant::WrongAccountAccepted) {
            account.id = self.state.account.unwrap_or(account.id);
        }
        match self.state.account {
            None => self.commit(&[Change::Pin {
                account: account.id,
            }])?,
            Some(pinned) if pinned != account.id => {
                return Err(DaemonError::OtherAccount {
                    found: account.id,
                    pinned,
                });
            }
            Some(_) => {}
        }
        Ok(Ok(account))
    }

    /// One poll. A patient one waits for the searches' quota, so that all is asked.
    pub(super) async fn poll(
        &mut self,
        jobs: &[Arc<Job>],
        patient: bool,
    ) -> Result<Polled, DaemonError> {
        let mut failures = Vec::new();
        let (mut searched, mut deferred) = (0, 0);
        let account = self.poll_account().await?;
        let account_known = account.is_ok();
        // A marketplace that does not even say whose account this is would only waste the
        // searches' quota and, while it is down, the time until it is noticed to be back.
        if account_known {
            (searched, deferred) = self.poll_offers(jobs, patient, &mut failures).await?;
        }
        let listing_begun = self.parts.clock.monotonic();
        let listing = match self.parts.marketplace.instances().await {
            Ok(mut listing) => {
                // Another account's clean, empty listing looks like a loss of everything.
                listing.complete &= account_known;
                self.corroborate(&mut listing).await;
                self.end_where_more_is_asked(&mut listing);
                Some(listing)
            }
            Err(error) => {
                failures.push(error);
                None
            }
        };
        let account = match account {
            Ok(account) => Some(account),
            Err(error) => {
                failures.push(error);
                None
            }
        };
        Ok(Polled {
            at: self.now(),
            listing,
            listing_begun,
            account,
            failures,
            searched,
            deferred,
        })
    }

    /// An empty listing is believed only with something beside it: an instance of ours that should
    /// be in it and is positively not there, and, where a rent may show yet or others' instances were
    /// listed before, that it has come often enough in a row and none of those can be read either. A
    /// rent has no id by which it could be asked for; and what others rent shortens the runway also
    /// when an answer leaves it out.
    pub(super) async fn corroborate(&mut self, listing: &mut Listing) {
        if !listing.rows.is_empty() || !listing.unreadable.is_empty() {
            self.empties = Empties::default();
            if listing.complete {
                self.others_listed.clear();
            }
            let others = self.others_in(listing);
            self.others_listed.extend(others);
            return;
        }
        let intents = self.state.intents.values();
        let renting = intents
            .filter(|intent| matches!(intent.effect, Effect::Rent { .. }))
            .count()
            > 0
            // What was forgotten may show, too.
            || self.is_comparing();
        let hides = renting || !self.others_listed.is_empty();
        if !listing.complete || (self.state.held.is_empty() && !hides) {
            return;
        }
        if self.makes_mistake(Mutant::EmptyListingBelieved) {
            return;
        }
        let in_a_row = self.empties.one_more(self.parts.clock.monotonic());
        let held = self.state.held.values();
        // One that we destroyed may be gone while others are there.
        let witness = held
            .max_by_key(|held| held.destroying.is_none())
            .map(|held| held.id);
        let absent = match witness {
            Some(id) => Some(matches!(
                self.parts.marketplace.instance(id).await,
                Ok(None)
            )),
            None => None,
        };
        listing.complete = empty_believed(in_a_row, hides, absent) && self.others_are_gone().await;
    }

    /// Asks for each instance of others that was listed, until one is there or may be.
    async fn others_are_gone(&mut self) -> bool {
        while let Some(&id) = self.others_listed.first() {
            if !matches!(self.parts.marketplace.instance(id).await, Ok(None)) {
                return false;
            }
            self.others_listed.remove(&id);
        }
        true
    }

    /// The instances in a listing that are not known to be ours.
    pub(super) fn others_in(&self, listing: &Listing) -> BTreeSet<InstanceId> {
        let rows = listing.rows.iter().map(|row| row.id);
        let ids = rows.chain(listing.unreadable.iter().copied());
        ids.filter(|id| !self.state.held.contains_key(id)).collect()
    }

    /// Searches what the jobs and our own machines need, inside the quota. The numbers are those of
    /// the searches made and of those that were due and wait.
    async fn poll_offers(
        &mut self,
        jobs: &[Arc<Job>],
        patient: bool,
        failures: &mut Vec<ReadError>,
    ) -> Result<(usize, usize), DaemonError> {
        let round = self.plan_searches(jobs, patient);
        let counts = (round.asked.len(), round.deferred);
        let mut rows: BTreeMap<OfferId, Offer> = BTreeMap::new();
        let mut coverage = Vec::new();
        for query in round.asked {
            let answer = self.parts.marketplace.offers(&query).await;
            let (mono, now) = (self.parts.clock.monotonic(), self.now());
            let (extent, malformed) = match answer {
                Ok(page) => {
                    let found = page.offers.len() + page.malformed as usize;
                    self.searches.asked(&query, mono, Some(found));
                    let extent = self.judge(&query, page.complete, page.offers.len());
                    if extent == Extent::Complete || !page.offers.is_empty() {
                        self.searches.answered(&query, now);
                    }
                    for offer in page.offers {
                        self.seen.insert(offer.id, now);
                        merge(&mut rows, offer, query.market);
                    }
                    (extent, page.malformed)
                }
                Err(error) => {
                    failures.push(error);
                    self.searches.asked(&query, mono, None);
                    (self.stale(&query), 0)
                }
            };
            coverage.push(Coverage {
                query,
                extent,
                malformed,
            });
        }
        let any_answer = coverage
            .iter()
            .any(|seen| !matches!(seen.extent, Extent::Stale { .. }));
        if !any_answer {
            return Ok(counts);
        }
        coverage.extend(round.waiting.into_iter().map(|query| Coverage {
            extent: self.stale(&query),
            query,
            malformed: 0,
        }));
        self.carry_over(&mut rows, &coverage);
        self.seen.retain(|id, _| rows.contains_key(id));
        let mut offers: Vec<Offer> = rows.into_values().collect();
        offers.sort_by_key(|offer| (offer.slot(), offer.id));
        let snapshot = Snapshot {
            at: self.now(),
            offers,
            coverage,
        };
        self.snapshot_id = Some(self.parts.store.snapshot(&snapshot)?);
        self.market = Arc::new(snapshot);
        Ok(counts)
    }

    fn stale(&self, query: &OfferQuery) -> Extent {
        Extent::Stale {
            since: self.searches.answered_at(query),
        }
    }

    fn plan_searches(&mut self, jobs: &[Arc<Job>], patient: bool) -> Round {
        let jobs: Vec<Arc<Job>> = jobs
            .iter()
            .filter(|job| !self.is_over(job))
            .cloned()
            .collect();
        let own = self.own_machines();
        let wanted = Wanted {
            jobs: &jobs,
            own: &own,
            market: &self.market,
            again_after: self.settings.engine.poll_every.min(SEARCH_AGAIN_MAX) / 2,
            history_every: self.settings.looking.history_every,
            patient: patient || !self.has_searched,
        };
        self.has_searched = true;
        self.searches.round(self.parts.clock.monotonic(), &wanted)
    }

    /// Whether every replica of a job has ended, so that it takes no slot any more.
    fn is_over(&self, job: &Job) -> bool {
        Standing::of(&self.state, job).is_over()
    }

    /// Whether an answer can be trusted to hold all that matches.
    fn judge(&mut self, query: &OfferQuery, complete: bool, rows: usize) -> Extent {
        if rows == 0 && self.market.offers.iter().any(|offer| query.matches(offer)) {
            let streak = self.empty_streak.entry(query.clone()).or_default();
            *streak += 1;
            if *streak < EMPTY_BELIEVED_AFTER {
                return Extent::Partial;
            }
        } else {
            self.empty_streak.remove(query);
        }
        if complete {
            Extent::Complete
        } else {
            Extent::Partial
        }
    }

    /// Rows of the last snapshot that this poll cannot have proven gone stay, as long as they were
    /// seen recently enough. What no search of this poll was asked for is kept longer: while its
    /// search waits, it is taken for stale wherever it matters.
    fn carry_over(&self, rows: &mut BTreeMap<OfferId, Offer>, coverage: &[Coverage]) {
        let now = self.now();
        for offer in &self.market.offers {
            let mut kept_for = None;
            for seen in coverage.iter().filter(|seen| seen.query.matches(offer)) {
                let most = match seen.extent {
                    Extent::Complete => Duration::ZERO,
                    Extent::Stale { .. } if self.searches.is_for_history(&seen.query) => {
                        HISTORY_ROWS_KEPT
                    }
                    Extent::Partial | Extent::Stale { .. } => self.settings.engine.offers_max_age,
                };
                kept_for = Some(kept_for.map_or(most, |known: Duration| known.min(most)));
            }
            let seen_at = self.seen.get(&offer.id).copied().unwrap_or(self.market.at);
            if kept_for.is_some_and(|most| !most.is_zero() && now.since(seen_at) <= most) {
                rows.entry(offer.id).or_insert_with(|| offer.clone());
            }
        }
    }

    fn own_machines(&self) -> BTreeSet<MachineId> {
        self.state
            .held
            .values()
            .map(|held| held.slot.machine)
            .collect()
    }

    /// Takes up edits of the policy files. A file that cannot be read keeps the job that it held:
    /// the job goes on as it is. Where a broken file's job was never known, no job is taken to have
    /// been removed.
    pub(super) fn reload_policies(&mut self) -> Jobs {
        let PolicySet { jobs, broken } = self.parts.policies.load();
        let mut unreadable: BTreeSet<JobName> = BTreeSet::new();
        for policy in &broken {
            let known = self
                .known_policies
                .get(&policy.path)
                .map(|job| job.name.clone());
            match policy.job.clone().or(known) {
                Some(name) => {
                    unreadable.insert(name);
                }
                None => unreadable.extend(self.jobs_with_instances()),
            }
        }
        let broken_now: BTreeSet<_> = broken.iter().map(|policy| &policy.path).collect();
        self.known_policies
            .retain(|path, _| broken_now.contains(path));
        self.known_policies
            .extend(jobs.iter().map(|(path, job)| (path.clone(), job.clone())));
        let mut valid: Vec<Arc<Job>> = jobs.into_iter().map(|(_, job)| job).collect();
        valid.sort_by(|a, b| {
            b.priority
                .cmp(&a.priority)
                .then_with(|| a.name.cmp(&b.name))
        });
        self.fill_inputs(&mut valid);
        for job in &valid {
            unreadable.remove(&job.name);
        }
        let last = unreadable.iter().filter_map(|name| self.last_policy(name));
        let last = last.collect();
        Jobs {
            valid,
            unreadable: unreadable.into_iter().collect(),
            last,
            broken,
        }
    }

    /// What a job's policy last said: in this process, or in one before it.
    fn last_policy(&self, name: &JobName) -> Option<Arc<Job>> {
        let seen = self.known_policies.values().find(|job| job.name == *name);
        seen.cloned().or_else(|| {
            let text = self.state.wire.get(&policy_key(name))?;
            let job: Job = serde_json::from_str(text).ok()?;
            (job.name == *name).then(|| Arc::new(job))
        })
    }

    /// Keeps what the policies of jobs that hold something say, so that their budgets bind even where
    /// a file is broken when the next process reads it; and forgets the others.
    pub(super) fn keep_policies(&mut self, jobs: &Jobs) -> Result<(), DaemonError> {
        let holding: BTreeSet<JobName> = self.jobs_with_instances().collect();
        let mut changes = Vec::new();
        for job in jobs.valid.iter().filter(|job| holding.contains(&job.name)) {
            let key = policy_key(&job.name);
            let Ok(text) = serde_json::to_string(&**job) else {
                continue;
            };
            if self.state.wire.get(&key) != Some(&text) {
                let value = Some(text);
                changes.push(Change::Wire { key, value });
            }
        }
        let stale = self.state.wire.keys().filter(|key| {
            let name = key.strip_prefix(POLICY_KEY);
            name.is_some_and(|name| !holding.iter().any(|job| job.as_str() == name))
        });
        changes.extend(stale.map(|key| Change::Wire {
            key: key.clone(),
            value: None,
        }));
        self.commit(&changes)
    }

    fn jobs_with_instances(&self) -> impl Iterator<Item = JobName> {
        self.state
            .held
            .values()
            .map(|held| held.replica.job.clone())
    }
}

/// Under this and a job's name it is kept what its policy last said, beside the wire.
const POLICY_KEY: &str = "policy.";

fn policy_key(name: &JobName) -> String {
    format!("{POLICY_KEY}{name}")
}

/// The jobs of a tick.
pub(super) struct Jobs {
    /// Valid, by priority, then name.
    pub(super) valid: Vec<Arc<Job>>,
    /// Left as they are.
    pub(super) unreadable: Vec<JobName>,
    /// What the policies of those last said, as far as it is known.
    pub(super) last: Vec<Arc<Job>>,
    /// What is wrong with which file.
    pub(super) broken: Vec<super::BrokenPolicy>,
}

impl Jobs {
    /// What a job's policy says, or last said.
    pub(super) fn known(&self, name: &JobName) -> Option<&Job> {
        let mut all = self.valid.iter().chain(&self.last);
        all.find(|job| job.name == *name).map(|job| &**job)
    }
}

/// Two searches may return the same row: the on-demand one knows both prices, and neither answer
/// may make the other's price unknown.
fn merge(rows: &mut BTreeMap<OfferId, Offer>, offer: Offer, market: Market) {
    match rows.get_mut(&offer.id) {
        None => {
            rows.insert(offer.id, offer);
        }
        Some(known) => {
            let on_demand = match market {
                Market::OnDemand => offer.on_demand.or(known.on_demand),
                Market::Bid => known.on_demand,
            };
            let floor = offer.floor.or(known.floor);
            if market == Market::OnDemand {
                *known = offer;
            }
            known.on_demand = on_demand;
            known.floor = floor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_empty_listing_voids_no_rent_and_hides_no_instance() {
        assert!(!empty_believed(1, true, None), "the rent may show yet");
        assert!(!empty_believed(2, true, Some(true)));
        assert!(empty_believed(EMPTY_BELIEVED_AFTER, true, None));
        assert!(
            !empty_believed(9, false, Some(false)),
            "one of ours is there"
        );
        assert!(empty_believed(1, false, Some(true)));
    }

    #[test]
    fn empty_listings_of_early_ticks_are_one() {
        let mut empties = Empties::default();
        let counts = [0, 5, 10, 29, 30, 45, 59, 60].map(|at| empties.one_more(Mono(at * 1000)));
        assert_eq!(counts, [1, 1, 1, 1, 2, 2, 2, 3]);
    }
}
