-- The identity of the history. A client that remembers message ids compares it: the ids are valid only with the same
-- identity. A copy of the database has the same identity. If a copy replaces a database with newer messages, the server
-- gives the copy a new identity.

CREATE TABLE history_identity (
    one        INTEGER PRIMARY KEY CHECK (one = 1),    -- there is one row
    history_id TEXT    NOT NULL                        -- random, 32 hexadecimal digits
) STRICT;

INSERT INTO history_identity VALUES (1, lower(hex(randomblob(16))));

-- Former identities of the history. Messages up to last_id are the same in the former and the present history.
CREATE TABLE former_identity (
    history_id TEXT    PRIMARY KEY,
    last_id    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
