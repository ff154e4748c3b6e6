"""The states of a session."""

from enum import Enum


class State(Enum):
    """The state of a session."""

    NOT_LOGGED_IN = "no login yet"
    PASSWORD_REQUESTED = "the password was requested"  # noqa: S105 - a state, not a secret
    LOGGED_IN = "logged in"
    CLOSED = "the goodbye was sent"
