//! What of the account is of use to a person alone, and is asked for by hand: whether it pays in by itself,
//! whether it has a key for SSH; and how far this machine's clock is off.

use std::time::Duration;

use chrono::DateTime;
use serde_json::Value;

use super::findings::{Findings, Health};
use crate::cli::connect::{token, transport};
use crate::cli::context::{Context, Patience, block_on};
use crate::config::{Config, ProviderKind};
use crate::engine::runway::lasts;
use crate::marketplace::by_hand::{self, ByHand};
use crate::marketplace::operation::{Given, Operation, Wire, prepare};
use crate::policy::LoadedJob;
use crate::ports::{Method, Request};
use crate::types::job::RunType;
use crate::types::money::{Money, Rate};
use crate::types::state::State;
use crate::types::time::{Time, human};

/// Clocks differ by some seconds; from the first on something is wrong, from the second on what is signed
/// is refused before long.
const CLOCK_WARN_MS: i64 = 30_000;
const CLOCK_FAIL_MS: i64 = 5 * 60_000;

/// A credit that lasts for less than a day runs out in somebody's sleep.
const RUNWAY_MIN: Duration = Duration::from_hours(24);

/// How far this machine's clock is off by what the marketplace's answers are dated. Nothing is said where
/// nothing is known: that it cannot be reached is told with the account.
pub(super) fn clock(context: &Context, config: &Config, findings: &mut Findings) {
    let Ok(transport) = transport(&config.provider) else {
        return;
    };
    // Without the token: any answer is dated, one that refuses it too.
    let request = Request {
        method: Method::Get,
        path: "/".to_owned(),
        query: Vec::new(),
        bearer: None,
        body: None,
    };
    let before = context.now();
    let asked = block_on(async { Ok(transport.send(request).await) });
    let after = context.now();
    let Ok(Ok(reply)) = asked else {
        return;
    };
    let date = reply.header("date").map(DateTime::parse_from_rfc2822);
    if let Some(Ok(date)) = date {
        judge_clock(Time(date.timestamp_millis()), (before, after), findings);
    }
}

/// The answer was dated somewhere between the two moments, and to the second.
fn judge_clock(dated: Time, (before, after): (Time, Time), findings: &mut Findings) {
    let behind = dated.0 - after.0;
    let ahead = before.0 - (dated.0 + 999);
    let (off, word) = if behind > 0 {
        (behind, "behind")
    } else {
        (ahead.max(0), "ahead of")
    };
    let health = if off >= CLOCK_FAIL_MS {
        Health::Fail
    } else if off >= CLOCK_WARN_MS {
        Health::Warn
    } else {
        return findings.ok("clock", "agrees with the marketplace's");
    };
    let off = human(Duration::from_millis(off.unsigned_abs()));
    findings.advise(
        "clock",
        health,
        format!("this machine's is {off} {word} the marketplace's"),
        "let it follow a time server, such as by systemd-timesyncd: days, leases and signatures hang on it",
    );
}

/// For how long the credit lasts at what is held, and whether it is filled up by itself.
pub(super) fn runway(
    context: &Context,
    config: &Config,
    state: Option<&State>,
    free: Money,
    findings: &mut Findings,
) {
    let held = state.into_iter().flat_map(|state| state.held.values());
    let burn = held.fold(Rate::ZERO, |sum, held| {
        sum.saturating_add(held.worst_rate())
    });
    // Where nothing is held nothing runs out.
    if burn.0 <= 0 {
        return;
    }
    let Some(lasts) = lasts(i128::from(free.0.max(0)), i128::from(burn.0)) else {
        return;
    };
    let pays_in = (lasts < RUNWAY_MIN).then(|| user(context, config).as_ref().and_then(pays_in));
    judge_runway(lasts, burn, pays_in.flatten(), findings);
}

fn judge_runway(lasts: Duration, burn: Rate, pays_in: Option<bool>, findings: &mut Findings) {
    let found = format!(
        "the credit lasts for {} at the {burn:.4}/h that is held at worst",
        human(lasts)
    );
    let more = match pays_in {
        _ if lasts >= RUNWAY_MIN => "",
        Some(true) => ", and is filled up by autobilling",
        Some(false) => ", and autobilling is off",
        None => ", and it is not known whether autobilling is on",
    };
    if lasts >= RUNWAY_MIN || pays_in == Some(true) {
        return findings.ok("runway", found + more);
    }
    findings.advise(
        "runway",
        Health::Warn,
        found + more,
        "top the account up, or turn autobilling on, on the marketplace's billing page: without credit it \
         stops everything, and keeps disks for some days only",
    );
}

/// Whether the account pays in by itself: it is turned on, or, in the older form, has a threshold; and a card
/// is there. `None`: it is not said.
fn pays_in(user: &Value) -> Option<bool> {
    let (turned_on, threshold) = (
        user.get("balance_threshold_enabled"),
        user.get("autobill_threshold"),
    );
    turned_on.or(threshold)?;
    let wants = turned_on.and_then(Value::as_bool) == Some(true)
        || threshold
            .and_then(Value::as_f64)
            .is_some_and(|dollars| dollars > 0.0);
    let card = user.get("has_billing").and_then(Value::as_bool);
    Some(wants && card != Some(false))
}

/// Whether jobs with an SSH server could be logged in to.
pub(super) fn ssh_keys(
    context: &Context,
    config: &Config,
    jobs: &[LoadedJob],
    findings: &mut Findings,
) {
    let with_ssh: Vec<&str> = jobs
        .iter()
        .filter(|loaded| loaded.job.run.run_type == RunType::Ssh)
        .map(|loaded| loaded.job.name.as_str())
        .collect();
    if with_ssh.is_empty() {
        return;
    }
    let keys = asked(context, config, Operation::SshKeys)
        .as_ref()
        .and_then(keys);
    match keys {
        // A gateway may not have the operation; then nothing is known.
        None => {}
        Some(0) => findings.advise(
            "ssh key",
            Health::Warn,
            format!(
                "the account has none: nobody can log in to the instances of {}",
                with_ssh.join(", ")
            ),
            "`haggle api create_ssh_key -p ssh_key=\"$(cat ~/.ssh/id_ed25519.pub)\"`, before they are rented",
        ),
        Some(count) => findings.ok("ssh key", format!("{count} on the account")),
    }
}

/// How many keys an answer lists.
fn keys(answer: &Value) -> Option<usize> {
    let rows = answer.get("ssh_keys").or_else(|| answer.get("keys"));
    rows.unwrap_or(answer).as_array().map(Vec::len)
}

fn user(context: &Context, config: &Config) -> Option<Value> {
    asked(context, config, Operation::User)
}

/// An operation that only reads; `None`: it was not answered.
fn asked(context: &Context, config: &Config, operation: Operation) -> Option<Value> {
    let wire = match config.provider.kind {
        ProviderKind::LowCodeApi => Wire::Gateway,
        ProviderKind::Vast => Wire::Native,
    };
    let prepared = prepare(operation, wire, Given::default(), &[]).ok()?;
    let outcome = match wire {
        Wire::Gateway => {
            let none = std::collections::BTreeMap::new();
            let gateway = context
                .connect_gateway(config, &none, Patience::GiveUp)
                .ok()?;
            block_on(async { Ok(gateway.by_hand(operation, &prepared).await) })
        }
        Wire::Native => {
            let (token, transport) = (
                token(&config.provider).ok()?,
                transport(&config.provider).ok()?,
            );
            let (redactor, now) = (&context.redactor, context.now());
            block_on(async {
                Ok(by_hand::native(&*transport, &token, redactor, operation, &prepared, now).await)
            })
        }
    };
    match outcome.ok()? {
        ByHand::Done(answer) => Some(answer),
        ByHand::Failed(_) | ByHand::Refused { .. } | ByHand::Unknown(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(look: impl FnOnce(&mut Findings)) -> (Health, String) {
        let mut findings = Findings::default();
        look(&mut findings);
        let finding = findings.0.pop().unwrap();
        (finding.health, finding.found)
    }

    #[test]
    fn a_clock_is_off_by_no_less_than_the_request_leaves_open() {
        let of = |dated, asked| found(|findings| judge_clock(Time(dated), asked, findings));
        let at = |before, after| (Time(before), Time(after));
        // A slow answer is no wrong clock.
        assert_eq!(of(100_000, at(100_500, 190_000)).0, Health::Ok);
        assert_eq!(of(100_000, at(40_000, 101_000)).0, Health::Ok);
        let behind = of(1_000_000, at(938_000, 940_000));
        assert_eq!(behind.0, Health::Warn);
        assert!(behind.1.contains("1m00s behind"), "{behind:?}");
        let ahead = of(1_000_000, at(4_600_999, 4_601_500));
        assert_eq!(ahead.0, Health::Fail);
        assert!(ahead.1.contains("1h00m ahead of"), "{ahead:?}");
    }

    #[test]
    fn a_short_runway_is_told_unless_the_account_pays_in_by_itself() {
        let burn: Rate = "2".parse().unwrap();
        let of = |hours, pays_in| {
            let lasts = Duration::from_hours(hours);
            found(|findings| judge_runway(lasts, burn, pays_in, findings))
        };
        assert_eq!(of(25, None).0, Health::Ok);
        assert_eq!(of(5, Some(true)).0, Health::Ok);
        let off = of(5, Some(false));
        assert_eq!(off.0, Health::Warn);
        assert!(off.1.contains("autobilling is off"), "{off:?}");
        assert!(of(5, None).1.contains("not known"));
    }

    #[test]
    fn autobilling_is_turned_on_and_has_a_card() {
        let of = |user| pays_in(&user);
        let turned = |on: bool, card: bool| {
            of(json!({"balance_threshold_enabled": on, "has_billing": card}))
        };
        assert_eq!(turned(true, true), Some(true));
        assert_eq!(turned(true, false), Some(false));
        assert_eq!(turned(false, true), Some(false));
        assert_eq!(
            of(json!({"autobill_threshold": 5.0, "has_billing": true})),
            Some(true)
        );
        assert_eq!(of(json!({"autobill_threshold": null})), Some(false));
        assert_eq!(of(json!({"credit": 1})), None);
    }

    #[test]
    fn keys_are_counted_in_either_form() {
        assert_eq!(keys(&json!([])), Some(0));
        assert_eq!(keys(&json!({"ssh_keys": [{"id": 1}]})), Some(1));
        assert_eq!(keys(&json!({"success": true})), None);
    }
}
