//! What a guard does when the daemon is dead: makes sure, then winds down.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::memory::Memory;
use super::source::Source;
use crate::cli::context::{Context, Patience};
use crate::cli::failure::Failure;
use crate::cli::winddown::{WindDown, list, ours};
use crate::config::Config;
use crate::ports::Marketplace;
use crate::store::{read_installation, set_kill_file};
use crate::types::ids::{AccountId, Installation, InstanceId};
use crate::types::instance::{Instance, Listing};
use crate::types::money::Rate;

/// How ours are taken down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Nothing runs; disks are kept, and billed.
    Park,
    /// Nothing is left.
    Destroy,
}

/// What came of winding down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Wound {
    /// What was asked to end or to stop.
    pub(super) touched: Vec<u64>,
    /// What runs, or is there, all the same.
    pub(super) left: Vec<u64>,
    /// What was parked: its disk is billed on.
    pub(super) parked: Vec<u64>,
    /// What the disks of what was parked go on costing; absent: unknown, or nothing was parked.
    pub(super) storage_dollars_per_hour: Option<String>,
    /// Whether it is proven.
    pub(super) settled: bool,
    /// Whether the daemon came back meanwhile: it may rent again.
    pub(super) daemon_came_back: bool,
    /// Whether the file that forbids spending was written.
    pub(super) kill_file_written: bool,
}

/// What an attempt came to.
#[derive(Debug)]
pub(super) enum Acted {
    /// The daemon lives after all: nothing was touched.
    DaemonIsBack,
    /// Ours were taken down, as far as it went.
    Wound(Wound),
}

/// What is needed to wind down.
pub(super) struct Hands<'a> {
    pub(super) context: &'a Context,
    pub(super) config: &'a Config,
    pub(super) source: &'a Source,
    pub(super) memory: &'a Memory,
    pub(super) how: How,
    pub(super) within: Duration,
}

impl Hands<'_> {
    /// Whose instances they are, and on which account: as the daemon itself said.
    fn whose(&self) -> Result<(&Installation, AccountId), String> {
        let last = self.memory.last.as_ref();
        let last = last.ok_or("no heartbeat was ever seen, so it is not known what is ours")?;
        let account = last.account.ok_or(
            "the daemon never said on which account its instances are, so nothing is touched",
        )?;
        Ok((&last.installation, account))
    }

    /// The marketplace, where the token is of the account that the daemon said.
    async fn marketplace(
        &self,
        account: AccountId,
    ) -> Result<std::sync::Arc<dyn Marketplace>, String> {
        let told = |failure: Failure| {
            let text = self.context.redactor.show(&failure.to_string());
            text.strip_prefix("error: ").unwrap_or(&text).to_owned()
        };
        // Nothing is remembered of the wire, for there is no database.
        let nothing = BTreeMap::new();
        let marketplace = self
            .context
            .connect(self.config, &nothing, Patience::Retry)
            .map_err(told)?;
        let found = marketplace.account().await;
        let found = found.map_err(|error| told(error.into()))?;
        if found.id != account {
            return Err(format!(
                "the token belongs to account {}, and the daemon's instances are on account \
                 {account}; nothing is touched",
                found.id
            ));
        }
        Ok(marketplace)
    }

    /// Tries out what winding down needs, short of doing it.
    pub(super) async fn try_out(&self) -> Result<(), String> {
        let (_, account) = self.whose()?;
        self.marketplace(account).await.map(drop)
    }

    /// Winds down, where the daemon is still dead once everything is ready.
    pub(super) async fn wind_down(&self) -> Result<Acted, String> {
        let (installation, account) = self.whose()?;
        if self.is_back().await {
            return Ok(Acted::DaemonIsBack);
        }
        let marketplace = self.marketplace(account).await?;
        let listing = marketplace.instances().await;
        let listing = listing.map_err(|error| {
            let error = self.context.redactor.show(&error.to_string());
            format!("the instances cannot be listed: {error}")
        })?;
        // Only the whole prefix counts here: what else the daemon knows, it knows and not we.
        let nothing = BTreeSet::new();
        let ours = ours(&listing, installation, &nothing);
        let held = self.memory.last.as_ref().map(|last| last.held.as_slice());
        let strange = without_label(&listing, &ours, held.unwrap_or_default());
        // Reading took time, and it is the last moment at which nothing is lost.
        if self.is_back().await {
            return Ok(Acted::DaemonIsBack);
        }
        self.context.output.note(&format!(
            "the daemon is dead: of the account's {} instances {} are of installation \
             {installation}: {}",
            listing.rows.len() + listing.unreadable.len(),
            ours.len(),
            list(ours.iter().map(|row| row.id)),
        ));
        let kill_file_written = self.forbid_spending();
        let mut down = WindDown::new(
            &*marketplace,
            &*self.context.clock,
            self.context.output,
            installation,
            &nothing,
        );
        let mut wound = match self.how {
            How::Destroy => destroyed(down.destroy_all(self.within).await),
            How::Park => parked(down.park_all(self.within).await),
        };
        wound.touched = numbers(down.touched().keys());
        if !strange.is_empty() {
            self.context.output.note(&format!(
                "the daemon held {}, whose labels are not this installation's, or cannot be read: left as they \
                 are, and billed; end them in the marketplace's console if they are yours",
                list(strange.iter().copied())
            ));
            wound.left.extend(numbers(&strange));
            wound.settled = false;
        }
        wound.kill_file_written = kill_file_written;
        wound.daemon_came_back = self.is_back().await;
        Ok(Acted::Wound(wound))
    }

    async fn is_back(&self) -> bool {
        self.memory.is_alive(&self.source.read().await)
    }

    /// On the daemon's own machine a daemon that hangs, or is started again, must not rent anew.
    /// After parking it may: it would take up what was parked, and one that is killed destroys it.
    fn forbid_spending(&self) -> bool {
        let database = self.context.global.database.as_deref();
        match (database, self.how) {
            (Some(database), How::Destroy) => {
                self.is_of_the_daemon(database) && self.write_kill_file(database)
            }
            _ => false,
        }
    }

    /// Whether a database is that of the daemon that is watched, as far as the file beside it says.
    /// Another installation's daemon must not be kept from its work, nor taken for the one to stop.
    pub(super) fn is_of_the_daemon(&self, database: &Path) -> bool {
        let watched = self.memory.last.as_ref().map(|last| &last.installation);
        let found = read_installation(database).ok().flatten();
        let other = found.filter(|found| Some(found) != watched);
        if let Some(other) = &other {
            self.context.output.note(&format!(
                "warning: {} is of installation {other}, so no kill file is written there",
                database.display()
            ));
        }
        other.is_none()
    }

    fn write_kill_file(&self, database: &Path) -> bool {
        let written = set_kill_file(database);
        if let Err(error) = &written {
            self.context.output.note(&format!(
                "warning: the kill file cannot be written: {error}"
            ));
        }
        written.is_ok()
    }
}

fn numbers<'i>(ids: impl IntoIterator<Item = &'i InstanceId>) -> Vec<u64> {
    ids.into_iter().map(|id| id.0).collect()
}

/// What the daemon said that it holds, and is there, but without a label by which it may be touched.
pub(super) fn without_label(
    listing: &Listing,
    ours: &[Instance],
    held: &[InstanceId],
) -> Vec<InstanceId> {
    let there = |id: InstanceId| {
        listing.rows.iter().any(|row| row.id == id) || listing.unreadable.contains(&id)
    };
    let is_ours = |id: InstanceId| ours.iter().any(|row| row.id == id);
    held.iter()
        .copied()
        .filter(|&id| there(id) && !is_ours(id))
        .collect()
}

fn destroyed(left: Option<BTreeSet<InstanceId>>) -> Wound {
    Wound {
        settled: left.as_ref().is_some_and(BTreeSet::is_empty),
        left: numbers(left.iter().flatten()),
        ..Wound::default()
    }
}

fn parked(end: Option<crate::cli::winddown::Parked>) -> Wound {
    let Some(end) = end else {
        return Wound::default();
    };
    Wound {
        settled: end.settled,
        left: numbers(&end.left),
        parked: numbers(&end.parked),
        storage_dollars_per_hour: end.storage.map(Rate::decimal),
        ..Wound::default()
    }
}

impl Wound {
    /// For people, in a line.
    pub(super) fn told(&self, how: How) -> String {
        let count = self.touched.len();
        let mut text = match (how, count, self.settled) {
            (_, 0, true) if self.parked.is_empty() => "nothing of ours is rented".to_owned(),
            (How::Destroy, _, true) => format!("{count} destroyed, and proven gone"),
            (How::Destroy, _, false) => format!("{count} asked to be destroyed, not proven gone"),
            (_, _, true) => format!("{} parked", self.parked.len()),
            (_, _, false) => format!("{count} asked to be parked, not proven to be"),
        };
        if !self.parked.is_empty() {
            text.push_str(&match &self.storage_dollars_per_hour {
                Some(rate) => format!("; their disks go on billing {rate} dollars an hour"),
                None => "; their disks go on billing".to_owned(),
            });
        }
        if !self.left.is_empty() {
            let left = list(self.left.iter().map(|&id| InstanceId(id)));
            text.push_str(&format!("; still there: {left}"));
        }
        text.push_str(if self.daemon_came_back {
            "; the daemon came back meanwhile, and may rent again"
        } else if self.kill_file_written {
            "; the kill file is set, so a daemon of that database does not rent again until \
             `haggle resume --all`"
        } else if how == How::Destroy {
            "; a daemon that lives elsewhere, or is started again, will rent again: stop it, or \
             run `haggle kill` beside its database"
        } else {
            "; a daemon that lives elsewhere, or is started again, will take them up again"
        });
        text
    }
}
