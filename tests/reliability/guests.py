"""Guests with threads of their own, which acknowledge messages and send."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from integration.room import Guest


class AckingGuest(Guest):
    """A guest whose thread acknowledges each message, until the server closes."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(port, name)
        # Sender and text of each message.
        self.heard: list[tuple[str, str]] = []
        self._listening = threading.Thread(target=self._listen, name=f"{name} listens")

    def register(self) -> None:
        super().register()
        self.listen()

    def listen(self) -> None:
        """Start the thread. Both connections are registered."""
        self._listening.start()

    def join(self) -> None:
        """Wait for the end of the receiving connection."""
        if self._listening.ident is not None:
            self._listening.join()

    def stop(self) -> None:
        """End both connections, join the thread, and close."""
        for peer in (self.sending, self.receiving):
            with suppress(OSError):  # the server was first
                peer.socket.shutdown(socket.SHUT_RDWR)
        self.join()
        self.close()

    def _listen(self) -> None:
        with suppress(ConnectionError):
            while section := self.receiving.section():
                header, _, body = section.partition(b"\n\n")
                words = header.split()
                assert words[0] == b"FORWARD", section
                self.heard.append((words[1].decode(), body.decode()))
                self.confirm(words[1].decode())
