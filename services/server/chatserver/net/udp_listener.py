"""The UDP listener: one socket, one thread that reads it, and a UdpTransport for each session.

A peer opens a session in two steps. Its first datagram (the *opening*) has a text, usually a username; the server
answers with a cookie and stores nothing. The second datagram has the same text and the cookie, which proves that the
peer receives datagrams at its address. Then a session begins, with a random number, and with the text as its first
frame.

A datagram belongs to a session if its session number and its address are those of the session. Any other datagram has
no session, and its address may be forged. So the answer to it is never longer than the datagram, and the number of such
answers is limited, by address and in all. Cookies and errors aren't numbered or resent. The server does not answer a
datagram that may be a server's answer, because two servers would answer each other forever.

The thread (named "datagrams") owns both dicts of sessions. Readers and the sender use the transports, which have locks.
"""

from __future__ import annotations

import secrets
import selectors
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from chatprotocol.errors import ErrorCode
from chatprotocol.udp.arq import SILENCE_SECONDS
from chatprotocol.udp.packet import (
    ACK,
    COOKIE_WORD,
    HEADER_BYTES,
    NO_SESSION,
    READ_BYTES,
    SESSION_MAX,
    Datagram,
    Opening,
    cookie_payload,
    pack,
    read_opening,
    unpack,
)
from chatprotocol.wire.steps import COMMAND
from chatserver.net.cookies import Cookies
from chatserver.net.limits import OpeningLimits, RefusedError
from chatserver.net.selector_thread import SelectorThread
from chatserver.net.udp_transport import Address, UdpTransport

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from chatprotocol.wire import WireProtocol
    from chatserver.net.connections import Connections

_log = structlog.get_logger()

# Interval of the scan for retransmissions and lost peers. It grows with the number of sessions above _TICK_SESSIONS: a
# scan of 1,000 takes half a millisecond.
_TICK_SECONDS: Final = 0.05
_TICK_SESSIONS: Final = 2_000
# Maximum datagrams read in a row: the scan must run during a flood, too.
_READ_MAX: Final = 256
# Time in which the same opening is a duplicate, or a repetition because the answer was lost. Later it opens a session.
_DUPLICATE_SECONDS: Final = 10.0
# Interval between log lines about ignored handshakes.
_LOG_SECONDS: Final = 60.0


class UdpListener:
    """Owns the socket and the sessions."""

    def __init__(
        self,
        bound: socket.socket,
        connections: Connections,
        protocol: WireProtocol,
        openings: OpeningLimits,
        on_crash: Callable[[str], None],
        *,
        silence_seconds: float = SILENCE_SECONDS,
        tls_required: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``openings`` limits the answers to datagrams without a session.

        With ``tls_required`` no session is opened, because datagrams are not encrypted.
        """
        self._socket = bound
        self._connections = connections
        self._protocol = protocol
        self._openings = openings
        self._silence_seconds = silence_seconds
        self._tls_required = tls_required
        self._clock = clock
        self._thread = SelectorThread("datagrams", self._run, on_crash)
        self._cookies = Cookies()
        self._closing = False
        # For the listener's thread: the sessions by number, and by the address and text of their openings.
        self._by_number: dict[int, UdpTransport] = {}
        self._by_opening: dict[tuple[Address, bytes], UdpTransport] = {}
        self._next_check_at = 0.0
        self._log_at = 0.0

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Open no more sessions; existing ones continue. For any thread."""
        self._closing = True

    def stop(self) -> None:
        """Stop and join the thread and close the socket, after all sessions have ended."""
        self._thread.stop()
        self._socket.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._thread, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select(_TICK_SECONDS if self._by_number else None)]
                if self._thread in ready:
                    return
                if self._socket in ready:
                    self._read_all()
                now = self._clock()
                if now >= self._next_check_at:
                    self._next_check_at = now + _TICK_SECONDS * max(1.0, len(self._by_number) / _TICK_SESSIONS)
                    self.check_timeouts()

    def _read_all(self) -> None:
        """Process pending datagrams, _READ_MAX at most."""
        for _ in range(_READ_MAX):
            try:
                data, address = self._socket.recvfrom(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:  # some systems report here that an earlier datagram was rejected (ICMP)
                continue
            datagram = unpack(data)
            if datagram is not None:
                self.receive(datagram, address)

    @property
    def is_empty(self) -> bool:
        """True if no session and no opening is remembered. For the listener's thread."""
        return not self._by_number and not self._by_opening

    def receive(self, datagram: Datagram, address: Address) -> None:
        """Process a datagram. For the listener's thread."""
        now = self._clock()
        transport = self._by_number.get(datagram.session)
        if transport is not None and transport.address == address and not transport.closed:
            transport.receive(datagram, now)
        elif not self._openings.take(str(address[0]), now):
            return
        elif (datagram.kind, datagram.session, datagram.sequence) == (COMMAND, NO_SESSION, 0):
            self._open(datagram, address, now)
        elif datagram.kind != ACK and datagram.sequence:  # without a number it may be another server's answer
            reason = _error(ErrorCode.NO_SESSION, "There is no such session; open a new one.")
            self._answer(datagram, address, reason, _error(ErrorCode.NO_SESSION))

    def _open(self, datagram: Datagram, address: Address, now: float) -> None:
        opening = read_opening(datagram.payload)
        if opening.text == COOKIE_WORD:
            return  # another server's answer: the two servers would answer each other forever
        if opening.cookie is None or not self._cookies.is_valid(opening.cookie, address, opening.text, now):
            self._send_cookie(datagram, opening, address, now)
            return
        earlier = self._by_opening.get((address, opening.text))
        if earlier is not None and not earlier.closed and now < earlier.opened_at + _DUPLICATE_SECONDS:
            return  # a repetition: the session's first datagram is resent until it arrives
        if self._closing:
            self._send(address, NO_SESSION, _error(ErrorCode.SHUTTING_DOWN, "The server is shutting down."))
            return
        if self._tls_required:
            reason = "The server requires TLS, which this wire format does not have; use another one, over TCP."
            self._send(address, NO_SESSION, _error(ErrorCode.TLS_REQUIRED, reason))
            return
        transport = UdpTransport(
            self._socket,
            address,
            secrets.randbelow(SESSION_MAX) + 1,
            opening.text,
            silence_seconds=self._silence_seconds,
            clock=self._clock,
        )
        try:
            connection = self._connections.add(lambda: transport, str(address[0]), self._protocol)
        except RefusedError as error:
            self._send(address, NO_SESSION, _error(error.refused.code, error.refused.reason))
            return
        transport.label = connection.label
        self._by_number[transport.number] = transport
        self._by_opening[address, opening.text] = transport

    def _send_cookie(self, datagram: Datagram, opening: Opening, address: Address, now: float) -> None:
        payload = cookie_payload(self._cookies.make(address, opening.text, now))
        if not self._answer(datagram, address, payload) and now >= self._log_at:
            self._log_at = now + _LOG_SECONDS
            min_bytes = HEADER_BYTES + len(payload)
            _log.warning("handshake ignored", reason="too_short", address=address[0], min_bytes=min_bytes)

    def _answer(self, datagram: Datagram, address: Address, *payloads: bytes) -> bool:
        """Send the first of ``payloads`` that is not longer than the datagram's. False if all are longer."""
        for payload in payloads:
            if len(payload) <= len(datagram.payload):
                self._send(address, datagram.session, payload)
                return True
        return False

    def _send(self, address: Address, session: int, payload: bytes) -> None:
        """Send a datagram that is not numbered and not resent."""
        with suppress(OSError):
            self._socket.sendto(pack(Datagram(COMMAND, session, 0, payload)), address)

    def check_timeouts(self) -> None:
        """Check the timeouts of all sessions, and forget the closed ones. For the listener's thread."""
        now = self._clock()
        for transport in list(self._by_number.values()):
            if transport.closed:
                del self._by_number[transport.number]
                if self._by_opening.get((transport.address, transport.opening)) is transport:
                    del self._by_opening[transport.address, transport.opening]
                continue
            if lost_reason := transport.check_timeouts(now):
                _log.info("disconnected", reason="peer_lost", connection=transport.label, detail=lost_reason)


def _error(code: ErrorCode, reason: str = "") -> bytes:
    return f"ERROR {code} {reason}".rstrip().encode()
