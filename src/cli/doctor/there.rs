//! What the marketplace says: whose token it is, what is on the account, what can be done there.

use std::collections::BTreeMap;

use super::findings::{Findings, Health, line};
use crate::cli::connect::transport;
use crate::cli::context::{Context, Patience, block_on};
use crate::config::{Config, ProviderKind};
use crate::marketplace::http::loopback_origin;
use crate::marketplace::lowcode::{Asked, Description, describe};
use crate::marketplace::operation::{Operation, Wire};
use crate::policy::LoadedJob;
use crate::ports::{Charge, Marketplace, ReadError};
use crate::types::ids::Label;
use crate::types::instance::{Account, Listing};
use crate::types::money::Money;
use crate::types::notification::Notification;
use crate::types::state::State;
use crate::types::time::Time;

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

/// Whether the marketplace is where it usually is, and the token safe on its way.
pub(super) fn address(config: &Config, findings: &mut Findings) {
    let provider = &config.provider;
    if let Err(failure) = transport(provider) {
        return findings.failed(
            "address",
            &failure,
            "correct provider.base_url, or leave it away: the usual one is taken then",
        );
    }
    let here = loopback_origin(&provider.base_url).is_some();
    let usual = provider.kind.default_base_url();
    if here {
        findings.ok("address", "a marketplace on this machine");
    } else if host(&provider.base_url) == host(usual) {
        findings.ok("address", "the usual one");
    } else {
        findings.advise(
            "address",
            Health::Warn,
            format!(
                "provider.base_url is at {}, not at {}: whoever is there gets the token",
                host(&provider.base_url),
                host(usual)
            ),
            "leave provider.base_url away, unless you know who that is",
        );
    }
}

fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

pub(super) fn marketplace(
    context: &Context,
    config: &Config,
    state: Option<&State>,
    jobs: &[LoadedJob],
    findings: &mut Findings,
) {
    // Told with the address.
    if transport(&config.provider).is_err() {
        return;
    }
    super::account::clock(context, config, findings);
    let remembered = state.map(|state| state.wire.clone()).unwrap_or_default();
    let marketplace = match context.connect(config, &remembered, Patience::GiveUp) {
        Ok(marketplace) => marketplace,
        Err(failure) => {
            let advice =
                "put the token into HAGGLE_TOKEN, or say in haggle.toml in which file it is";
            return findings.failed("token", &failure, advice);
        }
    };
    findings.ok("token", "readable; its value is never shown");
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
        Ok(account) => {
            known_account(config, state, account, findings);
            if let Some(credit) = account.credit {
                let free = credit - config.limits.credit_reserve;
                super::account::runway(context, config, state, free, findings);
            }
        }
        Err(error) => unread("account", &error, kind, findings),
    }
    match listing {
        Ok(listing) => listed(state, &listing, findings),
        Err(error) => unread("instances", &error, kind, findings),
    }
    super::account::ssh_keys(context, config, jobs, findings);
    if let Some(native) = native {
        native.tell(findings);
    }
    wire(&*marketplace, &remembered, findings);
    if kind == ProviderKind::LowCodeApi {
        capabilities(config, findings);
    }
}

fn listed(state: Option<&State>, listing: &Listing, findings: &mut Findings) {
    let count = listing.rows.len();
    if listing.complete {
        findings.ok("instances", format!("{count} on the account"));
    } else {
        findings.advise(
            "instances",
            Health::Warn,
            format!("{count} listed, incompletely"),
            "while a listing is incomplete nothing is taken for gone",
        );
    }
    leftovers(state, listing, findings);
}

/// What carries a label of haggle and is looked after by no daemon of this database.
fn leftovers(state: Option<&State>, listing: &Listing, findings: &mut Findings) {
    let mut others: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut unknown = Vec::new();
    for row in &listing.rows {
        let Some(label) = &row.label else { continue };
        let ours = state.is_some_and(|state| Label::has_prefix(label, &state.installation));
        if ours {
            let known = state.is_some_and(|state| {
                let made = Label::parse(label).map(|label| label.intent);
                state.held.contains_key(&row.id)
                    || made.is_some_and(|made| state.intents.contains_key(&made))
            });
            if !known {
                unknown.push(row.id.to_string());
            }
        } else if let Some(label) = Label::parse(label) {
            let of = others.entry(label.installation.to_string()).or_default();
            of.push(row.id.to_string());
        }
    }
    if !unknown.is_empty() {
        findings.advise(
            "leftovers",
            Health::Warn,
            format!(
                "in no record, with the label of this installation: {}",
                unknown.join(", ")
            ),
            "the next tick takes them over, or destroys them where nothing wants them",
        );
    }
    for (installation, ids) in others {
        findings.advise(
            "leftovers",
            Health::Warn,
            format!("of another haggle, {installation}: {}", ids.join(", ")),
            format!(
                "where its daemon is gone for good, `haggle kill --installation {installation}` destroys them"
            ),
        );
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
