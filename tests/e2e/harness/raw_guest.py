"""A guest of the wire format register that reads and writes raw bytes, like a simple third-party client."""

from __future__ import annotations

import socket

from .transcript import EXPECT_SECONDS, ExpectationError

# Simple clients take the bytes of one read for one message.
_READ_BYTES = 1024


class RawGuest:
    """A guest with its two connections."""

    def __init__(self, name: str, address: tuple[str, int]) -> None:
        self.name = name
        self._receiving = socket.create_connection(address, EXPECT_SECONDS)
        self._sending = socket.create_connection(address, EXPECT_SECONDS)
        self._check(self._request(self._receiving, f"REGISTER TORECV {name}\n\n"), f"REGISTERED TORECV {name}\n\n")
        self._check(self._request(self._sending, f"REGISTER TOSEND {name}\n\n"), f"REGISTERED TOSEND {name}\n\n")

    def send(self, to: str, text: str) -> str:
        """Send a message, and return the answer."""
        return self._request(self._sending, f"SEND {to}\nContent-length: {len(text.encode())}\n\n{text}")

    def receive(self, sender: str, text: str, *, acknowledge: bool = True) -> None:
        """Receive this message in one read, and acknowledge it."""
        data = self._receiving.recv(_READ_BYTES).decode()
        self._check(data, f"FORWARD {sender}\nContent-length: {len(text.encode())}\n\n{text}")
        if acknowledge:
            self._receiving.sendall(f"RECEIVED {sender}\n\n".encode())

    def close(self) -> None:
        """Close both connections."""
        self._receiving.close()
        self._sending.close()

    def _request(self, connection: socket.socket, section: str) -> str:
        connection.sendall(section.encode())
        return connection.recv(_READ_BYTES).decode()

    def _check(self, data: str, expected: str) -> None:
        if data != expected:
            raise ExpectationError(f"{self.name} expected {expected!r}, but read {data!r}")
