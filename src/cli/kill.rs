//! `haggle kill`: the red button. Destroys all that is ours, proves it gone, and forbids spending.
//!
//! It needs neither daemon nor database: a token and the installation are enough.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::context::{Context, Patience, block_on};
use super::failure::{Done, Exit, Failure};
use super::output::{self, Align, Output};
use super::wish::daemon_running;
use crate::config::Config;
use crate::ports::{Clock, Marketplace, Outcome, ReadError, RefusedWhy};
use crate::store::{Reader, append_request, installation_file, read_installation, set_kill_file};
use crate::types::ids::{Installation, InstanceId, Label};
use crate::types::instance::{Instance, Listing};
use crate::types::state::{Ask, State};
use crate::types::time::{Mono, human};

/// Between two looks at the listing.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// A destroy that has not taken by then is sent again.
const DESTROY_AGAIN: Duration = Duration::from_mins(1);

/// A rental that was on its way when we began may show this late; an absence is looked for only
/// then. The marketplace gives no such bound: it is our assumption, the daemon's too.
const LATE_CREATE: Duration = Duration::from_mins(2);

/// Two complete listings without ours lie at least this far apart.
const APART: Duration = Duration::from_secs(30);

/// Destroys everything of ours and forbids spending.
#[derive(Args, Clone, Debug)]
pub(crate) struct KillArgs {
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Whose instances; without it, as the database or the file beside it says.
    #[arg(long, value_name = "ID")]
    installation: Option<Installation>,
    /// How long to go on until everything is proven gone.
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = humantime::parse_duration)]
    within: Duration,
}

#[derive(Debug, Serialize)]
struct DestroyedDocument {
    instance: u64,
    label: String,
}

#[derive(Debug, Serialize)]
struct KillDocument {
    installation: String,
    account: Option<u64>,
    destroyed: Vec<DestroyedDocument>,
    instances_left: Vec<u64>,
    settled: bool,
    kill_file_written: bool,
    kill_recorded_in_database: bool,
    daemon_running: bool,
}

pub(crate) fn run(context: &Context, args: &KillArgs) -> Done {
    let config = context.config()?;
    let state = read_state(context.output, &config.database);
    let installation = installation(args, &config, state.as_ref())?;
    let remembered = state.as_ref().map(|state| state.wire.clone());
    let marketplace = context.connect(&config, &remembered.unwrap_or_default(), Patience::Retry)?;
    let clock = context.clock.clone();
    block_on(async {
        let account = account(&*marketplace, state.as_ref()).await?;
        let listing = marketplace.instances().await.map_err(|error| {
            Failure::from(error).context("the instances cannot be listed; nothing was destroyed")
        })?;
        let known: BTreeSet<InstanceId> = state
            .iter()
            .filter(|state| state.installation == installation)
            .flat_map(|state| state.held.keys().copied())
            .collect();
        let ours = ours(&listing, &installation, &known);
        show(context.output, &installation, &ours, &listing);
        confirm(args, &installation, ours.len())?;
        let recorded = record(context, &config.database);
        let mut killer = Killer {
            marketplace: &*marketplace,
            clock: &*clock,
            output: context.output,
            installation: &installation,
            known: &known,
            destroyed: BTreeMap::new(),
            sent: BTreeMap::new(),
        };
        let left = killer.until_gone(args.within).await;
        let document = KillDocument {
            installation: installation.to_string(),
            account,
            destroyed: killer
                .destroyed
                .iter()
                .map(|(id, label)| DestroyedDocument {
                    instance: id.0,
                    label: label.clone(),
                })
                .collect(),
            settled: left.as_ref().is_some_and(BTreeSet::is_empty),
            instances_left: left.iter().flatten().map(|id| id.0).collect(),
            kill_file_written: recorded.file,
            kill_recorded_in_database: recorded.database,
            daemon_running: daemon_running(&config.database),
        };
        finish(context.output, &document)
    })
}

fn finish(output: Output, document: &KillDocument) -> Done {
    output.show(document, || {
        let count = document.destroyed.len();
        let mut lines = vec![match (count, document.settled) {
            (0, true) => "nothing of ours is rented".to_owned(),
            (_, true) => format!("{count} destroyed, and proven gone"),
            (_, false) => format!("{count} asked to be destroyed"),
        }];
        if document.kill_file_written || document.kill_recorded_in_database {
            lines.push("spending is forbidden until `haggle resume --all`".into());
        }
        lines.join("\n")
    })?;
    if !document.kill_file_written && !document.kill_recorded_in_database {
        output.note(
            "warning: the kill could be recorded neither in the database nor beside it; a daemon \
             that lives elsewhere would rent again: stop it",
        );
    }
    if document.settled {
        return Ok(Exit::Success);
    }
    let left: Vec<String> = document
        .instances_left
        .iter()
        .map(ToString::to_string)
        .collect();
    let failure = if left.is_empty() {
        Failure::world("it is not proven that everything is gone")
    } else {
        Failure::world(format!("still there: {}", left.join(", ")))
    };
    Err(failure.hint("run `haggle kill --yes` again, or look at the marketplace's console"))
}

/// The state, where the database can be read. It is not needed, so a bad one only gets a note.
fn read_state(output: Output, database: &Path) -> Option<State> {
    if !database.exists() {
        return None;
    }
    match Reader::open(database).and_then(|reader| reader.state()) {
        Ok(state) => Some(state),
        Err(error) => {
            output.note(&format!("note: going on without the database: {error}"));
            None
        }
    }
}

fn installation(
    args: &KillArgs,
    config: &Config,
    state: Option<&State>,
) -> Result<Installation, Failure> {
    if let Some(named) = &args.installation {
        return Ok(named.clone());
    }
    if let Some(state) = state {
        return Ok(state.installation.clone());
    }
    let file = installation_file(&config.database);
    match read_installation(&config.database) {
        Ok(Some(installation)) => Ok(installation),
        Ok(None) => Err(Failure::mendable(format!(
            "it is not known which instances are ours: neither {} nor {} is there",
            config.database.display(),
            file.display()
        ))
        .hint("name it with --installation ID: it is in every label, hg-ID-…, and `haggle doctor` shows it")),
        Err(error) => Err(Failure::from(error)
            .context("it is not known which instances are ours")
            .hint("name it with --installation ID: it is in every label, hg-ID-…")),
    }
}

/// Whose the token is. Another account's clean, empty listing would look like success.
async fn account(
    marketplace: &dyn Marketplace,
    state: Option<&State>,
) -> Result<Option<u64>, Failure> {
    let pinned = state.and_then(|state| state.account);
    match (marketplace.account().await, pinned) {
        (Ok(found), Some(pinned)) if found.id != pinned => Err(Failure::mendable(format!(
            "the token belongs to account {}, but what is ours is on account {pinned}; nothing was \
             destroyed",
            found.id
        ))
        .hint("use the token of that account")),
        (Ok(found), _) => Ok(Some(found.id.0)),
        (Err(error @ ReadError::Unauthorized { .. }), _) => Err(error.into()),
        // Destroying works without the balance; the button must not hang on it.
        (Err(_), _) => Ok(None),
    }
}

/// Ours by label, or by an id that the database knows: somebody may have changed the label.
fn ours(
    listing: &Listing,
    installation: &Installation,
    known: &BTreeSet<InstanceId>,
) -> Vec<Instance> {
    listing
        .rows
        .iter()
        .filter(|row| {
            let label = row
                .label
                .as_deref()
                .is_some_and(|label| Label::has_prefix(label, installation));
            label || known.contains(&row.id)
        })
        .cloned()
        .collect()
}

fn show(output: Output, installation: &Installation, ours: &[Instance], listing: &Listing) {
    output.note(&format!(
        "installation {installation}: {} of the account's {} instances are ours",
        ours.len(),
        listing.rows.len() + listing.unreadable.len()
    ));
    if !ours.is_empty() {
        let columns = [
            ("instance", Align::Right),
            ("label", Align::Left),
            ("does", Align::Left),
            ("price/h", Align::Right),
        ];
        let rows = ours
            .iter()
            .map(|row| {
                vec![
                    row.id.to_string(),
                    row.label.clone().unwrap_or_default(),
                    row.phase().as_str().into(),
                    row.price
                        .map_or_else(|| "-".into(), |price| format!("{price:.4}")),
                ]
            })
            .collect();
        output.note(&output.table(&columns, rows));
    }
    if !listing.unreadable.is_empty() {
        output.note(&format!(
            "warning: {} rows could not be read, so whose they are is not known",
            listing.unreadable.len()
        ));
    }
}

fn confirm(args: &KillArgs, installation: &Installation, count: usize) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    let question = format!(
        "Destroy these {count}, with their disks, and forbid spending for installation {installation}?"
    );
    match output::confirm(&question) {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::mendable("not confirmed; nothing was destroyed")),
        None => Err(
            Failure::mendable("nobody is there to confirm; nothing was destroyed")
                .hint("say --yes to destroy without being asked"),
        ),
    }
}

struct Recorded {
    file: bool,
    database: bool,
}

/// Forbids spending before anything is destroyed, so that a live daemon does not rent anew.
fn record(context: &Context, database: &Path) -> Recorded {
    let file = set_kill_file(database);
    if let Err(error) = &file {
        context.output.note(&format!(
            "warning: the kill file cannot be written: {error}"
        ));
    }
    let request = database
        .exists()
        .then(|| append_request(database, context.now(), &Ask::Kill));
    if let Some(Err(error)) = &request {
        context.output.note(&format!(
            "warning: the kill cannot be recorded in the database: {error}"
        ));
    }
    Recorded {
        file: file.is_ok(),
        database: matches!(request, Some(Ok(_))),
    }
}

struct Killer<'a> {
    marketplace: &'a dyn Marketplace,
    clock: &'a dyn Clock,
    output: Output,
    installation: &'a Installation,
    /// Ids of ours that the database knows.
    known: &'a BTreeSet<InstanceId>,
    destroyed: BTreeMap<InstanceId, String>,
    /// When the last destroy of each ended.
    sent: BTreeMap<InstanceId, Mono>,
}

impl Killer<'_> {
    /// Destroys and looks again until ours are absent from two complete listings, the first begun
    /// well after the last request, and those known by id are not there by id either. What is still there when the time is up; `None` where the
    /// last look told nothing.
    async fn until_gone(&mut self, within: Duration) -> Option<BTreeSet<InstanceId>> {
        let begun = self.clock.monotonic();
        let mut last_request = begun;
        let mut clean_since: Option<Mono> = None;
        let mut seen;
        loop {
            let looked = self.clock.monotonic();
            match self.marketplace.instances().await {
                Err(error) => {
                    self.output.note(&format!("cannot look: {error}"));
                    seen = None;
                    clean_since = None;
                }
                Ok(listing) => {
                    let here = ours(&listing, self.installation, self.known);
                    seen = Some(self.still_there(&listing, &here));
                    let unreadable = listing.unreadable.iter().copied();
                    let mut due: Vec<(InstanceId, String)> = here
                        .iter()
                        .map(|row| (row.id, row.label.clone().unwrap_or_default()))
                        .collect();
                    let known = unreadable.filter(|id| self.known.contains(id));
                    due.extend(known.map(|id| (id, String::new())));
                    if self.destroy(due).await {
                        last_request = self.clock.monotonic();
                    }
                    let clean = seen.as_ref().is_some_and(BTreeSet::is_empty) && listing.complete;
                    let late = looked.since(last_request) >= LATE_CREATE;
                    clean_since = match clean_since {
                        Some(since) if clean => Some(since),
                        None if clean && late => Some(looked),
                        _ => None,
                    };
                    if clean_since.is_some_and(|since| looked.since(since) >= APART) {
                        match self.there_by_id().await {
                            Some(there) if there.is_empty() => return seen,
                            Some(there) => {
                                let again = there.iter().map(|&id| (id, String::new()));
                                if self.destroy(again.collect()).await {
                                    last_request = self.clock.monotonic();
                                }
                                seen = Some(there);
                            }
                            None => seen = None,
                        }
                        clean_since = None;
                    }
                    if clean && clean_since.is_none() {
                        let left = LATE_CREATE.saturating_sub(looked.since(last_request));
                        self.output.note(&format!(
                            "none is listed; looking again for {} in case one shows late",
                            human(left + APART)
                        ));
                    }
                }
            }
            if self.clock.monotonic().since(begun) >= within {
                // Absent once is not yet proven gone.
                return seen.filter(|seen| !seen.is_empty());
            }
            let next = self.clock.now() + LOOK_EVERY;
            self.clock.sleep_until(next).await;
        }
    }

    /// Ours that a listing shows, with those among its unreadable rows that were destroyed here.
    fn still_there(&self, listing: &Listing, here: &[Instance]) -> BTreeSet<InstanceId> {
        let unreadable = listing.unreadable.iter().copied();
        here.iter()
            .map(|row| row.id)
            .chain(
                unreadable.filter(|id| self.destroyed.contains_key(id) || self.known.contains(id)),
            )
            .collect()
    }

    /// Ours that are there when asked for by id: lists that lack them may be late. `None` where it
    /// cannot be told; where nothing can be asked for by id, the lists have to do.
    async fn there_by_id(&self) -> Option<BTreeSet<InstanceId>> {
        let mut there = BTreeSet::new();
        let asked: BTreeSet<InstanceId> =
            self.destroyed.keys().chain(self.known).copied().collect();
        for id in asked {
            match self.marketplace.instance(id).await {
                Ok(None) | Err(ReadError::Unsupported(_)) => {}
                Ok(Some(_)) => {
                    there.insert(id);
                }
                Err(error) => {
                    self.output.note(&format!(
                        "cannot tell whether instance {id} is gone: {error}"
                    ));
                    return None;
                }
            }
        }
        if !there.is_empty() {
            let ids: Vec<String> = there.iter().map(ToString::to_string).collect();
            self.output.note(&format!(
                "not listed, and there all the same: {}",
                ids.join(", ")
            ));
        }
        Some(there)
    }

    /// Sends a destroy for each that has none, or an old one. Whether any was sent.
    async fn destroy(&mut self, due: Vec<(InstanceId, String)>) -> bool {
        let now = self.clock.monotonic();
        let recent = |at: &Mono| now.since(*at) < DESTROY_AGAIN;
        let due: Vec<(InstanceId, String)> = due
            .into_iter()
            .filter(|(id, _)| !self.sent.get(id).is_some_and(recent))
            .collect();
        let in_bulk = self.destroy_in_bulk(&due).await;
        let sent = !due.is_empty();
        for (id, label) in due {
            let said = if in_bulk {
                "destroyed".to_owned()
            } else {
                told(self.marketplace.destroy(id).await)
            };
            self.output
                .note(&format!("instance {id} ({label}): {said}"));
            let known = self.destroyed.entry(id).or_default();
            if known.is_empty() {
                *known = label;
            }
            self.sent.insert(id, self.clock.monotonic());
        }
        sent
    }

    /// One request for all, where there are several and the marketplace can: single destroys are
    /// seconds apart. Whether it did; else each is destroyed by itself.
    async fn destroy_in_bulk(&self, due: &[(InstanceId, String)]) -> bool {
        // What it was said to have done already and did not is better asked for singly.
        let again = due.iter().any(|(id, _)| self.sent.contains_key(id));
        if due.len() < 2 || again {
            return false;
        }
        let ids: Vec<InstanceId> = due.iter().map(|&(id, _)| id).collect();
        match self.marketplace.destroy_many(&ids).await {
            Outcome::Done(()) => true,
            Outcome::Refused {
                why: RefusedWhy::Unsupported,
                ..
            } => false,
            outcome => {
                self.output
                    .note(&format!("all at once: {}; now one by one", told(outcome)));
                false
            }
        }
    }
}

/// What came of a destroy.
fn told(outcome: Outcome<()>) -> String {
    match outcome {
        Outcome::Done(()) => "destroyed".to_owned(),
        Outcome::Refused {
            why: RefusedWhy::NoSuchInstance,
            ..
        } => "said to be gone".to_owned(),
        Outcome::Refused { message, .. } => format!("refused: {message}"),
        Outcome::Unknown(why) => format!("unknown: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimClock;
    use crate::market::faults::Faults;
    use crate::market::transport::InProcess;
    use crate::market::{Market, MarketOptions, MarketServer, WireOptions};
    use crate::marketplace::lowcode::{LowCode, LowCodeOptions};
    use crate::marketplace::vast::{Vast, VastOptions};
    use crate::ports::{CreateRequest, Method, Reply, Request, Transport, TransportError};
    use crate::types::ids::{IntentId, ReplicaId};
    use crate::types::offer::{Market as Prices, OfferQuery};
    use async_trait::async_trait;
    use secrecy::SecretString;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    struct Town {
        clock: Arc<SimClock>,
        client: LowCode,
    }

    fn town() -> Town {
        let options = MarketOptions {
            machines: Some(60),
            intensity: 0.0,
            failures: 0.0,
            ..MarketOptions::default()
        };
        let clock = Arc::new(SimClock::new(options.start));
        let shared: Arc<dyn Clock> = clock.clone();
        let server = MarketServer::new(
            Market::generated(options),
            WireOptions::default(),
            Faults::none(),
            Arc::clone(&shared),
        );
        let transport = Arc::new(InProcess::new(Arc::new(server), Duration::from_secs(20)));
        let token = LowCodeOptions::new(SecretString::from("at_kill".to_owned()));
        Town {
            client: LowCode::new(transport, shared, token, &BTreeMap::new()),
            clock,
        }
    }

    impl Town {
        /// Rents the nth cheapest offer under a label.
        async fn rent(&self, nth: usize, label: &str) -> InstanceId {
            let query = OfferQuery {
                market: Prices::OnDemand,
                gpu_name: None,
                machine: None,
                disk_gb: 10,
                open: false,
                bounds: crate::types::offer::Bounds::default(),
            };
            let page = self.client.offers(&query).await.unwrap();
            let request = CreateRequest {
                offer: page.offers[nth].id,
                bid: None,
                label: label.into(),
                disk_gb: 10,
                image: Some("image".into()),
                template: None,
                run_type: "args",
                onstart: None,
                args: Vec::new(),
                env: Vec::new(),
                image_login: None,
            };
            match self.client.create(&request).await {
                Outcome::Done(id) => id,
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn ours_are_destroyed_and_proven_gone_and_others_are_left_alone() {
        let town = town();
        let installation = Installation::from_seed(7);
        let label = Label {
            installation: installation.clone(),
            replica: ReplicaId {
                job: "train".parse().unwrap(),
                index: 0,
            },
            intent: IntentId(1),
        };
        let ours_id = town.rent(0, &label.to_string()).await;
        // Of our prefix, though no label of ours by form.
        let odd_id = town.rent(5, &format!("hg-{installation}-?")).await;
        let theirs = town.rent(10, "hg-00000000-train-r0-1").await;
        let begun = town.clock.now();
        let mut killer = Killer {
            marketplace: &town.client,
            clock: &*town.clock,
            output: Output::new(false),
            installation: &installation,
            known: &BTreeSet::new(),
            destroyed: BTreeMap::new(),
            sent: BTreeMap::new(),
        };
        let left = killer.until_gone(Duration::from_mins(15)).await;
        assert_eq!(left, Some(BTreeSet::new()));
        let destroyed: Vec<InstanceId> = killer.destroyed.keys().copied().collect();
        assert_eq!(destroyed, [ours_id.min(odd_id), ours_id.max(odd_id)]);
        assert!(town.clock.now().since(begun) >= LATE_CREATE + APART);
        let listing = town.client.instances().await.unwrap();
        let left: Vec<InstanceId> = listing.rows.iter().map(|row| row.id).collect();
        assert_eq!(left, [theirs]);
    }

    #[tokio::test]
    async fn what_is_not_proven_gone_in_time_is_not_called_gone() {
        let town = town();
        let installation = Installation::from_seed(7);
        let mut killer = Killer {
            marketplace: &town.client,
            clock: &*town.clock,
            output: Output::new(false),
            installation: &installation,
            known: &BTreeSet::new(),
            destroyed: BTreeMap::new(),
            sent: BTreeMap::new(),
        };
        // Nothing is listed, but a rental on its way could still show.
        assert_eq!(killer.until_gone(Duration::from_mins(1)).await, None);
    }

    #[tokio::test]
    async fn another_accounts_token_is_refused() {
        let town = town();
        let mut state = State::new(Installation::from_seed(7));
        state.account = Some(crate::types::ids::AccountId(1));
        let failure = account(&town.client, Some(&state)).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Mendable);
        assert!(failure.to_string().contains("nothing was destroyed"));
    }

    /// A marketplace of two instances of ours. It lists them once, whatever becomes of them,
    /// destroys in bulk as its answer says, and keeps what it should have destroyed until it is
    /// asked singly.
    struct Two {
        bulk: (u16, &'static str),
        row: String,
        listed: AtomicBool,
        kept: Mutex<BTreeSet<String>>,
        deletes: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Transport for Two {
        async fn send(&self, request: Request) -> Result<Reply, TransportError> {
            let asked = format!("{request:?}");
            let id = request.path.strip_prefix("/api/v0/instances/");
            let id = id.map(|rest| rest.trim_end_matches('/').to_owned());
            let row = |id: &str| self.row.replace("ID", id);
            let done = r#"{"success":true}"#.to_owned();
            let (status, body) = match (request.method, id) {
                (Method::Get, None) if !self.listed.swap(true, Ordering::Relaxed) => {
                    let rows = format!("{},{}", row("1"), row("2"));
                    (
                        200,
                        format!(r#"{{"total_instances":2,"instances":[{rows}]}}"#),
                    )
                }
                (Method::Get, None) => (200, r#"{"total_instances":0,"instances":[]}"#.to_owned()),
                (Method::Get, Some(id)) => {
                    let there = self.kept.lock().unwrap().contains(&id);
                    let row = if there { row(&id) } else { "null".to_owned() };
                    (200, format!(r#"{{"instances":{row}}}"#))
                }
                (_, Some(id)) => {
                    self.deletes.lock().unwrap().push(asked);
                    self.kept.lock().unwrap().remove(&id);
                    if id.is_empty() {
                        (self.bulk.0, self.bulk.1.to_owned())
                    } else {
                        (200, done)
                    }
                }
                _ => panic!("{asked}"),
            };
            Ok(Reply {
                status,
                headers: Vec::new(),
                body: body.into(),
            })
        }
    }

    /// Kills two, one of which may survive its first destroy. What was deleted, in order.
    async fn kill_two(bulk: (u16, &'static str), survives: Option<&str>) -> Vec<String> {
        let clock = Arc::new(crate::marketplace::testing::SimClock::default());
        let installation = Installation::from_seed(7);
        let two = Arc::new(Two {
            bulk,
            row: format!(r#"{{"id":ID,"label":"hg-{installation}-x"}}"#),
            listed: AtomicBool::new(false),
            kept: Mutex::new(survives.into_iter().map(str::to_owned).collect()),
            deletes: Mutex::default(),
        });
        let options = VastOptions::new(SecretString::from("vk_kill"));
        let client = Vast::new(two.clone(), clock.clone(), options, &BTreeMap::new());
        let mut killer = Killer {
            marketplace: &client,
            clock: &*clock,
            output: Output::new(false),
            installation: &installation,
            known: &BTreeSet::new(),
            destroyed: BTreeMap::new(),
            sent: BTreeMap::new(),
        };
        let left = killer.until_gone(Duration::from_mins(15)).await;
        assert_eq!(left, Some(BTreeSet::new()));
        assert_eq!(killer.destroyed.len(), 2);
        std::mem::take(&mut *two.deletes.lock().unwrap())
    }

    #[tokio::test]
    async fn several_go_at_once_where_that_is_possible_and_one_by_one_where_not() {
        let at_once = kill_two((200, r#"{"success":true}"#), None).await;
        assert_eq!(at_once, ["DELETE /api/v0/instances/"]);
        for bulk in [
            (404, r#"{"success":false,"error":"no_such_instance"}"#),
            (405, "no"),
            (500, "no"),
            (200, r#"{"success":false}"#),
            (403, "<html>Just a moment</html>"),
        ] {
            let singly = kill_two(bulk, None).await;
            assert_eq!(
                singly,
                [
                    "DELETE /api/v0/instances/",
                    "DELETE /api/v0/instances/1/",
                    "DELETE /api/v0/instances/2/"
                ]
            );
        }
    }

    #[tokio::test]
    async fn what_no_list_shows_and_is_there_all_the_same_is_destroyed_again() {
        let deletes = kill_two((200, r#"{"success":true}"#), Some("2")).await;
        assert_eq!(
            deletes,
            ["DELETE /api/v0/instances/", "DELETE /api/v0/instances/2/"]
        );
    }
}
