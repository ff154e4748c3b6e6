"""Sessions, logins, the journal, the hub and presence. This package uses no sockets."""
