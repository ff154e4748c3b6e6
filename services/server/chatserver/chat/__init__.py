"""Sessions, accounts and the room. This package knows no sockets."""
