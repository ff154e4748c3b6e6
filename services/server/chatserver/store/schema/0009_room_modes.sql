-- Modes of rooms, and notices. No row is written again: rows without these columns have the defaults.

ALTER TABLE message ADD COLUMN is_notice INTEGER NOT NULL DEFAULT 0;          -- 1: no program may answer it by itself

ALTER TABLE conversation ADD COLUMN topic_by TEXT NOT NULL DEFAULT '';        -- who set the topic; '': it is not known
ALTER TABLE conversation ADD COLUMN topic_ms INTEGER NOT NULL DEFAULT 0;      -- when; 0: it is not known
ALTER TABLE conversation ADD COLUMN is_moderated INTEGER NOT NULL DEFAULT 0;  -- 1: members without a role can't write
ALTER TABLE conversation ADD COLUMN is_topic_open INTEGER NOT NULL DEFAULT 0; -- 1: all members may set the topic
ALTER TABLE conversation ADD COLUMN join_key TEXT NOT NULL DEFAULT '';        -- the word that opens it; '': none is needed
ALTER TABLE conversation ADD COLUMN members_max INTEGER NOT NULL DEFAULT 0;   -- 0: the limit of all rooms
