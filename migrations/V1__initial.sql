-- Times are milliseconds since the Unix epoch, UTC. Money is nano-dollars, rates are nano-dollars
-- per hour: integers, never floats. Ids of the marketplace are 64-bit unsigned, stored with the
-- same bits as signed integers. A `record` is the whole value as JSON; the columns beside it are
-- what is searched for.

PRAGMA application_id = 0x6861676c;

-- What marks this installation, and whether it may spend. One row.
CREATE TABLE installation (
    only    INTEGER PRIMARY KEY CHECK (only = 1),
    name    TEXT NOT NULL,
    account INTEGER,
    killed  INTEGER NOT NULL CHECK (killed IN (0, 1))
) STRICT;

CREATE TABLE wire (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE intents (
    id       INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    effect   TEXT NOT NULL,
    state    TEXT NOT NULL CHECK (state IN ('open', 'unknown', 'done', 'refused', 'void')),
    instance INTEGER,
    reserved INTEGER NOT NULL,
    record   TEXT NOT NULL
) STRICT;
CREATE INDEX intents_open ON intents (id) WHERE state IN ('open', 'unknown');
CREATE INDEX intents_closed ON intents (at) WHERE state NOT IN ('open', 'unknown');

-- Instances of ours that are not proven gone.
CREATE TABLE held (
    instance INTEGER PRIMARY KEY,
    intent   INTEGER NOT NULL,
    job      TEXT NOT NULL,
    replica  INTEGER NOT NULL,
    machine  INTEGER NOT NULL,
    gpus     INTEGER NOT NULL,
    gpu_name TEXT NOT NULL,
    billed   INTEGER NOT NULL,
    record   TEXT NOT NULL
) STRICT;
CREATE INDEX held_intent ON held (intent);

-- Instances of ours that are gone, as they were last known.
CREATE TABLE ended (
    instance INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    job      TEXT NOT NULL,
    replica  INTEGER NOT NULL,
    machine  INTEGER NOT NULL,
    gpus     INTEGER NOT NULL,
    gpu_name TEXT NOT NULL,
    billed   INTEGER NOT NULL,
    record   TEXT NOT NULL
) STRICT;
CREATE INDEX ended_at ON ended (at);

CREATE TABLE jobs (
    name   TEXT NOT NULL PRIMARY KEY,
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE replicas (
    job     TEXT NOT NULL,
    replica INTEGER NOT NULL,
    record  TEXT NOT NULL,
    PRIMARY KEY (job, replica)
) STRICT, WITHOUT ROWID;

CREATE TABLE machines (
    machine INTEGER PRIMARY KEY,
    record  TEXT NOT NULL
) STRICT;

-- The ledger. Lines are only ever added.
CREATE TABLE entries (
    id        INTEGER PRIMARY KEY,
    at        INTEGER NOT NULL,
    kind      TEXT NOT NULL CHECK (kind IN ('reserve', 'release', 'accrue', 'correct')),
    job       TEXT NOT NULL,
    replica   INTEGER NOT NULL,
    intent    INTEGER NOT NULL,
    instance  INTEGER,
    component TEXT CHECK (component IN ('gpu', 'disk', 'traffic')),
    amount    INTEGER NOT NULL
) STRICT;
CREATE INDEX entries_job ON entries (job, at);
CREATE INDEX entries_instance ON entries (instance) WHERE instance IS NOT NULL;
CREATE INDEX entries_reserved ON entries (intent, id, amount) WHERE kind IN ('reserve', 'release');

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

-- What each job has cost, and what is set aside for it.
CREATE VIEW balance AS
SELECT
    job,
    SUM(CASE WHEN kind IN ('accrue', 'correct') THEN amount ELSE 0 END) AS posted,
    SUM(CASE WHEN kind IN ('reserve', 'release') THEN amount ELSE 0 END) AS reserved
FROM entries
GROUP BY job;

-- What the user asked through other processes.
CREATE TABLE requests (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    at   INTEGER NOT NULL,
    ask  TEXT NOT NULL,
    done INTEGER NOT NULL DEFAULT 0 CHECK (done IN (0, 1))
) STRICT;
CREATE INDEX requests_open ON requests (id) WHERE done = 0;

CREATE TABLE events (
    id       INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('info', 'warning', 'alarm')),
    kind     TEXT NOT NULL,
    job      TEXT,
    replica  INTEGER,
    instance INTEGER,
    text     TEXT NOT NULL
) STRICT;
CREATE INDEX events_at ON events (at);
CREATE INDEX events_job ON events (job, id) WHERE job IS NOT NULL;

CREATE TABLE ticks (
    id          INTEGER PRIMARY KEY,
    tick        INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    snapshot    INTEGER,
    config_hash TEXT NOT NULL,
    jobs_hash   TEXT NOT NULL,
    world_hash  TEXT NOT NULL,
    world       TEXT,
    plan        TEXT NOT NULL
) STRICT;
CREATE INDEX ticks_at ON ticks (at);
CREATE INDEX ticks_world ON ticks (id) WHERE world IS NOT NULL;

-- The market's history. What was asked and how completely it was answered changes seldom, so it
-- is kept once for all the snapshots that share it.
CREATE TABLE coverages (
    id     INTEGER PRIMARY KEY,
    record TEXT NOT NULL
) STRICT;

CREATE TABLE snapshots (
    id       INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    coverage INTEGER NOT NULL REFERENCES coverages (id)
) STRICT;
CREATE INDEX snapshots_coverage ON snapshots (coverage);

-- What seldom changes of an offer, shared by its versions and by later offers of the same slot.
CREATE TABLE offer_specs (
    id               INTEGER PRIMARY KEY,
    machine          INTEGER NOT NULL,
    gpus             INTEGER NOT NULL,
    host             INTEGER,
    machine_gpus     INTEGER,
    gpu_ids          TEXT NOT NULL,
    gpu_name         TEXT NOT NULL,
    gpu_ram_mb       INTEGER,
    compute_cap      INTEGER,
    cuda_max         INTEGER,
    driver_version   INTEGER,
    nvlink_gb_s      REAL,
    pcie_gb_s        REAL,
    cpu_cores        REAL,
    cpu_ram_mb       INTEGER,
    disk_mb_s        REAL,
    inet_down_price  INTEGER,
    inet_up_price    INTEGER,
    storage_price    INTEGER,
    verified         INTEGER,
    datacenter       INTEGER,
    static_ip        INTEGER,
    direct_ports     INTEGER,
    country          TEXT
) STRICT;
CREATE INDEX offer_specs_slot ON offer_specs (machine, gpus);

-- What often changes of an offer. A version is in every snapshot from `from_snapshot` up to, but
-- not with, `to_snapshot`; NULL: it is in the newest. Snapshots may be forgotten before a version
-- that began with them, so `from_snapshot` is no foreign key.
CREATE TABLE offer_versions (
    id               INTEGER PRIMARY KEY,
    spec             INTEGER NOT NULL REFERENCES offer_specs (id),
    from_snapshot    INTEGER NOT NULL,
    to_snapshot      INTEGER,
    offer            INTEGER NOT NULL,
    on_demand        INTEGER,
    floor            INTEGER,
    rentable         INTEGER,
    rented           INTEGER,
    ends_at          INTEGER,
    reliability      REAL,
    disk_gb          REAL,
    inet_down_mbit_s REAL,
    inet_up_mbit_s   REAL,
    dlperf           REAL
) STRICT;
CREATE INDEX offer_versions_spec ON offer_versions (spec);
CREATE INDEX offer_versions_to ON offer_versions (to_snapshot);

-- When a slot was first listed, and when last; NULL: it is listed in the newest snapshot.
CREATE TABLE slots (
    machine    INTEGER NOT NULL,
    gpus       INTEGER NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER,
    PRIMARY KEY (machine, gpus)
) STRICT, WITHOUT ROWID;
