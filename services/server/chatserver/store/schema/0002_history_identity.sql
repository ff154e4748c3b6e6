-- The identity of the history. It tells clients whether ids that they remember are of the messages that are here.
--
-- A copy has the same one. Where a copy takes the place of a database that went on, the server gives it a new one.

CREATE TABLE history_identity (
    one        INTEGER PRIMARY KEY CHECK (one = 1),    -- there is one row
    history_id TEXT    NOT NULL                        -- random, 32 hexadecimal digits
) STRICT;

INSERT INTO history_identity VALUES (1, lower(hex(randomblob(16))));

-- The identities that it had before. Up to the message last_id the history is the same as it was under that one.
CREATE TABLE former_identity (
    history_id TEXT    PRIMARY KEY,
    last_id    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
