-- Conversations: the lobby, rooms, and direct messages. One table of messages replaces public_message and
-- direct_message, which store/migration.py empties after this step.

CREATE TABLE new_account (
    id            INTEGER PRIMARY KEY,
    name          TEXT    NOT NULL,                    -- as registered; of a guest: as spelled
    name_key      TEXT    UNIQUE,                      -- as compared: lower case; NULL for a guest, so no login finds it
    kind          TEXT    NOT NULL DEFAULT 'person',   -- 'person' or 'guest'
    role          TEXT    NOT NULL DEFAULT 'user',     -- 'user' or 'operator'
    password_hash TEXT    NOT NULL,                    -- argon2id, with its parameters and salt; empty for a guest
    created_ms    INTEGER NOT NULL,
    delivered_id  INTEGER NOT NULL DEFAULT 0           -- direct messages up to this one need not be sent at the next login
) STRICT;

INSERT INTO new_account (id, name, name_key, kind, password_hash, created_ms, delivered_id)
SELECT id, name, iif(name_key GLOB 'GUEST:*', NULL, name_key), iif(name_key GLOB 'GUEST:*', 'guest', 'person'),
       password_hash, created_ms, delivered_id
FROM account ORDER BY id;

DROP TABLE account;
ALTER TABLE new_account RENAME TO account;

-- A guest has a row for each spelling of its name.
CREATE UNIQUE INDEX account_guest ON account (name) WHERE kind = 'guest';

CREATE TABLE conversation (
    id            INTEGER PRIMARY KEY,
    kind          TEXT    NOT NULL,               -- 'room' or 'direct'
    name          TEXT,                           -- of a room, as it was made with
    name_key      TEXT    UNIQUE,                 -- as compared: lower case; NULL after the end of the room
    topic         TEXT    NOT NULL DEFAULT '',
    is_private    INTEGER NOT NULL DEFAULT 0,     -- 1: only members and invited users learn that the room exists
    created_ms    INTEGER NOT NULL,
    member_count  INTEGER NOT NULL DEFAULT 0,     -- without invitations
    invited_count INTEGER NOT NULL DEFAULT 0,
    joined_count  INTEGER NOT NULL DEFAULT 0,     -- number of joins so far
    ended_id      INTEGER                         -- of a room that has ended: its last message, or 0
) STRICT;

CREATE INDEX conversation_ended ON conversation (ended_id) WHERE ended_id IS NOT NULL;

-- All users are in the lobby. All direct messages are one conversation, of which each account sees its own.
INSERT INTO conversation (id, kind, name, name_key, created_ms)
VALUES (0, 'room', 'lobby', 'lobby', 0), (1, 'direct', NULL, NULL, 0);

-- The members of each room but the lobby, and the users who are invited to it.
CREATE TABLE membership (
    account_id      INTEGER NOT NULL REFERENCES account (id),
    conversation_id INTEGER NOT NULL REFERENCES conversation (id),
    role            TEXT    NOT NULL,              -- 'owner', 'operator', 'member' or 'invited'
    number          INTEGER NOT NULL,              -- orders the members by their joins; 0 if invited
    PRIMARY KEY (account_id, conversation_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX membership_conversation ON membership (conversation_id, role, number);

-- All conversations share one sequence of ids, which the journal assigns. The key is id - conversation_id * 2^40: the
-- messages of a conversation are together and in order, without an index, and the lobby is at the end of the table,
-- where SQLite appends fastest. A conversation is never deleted, because the key of a message has its id.
CREATE TABLE message (
    key             INTEGER PRIMARY KEY,
    conversation_id INTEGER NOT NULL AS (-(key >> 40)),
    id              INTEGER NOT NULL AS (key & 0xFFFFFFFFFF),
    time_ms         INTEGER NOT NULL,
    sender_id       INTEGER NOT NULL REFERENCES account (id),
    recipient_id    INTEGER REFERENCES account (id),     -- of a direct message, else NULL
    text            TEXT    NOT NULL,
    nonce           TEXT
) STRICT;

CREATE INDEX message_sender ON message (sender_id, key) WHERE recipient_id IS NOT NULL;
CREATE INDEX message_recipient ON message (recipient_id, key) WHERE recipient_id IS NOT NULL;
CREATE UNIQUE INDEX message_nonce ON message (sender_id, conversation_id, nonce) WHERE nonce IS NOT NULL;

DROP INDEX public_message_nonce;
DROP INDEX direct_message_nonce;
DROP INDEX direct_message_sender;
DROP INDEX direct_message_recipient;
