"""Timeouts of a connection: when to send a ping, and when the server counts as lost. Pure.

A server can hang in two ways. A stopped server sends nothing: after some silence a ping is sent, and any byte is an
answer. A server with a hanging disk still sends lists of users and answers pings, but confirms nothing: while an answer
is expected, only other events restart the timeout. A login has its own limit, which a complete event restarts, but not
a part of an event. If another server can be tried, any byte must follow a login soon: a new server accepts
connections and says nothing only if it hangs.
"""

import math
from collections.abc import Sequence
from enum import Enum
from typing import Final, Protocol

from chatprotocol.events import Pong, Users
from chatprotocol.wire.base import ClientEvent, Outgoing, OwnAnswer

# Default of --silence-seconds. A json server sends the users online every 30 s, so pings are rare. Over UDP both sides
# use 60 s, too.
SILENCE_SECONDS: Final = 60.0
# Fraction of the silence limit after which a ping is sent.
_PING_FRACTION: Final = 2 / 3
# Login limit, as a multiple of the silence limit: many simultaneous logins wait for password hashing. A server ends a
# login after 60 s with an error. The limit is longer, so that the error arrives first.
_LOGIN_FACTOR: Final = 1.25
# Limit of the first byte after a login, if another server can be tried. A server answers the first request of a
# connection at once, but a busy one may need a second or two to read it.
_FIRST_ANSWER_SECONDS: Final = 5.0
# Longest interval of checks until then.
_FIRST_CHECK_SECONDS: Final = 1.0
_CHECKS: Final = 12
_CHECK_MAX_SECONDS: Final = 60.0
# Events that a server with a hanging disk still sends.
_NO_ANSWERS: Final = (Users, Pong, OwnAnswer)


class ExpectedAnswer(Enum):
    """The kind of answer that the server owes this client."""

    UNKNOWN = "unknown: received data was not processed yet"
    NOTHING = "nothing"
    LOGIN = "the answer to a login"
    ANSWER = "an answer, or the confirmation of a message"


class WatchedSession(Protocol):
    """The state of a session. Its properties are read in the receiver thread."""

    @property
    def expected_answer(self) -> ExpectedAnswer:
        """The kind of answer that the server owes."""

    @property
    def has_other_server(self) -> bool:
        """True if another server is tried if this one does not answer the login."""

    @property
    def ping(self) -> Outgoing | None:
        """The bytes of a ping; None if the protocol has none, or it would disturb an operation."""


class Watch:
    """Timeouts of one connection. For the receiver thread only. Times are seconds of one monotonic clock.

    Requests are not reported to a Watch. It polls the session at least ``_CHECKS`` times per silence limit.
    """

    def __init__(self, session: WatchedSession, silence_seconds: float, now: float) -> None:
        self._session = session
        self._silence_seconds = silence_seconds
        self._login_seconds = silence_seconds * _LOGIN_FACTOR
        self._received_at = self._answered_at = now
        self._has_received = False
        # Time of the first poll that found an expected answer, or None.
        self._owed_since: float | None = None
        # Time of the first poll that found the state unknown, or None.
        self._unknown_since: float | None = None
        self._pinged_at = -math.inf

    def note_received(self, events: Sequence[ClientEvent], now: float) -> None:
        """Record bytes that completed these events. Without events the bytes are a part of one, such as a history."""
        self._received_at, self._has_received = now, True
        is_part = not events and self._session.expected_answer is not ExpectedAnswer.LOGIN
        if is_part or not all(isinstance(event, _NO_ANSWERS) for event in events):
            self._answered_at = now

    def note_ping(self, now: float) -> None:
        """Record that a ping was sent."""
        self._pinged_at = now

    def next_check_at(self, now: float) -> float:
        """Time of the next check()."""
        longest = _CHECK_MAX_SECONDS if self._has_received else _FIRST_CHECK_SECONDS
        return now + min(self._silence_seconds / _CHECKS, longest)

    def check(self, now: float) -> Outgoing | None:
        """The ping to send now, or None. Raises TimeoutError if the server is lost."""
        expected = self._session.expected_answer
        if expected is ExpectedAnswer.UNKNOWN:
            self._unknown_since = now if self._unknown_since is None else self._unknown_since
            return None
        # True if the program did not read for a long time. The answer may then wait in the inbox.
        was_blocked = self._unknown_since is not None and now >= self._unknown_since + self._silence_seconds / 2
        self._unknown_since = None
        if expected is ExpectedAnswer.NOTHING:
            self._owed_since = None
            if self._pinged_at < self._received_at:
                is_silent = now >= self._received_at + self._silence_seconds * _PING_FRACTION
                return self._session.ping if is_silent else None
            if now >= self._received_at + self._silence_seconds:
                raise TimeoutError(f"the server was silent for {self._silence_seconds:g} s")
            return None
        if self._owed_since is None or was_blocked:
            self._owed_since = now
        since = max(self._owed_since, self._answered_at)
        if expected is ExpectedAnswer.LOGIN and not self._has_received and self._session.has_other_server:
            seconds = min(_FIRST_ANSWER_SECONDS, self._silence_seconds)
            if now >= since + seconds and math.isfinite(self._silence_seconds):
                raise TimeoutError(f"the server accepts connections and says nothing (within {seconds:g} s)")
        if expected is ExpectedAnswer.LOGIN and now >= since + self._login_seconds:
            reason = "the server accepts connections and does not answer the login"
            raise TimeoutError(f"{reason} (within {self._login_seconds:g} s)")
        if expected is ExpectedAnswer.ANSWER and now >= since + self._silence_seconds:
            raise TimeoutError(f"the server gave no answer for {self._silence_seconds:g} s")
        return None
