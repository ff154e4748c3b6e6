"""The states of a session."""

from enum import Enum


class State(Enum):
    """The state of a session."""

    OUTSIDE = "has not said who it is"
    ASKED = "was asked for the password"
    INSIDE = "is logged in"
    GONE = "has said goodbye"
