"""The connection to the server: the thread that collects from it, and connecting again."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from chatclient import session
from chatprotocol.address import format_address
from chatprotocol.errors import ProtocolError
from chatprotocol.events import Bye, Refused, Registered, Welcome
from chatprotocol.requests import Side

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatprotocol.address import Address
    from chatprotocol.events import Event

CONNECT_SECONDS = 10.0
# A try that comes while the server's machine or container is just going may get no answer at all.
_CONNECT_AGAIN_SECONDS = 2.0
# Pauses between two tries to connect again: doubled each time, up to the longest, with a random part so that the
# clients of a server that was restarted do not come all at once.
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
# A server that lets somebody in, says nothing and falls over before that is as one that is not there yet.
_STEADY_SECONDS = 5.0
# Nothing can interrupt the collector while it looks for a name or reaches for a server that does not answer. It ends by
# itself then, some seconds later or with the process: nobody who leaves need wait for that.
_CLOSE_SECONDS = 1.0


class Link(session.Link, Protocol):
    """A connection that stands; over UDP its first request will open it. What is sent after its end is lost."""

    def receive(self, report: Callable[[Event], None]) -> str:
        """Report all that comes until the connection ends; returns why it did. Raises OSError, ProtocolError."""

    def close(self) -> None:
        """For the collector, when nobody uses it any more."""


class LinkUp(NamedTuple):
    """There is a link; nothing was said yet."""

    link: Link


class LinkDown(NamedTuple):
    """The connection is lost; a new one is being tried."""

    reason: str


class LinkLost(NamedTuple):
    """There is no connection, and no more will be tried."""

    reason: str


Signal = LinkUp | LinkDown | LinkLost


class Connection:
    """Collects what the server says, in a thread of its own, and connects again when the connection is lost.

    ``open_link`` reaches the server at an address, in so many seconds, or raises OSError or UnicodeError. ``report`` is
    given every event and signal, in order, by the collector thread; it must not wait.
    """

    def __init__(
        self,
        open_link: Callable[[Address, float], Link],
        retry_seconds: float,
        report: Callable[[Event | Signal], None],
    ) -> None:
        self._open_link = open_link
        self._retry_seconds = retry_seconds
        self._report = report
        self._closing = threading.Event()
        # Guards the link: the collector replaces it, others shut it.
        self._lock = threading.Lock()
        self._link: Link | None = None
        # The collector's own: where the server is, when it let us in, and whether it said more then than goodbye; when
        # to give up, and how long the next pause is.
        self._address: Address = ("", 0)
        self._welcome_at: float | None = None
        self._was_served = False
        self._give_up_at: float | None = None
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._receiver = threading.Thread(target=self._run, name="receiver", daemon=True)

    def start(self, address: Address) -> None:
        """Start to connect and to collect; once more after it was lost for good, if that was wanted."""
        if self._receiver.ident is not None:
            self._receiver.join()
            self._receiver = threading.Thread(target=self._run, name="receiver", daemon=True)
        self._address = address
        self._receiver.start()

    def close(self) -> None:
        """End the connection; the collector reports it lost, and ends, unless it is just connecting."""
        self._closing.set()
        with self._lock:
            if self._link is not None:
                self._link.shut_down()
        if self._receiver.ident is not None:
            self._receiver.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            reason = self._connect(CONNECT_SECONDS)
            while not reason:
                reason = self._collect()
                if self._closing.is_set():
                    reason = "the client closed the connection"  # whatever its socket says about it
                else:
                    self._report(LinkDown(reason))
                    reason = self._connect_again(reason)
            self._report(LinkLost(reason))
        except Exception as error:  # a fault of this program; without the report nobody would notice
            self._report(LinkLost(f"the collector failed: {error!r}"))
            raise

    def _connect(self, seconds: float) -> str:
        """Connect once; returns why it failed, or nothing."""
        try:
            link = self._open_link(self._address, seconds)
        except (OSError, UnicodeError) as error:  # UnicodeError: the name can't be one of the domain name system
            return f"can't reach {format_address(self._address)}: {getattr(error, 'strerror', None) or error}"
        with self._lock:
            self._link = link
        if self._closing.is_set():
            link.shut_down()
        self._report(LinkUp(link))
        return ""

    def _connect_again(self, reason: str) -> str:
        """Connect, with growing pauses; returns why it failed for good, or nothing.

        A server that takes connections and serves nobody (it is full, or it is a proxy without one, or it falls over
        each time) is as good as none: patience does not begin anew.
        """
        now = time.monotonic()
        if self._welcome_at is not None and (self._give_up_at is None or self._was_served or self._has_stood(now)):
            self._give_up_at = now + self._retry_seconds
            self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._welcome_at, self._was_served = None, False
        while reason:
            if self._give_up_at is None or time.monotonic() >= self._give_up_at:
                return reason
            if self._closing.wait(self._pause_seconds * random.uniform(0.5, 1.0)):  # noqa: S311 - not a secret
                return reason
            self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
            reason = self._connect(_CONNECT_AGAIN_SECONDS)
        return ""

    def _has_stood(self, now: float) -> bool:
        return self._welcome_at is not None and now >= self._welcome_at + _STEADY_SECONDS

    def _collect(self) -> str:
        """Report everything that comes until the connection ends; returns why it did."""
        assert self._link is not None
        try:
            reason = self._link.receive(self._take)
        except OSError as error:
            reason = error.strerror or str(error)
        except ProtocolError as error:
            reason = str(error)
        self._link.shut_down()  # whoever is sending must not wait for a socket that is closed
        with self._lock:
            self._link.close()
        return reason

    def _take(self, event: Event) -> None:
        if _is_welcome(event):
            self._welcome_at = time.monotonic()
        elif self._welcome_at is not None and not isinstance(event, Bye | Refused):
            self._was_served = True
        self._report(event)


def _is_welcome(event: Event) -> bool:
    """Has the server let us in? A guest with the second of its connections."""
    return isinstance(event, Welcome) or (isinstance(event, Registered) and event.side is Side.RECEIVING)
