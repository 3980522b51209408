//! Limits that are not there, or that cannot both be meant.

use std::fmt;

use super::findings::{Findings, Health};
use crate::config::Config;
use crate::policy::LoadedJob;
use crate::types::limit::Bounds;

/// Looks at the limits of the configuration and of the jobs.
pub(super) fn look(config: &Config, jobs: &[LoadedJob], findings: &mut Findings) {
    let before = findings.0.len();
    absent(config, jobs, findings);
    let limits = &config.limits;
    let account = Bounds {
        total: None,
        per_day: limits.per_day,
        per_month: limits.per_month,
        per_hour: limits.per_hour,
        instances_max: Some(limits.instances_max),
        gpus_max: limits.gpus_max,
    };
    let mut odd = within("limits", account);
    for (scope, bounds) in &limits.groups {
        let name = format!("limits.{}", scope.to_string().replacen('/', ".", 1));
        odd.extend(within(&name, *bounds));
        odd.extend(over(&name, *bounds, "limits", account));
    }
    for loaded in jobs {
        let (name, bounds) = (format!("budget of {}", loaded.job.name), of_job(loaded));
        odd.extend(within(&name, bounds));
        odd.extend(over(&name, bounds, "limits", account));
    }
    for found in odd {
        let advice =
            "all limits bind at once, so the strictest wins: correct the one that is not meant";
        findings.advise("limits", Health::Warn, found, advice);
    }
    if findings.0.len() == before {
        findings.ok("limits", "none contradicts another");
    }
}

fn of_job(loaded: &LoadedJob) -> Bounds {
    let budget = loaded.job.budget;
    Bounds {
        total: budget.total,
        per_day: budget.per_day,
        per_month: budget.per_month,
        per_hour: budget.per_hour,
        instances_max: None,
        gpus_max: None,
    }
}

/// Jobs that may spend all the credit over the reserve.
fn absent(config: &Config, jobs: &[LoadedJob], findings: &mut Findings) {
    if config.limits.per_day.is_some() || config.limits.per_month.is_some() {
        return;
    }
    let is_bounded = |bounds: Bounds| {
        bounds.total.is_some() || bounds.per_day.is_some() || bounds.per_month.is_some()
    };
    let unbounded: Vec<&str> = jobs
        .iter()
        .filter(|loaded| {
            let payer = loaded.job.payer();
            let scopes = crate::types::ledger::Scope::of(&loaded.job.name, &payer);
            let groups = scopes.filter_map(|scope| config.limits.groups.get(&scope).copied());
            !groups.chain([of_job(loaded)]).any(is_bounded)
        })
        .map(|loaded| loaded.job.name.as_str())
        .collect();
    if !unbounded.is_empty() {
        findings.advise(
            "limits",
            Health::Warn,
            format!(
                "nothing but the credit bounds what is spent for {}",
                unbounded.join(", ")
            ),
            "set limits.per_day and limits.per_month, or [budget] in the policies",
        );
    }
}

/// What one set of limits has that cannot be reached, or lets nothing be rented.
fn within(name: &str, bounds: Bounds) -> Vec<String> {
    let Bounds {
        total,
        per_day,
        per_month,
        ..
    } = bounds;
    let mut odd: Vec<String> = [
        (("per_day", per_day), ("per_month", per_month)),
        (("per_day", per_day), ("total", total)),
        (("per_month", per_month), ("total", total)),
    ]
    .into_iter()
    .filter_map(|((key, one), (other_key, other))| {
        let (one, other) = (one?, other?);
        (one > other).then(|| {
            format!("{name}: {key} {one:.2} is over {other_key} {other:.2}, and never reached")
        })
    })
    .collect();
    let nothing = |key: &str| format!("{name}: {key} is 0, so nothing is ever rented");
    let zero = [
        ("total", total.is_some_and(|most| most.0 <= 0)),
        ("per_day", per_day.is_some_and(|most| most.0 <= 0)),
        ("per_month", per_month.is_some_and(|most| most.0 <= 0)),
        ("per_hour", bounds.per_hour.is_some_and(|most| most.0 <= 0)),
        ("instances_max", bounds.instances_max == Some(0)),
        ("gpus_max", bounds.gpus_max == Some(0)),
    ];
    odd.extend(
        zero.iter()
            .filter(|(_, is)| *is)
            .map(|(key, _)| nothing(key)),
    );
    odd
}

/// What of one set of limits is looser than the one that holds for all.
fn over(name: &str, bounds: Bounds, above: &str, all: Bounds) -> Vec<String> {
    fn looser<T: PartialOrd + Copy>(
        (name, key): (&str, &str),
        above: &str,
        (one, all): (Option<T>, Option<T>),
        shown: impl Fn(T) -> String,
    ) -> Option<String> {
        let (one, all) = (one?, all?);
        (one > all).then(|| {
            format!(
                "{name}: {key} {} is over that of {above}, {}, and never reached",
                shown(one),
                shown(all)
            )
        })
    }
    fn dollars(amount: impl fmt::Display) -> String {
        format!("{amount:.2}")
    }
    let day = (bounds.per_day, all.per_day);
    let month = (bounds.per_month, all.per_month);
    let hour = (bounds.per_hour, all.per_hour);
    let instances = (bounds.instances_max, all.instances_max);
    let gpus = (bounds.gpus_max, all.gpus_max);
    [
        looser((name, "per_day"), above, day, dollars),
        looser((name, "per_month"), above, month, dollars),
        looser((name, "per_hour"), above, hour, |rate| {
            format!("{rate:.2}/h")
        }),
        looser((name, "instances_max"), above, instances, |n| n.to_string()),
        looser((name, "gpus_max"), above, gpus, |n| n.to_string()),
    ]
    .into_iter()
    .flatten()
    .collect()
}
