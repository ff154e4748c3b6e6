"""TLS: a transport that encrypts, around the TCP transport of a connection that begins with a TLS handshake.

Theory of operation
-------------------

An SSLObject does no input or output. It reads ciphertext from one memory BIO (``_incoming``) and writes ciphertext to
another (``_outgoing``). The transport moves ciphertext between the BIOs and the inner transport:

    read:   inner.read -> _incoming -> SSLObject -> plain bytes
    write:  plain bytes -> SSLObject -> _outgoing -> inner.write; what the socket does not take -> _unsent

States: OPEN, first for the handshake, during which the reader alone uses the transport; ENDING after :meth:`end`, until
close_notify is sent; SHUT. From ENDING on, what arrives is returned as it is: the reader only discards it.

Threads. The reader calls ``read``, and the sender calls ``write``, ``flush`` and ``end``, at the same time. OpenSSL
allows one thread in an object, so ``_lock`` guards the object and both BIOs. No system call is made under it. Before
the send queue exists, the reader is the sender as well.

One thread writes to the socket, because the order of records must be kept. So the reader does not send what TLS answers
by itself (an alert, a key update): it wakes the sender, whose ``flush`` takes it out of ``_outgoing``. A record is
written to ``_outgoing`` after these answers, so a write carries both in order. A peer that causes more answers than
ANSWERS_MAX_BYTES without reading them is disconnected.

Plain bytes that were encrypted can't be given back. If the socket is full, the rest of at most BATCH_RECORDS records
stays in ``_unsent``; ``write`` then takes nothing (BlockingIOError) until ``flush`` has sent it. The transport wakes
the sender for that. The send queue counts these bytes as sent. The acknowledgement counts do not: they are positions in
the ciphertext, and ``_unsent`` is a part of what is written and not acknowledged. So "nothing is unacknowledged" and
"acknowledged up to ``written()``" still mean that the peer's system has all plain bytes taken before. ``_unsent`` is
read before the socket's counters: bytes that move from one to the other meanwhile are counted twice, never not at all.

Handshakes compute in one thread, one step of one connection after the other, while their readers wait. A step takes 0.1
to 4 ms and never waits for a peer. In their readers, two thousand steps would compete with all other threads for the
processors. And OpenSSL keeps random generators for each thread that computes a handshake, which take 18 KiB.
"""

from __future__ import annotations

import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatserver.net.transport import Transport

# First byte of a TLS connection: the type of a handshake record (RFC 8446, section 5.1). No wire protocol begins so.
FIRST_BYTE: Final = b"\x16"
# Alerts, level fatal, as whole records (RFC 8446, section 6), for peers that get no handshake: handshake_failure if the
# server has no TLS, internal_error if it is full.
ALERT_NO_TLS: Final = bytes.fromhex("15 0301 0002 02 28")
ALERT_FULL: Final = bytes.fromhex("15 0301 0002 02 50")

# Plain bytes of a record. OpenSSL and the BIO keep buffers of this size for each connection: 16 KiB, the maximum, took
# 15 KiB more for each and was no faster.
_RECORD_BYTES: Final = 8 * 1024
# Maximum records per system call, and so of ciphertext in a transport. To 100 receivers, 16 took 246 ns of a processor
# per delivery, 8 279 and 4 295: each call on a socket that has room wakes the peer.
BATCH_RECORDS: Final = 16
# Maximum plain bytes that the sender prepares for one write.
_WRITE_MAX_BYTES: Final = 64 * 1024
# Maximum plain bytes of a record (RFC 8446, section 5.1), and maximum size of a read: the BIO keeps the size that it
# once needed.
_RECORD_MAX_BYTES: Final = 16 * 1024
# Size of a read during the handshake, and of a small one. A ClientHello with a post-quantum key share fits.
_READ_BYTES: Final = 2 * 1024
# Maximum answers of TLS itself that wait to be sent, such as key updates.
ANSWERS_MAX_BYTES: Final = 16 * 1024


class State(Enum):
    """The state of a transport. See the module's docstring."""

    OPEN = "open"
    ENDING = "close_notify is not sent yet"
    SHUT = "our side is shut"


# See sendqueue: an access through the enum takes 0.1 us.
_OPEN, _ENDING, _SHUT = State


class TlsTransport:
    """A transport inside TLS. See the module's docstring."""

    __slots__ = ("_clock", "_incoming", "_inner", "_lock", "_object", "_outgoing", "_state", "_unsent", "_wake")

    is_socket = True
    is_plain = False
    write_max_bytes = _WRITE_MAX_BYTES

    def __init__(
        self,
        inner: Transport,
        context: ssl.SSLContext,
        received: bytes = b"",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``received`` is what was read from ``inner`` already."""
        self._inner = inner
        self._clock = clock
        # Set when the send queue is created.
        self._wake: Callable[[], None] = _do_nothing
        # Ciphertext that the socket did not take. For the sender; other threads read its length.
        self._unsent: bytes | memoryview = b""
        # Written by the sender; the reader may see it late.
        self._state = _OPEN
        # Guards everything below.
        self._lock = threading.Lock()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._incoming.write(received)

    @property
    def descriptor(self) -> int:
        return self._inner.descriptor

    def handshake(self, timeout_seconds: float, compute: Callable[[Callable[[], None]], None]) -> None:
        """Complete the handshake; ``compute`` runs each step. For the reader, before the send queue exists.

        TimeoutError: it took longer. ssl.SSLError: it failed, and the peer was told. OSError: the peer is lost.
        """
        deadline = self._clock() + timeout_seconds
        while True:
            is_done = False
            try:
                compute(self._object.do_handshake)
                is_done = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                with suppress(OSError):
                    self.flush()  # the alert
                raise
            self.flush()
            if is_done:
                return
            remaining_seconds = deadline - self._clock()
            if remaining_seconds <= 0:
                raise TimeoutError
            received = self._inner.read(_READ_BYTES, remaining_seconds)
            if not received:
                raise ConnectionAbortedError("the peer closed the connection")
            self._incoming.write(received)

    # --- for the reader ---

    def read(self, size_bytes: int, timeout_seconds: float) -> bytes:
        """See Transport. A peer that closes without close_notify has closed all the same."""
        deadline: float | None = None
        while self._state is _OPEN:
            try:
                plain = self._decrypt(size_bytes)
            except ssl.SSLError:
                if self._state is not _OPEN:  # the sender ended the object meanwhile
                    break
                raise
            if plain is not None:
                return plain
            if deadline is None:
                deadline = self._clock() + timeout_seconds
            elif (timeout_seconds := deadline - self._clock()) <= 0:
                raise TimeoutError
            received = self._inner.read(_RECORD_MAX_BYTES if size_bytes > _READ_BYTES else _READ_BYTES, timeout_seconds)
            if not received:
                return b""
            with self._lock:
                self._incoming.write(received)
        return self._inner.read(size_bytes, timeout_seconds)

    def _decrypt(self, size_bytes: int) -> bytes | None:
        """The plain bytes that have arrived: empty after close_notify, None if the next record is incomplete.

        All complete records: a client may put each message into a record, and they are handled together.
        """
        parts: list[bytes] = []
        problem = None
        with self._lock:
            try:
                while size_bytes and (part := self._object.read(min(size_bytes, _RECORD_MAX_BYTES))):
                    parts.append(part)
                    size_bytes -= len(part)
                plain: bytes | None = b"".join(parts)
            except ssl.SSLWantReadError:
                plain = b"".join(parts) if parts else None
            except ssl.SSLError as error:  # there is an alert in _outgoing
                plain, problem = b"".join(parts), error
            answers_bytes = self._outgoing.pending
        if answers_bytes:
            self._wake()
        if problem is not None and not plain:  # else the next call raises it
            raise problem
        if answers_bytes > ANSWERS_MAX_BYTES:
            raise ConnectionAbortedError("the peer does not read what TLS answers")
        return plain

    def note_login(self) -> None:
        self._inner.note_login()

    def stop_reading(self) -> None:
        self._inner.stop_reading()

    def acknowledge(self) -> None:
        self._inner.acknowledge()

    # --- for the sender ---

    def set_wake(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def write(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Encrypt and send until the socket is full; returns the number of plain bytes taken. See Transport."""
        if self._unsent:
            self.flush()
        plain = memoryview(pieces[0] if len(pieces) == 1 else _joined(pieces))
        taken_bytes = 0
        while taken_bytes < len(plain):
            records: list[bytes] = []
            with self._lock:
                while taken_bytes < len(plain) and len(records) < BATCH_RECORDS:
                    taken_bytes += self._object.write(plain[taken_bytes : taken_bytes + _RECORD_BYTES])
                    records.append(self._outgoing.read())
            size_bytes = sum(map(len, records))
            try:
                sent_bytes = self._inner.write(records)
            except BlockingIOError:
                sent_bytes = 0
            if sent_bytes < size_bytes:
                self._unsent = memoryview(b"".join(records))[sent_bytes:]
                self._wake()
                break
        return taken_bytes

    def flush(self) -> None:
        """Send the ciphertext that waits. BlockingIOError: the socket is full. OSError: the peer is lost."""
        while True:
            if not self._unsent:
                with self._lock:
                    self._unsent = self._outgoing.read()
                if not self._unsent:
                    break
            # Shortened after the write: see the module's docstring.
            self._unsent = self._unsent[self._inner.write([self._unsent]) :]
            if self._unsent:
                raise BlockingIOError
        if self._state is _ENDING:
            self._inner.end()
            self._state = _SHUT

    def end(self) -> None:
        """Send close_notify, and let the peer see the end, perhaps after the next :meth:`flush`."""
        # After it has written close_notify, the object reads that of the peer, and may find none or other data.
        with self._lock, suppress(ssl.SSLError):
            self._object.unwrap()
        self._state = _ENDING
        try:
            self.flush()
        except BlockingIOError:
            self._wake()
        except OSError:  # the peer is lost; what it did not get stays unacknowledged
            self._inner.end()
            self._state = _SHUT

    def hang_up(self) -> None:
        self._inner.hang_up()

    def close(self) -> None:
        self._inner.close()
        self._wake = _do_nothing  # breaks the reference cycle with the send queue

    @property
    def is_lost(self) -> bool:
        return self._inner.is_lost

    @property
    def has_ended(self) -> bool:
        return self._inner.has_ended

    @property
    def can_be_closed(self) -> bool:
        return self._state is _SHUT or (self._state is _OPEN and not self._unsent)

    # --- for any thread ---

    @property
    def unsent_bytes(self) -> int:
        return len(self._unsent)

    def unacknowledged_bytes(self) -> int:
        """Bytes of ciphertext that the peer has not acknowledged."""
        unsent_bytes = len(self._unsent)  # first: see the module's docstring
        return unsent_bytes + self._inner.unacknowledged_bytes()

    def acknowledged(self) -> int:
        """See Transport. Positions are those of the ciphertext."""
        return self._inner.acknowledged()

    def written(self) -> int:
        unsent_bytes = len(self._unsent)
        return unsent_bytes + self._inner.written()


class TlsAcceptor:
    """Accepts TLS on connections whose first byte is FIRST_BYTE. ``accept`` is for any thread."""

    def __init__(self, context: Callable[[], ssl.SSLContext]) -> None:
        """``context`` returns the current context, which has the certificate."""
        self._context = context
        self._thread = ThreadPoolExecutor(1, "handshakes")
        # Written once; the thread that computes reads it before each step.
        self._is_closing = False

    def start(self) -> None:
        """Start the thread that computes. Raises RuntimeError if the system can't create one."""
        self._compute(_do_nothing)

    def close(self) -> None:
        """Let all handshakes fail from now on: thousands of steps may wait, and a shutdown does not wait for them."""
        self._is_closing = True

    def stop(self) -> None:
        """Stop and join the thread, after all connections have ended."""
        self._thread.shutdown()

    def accept(self, transport: Transport, received: bytes, timeout_seconds: float) -> TlsTransport:
        """Run the handshake on a connection that began with ``received``. Errors: see TlsTransport.handshake."""
        encrypted = TlsTransport(transport, self._context(), received)
        encrypted.handshake(timeout_seconds, self._compute)
        return encrypted

    def _compute(self, step: Callable[[], None]) -> None:
        self._thread.submit(self._run, step).result()

    def _run(self, step: Callable[[], None]) -> None:
        if self._is_closing:
            raise ConnectionAbortedError("the server is shutting down")
        step()


def reason_of(error: OSError) -> str:
    """The reason of a failed handshake, in a few words."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return error.strerror or str(error)


def _joined(pieces: Sequence[bytes | memoryview]) -> bytes:
    """The pieces in one, up to _WRITE_MAX_BYTES: a record for each would take more time and bytes."""
    joined = bytearray()
    for piece in pieces:
        joined += piece[: _WRITE_MAX_BYTES - len(joined)]
        if len(joined) == _WRITE_MAX_BYTES:
            break
    return bytes(joined)


def _do_nothing() -> None:
    """Do nothing."""
