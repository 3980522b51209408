//! Polling: what the market, the instances and the account are, or that it is not known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Daemon, DaemonError, PolicySet};
use crate::ports::ReadError;
use crate::types::ids::{JobName, MachineId, OfferId};
use crate::types::instance::{Account, Listing};
use crate::types::intent::Effect;
use crate::types::job::{Job, RentalChoice};
use crate::types::offer::{Coverage, Extent, Market, Offer, OfferQuery, Snapshot};
use crate::types::state::Change;
use crate::types::time::{Mono, Time};

/// An empty answer to a search that was not empty before is believed when it has come this often
/// in a row: gateways and caches answer empty when they mean "I do not know".
const EMPTY_BELIEVED_AFTER: u32 = 3;

/// Whether an empty listing, the n-th in a row, may be taken for whole: while a rent may show yet,
/// and with or without an instance of ours that is known to be absent.
fn empty_believed(in_a_row: u32, renting: bool, witness_absent: Option<bool>) -> bool {
    witness_absent != Some(false) && (!renting || in_a_row >= EMPTY_BELIEVED_AFTER)
}

/// Searches are rate-limited to ten a minute, so a poll makes no more than this; the rest take
/// their turn in the next one.
const SEARCHES_PER_POLL_MAX: usize = 24;

/// The disk by which the totals of our own machines' rows are computed; only their floors and
/// on-demand rates are looked at.
const OWN_DISK_GB: u32 = 8;

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
}

impl Daemon {
    /// Reads the account first: whoever's it is decides whether anything else may be believed.
    pub(super) async fn poll_account(&mut self) -> Result<Result<Account, ReadError>, DaemonError> {
        let account = match self.parts.marketplace.account().await {
            Ok(account) => account,
            Err(error) => return Ok(Err(error)),
        };
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

    pub(super) async fn poll(&mut self, jobs: &[Arc<Job>]) -> Result<Polled, DaemonError> {
        let mut failures = Vec::new();
        let account = self.poll_account().await?;
        let account_known = account.is_ok();
        // A marketplace that does not even say whose account this is would only waste the
        // searches' quota and, while it is down, the time until it is noticed to be back.
        if account_known {
            self.poll_offers(jobs, &mut failures).await?;
        }
        let listing_begun = self.parts.clock.monotonic();
        let listing = match self.parts.marketplace.instances().await {
            Ok(mut listing) => {
                // Another account's clean, empty listing looks like a loss of everything.
                listing.complete &= account_known;
                self.corroborate(&mut listing).await;
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
        })
    }

    /// An empty listing is believed only with something beside it: an instance of ours that should
    /// be in it and is positively not there, and, where a rent may show yet, that it has come often
    /// enough in a row. A rent has no id by which it could be asked for.
    pub(super) async fn corroborate(&mut self, listing: &mut Listing) {
        if !listing.rows.is_empty() || !listing.unreadable.is_empty() {
            self.empty_listings = 0;
            return;
        }
        let intents = self.state.intents.values();
        let renting = intents
            .filter(|intent| matches!(intent.effect, Effect::Rent { .. }))
            .count()
            > 0;
        if !listing.complete || (self.state.held.is_empty() && !renting) {
            return;
        }
        self.empty_listings += 1;
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
        listing.complete = empty_believed(self.empty_listings, renting, absent);
    }

    async fn poll_offers(
        &mut self,
        jobs: &[Arc<Job>],
        failures: &mut Vec<ReadError>,
    ) -> Result<(), DaemonError> {
        let mut rows: BTreeMap<OfferId, Offer> = BTreeMap::new();
        let mut coverage = Vec::new();
        let (asked, waiting) = self.plan_searches(jobs);
        for query in asked {
            let (extent, malformed) = match self.parts.marketplace.offers(&query).await {
                Ok(page) => {
                    let extent = self.judge(&query, page.complete, page.offers.len());
                    for offer in page.offers {
                        merge(&mut rows, offer, query.market);
                    }
                    (extent, page.malformed)
                }
                Err(error) => {
                    failures.push(error);
                    (
                        Extent::Stale {
                            since: self.answered.get(&query).copied(),
                        },
                        0,
                    )
                }
            };
            coverage.push(Coverage {
                query,
                extent,
                malformed,
            });
        }
        coverage.extend(waiting.into_iter().map(|query| Coverage {
            extent: Extent::Stale {
                since: self.answered.get(&query).copied(),
            },
            query,
            malformed: 0,
        }));
        let now = self.now();
        for seen in coverage
            .iter()
            .filter(|seen| seen.extent == Extent::Complete)
        {
            self.answered.insert(seen.query.clone(), now);
        }
        let any_answer = coverage
            .iter()
            .any(|seen| !matches!(seen.extent, Extent::Stale { .. }));
        if !any_answer {
            return Ok(());
        }
        self.carry_over(&mut rows, &coverage);
        let mut offers: Vec<Offer> = rows.into_values().collect();
        offers.sort_by_key(|offer| (offer.slot(), offer.id));
        let snapshot = Snapshot {
            at: now,
            offers,
            coverage,
        };
        self.snapshot_id = Some(self.parts.store.snapshot(&snapshot)?);
        self.market = Arc::new(snapshot);
        Ok(())
    }

    /// The searches of this poll, and those that have to wait for a later one: our own machines
    /// first, then those whose last answer is the oldest.
    fn plan_searches(&self, jobs: &[Arc<Job>]) -> (Vec<OfferQuery>, Vec<OfferQuery>) {
        let mut asked = own_queries(&self.own_machines());
        let mut searches = market_queries(jobs);
        searches.sort_by_key(|query| self.answered.get(query).copied());
        let room = SEARCHES_PER_POLL_MAX.saturating_sub(asked.len()).max(1);
        let waiting = searches.split_off(room.min(searches.len()));
        asked.extend(searches);
        (asked, waiting)
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

    /// Rows of the last snapshot that this poll cannot have proven gone stay, as long as the
    /// search that saw them is recent enough.
    fn carry_over(&self, rows: &mut BTreeMap<OfferId, Offer>, coverage: &[Coverage]) {
        let (now, age_max) = (self.now(), self.settings.engine.offers_max_age);
        let fresh = |at: Time| now.since(at) <= age_max;
        for offer in &self.market.offers {
            let mut covering = coverage
                .iter()
                .filter(|seen| seen.query.matches(offer))
                .peekable();
            let wanted = covering.peek().is_some();
            let unproven = covering.all(|seen| match seen.extent {
                Extent::Complete => false,
                Extent::Partial => fresh(self.market.at),
                Extent::Stale { since } => since.is_some_and(fresh),
            });
            if wanted && unproven {
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
        for job in &valid {
            unreadable.remove(&job.name);
        }
        Jobs {
            valid,
            unreadable: unreadable.into_iter().collect(),
            broken,
        }
    }

    fn jobs_with_instances(&self) -> impl Iterator<Item = JobName> {
        self.state
            .held
            .values()
            .map(|held| held.replica.job.clone())
    }
}

/// The jobs of a tick.
pub(super) struct Jobs {
    /// Valid, by priority, then name.
    pub(super) valid: Vec<Arc<Job>>,
    /// Left as they are.
    pub(super) unreadable: Vec<JobName>,
    /// What is wrong with which file.
    pub(super) broken: Vec<super::BrokenPolicy>,
}

/// One search for each machine that we hold something on, every filter opened.
fn own_queries(machines: &BTreeSet<MachineId>) -> Vec<OfferQuery> {
    let query = |&machine| OfferQuery {
        market: Market::OnDemand,
        gpu_name: None,
        machine: Some(machine),
        disk_gb: OWN_DISK_GB,
        open: true,
    };
    machines.iter().map(query).collect()
}

/// The fewest searches that see every slot a job could take: by model, on-demand rows first, for
/// they carry the floor too; bid rows for the models of jobs that bid, since a row that only
/// bidders see is in no other answer.
fn market_queries(jobs: &[Arc<Job>]) -> Vec<OfferQuery> {
    let mut models: BTreeMap<Option<String>, (bool, u32)> = BTreeMap::new();
    for job in jobs {
        let bids = job.rental != RentalChoice::OnDemand;
        let named = job.requirements.gpu_models.iter().cloned().map(Some);
        let any = job.requirements.gpu_models.is_empty().then_some(None);
        for name in named.chain(any) {
            let entry = models
                .entry(name)
                .or_insert((false, job.requirements.disk_gb));
            entry.0 |= bids;
            entry.1 = entry.1.max(job.requirements.disk_gb);
        }
    }
    if let Some(&all) = models.get(&None) {
        // A search without a model sees every model.
        models = BTreeMap::from([(None, all)]);
    }
    let search = |market, name: &Option<String>, disk_gb| OfferQuery {
        market,
        gpu_name: name.clone(),
        machine: None,
        disk_gb,
        open: false,
    };
    let on_demand = models
        .iter()
        .map(|(name, &(_, disk))| search(Market::OnDemand, name, disk));
    let bid = models
        .iter()
        .filter(|(_, (bids, _))| *bids)
        .map(|(name, &(_, disk))| search(Market::Bid, name, disk));
    on_demand.chain(bid).collect()
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

    fn job(name: &str, models: &str, rental: &str) -> Arc<Job> {
        let text = format!(
            "name = \"{name}\"\nrental = \"{rental}\"\nfinish = \"never\"\n[run]\nimage = \"a:1\"\n\
             [gpu]\nmodels = [{models}]\n[price]\nmax = \"$1/gpu-hour\"\n[data]\ndisposable = true\n"
        );
        Arc::new(crate::policy::parse("job.toml", &text).expect("a valid policy"))
    }

    #[test]
    fn models_are_asked_for_once_and_bids_only_where_somebody_bids() {
        let jobs = [
            job("a", "\"RTX 4090\"", "on-demand"),
            job("b", "\"RTX 4090\", \"RTX 3090\"", "interruptible"),
            job("c", "\"H100 SXM\"", "on-demand"),
        ];
        let asked: Vec<(Market, Option<String>)> = market_queries(&jobs)
            .into_iter()
            .map(|query| (query.market, query.gpu_name))
            .collect();
        let model = |name: &str| Some(name.to_owned());
        assert_eq!(
            asked,
            [
                (Market::OnDemand, model("H100 SXM")),
                (Market::OnDemand, model("RTX 3090")),
                (Market::OnDemand, model("RTX 4090")),
                (Market::Bid, model("RTX 3090")),
                (Market::Bid, model("RTX 4090")),
            ]
        );
        let any = [jobs[0].clone(), job("d", "", "interruptible")];
        assert!(
            market_queries(&any)
                .iter()
                .all(|query| query.gpu_name.is_none())
        );
    }

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
}
