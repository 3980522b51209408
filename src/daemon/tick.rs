//! One tick: the data's way from poll to settle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono_tz::Tz;

use super::older::is_no_bill;
use super::poll::{Jobs, Polled};
use super::verify::Wrong;
use super::{Daemon, DaemonError, journal};
use crate::engine::check::check;
use crate::engine::decide::decide;
use crate::engine::hear::Heard;
use crate::engine::leaks::leaks;
use crate::engine::observe::{Observation, observe};
use crate::engine::reconcile::{BILL_BACK_MAX, Books, bill_from, reconcile, records_begin};
use crate::ports::ReadError;
use crate::types::ids::{InstanceId, IntentId, JobName, Label, ReplicaId};
use crate::types::instance::{Account, Held, Listing};
use crate::types::job::Job;
use crate::types::money::{Money, Rate};
use crate::types::mutant::Mutant;
use crate::types::plan::{Action, Limit, Notice, Plan, Report};
use crate::types::state::{Ask, Change, Event, ReplicaRecord, Severity, State, Wish};
use crate::types::time::Time;
use crate::types::world::World;

/// How often the books are compared with the marketplace's bill.
const RECONCILE_EVERY: Duration = Duration::from_secs(3600);

/// The rows of a day are taken as final when it has been over for so long.
const DAY_CLOSED_AFTER: Duration = Duration::from_secs(6 * 3600);

/// Up to which day it was told where the bill differs, in what is kept beside the wire.
const DRIFT_KEY: &str = "bill.drift-told";

/// What a tick came to, for whoever follows.
#[derive(Debug)]
pub struct TickView<'a> {
    /// What it decided on.
    pub world: &'a World,
    /// What is known after it.
    pub state: &'a State,
    /// What it saw of the instances and the account.
    pub polled: &'a Polled,
    /// What it decided, after the check.
    pub plan: &'a Plan,
    /// Why.
    pub report: &'a Report,
    /// Whether the plan was carried out.
    pub live: bool,
    /// Policy files that cannot be used.
    pub broken_policies: &'a [super::BrokenPolicy],
    /// How long it took on the daemon's clock.
    pub took: Duration,
}

/// A decision with the world that it was made from.
pub(super) struct Decision {
    pub(super) world: World,
    pub(super) plan: Plan,
    pub(super) report: Report,
}

impl Daemon {
    /// Polls, decides and acts once. What cannot be read is unknown, and the tick goes on with
    /// that; only a store that fails and an account that is not ours end it.
    pub async fn tick(&mut self) -> Result<Vec<ReadError>, DaemonError> {
        let begun = self.now();
        if let Some(begins) = records_begin(&self.state, begun) {
            self.commit(&[begins])?;
        }
        self.take_requests()?;
        self.record_notifications()?;
        self.read_price_increases().await?;
        let jobs = self.reload_policies();
        self.prepare_inputs(&jobs)?;
        let mut polled = self.poll(&jobs.valid, false).await?;
        if let Some(credit) = polled.account.and_then(|account| account.credit) {
            self.credit_history.read(polled.at, credit);
        }
        self.account_read = polled.account.is_some();
        self.remember_wire()?;
        self.notice_later_doings(&polled)?;
        let settled = self.settle_absences(&mut polled).await;
        let wrong = self.not_as_asked(&polled);
        let heard = self.hear(&polled).await;
        self.observe(&jobs, &polled, &settled, &wrong, &heard)?;
        self.keep_policies(&jobs)?;
        self.saw(polled.listing.as_ref());
        self.tell_leaks(&polled)?;
        self.destroy_all_wrong(&wrong).await?;
        // What the bill says is posted before anything is planned: a plan on older books may begin
        // what the next one has to end. A bill is compared only where it is known whose it is.
        if self.settings.live && polled.account.is_some() {
            self.reconcile_when_due().await?;
        }
        let mut decision = self.decide(&jobs, &polled);
        let (kept, dropped) = check(&decision.world, &decision.plan);
        decision.plan = kept;
        log_dropped(&dropped);
        decision.report.dropped = dropped;
        self.commit_tick(&decision)?;
        self.tell(&decision.report.notices)?;
        if self.settings.live {
            self.carry_out(&decision).await?;
            // Storage may be slow: what holds limits came first.
            self.renew_controls(&jobs.valid).await?;
        }
        self.on_demand = yardsticks(&decision.report);
        let now = self.now();
        self.parts
            .store
            .prune(now - self.settings.looking.history_kept)?;
        let view = TickView {
            world: &decision.world,
            state: &self.state,
            polled: &polled,
            plan: &decision.plan,
            report: &decision.report,
            live: self.settings.live,
            broken_policies: &jobs.broken,
            took: now.since(begun),
        };
        for observer in &mut self.parts.observers {
            observer.ticked(&view);
        }
        self.spacing.ticked(self.parts.clock.monotonic());
        Ok(polled.failures)
    }

    /// What one tick would do and why. Nothing is executed, and nothing is written but what the
    /// poll saw.
    pub async fn preview(&mut self) -> Result<(World, Plan, Report), DaemonError> {
        let jobs = self.reload_policies();
        let polled = self.poll(&jobs.valid, true).await?;
        if let Some(error) = polled.failures.first() {
            return Err(DaemonError::Unreachable(error.clone()));
        }
        let nothing = Settled::default();
        self.observe(&jobs, &polled, &nothing, &[], &BTreeMap::new())?;
        let mut decision = self.decide(&jobs, &polled);
        let (kept, dropped) = check(&decision.world, &decision.plan);
        decision.report.dropped = dropped;
        Ok((decision.world, kept, decision.report))
    }

    /// Looks at the instances only, and settles what they show: for ending.
    pub(super) async fn look(&mut self) -> Result<(), DaemonError> {
        let jobs = self.reload_policies();
        let account = self.poll_account().await?.ok();
        let listing_begun = self.parts.clock.monotonic();
        let mut listing = self.parts.marketplace.instances().await.ok();
        if let Some(listing) = &mut listing {
            listing.complete &= account.is_some();
            self.corroborate(listing).await;
        }
        let at = self.now();
        let mut polled = Polled {
            at,
            listing,
            listing_begun,
            account,
            failures: Vec::new(),
            searched: 0,
            deferred: 0,
        };
        self.notice_later_doings(&polled)?;
        let settled = self.settle_absences(&mut polled).await;
        let wrong = self.not_as_asked(&polled);
        self.observe(&jobs, &polled, &settled, &wrong, &BTreeMap::new())
    }

    fn take_requests(&mut self) -> Result<(), DaemonError> {
        for request in self.parts.store.requests()? {
            let mut changes = self.wishes(&request.ask);
            changes.push(Change::RequestDone { id: request.id });
            self.commit(&changes)?;
        }
        Ok(())
    }

    /// Whether the user asked for something that the next tick would take up.
    pub(super) fn has_requests(&mut self) -> Result<bool, DaemonError> {
        Ok(!self.parts.store.requests()?.is_empty())
    }

    fn wishes(&self, ask: &Ask) -> Vec<Change> {
        match ask {
            Ask::Job { job, wish } => self.wish_for(job, *wish),
            Ask::Kill => vec![Change::Killed { killed: true }],
            Ask::ResumeAll => {
                let asleep = self.state.jobs.values().filter(|job| match job.wish {
                    Wish::Pause | Wish::Stop => true,
                    Wish::Run => {
                        let waits = job.starts.hold.is_some() || !job.setbacks.is_empty();
                        waits || self.not_copied(&job.name).next().is_some()
                    }
                    Wish::Done => false,
                });
                let mut changes: Vec<Change> = asleep
                    .flat_map(|job| self.wish_for(&job.name, Wish::Run))
                    .collect();
                changes.push(Change::Killed { killed: false });
                changes
            }
        }
    }

    /// What a wish for a job changes. What could not be started may be mended elsewhere, such as by
    /// pushing its image: whoever wants it to run wants it tried now.
    fn wish_for(&self, job: &JobName, wish: Wish) -> Vec<Change> {
        let mut record = self.state.job(job);
        record.wish = wish;
        let mut changes = Vec::new();
        if wish == Wish::Run {
            record.starts.hold = None;
            record.starts.failed.clear();
            // Whoever resumes an array has seen what its elements failed of.
            record.setbacks.clear();
            let stuck: Vec<&ReplicaId> = self.not_copied(job).map(|held| &held.replica).collect();
            let failed = |replica: &&ReplicaRecord| {
                let starts = replica.failed_starts > 0 || stuck.contains(&&replica.id);
                replica.id.job == *job && starts
            };
            for replica in self.state.replicas.values().filter(failed) {
                changes.push(Change::Replica(ReplicaRecord {
                    failed_starts: 0,
                    retry_at: None,
                    ..replica.clone()
                }));
            }
            for held in self.not_copied(job) {
                changes.push(Change::Held(Box::new(Held {
                    copies_failed: 0,
                    ..held.clone()
                })));
            }
        }
        changes.push(Change::Job(record));
        changes
    }

    /// The instances of a job from whose disks copies came to nothing.
    fn not_copied<'a>(&'a self, job: &'a JobName) -> impl Iterator<Item = &'a Held> {
        let held = self.state.held.values();
        held.filter(move |held| held.replica.job == *job && held.copies_failed > 0)
    }

    fn remember_wire(&mut self) -> Result<(), DaemonError> {
        let learnt = self.parts.marketplace.learnt();
        let changes: Vec<Change> = learnt
            .into_iter()
            .map(|(key, value)| Change::Wire { key, value })
            .collect();
        self.commit(&changes)
    }

    /// Takes up a listing as evidence of absence, and confirms by id what it seems to prove.
    /// What a read by id shows is there, although the listing left it out, and counts as listed:
    /// else it would pass for what was seen last, such as never having run.
    async fn settle_absences(&mut self, polled: &mut Polled) -> Settled {
        let Some(listing) = &mut polled.listing else {
            return Settled::default();
        };
        let absent = self
            .settle
            .listed(&self.state, listing, polled.listing_begun);
        let mut settled = Settled {
            gone: BTreeSet::new(),
            void: absent.intents,
        };
        for instance in absent.instances {
            let believed =
                self.makes_mistake(Mutant::EmptyListingBelieved) && listing.rows.is_empty();
            let read = self.parts.marketplace.instance(instance).await;
            if believed || matches!(read, Ok(None)) {
                settled.gone.insert(instance);
            } else if let Ok(Some(row)) = read {
                listing.rows.push(row);
            }
        }
        listing.rows.sort_by_key(|row| row.id);
        settled
    }

    fn observe(
        &mut self,
        jobs: &Jobs,
        polled: &Polled,
        settled: &Settled,
        wrong: &[Wrong],
        heard: &BTreeMap<InstanceId, Heard>,
    ) -> Result<(), DaemonError> {
        let ended = self.ended_but_listed(polled.listing.as_ref())?;
        let (moved, clocks) = self.clocks.read(self.now(), self.parts.clock.monotonic());
        let seen = Observation {
            now: polled.at,
            moved,
            broke: polled
                .account
                .and_then(|account| account.credit)
                .is_some_and(|credit| credit <= Money::ZERO),
            listing: polled.listing.as_ref(),
            market: &self.market,
            proven_gone: &settled.gone,
            proven_void: &settled.void,
            on_demand: &self.on_demand,
            unchanged: &self.unchanged,
            ran: &self.ran,
            ended: &ended,
            heard,
        };
        let mut changes = observe(&self.state, &jobs.valid, &self.settings.engine, &seen);
        if self.settings.live {
            self.condemn(wrong, jobs, &mut changes);
        }
        self.commit(&changes)?;
        // Only now: what could not be kept is told again.
        self.clocks = clocks;
        let held = &self.state.held;
        self.ran
            .retain(|id| held.get(id).is_some_and(|held| held.first_ran_at.is_none()));
        Ok(())
    }

    /// The last records of what is listed under our label although it was settled as gone.
    fn ended_but_listed(
        &mut self,
        listing: Option<&Listing>,
    ) -> Result<BTreeMap<InstanceId, Held>, DaemonError> {
        let mut ended = BTreeMap::new();
        for row in listing.iter().flat_map(|listing| &listing.rows) {
            let label = row.label.as_deref();
            let ours = label.is_some_and(|text| Label::has_prefix(text, &self.state.installation));
            if ours
                && !self.state.held.contains_key(&row.id)
                && let Some(held) = self.parts.store.ended(row.id)?
            {
                ended.insert(row.id, held);
            }
        }
        Ok(ended)
    }

    /// Tells of what costs money without being at work.
    fn tell_leaks(&mut self, polled: &Polled) -> Result<(), DaemonError> {
        let listing = polled.listing.as_ref();
        let events = leaks(&self.state, listing, polled.at, &mut self.leaks_told);
        let told: Vec<Change> = events.into_iter().map(Change::Event).collect();
        self.commit(&told)
    }

    /// What keeps jobs from being rented for whose secrets cannot be read.
    fn unreadable_secrets(&self, jobs: &Jobs) -> BTreeMap<JobName, String> {
        let secrets = &*self.parts.secrets;
        let unread = |job: &Arc<Job>| {
            let what = super::unreadable_secrets(secrets, &job.run)?;
            Some((job.name.clone(), what))
        };
        jobs.valid.iter().filter_map(unread).collect()
    }

    fn decide(&mut self, jobs: &Jobs, polled: &Polled) -> Decision {
        let now = self.now();
        // An account that refused to spend has nothing to spend until the wait is over.
        let waits = self.account_waits_until.is_some_and(|until| now < until)
            // Nor has one of which the database may have forgotten what it paid for.
            || (self.settings.live && self.is_comparing());
        let world = World {
            now,
            seed: self.settings.seed.wrapping_add(self.state.ticks),
            config: self.settings.engine.clone(),
            jobs: jobs.valid.clone(),
            unreadable_jobs: jobs.unreadable.clone(),
            last_policies: jobs.last.clone(),
            unreadable_secrets: self.unreadable_secrets(jobs),
            state: self.state.clone(),
            market: Arc::clone(&self.market),
            listing: polled.listing.clone(),
            account: polled.account.filter(|_| !waits).map(|account| Account {
                // A look ahead is the first reading that there is.
                credit: account
                    .credit
                    .map(|credit| self.credit_history.relied_on().unwrap_or(credit)),
                ..account
            }),
            credit_read: polled.account.and_then(|account| account.credit),
            credit_slope: self.credit_history.slope(),
            can_bid: self.parts.marketplace.can_bid(),
            wind_down: self.wind_down,
        };
        let (plan, report) = decide(&world);
        Decision {
            world,
            plan,
            report,
        }
    }

    fn commit_tick(&mut self, decision: &Decision) -> Result<(), DaemonError> {
        let record = journal::record(&decision.world, &decision.plan, self.snapshot_id);
        let mut changes = vec![Change::Tick(Box::new(record))];
        for (id, watch) in &decision.report.watches {
            let known = self.state.replica(id);
            if known.watch.as_ref() != Some(watch) {
                let watch = Some(watch.clone());
                changes.push(Change::Replica(ReplicaRecord { watch, ..known }));
            }
        }
        self.commit(&changes)
    }

    /// Tells each notice once, and again only after it was absent.
    fn tell(&mut self, notices: &[Notice]) -> Result<(), DaemonError> {
        let key = |notice: &Notice| {
            let replica = notice
                .replica
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            format!("{} {replica}", notice.kind)
        };
        let at = self.now();
        let news: Vec<Change> = notices
            .iter()
            .filter(|notice| !self.told.contains(&key(notice)))
            .map(|notice| {
                Change::Event(Event {
                    at,
                    severity: notice.severity,
                    kind: notice.kind.clone(),
                    replica: notice.replica.clone(),
                    instance: None,
                    text: notice.text.clone(),
                })
            })
            .collect();
        self.told = notices.iter().map(key).collect();
        self.commit(&news)
    }

    async fn reconcile_when_due(&mut self) -> Result<(), DaemonError> {
        let now = self.now();
        if self.wants_bill()
            || self
                .last_reconcile
                // In the future: the clock was set back, and nobody knows how long ago it was.
                .is_none_or(|last| last > now || now.since(last) >= RECONCILE_EVERY)
        {
            self.last_reconcile = Some(now);
            self.reconcile().await?;
        }
        Ok(())
    }

    /// Compares the books with the marketplace's bill and posts the difference.
    pub async fn reconcile(&mut self) -> Result<(), DaemonError> {
        let now = self.now();
        let recent = self.bills_to_see(now)?;
        let usual = bill_from(&self.state, &recent, now);
        let from = self.bill_wanted_from(usual, now - BILL_BACK_MAX);
        let charges = match self.parts.marketplace.charges(from, now).await {
            Ok(charges) => charges,
            Err(ReadError::Unsupported(_)) => return self.compared(),
            Err(error) => {
                tracing::warn!("the bill cannot be read: {error}");
                return Ok(());
            }
        };
        // A bill that goes further back holds what ended before, too.
        let mut ended = self.parts.store.ended_since(from)?;
        let known = self.state.held.values().chain(&ended);
        if self.is_comparing() && is_no_bill(&charges, known) {
            tracing::warn!(
                "the bill came empty, though some of it is known; it is asked for again"
            );
            return Ok(());
        }
        ended.extend(self.forgotten(&charges).await?);
        let mut billed = BTreeMap::new();
        let named = charges.iter().filter_map(|charge| charge.instance);
        let known = self.state.held.keys().copied();
        let ids: BTreeSet<InstanceId> = known
            .chain(ended.iter().map(|held| held.id))
            .chain(named)
            .collect();
        for id in ids {
            billed.insert(id, self.parts.store.billed(id)?);
            // A row that comes very late is still of the job that it was for.
            let here = self.state.held.contains_key(&id) || ended.iter().any(|held| held.id == id);
            if !here && let Some(held) = self.parts.store.ended(id)? {
                ended.push(held);
            }
        }
        let books = Books {
            state: &self.state,
            ended: &ended,
            billed: &billed,
            asked_from: from,
            zone: self.settings.engine.timezone,
        };
        let seen = reconcile(&books, &charges, now);
        self.commit(&seen.changes)?;
        self.has_reconciled = true;
        self.tell_drift()?;
        self.compared()
    }

    /// Tells where a day's bill turned out otherwise than it was reckoned, once for each instance and
    /// day, when its rows are likely to be final.
    fn tell_drift(&mut self) -> Result<(), DaemonError> {
        let now = self.now();
        let Some(day) = (now - DAY_CLOSED_AFTER).day(Tz::UTC).pred_opt() else {
            return Ok(());
        };
        let told = self.state.wire.get(DRIFT_KEY).map(String::as_str);
        // A later day was told by a clock that ran ahead: it must not keep this one quiet.
        if told.is_some_and(|told| told == day.to_string()) {
            return Ok(());
        }
        let drifts = self.parts.store.drift(day)?;
        let mut changes: Vec<Change> = drifts
            .iter()
            .filter(|drift| drift.is_worth_a_word())
            .map(|drift| {
                let text = format!(
                    "on {day} instance {} was reckoned to cost {:.4} for GPUs and disk, and billed \
                     {:.4}",
                    drift.instance, drift.estimated, drift.billed
                );
                self.warn("billing-drift", text, Some(drift.instance))
            })
            .collect();
        changes.push(Change::Wire {
            key: DRIFT_KEY.to_owned(),
            value: Some(day.to_string()),
        });
        self.commit(&changes)
    }

    /// What ended and may be billed otherwise than it is booked. The first time it is also what
    /// ended longer ago and whose bill was never seen to be whole: no process may have run since.
    fn bills_to_see(&mut self, now: Time) -> Result<Vec<Held>, DaemonError> {
        /// The bill of what ended before this does not change.
        const BACK: Duration = Duration::from_secs(3 * 24 * 3600);
        let recent = now - BACK;
        if self.has_reconciled {
            return Ok(self.parts.store.ended_since(recent)?);
        }
        let mut ended = self.parts.store.ended_since(now - BILL_BACK_MAX)?;
        ended.retain(|held| held.accrued_to >= recent || held.spent() != held.billed);
        Ok(ended)
    }

    /// A warning that is worth keeping.
    pub(super) fn warn(&self, kind: &str, text: String, instance: Option<InstanceId>) -> Change {
        Change::Event(Event {
            at: self.now(),
            severity: Severity::Warning,
            kind: kind.to_owned(),
            replica: None,
            instance,
            text,
        })
    }
}

/// A refusal by the check is a disagreement between two reckonings of the same limits.
fn log_dropped(dropped: &[(Action, Limit)]) {
    for (action, limit) in dropped {
        tracing::warn!(
            action = action.effect.as_str(),
            limit = limit.as_str(),
            "the check refused an action"
        );
    }
}

/// What was proven absent.
#[derive(Debug, Default)]
pub(super) struct Settled {
    gone: BTreeSet<InstanceId>,
    void: BTreeSet<IntentId>,
}

/// The cheapest eligible on-demand landed rate per useful GPU-hour, by job.
fn yardsticks(report: &Report) -> BTreeMap<crate::types::ids::JobName, Rate> {
    let rate = |job: &crate::types::plan::JobReport| {
        let best = job.on_demand_best.as_ref()?;
        Some((
            job.job.clone(),
            Rate::from_dollars(best.parts.total()).ok()?,
        ))
    };
    report.jobs.iter().filter_map(rate).collect()
}
