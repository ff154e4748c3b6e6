-- Times in the history, and how far users have read.

-- The lowest and the highest time of the messages in each range of 4,096 ids: see store/message_log.py. They follow
-- from the messages. A range without messages has no row, nor has that of the newest message.
CREATE TABLE message_times (
    block    INTEGER PRIMARY KEY,                   -- id / 4096
    first_ms INTEGER NOT NULL,
    last_ms  INTEGER NOT NULL
) STRICT;

-- How far users have read: the time of a message.
CREATE TABLE read_mark (
    account_id      INTEGER NOT NULL REFERENCES account (id),
    conversation_id INTEGER NOT NULL REFERENCES conversation (id),
    other_id        INTEGER NOT NULL,               -- of direct messages: the other account; of a room: 0
    time_ms         INTEGER NOT NULL,
    PRIMARY KEY (account_id, conversation_id, other_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX read_mark_conversation ON read_mark (conversation_id) WHERE conversation_id > 1;
