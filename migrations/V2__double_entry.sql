-- The ledger in double entry: on whose behalf and on which day each line counts, bookings of the
-- bill beside our own estimates, and what counts against limits.

-- On whose behalf jobs spend: an owner and tags, as they were when lines were written.
CREATE TABLE payers (
    id    INTEGER PRIMARY KEY,
    owner TEXT,
    tags  TEXT NOT NULL CHECK (json_valid(tags))
) STRICT;
CREATE UNIQUE INDEX payers_same ON payers (COALESCE(owner, ''), tags);
INSERT INTO payers (id, owner, tags) VALUES (1, NULL, '[]');

DROP VIEW balance;
DROP TRIGGER entries_no_update;
DROP TRIGGER entries_no_delete;
DROP TRIGGER entries_no_replace;
DROP INDEX entries_job;
DROP INDEX entries_instance;
DROP INDEX entries_reserved;
ALTER TABLE entries RENAME TO entries_before;

-- The ledger. Lines are only ever added. Each moves its amount between two accounts, and one that
-- is spent counts against every limit that it falls under: `postings` says which.
CREATE TABLE entries (
    id        INTEGER PRIMARY KEY,
    at        INTEGER NOT NULL,
    day       TEXT NOT NULL,
    kind      TEXT NOT NULL
              CHECK (kind IN ('reserve', 'post', 'void', 'accrue', 'correct', 'bill')),
    job       TEXT NOT NULL,
    replica   INTEGER NOT NULL,
    payer     INTEGER NOT NULL REFERENCES payers (id),
    intent    INTEGER NOT NULL,
    instance  INTEGER,
    component TEXT CHECK (component IN ('gpu', 'disk', 'traffic')),
    amount    INTEGER NOT NULL
) STRICT;

-- Which zone days were counted in is not known here: UTC. A reservation that was given back was
-- posted where its intent is known to have taken effect.
INSERT INTO entries
SELECT
    e.id, e.at, strftime('%Y-%m-%d', e.at / 1000, 'unixepoch'),
    CASE
        WHEN e.kind <> 'release' THEN e.kind
        WHEN i.state = 'done' THEN 'post'
        ELSE 'void'
    END,
    e.job, e.replica, 1, e.intent, e.instance, e.component, e.amount
FROM entries_before e LEFT JOIN intents i ON i.id = e.intent
ORDER BY e.id;
DROP TABLE entries_before;

CREATE INDEX entries_job ON entries (job, at);
CREATE INDEX entries_instance ON entries (instance) WHERE instance IS NOT NULL;
CREATE INDEX entries_reserved ON entries (intent, id, amount)
    WHERE kind IN ('reserve', 'post', 'void');
CREATE INDEX entries_billed ON entries (instance, component, day, amount) WHERE kind = 'bill';

CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only');
END;
CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only');
END;
-- INSERT OR REPLACE deletes without the trigger above.
CREATE TRIGGER entries_no_replace BEFORE INSERT ON entries
WHEN EXISTS (SELECT 1 FROM entries WHERE id = NEW.id)
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only');
END;

-- What counts against the limits of a scope, as a record: the balances of its accounts that still
-- matter. Always what the lines come to; `haggle doctor --ledger` reckons it again.
CREATE TABLE usage (
    scope  TEXT NOT NULL PRIMARY KEY,
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO usage
WITH counted AS (
    SELECT 'job/' || job AS scope, day, substr(day, 1, 7) || '-01' AS month, amount
    FROM entries WHERE kind IN ('accrue', 'correct')
    UNION ALL
    SELECT 'account', day, substr(day, 1, 7) || '-01', amount
    FROM entries WHERE kind IN ('accrue', 'correct')
),
days AS (
    SELECT scope, day, SUM(MAX(amount, 0)) AS amount,
           ROW_NUMBER() OVER (PARTITION BY scope ORDER BY day DESC) AS nth
    FROM counted GROUP BY scope, day
),
months AS (
    SELECT scope, month, SUM(MAX(amount, 0)) AS amount,
           ROW_NUMBER() OVER (PARTITION BY scope ORDER BY month DESC) AS nth
    FROM counted GROUP BY scope, month
)
SELECT scope, json_object(
    'total', SUM(amount),
    'days', json((SELECT json_group_object(day, amount) FROM days
                  WHERE days.scope = counted.scope AND nth <= 4)),
    'months', json((SELECT json_group_object(month, amount) FROM months
                    WHERE months.scope = counted.scope AND nth <= 4)))
FROM counted GROUP BY scope;

-- Both sides of every line: which account's balance changes by how much, debits positive.
CREATE VIEW postings AS
WITH books AS (
    SELECT id, amount, job, COALESCE(component, 'unknown') AS component,
           CASE
               WHEN kind IN ('reserve', 'post', 'void') THEN 'reserved'
               WHEN kind = 'accrue' THEN 'estimated'
               WHEN kind = 'correct' THEN 'corrected'
               ELSE 'billed'
           END AS book
    FROM entries
),
scopes AS (
    SELECT id, 'account' AS scope FROM entries
    UNION ALL SELECT id, 'job/' || job FROM entries
    UNION ALL SELECT e.id, 'owner/' || p.owner FROM entries e JOIN payers p ON p.id = e.payer
              WHERE p.owner IS NOT NULL
    UNION ALL SELECT e.id, 'tag/' || tag.value
              FROM entries e JOIN payers p ON p.id = e.payer, json_each(p.tags) tag
),
limits AS (
    SELECT e.id, s.scope, e.day, e.amount
    FROM entries e JOIN scopes s ON s.id = e.id WHERE e.kind IN ('accrue', 'correct')
)
SELECT id AS entry,
       CASE book WHEN 'reserved' THEN 'reserved/job/' || job
                 ELSE book || '/job/' || job || '/' || component END AS account,
       amount
FROM books
UNION ALL
SELECT id, CASE book WHEN 'reserved' THEN 'unreserved' ELSE 'owed/' || book END, -amount
FROM books
UNION ALL
SELECT id, 'limit/' || scope || '/total', amount FROM limits
UNION ALL
SELECT id, 'limit/' || scope || '/day/' || day, MAX(amount, 0) FROM limits
UNION ALL
SELECT id, 'limit/' || scope || '/month/' || substr(day, 1, 7), MAX(amount, 0) FROM limits
UNION ALL
SELECT id, 'used', -amount - 2 * MAX(amount, 0) FROM limits;

-- What each job has cost, what was billed of it, and what is set aside for it.
CREATE VIEW balance AS
SELECT
    job,
    SUM(CASE WHEN kind IN ('accrue', 'correct') THEN amount ELSE 0 END) AS posted,
    SUM(CASE WHEN kind IN ('reserve', 'post', 'void') THEN amount ELSE 0 END) AS reserved,
    SUM(CASE WHEN kind = 'bill' THEN amount ELSE 0 END) AS billed
FROM entries
GROUP BY job;
