"""Many connections that do something in the same moment, and how long everybody else waits meanwhile.

Two users who take no part in it talk: one says a public message 20 times a second, the other notes when each arrives.
The many are driven by a process of their own, so that they and the two do not share an interpreter. Of each part are
shown the latency of all messages that were said from its beginning to a second after its end.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import select
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any, Final, Self

from bench.crowd import Crowd, allow_descriptors
from bench.protocols import WIRES
from bench.servers import CHEAPEST_HASH, chatserver, running

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SCRATCH: Final = Path(__file__).resolve().parent / "scratch"
PARTS: Final = {
    "nothing": "nobody does anything",
    "byte": "each of those who are not logged in sends one byte of a command, once a second",
    "ping": "each of those who are logged in pings, once a second",
    "leave": "all of those who are logged in close",
    "hang up": "all of those who are not logged in close",
    "return": "all connect and log in",
}
_SAY_SECONDS: Final = 0.05
_PAUSE_SECONDS: Final = 1.0
_SETTLE_SECONDS: Final = 2.0
# Nothing takes longer than this, however bad it is.
_LIMIT_SECONDS: Final = 60.0


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.herd", description=__doc__)
    parser.add_argument("--connections", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5, help="how often those send who send once a second")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, of: %(default)s")
    options = parser.parse_args()
    allow_descriptors()
    SCRATCH.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        print(f"{options.connections:,} connections; latency in ms")
        print(f"{'':10} messages      p50      p99    worst   part took s")
        for number, part in enumerate(options.parts.split(",")):
            with running(chatserver(*CHEAPEST_HASH), Path(folder) / str(number)) as server:
                latencies, seconds = _measure(server.port, part, options.connections, options.rounds)
            latencies.sort()
            p50, p99, worst = (latencies[int(share * (len(latencies) - 1))] * 1e3 for share in (0.5, 0.99, 1.0))
            print(f"{part:10} {len(latencies):8} {p50:8.1f} {p99:8.1f} {worst:8.1f} {seconds:8.1f}", flush=True)


def _measure(port: int, part: str, connections: int, rounds: int) -> tuple[list[float], float]:
    """The latency of each message in seconds, and how long the part took."""
    ours, theirs = multiprocessing.Pipe()
    many = multiprocessing.get_context("spawn").Process(
        target=_run_many, args=(theirs, port, part, connections, rounds)
    )
    many.start()
    try:
        with UdpSession(port) as talk:
            assert ours.poll(_LIMIT_SECONDS), "they can't come in"
            ours.recv()
            talk.go_on(_PAUSE_SECONDS)
            talk.latencies.clear()
            begin = perf_counter()
            ours.send("go")
            while not ours.poll():
                talk.go_on(_SAY_SECONDS)
            ended = ours.recv() - begin
            talk.go_on(_PAUSE_SECONDS)
            talk.finish()
            return talk.latencies, ended
    finally:
        ours.close()
        many.join()


class UdpSession:
    """Two users, of whom one talks and the other hears it."""

    def __init__(self, port: int) -> None:
        self.latencies: list[float] = []
        self._speaker, self._listener = (self._enter(port, name) for name in ("speaker", "listener"))
        self._said_at: list[float] = []
        self._heard = 0
        self._rest = b""
        self._say_at = perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._speaker.close()
        self._listener.close()

    def go_on(self, seconds: float) -> None:
        """Talk for so long."""
        until = perf_counter() + seconds
        while (now := perf_counter()) < until:
            if now >= self._say_at:
                self._say_at = max(self._say_at + _SAY_SECONDS, now)
                self._said_at.append(perf_counter())
                line = {"command": "PM", "message": f"|{len(self._said_at)}"}
                self._speaker.sendall(json.dumps(line).encode() + b"\n")
            self._hear(max(0.0, min(self._say_at, until) - perf_counter()))

    def finish(self) -> None:
        """Wait for what was said and has not arrived."""
        until = perf_counter() + _LIMIT_SECONDS
        while self._heard < len(self._said_at):
            assert perf_counter() < until, f"{len(self._said_at) - self._heard} messages did not arrive"
            self._hear(_SAY_SECONDS)

    def _hear(self, seconds: float) -> None:
        """Wait for so long for something to arrive, and take it. The speaker's is thrown away."""
        ready, _, _ = select.select([self._speaker, self._listener], [], [], seconds)
        if self._speaker in ready:
            self._speaker.recv(65_536)
        if self._listener in ready:
            now = perf_counter()
            *lines, self._rest = (self._rest + self._listener.recv(65_536)).split(b"\n")
            for line in lines:
                if b'"|' in line:
                    self.latencies.append(now - self._said_at[self._heard])
                    self._heard += 1

    @staticmethod
    def _enter(port: int, name: str) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port), _LIMIT_SECONDS)
        sock.sendall(json.dumps({"command": "login", "username": name, "password": "secret"}).encode() + b"\n")
        assert b'"login"' in sock.recv(65_536)
        sock.setblocking(False)
        return sock


# --- the many ---

_SAID: Final = {"byte": b" ", "ping": b'{"command":"ping"}\n'}


def _run_many(told: Connection, port: int, part: str, connections: int, rounds: int) -> None:
    """Come in, say so, wait until it is time, do it, say when it was done, wait until the other end is closed."""
    allow_descriptors()
    names = [f"many{number}" for number in range(connections)]
    with Crowd(WIRES["json"], port) as crowd, suppress(EOFError):
        silent: list[socket.socket] = []
        if part in ("ping", "leave", "return"):
            crowd.enter(names)
            crowd.settle()
        else:
            silent = [socket.create_connection(("127.0.0.1", port)) for _ in names]
            for sock in silent:
                sock.send(b"{")
        sockets = [*silent, *crowd.sockets.values()]
        if part == "return":
            _close(sockets)
        _read(crowd if part in ("ping", "leave") else None, _SETTLE_SECONDS)
        told.send("ready")
        told.recv()
        if part in _SAID:
            for _ in range(rounds):
                begin = perf_counter()
                for each in sockets:
                    each.send(_SAID[part])
                _read(crowd, begin + 1.0 - perf_counter())
        elif part == "nothing":
            sleep(rounds)
        elif part == "return":
            _return(told, port, names)
            return
        else:
            _close(sockets)
        told.send(perf_counter())
        told.recv()


def _return(told: Connection, port: int, names: list[str]) -> None:
    with Crowd(WIRES["json"], port, logins_at_once=len(names)) as crowd:
        crowd.enter(names)
        told.send(perf_counter())
        while not told.poll():
            _read(crowd, _SAY_SECONDS)


def _close(sockets: list[Any]) -> None:
    for sock in sockets:
        sock.close()


def _read(crowd: Crowd | None, seconds: float) -> None:
    """Take what comes, for so long."""
    until = perf_counter() + seconds
    while (now := perf_counter()) < until:
        events = crowd.ready() if crowd is not None and crowd.sockets else []
        for fd, _ in events:
            assert crowd is not None
            crowd.hear(fd)
        if not events:
            sleep(min(0.005, until - now))


if __name__ == "__main__":
    main()
