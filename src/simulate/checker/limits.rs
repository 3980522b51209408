//! The limits: what is used of a scope by the market's own books, and how much of it may be. One row
//! of a table each, with arithmetic of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{Datelike, NaiveDate};

use super::versions::Versions;
use crate::types::ids::JobName;
use crate::types::job::Job;
use crate::types::ledger::Scope;
use crate::types::limit::Bounds;
use crate::types::money::{Money, Rate};
use crate::types::time::{Time, millis};
use crate::types::world::EngineConfig;

/// What a scope (a job, an owner, a tag, the account) uses, by the market's own books.
#[derive(Clone, Debug, Default)]
pub(super) struct Used {
    /// Billed in all.
    pub(super) total: Money,
    /// Billed by day, by the clock and in the zone that the daemon goes by.
    pub(super) days: BTreeMap<NaiveDate, Money>,
    /// The sum of what is billed by the hour now.
    rate: Rate,
    /// Instances that there are.
    instances: u32,
    /// GPUs that run, or may by themselves.
    gpus: u32,
}

impl Used {
    /// Billed on a day.
    pub(super) fn on(&self, day: NaiveDate) -> Money {
        self.days.get(&day).copied().unwrap_or_default()
    }

    /// Billed in the month of a day.
    pub(super) fn in_month_of(&self, day: NaiveDate) -> Money {
        let of_it = |other: &NaiveDate| (other.year(), other.month()) == (day.year(), day.month());
        let days = self.days.iter().filter(|(other, _)| of_it(other));
        days.map(|(_, amount)| *amount).sum()
    }
}

/// One limit.
struct Row {
    /// What it is called.
    name: &'static str,
    /// An amount of it, in words.
    show: fn(i64) -> String,
    /// What is used, and how much may be, in the limit's own unit.
    read: fn(&Used, &Bounds, NaiveDate) -> (i64, Option<i64>),
}

/// Every limit. Another one is another row.
const ROWS: &[Row] = &[
    Row {
        name: "total budget",
        show: dollars,
        read: |used, most, _| (used.total.0, most.total.map(|money| money.0)),
    },
    Row {
        name: "budget of the day",
        show: dollars,
        read: |used, most, day| (used.on(day).0, most.per_day.map(|money| money.0)),
    },
    Row {
        name: "budget of the month",
        show: dollars,
        read: |used, most, day| (used.in_month_of(day).0, most.per_month.map(|money| money.0)),
    },
    Row {
        name: "hourly budget",
        show: dollars,
        read: |used, most, _| (used.rate.0, most.per_hour.map(|rate| rate.0)),
    },
    Row {
        name: "number of instances",
        show: |count| count.to_string(),
        read: |used, most, _| (used.instances.into(), most.instances_max.map(i64::from)),
    },
    Row {
        name: "number of GPUs",
        show: |count| count.to_string(),
        read: |used, most, _| (used.gpus.into(), most.gpus_max.map(i64::from)),
    },
];

fn dollars(nanos: i64) -> String {
    Money(nanos).to_string()
}

/// The limits that are passed, by name, and by how much.
fn passed<'a>(
    used: &'a Used,
    most: &'a Bounds,
    day: NaiveDate,
) -> impl Iterator<Item = (&'static str, String)> + 'a {
    ROWS.iter().filter_map(move |row| {
        let (used, most) = (row.read)(used, most, day);
        let most = most.filter(|&most| used > most)?;
        let much = format!("{} of {}", (row.show)(used), (row.show)(most));
        Some((row.name, much))
    })
}

/// What the account is held to.
fn of_account(config: &EngineConfig) -> Bounds {
    Bounds {
        total: None,
        per_day: config.per_day,
        per_month: config.per_month,
        per_hour: config.per_hour,
        instances_max: Some(config.instances_max),
        gpus_max: config.gpus_max,
    }
}

/// The bill is compared with the books this often.
const RECONCILED_EVERY_MS: i64 = 60 * 60_000;

/// A bill that is over a total.
#[derive(Clone, Copy, Debug)]
struct Overrun {
    /// Since when the rows show it, in time in which a process lived.
    since: i64,
    /// What had been used when spending was to have ended, with all that no limit counts.
    ended: Option<Money>,
}

/// Keeps the accounts of every scope, and says which limits are passed.
#[derive(Debug)]
pub(super) struct Limits {
    config: EngineConfig,
    jobs: BTreeMap<JobName, Versions>,
    used: BTreeMap<Scope, Used>,
    /// What each job has used in all when last counted.
    bills: BTreeMap<JobName, Money>,
    /// Totals that the rows of the bill are over.
    overruns: BTreeMap<Scope, Overrun>,
    /// The most instances that there were at once.
    most_held: u32,
    /// For how long there was no process, in milliseconds, up to the last such span.
    asleep_ms: i64,
    /// The last such span, which may not be over.
    nap: (Time, Time),
    /// Limits that were passed, each told of once.
    over: BTreeSet<String>,
}

impl Limits {
    pub(super) fn new(config: EngineConfig) -> Self {
        Self {
            config,
            jobs: BTreeMap::new(),
            used: BTreeMap::new(),
            bills: BTreeMap::new(),
            overruns: BTreeMap::new(),
            most_held: 0,
            asleep_ms: 0,
            nap: (Time(0), Time(0)),
            over: BTreeSet::new(),
        }
    }

    /// From now on a job's policy is this.
    pub(super) fn policy(&mut self, job: &Arc<Job>, now: Time) {
        let lived = self.lived(now);
        self.jobs
            .entry(job.name.clone())
            .or_default()
            .push(lived, Arc::clone(job));
    }

    /// From now on no process lives for so long.
    pub(super) fn asleep(&mut self, now: Time, time: Duration) {
        self.asleep_ms += self.nap.1.ms_since(self.nap.0);
        self.nap = (now, now + time);
    }

    /// Time as far as a process lived in it.
    fn lived(&self, now: Time) -> i64 {
        let (from, to) = self.nap;
        let of_nap = now.min(to).ms_since(from).max(0);
        now.0 - self.asleep_ms - of_nap
    }

    /// What the reservations of `docs/guarantees.md` reach over, *H* there, and a poll before it until
    /// what was changed is read.
    fn takes_effect_in(&self) -> i64 {
        let config = &self.config;
        let requests = self.most_held + config.rents_per_tick_max + 1;
        millis(config.poll_every) * 3
            + millis(config.reaction)
            + millis(config.request_interval) * i64::from(requests)
            + millis(config.outage_allowance)
            + millis(config.settle_allowance)
    }

    /// What a job's policy was and is.
    pub(super) fn versions(&self, job: &JobName) -> Option<&Versions> {
        self.jobs.get(job)
    }

    /// Every scope in which a job's use counts.
    fn scopes(&self, job: &JobName) -> Vec<Scope> {
        let newest = self.jobs.get(job).and_then(Versions::newest);
        let payer = newest.map(|job| job.payer()).unwrap_or_default();
        Scope::of(job, &payer).collect()
    }

    /// Counts what is held anew.
    pub(super) fn begins(&mut self) {
        for used in self.used.values_mut() {
            (used.rate, used.instances, used.gpus) = (Rate::ZERO, 0, 0);
        }
    }

    /// An instance of a job: what it costs by the hour now, and its GPUs where they run, or may by
    /// themselves.
    pub(super) fn holds(&mut self, job: &JobName, rate: Rate, gpus: u32) {
        for scope in self.scopes(job) {
            let used = self.used.entry(scope).or_default();
            used.rate += rate;
            used.instances += 1;
            used.gpus += gpus;
        }
        self.most_held = self.most_held.max(self.account().instances);
    }

    fn account(&self) -> Used {
        self.used.get(&Scope::Account).cloned().unwrap_or_default()
    }

    /// What each job has used in all, on a day.
    pub(super) fn spent(&mut self, bills: BTreeMap<JobName, Money>, day: NaiveDate) {
        for (job, bill) in bills {
            let before = self.bills.insert(job.clone(), bill).unwrap_or_default();
            for scope in self.scopes(&job) {
                let used = self.used.entry(scope).or_default();
                used.total += bill - before;
                *used.days.entry(day).or_default() += bill - before;
            }
        }
    }

    /// Every scope that has bounds, with them.
    fn bounds(&self, day: NaiveDate) -> Vec<(Scope, Bounds)> {
        let jobs = self.jobs.iter();
        let jobs = jobs.map(|(name, versions)| (Scope::Job(name.clone()), versions.bounds(day)));
        let groups = self.config.groups.iter();
        let groups = groups.map(|(scope, bounds)| (scope.clone(), *bounds));
        let account = (Scope::Account, of_account(&self.config));
        jobs.chain(groups).chain([account]).collect()
    }

    /// The limits that are passed now, each told of once, however long it lasts.
    pub(super) fn passed(&mut self, now: Time, day: NaiveDate) -> Vec<String> {
        let (lived, takes) = (self.lived(now), self.takes_effect_in());
        for (name, versions) in &mut self.jobs {
            if let Some(used) = self.used.get(&Scope::Job(name.clone())) {
                versions.retire(lived - takes, used);
            }
        }
        let mut told = Vec::new();
        for (scope, most) in self.bounds(day) {
            let Some(used) = self.used.get(&scope) else {
                continue;
            };
            for (limit, much) in passed(used, &most, day) {
                let what = format!("{} is over its {limit}", named(&scope));
                if self.over.insert(what.clone()) {
                    told.push(format!("{what}: {much}"));
                }
            }
        }
        told
    }

    /// What the rows of the bill show is known within the hour, whatever it is for: where it is over a
    /// total, spending has to end within the time that anything takes. `shown` is what the rows come
    /// to, `exact` what was used, by job, with all that no limit counts ahead.
    pub(super) fn billed(
        &mut self,
        shown: &BTreeMap<JobName, Money>,
        exact: &BTreeMap<JobName, Money>,
        now: Time,
        day: NaiveDate,
    ) -> Vec<String> {
        let lived = self.lived(now);
        let takes = RECONCILED_EVERY_MS + self.takes_effect_in();
        let mut told = Vec::new();
        for (scope, most) in self.bounds(day) {
            let sum = |of: &BTreeMap<JobName, Money>| -> Money {
                let within = of
                    .iter()
                    .filter(|(job, _)| self.scopes(job).contains(&scope));
                within.map(|(_, amount)| *amount).sum()
            };
            let (shown, exact) = (sum(shown), sum(exact));
            if most.total.is_none_or(|most| shown <= most) {
                self.overruns.remove(&scope);
                continue;
            }
            let begun = Overrun {
                since: lived,
                ended: None,
            };
            let overrun = self.overruns.entry(scope.clone()).or_insert(begun);
            if lived - overrun.since < takes {
                continue;
            }
            let ended = *overrun.ended.get_or_insert(exact);
            let what = format!(
                "{} spends on after its bill passed its total",
                named(&scope)
            );
            if exact > ended && self.over.insert(what.clone()) {
                told.push(format!("{what}: {exact} after {ended}"));
            }
        }
        told
    }
}

/// A scope in the words of a sentence.
fn named(scope: &Scope) -> String {
    match scope {
        Scope::Account => "the account".to_owned(),
        Scope::Job(name) => name.to_string(),
        Scope::Owner(name) => format!("owner {name}"),
        Scope::Tag(name) => format!("tag {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn job(total_cents: u64) -> Arc<Job> {
        let text = format!(
            "name = \"a\"\nowner = \"ml\"\ntags = [\"x\"]\nrental = \"interruptible\"\nfinish = \"manual\"\n\
             [run]\nimage = \"a/b:c\"\n[gpu]\nmodels = [\"RTX 4090\"]\n[price]\nmax = \"$1/gpu-hour\"\n\
             [budget]\ntotal = \"${}.{:02}\"\n",
            total_cents / 100,
            total_cents % 100
        );
        Arc::new(crate::policy::parse("a.toml", &text).unwrap())
    }

    fn of(amount: Money) -> BTreeMap<JobName, Money> {
        BTreeMap::from([("a".parse().unwrap(), amount)])
    }

    fn limits(config: EngineConfig) -> Limits {
        let mut limits = Limits::new(config);
        limits.policy(&job(200), Time(0));
        limits
    }

    #[test]
    fn a_month_is_the_sum_of_its_days_and_no_other() {
        let config = EngineConfig {
            per_month: Some(Money::dollars(1)),
            ..EngineConfig::default()
        };
        let mut limits = limits(config);
        let last = day("2026-01-31");
        limits.spent(of(Money::dollars(1)), last);
        assert_eq!(limits.passed(Time(0), last), Vec::<String>::new());
        let first = day("2026-02-01");
        limits.spent(of(Money::dollars(2)), first);
        assert_eq!(limits.passed(Time(0), first), Vec::<String>::new());
        limits.spent(of(Money::dollars(2) + Money(1)), day("2026-02-28"));
        let told = limits.passed(Time(0), day("2026-02-28"));
        assert!(
            told.iter()
                .any(|what| what.starts_with("the account is over its budget of the month")),
            "{told:?}"
        );
    }

    #[test]
    fn what_a_job_uses_counts_for_its_owner_and_its_tags() {
        for scope in [Scope::Owner("ml".to_owned()), Scope::Tag("x".to_owned())] {
            let bounds = Bounds {
                gpus_max: Some(3),
                total: Some(Money::dollars(1)),
                ..Bounds::default()
            };
            let mut limits = limits(EngineConfig {
                groups: BTreeMap::from([(scope.clone(), bounds)]),
                ..EngineConfig::default()
            });
            let today = day("2026-01-01");
            let name = "a".parse().unwrap();
            limits.holds(&name, Rate(1), 2);
            limits.holds(&name, Rate(1), 1);
            limits.spent(of(Money::dollars(1)), today);
            assert_eq!(limits.passed(Time(0), today), Vec::<String>::new());
            limits.holds(&name, Rate(1), 1);
            limits.spent(of(Money::dollars(1) + Money(1)), today);
            let told = limits.passed(Time(0), today);
            assert_eq!(told.len(), 2, "{told:?}");
            assert!(told.iter().all(|what| what.starts_with(&named(&scope))));
        }
    }

    #[test]
    fn a_budget_that_is_lowered_binds_once_it_can_be_known_and_what_was_spent_stays_spent() {
        let mut limits = limits(EngineConfig::default());
        let today = day("2026-01-01");
        limits.policy(&job(100), Time(HOUR));
        let takes = limits.takes_effect_in();
        // No process can act while there is none.
        limits.asleep(Time(HOUR), Duration::from_hours(1));
        let binds = Time(2 * HOUR + takes);
        limits.spent(of(Money::dollars(1) + Money(5)), today);
        assert_eq!(
            limits.passed(Time(binds.0 - 1), today),
            Vec::<String>::new()
        );
        // It was too much by then, but was spent while it was allowed.
        assert_eq!(limits.passed(binds, today), Vec::<String>::new());
        limits.spent(of(Money::dollars(1) + Money(6)), today);
        let told = limits.passed(binds, today);
        assert!(
            told[0].starts_with("a is over its total budget"),
            "{told:?}"
        );
    }

    #[test]
    fn what_the_bill_shows_over_a_total_ends_spending() {
        let mut limits = limits(EngineConfig::default());
        let today = day("2026-01-01");
        let over = of(Money::dollars(2) + Money(1));
        let takes = RECONCILED_EVERY_MS + limits.takes_effect_in();
        let mut look = |exact: Money, at: i64| limits.billed(&over, &of(exact), Time(at), today);
        assert!(look(Money::dollars(2), 0).is_empty());
        assert!(look(Money::dollars(3), takes - 1).is_empty());
        assert!(look(Money::dollars(4), takes).is_empty());
        assert!(look(Money::dollars(4), takes + HOUR).is_empty());
        let told = look(Money::dollars(4) + Money(1), takes + HOUR);
        assert!(told[0].starts_with("a spends on"), "{told:?}");
    }
}
