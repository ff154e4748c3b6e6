"""The door for UDP: one socket, one thread that reads it, and a channel for each session."""

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
from chatprotocol.wire.frames_text import COMMAND
from chatserver.net.connections import FullError
from chatserver.net.cookies import Cookies
from chatserver.net.stop_signal import StopSignal
from chatserver.net.udp_transport import Address, UdpTransport
from chatserver.threads import Worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from chatprotocol.wire import WireProtocol
    from chatserver.net.connections import Connections

_log = structlog.get_logger()

# While there are sessions, so often it is looked what is to be sent again, and who is lost: where there are more
# than so many, less often, for to look at 1,000 takes half a millisecond.
_TICK_SECONDS: Final = 0.05
_TICK_TRANSPORTS: Final = 2_000
# Of those without a session so many are answered between two such looks. All of that costs half a processor; a
# flood of them would take the time to read from those who have one.
_STRANGERS_MAX: Final = 2_000
# Read in a row before that is looked at: under a flood there is always one more.
_READ_MAX: Final = 256
# An opening that comes again within this time was repeated on its way, or its answer was lost; later somebody means it.
_REPEATED_SECONDS: Final = 10.0
# That somebody is not answered is logged once in this time.
_LOG_SECONDS: Final = 60.0


class UdpListener:
    """Owns the socket and the channels. A peer gets a session once it has sent its cookie back."""

    def __init__(
        self,
        bound: socket.socket,
        connections: Connections,
        protocol: WireProtocol,
        on_crash: Callable[[str], None],
        *,
        silence_seconds: float = SILENCE_SECONDS,
        strangers_max: int = _STRANGERS_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``dialect`` is the one that is spoken here."""
        self._socket = bound
        self._connections = connections
        self._protocol = protocol
        self._silence_seconds = silence_seconds
        self._strangers_max = strangers_max
        self._clock = clock
        self._worker = Worker("datagrams", self._run, on_crash)
        self._stop = StopSignal()
        self._cookies = Cookies()
        self._closing = False
        # The thread's own: by the session, and those who asked for one, by what they said from where.
        self._transports: dict[int, UdpTransport] = {}
        self._opened: dict[tuple[Address, bytes], UdpTransport] = {}
        self._look_at = 0.0
        self._strangers_left = strangers_max
        self._log_at = 0.0

    def start(self) -> None:
        """Start to read."""
        self._worker.start()

    def close(self) -> None:
        """Let nobody in any more. Who is in stays."""
        self._closing = True

    def stop(self) -> None:
        """Read no more, when everybody has gone."""
        self._stop.send()
        self._worker.join()
        self._socket.close()
        self._stop.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._stop, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select(_TICK_SECONDS if self._transports else None)]
                if self._stop in ready:
                    return
                if self._socket in ready:
                    self._read_all()
                now = self._clock()
                if now >= self._look_at:
                    self._look_at = now + _TICK_SECONDS * max(1.0, len(self._transports) / _TICK_TRANSPORTS)
                    self.check_timeouts()

    def _read_all(self) -> None:
        """What has come, if it is not too much."""
        for _ in range(_READ_MAX):
            try:
                data, address = self._socket.recvfrom(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:  # some systems tell here of an earlier answer that nobody took
                continue
            datagram = unpack(data)
            if datagram is not None:
                self.receive(datagram, address)

    @property
    def is_empty(self) -> bool:
        """True if no session and no opening is remembered. For the listener's thread."""
        return not self._transports and not self._opened

    def receive(self, datagram: Datagram, address: Address) -> None:
        """Process a packet. For the listener's thread."""
        now = self._clock()
        transport = self._transports.get(datagram.session)
        if transport is not None and transport.address == address and not transport.closed:
            transport.receive(datagram, now)
        elif self._strangers_left <= 0:
            return
        elif (datagram.kind, datagram.session, datagram.sequence) == (COMMAND, NO_SESSION, 0):
            self._strangers_left -= 1
            self._open(datagram, address, now)
        elif datagram.kind != ACK and datagram.sequence:  # without one it may be the answer of another server
            self._strangers_left -= 1
            reason = _error(ErrorCode.NO_SESSION, "There is no such session; open a new one.")
            self._answer(datagram, address, reason, _error(ErrorCode.NO_SESSION))

    def _open(self, datagram: Datagram, address: Address, now: float) -> None:
        opening = read_opening(datagram.payload)
        if opening.text == COOKIE_WORD:
            return  # an answer of this kind of server, which came back: the two would never end
        if opening.cookie is None or not self._cookies.is_good(opening.cookie, address, opening.text, now):
            self._give_cookie(datagram, opening, address, now)
            return
        asked = self._opened.get((address, opening.text))
        if asked is not None and not asked.closed and now < asked.opened_at + _REPEATED_SECONDS:
            return  # once more the same: the session is on its way
        if self._closing:
            self._send(address, NO_SESSION, _error(ErrorCode.SHUTTING_DOWN, "The server is shutting down."))
            return
        transport = UdpTransport(
            self._socket,
            address,
            secrets.randbelow(SESSION_MAX) + 1,
            opening.text,
            silence_seconds=self._silence_seconds,
            clock=self._clock,
        )
        transport.deliver([(COMMAND, opening.text)])
        try:
            transport.label = self._connections.add(transport, str(address[0]), self._protocol).label
        except FullError:
            self._send(address, NO_SESSION, _error(ErrorCode.SERVER_FULL, "The server is full; try again later."))
            return
        self._transports[transport.session] = transport
        self._opened[address, opening.text] = transport

    def _give_cookie(self, datagram: Datagram, opening: Opening, address: Address, now: float) -> None:
        payload = cookie_payload(self._cookies.make(address, opening.text, now))
        if not self._answer(datagram, address, payload) and now >= self._log_at:
            self._log_at = now + _LOG_SECONDS
            least_bytes = HEADER_BYTES + len(payload)
            _log.warning("handshake ignored", reason="too_short", address=address[0], min_bytes=least_bytes)

    def _answer(self, datagram: Datagram, address: Address, *payloads: bytes) -> bool:
        """Say the first of these that is no longer than what is answered, for the address may be forged."""
        for payload in payloads:
            if len(payload) <= len(datagram.payload):
                self._send(address, datagram.session, payload)
                return True
        return False

    def _send(self, address: Address, session: int, payload: bytes) -> None:
        """Outside of a conversation: it is not numbered, and not sent again."""
        with suppress(OSError):
            self._socket.sendto(pack(Datagram(COMMAND, session, 0, payload)), address)

    def check_timeouts(self) -> None:
        """Check the timeouts of all sessions, and forget the closed ones. For the listener's thread."""
        now = self._clock()
        self._strangers_left = self._strangers_max
        for transport in list(self._transports.values()):
            if transport.closed:
                del self._transports[transport.session]
                if self._opened.get((transport.address, transport.opening)) is transport:
                    del self._opened[transport.address, transport.opening]
                continue
            if lost := transport.check_timeouts(now):
                _log.info("disconnected", reason="peer_lost", connection=transport.label, detail=lost)


def _error(code: ErrorCode, reason: str = "") -> bytes:
    return f"ERROR {code} {reason}".rstrip().encode()
