//! `haggle doctor`: is everything in order, and what would be right where it is not.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::check::{HEAR_ADVICE, SHARE_ADVICE, unheard, withheld, without_secrets};
use super::connect::transport;
use super::context::{Context, Patience, block_on, load_policies, missing_directory, open_reader};
use super::daemon;
use super::failure::{Done, Exit, Failure};
use super::output::Align;
use crate::config::{Config, ProviderKind};
use crate::marketplace::lowcode::{Asked, Description, describe};
use crate::marketplace::operation::{Operation, Wire};
use crate::ports::{Charge, Marketplace, ReadError};
use crate::store::{
    DaemonLock, LockError, installation_file, kill_file_present, read_installation,
};
use crate::types::instance::Account;
use crate::types::money::Money;
use crate::types::notification::Notification;
use crate::types::state::State;
use crate::types::time::Time;

/// Looks whether everything is in order.
#[derive(Args, Clone, Debug)]
pub(crate) struct DoctorArgs {
    /// Ask nothing of the marketplace.
    #[arg(long)]
    offline: bool,
    /// Reckon the ledger again from its lines, and nothing else.
    #[arg(long)]
    ledger: bool,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Health {
    Ok,
    Warn,
    /// The user can mend it.
    Fail,
    /// The world's fault.
    Unreachable,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    health: Health,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

#[derive(Debug, Serialize)]
struct DoctorDocument {
    healthy: bool,
    findings: Vec<Finding>,
}

/// Findings in the order in which they were made.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, what: &'static str, health: Health, found: impl Into<String>) {
        self.0.push(Finding {
            what,
            health,
            found: found.into(),
            advice: None,
        });
    }

    fn advise(
        &mut self,
        what: &'static str,
        health: Health,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(what, health, found);
        if let Some(last) = self.0.last_mut() {
            last.advice = Some(advice.into());
        }
    }
}

pub(crate) fn run(context: &Context, args: &DoctorArgs) -> Done {
    if args.ledger {
        return super::ledger::run(context);
    }
    let mut findings = Findings::default();
    if let Some(config) = configuration(context, &mut findings) {
        let state = database(&config, &mut findings);
        lock(&config, &mut findings);
        installation(&config, state.as_ref(), &mut findings);
        policies(context, &config, &mut findings);
        if !args.offline {
            marketplace(context, &config, state.as_ref(), &mut findings);
        }
    }
    show(context, findings.0)
}

fn show(context: &Context, findings: Vec<Finding>) -> Done {
    let worst = findings.iter().map(|finding| finding.health).max();
    let exit = match worst {
        None | Some(Health::Ok | Health::Warn) => Exit::Success,
        Some(Health::Fail) => Exit::Mendable,
        Some(Health::Unreachable) => Exit::World,
    };
    let document = DoctorDocument {
        healthy: exit == Exit::Success,
        findings,
    };
    context.output.show(&document, || {
        let columns = [
            ("health", Align::Left),
            ("what", Align::Left),
            ("found", Align::Left),
        ];
        let rows = document
            .findings
            .iter()
            .map(|finding| {
                let health = match finding.health {
                    Health::Ok => "ok",
                    Health::Warn => "warn",
                    Health::Fail | Health::Unreachable => "fail",
                };
                vec![health.into(), finding.what.into(), finding.found.clone()]
            })
            .collect();
        let mut text = context.output.table(&columns, rows);
        for finding in &document.findings {
            if let Some(advice) = &finding.advice {
                text.push_str(&format!("\nhint: {}: {advice}", finding.what));
            }
        }
        text
    })?;
    Ok(exit)
}

/// One line of a failure: what, and the causes after colons.
fn line(failure: &Failure) -> String {
    let text = failure.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let before_hints = text.split("\nhint: ").next().unwrap_or(text);
    before_hints.replace("\n  cause: ", ": ").replace('\n', " ")
}

fn configuration(context: &Context, findings: &mut Findings) -> Option<Config> {
    match context.config() {
        Ok(config) => {
            findings.add("configuration", Health::Ok, mode(&config));
            Some(config)
        }
        Err(failure) => {
            findings.advise(
                "configuration",
                Health::Fail,
                line(&failure),
                "correct the file; unknown keys are refused",
            );
            None
        }
    }
}

/// Whether plans are executed: by the daemon, which may have been started with another word, or by one
/// that would be started now.
fn mode(config: &Config) -> &'static str {
    let runs = config
        .database
        .exists()
        .then(|| daemon::look(&config.database));
    match (runs.and_then(|seen| seen.is_live()), config.live) {
        (Some(true) | None, true) => "live: plans are executed",
        (Some(true), false) => {
            "the daemon was started live: plans are executed; another start without --live would be a \
             dry run"
        }
        (Some(false), true) => {
            "the daemon makes a dry run, although this configuration is live: start it anew"
        }
        (Some(false) | None, false) => "dry run: plans are shown, not executed",
    }
}

fn database(config: &Config, findings: &mut Findings) -> Option<State> {
    let path = config.database.display();
    if let Some(directory) = missing_directory(&config.database) {
        findings.advise(
            "database",
            Health::Fail,
            format!(
                "is to be {path}, and there is no directory {}",
                directory.display()
            ),
            format!("make it: `mkdir -p {}`", directory.display()),
        );
        return None;
    }
    if !config.database.exists() {
        findings.advise(
            "database",
            Health::Warn,
            format!("none at {path} yet"),
            "`haggle run` makes it",
        );
        return None;
    }
    let writable = std::fs::OpenOptions::new()
        .append(true)
        .open(&config.database);
    if let Err(error) = writable {
        findings.advise(
            "database",
            Health::Fail,
            format!("{path} cannot be written: {error}"),
            "give this user the right to write to the file and its directory",
        );
    }
    let state = open_reader(config).and_then(|reader| Ok(reader.state()?));
    match state {
        Ok(state) => {
            let size = size(&config.database);
            findings.add(
                "database",
                Health::Ok,
                format!(
                    "{path}, {:.1} MB, {} ticks, {} instances, {} requests not settled",
                    size as f64 / 1e6,
                    state.ticks,
                    state.held.len(),
                    state.intents.len()
                ),
            );
            Some(state)
        }
        Err(failure) => {
            let health = match failure.exit() {
                Exit::World => Health::Unreachable,
                _ => Health::Fail,
            };
            findings.advise(
                "database",
                health,
                line(&failure),
                "restore a copy, or name another with --database",
            );
            None
        }
    }
}

/// Bytes of the database with what was not yet moved into it from its log.
fn size(database: &Path) -> u64 {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
    bytes(database) + bytes(Path::new(&log))
}

fn lock(config: &Config, findings: &mut Findings) {
    if !config.database.exists() {
        return;
    }
    match DaemonLock::acquire(&config.database) {
        Ok(_) => findings.advise(
            "daemon",
            Health::Warn,
            "none runs on this database",
            "start it with `haggle run`",
        ),
        Err(LockError::Held { pid, .. }) => findings.add(
            "daemon",
            Health::Ok,
            pid.map_or_else(|| "runs".into(), |pid| format!("runs, process {pid}")),
        ),
        Err(error) => findings.advise(
            "daemon",
            Health::Fail,
            error.to_string(),
            "give this user the right to write to the database's directory",
        ),
    }
}

fn installation(config: &Config, state: Option<&State>, findings: &mut Findings) {
    let file = installation_file(&config.database);
    match (state, read_installation(&config.database)) {
        (Some(state), Ok(Some(beside))) if beside != state.installation => findings.advise(
            "installation",
            Health::Fail,
            format!(
                "{} in the database, {beside} in {}",
                state.installation,
                file.display()
            ),
            "put back the database and the file that belong together",
        ),
        (Some(state), Ok(Some(_))) => {
            findings.add("installation", Health::Ok, state.installation.to_string());
        }
        (Some(state), _) => findings.advise(
            "installation",
            Health::Warn,
            format!(
                "{}, but {} is not there to remember it",
                state.installation,
                file.display()
            ),
            "note it down: `haggle kill --installation` needs it if the database is lost",
        ),
        (None, Ok(Some(beside))) => findings.advise(
            "installation",
            Health::Warn,
            format!("{beside}, without its database"),
            "`haggle run` makes a new database for it",
        ),
        (None, _) => {}
    }
    let killed = state.is_some_and(|state| state.killed) || kill_file_present(&config.database);
    if killed {
        findings.advise(
            "spending",
            Health::Warn,
            "forbidden by `haggle kill`",
            "`haggle resume --all` allows it again",
        );
    }
}

fn policies(context: &Context, config: &Config, findings: &mut Findings) {
    match load_policies(config) {
        Err(failure) => findings.advise(
            "policies",
            Health::Fail,
            line(&failure),
            "name the directory with --policies, or write a first policy with `haggle init`",
        ),
        Ok(loaded) if !loaded.errors.is_empty() => findings.advise(
            "policies",
            Health::Fail,
            format!(
                "{} valid, {} errors",
                loaded.jobs.len(),
                loaded.errors.len()
            ),
            "`haggle check` shows each with its place",
        ),
        Ok(loaded) if loaded.jobs.is_empty() => findings.advise(
            "policies",
            Health::Warn,
            format!("none in {}", config.policies.display()),
            "write a first one with `haggle init`",
        ),
        Ok(loaded) => {
            findings.add(
                "policies",
                Health::Ok,
                format!("{} valid", loaded.jobs.len()),
            );
            if let Some(waiting) = withheld(config, &loaded.jobs) {
                findings.advise("secrets", Health::Warn, waiting, SHARE_ADVICE);
            }
            if let Some(waiting) = unheard(config, &loaded.jobs) {
                findings.advise("runner", Health::Warn, waiting, HEAR_ADVICE);
            }
            for unread in without_secrets(&context.redactor, &loaded.jobs) {
                findings.add("secrets", Health::Warn, unread);
            }
        }
    }
}

/// What a gateway says that it can do.
fn capabilities(config: &Config, findings: &mut Findings) {
    let asked = transport(&config.provider)
        .and_then(|transport| block_on(async { Ok(describe(&*transport).await) }));
    match asked {
        Ok(Asked::Described(description)) => described(config, &description, findings),
        Ok(Asked::Undescribed) => findings.add(
            "gateway",
            Health::Ok,
            "does not describe itself; the usual paths are used",
        ),
        Ok(Asked::Unanswered(_)) | Err(_) => findings.advise(
            "gateway",
            Health::Warn,
            "did not answer when asked what it can do",
            "the usual paths are used; `haggle api --list` shows them",
        ),
    }
}

fn described(config: &Config, description: &Description, findings: &mut Findings) {
    let lacking: Vec<Operation> = description
        .missing()
        .filter(|operation| !config.provider.paths.contains_key(operation.name()))
        .collect();
    let all = Operation::of(Wire::Gateway).count();
    if lacking.is_empty() {
        findings.add(
            "gateway",
            Health::Ok,
            format!("describes itself, and lacks none of the {all} operations"),
        );
        return;
    }
    let names: Vec<&str> = lacking.iter().map(|operation| operation.name()).collect();
    let bids = [Operation::CreateBid, Operation::UpdateBid];
    let cannot_bid = bids.iter().any(|operation| lacking.contains(operation));
    let bid = if cannot_bid {
        "this gateway cannot bid; "
    } else {
        ""
    };
    findings.advise(
        "gateway",
        Health::Warn,
        format!(
            "{bid}its description lacks {} of {all} operations: {}",
            lacking.len(),
            names.join(", ")
        ),
        "where it has one all the same, say where in provider.paths",
    );
}

fn marketplace(context: &Context, config: &Config, state: Option<&State>, findings: &mut Findings) {
    let remembered = state.map(|state| state.wire.clone()).unwrap_or_default();
    let marketplace = match context.connect(config, &remembered, Patience::GiveUp) {
        Ok(marketplace) => marketplace,
        Err(failure) => {
            findings.advise(
                "token",
                Health::Fail,
                line(&failure),
                "put the token into HAGGLE_TOKEN, or say in haggle.toml in which file it is",
            );
            return;
        }
    };
    findings.add("token", Health::Ok, "readable; its value is never shown");
    let kind = config.provider.kind;
    let now = context.now();
    let asked = block_on(async {
        let native = match kind {
            ProviderKind::LowCodeApi => None,
            ProviderKind::Vast => Some(Native::ask(&*marketplace, now).await),
        };
        Ok((
            marketplace.account().await,
            marketplace.instances().await,
            native,
        ))
    });
    let (account, listing, native) = match asked {
        Ok(answers) => answers,
        Err(failure) => {
            findings.add("account", Health::Unreachable, line(&failure));
            return;
        }
    };
    match account {
        Ok(account) => known_account(config, state, account, findings),
        Err(error) => unread("account", &error, kind, findings),
    }
    match listing {
        Ok(listing) if listing.complete => findings.add(
            "instances",
            Health::Ok,
            format!("{} on the account", listing.rows.len()),
        ),
        Ok(listing) => findings.advise(
            "instances",
            Health::Warn,
            format!("{} listed, incompletely", listing.rows.len()),
            "while a listing is incomplete nothing is taken for gone",
        ),
        Err(error) => unread("instances", &error, kind, findings),
    }
    if let Some(native) = native {
        native.tell(findings);
    }
    wire(&*marketplace, &remembered, findings);
    if kind == ProviderKind::LowCodeApi {
        capabilities(config, findings);
    }
}

fn unread(what: &'static str, error: &ReadError, kind: ProviderKind, findings: &mut Findings) {
    let (health, advice) = match (error, kind) {
        (ReadError::Unauthorized { .. }, ProviderKind::LowCodeApi) => (
            Health::Fail,
            "the token is not accepted: make a new one at the gateway",
        ),
        (ReadError::Unauthorized { .. }, ProviderKind::Vast) => (
            Health::Fail,
            "the key is not accepted, or lacks the right to read this: on Vast's account page make \
             one with the rights user_read, instance_read, instance_write, billing_read and misc",
        ),
        _ => (
            Health::Unreachable,
            "check the network and `provider.base_url`",
        ),
    };
    findings.advise(what, health, error.to_string(), advice);
}

/// What only Vast's own API answers. Rights to change things cannot be seen without changing any.
struct Native {
    bill: Result<Vec<Charge>, ReadError>,
    inbox: Result<Vec<Notification>, ReadError>,
}

impl Native {
    async fn ask(marketplace: &dyn Marketplace, now: Time) -> Self {
        /// A span without many charges.
        const SPAN_MS: i64 = 3_600_000;
        Self {
            bill: marketplace.charges(Time(now.0 - SPAN_MS), now).await,
            inbox: marketplace.notifications().await,
        }
    }

    fn tell(&self, findings: &mut Findings) {
        match &self.bill {
            Ok(_) => findings.add("bill", Health::Ok, "can be read"),
            Err(error) => findings.advise(
                "bill",
                Health::Warn,
                error.to_string(),
                "without it what was spent is reckoned and never compared with what was charged: \
                 the key needs the right billing_read",
            ),
        }
        match &self.inbox {
            Ok(_) => findings.add("notifications", Health::Ok, "the inbox can be read"),
            Err(error) => findings.add(
                "notifications",
                Health::Ok,
                format!("not used; losses are seen by polling ({error})"),
            ),
        }
    }
}

fn known_account(
    config: &Config,
    state: Option<&State>,
    account: Account,
    findings: &mut Findings,
) {
    match state.and_then(|state| state.account) {
        Some(pinned) if pinned != account.id => findings.advise(
            "account",
            Health::Fail,
            format!(
                "the token is of account {}, the database is bound to {pinned}",
                account.id
            ),
            "use that account's token, or another database",
        ),
        Some(_) => findings.add("account", Health::Ok, format!("{}, pinned", account.id)),
        None => findings.add(
            "account",
            Health::Ok,
            format!("{}, pinned at the first run", account.id),
        ),
    }
    let reserve = config.limits.credit_reserve;
    match account.credit {
        None => findings.advise(
            "credit",
            Health::Warn,
            "unknown: the account's answer does not say",
            "nothing is spent while it is unknown",
        ),
        Some(credit) if credit <= reserve => findings.advise(
            "credit",
            Health::Fail,
            format!("{credit:.2}, not over the reserve of {reserve:.2}"),
            "top the account up, or lower limits.credit_reserve",
        ),
        Some(credit) => {
            let free: Money = credit - reserve;
            findings.add(
                "credit",
                Health::Ok,
                format!("{credit:.2}, {free:.2} over the reserve of {reserve:.2}"),
            );
        }
    }
}

fn wire(
    marketplace: &dyn Marketplace,
    remembered: &BTreeMap<String, String>,
    findings: &mut Findings,
) {
    let mut known = remembered.clone();
    for (key, value) in marketplace.learnt() {
        match value {
            Some(value) => known.insert(key, value),
            None => known.remove(&key),
        };
    }
    findings.add("wire", Health::Ok, learnt(&known));
    if marketplace.can_bid() {
        findings.add("bids", Health::Ok, "can be placed, as far as is known");
    } else {
        findings.advise(
            "bids",
            Health::Warn,
            "cannot be placed through this marketplace",
            "only on-demand rentals are made; jobs that take bids only wait",
        );
    }
}

/// What was learnt of how the marketplace is spoken to, in words. What the daemon keeps beside it, such
/// as policies, is left out.
fn learnt(known: &BTreeMap<String, String>) -> String {
    let forms: Vec<String> = known
        .iter()
        .filter_map(|(key, form)| {
            let what = key.rsplit('.').next().unwrap_or(key);
            match (key.split('.').next(), form.as_str()) {
                (Some("vast"), "v0") => Some(format!("the {what} are listed whole, not by pages")),
                (_, "new" | "old") => Some(format!("the {what} have the {form} addresses")),
                _ => None,
            }
        })
        .collect();
    if forms.is_empty() {
        return "nothing out of the ordinary".to_owned();
    }
    forms.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learnt_of_the_wire_is_told_in_words_and_policies_are_not() {
        let known = |of: &[(&str, &str)]| {
            let of = of.iter();
            learnt(
                &of.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect(),
            )
        };
        let kept = ("policy.first", "{\"name\":\"first\"}");
        assert_eq!(
            known(&[kept, ("bill.unknown.7", "2026-12-01")]),
            "nothing out of the ordinary"
        );
        let told = known(&[kept, ("vast.instances", "v0")]);
        assert_eq!(told, "the instances are listed whole, not by pages");
    }
}
