"""The exit codes of the client."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes."""

    OK = 0  # after EX, or at the end of the input
    LOST = 1  # the server can't be reached, or the connection is lost for good
    USAGE = 2  # bad arguments, settings or script
    REFUSED = 3  # the login was rejected, or the server ended the connection on purpose: a ban, a kick, a newer one
    SCRIPT = 4  # a wait of a script failed
