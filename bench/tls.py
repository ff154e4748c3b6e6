"""One connection with TLS, with the interface of a connected, non-blocking socket."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket

# One receive from the system is decrypted record by record: a read of SSLSocket would take two system calls a record.
_RECEIVE_BYTES: Final = 256 * 1024

_received = bytearray(_RECEIVE_BYTES)


def unchecked() -> ssl.SSLContext:
    """A context that accepts every certificate: the load knows its server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class TlsSocket:
    """Wraps a connected, non-blocking socket. The handshake goes on in ``recv_into``; what is sent before waits."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing)
        self._is_decrypted = True
        # Plain bytes that wait for the end of the handshake; None after it.
        self._early: bytes | None = b""
        self._shake_hands()

    def _shake_hands(self) -> None:
        with suppress(ssl.SSLWantReadError):
            self._object.do_handshake()
            self._object.write(self._early or b"")
            self._early = None
        self._send_outgoing()

    def _send_outgoing(self) -> None:
        """Send everything, which may block for a moment: ciphertext can't be taken back."""
        self._sock.setblocking(True)
        try:
            self._sock.sendall(self._outgoing.read())
        finally:
            self._sock.setblocking(False)

    def fileno(self) -> int:
        return self._sock.fileno()

    def getsockname(self) -> tuple[str, int]:
        host, port = self._sock.getsockname()
        return host, port

    def recv_into(self, buffer: bytearray) -> int:
        """Receive into a buffer of at least _RECEIVE_BYTES. BlockingIOError: there is nothing for the caller yet."""
        if not self._is_decrypted:
            return self._sock.recv_into(buffer)
        size = self._sock.recv_into(_received)
        if not size:
            return 0
        self._incoming.write(memoryview(_received)[:size])
        if self._early is not None:
            self._shake_hands()
        rest = memoryview(buffer)
        if self._early is None:
            with suppress(ssl.SSLWantReadError):
                while decrypted := int(self._object.read(len(rest), rest)):
                    rest = rest[decrypted:]
        if len(rest) == len(buffer):
            raise BlockingIOError
        return len(buffer) - len(rest)

    def stop_decrypting(self) -> None:
        """Receive ciphertext from now on: whole records, because the server has been quiet."""
        self._is_decrypted = False

    def send(self, data: bytes | memoryview) -> int:
        if self._early is not None:
            self._early += data
            return len(data)
        size = self._object.write(data)
        self._send_outgoing()
        return size

    def close(self) -> None:
        self._sock.close()
