"""The watch over a connection: when to ask a silent server for a sign of life, and when it is lost. Pure.

Two things are told apart, because a server may hang in two ways. One that is stopped says nothing at all: after some
silence it is sent a ping, and any byte is an answer. One whose disk hangs goes on sending lists of users and answers
pings, but confirms nothing: while an answer is due, only events that such a server can't send count. A login has a
limit of its own, which runs until an event answers it, whatever bytes come before.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from chatprotocol.events import Pong, Users

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatprotocol.events import Event
    from chatprotocol.requests import Request

# The default of --silence-seconds. A server that works tells who is online every 30 s in the dialect json: it is seldom
# asked. Over UDP either side is given up after 60 s, too.
SILENCE_SECONDS: Final = 60.0
# A ping is sent after so much of that time.
_PING_PART: Final = 2 / 3
# When many log in at once they wait for their passwords to be hashed. A server gives up a login after 60 s and says so;
# this is longer.
_LOGIN_PART: Final = 1.25
_LOOKS: Final = 12
_LOOK_MAX_SECONDS: Final = 60.0
# What a server sends by itself, or though it can do nothing.
_NO_ANSWERS: Final = (Users, Pong)


class Due(Enum):
    """What the server owes this client."""

    UNKNOWN = "what was heard was not looked at yet"
    NOTHING = "it may be silent"
    LOGIN = "the answer to a login"
    ANSWER = "an answer, or the confirmation of a message"


class WatchedSession(Protocol):
    """Knows what was asked and not answered. Both are read in the collector's thread."""

    @property
    def due(self) -> Due:
        """What the server owes."""

    @property
    def ping(self) -> Request | None:
        """What asks for a sign of life; None while there is no such request, or it would disturb something."""


class Watch:
    """Of one connection. Times are seconds of one clock. For the collector alone.

    It is not told when something is asked; it looks, at least ``_LOOKS`` times in the time of silence.
    """

    def __init__(self, debtor: WatchedSession, silence_seconds: float, now: float) -> None:
        self.debtor = debtor
        self._silence_seconds = silence_seconds
        self._login_seconds = silence_seconds * _LOGIN_PART
        self._heard_at = self._answered_at = now
        # Since when something is due, as far as it was seen.
        self._due_since: float | None = None
        # Since when it is not known what is due.
        self._unknown_since: float | None = None
        self._pinged_at = -math.inf

    def heard(self, events: Sequence[Event], now: float) -> None:
        """Bytes have come, and were these events. Without an event they are part of one, perhaps of a long history."""
        self._heard_at = now
        is_part = not events and self.debtor.due is not Due.LOGIN
        if is_part or not all(isinstance(event, _NO_ANSWERS) for event in events):
            self._answered_at = now

    def pinged(self, now: float) -> None:
        """A ping is sent."""
        self._pinged_at = now

    def look_at(self, now: float) -> float:
        """When to check next, unless something is heard before."""
        return now + min(self._silence_seconds / _LOOKS, _LOOK_MAX_SECONDS)

    def check(self, now: float) -> Request | None:
        """The ping that is to be sent now, if there is one. Raises TimeoutError: the server is lost."""
        due = self.debtor.due
        if due is Due.UNKNOWN:
            self._unknown_since = now if self._unknown_since is None else self._unknown_since
            return None
        # The program did something else for long, and may just be taking the answer.
        was_away = self._unknown_since is not None and now >= self._unknown_since + self._silence_seconds / 2
        self._unknown_since = None
        if due is Due.NOTHING:
            self._due_since = None
            if self._pinged_at < self._heard_at:
                is_silent = now >= self._heard_at + self._silence_seconds * _PING_PART
                return self.debtor.ping if is_silent else None
            if now >= self._heard_at + self._silence_seconds:
                raise TimeoutError(f"the server was silent for {self._silence_seconds:g} s")
            return None
        if self._due_since is None or was_away:
            self._due_since = now
        since = max(self._due_since, self._answered_at)
        if due is Due.LOGIN and now >= since + self._login_seconds:
            reason = "the server accepts connections and does not answer the login"
            raise TimeoutError(f"{reason} (within {self._login_seconds:g} s)")
        if due is Due.ANSWER and now >= since + self._silence_seconds:
            raise TimeoutError(f"the server gave no answer for {self._silence_seconds:g} s")
        return None
