//! The ledger: double entry, in integer nano-dollars.
//!
//! A line of the ledger ([`Entry`]) says what happened to an amount; its [`legs`](Entry::legs) say
//! which accounts it moves between, and always add up to zero. Three books are kept apart: what is
//! set aside for intents, what was spent by our own reckoning (with its corrections), and what the
//! marketplace has billed. Each limit is an account too: it takes up what counts against it. Lines
//! are only ever added, so every balance can be reckoned again from them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use chrono::{Datelike, NaiveDate};
use serde::{Deserialize, Serialize};

use super::ids::{InstanceId, IntentId, JobName, ReplicaId};
use super::money::Money;
use super::time::Time;

/// What money was spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// Compute.
    Gpu,
    /// Storage.
    Disk,
    /// Bytes moved.
    Traffic,
}

impl Component {
    /// The word in tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Disk => "disk",
            Self::Traffic => "traffic",
        }
    }
}

/// What kind of ledger entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// Money set aside for an intent.
    Reserve,
    /// A reservation given back because the intent took effect: what it costs is accrued from now
    /// on. Its amount is negative.
    Post,
    /// A reservation given back because the intent took no effect. Its amount is negative.
    Void,
    /// Spent, by our own reckoning: what is likely.
    Accrue,
    /// What may have been spent beyond that, where nobody saw when something began or ended; and
    /// the difference between the marketplace's bill and our reckoning.
    Correct,
    /// Billed by the marketplace: the amounts of an instance's charge rows, as they are reported.
    Bill,
}

impl EntryKind {
    /// Whether the line sets money aside or gives it back.
    pub fn reserves(self) -> bool {
        matches!(self, Self::Reserve | Self::Post | Self::Void)
    }

    /// Whether the line counts as spent: against limits, and in what a job has cost.
    pub fn spends(self) -> bool {
        matches!(self, Self::Accrue | Self::Correct)
    }
}

/// On whose behalf a job spends. As it was when the line was written: a policy may change hands.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Payer {
    /// The policy's owner.
    pub owner: Option<String>,
    /// The policy's tags.
    pub tags: BTreeSet<String>,
}

/// One line of the ledger. Lines are only ever added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was written.
    pub at: Time,
    /// The day on which it counts: of a bill, that of its row, in UTC; of all else, that of writing,
    /// in the configured time zone.
    pub day: NaiveDate,
    /// What kind.
    pub kind: EntryKind,
    /// For which replica.
    pub replica: ReplicaId,
    /// On whose behalf.
    pub payer: Payer,
    /// For which intent.
    pub intent: IntentId,
    /// On which instance; `None` while there is none.
    pub instance: Option<InstanceId>,
    /// On what; `None` for reservations.
    pub component: Option<Component>,
    /// How much; negative for what is given back and for corrections downwards.
    pub amount: Money,
}

/// A line of the ledger before it is known on which day it counts and on whose behalf it is.
#[derive(Clone, Debug)]
pub struct Line {
    /// As [`Entry::at`].
    pub at: Time,
    /// As [`Entry::kind`].
    pub kind: EntryKind,
    /// As [`Entry::replica`].
    pub replica: ReplicaId,
    /// As [`Entry::intent`].
    pub intent: IntentId,
    /// As [`Entry::instance`].
    pub instance: Option<InstanceId>,
    /// As [`Entry::component`].
    pub component: Option<Component>,
    /// As [`Entry::amount`].
    pub amount: Money,
}

impl Line {
    /// The whole line.
    pub fn on(self, day: NaiveDate, payer: Payer) -> Entry {
        Entry {
            at: self.at,
            day,
            kind: self.kind,
            replica: self.replica,
            payer,
            intent: self.intent,
            instance: self.instance,
            component: self.component,
            amount: self.amount,
        }
    }
}

/// Whose spending a limit bounds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Scope {
    /// All that this installation spends.
    Account,
    /// One job's.
    Job(JobName),
    /// That of all jobs of an owner.
    Owner(String),
    /// That of all jobs with a tag.
    Tag(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account => f.write_str("account"),
            Self::Job(name) => write!(f, "job/{name}"),
            Self::Owner(name) => write!(f, "owner/{name}"),
            Self::Tag(name) => write!(f, "tag/{name}"),
        }
    }
}

/// Why a text names no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope is \"account\", \"job/NAME\", \"owner/NAME\" or \"tag/NAME\", not {0:?}")]
pub struct ScopeError(String);

impl FromStr for Scope {
    type Err = ScopeError;
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let refused = || ScopeError(text.to_owned());
        if text == "account" {
            return Ok(Self::Account);
        }
        let (kind, name) = text.split_once('/').ok_or_else(refused)?;
        match kind {
            "job" => name.parse().map(Self::Job).map_err(|_| refused()),
            "owner" => Ok(Self::Owner(name.to_owned())),
            "tag" => Ok(Self::Tag(name.to_owned())),
            _ => Err(refused()),
        }
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

impl TryFrom<String> for Scope {
    type Error = ScopeError;
    fn try_from(text: String) -> Result<Self, ScopeError> {
        text.parse()
    }
}

impl Scope {
    /// Every scope that a job's spending counts in.
    pub fn of<'a>(job: &JobName, payer: &'a Payer) -> impl Iterator<Item = Self> + use<'a> {
        let owner = payer.owner.iter().cloned().map(Self::Owner);
        let tags = payer.tags.iter().cloned().map(Self::Tag);
        [Self::Account, Self::Job(job.clone())]
            .into_iter()
            .chain(owner)
            .chain(tags)
    }
}

/// What was billed for one instance, by day (in UTC, as the marketplace's rows are) and component.
pub type BilledDays = BTreeMap<(NaiveDate, Option<Component>), Money>;

/// What an instance was reckoned to cost on a day in UTC, and what was billed. Traffic is left out:
/// it is known from the bill alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Which.
    pub instance: InstanceId,
    /// For which job.
    pub job: JobName,
    /// The day.
    pub day: NaiveDate,
    /// What was accrued on the day, before any correction.
    pub estimated: Money,
    /// What its rows say, with what they name no component for.
    pub billed: Money,
    /// Billed for traffic.
    pub traffic: Money,
}

impl Drift {
    /// How much more was billed than reckoned; negative: less.
    pub fn amount(&self) -> Money {
        self.billed - self.estimated
    }

    /// Whether it is more than a cent and a twentieth of the bill: rounding and the time between
    /// two looks explain less. Where nothing was billed yet, nothing is known.
    pub fn is_worth_a_word(&self) -> bool {
        let off = i128::from(self.amount().0).abs();
        self.billed != Money::ZERO
            && off > i128::from(CENT.0)
            && off * 20 > i128::from(self.billed.0).abs()
    }
}

/// Differences of no more than this are not worth a word.
const CENT: Money = Money(10_000_000);

/// The month of a day, as its first day.
pub fn month_of(day: NaiveDate) -> NaiveDate {
    day.with_day(1).unwrap_or(day)
}

/// For how long a limit adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// For ever.
    Total,
    /// A calendar day.
    Day(NaiveDate),
    /// A calendar month, by its first day.
    Month(NaiveDate),
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Total => f.write_str("total"),
            Self::Day(day) => write!(f, "day/{day}"),
            Self::Month(day) => write!(f, "month/{}", day.format("%Y-%m")),
        }
    }
}

/// A place where money is. Its text is its name in the database and in reports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// Where reservations come from: the other side of [`Account::Reserved`].
    Unreserved,
    /// Set aside for a job's open intents.
    Reserved(JobName),
    /// Spent by a job on a component, by our own reckoning.
    Estimated(JobName, Option<Component>),
    /// What the bill changed about it.
    Corrected(JobName, Option<Component>),
    /// Billed to a job for a component.
    Billed(JobName, Option<Component>),
    /// What we owe by our own reckoning: the other side of [`Account::Estimated`].
    OwedEstimated,
    /// The other side of [`Account::Corrected`].
    OwedCorrected,
    /// The other side of [`Account::Billed`].
    OwedBilled,
    /// What counts against the limits of a scope in a period.
    Limit(Scope, Period),
    /// The other side of [`Account::Limit`].
    Used,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let component = |c: &Option<Component>| c.map_or("unknown", Component::as_str);
        match self {
            Self::Unreserved => f.write_str("unreserved"),
            Self::Reserved(job) => write!(f, "reserved/job/{job}"),
            Self::Estimated(job, c) => write!(f, "estimated/job/{job}/{}", component(c)),
            Self::Corrected(job, c) => write!(f, "corrected/job/{job}/{}", component(c)),
            Self::Billed(job, c) => write!(f, "billed/job/{job}/{}", component(c)),
            Self::OwedEstimated => f.write_str("owed/estimated"),
            Self::OwedCorrected => f.write_str("owed/corrected"),
            Self::OwedBilled => f.write_str("owed/billed"),
            Self::Limit(scope, period) => write!(f, "limit/{scope}/{period}"),
            Self::Used => f.write_str("used"),
        }
    }
}

/// One side of a line: an account and by how much its balance changes, debits positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Which account.
    pub account: Account,
    /// By how much.
    pub amount: Money,
}

impl Entry {
    /// What the line moves between which accounts, in pairs: each debit is followed by its credit.
    pub fn legs(&self) -> Vec<Leg> {
        let job = self.replica.job.clone();
        let (debit, credit) = match self.kind {
            EntryKind::Reserve | EntryKind::Post | EntryKind::Void => {
                (Account::Reserved(job), Account::Unreserved)
            }
            EntryKind::Accrue => (
                Account::Estimated(job, self.component),
                Account::OwedEstimated,
            ),
            EntryKind::Correct => (
                Account::Corrected(job, self.component),
                Account::OwedCorrected,
            ),
            EntryKind::Bill => (Account::Billed(job, self.component), Account::OwedBilled),
        };
        let mut legs = Vec::new();
        let mut pair = |debit: Account, credit: Account, amount: Money| {
            legs.push(Leg {
                account: debit,
                amount,
            });
            legs.push(Leg {
                account: credit,
                amount: -amount,
            });
        };
        pair(debit, credit, self.amount);
        if self.kind.spends() {
            // What is given back may have been spent in another day or month: it frees nothing of
            // this one.
            let up = self.amount.max(Money::ZERO);
            for scope in Scope::of(&self.replica.job, &self.payer) {
                for (period, amount) in [
                    (Period::Total, self.amount),
                    (Period::Day(self.day), up),
                    (Period::Month(month_of(self.day)), up),
                ] {
                    let limit = Account::Limit(scope.clone(), period);
                    pair(limit, Account::Used, amount);
                }
            }
        }
        legs
    }
}

/// Days and months that [`Usage`] remembers. More than one, for a clock that jumps and is set right
/// again must find what it left; few, for what is far from now bounds nothing any more.
const PERIODS_KEPT: usize = 4;

/// What counts against the limits of one scope: the balances of its accounts, as far as they still
/// matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Spent in all: estimates with their corrections.
    pub total: Money,
    /// Spent on the last days on which something was.
    pub days: BTreeMap<NaiveDate, Money>,
    /// Spent in the last months in which something was, by their first days.
    pub months: BTreeMap<NaiveDate, Money>,
}

impl Usage {
    /// Takes up a line that counts here. What is farthest from its day is forgotten, and not what is
    /// oldest: a clock that ran ahead for days would leave no room for the days that it comes back
    /// to, and nothing would bound them.
    pub fn add(&mut self, day: NaiveDate, amount: Money) {
        self.total += amount;
        let up = amount.max(Money::ZERO);
        for (periods, of) in [(&mut self.days, day), (&mut self.months, month_of(day))] {
            *periods.entry(of).or_default() += up;
            let apart = |period: &NaiveDate| period.signed_duration_since(of).abs();
            let ends = [periods.keys().next(), periods.keys().next_back()];
            let farthest = ends.into_iter().flatten().max_by_key(|end| apart(end));
            if let Some(&farthest) = farthest.filter(|_| periods.len() > PERIODS_KEPT) {
                periods.remove(&farthest);
            }
        }
    }

    /// Spent on a day.
    pub fn on(&self, day: NaiveDate) -> Money {
        self.days.get(&day).copied().unwrap_or_default()
    }

    /// Spent in the month of a day.
    pub fn in_month_of(&self, day: NaiveDate) -> Money {
        let month = month_of(day);
        self.months.get(&month).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(kind: EntryKind, day: NaiveDate, amount: i64) -> Entry {
        Entry {
            at: Time(0),
            day,
            kind,
            replica: ReplicaId {
                job: "train".parse().unwrap(),
                index: 0,
            },
            payer: Payer {
                owner: Some("ml".to_owned()),
                tags: ["a", "b"].map(str::to_owned).into(),
            },
            intent: IntentId(1),
            instance: None,
            component: Some(Component::Gpu),
            amount: Money(amount),
        }
    }

    fn any_day() -> impl Strategy<Value = NaiveDate> {
        (-30_i32..90).prop_map(|n| NaiveDate::from_num_days_from_ce_opt(739_600 + n).unwrap())
    }

    fn any_kind() -> impl Strategy<Value = EntryKind> {
        prop_oneof![
            Just(EntryKind::Reserve),
            Just(EntryKind::Post),
            Just(EntryKind::Void),
            Just(EntryKind::Accrue),
            Just(EntryKind::Correct),
            Just(EntryKind::Bill),
        ]
    }

    proptest! {
        #[test]
        fn every_line_adds_up_to_zero_leg_by_leg(kind in any_kind(), day in any_day(), amount in -i64::MAX..=i64::MAX) {
            let legs = entry(kind, day, amount).legs();
            prop_assert!(legs.len() >= 2 && legs.len().is_multiple_of(2));
            for pair in legs.chunks(2) {
                let sum: i128 = pair.iter().map(|leg| i128::from(leg.amount.0)).sum();
                prop_assert_eq!(sum, 0);
                prop_assert_ne!(&pair[0].account, &pair[1].account);
            }
        }

        #[test]
        fn usage_is_the_balance_of_the_limit_accounts(
            days in prop::collection::vec(any_day(), PERIODS_KEPT),
            lines in prop::collection::vec((0..PERIODS_KEPT, -1_000_000_i64..1_000_000), 1..40),
        ) {
            let mut usage = Usage::default();
            let mut balances: BTreeMap<Account, Money> = BTreeMap::new();
            for &(day, amount) in &lines {
                let line = entry(EntryKind::Accrue, days[day], amount);
                usage.add(line.day, line.amount);
                for leg in line.legs() {
                    *balances.entry(leg.account).or_default() += leg.amount;
                }
            }
            let scope = Scope::Tag("a".to_owned());
            let of = |period| balances[&Account::Limit(scope.clone(), period)];
            prop_assert_eq!(usage.total, of(Period::Total));
            for (day, sum) in &usage.days {
                prop_assert_eq!(*sum, of(Period::Day(*day)));
                prop_assert_eq!(usage.on(*day), *sum);
                let month = of(Period::Month(month_of(*day)));
                prop_assert_eq!(usage.in_month_of(*day), month);
            }
            prop_assert_eq!(balances.values().copied().sum::<Money>(), Money::ZERO);
        }
    }

    #[test]
    fn a_clock_that_jumped_finds_its_day_again() {
        let day = |d| NaiveDate::from_ymd_opt(2026, 2, d).unwrap();
        let mut usage = Usage::default();
        usage.add(day(10), Money(5));
        usage.add(NaiveDate::from_ymd_opt(2031, 1, 1).unwrap(), Money(7));
        usage.add(day(10), Money(2));
        assert_eq!(usage.on(day(10)), Money(7));
        assert_eq!(usage.in_month_of(day(28)), Money(7));
        assert_eq!(usage.on(day(11)), Money::ZERO);
    }

    #[test]
    fn a_clock_that_ran_ahead_for_days_and_was_set_right_still_counts_its_days() {
        let mut usage = Usage::default();
        for n in 1..=12 {
            usage.add(NaiveDate::from_ymd_opt(2031, n, n).unwrap(), Money(7));
        }
        for n in 1..=9 {
            let day = NaiveDate::from_ymd_opt(2026, 2, n).unwrap();
            usage.add(day, Money(5));
            usage.add(day, Money(2));
            assert_eq!(usage.on(day), Money(7), "{day}");
            let so_far = Money(7 * i64::from(n));
            assert_eq!(usage.in_month_of(day), so_far, "{day}");
        }
        assert!(usage.days.len() <= PERIODS_KEPT && usage.months.len() <= PERIODS_KEPT);
    }

    #[test]
    fn what_is_given_back_frees_the_total_and_no_day() {
        let day = NaiveDate::from_ymd_opt(2026, 2, 10).unwrap();
        let mut usage = Usage::default();
        usage.add(day, Money(500));
        usage.add(day, Money(-200));
        assert_eq!(usage.total, Money(300));
        assert_eq!(usage.on(day), Money(500));
        assert_eq!(usage.in_month_of(day), Money(500));
    }

    #[test]
    fn a_scope_reads_as_it_is_written() {
        let job = Scope::Job("train".parse().unwrap());
        for scope in [
            Scope::Account,
            job,
            Scope::Owner("a/b c".to_owned()),
            Scope::Tag(String::new()),
        ] {
            assert_eq!(scope.to_string().parse(), Ok(scope));
        }
        for text in ["", "jobs", "job/", "job/UPPER!", "team/x"] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
    }
}
