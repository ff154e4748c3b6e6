-- Changes of rooms, among their messages: see store/room_events.py.
CREATE TABLE room_event (
    conversation_id INTEGER NOT NULL REFERENCES conversation (id),
    after_id        INTEGER NOT NULL,                     -- the newest message of the server at that time, or 0
    number          INTEGER NOT NULL,                     -- from 1 on, of the events of the room after this message
    time_ms         INTEGER NOT NULL,
    kind            TEXT    NOT NULL,                     -- see RoomEventKind, or 'erased'
    actor_id        INTEGER REFERENCES account (id),      -- who did it; NULL: the server, or its administrator
    target_id       INTEGER REFERENCES account (id),      -- to whom, if not to the room
    text            TEXT    NOT NULL DEFAULT '',          -- a reason, a topic, the roles, or the modes that changed
    PRIMARY KEY (conversation_id, after_id, number)
) STRICT, WITHOUT ROWID;

ALTER TABLE conversation ADD COLUMN event_count INTEGER NOT NULL DEFAULT 0;   -- rows of room_event
