"""A stranger: somebody else's client of the dialect register, as simple as most are, which speaks raw bytes."""

from __future__ import annotations

import socket

from .transcript import EXPECT_SECONDS, StoryError

# Simple clients take what one read of so much returns for one message.
_READ_BYTES = 1024


class Stranger:
    """A user with two sockets. What is sent and read is whole sections."""

    def __init__(self, name: str, door: tuple[str, int]) -> None:
        self.name = name
        self._receiving = socket.create_connection(door, EXPECT_SECONDS)
        self._sending = socket.create_connection(door, EXPECT_SECONDS)
        self._expect(self._say(self._receiving, f"REGISTER TORECV {name}\n\n"), f"REGISTERED TORECV {name}\n\n")
        self._expect(self._say(self._sending, f"REGISTER TOSEND {name}\n\n"), f"REGISTERED TOSEND {name}\n\n")

    def send(self, to: str, text: str) -> str:
        """Send a message, and return the answer."""
        return self._say(self._sending, f"SEND {to}\nContent-length: {len(text.encode())}\n\n{text}")

    def take(self, sender: str, text: str, *, answers: bool = True) -> None:
        """This message comes, in one piece and with its length in bytes; it may be answered."""
        read = self._receiving.recv(_READ_BYTES).decode()
        self._expect(read, f"FORWARD {sender}\nContent-length: {len(text.encode())}\n\n{text}")
        if answers:
            self._receiving.sendall(f"RECEIVED {sender}\n\n".encode())

    def is_cut_off(self) -> bool:
        """Wait until the server closes both connections."""
        return self._receiving.recv(_READ_BYTES) == self._sending.recv(_READ_BYTES) == b""

    def close(self) -> None:
        """Vanish."""
        self._receiving.close()
        self._sending.close()

    def _say(self, on: socket.socket, section: str) -> str:
        on.sendall(section.encode())
        return on.recv(_READ_BYTES).decode()

    def _expect(self, read: str, wanted: str) -> None:
        if read != wanted:
            raise StoryError(f"{self.name} expected {wanted!r}, but read {read!r}")
