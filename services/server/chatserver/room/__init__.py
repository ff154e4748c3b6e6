"""The room: the order of messages, who is in, and what everybody hears. It does not know what bytes are."""
