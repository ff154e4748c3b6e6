"""Where a connection stands."""

from enum import Enum


class State(Enum):
    """Where a connection stands."""

    OUTSIDE = "has not said who it is"
    ASKED = "was asked for the password"
    INSIDE = "is logged in"
    GONE = "has said goodbye"
