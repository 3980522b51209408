//! What is known, to and from tables: each [`Change`] as rows, and the [`State`] that they add up to.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::de::DeserializeOwned;

use crate::ports::StoreError;
use crate::types::ids::{AccountId, Installation, InstanceId, IntentId, JobName, ReplicaId};
use crate::types::instance::Held;
use crate::types::intent::{Intent, IntentState};
use crate::types::ledger::{Component, Entry, Payer, Scope, Usage};
use crate::types::money::Money;
use crate::types::state::{Change, Event, State, TickRecord};
use crate::types::time::Time;

use super::error::{conversion, id, id_at, json_at, to_json, word};

/// Writes a change. Called inside of a transaction.
pub(super) fn write(connection: &Connection, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::Pin { account } => run(
            connection,
            "UPDATE installation SET account = ?1",
            params![id(account.0)],
        ),
        Change::Killed { killed } => run(
            connection,
            "UPDATE installation SET killed = ?1",
            params![killed],
        ),
        Change::Wire {
            key,
            value: Some(value),
        } => run(
            connection,
            "INSERT OR REPLACE INTO wire (key, value) VALUES (?1, ?2)",
            params![key, value],
        ),
        Change::Wire { key, value: None } => {
            run(connection, "DELETE FROM wire WHERE key = ?1", params![key])
        }
        Change::Intent(intent) => write_intent(connection, intent),
        Change::Held(held) => write_held(connection, held),
        Change::Gone { instance, at } => write_gone(connection, *instance, *at),
        Change::Job(record) => run(
            connection,
            "INSERT OR REPLACE INTO jobs (name, record) VALUES (?1, ?2)",
            params![record.name.as_str(), to_json(record)?],
        ),
        Change::Replica(record) => run(
            connection,
            "INSERT OR REPLACE INTO replicas (job, replica, record) VALUES (?1, ?2, ?3)",
            params![record.id.job.as_str(), record.id.index, to_json(record)?],
        ),
        Change::Machine(record) => run(
            connection,
            "INSERT OR REPLACE INTO machines (machine, record) VALUES (?1, ?2)",
            params![id(record.id.0), to_json(record)?],
        ),
        Change::Entry(entry) => write_entry(connection, entry),
        Change::RequestDone { id } => run(
            connection,
            "UPDATE requests SET done = 1 WHERE id = ?1",
            params![id],
        ),
        Change::Event(event) => write_event(connection, event),
        Change::Tick(record) => write_tick(connection, record),
    }
}

fn run(
    connection: &Connection,
    sql: &str,
    parameters: &[&dyn rusqlite::ToSql],
) -> Result<(), StoreError> {
    connection.prepare_cached(sql)?.execute(parameters)?;
    Ok(())
}

fn write_intent(connection: &Connection, intent: &Intent) -> Result<(), StoreError> {
    let (state, made) = match &intent.state {
        IntentState::Open => ("open", None),
        IntentState::Unknown { .. } => ("unknown", None),
        IntentState::Done { instance } => ("done", Some(*instance)),
        IntentState::Refused { .. } => ("refused", None),
        IntentState::Void => ("void", None),
    };
    let instance = made.or_else(|| intent.effect.instance());
    run(
        connection,
        "INSERT OR REPLACE INTO intents (id, at, effect, state, instance, reserved, record)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            id(intent.id.0),
            intent.at.0,
            intent.effect.as_str(),
            state,
            instance.map(|i| id(i.0)),
            intent.reserved.0,
            to_json(intent)?
        ],
    )
}

fn write_held(connection: &Connection, held: &Held) -> Result<(), StoreError> {
    run(
        connection,
        "INSERT OR REPLACE INTO held
         (instance, intent, job, replica, machine, gpus, gpu_name, billed, record)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            id(held.id.0),
            id(held.intent.0),
            held.replica.job.as_str(),
            held.replica.index,
            id(held.slot.machine.0),
            held.slot.gpus,
            held.gpu_name,
            held.billed.0,
            to_json(held)?
        ],
    )
}

/// Moves an instance from what is held to what has ended.
fn write_gone(connection: &Connection, instance: InstanceId, at: Time) -> Result<(), StoreError> {
    run(
        connection,
        "INSERT OR REPLACE INTO ended
         (instance, at, job, replica, machine, gpus, gpu_name, billed, record)
         SELECT instance, ?2, job, replica, machine, gpus, gpu_name, billed, record
         FROM held WHERE instance = ?1",
        params![id(instance.0), at.0],
    )?;
    run(
        connection,
        "DELETE FROM held WHERE instance = ?1",
        params![id(instance.0)],
    )
}

fn write_entry(connection: &Connection, entry: &Entry) -> Result<(), StoreError> {
    run(
        connection,
        "INSERT INTO entries
         (at, day, kind, job, replica, payer, intent, instance, component, amount)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            entry.at.0,
            entry.day.to_string(),
            word(&entry.kind)?,
            entry.replica.job.as_str(),
            entry.replica.index,
            payer(connection, &entry.payer)?,
            id(entry.intent.0),
            entry.instance.map(|i| id(i.0)),
            entry.component.map(Component::as_str),
            entry.amount.0
        ],
    )?;
    if entry.kind.spends() {
        for scope in Scope::of(&entry.replica.job, &entry.payer) {
            count(connection, &scope, entry)?;
        }
    }
    Ok(())
}

/// The number of a payer, who is written down at the first line of theirs.
fn payer(connection: &Connection, payer: &Payer) -> Result<i64, StoreError> {
    let tags = to_json(&payer.tags)?;
    let known = connection
        .prepare_cached("SELECT id FROM payers WHERE COALESCE(owner, '') = ?1 AND tags = ?2")?
        .query_row(
            params![payer.owner.as_deref().unwrap_or_default(), tags],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(known) = known {
        return Ok(known);
    }
    run(
        connection,
        "INSERT INTO payers (owner, tags) VALUES (?1, ?2)",
        params![payer.owner.as_deref().filter(|name| !name.is_empty()), tags],
    )?;
    Ok(connection.last_insert_rowid())
}

/// Counts a line against the limits of a scope.
fn count(connection: &Connection, scope: &Scope, entry: &Entry) -> Result<(), StoreError> {
    let scope = scope.to_string();
    let mut usage: Usage = connection
        .prepare_cached("SELECT record FROM usage WHERE scope = ?1")?
        .query_row([&scope], |row| json_at(row, 0))
        .optional()?
        .unwrap_or_default();
    usage.add(entry.day, entry.amount);
    run(
        connection,
        "INSERT OR REPLACE INTO usage (scope, record) VALUES (?1, ?2)",
        params![scope, to_json(&usage)?],
    )
}

fn write_event(connection: &Connection, event: &Event) -> Result<(), StoreError> {
    run(
        connection,
        "INSERT INTO events (at, severity, kind, job, replica, instance, text)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            event.at.0,
            word(&event.severity)?,
            event.kind,
            event.replica.as_ref().map(|r| r.job.as_str()),
            event.replica.as_ref().map(|r| r.index),
            event.instance.map(|i| id(i.0)),
            event.text
        ],
    )
}

fn write_tick(connection: &Connection, record: &TickRecord) -> Result<(), StoreError> {
    run(
        connection,
        "INSERT INTO ticks
         (tick, at, snapshot, config_hash, jobs_hash, world_hash, world, plan)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            id(record.tick),
            record.at.0,
            record.snapshot,
            record.config_hash,
            record.jobs_hash,
            record.world_hash,
            record.world,
            record.plan
        ],
    )
}

/// The state that all committed changes add up to. Reads several tables: the caller holds a
/// transaction where another process may write.
pub(super) fn load(connection: &Connection) -> Result<State, StoreError> {
    let (name, account, killed): (String, Option<i64>, bool) = connection
        .query_row(
            "SELECT name, account, killed FROM installation",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?
        .ok_or_else(|| StoreError::Corrupt("it does not say which installation it is".into()))?;
    let installation: Installation = name
        .parse()
        .map_err(|error| StoreError::Corrupt(format!("{error}")))?;

    let mut state = State::new(installation);
    state.account = account.map(|a| AccountId(a.cast_unsigned()));
    state.killed = killed;
    state.wire = collect(connection, "SELECT key, value FROM wire", |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    state.last_intent = last_intent(connection)?;
    state.ticks = connection
        .query_row(
            "SELECT tick FROM ticks ORDER BY id DESC LIMIT 1",
            [],
            |row| id_at(row, 0),
        )
        .optional()?
        .unwrap_or(0);
    let open = "SELECT record FROM intents WHERE state IN ('open', 'unknown')";
    state.intents = records(connection, open, |intent: &Intent| intent.id)?;
    state.held = records(connection, "SELECT record FROM held", |held: &Held| held.id)?;
    state.jobs = records(
        connection,
        "SELECT record FROM jobs",
        |job: &crate::types::state::JobRecord| job.name.clone(),
    )?;
    state.replicas = records(
        connection,
        "SELECT record FROM replicas",
        |replica: &crate::types::state::ReplicaRecord| replica.id.clone(),
    )?;
    state.machines = records(
        connection,
        "SELECT record FROM machines",
        |machine: &crate::types::machine::MachineRecord| machine.id,
    )?;
    state.reserved = reserved(connection)?;
    state.usage = collect(connection, "SELECT scope, record FROM usage", |row| {
        Ok((scope_at(row, 0)?, json_at(row, 1)?))
    })?;
    Ok(state)
}

/// The largest id, where ids with the top bit set are stored as negative numbers.
fn last_intent(connection: &Connection) -> Result<Option<IntentId>, StoreError> {
    let largest = |range: &str| -> rusqlite::Result<Option<i64>> {
        let sql = format!("SELECT MAX(id) FROM intents WHERE id {range}");
        connection.query_row(&sql, [], |row| row.get(0))
    };
    let found = match largest("< 0")? {
        Some(id) => Some(id),
        None => largest(">= 0")?,
    };
    Ok(found.map(|id| IntentId(id.cast_unsigned())))
}

/// What the lines of each intent that set aside and give back add up to, added in the order in
/// which they were written, so that sums which stop at the bounds stop at the same ones.
fn reserved(connection: &Connection) -> Result<BTreeMap<IntentId, Money>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT intent, amount FROM entries WHERE kind IN ('reserve', 'post', 'void')
         ORDER BY intent, id",
    )?;
    let mut rows = statement.query([])?;
    let mut sums = BTreeMap::new();
    let mut current: Option<(IntentId, Money)> = None;
    let mut keep = |sum: Option<(IntentId, Money)>| {
        if let Some((intent, amount)) = sum.filter(|(_, amount)| *amount != Money::ZERO) {
            sums.insert(intent, amount);
        }
    };
    while let Some(row) = rows.next()? {
        let (intent, amount) = (IntentId(id_at(row, 0)?), Money(row.get(1)?));
        match &mut current {
            Some((same, sum)) if *same == intent => *sum += amount,
            _ => keep(current.replace((intent, amount))),
        }
    }
    keep(current);
    Ok(sums)
}

fn collect<K: Ord, V>(
    connection: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<(K, V)>,
) -> Result<BTreeMap<K, V>, StoreError> {
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn records<K: Ord, V: DeserializeOwned>(
    connection: &Connection,
    sql: &str,
    key: impl Fn(&V) -> K,
) -> Result<BTreeMap<K, V>, StoreError> {
    collect(connection, sql, |row| {
        let value: V = json_at(row, 0)?;
        Ok((key(&value), value))
    })
}

/// A replica whose job and number are in two columns.
pub(super) fn replica_at(row: &Row<'_>, job: usize, index: usize) -> rusqlite::Result<ReplicaId> {
    Ok(ReplicaId {
        job: job_at(row, job)?,
        index: row.get(index)?,
    })
}

fn scope_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Scope> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| conversion(column, error))
}

/// A job's name.
pub(super) fn job_at(row: &Row<'_>, column: usize) -> rusqlite::Result<JobName> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| conversion(column, error))
}
