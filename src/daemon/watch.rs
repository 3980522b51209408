//! Follows the daemon for the outside: metrics and readiness.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::events::Way;
use super::metrics::{Metrics, MetricsInput};
use super::web::Shared;
use super::{Observer, TickView};
use crate::ports::StoreError;
use crate::types::notification::NotificationKind;
use crate::types::state::{Change, State};

/// An observer that publishes what the web server hands out.
pub struct Watch {
    metrics: Arc<Metrics>,
    shared: Arc<Shared>,
    database: Option<PathBuf>,
}

impl Watch {
    /// Publishes to `shared`. The database's size is shown where its file is named.
    pub fn new(metrics: Arc<Metrics>, shared: Arc<Shared>, database: Option<PathBuf>) -> Self {
        Self {
            metrics,
            shared,
            database,
        }
    }

    /// Takes up what was known before this process began.
    pub fn prime(&self, state: &State) {
        self.metrics.prime(state);
    }

    fn store_bytes(&self) -> Option<u64> {
        let database = self.database.as_ref()?;
        let mut wal = database.clone().into_os_string();
        wal.push("-wal");
        let size = |path: &std::path::Path| std::fs::metadata(path).ok().map(|file| file.len());
        Some(size(database)? + size(wal.as_ref()).unwrap_or(0))
    }
}

impl Observer for Watch {
    fn committed(&mut self, changes: &[Change]) {
        self.metrics.committed(changes);
    }

    fn notified(&mut self, way: Way, kind: NotificationKind, outcome: &'static str) {
        self.metrics.notified(way, kind, outcome);
    }

    fn woken(&mut self, after: Duration) {
        self.metrics.woken(after);
    }

    fn store_failed(&mut self, error: Option<&StoreError>) {
        self.metrics.store_failed(error.map(StoreError::as_str));
        self.shared.publish_metrics(self.metrics.render());
        let reason = error.map(|error| format!("spending stops: {error}"));
        self.shared.publish_unready(reason.into_iter().collect());
    }

    fn ticked(&mut self, view: &TickView<'_>) {
        let world = view.world;
        let polled = view.polled;
        self.metrics.searched(polled.searched, polled.deferred);
        self.metrics.tick_took(view.took);
        self.metrics.update(&MetricsInput {
            now: world.now,
            state: view.state,
            jobs: &world.jobs,
            policies_broken: view.broken_policies.len(),
            unread: polled.failures.len(),
            market: &world.market,
            listing: view.polled.listing.as_ref(),
            account: view.polled.account.as_ref(),
            can_bid: world.can_bid,
            config: &world.config,
            plan: view.plan,
            report: view.report,
            live: view.live,
            store_bytes: self.store_bytes(),
        });
        self.shared.publish_metrics(self.metrics.render());
        self.shared.publish_unready(unready(view));
    }
}

/// Why the daemon cannot be relied on right now; empty where it can.
pub(crate) fn unready(view: &TickView<'_>) -> Vec<String> {
    let failures = view.polled.failures.iter();
    let mut reasons = each_once(failures.map(ToString::to_string));
    if view.live
        && let Some(why) = view.state.wire.get(super::older::COMPARING)
    {
        reasons.push(format!(
            "nothing new is rented until the database was compared with the account: {why}"
        ));
    }
    if view.world.market.coverage.is_empty() && !view.world.jobs.is_empty() {
        reasons.push("no search of the market was answered yet".to_owned());
    }
    reasons
}

/// Several reads may fail for one reason, which is told once.
fn each_once(reasons: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for reason in reasons {
        if !all.contains(&reason) {
            all.push(reason);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reason_is_told_once() {
        let reasons = ["no route", "refused", "no route"].map(str::to_owned);
        assert_eq!(each_once(reasons.into_iter()), ["no route", "refused"]);
    }

    #[test]
    fn a_store_that_fails_is_told_to_whoever_asks_until_it_works_again() {
        let (metrics, shared) = (Arc::new(Metrics::new()), Arc::new(Shared::new()));
        let mut watch = Watch::new(Arc::clone(&metrics), Arc::clone(&shared), None);
        watch.store_failed(Some(&StoreError::Full));
        let told = shared.unready();
        assert!(
            told.iter().any(|reason| reason.contains("disk")),
            "{told:?}"
        );
        let series = "haggle_store_failing{why=\"full\"} 1";
        assert!(metrics.render().contains(series), "{}", metrics.render());
        watch.store_failed(None);
        assert!(shared.unready().is_empty());
        assert!(!metrics.render().contains(series));
    }
}
