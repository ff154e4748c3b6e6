"""A proxy that breaks connections: it delays, cuts lines into pieces, loses the last of them, and closes."""

from __future__ import annotations

import itertools
import random
import select
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# No peer stops reading for this long.
_STUCK_SECONDS = 20.0
# Bytes that the first connection carries at least: a program whose first login fails does not try again.
_FIRST_BYTES = 1_000
_PIECE_MAX_BYTES = 2_000
_DELAYED_SHARE = 0.1
_DELAY_MAX_SECONDS = 0.005
# Time that a connection stays open and loses everything.
_SWALLOW_MAX_SECONDS = 0.03


class Cut(NamedTuple):
    """The end of a connection: ``close``, ``reset``, or ``swallow`` (it loses all input for a while, then resets)."""

    how: str
    is_inside_line: bool


class Proxy:
    """Carries connections to a port of this machine, each until a random number of bytes has gone one way."""

    def __init__(self, port: int, chance: random.Random, carried_max_bytes: int) -> None:
        self.cuts: list[Cut] = []
        self._target = ("127.0.0.1", port)
        self._chance = chance
        # In turn, so that few cuts include all kinds.
        self._kinds = itertools.cycle(chance.sample(("close", "reset", "swallow"), 3))
        self._carried_max_bytes = carried_max_bytes
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._connections: list[_Connection] = []
        self._thread = threading.Thread(target=self._listen, name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()
        for connection in self._connections:
            connection.stop()

    def _listen(self) -> None:
        spared_bytes = _FIRST_BYTES
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, _STUCK_SECONDS)
            except OSError:  # the server was killed
                client.close()
                continue
            client.settimeout(_STUCK_SECONDS)
            limits = {end: spared_bytes + self._chance.randint(0, self._carried_max_bytes) for end in (client, server)}
            spared_bytes = 0
            chance = random.Random(self._chance.random())
            self._connections.append(_Connection(client, server, limits, chance, self._kinds, self.cuts.append))


class _Connection:
    """Carries both directions in a thread of its own."""

    def __init__(
        self,
        client: socket.socket,
        server: socket.socket,
        limits_bytes: dict[socket.socket, int],
        chance: random.Random,
        kinds: Iterator[str],
        report: Callable[[Cut], None],
    ) -> None:
        self._other = {client: server, server: client}
        self._left_bytes = limits_bytes
        self._chance = chance
        self._kinds = kinds
        self._report = report
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy connection")
        self._thread.start()

    def stop(self) -> None:
        self._is_stopped.set()
        for end in self._other:
            with suppress(OSError):  # it is closed
                end.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _run(self) -> None:
        try:
            with suppress(OSError):  # one end has reset; the close below resets the other one
                while all(self._carry_piece(source) for source in select.select(list(self._other), [], [])[0]):
                    pass
        finally:
            for end in self._other:
                end.close()

    def _carry_piece(self, source: socket.socket) -> bool:
        """False at the end of the connection."""
        piece = source.recv(self._chance.randint(1, _PIECE_MAX_BYTES))
        if not piece:
            return False
        if self._chance.random() < _DELAYED_SHARE:
            self._is_stopped.wait(self._chance.uniform(0, _DELAY_MAX_SECONDS))
        carried = piece[: self._left_bytes[source]]
        self._other[source].sendall(carried)
        self._left_bytes[source] -= len(carried)
        if not self._left_bytes[source]:
            self._cut(Cut(next(self._kinds), is_inside_line=not carried.endswith(b"\n")))
        return self._left_bytes[source] > 0

    def _cut(self, cut: Cut) -> None:
        self._report(cut)
        if cut.how == "swallow":
            self._swallow(time.monotonic() + self._chance.uniform(0, _SWALLOW_MAX_SECONDS))
        if cut.how != "close":
            for end in self._other:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _swallow(self, until: float) -> None:
        ends = set(self._other)
        while ends and (patience := until - time.monotonic()) > 0:
            for end in select.select(list(ends), [], [], patience)[0]:
                if not end.recv(_PIECE_MAX_BYTES):
                    ends.discard(end)
