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
use crate::view::board::{BoardDocument, BrokenDocument, EventDocument, JobRow, Seen, board};

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
    board: BoardDocument,
    trouble: Vec<String>,
    rows: BTreeMap<String, Arc<JobRow>>,
    jobs: Vec<Arc<Job>>,
    config: EngineConfig,
    plan: Plan,
    report: Report,
    now: Time,
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
        jobs: &[Arc<Job>],
        (now, live, config): (Time, bool, &EngineConfig),
    ) {
        for event in events {
            self.tell(event);
        }
        let trouble = vec!["no poll of the marketplace has succeeded yet".to_owned()];
        self.version += 1;
        let seen = Seen {
            version: self.version,
            now,
            live,
            changes_allowed: self.desk.access().has_token(),
            config,
            state,
            jobs,
            broken: &[],
            plan: &Plan::default(),
            report: &Report::default(),
            credit: None,
            next_tick: Duration::ZERO,
            trouble,
            news: self.news.iter().cloned().collect(),
        };
        let (board, rows) = board(&seen);
        self.take(Last {
            trouble: board.trouble.clone(),
            board,
            rows: by_name(rows),
            jobs: jobs.to_vec(),
            config: config.clone(),
            plan: Plan::default(),
            report: Report::default(),
            now,
        });
    }

    fn tell(&mut self, event: &Event) {
        self.news.push_front(EventDocument::of(event));
        self.news.truncate(NEWS_MAX);
    }

    fn take(&mut self, last: Last) {
        self.last = Some(last);
        self.publish();
    }

    fn publish(&self) {
        let Some(last) = &self.last else { return };
        let json = match serde_json::to_string(&last.board) {
            Ok(json) => json,
            Err(error) => {
                tracing::warn!("what the page shows cannot be written as JSON: {error}");
                return;
            }
        };
        let digest = hex(&Sha256::digest(json.as_bytes())[..12]);
        let ready = Ready {
            json,
            tag: format!("\"{digest}\""),
            now: last.now,
            rows: last.rows.clone(),
            instances: last.board.instances.clone(),
            jobs: last.jobs.clone(),
            config: last.config.clone(),
            plan: last.plan.clone(),
            report: last.report.clone(),
        };
        self.desk.publish(self.version, ready);
    }
}

fn by_name(rows: Vec<JobRow>) -> BTreeMap<String, Arc<JobRow>> {
    let named = |row: JobRow| (row.job.job.clone(), Arc::new(row));
    rows.into_iter().map(named).collect()
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
            last.board.trouble = told.into_iter().chain(last.trouble.clone()).collect();
            last.board.version = version;
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
            trouble: trouble.clone(),
            news: self.news.iter().cloned().collect(),
        };
        let (board, rows) = board(&seen);
        self.take(Last {
            board,
            trouble,
            rows: by_name(rows),
            jobs: world.jobs.clone(),
            config: world.config.clone(),
            plan: view.plan.clone(),
            report: view.report.clone(),
            now: world.now,
        });
    }
}
