-- Session tokens, with which devices and programs log in without a password.

CREATE TABLE token (
    hash       TEXT    PRIMARY KEY,                 -- SHA-256 of the token, in hexadecimal
    account_id INTEGER NOT NULL REFERENCES account (id),
    id         TEXT    NOT NULL,                    -- names the token in lists; no secret
    label      TEXT    NOT NULL,                    -- the device or program, as it names itself
    created_ms INTEGER NOT NULL,
    used_ms    INTEGER NOT NULL                     -- its last use, at most a day too early
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX token_id ON token (account_id, id);
CREATE INDEX token_used ON token (used_ms);
