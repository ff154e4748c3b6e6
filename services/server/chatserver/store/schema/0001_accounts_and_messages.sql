-- Accounts, public messages and direct messages.
--
-- Both kinds of message share one sequence of ids, which the journal assigns. Each kind has its own table, so that the
-- last 50 messages of one kind are found as fast among five million messages of the other kind.

CREATE TABLE account (
    id            INTEGER PRIMARY KEY,
    name          TEXT    NOT NULL,             -- as registered
    name_key      TEXT    NOT NULL UNIQUE,      -- as compared: lower case
    password_hash TEXT    NOT NULL,             -- argon2id, with its parameters and salt
    created_ms    INTEGER NOT NULL,
    delivered_id  INTEGER NOT NULL DEFAULT 0    -- direct messages up to this one need not be sent at the next login
) STRICT;

CREATE TABLE public_message (
    id        INTEGER PRIMARY KEY,
    time_ms   INTEGER NOT NULL,
    sender_id INTEGER NOT NULL REFERENCES account (id),
    text      TEXT    NOT NULL,
    nonce     TEXT
) STRICT;

CREATE UNIQUE INDEX public_message_nonce ON public_message (sender_id, nonce) WHERE nonce IS NOT NULL;

CREATE TABLE direct_message (
    id           INTEGER PRIMARY KEY,
    time_ms      INTEGER NOT NULL,
    sender_id    INTEGER NOT NULL REFERENCES account (id),
    recipient_id INTEGER NOT NULL REFERENCES account (id),
    text         TEXT    NOT NULL,
    nonce        TEXT
) STRICT;

CREATE UNIQUE INDEX direct_message_nonce ON direct_message (sender_id, nonce) WHERE nonce IS NOT NULL;
CREATE INDEX direct_message_sender ON direct_message (sender_id, id);
CREATE INDEX direct_message_recipient ON direct_message (recipient_id, id);
