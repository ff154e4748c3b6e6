"""A connection: the thread that reads one accepted peer, decodes its requests and passes them to a session.

Life of a reader thread: complete a TLS handshake if the first byte begins one; sniff the protocol from the first bytes
(over TCP), or reject the peer; create the send queue and the session; read until the peer or the session ends; end the
session; drain the input; hand the transport to the sender, which closes it. Until the send queue exists, the reader
alone uses the transport. After that the reader only reads, and the sender writes and closes.

A connection from a trusted proxy begins with the peer's address: in a header of the PROXY protocol, of which never a
byte too much is read, or in the head of an HTTP request, whose bytes then go to the protocol as well. The address
decides about the limits, so it is read first. A proxy of HTTP may use one connection for several clients, so such a
connection serves one request (``behind_proxy``).

Time limits: ``login_seconds``, or less (:meth:`~Connection.shorten_login`), from the start to the login, header
included; after the login ``login_seconds`` for the rest of an incomplete request, and no limit between requests. Two
exceptions: a browser's connection that has fetched a file is closed after a short silence, and a protocol with
``idle_seconds`` sends a ping after this silence, and ends after another one.

At shutdown another thread calls ``drain``: the session sends its last events, and the reader continues to read. A close
with unread input would reset the connection, and the peer would lose data that it has not read.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from chatprotocol.errors import ProtocolError
from chatprotocol.events import Bye
from chatprotocol.requests import ChangeEncoding, Handled, Relay
from chatprotocol.wire import BYTE_ORDER_MARK, Sniff, proxy, sniff
from chatprotocol.wire.http import HttpError, encode_text, read_head
from chatserver.counters import Counters
from chatserver.net.limits import RefusedError
from chatserver.net.sendqueue import ANSWER_MAX_BYTES, SendQueue, State
from chatserver.net.tls import ALERT_FULL, ALERT_NO_TLS, FIRST_BYTE, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from chatprotocol.events import Refused
    from chatprotocol.requests import Request
    from chatprotocol.wire import ServerProtocol, WireProtocol
    from chatserver.net.broadcast import BroadcastBuffer
    from chatserver.net.limits import ConnectionLimits
    from chatserver.net.sender import Sender
    from chatserver.net.tls import TlsAcceptor
    from chatserver.net.transport import Transport

_log = structlog.get_logger()

# Size of a read. Quiet connections wait with a small buffer, because there may be ten thousand of them. After a read
# that fills the small buffer, the next read of a logged-in user has the large one. Before the login all reads are
# small: the requests of one read are held in memory until they are answered, and a large read may contain thousands.
_READ_BYTES = 448
# A large read and the incomplete line before it have less than LINE_MAX_BYTES together, which json parses in one call.
# With 64 KiB each message took ten times as long.
_READ_MAX_BYTES = 56 * 1024
# Maximum read from a peer whose requests have a rate: a larger read has thousands, which are parsed at once.
_READ_LIMITED_BYTES = 4 * 1024
# Timeout that means no time limit.
_NO_LIMIT_SECONDS = 86_400.0
# Silence after which a connection that has fetched files is closed. Browsers keep six of them, and an address has 16.
_KEEP_ALIVE_SECONDS = 5.0
# Time for the first bytes of a peer that is refused.
_REFUSED_SECONDS = 1.0
# Requests without an answer, which would send the protocol's own answers as well.
_UNANSWERED = frozenset({ChangeEncoding, Handled, Relay})
# Time for the peer to close its side after our last byte.
_CLOSE_SECONDS = 2.0


class Session(Protocol):
    """Answers the requests of one connection. For its reader thread only, except where a method says otherwise."""

    @property
    def is_logged_in(self) -> bool:
        """True after the login: the time between requests is then not limited. For any thread."""

    @property
    def username(self) -> str:
        """The user's name; empty before the login. For any thread."""

    @property
    def takes_large_reads(self) -> bool:
        """True if a large read costs no more than its requests are allowed to."""

    @property
    def is_paused(self) -> bool:
        """True while the session makes a peer wait that sends too often. For any thread."""

    @property
    def awaits_turn(self) -> bool:
        """True while a login waits for its turn among other tries. For any thread."""

    @property
    def awaits_commit(self) -> bool:
        """True if messages of this read are not confirmed yet: the confirmations will wake the sender."""

    def handle(self, incoming: Iterable[Request]) -> bool:
        """Answer the requests in order, each before the next one is taken. False if the connection ends.

        The call may wait for the disk, for a password hash, and for the peer to read.
        """

    def time_out(self, seconds: float) -> None:
        """Handle the timeout of the login or of an incomplete request, which was ``seconds``."""

    def end(self) -> None:
        """End the session after the last request."""

    def send_bye(self) -> None:
        """Send the last events at shutdown; finishes the send queue, at once or after the last answers. Any thread."""

    def give_way(self) -> None:
        """End a login that waits for its turn, with an error; finishes the send queue. For any thread."""


@dataclass(frozen=True)
class ConnectionServices:
    """The services that all connections share."""

    # All protocols in the order of sniffing.
    protocols: tuple[WireProtocol, ...]
    sender: Sender
    # Time limit of the login, and then of the rest of an incomplete request.
    login_seconds: float
    # Returns the session for a send queue, the connection's label, the peer's address, and whether it is exempt from
    # limits.
    open_session: Callable[[SendQueue, str, str, bool], Session]
    limits: ConnectionLimits
    # See SendQueue.
    overflow: BroadcastBuffer | None = None
    answer_max_bytes: int = ANSWER_MAX_BYTES
    # None: there is no TLS.
    tls: TlsAcceptor | None = None
    # The protocols of connections whose first request has the client's address, because a trusted proxy sent it.
    behind_proxy: tuple[WireProtocol, ...] = ()
    # The error for a connection without TLS; None if TLS is not required.
    tls_required: Refused | None = None
    clock: Callable[[], float] = time.monotonic
    counters: Counters = field(default_factory=Counters)


class ConnectionInfo(NamedTuple):
    """A connection, as administrators see it."""

    number: int
    # Empty before the login.
    user: str
    # Empty before the first bytes.
    protocol: str
    address: str
    # Since the connection was accepted.
    seconds: int
    # Data that waits until the peer reads.
    unread_bytes: int


class Connection:
    """One connection and its reader thread. See the module's docstring."""

    def __init__(
        self,
        transport: Transport,
        address: str,
        number: int,
        services: ConnectionServices,
        on_end: Callable[[Connection], None],
        protocol: WireProtocol | None = None,
        *,
        network: str | None = None,
        is_proxied: bool = False,
    ) -> None:
        """Without ``protocol``, the first bytes decide. ``on_end`` is called last, in the reader thread.

        ``is_proxied``: the connection begins with the peer's address.
        """
        self.label = f"{number}@{address}"
        # The network that counts the connection, which ``on_end`` releases. For the reader thread, after the start.
        self.network = network
        self._number = number
        self._is_proxied = is_proxied
        # True while the reader waits for input before the login. Other threads read it.
        self._is_waiting = False
        self._transport = transport
        self._address = address
        self._protocol = protocol
        self._services = services
        self._on_end = on_end
        # Time limit of the login.
        self.login_seconds = services.login_seconds
        self._login_by = services.clock() + self.login_seconds
        self._timeout_seconds = self.login_seconds
        self._read_bytes = _READ_BYTES
        # Longest silence of a peer that is logged in.
        self._idle_seconds = _NO_LIMIT_SECONDS
        self._server: ServerProtocol | None = None
        self._send_queue: SendQueue | None = None
        self._session: Session | None = None
        self._stopping = False
        # True after :meth:`displace`. The reader reads it after it has set the send queue.
        self._is_displaced = False
        # True while the session ends.
        self._ending_session = False
        # Connections joins the thread. It is a daemon because the interpreter scans a list of all non-daemon threads at
        # each start of a thread.
        self.thread = threading.Thread(target=self._run, name=f"reader {self.label}", daemon=True)

    def start(self) -> None:
        """Start the thread. Raises RuntimeError if the system can't create one."""
        self.thread.start()

    def join(self) -> None:
        self.thread.join()

    def info(self) -> ConnectionInfo:
        """A description for administrators. For any thread."""
        session, send_queue = self._session, self._send_queue
        return ConnectionInfo(
            self._number,
            session.username if session is not None else "",
            send_queue.protocol if send_queue is not None else "",
            self._address,
            round(self.seconds),
            max(send_queue.kept_bytes, send_queue.lag_bytes()) if send_queue is not None else 0,
        )

    def drain(self) -> None:
        """Send the last events, at shutdown. For any thread.

        The reader thread reads and discards input until the peer closes its side or :meth:`disconnect` is called.
        """
        self._stopping = True
        if self._session is None:  # the protocol is not known yet
            self.disconnect()
        else:
            self._session.send_bye()

    def shorten_login(self, seconds: float) -> None:
        """Reduce the time limit of the login. Call it before :meth:`start`."""
        self.login_seconds = min(self.login_seconds, seconds)
        self._login_by = self._services.clock() + self.login_seconds

    @property
    def seconds(self) -> float:
        """The time since the connection was accepted. For any thread."""
        return self._services.clock() - self._login_by + self.login_seconds

    @property
    def is_logged_in(self) -> bool:
        """True after the login. For any thread; a guest's other connection may log in both."""
        return self._session is not None and self._session.is_logged_in

    @property
    def is_silent(self) -> bool:
        """True if the connection is not logged in, and waits for input or is made to wait. For any thread."""
        is_paused = self._session is not None and self._session.is_paused
        return (self._is_waiting or is_paused) and not self.is_logged_in

    @property
    def awaits_turn(self) -> bool:
        """True if a login waits for its turn among other tries. For any thread."""
        return self._session is not None and self._session.awaits_turn

    def has_received_all(self) -> bool:
        """True if the peer's system has acknowledged all data, or the peer is lost. For any thread."""
        send_queue = self._send_queue
        return (
            send_queue is None
            or send_queue.state is State.CLOSED
            or (send_queue.state is State.SHUT and not self._transport.unacknowledged_bytes())
        )

    @property
    def protocol(self) -> str:
        """The name of the wire protocol; ``none`` if it is not known. For any thread."""
        return "none" if self._send_queue is None else self._send_queue.protocol

    @property
    def files_sent(self) -> int:
        """Number of files that the peer has fetched, if it did nothing else. For any thread."""
        return 0 if self._server is None else self._server.files_sent

    def displace(self) -> None:
        """End the connection, also if the session makes it wait: another one gets its slot. For any thread.

        A peer whose login waits for its turn gets an error; a silent one, which may not read, does not.
        """
        self._is_displaced = True
        if self._session is not None and self._session.awaits_turn:
            self._session.give_way()
            return
        if self._send_queue is not None:
            self._send_queue.finish(hang_up=True)
        self.disconnect()

    def disconnect(self) -> None:
        """Let the reader thread end, even if the peer has not closed its side. For any thread."""
        self._transport.hang_up()

    def _run(self) -> None:
        try:
            self._serve()
        except Exception:
            _log.exception("reader failed", connection=self.label)
            if self._ending_session:  # the user would stay online forever; an uncaught exception ends the server
                raise
        finally:
            try:
                self._close()
            finally:
                self._on_end(self)

    def _close(self) -> None:
        """Close the transport, or let the sender close it after all data was sent."""
        self._transport.stop_reading()
        if self._send_queue is None:
            self._transport.close()
        else:
            self._send_queue.finish()
            self._services.sender.close_when_drained(self._send_queue)

    def _serve(self) -> None:
        """Handle the connection from the first byte to the last."""
        protocol = self._protocol
        if protocol is not None:
            first = self._read(is_logged_in=False, is_incomplete=True)
        else:
            received = self._read_address() if self._is_proxied else b""
            if received is None:
                return
            protocols = self._services.behind_proxy if received else self._services.protocols
            protocol, first = self._sniff(received, protocols)
        if protocol is None:
            return
        self._server = server = protocol.server()
        self._idle_seconds = server.idle_seconds or _NO_LIMIT_SECONDS
        self._send_queue = SendQueue(
            self._transport,
            protocol.name,
            server.encode,
            self.label,
            self._services.sender.mark_ready,
            server.encode_long,
            self._services.overflow,
            self._services.answer_max_bytes,
        )
        self._transport.set_wake(partial(self._services.sender.mark_ready, self._send_queue))
        self._services.sender.add()
        if self._is_displaced:
            self._send_queue.finish(hang_up=True)
        is_exempt = self._services.limits.is_exempt(self._address)
        self._session = self._services.open_session(self._send_queue, self.label, self._address, is_exempt)
        peer_ended = False
        try:
            peer_ended = self._read_requests(server, self._send_queue, self._session, first)
        finally:
            if not self._stopping:
                self._ending_session = True
                self._session.end()
                self._ending_session = False
            self._send_queue.finish()
            self._services.counters.files_sent += server.files_sent
        if not peer_ended:
            self._drain()

    def _read_requests(
        self, protocol: ServerProtocol, send_queue: SendQueue, session: Session, data: bytes | None
    ) -> bool:
        """Read and handle requests until the peer or the session ends. True if the peer has ended."""
        while data:
            limit = None if session.is_logged_in else max(0.0, self._login_by - self._services.clock())
            if not send_queue.wait_for_room(limit):
                if send_queue.state < State.DRAINING:  # the peer has not read the answers
                    self._time_out(protocol, send_queue, session)
                return False
            found = protocol.receive(data)
            if not isinstance(found, list):
                found = with_own_answers(protocol, session, send_queue, found)
            if not session.handle(found):
                return False
            is_logged_in = session.is_logged_in
            data = self._read(is_logged_in=is_logged_in, is_incomplete=protocol.is_incomplete)
            # A guest may have logged in by a request on the other connection.
            if data is None and not is_logged_in and session.is_logged_in:
                data = self._read(is_logged_in=True, is_incomplete=protocol.is_incomplete)
        if data is None:
            self._time_out(protocol, send_queue, session)
            return False
        if not self._stopping:  # at shutdown incomplete input is not an error of the peer
            session.handle(protocol.receive_end())
        return True

    def _time_out(self, protocol: ServerProtocol, send_queue: SendQueue, session: Session) -> None:
        """Tell the peer why the connection ends after its silence."""
        if protocol.files_sent and not protocol.is_incomplete:
            return  # a browser that needs no more files
        if session.is_logged_in and not protocol.is_incomplete:
            _log.info("disconnected", reason="peer_lost", connection=self.label, detail="it answered no ping")
            send_queue.put([Bye(f"you did not answer a ping within {self._idle_seconds:g} s")])
        else:
            session.time_out(self._services.login_seconds if session.is_logged_in else self.login_seconds)

    def _read_address(self) -> bytes | None:
        """Read the peer's address, which a trusted proxy sends first. Returns the bytes for the protocol object.

        They are the beginning of an HTTP request with the address in it, or none after a header of the PROXY
        protocol. None if the connection ends.
        """
        self._read_bytes = proxy.missing_bytes(b"")
        received = self._read(is_logged_in=False, is_incomplete=True)
        if not received:  # a health check of the proxy
            return None
        try:
            if received.startswith(FIRST_BYTE):
                if not self._start_tls(received):
                    return None
                received = self._read_rest()
            if sniff(received, self._services.behind_proxy) is Sniff.NO:
                address, received = self._read_header(received), b""
            else:
                address, received = self._read_request(received)
        except HttpError as error:
            self._send_last(encode_text(error.status, error.reason, error.headers, closes=True))
            return None
        except ProtocolError as error:
            _log.warning("connection rejected", reason="proxy_header", connection=self.label, detail=str(error))
            return None
        if address is not None and not self._take_address(address, received):
            return None
        return received

    def _read_header(self, received: bytes) -> str | None:
        """Read the address in a header of the PROXY protocol. Raises ProtocolError."""
        while missing_bytes := proxy.missing_bytes(received):
            received += self._read_rest(missing_bytes)
        return proxy.read_address(received)

    def _read_request(self, received: bytes) -> tuple[str | None, bytes]:
        """Read the address in the head of a request; returns all bytes as well. Raises ProtocolError, HttpError."""
        while (head := read_head(received)) is None:
            received += self._read_rest()
        is_trusted = self._services.limits.is_trusted_proxy
        return proxy.forwarded_address(head.values("X-Forwarded-For"), is_trusted), received

    def _read_rest(self, size_bytes: int = _READ_BYTES) -> bytes:
        """Read more of the first bytes of a connection of a trusted proxy. Raises ProtocolError if there is nothing."""
        self._read_bytes = size_bytes
        data = self._read(is_logged_in=False, is_incomplete=True)
        if not data:
            raise ProtocolError("the client's address is incomplete")
        return data

    def _take_address(self, address: str, received: bytes) -> bool:
        """Take the address from a trusted proxy. False if the peer was refused; ``received`` has its first bytes."""
        self._address = address
        self.label = f"{self._number}@{address}"
        try:
            self.network = self._services.limits.admit(address)
        except RefusedError as error:
            self._services.counters.limits_hit[error.limit] += 1
            if not error.is_repeated:
                _log.warning("connection rejected", reason=error.limit, address=address)
                self._refuse(error.refused, received)
            return False
        return True

    def _refuse(self, error: Refused, received: bytes) -> None:
        """Send an error in the protocol of the first bytes, and close."""
        protocols = self._services.protocols
        self._login_by = min(self._login_by, self._services.clock() + _REFUSED_SECONDS)
        first = received or self._read(is_logged_in=False, is_incomplete=True)
        if first and first.startswith(FIRST_BYTE):
            self._send_last(ALERT_FULL)
            return
        found = sniff(first, protocols) if first else Sniff.NO
        self._send_last((protocols[0] if isinstance(found, Sniff) else found).refusal(error))

    def _sniff(self, received: bytes, protocols: tuple[WireProtocol, ...]) -> tuple[WireProtocol | None, bytes | None]:
        """Read until the first bytes decide the protocol, inside TLS if they begin it; return both.

        ``received`` was read before. The protocol is None if the peer has ended or was rejected.
        """
        first = b""
        data = received or self._read(is_logged_in=False, is_incomplete=True)
        while data:
            first += data
            if first.startswith(FIRST_BYTE) and self._transport.is_plain:
                if not self._start_tls(first):
                    return None, b""
                first = b""
            else:
                required = self._services.tls_required if self._transport.is_plain else None
                found = sniff(first, protocols)
                if found is Sniff.NO:
                    if required is not None:
                        self._reject_plain(f"This is a chat room server. {required.reason}\n".encode())
                        return None, b""
                    # Two bytes only: the text may be a password.
                    first_bytes = first[:2].hex(" ")
                    _log.warning(
                        "connection rejected", reason="unknown_protocol", connection=self.label, first_bytes=first_bytes
                    )
                    self._reject(f"No wire format begins with the bytes {first_bytes}.")
                    return None, b""
                if not isinstance(found, Sniff):
                    if required is not None:
                        self._reject_plain(found.refusal(required))
                        return None, b""
                    return found, first.removeprefix(BYTE_ORDER_MARK)
            data = self._read(is_logged_in=False, is_incomplete=True)
        if data is None:
            _log.warning("connection rejected", reason="silent", connection=self.label)
            self._reject(f"No request arrived for {self.login_seconds:g} s.")
        return None, b""

    def _start_tls(self, received: bytes) -> bool:
        """Put TLS around the transport. False if the peer was rejected."""
        if self._services.tls is None:
            _log.warning("connection rejected", reason="no_tls", connection=self.label)
            self._send_last(ALERT_NO_TLS)
            return False
        problem = "it took too long"
        self._is_waiting = True
        try:
            self._transport = self._services.tls.accept(
                self._transport, received, self._login_by - self._services.clock()
            )
        except TimeoutError:
            self.disconnect()
        except OSError as error:
            problem = reason_of(error)
        else:
            return True
        if not self._stopping:
            _log.warning("connection rejected", reason="tls_handshake", connection=self.label, detail=problem)
        self._send_last(b"")  # TLS has sent the reason
        return False

    def _read(self, *, is_logged_in: bool, is_incomplete: bool) -> bytes | None:
        """The next bytes; empty at the end, None after a timeout.

        ``is_logged_in``: there is no time limit, except for the rest of an incomplete request (``is_incomplete``), and
        for the answer to a ping.
        """
        self._set_timeout(is_logged_in=is_logged_in, is_incomplete=is_incomplete)
        if is_incomplete:
            self._transport.acknowledge()
        has_pinged = False
        while self._timeout_seconds > 0:
            try:
                data = self._transport.read(self._read_bytes, self._timeout_seconds)
            except TimeoutError:
                if is_incomplete or not is_logged_in or has_pinged:
                    return None
                was_idle = self._timeout_seconds >= self._idle_seconds
                self._wait_for_user()
                has_pinged = was_idle and self._send_ping()
                continue
            except OSError:
                return b""
            self._is_waiting = False
            size = len(data)
            self._services.counters.received_bytes += size
            self._read_bytes = _READ_BYTES
            if is_logged_in and size >= _READ_BYTES:
                takes_large_reads = self._session is not None and self._session.takes_large_reads
                self._read_bytes = _READ_MAX_BYTES if takes_large_reads else _READ_LIMITED_BYTES
            return data
        return None

    def _set_timeout(self, *, is_logged_in: bool, is_incomplete: bool) -> None:
        """Set the time limit of the next read, if it changes: a change is a system call."""
        if not is_logged_in:
            self._timeout_seconds = self._login_by - self._services.clock()
            if self.files_sent and not is_incomplete:
                self._timeout_seconds = min(self._timeout_seconds, _KEEP_ALIVE_SECONDS)
            self._is_waiting = True
        elif is_incomplete:
            self._timeout_seconds = self._services.login_seconds
        elif self._timeout_seconds < self._services.login_seconds:
            self._wait_for_user()

    def _wait_for_user(self) -> None:
        """Let the next read wait as long as the silence of a user may last."""
        self._timeout_seconds = self._idle_seconds
        self._transport.note_login()

    def _send_ping(self) -> bool:
        """Send the ping of the protocol; false if it has none."""
        ping = b"" if self._server is None else self._server.ping()
        if ping and self._send_queue is not None:
            self._send_queue.put_bytes(ping)
        return bool(ping)

    def _reject(self, reason: str) -> None:
        """Send one line of text to a peer whose protocol is not known, and close."""
        openings = ", or ".join(
            f"{protocol.opening.encode('unicode_escape').decode()} ({protocol.name})"
            for protocol in self._services.protocols
            if protocol.opening
        )
        self._send_last(f"This is a chat room server. {reason} Begin with {openings}.\n".encode())

    def _reject_plain(self, error: bytes) -> None:
        """Send the error to a peer that must use TLS and does not, and close."""
        _log.warning("connection rejected", reason="tls_required", connection=self.label)
        self._send_last(error)

    def _send_last(self, data: bytes) -> None:
        """Send the last bytes before the send queue exists, and close."""
        with suppress(OSError):
            self._transport.write([data])
        self._transport.end()
        self._drain()

    def _drain(self) -> None:
        """Read and discard input until the peer closes. A close with unread input would reset the connection."""
        deadline = self._services.clock() + (_NO_LIMIT_SECONDS if self._stopping else _CLOSE_SECONDS)
        with suppress(OSError):
            while (timeout := deadline - self._services.clock()) > 0:
                if not self._transport.read(_READ_MAX_BYTES, timeout):
                    return


def with_own_answers(
    protocol: ServerProtocol, session: Session, send_queue: SendQueue, found: Iterable[Request]
) -> Iterator[Request]:
    """Yield the requests, and queue the protocol's own answers before each and after the last.

    They are sent with the answer to the request that follows, or with the confirmations of messages. Otherwise they
    wake the sender.
    """
    for request in found:
        if own := protocol.data_to_send():
            send_queue.put_bytes(own, wake=type(request) in _UNANSWERED)
        yield request
    if own := protocol.data_to_send():
        send_queue.put_bytes(own, wake=not session.awaits_commit)
