//! The ledger, reckoned again from its lines.
//!
//! Every balance that is kept for speed is held against what the lines come to, in two ways that
//! share nothing: the `postings` view of the database, and the legs of each line as the program
//! makes them. Nothing is changed.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::ports::StoreError;
use crate::types::ids::{InstanceId, IntentId};
use crate::types::instance::Held;
use crate::types::intent::Intent;
use crate::types::ledger::{Account, Component, Entry, EntryKind, Scope};
use crate::types::money::Money;
use crate::types::state::State;

use super::SqliteStore;
use super::changes;
use super::error::json_at;
use super::reader::{ENTRY_COLUMNS, Reader, entry_at};

/// What an audit of the ledger came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Lines of the ledger.
    pub entries: u64,
    /// Every account with its balance, by name. A balance that fits no integer of 64 bits is cut to
    /// the greatest or least that does, and told among the problems.
    pub accounts: BTreeMap<String, Money>,
    /// What does not agree, a sentence each. Empty is good.
    pub problems: Vec<String>,
}

/// Balances, wide enough that no sum overflows.
type Balances = BTreeMap<String, i128>;

/// Sums over the lines, each by its own key.
#[derive(Default)]
struct Sums {
    entries: u64,
    accounts: Balances,
    /// What open intents should have set aside.
    reserved: BTreeMap<IntentId, i128>,
    /// What an instance has cost by component, and what it was billed in all.
    spent: BTreeMap<(InstanceId, Option<Component>), i128>,
    billed: BTreeMap<InstanceId, i128>,
    /// The state that the lines alone give.
    folded: Option<State>,
}

impl Reader {
    /// Reckons the ledger again from its lines and compares it with all that is kept of it.
    ///
    /// # Errors
    /// What SQLite may say, or a line that cannot be read. What does not agree is no error here.
    pub fn audit(&self) -> Result<Audit, StoreError> {
        audit(&self.connection)
    }
}

impl SqliteStore {
    /// As [`Reader::audit`], for the process that writes.
    ///
    /// # Errors
    /// As there.
    pub fn audit(&self) -> Result<Audit, StoreError> {
        audit(&self.connection)
    }
}

impl Audit {
    /// What was billed, in all.
    pub fn billed(&self) -> Money {
        let owed = self.accounts.get(&Account::OwedBilled.to_string());
        -owed.copied().unwrap_or_default()
    }
}

fn audit(connection: &Connection) -> Result<Audit, StoreError> {
    let moment = connection.unchecked_transaction()?;
    let state = changes::load(&moment)?;
    let mut problems = integrity(&moment)?;
    let sums = Sums::of(&moment, &state)?;
    compare_views(&moment, &sums, &mut problems)?;
    compare_state(&sums, &state, &mut problems);
    compare_intents(&moment, &sums, &mut problems)?;
    compare_instances(&moment, &sums, &mut problems)?;
    moment.finish()?;
    let accounts = sums.accounts.iter().map(|(name, &sum)| {
        let nanos = i64::try_from(sum);
        if nanos.is_err() {
            problems.push(format!("the balance of {name} is out of bounds: {sum}"));
        }
        let cut = if sum > 0 { i64::MAX } else { i64::MIN };
        (name.clone(), Money(nanos.unwrap_or(cut)))
    });
    Ok(Audit {
        entries: sums.entries,
        accounts: accounts.collect(),
        problems,
    })
}

impl Sums {
    fn of(connection: &Connection, state: &State) -> Result<Self, StoreError> {
        let mut sums = Self::default();
        let mut folded = State::new(state.installation.clone());
        let sql = format!(
            "SELECT {ENTRY_COLUMNS} FROM entries JOIN payers ON payers.id = entries.payer
             ORDER BY entries.id"
        );
        let mut statement = connection.prepare(&sql)?;
        for entry in statement.query_map([], entry_at)? {
            let entry = entry?;
            sums.add(&entry);
            folded.apply(&crate::types::state::Change::Entry(entry));
        }
        sums.folded = Some(folded);
        Ok(sums)
    }

    fn add(&mut self, entry: &Entry) {
        self.entries += 1;
        for leg in entry.legs() {
            *self.accounts.entry(leg.account.to_string()).or_default() += i128::from(leg.amount.0);
        }
        let amount = i128::from(entry.amount.0);
        if entry.kind.reserves() {
            *self.reserved.entry(entry.intent).or_default() += amount;
        }
        if let (true, Some(instance)) = (entry.kind.spends(), entry.instance) {
            *self.spent.entry((instance, entry.component)).or_default() += amount;
        }
        if let (EntryKind::Bill, Some(instance)) = (entry.kind, entry.instance) {
            *self.billed.entry(instance).or_default() += amount;
        }
    }
}

/// The file itself, and what keeps the ledger append-only.
fn integrity(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let mut problems = Vec::new();
    let mut check = connection.prepare("PRAGMA quick_check(10)")?;
    for line in check.query_map([], |row| row.get::<_, String>(0))? {
        let line = line?;
        if line != "ok" {
            problems.push(format!("the database is damaged: {line}"));
        }
    }
    for trigger in [
        "entries_no_update",
        "entries_no_delete",
        "entries_no_replace",
    ] {
        let there: bool = connection.query_row(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND name = ?1)",
            [trigger],
            |row| row.get(0),
        )?;
        if !there {
            problems.push(format!(
                "the trigger {trigger} is missing: lines may have been changed"
            ));
        }
    }
    let gap: (i64, i64, i64) = connection.query_row(
        "SELECT COUNT(*), COALESCE(MIN(id), 1), COALESCE(MAX(id), 0) FROM entries",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    if gap.1 != 1 || gap.0 != gap.2 {
        problems.push(format!(
            "lines are missing: {} are there, numbered {} to {}",
            gap.0, gap.1, gap.2
        ));
    }
    Ok(problems)
}

/// The database's own reckoning of both sides of every line, against the program's.
fn compare_views(
    connection: &Connection,
    sums: &Sums,
    problems: &mut Vec<String>,
) -> Result<(), StoreError> {
    let mut of_view = Balances::new();
    let mut statement = connection.prepare("SELECT account, amount FROM postings")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
    })?;
    for row in rows {
        let (account, amount) = row?;
        *of_view.entry(account).or_default() += i128::from(amount);
    }
    let total: i128 = of_view.values().sum();
    if total != 0 {
        problems.push(format!("the accounts add up to {total}, not to zero"));
    }
    let names = of_view.keys().chain(sums.accounts.keys());
    for name in names.collect::<std::collections::BTreeSet<_>>() {
        let balance = |of: &Balances| of.get(name).copied().unwrap_or_default();
        let (view, legs) = (balance(&of_view), balance(&sums.accounts));
        if view != legs {
            problems.push(format!(
                "{name} is {view} by the database and {legs} by its lines"
            ));
        }
    }
    Ok(())
}

/// What is kept for speed, against the lines.
fn compare_state(sums: &Sums, state: &State, problems: &mut Vec<String>) {
    let Some(folded) = &sums.folded else { return };
    let scopes = folded.usage.keys().chain(state.usage.keys());
    for scope in scopes.collect::<std::collections::BTreeSet<&Scope>>() {
        let (kept, lines) = (state.usage(scope), folded.usage(scope));
        if kept != lines {
            problems.push(format!(
                "what counts against the limits of {scope} is kept as {kept:?}, its lines give \
                 {lines:?}"
            ));
        }
    }
}

/// Reservations, against the intents that they are for.
fn compare_intents(
    connection: &Connection,
    sums: &Sums,
    problems: &mut Vec<String>,
) -> Result<(), StoreError> {
    let sql = "SELECT record FROM intents WHERE state IN ('open', 'unknown')";
    let mut statement = connection.prepare(sql)?;
    let mut open: BTreeMap<IntentId, i128> = BTreeMap::new();
    for intent in statement.query_map([], |row| json_at::<Intent>(row, 0))? {
        let intent = intent?;
        open.insert(intent.id, i128::from(intent.reserved.0));
    }
    for (&intent, &reserved) in &sums.reserved {
        let should = open.remove(&intent).unwrap_or_default();
        if reserved != should {
            problems.push(format!(
                "intent {intent} has {reserved} set aside, it should be {should}"
            ));
        }
    }
    for (intent, should) in open.into_iter().filter(|&(_, should)| should != 0) {
        problems.push(format!("intent {intent} has nothing set aside of {should}"));
    }
    Ok(())
}

/// What instances have cost, against their lines.
fn compare_instances(
    connection: &Connection,
    sums: &Sums,
    problems: &mut Vec<String>,
) -> Result<(), StoreError> {
    let sql = "SELECT record FROM held UNION ALL SELECT record FROM ended";
    let mut statement = connection.prepare(sql)?;
    for held in statement.query_map([], |row| json_at::<Held>(row, 0))? {
        let held = held?;
        for (component, kept) in [
            (Component::Gpu, held.spent_gpu),
            (Component::Disk, held.spent_disk),
            (Component::Traffic, held.spent_traffic),
        ] {
            let lines = sums.spent.get(&(held.id, Some(component)));
            let lines = lines.copied().unwrap_or_default();
            if i128::from(kept.0) != lines {
                problems.push(format!(
                    "instance {} has cost {kept} for {} by its record, its lines are {lines}",
                    held.id,
                    component.as_str()
                ));
            }
        }
        // Without any line it was billed before bills were kept by line.
        let billed = sums.billed.get(&held.id).copied();
        if billed.is_some_and(|lines| i128::from(held.billed.0) != lines) {
            problems.push(format!(
                "instance {} was billed {} by its record, its lines are {}",
                held.id,
                held.billed,
                billed.unwrap_or_default()
            ));
        }
    }
    Ok(())
}
