"""A proxy that breaks connections: it delays, cuts lines into pieces, loses the last of them, and hangs up."""

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

# Nobody whose bytes are carried here stops reading for so long.
_STUCK_SECONDS = 20.0
# What the first connection carries in any case: a program that was never let in does not come back.
_SPARED_BYTES = 1_000
_PIECE_MAX_BYTES = 2_000
_DELAYED_PART = 0.1
_DELAY_MAX_SECONDS = 0.005
# How long a connection that loses everything seems to stand.
_SWALLOW_MAX_SECONDS = 0.03


class Cut(NamedTuple):
    """How a connection was ended: by a ``close`` or a ``reset``, or it did ``swallow`` what came for a while before."""

    how: str
    is_inside_a_line: bool


class Proxy:
    """Carries connections to a port of this machine, each until a random number of bytes has gone one way."""

    def __init__(self, port: int, chance: random.Random, carried_max_bytes: int) -> None:
        self.cuts: list[Cut] = []
        self._target = ("127.0.0.1", port)
        self._chance = chance
        # In turn, so that few cuts are of every kind.
        self._ways = itertools.cycle(chance.sample(("close", "reset", "swallow"), 3))
        self._carried_max_bytes = carried_max_bytes
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._carriers: list[_Carrier] = []
        self._thread = threading.Thread(target=self._listen, name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()
        for carrier in self._carriers:
            carrier.stop()

    def _listen(self) -> None:
        spared_bytes = _SPARED_BYTES
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.create_connection(self._target, _STUCK_SECONDS)
            limits = [spared_bytes + self._chance.randint(0, self._carried_max_bytes) for _ in range(2)]
            spared_bytes = 0
            chance = random.Random(self._chance.random())
            carrier = _Carrier(client, server, limits, chance, self._ways, self.cuts.append)
            self._carriers.append(carrier)
            carrier.start()


class _Carrier:
    """One connection, in both directions, and the thread that carries its bytes."""

    def __init__(
        self,
        client: socket.socket,
        server: socket.socket,
        limits_bytes: list[int],
        chance: random.Random,
        ways: Iterator[str],
        report: Callable[[Cut], None],
    ) -> None:
        self._other = {client: server, server: client}
        self._left_bytes = dict(zip(self._other, limits_bytes, strict=True))
        self._chance = chance
        self._ways = ways
        self._report = report
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="carrier")
        client.settimeout(_STUCK_SECONDS)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._is_stopped.set()
        for end in self._other:
            with suppress(OSError):  # it has ended before
                end.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _run(self) -> None:
        try:
            with suppress(OSError):  # one end has reset the connection: so does the other one learn of it
                while all(self._carry_piece(source) for source in self._wait()):
                    pass
        finally:
            for end in self._other:
                end.close()

    def _wait(self) -> list[socket.socket]:
        return select.select(list(self._other), [], [])[0]

    def _carry_piece(self, source: socket.socket) -> bool:
        """Carry what has come, or its beginning; false when the connection ends."""
        piece = source.recv(self._chance.randint(1, _PIECE_MAX_BYTES))
        if not piece:
            return False
        if self._chance.random() < _DELAYED_PART:
            self._is_stopped.wait(self._chance.uniform(0, _DELAY_MAX_SECONDS))
        carried = piece[: self._left_bytes[source]]
        self._other[source].sendall(carried)
        self._left_bytes[source] -= len(carried)
        if self._left_bytes[source]:
            return True
        self._cut(is_inside_a_line=not carried.endswith(b"\n"))
        return False

    def _cut(self, *, is_inside_a_line: bool) -> None:
        how = next(self._ways)
        self._report(Cut(how, is_inside_a_line))
        if how == "swallow":
            self._swallow(time.monotonic() + self._chance.uniform(0, _SWALLOW_MAX_SECONDS))
        if how != "close":
            for end in self._other:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _swallow(self, until: float) -> None:
        """Take what is sent, and lose it."""
        ends = set(self._other)
        while ends and (patience := until - time.monotonic()) > 0:
            for end in select.select(list(ends), [], [], patience)[0]:
                if not end.recv(_PIECE_MAX_BYTES):
                    ends.discard(end)
