-- Several servers that share one log: see docs/cluster.md. Without it, these tables stay empty.

-- How far this database has applied the log.
CREATE TABLE log_position (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    log_id TEXT    NOT NULL,                        -- of the log: see journal/records.py
    number INTEGER NOT NULL,                        -- of the last record that was applied; 0: none
    chain  BLOB    NOT NULL                         -- digest of all outcomes up to it: the same on all servers
) STRICT;

-- The runs of the servers that write to the log. A server has one at a time.
CREATE TABLE log_run (
    server TEXT    NOT NULL,
    run    TEXT    NOT NULL,
    number INTEGER,                                 -- of its last batch that was applied; NULL: the run is over
    PRIMARY KEY (server, run)
) STRICT, WITHOUT ROWID;

ALTER TABLE guest_claim ADD COLUMN server TEXT NOT NULL DEFAULT '';  -- where the guest is; '': the only server
