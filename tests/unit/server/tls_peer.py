"""The client's end of a TLS connection in memory, and a transport that stands for the socket between the two ends."""

import ssl
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from .udp_line import Clock


class TlsPeer:
    """Encrypts and decrypts as a client."""

    def __init__(self, context: ssl.SSLContext, name: str = "localhost") -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self.is_shaken = False
        self.has_seen_close = False

    def feed(self, ciphertext: bytes) -> bytes:
        """Add what arrives; returns the plain bytes of the records that it completes."""
        self._incoming.write(ciphertext)
        plain = b""
        try:
            if not self.is_shaken:
                self.object.do_handshake()
                self.is_shaken = True
            while part := self.object.read(100_000):
                plain += part
            self.has_seen_close = True
        except ssl.SSLWantReadError:
            pass
        return plain

    def says(self, plain: bytes = b"") -> bytes:
        """The ciphertext to send: the handshake's, or that of these bytes."""
        if plain:
            self.object.write(plain)
        return self._outgoing.read()

    def closes(self) -> bytes:
        """The ciphertext of close_notify."""
        with suppress(ssl.SSLError):
            self.object.unwrap()
        return self._outgoing.read()


class Line:
    """A transport with limited room in one direction, and arrivals in the other. Reads move the clock."""

    is_socket = True
    is_plain = True
    can_be_closed = True
    write_max_bytes = 1_000_000
    unsent_bytes = 0
    descriptor = 7

    def __init__(self, clock: Clock, receive: Callable[[bytes], None]) -> None:
        self._clock = clock
        self._receive = receive
        # Bytes that the system still takes.
        self.room = 1_000_000_000
        self.taken = 0
        # The position up to which the peer's system has acknowledged.
        self.acknowledged_bytes = 0
        # Ciphertext to read, and the time that each piece takes. After the last one the peer is silent.
        self.arrivals: deque[bytes] = deque()
        self.seconds_each = 0.0
        self.calls: list[str] = []
        self.is_lost = False

    def read(self, size_bytes: int, timeout_seconds: float) -> bytes:
        assert timeout_seconds > 0
        if not self.arrivals or self.seconds_each > timeout_seconds:
            self._clock.now += timeout_seconds
            raise TimeoutError
        self._clock.now += self.seconds_each
        data = self.arrivals.popleft()
        if len(data) > size_bytes:
            self.arrivals.appendleft(data[size_bytes:])
        return data[:size_bytes]

    def write(self, pieces: Sequence[bytes | memoryview]) -> int:
        if self.is_lost:
            raise ConnectionResetError
        data = b"".join(pieces)[: self.room]
        if not data:
            raise BlockingIOError
        self.room -= len(data)
        self.taken += len(data)
        self._receive(data)
        return len(data)

    def unacknowledged_bytes(self) -> int:
        return self.taken - self.acknowledged_bytes

    def acknowledged(self) -> int:
        return self.acknowledged_bytes

    def written(self) -> int:
        return self.taken

    def __getattr__(self, name: str) -> Callable[..., None]:
        """The rest of the interface is noted."""
        return lambda *_: self.calls.append(name)
