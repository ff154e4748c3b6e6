"""Many connections that act at the same moment, and the latency between two other users meanwhile.

One of the two users sends a public message 20 times a second; the other records the time of each arrival. The many
connections are in another process, so that they and the two users do not share an interpreter. The table shows the
latency of all messages from the beginning of the action until one second after its end.
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

from bench.connections import Connections, raise_descriptor_limit
from bench.protocols import PROTOCOLS
from bench.servers import CHEAPEST_HASH, chatserver, running

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SCRATCH: Final = Path(__file__).resolve().parent / "scratch"
ACTIONS: Final = {
    "nothing": "no connections, for comparison",
    "byte": "connections that are not logged in send one byte of a command, once a second",
    "ping": "users ping, once a second",
    "leave": "users disconnect",
    "drop": "connections that are not logged in disconnect",
    "return": "users connect and log in again",
}
_MESSAGE_SECONDS: Final = 0.05
_PAUSE_SECONDS: Final = 1.0
_QUIET_SECONDS: Final = 2.0
# Time limit of each step.
_LIMIT_SECONDS: Final = 60.0


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.simultaneous", description=__doc__)
    parser.add_argument("--connections", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of an action that is done once a second")
    parser.add_argument("--actions", default=",".join(ACTIONS), help="of %(default)s")
    options = parser.parse_args()
    raise_descriptor_limit()
    SCRATCH.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        print(f"{options.connections:,} connections; latency in ms")
        print(f"{'':10} messages      p50      p99    worst   action took s")
        for number, action in enumerate(options.actions.split(",")):
            with running(chatserver(*CHEAPEST_HASH), Path(folder) / str(number)) as server:
                latencies, seconds = _measure(server.port, action, options.connections, options.rounds)
            latencies.sort()
            p50, p99, worst = (latencies[int(share * (len(latencies) - 1))] * 1e3 for share in (0.5, 0.99, 1.0))
            print(f"{action:10} {len(latencies):8} {p50:8.1f} {p99:8.1f} {worst:8.1f} {seconds:8.1f}", flush=True)


def _measure(port: int, action: str, connections: int, rounds: int) -> tuple[list[float], float]:
    """The latency of each message, and the duration of the action, in seconds."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_act, args=(theirs, port, action, connections, rounds)
    )
    process.start()
    try:
        with LatencyProbe(port) as probe:
            assert ours.poll(_LIMIT_SECONDS), "the connections are not ready"
            ours.recv()
            probe.run(_PAUSE_SECONDS)
            probe.latencies.clear()
            begin = perf_counter()
            ours.send("start")
            while not ours.poll():
                probe.run(_MESSAGE_SECONDS)
            seconds = ours.recv() - begin
            probe.run(_PAUSE_SECONDS)
            probe.finish()
            return probe.latencies, seconds
    finally:
        ours.close()
        process.join()


class LatencyProbe:
    """Two users: a sender, and a receiver that records the latency of each message."""

    def __init__(self, port: int) -> None:
        self.latencies: list[float] = []
        self._sender, self._receiver = (self._log_in(port, name) for name in ("sender", "receiver"))
        self._sent_at: list[float] = []
        self._received = 0
        self._rest = b""
        self._next_at = perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sender.close()
        self._receiver.close()

    def run(self, seconds: float) -> None:
        """Send and receive for ``seconds``."""
        until = perf_counter() + seconds
        while (now := perf_counter()) < until:
            if now >= self._next_at:
                self._next_at = max(self._next_at + _MESSAGE_SECONDS, now)
                self._sent_at.append(perf_counter())
                line = {"command": "PM", "message": f"|{len(self._sent_at)}"}
                self._sender.sendall(json.dumps(line).encode() + b"\n")
            self._receive(max(0.0, min(self._next_at, until) - perf_counter()))

    def finish(self) -> None:
        """Wait for the messages that have not arrived."""
        until = perf_counter() + _LIMIT_SECONDS
        while self._received < len(self._sent_at):
            assert perf_counter() < until, f"{len(self._sent_at) - self._received} messages did not arrive"
            self._receive(_MESSAGE_SECONDS)

    def _receive(self, seconds: float) -> None:
        """Wait for input at most ``seconds``, and record it. Input of the sender is dropped."""
        ready, _, _ = select.select([self._sender, self._receiver], [], [], seconds)
        if self._sender in ready:
            self._sender.recv(65_536)
        if self._receiver in ready:
            now = perf_counter()
            *lines, self._rest = (self._rest + self._receiver.recv(65_536)).split(b"\n")
            for line in lines:
                if b'"|' in line:
                    self.latencies.append(now - self._sent_at[self._received])
                    self._received += 1

    @staticmethod
    def _log_in(port: int, name: str) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port), _LIMIT_SECONDS)
        sock.sendall(json.dumps({"command": "login", "username": name, "password": "secret"}).encode() + b"\n")
        assert b'"login"' in sock.recv(65_536)
        sock.setblocking(False)
        return sock


# --- the process of the many connections ---

_BYTES_SENT: Final = {"byte": b" ", "ping": b'{"command":"ping"}\n'}


def _act(control: Connection, port: int, action: str, connections: int, rounds: int) -> None:
    """Connect, report that, wait for the start, act, report the time of the end, and wait until the pipe is closed."""
    raise_descriptor_limit()
    names = [f"many{number}" for number in range(connections)]
    with Connections(PROTOCOLS["json"], port) as users, suppress(EOFError):
        strangers: list[socket.socket] = []
        if action in ("ping", "leave", "return"):
            users.log_in(names)
            users.wait_until_quiet()
        else:
            strangers = [socket.create_connection(("127.0.0.1", port)) for _ in names]
            for sock in strangers:
                sock.send(b"{")
        sockets = [*strangers, *users.sockets.values()]
        if action == "return":
            _close(sockets)
        _read(users if action in ("ping", "leave") else None, _QUIET_SECONDS)
        control.send("ready")
        control.recv()
        if action in _BYTES_SENT:
            for _ in range(rounds):
                begin = perf_counter()
                for each in sockets:
                    each.send(_BYTES_SENT[action])
                _read(users, begin + 1.0 - perf_counter())
        elif action == "nothing":
            sleep(rounds)
        elif action == "return":
            _log_in_again(control, port, names)
            return
        else:
            _close(sockets)
        control.send(perf_counter())
        control.recv()


def _log_in_again(control: Connection, port: int, names: list[str]) -> None:
    with Connections(PROTOCOLS["json"], port, logins_at_once=len(names)) as users:
        users.log_in(names)
        control.send(perf_counter())
        while not control.poll():
            _read(users, _MESSAGE_SECONDS)


def _close(sockets: list[Any]) -> None:
    for sock in sockets:
        sock.close()


def _read(users: Connections | None, seconds: float) -> None:
    """Read and drop input for ``seconds``."""
    until = perf_counter() + seconds
    while (now := perf_counter()) < until:
        events = users.ready() if users is not None and users.sockets else []
        for fd, _ in events:
            assert users is not None
            users.handle_input(fd)
        if not events:
            sleep(min(0.005, until - now))


if __name__ == "__main__":
    main()
