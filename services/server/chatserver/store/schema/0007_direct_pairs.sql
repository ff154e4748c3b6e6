-- The direct messages of two users, and the users with whom one has any, are found without a look at all others.
CREATE INDEX message_sent_to ON message (sender_id, recipient_id) WHERE recipient_id IS NOT NULL;
CREATE INDEX message_received_from ON message (recipient_id, sender_id) WHERE recipient_id IS NOT NULL;
