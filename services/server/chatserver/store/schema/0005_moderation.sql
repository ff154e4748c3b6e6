-- Moderation, invitations, and what logins and operators need.

-- Bans and mutes. Each target has one of each kind in a room or on the server.
CREATE TABLE sanction (
    id              INTEGER PRIMARY KEY,
    kind            TEXT    NOT NULL,               -- 'ban' or 'mute'
    conversation_id INTEGER REFERENCES conversation (id),  -- the room; NULL: the whole server
    account_id      INTEGER REFERENCES account (id),       -- NULL if it is about a network
    network         TEXT,                           -- as in 192.0.2.0/24; NULL if it is about an account
    until_ms        INTEGER,                        -- NULL: for ever
    reason          TEXT    NOT NULL,               -- may be empty
    by_name         TEXT    NOT NULL,
    created_ms      INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX sanction_target
ON sanction (ifnull(account_id, 0), kind, ifnull(network, ''), ifnull(conversation_id, -1));

-- Acts of moderation and administration. Rows are only added.
CREATE TABLE audit (
    id      INTEGER PRIMARY KEY,
    time_ms INTEGER NOT NULL,
    action  TEXT    NOT NULL,                       -- such as 'ban' or 'delete'
    by_name TEXT    NOT NULL,
    target  TEXT    NOT NULL,                       -- a username, a network, or the id of a message
    room    TEXT,                                   -- NULL: the whole server, or a direct message
    reason  TEXT    NOT NULL,
    detail  TEXT    NOT NULL                        -- such as the time until which a ban lasts
) STRICT;

-- The users whom a user ignores.
CREATE TABLE ignored (
    account_id INTEGER NOT NULL REFERENCES account (id),
    ignored_id INTEGER NOT NULL REFERENCES account (id),
    PRIMARY KEY (account_id, ignored_id)
) STRICT, WITHOUT ROWID;

-- Deleted messages. The message itself stays, with an empty text: its id and nonce are not used again.
CREATE TABLE deletion (
    number          INTEGER PRIMARY KEY,            -- in the order of the deletions
    id              INTEGER NOT NULL UNIQUE,        -- of the message
    conversation_id INTEGER NOT NULL REFERENCES conversation (id),
    by_name         TEXT    NOT NULL,
    time_ms         INTEGER NOT NULL
) STRICT;

CREATE TABLE invitation_code (
    code_hash  TEXT    PRIMARY KEY,                 -- SHA-256 of the code, in hexadecimal
    by_name    TEXT    NOT NULL,
    created_ms INTEGER NOT NULL,
    until_ms   INTEGER,                             -- NULL: for ever
    account_id INTEGER REFERENCES account (id)      -- the account that it registered; NULL: not used yet
) STRICT, WITHOUT ROWID;

-- The networks from which an account logged in. Guesses of strangers don't delay logins from these.
CREATE TABLE known_network (
    account_id INTEGER NOT NULL REFERENCES account (id),
    network    TEXT    NOT NULL,                    -- an IPv4 address, or the /64 of an IPv6 address
    last_ms    INTEGER NOT NULL,
    PRIMARY KEY (account_id, network)
) STRICT, WITHOUT ROWID;

ALTER TABLE account ADD COLUMN must_change_password INTEGER NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN deleted_ms INTEGER;  -- NULL: the account exists
