"""A program that sends the same bytes over many connections, from addresses of its own, as fast as the server reads.

Its input is one JSON object: the port, for each connection its address, what it sends first, and what it sends again
and again. It ends at the end of its input.
"""

from __future__ import annotations

import json
import selectors
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

_SEND_BYTES = 8_192


class Flooder(NamedTuple):
    """One connection."""

    address: str
    # Answered before the flood begins, if it is not empty.
    first: str
    repeated: str


class Flood:
    """The program, for a test. Leaving the context ends it."""

    def __init__(self, port: int, flooders: Sequence[Flooder]) -> None:
        self._job = {"port": port, "flooders": flooders}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Returns after all are connected, and their first requests are answered."""
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(self._job) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()


def _main(job: dict[str, Any]) -> None:
    selector = selectors.DefaultSelector()
    for address, first, repeated in job["flooders"]:
        sock = socket.socket()
        sock.bind((address, 0))
        sock.connect(("127.0.0.1", job["port"]))
        if first:
            sock.sendall(first.encode())
            assert sock.recv(65_536)
        sock.setblocking(False)
        data = repeated.encode() * (_SEND_BYTES // len(repeated) + 1)
        selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, data)
    print("ready", flush=True)
    while True:
        for key, events in selector.select():
            sock, data = key.fileobj, key.data
            assert isinstance(sock, socket.socket)
            with suppress(BlockingIOError):
                if events & selectors.EVENT_READ:
                    sock.recv(65_536)
                # The rest of a partial send follows, so that what is repeated stays whole.
                if events & selectors.EVENT_WRITE:
                    sent = sock.send(data)
                    selector.modify(sock, key.events, data[sent:] + data[:sent])


if __name__ == "__main__":
    _main(json.loads(sys.stdin.readline()))
