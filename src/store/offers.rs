//! The market's history: snapshots of which only what changed is stored.
//!
//! An offer is split in two. What seldom changes is a row of `offer_specs`, shared by all versions
//! of the offer and by later offers of the same slot, for a machine that was rented comes back
//! under another id. What often changes is a row of `offer_versions`, which says from which
//! snapshot on, and up to which, it held. A snapshot is the versions whose span it lies in, so each
//! can be had again, whole.
//!
//! What changed is found by comparing with an [`Image`] of the last snapshot in memory, which costs
//! a hundredth of asking the database.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::ports::StoreError;
use crate::types::ids::{OfferId, Slot};
use crate::types::offer::{Coverage, Offer, Snapshot};
use crate::types::time::Time;

use super::error::{id, json_at, to_json};
use super::offer_rows::{
    Names, SPEC_COLUMNS, VERSION_COLUMNS, insert_spec, insert_version, offer_at, same_spec, spec_at,
};

/// Specs of a slot that are compared with a new offer before another one is stored: a slot's
/// equal slices, and a few earlier forms of them.
const SPECS_COMPARED_MAX: u32 = 16;

/// The last snapshot, as it is stored.
#[derive(Debug, Default)]
pub(super) struct Image {
    /// Its number; 0 before the first.
    id: i64,
    at: Time,
    coverage_id: Option<i64>,
    coverage: Vec<Coverage>,
    /// Ordered by (slot, offer).
    rows: Vec<Stored>,
}

#[derive(Debug)]
struct Stored {
    version: i64,
    spec: i64,
    offer: Offer,
}

type Key = (Slot, OfferId);

fn key(offer: &Offer) -> Key {
    (offer.slot(), offer.id)
}

impl Image {
    /// Reads the last snapshot.
    pub(super) fn read(connection: &Connection) -> Result<Self, StoreError> {
        let newest: Option<i64> =
            connection.query_row("SELECT MAX(id) FROM snapshots", [], |row| row.get(0))?;
        match newest {
            Some(id) => Self::read_as_of(connection, id)?
                .ok_or_else(|| StoreError::Corrupt(format!("snapshot {id} vanished"))),
            None => Ok(Self::default()),
        }
    }

    /// Reads any snapshot; `None` where there is none of this number, or no longer.
    pub(super) fn read_as_of(connection: &Connection, id: i64) -> Result<Option<Self>, StoreError> {
        let head = connection
            .query_row(
                "SELECT s.at, s.coverage, c.record FROM snapshots s
                 JOIN coverages c ON c.id = s.coverage WHERE s.id = ?1",
                [id],
                |row| Ok((Time(row.get(0)?), row.get(1)?, json_at(row, 2)?)),
            )
            .optional()?;
        let Some((at, coverage_id, coverage)) = head else {
            return Ok(None);
        };
        Ok(Some(Self {
            id,
            at,
            coverage_id: Some(coverage_id),
            coverage,
            rows: read_rows(connection, id)?,
        }))
    }

    /// The snapshot's number.
    pub(super) fn id(&self) -> i64 {
        self.id
    }

    /// The snapshot with its number; `None` before the first.
    pub(super) fn to_snapshot(&self) -> Option<(i64, Snapshot)> {
        (self.id > 0).then(|| {
            let snapshot = Snapshot {
                at: self.at,
                offers: self.rows.iter().map(|row| row.offer.clone()).collect(),
                coverage: self.coverage.clone(),
            };
            (self.id, snapshot)
        })
    }

    fn lists(&self, slot: Slot) -> bool {
        let first = self.rows.partition_point(|row| row.offer.slot() < slot);
        self.rows
            .get(first)
            .is_some_and(|row| row.offer.slot() == slot)
    }
}

/// Stores a snapshot and gives the new image of it. On an error the old image is lost and has to
/// be read again: the database is as it was.
pub(super) fn write(
    connection: &mut Connection,
    mut old: Image,
    snapshot: &Snapshot,
) -> Result<Image, StoreError> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let id = old.id + 1;
    let coverage_id = match old.coverage_id {
        Some(same) if old.coverage == snapshot.coverage => same,
        _ => {
            transaction
                .prepare_cached("INSERT INTO coverages (record) VALUES (?1)")?
                .execute([to_json(&snapshot.coverage)?])?;
            transaction.last_insert_rowid()
        }
    };
    transaction
        .prepare_cached("INSERT INTO snapshots (id, at, coverage) VALUES (?1, ?2, ?3)")?
        .execute(params![id, snapshot.at.0, coverage_id])?;

    let rows = std::mem::take(&mut old.rows);
    let mut writer = Writer {
        transaction: &transaction,
        id,
        first: old.id == 0,
        rows: Vec::with_capacity(snapshot.offers.len()),
        opened: BTreeSet::new(),
        closed: BTreeSet::new(),
    };
    writer.merge(rows, snapshot)?;
    let Writer {
        rows,
        opened,
        closed,
        ..
    } = writer;
    let image = Image {
        id,
        at: snapshot.at,
        coverage_id: Some(coverage_id),
        coverage: snapshot.coverage.clone(),
        rows,
    };
    for slot in opened {
        see_slot(&transaction, slot, snapshot.at)?;
    }
    for slot in closed.into_iter().filter(|slot| !image.lists(*slot)) {
        lose_slot(&transaction, slot, old.at)?;
    }
    transaction.commit()?;
    Ok(image)
}

/// Walks the old rows and the new offers side by side, and writes where they differ.
struct Writer<'a> {
    transaction: &'a Transaction<'a>,
    id: i64,
    /// Whether this is the first snapshot, so that no spec is there to be found.
    first: bool,
    rows: Vec<Stored>,
    opened: BTreeSet<Slot>,
    closed: BTreeSet<Slot>,
}

impl Writer<'_> {
    fn merge(&mut self, old: Vec<Stored>, snapshot: &Snapshot) -> Result<(), StoreError> {
        let mut old = old.into_iter().peekable();
        for offer in in_order(snapshot) {
            loop {
                let order = old
                    .peek()
                    .map_or(Ordering::Greater, |row| key(&row.offer).cmp(&key(offer)));
                match (order, order.is_le().then(|| old.next()).flatten()) {
                    (Ordering::Less, Some(row)) => self.close(&row)?,
                    (Ordering::Equal, Some(row)) => {
                        self.keep_or_change(row, offer)?;
                        break;
                    }
                    _ => {
                        self.open(offer)?;
                        break;
                    }
                }
            }
        }
        old.try_for_each(|row| self.close(&row))
    }

    fn keep_or_change(&mut self, row: Stored, offer: &Offer) -> Result<(), StoreError> {
        if row.offer == *offer {
            self.rows.push(row);
            return Ok(());
        }
        self.end_version(row.version)?;
        let spec = if same_spec(&row.offer, offer) {
            row.spec
        } else {
            self.spec(offer)?
        };
        self.begin_version(spec, offer)
    }

    fn open(&mut self, offer: &Offer) -> Result<(), StoreError> {
        self.opened.insert(offer.slot());
        let spec = self.spec(offer)?;
        self.begin_version(spec, offer)
    }

    fn close(&mut self, row: &Stored) -> Result<(), StoreError> {
        self.closed.insert(row.offer.slot());
        self.end_version(row.version)
    }

    fn end_version(&self, version: i64) -> Result<(), StoreError> {
        self.transaction
            .prepare_cached("UPDATE offer_versions SET to_snapshot = ?1 WHERE id = ?2")?
            .execute([self.id, version])?;
        Ok(())
    }

    fn begin_version(&mut self, spec: i64, offer: &Offer) -> Result<(), StoreError> {
        insert_version(self.transaction, spec, self.id, offer)?;
        self.rows.push(Stored {
            version: self.transaction.last_insert_rowid(),
            spec,
            offer: offer.clone(),
        });
        Ok(())
    }

    /// The spec of an offer: the slot's own if it had the same before, or a new one.
    fn spec(&self, offer: &Offer) -> Result<i64, StoreError> {
        if !self.first {
            let sql = format!(
                "SELECT id, {SPEC_COLUMNS} FROM offer_specs
                 WHERE machine = ?1 AND gpus = ?2 ORDER BY id DESC LIMIT {SPECS_COMPARED_MAX}"
            );
            let mut statement = self.transaction.prepare_cached(&sql)?;
            let mut rows = statement.query(params![id(offer.machine.0), offer.gpus])?;
            while let Some(row) = rows.next()? {
                if same_spec(&spec_at(row, 1)?, offer) {
                    return Ok(row.get(0)?);
                }
            }
        }
        insert_spec(self.transaction, offer)?;
        Ok(self.transaction.last_insert_rowid())
    }
}

/// The offers ordered by key, each key once. They come so; a poller's slip costs a sort, not a
/// wrong history.
fn in_order(snapshot: &Snapshot) -> Vec<&Offer> {
    let mut offers: Vec<&Offer> = snapshot.offers.iter().collect();
    if !offers.is_sorted_by(|a, b| key(a) < key(b)) {
        offers.sort_by_key(|offer| key(offer));
        offers.dedup_by_key(|offer| key(offer));
    }
    offers
}

fn see_slot(transaction: &Transaction<'_>, slot: Slot, at: Time) -> Result<(), StoreError> {
    transaction
        .prepare_cached(
            "INSERT INTO slots (machine, gpus, first_seen) VALUES (?1, ?2, ?3)
             ON CONFLICT (machine, gpus) DO UPDATE SET last_seen = NULL",
        )?
        .execute(params![id(slot.machine.0), slot.gpus, at.0])?;
    Ok(())
}

fn lose_slot(transaction: &Transaction<'_>, slot: Slot, at: Time) -> Result<(), StoreError> {
    transaction
        .prepare_cached("UPDATE slots SET last_seen = ?3 WHERE machine = ?1 AND gpus = ?2")?
        .execute(params![id(slot.machine.0), slot.gpus, at.0])?;
    Ok(())
}

fn read_rows(connection: &Connection, snapshot: i64) -> Result<Vec<Stored>, StoreError> {
    let sql = format!(
        "SELECT v.id, v.spec, {VERSION_COLUMNS}, {SPEC_COLUMNS}
         FROM offer_versions v JOIN offer_specs s ON s.id = v.spec
         WHERE v.from_snapshot <= ?1 AND (v.to_snapshot IS NULL OR v.to_snapshot > ?1)"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut names = Names::default();
    let rows = statement.query_map([snapshot], |row| {
        Ok(Stored {
            version: row.get(0)?,
            spec: row.get(1)?,
            offer: offer_at(row, 2, &mut names)?,
        })
    })?;
    let mut rows = rows.collect::<Result<Vec<_>, _>>()?;
    rows.sort_unstable_by_key(|row| key(&row.offer));
    Ok(rows)
}

/// The versions of a slot's offers, in order: (from, to, offer). `from` is the time of the oldest
/// snapshot that is still kept, where its own was forgotten.
pub(super) fn slot_versions(
    connection: &Connection,
    slot: Slot,
) -> Result<Vec<(Time, Option<Time>, Offer)>, StoreError> {
    let sql = format!(
        "SELECT
            COALESCE((SELECT at FROM snapshots WHERE id = v.from_snapshot),
                     (SELECT at FROM snapshots ORDER BY id LIMIT 1), 0),
            (SELECT at FROM snapshots WHERE id = v.to_snapshot),
            {VERSION_COLUMNS}, {SPEC_COLUMNS}
         FROM offer_specs s JOIN offer_versions v ON v.spec = s.id
         WHERE s.machine = ?1 AND s.gpus = ?2
           AND (v.to_snapshot IS NULL
                OR v.to_snapshot > (SELECT MIN(id) FROM snapshots))
         ORDER BY v.from_snapshot, v.id"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut names = Names::default();
    let rows = statement.query_map(params![id(slot.machine.0), slot.gpus], |row| {
        let to: Option<i64> = row.get(1)?;
        Ok((
            Time(row.get(0)?),
            to.map(Time),
            offer_at(row, 2, &mut names)?,
        ))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
