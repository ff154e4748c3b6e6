"""The servers of a list: the order in which a client tries them. Pure.

All servers of a list share one log, so a client may use any of them. Each client has a random order of its own, so that
the clients of a server that is gone spread over the others. A client stays with a server until the connection is lost;
it does not return to an earlier one.

A round tries each server once, beginning after the one whose connection was lost, which is therefore the last. A server
has failed if it can't be reached, or refuses the login for a reason of its own (SERVER_REFUSALS). The pauses of
connection.py are between rounds, not between servers.
"""

from collections.abc import Sequence
from typing import Final

from chatprotocol.address import Address, format_address
from chatprotocol.errors import ErrorCode

# Refusals of a login whose reason is the server, not the user: another server of the list may accept the same login.
# INTERNAL is also the code of refusals that this client does not know.
SERVER_REFUSALS: Final = frozenset(
    {
        ErrorCode.DISK_FULL,
        ErrorCode.INTERNAL,
        ErrorCode.NO_SESSION,
        ErrorCode.SERVER_FULL,
        ErrorCode.SHUTTING_DOWN,
        ErrorCode.UNAVAILABLE,
    }
)


class Rotation:
    """The servers in the order in which they are tried, at least one; and the state of the current round."""

    def __init__(self, servers: Sequence[Address]) -> None:
        self._servers = tuple(servers)
        # Indexes of the server that was taken last, and of the next one.
        self._current, self._next = -1, 0
        # Number of servers that this round has not tried.
        self._left = len(self._servers)
        # Reasons of this round's failures.
        self._failures: dict[Address, str] = {}

    @property
    def current(self) -> Address:
        """The server that was taken last."""
        return self._servers[self._current]

    @property
    def has_next(self) -> bool:
        """True if take() can be called: the round has servers left."""
        return self._left > 0

    @property
    def has_other(self) -> bool:
        """True if the round has a server left that is not the current one."""
        return self._left > 0 and len(self._servers) > 1

    @property
    def is_fresh(self) -> bool:
        """True if this round has tried no server yet."""
        return self._left == len(self._servers)

    @property
    def failures(self) -> str:
        """The reasons of this round's failures; each names its server if the list has several."""
        if len(self._servers) == 1:
            return "".join(self._failures.values())
        named = ((format_address(server), reason) for server, reason in self._failures.items())
        return "; ".join(reason if name in reason else f"{name}: {reason}" for name, reason in named)

    def begin_round(self, *, with_current: bool = False) -> None:
        """Begin a round after the current server, or with it."""
        self._left = len(self._servers)
        self._failures.clear()
        self._next = (self._current + (not with_current)) % len(self._servers)

    def end_round(self) -> None:
        """Try no further server in this round."""
        self._left = 0

    def take(self) -> Address:
        """The next server of the round."""
        assert self._left > 0
        self._left -= 1
        self._current, self._next = self._next, (self._next + 1) % len(self._servers)
        return self.current

    def note_failure(self, reason: str) -> None:
        """Record that the current server has failed."""
        self._failures[self.current] = reason
