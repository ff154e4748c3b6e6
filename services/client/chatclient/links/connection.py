"""The connection to the server: the receiver thread, and reconnecting.

Threads. The receiver thread connects, receives, and reconnects. It puts events and signals into the inbox, in order,
and blocks while the inbox is full. close(), and the link's send() and shut_down(), are for any thread. The receiver
thread closes a link after receive() has returned. A later send() or shut_down() of the link has no effect.

Signals. LinkUp, then the events of the connection, then LinkDown; again after each reconnect. LinkDown may follow
LinkDown, with the reasons why all servers of a list failed. LinkLost is the last one: the first connect failed, the
time for reconnects is over, the server ended the connection on purpose (a Bye with a code), or close() was called.
After LinkLost, start() can be called again.

Reconnects. Until the first login each server of the list is tried once (a round: see servers.py), because the user can
read the error. After a login the connection is tried again, round after round, until `retry_seconds` have passed. This
time begins again only after a connection that served the user: see _note_loss(). A refusal that is about the user,
such as a wrong password, ends the round: the other servers would answer the same. So does a server that has asked for
the password, because the user may be typing.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from chatclient.inbox import Inbox
from chatclient.links.servers import SERVER_REFUSALS, Rotation
from chatprotocol.address import Address, format_address
from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import Bye, PasswordPrompt, Refused, Welcome
from chatprotocol.wire.base import ClientEvent

# Timeout of the first round, shared by the servers of the list.
CONNECT_SECONDS = 10.0
# Timeout of a reconnect: short, because a host that is shutting down may not answer at all. Also the least timeout of a
# server in the first round.
_CONNECT_AGAIN_SECONDS = 2.0
# Pause before a round of reconnects: doubled each time, up to the maximum, and randomized, so that the clients of a
# restarted server do not reconnect all at once.
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
# Minimum time from login to loss: a server that ends a connection earlier, and sent no event on it, counts as down.
_STEADY_SECONDS = 5.0
# Maximum wait for the receiver thread in close(). A name lookup or a connect can't be interrupted; the thread then ends
# some seconds later, or with the process.
_CLOSE_SECONDS = 1.0


class Link(Protocol):
    """An open connection. Over UDP the first bytes open the session. Bytes sent after its end are dropped.

    send() and shut_down() are for any thread, the other methods for the receiver thread.
    """

    def send(self, data: bytes, connection: int = 0) -> None:
        """Send bytes without blocking. If that fails, the connection ends and the receiver thread reports it."""

    def shut_down(self) -> None:
        """End the connection. Its receiver thread closes it."""

    def receive(self, report: Callable[[ClientEvent], None]) -> str:
        """Report events until the connection ends. Returns the reason. Raises OSError, ProtocolError."""

    def close(self) -> None:
        """Release the sockets. Called after receive(), when no other thread can use the link."""


class LinkUp(NamedTuple):
    """A new connection to this server is open; nothing was sent on it."""

    link: Link
    server: Address
    # True if another server is tried next if this one refuses the login for a reason of its own.
    tries_next: bool = False


class LinkDown(NamedTuple):
    """The connection is lost; reconnecting."""

    reason: str
    # True if another server of the list is tried first. If all fail, LinkDown follows without it.
    tries_next: bool = False


class LinkLost(NamedTuple):
    """The connection is lost, and no reconnect follows."""

    reason: str


Signal = LinkUp | LinkDown | LinkLost


class Connection:
    """Receives events in its own thread, the receiver thread, and reconnects after a loss.

    ``open_link`` connects to an address within a timeout in seconds, or raises OSError or UnicodeError. ``inbox`` gets
    every event and signal, in order. While it is full, nothing is received.

    Tests replace the other arguments: ``monotonic`` is the clock, ``closing`` ends the pauses when it is set,
    ``jitter`` returns the share of a pause to wait, between two bounds, and ``shuffle`` returns some of the servers, in
    a random order.
    """

    def __init__(
        self,
        open_link: Callable[[Address, float], Link],
        retry_seconds: float,
        inbox: Inbox,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        closing: threading.Event | None = None,
        jitter: Callable[[float, float], float] = random.uniform,
        shuffle: Callable[[Sequence[Address], int], Sequence[Address]] = random.sample,
    ) -> None:
        self._open_link = open_link
        self._retry_seconds = retry_seconds
        self.inbox = inbox
        self._report: Callable[[ClientEvent | Signal], None] = inbox.put_received
        self._monotonic = monotonic
        self._closing = closing or threading.Event()
        self._jitter = jitter
        self._shuffle = shuffle
        # Guards _link: the receiver thread replaces and closes it, close() shuts it down.
        self._lock = threading.Lock()
        self._link: Link | None = None
        # For the receiver thread only; start() sets the first two while there is none. _was_served: an event other than
        # an error or goodbye followed the login. _was_unavailable: the server then refused a request as unavailable.
        # _is_about_user: another server of the list would give the same answer.
        self._servers: Sequence[Address] = ()
        self._rotation = Rotation([("", 0)])
        self._welcome_at: float | None = None
        self._was_served = self._was_unavailable = self._is_about_user = False
        # The reason of a Bye with a code, or "".
        self._final_reason = ""
        self._retry_until: float | None = None
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._receiver = threading.Thread(target=self._run, name="receiver", daemon=True)

    def start(self, servers: Sequence[Address]) -> None:
        """Start the receiver thread. Can be called again after LinkLost; then the last server is tried first."""
        if self._receiver.ident is not None:
            self._receiver.join()
            self._receiver = threading.Thread(target=self._run, name="receiver", daemon=True)
        if self._servers == servers:
            self._rotation.begin_round(with_current=True)
        else:
            self._servers = servers
            self._rotation = Rotation(self._shuffle(servers, len(servers)))
        self._receiver.start()

    def close(self) -> None:
        """End the connection. The receiver thread reports LinkLost and ends; this call waits 1 s at most for that."""
        self._closing.set()
        with self._lock:
            if self._link is not None:
                self._link.shut_down()
        if self._receiver.ident is not None:
            self._receiver.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            reason = self._connect_next()
            while not reason:
                reason = self._receive_events()
                if self._closing.is_set():
                    reason = "the client closed the connection"  # instead of the socket's error
                elif self._final_reason:
                    reason = self._final_reason
                else:
                    reason = self._connect_again(reason)
            self._report(LinkLost(reason))
        except Exception as error:  # a bug; without the report the client would wait forever
            self._report(LinkLost(f"the receiver thread failed: {error!r}"))
            raise

    def _connect_next(self) -> str:
        """Connect to a server that the round has left. Returns the errors of the round, or "" if connected."""
        is_first = self._retry_until is None
        seconds = CONNECT_SECONDS / len(self._servers) if is_first else _CONNECT_AGAIN_SECONDS
        while self._rotation.has_next and not self._closing.is_set():
            reason = self._connect(self._rotation.take(), max(seconds, _CONNECT_AGAIN_SECONDS))
            if not reason:
                return ""
            self._rotation.note_failure(reason)
        return self._rotation.failures or "the client closed the connection"

    def _connect(self, server: Address, seconds: float) -> str:
        """Connect once. Returns the error, or "" if connected."""
        try:
            link = self._open_link(server, seconds)
        except (OSError, UnicodeError) as error:  # UnicodeError: an invalid domain name
            return f"can't reach {format_address(server)}: {getattr(error, 'strerror', None) or error}"
        with self._lock:
            self._link = link
        if self._closing.is_set():
            link.shut_down()
        self._report(LinkUp(link, server, self._rotation.has_other))
        return ""

    def _connect_again(self, reason: str) -> str:
        """Report the loss, and connect, with increasing pauses. Returns the error at the end, or "" if connected."""
        reason = self._note_loss(reason)
        tries_next = self._rotation.has_other
        self._report(LinkDown(reason, tries_next))
        while not self._closing.is_set():
            if not self._rotation.has_next:
                if self._retry_until is None:
                    break
                if tries_next:
                    tries_next = False
                    self._report(LinkDown(reason))
                self._rotation.begin_round()
            if self._rotation.is_fresh and self._retry_until is not None:
                is_over = self._monotonic() >= self._retry_until
                if is_over or self._closing.wait(self._pause_seconds * self._jitter(0.5, 1.0)):
                    break
                self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
            reason = self._connect_next()
            if not reason:
                break
        return reason

    def _note_loss(self, reason: str) -> str:
        """Begin a round, or note a failure. Returns the reason, or those of all servers if the round is over.

        The time limit restarts only after a connection that was served. A server counts as down if it accepts
        connections and serves none: a full server, a proxy without a server, a server that crashes at each login, or
        one that accepts logins and is unavailable for messages.
        """
        now = self._monotonic()
        was_steady = self._welcome_at is not None and now >= self._welcome_at + _STEADY_SECONDS
        was_served = self._was_served and not self._was_unavailable
        if self._welcome_at is not None and (self._retry_until is None or was_served or was_steady):
            self._retry_until = now + self._retry_seconds
            self._pause_seconds = _FIRST_PAUSE_SECONDS
            self._rotation.begin_round()
        else:
            self._rotation.note_failure(reason)
            if self._is_about_user:
                self._rotation.end_round()
        self._welcome_at, self._was_served, self._was_unavailable = None, False, False
        return reason if self._rotation.has_next else self._rotation.failures

    def _receive_events(self) -> str:
        """Report events until the connection ends. Returns the reason."""
        assert self._link is not None
        self._is_about_user = False
        try:
            reason = self._link.receive(self._on_event)
        except OSError as error:
            reason = error.strerror or str(error)
        except ProtocolError as error:
            reason = str(error)
        self._link.shut_down()  # requests of other threads fail from now on
        with self._lock:
            self._link.close()
        return reason

    def _on_event(self, event: ClientEvent) -> None:
        if isinstance(event, Welcome):
            self._welcome_at = self._monotonic()
        elif self._welcome_at is not None:
            self._was_served = self._was_served or not isinstance(event, Bye | Refused)
            self._was_unavailable |= isinstance(event, Refused) and event.code is ErrorCode.UNAVAILABLE
        elif isinstance(event, PasswordPrompt):
            self._is_about_user = True
        elif isinstance(event, Refused) and event.code is not ErrorCode.NOT_LOGGED_IN:
            # NOT_LOGGED_IN: the time for the login is over, also for a user who is typing; or a guest is rejected.
            self._is_about_user = event.code not in SERVER_REFUSALS
        if isinstance(event, Bye) and event.code is not None:
            self._final_reason = event.reason or str(event.code)
        self._report(event)
