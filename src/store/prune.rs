//! Forgetting history, a bounded piece at a time, so that no tick waits long for it.

use rusqlite::{Connection, params};

use crate::ports::StoreError;
use crate::types::time::Time;

/// Rows that one call deletes at most: some tens of milliseconds.
pub(super) const ROWS_PER_CALL_MAX: usize = 5000;

/// What is forgotten, in this order, each with the time and the number of rows still allowed. What
/// is never forgotten: the ledger, open intents and the newest of all (it says how far the ids have
/// come), intents of instances still held, ended instances (reports by GPU need them), requests not
/// taken up, the last tick, and the newest snapshot with all that it is made of.
const STEPS: [&str; 8] = [
    "DELETE FROM snapshots WHERE id IN
        (SELECT id FROM snapshots
         WHERE at < ?1 AND id < COALESCE(
            (SELECT MIN(id) FROM snapshots WHERE at >= ?1), (SELECT MAX(id) FROM snapshots))
         ORDER BY id LIMIT ?2)",
    // After the oldest snapshot that is left, whatever ended with it or before is in none.
    "DELETE FROM offer_versions WHERE id IN
        (SELECT id FROM offer_versions
         WHERE to_snapshot <= (SELECT MIN(id) FROM snapshots) LIMIT ?2)",
    "DELETE FROM offer_specs WHERE id IN
        (SELECT s.id FROM offer_specs s
         WHERE NOT EXISTS (SELECT 1 FROM offer_versions v WHERE v.spec = s.id) LIMIT ?2)",
    "DELETE FROM coverages WHERE id IN
        (SELECT c.id FROM coverages c
         WHERE NOT EXISTS (SELECT 1 FROM snapshots s WHERE s.coverage = c.id) LIMIT ?2)",
    "DELETE FROM ticks WHERE id IN
        (SELECT id FROM ticks WHERE at < ?1 AND id < (SELECT MAX(id) FROM ticks) LIMIT ?2)",
    "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at < ?1 LIMIT ?2)",
    "DELETE FROM requests WHERE id IN
        (SELECT id FROM requests WHERE done = 1 AND at < ?1 LIMIT ?2)",
    // Ids with the top bit set are negative here, and there are none as long as clocks are sane:
    // the newest of either sign is kept.
    "DELETE FROM intents WHERE id IN
        (SELECT i.id FROM intents i
         WHERE i.state NOT IN ('open', 'unknown') AND i.at < ?1
           AND i.id NOT IN (SELECT MAX(id) FROM intents
                            UNION SELECT COALESCE(MAX(id), 0) FROM intents WHERE id < 0)
           AND NOT EXISTS (SELECT 1 FROM held h WHERE h.intent = i.id)
         LIMIT ?2)",
];

/// Deletes at most [`ROWS_PER_CALL_MAX`] rows of history older than `before`; says how many.
pub(super) fn prune(connection: &mut Connection, before: Time) -> Result<usize, StoreError> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let mut left = ROWS_PER_CALL_MAX;
    for step in STEPS {
        if left == 0 {
            break;
        }
        let deleted = transaction
            .prepare_cached(step)?
            .execute(params![before.0, left as i64])?;
        left = left.saturating_sub(deleted);
    }
    transaction.commit()?;
    Ok(ROWS_PER_CALL_MAX - left)
}
