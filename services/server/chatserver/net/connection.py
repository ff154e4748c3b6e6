"""A connection: one accepted peer, the thread that reads it, and the outbox through which the courier answers."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog

from chatprotocol.wire import BYTE_ORDER_MARK, Sniff, sniff
from chatserver.net.sendqueue import SendQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chatprotocol.requests import Request
    from chatprotocol.wire import RequestDecoder, WireProtocol
    from chatserver.net.broadcast import BroadcastBuffer
    from chatserver.net.sender import Sender
    from chatserver.net.transport import Transport

_log = structlog.get_logger()

# A quiet connection waits with a small buffer, for there may be ten thousand of them. One that sends more than that at
# once gets a large one until it is quiet again. Who is not logged in does not: what is read at once is held until it is
# answered, and may be thousands of requests.
_READ_BYTES = 448
_READ_MAX_BYTES = 64 * 1024
# How long a read may take once there is no limit.
_FOREVER_SECONDS = 86_400.0
# After our last byte a peer gets this long to close its side.
_PARTING_SECONDS = 2.0


class Session(Protocol):
    """Who decides what is answered. One for each connection, called by its reader thread, but for say_bye."""

    @property
    def is_logged_in(self) -> bool:
        """From then on the connection may be silent for as long as it likes."""

    def handle(self, asked: Sequence[Request]) -> bool:
        """Answer what was asked, in order; false when the connection has come to its end.

        It may wait: for the disk, for a hash, for its peer to read.
        """

    def time_out(self) -> None:
        """The time to log in has passed, or the one to complete what was begun."""

    def end(self) -> None:
        """The peer sends no more."""

    def send_bye(self) -> None:
        """The server shuts down: say so where there is a word for it, and soon nothing more. For any thread."""


@dataclass(frozen=True)
class ConnectionServices:
    """What a connection needs of the server around it."""

    # All that are spoken here, in sniffing order, and the stream of each by its name.
    protocols: tuple[WireProtocol, ...]
    broadcasts: Mapping[str, BroadcastBuffer]
    sender: Sender
    # The time from connecting to being logged in; after that, how long the rest of what was begun may fail to come.
    login_seconds: float
    # Makes the session of a connection, from its dialect's name, its outbox, its label and its peer's address.
    open_session: Callable[[str, SendQueue, str, str], Session]
    clock: Callable[[], float] = time.monotonic


class Connection:
    """Reads one carrier in a thread of its own. Once it has an outbox, writing and closing are the courier's."""

    __slots__ = (
        "_address",
        "_leaving",
        "_login_by",
        "_on_end",
        "_patience_seconds",
        "_protocol",
        "_read_bytes",
        "_send_queue",
        "_services",
        "_session",
        "_stopping",
        "_transport",
        "label",
        "thread",
    )

    def __init__(
        self,
        transport: Transport,
        address: str,
        number: int,
        services: ConnectionServices,
        on_end: Callable[[Connection], None],
        protocol: WireProtocol | None = None,
    ) -> None:
        """Without a dialect, it shows in what the peer says first."""
        self.label = f"{number}@{address}"
        self._transport = transport
        self._address = address
        self._protocol = protocol
        self._services = services
        self._on_end = on_end
        self._login_by = services.clock() + services.login_seconds
        self._patience_seconds = services.login_seconds
        self._read_bytes = _READ_BYTES
        self._send_queue: SendQueue | None = None
        self._session: Session | None = None
        self._stopping = False
        # True while the session ends.
        self._leaving = False
        # It is joined by its owner. As a daemon it is not joined by the interpreter as well, which looks through all
        # threads that there are whenever one is started.
        self.thread = threading.Thread(target=self._run, name=f"reader {self.label}", daemon=True)

    def start(self) -> None:
        """Start to read. RuntimeError: the system has no thread to give."""
        self.thread.start()

    def join(self) -> None:
        """Wait for the reader thread's end."""
        self.thread.join()

    def drain(self) -> None:
        """The server shuts down: say goodbye. The reader thread ends when the peer has closed its side, or is cut off.

        Until then it reads, and once everything was said forgets what it reads. To close over unread bytes, or to shut
        the side that reads, would destroy what is on its way to the peer.
        """
        self._stopping = True
        if self._session is None:  # nothing is due to it, and in no dialect
            self.disconnect()
        else:
            self._session.send_bye()

    def has_been_told(self) -> bool:
        """Has the peer's system got everything that there was to say to it?"""
        send_queue = self._send_queue
        return (
            send_queue is None or send_queue.broken or (send_queue.shut and not self._transport.unacknowledged_bytes())
        )

    def disconnect(self) -> None:
        """The peer has had its time: let the reader thread end."""
        self._transport.hang_up()

    def _run(self) -> None:
        try:
            self._converse()
        except Exception:
            _log.exception("reader failed", connection=self.label)
            if self._leaving:  # its user would stay online for ever: what is raised in a thread ends the server
                raise
        finally:
            try:
                self._close()
            finally:
                self._on_end(self)

    def _close(self) -> None:
        """For good, after what is due was sent."""
        self._transport.stop_reading()
        if self._send_queue is None:
            self._transport.close()
        else:
            self._send_queue.finish()
            self._services.sender.close_when_drained(self._send_queue)

    def _converse(self) -> None:
        """From the first byte to the last."""
        protocol, first = self._meet()
        if protocol is None:
            return
        self._send_queue = SendQueue(
            self._transport, self._services.broadcasts[protocol.name], self.label, self._services.sender.mark_ready
        )
        self._transport.call_when_due(partial(self._services.sender.mark_ready, self._send_queue))
        self._services.sender.add()
        self._session = self._services.open_session(protocol.name, self._send_queue, self.label, self._address)
        peer_ended = False
        try:
            peer_ended = self._read_requests(protocol.request_decoder(), self._send_queue, self._session, first)
        finally:
            if not self._stopping:
                self._leaving = True
                self._session.end()
                self._leaving = False
            self._send_queue.finish()
        if not peer_ended:
            self._drain()

    def _read_requests(
        self, decoder: RequestDecoder, send_queue: SendQueue, session: Session, data: bytes | None
    ) -> bool:
        """Until the peer ends, or the session does; returns whether it was the peer."""
        while data:
            if not send_queue.wait_for_room() or not session.handle(decoder.decode(data)):
                return False
            is_known = session.is_logged_in
            data = self._read(is_known=is_known, is_inside=decoder.is_inside)
            if data is None and not is_known and session.is_logged_in:  # meanwhile, by what another connection said
                data = self._read(is_known=True, is_inside=decoder.is_inside)
        if data is None:
            session.time_out()
            return False
        if not self._stopping:  # who was cut off has not ended inside an object
            session.handle(decoder.end())
        return True

    def _meet(self) -> tuple[WireProtocol | None, bytes | None]:
        """The dialect, and the first bytes in it."""
        if self._protocol is None:
            return self._sniff()
        return self._protocol, self._read(is_known=False, is_inside=True)

    def _sniff(self) -> tuple[WireProtocol | None, bytes]:
        """Read until the first bytes say which dialect this is; they are its first input."""
        first = b""
        while data := self._read(is_known=False, is_inside=True):
            first += data
            found = sniff(first, self._services.protocols)
            if found is Sniff.NO:
                # No more of it: it may be a password.
                first_bytes = first[:2].hex(" ")
                _log.warning(
                    "connection rejected", reason="unknown_protocol", connection=self.label, first_bytes=first_bytes
                )
                self._reject(f"There is no dialect whose connections begin with the bytes {first_bytes}.")
                return None, b""
            if not isinstance(found, Sniff):
                return found, first.removeprefix(BYTE_ORDER_MARK)
        if data is None:
            _log.warning("connection rejected", reason="silent", connection=self.label)
            self._reject(f"Nothing was said for {self._services.login_seconds:g} s.")
        return None, b""

    def _read(self, *, is_known: bool, is_inside: bool) -> bytes | None:
        """The next bytes; nothing at the end, None when they did not come in time.

        Whoever is known may be silent for as long as it likes, but not inside of something that has begun.
        """
        if not is_known:
            self._patience_seconds = self._login_by - self._services.clock()
        elif is_inside:
            self._patience_seconds = self._services.login_seconds
        elif self._patience_seconds < self._services.login_seconds:
            self._patience_seconds = _FOREVER_SECONDS
        # Otherwise it stays as it is: to change it is a system call.
        if is_inside:
            self._transport.acknowledge()
        while self._patience_seconds > 0:
            try:
                data = self._transport.read(self._read_bytes, self._patience_seconds)
            except TimeoutError:
                if is_inside or not is_known:
                    return None
                self._patience_seconds = _FOREVER_SECONDS
                continue
            except OSError:
                return b""
            self._read_bytes = _READ_MAX_BYTES if is_known and len(data) >= _READ_BYTES else _READ_BYTES
            return data
        return None

    def _reject(self, reason: str) -> None:
        """One line of text for a peer whose dialect is not known."""
        openings = ", or ".join(
            f"{_printable(protocol.opening)} ({protocol.name})"
            for protocol in self._services.protocols
            if protocol.opening
        )
        with suppress(OSError):
            line = f"This is a chat room server. {reason} Begin with {openings}.\n"
            self._transport.write([line.encode()])
        self._transport.end()
        self._drain()

    def _drain(self) -> None:
        """Read and forget until the peer closes: closing over unread bytes would destroy what it has not read."""
        deadline = self._services.clock() + (_FOREVER_SECONDS if self._stopping else _PARTING_SECONDS)
        with suppress(OSError):
            while (patience := deadline - self._services.clock()) > 0:
                if not self._transport.read(_READ_MAX_BYTES, patience):
                    return


def _printable(text: str) -> str:
    return text.encode("unicode_escape").decode()
