-- What the journal decides by, and found in memory or in chat.state before.

-- The names that guests have now. An account and a guest never have the same name at the same time.
CREATE TABLE guest_claim (
    name_key   TEXT    PRIMARY KEY,               -- as compared: lower case
    number     INTEGER NOT NULL,                  -- number of claims of this name so far: later guests have another one
    account_id INTEGER REFERENCES account (id)    -- row of the guest that has the name; NULL if the name is free
) STRICT, WITHOUT ROWID;

-- The highest id that a message ever had, if that message was lost. The next message gets a higher one.
ALTER TABLE history_identity ADD COLUMN highest_id INTEGER NOT NULL DEFAULT 0;
