//! Makes what is handed out of what a tick saw and decided.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::desk::{Desk, Ready};
use crate::daemon::{BrokenPolicy, Observer, Pace, TickView};
use crate::ports::StoreError;
use crate::types::hex::hex;
use crate::types::job::Job;
use crate::types::plan::{Plan, Report};
use crate::types::state::{Change, Event, State};
use crate::types::time::Time;
use crate::types::world::EngineConfig;
use crate::view::board::{BrokenDocument, EventDocument, JobRow, Seen, board};
use crate::view::limits;

/// Events that are shown at once.
const NEWS_MAX: usize = 40;

/// An observer that publishes to a desk.
pub struct Publisher {
    desk: Arc<Desk>,
    pace: Pace,
    version: u64,
    /// The newest first.
    news: VecDeque<EventDocument>,
    /// Made by the last tick, to be published again where the store fails.
    last: Option<Last>,
}

struct Last {
    made: Ready,
    trouble: Vec<String>,
}

impl Publisher {
    /// Publishes to `desk`; ticks come at this pace.
    pub fn new(desk: Arc<Desk>, pace: Pace) -> Self {
        Self {
            desk,
            pace,
            version: 0,
            news: VecDeque::new(),
            last: None,
        }
    }

    /// Takes up what was known before this process began, with the last events, the oldest first, and
    /// publishes it until the first tick is over.
    pub fn prime(
        &mut self,
        state: &State,
        events: &[Event],
        (jobs, broken_policies): (&[Arc<Job>], &[BrokenPolicy]),
        (now, live, config): (Time, bool, &EngineConfig),
    ) {
        for event in events {
            self.tell(event);
        }
        let broken: Vec<BrokenDocument> = broken_policies.iter().map(broken).collect();
        let trouble = vec!["no poll of the marketplace has succeeded yet".to_owned()];
        let all: Vec<&Job> = jobs.iter().map(|job| &**job).collect();
        // Limits hold before anything is decided. What is left in the account is not known yet.
        let report = Report {
            limits: limits::known(now, config, &all, state),
            ..Report::default()
        };
        self.version += 1;
        let seen = Seen {
            version: self.version,
            now,
            live,
            changes_allowed: self.desk.access().has_token(),
            config,
            state,
            jobs,
            broken: &broken,
            plan: &Plan::default(),
            report: &report,
            was_decided: false,
            credit: None,
            next_tick: Duration::ZERO,
            trouble,
            news: self.news.iter().cloned().collect(),
        };
        self.take(&seen);
    }

    fn tell(&mut self, event: &Event) {
        self.news.push_front(EventDocument::of(event));
        self.news.truncate(NEWS_MAX);
    }

    fn take(&mut self, seen: &Seen<'_>) {
        let (board, rows) = board(seen);
        let made = Ready {
            tag: String::new(),
            now: seen.now,
            made_at: self.desk.monotonic(),
            board: Arc::new(board),
            rows: Arc::new(by_name(rows)),
            jobs: seen.jobs.into(),
            config: Arc::new(seen.config.clone()),
            plan: Arc::new(seen.plan.clone()),
            report: Arc::new(seen.report.clone()),
        };
        let trouble = seen.trouble.clone();
        self.last = Some(Last { made, trouble });
        self.publish();
    }

    fn publish(&self) {
        let Some(last) = &self.last else { return };
        let json = match serde_json::to_string(&*last.made.board) {
            Ok(json) => json,
            Err(error) => {
                tracing::warn!("what the page shows cannot be written as JSON: {error}");
                return;
            }
        };
        let digest = hex(&Sha256::digest(json.as_bytes())[..12]);
        let ready = Ready {
            tag: format!("\"{digest}\""),
            ..last.made.clone()
        };
        self.desk.publish(self.version, &json, ready);
    }
}

fn by_name(rows: Vec<JobRow>) -> BTreeMap<String, Arc<JobRow>> {
    let named = |row: JobRow| (row.job.job.clone(), Arc::new(row));
    rows.into_iter().map(named).collect()
}

/// Whether a tick knew enough to decide: what is unknown is neither rented again nor taken down.
fn could_decide(view: &TickView<'_>) -> bool {
    let listing = view.polled.listing.as_ref();
    listing.is_some_and(|listing| listing.complete) && view.polled.account.is_some()
}

fn broken(policy: &BrokenPolicy) -> BrokenDocument {
    BrokenDocument {
        file: policy.path.display().to_string(),
        job: policy.job.as_ref().map(ToString::to_string),
        message: policy.message.clone(),
    }
}

impl Observer for Publisher {
    fn committed(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Event(event) = change {
                self.tell(event);
            }
        }
    }

    fn store_failed(&mut self, error: Option<&StoreError>) {
        self.version += 1;
        let version = self.version;
        if let Some(last) = &mut self.last {
            let told = error.map(|error| format!("spending stops: {error}"));
            let board = Arc::make_mut(&mut last.made.board);
            board.trouble = told.into_iter().chain(last.trouble.clone()).collect();
            board.version = version;
        }
        self.publish();
    }

    fn ticked(&mut self, view: &TickView<'_>) {
        let world = view.world;
        self.version += 1;
        let broken: Vec<BrokenDocument> = view.broken_policies.iter().map(broken).collect();
        let trouble = crate::daemon::watch::unready(view);
        let seen = Seen {
            version: self.version,
            now: world.now,
            live: view.live,
            changes_allowed: self.desk.access().has_token(),
            config: &world.config,
            state: view.state,
            jobs: &world.jobs,
            broken: &broken,
            plan: view.plan,
            report: view.report,
            credit: view.polled.account.and_then(|account| account.credit),
            next_tick: self.pace.next_within(world.now, world.config.poll_every),
            was_decided: could_decide(view),
            trouble,
            news: self.news.iter().cloned().collect(),
        };
        self.take(&seen);
    }
}
